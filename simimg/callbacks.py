"""A Keras callback that resumes `fit` where it was killed, at the batch.

`keras.callbacks.BackupAndRestore` restores the weights and the epoch, so that an interrupted epoch starts again from
its first batch, with weights that have seen some of it. This one restores the dataset's position as well.

The backup is two files, of which the second makes the first valid:

    weights-<step>.weights.h5    the model and its optimizer
    backup.json                  the name of that file, the epoch, the position, the states of random generators

Whenever the process is killed, `backup.json` names a complete file.
"""

from __future__ import annotations

import contextlib
import math
import os
from pathlib import Path
from typing import Any

import keras

from simimg.errors import UsageError
from simimg.input.image_dataset import SplitFacts
from simimg.input.sampler import Position
from tfrecords.format.atomic_files import atomic_file, json_bytes, parse_json, sync_file

_STATE = "backup.json"
_FORMAT = 1
_END_OF_EPOCH = "end of epoch"  # true, and known from what other callbacks set


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
        self._number = self._number_of(dataset.next_start)  # batches trained on, counted over all epochs from the first
        self._times_set = dataset.times_set
        self._in_epoch = 0  # those of this call of `fit`'s epoch
        self._before = 0  # those of the epoch before it was interrupted
        self._saved = 0
        self._epoch = 0
        self._is_first_epoch = True  # of this call of `fit`

    @property
    def position(self) -> Position:
        """Epoch and step of the dataset's batch after the last one that was trained on."""
        return Position(*divmod(self._number, self.dataset.steps_per_epoch))

    @property
    def _is_due(self) -> bool:
        return self.save_freq == "epoch" or self._number - self._saved >= int(self.save_freq)

    def on_train_begin(self, logs: Any = None) -> None:
        """Restore the backup if there is one."""
        self._before = 0
        if (file := self.backup_dir / _STATE).exists():
            self._restore(file)
        elif self.dataset.times_set != self._times_set:
            self._number = self._number_of(self.dataset.position)
        # Otherwise as it was: Keras has taken a batch to build the model, and may have read a short epoch to its end.
        self._saved, self._is_first_epoch = self._number, True
        self._pin()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Have the first epoch start at its first batch, if Keras has read ahead to build the model."""
        self._epoch, self._in_epoch = epoch, 0
        # Later epochs may be parts of one iteration (`steps_per_epoch`), which reads ahead, too.
        if self._is_first_epoch:
            self._pin()
        self._is_first_epoch = False

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Note the position, and save it every `save_freq` batches."""
        number, steps = self._number + batch + 1 - self._in_epoch, self.dataset.steps_per_epoch
        follows_epochs = self.params.get("steps") in (None, steps)  # not if `fit` has other steps_per_epoch
        if follows_epochs:  # the last call of several steps may be a shorter one
            number = min(number, (self._number // steps + 1) * steps)
        self._number, self._in_epoch = number, batch + 1
        self.dataset.note_position(self.position)
        is_last = self._before + self._in_epoch >= (self.params.get("steps") or math.inf)
        ends_epoch = is_last or (follows_epochs and self.position.step == 0)
        if ends_epoch and (follows_epochs or self._before) and not self.model.stop_training:
            # An epoch that was resumed is shorter. When Keras asks for a batch that is not there, its step counts in
            # the optimizer and draws from the random generators nevertheless.
            self.model.stop_training = _END_OF_EPOCH
        # Saved after the last batch, but before the end of the epoch, the epoch would be trained a second time.
        if self.save_freq != "epoch" and self._is_due and not ends_epoch:
            self._save(self._epoch)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Save if `save_freq` is `"epoch"`, or if that many batches have passed."""
        if self.model.stop_training is _END_OF_EPOCH:  # and not what another callback has set
            self.model.stop_training = False
        self._before = self._in_epoch = 0
        if self._is_due:
            self._save(epoch + 1)

    def on_train_end(self, logs: Any = None) -> None:
        """Delete the backup."""
        if self.delete_checkpoint:
            (self.backup_dir / _STATE).unlink(missing_ok=True)  # first, because it names the others
            self._delete_weights(keep="")
            with contextlib.suppress(OSError):
                self.backup_dir.rmdir()

    def _pin(self) -> None:
        if self.dataset.next_start != self.position:
            self.dataset.position = self.position
        self._times_set = self.dataset.times_set

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
            "in_epoch": self._before + self._in_epoch,
            "steps_per_epoch": self.dataset.steps_per_epoch,
            "num_examples": self.dataset.num_examples,
            "seeds": [seed.numpy().tolist() for seed in self._seeds()],
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
        for seed, value in zip(self._seeds(), state["seeds"], strict=True):
            seed.assign(value)
        self.model._initial_epoch = epoch  # as Keras's own callback does
        self._before = state.get("in_epoch", 0)
        self._number = self._number_of(position)

    def _number_of(self, position: Position) -> int:
        return position.epoch * self.dataset.steps_per_epoch + position.step

    def _seeds(self) -> list[Any]:
        """Returns the states of the model's random generators, which Keras does not save with the weights."""
        saved = {id(variable) for variable in self.model.weights}
        others = [variable for variable in self.model.non_trainable_variables if id(variable) not in saved]
        return [one for one in others if "int" in one.dtype and tuple(one.shape) == (2,)]  # and no metrics

    def _delete_weights(self, keep: str) -> None:
        for path in self.backup_dir.glob("weights-*.weights.h5"):
            if path.name != keep:
                path.unlink(missing_ok=True)
