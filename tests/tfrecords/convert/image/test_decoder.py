"""Whatever a picture file is, its pixels come out upright, RGB and uint8, or it is refused with a reason."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from tfrecords.convert.image.decoder import RESIZES, WHITE, decode, encode, resize
from tfrecords.format.quarantine import Reason, Refusal

ORIENTATION = 0x0112


def picture(height: int = 5, width: int = 7, seed: int = 0, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def decoded(data: bytes) -> np.ndarray:
    image = decode(data)
    assert image.mode == "RGB"
    return np.asarray(image)


def refused(data: bytes) -> Refusal:
    with pytest.raises(Refusal) as caught:
        decode(data)
    return caught.value


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, depth: int, color: int, rows: bytes, extra: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    body = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("kind", ["PNG", "BMP", "PPM", "TIFF", "TGA"])
def test_lossless_formats_give_their_pixels(kind: str) -> None:
    pixels = picture()
    np.testing.assert_array_equal(decoded(saved(Image.fromarray(pixels), kind)), pixels)


def test_webp_gives_its_pixels() -> None:
    pixels = picture()
    np.testing.assert_array_equal(decoded(saved(Image.fromarray(pixels), "WEBP", lossless=True)), pixels)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_every_exif_orientation(
    kind: str, orientation: int, turned_upright: dict[int, Callable[[np.ndarray], np.ndarray]]
) -> None:
    stored = picture()
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    data = saved(Image.fromarray(stored), kind, exif=exif)
    np.testing.assert_array_equal(decoded(data), turned_upright[orientation](stored))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_of_a_jpeg(
    orientation: int, turned_upright: dict[int, Callable[[np.ndarray], np.ndarray]]
) -> None:
    """Four flat quarters, which survive JPEG nearly unchanged."""
    corners = np.array([[[250, 0, 0], [0, 250, 0]], [[0, 0, 250], [120, 120, 120]]], np.uint8)
    stored = corners.repeat(16, axis=0).repeat(32, axis=1)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    found = decoded(saved(Image.fromarray(stored), "JPEG", exif=exif, quality=95, subsampling=0))
    expected = turned_upright[orientation](stored)
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).mean() < 3


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_unknown_orientation_changes_nothing(orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    np.testing.assert_array_equal(decoded(saved(Image.fromarray(picture()), "PNG", exif=exif)), picture())


@pytest.mark.parametrize("exif", [b"Exif\0\0garbage!", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"Exif\0\0"])
def test_damaged_exif_does_not_refuse_the_picture(exif: bytes) -> None:
    assert decode(saved(Image.fromarray(picture()), "JPEG", exif=exif)).size == (7, 5)


def test_transparency_is_laid_on_white() -> None:
    half = np.zeros((1, 3, 4), np.uint8)
    half[0, :, 0] = 200
    half[0, :, 3] = (0, 128, 255)
    expected = [[list(WHITE), [227, 127, 127], [200, 0, 0]]]
    for kind in ("PNG", "TIFF", "WEBP"):
        options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
        found = decoded(saved(Image.fromarray(half), kind, **options))
        np.testing.assert_allclose(found, expected, atol=1)


def test_gray_with_transparency() -> None:
    gray = np.array([[[10, 0], [10, 255]]], np.uint8)
    np.testing.assert_array_equal(decoded(saved(Image.fromarray(gray), "PNG")), [[[255] * 3, [10] * 3]])


def test_palette_with_transparency() -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    for x in range(3):
        image.putpixel((x, 0), x)
    expected = [[[10, 20, 30], [255, 255, 255], [70, 80, 90]]]
    np.testing.assert_array_equal(decoded(saved(image, "PNG", transparency=1)), expected)
    np.testing.assert_array_equal(decoded(saved(image, "GIF", transparency=1)), expected)
    np.testing.assert_array_equal(decoded(saved(image, "PNG", transparency=b"\xff\x00\xff")), expected)
    np.testing.assert_array_equal(decoded(saved(image, "PNG")), [[[10, 20, 30], [40, 50, 60], [70, 80, 90]]])


def test_transparent_color_of_a_png_without_alpha() -> None:
    key = chunk(b"tRNS", struct.pack(">H", 200))
    np.testing.assert_array_equal(decoded(png(2, 1, 8, 0, bytes([0, 3, 200]), key)), [[[3] * 3, [255] * 3]])
    key = chunk(b"tRNS", struct.pack(">HHH", 1, 2, 3))
    found = decoded(png(2, 1, 8, 2, bytes([0, 1, 2, 3, 4, 5, 6]), key))
    np.testing.assert_array_equal(found, [[[255] * 3, [4, 5, 6]]])
    key = chunk(b"tRNS", struct.pack(">H", 1))
    np.testing.assert_array_equal(decoded(png(2, 1, 1, 0, b"\0\x40", key)), [[[0] * 3, [255] * 3]])


def test_sixteen_bit_gray_with_a_transparent_color() -> None:
    rows = b"\0" + struct.pack(">HHH", 0x0100, 0x8000, 0xFFFF)
    found = decoded(png(3, 1, 16, 0, rows, chunk(b"tRNS", struct.pack(">H", 0x8000))))
    np.testing.assert_array_equal(found, [[[1] * 3, [255] * 3, [255] * 3]])


def test_black_and_white() -> None:
    bits = np.array([[True, False], [False, True]])
    expected = np.repeat(bits[..., None] * np.uint8(255), 3, axis=2)
    np.testing.assert_array_equal(decoded(saved(Image.fromarray(bits), "PNG")), expected)


def test_gray() -> None:
    gray = picture(channels=1)
    expected = gray.repeat(3, axis=2)
    for kind in ("PNG", "TIFF", "BMP"):
        np.testing.assert_array_equal(decoded(saved(Image.fromarray(gray[..., 0]), kind)), expected)


def test_sixteen_bits_keep_the_upper_eight() -> None:
    wide = np.array([[0, 255, 256, 0x1234, 0xFFFF]], np.uint16)
    expected = np.repeat((wide >> 8)[..., None], 3, axis=2)
    for kind in ("PNG", "TIFF", "PPM"):
        np.testing.assert_array_equal(decoded(saved(Image.fromarray(wide), kind)), expected)


def test_thirty_two_bits_are_taken_for_eight_or_sixteen() -> None:
    for values, expected in [([-5, 0, 200, 255], [0, 0, 200, 255]), ([0, 256, 0xFFFF, 2**31 - 1], [0, 1, 255, 255])]:
        found = decoded(saved(Image.fromarray(np.array([values], np.int32)), "TIFF"))
        np.testing.assert_array_equal(found, np.repeat(np.array([expected])[..., None], 3, axis=2))


def test_floating_point_in_0_to_1_or_0_to_255() -> None:
    for values, expected in [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([-3.0, 127.0, 300.0], [0, 127, 255]),
        ([float("nan"), 254.6, float("inf")], [0, 255, 255]),
    ]:
        found = decoded(saved(Image.fromarray(np.array([values], np.float32)), "TIFF"))
        np.testing.assert_array_equal(found, np.repeat(np.array([expected])[..., None], 3, axis=2))


def test_cmyk() -> None:
    """Paper, no ink: white. Full black ink: black. Full cyan: no red."""
    ink = np.array([[0, 0, 0, 0], [0, 0, 0, 255], [255, 0, 0, 0]], np.uint8)
    image = Image.fromarray(ink.reshape(1, 3, 4).repeat(16, axis=0).repeat(16, axis=1), mode="CMYK")
    for data in (saved(image, "TIFF"), saved(image, "JPEG", quality=95)):
        found = decoded(data)[8, 8::16].astype(int)
        np.testing.assert_allclose(found, [[255, 255, 255], [0, 0, 0], [0, 255, 255]], atol=6)


def test_lab() -> None:
    lab = ImageCms.profileToProfile(
        Image.new("RGB", (2, 2), (200, 30, 40)),
        ImageCms.createProfile("sRGB"),
        ImageCms.createProfile("LAB"),
        outputMode="LAB",
    )
    assert lab is not None
    np.testing.assert_allclose(decoded(saved(lab, "TIFF"))[0, 0], [200, 30, 40], atol=4)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_an_animation_gives_its_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (6, 4), color) for color in ("red", "blue", "lime")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = saved(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert getattr(Image.open(io.BytesIO(data)), "n_frames", 1) == 3
    np.testing.assert_array_equal(decoded(data), np.broadcast_to(np.uint8([255, 0, 0]), (4, 6, 3)))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
def test_every_truncation_is_refused_or_whole(kind: str) -> None:
    """Some formats end in bytes that no pixel needs; without those the picture is the same, never another."""
    data = saved(Image.fromarray(picture(12, 12)), kind)
    whole = decoded(data)
    num_refused = 0
    for length in range(0, len(data), 3):
        try:
            np.testing.assert_array_equal(decoded(data[:length]), whole)
        except Refusal:
            num_refused += 1
    assert num_refused > len(data) // 3 * 0.9


def test_a_damaged_checksum_is_corrupt() -> None:
    data = bytearray(saved(Image.fromarray(picture(40, 40)), "PNG"))
    data[data.index(b"IDAT") + 30] ^= 0xFF
    assert refused(bytes(data)).reason in (Reason.CORRUPT, Reason.TRUNCATED)


@given(st.data())
@settings(max_examples=150)
def test_damaged_pictures_are_decoded_or_refused(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["JPEG", "PNG", "GIF", "TIFF", "BMP", "WEBP"]))
    bytes_ = bytearray(saved(Image.fromarray(picture(12, 12)), kind))
    for at, flip in data.draw(st.lists(st.tuples(st.integers(0, len(bytes_) - 1), st.integers(1, 255)), max_size=4)):
        bytes_[at] ^= flip
    try:
        image = decode(bytes(bytes_))
    except Refusal:
        return
    assert image.mode == "RGB"
    assert {resize(image, 8, how).shape for how in RESIZES} == {(8, 8, 3)}


@pytest.mark.parametrize("how", RESIZES)
@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (7, 5), (64, 64)])
@pytest.mark.parametrize("image_size", [1, 8, 65])
def test_every_picture_becomes_a_square(how: str, size: tuple[int, int], image_size: int) -> None:
    pixels = resize(Image.new("RGB", size, (10, 20, 30)), image_size, how)
    assert pixels.shape == (image_size, image_size, 3)
    assert pixels.dtype == np.uint8
    assert (pixels == (10, 20, 30)).all(axis=2).any()  # some of the picture is left


@pytest.mark.parametrize("size", [(7, 5), (64, 64), (300, 200), (1, 1)])
def test_stretch_is_pillows_bicubic(size: tuple[int, int]) -> None:
    image = Image.fromarray(picture(size[1], size[0]))
    expected = np.asarray(image.resize((16, 16), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(resize(image, 16, "stretch"), expected)


def stripes(horizontal: bool) -> Image.Image:
    """Returns 90 x 30 or 30 x 90 px: red, green, blue thirds along the long side."""
    colors = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8).repeat(30, axis=1).repeat(30, axis=0)
    return Image.fromarray(colors if horizontal else colors.transpose(1, 0, 2).copy())


@pytest.mark.parametrize("horizontal", [True, False])
def test_crop_keeps_the_middle(horizontal: bool) -> None:
    pixels = resize(stripes(horizontal), 30, "crop")
    np.testing.assert_array_equal(pixels, np.broadcast_to(np.uint8([0, 255, 0]), (30, 30, 3)))


@pytest.mark.parametrize("horizontal", [True, False])
def test_pad_adds_paper_on_both_sides(horizontal: bool) -> None:
    pixels = resize(stripes(horizontal), 90, "pad")
    pixels = pixels if horizontal else pixels.transpose(1, 0, 2)
    np.testing.assert_array_equal(pixels[30:60], np.asarray(stripes(horizontal=True)))
    assert (pixels[:30] == 255).all()
    assert (pixels[60:] == 255).all()


def test_pad_keeps_the_aspect_ratio_while_reducing() -> None:
    pixels = resize(Image.new("RGB", (200, 100), "black"), 50, "pad")
    assert (pixels == 0).all(axis=2).sum() == 50 * 25


def test_the_three_ways_differ() -> None:
    results = [resize(stripes(horizontal=True), 8, how).tobytes() for how in RESIZES]
    assert len(set(results)) == 3


def test_another_way_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"`how` should be one of .* Received: how='squash'"):
        resize(Image.new("RGB", (2, 2)), 2, "squash")


def test_encodings() -> None:
    pixels = picture(8, 8)
    assert encode(pixels, "raw", 95) == bytes(pixels)
    np.testing.assert_array_equal(decoded(encode(pixels, "png", 95)), pixels)
    jpeg = Image.open(io.BytesIO(encode(pixels, "jpeg", 95)))
    assert jpeg.format == "JPEG"
    assert jpeg.size == (8, 8)
    assert len(encode(pixels, "jpeg", 95)) > len(encode(pixels, "jpeg", 20))
    with pytest.raises(ValueError, match="Received: encoding='webp'"):
        encode(pixels, "webp", 95)
