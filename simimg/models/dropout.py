"""Dropout whose masks belong to the examples of a global batch, not to the replica that happens to hold them.

Contract: inside `dropout_scope(seed=(seed, step), first_row=r)` the mask of row i of the replica's batch is a
pure function of (seed, step, the layer's stream, r + i). So one replica with the whole batch and eight
replicas with an eighth each drop the same units, and no replica draws a number that it does not use.

How: Philox-4x32-10 (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011) is a counter-based
generator: four numbers are a function of a 64-bit key and a 128-bit counter, and TensorFlow's kernel gives
its i-th group of four the counter + i. Every row takes a whole number of groups, hence the slice of the
global draw that starts at row r is the draw that starts at counter r * groups a row.

    key             seed
    counter, high   step * 65536 + stream
    counter, low    row * groups a row

The draw is of integers, compared with rate * 2**32: those come out the same under XLA, whereas XLA makes its
floats from other bits of the same integers, and a compiled run would drop other units.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from simimg.errors import UsageError

NUM_STREAMS = 65536
"""Streams a step has room for: a layer's `stream` is below this, so no two (step, stream) share a counter."""

_PHILOX = 1  # tf.random.Algorithm.PHILOX.value
_GROUP = 4  # uint32 numbers that Philox gives for one counter value


@contextmanager
def dropout_scope(*, seed: Any, first_row: Any) -> Iterator[None]:
    """Make every `ExampleDropout` called in the block draw from the seed and the example's place.

    The scope is read while a layer is called, under `tf.function` while it is traced, and belongs to the
    thread that opened it. `MirroredStrategy.run` traces each replica in a thread of its own: open it inside
    the replica's function.

    Args:
        seed: int64 tensor or sequence of shape [2]: (seed of the run, step). 0 <= step < 2**47.
        first_row: scalar int tensor: the index in the global batch of this replica's first example.
    """
    token = _SCOPE.set(_Scope(_int64(seed), _int64(first_row)))
    try:
        yield
    finally:
        _SCOPE.reset(token)


@keras.saving.register_keras_serializable(package="simimg")
class ExampleDropout(keras.layers.Dropout):
    """Dropout that obeys `dropout_scope`; outside a scope it is `keras.layers.Dropout`.

    Kept units are multiplied by 1 / (1 - rate), so the expected value stays (Srivastava et al., JMLR 15,
    2014, in the "inverted" form of `tf.nn.dropout`). Input and output: [batch, ...] in the compute dtype;
    every dimension but the first must be known.

    Args:
        rate: fraction of the units to drop, 0 <= rate < 1.
        stream: the layer's own number, 0 <= stream < 65536, unique within a model: two layers with one stream
            would drop the same units.
        seed: seed of Keras's generator, which is used outside a scope; the stream when not given, so that two
            builds of a model hold the same state.
        **kwargs: what every Keras layer takes. `noise_shape` is not offered: a mask is drawn for every unit.

    Raises:
        UsageError: a rate or a stream out of range.
    """

    def __init__(self, rate: float, *, stream: int, seed: int | None = None, **kwargs: Any) -> None:
        """Check the arguments, which the class describes."""
        if not 0 <= rate < 1:
            raise UsageError(f"the dropout rate should be at least 0 and below 1. Received: rate={rate}")
        if not 0 <= stream < NUM_STREAMS:
            raise UsageError(f"a dropout stream should be within 0..{NUM_STREAMS - 1}. Received: stream={stream}")
        super().__init__(rate, seed=stream if seed is None else seed, **kwargs)
        self.stream = stream

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Drop units when `training`; return the input otherwise."""
        scope = _SCOPE.get()
        if scope is None or not training or self.rate == 0:
            return super().call(inputs, training=training)
        threshold = min(round(self.rate * 2**32), 2**32 - 1)
        keep = _draw(scope, self.stream, inputs) >= tf.constant(threshold, tf.uint32)
        kept = inputs * tf.cast(1.0 / (1.0 - self.rate), inputs.dtype)
        return tf.where(keep, kept, tf.zeros_like(kept))

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, for `.keras` files."""
        config = super().get_config()
        del config["noise_shape"]
        return {**config, "stream": self.stream}


class _Scope(NamedTuple):
    seed: Any
    first_row: Any


_SCOPE: ContextVar[_Scope | None] = ContextVar("simimg_dropout_scope", default=None)


def _int64(value: Any) -> Any:
    return tf.cast(tf.convert_to_tensor(value, dtype_hint=tf.int64), tf.int64)


def _draw(scope: _Scope, stream: int, inputs: Any) -> Any:
    """Uniform uint32 of the shape of `inputs`: this replica's rows of the global draw."""
    row_shape = inputs.shape[1:]
    if not row_shape.is_fully_defined():
        raise UsageError(f"dropout needs every dimension but the first. Received: an input of {inputs.shape}")
    num_elements = math.prod(row_shape)
    num_groups = -(-num_elements // _GROUP)
    num_rows = tf.shape(inputs)[0]
    counter = tf.stack([scope.first_row * num_groups, scope.seed[1] * NUM_STREAMS + stream])
    draw = tf.raw_ops.StatelessRandomUniformFullIntV2(
        dtype=tf.uint32,
        shape=tf.stack([num_rows, num_groups * _GROUP]),
        key=tf.bitcast(scope.seed[:1], tf.uint64),
        counter=tf.bitcast(counter, tf.uint64),
        alg=_PHILOX,
    )
    return tf.reshape(draw[:, :num_elements], tf.shape(inputs))
