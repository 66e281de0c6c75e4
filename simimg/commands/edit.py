"""Delete, relabel or merge examples in a new version.

The new version lies beside the old one, which stays as it is: 2.0.0 after 1.3.0, or 1.4.0 if examples were only added.
Shards without a change are hard links, which take no disk space. Others are written again from their records, so images
keep their bytes, and examples keep their ids. --delete and --relabel take CSV files with a column `id` or `path`, as in
manifest.parquet; a line that names no example stops the command before anything is written. Deleted examples stay in
the manifest with the reason `deleted`, and its column `edit` says what was changed and why. --merge adds the examples
of other datasets with images of the same size and encoding; classes are joined by their names.

Example: simimg edit --dataset_dir=data/photos/1.0.0 --delete=blurred.csv --reason="out of focus"
"""

from __future__ import annotations

import dataclasses

from simimg import api
from simimg.commands.console import Result, note, progress_bar, showing
from tfrecords.edit.dataset_edit import EditConfig, EditSummary
from tfrecords.locations import location_text
from tfrecords.storage.object_cache import CacheOptions

JSON_KEYS = (
    "dataset_dir num_examples splits num_deleted num_relabeled num_added num_shards_shared num_shards_written notes"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(EditConfig, CacheOptions):
    """Options of `edit`."""


def run(options: Options) -> Result:
    """Edit, with a progress bar, and write the report of the new version."""
    given = {field.name: getattr(options, field.name) for field in dataclasses.fields(EditConfig)}
    with progress_bar(None, "writing") as bar:
        made = api.edit(progress=showing(bar), describe=note, **given)
    for line in made.notes:
        note(f"note: {line}")
    values = dataclasses.asdict(made) | {"dataset_dir": location_text(made.dataset_dir), "notes": list(made.notes)}
    return Result(values=values, text=_text(made))


def _text(made: EditSummary) -> str:
    where = location_text(made.dataset_dir)
    done = [
        f"{number:,} {what}"
        for number, what in (
            (made.num_deleted, "deleted"),
            (made.num_relabeled, "relabeled"),
            (made.num_added, "added"),
        )
        if number
    ]
    splits = ", ".join(f"{count:,} {split}" for split, count in made.splits.items())
    return "\n".join(
        (
            f"{', '.join(done) or 'nothing changed'}: {made.num_examples:,} examples ({splits}) in {where}",
            f"shards: {made.num_shards_written:,} written, {made.num_shards_shared:,} shared with the old version",
            f"report: {where}/report.html",
        )
    )
