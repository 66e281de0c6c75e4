"""The training loop, for one device, several, or several machines.

`train` reads from top to bottom in the order of a run: set up, build the model, resume, train, save. A run is a
function of its options and its data: the order of the examples, their augmentation, dropout and the initial weights all
depend on the seed, and not on the number of replicas.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from simimg.errors import DataError, TrainingInterrupted, UsageError
from simimg.input import Order, Position, input_warnings, label_counts, target_spread
from simimg.models.model_folder import MODEL_FILE, Objective, save_model, writing
from simimg.models.saved_model import compiled, num_devices
from simimg.signals import stop_requested
from simimg.training import checkpoints, run_folder
from simimg.training.builders import build_state
from simimg.training.checkpoints import Best, Progress, State
from simimg.training.linear_probe import Fitted, probe
from simimg.training.metrics import EpochMetrics, balanced, collapse, deviations_of, figures_of
from simimg.training.mirrored_classes import mirrored_classes
from simimg.training.run_folder import TrainResult
from simimg.training.run_setup import MEASURED, RunSetup, open_run_setup
from simimg.training.strategy import agreed, device_errors
from simimg.training.tensorboard import TensorBoard
from simimg.training.train_config import TrainConfig
from simimg.training.train_step import StepRunner, training_step
from tfrecords.format.atomic_files import write_json
from tfrecords.options import to_json


@dataclasses.dataclass(frozen=True, slots=True)
class StepInfo:
    """Progress of a run. `loss` and `score`, whose name is `words`, are means over the epoch so far. `input_share` is
    the share of waiting.
    """

    step: int
    num_steps: int
    epoch: int
    num_epochs: int
    loss: float
    score: float
    images_per_s: float
    input_share: float | None  # not known under `--deterministic`, nor in a GPU's first seconds
    words: str = "accuracy"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Watcher:
    """Callbacks of a run: `note` is called with sentences, and `step` with the progress several times per second."""

    note: Callable[[str], None] = lambda text: None
    step: Callable[[StepInfo], None] = lambda info: None


def train(config: TrainConfig, watcher: Watcher = Watcher()) -> TrainResult:
    """Trains a model, from the beginning or from where an earlier call with the same options stopped.

    Raises:
        UsageError: an option cannot be used, or the model folder has another run.
        DataError: the dataset is damaged.
        CheckpointError: all checkpoints of the run are damaged.
        TrainingError: the loss is NaN or infinite, the disk is full, or a device is out of memory.
        WorkerLost: another process that trains with this one was lost.
        TrainingInterrupted: Ctrl-C or SIGTERM; a checkpoint was written.
    """
    with ExitStack() as stack:
        stack.enter_context(device_errors(config))

        # Set up.
        if config.deterministic:
            tf.config.experimental.enable_op_determinism()
        setup = open_run_setup(config)
        config, model_dir, place = setup.config, setup.model_dir, setup.place
        strategy, reader, order = setup.strategy, setup.reader, setup.order
        objective = config.objective_info
        if (model_dir / MODEL_FILE).exists() and (model_dir / run_folder.RESULT_FILE).exists():
            watcher.note(f"the run in {model_dir} is finished already")
            return run_folder.load_result(model_dir)
        for sentence in setup.sentences():
            watcher.note(sentence)

        # Build the model.
        with strategy.scope():
            split = reader.split
            spread = target_spread(reader) if config.objective == "regression" else None
            num_classes = len(split.class_names)
            state = build_state(config, split.image_size, num_classes, setup.num_steps, spread, split.channels)

        if place.is_chief:
            with writing(model_dir):
                stack.enter_context(run_folder.begin_run(model_dir, setup.info))

        # Resume.
        progress = checkpoints.restore_latest(model_dir, state, watcher.note) or Progress()
        if progress.position > Position():
            watcher.note(f"resuming from epoch {progress.position.epoch + 1}, step {progress.position.step}")
        elif config.probe:
            start = time.perf_counter()
            smoothing = config.label_smoothing
            fitted = probe(state.model, reader, views=config.test_views, label_smoothing=smoothing, strategy=strategy)
            state.copy_to_average()
            watcher.note(f"softmax fitted to the network's features: training accuracy {fitted.accuracy:.4f}")
            if not config.epochs:
                return _without_epochs(setup, state, fitted, time.perf_counter() - start, watcher)
        if config.objective == "classes" and progress.position == Position():
            for pair in mirrored_classes(config.augmentation, reader):
                watcher.note(pair.sentence())
        order = dataclasses.replace(order, start=progress.position)
        _check_agreement(strategy, order, model_dir)

        # Train.
        class_weights = None
        if config.class_weights == "balanced":
            class_weights = balanced(label_counts(reader, order.mixture))
        step = training_step(config, strategy, state, order, reader, class_weights=class_weights)
        timed, sizes = not config.deterministic, config.train_sizes
        runner = StepRunner(strategy, step, order, reader, objective.others, timed=timed, sizes=sizes)
        # Crops take six times as long as the other views, so only the saved model is measured with them.
        with_crops = config.test_views == "cropped"
        forward = _forward(setup, state, "mirrored" if with_crops else config.test_views)
        board = stack.enter_context(TensorBoard(model_dir, watcher.note)) if place.is_chief else None
        stop = stack.enter_context(stop_requested())
        if board and progress.position == Position():
            board.options(to_json(config))
            board.augmented(config, reader)
        saved, noted = time.perf_counter(), set[str]()

        while not _is_over(config, progress):
            runner.call(progress)
            watcher.step(_info(order, progress, runner, objective))
            stopping = runner.agree_to_stop(stop)
            is_best = False
            if progress.position.step == order.steps_per_epoch:
                line = _end_epoch(setup, state, forward, progress)
                is_best = _note_best(order, progress, objective)
                if board:
                    board.write(line, float(keras.ops.convert_to_numpy(state.optimizer.learning_rate)))
                watcher.note(_epoch_text(line, config.epochs, objective))
                if warning := collapse(line):
                    watcher.note(warning)
            over = _is_over(config, progress)
            due = time.perf_counter() - saved > config.checkpoint_every_s
            if place.is_chief and (due or is_best or over or stopping):
                with writing(model_dir):
                    kept, number = config.keep_checkpoints, order.step_number(progress.position)
                    checkpoints.save(model_dir, number, state, progress, config=to_json(config), num_kept=kept)
                saved = time.perf_counter()
            for sentence in input_warnings(reader):
                if sentence not in noted:
                    watcher.note(sentence)
                    noted.add(sentence)
            if stopping and not over:
                raise TrainingInterrupted(
                    f"stopped after step {order.step_number(progress.position)} of {setup.num_steps}; saved in "
                    f"{model_dir}. Give the same command again to resume."
                )

        # Save.
        steps, line = order.step_number(progress.position), progress.history[-1]
        if config.patience and progress.best and progress.best.number != steps:
            line = _return_to_best(setup, state, progress, progress.best, watcher)
        if with_crops:
            line = line | _measured(setup, state, _forward(setup, state, "cropped"))
            watcher.note(_epoch_text(line, config.epochs, objective) + "  (with crops)")
        return _saved(setup, state, progress, line, steps, num_images=steps * config.global_batch_size)


def _saved(
    setup: RunSetup, state: State, progress: Progress, line: dict[str, Any], steps: int, num_images: int
) -> TrainResult:
    """Returns the result of a run whose figures are `line`; the chief saves it, and the model."""
    score = setup.config.objective_info.step_score
    result = TrainResult(
        model_dir=setup.model_dir,
        steps=steps,
        epoch=line["epoch"],
        seconds=round(progress.seconds, 3),
        images_per_s=round(num_images / progress.seconds, 1),
        input_share=round(progress.input_seconds / progress.seconds, 5) if progress.input_seconds else None,
        figures=run_folder.figures_by_split({**line, f"train_{score}": line[score]}),
        history=progress.history,
        teacher=str(setup.config.teacher) if setup.config.teacher else None,
    )
    if setup.place.is_chief:
        with writing(setup.model_dir):
            save_model(setup.model_dir, state.kept)
            write_json(setup.model_dir / run_folder.RESULT_FILE, result.to_json())  # marks the run as finished
    return result


def _without_epochs(setup: RunSetup, state: State, fitted: Fitted, seconds: float, watcher: Watcher) -> TrainResult:
    """Measures and saves a network of which only the softmax was fitted."""
    line = {"epoch": 0, "loss": fitted.loss, "accuracy": fitted.accuracy}
    line |= _measured(setup, state, _forward(setup, state, setup.config.test_views))
    watcher.note(_epoch_text(line, 0, setup.config.objective_info))
    progress = Progress(history=[line], seconds=seconds)
    return _saved(setup, state, progress, line, steps=0, num_images=fitted.num_views)


def _end_epoch(
    setup: RunSetup, state: State, forward: Callable[[tf.Tensor], tf.Tensor], progress: Progress
) -> dict[str, Any]:
    """Measures the other splits, moves `progress` to the next epoch, and returns this epoch's entry of the history."""
    line = {"epoch": progress.position.epoch + 1, **progress.metrics.line(setup.config.objective_info)}
    line |= _measured(setup, state, forward)
    progress.history.append(line)
    progress.position = Position(progress.position.epoch + 1, 0)
    progress.metrics = EpochMetrics()
    return line


def _forward(setup: RunSetup, state: State, views: str) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns the kept model as a function that divides a batch among the devices of this process."""
    return compiled(state.kept, views=views, strategy=setup.strategy)


def _measured(setup: RunSetup, state: State, forward: Callable[[tf.Tensor], tf.Tensor]) -> dict[str, float]:
    """Returns the figures of the measured splits, with keys such as `test_loss`."""
    found: dict[str, float] = {}
    deviations = deviations_of(state.kept) if setup.config.objective == "regression" else None
    for name, reader in setup.measured.items():
        figures = figures_of(setup.config, forward, reader, num_devices(setup.strategy), deviations)
        figures = agreed(setup.strategy, figures)
        found |= {f"{name}_{key}": value for key, value in figures.items()}
    return found


def _check_agreement(strategy: tf.distribute.Strategy, order: Order, model_dir: Path) -> None:
    mine = {"epoch": float(order.start.epoch), "step": float(order.start.step)}
    if agreed(strategy, mine) != mine:
        raise UsageError(
            f"the workers found different checkpoints; this one is at {order.start}. {model_dir} must be one folder "
            "that all of them can read."
        )


def _is_over(config: TrainConfig, progress: Progress) -> bool:
    epoch, best = progress.position.epoch, progress.best
    return epoch == config.epochs or bool(config.patience and best and epoch - best.epoch >= config.patience)


def _note_best(order: Order, progress: Progress, objective: Objective) -> bool:
    """Records the epoch that has just ended if it is the best so far, and returns whether it is."""
    line, best = progress.history[-1], progress.best
    if "validation_loss" not in line:
        return False
    score, loss = line[f"validation_{objective.score}"], line["validation_loss"]
    if best and not objective.is_better(score, loss, (best.score, best.loss)):
        return False
    progress.best = Best(epoch=line["epoch"], number=order.step_number(progress.position), score=score, loss=loss)
    return True


def _return_to_best(setup: RunSetup, state: State, progress: Progress, best: Best, watcher: Watcher) -> dict[str, Any]:
    """Restores the best epoch's weights, unless their checkpoint is damaged, and returns the figures of the weights."""
    try:
        checkpoints.restore(checkpoints.folder_of(setup.model_dir, best.number), state)
    except DataError as error:
        watcher.note(f"the best epoch's checkpoint is damaged ({error}); keeping the last epoch's weights instead")
        return progress.history[-1]
    objective = setup.config.objective_info
    shown = objective.text(best.score)
    watcher.note(f"keeping epoch {best.epoch}, with the best validation {objective.words}, {shown}")
    return progress.history[best.epoch - 1]


def _info(order: Order, progress: Progress, runner: StepRunner, objective: Objective) -> StepInfo:
    # Called before `progress` moves to the next epoch, so the end of an epoch is reported with that epoch.
    return StepInfo(
        step=order.step_number(progress.position),
        num_steps=order.steps_per_epoch * order.num_epochs,
        epoch=progress.position.epoch + 1,
        num_epochs=order.num_epochs,
        loss=progress.metrics.loss,
        score=progress.metrics.score,
        images_per_s=runner.images_per_s,
        input_share=runner.input_share,
        words=objective.step_words,
    )


def _epoch_text(line: dict[str, Any], num_epochs: int, objective: Objective) -> str:
    text = f"epoch {line['epoch']}/{num_epochs}" if num_epochs else "softmax only"
    for name in ("", *MEASURED):
        prefix = f"{name}_" if name else ""
        if f"{prefix}loss" not in line:
            continue
        text += f"  {name}{name and ' '}loss {line[f'{prefix}loss']:.4f}"
        words, score = (objective.words, objective.score) if name else (objective.step_words, objective.step_score)
        text += f"  {words} {objective.text(line[f'{prefix}{score}'])}"
        for key in objective.others:
            text += f"  {key.replace('_', ' ')} {line[f'{prefix}{key}']:.3f}"
    return text
