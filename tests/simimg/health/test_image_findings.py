"""Bad images, drawn: what is found in each, and that none is taken for another because of its file format."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps

from simimg.health.audited_images import measure_file
from simimg.health.image_findings import find_bad_images
from simimg.health.image_measures import ImageMeasures, measure
from simimg.similarity.image_table import IndexedImage
from tfrecords.format.quarantine import Refusal

Scene = Callable[..., Image.Image]


def kinds(*measures: ImageMeasures | None) -> list[set[str]]:
    images = [IndexedImage(path=str(number), sha256="") for number in range(len(measures))]
    found = find_bad_images(images, measures)
    assert all(0.5 <= one.score <= 1 and one.reason for one in found)
    return [{one.kind for one in found if one.path == image.path} for image in images]


def kinds_of(image: Image.Image) -> set[str]:
    (found,) = kinds(measure(np.asarray(image.convert("RGB"))))
    return found


def page() -> Image.Image:
    image = Image.new("RGB", (400, 300), "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(14)
    for line in range(12):
        draw.text((10, 12 + 22 * line), "the quick brown fox jumps over a lazy dog", "black", font)
    return image


def thing_on_white() -> Image.Image:
    image = Image.new("RGB", (300, 200), "white")
    ImageDraw.Draw(image).ellipse((90, 40, 210, 160), fill=(40, 90, 160))
    return image


def with_border(image: Image.Image, by: float = 1.6) -> Image.Image:
    paper = Image.new("RGB", (round(by * image.width), round(by * image.height)), (20, 60, 90))
    paper.paste(image, ((paper.width - image.width) // 2, (paper.height - image.height) // 2))
    return paper


def moved(image: Image.Image) -> Image.Image:
    """As of a camera that moves sideways."""
    pixels = np.asarray(image, np.float64)
    return Image.fromarray(np.mean([np.roll(pixels, by, axis=1) for by in range(13)], axis=0).astype(np.uint8))


def noise(level: int, spread: float) -> Image.Image:
    rng = np.random.default_rng(0)
    return Image.fromarray(np.clip(rng.normal(level, spread, (200, 300, 3)), 0, 255).astype(np.uint8))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_photo_has_nothing(scene: Scene, seed: int) -> None:
    assert kinds_of(scene(seed)) == set()
    assert kinds_of(scene(seed, (640, 480))) == set()


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda image: image.filter(ImageFilter.GaussianBlur(2)), "blurred"),
        (lambda image: image.filter(ImageFilter.BoxBlur(3)), "blurred"),
        (moved, "blurred"),
        (lambda image: ImageEnhance.Brightness(image).enhance(0.25), "dark"),
        (lambda image: Image.blend(image, Image.new("RGB", image.size, "white"), 0.85), "bright"),
        (with_border, "bordered"),
    ],
)
def test_a_photo_that_was_spoiled(scene: Scene, change: Callable[[Image.Image], Image.Image], kind: str) -> None:
    for seed in (1, 2):
        assert kind in kinds_of(change(scene(seed))), kind


@pytest.mark.parametrize(
    "image", [Image.new("RGB", (90, 60), (70, 130, 90)), noise(120, 6), Image.linear_gradient("L").convert("RGB")]
)
def test_what_shows_nothing_is_plain(image: Image.Image) -> None:
    assert kinds_of(image) == {"plain"}


def test_text_and_things() -> None:
    assert kinds_of(page()) == {"text"}
    assert kinds_of(ImageOps.invert(page())) == {"text"}
    assert kinds_of(thing_on_white()) == set()


def test_a_logo_has_no_border_and_a_lamp_is_not_dark() -> None:
    logo = Image.new("RGB", (300, 200))
    ImageDraw.Draw(logo).polygon([(100, 60), (200, 60), (200, 140), (150, 120), (100, 140)], fill="white")
    assert not {"bordered", "dark"} & kinds_of(logo)
    lamp = Image.new("RGB", (300, 200))
    ImageDraw.Draw(lamp).ellipse((140, 90, 152, 102), fill="white")
    assert "dark" not in kinds_of(lamp)


def test_a_single_pixel_and_a_row() -> None:
    assert kinds_of(Image.new("RGB", (1, 1), "gray")) == {"plain"}
    assert "plain" in kinds_of(Image.new("RGB", (500, 1), "gray"))


def as_file(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_the_file_format_does_not_matter(scene: Scene) -> None:
    """A drawing in one bit is not dark, a 16-bit image not bright, and a palette is no other image."""
    drawing = Image.new("L", (300, 200), 255)
    for x in range(20, 280, 20):
        ImageDraw.Draw(drawing).line((x, 20, 300 - x, 180), fill=0, width=2)
    one_bit, eight_bits = (measure_file(as_file(one, "PNG")) for one in (drawing.convert("1"), drawing))
    assert kinds(one_bit) == kinds(eight_bits) == [set()]
    gray = np.asarray(scene(1).convert("L"), np.uint16) * 257
    assert kinds(measure_file(as_file(Image.fromarray(gray), "PNG"))) == [set()]
    assert kinds(measure_file(as_file(scene(1).convert("P"), "PNG"))) == [set()]
    assert kinds(measure_file(as_file(scene(1).convert("CMYK"), "JPEG"))) == [set()]


@pytest.mark.parametrize("orientation", [3, 5, 6, 8])
def test_images_are_measured_upright(scene: Scene, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = measure_file(as_file(scene(1), "JPEG", exif=exif))
    assert (found.width, found.height) == ((320, 240) if orientation < 5 else (240, 320))


def test_gray_jpegs_and_files_that_are_cut_off(scene: Scene) -> None:
    assert measure_file(as_file(scene(1).convert("L"), "JPEG")).colorfulness == 0
    for kind in ("PNG", "JPEG"):
        data = as_file(scene(1), kind)
        with pytest.raises(Refusal, match="truncated"):
            measure_file(data[: len(data) // 2])


def test_what_is_odd_in_a_collection(scene: Scene) -> None:
    usual = [measure(np.asarray(scene(seed))) for seed in range(12)]
    large = measure(np.asarray(scene(1)), 3200, 2400)
    strip = measure(np.asarray(scene(1, (320, 60))))
    gray = measure(np.asarray(scene(1).convert("L").convert("RGB")))
    *others, of_large, of_strip, of_gray, of_missing = kinds(*usual, large, strip, gray, None)
    assert others == [set()] * 12
    assert (of_large, of_gray, of_missing) == ({"odd_size"}, {"grayscale"}, set())
    assert "odd_shape" in of_strip
    assert kinds(*usual[:3], gray, gray, gray) == [set()] * 6  # gray is usual there
    assert kinds(usual[0], large) == [set(), set()]  # two images have no usual size
