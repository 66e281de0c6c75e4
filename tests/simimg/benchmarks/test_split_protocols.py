"""The three ways of measuring: what is a copy of what, and on which side of the split it lies."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import split_protocols
from benchmarks.split_protocols import compare_protocols, seventeen
from simimg import cli
from simimg.input.readers.resident import load_examples
from simimg.input.split import open_split
from simimg.presets import tutorial

pytestmark = pytest.mark.own_process


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures of noise, which no two copies of different ones can be taken for, in two classes."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for number in range(12):
        path = folder / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(path)
    return folder


def test_seventeen_copies() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    copies = [np.asarray(copy) for copy in seventeen(Image.fromarray(pixels))]
    assert len(copies) == 17
    np.testing.assert_array_equal(copies[0], pixels)
    np.testing.assert_array_equal(copies[1 + split_protocols.ANGLES.index(0)], pixels)
    for turned, mirrored in zip(copies[1:9], copies[9:], strict=True):
        np.testing.assert_array_equal(mirrored, turned[:, ::-1])
    assert len({copy.tobytes() for copy in copies}) == 16  # a turn by 0 degrees is the picture


def test_who_is_on_which_side(folder: Path, tmp_path: Path) -> None:
    found = {}
    for name, dataset_dir in split_protocols._datasets(folder, (), 3, tmp_path):
        found[name] = [
            {image.tobytes() for image in load_examples(open_split(dataset_dir, split), num_threads=1).images}
            for split in ("train", "test")
        ]
    photos_train, photos_test = found["no copies"]
    assert (len(photos_train), len(photos_test)) == (9, 3)  # a quarter of all, one or two of six a class
    train, test = found["copied, then split"]
    assert len(train | test) == 12 * 16
    assert train & test  # a photo and itself, turned by 0 degrees
    train, test = found["split, then copied"]
    assert test == photos_test
    assert len(train) == 9 * 16
    assert photos_train < train
    copies_of_tests = {
        np.asarray(copy).tobytes()
        for image in photos_test
        for copy in seventeen(Image.fromarray(np.frombuffer(image, np.uint8).reshape(64, 64, 3)))
    }
    assert not train & copies_of_tests


def test_the_command(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(tutorial.OPTIONS, "epochs", 1)
    bigger = tmp_path / "photos"
    for source in folder.rglob("*.png"):
        for number in range(4):
            path = bigger / source.parent.name / f"{source.stem}-{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.open(source).rotate(90 * number).save(path)
    command = ["bench", "--stage=protocols", f"--image_dir={bigger}", "--repeats=1", f"--out_dir={tmp_path / 'out'}"]
    assert cli.main([*command, "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    plain, leaky, honest = values["protocols"]
    assert [found["num_train"] + found["num_test"] for found in (plain, leaky)] == [48, 17 * 48]
    assert honest["num_test"] == plain["num_test"]
    assert honest["num_train"] == 17 * plain["num_train"]
    for found in (plain, leaky, honest):
        assert 0 <= found["categorical"][0] <= found["binary"][0] <= 1
    plot = Path(values["file"]).with_suffix(".png")
    assert Image.open(plot).width == 1600


def test_the_tutorials_categories_are_taken_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def note(image_dir: Path, categories: tuple[str, ...], seed: int, folder: Path) -> list[tuple[str, Path]]:
        asked.append((categories, seed))
        raise InterruptedError

    monkeypatch.setattr(split_protocols, "_datasets", note)
    for name in split_protocols.TUTORIAL_CATEGORIES:
        with pytest.raises(InterruptedError):
            compare_protocols(tmp_path, num_seeds=1)
        (tmp_path / name).mkdir()
    with pytest.raises(InterruptedError):
        compare_protocols(tmp_path, num_seeds=1)
    assert asked == [((), 0)] * 5 + [(split_protocols.TUTORIAL_CATEGORIES, 0)]
