"""Lists of paths to leave out: their forms, their spellings, and what is told."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from tfrecords.base_errors import UsageError
from tfrecords.convert.engine import convert
from tfrecords.convert.plan.convert_config import ConvertConfig
from tfrecords.convert.sources import Selection, open_source
from tfrecords.convert.sources.excluded_paths import ExcludedPaths

PLAN = {"groups": [{"keep": {"path": "b/9.jpg"}, "remove": [{"path": "a/1.jpg"}], "questions": [{"path": "b/8.jpg"}]}]}
EVENTS = [
    {"decision": decision, "images": [{"sha256": "0", "path": path}], "finding": {"kind": kind}}
    for decision, path, kind in (
        ("drop", "a/1.jpg", "blurred"),
        ("right", "a/1.jpg", "dark"),
        ("drop", "b/9.jpg", "dark"),
        ("undone", "b/9.jpg", "dark"),
        ("relabel", "b/8.jpg", "label"),
    )
]
ROWS = [{"path": "a/1.jpg", "decision": "drop"}, {"path": "b/9.jpg", "decision": "right"}, {"path": "", "decision": ""}]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Images of two classes."""
    folder = tmp_path / "photos"
    for name in ("a/1.png", "a/2.png", "a/old/3.png", "b/1.png", "b/caf\u00e9.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (len(name), 0, 0)).save(folder / name)
    return folder


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.txt", "a/1.jpg\n"),
        ("list", "\ufeff# those that are blurred\r\n\r\na/1.jpg\r\n"),
        ("list.txt", "  a/1.jpg  "),
        ("list.csv", "id,path,why\n7,a/1.jpg,blurred\n"),
        ("list.csv", "\nfilename;why\na/1.jpg;blurred\n"),
        ("audit.csv", 'path,kind,decision\na/1.jpg,dark,Drop\nb/9.jpg,dark,\nb/8.jpg,"x,y",right\n,class,drop\n'),
        ("list.tsv", "label\tPath\nx\ta/1.jpg\n"),
        ("list.json", '["a/1.jpg"]'),
        ("list.json", '[{"path": "a/1.jpg", "label": "a"}]'),
        ("audit.json", json.dumps({"counts": {}, "findings": [{"path": "a/1.jpg"}, {"path": ""}]})),
        ("decisions.jsonl", "\n".join(map(json.dumps, EVENTS))),
        ("decisions.jsonl", "\n".join(map(json.dumps, [{"format": "simimg-decisions/1"}, *EVENTS]))),
        ("audit.csv", "path,decision\na/1.jpg,\n"),
        ("decisions.json", json.dumps({"decisions": ROWS})),
        ("quarantine.jsonl", '{"path": "a/1.jpg", "reason": "truncated"}\n\n'),
        ("plan.json", json.dumps(PLAN)),
    ],
)
def test_forms(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_bytes(content.encode())
    listed = ExcludedPaths(str(tmp_path / name))
    left = [path for path in ("a/1.jpg", "b/9.jpg", "b/8.jpg", "a/1.jpg.jpg") if not listed.has([path])]
    assert left == ["b/9.jpg", "b/8.jpg", "a/1.jpg.jpg"]
    kept = [note for note in listed.notes() if "another decision than drop" in note]
    assert [note for note in listed.notes() if note not in kept] == [
        f"1 file is left out by --exclude_from={tmp_path / name}"
    ]
    assert len(kept) == ("right" in content)


def test_a_decision_replaces_an_earlier_one_whatever_the_reasons_are(tmp_path: Path) -> None:
    """A second audit says the same of an image with other figures."""
    images = [{"sha256": "0", "path": "a/1.jpg"}]
    finding = {"kind": "label", "label": "a", "split": "train"}
    events = [
        {"decision": "drop", "images": images, "finding": finding | {"reason": "b fits with 96%"}},
        {"decision": "relabel", "images": images, "finding": finding | {"reason": "b fits with 95%", "new_label": "b"}},
    ]
    (tmp_path / "decisions.jsonl").write_text("\n".join(map(json.dumps, events)))
    assert not ExcludedPaths(str(tmp_path / "decisions.jsonl")).has(["a/1.jpg"])


@pytest.mark.parametrize(
    ("written", "path"),
    [
        (".\\a\\1.jpg", "a/1.jpg"),
        ("a//./1.jpg", "a/1.jpg"),
        ("cafe\u0301/1.jpg", "caf\u00e9/1.jpg"),
        ("caf\u00e9/1.jpg", "cafe\u0301/1.jpg"),
        ("a/1", "a/1.jpeg"),
        ("a/", "a/b/1.jpg"),
        ("a/1, 2.jpg", "a/1, 2.jpg"),
        ("back\\slash.jpg", "back\\slash.jpg"),
        ("a/ 1.jpg", "a/ 1.jpg"),
        ("#1.jpg", "#1.jpg"),
        ("s3://bucket/a/1.jpg", "s3://bucket/a/1.jpg"),
        ("caf\\xe9.jpg", "caf\udce9.jpg"),
    ],
)
def test_spellings(tmp_path: Path, written: str, path: str) -> None:
    (tmp_path / "list.txt").write_text(written + "\n")
    listed = ExcludedPaths(str(tmp_path / "list.txt"))
    assert listed.has([path])
    assert not listed.has(["c/1.jpg"])
    assert [note for note in listed.notes() if "match" in note] == []


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("list.json", "[1]", "has no list of paths"),
        ("list.json", "{}", "has no list of paths"),
        ("plan.json", '{"groups": [{"remove": "a/1.jpg"}]}', "has no list of paths"),
        ("list.json", "[", "is not valid JSON"),
        ("list.json", '[{"name": "a/1.jpg"}]', "have no `path`"),
        ("list.txt", "a\0b", "is no text"),
        ("", "", "cannot be read"),
    ],
)
def test_lists_that_cannot_be_read(tmp_path: Path, name: str, content: str, words: str) -> None:
    if name:
        (tmp_path / name).write_text(content)
    with pytest.raises(UsageError, match=words) as error:
        Selection(exclude_from=str(tmp_path / name))
    assert f"--exclude_from={tmp_path / name}" in str(error.value)


def test_of_a_folder(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Absolute paths, those relative to the working folder, folders, and paths that no file has."""
    monkeypatch.chdir(tmp_path)
    lines = [str(photos / "a/1.png"), "photos/b/cafe\u0301.png", "a/old", "b/7.png", "b/8.png", "# a comment"]
    Path("list.txt").write_text("\n".join(lines))
    source = open_source("photos", exclude_from="list.txt")
    assert list(source.paths) == ["a/2.png", "b/1.png"]
    notes = [note for note in source.notes if "--exclude_from" in note]
    assert notes == [
        "3 files are left out by --exclude_from=list.txt",
        "2 paths of --exclude_from=list.txt match no file, e.g. b/7.png",
    ]
    assert list(open_source("photos", exclude_from="list.txt", include=["b/"]).paths) == ["b/1.png"]
    Path("link").symlink_to("photos")
    for folder, listed in (("link", photos), ("photos", tmp_path / "link")):  # one of both leads through it
        Path("linked.txt").write_text(f"{listed}/a/1.png\n{listed}/b\n")
        assert list(open_source(folder, exclude_from="linked.txt").paths) == ["a/2.png", "a/old/3.png"]
    Path("all.txt").write_text("a\nb\n")
    with pytest.raises(UsageError, match=r"5 files are left out by --exclude_from=all\.txt\. Change --exclude_from"):
        open_source("photos", exclude_from="all.txt")
    Path("empty.txt").write_text("\n")
    assert "--exclude_from=empty.txt names no path" in open_source("photos", exclude_from="empty.txt").notes


def test_of_archives_and_tables(photos: Path, tmp_path: Path) -> None:
    """With and without the folders around all classes; a table's paths as they are written."""
    with tarfile.open(tmp_path / "photos.tar", "w") as tar:
        tar.add(photos, "photos")
    listed = tmp_path / "list.txt"
    for lines in ("a/1.png\nb/1.png", "photos/a/1.png\nphotos/b/1.png"):
        listed.write_text(lines)
        source = open_source(str(tmp_path / "photos.tar"), exclude_from=str(listed))
        assert [path.removeprefix("photos/") for path in source.paths] == ["a/2.png", "a/old/3.png", "b/caf\u00e9.png"]
        assert f"2 files are left out by --exclude_from={listed}" in source.notes
    table = photos / "labels.csv"
    table.write_text("path,label\na\\1.png,a\na/2.png,a\nb/1,b\n")
    listed.write_text(f"{photos}/b/1.png\na\\2.png\n")
    source = open_source("", table=str(table), exclude_from=str(listed))
    assert list(source.paths) == ["a/1.png"]
    assert f"2 files are left out by --exclude_from={listed}" in source.notes


def test_a_list_at_a_url(photos: Path, tmp_path: Path) -> None:
    """`file://` is a path, and every other URL is refused by name."""
    listed = tmp_path / "list.txt"
    listed.write_text("a/1.png\n")
    for name in (f"file://{listed}", str(Path(f"file://{listed}"))):
        assert "a/1.png" not in open_source(str(photos), exclude_from=name).paths
    for name in ("s3://bucket/list.txt", "s3:/bucket/list.txt"):
        with pytest.raises(UsageError, match="--exclude_from=s3://bucket/list.txt: this has to be a path"):
            open_source(str(photos), exclude_from=name)


def test_a_list_is_an_option_of_the_dataset(photos: Path, tmp_path: Path) -> None:
    """What it names counts, not where it lies or how it is written."""
    one, other = tmp_path / "one.txt", tmp_path / "other.json"
    one.write_text("a/1.png\nb/1.png\n")
    other.write_text(json.dumps(["b\\1.png", "./a/1.png"]))
    given = {"image_dir": str(photos), "data_dir": tmp_path / "data", "name": "d", "image_size": 8, "num_workers": 1}
    assert convert(ConvertConfig(**given, exclude_from=str(one))).num_examples == 3
    assert convert(ConvertConfig(**given, exclude_from=str(one))).num_converted == 0
    other.write_text(json.dumps(["b/1.png"]))
    with pytest.raises(UsageError, match="exclude_from"):
        convert(ConvertConfig(**given, exclude_from=str(other)))


def test_what_a_pattern_leaves_out_is_not_missed(tmp_path: Path) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text("old/1.jpg\nold/2.jpg\na.gif\n")
    selection = Selection(exclude=["old/", "*.gif"], exclude_from=str(listed))
    assert not selection.enters("old")
    assert [path for path in ("a.gif", "b.jpg") if selection.takes(path)] == ["b.jpg"]
    assert selection.notes() == ["2 files or folders are left out by --exclude"]
