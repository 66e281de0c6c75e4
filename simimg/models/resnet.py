"""ResNets and ResNeXts with bottleneck blocks, computed as in torchvision and Classy Vision, to use their weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras

from simimg.models.frozen_conv import FrozenNormConv2D
from simimg.models.heads import EMBEDDING, GeneralizedMeanPooling2D, image_input

_MEAN = (0.485, 0.456, 0.406)
_DEVIATION = (0.229, 0.224, 0.225)
"""ImageNet's mean and deviation of red, green and blue as 0..1, as torchvision's transforms use them."""

_EPSILON = 1e-5  # torch.nn.BatchNorm2d's
_SMALLEST = 32  # px: the map is halved five times


class Stage(NamedTuple):
    """Bottleneck blocks at one resolution: number, inner and output channels, groups of the 3x3 convolution."""

    num_blocks: int
    width: int
    filters: int
    groups: int


def resnet_embedder(stem: int, stages: Sequence[Stage], dim: int, image_size: int) -> keras.Model:
    """A residual network for embeddings: the generalized mean of its last map, and a linear layer to `dim` numbers.

    ResNet-50 is `stem` 64 and the stages (3, 64, 256, 1), (4, 128, 512, 1), (6, 256, 1024, 1), (3, 512, 2048, 1)
    (He et al., CVPR 2016, table 1); a ResNeXt-101 32x4d has (3, 128, 256, 32), (4, 256, 512, 32), (23, 512, 1024, 32),
    (3, 1024, 2048, 32) (Xie et al., CVPR 2017). Every stage but the first halves the map, in the 3x3 convolution of its
    first block and in that block's shortcut. The statistics of the normalizations are fixed. All sides get the same
    padding, because TensorFlow's "SAME" with a stride of 2 would be one pixel off from the authors' training.

    Layers with weights: "stem"; "stage1_block0_reduce", "…_spatial", "…_expand", and "…_shortcut" if the shape changes;
    and "embedding". The output is float32 [batch, dim], not normalized.

    Raises:
        UsageError: image_size is below 32 px.
    """
    pixels = image_input(image_size, smallest=_SMALLEST)
    scale = [1 / (255 * deviation) for deviation in _DEVIATION]
    offset = [-mean / deviation for mean, deviation in zip(_MEAN, _DEVIATION, strict=True)]
    x = keras.layers.Rescaling(scale, offset, dtype="float32", name="scaled_pixels")(pixels)
    x = _relu(_conv(x, stem, 7, "stem", strides=2), "stem")
    # Zeros are equivalent to torch's -infinity, because a ReLU gives nothing below 0.
    x = keras.layers.ZeroPadding2D(1, name="stem_padding")(x)
    x = keras.layers.MaxPooling2D(3, 2, name="stem_pool")(x)
    for number, stage in enumerate(stages, start=1):
        for block in range(stage.num_blocks):
            strides = 2 if number > 1 and block == 0 else 1
            x = _bottleneck(x, f"stage{number}_block{block}", stage, strides)
    x = GeneralizedMeanPooling2D(3.0, name="generalized_mean")(x)
    x = keras.layers.Dense(dim, dtype="float32", name=EMBEDDING)(x)
    return keras.Model(pixels, x, name="resnet")


def _bottleneck(x: Any, name: str, stage: Stage, strides: int) -> Any:
    y = _relu(_conv(x, stage.width, 1, f"{name}_reduce"), f"{name}_reduce")
    y = _relu(_conv(y, stage.width, 3, f"{name}_spatial", strides, stage.groups), f"{name}_spatial")
    y = _conv(y, stage.filters, 1, f"{name}_expand")
    if strides != 1 or x.shape[-1] != stage.filters:
        x = _conv(x, stage.filters, 1, f"{name}_shortcut", strides)
    return _relu(keras.layers.Add(name=f"{name}_sum")([y, x]), name)


def _conv(x: Any, filters: int, kernel_size: int, name: str, strides: int = 1, groups: int = 1) -> Any:
    return FrozenNormConv2D(
        filters, kernel_size, strides=strides, epsilon=_EPSILON, padding=kernel_size // 2, groups=groups, name=name
    )(x)


def _relu(x: Any, name: str) -> Any:
    return keras.layers.ReLU(name=f"{name}_relu")(x)
