"""Copies are told from other pictures, with what was done to them; a shared logo makes no copy."""

import io
import itertools
import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageColor, ImageDraw, ImageEnhance, ImageFilter, ImageOps

from simimg.similarity.affine import area, determinant, inverse, part_in_unit_square, transform
from simimg.similarity.common_frame import block_agreement
from simimg.similarity.evaluation.image_edits import EDITS, cropped
from simimg.similarity.fingerprint import fingerprint, jpeg_quality, luma
from simimg.similarity.keypoints import align, detect_in, gray_pixels, match
from simimg.similarity.match_verification import HARMLESS, verify


def verified(query: Image.Image, original: Image.Image):
    return verify(fingerprint(query, as_query=True), fingerprint(original))


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", EDITS)
def test_each_edit_is_verified(scene, name: str, seed: int) -> None:
    """And both ways are one verdict."""
    original = scene(seed)
    ours, theirs = fingerprint(EDITS[name](original, np.random.default_rng(seed)), as_query=True), fingerprint(original)
    found, back = verify(ours, theirs), verify(theirs, ours)
    assert found is not None
    assert back is not None
    assert 0.5 <= found.similarity <= 1
    back = back.reversed()
    assert (back.similarity, back.reasons, back.edits) == (found.similarity, found.reasons, found.edits)
    np.testing.assert_allclose(back.place, found.place, atol=1e-9)


def test_the_same_picture_has_nothing_done_to_it(scene) -> None:
    assert verified(scene(0), scene(0)).reasons == ("the same pixels",)
    assert verified(scene(0), scene(0)).similarity == 1
    found = verified(EDITS["recompressed"](scene(0), np.random.default_rng(0)), scene(0))
    assert found.reasons == ()
    assert found.similarity > 0.95


def test_fine_keypoints_are_compared_only_where_coarse_ones_agree(scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures that are no copies have many coarse matches by chance, which agree on nothing."""
    found = [fingerprint(scene(seed)) for seed in range(7)]
    detected: list[int] = []
    monkeypatch.setattr(type(found[0]), "keypoints", property(lambda self: detected.append(1) or self.details.fine))
    pairs = list(itertools.combinations(found, 2))
    assert all(verify(*pair) is None for pair in pairs)
    assert sum(max(len(one.ours) for one in match(a.details.coarse, b.details.coarse)) >= 4 for a, b in pairs) > 18
    assert detected == []
    crop = fingerprint(cropped(scene(3), 0.5, np.random.default_rng(3)))
    assert verify(crop, found[3], thorough=False) is None
    assert verify(crop, found[3]) is not None
    assert len(detected) == 2


RESAVES = [(97, 1.0), (90, 1.0), (30, 1.0), (97, 0.5), (75, 2.0), (60, 0.97)]  # quality, factor of its size


@pytest.mark.parametrize("seed", range(12))
def test_a_photo_that_was_saved_again_is_verified_both_ways(scene, seed: int) -> None:
    """The plainest copies: their parts are nearly the whole of each other, and none of them is cropped."""
    original = scene(seed)
    ours = fingerprint(original)
    for quality, factor in RESAVES:
        buffer = io.BytesIO()
        resized = original.resize((round(320 * factor), round(240 * factor)), Image.Resampling.BICUBIC)
        resized.save(buffer, "JPEG", quality=quality)
        theirs = fingerprint(Image.open(buffer), quality=quality)
        for query, candidate in ((theirs, ours), (ours, theirs)):
            found = verify(query, candidate)
            assert found is not None, (quality, factor)
            assert found.similarity > 0.9, (quality, factor)
            assert not [reason for reason in found.reasons if "cropped" in reason or "pasted" in reason]


def gradient(colors: tuple[str, str], size: tuple[int, int] = (640, 400)) -> Image.Image:
    """A sky: one color fades into another from top to bottom."""
    top, bottom = (np.array(ImageColor.getrgb(color), np.float64) for color in colors)
    share = np.linspace(0, 1, size[1])[:, None, None] ** 1.3
    pixels = top + (bottom - top) * np.broadcast_to(share, (size[1], size[0], 1))
    return Image.fromarray(np.rint(pixels).astype(np.uint8))


SKIES = [("navy", "orange"), ("skyblue", "white"), ("teal", "lightgreen"), ("black", "gray"), ("purple", "pink")]


def page(seed: int) -> Image.Image:
    """A blank page under a lamp, with a few pencil strokes."""
    y, x = np.mgrid[:500, :360]
    light = 245 - 70 * ((x - 120) ** 2 + (y - 90) ** 2) / 300_000
    image = Image.fromarray(np.rint(light).astype(np.uint8)).convert("RGB")
    rng, draw = np.random.default_rng(seed), ImageDraw.Draw(image)
    for _ in range(4):
        start = rng.integers(20, 320, 2)
        draw.line([tuple((start + step).tolist()) for step in rng.integers(-18, 19, (5, 2))], fill=(120, 120, 125))
    return image


@pytest.mark.parametrize("images", [[gradient(sky) for sky in SKIES], [page(seed) for seed in range(5)]])
def test_smooth_images_are_no_copies_of_each_other(images: list[Image.Image]) -> None:
    """Not even turned or mirrored: any two of them correlate in some orientation."""
    found = [fingerprint(image) for image in images]
    for row, one in enumerate(found):
        for other in (*found[:row], *found[row + 1 :]):
            assert verify(one, other) is None


@pytest.mark.parametrize(
    "image", [gradient(SKIES[0]), gradient(SKIES[3]), page(0), Image.new("RGB", (300, 200), "red")]
)
@pytest.mark.parametrize(("quality", "factor"), [(97, 1.0), (30, 1.0), (60, 0.5), (80, 2.0)])
def test_a_smooth_image_that_was_saved_again_is_a_copy(image: Image.Image, quality: int, factor: float) -> None:
    buffer = io.BytesIO()
    image.resize((round(image.width * factor), round(image.height * factor))).save(buffer, "JPEG", quality=quality)
    ours, theirs = fingerprint(image), fingerprint(Image.open(buffer), quality=quality)
    for query, candidate in ((ours, theirs), (theirs, ours)):
        found = verify(query, candidate)
        assert found is not None
        assert found.similarity > 0.9
        assert all(reason.startswith(HARMLESS) for reason in found.reasons), found.reasons


@pytest.mark.parametrize("seed", range(6))
def test_a_strongly_blurred_copy_is_still_found(scene, seed: int) -> None:
    """It has few keypoints or none, and is aligned as a whole."""
    found = verified(scene(seed).filter(ImageFilter.GaussianBlur(8)), scene(seed))
    assert found is not None
    assert "blurred" in found.reasons


COEFFICIENT = st.floats(-3, 3, allow_nan=False, width=32)


@given(st.lists(COEFFICIENT, min_size=6, max_size=6))
@settings(max_examples=300)
def test_the_common_part_of_two_squares(numbers: list[float]) -> None:
    """It is in both, has the same share of both seen from the other side, and covers what a grid of points finds."""
    matrix = np.array(numbers).reshape(2, 3)
    square = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    own = abs(determinant(matrix))
    if own < 0.01:
        return
    part = part_in_unit_square(transform(matrix, square))
    assert part.size == 0 or (part.min() >= -1e-12 and part.max() <= 1 + 1e-12)
    assert area(part) <= min(1.0, own) + 1e-9
    back = part_in_unit_square(transform(inverse(matrix), square))
    assert area(back) * own == pytest.approx(area(part), abs=1e-9)
    steps = (np.arange(100) + 0.5) / 100
    grid = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
    there = transform(inverse(matrix), grid)
    assert area(part) == pytest.approx(((there >= 0) & (there <= 1)).all(axis=1).mean(), abs=0.03)


@given(st.lists(st.floats(-1e-4, 1e-4), min_size=6, max_size=6))
@settings(max_examples=300)
def test_nearly_equal_squares_have_nearly_everything_in_common(changes: list[float]) -> None:
    matrix = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]) + np.array(changes).reshape(2, 3)
    square = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    assert area(part_in_unit_square(transform(matrix, square))) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (ImageOps.mirror, "mirrored"),
        (ImageOps.flip, "flipped upside down"),
        (lambda image: image.rotate(180), "turned upside down"),
        (lambda image: image.transpose(Image.Transpose.ROTATE_90), "turned by 90° counter-clockwise"),
        (lambda image: image.transpose(Image.Transpose.ROTATE_270), "turned by 90° clockwise"),
        (lambda image: image.rotate(12, expand=True), "turned by 12° counter-clockwise"),
        (lambda image: image.rotate(-12, expand=True), "turned by 12° clockwise"),
        (lambda image: image.crop((0, 0, 240, 180)), "cropped to 56% of its area"),
        (lambda image: image.resize((160, 120)), "resized to 50%"),
        (lambda image: image.resize((448, 240)), "stretched to 1.40 times its width"),
        (lambda image: image.resize((320, 336)), "stretched to 1.40 times its height"),
        (lambda image: ImageOps.grayscale(image).convert("RGB"), "grey"),
        (lambda image: ImageEnhance.Color(image).enhance(3), "recoloured"),
        (lambda image: ImageEnhance.Brightness(image).enhance(0.7), "darker"),
        (lambda image: image.filter(ImageFilter.GaussianBlur(4)), "blurred"),
    ],
)
def test_the_reason_is_what_was_done(scene, edit, reason: str) -> None:
    assert verified(edit(scene(3)), scene(3)).reasons == (reason,)


@pytest.mark.parametrize("turn", [17, -17])
def test_a_mirrored_and_turned_copy_names_the_turn_that_is_seen(scene, turn: int) -> None:
    copy = ImageOps.mirror(scene(3)).rotate(turn, expand=True)
    side = "counter-clockwise" if turn > 0 else "clockwise"
    assert verified(copy, scene(3)).reasons == ("mirrored", f"turned by 17° {side}")


def test_a_part_of_a_larger_picture(scene) -> None:
    paper = Image.new("RGB", (640, 480), (200, 180, 90))
    paper.paste(scene(4), (200, 100))
    assert verified(paper, scene(4)).reasons == ("pasted into a larger picture, of which it is 25%",)


def test_different_pictures_are_no_copies(scene) -> None:
    examined = [fingerprint(scene(seed)) for seed in range(8)]
    assert not [1 for one in range(8) for other in range(8) if one != other and verify(examined[one], examined[other])]


def test_a_shared_logo_makes_no_copy(scene) -> None:
    logo = scene(99, (120, 90))
    one, other = scene(5), scene(6)
    one.paste(logo, (10, 10))
    other.paste(logo, (10, 10))
    assert align(match(fingerprint(one).keypoints, fingerprint(other).keypoints)) is not None  # the logo aligns
    assert verified(one, other) is None


@pytest.mark.parametrize("size", [(1, 1), (1, 400), (3, 2), (64, 64)])
def test_plain_and_tiny_pictures_are_no_error(scene, size: tuple[int, int]) -> None:
    assert verified(Image.new("RGB", size, (10, 20, 30)), Image.new("RGB", size, (200, 20, 30))) is None
    assert verified(Image.new("RGB", size), scene(0)) is None


def test_a_blurred_image_without_keypoints_is_laid_over() -> None:
    coarse = np.random.default_rng(1).integers(0, 256, (9, 9, 3), np.uint8)
    original = Image.fromarray(coarse).resize((300, 200), Image.Resampling.BICUBIC)
    copy = original.transpose(Image.Transpose.ROTATE_270).resize((100, 150))
    found = verified(copy, original)
    assert found is not None
    assert found.num_inliers == 0
    assert "turned by 90° clockwise" in found.reasons


@given(
    angle=st.floats(-180, 180),
    scale=st.floats(0.7, 1.4),
    mirrored=st.booleans(),
)
@settings(max_examples=15)
def test_the_map_is_the_one_that_was_drawn(scene, angle: float, scale: float, mirrored: bool) -> None:
    original = scene(7)
    size = (round(320 * scale), round(240 * scale))
    copy = original.resize(size, Image.Resampling.BICUBIC)
    copy = (ImageOps.mirror(copy) if mirrored else copy).rotate(angle, Image.Resampling.BICUBIC, expand=True)
    found = align(match(detect_in(gray_pixels(copy, 512), 800), detect_in(gray_pixels(original, 320), 400)))
    assert found is not None
    assert found.mirrored == mirrored
    turn = math.degrees(math.atan2(found.matrix[1, 0], found.matrix[0, 0]))
    # The mirror is undone first, which turns the turn around.
    expected = -angle if mirrored else angle
    assert abs((turn - expected + 180) % 360 - 180) < 1


@pytest.mark.parametrize("quality", [1, 10, 35, 50, 75, 90, 100])
def test_jpeg_quality_is_that_of_the_file(scene, quality: int) -> None:
    buffer = io.BytesIO()
    scene(0).save(buffer, "JPEG", quality=quality)
    assert jpeg_quality(buffer.getvalue()) == quality


def test_no_jpeg_has_no_quality(scene) -> None:
    buffer = io.BytesIO()
    scene(0).save(buffer, "PNG")
    assert jpeg_quality(buffer.getvalue()) is None
    assert jpeg_quality(b"\xff\xd8\xff\xdb\x00\x43\x00") is None
    assert jpeg_quality(b"") is None


@given(height=st.integers(8, 60), width=st.integers(8, 60), seed=st.integers(0, 99))
@settings(max_examples=60)
def test_agreement_is_that_of_blocks_one_by_one(height: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    theirs = cv2.resize(rng.uniform(0, 255, (5, 5, 3)).astype(np.float32), (width, height))
    ours = theirs * rng.uniform(0.5, 1.5) + rng.normal(0, 4, theirs.shape).astype(np.float32)
    ours[: height // 3] = rng.uniform(0, 255, (height // 3, width, 3))
    inside = np.ones((height, width), bool)
    inside[:, : int(rng.integers(width))] = bool(seed % 3)
    a, b = (cv2.GaussianBlur(luma(image), (0, 0), 1.0).astype(np.float64) for image in (ours, theirs))
    values, weights, expected = [], [], inside.copy()
    for rows in np.array_split(np.arange(height), 8):
        for columns in np.array_split(np.arange(width), 8):
            block = np.ix_(rows, columns)
            x, y = a[block][inside[block]], b[block][inside[block]]
            if inside[block].mean() >= 0.5 and max(x.std(), y.std()) >= 3:
                values.append(((x - x.mean()) * (y - y.mean())).mean() / max(x.std() * y.std(), 3))
                weights.append(y.std() + 3)
                expected[block] &= values[-1] >= 0.35
    if not values:
        return
    agreement, disagreeing, agreeing = block_agreement(ours, theirs, inside)
    assert agreement == pytest.approx(np.average(np.clip(values, 0, 1), weights=weights), abs=1e-5)
    assert disagreeing == pytest.approx(np.mean(np.array(values) < 0.35))
    np.testing.assert_array_equal(agreeing, expected)
