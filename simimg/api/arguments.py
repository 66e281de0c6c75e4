"""What the functions are told: options by name, and who is told how much is done."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from simimg.errors import UsageError

__all__ = ["Folder", "check_names", "counted", "options_of"]

Folder = str | Path


def counted(progress: Callable[[int, int], object], total: int) -> Callable[[int], None]:
    """Returns what adds up and passes on the numbers that it is called with."""
    done = 0

    def advance(number: int) -> None:
        nonlocal done
        done += number
        progress(done, total)

    return advance


def options_of(kind: Any, command: str, given: dict[str, Any]) -> Any:
    """Returns the config dataclass `kind` of a command's options; raises UsageError for one that there is not."""
    check_names(kind, command, given)
    for name in ("data_dir", "model_dir"):
        if isinstance(given.get(name), str):
            given[name] = Path(given[name])
    if "categories" in given:
        given["categories"] = tuple(given["categories"])
    return kind(**given)


def check_names(kind: Any, command: str, given: dict[str, Any]) -> None:
    """Raises UsageError for an option that there is not, naming the nearest one."""
    names = [field.name for field in dataclasses.fields(kind)]
    for name in given:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            raise UsageError(
                f"{command} has no option {name!r}."
                + (f" Did you mean {near[0]!r}?" if near else f" `simimg {command} --help` lists them.")
            )
