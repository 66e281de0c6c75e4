"""The rows of a table: a CSV file with or without a header, a list with a path and a label per line, or parquet.

path,label        comma, semicolon, tab or |; the separator is the one that gives known names of columns
cat/1.jpg,cat
cat/1.jpg 0       Caffe, ImageNet: the label is what follows the last space, so that paths may have spaces
0 <tab> 3.0 <tab> cat/1.jpg    MXNet's .lst
"""

from __future__ import annotations

import csv
import io
import itertools
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, BinaryIO, Protocol

from tfrecords.base_errors import UsageError
from tfrecords.convert.sources.source import is_image
from tfrecords.convert.sources.table_columns import MULTI_LABEL, is_known, looks_like_path

_DELIMITERS = ",;\t|"
_BATCH = 65_536  # rows of a parquet file per read
_SAMPLE = 50  # rows from which a table's form is recognized
_MAX_LINE = 1 << 20  # characters


class Rows(Protocol):
    """The rows of a table."""

    @property
    def kind(self) -> str:
        """What the table is, for the user."""
        ...

    def sample(self) -> tuple[list[str] | None, list[list[str]]]:
        """Return the header, if there is one, and the first rows as texts; a cell with a list is "?"."""
        ...

    def check_types(self, path: int, labels: Sequence[int], lists: bool) -> None:
        """Raise UsageError if these columns cannot have paths and labels; `lists` says if labels may be lists."""
        ...

    def read(self, columns: Sequence[int]) -> Iterator[tuple[int, Sequence[Any]]]:
        """Yield the number of each row, for the user, and its cells in these columns."""
        ...

    def notes(self) -> list[str]:
        """Return notes for the user."""
        ...

    def close(self) -> None:
        """Leave the file to its owner."""
        ...


class CsvRows:
    """The rows of a text file. With `delimiter` None, cells are separated by spaces."""

    def __init__(self, file: BinaryIO, table: str, given: Sequence[str], label_type: str = "single") -> None:
        """Recognize the form; `given` are the columns that the user names. A list without labels may have paths alone,
        and one with several may have several words after the path.
        """
        encoding = "utf-16" if file.read(2) in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
        file.seek(0)
        self._text = io.TextIOWrapper(file, encoding=encoding, errors="surrogateescape", newline="")
        self._table = table
        self._skipped = 0  # lines before the header or the first row
        self._label_type = label_type
        self._several_words = False  # a list that has several labels after the path
        self._paths_only = False  # a list that has nothing but a path per line
        self._comments: list[str] = []  # those of them that begin with "#"
        self._splits_all = False  # a list whose lines are divided at every space
        with self._csv_errors():
            self._recognize(given)

    @property
    def kind(self) -> str:
        """What the table is, for the user."""
        return "CSV table" if self._delimiter else "list"

    def sample(self) -> tuple[list[str] | None, list[list[str]]]:
        """Return the header, if there is one, and the first rows."""
        with self._csv_errors():
            sample = [cells for _, cells in itertools.islice(self._rows(), _SAMPLE)]
        if self._header is None:
            return None, sample
        return self._header, [row for row in sample if len(row) == len(self._header)]

    def check_types(self, path: int, labels: Sequence[int], lists: bool) -> None:
        """Do nothing, because everything is text."""

    def read(self, columns: Sequence[int]) -> Iterator[tuple[int, Sequence[Any]]]:
        """Yield the number of each line and its cells in these columns."""
        num_cells = len(self._header) if self._header is not None else 0
        with self._csv_errors():
            for number, cells in self._rows():
                num_cells = num_cells or len(cells)
                if len(cells) != num_cells:
                    before = "the header" if self._header is not None else "the first line"
                    raise UsageError(
                        f"--table={self._table}: line {number} has {len(cells)} cells, {before} {num_cells}. "
                        'Quote cells that contain the separator: "a, b".'
                    )
                yield number, [cells[at] for at in columns]

    def notes(self) -> list[str]:
        """Return a note about the lines that were taken for comments."""
        count = len(self._comments)
        if not count:
            return []
        what = "line at the top is taken for a comment" if count == 1 else "lines at the top are taken for comments"
        return [f"{count:,} {what}, since # is in front: {self._comments[0].strip()[:80]!r}"]

    def close(self) -> None:
        """Leave the file to its owner."""
        self._text.detach()

    def _recognize(self, given: Sequence[str]) -> None:
        self._text.seek(0)
        line = self._text.readline(_MAX_LINE)
        match = re.fullmatch(r"sep=(.)\s*", line)  # as Excel writes and reads it
        while line and (not line.strip() or _is_comment(line) or (match and not self._skipped)):
            if line.startswith("#"):
                self._comments.append(line)
            self._skipped += 1
            line = self._text.readline(_MAX_LINE)
        lines = [line, *(self._text.readline(_MAX_LINE) for _ in range(_SAMPLE - 1))]
        lines = [line for line in lines if line.strip()]
        delimiters = match[1] if match else _DELIMITERS
        tables = {delimiter: self._parsed(delimiter) for delimiter in delimiters}
        headers = {delimiter: rows[0] if rows else [] for delimiter, rows in tables.items()}

        def rank(delimiter: str) -> tuple[int, int]:
            header = headers[delimiter]
            return sum(is_known(name) or name.strip() in given for name in header), len(header)

        self._delimiter: str | None = max(delimiters, key=rank)
        self._header: list[str] | None = headers[self._delimiter]
        if rank(self._delimiter)[0] or not lines:
            return
        words = lines[0].split()
        if len(words) > 1 and all(map(is_known, words)):
            self._delimiter, self._header, self._splits_all = None, words, len(words) > 2
            self._skipped += 1
            return
        self._check_pairs(lines)
        by_numbers = any(column.isdecimal() for column in given)
        for delimiter in sorted(delimiters, key=rank, reverse=True):
            rows = tables[delimiter]
            if rows and len(rows[0]) > 1 and {len(row) for row in rows} == {len(rows[0])}:
                has_paths = [any(map(looks_like_path, row)) for row in rows]
                if any(has_paths) or by_numbers:
                    is_data = has_paths[0] or not any(has_paths)  # or else a header of names that are not known
                    self._delimiter, self._header = delimiter, None if is_data else rows[0]
                    return
        paths_alone = self._label_type == "none" and all(looks_like_path(line.strip()) for line in lines)
        if self._label_type == "multi" and not by_numbers and _has_several(lines):
            self._delimiter, self._header, self._several_words = None, None, True
        elif not paths_alone and (by_numbers or _is_list(lines)):
            self._delimiter, self._header, self._splits_all = None, None, by_numbers
        elif paths_alone:
            self._delimiter, self._header, self._paths_only = None, None, True
        elif len(words) > 2 and len(self._header or ()) == 1:
            raise UsageError(
                f"--table={self._table} has several words per line, and it is not clear which are path and label: "
                f"{lines[0].strip()[:80]!r}. Name them by their numbers, e.g. --path_column=1 --label_column=2."
            )
        elif all(looks_like_path(line.strip()) or line.strip().isdecimal() for line in lines):
            what = "labels but no paths" if words[0].isdecimal() else "paths but no labels"
            raise UsageError(
                f"--table={self._table} has {what}: {lines[0].strip()[:80]!r}. Give each line a path and a label, such "
                "as `cat/1.jpg cat`."
            )

    def _check_pairs(self, lines: Sequence[str]) -> None:
        """Raise UsageError for a list of pairs, as that of LFW: numbers, then `name 1 4` or `name 1 other 2`."""
        words = [line.split() for line in lines]
        counts, *pairs = words
        if (
            len(counts) <= 2
            and all(map(str.isdecimal, counts))
            and pairs
            and all(len(row) in (3, 4) and row[1].isdecimal() and row[-1].isdecimal() for row in pairs)
        ):
            raise UsageError(
                f"--table={self._table} is a list of pairs for verification, such as that of LFW, and has no labels. "
                "Convert the folder of the images: --image_dir=PATH."
            )
        if all(sum(map(looks_like_path, row)) > 1 for row in words):
            raise UsageError(
                f"--table={self._table} has several paths per line, such as pairs for verification: "
                f"{lines[0].strip()[:80]!r}. {MULTI_LABEL}."
            )

    def _start(self) -> None:
        self._text.seek(0)
        for _ in range(self._skipped):
            self._text.readline()

    def _parsed(self, delimiter: str) -> list[list[str]]:
        self._start()
        rows = (row for row in csv.reader(self._text, delimiter=delimiter) if any(map(str.strip, row)))
        try:
            return list(itertools.islice(rows, _SAMPLE))
        except csv.Error:  # of this separator
            return []

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        self._start()
        if self._delimiter is None:
            for number, line in enumerate(self._text, self._skipped + 1):
                if self._paths_only and line.strip():
                    yield number, [line.strip()]
                elif self._several_words and line.strip():
                    path, *labels = line.split()
                    yield number, [path, ";".join(labels)]
                elif line.strip():
                    yield number, line.split() if self._splits_all else line.strip().rsplit(None, 1)
            return
        reader = csv.reader(self._text, delimiter=self._delimiter, strict=True)
        rows = (cells for cells in reader if any(map(str.strip, cells)))
        if self._header is not None:
            next(rows, None)
        for cells in rows:
            yield reader.line_num + self._skipped, cells

    def _csv_errors(self) -> AbstractContextManager[None]:
        def as_error(error: Exception) -> Exception:
            return UsageError(f"--table={self._table} is not valid CSV: {error}. Write it again.")

        return _errors((csv.Error, UnicodeError), as_error)


class ParquetRows:
    """The rows of a parquet file."""

    kind = "parquet table"

    def __init__(self, file: BinaryIO, table: str) -> None:
        import pyarrow.parquet as pq  # not at the top: it takes a third of a second

        self._table = table
        with self._errors():
            self._file = pq.ParquetFile(file)

    def sample(self) -> tuple[list[str] | None, list[list[str]]]:
        """Return the names of the columns, and the first rows as texts; a cell with a list is "?"."""
        names = list(self._file.schema_arrow.names)
        flat = [name for name in names if not self._is_nested(name)]
        with self._errors():
            batch = next(self._file.iter_batches(_SAMPLE, columns=flat), None) if flat else None
        sample = []
        if batch is not None:
            columns = [batch.column(name).to_pylist() if name in flat else ["?"] * batch.num_rows for name in names]
            sample = [list(map(cell_text, row)) for row in zip(*columns, strict=True)]
        return names, sample

    def check_types(self, path: int, labels: Sequence[int], lists: bool) -> None:
        """Raise UsageError if these columns cannot have paths and labels; `lists` says if labels may be lists."""
        for at in (path, *labels):
            self._check_type(self._file.schema_arrow.field(at), at == path, lists)

    def read(self, columns: Sequence[int]) -> Iterator[tuple[int, Sequence[Any]]]:
        """Yield the number of each row, from 1, and its cells in these columns."""
        names = [self._file.schema_arrow.names[at] for at in columns]
        number = 0
        with self._errors():
            for batch in self._file.iter_batches(_BATCH, columns=names):
                for cells in zip(*(batch.column(name).to_pylist() for name in names), strict=True):
                    number += 1
                    yield number, cells

    def notes(self) -> list[str]:
        """Return no notes."""
        return []

    def close(self) -> None:
        """Leave the file to its owner."""

    def _errors(self) -> AbstractContextManager[None]:
        import pyarrow as pa

        def as_error(error: Exception) -> Exception:
            if isinstance(error, OSError) and error.errno is not None:  # not of the parser
                return error
            return UsageError(f"--table={self._table} is not a valid parquet file: {error}. Write it again.")

        return _errors((pa.ArrowException, OSError), as_error)

    def _is_nested(self, name: str) -> bool:
        import pyarrow as pa

        return bool(pa.types.is_nested(self._file.schema_arrow.field(name).type))

    def _check_type(self, field: Any, is_path: bool, lists: bool) -> None:
        import pyarrow as pa

        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
            if lists and not is_path and not pa.types.is_nested(kind.value_type):
                return
            raise UsageError(f"--table={self._table}: column {field.name!r} has lists ({field.type}). {MULTI_LABEL}.")
        texts = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
        texts += (pa.types.is_binary, pa.types.is_large_binary) if is_path else ()
        if pa.types.is_nested(kind) or (is_path and not any(is_kind(kind) for is_kind in texts)):
            raise UsageError(
                f"--table={self._table}: column {field.name!r} should have plain values, a path as text. "
                f"Received: {field.type}"
            )


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


@contextmanager
def _errors(kinds: tuple[type[Exception], ...], as_error: Callable[[Exception], Exception]) -> Iterator[None]:
    try:
        yield
    except kinds as error:
        raise as_error(error) from None


def _has_several(lines: Sequence[str]) -> bool:
    """Return whether each line is a path without spaces and labels, more than one in some line."""
    rows = [line.split() for line in lines]
    return (
        all(looks_like_path(row[0]) and not any(map(looks_like_path, row[1:])) for row in rows)
        and any(len(row) > 2 for row in rows)
        and not any(separator in line for separator in ";|," for line in lines)
    )


def _is_comment(line: str) -> bool:
    """Return whether a line begins with "#" and is no row: it has no cell with the path of an image."""
    if not line.startswith("#"):
        return False
    pair = line.strip().rsplit(None, 1)
    rows = [*(line.split(delimiter) for delimiter in _DELIMITERS), [*pair[:-1], ""]]
    return not any(is_image(cell.strip(' "\r\n')) for cells in rows if len(cells) > 1 for cell in cells)


def _is_list(lines: Sequence[str]) -> bool:
    """Return whether each line is a path, which may have spaces, and a label."""
    pairs = [line.strip().rsplit(None, 1) for line in lines]
    return all(len(pair) == 2 for pair in pairs) and (
        all(len(path.split()) == 1 or looks_like_path(path) for path, _ in pairs)
        or all(label.isdecimal() and not path.split()[-1].isdecimal() for path, label in pairs)
    )
