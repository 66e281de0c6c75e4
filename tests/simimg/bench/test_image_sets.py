"""The folders that are converted for a measurement."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps, JpegImagePlugin

from simimg.bench.image_sets import DAYLIGHT, HIGH_SENSITIVITY, TURNS, good_jpegs, large_jpegs, turned_jpegs
from simimg.errors import UsageError

NUM_GOOD = 11


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_ino, path.stat().st_ctime_ns) for path in folder.rglob("*")}


def test_good_jpegs(folder: Path, tmp_path: Path) -> None:
    before = stamps(folder)
    pictures = good_jpegs(folder, tmp_path)
    assert len(pictures.files) == NUM_GOOD
    assert pictures.labels() == [0] * 5 + [1] * 6
    originals = {path.read_bytes() for path in folder.rglob("*") if path.stem.isdecimal() and path.suffix != ".png"}
    assert {(pictures.folder / file).read_bytes() for file in pictures.files} == originals
    assert pictures.num_bytes == sum(map(len, originals))
    assert {path.suffix for path in pictures.folder.rglob("*.*")} == {".jpg"}  # for tools that go by the suffix
    assert stamps(folder) == before  # no link was made to what is the user's


def test_made_once_for_the_same_files(folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(folder, source)
    pictures = good_jpegs(source, tmp_path / "cache")
    made = stamps(pictures.folder)
    assert good_jpegs(source, tmp_path / "cache") == pictures
    assert stamps(pictures.folder) == made
    (source / "cats" / "0.jpg").unlink()
    other = good_jpegs(source, tmp_path / "cache")
    assert (other.folder != pictures.folder, len(other.files)) == (True, NUM_GOOD - 1)
    os.utime(source / "cats" / "2.jpg", ns=(0, 0))  # it may hold other pixels of the same size
    assert good_jpegs(source, tmp_path / "cache").folder != other.folder


def test_a_flat_folder_is_one_class(folder: Path, tmp_path: Path) -> None:
    pictures = good_jpegs(folder / "cats", tmp_path)
    assert pictures.labels() == [0] * 6


def test_interrupted_leaves_nothing_under_the_name(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("simimg.bench.image_sets._is_good", interrupted)
        with pytest.raises(KeyboardInterrupt):
            good_jpegs(folder, tmp_path)
    assert not any((tmp_path / "bench").iterdir())
    assert len(good_jpegs(folder, tmp_path).files) == NUM_GOOD


def interrupted(data: bytes) -> bool:
    raise KeyboardInterrupt


def test_turned(folder: Path, tmp_path: Path) -> None:
    pictures = good_jpegs(folder, tmp_path)
    turned = turned_jpegs(pictures, 4, tmp_path)
    assert len(turned.files) == 4 * NUM_GOOD
    assert len({(turned.folder / file).read_bytes() for file in turned.files}) == 4 * NUM_GOOD
    assert turned.num_bytes == pytest.approx(4 * pictures.num_bytes, rel=0.03)
    assert turned.labels() == sorted([0] * 20 + [1] * 24)
    for file in pictures.files:
        with Image.open(pictures.folder / file) as original:
            assert (turned.folder / file.replace(".jpg", "-0.jpg")).read_bytes() == Path(original.filename).read_bytes()
            for number, turn in enumerate((ImageOps.mirror, ImageOps.flip), 1):
                with Image.open(turned.folder / file.replace(".jpg", f"-{number}.jpg")) as other:
                    assert (other.mode, other.quantization) == (original.mode, original.quantization)
                    assert sampling(other) == sampling(original)
                    difference = np.asarray(turn(original), np.float32) - np.asarray(other, np.float32)
                    assert abs(difference).mean() < 4


def sampling(image: Image.Image) -> int:
    assert isinstance(image, JpegImagePlugin.JpegImageFile)
    return JpegImagePlugin.get_sampling(image)


def test_turns_are_eight_different_ones() -> None:
    image = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4))
    seen = set()
    for turn in TURNS:
        turned = image
        for method in turn:
            turned = turned.transpose(method)
        seen.add((turned.size, turned.tobytes()))
    assert len(seen) == 8


def test_once_is_the_pictures_themselves(folder: Path, tmp_path: Path) -> None:
    pictures = good_jpegs(folder, tmp_path)
    assert turned_jpegs(pictures, 1, tmp_path) is pictures


def test_large(folder: Path, tmp_path: Path) -> None:
    pictures = good_jpegs(folder, tmp_path)
    large = large_jpegs(pictures, 1, 3, tmp_path, noise=HIGH_SENSITIVITY)
    assert len(large.files) == 3
    for file in large.files:
        with Image.open(large.folder / file) as image:
            assert (image.size, image.mode, image.format) == ((1155, 866), "RGB", "JPEG")
            gray = np.asarray(image.convert("L"), np.float32)
        # What lies between neighbours is the noise, of which quality 90 keeps most.
        assert 3 < np.diff(gray, axis=1).std() / 2**0.5 < 9
    # A camera's 12 megapixels are 3 to 5 MB.
    assert 3e6 < large.num_bytes / 3 * 12 < 5e6
    assert 1e6 < large_jpegs(pictures, 1, 3, tmp_path, noise=DAYLIGHT).num_bytes / 3 * 12 < 3e6


def test_what_cannot_be_used(folder: Path, tmp_path: Path) -> None:
    pictures = good_jpegs(folder, tmp_path)
    with pytest.raises(UsageError, match="--image_dir=/nowhere is not a folder"):
        good_jpegs(Path("/nowhere"), tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="has no JPEG files"):
        good_jpegs(tmp_path / "empty", tmp_path)
    for times in (0, 9):
        with pytest.raises(UsageError, match=f"--replicate={times}: should be 1..8"):
            turned_jpegs(pictures, times, tmp_path)
    for megapixels in (-1, 101):
        with pytest.raises(UsageError, match=f"--megapixels={megapixels}: should be 1..100"):
            large_jpegs(pictures, megapixels, 1, tmp_path, noise=1.0)
    with pytest.raises(UsageError, match="--num_large=0: should be 1 or more"):
        large_jpegs(pictures, 12, 0, tmp_path, noise=1.0)
