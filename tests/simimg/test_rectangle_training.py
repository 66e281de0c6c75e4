"""Images of another width than height: read, augmented, trained on, predicted, exported, indexed and searched."""

from __future__ import annotations

import io
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import simimg
from simimg import cli
from simimg.augment import AugmentConfig
from simimg.augment.geometry import warp, warp_by_gather
from simimg.augment.parameters import draw
from simimg.errors import UsageError
from simimg.input import batches_of, eval_batches, open_reader
from simimg.models.backbones import lite
from simimg.models.heads import enlarged_to
from simimg.models.image_bytes import decoded_images
from tfrecords.convert.engine import convert
from tfrecords.convert.image.decoder import ImageOptions, load_image
from tfrecords.convert.plan.convert_config import ConvertConfig
from tfrecords.format.image_size import Rectangle

pytestmark = pytest.mark.own_process
WIDTH, HEIGHT = 20, 12


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Datasets of each encoding, with two classes of eight images."""
    folder = tmp_path_factory.mktemp("wide")
    rng = np.random.default_rng(0)
    for name in ("bright", "dark"):
        (folder / "photos" / name).mkdir(parents=True)
        for number in range(8):
            pixels = rng.integers(0, 100, (30, 50, 3)) + (150 if name == "bright" else 0)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / "photos" / name / f"{number}.png")
    made = {"photos": folder / "photos"}
    for encoding in ("raw", "jpeg", "png"):
        config = ConvertConfig(
            image_dir=folder / "photos",
            data_dir=folder,
            name=encoding,
            encoding=encoding,
            image_size=f"{WIDTH}x{HEIGHT}",
            num_workers=1,
        )
        made[encoding] = convert(config).dataset_dir
    return made


def test_all_readers_give_the_same(wide: dict[str, Path], tmp_path: Path) -> None:
    def images(folder: Path, kind: str) -> np.ndarray:
        reader, _ = open_reader(folder, "train", kind)
        (batch,) = list(batches_of(eval_batches(reader, reader.split.num_examples)))
        assert batch.image.shape[1:] == (HEIGHT, WIDTH, 3)
        return batch.image.numpy()

    raw = images(wide["raw"], "mapped")
    for encoding in ("raw", "jpeg", "png"):
        for kind in ("resident", "mapped", "stream"):
            levels = np.abs(images(wide[encoding], kind).astype(int) - raw)
            assert levels.max() <= (40 if encoding == "jpeg" else 0)
    foreign = Path(shutil.copytree(wide["png"], tmp_path / "foreign"))
    (foreign / "layout.json").unlink()
    np.testing.assert_array_equal(images(foreign, "stream"), raw)
    loaded = simimg.load(wide["raw"], batch_size=4)
    assert (loaded.image_size, next(iter(loaded))[0].shape.as_list()) == ((WIDTH, HEIGHT), [4, HEIGHT, WIDTH, 3])


def test_a_rotation_keeps_shapes() -> None:
    """Judged by a resampling of its own, in px around the middle, in float64."""
    config = AugmentConfig(rotation_degrees=90, horizontal_flip=False, border="constant")
    ids, epoch = tf.range(6, dtype=tf.int64), tf.constant(0, tf.int64)
    images = np.random.default_rng(1).integers(0, 256, (6, HEIGHT, WIDTH, 3)).astype(np.uint8)
    parameters = draw(config, 0, epoch, ids)
    expected = np.zeros(images.shape)
    for number, angle in enumerate(parameters.angle.numpy().astype(np.float64)):
        for row, column in np.ndindex(HEIGHT, WIDTH):
            x, y = column - (WIDTH - 1) / 2, row - (HEIGHT - 1) / 2
            from_x = math.cos(angle) * x - math.sin(angle) * y + (WIDTH - 1) / 2
            from_y = math.sin(angle) * x + math.cos(angle) * y + (HEIGHT - 1) / 2
            left, top = math.floor(from_x), math.floor(from_y)
            for at_y, at_x in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
                if 0 <= at_y < HEIGHT and 0 <= at_x < WIDTH:
                    weight = (1 - abs(from_x - at_x)) * (1 - abs(from_y - at_y))
                    expected[number, row, column] += weight * images[number, at_y, at_x]
    for function in (warp, warp_by_gather):
        found = function(parameters, tf.constant(images), "constant").numpy()
        assert np.quantile(np.abs(found - expected), 0.99) < 0.1


def test_a_run_and_what_follows(
    wide: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], simimg_json: Callable[..., Any]
) -> None:
    run, photos = tmp_path / "run", wide["photos"]

    train = ["train", f"--dataset_dir={wide['raw']}", f"--model_dir={run}", "--preset=tutorial", "--epochs=2"]
    train.append("--global_batch_size=4")
    assert cli.main([*train, "--quarter_turns=0.5"]) == 2
    assert "--quarter_turns=0.5: images of 20x12 px have another shape" in capsys.readouterr().err
    simimg_json(*train, "--augment_with=operations", "--rotation_degrees=20")
    assert json.loads((run / "config.json").read_text())["image_size"] == [WIDTH, HEIGHT]
    assert f"{WIDTH} × {HEIGHT} px" in (run / "report.html").read_text()
    measured = simimg_json("evaluate", f"--dataset_dir={wide['raw']}", f"--model_dir={run}")
    assert measured["num_examples"] == 4
    files = sorted(map(str, photos.rglob("*.png")))
    predicted = simimg.predict(run, files[:3])
    assert [found.path for found in predicted] == files[:3]
    simimg_json("export", f"--model_dir={run}", f"--out_dir={tmp_path / 'saved'}")
    signatures = tf.saved_model.load(str(tmp_path / "saved")).signatures
    serve = signatures["serving_default"]
    assert serve(image=tf.zeros((2, HEIGHT, WIDTH, 3), tf.uint8))["probabilities"].shape == (2, 2)
    of_files = signatures["jpeg"](image_bytes=tf.constant([Path(files[0]).read_bytes()]))["probabilities"][0]
    assert float(of_files[0]) == pytest.approx(predicted[0].probabilities["bright"], abs=0.02)
    simimg_json("index", f"--image_dir={photos}", f"--model={run}", f"--index_dir={tmp_path / 'index'}")
    best = simimg.search(tmp_path / "index", files[5], k=1)[0]
    assert (best.path, best.reasons) == (Path(files[5]), ("the same pixels",))
    turned = Image.open(files[5]).transpose(Image.Transpose.ROTATE_90)
    assert len(simimg.search(tmp_path / "index", turned, k=2)) == 2
    with pytest.raises(UsageError, match="trained on 2 classes at 20x12 px"):
        simimg.evaluate(run, convert_square(photos, tmp_path))


@pytest.mark.parametrize("how", ["crop", "pad", "stretch", "center"])
@pytest.mark.parametrize("pixels", [(90, 40), (40, 90), (20, 12), (13, 13)])
def test_files_in_a_graph_are_resized_as_by_the_converter(how: str, pixels: tuple[int, int]) -> None:
    x, y = np.meshgrid(np.linspace(0, 255, pixels[0]), np.linspace(0, 255, pixels[1]))
    buffer = io.BytesIO()
    Image.fromarray(np.stack([x, y, 255 - x], axis=-1).astype(np.uint8)).save(buffer, "PNG")
    size = Rectangle(WIDTH, HEIGHT)
    expected = load_image(buffer.getvalue(), ImageOptions(image_size=size, resize=how)).pixels.astype(int)
    contents = tf.constant([buffer.getvalue()])
    found = decoded_images(contents, image_size=size, resize=how, background=(255, 255, 255))[0].numpy()
    assert np.quantile(np.abs(found - expected), 0.95) <= 6


def test_rectangular_crops_of_images_in_their_own_shapes(
    wide: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = ConvertConfig(image_dir=wide["photos"], data_dir=tmp_path, name="own", resize="none", num_workers=1)
    own, run = convert(config).dataset_dir, tmp_path / "run"
    loaded = simimg.load(own, batch_size=4, shuffle=True, image_size=f"{WIDTH}x{HEIGHT}")
    assert next(iter(loaded))[0].shape.as_list() == [4, HEIGHT, WIDTH, 3]
    train = ["train", f"--dataset_dir={own}", f"--model_dir={run}", "--preset=tutorial", "--global_batch_size=4"]
    train += [f"--image_size={WIDTH}x{HEIGHT}", "--epochs=1"]
    assert cli.main(train) == cli.main(train) == 0  # the second one continues the first
    capsys.readouterr()
    assert json.loads((run / "config.json").read_text())["config"]["image_size"] == f"{WIDTH}x{HEIGHT}"
    assert simimg.evaluate(run, own).num_examples == 4
    assert cli.main([*train[:-1], "--image_size=3x"]) == 2
    assert "Expected a whole number, auto or WIDTHxHEIGHT for --image_size, got '3x'." in capsys.readouterr().err


def convert_square(photos: Path, folder: Path) -> Path:
    return convert(ConvertConfig(image_dir=photos, data_dir=folder, image_size=16, num_workers=1)).dataset_dir


def test_enlarged_networks() -> None:
    assert enlarged_to(64, 128) == 128
    assert [enlarged_to((64, 48), side) for side in (32, 64, 128)] == [(64, 48), (64, 48), (128, 96)]
    model = lite("lite0", (64, 48), 3, weights=None, resolution=(96, 72))
    assert model.input_shape == (None, 48, 64, 3)
    assert model.get_layer("enlarged").output.shape == (None, 72, 96, 3)
