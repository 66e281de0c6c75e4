"""What differs between two images of one picture is found, located and named; what compression does is not."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageOps

from simimg.similarity.affine import compose, inverse, scaling, translation
from simimg.similarity.differences import MOST_PX, Differences, Place, find_differences
from simimg.similarity.edits import BLUR, COLOR, CONTENT, EXCHANGE, OVERLAY
from simimg.similarity.position_match import QUARTER_TURN

Scene = Callable[..., Image.Image]
WHOLE = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
ROWS, COLUMNS = 14, 4
SCENES: dict[int, Image.Image] = {}


@pytest.fixture(autouse=True, scope="module")
def scenes(scene: Scene) -> None:
    SCENES.update({seed: noisy(scene(seed, (400, 300)), seed) for seed in range(4)})


def noisy(image: Image.Image, seed: int = 0) -> Image.Image:
    """With the noise of a camera: a photo, not a drawing."""
    noise = np.random.default_rng(seed).normal(0, 3, (image.height, image.width, 1))
    return Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))


def table(changed: dict[tuple[int, int], str] | None = None, size: tuple[int, int] = (707, 1000)) -> Image.Image:
    """A form with a table of numbers; some of its cells may have others."""
    image = Image.new("RGB", size, "white")
    draw, step = ImageDraw.Draw(image), (size[0] - 100) // COLUMNS
    draw.rectangle((50, 40, 200, 90), fill=(50, 50, 60))
    draw.text((65, 52), "SAMPLE", fill="white", font_size=24)
    draw.text((330, 50), "Delivery note", fill="black", font_size=28)
    for row in range(ROWS):
        y = 200 + row * 45
        draw.line((50, y - 10, size[0] - 50, y - 10), fill=(200, 200, 200))
        for column in range(COLUMNS):
            number = (changed or {}).get((row, column), f"{(row * 37 + column * 101) % 900 + 100}.50")
            draw.text((60 + column * step, y), number, fill="black", font_size=18)
    return image


def saved(image: Image.Image, kind: str = "JPEG", **options: Any) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return Image.open(io.BytesIO(buffer.getvalue())).convert("RGB")


def differences(
    query: Image.Image,
    candidate: Image.Image,
    place: Any = WHOLE,
    qualities: tuple[int | None, ...] = (),
) -> Differences:
    """What differs; the same kinds do the other way round."""
    matrix = np.reshape(place, (2, 3))
    found = find_differences(np.asarray(query), np.asarray(candidate), matrix.ravel().tolist(), qualities)
    back = find_differences(np.asarray(candidate), np.asarray(query), inverse(matrix).ravel().tolist(), qualities[::-1])
    assert found.kinds == back.kinds
    assert bool(found.places) == bool(back.places) == bool(found.kinds - {BLUR, COLOR})  # of which there is no place
    return found


def with_drawn(image: Image.Image, draw: Callable[[ImageDraw.ImageDraw], object]) -> Image.Image:
    image = image.copy()
    draw(ImageDraw.Draw(image))
    return image


def is_within(place: Place, box: tuple[float, float, float, float], size: tuple[int, int], margin: float) -> bool:
    """Whether a place is within a box in px of an image of that size, up to a margin."""
    left, top, right, bottom = (side * size[axis % 2] for axis, side in enumerate(place.box))
    return (
        left >= box[0] - margin
        and top >= box[1] - margin
        and right <= box[2] + margin
        and bottom <= box[3] + margin
        and right > box[0]
        and bottom > box[1]
    )


# Nothing differs


@pytest.mark.parametrize("quality", [30, 40, 50, 60, 75, 85, 92, 97])
@pytest.mark.parametrize("seed", [0, 1, "table"])
def test_a_jpeg_differs_in_nothing(quality: int, seed: int | str) -> None:
    image = table() if seed == "table" else SCENES[int(seed)]
    assert not differences(saved(image, quality=quality), image, qualities=(quality, None)).kinds - {BLUR}


@given(
    seed=st.integers(0, 3),
    qualities=st.tuples(st.integers(30, 97), st.integers(30, 97)),
    subsampling=st.sampled_from([0, 2]),
)
@settings(max_examples=12)
def test_two_jpegs_of_one_picture_differ_in_nothing(seed: int, qualities: tuple[int, int], subsampling: int) -> None:
    first = saved(SCENES[seed], quality=qualities[0])
    second = saved(first, quality=qualities[1], subsampling=subsampling)
    assert not differences(second, first, qualities=qualities[::-1]).places


@pytest.mark.parametrize("by", [Image.Resampling.BICUBIC, Image.Resampling.LANCZOS, Image.Resampling.BILINEAR])
@pytest.mark.parametrize("factor", [0.5, 0.75, 2.0])
@pytest.mark.parametrize("seed", [0, "table"])
def test_another_size_differs_in_nothing(seed: int | str, factor: float, by: Image.Resampling) -> None:
    image = table(size=(500, 850)) if seed == "table" else SCENES[int(seed)]
    resized = image.resize((round(image.width * factor), round(image.height * factor)), by)
    assert not differences(resized, image).places
    assert not differences(saved(resized, quality=60), image, qualities=(60, None)).places


@pytest.mark.parametrize(("kind", "options"), [("WEBP", {"quality": 60}), ("AVIF", {"quality": 60}), ("GIF", {})])
def test_another_format_differs_in_nothing(kind: str, options: dict[str, Any]) -> None:
    for image in (SCENES[0], table()):
        assert not differences(saved(image, kind, **options), image).places


FILTERS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "brighter": lambda image: image.point([min(255, 70 + level * 7 // 10) for level in range(256)] * 3),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.6),
    "contrast": lambda image: ImageEnhance.Contrast(image).enhance(0.7),
    "gray": lambda image: ImageOps.grayscale(image).convert("RGB"),
    "colorful": lambda image: ImageEnhance.Color(image).enhance(1.4),
    "faded": lambda image: ImageEnhance.Color(image).enhance(0.4),
    "blurred": lambda image: image.filter(ImageFilter.GaussianBlur(1.2)),
}


@pytest.mark.parametrize("edit", FILTERS)
@pytest.mark.parametrize("seed", [0, 1])
def test_a_filter_changes_all_pixels_and_no_place(seed: int, edit: str) -> None:
    found = differences(FILTERS[edit](SCENES[seed]), SCENES[seed])
    assert not found.places
    assert (COLOR in found.kinds) is (edit not in ("blurred", "gray"))  # gray images have a palette's number of colors


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("turns", range(4))
def test_the_eight_positions_differ_in_nothing_but_what_was_changed(turns: int, mirrored: bool) -> None:
    """And a place is where it is in the query."""
    changed = with_drawn(SCENES[0], lambda draw: draw.ellipse((40, 60, 90, 110), fill="white", outline="black"))
    pixels = np.asarray(SCENES[0])
    turned = Image.fromarray(np.rot90(pixels[:, ::-1] if mirrored else pixels, turns).copy())
    mirror = np.array([[-1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    place = compose(np.reshape(WHOLE, (2, 3)), *[QUARTER_TURN] * turns, *[mirror] * mirrored)
    assert not differences(SCENES[0], turned, place).places
    found = differences(changed, turned, place)
    assert found.places
    assert all(is_within(one, (40, 60, 90, 110), SCENES[0].size, 4) for one in found.places)


def test_a_crop_differs_in_nothing() -> None:
    box = (37, 22, 337, 260)
    crop = SCENES[1].crop(box)
    place = compose(scaling(1 / 400, 1 / 300), translation(box[0], box[1]), scaling(*crop.size))
    assert not differences(crop, SCENES[1], place).places
    off = compose(translation(0.003, -0.003), place)  # 1.2 px: as keypoints are
    assert not differences(saved(crop.resize((260, 206)), quality=80), SCENES[1], off, (80, None)).places


def sheet(seed: int = 1) -> Image.Image:
    """Notes on staves: a JPEG rings beside them."""
    image = Image.new("RGB", (300, 400), "white")
    draw, rng = ImageDraw.Draw(image), np.random.default_rng(seed)
    for top in range(60, 400, 120):
        for line in range(5):
            draw.line((20, top + 10 * line, 280, top + 10 * line), fill="black")
        for x in range(40, 270, 42):
            y = top + 5 * int(rng.integers(-1, 10))
            draw.ellipse((x, y - 5, x + 12, y + 4), fill="black")
            draw.line((x + 12, y, x + 12, y - 32), fill="black", width=2)
    return image


def test_a_sheet_of_music_differs_in_nothing_but_its_notes() -> None:
    for quality in (75, 60):  # at 40, the ringing is as strong as another digit
        assert not differences(saved(sheet(), quality=quality), sheet(), qualities=(quality, None)).places
    assert differences(saved(sheet(2), quality=60), sheet(), qualities=(60, None)).kinds == {OVERLAY}  # never planned


def test_few_levels_over_many_pixels_are_a_place() -> None:
    """As ribs and lungs of another X-ray image: no pixel differs by more than noise does."""
    y, x = np.mgrid[:240, :200]

    def chest(spot: int) -> Image.Image:
        levels = 90 + 60 * np.cos(x / 60) + 15 * np.cos(y / 9) + 20 * np.exp(-((x - 100) ** 2 + (y - spot) ** 2) / 60)
        return noisy(Image.fromarray(np.clip(levels, 0, 255).astype(np.uint8)).convert("RGB"), 1)

    assert not differences(saved(chest(70), quality=40), chest(70), qualities=(40, None)).places
    assert differences(saved(chest(160), quality=92), chest(70), qualities=(92, None)).kinds == {OVERLAY}


# Content


@given(
    row=st.integers(0, ROWS - 1),
    column=st.integers(0, COLUMNS - 1),
    digits=st.sampled_from([("3", "8"), ("1", "7"), ("3", "5"), ("0", "9"), ("2", "4")]),
    quality=st.sampled_from([None, 90, 60]),
)
@settings(max_examples=12)
def test_one_other_digit_is_found(row: int, column: int, digits: tuple[str, str], quality: int | None) -> None:
    one, other = (table({(row, column): f"{digit}47.50"}) for digit in digits)
    if quality:
        one = saved(one, quality=quality)
    found = differences(one, other, qualities=(quality, None))
    assert found.kinds == {CONTENT}
    (place,) = found.places
    left, top = 60 + column * ((707 - 100) // COLUMNS), 200 + row * 45
    assert is_within(place, (left, top, left + 14, top + 24), one.size, 8)
    assert place.kind == CONTENT
    assert 0 < found.area < 0.001
    assert found.text == "1 place differs, less than 0.1% of the area"


def test_several_other_numbers() -> None:
    cells = {(row, 3): f"{row}99.77" for row in (1, 4, 9)}
    found = differences(table(cells), table())
    assert found.kinds == {CONTENT}
    assert len(found.places) >= 3
    assert [place.area for place in found.places] == sorted((place.area for place in found.places), reverse=True)
    assert found.text == f"{len(found.places)} places differ, 0.2% of the area"
    assert {round((place.box[1] * 1000 - 200) / 45) for place in found.places} == {1, 4, 9}


def face(mouth: str, arm: int = 0) -> Image.Image:
    image = SCENES[2].copy()
    draw = ImageDraw.Draw(image)
    draw.ellipse((150, 60, 250, 180), fill=(235, 200, 170), outline=(60, 40, 30))
    for x in (180, 220):
        draw.ellipse((x - 6, 95, x + 6, 107), fill=(30, 30, 30))
    box, ends = ((175, 120, 225, 160), (20, 160)) if mouth == "smile" else ((175, 145, 225, 185), (200, 340))
    draw.arc(box, *ends, fill=(150, 20, 30), width=5)
    draw.line((255, 230, 330, 230 - arm), fill=(235, 200, 170), width=14)
    return noisy(image, 7)


def test_another_moment_of_one_scene_differs() -> None:
    assert not differences(face("smile"), face("smile")).places
    found = differences(face("frown"), face("smile"))
    assert found.kinds
    assert all(is_within(place, (175, 120, 225, 185), (400, 300), 6) for place in found.places)
    assert differences(face("smile", arm=70), face("smile")).kinds


CARDS = {
    "spade": [(0, -24), (22, 10), (5, 8), (9, 24), (-9, 24), (-5, 8), (-22, 10)],
    "diamond": [(0, -26), (18, 0), (0, 26), (-18, 0)],
    "triangle": [(0, -22), (22, 20), (-22, 20)],
}


def card(sign: str, places: list[tuple[int, int]], color: str = "black") -> Image.Image:
    image = Image.new("RGB", (240, 340), "white")
    draw = ImageDraw.Draw(image)
    draw.rounded_rectangle((4, 4, 235, 335), 16, outline="black", width=3)
    draw.text((20, 16), str(len(places)), fill=color, font_size=34)
    for x, y in places:
        draw.polygon([(x + a, y + b) for a, b in CARDS[sign]], fill=color)
    return image


SIX = [(80, 80), (160, 80), (80, 170), (160, 170), (80, 260), (160, 260)]


@pytest.mark.parametrize("sign", ["diamond", "triangle"])
def test_other_signs_on_a_card_are_content(sign: str) -> None:
    found = differences(card(sign, SIX), card("spade", SIX))
    assert found.kinds == {CONTENT}
    assert len(found.places) >= 6


def test_one_sign_more_on_a_drawing_is_content() -> None:
    assert CONTENT in differences(card("spade", SIX[:5]), card("spade", SIX)).kinds


# What is laid over


OVERLAYS: dict[str, tuple[tuple[int, int, int, int], Callable[[ImageDraw.ImageDraw], object]]] = {
    "text": ((60, 130, 330, 175), lambda draw: draw.text((60, 130), "SAMPLE TEXT", fill="white", font_size=36)),
    "disc": ((300, 20, 370, 90), lambda draw: draw.ellipse((300, 20, 370, 90), fill=(250, 220, 0), outline="black")),
    "bar": ((0, 260, 400, 300), lambda draw: draw.rectangle((0, 260, 400, 300), fill="black")),
    "date": (
        (300, 270, 390, 295),
        lambda draw: draw.text((300, 272), "2024-05", fill="white", stroke_width=1, stroke_fill="black", font_size=18),
    ),
}


@pytest.mark.parametrize("name", OVERLAYS)
@pytest.mark.parametrize("seed", [0, 1])
def test_what_is_laid_over_is_located(name: str, seed: int) -> None:
    box, draw = OVERLAYS[name]
    found = differences(saved(with_drawn(SCENES[seed], draw), quality=80), SCENES[seed], qualities=(80, None))
    assert found.kinds in ({OVERLAY}, {CONTENT}) if name == "disc" else found.kinds == {OVERLAY}
    assert all(is_within(place, box, (400, 300), 8) for place in found.places)
    assert 0.001 < found.area < 0.15


# Exchanged colors


def product(color: tuple[int, int, int], wall: int = 235) -> Image.Image:
    image = Image.new("RGB", (360, 360), (wall,) * 3)
    draw = ImageDraw.Draw(image)
    draw.polygon(
        [(90, 90), (270, 90), (310, 150), (260, 170), (260, 320), (100, 320), (100, 170), (50, 150)], fill=color
    )
    draw.rectangle((150, 150, 210, 210), outline="white", width=6)
    draw.text((160, 162), "AB", fill="white", font_size=28)
    return noisy(image)


PRODUCTS = {"red": (200, 30, 30), "blue": (30, 60, 190), "green": (40, 140, 60), "black": (25, 25, 25)}


@pytest.mark.parametrize("other", [name for name in PRODUCTS if name != "red"])
@pytest.mark.parametrize("quality", [None, 70])
def test_an_exchanged_color_is_found(other: str, quality: int | None) -> None:
    one, two = product(PRODUCTS["red"]), product(PRODUCTS[other])
    if quality:
        one = saved(one, quality=quality)
    found = differences(one, two, qualities=(quality, None))
    assert EXCHANGE in found.kinds
    assert 0.2 < found.area < 0.5
    assert found.places[0].kind == EXCHANGE
    assert is_within(found.places[0], (50, 90, 310, 320), (360, 360), 8)


def test_the_same_color_in_another_light_is_not_exchanged() -> None:
    dark = ImageEnhance.Brightness(product(PRODUCTS["red"])).enhance(0.7)
    assert differences(dark, product(PRODUCTS["red"])).kinds == {COLOR}


# Properties


@given(
    left=st.integers(20, 300), top=st.integers(20, 220), side=st.integers(20, 70), gray=st.sampled_from([0, 255]),
    seed=st.integers(0, 3), factor=st.sampled_from([1.0, 0.5, 1.5]),
)  # fmt: skip
@settings(max_examples=12)
def test_a_square_is_found_where_it_is(left: int, top: int, side: int, gray: int, seed: int, factor: float) -> None:
    size = (400, 300)
    box = (left, top, min(left + side, 390), min(top + side, 290))
    changed = with_drawn(SCENES[seed], lambda draw: draw.rectangle(box, fill=(gray,) * 3, outline=(255 - gray,) * 3))
    resized = changed.resize((round(size[0] * factor), round(size[1] * factor)), Image.Resampling.BICUBIC)
    found = differences(resized, SCENES[seed])
    assert found.places
    assert all(is_within(place, box, size, 6 / min(1, factor)) for place in found.places)
    assert found.area <= 1.3 * side * side / (size[0] * size[1]) + 0.01
    for place in found.places:
        assert all(0 <= side <= 1 for side in place.box)
        assert place.box[0] < place.box[2]
        assert place.box[1] < place.box[3]


@pytest.mark.parametrize(
    "size", [(1, 1), (1, 300), (300, 1), (7, 7), (8, 8), (9, 40), (900, 12), (12, 900), (1024, 51), (16, 16)]
)
@pytest.mark.parametrize("pixels", ["plain", "other", "noise", "half"])
def test_tiny_plain_and_very_wide_images_are_no_error(size: tuple[int, int], pixels: str) -> None:
    rng = np.random.default_rng(0)
    shape = (size[1], size[0], 3)
    image = np.full(shape, 90, np.uint8)
    other = {
        "plain": image,
        "other": np.full(shape, 200, np.uint8),
        "noise": rng.integers(0, 256, shape, np.uint8),
        "half": np.where(np.arange(size[0])[:, None] * 2 < size[0], image, 255).astype(np.uint8),
    }[pixels]
    found = differences(Image.fromarray(image), Image.fromarray(other))
    if pixels == "plain":
        assert found == Differences()
    assert 0 <= found.area <= 1


def test_images_that_have_nothing_in_common_differ_in_nothing() -> None:
    for place in ((1.0, 0, 5.0, 0, 1.0, 0), (0.001, 0, 0.5, 0, 0.001, 0.5)):
        assert find_differences(np.asarray(SCENES[0]), np.asarray(SCENES[1]), place) == Differences()


def test_the_input_is_not_changed() -> None:
    one, other = np.asarray(face("smile")).copy(), np.asarray(face("frown")).copy()
    kept = one.copy(), other.copy()
    first = find_differences(one, other, WHOLE)
    np.testing.assert_array_equal(one, kept[0])
    np.testing.assert_array_equal(other, kept[1])
    assert find_differences(one, other, WHOLE) == first


def test_texts_and_boxes() -> None:
    assert Differences().text == ""
    assert Differences().area == 0
    one, two = Place((0.123456, 0, 0.5, 1), 0.02, OVERLAY), Place((0, 0, 0.1, 0.1), 0.0004, OVERLAY)
    assert Differences((one,)).text == "1 place differs, 2.0% of the area"
    assert Differences((one, two)).text == "2 places differ, 2.0% of the area"
    assert Differences((two,)).text == "1 place differs, less than 0.1% of the area"
    assert Differences((one, two)).boxes() == [[0.1235, 0, 0.5, 1], [0, 0, 0.1, 0.1]]
    assert Differences((Place((0, 0, 1, 1), 0.7, CONTENT),) * 2).area == 1
    assert MOST_PX == 1024
