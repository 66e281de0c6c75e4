"""A split of a dataset as a `tf.data.Dataset` that knows its classes and its position, and the same for a strategy."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from simimg.errors import UsageError
from simimg.input.feature_values import FeatureValues
from simimg.input.iteration_state import IterationState
from simimg.input.pipeline import class_counts
from simimg.input.sampler import Order, Position
from simimg.input.split import Batch, Reader, Split, input_errors
from simimg.input.step_batches import StepPlan, step_batches
from tfrecords.format.schema import VARIABLE

_FEATURE_CALLS = 4  # each holds the interpreter's lock most of the time


def open_images(
    reader: Reader,
    *,
    batch_size: int,
    num_epochs: int,
    seed: int | None,
    start: Position | tuple[int, int],
    strategy: tf.distribute.Strategy | None,
    **elements: Any,
) -> Any:
    """Returns an ImageDataset, or DistributedImages if there is a strategy.

    `seed` is None for the order of the shards; `elements` are `one_hot`, `ids` and `features`. For all of them see
    `simimg.load`.
    """
    num_examples = reader.split.num_examples
    if (num_replicas := strategy.num_replicas_in_sync if strategy else 1) and batch_size % num_replicas:
        raise UsageError(
            f"batch_size={batch_size} cannot be divided among the {num_replicas} replicas of the strategy. Choose a "
            f"multiple of {num_replicas}."
        )
    if seed is not None and batch_size > num_examples:
        raise UsageError(
            f"batch_size={batch_size} is more than the {num_examples} examples of split {reader.split.split!r}. Choose a "
            "smaller one, or shuffle=False."
        )
    if seed is None:
        batch_size, order = min(batch_size, num_examples), None
    else:
        order = Order(num_examples=num_examples, global_batch_size=batch_size, num_epochs=num_epochs, seed=seed)
    plan = StepPlan(num_examples=num_examples, batch_size=batch_size, num_epochs=num_epochs, order=order)
    dataset = ImageDataset(reader, plan, start=checked_position(start, plan.steps_per_epoch), **elements)
    return dataset if strategy is None else distributed(dataset, strategy)


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
        image_size: side of the images in px.
        num_examples: in the split.
        steps_per_epoch: batches per epoch, over all replicas.
    """

    _unfinished: Position | None = None  # where the last iteration began, if the program has not taken all of it

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
        return self._state.next

    @position.setter
    def position(self, position: Position | tuple[int, int]) -> None:
        self._state.set(checked_position(position, self.steps_per_epoch))
        self._unfinished = None

    @property
    def next_start(self) -> Position:
        """Where the next iteration starts."""
        return self._state.begin

    @property
    def times_set(self) -> int:
        """How often `position` was set."""
        return self._state.generation

    def note_position(self, position: Position) -> None:
        """Set what `position` returns, for a program that knows better which batches were used."""
        self._state.next = position


class ImageDataset(SplitFacts, tf.data.Dataset):  # type: ignore[misc]
    """Batches of a split as a `tf.data.Dataset`, which `keras.Model.fit` takes as it is. Created by `simimg.load`.

    Each iteration is the next epoch, or the next `epochs` epochs. An iteration that is not finished is repeated by the
    next one. One that starts within an epoch delivers the rest of it.

    Attributes:
        class_names: by label, or the names of the targets if labels are numbers.
        num_classes: length of `class_names`.
        class_counts: examples of each class, int64 `[num_classes]`.
        class_weights: for `fit(class_weight=…)`: the weights that make all classes equal.
        image_size: side of the images in px.
        num_examples: in the split.
        steps_per_epoch: batches per epoch.
        position: epoch and step of the next batch; can be set.
    """

    def __init__(
        self,
        reader: Reader,
        plan: StepPlan,
        *,
        start: Position = Position(),
        one_hot: bool = False,
        ids: bool = False,
        features: tuple[str, ...] = (),
    ) -> None:
        """Take a reader and the plan of an iteration; see `simimg.load` for the others."""
        super().__init__(reader, plan, IterationState(start, plan.steps_per_epoch))
        self._elements = _Elements(reader, one_hot, ids, features)
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
        iterator = _checked(tf.data.Dataset.__iter__(self), self._reader.split)
        if self._elements.ids and self._reader.split.schema.features and tf.executing_eagerly():
            return self._with_features(iterator)
        return iterator

    def _with_features(self, batches: Iterator[Batch]) -> Iterator[FeatureBatch]:
        values = FeatureValues(self._reader.split)
        for batch in batches:
            yield FeatureBatch(*batch, features=values.of(batch.id.numpy()))


class DistributedImages(SplitFacts):
    """Batches of a split for the replicas of a strategy. Created by `simimg.load` with `strategy`.

    It is a dataset of `tf.distribute`, each replica of which reads its own part of every batch. `keras.Model.fit` takes
    it as it is; an own loop iterates over it and gives each element to `strategy.run`. The attributes are those of
    `ImageDataset`.
    """

    @property
    def cardinality(self) -> np.int64:
        """The number of batches of a whole iteration, each over all replicas."""
        return np.int64(len(self))

    def __len__(self) -> int:
        """Return the number of batches of a whole iteration, each over all replicas."""
        return self._plan.num_epochs * self.steps_per_epoch

    def __iter__(self) -> Iterator[Any]:
        """Return an iterator of TensorFlow's; each element has the batches of all replicas."""
        if not tf.executing_eagerly():
            return super().__iter__()  # type: ignore[misc]
        begin, steps = self._state.begin, self.steps_per_epoch
        if self._unfinished is not None and self._unfinished != begin:
            # Keras takes one batch to build the model, and a short epoch is then read to its end on the way to devices.
            begin = self._unfinished
            self._state.set(begin)
        self._unfinished = None
        iterator = _checked(super().__iter__(), self._reader.split)  # type: ignore[misc]
        first = number = begin.epoch * steps + begin.step

        def count() -> None:
            nonlocal number
            number += 1
            self._state.next = Position(*divmod(number, steps))
            self._unfinished = begin if number < first + len(self) - begin.step else None

        iterator.count = count
        return iterator


def distributed(dataset: ImageDataset, strategy: tf.distribute.Strategy) -> Any:
    """Returns DistributedImages of `dataset`, or `dataset` itself if the strategy is TensorFlow's default."""
    if dataset.plan.order is None:
        made = strategy.experimental_distribute_dataset(dataset)
    else:
        options = tf.distribute.InputOptions(experimental_fetch_to_device=True)
        made = strategy.distribute_datasets_from_function(functools.partial(_of_worker, dataset), options)
    if isinstance(made, tf.data.Dataset):
        return dataset
    # Keras asks for TensorFlow's own type, which strategies alone can construct.
    kind = _distributed_type(type(made))
    images = kind.__new__(kind)
    vars(images).update(vars(made))
    SplitFacts.__init__(images, dataset._reader, dataset.plan, dataset._state)
    return images


@functools.cache
def _distributed_type(kind: type) -> type:
    return type(DistributedImages.__name__, (DistributedImages, kind), {"__doc__": DistributedImages.__doc__})


class _Elements:
    """What a batch is to the user: a function of a Batch."""

    def __init__(self, reader: Reader, one_hot: bool, ids: bool, features: tuple[str, ...]) -> None:
        self.ids = ids
        self._one_hot, self._depth = one_hot, len(reader.split.class_names)
        self._kind = reader.split.schema.label_type
        self._specs = _fixed_features(reader, features)
        self._values = FeatureValues(reader.split) if features else None
        self.num_calls = _FEATURE_CALLS if features else 1
        if one_hot and self._kind not in ("single", "multi"):
            raise UsageError(f"one_hot=True: {reader.split.dataset_dir} has label_type={self._kind}. Leave it out.")
        if ids and features:
            raise UsageError("ids=True: every batch has all features then, in `batch.features`. Leave out features=.")

    def __call__(self, batch: Batch) -> Any:
        """Returns (image, label), or the image alone if there are no labels."""
        label = batch.label
        if self._one_hot:
            label = tf.one_hot(label, self._depth) if self._kind == "single" else tf.cast(label, tf.float32)
        if self.ids:
            return batch._replace(label=label)
        inputs = {"image": batch.image, **self._features(batch.id)} if self._specs else batch.image
        return inputs if self._kind == "none" else (inputs, label)

    def _features(self, ids: tf.Tensor) -> dict[str, tf.Tensor]:
        def read(ids: np.ndarray) -> list[np.ndarray]:
            found = self._values.of(ids)
            return [_array(found[name], kind) for name, kind, _ in self._specs]

        columns = tf.numpy_function(read, [ids], [kind for _, kind, _ in self._specs], stateful=False)
        return {
            name: tf.ensure_shape(column, [*ids.shape, *shape])
            for (name, _, shape), column in zip(self._specs, columns, strict=True)
        }


def _fixed_features(reader: Reader, names: tuple[str, ...]) -> list[tuple[str, tf.DType, tuple[int, ...]]]:
    """Returns name, type and shape, of one example, of each feature."""
    split = reader.split
    known = {spec.name: spec for spec in split.schema.features}
    found = []
    for name in names:
        if name not in known:
            has = ", ".join(known) or "none"
            raise UsageError(f"features={name!r}: {split.dataset_dir} has no such feature. It has: {has}.")
        spec = known[name]
        if spec.length == VARIABLE:
            raise UsageError(
                f"features={name!r}: its lists differ in length, which a tensor cannot hold. Leave it out, or use "
                "ids=True and read `batch.features`."
            )
        kind = {"int64": tf.int64, "float32": tf.float32}.get(spec.dtype, tf.string)
        found.append((name, kind, (spec.length,) if spec.length else ()))
    return found


def _array(values: Any, kind: tf.DType) -> np.ndarray:
    if kind != tf.string:
        return np.asarray(values, kind.as_numpy_dtype)
    return np.vectorize(lambda text: text.encode() if isinstance(text, str) else text, otypes=[object])(
        np.array(values, object)
    )


def _of_worker(dataset: ImageDataset, context: tf.distribute.InputContext) -> tf.data.Dataset:
    """Returns the batches of the replicas of one worker."""
    plan = dataset.plan
    assert plan.order is not None
    num_local = context.num_replicas_in_sync // context.num_input_pipelines
    order = Order(
        num_examples=plan.order.num_examples,
        global_batch_size=plan.batch_size,
        num_epochs=plan.num_epochs,
        seed=plan.order.seed,
        num_replicas=context.num_replicas_in_sync,
        first_replica=context.input_pipeline_id * num_local,
        num_local_replicas=num_local,
    )
    mine = StepPlan(
        num_examples=plan.num_examples, batch_size=plan.batch_size, num_epochs=plan.num_epochs, order=order
    )
    return dataset.batches(mine)


def _checked(iterator: Any, split: Split) -> Any:
    """Returns an iterator of TensorFlow's that raises errors about records as `input_errors` says.

    It stays of TensorFlow's own type, which Keras and `tf.function` need.
    """
    iterator.__class__ = _checked_type(type(iterator))
    iterator.split = split
    return iterator


@functools.cache
def _checked_type(kind: type) -> type:
    class Checked(kind):  # type: ignore[misc]
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
            f"position=({epoch}, {step}): an epoch has {steps_per_epoch} steps with this batch size, so the step should "
            f"be 0..{steps_per_epoch - 1} and the epoch 0 or more."
        )
    return Position(epoch, step)
