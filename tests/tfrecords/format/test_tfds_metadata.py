"""TensorFlow Datasets opens what we write, and finds the pictures in it that we find."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tfrecords.base_errors import DataError
from tfrecords.convert.engine import convert
from tfrecords.convert.image.decoder import load_image
from tfrecords.convert.plan.convert_config import ConvertConfig
from tfrecords.format.atomic_files import read_json, write_json
from tfrecords.format.example import decode_example
from tfrecords.format.layout import Layout
from tfrecords.format.manifest import read_manifest
from tfrecords.format.naming import INFO_FILE
from tfrecords.format.shard import ShardReader
from tfrecords.format.tfds_metadata import (
    TfdsInfo,
    class_names,
    is_tfds_folder,
    metadata_files,
    num_examples_by_split,
    write_metadata,
)


@pytest.fixture(scope="module")
def tfds(tf: Any) -> Any:
    import tensorflow_datasets

    return tensorflow_datasets


def our_examples(folder: Path, split: str) -> dict[int, tuple[int, bytes]]:
    """Returns label and image bytes of each example of a split, by its id, read without TensorFlow."""
    found = {}
    for shard in Layout.load(folder).splits[split]:
        for payload in ShardReader(folder / shard.file):
            example = decode_example(payload)
            found[example["id"]] = (example["label"], example["image"])
    return found


def pixels_of(image: bytes, encoding: str) -> np.ndarray:
    """Returns the 16 x 16 pixels, decoded without TensorFlow."""
    if encoding == "raw":
        return np.frombuffer(image, np.uint8).reshape(16, 16, 3)
    return np.asarray(Image.open(io.BytesIO(image)))


def test_tfds_finds_what_we_find(tf: Any, tfds: Any, converted: Any) -> None:
    encoding = converted.config.encoding
    builder = tfds.builder_from_directory(converted.folder)
    assert builder.info.name == "zoo"
    assert str(builder.info.version) == "1.0.0"
    assert builder.info.supervised_keys == ("image", "label")
    assert builder.info.features["label"].names == ["ant", "bee"]
    assert builder.info.features["image"].shape == (16, 16, 3)
    assert {name: split.num_examples for name, split in builder.info.splits.items()} == converted.summary.splits
    for split, num_examples in converted.summary.splits.items():
        ours = our_examples(converted.folder, split)
        theirs = list(builder.as_dataset(split=split).as_numpy_iterator())
        assert len(theirs) == num_examples > 0
        assert {int(example["id"]) for example in theirs} == set(ours)
        for example in theirs:
            label, image = ours[int(example["id"])]
            assert example["label"] == label
            assert example["image"].dtype == np.uint8
            if encoding == "jpeg":  # bit for bit against TensorFlow's decoder, Pillow's rounds otherwise
                np.testing.assert_array_equal(example["image"], tf.io.decode_jpeg(image).numpy())
            else:
                np.testing.assert_array_equal(example["image"], pixels_of(image, encoding))


def test_stored_pixels_are_the_resized_pictures(converted: Any, photos: Path) -> None:
    encoding = converted.config.encoding
    paths = {row.id: row.path for row in read_manifest(converted.folder)}
    for split in ("train", "test"):
        for id, (label, image) in our_examples(converted.folder, split).items():
            assert label == ("ant", "bee").index(paths[id].split("/")[0])
            data = (photos / paths[id]).read_bytes()
            expected = Image.fromarray(load_image(data, converted.config.resolved().image).pixels)
            if encoding == "jpeg":
                buffer = io.BytesIO()
                expected.save(buffer, "JPEG", quality=95)
                expected = Image.open(buffer)
            np.testing.assert_array_equal(pixels_of(image, encoding), np.asarray(expected))


def test_supervised_and_sliced_reading(tfds: Any, converted_raw: Any) -> None:
    builder = tfds.builder_from_directory(converted_raw.folder)
    pairs = list(builder.as_dataset(split="train[:50%]", as_supervised=True).as_numpy_iterator())
    assert len(pairs) == round(converted_raw.summary.splits["train"] / 2)
    assert all(image.shape == (16, 16, 3) and label in (0, 1) for image, label in pairs)
    whole = list(builder.as_dataset(split="train+test").as_numpy_iterator())
    assert sorted(int(example["id"]) for example in whole) == list(range(40))


@pytest.mark.usefixtures("small_shards")
def test_tfds_opens_a_data_set_with_an_empty_shard(tfds: Any, tmp_path: Path, make_folder: Any) -> None:
    """Shards are planned before pictures are decoded, so a shard all of whose pictures were rejected is empty."""
    photos = make_folder(tmp_path / "photos", {"a": 16})
    config = ConvertConfig(image_dir=photos, data_dir=tmp_path / "data", splits="train=1", image_size=4, num_workers=1)
    for row in read_manifest(convert(config).dataset_dir):
        if row.shard == 1:
            (photos / row.path).write_bytes(b"no picture")
    shutil.rmtree(tmp_path / "data")
    summary = convert(config)
    lengths = [shard.num_examples for shard in Layout.load(summary.dataset_dir).splits["train"]]
    assert lengths == [4, 0, 4, 4]
    theirs = tfds.builder_from_directory(summary.dataset_dir).as_dataset(split="train").as_numpy_iterator()
    assert {int(example["id"]) for example in theirs} == set(our_examples(summary.dataset_dir, "train"))


def test_tfds_opens_images_in_their_own_shapes(tfds: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "photos" / "a").mkdir(parents=True)
    for number in range(4):
        pixels = rng.integers(0, 256, (20 + number, 30, 3), np.uint8)
        image = Image.fromarray(pixels if number else pixels[..., 0])  # one is gray
        image.save(tmp_path / "photos" / "a" / f"{number}.jpg")
    folder = convert(
        ConvertConfig(
            image_dir=str(tmp_path / "photos"), data_dir=tmp_path, resize="short", image_size=22, splits="train=1"
        )
    ).dataset_dir
    builder = tfds.builder_from_directory(folder)
    assert builder.info.features["image"].shape == (None, None, 3)
    examples = list(builder.as_dataset(split="train").as_numpy_iterator())
    assert sorted(example["image"].shape for example in examples) == [
        (20, 30, 3), (21, 30, 3), (22, 29, 3), (22, 30, 3)
    ]  # fmt: skip
    manifest = Layout.load(folder)
    assert manifest.own_shapes


def test_files_are_those_that_metadata_files_names(converted_raw: Any, tmp_path: Path) -> None:
    layout = Layout.load(converted_raw.folder)
    assert not is_tfds_folder(tmp_path)
    write_metadata(tmp_path, layout)
    assert is_tfds_folder(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == metadata_files(layout)
    assert list(metadata_files(layout))[-1] == INFO_FILE
    assert (tmp_path / "label.labels.txt").read_text() == "ant\nbee\n"
    assert num_examples_by_split(tmp_path) == converted_raw.summary.splits


def test_num_bytes_are_those_of_the_payloads(converted: Any) -> None:
    """TFDS counts the serialized examples without their framing."""
    for split in read_json(converted.folder / INFO_FILE, "a test")["splits"]:
        shards = Layout.load(converted.folder).splits[split["name"]]
        payloads = [payload for shard in shards for payload in ShardReader(converted.folder / shard.file)]
        assert int(split["numBytes"]) == sum(map(len, payloads))


@pytest.mark.parametrize(
    "info",
    [
        [],
        {"splits": [{}]},
        {"splits": [{"name": "train", "shardLengths": ["x"]}]},
        {"splits": [{"name": "train", "shardLengths": 3}]},
        {"splits": ["train"]},
        {"splits": 1},
    ],
)
def test_damaged_info_is_named(tmp_path: Path, info: Any) -> None:
    write_json(tmp_path / INFO_FILE, info)
    with pytest.raises(DataError, match=r"dataset_info\.json should have each split's name and shardLengths"):
        num_examples_by_split(tmp_path)


def test_missing_info_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"dataset_info\.json is missing"):
        num_examples_by_split(tmp_path)


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (b"ant\nbee\n", ["ant", "bee"]),
        (b"ant\r\nbee\rcat", ["ant", "bee", "cat"]),
        ("a\u2028b\n\x0bc\x1cd\n".encode(), ["a\u2028b", "c\x1cd"]),
        (b"\n\nant\n\nbee\n\n", ["ant", "bee"]),
        (None, ["0", "1"]),
    ],
)
def test_class_names_are_those_of_tfds(tfds: Any, tmp_path: Path, labels: bytes | None, names: list[str]) -> None:
    assert class_names(labels, len(names)) == names
    if labels is None:
        theirs = tfds.features.ClassLabel(num_classes=len(names))
    else:
        (tmp_path / "labels.txt").write_bytes(labels)
        theirs = tfds.features.ClassLabel(names_file=tmp_path / "labels.txt")
    assert theirs.names == names


@pytest.mark.parametrize("labels", [b"\xff", b"ant\n", b"ant\nbee\ncat\n"])
def test_class_names_that_do_not_fit(labels: bytes) -> None:
    with pytest.raises(ValueError, match="codec|names for 2 classes"):
        class_names(labels, 2)


TEMPLATES = ["../{DATASET}", "/etc/{SPLIT}", "{DATASET.__class__}", "{DATASET!r}", "{SPLIT:>99}", "{X}", "\0", "..", 7]


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_template_that_does_more_than_name_a_file(template: Any) -> None:
    split = {"name": "train", "shardLengths": ["1"], "filepathTemplate": template}
    with pytest.raises(ValueError, match="folder|KeyError|a name should be a text"):
        TfdsInfo.parse({"name": "zoo", "splits": [split]})
