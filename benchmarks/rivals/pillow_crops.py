"""Random resized crops by WebDataset over tar shards, or by Grain over ArrayRecord.

Neither decodes images itself; Pillow decodes, cuts and resizes them, as torchvision's transforms do. WebDataset works
in this process, without PyTorch's workers; Grain uses its default threads. Both read the files of the records.
"""

from __future__ import annotations

import glob
import io
import math
import os
import random
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simimg.bench.converters.tool_server import ReadJob

__all__ = ["load", "prepare"]

_SHUFFLE_BUFFER = 2048
_AREA, _ASPECT = (0.08, 1.0), 4 / 3


def load(job: ReadJob) -> dict[str, Any]:
    """Writes the records in the tool's own form unless they exist, and imports the tool."""
    from importlib.metadata import version

    path = _form(job)
    if not os.path.exists(path):
        files = sorted(glob.glob(os.path.join(job.image_dir, "*", "*.jpg")))
        (_write_tar if job.variant == "webdataset" else _write_array_record)(files, path + ".part")
        os.rename(path + ".part", path)
    how = (
        f"shuffle({_SHUFFLE_BUFFER:,}), in this process"
        if job.variant == "webdataset"
        else "ArrayRecordDataSource, MapDataset.shuffle, to_iter_dataset"
    )
    return {
        "versions": {name: version(name) for name in (job.variant, "pillow", "numpy")},
        "settings": f"{how}; Pillow: whole decode, crop, BILINEAR",
    }


def prepare(job: ReadJob, out_dir: Path) -> Callable[[], int]:
    """Builds the pipeline and returns a function that reads it once."""
    batches = (_webdataset if job.variant == "webdataset" else _grain)(job)
    shape = (job.batch_size, job.image_size, job.image_size, 3)

    def run() -> int:
        num_images = 0
        for images in batches:
            assert images.shape == shape
            num_images += len(images)
        return num_images

    return run


def _webdataset(job: ReadJob) -> Any:
    import numpy as np
    import webdataset

    return (
        webdataset.WebDataset([_form(job)], shardshuffle=False, empty_check=False)
        .shuffle(_SHUFFLE_BUFFER)
        .to_tuple("jpg")
        .map(lambda sample: _cut(sample[0], job.image_size))
        .batched(job.batch_size, partial=False, collation_fn=np.stack)
    )


def _grain(job: ReadJob) -> Any:
    import grain

    return (
        grain.MapDataset.source(grain.sources.ArrayRecordDataSource([_form(job)]))
        .shuffle(seed=0)
        .map(lambda data: _cut(data, job.image_size))
        .to_iter_dataset()
        .batch(job.batch_size, drop_remainder=True)
    )


def _cut(data: bytes, side: int) -> Any:
    """Returns a random crop of a JPEG, uint8 `[side, side, 3]`, drawn like torchvision's RandomResizedCrop."""
    import numpy as np
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        width, height = image.size
        for _ in range(10):
            area = random.uniform(*_AREA) * width * height
            ratio = math.exp(random.uniform(-math.log(_ASPECT), math.log(_ASPECT)))
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if w <= width and h <= height:
                break
        else:
            w, h = min(width, height), min(width, height)
        left, top = random.randint(0, width - w), random.randint(0, height - h)
        part = image.convert("RGB").crop((left, top, left + w, top + h))
        return np.asarray(part.resize((side, side), Image.Resampling.BILINEAR))


def _form(job: ReadJob) -> str:
    return os.path.join(job.forms_dir, "crops.tar" if job.variant == "webdataset" else "crops.arrayrecord")


def _write_tar(files: list[str], path: str) -> None:
    with tarfile.open(path, "w") as tar:
        for number, file in enumerate(files):
            tar.add(file, f"{number:08}.jpg")


def _write_array_record(files: list[str], path: str) -> None:
    from array_record.python.array_record_module import ArrayRecordWriter

    writer = ArrayRecordWriter(path, "group_size:1")
    for file in files:
        writer.write(Path(file).read_bytes())
    writer.close()
