"""A split of a dataset as a `tf.data.Dataset` that knows its classes and its position."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from simimg.errors import UsageError
from simimg.input.batch_elements import Elements
from simimg.input.feature_values import FeatureValues
from simimg.input.iteration_state import IterationState
from simimg.input.pipeline import class_counts
from simimg.input.sampler import Position
from simimg.input.split import Batch, Reader, Split, input_errors
from simimg.input.step_batches import StepPlan, step_batches


class FeatureBatch(NamedTuple):
    """A batch with the further features of its examples; the other parts are those of `simimg.input.Batch`.

    `features` has, by name, an array int64 or float32 `[batch]` or `[batch, length]`, or a list of str, of bytes, or of
    arrays and lists that differ in length.
    """

    image: Any
    label: Any
    id: Any
    features: dict[str, Any]


class SplitFacts:
    """What is known of a split, and where the iterations over it are: the common part of both datasets.

    Attributes:
        class_names: by label, or the names of the targets if labels are numbers.
        num_classes: length of `class_names`.
        image_size: side of the images in px, or (width, height) if they are not square.
        num_examples: in the split.
        steps_per_epoch: batches per epoch, over all replicas.
    """

    _unfinished: Position | None = None  # where the last iteration began, if the program has not taken all of it
    _noted: Position | None = None  # what `note_position` was given since the iteration began

    def __init__(self, reader: Reader, plan: StepPlan, state: IterationState) -> None:
        self.class_names = reader.split.class_names
        self.num_classes = len(self.class_names)
        self.image_size = reader.split.image_size
        self.num_examples = reader.split.num_examples
        self.steps_per_epoch = plan.steps_per_epoch
        self._reader, self._plan, self._state = reader, plan, state

    @functools.cached_property
    def class_counts(self) -> np.ndarray:
        """Examples of each class, int64 `[num_classes]`.

        Raises:
            UsageError: labels are numbers, or there are none.
        """
        return class_counts(self._reader)

    @property
    def class_weights(self) -> dict[int, float]:
        """The weight of an example of each class that gives all classes equal weight, for `fit(class_weight=…)`.

        Classes without examples have the weight 0. The mean over all examples is 1, so learning rates stay valid.

        Raises:
            UsageError: images do not have exactly one class each.
        """
        if (kind := self._reader.split.schema.label_type) != "single":
            raise UsageError(
                f"{self._reader.split.dataset_dir}: label_type={kind}: only images with one class each have class "
                "weights. Leave them out."
            )
        counts = self.class_counts
        there = counts > 0
        weights = np.where(there, counts.sum() / (there.sum() * np.maximum(counts, 1)), 0.0)
        return dict(enumerate(weights.tolist()))

    @property
    def position(self) -> Position:
        """Epoch and step of the batch after the last one that was delivered, both from 0.

        A part of the program that reads ahead, such as `prefetch` after this dataset, or Keras with several devices,
        has batches that it has not used yet. `simimg.callbacks.BackupAndRestore` knows those that were trained on.
        Setting it has the next iteration start there.

        Raises:
            UsageError: set to a step that an epoch does not have.
        """
        return self._noted or self._state.next

    @position.setter
    def position(self, position: Position | tuple[int, int]) -> None:
        self._state.set(checked_position(position, self.steps_per_epoch))
        self._unfinished = self._noted = None

    @property
    def next_start(self) -> Position:
        """Where the next iteration starts."""
        return self._state.begin

    @property
    def times_set(self) -> int:
        """How often `position` was set."""
        return self._state.generation

    def note_position(self, position: Position) -> None:
        """Set what `position` returns until the next iteration, for who knows better which batches were used."""
        self._noted = position


class ImageDataset(SplitFacts, tf.data.Dataset):
    """Batches of a split as a `tf.data.Dataset`, which `keras.Model.fit` takes as it is. Created by `simimg.load`.

    Each iteration is the next epoch, or the next `epochs` epochs. An iteration that is not finished is repeated by the
    next one. One that starts within an epoch delivers the rest of it.

    Attributes:
        class_names: by label, or the names of the targets if labels are numbers.
        num_classes: length of `class_names`.
        class_counts: examples of each class, int64 `[num_classes]`.
        class_weights: for `fit(class_weight=…)`: the weights that make all classes equal.
        image_size: side of the images in px, or (width, height) if they are not square.
        num_examples: in the split.
        steps_per_epoch: batches per epoch.
        position: epoch and step of the next batch; can be set.
    """

    def __init__(
        self,
        reader: Reader,
        plan: StepPlan,
        *,
        start: Position,
        one_hot: bool = False,
        ids: bool = False,
        features: tuple[str, ...] = (),
    ) -> None:
        """Take a reader and the plan of an iteration; see `simimg.load` for the others."""
        super().__init__(reader, plan, IterationState(start, plan.steps_per_epoch))
        self._elements = Elements(reader, one_hot, ids, features)
        self._pipeline = self.batches(plan)
        tf.data.Dataset.__init__(self, tf.data.experimental.to_variant(self._pipeline))

    def batches(self, plan: StepPlan) -> tf.data.Dataset:
        """Returns the batches of the replicas of another plan, which share the position."""
        convert = self._elements
        return step_batches(self._reader, plan, self._state, convert, convert.num_calls)

    @property
    def plan(self) -> StepPlan:
        """The steps of an iteration."""
        return self._plan

    @property
    def element_spec(self) -> Any:
        """Shapes and types of a batch."""
        return self._pipeline.element_spec

    def _inputs(self) -> list[tf.data.Dataset]:
        return [self._pipeline]

    def cardinality(self) -> tf.Tensor:
        """Returns the number of batches of a whole iteration, int64."""
        return tf.constant(self._plan.num_epochs * self.steps_per_epoch, tf.int64)

    def __iter__(self) -> Iterator[Any]:
        """Return an iterator of tf.data's; with `ids`, batches have the further features of the examples, too."""
        self._noted = None
        iterator = checked(tf.data.Dataset.__iter__(self), self._reader.split)
        if self._elements.ids and self._reader.split.schema.features and tf.executing_eagerly():
            return self._with_features(iterator)
        return iterator

    def _with_features(self, batches: Iterator[Batch]) -> Iterator[FeatureBatch]:
        values = FeatureValues(self._reader.split)
        for batch in batches:
            yield FeatureBatch(*batch, features=values.of(batch.id.numpy()))


def checked(iterator: Any, split: Split) -> Any:
    """Returns an iterator of TensorFlow's that raises errors about records as `input_errors` says.

    It stays of TensorFlow's own type, which Keras and `tf.function` need.
    """
    kind: Any = type(iterator)
    iterator.__class__ = _checked_type(kind)
    iterator.split = split
    return iterator


@functools.cache
def _checked_type(kind: Any) -> Any:
    class Checked(kind):
        count: Callable[[], None] | None = None  # called for each batch that the program takes
        # The pipeline of a strategy is ahead of the program by the batches that are on their way to the devices.

        def __next__(self) -> Any:
            with input_errors(self.split):
                batch = super().__next__()
            if self.count is not None:
                self.count()
            return batch

    return Checked


def checked_position(position: Position | tuple[int, int], steps_per_epoch: int) -> Position:
    """Returns `position`, a Position or (epoch, step).

    Raises:
        UsageError: it is before the first batch, or its step is none of an epoch's.
    """
    try:
        epoch, step = (position.epoch, position.step) if isinstance(position, Position) else map(int, position)
    except (TypeError, ValueError):
        raise UsageError(f"position={position!r}: should be (epoch, step), both counted from 0.") from None
    if epoch < 0 or not 0 <= step < steps_per_epoch:
        raise UsageError(
            f"position=({epoch}, {step}): an epoch has {steps_per_epoch} steps with this batch size, so the step "
            f"should be 0..{steps_per_epoch - 1} and the epoch 0 or more."
        )
    return Position(epoch, step)
