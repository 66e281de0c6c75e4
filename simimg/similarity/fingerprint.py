"""Fingerprint of an image for verification: a thumbnail, keypoints, its size, and the quality of its JPEG file.

The thumbnail decides most pairs. So a JPEG decoder may reduce the image for it, and whatever needs all pixels (the fine
keypoints and their checksum) is computed when it is first requested. Of an index's files, thumbnails and keypoints are
kept on disk, see `simimg.similarity.fingerprint_store`.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import math
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from simimg.determinism import plain_opencv
from simimg.similarity.fingerprint_store import FingerprintStore, StoredThumbnail
from simimg.similarity.image_table import size_and_time
from simimg.similarity.keypoints import Keypoints, detect_in, gray_pixels
from simimg.similarity.reduced_image import fitted_in, is_worth_keeping, reduced_file
from tfrecords.convert.image.color import WHITE, color_name, contrasting
from tfrecords.convert.image.decoder import decode_composites
from tfrecords.convert.image.image_formats import ANY_SIZE, reading
from tfrecords.convert.image.jpeg import resize_image
from tfrecords.format.quarantine import Reason, Refusal

Stamp = tuple[int, int, int, int]

THUMBNAIL_PX = 192
WHOLE_PX = 48
PLAIN = 3.0
"""Deviation in gray levels; what varies less correlates with anything."""

CACHED = 8000
"""Number of fingerprints that are cached: 0.9 GB with coarse keypoints."""

# So that threads that want the same image do not compute it twice.
_LOCKS = [threading.Lock() for _ in range(64)]
JPEG_START = b"\xff\xd8\xff"
_CANDIDATE = (320, 400)  # px of the longer side, and keypoints: 60 KB and 15 ms per image
_QUERY = (512, 800)  # more, because a query may be a crop, or contain its original as a small part
_LARGE = 1_000_000  # pixels; smaller images are decoded again where fine keypoints are needed, in a few ms
_COARSE = (160, 200)  # of the thumbnail: 24 KB and 5 ms per image

# The luminance table of Annex K.1 of the JPEG standard, which libjpeg scales by the quality (jcparam.c).
_STANDARD = np.array(
    [
        16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29,
        51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87, 103, 121,
        120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
    ]
)  # fmt: skip


class Details:
    """Keypoints of an image and the checksum of its pixels, computed when they are first requested. Thread-safe.

    A `source` loads the image again, and may raise OSError or Refusal if its file is gone or was edited.
    """

    def __init__(
        self,
        thumbnail: np.ndarray,
        gray: Callable[[], np.ndarray],
        checksum: Callable[[], bytes],
        num_keypoints: int,
        store: FingerprintStore | None = None,
        key: str = "",
    ) -> None:
        """Take the thumbnail, and what returns the gray image for the fine keypoints and the checksum of all pixels.

        `store` keeps the keypoints under `key`.
        """
        self._thumbnail = thumbnail
        self._load_gray, self._checksum = gray, checksum
        self._num_keypoints = num_keypoints
        self._store, self._key = store, key
        self._lock = threading.Lock()
        self._pixels_sha256 = b""
        self._coarse: Keypoints | None = None
        self._fine: Keypoints | None = None

    @property
    def coarse(self) -> Keypoints:
        """Keypoints of the thumbnail."""
        with self._lock:
            if self._coarse is None:
                longer_side, most = _COARSE
                self._coarse = self._kept(
                    "coarse", lambda: detect_in(gray_pixels(Image.fromarray(self._thumbnail), longer_side), most)
                )
            return self._coarse

    @property
    def fine(self) -> Keypoints:
        """Keypoints of the image."""
        with self._lock:
            if self._fine is None:
                self._fine = self._kept("fine", lambda: detect_in(self._gray(), self._num_keypoints))
            return self._fine

    @property
    def pixels_sha256(self) -> bytes:
        """The checksum of all pixels."""
        with self._lock:
            if not self._pixels_sha256:
                self._pixels_sha256 = self._checksum()
            return self._pixels_sha256

    def _gray(self) -> np.ndarray:
        kept = None if self._store is None else self._store.gray(self._key)
        return self._load_gray() if kept is None else kept

    def _kept(self, part: str, compute: Callable[[], Keypoints]) -> Keypoints:
        if self._store is None:
            return compute()
        found = self._store.keypoints(self._key, part)
        if found is None:
            found = compute()
            self._store.add_keypoints(self._key, part, found)
        return found


@dataclasses.dataclass(frozen=True, slots=True)
class Fingerprint:
    """What verification needs to know about an image.

    Attributes:
        size: width and height in px of the upright image.
        thumbnail: uint8 `[h, w, 3]`, sRGB, the longer side `THUMBNAIL_PX`.
        whole: float32 `[WHOLE_PX, WHOLE_PX]`, gray, blurred, normalized to mean 0 and deviation 1; None if plain.
        details: see there.
        jpeg_quality: 1..100 on libjpeg's scale; None for other formats.
        laid_on: of an image with transparent pixels, the name of the color behind them; "" for an opaque image.
        on_contrast: of an image with transparent pixels, the fingerprint on the contrasting background: black, or white
            if the background is dark. See `simimg.similarity.transparency`.
    """

    size: tuple[int, int]
    thumbnail: np.ndarray
    whole: np.ndarray | None
    details: Details
    jpeg_quality: int | None
    laid_on: str = ""
    on_contrast: Fingerprint | None = None

    @property
    def keypoints(self) -> Keypoints:
        """See `simimg.similarity.keypoints`."""
        return self.details.fine

    @property
    def pixels_sha256(self) -> bytes:
        """Of all pixels, and of all those of `on_contrast`: colors that are transparent do not count."""
        own = self.details.pixels_sha256
        return own if self.on_contrast is None else hashlib.sha256(own + self.on_contrast.pixels_sha256).digest()


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
        return _with_contrast(first, second, background)
    longer_side, most = _QUERY if as_query else _CANDIDATE
    factor = THUMBNAIL_PX / max(image.size)
    small = (max(2, round(image.width * factor)), max(2, round(image.height * factor)))
    thumbnail = np.asarray(resize_image(image, small, (0, 0, *image.size)))
    # The image itself is not kept: it may have 192 MB.
    gray, checksum = gray_pixels(image, longer_side), hashlib.sha256(image.tobytes()).digest()
    details = Details(thumbnail, lambda: gray, lambda: checksum, most)
    return Fingerprint(image.size, thumbnail, _whole(thumbnail), details, quality)


def _with_contrast(first: Fingerprint, second: Fingerprint, background: tuple[int, int, int]) -> Fingerprint:
    on_contrast = dataclasses.replace(second, laid_on=color_name(contrasting(background)))
    return dataclasses.replace(first, laid_on=color_name(background), on_contrast=on_contrast)


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
def _cached(
    path: str, sha256: str, stamp: Stamp, background: tuple[int, int, int], store: FingerprintStore | None, known: bool
) -> Fingerprint:
    key = store_key(sha256, background)
    kept = store.thumbnail(key) if store and known else None
    if kept is None:
        kept = _loaded(read_unchanged(Path(path), sha256), background)
        if store and sha256:
            store.add_thumbnail(key, kept)
    found = []
    for place, thumbnail in enumerate(kept.pixels()):
        file = path, sha256, background, bool(place)
        gray = functools.partial(_detailed_gray, *file)
        checksum = functools.partial(_pixels_sha256, *file)
        details = Details(thumbnail, gray, checksum, _CANDIDATE[1], store if sha256 else None, f"{key}-{place}")
        one = Fingerprint(kept.size, thumbnail, _whole(thumbnail), details, kept.jpeg_quality)
        found.append(one)
    return found[0] if len(found) == 1 else _with_contrast(found[0], found[1], background)


def _loaded(data: bytes, background: tuple[int, int, int]) -> StoredThumbnail:
    image, composites = fitted_in(data, background, THUMBNAIL_PX)
    return StoredThumbnail.of((image.width, image.height), jpeg_quality(data), composites)


def _detailed_gray(path: str, sha256: str, background: tuple[int, int, int], on_contrast: bool) -> np.ndarray:
    """Return a file's image as its fine keypoints are detected in it."""
    grays = _grays(read_unchanged(Path(path), sha256), background)
    if on_contrast >= len(grays):
        raise Refusal(Reason.CHANGED, "the file changed after it was indexed")
    return grays[on_contrast]


def _grays(data: bytes, background: tuple[int, int, int]) -> list[np.ndarray]:
    """Return a file as its fine keypoints are detected in it, on one or both backgrounds."""
    px = _CANDIDATE[0]
    return [gray_pixels(Image.fromarray(pixels), px) for pixels in fitted_in(data, background, px)[1]]


def reduced_images(
    path: Path,
    sha256: str,
    background: tuple[int, int, int],
    store: FingerprintStore | None,
    *,
    is_unchanged: bool = True,
) -> tuple[np.ndarray, ...]:
    """Return what `reduced_file` gives for a file, from the store if it is there; that of a large file is kept there.

    Unless `is_unchanged`, the file is read in any case, and has to be the one with this checksum.

    Raises:
        OSError: it cannot be read.
        Refusal: it was edited, or is no image.
    """
    key = store_key(sha256, background)
    kept = store.reduced(key) if store and is_unchanged else None
    if kept is None:
        kept = reduced_file(read_unchanged(path, sha256), background)
        if store and is_worth_keeping(kept[0]):
            store.add_reduced(key, kept)
    return kept


def _pixels_sha256(path: str, sha256: str, background: tuple[int, int, int], on_contrast: bool) -> bytes:
    data = read_unchanged(Path(path), sha256)
    image = decode_composites(data, background=background, truncated="keep", max_pixels=ANY_SIZE)[on_contrast]
    if image is None:
        raise Refusal(Reason.CHANGED, "the file changed after it was indexed")
    return hashlib.sha256(image.tobytes()).digest()


def prepare_fingerprint(
    sha256: str, data: bytes, store: FingerprintStore, background: tuple[int, int, int] = WHITE
) -> None:
    """Keep what `fingerprint_file` computes of the bytes of an image file, where it would decode it again for that.

    It is for images that were just decoded, in a block of `decoded_once`. Of large images, what few pairs need is kept,
    too: what fine keypoints are detected in, and in other formats than JPEG, whose decoder can reduce images, what is
    compared at full size.
    """
    key = store_key(sha256, background)
    with suppress(Refusal):  # it will be said when the fingerprint is needed
        thumbnail = _loaded(data, background)
        store.add_thumbnail(key, thumbnail)
        if math.prod(thumbnail.size) >= _LARGE:
            for place, gray in enumerate(_grays(data, background)):
                store.add_gray(f"{key}-{place}", gray)
        if not data.startswith(JPEG_START):
            images = reduced_file(data, background)
            if is_worth_keeping(images[0]):
                store.add_reduced(key, images)


def store_key(sha256: str, background: tuple[int, int, int]) -> str:
    """Return the key of a file in a `FingerprintStore`, when its transparent pixels are on this color."""
    return f"{sha256}-{color_name(background)}"


def fingerprint_file(
    path: Path,
    sha256: str = "",
    background: tuple[int, int, int] = WHITE,
    *,
    store: FingerprintStore | None = None,
    unchanged: bool = False,
    stamp: Stamp | None = None,
) -> Fingerprint:
    """Return the fingerprint of a file, as a candidate; the last `CACHED` ones are cached, until the file changes.

    `sha256` is the expected checksum of its bytes, in hexadecimal; "" for any. The color `background` is behind
    transparent pixels. What is computed is kept in `store`, and taken from there without reading the file if it is
    known to be `unchanged`. `stamp` is that of the file if the caller knows it.

    Raises:
        OSError: the file cannot be read.
        Refusal: the file is not an image, or its checksum differs.
    """
    with _LOCKS[hash(path) % len(_LOCKS)]:
        return _cached(str(path), sha256, stamp or stamp_of(path.stat()), background, store, unchanged)


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
        with reading(data, max_pixels=ANY_SIZE):
            return jpeg_quality_of(Image.open(io.BytesIO(data), formats=["JPEG"]))
    except Refusal:
        return None


def jpeg_quality_of(image: Image.Image) -> int | None:
    """Do the same for an image that Pillow has opened; None if it was changed since, or is of another format."""
    luminance, *_ = getattr(image, "quantization", {}).values() or [None]
    if luminance is None:
        return None
    return 1 + int(np.abs(_sorted_tables() - np.sort(luminance)).sum(axis=1).argmin())


@functools.cache
def jpeg_tables() -> np.ndarray:
    """Return libjpeg's luminance tables of the qualities 1 to 100, int64 `[100, 64]`, vertical frequency first."""
    quality = np.arange(1, 101)[:, None]
    percent = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    return np.clip((_STANDARD * percent + 50) // 100, 1, 255)


@functools.cache
def _sorted_tables() -> np.ndarray:
    """Return the tables, each sorted, because the order in a file is another one."""
    return np.sort(jpeg_tables())
