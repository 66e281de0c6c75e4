"""A network for copies from the command line: trained without labels, reported, compared, exported, searched with."""

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from simimg import cli
from simimg.training import load_model
from tfrecords.convert.engine import convert
from tfrecords.convert.plan.convert_config import ConvertConfig

pytestmark = [pytest.mark.own_process, pytest.mark.usefixtures("augmented_as_on_a_gpu")]


@pytest.fixture(scope="module")
def dataset_dir(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of one class, at 16 px."""
    data_dir = tmp_path_factory.mktemp("data")
    config = ConvertConfig(image_dir=photos, data_dir=data_dir, image_size=16, num_workers=1, categories=("discs",))
    return convert(config).dataset_dir


@pytest.fixture(scope="module")
def model_dir(dataset_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    folder = tmp_path_factory.mktemp("runs") / "copies-s0"
    options = ["--model=tutorial", "--embedding_dim=16", "--epochs=3", "--global_batch_size=8", "--queue_size=32"]
    command = ["train", "--objective=similarity", f"--dataset_dir={dataset_dir}", f"--model_dir={folder}", *options]
    assert cli.main(command) == 0
    return folder


def values(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    capsys.readouterr()
    assert cli.main([*arguments, "--json"]) == 0
    found: dict = json.loads(capsys.readouterr().out)
    return found


def test_its_figures_are_called_what_they_are(
    model_dir: Path, dataset_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = json.loads((model_dir / "result.json").read_text())
    assert result["test_accuracy"] is None
    assert "accuracy" not in "".join(result["history"][-1])
    assert "test_mean_norm" in result["history"][-1]
    again = values(capsys, "train", "--config", str(model_dir / "config.json"), "--model_dir", str(model_dir))
    assert again["test_recall"] == result["test_recall"]
    assert not [key for key in again if "accuracy" in key]
    page = (model_dir / "report.html").read_text()
    assert "copy recall on 6 images of the test split" in page
    assert f"{100 * result['test_recall']:.1f}".replace("100.0", "100.0") + "<small>" in page
    assert "Copy recall" in page
    assert "of 1 class" in page
    assert "Confusion" not in page

    figures = values(capsys, "evaluate", f"--dataset_dir={dataset_dir}", f"--model_dir={model_dir}")
    assert figures["recall"] == result["test_recall"]
    assert figures["copy_similarity"] == pytest.approx(result["history"][-1]["test_copy_similarity"], abs=1e-5)
    assert figures["num_examples"] == 6
    assert "copy recall on 6 images of the test split" in Path(figures["report"]).read_text()
    compared = values(capsys, "compare", str(model_dir))
    assert (compared["score"], compared["groups"][0]["scores"]) == ("recall", [result["test_recall"]])


def test_it_knows_no_classes(model_dir: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["predict", f"--model_dir={model_dir}", str(photos)]) == 2
    assert "was trained to find copies and has no classes" in capsys.readouterr().err


def test_its_saved_model_gives_embeddings(model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = values(capsys, "export", f"--model_dir={model_dir}", f"--out_dir={tmp_path / 'saved'}")
    assert found["dim"] == 16
    serve = tf.saved_model.load(str(tmp_path / "saved")).signatures["serving_default"]
    pixels = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
    embedding = serve(image=tf.constant(pixels))["embedding"].numpy()
    np.testing.assert_allclose(embedding, load_model(model_dir)[0](pixels), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(embedding, axis=1), 1, atol=1e-5)


def test_an_index_is_made_with_it(
    model_dir: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = values(
        capsys, "index", f"--image_dir={photos}", f"--model={model_dir}", f"--index_dir={tmp_path / 'index'}"
    )
    assert index["dim"] == 16
    picture = sorted(photos.rglob("*.png"))[0]
    found = values(capsys, "search", f"--index_dir={tmp_path / 'index'}", "--k=1", str(picture))
    assert found["results"][0]["matches"][0]["path"].endswith(picture.name)
