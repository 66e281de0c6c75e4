"""Files become embeddings in their order, and what cannot be decoded is refused by name."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from simimg.errors import ModelError, UsageError
from simimg.search import embed_files, embeddings, load_embedder
from tfrecords.convert.images import decode, resize


@pytest.fixture(scope="module")
def lite0() -> embeddings.Embedder:
    return load_embedder("lite0")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for number in range(5):
        coarse = Image.fromarray(rng.integers(0, 256, (6, 5, 3), np.uint8))
        coarse.resize((200 + number, 240), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    (folder / "broken.jpg").write_bytes(b"<html>no picture</html>")
    return folder


def test_embeddings_are_unit_vectors_in_the_order_of_the_files(folder: Path, lite0: embeddings.Embedder) -> None:
    paths = ["0.png", "1.png", "broken.jpg", "2.png", "missing.png", "3.png", "4.png"]
    done: list[int] = []
    embedded = embed_files(lite0, paths, folder, progress=done.append)
    assert [file.path for file in embedded.files] == ["0.png", "1.png", "2.png", "3.png", "4.png"]
    assert [(path, refusal.reason) for path, refusal in embedded.refused] == [
        ("broken.jpg", "text"),
        ("missing.png", "unreadable"),
    ]
    assert (embedded.files[3].width, embedded.files[3].height) == (203, 240)
    assert sum(done) == len(paths)
    assert embedded.embeddings.shape == (5, 1280)
    np.testing.assert_allclose(np.linalg.norm(embedded.embeddings, axis=1), 1, atol=1e-5)
    pixels = resize(decode((folder / "2.png").read_bytes()), 224, "stretch")
    np.testing.assert_allclose(embedded.embeddings[2], lite0.embed(pixels[None])[0], atol=1e-5)


def test_mirrored_views(folder: Path, lite0: embeddings.Embedder) -> None:
    embedded = embed_files(lite0, ["1.png"], folder, mirrored=True)
    assert embedded.embeddings.shape == (1, 2, 1280)
    pixels = resize(decode((folder / "1.png").read_bytes()), 224, "stretch")
    np.testing.assert_allclose(embedded.embeddings[0, 1], lite0.embed(pixels[None, :, ::-1])[0], atol=1e-5)


def test_nothing_to_embed(lite0: embeddings.Embedder) -> None:
    assert embed_files(lite0, []).embeddings.shape == (0, 1280)


def test_pixels_of_another_size_are_resized(lite0: embeddings.Embedder) -> None:
    coarse = Image.fromarray(np.random.default_rng(0).integers(0, 256, (4, 4, 3), np.uint8))
    large = coarse.resize((448, 448), Image.Resampling.BICUBIC)
    half = large.resize((224, 224), Image.Resampling.BILINEAR)
    similarity = lite0.embed(np.asarray(large)[None])[0] @ lite0.embed(np.asarray(half)[None])[0]
    assert similarity > 0.97


def test_a_model_that_is_neither_shipped_nor_trained(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="neither a folder"):
        load_embedder("resnet9000")
    with pytest.raises(ModelError, match="no folder of a trained model"):
        load_embedder(str(tmp_path))
