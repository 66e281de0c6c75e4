"""Time of a training run by stage; each stage is measured together with all those before it.

    read            the bytes of the shards from the page cache, with one thread: the limit
    + shuffle       the bytes of the records, in the order of training
    + parse         labels, ids and image bytes are found in them, and checksums verified
    + decode        batches of pixels, as the reader delivers them
    + to device     batches on the training device, with prefetching
    + augment       augmented and mixed batches
    + train step    the training itself
    train step alone    the same, always with the same batch: the speed without the cost of the input

A resident reader parses and decodes when it is opened, so it has no such stages. All stages run in this process and
take turns; each turn ends when the device has finished.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf

from simimg.augment import augment, augment_and_mix
from simimg.bench.converters.tool_server import peak_bytes
from simimg.bench.loaders.page_cache_loader import BUFFER_BYTES, read_all
from simimg.bench.measurements import Run, estimate, ratios, repeating, take_turns, timed, wait_for
from simimg.errors import UsageError
from simimg.input import Batch, Order, Reader, batches_of, open_reader, reading, train_batches
from simimg.input.python_calls import python_call
from simimg.input.readers.mapped import MappedReader
from simimg.input.readers.random_access import GatherReader
from simimg.input.readers.stream import StreamReader, parse_records
from simimg.input.records import EncodedRecords, tf_varints
from simimg.training.builders import build_state
from simimg.training.strategy import make_strategy
from simimg.training.train_config import TrainConfig
from simimg.training.train_step import distribute, training_step
from tfrecords.format.record_layout import INT_BYTES
from tfrecords.machine_limits import num_cores

__all__ = ["StageCost", "TrainingCosts", "measure_training"]

_PROFILED_STEPS = 20
_EPOCHS = 1_000_000  # more than any measurement needs
ALONE, TRAINING, READ = "train step alone", "+ train step", "read"

_ADVICE = {
    "+ shuffle": "The records are far apart: try --reader=resident, --cache=device or, from a disk, --shuffle=windowed",
    "+ parse": "Convert with --encoding=raw, whose records need no parsing, or use --reader=resident",
    "+ decode": "Convert with --encoding=raw at the training size, or let other machines decode: `simimg data_service`",
    "+ to device": "Use --cache=device, which keeps the dataset on the device",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class StageCost:
    """Cost of a stage together with all those before it.

    Attributes:
        name: one of the names above.
        images_per_s: the median throughput.
        ci95: its 95 % interval; None if there were fewer than five rounds.
        ratio_to_limit: throughput as a share of that of `read`.
        own_us: microseconds per image that this stage adds to the one before; None for `train step alone`.
        cores: seconds of processor time per second.
    """

    name: str
    images_per_s: float
    ci95: tuple[float, float] | None
    ratio_to_limit: float
    own_us: float | None
    cores: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingCosts:
    """All measurements.

    Attributes:
        what: a description of the data and the training.
        stages: the stages listed above.
        input_share: the share of a step's time that would be saved if the input cost nothing.
        bottleneck: a sentence that names the bottleneck and its remedy.
        peak_bytes: the most memory that the process has had.
        rounds: every counted run, by stage.
        profile_dir: the folder of the trace, if one was requested.
    """

    what: str
    stages: tuple[StageCost, ...]
    input_share: float
    bottleneck: str
    peak_bytes: int
    rounds: dict[str, list[Run]]
    profile_dir: Path | None


def measure_training(
    config: TrainConfig,
    *,
    repeats: int,
    profile_dir: Path | None = None,
    note: Callable[[str], None] = lambda _: None,
    watch: Callable[[int], Callable[[], object]] = lambda _: lambda: None,
) -> TrainingCosts:
    """Measures the stages of the training that `config` describes; the trained weights are discarded.

    Args:
        config: the training options.
        repeats: counted rounds.
        profile_dir: the folder for a trace of 20 steps, for TensorBoard.
        note: called with a line about each phase.
        watch: takes the number of runs and returns a function to call after each.

    Raises:
        UsageError: an option is invalid.
        DataError: the dataset is damaged.
    """
    strategy = make_strategy(config.num_devices)
    config = config.resolved(strategy.num_replicas_in_sync)
    with strategy.scope():
        reader, _ = open_reader(
            config.dataset_dir,
            "train",
            config.reader,
            cache=config.cache,
            data_service=config.data_service,
            crop=config.crop,
            image_size=config.image_size,
        )
        if config.train_sizes:  # the last one, which is the largest
            reader = reader.resized(config.train_sizes[-1])
    split, batch_size = reader.split, config.global_batch_size
    if len(split.class_names) < 2:
        raise UsageError(f"{config.dataset_dir} has one class; a classifier needs two.")
    order = Order(
        num_examples=split.num_examples,
        global_batch_size=batch_size,
        num_epochs=_EPOCHS,
        seed=config.seed,
        num_replicas=strategy.num_replicas_in_sync,
    )
    height, width, _ = split.image_shape
    what = (
        f"{split.num_examples:,} images of {width} x {height}, {split.encoding}, reader {reader.kind}; {config.model}, "
        f"batches of {batch_size}"
    )
    note(f"{what}; {repeats} rounds and one to warm up")
    with strategy.scope():
        num_steps = order.steps_per_epoch * config.epochs
        state = build_state(config, split.image_size, len(split.class_names), num_steps, channels=split.channels)
    step = tf.function(training_step(config, strategy, state, order, reader))
    zero = tf.constant(0, tf.int64)

    @tf.function
    def augmented(element: Any) -> Any:
        def replica(element: Any) -> tf.Tensor:
            batch = reader.batch(element)
            arguments = (config.augmentation, config.seed, zero, batch.id, batch.image)
            return augment_and_mix(*arguments)[0] if config.augmentation.mixes else augment(*arguments)

        return strategy.run(replica, args=(element,))

    on_device, to_augment, to_train = (reading(split, distribute(strategy, reader, order)) for _ in range(3))
    here = next(to_train)
    runs = {READ: _reading(reader)}
    runs |= {name: _delivering(batches, order.per_replica_batch_size) for name, batches in _partial(reader, order)}
    runs["+ to device"] = _delivering(on_device, batch_size)
    runs["+ augment"] = repeating(lambda: augmented(next(to_augment)), batch_size)
    runs[TRAINING] = repeating(lambda: step(next(to_train), zero, zero), batch_size)
    runs[ALONE] = repeating(lambda: step(here, zero, zero), batch_size)
    rounds, failures = take_turns(runs, repeats=repeats, progress=watch(len(runs) * (repeats + 1)))
    assert not failures
    if profile_dir:
        with tf.profiler.experimental.Profile(str(profile_dir)):
            for number in range(_PROFILED_STEPS):
                with tf.profiler.experimental.Trace("train", step_num=number, _r=1):
                    wait_for(step(next(to_train), zero, zero))
    stages = _stages(rounds)
    share = 1 - estimate(ratios(rounds[TRAINING], rounds[ALONE])).median
    return TrainingCosts(
        what=what,
        stages=stages,
        input_share=share,
        bottleneck=bottleneck(stages, share),
        peak_bytes=peak_bytes(),
        rounds=rounds,
        profile_dir=profile_dir,
    )


def bottleneck(stages: tuple[StageCost, ...], input_share: float) -> str:
    """Returns a sentence that names the bottleneck of a training, and its remedy."""
    own = {stage.name: stage.own_us or 0.0 for stage in stages}
    if input_share < 0.03:
        costs = {"the model": own[TRAINING], "the augmentation": own["+ augment"]}
        slowest = max(costs, key=lambda name: costs[name])
        return f"The input takes only {max(input_share, 0):.1%} of the time, and {slowest} takes most of it. " + (
            "Use smaller images, a smaller network or more GPUs."
            if slowest == "the model"
            else "Leave out the most expensive augmentations; `simimg bench --stage=augment` measures them."
        )
    parts = {name: own[name] for name in _ADVICE if name in own}
    slowest = max(parts, key=lambda name: parts[name])
    return (
        f"The input takes {input_share:.0%} of the time, most of it for `{slowest}` ({parts[slowest]:,.1f} us per "
        f"image). {_ADVICE[slowest]}."
    )


def _stages(rounds: dict[str, list[Run]]) -> tuple[StageCost, ...]:
    found = []
    before = 0.0
    for name, runs in rounds.items():
        throughput = estimate([run.images_per_s for run in runs])
        microseconds = 1e6 / throughput.median
        found.append(
            StageCost(
                name=name,
                images_per_s=throughput.median,
                ci95=throughput.ci95,
                ratio_to_limit=estimate(ratios(runs, rounds[READ])).median,
                own_us=None if name == ALONE else max(0.0, microseconds - before),
                cores=estimate([run.cpu_seconds / run.seconds for run in runs]).median,
            )
        )
        before = microseconds
    return tuple(found)


def _partial(reader: Reader, order: Order) -> list[tuple[str, Iterator[Any]]]:
    """Returns the stages of the reader by name, each as batches."""
    batch_size = order.per_replica_batch_size
    whole = ("+ decode", batches_of(train_batches(reader, order)))
    if isinstance(reader, StreamReader):
        records = reader.train_records(order).map(lambda record, *place: record).batch(batch_size)

        def parse(batch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            features = parse_records(reader.split, batch)
            return features["label"], tf.strings.length(features["image"])

        parsed = records.map(parse, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        return [("+ shuffle", iter(records.prefetch(2))), ("+ parse", iter(parsed.prefetch(2))), whole]
    if isinstance(reader, MappedReader):
        found = []
        for name, gather in (("+ shuffle", reader.stored), ("+ parse", _parsed(reader))):
            found.append((name, batches_of(train_batches(_Part(reader, gather), order))))
        return [*found, whole]
    return [("+ shuffle", whole[1])]


class _Part(GatherReader):
    """A mapped reader that stops early: the `image` of a Batch is what it has at that stage."""

    kind = "part"

    def __init__(self, reader: MappedReader, part: Callable[[tf.Tensor], tf.Tensor]) -> None:
        super().__init__(reader.split, num_cores())
        self.places_per_call = reader.places_per_call
        self._part = part

    def gather(self, places: tf.Tensor) -> Batch:
        return Batch(image=self._part(places), label=places, id=places)


def _parsed(reader: MappedReader) -> Callable[[tf.Tensor], tf.Tensor]:
    at = reader.split.offsets
    if at is None:
        without_pixels = EncodedRecords(reader.split, decode=False)

        def ids(places: tf.Tensor) -> tf.Tensor:
            _, _, id = python_call(without_pixels.gather, [places], [tf.uint8, tf.int32, tf.int64])
            return tf.ensure_shape(id, places.shape)

        return ids

    def numbers(places: tf.Tensor) -> tf.Tensor:
        rows = reader.stored(places)
        label = tf_varints(rows[:, at.label_offset : at.label_offset + INT_BYTES])
        with tf.control_dependencies([label, tf_varints(rows[:, at.id_offset : at.id_offset + INT_BYTES])]):
            return tf.identity(rows)

    return numbers


def _reading(reader: Reader) -> Callable[[], Run]:
    buffer = bytearray(BUFFER_BYTES)

    def read() -> int:
        read_all((shard.path for shard in reader.split.shards), buffer)
        return reader.split.num_examples

    return lambda: timed(read)


def _delivering(batches: Iterator[Any], batch_size: int) -> Callable[[], Run]:
    return repeating(lambda: next(batches), batch_size)
