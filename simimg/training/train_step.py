"""The compiled training step, and its calls: read, augment, forward and backward pass, and update, on every replica.

One call runs several steps, because for a small network on a fast device, the way from Python to the device takes
longer than the step itself. The number of steps per call does not change the result.
"""

from __future__ import annotations

import dataclasses
import gc
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import tensorflow as tf

from simimg.augment import augment, augment_and_mix, partners
from simimg.errors import TrainingError
from simimg.input import PADDING_ID, Batch, Order, Position, Reader, input_errors, train_batches, without_passes
from simimg.models.batch_norm import sum_over_replicas
from simimg.models.dropout import dropout_scope
from simimg.training.checkpoints import Progress, State
from simimg.training.contrastive_loss import pair_gradients
from simimg.training.distillation import distillation_losses, teacher_of
from simimg.training.metrics import (
    are_correct,
    deviations_of,
    example_losses,
    multi_label_losses,
    regression_losses,
)
from simimg.training.strategy import agreed
from simimg.training.train_config import TrainConfig
from simimg.training.weight_average import WeightAverage, joined, split

# Target duration of a call: long enough that the return to Python costs nothing, short enough for Ctrl-C and progress.
_CALL_S = 0.25
_MOST_STEPS = 1000
# On a GPU, one call in this many measures how long it waits for batches, because a host that measures also waits.
_CALLS_PER_TIMED = 50
_IDS_SHOWN = 8


def training_step(
    config: TrainConfig,
    strategy: tf.distribute.Strategy,
    state: State,
    order: Order,
    reader: Reader,
    *,
    class_weights: tf.Tensor | None = None,
) -> TrainingStep:
    """Returns a function of (distributed element, epoch, step) that trains on a global batch.

    `epoch` and `step` are int64 scalars. It returns sums over all replicas, float32 `[3]`: the losses, the correct
    examples, and the number of examples. If the objective has further figures, their sums follow.

    The options are the resolved ones. The state was created in the strategy's scope, and has the values that the
    training starts from. `class_weights` are float32 `[num_classes]`, the weight of an example of each class.
    """
    model, optimizer = state.model, state.optimizer
    variables = model.trainable_variables
    num_replicas = strategy.num_replicas_in_sync
    average = WeightAverage(config, strategy, state) if state.average else None
    if config.objective == "similarity":
        gradients_of = pair_gradients(config, order, model, optimizer, state.past)
    else:
        gradients_of = _label_gradients(config, state, order, class_weights, teacher_of(config, strategy))

    def replica_step(element: Any, epoch: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        batch = reader.batch(element)
        for value in batch:  # with several workers, TensorFlow does not know it
            value.set_shape([order.per_replica_batch_size, *value.shape[1:]])
        # On a GPU, TensorFlow slices and compares int32 in the host's memory, and the host would wait for the device.
        is_class = batch.label.dtype.is_integer and config.objective in ("classes", "similarity")
        batch = batch._replace(label=tf.cast(batch.label, tf.int64 if is_class else tf.float32))
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        first_row = replica * order.per_replica_batch_size
        done: list[tf.Tensor] = []  # the gradients so far, and the sums
        for number in range(config.accumulate):
            part = batch
            if config.accumulate > 1:
                # Every k-th row: the same rows over all replicas, however many there are.
                part = Batch(*(value[number :: config.accumulate] for value in batch))
                with tf.control_dependencies(done):  # or all parts would be in memory together
                    part = part._replace(image=tf.identity(part.image))
            gradients, sums = gradients_of(part, epoch, step, first_row + number)
            done = [a + b for a, b in zip(done, [*gradients, sums], strict=True)] if done else [*gradients, sums]
        *gradients, sums = _summed(done, num_replicas)
        if config.clip_norm:
            gradients = _clipped(gradients, config.clip_norm * optimizer.scale_loss(tf.constant(1.0)))
        optimizer.apply(gradients, variables)
        if average is not None:
            average.follow(optimizer.iterations)
        return sums

    def step(element: Any, epoch: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        sums = strategy.run(replica_step, args=(element, epoch, step))
        return strategy.experimental_local_results(sums)[0]  # all replicas have the same

    return TrainingStep(step, average.publish if average is not None else lambda: None)


@dataclasses.dataclass(frozen=True)
class TrainingStep:
    """A step, called with (distributed element, epoch, step), and what to call after the last of several steps.

    `run` is for use in a `tf.function`. `finish` writes the average of the weights into its model, which keeps the
    previous average until then.
    """

    run: Callable[[Any, tf.Tensor, tf.Tensor], tf.Tensor]
    finish: Callable[[], None]

    def __call__(self, element: Any, epoch: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        """Runs the step."""
        return self.run(element, epoch, step)


def distribute(strategy: tf.distribute.Strategy, reader: Reader, order: Order) -> tf.distribute.DistributedDataset:
    """Returns the training batches on the devices of their replicas, where two are kept ready, pixels as uint8."""
    options = tf.distribute.InputOptions(experimental_fetch_to_device=True, experimental_per_replica_buffer_size=2)
    return strategy.distribute_datasets_from_function(lambda context: train_batches(reader, order), options)


def _several_steps(
    step: TrainingStep, *, timed: bool, num_sums: int
) -> Callable[[Any, tf.Tensor, tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor, tf.Tensor]]:
    """Returns a function of (iterator, epoch, first step, number of steps) that runs this number of training steps.

    Epoch and first step are int64 scalars. The number of steps is an int32 scalar, which TensorFlow keeps in the host's
    memory; a counter on a GPU would make the host wait for it before each step. The function returns the result of
    `step` for each step, float32 `[steps, num_sums]`, and two float64 scalars: the seconds it waited for the iterator,
    and its seconds in all. The wait is from the end of a step to the arrival of the next batch.

    With `timed`, the host waits for the devices twice per step. Without it, both times are 0, and a host can start
    steps on a GPU while the GPU is still busy with those before.
    """

    def now() -> tf.Tensor:
        return tf.timestamp() if timed else tf.zeros([], tf.float64)

    # Without AutoGraph, which would take a second to convert what needs no conversion.
    @tf.function(autograph=False, reduce_retracing=True)
    def run(
        iterator: Any, epoch: tf.Tensor, first: tf.Tensor, count: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        def one(
            number: tf.Tensor, current: tf.Tensor, sums: tf.TensorArray, last: tf.Tensor, waited: tf.Tensor
        ) -> tuple[Any, ...]:
            if timed:
                with tf.control_dependencies([last]):
                    start = now()
                with tf.control_dependencies([start]):
                    element = next(iterator)
                with tf.control_dependencies(tf.nest.flatten(element, expand_composites=True)):
                    waited += now() - start
            else:
                element = next(iterator)
            last = step(element, epoch, current)
            return number + 1, current + 1, sums.write(number, last), last, waited

        began = now()
        results = tf.TensorArray(tf.float32, count, element_shape=[num_sums])
        # The step is counted on the device, too, because a number from the host would arrive there after a wait.
        start = (tf.constant(0), first, results, tf.zeros([num_sums]), tf.zeros([], tf.float64))
        _, _, sums, last, waited = tf.while_loop(lambda number, *_: number < count, one, start)
        with tf.control_dependencies([last]):
            return sums.stack(), waited, now() - began

    return run


class StepRunner:
    """Runs several training steps per call."""

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        step: TrainingStep,
        order: Order,
        reader: Reader,
        others: Sequence[str] = (),
        *,
        timed: bool = True,
        sizes: Sequence[int] = (),
    ) -> None:
        """`step` is the result of `training_step`; `others` names the sums that it returns after the first three.

        `sizes` has the side of the images in each epoch, px, if it is not that of the reader. The steps are compiled
        once for each size.

        Without `timed`, waiting for batches is not measured, because deterministic operations must not read the clock.
        """
        self.images_per_s = 0.0  # over the last calls
        self.input_share: float | None = None  # share of that time spent waiting for a batch; None: not measured yet
        self._strategy, self._order, self._reader, self._others = strategy, order, reader, others
        self._step = step
        self._runs: dict[tuple[bool, int], Any] = {}  # compiled, by whether they are timed, and the images' size
        self._calls_per_timed = (_CALLS_PER_TIMED if tf.config.get_visible_devices("GPU") else 1) if timed else 0
        self._sizes = sizes
        self._size = self._size_in(order.start.epoch)
        self._batches = self._batches_from(order.start)
        self._count, self._num_calls = 1, 0

    def call(self, progress: Progress) -> None:
        """Trains for some steps, at most to the end of the epoch, and updates `progress`.

        Raises:
            TrainingError: a loss is NaN or infinite.
            DataError: a record cannot be read.
        """
        order, position = self._order, progress.position
        count = min(self._count, order.steps_per_epoch - position.step)
        first = order.step_number(position)
        self._num_calls += 1
        timed = bool(self._calls_per_timed) and self._num_calls % self._calls_per_timed == 0
        start = time.perf_counter()
        if self._size != self._size_in(position.epoch):
            self._size = self._size_in(position.epoch)
            self._batches = self._batches_from(position)
        key = timed, self._size
        is_warm = key in self._runs
        if not is_warm:
            self._runs[key] = _several_steps(self._step, timed=timed, num_sums=3 + len(self._others))
        with input_errors(self._reader.split), nullcontext() if is_warm else _no_collections():
            epoch, start_step = (tf.constant(number, tf.int64) for number in (position.epoch, first))
            results, waited, spent = self._runs[key](self._batches, epoch, start_step, tf.constant(count))
            self._step.finish()
            sums = results.numpy()
        seconds = time.perf_counter() - start
        self._check(sums[:, 0], position)
        progress.metrics.loss_sum += sum(map(float, sums[:, 0]))
        progress.metrics.num_correct += sum(map(float, sums[:, 1]))
        progress.metrics.num_examples += sum(map(int, sums[:, 2]))
        for number, name in enumerate(self._others, 3):
            progress.metrics.others[name] = progress.metrics.others.get(name, 0.0) + sum(map(float, sums[:, number]))
        progress.position = Position(position.epoch, position.step + count)
        progress.seconds += seconds
        progress.input_seconds += float(waited) if timed else (self.input_share or 0.0) * seconds
        if timed and self._num_calls > 1:  # the first call also waits for the input to start
            self.input_share = _smoothed(self.input_share, float(waited) / max(float(spent), 1e-9))
        if is_warm:
            self.images_per_s = _smoothed(self.images_per_s, count * order.global_batch_size / seconds)
            self._count = min(max(1, round(_CALL_S * self.images_per_s / order.global_batch_size)), _MOST_STEPS)

    def time_each_call(self) -> None:
        """Measures in each of the next calls how long it waits for batches; on a GPU, they take longer for it."""
        self._calls_per_timed = 1

    def agree_to_stop(self, stop: threading.Event) -> bool:
        """Returns whether any worker wants to stop. All workers stop after the same step, and use equal step counts."""
        decided = agreed(self._strategy, {"count": float(self._count), "stop": float(stop.is_set())})
        self._count = max(1, round(decided["count"]))
        return decided["stop"] > 0

    def _size_in(self, epoch: int) -> int:
        """Returns the side of the images in an epoch, px; 0 is that of the reader."""
        return self._sizes[min(epoch, len(self._sizes) - 1)] if self._sizes else 0  # a resumed run may be at its end

    def _batches_from(self, position: Position) -> Iterator[Any]:
        """Returns the batches from a position on, as far as their images have the current size."""
        if not self._sizes:
            return iter(distribute(self._strategy, self._reader, dataclasses.replace(self._order, start=position)))
        end = len(self._sizes) - self._sizes[::-1].index(self._size)  # sizes never shrink
        order = dataclasses.replace(self._order, start=position, num_epochs=end)
        return iter(distribute(self._strategy, self._reader.resized(self._size), order))

    def _check(self, losses: np.ndarray, position: Position) -> None:
        wrong = np.flatnonzero(~np.isfinite(losses))
        if not len(wrong):
            return
        at = Position(position.epoch, position.step + int(wrong[0]))
        ids = self._ids(at)
        more = f" and {len(ids) - _IDS_SHOWN} more" if len(ids) > _IDS_SHOWN else ""
        raise TrainingError(  # the same run would fail here again
            f"the loss is NaN or infinite ({losses[wrong[0]]}) in epoch {at.epoch + 1}, step {at.step + 1}, whose "
            f"examples have the ids {', '.join(map(str, ids[:_IDS_SHOWN]))}{more}. The last checkpoint is from before "
            "that step. Try a smaller --learning_rate, or --clip_norm=1, in another --model_dir."
        )

    def _ids(self, at: Position) -> list[int]:
        """Returns the ids of a step's examples on this process's replicas."""
        order = dataclasses.replace(self._order, start=at)
        elements = train_batches(self._reader, order).take(order.local_replicas)
        ids = [without_passes(self._reader.batch(element).id).numpy() for element in elements]
        return [int(id) for batch in ids for id in batch]


@contextmanager
def _no_collections() -> Iterator[None]:
    """Pauses Python's garbage collector while a step is traced.

    It would look through all objects of the imported packages again and again, because the graph is made of hundreds of
    thousands of new objects, of which nearly all stay.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _smoothed(before: float | None, new: float) -> float:
    """Returns a moving average that starts with the first value."""
    return 0.8 * before + 0.2 * new if before else new


def _label_gradients(
    config: TrainConfig,
    state: State,
    order: Order,
    class_weights: tf.Tensor | None,
    teacher: Callable[[tf.Tensor], tf.Tensor] | None = None,
) -> Callable[[Batch, tf.Tensor, tf.Tensor, tf.Tensor], tuple[Any, tf.Tensor]]:
    """Returns a replica's function from (batch, epoch, step, first row) to gradients and sums."""
    model, optimizer, variables = state.model, state.optimizer, state.model.trainable_variables
    losses_of, scores_of = _losses_and_scores(config, model)

    def of_pixels(
        images: tf.Tensor, batch: Batch, shares: tf.Tensor | None, step: tf.Tensor, first_row: tf.Tensor
    ) -> tuple[Any, tf.Tensor]:
        there = tf.cast(batch.id != PADDING_ID, tf.float32)  # 0 for skipped records
        # An image's loss and score are means over its own label and its partner's. For cross-entropies, and for the
        # gradient of squared errors, this is the same as the loss of the mean of the labels.
        parts = [(batch.label, there)]
        if shares is not None:
            parts = [(batch.label, there * shares), (partners(batch.label), there * (1 - shares))]
        taught = teacher(images) if teacher is not None else None
        seed = tf.stack([tf.constant(config.seed, tf.int64), step])
        scope = dropout_scope(seed=seed, first_row=first_row, row_step=config.accumulate)
        with tf.GradientTape() as tape, scope:
            outputs = model(images, training=True)
            losses = [weights(part) * losses_of(part[0], outputs) for part in parts]
            each = losses[0] if len(losses) == 1 else losses[0] + losses[1]
            if taught is not None:
                share = tf.add_n([weights(part) for part in parts])
                distilled = share * distillation_losses(taught, outputs, config.teacher_temperature)
                each = (1 - config.teacher_weight) * each + config.teacher_weight * distilled
            total = tf.reduce_sum(each)
            # Divided by the global batch size, so that the replicas' gradients add up to those of the mean loss.
            loss = optimizer.scale_loss(total / order.global_batch_size)
        scores = [tf.reduce_sum(share * scores_of(label, outputs)) for label, share in parts]
        sums = tf.stack([total, sum(scores[1:], scores[0]), tf.reduce_sum(there)])
        return tape.gradient(loss, variables), sums

    def weights(part: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        label, share = part
        return share if class_weights is None else share * tf.gather(class_weights, label)

    if config.xla:
        of_pixels = tf.function(of_pixels, autograph=False, jit_compile=True)

    def gradients_of(batch: Batch, epoch: tf.Tensor, step: tf.Tensor, first_row: tf.Tensor) -> tuple[Any, tf.Tensor]:
        arguments = (config.augmentation, config.seed, epoch, batch.id, batch.image)
        images, shares = augment_and_mix(*arguments) if config.augmentation.mixes else (augment(*arguments), None)
        return of_pixels(images, batch, shares, step, first_row)

    return gradients_of


def _losses_and_scores(
    config: TrainConfig, model: Any
) -> tuple[Callable[[tf.Tensor, tf.Tensor], tf.Tensor], Callable[[tf.Tensor, tf.Tensor], tf.Tensor]]:
    """Returns the functions from (labels, outputs) to each example's loss, and to its score: float32 `[batch]`."""
    if config.objective == "multilabel":

        def hits(labels: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
            return tf.reduce_mean(tf.cast((outputs > 0.5) == (labels > 0.5), tf.float32), axis=1)

        return lambda labels, outputs: multi_label_losses(labels, outputs, config.label_smoothing), hits
    if config.objective == "regression":
        deviations = deviations_of(model)

        def error(targets: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
            return tf.reduce_mean(tf.abs(outputs - targets), axis=1)

        return lambda targets, outputs: regression_losses(targets, outputs, deviations), error
    return lambda labels, outputs: example_losses(config.loss, labels, outputs, config.label_smoothing), are_correct


def _summed(tensors: list[tf.Tensor], num_replicas: int) -> list[tf.Tensor]:
    """Returns float32 tensors summed over the replicas, as one tensor: the only sum of a step that is not in a layer.

    A replica's own gradients do not suffice to clip them or to find infinite ones: their norm is not the norm of the
    sum, and Keras's LossScaleOptimizer would miss infinite gradients of other replicas.
    """
    if num_replicas == 1:
        return tensors
    return split(sum_over_replicas(joined(tensors)), tensors)


def _clipped(gradients: list[tf.Tensor], most: tf.Tensor) -> list[tf.Tensor]:
    clipped, _ = tf.clip_by_global_norm(gradients, most)
    return list(clipped)
