"""The health of a dataset, without reading its shards, which `simimg verify` does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from simimg.doctor.check_result import CheckResult, gigabytes
from simimg.doctor.disk import file_system, network_kind
from simimg.errors import DataError
from tfrecords.format.layout import Layout, ShardInfo
from tfrecords.format.naming import INFO_FILE, num_folds
from tfrecords.format.quarantine import read_quarantine
from tfrecords.format.tfds_metadata import is_tfds_folder, num_examples_by_split

_MAX_REFUSED = 0.05  # of all files; a larger share mostly has a single cause
_MIN_EXAMPLES = 512  # from which a split has several shards
_OTHER_FILES = 256  # that a process has open besides shards
_MAX_NAMED = 3


def check_dataset(
    dataset_dir: Path, *, num_cores: int, max_open_files: int, mounts: Path = Path("/proc/self/mountinfo")
) -> CheckResult:
    """Check that a dataset opens, its counts, its splits, the sizes of its shards and its rejected files.

    `num_cores` may read it, and `max_open_files` may be open at once, below 0 for unlimited. `mounts` is the system's
    list of file systems.
    """
    facts: dict[str, Any] = {"dataset_dir": str(dataset_dir), "opens": False}
    rows = [("folder", str(dataset_dir))]
    is_foreign = not Layout.exists(dataset_dir) and is_tfds_folder(dataset_dir)
    try:
        layout = None if is_foreign else Layout.load(dataset_dir)
        refused = [] if is_foreign else read_quarantine(dataset_dir)
        promised = num_examples_by_split(dataset_dir)
    except DataError as error:
        return CheckResult(title="dataset", facts=facts, rows=tuple(rows), problems=(str(error),))
    if layout is None:
        other = "was written by another program. It is read as a stream, and simimg verify cannot check it."
        return CheckResult(
            title="dataset",
            facts={**facts, "opens": True, "splits": promised},
            rows=(*rows, *((split, f"{count:,}") for split, count in promised.items())),
            problems=tuple(_split_problems(dataset_dir, promised)),
            notes=(f"{dataset_dir} {other}",),
        )
    counts = {split: layout.num_examples(split) for split in layout.splits}
    shards = [info for infos in layout.splits.values() for info in infos]
    num_examples, num_bytes = sum(counts.values()), sum(info.num_bytes for info in shards)
    share = len(refused) / max(1, len(refused) + num_examples)
    problems = [*_shard_problems(dataset_dir, shards), *_split_problems(dataset_dir, counts)]
    if promised != counts:
        problems.append(
            f"{dataset_dir / INFO_FILE} counts {promised}, but layout.json {counts}. "
            f"simimg verify --dataset_dir={dataset_dir} shows which one was changed."
        )
    if share > _MAX_REFUSED:
        problems.append(
            f"{len(refused):,} of {len(refused) + num_examples:,} files were rejected ({share:.0%}). Repair them, and "
            f"run `simimg convert` again with --append; {dataset_dir / 'quarantine.jsonl'} lists the reasons."
        )
    if 0 <= max_open_files < len(shards) + _OTHER_FILES:
        problems.append(
            f"{dataset_dir} has {len(shards):,} shards, but only {max_open_files:,} files may be open at once. Run: "
            f"ulimit -n {2 * (len(shards) + _OTHER_FILES)}"
        )
    kind = file_system(dataset_dir, mounts)
    notes = list(_shard_notes(layout, num_cores))
    if network_kind(kind):
        notes.append(f"{dataset_dir} is on a network file system ({kind}). Copy it to a local disk for training.")
    notes.append(f"shards were not read; simimg verify --dataset_dir={dataset_dir} checks every byte.")
    facts |= {
        "opens": True,
        **{name: getattr(layout, name) for name in ("name", "version", "encoding", "image_size")},
        "num_classes": len(layout.class_names),
        "splits": counts,
        "num_shards": {split: len(infos) for split, infos in layout.splits.items()},
        "shard_bytes": [info.num_bytes for info in shards],
        "num_refused": len(refused),
        "file_system": kind,
    }
    sizes = sorted(info.num_bytes for info in shards) or [0]
    classes = _plural(len(layout.class_names), "class", "es")
    size = layout.size_text if layout.own_shapes else f"{layout.image_size} px"
    rows += [
        ("images", f"{num_examples:,} of {size}, {layout.encoding}, {classes}"),
        *((split, f"{count:,} in {_plural(len(layout.splits[split]), 'shard')}") for split, count in counts.items()),
        ("shards", f"{gigabytes(num_bytes)}, from {gigabytes(sizes[0])} to {gigabytes(sizes[-1])} each"),
        ("rejected", f"{len(refused):,} ({share:.1%})"),
    ]
    return CheckResult(title="dataset", facts=facts, rows=tuple(rows), problems=tuple(problems), notes=tuple(notes))


def _shard_problems(dataset_dir: Path, shards: list[ShardInfo]) -> Iterator[str]:
    missing, changed = [], []
    for info in shards:
        try:
            length = (dataset_dir / info.file).stat().st_size
        except OSError:
            missing.append(info.file)
            continue
        if length != info.num_bytes:
            changed.append(f"{info.file} has {length:,} bytes instead of {info.num_bytes:,}")
    for found, what in ((missing, "are missing"), (changed, "have the wrong length")):
        if found:
            named = "; ".join(found[:_MAX_NAMED]) + ("; …" if len(found) > _MAX_NAMED else "")
            yield (
                f"{len(found):,} of {len(shards):,} shards of {dataset_dir} {what} ({named}). Copy the folder again, "
                "or run the same `simimg convert` with another --name."
            )


def _split_problems(dataset_dir: Path, counts: dict[str, int]) -> Iterator[str]:
    if num_folds(counts) and all(counts.values()):
        return
    for split, use in (("train", "to train on"), ("test", "to measure on")):
        if not counts.get(split):
            what = "has no examples" if split in counts else "is missing"
            yield (
                f"the split {split} of {dataset_dir} {what}, so there is nothing {use}. Run: "
                "simimg convert --splits=train=0.75,test=0.25"
            )


def _shard_notes(layout: Layout, num_cores: int) -> Iterator[str]:
    for split, infos in layout.splits.items():
        if len(infos) < num_cores and layout.num_examples(split) >= _MIN_EXAMPLES:
            yield (
                f"the split {split} has {_plural(len(infos), 'shard')} for {num_cores} cores. simimg's readers still "
                "use all cores; tools that read one shard per thread do not."
            )


def _plural(count: int, noun: str, ending: str = "s") -> str:
    return f"{count:,} {noun}{'' if count == 1 else ending}"
