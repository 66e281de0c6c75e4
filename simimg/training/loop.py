"""The training loop: one loop over `strategy.run`, for one device or many.

It reads from top to bottom as a run goes: what to train on, the model, where an earlier call stopped, the steps, what
is kept. A run is a function of its options and its data: the order of the examples, their augmentation, dropout and the
first weights all come from the seed, on any number of replicas.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import psutil
import tensorflow as tf

from simimg.errors import TrainingError, TrainingInterrupted, UsageError
from simimg.evaluation.classify import classify, compiled, predict
from simimg.input import (
    SHUFFLES,
    Order,
    Position,
    Reader,
    choose_shuffle,
    mixing_of,
    open_reader,
    reading,
    train_batches,
    troubles,
)
from simimg.stopping import stop_requested
from simimg.training import checkpoints
from simimg.training.board import TensorBoard
from simimg.training.build import build_model, build_optimizer
from simimg.training.checkpoints import Progress
from simimg.training.config import TrainConfig
from simimg.training.metrics import EpochMetrics, example_losses
from simimg.training.runs import MODEL_FILE, begin_run, check_run, recorded_shuffle
from simimg.training.step import training_step
from simimg.training.strategy import make_strategy
from tfrecords.format.files import read_json, write_json

__all__ = ["StepInfo", "TrainResult", "Watcher", "default_model_dir", "distribute", "train"]

_RESULT_FILE = "result.json"
_SHOW_EVERY_S = 0.2  # reading a loss waits for the device, so it is not done each step


@dataclasses.dataclass(frozen=True, slots=True)
class StepInfo:
    """How far a run is; loss and accuracy are means over the epoch so far."""

    step: int
    num_steps: int
    epoch: int
    num_epochs: int
    loss: float
    accuracy: float
    images_per_s: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Watcher:
    """Who is told how a run goes: `note` gets sentences, `step` the progress some times a second."""

    note: Callable[[str], None] = lambda text: None
    step: Callable[[StepInfo], None] = lambda info: None


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainResult:
    """A finished run. Accuracies are of the last epoch; test figures are None where there is no split `test`."""

    model_dir: Path
    steps: int
    seconds: float
    images_per_s: float
    train_accuracy: float
    test_accuracy: float | None
    test_binary_accuracy: float | None
    history: list[dict[str, Any]]


def default_model_dir(config: TrainConfig, dataset_name: str) -> Path:
    """Returns where a run goes that was not told."""
    return Path("runs") / f"{dataset_name}-{config.preset}-seed{config.seed}"


def train(config: TrainConfig, watcher: Watcher = Watcher()) -> TrainResult:
    """Trains a model, from the beginning or from where an earlier call with the same options stopped.

    Raises:
        UsageError: an option cannot be used, or the model folder has another run.
        DataError: the data set is damaged.
        CheckpointError: no checkpoint of the run is sound.
        TrainingError: the loss is no number.
        TrainingInterrupted: Ctrl-C or SIGTERM; a checkpoint was written.
    """
    # What to train on.
    strategy = make_strategy(config.num_devices)
    with strategy.scope():  # a set that is cached on the devices is there once a replica
        reader, choice = open_reader(
            config.dataset_dir,
            "train",
            config.reader,
            on_corrupt=config.on_corrupt,
            cache=config.cache,
            data_service=config.data_service,
        )
    split = reader.split
    model_dir = config.model_dir or default_model_dir(config, split.name)
    config = dataclasses.replace(config, model_dir=model_dir)
    shuffle = _shuffle(config, reader, recorded_shuffle(model_dir))
    order = Order(
        num_examples=split.num_examples,
        global_batch_size=config.global_batch_size,
        num_epochs=config.epochs,
        seed=config.seed,
        num_replicas=strategy.num_replicas_in_sync,
        mixing=mixing_of(split, shuffle),
    )
    if len(split.class_names) < 2:
        raise UsageError(f"{config.dataset_dir} has one class, {split.class_names[0]!r}; a classifier needs two.")
    test_reader = _open_test(config)
    info = check_run(model_dir, config, split, shuffle)
    if (model_dir / MODEL_FILE).exists() and (model_dir / _RESULT_FILE).exists():
        watcher.note(f"{model_dir} is finished already; nothing to do")
        values = read_json(model_dir / _RESULT_FILE, "the run's result")
        return TrainResult(**{**values, "model_dir": model_dir})
    watcher.note(f"reading {split.num_examples:,} examples, {choice.kind}: {choice.reason}")
    if shuffle == "windowed":
        watcher.note("the examples are mixed within windows of 1 GB, because all of them do not fit into memory")
    watcher.note(
        f"training on {strategy.num_replicas_in_sync} x {'GPU' if tf.config.get_visible_devices('GPU') else 'CPU'}, "
        f"batch {order.global_batch_size} in all, {order.per_replica_batch_size} a replica"
    )

    # The model.
    num_steps = order.steps_per_epoch * config.epochs
    with strategy.scope():
        keras.utils.set_random_seed(config.seed)
        model = build_model(config, split.image_size, len(split.class_names))
        optimizer = build_optimizer(config, num_steps)
        optimizer.build(model.trainable_variables)
    begin_run(model_dir, info)

    # Where an earlier call stopped.
    progress = checkpoints.restore_latest(model_dir, model, optimizer, watcher.note) or Progress()
    if progress.position > Position():
        watcher.note(f"going on from epoch {progress.position.epoch + 1}, step {progress.position.step}")
    order = dataclasses.replace(order, start=progress.position)

    # The steps.
    step = training_step(config, strategy, model, optimizer, order, reader)
    run = _Run(step, order, reader, watcher)
    forward = compiled(model)
    with TensorBoard(model_dir) as board, stop_requested() as stop:
        batches = reading(split, distribute(strategy, reader, order))
        while progress.position.epoch < config.epochs:
            if run.epoch(batches, progress, stop):
                line = {
                    "epoch": progress.position.epoch + 1,
                    "loss": progress.metrics.loss,
                    "accuracy": progress.metrics.accuracy,
                }
                if test_reader is not None:
                    line |= _test_figures(config, forward, test_reader)
                progress.history.append(line)
                board.write(line)
                watcher.note(_epoch_text(line, config.epochs))
                progress.position = Position(progress.position.epoch + 1, 0)
                progress.metrics = EpochMetrics()
            number = progress.position.epoch * order.steps_per_epoch + progress.position.step
            checkpoints.save(model_dir, number, model, optimizer, progress)
            if stop.is_set() and number < num_steps:
                raise TrainingInterrupted(
                    f"stopped after step {number} of {num_steps}; saved in {model_dir}. "
                    "The same command goes on from there."
                )

    # What is kept.
    temporary = model_dir / f".tmp-{MODEL_FILE}"
    model.save(temporary)
    temporary.rename(model_dir / MODEL_FILE)
    last = progress.history[-1]
    result = TrainResult(
        model_dir=model_dir,
        steps=num_steps,
        seconds=round(progress.seconds, 3),
        images_per_s=round(num_steps * config.global_batch_size / progress.seconds, 1),
        train_accuracy=last["accuracy"],
        test_accuracy=last.get("test_accuracy"),
        test_binary_accuracy=last.get("test_binary_accuracy"),
        history=progress.history,
    )
    write_json(model_dir / _RESULT_FILE, {**dataclasses.asdict(result), "model_dir": str(model_dir)})
    return result


def distribute(strategy: tf.distribute.Strategy, reader: Reader, order: Order) -> tf.distribute.DistributedDataset:
    """Returns the training batches, each replica's on its device, the next ones on their way before they are needed."""
    options = tf.distribute.InputOptions(
        experimental_fetch_to_device=bool(tf.config.get_visible_devices("GPU")),
        experimental_per_replica_buffer_size=2,
    )
    return strategy.distribute_datasets_from_function(lambda context: train_batches(reader, order), options)


class _Run:
    """The loop over an epoch's steps."""

    def __init__(
        self,
        step: Callable[[Any, tf.Tensor, tf.Tensor], tf.Tensor],
        order: Order,
        reader: Reader,
        watcher: Watcher,
    ) -> None:
        self._step, self._order, self._reader, self._watcher = step, order, reader, watcher
        self._told: set[str] = set()

    def epoch(self, batches: Iterator[Any], progress: Progress, stop: threading.Event) -> bool:
        """Trains to the end of the epoch, or until `stop` is set; returns whether it is the end."""
        order, epoch = self._order, progress.position.epoch
        pending: list[tf.Tensor] = []
        shown = start = time.perf_counter()
        first = progress.position.step
        for step in range(first, order.steps_per_epoch):
            number = epoch * order.steps_per_epoch + step
            sums = self._step(next(batches), tf.constant(epoch, tf.int64), tf.constant(number, tf.int64))
            pending.append(sums)
            progress.position = Position(epoch, step + 1)
            now = time.perf_counter()
            if now - shown > _SHOW_EVERY_S or stop.is_set() or step + 1 == order.steps_per_epoch:
                self._collect(pending, progress)
                rate = (step + 1 - first) * order.global_batch_size / (time.perf_counter() - start)
                self._watcher.step(
                    StepInfo(
                        number + 1,
                        order.steps_per_epoch * order.num_epochs,
                        epoch + 1,
                        order.num_epochs,
                        progress.metrics.loss,
                        progress.metrics.accuracy,
                        rate,
                    )
                )
                shown = now
            if stop.is_set() and step + 1 < order.steps_per_epoch:
                break
        progress.seconds += time.perf_counter() - start
        self._tell_troubles()
        return progress.position.step == order.steps_per_epoch

    def _tell_troubles(self) -> None:
        for sentence in troubles(self._reader):
            if sentence not in self._told:
                self._watcher.note(sentence)
                self._told.add(sentence)

    def _collect(self, pending: list[tf.Tensor], progress: Progress) -> None:
        for loss_sum, correct, count in (sums.numpy() for sums in pending):
            if loss_sum != loss_sum:
                raise TrainingError(  # a run is a function of its options, so going on would end here again
                    f"the loss is no number (NaN) in epoch {progress.position.epoch + 1}, by step "
                    f"{progress.position.step}. Try a smaller --learning_rate, in another --model_dir."
                )
            progress.metrics.loss_sum += float(loss_sum)
            progress.metrics.num_correct += float(correct)
            progress.metrics.num_examples += int(count)
        pending.clear()


def _shuffle(config: TrainConfig, reader: Reader, recorded: str | None) -> str:
    """Returns how the examples are shuffled: as was asked for, as the run began, or as fits into memory."""
    if reader.kind == "stream":
        if config.shuffle != "auto":
            raise UsageError(f"--shuffle={config.shuffle}: what is streamed is shuffled in a buffer. Leave it out.")
        return "buffered"
    if config.shuffle != "auto":
        return config.shuffle
    if recorded in SHUFFLES or reader.kind == "resident":
        return recorded if recorded in SHUFFLES else "uniform"
    return choose_shuffle(reader.split, psutil.virtual_memory().available)


def _open_test(config: TrainConfig) -> Reader | None:
    try:
        return open_reader(config.dataset_dir, "test", config.reader, on_corrupt=config.on_corrupt)[0]
    except UsageError:
        return None  # a data set without a split `test` is trained on all the same


def _test_figures(config: TrainConfig, forward: Callable[[tf.Tensor], tf.Tensor], reader: Reader) -> dict[str, float]:
    probabilities, labels, _ = predict(forward, reader)
    figures = classify(probabilities, labels, reader.split.class_names)
    losses = example_losses(config.loss, tf.constant(labels), tf.constant(probabilities), 0.0)
    return {
        "test_loss": float(tf.reduce_mean(losses)),
        "test_accuracy": figures.accuracy,
        "test_binary_accuracy": figures.binary_accuracy,
    }


def _epoch_text(line: dict[str, Any], num_epochs: int) -> str:
    text = f"epoch {line['epoch']}/{num_epochs}  loss {line['loss']:.4f}  accuracy {line['accuracy']:.4f}"
    if "test_accuracy" in line:
        text += f"  test loss {line['test_loss']:.4f}  accuracy {line['test_accuracy']:.4f}"
    return text
