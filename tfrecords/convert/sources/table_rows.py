"""The rows of a table that is a text: a CSV file with or without a header, or a list with a path and a label per line.

path,label        comma, semicolon, tab or |; the separator is the one that gives known names of columns
cat/1.jpg,cat
cat/1.jpg 0       Caffe, ImageNet: the label is what follows the last space, so that paths may have spaces
0 <tab> 3.0 <tab> cat/1.jpg    MXNet's .lst
"""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, BinaryIO, Protocol

from tfrecords.base_errors import UsageError
from tfrecords.convert.sources.source import is_image
from tfrecords.convert.sources.table_cells import is_number
from tfrecords.convert.sources.table_columns import MULTI_LABEL, is_known, looks_like_path

_DELIMITERS = ",;\t|"
SAMPLE = 50  # rows from which a table's form is recognized
_MAX_LINE = 1 << 20  # characters
_MAX_CELL = 1 << 27  # characters; Python's own limit is below that of the masks of some datasets


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
        csv.field_size_limit(max(csv.field_size_limit(), _MAX_CELL))  # of the process
        with self._csv_errors():
            self._recognize(given)

    @property
    def kind(self) -> str:
        """What the table is, for the user."""
        return "CSV table" if self._delimiter else "list"

    def sample(self) -> tuple[list[str] | None, list[list[str]]]:
        """Return the header, if there is one, and the first rows."""
        with self._csv_errors():
            sample = [cells for _, cells in itertools.islice(self._rows(), SAMPLE)]
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
        lines = [line, *(self._text.readline(_MAX_LINE) for _ in range(SAMPLE - 1))]
        lines = [line for line in lines if line.strip()]
        delimiters = match[1] if match else _DELIMITERS
        tables = {delimiter: self._parsed(delimiter) for delimiter in delimiters}
        headers = {delimiter: rows[0] if rows else [] for delimiter, rows in tables.items()}

        def rank(delimiter: str) -> tuple[int, int]:
            header = headers[delimiter]
            # Numbers among `given` are those of columns, and could be labels in the first row.
            named = {name for name in given if not name.isdecimal()}
            return sum(is_known(name) or name.strip() in named for name in header), len(header)

        self._delimiter: str | None = max(delimiters, key=rank)
        self._header: list[str] | None = headers[self._delimiter]
        if rank(self._delimiter)[0] or not lines:
            return
        words = lines[0].split()
        if len(words) > 1 and all(map(is_known, words)):
            self._delimiter, self._header, self._splits_all = None, words, len(words) > 2
            self._skipped += 1
            return
        if lines[0].lstrip()[:1] in ("{", "["):
            raise UsageError(
                f"--table={self._table} is JSON. Give the table as CSV or parquet, e.g. with pandas: "
                "`pandas.read_json(...).to_parquet(...)`."
            )
        if self._label_type in ("multi", "float") and self._recognize_values(lines):
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

    def _recognize_values(self, lines: Sequence[str]) -> bool:
        """Return whether lines have a path and then several values, also below a line with their names (CelebA), or
        labels between commas that differ in number.
        """
        words = [line.split() for line in lines]
        first = 1 if len(words) > 2 and len(words[0]) == 1 and words[0][0].isdecimal() else 0  # the number of rows
        rows = words[first + 1 :]
        if _are_values(rows, self._label_type) and len(words[first]) == len(rows[0]) - 1:
            self._delimiter, self._header, self._splits_all = None, ["path", *words[first]], True
            self._skipped += first + 1
            return True
        if _are_values(words, self._label_type):
            self._delimiter, self._header, self._splits_all = None, None, True
            return True
        for delimiter in _DELIMITERS if self._label_type == "multi" else ():
            cells = self._parsed(delimiter)
            is_ragged = len({len(row) for row in cells}) > 1
            if is_ragged and all(
                looks_like_path(row[0]) and not any(delimiter in cell or looks_like_path(cell) for cell in row[1:])
                for row in cells
            ):
                self._delimiter, self._header, self._several_words = delimiter, None, True
                return True
        return False

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
            return list(itertools.islice(rows, SAMPLE))
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
                    words = line.split() if self._splits_all else line.strip().rsplit(None, 1)
                    yield number, [re.sub(r'^"(.*)"$', r"\1", word) for word in words]
            return
        reader = csv.reader(self._text, delimiter=self._delimiter, strict=True)
        rows = (cells for cells in reader if any(map(str.strip, cells)))
        if self._header is not None:
            next(rows, None)
        separator = self._delimiter.strip() or ";"  # a tab does not separate the labels of a cell
        for cells in rows:
            number = reader.line_num + self._skipped
            yield number, [cells[0], separator.join(cells[1:])] if self._several_words else cells

    def _csv_errors(self) -> AbstractContextManager[None]:
        def as_error(error: Exception) -> Exception:
            return UsageError(f"--table={self._table} is not valid CSV: {error}. Write it again.")

        return reading_errors((csv.Error, UnicodeError), as_error)


@contextmanager
def reading_errors(kinds: tuple[type[Exception], ...], as_error: Callable[[Exception], Exception]) -> Iterator[None]:
    """Raise `as_error(error)` instead of an error of these kinds."""
    try:
        yield
    except kinds as error:
        raise as_error(error) from None


def _are_values(rows: Sequence[Sequence[str]], label_type: str) -> bool:
    """Return whether each row has a path and the same number of values, two or more: numbers, or for several labels 0
    and 1, or -1 and 1.
    """
    if not rows or len(rows[0]) < 3 or {len(row) for row in rows} != {len(rows[0])}:
        return False
    if not all(looks_like_path(row[0]) for row in rows):
        return False
    values = [value for row in rows for value in row[1:]]
    return all(map(is_number, values)) if label_type == "float" else set(values) <= {"-1", "0", "1"}


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
