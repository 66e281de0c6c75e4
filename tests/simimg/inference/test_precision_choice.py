"""The precision of a new index: measured once per machine, and only where bfloat16 can be faster."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import numpy as np
import pytest

from simimg import api
from simimg.errors import UsageError
from simimg.inference import litert_network, openvino_network, precision_choice
from simimg.inference.network_cache import ConvertedNetwork, NetworkFacts
from simimg.inference.precision_choice import PrecisionChoice, faster_precision

FACTS = NetworkFacts(fingerprint="f" * 64, image_size=16, dim=4, largest_difference=0.0)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """A processor with bfloat16 and OpenVINO, as far as anybody asks; what a test changes is another machine."""
    answers: dict[str, object] = {"gpu": False, "bfloat16": True, "openvino": True, "processor": "EPYC"}
    monkeypatch.setattr(precision_choice, "may_have_gpu", lambda: answers["gpu"])
    monkeypatch.setattr(precision_choice, "has_bfloat16", lambda: answers["bfloat16"])
    monkeypatch.setattr(precision_choice, "processor_name", lambda: answers["processor"])
    monkeypatch.setattr(precision_choice.importlib.util, "find_spec", lambda name: answers["openvino"] or None)
    return answers


@pytest.fixture
def measured(machine: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """The machines that were measured; all of them choose bfloat16."""
    calls: list[dict[str, object]] = []

    def measure(converted: ConvertedNetwork, machine: dict[str, object]) -> PrecisionChoice:
        calls.append(machine)
        return PrecisionChoice(
            precision="bfloat16", float32_ms=2.8, bfloat16_ms=1.3, least_cosine=0.99, machine=machine
        )

    monkeypatch.setattr(precision_choice, "converted_network", lambda model, output: ConvertedNetwork(FACTS, b"net"))
    monkeypatch.setattr(precision_choice, "network_places", lambda model, output: [tmp_path / "no/x.tflite", place])
    monkeypatch.setattr(precision_choice, "_measured", measure)
    place = tmp_path / "embedding.tflite"
    return calls


def test_a_machine_is_measured_once(
    measured: list[dict[str, object]], machine: dict[str, object], tmp_path: Path
) -> None:
    for _ in range(3):
        assert faster_precision("lite0") == "bfloat16"
    assert len(measured) == 1  # kept in the second place, because the first one cannot be written
    machine["processor"] = "another"
    assert faster_precision("lite0") == "bfloat16"
    (tmp_path / "embedding.speed.json").write_text("{}")
    assert faster_precision("lite0") == "bfloat16"
    assert [one["processor"] for one in measured] == ["EPYC", "another", "another"]
    assert "OpenVINO" in str(measured[0]["bfloat16"])


@pytest.mark.parametrize("change", [{"gpu": True}, {"bfloat16": False}, {"openvino": False}])
def test_nothing_is_measured_where_bfloat16_cannot_be_faster(
    measured: list[dict[str, object]], machine: dict[str, object], change: dict[str, object]
) -> None:
    machine.update(change)
    assert faster_precision("lite0") == "float32"
    assert not measured


def test_a_network_that_litert_cannot_run_is_not_measured(
    measured: list[dict[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = ConvertedNetwork(dataclasses.replace(FACTS, refused="it lacks an operation"), b"")
    monkeypatch.setattr(precision_choice, "converted_network", lambda model, output: refused)
    assert faster_precision("lite0") == "float32"
    assert faster_precision("model.onnx") == "float32"
    assert not measured


@pytest.mark.parametrize(
    ("seconds", "error", "chosen"),
    [((0.02, 0.005), 0.01, "bfloat16"), ((0.02, 0.019), 0.01, "float32"), ((0.02, 0.005), 0.5, "float32")],
)
def test_bfloat16_has_to_be_faster_and_near_enough(
    monkeypatch: pytest.MonkeyPatch, seconds: tuple[float, float], error: float, chosen: str
) -> None:
    def engine(seconds: float, error: float) -> object:
        def network(images: np.ndarray) -> np.ndarray:
            time.sleep(seconds)
            return np.tile(np.array([1.0, error, 0.0, 0.0], np.float32), (len(images), 1))

        return lambda content: network

    monkeypatch.setattr(litert_network, "LiteRtNetwork", engine(seconds[0], 0.0))
    monkeypatch.setattr(openvino_network, "OpenVinoNetwork", engine(seconds[1], error))
    monkeypatch.setattr(precision_choice, "_MOST_ROUNDS", 2)
    choice = precision_choice._measured(ConvertedNetwork(FACTS, b""), {})
    assert choice.precision == chosen
    assert choice.least_cosine == pytest.approx(1 / np.hypot(1, error), abs=1e-5)


def test_an_openvino_that_cannot_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    def cannot(content: bytes) -> object:
        raise UsageError("OpenVINO would compute in f32.")

    monkeypatch.setattr(litert_network, "LiteRtNetwork", lambda content: lambda images: np.ones((len(images), 4)))
    monkeypatch.setattr(openvino_network, "OpenVinoNetwork", cannot)
    assert precision_choice._measured(ConvertedNetwork(FACTS, b""), {}).precision == "float32"


def test_only_a_new_index_of_many_images_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision_choice, "faster_precision", lambda model: "bfloat16")
    monkeypatch.setattr("simimg.inference.network.MANY", 3)
    for number in range(2):
        (tmp_path / f"{number}.png").touch()
    assert api.search_api._new_precision("lite0", None, tmp_path) == "float32"
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/2.png").touch()
    assert api.search_api._new_precision("lite0", None, tmp_path) == "bfloat16"
    assert api.search_api._new_precision("lite0", None, tmp_path / "missing") == "float32"
    assert api.search_api._new_precision("lite0", tmp_path, None) == "float32"  # no dataset, which is reported later
