"""Label files as programs and competitions write them: each is recognized and said, or refused with what helps."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tfrecords.base_errors import UsageError
from tfrecords.convert.sources import Source, open_source


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for name in ("cat/1.jpg", "cat/2 b.jpg", "dog/3.jpg", "4.png", "5.jpeg", "6.jpg"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


def labels(source: Source) -> dict[str, str]:
    return {source.paths[id]: source.class_names[source.labels[id]] for id in source.usable().tolist()}


def opened(images: Path, tmp_path: Path, text: str | bytes, name: str = "t.csv", **flags: str) -> Source:
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return open_source(str(images), table=str(tmp_path / name), **flags)


FORMS = {
    "keras": ("filename,class\ncat/1.jpg,cat\ndog/3.jpg,dog\n", "filename, labels from class"),
    "timm": ("filename,label\ncat/1.jpg,cat\ndog/3.jpg,dog\n", "filename, labels from label"),
    "pandas": (",image_path,target\n0,cat/1.jpg,cat\n1,dog/3.jpg,dog\n", "image_path, labels from target"),
    "hugging face": ("file_name,label\ncat/1.jpg,cat\ndog/3.jpg,dog\n", "file_name, labels from label"),
    "ham10000": ("lesion_id,image_id,dx,age\n1,cat/1,cat,60\n2,dog/3,dog,50\n", "image_id, labels from dx"),
    "dog breeds": ("id,breed\ncat/1,cat\ndog/3,dog\n", "id, labels from breed"),
    "whales": ("Image,Id\ncat/1.jpg,cat\ndog/3.jpg,dog\n", "Image, labels from Id"),
    "signs": ("Filename;Width;ClassName\ncat/1.jpg;9;cat\ndog/3.jpg;9;dog\n", "Filename, labels from ClassName"),
    "two columns": ("photo_of,mood\ncat/1.jpg,cat\ndog/3.jpg,dog\n", "photo_of, labels from mood"),
    "windows": ("\ufefffilename;class\r\ncat\\1.jpg;cat\r\ndog\\3.jpg;dog\r\n", "filename, labels from class"),
    "excel": ("sep=;\r\nFile Name;Label\r\n.\\cat\\1.jpg;cat\r\ndog\\3.jpg;dog\r\n", "File Name, labels from Label"),
    "tabs": ("path\tlabel\ncat/1.jpg\tcat\ndog/3.jpg\tdog\n", "path, labels from label"),
    "comments": ("# made by hand\npath,label\ncat/1.jpg,cat\ndog/3.jpg,dog\n", "path, labels from label"),
    "spaces": ("path label\ncat/1.jpg cat\ndog/3.jpg dog\n", "path, labels from label"),
    "caffe": ("cat/1.jpg cat\ndog/3.jpg dog\n", "no header; paths from column 1, labels from column 2"),
    "no header": ("cat/1.jpg,cat\ndog/3.jpg,dog\n", "no header; paths from column 1, labels from column 2"),
    "label first": ("cat\tcat/1.jpg\ndog\tdog/3.jpg\n", "no header; paths from column 2, labels from column 1"),
    "vertex": ("TRAIN,cat/1.jpg,cat\nTEST,dog/3.jpg,dog\n", "no header; paths from column 2, labels from column 3"),
    "one-hot": ("image,cat,dog\ncat/1,1.0,0.0\ndog/3,0.0,1.0\n", "image, labels from the one-hot columns cat, dog"),
    "one-hot with more": (
        "id,size,cat,dog\ncat/1,300,1,0\ndog/3,200,0,1\n", "id, labels from the one-hot columns cat, dog",
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_forms(images: Path, tmp_path: Path, form: str) -> None:
    text, said = FORMS[form]
    source = opened(images, tmp_path, text)
    assert labels(source) == {"cat/1.jpg": "cat", "dog/3.jpg": "dog"}
    assert said in source.form
    assert source.form.endswith("; 2 classes (cat, dog)")
    assert source.splits == (["train", "test"] if form == "vertex" else None)


def test_lists_of_numbers(images: Path, tmp_path: Path) -> None:
    expected = {"cat/1.jpg": "3", "cat/2 b.jpg": "10", "dog/3.jpg": "3"}
    text = "cat/1.jpg 3\ncat/2 b.jpg 10\n\ndog/3.jpg 3\n"
    source = opened(images, tmp_path, text, "train.txt")
    assert (labels(source), source.class_names) == (expected, ("3", "10"))
    assert source.form.startswith("list with 3 files; no header; paths from column 1")
    text = "0\t3.000000\tcat/1.jpg\n1\t10.000000\tcat/2 b.jpg\n2\t3.000000\tdog/3.jpg\n"
    source = opened(images, tmp_path, text, "train.lst")
    assert (labels(source), source.class_names) == (expected, ("3", "10"))
    source = opened(images, tmp_path, "4 65\n5 970\n6 65\n", "val.txt")  # as ImageNet's, here without suffixes
    assert labels(source) == {"4.png": "65", "5.jpeg": "970", "6.jpg": "65"}
    assert "3 paths have no suffix, e.g. 4; it was added" in source.notes


def test_one_hot_columns_keep_their_order_and_are_checked(images: Path, tmp_path: Path) -> None:
    source = opened(images, tmp_path, "image,melanoma,acne\n4,0,1\n5,1,0\n6,0,0\n")
    assert source.class_names == ("melanoma", "acne")
    assert labels(source) == {"4.png": "acne", "5.jpeg": "melanoma"}
    assert source.refused[2].detail == "it has no label"
    with pytest.raises(UsageError, match=r"data row 2 has a 1 in a, b\. .*multi-label is not supported"):
        opened(images, tmp_path, "image,a,b\n4,0,1\n5,1,1\n")
    rows = "".join(f"cat/{number},0,1\n" for number in range(60))
    with pytest.raises(UsageError, match=r"row 62 has '7' in the one-hot column 'a', not 0 or 1.*--label_column="):
        opened(images, tmp_path, f"image,a,b\n{rows}5,7,0\n")


def test_columns_that_are_given(images: Path, tmp_path: Path) -> None:
    text = "foo,bar,baz\nx,4.png,a\ny,5.jpeg,b\n"
    for flags in (
        {"path_column": "bar", "label_column": "baz"},
        {"path_column": "2", "label_column": "3"},
        {"path_column": "BAR", "label_column": "3"},
    ):
        source = opened(images, tmp_path, text, **flags)
        assert labels(source) == {"4.png": "a", "5.jpeg": "b"}
    assert labels(opened(images, tmp_path, text, label_column="foo")) == {"4.png": "x", "5.jpeg": "y"}
    pets = "#Image CLASS-ID SPECIES\n4 1 2\n5 2 1\n"
    source = opened(images, tmp_path, pets, "list.txt", path_column="1", label_column="3")
    assert labels(source) == {"4.png": "2", "5.jpeg": "1"}
    assert labels(opened(images, tmp_path, "4,a\n5,b\n", path_column="1", label_column="2")) == {
        "4.png": "a", "5.jpeg": "b",
    }  # fmt: skip
    assert labels(opened(images, tmp_path, "path,labels\n4,a\n5,b\n", label_column="labels")) == {
        "4.png": "a", "5.jpeg": "b",
    }  # fmt: skip
    with pytest.raises(
        UsageError, match=r"--label_column=kind: --table=\S+ has no such column\. It has: foo, bar, baz"
    ):
        opened(images, tmp_path, text, label_column="kind")
    with pytest.raises(UsageError, match=r"--path_column=1 is a column of a table\. Give the table as --table=PATH"):
        open_source(str(images), path_column="1")


def test_parquet(images: Path, tmp_path: Path) -> None:
    columns = {"image_id": ["4", "5"], "a": [1, 0], "b": [0, 1], "box": [[1, 2], [3, 4]]}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    source = open_source(str(images), table=str(tmp_path / "t.parquet"))
    assert labels(source) == {"4.png": "a", "5.jpeg": "b"}
    assert source.form.startswith("parquet table with 2 files; paths from the column image_id")


REFUSED = {
    "lfw": ("2\t1\nAbel\t1\t4\nAbel\t1\tBo\t2\n", r"list of pairs for verification, such as that of LFW"),
    "pairs": ("4.png 5.jpeg 1\n4.png 6.jpg 0\n", r"has several paths per line, such as pairs for verification"),
    "only paths": ("cat/1.jpg\ndog/3.jpg\n", r"has paths but no labels: 'cat/1\.jpg'\. Give each line a path and a l"),
    "breeds": ("Abyssinian_1 1 1 1\nbeagle_2 2 2 1\n", r"several words per line.*--path_column=1 --label_column=2"),
    "several numbers": ("4.png 0 1 0\n5.jpeg 1 0 0\n", r"several words per line.*--path_column=1 --label_column=2"),
    "only labels": ("490\n361\n", r"has labels but no paths: '490'"),
    "boxes": ("4.png,1,2,3,4,cat\n", r"a line has 5 values beside the path.*--path_column=1 --label_column=2"),
    "several": ("image,species,genus\n4,a,b\n", r"several columns of labels\..*e\.g\. --label_column='species'"),
    "plural": ("image,labels\n4,a b\n", r"has labels in labels\..*--label_column='labels'"),
    "unknown": ("who,what,when\n4,a,1\n", r"no column of paths.*--path_column=NAME"),
    "no labels": ("image,width,height\n4.png,30,20\n", r"no column of labels.*--label_column=NAME"),
    "windows": ("path,label\nC:\\data\\cat\\1.jpg,cat\n", r"has absolute paths of Windows, e\.g\. C:/data/cat/1\.jpg"),
}  # fmt: skip


@pytest.mark.parametrize("form", REFUSED)
def test_what_is_refused_with_what_helps(images: Path, tmp_path: Path, form: str) -> None:
    text, message = REFUSED[form]
    with pytest.raises(UsageError, match=message):
        opened(images, tmp_path, text)


def test_files_that_lie_elsewhere(images: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=rf"its files are in {images / 'cat'}\. Give --image_dir={images / 'cat'}\."):
        opened(images, tmp_path, "id,label\n1,a\n2 b,b\n")
    with pytest.raises(UsageError, match=rf"its paths are relative to {images}\. Give --image_dir={images}\."):
        opened(images / "cat", tmp_path, "path,label\ncat/1.jpg,a\ncat/2 b.jpg,b\n")


def test_a_backslash_in_the_name_of_a_file_stays(tmp_path: Path) -> None:
    (tmp_path / "a\\1.jpg").write_bytes(b"")
    source = opened(tmp_path, tmp_path, "path,label\na\\1.jpg,x\n")
    assert (source.paths, source.notes) == (["a\\1.jpg"], ())


def test_paths_in_another_unicode_form(tmp_path: Path) -> None:
    for form, other in (("NFC", "NFD"), ("NFD", "NFC")):
        name, written = (unicodedata.normalize(each, f"고양이-{form}.jpg") for each in (form, other))
        (tmp_path / name).write_bytes(b"")
        assert opened(tmp_path, tmp_path, f"path,label\n{written},x\n").paths == [name]


def test_a_label_for_each_image_is_noted(tmp_path: Path) -> None:
    for number in range(12):
        (tmp_path / f"{number}.jpg").write_bytes(b"")
    text = "".join(f"{number} {number}.jpg\n" for number in range(12))  # as images.txt of CUB
    (note,) = opened(tmp_path, tmp_path, text).notes
    assert note == "each image has a label of its own, e.g. '0'; --label_column= names other labels"
