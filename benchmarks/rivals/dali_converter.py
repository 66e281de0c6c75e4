"""NVIDIA DALI on the processor: read, decode, resize with antialiasing in batches; the results are appended to a file.

DALI has no format to write, so the batches are written without labels or framing.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simimg.bench.converters.tool_server import ConvertJob

__all__ = ["load", "prepare"]

_BATCH_SIZE = 256
_AHEAD = 2  # batches in flight, DALI's own default


def load(job: ConvertJob) -> dict[str, Any]:
    """Imports DALI."""
    import numpy as np
    import nvidia.dali as dali

    return {
        "versions": {"dali": dali.__version__, "numpy": np.__version__},
        "settings": (
            f"readers.file, decoders.image and resize(antialias=True) on the processor, {job.num_workers} threads, "
            f"batches of about {_BATCH_SIZE}; the pipeline is built before the clock starts"
        ),
    }


def prepare(job: ConvertJob, out_dir: Path) -> Callable[[], int]:
    """Builds a pipeline over the files and returns a function that runs it once."""
    from nvidia.dali import fn, pipeline_def, types

    # The last batch is filled up with images that are decoded and discarded. Batches of nearly equal size keep that
    # below one image per batch. The number of batches is scheduled exactly: by default, the pipeline would go on and
    # decode the next epoch.
    num_batches = math.ceil(len(job.files) / _BATCH_SIZE)
    batch_size = math.ceil(len(job.files) / num_batches)

    @pipeline_def(batch_size=batch_size, num_threads=job.num_workers, device_id=None, prefetch_queue_depth=_AHEAD)
    def pictures() -> Any:
        data, _ = fn.readers.file(files=job.paths(), labels=job.labels, pad_last_batch=True)
        decoded = fn.decoders.image(data, device="cpu", output_type=types.DALIImageType.RGB)
        return fn.resize(decoded, size=(job.image_size, job.image_size), antialias=True, dtype=types.DALIDataType.UINT8)

    pipeline: Any = pictures()
    pipeline.build()

    def run() -> int:
        num_scheduled = num_images = 0
        with open(os.path.join(out_dir, "pictures.bin"), "wb", buffering=0) as file:
            for _ in range(num_batches):
                while num_scheduled < num_batches and num_scheduled * batch_size - num_images < _AHEAD * batch_size:
                    pipeline.schedule_run()
                    num_scheduled += 1
                (images,) = pipeline.share_outputs()
                count = min(batch_size, len(job.files) - num_images)
                file.write(memoryview(images.as_array()[:count]).cast("B"))
                pipeline.release_outputs()
                num_images += count
        return num_images

    return run
