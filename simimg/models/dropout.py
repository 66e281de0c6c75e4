"""Dropout whose masks depend on the example's place in the global batch, and not on the replica that holds it.

Contract: inside `dropout_scope(seed=(seed, step), first_row=r)`, the mask of row i of the replica's batch is a pure
function of (seed, step, the layer's stream, r + i). So one replica with the whole batch and eight replicas with an
eighth each drop the same units, and no replica draws a number that it does not use. With `row_step=k`, for a part of
the batch that has every k-th row, it is a function of r + i * k.

Philox-4x32-10 (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011) is a counter-based generator:
each group of four numbers is a function of a 64-bit key and a 128-bit counter, and TensorFlow's kernel adds i to the
counter for its i-th group. Every row takes a whole number of groups. So the part of the global draw that starts at row
r equals a draw that starts at the counter r * (groups per row).

    key             seed
    counter, high   step * 65536 + stream
    counter, low    row * groups per row

The draw gives integers, which are compared with rate * 2**32. The integers are the same under XLA. Floats are not: XLA
makes them from other bits of the same integers, so a compiled run would drop other units.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from simimg.errors import UsageError

NUM_STREAMS = 65536
"""Streams per step. A layer's `stream` is below this, so no two (step, stream) share a counter."""

_PHILOX = 1  # tf.random.Algorithm.PHILOX.value
_GROUP = 4  # uint32 numbers per counter value


@contextmanager
def dropout_scope(*, seed: Any, first_row: Any, row_step: int = 1) -> Iterator[None]:
    """Makes every `ExampleDropout` called in the block draw from the seed and the example's place.

    A layer reads the scope when it is called, or under `tf.function` when it is traced. The scope belongs to the thread
    that opened it. `MirroredStrategy.run` traces each replica in its own thread, so open the scope inside the replica's
    function.

    Args:
        seed: int64 tensor or sequence of shape [2]: (seed of the run, step). 0 <= step < 2**47.
        first_row: scalar int tensor: the index of this replica's first example in the global batch.
        row_step: distance of the replica's examples in the global batch, at least 1. The numbers of the rows between
            them are drawn, too, and not used.
    """
    token = _SCOPE.set(_Scope(_int64(seed), _int64(first_row), row_step))
    try:
        yield
    finally:
        _SCOPE.reset(token)


@keras.saving.register_keras_serializable(package="simimg")
class ExampleDropout(keras.layers.Dropout):
    """Dropout that draws its masks as `dropout_scope` says; outside a scope it is `keras.layers.Dropout`.

    Kept units are multiplied by 1 / (1 - rate), which keeps the expected value (Srivastava et al., JMLR 15, 2014, in
    the "inverted" form of `tf.nn.dropout`). Input and output: [batch, ...] in the compute dtype; every dimension but
    the first must be known.

    Args:
        rate: fraction of the units to drop, 0 <= rate < 1.
        stream: the layer's number, 0 <= stream < 65536, unique within a model; two layers with the same stream would
            drop the same units.
        seed: seed of Keras's generator, which is used outside a scope. The default is the stream, so that two builds
            of a model have the same state.
        noise_shape: the shape of the mask, with None for the dimensions of the input; (None, 1, 1, 1) drops all of an
            example or nothing. Its first dimension must be None, because a mask belongs to an example.
        **kwargs: the arguments of every Keras layer.

    Raises:
        UsageError: the rate, the stream or the shape of the mask is out of range.
    """

    def __init__(
        self,
        rate: float,
        *,
        stream: int,
        seed: int | None = None,
        noise_shape: Sequence[int | None] | None = None,
        **kwargs: Any,
    ) -> None:
        if not 0 <= rate < 1:
            raise UsageError(f"the dropout rate should be at least 0 and below 1. Received: rate={rate}")
        if not 0 <= stream < NUM_STREAMS:
            raise UsageError(f"a dropout stream should be within 0..{NUM_STREAMS - 1}. Received: stream={stream}")
        if noise_shape is not None and (not noise_shape or noise_shape[0] is not None):
            raise UsageError(f"a dropout mask should have None as its first dimension. Received: {noise_shape=}")
        super().__init__(rate, seed=stream if seed is None else seed, noise_shape=noise_shape, **kwargs)
        self.stream = stream

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Drops units if `training`; otherwise returns the input."""
        scope = _SCOPE.get()
        if scope is None or not training or self.rate == 0:
            return super().call(inputs, training=training)
        threshold = min(round(self.rate * 2**32), 2**32 - 1)
        row_shape = inputs.shape[1:]
        if self.noise_shape is not None:
            row_shape = tf.TensorShape(
                [side if one is None else one for one, side in zip(self.noise_shape[1:], row_shape, strict=True)]
            )
        keep = _draw(scope, self.stream, tf.shape(inputs)[0], row_shape) >= tf.constant(threshold, tf.uint32)
        kept = inputs * tf.cast(1.0 / (1.0 - self.rate), inputs.dtype)
        return tf.where(keep, kept, tf.zeros_like(kept))

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments, for `.keras` files."""
        config = super().get_config()
        if self.noise_shape is None:
            del config["noise_shape"]
        return {**config, "stream": self.stream}


class _Scope(NamedTuple):
    seed: Any
    first_row: Any
    row_step: int


_SCOPE: ContextVar[_Scope | None] = ContextVar("simimg_dropout_scope", default=None)


def _int64(value: Any) -> Any:
    return tf.cast(tf.convert_to_tensor(value, dtype_hint=tf.int64), tf.int64)


def _draw(scope: _Scope, stream: int, num_rows: Any, row_shape: tf.TensorShape) -> Any:
    """Returns this replica's rows of the global draw: uniform uint32 [num_rows, *row_shape]."""
    if not row_shape.is_fully_defined():
        raise UsageError(f"dropout needs to know every dimension but the first. Received: rows of {row_shape}")
    num_elements = math.prod(row_shape)
    num_groups = -(-num_elements // _GROUP)
    counter = tf.stack([scope.first_row * num_groups, scope.seed[1] * NUM_STREAMS + stream])
    draw = tf.raw_ops.StatelessRandomUniformFullIntV2(
        dtype=tf.uint32,
        shape=tf.stack([num_rows * scope.row_step, num_groups * _GROUP]),
        key=tf.bitcast(scope.seed[:1], tf.uint64),
        counter=tf.bitcast(counter, tf.uint64),
        alg=_PHILOX,
    )
    return tf.reshape(draw[:: scope.row_step, :num_elements], tf.concat([[num_rows], row_shape], 0))
