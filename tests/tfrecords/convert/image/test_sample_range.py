"""The range of deep samples: what --range makes of 12 bits in 16, of X-rays and depth maps; and when a note is due."""

from __future__ import annotations

import importlib.util
import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tfrecords.base_errors import UsageError
from tfrecords.convert.image.decoder import DecodedImage, ImageOptions, load_image
from tfrecords.convert.image.image_reader import read_image
from tfrecords.convert.image.sample_range import eight_bits, parse_range
from tfrecords.format.quarantine import Refusal

RAMP = np.linspace(0, 1, 16 * 16).reshape(16, 16)


def saved(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def loaded(data: bytes, choice: str = "auto") -> DecodedImage:
    found = [
        load_image(data, ImageOptions(image_size=16, decode=how, sample_range=parse_range(choice)))
        for how in ("fast", "exact")
    ]
    np.testing.assert_array_equal(found[0].pixels, found[1].pixels)
    assert found[0].narrow is found[1].narrow
    return found[0]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize(
    ("choice", "low", "high", "narrow"),
    [
        ("auto", 0, 4095 / 257, True),
        ("full", 0, 4095 / 257, True),
        ("min-max", 0, 255, False),
        ("0,4095", 0, 255, False),
        ("0,8190", 0, 127.5, False),
        ("2048,4096", 0, 255, False),
        ("0,60000", 0, 4095 / 60000 * 255, True),
        ("5000,6000", 0, 0, True),
    ],
)
def test_twelve_bits_in_sixteen(kind: str, choice: str, low: float, high: float, narrow: bool) -> None:
    found = loaded(saved((RAMP * 4095).astype(np.uint16), kind), choice)
    assert found.narrow is narrow
    assert abs(int(found.pixels.min()) - low) <= 1
    assert abs(int(found.pixels.max()) - high) <= 1
    assert (np.diff(found.pixels[..., 0].ravel().astype(int)) >= 0).all()


@pytest.mark.parametrize(
    ("pixels", "narrow"),
    [
        ((RAMP * 65535).astype(np.uint16), False),
        ((RAMP * 7000).astype(np.uint16), False),  # a little more than a tenth
        ((RAMP * 6000 + 30_000).astype(np.uint16), True),  # gray, and flat
        (np.full((16, 16), 300, np.uint16), False),  # nothing to see, whatever the range
        ((RAMP * 20).astype(np.uint8), False),  # eight bits are what they are
        ((RAMP * 20).astype(np.float32), True),  # one of 255
        ((RAMP * 0.05).astype(np.float32), True),
        ((RAMP * 0.5).astype(np.float32), False),
        ((RAMP * 3000).astype(np.float32), True),  # heights in meters, of 65,535
    ],
)
def test_a_note_is_due_below_a_tenth(pixels: np.ndarray, narrow: bool) -> None:
    assert loaded(saved(pixels, "TIFF")).narrow is narrow


@pytest.mark.parametrize("alpha", [False, True])
def test_color_of_sixteen_bits(alpha: bool, deep_png: Any) -> None:
    """Of which Pillow keeps the upper eight, of which 12 bits fill four."""
    color = np.stack([RAMP, RAMP.T, np.zeros_like(RAMP)], axis=-1)
    pixels = (color * 4095).astype(np.uint16)
    if alpha:
        pixels = np.concatenate([pixels, np.full((16, 16, 1), 65535, np.uint16)], axis=2)
    data = deep_png(pixels)
    assert loaded(data).narrow
    for choice in ("0,4095", "min-max"):
        found = loaded(data, choice)
        assert not found.narrow
        np.testing.assert_allclose(found.pixels.astype(float), color * 255, atol=1)
    assert not loaded(deep_png((color * 65535).astype(np.uint16))).narrow


def test_the_gray_that_is_transparent_stays_so(deep_png: Any) -> None:
    pixels = (RAMP * 4095).astype(np.uint16)
    data = deep_png(pixels, (b"tRNS", int(pixels[0, 0]).to_bytes(2)))
    found = loaded(data, "0,4095").pixels
    assert found[0, 0].tolist() == [255, 255, 255]
    assert found[0, 2, 0] < 10


@pytest.mark.parametrize("choice", ["auto", "min-max", "0,4095"])
def test_the_color_that_is_transparent_stays_so(deep_png: Any, choice: str) -> None:
    pixels = np.stack([RAMP, RAMP, RAMP], axis=-1)
    pixels = (pixels * 4095).astype(np.uint16)
    found = loaded(deep_png(pixels, (b"tRNS", pixels[3, 3].astype(">u2").tobytes())), choice).pixels
    assert found[3, 3].tolist() == [255, 255, 255]
    assert found[3, 2, 0] < 100


@pytest.mark.skipif(importlib.util.find_spec("tifffile") is not None, reason="tifffile is installed")
def test_color_in_a_tiff_needs_an_extra_for_a_range_of_its_own() -> None:
    with zipfile.ZipFile(Path(__file__).with_name("formats.zip")) as archive:
        data = archive.read("rgb16-predictor.tif")
    loaded(data)
    with pytest.raises(Refusal, match=r"unsupported: --range for color of 16 bits .* pip install 'simimg-tf\[tiff\]'"):
        loaded(data, "min-max")


def pgm(values: np.ndarray, most: int, *, plain: bool = False) -> bytes:
    header = b"P%d\n# a comment\n%d %d %d\n" % (2 if plain else 5, values.shape[1], values.shape[0], most)
    return header + (b" ".join(b"%d" % value for value in values.flat) if plain else values.astype(">u2").tobytes())


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("most", [300, 1023, 4095, 10_000, 65535])
def test_a_range_is_of_the_values_in_a_pgm(most: int, plain: bool) -> None:
    """Which Pillow scales to 16 bits."""
    values = np.rint(RAMP * most).astype(np.uint16)
    data = pgm(values, most, plain=plain)
    for low, high in ((0, most), (0, most // 2), (most // 4, most // 2)):
        expected = np.clip((values.astype(float) - low) / (high - low) * 255, 0, 255)
        np.testing.assert_allclose(loaded(data, f"{low},{high}").pixels[..., 0].astype(float), expected, atol=1)
    for choice in ("auto", "full", "min-max"):
        np.testing.assert_allclose(loaded(data, choice).pixels[..., 0].astype(float), RAMP * 255, atol=1.5)


@pytest.mark.parametrize("kind", ["j2k", "jp2", "signed j2k", "jxl", "jxl container"])
@pytest.mark.parametrize("bits", [10, 12, 15, 16])
def test_a_range_is_of_the_values_in_other_formats(kind: str, bits: int) -> None:
    """OpenJPEG and libjxl give 16 bits as well; signed samples begin at 0."""
    imagecodecs = pytest.importorskip("imagecodecs")
    most = 2**bits - 1
    values = np.rint(RAMP * most).astype(np.uint16)
    lowest = 0
    if kind.startswith("jxl"):
        pytest.importorskip("pillow_jxl")
        data = imagecodecs.jpegxl_encode(values, bitspersample=bits, lossless=True, usecontainer=kind != "jxl")
    else:
        if kind.startswith("signed"):
            lowest = -(2 ** (bits - 1))
            values = (values.astype(np.int32) + lowest).astype(np.int16)
        data = imagecodecs.jpeg2k_encode(values, bitspersample=bits, codecformat=kind[-3:], level=0, reversible=True)
    for low, high in ((lowest, lowest + most), (lowest + most // 4, lowest + most // 2)):
        expected = np.clip((values.astype(float) - low) / (high - low) * 255, 0, 255)
        found = read_image(data, sample_range=(low, high)).image  # before its profile is applied
        np.testing.assert_allclose(np.asarray(found).astype(float), expected, atol=1)


def test_min_max_is_of_each_image_and_lo_hi_of_all() -> None:
    dark, bright = (saved((RAMP * most).astype(np.uint16)) for most in (1000, 2000))
    assert loaded(dark, "min-max").pixels.max() == loaded(bright, "min-max").pixels.max() == 255
    assert int(loaded(dark, "0,2000").pixels.max()) in (127, 128)
    assert loaded(bright, "0,2000").pixels.max() == 255


def test_eight_bits_are_not_stretched() -> None:
    data = saved((RAMP * 20).astype(np.uint8))
    np.testing.assert_array_equal(loaded(data, "min-max").pixels, loaded(data).pixels)


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32, np.int32, np.float32, np.float64])
@pytest.mark.parametrize("choice", ["auto", "full", "min-max", "-10,300"])
def test_equal_samples_and_any_type(dtype: Any, choice: str) -> None:
    for values in (np.zeros((2, 3), dtype), np.full((2, 3), 200, dtype)):
        found = eight_bits(values, parse_range(choice))
        assert found.samples.dtype == np.uint8
        assert found.samples.shape == (2, 3)
        assert not found.narrow


@pytest.mark.parametrize("text", ["", "5", "5,5", "9,3", "a,b", "0,nan", "0,inf", "0,1,2", "minmax"])
def test_what_is_no_range(text: str) -> None:
    with pytest.raises(UsageError, match=r"--range=.*: should be auto, full, min-max, or the values"):
        parse_range(text)
