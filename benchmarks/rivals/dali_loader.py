"""NVIDIA DALI on the processor: its TFRecord reader, shuffled in a buffer; raw pixels reshaped, or JPEG decoded.

The variant `crops` cuts random crops while it decodes, and resizes them with antialiasing.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simimg.bench.converters.tool_server import ReadJob

__all__ = ["load", "prepare"]

_SHUFFLE_BUFFERS = {"": 8192, "crops": 2048}

_PIPELINES: list[Any] = []


def load(job: ReadJob) -> dict[str, Any]:
    """Builds the pipeline, which repeats without end."""
    import nvidia.dali as dali
    from nvidia.dali import fn, pipeline_def, tfrecord, types

    buffer = _SHUFFLE_BUFFERS[job.variant]

    @pipeline_def(batch_size=job.batch_size, num_threads=job.num_workers, device_id=None, prefetch_queue_depth=2)
    def pictures() -> Any:
        features = fn.readers.tfrecord(
            path=job.shards,
            index_path=_indices(job),
            features={
                "image": tfrecord.FixedLenFeature((), tfrecord.string, ""),
                "label": tfrecord.FixedLenFeature([1], tfrecord.int64, 0),
            },
            random_shuffle=True,
            initial_fill=buffer,
        )
        if job.variant == "crops":
            cut = fn.decoders.image_random_crop(
                features["image"],
                device="cpu",
                output_type=types.DALIImageType.RGB,
                random_area=[0.08, 1.0],
                random_aspect_ratio=[3 / 4, 4 / 3],
            )
            images = fn.resize(cut, size=[job.image_size, job.image_size])
        elif job.encoding == "raw":
            images = fn.reshape(features["image"], shape=[job.image_size, job.image_size, 3])
        else:
            images = fn.decoders.image(features["image"], device="cpu", output_type=types.DALIImageType.RGB)
        return images, features["label"]

    pipeline: Any = pictures()
    pipeline.build()
    _PIPELINES.append(pipeline)
    how = "reshape" if job.encoding == "raw" else "decoders.image"
    if job.variant == "crops":
        how = "decoders.image_random_crop, resize (antialias)"
    return {
        "versions": {"dali": dali.__version__},
        "settings": f"readers.tfrecord(random_shuffle, initial_fill={buffer:,}), {how}, {job.num_workers} threads",
    }


def prepare(job: ReadJob, out_dir: Path) -> Callable[[], int]:
    """Returns a function that reads as many batches as an epoch has."""
    (pipeline,) = _PIPELINES

    def run() -> int:
        num_images = 0
        for _ in range(job.num_images // job.batch_size):
            images, _ = pipeline.run()
            assert images.as_array().shape == (job.batch_size, job.image_size, job.image_size, 3)
            num_images += job.batch_size
        return num_images

    return run


def _indices(job: ReadJob) -> list[str]:
    """Returns the index files of the shards, and writes those of raw shards, which simimg does not need."""
    paths = []
    for shard, count in zip(job.shards, job.records, strict=True):
        folder, name = os.path.split(shard)
        path = os.path.join(folder, "idx", f"{name}.idx")
        if not os.path.exists(path):
            path = os.path.join(job.work_dir, f"{name}.idx")
            length = os.path.getsize(shard) // count
            with open(path, "w") as file:
                file.writelines(f"{number * length} {length}\n" for number in range(count))
        paths.append(path)
    return paths
