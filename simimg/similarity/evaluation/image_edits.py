"""Edited copies: what happens to photos on their way through the world; search is measured by finding the originals.

Each edit takes a picture and a generator, and draws from it whatever the edit leaves open: the angle, the place of a
crop, what is written into a bar. The same seed gives the same copy.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps

__all__ = ["EDITS", "PROTOCOL", "Edit", "jpeg"]

Edit = Callable[[Image.Image, np.random.Generator], Image.Image]

_WORDS = ("breaking", "watch this", "for sale", "my summer", "look at her", "who did that", "2019", "draft", "live")


def resized(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Half as wide and half as high."""
    return image.resize((max(1, image.width // 2), max(1, image.height // 2)), Image.Resampling.BICUBIC)


def recompressed(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Through a JPEG of quality 10, on libjpeg's scale of 1..100."""
    return jpeg(image, 10)


def recoloured(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Saturation, contrast and brightness times 0.6 to 1.6 each, red and blue raised or lowered by up to 15 %."""
    for enhancer in (ImageEnhance.Color, ImageEnhance.Contrast, ImageEnhance.Brightness):
        image = enhancer(image).enhance(round(0.6 * (1.6 / 0.6) ** rng.random(), 6))
    red, green, blue = image.split()
    warm = rng.uniform(0.85, 1.15)
    return Image.merge("RGB", (red.point(lambda v: min(255, v * warm)), green, blue.point(lambda v: v / warm)))


def grey(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Without colour."""
    return ImageOps.grayscale(image).convert("RGB")


def mirrored(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Left to right."""
    return ImageOps.mirror(image)


def turned(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """By 5 to 15 degrees to either side, corners white, black or cut off with the rest."""
    angle = rng.uniform(5, 15) * rng.choice([-1, 1])
    fill = [(255, 255, 255), (0, 0, 0)][rng.integers(2)]
    return image.rotate(angle, Image.Resampling.BICUBIC, expand=bool(rng.integers(2)), fillcolor=fill)


def quarter_turned(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """By 90 degrees to either side."""
    return image.transpose([Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_270][rng.integers(2)])


def cropped_to_80(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """80 % of each side, anywhere."""
    return _cropped(image, 0.8, rng)


def cropped_to_50(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Half of each side, anywhere: a quarter of the picture."""
    return _cropped(image, 0.5, rng)


def blurred(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """With a Gaussian of deviation 3 px."""
    return image.filter(ImageFilter.GaussianBlur(3))


def stretched(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """1.4 times as wide, or as high."""
    wide = bool(rng.integers(2))
    size = (round(image.width * (1.4 if wide else 1)), round(image.height * (1 if wide else 1.4)))
    return image.resize(size, Image.Resampling.BICUBIC)


def text_bars(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A bar of a seventh of the height above and below, with words in it, over the picture."""
    image = image.copy()
    draw = ImageDraw.Draw(image)
    height = max(8, image.height // 7)
    paper, ink = ((0, 0, 0), (255, 255, 255)) if rng.integers(2) else ((255, 255, 255), (0, 0, 0))
    font = ImageFont.load_default(max(6, round(height * 0.6)))
    for top in (0, image.height - height):
        draw.rectangle((0, top, image.width, top + height), fill=paper)
        words = " ".join(rng.choice(_WORDS, 2).tolist())
        draw.text((image.width * 0.05, top + height * 0.15), words, fill=ink, font=font)
    return image


def pasted(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Somewhere in a larger picture, of which it is 45 % of each side; the larger one is patches of colour."""
    width, height = round(image.width / 0.45), round(image.height / 0.45)
    patches = Image.fromarray(rng.integers(0, 256, (int(rng.integers(2, 6)), int(rng.integers(2, 6)), 3), np.uint8))
    paper = patches.resize((width, height), Image.Resampling.BICUBIC)
    left, top = int(rng.integers(width - image.width + 1)), int(rng.integers(height - image.height + 1))
    paper.paste(image, (left, top))
    return paper


def several(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Cropped to 80 %, mirrored, recoloured, turned a little, made smaller and compressed to quality 30."""
    image = recoloured(mirrored(_cropped(image, 0.8, rng), rng), rng)
    image = image.rotate(rng.uniform(-8, 8), Image.Resampling.BICUBIC)
    return jpeg(image.resize((max(1, round(image.width * 0.7)), max(1, round(image.height * 0.7)))), 30)


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    """Returns what a JPEG of `quality`, 1..100 on libjpeg's scale, leaves of the picture."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def _cropped(image: Image.Image, share: float, rng: np.random.Generator) -> Image.Image:
    width, height = max(1, round(image.width * share)), max(1, round(image.height * share))
    left, top = int(rng.integers(image.width - width + 1)), int(rng.integers(image.height - height + 1))
    return image.crop((left, top, left + width, top + height))


# From the harmless to the hard.
EDITS: Mapping[str, Edit] = {
    edit.__name__: edit
    for edit in (
        resized,
        recompressed,
        recoloured,
        grey,
        mirrored,
        turned,
        quarter_turned,
        cropped_to_80,
        cropped_to_50,
        blurred,
        stretched,
        text_bars,
        pasted,
        several,
    )
}


PROTOCOL: Mapping[str, Edit] = {
    "crop": lambda image, rng: _cropped(image, 7 / 8, rng),
    "h-flip": lambda image, rng: ImageOps.mirror(image),
    "v-flip": lambda image, rng: ImageOps.flip(image),
    "25 degrees": lambda image, rng: image.rotate(25, Image.Resampling.BICUBIC),
    "squash": lambda image, rng: image.resize((min(image.size),) * 2, Image.Resampling.BICUBIC),
}
"""imagededup's "transformed" set (docs/user_guide/benchmarks.md): a random 560 x 420 of 640 x 480, flips, 25°, 1:1."""
