"""Crops: where they lie, and that their pixels are those of Pillow's whole decode, crop and resize."""

import io

import numpy as np
import pytest
import simplejpeg
import tensorflow as tf
from PIL import Image

from simimg.augment import parameters
from simimg.errors import UsageError
from simimg.input import jpeg_regions
from simimg.input.crops import MAX_ASPECT, MIN_AREA, VIEW, CropBox, Crops, crop_pixels, uniform
from tfrecords.format.image_size import Rectangle

SIZES = [(500, 375), (333, 500), (640, 480), (91, 57), (40, 1000), (1, 1), (1500, 1201)]


def jpeg(size: tuple[int, int], **options) -> tuple[bytes, Image.Image]:
    rng = np.random.default_rng(size[0])
    coarse = Image.fromarray(rng.integers(0, 256, (size[1] // 6 + 2, size[0] // 6 + 2, 3), np.uint8))
    buffer = io.BytesIO()
    coarse.resize(size, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=92, **options)
    return buffer.getvalue(), Image.open(buffer).convert("RGB")


def cropped(data: bytes, size: tuple[int, int], box: CropBox, side: int) -> np.ndarray:
    pixels = np.empty((side, side, 3), np.uint8)
    crop_pixels(memoryview(data), pixels, size, box)
    return pixels


def test_the_numbers_are_those_of_the_augmentation_and_do_not_change() -> None:
    ids = np.array([0, 1, 7, 2**40], np.int64)
    for seed, epoch in ((0, 0), (3, 5), (2**32 - 1, 2**20), (-1, 1)):
        mine = uniform(seed, epoch, ids, 40)
        theirs = parameters.uniform(seed, tf.constant(epoch, tf.int64), tf.constant(ids), 40, view=VIEW).numpy()
        np.testing.assert_array_equal(np.floor(mine * 2**24) * 2.0**-24, theirs)
        assert ((mine >= 0) & (mine < 1)).all()
    # Who resumes a run that began with an earlier version would see other crops.
    (box,) = Crops().boxes(np.array([[500, 375]]), np.array([7]), (3, 5))
    assert (box.left, box.top, box.right, box.bottom, box.is_cut) == GOLDEN


GOLDEN = (145, 14, 372, 186, True)


def test_random_crops_are_those_of_the_field() -> None:
    width, height, count = 500, 375, 4000
    boxes = Crops().boxes(np.tile([[width, height]], (count, 1)), np.arange(count), (0, 0))
    left, top, right, bottom = np.array([(box.left, box.top, box.right, box.bottom) for box in boxes]).T
    assert (left >= 0).all()
    assert (top >= 0).all()
    assert (right <= width).all()
    assert (bottom <= height).all()
    assert left.min() == 0
    assert right.max() == width
    area = (right - left) * (bottom - top) / (width * height)
    ratio = (right - left) / (bottom - top)
    assert MIN_AREA * 0.98 <= area.min() < 0.09
    assert 0.95 < area.max() <= 1
    assert 1 / MAX_ASPECT * 0.98 <= ratio.min() < 0.77
    assert 1.3 < ratio.max() <= MAX_ASPECT * 1.02
    # Another id, epoch or seed: another crop.
    assert len({(box.left, box.top, box.right, box.bottom) for box in boxes}) > 0.99 * count
    one = np.array([[width, height]])
    assert len({Crops().boxes(one, np.array([0]), (seed, epoch))[0] for seed in range(5) for epoch in range(5)}) == 25


@pytest.mark.parametrize("size", SIZES)
def test_every_image_has_crops(size: tuple[int, int]) -> None:
    width, height = size
    for how in (None, *((0, epoch) for epoch in range(50))):
        (box,) = Crops().boxes(np.array([size]), np.array([3]), how)
        assert 0 <= box.left < box.right <= width + 1e-9
        assert 0 <= box.top < box.bottom <= height + 1e-9


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("side", [224, 96])
def test_pixels_are_those_of_pillow(size: tuple[int, int], side: int) -> None:
    """Decoded whole, cut, and resized by Pillow; one level of rounding. Much larger images are reduced first: this
    picture has a new color every 6 px, and differs by more than photos do.
    """
    data, image = jpeg(size)
    for epoch in range(6):
        (box,) = Crops().boxes(np.array([size]), np.array([1]), (0, epoch))
        edges = tuple(map(int, (box.left, box.top, box.right, box.bottom)))
        expected = np.asarray(image.crop(edges).resize((side, side), Image.Resampling.BILINEAR), np.int16)
        reduced = min(edges[2] - edges[0], edges[3] - edges[1]) >= 2 * 2 * side
        difference = np.abs(cropped(data, size, box, side) - expected)
        assert difference.max() <= (20 if reduced else 1)
        assert difference.mean() <= (2 if reduced else 0.25)


@pytest.mark.parametrize("size", SIZES[:5])
def test_central_pixels_are_those_of_pillow(size: tuple[int, int]) -> None:
    """The short side to 256 px, and the central 224; the resize of the whole image has the same pixels."""
    data, image = jpeg(size)
    short = min(size)
    resized = tuple(256 * length // short for length in size)
    left, top = (round((length - 224) / 2) for length in resized)
    whole = image.resize(resized, Image.Resampling.BILINEAR)
    expected = np.asarray(whole.crop((left, top, left + 224, top + 224)), np.int16)
    (box,) = Crops().boxes(np.array([size]), np.array([1]), None)
    assert np.abs(cropped(data, size, box, 224) - expected).max() <= 1


@pytest.mark.parametrize("size", SIZES[:5])
@pytest.mark.parametrize("wanted", [(224, 160), (90, 128)])
def test_rectangles(size: tuple[int, int], wanted: tuple[int, int]) -> None:
    """The aspect ratio is drawn around that of the result; a central crop is cut from 8/7 of the result's size."""
    data, image = jpeg(size)
    (width, height), crops = wanted, Crops(image_size=Rectangle(*wanted))
    shares = np.array([size] * 300)
    boxes = crops.boxes(shares, np.arange(300), (0, 0))
    ratio = np.array([(box.right - box.left) / (box.bottom - box.top) for box in boxes]) / (width / height)
    assert ratio.min() >= 1 / MAX_ASPECT * 0.9
    assert ratio.max() <= MAX_ASPECT * 1.1
    (box,) = crops.boxes(shares[:1], np.array([1]), None)
    scale = max(round(8 * side / 7) / length for side, length in zip(wanted, size, strict=True))
    assert (box.right - box.left) * scale == pytest.approx(width, rel=0.02)
    assert (box.bottom - box.top) * scale == pytest.approx(height, rel=0.02)
    assert abs(box.left + box.right - size[0]) <= 2 / scale
    assert abs(box.top + box.bottom - size[1]) <= 2 / scale
    pixels = np.zeros((height, width, 3), np.uint8)
    crop_pixels(memoryview(data), pixels, size, box)
    edges = (box.left, box.top, box.right, box.bottom)
    expected = np.asarray(image.resize(wanted, Image.Resampling.BILINEAR, edges), np.int16)
    reduced = min((edges[2] - edges[0]) / width, (edges[3] - edges[1]) / height) >= 4
    assert np.abs(pixels - expected).max() <= (20 if reduced else 1)


def test_a_fallback_has_the_same_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for library in (jpeg_regions.region_library(), None):
        monkeypatch.setattr(jpeg_regions, "region_library", lambda library=library: library)
        for size in SIZES:
            data, _ = jpeg(size, subsampling="4:2:0")
            for run in ((0, 0), (0, 1), None):
                (box,) = Crops().boxes(np.array([size]), np.array([5]), run)
                found.append(cropped(data, size, box, 64))
    half = len(found) // 2
    np.testing.assert_array_equal(np.stack(found[:half]), np.stack(found[half:]))


@pytest.mark.parametrize("sampling", ["444", "422", "420", "440", "411"])
def test_colors_are_as_fine_as_the_crop(sampling: str) -> None:
    """The decoder of a reduced image reduces colors with it, although the file has fewer color samples."""
    picture = np.asarray(jpeg((1500, 1201))[1])
    data = simplejpeg.encode_jpeg(picture, 92, "RGB", sampling)
    image = Image.open(io.BytesIO(data)).convert("RGB")
    expected = np.asarray(image.crop((8, 5, 1400, 1200)).resize((96, 96), Image.Resampling.BILINEAR), np.int16)
    difference = np.abs(cropped(data, (1500, 1201), CropBox(8, 5, 1400, 1200, True), 96) - expected)
    assert difference.mean() < 1  # 2 to 5 with colors of half the size or a quarter


def test_no_aliasing() -> None:
    """A zone of fine stripes becomes gray when it is reduced, not other stripes."""
    stripes = np.where(np.arange(1200) % 2, 255, 0).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(np.tile(stripes, (900, 1))).convert("RGB").save(buffer, "JPEG", quality=95)
    for box in (CropBox(0, 0, 1200, 900, True), CropBox(3, 5, 400, 800, True), CropBox(10, 10, 890, 890, False)):
        assert cropped(buffer.getvalue(), (1200, 900), box, 64)[2:-2, 2:-2].std() < 12


def test_mistakes() -> None:
    with pytest.raises(UsageError, match="--image_size=0: should be 1..4096 px"):
        Crops(image_size=0)
    with pytest.raises(UsageError, match="--crop=left: should be one of random, center"):
        Crops(how="left")
