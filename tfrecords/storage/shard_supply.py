"""Reads a dataset that is larger than the cache: shard by shard, the next one while one is read.

1. A reader holds the shard that it reads, and no other, so the cache stays within its bound.
2. Whoever waits for room holds nothing: then the shards of all readers of this process are released. They stay
   readable, because they are open. So two processes that share a cache never wait for each other.
3. The wait ends with an error when there was no room for ten minutes.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Mapping
from contextlib import suppress

from tfrecords.base_errors import DataError, SimimgError
from tfrecords.convert.sources.read_errors import redacted
from tfrecords.storage.object_cache import NoRoom
from tfrecords.storage.remote_folder import RemoteFolder, RemoteObject

_POLL_S = 0.2
_NO_ROOM_S = 600.0
_SUPPLIES: weakref.WeakSet[RemoteShards] = weakref.WeakSet()  # of this process


class RemoteShards:
    """The shards of a dataset by name, each with its SHA-256; see `tfrecords.format.absent_shards.ShardSupply`."""

    def __init__(self, remote: RemoteFolder, shards: Mapping[str, tuple[RemoteObject, str]]) -> None:
        self.remote, self.shards = remote, shards
        self.held: set[str] = set()
        self._lock = threading.Lock()
        _SUPPLIES.add(self)

    def lease(self) -> ShardLease:
        """Return the shards for a reader."""
        return ShardLease(self)

    def hold(self, file: str) -> int:
        """Return the descriptor of a shard, which is open and held."""
        path = self.remote.hold(*self.shards[file])
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        with self._lock:
            if file in self.held:
                self.remote.release(*self.shards[file])
            self.held.add(file)
        return descriptor

    def release(self, *files: str) -> None:
        """Hold these shards no more, or all of them."""
        with self._lock:
            for file in self.held & set(files) if files else {*self.held}:
                self.held.remove(file)
                self.remote.release(*self.shards[file])


class ShardLease:
    """One reader's shards."""

    def __init__(self, supply: RemoteShards) -> None:
        self._supply = supply
        self._file, self._descriptor = "", -1

    def path_of(self, file: str, following: str) -> str:
        """Return a path to open a shard by, see `tfrecords.format.absent_shards.Lease`."""
        self._close()
        self._descriptor, self._file = self._opened(file), file
        if following:
            threading.Thread(target=self._read_ahead, args=(following,), daemon=True).start()
        return f"/proc/self/fd/{self._descriptor}"  # also if it is released, and makes room for others

    def _opened(self, file: str) -> int:
        end = time.monotonic() + _NO_ROOM_S
        while True:
            try:
                return self._supply.hold(file)
            except NoRoom as error:
                if time.monotonic() > end:
                    raise DataError(
                        f"{redacted(self._supply.remote.url)}/{file}: {error} There was none for "
                        f"{_NO_ROOM_S / 60:.0f} minutes."
                    ) from None
                for supply in list(_SUPPLIES):
                    supply.release()
                time.sleep(_POLL_S)

    def _read_ahead(self, file: str) -> None:
        with suppress(SimimgError, OSError):  # the reader asks for it again, and says why it is not there
            wanted = self._supply.shards[file]
            self._supply.remote.hold(*wanted)
            self._supply.remote.release(*wanted)

    def _close(self) -> None:
        if self._file:
            os.close(self._descriptor)
            self._supply.release(self._file)
            self._file = ""

    def __del__(self) -> None:
        self._close()
