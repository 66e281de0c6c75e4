"""Tars in WebDataset form: pictures and the labels beside them."""

from __future__ import annotations

import io
import itertools
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fsspec
import pytest

from tfrecords.base_errors import UsageError
from tfrecords.convert.sources import Source, open_source
from tfrecords.format.quarantine import Reason


def pack(path: Path, files: Mapping[str, bytes]) -> str:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return str(path)


def read_all(source: Source) -> list[bytes]:
    assert source.places is not None
    places = [tuple(place) for place in source.places.tolist()]
    return [source.files.read(source.paths[id], places[id]) for id in source.usable().tolist()]


def names(source: Source) -> dict[str, str]:
    return {source.paths[id]: source.class_names[source.labels[id]] for id in source.usable().tolist()}


def details(source: Source) -> dict[str, str]:
    assert {refusal.reason for refusal in source.refused.values()} <= {Reason.NO_CLASS_FOLDER}
    return {source.paths[id]: refusal.detail for id, refusal in source.refused.items()}


def test_numbers_of_classes(tmp_path: Path) -> None:
    files = {}
    for number, label in enumerate([b"10", b"9\n", b" 0 ", b"10"]):
        files |= {f"{number:06d}.jpg": b"picture %d" % number, f"{number:06d}.cls": label}
    source = open_source(pack(tmp_path / "a.tar", files))
    assert source.class_names == ("0", "9", "10")
    assert source.labels.tolist() == [2, 1, 0, 2]
    assert source.paths == ["000000.jpg", "000001.jpg", "000002.jpg", "000003.jpg"]
    assert read_all(source) == [b"picture 0", b"picture 1", b"picture 2", b"picture 3"]
    assert source.sizes.tolist() == [9] * 4
    assert source.stamps.tolist() == [(tmp_path / "a.tar").stat().st_mtime_ns] * 4
    assert (source.refused, source.splits, source.notes) == ({}, None, ())


def test_names_of_classes_and_objects_with_a_label(tmp_path: Path) -> None:
    files = {
        "a/1.png": b"", "a/1.txt": "벌 나비\n".encode(),
        "a/2.JPG": b"", "a/2.json": json.dumps({"label": "ant", "width": [1, 2]}).encode(),
        "a/3.webp": b"", "a/3.json": b'{"class": 7}',
    }  # fmt: skip
    source = open_source(pack(tmp_path / "a.tar", files))
    assert names(source) == {"a/1.png": "벌 나비", "a/2.JPG": "ant", "a/3.webp": "7"}


def test_the_surer_label_is_believed(tmp_path: Path) -> None:
    """A text is often a caption."""
    labels = {"1.txt": b"a dog on a beach", "1.json": b'{"label": 3}', "1.cls": b"5"}
    for order in itertools.permutations(labels):
        source = open_source(pack(tmp_path / "a.tar", {"1.jpg": b""} | {name: labels[name] for name in order}))
        assert names(source) == {"1.jpg": "5"}
    source = open_source(pack(tmp_path / "a.tar", {"1.jpg": b"", "1.txt": b"a dog", "1.json": b'{"label": 3}'}))
    assert names(source) == {"1.jpg": "3"}
    source = open_source(pack(tmp_path / "a.tar", {"1.jpg": b"", "1.txt": b"a dog", "1.json": b'{"caption": "x"}'}))
    assert names(source) == {"1.jpg": "a dog"}


@pytest.mark.parametrize("where", ["classes.txt", "labels.txt", "beside"])
def test_a_list_of_classes(tmp_path: Path, where: str) -> None:
    listed = "\ufeffcat\r\ndog\r\nbee\r\n\r\n".encode()
    files = {"1.jpg": b"", "1.cls": b"2", "2.jpg": b"", "2.json": b'{"label": 0}', "3.jpg": b"", "3.cls": b"3"}
    if where == "beside":
        (tmp_path / "classes.txt").write_bytes(listed)
    else:
        files[where] = listed
    source = open_source(pack(tmp_path / "a.tar", files))
    assert source.class_names == ("cat", "dog", "bee")  # also the class without pictures: the numbers count them
    assert names(source) == {"1.jpg": "bee", "2.jpg": "cat"}
    (detail,) = details(source).values()
    assert detail.startswith("its label is 3, and ")
    assert detail.endswith(" has 3 classes, from 0")


def test_a_line_of_a_list_ends_at_a_line_break_only(tmp_path: Path) -> None:
    files = {"1.jpg": b"", "1.cls": b"1", "classes.txt": "a\u2028b\nc\x0bd\r\n".encode(), "2.jpg": b"", "2.cls": b"0"}
    source = open_source(pack(tmp_path / "a.tar", files))
    assert source.class_names == ("a\u2028b", "c\x0bd")
    assert names(source) == {"1.jpg": "c\x0bd", "2.jpg": "a\u2028b"}


def test_several_tars(tmp_path: Path) -> None:
    for shard in range(3):
        pack(tmp_path / f"s-{shard:02d}.tar", {"1.jpg": b"%d" % shard, "1.cls": b"%d" % shard})
    source = open_source(f"{tmp_path}/s-{{00..02}}.tar")
    assert source.paths == ["s-00.tar/1.jpg", "s-01.tar/1.jpg", "s-02.tar/1.jpg"]
    assert read_all(source) == [b"0", b"1", b"2"]
    pack(tmp_path / "test" / "s-00.tar", {"1.jpg": b"t", "1.cls": b"0"})
    source = open_source(f"{tmp_path}/{{,test/}}s-00.tar")
    assert source.paths == ["s-00.tar/1.jpg", "test/s-00.tar/1.jpg"]
    assert read_all(source) == [b"0", b"t"]


def test_members_need_not_lie_side_by_side(tmp_path: Path) -> None:
    files = {"2.cls": b"2", "1.jpg": b"one", "2.jpg": b"two", "1.cls": b"1"}
    assert names(open_source(pack(tmp_path / "a.tar", files))) == {"1.jpg": "1", "2.jpg": "2"}


def test_masks_and_other_parts_are_left_out(tmp_path: Path) -> None:
    files = {
        "1.seg.png": b"mask",
        "1.jpg": b"picture",
        "1.cls": b"0",
        "1.npy": b"",
        "__key__": b"",
        "README.txt": b"read",
    }
    source = open_source(pack(tmp_path / "a.tar", files))
    assert source.paths == ["1.jpg"]
    assert source.notes == ("1 labels have no image: README.txt",)


def test_a_picture_with_more_than_one_suffix(tmp_path: Path) -> None:
    assert open_source(pack(tmp_path / "a.tar", {"1.input.jpg": b"", "1.cls": b"0"})).paths == ["1.input.jpg"]


def test_two_pictures_in_a_sample(tmp_path: Path) -> None:
    files = {"1.jpg": b"", "1.png": b"", "1.cls": b"0"}
    with pytest.raises(UsageError, match=r"1\.png is not the only image of its sample\. Keep one, or give them names"):
        open_source(pack(tmp_path / "a.tar", files))
    folders = {"cat/1.jpg": b"", "cat/1.png": b"", "dog/1.jpg": b""}
    assert len(open_source(pack(tmp_path / "a.tar", folders)).paths) == 3


@pytest.mark.parametrize(
    ("name", "content"),
    [("2.cls", b"1,2"), ("2.cls", b"1 2"), ("2.json", b'{"label": [1, 2]}'), ("2.json", b'{"label": ["a"]}')],
)
def test_several_labels_are_refused(tmp_path: Path, name: str, content: bytes) -> None:
    files = {"1.jpg": b"", "1.cls": b"0", "2.jpg": b"", name: content}
    with pytest.raises(
        UsageError, match=rf"{name} has several labels\. .*multi-label is not supported\. Keep one label"
    ):
        open_source(pack(tmp_path / "a.tar", files))


@pytest.mark.parametrize(
    ("name", "content", "detail"),
    [
        ("2.cls", b"cat", "2.cls should contain the number of a class, not 'cat'"),
        ("2.cls", b"", "2.cls should contain the number of a class, not ''"),
        ("2.cls", b"-1", "2.cls should contain the number of a class, not '-1'"),
        ("2.txt", b"", "2.txt should contain the name of a class, not ''"),
        ("2.txt", b"two\nlines", r"2.txt should contain the name of a class, not 'two\nlines'"),
        ("2.txt", b"x" * 201, "2.txt should contain the name of a class, not 'xxxx"),
        ("2.json", b"{", "2.json is not valid JSON: "),
        ("2.json", b"\xff\xfe", "2.json is not valid JSON: "),
        ("2.json", b"[1]", "there is no .cls, .json or .txt with a label beside it"),
        ("2.json", b'{"label": 1.5}', "2.json should have a name or a number as its label, not 1.5"),
        ("2.json", b'{"label": "\\ud800"}', r"2.json should have a name or a number as its label, not '\ud800'"),
        ("2.dat", b"1", "there is no .cls, .json or .txt with a label beside it"),
    ],
)
def test_pictures_without_a_usable_label_are_refused(tmp_path: Path, name: str, content: bytes, detail: str) -> None:
    files = {"1.jpg": b"", "1.cls": b"0", "2.jpg": b"", name: content}
    source = open_source(pack(tmp_path / "a.tar", files))
    assert source.usable().tolist() == [0]
    assert details(source)["2.jpg"].startswith(detail)
    assert source.labels.tolist() == [0, -1]


def test_categories_choose_and_order(tmp_path: Path) -> None:
    files = {"classes.txt": b"cat\ndog\nbee"}
    for number in range(4):
        files |= {f"{number}.jpg": b"", f"{number}.cls": b"%d" % (number % 3)}
    source = open_source(pack(tmp_path / "a.tar", files), categories=("bee", "cat"))
    assert source.class_names == ("bee", "cat")
    assert names(source) == {"0.jpg": "cat", "2.jpg": "bee", "3.jpg": "cat"}
    with pytest.raises(UsageError, match=r"has no class 'be'\. Did you mean 'bee'\?"):
        open_source(str(tmp_path / "a.tar"), categories=("be",))


def test_texts_beside_pictures_in_class_folders_are_labels(tmp_path: Path) -> None:
    """The form is told by whether labels lie beside pictures, not by folders."""
    source = open_source(pack(tmp_path / "a.tar", {"x/1.jpg": b"", "x/1.cls": b"4", "y/1.jpg": b"", "y/1.cls": b"5"}))
    assert names(source) == {"x/1.jpg": "4", "y/1.jpg": "5"}


def test_members_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, kind in (("1.jpg", tarfile.REGTYPE), ("2.jpg", tarfile.SYMTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "1.jpg"
            tar.addfile(info)
            label = tarfile.TarInfo(f"{name[0]}.cls")
            label.size = 1
            tar.addfile(label, io.BytesIO(b"3"))
    source = open_source(str(tmp_path / "a.tar"))
    assert {source.paths[id]: refusal.reason for id, refusal in source.refused.items()} == {"2.jpg": Reason.NOT_A_FILE}


def test_a_list_of_classes_that_cannot_be_read(tmp_path: Path) -> None:
    """Without it the classes would be numbers. One that does not exist is no error."""
    tar = pack(tmp_path / "a.tar", {"1.jpg": b"", "1.cls": b"0"})
    assert open_source(tar).class_names == ("0",)
    (tmp_path / "labels.txt").mkdir()
    with pytest.raises(UsageError, match=r"labels\.txt cannot be read: Is a directory\. Make it readable, or move"):
        open_source(tar)


def test_a_list_of_classes_that_a_bucket_forbids_to_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """S3 answers 403 for an object that is missing, unless one may list the bucket."""
    memory = fsspec.filesystem("memory")
    memory.pipe("/wds/a.tar", Path(pack(tmp_path / "a.tar", {"1.jpg": b"", "1.cls": b"0"})).read_bytes())
    assert open_source("memory://wds/a.tar").class_names == ("0",)
    info = type(memory).info

    def fail(driver: Any, path: str, **options: Any) -> Any:
        if path.endswith("classes.txt"):
            raise PermissionError("Access Denied")
        return info(driver, path, **options)

    monkeypatch.setattr(type(memory), "info", fail)
    assert open_source("memory://wds/a.tar").class_names == ("0",)
    memory.store.clear()


@pytest.mark.parametrize("encoding", ["", "cp949"])
def test_names_of_samples_that_are_not_utf8(tmp_path: Path, encoding: str) -> None:
    korean = ["고양이", "강아지", "나비", "사과"]
    for number in range(2):
        with tarfile.open(tmp_path / f"사진-{number}.tar", "w", format=tarfile.USTAR_FORMAT, encoding="cp949") as tar:
            for name in korean:
                tar.addfile(tarfile.TarInfo(f"{name}.jpg"), io.BytesIO())
                label = tarfile.TarInfo(f"{name}.cls")
                label.size = 1
                tar.addfile(label, io.BytesIO(b"0"))
    source = open_source(str(tmp_path / "*.tar"), zip_encoding=encoding)
    assert source.paths == [f"사진-{number}.tar/{name}.jpg" for number in range(2) for name in korean]
    assert (source.class_names, bool(source.notes)) == (("0",), not encoding)
    assert open_source(str(tmp_path / "*0.tar"), zip_encoding=encoding).paths == [f"{name}.jpg" for name in korean]
