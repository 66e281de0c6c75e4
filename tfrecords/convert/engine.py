"""Converts a source of pictures into a data set folder, with all cores, and goes on where an earlier call stopped.

1. The source is listed, and a plan made from names and seed alone.
2. Workers write the plan's shards, each with a receipt of what became of its files.
3. Photos that are copies of each other are brought into one split: shards that gain or lose a record by that are put
   together anew from the records that are there.
4. Manifest, quarantine list and metadata are written, and the folder gets its name.

A conversion is a pure function of its source and configuration: one worker or sixty-four, interrupted or not, here or
on Apache Beam, the same bytes. `tfrecords.convert.target` says what is on disk meanwhile.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from tfrecords.convert import pool
from tfrecords.convert.assemble import AssembleTask
from tfrecords.convert.config import ConvertConfig
from tfrecords.convert.existing import Existing, find_existing, listed_paths
from tfrecords.convert.images import decoder_versions
from tfrecords.convert.job import Job, Settled, make_job, select
from tfrecords.convert.plan import PlannedShard, ShardPlan
from tfrecords.convert.publish import publish
from tfrecords.convert.receipts import Receipt, read_info, read_receipt
from tfrecords.convert.result import ConvertSummary, check_refusals, make_manifest, summarise
from tfrecords.convert.sources import Source, open_source, printable
from tfrecords.convert.target import Target
from tfrecords.convert.worker import ShardTask
from tfrecords.errors import ConversionError, Interrupted, UsageError
from tfrecords.format.layout import Offsets, ShardInfo, raw_offsets
from tfrecords.format.naming import VERSION, dataset_dir, next_version

__all__ = ["ConvertProgress", "convert"]

# Runs tasks; calls back with each finished one, and with the numbers of files done and refused.
Run = Callable[[Iterator[pool.Task], Callable[[pool.Task], None], Callable[[int, int], None]], None]

_NOT_THERE = (
    "{} is not there though its worker finished. Workers on other machines have to see --data_dir under the same path."
)


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
        if config.engine == "local" and config.num_workers != 1:
            pool.start_server()  # gets ready while the files are listed
        listed = source = open_source(config.image_dir, table=config.table, categories=config.categories)
        existing = find_existing(config.data_dir, config.name)
        if existing is not None:
            existing.check_options(config)
        if config.only:
            source = _only(source, config.only)
        if config.append:
            source = _pending(source, existing, config)
        elif existing is not None:
            if config.only and len(source.paths) < len(existing.manifest):
                raise UsageError(f"{existing.folder} is there already: give --append, too, to add what --only names.")
            existing.check_source(source)
        if existing is not None and not len(source.usable() if config.append else ()):
            Target(existing.folder).remove_work()  # of a call that was killed at its end
            return summarise(existing.folder, existing.layout, existing.manifest, start, 0, source.notes)
        version = next_version(existing.layout.version) if existing is not None else VERSION
        target = Target(dataset_dir(config.data_dir, config.name, version))
        job = make_job(config, source, existing, listed)
        with target.locked(), _runner(job) as run:
            target.begin(config.determining(), decoder_versions())
            return _convert(job, target, version, run, progress, start)
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


def _pending(source: Source, existing: Existing | None, config: ConvertConfig) -> Source:
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
    job: Job, target: Target, version: str, run: Run, progress: Callable[[ConvertProgress], None], start: float
) -> ConvertSummary:
    plan = job.plan()
    infos, num_converted = _write_shards(job, plan, target, run, progress)
    receipt = Receipt(len(job.source.paths))
    for planned in plan.shards:
        receipt.put(planned.rows, read_receipt(_receipt(target, planned)))
    receipt.refused.update(job.source.refused)
    check_refusals(job, receipt, target.work)
    if not (receipt.positions >= 0).any() and job.existing is not None:  # nothing came of it: no new version
        target.remove_work()
        existing = job.existing
        return summarise(existing.folder, existing.layout, existing.manifest, start, 0, job.source.notes)

    settled = job.settled(plan, receipt)
    sources = _assemble(job, plan, settled, receipt, infos, target, run)
    manifest = make_manifest(job, settled, receipt)
    layout = publish(job, settled, version, sources, manifest, receipt, target)
    notes = job.source.notes
    if settled.leaks:
        notes = (
            *notes,
            f"{len(settled.leaks):,} photos have copies in another split, e.g. {settled.leaks[0]}; "
            "the splits are those that were there",
        )
    return summarise(target.final, layout, manifest, start, num_converted, notes)


def _write_shards(
    job: Job, plan: ShardPlan, target: Target, run: Run, progress: Callable[[ConvertProgress], None]
) -> tuple[dict[str, ShardInfo], int]:
    """Returns what the first plan's shards are, by file name, and how many images this call converted."""
    infos: dict[str, ShardInfo] = {}
    todo: list[tuple[PlannedShard, str]] = []
    num_earlier = refused_earlier = 0
    for planned in plan.shards:
        inputs = job.inputs(planned)
        info = read_info(_receipt(target, planned), inputs, target.shards / planned.file)
        if info is None:
            todo.append((planned, inputs))
            continue
        infos[planned.file] = info
        num_earlier += len(planned.rows)
        refused_earlier += len(planned.rows) - info.num_examples
    num_total = num_earlier + sum(len(planned.rows) for planned, _ in todo)

    def on_progress(num_done: int, num_refused: int) -> None:
        progress(ConvertProgress(num_earlier + num_done, num_total, refused_earlier + num_refused))

    on_progress(0, 0)
    tasks = (_shard_task(job, planned, inputs, target) for planned, inputs in todo)
    num_finished = len(infos)

    def on_done(_: pool.Task) -> None:
        nonlocal num_finished
        num_finished += 1

    try:
        run(tasks, on_done, on_progress)
    except KeyboardInterrupt:
        raise Interrupted(
            f"interrupted with {num_finished} of {len(plan.shards)} shards finished; the same command goes on there."
        ) from None
    num_converted = 0
    for planned, inputs in todo:
        info = read_info(_receipt(target, planned), inputs, target.shards / planned.file)
        if info is None:
            raise ConversionError(_NOT_THERE.format(target.shards / planned.file))
        infos[planned.file] = info
        num_converted += info.num_examples
    return infos, num_converted


@contextmanager
def _runner(job: Job) -> Iterator[Run]:
    """Gives what runs tasks: a pool of this machine's processes, or Apache Beam."""
    if job.config.engine == "beam":
        from tfrecords.convert.beam import run_beam

        yield lambda tasks, on_done, on_progress: run_beam(tasks, job.config.beam_options, on_done, on_progress)
        return
    names = job.source.paths
    with pool.Pool(job.config.num_workers or pool.num_cores(), lambda row: printable(names[row])) as workers:
        yield workers.run


def _shard_task(job: Job, planned: PlannedShard, inputs: str, target: Target) -> ShardTask:
    source = job.source
    return ShardTask(
        shard=target.shards / planned.file,
        receipt=_receipt(target, planned),
        inputs=inputs,
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
    )


def _receipt(target: Target, planned: PlannedShard) -> Path:
    return target.receipts / f"{planned.file}.json"


def _assemble(
    job: Job,
    plan: ShardPlan,
    settled: Settled,
    receipt: Receipt,
    infos: dict[str, ShardInfo],
    target: Target,
    run: Run,
) -> dict[str, tuple[Path, ShardInfo]]:
    """Returns where each shard of the settled plan lies, and what it is; writes those that the first plan has not."""
    shard_of = np.full(len(job.source.paths), -1, np.int32)
    for number, planned in enumerate(plan.shards):
        shard_of[planned.rows] = number
    untouched = {id(planned) for planned in plan.shards}
    found = {
        planned.file: (target.shards / planned.file, infos[planned.file])
        for planned in settled.plan.shards
        if id(planned) in untouched
    }
    changed = [planned for planned in settled.plan.shards if id(planned) not in untouched]
    tasks = [_assemble_task(job, plan, planned, shard_of, receipt, target) for planned in changed]
    todo = [task for task in tasks if read_info(task.receipt, task.inputs, task.shard) is None]
    run(iter(todo), lambda _: None, lambda *_: None)
    for planned, task in zip(changed, tasks, strict=True):
        info = read_info(task.receipt, task.inputs, task.shard)
        if info is None:
            raise ConversionError(_NOT_THERE.format(task.shard))
        found[planned.file] = (task.shard, info)
    return found


def _assemble_task(
    job: Job, plan: ShardPlan, planned: PlannedShard, shard_of: np.ndarray, receipt: Receipt, target: Target
) -> AssembleTask:
    rows = planned.rows[receipt.positions[planned.rows] >= 0]
    numbers, source_of = np.unique(shard_of[rows], return_inverse=True)
    return AssembleTask(
        shard=target.assembled / planned.file,
        receipt=target.receipts / f"{planned.file}.assembled.json",
        inputs=job.inputs(dataclasses.replace(planned, rows=rows)),
        sources=tuple(target.shards / plan.shards[number].file for number in numbers),
        rows=rows,
        source_of=source_of.astype(np.int32),
        positions=receipt.positions[rows],
        offsets=raw_offsets(job.config.image_size) if job.config.encoding == "raw" else Offsets(),
    )
