"""Makes the final shards from those of the first plan, without decoding an image a second time.

A shard whose records stay together is checked and made durable, with its SHA-256. The others are written again from the
records of the first plan's shards.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from tfrecords.base_errors import ConversionError, CorruptRecordError, DataError
from tfrecords.convert.plan.conversion_job import ConversionJob
from tfrecords.convert.plan.shard_plan import PlannedShard, ShardPlan
from tfrecords.convert.state.receipts import Receipt, read_info, write_receipt
from tfrecords.convert.state.workdir import WorkDir
from tfrecords.convert.workers.runner import Runner
from tfrecords.convert.workers.shard_worker import Monitor, Task, not_there, writing
from tfrecords.format.array_record_shard import ArrayRecordReader, ArrayRecordWriter
from tfrecords.format.atomic_files import sync_file
from tfrecords.format.jpeg_frame import sizes_path
from tfrecords.format.layout import Layout, ShardInfo
from tfrecords.format.naming import SIDECAR_FOLDERS, find_index, index_path
from tfrecords.format.parse_errors import readable
from tfrecords.format.record_layout import Offsets
from tfrecords.format.schema import PLAIN, Schema
from tfrecords.format.shard import ShardReader, ShardWriter, index_bytes, open_shard, write_index
from tfrecords.format.shard_scan import ShardScan, scan_shard

_AGAIN = "Give the same command again; the shard will be written again."


def reshard(
    job: ConversionJob,
    final: ShardPlan,
    receipt: Receipt,
    infos: Mapping[str, ShardInfo],
    workdir: WorkDir,
    runner: Runner,
) -> dict[str, tuple[Path, ShardInfo]]:
    """Return the path and the content of each shard of the `final` plan, by file name, and make those that are missing.

    `infos` are the first plan's shards, by file name; `workdir` holds them, and gets the new ones.
    """
    found = {
        planned.file: (workdir.shards / planned.file, infos[planned.file])
        for planned in final.shards
        if not planned.changed and infos[planned.file].sha256
    }
    todo = [planned for planned in final.shards if planned.file not in found]
    shard_of = np.full(len(job.source.paths), -1, np.int32)
    for number, planned in enumerate(job.plan.shards):
        shard_of[planned.rows] = number

    def take(task: Task) -> None:
        info = read_info(task.receipt, task.inputs, task.shard)
        if info is not None:
            found[task.shard.name] = (task.shard, info)

    def task_of(planned: PlannedShard) -> Task:
        if not planned.changed:
            return SyncTask(
                shard=workdir.shards / planned.file,
                receipt=workdir.receipt(planned.file, "sealed"),
                inputs=job.inputs(planned.rows),
                rows=planned.rows,
                info=infos[planned.file],
                schema=job.schema,
            )
        rows = planned.rows[receipt.positions[planned.rows] >= 0]
        numbers, source_of = np.unique(shard_of[rows], return_inverse=True)
        return ReshardTask(
            shard=workdir.assembled / planned.file,
            receipt=workdir.receipt(planned.file, "assembled"),
            inputs=job.inputs(rows),
            rows=rows,
            sources=tuple(workdir.shards / job.plan.shards[number].file for number in numbers),
            source_of=source_of.astype(np.int32),
            positions=receipt.positions[rows],
            offsets=job.config.offsets,
            sized=job.config.own_shapes,
        )

    def tasks() -> Iterator[Task]:
        for task in map(task_of, todo):
            take(task)  # of an earlier call
            if task.shard.name not in found:
                yield task

    runner.run(tasks(), take, lambda *_: None)
    for planned in todo:
        if planned.file not in found:
            raise not_there(Path(planned.file))
    return found


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReshardTask(Task):
    """Writes a shard from the records of others: record i is record `positions[i]` of `sources[source_of[i]]`.

    `positions` are int64, `source_of` int32, both `[num_records]` as `rows`. If all records have one length, `offsets`
    gives it; other records are found by their sidecars. ArrayRecord files find theirs by position. `sized` asks for the
    sidecar of sizes.
    """

    sources: tuple[Path, ...]
    source_of: np.ndarray
    positions: np.ndarray
    offsets: Offsets
    sized: bool = False

    def run(self, monitor: Monitor) -> None:
        """Write the shard; a ConversionError can also mean that a record was damaged since it was written."""
        shard = open_shard(self.shard, index=not self.offsets.record_bytes, sizes=self.sized)
        with writing(self.shard), shard as writer:
            copy = self._copier(writer)
            for row, source, position in zip(self.rows, self.source_of, self.positions, strict=True):
                monitor.begin(int(row))
                try:  # checksums are checked, too: the shard may have been written by a call a week ago
                    copy(int(source), int(position))
                except CorruptRecordError as error:
                    message = str(error).removesuffix(" Convert it again.").removesuffix(" Convert the images again.")
                    raise ConversionError(f"{message} {_AGAIN}") from None
        with writing(self.receipt):
            write_receipt(self.receipt, self.inputs, writer.info())

    def _copier(self, writer: ShardWriter | ArrayRecordWriter) -> Callable[[int, int], None]:
        """Return a function that appends a record, given the number of its source and its position there."""
        if isinstance(writer, ArrayRecordWriter):
            arrays = [ArrayRecordReader(path) for path in self.sources]
            return lambda source, position: writer.write(arrays[source].read(position))
        stride = self.offsets.record_bytes
        readers = [ShardReader(path) for path in self.sources]
        places = [] if stride else [reader.offsets().tolist() for reader in readers]

        def copy(source: int, position: int) -> None:
            offset, length = (position * stride, stride) if stride else places[source][position]
            writer.write_framed(readers[source].read_framed(offset, length))

        return copy


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SyncTask(Task):
    """Checks a shard of the first plan that the final plan keeps, and makes it durable."""

    info: ShardInfo
    schema: Schema = PLAIN

    def run(self, monitor: Monitor) -> None:
        """Do it; a ConversionError can also mean that the shard was damaged since it was written."""
        for row in self.rows[:1].tolist():
            monitor.begin(row)
        scan = whole_scan(self.shard, self.info, self.schema)
        if scan is None:
            raise ConversionError(f"{self.shard} was damaged since it was written. {_AGAIN}")
        with writing(self.shard):
            for path in (self.shard, find_index(self.shard), sizes_path(self.shard)):
                if path == self.shard or path.exists():
                    sync_file(path)
        with writing(self.receipt):
            write_receipt(self.receipt, self.inputs, dataclasses.replace(self.info, sha256=scan.sha256))


def whole_scan(shard: Path, info: ShardInfo, schema: Schema = PLAIN) -> ShardScan | None:
    """Return the scan of a shard that is not durable yet, if it and its sidecar, if any, still have what was written.

    A power failure can take it away; a killed process cannot. Raises DataError if it cannot be read.
    """
    index = find_index(shard)
    with readable(shard):
        scan = scan_shard(shard, schema=schema)
        if scan.faults or not scan.whole or (scan.num_bytes, len(scan.ids)) != (info.num_bytes, info.num_examples):
            return None
        if sizes_path(shard).exists() and len(sizes_path(shard).read_bytes().splitlines()) != info.num_examples:
            return None
        return None if index.exists() and index.read_bytes() != index_bytes(scan.lengths) else scan


def link_shard(dataset_dir: Path, info: ShardInfo, target: Path) -> ShardInfo:
    """Give the shard `info` of a dataset, and its sidecar if any, the second name `target`; return it under that name.

    Raises DataError if it is missing or incomplete.
    """
    shard = dataset_dir / info.file
    if not shard.is_file() or shard.stat().st_size != info.num_bytes:
        raise DataError(f"{shard} is missing or damaged; nothing was added. Convert the images again.")
    link_or_copy(shard, target)
    return dataclasses.replace(info, file=target.name)


def link_or_copy(shard: Path, target: Path) -> None:
    """Give a finished shard, and its sidecars if any, a second name; copy it if the file system has no hard links."""
    pairs = [(shard, target)]
    if find_index(shard).exists():
        pairs.append((find_index(shard), index_path(target)))
    if sizes_path(shard).exists():
        pairs.append((sizes_path(shard), sizes_path(target)))
    for source, link in pairs:
        try:
            os.link(source, link)
        except OSError:  # no hard links: exFAT, SMB, some FUSE file systems
            shutil.copyfile(source, link)
            sync_file(link)


def complete_indices(folder: Path, layout: Layout) -> None:
    """Write the sidecars of raw shards if `--write_index` asks for them, and put all sidecars into their folder."""
    record_bytes = layout.offsets.record_bytes
    for info in (info for infos in layout.splits.values() for info in infos):
        path = index_path(folder / info.file)
        if not path.exists() and record_bytes and layout.config.get("write_index"):
            write_index(folder / info.file, [record_bytes] * info.num_examples)
        for sidecar, place in zip((path, sizes_path(folder / info.file)), SIDECAR_FOLDERS, strict=True):
            if sidecar.parent == folder and sidecar.exists():
                (folder / place).mkdir(exist_ok=True)
                sidecar.rename(folder / place / sidecar.name)
