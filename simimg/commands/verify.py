"""Check every byte of a dataset.

Reads all records, verifies their checksums, and checks that counts, names, manifest and metadata agree. The exit code
is 3 if there is a problem.

Example: simimg verify --dataset_dir=data/photos/1.0.0
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from simimg import api
from simimg.commands.console import Result, progress_bar
from simimg.errors import UsageError
from tfrecords.locations import location_text
from tfrecords.options import option
from tfrecords.storage.object_cache import CacheOptions

JSON_KEYS = "ok num_examples problems"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(CacheOptions):
    """Options of `verify`."""

    dataset_dir: Path = option("Dataset folder or URL, DATA_DIR/NAME/VERSION.", url=True)


def run(options: Options) -> Result:
    """Verify, with a progress bar."""
    where = location_text(options.dataset_dir)
    if where == str(options.dataset_dir) and not options.dataset_dir.is_dir():
        raise UsageError(f"--dataset_dir={where} is not a folder. Name one that `simimg convert` wrote.")
    with progress_bar(None, "verifying") as bar:
        found = api.verify(options.dataset_dir, progress=bar.update)
    values = {"ok": found.ok, "num_examples": found.num_examples, "problems": list(found.problems)}
    if found.ok:
        text = f"ok: {found.num_examples:,} examples in {where}"
    else:
        count = "1 problem" if len(found.problems) == 1 else f"{len(found.problems):,} problems"
        text = "\n".join((*found.problems, f"{count} in {where}"))
    return Result(values=values, text=text, exit_code=0 if found.ok else 3)
