"""Gray and RGBA datasets in the readers; gray ones are augmented, trained on, predicted, exported and indexed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import simimg
from simimg.augment import AugmentConfig, augment
from simimg.bench import loop_overhead
from simimg.errors import UsageError
from simimg.export.check_photos import some_photos
from simimg.input import batches_of, eval_batches, open_reader
from simimg.models.backbones import lite, small
from simimg.models.image_bytes import decoded_images
from simimg.models.keras_applications import application
from simimg.report.conversion.conversion_report import write_conversion_report
from simimg.training import load_run
from simimg.training.train_config import TrainConfig
from tfrecords.convert.engine import convert
from tfrecords.convert.image.color import gray_of
from tfrecords.convert.image.decoder import ImageOptions, load_image
from tfrecords.convert.plan.convert_config import ConvertConfig
from tfrecords.format.image_size import Rectangle

pytestmark = pytest.mark.own_process
WIDTH, HEIGHT = 20, 12


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Datasets of each number of channels and encoding, with two classes of eight images with transparent parts."""
    folder = tmp_path_factory.mktemp("gray")
    rng = np.random.default_rng(0)
    for name in ("bright", "dark"):
        (folder / "photos" / name).mkdir(parents=True)
        for number in range(8):
            pixels = rng.integers(0, 100, (30, 50, 4)) + (150 if name == "bright" else 0)
            pixels[..., 3] = rng.integers(200, 256, (30, 50))
            Image.fromarray(pixels.astype(np.uint8)).save(folder / "photos" / name / f"{number}.png")
    found = {"photos": folder / "photos"}
    for channels, encoding in ((1, "raw"), (1, "jpeg"), (1, "png"), (3, "raw"), (4, "raw"), (4, "png")):
        config = ConvertConfig(
            image_dir=folder / "photos",
            data_dir=folder,
            name=f"{encoding}{channels}",
            encoding=encoding,
            image_size=f"{WIDTH}x{HEIGHT}",
            channels=channels,
            num_workers=1,
        )
        found[f"{encoding}{channels}"] = convert(config).dataset_dir
    config = ConvertConfig(
        image_dir=folder / "photos", data_dir=folder, name="own", resize="none", channels=1, num_workers=1
    )
    return found | {"own": convert(config).dataset_dir}


def images_of(folder: Path, kind: str, **options: Any) -> np.ndarray:
    reader, _ = open_reader(folder, "train", kind, **options)
    (batch,) = list(batches_of(eval_batches(reader, reader.split.num_examples)))
    assert batch.image.shape[1:] == reader.split.image_shape
    return batch.image.numpy()


@pytest.mark.parametrize("channels", [1, 4])
def test_all_readers_give_the_same(made: dict[str, Path], tmp_path: Path, channels: int) -> None:
    raw = images_of(made[f"raw{channels}"], "mapped")
    assert raw.shape[1:] == (HEIGHT, WIDTH, channels)
    for encoding in ("raw", "jpeg", "png") if channels == 1 else ("raw", "png"):
        for kind in ("resident", "mapped", "stream"):
            levels = np.abs(images_of(made[f"{encoding}{channels}"], kind).astype(int) - raw)
            assert levels.max() <= (40 if encoding == "jpeg" else 0)
    foreign = Path(shutil.copytree(made[f"png{channels}"], tmp_path / "foreign"))
    (foreign / "layout.json").unlink()
    np.testing.assert_array_equal(images_of(foreign, "stream"), raw)
    loaded = simimg.load(made[f"raw{channels}"], batch_size=4)
    assert next(iter(loaded))[0].shape.as_list() == [4, HEIGHT, WIDTH, channels]


def test_gray_crops(made: dict[str, Path]) -> None:
    color = ConvertConfig(
        image_dir=made["photos"], data_dir=made["photos"].parent, name="colorful", resize="none", num_workers=1
    )
    options: dict[str, Any] = {"image_size": f"{WIDTH}x{HEIGHT}"}
    gray, rgb = (images_of(folder, "mapped", **options) for folder in (made["own"], convert(color).dataset_dir))
    assert gray.shape[1:] == (HEIGHT, WIDTH, 1)
    assert np.abs(gray.astype(int) - gray_of(rgb)).mean() < 6


def test_what_cannot_be_mixed_or_trained_on(made: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has gray images, and .* RGB images. .* --from=.* --channels=1"):
        simimg.load([made["raw1"], made["raw3"]], batch_size=4)
    with pytest.raises(UsageError, match=r"has RGBA images, and networks see no transparency. .* --channels=3"):
        simimg.train(dataset_dir=made["raw4"], model_dir=tmp_path / "run", preset="tutorial", epochs=1)


def test_a_change_of_colors_does_nothing_to_gray() -> None:
    ids, epoch = tf.range(6, dtype=tf.int64), tf.constant(0, tf.int64)
    images = np.random.default_rng(1).integers(0, 256, (6, HEIGHT, WIDTH, 1)).astype(np.uint8)
    config = AugmentConfig(rotation_degrees=20, colour_jitter=0.4, grayscale=0.5, rand_augment="2,9")
    for how in ("operations", "xla"):
        moved = augment(AugmentConfig(**{**vars(config), "augment_with": how}), 0, epoch, ids, tf.constant(images))
        tiled = tf.constant(images.repeat(3, axis=3))
        colored = augment(AugmentConfig(**{**vars(config), "augment_with": how}), 0, epoch, ids, tiled).numpy()
        assert moved.shape == images.shape
        np.testing.assert_allclose(moved, colored.mean(axis=3, keepdims=True), atol=1e-3)
        np.testing.assert_allclose(colored[..., 0], colored[..., 2], atol=0.5)


@pytest.mark.parametrize("how", ["operations", "xla"])
def test_random_pixels_of_gray_images_are_those_of_one_channel(how: str) -> None:
    """Not the mean of three channels, whose noise is weaker by the square root of 3."""
    ids, epoch = tf.range(6, dtype=tf.int64), tf.constant(0, tf.int64)
    images = tf.fill([6, HEIGHT, WIDTH, 1], tf.constant(100, tf.uint8))
    config = AugmentConfig(rotation_degrees=0, horizontal_flip=False, noise=40, erase=0.5, augment_with=how)
    gray, colored = (augment(config, 0, epoch, ids, one).numpy() for one in (images, tf.tile(images, [1, 1, 1, 3])))
    assert np.ptp(colored, axis=3).max() > 200
    np.testing.assert_allclose(gray[..., 0], colored[..., 0], atol=1e-3)


def test_networks_on_gray_images() -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (2, 32, 48, 1)).astype(np.float32)
    for build in (
        lambda channels: lite("lite0", (48, 32), 3, weights=None, channels=channels),
        lambda channels: application("MobileNetV2", (48, 32), 3, weights=None, fixed=True, channels=channels),
    ):
        gray, colored = build(1), build(3)
        colored.set_weights(gray.get_weights())  # the weights of RGB networks fit
        found, expected = gray(pixels, training=False), colored(pixels.repeat(3, axis=3), training=False)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    assert small((48, 32), 3, channels=1).input_shape == (None, 32, 48, 1)


def test_files_in_a_graph_become_gray_as_by_the_converter(made: dict[str, Path]) -> None:
    path = next(made["photos"].rglob("*.png"))
    opaque = made["photos"].parent / "opaque.png"
    Image.open(path).convert("RGB").save(opaque)
    data = opaque.read_bytes()
    found = decoded_images(
        tf.constant([data]), image_size=32, resize="stretch", background=(255, 255, 255), channels=1
    )[0].numpy()
    expected = load_image(data, ImageOptions(image_size=32, channels=1)).pixels
    assert np.abs(found.astype(int) - expected).max() <= 2


def test_a_run_and_what_follows(made: dict[str, Path], tmp_path: Path, simimg_json: Callable[..., Any]) -> None:
    run, photos = tmp_path / "run", made["photos"]

    train = ["train", f"--dataset_dir={made['raw1']}", f"--model_dir={run}", "--preset=tutorial", "--epochs=2"]
    result = simimg_json(*train, "--global_batch_size=4", "--augment_with=operations")
    values = json.loads((run / "config.json").read_text())
    assert values["channels"] == 1
    assert keras.models.load_model(run / "model.keras").input_shape == (None, HEIGHT, WIDTH, 1)
    assert (
        simimg_json("evaluate", f"--dataset_dir={made['raw1']}", f"--model_dir={run}")["accuracy"]
        == result["test_accuracy"]
    )
    files = sorted(map(str, photos.rglob("*.png")))
    predicted = simimg.predict(run, files)
    assert [found.path for found in predicted] == files
    reader, _ = open_reader(made["raw1"], "train", "mapped")
    with pytest.raises(UsageError, match=r"was trained on gray images, and those of .* are RGB. .* --channels=1"):
        simimg.evaluate(run, made["raw3"])
    with pytest.raises(UsageError, match=f"those of {made['raw3']} are RGB. .* --from={made['raw3']} --channels=1"):
        simimg.evaluate(run, [made["raw3"]])
    size = Rectangle(WIDTH, HEIGHT)
    with pytest.raises(UsageError, match=f"has RGB images of {size} px; the model takes gray images of {size} px"):
        some_photos(load_run(run), made["raw3"], calibrate=False)
    config = TrainConfig(dataset_dir=made["raw1"], model="tutorial").resolved(1)
    assert loop_overhead._state(config, reader).model.input_shape == (None, HEIGHT, WIDTH, 1)

    exported = simimg_json("export", f"--model_dir={run}", f"--out_dir={tmp_path / 'saved'}")
    assert exported["largest_difference"] < 1e-4
    signatures = tf.saved_model.load(str(tmp_path / "saved")).signatures
    pixels = load_image(Path(files[0]).read_bytes(), ImageOptions(image_size=reader.split.image_size, channels=1))
    served = signatures["serving_default"](image=tf.constant(pixels.pixels[None]))["probabilities"][0]
    assert float(served[0]) == pytest.approx(predicted[0].probabilities["bright"], abs=1e-3)
    litert = simimg_json("export", f"--model_dir={run}", "--format=litert", f"--out_dir={tmp_path / 'litert'}")
    assert litert["largest_difference"] < 1e-4

    simimg_json("index", f"--image_dir={photos}", f"--model={run}", f"--index_dir={tmp_path / 'index'}")
    best = simimg.search(tmp_path / "index", files[5], k=1)[0]
    assert best.path == Path(files[5])
    for name in ("raw1", "png4"):
        simimg_json("index", f"--dataset_dir={made[name]}", f"--model={run}", f"--index_dir={tmp_path / name}")
        page = write_conversion_report(made[name], str(photos)).read_text()
        assert f"<b>{WIDTH} × {HEIGHT}</b> px, {'gray raw' if name == 'raw1' else 'RGBA png'}" in page
        out = simimg_json("show", str(made[name]), "--id=3", f"--page={tmp_path / name}.html")
        assert out["example"]["channels"] == int(name[-1])


def test_a_copy_model_of_gray_images(made: dict[str, Path], tmp_path: Path) -> None:
    given: dict[str, Any] = {"objective": "similarity", "epochs": 1, "global_batch_size": 4, "embedding_dim": 8}
    small = ConvertConfig(
        image_dir=made["photos"], data_dir=tmp_path, name="s", image_size=32, channels=1, num_workers=1
    )
    folder = convert(small).dataset_dir
    simimg.train(dataset_dir=folder, model_dir=tmp_path / "run", preset="copy", model="small", weights="none", **given)
    assert simimg.evaluate(tmp_path / "run", folder).num_examples > 0
