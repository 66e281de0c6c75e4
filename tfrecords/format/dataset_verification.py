"""Verifies a data set folder: every byte, every count, every name, and that its parts agree.

layout.json has a checksum of its own and one of each other file; what a person is told is where the fault lies: which
record of a shard, at which byte. Shards, which are nearly all of it, are read once.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from tfrecords.base_errors import DataError
from tfrecords.format.atomic_files import file_sha256
from tfrecords.format.layout import LAYOUT_FILE, Layout, Offsets, ShardInfo, raw_offsets
from tfrecords.format.manifest import MANIFEST_FILE, read_manifest
from tfrecords.format.manifest_check import ExampleRows
from tfrecords.format.naming import shard_name
from tfrecords.format.shard import index_bytes, index_path
from tfrecords.format.shard_scan import ShardScan, scan_shard
from tfrecords.format.tfds_metadata import INFO_FILE, metadata_files, num_examples_by_split

__all__ = ["REPORT_FILE", "Verification", "verify"]

REPORT_FILE = "report.html"  # may be written at any time, and ends with its own checksum
_QUARANTINE_FILE = "quarantine.jsonl"  # a line for each file that was refused; not there where none was
_MAX_NAMED = 3  # files that are missing, or too many, before they share a sentence: a half copied folder is one cause
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
    there = {entry.name for entry in os.scandir(dataset_dir)}
    shards = {info.file for infos in layout.splits.values() for info in infos}
    others = _needed(layout) | layout.files.keys()
    missing = (shards | others) - there
    extra = {name for name in there - shards - others - {LAYOUT_FILE} if not name.startswith(".")}  # .DS_Store
    changed = dict(_changed_files(dataset_dir, layout, others - missing))
    if REPORT_FILE in extra:
        extra.remove(REPORT_FILE)
        changed |= _report_changed(dataset_dir / REPORT_FILE)
    problems = [
        *_together(dataset_dir, missing, "is missing", "lacks {} files"),
        *_together(dataset_dir, extra, f"is not in {LAYOUT_FILE}", f"has {{}} files that are not in {LAYOUT_FILE}"),
        *changed.values(),
        *_layout_problems(dataset_dir, layout),
    ]
    unsound = changed.keys() | missing | extra
    if not unsound & metadata_files(layout).keys():
        problems += _metadata_problems(dataset_dir, layout)
    rows = None
    if MANIFEST_FILE not in unsound:
        try:
            rows = ExampleRows(read_manifest(dataset_dir))
        except DataError as error:
            problems.append(str(error))
    if rows is not None:
        problems += (f"{dataset_dir / MANIFEST_FILE} {problem}." for problem in rows.problems(layout))
        if _QUARANTINE_FILE not in unsound:
            problems += _quarantine_problems(dataset_dir, layout, rows.num_refused)

    num_examples = 0
    for split, infos in layout.splits.items():
        for number, info in enumerate(infos):
            path = dataset_dir / info.file
            if info.file in missing:
                continue
            try:
                scan = scan_shard(path, progress=progress)
            except OSError as error:
                problems.append(_unreadable(path, error))
                continue
            num_examples += len(scan.ids)
            found = _shard_problems(path, info, scan, layout)
            if not found:
                if rows is not None:
                    found += (f"{path}{problem}." for problem in rows.shard_problems(split, number, scan))
                if layout.encoding != "raw" and index_path(path).name not in unsound:
                    found += _index_problems(path, scan)
            problems += found
    return Verification(num_examples=num_examples, problems=tuple(problems))


def _together(dataset_dir: Path, names: Iterable[str], one: str, many: str) -> Iterator[str]:
    """Yields a sentence a file, or one about all of them where they are many."""
    names = sorted(names)
    if len(names) <= _MAX_NAMED:
        yield from (f"{dataset_dir / name} {one}." for name in names)
    else:
        what = many.format(f"{len(names):,}")
        yield f"{dataset_dir} {what}: {', '.join(names[:_MAX_NAMED])} and {len(names) - _MAX_NAMED:,} more."


def _changed_files(dataset_dir: Path, layout: Layout, names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yields the name of each file that is not what it was, and a sentence about it."""
    if (dataset_dir / LAYOUT_FILE).read_bytes() != layout.to_bytes():
        yield LAYOUT_FILE, f"{dataset_dir / LAYOUT_FILE} says what it said, but its bytes were changed."
    for name in sorted(names):
        path = dataset_dir / name
        try:
            sha256 = file_sha256(path)
        except OSError as error:
            yield name, _unreadable(path, error)
            continue
        if name not in layout.files:
            yield name, f"{dataset_dir / LAYOUT_FILE} has no checksum of {name}."
        elif sha256 != layout.files[name]:
            yield name, f"{path}: its SHA-256 is not the one in {LAYOUT_FILE}."


def _report_changed(path: Path) -> dict[str, str]:
    """Returns the report's name and a sentence about it, or nothing where it is as it was written."""
    try:
        html = path.read_bytes()
    except OSError as error:
        return {path.name: _unreadable(path, error)}
    end = _REPORT_END.search(html)
    if end and hashlib.sha256(html[: end.start()]).hexdigest().encode() == end[1]:
        return {}
    return {path.name: f"{path}: its checksum, in its last line, fails. Delete it; `simimg convert` writes it again."}


def _unreadable(path: Path, error: OSError) -> str:
    return f"{path} cannot be read: {error.strerror or error}."


def _needed(layout: Layout) -> set[str]:
    """Returns the names of the files, besides layout.json and the shards, that no data set is without."""
    shards = (info for infos in layout.splits.values() for info in infos)
    indices = () if layout.encoding == "raw" else (index_path(Path(info.file)).name for info in shards)
    return {MANIFEST_FILE, *metadata_files(layout), *indices}


def _layout_problems(dataset_dir: Path, layout: Layout) -> Iterator[str]:
    if layout.offsets != (raw_offsets(layout.image_size) if layout.encoding == "raw" else Offsets()):
        yield f"{dataset_dir / LAYOUT_FILE}: its offsets do not fit {layout.image_size} px {layout.encoding} records."
    for split, shards in layout.splits.items():
        for number, info in enumerate(shards):
            expected = shard_name(layout.name, split, number, len(shards))
            if info.file != expected:
                yield f"{dataset_dir / info.file} should be named {expected}."


def _quarantine_problems(dataset_dir: Path, layout: Layout, num_refused: int) -> Iterator[str]:
    path = dataset_dir / _QUARANTINE_FILE
    num_lines = 0
    if _QUARANTINE_FILE in layout.files:
        with open(path, "rb") as file:
            num_lines = sum(1 for _ in file)
    if num_lines != num_refused:
        yield f"{path} lists {num_lines:,} refused files, manifest.parquet {num_refused:,}."


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
