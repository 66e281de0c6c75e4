"""Who writes a dataset or an index in an object store: one process at a time, also when one dies.

    <data_dir>/<name>/.<version>.writing/<token>      who writes DATA_DIR/NAME/VERSION: host, process, start

An object store has no locks, and not every server refuses to write an object that exists. So each writer puts an object
of its own here first, and lists the others then: of two that begin at once, at least one sees the other and gives up.
The object is put again every minute. One that was not for ten minutes, by the server's clock, is that of a process that
is gone, as is one of this machine whose process has ended; the next writer removes both.
"""

from __future__ import annotations

import datetime
import os
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tfrecords.base_errors import ConversionError
from tfrecords.format.atomic_files import json_bytes, parse_json
from tfrecords.storage.drivers import patiently, usage_errors

_RENEW_S = 60.0
_STALE_S = 600.0
_OWN: set[str] = set()  # the tokens of this process's claims


class Claim:
    """A claim that is held.

    Attributes:
        conditional: whether the server refuses to write an object that exists.
        is_sending: to be set while objects are on their way to the store.
    """

    def __init__(self, driver: Any, folder: str, url: str) -> None:
        self._driver, self._folder, self._url = driver, folder, url
        self._token = secrets.token_hex(8)
        self._path = f"{folder}/{self._token}"
        self._ended = threading.Event()
        self.conditional = self.is_sending = False

    def begin(self, what: str) -> None:
        """Put the claim, and find out who else has one; see `claimed` for errors."""
        _OWN.add(self._token)
        with usage_errors(self._url, what):
            self._put()
            try:
                self._check_alone()
                self.conditional = _refuses(self._driver, self._path, self._content())
            except BaseException:
                self.end()
                raise
        threading.Thread(target=self._renew, daemon=True).start()

    def end(self) -> None:
        """Remove the claim, unless objects may still be on their way; then it becomes too old, for other machines."""
        self._ended.set()
        _OWN.discard(self._token)
        if not self.is_sending:
            with suppress(Exception):  # a store that does not answer keeps it
                self._driver.rm_file(self._path)

    def check(self) -> None:
        """Raise ConversionError if somebody took the claim for that of a process that is gone."""
        if not patiently(lambda: self._driver.exists(self._path), self._url):
            raise ConversionError(
                f"{self._url}: this process did not reach the store for {_STALE_S / 60:.0f} minutes, and another one "
                "writes there now. Wait until it has finished."
            )

    def _check_alone(self) -> None:
        found = {str(info["name"]): info for info in self._driver.ls(self._folder, detail=True)}
        own: dict[str, Any] = next((info for path, info in found.items() if path.endswith(self._token)), {})
        for path, info in sorted(found.items()):
            if path.endswith(self._token) or info.get("type") == "directory":
                continue
            try:
                holder = parse_json(self._driver.cat_file(path))
            except (FileNotFoundError, ValueError):  # it was removed meanwhile
                continue
            age_s = _seconds(own) - _seconds(info)
            if _has_ended(holder, path.rpartition("/")[2]) or age_s > _STALE_S:
                with suppress(FileNotFoundError):
                    self._driver.rm_file(path)
                continue
            raise ConversionError(
                f"{self._url}: {holder.get('host')}, pid {holder.get('pid')}, is writing it since "
                f"{holder.get('since')}. Wait until it has finished, or stop it; if it is gone already, wait "
                f"{_STALE_S / 60:.0f} minutes."
            )

    def _renew(self) -> None:
        while not self._ended.wait(_RENEW_S):
            with suppress(Exception):  # the next time, perhaps
                if self._driver.exists(self._path):
                    self._put()
                    if self._ended.is_set():  # meanwhile, so that it was put again
                        self.end()

    def _put(self) -> None:
        self._driver.pipe_file(self._path, self._content())

    def _content(self) -> bytes:
        now = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
        return json_bytes({**_process(os.getpid()), "pid": os.getpid(), "since": now})


@contextmanager
def claimed(driver: Any, target: str, url: str, what: str) -> Iterator[Claim]:
    """Hold the right to write the dataset, index or file `target`, a driver's path, at `url`, which `what` names.

    Raises:
        UsageError: the store refuses to write there, or does not answer.
        ConversionError: another process is writing it.
    """
    parent, _, version = target.rpartition("/")
    claim = Claim(driver, f"{parent}/.{version}.writing", url)
    claim.begin(what)
    try:
        yield claim
    finally:
        claim.end()


def refused_to_overwrite(error: Exception) -> bool:
    """Return whether an error says that an object was not written because there is one; stores have several."""
    text = f"{error} {getattr(error.__cause__, 'response', '')}"
    return isinstance(error, FileExistsError) or "PreconditionFailed" in text or "pre-condition" in text


def _refuses(driver: Any, path: str, content: bytes) -> bool:
    """Return whether the server refuses to create an object that exists; some answer that they did, and did."""
    try:
        driver.pipe_file(path, content, mode="create")
    except Exception as error:
        return refused_to_overwrite(error)
    return False


def _has_ended(holder: Any, token: str) -> bool:
    """Return whether a claim is of this machine, and nobody holds it here any more."""
    if not isinstance(holder, dict) or not isinstance(holder.get("pid"), int):
        return True
    own = _process(os.getpid())
    if (holder.get("host"), holder.get("boot")) != (own["host"], own["boot"]):
        return False
    if holder["pid"] == os.getpid():
        return token not in _OWN
    return _process(holder["pid"]) != {key: holder.get(key) for key in own}


def _process(pid: int) -> dict[str, str]:
    """Return what tells a process from others that had or will have its number."""
    boot = start = ""
    with suppress(OSError, IndexError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        start = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    return {"host": os.uname().nodename, "boot": boot, "start": start}


def _seconds(info: dict[str, Any]) -> float:
    """Return when an object was written, by the server's clock; 0 if its listing does not say."""
    for name in ("LastModified", "last_modified", "updated", "mtime", "created"):
        value: Any = info.get(name)
        if hasattr(value, "timestamp"):
            return float(value.timestamp())
        if isinstance(value, int | float):
            return float(value)
        if isinstance(value, str):
            with suppress(ValueError):
                return datetime.datetime.fromisoformat(value).timestamp()
    return 0.0
