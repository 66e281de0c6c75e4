"""Make a search index of a folder of pictures, or of a data set, or bring one up to date.

Each picture becomes an embedding: by `lite0`, which needs no training, or by a model of your own. Run again, only new
and changed files are embedded, and removed ones go; a run that was stopped goes on where it was. Files that cannot be
decoded are refused with a reason each and make the exit code 2.

Example: simimg index --image_dir=photos --index_dir=indexes/photos
"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

from simimg.commands.console import Result, note, progress_bar, quiet_tensorflow

with quiet_tensorflow():
    from simimg.errors import UsageError
    from simimg.similarity import IndexUpdate, index_dataset, index_folder, load_embedder
from tfrecords.format.quarantine import Refusal
from tfrecords.options import option

_REFUSALS_SHOWN = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What `index` can be told. Raises UsageError unless it is told one source."""

    image_dir: Path | None = option("Folder of pictures, at any depth; its first folders are the labels.", None)
    dataset_dir: Path | None = option("Data set folder, instead of --image_dir; all its splits.", None)
    model: str = option(
        "Folder of a finished training run or of imported weights, or the name of a shipped model.", "lite0"
    )
    index_dir: Path = option("Where the index goes, or is and is brought up to date.")

    def __post_init__(self) -> None:
        """Checks that there is one source."""
        if (self.image_dir is None) == (self.dataset_dir is None):
            raise UsageError("name one source: --image_dir=PATH or --dataset_dir=PATH.")


def run(options: Options) -> Result:
    """Indexes with a progress bar."""
    start = time.perf_counter()
    update = update_with_progress(options)
    seconds = time.perf_counter() - start
    show_refused(update.refused)
    index = update.index
    dim = index.vectors["copy"].shape[1]
    values = {
        "index_dir": str(options.index_dir),
        "num_images": len(index.pictures),
        "num_embedded": update.num_embedded,
        "num_removed": update.num_removed,
        "num_refused": len(update.refused),
        "dim": dim,
        "seconds": round(seconds, 3),
    }
    text = f"{len(index.pictures):,} pictures as {dim} numbers each in {options.index_dir}\n{seconds:.1f} s"
    if update.num_embedded:
        text += f", {update.num_embedded / seconds:,.0f} images/s with the start of the model"
    if update.num_embedded < len(index.pictures):
        text += f"\n{update.num_embedded:,} embedded, the rest was known"
    if update.num_removed:
        text += f"\n{update.num_removed:,} that are no longer there are gone"
    if "copy" in index.cells:
        cells = index.cells["copy"]
        values["recall_at_10"] = cells.recall
        text += (
            f"\nsearched by faiss, {cells.num_probed} cells a query: {cells.recall:.1%} of the nearest ten "
            "that an exact search finds"
        )
    if update.refused:
        text += f"\n{len(update.refused):,} refused"
    return Result(values=values, text=text, exit_code=2 if update.refused else 0)


def update_with_progress(options: Options, *, files_in: Path | None = None) -> IndexUpdate:
    """Makes the index, or brings it up to date, with a progress bar; `files_in` is where a data set's files lie."""
    embedder = load_embedder(options.model)
    with progress_bar(None, "indexing") as bar:

        def begin(total: int) -> None:
            bar.total = total
            bar.refresh()

        if options.image_dir is not None:
            return index_folder(options.index_dir, options.image_dir, embedder, begin=begin, progress=bar.update)
        assert options.dataset_dir is not None
        return index_dataset(
            options.index_dir, options.dataset_dir, embedder, image_dir=files_in, begin=begin, progress=bar.update
        )


def show_refused(refused: tuple[tuple[str, Refusal], ...]) -> None:
    """Names the first files that were refused, with the reasons."""
    for path, refusal in refused[:_REFUSALS_SHOWN]:
        note(f"refused {path}: {refusal}")
    if len(refused) > _REFUSALS_SHOWN:
        note(f"… and {len(refused) - _REFUSALS_SHOWN:,} more")
