"""A Keras callback that resumes `fit` where it was killed, at the batch.

`keras.callbacks.BackupAndRestore` restores the weights and the epoch, so that an epoch that was interrupted starts again
from its first batch, with weights that have seen some of it. This one restores the dataset's position as well.

The backup is two files, of which the second makes the first valid:

    weights-<step>.weights.h5    the model and its optimizer
    backup.json                  the name of the file above, the epoch, the position and the batch size

Whenever the process is killed, `backup.json` names a complete file.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from pathlib import Path
from typing import Any

import keras

from simimg.errors import UsageError
from simimg.input.image_dataset import SplitFacts
from simimg.input.sampler import Position
from tfrecords.format.atomic_files import atomic_file, json_bytes, parse_json, sync_file

_STATE = "backup.json"
_FORMAT = 1
_RAN_OUT = "Your input ran out of data"  # Keras's warning about an epoch that is shorter than the others


class BackupAndRestore(keras.callbacks.Callback):
    """Saves the model and the position of its dataset, and restores both at the beginning of `fit`.

    A run that was killed and started again trains on exactly the batches that an uninterrupted run does, from the last
    backup on; with the same weights, if the program itself is deterministic. The losses that Keras shows for the
    interrupted epoch are those of its second part. The state of other callbacks is not saved.

    Args:
        backup_dir: a folder for this run alone.
        dataset: what `simimg.load` returned, and what `fit` trains on, itself or with `map` and the like after it.
        save_freq: `"epoch"`, or a number of batches.
        delete_checkpoint: delete the backup when the training is complete.

    Raises:
        UsageError: `dataset` is of another kind, or `save_freq` is not valid.

    Example:
        >>> train = simimg.load("data/photos/1.0.0", batch_size=8, shuffle=True)
        >>> backup = simimg.callbacks.BackupAndRestore("backup", train, save_freq=2)
        >>> # model.fit(train, epochs=10, callbacks=[backup])
    """

    def __init__(
        self,
        backup_dir: str | os.PathLike[str],
        dataset: SplitFacts,
        save_freq: str | int = "epoch",
        delete_checkpoint: bool = True,
    ) -> None:
        super().__init__()
        if not isinstance(dataset, SplitFacts):
            raise UsageError(
                f"dataset should be what simimg.load returns. Received: {type(dataset).__name__}. Give "
                "`fit` what was made of it, and the callback the dataset itself."
            )
        if save_freq != "epoch" and not (isinstance(save_freq, int) and save_freq > 0):
            raise UsageError(f"save_freq={save_freq!r}: should be 'epoch' or a number of batches, 1 or more.")
        self.backup_dir, self.dataset = Path(backup_dir), dataset
        self.save_freq, self.delete_checkpoint = save_freq, delete_checkpoint
        self._number = 0  # batches trained on, counted over all epochs from the first
        self._in_epoch = 0  # those of this call of `fit`'s epoch
        self._saved = 0
        self._epoch = 0
        self._filters: contextlib.ExitStack = contextlib.ExitStack()

    @property
    def position(self) -> Position:
        """Epoch and step of the dataset's batch after the last one that was trained on."""
        return Position(*divmod(self._number, self.dataset.steps_per_epoch))

    @property
    def _is_due(self) -> bool:
        return self.save_freq == "epoch" or self._number - self._saved >= int(self.save_freq)

    def on_train_begin(self, logs: Any = None) -> None:
        """Restore the backup if there is one."""
        if (file := self.backup_dir / _STATE).exists():
            self._restore(file)
        else:
            self._number = self._number_of(self.dataset.next_start)
        self._saved = self._number
        if self.position.step:
            self._filters.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", message=_RAN_OUT)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Have the epoch start at its first batch, if Keras has read ahead to build the model."""
        self._epoch, self._in_epoch = epoch, 0
        is_first = self._number == self._saved
        if (is_first or self.position.step == 0) and self.dataset.next_start != self.position:
            self.dataset.position = self.position

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Note the position, and save it every `save_freq` batches."""
        self._number += batch + 1 - self._in_epoch
        self._in_epoch = batch + 1
        self.dataset.note_position(self.position)
        steps = self.params.get("steps")
        ends_epoch = self.position.step == 0 and steps in (None, self.dataset.steps_per_epoch)
        # Saved after the last batch, but before the end of the epoch, the epoch would be trained a second time.
        if self.save_freq != "epoch" and self._is_due and not ends_epoch and self._in_epoch != steps:
            self._save(self._epoch)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Save if `save_freq` is `"epoch"`, or if that many batches have passed."""
        self._filters.close()
        if self._is_due:
            self._save(epoch + 1)

    def on_train_end(self, logs: Any = None) -> None:
        """Delete the backup."""
        self._filters.close()
        if self.delete_checkpoint:
            (self.backup_dir / _STATE).unlink(missing_ok=True)  # first, because it names the others
            self._delete_weights(keep="")
            with contextlib.suppress(OSError):
                self.backup_dir.rmdir()

    def _save(self, epoch: int) -> None:
        self.backup_dir.mkdir(parents=True, exist_ok=True)
        weights = self.backup_dir / f"weights-{self._number}.weights.h5"
        self.model.save_weights(weights, overwrite=True)
        sync_file(weights)
        state = {
            "format": _FORMAT,
            "weights": weights.name,
            "epoch": epoch,
            "position": [self.position.epoch, self.position.step],
            "steps_per_epoch": self.dataset.steps_per_epoch,
            "num_examples": self.dataset.num_examples,
        }
        with atomic_file(self.backup_dir / _STATE) as file:
            file.write(json_bytes(state))
        self._delete_weights(keep=weights.name)
        self._saved = self._number

    def _restore(self, file: Path) -> None:
        try:
            state = parse_json(file.read_bytes())
            is_valid = state["format"] == _FORMAT and (self.backup_dir / state["weights"]).is_file()
            position, epoch = Position(*state["position"]), int(state["epoch"])
        except (KeyError, TypeError, ValueError):
            is_valid = False
        if not is_valid:
            raise UsageError(f"{file} is no backup of this version. Delete the folder to train from the beginning.")
        for name in ("steps_per_epoch", "num_examples"):
            if (now := getattr(self.dataset, name)) != state[name]:
                raise UsageError(
                    f"{file} was made with {name}={state[name]}, and the dataset has {now} now. Use the dataset and "
                    "batch_size of that run, or delete the folder to train from the beginning."
                )
        if not self.model.built:
            raise UsageError(
                "the model has no weights yet that a backup could be loaded into. Start it with keras.layers.Input, or "
                "call it on one batch before fit."
            )
        if self.model.optimizer is not None and not self.model.optimizer.built:
            self.model.optimizer.build(self.model.trainable_variables)
        self.model.load_weights(self.backup_dir / state["weights"])
        self.model._initial_epoch = epoch  # as Keras's own callback does
        self._number = self._number_of(position)
        self.dataset.position = position

    def _number_of(self, position: Position) -> int:
        return position.epoch * self.dataset.steps_per_epoch + position.step

    def _delete_weights(self, keep: str) -> None:
        for path in self.backup_dir.glob("weights-*.weights.h5"):
            if path.name != keep:
                path.unlink(missing_ok=True)
