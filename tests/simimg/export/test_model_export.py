"""Exports of each kind of network, compared with the network, and run by other programs without simimg."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from simimg import cli
from simimg.errors import ModelError, UsageError
from simimg.export import model_export
from simimg.export.model_export import export_model
from simimg.models.backbones import small
from simimg.models.dropout import ExampleDropout
from simimg.models.frozen_conv import FrozenNormConv2D
from simimg.models.heads import EMBEDDING, copy_model, image_input, numbers, output_model, probabilities
from simimg.models.image_bytes import decoded_images, exif_orientation
from simimg.models.model_folder import RunInfo, load_model, save_folder
from simimg.models.saved_model import compiled
from tests.forked_process import run_forked
from tfrecords.convert.image.decoder import ImageOptions, load_image

SERVED = Path(__file__).parents[1] / "served.py"
NAMES = ("disc", "box", "été ☀")


def lite(image_size: int, num_classes: int) -> keras.Model:
    """A network with the layers of EfficientNet-Lite and of SSCD."""
    pixels = image_input(image_size, smallest=8)
    x = FrozenNormConv2D(8, 3, strides=2, name="stem")(pixels)
    x = FrozenNormConv2D(None, 3, strides=2, name="depthwise")(keras.layers.ReLU(6.0, name="relu6")(x))
    x = FrozenNormConv2D(8, 3, padding=1, strides=2, name="padded")(x)
    x = keras.layers.GlobalAveragePooling2D(name=EMBEDDING)(keras.layers.ReLU(name="relu")(x))
    return keras.Model(pixels, probabilities(ExampleDropout(0.2, stream=1)(x), num_classes), name="lite")


def with_weights(model: keras.Model) -> keras.Model:
    """Gives a network weights and statistics as after a training."""
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights + model.non_trainable_weights:
        if weight.dtype == "float32" and len(weight.shape) == 1:
            positive = "variance" in weight.name or "gamma" in weight.name
            weight.assign(rng.uniform(0.5, 1.5, weight.shape) if positive else rng.normal(0, 0.1, weight.shape))
    return model


# The kinds of outputs and of networks: name, network, objective and test-time views.
KINDS: dict[str, tuple[Any, str, str]] = {
    "small": (lambda: small(32, 3), "classes", "mirrored"),
    "lite": (lambda: lite(16, 3), "multilabel", "cropped"),
    "copy": (lambda: copy_model(lite(16, 3), 8), "similarity", "one"),
    "numbers": (lambda: output_model(lite(16, 2), numbers([5.0, 7.0, 9.0], [2.0, 3.0, 4.0])), "regression", "one"),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders of finished runs, one per kind, whose dataset is gone."""
    folder = tmp_path_factory.mktemp("runs")
    for name, (build, objective, views) in KINDS.items():
        keras.utils.set_random_seed(1)
        model = with_weights(build())
        info = RunInfo(
            image_size=model.input_shape[1],
            resize="crop",
            class_names=NAMES,
            dataset_sha256="",
            shuffle="uniform",
            config={"objective": objective, "test_views": views, "embedding_dim": 8, "dataset_dir": "/nowhere/1.0.0"},
        )
        save_folder(folder / name, model, info)
        model.save(folder / name / "custom.keras")  # as earlier versions wrote it
    return folder


def photo(seed: int, width: int, height: int) -> bytes:
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 7, 3), np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    buffer = io.BytesIO()
    exif = coarse.getexif()
    exif[0x0112] = seed
    coarse.save(buffer, "JPEG", quality=92, exif=exif)
    return buffer.getvalue()


def test_other_programs_run_each_signature(runs: Path, tmp_path: Path) -> None:
    """TensorFlow's C API, saved_model_cli, batched requests and Keras, in one process that never imports simimg."""
    inputs, expected = {}, {}
    for name, (_, _, views) in KINDS.items():
        folder = tmp_path / name
        folder.mkdir()
        made = export_model(runs / name, folder / "saved_model")
        assert made.largest_difference < 1e-5
        assert made.checked_on == "images of the package"
        (folder / "model.keras").write_bytes((runs / name / "model.keras").read_bytes())
        model, info = load_model(runs / name)
        contents = [photo(seed, 40, 56) for seed in (1, 6, 8)]
        options = ImageOptions(image_size=info.image_size, resize="crop", decode="exact")
        files = np.stack([load_image(content, options).pixels for content in contents])
        images = np.random.default_rng(0).integers(0, 256, (4, *model.input_shape[1:]), np.uint8)
        inputs[name] = {"image": images, "image_bytes": np.array(contents), "index": np.array([2, 0, 3, -1])}
        custom = keras.saving.load_model(runs / name / "custom.keras", compile=False)
        forward = compiled(custom, views=views)
        expected[name] = forward(images).numpy(), forward(files).numpy(), custom(images).numpy()
        np.savez(folder / "inputs.npz", **inputs[name])
        has_names = (folder / "saved_model" / "assets" / "class_names.txt").exists()
        assert has_names == (name != "copy")
        if has_names:
            assert (folder / "saved_model/assets/class_names.txt").read_text().splitlines() == list(NAMES)
    command = [sys.executable, "-P", str(SERVED), *(str(tmp_path / name) for name in KINDS)]
    done = run_forked(command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]

    for name in KINDS:
        of_pixels, of_files, plain = expected[name]
        with np.load(tmp_path / name / "outputs.npz") as file:
            found = dict(file)
        output = {"copy": "embedding", "numbers": "values"}.get(name, "probabilities")
        np.testing.assert_allclose(found["keras"], plain, atol=1e-5, rtol=1e-5)
        signatures = {"serving_default": of_pixels, "jpeg": of_files}
        outputs = {output} | ({"label"} if output == "probabilities" else set())
        wanted = {f"{signature}/{one}" for signature in signatures for one in outputs}
        wanted |= {"class_names/class_names"} if name != "copy" else set()
        assert set(found) == wanted | {f"cli/{one}" for one in wanted} | {f"batched/{one}" for one in outputs} | {
            "keras"
        }
        for way in ("", "cli/"):
            np.testing.assert_allclose(found[f"{way}serving_default/{output}"], of_pixels, atol=1e-5, rtol=1e-5)
            np.testing.assert_allclose(found[f"{way}jpeg/{output}"], of_files, atol=2e-2, rtol=2e-2)
            assert len(found[f"{way}jpeg/{output}"]) == 3
            if name != "copy":
                texts = [text.decode() for text in found[f"{way}class_names/class_names"]]
                assert texts == [NAMES[2], NAMES[0], "", ""]
            if "label" in outputs:
                texts = [text.decode() for text in found[f"{way}serving_default/label"]]
                assert texts == [NAMES[best] for best in of_pixels.argmax(axis=1)]
        np.testing.assert_allclose(found[f"batched/{output}"], of_pixels, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("format", ["keras", "litert", "openvino", "onnx"])
def test_each_format_computes_the_same(runs: Path, tmp_path: Path, format: str) -> None:
    for module in model_export._NEEDED.get(format, ()):
        pytest.importorskip(module)
    for name in ("small", "copy"):  # a copy detector's network is `lite`
        made = export_model(runs / name, tmp_path / name, format=format)
        assert made.largest_difference < 1e-4
        assert (tmp_path / name / "class_names.txt").exists() == (name != "copy")
        assert made.num_bytes == sum(path.stat().st_size for path in (tmp_path / name).iterdir())
    export_model(runs / "copy", tmp_path / "copy", format=format)  # an earlier one is replaced


def test_what_tf2onnx_cannot_write_survives_onnx(tmp_path: Path) -> None:
    """A Normalization, a convolution with groups and GELU, all of which ConvNeXt has."""
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("tf2onnx")
    pixels = image_input(8, smallest=8)
    normalization = keras.layers.Normalization(mean=[100.0, 120.0, 140.0], variance=[900.0, 1600.0, 2500.0])
    x = keras.layers.Activation("gelu")(keras.layers.Conv2D(6, 3, groups=3)(normalization(pixels)))
    x = keras.layers.Dense(4, activation="gelu")(x)
    features = keras.layers.GlobalAveragePooling2D(name=EMBEDDING)(x)
    model = keras.Model(pixels, probabilities(features, 3))
    config = {"objective": "classes", "test_views": "one"}
    info = RunInfo(image_size=8, resize="crop", class_names=NAMES, dataset_sha256="", shuffle="uniform", config=config)
    save_folder(tmp_path / "run", model, info)
    export_model(tmp_path / "run", tmp_path / "onnx", format="onnx")
    images = np.random.default_rng(0).uniform(0, 255, (3, 8, 8, 3)).astype(np.float32)
    session = onnxruntime.InferenceSession(str(tmp_path / "onnx/model.onnx"))
    (found,) = session.run(None, {"pixels": images})
    np.testing.assert_allclose(found, model(images).numpy(), atol=1e-5)


def test_what_computes_something_else_is_not_written(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other(file: Path, **_: Any) -> Any:
        return lambda images: np.full((len(images), 3), 0.3, np.float32)

    monkeypatch.setitem(model_export.RUNTIMES, "keras", other)
    monkeypatch.setattr(model_export, "of_saved_model", other)
    for format in ("keras", "saved_model"):
        with pytest.raises(ModelError, match=f"the {format} export differs from the model by .* Nothing was written"):
            export_model(runs / "lite", tmp_path / "out", format=format)
    assert not list(tmp_path.iterdir())


def test_what_is_missing_is_named(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_export.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"needs tf2onnx, onnx and onnxruntime, .* pip install 'simimg-tf\[export\]'"):
        export_model(runs / "lite", tmp_path / "out", format="onnx")
    with pytest.raises(UsageError, match="needs openvino, "):
        export_model(runs / "lite", tmp_path / "out", format="openvino")
    with pytest.raises(UsageError, match=r"/nowhere/1\.0\.0 is not a folder.*give --dataset_dir=PATH"):
        export_model(runs / "lite", tmp_path / "out", format="litert", int8=True)
    with pytest.raises(UsageError, match="elsewhere is not a folder"):
        export_model(runs / "lite", tmp_path / "out", dataset_dir=tmp_path / "elsewhere")


def test_flags_that_do_not_fit(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, index = f"--model_dir={runs / 'lite'}", ["--index_dir=x", "--out=y"]
    for arguments, words in (
        (
            [model, "--format=npy"],
            "--format=npy: a model can be exported as saved_model, keras, onnx, litert, openvino",
        ),
        ([*index, "--format=onnx"], "--format=onnx: an index can be exported as npy, parquet, faiss"),
        ([model, "--int8", "--format=onnx"], "--int8 applies to --format=litert only"),
        ([*index, "--int8"], "--int8 applies to --model_dir only"),
        ([model, "--by=kind"], "--by applies to --index_dir only"),
    ):
        assert cli.main(["export", *arguments]) == 2
        assert words in capsys.readouterr().err
    assert cli.main(["export", model, f"--out_dir={tmp_path / 'k'}", "--format=keras", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["format"], found["files"]) == ("keras", ["class_names.txt", "model.keras"])
    assert found["num_checked"] == 10
    assert found["largest_difference"] < 1e-5


@pytest.mark.parametrize("resize", ["stretch", "crop", "pad", "center"])
def test_files_are_decoded_as_the_converter_does(resize: str) -> None:
    shapes = ((1, 80, 50), (3, 31, 90), (6, 24, 24), (7, 20, 61), (8, 64, 40))
    contents = [photo(*shape) for shape in shapes]
    color = (10, 200, 30)
    options = ImageOptions(image_size=32, resize=resize, decode="exact", background=color)
    expected = np.stack([load_image(content, options).pixels for content in contents]).astype(int)
    found = decoded_images(tf.constant(contents), image_size=32, resize=resize, background=color).numpy()
    assert found.dtype == np.uint8
    difference = np.abs(found - expected)
    assert difference.mean() < 1
    assert np.quantile(difference, 0.99) <= 3


def test_exif_orientations() -> None:
    for byte_order in (b"II", b"MM"):
        small_first = "little" if byte_order == b"II" else "big"

        def number(value: int, size: int, order: Any = small_first) -> bytes:
            return value.to_bytes(size, order)

        for value, expected in ((1, 1), (5, 5), (8, 8), (0, 1), (9, 1)):
            others = number(0x010F, 2) + number(2, 2) + number(4, 4) + b"abc\0"
            entry = number(0x0112, 2) + number(3, 2) + number(1, 4) + number(value, 2) + b"\0\0"
            tiff = byte_order + number(42, 2) + number(8, 4) + number(2, 2) + others + entry + number(0, 4)
            content = b"\xff\xd8\xff\xe1\0\x40Exif\0\0" + tiff
            assert exif_orientation(tf.constant(content)).numpy() == expected
            assert exif_orientation(tf.constant(content[:30])).numpy() == 1
    for content in (b"", b"\xff\xd8", b"Exif\0\0", b"Exif\0\0II\x2a\0\xff\xff\xff\xff"):
        assert exif_orientation(tf.constant(content)).numpy() == 1
