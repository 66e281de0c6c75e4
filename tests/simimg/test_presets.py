"""Presets are complete, so that no default of another preset's leaks into a run."""

import dataclasses

import pytest

from simimg.errors import UsageError
from simimg.presets import PRESETS, preset_options
from simimg.training import TrainConfig

# What a run is told each time, or by few: not the preset's business.
ELSEWHERE = {"dataset_dir", "model_dir", "preset", "weights", "resolution", "seed", "num_devices"} | {
    *("reader", "shuffle", "cache", "data_service", "on_corrupt"),
    *("vertical_flip", "grayscale", "blur", "min_jpeg_quality", "cutout", "border"),  # all off, in any preset
}


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_decides_everything(name: str) -> None:
    fields = {field.name for field in dataclasses.fields(TrainConfig)}
    assert set(preset_options(name)) - {"resolution"} == fields - ELSEWHERE


def test_the_defaults_are_those_of_the_default_preset() -> None:
    defaults = {field.name: field.default for field in dataclasses.fields(TrainConfig)}
    assert preset_options("small").items() <= defaults.items()


def test_flags_override_a_preset(tmp_path) -> None:
    config = TrainConfig.with_preset({"dataset_dir": tmp_path, "preset": "tutorial", "epochs": 7})
    assert (config.model, config.epochs, config.optimizer) == ("tutorial", 7, "rmsprop")
    small = TrainConfig.with_preset({"dataset_dir": tmp_path, "preset": "lite0", "model": "small"})
    assert small.resolution == 0
    with pytest.raises(UsageError, match="--preset=big: should be one of small, lite0, tutorial"):
        TrainConfig.with_preset({"dataset_dir": tmp_path, "preset": "big"})
