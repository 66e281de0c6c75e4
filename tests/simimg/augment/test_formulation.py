"""Which formulation augments: measured once per kind of device, kept, and overridden by an option."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import kernels

from simimg.augment import AugmentConfig, augment, augmentation, fastest, formulation, measure_formulations
from simimg.errors import UsageError
from simimg.training import TrainConfig, run_setup

IMAGES = tf.constant(np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), np.uint8))
IDS, EPOCH = tf.range(4, dtype=tf.int64), tf.constant(1, tf.int64)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(formulation, "_MEASURED_S", 0.01)
    formulation._IN_USE.clear()
    yield tmp_path / "simimg/gpus.json"
    formulation._IN_USE.clear()


@pytest.fixture
def a_gpu(monkeypatch: pytest.MonkeyPatch) -> str:
    """Has TensorFlow list a GPU, whose work the processor does; returns the name of its kind."""
    there = [SimpleNamespace(device_type="GPU")]
    for name in ("list_logical_devices", "list_physical_devices"):
        monkeypatch.setattr(tf.config, name, lambda kind=None: there)
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda device: {"device_name": "NVIDIA T0"})
    probe = augmentation._probe
    monkeypatch.setattr(augmentation, "_probe", lambda formulation, device: probe(formulation, "CPU:0"))
    monkeypatch.setattr(augmentation, "_PROBED", 2)
    return f"NVIDIA T0, TensorFlow {tf.__version__}"


@pytest.fixture
def measured_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formulation, "_milliseconds", lambda augmented: 1.0)


def test_a_gpu_is_measured_once(a_gpu: str, cache: Path) -> None:
    assert formulation.resolved("auto") == "operations"  # before it is measured
    first = measure_formulations()
    assert first is not None
    times, was_known = first
    assert not was_known
    assert set(times) == {"operations", "xla"}
    assert all(ms > 0 for ms in times.values())
    assert json.loads(cache.read_text()) == {a_gpu: times}
    assert measure_formulations() == (times, True)
    assert formulation.resolved("auto") == fastest(times)
    config = TrainConfig(dataset_dir=Path())
    sentence = run_setup._augmented_with(config)
    assert sentence.startswith(f"augmenting with {fastest(times)}: operations {times['operations']:.2f} ms per batch")
    assert sentence.endswith("(measured earlier); --augment_with overrides it")
    assert run_setup._augmented_with(TrainConfig(dataset_dir=Path(), augment_with="xla")) == ""


@pytest.mark.parametrize("content", ["", "[]", "no JSON", '{"NVIDIA T0": 1}'])
@pytest.mark.usefixtures("measured_at_once")
def test_what_was_kept_before(a_gpu: str, cache: Path, content: str) -> None:
    """Of another kind of GPU it is kept, and what cannot be used is measured again."""
    cache.parent.mkdir()
    cache.write_text(content)
    assert measure_formulations() is not None
    kept = json.loads(cache.read_text())
    assert a_gpu in kept
    assert ("NVIDIA T0" in kept) == content.startswith("{")
    faster = {"operations": 2.0, "xla": 1.0}
    cache.write_text(json.dumps({**kept, a_gpu: faster}))
    formulation._IN_USE.clear()
    assert measure_formulations() == (faster, True)
    assert formulation.resolved("auto") == "xla"
    cache.write_text(json.dumps({a_gpu: {"operations": "fast", "xla": 1.0}}))
    formulation._IN_USE.clear()
    measured = measure_formulations()
    assert measured is not None
    assert not measured[1]


@pytest.mark.usefixtures("a_gpu")
def test_a_folder_that_cannot_be_written(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was measured still counts for this process."""
    times = iter([2.0, 1.0])
    monkeypatch.setattr(formulation, "_milliseconds", lambda augmented: next(times))
    cache.parent.write_text("a file, where the folder should be")
    assert formulation.resolved("auto") == "operations"
    found = {"operations": 2.0, "xla": 1.0}
    assert measure_formulations() == (found, False)
    assert measure_formulations() == (found, True)
    assert formulation.resolved("auto") == "xla"


def test_a_write_that_fails_leaves_nothing_behind(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    formulation._keep("NVIDIA T0", {"operations": 2.0, "xla": 1.0})
    assert list(cache.parent.iterdir()) == []


def test_without_a_cache_folder_nothing_is_kept(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", "~/.cache")
    formulation._keep("NVIDIA T0", {"operations": 2.0, "xla": 1.0})
    assert formulation._read() == {}
    assert not list(tmp_path.iterdir())


def test_writers_at_the_same_time_lose_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each one reads what the other wrote."""
    read = formulation._read

    def slowly() -> dict[str, formulation.Milliseconds]:
        found = read()
        time.sleep(0.02)
        return found

    monkeypatch.setattr(formulation, "_read", slowly)
    names = {f"NVIDIA T{number}" for number in range(4)}
    with ThreadPoolExecutor(len(names)) as threads:
        list(threads.map(lambda name: formulation._keep(name, {"operations": 2.0, "xla": 1.0}), names))
    assert set(json.loads(cache.read_text())) == names


def test_a_processor_is_not_measured(cache: Path) -> None:
    assert measure_formulations() is None
    assert formulation.resolved("auto") == "xla"
    assert run_setup._augmented_with(TrainConfig(dataset_dir=Path())) == ""
    assert not cache.exists()


def test_an_option_overrides_it() -> None:
    pixels = {
        name: augment(AugmentConfig(crop_min_area=0.5, augment_with=name), 0, EPOCH, IDS, IMAGES).numpy()
        for name in ("auto", "xla", "operations")
    }
    np.testing.assert_array_equal(pixels["auto"], pixels["xla"])
    assert np.mean(np.abs(pixels["xla"] - pixels["operations"]) < 1.1) > 0.99
    assert not np.array_equal(pixels["xla"], pixels["operations"])
    with pytest.raises(UsageError, match=r"--augment_with=cuda: should be one of auto, operations, xla\."):
        AugmentConfig(augment_with="cuda")


@pytest.mark.parametrize(
    ("border", "others"),
    [
        ("reflect", {"augmix": 3.0, "cutmix": 1.0, "three_augment": True}),
        ("constant", {"rand_augment": "2,9", "mixup": 0.2, "noise": 9.0, "erase": 0.5}),
    ],
)
def test_xla_can_compile_each_operation_for_gpus(border: str, others: dict[str, Any]) -> None:
    """TensorFlow's wheel registers what XLA can compile for GPUs on any machine."""
    everything = {"vertical_flip": True, "crop_min_area": 0.35, "colour_jitter": 0.4, "grayscale": 0.2, "blur": 2.0}
    everything |= {"min_jpeg_quality": 30.0, "cutout": 0.5, "quarter_turns": 0.3, "paste": 0.3, "bars": 0.3}
    config = AugmentConfig(**everything, **others, border=border)
    function = tf.function(augmentation._augmented(config, 0, on_gpu=False))
    graph = function.get_concrete_function(EPOCH, IDS, tf.constant(0, tf.int64), IMAGES).graph.as_graph_def()
    ops = {
        node.op for part in (graph, *graph.library.function) for node in getattr(part, "node", None) or part.node_def
    }
    assert {"GatherV2", "Einsum"} <= ops

    def devices(op: str) -> set[str]:
        return {kernel.device_type for kernel in kernels.get_registered_kernels_for_op(op).kernel}

    assert not {op for op in ops - {"Placeholder"} if "XLA_GPU_JIT" not in devices(op)}
    assert "XLA_GPU_JIT" not in devices("ImageProjectiveTransformV3")  # so there are two formulations
