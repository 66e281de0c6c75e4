"""Decodes the bytes of an image file to resized pixels: upright, sRGB, uint8. Each refusal has one reason.

The same bytes give the same pixels in any process, for the same `ImageOptions` and `decoder_versions()`.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import math

import numpy as np
from PIL import Image, ImageColor, ImageFile, features

from tfrecords.base_errors import UsageError
from tfrecords.convert.image.color import WHITE, contrasting, is_transparent, to_rgb
from tfrecords.convert.image.image_formats import MAX_PIXELS, open_image, reading
from tfrecords.convert.image.jpeg import MARGIN, ORIENTATION, decode_reduced, plain_jpeg, reduction, resize_pixels
from tfrecords.installed_versions import installed_version

PIXELS = 1
"""The number of what makes pixels here, to be raised when the same bytes and options give other pixels."""

DECODES = ("fast", "exact")
TRUNCATED = ("refuse", "keep")
RESIZES = ("stretch", "crop", "pad")

_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

Box = tuple[float, float, float, float]

# Levels between the lowest and the highest value of each channel, at most, of an image that shows nothing.
_PLAIN = 8


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ImageOptions:
    """How images are loaded.

    Attributes:
        image_size: px, the side of the resulting square.
        resize: `stretch` changes the aspect ratio, `crop` keeps the center, `pad` adds background.
        decode: `fast` lets the JPEG decoder reduce the image, `exact` resizes all of its pixels.
        truncated: `refuse` to reject a truncated file, or `keep` the part that is there, with the rest gray or black.
        background: RGB, the color behind transparent pixels and beside a padded image.
    """

    image_size: int
    resize: str = "stretch"
    decode: str = "fast"
    truncated: str = "refuse"
    background: tuple[int, int, int] = WHITE

    def __post_init__(self) -> None:
        if self.image_size < 1:
            raise ValueError(f"`image_size` should be at least 1 px. Received: image_size={self.image_size}")
        for name, values in (("resize", RESIZES), ("decode", DECODES), ("truncated", TRUNCATED)):
            if getattr(self, name) not in values:
                raise ValueError(f"`{name}` should be one of {values}. Received: {name}={getattr(self, name)!r}")
        if len(self.background) != 3 or not all(0 <= level <= 255 for level in self.background):
            raise ValueError(f"`background` should be three values in 0..255. Received: background={self.background}")


@dataclasses.dataclass(frozen=True, slots=True)
class DecodedImage:
    """An image as it is stored, uint8 `[image_size, image_size, 3]` and C-contiguous, and its upright size before that,
    px.

    `contrast` is the same on the contrasting background, if the image has transparent pixels and that was requested.
    """

    pixels: np.ndarray
    width: int
    height: int
    contrast: np.ndarray | None = None

    @property
    def vanishes(self) -> bool:
        """Whether the image shows nothing on the background, but does on the contrasting one: white logos on white."""
        return self.visible is not self.pixels

    @property
    def visible(self) -> np.ndarray:
        """The pixels, or those of `contrast` if only they show something."""
        if self.contrast is None or not shows_nothing(self.pixels) or shows_nothing(self.contrast):
            return self.pixels
        return self.contrast


def load_image(data: bytes, options: ImageOptions, *, contrast: bool = False) -> DecodedImage:
    """Return the image in the bytes of a file, upright, in sRGB, as a square.

    A transparent one is also laid on the contrasting background if `contrast` says so, or if it shows nothing else.

    Raises:
        Refusal: the bytes are not an image, or not all of one.
        MemoryError: decoding needs more memory than there is.
    """
    if options.decode == "fast" and (header := plain_jpeg(data)) and header.width * header.height <= MAX_PIXELS:
        reduced = decode_reduced(data, header, _needed(options), by_longer_side=options.resize == "pad")
        if reduced:
            return _finished(*reduced, (header.width, header.height), header.orientation, options)
    with reading(data, keep_truncated=options.truncated == "keep"):
        image = open_image(data)
        size, box = None, None
        if options.decode == "fast" and image.format in ("JPEG", "MPO"):
            size, box = image.size, _draft(image, options)
        image.load()
        orientation = _orientation(image)
        rgb = to_rgb(image, options.background)
        found = _finished(rgb, box or (0, 0, *rgb.size), size or rgb.size, orientation, options)
        if is_transparent(image) and (contrast or shows_nothing(found.pixels)):
            other = dataclasses.replace(options, background=contrasting(options.background))
            rgb = to_rgb(image, other.background)
            laid = _finished(rgb, (0, 0, *rgb.size), rgb.size, orientation, other)
            found = dataclasses.replace(found, contrast=laid.pixels)
        return found


def shows_nothing(pixels: np.ndarray) -> bool:
    """Return whether an image, uint8 `[h, w, 3]`, has one color, but for what compression changes."""
    return int(np.ptp(pixels, axis=(0, 1)).max()) <= _PLAIN


def decode(data: bytes, *, background: tuple[int, int, int] = WHITE, truncated: str = "refuse") -> Image.Image:
    """Return the whole image in `data`, see `upright`. An animation gives its first frame.

    `background` and `truncated` are those of `ImageOptions`.

    Raises:
        Refusal: the bytes are not an image, or not all of one.
    """
    with reading(data, keep_truncated=truncated == "keep"):
        image = open_image(data)
        image.load()
        return upright(image, background)


def decode_visible(data: bytes) -> Image.Image:
    """Return an image for display: what is there of it, on white, or on black if it shows nothing on white."""
    return visible_composite(*decode_composites(data, truncated="keep"))


def visible_composite(image: Image.Image, contrast: Image.Image | None) -> Image.Image:
    """Return that one of two composites that shows something; the first one if both or none do."""
    return contrast if contrast is not None and shows_nothing(np.asarray(image)) else image


def decode_composites(
    data: bytes, *, background: tuple[int, int, int] = WHITE, truncated: str = "refuse"
) -> tuple[Image.Image, Image.Image | None]:
    """Return the same as `decode`, and the image on the contrasting background; None if it is opaque."""
    with reading(data, keep_truncated=truncated == "keep"):
        image = open_image(data)
        image.load()
        return upright_composites(image, background)


def upright_composites(
    image: Image.Image, background: tuple[int, int, int] = WHITE
) -> tuple[Image.Image, Image.Image | None]:
    """Return the same as `upright`, and the image on the contrasting background; None if it is opaque."""
    contrast = upright(image, contrasting(background)) if is_transparent(image) else None
    return upright(image, background), contrast


def upright(image: Image.Image, background: tuple[int, int, int] = WHITE) -> Image.Image:
    """Return a loaded image upright (EXIF orientation applied), in sRGB, mode RGB; see `to_rgb` for other modes."""
    method = _TRANSPOSE.get(_orientation(image))
    rgb = to_rgb(image, background)
    return rgb if method is None else rgb.transpose(method)


def resize(image: Image.Image, image_size: int, how: str, *, background: tuple[int, int, int] = WHITE) -> np.ndarray:
    """Return `image` resized to a square, uint8 `[image_size, image_size, 3]`.

    The filter is Pillow's bicubic, which widens with the reduction and therefore does not alias.

    Args:
        image: mode RGB.
        image_size: px.
        how: `stretch` changes the aspect ratio, `crop` keeps the center, `pad` adds `background`.
        background: RGB.
    """
    if how not in RESIZES:
        raise ValueError(f"`how` should be one of {RESIZES}. Received: how={how!r}")
    options = ImageOptions(image_size=image_size, resize=how, background=background)
    return _finished(image, (0, 0, *image.size), image.size, 1, options).pixels


def encode(pixels: np.ndarray, encoding: str, jpeg_quality: int) -> bytes:
    """Return `pixels`, uint8 `[h, w, 3]`, as bytes: `raw` (row by row), as `jpeg` or as `png`.

    `jpeg_quality` is 1..100, on libjpeg's scale.
    """
    if encoding == "raw":
        return pixels.tobytes()
    buffer = io.BytesIO()
    if encoding == "jpeg":
        Image.fromarray(pixels).save(buffer, "JPEG", quality=jpeg_quality)
    elif encoding == "png":
        Image.fromarray(pixels).save(buffer, "PNG")
    else:
        raise ValueError(f"`encoding` should be raw, jpeg or png. Received: encoding={encoding!r}")
    return buffer.getvalue()


def parse_background(text: str) -> tuple[int, int, int]:
    """Return the RGB value of `white`, `#RRGGBB` or any other color name or notation that Pillow knows; raise
    UsageError for the rest.
    """
    try:
        color = ImageColor.getrgb(text.strip())
    except (ValueError, AttributeError):
        raise UsageError(f"--background={text}: should be a color such as white or #RRGGBB.") from None
    if len(color) != 3:
        raise UsageError(f"--background={text}: should be a color without transparency, e.g. #RRGGBB.")
    return color


@functools.cache  # 2 ms
def decoder_versions() -> dict[str, str]:
    """Return the versions, by name, of everything that can change a pixel; `none` for what is not installed."""
    names = ("pillow", "simplejpeg", "cykooz-resizer")
    versions = {name: installed_version(name) or "none" for name in names}
    for name in ("libjpeg_turbo", "libtiff", "jpg_2000", "webp", "avif", "littlecms2"):
        versions[name] = (features.version(name) if name in features.get_supported() else None) or "none"
    return {**versions, "pillow_heif": installed_version("pillow-heif") or "none"}


def _needed(options: ImageOptions) -> int:
    return math.ceil(options.image_size * MARGIN)


def _draft(image: ImageFile.ImageFile, options: ImageOptions) -> Box | None:
    """Let Pillow's JPEG decoder reduce the image by 2, 4 or 8; return the part of the result that is image."""
    width, height = image.size
    side = max(width, height) if options.resize == "pad" else min(width, height)
    by = reduction(side, _needed(options))
    drafted = image.draft(None, (max(1, width // by), max(1, height // by)))
    return drafted[1] if drafted else None


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation of a loaded image, 1 if it is damaged. A PNG may have its EXIF after the pixels."""
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except MemoryError:
        raise
    except Exception:  # damaged EXIF does not make the image unusable
        return 1


def _finished(
    image: Image.Image | np.ndarray, box: Box, size: tuple[int, int], orientation: int, options: ImageOptions
) -> DecodedImage:
    """Return the part `box`, (left, top, right, bottom), of `image` as an upright square.

    It is rotated after the resize: a rotated copy of a 24-megapixel image would take 96 MB. `image` is as stored, mode
    RGB, perhaps reduced; or uint8 `[h, w, 1 or 3]`, from the fast decoder. `size` is width and height of the full
    image, as stored, and `orientation` that of its EXIF.
    """
    image_size = options.image_size
    width, height = size
    inner = (image_size, image_size)
    if options.resize == "crop":
        # The center square of the full image, in the coordinates of the reduced one.
        side = min(width, height)
        scale_x, scale_y = (box[2] - box[0]) / width, (box[3] - box[1]) / height
        left, top = (width - side) * 0.5 * scale_x, (height - side) * 0.5 * scale_y
        box = (left, top, left + side * scale_x, top + side * scale_y)
    elif options.resize == "pad":
        # Not ImageOps.pad, which gives the short side of a 1 x 5000 image 0 px: Pillow 12 raises an error.
        longest = max(size)
        inner = (max(1, round(width / longest * image_size)), max(1, round(height / longest * image_size)))
    if isinstance(image, np.ndarray):
        pixels = resize_pixels(image, inner, box)
        # Nearly all images: no detour through Pillow.
        if orientation == 1 and pixels.shape == (image_size, image_size, 3):
            return DecodedImage(pixels, width, height)
        resized = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0])
    else:
        resized = image.resize(inner, Image.Resampling.BICUBIC, box)
    if resized.mode != "RGB":
        resized = resized.convert("RGB")
    if (method := _TRANSPOSE.get(orientation)) is not None:
        resized = resized.transpose(method)
    if orientation >= 5:
        width, height = height, width
    if resized.size != (image_size, image_size):
        paper = Image.new("RGB", (image_size, image_size), options.background)
        paper.paste(resized, tuple(round((image_size - side) * 0.5) for side in resized.size))  # type: ignore[arg-type]
        resized = paper
    return DecodedImage(np.asarray(resized), width, height)
