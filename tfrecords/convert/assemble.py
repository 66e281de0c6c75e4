"""Assembles a shard from records that are there already: no picture is decoded a second time."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from tfrecords.convert.receipts import write_receipt
from tfrecords.convert.worker import Monitor, writing
from tfrecords.errors import ConversionError, CorruptRecordError
from tfrecords.format.layout import Offsets
from tfrecords.format.shard import ShardReader, ShardWriter, index_path

__all__ = ["AssembleTask", "link_or_copy"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AssembleTask:
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
        places = [] if stride else [reader.offsets() for reader in readers]
        with ExitStack() as stack:
            stack.enter_context(writing(self.shard))
            writer = stack.enter_context(ShardWriter(self.shard, index=not stride))
            for row, source, position in zip(self.rows, self.source_of, self.positions, strict=True):
                monitor.begin(int(row))
                offset, length = (int(position) * stride, stride) if stride else places[source][position]
                try:  # its checksums, too: a shard may have lain there since a call of last week
                    writer.write(readers[source].read(offset, length))
                except CorruptRecordError as error:
                    raise ConversionError(
                        f"{error} Or remove the folder of the unfinished conversion, and give the same command again."
                    ) from None
            shard = stack.pop_all()

        def finish() -> None:
            shard.close()
            with writing(self.receipt):
                write_receipt(self.receipt, self.inputs, writer.info())

        return finish


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
            with open(link, "rb") as file:
                os.fsync(file.fileno())
