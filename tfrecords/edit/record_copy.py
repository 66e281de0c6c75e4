"""Copies records from finished shards into a new one, with another id or label where it is asked for.

Only the padded varints of id and label are replaced, so images keep their bytes, and so does every other feature of an
example. Records of added datasets with several labels per image are encoded again if their classes have other numbers.
The checksums of each record are checked before it is copied.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from tfrecords.base_errors import DataError
from tfrecords.format.example import decode_lists, find_features
from tfrecords.format.layout import Layout, ShardInfo
from tfrecords.format.manifest import Manifest
from tfrecords.format.parse_errors import parser_errors
from tfrecords.format.record import FOOTER_BYTES, HEADER_BYTES, varint
from tfrecords.format.record_layout import INT_BYTES, encode_with_tail
from tfrecords.format.schema import Schema
from tfrecords.format.shard import ShardReader, ShardWriter, open_shard

Recoder = Callable[[bytes, int, int], bytes]
"""From a serialized Example, its id, and its new id, to the new Example."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class RecordPlaces:
    """Where the record of each row is: in record `positions[row]` of shard `paths[shards[row]]`, with id `ids[row]`.

    The columns are int64 `[num_rows]`, for the rows of all datasets one after the other; `shards` is -1 for a rejected
    file. `firsts` are the first row of each dataset, `strides` the length of its records in bytes, 0 if they differ,
    and `recoders` what makes its records those of the first dataset, None if only id and label can change. `sized` says
    whether shards have a sidecar of sizes.
    """

    paths: list[Path]
    shards: np.ndarray
    positions: np.ndarray
    ids: np.ndarray
    firsts: np.ndarray
    strides: list[int]
    recoders: list[Recoder | None]
    sized: bool = False

    @classmethod
    def of(
        cls, datasets: Sequence[tuple[Path, Layout, Manifest]], recoders: Sequence[Recoder | None] = ()
    ) -> RecordPlaces:
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
            firsts=np.cumsum([0, *map(len, manifests)])[:-1],
            strides=[layout.offsets.record_bytes for _, layout, _ in datasets],
            recoders=[None, *(recoders or [None] * (len(datasets) - 1))],
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
    current, reader, offsets = -1, ShardReader(target), np.empty((0, 2), np.int64)
    datasets = np.searchsorted(places.firsts, rows, side="right") - 1
    with open_shard(target, index=not places.strides[0], sizes=places.sized) as writer:
        assert isinstance(writer, ShardWriter)  # datasets of other forms are refused
        for row, dataset in zip(rows.tolist(), datasets.tolist(), strict=True):
            stride, recode = places.strides[dataset], places.recoders[dataset]
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
                changed = recode(payload, before[0], after[0]) if recode else _changed(payload, before, after)
            if changed == payload:
                writer.write_framed(record)
            else:
                writer.write(changed)
    return writer.info()


def recoder(old: Schema, new: Schema, numbers: Sequence[int]) -> Recoder:
    """Return the function that encodes examples of `old` as those of `new`, where label i has the number `numbers[i]`.

    It raises ValueError if an example is not one of `old`, or has another id.
    """

    def recode(payload: bytes, id: int, new_id: int) -> bytes:
        example = decode_lists(payload)
        if example["id"] != [id]:
            raise ValueError(f"its id should be {id}. Run `simimg verify`")
        labels, values = old.values_of(example)
        tail = new.tail(sorted(numbers[label] for label in labels), [values[spec.name] for spec in new.features])
        return encode_with_tail(example["image"][0], new_id, tail)

    return recode


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
