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
import re
import shlex
import typing
from collections.abc import Callable, Iterable
from pathlib import Path

from simimg.cli import COMMANDS
from simimg.command_help import flag_name
from simimg.commands.console import Result, quiet_tensorflow
from simimg.errors import UsageError
from tfrecords.options import option

JSON_KEYS = "shell script"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Flag:
    """A flag, or the positional arguments of a command.

    `takes` is the kind of its value: nothing; bool, which has no value but also the spelling --noNAME; value, which
    cannot be completed; choice; file; folder.
    """

    name: str
    help: str
    takes: str
    choices: tuple[str, ...] = ()

    @property
    def spellings(self) -> tuple[str, ...]:
        """The spellings of the flag, up to its value."""
        if self.takes == "nothing":
            return (f"--{self.name}",)
        return (f"--{self.name}", f"--no{self.name}") if self.takes == "bool" else (f"--{self.name}=",)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Command:
    """A command; `argument` describes its positional arguments."""

    name: str
    summary: str
    flags: tuple[Flag, ...]
    argument: Flag | None = None


_COMMON = (
    Flag(name="json", help="Print the result as one JSON object.", takes="nothing"),
    Flag(name="strict", help="Exit with code 1 if files were skipped.", takes="nothing"),
    Flag(name="verbose", help="Also print TensorFlow's log and the tracebacks of errors.", takes="nothing"),
    Flag(name="flagfile", help="Read flags from a file, one per line.", takes="file"),
)


# Bash passes `--flag=value` as three words, since `=` is in COMP_WORDBREAKS; as one word if the user has removed it.
_BASH = """\
# bash completion of simimg; eval "$(simimg completion bash)"
_simimg() {
    local command='' flags='' takes='' flag='' choices='' prefix='' at=$COMP_CWORD
    local value=${COMP_WORDS[at]} before=${COMP_WORDS[at-1]}
    COMPREPLY=()
    command=${COMP_WORDS[1]//-/_}
    if ((at == 1)) || { ((at == 2)) && [[ $command == help ]]; }; then
        COMPREPLY=($(compgen -W '@NAMES@' -- "$value"))
        return
    fi
    case $command in
@FLAGS@
    esac
    if [[ $value == = ]]; then
        flag=$before value=''
    elif [[ $before == = ]]; then
        flag=${COMP_WORDS[at-2]}
    elif [[ $value == --*=* ]]; then
        flag=${value%%=*} prefix=${value%%=*}= value=${value#*=}
    elif [[ $value == -* ]]; then
        COMPREPLY=($(compgen -W "$flags --help --helpfull" -- "$value"))
        [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *= ]] && compopt -o nospace 2> /dev/null
        return
    elif [[ $before == --* && " $flags " == *" $before= "* ]]; then
        flag=$before
    fi
    case $command$flag in
@VALUES@
    esac
    [[ $value == '~/'* ]] && value=$HOME/${value#'~/'}
    case $takes in
        choice) COMPREPLY=($(compgen -P "$prefix" -W "$choices" -- "$value")) ;;
        file | directory)
            compopt -o filenames 2> /dev/null
            mapfile -t COMPREPLY < <(compgen -P "$prefix" -A $takes -- "$value")
            ;;
    esac
}
complete -F _simimg simimg
"""

_ZSH = """\
#compdef simimg
# zsh completion of simimg; eval "$(simimg completion zsh)"
_simimg() {
    local -a commands
    if ((CURRENT == 2)); then
        commands=(
@NAMES@
        )
        _describe -t commands 'simimg command' commands
        return
    fi
    local command=${words[2]//-/_}
    shift words
    ((CURRENT--))
    case $command in
@FLAGS@
    esac
}
if [[ $funcstack[1] == _simimg ]]; then
    _simimg "$@"
else
    (($+functions[compdef])) || { autoload -Uz compinit && compinit; }
    compdef _simimg simimg
fi
"""


def _bash(commands: Iterable[Command]) -> str:
    commands = list(commands)
    flags, values = [], []
    for command in commands:
        spellings = " ".join(spelling for flag in command.flags for spelling in flag.spellings)
        flags.append(f"        {command.name}) flags={shlex.quote(spellings)} ;;")
        patterns = {f"{command.name}--{flag.name}": flag for flag in command.flags}
        if command.argument:
            patterns[command.name] = command.argument
        for kind, action in (("file", "file"), ("folder", "directory")):
            if of_kind := [pattern for pattern, flag in patterns.items() if flag.takes == kind]:
                values.append(f"        {' | '.join(of_kind)}) takes={action} ;;")
        values += [
            f"        {pattern}) takes=choice choices={shlex.quote(' '.join(flag.choices))} ;;"
            for pattern, flag in patterns.items()
            if flag.takes == "choice"
        ]
    names = " ".join([*(command.name for command in commands), "help", "--help", "--version"])
    return _BASH.replace("@NAMES@", names).replace("@FLAGS@", "\n".join(flags)).replace("@VALUES@", "\n".join(values))


def _zsh(commands: Iterable[Command]) -> str:
    names, flags = [], []
    for command in commands:
        names.append(f"            {shlex.quote(f'{command.name}:{_zsh_text(command.summary)}')}")
        words = [word for flag in command.flags for word in _zsh_flag(flag)]
        words += ["'--help[Describe the most important flags.]'", "'--helpfull[Describe all flags.]'"]
        if command.argument:
            words.append(shlex.quote(f"*:{command.argument.name}:{_zsh_action(command.argument)}"))
        lines = " \\\n".join(f"                {word}" for word in words)
        flags.append(f"        {command.name})\n            _arguments \\\n{lines}\n            ;;")
    return _ZSH.replace("@NAMES@", "\n".join(names)).replace("@FLAGS@", "\n".join(flags))


def _zsh_text(text: str) -> str:
    return re.sub(r"[\\\[\]:]", r"\\\g<0>", text)


def _zsh_flag(flag: Flag) -> Iterable[str]:
    for spelling in flag.spellings:
        value = f":{flag.name}:{_zsh_action(flag)}" if spelling.endswith("=") else ""
        yield shlex.quote(f"{spelling}[{_zsh_text(flag.help)}]{value}")


def _zsh_action(flag: Flag) -> str:
    actions = {"choice": f"({' '.join(flag.choices)})", "file": "_files", "folder": "_files -/"}
    return actions.get(flag.takes, " ")


def _fish(commands: Iterable[Command]) -> str:
    lines = ["# fish completion of simimg; simimg completion fish | source", "complete -c simimg -f"]
    for command in commands:
        lines.append(f"complete -c simimg -n __fish_use_subcommand -a {command.name} -d {_fish_quote(command.summary)}")
        begin = f"complete -c simimg -n '__fish_seen_subcommand_from {command.name}'"
        if command.argument:
            lines.append(f"{begin} {_fish_action(command.argument)}".replace(" -r -F", " -F").replace(" -x", " -f"))
        help_flags = (("help", "Describe the most important flags."), ("helpfull", "Describe all flags."))
        lines += [f"{begin} -l {name} -d {_fish_quote(text)}" for name, text in help_flags]
        for flag in command.flags:
            for spelling in flag.spellings:
                action = f" {_fish_action(flag)}" if spelling.endswith("=") else ""
                lines.append(f"{begin} -l {spelling.strip('-=')}{action} -d {_fish_quote(flag.help)}")
    return "\n".join(lines) + "\n"


def _fish_action(flag: Flag) -> str:
    actions = {
        "choice": f"-x -a {_fish_quote(' '.join(flag.choices))}",
        "file": "-r -F",
        # The flag is removed from `--flag=folder`; fish puts it before the result itself.
        "folder": """-x -a '(__fish_complete_directories (string replace -r "^--[^=]*=" "" -- (commandline -ct)))'""",
    }
    return actions.get(flag.takes, "-x")


def _fish_quote(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


SCRIPTS: dict[str, Callable[[Iterable[Command]], str]] = {"bash": _bash, "zsh": _zsh, "fish": _fish}


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
    flags = {field.name: _flag(field, kinds[field.name]) for field in dataclasses.fields(options)}
    positional = next((field.name for field in dataclasses.fields(options) if field.metadata["positional"]), "")
    argument = flags.pop(positional, None)
    return Command(name=name, summary=summary, flags=(*flags.values(), *_COMMON), argument=argument)


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
