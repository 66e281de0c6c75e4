"""Random resized crops of JPEG records in shuffled batches: this project's reader, the usual ways, and the limit.

`simimg` decodes the region of the crop; `simimg-whole` is the same without a library that can. `tfdata` is
`decode_and_crop_jpeg` and `resize(antialias=True)` of TensorFlow; `tfdata-aliased` leaves the antialiasing out, as most
pipelines do. `pillow` decodes the whole image, cuts and resizes it, as torchvision's transforms do. `entropy` is the
limit: one thread decodes every record to 1/8 of its size, which is little more than the entropy decoding of its bytes.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simimg.bench.converters.tool_server import ReadJob

__all__ = ["load", "prepare"]

_SHUFFLE_BUFFER = 2048
_AREA, _ASPECT = (0.08, 1.0), (3 / 4, 4 / 3)

_READERS: list[Any] = []  # opened once, by `load`


def load(job: ReadJob) -> dict[str, Any]:
    """Imports what it needs, and opens this project's reader."""
    if job.variant.startswith("simimg"):
        return _load_ours(job)
    if job.variant.startswith("tfdata"):
        import tensorflow as tf

        filtered = "no antialiasing" if job.variant == "tfdata-aliased" else "antialias"
        return {
            "versions": {"tensorflow": tf.__version__},
            "settings": f"shuffle, sample_distorted_bounding_box, decode_and_crop_jpeg, resize ({filtered})",
        }
    from importlib.metadata import version

    package = "pillow" if job.variant == "pillow" else "simplejpeg"
    how = f"whole decode, crop, BILINEAR, {job.num_workers} threads" if package == "pillow" else "1/8, one thread"
    return {"versions": {package: version(package)}, "settings": how}


def prepare(job: ReadJob, out_dir: Path) -> Callable[[], int]:
    """Returns a function that delivers as many crops as an epoch has."""
    if job.variant.startswith("simimg"):
        return _ours(job)
    if job.variant.startswith("tfdata"):
        return _tfdata(job)
    return _pillow(job) if job.variant == "pillow" else _entropy(job)


def _load_ours(job: ReadJob) -> dict[str, Any]:
    import tensorflow as tf

    from simimg.input import jpeg_regions, open_reader

    if job.variant == "simimg-whole":
        jpeg_regions.region_library = lambda: None  # type: ignore[assignment]
    reader, reason = open_reader(
        Path(job.dataset_dir), "train", num_threads=job.num_workers, crop="random", image_size=job.image_size
    )
    _READERS.append(reader)
    return {"versions": {"tensorflow": tf.__version__}, "settings": reason}


def _ours(job: ReadJob) -> Callable[[], int]:
    """Reads exactly one epoch: batches that are read ahead between two runs would cost no time."""
    from simimg.input import Order, batches_of, train_batches

    (reader,) = _READERS
    order = Order(num_examples=reader.split.num_examples, global_batch_size=job.batch_size, num_epochs=1, seed=0)
    batches = train_batches(reader, order)
    return lambda: sum(int(batch.image.shape[0]) for batch in batches_of(batches))


def _tfdata(job: ReadJob) -> Callable[[], int]:
    import tensorflow as tf

    spec = {"image": tf.io.FixedLenFeature([], tf.string), "label": tf.io.FixedLenFeature([], tf.int64)}
    whole = tf.constant([[[0.0, 0.0, 1.0, 1.0]]])

    def cut(serialized: Any) -> Any:
        features = tf.io.parse_single_example(serialized, spec)
        shape = tf.io.extract_jpeg_shape(features["image"])
        begin, size, _ = tf.image.sample_distorted_bounding_box(
            shape, whole, area_range=_AREA, aspect_ratio_range=_ASPECT, max_attempts=10
        )
        window = tf.stack([begin[0], begin[1], size[0], size[1]])
        image = tf.io.decode_and_crop_jpeg(features["image"], window, channels=3)
        side = [job.image_size, job.image_size]
        resized = tf.image.resize(image, side, antialias=job.variant == "tfdata")
        return tf.cast(tf.clip_by_value(tf.round(resized), 0, 255), tf.uint8), features["label"]

    batches = (
        tf.data.Dataset.from_tensor_slices(job.shards)
        .shuffle(len(job.shards))
        .interleave(tf.data.TFRecordDataset, num_parallel_calls=tf.data.AUTOTUNE)
        .shuffle(_SHUFFLE_BUFFER)
        .map(cut, tf.data.AUTOTUNE)
        .batch(job.batch_size, drop_remainder=True)
        .prefetch(tf.data.AUTOTUNE)
    )
    return lambda: sum(int(images.shape[0]) for images, _ in batches)


def _pillow(job: ReadJob) -> Callable[[], int]:
    import io

    import numpy as np
    from PIL import Image

    from simimg.input.crops import Crops

    files = _files(job)
    crops, side = Crops(image_size=job.image_size), (job.image_size, job.image_size)

    def cut(number: int) -> Any:
        with Image.open(io.BytesIO(files[number])) as image:
            (box,) = crops.boxes(np.array([image.size]), np.array([number]), (0, 0))
            part = image.convert("RGB").crop((int(box.left), int(box.top), int(box.right), int(box.bottom)))
        return np.asarray(part.resize(side, Image.Resampling.BILINEAR))

    def run() -> int:
        order, count = list(range(len(files))), 0
        random.Random(0).shuffle(order)
        with ThreadPoolExecutor(job.num_workers) as threads:
            for start in range(0, job.num_images, job.batch_size):
                batch = np.stack(list(threads.map(cut, order[start : start + job.batch_size])))
                count += len(batch)
        return count

    return run


def _entropy(job: ReadJob) -> Callable[[], int]:
    import simplejpeg

    files = _files(job)

    def run() -> int:
        for data in files[: job.num_images]:
            height, width = simplejpeg.decode_jpeg_header(data)[:2]
            simplejpeg.decode_jpeg(data, "RGB", False, False, -(-height // 8), -(-width // 8), 1.0)
        return job.num_images

    return run


def _files(job: ReadJob) -> list[bytes]:
    from tfrecords.format.example import decode_example
    from tfrecords.format.shard import ShardReader

    images = [decode_example(payload)["image"] for path in job.shards for payload in ShardReader(Path(path))]
    return [image for image in images if isinstance(image, bytes)]
