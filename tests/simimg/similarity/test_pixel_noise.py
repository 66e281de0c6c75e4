"""What codecs, palettes and resampling do is noise; another digit of a few pixels is none, nor what one image lacks."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter, ImageOps

from simimg.similarity.color_models import modeled
from simimg.similarity.differences import find_differences
from simimg.similarity.edits import BLUR, COLOR, CONTENT, EXCHANGE, OVERLAY
from simimg.similarity.fingerprint import fingerprint
from simimg.similarity.match_verification import verify
from simimg.similarity.palette_noise import palette_of
from simimg.similarity.pixel_noise import least_squares, luma_outliers, outliers

Scene = Callable[..., Image.Image]
WHOLE = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def kinds(query: Image.Image, candidate: Image.Image, quality: int | None = None) -> frozenset[str]:
    return find_differences(np.asarray(query), np.asarray(candidate), WHOLE, (quality, None)).kinds


def saved(image: Image.Image, kind: str, **options: Any) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return Image.open(io.BytesIO(buffer.getvalue())).convert("RGB")


def bill(number: str) -> Image.Image:
    image = Image.new("RGB", (420, 560), "white")
    draw = ImageDraw.Draw(image)
    draw.rectangle((30, 20, 150, 60), fill=(40, 70, 120))
    for row in range(11):
        draw.text((30, 90 + 40 * row), f"Item {row * 7 + 3}", fill="black", font_size=20)
        value = number if row == 4 else f"{(row * 37) % 90 + 10}.{(row * 13) % 90 + 10}"
        draw.text((260, 90 + 40 * row), value, fill="black", font_size=20)
    return image


@pytest.mark.parametrize("digits", ["56", "38", "17", "08"])
@pytest.mark.parametrize("factor", [1.0, 0.7, 0.5])
def test_another_digit_of_another_size_is_content(digits: str, factor: float) -> None:
    one, other = (bill(f"2{digit}.40") for digit in digits)
    size = round(420 * factor), round(560 * factor)
    filters = (Image.Resampling.BICUBIC, Image.Resampling.BOX, Image.Resampling.LANCZOS)
    for by in filters if factor < 1 else filters[:1]:
        small = saved(other.resize(size, by), "JPEG", quality=85)
        assert CONTENT in kinds(small, one, 85)
        assert not kinds(saved(one.resize(size, by), "JPEG", quality=85), one, 85)


@pytest.mark.parametrize("quality", [5, 10, 15, 20, 25])
@pytest.mark.parametrize("subsampling", [0, 2])
def test_a_drawing_that_was_strongly_compressed_differs_in_nothing(
    quality: int, subsampling: int, scene: Scene
) -> None:
    for image in (scene(3, (400, 300)), bill("27.40")):
        assert not kinds(saved(image, "JPEG", quality=quality, subsampling=subsampling), image, quality)


@pytest.mark.parametrize(("kind", "quality"), [("WEBP", 5), ("WEBP", 30), ("AVIF", 40), ("AVIF", 60)])
def test_other_codecs_at_low_quality(kind: str, quality: int, scene: Scene) -> None:
    for image in (scene(2, (400, 300)), bill("27.40")):
        assert not kinds(saved(image, kind, quality=quality), image)


@pytest.mark.parametrize("dither", [Image.Dither.NONE, Image.Dither.FLOYDSTEINBERG])
def test_a_palette_differs_in_nothing(dither: Image.Dither, scene: Scene) -> None:
    for seed in range(3):
        image = scene(seed, (400, 300))
        few = image.convert("P", palette=Image.Palette.ADAPTIVE, dither=dither).convert("RGB")
        colors = palette_of(np.asarray(few))
        assert colors is not None
        assert len(colors) <= 256
        assert palette_of(np.asarray(image)) is None
        assert not kinds(few, image)
    with_text = image.copy()
    ImageDraw.Draw(with_text).text(
        (150, 120), "SALE 50 %", fill="white", stroke_width=2, stroke_fill="black", font_size=30
    )
    assert kinds(few, with_text)


def test_lines_that_one_drawing_lacks_are_no_noise() -> None:
    """Although there is nothing else with as much contrast to learn the noise from."""
    plain = Image.new("RGB", (200, 200), "white")
    ImageDraw.Draw(plain).ellipse((20, 20, 180, 180), fill=(100, 160, 120), outline=(60, 90, 70))
    lined = plain.copy()
    for x in range(50, 160, 30):
        ImageDraw.Draw(lined).line((x, 40, x + 8, 160), fill=(60, 90, 70))
    assert CONTENT in kinds(lined, plain)
    assert CONTENT in kinds(plain, lined)


def test_noise_is_not_beyond_noise() -> None:
    rng = np.random.default_rng(0)
    image = np.asarray(bill("27.40"))[..., 0].copy()
    inside = np.ones(image.shape, bool)
    noisy = np.clip(image + rng.normal(0, 6, image.shape), 0, 255).astype(np.uint8)
    assert not luma_outliers(image, noisy, inside).any()
    noisy[300:306, 100:106] = 60
    found = luma_outliers(image, noisy, inside)
    assert found[302, 102]
    assert not found[:290].any()
    color = cv2.merge([image, np.full_like(image, 128), np.full_like(image, 128)])
    other = color.copy()
    other[100:140, 300:340, 1] = 200
    beyond = outliers(color, other, inside)
    assert beyond.chroma[120, 320]
    assert not beyond.luma.any()
    assert not beyond.chroma[200:].any()


def test_least_squares_are_those_of_numpy() -> None:
    rng = np.random.default_rng(1)
    have = rng.integers(-200, 200, (4, 500))
    want = have.T @ np.array([3, -1, 2, 5]) + rng.integers(-3, 4, 500)
    expected = np.linalg.lstsq(have.T.astype(float), want.astype(float), rcond=None)[0]
    np.testing.assert_allclose(least_squares(have, want), expected, atol=0.002)


# Retouched places


def photo(scene: Scene, seed: int) -> Image.Image:
    noise = np.random.default_rng(seed).normal(0, 3, (300, 400, 1))
    return Image.fromarray(np.clip(np.asarray(scene(seed, (400, 300))) + noise, 0, 255).astype(np.uint8))


def retouched(
    image: Image.Image, at: tuple[int, int], radii: tuple[int, int], shift: tuple[int, int, int]
) -> Image.Image:
    """With an ellipse with soft edges whose luma, Cr and Cb are shifted."""
    mask = np.zeros((image.height, image.width), np.float32)
    cv2.ellipse(mask, at, radii, 0, 0, 360, 1.0, -1)
    pixels = cv2.cvtColor(np.asarray(image), cv2.COLOR_RGB2YCrCb) + cv2.GaussianBlur(mask, (0, 0), 1.0)[
        ..., None
    ] * np.array(shift)
    return Image.fromarray(cv2.cvtColor(np.clip(np.rint(pixels), 0, 255).astype(np.uint8), cv2.COLOR_YCrCb2RGB))


@pytest.mark.parametrize("shift", [(0, 45, -10), (0, -40, -20), (0, -10, 60)])
@pytest.mark.parametrize("radii", [(22, 10), (13, 13)])
def test_another_color_of_the_same_luma_differs(
    shift: tuple[int, int, int], radii: tuple[int, int], scene: Scene
) -> None:
    for seed in range(2):
        image = photo(scene, seed)
        other = retouched(image, (210, 150), radii, shift)
        assert kinds(other, image)
        assert kinds(image, other)
        strong = retouched(image, (210, 150), radii, (0, 2 * shift[1], 2 * shift[2]))
        assert kinds(saved(strong, "JPEG", quality=90), image, 90)
        assert not kinds(saved(image, "JPEG", quality=90), image, 90)


def test_a_weak_color_differs_if_all_else_is_the_same(scene: Scene) -> None:
    """Although nothing else has as much contrast in color as the edge of the place."""
    for seed in range(3):
        image = photo(scene, seed)
        assert kinds(retouched(image, (210, 150), (22, 12), (0, 26, 0)), image)
    dark = Image.fromarray(np.random.default_rng(0).integers(8, 24, (180, 240, 3), np.uint8))
    black, blue = dark.copy(), dark.copy()
    ImageDraw.Draw(black).ellipse((90, 70, 150, 110), fill=(15, 14, 19))
    ImageDraw.Draw(blue).ellipse((90, 70, 150, 110), fill=(0, 14, 79))
    assert kinds(blue, black)


@pytest.mark.parametrize("side", [14, 18, 30])
@pytest.mark.parametrize("colors", [((190, 60, 60), (60, 125, 90)), ((70, 90, 200), (120, 98, 40))])
def test_a_small_place_of_another_color_is_of_some_kind(
    side: int, colors: tuple[tuple[int, int, int], tuple[int, int, int]], scene: Scene
) -> None:
    one, other = (photo(scene, 2) for _ in colors)
    for image, color in zip((one, other), colors, strict=True):
        ImageDraw.Draw(image).rectangle((180, 120, 180 + side, 120 + side), fill=color, outline="black", width=2)
    for quality in (None, 80):
        found = find_differences(
            np.asarray(saved(one, "JPEG", quality=quality) if quality else one),
            np.asarray(other),
            WHOLE,
            (quality, None),
        )
        assert found.places
        assert found.kinds


WEB, ADAPTIVE = Image.Palette.WEB, Image.Palette.ADAPTIVE


@pytest.mark.parametrize(("palette", "colors"), [(WEB, 216), (ADAPTIVE, 256), (ADAPTIVE, 64)])
@pytest.mark.parametrize("dither", [Image.Dither.NONE, Image.Dither.FLOYDSTEINBERG])
def test_a_palette_does_not_hide_a_place(
    palette: Image.Palette, colors: int, dither: Image.Dither, scene: Scene
) -> None:
    def few(image: Image.Image) -> Image.Image:
        return image.convert("P", palette=palette, colors=colors, dither=dither).convert("RGB")

    image = photo(scene, 1)
    assert not kinds(few(image), image)
    for shift in ((-45, 0, 0), (45, 0, 0), (0, 55, -15)):
        assert kinds(few(retouched(image, (210, 150), (22, 22), shift)), image), shift
        assert kinds(image, few(retouched(image, (210, 150), (22, 22), shift))), shift


# Colors


def vignette(image: Image.Image) -> Image.Image:
    y, x = np.mgrid[-1 : 1 : image.height * 1j, -1 : 1 : image.width * 1j]
    light = np.clip(1.15 - 0.5 * (x * x + y * y), 0, 1)[..., None]
    return Image.fromarray((np.asarray(image) * light).astype(np.uint8))


def other_hue(image: Image.Image) -> Image.Image:
    pixels = np.asarray(image.convert("HSV")).copy()
    pixels[..., 0] += np.uint8(90)
    return Image.fromarray(pixels, "HSV").convert("RGB")


@pytest.mark.parametrize("seed", [0, 1])
def test_a_vignette_and_other_hues_are_colors(seed: int, scene: Scene) -> None:
    image = scene(seed, (400, 300))
    assert kinds(vignette(image), image) == {COLOR}
    assert kinds(image, vignette(image)) == {COLOR}
    assert CONTENT not in kinds(other_hue(image), image)


def test_clipped_colors_are_fitted() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (12, 16, 3)).repeat(20, 0).repeat(20, 1).astype(np.uint8)
    bright = np.clip(pixels * 1.6, 0, 255).astype(np.uint8)
    assert kinds(Image.fromarray(bright), Image.fromarray(pixels)) == {COLOR}


def test_one_other_color_is_not_modeled() -> None:
    """A red shirt that became blue has neither other hues everywhere nor other light."""
    from simimg.similarity.color_fit import fit_either
    from simimg.similarity.color_models import Modeled

    sides = []
    for color in ((200, 30, 30), (30, 60, 190)):
        pixels = np.full((200, 240, 3), 230, np.uint8)
        pixels[60:160, 60:180] = color
        sides.append(cv2.cvtColor(pixels, cv2.COLOR_RGB2YCrCb))
    inside = np.ones((200, 240), bool)
    known = Modeled(*fit_either(*sides, inside, inside))
    assert modeled(*sides, known, inside) is None


# Grain


def chest(seed: int, grain: int, levels: float = 4) -> Image.Image:
    """As an X-ray image: few levels that are its own, below the grain, on the shadows that all have."""
    y, x = np.mgrid[:288, :240]
    own = np.random.default_rng(seed).uniform(0.2, 0.8, (4, 2))
    spots = sum(np.exp(-((x - 240 * a) ** 2 + (y - 288 * b) ** 2) / 300) for a, b in own)
    noise = np.random.default_rng(100 + grain).normal(0, levels, x.shape)
    pixels = 90 + 50 * np.cos(x / 60) + 15 * np.cos(y / 30) + 5 * spots + noise
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).convert("RGB")


def edited(image: Image.Image, edit: str) -> Image.Image:
    width, height = image.size
    match edit:
        case "half" | "double":
            factor = {"half": 0.5, "double": 2}[edit]
            return image.resize((round(factor * width), round(factor * height)), Image.Resampling.LANCZOS)
        case "denoised":
            return image.filter(ImageFilter.GaussianBlur(1.5))
        case "shifted":
            return image.transform(image.size, Image.Transform.AFFINE, (1, 0, 1, 0, 1, -1))
        case "negative":
            return ImageOps.invert(image)
    kind, quality = edit.split()
    return saved(image, kind, quality=int(quality))


GRAIN_KEPT = ["JPEG 95", "WEBP 80", "AVIF 70", "double"]
GRAIN_LOST = ["JPEG 75", "JPEG 50", "JPEG 30", "JPEG 8", "WEBP 20", "AVIF 30", "half", "denoised", "shifted"]


@pytest.mark.parametrize("edit", GRAIN_KEPT)
def test_few_levels_below_another_grain_are_another_image(edit: str) -> None:
    quality = int(edit.split()[1]) if edit.startswith("JPEG") else None
    for seed in range(2):
        assert kinds(edited(chest(seed, seed), edit), chest(seed + 3, seed + 3), quality) == {OVERLAY}
        assert kinds(chest(seed + 3, seed + 3), edited(chest(seed, seed), edit)) == {OVERLAY}


@pytest.mark.parametrize("edit", [*GRAIN_KEPT, *GRAIN_LOST])
def test_what_is_left_of_the_grain_is_that_of_the_original(edit: str) -> None:
    quality = int(edit.split()[1]) if edit.startswith("JPEG") else None
    for seed in range(2):
        assert kinds(edited(chest(seed, seed), edit), chest(seed, seed), quality) <= {BLUR}


def test_grain_is_compared_where_it_lies() -> None:
    """Of an image that was cropped by some px and enlarged again, no single shift brings all grain together."""
    one, other = (np.random.default_rng(seed).normal(120, 6, (576, 480, 1)).astype(np.uint8) for seed in (0, 1))
    images = [Image.fromarray(pixels.repeat(3, 2)) for pixels in (one, other)]
    for px in (2, 3):
        cropped = images[0].crop((px, px, 480 - px, 576 - px)).resize((480, 576), Image.Resampling.BICUBIC)
        assert not kinds(cropped, images[0])
        assert kinds(cropped, images[1]) == {OVERLAY}


def test_grain_of_one_image_alone_is_no_evidence() -> None:
    assert kinds(chest(0, 0), chest(0, 0, levels=0)) <= {BLUR}
    assert not kinds(chest(0, 0, levels=1), chest(0, 1, levels=1))
    assert kinds(edited(chest(0, 0), "negative"), chest(0, 0)) == {COLOR}


# Lines without noise


def star(points: int, step: int, size: int) -> Image.Image:
    """Thin gray lines between the points of a circle, smooth as programs draw them."""
    image = Image.new("L", (8 * size, 8 * size), 255)
    draw = ImageDraw.Draw(image)
    corners = [4 * size * (1 + 0.95 * np.exp(2j * np.pi * number / points)) for number in range(points)]
    for number, corner in enumerate(corners):
        other = corners[(number + step) % points]
        draw.line((corner.real, corner.imag, other.real, other.imag), fill=110, width=3)
    return image.resize((size, size), Image.Resampling.BOX).convert("RGB")


@pytest.mark.parametrize("size", [100, 140])
def test_stars_with_other_points_differ(size: int) -> None:
    """Next to each line lies one that is like a line of the other star."""
    one, other = star(42, 11, size), star(39, 10, size)
    assert find_differences(np.asarray(one), np.asarray(other), WHOLE).area > 0.02
    for kind, quality in (("WEBP", 30), ("WEBP", 100), ("AVIF", 40), ("AVIF", 80), ("JPEG", 30), ("JPEG", 97)):
        assert not kinds(saved(one, kind, quality=quality), one)
    for copy in (*map(one.quantize, (3, 4, 16)), one.convert("1"), one.resize((3 * size, 3 * size))):
        assert not kinds(copy.convert("RGB"), one)


# Evidence


def paper(seed: int) -> Image.Image:
    noise = np.random.default_rng(seed).normal(0, 5, (320, 320, 1))
    return Image.fromarray(np.clip(236 + noise, 0, 255).astype(np.uint8).repeat(3, axis=2))


def test_unlike_papers_are_no_copies() -> None:
    assert verify(fingerprint(paper(0)), fingerprint(paper(1))) is None
    assert verify(fingerprint(saved(paper(0), "JPEG", quality=75)), fingerprint(paper(0))) is not None


def test_a_symmetric_drawing_is_upright() -> None:
    image = Image.new("RGB", (240, 240), (250, 210, 30))
    draw = ImageDraw.Draw(image)
    draw.ellipse((60, 60, 180, 180), fill=(20, 20, 20), outline=(200, 30, 30), width=12)
    for x in (8, 202):
        for y in (8, 202):
            draw.rectangle((x, y, x + 29, y + 29), fill=(30, 60, 160))
    for quality in (20, 40, 90):
        found = verify(fingerprint(saved(image, "JPEG", quality=quality)), fingerprint(image))
        assert found is not None
        assert not found.edits & {"turn", "mirror", "crop"}


def test_another_color_is_not_of_a_palette() -> None:
    """A plain image with a red shirt has few colors, but blue is too far from all of them."""
    pixels = np.full((200, 240, 3), 230, np.uint8)
    pixels[60:160, 60:180] = (200, 30, 30)
    other = pixels.copy()
    other[60:160, 60:180] = (30, 60, 190)
    assert EXCHANGE in kinds(saved(Image.fromarray(pixels), "JPEG", quality=70), Image.fromarray(other), 70)
