"""The training loop: one loop over `strategy.run`, for one device, many, or several machines.

It reads from top to bottom as a run goes: what to train on, the model, where an earlier call stopped, the steps, what
is kept. A run is a function of its options and its data: the order of the examples, their augmentation, dropout and the
first weights all come from the seed, on any number of replicas.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import tensorflow as tf

from simimg.errors import DataError, TrainingInterrupted, UsageError
from simimg.evaluation.classification import compiled
from simimg.input import Order, Position, Reader, label_counts, train_batches, troubles
from simimg.signals import stop_requested
from simimg.training import checkpoints
from simimg.training.builders import build_state
from simimg.training.checkpoints import Best, Progress, State
from simimg.training.linear_probe import Fitted, probe
from simimg.training.metrics import EpochMetrics
from simimg.training.objectives import Objective
from simimg.training.run_folder import (
    MODEL_FILE,
    RESULT_FILE,
    TrainResult,
    begin_run,
    load_result,
    locked,
    save_model,
    save_result,
    writing,
)
from simimg.training.run_setup import MEASURED, RunSetup, open_run_setup
from simimg.training.step_runner import StepRunner
from simimg.training.strategy import agreed, worker_errors
from simimg.training.tensorboard import TensorBoard
from simimg.training.train_config import TrainConfig
from simimg.training.train_step import several_steps, training_step
from simimg.training.validation_metrics import balanced, collapse, figures_of
from tfrecords.options import to_json

__all__ = ["StepInfo", "Watcher", "distribute", "train"]


@dataclasses.dataclass(frozen=True, slots=True)
class StepInfo:
    """How far a run is; loss and score are means over the epoch so far, `input_share` the time spent waiting."""

    step: int
    num_steps: int
    epoch: int
    num_epochs: int
    loss: float
    score: float
    images_per_s: float
    input_share: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Watcher:
    """Who is told how a run goes: `note` gets sentences, `step` the progress some times a second."""

    note: Callable[[str], None] = lambda text: None
    step: Callable[[StepInfo], None] = lambda info: None


def train(config: TrainConfig, watcher: Watcher = Watcher()) -> TrainResult:
    """Trains a model, from the beginning or from where an earlier call with the same options stopped.

    Raises:
        UsageError: an option cannot be used, or the model folder has another run.
        DataError: the data set is damaged.
        CheckpointError: no checkpoint of the run is sound.
        TrainingError: the loss is no number, or the disk is full.
        WorkerLost: another process that trains with this one is gone.
        TrainingInterrupted: Ctrl-C or SIGTERM; a checkpoint was written.
    """
    # What to train on.
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()
    setting = open_run_setup(config)
    config, model_dir, place = setting.config, setting.model_dir, setting.place
    strategy, reader, order = setting.strategy, setting.reader, setting.order
    objective = config.what
    if (model_dir / MODEL_FILE).exists() and (model_dir / RESULT_FILE).exists():
        watcher.note(f"{model_dir} is finished already; nothing to do")
        return load_result(model_dir)
    for sentence in setting.sentences():
        watcher.note(sentence)

    # The model.
    with strategy.scope():
        split = reader.split
        state = build_state(config, split.image_size, len(split.class_names), setting.num_steps)

    with ExitStack() as stack:
        stack.enter_context(worker_errors())
        if place.is_chief:
            with writing(model_dir):
                begin_run(model_dir, setting.info)
                stack.enter_context(locked(model_dir))

        # Where an earlier call stopped.
        progress = checkpoints.restore_latest(model_dir, state, watcher.note) or Progress()
        if progress.position > Position():
            watcher.note(f"going on from epoch {progress.position.epoch + 1}, step {progress.position.step}")
        elif config.probe:
            start = time.perf_counter()
            fitted = probe(state.model, reader, views=config.test_views, label_smoothing=config.label_smoothing)
            state.copy_to_average()
            watcher.note(
                f"the softmax alone, fitted to the network's features: training accuracy {fitted.accuracy:.4f}"
            )
            if not config.epochs:
                return _without_epochs(setting, state, fitted, time.perf_counter() - start, watcher)
        order = dataclasses.replace(order, start=progress.position)
        _check_agreement(strategy, order, model_dir)

        # The steps.
        class_weights = None
        if config.class_weights == "balanced":
            class_weights = balanced(label_counts(reader))
        step = training_step(config, strategy, state, order, reader, class_weights=class_weights)
        caller = StepRunner(
            strategy,
            several_steps(step, timed=not config.deterministic, num_sums=3 + len(objective.others)),
            iter(distribute(strategy, reader, order)),
            order,
            reader,
            objective.others,
        )
        # Crops take six times as long as all else: they are for the model that is kept, not for each epoch's.
        with_crops = config.test_views == "cropped"
        forward = compiled(state.kept, views="mirrored" if with_crops else config.test_views)
        board = stack.enter_context(TensorBoard(model_dir, watcher.note)) if place.is_chief else None
        stop = stack.enter_context(stop_requested())
        if board and progress.position == Position():
            board.augmented(config, reader)
        saved, told = time.perf_counter(), set[str]()

        while not _is_over(config, progress):
            caller.call(progress)
            watcher.step(_info(order, progress, caller))
            stopping = caller.agree_to_stop(stop)
            is_best = False
            if progress.position.step == order.steps_per_epoch:
                line = _end_epoch(setting, forward, progress)
                is_best = _note_best(order, progress, objective)
                if board:
                    board.write(line)
                watcher.note(_epoch_text(line, config.epochs, objective))
                if warning := collapse(line):
                    watcher.note(warning)
            over = _is_over(config, progress)
            due = time.perf_counter() - saved > config.checkpoint_every_s
            if place.is_chief and (due or is_best or over or stopping):
                with writing(model_dir):
                    checkpoints.save(
                        model_dir,
                        order.step_number(progress.position),
                        state,
                        progress,
                        config=to_json(config),
                        num_kept=config.keep_checkpoints,
                    )
                saved = time.perf_counter()
            for sentence in troubles(reader):
                if sentence not in told:
                    watcher.note(sentence)
                    told.add(sentence)
            if stopping and not over:
                raise TrainingInterrupted(
                    f"stopped after step {order.step_number(progress.position)} of {setting.num_steps}; saved in "
                    f"{model_dir}. The same command goes on from there."
                )

        # What is kept.
        steps, epoch = order.step_number(progress.position), progress.position.epoch
        if config.patience and progress.best and progress.best.number != steps:
            epoch = _return_to_best(setting, state, progress.best, epoch, watcher)
        line = progress.history[epoch - 1]
        if with_crops:
            line = line | _measured(setting, compiled(state.kept, views="cropped"))
            watcher.note(_epoch_text(line, config.epochs, objective) + "  (with crops)")
        return _kept(
            setting,
            state,
            line,
            steps=steps,
            epoch=epoch,
            seconds=progress.seconds,
            num_images=steps * config.global_batch_size,
            input_share=None if config.deterministic else round(progress.input_seconds / progress.seconds, 5),
            history=progress.history,
        )


def _kept(
    setting: RunSetup,
    state: State,
    line: dict[str, Any],
    *,
    steps: int,
    epoch: int,
    seconds: float,
    num_images: int,
    input_share: float | None,
    history: list[dict[str, Any]],
) -> TrainResult:
    """Returns the result of a run whose figures are `line`, after the chief has written it and the model."""
    result = TrainResult(
        model_dir=setting.model_dir,
        steps=steps,
        epoch=epoch,
        seconds=round(seconds, 3),
        images_per_s=round(num_images / seconds, 1),
        input_share=input_share,
        train_accuracy=line.get("accuracy"),
        validation_accuracy=line.get("validation_accuracy"),
        test_accuracy=line.get("test_accuracy"),
        test_binary_accuracy=line.get("test_binary_accuracy"),
        train_recall=line.get("recall"),
        validation_recall=line.get("validation_recall"),
        test_recall=line.get("test_recall"),
        history=history,
    )
    if setting.place.is_chief:
        with writing(setting.model_dir):
            save_model(setting.model_dir, state.kept)
            save_result(result)
    return result


def _without_epochs(setting: RunSetup, state: State, fitted: Fitted, seconds: float, watcher: Watcher) -> TrainResult:
    """Measures and keeps a network of which only the softmax was fitted."""
    config = setting.config
    line = {"epoch": 0, "loss": fitted.loss, "accuracy": fitted.accuracy}
    line |= _measured(setting, compiled(state.kept, views=config.test_views))
    watcher.note(_epoch_text(line, 0, config.what))
    return _kept(
        setting,
        state,
        line,
        steps=0,
        epoch=0,
        seconds=seconds,
        num_images=fitted.num_views,
        input_share=None,
        history=[line],
    )


def _end_epoch(setting: RunSetup, forward: Callable[[tf.Tensor], tf.Tensor], progress: Progress) -> dict[str, Any]:
    """Measures the other splits, moves `progress` to the next epoch, and returns the line of this one."""
    line = {"epoch": progress.position.epoch + 1, **progress.metrics.line(setting.config.what)}
    line |= _measured(setting, forward)
    progress.history.append(line)
    progress.position = Position(progress.position.epoch + 1, 0)
    progress.metrics = EpochMetrics()
    return line


def _measured(setting: RunSetup, forward: Callable[[tf.Tensor], tf.Tensor]) -> dict[str, float]:
    """Returns the figures of the splits that are not trained on, each with its split's name before it."""
    found: dict[str, float] = {}
    for name, reader in setting.measured.items():
        figures = agreed(setting.strategy, figures_of(setting.config, forward, reader))
        found |= {f"{name}_{key}": value for key, value in figures.items()}
    return found


def distribute(strategy: tf.distribute.Strategy, reader: Reader, order: Order) -> tf.distribute.DistributedDataset:
    """Returns the training batches, each replica's on its device, the next ones on their way before they are needed."""
    options = tf.distribute.InputOptions(
        experimental_fetch_to_device=bool(tf.config.get_visible_devices("GPU")),
        experimental_per_replica_buffer_size=2,
    )
    return strategy.distribute_datasets_from_function(lambda context: train_batches(reader, order), options)


def _check_agreement(strategy: tf.distribute.Strategy, order: Order, model_dir: Path) -> None:
    mine = {"epoch": float(order.start.epoch), "step": float(order.start.step)}
    if agreed(strategy, mine) != mine:
        raise UsageError(
            f"the workers do not agree where the run stands; here it is {order.start}. {model_dir} has to be one "
            "folder that all of them see."
        )


def _is_over(config: TrainConfig, progress: Progress) -> bool:
    epoch, best = progress.position.epoch, progress.best
    return epoch == config.epochs or bool(config.patience and best and epoch - best.epoch >= config.patience)


def _note_best(order: Order, progress: Progress, objective: Objective) -> bool:
    """Takes a note of it if the epoch that has just ended is the best so far; returns whether it is."""
    line, best = progress.history[-1], progress.best
    if "validation_loss" not in line:
        return False
    score, loss = line[f"validation_{objective.score}"], line["validation_loss"]
    if best and (score, -loss) <= (best.score, -best.loss):
        return False
    progress.best = Best(epoch=line["epoch"], number=order.step_number(progress.position), score=score, loss=loss)
    return True


def _return_to_best(setting: RunSetup, state: State, best: Best, last_epoch: int, watcher: Watcher) -> int:
    """Returns the epoch whose weights are kept, after restoring them: the best one's, if its checkpoint is sound."""
    try:
        checkpoints.restore(checkpoints.folder_of(setting.model_dir, best.number), state)
    except (DataError, OSError) as error:
        watcher.note(f"the best epoch's checkpoint is damaged ({error}); the last epoch's weights are kept instead")
        return last_epoch
    words = setting.config.what.words
    watcher.note(f"kept: epoch {best.epoch}, whose validation {words} of {best.score:.4f} is the best")
    return best.epoch


def _info(order: Order, progress: Progress, caller: StepRunner) -> StepInfo:
    # An epoch's end is reported with the epoch, and not with the next one that it makes way for.
    return StepInfo(
        step=order.step_number(progress.position),
        num_steps=order.steps_per_epoch * order.num_epochs,
        epoch=progress.position.epoch + 1,
        num_epochs=order.num_epochs,
        loss=progress.metrics.loss,
        score=progress.metrics.score,
        images_per_s=caller.images_per_s,
        input_share=caller.input_share,
    )


def _epoch_text(line: dict[str, Any], num_epochs: int, objective: Objective) -> str:
    text = f"epoch {line['epoch']}/{num_epochs}" if num_epochs else "the softmax alone"
    for name in ("", *MEASURED):
        prefix = f"{name}_" if name else ""
        if f"{prefix}loss" not in line:
            continue
        text += f"  {name}{name and ' '}loss {line[f'{prefix}loss']:.4f}"
        text += f"  {objective.words} {line[f'{prefix}{objective.score}']:.4f}"
        for key in objective.others:
            text += f"  {key.replace('_', ' ')} {line[f'{prefix}{key}']:.3f}"
    return text
