"""TensorFlow Datasets opens every form of dataset that is written here, with all labels and features."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tfrecords.convert.engine import convert
from tfrecords.convert.image.color import rgb_of
from tfrecords.convert.plan.convert_config import ConvertConfig
from tfrecords.format.dataset_images import DatasetImages
from tfrecords.format.dataset_verification import verify
from tfrecords.format.image_size import image_shape
from tfrecords.format.layout import Layout
from tfrecords.format.manifest import read_manifest

FORMS = {
    "raw": {"encoding": "raw"},
    "png": {"encoding": "png"},
    "jpeg": {"encoding": "jpeg"},
    "array_record": {"format": "array_record"},
}
# Other colors and shapes do not change labels and features, so each of them has one case.
SHAPES = {
    "gray raw": {"encoding": "raw", "channels": 1, "image_size": "12x6"},
    "gray png": {"encoding": "png", "channels": 1, "image_size": "6x12"},
    "gray jpeg": {"encoding": "jpeg", "channels": 1},
    "gray jpeg of own shapes": {"encoding": "jpeg", "channels": 1, "resize": "none"},
    "gray array_record": {"format": "array_record", "channels": 1},
    "rgba raw": {"encoding": "raw", "channels": 4, "image_size": "6x12"},
    "rgba png": {"encoding": "png", "channels": 4},
}
LABELS = {
    "single": {"label_column": "first"},
    "multi": {"label_column": "colors"},
    "float": {"label_column": "level,age"},
    "none": {},
}
NUMBERS = ("age", "big", "box", "weight")
FEATURES = {"plain": (), "numbers": NUMBERS, "all": (*NUMBERS, "blob:bytes", "caption", "points", "words", "größe cm")}
CASES = list(itertools.product(FORMS, LABELS, FEATURES))


def row_of(number: int) -> dict[str, Any]:
    colors = [("red", "green", "blau")[bit] for bit in range(3) if number >> bit & 1]
    return {
        "path": f"{number}.png",
        "colors": colors,
        "first": colors[0] if colors else "black",
        "level": number / 4,
        "age": number - 3,
        "big": (1 << 62) + number,
        "box": [number, number + 0.5],
        "weight": "" if number % 3 == 0 else number * 1e-3,
        "blob": "ü" * number,
        "caption": "" if number == 2 else f'no. {number}, 中 "x"',
        "points": list(range(number % 3)),
        "words": ["a", "ß"][: number % 3],
        "größe cm": number * 2,
    }


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory, write_picture: Callable[..., None]) -> Path:
    """Eight pictures, and a table of them."""
    folder = tmp_path_factory.mktemp("forms")
    lines = [",".join(row_of(0))]
    for number in range(8):
        write_picture(folder / f"{number}.png", number)
        cells = (json.dumps(cell) if isinstance(cell, list) else str(cell) for cell in row_of(number).values())
        lines.append(",".join('"' + cell.replace('"', '""') + '"' for cell in cells))
    (folder / "t.csv").write_text("\n".join(lines), encoding="utf-8")
    return folder / "t.csv"


@pytest.mark.parametrize(("form", "label_type", "features"), CASES, ids=map("-".join, CASES))
def test_tfds_opens_every_form(table: Path, tmp_path: Path, form: str, label_type: str, features: str) -> None:
    tfds = pytest.importorskip("tensorflow_datasets")
    has_folds = (list(FORMS).index(form) + list(LABELS).index(label_type) + list(FEATURES).index(features)) % 2
    options: dict[str, Any] = {**FORMS[form], **LABELS[label_type], "label_type": label_type}
    options |= {"folds": 3} if has_folds else {"splits": "train=0.75,test=0.25"}
    config = ConvertConfig(
        table=str(table), data_dir=tmp_path, image_size=8, copies="ignore", num_workers=1, name="x",
        features=FEATURES[features], **options,
    )  # fmt: skip
    builder = tfds.builder_from_directory(convert(config).dataset_dir)
    splits = ["fold1", "fold2", "fold3"] if has_folds else ["train", "test"]
    assert sorted(builder.info.splits) == sorted(splits)
    label = builder.info.features["label"] if label_type != "none" else None
    found = {}
    if form == "array_record":
        parts = [example for split in splits for example in builder.as_data_source(split)]
    else:
        parts = list(builder.as_dataset("+".join(splits)).as_numpy_iterator())
        if label_type != "none":
            image, _ = next(iter(builder.as_dataset(splits[0], as_supervised=True)))
            assert image.shape == (8, 8, 3)
    for example in parts:
        number = int(example["id"])
        row = row_of(number)
        found[number] = example["image"]
        assert example["image"].shape == (8, 8, 3)
        if label_type == "single":
            assert label.int2str(int(example["label"])) == row["first"]
        elif label_type == "multi":
            assert sorted(map(label.feature.int2str, example["label"])) == sorted(row["colors"])
        elif label_type == "float":
            assert np.asarray(example["label"]).tolist() == [row["level"], row["age"]]
        assert ("label" in example) == (label_type != "none")
        for name in (name.partition(":")[0] for name in FEATURES[features]):
            wanted = np.nan if row[name] == "" and name == "weight" else row[name]
            value = example[name]
            if name in ("blob", "caption"):
                assert bytes(value).decode() == wanted
            elif name == "words":
                assert [bytes(one).decode() for one in value] == wanted
            else:
                dtype = np.float32 if name in ("box", "weight") else np.int64
                np.testing.assert_array_equal(np.asarray(value, dtype), np.asarray(wanted, dtype))
        assert len(example) == 2 + (label_type != "none") + len(FEATURES[features])
    assert sorted(found) == list(range(8))


@pytest.mark.parametrize("name", SHAPES)
def test_tfds_opens_every_shape_and_color(table: Path, tmp_path: Path, name: str) -> None:
    tfds = pytest.importorskip("tensorflow_datasets")
    given: dict[str, Any] = {"image_size": 8, "splits": "train=1", "copies": "ignore", "num_workers": 1, **SHAPES[name]}
    config = ConvertConfig(table=str(table), data_dir=tmp_path, name="x", label_column="first", **given)
    folder = convert(config).dataset_dir
    assert verify(folder).ok
    builder = tfds.builder_from_directory(folder)
    if "array_record" in name:
        found = list(builder.as_data_source("train"))
    else:
        found = list(builder.as_dataset("train").as_numpy_iterator())
    layout, manifest = Layout.load(folder), read_manifest(folder)
    images, row_of_id = DatasetImages(folder, layout, manifest), {int(id): row for row, id in enumerate(manifest.ids)}
    assert len(found) == 8
    for example in found:
        pixels = example["image"]
        if not layout.own_shapes:
            assert pixels.shape == image_shape(layout.image_size, layout.channels)
        assert builder.info.features["image"].shape[2] == pixels.shape[2] == layout.channels
        levels = np.abs(rgb_of(pixels).astype(int) - np.asarray(images.image(row_of_id[int(example["id"])])))
        assert levels.max() <= (0 if layout.encoding != "jpeg" else 24)  # TensorFlow's default transform
