"""Find the copies in a folder of pictures, and plan which of them to keep.

Files of the same bytes come first, then near perceptual hashes and near embeddings, where every pair is examined before
it counts, so each copy is listed with what was done to it. Nothing is removed: with --plan, a file is
written that you can read and change; `simimg apply --plan=FILE` moves what it names into a quarantine folder beside it,
and `simimg undo --plan=FILE` brings everything back.

The index is made or brought up to date first; with --index_dir it is kept, so that the next call is fast.

Example: simimg duplicates --image_dir=photos --plan=plan.json
"""

from __future__ import annotations

import dataclasses
import shlex
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from simimg.commands.console import Result, note, progress_bar, quiet_tensorflow
from simimg.commands.copy_tiles import marked_pair

with quiet_tensorflow():
    from simimg.commands.index import Options as IndexOptions
    from simimg.commands.index import show_refused, update_with_progress
    from simimg.errors import UsageError
    from simimg.report import CopiesContent, CopyRow, Tile, write_copies_report
    from simimg.report.copies_report import COPY_PX
    from simimg.similarity import (
        Duplicates,
        Group,
        IndexImages,
        SearchIndex,
        check_threshold,
        find_duplicates,
        reference_of,
        write_plan,
    )
from tfrecords.format.quarantine import Refusal
from tfrecords.options import option

_GROUPS_SHOWN = 20
_GROUPS_DRAWN, _COPIES_DRAWN = 200, 10  # 25 kB per image


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What `duplicates` can be told. Raises UsageError for a source or a threshold that cannot be."""

    image_dir: Path | None = option("Folder of pictures, at any depth.", None)
    index_dir: Path | None = option("An index of it: brought up to date if --image_dir is given, too.", None)
    model: str = option("With --image_dir: as for `simimg index`.", "lite0")
    threshold: float = option("The least similarity of copies, 0.5 to 1; 0: what `calibrate` found, or 0.9.", 0.0)
    reference_dirs: tuple[str, ...] = option("Folders below --image_dir whose files are kept, and never moved.", ())
    plan: Path | None = option("Also write what to keep and what to remove into this file.", None)
    report: Path | None = option("Also show the groups on this page (HTML).", None)

    def __post_init__(self) -> None:
        """Checks the source and the threshold."""
        if self.image_dir is None and self.index_dir is None:
            raise UsageError("name what to look through: --image_dir=PATH, --index_dir=PATH, or both.")
        check_threshold(self.threshold)


def run(options: Options) -> Result:
    """Finds duplicates with a progress bar."""
    start = time.perf_counter()
    with ExitStack() as stack:
        refused: tuple[tuple[str, Refusal], ...] = ()
        if options.image_dir is None:
            assert options.index_dir is not None
            index = SearchIndex.open(options.index_dir)
        else:
            index_dir = options.index_dir or Path(stack.enter_context(tempfile.TemporaryDirectory())) / "index"
            update = update_with_progress(
                IndexOptions(image_dir=options.image_dir, index_dir=index_dir, model=options.model)
            )
            index, refused = update.index, update.refused
        show_refused(refused)
        threshold = options.threshold or index.copy_threshold
        is_reference = reference_of(index, options.reference_dirs)
        with progress_bar(len(index.pictures), "comparing") as bar:
            found = find_duplicates(
                index,
                threshold=threshold,
                reference=lambda picture: is_reference(picture.path),
                progress=bar.update,
            )
        num_images = len(index.pictures)
        if options.plan is not None:
            write_plan(options.plan, index.files_dir(), found.groups, is_reference)
        if options.report is not None:
            _write_report(options, index, found)
        groups = [
            [
                {
                    "path": str(index.path_of(member.picture)),
                    "similarity": round(member.similarity, 6),
                    "reason": member.reason,
                }
                for member in group.members
            ]
            for group in found.groups
        ]
    if found.num_missing:
        note(f"{found.num_missing:,} pictures of the index could not be read again, and were not examined")
    copies = [member for group in found.groups for member in group.others if not is_reference(member.picture.path)]
    seconds = time.perf_counter() - start
    values = {
        "groups": groups,
        "num_images": num_images,
        "num_copies": len(copies),
        "num_pairs_examined": found.num_pairs_examined,
        "num_refused": len(refused),
        "threshold": threshold,
        "seconds": round(seconds, 3),
        "plan": None if options.plan is None else str(options.plan),
        "report": None if options.report is None else str(options.report),
    }
    lines = [_text(group) for group in found.groups[:_GROUPS_SHOWN]]
    if len(found.groups) > _GROUPS_SHOWN:
        lines.append(f"… and {len(found.groups) - _GROUPS_SHOWN:,} more groups; --json and --plan have all of them")
    megabytes = sum(member.picture.num_bytes for member in copies) / 1e6
    lines.append(
        f"{len(copies):,} copies of {len(found.groups):,} pictures among {num_images:,}, {megabytes:,.1f} MB; "
        f"{seconds:.0f} s"
    )
    if options.plan is not None:
        lines.append(f"the plan is {options.plan}; `simimg apply --plan={options.plan} --dry_run` shows what it does")
    if options.report is not None:
        lines.append(f"report: {options.report}")
    return Result(values=values, text="\n".join(lines), exit_code=2 if refused or found.num_missing else 0)


def _write_report(options: Options, index: SearchIndex, found: Duplicates) -> None:
    originals = IndexImages(index)

    def row(group: Group) -> CopyRow:
        keeper, shown = group.keeper, group.others[:_COPIES_DRAWN]
        pairs = [marked_pair(originals, member.row, keeper.row) for member in shown]
        # The part that a copy shows is marked where there is one copy: of several, no one could tell which.
        first = pairs[0][1] if len(group.others) == 1 else originals.image(keeper.row, COPY_PX)
        return CopyRow(
            first=Tile(first, keeper.picture.path, f"kept: {keeper.reason}"),
            copies=[
                Tile(image, member.picture.path, f"{member.similarity:.3f}: {member.reason}")
                for member, (image, _) in zip(shown, pairs, strict=True)
            ],
            num_more=len(group.others) - len(shown),
        )

    rows = [row(group) for group in found.groups[:_GROUPS_DRAWN]]
    copies = [member for group in found.groups for member in group.others]
    plan = options.plan or Path("plan.json")
    source = options.image_dir or index.info.image_dir or index.index_dir
    commands = {
        "See what a plan would move:": shlex.join(["simimg", "apply", f"--plan={plan}", "--dry_run"]),
        "Move the copies into a quarantine folder beside it, from which simimg undo brings them back:": shlex.join(
            ["simimg", "apply", f"--plan={plan}"]
        ),
    }
    if options.plan is None:
        flag = f"--image_dir={options.image_dir}" if options.image_dir else f"--index_dir={options.index_dir}"
        write = {"Write a plan, which you can read and change:": f"simimg duplicates {shlex.quote(flag)} --plan={plan}"}
        commands = write | commands
    content = CopiesContent(
        title=f"Copies in {Path(source).resolve().name}",
        about=str(source),
        number=(f"{len(copies):,}", f"copies among {len(index.pictures):,} images"),
        facts={
            "images that have copies": f"{len(found.groups):,}",
            "MB in copies": f"{sum(member.picture.num_bytes for member in copies) / 1e6:,.1f}",
            "pairs examined": f"{found.num_pairs_examined:,}",
        },
        heading="groups",
        rows=rows,
        num_rows=len(found.groups),
        note="The image that is kept comes first, then its copies with their similarity. Orange outlines mark the "
        "places of a copy that differ, and the part of the kept image that a single copy shows.",
        commands=commands if copies else {},
    )
    write_copies_report(content, options.report or Path())


def _text(group: Group) -> str:
    lines = [f"{group.keeper.picture.path}  (kept: {group.keeper.reason})"]
    lines += [f"  {member.similarity:.3f}  {member.picture.path}  ({member.reason})" for member in group.others]
    return "\n".join(lines)
