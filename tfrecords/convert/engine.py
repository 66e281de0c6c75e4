"""Converts a source of images into a dataset folder, with all cores, and resumes an interrupted conversion.

1. The options are resolved, and the source is listed.
2. A plan is made from names and seed alone.
3. Workers write the plan's shards. Each shard gets a receipt that says what became of its files.
4. Copies of one image are brought into the same split: shards that gain or lose a record are written again from the
   records that exist.
5. Manifest, quarantine list and metadata are written, and the folder gets its name.

A conversion is a pure function of its source and its options. One worker or sixty-four, interrupted or not, on this
machine, on Ray or on Apache Beam, it gives the same bytes. `tfrecords.convert.state.workdir` describes the files of an
unfinished conversion.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TypeAlias

from tfrecords.base_errors import ConversionError, Interrupted
from tfrecords.convert.image.color import color_name, contrasting
from tfrecords.convert.image.sample_range import MIN_MAX, NARROW
from tfrecords.convert.output.publish import publish, write_tables
from tfrecords.convert.output.reshard import reshard, whole_scan
from tfrecords.convert.output.summary import ConvertSummary, check_refusals, summarize
from tfrecords.convert.plan.conversion_job import ConversionJob, make_job, versions_of
from tfrecords.convert.plan.convert_config import ConvertConfig, ResolvedConfig
from tfrecords.convert.plan.label_conflicts import check_conflicts
from tfrecords.convert.plan.previous_version import PreviousVersion, find_previous_version, select_files
from tfrecords.convert.plan.shard_plan import MIN_SHARDS, PlannedShard
from tfrecords.convert.plan.split_assignment import AUTO_SPLITS, SOURCE_SPLITS, are_counts, splits_text
from tfrecords.convert.sources import Source, open_source, printable
from tfrecords.convert.sources.labels import some_of
from tfrecords.convert.sources.linked_files import none_known
from tfrecords.convert.state.receipts import Receipt, read_receipt
from tfrecords.convert.state.workdir import WorkDir
from tfrecords.convert.workers.runner import Runner, open_runner
from tfrecords.convert.workers.shard_worker import ShardTask, Task, not_there, unwritable
from tfrecords.format.layout import ShardInfo
from tfrecords.format.naming import TFRECORD, dataset_dir
from tfrecords.locations import refuse_url


@dataclasses.dataclass(frozen=True, slots=True)
class ConvertProgress:
    """Progress of a conversion, in files."""

    num_done: int
    num_total: int
    num_refused: int


OnProgress: TypeAlias = Callable[[ConvertProgress], None]
Describe: TypeAlias = Callable[[str], object]


def convert(
    config: ConvertConfig,
    *,
    progress: OnProgress = lambda _: None,
    describe: Describe = lambda _: None,
    handover: str = "",
) -> ConvertSummary:
    """Convert the source in `config` into the dataset folder `<data_dir>/<name>/1.0.0`.

    A dataset that exists and was made from the same files with the same options is left as it is. With `append`, files
    that it does not have are added in a new version (1.1.0), which shares the old shards. With more than one worker, a
    script has to call this under `if __name__ == "__main__":`. `describe` is called with a line that says what the
    source was taken for, before any image is read. `handover` is a URL where the workers of a cluster put what they
    make, see `tfrecords.storage.handover`; without, they have to see `data_dir`.

    Raises:
        UsageError: there are no images, or the dataset exists and differs, or `data_dir` is a URL, which
            `simimg.convert` takes; nothing was written.
        ConversionError: the shards cannot be written, a worker died, too many files were rejected, or another
            conversion is writing the same dataset.
        DataError: the existing dataset is damaged.
        Interrupted: Ctrl-C. Finished shards are kept, and the same call resumes.
    """
    start = time.perf_counter()
    refuse_url(config.data_dir, "--data_dir")
    options = config.resolved()
    try:
        previous = find_previous_version(options)
        with open_runner(
            options.engine,
            lambda row: printable(source.paths[row]),
            num_workers=options.num_workers,
            ray_address=options.ray_address,
            beam_options=options.beam_options,
        ) as runner:
            if previous is None or options.append:
                if runner.announcement:
                    describe(runner.announcement)
                runner.start(MIN_SHARDS)  # so that they are ready when the files are listed
            listed = source = open_source(
                options.image_dir,
                dataset_dir=options.from_dataset,
                table=options.table,
                categories=options.categories,
                include=options.include,
                exclude=options.exclude,
                exclude_from=options.exclude_from,
                path_column=options.path_column,
                label_column=options.label_column,
                zip_encoding=options.zip_encoding,
                label_type=options.label_type,
                features=options.features,
                links=options.links,
                known=none_known if previous is None else previous.known,
                group_column=options.group_column,
                time_column=options.time_column,
            )
            if previous is not None:
                source = previous.with_its_splits(source)
            decided = options.for_source(source, previous.layout.config if previous is not None else None)
            listed = source = _with_notes(source, options, kept=decided.splits == SOURCE_SPLITS)
            options = decided
            describe(_description(source, options))
            if previous is not None:
                previous.check_options(options)
            source = select_files(options, listed, previous)
            if previous is not None and not len(source.usable() if options.append else ()):
                WorkDir(previous.folder).remove_work()  # left by a call that was killed at its end
                check_conflicts(previous.manifest, previous.layout.class_names, options.conflicts)
                return _unchanged(previous, source.notes, start)
            job = make_job(options, source, previous, listed)
            workdir = WorkDir(dataset_dir(options.data_dir, options.name, job.version))
            with workdir.locked():
                # The conflicts are known at the end, and what becomes of them can still be chosen then.
                begun = {name: value for name, value in options.recorded.items() if name != "conflicts"}
                workdir.begin(begun, versions_of(options))
                return _convert(job, workdir, runner, progress, start, handover)
    except KeyboardInterrupt:
        raise Interrupted("interrupted; the same command resumes the conversion.") from None
    except OSError as error:
        path = Path(os.fsdecode(error.filename or config.data_dir))
        if not path.absolute().is_relative_to(config.data_dir.absolute()):
            raise ConversionError(
                f"{path} cannot be read: {error.strerror or error}. Finished shards are kept. Make it readable, and "
                "give the same command again."
            ) from None
        raise unwritable(path, error, ", or choose another --data_dir") from None


def _with_notes(source: Source, options: ResolvedConfig, kept: bool) -> Source:
    """Return the source with notes about stored images that lose something, and about splits that are not `kept`
    although nobody asked for others.
    """
    if options.from_dataset:
        from tfrecords.convert.sources.stored_dataset import notes_on_losses

        size = (options.image_size, options.encoding, options.jpeg_quality)
        losses = [] if options.resize == "none" else notes_on_losses(options.from_dataset, *size)
        return dataclasses.replace(source, notes=(*source.notes, *losses))
    is_usual = source.keeps_splits and not options.divided_by
    if source.splits is None or options.splits != AUTO_SPLITS or kept or is_usual:
        return source
    names = [name for name in dict.fromkeys(source.splits) if name]
    if len(names) < 2:
        return source
    instead = f" instead of {options.divided_by}" if options.divided_by else ""
    note = f"the splits of the source ({some_of(names)}) are not used; --splits={SOURCE_SPLITS}{instead} keeps them"
    return dataclasses.replace(source, notes=(*source.notes, note))


def _description(source: Source, options: ResolvedConfig) -> str:
    """Return what the source was taken for and where the splits come from, for the user."""
    form = source.form or f"{len(source.paths):,} files"
    splits = "its splits are kept"
    if options.fractions:
        shares = ", ".join(f"{name} {fraction:.4g}" for name, fraction in options.fractions.items())
        shares = f"{splits_text(options.fractions)} of each class" if are_counts(options.fractions) else shares
        shares = f"{options.folds} folds" if options.folds else shares
        splits = f"{'divided anew' if source.keeps_splits else 'split'} into {shares}"
        if options.time_column:
            splits += f" by time ({options.time_column})"
        if options.group_column or options.group_pattern:
            splits += f", without dividing a group ({options.group_column or options.group_pattern})"
    return f"{printable(source.location)}: {form}; {splits}"


def _convert(
    job: ConversionJob, workdir: WorkDir, runner: Runner, progress: OnProgress, start: float, handover: str
) -> ConvertSummary:
    infos, receipt, num_converted = _write_shards(job, workdir, runner, progress, handover)
    check_refusals(job, receipt, workdir.work)
    if job.previous is not None and not (receipt.positions >= 0).any():  # every file was rejected: no new version
        workdir.remove_work()
        return _unchanged(job.previous, job.source.notes, start)

    final = job.final_plan(receipt)
    receipt.refused.update(final.dropped)
    receipt.positions[list(final.dropped)] = -1
    with ThreadPoolExecutor(1) as background, ExitStack() as stack:
        tables = background.submit(write_tables, job, final, receipt, workdir)
        if handover:  # all shards are on this machine now, and on no other
            runner.dismiss()
            runner = stack.enter_context(open_runner("local", str))
        shards = reshard(job, final.plan, receipt, infos, workdir, runner)
        manifest = tables.result()
    runner.dismiss()
    layout = publish(job, final.plan, shards, manifest, workdir)
    notes = (
        *job.source.notes,
        *job.notes,
        *final.notes,
        *_without_stride(job),
        *_vanished(job, receipt),
        *_narrow(job, receipt),
    )
    if final.leaks:
        copies = "images have copies" if job.keys is None else "groups have images or copies"
        notes = (
            *notes,
            f"{len(final.leaks):,} {copies} in another split, e.g. {final.leaks[0]}; the existing splits were kept",
        )
    return summarize(workdir.final, layout, manifest, start, num_converted, notes)


def _without_stride(job: ConversionJob) -> Iterable[str]:
    """Yield a note if raw records differ in length, where that makes reading slower."""
    varying = [str(feature) for feature in job.schema.features if not feature.is_fixed]
    if job.config.encoding == "raw" and job.config.format == TFRECORD and varying:
        yield (
            f"records differ in length because of {some_of(varying)}, so each shard has a file of offsets; features "
            "with numbers of a fixed shape alone keep one length"
        )


def _vanished(job: ConversionJob, receipt: Receipt) -> Iterable[str]:
    """Yield a note if images show nothing on the background, though they have transparent pixels."""
    if receipt.vanished:
        background, example = job.config.image.background, job.source.paths[min(receipt.vanished)]
        count = len(receipt.vanished)
        yield (
            f"{count:,} transparent {'images have' if count > 1 else 'image has'} become plain "
            f"{color_name(background)}, e.g. {printable(example)}; --background={color_name(contrasting(background))} "
            f"keeps {'them' if count > 1 else 'it'} visible"
        )


def _narrow(job: ConversionJob, receipt: Receipt) -> Iterable[str]:
    """Yield a note if images use so little of the range of their samples that they are dark or flat."""
    if receipt.narrow:
        example, count = job.source.paths[min(receipt.narrow)], len(receipt.narrow)
        yield (
            f"{count:,} {'images use' if count > 1 else 'image uses'} less than {NARROW:.0%} of the range of "
            f"{'their' if count > 1 else 'its'} samples and {'are' if count > 1 else 'is'} dark or flat, e.g. "
            f"{printable(example)}; --range={MIN_MAX} stretches each, --range=LO,HI all alike"
        )


def _unchanged(previous: PreviousVersion, notes: Iterable[str], start: float) -> ConvertSummary:
    return summarize(previous.folder, previous.layout, previous.manifest, start, 0, tuple(notes))


def _write_shards(
    job: ConversionJob, workdir: WorkDir, runner: Runner, progress: OnProgress, handover: str
) -> tuple[dict[str, ShardInfo], Receipt, int]:
    """Return the first plan's shards by name, what became of each file, and how many images this call converted."""
    infos: dict[str, ShardInfo] = {}
    receipt = Receipt(len(job.source.paths))
    receipt.refused.update(job.source.refused)

    def take(task: Task, check: bool = False) -> None:
        """Add the content of a task's receipt, if there is one that belongs to this task."""
        found = read_receipt(task.receipt, task.inputs, task.shard)
        if found is None or not found[1].is_about(len(task.rows), found[0].num_examples):
            return
        if check and not found[0].sha256 and whole_scan(task.shard, found[0], job.schema) is None:
            return
        infos[task.shard.name], part = found
        receipt.put(task.rows, part)

    planned_shards = job.plan.shards
    for planned in planned_shards:
        if workdir.receipt(planned.file).exists():  # of an earlier call
            take(_shard_task(job, planned, workdir), check=True)
    todo = [planned for planned in planned_shards if planned.file not in infos]
    num_total = sum(len(planned.rows) for planned in planned_shards)
    num_earlier = num_total - sum(len(planned.rows) for planned in todo)
    examples_earlier = sum(info.num_examples for info in infos.values())

    def on_progress(num_done: int, num_refused: int) -> None:
        refused_earlier = num_earlier - examples_earlier
        progress(ConvertProgress(num_earlier + num_done, num_total, refused_earlier + num_refused))

    on_progress(0, 0)
    try:
        runner.run((_shard_task(job, planned, workdir, handover) for planned in todo), take, on_progress)
    except KeyboardInterrupt:
        raise Interrupted(
            f"interrupted with {len(infos)} of {len(planned_shards)} shards finished; the same command resumes there."
        ) from None
    for planned in todo:
        if planned.file not in infos:
            raise not_there(workdir.shards / planned.file)
    return infos, receipt, sum(info.num_examples for info in infos.values()) - examples_earlier


def _shard_task(job: ConversionJob, planned: PlannedShard, workdir: WorkDir, handover: str = "") -> ShardTask:
    source, config = job.source, job.config
    return ShardTask(
        shard=workdir.shards / planned.file,
        receipt=workdir.receipt(planned.file),
        inputs=job.inputs(planned.rows),
        files=source.files,
        rows=planned.rows,
        handover=handover,
        paths=tuple(source.paths[row] for row in planned.rows.tolist()),
        ids=job.ids[planned.rows],
        labels=job.labels[planned.rows],
        places=None if source.places is None else source.places[planned.rows],
        image=config.image,
        encoding=config.encoding,
        jpeg_quality=config.jpeg_quality,
        hashed=config.copies == "near",
        durable=not job.may_move,
        indexed=not config.offsets.record_bytes,
        tails=None if job.tails is None else tuple(job.tails[row] for row in planned.rows.tolist()),
    )
