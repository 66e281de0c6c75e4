"""A bounded cache of objects on the local disk, which all processes and threads of a machine share.

    <folder>/objects/<key>                            a complete object; its time is that of its last use
    <folder>/objects/.<key>.tmp-<bytes>-<pid>-<hex>   one that is being fetched
    <folder>/datasets/<name>-<digest>/                links that give objects the names that they have in a dataset
    <folder>/*.lock                                   locks, see `tfrecords.storage.range_locks`

1. A key has everything in it that the content depends on, so an object never changes under its key.
2. A name without a dot in front is that of a complete object: it was fetched under another name, checked, synced, and
   renamed.
3. An object is fetched once: whoever needs it meanwhile waits. If the process that fetches it is killed, another one
   begins again, and removes what it left.
4. A process holds what it has asked for until it ends or releases it. What somebody holds is not removed.
5. The bytes of all objects, and of those that are being fetched, stay within the bound. What was used longest ago makes
   room first.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import re
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tfrecords.base_errors import UsageError
from tfrecords.format.atomic_files import TEMPORARY, sync_file
from tfrecords.machine_limits import user_cache
from tfrecords.options import option
from tfrecords.storage.range_locks import RangeLocks, opened_locks

DIR_VARIABLE, BYTES_VARIABLE = "SIMIMG_CACHE_DIR", "SIMIMG_CACHE_BYTES"
AUTO = "auto"
_FREE_SHARE = 0.9  # of the disk's free bytes that the cache may take by default
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
OBJECTS = "objects"
_IN_USE, _FETCHING, _ROOM = "in_use.lock", "fetching.lock", "room.lock"


@dataclasses.dataclass(frozen=True, kw_only=True)
class CacheOptions:
    """Where data of object stores is kept on this machine; each option sets an environment variable.

    Raises UsageError if `cache_bytes` is no number of bytes.
    """

    cache_dir: str = option(
        "Folder for what is read of datasets at URLs, and for a conversion to one; by default ~/.cache/simimg.",
        "",
        group="datasets at URLs",
        variable=DIR_VARIABLE,
    )
    cache_bytes: str = option(
        "Most bytes that it may keep of what is read, such as 200GB; what was used longest ago makes room. auto leaves "
        "a tenth of the disk's free space.",
        AUTO,
        group="datasets at URLs",
        variable=BYTES_VARIABLE,
    )

    def __post_init__(self) -> None:
        parse_bytes(self.cache_bytes)


def cache_folder() -> Path:
    """Return the folder of the cache, as the environment says; raises UsageError if it names none."""
    if given := os.environ.get(DIR_VARIABLE):
        return Path(given).expanduser().absolute()
    if folder := user_cache():
        return folder
    raise UsageError(
        "A dataset at a URL needs a cache, and neither XDG_CACHE_HOME nor HOME is an absolute path. Name a folder that "
        f"can be written, with --cache_dir or {DIR_VARIABLE}."
    )


def parse_bytes(text: str) -> int | None:
    """Return a number of bytes such as 5000000000, 5e9 or 5GB; None for `auto`. Raises UsageError for another text."""
    if text.strip().lower() == AUTO:
        return None
    match = re.fullmatch(r"([0-9][0-9_]*\.?[0-9]*(?:e[0-9]+)?)\s*([KMGT]?)B?", text.strip(), re.IGNORECASE)
    number = float(match[1]) * _UNITS[match[2].upper()] if match else 0.0
    if not 1 <= number < 2**62:
        raise UsageError(f"--cache_bytes={text}: should be a number of bytes, such as 200GB, or {AUTO}.")
    return int(number)


class NoRoom(UsageError):
    """Everything in the cache is in use."""


class ObjectCache:
    """The cache in `folder`, of at most `max_bytes`; None leaves a tenth of the disk's free space."""

    def __init__(self, folder: Path, max_bytes: int | None = None) -> None:
        self.folder, self._objects, self._max_bytes = folder, folder / OBJECTS, max_bytes
        try:
            self._objects.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"--cache_dir={folder} cannot be made: {error.strerror}. Name a folder that can be written."
            ) from None

    @classmethod
    def of_environment(cls) -> ObjectCache:
        """Return the cache that the environment names; raises UsageError if it names none that can be used."""
        return cls(cache_folder(), parse_bytes(os.environ.get(BYTES_VARIABLE) or AUTO))

    def check_size(self, num_bytes: int) -> None:
        """Raise UsageError if the cache can never hold so many bytes at once; nothing has to be read to find out."""
        if not self.fits(num_bytes):
            raise UsageError(
                f"--cache_bytes={self._whole()}: {num_bytes:,} bytes are needed at once. Give it more bytes, or read "
                "one split or one dataset at a time."
            )

    def fits(self, num_bytes: int) -> bool:
        """Return whether the cache could hold so many bytes at once if nothing else were in it."""
        return num_bytes <= self._whole()

    def _whole(self) -> int:
        return self._limit(sum(entry.stat().st_size for entry in _there(self._objects)))

    def has(self, key: str) -> bool:
        """Return whether the cache has an object now."""
        return (self._objects / key).exists()

    def hold(self, key: str, num_bytes: int, fetch: Callable[[Path], None]) -> Path:
        """Return the path of an object, which is held until this process ends.

        Args:
            key: the object's name: letters, digits, `.`, `_` and `-`, at most 200.
            num_bytes: its length.
            fetch: writes the object to a path and checks it; called unless the cache has it.

        Raises:
            NoRoom: everything in the cache is in use.
            Exception: whatever `fetch` raises; the cache is then as before.
        """
        path = self._objects / key
        with _holding(_in_use(self.folder / _IN_USE), key):
            if self._is_there(path, num_bytes):
                return path
            with opened_locks(self.folder / _FETCHING) as fetching:
                fetching.acquire(key)
                if self._is_there(path, num_bytes):
                    return path
                temporary = self._make_room(key, num_bytes)
                try:
                    fetch(temporary)
                    if (length := temporary.stat().st_size) != num_bytes:
                        raise OSError(f"{length:,} bytes of {num_bytes:,} were read")
                    sync_file(temporary)
                    os.replace(temporary, path)
                except BaseException:
                    temporary.unlink(missing_ok=True)
                    raise
        return path

    def release(self, key: str) -> None:
        """Hold an object no more, unless another part of this process does."""
        _release(_in_use(self.folder / _IN_USE), key)

    def _is_there(self, path: Path, num_bytes: int) -> bool:
        """Return whether the cache has an object, which is used now."""
        try:
            os.utime(path)
            return path.stat().st_size == num_bytes
        except FileNotFoundError:
            return False

    def _make_room(self, key: str, num_bytes: int) -> Path:
        """Return the temporary name of an object that is being fetched; its file exists, and its bytes count."""
        with opened_locks(self.folder / _ROOM) as room, opened_locks(self.folder / _FETCHING) as others:
            room.acquire("")
            used, awaited, objects = 0, 0, []
            for entry in list(os.scandir(self._objects)):
                with suppress(FileNotFoundError):
                    fetched, reserved = _fetched_key(entry.name)
                    if not fetched:
                        status = entry.stat()
                        objects.append((status.st_mtime_ns, entry.name, status.st_size))
                        used += status.st_size
                    elif fetched == key or others.try_acquire(fetched):  # its process was killed
                        os.unlink(entry.path)
                        others.release(fetched)
                    else:
                        used += reserved
                        awaited += max(0, reserved - entry.stat().st_size)
            limit = self._limit(used - awaited)
            with opened_locks(self.folder / _IN_USE) as in_use:
                for _, name, size in sorted(objects):
                    if used + num_bytes <= limit:
                        break
                    if name != key and in_use.try_acquire(name):
                        with suppress(FileNotFoundError):
                            os.unlink(self._objects / name)
                        in_use.release(name)
                        used -= size
            if used + num_bytes > limit:
                raise NoRoom(
                    f"--cache_bytes={limit}: {self.folder} has {used:,} bytes in use, and {num_bytes:,} more are "
                    "needed. Give it more bytes, or read one split or one dataset at a time."
                )
            temporary = self._objects / f".{key}{TEMPORARY}{num_bytes}-{os.getpid()}-{secrets.token_hex(4)}"
            temporary.touch()
            return temporary

    def _limit(self, written: int) -> int:
        if self._max_bytes is not None:
            return self._max_bytes
        status = os.statvfs(self._objects)
        return written + int(_FREE_SHARE * status.f_bavail * status.f_frsize)


def _there(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Yield the complete objects."""
    for entry in list(os.scandir(folder)):
        with suppress(FileNotFoundError):
            if not entry.name.startswith(".") and entry.stat():
                yield entry


def _fetched_key(name: str) -> tuple[str, int]:
    """Return the key in the temporary name of an object, and its bytes; ("", 0) for a complete object."""
    if not name.startswith("."):
        return "", 0
    key, _, rest = name[1:].partition(TEMPORARY)
    number = rest.partition("-")[0]
    return key, int(number) if number.isdigit() else 0


_HOLDERS: dict[tuple[int, str], int] = {}  # how often this process holds a key, by its locks
_HOLDERS_LOCK = threading.Lock()


@functools.cache
def _in_use(path: Path) -> RangeLocks:
    """Return the locks of what this process holds; they are never closed, and a forked child has them, too."""
    return RangeLocks(path)


@contextmanager
def _holding(in_use: RangeLocks, key: str) -> Iterator[None]:
    """Hold a key, which stays held after the block, unless it fails and nobody else in this process holds it."""
    name = (id(in_use), key)
    with _HOLDERS_LOCK:
        _HOLDERS[name] = _HOLDERS.get(name, 0) + 1
    in_use.share(key)
    try:
        yield
    except BaseException:
        _release(in_use, key)
        raise


def _release(in_use: RangeLocks, key: str) -> None:
    name = (id(in_use), key)
    with _HOLDERS_LOCK:
        _HOLDERS[name] -= 1
        if not _HOLDERS[name]:
            in_use.release(key)
