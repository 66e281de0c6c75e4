"""A final name means complete: what is on disk after an error or kill -9, and what errors call a file."""

from __future__ import annotations

import hashlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tfrecords.base_errors import DataError
from tfrecords.format import atomic_files
from tfrecords.format.atomic_files import (
    TEMPORARY,
    atomic_file,
    atomic_folder,
    file_sha256,
    json_bytes,
    prepare_output,
    read_json,
    rename_new,
    sync_tree,
    write_json,
)


def test_no_final_name_before_the_end(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with atomic_file(path) as file:
        file.write(b"new")
        (entry,) = tmp_path.iterdir()
        assert entry.name.startswith(f".file{TEMPORARY}{os.getpid()}-")
        with atomic_file(path):  # by another machine, whose processes have the same numbers
            assert len(list(tmp_path.iterdir())) == 2
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_error_leaves_nothing_new(tmp_path: Path, failure: type[BaseException]) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(failure):
        _write_half(path, failure)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_nothing_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match="No space left") as caught, atomic_file(tmp_path / "file") as file:
        file.write(b"all")
    assert caught.value.filename == str(tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


def test_an_error_names_the_file_and_not_the_temporary_one(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing" / "file"):
        with pytest.raises(OSError) as caught, atomic_file(path) as file:  # noqa: PT011
            file.write(b"all")
        assert caught.value.filename == str(path)
    for filename, expected in ((None, "export"), ("{}/model.pb", "export/model.pb")):
        with pytest.raises(OSError, match="No space left") as caught, atomic_folder(tmp_path / "export") as folder:
            raise OSError(28, "No space left on device", filename and filename.format(folder))
        assert caught.value.filename == str(tmp_path / expected)
    other = FileNotFoundError(2, "No such file or directory", "another")
    with pytest.raises(FileNotFoundError) as caught, atomic_file(tmp_path / "file"):
        raise other
    assert caught.value is other


@pytest.mark.parametrize("name", ["pipe", "link to pipe", "open file"])
def test_what_is_no_file_in_a_folder_is_written_to_and_stays(tmp_path: Path, name: str) -> None:
    """By root, /dev/null and /dev/stdout would be replaced by a file, for all programs."""
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    writing = os.open(pipe, os.O_WRONLY)
    link.symlink_to(f"/proc/self/fd/{writing}" if name == "open file" else str(pipe))
    before = os.lstat(pipe), os.readlink(link)
    path = pipe if name == "pipe" else link
    prepare_output(path, "--plan")
    with atomic_file(path) as file:
        file.write(b"all")
    assert os.read(reading, 10) == b"all"
    assert (os.lstat(pipe).st_ino, os.readlink(link)) == (before[0].st_ino, before[1])
    assert sorted(tmp_path.iterdir()) == [link, pipe]
    with pytest.raises(OSError, match="No space left") as caught, atomic_file(Path("/dev/full")) as file:
        file.write(b"all")
    assert caught.value.filename == "/dev/full"
    os.close(reading)
    os.close(writing)


def test_bytes_are_durable_before_the_name_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (calls.append("fsync"), fsync(file))[1])
    monkeypatch.setattr(os, "replace", lambda *names: (calls.append("replace"), replace(*names))[1])
    with atomic_file(tmp_path / "file") as file:
        file.write(b"all")
    assert calls == ["fsync", "replace", "fsync"]  # the file, its name, the folder
    calls.clear()
    with atomic_file(tmp_path / "file", sync=False) as file:
        file.write(b"third")
    assert calls == ["replace"]
    assert (tmp_path / "file").read_bytes() == b"third"
    calls.clear()
    with atomic_file(tmp_path / "file", sync_name=False) as file:
        file.write(b"all")
    assert calls == ["fsync", "replace"]


def export(path: Path, text: str) -> None:
    """Writes a folder as a SavedModel has them, with folders in it."""
    with atomic_folder(path) as folder:
        (folder / "model.pb").write_text(text)
        (folder / "variables" / "shards").mkdir(parents=True)
        (folder / "variables" / "index").write_text(text)
        (folder / "variables" / "shards" / "0").write_text(text)


def exported(path: Path) -> str | None:
    """Returns the text of which all of a folder's files are; None without a folder."""
    if not path.exists():
        return None
    assert {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()} == {
        "model.pb",
        "variables/index",
        "variables/shards/0",
    }
    (text,) = {file.read_text() for file in path.rglob("*") if file.is_file()}
    return text


def cannot_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on NFS, or with an old C library."""
    monkeypatch.setattr(atomic_files, "_rename", lambda *_: False)


ways = pytest.mark.parametrize("exchanges", [True, False])


@ways
def test_a_folder_has_its_name_only_when_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchanges: bool
) -> None:
    if not exchanges:
        cannot_exchange(monkeypatch)
    path = tmp_path / "new" / "export"
    export(path, "one")
    assert exported(path) == "one"
    with atomic_folder(path) as folder:
        assert exported(path) == "one"
        assert folder.name.startswith(f".export{TEMPORARY}{os.getpid()}-")
        (folder / "other").write_text("two")
    assert [file.name for file in path.iterdir()] == ["other"]
    assert list(path.parent.iterdir()) == [path]


@ways
@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_error_leaves_the_folder_that_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchanges: bool, failure: type[BaseException]
) -> None:
    if not exchanges:
        cannot_exchange(monkeypatch)
    for before in (None, "one"):
        if before:
            export(tmp_path / "export", before)
        with pytest.raises(failure), atomic_folder(tmp_path / "export") as folder:
            (folder / "model.pb").write_text("half")
            raise failure
        assert exported(tmp_path / "export") == before
        assert len(list(tmp_path.iterdir())) == bool(before)


@pytest.mark.parametrize("failing", range(3))
def test_an_error_between_the_two_renames_puts_the_old_folder_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    path = tmp_path / "export"
    export(path, "one")
    cannot_exchange(monkeypatch)
    calls, rename = [], Path.rename

    def fail(source: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == failing + 1:
            raise OSError(5, "Input/output error")
        return rename(source, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="Input/output error"):
        export(path, "two")
    monkeypatch.undo()
    assert exported(path) == ("two" if failing == 2 else "one")
    export(path, "three")
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_to_a_folder_stays_one(tmp_path: Path) -> None:
    (tmp_path / "large_disk").mkdir()
    export(tmp_path / "large_disk" / "export", "one")
    link = tmp_path / "export"
    link.symlink_to("large_disk/export")
    export(link, "two")
    assert link.is_symlink()
    assert exported(tmp_path / "large_disk" / "export") == "two"
    assert sorted(path.name for path in tmp_path.rglob("*export*")) == ["export", "export"]


def test_a_file_of_that_name_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "export").write_text("mine")
    with pytest.raises(NotADirectoryError, match="export"):
        export(tmp_path / "export", "one")
    assert (tmp_path / "export").read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 1


def test_everything_is_durable_before_the_name_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def synced(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        parts = path.relative_to(tmp_path).parts
        calls.append("/".join(["NEW", *parts[1:]] if parts and TEMPORARY in parts[0] else parts))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "rename", lambda *paths: (calls.append("rename"), rename(*paths))[1])
    export(tmp_path / "export", "one")
    *inner, new, renamed, parent = calls
    assert (new, renamed, parent) == ("NEW", "rename", "")
    assert set(inner) == {f"NEW/{name}" for name in "model.pb variables variables/index".split()} | {
        "NEW/variables/shards",
        "NEW/variables/shards/0",
    }
    assert inner.index("NEW/variables/shards/0") < inner.index("NEW/variables/shards") < inner.index("NEW/variables")


def test_links_are_not_followed_when_a_tree_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "dangling").symlink_to("nothing")
    (tmp_path / "tree" / "up").symlink_to("..")
    calls: list[int] = []
    monkeypatch.setattr(os, "fsync", calls.append)
    sync_tree(tmp_path / "tree")
    assert len(calls) == 1
    with pytest.raises(FileNotFoundError):
        sync_tree(tmp_path / "nothing")


@ways
@pytest.mark.parametrize("before", ["one", None])
def test_a_folder_is_whole_whenever_its_writer_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchanges: bool, before: str | None
) -> None:
    """At every line: with -9, which leaves no time to tidy up. On a file system that cannot exchange, it may be away
    until the next call.
    """
    if not exchanges:
        cannot_exchange(monkeypatch)
    monkeypatch.setattr(os, "fsync", lambda file: None)  # a killed process loses nothing that was written
    line, killed = 0, True
    while killed:
        line += 1
        path = tmp_path / str(line) / "export"
        if before:
            export(path, before)
        killed = killed_at(line, lambda path=path: export(path, "two"))
        there = exported(path)
        assert there in ((before, "two") if exchanges or not before else (before, "two", None))
        with pytest.raises(ValueError, match="half"), atomic_folder(path) as folder:
            (folder / "model.pb").write_text("half")
            raise ValueError("half")
        assert exported(path) == (there or before)
        if line % 5 == 0:  # killed once more, while it puts back what was left
            killed_at(line // 2, lambda path=path: export(path, "three"))
        assert exported(path) in {*([None] if not exchanges or not before else []), before, "two", "three"}
        export(path, "four")
        assert exported(path) == "four"
        others = [other.name for other in path.parent.iterdir() if other != path]
        assert all(TEMPORARY in name and not name.endswith("replaced") for name in others)
    assert line > 30
    assert there == "two"


@ways
def test_a_new_name_never_overwrites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchanges: bool) -> None:
    if not exchanges:
        cannot_exchange(monkeypatch)

    def file(path: Path) -> None:
        path.write_text(path.parent.name)

    def link(path: Path) -> None:
        path.symlink_to("nothing")

    def folder(path: Path) -> None:
        path.mkdir()

    for source_kind in (file, link, folder):
        for target_kind in (file, link, folder, None):
            for name in ("from", "to"):
                (tmp_path / name).mkdir(exist_ok=True)
            source, target = tmp_path / "from" / "x", tmp_path / "to" / "x"
            source_kind(source)
            kind = source.lstat().st_ino
            if target_kind:
                target_kind(target)
                there = target.lstat().st_ino
                with pytest.raises(FileExistsError, match="to/x"):
                    rename_new(source, target)
                assert (source.lstat().st_ino, target.lstat().st_ino) == (kind, there)
            else:
                rename_new(source, target)
                assert target.lstat().st_ino == kind
                assert not os.path.lexists(source)
            for path in (source, target):
                if os.path.lexists(path):
                    path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


def killed_at(line: int, call: Callable[[], None]) -> bool:
    """Does `call` in a process that is killed at this line of the module; returns whether it came to it."""
    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    left = line

    def trace(frame: Any, event: str, _: Any) -> Any:
        nonlocal left
        if frame.f_code.co_filename != atomic_files.__file__:
            return None
        if event in ("line", "return"):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    try:
        sys.settrace(trace)
        call()
    finally:
        sys.settrace(None)
        os._exit(0)


def test_json_round_trip(tmp_path: Path) -> None:
    value = {"b": [1, 2.5, None, True], "a": '벌 \u2028 \\ "', "c": {}}
    write_json(tmp_path / "x.json", value)
    assert read_json(tmp_path / "x.json", "a test") == value
    assert (tmp_path / "x.json").read_bytes() == json_bytes(value)
    assert "벌".encode() in json_bytes(value)
    assert json_bytes(value).endswith(b"\n")


def test_json_errors_name_the_file_and_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    with pytest.raises(DataError, match=r"x\.json is missing \(a test\)"):
        read_json(path, "a test")
    for damaged in (b"", b"{", b"\xff\xfe", b"{} {}"):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"x\.json is not valid JSON: .* \(a test\)"):
            read_json(path, "a test")


def test_sha256_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc" * 100_000)
    assert file_sha256(path) == hashlib.sha256(b"abc" * 100_000).hexdigest()


def _write_half(path: Path, failure: type[BaseException]) -> None:
    with atomic_file(path) as file:
        file.write(b"half")
        raise failure
