"""Tell what is on pictures, by a model that you trained.

Each picture gets the most probable classes with their probabilities. A model that was trained with --test_views answers
with the mean of its answers to several views of a picture.

Example: simimg predict --model_dir=runs/photos-lite0-seed0 holiday.jpg more_photos/
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from simimg.commands.console import Result, note, progress_bar, quiet_tensorflow, showing

with quiet_tensorflow():
    from simimg.api import predict
    from simimg.errors import UsageError
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
    refused = []

    def refuse(path: str, reason: str) -> None:
        note(f"refused {path}: {reason}")
        refused.append(path)

    with progress_bar(None, "predicting") as bar:
        found = predict(options.model_dir, options.images, refused=refuse, progress=showing(bar))
    if not found:
        raise UsageError("none of the given pictures can be decoded.")
    results = []
    lines = []
    for one in found:
        named = list(one.probabilities.items())[: options.top]
        results.append(
            {
                "path": one.path,
                "label": one.label,
                "probability": round(one.probability, 6),
                "classes": [{"label": name, "probability": round(share, 6)} for name, share in named],
            }
        )
        lines.append(f"{one.path}  " + "  ".join(f"{name} {share:.1%}" for name, share in named))
    return Result(values={"results": results}, text="\n".join(lines), exit_code=2 if refused else 0)
