"""What a classifier says of image files."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from simimg.image_files import BATCH_SIZE, load_batches
from tfrecords.format.quarantine import Refusal

__all__ = ["PredictedFiles", "predict_files"]


@dataclasses.dataclass(frozen=True)
class PredictedFiles:
    """Probabilities, float32 `[num_files, num_classes]`, the files in the same order, and what was refused."""

    probabilities: np.ndarray
    paths: tuple[str, ...]
    refused: tuple[tuple[str, Refusal], ...]


def predict_files(
    forward: Callable[[tf.Tensor], tf.Tensor],
    paths: Sequence[str],
    *,
    image_size: int,
    resize: str,
    num_classes: int,
    progress: Callable[[int], None] = lambda num_files: None,
) -> PredictedFiles:
    """Returns a model's answers to image files.

    Args:
        forward: uint8 pixels to probabilities, see `simimg.evaluation.compiled`.
        paths: the files.
        image_size: what the model wants, px.
        resize: how pictures were brought to this size in the training.
        num_classes: of the answers.
        progress: called with the number of files since the last call.
    """
    done: list[str] = []
    refused: list[tuple[str, Refusal]] = []
    parts: list[np.ndarray] = []
    for facts, pixels in load_batches(paths, image_size=image_size, how=resize, refused=refused, progress=progress):
        # Batches of one size, so that the model is compiled once.
        filled = np.zeros((BATCH_SIZE, *pixels.shape[1:]), np.uint8)
        filled[: len(pixels)] = pixels
        parts.append(forward(tf.constant(filled)).numpy()[: len(pixels)])
        done += [file.path for file in facts]
    probabilities = np.concatenate(parts) if parts else np.zeros((0, num_classes), np.float32)
    return PredictedFiles(probabilities, tuple(done), tuple(refused))
