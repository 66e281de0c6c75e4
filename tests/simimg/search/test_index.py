"""Nearest vectors against a float64 reference, projections, and an index folder that is whole or refused."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simimg.errors import SearchIndexError
from simimg.search import Embedder, Picture, SearchIndex, nearest, threads
from simimg.search.index import write_generation
from simimg.search.projection import fit_projection
from simimg.search.threads import threads_of_one


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def embedder(fingerprint: str = "abc", dim: int = 8) -> Embedder:
    return Embedder("lite0", fingerprint, 224, "stretch", dim, None)


def pictures(count: int) -> list[Picture]:
    return [
        Picture(path=f"folder/{number}.jpg", sha256=f"{number:064x}", width=10, height=20, label="folder")
        for number in range(count)
    ]


def make(folder: Path, embeddings: np.ndarray) -> SearchIndex:
    rows = pictures(len(embeddings))
    return write_generation(folder, embedder(dim=embeddings.shape[1]), embeddings, rows, image_dir=Path("/photos"))


@given(num_vectors=st.integers(1, 60), num_queries=st.integers(1, 4), k=st.integers(1, 70), block=st.integers(1, 70))
@settings(deadline=None, max_examples=40)
def test_nearest_equals_sorting_everything(num_vectors: int, num_queries: int, k: int, block: int) -> None:
    rng = np.random.default_rng(num_vectors * 1000 + k)
    vectors, queries = unit(rng.normal(size=(num_vectors, 8))), unit(rng.normal(size=(num_queries, 3, 8)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nearest, "_BLOCK_ROWS", block)
        values, rows = nearest.nearest(vectors, queries, k)
    exact = (queries.astype(np.float64) @ vectors.astype(np.float64).T).max(axis=1)
    order = np.argsort(-exact, axis=1)[:, :k]
    np.testing.assert_array_equal(rows, order)
    np.testing.assert_allclose(values, np.take_along_axis(exact, order, 1), atol=1e-6)


@given(
    num_vectors=st.integers(1, 400),
    num_queries=st.integers(1, 9),
    num_views=st.integers(1, 4),
    k=st.integers(1, 12),
    block=st.sampled_from([32, 64, 150, 4096]),
    small=st.sampled_from([0, 1_000_000]),
    num_threads=st.integers(1, 3),
    levels=st.integers(1, 3),
    seed=st.integers(0, 9),
)
@settings(deadline=None, max_examples=150)
def test_nearest_is_exact_whichever_way_it_multiplies(
    num_vectors: int,
    num_queries: int,
    num_views: int,
    k: int,
    block: int,
    small: int,
    num_threads: int,
    levels: int,
    seed: int,
) -> None:
    """Small whole numbers: float32 has no rounding, and many products are equal."""
    rng = np.random.default_rng(seed)
    vectors = rng.integers(-levels, levels + 1, (num_vectors, 8)).astype(np.float32)
    queries = rng.integers(-levels, levels + 1, (num_queries, num_views, 8)).astype(np.float32)
    if seed % 2:  # each is better than those before: nothing can be passed over
        vectors = vectors[np.argsort(vectors @ queries[0, 0], kind="stable")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nearest, "_BLOCK_ROWS", block)
        patch.setattr(nearest, "_SMALL_PRODUCT", small)
        patch.setattr(nearest, "num_cores", lambda: num_threads)
        values, rows = nearest.nearest(vectors, queries, k)
    exact = (queries.astype(np.float64) @ vectors.astype(np.float64).T).max(axis=1)
    order = np.argsort(-exact, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(rows, order)
    np.testing.assert_array_equal(values, np.take_along_axis(exact, order, 1))
    assert values.dtype == np.float32
    assert rows.dtype == np.int64


@pytest.mark.parametrize("num_vectors", [130, 999, 1001])
def test_the_same_vectors_are_equally_near_anywhere(num_vectors: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest, "_BLOCK_ROWS", 256)
    rng = np.random.default_rng(0)
    copies = np.repeat(unit(rng.normal(size=(1, 256))), num_vectors, axis=0)
    for num_queries in (1, 6, 7, 17, 33, 40, 300):
        values, rows = nearest.nearest(copies, unit(rng.normal(size=(num_queries, 1, 256))), num_vectors)
        assert (rows == np.arange(num_vectors)).all()
        assert np.ptp(values, axis=1).max() == 0


def test_products_have_one_thread_until_the_last_one_leaves() -> None:
    def num_threads() -> int:
        (blas,) = {one["num_threads"] for one in threads._blas().info() if one["internal_api"] == "openblas"}
        return int(blas)

    before = num_threads()
    first, second = threads_of_one(), threads_of_one()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert num_threads() == 1
    second.__exit__(None, None, None)
    assert num_threads() == before


def test_equal_similarities_come_in_the_order_of_the_index(tmp_path: Path) -> None:
    embeddings = np.repeat(np.eye(1, 8, dtype=np.float32), 5, axis=0)
    found = make(tmp_path / "i", embeddings).search(embeddings[:1], 5)[0]
    assert [match.picture.path for match in found] == [f"folder/{number}.jpg" for number in range(5)]
    assert [match.row for match in found] == [0, 1, 2, 3, 4]


def test_cells_find_what_an_exact_search_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    monkeypatch.setattr("simimg.search.index.EXACT_UP_TO", 100)
    centres = rng.normal(size=(20, 16))
    embeddings = unit(centres[rng.integers(20, size=3000)] + rng.normal(size=(3000, 16)) * 0.3)
    index = make(tmp_path / "i", embeddings)
    assert set(index.cells) == {"copy", "kind"}
    assert index.cells["copy"].recall >= 0.99
    assert index.info.cells["copy"]["recall"] == index.cells["copy"].recall
    queries = embeddings[:50, None]
    values, rows = index.nearest(queries, 10)
    exact_values, exact_rows = nearest.nearest(index.vectors["copy"], index.projections["copy"](queries), 10)
    hits = [len(np.intersect1d(ours, theirs)) for ours, theirs in zip(rows, exact_rows, strict=True)]
    assert np.mean(hits) >= 9.5
    np.testing.assert_allclose(values[:, 0], exact_values[:, 0], atol=1e-5)
    assert all(len(set(row)) == 10 for row in rows.tolist())


def test_several_views_of_a_query_find_a_vector_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simimg.search.index.EXACT_UP_TO", 10)
    embeddings = unit(np.random.default_rng(0).normal(size=(500, 8)))
    index = make(tmp_path / "i", embeddings)
    _, rows = index.nearest(embeddings[None, [3, 3, 7]], 5)
    assert {3, 7} <= set(rows[0].tolist())
    assert len(set(rows[0].tolist())) == 5


def test_projections_centre_and_whiten() -> None:
    rng = np.random.default_rng(0)
    embeddings = unit(rng.normal(size=(4000, 600)) * np.linspace(1, 5, 600) + 3)
    projection = fit_projection(embeddings, np.full(4000, ""), "copy")
    moved = (embeddings.astype(np.float64) - projection.mean) @ projection.matrix
    assert moved.shape == (4000, 512)
    np.testing.assert_allclose(moved.mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(np.cov(moved.T), np.eye(512), atol=0.01)
    np.testing.assert_allclose(np.linalg.norm(projection(embeddings), axis=1), 1, atol=1e-5)


def test_labels_bring_pictures_of_one_kind_together() -> None:
    rng = np.random.default_rng(0)
    kinds = rng.normal(size=(5, 64))
    # Pictures differ most in directions that have nothing to do with their kind.
    rows = np.repeat(np.arange(5), 40)
    embeddings = unit(kinds[rows] + rng.normal(size=(200, 64)) * np.where(np.arange(64) < 8, 8, 0.5))

    def gap(labels: np.ndarray) -> float:
        vectors = fit_projection(embeddings, labels, "kind")(embeddings)
        similarities, same = vectors @ vectors.T, rows[:, None] == rows[None]
        return float(similarities[same].mean() - similarities[~same].mean())

    assert gap(np.array([f"kind {row}" for row in rows])) > gap(np.full(200, "")) + 0.2


@pytest.mark.parametrize("by", ["copy", "kind"])
def test_few_pictures_are_left_as_they_are(by: str) -> None:
    embeddings = unit(np.random.default_rng(0).normal(size=(3, 16)))
    projection = fit_projection(embeddings, np.array(["a", "a", "b"]), by)
    np.testing.assert_allclose(projection(embeddings), embeddings, atol=1e-6)


def test_an_index_knows_where_its_pictures_are(tmp_path: Path) -> None:
    opened = make(tmp_path / "i", np.eye(2, 8, dtype=np.float32))
    assert opened.path_of(opened.pictures[1]) == Path("/photos/folder/1.jpg")
    assert list(opened.pictures) == opened.pictures[:] == pictures(2)


def test_a_generation_is_replaced_whole(tmp_path: Path) -> None:
    make(tmp_path / "i", np.eye(2, 8, dtype=np.float32))
    (tmp_path / "i" / ".generation-000007.tmp-1-ab").mkdir()  # what a killed process left
    assert len(make(tmp_path / "i", np.eye(3, 8, dtype=np.float32)).pictures) == 3
    assert sorted(path.name for path in (tmp_path / "i").iterdir()) == ["generation-000002", "index.json"]


def test_a_changed_model_is_noticed(tmp_path: Path) -> None:
    opened = make(tmp_path / "i", np.eye(2, 8, dtype=np.float32))
    opened.check_model(embedder("abc"))
    with pytest.raises(SearchIndexError, match="whose weights are now others"):
        opened.check_model(embedder("def"))


def test_a_threshold_is_kept(tmp_path: Path) -> None:
    make(tmp_path / "i", np.eye(2, 8, dtype=np.float32)).with_threshold("copy", 0.7)
    assert SearchIndex.open(tmp_path / "i").info.thresholds == {"copy": 0.7}


FILES = ["index.json", "*/embeddings.npy", "*/pictures.parquet", "*/copy.npz", "*/copy.npy", "*/kind.npy"]


@pytest.mark.parametrize("file", FILES)
def test_a_missing_or_damaged_part_is_named(tmp_path: Path, file: str) -> None:
    make(tmp_path / "i", np.eye(3, 8, dtype=np.float32))
    (part,) = (tmp_path / "i").glob(file)
    part.write_bytes(part.read_bytes()[: len(part.read_bytes()) // 2])
    with pytest.raises(SearchIndexError, match="damaged"):
        SearchIndex.open(tmp_path / "i")
    part.unlink()
    with pytest.raises(SearchIndexError, match="no index|damaged"):
        SearchIndex.open(tmp_path / "i")
