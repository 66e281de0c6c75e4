"""Which files a sample consists of, and each of them as bytes: a pure function of (seed, class, index).

The contract:
1. The picture of a file depends on the seed, its class and its index, not on how many others there are.
2. No two pictures have the same width and height, the one that is stored on its side included.
"""

from __future__ import annotations

import dataclasses
import io
from typing import Literal

import numpy as np
from PIL import Image

from simimg.sample import balloons, fishes, flowers, houses, mountains
from simimg.sample.canvas import Canvas
from simimg.sample.palettes import PALETTES

_DRAW = {
    "balloons": balloons.draw,
    "fishes": fishes.draw,
    "flowers": flowers.draw,
    "houses": houses.draw,
    "mountains": mountains.draw,
}
CLASS_NAMES: tuple[str, ...] = tuple(_DRAW)
DRAWING = 1  # raised whenever the pixels of a seed change, so that an older folder is not taken for the same
MAX_PER_CLASS = 2_000  # of some 20,000 sizes; also keeps names at four digits

_SIDES = (180, 420)
_MAX_AREA = 100_000  # pixels; together with two pixels a side while drawing, what keeps a picture under 50 ms
_TURNED_SIZE = (
    428,
    312,
)  # wider than any other, so that neither it nor its transpose is the size of another picture
_WEB_PAGE = "<!DOCTYPE html>\n<title>404 Not Found</title>\n<p>The picture you were looking for has moved.</p>\n"

Kind = Literal["plain", "turned", "cmyk", "cut", "text"]
SPECIAL: dict[Kind, str] = {
    "turned": "stored on its side, EXIF orientation 6",
    "cmyk": "a CMYK JPEG",
    "cut": "a JPEG cut off in the middle: to be refused",
    "text": "a web page named .jpg: to be refused",
}


@dataclasses.dataclass(frozen=True)
class SampleFile:
    """One file of the sample; `name` is class folder and file name, `width` x `height` the picture held upright."""

    name: str
    class_number: int
    index: int
    width: int
    height: int
    kind: Kind


def list_files(per_class: int, seed: int) -> list[SampleFile]:
    """Returns every file of a sample: the pictures, class by class, then the two to be refused."""
    sizes = _sizes(seed)
    kinds: dict[tuple[str, int], Kind] = {
        ("houses", per_class // 2): "turned",
        ("flowers", per_class // 3): "cmyk",
    }
    wanted = [(k, i, kinds.get((name, i), "plain")) for k, name in enumerate(CLASS_NAMES) for i in range(per_class)]
    wanted += [
        (CLASS_NAMES.index("fishes"), per_class, "text"),
        (CLASS_NAMES.index("mountains"), per_class, "cut"),
    ]
    files = []
    for class_number, index, kind in wanted:
        width, height = _TURNED_SIZE if kind == "turned" else sizes[index * len(CLASS_NAMES) + class_number]
        name = f"{CLASS_NAMES[class_number]}/image_{index + 1:04d}.jpg"
        files.append(SampleFile(name, class_number, index, width, height, kind))
    return files


def file_bytes(file: SampleFile, seed: int) -> bytes:
    """Draws one file of the sample and returns its content."""
    if file.kind == "text":
        return _WEB_PAGE.encode()
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, file.class_number, file.index))))
    canvas = Canvas(file.width, file.height, PALETTES[int(rng.integers(len(PALETTES)))], rng)
    _DRAW[CLASS_NAMES[file.class_number]](canvas)
    image = canvas.finish()
    quality, subsampling = int(rng.integers(72, 96)), int(rng.integers(3))
    progressive = file.kind == "plain" and rng.random() < 0.15
    exif = Image.Exif()
    if file.kind == "turned":
        exif[0x0112] = 6  # Orientation: "turn me a quarter clockwise to look at me"
        image = image.transpose(Image.Transpose.ROTATE_90)
    elif file.kind == "cmyk":
        image = image.convert("CMYK")
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, subsampling=subsampling, progressive=progressive, exif=exif)
    content = buffer.getvalue()
    return content[: len(content) * 55 // 100] if file.kind == "cut" else content


def _sizes(seed: int) -> list[tuple[int, int]]:
    """Every (width, height) a picture may have, shuffled: portrait and landscape, no squares, none twice."""
    low, high = _SIDES
    width, height = np.meshgrid(np.arange(low, high + 1), np.arange(low, high + 1), indexing="ij")
    allowed = (width * height <= _MAX_AREA) & (abs(width - height) >= 15)
    pairs = np.stack([width[allowed], height[allowed]], 1)
    # Spawn key 1 keeps this stream apart from those of the pictures.
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=(1,))))
    return [(int(w), int(h)) for w, h in rng.permutation(pairs)]
