"""Images of another width than height, from the flag to the bytes in shards and back."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import tfrecords
from tfrecords.base_errors import UsageError
from tfrecords.convert.engine import convert
from tfrecords.convert.image.decoder import ImageOptions, load_image
from tfrecords.convert.plan.convert_config import ConvertConfig
from tfrecords.format.dataset_images import DatasetImages
from tfrecords.format.dataset_verification import verify
from tfrecords.format.image_size import Rectangle, image_size_of, is_larger, num_pixels
from tfrecords.format.layout import Layout
from tfrecords.format.manifest import read_manifest

SIZE = Rectangle(48, 32)


def scene(width: int, height: int) -> Image.Image:
    """Smooth colors, so that two good filters agree."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    channels = [255 * x, 255 * y, 127 + 120 * np.sin(5 * x + 3 * y)]
    return Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8))


def expected(image: Image.Image, how: str, size: Rectangle) -> np.ndarray:
    """The image as Pillow alone makes it."""
    width, height = image.size
    if how == "stretch":
        return np.asarray(image.resize(size, Image.Resampling.BICUBIC))
    if how == "crop":
        share = min(width / size.width, height / size.height)
        across, down = share * size.width, share * size.height
        left, top = (width - across) / 2, (height - down) / 2
        return np.asarray(image.resize(size, Image.Resampling.BICUBIC, (left, top, left + across, top + down)))
    share = min(size.width / width, size.height / height)
    inner = (max(1, round(width * share)), max(1, round(height * share)))
    paper = Image.new("RGB", size, "white")
    paper.paste(
        image.resize(inner, Image.Resampling.BICUBIC),
        (round((size.width - inner[0]) / 2), round((size.height - inner[1]) / 2)),
    )
    return np.asarray(paper)


def stored(image: Image.Image, form: str, orientation: int = 1) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    image.save(buffer, form, exif=exif, **({"quality": 97, "subsampling": 0} if form == "JPEG" else {}))
    return buffer.getvalue()


@pytest.mark.parametrize("how", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("size", [SIZE, Rectangle(32, 48), Rectangle(90, 30)])
@pytest.mark.parametrize("pixels", [(640, 200), (200, 640), (500, 500), (31, 20), (48, 32)])
def test_every_way_to_resize(how: str, size: Rectangle, pixels: tuple[int, int]) -> None:
    image = scene(*pixels)
    for decode in ("fast", "exact"):
        options = ImageOptions(image_size=size, resize=how, decode=decode)
        for form in ("PNG", "JPEG"):
            found = load_image(stored(image, form), options)
            assert found.pixels.shape == (size.height, size.width, 3)
            assert (found.width, found.height) == pixels
            levels = np.abs(found.pixels.astype(int) - expected(image, how, size))
            assert levels.mean() < (1 if form == "PNG" else 3)
            assert np.quantile(levels, 0.97) <= (4 if form == "PNG" else 9)


@pytest.mark.parametrize("how", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("orientation", [3, 6, 7, 8])
def test_rotated_files_are_upright_first(how: str, orientation: int) -> None:
    image = scene(300, 160)
    undone = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    file = image.transpose(undone.get(orientation, Image.Transpose.TRANSVERSE))
    for form in ("PNG", "JPEG"):
        found = load_image(stored(file, form, orientation), ImageOptions(image_size=SIZE, resize=how))
        levels = np.abs(found.pixels.astype(int) - expected(image, how, SIZE))
        assert (found.width, found.height) == (300, 160)
        assert levels.mean() < 3


@pytest.mark.parametrize("encoding", ["raw", "png", "jpeg"])
def test_a_dataset_of_rectangles(tmp_path: Path, encoding: str) -> None:
    for number in range(6):
        path = tmp_path / "photos" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        scene(100 + 9 * number, 80).save(path)
    common: dict[str, Any] = {"data_dir": tmp_path, "num_workers": 1, "encoding": encoding, "copies": "ignore"}
    made = convert(ConvertConfig(image_dir=tmp_path / "photos", image_size="48x32", splits="train=1", **common))
    folder = made.dataset_dir
    layout, manifest = Layout.load(folder), read_manifest(folder)
    assert layout.image_size == SIZE
    values = json.loads((folder / "layout.json").read_text())
    assert (values["image_size"], values["config"]["image_size"]) == ([48, 32], "48x32")
    features = json.loads((folder / "features.json").read_text())["featuresDict"]["features"]["image"]
    shape = (features.get("tensor") or features["image"])["shape"]["dimensions"]
    assert shape == ["32", "48", "3"]
    assert verify(folder).ok
    images = DatasetImages(folder, layout, manifest)
    for row, path in enumerate(manifest.paths):
        wanted = load_image((tmp_path / "photos" / path).read_bytes(), ImageOptions(image_size=SIZE)).pixels
        levels = np.abs(np.asarray(images.image(row)).astype(int) - wanted)
        assert levels.max() <= (24 if encoding == "jpeg" else 0)
    again = convert(ConvertConfig(from_dataset=str(folder), image_size="20x30", **common))
    assert again.dataset_dir.parent.name.endswith("_20x30")
    assert Layout.load(again.dataset_dir).image_size == (20, 30)
    square = convert(ConvertConfig(from_dataset=str(folder), image_size=16, **common)).dataset_dir
    assert Layout.load(square).image_size == 16
    if encoding == "raw":
        split = tfrecords.read(folder, "train")
        assert split[0].image.shape == (32, 48, 3)
        assert split[1:4].image.shape == split[[1, 2, 3]].image.shape == (3, 32, 48, 3)
        np.testing.assert_array_equal(split[2].image, split[1:4].image[1])


def test_what_a_size_is() -> None:
    assert [image_size_of(given) for given in (64, "64", "64x64", "256x192", (3, 4), " 5 X 6 ")] == [
        *(64, 64, 64), Rectangle(256, 192), Rectangle(3, 4), Rectangle(5, 6),
    ]  # fmt: skip
    assert (str(Rectangle(256, 192)), num_pixels(64), num_pixels(SIZE)) == ("256x192", 4096, 1536)
    assert (is_larger(40, SIZE), is_larger(SIZE, 48), is_larger(32, SIZE)) == (True, False, False)


@pytest.mark.parametrize("given", ["", "x", "64x", "x64", "-3", "1x2x3", "64.5", "0", "0x5", "4x5000", 0, -1, 4097])
def test_what_no_size_is(given: Any) -> None:
    with pytest.raises(UsageError, match="--image_size"):
        ConvertConfig(image_dir="photos", image_size=given)


def test_own_shapes_have_no_rectangle() -> None:
    with pytest.raises(UsageError, match="--image_size=48x32: images that keep their shapes .* Give one number"):
        ConvertConfig(image_dir="photos", image_size="48x32", resize="short")
    assert ConvertConfig(image_dir="photos", image_size=0, resize="none").image_size == 0
