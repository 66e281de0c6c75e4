"""What Pillow misreads of TIFF, read as TIFF 6.0 says; and what it does not read, with tifffile if that is installed.

Pillow opens the first page, even if that is marked as a reduced-resolution version of another one, and misreads
uncompressed samples of 16 bits in separate planes. `full_page` and `repair_planes` mend this. For gray samples that are
unsigned or have white at 0, see `tfrecords.convert.image.sample_range.gray_samples`.
"""

from __future__ import annotations

import importlib
import io
import struct
from typing import Any

import numpy as np
from PIL import Image, ImageFile

from tfrecords.convert.image.sample_range import SampleRange, eight_bits

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
EXTRA = "pip install 'simimg-tf[tiff]'"

_SUBFILE, _OLD_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION = 254, 255, 256, 257, 258, 259
_SUB_IFDS = 330
_REDUCED, _MASK = 1, 4  # bits of the subfile type
_FORMATS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}  # of the types of integers
_MAX_PAGES, _MAX_VALUES = 1000, 64
# Those that Pillow's libtiff decodes in every build, and the names of the others.
_DECODED = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 32773, 32946, 34925, 50000})
_NAMES = {
    33003: "JPEG 2000",
    33005: "JPEG 2000",
    34712: "JPEG 2000",
    34887: "LERC",
    34933: "PNG",
    34934: "JPEG XR",
    50001: "WebP",
    50002: "JPEG XL",
    52546: "JPEG XL",
}


def full_page(data: bytes) -> bytes:
    """Return a TIFF that begins with the first page of full resolution, else with the largest such sub-image.

    That is `data` itself unless its first page is marked as reduced or as a mask.
    """
    try:
        pages = _pages(data)
        if not _is_part(pages[0][1]):
            return data
        inner = [offset for _, tags in pages for offset in tags.get(_SUB_IFDS, ())][:_MAX_PAGES]
        sub_images = [(offset, _directory(data, offset)[0]) for offset in inner]
        whole = [page for page in pages if not _is_part(page[1])][:1]
        whole = whole or [page for page in sub_images if not _is_part(page[1])]
        if not whole:
            return data
        offset = max(whole, key=lambda page: page[1][_WIDTH][0] * page[1][_HEIGHT][0])[0]
    except (struct.error, IndexError, KeyError):
        return data
    order = _order(data)
    if data[2:4] in (b"+\0", b"\0+"):
        return data[:8] + struct.pack(order + "Q", offset) + data[16:]
    return data[:4] + struct.pack(order + "I", offset) + data[8:]


def repair_planes(image: ImageFile.ImageFile) -> None:
    """Let libtiff read uncompressed samples of 16 bits in separate planes: Pillow's own reader takes every second
    byte of them for a sample.
    """
    tags: Any = getattr(image, "tag_v2", {})
    if tags.get(284) != 2 or tags.get(_COMPRESSION, 1) != 1 or max(tags.get(_BITS, (1,))) != 16 or not image.tile:
        return
    layers = dict.fromkeys(tile[3][0] for tile in image.tile)  # each plane has its letter
    size = getattr(image, "_tile_size", image.size)
    image.tile = [ImageFile._Tile("libtiff", (0, 0, *size), 0, ("".join(layers) + ";16N", False, tags.offset))]
    image.use_load_libtiff = True  # type: ignore[attr-defined]


def unsupported(data: bytes) -> str:
    """Return why no decoder here reads a TIFF that is valid, or "" if it should have been read."""
    try:
        tags = _pages(data)[0][1]
    except (struct.error, IndexError, KeyError):
        return ""
    compression = tags.get(_COMPRESSION, (1,))[0]
    if compression in _DECODED:
        return ""
    name = _NAMES.get(compression)
    if name is None:
        return f"this is a TIFF with compression {compression}, which no decoder here knows"
    return f"this is a TIFF with {name} inside, which needs tifffile and imagecodecs: {EXTRA}"


def num_pixels(data: bytes) -> int:
    """Return the number of pixels of the first page."""
    tags = _pages(data)[0][1]
    return tags[_WIDTH][0] * tags[_HEIGHT][0]


def read_with_tifffile(data: bytes, choice: SampleRange) -> tuple[Image.Image, bool] | None:
    """Return the first page of a TIFF and whether it is narrow, see `EightBits`; None without tifffile.

    Raises:
        Exception: of tifffile or one of its codecs, whatever is wrong.
    """
    try:
        tifffile = importlib.import_module("tifffile")
    except ModuleNotFoundError:
        return None
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages.first
        values = page.asarray()
        tags = {tag.code: tag.value for tag in page.tags if tag.code in (274, 34675)}
        photometric, extra = int(page.photometric), tuple(int(kind) for kind in page.extrasamples)
        if page.samplesperpixel > 1 and int(page.planarconfig) == 2:
            values = np.moveaxis(values, 0, -1)
        if values.ndim == 3 and values.shape[-1] == 1:
            values = values[..., 0]
        if photometric not in (0, 1, 2, 6) or values.ndim not in (2, 3) or values.dtype.kind not in "uifb":
            raise ValueError(f"unsupported: a TIFF of photometric interpretation {photometric}")
        bits = page.bitspersample
        colors = values[..., : 3 if photometric in (2, 6) else 1] if values.ndim == 3 else values[..., None]
        known = (0.0, 2.0**bits - 1) if values.dtype.kind in "ub" else None
        if values.dtype.kind == "b":
            colors = colors.astype(np.uint8)
        if colors.dtype == np.uint8 and known == (0.0, 255.0):
            samples, narrow = colors, False
        else:
            found = eight_bits(colors, choice, known)
            samples, narrow = found.samples, found.narrow
        if photometric == 0:
            samples = 255 - samples
        alpha = [at for at, kind in enumerate(extra, colors.shape[-1]) if kind in (1, 2)]
        mode = {1: "L", 3: "RGB"}[samples.shape[-1]]
        if alpha and values.ndim == 3:
            opacity = eight_bits(values[..., alpha[0]], "full", known).samples
            if extra[alpha[0] - colors.shape[-1]] == 1:  # the colors were multiplied by it
                share = np.maximum(opacity, 1)[..., None] / 255
                samples = np.clip(samples / share + 0.5, 0, 255).astype(np.uint8)
            samples = np.concatenate([samples, opacity[..., None]], axis=-1)
            mode += "A"
    image = Image.fromarray(np.ascontiguousarray(samples if samples.shape[-1] > 1 else samples[..., 0]), mode)
    if isinstance(tags.get(34675), bytes):
        image.info["icc_profile"] = tags[34675]
    image.getexif()[274] = int(tags.get(274, 1))
    return image, narrow


def _is_part(tags: dict[int, tuple[int, ...]]) -> bool:
    """Return whether a page is a reduced version of another one, or its mask."""
    return bool(tags.get(_SUBFILE, (0,))[0] & (_REDUCED | _MASK)) or tags.get(_OLD_SUBFILE, (0,))[0] == 2


def _order(data: bytes) -> str:
    return "<" if data[:1] == b"I" else ">"


def _pages(data: bytes) -> list[tuple[int, dict[int, tuple[int, ...]]]]:
    """Return offset and tags of the page at the beginning of a TIFF and, if it is only a part, of the others."""
    big = data[2:4] in (b"+\0", b"\0+")
    (offset,) = struct.unpack_from(_order(data) + ("Q" if big else "I"), data, 8 if big else 4)
    pages: list[tuple[int, dict[int, tuple[int, ...]]]] = []
    seen = set()
    while offset and offset not in seen and len(pages) < _MAX_PAGES:
        seen.add(offset)
        tags, following = _directory(data, offset)
        pages.append((offset, tags))
        if not _is_part(pages[0][1]):
            break
        offset = following
    return pages


def _directory(data: bytes, offset: int) -> tuple[dict[int, tuple[int, ...]], int]:
    """Return the integers in a directory, by tag, and the offset of the next one."""
    order, big = _order(data), data[2:4] in (b"+\0", b"\0+")
    count_format, entry, word = (order + "Q", 20, "Q") if big else (order + "H", 12, "I")
    (number,) = struct.unpack_from(count_format, data, offset)
    at = offset + struct.calcsize(count_format)
    tags: dict[int, tuple[int, ...]] = {}
    for place in range(at, at + entry * min(number, 4096), entry):
        tag, kind, count = struct.unpack_from(order + "HH" + word, data, place)
        if kind not in _FORMATS or not 0 < count <= _MAX_VALUES:
            continue
        values = f"{order}{count}{_FORMATS[kind]}"
        start = place + entry - struct.calcsize(word)
        if struct.calcsize(values) > struct.calcsize(word):
            (start,) = struct.unpack_from(order + word, data, start)
        tags[tag] = struct.unpack_from(values, data, start)
    (following,) = struct.unpack_from(order + word, data, at + entry * number)
    return tags, following
