"""What an image file is worth beyond its size: detail, the camera's metadata, and earlier JPEG compressions.

1. *Detail.* An image that was enlarged loses nothing when it is reduced to its original size and enlarged again. A
   detailed image loses about as much as it loses in the step below: its reduced version, reduced and enlarged once
   more. So the loss is compared with that of the image's own next step, and no scale of sharpness is needed.
2. *Camera metadata* (EXIF). Messengers and web sites remove it, and a copy that lost it cannot be dated any more.
3. *Quantization.* The coefficients of a JPEG file are multiples of the steps in its table. They stay close to these
   multiples when the file is saved again at a higher quality or as a PNG file, which therefore has nothing more to it.

All results are the same on every processor: Pillow resizes in integers, and sums are of integers.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import re

import numpy as np
from PIL import Image

from simimg.determinism import exact_matmul
from tfrecords.convert.image.decoder import decode
from tfrecords.convert.image.image_formats import open_image, reading
from tfrecords.format.quarantine import Refusal

COMPARABLE = 0.8
"""Images whose sides differ by less than this factor may have the same detail: no measurement can tell."""

# Of 40 photos of Caltech 101, enlarged 1.5 to 8 times by three filters and saved at quality 60, 95 in 100 had a loss
# below `_LOSS` in these units; of the photos themselves at quality 90, all had more.
_LOSS = 0.56
_PATCH_PX, _PATCHES = 400, 3  # of larger images, 3 x 3 patches are examined
_FLAT = 0.1  # loss in squared gray levels; below it, an image has no detail to compare with
_BLOCKS = 1024  # of 8 x 8 px, that are examined for an earlier compression
_ROUNDING = 0.8  # of a coefficient, by rounding pixels to integers: 0.3 on average in each of two conversions
# An image was saved again if at most this share of the coefficients that chance would put beside the multiples (at
# least so many) are there. Of photos at quality 30 to 90, saved again at 70 to 100 or as PNG, that finds 83 in 100. Of
# photos that were not, it is said of none, except between neighboring qualities (80 and 85: 5 in 100).
_MISSES, _FEWEST = 0.45, 20.0

_CAMERA, _DATE, _EXIF, _GPS = (271, 272), 306, 0x8769, 0x8825
_DATE_TAKEN, _MAKER_NOTE, _WIDTH, _HEIGHT = 36867, 37500, 40962, 40963


@dataclasses.dataclass(frozen=True, slots=True)
class CameraFacts:
    """What a camera wrote into a file.

    Attributes:
        camera: maker and model, or empty.
        date: when the image was taken, YYYY-MM-DD, or empty.
        count: number of facts: camera, date, maker note, place, and a size that is still that of the image.
    """

    camera: str = ""
    date: str = ""
    count: int = 0

    @property
    def text(self) -> str:
        """The facts as text for people."""
        dated = f"EXIF of {self.date}" if self.date else "EXIF"
        return f"the camera's file: {dated}, {self.camera}" if self.camera else dated


@dataclasses.dataclass(frozen=True, slots=True)
class JpegTable:
    """The luminance table of a JPEG file, `[8, 8]`, vertical frequency first, and whether its image lies upright."""

    steps: np.ndarray
    upright: bool


def camera_facts(data: bytes) -> CameraFacts:
    """Return the camera's metadata in an image file; empty facts if there are none, or if they are damaged."""
    try:
        with reading(data):
            image = open_image(data)
            exif = image.getexif()
            details, place = exif.get_ifd(_EXIF), exif.get_ifd(_GPS)
            camera = " ".join(dict.fromkeys(filter(None, (_text(exif.get(tag)) for tag in _CAMERA))))
            taken = _text(details.get(_DATE_TAKEN)) or _text(exif.get(_DATE))
            sizes = sorted(image.size), sorted(int(details.get(tag, 0)) for tag in (_WIDTH, _HEIGHT))
    except (Refusal, OSError):
        return CameraFacts()
    found = re.match(r"(\d{4})[:-](\d{2})[:-](\d{2})", taken)
    date = "-".join(found.groups()) if found and found[1] != "0000" else ""
    if not camera and not date:
        return CameraFacts()
    facts = (camera, date, details.get(_MAKER_NOTE), place, sizes[0] == sizes[1])
    return CameraFacts(camera, date, sum(map(bool, facts)))


def jpeg_table(data: bytes) -> JpegTable | None:
    """Return the luminance table of a JPEG file; None for another format or a damaged header."""
    try:
        with reading(data):
            image = Image.open(io.BytesIO(data), formats=["JPEG", "MPO"])
            steps = getattr(image, "quantization", {}).get(0)
            upright = image.getexif().get(274, 1) == 1
    except Refusal:
        return None
    return None if steps is None else JpegTable(np.array(steps, np.float64).reshape(8, 8), upright)


def gray_image(data: bytes) -> Image.Image | None:
    """Return the image of a file, upright, in gray (mode L); None if it cannot be decoded."""
    try:
        return decode(data, truncated="keep").convert("L")
    except Refusal:
        return None


def has_more_detail(gray: Image.Image, share: float) -> bool:
    """Return whether an image, mode L, shows more than its version with sides of this share, below `COMPARABLE`."""
    lost = lost_below = 0.0
    for patch in _patches(gray):
        small = _resized(patch, share)
        # Enlarging by the nearest pixel leaves squares, which a smooth filter would not give back.
        squares = _resized(patch, share, Image.Resampling.BOX).resize(patch.size, Image.Resampling.NEAREST)
        smooth = small.resize(patch.size, Image.Resampling.BICUBIC)
        lost += min(_difference(patch, smooth), _difference(patch, squares))
        below = _resized(small, share).resize(small.size, Image.Resampling.BICUBIC)
        lost_below += max(_FLAT, _difference(small, below))
    return lost > _LOSS * share * max(1, 2 * share) * lost_below


def is_saved_again(gray: Image.Image, own: JpegTable | None, source: JpegTable) -> bool:
    """Return whether an image, mode L, was compressed by the table of a `source` before it got its `own`, if any.

    False also if that cannot be seen: in plain images, after cropping or resizing, or if the tables differ too little.
    """
    if not source.upright or (own is not None and not own.upright):
        return False
    coefficients = _coefficients(gray)
    if not len(coefficients):
        return False
    steps = source.steps.ravel()
    tolerance = np.full(64, _ROUNDING) if own is None else own.steps.ravel() / 2 + _ROUNDING
    multiples = np.rint(coefficients / steps)
    counted = (multiples != 0) & (2 * tolerance < 0.85 * steps)
    counted[:, 0] = False  # the mean of a block
    missed = counted & (np.abs(coefficients - multiples * steps) > tolerance)
    # By chance, a coefficient lies anywhere between two multiples. Integers over integers: exact.
    chance = float(np.dot(counted.sum(axis=0), np.rint(4096 * (1 - np.minimum(1, 2 * tolerance / steps))))) / 4096
    return chance >= _FEWEST and int(missed.sum()) < _MISSES * chance


def _text(value: object) -> str:
    return value.strip(" \0") if isinstance(value, str) else ""


def _patches(gray: Image.Image) -> list[Image.Image]:
    """Return an image as a whole, or patches of a large one, spread evenly."""
    if max(gray.size) <= _PATCHES * _PATCH_PX:
        return [gray]
    width, height = (min(side, _PATCH_PX) for side in gray.size)
    corners = [
        ((gray.width - width) * column // (_PATCHES - 1), (gray.height - height) * row // (_PATCHES - 1))
        for row in range(_PATCHES)
        for column in range(_PATCHES)
    ]
    return [gray.crop((left, top, left + width, top + height)) for left, top in dict.fromkeys(corners)]


def _resized(gray: Image.Image, share: float, by: Image.Resampling = Image.Resampling.BICUBIC) -> Image.Image:
    width, height = (max(1, round(side * share)) for side in gray.size)
    return gray.resize((width, height), by)


def _difference(one: Image.Image, other: Image.Image) -> float:
    """Return the mean squared difference of two images, mode L, of one size."""
    difference = np.asarray(one).astype(np.int64) - np.asarray(other)
    return int((difference * difference).sum()) / difference.size


def _coefficients(gray: Image.Image) -> np.ndarray:
    """Return JPEG's coefficients of some 8 x 8 blocks, float64 `[n, 64]`, with the same bits on every processor."""
    height, width = gray.height // 8, gray.width // 8
    pixels = np.asarray(gray)[: 8 * height, : 8 * width]
    blocks = pixels.reshape(height, 8, width, 8).swapaxes(1, 2).reshape(-1, 64)
    blocks = blocks[:: max(1, len(blocks) // _BLOCKS)]
    return exact_matmul(blocks.astype(np.float64) - 128, _transform()) if len(blocks) else np.empty((0, 64))


@functools.cache
def _transform() -> np.ndarray:
    """Return the discrete cosine transform of an 8 x 8 block as a matrix, float64 `[64, 64]`."""
    place = np.arange(8)
    rows = np.cos((2 * place + 1) * place[:, None] * np.pi / 16) / 2
    rows[0] = np.sqrt(1 / 8)
    rows = np.rint(65536 * rows) / 65536  # libraries compute a cosine differently in its last bit
    return np.kron(rows, rows).T
