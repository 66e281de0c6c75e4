"""The cells of a table as texts, numbers and lists, and the further features that columns of them make.

    3    -1.5    "a text"    [1, 2, 3]    1;2;3    1 2 3    a list has numbers or texts

The type of a feature is that of all its cells, unless it is given, as in `zip:text`. Cells that are empty, or in a
column of numbers have a word such as `NA`, are missing: NaN in a float32, an empty text, an empty list.
"""

from __future__ import annotations

import ast
import json
import math
import os
import re
import sys
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

import numpy as np

from tfrecords.base_errors import UsageError
from tfrecords.convert.sources.source import printable
from tfrecords.convert.sources.table_columns import given_column
from tfrecords.format.schema import DTYPES, RESERVED, SCALAR, VARIABLE, FeatureSpec

MISSING = frozenset(("", "na", "n/a", "nan", "none", "null"))
"""Cells that stand for no number, in lower case."""

SURROGATES = re.compile("[\ud800-\udfff]")
"""What stands for bytes that are not UTF-8."""

_INTEGER = re.compile(r"[+-]?(0|[1-9][0-9]*)")  # "007" is a text: as a number it would lose its zeros
_INT64 = range(-(1 << 63), 1 << 63)
_WHOLE_FLOAT32 = 1 << 24  # up to here, every whole number is a float32


def cell_text(value: Any, keep_point: bool = False) -> str:
    """Return the value of a cell as text; with `keep_point`, that of a float has a point."""
    if isinstance(value, bytes):
        return os.fsdecode(value)
    if value is None or value != value:  # NaN, which pandas writes for missing values
        return ""
    # In pandas, a column of integers with a missing value becomes floats.
    if isinstance(value, float) and value.is_integer():
        return f"{int(value)}.0" if keep_point else str(int(value))
    return str(value)


def without_points(labels: list[str]) -> list[str]:
    """Return the labels as whole numbers if all of them, apart from missing ones, are written like 1.0.

    So do MXNet's lists, and pandas a column of whole numbers of which one is missing.
    """
    if not all(re.fullmatch(r"-?[0-9]+\.0+", label) for label in set(labels) - {""}):
        return labels
    return [sys.intern(label.partition(".")[0]) for label in labels]


def given_features(given: Sequence[str], names: Sequence[str], table: str) -> list[tuple[int, str, str]]:
    """Return the column, the name, and the type, "" for that of the cells, of each feature in `--features`.

    Raises:
        UsageError: there is no such column, its name cannot be that of a feature, or it is there twice.
    """
    found: list[tuple[int, str, str]] = []
    for text in given:
        column, colon, dtype = text.rpartition(":")
        if text in names or not colon:
            column, dtype = text, ""
        if dtype and dtype not in DTYPES:
            raise UsageError(f"--features={text}: the type should be one of {', '.join(DTYPES)}.")
        if not column.strip():
            raise UsageError(f"--features={text}: the name of a column is missing.")
        at = given_column(column, names, "--features", table)
        assert at is not None
        name = names[at]
        if name in RESERVED or "/" in name or not name or SURROGATES.search(name):
            raise UsageError(
                f"--features={text}: a feature should not be named {printable(name)!r}. Rename the column in "
                f"--table={table}."
            )
        if any(name == other for _, other, _ in found):
            raise UsageError(f"--features has {name!r} twice. Keep one.")
        found.append((at, name, dtype))
    return found


def typed_feature(
    column: Sequence[Any], name: str, dtype: str, table: str, numbers: Sequence[int]
) -> tuple[FeatureSpec, list[Any], list[str]]:
    """Return a feature, its values, and notes for the user.

    Args:
        column: the cells of all files.
        name: that of the column.
        dtype: as the user gives it, "" for that of the cells.
        table: its name in errors.
        numbers: of the rows, for errors.

    Raises:
        UsageError: a cell has another type.
    """
    cells = list(map(plain_cell, column))
    if dtype not in ("bytes", "text"):
        cells = as_lists(cells)
    is_list = any(isinstance(cell, list) for cell in cells)
    lengths = {len(_several(cell)) for cell in cells} if is_list else set()
    length = SCALAR if not is_list else max(lengths) if len(lengths) == 1 and max(lengths) else VARIABLE
    dtype = dtype or _dtype_of([one for cell in cells for one in _several(cell)])
    values: list[Any] = []
    rounded: list[tuple[Any, float]] = []
    for number, cell in zip(numbers, cells, strict=True):
        several = []
        for one in _several(cell):
            try:
                several.append(_value(one, dtype))
            except (ValueError, OverflowError, TypeError):
                raise _bad_cell(one, name, dtype, table, number) from None
            if dtype == "float32" and (text := changed_by_float32(one, several[-1])):
                rounded.append((text, several[-1]))
        values.append(several if is_list else several[0])
    notes = rounding_notes(rounded, f"the feature {name!r}", f"; --features={name}:text stores them as they are")
    return FeatureSpec(name=name, dtype=dtype, length=length), values, notes


def plain_cell(value: Any) -> Any:
    """Return a cell as plain values of Python; what stands for a missing value in parquet becomes ""."""
    if isinstance(value, list | tuple):
        return [plain_cell(one) for one in value]
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, Decimal):
        return str(value)
    return "" if value is None or value != value else value


def as_lists(column: list[Any]) -> list[Any]:
    """Return the cells of a column with lists in it as lists: JSON, or numbers with one separator."""
    if any(isinstance(cell, list) for cell in column):
        return [[] if isinstance(cell, str) and not cell else cell for cell in column]
    texts = [cell.strip() for cell in column if isinstance(cell, str)]
    if len(texts) < len(column) or not any(texts):
        return column
    if all(is_list(text) and parsed_list(text) is not None for text in texts if text):
        return [parsed_list(text) or [] for text in texts]
    separator = next((one for one in ("|", ";", None) if any(len(text.split(one)) > 1 for text in texts)), None)
    parts = [[part.strip() for part in text.split(separator)] for text in texts]
    parts = [several[:-1] if several and not several[-1] else several for several in parts]  # "1;2;"
    words = {part for several in parts for part in several}
    has_numbers = any(is_number(word) for word in words)
    if max(map(len, parts)) > 1 and has_numbers and all(is_number(word) or is_missing(word) for word in words):
        return parts
    return column


def is_list(text: str) -> bool:
    """Return whether a text is in brackets."""
    return text.startswith("[") and text.endswith("]")


def parsed_list(text: str) -> list[Any] | None:
    """Return the list in a text as JSON or Python write it, None if it is none of plain values."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        try:
            found = ast.literal_eval(text)  # as pandas writes lists
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            return None
    plain = isinstance(found, list) and all(one is None or isinstance(one, str | int | float) for one in found)
    return [plain_cell(one) for one in found] if plain else None


def is_missing(cell: str) -> bool:
    """Return whether a cell of a column of numbers stands for no number."""
    return cell.strip().lower() in MISSING


def is_number(value: Any) -> bool:
    """Return whether a cell is a number; texts such as `007` and `1_000` are none."""
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


def as_float32(value: float) -> float:
    """Return the nearest float32; raise OverflowError if a finite number becomes infinite."""
    with np.errstate(over="ignore"):
        stored = float(np.float32(value))
    if math.isinf(stored) and not math.isinf(value):
        raise OverflowError
    return stored


def changed_by_float32(cell: Any, stored: float) -> str:
    """Return the text of a number that a float32 changes beyond the digits it has, "" if it does not."""
    if abs(stored) < _WHOLE_FLOAT32 and stored:
        return ""
    text = cell_text(cell).strip()
    try:
        number = Decimal(text)
    except ArithmeticError:
        return ""
    is_rounded = number.is_finite() and number != Decimal(stored) and ("e" not in text.lower() or not stored)
    return text if is_rounded else ""


def rounding_notes(rounded: Sequence[tuple[str, float]], what: str, advice: str = "") -> list[str]:
    """Return a note about numbers and the float32 that each becomes."""
    if not rounded:
        return []
    text, stored = rounded[0]
    count = f"{len(rounded):,} number{'' if len(rounded) == 1 else 's'}"
    return [f"{what} has {count} that float32 rounds, e.g. {text[:40]} to {stored:.9g}{advice}"]


def _bad_cell(cell: Any, name: str, dtype: str, table: str, number: int) -> UsageError:
    where = f"--table={table}: row {number} has"
    if dtype == "text" and (isinstance(cell, bytes) or SURROGATES.search(str(cell))):
        return UsageError(
            f"{where} bytes that are not UTF-8 in the column {name!r}. Save the table as UTF-8, or give "
            f"--features={name}:bytes."
        )
    is_empty = cell in (None, "")
    what = "no value" if is_empty else f"{str(cell)[:80]!r}"
    other = "float32, which stores NaN" if is_empty else "text"
    return UsageError(
        f"{where} {what} in the column {name!r}, which is {dtype}. Mend it, or give --features={name}:{other}."
    )


def _several(cell: Any) -> list[Any]:
    return cell if isinstance(cell, list) else [cell]


def _dtype_of(values: Iterable[Any]) -> str:
    """Return the type that holds all values."""
    values = list(values)
    if any(isinstance(value, bytes) for value in values):
        return "bytes"
    there = [value for value in values if not (isinstance(value, str) and is_missing(value))]
    if not there:
        return "float32" if any(is_number(value) for value in values) else "text"
    if all(map(_is_whole, there)):
        whole = list(map(int, there))
        if not all(value in _INT64 for value in whole):
            return "text"  # numbers of things, of which a float32 would keep seven digits
        has_all = len(there) == len(values)
        return "int64" if has_all or any(abs(value) > _WHOLE_FLOAT32 for value in whole) else "float32"
    return "float32" if all(map(is_number, there)) else "text"


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) or (isinstance(value, str) and bool(_INTEGER.fullmatch(value.strip())))


def _value(value: Any, dtype: str) -> Any:
    """Return a value as one of `dtype`; raise ValueError, TypeError or OverflowError if it is none."""
    if dtype == "int64":
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, str):
            value = re.sub(r"\.0+\s*$", "", value)  # as pandas writes whole numbers of which one is missing
        if not _is_whole(value) or int(value) not in _INT64:
            raise ValueError
        return int(value)
    if dtype == "float32":
        number = math.nan if isinstance(value, str) and is_missing(value) else float(value)
        if math.isinf(number) and "inf" not in cell_text(value).lower():
            raise OverflowError
        return as_float32(number)
    if dtype == "bytes":
        return value if isinstance(value, bytes) else cell_text(value).encode(errors="surrogateescape")
    text = value.decode() if isinstance(value, bytes) else cell_text(value)
    text.encode()  # no surrogates, which stand for bytes that are not UTF-8
    return text
