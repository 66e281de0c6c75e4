"""The loss of copies against float64 NumPy, written out row by row; its gradient against differences of that."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from simimg.training.contrastive_loss import EmbeddingQueue, pair_terms

PADDING = -1


def unit(rng: np.random.Generator, count: int, dim: int) -> np.ndarray:
    x = rng.standard_normal((count, dim))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def reference(
    z: np.ndarray, ids: list[int], past: np.ndarray, past_ids: list[int], temperature: float
) -> dict[str, np.ndarray]:
    """The formulas as they are written, one row and one other at a time."""
    found: dict[str, list[float]] = {"contrast": [], "entropy": [], "positive": [], "nearest": []}
    for row in range(len(z)):
        positive = float(z[row] @ z[row ^ 1])
        cosines = [float(z[row] @ z[k]) for k in range(len(z)) if ids[k] not in (ids[row], PADDING)]
        cosines += [float(z[row] @ past[k]) for k in range(len(past)) if past_ids[k] not in (ids[row], PADDING)]
        e = np.exp(positive / temperature)
        found["contrast"].append(-np.log(e / (e + sum(np.exp(c / temperature) for c in cosines) + 1e-6)))
        nearest = max(cosines, default=-1.0)
        found["entropy"].append(-np.log(np.sqrt(max(2 - 2 * nearest, 1e-6))))
        found["positive"].append(positive)
        found["nearest"].append(nearest)
    return {name: np.array(values) for name, values in found.items()}


@given(
    seed=st.integers(0, 1000),
    ids=st.lists(st.integers(-1, 4), min_size=1, max_size=5),
    past_ids=st.lists(st.integers(-1, 6), max_size=5),
    temperature=st.sampled_from([0.05, 0.2, 1.0]),
)
@settings(max_examples=60)
def test_equals_the_reference(seed: int, ids: list[int], past_ids: list[int], temperature: float) -> None:
    rng = np.random.default_rng(seed)
    z, past = unit(rng, 2 * len(ids), 3), unit(rng, len(past_ids), 3).reshape(-1, 3)
    both = np.repeat(ids, 2)
    earlier: tuple[Any, ...] = ()
    if past_ids:
        earlier = tf.constant(past, tf.float32), tf.constant(past_ids, tf.int64)
    terms = pair_terms(tf.constant(z, tf.float32), tf.constant(both), *earlier, temperature=temperature)
    expected = reference(z, both.tolist(), past, past_ids, temperature)
    for name, values in expected.items():
        np.testing.assert_allclose(getattr(terms, name), values, rtol=2e-4, atol=2e-5)


def test_the_gradient_is_that_of_the_formulas() -> None:
    rng = np.random.default_rng(0)
    z, past, ids = unit(rng, 8, 4), unit(rng, 3, 4), [3, 3, 5, 5, 8, 8, PADDING, PADDING]
    past_ids = [5, 9, PADDING]

    def loss(z: np.ndarray) -> float:
        terms = reference(z, ids, past, past_ids, 0.2)
        return float((terms["contrast"] + 0.7 * terms["entropy"])[:6].sum())

    x = tf.constant(z, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(x)
        terms = pair_terms(x, tf.constant(ids, tf.int64), past.astype(np.float32), past_ids, temperature=0.2)
        total = tf.reduce_sum((terms.contrast + 0.7 * terms.entropy)[:6])
    gradient = tape.gradient(total, x).numpy()
    for row in range(8):
        for column in range(4):
            step = np.zeros_like(z)
            step[row, column] = 1e-5
            slope = (loss(z + step) - loss(z - step)) / 2e-5
            assert gradient[row, column] == pytest.approx(slope, abs=2e-3)
    assert not gradient[6:].any(), "padding is pushed or pulled"


def test_views_that_are_the_same_and_pictures_that_are_the_same() -> None:
    """The corners of the formulas give numbers, and gradients that are numbers."""
    x = tf.constant([[1.0, 0.0]] * 4)
    with tf.GradientTape() as tape:
        tape.watch(x)
        terms = pair_terms(x, tf.constant([0, 0, 1, 1], tf.int64), temperature=0.05)
        total = tf.reduce_sum(terms.contrast + terms.entropy)
    np.testing.assert_allclose(terms.contrast, np.log(3), rtol=1e-5)
    np.testing.assert_allclose(terms.entropy, -0.5 * np.log(1e-6), rtol=1e-5)
    assert np.isfinite(tape.gradient(total, x)).all()


def test_the_oldest_go_first() -> None:
    past = EmbeddingQueue.empty(5, 2)
    assert past.ids.numpy().tolist() == [PADDING] * 5
    for first in (0, 2, 4):
        past.push(tf.fill([2, 2], float(first)), tf.constant([first, first + 1], tf.int64))
    assert past.ids.numpy().tolist() == [4, 5, 2, 3, 0]
    assert past.embeddings.numpy()[:, 0].tolist() == [4, 4, 2, 2, 0]
    past.push(tf.zeros([8, 2]), tf.range(8, dtype=tf.int64))
    assert past.ids.numpy().tolist() == [0, 1, 2, 3, 4]


def test_replicas_exchange_any_ids() -> None:
    """As columns of float32, but exactly."""
    from simimg.training.contrastive_loss import _gathered
    from simimg.training.strategy import make_strategy

    every = tf.constant([-1, 0, 2**63 - 1, -(2**63), 2**22 + 1, 0x0123456789ABCDEF], tf.int64)
    embeddings = tf.random.stateless_normal([6, 3], [0, 1])

    def replica() -> tuple[tf.Tensor, tf.Tensor]:
        first = tf.distribute.get_replica_context().replica_id_in_sync_group * 3
        places = first + tf.range(3)
        mine, ids = tf.gather(embeddings, places), tf.gather(every, places)
        return _gathered(tf.ensure_shape(mine, [3, 3]), tf.ensure_shape(ids, [3]), first, 6, 2)

    strategy = make_strategy(2)
    for pair in zip(*map(strategy.experimental_local_results, tf.function(strategy.run)(replica)), strict=True):
        np.testing.assert_array_equal(pair[0], embeddings)
        np.testing.assert_array_equal(pair[1], every)
