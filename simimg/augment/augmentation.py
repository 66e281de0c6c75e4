"""Applies drawn parameters to a batch, on the device of the batch."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from simimg.augment.degradations import blur, cover, cut_out, quantize
from simimg.augment.formulation import Milliseconds, choose, name_of, resolved
from simimg.augment.geometry import paste, warp, warp_by_gather
from simimg.augment.mixing import mix
from simimg.augment.operations import Compiler, Operations, affine, histogram, operator
from simimg.augment.parameters import AugmentConfig, Parameters, draw
from simimg.augment.policies import AUGMIX_KINDS, NUM_CHAINS, augmix, invert_bright, rand_augment, three_augment
from simimg.augment.random_pixels import add_noise, draw_pixels, erase

# The weights of a color's brightness, ITU-R BT.601, and the gray that a change of contrast keeps.
_LUMA = (0.299, 0.587, 0.114)
_MIDDLE_GRAY = 127.5
_PROBED = 256  # images

_Change = Callable[..., tuple[tf.Tensor, tf.Tensor]]


def augment(
    config: AugmentConfig, seed: int, epoch: tf.Tensor, id: tf.Tensor, images: tf.Tensor, view: tf.Tensor | int = 0
) -> tf.Tensor:
    """Returns `images` augmented by parameters drawn from (seed, epoch, id, view), float32, 0..255, of the same shape.

    On a CPU, XLA compiles it to loops that are several times as fast as TensorFlow's operations, in about a second per
    shape. On a GPU, all of TensorFlow's operations here have kernels. The pixels are the same, up to rounding.

    The images are uint8 `[batch, height, width, 3]`, or `[batch, height, width, 1]`: gray ones are changed as equal
    channels, which no change of colors alters. For the other arguments see `draw`. An augmentation that is off
    costs nothing.
    """
    config = dataclasses.replace(config, mixup=0.0, cutmix=0.0) if config.mixes else config
    return _changed(config, seed, epoch, id, tf.cast(view, tf.int64), images)[0]


def augment_and_mix(
    config: AugmentConfig, seed: int, epoch: tf.Tensor, id: tf.Tensor, images: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns `images` augmented as by `augment` and mixed with their partners, and the share of each own label.

    The shares are float32 `[batch]`. The number of images is even; see `simimg.augment.mixing`.
    """
    return _changed(config, seed, epoch, id, tf.constant(0, tf.int64), images)


def _changed(
    config: AugmentConfig, seed: int, epoch: tf.Tensor, id: tf.Tensor, view: tf.Tensor, images: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    if images.dtype != tf.uint8 and (config.rand_augment != "off" or config.augmix):  # which have a table of 256 values
        images = tf.saturate_cast(tf.round(images), tf.uint8)
    change = _augmented(config, seed, resolved(config.augment_with) == "operations", images.shape[-1])
    if images.shape[-1] == 3:
        return change(epoch, id, view, images)
    pixels, shares = change(epoch, id, view, tf.tile(images, [1, 1, 1, 3]))
    return tf.reduce_mean(pixels, axis=-1, keepdims=True), shares


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
def _augmented(config: AugmentConfig, seed: int, on_gpu: bool, channels: int) -> _Change:
    """Returns the function of (epoch, id, view, images) that gives pixels and shares, for a kind of device.

    Images have three channels in any case, which are equal if `channels` is 1.
    """
    compiled: Compiler = (
        (lambda function: function) if on_gpu else functools.partial(tf.function, autograph=False, jit_compile=True)
    )
    moved = warp if on_gpu else warp_by_gather
    has_random_pixels = bool(config.noise or config.erase)

    def change(
        epoch: tf.Tensor, id: tf.Tensor, view: tf.Tensor, images: tf.Tensor, affine: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        height, width = images.shape[1], images.shape[2]
        parameters = draw(config, seed, epoch, id, view)
        if config.moves_pixels and not config.augmix:
            images = moved(parameters, images, config.border, affine)
        if config.paste:
            images = paste(parameters, images, affine)
        pixels = tf.cast(images, tf.float32)
        if config.three_augment:
            parameters, solarized = three_augment(parameters, seed, epoch, id, view)
            pixels = invert_bright(solarized, pixels)
        if config.colour_jitter or config.grayscale or config.three_augment:
            pixels = recolor(parameters, pixels)
        if config.bars:
            pixels = cover(parameters, pixels)
        if config.blur or config.three_augment:
            pixels = blur(parameters, pixels)
        random = draw_pixels(config, seed, epoch, id, view, height, width) if has_random_pixels else None
        if random is not None and config.noise:
            pixels = add_noise(random, pixels, channels)
        if config.min_jpeg_quality < 100:
            pixels = quantize(parameters, pixels)
        if config.cutout:
            pixels = cut_out(parameters, pixels)
        if random is not None and config.erase:
            pixels = erase(random, pixels, channels)
        return mix(config, seed, epoch, id, pixels) if config.mixes else (pixels, tf.ones_like(id, tf.float32))

    finished: _Change = compiled(change)
    counted = compiled(functools.partial(histogram, index=tf.int64 if on_gpu else tf.int32))
    if config.rand_augment != "off":
        finished = _rand_augmented(config, seed, compiled, counted, finished)
    elif config.augmix:
        finished = _augmixed(config, seed, compiled, counted, moved, finished)
    traced = finished if hasattr(finished, "get_concrete_function") else tf.function(finished, autograph=False)
    return _traced_once(finished if on_gpu else traced, traced)


def _traced_once(change: _Change, traced: Any) -> _Change:
    """Returns `change`, but on one of several replicas a call of `traced`, which is the same as a `tf.function`.

    TensorFlow traces a function anew for each device of a strategy, because it could use variables. For eight replicas
    that takes seconds. There are no variables here, so all of them can call one trace, each on its own device.
    """

    @functools.cache
    def trace(*specs: tf.TensorSpec) -> Any:
        with tf.init_scope(), tf.device(None):  # outside the replica's function, and not for its device
            return traced.get_concrete_function(*specs)

    def changed(*arguments: Any) -> tuple[tf.Tensor, tf.Tensor]:
        replica = tf.distribute.get_replica_context()
        if replica is None or replica.num_replicas_in_sync == 1:
            return change(*arguments)
        specs = [tf.TensorSpec(given.shape, given.dtype) for given in arguments]
        return trace(*specs)(*arguments)

    return changed


def _rand_augmented(
    config: AugmentConfig, seed: int, compiled: Compiler, counted: Callable[..., tf.Tensor], finished: _Change
) -> _Change:
    """Returns what applies RandAugment's operations and then `finished`, which moves the pixels."""
    operate = operator(compiled=compiled)
    drawn = compiled(functools.partial(rand_augment, config, seed))

    def change(epoch: tf.Tensor, id: tf.Tensor, view: tf.Tensor, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        operations = drawn(epoch, id, view)
        pixels = operate(operations, counted(images), images)
        return finished(epoch, id, view, pixels, affine(operations, images.shape[1], images.shape[2]))

    return change


def _augmixed(
    config: AugmentConfig,
    seed: int,
    compiled: Compiler,
    counted: Callable[..., tf.Tensor],
    moved: Callable[..., tf.Tensor],
    finished: _Change,
) -> _Change:
    """Returns what mixes moved images with changed versions of them, and then applies `finished`."""
    operate = operator(AUGMIX_KINDS, compiled)
    drawn = compiled(functools.partial(augmix, config, seed))

    def moved_and_weighted(
        epoch: tf.Tensor, id: tf.Tensor, view: tf.Tensor, images: tf.Tensor, shares: tf.Tensor, chain: Any, total: Any
    ) -> tf.Tensor:
        where = None if chain is None else affine(chain, images.shape[1], images.shape[2])
        parameters = draw(config, seed, epoch, id, view)
        weighted = shares[:, None, None, None] * moved(parameters, images, config.border, where)
        return weighted if total is None else total + weighted

    add = compiled(moved_and_weighted)

    def change(epoch: tf.Tensor, id: tf.Tensor, view: tf.Tensor, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        mixture, counts = drawn(epoch, id, view), counted(images)
        total = add(epoch, id, view, images, mixture.shares[:, 0], None, None)
        for number in range(NUM_CHAINS):
            chain = Operations(mixture.kind[:, number], mixture.argument[:, number])
            pixels = operate(chain, counts, images)
            total = add(epoch, id, view, pixels, mixture.shares[:, 1 + number], chain, total)
        return finished(epoch, id, view, total)

    return change


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
