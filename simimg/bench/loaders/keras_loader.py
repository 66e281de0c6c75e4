"""Keras' `image_dataset_from_directory` over JPEG files that have the final size already.

A module of its own because each tool of a comparison is a script that runs in its own process.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simimg.bench.converters.tool_server import ReadJob

__all__ = ["load", "prepare"]


def load(job: ReadJob) -> dict[str, Any]:
    """Imports Keras."""
    import keras

    return {"versions": {"keras": keras.__version__}, "settings": "image_dataset_from_directory(shuffle=True)"}


def prepare(job: ReadJob, out_dir: Path) -> Callable[[], int]:
    """Lists the files and returns a function that reads them all once."""
    import keras

    batches = keras.utils.image_dataset_from_directory(
        os.path.join(job.forms_dir, "files"),
        image_size=(job.image_size, job.image_size),
        batch_size=job.batch_size,
        shuffle=True,
        seed=0,
        verbose=False,
    )

    def run() -> int:
        # The last batch is incomplete; only complete ones count, for all tools.
        return sum(int(images.shape[0]) for images, _ in batches if images.shape[0] == job.batch_size)

    return run
