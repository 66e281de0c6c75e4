"""A checkpoint is there whole or not at all, and what has happened to it since is noticed."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest

from simimg.errors import CheckpointError
from simimg.input import Position
from simimg.training.checkpoints import NUM_KEPT, Progress, restore_latest, save
from simimg.training.metrics import EpochMetrics


def small_model(units: int = 3) -> tuple[keras.Model, keras.optimizers.Optimizer]:
    pixels = keras.Input((4,))
    model = keras.Model(pixels, keras.layers.Dense(units)(pixels))
    optimizer = keras.optimizers.AdamW(1e-3)
    optimizer.build(model.trainable_variables)
    return model, optimizer


def progress_at(step: int) -> Progress:
    return Progress(
        position=Position(2, step),
        metrics=EpochMetrics(loss_sum=1.5, num_correct=3.0, num_examples=8),
        history=[{"epoch": 1, "loss": 0.1}, {"epoch": 2, "loss": 1 / 3}],
        seconds=2.5,
    )


def state_of(model: keras.Model, optimizer: keras.optimizers.Optimizer) -> list[np.ndarray]:
    return [np.array(variable.numpy()) for variable in (*model.variables, *optimizer.variables)]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A run's folder with the checkpoints of steps 8 and 16."""
    model, optimizer = small_model()
    for step in (4, 8, 16):
        for variable in (*model.variables, *optimizer.variables[1:]):
            variable.assign(np.full(variable.shape, step, np.float32))
        save(tmp_path, step, model, optimizer, progress_at(step))
    assert names(tmp_path) == ["00000008", "00000016"]
    return tmp_path


def test_all_comes_back(tmp_path: Path) -> None:
    model, optimizer = small_model()
    rng = np.random.default_rng(0)
    optimizer.apply([rng.normal(size=variable.shape) for variable in model.trainable_variables])
    save(tmp_path, 7, model, optimizer, progress_at(7))
    other, other_optimizer = small_model()
    warnings: list[str] = []
    restored = restore_latest(tmp_path, other, other_optimizer, warnings.append)
    assert restored == progress_at(7)
    assert not warnings
    for mine, theirs in zip(state_of(other, other_optimizer), state_of(model, optimizer), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert int(other_optimizer.iterations.numpy()) == 1


def test_nothing_there(tmp_path: Path) -> None:
    assert restore_latest(tmp_path, *small_model(), warn=pytest.fail) is None


def test_only_the_newest_are_kept(saved: Path) -> None:
    assert NUM_KEPT == len(names(saved)) == 2


def test_what_a_killed_process_left_is_ignored_and_cleared_away(saved: Path) -> None:
    leftover = saved / "checkpoints" / ".00000024.tmp-123"
    leftover.mkdir()
    (leftover / "state.npz").write_bytes(b"half")
    model, optimizer = small_model()
    restored = restore_latest(saved, model, optimizer, pytest.fail)
    assert restored is not None
    assert restored.position == Position(2, 16)
    save(saved, 24, model, optimizer, progress_at(24))
    assert names(saved) == ["00000016", "00000024"]


def test_a_failed_save_leaves_nothing(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("simimg.training.checkpoints.write_json", fail)
    with pytest.raises(OSError, match="no space left"):
        save(saved, 24, *small_model(), progress_at(24))
    assert names(saved) == ["00000008", "00000016"]


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"state_sha256": "0", "position": {}}',
        b'{"state_sha256": 1, "position": {"epoch": 0, "step": 0}, "metrics": {}, "history": []}',
    ],
)
def test_whatever_has_happened_to_checkpoint_json(saved: Path, content: bytes | None) -> None:
    path = saved / "checkpoints" / "00000016" / "checkpoint.json"
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    warnings: list[str] = []
    model, optimizer = small_model()
    restored = restore_latest(saved, model, optimizer, warnings.append)
    assert restored is not None
    assert restored.position == Position(2, 8)
    assert np.all(model.get_weights()[0] == 8)
    assert len(warnings) == 1
    assert "00000016 is damaged and passed over" in warnings[0]


def test_a_part_that_is_missing_is_noticed_though_the_state_is_whole(saved: Path) -> None:
    path = saved / "checkpoints" / "00000016" / "checkpoint.json"
    values = json.loads(path.read_text())
    del values["seconds"]
    path.write_text(json.dumps(values))
    restored = restore_latest(saved, *small_model(), warn=lambda text: None)
    assert restored is not None
    assert restored.position == Position(2, 8)


def test_a_changed_bit_of_the_weights(saved: Path) -> None:
    for name in names(saved):
        state = saved / "checkpoints" / name / "state.npz"
        damaged = bytearray(state.read_bytes())
        damaged[len(damaged) // 2] ^= 1
        state.write_bytes(damaged)
    warnings: list[str] = []
    with pytest.raises(CheckpointError, match="none of its 2 checkpoints is sound. Remove the folder"):
        restore_latest(saved, *small_model(), warn=warnings.append)
    assert len(warnings) == 2


def test_another_model_or_optimizer_is_refused(saved: Path) -> None:
    with pytest.raises(CheckpointError, match="has the shape"):
        restore_latest(saved, *small_model(units=5), warn=pytest.fail)
    model, _ = small_model()
    other = keras.optimizers.SGD(1e-3)
    other.build(model.trainable_variables)
    with pytest.raises(CheckpointError, match="another model or optimizer"):
        restore_latest(saved, model, other, pytest.fail)
