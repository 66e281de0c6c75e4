"""Argument checking and progress counting shared by the API functions.

A module of its own because the three API modules share it.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from simimg.errors import UsageError
from tfrecords.locations import path_of, refuse_url

Folder = str | Path


def here(path: Folder, name: str) -> Path:
    """Return the argument `name`, a path of this machine; raise UsageError if it is a URL."""
    refuse_url(path, name)
    return path_of(path)


def folders(given: Folder | Sequence[Folder]) -> tuple[Path, ...]:
    """Return one or several folders as paths."""
    return tuple(path_of(one) for one in ([given] if isinstance(given, str | Path) else given))


class Counter:
    """Turns counts since the last call into calls of `progress(done, total)`."""

    def __init__(self, progress: Callable[[int, int], object], total: int = 0) -> None:
        self._progress, self._done, self._total = progress, 0, total

    def begin(self, total: int) -> None:
        """Set the total."""
        self._total = total
        self._progress(self._done, total)

    def advance(self, number: int) -> None:
        """Add to the number done."""
        self._done += number
        self._progress(self._done, self._total)


def checked_options(kind: Any, command: str, given: dict[str, Any]) -> dict[str, Any]:
    """Return options with their names and types as the config dataclass `kind` has them.

    Raises:
        UsageError: an option does not exist; the message names the closest one.
    """
    fields = {field.name: field for field in dataclasses.fields(kind)}
    flags = {field.metadata["flag"]: name for name, field in fields.items() if field.metadata["flag"]}
    checked = {flags.get(name, name): value for name, value in given.items()}
    for name in checked:
        if name not in fields:
            near = difflib.get_close_matches(name, fields, n=1)
            raise UsageError(
                f"{command} has no option {name!r}."
                + (f" Did you mean {near[0]!r}?" if near else f" `simimg {command} --help` lists them.")
            )
        field = fields[name]
        if "Path" in str(field.type) and isinstance(checked[name], str | Path):
            checked[name] = path_of(checked[name]) if field.metadata["url"] else here(checked[name], name)
        elif "tuple[Path, ...]" in str(fields[name].type) and isinstance(checked[name], Sequence):
            checked[name] = folders(checked[name])
        elif str(fields[name].type).startswith("tuple"):
            checked[name] = tuple(checked[name])
    return checked
