"""Files that are whole or not there: a temporary name, fsync, rename."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from tfrecords.base_errors import DataError

__all__ = [
    "TEMPORARY",
    "atomic_file",
    "atomic_folder",
    "file_sha256",
    "json_bytes",
    "read_json",
    "sync_dir",
    "sync_file",
    "write_json",
]

TEMPORARY = ".tmp-"  # in every temporary name, so that what a killed process left can be recognised


@contextmanager
def atomic_file(path: Path, *, sync: bool = True, sync_name: bool = True) -> Iterator[BinaryIO]:
    """Opens a file for writing that gets its name when the block ends without an error, and vanishes otherwise.

    Args:
        path: the name.
        sync: have what the file holds on the disk before it gets its name. Without, a killed process leaves it whole
            all the same, but a power failure may not: then whoever finds it has to check it.
        sync_name: return when the name is durable, too, and not just what the file holds. Not needed where the caller
            does so for a whole folder, or where the loss of the name would only have the file be written again.
    """
    # Unlike any other process's, also of another machine that writes to the same folder.
    temporary = path.with_name(f".{path.name}{TEMPORARY}{os.getpid()}-{secrets.token_hex(4)}")
    try:
        with open(temporary, "wb") as file:
            yield file
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if sync and sync_name:
        sync_dir(path.parent)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yields a new folder to fill, which gets its name when the block ends without an error, and vanishes otherwise.

    A folder that has the name already is replaced.
    """
    temporary = path.with_name(f".{path.name}{TEMPORARY}{os.getpid()}-{secrets.token_hex(4)}")
    replaced = temporary.with_name(f"{temporary.name}-replaced")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary.mkdir()
    try:
        yield temporary
        for file in temporary.iterdir():
            sync_file(file)
        sync_dir(temporary)
        if path.exists():
            path.rename(replaced)
        temporary.rename(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        if replaced.exists() and not path.exists():
            replaced.rename(path)
        raise
    sync_dir(path.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def sync_dir(path: Path) -> None:
    """Makes the names in a folder durable."""
    sync_file(path)


def sync_file(path: Path) -> None:
    """Makes what a file holds durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented JSON under the name `path`, atomically."""
    with atomic_file(path) as file:
        file.write(json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """Returns `value` as indented JSON in UTF-8."""
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()


def read_json(path: Path, what: str) -> Any:
    """Returns the JSON value in the file `path`.

    Args:
        path: the file.
        what: what errors call it, and what to do about it, e.g. "the layout; convert the data set again".

    Raises:
        DataError: the file is missing or not JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"{path} is missing ({what}).") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is no valid JSON: {error} ({what}).") from None


def file_sha256(path: Path) -> str:
    """Returns the SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
