"""tf.data in two ways: the usual one, example by example, and the one of TensorFlow's performance guide.

`usual`: files interleaved, shuffled in a buffer, each record parsed and decoded in a parallel map, batched.
`vectorised`: the serialized records are batched first and parsed together, which works for raw pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simimg.bench.converters.tool_server import ReadJob

__all__ = ["load", "prepare"]

_SHUFFLE_BUFFER = 8192


def load(job: ReadJob) -> dict[str, Any]:
    """Imports TensorFlow."""
    import tensorflow as tf

    how = "parse_single_example and decode in a parallel map, batch"
    if job.variant == "vectorised":
        how = "batch, then parse_example and decode_raw together"
    return {
        "versions": {"tensorflow": tf.__version__},
        "settings": f"TFRecordDataset interleaved, shuffle({_SHUFFLE_BUFFER:,}), {how}, prefetch; all AUTOTUNE",
    }


def prepare(job: ReadJob, out_dir: Path) -> Callable[[], int]:
    """Builds the pipeline and returns a function that reads it once."""
    import tensorflow as tf

    size = job.image_size
    spec = {"image": tf.io.FixedLenFeature([], tf.string), "label": tf.io.FixedLenFeature([], tf.int64)}

    def decode_one(serialized: Any) -> Any:
        features = tf.io.parse_single_example(serialized, spec)
        if job.encoding == "raw":
            image = tf.reshape(tf.io.decode_raw(features["image"], tf.uint8), [size, size, 3])
        else:
            image = tf.ensure_shape(tf.io.decode_jpeg(features["image"], channels=3), [size, size, 3])
        return image, features["label"]

    def decode_all(serialized: Any) -> Any:
        features = tf.io.parse_example(serialized, spec)
        images = tf.io.decode_raw(features["image"], tf.uint8, fixed_length=size * size * 3)
        return tf.reshape(images, [-1, size, size, 3]), features["label"]

    records = (
        tf.data.Dataset.from_tensor_slices(job.shards)
        .shuffle(len(job.shards))
        .interleave(tf.data.TFRecordDataset, num_parallel_calls=tf.data.AUTOTUNE)
        .shuffle(_SHUFFLE_BUFFER)
    )
    if job.variant == "vectorised":
        batches = records.batch(job.batch_size, drop_remainder=True).map(decode_all, tf.data.AUTOTUNE)
    else:
        batches = records.map(decode_one, tf.data.AUTOTUNE).batch(job.batch_size, drop_remainder=True)
    batches = batches.prefetch(tf.data.AUTOTUNE)

    def run() -> int:
        return sum(int(images.shape[0]) for images, _ in batches)

    return run
