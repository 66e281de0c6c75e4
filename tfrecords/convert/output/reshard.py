"""Makes the shards of the data set of those of the first plan: no picture is decoded a second time.

A shard whose records stay together is sealed: checked, and made durable, with its SHA-256. The others are put together
anew.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from itertools import accumulate
from pathlib import Path

import numpy as np

from tfrecords.base_errors import ConversionError, CorruptRecordError
from tfrecords.convert.state.receipts import write_receipt
from tfrecords.convert.workers.shard_worker import Monitor, writing
from tfrecords.format.atomic_files import sync_file
from tfrecords.format.layout import Offsets, ShardInfo
from tfrecords.format.shard import ShardReader, ShardWriter, index_bytes, index_path
from tfrecords.format.shard_scan import ShardScan, scan_shard

__all__ = ["ReshardTask", "SealTask", "is_whole", "link_or_copy"]


_AGAIN = "Give the same command again: the shard is done anew."


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReshardTask:
    """A shard to be put together: record i is record `positions[i]` of `sources[source_of[i]]`.

    `rows`, `positions` are int64, `source_of` int32, all `[num_records]`. With raw pixels `offsets` says how long a
    record is; the others are found by their sidecars.
    """

    shard: Path
    receipt: Path
    inputs: str
    sources: tuple[Path, ...]
    rows: np.ndarray
    source_of: np.ndarray
    positions: np.ndarray
    offsets: Offsets

    def begin(self, monitor: Monitor) -> Callable[[], None]:
        """Puts the shard together; returns what makes it and its receipt durable and names them.

        Raises:
            Stopped: the monitor said so; nothing of the shard is left.
            ConversionError: the shard cannot be written, or a record is not what was written once.
        """
        stride = self.offsets.record_bytes
        readers = [ShardReader(path) for path in self.sources]
        places = [] if stride else [reader.offsets().tolist() for reader in readers]
        with ExitStack() as stack:
            stack.enter_context(writing(self.shard))
            writer = stack.enter_context(ShardWriter(self.shard, index=not stride))
            for row, source, position in zip(self.rows, self.source_of, self.positions, strict=True):
                monitor.begin(int(row))
                offset, length = (int(position) * stride, stride) if stride else places[source][position]
                try:  # its checksums, too: a shard may have lain there since a call of last week
                    writer.write_framed(readers[source].read_framed(offset, length))
                except CorruptRecordError as error:
                    raise ConversionError(f"{str(error).removesuffix(' Convert it again.')} {_AGAIN}") from None
            shard = stack.pop_all()

        def finish() -> None:
            shard.close()
            with writing(self.receipt):
                write_receipt(self.receipt, self.inputs, writer.info())

        return finish


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SealTask:
    """A shard of the first plan that is one of the data set's; `rows`, int64 `[num_files]`, are those that it is of."""

    shard: Path
    receipt: Path
    inputs: str
    rows: np.ndarray
    info: ShardInfo

    def begin(self, monitor: Monitor) -> Callable[[], None]:
        """Checks the shard; returns what makes it durable and writes its receipt.

        Raises:
            ConversionError: it cannot be read, or is not what was written once.
        """
        for row in self.rows[:1].tolist():
            monitor.begin(row)
        with writing(self.shard):
            scan = _whole_scan(self.shard, self.info)
        if scan is None:
            raise ConversionError(f"{self.shard} was damaged since it was written. {_AGAIN}")

        def finish() -> None:
            with writing(self.shard):
                for path in (self.shard, index_path(self.shard)):
                    if path == self.shard or path.exists():
                        sync_file(path)
            with writing(self.receipt):
                write_receipt(self.receipt, self.inputs, dataclasses.replace(self.info, sha256=scan.sha256))

        return finish


def is_whole(shard: Path, info: ShardInfo) -> bool:
    """Tells whether a shard that was not sealed, and its sidecar if it has one, are as they were written.

    They are not after a power failure, of which a process that was merely killed knows nothing.
    """
    return _whole_scan(shard, info) is not None


def _whole_scan(shard: Path, info: ShardInfo) -> ShardScan | None:
    scan = scan_shard(shard)
    if scan.faults or not scan.whole or (scan.num_bytes, len(scan.ids)) != (info.num_bytes, info.num_examples):
        return None
    index = index_path(shard)
    if index.exists():
        places = zip(accumulate(scan.lengths, initial=0), scan.lengths, strict=False)
        if index.read_bytes() != index_bytes(places):
            return None
    return scan


def link_or_copy(shard: Path, target: Path) -> None:
    """Gives a finished shard, and its sidecar where it has one, a second name; a copy where links are not to be had."""
    pairs = [(shard, target)]
    if index_path(shard).exists():
        pairs.append((index_path(shard), index_path(target)))
    for source, link in pairs:
        try:
            os.link(source, link)
        except OSError:  # no hard links here: exFAT, SMB, some FUSE file systems
            shutil.copyfile(source, link)
            sync_file(link)
