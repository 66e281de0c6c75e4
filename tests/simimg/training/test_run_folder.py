"""A run's folder: one process at a time, a full disk, and the file that repeats a run."""

import errno
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from simimg import api
from simimg.augment import AugmentConfig
from simimg.commands import train as command
from simimg.errors import ModelError, TrainingError, UsageError
from simimg.input import open_split
from simimg.models.model_folder import RunInfo, load_run, writing
from simimg.training import TrainConfig, load_result, train
from simimg.training.run_folder import begin_run, describe_run
from tests.forked_process import run_forked
from tfrecords.convert.engine import convert
from tfrecords.convert.image.decoder import ImageOptions, image_options, load_image
from tfrecords.convert.plan.convert_config import ConvertConfig


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    code = (
        "import pathlib, sys\nfrom simimg.models.model_folder import load_run\n"
        "from simimg.training.run_folder import begin_run\n"
        "folder = pathlib.Path(sys.argv[1])\nwith begin_run(folder, load_run(folder)): pass"
    )
    info = RunInfo(image_size=8, resize="fit", class_names=("a",), dataset_sha256="", shuffle="uniform", config={})
    again = [sys.executable, "-c", code, str(tmp_path)]
    with begin_run(tmp_path, info):
        refused = run_forked(again)
    assert refused.returncode == 1
    words = f"pid {os.getpid()}) is training in {tmp_path}. Wait for it, stop it, or choose another --model_dir."
    assert words in refused.stderr
    with begin_run(tmp_path, info):  # it has been let go of
        pass


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk(tiny: dict[str, Path], run: Any, base: dict[str, Any], tmp_path: Path, code: int) -> None:
    """Half way through a checkpoint; what was saved before is whole, and the same command goes on from it."""
    options = {**base, "dataset_dir": tiny["two"], "model_dir": tmp_path / "run", "checkpoint_every_s": 0.0}
    config = TrainConfig.with_preset({**options, "epochs": 4})
    undisturbed = run(tiny["two"], tmp_path / "undisturbed", epochs=4)
    real, calls = os.fsync, []

    def fsync(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 12:
            raise OSError(code, os.strerror(code))
        real(descriptor)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(TrainingError, match=r"cannot be written to: .*Free some space, and give the same command"):
            train(config)
    saved = sorted((tmp_path / "run" / "checkpoints").iterdir())
    assert saved
    assert not any(path.name.startswith(".") for path in saved)
    train(config)
    from simimg.training import load_model

    for mine, theirs in zip(load_model(tmp_path / "run")[0].get_weights(), undisturbed, strict=True):
        assert abs(mine - theirs).max() < 1e-6


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), writing(tmp_path):
        raise PermissionError(errno.EACCES, "no")


def test_a_run_is_repeated_by_its_configuration(
    tiny: dict[str, Path], run: Any, base: dict[str, Any], tmp_path: Path
) -> None:
    first = run(tiny["two"], tmp_path / "run", epochs=2, rotation_degrees=33.0)
    config = command.resolve({"config": tmp_path / "run" / "config.json"})
    assert (config.model_dir, config.rotation_degrees) == (tmp_path / "run-again", 33.0)
    train(config)
    from simimg.training import load_model

    for mine, theirs in zip(load_model(tmp_path / "run-again")[0].get_weights(), first, strict=True):
        assert abs(mine - theirs).max() < 1e-7
    overridden = command.resolve({"config": tmp_path / "run" / "config.json", "epochs": 9, "model_dir": tmp_path / "x"})
    assert (overridden.epochs, overridden.model_dir, overridden.rotation_degrees) == (9, tmp_path / "x", 33.0)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"dataset_dir": "d", "epochs": "many"}, "epochs should be of type int. Received: 'many'"),
        ({"dataset_dir": "d", "epochs": True}, "epochs should be of type int. Received: True"),
        ({"dataset_dir": "d", "epoch": 3}, "has unknown options: epoch"),
        ({"epochs": 3}, "lacks dataset_dir"),
        ([1], "should be a JSON object with one key per option. Received: list"),
    ],
)
def test_a_configuration_that_cannot_be_used(tmp_path: Path, content: Any, words: str) -> None:
    file = tmp_path / "run.json"
    file.write_text(json.dumps(content))
    with pytest.raises(UsageError, match=words) as found:
        command.resolve({"config": file})
    assert str(file) in str(found.value)
    with pytest.raises(UsageError, match="does not exist"):
        command.resolve({"config": tmp_path / "other.json"})
    with pytest.raises(UsageError, match="--dataset_dir=PATH is required"):
        command.resolve({"epochs": 3})


def test_a_run_that_is_older_than_an_option(tiny: dict[str, Path], run: Any, tmp_path: Path) -> None:
    """What its config.json does not have was off: the run goes on with that, and is another one with anything else."""
    run(tiny["two"], tmp_path / "run")
    file = tmp_path / "run" / "config.json"
    values = json.loads(file.read_text())
    del values["config"]["bars"]
    file.write_text(json.dumps(values))
    assert AugmentConfig.from_options(load_run(tmp_path / "run").config).bars == 0
    run(tiny["two"], tmp_path / "run")
    with pytest.raises(UsageError, match=r"has another run: --bars=0\.0 there, 0\.5 now"):
        run(tiny["two"], tmp_path / "run", bars=0.5)


def test_a_result_of_another_version(tiny: dict[str, Path], run: Any, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is not the folder of a trained model"):
        load_result(tmp_path)
    run(tiny["two"], tmp_path / "run")
    file = tmp_path / "run" / "result.json"
    values = json.loads(file.read_text())
    file.write_text(json.dumps({**values, "loss": 1.0}))
    with pytest.raises(ModelError, match="is of another version of simimg"):
        load_result(tmp_path / "run")
    file.unlink()
    with pytest.raises(ModelError, match="its training is not finished"):
        load_result(tmp_path / "run")


@pytest.mark.parametrize("background", ["navy", "auto", "checker"])
def test_a_model_knows_how_its_images_were_made(tmp_path: Path, base: dict[str, Any], background: str) -> None:
    """Also if it was begun by a version that did not write it down: it is the same run then."""
    for name in "ab":
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "photos" / name / "0.png")
    options = {"resize": "pad", "decode": "exact", "truncated": "keep", "background": background}
    options |= {"range": "0,4095", "max_pixels": 300_000_000}
    made = convert(
        ConvertConfig(
            image_dir=str(tmp_path / "photos"),
            data_dir=tmp_path,
            image_size=16,
            num_workers=1,
            splits="train=1",
            **options,
        )
    )
    config = TrainConfig.with_preset({**base, "dataset_dir": made.dataset_dir, "model_dir": tmp_path / "run"})
    info = describe_run(tmp_path / "run", config, open_split(made.dataset_dir, "train"), "uniform")
    with begin_run(tmp_path / "run", info):
        pass
    there = image_options(load_run(tmp_path / "run"))
    assert there == ImageOptions(
        image_size=16,
        resize="pad",
        decode="exact",
        truncated="keep",
        background=(0, 0, 128) if background == "navy" else (255, 255, 255),
        backdrop="color" if background == "navy" else background,
        sample_range=(0, 4095),
        max_pixels=300_000_000,
    )
    file = tmp_path / "run" / "config.json"
    values = json.loads(file.read_text())
    for name in ("decode", "truncated", "background", "range", "max_pixels"):
        del values[name]
    file.write_text(json.dumps(values))
    assert image_options(load_run(tmp_path / "run")) == ImageOptions(image_size=16, resize="pad")
    describe_run(tmp_path / "run", config, open_split(made.dataset_dir, "train"), "uniform")


def test_files_are_prepared_as_those_that_a_model_was_trained_on(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Transparent ones, large JPEG files, and truncated ones, in predictions and in searches."""
    from simimg.similarity.embeddings import load_embedder
    from simimg.training import load_model

    rng = np.random.default_rng(0)
    photos = tmp_path / "photos"
    for name in ("a", "b"):
        (photos / name).mkdir(parents=True)
        for number in range(4):
            Image.fromarray(rng.integers(0, 256, (8, 8, 4), np.uint8)).save(photos / name / f"{number}.png")
        large = Image.fromarray(rng.integers(0, 256, (9, 9, 3), np.uint8)).resize((100, 100))
        large.save(photos / name / "large.jpg")
        data = (photos / name / "large.jpg").read_bytes()
        (photos / name / "truncated.jpg").write_bytes(data[: len(data) // 2])
    options = {"decode": "exact", "truncated": "keep", "background": "navy", "resize": "pad", "image_size": 8}
    config = ConvertConfig(image_dir=photos, data_dir=tmp_path / "data", splits="train=1", num_workers=1, **options)
    run(convert(config).dataset_dir, tmp_path / "run", global_batch_size=4)

    model, info = load_model(tmp_path / "run")
    monkeypatch.setattr("simimg.models.heads.search_embedder", lambda network: network)
    assert image_options(info) == config.resolved().image == load_embedder(str(tmp_path / "run")).image_options
    files = sorted(photos.rglob("*.*"))
    found = api.predict(tmp_path / "run", files, refused=pytest.fail)
    assert len(found) == len(files) == 12
    pixels = np.stack([load_image(file.read_bytes(), config.resolved().image).pixels for file in files])
    for one, expected in zip(found, model(pixels).numpy(), strict=True):
        assert one.probabilities == pytest.approx(dict(zip("ab", expected.tolist(), strict=True)), abs=1e-5)
