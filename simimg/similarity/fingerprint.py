"""Fingerprint of an image for verification: keypoints, a thumbnail, its size, and the quality of its JPEG file."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from simimg.determinism import plain_opencv
from simimg.similarity.keypoints import Keypoints, detect
from tfrecords.convert.image.decoder import decode
from tfrecords.convert.image.image_formats import reading
from tfrecords.format.quarantine import Reason, Refusal

__all__ = [
    "CACHED",
    "PLAIN",
    "WHOLE_PX",
    "Fingerprint",
    "fingerprint",
    "fingerprint_file",
    "forget_fingerprints",
    "jpeg_quality",
    "luma",
]

THUMBNAIL_PX = 192
WHOLE_PX = 48
PLAIN = 3.0
"""Deviation in gray levels; what varies less correlates with anything."""

CACHED = 8000
"""Number of fingerprints that are cached: 1.2 GB."""

_CANDIDATE = (320, 400)  # px of the longer side, and keypoints: 60 KB and 15 ms per image
_QUERY = (512, 800)  # more, because a query may be a crop, or contain its original as a small part

# The luminance table of Annex K.1 of the JPEG standard, which libjpeg scales by the quality (jcparam.c).
_STANDARD = np.array(
    [
        16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29,
        51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87, 103, 121,
        120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
    ]
)  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class Fingerprint:
    """What verification needs to know about an image.

    Attributes:
        size: width and height in px of the upright image.
        pixels_sha256: of all its pixels.
        thumbnail: uint8 `[h, w, 3]`, sRGB, the longer side `THUMBNAIL_PX`.
        whole: float32 `[WHOLE_PX, WHOLE_PX]`, gray, blurred, normalized to mean 0 and deviation 1; None if plain.
        keypoints: see `simimg.similarity.keypoints`.
        jpeg_quality: 1..100 on libjpeg's scale; None for other formats.
    """

    size: tuple[int, int]
    pixels_sha256: bytes
    thumbnail: np.ndarray
    whole: np.ndarray | None
    keypoints: Keypoints
    jpeg_quality: int | None


def fingerprint(image: Image.Image, *, quality: int | None = None, as_query: bool = False) -> Fingerprint:
    """Return the fingerprint of an image, mode RGB, upright, whose JPEG file has this quality, see `jpeg_quality`.

    `as_query` detects twice as many keypoints, because a query may be a part of an image or contain one as a part.
    """
    longer_side, most = _QUERY if as_query else _CANDIDATE
    factor = THUMBNAIL_PX / max(image.size)
    small = (max(2, round(image.width * factor)), max(2, round(image.height * factor)))
    thumbnail = np.asarray(image.resize(small, Image.Resampling.BICUBIC, reducing_gap=3.0))
    keypoints = detect(image, longer_side=longer_side, most=most)
    pixels_sha256 = hashlib.sha256(image.tobytes()).digest()
    return Fingerprint(image.size, pixels_sha256, thumbnail, _whole(thumbnail), keypoints, quality)


def luma(pixels: np.ndarray) -> np.ndarray:
    """Return the luma of RGB pixels by ITU-R BT.601, as JPEG has it: float32 `[..., 3]` to float32 `[...]`."""
    red, green, blue = np.moveaxis(pixels, -1, 0)
    return 0.299 * red + 0.587 * green + 0.114 * blue


@plain_opencv()
def _whole(thumbnail: np.ndarray) -> np.ndarray | None:
    blurred = cv2.GaussianBlur(luma(thumbnail.astype(np.float32)), (0, 0), THUMBNAIL_PX / WHOLE_PX)
    small = cv2.resize(blurred, (WHOLE_PX, WHOLE_PX), interpolation=cv2.INTER_AREA)
    deviation = float(small.std())
    return None if deviation < PLAIN else ((small - small.mean()) / deviation).astype(np.float32)


@functools.lru_cache(maxsize=CACHED)
def _cached(path: str, sha256: str, modified_ns: int, num_bytes: int) -> Fingerprint:
    data = Path(path).read_bytes()
    if sha256 and hashlib.sha256(data).hexdigest() != sha256:
        raise Refusal(Reason.CHANGED, "the file changed after it was indexed")
    return fingerprint(decode(data), quality=jpeg_quality(data))


def fingerprint_file(path: Path, sha256: str = "") -> Fingerprint:
    """Return the fingerprint of a file, as a candidate; the last `CACHED` ones are cached.

    `sha256` is the expected checksum of its bytes, in hexadecimal; "" for any.

    Raises:
        OSError: the file cannot be read.
        Refusal: the file is not an image, or its checksum differs.
    """
    facts = path.stat()
    return _cached(str(path), sha256, facts.st_mtime_ns, facts.st_size)


def forget_fingerprints() -> None:
    """Clear the cache of `fingerprint_file`, so that a benchmark starts cold."""
    _cached.cache_clear()


def jpeg_quality(data: bytes) -> int | None:
    """Return the quality, 1..100 on libjpeg's scale, whose luminance table is nearest to that of a JPEG file.

    Returns None for another format or a damaged header. For encoders with tables of their own it is an estimate.
    """
    try:
        with reading(data):
            image: Any = Image.open(io.BytesIO(data), formats=["JPEG"])
            luminance, *_ = image.quantization.values()
    except Refusal:
        return None
    return 1 + int(np.abs(_tables() - np.sort(luminance)).sum(axis=1).argmin())


@functools.cache
def _tables() -> np.ndarray:
    """Return libjpeg's 100 tables, int64 `[100, 64]`, each sorted, because the order in a file is another one."""
    quality = np.arange(1, 101)[:, None]
    percent = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    return np.sort(np.clip((_STANDARD * percent + 50) // 100, 1, 255), axis=1)
