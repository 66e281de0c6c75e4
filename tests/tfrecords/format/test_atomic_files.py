"""A final name means complete: what is on disk after an error, and what errors call a file."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from tfrecords.base_errors import DataError
from tfrecords.format.atomic_files import TEMPORARY, atomic_file, file_sha256, json_bytes, read_json, write_json


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
    with pytest.raises(OSError, match="No space left"), atomic_file(tmp_path / "file") as file:
        file.write(b"all")
    assert list(tmp_path.iterdir()) == []


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
