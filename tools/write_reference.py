"""Writes simimg/docs/commands.md and simimg/docs/api.md from the code: python -m tools.write_reference [--check]

With --check nothing is written: the exit code is 1 if a page is not what the code says. A test runs it so.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
import sys
from pathlib import Path
from types import FunctionType
from typing import Any

import simimg
from simimg import cli
from simimg.command_help import COMMON_FLAGS, EXIT_CODES, flag_name, shown_default

ROOT = Path(__file__).resolve().parents[1]

HEADER = "Written by `tools/write_reference.py` from the code; change it there.\n"


# What else a program may use, besides `simimg.__all__`.
MORE = (
    "input.image_dataset.ImageDataset",
    "input.distributed_images.DistributedImages",
    "input.image_dataset.FeatureBatch",
    "callbacks.BackupAndRestore",
    "augment.RandomAugmentation",
    "flags.define_input",
    "flags.load",
)


EXIT_CODES_HEAD = """\
## Exit codes

A file that cannot be used does not end a command and does not change its exit code, so that a script with `set -e` goes
on after a good conversion. The number of these files is on standard error, and in the result of `--json` as
`num_refused` or `skipped`. Two flags make them a failure. With `--strict`, every command does its work without these
files and then exits with code 1. With `--max_refused=0`, `convert` exits with code 3 and makes no dataset.

| code | |
|---|---|""".splitlines()


def commands_page() -> str:
    """Returns the page of all commands: what each does, and a table of its flags."""
    lines = ["# Commands", "", HEADER, "Every command also has these flags:", ""]
    lines += ["| flag | |", "|---|---|", *(f"| `{flag}` | {text} |" for flag, text in COMMON_FLAGS.items()), ""]
    lines += [
        "A file for `--flagfile` has one flag per line, such as `--preset=lite0`; flags that follow it override it.",
        "",
    ]
    lines += [*EXIT_CODES_HEAD, *(f"| {code} | {meaning} |" for code, meaning in EXIT_CODES.items()), ""]
    for name in cli.COMMANDS:
        module = importlib.import_module(f"simimg.commands.{name}")
        summary, _, details = inspect.cleandoc(module.__doc__ or "").partition("\n")
        lines += [f"## simimg {name.replace('_', '-')}", "", summary, "", details.strip(), ""]
        groups: dict[str, list[dataclasses.Field[Any]]] = {}
        for field in dataclasses.fields(module.Options):
            groups.setdefault(field.metadata.get("group", ""), []).append(field)
        for group, fields in groups.items():
            lines += [f"**{group[:1].upper()}{group[1:]}**", ""] if group else []
            lines += ["| flag | default | |", "|---|---|---|", *map(flag_row, fields), ""]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines))


def flag_row(field: dataclasses.Field[Any]) -> str:
    """Returns the row of a flag in the table."""
    text = field.metadata["help"]
    if choices := field.metadata["choices"]:
        text += f" One of {', '.join(f'`{choice}`' for choice in choices)}."
    if field.default is dataclasses.MISSING:
        default = "required"
    else:
        default = f"`{shown}`" if (shown := shown_default(field)) else ""
    name = f"{field.name.upper()}…" if field.metadata["positional"] else f"--{flag_name(field)}"
    return f"| `{name}` | {default} | {text} |".replace("|`", "| `").replace("\n", " ")


def api_page() -> str:
    """Returns the page of the Python interface: signatures and docstrings."""
    lines = ["# Python functions", "", HEADER, "`import simimg` imports nothing else until a name is used.", ""]
    for name in (*simimg.__all__, *MORE):
        module, _, last = f"simimg.{name}".rpartition(".")
        value = getattr(importlib.import_module(module), last)
        if isinstance(value, FunctionType):
            lines += section(f"simimg.{name}", value)
        elif inspect.isclass(value) and not issubclass(value, Exception):
            lines += [f"## simimg.{name}", "", *body(value.__doc__), ""]
            for method_name, method in vars(value).items():
                is_described = isinstance(method, FunctionType) and not method_name.startswith("_") and method.__doc__
                if is_described and name not in MORE:  # those have only methods that TensorFlow and Keras call
                    lines += section(f"simimg.{name}.{method_name}", method, level=3)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines))


def section(name: str, function: FunctionType, level: int = 2) -> list[str]:
    """Returns the heading, the signature and the docstring of a function."""
    parameters = re.sub(r"<function .*? at 0x\w+>", "...", str(inspect.signature(function)).replace("'", ""))
    return [f"{'#' * level} {name}", "", f"    {name}{parameters}", "", *body(function.__doc__), ""]


def body(docstring: str | None) -> list[str]:
    """Returns a docstring as Markdown: its sections as bold words, their entries as lists, examples as code."""
    lines: list[str] = []
    part = ""
    for line in inspect.cleandoc(docstring or "").splitlines():
        stripped = line.strip()
        if re.fullmatch(r"(Args|Attributes|Raises|Returns|Yields|Example|Examples):", stripped):
            part = stripped.rstrip(":")
            lines += ["", f"**{part}**", ""]
        elif part in ("Args", "Attributes", "Raises") and (entry := re.match(r" {4}([*\w, ]+): (.*)", line)):
            lines.append(f"- `{entry[1]}`: {entry[2]}")
        elif part in ("Example", "Examples") and stripped:
            lines.append(f"    {line.removeprefix('    ')}")
        else:
            lines.append(stripped)
    return lines


PAGES = {"commands.md": commands_page, "api.md": api_page}


def main(check: bool) -> int:
    """Writes both pages, or checks them; returns the exit code."""
    stale = []
    for name, page in PAGES.items():
        path = ROOT / "simimg" / "docs" / name
        text = page().rstrip() + "\n"
        if not path.exists() or path.read_text() != text:
            stale.append(name)
            if not check:
                path.write_text(text)
    if check and stale:
        sys.stderr.write(f"{', '.join(stale)}: not what the code says. Run: python -m tools.write_reference\n")
    return int(bool(check and stale))


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
