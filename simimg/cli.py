"""The command line: turns `simimg COMMAND --flags` into a command's options, runs it, and prints its result.

Only the module of the requested command is imported, so that help and error messages appear at once. A command's
module has

    __doc__                 its help: a summary line, then how it is used
    JSON_KEYS               the keys of its result in JSON, separated by spaces
    Options                 a frozen dataclass; each field is a flag (see `tfrecords.options.option`)
    resolve(given)          optional: makes the Options from the given flags; by default Options(**given)
    run(options) -> Result  does the work

`import-weights` is an accepted spelling of `import_weights`, and so for every command of two words.

Progress goes to standard error. The result goes to standard output: its text, or one JSON object with `--json`. An
error is a sentence on standard error, and with `--json` also {"error": …, "exit_code": …} on standard output.

`EXIT_CODES` of `simimg.command_help` lists the exit codes. A result that could not be written to standard output, as on
a full disk, is a failure, as in coreutils, since a script would read what is there. A standard output that the caller
has closed, or whose reader has exited, is none.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import gc
import importlib
import json
import os
import sys
import traceback
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from simimg import __version__
from simimg.command_help import command_help, flag_name, overview, usage
from simimg.errors import SimimgError, UsageError, system_error
from simimg.standard_error import note_what_is_logged
from simimg.standard_streams import open_standard_streams, output_error
from tfrecords.format.image_size import ImageSize
from tfrecords.locations import path_of, refuse_url

# Kept here so that `simimg --help` imports no command; a test compares the summaries with the modules' docstrings.
GROUPS = {
    "Data": {
        "convert": "Convert images to TFRecord shards.",
        "show": "Show what is in a dataset, as a page or by id.",
        "edit": "Delete, relabel or merge examples in a new version.",
        "verify": "Check every byte of a dataset.",
    },
    "Training": {
        "train": "Train a model on a dataset, on all GPUs of the machine.",
        "evaluate": "Measure a trained model on images it has not seen.",
        "predict": "Classify images with a trained model.",
        "sweep": "Train with several seeds, folds and options, and compare.",
        "compare": "Compare training runs.",
        "export": "Export a model for other programs, or the vectors of an index.",
        "import_weights": "Import the weights of SSCD, a pretrained copy detector.",
        "data_service": "Read and decode images for training on other machines.",
    },
    "Search": {
        "index": "Create or update a search index of images.",
        "search": "Find the images of an index that are similar to given ones.",
        "calibrate": "Measure search on your images and set the copy threshold.",
        "serve": "Search, review copies and browse an index in the browser.",
    },
    "Cleaning": {
        "audit": "Find wrong labels, outliers and bad images in a collection.",
        "duplicates": "Find copies in an image folder and plan which to keep.",
        "leaks": "Find copies across the splits of a dataset.",
        "decide": "Decide about images that look like copies, for good.",
        "apply": "Move the copies that a plan lists to a quarantine folder.",
        "undo": "Move the files of a plan back from quarantine.",
    },
    "Tools": {
        "demo": "Run the whole pipeline on sample images and write a report.",
        "bench": "Measure conversion, reading, training and search.",
        "doctor": "Check this machine and a dataset for problems.",
        "completion": "Print a completion script for bash, zsh or fish.",
    },
}
COMMANDS = {name: summary for commands in GROUPS.values() for name, summary in commands.items()}

_HELP = ("--help", "-h", "-help", "--helpfull", "-helpfull")
_VERBOSE = ("-v", "--verbose")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and returns its exit code."""
    open_standard_streams()
    arguments = list(sys.argv[1:] if argv is None else argv)
    arguments[:1] = [name if name.startswith("-") else name.replace("-", "_") for name in arguments[:1]]
    code = _reported(arguments)
    if reason := output_error():
        _complain(f"the result could not be written to standard output: {reason}. Send it to another place.")
        code = SimimgError.exit_code if code in (0, 1) else code
    return code


def _reported(arguments: list[str]) -> int:
    """Run one command, report its error if there is one, and return its exit code."""
    try:
        return _main(arguments)
    except (Exception, KeyboardInterrupt) as error:
        return _report(error, arguments)


def _report(error: BaseException, arguments: list[str]) -> int:
    """Print an error of a command, and its traceback with `--verbose` or if it is a bug; return the exit code."""
    is_bug, hint, code = False, "", SimimgError.exit_code
    match error:
        case UsageError():
            name = f" {arguments[0]}" if arguments and arguments[0] in COMMANDS else ""
            message, hint, code = str(error), f"\nSee: simimg{name} --help", error.exit_code
        case SimimgError():
            message, code = str(error), error.exit_code
        case KeyboardInterrupt():
            message, code = "interrupted.", 130
        case _ if system_error(error):
            message, hint = system_error(error), "\n--verbose shows where this happened."
        case _:
            message, is_bug = f"this is a bug in simimg {__version__}; please report the lines above.", True
    if is_bug or set(_VERBOSE) & set(_before_separator(arguments)):
        traceback.print_exception(error)
    _complain(message + hint)
    if _asks_for_json(arguments):
        sys.stdout.write(_json({"error": message, "exit_code": int(code)}))
    return int(code)


def _main(arguments: list[str]) -> int:
    if not arguments or arguments[0] in (*_HELP, "help"):
        if len(arguments) > 1 and not arguments[1].startswith("-"):
            arguments = [arguments[1].replace("-", "_"), "--help"]
        else:
            sys.stdout.write(overview(GROUPS))
            return 0 if arguments else UsageError.exit_code
    if arguments[0] in ("--version", "-V"):
        sys.stdout.write(f"simimg {__version__}\n")
        return 0
    name, rest = arguments[0], _with_flagfiles(arguments[1:])
    if name.startswith("-"):
        raise UsageError(f"{name} stands before the command. Write `simimg COMMAND {name}`.")
    if name not in COMMANDS:
        raise UsageError(f"there is no command {name!r}.{_did_you_mean(name, COMMANDS)}")

    # TensorFlow logs its build and every missing GPU library; `simimg doctor` reports what matters.
    if set(_VERBOSE) & set(_before_separator(rest)):
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "0"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    gc.disable()  # nothing that is imported is garbage; looking for some takes a tenth of the time
    try:
        module = importlib.import_module(f"simimg.commands.{name}")
    finally:
        gc.freeze()
        gc.enable()
    note_what_is_logged()
    if asked := [argument for argument in _before_separator(rest) if argument in _HELP]:
        sys.stdout.write(command_help(name, module, full=asked[0].endswith("full")))
        return 0
    given, as_json, is_strict = _parse(name, module.Options, rest)
    try:
        result = run_command(module, given)
    except UsageError as error:
        raise UsageError(_as_typed(str(error), module.Options, rest)) from error
    sys.stdout.write(_json(result.values) if as_json else result.text.rstrip() + "\n")
    return _exit_code(result, is_strict)


def _exit_code(result: Any, is_strict: bool) -> int:
    """Return the exit code of a result, and tell how much was left out."""
    code = int(result.exit_code or (is_strict and result.num_skipped > 0))
    if result.num_skipped:
        units = f"{result.unit} was" if result.num_skipped == 1 else f"{result.unit}s were"
        _complain(f"{result.num_skipped:,} {units} skipped (exit code {code}{'' if code else ', or 1 with --strict'}).")
    return code


def run_command(module: types.ModuleType, given: dict[str, Any]) -> Any:
    """Run the command of a module with the given options, by field, and return its `Result`."""
    resolve = getattr(module, "resolve", lambda given: module.Options(**given))
    return module.run(resolve(given))


def parse_flags(name: str, options: type, arguments: list[str]) -> dict[str, Any]:
    """Return the values of some flags of a command, by field; raise UsageError for those that it does not take."""
    return _parse(name, options, arguments)[0]


def _as_typed(message: str, options: type, arguments: list[str]) -> str:
    """Return a message with the flags as the user spells them; the library names a flag after its field."""
    typed = {argument.lstrip("-").partition("=")[0] for argument in arguments}
    for field in dataclasses.fields(options):
        if field.name not in typed:
            message = message.replace(f"--{field.name}=", f"--{flag_name(field)}=")
    return message


def _with_flagfiles(arguments: list[str]) -> list[str]:
    """Return the arguments with the lines of the files that `--flagfile` names in its place."""
    try:
        return flags.FlagValues().read_flags_from_files(arguments)
    except flags.Error as error:
        reason, what = error.__context__, "name a file: --flagfile=PATH"
        if isinstance(reason, OSError):
            what = f"{reason.filename}: {reason.strerror}"
        raise UsageError(f"--flagfile cannot be read: {what}.") from None
    except UnicodeDecodeError:
        raise UsageError("--flagfile cannot be read: its text is not UTF-8.") from None


def _parse(name: str, options: type, arguments: list[str]) -> tuple[dict[str, Any], bool, bool]:
    """Return the values of the given flags and arguments, by field, and of --json and --strict."""
    values, fields = _flags_of(options)
    try:
        _, *positional = values([f"simimg {name}", *arguments])
    except flags.UnrecognizedFlagError as error:
        near = _did_you_mean(error.flagname, list(values), prefix="--")
        raise UsageError(f"there is no flag --{error.flagname}.{near}") from None
    except (flags.Error, ValueError) as error:  # ValueError: `--nojson=3`
        raise UsageError(str(error).rstrip(".") + ".") from None
    given = {}
    for field, kind in fields:
        if (flag := flag_name(field)) in values and values[flag].present:
            if field.default is dataclasses.MISSING and values[flag].value == "":
                raise UsageError(f"--{flag} is empty, as an unset variable of a shell is.")
            given[field.name] = _from_flag(values[flag].value, kind)
            if flag != field.name and values[field.name].present:
                _complain(f"note: --{field.name} is now spelled --{flag}; both work.")
    taker = next((field for field, _ in fields if field.metadata["positional"]), None)
    if positional and taker is None:
        raise UsageError(f"unexpected argument {positional[0]!r}{_flag_for(positional[0], fields, given)}")
    if positional and taker is not None:
        if "" in positional:
            raise UsageError(f"one of {usage(taker)} is empty, as an unset variable of a shell is.")
        given[taker.name] = tuple(positional)
    for field, kind in fields:
        if field.name in given and _is_path(field, kind) and not field.metadata["url"]:
            value = given[field.name]
            for one in value if isinstance(value, tuple) else (value,):
                refuse_url(one, field.name if field.metadata["positional"] else f"--{flag_name(field)}")
        if field.metadata["variable"] and field.name in given:
            os.environ[field.metadata["variable"]] = given[field.name]
    for field, _ in fields:
        if field.name not in given and field.default is dataclasses.MISSING:
            text = field.metadata["help"]
            raise UsageError(f"{usage(field)} is required: {text[:1].lower()}{text[1:]}")
    for field, _ in fields:
        if field.metadata["output"] and given.get(field.name):
            from tfrecords.format.atomic_files import prepare_output

            prepare_output(given[field.name], f"--{flag_name(field)}")
    return given, bool(values["json"].value), bool(values["strict"].value)


def _flag_for(argument: str, fields: list[tuple[dataclasses.Field[Any], Any]], given: dict[str, Any]) -> str:
    """Return the end of the message about an argument without a flag: the flag that was probably meant."""
    fields = [(field, kind) for field, kind in fields if field.name not in given and not field.metadata["variable"]]
    paths = [field.name for field, kind in fields if "Path" in str(kind)]
    folders = [field.name for field, _ in fields if field.name.endswith("_dir")]
    looks_like_path = "/" in argument or Path(argument).expanduser().exists()
    is_file = Path(argument).expanduser().is_file()
    names = [*([name for name in paths if name not in folders] if is_file else ()), *folders, *paths]
    if looks_like_path and names:
        return f". Did you mean --{names[0]}={argument}?"
    return "; options are written --NAME=VALUE."


def _flags_of(options: type) -> tuple[flags.FlagValues, list[tuple[dataclasses.Field[Any], Any]]]:
    kinds = typing.get_type_hints(options)
    fields = [(field, kinds[field.name]) for field in dataclasses.fields(options)]
    values = flags.FlagValues()
    values.set_gnu_getopt(True)
    for name, letter in (("json", None), ("strict", None), ("verbose", "v")):
        flags.DEFINE_flag(flags.Flag(_ValueParser(name, bool), None, name, False, "", letter, boolean=True), values)
    for field, kind in fields:
        if field.metadata["positional"]:
            continue
        name = flag_name(field)
        default = None if field.default is dataclasses.MISSING else field.default
        if field.metadata["repeated"]:
            flags.DEFINE_multi_string(name, list(default) if isinstance(default, tuple) else [], "", flag_values=values)
        elif kind == tuple[str, ...]:
            flags.DEFINE_list(name, list(default or ()), "", flag_values=values)
        elif field.metadata["choices"] or kind in (bool, int, float, ImageSize):
            flag = flags.Flag(
                _ValueParser(name, kind, field.metadata["choices"], field.metadata["words"]),
                None,
                name,
                default,
                "",
                boolean=kind is bool,
            )
            flags.DEFINE_flag(flag, values)
        else:
            flags.DEFINE_string(name, None if default is None else str(default), "", flag_values=values)
        if name != field.name:
            flags.DEFINE_alias(field.name, name, flag_values=values)
    return values, fields


class _ValueParser(flags.ArgumentParser):
    """Parse a choice, a number or a truth value; raises UsageError, which absl passes on, with the flag's name."""

    def __init__(self, name: str, kind: Any, choices: Sequence[str] = (), words: Mapping[str, Any] = {}) -> None:
        self._name, self._kind, self._choices, self._words = name, kind, choices, words

    def parse(self, argument: Any) -> Any:
        if not isinstance(argument, str) or argument in self._choices:
            return argument
        near = ""
        if self._choices:
            expected, near = f"one of {', '.join(self._choices)}", _did_you_mean(argument, self._choices)
        elif argument.lower() in self._words:
            return (float if self._kind is float else int)(self._words[argument.lower()])
        elif self._kind == ImageSize:
            return argument  # the options check it
        else:
            try:
                parsers = {bool: flags.BooleanParser, int: flags.IntegerParser, float: flags.FloatParser}
                return parsers[self._kind]().parse(argument)
            except ValueError:
                is_fraction = self._kind is int and argument.replace(".", "", 1).lstrip("+-").isdigit()
                expected = "a whole number" if is_fraction else "a number"
                expected = " or ".join(["true or false" if self._kind is bool else expected, *self._words])
        raise UsageError(f"Expected {expected} for --{self._name}, got {argument!r}.{near}")


def _from_flag(value: Any, kind: Any) -> Any:
    if isinstance(value, list) and tuple[Path, ...] in (kind, *typing.get_args(kind)):
        return tuple(path_of(one).expanduser() for one in value)
    if kind is Path or Path in typing.get_args(kind):
        return path_of(value).expanduser()
    if kind == tuple[str, ...]:
        return tuple(value)
    return value


def _is_path(field: dataclasses.Field[Any], kind: Any) -> bool:
    """Return whether the values of an option are paths, or names that may be paths."""
    named = field.name in ("model", "from_dataset", "exclude_from") or field.name.endswith("_dir")
    return "Path" in str(kind) or bool(field.metadata["positional"]) or named


def _did_you_mean(word: str, known: typing.Iterable[str], prefix: str = "") -> str:
    near = [prefix + name if prefix else repr(name) for name in difflib.get_close_matches(word, list(known), n=1)]
    return f" Did you mean {near[0]}?" if near else ""


def _before_separator(arguments: list[str]) -> list[str]:
    return arguments[: arguments.index("--")] if "--" in arguments else arguments


def _asks_for_json(arguments: list[str]) -> bool:
    """Tell whether the result is to be JSON, of arguments that may have mistakes."""
    with contextlib.suppress(UsageError):  # which is the error that is reported
        arguments = _with_flagfiles(arguments)
    given = [argument.lstrip("-") for argument in _before_separator(arguments) if argument.startswith("-")]
    given = [argument for argument in given if argument.partition("=")[0] in ("json", "nojson")]
    return bool(given) and given[-1].lower() in ("json", "json=true", "json=t", "json=yes", "json=y", "json=1")


def _json(values: dict[str, Any]) -> str:
    """Return values as a line of JSON; characters that standard output cannot take are escaped, not replaced."""
    text = json.dumps(values, ensure_ascii=False)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(values)
    return text + "\n"


def _complain(message: str) -> None:
    sys.stderr.write(f"simimg: {message}\n")
