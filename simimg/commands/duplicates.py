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
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from simimg.commands.console import Result, note, progress_bar, quiet_tensorflow

with quiet_tensorflow():
    from simimg.commands.index import Options as IndexOptions
    from simimg.commands.index import show_refused, update_with_progress
    from simimg.errors import UsageError
    from simimg.similarity import Group, SearchIndex, find_duplicates, reference_of, write_plan
from tfrecords.convert.quarantine import Refusal
from tfrecords.options import option

_GROUPS_SHOWN = 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What `duplicates` can be told. Raises UsageError for a source or a threshold that cannot be."""

    image_dir: Path | None = option("Folder of pictures, at any depth.", None)
    index_dir: Path | None = option("An index of it: brought up to date if --image_dir is given, too.", None)
    model: str = option("With --image_dir: as for `simimg index`.", "lite0")
    threshold: float = option("The least similarity of copies, 0.5 to 1; 0: what `calibrate` found, or 0.9.", 0.0)
    reference_dirs: tuple[str, ...] = option("Folders below --image_dir whose files are kept, and never moved.", ())
    plan: Path | None = option("Also write what to keep and what to remove into this file.", None)

    def __post_init__(self) -> None:
        """Checks the source and the threshold."""
        if self.image_dir is None and self.index_dir is None:
            raise UsageError("name what to look through: --image_dir=PATH, --index_dir=PATH, or both.")
        if self.threshold and not 0.5 <= self.threshold <= 1:
            raise UsageError(f"--threshold={self.threshold}: should be between 0.5 and 1.")


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
    return Result(values=values, text="\n".join(lines), exit_code=2 if refused or found.num_missing else 0)


def _text(group: Group) -> str:
    lines = [f"{group.keeper.picture.path}  (kept: {group.keeper.reason})"]
    lines += [f"  {member.similarity:.3f}  {member.picture.path}  ({member.reason})" for member in group.others]
    return "\n".join(lines)
