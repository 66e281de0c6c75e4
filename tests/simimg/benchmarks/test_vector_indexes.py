"""The comparison of vector indexes on a small set: what is measured is what it is called."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import vector_indexes
from benchmarks.vector_indexes import draw, measure
from simimg.similarity.nearest_neighbors import nearest

NUM_VECTORS = 3_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vectors")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vector_indexes, "_NUM_QUERIES", 32)
        draw(folder, NUM_VECTORS)
    return folder


def test_vectors_are_in_clusters_and_the_true_neighbors_are_known(folder: Path) -> None:
    vectors = np.load(folder / "vectors.npy").astype(np.float32)
    queries, truth = np.load(folder / "queries.npy"), np.load(folder / f"truth-{NUM_VECTORS}.npy")
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3)
    similarities, rows = nearest(vectors, queries[:, None], 10)
    np.testing.assert_array_equal(rows, truth)
    assert 0.3 < np.median(similarities[:, 0]) < 0.8
    before = (folder / "vectors.npy").stat().st_mtime_ns
    draw(folder, 1_000)  # the first of them
    assert (folder / "vectors.npy").stat().st_mtime_ns == before
    assert np.load(folder / "truth-1000.npy").max() < 1_000


@pytest.mark.parametrize(
    "way", ["exact", "exact-float32", "compressed", "pq-packed", "ivf-rabitq", "ivf-pq-packed", "ivf-sq8", "hnsw-sq8"]
)
def test_a_way_is_searched_until_its_recall_is_enough(folder: Path, way: str) -> None:
    outcome = measure(folder, NUM_VECTORS, way)
    recalls = [point["recall"] for point in outcome.points]
    assert recalls[-1] >= 0.99
    assert max(recalls[:-1], default=0.0) < 0.99
    assert outcome.index_bytes >= NUM_VECTORS * 32
    assert not (folder / "index.faiss").exists()
