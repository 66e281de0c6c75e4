"""Options: how a frozen config dataclass declares each of its fields once, with the help and the choices it has.

The command line, the JSON config beside a result and the validation all read the same declaration.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from tfrecords.errors import UsageError

__all__ = ["check_choices", "option", "to_json"]

_REQUIRED: Any = object()


def option(help: str, default: Any = _REQUIRED, *, choices: tuple[str, ...] = (), positional: bool = False) -> Any:
    """Declares a field of a config dataclass.

    Args:
        help: one sentence, shown by `--help`.
        default: the field is required without one.
        choices: the strings that are allowed; any string if empty.
        positional: the command line takes it from the arguments that are no flags.
    """
    metadata = {"help": help, "choices": choices, "positional": positional}
    if default is _REQUIRED:
        return dataclasses.field(metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def check_choices(config: Any) -> None:
    """Checks every field of a config dataclass that declares choices.

    Raises:
        UsageError: a value is none of them.
    """
    for field in dataclasses.fields(config):
        choices = field.metadata.get("choices", ())
        value = getattr(config, field.name)
        if choices and value not in choices:
            raise UsageError(f"--{field.name}={value}: should be one of {', '.join(choices)}.")


def to_json(config: Any) -> dict[str, Any]:
    """Returns a config dataclass as a dictionary that JSON can hold: paths as strings, tuples as lists."""
    return {field.name: _plain(getattr(config, field.name)) for field in dataclasses.fields(config)}


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value
