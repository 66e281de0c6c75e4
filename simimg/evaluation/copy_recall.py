"""Recall of copies: searches for an augmented copy of each image of a split among all images of the split."""

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

_BATCH_SIZE = 64  # per device
_MOST_EXAMPLES = 20_000  # with each other: 400 million similarities
_ROWS_PER_BLOCK = 1024
_VIEW = 2  # training uses the views 0 and 1, so these copies were not trained on
_EPSILON = 1e-6


@dataclasses.dataclass(frozen=True, kw_only=True)
class CopyFigures:
    """Figures of a network for copies on a split.

    `recall` is the share of copies whose nearest image is their original, and `recall_ci95` its 95 % interval. `loss`
    is the training loss without the entropy term. `copy_similarity` is the mean cosine of a copy and its original,
    `nearest_similarity` that of a copy and the nearest other image. `mean_norm` is the length of the mean embedding of
    the images: 1 if all embeddings are the same.
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
    """The figures, each image's id, int64 `[n]`, and the place of the image that its copy found, int64 `[n]`."""

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
    num_devices: int = 1,
    progress: Callable[[int], object] = lambda num_examples: None,
) -> CopySearch:
    """Measures how well copies of a split's images find their originals, for the first 20,000 images.

    `forward` computes unit vectors from pixels, and divides a batch among `num_devices`, see `predict`. The
    augmentation makes the same copies each time from the same seed, so that epochs can be compared. `temperature` is
    that of the loss. `progress` is called with the number of examples since its last call.
    """
    originals, copies, ids = [], [], []
    num_examples, size = 0, min(_BATCH_SIZE, reader.split.num_examples)
    most = -(-_MOST_EXAMPLES // size) * size  # full batches, for any number of devices
    for batch in reading(reader.split, eval_batches(reader, num_devices * size)):
        there = batch.id.numpy() != PADDING_ID
        originals.append(forward(tf.cast(batch.image, tf.float32)).numpy()[there])
        copies.append(forward(copy_of(config, seed, batch.id, batch.image)).numpy()[there])
        ids.append(batch.id.numpy()[there])
        num_examples += int(there.sum())
        progress(int(there.sum()))
        if num_examples >= most:
            break
    mine, theirs, found_ids = (np.concatenate(parts)[:most] for parts in (originals, copies, ids))
    figures, found = _compared(mine, theirs, temperature)
    return CopySearch(figures, found_ids, found)


def copy_of(config: AugmentConfig, seed: int, id: Any, image: Any) -> tf.Tensor:
    """Returns the copies to search for, float32 of the shape of `image`."""
    return augment(config, seed, tf.constant(0, tf.int64), id, image, _VIEW)


def _compared(originals: np.ndarray, copies: np.ndarray, temperature: float) -> tuple[CopyFigures, np.ndarray]:
    count = len(originals)
    own, nearest, losses = np.empty((3, count))
    found = np.empty(count, np.int64)
    for start in range(0, count, _ROWS_PER_BLOCK):
        rows = np.arange(start, min(start + _ROWS_PER_BLOCK, count))
        cosines = exact_matmul(copies[rows], originals.T)  # exact: a duplicate is as near as the original
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
        mean_norm=float(np.linalg.norm(originals.mean(axis=0))),
    )
    return figures, found
