"""Decodes a region of a JPEG: only the blocks of the region, at a fraction of the size if that suffices.

`decode_region` gives the same pixels, to the bit, as a slice of the whole decoded image. libjpeg-turbo 3 can decode a
region, but no package has a Python interface for it. So its functions are called by ctypes, which releases the
interpreter's lock. They come from a wheel that exports them, pylibjxl (the extra `crops`) or turbojpeg, or from the
system's libturbojpeg. Without any of them, the whole image is decoded and sliced.

libjpeg-turbo interpolates the color of pixels between the color samples on both sides of them. At the edges of a region
it lacks one side, and gives other values in the first column and in the last one. So some columns more are decoded on
each side, and cut off.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
import importlib.util
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import simplejpeg

__all__ = ["Region", "color_reduction", "decode_region", "region_library", "scaled_down"]

Region = tuple[int, int, int, int]
"""Left, top, right and bottom, px of the reduced image."""

# libjpeg-turbo can scale by any number of eighths, but has vector code only for these.
_REDUCTIONS = (8, 4, 2)
# The color samples of a pixel lie in its block or beside it: one block more to the left, and 2 px to the right.
_MORE_TO_THE_RIGHT = 2

_DECOMPRESS, _RGBX = 1, 2  # TJINIT_DECOMPRESS, TJPF_RGBX
_PIXEL_BYTES = 4
_SUBSAMPLING, _WIDTH, _HEIGHT = 4, 5, 6  # TJPARAM_SUBSAMP, TJPARAM_JPEGWIDTH, TJPARAM_JPEGHEIGHT
# Width of a block of pixels (MCU) by TJSAMP: 4:4:4, 4:2:2, 4:2:0, gray, 4:4:0, 4:1:1, 4:4:1.
_BLOCK_WIDTHS = (8, 16, 16, 8, 8, 32, 8)
_COARSER_COLORS = {"422": (2, 1), "440": (1, 2), "411": (4, 1)}
_WHEELS = (("pylibjxl", "pylibjxl/_pylibjxl*.so"), ("turbojpeg", "turbojpeg.libs/libturbojpeg*.so*"))


def decode_region(data: memoryview, size: tuple[int, int], region: Region, by: int) -> np.ndarray:
    """Returns a region of an image that is reduced by `by`, which is 1, 2, 4 or 8: uint8 `[height, columns, 4]`.

    The first columns, as many as the region is wide, are the region, and the first three channels are RGB. The others
    have no meaning. With them, libraries for images of four bytes per pixel use the memory without copying it: it is
    contiguous, and valid until the next call in the same thread.

    Args:
        data: the JPEG file, contiguous.
        size: width and height of the whole image, px.
        region: not empty, inside the reduced image, whose size is `scaled_down(size, by)`.
        by: what the decoder reduces the image by.

    Raises:
        ValueError: it cannot be decoded, or has another size.
    """
    library = region_library()
    return _by_slicing(data, size, region, by) if library is None else library.decode(data, size, region, by)


def scaled_down(size: tuple[int, int], by: int) -> tuple[int, int]:
    """Returns width and height of an image of `size` that the decoder reduces by `by`, px; a part of a pixel counts."""
    return -(-size[0] // by), -(-size[1] // by)


def reduction(side: float, needed: float) -> int:
    """Returns the largest of 8, 4 and 2 by which `side` px can be reduced with `needed` px left; 1 if there is none."""
    return next((by for by in _REDUCTIONS if side >= needed * by), 1)


def color_reduction(data: memoryview) -> tuple[int, int]:
    """Returns how much coarser the colors of a reduced image are than its lightness, across and down.

    libjpeg-turbo reduces color samples by less, as far as they are coarser in both directions (4:2:0).

    Raises:
        ValueError: it cannot be decoded.
    """
    return _COARSER_COLORS.get(simplejpeg.decode_jpeg_header(data)[3], (1, 1))


@functools.cache
def region_library() -> RegionLibrary | None:
    """Returns the library that decodes regions, None if there is none."""
    for name, path in _candidates():
        try:
            return RegionLibrary(name, path)
        except (OSError, AttributeError):  # not a library of this machine; an older libjpeg-turbo
            continue
    return None


class RegionLibrary:
    """The functions of libjpeg-turbo 3 in one shared library.

    Attributes:
        name: the package that the library belongs to, or `libturbojpeg` for the system's.

    Raises:
        OSError: the library cannot be loaded.
        AttributeError: it lacks a function.
    """

    def __init__(self, name: str, path: str) -> None:
        self.name = name
        library = ctypes.CDLL(path)
        pointer, size, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
        self._init = _function(library, "tj3Init", pointer, number)
        self._destroy = _function(library, "tj3Destroy", None, pointer)
        self._header = _function(library, "tj3DecompressHeader", number, pointer, pointer, size)
        self._get = _function(library, "tj3Get", number, pointer, number)
        self._set_scale = _function(library, "tj3SetScalingFactor", number, pointer, _ScalingFactor)
        self._set_region = _function(library, "tj3SetCroppingRegion", number, pointer, _Region)
        self._decompress = _function(library, "tj3Decompress8", number, pointer, pointer, size, pointer, number, number)
        self._error = _function(library, "tj3GetErrorStr", ctypes.c_char_p, pointer)
        self._own = threading.local()

    def decode(self, data: memoryview, size: tuple[int, int], region: Region, by: int) -> np.ndarray:
        """Does what `decode_region` does."""
        handle = self._handle()
        source = np.frombuffer(data, np.uint8)
        address, num_bytes = source.ctypes.data, source.size
        self._check(handle, self._header(handle, address, num_bytes))
        _check_size(size, (self._get(handle, _WIDTH), self._get(handle, _HEIGHT)))
        subsampling = self._get(handle, _SUBSAMPLING)
        width, height = scaled_down(size, by)
        left, top, right, bottom = region
        start, stop, first, last = 0, width, 0, height
        if 0 <= subsampling < len(_BLOCK_WIDTHS):  # otherwise the library takes no region
            block = _BLOCK_WIDTHS[subsampling] // by
            start = max(0, (left - 1) // block * block) if block else 0
            stop = min(width, right + _MORE_TO_THE_RIGHT)
            first, last = top, bottom
        self._check(handle, self._set_scale(handle, _ScalingFactor(1, by)))
        self._check(handle, self._set_region(handle, _Region(start, first, stop - start, last - first)))
        row_bytes = (stop - start) * _PIXEL_BYTES
        # One row more, because the rows that are returned begin with the region, and end with the next row's margin.
        pixels = self._buffer((last - first + 1) * row_bytes)
        self._check(handle, self._decompress(handle, address, num_bytes, pixels.ctypes.data, row_bytes, _RGBX))
        begin = (top - first) * row_bytes + (left - start) * _PIXEL_BYTES
        return pixels[begin : begin + (bottom - top) * row_bytes].reshape(bottom - top, stop - start, _PIXEL_BYTES)

    def _handle(self) -> int:
        """Returns this thread's decoder, which lives as long as the thread."""
        if not hasattr(self._own, "handle"):
            self._own.handle = _Handle(self._init(_DECOMPRESS), self._destroy)
        address: int = self._own.handle.address
        return address

    def _buffer(self, num_bytes: int) -> np.ndarray:
        """Returns this thread's memory for pixels: new memory for each image would be mapped page by page."""
        buffer: np.ndarray | None = getattr(self._own, "buffer", None)
        if buffer is None or len(buffer) < num_bytes:
            buffer = self._own.buffer = np.empty(num_bytes, np.uint8)
        return buffer[:num_bytes]

    def _check(self, handle: int, result: int) -> None:
        # Warnings count, as in the readers of whole images: an error after a warning is reported as that warning.
        if result:
            raise ValueError(f"it cannot be decoded: {self._error(handle).decode(errors='replace')}")


class _Handle:
    """A decoder of the library, which is destroyed with this object."""

    def __init__(self, address: int | None, destroy: ctypes._NamedFuncPointer) -> None:
        if not address:
            raise MemoryError
        self.address, self._destroy = address, destroy

    def __del__(self) -> None:
        self._destroy(self.address)


class _ScalingFactor(ctypes.Structure):
    _fields_ = (("num", ctypes.c_int), ("denom", ctypes.c_int))


class _Region(ctypes.Structure):
    _fields_ = (("x", ctypes.c_int), ("y", ctypes.c_int), ("w", ctypes.c_int), ("h", ctypes.c_int))


def _function(library: ctypes.CDLL, name: str, result: object, *arguments: object) -> ctypes._NamedFuncPointer:
    function = getattr(library, name)
    function.restype, function.argtypes = result, arguments
    return function


def _candidates() -> Iterator[tuple[str, str]]:
    """Yields the name and the path of each library that may have the functions."""
    for package, pattern in _WHEELS:
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.origin:
            folder = Path(spec.origin).parent
            root = folder.parent if spec.submodule_search_locations else folder
            for file in sorted(root.glob(pattern)):
                yield package, os.fspath(file)
    if path := ctypes.util.find_library("turbojpeg"):  # last, because it asks other programs
        yield "libturbojpeg", path


def _check_size(size: tuple[int, int], found: tuple[int, int]) -> None:
    if size != found:
        raise ValueError(f"it has {found[0]} x {found[1]} px instead of {size[0]} x {size[1]}")


def _by_slicing(data: memoryview, size: tuple[int, int], region: Region, by: int) -> np.ndarray:
    height, width = simplejpeg.decode_jpeg_header(data)[:2]
    _check_size(size, (width, height))
    columns, rows = scaled_down(size, by)
    decoded = simplejpeg.decode_jpeg(data, "RGBX", False, False, rows, columns, 1.0)
    if decoded.shape != (rows, columns, _PIXEL_BYTES):
        raise ValueError(f"it is decoded to {decoded.shape[1]} x {decoded.shape[0]} px instead of {columns} x {rows}")
    left, top, right, bottom = region
    return np.ascontiguousarray(decoded[top:bottom, left:right])
