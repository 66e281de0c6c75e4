"""What is no picture, or not all of one, or too large, is refused with its reason, before it takes memory."""

from __future__ import annotations

import builtins
import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile, PngImagePlugin, features

import tfrecords
from tfrecords.convert.image import image_formats
from tfrecords.convert.image.decoder import DECODES, TRUNCATED, ImageOptions, decode, load_image
from tfrecords.convert.image.image_formats import MAX_PIXELS
from tfrecords.convert.image.jpeg import MAX_SCANS, plain_jpeg
from tfrecords.format.quarantine import Reason, Refusal

FORMATS = ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "TGA", "ICO"]
FORMATS += [name for name, feature in (("JPEG2000", "jpg_2000"), ("AVIF", "avif")) if features.check(feature)]


def picture(height: int = 40, width: int = 60) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def refused(data: bytes, **options: Any) -> Refusal:
    """Returns the refusal, which is the same whichever way the picture is decoded."""
    found = []
    for how in DECODES:
        with pytest.raises(Refusal) as caught:
            load_image(data, ImageOptions(image_size=8, decode=how, **options))
        found.append(caught.value)
    assert str(found[0]) == str(found[1])
    return found[0]


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def jpeg(width: int, height: int, **options: Any) -> bytes:
    data = bytearray(saved(picture(), "JPEG", **options))
    at = next(data.index(marker) for marker in (b"\xff\xc0", b"\xff\xc2") if marker in data)
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def gif(width: int, height: int) -> bytes:
    """A giant screen on which a small frame lies."""
    data = bytearray(saved(picture(), "GIF"))
    data[6:10] = struct.pack("<HH", width, height)
    return bytes(data)


def bmp(width: int, height: int) -> bytes:
    data = bytearray(saved(picture(), "BMP"))
    data[18:26] = struct.pack("<ii", width, height)
    return bytes(data)


def tiff(width: int, height: int, **tags: int) -> bytes:
    entries = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 277: 1, 273: 8, 278: height, 279: 100}
    entries |= {int(tag[1:]): value for tag, value in tags.items()}
    if 322 in entries:
        entries = {tag: value for tag, value in entries.items() if tag not in (273, 278, 279)}
    body = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(entries.items()))
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + bytes(4 + 100)


def webp(width: int, height: int) -> bytes:
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + size + b"VP8L" + struct.pack("<I", 100) + bytes(100)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def ico(inner: bytes) -> bytes:
    return b"\0\0\x01\0\x01\0" + struct.pack("<BBBBHHII", 32, 32, 0, 0, 1, 32, len(inner), 22) + inner


PROMISES = {
    "png": png(50_000, 50_000),
    "jpeg": jpeg(50_000, 50_000),
    "progressive jpeg": jpeg(50_000, 50_000, progressive=True),
    "gif": gif(50_000, 50_000),
    "bmp": bmp(50_000, 50_000),
    "bmp upside down": bmp(50_000, -50_000),
    "tiff": tiff(50_000, 50_000),
    "tile of a tiff": tiff(60, 40, t322=65_520, t323=65_520, t324=8, t325=100, t259=8),
    "webp": webp(16_383, 16_383),
    "ppm": b"P6 50000 50000 255\n" + bytes(100),
    "tga": struct.pack("<BBBHHBHHHHBB", 0, 0, 2, 0, 0, 0, 0, 0, 50_000, 50_000, 24, 0) + bytes(100),
    "png in an icon": ico(png(50_000, 50_000)),
    "bmp in an icon": ico(bmp(50_000, 50_000)[14:]),
}


def test_no_bytes() -> None:
    assert refused(b"").reason is Reason.EMPTY


@pytest.mark.parametrize(
    "text",
    [
        "this is a text named .jpg\n",
        "<!DOCTYPE html><html><title>404</title></html>",
        "P6 is how a PPM begins",
        "BMW is a maker of cars",
        "안녕하세요",
        "안녕하세요" * 1000,
        '{"error": "not found"}',
        "a\tb\r\nc\f",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_text(text: str, encoding: str) -> None:
    refusal = refused(text.encode(encoding))
    assert refusal.reason is Reason.TEXT
    if encoding == "utf-8":
        assert repr(text[:10].strip())[1:-1] in refusal.detail


def test_text_in_an_old_encoding() -> None:
    assert refused("Ein Bild über Größe, das keines ist".encode("latin-1")).reason is Reason.TEXT


@pytest.mark.parametrize("data", [bytes(3), bytes(100), b"\x7fELF\x02\x01\x01" + bytes(50), b"PK\x03\x04\x14\0" * 9])
def test_no_picture(data: bytes) -> None:
    refusal = refused(data)
    assert refusal.reason is Reason.NOT_AN_IMAGE
    assert repr(data[:12]) in refusal.detail


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\xff\x0a" + bytes(range(50)), "JPEG XL"),
        (b"8BPS\0\1" + bytes(50), "Photoshop"),
        (b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"%PDF-1.7\n", "PDF"),
        (b"v/1\x01" + bytes(50), "OpenEXR"),
        (b"\0\0\0\x14ftypheic\0\0\0\0heic" + bytes(50), "pip install 'simimg-tf[heif]'"),
        (b"\0\0\0\x14ftypavif\0\0\0\0avif" + bytes(50), "pip install --upgrade pillow"),
    ],
)
def test_formats_that_nothing_here_decodes(monkeypatch: pytest.MonkeyPatch, data: bytes, name: str) -> None:
    monkeypatch.setattr(image_formats, "_formats", lambda with_heif: frozenset(FORMATS) - {"AVIF", "HEIF"})
    refusal = refused(data)
    assert refusal.reason is Reason.UNSUPPORTED
    assert name in refusal.detail


def test_heic_without_pillow_heif(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **options: Any) -> Any:
        if name.partition(".")[0] == "pillow_heif":
            raise ImportError(name)
        return real(name, *args, **options)

    image_formats._formats.cache_clear()
    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.delitem(Image.OPEN, "HEIF", raising=False)
    try:
        assert refused(b"\0\0\0\x14ftypheic\0\0\0\0heic" + bytes(50)).reason is Reason.UNSUPPORTED
    finally:
        image_formats._formats.cache_clear()


def test_heic_where_pillow_heif_is_there() -> None:
    """In a process of its own: pillow-heif is imported only by the file that needs it."""
    pytest.importorskip("pillow_heif")
    code = """
import io, sys
import numpy as np
from PIL import Image
from tfrecords.convert.image.decoder import ImageOptions, load_image
options = ImageOptions(image_size=8)
buffer = io.BytesIO()
Image.new("RGB", (64, 48), (200, 30, 40)).save(buffer, "PNG")
load_image(buffer.getvalue(), options)
assert "pillow_heif" not in sys.modules
import pillow_heif
buffer = io.BytesIO()
pillow_heif.from_pillow(Image.new("RGB", (64, 48), (200, 30, 40))).save(buffer)
assert "HEIF" not in Image.OPEN
found = load_image(buffer.getvalue(), options)
assert (found.width, found.height) == (64, 48), found
assert np.abs(found.pixels.astype(int) - (200, 30, 40)).max() < 8, found
"""
    root = str(Path(tfrecords.__file__).parents[1])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": root})
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow was built without AVIF")
def test_avif() -> None:
    data = saved(Image.new("RGB", (64, 48), (200, 30, 40)), "AVIF", quality=95)
    found = load_image(data, ImageOptions(image_size=8))
    assert (found.width, found.height) == (64, 48)
    assert np.abs(found.pixels.astype(int) - (200, 30, 40)).max() < 8


@pytest.mark.parametrize("kind", FORMATS)
def test_the_bytes_say_which_format_it_is(kind: str) -> None:
    data = saved(picture(), kind)
    assert load_image(data, ImageOptions(image_size=8)).width == Image.open(io.BytesIO(data)).width


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("part", [0.3, 0.5, 0.9, 0.97])
def test_truncated(kind: str, part: float) -> None:
    data = saved(picture(), kind)
    assert refused(data[: int(len(data) * part)]).reason is Reason.TRUNCATED


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
def test_truncated_inside_the_header(kind: str) -> None:
    data = saved(picture(), kind)
    assert {refused(data[:length]).reason for length in (16, 20, 26)} <= {Reason.TRUNCATED}


@pytest.mark.parametrize("compression", ["tiff_lzw", "jpeg", "tiff_adobe_deflate"])
def test_truncated_compressed_tiff(compression: str) -> None:
    data = saved(picture(), "TIFF", compression=compression)
    assert refused(data[: len(data) // 2]).reason is Reason.TRUNCATED


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "PPM", "TGA"])
@pytest.mark.parametrize("how", DECODES)
def test_the_part_that_is_there_can_be_kept(kind: str, how: str) -> None:
    color = (200, 120, 40)
    noise = np.random.default_rng(0).integers(-30, 31, (160, 120, 1))  # so that each row takes as many bytes
    options = {"interlace": 0} if kind == "GIF" else {}
    data = saved(Image.fromarray((np.array(color) + noise).astype(np.uint8)), kind, **options)
    keep = ImageOptions(image_size=16, decode=how, truncated="keep")
    whole = load_image(data, keep).pixels
    half = load_image(data[: int(len(data) * 0.6)], keep)
    assert (half.width, half.height) == (120, 160)
    # BMP and TGA are stored from the bottom up.
    there, missing = (slice(9, 16), slice(0, 4)) if kind in ("BMP", "TGA") else (slice(0, 6), slice(12, 16))
    np.testing.assert_allclose(half.pixels[there].astype(int), whole[there].astype(int), atol=6)
    assert np.abs(half.pixels[missing].astype(int) - color).mean() > 20
    assert refused(data[: int(len(data) * 0.6)], truncated="refuse").reason is Reason.TRUNCATED


@pytest.mark.parametrize("kind", [kind for kind in FORMATS if kind in ("WEBP", "JPEG2000", "AVIF")])
def test_decoders_that_give_no_part_refuse(kind: str) -> None:
    data = saved(picture(), kind)
    assert refused(data[: len(data) // 2], truncated="keep").reason is Reason.TRUNCATED


@pytest.mark.parametrize("switch", [False, True])
@pytest.mark.parametrize("truncated", TRUNCATED)
def test_pillows_switch_is_put_back(monkeypatch: pytest.MonkeyPatch, switch: bool, truncated: str) -> None:
    """And is not what decides, where another part of a program has changed it."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", switch)
    options = ImageOptions(image_size=8, truncated=truncated)
    whole, half = saved(picture(), "PNG"), saved(picture(), "PNG")[:2000]
    for data in (whole, half, b"text", saved(picture(), "WEBP"), saved(picture(), "WEBP")[:500]):
        try:
            load_image(data, options)
            assert data is whole or truncated == "keep" or data[8:12] == b"WEBP"
        except Refusal:
            assert data is not whole
            assert data is not half or truncated == "refuse"
        assert ImageFile.LOAD_TRUNCATED_IMAGES is switch


def test_a_damaged_checksum_is_corrupt() -> None:
    data = bytearray(saved(picture(), "PNG"))
    data[data.index(b"IDAT") + 30] ^= 0xFF
    assert refused(bytes(data)).reason is Reason.CORRUPT


@pytest.mark.parametrize("data", [png(0, 1), b"GIF89a" + bytes(7) + b";"])
def test_a_picture_without_pixels_is_corrupt(data: bytes) -> None:
    assert refused(data).reason is Reason.CORRUPT


@pytest.mark.parametrize("name", PROMISES)
def test_a_header_that_promises_too_much_is_not_decoded(name: str) -> None:
    refusal = refused(PROMISES[name])
    assert refusal.reason is Reason.TOO_LARGE
    assert refused(PROMISES[name], truncated="keep").reason is Reason.TOO_LARGE


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS")
def test_a_header_that_promises_too_much_takes_no_memory(tmp_path: Path) -> None:
    """In a process that may take 64 MB more than it has."""
    for name, data in PROMISES.items():
        (tmp_path / name).write_bytes(data)
    code = f"""
import resource, sys
from pathlib import Path
from PIL import Image
from tfrecords.convert.image.decoder import ImageOptions, load_image
from tfrecords.format.quarantine import Refusal
Image.init()
has = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (has + (64 << 20),) * 2)
for path in sorted(Path({str(tmp_path)!r}).iterdir()):
    for truncated in ("refuse", "keep"):
        try:
            load_image(path.read_bytes(), ImageOptions(image_size=8, truncated=truncated))
        except Refusal as refusal:
            print(path.name, refusal.reason)
"""
    root = str(Path(tfrecords.__file__).parents[1])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": root})
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == sorted(f"{name} too_large" for name in PROMISES for _ in TRUNCATED)


@pytest.mark.parametrize("pillows_limit", [Image.MAX_IMAGE_PIXELS, None])
def test_the_largest_size(monkeypatch: pytest.MonkeyPatch, pillows_limit: int | None) -> None:
    """It is ours, also where a program has switched Pillow's limit off."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pillows_limit)
    side = int(MAX_PIXELS**0.5)
    assert refused(png(side, side + 3)).reason is Reason.TOO_LARGE
    assert refused(png(side, side)).reason is Reason.TRUNCATED
    assert refused(jpeg(side, side + 3)).reason is Reason.TOO_LARGE
    assert refused(ico(png(side, side + 3))).reason is Reason.TOO_LARGE


def test_a_jpeg_of_endless_scans_is_refused() -> None:
    data = saved(picture(), "JPEG", progressive=True)
    at = data.rindex(b"\xff\xda")
    bomb = data[:at] + data[at:-2] * MAX_SCANS + b"\xff\xd9"
    refusal = refused(bomb)
    assert refusal.reason is Reason.CORRUPT
    assert str(MAX_SCANS) in refusal.detail
    assert plain_jpeg(bomb) is None  # nor does the fast way begin with it
    assert plain_jpeg(data) is not None
    load_image(data, ImageOptions(image_size=8))


def test_memory_errors_pass_through(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(self: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", load)
    with pytest.raises(MemoryError):
        load_image(saved(picture(), "PNG"), ImageOptions(image_size=8))


def test_an_error_of_a_decoder_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(self: Any) -> None:
        raise ZeroDivisionError("of a decoder")

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", load)
    assert refused(saved(picture(), "PNG")).detail == "ZeroDivisionError: of a decoder"


def test_postscript_is_not_handed_to_another_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = tmp_path / "ran"
    ghostscript = tmp_path / "gs"
    ghostscript.write_text(f"#!/bin/sh\ntouch {ran}\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    for start in (b"", b"\xc5\xd0\xd3\xc6\x1e\0\0\0" + bytes(22)):  # plain, and the binary form for DOS
        with pytest.raises(Refusal) as refusal:
            decode(start + b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n")
        assert refusal.value.reason in (Reason.UNSUPPORTED, Reason.NOT_AN_IMAGE)
    assert not ran.exists()


def test_pillows_warnings_are_not_shown(recwarn: pytest.WarningsRecorder) -> None:
    noisy = saved(picture(), "TIFF").replace(b"\x00\x01\x03\x00", b"\x00\x01\x03\x00", 1)
    palette = Image.new("P", (3, 1))
    palette.putpalette(list(range(9)))
    for data in (noisy, saved(palette, "PNG", transparency=b"\x80\x00\xff"), png(9_000, 12_000)):
        for how in DECODES:
            try:
                load_image(data, ImageOptions(image_size=8, decode=how))
            except Refusal:
                assert data not in (noisy,)
    assert not recwarn.list
