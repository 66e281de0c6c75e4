"""Find copies in an image folder and plan which to keep.

Candidates are byte-identical files, then files with similar perceptual hashes or embeddings. Every candidate pair is
verified, so each copy is listed with the edit that made it, and with how much differs. Nothing is removed: --plan
writes a file that you can read and change. `simimg apply --plan=FILE` moves the files that it lists to a quarantine
folder beside the plan, and `simimg undo --plan=FILE` moves everything back.

A plan removes copies that differ in nothing but size and compression. All others (crops, mirrored ones, text that was
laid over them) are questions, which stay unless --plan_edits names their edits. Images with other content, or other
colors in some places, are no copies unless --edits says so.

The index is created or updated first; --index_dir keeps it, so that the next call is fast, and keeps what you decide:
groups that were settled by `simimg decide` or on the page of `simimg serve` are not shown again. You can also write a
decision into a group of the plan, such as "decision": "not copies" ("keep all", "this one"), which `simimg apply`
stores.

--fast makes no index: it finds only copies that were at most turned by quarters, mirrored, stretched, resized or
compressed, and compares at full size only what a plan may remove.

Examples:
    simimg duplicates --image_dir=photos --plan=plan.json
    simimg duplicates --image_dir=photos --fast
"""

from __future__ import annotations

import dataclasses
import shlex
import time
from collections.abc import Set
from pathlib import Path

import numpy as np

from simimg import api
from simimg.commands.console import Result, note, noting_skipped, stage_bars
from simimg.commands.copy_tiles import THRESHOLD_HELP, left_out, marked_pair
from simimg.commands.engine_options import EngineOptions
from simimg.errors import UsageError
from simimg.image_files import LoadedFile, check_max_pixels, load_files
from simimg.report.contact_sheet import Tile
from simimg.report.copies_report import COPY_PX, CopyRow, write_copies_report
from simimg.report.number_format import storage
from simimg.similarity.candidate_pairs import check_threshold
from simimg.similarity.duplicate_groups import Duplicates, Group, Member
from simimg.similarity.edits import EDITS_HELP, LABEL, PLANNED, counted_edits, planned_edits
from simimg.similarity.embeddings import load_embedder
from simimg.similarity.index_images import IndexImages
from simimg.similarity.keeper_choice import check_keep
from simimg.similarity.plan_file import is_planned, is_reference, reference_dirs_of
from simimg.similarity.search_index import SearchIndex
from tfrecords.base_errors import as_named
from tfrecords.convert.sources import (
    EXCLUDE_FROM_HELP,
    EXCLUDE_HELP,
    INCLUDE_HELP,
    SUFFIXES,
    Selection,
    check_patterns,
    walk,
)
from tfrecords.locations import location_text
from tfrecords.machine_limits import keep_freed_memory
from tfrecords.options import option

JSON_KEYS = (
    "groups files num_images num_copies num_planned num_pairs_examined num_refused num_left_out returned "
    "threshold seconds plan report"
)

_QUESTION = "question"  # a copy that differs by more than a plan removes
_GROUPS_SHOWN = 20
_MANY_FILES = 3000  # take more than some seconds
_SAMPLE = 64  # of them, for the estimate
_COMPARING = 1.0  # time for comparing as a share of that for indexing
_GROUPS_DRAWN, _COPIES_DRAWN = 200, 10  # 25 kB per image


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(EngineOptions):
    """Options of `duplicates`. Raises UsageError if there is no source or the threshold is not valid."""

    image_dir: Path | None = option("Image folder, searched at any depth.", None)
    index_dir: Path | None = option("Index of the folder; updated if --image_dir is given too.", None, url=True)
    model: str = option("With --image_dir: as for `simimg index`.", "lite0")
    threshold: float = option(THRESHOLD_HELP, 0.0, words={"auto": 0})
    edits: tuple[str, ...] = option(EDITS_HELP, ("auto",))
    reference_dirs: tuple[str, ...] = option("Folders below --image_dir whose files are kept and never moved.", ())
    keep: tuple[str, ...] = option(
        "Which image of a group is kept, by rules in this order: best (the default, always the last), exif, "
        "folder:NAME, largest, newest, oldest, shortest.",
        ("best",),
    )
    plan: Path | None = option("Also write which files to keep and which to remove to this file.", None, output=True)
    plan_edits: tuple[str, ...] = option(
        "With --plan: kinds of edits by which a copy that is removed may differ, as for --edits; auto is size and "
        "compression, and label adds copies in another class folder. All other copies are questions.",
        ("auto",),
    )
    report: Path | None = option("Also write a page (HTML) that shows the groups.", None, output=True)
    fast: bool = option(
        "Find only copies that were at most turned, mirrored, stretched, resized or compressed, without a model.", False
    )
    max_pixels: int = option("With --image_dir: as for `simimg index`.", 0, words={"auto": 0})

    include: tuple[str, ...] = option(INCLUDE_HELP, (), repeated="GLOB")
    exclude: tuple[str, ...] = option(EXCLUDE_HELP, (), repeated="GLOB")
    exclude_from: Path | None = option(EXCLUDE_FROM_HELP, None)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_patterns(self.include, self.exclude)
        if self.image_dir is None and self.index_dir is None:
            raise UsageError("name what to look through: --image_dir=PATH, --index_dir=PATH, or both.")
        check_threshold(self.threshold)
        check_max_pixels(self.max_pixels)
        counted_edits(self.edits)
        planned_edits(self.plan_edits)
        check_keep(self.keep, self.image_dir)
        if self.fast and self.engine != "local":
            raise UsageError(f"--fast takes no cluster. Leave out --engine={self.engine}, or --fast.")
        if self.fast and self.image_dir is not None and self.index_dir is not None:
            raise UsageError("--fast makes no index that could be kept. Leave out --index_dir, or --fast.")


def run(options: Options) -> Result:
    """Find duplicates, with progress bars."""
    start = time.perf_counter()
    keep_freed_memory()
    refused: list[str] = []
    if options.image_dir is not None and options.index_dir is None and not options.fast:
        patterns = options.include, options.exclude, str(options.exclude_from or ""), str(options.image_dir)
        _note_time(options.image_dir, options.model, Selection(*patterns))
    with stage_bars() as show:
        found = api.duplicates(
            options.image_dir,
            index_dir=options.index_dir,
            model=options.model,
            threshold=options.threshold,
            edits=options.edits,
            reference_dirs=options.reference_dirs,
            keep=options.keep,
            plan=options.plan,
            plan_edits=options.plan_edits,
            fast=options.fast,
            include=options.include,
            exclude=options.exclude,
            exclude_from=options.exclude_from,
            max_pixels=options.max_pixels,
            engine=options.engine,
            ray_address=options.ray_address,
            num_workers=0,
            refused=noting_skipped(refused),
            noted=lambda text: note(f"note: {text}"),
            progress=show,
        )
    index = found.index
    reference = reference_dirs_of(index, options.reference_dirs)
    others = [member for group in found.groups for member in group.others]
    copies = [member for member in others if not is_reference(member.image.path, reference) and not member.stays]
    planned_kinds = planned_edits(options.plan_edits)
    questions = {member.row for member in copies if not is_planned(member, planned_kinds)}
    if options.report is not None:
        _write_report(options, options.report, index, found, questions)
    if found.num_missing:
        note(f"{found.num_missing:,} images of the index could not be read again, and were not compared")
    seconds = time.perf_counter() - start
    values = {
        "groups": [[_values(index, member) for member in group.members] for group in found.groups],
        "files": _files(index, found),
        "num_images": len(index.images),
        "num_copies": len(copies),
        "num_planned": len(copies) - len(questions),
        "num_pairs_examined": found.num_pairs_examined,
        "num_refused": len(refused),
        "num_left_out": found.num_left_out,
        "returned": [dataclasses.asdict(one) for one in found.returned],
        "threshold": options.threshold or index.copy_threshold,
        "seconds": round(seconds, 3),
        "plan": None if options.plan is None else str(options.plan),
        "report": None if options.report is None else str(options.report),
    }
    lines = [_text(group, questions) for group in found.groups[:_GROUPS_SHOWN]]
    if len(found.groups) > _GROUPS_SHOWN:
        lines.append(f"… and {len(found.groups) - _GROUPS_SHOWN:,} more groups; --json and --plan list all of them")
    lines.append(
        f"{len(copies):,} of {len(index.images):,} images are copies of {len(found.groups):,} "
        f"{'other' if len(found.groups) == 1 else 'others'}, "
        f"{storage(sum(member.image.num_bytes for member in copies))} in all; {seconds:.0f} s"
    )
    lines += [one.text for one in found.returned[:_GROUPS_SHOWN]]
    if len(found.returned) > _GROUPS_SHOWN:
        lines.append(f"… and {len(found.returned) - _GROUPS_SHOWN:,} more are back; --json lists all of them")
    if found.num_left_out and options.index_dir is not None:
        lines.append(left_out(found.num_left_out, options.index_dir))
    if any(LABEL in member.edits for member in copies):
        count = sum(LABEL in member.edits for member in copies)
        lines.append(
            f"{count:,} of them {'is' if count == 1 else 'are'} in another class folder than the kept image: "
            "label conflicts, if the folders are classes"
        )
    if questions:
        count = len(questions)
        more = "size and compression" if planned_kinds == PLANNED else "what --plan_edits names"
        lines.append(
            f"{count:,} of them {'is a question: it differs' if count == 1 else 'are questions: they differ'} by more "
            f"than {more}; a plan removes no question unless --plan_edits names its edits or you move it to `remove`"
        )
    if options.plan is not None:
        quoted = shlex.quote(str(options.plan))
        lines.append(
            f"plan: {options.plan} removes {len(copies) - len(questions):,}; "
            f"`simimg apply --plan={quoted} --dry_run` shows what it does"
        )
    if options.report is not None:
        lines.append(f"report: {options.report}")
    if found.groups and options.index_dir is None:
        lines.append("to have decisions about these groups remembered, give --index_dir=PATH")
    return Result(values=values, text="\n".join(lines), num_skipped=len(refused) + found.num_missing)


def _note_time(image_dir: Path, model: str, selection: Selection | None = None) -> None:
    """Note how long a large folder will take, from the time that some of its files take."""
    found = walk(image_dir, selection) if image_dir.is_dir() else []
    paths = [path for path in found if Path(path).suffix.lower() in SUFFIXES]
    if len(paths) < _MANY_FILES:
        return
    embedder = load_embedder(model)
    sample = paths[:: len(paths) // _SAMPLE][:_SAMPLE]
    for _ in range(2):  # the network is loaded in the first round
        start = time.perf_counter()
        loaded = [found for _, found in load_files(sample, embedder.image_options, image_dir)]
        pixels = [found.pixels for found in loaded if isinstance(found, LoadedFile) and found.pixels is not None]
        if pixels:
            embedder.embed(np.stack(pixels))
        seconds = time.perf_counter() - start
    minutes = max(1, round((1 + _COMPARING) * seconds * len(paths) / len(sample) / 60))
    about = "1 minute" if minutes == 1 else f"{minutes:,} minutes"
    note(f"{len(paths):,} images: this will take about {about}; --fast takes less")


def _write_report(options: Options, report: Path, index: SearchIndex, found: Duplicates, questions: Set[int]) -> None:
    originals = IndexImages(index)

    def row(group: Group) -> CopyRow:
        keeper, shown = group.keeper, group.others[:_COPIES_DRAWN]
        pairs = [marked_pair(originals, member.row, keeper.row) for member in shown]
        # The part that a copy shows is marked where there is one copy: of several, no one could tell which.
        first = pairs[0][1] if len(group.others) == 1 else originals.image(keeper.row, COPY_PX)
        return CopyRow(
            first=Tile(first, keeper.image.path, f"kept: {keeper.reason}{_remembered(keeper, is_keeper=True)}"),
            copies=[
                Tile(
                    image,
                    member.image.path,
                    f"{member.similarity:.3f}: {member.reason}{_remembered(member)}",
                    tag=_QUESTION if member.row in questions else "",
                )
                for member, (image, _) in zip(shown, pairs, strict=True)
            ],
            num_more=len(group.others) - len(shown),
        )

    rows = [row(group) for group in found.groups[:_GROUPS_DRAWN]]
    copies = [member for group in found.groups for member in group.others]
    plan = options.plan or Path("plan.json")
    source = options.image_dir or index.info.image_dir or as_named(index.index_dir)
    apply = ["simimg", "apply", f"--plan={plan}"]
    commands = {
        "Show what a plan would move:": shlex.join([*apply, "--dry_run"]),
        "Move the copies to a quarantine folder beside the plan; simimg undo moves them back:": shlex.join(apply),
    }
    if options.plan is None:
        flag = (
            f"--image_dir={options.image_dir}"
            if options.image_dir
            else f"--index_dir={location_text(options.index_dir or '')}"
        )
        write = {"Write a plan, which you can read and change:": f"simimg duplicates {shlex.quote(flag)} --plan={plan}"}
        commands = write | commands
    write_copies_report(
        report,
        title=f"Copies in {Path(source).resolve().name}",
        about=str(source),
        number=f"{len(copies):,}",
        counted=f"copies among {len(index.images):,} images",
        facts={
            "images that have copies": f"{len(found.groups):,}",
            "questions": f"{len(questions):,}",
            "MB in copies": _megabytes(copies),
        },
        heading="groups",
        rows=rows,
        num_rows=len(found.groups),
        note="The image that is kept comes first, then its copies with their similarity. A plan leaves questions where "
        "they are until you decide. Orange outlines mark the places of a copy that differ, and in an image that shows "
        "more than the other one, the part that both show.",
        commands=commands if copies else {},
    )


def _files(index: SearchIndex, found: Duplicates) -> dict[str, list[str]]:
    """Return the copies of every file, by its path, in the form that imagededup's evaluation takes."""
    path_of = {member.row: str(index.path_of(member.image)) for group in found.groups for member in group.members}
    copies = {
        member.row: [path_of[other.row] for other in group.members if other.row != member.row]
        for group in found.groups
        for member in group.members
    }
    return {str(index.path_of(image)): copies.get(row, []) for row, image in enumerate(index.images)}


def _values(index: SearchIndex, member: Member) -> dict[str, object]:
    path = str(index.path_of(member.image))
    values: dict[str, object] = {"path": path, "similarity": round(member.similarity, 6), "reason": member.reason}
    values["edits"] = sorted(member.edits)
    return values | ({"remembered": member.remembered, "stays": member.stays} if member.remembered else {})


def _megabytes(members: list[Member]) -> str:
    return f"{sum(member.image.num_bytes for member in members) / 1e6:,.1f}"


def _text(group: Group, questions: Set[int]) -> str:
    lines = [f"{group.keeper.image.path}  (kept: {group.keeper.reason}){_remembered(group.keeper, is_keeper=True)}"]
    lines += [
        f"  {member.similarity:.3f}  {member.image.path}  ({member.reason})"
        f"{f'  [{_QUESTION}]' if member.row in questions else ''}{_remembered(member)}"
        for member in group.others
    ]
    new = [member.image.path for member in group.members if not member.is_decided]
    if new and len(new) < len(group.members):
        more = f" and {len(new) - 1:,} more" if len(new) > 1 else ""
        lines.append(f"  shown again, because {new[0]}{more} joined: nothing is decided about that yet")
    return "\n".join(lines)


def _remembered(member: Member, *, is_keeper: bool = False) -> str:
    stays = ", so it stays" if member.stays and not is_keeper else ""
    return f"  [{member.remembered}{stays}]" if member.remembered else ""
