"""The edge: `simimg COMMAND --flags`. Turns a command's options into absl flags and back, and runs it.

Only the module of the command that is run is imported, so help and mistakes are answered at once. A command's module
has

    __doc__                 its help: a line, then how it is used
    Options                 a frozen dataclass; each field is a flag (see `tfrecords.options.option`)
    resolve(given)          optional: makes the Options from the flags that were given; by default Options(**given)
    run(options) -> Result  does it

`import-weights` is `import_weights`, and so with every name of two words.

Progress goes to standard error, the result to standard output: its text, or one JSON object with `--json`.

Exit codes: 0 done, 1 usage, 2 done but some inputs were refused, or `doctor` found a problem, 3 failed, 130
interrupted.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import json
import os
import shutil
import sys
import textwrap
import traceback
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from simimg import __version__
from simimg.errors import SimimgError, UsageError

__all__ = ["COMMANDS", "main"]

# Kept here so that `simimg --help` imports nothing; a test compares them with the modules' first lines.
COMMANDS = {
    "demo": "See it all: draw pictures, convert, train, evaluate, index, search, and write a report.",
    "convert": "Turn pictures into TFRecord shards.",
    "verify": "Check every byte of a data set.",
    "train": "Train a model on a data set, on every GPU there is.",
    "data_service": "Let other processes and machines read and decode for a training.",
    "evaluate": "Measure a trained model on photos it has not seen.",
    "predict": "Tell what is on pictures, by a model that you trained.",
    "compare": "Put training runs side by side.",
    "export": "Write a trained model as a SavedModel, or an index's vectors for a database, for others to run.",
    "import_weights": "Make a model folder of the weights of SSCD, a copy detector, for `simimg index` to use.",
    "index": "Make a search index of a folder of pictures, or of a data set, or bring one up to date.",
    "search": "Find the pictures of an index that are similar to the given ones.",
    "calibrate": "Find out how well copies are found among your pictures, and from which similarity on a match is one.",
    "duplicates": "Find the copies in a folder of pictures, and plan which of them to keep.",
    "leaks": "Find the copies across a data set's splits, and how to convert it without them.",
    "apply": "Move the copies that a plan of `simimg duplicates` names into a quarantine folder beside it.",
    "undo": "Bring back all files that `simimg apply` moved.",
    "serve": "Search, review copies and look at a map of an index in the browser.",
    "bench": "Measure how fast pictures are converted, read and trained on here, beside other tools and the limit.",
    "doctor": "Tell what simimg finds on this machine, and what is wrong with it.",
    "completion": "Print a script that completes simimg's commands, flags and values in a shell: bash, zsh or fish.",
}

_JSON_HELP = "Print the result as one JSON object on standard output, and nothing else there."


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    arguments[:1] = [name if name.startswith("-") else name.replace("-", "_") for name in arguments[:1]]
    try:
        return _main(arguments)
    except UsageError as error:
        name = f" {arguments[0]}" if arguments and arguments[0] in COMMANDS else ""
        _complain(f"{error}\nSee: simimg{name} --help")
        return UsageError.exit_code
    except SimimgError as error:
        _complain(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        _complain("interrupted.")
        return 130
    except BrokenPipeError:  # the reader of our output has gone, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception:
        traceback.print_exc()
        _complain(f"this is a bug in simimg {__version__}; please report the lines above.")
        return SimimgError.exit_code


def _main(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("--help", "-h", "-help", "help"):
        if len(arguments) > 1 and (name := arguments[1].replace("-", "_")) in COMMANDS:
            arguments = [name, "--help"]
        else:
            sys.stdout.write(_overview())
            return 0 if arguments else UsageError.exit_code
    if arguments[0] in ("--version", "-V"):
        sys.stdout.write(f"simimg {__version__}\n")
        return 0
    name, rest = arguments[0], arguments[1:]
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        raise UsageError(f"there is no command {name!r}." + (f" Did you mean {near[0]!r}?" if near else ""))

    # TensorFlow reports its build and every missing GPU library; `simimg doctor` tells what matters of it.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    module = importlib.import_module(f"simimg.commands.{name}")
    if any(argument in ("--help", "-h", "-help") for argument in _before_separator(rest)):
        sys.stdout.write(_help(name, module))
        return 0
    given, as_json = _parse(name, module.Options, rest)
    resolve = getattr(module, "resolve", lambda given: module.Options(**given))
    result = module.run(resolve(given))
    sys.stdout.write(json.dumps(result.values, ensure_ascii=False) + "\n" if as_json else result.text.rstrip() + "\n")
    sys.stdout.flush()
    return int(result.exit_code)


def _parse(name: str, options: type, arguments: list[str]) -> tuple[dict[str, Any], bool]:
    """Returns the values of the flags and arguments that were given, by field, and whether JSON is wanted."""
    values, fields = _flags_of(options)
    try:
        _, *positional = values([f"simimg {name}", *arguments])
    except (flags.Error, ValueError) as error:  # ValueError: `--nojson=3`
        raise UsageError(str(error).removesuffix(" ?").rstrip(".") + ".") from None
    given = {
        field.name: _from_flag(values[field.name].value, kind)
        for field, kind in fields
        if field.name in values and values[field.name].present
    }
    taker = next((field for field, _ in fields if field.metadata.get("positional")), None)
    if positional and taker is None:
        raise UsageError(f"unexpected argument {positional[0]!r}; options are written --NAME=VALUE.")
    if positional and taker is not None:
        given[taker.name] = tuple(positional)
    for field, _ in fields:
        if field.name not in given and field.default is dataclasses.MISSING:
            raise UsageError(
                f"{_usage(field)} is required: {field.metadata['help'][:1].lower()}{field.metadata['help'][1:]}"
            )
    return given, bool(values["json"].value)


def _flags_of(options: type) -> tuple[flags.FlagValues, list[tuple[dataclasses.Field[Any], Any]]]:
    kinds = typing.get_type_hints(options)
    fields = [(field, kinds[field.name]) for field in dataclasses.fields(options)]
    values = flags.FlagValues()
    values.set_gnu_getopt(True)
    flags.DEFINE_bool("json", False, _JSON_HELP, flag_values=values)
    for field, kind in fields:
        if field.metadata.get("positional"):
            continue
        help, choices = field.metadata["help"], field.metadata["choices"]
        default = None if field.default is dataclasses.MISSING else field.default
        if choices:
            flags.DEFINE_enum(field.name, default, choices, help, flag_values=values)
        elif kind is bool:
            flags.DEFINE_bool(field.name, default, help, flag_values=values)
        elif kind is int:
            flags.DEFINE_integer(field.name, default, help, flag_values=values)
        elif kind is float:
            flags.DEFINE_float(field.name, default, help, flag_values=values)
        elif kind == tuple[str, ...]:
            flags.DEFINE_list(field.name, list(default or ()), help, flag_values=values)
        else:
            flags.DEFINE_string(field.name, None if default is None else str(default), help, flag_values=values)
    return values, fields


def _from_flag(value: Any, kind: Any) -> Any:
    if kind is Path or Path in typing.get_args(kind):
        return Path(value).expanduser()
    if kind == tuple[str, ...]:
        return tuple(value)
    return value


def _overview() -> str:
    width = max(map(len, COMMANDS)) + 2
    lines = [
        "simimg: pictures to TFRecord shards, to a trained model, to the pictures that are alike.",
        "",
        "Usage: simimg COMMAND --flags",
        "",
        *(f"  {name:<{width}}{summary}" for name, summary in COMMANDS.items()),
        "",
        "simimg COMMAND --help shows a command's flags. The first one to try: simimg demo",
    ]
    return "\n".join(lines) + "\n"


def _help(name: str, module: types.ModuleType) -> str:
    _, fields = _flags_of(module.Options)
    required = [f for f, _ in fields if f.default is dataclasses.MISSING]
    columns = min(shutil.get_terminal_size((100, 24)).columns, 110)
    usage = " ".join([f"Usage: simimg {name}", *map(_usage, required), "[--flags]"])
    lines = [f"simimg {name}: {(module.__doc__ or '').strip()}", "", usage, ""]
    rows = [(_usage(field), field.metadata["help"] + _default(field)) for field, _ in fields]
    rows.append(("--json", _JSON_HELP))
    indent = min(max(len(left) for left, _ in rows) + 4, 34)
    for left, right in rows:
        wrapped = textwrap.wrap(right, columns - indent, break_on_hyphens=False)
        if len(left) + 4 > indent:
            lines.append(f"  {left}")
            left = ""
        lines.append(f"  {left:<{indent - 2}}{wrapped[0]}")
        lines.extend(" " * indent + line for line in wrapped[1:])
    return "\n".join(lines) + "\n"


def _usage(field: dataclasses.Field[Any]) -> str:
    if field.metadata.get("positional"):
        return f"{field.name.rstrip('s').upper()}..."
    choices = field.metadata["choices"]
    kind = str(field.type)
    if kind == "bool":
        return f"--[no]{field.name}"
    if choices and len("|".join(choices)) <= 24:
        return f"--{field.name}={'|'.join(choices)}"
    words: Mapping[str, str] = {"int": "N", "float": "X", "Path": "PATH", "Path | None": "PATH", "str": "TEXT"}
    return f"--{field.name}={words.get(kind, 'A,B,…')}"


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default is dataclasses.MISSING:
        return " Required."
    if field.default in ("", (), None):
        return ""
    default = str(field.default).lower() if isinstance(field.default, bool) else field.default
    return f" [{default}]"


def _before_separator(arguments: list[str]) -> list[str]:
    return arguments[: arguments.index("--")] if "--" in arguments else arguments


def _complain(message: str) -> None:
    sys.stderr.write(f"simimg: {message}\n")
