"""Tables of paths and labels."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfrecords.base_errors import UsageError
from tfrecords.convert.sources import Source, open_source
from tfrecords.format.quarantine import Reason


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Pictures in no order that would say what they show."""
    for name in ("1.jpg", "2.jpg", "sub/3", "a, b.jpg", "new\nline.jpg", "벌.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


def write(path: Path, text: str, encoding: str = "utf-8") -> str:
    path.write_bytes(text.encode(encoding, "surrogateescape"))
    return str(path)


def write_parquet(to: Path, /, **columns: Any) -> str:
    pq.write_table(pa.table(columns), to)
    return str(to)


def open_table(table: str, image_dir: str = "", **options: Any) -> Source:
    return open_source(image_dir, table=table, **options)


def names(source: Source) -> dict[str, str]:
    return {source.paths[id]: source.class_names[source.labels[id]] for id in source.usable().tolist()}


def test_paths_and_labels(photos: Path) -> None:
    source = open_table(write(photos / "t.csv", "path,label\n2.jpg,dog\nsub/3,cat\n1.jpg,dog\n"))
    assert source.location == str(photos / "t.csv")
    assert source.class_names == ("cat", "dog")
    assert source.paths == ["2.jpg", "sub/3", "1.jpg"]  # ids count the rows
    assert source.labels.tolist() == [1, 0, 1]
    assert source.sizes.tolist() == [5, 5, 5]
    status = (photos / "2.jpg").stat()
    assert source.stamps[0] == max(status.st_mtime_ns, status.st_ctime_ns)
    files = pickle.loads(pickle.dumps(source.files))
    assert [files.read(path, None) for path in source.paths] == [b"2.jpg", b"sub/3", b"1.jpg"]
    assert (source.places, source.splits, source.refused, source.notes) == (None, None, {}, ())


def test_paths_are_relative_to_the_image_dir_if_there_is_one(
    photos: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    table = write(tmp_path_factory.mktemp("tables") / "t.csv", f"path,label\n1.jpg,a\n{photos}/2.jpg,a\n")
    source = open_table(table, str(photos))
    assert source.paths == ["1.jpg", "2.jpg"]  # one spelling, wherever the pictures lie
    assert source.files.read("1.jpg", None) == b"1.jpg"
    source = open_table(table)
    assert source.paths == ["1.jpg", f"{photos}/2.jpg"]
    assert source.files.read(f"{photos}/2.jpg", None) == b"2.jpg"
    assert {source.paths[id]: refusal.reason for id, refusal in source.refused.items()} == {"1.jpg": Reason.UNREADABLE}


@pytest.mark.parametrize("name", ["path", "File", "FILENAME", " image "])
@pytest.mark.parametrize("label", ["label", "Class", "category"])
def test_names_of_the_columns(photos: Path, name: str, label: str) -> None:
    assert names(open_table(write(photos / "t.csv", f"x,{label},{name}\n,a,1.jpg\n"))) == {"1.jpg": "a"}


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("suffix", ["csv", "tsv", "txt"])
def test_separators(photos: Path, separator: str, suffix: str) -> None:
    text = f'path{separator}label\r\n1.jpg{separator}"a{separator} b"\r\n"a, b.jpg"{separator}c\r\n'
    assert names(open_table(write(photos / f"t.{suffix}", text))) == {
        "1.jpg": f"a{separator} b".strip(),
        "a, b.jpg": "c",
    }


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings(photos: Path, encoding: str) -> None:
    table = write(photos / "t.csv", 'path,label\n벌.png,벌 나비\n"new\nline.jpg",b\n', encoding)
    source = open_table(table)
    assert names(source) == {"벌.png": "벌 나비", "new\nline.jpg": "b"}
    assert source.files.read("new\nline.jpg", None) == b"new\nline.jpg"


def test_paths_that_are_no_utf8(photos: Path) -> None:
    with open(os.fsencode(photos) + b"/caf\xe9.jpg", "wb") as file:
        file.write(b"content")
    source = open_table(write(photos / "t.csv", "path,label\ncaf\udce9.jpg,a\n"))
    assert source.files.read(source.paths[0], None) == b"content"
    source = open_table(write_parquet(photos / "t.parquet", path=[b"caf\xe9.jpg"], label=["a"]))
    assert source.files.read(source.paths[0], None) == b"content"
    with pytest.raises(UsageError, match=r"the label in row 2 is not UTF-8\. Save the table as UTF-8"):
        open_table(write(photos / "t.csv", "path,label\n1.jpg,caf\udce9\n"))


def test_a_file_that_is_not_there_is_refused_and_its_row_kept(photos: Path) -> None:
    os.mkfifo(photos / "pipe")
    (photos / "link").symlink_to("nowhere")
    rows = ["1.jpg,a", "nowhere.jpg,b", "sub,a", "pipe,a", "link,a", "nul\0.jpg,a"]
    source = open_table(write(photos / "t.csv", "path,label\n" + "\n".join(rows)))
    assert source.paths == [row.partition(",")[0] for row in rows]
    assert {source.paths[id]: refusal.reason for id, refusal in source.refused.items()} == {
        "nowhere.jpg": Reason.UNREADABLE,
        "sub": Reason.NOT_A_FILE,
        "pipe": Reason.NOT_A_FILE,
        "link": Reason.BROKEN_LINK,
        "nul\0.jpg": Reason.UNREADABLE,
    }
    assert source.refused[1].detail == "No such file or directory"
    assert source.class_names == ("a", "b")


def test_rows_without_a_label_are_refused(photos: Path) -> None:
    source = open_table(write(photos / "t.csv", "path,label\n1.jpg,\n2.jpg, a \n"))
    assert {id: refusal.reason for id, refusal in source.refused.items()} == {0: Reason.NO_CLASS_FOLDER}
    assert (source.labels.tolist(), source.class_names) == ([-1, 0], ("a",))


def test_numbers_are_ordered_by_their_value(photos: Path) -> None:
    source = open_table(write(photos / "t.csv", "path,label\n1.jpg,10\n2.jpg,9\nsub/3,-1\n"))
    assert (source.class_names, source.labels.tolist()) == (("-1", "9", "10"), [2, 1, 0])


def test_the_same_path_twice(photos: Path) -> None:
    rows = f"path,label\n1.jpg,a\n./1.jpg,a\n2.jpg,b\n{photos}//1.jpg,a\n"
    source = open_table(write(photos / "t.csv", rows))
    assert source.paths == ["1.jpg", "2.jpg"]
    assert source.notes == ("2 rows repeat a file and its label; each file is used once: 1.jpg, 1.jpg",)
    with pytest.raises(
        UsageError, match=r"row 4 has '1\.jpg' as 'b', and row 2 as 'a'\. .*multi-label is not supported"
    ):
        open_table(write(photos / "t.csv", "path,label\n1.jpg,a\n2.jpg,b\n1.jpg,b\n"))


def test_splits(photos: Path) -> None:
    source = open_table(write(photos / "t.csv", "path,label,split\n1.jpg,a,train\n2.jpg,a, test\n"))
    assert source.splits == ["train", "test"]
    with pytest.raises(
        UsageError, match=r"'1\.jpg' is in split 'train' \(row 2\) and in split 'test' \(row 3\)\. Keep one"
    ):
        open_table(write(photos / "t.csv", "path,label,split\n1.jpg,a,train\n1.jpg,a,test\n"))
    with pytest.raises(UsageError, match=r"row 3 has no split"):
        open_table(write(photos / "t.csv", "path,label,split\n1.jpg,a,train\n2.jpg,a,\n"))


def test_categories_choose_and_order(photos: Path) -> None:
    table = write(photos / "t.csv", "path,label,split\n1.jpg,a,x\n2.jpg,b,y\nsub/3,c,z\nno,,x\n")
    source = open_table(table, categories=("c", "a"))
    assert (source.class_names, source.paths, source.splits) == (("c", "a"), ["1.jpg", "sub/3"], ["x", "z"])
    with pytest.raises(UsageError, match="has no class 'd'"):
        open_table(table, categories=("d",))


MULTI = r"multi-label is not supported\. Keep one label per image"


@pytest.mark.parametrize(
    ("header", "columns"),
    [
        ("path,label,category", "label, category"),
        ("path,labels", "labels"),
        ("path,label_1,label_2", "label_1, label_2"),
    ],
)
def test_several_label_columns_are_refused(photos: Path, header: str, columns: str) -> None:
    with pytest.raises(UsageError, match=rf"has labels in {columns}\. .*{MULTI}, in a column named label"):
        open_table(write(photos / "t.csv", f"{header}\n"))


def test_lists_of_labels_are_refused(photos: Path) -> None:
    with pytest.raises(UsageError, match=rf"row 2 has the labels \['a', 'b'\]\. .*{MULTI}"):
        open_table(write(photos / "t.csv", "path,label\n1.jpg,\"['a', 'b']\"\n"))
    for labels in (
        pa.array([["a", "b"]]),
        pa.array([["a"]], pa.large_list(pa.string())),
        pa.array([[1]], pa.list_(pa.int8(), 1)),
    ):
        with pytest.raises(UsageError, match=rf"column 'label' has lists \(.*list.*\)\. .*{MULTI}"):
            open_table(write_parquet(photos / "t.parquet", path=["1.jpg"], label=labels))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"has no column of paths \(path, file, filename, image\)\. It is empty"),
        ("one,a\ntwo,b\n", r"has no column of paths .*It has: one, a\. Name one path, or give it as --path_column="),
        (
            "path,x,z\n1.jpg,a,b\n",
            r"has no column of labels \(label, class, category\)\. It has: path, x, z\. Name one label, or give it ",
        ),
        ("path,file,label\n", r"has several columns of paths"),
        ("path,label\n1.jpg,a,b\n", r"line 2 has 3 cells, the header 2\. Quote cells"),
        ("path,label\n1.jpg\n", r"line 2 has 1 cells, the header 2"),
        ('path,label\n"1.jpg,a\n', r"is not valid CSV: unexpected end of data"),
        ("path,label\n,a\n", r"row 2 has no path"),
        ("path,label\n", r"has no image file that can be used \(0 files\)"),
        ("path,label\nno.jpg,a\n", r"\(1 files; the first was rejected: No such file or directory\)"),
        (
            'path,label\n1.jpg,"a\nb"\n',
            r"label 'a\\nb': a class name should not be blank or have a line break\. Rename the c",
        ),
    ],
)
def test_tables_that_are_none(photos: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=rf"--table=\S*t\.csv.*{message}"):
        open_table(write(photos / "t.csv", text))


def test_blank_lines_are_not_rows(photos: Path) -> None:
    assert open_table(write(photos / "t.csv", "path,label\n\n1.jpg,a\n , \n\n")).paths == ["1.jpg"]


def test_tables_and_folders_that_are_not_there(photos: Path) -> None:
    with pytest.raises(UsageError, match=r"--table=\S*nowhere\.csv cannot be opened: No such file"):
        open_table(f"{photos}/nowhere.csv")
    with pytest.raises(UsageError, match=r"cannot be opened: Is a directory"):
        open_table(str(photos))
    reading, writing = os.pipe()
    with pytest.raises(UsageError, match=r"is a pipe, but a table is read more than once\. Write it to a file first\."):
        open_table(f"/dev/fd/{reading}")
    os.close(reading)
    os.close(writing)
    table = write(photos / "t.csv", "path,label\n1.jpg,a\n")
    for image_dir, what in (("nowhere", "does not exist"), ("1.jpg", "is not a folder")):
        with pytest.raises(UsageError, match=rf"--image_dir=\S*{image_dir} {what}\. Name the folder that the paths"):
            open_table(table, f"{photos}/{image_dir}")


def test_parquet(photos: Path) -> None:
    table = write_parquet(
        photos / "t.anything",
        path=pa.array(["2.jpg", "1.jpg", "sub/3"]).dictionary_encode(),
        other=[[1], [2], [3]],
        Label=pa.array([10, None, 9], pa.int64()),
        split=["b", "a", "a"],
    )
    source = open_table(table)
    assert source.paths == ["2.jpg", "1.jpg", "sub/3"]
    assert (source.class_names, source.labels.tolist()) == (("9", "10"), [1, -1, 0])
    assert source.splits == ["b", "a", "a"]


def test_parquet_numbers_that_pandas_made_floats(photos: Path) -> None:
    table = write_parquet(photos / "t.parquet", path=["1.jpg", "2.jpg", "sub/3"], label=[10.0, float("nan"), 9.0])
    assert names(open_table(table)) == {"1.jpg": "10", "sub/3": "9"}


def test_parquet_of_several_batches(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tfrecords.convert.sources.parquet_rows._BATCH", 2)
    table = write_parquet(photos / "t.parquet", path=[f"{number}.jpg" for number in range(5)], label=list("ababa"))
    source = open_table(table)
    assert source.paths == [f"{number}.jpg" for number in range(5)]
    with pytest.raises(UsageError, match=r"row 5 has no path"):
        open_table(write_parquet(photos / "t.parquet", path=["1.jpg", "2.jpg", "3", "4", None], label=list("ababa")))


def test_parquet_that_is_none(photos: Path) -> None:
    (photos / "t.parquet").write_bytes(b"PAR1 and then something else PAR1")
    with pytest.raises(UsageError, match=r"t\.parquet is not a valid parquet file"):
        open_table(f"{photos}/t.parquet")
    picture = [{"bytes": b"", "path": "1.jpg"}]
    with pytest.raises(UsageError, match=r"column 'image' should have plain values, a path as text\. Received: struct"):
        open_table(write_parquet(photos / "t.parquet", image=picture, label=["a"]))
    with pytest.raises(UsageError, match=r"column 'path' should have plain values, a path as text\. Received: int64"):
        open_table(write_parquet(photos / "t.parquet", path=[1], label=["a"]))


CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8)


@given(
    st.dictionaries(CELLS.map(lambda name: f"x{name}".replace("/", "_")), CELLS, max_size=5), st.sampled_from(",;\t")
)
@settings(max_examples=100)
def test_what_the_csv_module_writes_is_read(rows: dict[str, str], separator: str) -> None:
    import csv
    import tempfile

    expected = {path: label.strip() for path, label in rows.items()}
    with tempfile.TemporaryDirectory() as folder:
        with open(f"{folder}/t.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, delimiter=separator)
            writer.writerows([("path", "label"), *rows.items()])
        for path in rows:
            Path(folder, path).touch()
        try:
            source = open_table(f"{folder}/t.csv")
        except UsageError as error:
            known = ("no image file that can be used", "a class name should not be blank", "has the labels")
            assert any(message in str(error) for message in known)
            return
    assert source.paths == list(rows)
    assert names(source) == {path: label for path, label in expected.items() if label}


def test_a_label_of_five_thousand_digits(photos: Path) -> None:
    digits = "7" * 5000
    source = open_table(write(photos / "t.csv", f"path,label\n1.jpg,{digits}\n2.jpg,8\n"))
    assert source.class_names == ("8", digits)


def test_a_split_that_is_not_utf8(photos: Path) -> None:
    with pytest.raises(UsageError, match=r"the split in row 2 is not UTF-8\. Save the table as UTF-8"):
        open_table(write(photos / "t.csv", "path,label,split\n1.jpg,a,caf\udce9\n"))


def test_a_path_that_no_system_has(photos: Path) -> None:
    with pytest.raises(UsageError, match=r"--table=.*cannot be opened: embedded null byte"):
        open_table(f"{photos}/a\0.csv")


def labels(source: Source) -> dict[str, str]:
    return {source.paths[id]: source.class_names[source.labels[id]] for id in range(len(source.paths))}


@pytest.mark.parametrize(
    "top", ["\n", " \n\t\n", "# made by hand\n\n", "\n# made\n\n", ",\n\n", "# a\n" * 70, "sep=,\n\n# a\n"]
)
@pytest.mark.parametrize("header", ["path,label\n", "sort of,thing\n", ""])
def test_blank_lines_and_comments_before_the_rows(photos: Path, top: str, header: str) -> None:
    source = open_table(write(photos / "t.csv", f"{top}{header}1.jpg,0\n2.jpg,1\n"))
    assert labels(source) == {"1.jpg": "0", "2.jpg": "1"}
    comments = [note for note in source.notes if "taken for" in note]
    assert len(comments) == ("#" in top)
    if "70" in top or len(top) > 200:
        assert comments == ["70 lines at the top are taken for comments, since # is in front: '# a'"]


@pytest.mark.parametrize("separator", [" ", ",", "\t"])
def test_a_name_may_begin_with_a_number_sign(tmp_path: Path, separator: str) -> None:
    for name in ("#1.png", "#a b/2.png", "3.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    text = "# a list of mine\n#1.png 0\n#a b/2.png 1\n3.png 0\n"
    if separator != " ":
        text = text.replace("png ", f"png{separator}")
    source = open_table(write(tmp_path / "t.txt", text))
    assert labels(source) == {"#1.png": "0", "#a b/2.png": "1", "3.png": "0"}
    assert source.notes == ("1 line at the top is taken for a comment, since # is in front: '# a list of mine'",)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ([1.0, 0.0], ["1", "0"]),
        ([1.0, 0.5], ["1.0", "0.5"]),
        ([-1.0, 2.0], ["-1", "2"]),
        (["1.0", "v1.0"], ["1.0", "v1.0"]),
        (["1.0", "2"], ["1.0", "2"]),
        (["2.00", "1.0"], ["2", "1"]),
        ([3, 1], ["3", "1"]),
    ],
)
@pytest.mark.parametrize("kind", ["csv", "list", "parquet"])
def test_whole_numbers_with_a_point(photos: Path, kind: str, written: list[Any], read: list[str]) -> None:
    if kind == "parquet":
        table = write_parquet(photos / "t.parquet", path=["1.jpg", "2.jpg"], label=written)
    else:
        between, header = (",", "path,label\n") if kind == "csv" else (" ", "")
        rows = "".join(f"{number}.jpg{between}{label}\n" for number, label in enumerate(written, 1))
        table = write(photos / "t.txt", header + rows)
    assert list(labels(open_table(table)).values()) == read


def test_a_missing_label_among_whole_numbers(photos: Path) -> None:
    for table in (
        write(photos / "t.csv", "path,label\n1.jpg,1.0\n2.jpg,\n"),
        write_parquet(photos / "t.parquet", path=["1.jpg", "2.jpg"], label=[1.0, None]),
    ):
        assert open_table(table).class_names == ("1",)


def test_a_path_without_a_suffix_that_fits_several_images_is_noted(photos: Path) -> None:
    for name in ("cat.jpg", "cat.png", "dog.jpg"):
        (photos / name).write_bytes(b"x")
    source = open_table(write(photos / "t.csv", "path,label\ncat,a\ndog,b\n"))
    assert source.paths == ["cat.jpg", "dog.jpg"]
    assert source.notes[-1].startswith(
        "1 path without a suffix fits several images, of which the first was taken, e.g."
    )
    assert "cat (cat.jpg, cat.png)" in source.notes[-1]
