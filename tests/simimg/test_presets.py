"""Presets are complete, so that no default of another preset's leaks into a run."""

import dataclasses

import pytest

from simimg.errors import UsageError
from simimg.presets import PRESETS, preset_options
from simimg.training import TrainConfig

# What a run is told each time, or by few: not the preset's business.
ELSEWHERE = {"dataset_dir", "model_dir", "preset", "weights", "resolution", "probe", "seed", "train_backbone"} | {
    *("dataset_weights", "reader", "shuffle", "cache", "data_service", "on_corrupt"),
    *("num_devices", "per_replica_batch_size", "accumulate", "cross_device_ops", "xla", "deterministic"),
    *("checkpoint_every_s", "keep_checkpoints", "patience", "precision", "augment_with"),
    # Off, but in a preset that says otherwise.
    *("vertical_flip", "grayscale", "blur", "min_jpeg_quality", "cutout", "border"),
    *("objective", "embedding_dim", "temperature", "entropy_weight", "queue_size", "quarter_turns", "paste", "bars"),
    *("rand_augment", "augmix", "three_augment", "noise", "erase", "mixup", "cutmix"),
    *("clip_norm", "ema", "class_weights", "test_views", "fold", "crop", "image_size"),
    *("train_size", "stochastic_depth", "teacher", "teacher_weight", "teacher_temperature"),
}


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_decides_everything(name: str) -> None:
    fields = {field.name for field in dataclasses.fields(TrainConfig)}
    assert fields - ELSEWHERE <= set(preset_options(name)) <= fields


def test_the_defaults_are_those_of_the_default_preset() -> None:
    defaults = {field.name: field.default for field in dataclasses.fields(TrainConfig)}
    options = {name: value for name, value in preset_options("small").items() if name not in ELSEWHERE}
    assert options.items() <= {**defaults, "learning_rate": 2e-3}.items()


@pytest.mark.parametrize(
    ("given", "num_replicas", "batch", "rate"),
    [
        ({}, 1, 32, 1e-4),
        ({"global_batch_size": 128}, 4, 128, 2e-4),  # adaptive: times the square root of 4
        ({"global_batch_size": 128, "optimizer": "sgd"}, 4, 128, 4e-4),
        ({"global_batch_size": 128, "learning_rate": 0.1}, 4, 128, 0.1),
        ({"per_replica_batch_size": 16}, 8, 128, 2e-4),
    ],
)
def test_the_learning_rate_follows_the_batch(tmp_path, given, num_replicas: int, batch: int, rate: float) -> None:
    config = TrainConfig.with_preset({"dataset_dir": tmp_path, "preset": "lite0", **given}).resolved(num_replicas)
    assert (config.global_batch_size, config.learning_rate) == (batch, pytest.approx(rate))
    assert config.resolved(2) == config  # what is recorded is repeated as it is


def test_flags_override_a_preset(tmp_path) -> None:
    config = TrainConfig.with_preset({"dataset_dir": tmp_path, "preset": "tutorial", "epochs": 7})
    assert (config.model, config.epochs, config.optimizer) == ("tutorial", 7, "rmsprop")
    small = TrainConfig.with_preset({"dataset_dir": tmp_path, "preset": "lite0", "model": "small"})
    assert small.resolution == 0
    with pytest.raises(UsageError, match="--preset=big: should be one of small, lite0, lite1, pair, tutorial"):
        TrainConfig.with_preset({"dataset_dir": tmp_path, "preset": "big"})
