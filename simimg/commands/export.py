"""Write a trained model as a SavedModel, or an index's vectors for a database, for others to run.

A SavedModel takes pixels as they are, and knows the names of its classes. Its signature takes `image`, uint8
[n, size, size, 3], and gives `probabilities`, float32 [n, classes], `label`, the name of the most probable class, and
`class_names`; of a model that was trained for copies it gives `embedding`, float32 [n, dim] of length 1.
MODEL_DIR/model.keras is the same model for Keras.

An index becomes a folder: npy and faiss have vectors and, row by row, the pictures that they are of; parquet has both
in one table. Vectors have length 1 and are compared by inner product. projection.npz in it makes a query of what the
network gives: (embedding - mean) @ matrix, then of length 1. simimg/docs/search.md shows how engines load it.

Example: simimg export --model_dir=runs/photos-lite0-seed0
Example: simimg export --index_dir=indexes/photos --format=parquet --out=photos-vectors
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from simimg.commands.console import Result, quiet_tensorflow

with quiet_tensorflow():
    from simimg.errors import UsageError
    from simimg.models import export_saved_model
    from simimg.similarity import BY, EXPORT_FORMATS, SearchIndex, export_index
from tfrecords.options import check_choices, option

_DEFAULT_FORMAT = "npy"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What `export` can be told. Raises UsageError unless it is one thing to export, with flags of its own."""

    model_dir: Path | None = option("Folder of a finished training run.", None)
    out_dir: Path | None = option("Where the SavedModel goes; by default MODEL_DIR/saved_model.", None)
    index_dir: Path | None = option("Folder that `simimg index` made, instead of --model_dir.", None)
    format: str = option("What an index is written as.", _DEFAULT_FORMAT, choices=EXPORT_FORMATS)
    by: str = option("Which vectors of an index: those that tell copies, or those that tell kinds.", "copy", choices=BY)
    out: Path | None = option("The folder that an index's vectors go to.", None)
    overwrite: bool = option("Replace an index's export that is there.", False)

    def __post_init__(self) -> None:
        """Checks that there is one thing to export, and that the flags are of its kind."""
        check_choices(self)
        if (self.model_dir is None) == (self.index_dir is None):
            raise UsageError("name one thing to export: --model_dir=PATH or --index_dir=PATH.")
        if self.index_dir is not None:
            if self.out is None:
                raise UsageError("--out=PATH is required with --index_dir: the folder that the vectors go to.")
            if self.out_dir is not None:
                raise UsageError(f"--out_dir={self.out_dir} is of --model_dir. An index goes to --out=PATH.")
            return
        defaults = {"format": _DEFAULT_FORMAT, "by": "copy", "out": None, "overwrite": False}
        given = [name for name, default in defaults.items() if getattr(self, name) != default]
        if given:
            raise UsageError(f"--{given[0]} is of --index_dir. A model goes to --out_dir=PATH.")


def run(options: Options) -> Result:
    """Exports."""
    return _export_index(options) if options.model_dir is None else _export_model(options, options.model_dir)


def _export_model(options: Options, model_dir: Path) -> Result:
    out_dir = options.out_dir or model_dir / "saved_model"
    info = export_saved_model(model_dir, out_dir)
    for_copies = info.objective.score == "recall"
    values: dict[str, Any] = {"saved_model": str(out_dir), "image_size": info.image_size}
    values |= {"dim": info.config["embedding_dim"]} if for_copies else {"class_names": list(info.class_names)}
    what = f"{values['dim']} numbers a picture" if for_copies else f"{len(info.class_names)} classes"
    text = (
        f"a SavedModel of {what} is in {out_dir}\n"
        f"it takes pictures of {info.image_size} x {info.image_size}, resized by `{info.resize}`"
    )
    return Result(values=values, text=text)


def _export_index(options: Options) -> Result:
    assert options.index_dir is not None
    assert options.out is not None
    index = SearchIndex.open(options.index_dir)
    info = export_index(index, options.out, format=options.format, by=options.by, overwrite=options.overwrite)
    files = sorted(path.name for path in options.out.iterdir())
    num_bytes = sum((options.out / name).stat().st_size for name in files)
    values = {"out": str(options.out), "files": files, "num_bytes": num_bytes, **info}
    text = (
        f"{info['num_images']:,} pictures as {info['dim']} numbers each, of length 1, are in {options.out}: "
        f"{', '.join(files)}; {num_bytes / 1e6:,.1f} MB\n"
        f"a query is an embedding by {info['model']}, projected by projection.npz"
    )
    return Result(values=values, text=text)
