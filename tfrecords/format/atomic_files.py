"""Writes files and folders that are either complete or absent (temporary name, fsync, rename), and locks files."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from tfrecords.base_errors import DataError, UsageError

_LIBC = ctypes.CDLL(None, use_errno=True)
_FAILED_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EPIPE)
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
_AT_FDCWD, _RENAME_NOREPLACE, _RENAME_EXCHANGE = -100, 1, 2  # linux/fcntl.h, linux/fs.h

TEMPORARY = ".tmp-"  # in every temporary name, so that leftovers of a killed process can be recognized


@contextmanager
def atomic_file(path: Path, *, sync: bool = True, sync_name: bool = True) -> Iterator[BinaryIO]:
    """Open a file for writing. It gets its name when the block ends without an error, and vanishes otherwise.

    A device, a pipe or an open file of a process, such as /dev/null and /dev/stdout, is written to and never replaced.

    Args:
        path: the name.
        sync: sync the content to the disk before the file gets its name. Without it, the file survives a killed process
            but perhaps not a power failure, so whoever reads it later has to check it.
        sync_name: return only after the name is durable, too. Not needed if the caller syncs the whole folder, or if a
            lost name only means that the file is written again.

    Raises:
        OSError: it cannot be written; it has the name `path`.
    """
    if _is_in_use(path):
        with _named(path, path), open(path, "wb") as file:
            yield file
        return
    # Unique among all processes, including those of other machines that write to the same folder.
    temporary = path.with_name(f".{path.name}{TEMPORARY}{os.getpid()}-{secrets.token_hex(4)}")
    try:
        with _named(path, temporary):
            with open(temporary, "wb") as file:
                yield file
                if sync:
                    file.flush()
                    os.fsync(file.fileno())
            os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    if sync and sync_name:
        sync_file(path.parent)


def prepare_output(path: Path, what: str) -> None:
    """Make the folder of an output that `what` names, so that `atomic_file` can write it and no work is done in vain.

    Raises:
        UsageError: it is a folder, or cannot be written.
    """
    if path.is_dir():
        raise UsageError(f"{what}={path} is a folder. Name a file.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"{what}={path}: its folder cannot be made: {os.strerror(error.errno or 0)}. Name another one."
        ) from None
    if not os.access(path if _is_in_use(path) else path.parent, os.W_OK):
        raise UsageError(f"{what}={path} cannot be written. Make its folder writable, or name another one.")


def _is_in_use(path: Path) -> bool:
    """Whether a name stands for a device, a pipe or an open file of a process, which no new file may replace."""
    try:
        mode = os.stat(path).st_mode
        of_process = [os.path.realpath(path.parent), os.readlink(path) if path.is_symlink() else ""]  # /dev/stdout
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)) or any(name.startswith("/proc/") for name in of_process)


@contextmanager
def _named(path: Path, temporary: Path) -> Iterator[None]:
    """Give errors while a file or folder is written its name, which they lack, or have as the temporary one."""
    try:
        yield
    except OSError as error:
        given = str(error.filename or "")
        name = given.replace(str(temporary), str(path), 1) or str(path)
        if name != given and (given or error.errno in _FAILED_WRITE):
            raise OSError(error.errno, os.strerror(error.errno or 0), name) from error
        raise


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder to fill. It gets its name when the block ends without an error, and vanishes otherwise.

    An existing folder of that name, or the one that a link of that name leads to, is replaced: the two are exchanged in
    one step, so that there is a complete folder under the name at any time. On a file system that cannot exchange
    (NFS), the old folder is first set aside as `.<name>.tmp-replaced`. If the process is killed before the new one has
    the name, the next call puts the old one back. Any other name with `TEMPORARY` that a killed process leaves is of no
    use.

    Raises:
        NotADirectoryError: something else than a folder has the name.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
    replaced = path.with_name(f".{path.name}{TEMPORARY}replaced")
    temporary = path.with_name(f".{path.name}{TEMPORARY}{os.getpid()}-{secrets.token_hex(4)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    if replaced.exists():  # Under a name from which it can be put back, a folder is never filled or removed.
        replaced.rename(temporary if path.exists() else path)
        shutil.rmtree(temporary, ignore_errors=True)
    try:
        with _named(path, temporary):
            temporary.mkdir()
            yield temporary
            sync_tree(temporary)
        if not path.exists():
            temporary.rename(path)
        elif not _rename(temporary, path, _RENAME_EXCHANGE):
            path.rename(replaced)
            temporary.rename(path)
            replaced.rename(temporary)
        sync_file(path.parent)
    finally:
        if replaced.exists() and not path.exists():
            replaced.rename(path)
        shutil.rmtree(temporary, ignore_errors=True)  # the new folder after an error, or else the old one


def rename_new(source: Path, target: Path) -> None:
    """Rename a file, a link or a folder to a name that nothing has.

    Raises:
        FileExistsError: something has the name `target`; nothing was changed.
        OSError: as from `os.rename`.
    """
    if _rename(source, target, _RENAME_NOREPLACE):
        return
    if os.path.lexists(target):  # this file system cannot do both in one step
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    os.rename(source, target)


def _rename(source: Path, target: Path, flags: int) -> bool:
    """Call Linux's `renameat2`; return whether the file system can do what `flags` say."""
    if (renameat2 := getattr(_LIBC, "renameat2", None)) is None:  # glibc before 2.28, and musl
        return False
    if not renameat2(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), flags):
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
        return False
    raise OSError(number, os.strerror(number), str(source), None, str(target))


@contextmanager
def locked_file(path: Path, on_held: Callable[[str], Exception]) -> Iterator[TextIO]:
    """Hold an exclusive lock on the file `path`; the operating system releases it when the process ends.

    The file is created if necessary, and holds the host and process id of its last holder. File systems without locks
    are used without one. `on_held` makes the error that is raised if another process holds the lock, given the text in
    the file.

    Raises:
        OSError: the file cannot be created, or the file system fails; it has the name of the file.
    """
    with open(path, "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise on_held(file.read().strip() or "an unknown process") from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise OSError(error.errno, error.strerror, str(path)) from None
        file.truncate(0)
        file.write(f"{os.uname().nodename}, pid {os.getpid()}\n")
        file.flush()
        yield file


def sync_file(path: Path) -> None:
    """Make a file's content, or the names in a folder, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Make all files and names at and below a folder durable; links are not followed."""

    def fail(error: OSError) -> None:
        raise error

    for parent, _, files in os.walk(folder, topdown=False, onerror=fail):
        for file in files:
            path = Path(parent, file)
            if not path.is_symlink():
                sync_file(path)
        sync_file(Path(parent))


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON to `path`, atomically."""
    with atomic_file(path) as file:
        file.write(json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """Return `value` as indented JSON in UTF-8."""
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()


def parse_json(data: bytes | str) -> Any:
    """Return the JSON value in `data`; raise ValueError if it is not JSON, or nested too deeply to be read."""
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_json(path: Path, what: str) -> Any:
    """Return the JSON value in the file `path`; raise DataError if it is missing, cannot be read, or is not JSON.

    `what` says for errors what the file is and what to do about it, e.g. "the layout; convert the dataset again".
    """
    try:
        return parse_json(read_bytes(path, what))
    except ValueError as error:
        raise DataError(f"{path} is not valid JSON: {error} ({what}).") from None


def read_bytes(path: Path, what: str) -> bytes:
    """Return the content of the file `path`; raise DataError if it is missing or cannot be read, as `read_json`."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"{path} is missing ({what}).") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error} ({what}).") from None


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_identity(path: Path) -> tuple[int, int] | None:
    """Return device and inode of the file that a path leads to, None if there is none. Names of one file have one."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
