"""`import-weights` as a user runs it, from a file of PyTorch's to pictures that are found."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from simimg.cli import main
from simimg.errors import UsageError
from simimg.models.sscd import import_sscd
from simimg.models.torch_zip import read_torch_file
from simimg.similarity.embeddings import load_embedder

WEIGHTS = Path(__file__).parents[2] / "golden" / "sscd-tiny.torchvision.pt"


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model_dir = tmp_path_factory.mktemp("models") / "sscd"
    assert main(["import-weights", str(WEIGHTS), f"--model_dir={model_dir}", "--image_size=64"]) == 0
    return model_dir


def test_the_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tensors = read_torch_file(WEIGHTS)
    capsys.readouterr()
    assert main(["import_weights", f"--model_dir={tmp_path / 'a' / 'm'}", str(WEIGHTS), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "model_dir": str(tmp_path / "a" / "m"),
        "num_weights": sum(value.size for value in tensors.values() if value.dtype == np.float32),
        "dim": 8,
        "image_size": 288,
    }
    assert sorted(path.name for path in (tmp_path / "a" / "m").iterdir()) == ["config.json", "model.keras"]
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["m"]
    config = json.loads((tmp_path / "a" / "m" / "config.json").read_text())
    assert (config["image_size"], config["resize"], config["config"]["weights"]) == (288, "stretch", WEIGHTS.name)


def test_index_and_search(
    model_dir: Path, tmp_path: Path, scene: Callable[..., Image.Image], capsys: pytest.CaptureFixture[str]
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for seed in range(6):
        scene(seed).save(photos / f"{seed}.png")
    index = ["index", f"--image_dir={photos}", f"--index_dir={tmp_path / 'i'}"]
    capsys.readouterr()
    assert main([*index, f"--model={model_dir}", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["dim"] == 8
    ImageOps.mirror(scene(3)).save(tmp_path / "query.png")
    assert main(["search", f"--index_dir={tmp_path / 'i'}", "--k=1", "--json", str(tmp_path / "query.png")]) == 0
    (match,) = json.loads(capsys.readouterr().out)["results"][0]["matches"]
    assert (match["path"], match["reasons"]) == (str(photos / "3.png"), ["mirrored"])
    assert match["cosine"] == pytest.approx(1, abs=1e-2)
    # Another model is refused.
    assert main(index) == 3
    assert "embeddings of two models cannot be compared" in capsys.readouterr().err


def test_imported_again_it_is_the_same_model(model_dir: Path, tmp_path: Path) -> None:
    first = load_embedder(str(model_dir))
    for name, image_size in (("same", 64), ("larger", 80)):
        import_sscd(WEIGHTS, tmp_path / name, image_size=image_size)
    assert load_embedder(str(tmp_path / "same")).fingerprint == first.fingerprint
    assert load_embedder(str(tmp_path / "larger")).fingerprint != first.fingerprint
    assert (first.image_size, first.resize, first.dim) == (64, "stretch", 8)


def test_it_is_for_search_alone(model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "picture.png")
    for arguments in (["export"], ["predict", str(tmp_path / "picture.png")]):
        assert main([*arguments, f"--model_dir={model_dir}"]) == 3
        assert "imported for search. It has no classes" in capsys.readouterr().err
    assert main(["compare", str(model_dir)]) == 2
    assert "imported for search" in capsys.readouterr().err


def test_mistakes(model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def complaint(exit_code: int, *arguments: str) -> str:
        assert main(["import-weights", *arguments]) == exit_code
        return capsys.readouterr().err

    new = f"--model_dir={tmp_path / 'new'}"
    assert "FILE... is required" in complaint(2, new)
    assert "--model_dir=PATH is required" in complaint(2, str(WEIGHTS))
    assert "name one file of weights. Received: a.pt, b.pt" in complaint(2, new, "a.pt", "b.pt")
    assert f"--model_dir={model_dir} exists already" in complaint(2, f"--model_dir={model_dir}", str(WEIGHTS))
    assert "at least 32" in complaint(2, new, str(WEIGHTS), "--image_size=16")
    assert "nowhere.pt: No such file" in complaint(3, new, "/nowhere.pt")
    cut = tmp_path / "cut.pt"
    cut.write_bytes(WEIGHTS.read_bytes()[:20_000])
    assert "cut.pt is damaged or truncated" in complaint(3, new, str(cut))
    (tmp_path / "file").touch()
    assert "cannot be created: File exists" in complaint(2, f"--model_dir={tmp_path / 'file' / 'm'}", str(WEIGHTS))
    assert not (tmp_path / "new").exists()


def test_a_failed_import_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("simimg.models.model_folder.sync_file", fail)
    with pytest.raises(Exception, match="No space left"):
        import_sscd(WEIGHTS, tmp_path / "m", image_size=64)
    assert not list(tmp_path.iterdir())
    monkeypatch.undo()
    with pytest.raises(UsageError, match="exists already"):
        import_sscd(WEIGHTS, tmp_path, image_size=64)
