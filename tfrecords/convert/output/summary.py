"""The summary of a conversion, and the limit on rejected files."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tfrecords.base_errors import ConversionError
from tfrecords.convert.output.split_shares import split_shares
from tfrecords.convert.plan.conversion_job import ConversionJob
from tfrecords.convert.plan.label_conflicts import LabelConflict, find_conflicts
from tfrecords.convert.sources import printable
from tfrecords.convert.state.receipts import Receipt
from tfrecords.format.dataset_images import count_classes
from tfrecords.format.layout import Layout
from tfrecords.format.manifest import Manifest
from tfrecords.format.naming import QUARANTINE_FILE
from tfrecords.format.quarantine import write_quarantine

_MISSING_SHOWN = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvertSummary:
    """Result of a conversion. `seconds`, `images_per_s` and `num_converted`, the number of images written, are of this
    call. `label_conflicts` are the copies in several classes, at most `MAX_LISTED`.
    """

    dataset_dir: Path
    num_examples: int
    splits: dict[str, int]
    num_refused: int
    reasons: dict[str, int]
    seconds: float
    images_per_s: float
    num_converted: int
    warnings: tuple[str, ...]
    label_conflicts: tuple[LabelConflict, ...] = ()


def check_refusals(job: ConversionJob, receipt: Receipt, work: Path) -> None:
    """Raise ConversionError if no file could be converted, or more files were rejected than `max_refused` allows."""
    source = job.source
    num_files = len(source.paths)
    num_ok = int((receipt.positions >= 0).sum())
    if not num_ok and job.previous is None:
        first = min(receipt.refused)
        if len(receipt.refused) > len(source.refused):  # one whose bytes were read is more informative
            first = min(row for row in receipt.refused if row not in source.refused)
        refusal = receipt.refused[first]
        raise ConversionError(
            f"{source.location}: none of its {num_files} files can be decoded. The first is "
            f"{printable(source.paths[first])}: {refusal.reason}, {refusal.detail}. Look at the files."
        )
    limit = job.config.refusal_limit(num_files)
    num_refused = num_files - num_ok
    if limit is None or num_refused <= limit:
        return
    write_quarantine(work, receipt.refused_files(source.paths))
    counts = Counter(refusal.reason.value for refusal in receipt.refused.values())
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items()))
    raise ConversionError(
        f"{num_refused:,} of {num_files:,} files were rejected ({reasons}), more than --max_refused="
        f"{job.config.max_refused} allows. {work / QUARANTINE_FILE} lists them. Repair them and give the same command "
        "again: only their shards are written again. Or allow more, and all finished shards are used."
    )


def summarize(
    dataset_dir: Path,
    layout: Layout,
    manifest: Manifest,
    start: float,
    num_converted: int,
    notes: Sequence[str],
) -> ConvertSummary:
    """Return the summary of a call that began at `start`, by time.perf_counter()."""
    seconds = time.perf_counter() - start
    ok = manifest.ok
    counts = count_classes(dataset_dir, layout, manifest)
    is_single = layout.schema.label_type == "single"
    has_classes = is_single or layout.schema.label_type == "multi"
    named = counts[: len(layout.class_names)]
    missing = _without_images(layout.class_names, manifest.split_names, named) if has_classes else []
    shares = split_shares(layout, manifest, counts)
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
        warnings=(
            *notes,
            *([shares.sentence()] if shares else []),
            *missing,
        ),
        label_conflicts=tuple(find_conflicts(manifest, layout.class_names)) if is_single else (),
    )


def _without_images(class_names: Sequence[str], splits: Sequence[str], counts: np.ndarray) -> list[str]:
    """Return a note about classes without an image in one of the splits; `counts` is `[num_classes, num_splits]`."""
    missing = [
        f"{class_names[label]!r} has no image in split {splits[split]!r} ({counts[label].sum()} in total)"
        for label, split in np.argwhere(counts == 0).tolist()
    ]
    if len(missing) < 2:
        return [f"class {each}" for each in missing]
    num_classes = int((counts == 0).any(axis=1).sum())
    shown = "; ".join(missing[:_MISSING_SHOWN])
    more = f"; and {len(missing) - _MISSING_SHOWN:,} more" if len(missing) > _MISSING_SHOWN else ""
    plural = "classes have" if num_classes > 1 else "class has"
    return [f"{num_classes:,} {plural} no image in a split: {shown}{more}"]
