"""Speed of reading by size of the dataset: one thousand to two million records, in one shard to hundreds.

The records are those of a real dataset whose shards are repeated, so that they need no more disk and stay in the page
cache; a reader treats them as different files. Each image should cost the same, and the first batch should not take
longer in a larger set.
"""

from __future__ import annotations

import dataclasses
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from simimg.bench.bench_plots import aligned, interval
from simimg.bench.measurements import Run, estimate, repeating
from simimg.errors import UsageError
from simimg.input import Order, Split, batches_of, train_batches
from simimg.input.readers.mapped import MappedReader
from simimg.input.split import Shard
from tfrecords.machine_limits import num_cores

__all__ = ["GrownSet", "Growth", "growth_table", "measure_growth"]

_COUNTS = (1_000, 10_000, 100_000, 1_000_000, 2_000_000)
_SHARDS = (1, 2, 4, 8)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GrownSet:
    """Cost of reading a set of one size.

    Attributes:
        num_examples: the number of its records.
        num_shards: the number of its files.
        first_batch_s: median seconds from the metadata of the folder to the first batch of a uniform shuffle.
        images_per_s: median throughput after that.
        ci95: its 95 % interval; None if there were fewer than five rounds.
    """

    num_examples: int
    num_shards: int
    first_batch_s: float
    images_per_s: float
    ci95: tuple[float, float] | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Growth:
    """All measurements."""

    what: str
    sets: tuple[GrownSet, ...]
    rounds: list[list[Run]]


def measure_growth(
    split: Split,
    what: str,
    *,
    batch_size: int,
    repeats: int,
    watch: Callable[[int], Callable[[], object]] = lambda _: lambda: None,
) -> Growth:
    """Measures the mapped reader on sets that are made of `split`.

    Raises:
        UsageError: the smallest dataset has fewer records than a batch.
    """
    if not 1 <= batch_size <= min(_COUNTS):
        raise UsageError(f"--batch_size={batch_size}: should be 1..{min(_COUNTS)}, the size of the smallest dataset.")
    with tempfile.TemporaryDirectory(prefix="growth-") as parts_dir:
        return _measured(split, what, Path(parts_dir), batch_size, repeats, watch)


def _measured(
    split: Split,
    what: str,
    parts_dir: Path,
    batch_size: int,
    repeats: int,
    watch: Callable[[int], Callable[[], object]],
) -> Growth:
    grown = [_of_count(split, count, parts_dir) for count in _COUNTS]
    grown += [dataclasses.replace(split, shards=split.shards[:n]) for n in _SHARDS if n <= len(split.shards)]
    advance = watch(len(grown) * (repeats + 1))
    firsts: list[list[float]] = [[] for _ in grown]
    rounds: list[list[Run]] = [[] for _ in grown]
    for number in range(repeats + 1):  # the first is the warm-up
        for at, each in enumerate(grown):
            first, run = _read(each, batch_size)
            if number:
                firsts[at].append(first)
                rounds[at].append(run)
            advance()
    return Growth(
        what=f"{what}, mapped, batches of {batch_size}",
        sets=tuple(map(_grown_set, grown, firsts, rounds)),
        rounds=rounds,
    )


def _grown_set(split: Split, firsts: list[float], runs: list[Run]) -> GrownSet:
    throughput = estimate([run.images_per_s for run in runs])
    return GrownSet(
        num_examples=split.num_examples,
        num_shards=len(split.shards),
        first_batch_s=estimate(firsts).median,
        images_per_s=throughput.median,
        ci95=throughput.ci95,
    )


def _read(split: Split, batch_size: int) -> tuple[float, Run]:
    start = time.perf_counter()
    reader = MappedReader(split, num_threads=num_cores())
    order = Order(num_examples=split.num_examples, global_batch_size=batch_size, num_epochs=1_000_000, seed=0)
    batches = batches_of(train_batches(reader, order))
    next(batches)
    return time.perf_counter() - start, repeating(lambda: next(batches), batch_size)()


def _of_count(split: Split, count: int, parts_dir: Path) -> Split:
    """Returns a split of `count` records that repeats the shards of `split`; JPEG and PNG have whole shards only."""

    def shards() -> Iterator[Shard]:
        left = count
        for shard in itertools.cycle(split.shards):
            if split.offsets is not None and left < shard.num_examples:
                shard = _part_of(shard, left, split.offsets.record_bytes, parts_dir)
            if shard.num_examples:
                yield shard
            left -= shard.num_examples
            if left <= 0:
                return

    return dataclasses.replace(split, shards=tuple(shards()))


def _part_of(shard: Shard, num_examples: int, record_bytes: int, parts_dir: Path) -> Shard:
    path = parts_dir / f"{num_examples}-of-{shard.path.name}"
    with open(shard.path, "rb") as file:
        path.write_bytes(file.read(num_examples * record_bytes))
    return Shard(path, num_examples)


def growth_table(growth: Growth) -> list[str]:
    """Returns a table with the cost of each size."""
    rows = [("records", "shards", "first batch", "images/s", "95 % interval")]
    rows += [
        (
            f"{grown.num_examples:,}",
            f"{grown.num_shards:,}",
            f"{1000 * grown.first_batch_s:,.0f} ms",
            f"{grown.images_per_s:,.0f}",
            interval(grown.ci95, ",.0f"),
        )
        for grown in growth.sets
    ]
    return [f"growth: {growth.what}", *aligned(rows)]
