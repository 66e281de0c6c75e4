"""Tables with several labels per image, with numbers, without labels, and with further columns."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from tfrecords.base_errors import UsageError
from tfrecords.convert.sources import open_source
from tfrecords.convert.sources.source import Source
from tfrecords.convert.sources.table_values import separator_of

HEAD = "path,labels\n"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for number in range(5):
        (tmp_path / f"{number}.jpg").write_bytes(b"x")
    return tmp_path


def opened(folder: Path, text: str, label_type: str = "multi", name: str = "t.csv", **options: Any) -> Source:
    (folder / name).write_text(text, encoding="utf-8")
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


def test_no_labels(images: Path) -> None:
    for text, name in (
        ("0.jpg\n1.jpg\n", "a.txt"),
        ("path\n0.jpg\n1.jpg\n", "b.csv"),
        ("path,label\n0.jpg,\n", "c.csv"),
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
    ("text", "options", "message"),
    [
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
