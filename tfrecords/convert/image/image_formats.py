"""Opens the bytes of an image with Pillow, without decoding its pixels, or finds the reason why that is impossible.

The first bytes decide which single format is tried. So no file reaches a decoder because of its suffix, and none can
start another program: PostScript named .jpg would run Ghostscript. Sizes are checked here, before any memory is
allocated for pixels.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import struct
import warnings
from collections.abc import Iterator
from typing import Literal

from PIL import Image, ImageFile

from tfrecords.convert.image.jpeg import MAX_SCANS, num_scans
from tfrecords.format.quarantine import Reason, Refusal

# The largest cameras have 150 megapixels. A header with more counts as a decompression bomb: decoding it would need
# more than 500 MB.
MAX_PIXELS = 178_956_970

_MAGIC = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    *((magic, "TIFF") for magic in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
    *((magic, "PPM") for magic in (b"P1", b"P2", b"P3", b"P4", b"P5", b"P6", b"Pf", b"PF", b"Py", b"P7")),
    (b"\xff\x4f\xff\x51", "JPEG2000"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG2000"),
    (b"\0\0\x01\0", "ICO"),
)
_HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"})
_AVIF_BRANDS = frozenset({b"avif", b"avis"})

# Image formats that are not decoded here.
_FOREIGN = (
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"8BPS", "Photoshop"),
    (b"v/1\x01", "OpenEXR"),
    (b"%PDF-", "PDF"),
    (b"%!PS", "PostScript"),
)
_NEEDS = {
    "HEIF": "this is HEIC or HEIF, which needs pillow-heif: pip install 'simimg-tf[heif]'",
    "AVIF": "this is AVIF, which this Pillow was built without: pip install --upgrade pillow",
}
# Their decoders give a whole image or nothing; for a truncated file they would give black.
_WHOLE_OR_NOTHING = frozenset({"JPEG2000", "WEBP", "AVIF", "HEIF"})
_CONTROLS = bytes({*range(32), 127} - {*b"\b\t\n\f\r\x1b"})


@contextlib.contextmanager
def reading(data: bytes, *, keep_truncated: bool = False) -> Iterator[None]:
    """Raise any error about the image in `data` inside the block as a `Refusal`; MemoryError passes through.

    Pillow's warnings are suppressed. With `keep_truncated`, Pillow gives the part of an image that is there. That
    switch holds for the whole process, and is restored at the end.
    """
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    try:
        if before is not keep_truncated:  # threads do not write it if it already has the right value
            ImageFile.LOAD_TRUNCATED_IMAGES = keep_truncated
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (Refusal, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise Refusal(Reason.TOO_LARGE, str(error)) from None
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error and more
        raise Refusal(_reason_of(error, data), f"{type(error).__name__}: {error}".strip()) from None
    finally:
        if ImageFile.LOAD_TRUNCATED_IMAGES is not before:
            ImageFile.LOAD_TRUNCATED_IMAGES = before


def open_image(data: bytes) -> ImageFile.ImageFile:
    """Return the first frame of the image in `data`, not decoded; to be called inside `reading(data)`.

    Raises:
        Refusal: the bytes are not an image, or one that is too large or that this installation cannot decode.
    """
    if not data:
        raise Refusal(Reason.EMPTY, "the file has no bytes")
    kind = _kind_of(data)
    if kind not in _formats(kind == "HEIF"):
        raise Refusal(Reason.UNSUPPORTED, _NEEDS.get(kind, f"this Pillow was built without {kind}"))
    _check_promised_sizes(data, kind)
    if kind in _WHOLE_OR_NOTHING and ImageFile.LOAD_TRUNCATED_IMAGES:
        ImageFile.LOAD_TRUNCATED_IMAGES = False
    # The JPEG plugin opens a JPEG with several images as MPO.
    factory, accept = Image.OPEN[kind]
    if accept and not accept(data[:16]):
        raise _not_an_image(data)
    try:
        image = factory(io.BytesIO(data), "")
    except (MemoryError, Image.DecompressionBombError):
        raise
    except Exception as error:
        # TGA has no magic number, so everything unknown is tried as TGA; "BMW is ..." begins like a BMP.
        if kind == "TGA" or _is_text(data):
            raise _not_an_image(data) from None
        raise error
    _check_size(*image.size)
    if kind == "TIFF":
        _check_tiles(image)
    if kind == "JPEG" and num_scans(data) > MAX_SCANS:
        raise Refusal(Reason.CORRUPT, f"the JPEG has more than {MAX_SCANS} scans")
    return image


def _kind_of(data: bytes) -> str:
    """Return Pillow's name of the format; TGA if the first bytes are not those of any other one."""
    for magic, kind in _MAGIC:
        if data.startswith(magic):
            return kind
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp":
        brands = data[8 : min(int.from_bytes(data[:4]), 256)]
        found = {brands[at : at + 4] for at in range(0, len(brands), 4)}
        for known, kind in ((_AVIF_BRANDS, "AVIF"), (_HEIF_BRANDS, "HEIF")):
            if found & known:
                return kind
    if any(data.startswith(magic) for magic, _ in _FOREIGN) or _is_text(data):
        raise _not_an_image(data)
    return "TGA"


def _not_an_image(data: bytes) -> Refusal:
    for magic, name in _FOREIGN:
        if data.startswith(magic):
            return Refusal(Reason.UNSUPPORTED, f"{name} files are not supported; convert it to PNG or JPEG")
    if _is_text(data):
        begin = data[:60].decode(errors="replace").strip()
        if "<svg" in data[:1000].decode(errors="replace").lower():
            return Refusal(Reason.UNSUPPORTED, f"SVG files are not supported; it begins with {begin!r}")
        return Refusal(Reason.TEXT, f"this is text, not an image; it begins with {begin!r}")
    return Refusal(Reason.NOT_AN_IMAGE, f"not a known image format; it begins with {data[:12]!r}")


def _is_text(data: bytes) -> bool:
    """Return whether `data` begins like text: in UTF-8, in UTF-16 with a byte order mark, or mostly ASCII."""
    start = data[:1024]
    if start.startswith((b"\xff\xfe", b"\xfe\xff")) and len(start) > 2:
        characters = start[: len(start) // 2 * 2].decode("utf-16", errors="replace")
        return all(character.isprintable() or character.isspace() for character in characters[:-1])
    if start.translate(None, _CONTROLS) != start:
        return False
    try:
        start.decode()
    except UnicodeDecodeError as error:
        cut = error.end == len(start) and len(start) == 1024 and error.start > 1020
        return cut or sum(byte < 128 for byte in start) > 0.7 * len(start)
    return True


@functools.cache
def _formats(with_heif: bool) -> frozenset[str]:
    """Return the formats that this installation decodes; pillow-heif is imported only if a file needs it."""
    Image.init()
    if with_heif:
        with contextlib.suppress(ImportError):
            importlib.import_module("pillow_heif").register_heif_opener()
    return frozenset(Image.OPEN)


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise Refusal(Reason.TOO_LARGE, f"{width} x {height} is more than {MAX_PIXELS} pixels")


def _check_promised_sizes(data: bytes, kind: str) -> None:
    """Check sizes that Pillow's plugins use before they report them."""
    if kind == "WEBP" and len(data) >= 30:  # its decoder allocates two canvases when the file is opened
        chunk = data[12:16]
        if chunk == b"VP8X":
            _check_size(1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little"))
        elif chunk == b"VP8L":
            bits = int.from_bytes(data[21:25], "little")
            _check_size(1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF))
        elif chunk == b"VP8 ":
            width, height = struct.unpack_from("<HH", data, 26)
            _check_size(width & 0x3FFF, height & 0x3FFF)
    elif kind == "ICO":  # its list has sizes up to 256 x 256, but the images in it have headers of their own
        for at in range(6, min(6 + 16 * int.from_bytes(data[4:6], "little"), len(data) - 15), 16):
            (start,) = struct.unpack_from("<I", data, at + 12)
            inner = data[start : start + 24]
            if inner.startswith(b"\x89PNG") and len(inner) == 24:
                _check_size(*struct.unpack_from(">II", inner, 16))
            elif len(inner) >= 12:
                width, height = struct.unpack_from("<ii", inner, 4)
                _check_size(abs(width), abs(height))


def _check_tiles(image: ImageFile.ImageFile) -> None:
    """Check the size of a TIFF's tiles, which may be larger than the image: libtiff allocates a whole tile."""
    tags = getattr(image, "tag_v2", {})
    width, height = tags.get(322), tags.get(323)
    if isinstance(width, int) and isinstance(height, int):
        _check_size(width, height)


def _reason_of(error: Exception, data: bytes) -> Reason:
    message = str(error).lower()
    if "unsupported" in message or "unknown pixel mode" in message or "not available" in message:
        return Reason.UNSUPPORTED
    ends_early = isinstance(error, EOFError | struct.error | IndexError) or any(
        words in message
        for words in ("truncated", "not enough image data", "requires a buffer", "buffer is not large enough")
    )
    return Reason.TRUNCATED if ends_early or _ends_early(data) else Reason.CORRUPT


def _ends_early(data: bytes) -> bool:
    """Return whether a length in the file points beyond its end."""
    size = len(data)
    if data.startswith(b"RIFF"):
        return int.from_bytes(data[4:8], "little") + 8 > size
    if data.startswith(b"\x89PNG"):
        at = 8
        while at + 8 <= size:
            if data[at + 4 : at + 8] == b"IEND":
                return False
            at += 12 + int.from_bytes(data[at : at + 4])
        return True
    if data.startswith(b"GIF8"):
        return not data.rstrip(b"\0").endswith(b";")
    if data.startswith(b"\xff\xd8"):
        at = 2
        while at + 4 <= size and data[at] == 0xFF and data[at + 1] != 0xDA:
            at += 2 + max(2, int.from_bytes(data[at + 2 : at + 4]))
        return at + 4 > size
    if data.startswith((b"II*\0", b"MM\0*")):
        order: Literal["little", "big"] = "little" if data[0] == 0x49 else "big"
        at = int.from_bytes(data[4:8], order)
        return at + 2 + 12 * int.from_bytes(data[at : at + 2], order) > size
    if data[4:8] in (b"ftyp", b"jP  "):
        at = 0
        while at + 8 <= size:
            length = int.from_bytes(data[at : at + 4])
            if length == 1:
                length = int.from_bytes(data[at + 8 : at + 16])
            if length < 8:  # 0: up to the end of the file
                return data[4:8] == b"jP  " and not data.endswith(b"\xff\xd9")
            at += length
        return at != size
    if data.startswith(b"\xff\x4f\xff\x51"):
        return not data.endswith(b"\xff\xd9")
    return False
