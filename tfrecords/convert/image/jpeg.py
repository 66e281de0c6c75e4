"""The fast path for JPEG: the decoder itself reduces the image, and the rest of the resize uses vector code.

A JPEG takes this path only if nothing about it is unusual: 8 bits, gray or three components, sRGB, not a single warning
of libjpeg. `plain_jpeg` returns None for every other file, which Pillow then decodes or rejects.
"""

from __future__ import annotations

import dataclasses
import re
import struct
import threading

import cykooz_resizer as cr
import numpy as np
import simplejpeg
from PIL import Image

from tfrecords.convert.image.color import is_srgb
from tfrecords.convert.image.progressive_jpeg import MARKER, USUAL_SEGMENTS, without_fine_scans
from tfrecords.format.jpeg_frame import MAX_SEGMENTS

# The reduced image has to be at least this much larger than the wanted one before the antialiased resize. Quality and
# speed of other margins are in simimg/docs/decoding.md.
MARGIN = 1.25

# A progressive JPEG has about ten scans, and each one costs a pass over all blocks, even if it is empty. A small
# hostile file can have so many that decoding it takes hours.
MAX_SCANS = 200

# libjpeg-turbo can scale by any number of eighths, but has vector code only for these: 3/8 takes longer than 4/8, and
# 5/8 longer than the full size.
_REDUCTIONS = (8, 4, 2)
_MEANS = 8  # at which a pixel is the mean of a block

ORIENTATION = 0x0112  # EXIF tag
_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')

_TYPES = {1: cr.PixelType.U8, 3: cr.PixelType.U8x3}
# Pillow's bicubic under its other name: Keys' kernel with a = -0.5, widened with the reduction, so it does not alias.
_BICUBIC = cr.ResizeAlg.convolution(cr.FilterType.catmull_rom)
_own = threading.local()  # each thread's resizer, which has buffers of its own


@dataclasses.dataclass(frozen=True, slots=True)
class PlainJpeg:
    """Content of the header: size in px as stored, components (1 or 3), EXIF orientation 1..8."""

    width: int
    height: int
    components: int
    orientation: int


class _Unusual(Exception):
    """The file is unusual, so Pillow should handle it."""


def plain_jpeg(data: bytes) -> PlainJpeg | None:
    """Return the content of the header, or None if this is not a JPEG or an unusual one. Never raises."""
    if not data.startswith(b"\xff\xd8\xff"):
        return None
    try:
        return _scan(data)
    except (_Unusual, struct.error, IndexError):  # the latter two: the file ends inside its header
        return None


def decode_reduced(
    data: bytes, header: PlainJpeg, by: int
) -> tuple[np.ndarray, tuple[float, float, float, float]] | None:
    """Return the image reduced by a whole number, as stored, and the part of the result that is image.

    A width of 301 px reduced by 4 is 75.25 px: only a quarter of the last of the 76 columns is image. Resizing the
    part, `(left, top, right, bottom)`, keeps the geometry of the full image.

    Args:
        data: the file.
        header: from `plain_jpeg`.
        by: 8, 4, 2 or 1.

    Returns:
        The pixels, uint8 `[h, w, components]`, and the part; None if the decoder gives any warning, such as missing
        bytes. At 1/8, it is not given those scans of a progressive JPEG that change nothing there.
    """
    width, height = header.width, header.height
    rows, columns = -(-height // by), -(-width // by)
    colors = "GRAY" if header.components == 1 else "RGB"
    if by == _MEANS:
        data = without_fine_scans(data) or data
    try:
        pixels = simplejpeg.decode_jpeg(data, colors, False, False, rows, columns, 1.0, None, True)
    except MemoryError:
        raise
    except Exception:  # ValueError for damaged data; whatever it is, Pillow will find the reason
        return None
    if pixels.shape != (rows, columns, header.components):
        return None
    return pixels, (0, 0, width / by, height / by)


def resize_pixels(pixels: np.ndarray, size: tuple[int, int], box: tuple[float, float, float, float]) -> np.ndarray:
    """Return a part of an image, resized: uint8 `[height, width, channels]`, with the same pixels on any processor.

    Args:
        pixels: uint8 `[h, w, 1 or 3]`, C-contiguous.
        size: width and height of the result, px.
        box: the part, `(left, top, right, bottom)`, px; it may end within a pixel.
    """
    height, width, channels = pixels.shape
    source = cr.ImageData(width, height, _TYPES[channels], pixels.tobytes())
    target = cr.ImageData(size[0], size[1], _TYPES[channels])
    resizer, options = _resizer(box)
    resizer.resize(source, target, options)
    return np.frombuffer(target.get_buffer(), np.uint8).reshape(size[1], size[0], channels)


def resize_image(image: Image.Image, size: tuple[int, int], box: tuple[float, float, float, float]) -> Image.Image:
    """Return the same as `resize_pixels` of an image of mode RGB, whose pixels are not copied."""
    resized = Image.new("RGB", size)
    resizer, options = _resizer(box)
    resizer.resize_pil(image, resized, options)
    return resized


def _resizer(box: tuple[float, float, float, float]) -> tuple[cr.Resizer, cr.ResizeOptions]:
    """Return this thread's resizer, and its options for a part of an image."""
    if not hasattr(_own, "resizer"):
        _own.resizer, _own.options = cr.Resizer(), cr.ResizeOptions(_BICUBIC, use_alpha=False)
    left, top, right, bottom = box
    _own.options.crop_box = cr.CropBox(left, top, right - left, bottom - top)
    return _own.resizer, _own.options


def reduction(side: int, needed: int) -> int:
    """Return the largest of 8, 4 and 2 by which `side` px can be reduced with `needed` px left; 1 if there is none."""
    return next((by for by in _REDUCTIONS if side >= needed * by), 1)


def num_scans(data: bytes) -> int:
    """Return the number of scans in a JPEG's image, counted up to `MAX_SCANS` + 1."""
    found = 0
    at = 2
    while found <= MAX_SCANS and (marker := MARKER.search(data, at)):
        kind = data[marker.start() + 1]
        at = marker.end()
        if kind == 0xD9:
            break
        found += kind == 0xDA
        if kind not in (0x01, 0xD8) and len(data) >= at + 2:
            at += int.from_bytes(data[at : at + 2])
    return found


def _scan(data: bytes) -> PlainJpeg:
    """Read the segments up to the first scan."""
    frame: tuple[int, int, int] | None = None
    multiple_scans = False
    exif = xmp = profile = None
    at = 2
    for _ in range(MAX_SEGMENTS):
        fill, kind, length = struct.unpack_from(">BBH", data, at)
        if fill != 0xFF or length < 2:
            raise _Unusual
        start, end = at + 4, at + 2 + length
        if kind in (0xC0, 0xC1, 0xC2):  # baseline, extended, progressive
            precision, height, width, components = struct.unpack_from(">BHHB", data, start)
            if frame or precision != 8 or components not in (1, 3) or not width or not height:
                raise _Unusual
            frame = (width, height, components)
            multiple_scans = kind == 0xC2
        elif kind == 0xDA:
            break
        elif kind == 0xE1:
            if data.startswith(b"Exif\0\0", start):
                if exif is not None:
                    raise _Unusual
                exif = data[start + 6 : end]
            elif data.startswith(_XMP, start):
                if xmp is not None:
                    raise _Unusual
                xmp = data[start + len(_XMP) : end]
        elif kind == 0xE2 and data.startswith(b"ICC_PROFILE\0", start):
            if profile is not None or data[start + 12 : start + 14] != b"\x01\x01":  # in several segments
                raise _Unusual
            profile = data[start + 14 : end]
        elif kind not in USUAL_SEGMENTS:
            raise _Unusual
        at = end
    if frame is None or kind != 0xDA or end > len(data):
        raise _Unusual
    width, height, components = frame
    if (multiple_scans or data[start] != components) and num_scans(data) > MAX_SCANS:
        raise _Unusual
    if profile is not None and not is_srgb(profile, "RGB" if components == 3 else "L"):
        raise _Unusual
    return PlainJpeg(width, height, components, _orientation(exif, xmp))


def _orientation(exif: bytes | None, xmp: bytes | None) -> int:
    """Return the orientation as Pillow does: from the EXIF, else from the XMP, 1 if it is not in 1..8."""
    found = None if exif is None else _exif_orientation(exif)
    if found is None and xmp is not None and (match := _XMP_ORIENTATION.search(xmp)):
        found = int(match[1])
    return found if found is not None and 1 <= found <= 8 else 1


def _exif_orientation(exif: bytes) -> int | None:
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        raise _Unusual
    (at,) = struct.unpack_from(order + "I", exif, 4)
    (num_entries,) = struct.unpack_from(order + "H", exif, at)
    found = None
    for entry in range(at + 2, at + 2 + 12 * num_entries, 12):
        tag, kind, count, value = struct.unpack_from(order + "HHIH", exif, entry)
        if tag == ORIENTATION:
            if kind != 3 or count != 1 or found is not None:
                raise _Unusual
            found = value
    return found
