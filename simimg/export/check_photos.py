"""The images that an export is compared on, calibrated with and scored on: those of the run's own dataset."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from simimg.errors import SimimgError, UsageError
from simimg.evaluation import accuracies, multi_label_figures, regression_figures
from simimg.inference.conversion import check_images
from simimg.input import PADDING_ID, eval_batches, folders_with, open_reader, reading, run_splits
from simimg.models.model_folder import RunInfo
from tfrecords.format.image_size import COLORS, image_shape, image_size_of
from tfrecords.storage.remote_dataset import local_dataset

_NUM_CHECKED = 10
_NUM_CALIBRATION = 200  # LiteRT's guide to post-training quantization: "around 100-500 samples"
_NUM_SCORED = 1000  # more would take a large network minutes
_BATCH_SIZE = 32


@dataclasses.dataclass(frozen=True, kw_only=True)
class Photos:
    """Images as a model takes them, uint8 `[n, size, size, 3]`. `source` says in words where the checked ones are from.

    `labels` are those of the scored images, int32 `[n]` or float32 `[n, num_outputs]`. Without calibration, there are
    neither calibration images nor scored ones.
    """

    checked: np.ndarray
    source: str
    calibration: np.ndarray
    scored: np.ndarray
    labels: np.ndarray


def some_photos(info: RunInfo, dataset_dir: Path | None, *, calibrate: bool) -> Photos:
    """Returns images of a run's dataset: to compare and to score from the split that it was tested on, to calibrate
    from the one that it was trained on. If the dataset is not there, the images to compare are those of the package.

    Raises:
        UsageError: `dataset_dir` is no dataset of this model, or is needed to calibrate and not there.
    """
    given = info.config.get("dataset_dir") or ""
    named = (dataset_dir,) if dataset_dir else tuple([given] if isinstance(given, str) else given)
    empty = np.zeros((0, *image_shape(info.image_size, info.channels)), np.uint8)
    try:
        folders = tuple(map(local_dataset, named))
        splits = run_splits(folders, info.config.get("fold", 0))
        checked, source = _tested(info, folders, splits, _NUM_SCORED if calibrate else _NUM_CHECKED)
        calibration = _read(info, folders, splits["train"], _NUM_CALIBRATION)[0] if calibrate else empty
    except SimimgError as error:
        if dataset_dir is not None:
            raise
        if calibrate:
            raise UsageError(
                f"--int8 calibrates with images of the training split, but the run's dataset cannot be read: {error} "
                "If it was moved, give --dataset_dir=PATH."
            ) from None
        images = check_images(info.image_size, info.channels)[:_NUM_CHECKED]
        return Photos(
            checked=images, source="images of the package", calibration=empty, scored=empty, labels=np.zeros(0)
        )
    images, labels = checked
    return Photos(
        checked=images[:_NUM_CHECKED],
        source=source,
        calibration=calibration,
        scored=images if calibrate else empty,
        labels=labels,
    )


def score_of(info: RunInfo, outputs: np.ndarray, exact: np.ndarray, labels: np.ndarray) -> float:
    """Returns the main figure of outputs, float32 `[n, num_outputs]`: the accuracy, or what the objective has instead.

    For a network that finds copies, it is the mean cosine to the `exact` embeddings, since single images have no copy
    recall.
    """
    if info.objective.score == "recall":
        return float((outputs * exact).sum(axis=1).mean() / np.linalg.norm(outputs, axis=1).mean())
    if info.objective.lower_is_better:
        return regression_figures(outputs, labels, info.class_names).mean_absolute_error
    if labels.ndim == 2:
        return multi_label_figures(outputs, labels, info.class_names).mean_average_precision
    return accuracies(outputs, labels)[0]


def _tested(
    info: RunInfo, folders: tuple[Path, ...], splits: dict[str, str], most: int
) -> tuple[tuple[np.ndarray, np.ndarray], str]:
    """Returns images and labels of the first split of test, validation and train that there is, and its name."""
    for use in ("test", "validation", "train"):
        try:
            found = _read(info, folders, splits[use], most)
        except (UsageError, KeyError):
            if use == "train":
                raise
            continue
        break
    where = ", ".join(map(str, folders))
    shape = found[0].shape[1:]
    if shape != image_shape(info.image_size, info.channels):
        there, wanted = ("", "") if shape[2] == info.channels else (f"{COLORS[n]} " for n in (shape[2], info.channels))
        raise UsageError(
            f"--dataset_dir={where} has {there}images of {image_size_of(shape[1::-1])} px; the model takes {wanted}"
            f"{'images of ' if wanted else ''}{info.image_size} px. Name the dataset that it was trained on."
        )
    return found, f"images of split {splits[use]} of {where}"


def _read(info: RunInfo, folders: tuple[Path, ...], split: str, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns `most` images of a split, or all if there are fewer, evenly spread over it, and their labels."""
    crops = info.center_crops
    if info.is_by_name:
        crops["class_names"] = info.class_names
    reader, _ = open_reader(folders_with(folders, split) or folders, split, **crops)
    total = reader.split.num_examples
    wanted = set(np.linspace(0, total - 1, min(most, total)).astype(int).tolist())
    images: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    place = 0
    for batch in reading(reader.split, eval_batches(reader, min(_BATCH_SIZE, total))):
        there = batch.id.numpy() != PADDING_ID
        rows = [row for row in np.flatnonzero(there) if place + row in wanted]
        if rows:
            images.append(batch.image.numpy()[rows])
            labels.append(batch.label.numpy()[rows])
        place += len(there)
    return np.concatenate(images), np.concatenate(labels)
