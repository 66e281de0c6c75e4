"""Help texts of the command line: the overview, and the short and the full help of a command.

The short help describes the flags that have no group and names the others; the full help describes all of them.
"""

from __future__ import annotations

import dataclasses
import re
import shutil
import textwrap
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

COMMON_FLAGS = {
    "--json": "Print the result as one JSON object on standard output, and nothing else.",
    "--strict": "Exit with code 1 instead of 0 if files were skipped or rejected.",
    "-v, --verbose": "Also print TensorFlow's log and the tracebacks of errors, on standard error.",
    "--flagfile=PATH": "Read flags from a file, one per line; lines that begin with # are comments.",
    "--help, --helpfull": "Describe the most important flags, or all flags and the keys of --json.",
}
"""The flags that every command has, and what they do."""

EXIT_CODES = {
    0: "Success. Files that were skipped or rejected are counted on standard error.",
    1: "Done, with a problem: `doctor` found one, `calibrate` set no threshold, a run of `sweep` "
    "failed, or files were skipped with --strict.",
    2: "The command line cannot be used as it is. Nothing was done.",
    3: "Failure, also to write the result to standard output, or `verify` found damage.",
    130: "Interrupted. The same command continues.",
}
"""The exit codes of all commands, and what they mean."""

_MAX_COLUMNS = 120
_MAX_INDENT = 28
_MIN_COLUMNS = 40
_MIN_TEXT = 24  # columns of a description beside a flag; with fewer, it is below
_KINDS: Mapping[str, str] = {
    "int": "N",
    "float": "X",
    "Path": "PATH",
    "Path | None": "PATH",
    "str": "TEXT",
    "ImageSize": "N|WxH",
}


def overview(groups: Mapping[str, Mapping[str, str]]) -> str:
    """Return the help of `simimg` itself: the commands and their summaries, by group."""
    lines = [*_filled("simimg: image folders to TFRecord shards, trained models, and search for similar images.")]
    lines += ["", "Usage: simimg COMMAND --flags"]
    indent = max(len(name) for commands in groups.values() for name in commands) + 4
    for title, commands in groups.items():
        lines += ["", title]
        for name, summary in commands.items():
            lines += _row(name, summary, indent)
    lines += ["", "Exit codes"]
    for code, meaning in EXIT_CODES.items():
        lines += _row(str(code), meaning, indent)
    lines += ["", *_filled("`simimg COMMAND --help` describes a command. To see everything at work: simimg demo")]
    return "\n".join(lines) + "\n"


def command_help(name: str, module: types.ModuleType, *, full: bool) -> str:
    """Return the help of a command from its module's docstring and `Options`; `full` describes the flags of groups."""
    groups: dict[str, list[dataclasses.Field[Any]]] = {"": []}
    for field in dataclasses.fields(module.Options):
        groups.setdefault(field.metadata["group"], []).append(field)
    required = [field for field in dataclasses.fields(module.Options) if field.default is dataclasses.MISSING]
    described = {group: [_described(field) for field in fields] for group, fields in groups.items()}
    described[""] += COMMON_FLAGS.items()
    if not full:
        described = {"": described[""]}
    indent = min(max(len(left) for rows in described.values() for left, _ in rows) + 4, _MAX_INDENT)
    lines = [*_paragraphs(f"simimg {name}: {(module.__doc__ or '').strip()}"), ""]
    lines += _filled(" ".join(["Usage: simimg", name, *map(usage, required), "[--flags]"]), hanging="    ")
    for group, rows in described.items():
        lines += ["", f"{group.capitalize()}:" if group else "Flags:"]
        for left, right in rows:
            lines += _row(left, right, indent)
    others = {group: fields for group, fields in groups.items() if group}
    if others and not full:
        lines += ["", *_filled(f"More flags, which `simimg {name} --helpfull` describes:")]
        indent = max(map(len, others)) + 4
        for group, fields in others.items():
            lines += _row(group, " ".join(f"--{flag_name(field)}" for field in fields), indent)
    if full and (keys := getattr(module, "JSON_KEYS", "")):
        lines += ["", *_filled(f"Keys of --json: {', '.join(keys.split())}.")]
    return "\n".join(lines) + "\n"


def flag_name(field: dataclasses.Field[Any]) -> str:
    """Return the name of an option's flag, without the hyphens."""
    return field.metadata["flag"] or field.name


def usage(field: dataclasses.Field[Any]) -> str:
    """Return how an option is written on the command line, such as `--epochs=N`."""
    if field.metadata["positional"]:
        return f"{field.name.rstrip('s').upper()}..."
    if str(field.type) == "bool":
        return f"--[no]{flag_name(field)}"
    kind = field.metadata["repeated"] or _KINDS.get(str(field.type), "A,B,…")
    values = field.metadata["choices"] or (kind, *field.metadata["words"])
    return f"--{flag_name(field)}={'|'.join(values)}"


def shown_default(field: dataclasses.Field[Any]) -> str:
    """Return the default of an option as text: a number by its name if it has one; "" if there is nothing to show."""
    if field.default in ("", (), None, Path()):
        return ""
    if isinstance(field.default, tuple):
        return ",".join(map(str, field.default))
    named = {number: word for word, number in field.metadata["words"].items()}
    return (
        str(field.default).lower() if isinstance(field.default, bool) else str(named.get(field.default, field.default))
    )


def _described(field: dataclasses.Field[Any]) -> tuple[str, str]:
    """Return how an option is written, and its help with its default."""
    default = " Required." if field.default is dataclasses.MISSING else f" [{shown_default(field)}]"
    return usage(field), field.metadata["help"] + default.removesuffix(" []")


def _columns() -> int:
    return max(_MIN_COLUMNS, min(shutil.get_terminal_size((100, 24)).columns, _MAX_COLUMNS))


def _row(left: str, right: str, indent: int) -> Iterator[str]:
    """Yield two columns; a left one that is too wide is wrapped, between choices, on lines of its own."""
    if _columns() - indent < _MIN_TEXT:
        indent = 6
    parts = textwrap.wrap(left.replace("|", "| "), _columns() - 6, break_on_hyphens=False, break_long_words=False)
    *above, left = [part.replace("| ", "|") for part in parts]
    yield from (f"{'      ' if number else '  '}{part}" for number, part in enumerate(above))
    margin = "      " if above else "  "
    if len(margin + left) + 2 > indent:
        yield margin + left
        margin = left = ""
    lines = textwrap.wrap(right, _columns() - indent, break_on_hyphens=False, break_long_words=False)
    yield f"{margin + left:<{indent}}{lines[0]}"
    yield from (" " * indent + line for line in lines[1:])


def _filled(text: str, hanging: str = "") -> Sequence[str]:
    return textwrap.wrap(text, _columns(), subsequent_indent=hanging, break_on_hyphens=False, break_long_words=False)


def _paragraphs(text: str) -> Iterator[str]:
    """Yield the lines of a docstring, its paragraphs wrapped again and its examples as they are, if they fit."""
    for number, paragraph in enumerate(text.split("\n\n")):
        if number:
            yield ""
        lines = paragraph.splitlines()
        is_example = lines[0].startswith(("Example", " ")) or any(line.startswith("    ") for line in lines)
        if is_example:
            yield from (part for line in lines for part in _example(line))
        else:
            yield from _filled(" ".join(lines))


def _example(line: str) -> Iterator[str]:
    """Yield the lines of an example: one, or a command that a shell joins again and what is said beside it."""
    if len(line) <= _columns():
        yield line
        return
    indent = min(len(line) - len(line.lstrip()), 8)
    for column in re.split(r" {2,}", line.strip()):
        is_command = "simimg" in column
        parts = textwrap.wrap(
            column,
            _columns() - (2 if is_command else 0),
            initial_indent=" " * indent,
            subsequent_indent=" " * (indent + 4),
            break_on_hyphens=False,
            break_long_words=False,
        )
        yield from (f"{part} \\" if is_command and part is not parts[-1] else part for part in parts)
