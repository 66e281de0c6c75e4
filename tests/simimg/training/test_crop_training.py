"""A training on images in their own shapes: crops in, one size out, and the same view of a file afterwards."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import simimg
from simimg.errors import UsageError
from simimg.training import TrainConfig, load_run
from simimg.training.run_setup import open_run_setup
from tfrecords.convert.engine import convert
from tfrecords.convert.image.decoder import CENTER
from tfrecords.convert.plan.convert_config import ConvertConfig

pytestmark = pytest.mark.own_process


@pytest.fixture(scope="module")
def own(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pictures of the fixture `photos`, three classes, enlarged to many shapes."""
    folder, rng = tmp_path_factory.mktemp("own"), np.random.default_rng(0)
    for path in sorted(photos.glob("*/*.png"))[::3]:
        target = folder / "photos" / path.parent.name / f"{path.stem}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as image:
            image.resize(tuple(rng.integers(40, 90, 2))).save(target)
    config = ConvertConfig(
        image_dir=str(folder / "photos"), data_dir=folder, name="own", resize="short", image_size=64, num_workers=1
    )
    return convert(config).dataset_dir


def test_train_evaluate_predict(own: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"preset": "tutorial", "global_batch_size": 6, "image_size": 32}
    results = [
        simimg.train(own, model_dir=tmp_path / name, epochs=epochs, num_devices=devices, **options)
        for name, epochs, devices in (("one", 2, 1), ("two", 2, 2))
    ]
    first, second = (np.array([epoch["loss"] for epoch in result.history]) for result in results)
    np.testing.assert_allclose(first, second, rtol=1e-4)  # one replica or two: the same crops
    info = load_run(tmp_path / "one")
    assert (info.image_size, info.resize) == (32, CENTER)
    assert (info.config["crop"], info.config["image_size"]) == ("auto", 32)
    figures = simimg.evaluate(tmp_path / "one", own)
    assert figures.accuracy == pytest.approx(results[0].figures["test"]["accuracy"])
    files = sorted(str(path) for path in (own.parents[1] / "photos").glob("*/*.jpg"))[:4]
    assert [found.path for found in simimg.predict(tmp_path / "one", files)] == files
    made = simimg.index(index_dir=tmp_path / "index", dataset_dir=own, model=str(tmp_path / "one"))
    assert made.num_embedded == 24
    (best, *_) = simimg.search(tmp_path / "index", files[0], k=1)
    assert str(best.path).endswith(files[0].split("/photos/")[1])
    with pytest.raises(UsageError, match=r"has another run: --image_size=32 there, 40 now"):
        simimg.train(own, model_dir=tmp_path / "one", epochs=2, **{**options, "image_size": 40})


def test_what_a_run_says(own: Path, datasets: dict[str, Path], tmp_path: Path) -> None:
    def said(dataset_dir: Path, **changes: Any) -> list[str]:
        given = {"dataset_dir": dataset_dir, "model_dir": tmp_path / "none", "global_batch_size": 6, **changes}
        return open_run_setup(TrainConfig.with_preset(given)).sentences()

    lines = said(own)
    assert "images are cut to 224 px while they are decoded" in lines[0]
    assert any("--crop_min_area=off leaves that out" in line for line in lines)
    for changes in ({"crop_min_area": 1.0}, {"crop": "center"}):
        assert not any("--crop_min_area" in line or "made square" in line for line in said(own, **changes))
    lines = said(datasets["jpeg"], crop="random", image_size=24)
    assert "images are cut to 24 px" in lines[0]
    assert any("made square by --resize=stretch and are cut then" in line for line in lines)
    with pytest.raises(UsageError, match=r"--image_size=24: the images of .* have 32 px"):
        said(datasets["jpeg"], image_size=24)
    with pytest.raises(UsageError, match="--image_size=-1: should be 0 or more"):
        said(own, image_size=-1)
