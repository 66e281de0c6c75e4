"""SSCD's weights in simimg's layers, against what PyTorch computed with them (tests/golden/make_sscd.py)."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from simimg.errors import ModelError, UsageError
from simimg.models.frozen_conv import FrozenNormConv2D
from simimg.models.heads import embedder, search_embedder
from simimg.models.resnet import Stage, resnet_embedder
from simimg.models.sscd import sscd
from simimg.models.torch_zip import read_torch_file

GOLDEN = Path(__file__).parents[2] / "golden"
Tensors = dict[str, np.ndarray]


def pictures() -> np.ndarray:
    """Those of tests/golden/make_sscd.py."""
    noise = np.random.default_rng(5).integers(0, 256, (48, 48, 3), np.uint8)
    y, x = np.mgrid[:48, :48]
    return np.stack([noise, np.stack([5 * y, 5 * x, 2 * (x + y)], axis=-1).astype(np.uint8)])


@pytest.fixture
def tensors() -> Tensors:
    return read_torch_file(GOLDEN / "sscd-tiny.torchvision.pt")


@pytest.mark.parametrize(
    ("file", "expected"), [("torchvision", "torchvision"), ("torchscript", "torchvision"), ("traced", "traced")]
)
def test_embeddings_are_those_of_pytorch(file: str, expected: str) -> None:
    model = sscd(read_torch_file(GOLDEN / f"sscd-tiny.{file}.pt"), 48)
    assert model.get_layer("stage2_block0_spatial").groups == (2 if file == "traced" else 1)
    embeddings = np.load(GOLDEN / "sscd-tiny.embeddings.npz")[expected]
    np.testing.assert_allclose(embedder(model)(pictures()), embeddings, atol=2e-6)
    np.testing.assert_allclose(search_embedder(model)(pictures()), embeddings, atol=2e-6)


def test_a_saved_model_computes_the_same(tensors: Tensors, tmp_path: Path) -> None:
    model = sscd(tensors, 48)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    np.testing.assert_array_equal(again(pictures()), model(pictures()))


def test_the_golden_embeddings_notice_what_is_easily_got_wrong(tensors: Tensors) -> None:
    """Each of these is a network that runs; none may pass for PyTorch's."""
    expected = np.load(GOLDEN / "sscd-tiny.embeddings.npz")["torchvision"]

    def difference(model: keras.Model, images: np.ndarray) -> float:
        return float(np.abs(embedder(model)(images) - expected).max())

    assert difference(sscd(tensors, 48), pictures()) < 2e-6
    assert difference(sscd(tensors, 48), pictures()[..., ::-1]) > 1e-3  # BGR
    assert difference(sscd(tensors, 48), pictures().transpose(0, 2, 1, 3)) > 1e-3
    for attribute, value in (("padding", None), ("epsilon", 1e-3)):
        model = sscd(tensors, 48)
        for layer in model.layers:
            if isinstance(layer, FrozenNormConv2D):
                setattr(layer, attribute, value)
        assert difference(model, pictures()) > 1e-4, attribute
    model = sscd(tensors, 48)
    model.get_layer("generalized_mean").power = 1.0
    assert difference(model, pictures()) > 1e-3


def test_other_prefixes_and_half_precision(tensors: Tensors) -> None:
    expected = np.load(GOLDEN / "sscd-tiny.embeddings.npz")["torchvision"]
    for prefix in ("", "model.backbone."):
        renamed = {prefix + name.removeprefix("backbone."): value for name, value in tensors.items()}
        np.testing.assert_allclose(embedder(sscd(renamed, 48))(pictures()), expected, atol=2e-6)
    half = {name: value.astype(np.float16) for name, value in tensors.items()}
    np.testing.assert_allclose(embedder(sscd(half, 48))(pictures()), expected, atol=1e-2)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"backbone.layer1.1.bn2.running_var": None}, r"layer1\.1\.bn2\.running_var missing"),
        ({"backbone.layer1.0.conv3.weight": None}, r"layer1\.0\.conv3\.weight is missing"),
        ({"backbone.fc.weight": None}, r"backbone\.fc\.weight is missing"),
        ({"backbone.fc.bias": None}, r"backbone\.fc\.bias missing"),
        ({"classifier.weight": np.zeros(3)}, r"classifier\.weight not expected"),
        ({"backbone.layer3.0.conv1.bias": np.zeros(3)}, r"layer3\.0\.conv2\.weight is missing"),
        ({"backbone.layer1.5.conv1.weight": np.zeros(3)}, r"layer1\.2\.bn1\.bias.* and \d+ more missing"),
        ({"backbone.layer1.1.bn2.weight": np.zeros(5)}, r"bn2\.weight does not fit.*\(5,\).*\(4,\)"),
        ({"backbone.layer1.1.conv2.weight": np.zeros((4, 4, 5, 5))}, r"conv2\.weight does not fit"),
        ({"backbone.layer1.0.conv2.weight": np.zeros((4, 3, 3, 3))}, "not a multiple of the group width 3"),
        ({"backbone.layer1.0.conv2.weight": np.zeros((4, 4))}, r"has the shape \(4, 4\); it should have 4"),
        ({"backbone.layer1.0.conv2.weight": np.zeros((4, 0, 3, 3))}, "has the shape"),
        ({"backbone.fc.weight": np.zeros((8, 17))}, r"fc\.weight does not fit"),
    ],
)
def test_what_does_not_fit_is_named(tensors: Tensors, changes: dict, words: str) -> None:
    changed = {name: value for name, value in {**tensors, **changes}.items() if value is not None}
    with pytest.raises(ModelError, match=words):
        sscd(changed, 48)


def test_other_networks_are_refused(tensors: Tensors) -> None:
    with pytest.raises(ModelError, match=r"neither .*backbone\.conv1\.weight.*There are a\.weight, b\.weight\."):
        sscd({"b.weight": np.zeros(1), "a.weight": np.zeros(1)}, 48)
    with pytest.raises(ModelError, match="neither"):
        sscd({}, 48)
    with pytest.raises(UsageError, match="at least 32"):
        sscd(tensors, 16)


def test_resnet_50_is_what_the_paper_says() -> None:
    """25,557,032 trained weights in torchvision, of which 2,049,000 are ImageNet's classifier."""
    model = resnet_embedder(
        64, [Stage(3, 64, 256, 1), Stage(4, 128, 512, 1), Stage(6, 256, 1024, 1), Stage(3, 512, 2048, 1)], 512, 288
    )
    trained = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    assert trained == 25_557_032 - 2_049_000 + 2048 * 512 + 512
    assert model.get_layer("generalized_mean").input.shape == (None, 9, 9, 2048)
    assert model.output_shape == (None, 512)
    assert model.get_layer("stage2_block0_spatial").strides == 2
    assert model.get_layer("stage2_block0_reduce").strides == 1
