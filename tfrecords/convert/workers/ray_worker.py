"""The part that runs on the nodes of a Ray cluster: the tasks, what is checked before the first of them, and the board.

The board is an actor beside the parent. Running tasks report to it, so that the parent knows how far they are, where
they run, and that they are alive: Ray itself never gives up a task on a machine that hangs.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.util
import platform
import threading
import time
from pathlib import Path
from typing import Any

from tfrecords.base_errors import ConversionError, SimimgError
from tfrecords.convert.image.decoder import PIXELS, decoder_versions
from tfrecords.convert.sources import Files, printable
from tfrecords.convert.sources.read_errors import read_file
from tfrecords.convert.workers.shard_worker import Monitor, unpack
from tfrecords.format.quarantine import Refusal
from tfrecords.installed_versions import installed_version
from tfrecords.locations import url_of
from tfrecords.machine_limits import limit_cores
from tfrecords.storage.handover import put_probe

SIGN_S = 2.0  # between two signs of life

_agreed: set[str] = set()  # the probes of the agreements that this process keeps


@dataclasses.dataclass(frozen=True)
class Sign:
    """What a task last said of itself: its node, files done and rejected, and the row that it is at; -1 between
    files.
    """

    node: str
    node_id: str = ""
    done: int = 0
    refused: int = 0
    row: int = -1


class Board:
    """The latest signs of the attempts at tasks, by number. The class of an actor."""

    def __init__(self) -> None:
        self._signs: dict[int, tuple[float, Sign]] = {}

    def note(self, attempt: int, sign: Sign) -> None:
        """Keep a sign."""
        self._signs[attempt] = time.monotonic(), sign

    def read(self) -> dict[int, tuple[float, Sign]]:
        """Return how long ago each sign came, in seconds, and the sign."""
        now = time.monotonic()
        return {attempt: (now - then, sign) for attempt, (then, sign) in self._signs.items()}

    def forget(self, attempt: int) -> None:
        """Drop the signs of an attempt."""
        self._signs.pop(attempt, None)


@dataclasses.dataclass(frozen=True)
class Agreement:
    """What has to be the same on each node.

    Attributes:
        versions: all that makes pixels, with the code of this package itself, as sorted pairs.
        folder: the folder of the shards, or the URL where they are handed over.
        probe: a file in it, under a name that no other run has.
        sample: a file of the source that the parent could read, its place and the SHA-256 of its bytes; or None.
    """

    versions: tuple[tuple[str, str], ...]
    folder: str
    probe: str
    sample: tuple[Files, str, tuple[int, int, int] | None, bytes] | None

    def check(self) -> str:
        """Return why this node cannot work for the parent, as the end of a sentence; empty if it can."""
        differing = [f"{name} {ours} (here {theirs})" for (name, theirs), (_, ours) in self._compared()]
        if differing:
            return f"has {', '.join(differing)}, which could make other pixels; install the same versions there"
        if url_of(self.folder):
            try:
                put_probe(self.folder, self.probe)
            except SimimgError as error:
                return f"cannot write to the store: {str(error).rstrip('.')}"
        elif not Path(self.folder, self.probe).exists():
            return f"does not see {self.folder}; mount it there under the same path"
        if self.sample is not None:
            files, path, place, digest = self.sample
            try:
                same = hashlib.sha256(read_file(files, path, place)).digest() == digest
            except (Refusal, ConversionError):
                same = False
            if not same:
                return f"cannot read {printable(path)}; make the images visible there under the same path"
        return ""

    def _compared(self) -> list[tuple[tuple[str, str], tuple[str, str]]]:
        return [(theirs, ours) for theirs, ours in zip(self.versions, versions(), strict=True) if theirs != ours]


@functools.cache
def versions() -> tuple[tuple[str, str], ...]:
    """Return the versions of all that makes pixels, by name, with the code of this package itself."""
    code = hashlib.sha256()
    for name in ("simimg", "tfrecords"):
        spec = importlib.util.find_spec(name)
        for folder in (spec and spec.submodule_search_locations) or ():
            for path in sorted(Path(folder).rglob("*.py")):
                code.update(path.read_bytes())
    own = f"{installed_version('simimg-tf') or 'unknown'}, pixels {PIXELS}, code {code.hexdigest()[:8]}"
    return (("simimg", own), ("numpy", installed_version("numpy") or "unknown"), *sorted(decoder_versions().items()))


def node_name() -> str:
    """Return the name of this machine with the address by which Ray knows it."""
    import ray

    return f"{platform.node()} ({ray.util.get_node_ip_address()})"


def _node_id() -> str:
    import ray

    return str(ray.get_runtime_context().get_node_id())


def check_node(agreement: Agreement) -> tuple[str, str]:
    """Return the name of this node, and why it cannot work for the parent, see `Agreement.check`."""
    return node_name(), agreement.check()


def run_task(element: bytes, attempt: int, board: Any, agreement: Agreement) -> None:
    """Run the task in an element; raise ConversionError if it failed, or if this node joined and cannot work."""
    if agreement.probe not in _agreed:
        if reason := agreement.check():
            raise ConversionError(f"the Ray node {node_name()} {reason}.")
        _agreed.add(agreement.probe)
    limit_cores(1)  # Ray runs a task on each of the others
    monitor = _Signs(attempt, board)
    try:
        unpack(element).run_elsewhere(monitor)
    finally:
        monitor.stop()


class _Signs(Monitor):
    """Gives signs of life until it is stopped, from a thread of its own, so that a long decode is no silence."""

    def __init__(self, attempt: int, board: Any) -> None:
        self._attempt, self._board = attempt, board
        self._node = node_name(), _node_id()
        self._done = self._refused = 0
        self._row = -1
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._give, daemon=True)
        self._thread.start()

    def begin(self, row: int) -> None:
        self._row = row

    def end(self, *, refused: bool) -> None:
        self._done += 1
        self._refused += refused

    def stop(self) -> None:
        """Give no more signs."""
        self._stopped.set()
        self._thread.join()

    def _give(self) -> None:
        while True:
            self._board.note.remote(self._attempt, Sign(*self._node, self._done, self._refused, self._row))
            if self._stopped.wait(SIGN_S):
                return
