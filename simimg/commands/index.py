"""Make a search index of a folder of pictures, or of a data set.

Each picture becomes an embedding: by `lite0`, which needs no training, or by a model of your own. Files that cannot be
decoded are refused with a reason each and make the exit code 2.

Example: simimg index --image_dir=photos --index_dir=indexes/photos
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

from simimg.commands.console import Result, note, progress_bar, quiet_tensorflow

with quiet_tensorflow():
    import numpy as np

    from simimg.errors import UsageError
    from simimg.input import eval_batches, open_reader
    from simimg.search import Embedder, Picture, embed_files, load_embedder, write_index
from tfrecords.convert.quarantine import Reason, Refusal
from tfrecords.convert.sources import SUFFIXES, printable, walk
from tfrecords.format.layout import Layout
from tfrecords.format.manifest import OK, read_manifest
from tfrecords.options import option

_BATCH_SIZE = 32
_REFUSALS_SHOWN = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What `index` can be told. Raises UsageError unless it is told one source."""

    image_dir: Path | None = option("Folder of pictures, at any depth; its first folders are the labels.", None)
    dataset_dir: Path | None = option("Data set folder, instead of --image_dir; all its splits.", None)
    model: str = option("Folder of a finished training run, or the name of a shipped model.", "lite0")
    index_dir: Path = option("Where the index goes; one that is there is replaced.")

    def __post_init__(self) -> None:
        """Checks that there is one source."""
        if (self.image_dir is None) == (self.dataset_dir is None):
            raise UsageError("name one source: --image_dir=PATH or --dataset_dir=PATH.")


def run(options: Options) -> Result:
    """Indexes with a progress bar."""
    start = time.perf_counter()
    if options.image_dir is not None:
        embeddings, pictures, refused = _embed_folder(options.image_dir, options.model)
    else:
        assert options.dataset_dir is not None
        embeddings, pictures, refused = _embed_dataset(options.dataset_dir, options.model)
    embedder, vectors = embeddings
    write_index(options.index_dir, embedder, vectors, pictures, options.image_dir)
    seconds = time.perf_counter() - start
    for path, refusal in refused[:_REFUSALS_SHOWN]:
        note(f"refused {path}: {refusal}")
    if len(refused) > _REFUSALS_SHOWN:
        note(f"… and {len(refused) - _REFUSALS_SHOWN:,} more")
    values = {
        "index_dir": str(options.index_dir),
        "num_images": len(pictures),
        "num_refused": len(refused),
        "dim": embedder.dim,
        "seconds": round(seconds, 3),
    }
    text = (
        f"{len(pictures):,} pictures as {embedder.dim} numbers each in {options.index_dir}\n"
        f"{seconds:.1f} s, {len(pictures) / seconds:,.0f} images/s with the start of the model"
    )
    if refused:
        text += f"\n{len(refused):,} refused"
    return Result(values=values, text=text, exit_code=2 if refused else 0)


def _embed_folder(
    image_dir: Path, model: str
) -> tuple[tuple[Embedder, np.ndarray], list[Picture], Sequence[tuple[str, Refusal]]]:
    if not image_dir.is_dir():
        raise UsageError(f"--image_dir={image_dir} is not a folder. Name a folder of pictures.")
    found = walk(image_dir)
    paths = [path for path in found if Path(path).suffix.lower() in SUFFIXES]
    pictured = set(paths)
    strays = [
        (path, Refusal(Reason.UNKNOWN_SUFFIX, "not the name of a picture")) for path in found if path not in pictured
    ]
    if not paths:
        raise UsageError(
            f"--image_dir={image_dir} has no image file ({len(found)} other files). Name a folder of pictures."
        )
    embedder = load_embedder(model)
    with progress_bar(len(paths), "indexing") as bar:
        embedded = embed_files(embedder, paths, image_dir, progress=bar.update)
    if not embedded.files:
        raise UsageError(f"--image_dir={image_dir}: none of its {len(paths)} image files can be decoded.")
    pictures = [
        Picture(printable(file.path), file.sha256, file.width, file.height, _label(file.path))
        for file in embedded.files
    ]
    return (embedder, embedded.embeddings), pictures, [*strays, *embedded.refused]


def _embed_dataset(
    dataset_dir: Path, model: str
) -> tuple[tuple[Embedder, np.ndarray], list[Picture], Sequence[tuple[str, Refusal]]]:
    if not Layout.exists(dataset_dir):
        raise UsageError(f"--dataset_dir={dataset_dir} is no data set of `simimg convert`: it has no layout.json.")
    layout = Layout.load(dataset_dir)
    rows = {row.id: row for row in read_manifest(dataset_dir) if row.status == OK}
    embedder = load_embedder(model)
    parts, pictures = [], []
    with progress_bar(len(rows), "indexing") as bar:
        for split in layout.splits:
            reader, _ = open_reader(dataset_dir, split)
            for batch in eval_batches(reader, _BATCH_SIZE):
                ids = batch.id.numpy()
                real = ids >= 0
                parts.append(embedder.embed(batch.image.numpy()[real]))
                for id in ids[real].tolist():
                    row = rows[id]
                    pictures.append(Picture(row.path, row.sha256, row.width, row.height, layout.class_names[row.label]))
                bar.update(int(real.sum()))
    return (embedder, np.concatenate(parts)), pictures, []


def _label(path: str) -> str:
    return printable(path.split("/", 1)[0]) if "/" in path else ""
