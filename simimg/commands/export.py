"""Write a trained model as a SavedModel, for others to run.

It takes pixels as they are, and knows the names of its classes. Its signature takes `image`, uint8 [n, size, size, 3],
and gives `probabilities`, float32 [n, classes], `label`, the name of the most probable class, and `class_names`. Of a
model that was trained for copies it gives `embedding`, float32 [n, dim] of length 1. MODEL_DIR/model.keras is the same
model for Keras.

Example: simimg export --model_dir=runs/photos-lite0-seed0
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from simimg.commands.console import Result, quiet_tensorflow

with quiet_tensorflow():
    from simimg.training import export_saved_model
from tfrecords.options import option


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What `export` can be told."""

    model_dir: Path = option("Folder of a finished training run.")
    out_dir: Path | None = option("Where the SavedModel goes; by default MODEL_DIR/saved_model.", None)


def run(options: Options) -> Result:
    """Exports."""
    out_dir = options.out_dir or options.model_dir / "saved_model"
    info = export_saved_model(options.model_dir, out_dir)
    for_copies = info.objective.score == "recall"
    values: dict[str, Any] = {"saved_model": str(out_dir), "image_size": info.image_size}
    values |= {"dim": info.config["embedding_dim"]} if for_copies else {"class_names": list(info.class_names)}
    what = f"{values['dim']} numbers a picture" if for_copies else f"{len(info.class_names)} classes"
    text = (
        f"a SavedModel of {what} is in {out_dir}\n"
        f"it takes pictures of {info.image_size} x {info.image_size}, resized by `{info.resize}`"
    )
    return Result(values=values, text=text)
