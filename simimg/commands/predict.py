"""Classify images with a trained model.

Prints the most probable classes of each image with their probabilities. A model trained with --test_views=mirrored or
cropped predicts the mean over several views of the image.

Examples:
    simimg predict --model_dir=runs/photos-lite0-seed0 holiday.jpg more_photos/
    simimg predict --model_dir=runs/photos-lite0-seed0 - < holiday.jpg
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from simimg import api
from simimg.commands.console import Result, none_decoded, noting_skipped, progress_bar, showing, with_stdin
from simimg.errors import UsageError
from tfrecords.options import option

JSON_KEYS = "results num_refused"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of `predict`. Raises UsageError if `top` is below 1."""

    model_dir: Path = option("Folder of a finished training run.")
    images: tuple[str, ...] = option(
        "The images; a folder stands for all images in it, and - for one on standard input.", positional=True
    )
    top: int = option("Number of classes to print per image.", 3)

    def __post_init__(self) -> None:
        if self.top < 1:
            raise UsageError(f"--top={self.top}: should be 1 or more.")


def run(options: Options) -> Result:
    """Predict, with a progress bar."""
    refused: list[str] = []
    with with_stdin(options.images) as named, progress_bar(None, "predicting") as bar:
        skip = noting_skipped(refused, named)
        file_of = {name: path for path, name in named.items()}
        files = [file_of[image] for image in options.images]  # as often as they are named
        found = api.predict(options.model_dir, files, refused=skip, progress=showing(bar))
    if not found:
        raise none_decoded(refused)
    results = []
    lines = []
    for one in found:
        path = named.get(one.path, one.path)
        classes = list(one.probabilities.items())[: options.top]
        results.append(
            {
                "path": path,
                "label": one.label,
                "probability": round(one.probability, 6),
                "classes": [{"label": name, "probability": round(share, 6)} for name, share in classes],
            }
        )
        lines.append(f"{path}  " + "  ".join(f"{name} {share:.1%}" for name, share in classes))
    values = {"results": results, "num_refused": len(refused)}
    return Result(values=values, text="\n".join(lines), num_skipped=len(refused))
