"""What came of a conversion: the manifest's rows, the refused files, and the summary that people are shown."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tfrecords.base_errors import ConversionError
from tfrecords.convert.plan.conversion_job import ConversionJob, FinalPlan
from tfrecords.convert.sources import printable
from tfrecords.convert.state.receipts import Receipt
from tfrecords.format.layout import Layout
from tfrecords.format.manifest import Manifest
from tfrecords.format.quarantine import Reason, Refusal, RefusedFile, read_quarantine, write_quarantine

__all__ = ["ConvertSummary", "check_refusals", "make_manifest", "refused_files", "summarize"]

_REASONS = tuple(reason.value for reason in Reason)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvertSummary:
    """What a conversion did; `seconds` and `images_per_s` are of this call, `num_converted` the images it wrote."""

    dataset_dir: Path
    num_examples: int
    splits: dict[str, int]
    num_refused: int
    reasons: dict[str, int]
    seconds: float
    images_per_s: float
    num_converted: int
    warnings: tuple[str, ...]


def check_refusals(job: ConversionJob, receipt: Receipt, work: Path) -> None:
    """Raises ConversionError if nothing could be converted, or less than `max_refused` allows."""
    source = job.source
    num_files = len(source.paths)
    num_ok = int((receipt.positions >= 0).sum())
    if not num_ok and job.existing is None:
        first = min(receipt.refused)
        if len(receipt.refused) > len(source.refused):  # one whose bytes were looked at tells more
            first = min(row for row in receipt.refused if row not in source.refused)
        refusal = receipt.refused[first]
        raise ConversionError(
            f"{source.location}: none of its {num_files} files can be decoded; the first, "
            f"{printable(source.paths[first])}: {refusal.reason}, {refusal.detail}. Look at the files."
        )
    limit = job.config.refusal_limit(num_files)
    num_refused = num_files - num_ok
    if limit is None or num_refused <= limit:
        return
    write_quarantine(work, [_refused(source.paths[row], receipt.refused[row]) for row in sorted(receipt.refused)])
    counts = Counter(refusal.reason.value for refusal in receipt.refused.values())
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items()))
    raise ConversionError(
        f"{num_refused:,} of {num_files:,} files were refused ({reasons}), more than --max_refused="
        f"{job.config.max_refused} allows. {work / 'quarantine.jsonl'} lists them. Mend them and give the same command "
        "again: only the shards that they are in are done anew. Or allow more, and what is finished is taken."
    )


def make_manifest(job: ConversionJob, settled: FinalPlan, receipt: Receipt) -> Manifest:
    """Returns a row for every file, by id; with the rows of the data set that is added to."""
    num_rows = len(job.source.paths)
    shards = np.full(num_rows, -1, np.int32)
    positions = np.full(num_rows, -1, np.int64)
    splits = np.full(num_rows, -1, np.int8)
    for planned in settled.plan.shards:
        rows = planned.rows[receipt.positions[planned.rows] >= 0]
        shards[rows] = planned.shard
        positions[rows] = np.arange(len(rows))
        splits[rows] = job.splits.index(planned.split)
    reasons = np.full(num_rows, -1, np.int8)
    for row, refusal in receipt.refused.items():
        reasons[row] = _REASONS.index(refusal.reason.value)
    new = Manifest(
        ids=job.ids,
        paths=[path if path.isascii() else printable(path) for path in job.source.paths],
        sha256=receipt.sha256,
        pixels_sha256=receipt.pixels_sha256,
        phash=receipt.phash,
        widths=receipt.widths,
        heights=receipt.heights,
        labels=np.asarray(job.labels, np.int32),
        split_names=job.splits,
        splits=splits,
        shards=shards,
        positions=positions,
        groups=settled.groups,
        reason_names=_REASONS,
        reasons=reasons,
    )
    return new if job.existing is None else _merged(job.existing.manifest, new)


def refused_files(job: ConversionJob, manifest: Manifest, receipt: Receipt) -> list[RefusedFile]:
    """Returns the manifest's refused files with what is known of each, in the order of their ids."""
    details: dict[str, RefusedFile] = {}
    if job.existing is not None:
        details = {file.path: file for file in read_quarantine(job.existing.folder)}
    for row, refusal in receipt.refused.items():
        file = _refused(job.source.paths[row], refusal)
        details[file.path] = file
    return [details[manifest.paths[index]] for index in np.flatnonzero(~manifest.ok)]


def summarize(
    dataset_dir: Path,
    layout: Layout,
    manifest: Manifest,
    start: float,
    num_converted: int,
    notes: Sequence[str],
) -> ConvertSummary:
    """Returns the summary of a call that began at `start`, by time.perf_counter()."""
    seconds = time.perf_counter() - start
    ok = manifest.ok
    counts = np.zeros((len(layout.class_names), len(manifest.split_names)), np.int64)
    np.add.at(counts, (manifest.labels[ok], manifest.splits[ok]), 1)
    missing = [
        f"class {name!r} has no photo in split {split!r} ({counts[label].sum()} in all)"
        for label, name in enumerate(layout.class_names)
        for number, split in enumerate(manifest.split_names)
        if not counts[label, number]
    ]
    reasons = np.bincount(manifest.reasons[~ok], minlength=len(manifest.reason_names))
    by_reason = {name: int(count) for name, count in zip(manifest.reason_names, reasons, strict=True) if count}
    return ConvertSummary(
        dataset_dir=dataset_dir,
        num_examples=int(ok.sum()),
        splits={split: layout.num_examples(split) for split in layout.splits},
        num_refused=int((~ok).sum()),
        reasons=dict(sorted(by_reason.items())),
        seconds=round(seconds, 3),
        images_per_s=round(num_converted / seconds, 1),
        num_converted=num_converted,
        warnings=(*notes, *missing),
    )


def _refused(path: str, refusal: Refusal) -> RefusedFile:
    return RefusedFile(path=printable(path), reason=refusal.reason.value, detail=refusal.detail)


def _merged(old: Manifest, new: Manifest) -> Manifest:
    """Returns the rows of both, by id; a new row takes the place of a refused one of the same id."""
    kept = np.flatnonzero(~np.isin(old.ids, new.ids))
    order = np.argsort(np.concatenate((old.ids[kept], new.ids)), kind="stable")

    def joined(name: str) -> np.ndarray:
        column: np.ndarray = np.concatenate((getattr(old, name)[kept], getattr(new, name)))
        return column[order]

    def renumbered(codes: np.ndarray, there: Sequence[str], here: Sequence[str]) -> np.ndarray:
        numbers: np.ndarray = np.array([*(here.index(name) for name in there), -1], np.int8)[codes]
        return numbers

    paths = [*(old.paths[index] for index in kept.tolist()), *new.paths]
    old = dataclasses.replace(
        old,
        splits=renumbered(old.splits, old.split_names, new.split_names),
        reasons=renumbered(old.reasons, old.reason_names, new.reason_names),
    )
    return Manifest(
        ids=joined("ids"),
        paths=[paths[index] for index in order.tolist()],
        sha256=joined("sha256"),
        pixels_sha256=joined("pixels_sha256"),
        phash=joined("phash"),
        widths=joined("widths"),
        heights=joined("heights"),
        labels=joined("labels"),
        split_names=new.split_names,
        splits=joined("splits"),
        shards=joined("shards"),
        positions=joined("positions"),
        groups=joined("groups"),
        reason_names=new.reason_names,
        reasons=joined("reasons"),
    )
