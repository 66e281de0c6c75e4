"""Find wrong labels, outliers and bad images in a collection.

Labels are compared with the images by models that have not seen them, and each finding says how probable it is that the
label is wrong. Copies with several labels, outliers, blurred, dark, bright, plain, bordered and odd images, pages of
text, classes that are hardly told apart, and splits that differ or share copies are found as well. --kinds=image looks
at single images alone and makes no index. Nothing is changed.

What was decided about findings, on the page of `simimg serve` or in a table, is kept beside the index and not shown
again. --csv writes the table, in which people fill in the column `decision` with right, drop or relabel; --decisions
takes it back. --delete and --relabel write the lists that `simimg edit` takes.

Examples:
    simimg audit --image_dir=photos --index_dir=indexes/photos --report=audit.html --csv=audit.csv
    simimg audit --dataset_dir=data/photos/1.0.0 --decisions=audit.csv --relabel=labels.csv --delete=drop.csv
    simimg edit --dataset_dir=data/photos/1.0.0 --relabel=labels.csv --delete=drop.csv
"""

from __future__ import annotations

import dataclasses
import shlex
import time
from pathlib import Path
from typing import Any

from PIL import Image

from simimg import api
from simimg.commands.console import Result, note, stage_bars
from simimg.errors import UsageError
from simimg.health.collection_audit import Audit, wanted_kinds
from simimg.health.decision_table import sure_labels, write_deletions, write_findings, write_labels
from simimg.health.finding import KINDS, Finding, in_order
from simimg.image_files import check_max_pixels
from simimg.report.audit_report import FindingRow, FindingSection, write_audit_report
from simimg.report.contact_sheet import Tile
from simimg.similarity.finding_decisions import FINDING_DECISIONS
from tfrecords.convert.sources import EXCLUDE_FROM_HELP, EXCLUDE_HELP, INCLUDE_HELP, check_patterns
from tfrecords.locations import location_text, url_of
from tfrecords.options import option
from tfrecords.storage.object_cache import CacheOptions

JSON_KEYS = (
    "findings counts num_images num_refused num_left_out label_accuracy notes csv report delete num_deleted relabel "
    "num_relabeled seconds"
)

_SHOWN = 5  # findings of a kind in the terminal
_IN_REPORT = 60
_TILE_PX = 320
_BESIDE = 2  # images of the evidence beside an image
_SURE = 0.9  # score of the labels that --relabel takes without decisions


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(CacheOptions):
    """Options of `audit`. Raises UsageError unless there is something to audit, and for kinds that do not exist."""

    image_dir: Path | None = option(
        "Image folder, whose class folders are the labels; with --dataset_dir, the one that it was converted from.",
        None,
    )
    dataset_dir: Path | None = option("Dataset folder or URL, DATA_DIR/NAME/VERSION.", None, url=True)
    index_dir: Path | None = option(
        "Keep the index in this folder, so that the next call is fast; alone, audit the index as it is.",
        None,
        url=True,
    )
    model: str = option("As for `simimg index`.", "lite0")
    kinds: tuple[str, ...] = option(
        f"What to look for: all, image for what single images show, or some of {', '.join(KINDS)}.", ("all",)
    )
    decisions: Path | None = option(
        "CSV file of an earlier audit with the column `decision` filled in; stored beside the index of --index_dir.",
        None,
    )
    csv: Path | None = option(
        "Also write the findings as a table (CSV), with what was decided about them.", None, output=True
    )
    report: Path | None = option("Also write a page (HTML) that shows the findings.", None, output=True)
    delete: Path | None = option(
        "Also write the images that were decided to be dropped, for `simimg edit --delete`.", None, output=True
    )
    relabel: Path | None = option(
        "Also write the new labels, for `simimg edit --relabel`: those that were decided, or without any decision all "
        f"that are sure to {_SURE:g} or more.",
        None,
        output=True,
    )
    include: tuple[str, ...] = option(INCLUDE_HELP, (), repeated="GLOB")
    exclude: tuple[str, ...] = option(EXCLUDE_HELP, (), repeated="GLOB")
    exclude_from: Path | None = option(EXCLUDE_FROM_HELP, None)
    max_pixels: int = option("As for `simimg index`.", 0, words={"auto": 0})

    def __post_init__(self) -> None:
        super().__post_init__()
        check_max_pixels(self.max_pixels)
        check_patterns(self.include, self.exclude)
        wanted_kinds(self.kinds)
        if self.image_dir is None and self.dataset_dir is None and self.index_dir is None:
            raise UsageError("name what to audit: --image_dir=PATH, --dataset_dir=PATH or --index_dir=PATH.")
        if self.delete is not None and self.decisions is None and self.index_dir is None:
            raise UsageError(
                "--delete needs --decisions: nothing is dropped that nobody has looked at. Write the findings with "
                "--csv=FILE, and fill in its column `decision`, or decide on the page of `simimg serve` and give its "
                "--index_dir."
            )


def run(options: Options) -> Result:
    """Audit, with progress bars, and write what was asked for."""
    start = time.perf_counter()
    with stage_bars() as show:
        found = api.audit(
            options.image_dir,
            dataset_dir=options.dataset_dir,
            index_dir=options.index_dir,
            model=options.model,
            kinds=options.kinds,
            decisions=options.decisions,
            include=options.include,
            exclude=options.exclude,
            exclude_from=options.exclude_from,
            max_pixels=options.max_pixels,
            progress=show,
        )
    for text in found.notes:
        note(f"note: {text}")
    for path, reason in found.refused[:_SHOWN]:
        note(f"skipped {path}: {reason}")
    if len(found.refused) > _SHOWN:
        note(f"… and {len(found.refused) - _SHOWN:,} more")
    num_deleted = None if options.delete is None else write_deletions(found.decided, options.delete)
    num_relabeled = None
    if options.relabel is not None:
        are_decided = options.decisions is not None or any(
            one.word in FINDING_DECISIONS for one in found.decided.values()
        )
        labels = found.decided if are_decided else sure_labels(found.findings, _SURE)
        num_relabeled = write_labels(labels, options.relabel)
    if options.csv is not None:
        write_findings(in_order((*found.findings, *found.settled)), found.decided, options.csv)
    if options.report is not None:
        _write_report(options, options.report, found)
    values: dict[str, Any] = {
        "findings": [{**dataclasses.asdict(one), "evidence": list(one.evidence)} for one in found.findings],
        "counts": found.counts,
        "num_images": found.num_images,
        "num_refused": len(found.refused),
        "num_left_out": found.num_left_out,
        "label_accuracy": None if found.label_accuracy is None else round(found.label_accuracy, 6),
        "notes": list(found.notes),
        "csv": None if options.csv is None else str(options.csv),
        "report": None if options.report is None else str(options.report),
        "delete": None if options.delete is None else str(options.delete),
        "num_deleted": num_deleted,
        "relabel": None if options.relabel is None else str(options.relabel),
        "num_relabeled": num_relabeled,
        "seconds": round(time.perf_counter() - start, 3),
    }
    return Result(values=values, text=_text(options, found, values), num_skipped=len(found.refused))


def _text(options: Options, found: Audit, values: dict[str, Any]) -> str:
    lines = []
    for kind, number in found.counts.items():
        lines.append(f"{kind}: {number:,}, {KINDS[kind]}")
        shown = found.of(kind)[:_SHOWN]
        lines += [f"  {one.score:.3f}  {_subject(one)}: {one.reason}" for one in shown]
        if number > len(shown):
            lines.append(f"  … and {number - len(shown):,} more")
    if not found.findings:
        lines.append("nothing was found")
    paths = {one.path for one in found.findings if one.path}
    lines.append(f"{len(paths):,} of {found.num_images:,} images should be looked at; {values['seconds']:.0f} s")
    if found.num_left_out:
        lines.append(f"{found.num_left_out:,} findings that were decided about are left out")
    if options.csv is not None:
        lines.append(f"table for decisions: {options.csv}")
    if options.report is not None:
        lines.append(f"report: {options.report}")
    if options.delete is not None:
        lines.append(f"{values['num_deleted']:,} images to delete: {options.delete}")
    if options.relabel is not None:
        lines.append(f"{values['num_relabeled']:,} new labels: {options.relabel}")
    return "\n".join(lines)


def _subject(one: Finding) -> str:
    return one.path or one.label or one.split


def _write_report(options: Options, report: Path, found: Audit) -> None:
    sections = []
    for kind, number in found.counts.items():
        rows = [_row(found, one) for one in found.of(kind)[:_IN_REPORT]]
        sections.append(FindingSection(kind=kind, meaning=KINDS[kind], rows=rows, num_rows=number))
    source = options.dataset_dir or options.image_dir or options.index_dir
    facts = {"findings": f"{len(found.findings):,}"}
    if found.label_accuracy is not None:
        facts["of the labels are confirmed"] = f"{found.label_accuracy:.1%}"
    given = [
        f"--{name}={location_text(value)}"
        for name in ("image_dir", "dataset_dir", "index_dir")
        if (value := vars(options)[name])
    ]
    csv = options.csv or Path("audit.csv")
    decide = ["simimg", "audit", *given, f"--decisions={csv}", "--relabel=labels.csv", "--delete=drop.csv"]
    commands = {f"Fill in the column decision of {csv} with right, drop or relabel, then write the lists:": decide}
    if options.csv is None:
        commands = {
            "Write the findings as a table for decisions:": ["simimg", "audit", *given, f"--csv={csv}"]
        } | commands
    if options.dataset_dir is not None and not url_of(options.dataset_dir):  # it is edited where it was made
        edit = ["simimg", "edit", f"--dataset_dir={options.dataset_dir}", "--relabel=labels.csv", "--delete=drop.csv"]
        commands["Make a corrected version of the dataset:"] = edit
    write_audit_report(
        report,
        about=location_text(source or ""),
        num_images=found.num_images,
        num_found=len({one.path for one in found.findings if one.path}),
        facts=facts,
        sections=sections,
        notes=found.notes,
        commands={text: shlex.join(line) for text, line in commands.items()} if found.findings else {},
    )


def _row(found: Audit, one: Finding) -> FindingRow:
    evidence = [Tile(found.audited.picture(path, _TILE_PX), path) for path in one.evidence]
    if not one.path:
        return FindingRow(first=None, heading=_subject(one), reason=one.reason, evidence=evidence)
    image: Image.Image | None = found.audited.picture(one.path, _TILE_PX)
    first = Tile(image, one.path, f"{one.score:.3f}: {one.reason}")
    return FindingRow(first=first, evidence=evidence[:_BESIDE])
