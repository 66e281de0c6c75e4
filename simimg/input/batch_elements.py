"""What a batch is to the user of `simimg.load`: images and labels, with the features that a model takes as inputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from simimg.errors import UsageError
from simimg.input.feature_values import FeatureValues
from simimg.input.python_calls import python_call
from simimg.input.split import Batch, Reader
from simimg.input.split_union import without_passes
from tfrecords.format.schema import VARIABLE

_FEATURE_CALLS = 4  # each holds the interpreter's lock most of the time


class Elements:
    """What a batch is to the user: a function of a Batch."""

    def __init__(self, reader: Reader, one_hot: bool, ids: bool, features: tuple[str, ...]) -> None:
        self.ids = ids
        self._one_hot, self._depth = one_hot, len(reader.split.class_names)
        self._kind = reader.split.schema.label_type
        self._specs = _fixed_features(reader, features)
        self._values = FeatureValues(reader.split) if features else None
        self._is_joined = bool(reader.split.parts)
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
            return batch._replace(label=label, id=without_passes(batch.id) if self._is_joined else batch.id)
        inputs = {"image": batch.image, **self._features(batch.id)} if self._specs else batch.image
        return inputs if self._kind == "none" else (inputs, label)

    def _features(self, ids: tf.Tensor) -> dict[str, tf.Tensor]:
        values = self._values
        assert values is not None

        def read(ids: np.ndarray) -> list[np.ndarray]:
            found = values.of(ids)
            return [_array(found[name], kind) for name, kind, _ in self._specs]

        columns = python_call(read, [ids], [kind for _, kind, _ in self._specs])
        return {
            name: tf.ensure_shape(column, [*ids.shape, *shape])
            for (name, _, shape), column in zip(self._specs, columns, strict=True)
        }


def _fixed_features(reader: Reader, names: tuple[str, ...]) -> list[tuple[str, tf.DType, tuple[int, ...]]]:
    """Returns name, type and shape, of one example, of each feature."""
    split = reader.split
    known = {spec.name: spec for spec in split.schema.features}
    found: list[tuple[str, tf.DType, tuple[int, ...]]] = []
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
