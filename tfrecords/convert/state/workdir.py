"""The working folder of a conversion, and how its result appears all at once.

For a dataset `<data_dir>/<name>/1.0.0`, in `<data_dir>/<name>/.1.0.0.work/`:

    lock          held while a conversion is running
    plan.json     the options, the decoders, and the number of what makes pixels; a later call with others is refused
    shards/       finished shards of the first plan       receipts/   what became of each of their files,
                  not synced if copies can move them                  and which shards were synced
    assembled/    shards made from the records of others  dataset/    the complete dataset; renamed to 1.0.0

So `1.0.0` is either complete or absent, and finished work is never done twice.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tfrecords.base_errors import ConversionError, UsageError
from tfrecords.convert.image.decoder import PIXELS
from tfrecords.format.atomic_files import TEMPORARY, atomic_file, json_bytes, locked_file, parse_json, sync_file
from tfrecords.format.naming import SIDECAR_FOLDERS

_PLAN = "plan.json"
_FORM = 1  # of plan.json; to be raised when its form changes, or when shards are planned in another way


class WorkDir:
    """The folder `final` that a conversion makes, and the folder `work` with everything unfinished; see above."""

    def __init__(self, final: Path) -> None:
        self.final = final
        self.work = final.with_name(f".{final.name}.work")
        self.shards, self.receipts = self.work / "shards", self.work / "receipts"
        self.assembled, self.dataset = self.work / "assembled", self.work / "dataset"

    def receipt(self, file: str, kind: str = "") -> Path:
        """Return the path of a shard's receipt; `kind` is "sealed" or "assembled" for those of the final plan."""
        return self.receipts / f"{file}{'.' if kind else ''}{kind}.json"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock; the operating system releases it when the process ends.

        Raises:
            ConversionError: another conversion holds the lock, or has just finished.
            UsageError: something that is not a folder has the final name.
        """

        def held(holder: str) -> ConversionError:
            return ConversionError(
                f"{self.final}: another conversion is writing it ({holder}). Wait until it has finished, or stop it."
            )

        if os.path.lexists(self.final) and not self.final.is_dir():
            raise UsageError(
                f"{self.final} is not a folder, but the dataset should get this name. Move it away, or choose another "
                "--name."
            )
        self.work.mkdir(parents=True, exist_ok=True)
        lock = self.work / "lock"
        with locked_file(lock, held) as file:
            if not lock.exists() or not os.path.samestat(os.fstat(file.fileno()), lock.stat()):
                raise ConversionError(  # it removed its folder, so our lock is on a file without a name
                    f"{self.final}: another conversion has just ended. Give the same command again."
                )
            if self.final.exists():  # it finished after we looked and before we got the lock
                self.remove_work()
                raise ConversionError(
                    f"{self.final}: another conversion has just written it. Give the same command again."
                )
            yield

    def begin(self, config: Mapping[str, Any], versions: Mapping[str, str]) -> None:
        """Resume what an earlier call left, or start a new conversion; leftovers without a plan.json are removed.

        If the earlier call had other options, and no file could be converted with them, a new conversion starts.

        Raises:
            UsageError: the earlier call had other options, another decoder, or another version of simimg with other
                pixels.
        """
        plan = self.work / _PLAN
        begun = _begun(plan)
        if begun and begun["config"] != config and not any(path.stat().st_size for path in self.shards.glob("*")):
            begun = None
        if begun is None:
            for folder in (self.shards, self.receipts, self.assembled):
                shutil.rmtree(folder, ignore_errors=True)
        else:
            differing = differing_options(begun["config"], config)
            if differing:
                raise UsageError(
                    f"{self.work} was begun with other options: {'; '.join(differing)}. "
                    "Give those options again, choose another --name, or remove that folder."
                )
            if begun["pixels"] != PIXELS:
                raise UsageError(
                    f"{self.work} was begun with another version of simimg, which makes other pixels (number "
                    f"{begun['pixels']}; this one is {PIXELS}). Install that version again, or remove that folder."
                )
            if begun["versions"] != dict(versions):  # another decoder gives other pixels
                raise UsageError(
                    f"{self.work} was begun with {begun['versions']}; installed are {dict(versions)}. "
                    "Install the former again, or remove that folder."
                )
        for folder in (self.shards, self.receipts, self.assembled):
            folder.mkdir(exist_ok=True)
            for leftover in folder.glob(f".*{TEMPORARY}*"):
                leftover.unlink()
        self.clear_dataset()
        if begun is None:
            with atomic_file(plan, sync=False) as file:
                values = {"form": _FORM, "pixels": PIXELS, "config": dict(config), "versions": dict(versions)}
                file.write(json_bytes(values))

    def clear_dataset(self) -> None:
        """Make the folder of the complete dataset, empty."""
        shutil.rmtree(self.dataset, ignore_errors=True)
        self.dataset.mkdir()

    def began_ns(self) -> int:
        """Return when the conversion began, in ns since 1970 by the clock of the file system."""
        return (self.work / _PLAN).stat().st_mtime_ns

    def publish(self) -> None:
        """Give the dataset its final name, after all names in it are durable, and remove the rest."""
        for folder in (*(self.dataset / name for name in SIDECAR_FOLDERS), self.dataset):
            if folder.exists():
                sync_file(folder)
        os.rename(self.dataset, self.final)
        sync_file(self.final.parent)
        self.remove_work()

    def remove_work(self) -> None:
        """Remove the working folder, including one that was left by a call that was killed after the rename."""
        shutil.rmtree(self.work, ignore_errors=True)


def _begun(plan: Path) -> dict[str, Any] | None:
    """Return the content of a plan.json, or None if there is none, or one that is damaged or has another form."""
    try:
        values = parse_json(plan.read_bytes())
    except (FileNotFoundError, ValueError):  # a new conversion, or one that a power failure ended at its start
        return None
    except OSError as error:
        raise ConversionError(
            f"{plan} cannot be read: {error.strerror or error}. Finished shards are kept. Make it readable, or "
            f"remove {plan.parent}."
        ) from None
    is_whole = (
        isinstance(values, dict)
        and values.get("form") == _FORM
        and isinstance(values.get("pixels"), int)
        and all(isinstance(values.get(name), dict) for name in ("config", "versions"))
    )
    return values if is_whole else None


def differing_options(there: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Return a phrase for each option that differs, e.g. `--seed=0 there, 1 now`."""
    return [
        f"--{key}={there.get(key)} there, {wanted.get(key)} now"
        for key in dict.fromkeys((*there, *wanted))
        if there.get(key) != wanted.get(key)
    ]
