"""Puts the files of a folder into a store, whole: the one that makes it complete last, and after a crash only the rest.

    <journal>     a line per file that is in the store: name, length and stamp

An object is put from a file that is complete, so it is whole or absent; large ones by a multipart upload, which is
removed if it fails.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from tfrecords.base_errors import ConversionError, SimimgError
from tfrecords.convert.sources.read_errors import redacted
from tfrecords.convert.sources.remote import in_threads, stamp_of
from tfrecords.locations import url_of
from tfrecords.storage.claims import Claim, claimed, refused_to_overwrite
from tfrecords.storage.drivers import WAITS_S, open_driver, paths_below, patiently, remove_paths
from tfrecords.storage.remote_folder import origin_of, replace

_NUM_THREADS = 4  # each large file is sent in several parts at once besides


class Upload:
    """Files of `folder` on their way to `url`, which the driver knows as `target`, by the holder of `claim`."""

    def __init__(self, driver: Any, url: str, target: str, folder: Path, journal: Path, claim: Claim) -> None:
        self.url, self._driver, self._target = url, driver, target
        self._folder, self._journal, self._claim = folder, journal, claim

    def send(
        self,
        names: Sequence[str],
        last: Sequence[str],
        *,
        describe: Callable[[str], object],
        new: str = "",
        is_ours: Callable[[str], bool] = lambda name: False,
    ) -> None:
        """Put files by name, then those in `last` in their order. `new` is put only if there is none.

        Before, objects that `is_ours` says yes to and that are no file of these are removed: an interrupted call with
        other options had put them there.

        Raises:
            ConversionError: another process writes, or has written, the same.
            DataError: the store does not take a file, after several attempts; those that it took are kept.
        """
        if new and patiently(lambda: self._driver.exists(f"{self._target}/{new}"), self.url):
            raise self._exists(new)
        sent = self._sent()
        todo = [name for name in sorted(names) if not self._is_there(sent.get(name), name)]
        num_bytes = sum((self._folder / name).stat().st_size for name in todo)
        describe(f"sending {len(todo):,} files ({num_bytes / 1e6:,.0f} MB) to {redacted(self.url)}")
        self._claim.check()
        self._claim.is_sending = True
        self._remove({*names, *last}, is_ours)
        with open(self._journal, "a") as journal:
            for name, facts in in_threads(self._put, todo, _NUM_THREADS):
                journal.write(json.dumps([name, *facts]) + "\n")
                journal.flush()
        self._claim.check()
        for name in last:
            self._put(name, new=name == new)
        self._claim.is_sending = False

    def _remove(self, names: set[str], is_ours: Callable[[str], bool]) -> None:
        there = paths_below(self._driver, self._target, self.url)
        found = {path: path.removeprefix(self._target).lstrip("/") for path in there}
        others = [path for path, name in found.items() if name not in names and is_ours(name)]
        remove_paths(self._driver, others, self.url)

    def _sent(self) -> dict[str, tuple[int, int]]:
        found: dict[str, tuple[int, int]] = {}
        with suppress(FileNotFoundError):
            for line in self._journal.read_text().splitlines():
                with suppress(ValueError):  # a power failure
                    name, num_bytes, stamp = json.loads(line)
                    found[name] = num_bytes, stamp
        return found

    def _is_there(self, facts: tuple[int, int] | None, name: str) -> bool:
        if facts is None or facts[0] != (self._folder / name).stat().st_size:
            return False
        try:
            return patiently(lambda: self._facts(name), self.url) == facts
        except SimimgError:
            return False

    def _facts(self, name: str) -> tuple[int, int]:
        info = self._driver.info(f"{self._target}/{name}")
        return int(info["size"]), stamp_of(info)

    def _exists(self, name: str) -> ConversionError:
        return ConversionError(
            f"{redacted(self.url)}/{name}: another conversion has just written it. Give the same command again."
        )

    def _put(self, name: str, *, new: bool = False) -> tuple[int, int]:
        """Put a file and return its length and stamp in the store; a `new` one only if there is none."""
        path, url, target = self._folder / name, f"{self.url}/{name}", f"{self._target}/{name}"

        def put() -> tuple[int, int]:
            if new and self._claim.conditional:
                try:
                    self._driver.pipe_file(target, path.read_bytes(), mode="create")
                except Exception as error:
                    # An attempt whose answer was lost may have written it.
                    if not refused_to_overwrite(error) or self._driver.cat_file(target) != path.read_bytes():
                        raise self._exists(name) if refused_to_overwrite(error) else error from None
            else:
                if new and self._driver.exists(target):
                    raise self._exists(name)
                self._driver.put_file(str(path), target)
            facts = self._facts(name)
            if facts[0] != path.stat().st_size:
                raise OSError(f"{facts[0]:,} bytes of {path.stat().st_size:,} were written")
            return facts

        return patiently(put, url, doing="write")


@contextmanager
def rewritten(folder: Path, name: str, what: str) -> Iterator[Path]:
    """Yield a folder in which the file `name` of `folder` can be changed, `folder` itself unless it stands for a URL.

    Of a URL it is a temporary one with what the store has now. After the block the file is put, and is in `folder`,
    too. Nobody else changes it meanwhile, see `tfrecords.storage.claims` for errors.
    """
    if not (url := url_of(origin_of(folder))):
        yield folder
        return
    driver, root = open_driver(url, what)
    path = f"{root}/{name}"
    with ExitStack() as stack:
        for wait_s in (*WAITS_S, None):  # others need it for a moment only
            try:
                stack.enter_context(claimed(driver, path, url, what))
                break
            except ConversionError:
                if wait_s is None:
                    raise
                time.sleep(wait_s)
        temporary = stack.enter_context(tempfile.TemporaryDirectory())
        changed = Path(temporary, name)
        changed.parent.mkdir(exist_ok=True)
        if patiently(lambda: driver.exists(path), url):
            changed.write_bytes(patiently(lambda: driver.cat_file(path), url))
        yield Path(temporary)
        data = changed.read_bytes()
        patiently(lambda: driver.pipe_file(path, data), url, doing="write")
        (folder / name).parent.mkdir(exist_ok=True)
        replace(folder / name, lambda one: one.write_bytes(data))
