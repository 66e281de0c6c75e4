"""A checkpoint is there whole or not at all, and what has happened to it since is noticed."""

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from simimg.errors import CheckpointError, TrainingError
from simimg.input import Position
from simimg.training.checkpoints import Best, Progress, State, restore_latest, save
from simimg.training.metrics import EpochMetrics


def dense(units: int = 3) -> keras.Model:
    pixels = keras.Input((4,))
    return keras.Model(pixels, keras.layers.Dense(units)(pixels))


def small_state(units: int = 3) -> State:
    """A model with its optimizer and its average, without the numbers of any checkpoint."""
    model = dense(units)
    optimizer = keras.optimizers.AdamW(1e-3)
    optimizer.build(model.trainable_variables)
    return State(model, optimizer, dense(units))


def keep(folder: Path, step: int, state: State, progress: Progress) -> None:
    save(folder, step, state, progress, config={"seed": 3}, num_kept=2)


def progress_at(step: int) -> Progress:
    return Progress(
        position=Position(2, step),
        metrics=EpochMetrics(loss_sum=1.5, num_correct=3.0, num_examples=8),
        history=[{"epoch": 1, "loss": 0.1}, {"epoch": 2, "loss": 1 / 3}],
        seconds=2.5,
    )


def values_of(state: State) -> dict[str, np.ndarray]:
    return {name: np.array(variable.numpy()) for name, variable in state.variables().items()}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A run's folder with the checkpoints of steps 8 and 16."""
    state = small_state()
    for step in (4, 8, 16):
        for variable in state.variables().values():
            if variable.dtype == "float32":
                variable.assign(np.full(variable.shape, step, np.float32))
        keep(tmp_path, step, state, progress_at(step))
    assert names(tmp_path) == ["00000008", "00000016"]
    return tmp_path


def test_all_comes_back(tmp_path: Path) -> None:
    state = small_state()
    rng = np.random.default_rng(0)
    state.optimizer.apply([rng.normal(size=variable.shape) for variable in state.model.trainable_variables])
    keep(tmp_path, 7, state, progress_at(7))
    other = small_state()
    warnings: list[str] = []
    restored = restore_latest(tmp_path, other, warnings.append)
    assert restored == progress_at(7)
    assert not warnings
    theirs = values_of(state)
    assert {name.partition("/")[0] for name in theirs} == {"model", "optimizer", "average"}
    for name, mine in values_of(other).items():
        np.testing.assert_array_equal(mine, theirs[name])
    assert int(other.optimizer.iterations.numpy()) == 1


def test_a_checkpoint_has_all_that_a_run_is_told(saved: Path) -> None:
    values = json.loads((saved / "checkpoints" / "00000016" / "checkpoint.json").read_text())
    assert values["config"] == {"seed": 3}


def test_nothing_there(tmp_path: Path) -> None:
    assert restore_latest(tmp_path, small_state(), warn=pytest.fail) is None


def test_the_best_is_kept_beside_the_newest(tmp_path: Path) -> None:
    state = small_state()
    for step in (1, 2, 3, 4, 5):
        progress = progress_at(step)
        progress.best = Best(epoch=1, number=2, score=0.5, loss=1.0) if step >= 2 else None
        keep(tmp_path, step, state, progress)
    assert names(tmp_path) == ["00000002", "00000004", "00000005"]
    restored = restore_latest(tmp_path, state, pytest.fail)
    assert restored is not None
    assert restored.best == Best(epoch=1, number=2, score=0.5, loss=1.0)


@pytest.mark.parametrize("owner", ["model", "optimizer", "average"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_not_saved(saved: Path, owner: str, value: float) -> None:
    """As a run's last step may leave them, whose loss was still a number."""
    state = small_state()
    variables = [v for name, v in state.variables().items() if name.startswith(owner) and v.dtype == "float32"]
    variables[-1].assign(np.full(variables[-1].shape, value, np.float32))
    with pytest.raises(TrainingError, match="after step 24 some weights are NaN or infinite"):
        keep(saved, 24, state, progress_at(24))
    assert names(saved) == ["00000008", "00000016"]


def test_what_a_killed_process_left_is_ignored_and_cleared_away(saved: Path) -> None:
    leftover = saved / "checkpoints" / ".00000024.tmp-123"
    leftover.mkdir()
    (leftover / "state.npz").write_bytes(b"half")
    state = small_state()
    restored = restore_latest(saved, state, pytest.fail)
    assert restored is not None
    assert restored.position == Position(2, 16)
    keep(saved, 24, state, progress_at(24))
    assert names(saved) == ["00000016", "00000024"]


def test_a_failed_save_leaves_nothing(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("simimg.training.checkpoints.write_json", fail)
    with pytest.raises(OSError, match="no space left"):
        keep(saved, 24, small_state(), progress_at(24))
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
    state = small_state()
    restored = restore_latest(saved, state, warnings.append)
    assert restored is not None
    assert restored.position == Position(2, 8)
    assert np.all(state.model.get_weights()[0] == 8)
    assert len(warnings) == 1
    assert "00000016 is damaged and skipped" in warnings[0]


def test_a_changed_figure_is_noticed_though_the_state_is_whole(saved: Path) -> None:
    path = saved / "checkpoints" / "00000016" / "checkpoint.json"
    values = json.loads(path.read_text())
    values["history"][0]["loss"] = 0.2
    path.write_text(json.dumps(values))
    restored = restore_latest(saved, small_state(), warn=lambda text: None)
    assert restored is not None
    assert restored.position == Position(2, 8)


def test_a_changed_bit_of_the_weights(saved: Path) -> None:
    for name in names(saved):
        state = saved / "checkpoints" / name / "state.npz"
        damaged = bytearray(state.read_bytes())
        damaged[len(damaged) // 2] ^= 1
        state.write_bytes(damaged)
    warnings: list[str] = []
    with pytest.raises(CheckpointError, match="all of its 2 checkpoints are damaged. Remove the folder"):
        restore_latest(saved, small_state(), warn=warnings.append)
    assert len(warnings) == 2


def damage(folder: Path, step: int) -> bytes:
    state = folder / "checkpoints" / f"{step:08d}" / "state.npz"
    state.write_bytes(state.read_bytes()[:-1])
    return state.read_bytes()


def test_a_run_makes_progress_whose_newest_checkpoints_are_damaged(saved: Path) -> None:
    """Also if it is killed after each of its checkpoints: damaged ones do not count as the newest."""
    state = small_state()
    keep(saved, 24, state, progress_at(24))
    keep(saved, 20, state, progress_at(20))  # sets 24 aside
    assert restore_latest(saved, state, pytest.fail) == progress_at(20)
    for step in (28, 32):
        shutil.copytree(saved / "checkpoints" / "00000020", saved / "checkpoints" / f"{step:08d}")
    damaged = {step: damage(saved, step) for step in (28, 32)}
    for step in (21, 22, 23, 28, 29):
        keep(saved, step, state, progress_at(step))
        warnings: list[str] = []
        assert restore_latest(saved, small_state(), warnings.append) == progress_at(step)
        assert not warnings
    assert [name for name in names(saved) if name.isdecimal()] == ["00000028", "00000029"]
    aside = {name[:16]: name for name in names(saved) if not name.isdecimal()}
    assert set(aside) == {"damaged-00000024", "damaged-00000028", "damaged-00000032"}
    for step, content in damaged.items():
        assert (saved / "checkpoints" / aside[f"damaged-{step:08d}"] / "state.npz").read_bytes() == content


def test_all_damaged_ones_are_left_where_they_are(saved: Path) -> None:
    for step in (8, 16):
        damage(saved, step)
    for _ in range(2):  # a second call does not start anew either
        with pytest.raises(CheckpointError, match="all of its 2 checkpoints are damaged"):
            restore_latest(saved, small_state(), warn=lambda text: None)
    assert names(saved) == ["00000008", "00000016"]


def test_what_a_user_has_put_beside_them_stays(saved: Path) -> None:
    shutil.copytree(saved / "checkpoints" / "00000008", saved / "checkpoints" / "00000008-before-the-crash")
    (saved / "checkpoints" / "0-notes.txt").write_text("mine")
    state = small_state()
    assert restore_latest(saved, state, pytest.fail) == progress_at(16)
    for step in (24, 32):
        keep(saved, step, state, progress_at(step))
    assert names(saved) == ["0-notes.txt", "00000008-before-the-crash", "00000024", "00000032"]


def test_numbers_of_more_digits_are_newer(tmp_path: Path) -> None:
    state = small_state()
    for step in (99_999_998, 99_999_999, 100_000_000):
        keep(tmp_path, step, state, progress_at(step))
    assert restore_latest(tmp_path, state, pytest.fail) == progress_at(100_000_000)
    assert names(tmp_path) == ["100000000", "99999999"]


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.EMFILE, errno.EACCES])
def test_a_fault_of_the_disk_is_none_of_the_checkpoint(saved: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """It would go back to an older one, and set aside what may be whole."""

    def fail(*_: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("simimg.training.checkpoints.file_sha256", fail)
    with pytest.raises(CheckpointError, match=rf"00000016 cannot be read: {os.strerror(code)}\. It may be undamaged"):
        restore_latest(saved, small_state(), pytest.fail)


@pytest.mark.parametrize("code", [errno.EIO, errno.EACCES])
def test_nor_is_one_while_checkpoint_json_is_read(saved: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    read_bytes = Path.read_bytes

    def fail(path: Path) -> bytes:
        if path.name == "checkpoint.json":
            raise OSError(code, os.strerror(code), str(path))
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(CheckpointError, match=rf"00000016 cannot be read: {os.strerror(code)}\. It may be undamaged"):
        restore_latest(saved, small_state(), pytest.fail)


def test_a_missing_state_is_damage(saved: Path) -> None:
    (saved / "checkpoints" / "00000016" / "state.npz").unlink()
    warnings: list[str] = []
    assert restore_latest(saved, small_state(), warnings.append) == progress_at(8)
    assert "state.npz: No such file" in warnings[0]


def test_another_model_or_optimizer_is_refused(saved: Path) -> None:
    with pytest.raises(CheckpointError, match="has the shape"):
        restore_latest(saved, small_state(units=5), warn=pytest.fail)
    model = dense()
    other = keras.optimizers.SGD(1e-3)
    other.build(model.trainable_variables)
    with pytest.raises(CheckpointError, match="another model or optimizer"):
        restore_latest(saved, State(model, other, dense()), pytest.fail)
    with pytest.raises(CheckpointError, match="another model or optimizer"):
        restore_latest(saved, State(small_state().model, small_state().optimizer), pytest.fail)
