"""Converts a source of pictures into a data set folder, with all cores, and goes on where an earlier call stopped.

1. The source is listed, and a plan made from names and seed alone.
2. Workers write the plan's shards, each with a receipt of what became of its files.
3. Photos that are copies of each other are brought into one split: shards that gain or lose a record by that are put
   together anew from the records that are there.
4. Manifest, quarantine list and metadata are written, and the folder gets its name.

A conversion is a pure function of its source and configuration: one worker or sixty-four, interrupted or not, here or
on Apache Beam, the same bytes. `tfrecords.convert.state.workdir` says what is on disk meanwhile.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np

from tfrecords.base_errors import ConversionError, Interrupted, UsageError
from tfrecords.convert.image.decoder import decoder_versions
from tfrecords.convert.output.publish import publish, write_tables
from tfrecords.convert.output.reshard import ReshardTask, SealTask, is_whole
from tfrecords.convert.output.summary import ConvertSummary, check_refusals, make_manifest, summarize
from tfrecords.convert.plan.conversion_job import ConversionJob, FinalPlan, make_job, select
from tfrecords.convert.plan.convert_config import ConvertConfig
from tfrecords.convert.plan.previous_version import PreviousVersion, find_previous_version, listed_paths
from tfrecords.convert.plan.shard_plan import MIN_SHARDS, PlannedShard, ShardPlan
from tfrecords.convert.sources import Source, open_source, printable
from tfrecords.convert.state.receipts import Receipt, read_info, read_receipt
from tfrecords.convert.state.workdir import WorkDir
from tfrecords.convert.workers import pool
from tfrecords.convert.workers.shard_worker import ShardTask
from tfrecords.format.layout import Offsets, ShardInfo, raw_offsets
from tfrecords.format.naming import VERSION, dataset_dir, next_version

__all__ = ["ConvertProgress", "convert"]

_NOT_THERE = (
    "{} is not there though its worker finished. Workers on other machines have to see --data_dir under the same path."
)


class Runner(Protocol):
    """What runs tasks: a pool of this machine's processes, or Apache Beam.

    See `tfrecords.convert.workers.pool.Pool`.
    """

    def start(self, num_workers: int) -> None: ...

    def run(
        self, tasks: Iterator[pool.Task], on_done: Callable[[pool.Task], None], on_progress: Callable[[int, int], None]
    ) -> None: ...

    def dismiss(self) -> None: ...


@dataclasses.dataclass(frozen=True, slots=True)
class ConvertProgress:
    """How far a conversion is, in files."""

    num_done: int
    num_total: int
    num_refused: int


def convert(config: ConvertConfig, *, progress: Callable[[ConvertProgress], None] = lambda _: None) -> ConvertSummary:
    """Converts what `config` names into the data set folder `<data_dir>/<name>/1.0.0`.

    A data set that is already there and was made from the same files with the same options is left as it is. With
    `append`, files that it does not have are added in a new version (1.1.0), which shares the old shards. With more
    than one worker, a script that calls this has to do so under `if __name__ == "__main__":`.

    Raises:
        UsageError: there are no pictures, or the data set exists and differs; nothing was written.
        ConversionError: the shards cannot be written, a worker died, too many files were refused, or another
            conversion is at it.
        DataError: the data set that is there is damaged.
        Interrupted: Ctrl-C. What is finished stays, and the same call goes on.
    """
    start = time.perf_counter()
    config = config.resolved()
    try:
        existing = find_previous_version(config.data_dir, config.name)
        if existing is not None:
            existing.check_options(config)
        with _runner(config, lambda row: printable(source.paths[row])) as runner:
            if existing is None or config.append:
                runner.start(MIN_SHARDS)  # so that they are ready when the files are listed
            listed = source = open_source(config.image_dir, table=config.table, categories=config.categories)
            if config.only:
                source = _only(source, config.only)
            if config.append:
                source = _pending(source, existing, config)
            elif existing is not None:
                if config.only and len(source.paths) < len(existing.manifest):
                    raise UsageError(
                        f"{existing.folder} is there already: give --append, too, to add what --only names."
                    )
                existing.check_source(source)
            if existing is not None and not len(source.usable() if config.append else ()):
                WorkDir(existing.folder).remove_work()  # of a call that was killed at its end
                return summarize(existing.folder, existing.layout, existing.manifest, start, 0, source.notes)
            version = next_version(existing.layout.version) if existing is not None else VERSION
            target = WorkDir(dataset_dir(config.data_dir, config.name, version))
            job = make_job(config, source, existing, listed)
            with target.locked():
                target.begin(config.determining(), decoder_versions())
                return _convert(job, target, version, runner, progress, start)
    except KeyboardInterrupt:
        raise Interrupted("interrupted; the same command goes on where it was.") from None
    except OSError as error:
        raise ConversionError(
            f"{error.filename or config.data_dir} cannot be written: {error.strerror or error}. What is finished "
            "stays; make room or make the folder writable, and give the same command again, or choose another "
            "--data_dir."
        ) from None


def _only(source: Source, path: str) -> Source:
    listed = listed_paths(path)
    rows = [row for row, name in enumerate(source.paths) if printable(name) in listed]
    if not rows:
        raise UsageError(f"--only={path}: none of the {len(listed)} files that it lists is in {source.location}.")
    return select(source, np.array(rows, np.int64))


def _pending(source: Source, existing: PreviousVersion | None, config: ConvertConfig) -> Source:
    if existing is None:
        raise UsageError(
            f"--append: there is no data set {config.name!r} in {config.data_dir} yet. Leave --append out to make it."
        )
    changed = existing.changed_paths(source)
    if changed:
        raise UsageError(
            f"{existing.folder}: {len(changed):,} of its files have changed since, e.g. {changed[0]}. --append adds "
            "files and changes none; put the old ones back, or convert all under another --name."
        )
    return select(source, existing.pending_rows(source))


def _convert(
    job: ConversionJob,
    target: WorkDir,
    version: str,
    runner: Runner,
    progress: Callable[[ConvertProgress], None],
    start: float,
) -> ConvertSummary:
    plan = job.plan()
    infos, receipt, num_converted = _write_shards(job, plan, target, runner, progress)
    check_refusals(job, receipt, target.work)
    if not (receipt.positions >= 0).any() and job.existing is not None:  # nothing came of it: no new version
        target.remove_work()
        existing = job.existing
        return summarize(existing.folder, existing.layout, existing.manifest, start, 0, job.source.notes)

    settled = job.settled(plan, receipt)
    manifest = make_manifest(job, settled, receipt)
    with ThreadPoolExecutor(1) as background:
        tables = background.submit(write_tables, job, manifest, receipt, target)
        sources = _assemble(job, plan, settled, receipt, infos, target, runner)
        tables.result()
    runner.dismiss()
    layout = publish(job, settled, version, sources, manifest, target)
    notes = job.source.notes
    if settled.leaks:
        notes = (
            *notes,
            f"{len(settled.leaks):,} photos have copies in another split, e.g. {settled.leaks[0]}; "
            "the splits are those that were there",
        )
    return summarize(target.final, layout, manifest, start, num_converted, notes)


def _write_shards(
    job: ConversionJob, plan: ShardPlan, target: WorkDir, runner: Runner, progress: Callable[[ConvertProgress], None]
) -> tuple[dict[str, ShardInfo], Receipt, int]:
    """Returns what the first plan's shards are, by name, what became of each file, and how many this call converted."""
    infos: dict[str, ShardInfo] = {}
    receipt = Receipt(len(job.source.paths))
    receipt.refused.update(job.source.refused)

    def take(task: pool.Task, was_there: bool = False) -> None:
        """Keeps what the receipt of a task says, if it is done."""
        found = read_receipt(task.receipt, task.inputs, task.shard)
        if found is None or (was_there and not found[0].sha256 and not is_whole(task.shard, found[0])):
            return
        infos[task.shard.name], part = found
        receipt.put(task.rows, part)

    for planned in plan.shards:
        if _receipt(target, planned).exists():
            take(_shard_task(job, planned, target), was_there=True)
    todo = [planned for planned in plan.shards if planned.file not in infos]
    num_total = sum(len(planned.rows) for planned in plan.shards)
    num_earlier = num_total - sum(len(planned.rows) for planned in todo)
    examples_earlier = _num_examples(infos)

    def on_progress(num_done: int, num_refused: int) -> None:
        refused_earlier = num_earlier - examples_earlier
        progress(ConvertProgress(num_earlier + num_done, num_total, refused_earlier + num_refused))

    on_progress(0, 0)
    try:
        runner.run((_shard_task(job, planned, target) for planned in todo), take, on_progress)
    except KeyboardInterrupt:
        raise Interrupted(
            f"interrupted with {len(infos)} of {len(plan.shards)} shards finished; the same command goes on there."
        ) from None
    for planned in todo:
        if planned.file not in infos:
            raise ConversionError(_NOT_THERE.format(target.shards / planned.file))
    return infos, receipt, _num_examples(infos) - examples_earlier


def _num_examples(infos: Mapping[str, ShardInfo]) -> int:
    return sum(info.num_examples for info in infos.values())


@dataclasses.dataclass(frozen=True, slots=True)
class _Beam:
    """Apache Beam, which has workers of its own while it runs something."""

    options: str

    def start(self, num_workers: int) -> None:
        pass

    def run(
        self, tasks: Iterator[pool.Task], on_done: Callable[[pool.Task], None], on_progress: Callable[[int, int], None]
    ) -> None:
        from tfrecords.convert.workers.beam_runner import run_beam

        run_beam(tasks, self.options, on_done, on_progress)

    def dismiss(self) -> None:
        pass


@contextmanager
def _runner(config: ConvertConfig, name_of: Callable[[int], str]) -> Iterator[Runner]:
    if config.engine == "beam":
        yield _Beam(config.beam_options)
        return
    with pool.Pool(config.num_workers or pool.num_cores(), name_of) as workers:
        yield workers


def _shard_task(job: ConversionJob, planned: PlannedShard, target: WorkDir) -> ShardTask:
    source = job.source
    return ShardTask(
        shard=target.shards / planned.file,
        receipt=_receipt(target, planned),
        inputs=job.inputs(planned),
        files=source.files,
        rows=planned.rows,
        paths=tuple(source.paths[row] for row in planned.rows.tolist()),
        ids=job.ids[planned.rows],
        labels=job.labels[planned.rows],
        places=None if source.places is None else source.places[planned.rows],
        picture=job.config.picture_options(),
        encoding=job.config.encoding,
        jpeg_quality=job.config.jpeg_quality,
        hashed=job.config.copies == "near",
        sealed=not job.may_move,
    )


def _receipt(target: WorkDir, planned: PlannedShard) -> Path:
    return target.receipts / f"{planned.file}.json"


def _assemble(
    job: ConversionJob,
    plan: ShardPlan,
    settled: FinalPlan,
    receipt: Receipt,
    infos: dict[str, ShardInfo],
    target: WorkDir,
    runner: Runner,
) -> dict[str, tuple[Path, ShardInfo]]:
    """Returns where each shard of the settled plan lies, and what it is; makes those that the first plan has not."""
    shard_of = np.full(len(job.source.paths), -1, np.int32)
    for number, planned in enumerate(plan.shards):
        shard_of[planned.rows] = number
    kept = {id(planned) for planned in plan.shards}
    found = {
        planned.file: (target.shards / planned.file, infos[planned.file])
        for planned in settled.plan.shards
        if id(planned) in kept and infos[planned.file].sha256
    }
    todo = [planned for planned in settled.plan.shards if planned.file not in found]

    def take(task: pool.Task) -> None:
        info = read_info(task.receipt, task.inputs, task.shard)
        if info is not None:
            found[task.shard.name] = (task.shard, info)

    def tasks() -> Iterator[pool.Task]:
        for planned in todo:
            task: ReshardTask | SealTask
            if id(planned) in kept:
                task = _seal_task(job, planned, infos[planned.file], target)
            else:
                task = _assemble_task(job, plan, planned, shard_of, receipt, target)
            take(task)  # of an earlier call
            if planned.file not in found:
                yield task

    runner.run(tasks(), take, lambda *_: None)
    for planned in todo:
        if planned.file not in found:
            raise ConversionError(_NOT_THERE.format(planned.file))
    return found


def _seal_task(job: ConversionJob, planned: PlannedShard, info: ShardInfo, target: WorkDir) -> SealTask:
    return SealTask(
        shard=target.shards / planned.file,
        receipt=target.receipts / f"{planned.file}.sealed.json",
        inputs=job.inputs(planned),
        rows=planned.rows,
        info=info,
    )


def _assemble_task(
    job: ConversionJob, plan: ShardPlan, planned: PlannedShard, shard_of: np.ndarray, receipt: Receipt, target: WorkDir
) -> ReshardTask:
    rows = planned.rows[receipt.positions[planned.rows] >= 0]
    numbers, source_of = np.unique(shard_of[rows], return_inverse=True)
    return ReshardTask(
        shard=target.assembled / planned.file,
        receipt=target.receipts / f"{planned.file}.assembled.json",
        inputs=job.inputs(dataclasses.replace(planned, rows=rows)),
        sources=tuple(target.shards / plan.shards[number].file for number in numbers),
        rows=rows,
        source_of=source_of.astype(np.int32),
        positions=receipt.positions[rows],
        offsets=raw_offsets(job.config.image_size) if job.config.encoding == "raw" else Offsets(),
    )
