"""Move the copies that a plan lists to a quarantine folder.

The plan is a file that `simimg duplicates --plan` wrote; the quarantine folder lies beside the plan. A file is
moved only if it and the file that is kept in its place are unchanged since the plan was made. Files that belong to it
alone (NAME.xmp, NAME.jpg.json, a caption in NAME.txt, the film of a live photo) go along; those that stay are named. If
the command is interrupted, run it again to resume. When you are sure, delete the quarantine folder.

Decisions that you wrote into the plan are stored beside its index, and so is which files were removed: `simimg
duplicates` tells when one of them is back, under any name. For both, make the plan with --index_dir.

Example: simimg apply --plan=plan.json --dry_run
"""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import Any

from simimg.commands.console import Result, note, progress_bar
from simimg.report.number_format import storage
from simimg.similarity.file_quarantine import Applied, apply_plan
from simimg.similarity.plan_file import load_plan
from tfrecords.locations import location_text
from tfrecords.options import option

JSON_KEYS = "moved num_bytes skipped sidecars_that_stay num_decisions quarantine_dir dry_run"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of `apply`."""

    plan: Path = option("File that `simimg duplicates --plan` wrote.")
    dry_run: bool = option("Only print what would be moved.", False)


def run(options: Options) -> Result:
    """Apply a plan, with a progress bar."""
    plan = load_plan(options.plan)
    with progress_bar(len(plan.removals), "moving", unit="file") as bar:
        applied = apply_plan(plan, dry_run=options.dry_run, progress=bar.update)
    for path, reason in applied.sidecars:
        note(f"{path} stays: {reason}")
    staying = [{"path": path, "reason": reason} for path, reason in applied.sidecars]
    values = {**moved(applied), "sidecars_that_stay": staying}
    for decision in applied.outdated:
        note(
            f"the plan's {decision.decision!r} about {decision.images[0].path} is older than what was decided about "
            "these images since, and does not count"
        )
    num_decisions = len(plan.decisions) - len(applied.outdated)
    values |= {"num_decisions": num_decisions, "quarantine_dir": str(plan.quarantine_dir), "dry_run": options.dry_run}
    lines = [f"  {path}" for path in applied.moved] if options.dry_run else []
    done = "would be moved" if options.dry_run else "moved"
    lines.append(f"{len(applied.moved):,} files, {storage(applied.num_bytes)}, {done} to {plan.quarantine_dir}")
    if num_decisions:
        stored = "would be stored" if options.dry_run else "stored"
        lines.append(f"decisions of the plan {stored} in {location_text(plan.index_dir or '')}: {num_decisions:,}")
    if applied.moved and not options.dry_run:
        lines.append(f"`simimg undo --plan={shlex.quote(str(options.plan))}` moves them back")
    return Result(values=values, text="\n".join(lines), num_skipped=len(applied.skipped))


def moved(moves: Applied) -> dict[str, Any]:
    """Note each file that was not moved, and return the files for JSON."""
    for path, reason in moves.skipped:
        note(f"not moved {path}: {reason}")
    if moves.not_remembered:
        note(f"which files were moved is not remembered: {moves.not_remembered}")
    skipped = [{"path": path, "reason": reason} for path, reason in moves.skipped]
    return {"moved": list(moves.moved), "num_bytes": moves.num_bytes, "skipped": skipped}
