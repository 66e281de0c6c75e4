"""Images at the size at which copies are compared, and what that comparison adds to a verification."""

from __future__ import annotations

import io
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFilter

from simimg.similarity.differences import MOST_PX, Differences, Place
from simimg.similarity.edits import BLUR, COLOR, COMPRESSION, CONTENT, CROP, EXCHANGE, OVERLAY, SIZE, STRETCH, TURN
from simimg.similarity.fingerprint import fingerprint, jpeg_quality
from simimg.similarity.full_size import alike, compared, full_image
from simimg.similarity.match_verification import SAME_PIXELS, Verification, verify
from simimg.similarity.transparency import verify_composites
from tfrecords.convert.image.color import BLACK, WHITE
from tfrecords.convert.image.decoder import decode_composites

Scene = Callable[..., Image.Image]


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((320, 240), (320, 240)),
        ((MOST_PX, MOST_PX), (MOST_PX, MOST_PX)),
        ((2048, 1536), (1024, 768)),
        ((4000, 200), (1024, 51)),
        ((1, 3000), (1, 1024)),
        ((1, 1), (1, 1)),
    ],
)
def test_the_longer_side_is_bounded(size: tuple[int, int], expected: tuple[int, int]) -> None:
    image = Image.new("RGB", size, (10, 200, 30))
    found = full_image(image)
    assert found.pixels.shape == (expected[1], expected[0], 3)
    assert found.pixels.dtype == np.uint8
    assert (found.pixels == (10, 200, 30)).all()
    assert image.size == size  # it was not changed
    assert (found.contrast, found.background, found.jpeg_quality) == (None, WHITE, None)


def token() -> Image.Image:
    """Discs with soft edges on transparency."""
    rng = np.random.default_rng(0)
    image = Image.new("RGBA", (400, 400))
    draw = ImageDraw.Draw(image)
    for _ in range(30):
        (x, y), r = rng.integers(110, 290, 2).tolist(), int(rng.integers(12, 42))
        draw.ellipse((x - r, y - r, x + r, y + r), fill=(*rng.integers(20, 256, 3).tolist(), 255))
    return image.resize((200, 200), Image.Resampling.BOX)


def laid_on(image: Image.Image, color: tuple[int, int, int]) -> Image.Image:
    paper = Image.new("RGBA", image.size, (*color, 255))
    paper.alpha_composite(image)
    return paper.convert("RGB")


@given(st.tuples(*[st.integers(0, 255)] * 3))
@settings(max_examples=20)
def test_a_transparent_image_on_any_color(color: tuple[int, int, int]) -> None:
    for background, other in ((WHITE, BLACK), (BLACK, WHITE)):
        full = full_image(laid_on(token(), background), laid_on(token(), other), background)
        found = full.on(color)
        assert found.dtype == np.uint8
        assert np.abs(found.astype(int) - np.asarray(laid_on(token(), color))).max() <= 2
        np.testing.assert_array_equal(full.on(background), full.pixels)


def test_what_only_one_background_shows_is_told(scene: Scene) -> None:
    """Transparent images are compared on both, and the second does not undo what the first one shows."""
    image, contrast = scene(1), scene(2)
    darker = image.point(lambda level: level * 2 // 3)
    found = verify(fingerprint(darker), fingerprint(image))
    assert found is not None
    for one, other in ((darker, image), (image, darker)):
        differs = compared(found, full_image(one, contrast), full_image(other, contrast)).differs
        assert differs is not None
        assert COLOR in differs.kinds


def test_an_opaque_image_is_the_same_on_any_color(scene: Scene) -> None:
    full = full_image(scene(0))
    assert full.on((9, 9, 9)) is full.pixels


def compare(query: Image.Image, candidate: Image.Image) -> tuple[Verification, Verification]:
    """The verification by thumbnails, and with what differs at full size."""
    found = verify(fingerprint(query), fingerprint(candidate))
    assert found is not None
    return found, compared(found, full_image(query), full_image(candidate))


def test_the_same_pixels_are_not_compared(scene: Scene) -> None:
    found, full = compare(scene(0), scene(0))
    assert found.reasons == (SAME_PIXELS,)
    assert full is found


def test_nothing_differs(scene: Scene) -> None:
    buffer = io.BytesIO()
    scene(0, (640, 480)).save(buffer, "JPEG", quality=70)
    candidate = scene(0, (640, 480))
    query = Image.open(buffer).resize((320, 240))
    quality = jpeg_quality(buffer.getvalue())
    found = verify(fingerprint(query, quality=quality), fingerprint(candidate))
    assert found is not None
    full = compared(found, full_image(query, quality=quality), full_image(candidate))
    assert full.differs is not None
    assert not full.differs.places
    assert full.similarity == found.similarity
    assert full.edits == {SIZE, COMPRESSION}
    assert full.reasons == found.reasons


def test_no_more_is_looked_for_once_an_edit_is_known_that_does_not_matter(scene: Scene) -> None:
    image = scene(0, (640, 480))
    query = image.filter(ImageFilter.GaussianBlur(3))
    query.paste("white", (200, 200, 260, 240))
    found, full = compare(query, image)
    assert full.differs is not None
    assert full.differs.places
    for within, is_all in (({BLUR, SIZE}, True), ({SIZE, COMPRESSION}, False)):
        for turned in (False, True):  # either of them may be the query
            pair = [full_image(one) for one in (query, image)]
            some = compared(found.reversed(), *pair[::-1], within) if turned else compared(found, *pair, within)
            assert some.differs is not None
            assert bool(some.differs.places) is is_all
            assert BLUR in some.differs.kinds


def bent(image: Image.Image) -> Image.Image:
    """As from another place: what is bright is nearer, and moves by up to 6 px."""
    pixels = np.asarray(image)
    near = cv2.GaussianBlur(np.asarray(image.convert("L")).astype(np.float32), (0, 0), 16) / 255
    y, x = np.mgrid[: image.height, : image.width].astype(np.float32)
    return Image.fromarray(cv2.remap(pixels, x + 6 * near, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE))


def scaled(*factors: float) -> Callable[[Image.Image], Image.Image]:
    return lambda image: Image.fromarray(np.clip(np.asarray(image) * np.array(factors), 0, 255).astype(np.uint8))


def shaded(image: Image.Image) -> Image.Image:
    light = np.linspace(1, 0.85, image.width)[:, None]
    return Image.fromarray((np.asarray(image) * light).astype(np.uint8))


SLIGHT: dict[str, tuple[Callable[[Image.Image], Image.Image], frozenset[str]]] = {
    "cropped": (lambda image: image.crop((4, 3, image.width - 3, image.height - 4)), frozenset({CROP})),
    "cropped at one side": (lambda image: image.crop((0, 0, image.width - 9, image.height)), frozenset({CROP})),
    "turned": (lambda image: image.rotate(1, Image.Resampling.BICUBIC), frozenset({TURN})),
    "stretched": (lambda image: image.resize((image.width, image.height * 103 // 100)), frozenset({STRETCH})),
    "warmer": (scaled(1.05, 1, 0.95), frozenset({COLOR})),
    "brighter": (scaled(1.06), frozenset({COLOR})),
    "darker at one side": (shaded, frozenset({COLOR})),
    "from another place": (bent, frozenset({OVERLAY, CONTENT})),
}


@pytest.mark.parametrize("edit", SLIGHT)
def test_slight_edits_are_more_than_size_and_compression(edit: str, scene: Scene) -> None:
    """Both ways round; what is only saved again at another size is none of them."""
    function, expected = SLIGHT[edit]
    noise = np.random.default_rng(0).normal(0, 4, (300, 400, 3))
    image = Image.fromarray(np.clip(np.asarray(scene(3, (400, 300))) + noise, 0, 255).astype(np.uint8))
    _, found = compare(function(image), image)
    _, back = compare(image, function(image))
    assert found.edits & expected
    assert found.edits >= expected or edit == "from another place"
    assert (back.edits, back.reasons) == (found.reversed_edits, found.reversed_reasons)
    assert found.text != "looks the same" != back.text
    _, again = compare(image.resize((300, 225)), image)
    assert again.edits == again.reversed_edits == {SIZE}


def test_what_was_laid_over_is_told_and_keeps_the_similarity(scene: Scene) -> None:
    query = scene(1).copy()
    ImageDraw.Draw(query).text((60, 100), "SAMPLE", fill="white", stroke_width=3, stroke_fill="black", font_size=50)
    found, full = compare(query, scene(1))
    assert full.differs is not None
    assert full.edits == {OVERLAY}
    assert full.similarity == found.similarity
    assert full.reasons == (full.differs.text,)
    assert full.text == full.differs.text
    assert "of the area" in full.text


def shirt(color: tuple[int, int, int]) -> Image.Image:
    image = Image.new("RGB", (400, 400), "white")
    draw = ImageDraw.Draw(image)
    draw.polygon(
        [(100, 80), (300, 80), (350, 150), (290, 180), (290, 350), (110, 350), (110, 180), (50, 150)], fill=color
    )
    draw.text((160, 180), "No. 17", fill="white", font_size=30)
    for x in range(120, 290, 20):
        draw.line((x, 250 + x % 50, x + 10, 330 - x % 30), fill="black", width=3)
    return image


def test_an_exchanged_color_lowers_the_similarity_by_its_area() -> None:
    found, full = compare(shirt((200, 30, 30)), shirt((40, 80, 200)))
    assert full.differs is not None
    assert EXCHANGE in full.edits
    assert 0.2 < full.differs.area < 0.5
    assert full.similarity == pytest.approx(0.5 + (found.similarity - 0.5) * (1 - full.differs.area))
    assert f"other colors in {full.differs.area:.0%} of the area" in full.reasons


def test_coverage_of_thumbnails_is_replaced() -> None:
    """What a thumbnail shows of it is less exact."""
    found = Verification(0.9, ("mirrored", "12% covered or changed"), 40, edits=frozenset({"mirror", OVERLAY}))
    same = alike(found)
    assert same.reasons == ("mirrored",)
    assert same.edits == {"mirror"}
    assert same.differs == Differences()
    assert same.similarity == 0.9
    plain = full_image(Image.new("RGB", (64, 64), "gray"))
    assert compared(found, plain, plain) == same


def test_transparent_images_are_compared_on_both_backgrounds() -> None:
    """White text on transparency is seen on black alone."""
    with_text = token()
    ImageDraw.Draw(with_text).text((12, 12), "NEW", fill=(255, 255, 255, 255), font_size=32)
    images = []
    for image in (with_text, token()):
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        composites = decode_composites(buffer.getvalue())
        images.append((fingerprint(composites[0], contrast=composites[1]), full_image(*composites)))
    (ours, query), (theirs, candidate) = images
    found = verify_composites(ours, theirs)
    assert found is not None
    full = compared(found, query, candidate)
    assert full.differs is not None
    assert full.edits & {OVERLAY, CONTENT}
    for place in full.differs.places:
        assert isinstance(place, Place)
        assert place.box[2] < 0.6
        assert place.box[3] < 0.35


def test_a_transparent_image_is_compared_on_the_color_of_the_opaque_one() -> None:
    buffer = io.BytesIO()
    token().save(buffer, "PNG")
    composites = decode_composites(buffer.getvalue())
    transparent = fingerprint(composites[0], contrast=composites[1])
    gray = laid_on(token(), (96, 96, 96))
    found = verify_composites(fingerprint(gray), transparent)
    assert found is not None
    assert found.reasons[0].startswith("laid on #")
    full = compared(found, full_image(gray), full_image(*composites))
    assert full.differs is not None
    assert not full.differs.places
