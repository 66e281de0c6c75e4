"""The tutorial's loop: Pillow, one image after the other in one process, into one TFRecord file.

`plain` is the same loop up to the array, and writes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simimg.bench.converters.tool_server import ConvertJob

__all__ = ["load", "prepare"]


def load(job: ConvertJob) -> dict[str, Any]:
    """Imports Pillow and, unless `plain`, TensorFlow."""
    import numpy as np
    import PIL

    versions = {"pillow": PIL.__version__, "numpy": np.__version__}
    how = "Image.open, convert('RGB'), resize with its default filter"
    if job.variant == "plain":
        return {"versions": versions, "settings": f"{how}, np.asarray; nothing is written"}
    import tensorflow as tf

    return {
        "versions": {"tensorflow": tf.__version__, **versions},
        "settings": f"{how}, tf.train.Example, TFRecordWriter",
    }


def prepare(job: ConvertJob, out_dir: Path) -> Callable[[], int]:
    """Returns the loop."""
    import numpy as np
    from PIL import Image

    paths, size = job.paths(), (job.image_size, job.image_size)

    def pixels_of(path: str) -> np.ndarray:
        return np.asarray(Image.open(path).convert("RGB").resize(size))

    if job.variant == "plain":
        return lambda: len([pixels_of(path) for path in paths])
    import tensorflow as tf

    def run() -> int:
        with tf.io.TFRecordWriter(os.path.join(out_dir, "pictures.tfrecord")) as writer:
            for path, label in zip(paths, job.labels, strict=True):
                feature = {
                    "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[pixels_of(path).tobytes()])),
                    "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
                }
                example = tf.train.Example(features=tf.train.Features(feature=feature))
                writer.write(example.SerializeToString())
        return len(paths)

    return run
