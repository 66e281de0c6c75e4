"""From the bytes of an image file to resized pixels: upright, RGB, uint8. One reason code a refusal."""

from __future__ import annotations

import functools
import io
import warnings

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from tfrecords.convert.quarantine import Reason, Refusal

__all__ = ["BACKGROUND", "MAX_PIXELS", "RESIZES", "decode", "encode", "resize"]

RESIZES = ("stretch", "crop", "pad")

# What shows through transparent pixels, and beside a padded picture: white paper.
BACKGROUND = (255, 255, 255)

# The largest cameras take 150 megapixels; a header that promises more is taken for a decompression bomb, and decoding
# it would need more than 500 MB.
MAX_PIXELS = 178_956_970

# What the suffixes in `tfrecords.convert.sources` stand for, the frequent first. Pillow knows more, among them formats
# that start other programs: PostScript named .jpg would run Ghostscript.
_FORMATS = "JPEG MPO PNG WEBP GIF BMP TIFF PPM TGA JPEG2000 ICO AVIF HEIF".split()


def decode(data: bytes) -> Image.Image:
    """Returns the picture in `data`, upright (EXIF orientation applied) and in mode RGB.

    Sixteen-bit grey keeps its upper eight bits, floating point in 0..1 is scaled to 0..255, transparency is laid on
    `BACKGROUND`, CMYK is converted by Pillow, an animation gives its first frame.

    Raises:
        Refusal: the bytes are no picture, or not all of one.
    """
    if not data:
        raise Refusal(Reason.EMPTY, "the file has no bytes")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data), formats=_formats())
            if image.width * image.height > MAX_PIXELS:
                raise Refusal(Reason.TOO_LARGE, f"{image.width} x {image.height} is more than {MAX_PIXELS} pixels")
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            return _to_rgb(image)
    except (Refusal, MemoryError):
        raise
    except UnidentifiedImageError:
        raise Refusal(Reason.NOT_AN_IMAGE, f"no picture format; it begins with {data[:12]!r}") from None
    except Image.DecompressionBombError as error:
        raise Refusal(Reason.TOO_LARGE, str(error)) from None
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error and more
        truncated = isinstance(error, EOFError) or "truncated" in str(error).lower()
        reason = Reason.TRUNCATED if truncated else Reason.CORRUPT
        raise Refusal(reason, f"{type(error).__name__}: {error}") from None


def resize(image: Image.Image, image_size: int, how: str) -> np.ndarray:
    """Returns `image` resized to a square, uint8 `[image_size, image_size, 3]`.

    The filter is Pillow's bicubic, which widens with the reduction and so does not alias.

    Args:
        image: mode RGB.
        image_size: px.
        how: `stretch` changes the aspect ratio, `crop` keeps the middle, `pad` adds `BACKGROUND`.
    """
    size = (image_size, image_size)
    if how == "stretch":
        resized = image.resize(size, Image.Resampling.BICUBIC)
    elif how == "crop":
        resized = ImageOps.fit(image, size, Image.Resampling.BICUBIC)
    elif how == "pad":
        resized = _pad(image, image_size)
    else:
        raise ValueError(f"`how` should be one of {RESIZES}. Received: how={how!r}")
    return np.asarray(resized)


def encode(pixels: np.ndarray, encoding: str, jpeg_quality: int) -> bytes:
    """Returns `pixels`, uint8 `[h, w, 3]`, as raw bytes (row by row), as JPEG or as PNG.

    Args:
        pixels: the picture.
        encoding: `raw`, `jpeg` or `png`.
        jpeg_quality: 1..100, on libjpeg's scale.
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


@functools.cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _pad(image: Image.Image, image_size: int) -> Image.Image:
    # ImageOps.pad rounds the short side of a picture of, say, 1 x 5000 to nothing: Pillow 12 raises, 13 leaves it out.
    longest = max(image.size)
    width, height = (max(1, round(side / longest * image_size)) for side in image.size)
    padded = Image.new("RGB", (image_size, image_size), BACKGROUND)
    inner = image.resize((width, height), Image.Resampling.BICUBIC)
    padded.paste(inner, (round((image_size - width) * 0.5), round((image_size - height) * 0.5)))
    return padded


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):
        wide = np.asarray(image).astype(np.int64)
        shift = 8 if image.mode.startswith("I;16") or wide.max() > 255 else 0
        grey = np.clip(wide >> shift, 0, 255).astype(np.uint8)
        grey[wide == image.info.get("transparency", -1)] = 255  # paper; Pillow's own conversion would clip the rest
        return Image.fromarray(grey).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        paper = Image.new("RGBA", image.size, (*BACKGROUND, 255))
        return Image.alpha_composite(paper, image).convert("RGB")
    if image.mode == "F":
        values = np.nan_to_num(np.asarray(image))
        scale = 255.0 if values.min() >= 0 and values.max() <= 1 else 1.0
        return Image.fromarray(np.clip(values * scale + 0.5, 0, 255).astype(np.uint8)).convert("RGB")
    return image.convert("RGB")
