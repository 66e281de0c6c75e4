"""Decodes the bytes of an image file to resized pixels: upright, sRGB, uint8. Each refusal has one reason.

The same bytes give the same pixels in any process, for the same `ImageOptions` and `decoder_versions()`.
"""

from __future__ import annotations

import dataclasses
import functools
import io
from typing import Any

import numpy as np
from PIL import Image, ImageColor, features

from tfrecords.base_errors import UsageError
from tfrecords.convert.image.color import (
    CHECKER,
    WHITE,
    Background,
    contrasting,
    gray_of,
    is_transparent,
    to_rgb,
    to_rgba,
)
from tfrecords.convert.image.decoded_once import once, once_of
from tfrecords.convert.image.fitting import TRANSPOSE, fitted, least_reduced_by, reduced_by
from tfrecords.convert.image.image_formats import MAX_PIXELS, reading
from tfrecords.convert.image.image_reader import ReadImage, orientation_of, read_image
from tfrecords.convert.image.jpeg import decode_reduced, plain_jpeg, reduction
from tfrecords.convert.image.own_shape import own_size, stays_as_it_is
from tfrecords.convert.image.sample_range import AUTO, SampleRange, parse_range
from tfrecords.format.image_size import CENTER_SHARE, COLORS, ImageSize, width_height
from tfrecords.format.record_layout import OWN_SHAPES
from tfrecords.installed_versions import installed_version

PIXELS = 2
"""The number of what makes pixels here, to be raised when the same bytes and options give other pixels."""

DECODES = ("fast", "exact")
TRUNCATED = ("refuse", "keep")
RESIZES = ("stretch", "crop", "pad")
CENTER = "center"
"""How evaluation sees images of their own shapes, see `simimg.input.crops`: `crop` of their middle, 7/8 of it."""
BACKDROPS = ("color", "auto", CHECKER)

_EXTRAS = ("pillow_jxl_plugin", "tifffile", "imagecodecs")

_KEPT_PIXELS = 1 << 25  # of an image whose colors are kept beside what was read: 100 MB

# Levels between the lowest and the highest value of each channel, at most, of an image that shows nothing.
_PLAIN = 8


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ImageOptions:
    """How images are loaded.

    Attributes:
        image_size: px, the side of the resulting square, or its width and height.
        resize: `stretch` changes the aspect ratio, `crop` keeps the center, `pad` adds background. `center` keeps 7/8
            of the center. Images keep their shapes with `short` and `longest`, which reduce that side to `image_size`,
            and with `none`.
        decode: `fast` lets the JPEG decoder reduce the image, `exact` resizes all of its pixels.
        truncated: `refuse` to reject a truncated file, or `keep` the part that is there, with the rest gray or black.
        background: RGB, the color behind transparent pixels and beside a padded image.
        backdrop: what is behind transparent pixels: `color`, which is `background`; `auto`, which is that or, if an
            image shows nothing on it, the contrasting color; or `checker`, squares in two grays.
        sample_range: which values of deep samples become black and white, see `eight_bits`.
        max_pixels: larger images are rejected, unless they are JPEGs that the decoder can reduce to this size.
        channels: 3 for RGB; 1 for the luma of that, see `gray_of`; 4 for RGBA, without anything behind it. Beside a
            padded RGBA image, `background` is transparent.
        vector_code: whether other images than JPEGs are resized by vector code, too, which takes a sixth of the time
            and changes a value by 0.05 on average.
        decoded_px: the side of the square for which an image is reduced first, so that this serves several sizes (see
            `decoded_once`): by a JPEG's decoder, in other formats by means of pixels. None: a JPEG's decoder reduces it
            for `image_size` and `resize`, and other formats are not reduced.
    """

    image_size: ImageSize
    resize: str = "stretch"
    decode: str = "fast"
    truncated: str = "refuse"
    background: tuple[int, int, int] = WHITE
    backdrop: str = "color"
    sample_range: SampleRange = AUTO
    max_pixels: int = MAX_PIXELS
    channels: int = 3
    vector_code: bool = False
    decoded_px: int | None = None

    @property
    def center_share(self) -> float | None:
        """How much of the largest part with the shape of the result is kept; None if the whole image is."""
        return {"crop": 1.0, CENTER: CENTER_SHARE}.get(self.resize)

    def __post_init__(self) -> None:
        if min(width_height(self.image_size)) < 1 and self.resize != "none":
            raise ValueError(f"`image_size` should be at least 1 px. Received: image_size={self.image_size}")
        resizes = (*RESIZES, CENTER, *OWN_SHAPES)
        choices = (("resize", resizes), ("decode", DECODES), ("truncated", TRUNCATED), ("backdrop", BACKDROPS))
        for name, values in choices:
            if getattr(self, name) not in values:
                raise ValueError(f"`{name}` should be one of {values}. Received: {name}={getattr(self, name)!r}")
        if self.channels not in COLORS:
            raise ValueError(f"`channels` should be one of {tuple(COLORS)}. Received: channels={self.channels}")
        if len(self.background) != 3 or not all(0 <= level <= 255 for level in self.background):
            raise ValueError(f"`background` should be three values in 0..255. Received: background={self.background}")


@dataclasses.dataclass(frozen=True, slots=True)
class DecodedImage:
    """An image as it is stored, uint8 `[height, width, channels]` and C-contiguous, and its upright size before, px.

    Of an image that keeps its shape, `jpeg` is the file, if that can be stored as it is.

    `contrast` is the same on the contrasting background, if the image has transparent pixels and that was requested.
    `narrow` says that its samples are deep and use so little of the range that it is dark or flat, see `eight_bits`.
    """

    pixels: np.ndarray
    width: int
    height: int
    contrast: np.ndarray | None = None
    narrow: bool = False
    jpeg: bytes | None = None

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
    """Return the image in the bytes of a file, upright, in sRGB, in the size and channels that are wanted.

    A transparent one is also laid on the contrasting background if `contrast` says so, or if it shows nothing else.

    Raises:
        Refusal: the bytes are not an image, or not all of one.
        MemoryError: decoding needs more memory than there is.
    """
    found = _load_colors(data, options, contrast)
    if options.channels != 1:
        return found
    other = None if found.contrast is None else gray_of(found.contrast)
    return dataclasses.replace(found, pixels=gray_of(found.pixels), contrast=other)


def _load_colors(data: bytes, options: ImageOptions, contrast: bool) -> DecodedImage:
    """Return the image in RGB, or RGBA; its `jpeg` is for the channels that are wanted."""
    header = plain_jpeg(data)
    if header and header.width * header.height <= options.max_pixels:
        size = (header.width, header.height)
        stays = options.resize in OWN_SHAPES and own_size(size, options.image_size, options.resize) == size
        if options.decode == "fast" or stays:
            by = reduced_by(*size, header.orientation, options)
            reduced = once(data, ("reduced", by), lambda: decode_reduced(data, header, by))
            if reduced:
                found = DecodedImage(*fitted(*reduced, size, header.orientation, options))
                stays = stays and (options.channels != 1 or header.components == 1) and stays_as_it_is(data, header)
                return dataclasses.replace(found, jpeg=data) if stays else found
    read = read_image(
        data,
        keep_truncated=options.truncated == "keep",
        sample_range=options.sample_range,
        max_pixels=options.max_pixels,
        reduction=lambda width, height: least_reduced_by(width, height, options),
    )
    with reading(data):  # of colors, whose profiles come from the file
        background = CHECKER if options.backdrop == CHECKER else options.background
        found = _laid_out(data, read, background, options)
        transparent = options.channels != 4 and _is_transparent(data, read)
        if transparent and (contrast or shows_nothing(found.pixels)):
            other = dataclasses.replace(options, background=contrasting(options.background))
            laid = _laid_out(data, read, other.background, other)
            found = dataclasses.replace(found, contrast=laid.pixels)
            if options.backdrop == "auto" and found.vanishes:
                found = dataclasses.replace(found, pixels=laid.pixels, contrast=found.pixels if contrast else None)
        return found


def shows_nothing(pixels: np.ndarray) -> bool:
    """Return whether an image, uint8 `[h, w, channels]`, has one color, but for what compression changes."""
    return int(np.ptp(pixels, axis=(0, 1)).max()) <= _PLAIN


def decode(
    data: bytes,
    *,
    background: tuple[int, int, int] = WHITE,
    truncated: str = "refuse",
    max_pixels: int = MAX_PIXELS,
) -> Image.Image:
    """Return the whole image in `data`, see `upright`. An animation gives its first frame.

    An image of more than `image_formats.MAX_PIXELS` comes at a fraction of its size. The arguments are those of
    `ImageOptions`.

    Raises:
        Refusal: the bytes are not an image, or not all of one.
    """
    read = read_image(data, keep_truncated=truncated == "keep", max_pixels=max_pixels)
    with reading(data):
        return _turned(to_rgb(read.image, background), read.orientation)


def decode_visible(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Return an image for display: what is there of it, on white, or on black if it shows nothing on white."""
    return visible_composite(*decode_composites(data, truncated="keep", max_pixels=max_pixels))


def visible_composite(image: Image.Image, contrast: Image.Image | None) -> Image.Image:
    """Return that one of two composites that shows something; the first one if both or none do."""
    return contrast if contrast is not None and shows_nothing(np.asarray(image)) else image


def decode_composites(
    data: bytes,
    *,
    background: tuple[int, int, int] = WHITE,
    truncated: str = "refuse",
    sample_range: SampleRange = AUTO,
    max_pixels: int = MAX_PIXELS,
    least_px: int = 0,
) -> tuple[Image.Image, Image.Image | None]:
    """Return the same as `decode`, and the image on the contrasting background; None if it is opaque.

    With `least_px`, a JPEG may come at 1/8, 1/4 or 1/2 of its size, with at least so many pixels along its longer side:
    its decoder reduces it in less time than it takes in full. The other arguments are those of `ImageOptions`.
    """

    def reduced(width: int, height: int) -> int:
        by = reduction(max(width, height), least_px) if least_px else 1
        return by if width % by == height % by == 0 else 1  # or else the last pixels are only partly image

    keep = truncated == "keep"
    read = read_image(data, keep_truncated=keep, sample_range=sample_range, max_pixels=max_pixels, reduction=reduced)
    with reading(data):
        colors = [background, contrasting(background)] if _is_transparent(data, read) else [background]
        image, *contrast = (_turned(_colors(data, read, color), read.orientation) for color in colors)
        return image, contrast[0] if contrast else None


def upright_composites(
    image: Image.Image, background: tuple[int, int, int] = WHITE
) -> tuple[Image.Image, Image.Image | None]:
    """Return the same as `upright`, and the image on the contrasting background; None if it is opaque."""
    return upright(image, background), upright(image, contrasting(background)) if is_transparent(image) else None


def upright(image: Image.Image, background: tuple[int, int, int] = WHITE) -> Image.Image:
    """Return a loaded image upright (EXIF orientation applied), in sRGB, mode RGB; see `to_rgb` for other modes."""
    return _turned(to_rgb(image, background), orientation_of(image))


def _turned(image: Image.Image, orientation: int) -> Image.Image:
    method = TRANSPOSE.get(orientation)
    return image if method is None else image.transpose(method)


def resize(
    image: Image.Image,
    image_size: ImageSize,
    how: str,
    *,
    background: tuple[int, int, int] = WHITE,
    vector_code: bool = False,
) -> np.ndarray:
    """Return `image` resized to a square, uint8 `[image_size, image_size, 3]`, or to a width and a height.

    The filter is Pillow's bicubic, which widens with the reduction and therefore does not alias.

    Args:
        image: mode RGB.
        image_size: px, see `ImageOptions`.
        how: `stretch` changes the aspect ratio, `crop` keeps the center, `pad` adds `background`.
        background: RGB.
        vector_code: see `ImageOptions`.
    """
    if how not in (*RESIZES, CENTER):
        raise ValueError(f"`how` should be one of {RESIZES}. Received: how={how!r}")
    options = ImageOptions(image_size=image_size, resize=how, background=background, vector_code=vector_code)
    return fitted(image, (0, 0, *image.size), image.size, 1, options)[0]


def encode(pixels: np.ndarray, encoding: str, jpeg_quality: int) -> bytes:
    """Return `pixels`, uint8 `[h, w, channels]`, as bytes: `raw` (row by row), as `jpeg` or as `png`.

    `jpeg_quality` is 1..100, on libjpeg's scale.
    """
    if encoding == "raw":
        return pixels.tobytes()
    buffer = io.BytesIO()
    pixels = pixels if pixels.shape[2] > 1 else pixels[:, :, 0]
    if encoding == "jpeg":
        Image.fromarray(pixels).save(buffer, "JPEG", quality=jpeg_quality)
    elif encoding == "png":
        Image.fromarray(pixels).save(buffer, "PNG")
    else:
        raise ValueError(f"`encoding` should be raw, jpeg or png. Received: encoding={encoding!r}")
    return buffer.getvalue()


def parse_backdrop(text: str) -> str:
    """Return which of `BACKDROPS` a value of `--background` is."""
    return text.strip() if text.strip() in BACKDROPS[1:] else BACKDROPS[0]


def parse_background(text: str) -> tuple[int, int, int]:
    """Return the RGB value of `white`, `#RRGGBB` or any other color name or notation that Pillow knows; white for the
    other backdrops, which begin with it; raise UsageError for the rest.
    """
    if parse_backdrop(text) != BACKDROPS[0]:
        return WHITE
    try:
        color = ImageColor.getrgb(text.strip())
    except (ValueError, AttributeError):
        raise UsageError(
            f"--background={text}: should be a color such as white or #RRGGBB. The words auto and checker are "
            "possible, too."
        ) from None
    if len(color) != 3:
        raise UsageError(f"--background={text}: should be a color without transparency, e.g. #RRGGBB.")
    return color


def image_options(settings: Any) -> ImageOptions:
    """Return how images are loaded, as the options of a conversion or the description of a run say in words."""
    return ImageOptions(
        image_size=settings.image_size,
        resize=settings.resize,
        decode=settings.decode,
        truncated=settings.truncated,
        background=parse_background(settings.background),
        backdrop=parse_backdrop(settings.background),
        sample_range=parse_range(settings.range),
        max_pixels=settings.max_pixels,
        channels=settings.channels,
    )


@functools.cache  # 2 ms
def decoder_versions() -> dict[str, str]:
    """Return the versions, by name, of everything that can change a pixel; `none` for what is not installed."""
    names = ("pillow", "simplejpeg", "cykooz-resizer")
    versions = {name: installed_version(name) or "none" for name in names}
    for name in ("libjpeg_turbo", "libtiff", "jpg_2000", "webp", "avif", "littlecms2"):
        versions[name] = (features.version(name) if name in features.get_supported() else None) or "none"
    versions["pillow_heif"] = installed_version("pillow-heif") or "none"
    # Without the others a dataset has the versions that it always had.
    return versions | {name: found for name in _EXTRAS if (found := installed_version(name)) is not None}


def _colors(data: bytes, read: ReadImage, background: Background, by: int = 1) -> Image.Image:
    """Return what was read of a file on a background, sRGB, mode RGB, reduced by means of pixels. Not to be changed."""
    if by > 1:
        return once_of(data, read, (background, by), lambda: _colors(data, read, background).reduce(by))
    if read.image.width * read.image.height > _KEPT_PIXELS:
        return to_rgb(read.image, background)
    return once_of(data, read, background, lambda: to_rgb(read.image, background))


def _is_transparent(data: bytes, read: ReadImage) -> bool:
    return once_of(data, read, "is transparent", lambda: is_transparent(read.image))


def _laid_out(data: bytes, read: ReadImage, background: Background, options: ImageOptions) -> DecodedImage:
    box = read.box
    if options.channels == 4:
        image = to_rgba(read.image)
    elif options.decoded_px is None or read.image.size != read.size:
        image = _colors(data, read, background)
    else:
        by = reduced_by(*read.size, read.orientation, options)
        image, box = _colors(data, read, background, by), (0, 0, read.size[0] / by, read.size[1] / by)
    return DecodedImage(*fitted(image, box, read.size, read.orientation, options), narrow=read.narrow)
