"""Weights that others trained, as a model folder that `simimg index` takes: SSCD's copy detectors."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import keras

from simimg import models
from simimg.errors import ModelError, UsageError
from simimg.training.run_folder import RunInfo, save_folder
from tfrecords.format.atomic_files import file_sha256

__all__ = ["import_sscd"]


def import_sscd(path: Path, model_dir: Path, *, image_size: int = 288) -> keras.Model:
    """Writes the model of one of SSCD's files into a new folder, whole or not at all, and returns it.

    Args:
        path: the file, `….torchvision.pt`, `….classy.pt` or `….torchscript.pt`.
        model_dir: the folder.
        image_size: side of the squares that pictures become, stretched, px. The authors use 288 and 320.

    Raises:
        ModelError: the file cannot be read, is damaged, or holds another network; the message has the path.
        UsageError: the folder is there or cannot be made, or image_size is below 32 px.
    """
    if model_dir.exists():
        raise UsageError(f"--model_dir={model_dir} is there already. Choose another one, or remove it.")
    tensors = models.read_torch_file(path)
    try:
        model = models.sscd(tensors, image_size)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    info = RunInfo(
        image_size=image_size,
        resize="stretch",
        class_names=(),
        dataset_sha256="",
        shuffle="",
        config={"weights": path.name, "weights_sha256": file_sha256(path)},
    )
    save_folder(model_dir, model, dataclasses.asdict(info))
    return model
