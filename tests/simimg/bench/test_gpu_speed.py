"""The measurements of GPUs: to their end on two CPU devices, and what is said of figures that GPUs might have."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from simimg import cli
from simimg.bench import gpu_speed, gpu_tasks
from simimg.bench.gpu_speed import GpuSpeeds, measure_gpus
from simimg.child_process import Outcome
from simimg.commands import bench
from simimg.commands.bench_gpu import gpu_plot, gpu_table
from simimg.errors import UsageError

GPUS = ("NVIDIA A100", "NVIDIA A100")


@pytest.mark.usefixtures("forked_children")
def test_quick_on_two_cpu_devices(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the flags to JSON and report, in real processes; nothing fails, and no target is claimed."""
    sizes = dataclasses.replace(gpu_speed._QUICK, precisions=("float32", "bfloat16"))  # each is two trainings
    monkeypatch.setattr(gpu_speed, "_QUICK", sizes)
    for path in sorted(photos.glob("*/*.png")):
        copy = tmp_path / "photos" / path.parent.name / f"{path.stem}.jpg"
        copy.parent.mkdir(parents=True, exist_ok=True)
        gpu_jpeg(path, copy)
    command = ["bench", "--stage=gpu", "--quick", f"--image_dir={tmp_path / 'photos'}", f"--cache_dir={tmp_path}"]
    assert cli.main([*command, f"--out_dir={tmp_path / 'out'}", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert (values["devices"], values["are_gpus"], values["targets"]) == (["CPU device"] * 2, False, [])
    assert (values["left_out"], values["not_run"]) == ({}, [])
    assert values["memory_gb_per_s"] > 0
    trained = {(speed["source"], speed["precision"], speed["num_devices"]) for speed in values["trainings"]}
    assert trained == {
        *((source, "float32", 1) for source in ("synthetic", "device", "resident", "mapped", "JPEG")),
        *((source, precision, 1) for source in ("synthetic", "device") for precision in ("bfloat16",)),
        *((source, "float32", 2) for source in ("synthetic", "device")),
    }
    for speed in values["trainings"]:
        assert speed["images_per_s"] > 0
        assert 0 <= speed["input_share"] <= 1
        assert (speed["ratio_to_synthetic"] == 1) == (speed["source"] == "synthetic")
    augmented = {(speed["name"], speed["tool"]) for speed in values["augmentations"]}
    assert augmented >= {("preset small", "operations"), ("preset small", "xla"), ("Keras RandomRotation", "keras")}
    assert values["embedding"]["images_per_s"] > 0
    report = Path(values["report"]).read_text()
    assert "THESE ARE NO GPUS, but 2 CPU devices." in report
    assert "a CPU device, which is no GPU" in report
    assert "target" not in report.replace("No target is checked", "")


def gpu_jpeg(path: Path, copy: Path) -> None:
    from PIL import Image

    Image.open(path).convert("RGB").save(copy, quality=90)


def test_without_a_gpu_only_quick(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--stage=gpu: TensorFlow uses no GPU here; `simimg doctor` .* add --quick"):
        bench.run(bench.Options(stage="gpu", out_dir=tmp_path))


def seconds_of(task: dict[str, Any], tool: str) -> float:
    """Made-up seconds for 1,000 images, or for a byte that is copied."""
    if task["kind"] == "memory_bandwidth":
        return 1000 * 2 / 1000e9  # 1000 GB/s
    if task["kind"] == "augmentation":
        pixels = 1000 * 3 * task["image_size"] ** 2
        return pixels * 5 / {"operations": 300e9, "xla": 600e9, "keras": 100e9}[tool]
    if task["kind"] == "training":
        slower = {"synthetic": 1.0, "device": 1.01, "resident": 1.02, "mapped": 1.05, "JPEG": 4.0}[tool]
        return slower / {1: 1.0, 2: 1.9, 4: 3.0}[task["num_devices"]]
    return 0.5


def measured(task: dict[str, Any]) -> Any:
    tools = {"memory_bandwidth": ["copy"], "embedding": ["embedding"]}.get(task["kind"], ["operations", "xla"])
    tools = ["keras"] if task.get("name", "").startswith("Keras") else tools
    tools = ["synthetic", *task["sources"]] if "sources" in task else tools
    rounds = {tool: [{"seconds": seconds_of(task, tool), "num_images": 1000}] * 5 for tool in tools}
    if task["kind"] in ("memory_bandwidth", "augmentation"):
        return rounds
    shares = {"synthetic": 0.0, "device": 0.005, "resident": 0.029, "mapped": 0.04, "JPEG": 0.7}
    more = {"engine": "TensorFlow", "batch_size": 256} if task["kind"] == "embedding" else {"input_shares": shares}
    return {"rounds": rounds, "peak_bytes": 3_000_000_000, **more}


def made_up(tmp_path: Path, gpus: tuple[str, ...] = GPUS, **options: Any) -> tuple[GpuSpeeds, list[dict[str, Any]]]:
    given: list[dict[str, Any]] = []

    def run(module: str, tasks: list[dict[str, Any]], **how: Any) -> list[Outcome]:
        given.extend(tasks)
        if tasks[0].get("precision") == "bfloat16":  # the last group: one fails, and no time is left for the others
            failed = Outcome(how="crashed", error="the process was ended by SIGABRT")
            done = [Outcome(how="returned", value=measured(task)) for task in tasks[1:6]]
            return [failed, *done, *[Outcome(how="not run", error="no time was left")] * (len(tasks) - 6)]
        return [Outcome(how="returned", value=measured(task)) for task in tasks]

    folders = {"raw": tmp_path, "jpeg": tmp_path}
    return measure_gpus(folders, gpus, **{"quick": False, "start": 0.0, **options}, run=run), given


def test_a_sentence_for_each_target(tmp_path: Path) -> None:
    found, tasks = made_up(tmp_path)
    assert [target.sentence for target in found.targets] == [
        "training small from device: 99.0 % of the speed with synthetic data; target at least 97 %: met",
        "training small from device: 0.5 % of the time waiting for input; target under 3 %: met",
        "training small from resident: 98.0 % of the speed with synthetic data; target at least 97 %: met",
        "training small from resident: 2.9 % of the time waiting for input; target under 3 %: met",
        "training small from mapped: 95.2 % of the speed with synthetic data; target at least 97 %: MISSED",
        "training small from mapped: 4.0 % of the time waiting for input; target under 3 %: MISSED",
        "training small from JPEG: 25.0 % of the speed with synthetic data; target at least 97 %: MISSED",
        "training small from JPEG: 70.0 % of the time waiting for input; target under 3 %: MISSED",
        "augmentation of preset small, xla, batch 4,096: 60.0 % of the memory bandwidth; target at least 50 %: met",
        "training small on 2 GPUs: 95.0 % of 2 times the speed of one; target over 90 %: met",
    ]
    assert found.memory_gb_per_s == pytest.approx(1000)
    assert found.left_out == {"training small, bfloat16, 1 device": "the process was ended by SIGABRT"}
    assert found.not_run[0].startswith("training tutorial, float32")
    lines = [" ".join(line.split()) for line in gpu_table(found)]
    assert lines[0].startswith("2 x NVIDIA A100; measured in ")
    assert "NO GPUS" not in "".join(lines)
    assert "preset small xla 4,096 64 0.42 0.42 to 0.42 600.0 60.0 %" in lines
    assert "small float32 1 256 mapped 952 952 to 952 95.2 % 4.0 % 3.00 GB" in lines
    assert (
        "embedding of `index`: 2,000 images/s (2,000 to 2,000) in batches of 256 by TensorFlow, peak memory 3.00 GB"
        in lines
    )
    keras = "Keras RandomRotation 0.48 ms (on a T4, keras#23245: 56.3 ms)"
    (public,) = [line for line in lines if line.startswith("64 images of 224 px")]
    assert public.startswith("64 images of 224 px: rotation and flip 0.08 ms for both; Keras RandomFlip 0.48 ms")
    assert public.endswith(keras)
    assert {task["num_devices"] for task in tasks if task["kind"] == "training"} == {1, 2}
    assert gpu_plot(found)["limit"] == ("synthetic data", 1000.0)
    assert json.loads(json.dumps(found.left_out)) == found.left_out


def test_scaling_that_misses_its_target(tmp_path: Path) -> None:
    found, tasks = made_up(tmp_path, ("NVIDIA A100",) * 4)
    (two, four) = [target for target in found.targets if " GPUs" in target.name]
    assert (two.met, four.met) == (True, False)
    assert four.sentence.endswith("75.0 % of 4 times the speed of one; target over 90 %: MISSED")
    assert {task["num_devices"] for task in tasks if task["kind"] == "training"} == {1, 2, 4}


def test_no_target_of_a_quick_run_or_of_one_gpu(tmp_path: Path) -> None:
    quick, _ = made_up(tmp_path, quick=True)
    assert quick.targets == ()
    assert gpu_table(quick)[0].startswith("--quick: the sizes are too small")
    one, tasks = made_up(tmp_path, ("NVIDIA T4",))
    assert not [target for target in one.targets if "GPUs" in target.name]
    assert {task["num_devices"] for task in tasks if task["kind"] == "training"} == {1}


def test_nothing_was_measured(tmp_path: Path) -> None:
    def run(module: str, tasks: list[dict[str, Any]], **how: Any) -> list[Outcome]:
        return [Outcome(how="not run", error="no time was left")] * len(tasks)

    folders = {"raw": tmp_path, "jpeg": tmp_path}
    found = measure_gpus(folders, GPUS, quick=False, start=0.0, run=run)
    assert (found.targets, found.trainings, found.memory_gb_per_s) == ((), (), None)
    assert "not measured, because the time was up: memory bandwidth; " in gpu_table(found)[-1]
    assert gpu_plot(found)["bars"] == []


def test_all_names_are_augmentations() -> None:
    for name in (gpu_tasks.MAIN, *gpu_speed._FULL.augmentations):
        config = gpu_tasks.augmentation_of(name)
        assert config != gpu_tasks.NOTHING, name
