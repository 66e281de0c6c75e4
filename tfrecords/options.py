"""Options: each field of a frozen config dataclass is declared once, with its help, its choices and its group.

The command line, the JSON config beside a result and the validation all read the same declaration.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from tfrecords.base_errors import UsageError
from tfrecords.format.image_size import ImageSize, Rectangle
from tfrecords.locations import location_text

_Config = TypeVar("_Config")


def option(
    help: str,
    default: Any = dataclasses.MISSING,
    *,
    choices: tuple[str, ...] = (),
    positional: bool = False,
    group: str = "",
    words: Mapping[str, float] = {},
    flag: str = "",
    repeated: str = "",
    url: bool = False,
    output: bool = False,
    variable: str = "",
) -> Any:
    """Declare a field of a config dataclass.

    Args:
        help: one sentence, shown by `--help`.
        default: value if the option is not given; without one, the field is required.
        choices: the allowed strings; any string if empty.
        positional: whether the command line takes the values from the arguments that are not flags.
        group: heading of the list of flags; the flags of a group are described by `--helpfull` only.
        words: numbers that have a name, such as `{"auto": 0}`; the command line accepts and shows the name.
        repeated: if the flag may be given several times, once for each item of a tuple: what an item is, such as
            `GLOB`.
        url: whether a path may also be the URL of a folder; see `tfrecords.locations` for its form.
        output: whether the path is that of a file to write, whose folder the command line makes before the work begins.
        variable: an environment variable that the command line sets to the flag's value, for this process and its
            children.
        flag: name of the flag, if it differs from the field's; the field's name stays as its former spelling.
    """
    metadata = {
        "help": help, "choices": choices, "positional": positional, "group": group, "words": words, "flag": flag,
        "repeated": repeated, "url": url, "output": output, "variable": variable,
    }  # fmt: skip
    return dataclasses.field(default=default, metadata=metadata)


def check_choices(config: Any) -> None:
    """Raise UsageError if a field of a config dataclass that declares choices has another value."""
    for field in dataclasses.fields(config):
        choices = field.metadata.get("choices", ())
        value = getattr(config, field.name)
        if choices and value not in choices:
            raise UsageError(f"--{field.name}={value}: should be one of {', '.join(choices)}.")


def to_json(config: Any) -> dict[str, Any]:
    """Return a config dataclass as a dictionary for JSON: paths become strings, tuples become lists."""
    return {field.name: _plain(getattr(config, field.name)) for field in dataclasses.fields(config)}


def from_json(kind: type[_Config], values: Any, what: str) -> _Config:
    """Returns the config dataclass of type `kind` from the parsed JSON of what `to_json` wrote; `what` names it in
    errors.

    Raises:
        UsageError: a value has the wrong type, is missing, or belongs to no field.
    """
    if not isinstance(values, dict):
        raise UsageError(f"{what} should be a JSON object with one key per option. Received: {type(values).__name__}.")
    kinds = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(typing.cast(Any, kind))}
    unknown = sorted(set(values) - set(fields))
    if unknown:
        raise UsageError(f"{what} has unknown options: {', '.join(unknown)}. {kind.__name__} does not have them.")
    missing = sorted(name for name in fields if name not in values and fields[name].default is dataclasses.MISSING)
    if missing:
        raise UsageError(f"{what} lacks {', '.join(missing)}.")
    return kind(**{name: _typed(value, kinds[name], f"{what}: {name}") for name, value in values.items()})


def _typed(value: Any, kind: Any, what: str) -> Any:
    optional = type(None) in typing.get_args(kind)
    if optional and value is None:
        return None
    if (kind is Path or Path in typing.get_args(kind)) and isinstance(value, str):
        return Path(value)
    is_list = isinstance(value, list) and all(isinstance(item, str) for item in value)
    if is_list and tuple[Path, ...] in typing.get_args(kind):
        return tuple(map(Path, value))
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind == tuple[str, ...] and is_list:
        return tuple(value)
    if kind == ImageSize and (type(value) is int or isinstance(value, str)):
        return value  # the config checks it
    if kind in (bool, int, float, str) and type(value) is kind:
        return value
    raise UsageError(f"{what} should be of type {getattr(kind, '__name__', kind)}. Received: {value!r}.")


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return location_text(value)
    if isinstance(value, Rectangle):
        return str(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value
