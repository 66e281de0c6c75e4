"""Networks on every engine: the same vectors, and by LiteRT the same bits however many images and threads there are."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from simimg.errors import UsageError
from simimg.inference import inference_engine, network, openvino_network
from simimg.inference.classifier import image_views, predict_files
from simimg.inference.inference_engine import has_bfloat16, instruction_set, may_have_gpu
from simimg.inference.litert_network import LiteRtNetwork
from simimg.inference.network import open_network
from simimg.models.backbones import small
from simimg.models.heads import search_embedder
from simimg.models.model_folder import save_folder
from simimg.models.saved_model import VIEWS, views_of
from tfrecords.convert.image.decoder import ImageOptions

from .conftest import info


@pytest.fixture(scope="module")
def litert(converted: bytes) -> LiteRtNetwork:
    return LiteRtNetwork(converted, num_threads=3)


@pytest.fixture(scope="module")
def one_by_one(litert: LiteRtNetwork, images: np.ndarray) -> np.ndarray:
    return np.concatenate([litert(image[None]) for image in images])


def test_an_embedding_has_the_length_one(one_by_one: np.ndarray) -> None:
    np.testing.assert_allclose(np.linalg.norm(one_by_one, axis=1), 1, atol=1e-6)
    assert len(np.unique(one_by_one, axis=0)) == len(one_by_one)


@given(st.lists(st.integers(0, 39), min_size=1, max_size=40))
@settings(max_examples=30)
def test_bits_do_not_depend_on_the_batch(
    litert: LiteRtNetwork, images: np.ndarray, one_by_one: np.ndarray, rows: list[int]
) -> None:
    np.testing.assert_array_equal(litert(images[rows]), one_by_one[rows])


@pytest.mark.parametrize("num_threads", [1, 2, 8])
def test_bits_do_not_depend_on_the_threads(
    converted: bytes, images: np.ndarray, one_by_one: np.ndarray, num_threads: int
) -> None:
    np.testing.assert_array_equal(LiteRtNetwork(converted, num_threads=num_threads)(images), one_by_one)


def test_a_forked_process_has_threads_of_its_own(litert: LiteRtNetwork, images: np.ndarray) -> None:
    expected = litert(images[:2])
    child = os.fork()
    if not child:
        signal.alarm(60)
        os._exit(0 if np.array_equal(litert(images[:2]), expected) else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_captures_of_standard_error_may_overlap() -> None:
    """Standard error is given back when the last one ends, and what was written is shown only after an error."""
    code = """if True:
        import os, threading, time
        from simimg.standard_error import captured_stderr

        def capture(begin, end):
            time.sleep(begin)
            with captured_stderr():
                os.write(2, b"noise ")
                time.sleep(end)

        for _ in range(3):
            threads = [threading.Thread(target=capture, args=times) for times in ((0, 0.2), (0.1, 0.2), (0.05, 0.05))]
            [thread.start() for thread in threads]
            [thread.join() for thread in threads]
            os.write(2, b"shown ")
        try:
            with captured_stderr():
                os.write(2, b"reason ")
                raise ValueError
        except ValueError:
            os.write(2, b"end")
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "shown shown shown reason end"


def test_no_images(litert: LiteRtNetwork) -> None:
    assert litert(np.zeros((0, 32, 32, 3), np.uint8)).shape == (0, 192)


def test_litert_never_has_more_threads_than_cores(
    converted: bytes, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("simimg.inference.litert_network.num_cores", lambda: 1)
    limited = LiteRtNetwork(converted)
    limited(images)
    assert len(limited._executor._threads) == 1


@pytest.mark.parametrize("output", ["embedding", "probabilities"])
def test_tensorflow_computes_the_same(
    model_dir: Path, images: np.ndarray, output: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = open_network(str(model_dir), output)
    assert (opened.engine.library, opened.engine.instruction_set) == ("LiteRT", instruction_set())
    by_litert = opened(images)
    monkeypatch.setattr(network, "may_have_gpu", lambda: True)
    monkeypatch.setattr("simimg.inference.keras_network.num_gpus", lambda: 1)
    on_gpu = open_network(str(model_dir), output, many=True)
    assert (on_gpu.engine.library, on_gpu.engine.instruction_set, on_gpu.batch_size) == ("TensorFlow", "gpu", 256)
    np.testing.assert_allclose(on_gpu(images), by_litert, atol=1e-5)
    assert open_network(str(model_dir), output).engine == opened.engine  # a few images are not worth TensorFlow's start


def test_all_devices_compute_what_one_does(
    model_dir: Path, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit, for pixels as uint8 and as float32: the last batch is short, and one device has more batches."""
    from simimg.models import device_copies

    monkeypatch.setattr(network, "may_have_gpu", lambda: True)
    monkeypatch.setattr(network, "_GPU_BATCH", 3)
    used: list[int] = []
    computed = device_copies.DeviceCopies._computed

    def noting(self: device_copies.DeviceCopies, number: int, batches: list[np.ndarray]) -> list[np.ndarray]:
        used.append(number)
        return computed(self, number, batches)

    monkeypatch.setattr(device_copies.DeviceCopies, "_computed", noting)
    found = []
    for count in (1, 2):
        names = [f"CPU:{number}" for number in range(count)]
        monkeypatch.setattr(device_copies, "compute_devices", lambda names=names: names)
        monkeypatch.setattr("simimg.inference.keras_network.num_gpus", lambda count=count: count)
        opened = open_network(str(model_dir), "embedding", many=True)
        assert opened.batch_size == 3 * count
        used.clear()
        found.append([opened(some) for some in (images[:7], images[:7].astype(np.float32), images[:2])])
        assert sorted(used) == ([0] * 3 if count == 1 else [0, 0, 0, 1, 1])
        weights = opened._loaded._copies._weights  # type: ignore[attr-defined]
        assert [one[0][0].device[-5:] for one in weights] == names
    for one, two in zip(*found, strict=True):
        np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(found[0][0], found[0][1])


@pytest.mark.parametrize("views", VIEWS)
@pytest.mark.parametrize("size", [8, 33])
def test_the_views_of_a_prediction_are_those_of_training(views: str, size: int) -> None:
    import tensorflow as tf

    pixels = np.random.default_rng(size).integers(0, 256, (2, size, size, 3), np.uint8)
    expected = np.stack([view.numpy() for view in views_of(tf.cast(pixels, tf.float32), views)], axis=1)
    found = np.stack([image_views(image, views) for image in pixels])
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_predictions_of_files(model_dir: Path, images: np.ndarray, tmp_path: Path) -> None:
    """More files than a batch, a rejected one among them; the outputs are those of the network on their pixels."""
    paths = []
    for number, image in enumerate(images):
        paths.append(str(tmp_path / f"{number:02d}.png"))
        Image.fromarray(image).save(paths[-1])
    (tmp_path / "text.png").write_text("no image")
    paths.insert(3, str(tmp_path / "text.png"))
    opened, seen = open_network(str(model_dir), "probabilities"), []
    options = ImageOptions(image_size=32)
    found = predict_files(opened, paths, options, progress=seen.append)
    assert [path for path, _ in found.refused] == [paths.pop(3)]
    assert found.paths == tuple(paths)
    assert sum(seen) == 41
    np.testing.assert_array_equal(found.probabilities, opened(images))
    mirrored = predict_files(opened, paths, options, views="mirrored").probabilities
    np.testing.assert_allclose(mirrored, (opened(images) + opened(images[:, :, ::-1])) / 2, atol=1e-6)
    assert predict_files(opened, [str(tmp_path / "text.png")], options).probabilities.shape == (0, 5)


def test_a_network_that_litert_cannot_run_is_computed_by_tensorflow(
    tmp_path: Path, images: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    """An operation that LiteRT lacks; the second time, it is known from the cache."""

    @keras.saving.register_keras_serializable(package="test_networks")
    class Unknown(keras.layers.Layer):
        def call(self, inputs):  # type: ignore[no-untyped-def]
            import tensorflow as tf

            return inputs + 1e-9 * tf.math.igamma(tf.abs(inputs) + 1, tf.abs(inputs) + 2)

    model = small(32, 5)
    through = keras.Model(model.input, Unknown(name="unknown")(model.output), name="through")
    save_folder(tmp_path / "run", through, info())
    for _ in range(2):
        caplog.clear()
        opened = open_network(str(tmp_path / "run"), "probabilities")
        assert opened.engine.library == "TensorFlow"
        (told,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert "computed by TensorFlow" in told
        assert "Igamma" in told
        np.testing.assert_allclose(opened(images), through.predict(images, verbose=0), atol=1e-5)


@pytest.mark.parametrize(("policy", "output"), [("mixed_bfloat16", "embedding"), ("mixed_float16", "probabilities")])
def test_a_network_of_mixed_precision_is_computed_in_float32(
    tmp_path: Path, images: np.ndarray, policy: str, output: str
) -> None:
    """LiteRT has no operations for less; the results are those of training but for its rounding."""
    keras.utils.set_random_seed(3)
    keras.config.set_dtype_policy(policy)
    try:
        model = small(32, 5)
    finally:
        keras.config.set_dtype_policy("float32")
    save_folder(tmp_path / "run", model, info())
    opened = open_network(str(tmp_path / "run"), output)
    assert (opened.engine.library, opened.engine.precision) == ("LiteRT", "float32")
    expected = (model if output == "probabilities" else search_embedder(model)).predict(images, verbose=0)
    np.testing.assert_allclose(opened(images), expected, atol=0.03)


def test_a_network_that_differs_is_not_used(model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simimg.inference.conversion.MAX_DIFFERENCE", 0.0)
    opened = open_network(str(model_dir), "embedding")
    assert opened.engine.library == "TensorFlow"
    assert opened.facts.refused.startswith("its output differs from TensorFlow's by ")


def test_bfloat16_needs_openvino_and_a_processor_that_has_it(model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda name: None)
        with pytest.raises(UsageError, match=r"pip install 'simimg-tf\[fast\]'"):
            open_network(str(model_dir), "embedding", precision="bfloat16")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(openvino_network, "has_bfloat16", lambda: False)
    with pytest.raises(UsageError, match="has no instructions for bfloat16.*--precision=float32"):
        open_network(str(model_dir), "embedding", precision="bfloat16")
    with pytest.raises(UsageError, match="'float16' should be one of float32, bfloat16"):
        open_network(str(model_dir), "embedding", precision="float16")


@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="needs the extra fast")
@pytest.mark.skipif(not has_bfloat16(), reason="needs a processor with bfloat16")
def test_bfloat16(converted: bytes, images: np.ndarray, one_by_one: np.ndarray) -> None:
    coarse = openvino_network.OpenVinoNetwork(converted)
    outputs = coarse(images)
    assert (outputs * one_by_one).sum(axis=1).min() > 0.995
    assert not np.array_equal(outputs, one_by_one)
    np.testing.assert_array_equal(coarse(images[5:8]), outputs[5:8])


def test_the_instruction_set_of_a_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    avx2 = {"sse2", "avx", "avx2", "fma"}
    cases = {
        "sse": {"sse2"},
        "avx": {"sse2", "avx"},
        "avx2": avx2,
        "avx512": {*avx2, "avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"},
    }
    monkeypatch.setattr(inference_engine.platform, "machine", lambda: "x86_64")
    for expected, flags in cases.items():
        monkeypatch.setattr(inference_engine, "_processor_flags", lambda flags=flags: frozenset(flags))
        assert instruction_set.__wrapped__() == expected
    monkeypatch.setattr(inference_engine.platform, "machine", lambda: "aarch64")
    assert instruction_set.__wrapped__() == "aarch64"


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_a_hidden_gpu_is_none(monkeypatch: pytest.MonkeyPatch, hidden: str) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    monkeypatch.setattr(Path, "glob", lambda self, pattern: iter([Path("/dev/nvidia0")]))
    assert not may_have_gpu()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert may_have_gpu()
