"""Print a completion script for bash, zsh or fish.

The script completes commands, flags and values. It holds all names, so that TAB starts no Python; print it again after
an update of simimg.

    In this shell:      eval "$(simimg completion bash)"        (or zsh); simimg completion fish | source
    In each new one:    simimg completion bash > ~/.local/share/bash-completion/completions/simimg
                        simimg completion zsh > ~/.zfunc/_simimg        with ~/.zfunc in fpath, before compinit
                        simimg completion fish > ~/.config/fish/completions/simimg.fish
"""

from __future__ import annotations

import dataclasses
import importlib
import typing
from pathlib import Path

from simimg.cli import COMMANDS
from simimg.command_help import flag_name
from simimg.commands.completion_scripts import SCRIPTS, Command, Flag
from simimg.commands.console import Result, quiet_tensorflow
from simimg.errors import UsageError
from tfrecords.options import option

__all__ = ["JSON_KEYS", "Options", "run", "table"]

JSON_KEYS = "shell script"

_COMMON = (
    Flag(name="json", help="Print the result as one JSON object.", takes="nothing"),
    Flag(name="verbose", help="Also print TensorFlow's log and the tracebacks of errors.", takes="nothing"),
    Flag(name="flagfile", help="Read flags from a file, one per line.", takes="file"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of `completion`."""

    shells: tuple[str, ...] = option(
        "Shell that is to run the script: bash, zsh or fish.", choices=tuple(SCRIPTS), positional=True
    )


def run(options: Options) -> Result:
    """Return the script."""
    if len(options.shells) != 1 or options.shells[0] not in SCRIPTS:
        raise UsageError(f"Expected one of {', '.join(SCRIPTS)}, got {' '.join(options.shells)!r}.")
    (shell,) = options.shells
    script = SCRIPTS[shell](table())
    return Result(values={"shell": shell, "script": script}, text=script)


def table() -> list[Command]:
    """Return all commands with their flags; imports the module of each command, and thereby TensorFlow."""
    with quiet_tensorflow():
        return [_command(name, summary) for name, summary in COMMANDS.items()]


def _command(name: str, summary: str) -> Command:
    options = importlib.import_module(f"simimg.commands.{name}").Options
    kinds = typing.get_type_hints(options)
    flags: dict[bool, list[Flag]] = {False: [], True: []}  # by whether they are positional arguments
    for field in dataclasses.fields(options):
        flags[field.metadata["positional"]].append(_flag(field, kinds[field.name]))
    return Command(name=name, summary=summary, flags=(*flags[False], *_COMMON), argument=next(iter(flags[True]), None))


def _flag(field: dataclasses.Field[typing.Any], kind: typing.Any) -> Flag:
    choices = field.metadata["choices"] or tuple(field.metadata["words"])
    is_path = kind is Path or Path in typing.get_args(kind)
    takes = "file"  # text may always be a file name: of a table, weights, an image
    if choices:
        takes = "choice"
    elif kind is bool:
        takes = "bool"
    elif kind in (int, float):
        takes = "value"
    elif is_path and field.name.endswith("_dir"):
        takes = "folder"
    return Flag(name=flag_name(field), help=field.metadata["help"], takes=takes, choices=choices)
