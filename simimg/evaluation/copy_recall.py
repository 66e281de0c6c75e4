"""How well a network finds copies: an augmented copy of each photo of a split, looked for among all of its photos."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from simimg.augment import AugmentConfig, augment
from simimg.determinism import exact_matmul
from simimg.evaluation.classification import wilson_interval
from simimg.input import PADDING_ID, Reader, eval_batches, reading

__all__ = ["CopyFigures", "CopySearch", "copy_of", "search_copies"]

_BATCH_SIZE = 64
_MOST_EXAMPLES = 20_000  # of each other: 400 million similarities
_ROWS_PER_BLOCK = 1024
_VIEW = 2  # a training looks at the views 0 and 1, so no copy that is looked for was trained on
_EPSILON = 1e-6


@dataclasses.dataclass(frozen=True, kw_only=True)
class CopyFigures:
    """Figures of a network on a split.

    `recall` is the share of copies whose nearest photo is their original, `recall_ci95` its 95 % interval; `loss` what
    a training minimises, without the entropy. `copy_similarity` is the mean cosine of a copy and its original,
    `nearest_similarity` that of a copy and the nearest other photo, `mean_norm` the length of the photos' mean
    embedding: 1 where all have become the same.
    """

    num_examples: int
    recall: float
    recall_ci95: tuple[float, float]
    loss: float
    copy_similarity: float
    nearest_similarity: float
    mean_norm: float


@dataclasses.dataclass(frozen=True)
class CopySearch:
    """What was found: the figures, and of each photo its id, int64 `[n]`, and the place of what its copy found."""

    figures: CopyFigures
    ids: np.ndarray
    found: np.ndarray


def search_copies(
    forward: Callable[[Any], tf.Tensor],
    reader: Reader,
    config: AugmentConfig,
    *,
    seed: int,
    temperature: float,
    progress: Callable[[int], object] = lambda num_examples: None,
) -> CopySearch:
    """Returns how well copies of a split's photos find them, the first 20,000 of a larger one.

    Args:
        forward: pixels to unit vectors, see `simimg.evaluation.compiled`.
        reader: of the split.
        config: what is done to a copy.
        seed: of that. It is the same each time, so that epochs can be compared.
        temperature: of the loss.
        progress: called with the number of examples since the last call.
    """
    photos, copies, ids = [], [], []
    num_examples = 0
    for batch in reading(reader.split, eval_batches(reader, min(_BATCH_SIZE, reader.split.num_examples))):
        there = batch.id.numpy() != PADDING_ID
        photos.append(forward(tf.cast(batch.image, tf.float32)).numpy()[there])
        copies.append(forward(copy_of(config, seed, batch.id, batch.image)).numpy()[there])
        ids.append(batch.id.numpy()[there])
        num_examples += int(there.sum())
        progress(int(there.sum()))
        if num_examples >= _MOST_EXAMPLES:
            break
    figures, found = _compared(np.concatenate(photos), np.concatenate(copies), temperature)
    return CopySearch(figures, np.concatenate(ids), found)


def copy_of(config: AugmentConfig, seed: int, id: Any, image: Any) -> tf.Tensor:
    """Returns the copies, float32 of the shape of `image`, that are looked for."""
    return augment(config, seed, tf.constant(0, tf.int64), id, image, _VIEW)


def _compared(photos: np.ndarray, copies: np.ndarray, temperature: float) -> tuple[CopyFigures, np.ndarray]:
    count = len(photos)
    own, nearest, losses = np.empty((3, count))
    found = np.empty(count, np.int64)
    for start in range(0, count, _ROWS_PER_BLOCK):
        rows = np.arange(start, min(start + _ROWS_PER_BLOCK, count))
        cosines = exact_matmul(copies[rows], photos.T)  # a photo that is there twice is as near as itself
        own[rows] = cosines[rows - start, rows]
        cosines[rows - start, rows] = -np.inf
        nearest[rows], found[rows] = cosines.max(axis=1), cosines.argmax(axis=1)
        most = np.maximum(nearest[rows], own[rows])[:, None]  # so that no power overflows
        others = np.exp((cosines - most) / temperature).sum(axis=1)
        mine = np.exp((own[rows] - most[:, 0]) / temperature)
        floor = _EPSILON * np.exp(-most[:, 0] / temperature)
        losses[rows] = np.log(mine + others + floor) + (most[:, 0] - own[rows]) / temperature
    right = own > nearest
    found[right] = np.flatnonzero(right)
    figures = CopyFigures(
        num_examples=count,
        recall=float(right.mean()),
        recall_ci95=wilson_interval(int(right.sum()), count),
        loss=float(losses.mean()),
        copy_similarity=float(own.mean()),
        nearest_similarity=float(nearest.mean()) if count > 1 else -1.0,
        mean_norm=float(np.linalg.norm(photos.mean(axis=0))),
    )
    return figures, found
