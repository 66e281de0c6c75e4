"""The labels and features in the cells of a table: several labels, numbers, and columns of any type.

    cat;dog    cat|dog    cat,dog    cat dog    ["cat", "dog"]    several labels in a cell
    3    -1.5    "a text"    [1, 2, 3]    1;2;3                   features; a list has numbers or texts

A column has one separator: the first of `|`, `;` and `,` that is in any cell, or a space if there are no more words
than cells that differ. The type of a feature is that of all its cells, unless it is given, as in `zip:text`.
"""

from __future__ import annotations

import ast
import dataclasses
import json
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tfrecords.base_errors import UsageError
from tfrecords.convert.sources.label_columns import is_missing
from tfrecords.convert.sources.labels import NO_LABEL, label_order, some_of
from tfrecords.convert.sources.row_values import UNLABELED, RowValues
from tfrecords.convert.sources.source import Source
from tfrecords.convert.sources.table_columns import Columns, zero_or_one
from tfrecords.convert.sources.table_rows import cell_text
from tfrecords.format.schema import DTYPES, RESERVED, SCALAR, VARIABLE, FeatureSpec

_SEPARATORS = "|;,"
_INTEGER = re.compile(r"[+-]?(0|[1-9][0-9]*)")  # "007" is a text: as a number it would lose its zeros
_MAX_INT64 = (1 << 63) - 1


class TableValues:
    """Collects the cells of a table's files, and turns them into values when all are known."""

    def __init__(self, table: str, columns: Columns) -> None:
        self._table = table
        self._columns = columns
        self._labels: list[list[Any]] = []  # cells of each file
        self._cells: list[Sequence[Any]] = []
        self._numbers: list[int] = []  # of the rows

    def add(self, number: int, labels: Sequence[Any], features: Sequence[Any]) -> None:
        """Add the cells of the next file."""
        self._labels.append(list(labels))
        self._cells.append(features)
        self._numbers.append(number)

    def again(self, id: int, number: int, labels: Sequence[Any], features: Sequence[Any]) -> None:
        """Add a further row of a file: labels of several rows add up.

        Raises:
            UsageError: the row contradicts the earlier one.
        """
        is_multi = self._columns.label_type == "multi" and not self._columns.classes
        same = list(map(cell_text, self._labels[id])) == list(map(cell_text, labels))
        if (not is_multi and not same) or repr(self._cells[id]) != repr(features):
            raise UsageError(
                f"--table={self._table}: rows {self._numbers[id]} and {number} have one file and different values. "
                "Keep one."
            )
        if is_multi:
            self._labels[id] += labels

    def classes(self, categories: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
        """Return a class for each file, "" for one that cannot be used, and the names of all classes.

        The class of a file with several labels is the first one, and that of one without any is the first of all.
        """
        columns, names = self._columns, self._columns.class_names
        if columns.label_type == "none":
            return [UNLABELED] * len(self._labels), (UNLABELED,)
        if columns.label_type == "float":
            self._parsed: list[Any] = [self._targets(id, cells) for id, cells in enumerate(self._labels)]
            return [names[0] if targets else "" for targets in self._parsed], tuple(names)
        if columns.classes:
            self._check_signs()
            self._parsed = [self._hot(id, cells) for id, cells in enumerate(self._labels)]
        else:
            split = self._splitter()
            self._parsed = [[name for cell in cells for name in split(cell) if name] for cells in self._labels]
            names = tuple(label_order({name for parts in self._parsed for name in parts}))
        if not names:
            raise UsageError(f"--table={self._table} has no label in any row. Give --label_type=none to store none.")
        number = {name: label for label, name in enumerate(categories or names)}
        first = []
        for parts in self._parsed:
            known = [name for name in parts if name in number]
            first.append(min(known, key=number.__getitem__) if known else parts[0] if parts else "")
        return first, names

    def of(self, source: Source, rows: Sequence[int]) -> Source:
        """Return the source with its values; its file i is `rows[i]` of those that were added."""
        columns = self._columns
        labels: list[tuple[Any, ...]] = [()] * len(rows)
        classes, refused, class_names = source.labels, source.refused, source.class_names
        if columns.label_type == "float":
            labels = [tuple(self._parsed[row]) for row in rows]
            width = len(columns.labels)
            labels = [targets or (math.nan,) * width for targets in labels]  # of a file that is rejected
            classes = np.zeros(len(rows), np.int32)
        elif columns.label_type == "multi":
            number = {name: label for label, name in enumerate(class_names)}
            labels = [tuple(sorted({number[name] for name in self._parsed[row] if name in number})) for row in rows]
            classes = np.array([several[0] if several else -1 for several in labels], np.int32)
            refused = {id: why for id, why in refused.items() if why is not NO_LABEL}
        typed = sorted((self._typed(at, rows) for at in range(len(columns.features))), key=lambda pair: pair[0].name)
        features = tuple(spec for spec, _ in typed)
        lists = [values for _, values in typed]
        values = list(zip(*lists, strict=True)) if lists else [()] * len(rows)
        form = source.form
        if columns.label_type != "single":
            form += self._label_form(class_names, labels)
        if features:
            form += f"; features {some_of(list(map(str, features)))}"
        return dataclasses.replace(
            source,
            labels=classes,
            refused=refused,
            form=form,
            values=RowValues(label_type=columns.label_type, labels=labels, features=features, values=values),
        )

    def _label_form(self, class_names: Sequence[str], labels: Sequence[Sequence[Any]]) -> str:
        if self._columns.label_type != "multi":
            return ""
        counts = [len(several) for several in labels]
        text = f"; {len(class_names):,} labels ({some_of(class_names[:3])}{', …' if len(class_names) > 3 else ''})"
        if not self._columns.classes:
            text += self._separator_text
        none = f", {counts.count(0):,} without any" if 0 in counts else ""
        return f"{text}, up to {max(counts, default=0)} per image{none}"

    def _splitter(self) -> Any:
        """Return the function that divides a cell into labels."""
        texts = [cell for cells in self._labels for cell in cells if isinstance(cell, str) and not _is_list(cell)]
        separator = separator_of(texts)
        self._separator_text = {"": "", " ": ", separated by spaces"}.get(separator, f", separated by {separator}")
        table = self._table

        def split(cell: Any) -> Iterable[str]:
            if isinstance(cell, list | tuple):
                return [cell_text(one).strip() for one in cell]
            text = cell_text(cell).strip()
            if _is_list(text):
                found = _parsed_list(text)
                if found is None:
                    raise UsageError(f"--table={table}: the labels {text[:80]} are not a JSON list. Mend them.")
                return [cell_text(one).strip() for one in found]
            return [part.strip() for part in (text.split(separator) if separator else [text])]

        return split

    def _check_signs(self) -> None:
        """Raise UsageError if -1 stands beside 0 and 1: in some datasets, it then means that a label is uncertain."""
        texts = {cell_text(cell).strip().removesuffix(".0") for cells in self._labels for cell in cells}
        if {"-1", "0"} <= texts:
            raise UsageError(
                f"--table={self._table}: the columns of labels have -1, 0 and 1, so -1 may mean uncertain. Replace it "
                "by 0 or 1."
            )

    def _hot(self, id: int, cells: Sequence[Any]) -> list[str]:
        names = []
        for name, cell in zip(self._columns.class_names, cells, strict=True):
            value = zero_or_one(cell_text(cell), signed=True)
            if value is None:
                raise UsageError(
                    f"--table={self._table}: row {self._numbers[id]} has {cell_text(cell)!r} in the column {name!r} of "
                    "a label, not 0 or 1. If another column has the labels, give --label_column=NAME."
                )
            if value:
                names.append(name)
        return names

    def _targets(self, id: int, cells: Sequence[Any]) -> list[float]:
        """Return the numbers of a file, none if one is missing."""
        found = []
        for name, cell in zip(self._columns.class_names, cells, strict=True):
            text = cell_text(cell).strip()
            try:
                value = math.nan if is_missing(text) else float(text)
                if not math.isfinite(value) and not is_missing(text):
                    raise ValueError
                found.append(_float32(value))
            except (ValueError, OverflowError):
                raise UsageError(
                    f"--table={self._table}: row {self._numbers[id]} has {text[:80]!r} in the column {name!r}, not a "
                    "number that a float32 can hold. Mend it, or name the columns of the numbers: --label_column=NAME."
                ) from None
        return [] if any(map(math.isnan, found)) else found

    def _typed(self, at: int, rows: Sequence[int]) -> tuple[FeatureSpec, list[Any]]:
        """Return a feature and its values."""
        name, given = self._columns.feature_names[at]
        column = [_cell(self._cells[row][at]) for row in rows]
        if given not in ("bytes", "text"):
            column = _as_lists(column)
        is_list = any(isinstance(cell, list) for cell in column)
        flat = [one for cell in column for one in (cell if isinstance(cell, list) else [cell])]
        dtype = given or _dtype_of(flat)
        lengths = {len(cell) if isinstance(cell, list) else 1 for cell in column} if is_list else set()
        length = SCALAR if not is_list else lengths.pop() if len(lengths) == 1 else VARIABLE
        if is_list and length == 0:
            length = VARIABLE
        values = []
        for row, cell in zip(rows, column, strict=True):
            try:
                several = [_value(one, dtype) for one in (cell if isinstance(cell, list) else [cell])]
            except (ValueError, OverflowError, TypeError):
                first = next((one for one in (cell if isinstance(cell, list) else [cell]) if _fails(one, dtype)), cell)
                what = f"{str(first)[:80]!r}" if first not in (None, "") else "no value"
                other = "float32, which stores NaN" if first in (None, "") else "text"
                raise UsageError(
                    f"--table={self._table}: row {self._numbers[row]} has {what} in the column {name!r}, which is "
                    f"{dtype}. Mend it, or give --features={name}:{other}."
                ) from None
            values.append(several if is_list else several[0])
        return FeatureSpec(name=name, dtype=dtype, length=length), values


def feature_names(given: Sequence[str], names: Sequence[str], table: str) -> list[tuple[str, str]]:
    """Return the name and the type, "" for that of the cells, of each feature in `--features`.

    Raises:
        UsageError: a name cannot be that of a feature, or is there twice.
    """
    found: list[tuple[str, str]] = []
    for text in given:
        name, colon, dtype = text.rpartition(":")
        if text in names or not colon:
            name, dtype = text, ""
        if dtype and dtype not in DTYPES:
            raise UsageError(f"--features={text}: the type should be one of {', '.join(DTYPES)}.")
        if name in RESERVED or "/" in name or not name.strip():
            raise UsageError(
                f"--features={text}: a feature should not be named {name!r}. Rename the column in --table={table}."
            )
        if any(name == other for other, _ in found):
            raise UsageError(f"--features has {name!r} twice. Keep one.")
        found.append((name, dtype))
    return found


def separator_of(texts: Sequence[str]) -> str:
    """Return what separates the parts of the cells of a column, "" if each cell is one part."""
    for separator in _SEPARATORS:
        if any(separator in text for text in texts):
            return separator
    cells = {text.strip() for text in texts}
    words = {word for text in cells for word in text.split()}
    has_spaces = any(" " in text for text in cells)
    return " " if has_spaces and len(words) <= len(cells - {""}) else ""


def _cell(value: Any) -> Any:
    """Return a cell without what stands for a missing value, as plain values of Python."""
    if isinstance(value, list | tuple):
        return [_cell(one) for one in value]
    if isinstance(value, bool):
        return int(value)
    return "" if value is None or value != value else value


def _as_lists(column: list[Any]) -> list[Any]:
    """Return the cells of a column with lists in it as lists: JSON, or numbers with one separator."""
    if any(isinstance(cell, list) for cell in column):
        return [[] if isinstance(cell, str) and not cell else cell for cell in column]
    texts = [cell.strip() for cell in column if isinstance(cell, str)]
    if len(texts) < len(column) or not any(texts):
        return column
    if all(_is_list(text) and _parsed_list(text) is not None for text in texts if text):
        return [_parsed_list(text) or [] for text in texts]
    separator = next((one for one in ("|", ";", None) if any(len(text.split(one)) > 1 for text in texts)), None)
    parts = [text.split(separator) for text in texts]
    if max(map(len, parts)) > 1 and all(_is_number(part.strip()) for several in parts for part in several if part):
        return [[part.strip() for part in several if part.strip()] for several in parts]
    return column


def _is_list(text: str) -> bool:
    return text.startswith("[") and text.endswith("]")


def _parsed_list(text: str) -> list[Any] | None:
    """Return the list in a text as JSON or Python write it, None if it is none of plain values."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        try:
            found = ast.literal_eval(text)  # as pandas writes lists
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            return None
    plain = isinstance(found, list) and all(isinstance(one, str | int | float) for one in found)
    return [_cell(one) for one in found] if plain else None


def _dtype_of(values: Sequence[Any]) -> str:
    """Return the type that holds all values."""
    if any(isinstance(value, bytes) for value in values):
        return "bytes"
    there = [value for value in values if value != ""]
    if not there:
        return "text"
    if all(_is_integer(value) for value in there):
        return "int64"
    return "float32" if all(_is_number(value) for value in there) else "text"


def _is_integer(value: Any) -> bool:
    is_whole = isinstance(value, int) or (isinstance(value, str) and bool(_INTEGER.fullmatch(value.strip())))
    return is_whole and abs(int(value)) <= _MAX_INT64


def _is_number(value: Any) -> bool:
    if isinstance(value, int | float):
        return True
    text = value.strip() if isinstance(value, str) else ""
    if re.fullmatch(r"[+-]?0[0-9]+", text) or "_" in text:
        return False
    try:
        float(text)
    except ValueError:
        return False
    return True


def _value(value: Any, dtype: str) -> Any:
    """Return a value as one of `dtype`; raise ValueError, TypeError or OverflowError if it is none."""
    if dtype == "int64":
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not _is_integer(value):
            raise ValueError
        return int(value)
    if dtype == "float32":
        return _float32(math.nan if value == "" else float(value))
    if dtype == "bytes":
        return value if isinstance(value, bytes) else cell_text(value).encode(errors="surrogateescape")
    text = value.decode() if isinstance(value, bytes) else cell_text(value)
    text.encode()  # no surrogates, which stand for bytes that are not UTF-8
    return text


def _float32(value: float) -> float:
    """Return the nearest float32; raise OverflowError if a finite number becomes infinite."""
    with np.errstate(over="ignore"):
        stored = float(np.float32(value))
    if math.isinf(stored) and not math.isinf(value):
        raise OverflowError
    return stored


def _fails(value: Any, dtype: str) -> bool:
    try:
        _value(value, dtype)
    except (ValueError, OverflowError, TypeError):
        return True
    return False
