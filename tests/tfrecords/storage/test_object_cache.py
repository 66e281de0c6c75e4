"""The cache's contract: bounded, shared by threads and processes, whole objects only, nothing in use removed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import pytest

from tfrecords.base_errors import UsageError
from tfrecords.storage.object_cache import ObjectCache, parse_bytes

HOLD = """
import sys, time
from pathlib import Path
from tfrecords.storage.object_cache import ObjectCache
folder, key, number, seconds = sys.argv[1:]
def fetch(path):
    with open(Path(folder) / "fetched", "a") as file:
        file.write(key + "\\n")
    path.write_bytes(b"x" * (int(number) // 2))
    print("fetching", flush=True)
    time.sleep(float(seconds))
    path.write_bytes(b"x" * int(number))
held = ObjectCache(Path(folder), 100).hold(key, int(number), fetch)
print("held", held.stat().st_size, flush=True)
sys.stdin.read()
"""


def start(folder: Path, key: str, number: int = 40, seconds: float = 0) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLD, str(folder), key, str(number), str(seconds)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def end(*processes: subprocess.Popen[str]) -> None:
    for process in processes:
        process.communicate(timeout=30)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "objects").iterdir())


def writing(data: bytes):
    return lambda path: path.write_bytes(data)


def test_what_was_used_longest_ago_makes_room_but_nothing_in_use(tmp_path: Path) -> None:
    for key in ("a", "b"):  # each by a process that has ended
        end(process := start(tmp_path, key))
        assert process.returncode == 0
    end(start(tmp_path, "a"))  # used again, so b is older
    assert (tmp_path / "fetched").read_text().split() == ["a", "b"]
    cache = ObjectCache(tmp_path, 100)
    cache.hold("c", 40, writing(b"c" * 40))
    assert names(tmp_path) == ["a", "c"]
    user = start(tmp_path, "a")
    assert line_of(user) == "held 40"
    with pytest.raises(UsageError, match=r"--cache_bytes=100: .* has 80 bytes in use, and 40 more are needed"):
        cache.hold("d", 40, writing(b"d" * 40))
    assert names(tmp_path) == ["a", "c"]
    end(user)
    cache.hold("d", 40, writing(b"d" * 40))
    assert names(tmp_path) == ["c", "d"]  # c is in use by this process
    with pytest.raises(UsageError, match="101 more are needed"):
        ObjectCache(tmp_path, 100).hold("e", 101, writing(b""))


def test_one_fetches_and_the_others_wait(tmp_path: Path) -> None:
    first = start(tmp_path, "a", seconds=1)
    assert line_of(first) == "fetching"
    others = [start(tmp_path, "a") for _ in range(2)]
    assert [line_of(process) for process in (first, *others)] == ["held 40"] * 3
    end(first, *others)
    fetched: list[str] = []

    def fetch(path: Path) -> None:
        fetched.append("b")
        time.sleep(0.2)
        path.write_bytes(b"b" * 9)

    threads = [threading.Thread(target=ObjectCache(tmp_path, 100).hold, args=("b", 9, fetch)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert fetched == ["b"]
    assert (tmp_path / "fetched").read_text().split() == ["a"]


def test_a_killed_process_leaves_nothing_that_counts_or_is_taken_for_whole(tmp_path: Path) -> None:
    for key in ("a", "z"):
        killed = start(tmp_path, key, seconds=60)
        assert line_of(killed) == "fetching"
        waiting = start(tmp_path, "a")
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert line_of(waiting) == ("fetching" if key == "a" else "held 40")
        end(waiting)
    ObjectCache(tmp_path, 100).hold("b", 90, writing(b"b" * 90))
    assert names(tmp_path) == ["b"]


def test_a_fetch_that_fails_changes_nothing(tmp_path: Path) -> None:
    cache = ObjectCache(tmp_path, 100)

    def fail(path: Path) -> None:
        path.write_bytes(b"half")
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        cache.hold("a", 8, fail)
    with pytest.raises(OSError, match="4 bytes of 8 were read"):
        cache.hold("a", 8, writing(b"half"))
    assert names(tmp_path) == []
    assert cache.hold("a", 8, writing(b"complete")).read_bytes() == b"complete"
    end(start(tmp_path, "b", 92))
    assert names(tmp_path) == ["a", "b"]
    os.truncate(tmp_path / "objects" / "b", 3)  # a failing disk
    assert cache.hold("b", 4, writing(b"anew")).read_bytes() == b"anew"


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("5000000000", 5 * 10**9),
        ("5e9", 5 * 10**9),
        ("5GB", 5 * 10**9),
        ("1.5 k", 1500),
        ("1_000", 1000),
        ("auto", None),
    ],
)
def test_bytes_as_people_write_them(text: str, number: int | None) -> None:
    assert parse_bytes(text) == number


@pytest.mark.parametrize("text", ["", "0", "-1", "5 apples", "nan", "GB", "1e40"])
def test_what_is_no_number_of_bytes(text: str) -> None:
    with pytest.raises(UsageError, match="--cache_bytes=.*should be a number of bytes, such as 200GB, or auto"):
        parse_bytes(text)


def test_by_default_a_tenth_of_the_free_space_is_left(tmp_path: Path) -> None:
    free = os.statvfs(tmp_path)
    with pytest.raises(UsageError, match="more are needed"):
        ObjectCache(tmp_path).hold("a", free.f_bavail * free.f_frsize, writing(b""))


def test_what_is_being_fetched_takes_free_space_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of two objects has room on the disk, both together have not."""
    free = types.SimpleNamespace(f_bavail=100, f_frsize=1)
    monkeypatch.setattr("tfrecords.storage.object_cache.os.statvfs", lambda path: free)
    cache = ObjectCache(tmp_path)

    def fetch(path: Path) -> None:
        with pytest.raises(UsageError, match="60 more are needed"):
            cache.hold("b", 60, writing(b"b" * 60))
        path.write_bytes(b"a" * 60)

    cache.hold("a", 60, fetch)
    assert names(tmp_path) == ["a"]


def test_a_user_without_a_home_names_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SIMIMG_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "~/.cache")
    with pytest.raises(UsageError, match="Name a folder that can be written, with --cache_dir or SIMIMG_CACHE_DIR"):
        ObjectCache.of_environment()
    assert not list(tmp_path.iterdir())
    monkeypatch.setenv("SIMIMG_CACHE_DIR", "here")
    assert ObjectCache.of_environment().folder == tmp_path / "here"


def test_a_cache_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"--cache_dir=.*file/cache cannot be made: .* Name a folder"):
        ObjectCache(tmp_path / "file" / "cache")
