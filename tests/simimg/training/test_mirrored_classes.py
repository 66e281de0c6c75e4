"""Classes that a flip turns into each other are found, and other classes are not."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from simimg.augment import AugmentConfig
from simimg.training import TrainConfig, Watcher, train
from simimg.training.mirrored_classes import _active, _shrunk, find_mirrored
from tfrecords.convert.engine import convert
from tfrecords.convert.plan.convert_config import ConvertConfig

SHAPES = {
    "arrow": [(0.1, 0.5), (0.5, 0.1), (0.5, 0.35), (0.9, 0.35), (0.9, 0.65), (0.5, 0.65), (0.5, 0.9)],
    "flag": [(0.2, 0.1), (0.8, 0.1), (0.8, 0.5), (0.35, 0.5), (0.35, 0.9), (0.2, 0.9)],
    "box": [(0.2, 0.2), (0.8, 0.2), (0.8, 0.8), (0.2, 0.8)],
}
EVERY_FLIP = ["horizontal_flip", "vertical_flip", "half_turn", "quarter_turn"]


def drawn(shape: str, seed: int, transpose: Image.Transpose | None = None) -> Image.Image:
    """A bright shape of some size, at some place, on a noisy ground of 48 px."""
    rng = np.random.default_rng(seed)
    image = Image.fromarray(rng.integers(20, 90, (6, 6, 3), np.uint8)).resize((48, 48), Image.Resampling.BICUBIC)
    size, (left, top) = rng.integers(26, 36), rng.integers(0, 12, 2)
    mask = Image.new("L", (48, 48))
    ImageDraw.Draw(mask).polygon([(left + size * x, top + size * y) for x, y in SHAPES[shape]], fill=255)
    image.paste(tuple(int(value) for value in rng.integers(150, 256, 3)), (0, 0, 48, 48), mask)
    return image.transpose(transpose) if transpose is not None else image


def pixels(*classes: tuple[str, Image.Transpose | None], count: int = 30) -> tuple[np.ndarray, np.ndarray]:
    images = [
        np.asarray(drawn(shape, 100 * label + number, transpose))
        for label, (shape, transpose) in enumerate(classes)
        for number in range(count)
    ]
    return np.stack(images), np.repeat(np.arange(len(classes)), count)


@pytest.mark.parametrize(
    ("transpose", "flags"),
    [
        (Image.Transpose.FLIP_LEFT_RIGHT, ["--nohorizontal_flip"]),
        (Image.Transpose.FLIP_TOP_BOTTOM, ["--novertical_flip"]),
        (Image.Transpose.ROTATE_180, ["--quarter_turns=off"]),
    ],
)
def test_flags(transpose: Image.Transpose, flags: list[str]) -> None:
    """Of six classes, two are the same shape, once flipped; the shape itself has no symmetry."""
    images, labels = pixels(("box", None), ("flag", None), ("flag", transpose))
    found = find_mirrored(EVERY_FLIP, images, labels, ("box", "a", "b"))
    assert [(pair.classes, pair.flag) for pair in found] == [(("a", "b"), flag) for flag in flags]
    assert found[0].num_images == 60
    assert found[0].num_alike >= 40
    without = [name for name in EVERY_FLIP if not found[0].flag.endswith(name)]
    if transpose is not Image.Transpose.ROTATE_180:
        assert not [pair for pair in find_mirrored(without, images, labels, ("box", "a", "b")) if pair.flag in flags]


def test_other_classes_are_not_reported() -> None:
    """Not those that merely face one way, that nothing tells apart, that are rare, or that are not flipped."""
    left = Image.Transpose.FLIP_LEFT_RIGHT
    assert not find_mirrored(EVERY_FLIP, *pixels(("arrow", None), ("flag", None), ("box", None)), ("a", "b", "c"))
    images, labels = pixels(("flag", None), ("flag", left))
    shuffled = np.random.default_rng(0).permutation(labels)
    assert not find_mirrored(EVERY_FLIP, images, shuffled, ("a", "b"))
    assert not find_mirrored(EVERY_FLIP, *pixels(("flag", None), ("flag", left), count=7), ("a", "b"))
    assert find_mirrored(["horizontal_flip"], images, labels, ("a", "b"))
    assert not find_mirrored(["vertical_flip"], images, labels, ("a", "b"))
    assert not find_mirrored(EVERY_FLIP, images[:30], labels[:30], ("a", "b"))


def test_which_flips_are_made() -> None:
    still = {"rotation_degrees": 0.0, "horizontal_flip": False}
    assert _active(AugmentConfig(**still)) == []
    assert _active(AugmentConfig()) == ["horizontal_flip"]
    assert _active(AugmentConfig(vertical_flip=True)) == ["horizontal_flip", "vertical_flip", "both"]
    for turned in ({**still, "quarter_turns": 0.1}, {**still, "rotation_degrees": 180.0}):
        assert _active(AugmentConfig(**turned)) == ["half_turn", "quarter_turn"]


def test_large_images_are_made_smaller() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 200, 200, 3), np.uint8)
    assert _shrunk(images[:, :127, :127]).shape == (2, 127, 127, 3)
    smaller = _shrunk(images)
    assert (smaller.shape, smaller.dtype) == ((2, 66, 66, 3), np.uint8)
    np.testing.assert_allclose(smaller[1, 5, 7], images[1, 15:18, 21:24].mean(axis=(0, 1)), atol=1)


def test_training_says_so(tmp_path: Path, tiny_model: None) -> None:
    for number in range(24):
        for name, transpose in (("to left", None), ("to right", Image.Transpose.FLIP_LEFT_RIGHT)):
            (tmp_path / "signs" / name).mkdir(parents=True, exist_ok=True)
            drawn("arrow", number + 50 * (transpose is None), transpose).save(tmp_path / f"signs/{name}/{number}.png")
    made = ConvertConfig(image_dir=tmp_path / "signs", data_dir=tmp_path, image_size=48, num_workers=1, name="signs")
    dataset_dir = convert(made).dataset_dir
    for flip in (True, False):
        notes: list[str] = []
        options = {"dataset_dir": dataset_dir, "model_dir": tmp_path / str(flip), "preset": "tutorial", "epochs": 1}
        train(TrainConfig.with_preset({**options, "horizontal_flip": flip}), Watcher(note=notes.append))
        hints = [note for note in notes if "like the other class" in note]
        assert len(hints) == flip
    assert not any("--nohorizontal_flip" in note for note in notes)


SENTENCE = (
    "55 of 60 images of a and b are like the other class when mirrored left to right, and the augmentation does this. "
    "If it changes their class, train with --nohorizontal_flip."
)


def test_the_sentence() -> None:
    images, labels = pixels(("flag", None), ("flag", Image.Transpose.FLIP_LEFT_RIGHT))
    (pair,) = find_mirrored(["horizontal_flip"], images, labels, ("a", "b"))
    assert pair.sentence() == SENTENCE.replace("55 ", f"{pair.num_alike} ")
