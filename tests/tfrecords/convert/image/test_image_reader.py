"""Reading images: second tries and second decoders, sizes above the limit, HDR, and what is behind transparency."""

from __future__ import annotations

import importlib.util
import io
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tfrecords.base_errors import UsageError
from tfrecords.convert.image import image_formats, image_reader
from tfrecords.convert.image.color import CHECKER, to_rgb
from tfrecords.convert.image.declared_color import profile_of_cicp
from tfrecords.convert.image.decoder import (
    DECODES,
    ImageOptions,
    decode,
    decode_composites,
    load_image,
    parse_backdrop,
    parse_background,
)
from tfrecords.convert.image.image_formats import MAX_PIXELS, jxl_size, least_reduction
from tfrecords.format.quarantine import Reason, Refusal

ZIP = zipfile.ZipFile(Path(__file__).with_name("formats.zip"))


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def gradient(width: int, height: int) -> Image.Image:
    return Image.linear_gradient("L").resize((width, height)).convert("RGB")


@pytest.mark.parametrize("name", ["arithmetic-large", "arithmetic-progressive-large"])
@pytest.mark.parametrize("how", DECODES)
@pytest.mark.parametrize("image_size", [16, 64, 300])
def test_arithmetic_codes_of_more_than_a_block(name: str, how: str, image_size: int) -> None:
    data = ZIP.read(f"{name}.jpg")
    assert len(data) > 1 << 16
    small = np.asarray(decode(ZIP.read("arithmetic.jpg")).resize((256, 192), Image.Resampling.NEAREST))
    expected = load_image(saved(Image.fromarray(small), "PNG"), ImageOptions(image_size=image_size)).pixels
    found = load_image(data, ImageOptions(image_size=image_size, decode=how)).pixels
    assert np.abs(found.astype(int) - expected).mean() < (9 if image_size == 300 else 4)  # it has grain


@pytest.mark.parametrize("image_size", [8, 12, 25, 26, 40])
def test_a_scaled_decode_that_fails_is_followed_by_a_whole_one(image_size: int) -> None:
    """At each size at which the decoder is asked for a fraction, and where it is not."""
    data = ZIP.read("lossless.jpg")
    found = [load_image(data, ImageOptions(image_size=image_size, decode=how)).pixels for how in DECODES]
    np.testing.assert_array_equal(found[0], found[1])


def test_a_jpeg_that_pillow_cannot_open_is_read_by_the_other_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **options: Any) -> Any:
        raise SyntaxError("of Pillow")

    data = saved(gradient(64, 48), "JPEG", quality=95)
    expected = np.asarray(decode(data)).astype(int)
    for broken in ("open_image", "_read_jpeg"):
        with monkeypatch.context() as patch:
            patch.setattr(image_reader, broken, fail)
            np.testing.assert_allclose(np.asarray(decode(data)), expected, atol=2)
            with pytest.raises(Refusal) as refused:  # the other one neither
                decode(data[: len(data) // 2])
            assert refused.value.reason in (Reason.TRUNCATED, Reason.CORRUPT)


def with_pixels(width: int, height: int) -> bytes:
    """A black and white PNG of any size, which is made in pieces: left half black, right half white."""
    row = b"\0" + bytes(width // 16) + b"\xff" * (width // 8 - width // 16)
    packer = zlib.compressobj(1)
    body = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    data = b"\x89PNG\r\n\x1a\n"
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    for name, content in ((b"IHDR", header), (b"IDAT", body), (b"IEND", b"")):
        data += struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
    return data


def test_an_image_above_the_limit_is_let_in_on_request() -> None:
    """In a fraction of the memory that all of its colors would take, and of the size."""
    data = with_pixels(16_000, 11_200)
    with pytest.raises(Refusal) as refused:
        load_image(data, ImageOptions(image_size=16))
    assert refused.value.reason is Reason.TOO_LARGE
    assert refused.value.detail.endswith("--max_pixels=179200000 lets it in")
    found = load_image(data, ImageOptions(image_size=16, max_pixels=179_200_000))
    assert (found.width, found.height) == (16_000, 11_200)
    expected = np.zeros((16, 16, 3), np.uint8)
    expected[:, 8:] = 255
    np.testing.assert_allclose(found.pixels.astype(int), expected, atol=24)  # bicubic reaches over the edge
    image = decode(data, max_pixels=1 << 62)
    assert image.width * image.height <= MAX_PIXELS // 4


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "I;16"])
def test_bands_of_an_image_above_the_limit(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its limit is lowered instead of the image made larger; odd sizes leave a part of a pixel."""
    image = gradient(253, 131)
    image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257) if mode == "I;16" else image
    image = image if mode == "I;16" else image.convert(mode)
    kind = "TIFF" if mode == "CMYK" else "PNG"
    data = saved(image, kind)
    options = ImageOptions(image_size=16, decode="exact")
    expected = load_image(data, options)
    monkeypatch.setattr(image_reader, "MAX_PIXELS", 20_000)
    monkeypatch.setattr(image_reader, "_BAND_PIXELS", 2000)
    found = load_image(data, options)
    assert (found.width, found.height) == (253, 131)
    np.testing.assert_allclose(found.pixels.astype(int), expected.pixels, atol=60 if mode == "1" else 6)


def baseline(width: int, height: int) -> bytes:
    return saved(gradient(width, height), "JPEG", quality=95, progressive=False)


@pytest.mark.parametrize("how", DECODES)
def test_a_jpeg_above_the_limit_is_decoded_at_a_fraction(how: str) -> None:
    data = baseline(320, 240)
    whole = load_image(data, ImageOptions(image_size=64, decode=how))
    for limit, by in ((320 * 240, 1), (320 * 240 - 1, 2), (160 * 120 - 1, 4), (80 * 60 - 1, 8)):
        assert least_reduction(data, limit) == by
        found = load_image(data, ImageOptions(image_size=64, decode=how, max_pixels=limit))
        assert (found.width, found.height) == (320, 240)
        np.testing.assert_allclose(found.pixels.astype(int), whole.pixels, atol=4)
    with pytest.raises(Refusal) as refused:
        load_image(data, ImageOptions(image_size=64, decode=how, max_pixels=40 * 30 - 1))
    assert refused.value.reason is Reason.TOO_LARGE


@pytest.mark.parametrize("how", DECODES)
def test_which_jpegs_above_the_limit_are_not(how: str) -> None:
    """A progressive one has all of it in memory, and one with few bytes promises too much."""
    progressive = saved(gradient(320, 240), "JPEG", progressive=True)
    promising = bytearray(baseline(32, 24))
    at = promising.index(b"\xff\xc0")
    promising[at + 5 : at + 9] = struct.pack(">HH", 2400, 3200)
    for data in (progressive, bytes(promising)):
        with pytest.raises(Refusal) as refused:
            load_image(data, ImageOptions(image_size=64, decode=how, max_pixels=70_000))
        assert refused.value.reason is Reason.TOO_LARGE


@pytest.mark.parametrize(
    ("name", "size"), [("rgb.jxl", (64, 48)), ("rgb-container.jxl", (64, 48)), ("large.jxl", (1280, 1024))]
)
def test_the_size_of_a_jpeg_xl_is_known_before_it_is_decoded(
    name: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = ZIP.read(name)
    assert jxl_size(data) == size
    monkeypatch.setattr(image_formats, "_formats", lambda needed: frozenset({"JXL"}))
    with pytest.raises(Refusal) as refused:
        load_image(data, ImageOptions(image_size=16, max_pixels=size[0] * size[1] - 1))
    assert refused.value.reason is Reason.TOO_LARGE


@pytest.mark.skipif(importlib.util.find_spec("pillow_jxl") is not None, reason="pillow-jxl-plugin is installed")
def test_what_reads_jpeg_xl_is_named() -> None:
    with pytest.raises(Refusal, match=r"unsupported: .* pip install 'simimg-tf\[jxl\]'"):
        decode(ZIP.read("rgb.jxl"))


@pytest.mark.skipif(importlib.util.find_spec("imagecodecs") is not None, reason="imagecodecs is installed")
@pytest.mark.parametrize("name", ["inside-jpeg2000", "inside-jpegxl", "inside-lerc", "inside-webp", "rgb-float32"])
def test_what_reads_such_a_tiff_is_named(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Refusal, match=r"unsupported: .* pip install 'simimg-tf\[tiff\]'"):
        decode(ZIP.read(f"{name}.tif"))
    assert capfd.readouterr().err == ""


def light(pixels: np.ndarray) -> np.ndarray:
    return np.where(pixels <= 0.04045, pixels / 12.92, ((pixels + 0.055) / 1.055) ** 2.4)


@pytest.mark.parametrize("transfer", [16, 18])
def test_hdr_is_shown_with_its_white_below_white(transfer: int) -> None:
    """Dim light as it is, the white of a page a little below 255, and lights brighter than that still apart."""
    nits = np.array([0, 0.5, 2, 10, 40, 90, 203, 400, 700, 1000.0])
    if transfer == 16:
        root = (nits / 10_000) ** (2610 / 16384)
        signal = ((3424 + 18.8515625 * 4096 * root) / (4096 + 18.6875 * 4096 * root)) ** 78.84375
    else:
        scene = (nits / 1000) ** (1 / 1.2)
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        signal = np.where(scene <= 1 / 12, np.sqrt(3 * scene), a * np.log(np.maximum(12 * scene - b, 1e-9)) + c)
    pixels = np.rint(signal * 255).astype(np.uint8)[None, :, None].repeat(3, axis=2)
    image = Image.fromarray(pixels)
    image.info["icc_profile"] = profile_of_cicp(1, transfer)
    shown = np.asarray(to_rgb(image))[0, :, 0].astype(int)
    assert (np.diff(shown[:9]) > 0).all()
    assert shown[0] == 0
    assert shown[-1] >= 253
    assert 215 <= shown[6] <= 240
    np.testing.assert_allclose(light(shown[3:6] / 255) * 203, nits[3:6], rtol=0.08)


@pytest.mark.parametrize("name", ["cicp-9-16-9", "cicp-9-18-9", "cicp-12-16-6", "deep-10-cicp-9-16-9"])
def test_hdr_of_avif_is_shown_as_that_of_png(name: str) -> None:
    """The same numbers with the same code points."""
    codes = [int(code) for code in name.split("cicp-")[1].split("-")]
    image = decode(ZIP.read("irot0-imir1.avif")).transpose(Image.Transpose.FLIP_LEFT_RIGHT)  # the same numbers
    body = saved(image, "PNG")
    content = b"cICP" + bytes([codes[0], codes[1], 0, 1])
    data = body[:33] + struct.pack(">I", 4) + content + struct.pack(">I", zlib.crc32(content)) + body[33:]
    difference = np.abs(np.asarray(decode(ZIP.read(f"{name}.avif"))).astype(int) - np.asarray(decode(data)))
    assert difference.mean() < 2.5


@pytest.mark.skipif(importlib.util.find_spec("pillow_heif") is None, reason="pillow-heif is not installed")
def test_the_color_of_heic_is_that_of_its_code_points() -> None:
    import pillow_heif

    image = gradient(64, 48).convert("RGB")
    image.paste((200, 60, 40), (8, 8, 40, 40))
    buffer = io.BytesIO()
    codes = {"color_primaries": 12, "transfer_characteristics": 13, "matrix_coefficients": 6, "full_range_flag": 1}
    pillow_heif.from_pillow(image).save(buffer, quality=-1, chroma=444, save_nclx_profile=True, **codes)
    image.info["icc_profile"] = profile_of_cicp(12, 13)
    found = np.asarray(decode(buffer.getvalue())).astype(int)
    np.testing.assert_allclose(found, np.asarray(to_rgb(image)), atol=4)


def logo(color: tuple[int, int, int]) -> bytes:
    image = Image.new("RGBA", (64, 64))
    image.paste((*color, 255), (16, 16, 48, 48))
    return saved(image, "PNG")


@pytest.mark.parametrize("how", DECODES)
@pytest.mark.parametrize("contrast", [False, True])
def test_the_backdrop_auto_keeps_what_white_would_hide(how: str, contrast: bool) -> None:
    auto = ImageOptions(image_size=16, decode=how, backdrop=parse_backdrop("auto"))
    for color, outside in (((255, 255, 255), 0), ((0, 0, 0), 255), ((200, 30, 40), 255), ((254, 254, 252), 0)):
        found = load_image(logo(color), auto, contrast=contrast)
        assert found.pixels[0, 0].tolist() == [outside] * 3
        assert found.pixels[8, 8].tolist() == list(color)
        assert not found.vanishes
        assert (found.contrast is None) is not contrast
    nothing = saved(Image.new("RGBA", (16, 16)), "PNG")
    assert load_image(nothing, auto).pixels.min() == 255
    opaque = saved(gradient(16, 16), "PNG")
    np.testing.assert_array_equal(
        load_image(opaque, auto).pixels, load_image(opaque, ImageOptions(image_size=16)).pixels
    )


@pytest.mark.parametrize("color", [(255, 255, 255), (0, 0, 0), (192, 192, 192), (64, 64, 64)])
def test_the_backdrop_checker_shows_everything(color: tuple[int, int, int]) -> None:
    checker = ImageOptions(image_size=64, backdrop=CHECKER)
    found = load_image(logo(color), checker)
    assert not found.vanishes
    assert found.pixels[32, 32].tolist() == list(color)
    assert [found.pixels[4, 4, 0], found.pixels[4, 12, 0], found.pixels[12, 12, 0]] == [192, 64, 192]
    assert np.ptp(found.pixels) >= 120


def test_the_words_of_a_background() -> None:
    assert [parse_backdrop(text) for text in ("white", "#010203", "auto", "checker")] == [
        "color",
        "color",
        "auto",
        "checker",
    ]
    assert parse_background("auto") == parse_background("checker") == (255, 255, 255)
    with pytest.raises(UsageError, match="auto and checker are possible"):
        parse_background("chequer")


def test_composites_have_the_range_of_their_samples(deep_png: Any) -> None:
    data = deep_png((np.linspace(0, 4095, 256).reshape(16, 16)).astype(np.uint16))
    dark, _ = decode_composites(data)
    bright, _ = decode_composites(data, sample_range=(0.0, 4095.0))
    assert np.asarray(dark).max() == 15
    assert np.asarray(bright).max() == 255
