"""Export a model as a SavedModel, or the vectors of an index.

A SavedModel takes pixels as stored, and includes the names of the classes. Its signature takes `image`, uint8
[n, size, size, 3], and returns `probabilities`, float32 [n, classes], `label`, the name of the most probable class, and
`class_names`. A model trained with --objective=similarity returns `embedding`, float32 [n, dim], normalized to length
1. MODEL_DIR/model.keras is the same model for Keras.

The vectors of an index, for a vector database, go to a folder: the formats npy and faiss write the vectors and a list
of their images in the same order; parquet writes both to one table. Vectors have length 1 and are compared by inner
product. projection.npz in the folder turns the output of the network into a query: (embedding - mean) @ matrix,
normalized to length 1. simimg/docs/search.md shows how to load it.

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
    from simimg.models.saved_model import export_saved_model
    from simimg.similarity.index_export import EXPORT_FORMATS, export_index
    from simimg.similarity.projection import BY
    from simimg.similarity.search_index import SearchIndex
from tfrecords.format.image_size import image_size_of, sides_text
from tfrecords.options import check_choices, option

JSON_KEYS = "saved_model image_size class_names dim out files num_bytes num_images model format by"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of `export`. Raises UsageError unless one thing to export is given, with its own flags only."""

    model_dir: Path | None = option("Folder of a finished training run.", None)
    out_dir: Path | None = option("Folder of the SavedModel; by default MODEL_DIR/saved_model.", None)
    index_dir: Path | None = option("Index folder to export, instead of --model_dir.", None)
    format: str = option("File format of an exported index.", "npy", choices=EXPORT_FORMATS)
    by: str = option(
        "Vectors of an index to export: those that compare copies, or those that compare kinds.", "copy", choices=BY
    )
    out: Path | None = option("Folder of the vectors of an index.", None)
    overwrite: bool = option("Replace an existing export of an index.", False)

    def __post_init__(self) -> None:
        check_choices(self)
        if (self.model_dir is None) == (self.index_dir is None):
            raise UsageError("name one thing to export: --model_dir=PATH or --index_dir=PATH.")
        if self.index_dir is not None:
            if self.out is None:
                raise UsageError("--out=PATH is required with --index_dir: folder of the vectors.")
            if self.out_dir is not None:
                raise UsageError(f"--out_dir={self.out_dir} applies to --model_dir only. Use --out=PATH for an index.")
            return
        for field in dataclasses.fields(self):
            if field.name not in ("model_dir", "out_dir") and getattr(self, field.name) != field.default:
                raise UsageError(f"--{field.name} applies to --index_dir only. Use --out_dir=PATH for a model.")


def run(options: Options) -> Result:
    """Export a model or an index."""
    return _export_index(options) if options.model_dir is None else _export_model(options, options.model_dir)


def _export_model(options: Options, model_dir: Path) -> Result:
    out_dir = options.out_dir or model_dir / "saved_model"
    info = export_saved_model(model_dir, out_dir)
    for_copies = info.objective.score == "recall"
    values: dict[str, Any] = {"saved_model": str(out_dir), "image_size": info.image_size}
    values |= {"dim": info.config["embedding_dim"]} if for_copies else {"class_names": list(info.class_names)}
    outputs = "targets" if info.objective.lower_is_better else "classes"
    what = f"{values['dim']} numbers per image" if for_copies else f"{len(info.class_names)} {outputs}"
    text = (
        f"SavedModel: {out_dir}, {what}\n"
        f"input: images of {sides_text(image_size_of(info.image_size))} px, resized by `{info.resize}`"
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
        f"{info['num_images']:,} images as vectors of {info['dim']} numbers, of length 1, in {options.out}: "
        f"{', '.join(files)}; {num_bytes / 1e6:,.1f} MB\n"
        f"a query is an embedding from {info['model']}, projected with projection.npz"
    )
    return Result(values=values, text=text)
