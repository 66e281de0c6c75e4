"""What the tests of decoding share."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest


@pytest.fixture(scope="session")
def turned_upright() -> dict[int, Callable[[np.ndarray], np.ndarray]]:
    """What each EXIF orientation asks a viewer to do with the stored rows and columns (TIFF 6.0, tag 274)."""
    return {
        1: lambda stored: stored,
        2: lambda stored: stored[:, ::-1],
        3: lambda stored: stored[::-1, ::-1],
        4: lambda stored: stored[::-1],
        5: lambda stored: stored.transpose(1, 0, 2),
        6: lambda stored: stored.transpose(1, 0, 2)[:, ::-1],
        7: lambda stored: stored.transpose(1, 0, 2)[::-1, ::-1],
        8: lambda stored: stored.transpose(1, 0, 2)[::-1],
    }


@pytest.fixture(scope="session")
def deep_png() -> Callable[..., bytes]:
    """Returns a PNG of 16 bits, which Pillow does not write in color: of uint16 `[h, w]` or `[h, w, 3 or 4]`."""

    def made(pixels: np.ndarray, *chunks: tuple[bytes, bytes]) -> bytes:
        rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
        kind = 0 if pixels.ndim == 2 else {3: 2, 4: 6}[pixels.shape[2]]
        header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, kind, 0, 0, 0)
        data = b"\x89PNG\r\n\x1a\n"
        for name, content in ((b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
            data += struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        return data

    return made
