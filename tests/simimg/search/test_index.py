"""Exact search against a float64 reference, and an index folder that is whole or refused."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simimg.errors import SearchIndexError, UsageError
from simimg.search import Embedder, Picture, SearchIndex, index, write_index


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def embedder(fingerprint: str = "abc", dim: int = 8) -> Embedder:
    return Embedder("lite0", fingerprint, 224, "stretch", dim, None)


def pictures(count: int) -> list[Picture]:
    return [Picture(f"folder/{number}.jpg", f"{number:064x}", 10, 20, "folder") for number in range(count)]


def make(folder: Path, embeddings: np.ndarray) -> SearchIndex:
    write_index(folder, embedder(dim=embeddings.shape[1]), embeddings, pictures(len(embeddings)), Path("/photos"))
    return SearchIndex.open(folder)


@given(num_images=st.integers(1, 60), num_queries=st.integers(1, 4), k=st.integers(1, 70), block=st.integers(1, 70))
@settings(deadline=None, max_examples=30)
def test_search_equals_sorting_everything(
    tmp_path_factory: pytest.TempPathFactory, num_images: int, num_queries: int, k: int, block: int
) -> None:
    rng = np.random.default_rng(num_images * 1000 + k)
    embeddings, queries = unit(rng.normal(size=(num_images, 8))), unit(rng.normal(size=(num_queries, 8)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index, "_BLOCK_ROWS", block)
        found = make(tmp_path_factory.mktemp("index") / "i", embeddings).search(queries, k)
    exact = queries.astype(np.float64) @ embeddings.astype(np.float64).T
    for row, matches in enumerate(found):
        best = np.argsort(-exact[row])[:k]
        assert [match.picture.path for match in matches] == [f"folder/{number}.jpg" for number in best]
        np.testing.assert_allclose([match.similarity for match in matches], exact[row][best], atol=1e-6)


def test_the_closest_of_several_views_counts(tmp_path: Path) -> None:
    embeddings = np.eye(4, 8, dtype=np.float32)
    views = np.stack([embeddings[2], embeddings[0]])[None]
    first, second = make(tmp_path / "i", embeddings).search(views, 2)[0]
    assert {first.picture.path, second.picture.path} == {"folder/0.jpg", "folder/2.jpg"}
    assert first.similarity == second.similarity == 1.0


def test_equal_similarities_come_in_the_order_of_the_index(tmp_path: Path) -> None:
    embeddings = np.repeat(np.eye(1, 8, dtype=np.float32), 5, axis=0)
    found = make(tmp_path / "i", embeddings).search(embeddings[:1], 5)[0]
    assert [match.picture.path for match in found] == [f"folder/{number}.jpg" for number in range(5)]


def test_an_index_knows_where_its_pictures_are(tmp_path: Path) -> None:
    opened = make(tmp_path / "i", np.eye(2, 8, dtype=np.float32))
    assert opened.path_of(opened.pictures[1]) == Path("/photos/folder/1.jpg")
    assert opened.pictures == tuple(pictures(2))


def test_an_index_is_replaced_whole(tmp_path: Path) -> None:
    make(tmp_path / "i", np.eye(2, 8, dtype=np.float32))
    assert len(make(tmp_path / "i", np.eye(3, 8, dtype=np.float32)).pictures) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["i"]


def test_another_folder_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "i").mkdir()
    (tmp_path / "i" / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="no index and not empty"):
        make(tmp_path / "i", np.eye(2, 8, dtype=np.float32))
    assert (tmp_path / "i" / "thesis.txt").read_text() == "years of work"


def test_a_changed_model_is_noticed(tmp_path: Path) -> None:
    opened = make(tmp_path / "i", np.eye(2, 8, dtype=np.float32))
    opened.check_model(embedder("abc"))
    with pytest.raises(SearchIndexError, match="whose weights are now others"):
        opened.check_model(embedder("def"))


@pytest.mark.parametrize("file", ["index.json", "embeddings.npy", "pictures.parquet"])
def test_a_missing_or_damaged_part_is_named(tmp_path: Path, file: str) -> None:
    make(tmp_path / "i", np.eye(3, 8, dtype=np.float32))
    part = tmp_path / "i" / file
    part.write_bytes(part.read_bytes()[: len(part.read_bytes()) // 2])
    with pytest.raises(SearchIndexError, match="damaged"):
        SearchIndex.open(tmp_path / "i")
    part.unlink()
    with pytest.raises(SearchIndexError, match="no index|damaged"):
        SearchIndex.open(tmp_path / "i")
