"""The tutorial's loop up to the array: Pillow, one picture after the other in one process, nothing written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simimg.bench.converters.tool_server import ConvertJob

__all__ = ["load", "prepare"]


def load(job: ConvertJob) -> dict[str, Any]:
    """Imports Pillow."""
    import numpy as np
    import PIL

    return {
        "versions": {"pillow": PIL.__version__, "numpy": np.__version__},
        "settings": "Image.open, convert('RGB'), resize with its default filter, np.asarray; nothing is written",
    }


def prepare(job: ConvertJob, out_dir: Path) -> Callable[[], int]:
    """Returns the loop."""
    import numpy as np
    from PIL import Image

    paths, size = job.paths(), (job.image_size, job.image_size)

    def run() -> int:
        pictures = [np.asarray(Image.open(path).convert("RGB").resize(size)) for path in paths]
        return len(pictures)

    return run
