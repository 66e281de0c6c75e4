"""Fingerprint of an image for verification: keypoints, a thumbnail, its size, and the quality of its JPEG file."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from simimg.determinism import plain_opencv
from simimg.similarity.image_table import size_and_time
from simimg.similarity.keypoints import Keypoints, detect
from tfrecords.convert.image.color import WHITE, color_name, contrasting
from tfrecords.convert.image.decoder import decode_composites
from tfrecords.convert.image.image_formats import open_image, reading
from tfrecords.format.quarantine import Reason, Refusal

Stamp = tuple[int, int, int, int]

THUMBNAIL_PX = 192
WHOLE_PX = 48
PLAIN = 3.0
"""Deviation in gray levels; what varies less correlates with anything."""

CACHED = 8000
"""Number of fingerprints that are cached: 1.2 GB."""

_DNG_VERSION = 0xC612  # a tag that every DNG file has
# Pillow's names of TIFF's compressions.
_LOSSLESS_TIFF = frozenset(("raw", "packbits", "tiff_ccitt", "group3", "group4", "tiff_lzw", "tiff_adobe_deflate",
                            "tiff_deflate", "lzma", "zstd"))  # fmt: skip
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
        pixels_sha256: of all its pixels, and of all those of `on_contrast`: colors that are transparent do not count.
        thumbnail: uint8 `[h, w, 3]`, sRGB, the longer side `THUMBNAIL_PX`.
        whole: float32 `[WHOLE_PX, WHOLE_PX]`, gray, blurred, normalized to mean 0 and deviation 1; None if plain.
        keypoints: see `simimg.similarity.keypoints`.
        jpeg_quality: 1..100 on libjpeg's scale; None for other formats.
        laid_on: of an image with transparent pixels, the name of the color behind them; "" for an opaque image.
        on_contrast: of an image with transparent pixels, the fingerprint on the contrasting background: black, or white
            if the background is dark. See `simimg.similarity.transparency`.
    """

    size: tuple[int, int]
    pixels_sha256: bytes
    thumbnail: np.ndarray
    whole: np.ndarray | None
    keypoints: Keypoints
    jpeg_quality: int | None
    laid_on: str = ""
    on_contrast: Fingerprint | None = None


def fingerprint(
    image: Image.Image,
    *,
    quality: int | None = None,
    as_query: bool = False,
    contrast: Image.Image | None = None,
    background: tuple[int, int, int] = WHITE,
) -> Fingerprint:
    """Return the fingerprint of an image, mode RGB, upright, whose JPEG file has this quality, see `jpeg_quality`.

    `as_query` detects twice as many keypoints, because a query may be a part of an image or contain one as a part. Of
    an image with transparent pixels, `contrast` is the image on the color that contrasts with its `background`.
    """
    if contrast is not None:
        first, second = (fingerprint(one, quality=quality, as_query=as_query) for one in (image, contrast))
        return dataclasses.replace(
            first,
            pixels_sha256=hashlib.sha256(first.pixels_sha256 + second.pixels_sha256).digest(),
            laid_on=color_name(background),
            on_contrast=dataclasses.replace(second, laid_on=color_name(contrasting(background))),
        )
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
def _cached(path: str, sha256: str, stamp: Stamp, background: tuple[int, int, int]) -> Fingerprint:
    data = read_unchanged(Path(path), sha256)
    # Whoever made the index decides what becomes of truncated files. One that is in it is whole, or is kept as it is.
    image, contrast = decode_composites(data, background=background, truncated="keep")
    return fingerprint(image, quality=jpeg_quality(data), contrast=contrast, background=background)


def fingerprint_file(path: Path, sha256: str = "", background: tuple[int, int, int] = WHITE) -> Fingerprint:
    """Return the fingerprint of a file, as a candidate; the last `CACHED` ones are cached, until the file changes.

    `sha256` is the expected checksum of its bytes, in hexadecimal; "" for any. The color `background` is behind
    transparent pixels.

    Raises:
        OSError: the file cannot be read.
        Refusal: the file is not an image, or its checksum differs.
    """
    return _cached(str(path), sha256, stamp_of(path.stat()), background)


def stamp_of(status: os.stat_result) -> Stamp:
    """Return what changes with every change to a file, also if its size and mtime stay the same."""
    return status.st_dev, status.st_ino, *size_and_time(status)


def read_unchanged(path: Path, sha256: str) -> bytes:
    """Return the bytes of a file, whose SHA-256 must be this one, in hexadecimal; "" for any.

    Raises:
        OSError: the file cannot be read.
        Refusal: it was edited or replaced.
    """
    data = path.read_bytes()
    if sha256 and hashlib.sha256(data).hexdigest() != sha256:
        raise Refusal(Reason.CHANGED, "the file changed after it was indexed")
    return data


def forget_fingerprints() -> None:
    """Clear the cache of `fingerprint_file`, so that a benchmark starts cold."""
    _cached.cache_clear()


def jpeg_quality(data: bytes) -> int | None:
    """Return the quality, 1..100 on libjpeg's scale, whose luminance table is nearest to that of a JPEG file.

    Returns None for another format or a damaged header. For encoders with tables of their own it is an estimate.
    """
    try:
        with reading(data):
            return jpeg_quality_of(Image.open(io.BytesIO(data), formats=["JPEG"]))
    except Refusal:
        return None


def jpeg_quality_of(image: Image.Image) -> int | None:
    """Do the same for an image that Pillow has opened; None if it was changed since, or is of another format."""
    luminance, *_ = getattr(image, "quantization", {}).values() or [None]
    if luminance is None:
        return None
    return 1 + int(np.abs(_tables() - np.sort(luminance)).sum(axis=1).argmin())


def is_lossless(data: bytes) -> bool:
    """Return whether the format of an image file keeps every pixel: PNG, BMP, lossless WebP, and TIFF without JPEG.

    The bytes decide, not the suffix. Formats that may drop pixels without saying so (HEIF, AVIF, JPEG 2000, DNG) count
    as lossy.
    """
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return any(kind == b"VP8L" for kind in _webp_chunks(data))
    try:
        with reading(data):
            image = open_image(data)
    except Refusal:
        return False
    if image.format == "TIFF":
        return _DNG_VERSION not in getattr(image, "tag_v2", {}) and image.info.get("compression") in _LOSSLESS_TIFF
    return image.format in ("PNG", "BMP")


def _webp_chunks(data: bytes) -> Iterator[bytes]:
    """Yield the names of a WebP file's chunks, those of an animation's frames left out."""
    at = 12
    while at + 8 <= len(data):
        yield data[at : at + 4]
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        at += 8 + length + length % 2


@functools.cache
def _tables() -> np.ndarray:
    """Return libjpeg's 100 tables, int64 `[100, 64]`, each sorted, because the order in a file is another one."""
    quality = np.arange(1, 101)[:, None]
    percent = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    return np.sort(np.clip((_STANDARD * percent + 50) // 100, 1, 255), axis=1)
