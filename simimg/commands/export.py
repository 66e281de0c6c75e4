"""Export a model for other programs, or the vectors of an index.

--format=saved_model takes pixels or the bytes of JPEG files, and runs in TensorFlow, TensorFlow Serving and their C
API. Its signature serving_default takes `image`, uint8 [n, size, size, 3], and returns `probabilities`, float32 [n,
classes], and `label`, the name of the most probable class. A model trained with --objective=similarity returns
`embedding`, float32 [n, dim], normalized to length 1. The signature jpeg takes `image_bytes` instead, and class_names
gives the names; they are in assets/class_names.txt, too. --format=keras, onnx, litert and openvino write a file that
takes pixels 0..255, float32 [n, size, size, 3], and class_names.txt. Each export is compared with the model on ten
images of the run's test split before it gets its name. MODEL_DIR/model.keras is the model for Keras, too, and needs no
simimg; exports also average over the views of --test_views.

--int8 adds a LiteRT file with 8-bit weights and activations, calibrated with images of the training split, and prints
its accuracy beside that of the other one.

The vectors of an index, for a vector database, go to a folder: the formats npy and faiss write the vectors and a list
of their images in the same order; parquet writes both to one table. Vectors have length 1 and are compared by inner
product. projection.npz in the folder turns the output of the network into a query: (embedding - mean) @ matrix,
normalized to length 1. simimg/docs/search.md shows how to load it.

Example: simimg export --model_dir=runs/photos-lite0-seed0
Example: simimg export --model_dir=runs/photos-lite0-seed0 --int8
Example: simimg export --index_dir=indexes/photos --format=parquet --out=photos-vectors
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from simimg.commands.console import Result, quiet_tensorflow

with quiet_tensorflow():
    from simimg.errors import UsageError
    from simimg.export.model_export import MODEL_FORMATS, ExportedModel, export_model
    from simimg.similarity.index_export import EXPORT_FORMATS, export_index
    from simimg.similarity.projection import BY
    from simimg.similarity.search_index import SearchIndex
from tfrecords.format.image_size import sides_text
from tfrecords.options import check_choices, option
from tfrecords.storage.object_cache import CacheOptions

JSON_KEYS = (
    "saved_model image_size class_names dim out files num_bytes num_images model format by out_dir num_checked "
    "largest_difference score float32 int8 num_scored"
)
_INDEX_ONLY, _MODEL_ONLY = ("by", "out", "overwrite"), ("out_dir", "int8", "dataset_dir")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(CacheOptions):
    """Options of `export`. Raises UsageError unless one thing to export is given, with its own flags only."""

    model_dir: Path | None = option("Folder of a finished training run.", None)
    out_dir: Path | None = option("Folder of the exported model; by default MODEL_DIR/FORMAT.", None)
    int8: bool = option("LiteRT: also write a file with 8-bit weights and activations.", False)
    dataset_dir: Path | None = option("The dataset of the run, if it was moved.", None)
    index_dir: Path | None = option("Index to export, a folder or URL, instead of --model_dir.", None, url=True)
    format: str = option(
        "Format of the export. auto is saved_model for a model, litert with --int8, and npy for an index.",
        "auto",
        choices=("auto", *EXPORT_FORMATS, *MODEL_FORMATS),
    )
    by: str = option(
        "Vectors of an index to export: those that compare copies, or those that compare kinds.", "copy", choices=BY
    )
    out: Path | None = option("Folder of the vectors of an index.", None)
    overwrite: bool = option("Replace an existing export of an index.", False)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choices(self)
        if (self.model_dir is None) == (self.index_dir is None):
            raise UsageError("name one thing to export: --model_dir=PATH or --index_dir=PATH.")
        given = [f.name for f in dataclasses.fields(self) if getattr(self, f.name) != f.default]
        if self.index_dir is not None:
            if self.out is None:
                raise UsageError("--out=PATH is required with --index_dir: folder of the vectors.")
            if self.out_dir is not None:
                raise UsageError(f"--out_dir={self.out_dir} applies to --model_dir only. Use --out=PATH for an index.")
            for name in given:
                if name in _MODEL_ONLY:
                    raise UsageError(f"--{name} applies to --model_dir only. Leave it out for an index.")
            self._check_format(EXPORT_FORMATS, "an index")
            return
        for name in given:
            if name in _INDEX_ONLY:
                raise UsageError(f"--{name} applies to --index_dir only. Use --out_dir=PATH for a model.")
        self._check_format(MODEL_FORMATS, "a model")
        if self.int8 and self.format not in ("auto", "litert"):
            raise UsageError("--int8 applies to --format=litert only. Name that format, or leave out --int8.")

    def _check_format(self, formats: tuple[str, ...], what: str) -> None:
        if self.format not in ("auto", *formats):
            raise UsageError(f"--format={self.format}: {what} can be exported as {', '.join(formats)}.")


def run(options: Options) -> Result:
    """Export a model or an index."""
    return _export_index(options) if options.model_dir is None else _export_model(options, options.model_dir)


def _export_model(options: Options, model_dir: Path) -> Result:
    format = options.format
    if format == "auto":
        format = "litert" if options.int8 else "saved_model"
    out_dir = options.out_dir or model_dir / format
    made = export_model(model_dir, out_dir, format=format, int8=options.int8, dataset_dir=options.dataset_dir)
    info = made.info
    for_copies = info.objective.score == "recall"
    values: dict[str, Any] = {"format": format, "out_dir": str(out_dir), "files": list(made.files)}
    values |= {"saved_model": str(out_dir)} if format == "saved_model" else {}
    values |= {"num_bytes": made.num_bytes, "image_size": info.image_size}
    values |= {"dim": info.config["embedding_dim"]} if for_copies else {"class_names": list(info.class_names)}
    values |= {"num_checked": made.num_checked, "largest_difference": made.largest_difference}
    outputs = "targets" if info.objective.lower_is_better else "classes"
    what = f"{values['dim']} numbers per image" if for_copies else f"{len(info.class_names)} {outputs}"
    kind = "SavedModel" if format == "saved_model" else ", ".join(file for file in made.files if "names" not in file)
    images = "gray images" if info.channels == 1 else "images"
    text = (
        f"{kind}: {out_dir}, {what}\n"
        f"input: {images} of {sides_text(info.image_size, 'x')} px, resized by `{info.resize}`\n"
        f"compared on {made.num_checked} {made.checked_on}: differs from the model by {made.largest_difference:.1e} "
        "at most"
    )
    if made.int8_score is not None:
        words, where = _score_words(made), f"{made.num_scored:,} images of that split"
        values |= {"score": words, "float32": made.score, "int8": made.int8_score, "num_scored": made.num_scored}
        text += f"\n{words} on {where}: {made.score:.4f} in float32, {made.int8_score:.4f} in 8 bits"
    return Result(values=values, text=text)


def _score_words(made: ExportedModel) -> str:
    objective = made.info.objective
    return "mean cosine to the float32 embedding" if objective.score == "recall" else objective.words


def _export_index(options: Options) -> Result:
    assert options.index_dir is not None
    assert options.out is not None
    index = SearchIndex.open(options.index_dir)
    format = "npy" if options.format == "auto" else options.format
    info = export_index(index, options.out, format=format, by=options.by, overwrite=options.overwrite)
    files = sorted(path.name for path in options.out.iterdir())
    num_bytes = sum((options.out / name).stat().st_size for name in files)
    values = {"out": str(options.out), "files": files, "num_bytes": num_bytes, **info}
    text = (
        f"{info['num_images']:,} images as vectors of {info['dim']} numbers, of length 1, in {options.out}: "
        f"{', '.join(files)}; {num_bytes / 1e6:,.1f} MB\n"
        f"a query is an embedding from {info['model']}, projected with projection.npz"
    )
    return Result(values=values, text=text)
