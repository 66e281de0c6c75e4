"""An export is the index's vectors, rows and projection, whole, in files that other programs open."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from simimg.cli import main
from simimg.errors import UsageError
from simimg.similarity import index_export
from simimg.similarity.embeddings import Embedder
from simimg.similarity.image_table import IndexedImage
from simimg.similarity.index_export import EXPORT_FORMATS, export_index
from simimg.similarity.search_index import SearchIndex, write_generation

COUNT, DIM = 300, 96


def make(folder: Path, count: int = COUNT, dim: int = DIM) -> SearchIndex:
    rng = np.random.default_rng(count)
    centers = rng.normal(size=(20, dim))
    embeddings = centers[rng.integers(20, size=count)] + 0.3 * rng.normal(size=(count, dim))
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    pictures = [
        IndexedImage(
            path=f"{'ab'[number % 2]}/ä {number}.jpg", sha256=f"{number:064x}", width=9, height=9,
            label="ab"[number % 2], split=("train", "test")[number % 3 == 0],
        )
        for number in range(count)
    ]  # fmt: skip
    embedder = Embedder("lite0", "abc", 224, "stretch", dim, None)
    return write_generation(folder, embedder, embeddings.astype(np.float32), pictures, image_dir=Path("/photos"))


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> SearchIndex:
    return make(tmp_path_factory.mktemp("index") / "i")


def rows_of(path: Path) -> list[dict]:
    return pq.read_table(path, columns=["id", "path", "sha256", "label", "split"]).to_pylist()


@pytest.mark.parametrize("by", ["copy", "kind"])
@pytest.mark.parametrize("format", EXPORT_FORMATS)
def test_vectors_and_rows_arrive(
    index: SearchIndex, tmp_path: Path, format: str, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_export, "_BLOCK_ROWS", 128)
    info = export_index(index, tmp_path / "out", format=format, by=by)
    expected = np.array(index.vectors[by])
    if format == "npy":
        found = np.load(tmp_path / "out" / "vectors.npy")
    elif format == "parquet":
        column = pq.read_table(tmp_path / "out" / "pictures.parquet")["vector"]
        assert pa.types.is_fixed_size_list(column.type)
        assert (column.type.list_size, column.type.value_type) == (expected.shape[1], pa.float32())
        found = np.concatenate([chunk.flatten().to_numpy() for chunk in column.chunks]).reshape(expected.shape)
    else:
        import faiss

        opened = faiss.read_index(str(tmp_path / "out" / "index.faiss"))
        assert opened.metric_type == faiss.METRIC_INNER_PRODUCT
        found = opened.reconstruct_batch(np.arange(COUNT))
        similarities, ids = opened.search(expected[:5], 3)
        own, theirs = index.nearest_vectors(expected[:5, None], 3, by)
        np.testing.assert_array_equal(ids, theirs)
        np.testing.assert_allclose(similarities, own, atol=1e-5)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)
    rows = rows_of(tmp_path / "out" / ("pictures.parquet" if format == "parquet" else "rows.parquet"))
    assert [row.pop("id") for row in rows] == list(range(COUNT))
    assert rows == [
        {name: getattr(picture, name) for name in ("path", "sha256", "label", "split")} for picture in index.images
    ]
    assert json.loads((tmp_path / "out" / "export.json").read_text()) == info
    assert (info["dim"], info["num_images"], info["by"], info["model"]) == (*expected.shape[::-1], by, "lite0")


@pytest.mark.parametrize("by", ["copy", "kind"])
@pytest.mark.parametrize("count", [10, COUNT])
def test_the_projection_makes_a_query_of_an_embedding(tmp_path: Path, by: str, count: int) -> None:
    """The lines of simimg/docs/search.md, against the index's own search."""
    index = make(tmp_path / "i", count)
    export_index(index, tmp_path / "out", format="npy", by=by)
    embeddings = np.float32(index.embeddings[[3, 7]])
    projection = np.load(tmp_path / "out" / "projection.npz")
    queries = (embeddings - projection["mean"]) @ projection["matrix"]
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    similarities = (queries @ np.load(tmp_path / "out" / "vectors.npy").T).max(axis=0)
    values, rows = index.nearest_vectors(index.projections[by](embeddings[None]), 4, by)
    np.testing.assert_allclose(np.sort(similarities)[::-1][:4], values[0], atol=1e-5)
    np.testing.assert_allclose(similarities[rows[0]], values[0], atol=1e-5)  # 3 and 7 are equally near themselves


def test_compressed_vectors_are_exported_with_those_that_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import faiss

    monkeypatch.setattr("simimg.similarity.search_index.EXACT_UP_TO", 100)
    index = make(tmp_path / "i", 2000)
    compressed = dataclasses.replace(index.compressed["copy"], num_compared=64)
    index = dataclasses.replace(index, compressed={**index.compressed, "copy": compressed})
    info = export_index(index, tmp_path / "out", format="faiss", by="copy")
    opened = faiss.read_index(str(tmp_path / "out" / "index.faiss"))
    assert (opened.ntotal, info["num_compared"], opened.k_factor) == (2000, 64, 7)
    vectors = np.array(index.vectors["copy"][:40])
    similarities, ids = opened.search(vectors, 10)
    values, rows = compressed.nearest(vectors[:, None], 10)
    np.testing.assert_array_equal(ids[:, 0], np.arange(40))
    assert (ids == rows).mean() > 0.9  # that are equally near by their codes may differ
    np.testing.assert_allclose(similarities, np.sort(similarities)[:, ::-1])
    np.testing.assert_allclose(similarities[:, 0], values[:, 0], atol=1e-5)
    assert len(SearchIndex.open(tmp_path / "i").images) == 2000


def test_nothing_is_overwritten_unasked(index: SearchIndex, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export_index(index, out, format="npy", by="copy")
    with pytest.raises(UsageError, match="already has an export. Name a new folder, or add --overwrite"):
        export_index(index, out, format="parquet", by="copy")
    export_index(index, out, format="parquet", by="copy", overwrite=True)
    assert sorted(path.name for path in out.iterdir()) == ["export.json", "pictures.parquet", "projection.npz"]
    (out / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"has notes\.txt beside its export"):
        export_index(index, out, format="parquet", by="copy", overwrite=True)
    assert (out / "notes.txt").read_text() == "mine"
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "years.txt").write_text("of work")
    for overwrite in (False, True):
        with pytest.raises(UsageError, match="is not empty and not an export"):
            export_index(index, tmp_path / "thesis", format="npy", by="copy", overwrite=overwrite)
        with pytest.raises(UsageError, match="is a file"):
            export_index(index, tmp_path / "thesis" / "years.txt", format="npy", by="copy", overwrite=overwrite)
    assert (tmp_path / "thesis" / "years.txt").read_text() == "of work"


def test_a_stopped_export_leaves_what_was_there(
    index: SearchIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_index(index, tmp_path / "out", format="npy", by="copy")

    def stop(path: Path, value: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(index_export, "write_json", stop)
    for out in ("out", "new"):
        with pytest.raises(KeyboardInterrupt):
            export_index(index, tmp_path / out, format="faiss", by="copy", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out" / "vectors.npy").exists()


def test_the_command(index: SearchIndex, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["export", f"--index_dir={index.index_dir}", "--format=parquet", "--by=kind"]
    assert main([*arguments, f"--out={tmp_path / 'out'}", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["files"] == ["export.json", "pictures.parquet", "projection.npz"]
    assert values["num_bytes"] == sum(path.stat().st_size for path in (tmp_path / "out").iterdir())
    for wrong, words in (
        ([], "name one thing to export"),
        (["--index_dir=i", "--model_dir=m", "--out=o"], "name one thing to export"),
        (["--index_dir=i"], "--out=PATH is required with --index_dir"),
        (["--index_dir=i", "--out=o", "--out_dir=d"], "--out_dir=d applies to --model_dir only"),
        (["--model_dir=m", "--out=o"], "--out applies to --index_dir only"),
        (["--model_dir=m", "--format=faiss"], "--format=faiss: a model can be exported as"),
        (["--index_dir=i", "--out=o", "--format=csv"], "for --format, got 'csv'"),
        ([f"--index_dir={tmp_path / 'nowhere'}", f"--out={tmp_path / 'o'}"], "nowhere is not a folder"),
        ([f"--index_dir={tmp_path}", f"--out={tmp_path / 'o'}"], "is not an index: it has no index.json"),
    ):
        assert main(["export", *wrong]) == (3 if str(tmp_path) in str(wrong) else 2)
        assert words in capsys.readouterr().err
