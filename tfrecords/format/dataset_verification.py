"""Verifies a dataset folder: every byte, every count, every name, and that its parts agree.

layout.json has a checksum of itself and of every other file, so any damage is found. The rest of the work is to say
where it is: which record of which shard, at which byte. Shards are nearly all of a dataset's bytes and are read once.
The manifest is compared with them in columns, one shard at a time, which takes some tens of megabytes for a million
examples.
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
from tfrecords.format.jpeg_frame import size_of_example, sizes_bytes, sizes_path
from tfrecords.format.layout import Layout, ShardInfo
from tfrecords.format.manifest import Manifest, read_manifest
from tfrecords.format.naming import (
    INDEX_FOLDER,
    INFO_FILE,
    LAYOUT_FILE,
    MANIFEST_FILE,
    QUARANTINE_FILE,
    REPORT_FILE,
    SIDECAR_FOLDERS,
    SIZES_FOLDER,
    TFRECORD,
    find_index,
    index_name,
    shard_name,
)
from tfrecords.format.record_layout import Offsets
from tfrecords.format.shard import ShardReader, index_bytes
from tfrecords.format.shard_scan import ShardScan, scan_shard
from tfrecords.format.tfds_metadata import metadata_files, num_examples_by_split

# More missing or unknown files than this share one sentence: a half-copied folder is one cause.
_MAX_NAMED = 3
_REPORT_END = re.compile(rb"<!-- sha256 ([0-9a-f]{64}) -->\n\Z")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verification:
    """Result of `verify`: the number of examples read, and one sentence per problem."""

    num_examples: int
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether there is no problem."""
        return not self.problems


def verify(dataset_dir: Path, *, progress: Callable[[int], None] = lambda num_examples: None) -> Verification:
    """Read all of a dataset folder and compare its parts with each other.

    `progress` is called with the number of examples read since the last call.
    """
    try:
        layout = Layout.load(dataset_dir)
    except DataError as error:
        return Verification(num_examples=0, problems=(str(error),))
    there = set(_file_names(dataset_dir))
    shards = {info.file for infos in layout.splits.values() for info in infos}
    others = _needed(layout) | layout.files.keys()
    missing = (shards | others) - there
    extra = {name for name in there - shards - others - {LAYOUT_FILE} if not name.startswith(".")}  # .DS_Store
    changed = dict(_changed_files(dataset_dir, layout, others - missing))
    if REPORT_FILE in extra:
        extra.remove(REPORT_FILE)
        changed |= _report_changed(dataset_dir / REPORT_FILE)
    problems = [
        *_file_problems(dataset_dir, missing, "is missing", "lacks {} files"),
        *_file_problems(
            dataset_dir, extra, f"is not in {LAYOUT_FILE}", f"has {{}} files that are not in {LAYOUT_FILE}"
        ),
        *changed.values(),
        *_layout_problems(dataset_dir, layout),
    ]
    unsound = changed.keys() | missing | extra
    if not unsound & metadata_files(layout).keys():
        problems += _metadata_problems(dataset_dir, layout)
    rows = None
    if MANIFEST_FILE not in unsound:
        try:
            rows = _ExampleRows(read_manifest(dataset_dir))
        except DataError as error:
            problems.append(str(error))
    if rows is not None:
        problems += (f"{dataset_dir / MANIFEST_FILE} {problem}." for problem in rows.problems(layout))
        if QUARANTINE_FILE not in unsound:
            problems += _quarantine_problems(dataset_dir, layout, rows.num_refused)

    num_examples = 0
    for split, infos in layout.splits.items():
        for number, info in enumerate(infos):
            path = dataset_dir / info.file
            if info.file in missing:
                continue
            try:
                scan = scan_shard(path, schema=layout.schema, progress=progress)
            except OSError as error:
                problems.append(_unreadable(path, error))
                continue
            num_examples += len(scan.ids)
            found = _shard_problems(path, info, scan, layout)
            if not found:
                if rows is not None:
                    found += (f"{path}{problem}." for problem in rows.shard_problems(split, number, scan))
                if (index := _index_of(layout, info)) and index not in unsound:
                    found += _index_problems(path, scan)
                if _has_sizes(layout) and _sizes_of(layout, info) not in unsound:
                    found += _size_problems(path)
            problems += found
    return Verification(num_examples=num_examples, problems=tuple(problems))


def _file_problems(dataset_dir: Path, names: Iterable[str], one: str, many: str) -> Iterator[str]:
    """Yield one sentence per file, or one for all of them if they are many."""
    names = sorted(names)
    if len(names) <= _MAX_NAMED:
        yield from (f"{dataset_dir / name} {one}." for name in names)
    else:
        what = many.format(f"{len(names):,}")
        yield f"{dataset_dir} {what}: {', '.join(names[:_MAX_NAMED])} and {len(names) - _MAX_NAMED:,} more."


def _changed_files(dataset_dir: Path, layout: Layout, names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield the name of each file that was changed since the conversion, and a sentence about it."""
    if (dataset_dir / LAYOUT_FILE).read_bytes() != layout.to_bytes():
        yield LAYOUT_FILE, f"{dataset_dir / LAYOUT_FILE} has the right values, but its bytes were changed."
    for name in sorted(names):
        path = dataset_dir / name
        try:
            sha256 = file_sha256(path)
        except OSError as error:
            yield name, _unreadable(path, error)
            continue
        if name not in layout.files:
            yield name, f"{dataset_dir / LAYOUT_FILE} has no checksum for {name}."
        elif sha256 != layout.files[name]:
            yield name, f"{path}: its SHA-256 differs from the one in {LAYOUT_FILE}."


def _report_changed(path: Path) -> dict[str, str]:
    """Return the report's name and a sentence about it, or nothing if it is as it was written."""
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
    """Return the names of the files that every dataset has, besides layout.json and the shards."""
    shards = [info for infos in layout.splits.values() for info in infos]
    indices = {_index_of(layout, info) for info in shards} - {""}
    sizes = {_sizes_of(layout, info) for info in shards} if _has_sizes(layout) else set()
    return {MANIFEST_FILE, *metadata_files(layout), *indices, *sizes}


def _index_of(layout: Layout, info: ShardInfo) -> str:
    """Return the name of a shard's sidecar, which is beside it in datasets of earlier versions; "" if it has none."""
    known = [name for name in (index_name(info.file), f"{info.file}.idx") if name in layout.files]
    is_needed = not layout.offsets.record_bytes and layout.file_format == TFRECORD
    return known[0] if known else index_name(info.file) if is_needed else ""


def _file_names(dataset_dir: Path) -> Iterator[str]:
    """Yield the names of all that is in a dataset folder; those of sidecars with their folder."""
    for entry in os.scandir(dataset_dir):
        if entry.name in SIDECAR_FOLDERS and entry.is_dir():
            yield from (f"{entry.name}/{inner.name}" for inner in os.scandir(entry) if inner.name[:1] != ".")
        else:
            yield entry.name


def _sizes_of(layout: Layout, info: ShardInfo) -> str:
    """Return the name of a shard's sidecar of sizes, which is elsewhere in datasets of earlier versions."""
    names = [f"{place}{info.file}.sizes" for place in (f"{SIZES_FOLDER}/", f"{INDEX_FOLDER}/", "")]
    return next((name for name in names if name in layout.files), names[0])


def _has_sizes(layout: Layout) -> bool:
    return layout.own_shapes and layout.file_format == TFRECORD


def _layout_problems(dataset_dir: Path, layout: Layout) -> Iterator[str]:
    for split, shards in layout.splits.items():
        for number, info in enumerate(shards):
            expected = shard_name(layout.name, split, number, len(shards), layout.file_format)
            if info.file != expected:
                yield f"{dataset_dir / info.file} should be named {expected}."


def _quarantine_problems(dataset_dir: Path, layout: Layout, num_refused: int) -> Iterator[str]:
    path = dataset_dir / QUARANTINE_FILE
    num_lines = 0
    if QUARANTINE_FILE in layout.files:
        with open(path, "rb") as file:
            num_lines = sum(1 for _ in file)
    if num_lines != num_refused:
        yield f"{path} lists {num_lines:,} rejected files, manifest.parquet {num_refused:,}."


def _metadata_problems(dataset_dir: Path, layout: Layout) -> Iterator[str]:
    """Yield how the metadata files differ from layout.json, although their bytes are what was written."""
    try:
        promised = num_examples_by_split(dataset_dir)
    except DataError as error:
        yield str(error)
        return
    found = {split: layout.num_examples(split) for split in layout.splits}
    if promised != found:
        yield f"{dataset_dir / INFO_FILE} counts {promised} examples, layout.json {found}."
        return
    for name, content in metadata_files(layout).items():
        if (dataset_dir / name).read_bytes() != content:
            yield f"{dataset_dir / name} does not match layout.json."


def _shard_problems(path: Path, info: ShardInfo, scan: ShardScan, layout: Layout) -> list[str]:
    """Return what is wrong with a shard itself; the checksum is mentioned only if nothing else explains the damage."""
    if scan.sha256 != info.sha256:
        for shards in layout.splits.values():
            for other in shards:
                if scan.sha256 == other.sha256:
                    return [f"{path} has the content of {other.file}."]
    problems = [f"{path}: {fault}." for fault in scan.faults]
    if scan.whole and len(scan.ids) != info.num_examples:
        problems.append(f"{path} has {len(scan.ids)} records; layout.json says {info.num_examples}.")
    elif not problems and scan.num_bytes != info.num_bytes:
        problems.append(f"{path} has {scan.num_bytes} bytes; layout.json says {info.num_bytes}.")
    elif not problems and scan.sha256 != info.sha256:
        problems.append(f"{path}: its SHA-256 differs from the one in layout.json.")
    record_bytes = Offsets.of(layout.encoding, layout.image_size, layout.schema, channels=layout.channels).record_bytes
    if not problems and record_bytes:
        lengths = np.array(scan.lengths, np.int64)
        wrong = np.flatnonzero(lengths != record_bytes)
        if len(wrong):
            found = f"{lengths[wrong[0]]} bytes long instead of {record_bytes}"
            problems.append(f"{path}: record {wrong[0]} is {found}.")
    return problems


def _index_problems(path: Path, scan: ShardScan) -> Iterator[str]:
    if find_index(path).read_bytes() != index_bytes(scan.lengths):
        yield f"{find_index(path)} does not match the shard."


def _size_problems(path: Path) -> Iterator[str]:
    sizes = (number for payload in ShardReader(path) for number in size_of_example(payload))
    if sizes_path(path).read_bytes() != sizes_bytes(sizes):
        yield f"{sizes_path(path)} does not match the shard."


class _ExampleRows:
    """The rows of the examples in a manifest, whose rows are in any order, sorted by shard and position."""

    def __init__(self, manifest: Manifest) -> None:
        ok = np.flatnonzero(manifest.ok)
        self._order = ok[np.lexsort((manifest.positions[ok], manifest.shards[ok], manifest.splits[ok]))]
        self._keys = _key(manifest.splits[self._order], manifest.shards[self._order])
        self._manifest = manifest

    @property
    def num_refused(self) -> int:
        """Number of files that did not become examples."""
        return len(self._manifest) - len(self._order)

    def problems(self, layout: Layout) -> Iterator[str]:
        """Yield what is wrong with the manifest as a whole, as the rest of a sentence that begins with its name."""
        manifest, order = self._manifest, self._order
        counts = {name: int((manifest.splits[order] == code).sum()) for code, name in enumerate(manifest.split_names)}
        found = {split: count for split, count in counts.items() if count}
        promised = {split: layout.num_examples(split) for split in layout.splits}
        if found != {split: count for split, count in promised.items() if count}:
            yield f"has {found} examples; layout.json has {promised}"
        elif num_lost := int((manifest.splits[order] < 0).sum()):
            yield f"has {num_lost:,} examples without a split"
        ids = np.sort(manifest.ids)
        again = ids[1:][ids[1:] == ids[:-1]]
        if len(again):
            yield f"has id {again[0]} more than once{_more(len(again), 'ids')}"
        labels = manifest.labels[order]
        lowest = -1 if layout.schema.label_type == "multi" else 0  # -1: an image without any of the labels
        unknown = np.flatnonzero((labels < lowest) | (labels >= len(layout.class_names)))
        if len(unknown):
            row = order[unknown[0]]
            yield (
                f"has label {manifest.labels[row]} for id {manifest.ids[row]}; layout.json has "
                f"{len(layout.class_names):,} classes{_more(len(unknown), 'labels')}"
            )

    def shard_problems(self, split: str, shard: int, scan: ShardScan) -> Iterator[str]:
        """Yield how a shard's records differ from the manifest, as the rest of a sentence that begins with the shard's
        name.
        """
        manifest = self._manifest
        if split not in manifest.split_names:
            return  # the counts differ, too, and `problems` reports that
        key = _key(np.array(manifest.split_names.index(split)), np.array(shard))
        start, stop = np.searchsorted(self._keys, [key, key + 1])
        rows = self._order[start:stop]
        if len(rows) != len(scan.ids):
            yield f" has {len(scan.ids)} records; manifest.parquet has {len(rows)} rows for it"
            return
        wrong = manifest.positions[rows] != np.arange(len(rows))
        wrong |= (manifest.ids[rows] != scan.ids) | (manifest.labels[rows] != scan.labels)
        places = np.flatnonzero(wrong)
        if not len(places):
            return
        at, row = places[0], rows[places[0]]
        where = f" at byte {sum(scan.lengths[:at])}" if scan.framed else ""
        yield (
            f": record {at}{where} has id {scan.ids[at]} and label {scan.labels[at]}; manifest.parquet has "
            f"id {manifest.ids[row]}, label {manifest.labels[row]} and position {manifest.positions[row]} for this "
            f"record{_more(len(places), 'records')}"
        )


def _more(count: int, what: str) -> str:
    return f", and {count - 1:,} more such {what}" if count > 1 else ""


def _key(splits: np.ndarray, shards: np.ndarray) -> np.ndarray:
    return splits.astype(np.int64) << 32 | shards.astype(np.int64)
