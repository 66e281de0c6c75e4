"""WebDataset over tar shards of JPEG files, shuffled in a buffer and decoded by Pillow in this process."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simimg.bench.converters.tool_server import ReadJob

__all__ = ["load", "prepare"]

_SHUFFLE_BUFFER = 8192


def load(job: ReadJob) -> dict[str, Any]:
    """Imports WebDataset."""
    from importlib.metadata import version

    return {
        "versions": {name: version(name) for name in ("webdataset", "pillow", "numpy")},
        "settings": f"WebDataset, shuffle({_SHUFFLE_BUFFER:,}), decode('rgb8'), batched; without PyTorch's workers",
    }


def prepare(job: ReadJob, out_dir: Path) -> Callable[[], int]:
    """Builds the pipeline and returns a function that reads it once."""
    import webdataset

    tars = sorted(glob.glob(os.path.join(job.forms_dir, "*.tar")))
    batches = (
        webdataset.WebDataset(tars, shardshuffle=len(tars), empty_check=False)
        .shuffle(_SHUFFLE_BUFFER)
        .decode("rgb8")
        .to_tuple("jpg", "cls")
        .batched(job.batch_size, partial=False)
    )

    def run() -> int:
        return sum(len(images) for images, _ in batches)

    return run
