"""NVIDIA DALI on the processor: random crops that are cut while decoding, and resized with antialiasing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simimg.bench.converters.tool_server import ReadJob

__all__ = ["load", "prepare"]

_SHUFFLE_BUFFER = 2048

_PIPELINES: list[Any] = []


def load(job: ReadJob) -> dict[str, Any]:
    """Builds the pipeline, which repeats without end."""
    import nvidia.dali as dali
    from nvidia.dali import fn, pipeline_def, tfrecord, types

    @pipeline_def(batch_size=job.batch_size, num_threads=job.num_workers, device_id=None, prefetch_queue_depth=2)
    def crops() -> Any:
        features = fn.readers.tfrecord(
            path=job.shards,
            index_path=[f"{shard}.idx" for shard in job.shards],
            features={
                "image": tfrecord.FixedLenFeature((), tfrecord.string, ""),
                "label": tfrecord.FixedLenFeature([1], tfrecord.int64, 0),
            },
            random_shuffle=True,
            initial_fill=_SHUFFLE_BUFFER,
        )
        images = fn.decoders.image_random_crop(
            features["image"],
            device="cpu",
            output_type=types.DALIImageType.RGB,
            random_area=[0.08, 1.0],
            random_aspect_ratio=[3 / 4, 4 / 3],
        )
        return fn.resize(images, size=[job.image_size, job.image_size]), features["label"]

    pipeline: Any = crops()
    pipeline.build()
    _PIPELINES.append(pipeline)
    return {
        "versions": {"dali": dali.__version__},
        "settings": f"readers.tfrecord, decoders.image_random_crop, resize (antialias), {job.num_workers} threads",
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
