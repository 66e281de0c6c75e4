"""Tables with several labels per image, with numbers, without labels, and with further columns."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tfrecords.base_errors import UsageError
from tfrecords.convert.engine import convert
from tfrecords.convert.plan.convert_config import ConvertConfig
from tfrecords.convert.sources import open_source
from tfrecords.convert.sources.source import Source
from tfrecords.convert.sources.table_cells import as_float32
from tfrecords.convert.sources.table_values import separator_of
from tfrecords.format.dataset_images import count_classes
from tfrecords.format.layout import Layout
from tfrecords.format.manifest import read_manifest

HEAD = "path,labels\n"
CELLS = ((0, "cat|dog"), (1, "cat"), (2, ""))
ANY_BAR = ", separated by |"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for number in range(5):
        (tmp_path / f"{number}.jpg").write_bytes(b"x")
    return tmp_path


def opened(folder: Path, text: str, label_type: str = "multi", name: str = "t.csv", **options: Any) -> Source:
    (folder / name).write_text(text, encoding="utf-8", errors="surrogateescape")
    return open_source("", table=str(folder / name), label_type=label_type, **options)


def named(source: Source) -> list[list[str]]:
    assert source.values is not None
    return [[source.class_names[label] for label in several] for several in source.values.labels]


@pytest.mark.parametrize(
    ("text", "separator"),
    [
        (HEAD + "0.jpg,cat;dog\n1.jpg,cat\n2.jpg,\n", ", separated by ;"),
        (HEAD + "0.jpg,cat|dog\n1.jpg,cat\n2.jpg,\n", ", separated by |"),
        (HEAD + '0.jpg,"dog, cat"\n1.jpg,cat\n2.jpg,\n', ", separated by ,"),
        ("path;tags\n0.jpg;cat|dog\n1.jpg;cat\n2.jpg;\n", ", separated by |"),
        (HEAD + '0.jpg,"[""cat"", ""dog""]"\n1.jpg,"[""cat""]"\n2.jpg,[]\n', ""),
        (HEAD + "0.jpg,\"['dog', 'cat']\"\n1.jpg,['cat']\n2.jpg,[]\n", ""),
        ("filename,label\n0.jpg,cat\n0.jpg,dog\n1.jpg,cat\n2.jpg,\n", ""),
        ("file,label1,label2\n0.jpg,cat,dog\n1.jpg,cat,\n2.jpg,,\n", ""),
        ("id,cat,dog\n0.jpg,1,1\n1.jpg,1,0\n2.jpg,0,0\n", ""),
        ("image_id,cat,dog\n0.jpg,1,1\n1.jpg,1,-1\n2.jpg,-1,-1\n", ""),
        ("0.jpg cat dog\n1.jpg cat\n2.jpg\n", ", separated by ;"),
        ("0.jpg\tcat;dog\n1.jpg\tcat\n2.jpg\t\n", ", separated by ;"),
        ("0.jpg,cat,dog\n1.jpg,cat,\n2.jpg,,\n", ""),
        ("0.jpg,cat,dog\n1.jpg,cat\n2.jpg\n", ", separated by ,"),
        ("Image Index,Finding Labels,Age,Pixels[x,y],\n" + "".join(f"{n}.jpg,{x},1,2,3,\n" for n, x in CELLS), ANY_BAR),
        ("id,cat,dog\n0.jpg,Yes,yes\n1.jpg,YES,no\n2.jpg,No,no\n", ""),
        ("3\ncat dog\n0.jpg  1  1\n1.jpg  1 -1\n2.jpg -1 -1\n", ""),
        ("cat dog\n0.jpg 1 1\n1.jpg 1 0\n2.jpg 0 0\n", ""),
        ("idx,path,cat,dog\n0,0.jpg,1,1\n1,1.jpg,1,0\n2,2.jpg,0,0\n", ""),
    ],
    ids=[
        "semicolon",
        "bar",
        "comma",
        "other table",
        "JSON",
        "Python",
        "rows",
        "columns",
        "multi-hot",
        "signed",
        "list",
        "tabs",
        "columns without names",
        "rows of several lengths",
        "ChestX-ray14",
        "yes and no",
        "CelebA",
        "names above",
        "numbers of rows",
    ],
)
def test_several_labels(images: Path, text: str, separator: str) -> None:
    source = opened(images, text)
    assert named(source) == [["cat", "dog"], ["cat"], []]
    assert source.labels.tolist() == [0, 0, -1]
    assert not source.refused
    assert f"2 labels (cat, dog){separator}, up to 2 per image, 1 without any" in source.form
    assert source.values is not None
    assert source.values.schema().label_size == 2


def test_columns_of_0_and_1_without_names_are_no_lists_of_labels(images: Path) -> None:
    source = opened(images, "0.jpg 0 1 0\n1.jpg 1 1 0\n2.jpg 0 0 0\n", name="t.txt")
    assert named(source) == [["1"], ["0", "1"], []]
    assert "by number, from the columns of 0 and 1 2, 3, 4" in source.form


def test_labels_that_may_be_meant_otherwise_are_noted(images: Path) -> None:
    mixed = opened(images, HEAD + '0.jpg,cat|dog\n1.jpg,cat;dog\n2.jpg,"a, b"\n')
    assert mixed.notes[-1] == (
        "2 labels have another separator than | inside, e.g. 'a, b'; if it separates labels, write the same one in all "
        "rows"
    )
    for label_type in ("single", "multi"):
        words = opened(images, "path,label\n0.jpg,NA\n1.jpg,nan\n2.jpg,cat\n", label_type)
        assert words.notes[-1].startswith("NA, nan: labels, like other words; leave the cells empty")
    assert not opened(images, HEAD + "0.jpg,cat;dog\n").notes


def test_labels_of_files_that_are_left_out_are_no_classes(images: Path) -> None:
    source = opened(images, HEAD + "0.jpg,cat;dog\n1.jpg,bird\n2.jpg,\n", exclude=("1.jpg",))
    assert source.class_names == ("cat", "dog")


def test_whole_numbers_that_pandas_wrote_as_floats_are_one_label(images: Path) -> None:
    assert opened(images, HEAD + "0.jpg,1.0\n1.jpg,2.0\n2.jpg,\n").class_names == ("1", "2")


def test_numbers_of_columns_are_no_header(images: Path) -> None:
    for label_type, label_column in (("single", "2"), ("multi", "2,3"), ("float", "2,3")):
        text = "0.jpg,2,3\n1.jpg,1,2\n2.jpg,2,2\n"
        source = opened(images, text, label_type, path_column="1", label_column=label_column)
        assert source.paths == ["0.jpg", "1.jpg", "2.jpg"]
        assert source.form.startswith("CSV table with 3 files; no header")


def test_spaces_separate_words_that_repeat() -> None:
    assert separator_of(["haze primary", "clear primary", "haze water", "clear water primary", "haze"]) == " "
    assert separator_of(["cat dog", "cat", ""]) == " "
    assert separator_of(["sea view", "city view"]) == ""
    assert separator_of(["cat", "dog"]) == ""
    assert separator_of([]) == ""


def test_categories_choose_labels(images: Path) -> None:
    source = opened(images, HEAD + "0.jpg,cat;dog\n1.jpg,bird\n2.jpg,dog;bird\n3.jpg,\n", categories=("dog", "cat"))
    assert named(source) == [["dog", "cat"], ["dog"]]
    assert source.paths == ["0.jpg", "2.jpg"]


def test_parquet_lists(images: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {
        "path": ["0.jpg", "1.jpg"],
        "labels": [["b", "a"], []],
        "raw": [b"\xff", b""],
        "box": [[1.0, 2.0], [3.0, 4.0]],
        "words": [["x"], ["y", "z"]],
        "on": [True, False],
    }
    pq.write_table(pa.table(columns), images / "t.parquet")
    names = ("raw", "box", "words", "on")
    source = open_source("", table=str(images / "t.parquet"), label_type="multi", features=names)
    assert named(source) == [["a", "b"], []]
    assert source.values is not None
    kinds = [str(feature) for feature in source.values.features]
    assert kinds == ["box (float32[2])", "on (int64)", "raw (bytes)", "words (text[])"]
    assert source.values.values[0] == ([1.0, 2.0], 1, b"\xff", ["x"])


@pytest.mark.parametrize(
    ("text", "options", "targets", "names"),
    [
        ("path,score\n0.jpg,1.5\n1.jpg,-2\n", {}, [(1.5,), (-2.0,)], ("score",)),
        ("path,x,y\n0.jpg,1,2\n1.jpg,3,4\n", {}, [(1.0, 2.0), (3.0, 4.0)], ("x", "y")),
        ("path,x,note,y\n0.jpg,1,a,2\n1.jpg,3,b,4\n", {"label_column": "y,x"}, [(2.0, 1.0), (4.0, 3.0)], ("y", "x")),
        ("0.jpg 1.5\n1.jpg 2\n", {}, [(1.5,), (2.0,)], ("target",)),
        ("0.jpg 1.5 2\n1.jpg 2 3\n", {}, [(1.5, 2.0), (2.0, 3.0)], ("target1", "target2")),
        ("0.jpg,1.5,2\n1.jpg,2,3\n", {}, [(1.5, 2.0), (2.0, 3.0)], ("target1", "target2")),
        ("x y\n0.jpg 1.5 2\n1.jpg 2 3\n", {}, [(1.5, 2.0), (2.0, 3.0)], ("x", "y")),
        ('path,box\n0.jpg,"[1, 2]"\n1.jpg,"[3, 4]"\n', {}, [(1.0, 2.0), (3.0, 4.0)], ("box_1", "box_2")),
        ("path,box,note\n0.jpg,1 2,a\n1.jpg,3 4,b\n", {"label_column": "box"}, [(1, 2), (3, 4)], ("box_1", "box_2")),
        ("idx,path,x,y\n0,0.jpg,1e-3,-2\n1,1.jpg,1E3,4\n", {}, [(as_float32(1e-3), -2), (1e3, 4)], ("x", "y")),
    ],
)
def test_numbers(images: Path, text: str, options: Any, targets: Any, names: Any) -> None:
    source = opened(images, text, "float", **options)
    assert source.values is not None
    assert source.values.labels == targets
    assert source.class_names == names
    assert source.labels.tolist() == [0, 0]
    assert "number" in source.form


def test_a_missing_number_is_no_label(images: Path) -> None:
    source = opened(images, "path,score\n0.jpg,1\n1.jpg,\n2.jpg,nan\n", "float")
    assert {id: refusal.detail for id, refusal in source.refused.items()} == {
        1: "it has no label",
        2: "it has no label",
    }


def test_numbers_that_float32_rounds_are_noted(images: Path) -> None:
    text = "path,score\n0.jpg,16777217\n1.jpg,1e-60\n2.jpg,1e30\n3.jpg,0\n4.jpg,0.1\n"
    assert opened(images, text, "float").notes == (
        "the column of numbers has 2 numbers that float32 rounds, e.g. 16777217 to 16777216",
    )
    text = "path,label,at\n0.jpg,a,1700000001.5\n1.jpg,a,1\n"
    (note,) = opened(images, text, "single", features=("at",)).notes
    assert note == (
        "the feature 'at' has 1 number that float32 rounds, e.g. 1700000001.5 to 1.7e+09; --features=at:text stores "
        "them as they are"
    )


def test_parquet_numbers(images: Path) -> None:
    from decimal import Decimal

    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {"path": ["0.jpg", "1.jpg"], "box": [[1.0, 2.0], [3.0, 4.0]], "on": [True, None]}
    columns |= {"cost": [Decimal("1.50"), Decimal("2")], "far": [(1 << 64) - 1, 0]}
    schema = pa.schema([("path", "string"), ("box", pa.list_(pa.float32())), ("on", "bool")])
    schema = schema.append(pa.field("cost", pa.decimal128(5, 2))).append(pa.field("far", pa.uint64()))
    pq.write_table(pa.table(columns, schema), images / "t.parquet")
    source = open_source(
        "", table=str(images / "t.parquet"), label_type="float", label_column="box", features=("on", "cost", "far")
    )
    assert source.class_names == ("box_1", "box_2")
    assert source.values is not None
    assert source.values.labels == [(1.0, 2.0), (3.0, 4.0)]
    assert list(map(str, source.values.features)) == ["cost (float32)", "far (text)", "on (float32)"]
    assert source.values.values[0] == (1.5, str((1 << 64) - 1), 1.0)
    nested = {"path": ["0.jpg"], "label": ["a"], "boxes": [[[1], [2]]]}
    pq.write_table(pa.table(nested), images / "n.parquet")
    with pytest.raises(UsageError, match=r"'boxes' should have plain values, or lists of them\. .*Flatten the lists"):
        open_source("", table=str(images / "n.parquet"), features=("boxes",))


def test_no_labels(images: Path) -> None:
    for text, name in (
        ("0.jpg\n1.jpg\n", "a.txt"),
        ("path\n0.jpg\n1.jpg\n", "b.csv"),
        ("path,label\n0.jpg,\n", "c.csv"),
        ("0.jpg,1,a\n1.jpg,2,b\n", "d.csv"),
    ):
        source = opened(images, text, "none", name)
        assert source.class_names == ("unlabeled",)
        assert "no labels" in source.form
        assert not source.refused
    folder = open_source(str(images), label_type="none")
    assert folder.class_names == ("unlabeled",)
    assert folder.form.endswith("; stored without labels")


FEATURES = """path,label,age,weight,zip,caption,box,points,empty
0.jpg,a,3,1.5,01234,"a cat, asleep","[1, 2]",1;2;3,
1.jpg,b,-4,,98765,,"[3, 4.5]",,
"""


def test_features(images: Path) -> None:
    names = ("weight", "age", "zip", "caption", "box", "points", "empty", "label:bytes")
    text = FEATURES.replace("label", "label2").replace("path,", "path,label,").replace(".jpg,", ".jpg,c,")
    source = opened(images, text, "single", features=tuple(name.replace("label", "label2") for name in names))
    assert source.values is not None
    assert ", ".join(map(str, source.values.features)) == (
        "age (int64), box (float32[2]), caption (text), empty (text), label2 (bytes), points (int64[]), weight "
        "(float32), zip (text)"
    )
    first, second = source.values.values
    assert first == (3, [1.0, 2.0], "a cat, asleep", "", b"a", [1, 2, 3], 1.5, "01234")
    assert second[:6] == (-4, [3.0, 4.5], "", "", b"b", [])
    assert math.isnan(second[6])
    assert source.class_names == ("c",)
    assert "; features age (int64)" in source.form
    paths = opened(images, text, "single", features=("path",))
    assert paths.values is not None
    assert paths.values.values == [("0.jpg",), ("1.jpg",)]
    changed = opened(images, text.replace("asleep", "awake"), "single", features=("caption",))
    before = opened(images, text, "single", features=("caption",))
    assert changed.sha256() != before.sha256()


@pytest.mark.parametrize(
    ("cells", "form", "first"),
    [
        (["9223372036854775807", "-9223372036854775808"], "a (int64)", (1 << 63) - 1),
        (["9223372036854775808", "1"], "a (text)", "9223372036854775808"),
        (["3", "", "4"], "a (float32)", 3.0),
        (["2.5", "NA", "null"], "a (float32)", 2.5),
        (["x", "NA", ""], "a (text)", "x"),
        (["1.0", "2.0"], "a (float32)", 1.0),
        (['"[1, null]"', '"[2, 3]"'], "a (float32[2])", None),
        (["1;;2", "3;4;5"], "a (float32[3])", None),
        (["1;2;", "3;4;"], "a (int64[2])", [1, 2]),
        (["1;2", "", "3;4"], "a (int64[])", [1, 2]),
    ],
)
def test_the_type_fits_all_cells(images: Path, cells: list[str], form: str, first: Any) -> None:
    lines = "".join(f"{number}.jpg,c,{cell}\n" for number, cell in enumerate(cells))
    source = opened(images, f"path,label,a\n{lines}", "single", features=("a",))
    assert source.values is not None
    assert [str(feature) for feature in source.values.features] == [form]
    found = source.values.values[0][0]
    assert found == first or (first is None and any(math.isnan(one) for one in found))


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (FEATURES, {"features": ("2",)}, r"should not be named 'label'\. Rename"),
        (FEATURES, {"features": ("AGE", "3")}, r"has 'age' twice"),
        ("path,label,a,a\n0.jpg,b,1,2\n", {"features": ("a",)}, r"several such columns\. Give the number of one"),
        ("path,label,a\n0.jpg,b,1\n1.jpg,b,\n2.jpg,b,16777217\n", {"features": ("a",)}, r"no value.*a:float32"),
        ("path,score\n0.jpg,inf\n", {"label_type": "float"}, r"row 2 has 'inf' in the column 'score'"),
        ('path,score\n0.jpg,"1,5"\n', {"label_type": "float"}, r"row 2 has '1,5' in the column 'score'"),
        ("path,score\n0.jpg,1_000\n", {"label_type": "float"}, r"row 2 has '1_000' in the column 'score'"),
        ('path,box\n0.jpg,"[1,2]"\n1.jpg,[3]\n', {"label_type": "float"}, r"row 3 has 1 numbers as labels, others 2"),
        ("path,a,b\n0.jpg,-1,1\n1.jpg,,1\n", {"label_type": "multi"}, r"-1, 1 and empty cells, so -1 may mean"),
        ("path,labels\n0.jpg,K\udce4se;a\n", {"label_type": "multi"}, r"label in row 2 is not UTF-8\. Save the table"),
        (
            "path,label,a\n0.jpg,c,K\udce4se\n",
            {"features": ("a",)},
            r"bytes that are not UTF-8 in .*--features=a:bytes",
        ),
        (
            '{"path": "0.jpg", "labels": ["a"]}\n',
            {"label_type": "multi"},
            r"is JSON\. Give the table as CSV or parquet",
        ),
        (FEATURES, {"features": ("nothing",)}, r"has no such column\. It has: path, label"),
        (FEATURES, {"features": ("age", "age:text")}, r"has 'age' twice"),
        (FEATURES, {"features": ("age:int8",)}, r"the type should be one of int64, float32, bytes, text"),
        (FEATURES, {"features": ("label",)}, r"should not be named 'label'\. Rename"),
        (
            FEATURES,
            {"features": ("caption:int64",)},
            r"row 2 has 'a cat, asleep' in the column 'caption', which is int64",
        ),
        (FEATURES, {"features": ("weight:int64",)}, r"row 2 has '1\.5' in the column 'weight'.*weight:text"),
        (FEATURES, {"features": ("empty:int64",)}, r"row 2 has no value in the column 'empty'.*empty:float32"),
        (FEATURES, {"label_type": "float"}, r"row 2 has 'a' in the column 'label', not a number|it is not clear which"),
        ("path,score\n0.jpg,1e99\n", {"label_type": "float"}, r"'1e99' in the column 'score'.*float32 can hold"),
        ("path,labels\n0.jpg,\n", {"label_type": "multi"}, r"has no label in any row\. Give --label_type=none"),
        ("path,labels,tags\n0.jpg,a,b\n", {"label_type": "multi"}, r"several columns of labels.*--label_column=labels"),
        ("path,a,b\n0.jpg,x,y\n", {"label_type": "multi"}, r"no column of labels.*--label_column=NAME"),
        ("path,labels\n0.jpg,[1\n0.jpg,[x]\n", {"label_type": "multi"}, r"\[x\] are not a JSON list"),
        ("path,score\n0.jpg,1\n0.jpg,2\n", {"label_type": "float"}, r"rows 2 and 3 have one file and different values"),
        ("path,a,b\n0.jpg,-1,1\n1.jpg,0,1\n", {"label_type": "multi"}, r"-1, 0 and 1, so -1 may mean uncertain"),
        ("0.jpg a\n1.jpg b\n", {"features": ("2",)}, r"has no header\. Add one"),
    ],
)
def test_faults(images: Path, text: str, options: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        opened(images, text, **{"label_type": "single", **options})


@pytest.mark.parametrize("label_type", ["multi", "float"])
def test_a_folder_has_no_such_labels(images: Path, label_type: str) -> None:
    with pytest.raises(UsageError, match=r"gives each image one class\. .*--table=PATH"):
        open_source(str(images), label_type=label_type)
    with pytest.raises(UsageError, match=r"--features=age are columns of a table"):
        open_source(str(images), features=("age",))


def test_images_are_dealt_by_their_rarest_label(tmp_path: Path, write_picture: Callable[..., None]) -> None:
    lines = ["path,labels"]
    for number in range(18):
        write_picture(tmp_path / f"{number}.png", number)
        lines.append(f"{number}.png,all{'|rare' if number % 6 == 0 else ''}")
    (tmp_path / "t.csv").write_text("\n".join(lines))
    given: dict[str, Any] = {"table": str(tmp_path / "t.csv"), "label_type": "multi", "image_size": 8}
    given |= {"copies": "ignore", "num_workers": 1, "data_dir": tmp_path / "data"}
    summary = convert(ConvertConfig(**given, folds=3, name="folds"))
    layout, manifest = Layout.load(summary.dataset_dir), read_manifest(summary.dataset_dir)
    assert count_classes(summary.dataset_dir, layout, manifest).tolist() == [[6, 6, 6], [1, 1, 1], [0, 0, 0]]
    assert summary.warnings[-1].endswith("farthest off within a class: all, 33.3% in fold1")
    lost = convert(ConvertConfig(**given, splits="train=0.9,test=0.1", name="two"))
    assert lost.warnings == ("class 'rare' has no image in split 'test' (3 in total)",)


@pytest.mark.parametrize(
    ("column", "cells", "splits", "said"),
    [
        ("split", "Train TEST val", "train test validation", "; splits Train (as train), val (as validation), TEST"),
        ("set", "train dev val", "train dev val", ""),
        ("split", "train a b", "train a b", ""),
        ("is_valid", "False True 0", "train validation train", "; splits False (as train), True (as validation)"),
        ("is_test", "0 1 1", "train test test", "; splits 0 (as train), 1 (as test)"),
        ("IsTrain", "1 1 0", "train train test", "; splits 1 (as train), 0 (as test)"),
    ],
)
def test_splits_have_the_names_that_other_commands_know(
    images: Path, column: str, cells: str, splits: str, said: str
) -> None:
    rows = enumerate(cells.split())
    text = f"path,label,{column}\n" + "".join(f"{number}.jpg,{'ab'[number % 2]},{cell}\n" for number, cell in rows)
    for label_type in ("single", "multi"):
        source = opened(images, text, label_type)
        assert source.splits == splits.split()
        assert said in source.form
        assert source.class_names == ("a", "b")


def test_labels_of_a_single_class_that_may_be_several_or_numbers_are_noted(images: Path) -> None:
    several = "may be several, and count as one; --label_type=multi divides them"
    for cells, note in (
        (("cat;dog", "cat"), f"labels such as 'cat;dog' {several}"),
        (('"a,b"', "a", "b"), f"labels such as 'a,b' {several}"),
        (("0.5", "2"), "numbers such as 0.5 count as classes; --label_type=float stores them as numbers"),
    ):
        text = "path,label\n" + "".join(f"{number}.jpg,{cell}\n" for number, cell in enumerate(cells))
        assert opened(images, text, "single").notes == (note,)
    assert not opened(images, 'path,label\n0.jpg,"Bird, small"\n1.jpg,"Dog, big"\n', "single").notes
    assert not opened(images, "path,label\n0.jpg,1\n1.jpg,2.0\n", "single").notes
    assert opened(images, '"0.jpg" 3\n"1.jpg" 2\n', "single", "a.txt").paths == ["0.jpg", "1.jpg"]


@pytest.mark.parametrize(
    ("start", "what"), [(b"PK\3\4", "an Excel workbook, or a zip"), (b"\x1f\x8b\x08", "compressed")]
)
def test_files_that_are_no_tables(images: Path, start: bytes, what: str) -> None:
    (images / "t.csv").write_bytes(start + bytes(20))
    with pytest.raises(UsageError, match=rf"t\.csv is {what}.*\. Save the table as CSV\."):
        open_source("", table=str(images / "t.csv"))
    with pytest.raises(UsageError, match=r"the column of splits has 'maybe', not 0 or 1"):
        lines = "".join(f"{number}.jpg,a,0\n" for number in range(60))
        opened(images, f"path,label,is_valid\n{lines}x.jpg,a,maybe\n", "single")


def test_groups_that_look_the_same_or_missing_are_noted(images: Path) -> None:
    text = "path,label,patient\n0.jpg,a,P1\n1.jpg,b,p1\n2.jpg,a,NA\n3.jpg,b,\n"
    assert opened(images, text, "single", group_column="patient").notes == (
        "groups whose names look the same are different groups: 'P1' and 'p1' (case); rename them to make them one",
        "NA: a group, like other words; leave the cells empty if the group is missing",
    )


def test_cells_of_any_length_and_numbers_of_labels(images: Path) -> None:
    source = opened(images, f"path,label,mask\n0.jpg,a,{'1 0 ' * 50_000}\n", "single", features=("mask:text",))
    assert source.values is not None
    assert len(source.values.values[0][0]) == 200_000
    for label_type, text in (("multi", ";".join(map(str, range(20_000)))), ("float", "1 " * 20_000)):
        values = opened(images, f"path,label\n0.jpg,{text}\n", label_type).values
        assert values is not None
        with pytest.raises(UsageError, match=r"an image has 20,000 \w+, and more than 16,384 cannot .*--features"):
            values.schema()
