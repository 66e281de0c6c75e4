"""Calls of the compiled steps: how many steps at a time, how long they take, and what went wrong in them."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from simimg.errors import TrainingError
from simimg.input import Order, Position, Reader, input_errors, train_batches
from simimg.training.checkpoints import Progress
from simimg.training.strategy import agreed

__all__ = ["StepRunner"]

# Long enough that coming back to Python between two calls costs nothing, short enough for Ctrl-C and a progress bar.
_CALL_S = 0.25
_MOST_STEPS = 1000
_IDS_SHOWN = 8


class StepRunner:
    """Trains some steps a call.

    Attributes:
        images_per_s: over the last calls.
        input_share: the share of that time that was spent waiting for a batch.
    """

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        run: Callable[[Any, tf.Tensor, tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]],
        batches: Any,
        order: Order,
        reader: Reader,
        others: Sequence[str] = (),
    ) -> None:
        """Keeps what it needs: `run` is of `simimg.training.train_step.several_steps`, `batches` the distributed
        iterator.

        `others` names what a step returns the sums of, beside loss, right ones and examples.
        """
        self.images_per_s = 0.0
        self.input_share = 0.0
        self._strategy, self._run, self._batches, self._order, self._reader = strategy, run, batches, order, reader
        self._others = others
        self._count, self._is_warm = 1, False

    def call(self, progress: Progress) -> None:
        """Trains up to the end of the epoch at most, and moves `progress`.

        Raises:
            TrainingError: a loss is no number.
            DataError: a record cannot be read.
        """
        order, position = self._order, progress.position
        count = min(self._count, order.steps_per_epoch - position.step)
        first = order.step_number(position)
        start = time.perf_counter()
        with input_errors(self._reader.split):
            numbers = (tf.constant(number, tf.int64) for number in (position.epoch, first, count))
            results, waited = self._run(self._batches, *numbers)
            sums, input_seconds = results.numpy(), float(waited)
        seconds = time.perf_counter() - start
        self._check(sums[:, 0], position)
        progress.metrics.loss_sum += sum(map(float, sums[:, 0]))
        progress.metrics.num_correct += sum(map(float, sums[:, 1]))
        progress.metrics.num_examples += sum(map(int, sums[:, 2]))
        for number, name in enumerate(self._others, 3):
            progress.metrics.others[name] = progress.metrics.others.get(name, 0.0) + sum(map(float, sums[:, number]))
        progress.position = Position(position.epoch, position.step + count)
        progress.seconds += seconds
        progress.input_seconds += input_seconds
        self._measure(count, seconds, input_seconds)

    def agree_to_stop(self, stop: threading.Event) -> bool:
        """Returns whether any worker wants to stop: all do after the same step, and go on by equally many."""
        decided = agreed(self._strategy, {"count": float(self._count), "stop": float(stop.is_set())})
        self._count = max(1, round(decided["count"]))
        return decided["stop"] > 0

    def _measure(self, count: int, seconds: float, input_seconds: float) -> None:
        if not self._is_warm:  # the first call has compiled the step
            self._is_warm = True
            return
        rate, share = count * self._order.global_batch_size / seconds, input_seconds / seconds
        old = 0.8 if self.images_per_s else 0.0
        self.images_per_s = old * self.images_per_s + (1 - old) * rate
        self.input_share = old * self.input_share + (1 - old) * share
        self._count = min(max(1, round(_CALL_S * self.images_per_s / self._order.global_batch_size)), _MOST_STEPS)

    def _check(self, losses: np.ndarray, position: Position) -> None:
        wrong = np.flatnonzero(~np.isfinite(losses))
        if not len(wrong):
            return
        at = Position(position.epoch, position.step + int(wrong[0]))
        ids = self._ids(at)
        more = f" and {len(ids) - _IDS_SHOWN} more" if len(ids) > _IDS_SHOWN else ""
        raise TrainingError(  # a run is a function of its options, so going on would end here again
            f"the loss is no number ({losses[wrong[0]]}) in epoch {at.epoch + 1}, step {at.step + 1}, whose examples "
            f"have the ids {', '.join(map(str, ids[:_IDS_SHOWN]))}{more}. The last checkpoint is from before it. "
            "Try a smaller --learning_rate, or --clip_norm=1, in another --model_dir."
        )

    def _ids(self, at: Position) -> list[int]:
        """Returns the ids of a step's examples, those of this process's replicas."""
        order = dataclasses.replace(self._order, start=at)
        elements = train_batches(self._reader, order).take(order.local_replicas)
        return [int(id) for element in elements for id in self._reader.batch(element).id.numpy()]
