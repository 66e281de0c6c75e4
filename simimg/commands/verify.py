"""Check every byte of a dataset.

Reads all records, verifies their checksums, and checks that counts, names, manifest and metadata agree. The exit code
is 3 if there is a problem.

With --clean, what interrupted conversions left at a URL is removed first: uploads to S3 that were never ended, which
cost storage without being visible, and the objects of a dataset that was never completed.

Example: simimg verify --dataset_dir=data/photos/1.0.0
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from simimg import api
from simimg.commands.console import Result, progress_bar
from simimg.errors import UsageError
from tfrecords.format.layout import Layout, newest_dataset
from tfrecords.locations import location_text, url_of
from tfrecords.options import option
from tfrecords.storage.object_cache import CacheOptions
from tfrecords.storage.remote_conversion import remove_leftovers

JSON_KEYS = "ok num_examples problems removed"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(CacheOptions):
    """Options of `verify`."""

    dataset_dir: Path = option("Dataset folder or URL, DATA_DIR/NAME/VERSION.", url=True)
    clean: bool = option("First remove what interrupted conversions left at the URL.", False)


def run(options: Options) -> Result:
    """Verify, with a progress bar."""
    where = location_text(options.dataset_dir)
    is_url = bool(url_of(options.dataset_dir))
    if options.clean and not is_url:
        raise UsageError(f"--clean is about datasets at URLs, and {where} is a folder. Leave it out.")
    removed, is_complete = remove_leftovers(where) if options.clean else (0, True)
    if not is_complete:
        text = f"removed {removed:,} objects and uploads; there is no dataset at {where}"
        return Result(values={"ok": True, "num_examples": 0, "problems": [], "removed": removed}, text=text)
    # A folder with neither a layout nor a dataset below it is reported as a damaged dataset.
    if not is_url and (not options.dataset_dir.is_dir() or newest_dataset(options.dataset_dir)):
        Layout.demand(options.dataset_dir)
    with progress_bar(None, "verifying") as bar:
        found = api.verify(options.dataset_dir, progress=bar.update)
    values = {"ok": found.ok, "num_examples": found.num_examples, "problems": list(found.problems)}
    if found.ok:
        text = f"ok: {found.num_examples:,} examples in {where}"
    else:
        count = "1 problem" if len(found.problems) == 1 else f"{len(found.problems):,} problems"
        text = "\n".join((*found.problems, f"{count} in {where}"))
    if options.clean:
        values["removed"] = removed
        text = f"removed {removed:,} uploads that were never ended\n{text}"
    return Result(values=values, text=text, exit_code=0 if found.ok else 3)
