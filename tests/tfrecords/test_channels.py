"""Gray and RGBA datasets, from the flag to the bytes in shards and back."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import tfrecords
from tfrecords.base_errors import DataError, UsageError
from tfrecords.convert.engine import convert
from tfrecords.convert.image.color import gray_of, rgb_of
from tfrecords.convert.image.decoder import ImageOptions, load_image
from tfrecords.convert.plan.convert_config import ConvertConfig
from tfrecords.edit.dataset_edit import EditConfig, edit
from tfrecords.format.dataset_images import DatasetImages
from tfrecords.format.dataset_verification import verify
from tfrecords.format.layout import Layout
from tfrecords.format.manifest import read_manifest

WIDTH, HEIGHT = 24, 16


def noise(channels: int, seed: int, *, least: int = 0) -> np.ndarray:
    pixels = np.random.default_rng(seed).integers(least, 256, (HEIGHT, WIDTH, channels), np.uint8)
    return pixels if channels > 1 else pixels[:, :, 0]


def stored(pixels: np.ndarray, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, **options)
    return buffer.getvalue()


def loaded(data: bytes, channels: int, **options: Any) -> np.ndarray:
    given: dict[str, Any] = {"image_size": (WIDTH, HEIGHT), **options}
    return load_image(data, ImageOptions(channels=channels, **given)).pixels


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Gray, RGB and RGBA files, two of each, in two classes."""
    folder = tmp_path_factory.mktemp("channels") / "photos"
    for number in range(6):
        path = folder / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(stored(noise((1, 3, 4)[number // 2], number)))
    return folder


def test_luma_is_that_of_the_recommendation_and_of_pillow() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 40, 3), np.uint8)
    expected = pixels @ np.array([0.299, 0.587, 0.114])  # ITU-R BT.601-7, section 2.5.1
    found = gray_of(pixels)
    assert (found.shape, found.dtype) == ((50, 40, 1), np.uint8)
    assert np.abs(found[:, :, 0] - expected).max() < 0.51
    np.testing.assert_array_equal(found[:, :, 0], np.asarray(Image.fromarray(pixels).convert("L")))
    levels = np.arange(256, dtype=np.uint8)[None, :, None].repeat(3, axis=2)
    np.testing.assert_array_equal(gray_of(levels)[..., 0], levels[..., 0])


def test_gray_files_keep_their_values() -> None:
    gray = noise(1, 3)
    for data in (stored(gray), stored(gray, "TIFF"), stored(gray, "BMP"), b"P5 24 16 255\n" + gray.tobytes()):
        np.testing.assert_array_equal(loaded(data, 1)[:, :, 0], gray)
    jpeg = stored(gray, "JPEG", quality=95)
    np.testing.assert_array_equal(loaded(jpeg, 1)[:, :, 0], np.asarray(Image.open(io.BytesIO(jpeg))))


@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
def test_gray_is_the_luma_of_the_stored_colors(resize: str) -> None:
    big = np.random.default_rng(1).integers(0, 256, (70, 50, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    for data in (stored(big, exif=exif), stored(big, "JPEG", exif=exif), stored(noise(4, 1))):
        np.testing.assert_array_equal(loaded(data, 1, resize=resize), gray_of(loaded(data, 3, resize=resize)))


def test_alpha_is_stored() -> None:
    pixels = noise(4, 5)
    np.testing.assert_array_equal(loaded(stored(pixels), 4), pixels)
    opaque = loaded(stored(noise(3, 6)), 4)
    np.testing.assert_array_equal(opaque[:, :, :3], noise(3, 6))
    assert (opaque[:, :, 3] == 255).all()
    jpeg = stored(noise(3, 6), "JPEG")
    np.testing.assert_array_equal(loaded(jpeg, 4)[:, :, :3], loaded(jpeg, 3))
    gray_alpha = np.dstack([noise(1, 7), noise(1, 8)])
    found = loaded(stored(gray_alpha), 4)
    np.testing.assert_array_equal(found[:, :, [0, 1, 2, 3]], gray_alpha[:, :, [0, 0, 0, 1]])
    palette = Image.fromarray(noise(3, 9)).quantize(8)
    buffer = io.BytesIO()
    palette.save(buffer, "PNG", transparency=3)
    expected = np.asarray(Image.open(io.BytesIO(buffer.getvalue())).convert("RGBA"))
    np.testing.assert_array_equal(loaded(buffer.getvalue(), 4), expected)
    deep = (noise(1, 1).astype(np.uint16) << 8) | 7
    deep[:2] = 1000
    buffer = io.BytesIO()
    Image.fromarray(deep).save(buffer, "PNG", transparency=1000)
    np.testing.assert_array_equal(loaded(buffer.getvalue(), 4)[:, :, 3], np.where(deep == 1000, 0, 255))


def test_hidden_colors_do_not_bleed_into_a_smaller_image() -> None:
    """Green that is wholly transparent, left of opaque red: no green is in the result."""
    pixels = np.zeros((64, 64, 4), np.uint8)
    pixels[:, :31] = (0, 255, 0, 0)
    pixels[:, 31:] = (255, 0, 0, 255)
    found = loaded(stored(pixels), 4, image_size=8)
    assert found[:, :, 1].max() == 0
    assert (found[:, 5:] == (255, 0, 0, 255)).all()
    assert (found[:, :3, 3] == 0).all()


def test_beside_a_padded_image_is_nothing() -> None:
    pixels = np.full((10, 40, 4), 200, np.uint8)
    found = loaded(stored(pixels), 4, image_size=40, resize="pad", background=(10, 20, 30))
    assert (found[0, 0].tolist(), found[20, 0].tolist()) == ([10, 20, 30, 0], [200, 200, 200, 200])
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = loaded(stored(pixels, exif=exif), 4, image_size=40, resize="pad")
    assert (turned[:, 0, 3] == 0).all()
    assert turned[0, 20, 3] == 200


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("encoding", ["raw", "png", "jpeg"])
def test_a_dataset(photos: Path, tmp_path: Path, channels: int, encoding: str) -> None:
    common: dict[str, Any] = {"data_dir": tmp_path, "num_workers": 1, "splits": "train=1", "name": "x"}
    given: dict[str, Any] = {**common, "image_size": f"{WIDTH}x{HEIGHT}", "encoding": encoding, "channels": channels}
    if (channels, encoding) == (4, "jpeg"):
        with pytest.raises(UsageError, match="--channels=4: JPEG has no transparency. Give --encoding=png or raw"):
            ConvertConfig(image_dir=photos, **given)
        return
    folder = convert(ConvertConfig(image_dir=photos, **given)).dataset_dir
    layout, manifest = Layout.load(folder), read_manifest(folder)
    assert (layout.channels, layout.config["channels"]) == (channels, channels)
    feature = json.loads((folder / "features.json").read_text())["featuresDict"]["features"]["image"]
    dimensions = (feature.get("tensor") or feature["image"])["shape"]["dimensions"]
    assert dimensions == [str(HEIGHT), str(WIDTH), str(channels)]
    assert verify(folder).ok
    images = DatasetImages(folder, layout, manifest)
    for row, path in enumerate(manifest.paths):
        wanted = loaded((photos / path).read_bytes(), channels)
        data = images.stored_bytes(row)
        if encoding == "raw":
            assert data == wanted.tobytes()
        else:
            image = Image.open(io.BytesIO(data))
            assert (image.format, image.mode) == (encoding.upper(), {1: "L", 4: "RGBA"}[channels])
            levels = np.abs(np.asarray(image).reshape(wanted.shape).astype(int) - wanted)
            assert levels.max() <= (0 if encoding == "png" else 60)
        if encoding != "jpeg":
            np.testing.assert_array_equal(np.asarray(images.image(row)), rgb_of(wanted))
    # As another dataset: its channels are the default.
    again = convert(ConvertConfig(from_dataset=str(folder), **{**given, "encoding": "png", "name": ""})).dataset_dir
    colored = convert(
        ConvertConfig(from_dataset=str(folder), **{**given, "encoding": "png", "channels": 3, "name": ""})
    )
    assert (again.parent.name, colored.dataset_dir.parent.name) == ("x_24x16_png", "x_24x16_rgb_png")
    if encoding != "jpeg":
        old, new, rgb = (_pixels(of) for of in (folder, again, colored.dataset_dir))
        for path, pixels in old.items():
            np.testing.assert_array_equal(new[path], pixels)
            np.testing.assert_array_equal(rgb[path], pixels)
    listed = tmp_path / "ids.csv"
    listed.write_text("id\n2\n")
    edited = edit(EditConfig(dataset_dir=folder, delete=listed)).dataset_dir
    assert verify(edited).ok
    assert Layout.load(edited).channels == channels
    with pytest.raises(UsageError, match=rf"has png images of .* {'gray' if channels == 1 else 'RGBA'} {encoding} "):
        edit(EditConfig(dataset_dir=edited, merge=(str(colored.dataset_dir),)))
    if encoding == "raw":
        split = tfrecords.read(folder, "train")
        assert split[0].image.shape == (HEIGHT, WIDTH, channels)
        np.testing.assert_array_equal(split[1:3].image, split[[1, 2]].image)


def _pixels(folder: Path) -> dict[str, np.ndarray]:
    layout, manifest = Layout.load(folder), read_manifest(folder)
    images = DatasetImages(folder, layout, manifest)
    return {path: np.asarray(images.image(row)) for row, path in enumerate(manifest.paths)}


def test_gray_files_in_their_own_shapes_stay_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "photos" / "a").mkdir(parents=True)
    files = {"gray.jpg": stored(noise(1, 1), "JPEG"), "color.jpg": stored(noise(3, 2), "JPEG")}
    for name, data in files.items():
        (tmp_path / "photos" / "a" / name).write_bytes(data)
    config = ConvertConfig(image_dir=tmp_path / "photos", data_dir=tmp_path, resize="none", channels=1, num_workers=1)
    folder = convert(config).dataset_dir
    layout, manifest = Layout.load(folder), read_manifest(folder)
    images = DatasetImages(folder, layout, manifest)
    there = {path.split("/")[-1]: images.stored_bytes(row) for row, path in enumerate(manifest.paths)}
    assert there["gray.jpg"] == files["gray.jpg"]
    assert Image.open(io.BytesIO(there["color.jpg"])).mode == "L"


def test_copies_are_found_in_gray_and_transparent_images(tmp_path: Path) -> None:
    """The same picture as gray and as RGB: copies where only gray is stored."""
    (tmp_path / "photos" / "a").mkdir(parents=True)
    x, y = np.meshgrid(np.linspace(0, 9, 64), np.linspace(0, 7, 64))
    gray = (127 + 120 * np.sin(x * y)).astype(np.uint8)
    Image.fromarray(gray).save(tmp_path / "photos" / "a" / "gray.png")
    Image.fromarray(np.dstack([gray] * 3)).save(tmp_path / "photos" / "a" / "rgb.png")
    for channels in (1, 4):
        given: dict[str, Any] = {"data_dir": tmp_path, "name": f"c{channels}", "channels": channels, "num_workers": 1}
        manifest = read_manifest(convert(ConvertConfig(image_dir=tmp_path / "photos", **given)).dataset_dir)
        assert len(set(manifest.groups.tolist())) == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"channels": 2}, r"--channels=2: should be 1 \(gray\), 3 \(RGB\) or 4 \(RGBA\)."),
        ({"channels": 4, "resize": "short"}, "--channels=4: JPEG has no transparency"),
        ({"channels": 4, "background": "checker"}, "--background=checker: with --channels=4, transparency is stored"),
    ],
)
def test_what_cannot_be_stored(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ConvertConfig(image_dir="photos", **given)


def test_a_large_rgba_image_is_png_by_default() -> None:
    assert ConvertConfig(image_dir="photos", channels=4, image_size=256).resolved().encoding == "png"


@pytest.mark.parametrize("channels", [2, "1", None, [3], True])
def test_a_layout_with_other_channels_is_refused(photos: Path, tmp_path: Path, channels: object) -> None:
    config = ConvertConfig(image_dir=photos, data_dir=tmp_path, image_size=8, channels=1, num_workers=1)
    path = convert(config).dataset_dir / "layout.json"
    values = json.loads(path.read_text())
    values["config"]["channels"] = channels
    path.write_text(json.dumps(values))
    with pytest.raises(DataError):
        Layout.load(path.parent)
