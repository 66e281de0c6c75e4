"""Figures and reports of a trained model: the evaluation with its mistakes, and the report of a training run."""

from __future__ import annotations

import dataclasses
import shlex
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf
from PIL import Image

from simimg.augment import AugmentConfig, augment
from simimg.doctor.machine import machine_facts
from simimg.evaluation import (
    Classification,
    CopyFigures,
    MultiLabelFigures,
    RegressionFigures,
    classify,
    compiled,
    copy_of,
    multi_label_figures,
    predict,
    regression_figures,
    search_copies,
    with_details,
)
from simimg.input import Reader, Split, eval_batches, folders_with, open_reader, own_ids, reading, run_splits
from simimg.models import device_copies
from simimg.presets import preset_options
from simimg.report.charts import confusion_matrix
from simimg.report.contact_sheet import Tile
from simimg.report.number_format import count_of, duration, percent
from simimg.report.training_report import TrainingContent, write_training_report
from simimg.training import RunInfo, TensorBoard, TrainConfig, TrainResult, load_model
from simimg.training.run_folder import REPORT_FILE
from tfrecords.convert.image.color import rgb_of
from tfrecords.format.atomic_files import write_json
from tfrecords.format.image_size import sides_text
from tfrecords.format.layout import Layout
from tfrecords.format.manifest import read_manifest
from tfrecords.options import to_json
from tfrecords.storage.remote_dataset import local_dataset

_IMAGES_PER_CELL, _MAX_MISTAKES = 12, 150  # of a confusion matrix: 5 kB per image in the report
_NUM_COPIES = 6
# Options that every run is given, so they are not changes of the defaults.
_ALWAYS_GIVEN = {"dataset_dir", "model_dir"}
_NUM_AUGMENTED, _EPOCHS_SHOWN = 3, 5
_BATCH_SIZE = 64

VALIDATION = "validation"
FIGURES_FILE = "evaluation-{}.json"
"""The file in a run's folder with its figures on a split, whose name takes the place of the braces."""

Figures: TypeAlias = Classification | CopyFigures | MultiLabelFigures | RegressionFigures


def measure(
    reader: Reader,
    model: Any,
    info: RunInfo,
    progress: Callable[[int], None] = lambda num_examples: None,
    *,
    with_mistakes: bool = True,
    validation: Reader | None = None,
) -> tuple[Figures, list[Tile]]:
    """Return the figures of a model on a split, of the kind that it was trained for, and tiles of its mistakes.

    `progress` is called with the number of examples since the last call. Without `with_mistakes` there are no tiles,
    which need a second pass over the split. Models for several labels or for numbers have none. `validation` reads the
    split that the temperature of a classifier is fitted on, which is another one than the measured split.
    """
    if info.objective.score == "recall":
        return _measure_copies(reader, model, info, progress, with_mistakes=with_mistakes)
    split = reader.split
    devices = device_copies.compute_devices()
    forward = compiled(model, views=info.config["test_views"], devices=devices)
    probabilities, labels, ids = predict(forward, reader, num_devices=len(devices), progress=progress)
    if split.schema.label_type == "multi":
        return multi_label_figures(probabilities, labels, split.class_names), []
    if split.schema.label_type == "float":
        return regression_figures(probabilities, labels, split.class_names), []
    others = predict(forward, validation, num_devices=len(devices))[:2] if validation else None
    figures = with_details(classify(probabilities, labels, split.class_names), probabilities, labels, others)
    if not with_mistakes:
        return figures, []
    batches = reading(split, eval_batches(reader, min(_BATCH_SIZE, split.num_examples)))
    images = np.concatenate([batch.image.numpy() for batch in batches])[: len(labels)]
    return figures, surest_mistakes(probabilities, labels, images, split.class_names, _names(split, ids))


def surest_mistakes(
    probabilities: np.ndarray, labels: np.ndarray, images: np.ndarray, names: tuple[str, ...], paths: list[str]
) -> list[Tile]:
    """Return tiles of the images that a classifier got wrong, the surest first, a few for each confusion cell."""
    predicted = probabilities.argmax(axis=1)
    wrong = np.flatnonzero(predicted != labels)
    surest = wrong[np.argsort(-probabilities[wrong, predicted[wrong]], kind="stable")]
    tiles: list[Tile] = []
    num_of_cell: Counter[tuple[int, int]] = Counter()
    for row in surest.tolist():
        cell = (int(labels[row]), int(predicted[row]))
        num_of_cell[cell] += 1
        if num_of_cell[cell] <= _IMAGES_PER_CELL and len(tiles) < _MAX_MISTAKES:
            note = f"taken for {names[cell[1]]} ({percent(float(probabilities[row, cell[1]]))})"
            tiles.append(Tile(Image.fromarray(rgb_of(images[row])), paths[row], note, cell=cell))
    return tiles


def _measure_copies(
    reader: Reader, model: Any, info: RunInfo, progress: Callable[[int], None], *, with_mistakes: bool
) -> tuple[CopyFigures, list[Tile]]:
    """Returns the figures of a copy model, and tiles of some copies that found another image, each next to it."""
    config, seed, temperature = AugmentConfig.from_options(info.config), info.config["seed"], info.config["temperature"]
    devices = device_copies.compute_devices()
    forward, count = compiled(model, devices=devices), len(devices)
    search = search_copies(
        forward, reader, config, seed=seed, temperature=temperature, num_devices=count, progress=progress
    )
    if not with_mistakes:
        return search.figures, []
    wrong = np.flatnonzero(search.found != np.arange(len(search.found)))[:_NUM_COPIES].tolist()
    wanted = {int(search.ids[row]) for place in wrong for row in (place, search.found[place])}
    images: dict[int, tf.Tensor] = {}
    batches = reading(reader.split, eval_batches(reader, min(_BATCH_SIZE, reader.split.num_examples)))
    for batch in batches if wanted else ():
        there = [row for row, id in enumerate(batch.id.numpy().tolist()) if id in wanted]
        images |= {int(batch.id[row]): batch.image[row] for row in there}
    names = _names(reader.split, search.ids)
    tiles = []
    for place in wrong:
        id, other = int(search.ids[place]), int(search.found[place])
        copy = copy_of(config, seed, tf.constant([id], tf.int64), images[id][None]).numpy()[0]
        tiles.append(Tile(Image.fromarray(rgb_of(np.rint(copy).astype(np.uint8))), names[place], "the copy"))
        tiles.append(
            Tile(Image.fromarray(rgb_of(images[int(search.ids[other])].numpy())), names[other], "found instead")
        )
    return search.figures, tiles


def validation_reader(
    dataset_dirs: Sequence[Path], info: RunInfo, split: str, kind: str = "auto", **crops: Any
) -> Reader | None:
    """Return the reader of the split validation, None if there is none, or if `split` has it, or for no classifier."""
    if VALIDATION in split.split("+") or info.objective.score != "accuracy":
        return None
    there = folders_with([local_dataset(one, VALIDATION, streamed=True) for one in dataset_dirs], VALIDATION)
    return open_reader(there, VALIDATION, kind, **crops)[0] if there else None


def figures_json(figures: Figures) -> dict[str, Any]:
    """Return figures as values for JSON."""
    return figures.to_json() if isinstance(figures, Classification) else dataclasses.asdict(figures)


def by_kind(figures: Figures | None) -> dict[str, Any]:
    """Return the figures by the name of their kind, as the functions that write reports take them."""
    return {
        "copies": figures if isinstance(figures, CopyFigures) else None,
        "labels": figures if isinstance(figures, MultiLabelFigures) else None,
        "targets": figures if isinstance(figures, RegressionFigures) else None,
    }


def classes_only(figures: Figures | None) -> Classification | None:
    """Return the figures if they are those of a classifier."""
    return figures if isinstance(figures, Classification) else None


def write_run_report(
    result: TrainResult, options: TrainConfig, note: Callable[[str], None] = lambda text: None
) -> Path:
    """Write report.html and the confusion matrix to the folder of a finished run, and return the report's path.

    `note` is called with warnings.
    """
    model_dir = result.model_dir
    model, info = load_model(model_dir)
    places = [local_dataset(one, streamed=True) for one in options.dataset_dirs]
    splits = run_splits(places, options.fold)
    crops: dict[str, Any] = {"crop": options.crop, "image_size": options.image_size}
    train, _ = open_reader(places, splits["train"], options.reader, **crops)
    split = next((name for name in ("test", "validation") if result.score(info.objective, name) is not None), "")
    figures: Figures | None = None
    mistakes: list[Tile] = []
    if split:
        there = folders_with(places, splits[split])
        crops["class_names"] = info.class_names or None
        reader, _ = open_reader(there, splits[split], options.reader, **crops)
        validation = validation_reader(places, info, split, options.reader, **crops)
        figures, mistakes = measure(reader, model, info, validation=validation)
        write_json(model_dir / FIGURES_FILE.format(split), figures_json(figures))
    classification = classes_only(figures)
    if classification is not None:
        picture = model_dir / f"confusion-{split}.png"
        confusion_matrix(classification, picture)
        with TensorBoard(model_dir, note) as board, Image.open(picture) as image:
            board.picture("confusion", np.asarray(image.convert("RGB")), result.epoch)
    values = {**to_json(options), **info.config}
    content = TrainingContent(
        name=model_dir.name,
        dataset=(
            f"{train.split.num_examples:,} images of {count_of(len(info.class_names), *_outputs_of(info))}, "
            f"{sides_text(info.image_size)} px, from {', '.join(options.dataset_names)}"
        ),
        model_dir=str(model_dir),
        command=shlex.join(["simimg", "train", f"--config={model_dir / 'config.json'}"]),
        split=split,
        classification=classification,
        mistakes=mistakes,
        history=result.history,
        epoch=result.epoch,
        facts={
            "images/s": f"{result.images_per_s:,.0f}",
            "of training": duration(result.seconds),
            "of it spent waiting for input": percent(result.input_share, 1),
        },
        augmented=_augmented(train, options) if result.epoch else (),
        options={name: str(value) for name, value in values.items() if value not in (None, "", 0)},
        changed=changed_options({name: value for name, value in values.items() if name not in _ALWAYS_GIVEN}),
        machine=machine_facts(),
        **by_kind(figures),
        binary_loss=info.config["loss"] == "binary",
    )
    path = model_dir / REPORT_FILE
    write_training_report(content, path)
    return path


def _outputs_of(info: RunInfo) -> tuple[str, str]:
    return ("target", "targets") if info.objective.lower_is_better else ("class", "classes")


def changed_options(options: Mapping[str, Any]) -> dict[str, str]:
    """Return the options of a run that differ from those of its preset, as texts."""
    ordinary = {field.name: field.default for field in dataclasses.fields(TrainConfig)}
    ordinary |= preset_options(options["preset"])
    return {key: str(value) for key, value in options.items() if value != ordinary.get(key) and key != "preset"}


def _names(split: Split, ids: np.ndarray) -> list[str]:
    names = [""] * len(ids)
    for own, rows, numbers in own_ids(split, ids):
        paths = {}
        if Layout.exists(own.dataset_dir):
            paths = {row.id: row.path for row in read_manifest(own.dataset_dir)}
        where = f"{own.name}: " if split.parts else ""
        for row, id in zip(rows.tolist(), numbers.tolist(), strict=True):
            names[row] = where + paths.get(id, f"example {id}")
    return names


def _augmented(reader: Reader, options: TrainConfig) -> list[list[Tile]]:
    """Return rows of tiles: an image as stored, then as augmented in the first epochs."""
    batch = next(reading(reader.split, eval_batches(reader, min(_NUM_AUGMENTED, reader.split.num_examples))))
    seen = []
    for epoch in range(_EPOCHS_SHOWN):
        number = tf.constant(epoch, tf.int64)
        images = augment(options.augmentation, options.seed, number, batch.id, batch.image)
        seen.append(rgb_of(np.rint(images.numpy()).astype(np.uint8)))
    stored = rgb_of(batch.image.numpy())
    if all(np.array_equal(images, stored) for images in seen):
        return []  # nothing is augmented
    return [
        [Tile(Image.fromarray(image), "as stored")]
        + [Tile(Image.fromarray(images[row]), f"epoch {epoch}") for epoch, images in enumerate(seen, 1)]
        for row, image in enumerate(stored)
    ]
