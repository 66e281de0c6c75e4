r"""Lists of paths to leave out, for --exclude_from: text, CSV, JSON or JSON Lines, often written by another command.

    cat/1.jpg                                   text: one path per line; a line that begins with # is a comment
    path,kind,…,decision                        CSV with a column `path`: every row, or if a column `decision` has
    cat/1.jpg,blurred,…,drop                    something in it, the rows that say `drop`
    ["cat/1.jpg"]   [{"path": "cat/1.jpg"}]     JSON: paths, or objects as the rows of a CSV file; also behind a name
    {"decision": "drop", "images": [{"path"…}]} lines of decisions: the images whose last one is `drop`
    {"groups": [{"remove": [{"path": …}]}]}     a plan of `simimg duplicates`: what it removes

A path is relative to the source, or absolute, perhaps through a symbolic link. A folder stands for everything in it. As
in tables, `\` may stand for "/", the Unicode form (NFC, NFD) does not matter, and the suffix of an image may be absent.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import json
import os
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tfrecords.base_errors import UsageError
from tfrecords.convert.sources.source import is_image, printable
from tfrecords.locations import path_of, refuse_url

EXCLUDE_FROM_HELP = (
    "Leave out the files that this list names: one path per line, or CSV or JSON with paths, such as the decisions of "
    "`simimg audit` (those that say drop) or the plan of `simimg duplicates`."
)

DROP = "drop"
"""The word in a column `decision` of what is to be left out."""

_PATH_COLUMNS = ("path", "paths", "file", "filename", "file_name", "filepath", "file_path")
_LISTS = ("paths", "images", "files", "selection", "findings", "decisions")  # names of lists in JSON objects
_LINES = (".jsonl", ".ndjson")
_FINDING = ("kind", "label", "split")  # what makes two findings about an image the same; their reasons may differ


class ExcludedPaths:
    """The paths of a list. It remembers which of them matched a file."""

    def __init__(self, file: str, base: str = "") -> None:
        """Read the list; its absolute paths, and those that are relative to the working folder, may lie in `base`.

        Raises:
            UsageError: it cannot be read, or has no paths.
        """
        self._flag = f"--exclude_from={file}"
        self._folder = "" if "://" in base else base
        refuse_url(file, "--exclude_from")
        found = _read(self._flag, path_of(file))
        self._lines = [line for line in found.paths if line.strip()]
        self._num_kept = found.num_kept
        self._line_of: dict[str, int] = {}  # by every form of its path
        self._last_forms: list[str] = []  # of each line
        for number, line in enumerate(self._lines):
            forms = list(self._forms(line))
            self._last_forms.append(forms[-1])
            for form in forms:
                self._line_of.setdefault(form, number)
        self._matched: set[int] = set()
        self._num_files = 0

    @property
    def digest(self) -> str:
        """A checksum of the paths, however they are written; comments do not count."""
        paths = {form for line, form in zip(self._lines, self._last_forms, strict=True) if line[0] != "#"}
        return hashlib.sha256("\n".join(sorted(paths)).encode()).hexdigest()[:16]

    @property
    def num_files(self) -> int:
        """How many files were left out."""
        return self._num_files

    def has(self, paths: Iterable[str], counted: bool = True) -> bool:
        """Return whether one of the paths of a file, relative to the source, is in the list or below a path of it."""
        found = next((line for path in paths for line in self._lines_about(path)), None)
        if found is not None and counted:
            self._matched.add(found)
            self._num_files += 1
        return found is not None

    def notes(self, is_known: Callable[[str], bool] = lambda path: False) -> list[str]:
        """Return how many files were left out, and paths that no file has, except those that are known otherwise."""
        notes = []
        if self._num_files:
            count = self._num_files
            notes.append(f"{count:,} {'file is' if count == 1 else 'files are'} left out by {self._flag}")
        if self._num_kept:
            which = "1 row" if self._num_kept == 1 else f"{self._num_kept:,} rows"
            notes.append(
                f"{which} of {self._flag} {'says' if self._num_kept == 1 else 'say'} another decision than {DROP}"
            )
        if not self._lines:
            notes.append(f"{self._flag} names no path")
        lost = [line for number, line in enumerate(self._lines) if number not in self._matched and line[0] != "#"]
        lost = [line for line in lost if not is_known(line)]
        if lost:
            which = "1 path" if len(lost) == 1 else f"{len(lost):,} paths"
            notes.append(f"{which} of {self._flag} {'matches' if len(lost) == 1 else 'match'} no file, e.g. {lost[0]}")
        return notes

    def _forms(self, line: str) -> Iterator[str]:
        """Yield the forms in which a file of the source may have the path of a line."""
        for written in dict.fromkeys((line, line.strip(), line.strip().replace("\\", "/"))):
            yield _plain(written)
            if self._folder and (os.path.isabs(written) or not os.path.lexists(os.path.join(self._folder, written))):
                inside = os.path.relpath(written, self._folder)
                if inside.startswith(".."):  # one of both may lead through a symbolic link
                    folder, name = os.path.split(written)
                    real = os.path.join(os.path.realpath(folder), name)
                    inside = os.path.relpath(real, os.path.realpath(self._folder))
                if not inside.startswith(".."):
                    yield _plain(inside)

    def _lines_about(self, path: str) -> Iterator[int]:
        """Yield the lines that name a file, its path without the suffix, or a folder that it is in."""
        path = _plain(printable(path))
        ends = [at for at, character in enumerate(path) if character == "/" and at]
        stem = os.path.splitext(path)[0]
        names = [path, *([stem] if is_image(path) and not is_image(stem) else ()), *(path[:end] for end in ends)]
        yield from (self._line_of[name] for name in names if name in self._line_of)


def _plain(path: str) -> str:
    """Return a path in the one form in which paths are compared."""
    plain = "/".join(part for part in path.split("/") if part not in ("", "."))
    plain = f"/{plain}" if path.startswith("/") else plain
    return plain if plain.isascii() else unicodedata.normalize("NFC", plain)


@dataclasses.dataclass(frozen=True)
class _List:
    """The paths of a list, and how many of its rows are about files that are not left out."""

    paths: list[str]
    num_kept: int = 0


def _read(flag: str, file: Path) -> _List:
    """Return the paths of a list of any form."""
    try:
        data = file.read_bytes()
        encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
        text = printable(data.decode(encoding, errors="surrogateescape" if encoding != "utf-16" else "strict"))
    except OSError as error:
        raise UsageError(f"{flag} cannot be read: {error.strerror or error}. Name a list of paths.") from None
    except UnicodeDecodeError:
        raise UsageError(f"{flag} is no text. Write one path per line, in UTF-8.") from None
    suffix = file.suffix.lower()
    if suffix == ".json" or suffix in _LINES:
        return _of_json(flag, text, suffix in _LINES)
    if "\0" in text:
        raise UsageError(f"{flag} is no text. Write one path per line, in UTF-8.")
    return _of_text(flag, text)


def _of_text(flag: str, text: str) -> _List:
    """Return the paths of a CSV file with a known header, or else the lines."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    for delimiter in ",;\t":
        header = [cell.strip().lower() for cell in next(csv.reader([first], delimiter=delimiter), [])]
        if any(name in header for name in _PATH_COLUMNS):
            reader = csv.reader(io.StringIO(text.lstrip(), newline=""), delimiter=delimiter)
            try:
                rows = [dict(zip(header, cells, strict=False)) for cells in reader][1:]
            except csv.Error as error:
                raise UsageError(f"{flag}: line {reader.line_num}: {error}. Save it as CSV in UTF-8.") from None
            return _of_rows(rows)
    return _List(text.split("\n") if "\r" not in text else text.splitlines())


def _of_json(flag: str, text: str, is_lines: bool) -> _List:
    """Return the paths of JSON values: a list, a plan, or an object with a list under a known name."""
    try:
        values = [json.loads(line) for line in text.splitlines() if line.strip()] if is_lines else json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{flag} is not valid JSON: {error}. Write it again, or give one path per line.") from None
    if is_lines and isinstance(values[0] if values else None, dict) and set(values[0]) == {"format"}:
        del values[0]  # the header of decisions.jsonl
    if isinstance(values, dict) and isinstance(values.get("groups"), list):
        removed = [group.get("remove", []) for group in values["groups"] if isinstance(group, dict)]
        values = [one for group in removed for one in group] if all(isinstance(one, list) for one in removed) else None
    elif isinstance(values, dict):
        values = next((values[name] for name in _LISTS if isinstance(values.get(name), list)), None)
    if isinstance(values, list) and values and all(isinstance(one, dict) and "images" in one for one in values):
        return _of_events(values)
    if not isinstance(values, list) or not all(isinstance(one, str | dict) for one in values):
        raise UsageError(f'{flag} has no list of paths: it should be ["cat/1.jpg"] or [{{"path": "cat/1.jpg"}}].')
    if values and not any(isinstance(one, str) or set(one) & set(_PATH_COLUMNS) for one in values):
        raise UsageError(f'{flag}: its objects have no `path`. Name the paths, such as {{"path": "cat/1.jpg"}}.')
    return _of_rows([{"path": one} if isinstance(one, str) else one for one in values])


def _of_rows(rows: Sequence[Mapping[str, Any]]) -> _List:
    """Return the paths of rows; if somebody decided about some of them, of those that are to be dropped."""
    decided = [str(row.get("decision") or "").strip().lower() for row in rows]
    is_decided = any(decided)
    paths, num_kept = [], 0
    for row, decision in zip(rows, decided, strict=True):
        path = next((str(row[name] or "") for name in _PATH_COLUMNS if name in row), "")
        if path and is_decided and decision != DROP:
            num_kept += 1
        elif path:
            paths.append(path)
    return _List(paths, num_kept)


def _of_events(events: Sequence[Mapping[str, Any]]) -> _List:
    """Return the images to be dropped by decisions in the order in which they were made; an image may have several
    findings, and is dropped for one of them.
    """
    last: dict[tuple[str, str], str] = {}
    for event in events:
        finding = event.get("finding")
        about = json.dumps([finding.get(name) or "" for name in _FINDING] if isinstance(finding, dict) else finding)
        for image in event["images"] if isinstance(event["images"], list) else ():
            if isinstance(image, dict) and isinstance(image.get("path"), str):
                last[image["path"], about] = str(event.get("decision"))
    dropped = {path for (path, _), decision in last.items() if decision == DROP}
    return _List(sorted(dropped), len({path for path, _ in last} - dropped))
