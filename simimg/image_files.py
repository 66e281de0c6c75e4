"""Image files to the pixels that a model takes, decoded by threads while the model runs; and pixels to image files."""

from __future__ import annotations

import dataclasses
import hashlib
import io
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from simimg.errors import UsageError
from tfrecords.convert.image.decoded_once import decoded_once
from tfrecords.convert.image.decoder import (
    ImageOptions,
    decode_composites,
    load_image,
    visible_composite,
)
from tfrecords.convert.image.image_formats import ANY_SIZE
from tfrecords.convert.sources import walk
from tfrecords.convert.sources.image_folder import FolderFiles
from tfrecords.convert.sources.read_errors import read_file
from tfrecords.format.quarantine import Refusal

BATCH_SIZE = 32
_FILES_AHEAD = 96
_NUM_THREADS = 4  # Pillow releases the interpreter lock while it decodes

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclasses.dataclass(frozen=True, slots=True)
class LoadedFile:
    """A file: checksum of its bytes, size in px of the upright image, and pixels; 0 and None if it was not decoded.

    `contrast` is that of `DecodedImage`.
    """

    sha256: str
    width: int = 0
    height: int = 0
    pixels: np.ndarray | None = None
    contrast: np.ndarray | None = None


def check_max_pixels(max_pixels: int) -> None:
    """Raise UsageError if this is not a limit for the size of image files, or 0 for the default."""
    if max_pixels < 0:
        raise UsageError(f"--max_pixels={max_pixels}: should be 1 or more, or auto.")


def named_files(names: Sequence[str]) -> list[str]:
    """Return the files that are named; a folder stands for all files in it.

    Raises:
        UsageError: a name does not exist, or there are no files.
    """
    paths: list[str] = []
    for name in names:
        if Path(name).is_dir():
            paths.extend(str(Path(name) / path) for path in walk(Path(name)))
        elif Path(name).exists():
            paths.append(name)
        else:
            raise UsageError(f"{name} does not exist. Name an image file or a folder of images.")
    if not paths:
        raise UsageError(f"{', '.join(names)}: no files found. Name an image file or a folder of images.")
    return paths


def map_ahead(
    function: Callable[[_Item], _Result], items: Iterable[_Item], *, num_threads: int, num_ahead: int
) -> Iterator[_Result]:
    """Yield `function(item)` for each item, in order; threads compute up to `num_ahead` results in advance."""
    with ThreadPoolExecutor(num_threads) as executor:
        pending: deque[Future[_Result]] = deque()
        try:
            for item in items:
                pending.append(executor.submit(function, item))
                if len(pending) >= num_ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            executor.shutdown(wait=False, cancel_futures=True)  # a caller that stops early does not wait for the rest


def load_files(
    paths: Sequence[str],
    options: ImageOptions,
    base: Path = Path(),
    *,
    known: Container[str] = (),
    visible: bool = False,
    also: Callable[[str, bytes], object] | None = None,
) -> Iterator[tuple[str, LoadedFile | Refusal]]:
    """Return an iterator over each path below `base` with what was loaded, or with its refusal, in order.

    Pixels are uint8 `[height, width, 3]`. Files with `known` SHA-256 checksums are not decoded.

    With `visible`, images with transparent pixels come with `contrast`, and those that show nothing on the background,
    such as white logos on white, have the pixels of `contrast`.

    `also` is called by the threads with the checksum and the bytes of each image that was decoded; what it decodes of
    them is decoded once, see `tfrecords.convert.image.decoded_once`.
    """

    def load(path: str) -> tuple[str, LoadedFile | Refusal]:
        try:
            data = read_file(FolderFiles(str(base)), path)  # does not block on a pipe, and detects concurrent writes
            sha256 = hashlib.sha256(data).hexdigest()
            if sha256 in known:
                return path, LoadedFile(sha256)
            with decoded_once(data):
                picture = load_image(data, options, contrast=visible)
                if also is not None:
                    also(sha256, data)
        except Refusal as refusal:
            return path, refusal
        pixels = picture.visible if visible else picture.pixels
        return path, LoadedFile(sha256, picture.width, picture.height, pixels, picture.contrast)

    return map_ahead(load, paths, num_threads=_NUM_THREADS, num_ahead=_FILES_AHEAD)


def png_bytes(image: Image.Image) -> bytes:
    """Return an image as a PNG file, without its metadata."""
    buffer = io.BytesIO()
    bare = Image.new(image.mode, image.size)
    bare.paste(image)
    bare.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def thumbnail(path: str | Path, most_px: int) -> Image.Image | None:
    """Return the image of a file, mode RGB, upright, sides at most `most_px`; None if it cannot be read."""
    try:
        data = Path(path).read_bytes()
        image = visible_composite(*decode_composites(data, max_pixels=ANY_SIZE))
    except (OSError, Refusal):
        return None
    image.thumbnail((most_px, most_px))
    return image


def jpeg_bytes(image: Image.Image, quality: int, *, optimize: bool = False) -> bytes:
    """Return an image, mode RGB or L, as a JPEG file of `quality`, 1..100 on libjpeg's scale."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, optimize=optimize)
    return buffer.getvalue()
