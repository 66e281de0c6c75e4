"""Grain over ArrayRecord, raw pixels: a global shuffle, batches, its default threads."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simimg.bench.converters.tool_server import ReadJob

__all__ = ["load", "prepare"]

_ROWS_AT_ONCE = 1024

_SOURCES: list[Any] = []


def load(job: ReadJob) -> dict[str, Any]:
    """Writes the file unless it exists, and opens it."""
    from importlib.metadata import version

    import grain
    import numpy as np
    from array_record.python.array_record_module import ArrayRecordWriter

    path = os.path.join(job.forms_dir, "pictures.arrayrecord")
    if not os.path.exists(path):
        pixels = np.load(os.path.join(job.forms_dir, "pixels.npy"), mmap_mode="r")
        writer = ArrayRecordWriter(path + ".part", "group_size:1")
        for first in range(0, len(pixels), _ROWS_AT_ONCE):
            for row in np.array(pixels[first : first + _ROWS_AT_ONCE]):
                writer.write(row.tobytes())
        writer.close()
        os.rename(path + ".part", path)
    _SOURCES.append(grain.sources.ArrayRecordDataSource([path]))
    return {
        "versions": {name: version(name) for name in ("grain", "array_record", "numpy")},
        "settings": "ArrayRecordDataSource, MapDataset.shuffle, frombuffer, batch, to_iter_dataset",
    }


def prepare(job: ReadJob, out_dir: Path) -> Callable[[], int]:
    """Builds the pipeline and returns a function that reads it once."""
    import grain
    import numpy as np

    shape = (job.image_size, job.image_size, 3)
    batches = (
        grain.MapDataset.source(_SOURCES[0])
        .shuffle(seed=0)
        .map(lambda data: np.frombuffer(data, np.uint8).reshape(shape))
        .to_iter_dataset()
        .batch(job.batch_size, drop_remainder=True)
    )

    def run() -> int:
        return sum(len(images) for images in batches)

    return run
