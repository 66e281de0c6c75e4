"""Serialized records to examples, by TensorFlow's own operations: what can be sent to other machines as a graph."""

from __future__ import annotations

import functools

import tensorflow as tf

from simimg.input.split import Batch, Split

__all__ = ["decode_record", "decode_records", "parse_records"]


def decode_records(split: Split, serialized: tf.Tensor, places: tf.Tensor | None = None) -> Batch:
    """Returns a Batch of raw records.

    Args:
        split: theirs.
        serialized: string `[batch]`.
        places: int64 `[batch]`, to be the ids of records that have none.
    """
    features = parse_records(split, serialized)
    pixels = tf.io.decode_raw(features["image"], tf.uint8, fixed_length=split.image_size**2 * 3)
    return Batch(
        image=tf.reshape(pixels, [-1, split.image_size, split.image_size, 3]),
        label=tf.cast(features["label"], tf.int32),
        id=features.get("id", places),
    )


def decode_record(split: Split, serialized: tf.Tensor, place: tf.Tensor | None = None) -> Batch:
    """Returns one JPEG or PNG record, a Batch without its first axis; takes what `decode_records` does, without too."""
    features = tf.io.parse_single_example(serialized, _feature_spec(split))
    # TensorFlow's own choice of a transform is up to 22 levels off, and no faster.
    accurate = functools.partial(tf.io.decode_jpeg, dct_method="INTEGER_ACCURATE")
    decode = accurate if split.encoding == "jpeg" else tf.io.decode_png
    return Batch(
        image=tf.ensure_shape(decode(features["image"], channels=3), [split.image_size, split.image_size, 3]),
        label=tf.cast(features["label"], tf.int32),
        id=features.get("id", place),
    )


def parse_records(split: Split, serialized: tf.Tensor) -> dict[str, tf.Tensor]:
    """Returns what is in records, string `[batch]`: `image`, string `[batch]`; `label` and `id`, int64 `[batch]`."""
    features: dict[str, tf.Tensor] = tf.io.parse_example(serialized, _feature_spec(split))
    return features


def _feature_spec(split: Split) -> dict[str, tf.io.FixedLenFeature]:
    spec = {
        "image": tf.io.FixedLenFeature([], tf.string),
        "label": tf.io.FixedLenFeature([], tf.int64),
    }
    if split.has_id:
        spec["id"] = tf.io.FixedLenFeature([], tf.int64)
    return spec
