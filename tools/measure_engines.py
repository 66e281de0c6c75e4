"""Measures what an engine costs: a task that does nothing, and the conversion of images beside the local engine.

    python -m tools.measure_engines --engine=ray --tasks=10000 --image_dir=photos

Each conversion is repeated, in turn with that of the local engine, and its processor time is that of all processes:
on a machine that does other work, only that can be compared. `--entries` makes the plan of that many files instead, and
prints the memory of this process, which is that of the driver. Needs the extra `ray`.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil

from tfrecords.convert.engine import convert
from tfrecords.convert.plan.conversion_job import ConversionJob
from tfrecords.convert.plan.convert_config import ConvertConfig
from tfrecords.convert.sources import Source
from tfrecords.convert.sources.image_folder import FolderFiles
from tfrecords.convert.state.receipts import Receipt
from tfrecords.convert.state.workdir import WorkDir
from tfrecords.convert.workers.runner import open_runner
from tfrecords.convert.workers.shard_worker import Monitor, Task, pack


class EmptyTask(Task):
    """Writes an empty shard and its receipt."""

    def run(self, monitor: Monitor) -> None:
        """Write the two files."""
        self.shard.touch()
        self.acknowledge(0)


def main() -> None:
    """Measure what the flags name."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--engine", default="ray")
    parser.add_argument("--ray_address", default="")
    parser.add_argument("--tasks", type=int, default=0)
    parser.add_argument("--image_dir")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--entries", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if given.tasks:
            for engine in ("local", given.engine):
                measure_tasks(Path(folder, engine), engine, given.ray_address, given.tasks)
        if given.image_dir:
            measure_conversions(Path(folder), given.image_dir, given.engine, given.ray_address, given.rounds)
        if given.entries:
            measure_plan(Path(folder), given.entries)


def measure_tasks(folder: Path, engine: str, address: str, num_tasks: int) -> None:
    """Print the time of a task that does nothing, without the start of the engine."""
    folder.mkdir()
    rows = np.arange(1)

    def tasks(name: str, count: int) -> list[Task]:
        return [
            EmptyTask(shard=folder / f"{name}-{number}", receipt=folder / f"{name}-{number}.json", inputs="", rows=rows)
            for number in range(count)
        ]

    with open_runner(engine, str, num_workers=2, ray_address=address) as runner:
        done: list[Task] = []
        runner.run(iter(tasks("first", 8)), done.append, lambda *_: None)
        before = np.array([time.perf_counter(), time.process_time(), processor_s()])
        runner.run(iter(tasks("task", num_tasks)), done.append, lambda *_: None)
        after = np.array([time.perf_counter(), time.process_time(), processor_s()])
    assert len(done) == num_tasks + 8
    taken, driver, everything = 1e3 * (after - before) / num_tasks
    tell(
        f"{engine}: {taken:.2f} ms per empty task; processor time: {driver:.2f} ms of this process, "
        f"{everything:.2f} ms of all"
    )


def measure_conversions(folder: Path, image_dir: str, engine: str, address: str, rounds: int) -> None:
    """Print images/s of conversions by one and two workers, by turns with those of the local engine, and processor
    time per image.
    """
    with contextlib.ExitStack() as stack:
        if engine == "ray" and not address:  # one start for all rounds
            stack.enter_context(open_runner("ray", str, num_workers=2)).start(1)
        for num_workers in (1, 2):
            speeds: dict[str, list[tuple[float, float]]] = {"local": [], engine: []}
            for number in range(2 * rounds + 2):
                name = ("local", engine)[number % 2]
                shutil.rmtree(folder / "data", ignore_errors=True)
                config = ConvertConfig(
                    image_dir=image_dir,
                    data_dir=folder / "data",
                    name="c",
                    image_size=256,
                    num_workers=num_workers,
                    engine=name,
                    ray_address=address if number % 2 else "",
                )
                used = processor_s()
                made = convert(config)
                used = processor_s() - used
                if number > 1:  # the first of each is a warm-up
                    speeds[name].append((made.num_converted / made.seconds, 1e3 * used / made.num_converted))
            here, there = (np.median(speeds[name], axis=0) for name in ("local", engine))
            tell(f"{num_workers} workers: {there[0]:,.0f} images/s, local {here[0]:,.0f}: {there[0] / here[0]:.2f}")
            tell(f"  {there[1]:.2f} ms of processor time per image, local {here[1]:.2f}: {here[1] / there[1]:.2f}")


_used: dict[psutil.Process, float] = {}  # by process, when it was last seen: Ray forgets that of workers that ended


def processor_s() -> float:
    """Return the processor time of this process and of all that it or they have started, also of those that ended."""
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            _used[process] = sum(process.cpu_times()[:4])  # user, system, and those of children that ended
    return sum(_used.values())


def measure_plan(folder: Path, num_entries: int) -> None:
    """Print the memory that so many files take: up to the first task, and until it is known which are copies."""
    from tfrecords.convert import engine

    class Planned(Exception):
        pass

    def source(*_: object, **__: object) -> Source:
        numbers = np.arange(num_entries)
        return Source(
            location="drawn",
            class_names=tuple(f"{number:03d}" for number in range(1000)),
            paths=[f"{number % 1000:03d}/{number:09d}.jpg" for number in range(num_entries)],
            labels=(numbers % 1000).astype(np.int32),
            sizes=numbers,
            stamps=numbers + 1,
            files=FolderFiles(str(folder)),
        )

    def write_shards(job: ConversionJob, workdir: WorkDir, *_: object) -> None:
        planned = job.plan.shards[0]
        assert len(pack(engine._shard_task(job, planned, workdir))) < 64 * len(planned.rows) + 4096
        peaks.append(peak_gib())
        receipt = Receipt(num_entries)
        generator = np.random.default_rng(0)
        for digests in (receipt.sha256, receipt.pixels_sha256):
            for rows in np.array_split(digests, 100):
                rows[:] = generator.integers(0, 256, rows.shape, np.uint8)
        for planned in job.plan.shards:
            receipt.positions[planned.rows] = np.arange(len(planned.rows))
        job.final_plan(receipt)
        peaks.append(peak_gib())
        raise Planned

    for name, stand_in in (("open_source", source), ("_write_shards", write_shards)):
        setattr(engine, name, stand_in)
    peaks = [peak_gib()]
    start = time.perf_counter()
    config = ConvertConfig(image_dir=str(folder), data_dir=folder / "data", name="c", num_workers=1, copies="exact")
    with contextlib.suppress(Planned):
        convert(config)
    seconds = time.perf_counter() - start
    tell(
        f"{num_entries:,} entries: {peaks[0]:.2f} GiB before, {peaks[1]:.2f} until the first task, {peaks[2]:.2f} "
        f"until the final plan, {seconds:.0f} s"
    )


def peak_gib() -> float:
    """Return the most memory that this process has had so far, GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def tell(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    from tools import measure_engines  # workers find its task there, and not in a `__main__` of their own

    measure_engines.main()
