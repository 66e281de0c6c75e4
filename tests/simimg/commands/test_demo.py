"""The demo from end to end on a small folder, and once more on what it left."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from simimg.cli import main
from simimg.commands import demo, demo_content
from simimg.presets import lite0

pytestmark = [pytest.mark.own_process, pytest.mark.usefixtures("augmented_as_on_a_gpu")]


@pytest.fixture
def shapes(tmp_path: Path) -> Path:
    folder = tmp_path / "shapes"
    rng = np.random.default_rng(0)
    for kind in ("discs", "boxes"):
        (folder / kind).mkdir(parents=True)
        for number in range(24):
            image = Image.new("RGB", (90 + number, 80), tuple(rng.integers(120, 256, 3).tolist()))
            x, y = rng.integers(5, 40, 2).tolist()
            draw = ImageDraw.Draw(image)
            shape = draw.ellipse if kind == "discs" else draw.rectangle
            shape((x, y, x + 35, y + 35), fill=tuple(rng.integers(0, 120, 3).tolist()))
            image.save(folder / kind / f"{number}.jpg", quality=92)
    (folder / "discs" / "notes.jpg").write_text("no picture")
    return folder


def test_demo(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "_RESOLUTION", 64)
    monkeypatch.setattr(demo_content, "_NUM_EDITED", 2)
    monkeypatch.setitem(lite0.OPTIONS, "test_views", "mirrored")  # crops take long to compile, four times
    command = ["demo", f"--image_dir={shapes}", f"--out_dir={tmp_path / 'out'}", "--epochs=1", "--json"]
    assert main(command) == 0  # a file was rejected
    first = json.loads(capsys.readouterr().out)
    assert sorted(first) == ["accuracy", "dataset_dir", "index_dir", "model_dir", "report"]
    assert 0 <= first["accuracy"] <= 1
    page = Path(first["report"]).read_text()
    assert (tmp_path / "out/audit.html").exists()
    for words in ("discs/notes.jpg", "audit", "text", "Copies for which the original was found", "--preset=lite0"):
        assert words in page

    model = Path(first["model_dir"], "model.keras")
    trained_at = model.stat().st_mtime_ns
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out) == first
    assert model.stat().st_mtime_ns == trained_at
