"""The paths in a table as those of files: of another system, without suffixes, or relative to another folder."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Sequence

from tfrecords.base_errors import UsageError
from tfrecords.convert.sources.remote import is_url, local_path
from tfrecords.convert.sources.source import is_image

_FOLDERS_SEARCHED = 1_000  # for files that are not where the table says


class PathSpelling:
    """Turns the paths of a table into those of files below `base`: one spelling for each file."""

    def __init__(self, base: str) -> None:
        self._base = base
        self._stems: dict[str, dict[str, list[str]]] = {}  # of the folders that were listed: files by stem
        self._backslashes: list[str] = []
        self._completed: list[str] = []
        self._several: list[str] = []

    def of(self, written: str) -> str:
        """Return a path relative to `base` if the file lies there, without empty parts and dots; or a URL."""
        path = local_path(written)
        if is_url(path):
            return path
        is_remote = is_url(self._base)
        if "\\" in path and (is_remote or not self._exists(path)):
            path = path.replace("\\", "/")
            self._backslashes.append(written)
        path = self._short(path)
        if not is_remote and not path.isascii() and not self._exists(path):  # macOS writes NFD, and others NFC
            forms = [unicodedata.normalize(form, path) for form in ("NFC", "NFD")]
            path = next(filter(self._exists, forms), path)
        if not is_remote and not is_image(path) and "\0" not in path:
            folder, stem = os.path.split(path)
            if not self._exists(path) and (names := self._named(os.path.join(self._base, folder), stem)):
                path = os.path.join(folder, names[0])
                self._completed.append(written)
                if len(names) > 1:
                    self._several.append(f"{written} ({', '.join(names)})")
        return path

    def notes(self) -> list[str]:
        """Return a note for each way in which paths were written otherwise."""
        notes = []
        if self._backslashes:
            notes.append(f"{len(self._backslashes):,} paths have backslashes, e.g. {self._backslashes[0]}; read as /")
        if self._completed:
            notes.append(f"{len(self._completed):,} paths have no suffix, e.g. {self._completed[0]}; it was added")
        if self._several:
            fit = "path without a suffix fits" if len(self._several) == 1 else "paths without a suffix fit"
            notes.append(
                f"{len(self._several):,} {fit} several images, of which the first was taken, e.g. {self._several[0]}; "
                "add the suffixes to the table"
            )
        return notes

    def _exists(self, path: str) -> bool:
        return os.path.lexists(os.path.join(self._base, path))

    def _short(self, path: str) -> str:
        plain = "/".join(part for part in path.split("/") if part not in ("", "."))
        if not path.startswith("/"):
            return plain
        return f"/{plain}".removeprefix(f"{self._base.rstrip('/')}/")

    def _named(self, folder: str, stem: str) -> list[str]:
        """Return the names of the images in a folder that are `stem` and a suffix."""
        if folder not in self._stems:
            stems: dict[str, list[str]] = {}
            try:
                for name in sorted(os.listdir(folder)):
                    if is_image(name):
                        stems.setdefault(os.path.splitext(name)[0], []).append(name)
            except OSError:
                pass  # the file is rejected with the reason
            self._stems[folder] = stems
        return self._stems[folder].get(stem, [])


def check_folder(paths: Sequence[str], base: str, table: str) -> None:
    """Raise UsageError if the first file of a table lies in another folder: below or above the one that was given, or
    beside the table.
    """
    first = paths[0]
    parts = first.split("/")
    if re.match("[a-zA-Z]:/", first):
        raise UsageError(
            f"--table={table} has absolute paths of Windows, e.g. {first}. Make them relative to --image_dir={base}."
        )
    try:
        with os.scandir(base) as entries:
            below = [entry.path for _, entry in zip(range(_FOLDERS_SEARCHED), entries, strict=False) if entry.is_dir()]
    except OSError:
        return
    for folder in sorted(below):
        found = PathSpelling(folder).of(first)
        if not first.startswith("/") and os.path.isfile(os.path.join(folder, found)):
            raise UsageError(f"--table={table}: its files are in {folder}. Give --image_dir={folder}.")
    above = base
    for part in parts[:-1]:
        if os.path.basename(above) != part:
            continue
        above = os.path.dirname(above)
        if os.path.isfile(os.path.join(above, first)):
            raise UsageError(f"--table={table}: its paths are relative to {above}. Give --image_dir={above}.")
