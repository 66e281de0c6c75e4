"""FFCV's Loader in its fastest way: order RANDOM, the file in the page cache; raw pixels, or JPEG of quality 90.

Its DatasetWriter makes the .beton file of the same pixels once; the file is kept. The variant `crops` decodes with
RandomResizedCropRGBImageDecoder, from JPEGs that are encoded again from the decoded files of the records, since the
writer takes pixels.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simimg.bench.converters.tool_server import ReadJob

__all__ = ["load", "prepare"]

_QUALITY = 90  # that of the comparison's JPEG shards
_AREA, _ASPECT = (0.08, 1.0), (3 / 4, 4 / 3)

_LOADERS: list[Any] = []


class _Files:
    """The files of the records as a dataset for FFCV: items (pixels, 0) by index."""

    def __init__(self, job: ReadJob) -> None:
        self._paths = sorted(glob.glob(os.path.join(job.image_dir, "*", "*.jpg")))

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        import cv2

        return cv2.cvtColor(cv2.imread(self._paths[index]), cv2.COLOR_BGR2RGB), 0


class _Pictures:
    """The images as a dataset for FFCV: items (pixels, label) by index."""

    def __init__(self, job: ReadJob) -> None:
        import numpy as np

        self._pixels = np.load(os.path.join(job.forms_dir, "pixels.npy"), mmap_mode="r")
        self._labels = np.load(os.path.join(job.forms_dir, "labels.npy"))

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        import numpy as np

        return np.array(self._pixels[index]), int(self._labels[index])


def load(job: ReadJob) -> dict[str, Any]:
    """Writes the file unless it exists, and opens it."""
    from importlib.metadata import version

    from ffcv.fields import IntField, RGBImageField
    from ffcv.fields.decoders import IntDecoder, RandomResizedCropRGBImageDecoder, SimpleRGBImageDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import ToTensor
    from ffcv.writer import DatasetWriter

    crops = job.variant == "crops"
    mode = "raw" if job.encoding == "raw" else "jpg"
    path = os.path.join(job.forms_dir, f"{'crops' if crops else 'pictures'}-{mode}.beton")
    if not os.path.exists(path):
        fields = {"image": RGBImageField(write_mode=mode, jpeg_quality=_QUALITY), "label": IntField()}
        writer = DatasetWriter(path + ".part", fields, num_workers=job.num_workers)
        writer.from_indexed_dataset(_Files(job) if crops else _Pictures(job))
        os.rename(path + ".part", path)
    side = (job.image_size, job.image_size)
    decoder = RandomResizedCropRGBImageDecoder(side, _AREA, _ASPECT) if crops else SimpleRGBImageDecoder()
    _LOADERS.append(
        Loader(
            path,
            batch_size=job.batch_size,
            num_workers=job.num_workers,
            order=OrderOption.RANDOM,
            os_cache=True,
            drop_last=True,
            pipelines={"image": [decoder, ToTensor()], "label": [IntDecoder(), ToTensor()]},
        )
    )
    return {
        "versions": {name: version(name) for name in ("ffcv", "torch", "numpy")},
        "settings": f"{mode}, {type(decoder).__name__}, OrderOption.RANDOM, os_cache, {job.num_workers} workers",
    }


def prepare(job: ReadJob, out_dir: Path) -> Callable[[], int]:
    """Returns a function that reads an epoch."""
    (loader,) = _LOADERS
    shape = (job.batch_size, job.image_size, job.image_size, 3)

    def run() -> int:
        num_images = 0
        for images, _ in loader:
            assert tuple(images.shape) == shape
            num_images += len(images)
        return num_images

    return run
