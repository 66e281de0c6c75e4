"""Images that keep their shapes: how large they are stored, which files stay as they are, and what checks them."""

import dataclasses
import hashlib
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from tfrecords.base_errors import DataError, UsageError
from tfrecords.convert.engine import convert
from tfrecords.convert.image.decoder import CENTER, ImageOptions, load_image, resize
from tfrecords.convert.image.own_shape import MAX_JPEG_SIDE, own_size
from tfrecords.convert.plan.convert_config import ConvertConfig
from tfrecords.convert.plan.shard_plan import SHARD_BYTES, num_shards
from tfrecords.edit.dataset_edit import EditConfig, edit
from tfrecords.format.dataset_verification import verify
from tfrecords.format.example import decode_example
from tfrecords.format.jpeg_frame import read_sizes, size_of_example, sizes_path
from tfrecords.format.layout import Layout
from tfrecords.format.manifest import read_manifest
from tfrecords.format.quarantine import Reason, Refusal
from tfrecords.format.shard import ShardReader

AConfig = Callable[..., ConvertConfig]


def picture(width: int, height: int) -> Image.Image:
    """Soft colors that do not suffer from JPEG."""
    rng = np.random.default_rng(width + 1000 * height)
    return Image.fromarray(rng.integers(0, 256, (3, 4, 3), np.uint8)).resize((width, height), Image.Resampling.BICUBIC)


def jpeg(image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **{"quality": 92, **options})
    return buffer.getvalue()


def oriented(image: Image.Image, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return jpeg(image, exif=exif.tobytes())


def options(how: str, image_size: int = 40, **changes: Any) -> ImageOptions:
    return ImageOptions(image_size=image_size, resize=how, **changes)


@settings(max_examples=60)
@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 600))
def test_sizes(width: int, height: int, side: int) -> None:
    for how, decisive in (("short", min), ("longest", max)):
        stored = own_size((width, height), side, how)
        assert decisive(stored) == min(decisive(width, height), side)
        if decisive(width, height) <= side:
            assert stored == (width, height)
        scale = decisive(stored) / decisive(width, height)
        for there, whole in zip(stored, (width, height), strict=True):
            assert there == max(1, there)
            assert abs(there - whole * scale) <= 0.5 or there == 1
    assert own_size((width, height), side, "none") == (width, height)


@pytest.mark.parametrize("decode", ["fast", "exact"])
@pytest.mark.parametrize(("how", "size"), [("short", (60, 40)), ("longest", (40, 27)), ("none", (120, 80))])
def test_pixels(how: str, size: tuple[int, int], decode: str) -> None:
    image = picture(120, 80)
    for data in (jpeg(image), oriented(image.rotate(90, expand=True), 6)):
        found = load_image(data, options(how, decode=decode))
        assert (found.width, found.height) == (120, 80)
        assert found.pixels.shape == (size[1], size[0], 3)
        expected = np.asarray(image.resize(size, Image.Resampling.BICUBIC), np.int16)
        assert np.abs(found.pixels - expected).mean() < 3
    transparent = Image.new("RGBA", (30, 90), (0, 0, 0, 0))
    buffer = io.BytesIO()
    transparent.save(buffer, "PNG")
    found = load_image(buffer.getvalue(), options(how))
    assert found.pixels.min() == 255
    assert found.jpeg is None


def test_files_that_are_stored_as_they_are() -> None:
    image = picture(50, 38)
    gray = jpeg(image.convert("L"))
    srgb = jpeg(image, icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for data in (jpeg(image), jpeg(image, progressive=True), jpeg(image, subsampling="4:4:4"), gray, srgb):
        for how, side in (("short", 38), ("short", 500), ("longest", 50), ("none", 1)):
            for decode in ("fast", "exact"):
                found = load_image(data, options(how, side, decode=decode))
                assert found.jpeg == data
                expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
                np.testing.assert_array_equal(found.pixels, expected)
    # Not if they are larger, rotated, of other colors or their sampling has no name, or no JPEG; nor with a warning.
    sampled = bytearray(simplejpeg.encode_jpeg(np.asarray(image.resize((64, 64))), 92, "RGB", "411"))
    sampled[sampled.index(b"\xff\xc0") + 11] = 0x14  # 4:4:1, which has as many blocks
    assert load_image(bytes(sampled), options("none")).jpeg is None
    cmyk, rgb = jpeg(image.convert("CMYK")), simplejpeg.encode_jpeg(np.asarray(image), 92, "RGB", "444")
    png = io.BytesIO()
    image.save(png, "PNG")
    others = [
        oriented(image, 6),
        jpeg(image, icc_profile=_other_colors()),
        cmyk,
        png.getvalue(),
        jpeg(image, keep_rgb=True),
    ]
    for data in others:
        found = load_image(data, options("none"))
        assert found.jpeg is None
        assert sorted(found.pixels.shape[:2]) == [38, 50]
    assert load_image(rgb, options("none")).jpeg == rgb  # RGB is what was given to it; the file is YCbCr
    assert load_image(jpeg(image), options("short", 37)).jpeg is None
    assert load_image(jpeg(image), options("longest", 49)).jpeg is None
    cut = jpeg(image)[:-200]
    with pytest.raises(Refusal):
        load_image(cut, options("none"))
    assert load_image(cut, options("none", truncated="keep")).jpeg is None


def _other_colors() -> bytes:
    """A profile that is not sRGB: its red and green are exchanged."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile.replace(b"rXYZ", b"xXYZ").replace(b"gXYZ", b"rXYZ").replace(b"xXYZ", b"gXYZ")


def test_an_image_that_no_jpeg_can_hold() -> None:
    buffer = io.BytesIO()
    Image.new("L", (MAX_JPEG_SIDE + 1, 2)).save(buffer, "PNG")
    for how in ("none", "short"):
        with pytest.raises(Refusal, match="65,501 x 2 px would be stored, and a JPEG has at most 65,500") as refused:
            load_image(buffer.getvalue(), options(how))
        assert refused.value.reason == Reason.TOO_LARGE
    assert load_image(buffer.getvalue(), options("longest")).pixels.shape == (1, 40, 3)


def test_a_larger_image_than_may_be_decoded_is_reduced() -> None:
    found = load_image(jpeg(picture(400, 300)), options("none", max_pixels=40_000))
    assert found.pixels.shape == (150, 200, 3)
    assert (found.width, found.height, found.jpeg) == (400, 300, None)


def test_the_center_is_that_of_the_crops() -> None:
    """7/8 of the middle: what a model that was trained on crops is shown of a file."""
    image = picture(320, 240)
    expected = np.asarray(image.crop((55, 15, 265, 225)).resize((56, 56), Image.Resampling.BICUBIC), np.int16)
    found = load_image(jpeg(image, quality=98), options(CENTER, 56)).pixels
    assert np.abs(found - expected).max() <= 6
    assert np.abs(resize(image, 56, CENTER) - expected).max() <= 2


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen JPEGs of many shapes, two PNGs, and one that is rotated by its EXIF."""
    folder = tmp_path_factory.mktemp("own") / "photos"
    for number in range(16):
        path = folder / "ab"[number % 2] / f"{number:02}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(picture(24 + 7 * number, 100 - 4 * number)))
    picture(61, 30).save(folder / "a" / "drawn.png")
    picture(31, 70).save(folder / "b" / "drawn.png")
    (folder / "b" / "turned.jpg").write_bytes(oriented(picture(90, 33), 8))
    return folder


def stored(dataset_dir: Path) -> dict[str, bytes]:
    """The stored files by path."""
    manifest = read_manifest(dataset_dir)
    paths = dict(zip(manifest.ids.tolist(), manifest.paths, strict=True))
    found = {}
    for infos in Layout.load(dataset_dir).splits.values():
        for info in infos:
            payloads = list(ShardReader(dataset_dir / info.file))
            sizes = read_sizes(dataset_dir / info.file, len(payloads))
            assert [size_of_example(payload) for payload in payloads] == list(map(tuple, sizes.tolist()))
            for payload, size in zip(payloads, sizes.tolist(), strict=True):
                example = decode_example(payload)
                found[paths[example["id"]]] = example["image"]
                assert Image.open(io.BytesIO(example["image"])).size == tuple(size)
    return found


@pytest.mark.parametrize("how", ["short", "longest", "none"])
def test_a_dataset(photos: Path, tmp_path: Path, a_config: AConfig, how: str) -> None:
    made = convert(a_config(photos, tmp_path, name="own", resize=how, image_size=40))
    layout = Layout.load(made.dataset_dir)
    assert (layout.image_size, layout.encoding, layout.own_shapes) == (0 if how == "none" else 40, "jpeg", True)
    assert verify(made.dataset_dir).problems == ()
    assert ("image_size" in layout.config) == (how != "none")
    features = json.loads((made.dataset_dir / "features.json").read_text())["featuresDict"]["features"]
    assert features["image"]["image"]["shape"]["dimensions"] == ["-1", "-1", "3"]
    files = stored(made.dataset_dir)
    assert len(files) == 19
    for path, data in files.items():
        original = (photos / path).read_bytes()
        with Image.open(io.BytesIO(original)) as image:
            size = image.size if "turned" not in path else image.size[::-1]
        assert Image.open(io.BytesIO(data)).size == own_size(size, 40, how)
        keeps = path.endswith(".jpg") and "turned" not in path and own_size(size, 40, how) == size
        assert (data == original) == keeps
    if how != "short":
        return
    # One worker or three: the same bytes.
    again = convert(a_config(photos, tmp_path / "again", name="own", resize=how, image_size=40, num_workers=3))
    for path in (path for path in made.dataset_dir.rglob("*") if path.is_file()):
        other = again.dataset_dir / path.relative_to(made.dataset_dir)
        assert path.name == "report.html" or path.read_bytes() == other.read_bytes()


def test_copies_are_found_by_what_they_show(tmp_path: Path, a_config: AConfig) -> None:
    rng = np.random.default_rng(0)
    for number in range(6):
        image = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).resize((160, 120), Image.Resampling.BICUBIC)
        for name, data in (("whole", jpeg(image)), ("small", jpeg(image.resize((120, 90)), quality=80))):
            path = tmp_path / "photos" / "c" / f"{number}-{name}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    made = convert(a_config(tmp_path / "photos", tmp_path, name="own", resize="none", splits="a=0.5,b=0.5"))
    manifest = read_manifest(made.dataset_dir)
    groups = dict(zip(manifest.paths, manifest.groups.tolist(), strict=True))
    assert all(groups[f"c/{number}-whole.jpg"] == groups[f"c/{number}-small.jpg"] for number in range(6))
    assert len(set(groups.values())) == 6
    assert verify(made.dataset_dir).problems == ()  # shards were written again


def test_appended_edited_merged_and_converted_again(photos: Path, tmp_path: Path, a_config: AConfig) -> None:
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    given = {"name": "own", "resize": "short", "image_size": 40}
    convert(a_config(folder, tmp_path, **given))
    (folder / "a" / "new.jpg").write_bytes(jpeg(picture(77, 55)))
    appended = convert(a_config(folder, tmp_path, append=True, **given)).dataset_dir
    assert verify(appended).problems == ()
    assert len(stored(appended)) == 20
    (tmp_path / "delete.csv").write_text("path\na/02.jpg\n")
    edited = edit(EditConfig(dataset_dir=appended, delete=tmp_path / "delete.csv")).dataset_dir
    assert verify(edited).problems == ()
    assert len(stored(edited)) == 19
    other = tmp_path / "others"
    (other / "a").mkdir(parents=True)
    for number in range(3):
        (other / "a" / f"other{number}.jpg").write_bytes(jpeg(picture(140 + number, 60)))
    second = convert(a_config(other, tmp_path, **{**given, "name": "second"})).dataset_dir
    merged = edit(EditConfig(dataset_dir=edited, merge=(str(second),))).dataset_dir
    assert verify(merged).problems == ()
    assert len(stored(merged)) == 22
    squares = convert(a_config(other, tmp_path, name="squares", encoding="jpeg", image_size=40)).dataset_dir
    with pytest.raises(UsageError, match=r"has images of 40 × 40 px, and the dataset images of short side up to 40 px"):
        edit(EditConfig(dataset_dir=merged, merge=(str(squares),)))
    again = ConvertConfig(from_dataset=str(merged), data_dir=tmp_path, image_size=16, num_workers=1)
    small = convert(again).dataset_dir
    assert small.parent.name == "own_16"
    assert Layout.load(small).encoding == "raw"
    assert verify(small).num_examples == 22


def test_damage_is_found(photos: Path, tmp_path: Path, a_config: AConfig) -> None:
    made = convert(a_config(photos, tmp_path, name="own", resize="short", image_size=40)).dataset_dir
    shard = made / Layout.load(made).splits["train"][0].file
    path = sizes_path(shard)
    whole = path.read_bytes()
    path.unlink()
    assert any(f"{path} is missing" in problem for problem in verify(made).problems)
    for wrong in (whole[:-3], b"0 5\n" + whole, whole.replace(b" ", b"  x ", 1), b""):
        path.write_bytes(wrong)
        with pytest.raises(DataError, match=r"should have one line `width height`"):
            read_sizes(shard, whole.count(b"\n"))
        assert verify(made).problems
    # A sidecar of other sizes, with its checksum: the records tell.
    path.write_bytes(whole.replace(b"40 ", b"41 ", 1))
    layout = Layout.load(made)
    files = {**layout.files, f"sizes/{path.name}": hashlib.sha256(path.read_bytes()).hexdigest()}
    dataclasses.replace(layout, files=files).save(made)
    assert verify(made).problems == (f"{path} does not match the shard.",)


def test_mistakes(tmp_path: Path, a_config: AConfig) -> None:
    for encoding in ("raw", "png"):
        with pytest.raises(UsageError, match=f"--encoding={encoding}: images that keep their shapes .--resize=short."):
            a_config(tmp_path, tmp_path, resize="short", encoding=encoding)
    with pytest.raises(UsageError, match="--image_size=0: should be 1..4096 px"):
        a_config(tmp_path, tmp_path, resize="longest", image_size=0)
    assert a_config(tmp_path, tmp_path, resize="none", image_size=0).own_shapes
    with pytest.raises(ValueError, match="`resize` should be one of"):
        options("wide")


def test_shards_of_large_files() -> None:
    """Where images keep their size, the bytes of the files decide."""
    assert num_shards(1000, 0, "jpeg", 20 * SHARD_BYTES) == 20
    assert num_shards(10, 0, "jpeg", 1000) == 1
