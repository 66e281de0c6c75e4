"""The journal of a quarantine folder: which plan it belongs to, and a line before and after each move.

    {"format": "simimg-moves/1", "plan_sha256": …, "image_dir": …}
    {"move": "a/0.jpg", "to": "files/a/0.jpg"}      it will be moved: the file is in one of the two places
    {"moved": "a/0.jpg", "to": "files/a/0.jpg"}     it was
    {"undone": "a/0.jpg", "to": "files/a/0.jpg"}    it was moved back

Lines are on the disk before the next step begins. Where the last line was cut off, the files themselves are consulted.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from simimg.errors import UsageError
from simimg.similarity.plan_file import APPLIED_PLAN, Plan, is_inside
from tfrecords.convert.sources import printable
from tfrecords.convert.sources.source import QUARANTINE_JOURNAL
from tfrecords.format.atomic_files import atomic_file, file_sha256, sync_file

FILES = "files"
"""The folder of a quarantine that files are moved to."""

_FORMAT = "simimg-moves/1"


@dataclasses.dataclass
class Move:
    """A move in the journal: the file's path in its folder and in the quarantine, and what is known of it."""

    path: str
    to: str
    is_moved: bool = False
    is_undone: bool = False


class Journal:
    """Appends lines to the journal of a plan, which is created if necessary."""

    def __init__(self, plan: Plan) -> None:
        self._path = plan.quarantine_dir / QUARANTINE_JOURNAL
        if self._path.exists():
            return
        with atomic_file(plan.quarantine_dir / APPLIED_PLAN) as file:
            file.write(plan.data)
        header = {"format": _FORMAT, "plan_sha256": plan.sha256, "image_dir": str(plan.image_dir)}
        with atomic_file(self._path) as file:
            file.write(_line(header))
        sync_file(plan.quarantine_dir.parent)

    def write(self, lines: Iterable[dict[str, str]]) -> None:
        """Append lines; return when they are on the disk."""
        with open(self._path, "r+b") as file:
            if (size := file.seek(0, os.SEEK_END)) and os.pread(file.fileno(), 1, size - 1) != b"\n":
                file.write(b"\n")  # a power failure cut off the last line
            file.write(b"".join(map(_line, lines)))
            file.flush()
            os.fsync(file.fileno())


def read_moves(plan: Plan, *, undoing: bool = False) -> list[Move]:
    """Return the moves of the plan's journal; raise UsageError if it is that of another plan.

    Journals of older versions do not say whose they are. For undoing, any plan of that name will do.
    """
    journal = plan.quarantine_dir / QUARANTINE_JOURNAL
    moves: dict[str, Move] = {}
    owners = []
    for line in journal.read_bytes().split(b"\n") if journal.is_file() else []:
        try:
            values: Any = json.loads(line)
            if "format" in values:
                owners.append((values["plan_sha256"], values["image_dir"]))
                continue
            path = values.get("move") or values.get("moved") or values.get("undone") or values["path"]
            to = values.get("to", f"{FILES}/{path}")  # older versions wrote only `path`
            if is_inside(path) and is_inside(to):
                move = moves.setdefault(to, Move(path, to))
                move.is_moved = "moved" in values or (move.is_moved and "move" not in values)
                move.is_undone = "undone" in values
        except (ValueError, KeyError, TypeError, AttributeError):  # a power failure cut off the last line
            continue
    is_ours = (plan.sha256, str(plan.image_dir)) in owners
    are_planned = undoing or {printable(move.path) for move in moves.values()} <= plan.checksums.keys()
    if not is_ours and (owners or not are_planned):
        applied = plan.quarantine_dir / APPLIED_PLAN
        undo = f"simimg undo --plan={shlex.quote(str(applied if applied.exists() else plan.path))}"
        raise UsageError(
            f"{plan.quarantine_dir} holds the files that another plan of this name moved"
            + (f" from {owners[0][1]}" if owners else "")
            + f". Move them back with `{undo}`, or give {plan.quarantine_dir} or {plan.path} another name."
        )
    return list(moves.values())


def forgotten_moves(plan: Plan, moves: list[Move]) -> list[Move]:
    """Return the moves whose lines were lost in a power failure: of files of the plan that lie in quarantine."""
    known = {move.to for move in moves}
    checksums = plan.checksums
    found = []
    for file in files_below(plan.quarantine_dir):
        top, _, name = file.partition("/")
        is_planned = top == FILES and printable(name) in checksums
        if is_planned and file not in known and has_bytes(plan.quarantine_dir / file, checksums[printable(name)]):
            found.append(Move(name, file, is_moved=True))
    return found


def files_below(folder: Path) -> list[str]:
    """Return the files and links below a folder, relative to it."""
    found = []
    for parent, folders, files in os.walk(folder):
        links = [name for name in folders if os.path.islink(os.path.join(parent, name))]
        found += [os.path.relpath(os.path.join(parent, name), folder) for name in (*links, *files)]
    return sorted(found)


def has_bytes(path: Path, sha256: str) -> bool:
    """Whether there is a file of this SHA-256."""
    try:
        return path.is_file() and file_sha256(path) == sha256
    except OSError:
        return False


def _line(values: dict[str, str]) -> bytes:
    return (json.dumps(values) + "\n").encode()  # ASCII: also of names that are not UTF-8
