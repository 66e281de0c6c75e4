"""Converts any mode of Pillow to RGB: color profiles to sRGB, deep samples to 8 bits, transparency to a background."""

from __future__ import annotations

import functools
import io

import numpy as np
from PIL import Image, ImageChops, ImageCms

from tfrecords.convert.image.sample_range import AUTO, gray_samples
from tfrecords.format.image_size import luma

# Default color behind transparent pixels and beside a padded image.
WHITE = (255, 255, 255)
BLACK = (0, 0, 0)

CHECKER = "checker"
"""The background of squares in two grays, on which neither white nor black images vanish."""
Background = tuple[int, int, int] | str
_CHECKERS, _CHECKER_GRAYS = 8, (192, 64)  # squares along the longer side

# The least alpha that counts as opaque: some programs write 254 everywhere, and lossy formats are off by a few.
_OPAQUE = 250

# A profile that changes no color by more than this many levels of 255 counts as sRGB, whatever its name: the versions
# of the sRGB profile that cameras, phones and programs embed differ by rounding.
_SRGB_LEVELS = 2

_MAX_PROFILE_BYTES = 8 << 20  # profiles of printing presses have up to 3 MB
_BAND_PIXELS = 1 << 22  # 16 MB of RGBA
_MODES = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}
_ALPHA = frozenset(("RGBA", "LA", "PA", "RGBa"))  # whose last band is alpha


def to_rgb(image: Image.Image, background: Background = WHITE) -> Image.Image:
    """Return a loaded image in mode RGB; `image` itself if nothing has to be done.

    Samples of more than eight bits are those of `eight_bits` with the range `auto`. An embedded color profile is
    applied, unless it cannot be used. CMYK without a profile is 255 - ink - black.
    """
    profile = image.info.get("icc_profile")
    profile = profile if isinstance(profile, bytes) and profile else None
    if image.mode == "RGB" and "transparency" not in image.info:
        return _to_srgb(image, profile)
    if image.mode.startswith("I") or image.mode == "F":
        colors = _to_srgb(Image.fromarray(gray_samples(image, AUTO).samples), profile)
        transparent = image.info.get("transparency")
        if isinstance(transparent, int):  # one gray of 65,536; Pillow's own conversion takes it for one of 256
            paper = _paper(background, image.size, (0, 0, *image.size))
            colors.paste(paper, mask=Image.fromarray(np.asarray(image) == transparent))
        return colors
    if image.mode in _ALPHA or "transparency" in image.info:
        return _laid_on(background, image, profile)
    if image.mode == "CMYK" and image.format in ("JPEG", "MPO") and "adobe" not in image.info:
        # Adobe's programs store reflected light and mark it with their own segment; others store ink, as in the
        # standard. Pillow treats every file like one of Adobe's.
        return _to_srgb(ImageChops.invert(image), profile)
    if image.mode in ("L", "CMYK"):
        return _to_srgb(image, profile)
    return _to_srgb(image.convert("RGB"), profile if image.mode in ("P", "RGBX") else None)


def to_rgba(image: Image.Image) -> Image.Image:
    """Return a loaded image in mode RGBA: the colors of `to_rgb` under transparent pixels, too, and its alpha."""
    profile = image.info.get("icc_profile")
    profile = profile if isinstance(profile, bytes) and profile else None
    if image.mode[0] not in "IF" and (image.mode in _ALPHA or "transparency" in image.info):
        return _laid_on(None, image, profile)
    transparent = image.info.get("transparency")
    if image.mode.startswith("I") and isinstance(transparent, int):
        there = np.asarray(image) != transparent
        gray = np.asarray(_to_srgb(Image.fromarray(gray_samples(image, AUTO).samples), profile))
        return Image.fromarray(np.dstack([gray, there.astype(np.uint8) * 255]))
    return to_rgb(image).convert("RGBA")


def gray_of(rgb: np.ndarray) -> np.ndarray:
    """Return the gray levels of images, uint8 `[..., h, w, 3]`: uint8 `[..., h, w, 1]`, see `luma`."""
    levels: np.ndarray = luma(rgb.astype(np.int32), np.int32)
    return levels.astype(np.uint8)


def rgb_of(pixels: np.ndarray) -> np.ndarray:
    """Return images, uint8 `[..., h, w, channels]`, for the eye, uint8 `[..., h, w, 3]`: RGBA is laid on white."""
    if pixels.shape[-1] == 3:
        return pixels
    if pixels.shape[-1] == 1:
        return pixels.repeat(3, axis=-1)
    alpha = pixels[..., 3:].astype(np.uint32)
    return ((pixels[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def is_transparent(image: Image.Image, opaque: int = _OPAQUE) -> bool:
    """Return whether a loaded image has transparent pixels, whatever its mode: below a level of alpha."""
    transparent = image.info.get("transparency")
    if image.mode.startswith("I"):  # see `to_rgb`
        return isinstance(transparent, int) and bool((np.asarray(image) == transparent).any())
    if image.mode in _ALPHA:
        alpha = image.getchannel(image.getbands()[-1])
    elif transparent is not None:
        alpha = image.convert("RGBA").getchannel("A")
    else:
        return False
    return int(alpha.getextrema()[0]) < opaque  # type: ignore[arg-type]


def contrasting(background: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return the other background on which a transparent image is looked at: black, or white if this one is dark."""
    red, green, blue = background
    return BLACK if 0.299 * red + 0.587 * green + 0.114 * blue >= 128 else WHITE


def color_name(color: tuple[int, int, int]) -> str:
    """Return `white`, `black` or #RRGGBB, as `--background` takes it."""
    return {WHITE: "white", BLACK: "black"}.get(color) or "#" + bytes(color).hex()


def is_srgb(profile: bytes, mode: str) -> bool:
    """Return whether images of this mode (`RGB`, `L`, `CMYK`) with this profile are already sRGB.

    That is also the case if the profile is ignored because it is broken or made for another kind of image.
    """
    return _transform(profile, _mode_for(profile, mode)) is None


def _mode_for(profile: bytes, mode: str) -> str:
    """Return RGB for a gray image with an RGB profile, whose curve applies to its grays."""
    return "RGB" if mode == "L" and _space(profile) == "RGB " else mode


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Return an image of mode RGB, L or CMYK in sRGB, mode RGB."""
    if profile is not None:
        mode = _mode_for(profile, image.mode)
        if (transform := _transform(profile, mode)) is not None:
            return transform.apply(image if image.mode == mode else image.convert(mode))
    return image if image.mode == "RGB" else image.convert("RGB")


# A folder has few different profiles, each in many files. Eight limit the memory even if every file has another one.
@functools.lru_cache(maxsize=8)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Return the transform from `profile` to sRGB, or None if it changes nothing or the profile cannot be used."""
    if _MODES.get(_space(profile)) != mode or len(profile) > _MAX_PROFILE_BYTES:
        return None
    try:
        transform = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        return None if mode != "CMYK" and _changes_nothing(transform, mode) else transform
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None


def _changes_nothing(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    levels = np.linspace(0, 255, 18, dtype=np.uint8)
    if mode == "L":
        colors = np.arange(256, dtype=np.uint8)[None]
        expected = colors[..., None].repeat(3, axis=2)
    else:
        colors = expected = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(18, -1, 3)
    found = np.asarray(transform.apply(Image.fromarray(colors)))
    return bool(np.abs(found.astype(int) - expected).max() <= _SRGB_LEVELS)


def _space(profile: bytes) -> str:
    """Return the color space of a profile, as in the ICC specification: `RGB `, `GRAY`, `CMYK`."""
    return profile[16:20].decode("latin-1")


def _laid_on(background: Background | None, image: Image.Image, profile: bytes | None) -> Image.Image:
    """Return an image with transparency on a background, or as RGBA without one. It is made in bands: a whole one would
    be in memory four times.
    """
    # Gray stays gray until its profile, if any, was applied.
    colors = "L" if image.mode in ("LA", "L", "1") and profile is not None else "RGB"
    width, height = image.size
    laid = Image.new("RGB" if background is not None else "RGBA", image.size)
    rows = max(1, _BAND_PIXELS // width)
    for top in range(0, height, rows):
        box = (0, top, width, min(top + rows, height))
        band = image.crop(box).convert("RGBA")
        alpha, band = band.getchannel("A"), _to_srgb(band.convert(colors), profile)
        if background is None:
            band.putalpha(alpha)
            laid.paste(band, box)
            continue
        paper = _paper(background, image.size, box)
        paper.paste(band, (0, 0), alpha)
        laid.paste(paper, box)
    return laid


def _paper(background: Background, size: tuple[int, int], box: tuple[int, int, int, int]) -> Image.Image:
    """Return the part `box` of what is behind an image of this size."""
    left, top, right, bottom = box
    if background != CHECKER:
        return Image.new("RGB", (right - left, bottom - top), background)
    side = max(1, round(max(size) / _CHECKERS))
    across, down = np.arange(left, right) // side, np.arange(top, bottom) // side
    levels = np.array(_CHECKER_GRAYS, np.uint8)[(across + down[:, None]) % 2]
    return Image.fromarray(levels).convert("RGB")
