"""Applies drawn parameters to a batch, on the device of the batch."""

from __future__ import annotations

import functools
from collections.abc import Callable

import tensorflow as tf

from simimg.augment.degradations import blur, cover, cut_out, quantize
from simimg.augment.formulation import Milliseconds, choose, name_of, resolved
from simimg.augment.geometry import paste, warp, warp_by_gather
from simimg.augment.parameters import AugmentConfig, Parameters, draw

# The weights of a color's brightness, ITU-R BT.601, and the gray that a change of contrast keeps.
_LUMA = (0.299, 0.587, 0.114)
_MIDDLE_GRAY = 127.5
_PROBED = 256  # images


def augment(
    config: AugmentConfig, seed: int, epoch: tf.Tensor, id: tf.Tensor, images: tf.Tensor, view: tf.Tensor | int = 0
) -> tf.Tensor:
    """Returns `images` augmented by parameters drawn from (seed, epoch, id, view), float32, 0..255, of the same shape.

    On a CPU, XLA compiles it to loops that are several times as fast as TensorFlow's operations, in about a second per
    shape. On a GPU, all of TensorFlow's operations here have kernels. The pixels are the same, up to rounding.

    The images are uint8 `[batch, height, width, 3]`; for the other arguments see `draw`. An augmentation that is off
    costs nothing.
    """
    by_operations = resolved(config.augment_with) == "operations"
    return _augmented(config, seed, by_operations)(epoch, id, tf.cast(view, tf.int64), images)


def measure_formulations() -> tuple[Milliseconds, bool] | None:
    """Returns the milliseconds per batch of each formulation on the first GPU, and whether they were measured before.

    The batch has 256 images of 64 x 64 px, and the augmentation rotates, mirrors, crops and recolors. Returns None
    without a GPU. Later calls of `augment` in this process use the faster formulation.
    """
    if not tf.config.list_logical_devices("GPU"):
        return None
    return choose(lambda formulation: _probe(formulation, "GPU:0"), name_of(tf.config.list_physical_devices("GPU")[0]))


def _probe(formulation: str, device: str) -> Callable[[], tf.Tensor]:
    """Returns a function that augments a batch on a device and returns one value of the result."""
    config = AugmentConfig(crop_min_area=0.35, colour_jitter=0.4, augment_with=formulation)
    with tf.device(device):
        images = tf.cast(tf.reshape(tf.range(_PROBED * 64 * 64 * 3) % 251, [_PROBED, 64, 64, 3]), tf.uint8)
        ids, epoch = tf.range(_PROBED, dtype=tf.int64), tf.constant(0, tf.int64)

    @tf.function
    def augmented() -> tf.Tensor:
        with tf.device(device):
            return augment(config, 0, epoch, ids, images)[0, 0, 0]

    return augmented


@functools.cache
def _augmented(
    config: AugmentConfig, seed: int, on_gpu: bool
) -> Callable[[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]:
    """Returns the function of (epoch, id, view, images) that `augment` calls, for a kind of device."""

    def change(epoch: tf.Tensor, id: tf.Tensor, view: tf.Tensor, images: tf.Tensor) -> tf.Tensor:
        parameters = draw(config, seed, epoch, id, view)
        if config.moves_pixels:
            images = (warp if on_gpu else warp_by_gather)(parameters, images, config.border)
        if config.paste:
            images = paste(parameters, images)
        pixels = tf.cast(images, tf.float32)
        if config.colour_jitter or config.grayscale:
            pixels = recolor(parameters, pixels)
        if config.bars:
            pixels = cover(parameters, pixels)
        if config.blur:
            pixels = blur(parameters, pixels)
        if config.min_jpeg_quality < 100:
            pixels = quantize(parameters, pixels)
        return cut_out(parameters, pixels) if config.cutout else pixels

    return change if on_gpu else tf.function(change, jit_compile=True)


def recolor(parameters: Parameters, pixels: tf.Tensor) -> tf.Tensor:
    """Returns `pixels` with their saturation, contrast and brightness multiplied, clipped to 0..255.

    The three are applied in this order, as one 3 x 3 matrix and one offset per image. A saturation of s scales each
    color's distance from its own gray by s, a contrast of c scales each value's distance from 127.5 by c, and a
    brightness of b multiplies all values by b. The pixels are float32 `[batch, height, width, 3]`.
    """
    color = tf.cast(parameters.color, tf.float64)
    brightness, contrast, saturation = (color[:, i, None, None] for i in range(3))
    gray = tf.tile(tf.constant(_LUMA, tf.float64)[None, :, None], [1, 1, 3])  # [1, 3 in, 3 out]
    matrix = brightness * contrast * (saturation * tf.eye(3, dtype=tf.float64)[None] + (1 - saturation) * gray)
    offset = (brightness * (1 - contrast) * _MIDDLE_GRAY)[:, :, None]
    recolored = tf.einsum("bhwi,bio->bhwo", pixels, tf.cast(matrix, tf.float32)) + tf.cast(offset, tf.float32)
    return tf.clip_by_value(recolored, 0.0, 255.0)
