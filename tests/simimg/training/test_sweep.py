"""A sweep: what it runs, what it refuses, and that it goes on after a kill and after a failed run."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import psutil
import pytest

from simimg.errors import TrainingInterrupted, UsageError
from simimg.training import TrainConfig
from simimg.training.sweep_runs import Sweep, SweepRun, check_sweep, sweeping, train_all, write_sweep
from tests.forked_process import ForkedProcess
from tfrecords.convert.engine import convert
from tfrecords.convert.plan.convert_config import ConvertConfig

ROOT = Path(__file__).parents[3]
Simimg = Callable[..., Any]


@pytest.fixture
def simimg(simimg_json: Callable[..., Any]) -> Simimg:
    """Runs `simimg sweep` and returns its result in JSON, or with another exit code, the message."""
    return functools.partial(simimg_json, "sweep")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--grid=lrr=1"], "--grid=lrr=1: there is no flag --lrr"),
        (["--grid=learning_rat=1"], "Did you mean --learning_rate?"),
        (["--grid=lr=0.1,x"], "Expected a number or auto for --learning_rate, got 'x'"),
        (["--grid=lr"], "should be FLAG=VALUE,VALUE,…"),
        (["--grid=lr=0.1,,0.2"], "should be FLAG=VALUE,VALUE,…"),
        (["--grid=lr=0.1,0.10"], "has a value twice"),
        (["--grid=lr=0.1", "--grid=learning_rate=0.2"], "--learning_rate is in the grid twice"),
        (["--grid=epochs=1,2", "--epochs=3"], "--epochs=3 is given, too"),
        (["--grid=epochs=1,-2"], "--epochs=-2: should be 0 or more"),
        (["--grid=preset=small,tiny"], "Expected one of small, lite0"),
        (["--grid=seed=1,2"], "--seeds is for that"),
        (["--grid=fold=1,2"], "--folds is for that"),
        (["--grid=reader=mapped,stream"], "--reader does not change what a run learns"),
        (["--grid=dataset_dir=a,b"], "a sweep is made on one dataset"),
        (["--grid=model=small,lite0", "--resolution=64"], "--model=small does not enlarge images"),
        (["--grid=strict=1,0"], "--strict is no option of a run"),
        (["--grid=image_size=64,64x64"], "--image_size=64 and --image_size=64x64 are the same run"),
        (["--grid=objective=classes,similarity"], "have different objectives, whose figures cannot be compared"),
        (["--grid=preset=small,copy"], "--preset=small and --preset=copy have different objectives"),
        (["--seeds=0"], "--seeds=0: should be 1 or more"),
        (["--seeds=3", "--seed=4294967295"], "the last one would be above"),
        (["--folds=1"], "should be 2 or more"),
        (["--folds=3", "--fold=2"], "Leave out --fold=2"),
        (["--model_dir=x"], "Give --sweep_dir instead"),
        (["--folds=3"], "has no folds"),
        (["--epochs=some"], "Expected a number for --epochs, got 'some'"),
        (["--frobnicate"], "no flag --frobnicate"),
    ],
)
def test_mistakes_are_told_before_the_first_run(
    simimg: Simimg, tiny: dict[str, Path], tmp_path: Path, arguments: list[str], message: str
) -> None:
    folder = tmp_path / "sweep"
    assert message in simimg(f"--dataset_dir={tiny['three']}", f"--sweep_dir={folder}", *arguments, code=2)
    assert not folder.exists()


def test_the_runs_of_a_sweep(
    simimg: Simimg, tiny: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = [f"--dataset_dir={tiny['three']}", "--preset=tutorial", "--seed=7", "--seeds=2", "--nohorizontal_flip"]
    given.append("--teacher=runs/t")
    found = simimg(*given, "--grid=lr=0.1,auto", "--grid=rand_augment=off;2,9", "--dry_run")
    assert found["sweep_dir"] == "runs/three-tutorial-sweep"
    assert {run["state"] for run in found["runs"]} == {"new"}
    names = [run["run"] for run in found["runs"]]
    assert names[:2] == ["learning_rate0.1-rand_augmentoff-seed7", "learning_rate0.1-rand_augment2_9-seed7"]
    assert len(set(names)) == 8
    assert names[-1] == "learning_rateauto-rand_augment2_9-seed8"
    command = found["runs"][1]["command"]
    for part in ("simimg train ", *given[4:], "--learning_rate=0.1", "--rand_augment=2,9", "--seed=7"):
        assert part in command
    assert not (tmp_path / "runs").exists()
    memory = fsspec.filesystem("memory")
    memory.put(str(tiny["three"]), "/swept/three/1.0.0", recursive=True)
    monkeypatch.setenv("SIMIMG_CACHE_DIR", str(tmp_path / "cache"))
    (one,) = simimg("--dataset_dir=memory://swept/three/1.0.0", "--dry_run")["runs"]
    memory.rm("/swept", recursive=True)
    assert not [*(tmp_path / "cache").rglob("*.tfrecord-*")]  # what is only listed is not read
    assert "--dataset_dir=memory://swept/three/1.0.0" in one["command"]
    seeds = simimg(f"--dataset_dir={tiny['three'].parents[1]}/t{{seed}}/1.0.0", "--sweep_dir=s", "--dry_run", code=2)
    assert "t0/1.0.0 is not a folder" in seeds


MODULE = """
import os, signal, sys, threading, time
from pathlib import Path
from simimg.child_process import end_with_stdin

end_with_stdin()
folder, wish = Path(sys.argv[1]), sys.argv[2]
folder.mkdir(exist_ok=True)
(folder / "pid").write_text(str(os.getpid()))
if wish == "fail":
    sys.exit("simimg: no luck.")
if wish == "crash":
    os.kill(os.getpid(), signal.SIGSEGV)
if wish == "wait":
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    (folder / "ready").touch()
    stop.wait(30)
    (folder / "saved").touch()
    sys.exit(130)
for name in ("result.json", "report.html"):
    (folder / name).touch()
"""


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Sweep]:
    """Makes a sweep whose runs do what their names say, in processes that start at once."""
    (tmp_path / "module_of_runs.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)

    def sweep(*wishes: str) -> Sweep:
        folder = tmp_path / "sweep"
        folder.mkdir(exist_ok=True)
        runs = [
            SweepRun(
                name=name,
                values={"epochs": str(number)},
                config=TrainConfig.with_preset({"dataset_dir": tmp_path, "model_dir": folder / name}),
                arguments=(str(folder / name), wish),
            )
            for number, wish in enumerate(wishes)
            if (name := f"{wish}{number}")
        ]
        return Sweep(folder=folder, grid={"epochs": list("012")}, seeds=[0], folds=[], runs=runs)

    return sweep


def test_a_failed_run_does_not_stop_the_others(made: Callable[..., Sweep]) -> None:
    sweep = made("good", "fail", "crash", "good")
    ended: list[tuple[str, str]] = []
    failed = train_all(
        sweep, "module_of_runs", threading.Event(), end=lambda run, error: ended.append((run.name, error))
    )
    assert failed == {"fail1": "no luck.", "crash2": "the process was ended by signal 11"}
    assert ended == [("good0", ""), ("fail1", "no luck."), ("crash2", failed["crash2"]), ("good3", "")]
    assert [run.state for run in sweep.runs] == ["finished", "begun", "begun", "finished"]
    pid = (sweep.runs[0].model_dir / "pid").read_text()
    train_all(sweep, "module_of_runs", threading.Event())
    assert (sweep.runs[0].model_dir / "pid").read_text() == pid  # it was not started again


def test_an_interruption_lets_the_run_save(made: Callable[..., Sweep]) -> None:
    sweep = made("good", "wait", "good")
    stop = threading.Event()

    def stop_when_ready() -> None:
        while not (sweep.folder / "wait1" / "ready").exists():
            time.sleep(0.02)
        stop.set()

    threading.Thread(target=stop_when_ready, daemon=True).start()
    with pytest.raises(TrainingInterrupted, match="stopped with 1 of 3 runs finished in .* same command again"):
        train_all(sweep, "module_of_runs", stop)
    assert (sweep.folder / "wait1" / "saved").exists()
    assert sweep.runs[2].state == "new"


def test_one_sweep_per_folder(made: Callable[..., Sweep], tmp_path: Path) -> None:
    sweep = made("good")
    there = {"grid": {"lr": ["1", "2"]}, "seeds": [0], "folds": [], "options": {"epochs": 3}, "datasets": {"a": "b"}}
    check_sweep(sweep, there)  # the folder is empty
    (sweep.folder / "notes.txt").touch()
    with pytest.raises(UsageError, match="exists and has no sweep. Choose another --sweep_dir, or remove it"):
        check_sweep(sweep, there)
    write_sweep(sweep, there)
    check_sweep(sweep, there)
    for change, message in (
        ({"grid": {}}, "--grid=lr=1,2 there, no --grid now"),
        ({"seeds": [0, 1]}, "seeds 0 there, 0,1 now"),
        ({"folds": [1, 2]}, "folds none there, 1,2 now"),
        ({"options": {"epochs": 4}}, "--epochs=3 there, 4 now"),
        ({"datasets": {"a": "c"}}, "the datasets are other ones"),
    ):
        with pytest.raises(UsageError, match=f"has another sweep: {message}. Choose another --sweep_dir"):
            check_sweep(sweep, {**there, **change})
    check_sweep(sweep, {**there, "options": {"epochs": 3, "erase": 0.0}})  # an option newer than the sweep
    with sweeping(sweep.folder), pytest.raises(UsageError, match="another process .* is sweeping in"):
        sweeping(sweep.folder).__enter__()


@pytest.mark.usefixtures("forked_children")
def test_a_killed_sweep_goes_on(photos: Path, tmp_path: Path, simimg: Simimg) -> None:
    dataset = convert(
        ConvertConfig(image_dir=str(photos), data_dir=tmp_path, name="p", folds=2, image_size=16, num_workers=1)
    )
    folder = tmp_path / "sweep"
    arguments = [f"--dataset_dir={dataset.dataset_dir}", f"--sweep_dir={folder}", "--preset=tutorial", "--epochs=10"]
    arguments += ["--global_batch_size=9", "--checkpoint_every_s=0.2", "--folds=2"]
    first, second = folder / "tutorial-fold1-seed0", folder / "tutorial-fold2-seed0"
    with ForkedProcess(
        [sys.executable, "-m", "simimg", "sweep", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:
        until = time.monotonic() + 200
        while not first.is_dir() and time.monotonic() < until:
            time.sleep(0.05)
        assert "is sweeping in" in simimg(*arguments, code=2)
        while not list(first.glob("checkpoints/[0-9]*")) and time.monotonic() < until:
            time.sleep(0.02)
        (child,) = psutil.Process(process.pid).children()
        process.send_signal(signal.SIGKILL)
    child.wait(10)
    assert not (first / "report.html").exists()
    second.write_text("in the way")
    found = simimg(*arguments, code=1)
    assert list(found["failed"]) == [second.name]
    assert "cannot be created" in found["failed"][second.name]
    assert "resuming from epoch" in (folder / f"{first.name}.log").read_text()
    made = (first / "model.keras").stat().st_mtime_ns
    second.unlink()
    found = simimg(*arguments)
    assert (first / "model.keras").stat().st_mtime_ns == made
    (group,) = found["groups"]
    assert (group["name"], group["seeds"], group["folds"]) == ("tutorial", [0, 0], [1, 2])
    scores = [json.loads((run / "result.json").read_text())["test_accuracy"] for run in (first, second)]
    assert group["scores"] == scores
    assert group["deviation"] == pytest.approx(np.std(scores, ddof=1))
    per_class = [json.loads((run / "evaluation-test.json").read_text())["mean_per_class"] for run in (first, second)]
    assert group["figures"]["mean_per_class"]["mean"] == pytest.approx(np.mean(per_class))
    assert json.loads((folder / "sweep.json").read_text())["result"]["groups"] == found["groups"]
    page = (folder / "report.html").read_text()
    assert "2 runs in 1 group" in page
    assert "Mean per class" in page
    assert "--epochs=10 there, 11 now" in simimg(*[a.replace("=10", "=11") for a in arguments], code=2)
    assert "Give --folds=2" in simimg(*[a.replace("folds=2", "folds=3") for a in arguments], code=2)
