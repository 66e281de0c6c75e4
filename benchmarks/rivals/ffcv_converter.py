"""FFCV's DatasetWriter: decoded by OpenCV in one worker process per core, resized by FFCV, into one .beton file.

FFCV leaves decoding to its dataset. OpenCV, which FFCV depends on, decodes a third faster than Pillow, which its
examples use. FFCV keeps the aspect ratio: `max_resolution` gives the longer side the length of our squares, so it
stores fewer pixels than the others.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simimg.bench.converters.tool_server import ConvertJob

__all__ = ["load", "prepare"]


class _Pictures:
    """The files as a dataset for FFCV: items (pixels, label) by index."""

    def __init__(self, job: ConvertJob) -> None:
        self._paths, self._labels = job.paths(), job.labels

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        import cv2

        return cv2.imread(self._paths[index], cv2.IMREAD_COLOR_RGB), self._labels[index]


def load(job: ConvertJob) -> dict[str, Any]:
    """Imports FFCV, which compiles a few functions."""
    from importlib.metadata import version

    import ffcv  # noqa: F401

    return {
        "versions": {name: version(name) for name in ("ffcv", "opencv-python-headless", "numpy")},
        "settings": f"cv2.imread, DatasetWriter, RGBImageField(write_mode='raw', max_resolution={job.image_size}), "
        f"{job.num_workers} workers",
    }


def prepare(job: ConvertJob, out_dir: Path) -> Callable[[], int]:
    """Returns a function that writes the file."""
    from ffcv.fields import IntField, RGBImageField
    from ffcv.writer import DatasetWriter

    pictures = _Pictures(job)

    def run() -> int:
        fields = {"image": RGBImageField(write_mode="raw", max_resolution=job.image_size), "label": IntField()}
        writer = DatasetWriter(os.path.join(out_dir, "pictures.beton"), fields, num_workers=job.num_workers)
        writer.from_indexed_dataset(pictures)
        return len(pictures)

    return run
