"""Converts a folder of pictures into a data set folder, with all cores, and goes on where an earlier call stopped.

On disk, for a data set `<data_dir>/<name>/1.0.0`:

    1.0.0.incomplete/      finished shards; renamed to 1.0.0 when everything is in it
    .1.0.0.work/           lock, plan.json (what is being converted, and how), receipts of the finished shards

So `1.0.0` is either complete or not there. A conversion is a pure function of its source and configuration: one worker
or sixty-four, interrupted or not, the same bytes.
"""

from __future__ import annotations

import dataclasses
import fcntl
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import PIL
from PIL import features

from tfrecords.convert.config import ConvertConfig
from tfrecords.convert.plan import ShardPlan, make_plan
from tfrecords.convert.pool import num_cores, run_pool
from tfrecords.convert.quarantine import RefusedFile, write_quarantine
from tfrecords.convert.sources import Source, printable, scan_folder
from tfrecords.convert.split import assign_splits, find_copies, parse_splits
from tfrecords.convert.worker import Outcome, Receipt, ShardTask, read_receipt
from tfrecords.errors import ConversionError, Interrupted, UsageError
from tfrecords.format.files import TEMPORARY, read_json, sync_dir, write_json
from tfrecords.format.layout import Layout, Offsets, raw_offsets
from tfrecords.format.manifest import OK, REFUSED, ManifestRow, read_manifest, write_manifest
from tfrecords.format.metadata import write_metadata

__all__ = ["ConvertProgress", "ConvertSummary", "convert"]


@dataclasses.dataclass(frozen=True, slots=True)
class ConvertProgress:
    """How far a conversion is, in files."""

    num_done: int
    num_total: int
    num_refused: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvertSummary:
    """What a conversion did; `seconds` and `images_per_s` are of this call, `num_converted` the images it wrote."""

    dataset_dir: Path
    num_examples: int
    splits: dict[str, int]
    num_refused: int
    reasons: dict[str, int]
    seconds: float
    images_per_s: float
    num_converted: int
    warnings: tuple[str, ...]


def convert(config: ConvertConfig, *, progress: Callable[[ConvertProgress], None] = lambda _: None) -> ConvertSummary:
    """Converts `config.image_dir` into the data set folder `config.dataset_dir`.

    A data set that is already there and was made from the same files (by name and size) with the same options is left
    as it is. With more than one worker, a script that calls this has to do so under `if __name__ == "__main__":`.

    Raises:
        UsageError: the folder has no pictures, or the data set exists and differs; nothing was written.
        ConversionError: the shards cannot be written, a worker died, or another conversion is at it.
        Interrupted: Ctrl-C. What is finished stays, and the same call goes on.
    """
    start = time.perf_counter()
    config = config.resolved()
    source = scan_folder(config.image_dir, config.categories)
    final = config.dataset_dir
    if final.exists():
        layout = Layout.load(final)
        _check_same(final, layout.config, layout.source_sha256, config, source)
        shutil.rmtree(
            final.with_name(f".{final.name}.work"), ignore_errors=True
        )  # of a call that was killed at its end
        return _summary(final, layout, read_manifest(final), time.perf_counter() - start, 0)

    incomplete = final.with_name(f"{final.name}.incomplete")
    work = final.with_name(f".{final.name}.work")
    try:
        work.mkdir(parents=True, exist_ok=True)
        with _locked(work / "lock", final):
            _begin(work, incomplete, config, source)
            plan = _plan(config, source)
            tasks = _tasks(config, source, plan, incomplete, work / "receipts")
            receipts, num_converted = _run(tasks, config.num_workers or num_cores(), progress)
            if not any(receipt.info.num_examples for receipt in receipts.values()):
                raise ConversionError(_nothing_left(source, receipts))
            layout = _layout(config, source, plan, receipts)
            rows = _finish(incomplete, layout, source, plan, receipts)
            incomplete.rename(final)
            sync_dir(final.parent)
            shutil.rmtree(work)
    except KeyboardInterrupt:
        raise Interrupted("interrupted; the same command goes on where it was.") from None
    except OSError as error:
        raise ConversionError(
            f"{error.filename or final} cannot be written: {error.strerror or error}. What is finished stays; "
            "make room or make the folder writable, and give the same command again, or choose another --data_dir."
        ) from None
    return _summary(final, layout, rows, time.perf_counter() - start, num_converted)


def _begin(work: Path, incomplete: Path, config: ConvertConfig, source: Source) -> None:
    """Takes up what an earlier call left, or notes what is begun."""
    plan_file = work / "plan.json"
    receipts = work / "receipts"
    if incomplete.is_dir() and plan_file.exists():
        begun = read_json(plan_file, "an unfinished conversion; remove its folder and start again")
        _check_same(incomplete, begun["config"], begun["source_sha256"], config, source)
        if begun["versions"] != _versions():  # another decoder gives other pixels
            raise UsageError(
                f"{incomplete} was begun with {begun['versions']}; this is {_versions()}. "
                "Install those again, or remove that folder."
            )
    else:  # begun afresh, perhaps after someone removed one of the two folders: what the other has is of no use
        for folder in (receipts, incomplete):
            shutil.rmtree(folder, ignore_errors=True)
        begun = {"config": config.determining(), "source_sha256": source.sha256(), "versions": _versions()}
        write_json(plan_file, begun)
    receipts.mkdir(exist_ok=True)
    incomplete.mkdir(exist_ok=True)
    for leftover in incomplete.glob(f".*{TEMPORARY}*"):
        leftover.unlink()


def _plan(config: ConvertConfig, source: Source) -> ShardPlan:
    files = source.usable()
    fractions = parse_splits(config.splits)
    split_of = assign_splits(files, fractions, config.seed, find_copies(config.image_dir, files))
    return make_plan(
        config.name,
        files,
        split_of,
        splits=tuple(fractions),
        image_size=config.image_size,
        encoding=config.encoding,
        seed=config.seed,
    )


def _tasks(
    config: ConvertConfig, source: Source, plan: ShardPlan, shard_dir: Path, receipt_dir: Path
) -> list[ShardTask]:
    return [
        ShardTask(
            planned=planned,
            image_dir=config.image_dir,
            paths=tuple(source.files[id].path for id in planned.ids),
            labels=tuple(source.files[id].label for id in planned.ids),
            shard_dir=shard_dir,
            receipt_dir=receipt_dir,
            image_size=config.image_size,
            resize=config.resize,
            encoding=config.encoding,
            jpeg_quality=config.jpeg_quality,
        )
        for planned in plan.shards
    ]


def _run(
    tasks: list[ShardTask], num_workers: int, progress: Callable[[ConvertProgress], None]
) -> tuple[dict[str, Receipt], int]:
    """Returns the receipt of each shard by its file name, and how many images this call converted."""
    receipts: dict[str, Receipt] = {}
    todo: list[ShardTask] = []
    for task in tasks:
        receipt = read_receipt(task)
        if receipt is None:
            todo.append(task)
        else:
            receipts[receipt.info.file] = receipt
    earlier = [outcome for receipt in receipts.values() for outcome in receipt.outcomes]
    num_earlier = len(earlier)
    refused_earlier = sum(outcome.position < 0 for outcome in earlier)
    num_total = sum(len(task.paths) for task in tasks)

    def on_receipt(receipt: Receipt) -> None:
        receipts[receipt.info.file] = receipt

    def on_progress(num_done: int, num_refused: int) -> None:
        progress(ConvertProgress(num_earlier + num_done, num_total, refused_earlier + num_refused))

    on_progress(0, 0)
    try:
        run_pool(todo, num_workers, on_receipt, on_progress)
    except KeyboardInterrupt:
        raise Interrupted(
            f"interrupted with {len(receipts)} of {len(tasks)} shards finished; the same command goes on from there."
        ) from None
    num_converted = sum(receipts[task.planned.file].info.num_examples for task in todo)
    on_progress(num_total - num_earlier, sum(o.position < 0 for r in receipts.values() for o in r.outcomes))
    return receipts, num_converted


def _nothing_left(source: Source, receipts: Mapping[str, Receipt]) -> str:
    outcomes = [outcome for receipt in receipts.values() for outcome in receipt.outcomes]
    first = min(outcomes, key=lambda outcome: outcome.id)
    return (
        f"{source.image_dir}: none of its {len(outcomes)} image files can be decoded; the first, "
        f"{printable(source.files[first.id].path)}: {first.reason}, {first.detail}. Look at the files."
    )


def _layout(config: ConvertConfig, source: Source, plan: ShardPlan, receipts: Mapping[str, Receipt]) -> Layout:
    splits: dict[str, list[Any]] = {}
    for planned in plan.shards:
        splits.setdefault(planned.split, []).append(receipts[planned.file].info)
    return Layout(
        name=config.name,
        encoding=config.encoding,
        image_size=config.image_size,
        class_names=source.class_names,
        offsets=raw_offsets(config.image_size) if config.encoding == "raw" else Offsets(),
        splits={split: tuple(shards) for split, shards in splits.items()},
        config=config.determining(),
        source_sha256=source.sha256(),
        versions=_versions(),
    )


def _versions() -> dict[str, str]:
    return {"pillow": PIL.__version__, "libjpeg_turbo": features.version("libjpeg_turbo") or ""}


def _finish(
    folder: Path, layout: Layout, source: Source, plan: ShardPlan, receipts: Mapping[str, Receipt]
) -> list[ManifestRow]:
    places: dict[int, tuple[str, int, Outcome]] = {}
    for planned in plan.shards:
        for outcome in receipts[planned.file].outcomes:
            places[outcome.id] = (planned.split, planned.shard, outcome)
    rows, refused = [], []
    for file in source.files:
        split, shard, outcome = places.get(
            file.id, ("", -1, Outcome(id=file.id, reason=str(file.refused), detail=file.detail))
        )
        ok = outcome.position >= 0
        path = printable(file.path)
        if not ok:
            refused.append(RefusedFile(path=path, reason=outcome.reason, detail=outcome.detail))
        rows.append(
            ManifestRow(
                id=file.id,
                path=path,
                sha256=outcome.sha256,
                width=outcome.width,
                height=outcome.height,
                label=file.label,
                split=split if ok else "",
                shard=shard if ok else -1,
                position=outcome.position,
                status=OK if ok else REFUSED,
                reason=outcome.reason,
            )
        )
    write_manifest(folder, rows)
    write_quarantine(folder, refused)
    layout.save(folder)
    write_metadata(folder, layout)
    return rows


def _summary(
    dataset_dir: Path, layout: Layout, rows: list[ManifestRow], seconds: float, num_converted: int
) -> ConvertSummary:
    by_class = Counter((row.label, row.split) for row in rows if row.status == OK)
    splits = parse_splits(layout.config["splits"])
    warnings = [
        f"class {name!r} has no photo in split {split!r} ({sum(by_class[label, s] for s in splits)} in all)"
        for label, name in enumerate(layout.class_names)
        for split in splits
        if not by_class[label, split]
    ]
    return ConvertSummary(
        dataset_dir=dataset_dir,
        num_examples=sum(map(layout.num_examples, layout.splits)),
        splits={split: layout.num_examples(split) for split in layout.splits},
        num_refused=sum(row.status == REFUSED for row in rows),
        reasons=dict(sorted(Counter(row.reason for row in rows if row.status == REFUSED).items())),
        seconds=round(seconds, 3),
        images_per_s=round(num_converted / seconds, 1),
        num_converted=num_converted,
        warnings=tuple(warnings),
    )


def _check_same(
    folder: Path, config_there: Mapping[str, Any], source_there: str, config: ConvertConfig, source: Source
) -> None:
    wanted = config.determining()
    differing = [
        f"--{key}={config_there.get(key)} there, {wanted.get(key)} now"
        for key in dict.fromkeys((*config_there, *wanted))
        if config_there.get(key) != wanted.get(key)
    ]
    if not differing and source_there != source.sha256():  # other categories are other files, too
        differing.append(f"the files of {source.image_dir} have changed since")
    if differing:
        raise UsageError(
            f"{folder} was made otherwise: {'; '.join(differing)}. Choose another --name, or remove that folder."
        )


@contextmanager
def _locked(path: Path, final: Path) -> Iterator[None]:
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConversionError(f"{final}: another conversion is writing it. Wait for it, or stop it.") from None
        if final.exists():  # it finished between our look and the lock
            raise ConversionError(f"{final}: another conversion has just written it. Give the same command again.")
        yield
