"""Reads the pixels of an image file as the specification of its format says, whatever the decoders leave out.

Decoders differ in what they do besides decoding: one applies a clean aperture, another only decodes what it is cropped
from; none looks at PNG's cICP. `read_image` evens this out. Its images have at most eight bits per sample, and their
`info["icc_profile"]` says what their colors mean, however the file said it.

A file that one decoder fails on is given to the others that are installed before it is called corrupt. They are only
asked for whole images, without a warning.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import struct
from collections.abc import Callable

import numpy as np
import simplejpeg
from PIL import Image, ImageFile

from tfrecords.convert.image import tiff
from tfrecords.convert.image.color import is_transparent
from tfrecords.convert.image.declared_color import is_known, profile_of_cicp, profile_of_gamma
from tfrecords.convert.image.decoded_once import once
from tfrecords.convert.image.heif_boxes import jp2_profile, jpeg2000_samples, shown_as
from tfrecords.convert.image.image_formats import MAX_PIXELS, jxl_bits, least_reduction, open_image, png_chunks, reading
from tfrecords.convert.image.jpeg import ORIENTATION, plain_jpeg
from tfrecords.convert.image.sample_range import AUTO, FULL, NARROW, SampleRange, eight_bits, gray_samples, stretched
from tfrecords.format.quarantine import Reason, Refusal

Box = tuple[float, float, float, float]
_BAND_PIXELS = 1 << 22  # 16 MB
_RELATIVE = frozenset({AUTO, FULL})  # those for which color of 16 bits keeps its upper eight


@dataclasses.dataclass(slots=True)
class ReadImage:
    """A decoded image, as stored.

    Attributes:
        image: loaded, with at most eight bits per sample, perhaps reduced.
        size: width and height of the full image, px.
        box: the part of `image` that is image, `(left, top, right, bottom)`, px.
        orientation: as EXIF numbers it.
        narrow: whether its samples were deeper, and use so little of their range that the image is dark or flat.
    """

    image: Image.Image
    size: tuple[int, int]
    box: Box
    orientation: int = 1
    narrow: bool = False


def read_image(
    data: bytes,
    *,
    keep_truncated: bool = False,
    sample_range: SampleRange = AUTO,
    max_pixels: int = MAX_PIXELS,
    reduction: Callable[[int, int], int] = lambda width, height: 1,
) -> ReadImage:
    """Return the first image in the bytes of a file.

    Args:
        data: the file.
        keep_truncated: give the part that is there if the file ends early.
        sample_range: what becomes black and white if samples have more than eight bits, see `eight_bits`.
        max_pixels: more are refused, but of a JPEG that its decoder can reduce to no more than that.
        reduction: returns by what a JPEG of this width and height may be reduced: 1, 2, 4 or 8.

    Raises:
        Refusal: the bytes are not an image, or not all of one.
        MemoryError: decoding needs more memory than there is.
    """
    with reading(data, keep_truncated=keep_truncated, max_pixels=max_pixels):
        try:
            image = open_image(data, max_pixels)
            if image.format in ("JPEG", "MPO"):
                by = max(least_reduction(data, max_pixels), reduction(*image.size))
                return once(data, by, lambda: _read_jpeg(data, image, max_pixels, by), keep_truncated=keep_truncated)
            reader = _READERS.get(image.format or "", _read_plain)
            read = once(
                data, sample_range, lambda: _opaque(reader(data, image, sample_range)), keep_truncated=keep_truncated
            )
        except (Refusal, MemoryError):
            raise
        except Exception:
            if (second := _second_decoder(data, sample_range, max_pixels)) is None:
                raise
            read = second
        return read if read.size[0] * read.size[1] <= MAX_PIXELS else _reduced(read)


def orientation_of(image: Image.Image) -> int:
    """Return the EXIF orientation of a loaded image, 1 if it is damaged. A PNG may have its EXIF after the pixels."""
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except MemoryError:
        raise
    except Exception:  # damaged EXIF does not make the image unusable
        return 1


def _whole(image: Image.Image, orientation: int, narrow: bool = False) -> ReadImage:
    return ReadImage(image, image.size, (0, 0, *image.size), orientation, narrow)


def _read_jpeg(data: bytes, image: ImageFile.ImageFile, max_pixels: int, by: int) -> ReadImage:
    """Return a JPEG that is reduced by a factor, at least that for so many pixels."""
    size = width, height = image.size
    drafted = image.draft(None, (max(1, width // by), max(1, height // by)))
    try:
        image.load()
    except (MemoryError, Refusal):
        raise
    except Exception:
        # Lossless JPEGs cannot be reduced, and the decoder of arithmetic codes needs all bytes at once.
        if least_reduction(data, max_pixels) > 1:
            raise
        image, drafted = open_image(data, max_pixels), None
        image.decodermaxblock = max(image.decodermaxblock, len(data))
        try:
            image.load()
        except (MemoryError, Refusal):
            raise
        except Exception:
            if (found := _decoded_by_simplejpeg(data)) is None:
                raise
            found.info = image.info
            return _whole(found, orientation_of(image))
    return ReadImage(image, size, drafted[1] if drafted else (0, 0, *image.size), orientation_of(image))


def _read_plain(data: bytes, image: ImageFile.ImageFile, sample_range: SampleRange) -> ReadImage:
    image.load()
    orientation = orientation_of(image)
    if image.mode.startswith("I") or image.mode == "F":
        return _deep_gray(image, sample_range, orientation)
    return _whole(image, orientation)


def _opaque(read: ReadImage) -> ReadImage:
    """Return an image without its alpha if that is 255 everywhere, as in most screenshots; so it is looked at once."""
    few = read.size[0] * read.size[1] <= MAX_PIXELS  # a larger one is not to be in memory twice, see `_reduced`
    if few and read.image.mode == "RGBA" and not is_transparent(read.image, opaque=255):
        read.image = read.image.convert("RGB")
        read.image.info.pop("transparency", None)
    return read


def _deep_gray(image: Image.Image, sample_range: SampleRange, orientation: int) -> ReadImage:
    found = gray_samples(image, sample_range)
    gray = Image.fromarray(found.samples)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):  # one gray of 65,536; Pillow's own conversion takes it for one of 256
        gray = Image.merge(
            "LA", (gray, Image.fromarray(np.where(np.asarray(image) == transparent, 0, 255).astype(np.uint8)))
        )
    gray.info = {name: value for name, value in image.info.items() if name != "transparency"}
    return _whole(gray, orientation, found.narrow)


def _deep_color(image: Image.Image, orientation: int) -> ReadImage:
    """Return color of 16 bits, of which Pillow has kept the upper eight."""
    colors = image.convert("RGB").getextrema() if image.mode not in ("RGB", "L") else image.getextrema()
    ends = np.array(colors).reshape(-1, 2)
    used = int(ends[:, 1].max() - ends[:, 0].min())
    return _whole(image, orientation, 0 < used < NARROW * 255)


def _read_png(data: bytes, image: ImageFile.ImageFile, sample_range: SampleRange) -> ReadImage:
    deep = data[24] == 16 and not image.mode.startswith("I")
    read = _read_plain(data, image, sample_range)
    if deep and sample_range in _RELATIVE and "transparency" not in image.info:
        read = _deep_color(read.image, read.orientation)
    elif deep:  # of a transparent color Pillow compares the upper eight bits with all sixteen
        found = _from_array(_decoded_by_opencv(data), sample_range, image.info)
        if "transparency" in image.info and found.image.mode == "RGB":
            found.image.putalpha(image.convert("RGBA").getchannel("A"))
        read = dataclasses.replace(found, orientation=read.orientation)
    # The precedence of PNG, third edition, 4.3: cICP, iCCP, sRGB, cHRM and gAMA.
    info = read.image.info
    if cicp := _cicp_of_png(data):
        info["icc_profile"] = profile_of_cicp(cicp[0], cicp[1], full_range=bool(cicp[3]))
    elif not info.get("icc_profile") and "srgb" not in info:
        info["icc_profile"] = profile_of_gamma(info.get("gamma"), info.get("chromaticity"))
    return read


def _cicp_of_png(data: bytes) -> bytes | None:
    """Return the four bytes of a PNG's cICP chunk, or None if there is none that says which color is meant."""
    for kind, begin, _ in itertools.takewhile(lambda chunk: chunk[0] != b"IDAT", png_chunks(data)):
        if kind == b"cICP" and begin + 4 <= len(data):
            content = data[begin : begin + 4]
            return content if is_known(content[0], content[1]) and content[2] == 0 else None
    return None


def _read_tiff(data: bytes, image: ImageFile.ImageFile, sample_range: SampleRange) -> ReadImage:
    bits = getattr(image, "tag_v2", {}).get(258, (1,))[0]
    read = _read_plain(data, image, sample_range)
    if bits <= 8 or read.image is not image:
        return read
    if sample_range in _RELATIVE:
        return _deep_color(image, read.orientation)
    found = tiff.read_with_tifffile(data, sample_range, max(MAX_PIXELS, image.width * image.height))
    if found is None:
        why = f"--range for color of {bits} bits in a TIFF needs tifffile: {tiff.EXTRA}"
        raise Refusal(Reason.UNSUPPORTED, why)
    return _whole(found[0], orientation_of(found[0]), found[1])


def _read_gif(data: bytes, image: ImageFile.ImageFile, sample_range: SampleRange) -> ReadImage:
    """The canvas beside the first frame is transparent, as browsers show it; Pillow gives it the first color."""
    whole = (0, 0, *image.size)
    frame = (image.tile[0][1] if image.tile else None) or whole
    read = _read_plain(data, image, sample_range)
    if tuple(frame) != whole and "transparency" not in image.info:
        alpha = Image.new("L", image.size, 0)
        alpha.paste(255, frame)
        canvas = image.convert("RGB")
        canvas.putalpha(alpha)
        read.image = canvas
    return read


def _read_heif(data: bytes, image: ImageFile.ImageFile, sample_range: SampleRange) -> ReadImage:
    """Apply what Pillow leaves out of AVIF; pillow-heif applies all but the color."""
    size = image.size
    read = _read_plain(data, image, sample_range)
    shown = shown_as(data, size)
    if shown.cicp is not None and not image.info.get("icc_profile"):
        read.image.info["icc_profile"] = profile_of_cicp(shown.cicp[0], shown.cicp[1])
    if image.format != "AVIF":
        read.orientation = 1
        return read
    if shown.crop is not None:
        info = read.image.info
        read = _whole(read.image.crop(shown.crop), 1)
        read.image.info = info
    read.orientation = shown.orientation
    return read


def _read_ppm(data: bytes, image: ImageFile.ImageFile, sample_range: SampleRange) -> ReadImage:
    """Pillow scales gray of more than eight bits to 0..65535."""
    decoder, _, _, args = image.tile[0]  # args: the mode and the highest value, but for "raw"
    most = int(args[1]) if decoder != "raw" and image.mode == "I" and isinstance(args, tuple) else 65535
    return _read_plain(data, image, stretched(sample_range, 65535 / most))


def _read_jp2(data: bytes, image: ImageFile.ImageFile, sample_range: SampleRange) -> ReadImage:
    """Pillow shifts gray of more than eight bits, and fewer than 16, to the upper ones, and signed gray to 0 and up."""
    bits, signed = jpeg2000_samples(data)
    shift = 2.0 ** (bits - 1) if signed else 0.0
    read = _read_plain(data, image, stretched(sample_range, 2.0 ** (16 - bits), shift))
    if profile := jp2_profile(data):
        read.image.info["icc_profile"] = profile
    return read


def _read_jxl(data: bytes, image: ImageFile.ImageFile, sample_range: SampleRange) -> ReadImage:
    """Libjxl applies the orientation; its plugin does not to a JPEG in a JPEG XL, whose own decoder it uses.

    Libjxl scales gray of more than eight bits to 0..65535.
    """
    read = _read_plain(data, image, stretched(sample_range, 65535 / (2 ** jxl_bits(data) - 1)))
    if not getattr(image, "jpeg", False):
        read.orientation = 1
    return read


_READERS: dict[str, Callable[[bytes, ImageFile.ImageFile, SampleRange], ReadImage]] = {
    "PNG": _read_png,
    "TIFF": _read_tiff,
    "GIF": _read_gif,
    "AVIF": _read_heif,
    "HEIF": _read_heif,
    "JPEG2000": _read_jp2,
    "PPM": _read_ppm,
    "JXL": _read_jxl,
}


def _reduced(read: ReadImage) -> ReadImage:
    """Return a very large image at a fraction of its size, made in bands, so that all of it is in memory only as its
    decoder gives it: with one byte per pixel if it is gray, black and white, or has a palette.
    """
    image = read.image
    width, height = image.size
    by = math.ceil(math.sqrt(width * height / (MAX_PIXELS // 4)))
    transparent = "transparency" in image.info or image.mode == "PA"
    mode = "RGBA" if transparent else {"1": "L", "P": "RGB"}.get(image.mode, image.mode)
    small = Image.new(mode, (-(-width // by), -(-height // by)))
    rows = max(1, _BAND_PIXELS // width // by)
    for top in range(0, small.height, rows):
        band = image.crop((0, top * by, width, min((top + rows) * by, height)))
        small.paste((band if band.mode == mode else band.convert(mode)).reduce(by), (0, top))
    small.info = {name: value for name, value in image.info.items() if name != "transparency"}
    small.format = image.format
    return dataclasses.replace(read, image=small, box=(0, 0, width / by, height / by))


def _second_decoder(data: bytes, sample_range: SampleRange, max_pixels: int) -> ReadImage | None:
    """Return what another decoder makes of a file that Pillow failed on, or None if there is none or it fails, too."""
    try:
        if (header := plain_jpeg(data)) and header.width * header.height <= max_pixels:  # Pillow cannot open it
            pixels = _decoded_by_simplejpeg(data)
            return None if pixels is None else _whole(pixels, header.orientation)
        found = tiff.read_with_tifffile(data, sample_range, max_pixels) if data.startswith(tiff.MAGIC) else None
        return None if found is None else _whole(found[0], orientation_of(found[0]), found[1])
    except (MemoryError, Refusal):
        raise
    except Exception:  # what Pillow said about the file is better known
        return None


def _decoded_by_simplejpeg(data: bytes) -> Image.Image | None:
    try:
        colors = simplejpeg.decode_jpeg_header(data, strict=True)[2]
        if colors not in ("Gray", "YCbCr", "RGB"):
            return None
        pixels = simplejpeg.decode_jpeg(data, "GRAY" if colors == "Gray" else "RGB", strict=True)
    except ValueError:
        return None
    return Image.fromarray(pixels[..., 0] if colors == "Gray" else pixels)


def _decoded_by_opencv(data: bytes) -> np.ndarray:
    """Return the samples of a PNG, uint16 `[h, w, 3 or 4]`, RGB."""
    import cv2  # only for this, and it takes 0.1 s

    values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.ndim != 3 or values.dtype != np.uint16:
        raise struct.error("OpenCV does not read this PNG")
    order = [2, 1, 0, 3][: values.shape[-1]]
    return values[..., order]


def _from_array(values: np.ndarray, sample_range: SampleRange, info: dict) -> ReadImage:
    """Return color of 16 bits, uint16 `[h, w, 3 or 4]`; the range is not that of alpha."""
    found = eight_bits(values[..., :3], sample_range)
    samples = found.samples
    if values.shape[-1] == 4:
        samples = np.concatenate([samples, eight_bits(values[..., 3:], FULL).samples], axis=-1)
    image = Image.fromarray(samples)
    image.info = {name: value for name, value in info.items() if name != "transparency"}
    return _whole(image, 1, found.narrow)
