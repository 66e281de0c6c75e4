"""Verifies a data set folder: every byte, every count, every name, and that its parts agree.

layout.json has a checksum of its own and one of each other file; what a person is told is where the fault lies: which
record of a shard, at which byte. Shards, which are nearly all of it, are read once.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from tfrecords.errors import DataError
from tfrecords.format.files import file_sha256
from tfrecords.format.layout import LAYOUT_FILE, Layout, ShardInfo, raw_offsets
from tfrecords.format.manifest import MANIFEST_FILE, Manifest, read_manifest
from tfrecords.format.metadata import INFO_FILE, metadata_files, num_examples_by_split
from tfrecords.format.naming import shard_name
from tfrecords.format.scan import ShardScan, scan_shard
from tfrecords.format.shard import index_bytes, index_path

__all__ = ["REPORT_FILE", "Verification", "verify"]

REPORT_FILE = "report.html"  # may be written at any time, and ends with its own checksum
_REPORT_END = re.compile(rb"<!-- sha256 ([0-9a-f]{64}) -->\n\Z")


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
    try:
        layout = Layout.load(dataset_dir)
    except DataError as error:
        return Verification(num_examples=0, problems=(str(error),))
    changed = dict(_changed_files(dataset_dir, layout))
    problems = [*changed.values(), *_layout_problems(dataset_dir, layout)]
    if not changed.keys() & metadata_files(layout).keys():
        problems += _metadata_problems(dataset_dir, layout)
    rows = None
    if MANIFEST_FILE not in changed:
        try:
            rows = _Rows(read_manifest(dataset_dir))
        except DataError as error:
            problems.append(str(error))
    promised = {split: layout.num_examples(split) for split in layout.splits}
    if rows is not None and rows.counts() != {split: count for split, count in promised.items() if count}:
        problems.append(f"{dataset_dir / MANIFEST_FILE} counts {rows.counts()} examples, layout.json {promised}.")

    num_examples = 0
    for split, shards in layout.splits.items():
        for number, info in enumerate(shards):
            path = dataset_dir / info.file
            try:
                scan = scan_shard(path, progress=progress)
            except FileNotFoundError:
                problems.append(f"{path} is missing.")
                continue
            except OSError as error:
                problems.append(f"{path} cannot be read: {error.strerror or error}.")
                continue
            num_examples += len(scan.ids)
            found = _shard_problems(path, info, scan, layout)
            if not found:
                if rows is not None:
                    found += rows.problems(path, split, number, scan)
                if layout.encoding != "raw" and index_path(path).name not in changed:
                    found += _index_problems(path, scan)
            problems += found
    return Verification(num_examples=num_examples, problems=tuple(problems))


def _changed_files(dataset_dir: Path, layout: Layout) -> Iterator[tuple[str, str]]:
    """Yields the name of each file besides the shards that is not what it was, and a sentence about it."""
    if (dataset_dir / LAYOUT_FILE).read_bytes() != layout.to_bytes():
        yield LAYOUT_FILE, f"{dataset_dir / LAYOUT_FILE} says what it said, but its bytes were changed."
    for name, sha256 in layout.files.items():
        path = dataset_dir / name
        try:
            if file_sha256(path) != sha256:
                yield name, f"{path}: its SHA-256 is not the one in layout.json."
        except FileNotFoundError:
            yield name, f"{path} is missing."
        except OSError as error:
            yield name, f"{path} cannot be read: {error.strerror or error}."
    known = {LAYOUT_FILE, *layout.files, *(info.file for infos in layout.splits.values() for info in infos)}
    for entry in sorted(os.scandir(dataset_dir), key=lambda entry: entry.name):
        if entry.name == REPORT_FILE:
            if not _report_is_whole(Path(entry.path)):
                yield REPORT_FILE, f"{entry.path}: its checksum, in its last line, fails. Delete it; convert writes it."
        elif entry.name not in known and not entry.name.startswith("."):  # .DS_Store, .nfs0001
            yield entry.name, f"{entry.path} is not in layout.json."


def _report_is_whole(path: Path) -> bool:
    html = path.read_bytes()
    end = _REPORT_END.search(html)
    return bool(end and hashlib.sha256(html[: end.start()]).hexdigest().encode() == end[1])


def _layout_problems(dataset_dir: Path, layout: Layout) -> Iterator[str]:
    path = dataset_dir / LAYOUT_FILE
    if layout.encoding == "raw" and layout.offsets != raw_offsets(layout.image_size):
        yield f"{path}: its offsets do not fit {layout.image_size} px raw records."
    needed = {MANIFEST_FILE, *metadata_files(layout)}
    for split, shards in layout.splits.items():
        for number, info in enumerate(shards):
            expected = shard_name(layout.name, split, number, len(shards))
            if info.file != expected:
                yield f"{dataset_dir / info.file} should be named {expected}."
            if layout.encoding != "raw":
                needed.add(index_path(Path(info.file)).name)
    for name in sorted(needed - layout.files.keys()):
        yield f"{path} has no checksum of {name}."


def _metadata_problems(dataset_dir: Path, layout: Layout) -> Iterator[str]:
    """Yields what the metadata's files say otherwise than layout.json; their bytes are what was written."""
    try:
        promised = num_examples_by_split(dataset_dir)
    except DataError as error:
        yield str(error)
        return
    found = {split: layout.num_examples(split) for split in layout.splits}
    if promised != found:
        yield f"{dataset_dir / INFO_FILE} counts {promised}, layout.json {found}."
        return
    for name, content in metadata_files(layout).items():
        if (dataset_dir / name).read_bytes() != content:
            yield f"{dataset_dir / name} is not what belongs to layout.json."


def _shard_problems(path: Path, info: ShardInfo, scan: ShardScan, layout: Layout) -> list[str]:
    """Returns what is wrong with a shard by itself; the checksum only where nothing else tells more."""
    if scan.sha256 != info.sha256:
        for shards in layout.splits.values():
            for other in shards:
                if scan.sha256 == other.sha256:
                    return [f"{path} holds what belongs into {other.file}."]
    problems = [f"{path}: {fault}." for fault in scan.faults]
    if scan.whole and len(scan.ids) != info.num_examples:
        problems.append(f"{path} has {len(scan.ids)} records, layout.json says {info.num_examples}.")
    elif not problems and scan.num_bytes != info.num_bytes:
        problems.append(f"{path} has {scan.num_bytes} bytes, layout.json says {info.num_bytes}.")
    elif not problems and scan.sha256 != info.sha256:
        problems.append(f"{path}: its SHA-256 is not the one in layout.json.")
    if not problems and layout.encoding == "raw":
        lengths = np.array(scan.lengths, np.int64)
        wrong = np.flatnonzero(lengths != layout.offsets.record_bytes)
        if len(wrong):
            should = f"{lengths[wrong[0]]} bytes long instead of {layout.offsets.record_bytes}"
            problems.append(f"{path}: record {wrong[0]} is {should}.")
    return problems


def _index_problems(path: Path, scan: ShardScan) -> Iterator[str]:
    ends = np.cumsum(np.array(scan.lengths, np.int64)).tolist()
    pairs = ((end - length, length) for end, length in zip(ends, scan.lengths, strict=True))
    if index_path(path).read_bytes() != index_bytes(pairs):
        yield f"{index_path(path)} does not fit the shard."


class _Rows:
    """The manifest's examples, in the order of their records."""

    def __init__(self, manifest: Manifest) -> None:
        ok = np.flatnonzero(manifest.ok)
        self._order = ok[np.lexsort((manifest.positions[ok], manifest.shards[ok], manifest.splits[ok]))]
        self._keys = _key(manifest.splits[self._order], manifest.shards[self._order])
        self._manifest = manifest

    def counts(self) -> dict[str, int]:
        """Returns the number of examples of each split that has any."""
        manifest = self._manifest
        counts = np.bincount(manifest.splits[self._order], minlength=len(manifest.split_names)).tolist()
        return {name: count for name, count in zip(manifest.split_names, counts, strict=True) if count}

    def problems(self, path: Path, split: str, shard: int, scan: ShardScan) -> Iterator[str]:
        """Yields where a shard's records are not the manifest's."""
        manifest = self._manifest
        if split not in manifest.split_names:
            return  # the counts say so
        key = _key(np.array(manifest.split_names.index(split)), np.array(shard))
        start, stop = np.searchsorted(self._keys, [key, key + 1])
        rows = self._order[start:stop]
        if len(rows) != len(scan.ids):
            yield f"{path} has {len(scan.ids)} records, manifest.parquet {len(rows)} rows for them."
            return
        wrong = manifest.positions[rows] != np.arange(len(rows))
        wrong |= (manifest.ids[rows] != scan.ids) | (manifest.labels[rows] != scan.labels)
        places = np.flatnonzero(wrong)
        if len(places):
            at = places[0]
            more = f", nor are those of {len(places) - 1:,} more of its records" if len(places) > 1 else ""
            yield (
                f"{path}: record {at}: id {scan.ids[at]}, label {scan.labels[at]} are not what manifest.parquet has in "
                f"this place (id {manifest.ids[rows[at]]}, label {manifest.labels[rows[at]]}){more}."
            )


def _key(splits: np.ndarray, shards: np.ndarray) -> np.ndarray:
    return splits.astype(np.int64) << 32 | shards.astype(np.int64)
