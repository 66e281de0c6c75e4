"""A table of paths and labels: CSV or parquet, one file per row, optionally with the file's split.

Columns are found by name, in any case and order: path, file, filename or image; label, class or category; split.
"""

from __future__ import annotations

import array
import csv
import io
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, BinaryIO, NamedTuple

from tfrecords.base_errors import UsageError
from tfrecords.convert.sources.image_folder import FolderFiles, add_file
from tfrecords.convert.sources.labels import FileListing, some_of, source_of_labels
from tfrecords.convert.sources.remote import RemoteFiles, check_url, driver_of, is_url, local_path, opened
from tfrecords.convert.sources.source import Source
from tfrecords.convert.sources.webdataset import MULTI_LABEL
from tfrecords.format.quarantine import Reason, Refusal

_PATH = ("path", "file", "filename", "image")
_LABEL = ("label", "class", "category")
_SPLIT = ("split",)
_SEVERAL = re.compile(r"(labels|classes|categories|tags|(label|class|category)[ _-]?\d+)", re.IGNORECASE)
_DELIMITERS = ",;\t|"
_BATCH = 65_536  # rows of a parquet file per read


class _Row(NamedTuple):
    number: int  # the line of a CSV file, or the row of a parquet file, from 1
    path: str
    label: str
    split: str | None


def is_table(path: str) -> bool:
    """Return whether a path ends like that of a table."""
    return path.lower().endswith((".csv", ".tsv", ".parquet", ".pq"))


def open_table(table: str, image_dir: str = "", categories: Sequence[str] = ()) -> Source:
    """Find the files in a table; ids count its rows.

    A missing file is rejected. A file that several rows have with the same label is taken once.

    Args:
        table: a CSV or parquet file, or its URL.
        image_dir: folder or URL that the table's paths are relative to; by default the table's folder.
        categories: as in `open_source`.

    Raises:
        UsageError: the table cannot be read, lacks a column, or has several labels for a file.
    """
    if image_dir and not is_url(image_dir) and not os.path.isdir(image_dir):
        what = "is not a folder" if os.path.exists(image_dir) else "does not exist"
        raise UsageError(f"--image_dir={image_dir} {what}. Name the folder that the paths in --table are relative to.")
    base = image_dir or (table.rpartition("/")[0] if is_url(table) else os.path.dirname(table))
    if is_url(base):
        with driver_of(base):
            pass
    else:
        base = os.path.abspath(base)
    found = FileListing()
    ids: dict[str, int] = {}
    numbers = array.array("q")
    repeated: list[str] = []
    protocols: set[str] = set()
    with _open(table) as file:
        is_parquet = file.read(4) == b"PAR1"
        file.seek(0)
        for row in _parquet_rows(file, table) if is_parquet else _csv_rows(file, table):
            path = _short(local_path(row.path), base)
            id = ids.setdefault(path, len(numbers))
            if id < len(numbers):
                split = found.splits[id] if found.splits else None
                _check_same(_Row(numbers[id], path, found.labels[id], split), row, table)
                repeated.append(path)
                continue
            numbers.append(row.number)
            _add(found, path, base, row, protocols, table)
    notes = []
    if repeated:
        notes.append(f"{len(repeated)} rows repeat a file and its label; each file is used once: {some_of(repeated)}")
    return source_of_labels(
        found,
        location=table,
        files=RemoteFiles(base) if is_url(base) else FolderFiles(base),
        categories=categories,
        flag="--table",
        notes=notes,
    )


def _add(found: FileListing, path: str, base: str, row: _Row, protocols: set[str], table: str) -> None:
    if is_url(path):
        check_url(path, f"--table={table}: row {row.number}:")
        protocol = path.partition("://")[0]
        if protocol not in protocols:
            with driver_of(path, f"--table={table}: row {row.number}:"):
                protocols.add(protocol)
        found.add(path, label=row.label, split=row.split)
    elif not is_url(base):
        add_file(found, path, os.path.join(base, path), label=row.label, split=row.split)
    elif path.startswith("/"):
        refused = Refusal(Reason.UNREADABLE, f"an absolute path cannot be relative to {base}")
        found.add(path, label=row.label, split=row.split, refused=refused)
    else:
        found.add(path, label=row.label, split=row.split)


def _check_same(earlier: _Row, row: _Row, table: str) -> None:
    if earlier.label != row.label:
        raise UsageError(
            f"--table={table}: row {row.number} has {row.path!r} as {row.label!r}, and row {earlier.number} as "
            f"{earlier.label!r}. {MULTI_LABEL}."
        )
    if earlier.split != row.split:
        raise UsageError(
            f"--table={table}: {row.path!r} is in split {earlier.split!r} (row {earlier.number}) and in split "
            f"{row.split!r} (row {row.number}). Keep one."
        )


def _short(path: str, base: str) -> str:
    """Return one spelling of a path: relative to `base` if it lies there, without empty parts and dots."""
    if is_url(path):
        return path
    plain = "/".join(part for part in path.split("/") if part not in ("", "."))
    if not path.startswith("/"):
        return plain
    return f"/{plain}".removeprefix(f"{base.rstrip('/')}/")


def _open(table: str) -> AbstractContextManager[Any]:
    if is_url(table):
        return opened(table, "--table")
    try:
        return open(table, "rb")
    except OSError as error:
        raise UsageError(f"--table={table} cannot be opened: {error.strerror}. Name a CSV or parquet file.") from None


def _csv_rows(file: BinaryIO, table: str) -> Iterator[_Row]:
    encoding = "utf-16" if file.read(2) in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    file.seek(0)
    text = io.TextIOWrapper(file, encoding=encoding, errors="surrogateescape", newline="")
    try:
        delimiter, header, columns = _header(text, table)
        reader = csv.reader(text, delimiter=delimiter, strict=True)
        next(reader)
        for cells in reader:
            if not any(map(str.strip, cells)):
                continue
            if len(cells) != len(header):
                raise UsageError(
                    f"--table={table}: line {reader.line_num} has {len(cells)} cells, the header {len(header)}. "
                    'Quote cells that contain the separator: "a, b".'
                )
            yield _row(reader.line_num, [cells[at] for at in columns], table)
    except (csv.Error, UnicodeError) as error:
        raise UsageError(f"--table={table} is not valid CSV: {error}. Write it again.") from None
    finally:
        text.detach()


def _header(text: io.TextIOWrapper, table: str) -> tuple[str, list[str], list[int]]:
    """Return the separator, the names of the columns and `_columns` of them; `text` is then at its start."""
    headers = {}
    for delimiter in _DELIMITERS:
        text.seek(0)
        headers[delimiter] = next(csv.reader(text, delimiter=delimiter), [])
    text.seek(0)
    # The separator is the one that gives known column names.
    delimiter = max(_DELIMITERS, key=lambda each: (_matches(headers[each]), len(headers[each])))
    return delimiter, headers[delimiter], _columns(headers[delimiter], table)


def _matches(header: Iterable[str]) -> int:
    return sum(name.strip().lower() in (*_PATH, *_LABEL, *_SPLIT) for name in header)


def _columns(header: Sequence[str], table: str) -> list[int]:
    """Return the numbers of the columns of paths and labels, and of splits if there is one."""
    labels, paths, splits = (_numbers(header, names) for names in (_LABEL, _PATH, _SPLIT))
    has = f"It has: {some_of([name.strip() for name in header])}." if header else "It is empty."
    several = [name for name in header if _SEVERAL.fullmatch(name.strip())]
    if len(labels) > 1 or (not labels and several):
        columns = [header[at] for at in labels] or several
        raise UsageError(f"--table={table} has labels in {some_of(columns)}. {MULTI_LABEL}, in a column named label.")
    for numbers, names, what in ((paths, _PATH, "paths"), (labels, _LABEL, "labels")):
        if len(numbers) != 1:
            count = "several columns" if numbers else "no column"
            raise UsageError(f"--table={table} has {count} of {what} ({', '.join(names)}). {has} Name one {names[0]}.")
    return [paths[0], labels[0], *splits[:1]]


def _numbers(header: Sequence[str], names: Sequence[str]) -> list[int]:
    return [at for at, name in enumerate(header) if name.strip().lower() in names]


def _row(number: int, cells: Sequence[Any], table: str) -> _Row:
    path, label = _text(cells[0]), _text(cells[1]).strip()
    split = sys.intern(_text(cells[2]).strip()) if len(cells) > 2 else None
    if not path.strip():
        raise UsageError(f"--table={table}: row {number} has no path. Add one, or remove the row.")
    if split == "":
        raise UsageError(f"--table={table}: row {number} has no split. Add one, or remove the column.")
    if label.startswith("[") and label.endswith("]") and "," in label:
        raise UsageError(f"--table={table}: row {number} has the labels {label[:80]}. {MULTI_LABEL}.")
    if not label.isascii() and re.search("[\ud800-\udfff]", label):
        raise UsageError(f"--table={table}: the label in row {number} is not UTF-8. Save the table as UTF-8.")
    return _Row(number, path, sys.intern(label), split)


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return os.fsdecode(value)
    if value is None or value != value:  # NaN, which pandas writes for missing values
        return ""
    # In pandas, a column of integers with a missing value becomes floats.
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _parquet_rows(file: BinaryIO, table: str) -> Iterator[_Row]:
    import pyarrow as pa  # not at the top: it takes a third of a second
    import pyarrow.parquet as pq

    try:
        parquet = pq.ParquetFile(file)
        fields = [parquet.schema_arrow.field(at) for at in _columns(parquet.schema_arrow.names, table)]
        for field in fields:
            _check_type(field, field is fields[0], table)
        number = 0
        for batch in parquet.iter_batches(_BATCH, columns=[field.name for field in fields]):
            for cells in zip(*(batch.column(field.name).to_pylist() for field in fields), strict=True):
                number += 1
                yield _row(number, cells, table)
    except (pa.ArrowException, OSError) as error:
        raise UsageError(f"--table={table} is not a valid parquet file: {error}. Write it again.") from None


def _check_type(field: Any, is_path: bool, table: str) -> None:
    import pyarrow as pa

    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        raise UsageError(f"--table={table}: column {field.name!r} has lists ({field.type}). {MULTI_LABEL}.")
    texts = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    texts += (pa.types.is_binary, pa.types.is_large_binary) if is_path else ()
    if pa.types.is_nested(kind) or (is_path and not any(is_kind(kind) for is_kind in texts)):
        raise UsageError(
            f"--table={table}: column {field.name!r} should have plain values, a path as text. Received: {field.type}"
        )
