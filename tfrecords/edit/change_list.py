"""Lists of changes: CSV files that name the examples to delete, or their new labels.

    id,reason            ids or paths as in manifest.parquet; the reason may be left out
    17,blurred

    path,label           the new label: the name of a class, or the number of one
    cat/1.jpg,dog

A list of deletions without a header has one id or path per line, and one of labels has two columns. Every line that
names no example is reported, not only the first one.
"""

from __future__ import annotations

import csv
import dataclasses
import difflib
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from tfrecords.base_errors import UsageError
from tfrecords.convert.sources import printable
from tfrecords.format.manifest import Manifest

_MAX_NAMED = 10  # faulty lines
_DELIMITERS = ",;\t"
_NAMES = {
    "id": ("id", "ids"),
    "path": ("path", "file", "filename", "file_name", "filepath", "file_path", "paths", "image"),
    "label": ("label", "class", "class_name", "category"),
    "reason": ("reason", "comment", "note", "why"),
}


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Changes:
    """The examples that a list names, each once, and what it says about them.

    Attributes:
        rows: int64 [n], rows of the manifest, ascending.
        labels: int32 [n], the new labels; -1 in a list of deletions.
        reasons: the reason of each change, "" where the list gives none.
    """

    rows: np.ndarray
    labels: np.ndarray
    reasons: list[str]


@dataclasses.dataclass(frozen=True, slots=True)
class _Line:
    """A line of a list: its number, and its cells by the kind of column."""

    number: int
    cells: Mapping[str, str]

    def __str__(self) -> str:
        cells = self.cells
        return f"line {self.number}: id {cells['id']}" if cells.get("id") else f"line {self.number}: {cells['path']!r}"


def read_deletions(file: Path, manifest: Manifest) -> Changes:
    """Return the examples to delete; raise UsageError if the file cannot be read or names others."""
    return _read("--delete", file, manifest, None)


def read_labels(file: Path, manifest: Manifest, class_names: Sequence[str]) -> Changes:
    """Return the examples to label anew; raise UsageError as `read_deletions`, and for classes not in `class_names`."""
    return _read("--relabel", file, manifest, class_names)


def _read(flag: str, file: Path, manifest: Manifest, class_names: Sequence[str] | None) -> Changes:
    where = f"{flag}={file}"
    index_of_id = {id: row for row, id in enumerate(manifest.ids.tolist())}
    index_of_path = {path: row for row, path in enumerate(manifest.paths)}
    number_of = None if class_names is None else {name: label for label, name in enumerate(class_names)}
    found: dict[int, tuple[int, str, _Line]] = {}
    faults: list[str] = []
    for line in _lines(where, file, index_of_path, labels=number_of is not None):
        row, fault = _row_of(line.cells, index_of_id, index_of_path, manifest)
        label = -1
        if not fault and number_of is not None and class_names is not None:
            label, fault = _label_of(line.cells.get("label", ""), number_of, class_names)
        if not fault and row in found and found[row][0] != label:
            fault = f"has another label than in line {found[row][2].number}"
        if fault:
            faults.append(f"{line} {fault}")
        else:
            found.setdefault(row, (label, line.cells.get("reason", "").strip(), line))
    if faults:
        more = f"; and {len(faults) - _MAX_NAMED:,} more" if len(faults) > _MAX_NAMED else ""
        raise UsageError(f"{where}: {'; '.join(faults[:_MAX_NAMED])}{more}. Nothing was changed. Correct the list.")
    if not found:
        raise UsageError(f"{where} names no example. Give one id or path per line.")
    rows = sorted(found)
    return Changes(
        rows=np.array(rows, np.int64),
        labels=np.array([found[row][0] for row in rows], np.int32),
        reasons=[found[row][1] for row in rows],
    )


def _row_of(
    cells: Mapping[str, str], index_of_id: Mapping[int, int], index_of_path: Mapping[str, int], manifest: Manifest
) -> tuple[int, str]:
    """Return the row of the manifest that a line names, and what is wrong with it, "" if nothing is."""
    id, path = cells.get("id", ""), cells.get("path", "")
    row: int | None = None
    if id:
        row = index_of_id.get(int(id)) if id.isascii() and id.isdecimal() and len(id) < 20 else None
        if row is not None and path and _path_row(path, index_of_path) != row:
            return -1, f"is {manifest.paths[row]}, not {path}"
    elif path:
        row = _path_row(path, index_of_path)
    if row is None:
        return -1, "is not in the dataset"
    if not manifest.ok[row]:
        return -1, f"is no example: it was rejected ({manifest.reason_names[manifest.reasons[row]]})"
    return row, ""


def _path_row(path: str, index_of_path: Mapping[str, int]) -> int | None:
    spellings = (path, path.removeprefix("./"), path.replace("\\", "/").removeprefix("./"))
    return next((index_of_path[name] for name in spellings if name in index_of_path), None)


def _label_of(text: str, number_of: Mapping[str, int], class_names: Sequence[str]) -> tuple[int, str]:
    """Return the label for the name or the number of a class, and what is wrong with it, "" if nothing is."""
    name = text if text in number_of else text.strip()
    if name in number_of:
        return number_of[name], ""
    if not name:
        return -1, "has no label"
    if name.isascii() and name.isdecimal() and int(name[:9]) < len(class_names) and len(name) < 9:
        return int(name), ""
    near = difflib.get_close_matches(name, class_names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"--add_classes={name} adds it"
    return -1, f"has the label {name!r}, which is no class of the dataset ({hint})"


def _lines(where: str, file: Path, paths: Mapping[str, int], *, labels: bool) -> Iterator[_Line]:
    """Yield the lines of a list; raise UsageError if it cannot be read or lacks a column."""
    try:
        data = file.read_bytes()
        encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
        text = data.decode(encoding, errors="surrogateescape" if encoding != "utf-16" else "strict")
    except OSError as error:
        raise UsageError(f"{where} cannot be read: {error.strerror or error}. Name a CSV file.") from None
    except UnicodeDecodeError:
        raise UsageError(f"{where} is no text. Save it as CSV in UTF-8.") from None
    text = printable(text)
    first = next((line for line in text.splitlines() if line.strip()), "")
    delimiter, columns = max(((mark, _columns(first, mark)) for mark in _DELIMITERS), key=lambda found: len(found[1]))
    if "id" in columns or "path" in columns:
        if labels and "label" not in columns:
            raise UsageError(f"{where} has no column `label`. Its header is: {first.strip()[:200]}.")
        is_header = True
    else:
        is_header = False
        columns = {"first": 0, "label": 1} if labels else {"first": 0}
        delimiter = next((mark for mark in _DELIMITERS if mark in first), ",")
    if not labels and not is_header:  # a path may have a comma
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                yield _Line(number, _named(line if line in paths else line.strip().strip('"'), {}, paths))
        return
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if is_header:
                is_header = False
                continue
            if len(cells) <= max(columns.values()):
                raise UsageError(
                    f"{where}: line {reader.line_num} has {len(cells)} cells instead of at least "
                    f'{max(columns.values()) + 1}. Quote cells that contain the separator: "a, b".'
                )
            values = {name: cells[at] for name, at in columns.items()}
            name = values.pop("first", None)
            if name is not None:
                yield _Line(reader.line_num, _named(name, values, paths))
            else:
                yield _Line(reader.line_num, {**values, "id": values.get("id", "").strip()})
    except csv.Error as error:
        raise UsageError(f"{where}: line {reader.line_num}: {error}. Save it as CSV in UTF-8.") from None


def _columns(header: str, delimiter: str) -> dict[str, int]:
    """Return the place of each known column in a header."""
    cells = [cell.strip().lower() for cell in next(csv.reader([header], delimiter=delimiter), [])]
    return {
        kind: min(cells.index(name) for name in names if name in cells)
        for kind, names in _NAMES.items()
        if set(names) & set(cells)
    }


def _named(text: str, values: Mapping[str, str], paths: Mapping[str, int]) -> dict[str, str]:
    """Return the cells of a line without a header, whose first cell is a path if there is such a file, or else an id if
    it is a number.
    """
    is_path = text in paths or not text.strip().isdecimal()
    return {**values, "path" if is_path else "id": text if is_path else text.strip()}
