"""Colours: profiles to sRGB, CMYK of every make, transparency on any background; against Pillow and littleCMS."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageChops, ImageCms

from tfrecords.convert.image import color
from tfrecords.convert.image.color import BLACK, WHITE, color_name, contrasting, is_srgb, is_transparent, to_rgb
from tfrecords.convert.image.decoder import DECODES, ImageOptions, decode, load_image
from tfrecords.convert.image.jpeg import plain_jpeg

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
RED = (180, 60, 40)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def patches() -> Image.Image:
    """Returns 128 x 64 px of eight flat colours, which JPEG leaves nearly as they are."""
    colors = np.array(
        [[RED, (20, 90, 200), (250, 250, 250), (0, 0, 0)], [(9, 200, 30), (120,) * 3, (200, 200, 0), (60, 0, 90)]]
    )
    return Image.fromarray(colors.astype(np.uint8).repeat(32, axis=0).repeat(32, axis=1))


def centers(pixels: np.ndarray) -> np.ndarray:
    return pixels[16::32, 16::32].astype(int)


def fixed(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def matrix_profile(gamma: float, *, swap: bool = False, space: bytes = b"RGB ") -> bytes:
    """Returns a profile with the primaries of sRGB, red and green changed for each other on request."""
    primaries = [(0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410)]
    if swap:
        primaries[:2] = primaries[1::-1]
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    tags = {b"wtpt": b"XYZ \0\0\0\0" + b"".join(map(fixed, (0.9642, 1.0, 0.8249)))}
    if space == b"GRAY":
        tags[b"kTRC"] = curve
    else:
        for name, xyz in zip((b"r", b"g", b"b"), primaries, strict=True):
            tags[name + b"XYZ"] = b"XYZ \0\0\0\0" + b"".join(map(fixed, xyz))
            tags[name + b"TRC"] = curve
    at = 128 + 4 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        table += name + struct.pack(">II", at + len(body), len(content))
        body += content
    header = struct.pack(">I4sI4s4s4s", at + len(body), b"lcms", 0x02400000, b"mntr", space, b"XYZ ")
    header += bytes(12) + b"acsp" + bytes(28) + b"".join(map(fixed, (0.9642, 1.0, 0.8249)))
    return header.ljust(128, b"\0") + table + body


LINEAR = matrix_profile(1.0)
GRAY = matrix_profile(1.0, space=b"GRAY")


def linear_to_srgb(levels: np.ndarray) -> np.ndarray:
    """The curve of IEC 61966-2-1."""
    x = levels / 255
    return np.rint(255 * np.where(x <= 0.0031308, 12.92 * x, 1.055 * np.maximum(x, 1e-9) ** (1 / 2.4) - 0.055)).astype(
        int
    )


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("how", DECODES)
def test_a_profile_is_converted_to_srgb(kind: str, how: str) -> None:
    options = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}.get(kind, {})
    data = saved(patches(), kind, icc_profile=LINEAR, **options)
    expected = linear_to_srgb(centers(np.asarray(patches())))
    np.testing.assert_allclose(centers(np.asarray(decode(data))), expected, atol=12 if kind == "JPEG" else 2)
    found = load_image(data, ImageOptions(image_size=128, decode=how)).pixels[32::64, 16::32].astype(int)
    np.testing.assert_allclose(found, expected, atol=12 if kind == "JPEG" else 2)


def test_the_primaries_count() -> None:
    found = np.asarray(
        decode(saved(Image.new("RGB", (4, 4), "red"), "PNG", icc_profile=matrix_profile(2.2, swap=True)))
    )
    assert found[0, 0, 1] > 250
    assert found[0, 0, 0] < 5


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_a_profile_of_grays(kind: str) -> None:
    gray = patches().convert("L")
    data = saved(gray, kind, icc_profile=GRAY, **({"quality": 100} if kind == "JPEG" else {}))
    expected = linear_to_srgb(centers(np.asarray(gray))[..., None]).repeat(3, axis=2)
    np.testing.assert_allclose(centers(np.asarray(decode(data))), expected, atol=12 if kind == "JPEG" else 2)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "I;16"])
def test_a_profile_in_every_mode(mode: str) -> None:
    """The profile holds for the colours; what shows through is sRGB."""
    image = patches().convert("L")
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
    else:
        image = (patches() if mode in ("RGBA", "P") else image).convert(mode)
    if mode in ("RGBA", "LA"):
        image.putalpha(Image.new("L", image.size, 255))
        image.paste(0, (0, 0, 32, 32))
    gray = mode in ("LA", "L", "I;16")
    found = centers(np.asarray(decode(saved(image, "PNG", icc_profile=GRAY if gray else LINEAR))))
    expected = linear_to_srgb(
        centers(np.asarray(patches().convert("L").convert("RGB") if gray else image.convert("RGB")))
    )
    if mode in ("RGBA", "LA"):
        expected[0, 0] = WHITE
    np.testing.assert_allclose(found, expected, atol=3)


def test_a_profile_of_colors_in_a_gray_picture() -> None:
    gray = patches().convert("L")
    expected = linear_to_srgb(centers(np.asarray(gray))[..., None]).repeat(3, axis=2)
    found = centers(np.asarray(decode(saved(gray, "JPEG", icc_profile=LINEAR, quality=100))))
    np.testing.assert_allclose(found, expected, atol=12)


def test_a_profile_of_grays_in_a_picture_of_colors_is_ignored() -> None:
    np.testing.assert_array_equal(np.asarray(decode(saved(patches(), "PNG", icc_profile=GRAY))), np.asarray(patches()))


@pytest.mark.parametrize("how", DECODES)
def test_srgb_is_recognized_by_what_it_does(how: str) -> None:
    """Whatever its bytes: the one that littleCMS makes, and one with other bytes and another white."""
    lut = io.BytesIO(SRGB[:84] + bytes(16) + SRGB[100:]).getvalue()  # without its identifier
    for profile in (SRGB, lut):
        assert is_srgb(profile, "RGB")
        plain, tagged = saved(patches(), "JPEG"), saved(patches(), "JPEG", icc_profile=profile)
        assert plain_jpeg(tagged) is not None
        options = ImageOptions(image_size=16, decode=how)
        np.testing.assert_array_equal(load_image(tagged, options).pixels, load_image(plain, options).pixels)
    assert not is_srgb(LINEAR, "RGB")
    assert plain_jpeg(saved(patches(), "JPEG", icc_profile=LINEAR)) is None


@pytest.mark.parametrize(
    "profile", [b"garbage", SRGB[:150], LINEAR[:130], bytes(500), LINEAR[:300] + bytes(len(LINEAR) - 300)]
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_broken_profile_is_ignored(kind: str, profile: bytes) -> None:
    for how in DECODES:
        options = ImageOptions(image_size=16, decode=how)
        found = load_image(saved(patches(), kind, icc_profile=profile), options).pixels
        np.testing.assert_array_equal(found, load_image(saved(patches(), kind), options).pixels)


def test_transforms_are_kept_but_not_without_bound() -> None:
    color._transform.cache_clear()
    for number in range(30):
        profile = matrix_profile(1.0 + number / 100)
        for _ in range(2):
            decode(saved(Image.new("RGB", (2, 2)), "PNG", icc_profile=profile))
    info = color._transform.cache_info()
    assert info.hits >= 30
    assert info.misses == 30
    assert info.currsize <= 8


def without_adobe(data: bytes) -> bytes:
    at = data.index(b"\xff\xee\x00\x0eAdobe")
    return data[:at] + data[at + 16 :]


@pytest.mark.parametrize("how", DECODES)
def test_cmyk_with_and_without_adobe(how: str) -> None:
    """Adobe's programs store inverted ink and say so; without their segment the numbers are ink. One picture."""
    ink = patches().convert("CMYK")
    adobe = saved(ink, "JPEG", quality=95)  # Pillow inverts, and libjpeg writes the segment
    plain = without_adobe(saved(ImageChops.invert(ink), "JPEG", quality=95))
    assert b"Adobe" in adobe
    assert b"Adobe" not in plain
    tiff = saved(ink, "TIFF")
    options = ImageOptions(image_size=128, decode=how)
    expected = centers(np.asarray(patches()))
    for data in (adobe, plain, tiff):
        found = load_image(data, options).pixels[32::64, 16::32].astype(int)
        np.testing.assert_allclose(found, expected, atol=8)


def test_ycck() -> None:
    """Adobe's other form: CMY as YCC, and K. Made from a CMYK file whose segment then says transform 2."""
    ink = np.asarray(patches().convert("CMYK")).copy()
    stored = 255 - ink.astype(float)  # inverted, as Adobe has it
    red, green, blue = (255 - stored[..., i] for i in range(3))
    y = 0.299 * red + 0.587 * green + 0.114 * blue
    ycck = np.stack([y, (blue - y) / 1.772 + 128, (red - y) / 1.402 + 128, stored[..., 3]], axis=-1)
    # libjpeg writes the numbers of a CMYK picture as they are, once Pillow's inversion is undone.
    numbers = Image.fromarray(np.clip(255 - np.rint(ycck), 0, 255).astype(np.uint8), mode="CMYK")
    data = bytearray(saved(numbers, "JPEG", quality=98, subsampling=0))
    at = data.index(b"\xff\xee\x00\x0eAdobe")
    assert data[at + 15] == 0
    data[at + 15] = 2
    for how in DECODES:
        found = load_image(bytes(data), ImageOptions(image_size=128, decode=how)).pixels[32::64, 16::32]
        np.testing.assert_allclose(found.astype(int), centers(np.asarray(patches())), atol=10)


def test_cmyk_is_near_what_pillow_gives() -> None:
    data = saved(patches().convert("CMYK"), "JPEG", quality=95)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(np.asarray(decode(data)), expected)


@pytest.mark.parametrize("background", [WHITE, (0, 0, 0), (10, 200, 30)])
def test_transparency_is_laid_on_the_background(background: tuple[int, int, int]) -> None:
    half = Image.new("RGBA", (3, 1))
    for x, alpha in enumerate((0, 128, 255)):
        half.putpixel((x, 0), (*RED, alpha))
    alphas = np.array([0, 128, 255])[:, None] / 255
    expected = np.array(RED) * alphas + np.array(background) * (1 - alphas)
    for kind in ("PNG", "TIFF", "WEBP"):
        options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
        found = np.asarray(decode(saved(half, kind, **options), background=background))[0]
        np.testing.assert_allclose(found.astype(int), expected, atol=1)


def test_what_counts_as_transparent() -> None:
    image = Image.new("RGBA", (4, 2), (*RED, 255))
    for alpha, expected in ((255, False), (254, False), (249, True), (0, True)):
        image.putpixel((1, 1), (*RED, alpha))
        for mode in ("RGBA", "LA", "RGBa"):
            assert is_transparent(image.convert("RGBA").convert(mode)) is expected
    unused = Image.new("P", (4, 2), 0)
    unused.info["transparency"] = 1
    assert not is_transparent(unused)
    assert not is_transparent(Image.new("I;16", (4, 2)))
    assert not is_transparent(Image.new("RGB", (4, 2)))


def test_the_other_background_contrasts() -> None:
    assert [contrasting(color) for color in (WHITE, (200, 200, 200), (0, 0, 255), BLACK)] == [
        BLACK,
        BLACK,
        WHITE,
        WHITE,
    ]
    assert [color_name(color) for color in (WHITE, BLACK, (1, 16, 255))] == ["white", "black", "#0110ff"]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "RGBa", "P", "L", "1", "RGB", "I;16", "I"])
def test_what_is_transparent_in_any_mode_shows_the_background(mode: str) -> None:
    background = (10, 200, 30)
    image = Image.new("I" if mode.startswith("I") else "RGB", (4, 2), 0)
    if mode.startswith("I"):
        image = image if mode == "I" else Image.fromarray(np.zeros((2, 4), np.uint16))
        image.info["transparency"] = 0
    elif mode in ("P", "L", "1", "RGB"):
        image = image.convert(mode)
        image.info["transparency"] = (0, 0, 0) if mode == "RGB" else image.getpixel((0, 0))
    else:
        image = image.convert("RGBA")
        image.putalpha(0)
        image = image.convert(mode)
    assert image.mode == mode
    assert is_transparent(image)
    np.testing.assert_array_equal(
        np.asarray(to_rgb(image, background)), np.broadcast_to(np.uint8(background), (2, 4, 3))
    )


def test_bands_join_without_a_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    image = patches().convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    whole = np.asarray(to_rgb(image))
    for pixels in (1, 128 * 7, 128 * 64 - 1):
        monkeypatch.setattr(color, "_BAND_PIXELS", pixels)
        np.testing.assert_array_equal(np.asarray(to_rgb(image)), whole)


def test_sixteen_bits_of_color() -> None:
    """PNG and TIFF, written by hand: Pillow has no mode for them."""
    wide = np.array([[[0, 0x1234, 0xFFFF], [0xFF00, 0x00FF, 0x8000]]], np.uint16)
    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    body = b""
    for kind, content in (
        (b"IHDR", header),
        (b"IDAT", zlib.compress(b"\0" + wide.astype(">u2").tobytes())),
        (b"IEND", b""),
    ):
        body += struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    np.testing.assert_array_equal(np.asarray(decode(b"\x89PNG\r\n\x1a\n" + body)), wide >> 8)
    entries = {
        256: (4, 2),
        257: (4, 1),
        258: (3, 16),
        259: (3, 1),
        262: (3, 2),
        273: (4, 200),
        277: (3, 3),
        278: (4, 1),
    }
    entries |= {279: (4, 12), 258: (3, None)}
    table = b""
    for tag, (kind, value) in sorted(entries.items()):
        table += struct.pack("<HHI", tag, kind, 3 if value is None else 1) + struct.pack(
            "<I", 180 if value is None else value
        )
    tiff = (b"II*\0" + struct.pack("<IH", 8, len(entries)) + table).ljust(180, b"\0") + struct.pack("<HHH", 16, 16, 16)
    tiff = tiff.ljust(200, b"\0") + wide.astype("<u2").tobytes()
    np.testing.assert_array_equal(np.asarray(decode(tiff)), wide >> 8)
