"""SSCD's copy detectors (Pizzi et al., "A Self-Supervised Descriptor for Image Copy Detection", CVPR 2022).

Each is a ResNet-50, or a ResNeXt-101 32x4d for `sscd_disc_large`, followed by the generalized mean with p = 3 of the
last map and one linear layer. `embedder` adds the final L2 norm. The authors publish every model as a file of weights,
with the names of torchvision or of Classy Vision, and as TorchScript (sscd/models/model.py in
facebookresearch/sscd-copy-detection). The number and the width of the blocks follow from the shapes of the tensors.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import keras

from simimg.errors import ModelError, UsageError
from simimg.models.model_folder import RunInfo, save_folder
from simimg.models.pretrained import assign, conv_and_norm, stored_names
from simimg.models.resnet import Stage, resnet_embedder
from simimg.models.torch_pickle import Tensors
from simimg.models.torch_zip import read_torch_file
from tfrecords.format.atomic_files import file_sha256

_SHOWN = 3
_NOT_SSCD = "the weights are not those of an SSCD copy detector"


class _Naming(NamedTuple):
    """The names of one library: of the stem, and of a block's convolutions and normalizations by our layers' names.

    `head` is the linear layer, and `head_inside` says whether it is within the backbone. `{s}` counts stages from 0,
    `{t}` counts them from 1, and `{b}` counts the blocks of a stage.
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


def sscd(tensors: Tensors, image_size: int) -> keras.Model:
    """Builds the model whose weights are in one of SSCD's files.

    Tensors and variables must match one to one, except for the counters of batches seen.

    The tensors are those of `read_torch_file`, and the model is that of `resnet_embedder`.

    Raises:
        ModelError: the tensors are those of another network; names what is missing, unexpected or of another shape.
        UsageError: image_size is below 32 px.
    """
    naming, prefix = _find_naming(tensors)
    stages: list[Stage] = []
    while num_blocks := _num_blocks(tensors, prefix, naming, len(stages)):
        stages.append(_stage(tensors, prefix, naming, len(stages), num_blocks))
    head = (prefix if naming.head_inside else prefix.removesuffix("backbone.")) + naming.head
    (stem, *_), (dim, _) = (_shape(tensors, name, ndim) for name, ndim in ((prefix + naming.stem[0], 4), (head, 2)))
    model = resnet_embedder(stem, stages, dim, image_size)
    # {layer: {variable: tensor}}
    wanted = {"stem": conv_and_norm(prefix + naming.stem[0], prefix + naming.stem[1])}
    for s, stage in enumerate(stages):
        for b in range(stage.num_blocks):
            start = prefix + naming.block.format(s=s, t=s + 1, b=b)
            for part, (conv, norm) in naming.layers.items():
                wanted[f"stage{s + 1}_block{b}_{part}"] = conv_and_norm(f"{start}.{conv}", f"{start}.{norm}")
    wanted["embedding"] = {"kernel": f"{head}.weight", "bias": f"{head}.bias"}
    layers = {layer.name: layer for layer in model.layers if layer.weights}
    names = {name for layer in layers for name in wanted[layer].values()}
    there = stored_names(tensors)
    odd = [(names - there, "missing"), (there - names, "not expected")]
    if faults := [f"{_some(found)} {what}" for found, what in odd if found]:
        raise ModelError(f"{_NOT_SSCD}: {'; '.join(faults)}.")
    for name, layer in layers.items():
        assign(layer, wanted[name], tensors)
    return model


def import_sscd(path: Path, model_dir: Path, *, image_size: int = 288) -> keras.Model:
    """Writes the model of one of SSCD's files into a new folder, atomically, and returns the model.

    Args:
        path: the file, `….torchvision.pt`, `….classy.pt` or `….torchscript.pt`.
        model_dir: the folder; `simimg index` accepts it as a model.
        image_size: side of the squares that images are stretched to, px. The authors use 288 and 320.

    Raises:
        ModelError: the file cannot be read, is damaged, or holds another network; the message has the path.
        UsageError: the folder exists or cannot be created, or image_size is below 32 px.
    """
    if model_dir.exists():
        raise UsageError(f"--model_dir={model_dir} exists already. Choose another folder, or remove it.")
    tensors = read_torch_file(path)
    try:
        model = sscd(tensors, image_size)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    info = RunInfo(
        image_size=image_size,
        resize="stretch",
        class_names=(),
        dataset_sha256="",
        shuffle="",
        config={"weights": path.name, "weights_sha256": file_sha256(path)},
    )
    save_folder(model_dir, model, info)
    return model


def _find_naming(tensors: Tensors) -> tuple[_Naming, str]:
    """Returns the library whose names these are, and their prefix: "backbone." in the authors' files."""
    for naming in _NAMINGS:
        stem, block = f"{naming.stem[0]}.weight", naming.block.format(s=0, t=1, b=0)
        for name in tensors:
            prefix = name.removesuffix(stem)
            if name != prefix and any(other.startswith(f"{prefix}{block}.") for other in tensors):
                return naming, prefix
    raise ModelError(
        f"{_NOT_SSCD}: they have neither torchvision's names, backbone.conv1.weight and so on, nor Classy Vision's, "
        f"backbone.initial_block._module.0.weight and so on. There are {_some(tensors)}."
    )


def _num_blocks(tensors: Tensors, prefix: str, naming: _Naming, s: int) -> int:
    """Returns one more than the highest number of a block, so that a missing block in between is noticed."""
    before, after = naming.block.format(s=s, t=s + 1, b="\0").split("\0")
    pattern = re.compile(re.escape(prefix + before) + r"(\d{1,3})" + re.escape(after) + r"\.")
    return max((int(match[1]) + 1 for name in tensors if (match := pattern.match(name))), default=0)


def _stage(tensors: Tensors, prefix: str, naming: _Naming, s: int, num_blocks: int) -> Stage:
    block = prefix + naming.block.format(s=s, t=s + 1, b=0)
    spatial, expand = (f"{block}.{naming.layers[part][0]}" for part in ("spatial", "expand"))
    width, group_width, *_ = _shape(tensors, spatial, 4)
    if width % group_width:
        raise ModelError(f"{spatial}.weight has {width} channels, not a multiple of the group width {group_width}.")
    return Stage(num_blocks, width, _shape(tensors, expand, 4)[0], width // group_width)


def _shape(tensors: Tensors, layer: str, ndim: int) -> tuple[int, ...]:
    name = f"{layer}.weight"
    if name not in tensors:
        raise ModelError(f"{_NOT_SSCD}: {name} is missing.")
    shape = tensors[name].shape
    if len(shape) != ndim or 0 in shape:
        raise ModelError(f"{name} has the shape {shape}; it should have {ndim} dimensions.")
    return shape


def _some(names: Tensors | set[str]) -> str:
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(sorted(names)[:_SHOWN]) + more
