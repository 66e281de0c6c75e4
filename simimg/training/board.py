"""Scalars for TensorBoard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow as tf

__all__ = ["TensorBoard"]


class TensorBoard:
    """Scalars for TensorBoard, training and test as two runs so that they share a plot."""

    def __init__(self, model_dir: Path) -> None:
        self._folder = model_dir / "tensorboard"
        self._writers: dict[str, Any] = {}

    def __enter__(self) -> TensorBoard:
        return self

    def write(self, line: dict[str, Any]) -> None:
        """Writes the figures of an epoch: `epoch` and any others, those of the test named `test_`."""
        for name, value in line.items():
            if name == "epoch":
                continue
            run = "test" if name.startswith("test_") else "train"
            if run not in self._writers:
                self._writers[run] = tf.summary.create_file_writer(str(self._folder / run))
            with self._writers[run].as_default():
                tf.summary.scalar(name.removeprefix("test_"), value, step=line["epoch"])
            self._writers[run].flush()

    def __exit__(self, *_: object) -> None:
        for writer in self._writers.values():
            writer.close()
