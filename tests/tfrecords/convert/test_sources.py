"""What is found in a folder, in which order, and what is refused by its name or place."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfrecords.convert.quarantine import Reason
from tfrecords.convert.sources import SUFFIXES, Source, natural_key, printable, scan_folder, walk
from tfrecords.errors import UsageError

TEXT = st.text(alphabet="ab01٣².éB벌 _", max_size=8) | st.text(max_size=12)


def touch(*paths: Path, content: bytes = b"x") -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def paths_of(source: Source) -> list[str]:
    return [file.path for file in source.files]


@given(st.lists(TEXT, max_size=8), st.randoms())
@settings(deadline=None, max_examples=200)
def test_natural_order_is_total(texts: list[str], random: object) -> None:
    in_order = sorted(texts, key=natural_key)
    shuffled = list(texts)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert sorted(shuffled, key=natural_key) == in_order  # only one order is possible
    assert all((natural_key(a) == natural_key(b)) == (a == b) for a in texts for b in texts)


@given(st.text("ab_/", max_size=5), st.integers(0, 10**20), st.integers(0, 10**20), st.text("ab_", max_size=4))
@settings(deadline=None)
def test_natural_order_counts(before: str, a: int, b: int, after: str) -> None:
    keys = [natural_key(f"{before}{number}{after}") for number in (a, b)]
    assert (keys[0] < keys[1]) == (a < b)


def test_natural_order_of_names() -> None:
    expected = ["1.jpg", "2.jpg", "10.jpg", "image_2.jpg", "image_10.jpg", "image_b.jpg"]
    assert (
        sorted(["image_10.jpg", "10.jpg", "image_b.jpg", "2.jpg", "image_2.jpg", "1.jpg"], key=natural_key) == expected
    )
    assert sorted(["a01", "a1", "a001"], key=natural_key) == ["a001", "a01", "a1"]


def test_classes_and_files_in_natural_order(tmp_path: Path) -> None:
    touch(*(tmp_path / f"class_{c}" / f"image_{i}.jpg" for c in (10, 2, 1) for i in (10, 9, 1)))
    source = scan_folder(tmp_path)
    assert source.class_names == ("class_1", "class_2", "class_10")
    assert paths_of(source) == [f"class_{c}/image_{i}.jpg" for c in (1, 2, 10) for i in (1, 9, 10)]
    assert [file.id for file in source.files] == list(range(9))
    assert [file.label for file in source.files] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert source.usable() == list(source.files)


def test_order_does_not_depend_on_the_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(*(tmp_path / c / f"{i}.jpg" for c in "ab" for i in range(12)))
    before = scan_folder(tmp_path)
    scandir = os.scandir

    class Backwards:
        def __init__(self, path: Path) -> None:
            self.entries = scandir(path)

        def __enter__(self) -> list[os.DirEntry[str]]:
            return list(self.entries)[::-1]

        def __exit__(self, *_: object) -> None:
            self.entries.close()

    monkeypatch.setattr(os, "scandir", Backwards)
    assert scan_folder(tmp_path) == before


def test_hidden_and_desktop_files_are_not_looked_at(tmp_path: Path) -> None:
    touch(
        tmp_path / "a" / "1.jpg",
        tmp_path / "a" / ".2.jpg",
        tmp_path / "a" / "._1.jpg",
        tmp_path / "a" / "Thumbs.db",
        tmp_path / "a" / "desktop.ini",
        tmp_path / "a" / ".thumbnails" / "3.jpg",
        tmp_path / ".git" / "4.jpg",
        tmp_path / ".DS_Store",
    )
    source = scan_folder(tmp_path)
    assert source.class_names == ("a",)
    assert paths_of(source) == ["a/1.jpg"]


def test_categories_choose_and_order(tmp_path: Path) -> None:
    touch(*(tmp_path / c / "1.jpg" for c in ("ant", "bee", "cat")), tmp_path / "loose.txt")
    source = scan_folder(tmp_path, ("cat", "ant"))
    assert source.class_names == ("cat", "ant")
    assert [(file.path, file.label) for file in source.files] == [("cat/1.jpg", 0), ("ant/1.jpg", 1)]


def test_a_misspelt_category_names_the_near_one(tmp_path: Path) -> None:
    touch(*(tmp_path / c / "1.jpg" for c in ("butterfly", "bee")))
    with pytest.raises(UsageError, match=r"has no folder 'buterfly'\. Did you mean 'butterfly'\?"):
        scan_folder(tmp_path, ("bee", "buterfly"))
    with pytest.raises(UsageError, match=r"has no folder 'zebra'\. It has: bee, butterfly\."):
        scan_folder(tmp_path, ("zebra",))
    with pytest.raises(UsageError, match="has no folder"):
        scan_folder(tmp_path, ("..",))
    touch(tmp_path / "flat" / "1.jpg")
    with pytest.raises(UsageError, match=r"It has: no folders\."):
        scan_folder(tmp_path / "flat", ("ant",))


def test_a_flat_folder_is_one_class(tmp_path: Path) -> None:
    folder = tmp_path / "my photos"
    touch(folder / "10.jpg", folder / "2.png", folder / "notes.txt")
    (folder / "empty").mkdir()
    source = scan_folder(folder)
    assert source.class_names == ("my photos",)
    assert paths_of(source) == ["2.png", "10.jpg", "notes.txt"]
    assert [file.label for file in source.files] == [0, 0, 0]
    assert [file.refused for file in source.files] == [None, None, Reason.UNKNOWN_SUFFIX]


def test_nested_folders_belong_to_their_class(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "10" / "x.jpg", tmp_path / "a" / "2" / "deep" / "y.jpg", tmp_path / "a" / "z.jpg")
    source = scan_folder(tmp_path)
    assert source.class_names == ("a",)
    assert paths_of(source) == ["a/2/deep/y.jpg", "a/10/x.jpg", "a/z.jpg"]


def test_readme_beside_class_folders_is_refused(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "1.jpg", tmp_path / "README.md", tmp_path / "loose.jpg")
    source = scan_folder(tmp_path)
    assert source.class_names == ("a",)
    refused = {file.path: (file.label, file.refused) for file in source.files if file.refused}
    assert refused == {
        "README.md": (-1, Reason.NO_CLASS_FOLDER),
        "loose.jpg": (-1, Reason.NO_CLASS_FOLDER),
    }
    assert [file.path for file in source.usable()] == ["a/1.jpg"]


def test_folders_without_pictures_are_no_classes(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "1.jpg", tmp_path / "docs" / "manual.pdf")
    (tmp_path / "empty").mkdir()
    assert scan_folder(tmp_path).class_names == ("a",)
    assert scan_folder(tmp_path, ("empty", "a")).class_names == ("empty", "a")


@pytest.mark.parametrize("suffix", sorted(SUFFIXES))
def test_suffixes_in_any_case(tmp_path: Path, suffix: str) -> None:
    touch(tmp_path / "a" / f"1{suffix}", tmp_path / "a" / f"2{suffix.upper()}", tmp_path / "a" / f"3{suffix}.txt")
    assert [file.refused for file in scan_folder(tmp_path).files] == [None, None, Reason.UNKNOWN_SUFFIX]


def test_broken_links_are_refused(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "1.jpg")
    (tmp_path / "a" / "2.jpg").symlink_to("nowhere.jpg")
    (tmp_path / "a" / "3.jpg").symlink_to("3.jpg")
    (tmp_path / "self").symlink_to("self")
    source = scan_folder(tmp_path)
    assert {file.path: file.refused for file in source.files} == {
        "a/1.jpg": None,
        "a/2.jpg": Reason.UNREADABLE,
        "a/3.jpg": Reason.UNREADABLE,
        "self": Reason.NO_CLASS_FOLDER,
    }
    details = {file.path: file.detail for file in source.files}
    assert details["a/2.jpg"] == "No such file or directory"
    assert details["a/3.jpg"] == "Too many levels of symbolic links"


def test_links_are_followed_but_loops_are_not(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "1.jpg", tmp_path / "elsewhere" / "deep" / "2.jpg")
    (tmp_path / "a" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "a" / "up").symlink_to("..")
    (tmp_path / "elsewhere" / "again").symlink_to(tmp_path / "elsewhere")
    assert walk(tmp_path / "a") == ["1.jpg", "linked/deep/2.jpg", "up/elsewhere/deep/2.jpg"]
    assert scan_folder(tmp_path).class_names == ("a", "elsewhere")


def test_a_class_folder_may_be_a_link(tmp_path: Path) -> None:
    touch(tmp_path / "real" / "1.jpg")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a").symlink_to(tmp_path / "real")
    assert paths_of(scan_folder(tmp_path / "set")) == ["a/1.jpg"]


def test_a_named_pipe_is_refused(tmp_path: Path) -> None:
    """Reading it would wait for ever."""
    touch(tmp_path / "a" / "1.jpg")
    os.mkfifo(tmp_path / "a" / "2.jpg")
    files = scan_folder(tmp_path).files
    assert [file.refused for file in files] == [None, Reason.UNREADABLE]
    assert files[1].detail == "it is no regular file"


@pytest.mark.parametrize("name", ["two words", "벌과 나비", "새\u200b", "a'b\"c", "$HOME;rm", "%s{x}", "-rf", "é"])
def test_any_name(tmp_path: Path, name: str) -> None:
    touch(tmp_path / name / f"{name}.jpg")
    source = scan_folder(tmp_path, (name,))
    assert source.class_names == (name,)
    assert paths_of(source) == [f"{name}/{name}.jpg"]


def test_names_that_are_no_utf8(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(folder)
    with open(folder + b"/\xff\xfe.jpg", "wb") as file:
        file.write(b"x")
    source = scan_folder(tmp_path)
    assert source.class_names == ("caf\\xe9",)  # as it will stand in layout.json and label.labels.txt
    assert os.fsencode(source.files[0].path) == b"caf\xe9/\xff\xfe.jpg"  # as it can be opened
    assert printable(source.files[0].path) == "caf\\xe9/\\xff\\xfe.jpg"
    assert len(source.sha256()) == 64


@pytest.mark.parametrize("name", [" ", "a\nb", "a\rb"])
def test_names_that_a_list_of_labels_cannot_hold(tmp_path: Path, name: str) -> None:
    touch(tmp_path / name / "1.jpg")
    with pytest.raises(UsageError, match=re.escape(f"class folder {name!r}")):
        scan_folder(tmp_path)


def test_no_pictures(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        scan_folder(tmp_path / "nowhere")
    touch(tmp_path / "file")
    with pytest.raises(UsageError, match="is not a folder"):
        scan_folder(tmp_path / "file")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UsageError, match=r"has no image file \(0 other files\)"):
        scan_folder(empty)
    touch(empty / "a" / "notes.txt", empty / "README")
    with pytest.raises(UsageError, match=r"has no image file \(1 other files\)"):
        scan_folder(empty)
    with pytest.raises(UsageError, match=r"has no image file \(1 other files\)"):
        scan_folder(empty, ("a",))


def test_digest_changes_with_names_classes_and_sizes(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "1.jpg", tmp_path / "b" / "2.jpg")
    digests = [scan_folder(tmp_path).sha256()]
    assert scan_folder(tmp_path).sha256() == digests[0]
    digests.append(scan_folder(tmp_path, ("b", "a")).sha256())
    touch(tmp_path / "a" / "1.jpg", content=b"longer")
    digests.append(scan_folder(tmp_path).sha256())
    (tmp_path / "a" / "1.jpg").rename(tmp_path / "a" / "3.jpg")
    digests.append(scan_folder(tmp_path).sha256())
    touch(tmp_path / "README")
    digests.append(scan_folder(tmp_path).sha256())
    (tmp_path / "a").rename(tmp_path / "c")
    digests.append(scan_folder(tmp_path).sha256())
    assert len(set(digests)) == len(digests)


def test_digest_does_not_change_with_the_place(tmp_path: Path) -> None:
    touch(tmp_path / "x" / "a" / "1.jpg", tmp_path / "y" / "a" / "1.jpg")
    assert scan_folder(tmp_path / "x").sha256() == scan_folder(tmp_path / "y").sha256()
