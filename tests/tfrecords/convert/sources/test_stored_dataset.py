"""A dataset as the source of another one: the same pixels, paths, classes and splits, and notes about what is lost."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tfrecords.base_errors import DataError, UsageError
from tfrecords.convert.engine import convert
from tfrecords.convert.image.decoder import resize
from tfrecords.convert.output.summary import ConvertSummary
from tfrecords.convert.plan.convert_config import ConvertConfig
from tfrecords.convert.sources.stored_dataset import with_stored_size
from tfrecords.edit.dataset_edit import EditConfig, edit
from tfrecords.format.dataset_images import DatasetImages
from tfrecords.format.dataset_verification import verify
from tfrecords.format.layout import Layout
from tfrecords.format.manifest import read_manifest


@pytest.fixture(scope="module")
def stored(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The photos at 16 px in each encoding, with an empty file. Only to be read."""
    folder = tmp_path_factory.mktemp("stored")
    shutil.copytree(photos, folder / "zoo")
    (folder / "zoo" / "bee" / "empty.png").touch()
    return {
        encoding: converted(folder, image_dir=str(folder / "zoo"), name=encoding, image_size=16, encoding=encoding)[0]
        for encoding in ("raw", "jpeg", "png")
    }


def converted(data_dir: Path, **options: Any) -> tuple[Path, ConvertSummary]:
    made = convert(ConvertConfig(**with_stored_size({"data_dir": data_dir, "num_workers": 1, **options})))
    return made.dataset_dir, made


def images(folder: Path) -> dict[str, tuple[str, str, np.ndarray]]:
    """Returns class, split and pixels of each example by its path."""
    layout, manifest = Layout.load(folder), read_manifest(folder)
    read = DatasetImages(folder, layout, manifest)
    return {
        manifest.paths[row]: (
            layout.class_names[manifest.labels[row]],
            manifest.split_names[manifest.splits[row]],
            np.asarray(read.image(row)),
        )
        for row in np.flatnonzero(manifest.ok).tolist()
    }


@pytest.mark.parametrize("encoding", ["raw", "jpeg", "png"])
def test_another_encoding_has_the_same_pixels(stored: dict[str, Path], tmp_path: Path, encoding: str) -> None:
    to = {"raw": "png", "jpeg": "png", "png": "raw"}[encoding]
    lines: list[str] = []
    config = ConvertConfig(
        from_dataset=str(stored[encoding]), image_size=16, encoding=to, data_dir=tmp_path, num_workers=1
    )
    made = convert(config, describe=lines.append)
    assert made.dataset_dir == tmp_path / f"{encoding}_16_{to}" / "1.0.0"
    assert lines == [
        f"{stored[encoding]}: dataset with 40 {encoding} images of 16 px; 2 classes (ant, bee); its splits are kept"
    ]
    before, after = images(stored[encoding]), images(made.dataset_dir)
    assert list(after) == list(before)
    for path, (name, split, pixels) in before.items():
        assert after[path][:2] == (name, split)
        assert np.array_equal(after[path][2], pixels)
    assert verify(made.dataset_dir).problems == ()
    assert list(made.splits) == list(Layout.load(stored[encoding]).splits) == ["train", "test"]
    assert made.warnings[0].startswith("1 files that were rejected or deleted have no pixels")
    assert any("whose losses stay in the png images" in note for note in made.warnings) == (encoding == "jpeg")
    assert Layout.load(made.dataset_dir).config["from"] == f"{encoding}/1.0.0"
    assert convert(config).num_converted == 0  # there already


@pytest.mark.parametrize(
    ("encoding", "options", "words"),
    [
        ("raw", {"image_size": 32}, ("have 16 px and are enlarged to 32 px, which adds no detail",)),
        (
            "jpeg",
            {"encoding": "jpeg", "jpeg_quality": 80},
            ("(quality 95) and are compressed a second time (quality 80)",),
        ),
        ("jpeg", {"image_size": 8, "encoding": "raw"}, ("whose losses stay in the raw images",)),
        ("png", {"image_size": 8}, ("were resized before and are resized a second time",)),
        ("raw", {"encoding": "jpeg"}, ()),
    ],
)
def test_what_is_lost_is_said(
    stored: dict[str, Path], tmp_path: Path, encoding: str, options: dict[str, Any], words: tuple[str, ...]
) -> None:
    folder, made = converted(tmp_path, from_dataset=str(stored[encoding]), name="other", **options)
    notes = [note for note in made.warnings if "stored images" in note]
    assert len(notes) == len(words)
    assert all(text in note for text, note in zip(words, notes, strict=True))
    assert Layout.load(folder).image_size == options.get("image_size", 16)
    assert verify(folder).problems == ()


def test_another_size_is_made_of_the_stored_pixels(stored: dict[str, Path], tmp_path: Path) -> None:
    folder, made = converted(tmp_path, from_dataset=str(stored["raw"]), image_size=8)
    assert folder.parent.name == "raw_8"
    manifest = read_manifest(stored["raw"])
    read = DatasetImages(stored["raw"], Layout.load(stored["raw"]), manifest)
    after = images(folder)
    for row in np.flatnonzero(manifest.ok)[:5].tolist():
        assert np.array_equal(after[manifest.paths[row]][2], resize(read.image(row), 8, "stretch"))
    assert made.num_examples == 40


def test_options_of_a_conversion_apply(stored: dict[str, Path], tmp_path: Path) -> None:
    """Other splits, some of the classes, some of the files; and a dataset that was edited."""
    folder, made = converted(tmp_path, from_dataset=str(stored["png"]), splits="a=0.5,b=0.5", categories=("bee",))
    assert Layout.load(folder).class_names == ("bee",)
    assert made.splits == {"a": 9, "b": 9}
    _, made = converted(tmp_path, from_dataset=str(stored["png"]), name="few", include=("ant/*.jpg",))
    assert made.num_examples == 11
    copy = Path(shutil.copytree(stored["raw"], tmp_path / "data" / "zoo" / "1.0.0"))
    (tmp_path / "list").write_text("ant/image_0.jpg")
    edited = edit(EditConfig(dataset_dir=copy, delete=tmp_path / "list")).dataset_dir
    folder, made = converted(tmp_path, from_dataset=str(edited), image_size=4)
    assert "ant/image_0.jpg" not in images(folder)
    assert made.num_examples == 39


@pytest.mark.parametrize("kind", ["multi", "multi_png", "float", "none", "single"])
def test_labels_and_features_stay(labeled: Any, labeled_row: Any, tmp_path: Path, kind: str) -> None:
    before = labeled(kind, tmp_path / "before").dataset_dir
    for encoding in ("raw", "png"):
        config = ConvertConfig(from_dataset=str(before), image_size=4, encoding=encoding, data_dir=tmp_path / encoding)
        lines: list[str] = []
        made = convert(config, describe=lines.append)
        layout = Layout.load(made.dataset_dir)
        assert layout.schema == Layout.load(before).schema
        assert layout.class_names == Layout.load(before).class_names
        assert f"; {layout.schema}; its splits are kept" in lines[0]
        assert verify(made.dataset_dir).problems == ()
        assert examples(made.dataset_dir) == examples(before)
        assert convert(config).num_converted == 0  # there already
    with pytest.raises(UsageError, match="keeps the labels and the features of that dataset"):
        converted(tmp_path, from_dataset=str(before), label_type="none")
    if kind == "float":
        with pytest.raises(UsageError, match="are numbers, which have no classes"):
            converted(tmp_path, from_dataset=str(before), categories=("age",))
    if kind == "multi":  # images with others of the classes only are left out, as from a table
        folder = converted(tmp_path, from_dataset=str(before), categories=("red", "green"), name="few")[0]
        names = Layout.load(folder).class_names
        assert names == ("red", "green")
        there = {path: {names[label] for label in labels} for path, (labels, _, _) in examples(folder).items()}
        colors = {f"{n}.png": {*labeled_row(n)["colors"].split("|")} & {*names} for n in range(16)}
        assert there == {path: several for path, several in colors.items() if several}
        with pytest.raises(UsageError, match="--conflicts=drop compares the classes of copies"):
            converted(tmp_path, from_dataset=str(before), conflicts="drop", name="other")


def examples(folder: Path) -> dict[str, Any]:
    """Labels, features and split of each example by its path."""
    layout, manifest = Layout.load(folder), read_manifest(folder)
    read = DatasetImages(folder, layout, manifest)
    return {
        manifest.paths[row]: (*read.values(row), manifest.split_names[manifest.splits[row]])
        for row in np.flatnonzero(manifest.ok).tolist()
    }


def test_what_is_no_source(stored: dict[str, Path], tmp_path: Path, photos: Path) -> None:
    mistakes: list[tuple[Callable[[], object], type[Exception], str]] = [
        (lambda: converted(tmp_path, from_dataset=str(photos)), UsageError, "is not a dataset of `simimg convert`"),
        (
            lambda: converted(tmp_path, from_dataset=str(stored["raw"]), image_dir=str(photos)),
            UsageError,
            "leave out --image_dir and --table",
        ),
        (
            lambda: converted(tmp_path, from_dataset=str(stored["raw"]), categories=("bea",)),
            UsageError,
            "Did you mean 'bee'",
        ),
    ]
    for call, kind, message in mistakes:
        with pytest.raises(kind, match=message):
            call()
    broken = Path(shutil.copytree(stored["png"], tmp_path / "broken"))
    next(broken.glob("*-train.tfrecord-*[0-9]")).write_bytes(b"")
    with pytest.raises(DataError, match=r"is missing or damaged. Run `simimg verify`"):
        converted(tmp_path, from_dataset=str(broken))
