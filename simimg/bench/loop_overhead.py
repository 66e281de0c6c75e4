"""Overhead of the training loop, compared with a bare compiled step and with Keras's `fit`.

    bare step        a `tf.function` of forward pass, gradients and optimizer, with one batch in memory
    loop             the training loop: batches read and shuffled, several steps per call, losses and accuracies summed
    loop, x 1 2 4    the same under MirroredStrategy with that many devices, which share the global batch
    fit              `keras.Model.fit` on the same batches; `fit, 10 steps per call` with steps_per_execution=10

There is no augmentation and no moving average of the weights, because `fit` has neither. All run in this process and
take turns. Without a GPU, the devices are parts of the processor: they gain nothing, and what several of them cost
beyond one is the cost of the strategy.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from simimg.bench.converters.tool_server import cpu_seconds
from simimg.bench.measurements import Run, estimate, ratios, repeating, take_turns, timed
from simimg.input import Batch, Order, Reader, open_reader, train_batches
from simimg.training.builders import build_state
from simimg.training.checkpoints import Progress, State
from simimg.training.metrics import example_losses
from simimg.training.strategy import make_strategy
from simimg.training.train_config import TrainConfig
from simimg.training.train_step import StepRunner, training_step

__all__ = ["LoopCost", "LoopCosts", "loop_turn", "measure_loop"]

BARE, LOOP = "bare step", "loop"
_DEVICES = (1, 2, 4)
_EPOCHS = 1_000_000  # more than any measurement needs
_FIT_S = 2.0
_SCHEDULE_STEPS = 1000
_FIT_STEPS_PER_CALL = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoopCost:
    """Speed of one way of training.

    Attributes:
        name: one of the names above.
        steps_per_s: the median.
        ratio_to_bare: steps/s as a share of the bare step's, the median over the rounds.
        ci95: its 95 % interval; None if there were fewer than five rounds.
        overhead_us: microseconds per step beyond the bare one.
    """

    name: str
    steps_per_s: float
    ratio_to_bare: float
    ci95: tuple[float, float] | None
    overhead_us: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoopCosts:
    """All measurements; `to_fit` is how many times as fast the loop is as `fit`, with its 95 % interval."""

    what: str
    ways: tuple[LoopCost, ...]
    to_fit: float
    to_fit_ci95: tuple[float, float] | None
    rounds: dict[str, list[Run]]


def measure_loop(
    config: TrainConfig,
    *,
    repeats: int,
    note: Callable[[str], None] = lambda _: None,
    watch: Callable[[int], Callable[[], object]] = lambda _: lambda: None,
) -> LoopCosts:
    """Measures the overhead of the loop in the training that `config` describes, without its augmentation.

    Args:
        config: the training options.
        repeats: counted rounds.
        note: called with a line about each phase.
        watch: takes the number of runs and returns a function to call after each.

    Raises:
        UsageError: an option is invalid.
        DataError: the dataset is damaged.
    """
    gpus = tf.config.get_visible_devices("GPU")
    if not gpus:
        processor = tf.config.list_physical_devices("CPU")[0]
        parts = [tf.config.LogicalDeviceConfiguration()] * max(_DEVICES)
        with contextlib.suppress(RuntimeError):  # TensorFlow has initialized its devices already: use those
            tf.config.set_logical_device_configuration(processor, parts)
    kind = "GPU" if gpus else "CPU"
    there = len(tf.config.list_logical_devices(kind))
    config = dataclasses.replace(
        config,
        rotation_degrees=0.0,
        horizontal_flip=False,
        crop_min_area=1.0,
        colour_jitter=0.0,
        rand_augment="off",
        mixup=0.0,
        cutmix=0.0,
        ema=0.0,
    ).resolved(1)
    reader, _ = open_reader(config.dataset_dir, "train", config.reader, crop=config.crop, image_size=config.image_size)
    if config.train_sizes:  # the last one, which is the largest
        reader = reader.resized(config.train_sizes[-1])
    batch_size = config.global_batch_size
    height, width, _ = reader.split.image_shape
    what = f"{width} x {height}, reader {reader.kind}; {config.model}, batches of {batch_size}"
    note(f"{what}; {repeats} rounds and one to warm up")
    runs = {
        BARE: _bare(config, reader),
        LOOP: loop_turn(config, reader, tf.distribute.OneDeviceStrategy(f"{kind}:0"))[0],
    }
    for count in _DEVICES:
        if count <= there and batch_size % count == 0:
            runs[f"loop, x {count}"], _ = loop_turn(config, reader, make_strategy(count))
    runs["fit"] = _fit(config, reader, 1)
    runs[f"fit, {_FIT_STEPS_PER_CALL} steps per call"] = _fit(config, reader, _FIT_STEPS_PER_CALL)
    rounds, failures = take_turns(runs, repeats=repeats, progress=watch(len(runs) * (repeats + 1)))
    assert not failures
    to_fit = estimate(ratios(rounds[LOOP], rounds["fit"]))
    return LoopCosts(
        what=what,
        ways=tuple(_cost(name, found, rounds[BARE], batch_size) for name, found in rounds.items()),
        to_fit=to_fit.median,
        to_fit_ci95=to_fit.ci95,
        rounds=rounds,
    )


def _cost(name: str, runs: list[Run], bare: list[Run], batch_size: int) -> LoopCost:
    ratio = estimate(ratios(runs, bare))
    beyond = [
        (one.seconds / one.num_images - other.seconds / other.num_images) * batch_size * 1e6
        for one, other in zip(runs, bare, strict=True)
    ]
    return LoopCost(
        name=name,
        steps_per_s=estimate([run.images_per_s / batch_size for run in runs]).median,
        ratio_to_bare=ratio.median,
        ci95=ratio.ci95,
        overhead_us=estimate(beyond).median,
    )


def _order(config: TrainConfig, reader: Reader, num_replicas: int = 1) -> Order:
    return Order(
        num_examples=reader.split.num_examples,
        global_batch_size=config.global_batch_size,
        num_epochs=_EPOCHS,
        seed=config.seed,
        num_replicas=num_replicas,
    )


def _state(config: TrainConfig, reader: Reader) -> State:
    split, num_classes = reader.split, len(reader.split.class_names)
    return build_state(config, split.image_size, num_classes, _SCHEDULE_STEPS, channels=split.channels)


def _bare(config: TrainConfig, reader: Reader) -> Callable[[], Run]:
    order = _order(config, reader)
    state = _state(config, reader)
    batch = reader.batch(next(iter(train_batches(reader, order))))
    images, labels = tf.cast(batch.image, tf.float32), batch.label
    variables = state.model.trainable_variables

    @tf.function
    def step() -> tf.Tensor:
        with tf.GradientTape() as tape:
            probabilities = state.model(images, training=True)
            losses = example_losses(config.loss, labels, probabilities, config.label_smoothing)
            loss = tf.reduce_mean(losses)
        state.optimizer.apply(tape.gradient(loss, variables), variables)
        return loss

    return repeating(step, config.global_batch_size)


def loop_turn(
    config: TrainConfig,
    reader: Reader,
    strategy: tf.distribute.Strategy,
    *,
    min_s: float | None = None,
    min_calls: int = 3,
) -> tuple[Callable[[], Run], StepRunner]:
    """Returns a function that trains for one turn, whose least length is that of `timed`, and what runs its steps.

    The options are resolved, and the reader was opened in the scope of the strategy.
    """
    order = _order(config, reader, strategy.num_replicas_in_sync)
    with strategy.scope():
        state = _state(config, reader)
    step = training_step(config, strategy, state, order, reader)
    caller = StepRunner(strategy, step, order, reader, config.objective_info.others)
    progress, never = Progress(), threading.Event()

    def once() -> int:
        before = progress.metrics.num_examples
        caller.call(progress)
        caller.agree_to_stop(never)
        done = progress.metrics.num_examples - before
        if progress.position.step == order.steps_per_epoch:
            progress.position = dataclasses.replace(progress.position, epoch=progress.position.epoch + 1, step=0)
        return done

    return lambda: timed(once, min_s=min_s, min_calls=min_calls), caller


class _Clock(keras.callbacks.Callback):
    """Times a `fit` from the end of its first call to the end of its last, which leaves out its preparation."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[tuple[int, float, float]] = []

    def on_train_begin(self, logs: Any = None) -> None:
        self.ends.clear()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.ends.append((batch, time.perf_counter(), cpu_seconds()))


def _fit(config: TrainConfig, reader: Reader, steps_per_call: int) -> Callable[[], Run]:
    state = _state(config, reader)
    num_classes = len(reader.split.class_names)
    loss = keras.losses.BinaryCrossentropy if config.loss == "binary" else keras.losses.CategoricalCrossentropy
    state.model.compile(
        optimizer=state.optimizer,
        loss=loss(label_smoothing=config.label_smoothing),
        metrics=["categorical_accuracy"],
        steps_per_execution=steps_per_call,
    )

    def pair(element: Any) -> tuple[tf.Tensor, tf.Tensor]:
        batch = reader.batch(element)
        return tf.cast(batch.image, tf.float32), tf.one_hot(batch.label, num_classes)

    batches = train_batches(reader, _order(config, reader)).map(lambda *parts: pair(_element(parts))).prefetch(2)
    clock = _Clock()
    steps = [3 * steps_per_call]

    def turn() -> Run:
        state.model.fit(batches, steps_per_epoch=steps[0], epochs=1, verbose=0, callbacks=[clock])
        (first, start, cpu_start), (last, end, cpu_end) = clock.ends[0], clock.ends[-1]
        # The first turn warms up; from the second on, a turn has the intended length.
        wanted = round(_FIT_S * (last - first) / (end - start) / steps_per_call) * steps_per_call
        steps[0] = max(3 * steps_per_call, wanted)
        return Run(end - start, (last - first) * config.global_batch_size, 0, cpu_end - cpu_start)

    return turn


def _element(parts: tuple[Any, ...]) -> Any:
    return Batch(*parts) if len(parts) > 1 else parts[0]
