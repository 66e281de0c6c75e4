"""The commands that search import no TensorFlow: it takes 5 s and 600 MB. Each runs in a process of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import pytest

from simimg.inference.network_cache import converted_network
from simimg.models.backbones import tutorial
from simimg.models.model_folder import RunInfo, save_folder
from tfrecords.convert.engine import convert
from tfrecords.convert.plan.convert_config import ConvertConfig

CODE = """
import sys
from simimg.cli import main
code = main(sys.argv[1:])
heavy = {"tensorflow", "keras", "tensorflow_datasets", "matplotlib"}
sys.stderr.write("imported: " + " ".join(sorted(heavy & set(sys.modules))) + "\\n")
sys.exit(code)
"""


def run(*arguments: object, codes: tuple[int, ...] = (0,)) -> dict[str, object]:
    """Runs a command; returns its result, after a check that it has imported nothing heavy and said nothing."""
    command = [sys.executable, "-c", CODE, *(str(argument) for argument in arguments), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode in codes, done.stderr
    *_, imported = done.stderr.splitlines()
    assert imported.split() == ["imported:"], arguments
    return json.loads(done.stdout or "{}")


@pytest.fixture(scope="module")
def few(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six photos of each class."""
    folder = tmp_path_factory.mktemp("few")
    for path in photos.glob("*/[0-5].png"):
        (folder / path.parent.name).mkdir(exist_ok=True)
        shutil.copy(path, folder / path.parent.name)
    return folder


@pytest.fixture(scope="module")
def folder(few: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a copy, and its index."""
    folder = tmp_path_factory.mktemp("work")
    converted_network("lite0", "embedding")
    shutil.copytree(few, folder / "photos")
    shutil.copy(folder / "photos/discs/0.png", folder / "photos/boxes/again.png")
    assert run("index", f"--image_dir={folder / 'photos'}", f"--index_dir={folder / 'i'}")["num_embedded"] == 18
    return folder


def test_index(folder: Path) -> None:
    again = run("index", f"--image_dir={folder / 'photos'}", f"--index_dir={folder / 'i'}")
    assert (again["num_images"], again["num_embedded"]) == (19, 0)


@pytest.mark.parametrize("by", ["copy", "kind"])
def test_search(folder: Path, by: str) -> None:
    found = run("search", f"--index_dir={folder / 'i'}", f"--by={by}", folder / "photos/discs/1.png")
    assert Path(found["results"][0]["matches"][0]["path"]).name == "1.png"  # type: ignore[index]


def test_duplicates_apply_and_undo(folder: Path, tmp_path: Path) -> None:
    photos = shutil.copytree(folder / "photos", tmp_path / "photos")
    plan = tmp_path / "plan.json"
    found = run(
        "duplicates",
        f"--image_dir={photos}",
        f"--plan={plan}",
        "--plan_edits=all",
        f"--report={tmp_path / 'report.html'}",
    )
    assert len(found["groups"]) >= 1  # type: ignore[arg-type]
    run("apply", f"--plan={plan}")
    run("undo", f"--plan={plan}")


def test_leaks(few: Path, tmp_path: Path) -> None:
    config = ConvertConfig(image_dir=few, data_dir=tmp_path, image_size=32, encoding="jpeg", num_workers=1)
    assert run("leaks", f"--dataset_dir={convert(config).dataset_dir}")["num_images"] == 18


def test_audit(folder: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    found = run("audit", f"--image_dir={folder / 'photos'}", f"--index_dir={folder / 'i'}", f"--report={report}")
    conflicts = [one for one in found["findings"] if one["kind"] == "label_conflict"]  # type: ignore[attr-defined]
    assert {one["path"] for one in conflicts} == {"boxes/again.png", "discs/0.png"}
    assert "boxes/again.png" in report.read_text()


def test_calibrate(folder: Path) -> None:
    """As far as it gets with too few images, when it has loaded the network."""
    run("calibrate", f"--index_dir={folder / 'i'}", "--num_queries=500", codes=(2,))


@pytest.mark.parametrize("views", ["one", "mirrored", "cropped"])
def test_predict(few: Path, tmp_path: Path, views: str) -> None:
    keras.utils.set_random_seed(0)
    info = RunInfo(
        image_size=32,
        resize="stretch",
        class_names=("discs", "boxes", "stripes"),
        dataset_sha256="",
        shuffle="uniform",
        config={"test_views": views},
    )
    save_folder(tmp_path / "run", tutorial(32, 3), info)
    converted_network(str(tmp_path / "run"), "probabilities")
    found = run("predict", f"--model_dir={tmp_path / 'run'}", few / "discs")
    assert len(found["results"]) == 6  # type: ignore[arg-type]


def test_the_search_page(folder: Path) -> None:
    """Its server answers in the process that is asked."""
    code = f"""
import sys
from pathlib import Path
from starlette.testclient import TestClient
from simimg.similarity.search_index import SearchIndex
from simimg.web import ServedIndex, create_app
import simimg.commands.serve
index = SearchIndex.open(Path({str(folder / "i")!r}))
app = create_app(ServedIndex(index, index.load_embedder(), Path("plan.json")), token="t", host="127.0.0.1")
with TestClient(app, base_url="http://127.0.0.1") as client:
    assert client.get("/?token=t").status_code == 200
print(*sorted({{"tensorflow", "keras"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr
