"""A trained classifier on image files, without TensorFlow where LiteRT runs the network."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np

from simimg.image_files import load_files
from simimg.inference.network import OpenNetwork
from tfrecords.convert.image.decoder import ImageOptions
from tfrecords.format.quarantine import Refusal

NUM_VIEWS = {"one": 1, "mirrored": 2, "cropped": 12}
"""Test-time views of an image, see `image_views`."""

_CROP = 7 / 8  # of each side, as in `simimg.models.saved_model.views_of`


@dataclasses.dataclass(frozen=True)
class PredictedFiles:
    """Probabilities, float32 `[num_files, num_classes]`; the files in the same order; and the rejected files."""

    probabilities: np.ndarray
    paths: tuple[str, ...]
    refused: tuple[tuple[str, Refusal], ...]


def predict_files(
    network: OpenNetwork,
    paths: Sequence[str],
    options: ImageOptions,
    *,
    views: str = "one",
    progress: Callable[[int], None] = lambda num_files: None,
) -> PredictedFiles:
    """Return a classifier's output for image files, the mean over the test-time `views` of each.

    `options` are those of the images that the model was trained on. `progress` is called with the number of files since
    its last call.
    """
    done: list[str] = []
    refused: list[tuple[str, Refusal]] = []
    parts: list[np.ndarray] = [np.zeros((0, network.facts.dim), np.float32)]

    def decoded() -> Iterator[tuple[str, Any]]:
        for path, loaded in load_files(paths, options):
            if isinstance(loaded, Refusal):
                refused.append((path, loaded))
                progress(1)
            else:
                yield path, loaded.pixels

    images = decoded()
    while batch := list(islice(images, max(1, network.batch_size // NUM_VIEWS[views]))):
        shown = [view for _, pixels in batch for view in image_views(pixels, views)]
        outputs = network(np.stack(shown)).reshape(len(batch), -1, network.facts.dim)
        parts.append(outputs.mean(axis=1))
        done += [path for path, _ in batch]
        progress(len(batch))
    return PredictedFiles(np.concatenate(parts), tuple(done), tuple(refused))


def image_views(pixels: np.ndarray, views: str) -> list[np.ndarray]:
    """Return the test-time views of an image, uint8 `[size, size, 3]`, as `simimg.models.saved_model.views_of` does.

    They are 1, 2 or 12 arrays, float32 `[size, size, 3]`.
    """
    image = pixels.astype(np.float32)
    if views == "one":
        return [image]
    shown = [image, image[:, ::-1]]
    if views == "cropped":
        left = 1 - _CROP
        for top, side in ((0.0, 0.0), (0.0, left), (left, 0.0), (left, left), (left / 2, left / 2)):
            crop = _enlarged(_enlarged(image, top).transpose(1, 0, 2), side).transpose(1, 0, 2)
            shown += [crop, crop[:, ::-1]]
    return shown


def _enlarged(image: np.ndarray, start: float) -> np.ndarray:
    """Return the part `_CROP` of an image's rows that begins at the share `start`, enlarged bilinearly to all rows.

    The first and the last row of the result are exactly at the part's edges, as in TensorFlow's `crop_and_resize`.
    """
    last = len(image) - 1
    at = np.clip(np.linspace(start, start + _CROP, last + 1) * last, 0, last)
    above = np.minimum(at.astype(np.int64), last - 1)
    share = (at - above).astype(np.float32)[:, None, None]
    return image[above] + (image[above + 1] - image[above]) * share
