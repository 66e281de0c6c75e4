"""Finds classes that a flip turns into each other, such as arrows to the left and to the right, before the training.

A network that is shown flipped images of such classes cannot tell them apart, and its accuracy on them stays near one
half. The check needs no network. Images are compared by histograms of the directions of their gradients, from dark to
bright, over the whole image and its parts, and classified by kernel ridge regression on all other images (the formula
for leaving one out is Rasmussen, Williams, "Gaussian Processes for Machine Learning", equation 5.12). Two classes are
reported if most images of each are taken for their own class, and their flipped images more often for the other class
than for any. So classes that are hard to tell apart, or whose objects merely face one way, are not reported.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from simimg.augment import AugmentConfig
from simimg.input import Reader, eval_batches, reading

_MOST_IMAGES = 2000
_FEWEST_PER_CLASS = 8
_RIGHT = 0.6  # share of the images of a class that are taken for it
_LIKE_OTHER = 0.4  # share of the flipped images that are taken for the other class; below 0.35 for photos of objects
_SHARPNESS, _RIDGE = 4.0, 0.1  # of the kernel, exp(4 (cosine - 1)), and of the regression
_NUM_DIRECTIONS = 8
_GRIDS = (1, 2, 4)  # parts along each side
_CHUNK = 256
_SIDE = 64  # px; larger images are made smaller, to need less memory
_BATCH_SIZE = 64

_FLIPS: dict[str, tuple[str, str, Callable[[np.ndarray], np.ndarray]]] = {
    "horizontal_flip": ("mirrored left to right", "--nohorizontal_flip", lambda images: images[:, :, ::-1]),
    "vertical_flip": ("mirrored top to bottom", "--novertical_flip", lambda images: images[:, ::-1]),
    "both": ("turned by half", "--novertical_flip", lambda images: images[:, ::-1, ::-1]),
    "half_turn": ("turned by half", "--quarter_turns=off", lambda images: images[:, ::-1, ::-1]),
    "quarter_turn": ("turned by a quarter", "--quarter_turns=off", lambda images: np.rot90(images, axes=(1, 2))),
}


@dataclasses.dataclass(frozen=True)
class MirroredClasses:
    """Two classes that a flip turns into each other: its description, the flag that switches it off, and how many of
    the images of both have a flipped image that looks like the other class.
    """

    classes: tuple[str, str]
    flipped: str
    flag: str
    num_alike: int
    num_images: int

    def sentence(self) -> str:
        """Returns what to tell the user."""
        first, second = self.classes
        return (
            f"{self.num_alike} of {self.num_images} images of {first} and {second} are like the other class when "
            f"{self.flipped}, and the augmentation does this. If it changes their class, train with {self.flag}."
        )


def mirrored_classes(config: AugmentConfig, reader: Reader) -> list[MirroredClasses]:
    """Returns the classes of a split, with one label per image, that the flips in `config` turn into each other.

    At most 2,000 images of the split are looked at, and classes with at least 8 of them. Only the first flip is
    reported for a pair.

    Raises:
        DataError: a record cannot be read.
    """
    active = _active(config)
    if not active:
        return []
    split = reader.split
    batches = eval_batches(reader, min(_BATCH_SIZE, split.num_examples)).take(-(-_MOST_IMAGES // _BATCH_SIZE))
    images, labels = [], []
    for batch in reading(split, batches):
        there = batch.id.numpy() >= 0
        images.append(_shrunk(batch.image.numpy()[there]))
        labels.append(batch.label.numpy()[there])
    return find_mirrored(active, np.concatenate(images), np.concatenate(labels), split.class_names)


def find_mirrored(
    flips: list[str], images: np.ndarray, labels: np.ndarray, class_names: tuple[str, ...]
) -> list[MirroredClasses]:
    """Returns the classes that any of `flips` turns into each other.

    Images are uint8 `[n, height, width, channels]`, and labels are integers `[n]`.
    """
    counts = np.bincount(labels, minlength=len(class_names))
    kept = counts[labels] >= _FEWEST_PER_CLASS
    images, labels = images[kept], labels[kept]
    if len(np.unique(labels)) < 2:
        return []
    features = _features(images)
    own = _confusion(features, features, labels, len(class_names))
    right = np.diagonal(own) >= _RIGHT * counts
    found: dict[tuple[int, int], MirroredClasses] = {}
    for name in flips:
        flipped, flag, flip = _FLIPS[name]
        alike = _confusion(_features(flip(images)), features, labels, len(class_names))
        most = (alike == alike.max(axis=1, keepdims=True)) & (alike >= _LIKE_OTHER * np.maximum(counts, 1)[:, None])
        most &= right[:, None] & right
        for first, second in np.argwhere(np.triu(most & most.T, k=1)).tolist():
            names = (class_names[first], class_names[second])
            numbers = int(alike[first, second] + alike[second, first]), int(counts[first] + counts[second])
            found.setdefault((first, second), MirroredClasses(names, flipped, flag, *numbers))
    return list(found.values())


def _shrunk(images: np.ndarray) -> np.ndarray:
    """Returns the means of blocks of pixels, so that 64 to 127 px remain of the short side of larger images; uint8."""
    num, height, width, channels = images.shape
    factor = min(height, width) // _SIDE
    if factor < 2:
        return images
    rows, columns = height // factor, width // factor
    whole = images[:, : rows * factor, : columns * factor]
    blocks = whole.reshape(num, rows, factor, columns, factor, channels)
    return blocks.mean(axis=(2, 4), dtype=np.float32).astype(np.uint8)


def _active(config: AugmentConfig) -> list[str]:
    """Returns the flips that `config` makes, by their names in `_FLIPS`."""
    turns = bool(config.quarter_turns) or config.rotation_degrees >= 135
    made = {
        "horizontal_flip": config.horizontal_flip,
        "vertical_flip": config.vertical_flip,
        "both": config.horizontal_flip and config.vertical_flip,
        "half_turn": turns,
        "quarter_turn": turns,
    }
    return [name for name, is_made in made.items() if is_made]


def _confusion(queries: np.ndarray, features: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Returns how many queries of each class (rows) are taken for each class, int64 `[num_classes, num_classes]`.

    Queries and features are unit vectors, float32 `[n, dim]`. Query i is not compared with the image i.
    """
    similar = np.exp(_SHARPNESS * (features @ features.T - 1)).astype(np.float64)
    inverse = np.linalg.inv(similar + _RIDGE * np.eye(len(labels)))
    weights = inverse @ (np.eye(num_classes)[labels] - 1 / num_classes)
    similar = np.exp(_SHARPNESS * (queries @ features.T - 1)).astype(np.float64)
    left_out = np.einsum("ij,ji->i", similar, inverse) / np.diagonal(inverse)
    scores = similar @ weights - left_out[:, None] * weights
    found = np.zeros((num_classes, num_classes), np.int64)
    np.add.at(found, (labels, scores.argmax(axis=1)), 1)
    return found


def _features(images: np.ndarray) -> np.ndarray:
    """Returns unit vectors, float32 `[n, dim]`: the gradients' lengths by direction, in each part of the image."""
    parts = []
    for start in range(0, len(images), _CHUNK):
        gray = images[start : start + _CHUNK].astype(np.float32).mean(axis=3)
        down, right = np.gradient(gray, axis=(1, 2))
        length = np.hypot(down, right)
        direction = np.floor((np.arctan2(down, right) / (2 * np.pi) + 0.5) * _NUM_DIRECTIONS).astype(int)
        direction %= _NUM_DIRECTIONS
        by_direction = [np.where(direction == number, length, 0) for number in range(_NUM_DIRECTIONS)]
        values = [_summed(one, grid) for grid in _GRIDS for one in by_direction]
        parts.append(np.concatenate(values, axis=1))
    features = np.sqrt(np.concatenate(parts))
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    return (features / np.maximum(norms, 1e-6)).astype(np.float32)


def _summed(values: np.ndarray, grid: int) -> np.ndarray:
    """Returns the sums over grid x grid parts of each image, `[n, grid * grid]`."""
    starts = [np.arange(grid) * size // grid for size in values.shape[1:]]
    rows = np.add.reduceat(values, starts[0], axis=1)
    return np.add.reduceat(rows, starts[1], axis=2).reshape(len(values), -1)
