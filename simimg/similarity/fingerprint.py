"""What a closer look at one picture keeps: keypoints, a small picture, its size, and how hard its JPEG was squeezed."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from simimg.determinism import plain_opencv
from simimg.similarity.keypoints import Keypoints, detect
from tfrecords.convert.image.decoder import decode
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
"""Deviation in grey levels: what varies less agrees with anything."""

CACHED = 8000
"""Examined pictures that are kept: 1.2 GB."""

_CANDIDATE = (320, 400)  # px of the longer side, and keypoints: 60 KB, 15 ms a picture
_QUERY = (512, 800)  # a query may be a crop, or have its original as a small part

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
    """A picture that was looked at closely.

    Attributes:
        size: width and height in px of the upright picture.
        pixels_sha256: of all its pixels.
        thumbnail: uint8 `[h, w, 3]`, sRGB, the longer side `THUMBNAIL_PX`.
        whole: float32 `[WHOLE_PX, WHOLE_PX]`, grey, blurred, of mean 0 and deviation 1; None of a plain picture.
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
    """Looks at a picture closely.

    Args:
        image: mode RGB, upright.
        quality: that of its JPEG, see `jpeg_quality`.
        as_query: find twice as many keypoints: it may be a part of another picture, or have it as a part.
    """
    longer_side, most = _QUERY if as_query else _CANDIDATE
    factor = THUMBNAIL_PX / max(image.size)
    small = (max(2, round(image.width * factor)), max(2, round(image.height * factor)))
    thumbnail = np.asarray(image.resize(small, Image.Resampling.BICUBIC, reducing_gap=3.0))
    keypoints = detect(image, longer_side=longer_side, most=most)
    pixels_sha256 = hashlib.sha256(image.tobytes()).digest()
    return Fingerprint(image.size, pixels_sha256, thumbnail, _whole(thumbnail), keypoints, quality)


def luma(pixels: np.ndarray) -> np.ndarray:
    """Returns the luma of ITU-R BT.601, that of JPEG, of RGB pixels: float32 `[..., 3]` to float32 `[...]`."""
    red, green, blue = np.moveaxis(pixels, -1, 0)
    return 0.299 * red + 0.587 * green + 0.114 * blue


def _whole(thumbnail: np.ndarray) -> np.ndarray | None:
    with plain_opencv():
        blurred = cv2.GaussianBlur(luma(thumbnail.astype(np.float32)), (0, 0), THUMBNAIL_PX / WHOLE_PX)
        small = cv2.resize(blurred, (WHOLE_PX, WHOLE_PX), interpolation=cv2.INTER_AREA)
    deviation = float(small.std())
    return None if deviation < PLAIN else ((small - small.mean()) / deviation).astype(np.float32)


@functools.lru_cache(maxsize=CACHED)
def _examined(path: str, sha256: str, modified_ns: int, num_bytes: int) -> Fingerprint:
    data = Path(path).read_bytes()
    if sha256 and hashlib.sha256(data).hexdigest() != sha256:
        raise Refusal(Reason.CHANGED, "it is another file than the one that was indexed")
    return fingerprint(decode(data), quality=jpeg_quality(data))


def fingerprint_file(path: Path, sha256: str = "") -> Fingerprint:
    """Looks at a file closely, as a candidate; the last eight thousand are kept.

    Args:
        path: the file.
        sha256: what its bytes should have, in hexadecimal; "" takes any.

    Raises:
        OSError: the file cannot be read.
        Refusal: it is no picture, or another one.
    """
    facts = path.stat()
    return _examined(str(path), sha256, facts.st_mtime_ns, facts.st_size)


def forget_fingerprints() -> None:
    """Forgets what `fingerprint_file` has kept, as if this process had just begun."""
    _examined.cache_clear()


def jpeg_quality(data: bytes) -> int | None:
    """Returns the quality, 1..100 on libjpeg's scale, whose luminance table is nearest to that of a JPEG file's bytes.

    None for another format, or a damaged header. Other encoders have tables of their own: then it is an estimate.
    """
    table = _luminance_table(data)
    if table is None:
        return None
    return 1 + int(np.abs(_tables() - np.sort(table)).sum(axis=1).argmin())


def _luminance_table(data: bytes) -> np.ndarray | None:
    """The first quantization table of a JPEG file (segment DQT, Annex B.2.4.1): int64 `[64]`."""
    if data[:2] != b"\xff\xd8":
        return None
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4], "big")
        if marker == 0xDA:  # the picture itself
            break
        if marker == 0xDB and length >= 67:
            wide = data[place + 4] >> 4
            values = data[place + 5 : place + 5 + 64 * (1 + wide)]
            if len(values) == 64 * (1 + wide):
                return np.frombuffer(values, ">u2" if wide else "u1").astype(np.int64)
        place += 2 + length
    return None


@functools.cache
def _tables() -> np.ndarray:
    """The 100 tables of libjpeg, each sorted, since a file has them in zigzag order: int64 `[100, 64]`."""
    quality = np.arange(1, 101)[:, None]
    percent = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    return np.sort(np.clip((_STANDARD * percent + 50) // 100, 1, 255), axis=1)
