"""Permutations of examples, each place of which is computed independently, from (seed, epoch)."""

from __future__ import annotations

import dataclasses

import tensorflow as tf


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mixing:
    """How far examples that do not fit into memory are mixed: within windows of blocks.

    A block is `block` examples that are adjacent on disk. Blocks are drawn at random, and the examples of
    `blocks_per_window` successive blocks are mixed. So an epoch reads each byte once, one window at a time. Each epoch
    starts counting at a different example, so the block boundaries move.
    """

    block: int
    blocks_per_window: int

    @classmethod
    def of_bytes(cls, record_bytes: float) -> Mixing:
        """Returns the mixing for records of this length, which depends on nothing else, such as the machine."""
        block = max(1, round(_BLOCK_BYTES / record_bytes))
        return cls(block=block, blocks_per_window=max(1, round(_WINDOW_BYTES / (record_bytes * block))))


# A disk delivers blocks of this size as fast as one long file. A window fits into the memory of any training machine.
_BLOCK_BYTES = 1 << 19
_WINDOW_BYTES = 1 << 30
_SHUFFLE_PADDING = 498247692  # in tensorflow/python/ops/stateless_random_ops.py


def permuted(places: tf.Tensor, count: tf.Tensor | int, seed: tf.Tensor | int, epoch: tf.Tensor) -> tf.Tensor:
    """Returns the items at `places` in the permutation of `count` items for (seed, epoch), int64 like `places`.

    tf.random.experimental.index_shuffle encrypts a place with a key, so no list of all places is needed. Its cipher
    needs keys that look random: with (seed, epoch) as the key, the permutations of successive epochs are so similar
    that an example keeps coming to the same few places. So the key is drawn from (seed, epoch) by Philox.
    """
    (key,) = tf.unstack(_keys(_run(seed, epoch), 1))
    return tf.random.experimental.index_shuffle(places, key, tf.cast(count - 1, tf.int64))


def permuted_in_windows(
    positions: tf.Tensor, count: int, mixing: Mixing, seed: tf.Tensor | int, epoch: tf.Tensor
) -> tf.Tensor:
    """As `permuted`, but mixed no further than `mixing` says."""
    keys = _keys(_run(seed, epoch), _num_window_keys(count, mixing))
    return _mixed(positions, count, mixing, keys[None], tf.zeros_like(positions))


def permuted_by_epoch(
    places: tf.Tensor, count: int, seed: tf.Tensor | int, epochs: tf.Tensor, mixing: Mixing | None = None
) -> tf.Tensor:
    """As `permuted`, or `permuted_in_windows`, but with an epoch for each of `places`: int64 `[n]`, at least one."""
    first = tf.reduce_min(epochs)
    num_keys = 1 if mixing is None else _num_window_keys(count, mixing)
    keys = keys_of(seed, tf.range(first, tf.reduce_max(epochs) + 1), num_keys)
    which = epochs - first
    if mixing is None:
        # As tf.random.experimental.index_shuffle pads a single key; for one key per place, 2.21 pads the wrong axis.
        seeds = tf.pad(tf.gather(keys[:, 0], which), [[0, 0], [1, 0]], constant_values=_SHUFFLE_PADDING)
        return _by_seeds(places, seeds, tf.constant(count - 1, tf.int64))
    return _mixed(places, count, mixing, keys, which)


def keys_of(seed: tf.Tensor | int, epochs: tf.Tensor, num_keys: int = 1) -> tf.Tensor:
    """Returns the keys of `shuffled` for each of `epochs`, int64 `[n]`: int64 `[n, num_keys, 2]`."""
    signature = tf.TensorSpec([num_keys, 2], tf.int64)
    return tf.map_fn(lambda epoch: _keys(_run(seed, epoch), num_keys), epochs, fn_output_signature=signature)


def shuffled(places: tf.Tensor, keys: tf.Tensor, last: tf.Tensor) -> tf.Tensor:
    """Returns the items at `places` in permutations of 0..last: int64 `[n]`.

    `keys` are int64 `[n, 2]`, or `[1, 2]` for all; `last` is int64 `[n]`, or a scalar.
    """
    return _by_seeds(places, tf.pad(keys, [[0, 0], [0, 1]]), last)


def _by_seeds(places: tf.Tensor, seeds: tf.Tensor, last: tf.Tensor) -> tf.Tensor:
    seeds = tf.broadcast_to(seeds, [tf.size(places), 3])
    last = tf.broadcast_to(last, tf.shape(places))
    return tf.raw_ops.RandomIndexShuffle(index=places, seed=seeds, max_index=last, rounds=4)


def _num_windows(count: int, mixing: Mixing) -> int:
    return max(1, count // min(mixing.block, count) // mixing.blocks_per_window)


def _num_window_keys(count: int, mixing: Mixing) -> int:
    return _num_windows(count, mixing) + 2


def _mixed(positions: tf.Tensor, count: int, mixing: Mixing, keys: tf.Tensor, which: tf.Tensor) -> tf.Tensor:
    """Returns the items at `positions`; position i is of epoch `which[i]` of those that `keys` are for."""
    block = min(mixing.block, count)
    num_blocks = count // block  # full blocks; the remaining examples belong to the last window
    window = block * mixing.blocks_per_window
    num_windows = _num_windows(count, mixing)

    number = tf.minimum(positions // window, num_windows - 1)
    first = number * window
    length = tf.where(number == num_windows - 1, count - first, window)
    drawn = first + shuffled(positions - first, tf.gather_nd(keys, tf.stack([which, number + 2], 1)), length - 1)

    there = tf.minimum(drawn // block, num_blocks - 1)
    of_blocks = tf.gather(keys[:, 0], which)
    chosen = shuffled(there, of_blocks, tf.constant(num_blocks - 1, tf.int64)) * block + drawn % block
    place = tf.where(drawn < num_blocks * block, chosen, drawn)
    return (place + tf.gather(keys[:, 1, 0], which) % count) % count


def _run(seed: tf.Tensor | int, epoch: tf.Tensor) -> tf.Tensor:
    return tf.stack([tf.cast(seed, tf.int64), tf.cast(epoch, tf.int64)])


def _keys(run: tf.Tensor, count: int) -> tf.Tensor:
    """Returns int64 `[count, 2]`, uniform over all int64, from `run`, int64 `[2]`."""
    return tf.random.stateless_uniform([count, 2], run, None, None, tf.int64, alg="philox")
