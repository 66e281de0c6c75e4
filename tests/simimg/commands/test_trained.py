"""What is done with a trained model from the command line: report, compare, predict, export."""

import json
import re
import shutil
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from simimg import cli
from simimg.training import load_model
from tfrecords.convert.engine import convert
from tfrecords.convert.plan.convert_config import ConvertConfig

pytestmark = [pytest.mark.own_process, pytest.mark.usefixtures("augmented_as_on_a_gpu")]


@pytest.fixture(scope="module")
def dataset_dir(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """54 pictures to train on and 18 to test, at 16 px."""
    data_dir = tmp_path_factory.mktemp("data")
    return convert(ConvertConfig(image_dir=photos, data_dir=data_dir, image_size=16, num_workers=1)).dataset_dir


@pytest.fixture(scope="module")
def runs(dataset_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three finished runs of the tutorial's network: two seeds, and one with the answers to mirror images."""
    folder = tmp_path_factory.mktemp("runs")
    for name, seed, more in (("plain-s0", 0, []), ("plain-s1", 1, []), ("flipped-s0", 0, ["--test_views=mirrored"])):
        command = ["train", f"--dataset_dir={dataset_dir}", f"--model_dir={folder / name}", f"--seed={seed}"]
        assert cli.main([*command, "--preset=tutorial", "--epochs=12", "--horizontal_flip", *more]) == 0
    return folder


def values(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> dict:
    capsys.readouterr()
    assert cli.main([*arguments, "--json"]) == code
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    found: dict = json.loads(out)
    return found


def test_the_report_of_a_run(runs: Path, dataset_dir: Path) -> None:
    page = (runs / "plain-s0" / "report.html").read_text()
    result = json.loads((runs / "plain-s0" / "result.json").read_text())
    for text in ("plain-s0", "accuracy on 18 images of the test split", "54 images of 3 classes", "config.json"):
        assert text in page
    assert f"{100 * result['test_accuracy']:.1f}<small>" in page
    assert len(re.findall("as stored", page)) >= 3  # rows of augmented pictures
    assert "<td>rmsprop</td>" in page
    assert "http" not in page.replace("http-equiv", "")
    with Image.open(runs / "plain-s0" / "confusion-test.png") as picture:
        assert picture.width > 200
    events = list((runs / "plain-s0" / "tensorboard" / "test").iterdir())
    tags = {
        value.tag
        for file in events
        for record in tf.data.TFRecordDataset(str(file))
        for value in tf.compat.v1.Event.FromString(record.numpy()).summary.value
    }
    assert tags == {"epoch_loss", "epoch_accuracy", "epoch_binary_accuracy", "confusion"}


def test_runs_side_by_side(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [str(runs / name) for name in ("plain-s1", "plain-s0", "flipped-s0")]
    report = tmp_path / "compared.html"
    found = values(capsys, "compare", *folders, f"--report={report}")
    accuracies = {
        name: json.loads((runs / name / "result.json").read_text())["test_accuracy"]
        for name in ("plain-s0", "plain-s1", "flipped-s0")
    }
    groups = {group["name"]: group for group in found["groups"]}
    assert set(groups) == {"plain", "flipped"}
    assert groups["plain"]["seeds"] == [0, 1]
    pair = [accuracies["plain-s0"], accuracies["plain-s1"]]
    assert groups["plain"]["scores"] == pair
    assert groups["plain"]["mean"] == pytest.approx(np.mean(pair))
    assert groups["plain"]["deviation"] == pytest.approx(np.std(pair, ddof=1))
    assert groups["flipped"]["deviation"] is None
    assert groups["flipped"]["differs"]["test_views"] == "mirrored"
    assert "test_views" not in groups["plain"]["differs"]
    assert [group["mean"] for group in found["groups"]] == sorted((g["mean"] for g in found["groups"]), reverse=True)
    page = report.read_text()
    assert "3 runs in 2 groups" in page
    assert page.count("<polyline") == 6

    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    assert len(values(capsys, "compare", folders[0], str(unfinished))["groups"]) == 1
    assert cli.main(["compare", str(unfinished)]) == 2
    assert "none of these folders has a finished run" in capsys.readouterr().err


def test_files_are_predicted(
    runs: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "more").mkdir()
    shutil.copy(photos / "boxes" / "1.png", tmp_path / "more")
    named = [str(photos / "discs" / "0.png"), str(tmp_path / "notes.txt"), str(tmp_path / "more")]
    model_dir = runs / "flipped-s0"
    results = values(capsys, "predict", f"--model_dir={model_dir}", "--top=2", *named)["results"]
    assert [result["path"] for result in results] == [named[0], str(tmp_path / "more" / "1.png")]
    model, info = load_model(model_dir)
    with Image.open(named[0]) as image:
        pixels = np.asarray(image.resize((16, 16), Image.Resampling.BICUBIC))[None]
    expected = (model(pixels) + model(pixels[:, :, ::-1])).numpy()[0] / 2
    first = results[0]
    assert len(first["classes"]) == 2
    assert first["label"] == first["classes"][0]["label"] == info.class_names[expected.argmax()]
    assert first["probability"] == pytest.approx(expected.max(), abs=0.02)  # the converter's resizing is another
    with open(named[0]) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        (same,) = values(capsys, "predict", f"--model_dir={model_dir}", "--top=2", "-")["results"]
    assert same == {**first, "path": "-"}
    assert cli.main(["predict", f"--model_dir={model_dir}", str(tmp_path / "notes.txt")]) == 2
    assert "none of the given images can be decoded" in capsys.readouterr().err


def test_a_saved_model_stands_alone(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model_dir = runs / "flipped-s0"
    found = values(capsys, "export", f"--model_dir={model_dir}", f"--out_dir={tmp_path / 'saved'}")
    assert found["image_size"] == 16
    serve = tf.saved_model.load(str(tmp_path / "saved")).signatures["serving_default"]
    pixels = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
    answers = serve(image=tf.constant(pixels))
    model, info = load_model(model_dir)
    expected = (model(pixels) + model(pixels[:, :, ::-1])).numpy() / 2
    np.testing.assert_allclose(answers["probabilities"], expected, atol=1e-6)
    assert set(answers) == {"probabilities", "label"}  # no names, which are no batch
    served = tf.saved_model.load(str(tmp_path / "saved")).signatures["class_names"](index=tf.range(3, dtype=tf.int64))
    names = [name.decode() for name in served["class_names"].numpy()]
    assert tuple(names) == info.class_names
    assert [name.decode() for name in answers["label"].numpy()] == [names[label] for label in expected.argmax(axis=1)]

    values(capsys, "export", f"--model_dir={model_dir}", f"--out_dir={tmp_path / 'saved'}")  # one that is there goes
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    assert cli.main(["export", f"--model_dir={model_dir}", f"--out_dir={tmp_path / 'other'}"]) == 2
    assert "is not empty and not a SavedModel" in capsys.readouterr().err
    assert cli.main(["export", f"--model_dir={model_dir}", f"--out_dir={tmp_path / 'other' / 'file'}"]) == 2
    assert "is a file" in capsys.readouterr().err
    (tmp_path / "saved" / "notes.txt").write_text("mine")
    assert cli.main(["export", f"--model_dir={model_dir}", f"--out_dir={tmp_path / 'saved'}"]) == 2
    assert "has notes.txt beside its SavedModel" in capsys.readouterr().err
    assert (tmp_path / "saved" / "notes.txt").read_text() == "mine"


def test_eight_bits_beside_float(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model_dir, out_dir = runs / "flipped-s0", tmp_path / "litert"
    command = ["export", f"--model_dir={model_dir}", f"--out_dir={out_dir}", "--int8"]
    found = values(capsys, *command)
    assert found["files"] == ["class_names.txt", "model.tflite", "model_int8.tflite"]
    assert (found["score"], found["num_scored"], found["num_checked"]) == ("accuracy", 18, 10)
    assert found["float32"] == json.loads((model_dir / "result.json").read_text())["test_accuracy"]
    assert found["int8"] == pytest.approx(found["float32"], abs=0.25)
    assert (out_dir / "model_int8.tflite").stat().st_size < 0.4 * (out_dir / "model.tflite").stat().st_size
    assert cli.main(command) == 0
    text = capsys.readouterr().out
    assert "compared on 10 images of split test of" in text
    assert (
        f"accuracy on 18 images of that split: {found['float32']:.4f} in float32, {found['int8']:.4f} in 8 bits" in text
    )


@pytest.mark.parametrize("tracker", ["mlflow", "wandb"])
def test_a_run_is_logged_as_the_docs_say(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tracker: str
) -> None:
    """By a stand-in for the tracker, which has the functions that are used."""
    calls: list[tuple[str, tuple, dict]] = []

    class Run:
        def __enter__(self) -> "Run":
            return self

        def __exit__(self, *_: object) -> None:
            calls.append(("end", (), {}))

        def __getattr__(self, name: str):
            def record(*arguments: object, **options: object) -> "Run":
                calls.append((name, arguments, options))
                return self

            return record

    docs = (Path(__file__).parents[3] / "simimg/docs/training.md").read_text()
    code = next(block for block in re.findall(r"(?:^    .*\n)+", docs, re.MULTILINE) if f"json, {tracker}" in block)
    assert code.count("\n") == 5
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "photos-lite0-seed0").symlink_to(runs / "plain-s0")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, tracker, Run())
    exec(compile(textwrap.dedent(code), "training.md", "exec"), {})
    result = json.loads((runs / "plain-s0" / "result.json").read_text())
    config = json.loads((runs / "plain-s0" / "config.json").read_text())["config"]
    logged = [(arguments[0], options["step"]) for name, arguments, options in calls if name in ("log", "log_metrics")]
    assert logged == [(line, line["epoch"]) for line in result["history"]]
    assert len(logged) == 12
    assert config in [
        *(given for _, arguments, _ in calls for given in arguments),
        *(o.get("config") for *_, o in calls),
    ]
    assert calls[-1][0] == "end"
