"""A data set to a trained model, and what it is worth and says."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simimg.api.arguments import Folder, check_names, counted
from simimg.errors import UsageError

if TYPE_CHECKING:
    from simimg.evaluation import Classification, CopyFigures
    from simimg.input import Reader
    from simimg.training import RunInfo, TrainResult, Watcher

__all__ = ["Prediction", "evaluate", "open_trained", "predict", "train"]


def train(dataset_dir: Folder, *, watcher: Watcher | None = None, **options: Any) -> TrainResult:
    """Trains a model, or goes on with a training that was stopped.

    Args:
        dataset_dir: the data set's folder.
        watcher: is told how it goes; see `simimg.training.Watcher`.
        **options: those of `simimg train`, such as `preset`, `model_dir`, `epochs` and `seed`.

    Raises:
        UsageError: an option cannot be used.
        TrainingError: it cannot go on.

    Example:
        >>> options = {"preset": "tutorial", "epochs": 2, "global_batch_size": 10}
        >>> run = simimg.train("data/photos/1.0.0", model_dir="runs/first", **options)
        >>> run.epoch, run.model_dir
        (2, PosixPath('runs/first'))
    """
    from simimg.training import TrainConfig, Watcher
    from simimg.training import train as train_model

    given = {"dataset_dir": Path(dataset_dir), **options}
    check_names(TrainConfig, "train", given)
    if given.get("model_dir") is not None:
        given["model_dir"] = Path(given["model_dir"])
    return train_model(TrainConfig.with_preset(given), watcher or Watcher())


def evaluate(
    model_dir: Folder,
    dataset_dir: Folder,
    *,
    split: str = "test",
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> Classification | CopyFigures:
    """Measures a trained model on a split.

    Args:
        model_dir: the folder of a finished run.
        dataset_dir: the data set's folder.
        split: what to measure on.
        progress: called with the number of examples that are done, and of all.

    Returns:
        A `Classification`; of a model that was trained for copies, `CopyFigures`.

    Raises:
        UsageError: the model and the data set do not fit each other.
        ModelError: the folder is none of a finished run.

    Example:
        >>> figures = simimg.evaluate("runs/first", "data/photos/1.0.0")
        >>> figures.num_examples, 0 <= figures.accuracy <= 1
        (10, True)
    """
    from simimg.augment import AugmentConfig
    from simimg.evaluation import classify, compiled, search_copies
    from simimg.evaluation import predict as predictions_of

    reader, model, info = open_trained(model_dir, dataset_dir, split)
    advance = counted(progress, reader.split.num_examples)
    if info.objective.score == "recall":
        return search_copies(
            compiled(model),
            reader,
            AugmentConfig.from_options(info.config),
            seed=info.config["seed"],
            temperature=info.config["temperature"],
            progress=advance,
        ).figures
    forward = compiled(model, views=info.config["test_views"])
    probabilities, labels, _ = predictions_of(forward, reader, progress=advance)
    return classify(probabilities, labels, reader.split.class_names)


def open_trained(model_dir: Folder, dataset_dir: Folder, split: str) -> tuple[Reader, Any, RunInfo]:
    """Returns a reader of a split, a trained model, and what describes its run; raises as `evaluate`."""
    from simimg.input import open_reader
    from simimg.training import load_trained

    reader, _ = open_reader(Path(dataset_dir), split)
    model, info = load_trained(Path(model_dir))
    there = reader.split
    if info.objective.score == "recall":
        if there.image_size != info.image_size:
            raise UsageError(
                f"{model_dir} was trained on pictures of {info.image_size} px; those of {dataset_dir} have "
                f"{there.image_size} px."
            )
    elif there.class_names != info.class_names or there.image_size != info.image_size:
        raise UsageError(
            f"{model_dir} was trained on {len(info.class_names)} classes at {info.image_size} px "
            f"({', '.join(info.class_names[:5])}, …); {dataset_dir} has {len(there.class_names)} at "
            f"{there.image_size} px ({', '.join(there.class_names[:5])}, …)."
        )
    return reader, model, info


@dataclasses.dataclass(frozen=True, slots=True)
class Prediction:
    """What a model says of a picture: the most probable class, and all of them, the most probable first."""

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
    """Tells what is on pictures, by a model that you trained.

    Args:
        model_dir: the folder of a finished run.
        images: files and folders, or one of them; a folder stands for all in it.
        refused: called with each file that cannot be decoded, and the reason; it is left out.
        progress: called with the number of files that are done, and of all.

    Raises:
        UsageError: there are no such files, or the model knows no classes.
        ModelError: the folder is none of a finished run.

    Example:
        >>> [found.path for found in simimg.predict("runs/first", "photos/fishes")][:1]
        ['photos/fishes/image_0001.jpg']
    """
    from simimg.evaluation import compiled, predict_files
    from simimg.image_files import named_files
    from simimg.training import load_trained

    paths = named_files([str(one) for one in ([images] if isinstance(images, str | Path) else images)])
    model, info = load_trained(Path(model_dir))
    if info.objective.score == "recall":
        raise UsageError(
            f"{model_dir} was trained to find copies and knows no classes. Make an index with it: "
            f"simimg index --model={model_dir} --image_dir=PATH --index_dir=PATH; then: simimg search."
        )
    found = predict_files(
        compiled(model, views=info.config["test_views"]),
        paths,
        image_size=info.image_size,
        resize=info.resize,
        num_classes=len(info.class_names),
        progress=counted(progress, len(paths)),
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
