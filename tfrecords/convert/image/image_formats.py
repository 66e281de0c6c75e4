"""Opens the bytes of an image with Pillow, without decoding its pixels, or finds the reason why that is impossible.

The first bytes decide which single format is tried. So no file reaches a decoder because of its suffix, and none can
start another program: PostScript named .jpg would run Ghostscript. Sizes are checked here, before any memory is
allocated for pixels.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import importlib
import io
import struct
from collections.abc import Iterator
from typing import Any

from PIL import Image, ImageFile

from tfrecords.convert.image import tiff
from tfrecords.convert.image.heif_boxes import boxes
from tfrecords.convert.image.jpeg import MAX_SCANS, num_scans
from tfrecords.convert.image.pillow_threads import pillow_for_this_thread, refuse_truncated
from tfrecords.format.jpeg_frame import frame_of
from tfrecords.format.quarantine import Reason, Refusal

# The default of --max_pixels. The largest cameras have 150 megapixels. A header with more counts as a decompression
# bomb: decoding it would need more than 500 MB.
MAX_PIXELS = 178_956_970

ANY_SIZE = 1 << 62
"""The `max_pixels` of files that were let in before, such as those of an index, whose checksum is known."""

_MAGIC = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    *((magic, "TIFF") for magic in tiff.MAGIC),
    *((magic, "PPM") for magic in (b"P1", b"P2", b"P3", b"P4", b"P5", b"P6", b"Pf", b"PF", b"Py", b"P7")),
    (b"\xff\x4f\xff\x51", "JPEG2000"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG2000"),
    (b"\0\0\x01\0", "ICO"),
    (b"\xff\x0a", "JXL"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JXL"),
)
_HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"})
_AVIF_BRANDS = frozenset({b"avif", b"avis"})

# Image formats that are not decoded here.
_FOREIGN = (
    (b"8BPS", "Photoshop"),
    (b"v/1\x01", "OpenEXR"),
    (b"%PDF-", "PDF"),
    (b"%!PS", "PostScript"),
)
# Formats whose Pillow plugin is a package of its own: the module, and how it is registered when it is imported.
_PLUGINS = {"HEIF": ("pillow_heif", "register_heif_opener"), "JXL": ("pillow_jxl", "")}
_NEEDS = {
    "HEIF": "this is HEIC or HEIF, which needs pillow-heif: pip install 'simimg-tf[heif]'",
    "JXL": "this is JPEG XL, which needs pillow-jxl-plugin: pip install 'simimg-tf[jxl]'",
    "AVIF": "this is AVIF, which this Pillow was built without: pip install --upgrade pillow",
}
# Their decoders give a whole image or nothing; for a truncated file they would give black.
_WHOLE_OR_NOTHING = frozenset({"JPEG2000", "WEBP", "AVIF", "HEIF", "JXL"})
_CONTROLS = bytes({*range(32), 127} - {*b"\b\t\n\f\r\x1b"})


@contextlib.contextmanager
def reading(data: bytes, *, keep_truncated: bool = False, max_pixels: int = MAX_PIXELS) -> Iterator[None]:
    """Raise any error about the image in `data` inside the block as a `Refusal`.

    MemoryError passes through, and so does OSError if it comes from the operating system, which has no part in decoding
    bytes. Pillow's warnings are suppressed. With `keep_truncated`, Pillow gives the part of an image that is there.
    """
    try:
        with pillow_for_this_thread(keep_truncated=keep_truncated, max_pixels=max_pixels):
            yield
    except (Refusal, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise Refusal(Reason.TOO_LARGE, str(error)) from None
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error and more
        if isinstance(error, OSError) and error.errno is not None:
            raise
        if why := _unsupported(data, error):
            raise Refusal(Reason.UNSUPPORTED, why) from None
        raise Refusal(_reason_of(error, data), f"{type(error).__name__}: {error}".strip()) from None


def open_image(data: bytes, max_pixels: int = MAX_PIXELS) -> ImageFile.ImageFile:
    """Return the first frame of the image in `data`, not decoded; to be called inside `reading(data)`.

    A JPEG may have more than `max_pixels` if its decoder can reduce it to no more than that, see `least_reduction`.

    Raises:
        Refusal: the bytes are not an image, or one that is too large or that this installation cannot decode.
    """
    if not data:
        raise Refusal(Reason.EMPTY, "the file has no bytes")
    kind = _kind_of(data)
    if kind not in _formats(kind if kind in _PLUGINS else ""):
        raise Refusal(Reason.UNSUPPORTED, _NEEDS.get(kind, f"this Pillow was built without {kind}"))
    _check_promised_sizes(data, kind, max_pixels)
    meant: dict[int, Any] = {}
    if kind == "TIFF":
        if why := tiff.unsupported(data):  # libtiff would write to the standard error stream
            raise SyntaxError(why)
        data, meant = tiff.as_pillow_reads(data)
    if kind in _WHOLE_OR_NOTHING:
        refuse_truncated()
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
        if kind == "JXL":  # whose plugin advises to build libjxl from source
            raise OSError("libjxl cannot decode the image") from error
        raise error
    if kind != "JPEG" or image.size[0] * image.size[1] > max_pixels * least_reduction(data, max_pixels) ** 2:
        _check_size(*image.size, max_pixels)
    if kind == "TIFF":
        _check_tiles(image, max_pixels)
        tiff.repair_decoding(image)
        getattr(image, "tag_v2", {}).update(meant)
    if kind == "JPEG" and num_scans(data) > MAX_SCANS:
        raise Refusal(Reason.CORRUPT, f"the JPEG has more than {MAX_SCANS} scans")
    return image


@contextlib.contextmanager
def image_header(data: bytes) -> Iterator[ImageFile.ImageFile]:
    """Yield the image in `data`, of any size, for what its header says; errors inside the block are a `Refusal`.

    Nothing is decoded, except for a JPEG XL, whose plugin decodes all of it. So that may have at most `MAX_PIXELS`.
    """
    with reading(data, max_pixels=ANY_SIZE):
        image = open_image(data, MAX_PIXELS if _kind_of(data) == "JXL" else ANY_SIZE)
        if image.format == "PNG" and "exif" not in image.info:
            # Pillow would decode the pixels to find what comes after them.
            found = next((data[begin:end] for kind, begin, end in png_chunks(data) if kind == b"eXIf"), None)
            if found is not None:
                image.info["exif"] = b"Exif\0\0" + found
        yield image


def png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, start and end of the content of each chunk of a PNG; a truncated file has fewer bytes in the last."""
    at = 8
    while at + 8 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4])
        yield data[at + 4 : at + 8], at + 8, end
        at = end + 4


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


def least_reduction(data: bytes, max_pixels: int) -> int:
    """Return by what the decoder has to reduce a JPEG so that it has at most `max_pixels`: 1, 2, 4 or 8.

    It is 1 for a JPEG that is not to be reduced for that reason. A progressive one has all of its coefficients in
    memory, whatever the size of the result. And an 8 x 8 block of samples takes at least two bits; if the file has
    fewer, its header promises what is not there.
    """
    frame = frame_of(data)
    if frame is None or frame.kind not in (0xC0, 0xC1) or len(data) < frame.width * frame.height // 256:
        return 1
    return next((by for by in (1, 2, 4, 8) if -(-frame.width // by) * -(-frame.height // by) <= max_pixels), 1)


@functools.cache
def _formats(needed: str) -> frozenset[str]:
    """Return the formats that this installation decodes; a plugin is imported only if a file `needed` it."""
    if needed:
        name, register = _PLUGINS[needed]
        try:
            module = importlib.import_module(name)
            if register:
                getattr(module, register)()
        except ModuleNotFoundError:
            pass
        except ImportError as error:  # it is installed, but there are too many open files, or not enough memory
            raise OSError(errno.ELIBACC, f"{name.replace('_', '-')} cannot be loaded: {error}") from None
    return frozenset(Image.OPEN)


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise Refusal(
            Reason.TOO_LARGE,
            f"{width} x {height} is more than {max_pixels} pixels; if you trust the file, "
            f"--max_pixels={width * height} lets it in",
        )


def _check_promised_sizes(data: bytes, kind: str, max_pixels: int) -> None:
    """Check sizes that Pillow's plugins use before they report them."""
    if kind == "JXL":
        if size := jxl_size(data):
            _check_size(*size, max_pixels)
        return
    if kind == "WEBP" and len(data) >= 30:  # its decoder allocates two canvases when the file is opened
        chunk = data[12:16]
        if chunk == b"VP8X":
            _check_size(
                1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little"), max_pixels
            )
        elif chunk == b"VP8L":
            bits = int.from_bytes(data[21:25], "little")
            _check_size(1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF), max_pixels)
        elif chunk == b"VP8 ":
            width, height = struct.unpack_from("<HH", data, 26)
            _check_size(width & 0x3FFF, height & 0x3FFF, max_pixels)
    elif kind == "ICO":  # its list has sizes up to 256 x 256, but the images in it have headers of their own
        for at in range(6, min(6 + 16 * int.from_bytes(data[4:6], "little"), len(data) - 15), 16):
            (start,) = struct.unpack_from("<I", data, at + 12)
            inner = data[start : start + 24]
            if inner.startswith(b"\x89PNG") and len(inner) == 24:
                width, height = struct.unpack_from(">II", inner, 16)
                _check_size(width, height, max_pixels)
            elif len(inner) >= 12:
                width, height = struct.unpack_from("<ii", inner, 4)
                _check_size(abs(width), abs(height), max_pixels)


def _check_tiles(image: ImageFile.ImageFile, max_pixels: int) -> None:
    """Check the size of a TIFF's tiles, which may be larger than the image: libtiff allocates a whole tile."""
    tags = getattr(image, "tag_v2", {})
    width, height = tags.get(322), tags.get(323)
    if isinstance(width, int) and isinstance(height, int):
        _check_size(width, height, max_pixels)


def jxl_size(data: bytes) -> tuple[int, int] | None:
    """Return width and height in px from the header of a JPEG XL; None if it has none."""
    header = _jxl_header(data)
    return header and header[:2]


def jxl_bits(data: bytes) -> int:
    """Return the bits per sample of a JPEG XL; 16 if they are not known, or its samples are floating point."""
    header = _jxl_header(data)
    return header[2] if header else 16


def _jxl_header(data: bytes) -> tuple[int, int, int] | None:
    """Return width, height and bits per sample from the header of a JPEG XL (ISO/IEC 18181-1, annex D), if it has one.

    Of an image with a preview or of an animation, and of floating point, the bits are 16.
    """
    if not data.startswith(b"\xff\x0a"):
        # One box has the codestream or, after a number, its first part.
        starts = (begin + 4 * (kind == b"jxlp") for kind, begin, _ in boxes(data) if kind in (b"jxlc", b"jxlp"))
        if (start := next(starts, None)) is None:
            return None
        data = data[start : start + 32]
    bits, at = int.from_bytes(data[2:32], "little"), 0

    def take(number: int) -> int:
        nonlocal at
        at += number
        return bits >> (at - number) & ((1 << number) - 1)

    def side(small: int) -> int:
        return 8 * (take(5) + 1) if small else take((9, 13, 18, 30)[take(2)]) + 1

    def size() -> tuple[int, int]:
        small = take(1)
        height = side(small)
        if not (ratio := take(3)):
            return side(small), height
        across, down = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))[ratio - 1]
        return height * across // down, height

    width, height = size()
    if take(1):  # all of the metadata is as usual
        return width, height, 8
    if take(1):  # there are more fields
        take(3)  # the orientation
        if take(1):  # a size for display
            size()
        if take(2):  # a preview, an animation
            return width, height, 16
    if take(1):
        return width, height, 16
    choice = take(2)
    return width, height, (8, 10, 12)[choice] if choice < 3 else 1 + take(6)


def _unsupported(data: bytes, error: Exception) -> str:
    """Return why no decoder here reads a file that is valid, or "" if there is no such reason."""
    if data.startswith(tiff.MAGIC):
        return tiff.unsupported(data) or tiff.unknown_samples(data, error)
    if not data.startswith(b"\xff\xd8\xff") or (frame := frame_of(data)) is None:
        return ""
    if frame.precision != 8:
        return f"this is a JPEG with {frame.precision} bits per sample, which no decoder here reads"
    if frame.kind not in (0xC0, 0xC1, 0xC2, 0xC3, 0xC9, 0xCA):
        return f"this is a JPEG of process {frame.kind - 0xC0} (hierarchical or lossless), which no decoder here reads"
    return "" if frame.components in (1, 3, 4) else f"this is a JPEG of {frame.components} components"


def _reason_of(error: Exception, data: bytes) -> Reason:
    message = str(error).lower()
    if data.startswith(tiff.MAGIC) and tiff.ends_early(data):  # tags that are not there make other kinds of samples
        return Reason.TRUNCATED
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
        return all(kind != b"IEND" for kind, _, _ in png_chunks(data))
    if data.startswith(b"GIF8"):
        return not data.rstrip(b"\0").endswith(b";")
    if data.startswith(b"\xff\xd8"):
        at = 2
        while at + 4 <= size and data[at] == 0xFF and data[at + 1] != 0xDA:
            at += 2 + max(2, int.from_bytes(data[at + 2 : at + 4]))
        return data.find(b"\xff\xd9", at) < 0
    if data[4:8] in (b"ftyp", b"jP  ", b"JXL "):
        last = end = 0
        for _, _, stop in boxes(data):
            last, end = end, stop
        if data[last : last + 4] == bytes(4) or end + 8 <= size:  # up to the end of the file, or no valid length
            return data[4:8] == b"jP  " and not data.endswith(b"\xff\xd9")
        return end != size
    if data.startswith(b"\xff\x4f\xff\x51"):
        return not data.endswith(b"\xff\xd9")
    return False
