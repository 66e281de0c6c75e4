"""Copies records from finished shards into a new one, with another id or label where it is asked for.

Only the padded varints of id and label are replaced, so images keep their bytes, and so does every other feature of an
example. The checksums of each record are checked before it is copied.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tfrecords.base_errors import DataError
from tfrecords.format.example import find_features
from tfrecords.format.layout import Layout, ShardInfo
from tfrecords.format.manifest import Manifest
from tfrecords.format.parse_errors import parser_errors
from tfrecords.format.record import FOOTER_BYTES, HEADER_BYTES, varint
from tfrecords.format.record_layout import INT_BYTES
from tfrecords.format.shard import ShardReader, ShardWriter, open_shard


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class RecordPlaces:
    """Where the record of each row is: in record `positions[row]` of shard `paths[shards[row]]`, with id `ids[row]`.

    The columns are int64 `[num_rows]`, for the rows of all datasets one after the other; `shards` is -1 for a rejected
    file. `stride` is the length of a record in bytes, 0 if they differ. `sized` says whether shards have a sidecar of
    sizes.
    """

    paths: list[Path]
    shards: np.ndarray
    positions: np.ndarray
    ids: np.ndarray
    stride: int
    sized: bool = False

    @classmethod
    def of(cls, datasets: Sequence[tuple[Path, Layout, Manifest]]) -> RecordPlaces:
        """Return the places of all examples of these datasets, which have one encoding and one size."""
        paths: list[Path] = []
        columns = []
        for folder, layout, manifest in datasets:
            firsts = np.zeros(len(manifest.split_names) + 1, np.int64)  # the last one is for rejected files
            for number, split in enumerate(manifest.split_names):
                firsts[number] = len(paths)
                paths += [folder / info.file for info in layout.splits.get(split, ())]
            columns.append(np.where(manifest.ok, firsts[manifest.splits] + manifest.shards, -1))
        manifests = [manifest for _, _, manifest in datasets]
        return cls(
            paths=paths,
            shards=np.concatenate(columns),
            positions=np.concatenate([manifest.positions for manifest in manifests]),
            ids=np.concatenate([manifest.ids for manifest in manifests]),
            stride=datasets[0][1].offsets.record_bytes,
            sized=datasets[0][1].own_shapes,
        )


def write_records(
    target: Path, rows: np.ndarray, places: RecordPlaces, manifest: Manifest, old_labels: np.ndarray
) -> ShardInfo:
    """Write the shard `target` from the records of `rows`, with the ids and labels of `manifest`.

    `rows` are int64 `[num_records]`, and `old_labels`, int `[num_rows]`, are the labels that the records have.

    Raises:
        DataError: a record is damaged, or is not the one that its manifest says.
        OSError: the shard cannot be written.
    """
    stride = places.stride
    current, reader, offsets = -1, ShardReader(target), np.empty((0, 2), np.int64)
    with open_shard(target, index=not stride, sizes=places.sized) as writer:
        assert isinstance(writer, ShardWriter)  # datasets of other forms are refused
        for row in rows.tolist():
            shard, position = int(places.shards[row]), int(places.positions[row])
            if shard != current:
                current, reader = shard, ShardReader(places.paths[shard])
                offsets = offsets if stride else reader.offsets()
            if not stride and position >= len(offsets):
                raise DataError(f"{reader.path}: it has no record {position}. Run `simimg verify`.")
            place = (position * stride, stride) if stride else tuple(offsets[position].tolist())
            record = reader.read_framed(*place)
            before = (int(places.ids[row]), int(old_labels[row]))
            after = (int(manifest.ids[row]), int(manifest.labels[row]))
            payload = record[HEADER_BYTES:-FOOTER_BYTES]
            with parser_errors(lambda fault: DataError(f"{reader.path}: record {position}: {fault}.")):  # noqa: B023
                changed = _changed(payload, before, after)
            if changed == payload:
                writer.write_framed(record)
            else:
                writer.write(changed)
    return writer.info()


def _changed(payload: bytes, before: tuple[int, int], after: tuple[int, int]) -> bytes:
    """Return a serialized Example with other values of `id` and `label`.

    Raises ValueError if it has another id than `before`, or another label where the label changes. A label that stays
    may have any form, as several labels have.
    """
    features = find_features(lambda at, length: payload[at : at + length], 0, len(payload))
    parts = bytearray(payload)
    for key, old, new in zip(("id", "label"), before, after, strict=True):
        if key == "label" and old == new:
            continue
        end = features[key].end if key in features else 0
        value = slice(end - INT_BYTES, end)
        if end < INT_BYTES or payload[value] != varint(old, INT_BYTES):
            raise ValueError(f"its {key} should be {old}. Run `simimg verify`")
        parts[value] = varint(new, INT_BYTES)
    return bytes(parts)
