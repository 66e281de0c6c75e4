"""Exports a trained model, and compares the export with the model before it gets its name.

<out_dir>/saved_model.pb …               a SavedModel, see `simimg.models.saved_model.export_saved_model`
<out_dir>/model.keras                    Keras's own file, of stock layers
<out_dir>/model.onnx                     ONNX
<out_dir>/model.tflite                   LiteRT in float32
<out_dir>/model_int8.tflite              LiteRT with 8-bit weights and activations, if asked for
<out_dir>/model.xml, model.bin           OpenVINO
<out_dir>/class_names.txt                the names of the classes or targets in order, one per line

All but the SavedModel take pixels 0..255, float32 `[n, size, size, 3]`, and give what `simimg predict` is made of: the
mean over the test-time views of the run. The folder is complete or absent.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from simimg.errors import ModelError, UsageError
from simimg.export.check_photos import Photos, score_of, some_photos
from simimg.export.runtimes import RUNTIMES, of_saved_model
from simimg.models.gpu_memory import grow_gpu_memory
from simimg.models.model_folder import RunInfo, load_trained
from simimg.models.saved_model import (
    CLASS_NAMES_FILE,
    SAVED_MODEL_FILES,
    check_folder,
    compiled,
    export_saved_model,
    write_class_names,
)
from simimg.models.served_network import in_float32, served_network
from simimg.standard_error import captured_stderr
from tfrecords.convert.image.decoder import CENTER, parse_background
from tfrecords.format.atomic_files import atomic_folder

_FILES = {
    "saved_model": SAVED_MODEL_FILES,
    "keras": ("model.keras", CLASS_NAMES_FILE),
    "onnx": ("model.onnx", CLASS_NAMES_FILE),
    "litert": ("model.tflite", "model_int8.tflite", CLASS_NAMES_FILE),
    "openvino": ("model.xml", "model.bin", CLASS_NAMES_FILE),
}
MODEL_FORMATS = tuple(_FILES)

_NAMES = {"saved_model": "SavedModel", "keras": "Keras file", "onnx": "ONNX file", "litert": "LiteRT file"}
_NEEDED = {"onnx": ("tf2onnx", "onnx", "onnxruntime"), "openvino": ("openvino",)}
"""Modules that a format needs, for the export itself and for the comparison, of the extra `export`."""

_TOLERANCE = 1e-4
"""Largest difference of an output from the model's, relative to the largest output, at least 1. Runtimes sum in another
order: Lite0 in LiteRT differs by 8e-6 for outputs up to 6."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportedModel:
    """An export, and how it compares with the model.

    `score` and `int8_score` are those of `simimg.export.check_photos.score_of` on `num_scored` images; None if the
    export has no 8-bit file.
    """

    folder: Path
    files: tuple[str, ...]
    num_bytes: int
    info: RunInfo
    checked_on: str  # which images the outputs were compared on
    num_checked: int
    largest_difference: float
    score: float | None = None
    int8_score: float | None = None
    num_scored: int = 0


def export_model(
    model_dir: Path,
    out_dir: Path,
    *,
    format: str = "saved_model",
    int8: bool = False,
    dataset_dir: Path | None = None,
) -> ExportedModel:
    """Exports the model of a finished run, and returns what was written and how it compares.

    Args:
        model_dir: the run's folder.
        out_dir: the folder to write; an export of the same format is replaced.
        format: one of `MODEL_FORMATS`.
        int8: LiteRT only: also write a file of 8-bit numbers, calibrated on images of the training split.
        dataset_dir: the run's dataset, if it is no longer where the run had it.

    Raises:
        UsageError: packages are missing, `out_dir` has other files, or the dataset is needed and not there.
        ModelError: the folder has no finished run, or the export computes something else than the model.
    """
    _check_packages(format)
    grow_gpu_memory()
    model, info = load_trained(model_dir)
    check_folder(out_dir, _FILES[format], _NAMES.get(format, "OpenVINO model"))
    views = info.config.get("test_views", "one")
    photos = some_photos(info, dataset_dir, calibrate=int8)
    reference = in_float32(model)
    expected = compiled(reference, views=views)(photos.checked).numpy()
    differences: list[float] = []

    def check(forward: Callable[[np.ndarray], np.ndarray]) -> None:
        differences.append(_difference(forward(photos.checked), expected, format))

    if format == "saved_model":
        background = parse_background(info.background)
        export_saved_model(
            model_dir,
            out_dir,
            background=background,
            check=lambda folder: check(of_saved_model(folder, with_files=info.resize != CENTER)),
        )
        scores: dict[str, Any] = {}
    else:
        network = served_network(model, views)
        with atomic_folder(out_dir) as folder:
            file = folder / _FILES[format][0]
            try:
                _write(network, file, format)
                forward = RUNTIMES[format](file)
            except Exception as error:  # converters and runtimes raise what they like
                why = _first_line(error)
                raise ModelError(
                    f"{model_dir} cannot be exported with --format={format}: {why}. Use another --format."
                ) from error
            if info.objective.score != "recall":
                write_class_names(folder, info.class_names)
            check(forward)
            scores = _int8(network, info, photos, folder) if int8 else {}
    files = sorted(path for path in out_dir.rglob("*") if path.is_file())
    return ExportedModel(
        folder=out_dir,
        files=tuple(str(path.relative_to(out_dir)) for path in files),
        num_bytes=sum(path.stat().st_size for path in files),
        info=info,
        checked_on=photos.source,
        num_checked=len(photos.checked),
        largest_difference=max(differences),
        **scores,
    )


def _check_packages(format: str) -> None:
    missing = [name for name in _NEEDED.get(format, ()) if importlib.util.find_spec(name) is None]
    if missing:
        names = missing[0] if len(missing) == 1 else f"{', '.join(missing[:-1])} and {missing[-1]}"
        raise UsageError(f"--format={format} needs {names}, not installed here. Run: pip install 'simimg-tf[export]'")


def _write(network: keras.Model, file: Path, format: str, **options: Any) -> None:
    """Writes a network by Keras's exporter for a format."""
    if format == "keras":
        network.save(file)
        return
    if format == "onnx":  # without it, Keras asks for a network that was called once
        options["input_signature"] = [tf.TensorSpec(network.input_shape, tf.float32, name="pixels")]
    with captured_stderr():  # converters announce each step
        network.export(str(file), format=format, verbose=False, **options)


def _first_line(error: Exception) -> str:
    """Returns the first line of a message, which a dump of the network may follow, without its full stop."""
    return str(error).strip().partition("\n")[0].rstrip(".")[:200] or type(error).__name__


def _difference(outputs: np.ndarray, expected: np.ndarray, format: str) -> float:
    """Returns the largest difference of outputs; raises ModelError if it is too large, or not a number."""
    if outputs.shape != expected.shape:
        raise ModelError(
            f"the {format} export gives {outputs.shape} where the model gives {expected.shape}. Nothing was written; "
            "use another --format."
        )
    difference = float(np.abs(outputs - expected).max())
    if not difference <= _TOLERANCE * max(1.0, float(np.abs(expected).max())):
        raise ModelError(
            f"the {format} export differs from the model by {difference:.1e} on the same images. Nothing was written; "
            "use another --format."
        )
    return difference


def _int8(network: keras.Model, info: RunInfo, photos: Photos, folder: Path) -> dict[str, Any]:
    """Writes a LiteRT file with 8-bit weights and activations, and returns its score beside that of the model."""
    file = folder / "model_int8.tflite"
    _write(
        network,
        file,
        "litert",
        optimizations=[tf.lite.Optimize.DEFAULT],
        representative_dataset=lambda: ([image[None].astype(np.float32)] for image in photos.calibration),
    )
    exact, coarse = (RUNTIMES["litert"](folder / name)(photos.scored) for name in ("model.tflite", file.name))
    return {
        "score": score_of(info, exact, exact, photos.labels),
        "int8_score": score_of(info, coarse, exact, photos.labels),
        "num_scored": len(photos.scored),
    }
