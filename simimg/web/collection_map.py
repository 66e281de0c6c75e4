"""Lays out a collection as a map: a point in the plane for each image, near those of similar images.

Each image is connected to its nearest fifteen by their `kind` vectors. Connected images attract each other, and any two
images repel each other. This is the layout of UMAP (McInnes, Healy and Melville, arXiv:1802.03426), initialized with
the two principal axes; all points move at once in each round. Up to `LANDMARKS` images, evenly taken from the
collection, are laid out. The others are placed between the three landmarks that are most similar to them.

    <index_dir>/web/map-<generation>-<fingerprint>.npy      float32 [num_images, 2], 0..1
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

from simimg.similarity.nearest_neighbors import nearest
from simimg.similarity.search_index import SearchIndex
from simimg.web.thumbnails import CACHE
from tfrecords.format.atomic_files import atomic_file

if TYPE_CHECKING:
    from scipy import sparse

LANDMARKS = 20_000
"""Finding their neighbors takes 400 million inner products, some seconds."""

ROUNDS = 240

_NEIGHBORS = 15
_NEGATIVES = 5  # repelling images per attracting image
_A, _B = 1.577, 0.895  # UMAP's curve 1 / (1 + a d^2b) for a minimum distance of 0.1
_MAX_MOVE = 4.0  # by one attraction or repulsion per round, as in UMAP
_STEP = 0.5  # half of UMAP's, because all points move at once
_FILLED = 0.4  # share of the plane that squares around the points fill
_CROWD, _SPREADING_ROUNDS = 12, 60  # nearest points that push a point apart
_BLOCK = 64  # queries: three times as fast as blocks of 1,024
_SEED = 0

_Progress = Callable[[int], object]


def load_or_lay_out(index: SearchIndex, progress: _Progress = lambda rounds: None) -> np.ndarray:
    """Return the points, float32 `[num_images, 2]` in 0..1, from the cache, or compute and cache them.

    `progress` is called with the number of rounds since its last call, `ROUNDS` in total.
    """
    folder = index.index_dir / CACHE
    path = folder / f"map-{index.info.generation}-{index.info.model_fingerprint[:12]}.npy"
    with suppress(OSError, ValueError, EOFError):  # missing, or damaged by a power failure
        known: np.ndarray = np.load(path)
        if known.shape == (len(index.images), 2) and np.isfinite(known).all():
            return known
    places = lay_out(np.asarray(index.vectors["kind"]), progress)
    with suppress(OSError):  # the index is read-only; the map is computed again next time
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("map-*.npy"):
            old.unlink(missing_ok=True)
        with atomic_file(path, sync=False) as file:
            np.save(file, places)
    return places


def lay_out(vectors: np.ndarray, progress: _Progress = lambda rounds: None) -> np.ndarray:
    """Return the points, float32 `[num_images, 2]` in 0..1, of vectors, float32 `[num_images, dim]` of L2 norm 1.

    The same vectors give the same points. For `progress`, see `load_or_lay_out`.
    """
    count = len(vectors)
    if count < 4:
        progress(ROUNDS)
        return np.stack([np.linspace(0.3, 0.7, count) if count > 1 else np.full(count, 0.5), np.full(count, 0.5)], 1)
    rows = np.arange(count) if count <= LANDMARKS else np.linspace(0, count - 1, LANDMARKS).astype(np.int64)
    landmarks = np.asarray(vectors[rows], np.float32)
    neighbors, similarities = _nearest(landmarks, landmarks, min(_NEIGHBORS, len(rows) - 1), without_self=True)
    places = _attracted(_principal(landmarks), _attractions(neighbors, similarities), progress)
    places = _spread(_in_frame(places))
    if len(rows) < count:
        near, weights = _nearest(np.asarray(vectors), landmarks, 3, without_self=False)
        weights = np.maximum(weights, 1e-3)[..., None]
        between = (places[near] * weights).sum(axis=1) / weights.sum(axis=1)
        between[rows] = places
        places = between
    return _in_frame(places).astype(np.float32)


def _nearest(vectors: np.ndarray, among: np.ndarray, k: int, *, without_self: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and cosines of the nearest `k`, best first: `[num_vectors, k]` each."""
    found = []
    for start in range(0, len(vectors), _BLOCK):
        block = np.asarray(vectors[start : start + _BLOCK])
        cosines, rows = nearest(among, block[:, None], k + without_self)
        own = np.arange(start, start + len(block))[:, None] if without_self else -1
        kept = np.argsort(rows == own, axis=1, kind="stable")[:, :k]
        found.append([np.take_along_axis(values, kept, 1) for values in (rows, cosines)])
    rows, cosines = map(np.concatenate, zip(*found, strict=True))
    return rows, cosines


def _attractions(neighbors: np.ndarray, similarities: np.ndarray) -> sparse.coo_matrix:
    """Return the weights of connections, 0..1, symmetric: UMAP's fuzzy union (section 3.1 there)."""
    from scipy import sparse  # 0.2 s, which a start should not wait for

    count, k = neighbors.shape
    distances = np.maximum(1.0 - similarities.astype(np.float64), 0.0)
    beyond = np.maximum(distances - distances[:, :1], 0.0)
    low, high = np.full(count, 1e-6), np.full(count, 4.0)
    for _ in range(40):  # bisection of the width at which the weights of an image add up to log2(k)
        width = (low + high) * 0.5
        more = np.exp(-beyond / width[:, None]).sum(axis=1) > np.log2(max(k, 2))
        low, high = np.where(more, low, width), np.where(more, width, high)
    weights = np.exp(-beyond / ((low + high) * 0.5)[:, None])
    rows = np.repeat(np.arange(count), k)
    joined = sparse.csr_matrix((weights.ravel(), (rows, neighbors.ravel())), shape=(count, count))
    return (joined + joined.T - joined.multiply(joined.T)).tocoo()


def _principal(vectors: np.ndarray) -> np.ndarray:
    """Project to the two principal axes, scaled to -10..10 as in UMAP: float64 `[num_vectors, 2]`."""
    centered = vectors.astype(np.float64) - vectors.mean(axis=0)
    _, axes = np.linalg.eigh(centered.T @ centered)
    places = centered @ axes[:, ::-1][:, :2]
    if places.shape[1] < 2:
        places = np.column_stack([places, np.zeros(len(places))])
    noise = np.random.default_rng(_SEED).normal(0, 1e-3, places.shape)  # separates equal vectors
    return 10.0 * places / max(float(np.abs(places).max()), 1e-9) + noise


def _attracted(places: np.ndarray, attractions: sparse.coo_matrix, progress: _Progress) -> np.ndarray:
    rng = np.random.default_rng(_SEED)
    heads, tails, weights = attractions.row, attractions.col, attractions.data
    count = len(places)
    for number in range(ROUNDS):
        drawn = rng.random(len(weights)) < weights
        ones, others = heads[drawn], tails[drawn]
        apart = places[ones] - places[others]
        squared = np.maximum((apart**2).sum(axis=1), 1e-9)
        pull = -2 * _A * _B * squared ** (_B - 1) / (1 + _A * squared**_B)
        move = _summed(ones, np.clip(pull[:, None] * apart, -_MAX_MOVE, _MAX_MOVE), count)
        ones = np.repeat(ones, _NEGATIVES)
        apart = places[ones] - places[rng.integers(0, count, len(ones))]
        squared = (apart**2).sum(axis=1)
        push = 2 * _B / ((1e-3 + squared) * (1 + _A * squared**_B))
        move += _summed(ones, np.clip(push[:, None] * apart, -_MAX_MOVE, _MAX_MOVE), count)
        places = places + _STEP * (1 - number / ROUNDS) * np.clip(move, -4 * _MAX_MOVE, 4 * _MAX_MOVE)
        progress(1)
    return places


def _in_frame(places: np.ndarray) -> np.ndarray:
    """Scale points to 0..1; the few outliers are clipped to the edge."""
    low, high = np.quantile(places, 0.002, axis=0), np.quantile(places, 0.998, axis=0)
    extent = max(float((high - low).max()), 1e-6)
    framed: np.ndarray = np.clip((places - (low + high) * 0.5) / extent * 0.94 + 0.5, 0.0, 1.0)
    return framed


def _spread(places: np.ndarray) -> np.ndarray:
    """Push points apart that UMAP draws together, so that a class covers an area instead of a dot."""
    from scipy.spatial import cKDTree

    apart = math.sqrt(_FILLED / len(places))
    k = min(_CROWD, len(places) - 1)
    for _ in range(_SPREADING_ROUNDS):
        distances, others = cKDTree(places).query(places, k + 1)
        distances, others = distances[:, 1:], others[:, 1:]
        short = np.clip(apart - distances, 0.0, None)
        if not short.any():
            break
        away = (places[:, None] - places[others]) / np.maximum(distances, 1e-9)[..., None]
        places = places + 0.35 * (short[..., None] * away).sum(axis=1) / max(1.0, k * 0.25)
    return places


def _summed(rows: np.ndarray, moves: np.ndarray, count: int) -> np.ndarray:
    return np.stack([np.bincount(rows, moves[:, axis], count) for axis in range(2)], axis=1)
