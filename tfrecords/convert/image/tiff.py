"""What Pillow misreads of TIFF, read as TIFF 6.0 says; and what it does not read, with tifffile if that is installed.

Pillow opens the first page, even if that is marked as a reduced-resolution version of another one. It knows no
big-endian BigTIFF, nor some kinds of gray samples. `as_pillow_reads` rewrites the directory of such files. And it
misreads uncompressed samples of 16 bits in separate planes, and compressed big-endian ones, which `repair_decoding`
mends. For the meaning of gray samples, see `tfrecords.convert.image.sample_range.gray_samples`.
"""

from __future__ import annotations

import importlib
import io
import struct
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from PIL import Image, ImageFile

from tfrecords.convert.image.sample_range import SampleRange, eight_bits

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
EXTRA = "pip install 'simimg-tf[tiff]'"

_SUBFILE, _OLD_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION = 254, 255, 256, 257, 258, 259
_SIDES = ((_WIDTH, _HEIGHT), (322, 323))  # of the page, and of its tiles
_SAMPLES, _MAX_SAMPLES = 277, 8
_PHOTOMETRIC, _PLANAR, _SUB_IFDS, _EXTRA_SAMPLES, _SAMPLE_FORMAT = 262, 284, 330, 338, 339
# What a rewritten directory has not: marks, and if it was "big", the places of others (EXIF), which still are.
_DROPPED, _PLACES = frozenset({_SUBFILE, _OLD_SUBFILE, _SUB_IFDS}), frozenset({34665, 34853, 40965})
_REDUCED, _MASK = 1, 4  # bits of the subfile type
_FORMATS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}  # of the types of integers
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
# Pillow's names of big-endian samples, and of those in the order of the machine, which is libtiff's.
_NATIVE = {"I;32BS": "I;32NS", "F;32BF": "F;32NF", "I;16BS": "I;16NS"}
_DAMAGED = (struct.error, IndexError, KeyError, OverflowError)
_MAX_PAGES, _MAX_ENTRIES, _MAX_VALUES = 1000, 4096, 64
# Those that Pillow's libtiff decodes in every build, and the names of the others.
_DECODED = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 32771, 32773, 32809, 32946, 34676, 34677, 34925, 50000})
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


def as_pillow_reads(data: bytes) -> tuple[bytes, dict[int, Any]]:
    """Return a TIFF that Pillow reads as it is meant, and tags that have to be set again when it is open.

    It begins with the first page of full resolution, else with the largest such sub-image. It is `data` itself if that
    is possible. Raises EOFError if the file ends before that page.
    """
    try:
        start = _full_page(data)
        tags = _directory(data, start)[0]
        changed: dict[int, tuple[int, ...]] = {}
        negative, bits = tags.get(_PHOTOMETRIC, (0,))[0] == 0, tags.get(_BITS, (1,))
        format = tags.get(_SAMPLE_FORMAT, (1,))[0]
        if len(bits) == 1 and bits[0] in (12, 16, 32) and format in (1, 2):
            if negative and (bits[0], format, _order(data)) != (16, 1, "<"):
                changed[_PHOTOMETRIC] = (1,)
            if bits[0] == 32 and format == 1 and (negative or _order(data) == ">"):
                changed[_SAMPLE_FORMAT] = (2,)
        if not changed and start == _first(data) and not (_is_big(data) and _order(data) == ">"):
            return data, {}
        if _parts_beyond_end(data, start):  # where the new directory will be
            raise EOFError("the TIFF is truncated")
        rewritten = _rewritten(data, start, changed)
    except _DAMAGED:
        return data, {}
    return rewritten, {tag: tags.get(tag, (1,))[0] if tag != _SAMPLE_FORMAT else (format,) for tag in changed}


def repair_decoding(image: ImageFile.ImageFile) -> None:
    """Set how an opened TIFF is decoded.

    Uncompressed samples of 16 bits in separate planes, and of colors multiplied by alpha, are decoded by libtiff:
    Pillow takes each byte of the former for a sample, and fails on the latter. Compressed ones are in the byte order
    in which libtiff gives them.
    """
    tags: Any = getattr(image, "tag_v2", {})
    if not image.tile:
        return
    kind, extents, offset, args = image.tile[0]
    if not isinstance(args, tuple):
        return
    if kind == "libtiff" and args[0] in _NATIVE:
        image.tile = [ImageFile._Tile(kind, extents, offset, (_NATIVE[args[0]], *args[1:]))]
    if tags.get(_PLANAR) == 2 and tags.get(_COMPRESSION, 1) == 1:
        layers = "".join(dict.fromkeys(tile[3][0] for tile in image.tile if tile[3]))  # each plane has its letter
        deep = max(tags.get(_BITS, (1,))) == 16
        if not deep and "a" not in layers:
            return
        size = getattr(image, "_tile_size", image.size)
        args = (layers + ";16N" * deep, False, tags.offset)
        image.tile = [ImageFile._Tile("libtiff", (0, 0, *size), 0, args)]
        image.use_load_libtiff = True  # type: ignore[attr-defined]


def ends_early(data: bytes) -> bool:
    """Return whether a TIFF ends before its directory or its pixels."""
    try:
        return _parts_beyond_end(data, _full_page(data))
    except (*_DAMAGED, EOFError):
        return True


def _parts_beyond_end(data: bytes, start: int) -> bool:
    """Return whether a strip or a tile of the page at `start` lies beyond the end of the file."""
    found: dict[int, tuple[int, ...]] = {}
    for tag, kind, count, begin in _entries(data, start):
        if tag in (273, 279, 324, 325) and kind in _FORMATS and _SIZES[kind] * count <= len(data):
            found[tag] = struct.unpack_from(f"{_order(data)}{count}{_FORMATS[kind]}", data, begin)
    return any(
        offset + length > len(data)
        for offsets, lengths in ((273, 279), (324, 325))
        for offset, length in zip(found.get(offsets, ()), found.get(lengths, ()), strict=False)
    )


def unsupported(data: bytes) -> str:
    """Return why no decoder here reads a TIFF that is valid, or "" if it should have been read."""
    try:
        tags = _directory(data, _full_page(data))[0]
    except (*_DAMAGED, EOFError):
        return ""
    compression = tags.get(_COMPRESSION, (1,))[0]
    if compression in _DECODED:
        return ""
    name = _NAMES.get(compression)
    if name is None:
        return f"this is a TIFF with compression {compression}, which no decoder here knows"
    return f"this is a TIFF with {name} inside, which needs tifffile and imagecodecs: {EXTRA}"


def unknown_samples(data: bytes, error: Exception) -> str:
    """Return why Pillow failed on the samples of a TIFF that is valid, or "" if they are not the reason."""
    try:
        tags = _directory(data, _full_page(data))[0]
    except (*_DAMAGED, EOFError):
        return ""
    if "unknown pixel mode" in str(error) or (tags.get(_PLANAR, (1,))[0] == 2 and _EXTRA_SAMPLES in tags):
        return f"this is a TIFF with samples that Pillow does not know, which needs tifffile: {EXTRA}"
    return ""


def read_with_tifffile(data: bytes, choice: SampleRange, max_pixels: int) -> tuple[Image.Image, bool] | None:
    """Return the page of a TIFF that is read, and whether it is narrow, see `EightBits`; None without tifffile, or
    if the page or one of its tiles has more than `max_pixels`.

    Raises:
        Exception: of tifffile or one of its codecs, whatever is wrong.
    """
    try:
        tifffile = importlib.import_module("tifffile")
    except ModuleNotFoundError:
        return None
    start = _full_page(data)
    tags = _directory(data, start)[0]
    if _parts_beyond_end(data, start):
        raise EOFError("the TIFF is truncated")  # tifffile would give zeros
    sizes = [(tags[width][0], tags[height][0]) for width, height in _SIDES if width in tags and height in tags]
    if tags.get(_SAMPLES, (1,))[0] > _MAX_SAMPLES or any(width * height > max_pixels for width, height in sizes):
        return None
    with tifffile.TiffFile(io.BytesIO(_rewritten(data, start, {}))) as file:
        page = file.pages.first
        if not all(page.databytecounts):  # they are to be filled with a value that a tag gives
            raise ValueError("the TIFF has parts without content")
        values = page.asarray()
        orientation, profile = page.tags.valueof(274, 1), page.tags.valueof(34675)
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
    if isinstance(profile, bytes):
        image.info["icc_profile"] = profile
    image.getexif()[274] = int(orientation)
    return image, narrow


def _is_part(tags: dict[int, tuple[int, ...]]) -> bool:
    """Return whether a page is a reduced version of another one, or its mask."""
    return bool(tags.get(_SUBFILE, (0,))[0] & (_REDUCED | _MASK)) or tags.get(_OLD_SUBFILE, (0,))[0] == 2


def _order(data: bytes) -> str:
    return "<" if data[:1] == b"I" else ">"


def _is_big(data: bytes) -> bool:
    return data[2:4] in (b"+\0", b"\0+")


def _first(data: bytes) -> int:
    """Return the offset of the first directory."""
    return int(struct.unpack_from(_order(data) + ("Q" if _is_big(data) else "I"), data, 8 if _is_big(data) else 4)[0])


def _full_page(data: bytes) -> int:
    """Return the offset of the first page of full resolution, else of the largest such sub-image; of the first page if
    there is none.

    Raises EOFError if the first page is reduced, and the file ends before the others.
    """
    first = _first(data)
    if not _is_part(_directory(data, first)[0]):
        return first
    try:
        return _other_page(data, first)
    except _DAMAGED:
        raise EOFError("the TIFF is truncated: it begins with a reduced image, and the others are not there") from None


def _other_page(data: bytes, first: int) -> int:
    offset = first
    inner: list[int] = []
    seen: set[int] = set()
    while offset and offset not in seen and len(seen) < _MAX_PAGES:
        seen.add(offset)
        tags, following = _directory(data, offset)
        if not _is_part(tags):
            return offset
        inner += tags.get(_SUB_IFDS, ())
        offset = following
    found = [(offset, _directory(data, offset)[0]) for offset in inner[:_MAX_PAGES]]
    areas = {offset: tags[_WIDTH][0] * tags[_HEIGHT][0] for offset, tags in found if not _is_part(tags)}
    return max(areas, key=areas.__getitem__, default=first)


def _entries(data: bytes, offset: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield tag, type, number of values, and where these begin, of each entry of a directory."""
    order, big = _order(data), _is_big(data)
    count_format, size, word = (order + "Q", 20, "Q") if big else (order + "H", 12, "I")
    (number,) = struct.unpack_from(count_format, data, offset)
    at = offset + struct.calcsize(count_format)
    for place in range(at, at + size * min(number, _MAX_ENTRIES), size):
        tag, kind, count = struct.unpack_from(order + "HH" + word, data, place)
        width = struct.calcsize(word)
        begin = place + size - width
        if _SIZES.get(kind, 0) * count > width:
            (begin,) = struct.unpack_from(order + word, data, begin)
        yield tag, kind, count, begin


def _rewritten(data: bytes, offset: int, changed: Mapping[int, tuple[int, ...]]) -> bytes:
    """Return a TIFF of one page: that at `offset`, in a new directory at the end of the file, which is not "big"."""
    order = _order(data)
    dropped = _DROPPED | _PLACES if _is_big(data) else _DROPPED
    entries: dict[int, tuple[int, int, bytes]] = {}
    for tag, kind, count, begin in _entries(data, offset):
        content = data[begin : begin + _SIZES.get(kind, 0) * count]
        if kind not in _SIZES or len(content) < _SIZES[kind] * count or tag in dropped:
            continue
        if kind in (16, 17, 18):
            kind, content = 4, struct.pack(f"{order}{count}I", *struct.unpack(f"{order}{count}Q", content))
        entries[tag] = (kind, count, content)
    for tag, values in changed.items():
        entries[tag] = (3, len(values), struct.pack(f"{order}{len(values)}H", *values))
    out = bytearray(data + bytes(len(data) % 2))
    table = struct.pack(order + "H", len(entries))
    for tag, (kind, count, content) in sorted(entries.items()):
        if len(content) > 4:
            content, start = struct.pack(order + "I", len(out)), content
            out += start + bytes(len(start) % 2)
        table += struct.pack(order + "HHI", tag, kind, count) + content.ljust(4, b"\0")
    out[:8] = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", len(out))
    return bytes(out + table + bytes(4))


def _directory(data: bytes, offset: int) -> tuple[dict[int, tuple[int, ...]], int]:
    """Return the integers in a directory, by tag, and the offset of the next one."""
    order, big = _order(data), _is_big(data)
    tags = {
        tag: struct.unpack_from(f"{order}{count}{_FORMATS[kind]}", data, begin)
        for tag, kind, count, begin in _entries(data, offset)
        if kind in _FORMATS and 0 < count <= _MAX_VALUES
    }
    count_format, size, word = (order + "Q", 20, "Q") if big else (order + "H", 12, "I")
    (number,) = struct.unpack_from(count_format, data, offset)
    (following,) = struct.unpack_from(order + word, data, offset + struct.calcsize(count_format) + size * number)
    return tags, following
