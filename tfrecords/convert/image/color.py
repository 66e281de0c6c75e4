"""Any mode of Pillow to RGB: colour profiles to sRGB, deep samples to eight bits, transparency laid on a background."""

from __future__ import annotations

import functools
import io

import numpy as np
from PIL import Image, ImageChops, ImageCms

__all__ = ["WHITE", "is_srgb", "to_rgb"]

# What shows through transparent pixels, and beside a padded picture: white paper.
WHITE = (255, 255, 255)

# A profile that changes no colour by more than this many levels of 255 is sRGB, whatever it is called: the versions of
# the sRGB profile that cameras, phones and programs embed differ by rounding.
_SRGB_LEVELS = 2

_MAX_PROFILE_BYTES = 8 << 20  # those of printing presses have up to 3 MB
_BAND_PIXELS = 1 << 22  # 16 MB of RGBA
_MODES = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}


def to_rgb(image: Image.Image, background: tuple[int, int, int] = WHITE) -> Image.Image:
    """Returns a loaded picture in mode RGB; `image` itself where nothing is to be done.

    Sixteen-bit grey keeps its upper eight bits; thirty-two-bit grey is taken for eight bits if it has no more, else for
    sixteen; floating point in 0..1 is scaled to 0..255, other floating point clipped to 0..255. An embedded colour
    profile is applied; one that cannot be used is ignored, and CMYK without one is 255 - ink - black.
    """
    profile = image.info.get("icc_profile")
    profile = profile if isinstance(profile, bytes) and profile else None
    if image.mode == "RGB" and "transparency" not in image.info:
        return _to_srgb(image, profile)
    if image.mode.startswith("I"):
        wide = np.asarray(image)
        colors = _to_srgb(_from_integers(wide, image.mode), profile)
        transparent = image.info.get("transparency")
        if isinstance(transparent, int):  # one grey of 65,536; Pillow's own conversion would take it for one of 256
            colors.paste(background, mask=Image.fromarray(wide == transparent))
        return colors
    if image.mode == "F":
        return _to_srgb(_from_floats(image), profile)
    if image.mode in ("RGBA", "LA", "PA", "RGBa") or "transparency" in image.info:
        return _laid_on(background, image, profile)
    if image.mode == "CMYK" and image.format in ("JPEG", "MPO") and "adobe" not in image.info:
        # Adobe's programs store how much light comes back, and say so in a segment of their own; others store ink, as
        # the standard has it. Pillow takes every file for one of Adobe's.
        return _to_srgb(ImageChops.invert(image), profile)
    if image.mode in ("L", "CMYK"):
        return _to_srgb(image, profile)
    return _to_srgb(image.convert("RGB"), profile if image.mode in ("P", "RGBX") else None)


def is_srgb(profile: bytes, mode: str) -> bool:
    """Tells whether pictures of this mode (`RGB`, `L`, `CMYK`) with this profile are sRGB as they are.

    That is so as well if the profile is broken, or one for other pictures, and so ignored.
    """
    return _transform(profile, _mode_for(profile, mode)) is None


def _mode_for(profile: bytes, mode: str) -> str:
    """Returns RGB for a grey picture with a profile of colours, whose curve holds for its greys."""
    return "RGB" if mode == "L" and _space(profile) == "RGB " else mode


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Returns a picture of mode RGB, L or CMYK in sRGB, mode RGB."""
    if profile is not None:
        mode = _mode_for(profile, image.mode)
        if (transform := _transform(profile, mode)) is not None:
            return transform.apply(image if image.mode == mode else image.convert(mode))
    return image if image.mode == "RGB" else image.convert("RGB")


# Profiles are few in a folder and the same in many files. Eight bound the memory also where every file has another.
@functools.lru_cache(maxsize=8)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Returns the transform from `profile` to sRGB, None where there is nothing to do or nothing to be done."""
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
    """Returns the colour space that a profile is for, as in the ICC specification: `RGB `, `GRAY`, `CMYK`."""
    return profile[16:20].decode("latin-1")


def _laid_on(background: tuple[int, int, int], image: Image.Image, profile: bytes | None) -> Image.Image:
    """Returns a picture with transparency on paper, done by bands: whole, it would be there four times."""
    # Grey stays grey until its profile, if it has one, was applied.
    colors = "L" if image.mode in ("LA", "L", "1") and profile is not None else "RGB"
    width, height = image.size
    paper = Image.new("RGB", image.size, background)
    rows = max(1, _BAND_PIXELS // width)
    for top in range(0, height, rows):
        box = (0, top, width, min(top + rows, height))
        band = image.crop(box).convert("RGBA")
        paper.paste(_to_srgb(band.convert(colors), profile), box, band.getchannel("A"))
    return paper


def _from_integers(wide: np.ndarray, mode: str) -> Image.Image:
    shift = 8 if mode.startswith("I;16") or wide.max() > 255 else 0
    return Image.fromarray(np.clip(wide >> shift, 0, 255).astype(np.uint8))


def _from_floats(image: Image.Image) -> Image.Image:
    values = np.nan_to_num(np.asarray(image))
    scale = 255.0 if values.min() >= 0 and values.max() <= 1 else 1.0
    return Image.fromarray(np.clip(values * scale + 0.5, 0, 255).astype(np.uint8))
