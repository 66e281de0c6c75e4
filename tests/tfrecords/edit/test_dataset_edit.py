"""A new version of a dataset: what changes, what is shared, and what is said of lists that name something else."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from tfrecords.base_errors import ConversionError, DataError, Interrupted, UsageError
from tfrecords.convert.engine import convert
from tfrecords.convert.output import reshard
from tfrecords.convert.plan.convert_config import ConvertConfig
from tfrecords.edit import dataset_edit
from tfrecords.edit.dataset_edit import EditConfig, EditSummary, edit
from tfrecords.format.dataset_images import DatasetImages
from tfrecords.format.dataset_verification import verify
from tfrecords.format.layout import Layout
from tfrecords.format.manifest import Manifest, read_manifest
from tfrecords.format.quarantine import read_quarantine

MakeFolder = Callable[..., Path]

pytestmark = pytest.mark.usefixtures("small_shards")  # 40 photos in 9 shards


def converted(image_dir: Path, data_dir: Path, **options: Any) -> Path:
    given = {"image_size": 8, "num_workers": 1, "image_dir": str(image_dir), "data_dir": data_dir, **options}
    return convert(ConvertConfig(**given)).dataset_dir


@pytest.fixture
def mine(photos: Path, tmp_path: Path) -> Path:
    """The photos, with a file that is no picture."""
    folder = Path(shutil.copytree(photos, tmp_path / "zoo"))
    (folder / "bee" / "broken.png").write_bytes(b"no picture")
    return folder


@pytest.fixture(params=["raw", "png"])
def dataset(mine: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    return converted(mine, tmp_path / "data", encoding=request.param)


@pytest.fixture
def raw(mine: Path, tmp_path: Path) -> Path:
    return converted(mine, tmp_path / "data")


def edited(dataset: Path, *, delete: str = "", relabel: str = "", **options: Any) -> EditSummary:
    given: dict[str, Any] = dict(options)
    for name, text in (("delete", delete), ("relabel", relabel)):
        if text:
            given[name] = dataset.parent.parent / f"{name}.csv"
            given[name].write_text(text, encoding="utf-8")
    return edit(EditConfig(dataset_dir=dataset, **given))


def stored(folder: Path) -> dict[int, tuple[str, str, bytes]]:
    """Returns path, class and stored bytes of each example by id."""
    layout, manifest = Layout.load(folder), read_manifest(folder)
    images = DatasetImages(folder, layout, manifest)
    return {
        int(manifest.ids[row]): (
            manifest.paths[row],
            layout.class_names[manifest.labels[row]],
            images.stored_bytes(row),
        )
        for row in np.flatnonzero(manifest.ok).tolist()
    }


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def example(manifest: Manifest, split: str, number: int = 0) -> int:
    rows = np.flatnonzero(manifest.splits == manifest.split_names.index(split))
    return int(rows[number])


def test_deleted_examples_are_gone_and_the_other_shards_are_shared(dataset: Path) -> None:
    before, was, manifest = contents(dataset), stored(dataset), read_manifest(dataset)
    first, second = example(manifest, "train"), example(manifest, "test")
    lines = f"id,reason\n{manifest.ids[first]},blurred\n{manifest.ids[second]},\n"
    made = edited(dataset, delete=lines, reason="bad")
    assert made.dataset_dir == dataset.parent / "2.0.0"
    assert (made.num_deleted, made.num_examples, made.num_shards_written, made.num_shards_shared) == (2, 38, 2, 7)
    assert verify(made.dataset_dir).problems == ()
    assert stored(made.dataset_dir) == {id: each for id, each in was.items() if id not in manifest.ids[[first, second]]}
    assert contents(dataset) == before
    assert [path.name for path in dataset.parent.iterdir() if path.name.startswith(".")] == []
    shared = [path for path in made.dataset_dir.glob("zoo-*") if path.stat().st_nlink > 1]
    assert len(shared) == 7
    after = read_manifest(made.dataset_dir)
    assert len(after) == 41
    assert [after.edits[row] for row in (first, second)] == ["2.0.0: deleted; blurred", "2.0.0: deleted; bad"]
    assert [row.reason for row in after if row.id in manifest.ids[[first, second]]] == ["deleted"] * 2
    listed = {file.path: file for file in read_quarantine(made.dataset_dir)}
    assert listed[manifest.paths[first]].detail == "2.0.0: deleted; blurred"
    assert listed["bee/broken.png"].reason == "text"


def test_new_labels_keep_the_pixels(dataset: Path) -> None:
    was = stored(dataset)
    made = edited(
        dataset,
        relabel="path;class;why\nant/image_1.png;bee;stripes\n./ant\\image_2.jpg;wasp;\nbee/image_0.jpg;1;\n",
        add_classes=("wasp",),
        reason="checked",
    )
    assert (made.num_relabeled, made.num_deleted, made.notes) == (2, 0, ())
    assert verify(made.dataset_dir).problems == ()
    now, by_path = stored(made.dataset_dir), {each[0]: id for id, each in was.items()}
    expected = dict(was)
    for path, name in (("ant/image_1.png", "bee"), ("ant/image_2.jpg", "wasp")):
        expected[by_path[path]] = (path, name, was[by_path[path]][2])
    assert now == expected
    assert Layout.load(made.dataset_dir).class_names == ("ant", "bee", "wasp")
    edits = dict(zip(read_manifest(made.dataset_dir).paths, read_manifest(made.dataset_dir).edits, strict=True))
    assert edits["ant/image_1.png"] == "2.0.0: label ant -> bee; stripes"
    assert edits["ant/image_2.jpg"] == "2.0.0: label ant -> wasp; checked"
    again = edited(made.dataset_dir, relabel="ant/image_1.png,ant\n", delete="ant/image_2.jpg\n")
    edits = dict(zip(read_manifest(again.dataset_dir).paths, read_manifest(again.dataset_dir).edits, strict=True))
    assert edits["ant/image_1.png"] == "2.0.0: label ant -> bee; stripes | 3.0.0: label bee -> ant"
    assert edits["ant/image_2.jpg"] == "2.0.0: label ant -> wasp; checked | 3.0.0: deleted"
    assert again.notes == ("class 'wasp' has no examples any more; it keeps its label",)
    assert verify(again.dataset_dir).problems == ()


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"delete": "id\n0\n999\nx\n"}, "line 3: id 999 is not in the dataset; line 4: id x is not in the dataset"),
        ({"delete": "cat/1.jpg\n7\n"}, "line 1: 'cat/1.jpg' is not in the dataset. Nothing was changed"),
        ({"delete": "bee/broken.png\n"}, "'bee/broken.png' is no example: it was rejected (text)"),
        ({"delete": "id,path\n0,bee/image_0.jpg\n"}, "line 2: id 0 is ant/image_0.jpg, not bee/image_0.jpg"),
        ({"delete": "\n"}, "names no example"),
        ({"delete": "id\n" + "\n".join(map(str, range(100, 130)))}, "and 20 more"),
        ({"relabel": "id,label\n0,bea\n1,lion\n"}, "'bea', which is no class of the dataset (did you mean 'bee'?)"),
        ({"relabel": "id,label\n0,bea\n1,lion\n"}, "line 3: id 1 has the label 'lion', which is no class"),
        ({"relabel": "id,label\n0,2\n"}, "'2', which is no class"),
        ({"relabel": "id,label\n0,bee\n0,ant\n"}, "line 3: id 0 has another label than in line 2"),
        ({"relabel": "id,label\n0\n"}, "line 2 has 1 cells instead of at least 2"),
        ({"relabel": "id,name\n0,bee\n"}, "has no column `label`. Its header is: id,name"),
        ({"relabel": "id,label\n0,ant\n"}, "changes nothing"),
        ({"relabel": "id,label\n0,bee\n", "delete": "0\n"}, "both name id 0, ant/image_0.jpg"),
        ({"relabel": "id,label\n0,bee\n", "add_classes": ("bee",)}, "has this class already"),
        ({"delete": "\n".join(str(id) for id in range(41) if id != 22)}, "names all examples"),
        ({}, "nothing to change"),
    ],
)
def test_what_cannot_be_done_is_said_and_nothing_is_written(raw: Path, lists: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as raised:
        edited(raw, **lists)
    assert message in str(raised.value)
    assert [path.name for path in raw.parent.iterdir()] == ["1.0.0"]


def test_lists_of_other_programs_are_read(raw: Path) -> None:
    """UTF-16 as Excel writes it, a manifest as a table, and a path with a comma."""
    (raw.parent.parent / "delete.csv").write_bytes("path\tx\r\nant/image_0.jpg\t1\r\n".encode("utf-16"))
    config = EditConfig(dataset_dir=raw, delete=raw.parent.parent / "delete.csv")
    made = edit(config).dataset_dir
    table = "id,path,label,reason\n1,ant/image_1.png,0,\n"
    made = edited(made, delete=table, relabel="2,bee\n").dataset_dir
    paths = {path for path, _, _ in stored(made).values()}
    assert not {"ant/image_0.jpg", "ant/image_1.png"} & paths
    assert stored(made)[2][1] == "bee"


def test_only_the_newest_version_is_edited(raw: Path) -> None:
    edited(raw, delete="0\n")
    with pytest.raises(UsageError, match=r"has a newer version, .*2\.0\.0\. Edit that one"):
        edited(raw, delete="1\n")
    with pytest.raises(UsageError, match=r"is not a dataset of .*layout\.json\. Did you mean .*2\.0\.0\?"):
        edited(raw.parent, delete="1\n")
    with pytest.raises(UsageError, match="rejected \\(deleted\\)"):
        edited(raw.parent / "2.0.0", delete="0\n")


def test_nothing_half_written(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever ends it: the old version is as it was, and there is no new one, nor a working folder."""
    before = contents(raw)

    for error, expected in ((OSError(28, "No space left", "x"), ConversionError), (KeyboardInterrupt(), Interrupted)):
        with monkeypatch.context() as patch:
            patch.setattr(dataset_edit, "write_metadata", Mock(side_effect=error))
            with pytest.raises(expected, match=r"[Nn]othing was changed"):
                edited(raw, delete="0\n")
        assert [path.name for path in raw.parent.iterdir()] == ["1.0.0"]
        assert contents(raw) == before
    work = raw.parent / ".2.0.0.work" / "dataset"  # of a call that was killed
    work.mkdir(parents=True)
    (work / "zoo-train.tfrecord-00000-of-00007").write_bytes(b"half")
    made = edited(raw, delete="0\n").dataset_dir
    assert verify(made).problems == ()
    assert not work.exists()
    (raw.parent / ".3.0.0.work").mkdir()
    (raw.parent / ".3.0.0.work" / "plan.json").write_text("{}")
    with pytest.raises(UsageError, match=r"3\.0\.0\.work is an unfinished conversion"):
        edited(made, delete="1\n")


def test_damage_stops_it(raw: Path) -> None:
    manifest = read_manifest(raw)
    row = example(manifest, "train")
    shard = raw / Layout.load(raw).splits["train"][manifest.shards[row]].file
    data = bytearray(shard.read_bytes())
    data[-300] ^= 1
    shard.write_bytes(data)
    rows = np.flatnonzero((manifest.splits == manifest.splits[row]) & (manifest.shards == manifest.shards[row]))
    with pytest.raises(DataError, match="no record of"):
        edited(raw, delete=f"{manifest.ids[rows[manifest.positions[rows] == 0]][0]}\n")
    shard.write_bytes(data[:-1])
    other = np.flatnonzero(manifest.splits == 1)
    with pytest.raises(DataError, match="missing or damaged"):
        edited(raw, delete=f"{manifest.ids[other[0]]}\n")
    assert [path.name for path in raw.parent.iterdir()] == ["1.0.0"]


def test_without_hard_links_shards_are_copied(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(reshard.os, "link", fails)
    made = edited(raw, delete="0\n").dataset_dir
    assert verify(made).problems == ()
    assert {path.stat().st_nlink for path in made.iterdir()} == {1}


def test_datasets_are_merged(dataset: Path, make_folder: MakeFolder, write_picture: Any, tmp_path: Path) -> None:
    """Classes by name, new ids, paths that both have; and a copy of a training image leaves the test split."""
    was, first = stored(dataset), read_manifest(dataset)
    other_files = make_folder(tmp_path / "more" / "farm", {"bee": 6, "cow": 4})
    for path in other_files.rglob("*.*"):
        write_picture(path, 1000 + int(path.stem[6:]) + 20 * (path.parent.name == "cow"))
    copied = first.paths[example(first, "train", 3)]
    shutil.copy(tmp_path / "zoo" / copied, other_files / "cow" / f"copy{Path(copied).suffix}")
    encoding = Layout.load(dataset).encoding
    other = converted(other_files, tmp_path / "more", splits="test=0.5,validation=0.5", encoding=encoding, seed=3)
    added = stored(other)
    made = edited(dataset, merge=(str(other),), reason="more cows")
    assert made.dataset_dir.name == "1.1.0"
    assert (made.num_added, made.num_examples, made.num_shards_shared) == (11, 51, 9)
    assert verify(made.dataset_dir).problems == ()
    now, manifest = stored(made.dataset_dir), read_manifest(made.dataset_dir)
    assert {id: now[id] for id in was} == was
    by_path = {each[0]: each for each in now.values()}
    renamed = {
        path if path not in {each[0] for each in was.values()} else f"farm-1.0.0/{path}"
        for path, _, _ in added.values()
    }
    assert {path for path in by_path if path not in {each[0] for each in was.values()}} == renamed
    assert by_path["farm-1.0.0/bee/image_0.jpg"][1:] == ("bee", {e[0]: e for e in added.values()}["bee/image_0.jpg"][2])
    assert Layout.load(made.dataset_dir).class_names == ("ant", "bee", "cow")
    row = manifest.paths.index(f"cow/copy{Path(copied).suffix}")
    assert manifest.split_names[manifest.splits[row]] == "train"
    assert manifest.groups[row] == first.groups[first.paths.index(copied)]
    assert set(manifest.edits[41:]) == {"1.1.0: merged from farm 1.0.0; more cows"}
    notes = "\n".join(made.notes)
    for words in ("adds 1 class: cow", "6 paths of", "1 added images are copies", "1 added copies changed their split"):
        assert words in notes
    assert set(made.splits) == {"train", "test", "validation"}


def test_only_equal_images_are_merged(raw: Path, photos: Path, tmp_path: Path) -> None:
    other = converted(photos, tmp_path / "other", image_size=9, encoding="png")
    with pytest.raises(UsageError, match=r"Convert it first: simimg convert --from=.* --image_size=8 --encoding=raw"):
        edited(raw, merge=(str(other),))
    other = converted(photos, tmp_path / "padded", resize="pad")
    made = edit(EditConfig(merge=(str(raw), str(other))))
    assert made.dataset_dir == raw.parent / "1.1.0"
    assert any("--resize=pad there, stretch here" in line for line in made.notes)
    assert verify(made.dataset_dir).problems == ()


def test_an_edited_dataset_can_be_appended_to(raw: Path, mine: Path, photos: Path, tmp_path: Path) -> None:
    """What was deleted stays deleted, and the splits of merged datasets stay."""
    other = converted(photos, tmp_path / "other", splits="validation=1", name="more")
    merged = edited(raw, merge=(str(other),)).dataset_dir
    made = edited(merged, delete="ant/image_0.jpg\n", relabel="bee/image_0.jpg,ant\n").dataset_dir
    data_dir = made.parent.parent
    shutil.copy(mine / "ant" / "image_1.png", mine / "ant" / "new.png")
    appended = converted(mine, data_dir, append=True)
    assert appended.name == "2.1.0"
    assert verify(appended).problems == ()
    manifest = read_manifest(appended)
    rows = {path: row for row, path in enumerate(manifest.paths)}
    assert manifest.ok[rows["ant/new.png"]]
    assert not manifest.ok[rows["ant/image_0.jpg"]]
    assert manifest.edits[rows["ant/image_0.jpg"]] == "2.0.0: deleted"
    assert manifest.labels[rows["bee/image_0.jpg"]] == 0
    assert os.path.exists(appended / "quarantine.jsonl")


@pytest.mark.parametrize("kind", ["multi", "multi_png", "float", "none", "single"])
def test_examples_of_other_forms(labeled: Any, tmp_path: Path, kind: str) -> None:
    """Deleting and merging work, since records are copied as they are; new labels need one class per image."""

    def values(folder: Path) -> dict[int, Any]:
        layout, manifest = Layout.load(folder), read_manifest(folder)
        images = DatasetImages(folder, layout, manifest)
        return {int(manifest.ids[row]): images.values(row) for row in np.flatnonzero(manifest.ok).tolist()}

    folder = labeled(kind, tmp_path / "data", splits="train=1").dataset_dir
    if kind != "single":
        with pytest.raises(UsageError, match="do not have one class each"):
            edited(folder, relabel="0,red\n")
        assert [each.name for each in folder.parent.iterdir()] == ["1.0.0"]
    other = labeled(kind, tmp_path / "other", splits="train=1", seed=1).dataset_dir
    before = values(folder)
    removed = [number for number in range(16) if number >> 2 & 1][:3]  # not all that are blue
    made = edited(folder, delete="".join(f"{number}\n" for number in removed), merge=(str(other),))
    assert verify(made.dataset_dir).problems == ()
    assert not any("has no examples any more" in note for note in made.notes)
    expected = {id: value for id, value in before.items() if id not in removed}
    assert values(made.dataset_dir) == expected | {16 + id: value for id, value in before.items()}
    assert Layout.load(made.dataset_dir).schema == Layout.load(folder).schema
    if kind == "single":
        made = edited(made.dataset_dir, relabel="1,blue\n")
        blue = Layout.load(folder).class_names.index("blue")
        assert values(made.dataset_dir)[1] == ((blue,), before[1][1])
        assert verify(made.dataset_dir).problems == ()


def test_a_class_without_examples_is_named_only_if_no_label_is_left(
    labeled: Any, labeled_row: Any, tmp_path: Path
) -> None:
    """Green is the second label of 3.png and 11.png; in the manifest it is only the first one."""
    folder = labeled("multi", tmp_path / "data").dataset_dir
    with_green = [n for n in range(16) if "green" in labeled_row(n)["colors"]]
    both = [n for n in with_green if labeled_row(n)["colors"] != "green"]
    made = edited(folder, delete="".join(f"{n}\n" for n in with_green if n not in both))
    assert made.notes == ()
    made = edited(made.dataset_dir, delete="".join(f"{n}\n" for n in both))
    assert made.notes == ("class 'green' has no examples any more; it keeps its label",)


@pytest.mark.parametrize("encoding", ["raw", "png"])
@pytest.mark.parametrize("features", [("age",), ("age", "caption")])
def test_several_labels_are_joined_by_their_names(
    encoding: str, features: tuple[str, ...], write_picture: Any, tmp_path: Path
) -> None:
    """Also if the added images have fewer labels each, and their first label is another one afterwards."""
    folders, expected = [], {}
    tables = {"own": ("green|red|black", "", "red", "black"), "more": ("white|green", "", "green", "amber|red")}
    for name, cells in tables.items():
        lines = ["path,colors,age,caption"]
        for number, cell in enumerate(cells):
            write_picture(tmp_path / f"{name}{number}.png", len(expected))
            expected[len(expected)] = (set(filter(None, cell.split("|"))), number)
            lines.append(f"{name}{number}.png,{cell},{number},c{number}")
        (tmp_path / f"{name}.csv").write_text("\n".join(lines))
        given: dict[str, Any] = {
            "table": str(tmp_path / f"{name}.csv"),
            "label_type": "multi",
            "label_column": "colors",
        }
        given |= {"features": features, "splits": "train=1", "image_size": 8, "num_workers": 1, "copies": "ignore"}
        folders.append(
            convert(ConvertConfig(data_dir=tmp_path / "data", name=name, encoding=encoding, **given)).dataset_dir
        )
    own, more = folders
    with pytest.raises(UsageError, match=r"in another form\. Merge them the other way round: --dataset_dir=\S*own"):
        edited(more, merge=(str(own),))
    made = edited(own, merge=(str(more),))
    assert made.notes == (f"{more} adds 2 classes: amber, white",)
    assert verify(made.dataset_dir).problems == ()
    layout, manifest = Layout.load(made.dataset_dir), read_manifest(made.dataset_dir)
    assert layout.class_names == ("black", "green", "red", "amber", "white")
    images = DatasetImages(made.dataset_dir, layout, manifest)
    for row, id in enumerate(manifest.ids.tolist()):
        labels, values = images.values(row)
        assert ({layout.class_names[label] for label in labels}, values["age"]) == expected[id]
        assert manifest.labels[row] == min(labels, default=-1)
    assert np.array_equal(images.image(5), DatasetImages(more, Layout.load(more), read_manifest(more)).image(1))


def test_datasets_of_different_forms_are_not_merged(raw: Path, labeled: Any, photos: Path, tmp_path: Path) -> None:
    multi = labeled("multi", tmp_path / "multi").dataset_dir
    png = labeled("multi_png", tmp_path / "png").dataset_dir
    layout = Layout.load(png)
    wider = dataclasses.replace(layout.schema, label_size=3)  # as of a table with three labels in a row
    three = Path(shutil.copytree(png, tmp_path / "three" / "zoo" / "1.0.0"))
    dataclasses.replace(layout, schema=wider).save(three)
    floats = labeled("float", tmp_path / "floats").dataset_dir
    renamed = Path(shutil.copytree(floats, tmp_path / "renamed" / "zoo" / "1.0.0"))
    dataclasses.replace(Layout.load(floats), class_names=("a", "b")).save(renamed)
    for base, other, message in (
        (raw, multi, "up to 2 labels per image and the feature age .int64., and .* one class per image, in another"),
        (png, three, "have up to 3 labels per image .* up to 2 labels per image .* in another form"),
        (floats, renamed, "its numbers are not those of the dataset in the same order.*--label_column=level,age"),
    ):
        with pytest.raises(UsageError, match=message):
            edited(base, merge=(str(other),))
        assert len(list(base.parent.iterdir())) == 1
    array = converted(photos, tmp_path / "array", format="array_record")
    with pytest.raises(UsageError, match="is stored as array_record, and only TFRecord shards can be edited"):
        edited(array, delete="0\n")
    with pytest.raises(UsageError, match="is stored as array_record"):
        convert(ConvertConfig(from_dataset=str(array), data_dir=tmp_path))


def test_the_same_conversion_again_leaves_the_edited_dataset(raw: Path, mine: Path, tmp_path: Path) -> None:
    made = edited(raw, delete="0\n", relabel="1,bee\n").dataset_dir
    before = contents(made)
    assert converted(mine, tmp_path / "data") == made
    assert contents(made) == before


def test_groups_of_merged_datasets_get_new_ids_and_folds_are_refused(raw: Path, photos: Path, tmp_path: Path) -> None:
    other = converted(photos, tmp_path / "other", name="groups", group_pattern="image_[0-9]")
    folds = converted(photos, tmp_path / "other", name="folds", folds=2)
    with pytest.raises(UsageError, match="datasets with folds cannot be merged"):
        edited(raw, merge=(str(folds),))
    part, made = read_manifest(other), edited(raw, merge=(str(other),)).dataset_dir
    manifest = read_manifest(made)
    assert (manifest.split_groups[:41] == manifest.ids[:41]).all()
    assert (manifest.split_groups[41:] == part.split_groups + 41).all()
    assert verify(made).problems == ()
    first = edited(folds, delete="0\n").dataset_dir
    assert read_manifest(first).folds[0] == 0
    assert verify(first).problems == ()
