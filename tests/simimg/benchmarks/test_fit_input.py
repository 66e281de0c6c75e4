"""The comparison of inputs runs, and every way sees all images."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.fit_input import WAYS, inputs, main, prepare

pytestmark = pytest.mark.own_process


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for number in range(16):
        path = folder / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (40, 30), (number * 16, 100, 50)).save(path)
    return folder


def test_every_way_sees_all_images(photos: Path, tmp_path: Path) -> None:
    dataset_dir, count = prepare(photos, tmp_path, 8, 1)
    assert count == 16
    for name, dataset in inputs(dataset_dir, tmp_path, 8, 4).items():
        batches = list(dataset)
        assert [image.shape.as_list() for image, _ in batches] == 4 * [[4, 8, 8, 3]], name
        assert sorted(label for _, labels in batches for label in labels.numpy()) == 8 * [0] + 8 * [1], name
        assert len({image.numpy().tobytes() for images, _ in batches for image in images}) == 16, name


def test_the_tables(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.fit_input._LAYERS", {"RandomFlip": {}})
    main([str(photos), str(tmp_path), "--repeats=1", "--image_size=8", "--batch_size=4", "--times=2"])
    out = capsys.readouterr().out
    assert out.startswith("32 images, ")
    found = json.loads(out.splitlines()[-1])
    assert tuple(found["fit"]) == WAYS
    assert all(figures["images_per_s"]["median"] > 0 for figures in found["RandomFlip"].values())
    assert found["fit"]["simimg"]["ratio"]["median"] == 1
