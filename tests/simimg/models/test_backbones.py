"""The contract of every model, and Lite0 against an independent forward pass and against real photographs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from simimg.errors import UsageError
from simimg.models.backbones import lite, lite_features, small, tutorial
from simimg.models.dropout import ExampleDropout, dropout_scope
from simimg.models.heads import embedder, probabilities
from simimg.models.pretrained import assign
from simimg.models.torch_pickle import read_lite

pytestmark = pytest.mark.own_process

PHOTOS = Path(__file__).resolve().parents[3] / "../shared/caltech101"

BUILDERS: dict[str, tuple[Callable[[int, int], keras.Model], int]] = {
    "tutorial": (tutorial, 512),
    "small": (small, 192),
    "lite0": (functools.partial(lite, "lite0"), 1280),
    "lite0 enlarged": (lambda image_size, num_classes: lite("lite0", image_size, num_classes, resolution=48), 1280),
    "lite0 random": (lambda image_size, num_classes: lite("lite0", image_size, num_classes, weights=None), 1280),
}


@pytest.fixture
def pixels() -> np.ndarray[Any, Any]:
    """uint8 [3, 32, 32, 3]."""
    return np.random.default_rng(5).integers(0, 256, (3, 32, 32, 3), np.uint8)


@pytest.mark.parametrize("name", ["tutorial", "small", "lite0", "lite0 enlarged"])
def test_contract(name: str, pixels: np.ndarray[Any, Any], tmp_path: Path) -> None:
    build, dim = BUILDERS[name]
    keras.utils.set_random_seed(4)
    model = build(32, 7)
    got = model(pixels)
    assert got.shape == (3, 7)
    assert got.dtype == "float32"
    np.testing.assert_allclose(np.sum(got, axis=1), 1, atol=1e-5)
    assert model.layers[-1].name == "probabilities"
    assert model.get_layer("embedding").output.shape == (None, dim)
    np.testing.assert_array_equal(model(pixels.astype(np.float32)), got)

    seen = [layer.stream for layer in model.layers if isinstance(layer, ExampleDropout)]
    assert seen
    assert len(set(seen)) == len(seen)
    assert not any(type(layer) is keras.layers.Dropout for layer in model.layers)

    path = tmp_path / "model.keras"
    model.save(path)
    again = keras.models.load_model(path)
    np.testing.assert_allclose(again(pixels), got, atol=1e-6)
    np.testing.assert_array_equal(embedder(again)(pixels), embedder(model)(pixels))


@pytest.mark.parametrize("name", ["tutorial", "small", "lite0", "lite0 random"])
def test_every_weight_is_trained_and_masks_follow_the_step(name: str, pixels: np.ndarray[Any, Any]) -> None:
    keras.utils.set_random_seed(4)
    model = BUILDERS[name][0](32, 7)

    def run(step: int) -> Any:
        with tf.GradientTape() as tape, dropout_scope(seed=(1, step), first_row=0):
            output = model(pixels, training=True)
            loss = -tf.reduce_sum(tf.math.log(output[:, 0]))
        return output, tape.gradient(loss, model.trainable_variables)

    output, gradients = run(0)
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    np.testing.assert_allclose(run(0)[0], output, atol=1e-6)
    assert not np.allclose(run(1)[0], output, atol=1e-4)


@pytest.mark.parametrize("name", ["tutorial", "small", "lite0 enlarged"])
def test_mixed_precision_changes_little_and_the_softmax_stays_float32(name: str, pixels: np.ndarray[Any, Any]) -> None:
    model = BUILDERS[name][0](32, 7)
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        mixed = BUILDERS[name][0](32, 7)
    finally:
        keras.config.set_dtype_policy(policy)
    mixed.set_weights(model.get_weights())
    got = mixed(pixels)
    assert got.dtype == "float32"
    assert mixed.get_layer("embedding").compute_dtype == "bfloat16"
    np.testing.assert_allclose(np.sum(got, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(embedder(mixed)(pixels), embedder(model)(pixels), atol=0.03)


def test_small_is_small() -> None:
    model = small(64, 101)
    assert model.count_params() < 3_000_000
    assert 130e6 < _multiply_adds(model) < 190e6


def test_blocks_of_small_start_as_the_identity(pixels: np.ndarray[Any, Any]) -> None:
    model = small(32, 3)
    names = ("stem_relu", "stage0_block0_relu2", "stage0_block1_relu2")
    maps = keras.Model(model.input, [model.get_layer(name).output for name in names])(pixels, training=True)
    np.testing.assert_array_equal(maps[1], maps[0])
    np.testing.assert_array_equal(maps[2], maps[0])


def imagenet_classifier(name: str, resolution: int | None = None) -> keras.Model:
    """Returns EfficientNet-Lite with ImageNet's own 1,000 classes (top-1 of Lite0 on the validation set: 75.1 %)."""
    features, tensors = lite_features(name, resolution), read_lite(name)
    model = keras.Model(features.input, probabilities(features.output, 1000))
    assign(model.get_layer("probabilities"), {"kernel": "_fc.weight", "bias": "_fc.bias"}, tensors)
    return model


@pytest.mark.parametrize(
    ("name", "num_blocks", "halving"),
    [("lite0", 16, (1, 3, 5, 11)), ("lite1", 21, (1, 4, 7, 15)), ("lite2", 21, (1, 4, 7, 15))],
)
def test_lite_equals_an_independent_forward_pass_in_float64(
    name: str, num_blocks: int, halving: tuple[int, ...]
) -> None:
    """Resolution 40 leaves maps of 20, 10, 5, 3 and 2: even and odd sizes under stride 2, as "SAME" pads them."""
    pixels = np.random.default_rng(8).uniform(0, 255, (2, 40, 40, 3))
    features, logits = _forward(read_lite(name), pixels, num_blocks, halving)
    np.testing.assert_allclose(lite_features(name, 40)(pixels), features, rtol=1e-3, atol=1e-3)
    expected = np.exp(logits - logits.max(axis=1, keepdims=True))
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(imagenet_classifier(name, 40)(pixels), expected, rtol=1e-2, atol=1e-5)
    np.testing.assert_allclose(
        embedder(lite(name, 40, 5))(pixels), features / np.linalg.norm(features, axis=1, keepdims=True), atol=1e-4
    )


def test_two_side_by_side_have_the_features_of_each_at_its_own_resolution(pixels: np.ndarray[Any, Any]) -> None:
    """The first is shown no more than its weights were made for, 240 px."""
    model = lite("lite1+lite2", 32, 3, resolution=260)
    apart = [embedder(lite(name, 32, 3, resolution=side))(pixels) for name, side in (("lite1", 240), ("lite2", 260))]
    both = np.concatenate(apart, axis=1) / np.sqrt(2)
    np.testing.assert_allclose(embedder(model)(pixels), both, atol=1e-5)
    assert [layer.name for layer in model.layers if layer.name.endswith("_enlarged")] == [
        "lite1_enlarged",
        "lite2_enlarged",
    ]


def test_lite0_gives_the_features_it_always_gave() -> None:
    """Indexes on disk were made with these numbers: when this fails, old indexes and new queries do not match."""
    ramp = np.linspace(0, 255, 64)
    pixels = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None, :], 255 - ramp[:, None]), axis=-1)[None]
    features = lite_features("lite0", 64)(pixels).numpy()[0]
    golden = {200: 0.13901, 360: 0.16163, 400: 0.35452, 920: 0.47051, 1040: 2.92787, 1240: 0.08355}
    np.testing.assert_allclose(features[list(golden)], list(golden.values()), rtol=1e-3)
    assert features.mean() == pytest.approx(0.3728613, rel=1e-3)


@pytest.mark.skipif(not PHOTOS.is_dir(), reason=f"needs the Caltech 101 photographs in {PHOTOS}")
def test_lite0_recognizes_photographs() -> None:
    """Ten classes that ImageNet has too, three photographs each, cropped and resized as ImageNet's were."""
    classes = {
        "accordion": {401},
        "bonsai": {738},
        "chair": {423, 559, 765, 857},
        "dalmatian": {251},
        "elephant": {101, 385, 386},
        "grand_piano": {579},
        "hedgehog": {334},
        "laptop": {620, 681},
        "panda": {388},
        "pizza": {963},
    }
    model = imagenet_classifier("lite0")
    truth = [labels for labels in classes.values() for _ in range(3)]
    paths = [path for name in classes for path in sorted((PHOTOS / name).glob("*.jpg"))[:3]]
    # One after the other: what each layer puts out is kept until the last one has, 30 MB an image.
    top1 = [int(model(_center(path, 224)[None]).numpy().argmax()) for path in paths]
    correct = sum(label in labels for label, labels in zip(top1, truth, strict=True))
    assert len(paths) == 30
    assert correct >= 27, f"top-1 {correct} of 30"


def test_lite0_enlarges_its_input_bilinearly(pixels: np.ndarray[Any, Any]) -> None:
    enlarged = tf.image.resize(tf.cast(pixels, tf.float32), (48, 48), "bilinear")
    expected = embedder(lite_features("lite0", 48))(enlarged)
    np.testing.assert_allclose(embedder(lite("lite0", 32, 5, resolution=48))(pixels), expected, atol=1e-4)
    assert not np.allclose(embedder(lite("lite0", 32, 5))(pixels), expected, atol=1e-2)


def test_lite0_keeps_imagenet_s_statistics_in_training_and_estimates_them_without(
    pixels: np.ndarray[Any, Any],
) -> None:
    pretrained, random = lite("lite0", 32, 5), lite("lite0", 32, 5, weights=None)
    for model, changes in ((pretrained, False), (random, True)):
        statistics = [v for v in model.variables if "moving_" in v.path]
        before = [v.numpy().copy() for v in statistics]
        model(pixels, training=True)
        assert len(statistics) == 2 * 49
        assert changes == any(not np.array_equal(v.numpy(), b) for v, b in zip(statistics, before, strict=True))


def test_random_weights_differ_from_imagenet_s(pixels: np.ndarray[Any, Any]) -> None:
    assert not np.allclose(embedder(lite("lite0", 32, 5))(pixels), embedder(lite("lite0", 32, 5, weights=None))(pixels))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: small(31, 5), "at least 32 .*image_size=31"),
        (lambda: small(32, 1), "num_classes=1"),
        (lambda: lite("lite0", 31, 5), "at least 32 .*image_size=31"),
        (lambda: lite("lite0", 64, 5, resolution=63), "resolution=63, image_size=64"),
        (lambda: lite("lite0", 64, 5, weights="noisy"), "weights='noisy'"),
        (lambda: lite_features("lite0", 0), "at least 32"),
    ],
)
def test_bad_arguments_are_refused(build: Callable[[], Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build()


def _multiply_adds(model: keras.Model) -> int:
    kernels = [layer for layer in model.layers if hasattr(layer, "kernel")]
    return sum(int(np.prod(layer.output.shape[1:-1]) * np.prod(layer.kernel.shape)) for layer in kernels)


def _center(path: Path, size: int) -> Any:
    """The middle 87.5 % of the shorter side, square, bicubic: how ImageNet's validation images are taken."""
    image = tf.io.decode_jpeg(tf.io.read_file(str(path)), channels=3)
    side = int(min(image.shape[:2]) * 0.875)
    top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    image = image[top : top + side, left : left + side]
    return tf.clip_by_value(tf.image.resize(image, (size, size), "bicubic", antialias=True), 0, 255)


def _forward(
    tensors: dict[str, np.ndarray[Any, Any]], pixels: np.ndarray[Any, Any], num_blocks: int, halving: tuple[int, ...]
) -> tuple[Any, Any]:
    """Features and logits, from PyTorch's tensors as they are, in NumPy, without a word of the code under test."""
    t = {name: value.astype(np.float64) for name, value in tensors.items()}

    def conv(x: Any, name: str, stride: int = 1) -> Any:
        weight = t[f"{name}.weight"]
        k, depthwise = weight.shape[2], "depthwise" in name
        pads = []
        for n in x.shape[1:3]:
            total = max((-(-n // stride) - 1) * stride + k - n, 0)
            pads.append((total // 2, total - total // 2))
        x = np.pad(x, [(0, 0), *pads, (0, 0)])
        windows = np.lib.stride_tricks.sliding_window_view(x, (k, k), (1, 2))[:, ::stride, ::stride]
        if depthwise:
            return np.einsum("bhwckl,ckl->bhwc", windows, weight[:, 0])
        return np.einsum("bhwikl,oikl->bhwo", windows, weight)

    def norm(x: Any, name: str) -> Any:
        deviation = np.sqrt(t[f"{name}.running_var"] + 1e-3)
        x = (x - t[f"{name}.running_mean"]) / deviation
        return x * t[f"{name}.weight"] + t[f"{name}.bias"]

    def relu6(x: Any) -> Any:
        return np.clip(x, 0, 6)

    x = relu6(norm(conv((pixels - 127) / 128, "_conv_stem", 2), "_bn0"))
    for index in range(num_blocks):
        name, y = f"_blocks.{index}", x
        if index > 0:
            y = relu6(norm(conv(y, f"{name}._expand_conv"), f"{name}._bn0"))
        stride = 2 if index in halving else 1
        y = relu6(norm(conv(y, f"{name}._depthwise_conv", stride), f"{name}._bn1"))
        y = norm(conv(y, f"{name}._project_conv"), f"{name}._bn2")
        x = x + y if x.shape == y.shape else y
    features = relu6(norm(conv(x, "_conv_head"), "_bn1")).mean(axis=(1, 2))
    return features, features @ t["_fc.weight"].T + t["_fc.bias"]
