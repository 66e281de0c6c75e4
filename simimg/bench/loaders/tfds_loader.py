"""TensorFlow Datasets' own loader over the same folder: shuffled files, a buffer, its decoding, batches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simimg.bench.converters.tool_server import ReadJob

__all__ = ["load", "prepare"]

_SHUFFLE_BUFFER = 8192

_BUILDERS: list[Any] = []


def load(job: ReadJob) -> dict[str, Any]:
    """Opens the folder."""
    import tensorflow_datasets as tfds

    _BUILDERS.append(tfds.builder_from_directory(job.dataset_dir))
    return {
        "versions": {"tensorflow-datasets": tfds.__version__},
        "settings": f"builder_from_directory, as_dataset(shuffle_files=True), shuffle({_SHUFFLE_BUFFER:,}), batch",
    }


def prepare(job: ReadJob, out_dir: Path) -> Callable[[], int]:
    """Builds the pipeline and returns a function that reads it once."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    config = tfds.ReadConfig(try_autocache=False)  # or the second epoch of a small set would come from memory
    examples = _BUILDERS[0].as_dataset(split="train", shuffle_files=True, read_config=config)
    batches = examples.shuffle(_SHUFFLE_BUFFER).batch(job.batch_size, drop_remainder=True).prefetch(tf.data.AUTOTUNE)

    def run() -> int:
        return sum(int(batch["image"].shape[0]) for batch in batches)

    return run
