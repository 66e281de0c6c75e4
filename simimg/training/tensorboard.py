"""Writes a run's figures for TensorBoard: scalars, options, augmented images, and the confusion matrix.

Scalars have the tags and steps of Keras's callback `TensorBoard`: `epoch_loss`, `epoch_accuracy` and so on at steps 0,
1, ..., and `epoch_learning_rate` in the run `train`. So our runs and those of `keras.Model.fit` share charts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from simimg.augment import augment
from simimg.input import Reader, eval_batches, reading
from simimg.training.run_setup import MEASURED
from simimg.training.train_config import TrainConfig

_NUM_IMAGES = 24
_EPOCHS_SHOWN = 3


class TensorBoard:
    """Writes figures for TensorBoard. Training, validation and test are separate runs there, so that they share plots.

    If the figures cannot be written, `warn` is called once, and the training continues.
    """

    def __init__(self, model_dir: Path, warn: Callable[[str], None]) -> None:
        self._folder, self._warn = model_dir / "tensorboard", warn
        self._writers: dict[str, Any] = {}
        self._works = True

    def __enter__(self) -> TensorBoard:
        return self

    def write(self, line: dict[str, Any], learning_rate: float) -> None:
        """Writes the figures of an epoch: `epoch`, from 1, and others with keys such as `loss` or `test_loss`; and the
        learning rate at its end.
        """
        for name, value in {**line, "learning_rate": learning_rate}.items():
            if name == "epoch":
                continue
            run = next((split for split in MEASURED if name.startswith(f"{split}_")), "train")
            with self._writing(run):
                tf.summary.scalar(f"epoch_{name.removeprefix(f'{run}_')}", value, step=line["epoch"] - 1)

    def options(self, values: dict[str, Any]) -> None:
        """Writes the options of a run: as hyperparameters, which TensorBoard sets beside the figures of each run, and
        as a table in Markdown.
        """
        from tensorboard.plugins.hparams import api

        rows = "".join(f"| {name} | `{value}` |\n" for name, value in values.items())
        plain = {
            name: value if isinstance(value, bool | int | float | str) else str(value) for name, value in values.items()
        }
        with self._writing(""):  # the folder above those of the splits, whose figures TensorBoard then finds
            api.hparams(plain)
            tf.summary.text("options", f"| option | value |\n|---|---|\n{rows}", step=0)

    def augmented(self, config: TrainConfig, reader: Reader) -> None:
        """Writes some training images as they are augmented in each of the first epochs."""
        batches = eval_batches(reader, min(_NUM_IMAGES, reader.split.num_examples))
        batch = next(iter(reading(reader.split, batches)))
        for epoch in range(_EPOCHS_SHOWN):
            images = augment(
                config.augmentation, config.seed, tf.constant(epoch, tf.int64), batch.id, tf.constant(batch.image)
            )
            pixels = tf.cast(tf.round(images), tf.uint8)
            with self._writing("train"):
                tf.summary.image("augmented", pixels, step=epoch, max_outputs=_NUM_IMAGES)

    def picture(self, name: str, pixels: np.ndarray, epoch: int) -> None:
        """Writes an image, uint8 `[height, width, 3]`, for the model after `epoch` epochs."""
        with self._writing("test"):
            tf.summary.image(name, pixels[None], step=max(epoch - 1, 0))

    def __exit__(self, *_: object) -> None:
        for run in list(self._writers):
            with self._writing(run):
                pass
            self._writers[run].close()

    @contextmanager
    def _writing(self, run: str) -> Iterator[None]:
        try:
            if run not in self._writers:
                self._writers[run] = tf.summary.create_file_writer(str(self._folder / run))
            with self._writers[run].as_default():
                yield
            self._writers[run].flush()
        except (tf.errors.OpError, OSError) as error:
            if self._works:
                self._warn(f"{self._folder} cannot be written to, so figures will be missing in TensorBoard: {error}")
            self._works = False
