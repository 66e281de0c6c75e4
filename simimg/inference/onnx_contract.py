"""What an ONNX network takes and returns: read from its file, or given behind the file's name.

    --model=FILE.onnx                            the file says everything, such as uint8 images of a fixed size
    --model=FILE.onnx,size=224,range=imagenet    it does not

    size      side in px of the square images, if the file leaves height and width open
    range     of float pixels: 0..255, 0..1, -1..1; `imagenet` and `clip` subtract a mean and divide by a deviation
    mean std  R/G/B, for pixels 0..1, instead of a range
    layout    nchw or nhwc, if no dimension of the input is 3
    channels  rgb, the default, or bgr
    output    the name of the embedding, if several outputs could be one

The same text may be in the file, in its metadata under the name `simimg.input`; what is given has priority. Of ONNX's
own names (docs/MetadataProps.md of its repository), Image.NominalPixelRange and Image.BitmapPixelFormat are read.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from simimg.errors import ModelError, UsageError

METADATA = "simimg.input"

_KEYS = ("size", "range", "mean", "std", "layout", "channels", "output")
_Colors = tuple[float, ...]
# The mean and the deviation of R, G and B, for pixels 0..1.
_RANGES: dict[str, tuple[_Colors, _Colors]] = {
    "0..255": ((0.0,) * 3, (1 / 255,) * 3),
    "0..1": ((0.0,) * 3, (1.0,) * 3),
    "-1..1": ((0.5,) * 3, (0.5,) * 3),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),  # torchvision's, timm's, SSCD's, DINO's
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
}
_LAYOUTS = {"nchw": (1, 2, 3), "nhwc": (3, 1, 2)}  # the dimensions of channels, height and width
_IMAGE_TYPES = {"tensor(uint8)": "uint8", "tensor(float)": "float32", "tensor(float16)": "float16"}
POOLED = "Export it with an output [n, dim], such as the features after global pooling (GlobalAveragePool, Flatten)."
_EMBEDDING_TYPES = ("tensor(float)", "tensor(float16)", "tensor(double)")
_NOMINAL_RANGES = {"nominalrange_0_255": "0..255", "normalized_0_1": "0..1", "normalized_1_1": "-1..1"}
_EXAMPLES = {"layout": "nchw", "size": "224", "range": "imagenet"}
_CHOICES = {
    "layout": "layout: nchw, or nhwc if the channels come last",
    "size": "size: the side in px that it was trained with",
    "range": f"range: {', '.join(_RANGES)}; or instead mean=R/G/B,std=R/G/B, for pixels 0..1",
}


class Tensor(Protocol):
    """An input or output as ONNX Runtime describes it; a dimension that is open is a name or None."""

    name: str
    type: str
    shape: list[Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class OnnxContract:
    """What a network takes and returns.

    Attributes:
        input: name of the input.
        output: name of the output.
        image_size: side in px of the squares that it takes.
        dtype: of the input: uint8, float32 or float16.
        layout: `nchw` or `nhwc`.
        mean: of R, G and B, which is subtracted from pixels 0..1; nothing is done to uint8 pixels.
        std: by which the difference is divided.
        bgr: whether blue comes first.
    """

    input: str
    output: str
    image_size: int
    dtype: str
    layout: str
    mean: _Colors
    std: _Colors
    bgr: bool

    def tensor(self, image: np.ndarray) -> np.ndarray:
        """Return the network's input, a batch of one, for an image, 0..255, `[size, size, 3]`."""
        pixels = image.astype(np.uint8 if self.dtype == "uint8" else np.float32)
        if self.dtype != "uint8":
            mean, std = (255 * np.array(numbers) for numbers in (self.mean, self.std))
            pixels = (pixels - mean.astype(np.float32)) / std.astype(np.float32)
        if self.bgr:
            pixels = pixels[:, :, ::-1]
        if self.layout == "nchw":
            pixels = pixels.transpose(2, 0, 1)
        return np.ascontiguousarray(pixels[None], self.dtype)


def split_model(model: str) -> tuple[str, str] | None:
    """Return the file and what is given behind its name, of a `--model` that is an ONNX file; None if it is not."""
    found = re.fullmatch(r"(.+?\.onnx)(?:,(.*))?", model, re.IGNORECASE | re.DOTALL)
    return (found[1], found[2] or "") if found else None


def read_contract(
    file: str, given: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor], metadata: Mapping[str, str]
) -> OnnxContract:
    """Return what a network takes and returns.

    Args:
        file: its name, for messages.
        given: what is given behind the name.
        inputs: of the network.
        outputs: of the network.
        metadata: of the file.

    Raises:
        UsageError: something has to be given, or what is given contradicts the file.
        ModelError: it is no network from an image to an embedding.
    """
    if len(inputs) != 1:
        names = ", ".join(tensor.name for tensor in inputs) or "none"
        raise ModelError(f"{file} has {len(inputs)} inputs ({names}); a network that embeds images has one.")
    (image,) = inputs
    if image.type not in _IMAGE_TYPES:
        raise ModelError(
            f"{file} takes {image.type} as {image.name}; images should be one of {', '.join(_IMAGE_TYPES)}."
        )
    shape = list(image.shape) or [None] * 4  # of an unknown rank
    if len(shape) != 4:
        raise ModelError(
            f"{file} takes {image.name} of shape {_text(shape)}; images should be [1, 3, height, width] or "
            "[1, height, width, 3], with a batch of 1 or an open one."
        )
    if isinstance(shape[0], int) and shape[0] != 1:
        raise ModelError(
            f"{file} takes {shape[0]} images at a time ({_text(shape)}). Export it with a batch of 1 or an open batch."
        )
    settings = _settings(file, given, metadata)
    layout = _layout(file, shape, settings.get("layout"))
    size = _size(file, shape, layout, settings.get("size"))
    colors = _colors(file, image.type, settings)
    missing = [name for name, value in (("layout", layout), ("size", size), ("range", colors)) if value is None]
    if missing:
        example = ",".join((*filter(None, [given]), *(f"{name}={_EXAMPLES[name]}" for name in missing)))
        raise UsageError(
            f"{file} does not say in which {_listed(missing)} it takes images. Give what its authors state, as in "
            f"--model={file},{example} ({'; '.join(_CHOICES[name] for name in missing)})."
        )
    assert layout is not None
    assert size is not None
    assert colors is not None
    return OnnxContract(
        input=image.name,
        output=embedding_output(f"--model={file}", outputs, given, settings.get("output")),
        image_size=size,
        dtype=_IMAGE_TYPES[image.type],
        layout=layout,
        mean=colors[0],
        std=colors[1],
        bgr=settings.get("channels") == "bgr",
    )


def _settings(file: str, given: str, metadata: Mapping[str, str]) -> dict[str, str]:
    """Return what is given and what the file's metadata state, by key."""
    lower = {key.lower(): value.lower() for key, value in metadata.items()}  # ONNX's names have no case
    stated = {}
    if found := _NOMINAL_RANGES.get(lower.get("image.nominalpixelrange", "")):
        stated["range"] = found
    if lower.get("image.bitmappixelformat") == "bgr8":
        stated["channels"] = "bgr"
    own = _parsed(metadata.get(METADATA, ""), f"{file}: its metadata {METADATA}=", ModelError)
    settings: dict[str, str] = {}
    for values in (stated, own, _parsed(given, f"--model={file},", UsageError)):
        if values.keys() & {"range", "mean", "std"}:  # which replace one another
            settings = {key: value for key, value in settings.items() if key not in ("range", "mean", "std")}
        settings |= values
    return settings


def _parsed(text: str, where: str, error: type[Exception]) -> dict[str, str]:
    values: dict[str, str] = {}
    for part in filter(None, text.split(",")):
        key, sign, value = part.partition("=")
        if not sign or key not in _KEYS or key in values:
            raise error(
                f"{where}{text}: {part!r} should be one of {', '.join(f'{key}=…' for key in _KEYS)}, once each."
            )
        values[key] = value
    choices = {"range": tuple(_RANGES), "layout": tuple(_LAYOUTS), "channels": ("rgb", "bgr")}
    for key, allowed in choices.items():
        if key in values and values[key] not in allowed:
            raise error(f"{where}{text}: {key}={values[key]} should be one of {', '.join(allowed)}.")
    if "size" in values and not re.fullmatch(r"[1-9][0-9]{0,3}", values["size"]):
        raise error(f"{where}{text}: size={values['size']} should be the side of the images in px, such as size=224.")
    for key in ("mean", "std"):
        if key in values and _numbers(values[key], key) is None:
            raise error(f"{where}{text}: {key}={values[key]} should be three numbers for pixels 0..1, R/G/B.")
    if ("mean" in values) != ("std" in values) or ("mean" in values and "range" in values):
        raise error(f"{where}{text}: give either range, or mean and std.")
    return values


def _numbers(text: str, key: str) -> _Colors | None:
    try:
        numbers = tuple(float(part) for part in text.split("/"))
    except ValueError:
        return None
    valid = len(numbers) == 3 and np.isfinite(numbers).all() and (key == "mean" or min(numbers) > 0)
    return numbers if valid else None


def _layout(file: str, shape: list[Any], given: str | None) -> str | None:
    """Return the layout, or None if it is not known."""
    channels = {name: shape[axis] for name, (axis, *_) in _LAYOUTS.items()}
    possible = [name for name, number in channels.items() if number == 3 or not isinstance(number, int)]
    if not possible:
        raise ModelError(f"{file} takes images of shape {_text(shape)}; none of its dimensions is 3, for RGB.")
    if given and given not in possible:
        raise UsageError(f"--model={file}: layout={given} contradicts the shape of its input, {_text(shape)}.")
    certain = [name for name in possible if channels[name] == 3]
    found = certain if len(certain) == 1 else possible
    return given or (found[0] if len(found) == 1 else None)


def _size(file: str, shape: list[Any], layout: str | None, given: str | None) -> int | None:
    """Return the side in px, or None if it is not known."""
    if layout is None:
        return int(given) if given else None
    _, *sides = _LAYOUTS[layout]
    fixed = {shape[side] for side in sides if isinstance(shape[side], int)}
    if len(fixed) > 1:
        raise ModelError(f"{file} takes images of shape {_text(shape)}; simimg makes squares of all images.")
    if given and fixed and int(given) not in fixed:
        raise UsageError(f"--model={file}: it takes images of {fixed.pop()} px, not of size={given}. Leave out size.")
    return int(given) if given else fixed.pop() if fixed else None


def _colors(file: str, type: str, settings: Mapping[str, str]) -> tuple[_Colors, _Colors] | None:
    """Return the mean and the deviation of R, G and B, for pixels 0..1, or None if they are not known."""
    if type == "tensor(uint8)":
        for key in ("range", "mean"):
            if key in settings and settings[key] != "0..255":
                raise UsageError(f"--model={file}: it takes uint8 images, so {key} has no meaning. Leave it out.")
        return _RANGES["0..255"]
    if "mean" in settings:
        mean, std = (_numbers(settings[key], key) for key in ("mean", "std"))
        assert mean is not None
        assert std is not None
        return mean, std
    return _RANGES.get(settings.get("range", ""))


def embedding_output(model: str, outputs: Sequence[Tensor], given: str, name: str | None) -> str:
    """Return the name of the output that is the embedding.

    Args:
        model: the flag and the file, such as `--model=FILE.onnx`, for messages.
        outputs: of the network.
        given: what is given behind the file.
        name: of the output, if it is given or stated.

    Raises:
        UsageError: there are several, or there is none of this name.
        ModelError: there is none.
    """
    file = model.partition("=")[2]
    described = ", ".join(f"{one.name} {one.type} {_text(one.shape)}" for one in outputs)
    if name is not None and name not in [one.name for one in outputs]:
        raise UsageError(f"{model}: it has no output={name}. It has {described}.")
    could_be = [
        one.name
        for one in outputs
        if one.type in _EMBEDDING_TYPES and len(one.shape) in (0, 2) and name in (None, one.name)
    ]
    if not could_be:
        raise ModelError(f"{file} gives no embedding, which is a float tensor [n, dim]; it gives {described}. {POOLED}")
    if len(could_be) > 1:
        example = ",".join((*filter(None, [given]), f"output={could_be[0]}"))
        raise UsageError(
            f"{file} has several outputs that could be the embedding: {', '.join(could_be)}. Name one, as in "
            f"{model},{example}."
        )
    return could_be[0]


def _listed(names: Sequence[str]) -> str:
    """Return `a`, `a and b`, or `a, b and c`."""
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def _text(shape: Sequence[Any]) -> str:
    return f"[{', '.join('?' if size is None else str(size) for size in shape)}]"
