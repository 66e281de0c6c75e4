"""Loading: the fast way and the exact one give one picture, upright, of the size and the shape that was asked for."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import re
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import simplejpeg
from PIL import Image, ImageOps

import tfrecords
from benchmarks.decode_quality import psnr, ssim
from tfrecords.base_errors import UsageError
from tfrecords.convert.image import decoder, fitting, jpeg
from tfrecords.convert.image.decoder import (
    DECODES,
    RESIZES,
    TRUNCATED,
    ImageOptions,
    decode,
    decoder_versions,
    load_image,
    parse_background,
    resize,
)
from tfrecords.convert.image.jpeg import decode_reduced, num_scans, plain_jpeg, reduction
from tfrecords.format.quarantine import Refusal

ORIENTATION = 0x0112


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    """512 x 600 px."""
    path = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    return Image.open(path).convert("RGB")


def saved(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def both(data: bytes, image_size: int = 64, **options: Any) -> tuple[np.ndarray, np.ndarray]:
    fast, exact = (load_image(data, ImageOptions(image_size=image_size, decode=how, **options)) for how in DECODES)
    assert (fast.width, fast.height) == (exact.width, exact.height)
    for found in (fast, exact):
        assert found.pixels.shape == (image_size, image_size, 3)
        assert found.pixels.dtype == np.uint8
        assert found.pixels.flags.c_contiguous
    return fast.pixels, exact.pixels


def orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = value
    return exif


@pytest.fixture
def no_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has everything fail that does not go the fast way."""

    def refuse(*args: Any, **options: Any) -> Any:
        raise AssertionError("not the fast way")

    monkeypatch.setattr(decoder, "read_image", refuse)


def only_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simplejpeg, "decode_jpeg", None)
    monkeypatch.setattr(decoder, "plain_jpeg", lambda data: None)


# Two resizers, both bicubic in two passes, round and clip what overshoots in another order.
_ROUNDING = 8


# The bounds that simimg/docs/decoding.md names.
@pytest.mark.parametrize(("image_size", "least_psnr_db", "least_ssim"), [(64, 26.0, 0.90), (224, 26.0, 0.95)])
def test_fast_is_as_good_as_documented(
    photo: Image.Image, image_size: int, least_psnr_db: float, least_ssim: float
) -> None:
    corners = [(0, 0, 512, 600), (100, 50, 400, 250), (150, 80, 350, 300), (30, 200, 130, 302)]
    files = [saved(photo.crop(box), quality=quality) for box in corners for quality in (60, 95)]
    folder = os.environ.get("SIMIMG_PHOTOS")
    files += [path.read_bytes() for path in sorted(Path(folder).rglob("*.jpg"))[::50]] if folder else []
    values = []
    for data in files:
        fast, exact = both(data, image_size)
        values.append((psnr(fast, exact), ssim(fast, exact)))
        assert values[-1] >= (least_psnr_db, least_ssim)
        assert values[-1][1] >= least_ssim
    assert np.mean(values, axis=0)[0] >= 36
    assert np.mean(values, axis=0)[1] >= 0.98
    if image_size == 64:
        assert any(psnr_db < 90 for psnr_db, _ in values)  # the bound was put to a test


@pytest.mark.parametrize("size", [(301, 203), (203, 301), (513, 600), (97, 1001), (640, 479), (129, 128), (80, 81)])
@pytest.mark.parametrize("how", RESIZES)
@pytest.mark.usefixtures("no_pillow")
def test_reducing_does_not_move_the_picture(photo: Image.Image, size: tuple[int, int], how: str) -> None:
    """A width of 301 px reduced by 4 is 75.25 px; taking it for 76 moves the right edge by a third of a stored one."""
    if how == "pad" and min(size) / max(size) < 0.1:
        pytest.skip("it comes out three pixels wide, and half a pixel of the full picture is nothing")
    data = saved(photo.resize(size), quality=95)
    image = decode_exact(data)
    fast = load_image(data, ImageOptions(image_size=32, resize=how)).pixels.astype(float)
    best = psnr(fast, resize(image, 32, how))
    for dx, dy in ((-1, 0), (1, 0), (0, -1), (0, 1)):  # half a pixel of the full picture either way is no better
        box = (max(dx, 0) * 2, max(dy, 0) * 2, size[0] + min(dx, 0) * 2, size[1] + min(dy, 0) * 2)
        moved = resize(image.crop(box), 32, how)
        assert psnr(fast, moved) < best


def decode_exact(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


@pytest.mark.parametrize("how", RESIZES)
@pytest.mark.parametrize("decode_how", DECODES)
@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (3, 700)])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_narrow_pictures(how: str, decode_how: str, size: tuple[int, int], kind: str) -> None:
    data = saved(Image.new("RGB", size, (200, 30, 40)), kind)
    found = load_image(data, ImageOptions(image_size=16, resize=how, decode=decode_how, background=(0, 0, 0)))
    assert (found.width, found.height) == size
    near = np.abs(found.pixels.astype(int) - (200, 30, 40)).max(axis=2) < 6
    assert near.any()
    if how != "pad":
        assert near.all()
    elif size[0] != size[1]:
        assert (found.pixels == 0).all(axis=2).sum() == 16 * 15


@pytest.mark.parametrize("how", RESIZES)
@pytest.mark.parametrize("value", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_every_orientation(
    photo: Image.Image, kind: str, value: int, how: str, turned_upright: dict[int, Callable[[np.ndarray], np.ndarray]]
) -> None:
    """The picture is turned after the resize, which is what it would be turned before."""
    stored = photo.crop((100, 50, 400, 250))
    data = saved(stored, kind, exif=orientation(value), **({"quality": 95} if kind in ("JPEG", "WEBP") else {}))
    unturned = saved(stored, kind, **({"quality": 95} if kind in ("JPEG", "WEBP") else {}))
    upright = Image.fromarray(np.ascontiguousarray(turned_upright[value](np.asarray(decode(unturned)))))
    np.testing.assert_array_equal(np.asarray(decode(data)), np.asarray(upright))
    for decode_how in DECODES:
        options = ImageOptions(image_size=33, resize=how, decode=decode_how)
        found = load_image(data, options)
        assert (found.width, found.height) == upright.size
        expected = resize(upright, 33, how)
        assert psnr(found.pixels, expected) > (27 if decode_how == "fast" and kind == "JPEG" else 45)


@pytest.mark.usefixtures("no_pillow")
def test_an_orientation_in_xmp(photo: Image.Image) -> None:
    """Counts where the EXIF has none, as in Pillow."""
    for xmp in (b'<x tiff:Orientation="6"/>', b"<tiff:Orientation>6</tiff:Orientation>"):
        found = load_image(saved(photo, xmp=xmp), ImageOptions(image_size=16))
        assert (found.width, found.height) == (600, 512)
        with_exif = saved(photo, xmp=xmp, exif=orientation(1))
        assert load_image(with_exif, ImageOptions(image_size=16)).width == 512


@pytest.mark.parametrize(
    "options",
    [
        {"progressive": True},
        {"quality": 30},
        {"subsampling": 0},
        {"subsampling": 1},
        {"subsampling": 2},
        {"optimize": True},
        {"restart_marker_blocks": 1},
        {"comment": b"\xff\xd8\xff\xd9"},
        {"exif": orientation(3)},
        {"dpi": (72, 72)},
    ],
)
@pytest.mark.usefixtures("no_pillow")
def test_plain_jpegs_go_the_fast_way(photo: Image.Image, options: dict[str, Any]) -> None:
    load_image(saved(photo, **options), ImageOptions(image_size=64))


@pytest.mark.usefixtures("no_pillow")
def test_gray_jpegs_go_the_fast_way(photo: Image.Image) -> None:
    pixels = load_image(saved(photo.convert("L")), ImageOptions(image_size=64)).pixels
    assert (pixels == pixels[..., :1]).all()
    assert pixels.std() > 20


def test_jpegs_that_are_not_plain_come_out_alike(photo: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow's decoder reduces as well; what it makes of a plain file is what the fast way makes of it, or nearly."""
    for how in RESIZES:
        for size in ((512, 600), (301, 203), (90, 77)):
            data = saved(photo.resize(size), quality=90, exif=orientation(6))
            options = ImageOptions(image_size=32, resize=how)
            fast = load_image(data, options)
            with monkeypatch.context() as patch:
                only_pillow(patch)
                slow = load_image(data, options)
            assert (fast.width, fast.height) == (slow.width, slow.height)
            assert psnr(fast.pixels, slow.pixels) > 30


def test_a_jpeg_with_damage_that_libjpeg_only_warns_of_is_pillows(photo: Image.Image) -> None:
    data = saved(photo)
    damaged = data[:-2] + bytes([0x12, 0x34] * 500) + data[-2:]
    with pytest.raises(ValueError, match="extraneous bytes"):
        simplejpeg.decode_jpeg(damaged)
    header = plain_jpeg(damaged)
    assert header is not None
    assert decode_reduced(damaged, header, 64) is None
    fast, exact = both(damaged)
    np.testing.assert_array_equal(exact, both(data)[1])
    assert psnr(fast, exact) > 26


def test_where_nothing_is_reduced_fast_is_exact(photo: Image.Image) -> None:
    fast, exact = both(saved(photo.resize((120, 100))), 96)
    assert abs(fast.astype(int) - exact).max() <= _ROUNDING
    for kind in ("PNG", "WEBP", "TIFF"):
        fast, exact = both(saved(photo, kind), 16)
        np.testing.assert_array_equal(fast, exact)


@pytest.mark.parametrize("how", RESIZES)
def test_exact_is_the_full_decode_and_bicubic(photo: Image.Image, how: str) -> None:
    data = saved(photo)
    found = load_image(data, ImageOptions(image_size=40, resize=how, decode="exact")).pixels
    image = decode_exact(data)
    if how == "stretch":
        expected = image.resize((40, 40), Image.Resampling.BICUBIC)
    elif how == "crop":
        expected = ImageOps.fit(image, (40, 40), Image.Resampling.BICUBIC)
    else:
        expected = ImageOps.pad(image, (40, 40), Image.Resampling.BICUBIC, color="white")
    np.testing.assert_array_equal(found, np.asarray(expected))


@pytest.mark.parametrize(
    ("side", "expected"), [(9999, 8), (640, 8), (639, 4), (320, 4), (319, 2), (214, 2), (160, 2), (159, 1), (1, 1)]
)
def test_reduction(side: int, expected: int) -> None:
    assert reduction(side, 80) == expected


def test_the_margin_counts(photo: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    data = saved(photo)
    options = ImageOptions(image_size=64)
    default = load_image(data, options).pixels
    monkeypatch.setattr(fitting, "MARGIN", 10.0)
    exact = load_image(data, dataclasses.replace(options, decode="exact")).pixels.astype(int)
    assert abs(load_image(data, options).pixels - exact).max() <= _ROUNDING
    assert abs(default - exact).max() > _ROUNDING


def segment(kind: int, content: bytes) -> bytes:
    return b"\xff" + bytes([kind]) + struct.pack(">H", len(content) + 2) + content


def tiff(entries: bytes, num: int = 1) -> bytes:
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, num) + entries


@pytest.mark.parametrize(
    "extra",
    [
        segment(0xE1, tiff(struct.pack("<HHIHH", ORIENTATION, 4, 1, 6, 0))),  # long instead of short
        segment(0xE1, tiff(struct.pack("<HHIHH", ORIENTATION, 3, 2, 6, 0))),
        segment(0xE1, tiff(struct.pack("<HHIHH", ORIENTATION, 3, 1, 6, 0) * 2, 2)),
        segment(0xE1, tiff(b"", 60_000)),
        segment(0xE1, b"Exif\0\0garbage"),
        segment(0xE1, b"Exif\0\0II*\0\xff\xff\xff\xff"),
        segment(0xE1, tiff(struct.pack("<HHIHH", ORIENTATION, 3, 1, 6, 0))) * 2,
        segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x/>") * 2,
        segment(0xE2, b"ICC_PROFILE\0\x01\x02half"),
        segment(0xDC, b"\0\x10"),
        segment(0xE9, b"") * 2000,
        b"\x00\x00\x00",
        b"\xff\xe1\x00\x00",
    ],
)
def test_headers_that_are_pillows_to_understand(photo: Image.Image, extra: bytes) -> None:
    data = saved(photo)
    assert plain_jpeg(data) is not None
    unusual = data[:2] + extra + data[2:]
    assert plain_jpeg(unusual) is None
    try:
        load_image(unusual, ImageOptions(image_size=16))
    except Refusal:
        assert extra[:2] in (b"\x00\x00", b"\xff\xe1")


def test_a_header_that_ends_anywhere_is_not_plain(photo: Image.Image) -> None:
    data = saved(photo, exif=orientation(6), xmp=b"<x/>", progressive=True)
    end = data.index(b"\xff\xda")
    assert plain_jpeg(data) is not None
    for length in range(end + 4):
        assert plain_jpeg(data[:length]) is None


@pytest.mark.parametrize("progressive", [False, True])
def test_scans_are_counted(photo: Image.Image, progressive: bool) -> None:
    data = saved(photo, progressive=progressive, exif=orientation(1))
    num = num_scans(data)
    assert num == data.count(b"\xff\xda")
    assert (num > 5) is progressive
    assert num_scans(data + data) == num  # a second picture behind the first, as in MPO, is not counted
    at = data.rindex(b"\xff\xda")
    assert num_scans(data[:at] + data[at:-2] * 500 + b"\xff\xd9") == jpeg.MAX_SCANS + 1


def test_every_option_changes_the_picture(photo: Image.Image) -> None:
    transparent = photo.convert("RGBA")
    transparent.putalpha(Image.linear_gradient("L").resize(photo.size))
    data, png = saved(photo), saved(transparent, "PNG")
    base = ImageOptions(image_size=32)
    for changed in ({"image_size": 33}, {"resize": "crop"}, {"resize": "pad"}, {"decode": "exact"}):
        other = load_image(data, dataclasses.replace(base, **changed)).pixels
        assert other.tobytes() != load_image(data, base).pixels.tobytes(), changed
    for options, file in ((base, png), (dataclasses.replace(base, resize="pad"), data)):
        black = dataclasses.replace(options, background=(0, 0, 0))
        assert load_image(file, options).pixels.tobytes() != load_image(file, black).pixels.tobytes()
    half = data[: len(data) // 2]
    load_image(half, dataclasses.replace(base, truncated="keep"))
    with pytest.raises(Refusal):
        load_image(half, base)


@pytest.mark.parametrize(("color", "background"), [((255, 255, 255), (255, 255, 255)), ((0, 0, 0), (0, 0, 0))])
@pytest.mark.parametrize("how", ["stretch", "pad"])
def test_an_image_that_vanishes_on_its_background(
    color: tuple[int, int, int], background: tuple[int, int, int], how: str
) -> None:
    """Its pixels are as ever; the other composite comes with it, at the same place."""
    image = Image.new("RGBA", (60, 30))
    image.paste((*color, 255), (10, 5, 30, 25))
    options = ImageOptions(image_size=32, resize=how, background=background)
    found = load_image(saved(image, "PNG"), options)
    assert (found.pixels == np.uint8(background)).all()
    assert found.vanishes
    assert found.contrast is found.visible
    other = dataclasses.replace(options, background=tuple(255 - level for level in background))
    np.testing.assert_array_equal(found.visible, load_image(saved(image, "PNG"), other).pixels)


def test_the_other_composite_is_made_on_request() -> None:
    image = Image.new("RGBA", (60, 30))
    image.paste((200, 0, 0, 255), (10, 5, 30, 25))
    options = ImageOptions(image_size=32)
    assert load_image(saved(image, "PNG"), options).contrast is None
    found = load_image(saved(image, "PNG"), options, contrast=True)
    assert found.contrast is not None
    assert not found.vanishes
    assert found.visible is found.pixels
    assert load_image(saved(image.convert("RGB"), "PNG"), options, contrast=True).contrast is None
    assert not load_image(saved(Image.new("RGBA", (60, 30)), "PNG"), options).vanishes  # nothing to see anywhere


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"image_size": 0}, "image_size=0"),
        ({"resize": "squash"}, "resize='squash'"),
        ({"decode": "slow"}, "decode='slow'"),
        ({"truncated": "maybe"}, "truncated='maybe'"),
        ({"background": (0, 0, 256)}, r"background=\(0, 0, 256\)"),
        ({"background": (0, 0)}, r"background=\(0, 0\)"),
    ],
)
def test_wrong_options(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"Received: {message}"):
        ImageOptions(**{"image_size": 8, **changed})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("white", (255, 255, 255)),
        (" Black ", (0, 0, 0)),
        ("#102030", (16, 32, 48)),
        ("#fff", (255, 255, 255)),
        ("rgb(1, 2, 3)", (1, 2, 3)),
        ("rebeccapurple", (102, 51, 153)),
    ],
)
def test_backgrounds(text: str, expected: tuple[int, int, int]) -> None:
    assert parse_background(text) == expected


@pytest.mark.parametrize("text", ["", "whitish", "#12", "#11223344", "rgb(1,2)", "255,255,255"])
def test_wrong_backgrounds(text: str) -> None:
    with pytest.raises(UsageError, match=re.escape(f"--background={text}: should be a color ")):
        parse_background(text)


def test_versions() -> None:
    versions = decoder_versions()
    assert {"pillow", "simplejpeg", "libjpeg_turbo", "littlecms2", "webp", "libtiff"} <= set(versions)
    assert all(versions.values())
    assert versions["pillow"] == Image.__version__


def test_the_same_pixels_in_any_process(photo: Image.Image, tmp_path: Path) -> None:
    files = [
        saved(photo),
        saved(photo, progressive=True, exif=orientation(6)),
        saved(photo, "WEBP"),
        saved(photo)[:9000],
    ]
    options = [
        ImageOptions(image_size=64, decode=decode_how, truncated=truncated, resize=how)
        for decode_how in DECODES
        for truncated in TRUNCATED
        for how in RESIZES
    ]
    code = """
import hashlib, sys
from pathlib import Path
from tfrecords.convert.image.decoder import ImageOptions, load_image
from tfrecords.format.quarantine import Refusal
digest = hashlib.sha256()
for path in sorted(Path(sys.argv[1]).iterdir()):
    for decode in ("fast", "exact"):
        for truncated in ("refuse", "keep"):
            for how in ("stretch", "crop", "pad"):
                options = ImageOptions(image_size=64, decode=decode, truncated=truncated, resize=how)
                try:
                    digest.update(load_image(path.read_bytes(), options).pixels)
                except Refusal as refusal:
                    digest.update(str(refusal).encode())
print(digest.hexdigest())
"""
    digest = hashlib.sha256()
    for number, data in enumerate(files):
        (tmp_path / str(number)).write_bytes(data)
        for option in options:
            try:
                digest.update(load_image(data, option).pixels)
            except Refusal as refusal:
                digest.update(str(refusal).encode())
    environment = {**os.environ, "PYTHONPATH": str(Path(tfrecords.__file__).parents[1]), "PYTHONHASHSEED": "7"}
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == digest.hexdigest()


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
@pytest.mark.parametrize("how", DECODES)
def test_large_pictures_take_little_memory(photo: Image.Image, tmp_path: Path, how: str) -> None:
    """24 megapixels, to be turned: 96 MB as Pillow holds them, once."""
    path = tmp_path / "large.jpg"
    path.write_bytes(saved(photo.resize((6000, 4000), Image.Resampling.NEAREST), exif=orientation(6)))
    code = f"""
from pathlib import Path
from tfrecords.convert.image.decoder import ImageOptions, load_image
found = load_image(Path({str(path)!r}).read_bytes(), ImageOptions(image_size=224, decode={how!r}))
assert (found.width, found.height) == (4000, 6000)
status = Path("/proc/self/status").read_text()  # ru_maxrss would be that of the process that started this one
print(status.partition("VmHWM:")[2].split()[0])
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(tfrecords.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert int(done.stdout) / 1024 < (100 if how == "fast" else 200)  # MB
