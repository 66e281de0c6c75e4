"""Split folders, classes that look alike, and what is said about a folder."""

from __future__ import annotations

import os
import shutil
import unicodedata
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tfrecords.convert.engine import convert
from tfrecords.convert.plan.convert_config import ConvertConfig
from tfrecords.convert.sources import Source, open_source
from tfrecords.format.layout import Layout
from tfrecords.format.manifest import read_manifest

AConfig = Callable[..., ConvertConfig]


def write(folder: Path, *names: str) -> str:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return str(folder)


def rows(source: Source) -> dict[str, tuple[str, str]]:
    """Returns class and split of each usable file."""
    splits = source.splits or [""] * len(source.paths)
    return {source.paths[id]: (source.class_names[source.labels[id]], splits[id]) for id in source.usable().tolist()}


@pytest.mark.parametrize(
    ("folders", "splits"),
    [
        ("train validation test", "train validation test"),
        ("Train Test", "train test"),
        ("training testing", "train test"),
        ("train val", "train validation"),
        ("train valid test", "train validation test"),
        ("train dev test", "train validation test"),
        ("train eval", "train test"),
        ("train eval test", "train validation test"),
        ("training_set test_set", "train test"),
        ("train2017 val2017", "train validation"),
        ("train dev val", "train dev val"),
        ("seg_train seg_test", "train test"),
        ("train_64x64 val_64x64", "train validation"),
        ("my-zoo-Train-v2 my-zoo-Test-v2", "train test"),
    ],
)
@pytest.mark.parametrize("around", ["", "data/set/"])
def test_split_folders(tmp_path: Path, folders: str, splits: str, around: str) -> None:
    names = [f"{around}{folder}/{label}/{n}.jpg" for folder in folders.split() for label in "ab" for n in range(2)]
    source = open_source(write(tmp_path / "zoo", *names))
    named = dict(zip(folders.split(), splits.split(), strict=True))
    assert source.class_names == ("a", "b")
    assert source.keeps_splits
    assert list(dict.fromkeys(source.splits or ())) == splits.split()
    of_path = {name: name.removeprefix(around).split("/") for name in names}
    assert rows(source) == {name: (label, named[split]) for name, (split, label, _) in of_path.items()}
    assert "in the split folders" in source.form
    assert "2 classes (a, b)" in source.form
    for folder, split in named.items():
        assert folder in source.form
        assert folder == split or f"{folder} (as {split})" in source.form


def test_split_folders_inside_themselves(tmp_path: Path) -> None:
    names = [f"{split}/{split}/{label}/1.jpg" for split in ("seg_train", "seg_test") for label in ("cat", "dog")]
    source = open_source(write(tmp_path / "a", *names))
    assert (source.class_names, source.keeps_splits, source.notes) == (("cat", "dog"), True, ())
    assert rows(source) == {name: (name.split("/")[2], name.split("/")[0][4:]) for name in names}
    (note, deeper) = open_source(write(tmp_path / "a", "seg_pred/seg_pred/1.jpg")).notes
    assert "seg_test and seg_train may be splits, but seg_pred is none" in note
    assert deeper.startswith("images lie in folders inside the class folders, which are not classes: seg_pred/seg_pred")
    source = open_source(write(tmp_path / "b", "train/train/cat/1.jpg", "train/train/dog/1.jpg"))
    assert (source.class_names, set(source.splits or ())) == (("cat", "dog"), {"train"})


def test_folders_inside_the_classes_are_noted(tmp_path: Path) -> None:
    source = open_source(write(tmp_path / "a", "animals/cat/1.jpg", "animals/dog/1.jpg", "plants/oak/1.jpg"))
    assert source.class_names == ("animals", "plants")
    assert source.notes == (
        "images lie in folders inside the class folders, which are not classes: animals/cat, animals/dog, plants/oak",
    )
    assert not open_source(write(tmp_path / "a", "plants/2.jpg")).notes
    assert not open_source(write(tmp_path / "b", "cat/deep/1.jpg", "dog/deep/1.jpg")).notes


def test_split_folders_inside_the_classes(tmp_path: Path) -> None:
    names = ["cat/train/1.jpg", "cat/test/2.jpg", "dog/train/3.jpg", "dog/test/deep/4.jpg"]
    source = open_source(write(tmp_path, *names))
    assert source.class_names == ("cat", "dog")
    assert [rows(source)[name] for name in names] == [
        ("cat", "train"), ("cat", "test"), ("dog", "train"), ("dog", "test"),
    ]  # fmt: skip
    assert "around the split folders train, test" in source.form
    assert source.notes == ("folders in the split folders are not classes: deep",)


def test_split_folders_of_an_archive(tmp_path: Path) -> None:
    names = [f"zoo/{split}/{label}/1.jpg" for split in ("train", "test") for label in ("cat", "dog")]
    with zipfile.ZipFile(tmp_path / "zoo.zip", "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    source = open_source(str(tmp_path / "zoo.zip"))
    assert source.class_names == ("cat", "dog")
    assert sorted(set(source.splits or ())) == ["test", "train"]
    assert source.form.startswith("zip file with 4 images in class folders in the split folders")


def test_a_class_may_be_named_test(tmp_path: Path) -> None:
    for names in (
        ["test/1.jpg", "cat/1.jpg"],
        ["test/deep/1.jpg", "train/deep/1.jpg", "cat/deep/1.jpg"],
        ["train/1.jpg", "test/2.jpg"],  # no class folders
    ):
        folder = tmp_path / str(len(os.listdir(tmp_path)))
        source = open_source(write(folder, *names))
        assert set(source.class_names) == {name.split("/")[0] for name in names}
        assert source.splits is None


def test_folders_that_may_be_splits_are_noted(tmp_path: Path) -> None:
    (note,) = open_source(write(tmp_path / "a", "train/1.jpg", "test/2.jpg")).notes
    assert "test and train are taken as classes, since their images lie in no class folders" in note
    names = ["train/a/1.jpg", "test/a/2.jpg", "extra/a/3.jpg"]
    (note,) = open_source(write(tmp_path / "b", *names)).notes
    assert "test and train may be splits, but extra is none" in note
    assert "--exclude=extra/" in note
    source = open_source(str(tmp_path / "b"), exclude=["extra/"])
    assert (source.class_names, source.keeps_splits) == (("a",), True)


def test_categories_are_top_folders_or_the_classes_inside(tmp_path: Path) -> None:
    names = [f"{split}/{label}/1.jpg" for split in ("train", "test") for label in ("cat", "dog", "elk")]
    folder = write(tmp_path, *names)
    assert open_source(folder, categories=("test", "train")).class_names == ("test", "train")
    source = open_source(folder, categories=("elk", "cat"))
    assert source.class_names == ("elk", "cat")
    assert {split for _, split in rows(source).values()} == {"train", "test"}


def test_images_of_a_split_without_class_folders_are_told(tmp_path: Path) -> None:
    """As in a competition, whose test images have no labels: then the others are dealt."""
    source = open_source(write(tmp_path, "train/cat/1.jpg", "train/dog/2.jpg", "test/3.jpg", "test/4.jpg"))
    assert source.class_names == ("cat", "dog")
    assert not source.keeps_splits
    assert "2 images lie in no class folder, e.g. test/3.jpg: they have no label" in source.notes
    assert len(source.refused) == 2


def test_a_single_split_folder_is_no_class(tmp_path: Path) -> None:
    source = open_source(write(tmp_path, "train/cat/1.jpg", "train/dog/2.jpg", "README.md"))
    assert (source.class_names, source.splits) == (("cat", "dog"), ["train", "train", ""])
    assert (source.keeps_splits, source.notes) == (True, ())
    assert "class folders in train/" in source.form
    other = open_source(write(tmp_path / "other", "set/val/cat/1.jpg", "set/val/dog/2.jpg"))
    assert (other.class_names, other.splits, other.keeps_splits) == (("cat", "dog"), ["validation"] * 2, False)
    assert "class folders in set/val/" in other.form


def test_a_single_split_folder_is_added_to_splits_that_were_kept(
    tmp_path: Path, write_picture: Callable[..., None], a_config: AConfig
) -> None:
    names = [f"{split}/{label}/{n}.png" for split in ("train", "test") for label in ("cat", "dog") for n in range(2)]
    for number, name in enumerate(names):
        write_picture(tmp_path / "zoo" / name, number)
    convert(a_config(tmp_path / "zoo", tmp_path / "data", name="zoo"))
    for number, name in enumerate(names):
        if name.endswith("1.png"):
            write_picture(tmp_path / name.partition("/")[0] / "more" / name.replace("1.png", "9.png"), 50 + number)
    more = a_config(tmp_path / "test" / "more", tmp_path / "data", append=True, name="zoo")
    assert convert(more).splits == {"train": 4, "test": 6}
    more = a_config(tmp_path / "train" / "more", tmp_path / "data", append=True, name="zoo", splits="source")
    assert convert(more).splits == {"train": 6, "test": 6}
    only = a_config(tmp_path / "train" / "more", tmp_path / "only", name="zoo")
    assert convert(only).splits == {"train": 2}
    assert convert(only).num_converted == 0
    divided = a_config(tmp_path / "train" / "more", tmp_path / "divided", name="zoo", splits="train=0.75,test=0.25")
    assert convert(divided).num_converted == 2
    assert convert(a_config(tmp_path / "train" / "more", tmp_path / "divided", name="zoo")).num_converted == 0


def test_splits_without_a_common_class_are_noted(tmp_path: Path) -> None:
    notes = open_source(write(tmp_path, "train/cat/1.jpg", "test/dog/2.jpg")).notes
    assert any("no class in common; if they are classes, name them: --categories=train,test" in note for note in notes)


def test_names_that_look_the_same_are_noted_once(tmp_path: Path) -> None:
    korean = [unicodedata.normalize(form, "한국") for form in ("NFC", "NFD")]
    folder = write(tmp_path, *(f"{name}/1.jpg" for name in (*korean, " cat", "cat", "Dog", "dog", "elk", "cat\u200b")))
    source = open_source(folder)
    assert len(source.class_names) == 8
    (note,) = source.notes
    assert note.startswith("classes whose names look the same are different classes: ")
    assert "' cat' and 'cat' and 'cat\\u200b' (spaces)" in note
    assert "'Dog' and 'dog' (case)" in note
    assert "(Unicode forms NFC and NFD)" in note
    assert "elk" not in note


def test_what_a_folder_was_taken_for(tmp_path: Path) -> None:
    source = open_source(write(tmp_path / "a", "cat/1.jpg", "dog/2.jpg", "dog/3.jpg"))
    assert source.form == "folder with 3 images in class folders; 2 classes (cat, dog)"
    source = open_source(write(tmp_path / "flat", "1.jpg", "labels.csv"))
    assert source.form == "folder with 1 image in one folder without class folders; 1 class (flat)"
    assert any(f"give it as --table={tmp_path / 'flat'}/labels.csv" in note for note in source.notes)


def test_the_splits_of_folders_are_kept_unless_others_are_asked_for(
    tmp_path: Path, write_picture: Callable[..., None], a_config: AConfig
) -> None:
    for number, (split, label) in enumerate((s, c) for s in ("train", "val") for c in ("cat", "dog") for _ in range(4)):
        write_picture(tmp_path / "zoo" / split / label / f"{number}.png", number)
    said: list[str] = []
    config = a_config(tmp_path / "zoo", tmp_path / "data")
    summary = convert(config, describe=said.append)
    assert summary.splits == {"train": 8, "validation": 8}
    assert said == [
        f"{tmp_path / 'zoo'}: folder with 16 images in class folders in the split folders train, val (as validation); "
        "2 classes (cat, dog); its splits are kept"
    ]
    assert Layout.load(summary.dataset_dir).config["splits"] == "source"
    assert {(row.path.split("/")[0], row.split) for row in read_manifest(summary.dataset_dir)} == {
        ("train", "train"), ("val", "validation"),
    }  # fmt: skip
    assert convert(config).num_converted == 0
    write_picture(tmp_path / "zoo" / "val" / "dog" / "new.png", 100)
    more = convert(a_config(tmp_path / "zoo", tmp_path / "data", append=True))
    assert more.splits == {"train": 8, "validation": 9}
    dealt = convert(a_config(tmp_path / "zoo", tmp_path / "dealt", splits="train=0.5,test=0.5"), describe=said.append)
    assert sum(dealt.splits.values()) == 17
    assert set(dealt.splits) == {"train", "test"}
    assert said[-1].endswith("divided anew into train 0.5, test 0.5")


@pytest.mark.parametrize("options", [{}, {"splits": "train=0.75,test=0.25"}])
def test_splits_of_a_table_that_are_not_used_are_noted(
    photos: Path, tmp_path: Path, a_config: AConfig, options: dict[str, Any]
) -> None:
    table = tmp_path / "t.csv"
    table.write_text("path,label,split\nant/image_1.png,a,x\nbee/image_1.png,b,y\n")
    warnings = convert(a_config(photos, tmp_path, table=str(table), name="t", **options)).warnings
    note = "the splits of the source (x, y) are not used; --splits=source keeps them"
    assert (note in warnings) == (not options)


def test_a_plain_folder_is_listed_without_a_second_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A million images are not looked through for splits if the names of the class folders show that there are none."""
    monkeypatch.setattr("tfrecords.convert.sources.folder_layout._find", lambda *_: pytest.fail("was looked through"))
    open_source(write(tmp_path, "cat/1.jpg", "dog/2.jpg", "test/3.jpg"))
    shutil.rmtree(tmp_path)
