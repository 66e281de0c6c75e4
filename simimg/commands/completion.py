"""Print a script that completes simimg's commands, flags and values in a shell: bash, zsh or fish.

In this shell:      eval "$(simimg completion bash)"        (or zsh); simimg completion fish | source
In each new one:    simimg completion bash > ~/.local/share/bash-completion/completions/simimg
                    simimg completion zsh > ~/.zfunc/_simimg        with ~/.zfunc in fpath, before compinit
                    simimg completion fish > ~/.config/fish/completions/simimg.fish

The script holds all names, so that TAB starts no Python; print it again after an update of simimg.
"""

from __future__ import annotations

import dataclasses
import importlib
import typing
from pathlib import Path

from simimg.cli import COMMANDS
from simimg.commands.completion_scripts import SCRIPTS, Command, Flag
from simimg.commands.console import Result, quiet_tensorflow
from simimg.errors import UsageError
from tfrecords.options import option

__all__ = ["Options", "run", "table"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What `completion` can be told."""

    shells: tuple[str, ...] = option("The shell: bash, zsh or fish.", choices=tuple(SCRIPTS), positional=True)


def run(options: Options) -> Result:
    """Writes the script."""
    if len(options.shells) != 1 or options.shells[0] not in SCRIPTS:
        raise UsageError(f"SHELL: should be one of {', '.join(SCRIPTS)}. Received: {' '.join(options.shells)}.")
    (shell,) = options.shells
    script = SCRIPTS[shell](table())
    return Result(values={"shell": shell, "script": script}, text=script)


def table() -> list[Command]:
    """Returns all commands with their flags; imports each command's module, and so TensorFlow."""
    with quiet_tensorflow():
        return [_command(name, summary) for name, summary in COMMANDS.items()]


def _command(name: str, summary: str) -> Command:
    options = importlib.import_module(f"simimg.commands.{name}").Options
    kinds = typing.get_type_hints(options)
    flags, argument = [], None
    for field in dataclasses.fields(options):
        flag = _flag(field, kinds[field.name])
        if field.metadata["positional"]:
            argument = flag
        else:
            flags.append(flag)
    json = Flag(name="json", help="Print the result as one JSON object.", takes="nothing")
    return Command(name=name, summary=summary, flags=(*flags, json), argument=argument)


def _flag(field: dataclasses.Field[typing.Any], kind: typing.Any) -> Flag:
    choices = field.metadata["choices"]
    is_path = kind is Path or Path in typing.get_args(kind)
    takes = "file"  # text may always be the name of a file: a table, weights, a picture
    if choices:
        takes = "choice"
    elif kind is bool:
        takes = "bool"
    elif kind in (int, float):
        takes = "value"
    elif is_path and field.name.endswith("_dir"):
        takes = "folder"
    return Flag(name=field.name, help=field.metadata["help"], takes=takes, choices=choices)
