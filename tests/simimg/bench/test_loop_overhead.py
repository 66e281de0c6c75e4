"""The loop beside a bare step and beside `fit`: every way trains, and what is said of it is what was measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from simimg import cli
from simimg.bench import loop_overhead, measurements
from simimg.presets import tutorial
from simimg.training import TrainConfig


def test_one_small_comparison(
    datasets: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(measurements, "_MIN_TURN_S", 0.01)
    monkeypatch.setattr(loop_overhead, "_FIT_S", 0.01)
    for name, value in (("rand_augment", "2,9"), ("mixup", 0.1), ("cutmix", 1.0)):
        monkeypatch.setitem(tutorial.OPTIONS, name, value)
    loop_turn, configs = loop_overhead.loop_turn, list[TrainConfig]()
    monkeypatch.setattr(loop_overhead, "loop_turn", lambda *args: (configs.append(args[0]), loop_turn(*args))[1])
    command = ["bench", "--stage=loop", f"--dataset_dir={datasets['raw']}", "--preset=tutorial", "--batch_size=6"]
    assert cli.main([*command, "--repeats=1", f"--out_dir={tmp_path}", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert "fit, 10 steps per call" in Path(values["report"]).read_text()
    ways = {way["name"]: way for way in values["ways"]}
    assert list(ways) == ["bare step", "loop", "loop, x 1", "loop, x 2", "fit", "fit, 10 steps per call"]
    rounds = {name: runs[0]["num_images"] / 6 / runs[0]["seconds"] for name, runs in values["rounds"].items()}
    for name, way in ways.items():
        assert way["steps_per_s"] == pytest.approx(rounds[name])
        assert way["ratio_to_bare"] == pytest.approx(rounds[name] / rounds["bare step"])
        assert way["overhead_us"] == pytest.approx(1e6 / rounds[name] - 1e6 / rounds["bare step"])
    assert not any(config.augmentation.mixes or config.augmentation.moves_pixels for config in configs)
    assert values["to_fit"] == pytest.approx(rounds["loop"] / rounds["fit"])
