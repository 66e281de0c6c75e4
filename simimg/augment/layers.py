"""Keras layers that augment images: those of Keras, by its names and with its arguments, on kernels that XLA fuses.

    RandomRotation RandomTranslation RandomZoom RandomShear    one gather with bilinear weights
    RandomFlip RandomBrightness RandomContrast                 one pass over the pixels
    RandomAugmentation                                         all that `simimg train` augments with, in one pass

Each is a subclass of Keras's layer of its name. So it draws, and treats labels, bounding boxes and masks, as that one
does, and gives the same pixels for the same draw up to rounding. There are three differences. Replicas of a strategy
draw different numbers, where Keras's draw the same. `RandomFlip` draws each direction by itself, where Keras's default
mode flips both or none. And a model with these layers can be compiled by XLA as a whole, which Keras's layers of the
first row prevent.

The fill mode `wrap` and the interpolation `nearest` are computed by Keras.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from simimg.augment.augmentation import augment
from simimg.augment.formulation import resolved
from simimg.augment.geometry import resample
from simimg.augment.parameters import BORDERS, AugmentConfig
from simimg.errors import UsageError

_PACKAGE = "simimg"
_REPLICA_STEP = 0x9E3779B1  # 2**32 / golden ratio, odd: no two replicas have the same seed


class _ReplicaSeeds(keras.random.SeedGenerator):
    """Seeds of another generator, changed by the number of the replica."""

    def __init__(self, generator: keras.random.SeedGenerator) -> None:
        self._generator = generator  # has the state; there is no second one

    def next(self, ordered: bool = True) -> tf.Tensor:
        """Returns a seed."""
        seed = self._generator.next(ordered=ordered)
        return seed + tf.cast(tf.stack([0, _replica() * _REPLICA_STEP % 2**32]), seed.dtype)


def _replica() -> tf.Tensor:
    context = tf.distribute.get_replica_context()
    return tf.cast(context.replica_id_in_sync_group if context else 0, tf.int64)


class _Seeded:
    """Has a layer draw other numbers on each replica."""

    def _get_seed_generator(self, backend: str | None = None) -> keras.random.SeedGenerator:
        return _ReplicaSeeds(super()._get_seed_generator(backend))  # type: ignore[misc]


class _ImageBackend:
    """Keras's operations on images, with another affine transform."""

    def __init__(self, image: Any) -> None:
        self._image = image

    def __getattr__(self, name: str) -> Any:
        return getattr(self._image, name)

    def affine_transform(self, images: Any, transform: Any, **options: Any) -> Any:
        """Returns images whose pixels come from where `transform` says."""
        last = options["data_format"] == "channels_last"
        is_known = images.shape[1:].is_fully_defined() if images.shape.rank == 4 else images.shape.is_fully_defined()
        if not is_known or options["interpolation"] != "bilinear" or options["fill_mode"] not in BORDERS:
            return self._image.affine_transform(images=images, transform=transform, **options)
        pixels = images if images.shape.rank == 4 else images[None]
        pixels = pixels if last else tf.transpose(pixels, [0, 2, 3, 1])
        transforms = tf.reshape(tf.cast(transform, tf.float32), [-1, 8])
        moved = _resampled(options["fill_mode"], float(options["fill_value"]))(pixels, transforms)
        moved = tf.ensure_shape(tf.cast(moved, images.dtype), pixels.shape)
        moved = moved if last else tf.transpose(moved, [0, 3, 1, 2])
        return moved if images.shape.rank == 4 else moved[0]


class _Backend:
    """The backend of a layer, which follows Keras's, with the operations on images of `_ImageBackend`."""

    def __init__(self, backend: Any) -> None:
        self._backend_of_keras = backend

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._backend_of_keras, name)
        return _ImageBackend(found) if name == "image" else found


class _Moving(_Seeded):
    """Has a layer of Keras's move pixels by `resample`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.backend = _Backend(self.backend)  # type: ignore[has-type]
        self.supports_jit = self.interpolation == "bilinear" and self.fill_mode in BORDERS  # type: ignore[attr-defined]


@keras.saving.register_keras_serializable(package=_PACKAGE)
class RandomRotation(_Moving, keras.layers.RandomRotation):
    """`keras.layers.RandomRotation` by one fused gather; see the module."""


@keras.saving.register_keras_serializable(package=_PACKAGE)
class RandomTranslation(_Moving, keras.layers.RandomTranslation):
    """`keras.layers.RandomTranslation` by one fused gather; see the module."""


@keras.saving.register_keras_serializable(package=_PACKAGE)
class RandomZoom(_Moving, keras.layers.RandomZoom):
    """`keras.layers.RandomZoom` by one fused gather; see the module."""


@keras.saving.register_keras_serializable(package=_PACKAGE)
class RandomShear(_Moving, keras.layers.RandomShear):
    """`keras.layers.RandomShear` by one fused gather; see the module."""

    def __init__(self, x_factor: Any = 0.0, y_factor: Any = 0.0, **kwargs: Any) -> None:
        super().__init__(x_factor, y_factor, **kwargs)
        self._factors = {"x_factor": x_factor, "y_factor": y_factor}

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments; Keras 3.15 returns factors that its own constructor refuses."""
        return {**super().get_config(), **self._factors}


@keras.saving.register_keras_serializable(package=_PACKAGE)
class RandomFlip(_Seeded, keras.layers.RandomFlip):
    """`keras.layers.RandomFlip` in one pass over the pixels, with a draw for each direction; see the module."""

    def get_random_transformation(self, data: Any, training: bool = True, seed: Any = None) -> Any:
        """Draw whether each image is flipped left to right, and top to bottom, bool `[batch, 1, 1, 1]` each."""
        across = super().get_random_transformation(data, training=training, seed=seed)
        if across is None or self.mode != "horizontal_and_vertical":
            return across
        down = super().get_random_transformation(data, training=training, seed=seed)
        return {**across, "down": down["flips"]}

    def _flip_inputs(self, inputs: Any, transformation: Any) -> Any:
        if transformation is None:
            return inputs
        batched = len(inputs.shape) == 4
        images = inputs if batched else inputs[None]
        flips = tf.reshape(transformation["flips"], [-1, 1, 1, 1])
        down = tf.reshape(transformation.get("down", transformation["flips"]), [-1, 1, 1, 1])
        axes = (1, 2) if self.data_format == "channels_last" else (2, 3)
        chosen = {axes[0]: down} if self.mode != "horizontal" else {}
        chosen |= {axes[1]: flips} if self.mode != "vertical" else {}
        flipped = _flipped(tuple(chosen))(images, *chosen.values())
        return tf.ensure_shape(flipped if batched else flipped[0], inputs.shape)

    def transform_bounding_boxes(self, bounding_boxes: Any, transformation: Any, training: bool = True) -> Any:
        """Flip boxes as their images."""
        if transformation is None or "down" not in transformation:
            return super().transform_bounding_boxes(bounding_boxes, transformation, training=training)
        mode: str = self.mode  # type: ignore[has-type]
        try:
            for self.mode, name in (("horizontal", "flips"), ("vertical", "down")):
                one = {**transformation, "flips": transformation[name]}
                bounding_boxes = super().transform_bounding_boxes(bounding_boxes, one, training=training)
        finally:
            self.mode = mode
        return bounding_boxes


class _Recoloring(_Seeded):
    """Has XLA fuse the formula by which a layer of Keras's changes pixels."""

    def transform_images(self, images: Any, transformation: Any, training: bool = True) -> Any:
        """Returns images with their colors changed."""
        images = self.backend.cast(images, self.compute_dtype)  # type: ignore[attr-defined]
        if not training:
            return images
        if not hasattr(self, "_fused"):
            self._fused = tf.function(super().transform_images, jit_compile=True)  # type: ignore[misc]
        return tf.ensure_shape(self._fused(images, transformation), images.shape)


@keras.saving.register_keras_serializable(package=_PACKAGE)
class RandomBrightness(_Recoloring, keras.layers.RandomBrightness):
    """`keras.layers.RandomBrightness` in one pass over the pixels; see the module."""


@keras.saving.register_keras_serializable(package=_PACKAGE)
class RandomContrast(_Recoloring, keras.layers.RandomContrast):
    """`keras.layers.RandomContrast` in one pass over the pixels; see the module."""


@keras.saving.register_keras_serializable(package=_PACKAGE)
class RandomAugmentation(keras.layers.Layer):
    """All augmentations of `simimg train` as one layer, computed together.

    It changes images if `training`, and returns them unchanged otherwise. Images are `[batch, height, width, channels]`
    or `[height, width, channels]`, RGB or gray, 0..255, of any type; the result has the layer's compute dtype. It never
    draws the same numbers for two images, whether they are in one batch, on two replicas or in two steps.

    Args:
        seed: seed of the draws; by default, another one for each layer.
        **options: the fields of `simimg.augment.AugmentConfig`, such as `rotation_degrees` and `color_jitter`. Their
            names are those of the flags. Besides those, `name`, `dtype` and `trainable` as for every layer.

    Raises:
        UsageError: there is no such option, a number is out of its range, or images have neither 1 nor 3 channels.

    Example:
        >>> layer = simimg.augment.RandomAugmentation(rotation_degrees=15, color_jitter=0.3, seed=1)
        >>> layer(tf.zeros([2, 8, 8, 3])).shape.as_list()
        [2, 8, 8, 3]
    """

    def __init__(self, *, seed: int | None = None, **options: Any) -> None:
        fields = [field.name for field in dataclasses.fields(AugmentConfig)]
        if "color_jitter" in options:  # the name of the flag
            options["colour_jitter"] = options.pop("color_jitter")
        try:
            super().__init__(**{name: value for name, value in options.items() if name not in fields})
        except ValueError as error:
            raise UsageError(f"{error}. The options are: {', '.join(fields)}.") from None
        self.config = AugmentConfig(**{name: value for name, value in options.items() if name in fields})
        self.seed = seed
        if self.config.mixes:
            raise UsageError("mixup and cutmix change labels, too, which this layer does not see. Leave them out.")
        self.generator = keras.random.SeedGenerator(seed)
        self.supports_jit = resolved(self.config.augment_with) == "xla"
        self._convert_input_args = False  # images of uint8 stay so until they are augmented
        self._allow_non_tensor_positional_args = True

    def call(self, images: Any, training: bool = True) -> Any:
        """Returns the images, augmented if `training`."""
        images = tf.convert_to_tensor(images)
        if not training:
            return tf.cast(images, self.compute_dtype)
        if images.shape.rank not in (3, 4) or images.shape[-1] not in (1, 3):
            raise UsageError(
                "images should be [batch, height, width, channels] or one of them, with 1 or 3 channels. Received the "
                f"shape {tuple(images.shape)}."
            )
        batch = images if images.shape.rank == 4 else images[None]
        seed, call = tf.unstack(tf.cast(self.generator.next(), tf.int64))
        rows = tf.range(tf.shape(batch, tf.int64)[0]) + _replica() * 2**32
        # The seed of `augment` is fixed when it is compiled, so this one is part of the epoch.
        changed = augment(self.config, 0, seed * 2**32 + call, rows, batch)
        return tf.cast(tf.reshape(changed, tf.shape(images)), self.compute_dtype)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns the shape of the input."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments, for `.keras` files."""
        return {**super().get_config(), **dataclasses.asdict(self.config), "seed": self.seed}


@functools.cache
def _resampled(border: str, fill_value: float) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    def moved(images: tf.Tensor, transforms: tf.Tensor) -> tf.Tensor:
        return resample(images, transforms, border, fill_value)

    return tf.function(moved, jit_compile=True)


@functools.cache
def _flipped(axes: tuple[int, ...]) -> Callable[..., tf.Tensor]:
    def flipped(images: tf.Tensor, *flips: tf.Tensor) -> tf.Tensor:
        for axis, flip in zip(axes, flips, strict=True):
            images = tf.where(flip, tf.reverse(images, [axis]), images)
        return images

    return tf.function(flipped, jit_compile=True)
