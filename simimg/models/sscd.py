"""SSCD's copy detectors (Pizzi et al., "A Self-Supervised Descriptor for Image Copy Detection", CVPR 2022).

Each is a ResNet-50, or for `sscd_disc_large` a ResNeXt-101 32x4d; the generalised mean with p = 3 of its last map; one
linear layer; and L2 norm, which is left to `embedder`. The authors give every model as a file of weights, by the names
of torchvision or of Classy Vision, and as TorchScript (sscd/models/model.py in facebookresearch/sscd-copy-detection).
How many blocks there are and how wide they are is seen from the tensors.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import keras

from simimg.errors import ModelError
from simimg.models.pretrained import assign
from simimg.models.resnet import Stage, resnet_embedder
from simimg.models.torch_pickle import Tensors

_NORM = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
_SHOWN = 3


class _Naming(NamedTuple):
    """Names of one library: of a block's convolutions and normalisations by the layer that they become.

    `head` is of the linear layer, `head_inside` whether it is within the backbone. `{s}` counts stages from 0, `{t}`
    from 1, `{b}` the blocks of a stage.
    """

    stem: tuple[str, str]
    block: str
    layers: dict[str, tuple[str, str]]
    head: str
    head_inside: bool


_NAMINGS = (
    _Naming(
        stem=("conv1", "bn1"),
        block="layer{t}.{b}",
        layers={
            "reduce": ("conv1", "bn1"),
            "spatial": ("conv2", "bn2"),
            "expand": ("conv3", "bn3"),
            "shortcut": ("downsample.0", "downsample.1"),
        },
        head="fc",
        head_inside=True,
    ),
    _Naming(
        stem=("initial_block._module.0", "initial_block._module.1"),
        block="blocks.{s}.block{s}-{b}",
        layers={
            "reduce": ("convolutional_block.0", "convolutional_block.1"),
            "spatial": ("convolutional_block.3", "convolutional_block.4"),
            "expand": ("convolutional_block.6", "bn"),
            "shortcut": ("downsample.0", "downsample.1"),
        },
        head="embeddings.1",
        head_inside=False,
    ),
)
"""torchvision/models/resnet.py; classy_vision/models/resnext.py."""

_BACKBONE = "backbone."


def sscd(tensors: Tensors, image_size: int) -> keras.Model:
    """The model that the tensors of one of SSCD's files are the weights of.

    Every tensor must find its variable and every variable its tensor, but for the counters of batches seen.

    Args:
        tensors: what `read_torch_file` read.
        image_size: side of the squares that the model will take, px; the authors use 288 and 320.

    Returns:
        See `resnet_embedder`.

    Raises:
        ModelError: the tensors are another network's; names what is missing, left over or of another shape.
        UsageError: image_size is below 32 px.
    """
    naming, prefix = _find_naming(tensors)
    stages: list[Stage] = []
    while num_blocks := _num_blocks(tensors, prefix, naming, len(stages)):
        stages.append(_stage(tensors, prefix, naming, len(stages), num_blocks))
    head = (prefix if naming.head_inside else prefix.removesuffix(_BACKBONE)) + naming.head
    (stem, *_), (dim, _) = (_shape(tensors, name, ndim) for name, ndim in ((prefix + naming.stem[0], 4), (head, 2)))
    model = resnet_embedder(stem, stages, dim, image_size)
    # {layer: {variable: tensor}}
    wanted = {"stem": _conv_and_norm(prefix + naming.stem[0], prefix + naming.stem[1])}
    for s, stage in enumerate(stages):
        for b in range(stage.num_blocks):
            start = prefix + naming.block.format(s=s, t=s + 1, b=b)
            for part, (conv, norm) in naming.layers.items():
                wanted[f"stage{s + 1}_block{b}_{part}"] = _conv_and_norm(f"{start}.{conv}", f"{start}.{norm}")
    wanted["embedding"] = {"kernel": f"{head}.weight", "bias": f"{head}.bias"}
    layers = {layer.name: layer for layer in model.layers if layer.weights}
    names = {name for layer in layers for name in wanted[layer].values()}
    there = {name for name in tensors if not name.endswith(".num_batches_tracked")}
    if names != there:
        raise ModelError(
            "the weights are not those of a copy detector of SSCD's: "
            + "; ".join(
                f"{_some(odd)} {what}"
                for odd, what in ((names - there, "missing"), (there - names, "not expected"))
                if odd
            )
            + "."
        )
    for name, layer in layers.items():
        for variable, tensor in wanted[name].items():
            assign(getattr(layer, variable), tensor, tensors, name)
    return model


def _find_naming(tensors: Tensors) -> tuple[_Naming, str]:
    """The library whose names these are, and what is before them: "backbone." in the authors' files."""
    for naming in _NAMINGS:
        stem, block = f"{naming.stem[0]}.weight", naming.block.format(s=0, t=1, b=0)
        for name in tensors:
            prefix = name.removesuffix(stem)
            if name != prefix and any(other.startswith(f"{prefix}{block}.") for other in tensors):
                return naming, prefix
    raise ModelError(
        "the weights are not those of a copy detector of SSCD's: neither backbone.conv1.weight and the rest by "
        "torchvision's names nor backbone.initial_block._module.0.weight and the rest by Classy Vision's. "
        f"There are {_some(tensors)}."
    )


def _num_blocks(tensors: Tensors, prefix: str, naming: _Naming, s: int) -> int:
    """One more than the highest number of a block, so that one which is missing between is noticed."""
    before, after = naming.block.format(s=s, t=s + 1, b="\0").split("\0")
    pattern = re.compile(re.escape(prefix + before) + r"(\d{1,3})" + re.escape(after) + r"\.")
    return max((int(match[1]) + 1 for name in tensors if (match := pattern.match(name))), default=0)


def _stage(tensors: Tensors, prefix: str, naming: _Naming, s: int, num_blocks: int) -> Stage:
    block = prefix + naming.block.format(s=s, t=s + 1, b=0)
    spatial, expand = (f"{block}.{naming.layers[part][0]}" for part in ("spatial", "expand"))
    width, group_width, *_ = _shape(tensors, spatial, 4)
    if width % group_width:
        raise ModelError(f"{spatial}.weight has {width} channels, which are no groups of {group_width}.")
    return Stage(num_blocks, width, _shape(tensors, expand, 4)[0], width // group_width)


def _shape(tensors: Tensors, layer: str, ndim: int) -> tuple[int, ...]:
    name = f"{layer}.weight"
    if name not in tensors:
        raise ModelError(f"the weights are not those of a copy detector of SSCD's: {name} is missing.")
    shape = tensors[name].shape
    if len(shape) != ndim or 0 in shape:
        raise ModelError(f"{name} has the shape {shape}, where {ndim} sizes should be.")
    return shape


def _conv_and_norm(conv: str, norm: str) -> dict[str, str]:
    return {"kernel": f"{conv}.weight", **{ours: f"{norm}.{theirs}" for ours, theirs in _NORM.items()}}


def _some(names: Tensors | set[str]) -> str:
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(sorted(names)[:_SHOWN]) + more
