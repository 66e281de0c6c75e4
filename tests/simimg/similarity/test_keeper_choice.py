"""Which of some copies is kept, and why: what people have in their folders, drawn small."""

from __future__ import annotations

import hashlib
import io
import itertools
import os
import struct
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFile, ImageFilter, ImageOps, TiffImagePlugin

from simimg.errors import UsageError
from simimg.similarity import keeper_choice
from simimg.similarity.edit_counts import least_changed
from simimg.similarity.embeddings import Embedder
from simimg.similarity.fingerprint import jpeg_quality
from simimg.similarity.image_table import IndexedImage
from simimg.similarity.image_worth import (
    bits_per_color,
    camera_facts,
    color_image,
    has_more_detail,
    is_lossless,
    is_saved_again,
    jpeg_coefficients,
    jpeg_table,
)
from simimg.similarity.index_images import IndexImages
from simimg.similarity.keeper_choice import check_keep, choose_keeper
from simimg.similarity.pixel_history import is_enlarged, left_by_filter
from simimg.similarity.search_index import write_generation

Scene = Callable[..., Image.Image]


def jpeg(image: Image.Image, quality: int, exif: Image.Exif | None = None) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, **({} if exif is None else {"exif": exif}))
    return buffer.getvalue()


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


def resized(image: Image.Image, factor: float, by: Image.Resampling = Image.Resampling.BICUBIC) -> Image.Image:
    return image.resize((round(image.width * factor), round(image.height * factor)), by)


def camera(size: tuple[int, int] | None = None) -> Image.Exif:
    exif = Image.Exif()
    exif[271], exif[272] = "ExampleCam", "X1"
    details = exif.get_ifd(0x8769)
    details[36867] = "2021:05:04 10:11:12"
    if size:
        details[40962], details[40963] = size
    return exif


def photo(seed: int = 0) -> Image.Image:
    """A soft photo, 640 x 480, whose detail ends before its pixels do."""
    rng = np.random.default_rng(seed)
    total = np.zeros((480, 640, 3))
    for px in (3, 6, 12, 24, 48):
        coarse = Image.fromarray(rng.integers(0, 256, (480 // px + 1, 640 // px + 1, 3), np.uint8))
        total += np.asarray(coarse.resize((640, 480), Image.Resampling.BICUBIC), float) * px
    return Image.fromarray(np.uint8(total / 93))


def kept(folder: Path, files: dict[str, bytes], *rules: str, edits: Iterable[str] = ()) -> tuple[str, str]:
    """Returns the name of the file that is kept, and why; `edits` are those with a visible one."""
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return kept_again(folder, files, *rules, edits=edits)


def kept_again(folder: Path, files: dict[str, bytes], *rules: str, edits: Iterable[str] = ()) -> tuple[str, str]:
    """Does the same for files that are there."""
    rows = []
    for name, data in files.items():
        width, height = Image.open(io.BytesIO(data)).size
        sha256 = hashlib.sha256(data).hexdigest()
        rows.append(IndexedImage(path=name, sha256=sha256, num_bytes=len(data), width=width, height=height))
    embedder = Embedder("lite0", "abc", 224, "stretch", 8, None)
    index = write_generation(folder.with_name("i"), embedder, np.eye(len(rows), 8), rows, image_dir=folder)
    counts = {row: int(image.path in edits) for row, image in enumerate(rows)}
    row, why = choose_keeper(IndexImages(index), counts, is_reference=lambda image: False, rules=rules)
    return rows[row].path, why


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "photos"


def test_the_camera_file_is_kept_before_a_larger_resave(folder: Path) -> None:
    original = jpeg(photo(), 80, camera())
    files = {"a.jpg": jpeg(opened(original), 97), "b.jpg": original}
    assert kept(folder, files) == ("b.jpg", "the camera's file: EXIF of 2021-05-04, ExampleCam X1")


@pytest.mark.parametrize("quality", [60, 90])
@pytest.mark.parametrize("soft", [False, True])
def test_an_enlarged_copy_is_not_kept(folder: Path, scene: Scene, soft: bool, quality: int) -> None:
    original = jpeg(photo() if soft else scene(1, (640, 480)), 90)
    files = {"a.jpg": jpeg(resized(opened(original), 2), quality), "b.jpg": original}
    assert kept(folder, files) == ("b.jpg", "as much detail: the other one looks enlarged from about 640 x 480")


@pytest.mark.parametrize("soft", [False, True])
def test_of_several_enlarged_copies_none_is_kept(folder: Path, scene: Scene, soft: bool) -> None:
    """The largest has no more detail than the next one, which is itself enlarged."""
    original = jpeg(photo() if soft else scene(1, (640, 480)), 88)
    large, medium = (resized(opened(original), factor, Image.Resampling.LANCZOS) for factor in (2, 1.5))
    files = {"a.jpg": jpeg(large, 92), "b.png": png(medium), "c.jpg": original}
    assert kept(folder, files) == ("c.jpg", "as much detail: the other one looks enlarged from about 640 x 480")


@pytest.mark.parametrize("quality", [75, 92])
@pytest.mark.parametrize("factor", [1.4, 2, 2.7])
def test_an_enlarged_and_sharpened_copy_is_not_kept(folder: Path, scene: Scene, factor: float, quality: int) -> None:
    """Sharpening makes edges stronger, and adds no detail."""
    original = jpeg(scene(0), 90)
    sharpen = ImageFilter.SHARPEN if factor < 2 else ImageFilter.UnsharpMask(1.5, 150, 0)
    large = resized(opened(original), factor, Image.Resampling.LANCZOS).filter(sharpen)
    for size, image in (("a.jpg", large), ("c.jpg", large.transpose(Image.Transpose.ROTATE_90))):
        files = {size: jpeg(image, quality), "b.jpg": original}
        assert kept(folder, files) == ("b.jpg", "as much detail: the other one looks enlarged from about 320 x 240")


@pytest.mark.parametrize("factor", [1.25, 4 / 3, 1.6, 2, 8 / 3, 4])
def test_the_blocks_of_a_jpeg_file_do_not_count_as_enlarged(scene: Scene, factor: float) -> None:
    """They are at the frequencies of its copies whose sides are so many eighths of it."""
    image = scene(5, (640, 480)).convert("L")
    small = image.resize((round(640 / factor), round(480 / factor)), Image.Resampling.LANCZOS)
    assert is_enlarged(small.resize(image.size, Image.Resampling.LANCZOS), small.size)
    compressed = opened(jpeg(image, 30)).convert("L")
    assert not is_enlarged(compressed, small.size)
    assert has_more_detail(compressed, small)


def test_a_file_whose_twin_is_elsewhere_is_compared(folder: Path, scene: Scene) -> None:
    """Rules may leave out the first of two files with the same bytes."""
    image = scene(1, (640, 480))
    original, small = jpeg(image, 88), jpeg(resized(image, 0.5), 88)
    files = {"a.jpg": original, "b/a.jpg": original, "b/c.jpg": small}
    said = "more detail: 640 x 480, the other one has 320 x 240"
    assert kept(folder, files, "exif", "folder:b") == ("b/a.jpg", said)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("exif", [False, True])
def test_the_original_is_kept_before_a_smaller_copy(folder: Path, scene: Scene, soft: bool, exif: bool) -> None:
    """Messengers reduce images, and exports keep the metadata."""
    original = photo() if soft else scene(1, (640, 480))
    files = {"a.jpg": jpeg(resized(original, 0.5), 95, camera() if exif else None), "b.jpg": jpeg(original, 85)}
    assert kept(folder, files) == ("b.jpg", "more detail: 640 x 480, the other one has 320 x 240")


def test_a_large_original_is_kept_before_an_export(folder: Path, scene: Scene) -> None:
    original = scene(2, (1800, 1350))
    small = jpeg(resized(original, 0.33, Image.Resampling.LANCZOS), 92)
    files = {"a.jpg": small, "b.jpg": jpeg(original, 80, camera()), "c.jpg": jpeg(resized(opened(small), 3.5), 95)}
    assert kept(folder, files)[0] == "b.jpg"


def test_a_soft_camera_file_does_not_count_as_enlarged(folder: Path) -> None:
    """It has no more detail than its smaller copy, which kept the metadata: like an enlarged one with metadata."""
    small = photo()
    large = resized(small, 1.8)
    files = {"a.jpg": jpeg(small, 90, camera()), "b.jpg": jpeg(large, 90, camera())}
    assert kept(folder, files) == ("b.jpg", "the most pixels, 1152 x 864")
    files["b.jpg"] = jpeg(large, 90, camera(large.size))
    assert kept(folder, files) == (
        "b.jpg",
        "the camera's file: EXIF of 2021-05-04, ExampleCam X1, more of its metadata",
    )


def test_a_png_of_a_jpeg_is_not_kept_as_one_without_loss(folder: Path, scene: Scene) -> None:
    original = jpeg(scene(3), 85)
    why = "the other one is this JPEG of about quality 85, saved again"
    assert kept(folder, {"a.png": png(opened(original)), "b.jpg": original}) == ("b.jpg", why)
    touched = opened(original)
    touched.putpixel((0, 0), (1, 2, 3))
    assert kept(folder, {"a.png": png(touched), "b.jpg": original}) == ("b.jpg", why)
    assert kept(folder, {"a.jpg": original, "b.png": png(scene(3))}) == ("b.png", "as much detail, without loss")


def test_a_second_compression_is_no_gain_and_a_better_first_one_is(folder: Path, scene: Scene) -> None:
    original = jpeg(scene(4), 75)
    found = kept(folder, {"a.jpg": jpeg(opened(original), 95), "b.jpg": original})
    assert found == ("b.jpg", "the other one is this JPEG of about quality 75, saved again")
    found = kept(folder, {"a.jpg": original, "b.jpg": jpeg(scene(4), 95)})
    assert found == ("b.jpg", "as many pixels, a higher JPEG quality: about 95")


def poor(image: Image.Image, kind: str) -> bytes:
    """What programs make of an image, and what is worth less than it."""
    buffer = io.BytesIO()
    if kind == "web palette":
        image.convert("P", palette=Image.Palette.WEB, dither=Image.Dither.FLOYDSTEINBERG).save(buffer, "PNG")
    elif kind == "GIF":
        image.save(buffer, "GIF")
    elif kind == "palette without dithering":
        image.quantize(256, dither=Image.Dither.NONE).save(buffer, "PNG")
    elif kind == "thing on white, 128 colors":
        image.quantize(128).save(buffer, "PNG")
    elif kind == "dithered, in true color":
        image.convert("P", palette=Image.Palette.WEB).convert("RGB").save(buffer, "PNG")
    elif kind == "posterized":
        ImageOps.posterize(image, 5).save(buffer, "PNG")
    elif kind == "16 bits per pixel":
        Image.fromarray(np.asarray(image) & np.array([0xF8, 0xFC, 0xF8], np.uint8)).save(buffer, "PNG")
    elif kind == "sharpened":
        image.filter(ImageFilter.UnsharpMask(2, 150, 0)).save(buffer, "PNG")
    elif kind == "blurred":
        image.filter(ImageFilter.GaussianBlur(1.5)).save(buffer, "PNG")
    elif kind == "JPEG as PNG":
        opened(jpeg(image, 40)).save(buffer, "PNG")
    elif kind == "JPEG as better JPEG":
        buffer.write(jpeg(opened(jpeg(image, 40)), 98))
    elif kind == "WebP":
        image.save(buffer, "WEBP", quality=95)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("web palette", "as much detail: the other one has fewer colors"),
        ("GIF", "as much detail: the other one has fewer colors"),
        ("palette without dithering", "as much detail: the other one has fewer colors"),
        ("thing on white, 128 colors", "as much detail: the other one has fewer colors"),
        ("dithered, in true color", "as much detail: the other one has fewer colors"),
        ("posterized", "as much detail: the other one has fewer colors"),
        ("16 bits per pixel", "as much detail: the other one has fewer colors"),
        ("sharpened", "as much detail: the other one is sharpened"),
        ("blurred", "as much detail: the other one is blurred"),
        ("JPEG as PNG", ""),
        ("JPEG as better JPEG", "as many pixels, the other one was a JPEG of about quality 40 before"),
        ("WebP", "the other one is this JPEG of about quality 75, saved again"),
    ],
)
def test_what_was_made_from_a_photo_is_not_kept(folder: Path, scene: Scene, kind: str, why: str) -> None:
    """Neither if the photo is a JPEG file of moderate quality, nor without loss."""
    image = scene(3) if kind in ("WebP", "blurred") else photo(3)
    if "white" in kind:
        grain = np.random.default_rng(3).normal(0, 15, (480, 640, 1))
        image = Image.fromarray(np.uint8(np.clip(np.asarray(image) + grain, 0, 255)))
        ImageDraw.Draw(image).rectangle((400, 0, 640, 480), fill="white")
    original = jpeg(image, 75)
    name, said = kept(folder, {"a": poor(opened(original), kind), "b.jpg": original})
    assert name == "b.jpg"
    assert said.startswith(why or "as many pixels, the other one was a JPEG of about quality 40 before")
    if kind not in ("JPEG as better JPEG", "WebP"):
        name, said = kept(folder, {"a": poor(image, kind), "b.png": png(image)})
        assert name == "b.png"
        assert said.startswith(why or "as much detail, without loss")


def drawing() -> Image.Image:
    """A drawing of 40 flat shapes with smooth edges."""
    rng = np.random.default_rng(5)
    image = Image.new("RGB", (960, 720), "white")
    draw = ImageDraw.Draw(image)
    for _ in range(40):
        x, y = rng.integers(0, 960), rng.integers(0, 720)
        w, h = rng.integers(60, 300, 2)
        color = tuple(int(level) for level in rng.integers(0, 256, 3))
        (draw.ellipse if rng.integers(2) else draw.rectangle)((x, y, x + w, y + h), fill=color)
    return image.resize((320, 240), Image.Resampling.BOX)


def test_a_drawing_has_few_colors_and_is_kept(folder: Path) -> None:
    original = drawing().quantize(128, dither=Image.Dither.NONE).convert("RGB")
    rng = np.random.default_rng(0)
    noise = np.uint8(np.clip(np.asarray(original) + rng.normal(0, 5, (240, 320, 3)), 0, 255))
    webp = io.BytesIO()
    original.save(webp, "WEBP", quality=90)
    others = jpeg(original, 95), jpeg(original, 60), webp.getvalue(), png(opened(jpeg(original, 75)))
    for other in (*others, png(Image.fromarray(noise))):
        assert kept(folder, {"a": other, "b.png": png(original)})[0] == "b.png"


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("pattern", ["checkerboard", "lines"])
def test_a_drawing_with_a_pattern_is_kept(folder: Path, pattern: str, turned: bool) -> None:
    y, x = np.mgrid[:240, :320]
    pixels = np.full((240, 320, 3), 255, np.uint8)
    pixels[(y >= 80) & ((x + y if pattern == "checkerboard" else x) % 2 == 0)] = (20, 40, 160)
    pixels[10:20, ::4] = np.random.default_rng(0).integers(0, 256, (80, 3))  # more inks than a few
    original = Image.fromarray(pixels)
    original = original.transpose(Image.Transpose.ROTATE_90) if turned else original
    assert kept(folder, {"a.jpg": jpeg(original, 90), "b.png": png(original)})[0] == "b.png"


def test_sixteen_bits_are_kept_before_eight(folder: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 1 << 16, (12, 16), np.uint16)
    deep = cv2.resize(pixels, (320, 240), interpolation=cv2.INTER_CUBIC)
    buffers = io.BytesIO(), io.BytesIO()
    Image.fromarray(deep).save(buffers[0], "PNG")
    Image.fromarray(deep).save(buffers[1], "TIFF", compression="tiff_adobe_deflate")
    for buffer in buffers:
        shown = color_image(buffer.getvalue())
        assert shown is not None
        files = {"a.bmp": b"", "b": buffer.getvalue()}
        small = io.BytesIO()
        shown.convert("L").save(small, "BMP")
        assert kept(folder, files | {"a.bmp": small.getvalue()}) == ("b", "16 bits per color")


def test_edits_count_more_than_size(folder: Path, scene: Scene) -> None:
    files = {"a.jpg": jpeg(scene(5, (640, 480)), 95), "b.jpg": jpeg(scene(5), 80)}
    assert kept(folder, files, edits=["a.jpg"]) == ("b.jpg", "nothing was done to it")


@pytest.mark.parametrize(
    ("changes", "left"),
    [
        ("01 10", "01"),  # either may be the original
        ("01 00", "1"),  # something was laid over the first one
        ("0111 1010 1101 1010", "0123"),  # two of other colors are too many
        ("0211 1011 1201 1210", "0123"),  # all colors differ
        ("011 200 200", "012"),  # a photo and two gray copies of it
        ("0120 1010 2100 0010", "13"),
    ],
)
def test_what_was_changed_is_told_by_the_others(changes: str, left: str) -> None:
    counts = [[int(count) for count in row] for row in changes.split()]
    found = least_changed(range(len(counts)), lambda row, other: counts[row][other])
    assert "".join(map(str, found)) == left


def test_rules_and_their_reasons(folder: Path, scene: Scene) -> None:
    original = jpeg(scene(6), 90, camera())
    files = {"a/0.jpg": original, "b/c/0.jpg": jpeg(scene(6, (640, 480)), 90), "b/1.jpg": original}
    for seconds, name in ((30, "a/0.jpg"), (10, "b/c/0.jpg"), (20, "b/1.jpg")):
        kept(folder, files)
        os.utime(folder / name, (seconds, seconds))
    (folder / "b/1.jpg").touch()
    for rule, expected in {
        "exif": "a/0.jpg",
        "largest": "b/c/0.jpg",
        "shortest": "a/0.jpg",
        "folder:b/c": "b/c/0.jpg",
        "folder:b": "b/c/0.jpg",
    }.items():
        check_keep([rule], folder)
        assert kept(folder, files, rule)[0] == expected, rule
    assert kept(folder, files, "folder:b", "exif") == (
        "b/1.jpg",
        "the camera's file: EXIF of 2021-05-04, ExampleCam X1",
    )
    assert kept(folder, files, "folder:b", "shortest") == ("b/1.jpg", "the shortest path")


@pytest.mark.parametrize("rule", ["oldest", "newest"])
def test_the_time_of_the_file_decides(folder: Path, scene: Scene, rule: str) -> None:
    data = jpeg(scene(7), 90)
    files = dict.fromkeys(("a.jpg", "b.jpg", "c.jpg"), data)
    kept(folder, files)
    folder_times = {"a.jpg": 86400 * 365, "b.jpg": 10, "c.jpg": 86400 * 730}

    def write_bytes(path: Path, data: bytes) -> int:
        return len(data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "write_bytes", write_bytes)  # the files are there, with their times
        for name, seconds in folder_times.items():
            os.utime(folder / name, (seconds, seconds))
        name, why = kept(folder, files, rule)
    assert (name, why[:29]) == {
        "oldest": ("b.jpg", "the oldest file, of 1970-01-0"),
        "newest": ("c.jpg", "the newest file, of 1972-01-0"),
    }[rule]


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("bigest", r"--keep=bigest: should be one of best, exif, largest, newest, oldest, shortest, or folder:NAME\."),
        ("folder:", "there is no folder ''"),
        ("folder:nowhere", "there is no folder 'nowhere' below"),
        ("folder:../photos", "there is no folder '../photos' below"),
    ],
)
def test_a_rule_that_does_not_exist_is_refused(tmp_path: Path, rule: str, message: str) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(UsageError, match=message):
        check_keep(["oldest", rule], tmp_path / "photos")


def test_files_that_are_gone_or_damaged_are_worth_nothing_more(folder: Path, scene: Scene) -> None:
    assert not camera_facts(b"").count
    assert not camera_facts(jpeg(scene(0), 90, camera())[:100]).count
    assert jpeg_table(b"GIF89a") is None
    assert color_image(b"") is None


def test_what_is_too_small_or_plain_to_be_measured(scene: Scene) -> None:
    plain = Image.new("L", (64, 48), 128)
    assert not has_more_detail(plain, plain.resize((16, 12)))
    assert not is_enlarged(plain, (16, 12))
    assert not is_enlarged(Image.new("L", (5, 5)), (2, 2))
    black_and_white = Image.fromarray(np.random.default_rng(0).integers(0, 2, (99, 99), np.uint8) * 255)
    assert left_by_filter(black_and_white, black_and_white) == np.inf  # all of it is clipped
    table = jpeg_table(jpeg(scene(0), 50))
    assert table is not None
    for image in (plain, Image.new("L", (5, 5))):
        assert not is_saved_again(jpeg_coefficients(image), None, table)


def large(kind: str) -> bytes:
    """A file whose header promises 182 megapixels, which are not there, and which has the camera's metadata."""
    width, height, exif = 14_000, 13_000, camera()
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, kind, exif=exif.tobytes(), quality=80)
    data = bytearray(buffer.getvalue())
    if kind == "TIFF":
        for tag, size in ((256, width), (257, height), (278, height)):  # the last one is the height of its strip
            for sort in (3, 4):
                data = data.replace(struct.pack("<HHII", tag, sort, 1, 16), struct.pack("<HHII", tag, 4, 1, size))
        return bytes(data)
    if kind == "PNG":
        data[16:24] = struct.pack(">II", width, height)
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
        at = data.index(b"eXIf") - 4  # moved behind the pixels
        end = at + 12 + int.from_bytes(data[at : at + 4])
        last = data.index(b"IEND") - 4
        return bytes(data[:at] + data[end:last] + data[at:end] + data[last:])
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_an_image_of_any_size_tells_what_it_is_worth(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its header: no pixels are decoded."""

    def load(image: ImageFile.ImageFile) -> None:
        raise AssertionError("pixels are decoded")

    data = large(kind) + bytes(1_000_000)  # as many bytes as a JPEG of this size has at least
    for plugin in (ImageFile.ImageFile, TiffImagePlugin.TiffImageFile):
        monkeypatch.setattr(plugin, "load", load)
    facts = camera_facts(data)
    assert (facts.camera, facts.date) == ("ExampleCam X1", "2021-05-04")
    assert is_lossless(data) is (kind != "JPEG")
    assert bits_per_color(data) == 8
    assert jpeg_quality(data) == (80 if kind == "JPEG" else None)
    assert (jpeg_table(data) is not None) is (kind == "JPEG")


def test_the_images_of_a_group_are_decoded_once_per_pair(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []
    monkeypatch.setattr(keeper_choice, "color_image", lambda data: (decoded.append(data), color_image(data))[1])
    sources = [png(Image.effect_noise((96, 72), 40 + number)) for number in range(6)]
    kept(folder, {f"{number}.png": data for number, data in enumerate(sources)}, "best")
    assert set(decoded) == set(sources)
    pairs = list(keeper_choice._chained_pairs(range(6)))
    assert len({frozenset(pair) for pair in pairs}) == len(pairs) == 15
    assert all(set(one) & set(two) for one, two in itertools.pairwise(pairs))
    assert list(keeper_choice._chained_pairs([4])) == []
    assert len(decoded) <= 6 + 16  # for the rules before, and then one for each of 15 pairs and one more


def test_of_many_equal_images_one_is_kept_without_comparing_their_pixels(folder: Path) -> None:
    sources = [png(Image.effect_noise((24, 18), 40 + number)) for number in range(7)]
    assert kept(folder, {f"{number}.png": data for number, data in enumerate(sources)})[0] == "0.png"


def test_a_thousand_names_of_the_same_bytes_are_read_once(folder: Path, scene: Scene) -> None:
    files = dict.fromkeys((f"{number}.jpg" for number in range(1000)), jpeg(scene(8, (64, 48)), 90))
    assert kept(folder, files) == ("0.jpg", "the shortest path")


def test_the_oldest_of_equal_files_is_kept_and_then_the_shortest_path(folder: Path, scene: Scene) -> None:
    """Not the first by name, which may be that of a folder of copies."""
    data = jpeg(scene(9, (64, 48)), 90)
    files = dict.fromkeys(("copies/1.jpg", "photos/1.jpg", "photos/longer.jpg"), data)
    assert kept(folder, files) == ("copies/1.jpg", "the shortest path")
    for seconds, name in enumerate(("photos/longer.jpg", "photos/1.jpg", "copies/1.jpg")):
        (folder / name).write_bytes(data)
        os.utime(folder / name, (1e9 + 10 * seconds,) * 2)
    assert kept_again(folder, files) == ("photos/longer.jpg", "the oldest file, of 2001-09-09 01:46:40 UTC")
    os.utime(folder / "photos/1.jpg", (1e9 + 2,) * 2)  # unpacked from one archive
    assert kept_again(folder, files) == ("photos/1.jpg", "the shortest path")
    files = dict.fromkeys(("a/1.jpg", "b/1.jpg"), data)
    assert kept(folder, files) == ("a/1.jpg", "the first of equally good files")
