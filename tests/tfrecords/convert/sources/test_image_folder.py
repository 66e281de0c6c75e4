"""A folder on this machine: what is found, in which order, what is refused, and reading it."""

from __future__ import annotations

import os
import pickle
import re
import socket
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfrecords.base_errors import UsageError
from tfrecords.convert.sources import SUFFIXES, Source, open_source, printable, walk
from tfrecords.convert.sources import image_folder as folder_module
from tfrecords.convert.sources.image_folder import FolderFiles
from tfrecords.convert.sources.source import stamp_of
from tfrecords.format.quarantine import Reason, Refusal


def touch(*paths: Path, content: bytes = b"x") -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def reasons(source: Source) -> dict[str, Reason]:
    return {source.paths[id]: refusal.reason for id, refusal in source.refused.items()}


def details(source: Source) -> dict[str, str]:
    return {source.paths[id]: refusal.detail for id, refusal in source.refused.items()}


def columns(source: Source) -> tuple[object, ...]:
    return source.class_names, source.paths, source.labels.tolist(), source.sizes.tolist(), reasons(source)


def test_classes_and_files_in_natural_order(tmp_path: Path) -> None:
    touch(*(tmp_path / f"class_{c}" / f"image_{i}.jpg" for c in (10, 2, 1) for i in (10, 9, 1)))
    source = open_source(str(tmp_path))
    assert source.location == str(tmp_path)
    assert source.class_names == ("class_1", "class_2", "class_10")
    assert source.paths == [f"class_{c}/image_{i}.jpg" for c in (1, 2, 10) for i in (1, 9, 10)]
    assert source.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert source.usable().tolist() == list(range(9))
    assert source.sizes.tolist() == [1] * 9
    assert (source.places, source.splits, source.notes) == (None, None, ())


def test_the_order_is_that_of_whole_paths(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "x 1" / "1.jpg", tmp_path / "a" / "x" / "2.jpg", tmp_path / "a" / "x" / "10.jpg")
    assert open_source(str(tmp_path)).paths == ["a/x 1/1.jpg", "a/x/2.jpg", "a/x/10.jpg"]


@given(st.integers(-(10**18), 3 * 10**18), st.integers(1, 3 * 10**18))
def test_a_stamp_is_the_later_time_or_changes_with_both(mtime: int, ctime: int) -> None:
    """An mtime after the ctime was set by hand, so that a later ctime would not show."""

    def stamp(mtime: int, ctime: int) -> int:
        return stamp_of(types.SimpleNamespace(st_mtime_ns=mtime, st_ctime_ns=ctime))  # type: ignore[arg-type]

    assert 0 < max(mtime, ctime) <= stamp(mtime, ctime) < 2**63
    assert stamp(mtime, ctime + 1) != stamp(mtime, ctime)
    assert stamp(mtime + 1, ctime) != stamp(mtime, ctime) or mtime < ctime
    assert stamp(mtime, ctime) == ctime or mtime > ctime


def test_a_stamp_of_a_time_in_the_far_future(tmp_path: Path) -> None:
    """The sum of the times passes 2^63 ns in the year 2206."""
    path = tmp_path / "a" / "1.jpg"
    touch(path)
    os.utime(path, ns=(8 * 10**18, 8 * 10**18))
    assert open_source(str(tmp_path)).stamps[0] > 0


def test_stamps_change_with_the_content(tmp_path: Path) -> None:
    path = tmp_path / "a" / "1.jpg"
    touch(path)
    before = open_source(str(tmp_path)).stamps.tolist()
    status = path.stat()
    assert before == [max(status.st_mtime_ns, status.st_ctime_ns)]
    (tmp_path / "new").write_bytes(b"y")
    os.utime(tmp_path / "new", ns=(status.st_atime_ns, status.st_mtime_ns))  # as rsync -t and cp -p do
    (tmp_path / "new").rename(path)
    assert open_source(str(tmp_path)).stamps.tolist() != before


def test_order_does_not_depend_on_the_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(*(tmp_path / c / f"{i}.jpg" for c in "ab" for i in range(12)), tmp_path / "README", tmp_path / "LICENSE")
    before = open_source(str(tmp_path))
    scandir = os.scandir

    class Backwards:
        def __init__(self, path: Path) -> None:
            self.entries = scandir(path)

        def __enter__(self) -> list[os.DirEntry[str]]:
            return list(self.entries)[::-1]

        def __exit__(self, *_: object) -> None:
            self.entries.close()

    monkeypatch.setattr(os, "scandir", Backwards)
    assert columns(open_source(str(tmp_path))) == columns(before)


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
    source = open_source(str(tmp_path))
    assert source.class_names == ("a",)
    assert source.paths == ["a/1.jpg"]


def test_categories_choose_and_order(tmp_path: Path) -> None:
    touch(*(tmp_path / c / "1.jpg" for c in ("ant", "bee", "cat")), tmp_path / "loose.txt")
    source = open_source(str(tmp_path), categories=("cat", "ant"))
    assert source.class_names == ("cat", "ant")
    assert source.paths == ["cat/1.jpg", "ant/1.jpg"]
    assert source.labels.tolist() == [0, 1]


def test_a_misspelt_category_names_the_near_one(tmp_path: Path) -> None:
    touch(*(tmp_path / c / "1.jpg" for c in ("butterfly", "bee")))
    with pytest.raises(UsageError, match=r"has no folder 'buterfly'\. Did you mean 'butterfly'\?"):
        open_source(str(tmp_path), categories=("bee", "buterfly"))
    with pytest.raises(UsageError, match=r"has no folder 'zebra'\. It has: bee, butterfly\."):
        open_source(str(tmp_path), categories=("zebra",))
    with pytest.raises(UsageError, match="has no folder"):
        open_source(str(tmp_path), categories=("..",))
    touch(tmp_path / "flat" / "1.jpg")
    with pytest.raises(UsageError, match=r"It has: no folders\."):
        open_source(str(tmp_path / "flat"), categories=("ant",))


def test_a_flat_folder_is_one_class(tmp_path: Path) -> None:
    folder = tmp_path / "my photos"
    touch(folder / "10.jpg", folder / "2.png", folder / "notes.txt")
    (folder / "empty").mkdir()
    source = open_source(str(folder))
    assert source.class_names == ("my photos",)
    assert source.paths == ["2.png", "10.jpg", "notes.txt"]
    assert source.labels.tolist() == [0, 0, 0]
    assert reasons(source) == {"notes.txt": Reason.UNKNOWN_SUFFIX}
    assert source.notes == ("1 folder has no images and is not a class: empty",)
    assert open_source(f"{folder}/").class_names == ("my photos",)


def test_nested_folders_belong_to_their_class(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "10" / "x.jpg", tmp_path / "a" / "2" / "deep" / "y.jpg", tmp_path / "a" / "z.jpg")
    source = open_source(str(tmp_path))
    assert source.class_names == ("a",)
    assert source.paths == ["a/2/deep/y.jpg", "a/10/x.jpg", "a/z.jpg"]


def test_readme_beside_class_folders_is_refused(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "1.jpg", tmp_path / "README.md", tmp_path / "loose.jpg")
    source = open_source(str(tmp_path))
    assert source.class_names == ("a",)
    assert source.paths == ["a/1.jpg", "README.md", "loose.jpg"]
    assert source.labels.tolist() == [0, -1, -1]
    assert reasons(source) == {"README.md": Reason.NO_CLASS_FOLDER, "loose.jpg": Reason.NO_CLASS_FOLDER}
    assert details(source)["loose.jpg"] == "it lies beside the class folders; move it into one"
    assert source.usable().tolist() == [0]


def test_folders_without_pictures_are_no_classes(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "1.jpg", tmp_path / "docs" / "manual.pdf")
    (tmp_path / "empty").mkdir()
    source = open_source(str(tmp_path))
    assert (source.class_names, source.paths) == (("a",), ["a/1.jpg"])
    assert source.notes == ("2 folders have no images and are not classes: docs, empty",)
    source = open_source(str(tmp_path), categories=("empty", "a"))
    assert source.class_names == ("empty", "a")
    assert source.notes == ("1 class has no images: empty",)


@pytest.mark.parametrize("suffix", sorted(SUFFIXES))
def test_suffixes_in_any_case(tmp_path: Path, suffix: str) -> None:
    touch(tmp_path / "a" / f"1{suffix}", tmp_path / "a" / f"2{suffix.upper()}", tmp_path / "a" / f"3{suffix}.txt")
    assert reasons(open_source(str(tmp_path))) == {f"a/3{suffix}.txt": Reason.UNKNOWN_SUFFIX}


def test_broken_links_and_links_to_themselves_are_refused(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "1.jpg")
    (tmp_path / "a" / "2.jpg").symlink_to("nowhere.jpg")
    (tmp_path / "a" / "3.jpg").symlink_to("3.jpg")
    (tmp_path / "a" / "4.jpg").symlink_to("1.jpg/below")
    (tmp_path / "self").symlink_to("self")
    (tmp_path / "b").symlink_to("/not/mounted")  # a class folder on a disk that is not there
    source = open_source(str(tmp_path))
    assert reasons(source) == {
        "a/2.jpg": Reason.BROKEN_LINK,
        "a/3.jpg": Reason.LINK_LOOP,
        "a/4.jpg": Reason.BROKEN_LINK,
        "b": Reason.BROKEN_LINK,
        "self": Reason.LINK_LOOP,
    }
    assert details(source)["a/2.jpg"] == "No such file or directory: it links to 'nowhere.jpg'"
    assert details(source)["a/3.jpg"] == "Too many levels of symbolic links"
    assert source.sizes.tolist() == [1, -1, -1, -1, -1, -1]


def test_links_are_followed_but_loops_are_refused(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "1.jpg", tmp_path / "elsewhere" / "deep" / "2.jpg")
    (tmp_path / "a" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "a" / "up").symlink_to("..")
    (tmp_path / "elsewhere" / "again").symlink_to(tmp_path / "elsewhere")
    assert walk(tmp_path / "a") == ["1.jpg", "linked/deep/2.jpg", "up/elsewhere/deep/2.jpg"]
    source = open_source(str(tmp_path))
    assert source.class_names == ("a", "elsewhere")
    assert source.paths == [
        "a/1.jpg",
        "a/linked/again",
        "a/linked/deep/2.jpg",
        "a/up",
        "elsewhere/again",
        "elsewhere/deep/2.jpg",
    ]
    loops = ("a/linked/again", "a/up", "elsewhere/again")
    assert reasons(source) == dict.fromkeys(loops, Reason.LINK_LOOP)
    assert details(source)["a/up"] == "it links to a folder that contains it"


def test_a_class_folder_may_be_a_link(tmp_path: Path) -> None:
    touch(tmp_path / "real" / "1.jpg")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a").symlink_to(tmp_path / "real")
    assert open_source(str(tmp_path / "set")).paths == ["a/1.jpg"]


def test_two_classes_that_are_one_folder_are_noted(tmp_path: Path) -> None:
    for name in ("2023", "2024"):
        touch(tmp_path / name / "1.jpg")
    (tmp_path / "latest").symlink_to("2024")
    (note,) = open_source(str(tmp_path)).notes
    assert note.startswith("the classes 2024, latest are one folder")
    assert "--categories" in note
    assert not open_source(str(tmp_path), categories=["2023", "2024"]).notes


def test_pipes_and_sockets_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading them would wait for ever."""
    touch(tmp_path / "a" / "1.jpg")
    os.mkfifo(tmp_path / "a" / "2.jpg")
    monkeypatch.chdir(tmp_path)  # the name of a socket may have 107 bytes
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("a/3.jpg")
        source = open_source(str(tmp_path))
        assert reasons(source) == {"a/2.jpg": Reason.NOT_A_FILE, "a/3.jpg": Reason.NOT_A_FILE}
        assert details(source)["a/2.jpg"] == "it is not a regular file"
        assert refusal_of_reading(source, "a/3.jpg").reason is Reason.UNREADABLE  # No such device or address
    assert refusal_of_reading(source, "a/2.jpg").reason is Reason.NOT_A_FILE


def refusal_of_reading(source: Source, path: str) -> Refusal:
    with pytest.raises(Refusal) as caught:
        source.files.read(path, None)
    return caught.value


@pytest.mark.parametrize(
    "name", ["two words", "벌과 나비", "새\u200b", "a'b\"c", "$HOME;rm", "%s{x}", "-rf", "é", "a\\b", "*.tar", "{0..1}"]
)
def test_any_name(tmp_path: Path, name: str) -> None:
    touch(tmp_path / name / f"{name}.jpg", content=b"content")
    source = open_source(str(tmp_path), categories=(name,))
    assert source.class_names == (name,)
    assert source.paths == [f"{name}/{name}.jpg"]
    assert source.files.read(source.paths[0], None) == b"content"
    assert open_source(str(tmp_path / name)).class_names == (name,)


def test_a_file_name_with_a_line_break(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "new\nline.jpg", content=b"content")
    source = open_source(str(tmp_path))
    assert source.paths == ["a/new\nline.jpg"]
    assert source.files.read(source.paths[0], None) == b"content"
    assert len(source.sha256()) == 64


def test_names_that_are_no_utf8(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(folder)
    with open(folder + b"/\xff\xfe.jpg", "wb") as file:
        file.write(b"content")
    source = open_source(str(tmp_path))
    assert source.class_names == ("caf\\xe9",)  # as it will stand in layout.json and label.labels.txt
    assert os.fsencode(source.paths[0]) == b"caf\xe9/\xff\xfe.jpg"  # as it can be opened
    assert printable(source.paths[0]) == "caf\\xe9/\\xff\\xfe.jpg"
    assert pickle.loads(pickle.dumps(source.files)).read(source.paths[0], None) == b"content"
    assert len(source.sha256()) == 64


@pytest.mark.parametrize("name", [" ", "a\nb", "a\rb"])
def test_class_folders_that_a_list_of_labels_cannot_hold(tmp_path: Path, name: str) -> None:
    touch(tmp_path / name / "1.jpg")
    with pytest.raises(UsageError, match=re.escape(f"class folder {name!r}")):
        open_source(str(tmp_path))


def test_no_pictures(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--image_dir=\S*nowhere does not exist\. Name a folder"):
        open_source(str(tmp_path / "nowhere"))
    touch(tmp_path / "file", tmp_path / "list.csv")
    with pytest.raises(UsageError, match=r"is not a folder\. Name a folder that has .* a \.tar or a \.zip"):
        open_source(str(tmp_path / "file"))
    with pytest.raises(
        UsageError, match=r"is not a folder\. To convert the files in a table, give it as --table=\S*list"
    ):
        open_source(str(tmp_path / "list.csv"))
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UsageError, match=r"has no image file \(0 other files\)"):
        open_source(str(empty))
    touch(empty / "a" / "notes.txt", empty / "README")
    with pytest.raises(UsageError, match=r"has no image file \(2 other files\), e\.g\. README"):
        open_source(str(empty))
    with pytest.raises(UsageError, match=r"has no image file \(1 other files\)"):
        open_source(str(empty), categories=("a",))
    touch(empty / "a" / "1.0.0" / "layout.json")
    with pytest.raises(UsageError, match=r"To convert a dataset again, give it as --from=\S*/empty/a/1\.0\.0\."):
        open_source(str(empty))


def test_a_folder_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "a" / "1.jpg", tmp_path / "b" / "1.jpg")
    scandir = os.scandir

    def deny(path: str) -> object:
        if path.endswith("/b"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", deny)
    with pytest.raises(UsageError, match=r"/b cannot be listed: permission denied\. Make it readable, or leave it out"):
        open_source(str(tmp_path))


def python(code: str) -> str:
    """Returns what a fresh process prints that runs `code`."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-P", "-c", f"from tfrecords.convert.sources import open_source\n{code}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_no_permission(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "1.jpg", tmp_path / "a" / "2.jpg")
    (tmp_path / "a" / "2.jpg").chmod(0)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.owner() == tmp_path.owner() and len(folder.parts) > 2:
            folder.chmod(folder.stat().st_mode | 0o055)
    code = (
        "import os\nfrom tfrecords.convert.sources import archive, table, tfds\n"
        "if not os.getuid(): os.setgid(65534), os.setuid(65534)  # root may do everything\n"
        f"source = open_source({str(tmp_path)!r})\nprint(source.paths)\n"
        "try: source.files.read('a/2.jpg', None)\nexcept Exception as refusal: print(refusal)\n"
    )
    assert python(code).splitlines() == ["['a/1.jpg', 'a/2.jpg']", "unreadable: Permission denied"]


def test_files_that_may_not_be_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a folder that may be listed but not entered."""
    touch(tmp_path / "a" / "1.jpg", tmp_path / "a" / "2.jpg")
    monkeypatch.setattr(folder_module, "_add_status", deny_after_one())
    source = open_source(str(tmp_path))
    assert list(reasons(source).values()) == [Reason.UNREADABLE]
    assert list(details(source).values()) == ["Permission denied"]


def deny_after_one() -> Callable[..., None]:
    add = folder_module._add_status
    calls: list[str] = []

    def add_or_deny(found: object, path: str, status: os.stat_result, *rest: str) -> None:
        calls.append(path)
        if len(calls) > 1:
            raise PermissionError(13, "Permission denied")
        add(found, path, status, *rest)  # type: ignore[arg-type]

    return add_or_deny


def test_reading(tmp_path: Path) -> None:
    content = bytes(range(256)) * 1000
    touch(tmp_path / "a" / "1.jpg", content=content)
    touch(tmp_path / "a" / "empty.jpg", content=b"")
    source = open_source(str(tmp_path))
    assert source.sizes.tolist() == [256_000, 0]
    assert source.files.read("a/1.jpg", None) == content
    assert source.files.read("a/empty.jpg", None) == b""  # for the decoder to refuse
    assert pickle.loads(pickle.dumps(source.files)).read("a/1.jpg", None) == content


def test_reading_does_not_depend_on_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "set" / "a" / "1.jpg")
    monkeypatch.chdir(tmp_path)
    source = open_source("set")
    monkeypatch.chdir("/")
    assert source.files.read("a/1.jpg", None) == b"x"


def test_a_file_that_vanished(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "1.jpg", tmp_path / "real.jpg")
    (tmp_path / "a" / "2.jpg").symlink_to("../real.jpg")
    source = open_source(str(tmp_path), categories=("a",))
    (tmp_path / "a" / "1.jpg").unlink()
    (tmp_path / "real.jpg").unlink()
    refusal = refusal_of_reading(source, "a/1.jpg")
    assert (refusal.reason, refusal.detail) == (Reason.UNREADABLE, "No such file or directory")
    assert refusal_of_reading(source, "a/2.jpg").reason is Reason.BROKEN_LINK


def test_a_folder_in_the_place_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").mkdir()
    with pytest.raises(Refusal) as caught:
        FolderFiles(str(tmp_path)).read("1.jpg")
    assert caught.value.reason is Reason.NOT_A_FILE


def test_a_failing_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "1.jpg")

    def fail(descriptor: int, length: int) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "read", fail)
    with pytest.raises(OSError, match="Input/output error"):  # the file may be good
        FolderFiles(str(tmp_path)).read("1.jpg")


@pytest.mark.parametrize("change", ["grow", "shrink", "touch"])
def test_a_file_that_changes_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    path = tmp_path / "1.jpg"
    touch(path, content=b"x" * 1000)
    read = os.read

    def read_and_change(descriptor: int, length: int) -> bytes:
        if change == "shrink":
            os.truncate(path, 500)
        data = read(descriptor, length)
        if change == "grow":
            with open(path, "ab") as file:
                file.write(b"more")
        if change == "touch":
            os.utime(path, ns=(0, 0))
        return data

    monkeypatch.setattr(os, "read", read_and_change)
    with pytest.raises(Refusal) as caught:
        FolderFiles(str(tmp_path)).read("1.jpg")
    assert caught.value.reason is Reason.CHANGED


def test_a_file_that_another_process_writes_to(tmp_path: Path) -> None:
    """Every read is either of one state of the file or refused, unless a single write takes longer than is waited for.

    On a busy machine a process stands still in the middle of a write, and the file then looks as if it were whole. So
    the writer says when each write was, and a mixture has to have been read within one that took so long.
    """
    path = tmp_path / "1.jpg"
    states = [bytes([value]) * 3_000_000 for value in (1, 2)]
    touch(path, content=states[0])
    code = (
        "import sys, time\nwith open(sys.argv[1], 'r+b', buffering=0) as file:\n"
        "    for turn in range(200):\n        file.seek(0); begun = time.monotonic_ns()\n"
        "        file.write(bytes([turn % 2 + 1]) * 3_000_000); print(begun, time.monotonic_ns())\n"
    )
    files = FolderFiles(str(tmp_path))
    outcomes: list[bool | str] = []
    mixed: list[tuple[int, int]] = []
    with (
        open(tmp_path / "writes", "w+") as told,
        subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=told) as writer,
    ):
        while writer.poll() is None:
            begun = time.monotonic_ns()
            try:
                outcomes.append(files.read("1.jpg") in states)
            except Refusal as refusal:
                outcomes.append(refusal.reason)
            if outcomes[-1] is False:
                mixed.append((begun, time.monotonic_ns()))
        told.seek(0)
        writes = [tuple(map(int, line.split())) for line in told]
    assert len(writes) == 200
    assert Reason.CHANGED in outcomes
    slow = [(start, end) for start, end in writes if end - start > folder_module._FRESH_NS - 10_000_000]  # of its clock
    assert all(any(start < end_read and begun < end for start, end in slow) for begun, end_read in mixed)


def test_reads_that_come_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "1.jpg", content=b"0123456789")
    read = os.read
    monkeypatch.setattr(os, "read", lambda descriptor, length: read(descriptor, min(length, 3)))
    assert FolderFiles(str(tmp_path)).read("1.jpg") == b"0123456789"


def test_a_huge_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "a" / "1.jpg", tmp_path / "a" / "2.jpg")
    os.truncate(tmp_path / "a" / "2.jpg", (1 << 30) + 1)  # takes no room on the disk
    source = open_source(str(tmp_path))
    assert reasons(source) == {"a/2.jpg": Reason.TOO_LARGE}
    monkeypatch.delattr(os, "read")
    assert refusal_of_reading(source, "a/2.jpg").reason is Reason.TOO_LARGE


def test_reading_leaves_no_file_open(tmp_path: Path, num_open: Callable[[Path], int]) -> None:
    touch(tmp_path / "1.jpg")
    (tmp_path / "folder.jpg").mkdir()
    files = FolderFiles(str(tmp_path))
    for _ in range(20):
        files.read("1.jpg")
        with pytest.raises(Refusal):
            files.read("folder.jpg")
    assert num_open(tmp_path) == 0


def test_opening_a_pipe_does_not_wait(tmp_path: Path) -> None:
    """It may take the place of a file after the folder was listed."""
    os.mkfifo(tmp_path / "1.jpg")
    caught: list[Reason] = []

    def read() -> None:
        try:
            FolderFiles(str(tmp_path)).read("1.jpg")
        except Refusal as refusal:
            caught.append(refusal.reason)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(10)
    assert caught == [Reason.NOT_A_FILE]


def test_file_urls(tmp_path: Path) -> None:
    touch(tmp_path / "my set" / "a" / "1.jpg")
    for url in (f"file://{tmp_path}/my set", f"file://{tmp_path}/my%20set", f"file://localhost{tmp_path}/my set"):
        source = open_source(url)
        assert source.paths == ["a/1.jpg"]
        assert isinstance(source.files, FolderFiles)


def test_digest_does_not_change_with_the_place(tmp_path: Path) -> None:
    touch(tmp_path / "x" / "a" / "1.jpg", tmp_path / "y" / "a" / "1.jpg")
    assert open_source(str(tmp_path / "x")).sha256() == open_source(str(tmp_path / "y")).sha256()
    touch(tmp_path / "y" / "README")
    assert open_source(str(tmp_path / "x")).sha256() != open_source(str(tmp_path / "y")).sha256()


def test_many_files_are_columns(tmp_path: Path) -> None:
    """A million files may take 60 s and 400 MB; a hundredth of that here, with a wide margin for slow machines."""
    for number in range(10):
        folder = tmp_path / f"class_{number}"
        touch(folder / "image_0.jpg")
        for file in range(1, 1000):
            os.link(folder / "image_0.jpg", folder / f"image_{file}.jpg")
    code = (
        "import time, tracemalloc\ntracemalloc.start()\n"
        f"source = open_source({str(tmp_path)!r})\nprint(len(source.paths), tracemalloc.get_traced_memory()[1])\n"
        f"tracemalloc.stop()\nstart = time.process_time()\nopen_source({str(tmp_path)!r}).sha256()\n"
        "print(time.process_time() - start)\n"
    )
    num_files, peak_bytes, seconds = python(code).split()
    assert int(num_files) == 10_000
    assert int(peak_bytes) < 350 * 10_000
    assert float(seconds) < 0.6


@pytest.mark.parametrize("link", ["validation", "validation/cat", "data/validation/cat"])
def test_splits_that_are_one_folder_are_noted(tmp_path: Path, link: str) -> None:
    around = "data/" if link.startswith("data/") else ""
    touch(*(tmp_path / f"{around}train" / label / "1.jpg" for label in ("cat", "dog")))
    if link != "validation":
        touch(tmp_path / f"{around}validation" / "dog" / "2.jpg")
    train = link.replace("validation", "train")
    (tmp_path / link).symlink_to(tmp_path / train)
    (note,) = open_source(str(tmp_path)).notes
    assert note.startswith(f"{train}, {link} are one folder in several splits, so that the same images are trained on")
    assert note.endswith(f"--exclude=/{link}/")
    assert not [note for note in open_source(str(tmp_path), exclude=[f"/{link}/"]).notes if "one folder" in note]
