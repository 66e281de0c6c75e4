"""Tell what is on pictures, by a model that you trained.

Each picture gets the most probable classes with their probabilities. A model that was trained with --test_views answers
with the mean of its answers to several views of a picture.

Example: simimg predict --model_dir=runs/photos-lite0-seed0 holiday.jpg more_photos/
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from simimg.commands.console import Result, note, progress_bar, quiet_tensorflow

with quiet_tensorflow():
    from simimg.errors import UsageError
    from simimg.evaluation import compiled, predict_files
    from simimg.pictures import named_files
    from simimg.training import load_trained
from tfrecords.options import option


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What `predict` can be told. Raises UsageError if `top` is below 1."""

    model_dir: Path = option("Folder of a finished training run.")
    images: tuple[str, ...] = option("The pictures; a folder stands for all in it.", positional=True)
    top: int = option("Classes that are shown of each picture.", 3)

    def __post_init__(self) -> None:
        """Checks `top`."""
        if self.top < 1:
            raise UsageError(f"--top={self.top}: should be 1 or more.")


def run(options: Options) -> Result:
    """Predicts with a progress bar."""
    paths = named_files(options.images)
    model, info = load_trained(options.model_dir)
    if info.objective.score == "recall":
        raise UsageError(
            f"{options.model_dir} was trained to find copies and knows no classes. Make an index with it: "
            f"simimg index --model={options.model_dir} --image_dir=PATH --index_dir=PATH; then: simimg search."
        )
    with progress_bar(len(paths), "predicting") as bar:
        found = predict_files(
            compiled(model, views=info.config["test_views"]),
            paths,
            image_size=info.image_size,
            resize=info.resize,
            num_classes=len(info.class_names),
            progress=bar.update,
        )
    for path, refusal in found.refused:
        note(f"refused {path}: {refusal}")
    if not found.paths:
        raise UsageError("none of the given pictures can be decoded.")
    results = []
    lines = []
    for path, row in zip(found.paths, found.probabilities, strict=True):
        best = np.argsort(-row, kind="stable")[: options.top]
        named = [(info.class_names[label], float(row[label])) for label in best.tolist()]
        results.append(
            {
                "path": path,
                "label": named[0][0],
                "probability": round(named[0][1], 6),
                "classes": [{"label": name, "probability": round(share, 6)} for name, share in named],
            }
        )
        lines.append(f"{path}  " + "  ".join(f"{name} {share:.1%}" for name, share in named))
    return Result(values={"results": results}, text="\n".join(lines), exit_code=2 if found.refused else 0)
