"""The labels in the cells of a table: several per image, or numbers. `table_cells` has the further columns.

    cat;dog    cat|dog    cat,dog    cat dog    ["cat", "dog"]    several labels in a cell

A column has one separator: the first of `|`, `;` and `,` that is in any cell, or a space if there are no more words
than cells that differ.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tfrecords.base_errors import UsageError
from tfrecords.convert.sources.labels import NO_LABEL, label_order, some_of
from tfrecords.convert.sources.row_values import UNLABELED, RowValues
from tfrecords.convert.sources.source import Source
from tfrecords.convert.sources.table_cells import (
    SURROGATES,
    as_float32,
    as_lists,
    cell_text,
    changed_by_float32,
    is_list,
    is_missing,
    is_number,
    parsed_list,
    plain_cell,
    rounding_notes,
    typed_feature,
    without_points,
)
from tfrecords.convert.sources.table_columns import Columns, zero_or_one

_SEPARATORS = "|;,"


class TableValues:
    """Collects the cells of a table's files, and turns them into values when all are known."""

    def __init__(self, table: str, columns: Columns) -> None:
        self._table = table
        self._columns = columns
        self._labels: list[list[Any]] = []  # cells of each file
        self._cells: list[Sequence[Any]] = []
        self._numbers: list[int] = []  # of the rows
        self._parsed: list[Any] = []  # the labels of each file, when all are known
        self._targets = columns.class_names  # the names of the numbers
        self._separator = ""
        self._notes: list[str] = []

    def add(self, number: int, labels: Sequence[Any], features: Sequence[Any]) -> None:
        """Add the cells of the next file."""
        self._labels.append(list(labels))
        self._cells.append(features)
        self._numbers.append(number)

    def again(self, id: int, path: str, number: int, labels: Sequence[Any], features: Sequence[Any]) -> None:
        """Add a further row of a file: labels of several rows add up.

        Raises:
            UsageError: the row contradicts the earlier one.
        """
        is_multi = self._columns.label_type == "multi" and not self._columns.classes
        same = list(map(cell_text, self._labels[id])) == list(map(cell_text, labels))
        if (not is_multi and not same) or repr(self._cells[id]) != repr(features):
            raise UsageError(
                f"--table={self._table}: rows {self._numbers[id]} and {number} have one file and different values: "
                f"{path}. Keep one."
            )
        if is_multi:
            self._labels[id] += labels

    def classes(self, categories: Sequence[str], taken: Sequence[int]) -> tuple[list[str], tuple[str, ...]]:
        """Return a class for each file, "" for one that cannot be used, and the names of all classes.

        The class of a file with several labels is the first one, and that of one without any is the first of all. The
        labels that occur are those of the files `taken`.
        """
        columns, names = self._columns, self._columns.class_names
        if columns.label_type == "none":
            return [UNLABELED] * len(self._labels), (UNLABELED,)
        if columns.label_type == "float":
            self._read_numbers()
            return [self._targets[0] if targets else "" for targets in self._parsed], self._targets
        if columns.classes:
            self._check_signs()
            self._parsed = [self._hot(id, cells) for id, cells in enumerate(self._labels)]
            there = set(names)
        else:
            split = self._splitter()
            self._parsed = [[name for cell in cells for name in split(cell) if name] for cells in self._labels]
            found = list({name for parts in self._parsed for name in parts})
            plain = dict(zip(found, without_points(found), strict=True))
            self._parsed = [[plain[name] for name in parts] for parts in self._parsed]
            there = {name for id in taken for name in self._parsed[id]}
            names = tuple(label_order(there))
        self._check_names(there)
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
            width = len(self._targets)
            labels = [targets or (math.nan,) * width for targets in labels]  # of a file that is rejected
            classes = np.zeros(len(rows), np.int32)
        elif columns.label_type == "multi":
            number = {name: label for label, name in enumerate(class_names)}
            labels = [tuple(sorted({number[name] for name in self._parsed[row] if name in number})) for row in rows]
            classes = np.array([several[0] if several else -1 for several in labels], np.int32)
            refused = {id: why for id, why in refused.items() if why is not NO_LABEL}
        numbers = [self._numbers[row] for row in rows]
        typed = [
            typed_feature([self._cells[row][at] for row in rows], name, dtype, self._table, numbers)
            for at, (name, dtype) in sorted(enumerate(columns.feature_names), key=lambda pair: pair[1])
        ]
        features = tuple(spec for spec, _, _ in typed)
        lists = [values for _, values, _ in typed]
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
            notes=(*source.notes, *self._notes, *(note for _, _, notes in typed for note in notes)),
            values=RowValues(label_type=columns.label_type, labels=labels, features=features, values=values),
        )

    def _label_form(self, class_names: Sequence[str], labels: Sequence[Sequence[Any]]) -> str:
        if self._columns.label_type == "float" and len(self._targets) > len(self._columns.labels):
            return f", {len(self._targets)} per image"
        if self._columns.label_type != "multi":
            return ""
        counts = [len(several) for several in labels]
        what = "label" if len(class_names) == 1 else "labels"
        text = f"; {len(class_names):,} {what} ({some_of(class_names[:3])}{', …' if len(class_names) > 3 else ''})"
        if not self._columns.classes:
            text += self._separator_text
        none = f", {counts.count(0):,} without any" if 0 in counts else ""
        return f"{text}, up to {max(counts, default=0)} per image{none}"

    def _splitter(self) -> Any:
        """Return the function that divides a cell into labels."""
        texts = [cell for cells in self._labels for cell in cells if isinstance(cell, str) and not is_list(cell)]
        self._separator = separator = separator_of(texts)
        self._separator_text = {"": "", " ": ", separated by spaces"}.get(separator, f", separated by {separator}")
        table = self._table

        def split(cell: Any) -> Iterable[str]:
            if isinstance(cell, list | tuple):
                return [cell_text(one).strip() for one in cell]
            text = cell_text(cell).strip()
            if is_list(text):
                found = parsed_list(text)
                if found is None:
                    raise UsageError(f"--table={table}: the labels {text[:80]} are not a JSON list. Mend them.")
                return [cell_text(one).strip() for one in found]
            return [part.strip() for part in (text.split(separator) if separator else [text])]

        return split

    def _check_names(self, names: Iterable[str]) -> None:
        """Raise UsageError for a label that is not UTF-8; note those that may be several, or none."""
        for name in names:
            if not name.isascii() and SURROGATES.search(name):
                row = next((self._numbers[id] for id, parts in enumerate(self._parsed) if name in parts), 1)
                raise UsageError(f"--table={self._table}: a label in row {row} is not UTF-8. Save the table as UTF-8.")
        other = set(_SEPARATORS) - {self._separator}
        mixed = sorted(name for name in names if self._separator.strip() and other & set(name))
        if mixed:
            count = f"{len(mixed):,} label has" if len(mixed) == 1 else f"{len(mixed):,} labels have"
            self._notes.append(
                f"{count} another separator than {self._separator} inside, e.g. {mixed[0]!r}; if it separates labels, "
                "write the same one in all rows"
            )

    def _check_signs(self) -> None:
        """Raise UsageError if -1 stands beside 0 and 1: in some datasets, it then means that a label is uncertain."""
        texts = {cell_text(cell).strip().removesuffix(".0") for cells in self._labels for cell in cells}
        if "-1" in texts and texts & {"0", ""}:
            what = "-1, 0 and 1" if "0" in texts else "-1, 1 and empty cells"
            raise UsageError(
                f"--table={self._table}: the columns of labels have {what}, so -1 may mean uncertain. Replace it "
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

    def _read_numbers(self) -> None:
        """Turn the cells into numbers; a single column may have lists of them."""
        if len(self._columns.labels) == 1:
            cells = as_lists([plain_cell(several[0]) for several in self._labels])
            if any(isinstance(cell, list) for cell in cells):
                self._labels = [cell if isinstance(cell, list) else [cell] for cell in cells]
                width = len(next((cell for cell in self._labels if any(map(is_number, cell))), ()))
                name = self._targets[0]
                self._targets = tuple(f"{name}_{number}" for number in range(1, width + 1)) if width > 1 else (name,)
        rounded: list[tuple[str, float]] = []
        self._parsed = [self._numbers_of(id, cells, rounded) for id, cells in enumerate(self._labels)]
        self._notes += rounding_notes(rounded, "the column of numbers" if len(self._targets) == 1 else "a label")

    def _numbers_of(self, id: int, cells: Sequence[Any], rounded: list[tuple[str, float]]) -> list[float]:
        """Return the numbers of a file, none if one is missing."""
        if len(cells) != len(self._targets):
            if all(is_missing(cell_text(cell)) for cell in cells):
                return []
            raise UsageError(
                f"--table={self._table}: row {self._numbers[id]} has {len(cells)} numbers as labels, others "
                f"{len(self._targets)}. All images need the same number of them."
            )
        found = []
        for name, cell in zip(self._targets, cells, strict=True):
            text = cell_text(int(cell) if isinstance(cell, bool) else cell).strip()
            try:
                value = math.nan if is_missing(text) else float(text)
                if not is_missing(text) and not (math.isfinite(value) and is_number(text)):
                    raise ValueError
                found.append(as_float32(value))
            except (ValueError, OverflowError):
                raise UsageError(
                    f"--table={self._table}: row {self._numbers[id]} has {text[:80]!r} in the column {name!r}, not a "
                    "number that a float32 can hold. Mend it, or name the columns of the numbers: --label_column=NAME."
                ) from None
            if changed := changed_by_float32(text, found[-1]):
                rounded.append((changed, found[-1]))
        return [] if any(map(math.isnan, found)) else found


def separator_of(texts: Sequence[str]) -> str:
    """Return what separates the parts of the cells of a column, "" if each cell is one part."""
    for separator in _SEPARATORS:
        if any(separator in text for text in texts):
            return separator
    cells = {text.strip() for text in texts}
    words = {word for text in cells for word in text.split()}
    has_spaces = any(" " in text for text in cells)
    return " " if has_spaces and len(words) <= len(cells - {""}) else ""
