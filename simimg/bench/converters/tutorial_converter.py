"""The tutorial's loop: Pillow, one picture after the other in one process, into one TFRecord file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simimg.bench.converters.tool_server import ConvertJob

__all__ = ["load", "prepare"]


def load(job: ConvertJob) -> dict[str, Any]:
    """Imports TensorFlow and Pillow."""
    import numpy as np
    import PIL
    import tensorflow as tf

    return {
        "versions": {"tensorflow": tf.__version__, "pillow": PIL.__version__, "numpy": np.__version__},
        "settings": "Image.open, convert('RGB'), resize with its default filter, tf.train.Example, TFRecordWriter",
    }


def prepare(job: ConvertJob, out_dir: Path) -> Callable[[], int]:
    """Returns the loop."""
    import numpy as np
    import tensorflow as tf
    from PIL import Image

    paths, size = job.paths(), (job.image_size, job.image_size)

    def run() -> int:
        with tf.io.TFRecordWriter(os.path.join(out_dir, "pictures.tfrecord")) as writer:
            for path, label in zip(paths, job.labels, strict=True):
                pixels = np.asarray(Image.open(path).convert("RGB").resize(size))
                feature = {
                    "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[pixels.tobytes()])),
                    "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
                }
                example = tf.train.Example(features=tf.train.Features(feature=feature))
                writer.write(example.SerializeToString())
        return len(paths)

    return run
