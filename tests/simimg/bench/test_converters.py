"""The rivals' scripts do the job they are timed for, and their environments are what they say. Nothing is installed."""

from __future__ import annotations

import dataclasses
import importlib
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from simimg.bench import virtualenvs
from simimg.bench.converters import LIMIT_READ, LIMIT_WRITE, OURS, RIVALS, Tool
from simimg.bench.converters.tool_server import ConvertJob
from simimg.bench.image_sets import ImageSet, good_jpegs
from simimg.bench.measurements import RunFailed
from simimg.bench.virtualenvs import environment_variables, python_of

SIZE = 16


@pytest.fixture(scope="module")
def pictures(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    return good_jpegs(folder, tmp_path_factory.mktemp("cache"))


@pytest.fixture
def job(pictures: ImageSet, tmp_path: Path) -> ConvertJob:
    return ConvertJob(
        image_dir=str(pictures.folder),
        files=list(pictures.files),
        labels=pictures.labels(),
        image_size=SIZE,
        num_workers=2,
        work_dir=str(tmp_path),
    )


def squares(job: ConvertJob) -> np.ndarray:
    """Returns the pictures as Pillow makes them small with an antialiasing filter, float32 [n, size, size, 3]."""
    return np.stack(
        [
            np.asarray(Image.open(path).convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR), np.float32)
            for path in job.paths()
        ]
    )


def run(name: str, job: ConvertJob, out_dir: Path) -> int:
    module = importlib.import_module(f"simimg.bench.converters.{name}")
    about = module.load(job)
    assert set(about) == {"versions", "settings"}
    assert all(about["versions"].values())
    return int(module.prepare(job, out_dir)())


def records(out_dir: Path) -> list[bytes]:
    (file,) = out_dir.iterdir()
    return list(tf.data.TFRecordDataset(str(file)).as_numpy_iterator())


def test_tutorial(job: ConvertJob, tmp_path: Path) -> None:
    assert run("tutorial_converter", job, tmp_path) == len(job.files)
    examples = [tf.train.Example.FromString(record).features.feature for record in records(tmp_path)]
    assert [example["label"].int64_list.value[0] for example in examples] == job.labels
    for path, example in zip(job.paths(), examples, strict=True):
        wanted = Image.open(path).convert("RGB").resize((SIZE, SIZE)).tobytes()
        assert example["image"].bytes_list.value[0] == wanted


def test_tutorial_plain(job: ConvertJob, tmp_path: Path) -> None:
    assert run("tutorial_converter", dataclasses.replace(job, variant="plain"), tmp_path) == len(job.files)
    assert not any(tmp_path.iterdir())


def test_tfdata(job: ConvertJob, tmp_path: Path) -> None:
    assert run("tfdata_converter", job, tmp_path) == len(job.files)
    (record,) = records(tmp_path)
    pixels = np.frombuffer(record, np.uint8).reshape(-1, SIZE, SIZE, 3).astype(np.float32)
    assert abs(pixels - squares(job)).mean() < 2  # antialiased as Pillow's are, and in the order of the files


def test_ours(job: ConvertJob, tmp_path: Path) -> None:
    assert run("simimg_converter", job, tmp_path) == len(job.files)
    assert (tmp_path / "pictures" / "1.0.0" / "layout.json").exists()


@pytest.mark.parametrize("tool", [OURS, LIMIT_READ, LIMIT_WRITE, *RIVALS.values()], ids=lambda tool: tool.name)
def test_every_script_has_what_the_protocol_needs(tool: Tool) -> None:
    module: Any = importlib.import_module(f"simimg.bench.converters.{tool.script.stem}")
    assert Path(module.__file__) == tool.script
    assert module.__all__ == ["load", "prepare"]
    if tool.requirements:
        lines = [line for line in tool.requirements.read_text().splitlines() if not line.startswith("#")]
        assert lines
        assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)


# Environments


@pytest.fixture
def tool(tmp_path: Path) -> Tool:
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("paper==1.0\n")
    return Tool(name="origami", script=tmp_path / "origami.py", requirements=requirements)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What would have been called to install something; making an environment makes its Python."""
    calls: list[list[str]] = []

    def call(command: list[str], name: str) -> None:
        calls.append(command)
        if "venv" in command:
            python = Path(command[-1]) / "bin" / "python"
            python.parent.mkdir(parents=True)
            python.touch()

    monkeypatch.setattr(virtualenvs, "_call", call)
    return calls


def test_installed_once_and_again_when_the_list_changes(tool: Tool, tmp_path: Path, calls: list[list[str]]) -> None:
    notes: list[str] = []
    folder = tmp_path / "cache" / "rivals" / "origami"
    python = python_of(tool, tmp_path / "cache", notes.append)
    assert python == folder / "bin" / "python"
    assert calls == [
        [sys.executable, "-m", "venv", str(folder)],
        [str(python), "-m", "pip", "install", "--no-deps", "-r", str(tool.requirements)],
    ]
    assert len(notes) == 1
    assert python_of(tool, tmp_path / "cache", notes.append) == python
    assert (len(calls), len(notes)) == (2, 1)
    assert tool.requirements
    tool.requirements.write_text("paper==2.0\n")
    python_of(tool, tmp_path / "cache", notes.append)
    assert (len(calls), len(notes)) == (4, 2)


def test_an_installation_that_failed_is_not_taken_for_one(
    tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = virtualenvs._call
    monkeypatch.setattr(
        virtualenvs,
        "_call",
        lambda command, name: real([sys.executable, "-c", "print('ERROR: no paper left'); raise SystemExit(1)"], name),
    )
    for _ in range(2):
        with pytest.raises(RunFailed, match="origami cannot be installed: ERROR: no paper left"):
            python_of(tool, tmp_path)


def test_what_the_machine_lacks_is_named(tmp_path: Path, tool: Tool, calls: list[list[str]]) -> None:
    tool = Tool(
        name="origami",
        script=tool.script,
        requirements=tool.requirements,
        packages=("sh", "not-a-program-anywhere"),
        debian="g++",
    )
    with pytest.raises(RunFailed, match=r"^not-a-program-anywhere not found.*apt-get install g\+\+"):
        python_of(tool, tmp_path)
    assert not calls


def test_our_own_tools_run_in_our_own_environment(tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    assert python_of(OURS, tmp_path) == Path(sys.executable)
    assert environment_variables(OURS)["PYTHONPATH"].endswith(":/elsewhere")
    assert "PYTHONPATH" not in environment_variables(tool)  # its own packages, and no others
    assert environment_variables(tool)["CUDA_VISIBLE_DEVICES"] == ""
