"""A folder with a trained or imported model: how its files are written, and how the model is loaded again.

<model_dir>/config.json     how images are prepared, what the outputs mean, and the options of the training run
<model_dir>/model.keras     the model

A folder that was trained here has further files, see `simimg.training.run_folder`.
"""

from __future__ import annotations

import dataclasses
import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simimg.errors import ModelError, TrainingError, UsageError
from tfrecords.format.atomic_files import TEMPORARY, atomic_folder, read_json, sync_file, write_json
from tfrecords.format.image_size import ImageSize, image_size_of

if TYPE_CHECKING:
    import keras

CONFIG_FILE = "config.json"
MODEL_FILE = "model.keras"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Objective:
    """An objective of a training, and the names of its figures."""

    score: (
        str  # key of the main figure in a history and a result, mostly a share of 1; a split's name may stand before it
    )
    words: str  # name of that figure for people
    train_score: str = ""  # key of the figure of training steps, if it is another one, since some do not add up
    lower_is_better: bool = False  # of the main figure, which is then no share
    others: tuple[str, ...] = ()  # keys of further figures: means over an epoch; a training step returns the sums

    @property
    def step_score(self) -> str:
        """Key of the figure of training steps."""
        return self.train_score or self.score

    @property
    def step_words(self) -> str:
        """Name of that figure for people."""
        return self.train_score.replace("_", " ") or self.words

    def text(self, score: float) -> str:
        """Returns the main figure, or that of training steps, for people; an error may have any size."""
        return f"{score:.4g}" if self.lower_is_better else f"{score:.4f}"

    def is_better(self, score: float, loss: float, than: tuple[float, float]) -> bool:
        """Returns whether a score and its loss are better than others."""
        sign = -1 if self.lower_is_better else 1
        return (sign * score, -loss) > (sign * than[0], -than[1])


OBJECTIVES = {
    "classes": Objective(score="accuracy", words="accuracy"),
    "multilabel": Objective(
        score="mean_average_precision", words="mean average precision", train_score="binary_accuracy"
    ),
    "regression": Objective(score="mean_absolute_error", words="mean absolute error", lower_is_better=True),
    "similarity": Objective(
        score="recall", words="copy recall", others=("copy_similarity", "nearest_similarity", "mean_norm")
    ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunInfo:
    """The description of a model: how images are prepared for it, and what its outputs mean.

    `image_size` is the side of squares in px, or width and height. `decode`, `truncated`, `background`, `range` and
    `max_pixels` are the options of `simimg convert` that the dataset was made with; a run of an older version has the
    defaults.
    `dataset_sha256` is the digest of all the shards' checksums. `shuffle` is uniform, windowed, or buffered if the
    shards were streamed. `config` holds the options of the run; those that are newer than the run are missing. A model
    whose weights were imported has no classes, and `config` names the file of the weights. `channels` of the images are
    3, or 1 if they are gray. `teacher_sha256` is the digest of the teacher's model; empty without a teacher.
    """

    image_size: ImageSize
    resize: str
    class_names: tuple[str, ...]
    dataset_sha256: str
    shuffle: str
    config: dict[str, Any]
    decode: str = "fast"
    truncated: str = "refuse"
    background: str = "#ffffff"
    range: str = "auto"
    max_pixels: int = 178_956_970
    channels: int = 3
    teacher_sha256: str = ""

    def to_json(self) -> dict[str, Any]:
        """Returns what config.json has: `channels` only if they are not 3, `teacher_sha256` only with a teacher."""
        values, usual = dataclasses.asdict(self), {"channels": 3, "teacher_sha256": ""}
        return {name: value for name, value in values.items() if (name, value) not in usual.items()}

    @property
    def objective(self) -> Objective:
        """The objective of the run."""
        return OBJECTIVES[self.config.get("objective", "classes")]

    @property
    def center_crops(self) -> dict[str, Any]:
        """The options of a reader for a model that was trained on crops; none for others."""
        return {"crop": "center", "image_size": self.image_size} if self.resize == "center" else {}

    @property
    def is_by_name(self) -> bool:
        """Whether the classes of a dataset are those of the same names: several datasets were trained on."""
        return isinstance(self.config.get("dataset_dir"), list) and self.objective.score != "recall"


def load_run(model_dir: Path) -> RunInfo:
    """Returns the contents of a folder's config.json.

    Raises:
        ModelError: the folder has no model.
    """
    path = model_dir / CONFIG_FILE
    if not path.is_file():
        raise ModelError(
            f"{model_dir} is not the folder of a trained model: it has no {CONFIG_FILE}. Train one with `simimg train`."
        )
    values = read_json(path, "the run's configuration")
    try:
        names, size = tuple(values["class_names"]), values["image_size"]
        size = image_size_of(size) if isinstance(size, list) else size
        return RunInfo(**{**values, "image_size": size, "class_names": names})
    except (TypeError, KeyError) as error:
        raise ModelError(f"{path} lacks a part ({error}). Train the model again.") from None


def load_model(model_dir: Path) -> tuple[keras.Model, RunInfo]:
    """Returns the model of a folder, and its description.

    Raises:
        ModelError: the folder has no model, or its training run is not finished, or the model cannot be loaded.
    """
    import keras

    import simimg.models.backbones
    import simimg.models.keras_applications  # both register layers under the names that the file has  # noqa: F401

    info = load_run(model_dir)
    path = finished_file(model_dir, MODEL_FILE)
    try:
        return keras.saving.load_model(path, compile=False), info
    except Exception as error:  # Keras, h5py and zipfile raise what they like
        first = str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
        raise ModelError(f"{path} cannot be loaded: {first}. Train or import it again.") from error


def load_trained(model_dir: Path) -> tuple[keras.Model, RunInfo]:
    """As `load_model`, but raises a ModelError for a model whose weights were imported for search, too."""
    check_trained(model_dir)
    return load_model(model_dir)


def check_trained(model_dir: Path) -> None:
    """Raises ModelError if the folder has no model, or one whose weights were imported."""
    if not load_run(model_dir).class_names:
        raise ModelError(
            f"{model_dir} has a model that was imported for search. It has no classes and was not trained here. "
            f"Use it with `simimg index --model={model_dir}`."
        )


def finished_file(model_dir: Path, name: str) -> Path:
    """Returns the path of a file that a finished run has; raises ModelError if it does not exist."""
    path = model_dir / name
    if not path.is_file():
        raise ModelError(
            f"{model_dir} has no {name}: its training is not finished. Give the same `simimg train` command again."
        )
    return path


def save_model(model_dir: Path, model: keras.Model) -> None:
    """Writes model.keras atomically, with Keras's own layers only: see `simimg.models.stock_layers`."""
    from simimg.models.stock_layers import with_stock_layers

    temporary = model_dir / f"{TEMPORARY}{MODEL_FILE}"
    try:
        with_stock_layers(model).save(temporary)
        sync_file(temporary)
        temporary.rename(model_dir / MODEL_FILE)
    finally:
        temporary.unlink(missing_ok=True)
    sync_file(model_dir)


def save_folder(model_dir: Path, model: keras.Model, info: RunInfo) -> None:
    """Writes a model that was not trained here, and its description, as a new folder, atomically.

    Raises:
        UsageError: the folder cannot be created.
        TrainingError: the disk is full.
    """
    try:
        with writing(model_dir), atomic_folder(model_dir) as folder:
            write_json(folder / CONFIG_FILE, info.to_json())
            save_model(folder, model)
    except OSError as error:
        raise UsageError(f"--model_dir={model_dir} cannot be created: {error.strerror}.") from None


@contextmanager
def writing(model_dir: Path) -> Iterator[None]:
    """Turns the error of a full disk into one that says what to do; files written before are still complete.

    Raises:
        TrainingError: the disk is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise TrainingError(
            f"{model_dir} cannot be written to: {error.strerror}. What was saved before is complete. "
            "Free some space, and give the same command again to resume."
        ) from None
