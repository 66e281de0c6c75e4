"""Edits that photos undergo when they are shared. Search is measured by finding the originals of edited copies.

Each edit takes an image and a generator, from which it draws its random parameters, such as the angle, the position of
a crop, or the text of a bar. The same seed gives the same copy.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps

from simimg.image_files import jpeg_bytes

Edit = Callable[[Image.Image, np.random.Generator], Image.Image]

_WORDS = ("breaking", "watch this", "for sale", "my summer", "look at her", "who did that", "2019", "draft", "live")


def resized(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Reduce width and height to half."""
    return image.resize((max(1, image.width // 2), max(1, image.height // 2)), Image.Resampling.BICUBIC)


def recompressed(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Compress as a JPEG of quality 10, on libjpeg's scale of 1..100."""
    return jpeg(image, 10)


def recoloured(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Multiply saturation, contrast and brightness by 0.6 to 1.6 each, and shift red and blue by up to 15 %."""
    for enhancer in (ImageEnhance.Color, ImageEnhance.Contrast, ImageEnhance.Brightness):
        image = enhancer(image).enhance(round(0.6 * (1.6 / 0.6) ** rng.random(), 6))
    red, green, blue = image.split()
    warm = rng.uniform(0.85, 1.15)
    return Image.merge("RGB", (red.point(lambda v: min(255, v * warm)), green, blue.point(lambda v: v / warm)))


def grey(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Remove color."""
    return ImageOps.grayscale(image).convert("RGB")


def mirrored(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Mirror left to right."""
    return ImageOps.mirror(image)


def turned(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Rotate by 5 to 15 degrees in either direction; corners are white or black, and sometimes cut off."""
    angle = rng.uniform(5, 15) * rng.choice([-1, 1])
    fill = [(255, 255, 255), (0, 0, 0)][rng.integers(2)]
    return image.rotate(angle, Image.Resampling.BICUBIC, expand=bool(rng.integers(2)), fillcolor=fill)


def quarter_turned(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Rotate by 90 degrees in either direction."""
    return image.transpose([Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_270][rng.integers(2)])


def cropped_to_80(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Crop to 80 % of each side, anywhere."""
    return cropped(image, 0.8, rng)


def cropped_to_50(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Crop to half of each side, anywhere: a quarter of the image."""
    return cropped(image, 0.5, rng)


def blurred(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Blur with a Gaussian of standard deviation 3 px."""
    return image.filter(ImageFilter.GaussianBlur(3))


def stretched(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Stretch width or height by 1.4."""
    wide = bool(rng.integers(2))
    size = (round(image.width * (1.4 if wide else 1)), round(image.height * (1 if wide else 1.4)))
    return image.resize(size, Image.Resampling.BICUBIC)


def text_bars(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Cover a seventh of the height at the top and at the bottom with bars of text."""
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
    """Paste it at a random position into a larger image of color patches, of which it covers 45 % of each side."""
    width, height = round(image.width / 0.45), round(image.height / 0.45)
    patches = Image.fromarray(rng.integers(0, 256, (int(rng.integers(2, 6)), int(rng.integers(2, 6)), 3), np.uint8))
    paper = patches.resize((width, height), Image.Resampling.BICUBIC)
    left, top = int(rng.integers(width - image.width + 1)), int(rng.integers(height - image.height + 1))
    paper.paste(image, (left, top))
    return paper


def several(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Crop to 80 %, mirror, change the color, rotate by up to 8 degrees, shrink, and compress to quality 30."""
    image = recoloured(mirrored(cropped(image, 0.8, rng), rng), rng)
    image = image.rotate(rng.uniform(-8, 8), Image.Resampling.BICUBIC)
    return jpeg(image.resize((max(1, round(image.width * 0.7)), max(1, round(image.height * 0.7)))), 30)


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    """Return the image after compression as a JPEG of `quality`, 1..100 on libjpeg's scale."""
    return Image.open(io.BytesIO(jpeg_bytes(image, quality))).convert("RGB")


def cropped(image: Image.Image, share: float, rng: np.random.Generator) -> Image.Image:
    """Crop to a share of each side, anywhere."""
    width, height = max(1, round(image.width * share)), max(1, round(image.height * share))
    left, top = int(rng.integers(image.width - width + 1)), int(rng.integers(image.height - height + 1))
    return image.crop((left, top, left + width, top + height))


# From easy to hard.
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
