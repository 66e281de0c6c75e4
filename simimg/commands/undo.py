"""Move the files of a plan back from quarantine.

Example: simimg undo --plan=plan.json
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from simimg.commands.apply import moved
from simimg.commands.console import Result, note, progress_bar
from simimg.similarity.file_quarantine import undo_plan
from simimg.similarity.plan_file import load_plan
from tfrecords.convert.sources import printable
from tfrecords.options import option

JSON_KEYS = "moved num_bytes skipped"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of `undo`."""

    plan: Path = option("Plan that `simimg apply` was given.")


def run(options: Options) -> Result:
    """Undo a plan, with a progress bar."""
    plan = load_plan(options.plan)
    with progress_bar(None, "moving", unit="file") as bar:
        undone = undo_plan(plan, progress=bar.update)
    if undone.left:
        others = ", ".join(map(printable, undone.left[:3])) + (" …" if len(undone.left) > 3 else "")
        note(f"{plan.quarantine_dir} is left: it holds {others}, which no plan moved there")
    text = f"{len(undone.moved):,} files moved back to {plan.image_dir}"
    return Result(values=moved(undone), text=text, num_skipped=len(undone.skipped))
