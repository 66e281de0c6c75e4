"""A dataset to a trained model, its evaluation and its predictions."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simimg.api.arguments import Counter, Folder, checked_options, folders, here
from simimg.errors import UsageError
from tfrecords.locations import location_text

if TYPE_CHECKING:
    from simimg.api.run_report import Figures
    from simimg.input import Reader
    from simimg.training import RunInfo, TrainResult, Watcher


_LABELS_OF = {"classes": "single", "multilabel": "multi", "regression": "float"}
"""The type of the labels that a model was trained on, by the objective."""


def train(dataset_dir: Folder | Sequence[Folder], *, watcher: Watcher | None = None, **options: Any) -> TrainResult:
    """Train a model, or resume an interrupted run.

    Args:
        dataset_dir: the dataset's folder, or several; `dataset_weights="3,1"` says how often each one is used.
        watcher: receives progress and notes; see `simimg.training.Watcher`.
        **options: options of `simimg train`, such as `preset`, `model_dir`, `epochs` and `seed`.

    Raises:
        UsageError: an option is not valid.
        TrainingError: training cannot continue.

    Example:
        >>> options = {"preset": "tutorial", "epochs": 2, "global_batch_size": 10}
        >>> run = simimg.train("data/photos/1.0.0", model_dir="runs/first", **options)
        >>> run.epoch, run.model_dir
        (2, PosixPath('runs/first'))
    """
    from simimg.training import TrainConfig, Watcher
    from simimg.training import train as train_model

    given = checked_options(TrainConfig, "train", {"dataset_dir": dataset_dir, **options})
    return train_model(TrainConfig.with_preset(given), watcher or Watcher())


def evaluate(
    model_dir: Folder,
    dataset_dir: Folder | Sequence[Folder],
    *,
    split: str = "test",
    report: Folder | None = None,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> Figures:
    """Measure a trained model on a split.

    Args:
        model_dir: folder of a finished run.
        dataset_dir: the dataset's folder, or several, whose splits are measured as one.
        split: the split to measure on. On a dataset with folds, `test` is the fold that the run did not train on.
        report: also write a report (HTML) with the model's mistakes to this file.
        progress: called with the number of examples done and the total.

    Returns:
        A `Classification`, with the temperature that fits the split `validation` if the dataset has one; `CopyFigures`
        for a model trained with `objective="similarity"`; `MultiLabelFigures` if images have several labels, and
        `RegressionFigures` if they have numbers.

    Raises:
        UsageError: the model does not fit the dataset.
        ModelError: the folder is not that of a finished run.

    Example:
        >>> figures = simimg.evaluate("runs/first", "data/photos/1.0.0")
        >>> figures.num_examples, 0 <= figures.accuracy <= 1
        (10, True)
    """
    from simimg.api.run_report import by_kind, classes_only, measure, validation_reader
    from simimg.doctor.machine import machine_facts
    from simimg.evaluation import MultiLabelFigures
    from simimg.report.training_report import write_evaluation_report

    reader, model, info = open_trained(model_dir, dataset_dir, split)
    advance = Counter(progress, reader.split.num_examples).advance
    validation = validation_reader(folders(dataset_dir), info, split, class_names=info.class_names, **info.center_crops)
    figures, mistakes = measure(reader, model, info, advance, with_mistakes=report is not None, validation=validation)
    if isinstance(figures, MultiLabelFigures) and not any(figures.num_images.values()):
        raise UsageError(
            f"no image in split {split} of {dataset_dir} has a label, so there is no average precision. Name another "
            "split with --split."
        )
    if report is not None:
        write_evaluation_report(
            classes_only(figures),
            mistakes=mistakes,
            path=here(report, "report"),
            **by_kind(figures),
            model_dir=str(model_dir),
            dataset_dir=", ".join(map(location_text, folders(dataset_dir))),
            split=split,
            machine=machine_facts(),
            binary_loss=info.config["loss"] == "binary",
        )
    return figures


def open_trained(model_dir: Folder, dataset_dir: Folder | Sequence[Folder], split: str) -> tuple[Reader, Any, RunInfo]:
    """Return a reader of a split, a trained model, and the description of its run; raises as `evaluate`.

    A model that was trained on several datasets is measured on each of them, or on all, by the names of its classes.
    """
    from simimg.input import open_reader, run_splits
    from simimg.models.gpu_memory import grow_gpu_memory
    from simimg.models.model_folder import CONFIG_FILE
    from simimg.training import load_run, load_trained
    from tfrecords.format.image_size import COLORS
    from tfrecords.format.layout import Layout
    from tfrecords.format.naming import num_folds
    from tfrecords.storage.remote_dataset import local_dataset

    grow_gpu_memory()
    named = [location_text(one) for one in folders(dataset_dir)]
    places = [local_dataset(one, "") for one in named]
    if Layout.exists(places[0]) and num_folds(Layout.load(places[0]).splits):
        fold = load_run(here(model_dir, "model_dir")).config.get("fold", 0)
        if fold and split in (found := run_splits(places, fold)):
            split = found[split]
    places = [local_dataset(one, split, streamed=True) for one in named]
    run = here(model_dir, "model_dir")
    reader, _ = open_reader(places, split, **(load_run(run).center_crops if (run / CONFIG_FILE).is_file() else {}))
    model, info = load_trained(run)
    if info.is_by_name and set(reader.split.class_names) <= set(info.class_names):
        reader, _ = open_reader(places, split, class_names=info.class_names)
    there, size = reader.split, info.image_size
    if there.channels != info.channels:
        raise UsageError(
            f"{model_dir} was trained on {COLORS[info.channels]} images, and those of {', '.join(named)} are "
            f"{COLORS[there.channels]}. Convert them: simimg convert --from={named[0]} --channels={info.channels}"
        )
    if info.objective.score == "recall":
        if there.image_size != info.image_size:
            raise UsageError(
                f"{model_dir} was trained on images of {size} px, but those of {', '.join(named)} have "
                f"{there.image_size} px. Convert them with --image_size={size}."
            )
    elif (expected := _LABELS_OF.get(info.config.get("objective", "classes"))) != there.schema.label_type:
        raise UsageError(
            f"{model_dir} was trained on labels of --label_type={expected}, but {', '.join(named)} has "
            f"--label_type={there.schema.label_type}. Name a dataset of the same kind."
        )
    elif there.class_names != info.class_names or there.image_size != info.image_size:
        what = "targets" if info.objective.lower_is_better else "classes"
        raise UsageError(
            f"{model_dir} was trained on {len(info.class_names)} {what} at {size} px "
            f"({_some(info.class_names)}), but {', '.join(named)} has {len(there.class_names)} at "
            f"{there.image_size} px ({_some(there.class_names)}). Name a dataset of the same {what} and the "
            "same size."
        )
    return reader, model, info


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")


@dataclasses.dataclass(frozen=True, slots=True)
class Prediction:
    """Prediction for an image: the most probable class, and the probabilities of all classes, in descending order."""

    path: str
    label: str
    probability: float
    probabilities: dict[str, float]


def predict(
    model_dir: Folder,
    images: Folder | Sequence[Folder],
    *,
    refused: Callable[[str, str], object] = lambda path, reason: None,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> list[Prediction]:
    """Classify images with a trained model.

    Args:
        model_dir: folder of a finished run.
        images: one or several files and folders; a folder stands for all images in it.
        refused: called with each file that cannot be decoded, and the reason; the file is skipped.
        progress: called with the number of files done and the total.

    Raises:
        UsageError: a file does not exist, or the model was trained without classes.
        ModelError: the folder is not that of a finished run.

    Example:
        >>> [found.path for found in simimg.predict("runs/first", "photos/fishes")][:1]
        ['photos/fishes/image_0001.jpg']
    """
    from simimg.image_files import named_files
    from simimg.inference.classifier import predict_files
    from simimg.inference.network import MANY, open_network
    from simimg.models.model_folder import check_trained, load_run
    from tfrecords.convert.image.decoder import image_options

    run_dir = here(model_dir, "model_dir")
    paths = named_files([str(one) for one in ([images] if isinstance(images, str | Path) else images)])
    check_trained(run_dir)
    info = load_run(run_dir)
    if info.objective.lower_is_better:
        raise UsageError(
            f"{model_dir} was trained to give numbers ({', '.join(info.class_names)}), and has no classes. Measure it "
            "with `simimg evaluate`, or export it with `simimg export`."
        )
    if info.objective.score == "recall":
        raise UsageError(
            f"{model_dir} was trained to find copies and has no classes. Make an index with it: "
            f"simimg index --model={model_dir} --image_dir=PATH --index_dir=PATH; then run simimg search."
        )
    found = predict_files(
        open_network(str(model_dir), "probabilities", many=len(paths) >= MANY),
        paths,
        image_options(info),
        views=info.config.get("test_views", "one"),
        progress=Counter(progress, len(paths)).advance,
    )
    for path, refusal in found.refused:
        refused(path, str(refusal))
    predictions = []
    for path, row in zip(found.paths, found.probabilities, strict=True):
        order = (-row).argsort(kind="stable").tolist()
        named = {info.class_names[label]: float(row[label]) for label in order}
        best = info.class_names[order[0]]
        predictions.append(Prediction(path, best, named[best], named))
    return predictions
