"""Running a trained model on pixels: compiled functions, and the test-time views that a prediction is averaged over."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import keras
import tensorflow as tf

__all__ = ["VIEWS", "compiled", "views_of"]

VIEWS = ("one", "mirrored", "cropped")
"""Test-time views: the image; the image and its mirror image; both, and five crops of each."""

_CROP = 7 / 8  # of each side, at the corners and in the middle (Krizhevsky et al., NIPS 2012, section 4.1: 224 of 256)


def compiled(model: keras.Model, *, views: str = "one") -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns `model` as a compiled function from uint8 pixels to its outputs, float32, in inference mode.

    Compiling takes a second or more, so keep the function if you predict more than once.

    Args:
        model: a model from pixels 0..255 to probabilities or embeddings.
        views: one of `VIEWS`; the output is the mean over them.
    """

    def forward(images: tf.Tensor) -> tf.Tensor:
        outputs = [model(view, training=False) for view in views_of(tf.cast(images, tf.float32), views)]
        return tf.add_n(outputs) / len(outputs)

    return tf.function(forward)


def views_of(pixels: tf.Tensor, views: str) -> Iterator[tf.Tensor]:
    """Yields the test-time views of images: 1, 2 or 12 tensors of the shape of `pixels`.

    Args:
        pixels: float32 `[batch, size, size, 3]`.
        views: one of `VIEWS`.
    """
    yield pixels
    if views == "one":
        return
    yield tf.reverse(pixels, [2])
    if views == "mirrored":
        return
    first, size = tf.range(tf.shape(pixels)[0]), tf.shape(pixels)[1:3]
    left = 1 - _CROP
    for top, side in ((0.0, 0.0), (0.0, left), (left, 0.0), (left, left), (left / 2, left / 2)):
        box = tf.constant([[top, side, top + _CROP, side + _CROP]])  # in shares of the image's sides
        crop = tf.image.crop_and_resize(pixels, tf.repeat(box, tf.shape(first)[0], axis=0), first, size)
        crop.set_shape(pixels.shape)
        yield crop
        yield tf.reverse(crop, [2])
