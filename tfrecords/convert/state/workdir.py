"""Where a conversion writes, and how its result appears all at once.

For a data set `<data_dir>/<name>/1.0.0`, in `<data_dir>/<name>/.1.0.0.work/`:

    lock          held while a converter is at work
    plan.json     how it converts; another call with other options is told so
    shards/       finished shards of the first plan       receipts/   what became of each file of them,
                  not synced if copies can move them                  and which shards are sealed
    assembled/    shards that were put together anew      dataset/    the whole data set; renamed to 1.0.0

So `1.0.0` is either complete or not there, and what is finished is never done twice.
"""

from __future__ import annotations

import dataclasses
import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tfrecords.base_errors import ConversionError, DataError, UsageError
from tfrecords.format.atomic_files import TEMPORARY, atomic_file, json_bytes, read_json, sync_dir

__all__ = ["WorkDir", "differing_options"]

_PLAN = "plan.json"


@dataclasses.dataclass(frozen=True)
class WorkDir:
    """The folder `final` that a conversion makes, and the folder that it works in."""

    final: Path

    @property
    def work(self) -> Path:
        """Where everything unfinished lies."""
        return self.final.with_name(f".{self.final.name}.work")

    @property
    def shards(self) -> Path:
        """Finished shards of the first plan."""
        return self.work / "shards"

    @property
    def receipts(self) -> Path:
        """Receipts of both kinds of shards."""
        return self.work / "receipts"

    @property
    def assembled(self) -> Path:
        """Shards that were put together from the records of others."""
        return self.work / "assembled"

    @property
    def dataset(self) -> Path:
        """The data set as it will appear."""
        return self.work / "dataset"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the lock; the operating system releases it when the process ends, however it ends.

        Raises:
            ConversionError: another conversion has it.
        """
        self.work.mkdir(parents=True, exist_ok=True)
        lock = self.work / "lock"
        with open(lock, "w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise ConversionError(
                    f"{self.final}: another conversion is writing it. Wait for it, or stop it."
                ) from None
            if not lock.exists() or not os.path.samestat(os.fstat(file.fileno()), lock.stat()):
                raise ConversionError(  # it removed its folder, and our lock is that of a file without a name
                    f"{self.final}: another conversion has just ended. Give the same command again."
                )
            if self.final.exists():  # it finished between our look and the lock
                self.remove_work()
                raise ConversionError(
                    f"{self.final}: another conversion has just written it. Give the same command again."
                )
            yield

    def begin(self, config: Mapping[str, Any], versions: Mapping[str, str]) -> None:
        """Takes up what an earlier call left, or notes what is begun; what is left without such a note is removed.

        Raises:
            UsageError: what is there was begun with other options, or with another decoder.
        """
        plan = self.work / _PLAN
        try:
            begun = read_json(plan, "an unfinished conversion")
        except DataError:  # a new one, or a power failure right after its beginning
            begun = None
        if begun is None:
            for folder in (self.shards, self.receipts, self.assembled):
                shutil.rmtree(folder, ignore_errors=True)
        else:
            differing = differing_options(begun["config"], config)
            if differing:
                raise UsageError(
                    f"{self.work} was begun otherwise: {'; '.join(differing)}. "
                    "Give those options again, choose another --name, or remove that folder."
                )
            if begun["versions"] != dict(versions):  # another decoder gives other pixels
                raise UsageError(
                    f"{self.work} was begun with {begun['versions']}; this is {dict(versions)}. "
                    "Install those again, or remove that folder."
                )
        for folder in (self.shards, self.receipts, self.assembled):
            folder.mkdir(exist_ok=True)
            for leftover in folder.glob(f".*{TEMPORARY}*"):
                leftover.unlink()
        shutil.rmtree(self.dataset, ignore_errors=True)
        self.dataset.mkdir()
        if begun is None:
            with atomic_file(plan, sync=False) as file:
                file.write(json_bytes({"config": dict(config), "versions": dict(versions)}))

    def began_ns(self) -> int:
        """Returns when the conversion began, in ns since 1970 by the clock of the file system."""
        return (self.work / _PLAN).stat().st_mtime_ns

    def publish(self) -> None:
        """Gives the data set its final name, when all names in it are durable, and removes the rest."""
        sync_dir(self.dataset)
        os.rename(self.dataset, self.final)
        sync_dir(self.final.parent)
        self.remove_work()

    def remove_work(self) -> None:
        """Removes the working folder, also one that a call left that was killed after its rename."""
        shutil.rmtree(self.work, ignore_errors=True)


def differing_options(there: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Returns a phrase for each option that is not the same, e.g. `--seed=0 there, 1 now`."""
    return [
        f"--{key}={there.get(key)} there, {wanted.get(key)} now"
        for key in dict.fromkeys((*there, *wanted))
        if there.get(key) != wanted.get(key)
    ]
