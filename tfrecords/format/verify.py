"""Verifies a data set folder: every checksum, every count, every name, and that its parts agree."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tfrecords.errors import DataError
from tfrecords.format.example import decode_example
from tfrecords.format.files import file_sha256
from tfrecords.format.layout import Layout, ShardInfo, raw_offsets
from tfrecords.format.manifest import OK, ManifestRow, read_manifest
from tfrecords.format.metadata import metadata_files, num_examples_by_split
from tfrecords.format.naming import shard_name
from tfrecords.format.record import FRAMING_BYTES
from tfrecords.format.shard import ShardReader, index_bytes, index_path

__all__ = ["Verification", "verify"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verification:
    """What `verify` found: the number of examples that were read, and one sentence a problem."""

    num_examples: int
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether there is no problem."""
        return not self.problems


def verify(dataset_dir: Path, *, progress: Callable[[int], None] = lambda num_examples: None) -> Verification:
    """Reads all of a data set and compares each part with what the others say of it.

    Args:
        dataset_dir: a folder that `tfrecords.convert` wrote.
        progress: called with the number of examples read since the last call.
    """
    problems: list[str] = []
    try:
        layout = Layout.load(dataset_dir)
        manifest = read_manifest(dataset_dir)
        promised = num_examples_by_split(dataset_dir)
    except DataError as error:
        return Verification(num_examples=0, problems=(str(error),))

    found = {split: layout.num_examples(split) for split in layout.splits}
    if promised != found:
        problems.append(f"{dataset_dir}: dataset_info.json counts {promised}, layout.json {found}.")
    for name, content in metadata_files(layout).items():
        path = dataset_dir / name
        if not path.is_file():
            problems.append(f"{path} is missing.")
        elif path.read_bytes() != content:
            problems.append(f"{path} is not what belongs to layout.json.")
    in_manifest = Counter(row.split for row in manifest if row.status == OK)
    if dict(in_manifest) != {split: count for split, count in found.items() if count}:
        problems.append(f"{dataset_dir}: manifest.parquet counts {dict(in_manifest)}, layout.json {found}.")
    if layout.encoding == "raw" and layout.offsets != raw_offsets(layout.image_size):
        problems.append(f"{dataset_dir}: layout.json's offsets do not fit {layout.image_size} px raw records.")

    places = {(row.split, row.shard, row.position): row for row in manifest if row.status == OK}
    num_examples = 0
    for split, shards in layout.splits.items():
        for number, info in enumerate(shards):
            expected_name = shard_name(layout.name, split, number, len(shards))
            if info.file != expected_name:
                problems.append(f"{dataset_dir / info.file} should be named {expected_name}.")
            rows = [places.get((split, number, position)) for position in range(info.num_examples)]
            count, shard_problems = _verify_shard(dataset_dir, layout, info, rows)
            problems.extend(shard_problems)
            num_examples += count
            progress(count)

    known = {info.file for shards in layout.splits.values() for info in shards}
    for path in sorted(dataset_dir.glob("*.tfrecord-?????-of-?????")):
        if path.name not in known:
            problems.append(f"{path} is not in layout.json.")
    return Verification(num_examples=num_examples, problems=tuple(problems))


def _verify_shard(
    dataset_dir: Path, layout: Layout, info: ShardInfo, rows: list[ManifestRow | None]
) -> tuple[int, list[str]]:
    path = dataset_dir / info.file
    if not path.is_file():
        return 0, [f"{path} is missing."]
    problems = []
    offsets: list[tuple[int, int]] = []
    at = count = 0
    try:
        for payload in ShardReader(path):
            length = len(payload) + FRAMING_BYTES
            offsets.append((at, length))
            at += length
            row = rows[count] if count < len(rows) else None
            count += 1
            if problem := _record_problem(payload, layout, row):
                problems.append(f"{path}: record {count - 1}: {problem}.")
    except DataError as error:
        return count, [*problems, str(error)]
    if count != info.num_examples:
        problems.append(f"{path} has {count} records, layout.json says {info.num_examples}.")
    if at != info.num_bytes:
        problems.append(f"{path} has {at} bytes, layout.json says {info.num_bytes}.")
    if file_sha256(path) != info.sha256:
        problems.append(f"{path}: its SHA-256 is not the one in layout.json.")
    if layout.encoding != "raw":
        index = index_path(path)
        if not index.is_file():
            problems.append(f"{index} is missing.")
        elif index.read_bytes() != index_bytes(offsets):
            problems.append(f"{index} does not fit the shard.")
    return count, problems


def _record_problem(payload: bytes, layout: Layout, row: ManifestRow | None) -> str:
    try:
        example = decode_example(payload)
    except ValueError as error:
        return f"no tf.train.Example: {error}"
    if sorted(example) != ["id", "image", "label"]:
        return f"has the features {sorted(example)} instead of id, image, label"
    if layout.encoding == "raw" and len(payload) + FRAMING_BYTES != layout.offsets.record_bytes:
        return f"is {len(payload) + FRAMING_BYTES} bytes long instead of {layout.offsets.record_bytes}"
    if row is None or (row.id, row.label) != (example["id"], example["label"]):
        return f"id {example['id']!r}, label {example['label']!r} are not what manifest.parquet has in this place"
    return ""
