"""Throughput of exact search over a million vectors: this project's, NumPy's whole product, and faiss.

Two limits are measured in the same rounds: a sum of all vectors with all cores, which reads the bytes that a search
has to read; and a large matrix product, which shows the peak of the processor.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from simimg.bench.measurements import Run, estimate, ratios, take_turns, timed
from simimg.similarity.nearest_neighbors import nearest
from tfrecords.machine_limits import num_cores

__all__ = ["PEAK", "ExactSearch", "ExactSpeed", "matrix_product", "measure_exact", "turn"]

DIM = 256
BATCHES = (1, 8, 64)
PEAK, _MEMORY = "product of matrices", "sum of all vectors"
_OURS, _NUMPY, _FAISS = "simimg", "NumPy @ and argpartition", "faiss IndexFlatIP"
_K = 10
_MIN_TURN_S = 0.5
_DRAWN_ROWS = 50_000
_PEAK_SIDE = 2048


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExactSpeed:
    """The figures of one way of searching.

    Attributes:
        name: the way of searching.
        batch: queries per call.
        queries_per_s: the median.
        ci95: its 95 % interval; None if there were fewer than five rounds.
        gb_per_s: bytes of vectors that one call has to read, 10**9 per second.
        ratio_to_memory: that as a share of the speed at which memory is read.
        ratio_to_peak: its operations as a share of the processor's peak.
        times_ours: how many times as fast simimg is; None for simimg itself.
        times_ours_ci95: the 95 % interval of that.
        cores: seconds of processor time per second.
    """

    name: str
    batch: int
    queries_per_s: float
    ci95: tuple[float, float] | None
    gb_per_s: float
    ratio_to_memory: float
    ratio_to_peak: float
    times_ours: float | None
    times_ours_ci95: tuple[float, float] | None
    cores: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExactSearch:
    """All measurements: the ways of searching and the limits, in 10**9 bytes and 10**9 operations per second."""

    what: str
    speeds: tuple[ExactSpeed, ...]
    memory_gb_per_s: float
    peak_gflops: float
    rounds: dict[str, list[Run]]


def measure_exact(
    num_vectors: int, *, repeats: int, watch: Callable[[int], Callable[[], object]] = lambda _: lambda: None
) -> ExactSearch:
    """Measures on random unit vectors; the speed of search does not depend on their values."""
    import faiss  # after TensorFlow; in the other order, their threads clash

    vectors, queries = _drawn(num_vectors)
    index = faiss.IndexFlatIP(DIM)
    index.add(vectors)
    ways: dict[str, Callable[[np.ndarray], Any]] = {
        _OURS: lambda some: nearest(vectors, some[:, None], _K),
        _NUMPY: lambda some: _naive(vectors, some),
        _FAISS: lambda some: index.search(some, _K),
    }
    tools: dict[str, Callable[[], Run]] = {
        f"{name}, {batch}": turn(lambda way=way, batch=batch: way(queries[:batch]), batch, vectors.nbytes)  # type: ignore[misc]
        for batch in BATCHES
        for name, way in ways.items()
    }
    parts = np.array_split(vectors, num_cores())
    with ThreadPoolExecutor(num_cores()) as executor:
        tools[_MEMORY] = turn(lambda: list(executor.map(np.sum, parts)), 1, vectors.nbytes)
        tools[PEAK] = matrix_product()
        rounds, failures = take_turns(tools, repeats=repeats, progress=watch(len(tools) * (repeats + 1)))
    assert not failures
    return ExactSearch(
        what=f"{num_vectors:,} vectors of {DIM} numbers, {vectors.nbytes / 1e9:.2f} GB, the nearest {_K}",
        speeds=tuple(_speed(name, batch, rounds, num_vectors) for batch in BATCHES for name in ways),
        memory_gb_per_s=estimate([run.num_bytes / run.seconds / 1e9 for run in rounds[_MEMORY]]).median,
        peak_gflops=estimate([run.images_per_s / 1e9 for run in rounds[PEAK]]).median,
        rounds=rounds,
    )


def turn(call: Callable[[], object], num_items: int, num_bytes: int = 0) -> Callable[[], Run]:
    """Returns a function that times `call` for half a second at least; a call processes these items and bytes."""

    def once() -> int:
        call()
        return num_items

    def run() -> Run:
        done = timed(once, min_s=_MIN_TURN_S, min_calls=1)
        return dataclasses.replace(done, num_bytes=done.num_images // num_items * num_bytes)

    return run


def matrix_product() -> Callable[[], Run]:
    """Returns a function that times a large float32 product with all cores; its items are floating-point operations."""
    square = np.random.default_rng(0).standard_normal((_PEAK_SIDE, _PEAK_SIDE), np.float32)
    return turn(lambda: square @ square, 2 * _PEAK_SIDE**3)


def _speed(name: str, batch: int, rounds: dict[str, list[Run]], num_vectors: int) -> ExactSpeed:
    runs = rounds[f"{name}, {batch}"]
    throughput = estimate([run.images_per_s for run in runs])
    operations = [dataclasses.replace(run, num_images=2 * DIM * num_vectors * run.num_images) for run in runs]
    memory = [run.num_bytes / run.seconds for run in rounds[_MEMORY]]
    read = [run.num_bytes / run.seconds for run in runs]
    ours = None if name == _OURS else estimate(ratios(rounds[f"{_OURS}, {batch}"], runs))
    return ExactSpeed(
        name=name,
        batch=batch,
        queries_per_s=throughput.median,
        ci95=throughput.ci95,
        gb_per_s=estimate(read).median / 1e9,
        ratio_to_memory=estimate([one / other for one, other in zip(read, memory, strict=True)]).median,
        ratio_to_peak=estimate(ratios(operations, rounds[PEAK])).median,
        times_ours=None if ours is None else ours.median,
        times_ours_ci95=None if ours is None else ours.ci95,
        cores=estimate([run.cpu_seconds / run.seconds for run in runs]).median,
    )


def _naive(vectors: np.ndarray, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Searches in the obvious way: all similarities at once, and the best of them, sorted."""
    similarities = queries @ vectors.T
    kept = np.argpartition(-similarities, _K - 1, axis=1)[:, :_K]
    values = np.take_along_axis(similarities, kept, 1)
    order = np.argsort(-values, axis=1)
    return np.take_along_axis(values, order, 1), np.take_along_axis(kept, order, 1)


def _drawn(num_vectors: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    vectors = np.empty((num_vectors, DIM), np.float32)
    for start in range(0, num_vectors, _DRAWN_ROWS):
        part = vectors[start : start + _DRAWN_ROWS]
        rng.standard_normal(out=part, dtype=np.float32)
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    queries = vectors[rng.integers(num_vectors, size=max(BATCHES))] + rng.standard_normal((max(BATCHES), DIM)) * 0.02
    return vectors, (queries / np.linalg.norm(queries, axis=1, keepdims=True)).astype(np.float32)
