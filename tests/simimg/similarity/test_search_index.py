"""Nearest vectors against a float64 reference, projections, and an index folder that is whole or refused."""

import dataclasses
import errno
import os
import tracemalloc
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simimg import determinism
from simimg.determinism import one_blas_thread
from simimg.errors import SearchIndexError, UsageError
from simimg.similarity import compressed_vectors, nearest_neighbors, search_index
from simimg.similarity.embeddings import Embedder
from simimg.similarity.image_table import IndexedImage
from simimg.similarity.index_info import locked_index
from simimg.similarity.projection import fit_projection
from simimg.similarity.search_index import SearchIndex, write_generation
from tfrecords.convert.sources import printable


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def embedder(fingerprint: str = "abc", dim: int = 8) -> Embedder:
    return Embedder("lite0", fingerprint, 224, "stretch", dim, None)


def pictures(count: int) -> list[IndexedImage]:
    return [
        IndexedImage(path=f"folder/{number}.jpg", sha256=f"{number:064x}", width=10, height=20, label="folder")
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
        patch.setattr(nearest_neighbors, "_BLOCK_ROWS", block)
        values, rows = nearest_neighbors.nearest(vectors, queries, k)
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
        patch.setattr(nearest_neighbors, "_BLOCK_ROWS", block)
        patch.setattr(nearest_neighbors, "_SMALL_PRODUCT", small)
        patch.setattr(nearest_neighbors, "num_cores", lambda: num_threads)
        values, rows = nearest_neighbors.nearest(vectors, queries, k)
    exact = (queries.astype(np.float64) @ vectors.astype(np.float64).T).max(axis=1)
    order = np.argsort(-exact, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(rows, order)
    np.testing.assert_array_equal(values, np.take_along_axis(exact, order, 1))
    assert values.dtype == np.float32
    assert rows.dtype == np.int64


@pytest.mark.parametrize("num_vectors", [130, 999, 1001])
def test_the_same_vectors_are_equally_near_anywhere(num_vectors: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest_neighbors, "_BLOCK_ROWS", 256)
    rng = np.random.default_rng(0)
    copies = np.repeat(unit(rng.normal(size=(1, 256))), num_vectors, axis=0)
    for num_queries in (1, 6, 7, 17, 33, 40, 300):
        values, rows = nearest_neighbors.nearest(copies, unit(rng.normal(size=(num_queries, 1, 256))), num_vectors)
        assert (rows == np.arange(num_vectors)).all()
        assert np.ptp(values, axis=1).max() == 0


def test_products_have_one_thread_until_the_last_one_leaves() -> None:
    def num_threads() -> int:
        (blas,) = {one["num_threads"] for one in determinism._blas().info() if one["internal_api"] == "openblas"}
        return int(blas)

    before = num_threads()
    first, second = one_blas_thread(), one_blas_thread()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert num_threads() == 1
    second.__exit__(None, None, None)
    assert num_threads() == before


def test_equal_similarities_come_in_the_order_of_the_index(tmp_path: Path) -> None:
    embeddings = np.repeat(np.eye(1, 8, dtype=np.float32), 5, axis=0)
    found = make(tmp_path / "i", embeddings).search(embeddings[:1], 5)[0]
    assert [match.image.path for match in found] == [f"folder/{number}.jpg" for number in range(5)]
    assert [match.row for match in found] == [0, 1, 2, 3, 4]


def test_compressed_vectors_find_what_an_exact_search_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    monkeypatch.setattr("simimg.similarity.search_index.EXACT_UP_TO", 100)
    centers = rng.normal(size=(20, 16))
    embeddings = unit(centers[rng.integers(20, size=3000)] + rng.normal(size=(3000, 16)) * 0.3)
    index = make(tmp_path / "i", embeddings)
    assert set(index.compressed) == {"copy", "kind"}
    assert index.compressed["copy"].recall >= 0.99
    assert index.info.cells["copy"]["recall"] == index.compressed["copy"].recall
    queries = embeddings[:50, None]
    projected = index.projections["copy"](queries)
    values, rows = index.nearest_vectors(projected, 10)
    exact_values, exact_rows = nearest_neighbors.nearest(index.vectors["copy"], projected, 10)
    hits = [len(np.intersect1d(ours, theirs)) for ours, theirs in zip(rows, exact_rows, strict=True)]
    assert np.mean(hits) >= 9.5
    np.testing.assert_allclose(values[:, 0], exact_values[:, 0], atol=1e-5)
    assert all(len(set(row)) == 10 for row in rows.tolist())


def test_several_views_of_a_query_find_a_vector_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simimg.similarity.search_index.EXACT_UP_TO", 10)
    embeddings = unit(np.random.default_rng(0).normal(size=(500, 8)))
    index = make(tmp_path / "i", embeddings)
    _, rows = index.nearest_vectors(index.projections["copy"](embeddings[None, [3, 3, 7]]), 5)
    assert {3, 7} <= set(rows[0].tolist())
    assert len(set(rows[0].tolist())) == 5


@pytest.mark.parametrize("compressed", [False, True])
def test_more_copies_than_are_proposed_at_once(compressed: bool, tmp_path: Path) -> None:
    """Hundreds of equal vectors, and a few that are nearer by less than a product may be off."""
    rng = np.random.default_rng(0)
    vectors = unit(rng.normal(size=(900, 64)))
    query = vectors[0]
    vectors[5:600] = unit(query + vectors[1] * 0.5)
    vectors[[17, 450]] = unit(query + vectors[1] * 0.499999)
    find = (
        compressed_vectors.build_compressed(vectors, tmp_path / "c").nearest
        if compressed
        else partial(nearest_neighbors.nearest, vectors)
    )
    for views in (query[None, None], unit(rng.normal(size=(1, 3, 64)) * 1e-3 + query)):
        values, rows = find(views, 12)
        similarities = (vectors.astype(np.float64) @ views[0].astype(np.float64).T).max(axis=1).astype(np.float32)
        expected = np.lexsort((np.arange(900), -similarities))[:12]
        np.testing.assert_array_equal(rows[0], expected)
        np.testing.assert_allclose(values[0], similarities[expected], rtol=2**-23)
    assert rows[0, 0] == 0


def test_a_query_that_finds_little_takes_nothing_from_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More vectors are proposed where those that are proposed first hold too few of the chosen ones."""
    monkeypatch.setattr(compressed_vectors, "EXACT_UP_TO", 0)
    rng = np.random.default_rng(0)
    vectors = unit(rng.normal(size=(4000, 16)) + np.eye(1, 16) * np.where(np.arange(4000) < 3000, 3, -3)[:, None])
    built = dataclasses.replace(compressed_vectors.build_compressed(vectors, tmp_path / "c"), num_compared=40)
    among = np.arange(4000) % 8 == 0
    among[3000:] = True  # far from the queries of the first half
    queries = np.concatenate([vectors[:20], vectors[-20:]])[:, None]
    values, rows = built.nearest(queries, 10, among)
    assert rows.shape == (40, 10)
    assert among[rows].all()
    exact = nearest_neighbors.nearest(vectors, queries, 10, among)[1]
    assert np.mean([len(np.intersect1d(*pair)) for pair in zip(exact, rows, strict=True)]) >= 9
    for query in range(40):
        own_values, own_rows = built.nearest(queries[query : query + 1], 10, among)
        np.testing.assert_array_equal(own_rows[0], rows[query])
        np.testing.assert_array_equal(own_values[0], values[query])
    assert built.nearest(queries[:2], 5, np.zeros(4000, bool))[1].shape == (2, 0)


@given(
    num_chosen=st.integers(0, 700),
    num_queries=st.integers(1, 8),
    num_views=st.integers(1, 3),
    k=st.integers(1, 40),
    num_compared=st.sampled_from([1, 20, 100]),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=60)
def test_a_search_among_given_rows_is_as_exact_as_in_memory(
    compressed: compressed_vectors.CompressedVectors,
    num_chosen: int,
    num_queries: int,
    num_views: int,
    k: int,
    num_compared: int,
    seed: int,
) -> None:
    """The nearest of the given rows may be far away, and one query in a call has nothing to do with the others."""
    rng = np.random.default_rng(seed)
    among = np.zeros(700, bool)
    among[rng.permutation(700)[:num_chosen]] = True
    queries = unit(rng.normal(size=(num_queries, num_views, 8)))
    built = dataclasses.replace(compressed, num_compared=num_compared)
    values, rows = built.nearest(queries, k, among)
    exact_values, exact_rows = nearest_neighbors.nearest(built.vectors, queries, k, among)
    np.testing.assert_array_equal(rows, exact_rows)
    np.testing.assert_array_equal(values, exact_values)
    together = built.nearest(queries, k)
    for query in range(num_queries):
        for ours, theirs in zip(built.nearest(queries[query : query + 1], k), together, strict=True):
            np.testing.assert_array_equal(ours[0], theirs[query])


@pytest.fixture(scope="module")
def compressed(tmp_path_factory: pytest.TempPathFactory) -> compressed_vectors.CompressedVectors:
    """700 vectors without any order."""
    vectors = unit(np.random.default_rng(0).normal(size=(700, 8)))
    return compressed_vectors.build_compressed(vectors, tmp_path_factory.mktemp("compressed") / "c")


def test_compressed_vectors_have_the_same_bytes_with_any_number_of_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import faiss

    rng = np.random.default_rng(0)
    centers = rng.normal(size=(60, 16))
    vectors = unit(centers[rng.integers(60, size=3000)] + rng.normal(size=(3000, 16)) * 0.5)
    num_threads, built = faiss.omp_get_max_threads(), []
    monkeypatch.setattr(compressed_vectors, "_CODED_ROWS", 700)
    for count in (1, 3):
        monkeypatch.setattr(compressed_vectors, "num_cores", partial(int, count))
        faiss.omp_set_num_threads(count)
        built.append(compressed_vectors.build_compressed(vectors, tmp_path / str(count)))
    faiss.omp_set_num_threads(num_threads)
    assert (tmp_path / "1").read_bytes() == (tmp_path / "3").read_bytes()
    assert (tmp_path / "1").stat().st_size < vectors.nbytes / 10
    assert built[0].num_compared == built[1].num_compared
    assert built[0].recall == built[1].recall >= 0.98
    queries = unit(vectors[::30] + rng.normal(size=(100, 16)) * 0.05)[:, None]
    _, exact = nearest_neighbors.nearest(vectors, queries, 10)
    _, found = built[0].nearest(queries, 10)
    assert np.mean([len(np.intersect1d(*pair)) for pair in zip(exact, found, strict=True)]) >= 9.6


@pytest.mark.parametrize("dim", [5, 6, 8])
def test_codes_are_those_of_the_nearest_levels(dim: int, tmp_path: Path) -> None:
    """faiss decodes each number to one of four levels, and none is off by more than half a step, but at the ends."""
    vectors = unit(np.random.default_rng(0).normal(size=(2000, dim)) + np.arange(dim))
    built = compressed_vectors.build_compressed(vectors, tmp_path / "c")
    decoded = built.faiss_index.reconstruct_n(0, 2000)
    mean, deviation = vectors.mean(axis=0), vectors.std(axis=0)
    levels = mean + deviation * np.array([-1.510, -0.4528, 0.4528, 1.510])[:, None]
    expected = np.abs(vectors[None] - levels[:, None]).argmin(axis=0)
    agree = np.isclose(decoded, np.take_along_axis(levels, expected, axis=0), atol=1e-3)
    assert agree.mean() > 0.995  # at the borders, roundings differ


def test_an_index_of_an_earlier_version_has_whole_vectors_in_its_cells(tmp_path: Path) -> None:
    import faiss

    vectors = unit(np.random.default_rng(0).normal(size=(900, 16)))
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(16), 16, 30, faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    index.add(vectors)
    faiss.write_index(index, str(tmp_path / "copy.faiss"))
    cells = compressed_vectors.open_compressed(tmp_path / "copy.faiss", vectors, {"num_probed": 30, "recall": 1.0})
    for ours, theirs in zip(
        cells.nearest(vectors[:20, None], 10), nearest_neighbors.nearest(vectors, vectors[:20, None], 10), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_any_mixture_of_queries_finds_by_codes_what_it_finds_in_memory(tmp_path: Path) -> None:
    """Queries in the middle of clusters, beside one that is far from everything."""
    rng = np.random.default_rng(0)
    centers = unit(rng.normal(size=(20, 16)) + 4 * np.eye(1, 16))
    vectors = unit(np.repeat(centers, 50, axis=0) + rng.normal(size=(1000, 16)) * 0.01)
    built = compressed_vectors.build_compressed(vectors, tmp_path / "c")
    queries = np.concatenate([centers[:10], -centers.mean(axis=0, keepdims=True), centers[10:]])[:, None]
    near = np.arange(21) != 10
    values, rows = built.nearest(queries, 10)
    exact_values, exact_rows = nearest_neighbors.nearest(vectors, queries, 10)
    np.testing.assert_array_equal(rows[near], exact_rows[near])
    np.testing.assert_array_equal(values[near], exact_values[near])
    np.testing.assert_array_equal(rows[10], built.nearest(queries[10:11], 10)[1][0])


@pytest.mark.parametrize("num_views", [1, 3])
def test_many_matches_of_many_queries_take_little_memory(num_views: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their vectors together have 98 MB in float64; one block of them has 4."""
    monkeypatch.setattr(nearest_neighbors, "num_cores", lambda: 1)
    rng = np.random.default_rng(0)
    vectors, queries = unit(rng.normal(size=(1000, 256))), unit(rng.normal(size=(60, num_views, 256)))
    nearest_neighbors.nearest(vectors, queries[:1], 2)  # what is made once
    tracemalloc.start()
    blocks = nearest_neighbors.nearest(vectors, queries, 800)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 30 << 20
    monkeypatch.setattr(nearest_neighbors, "_BLOCK_VALUES", 1 << 30)
    for ours, theirs in zip(blocks, nearest_neighbors.nearest(vectors, queries, 800), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_projections_center_and_whiten() -> None:
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
    assert opened.path_of(opened.images[1]) == Path("/photos/folder/1.jpg")
    assert list(opened.images) == opened.images[:] == pictures(2)


def test_a_generation_is_replaced_whole(tmp_path: Path) -> None:
    make(tmp_path / "i", np.eye(2, 8, dtype=np.float32))
    (tmp_path / "i" / ".generation-000007.tmp-1-ab").mkdir()  # what a killed process left
    assert len(make(tmp_path / "i", np.eye(3, 8, dtype=np.float32)).images) == 3
    assert sorted(path.name for path in (tmp_path / "i").iterdir()) == ["generation-000002", "index.json"]


def test_a_changed_model_is_noticed(tmp_path: Path) -> None:
    opened = make(tmp_path / "i", np.eye(2, 8, dtype=np.float32))
    opened.check_model(embedder("abc"))
    with pytest.raises(SearchIndexError, match="whose weights have changed since"):
        opened.check_model(embedder("def"))


def test_a_threshold_is_kept(tmp_path: Path) -> None:
    make(tmp_path / "i", np.eye(2, 8, dtype=np.float32)).with_thresholds(copy=0.7)
    assert SearchIndex.open(tmp_path / "i").info.thresholds == {"copy": 0.7}


def test_a_threshold_of_an_index_that_was_updated_since_is_not_stored(tmp_path: Path) -> None:
    """It was measured on other images; and index.json would name a generation that is gone."""
    before = make(tmp_path / "i", np.eye(2, 8, dtype=np.float32))
    make(tmp_path / "i", np.eye(3, 8, dtype=np.float32))
    with pytest.raises(SearchIndexError, match="was updated after it was opened.*simimg calibrate"):
        before.with_thresholds(copy=0.7)
    now = SearchIndex.open(tmp_path / "i")
    assert (len(now.images), now.info.thresholds) == (3, {})
    with locked_index(tmp_path / "i"), pytest.raises(UsageError, match=f"pid {os.getpid()}.*is writing"):
        now.with_thresholds(copy=0.7)
    assert now.with_thresholds(copy=0.7).with_thresholds(pairs=0.8).info.thresholds == {"copy": 0.7, "pairs": 0.8}
    assert before.search(np.eye(1, 8, dtype=np.float32), 1)[0][0].row == 0


def test_pairs_have_a_threshold_of_their_own(tmp_path: Path) -> None:
    index = make(tmp_path / "i", np.eye(2, 8, dtype=np.float32))
    assert index.copy_threshold == 0.9
    index = index.with_thresholds(copy=0.6)  # all that an older index has
    assert index.copy_threshold == 0.6
    assert index.with_thresholds(pairs=0.75).copy_threshold == 0.75


FILES = ["index.json", "*/embeddings.npy", "*/images.arrow", "*/copy.npz", "*/copy.npy", "*/kind.npy"]
COMPRESSED = ["*/copy.faiss", "*/kind.faiss"]


@pytest.mark.parametrize("file", [*FILES, *COMPRESSED])
@pytest.mark.parametrize("damage", ["half", "empty", "text", "other", "missing"])
def test_a_missing_or_damaged_part_is_named(
    tmp_path: Path, file: str, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message says which file, and what to do; nothing else is raised, and nothing is found in half a file."""
    if file in COMPRESSED:
        monkeypatch.setattr("simimg.similarity.search_index.EXACT_UP_TO", 40)
    embeddings = unit(np.random.default_rng(0).normal(size=(50, 8)))
    make(tmp_path / "i", embeddings)
    make(tmp_path / "other", embeddings[:45])
    (part,) = (tmp_path / "i").glob(file)
    (other,) = (tmp_path / "other").glob(file)
    whole = part.read_bytes()
    if damage == "missing":
        part.unlink()
    else:
        part.write_bytes(
            {"half": whole[: len(whole) // 2], "empty": b"", "text": b"<html>", "other": other.read_bytes()}[damage]
        )
    if (file, damage) == ("*/copy.npz", "other"):  # a mean of as many numbers: it cannot be known to be another
        SearchIndex.open(tmp_path / "i")
        return
    with pytest.raises(SearchIndexError) as raised:
        SearchIndex.open(tmp_path / "i")
    message = str(raised.value)
    assert "simimg index" in message
    if (file, damage) == ("index.json", "missing"):
        assert "it has no index.json" in message
    elif (file, damage) == ("index.json", "other"):
        assert "it should be float16 [45, network_dim], but is float16 [50, 8]" in message
    else:
        assert message.startswith(f"{part} is damaged: ")
        assert f"Remove the folder {tmp_path / 'i'}" in message
        assert ".." not in message
    if damage == "missing" and file != "index.json":
        assert "is damaged: it is missing" in message


@pytest.mark.parametrize("step", ["parse_json", "np.load", "ImageTable.open"])
@pytest.mark.parametrize("code", [errno.EIO, errno.EACCES, errno.EMFILE, errno.ESTALE])
def test_a_fault_of_the_disk_is_no_damage(
    tmp_path: Path, step: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is told to remove an index that may be whole."""
    make(tmp_path / "i", np.eye(3, 8, dtype=np.float32))

    def fail(*arguments: object, **options: object) -> None:
        raise OSError(code, os.strerror(code))

    target, _, name = step.rpartition(".")
    with monkeypatch.context() as patch:
        patch.setattr(getattr(search_index, target) if target else search_index, name, fail)
        with pytest.raises(SearchIndexError) as raised:
            SearchIndex.open(tmp_path / "i")
    message = str(raised.value)
    assert message.startswith(str(tmp_path / "i"))
    assert message.endswith(f" cannot be read: {os.strerror(code)}. It may be undamaged: try again.")
    assert len(SearchIndex.open(tmp_path / "i").images) == 3


def test_damaged_offsets_in_an_archive_are_damage(tmp_path: Path) -> None:
    """They lead before the start of the file, where the system does not seek."""
    make(tmp_path / "i", np.eye(3, 8, dtype=np.float32))
    (part,) = (tmp_path / "i").glob("*/copy.npz")
    data = bytearray(part.read_bytes())
    data[-6:-2] = (int.from_bytes(data[-6:-2], "little") + 100).to_bytes(4, "little")  # of the central directory
    part.write_bytes(data)
    with pytest.raises(SearchIndexError, match=r"copy\.npz is damaged: "):
        SearchIndex.open(tmp_path / "i")


def test_a_flipped_bit_in_the_rows_is_noticed(tmp_path: Path) -> None:
    make(tmp_path / "i", unit(np.random.default_rng(0).normal(size=(500, 8))))
    (part,) = (tmp_path / "i").glob("*/images.arrow")
    data = bytearray(part.read_bytes())
    for place in range(200, len(data) // 2, 400):
        data[place] ^= 1
    part.write_bytes(bytes(data))
    with pytest.raises(SearchIndexError, match=r"images\.arrow is damaged"):
        SearchIndex.open(tmp_path / "i")


def test_opening_while_another_process_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The generation that index.json named is removed before its files are opened: then the next one is."""
    make(tmp_path / "i", np.eye(2, 8, dtype=np.float32))
    opened = search_index._opened
    seen = []

    def overtaken(index_dir: Path, info: search_index.IndexInfo) -> SearchIndex:
        seen.append(info.generation)
        if len(seen) == 1:
            monkeypatch.setattr(search_index, "_opened", opened)
            make(index_dir, np.eye(3, 8, dtype=np.float32))
            monkeypatch.setattr(search_index, "_opened", overtaken)
        return opened(index_dir, info)

    monkeypatch.setattr(search_index, "_opened", overtaken)
    assert len(SearchIndex.open(tmp_path / "i").images) == 3
    assert seen == [1, 2]


def test_an_open_index_outlives_its_files(tmp_path: Path) -> None:
    embeddings = unit(np.random.default_rng(0).normal(size=(20, 8)))
    before = make(tmp_path / "i", embeddings)
    make(tmp_path / "i", embeddings[::-1])
    assert not (tmp_path / "i" / "generation-000001").exists()
    assert before.search(embeddings[5:6], 1)[0][0].row == 5


def test_a_full_disk_leaves_the_index_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "i", np.eye(2, 8, dtype=np.float32))

    def full(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for step in ("np.savez", "ImageTable.write", "_write_vectors", "_write_info"):
        target, _, name = step.rpartition(".")
        with monkeypatch.context() as patch:
            patch.setattr(getattr(search_index, target) if target else search_index, name, full)
            with pytest.raises(SearchIndexError, match="cannot be written.*No space left on device.*Free some disk"):
                make(tmp_path / "i", np.eye(3, 8, dtype=np.float32))
        assert len(SearchIndex.open(tmp_path / "i").images) == 2
    assert len(make(tmp_path / "i", np.eye(3, 8, dtype=np.float32)).images) == 3
    assert len(list((tmp_path / "i").iterdir())) == 2


def test_one_picture(tmp_path: Path) -> None:
    opened = make(tmp_path / "i", np.eye(1, 8, dtype=np.float32))
    for by in ("copy", "kind"):
        assert [match.row for match in opened.search(np.eye(1, 8, dtype=np.float32), 5, by)[0]] == [0]


@given(num_vectors=st.integers(1, 60), k=st.integers(1, 70), block=st.integers(1, 70), share=st.floats(0, 1))
@settings(deadline=None, max_examples=40)
def test_only_chosen_rows_are_looked_at(num_vectors: int, k: int, block: int, share: float) -> None:
    rng = np.random.default_rng(num_vectors * 1000 + k)
    vectors, queries = unit(rng.normal(size=(num_vectors, 8))), unit(rng.normal(size=(2, 3, 8)))
    among = rng.random(num_vectors) < share
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nearest_neighbors, "_BLOCK_ROWS", block)
        values, rows = nearest_neighbors.nearest(vectors, queries, k, among)
    expected_values, expected = nearest_neighbors.nearest(vectors[among], queries, k)
    np.testing.assert_array_equal(rows, np.flatnonzero(among)[expected])
    np.testing.assert_allclose(values, expected_values, atol=1e-6)


def test_compressed_vectors_look_at_chosen_rows_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simimg.similarity.search_index.EXACT_UP_TO", 10)
    embeddings = unit(np.random.default_rng(0).normal(size=(700, 8)))
    opened = make(tmp_path / "i", embeddings)
    among = np.arange(700) % 7 == 3
    _, rows = opened.nearest_vectors(embeddings[:20, None], 3, among=among)
    assert among[rows].all()
    _, everywhere = opened.nearest_vectors(embeddings[:20, None], 1)
    np.testing.assert_array_equal(everywhere[:, 0], np.arange(20))


def test_a_name_that_is_no_utf8_is_found(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    name = os.fsdecode(b"gr\xfcn.jpg")
    (tmp_path / "p" / name).touch()
    (tmp_path / "p" / r"odd\xfc.jpg").touch()  # it is called so
    rows = [
        IndexedImage(path=path, sha256=path, width=1, height=1)
        for path in (printable(name), r"odd\xfc.jpg", "gone.jpg")
    ]
    opened = write_generation(tmp_path / "i", embedder(), np.eye(3, 8), rows, image_dir=tmp_path / "p")
    assert rows[0].path == r"gr\xfcn.jpg"
    assert [opened.path_of(picture).name for picture in opened.images] == [name, r"odd\xfc.jpg", "gone.jpg"]
    assert opened.path_of(opened.images[0]).exists()


@pytest.mark.parametrize("among", [None, "few", "most"])
def test_an_index_that_is_opened_once_finds_the_same(tmp_path: Path, among: str | None) -> None:
    vectors = unit(np.random.default_rng(0).normal(size=(20_000, 8)))
    index = make(tmp_path / "i", vectors)
    chosen = (
        None if among is None else np.random.default_rng(1).uniform(size=20_000) < (0.05 if among == "few" else 0.9)
    )
    queries = unit(np.random.default_rng(2).normal(size=(3, 4, 8)))
    expected = index.nearest_vectors(queries, 7, among=chosen)
    found = dataclasses.replace(index, once=True).nearest_vectors(queries, 7, among=chosen)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
