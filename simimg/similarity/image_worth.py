"""What an image file is worth beyond its size: detail, the camera's metadata, and earlier JPEG compressions.

1. *Detail.* An image that was enlarged loses nothing when it is reduced to its original size and enlarged again. A
   detailed image loses about as much as it loses in the step below: its reduced version, reduced and enlarged once
   more. So the loss is compared with that of the image's own next step, and no scale of sharpness is needed. A soft
   image loses little, too. Its spectrum is compared with that of the smaller one: whichever was resampled from the
   other has lost more of its highest common frequencies. An enlarged image that was sharpened loses more, but its
   pixels still rise and fall with those of the smaller one, and a filter explains what it loses.
2. *Camera metadata* (EXIF). Messengers and web sites remove it, and a copy that lost it cannot be dated any more.
3. *Quantization.* The coefficients of a JPEG file are multiples of the steps in its table. They stay close to these
   multiples when the file is saved again at a higher quality or as a PNG file, which therefore has nothing more to it.

All results are the same on every processor: Pillow resizes in integers, and sums are of integers.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import math
import re
from collections.abc import Iterator

import numpy as np
from PIL import Image

from simimg.determinism import exact_matmul, ordered_sum
from simimg.similarity.fingerprint import jpeg_tables
from simimg.similarity.pixel_history import is_enlarged, left_by_filter
from tfrecords.convert.image.decoder import decode
from tfrecords.convert.image.image_formats import ANY_SIZE, image_header, reading
from tfrecords.format.quarantine import Refusal

COMPARABLE = 0.8
"""Images whose sides differ by less than this factor may have the same detail: no measurement can tell."""

# A loss in units of the next step's, times the squared share. Of 40 photos of Caltech 101, enlarged 1.5 to 8 times by
# three filters and saved at quality 60, 95 in 100 had less; of the photos themselves at quality 90, all had more.
_LOSS = 1.12
# An image that was sharpened after it was enlarged may have more, but a filter of the enlarged version leaves less. Of
# 1,200 such photos, 17 in 100 counted as more detailed without this, with it 1 in 130; of 21,348 pairs of photos and
# their smaller copies, eight changed with it.
_LOSS_SHARPENED, _LEFT_SHARPENED, _FILTERED_PX = 2.0, 0.7, 192
_PATCH_PX, _PATCHES = 400, 3  # of larger images, 3 x 3 patches are examined
_NOISE = 0.5  # loss in squared gray levels: rounding pixels and compressing soft images makes up to 0.4
# Of soft images and their halves, the larger one had at least 2.6 times its noise beyond the frequencies of the smaller
# one, and an enlarged one 1.4 times. By the second ratio, 0.95 to 1.2 and 0.45 to 0.98.
_ABOVE_NOISE, _LESS_RESAMPLED = 1.5, 0.95
_WINDOW = 64  # px, of which the spectrum is taken
_BLOCKS = 1024  # of 8 x 8 px, that are examined for an earlier compression
_CLIPPED = 4  # gray levels from black and white; beyond them, pixels were clipped and have other coefficients
_ROUNDING = 0.8  # of a coefficient, by rounding pixels to integers: 0.3 on average in each of two conversions
# An image was saved again if at most this share of the coefficients that chance would put beside the multiples (at
# least so many) are there. Of photos at quality 30 to 90, saved again at 70 to 100 or as PNG, that finds 93 in 100. Of
# photos that were not, it is said of none, except between neighboring qualities (80 and 85: 3 in 100).
_MISSES, _FEWEST = 0.45, 20.0
_PLACES = 60  # multiples of a step that are examined
_LOSSY = 2.0  # in place of the rounding, of a coefficient that WebP, AVIF or HEIF compressed at high quality
# Any of 91 tables may have been the earlier one. Of 120 photos that were made smaller since, none had less than 0.77 of
# the misses; of those that were not, 93 in 100 had less than 0.6.
_ALIKE = 4  # levels by which coefficients of equal blocks differ
_EARLIER_QUALITIES, _FEWER_MISSES, _MORE, _FEWER_BLOCKS = (5, 95), 0.6, 100.0, 256
_LOW = [down * 8 + right for down in range(5) for right in range(5 - down) if down + right]  # frequencies

_CAMERA, _DATE, _EXIF, _GPS = (271, 272), 306, 0x8769, 0x8825
_BITS = 258
_DNG_VERSION = 0xC612  # a tag that every DNG file has
# Pillow's names of TIFF's compressions.
_LOSSLESS_TIFF = frozenset(("raw", "packbits", "tiff_ccitt", "group3", "group4", "tiff_lzw", "tiff_adobe_deflate",
                            "tiff_deflate", "lzma", "zstd"))  # fmt: skip
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
        with image_header(data) as image:
            # Not that of PNG, which decodes the pixels to find an EXIF after them.
            exif = Image.Image.getexif(image)
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
        with reading(data, max_pixels=ANY_SIZE):
            image = Image.open(io.BytesIO(data), formats=["JPEG", "MPO"])
            steps = getattr(image, "quantization", {}).get(0)
            upright = image.getexif().get(274, 1) == 1
    except Refusal:
        return None
    return None if steps is None else JpegTable(np.array(steps, np.float64).reshape(8, 8), upright)


def color_image(data: bytes) -> Image.Image | None:
    """Return the image of a file, upright, mode RGB; None if it cannot be decoded."""
    try:
        return decode(data, truncated="keep", max_pixels=ANY_SIZE)
    except Refusal:
        return None


def is_lossless(data: bytes) -> bool:
    """Return whether the format of an image file keeps every pixel: PNG, BMP, lossless WebP, and TIFF without JPEG.

    The bytes decide, not the suffix. Formats that may drop pixels without saying so (HEIF, AVIF, JPEG 2000, DNG) count
    as lossy.
    """
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return any(kind == b"VP8L" for kind in _webp_chunks(data))
    try:
        with image_header(data) as image:
            if image.format == "TIFF":
                is_dng = _DNG_VERSION in getattr(image, "tag_v2", {})
                return not is_dng and image.info.get("compression") in _LOSSLESS_TIFF
            return image.format in ("PNG", "BMP")
    except Refusal:
        return False


def _webp_chunks(data: bytes) -> Iterator[bytes]:
    """Yield the names of a WebP file's chunks, those of an animation's frames left out."""
    at = 12
    while at + 8 <= len(data):
        yield data[at : at + 4]
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        at += 8 + length + length % 2


def bits_per_color(data: bytes) -> int:
    """Return 16 for a PNG or TIFF file that says so, and 8 for any other file."""
    try:
        with image_header(data) as image:
            bits = data[24] if image.format == "PNG" else max(getattr(image, "tag_v2", {}).get(_BITS, (8,)))
    except (Refusal, OSError, IndexError, TypeError, ValueError):
        return 8
    return 16 if bits == 16 else 8


def has_more_detail(gray: Image.Image, smaller: Image.Image) -> bool:
    """Return whether an image shows more than a smaller copy, both mode L, with sides below `COMPARABLE` of its own."""
    if (gray.width - gray.height) * (smaller.width - smaller.height) < 0:  # one of them is turned by a quarter
        smaller = smaller.transpose(Image.Transpose.ROTATE_90)
    share = math.sqrt(smaller.width * smaller.height / (gray.width * gray.height))
    factor = min(1.0, 2 * share)  # one octave beyond the smaller image is enough
    share /= factor
    boxes = _patches(gray.size, round(_PATCH_PX / factor))
    lost = lost_below = 0.0
    steps = list[tuple[Image.Image, ...]]()
    for box in boxes:
        patch = _resized(gray.crop(box), factor)
        small = _resized(patch, share)
        # Enlarging by the nearest pixel leaves squares, which a smooth filter would not give back.
        squares = _resized(patch, share, Image.Resampling.BOX).resize(patch.size, Image.Resampling.NEAREST)
        smooth = small.resize(patch.size, Image.Resampling.BICUBIC)
        lost += min(_difference(patch, smooth), _difference(patch, squares))
        again = _resized(small, share).resize(small.size, Image.Resampling.BICUBIC)
        lost_below += _difference(small, again)
        steps.append((patch, smooth, small, again))
    next_step = share * share * lost_below
    is_more = lost > max(_NOISE * len(boxes), _LOSS * next_step) or _goes_on(gray, smaller, boxes, factor, share)
    if not is_more or lost > _LOSS_SHARPENED * next_step or not is_enlarged(gray, smaller.size):
        return is_more
    left = left_below = 0.0
    for patch, smooth, small, again in steps:
        left += left_by_filter(*(_middle(one, _FILTERED_PX) for one in (smooth, patch)))
        left_below += _difference(*(_middle(one, round(_FILTERED_PX * share)) for one in (small, again)))
    return left > _LEFT_SHARPENED * share * share * left_below


def _goes_on(
    gray: Image.Image, smaller: Image.Image, boxes: list[tuple[int, int, int, int]], factor: float, share: float
) -> bool:
    """Return whether the spectrum of an image, reduced by a factor, goes on beyond that of a smaller copy."""
    spectrum, its_spectrum = np.zeros(_WINDOW // 2), np.zeros(_WINDOW // 2)
    for box in boxes:
        spectrum += _spectrum(_resized(gray.crop(box), factor))
        left, right = (round(side * smaller.width / gray.width) for side in box[::2])
        top, bottom = (round(side * smaller.height / gray.height) for side in box[1::2])
        its_spectrum += _spectrum(smaller.crop((left, top, right, bottom)))
    return _is_less_resampled(spectrum, its_spectrum, share)


def _is_less_resampled(spectrum: np.ndarray, smaller: np.ndarray, share: float) -> bool:
    """Return whether a spectrum goes on beyond that of a smaller copy, and falls no faster where both have one."""
    noise = min(float(ordered_sum(spectrum[low : low + 4])) / 4 for low in range(len(spectrum) - 3))
    if not noise or not smaller.any():
        return False
    middle, lower = (_band(spectrum, share, *band) / _band(smaller, 1, *band) for band in ((0.7, 0.9), (0.3, 0.5)))
    # The spectra are of differences, which raise a frequency in each image by its own share.
    middle, lower = (value * _raised(1, at) / _raised(share, at) for value, at in ((middle, 0.8), (lower, 0.4)))
    beyond = _band(spectrum, share, 1.1, 1.3)
    return beyond > _ABOVE_NOISE * noise and middle > _LESS_RESAMPLED * lower


def jpeg_coefficients(gray: Image.Image) -> np.ndarray:
    """Return JPEG's coefficients of some 8 x 8 blocks without clipped pixels; mode L gives float64 `[n, 64]`."""
    height, width = gray.height // 8, gray.width // 8
    pixels = np.asarray(gray)[: 8 * height, : 8 * width]
    blocks = pixels.reshape(height, 8, width, 8).swapaxes(1, 2).reshape(-1, 64)
    blocks = blocks[(blocks.min(axis=1) > _CLIPPED) & (blocks.max(axis=1) < 255 - _CLIPPED)]
    blocks = blocks[:: max(1, len(blocks) // _BLOCKS)]
    return exact_matmul(blocks.astype(np.float64) - 128, _transform()) if len(blocks) else np.empty((0, 64))


def is_saved_again(
    coefficients: np.ndarray, own: JpegTable | None, source: JpegTable, *, is_lossy: bool = False
) -> bool:
    """Return whether an image was compressed by the table of a `source` before it got its `own`, if any.

    For its coefficients, see `jpeg_coefficients`. `is_lossy` is whether its own format, if not JPEG, changes pixels.
    False also if that cannot be seen: in plain images, after cropping or resizing, or if the tables differ too little.
    """
    if not source.upright or (own is not None and not own.upright):
        return False
    steps = None if own is None else own.steps.ravel()
    return _misses(coefficients, _tolerance(own, is_lossy), source.steps.ravel(), steps, _FEWEST) < _MISSES


def earlier_quality(coefficients: np.ndarray, own: JpegTable | None) -> int | None:
    """Return the quality, 5..95, of an earlier compression by one of libjpeg's tables; None if none can be seen.

    For the arguments, see `is_saved_again`. An image that another format has compressed since tells nothing.
    """
    if own is not None and not own.upright:
        return None
    tolerance = _tolerance(own, False)[_LOW]
    some = coefficients[:: 1 + len(coefficients) // _FEWER_BLOCKS, _LOW]
    # Equal blocks count once: in a gradient they all are, and would agree with some table by chance.
    some = some[np.unique(np.rint(some / _ALIKE), axis=0, return_index=True)[1]]
    tables = jpeg_tables()[_EARLIER_QUALITIES[0] - 1 : _EARLIER_QUALITIES[1], _LOW].astype(np.float64)
    steps = None if own is None else own.steps.ravel()[_LOW]
    misses = [_misses(some, tolerance, table, steps, _MORE) for table in tables]
    best = int(np.argmin(misses))
    return _EARLIER_QUALITIES[0] + best if misses[best] < _FEWER_MISSES else None


def _tolerance(own: JpegTable | None, is_lossy: bool) -> np.ndarray:
    """Return how far each coefficient may be from where an earlier compression put it, float64 `[64]`."""
    if own is not None:
        return own.steps.ravel() / 2 + _ROUNDING
    return np.full(64, _LOSSY if is_lossy else _ROUNDING)


def _misses(
    coefficients: np.ndarray, tolerance: np.ndarray, steps: np.ndarray, own: np.ndarray | None, fewest: float
) -> float:
    """Return how many coefficients, `[n, k]`, are beside the multiples of the steps `[k]`, in units of chance.

    Infinity if chance would put less than `fewest` there.
    """
    multiples = np.rint(coefficients / steps)
    counted = (multiples != 0) & (2 * tolerance < 0.85 * steps)
    if coefficients.shape[1] == 64:
        counted[:, 0] = False  # the mean of a block
    missed = counted & (np.abs(coefficients - multiples * steps) > tolerance)
    # By chance, a coefficient lies anywhere between two multiples, or at any multiple of its own step. Integers over
    # integers: exact.
    share = 1 - np.minimum(1, 2 * tolerance / steps)
    if own is not None:
        places = np.arange(1, _PLACES + 1)[:, None] * own
        share = np.minimum(share, (np.abs(places - np.rint(places / steps) * steps) > tolerance).mean(axis=0))
    chance = float(np.dot(counted.sum(axis=0), np.rint(4096 * share))) / 4096
    return int(missed.sum()) / chance if chance >= fewest else math.inf


def _text(value: object) -> str:
    return value.strip(" \0") if isinstance(value, str) else ""


def _patches(size: tuple[int, int], side: int) -> list[tuple[int, int, int, int]]:
    """Return the box of a whole image, or those of patches of a large one, spread evenly."""
    if max(size) <= _PATCHES * side:
        return [(0, 0, *size)]
    width, height = (min(side, full) for full in size)
    corners = [
        ((size[0] - width) * column // (_PATCHES - 1), (size[1] - height) * row // (_PATCHES - 1))
        for row in range(_PATCHES)
        for column in range(_PATCHES)
    ]
    return [(left, top, left + width, top + height) for left, top in dict.fromkeys(corners)]


def _resized(gray: Image.Image, share: float, by: Image.Resampling = Image.Resampling.BICUBIC) -> Image.Image:
    width, height = (max(1, round(side * share)) for side in gray.size)
    return gray.resize((width, height), by)


def _middle(gray: Image.Image, side: int) -> Image.Image:
    """Return a square of this side in px from the middle of an image, or what it has of one."""
    width, height = (min(side, full) for full in gray.size)
    left, top = (gray.width - width) // 2, (gray.height - height) // 2
    return gray.crop((left, top, left + width, top + height))


def _difference(one: Image.Image, other: Image.Image) -> float:
    """Return the mean squared difference of two images, mode L, of one size."""
    difference = np.asarray(one).astype(np.int64) - np.asarray(other)
    return int((difference * difference).sum()) / difference.size


def _spectrum(gray: Image.Image) -> np.ndarray:
    """Return the power of the frequencies 1 to 32 per 64 px, float64 `[32]`, across and down; zeros if it is smaller.

    It is that of the differences of neighbors, in which the frequencies of a photo have about the same power.
    """
    power = np.zeros(_WINDOW // 2)
    pixels = np.asarray(gray).astype(np.float64)
    for lines in (pixels, pixels.T):
        differences = np.diff(lines, axis=1)
        count = differences.shape[1] // _WINDOW
        if count and len(lines):
            windows = differences[:, : count * _WINDOW].reshape(-1, _WINDOW)
            # All sums are of integers below 2^53, so they are exact in any order.
            waves = np.rint(windows @ _waves() / 256)
            power += (waves * waves).sum(axis=0).reshape(2, -1).sum(axis=0) / len(windows)
    return power


@functools.cache
def _waves() -> np.ndarray:
    """Return cosines and sines under a window, integers, float64 `[64, 2 * 32]`."""
    place = np.arange(_WINDOW)
    phase = 2 * np.pi * np.outer(place, np.arange(1, _WINDOW // 2 + 1)) / _WINDOW
    window = np.sin(np.pi * (place + 0.5) / _WINDOW)[:, None] ** 2
    return np.rint(1024 * window * np.concatenate([np.cos(phase), np.sin(phase)], axis=1))


def _band(spectrum: np.ndarray, share: float, low: float, high: float) -> float:
    """Return the mean power between two frequencies, in units of the highest one of the version of this share."""
    frequencies = np.arange(1, len(spectrum) + 1) / (len(spectrum) * share)
    inside = spectrum[(frequencies >= low) & (frequencies <= high)]
    return float(ordered_sum(inside)) / len(inside) + 1e-9


def _raised(share: float, at: float) -> float:
    """Return by how much differences of neighbors raise the power of a frequency, in units of `_band`."""
    return math.sin(math.pi / 2 * at * share) ** 2


@functools.cache
def _transform() -> np.ndarray:
    """Return the discrete cosine transform of an 8 x 8 block as a matrix, float64 `[64, 64]`."""
    place = np.arange(8)
    rows = np.cos((2 * place + 1) * place[:, None] * np.pi / 16) / 2
    rows[0] = np.sqrt(1 / 8)
    rows = np.rint(65536 * rows) / 65536  # libraries compute a cosine differently in its last bit
    return np.kron(rows, rows).T
