"""A table of paths and labels: CSV, a list, or parquet, one file per row, optionally with the file's split.

`tfrecords.convert.sources.table_rows` reads its rows, and `table_columns` finds out which columns count. Paths may be
those of another system: with backslashes, or without the suffixes of the files.
"""

from __future__ import annotations

import array
import dataclasses
import os
import re
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, closing
from typing import Any, NamedTuple

from tfrecords.base_errors import UsageError
from tfrecords.convert.sources.folder_layout import named_splits, splits_of
from tfrecords.convert.sources.image_folder import FolderFiles, add_file
from tfrecords.convert.sources.label_columns import unnamed_value_columns, value_columns
from tfrecords.convert.sources.labels import FileListing, alike_names, some_of, source_of_labels
from tfrecords.convert.sources.parquet_rows import ParquetRows
from tfrecords.convert.sources.path_spelling import PathSpelling, check_folder
from tfrecords.convert.sources.read_errors import refusal_of
from tfrecords.convert.sources.remote import RemoteFiles, add_stamps, check_url, driver_of, is_url, opened
from tfrecords.convert.sources.selection import Selection
from tfrecords.convert.sources.source import TABLE_SUFFIXES, Source
from tfrecords.convert.sources.table_cells import (
    cell_text,
    given_features,
    is_missing,
    is_number,
    without_points,
)
from tfrecords.convert.sources.table_columns import (
    MULTI_LABEL,
    Columns,
    flag_of,
    given_column,
    named_columns,
    plain_name,
    zero_or_one,
)
from tfrecords.convert.sources.table_rows import CsvRows, Rows
from tfrecords.convert.sources.table_values import TableValues
from tfrecords.format.quarantine import Reason, Refusal

_NO_TABLES = {
    b"PK\3\4": "an Excel workbook, or a zip",
    b"\xd0\xcf\x11\xe0": "an Excel workbook",
    b"\x1f\x8b": "compressed by gzip",
}  # by their first bytes
_MIN_ROWS = 10  # from here on, a label per row is suspicious


class _Row(NamedTuple):
    number: int  # the line of a text file, or the row of a parquet file, from 1
    path: str
    label: str
    split: str | None
    group: str | None = None
    time: str | None = None


def is_table(path: str) -> bool:
    """Return whether a path ends like that of a table."""
    return path.lower().endswith(TABLE_SUFFIXES)


def open_table(
    table: str,
    image_dir: str = "",
    categories: Sequence[str] = (),
    selection: Selection | None = None,
    path_column: str = "",
    label_column: str = "",
    group_column: str = "",
    time_column: str = "",
    label_type: str = "single",
    features: Sequence[str] = (),
) -> Source:
    """Find the files in a table; ids count its rows.

    A missing file is rejected. A file that several rows have with the same label is taken once.

    Args:
        table: a CSV or parquet file, or a list with a path and a label per line, or its URL.
        image_dir: folder or URL that the table's paths are relative to; by default the table's folder.
        categories: as in `open_source`.
        selection: as in `open_source`.
        path_column: as in `open_source`.
        label_column: as in `open_source`.
        group_column: as in `open_source`.
        time_column: as in `open_source`.
        label_type: as in `open_source`.
        features: as in `open_source`.

    Raises:
        UsageError: the table cannot be read, it is not clear which columns count, or a file has several labels.
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
    spelling = PathSpelling(base)
    ids: dict[str, int] = {}
    numbers = array.array("q")
    repeated: list[str] = []
    protocols: set[str] = set()
    remote: list[int] = []
    names = (name.partition(":")[0] for name in features)
    given = (path_column, *label_column.split(","), label_column, group_column, time_column, *names)
    with _open(table) as file, closing(_rows_of(file, table, given, label_type)) as rows:
        columns = _columns(rows, table, path_column, label_column, group_column, time_column, label_type, features)
        values = TableValues(table, columns) if label_type != "single" or features else None
        num_features, num_others = len(columns.features), columns.num_others
        for number, cells in rows.read(columns.needed):
            extra = cells[len(cells) - num_features :]
            row = _row(number, cells[: len(cells) - num_features], columns, table)
            several = cells[1 + num_others : len(cells) - num_features]
            path = spelling.of(row.path)
            id = ids.setdefault(path, len(numbers))
            if id < len(numbers):
                columns_of_id = (found.splits, found.groups, found.times)
                split, group, time = (column[id] if column else None for column in columns_of_id)
                _check_same(_Row(numbers[id], path, found.labels[id], split, group, time), row, table)
                if values is not None:
                    values.again(id, path, number, several, extra)
                repeated.append(path)
                continue
            numbers.append(row.number)
            if values is not None:
                values.add(number, several, extra)
            _add(found, path, base, row, protocols, table)
            if row.group is not None:
                found.groups.append(row.group)
            if row.time is not None:
                found.times.append(row.time)
            if (is_url(path) or is_url(base)) and id not in found.refused:
                remote.append(id)
        kind, row_notes = rows.kind, rows.notes()
    splits = _named_splits(found, columns, table)
    if columns.label is not None:
        found.labels = without_points(found.labels)
    if selection or categories:
        remote = [
            id
            for id in remote
            if (not categories or label_type != "single" or found.labels[id] in categories)
            and (not selection or selection.takes(found.paths[id], counted=False))
        ]
    add_stamps(found, remote, base)
    if found.paths and len(found.refused) == len(found.paths) and not is_url(base):
        check_folder(found.paths, base, table)
    notes = [*row_notes, *spelling.notes()]
    if repeated and label_type != "multi":
        notes.append(f"{len(repeated)} rows repeat a file and its label; each file is used once: {some_of(repeated)}")
    if label_type == "single" and len(numbers) >= _MIN_ROWS and len(set(found.labels)) == len(numbers):
        notes.append(f"each image has a label of its own, e.g. {found.labels[0]!r}; --label_column= names other labels")
    groups = dict.fromkeys(found.groups)
    notes += [*alike_names(groups, "groups"), *_missing_words(groups, "group")]
    class_names, form = columns.class_names, f"{kind} with {len(numbers):,} files; {columns.form}{splits}"
    if values is not None and label_type != "single":
        if categories and label_type != "multi":
            raise UsageError(f"--categories: --label_type={label_type} has no classes in a table. Leave it out.")
        paths = found.paths
        taken = [id for id in range(len(paths)) if not selection or selection.takes(paths[id], counted=False)]
        found.labels, class_names = values.classes(categories, taken)
    source = source_of_labels(
        found,
        location=table,
        files=RemoteFiles(base) if is_url(base) else FolderFiles(base),
        categories=categories,
        class_names=class_names,
        selection=selection,
        flag="--table",
        notes=notes,
        form=form,
    )
    if label_type in ("single", "multi"):
        source = dataclasses.replace(source, notes=(*source.notes, *_label_notes(source.class_names, label_type)))
    if values is None:
        return source
    if label_type != "single":
        source = dataclasses.replace(source, form=form)
    return values.of(source, [ids[path] for path in source.paths])


def _columns(
    rows: Rows,
    table: str,
    path_column: str,
    label_column: str,
    group_column: str,
    time_column: str,
    label_type: str,
    features: Sequence[str],
) -> Columns:
    """Return where paths, labels, groups, times and features are."""
    header, sample = rows.sample()
    names = [str(at + 1) for at in range(min(map(len, sample), default=0))] if header is None else header
    names = [name.strip() for name in names]
    wanted = given_features(features, names, table) if header is not None else []
    extra = [at for at, _, _ in wanted]
    if header is None:
        if features:
            raise UsageError(f"--features={','.join(features)}: --table={table} has no header. Add one.")
        columns = unnamed_value_columns(sample, table, path_column, label_column, group_column, time_column, label_type)
    elif label_type == "single":
        columns = named_columns(header, sample, table, path_column, label_column, group_column, time_column, extra)
    else:
        group = given_column(group_column, names, "--group_column", table)
        time = given_column(time_column, names, "--time_column", table)
        aside = [*extra, *(at for at in (group, time) if at is not None)]
        columns = value_columns(header, sample, table, path_column, label_column, label_type, aside)
        columns = dataclasses.replace(columns, group=group, time=time)
    others = {columns.path, columns.split, columns.group, columns.time}
    lists = label_type in ("multi", "float")
    rows.check_types(columns.path, [at for at in columns.needed if at not in others], lists)
    rows.check_types(columns.path, [at for at in others if at is not None and at != columns.path], False)
    rows.check_types(columns.path, extra, True)
    typed = tuple((name, dtype) for _, name, dtype in wanted)
    if header is not None and columns.split is not None:
        columns = dataclasses.replace(columns, split_flag=flag_of(plain_name(names[columns.split])))
    return dataclasses.replace(columns, features=tuple(extra), feature_names=typed)


def _label_notes(class_names: Sequence[str], label_type: str) -> list[str]:
    """Return notes about labels that may be meant otherwise: as a missing one, as several, or as numbers."""
    notes = _missing_words(class_names, "label")
    if label_type != "single":
        return notes
    parts = Counter(part.strip() for name in class_names for part in set(re.split("[|;,]", name)))
    several = [
        name
        for name in class_names
        if re.search("[|;]", name) or ("," in name and all(parts[part.strip()] > 1 for part in name.split(",")))
    ]
    if several:
        notes.append(f"labels such as {several[0]!r} may be several, and count as one; --label_type=multi divides them")
    if class_names and all(map(is_number, class_names)) and any(float(name) % 1 for name in class_names):
        example = next(name for name in class_names if float(name) % 1)
        notes.append(f"numbers such as {example} count as classes; --label_type=float stores them as numbers")
    return notes


def _missing_words(names: Iterable[str], what: str) -> list[str]:
    words = [name for name in names if name and is_missing(name)]
    kind = f"a {what}" if len(words) == 1 else f"{what}s"
    return [f"{some_of(words)}: {kind}, like other words; leave the cells empty if the {what} is missing"] * bool(words)


def _named_splits(found: FileListing, columns: Columns, table: str) -> str:
    """Give the splits the names that the other commands know, and return what is done, for the user."""
    there = list(dict.fromkeys(found.splits))
    if columns.split_flag:
        values = {split: zero_or_one(split) for split in there}
        if wrong := [split for split, value in values.items() if value is None]:
            raise UsageError(f"--table={table}: the column of splits has {wrong[0]!r}, not 0 or 1. Correct it.")
        named = {split: columns.split_flag[value or 0] for split, value in values.items()}
    elif all(splits_of(there).values()):
        named = named_splits(there)
    else:
        return ""
    found.splits = [named[split] for split in found.splits]
    changed = [f"{split} (as {name})" for split, name in named.items() if split != name]
    return f"; splits {', '.join(changed)}" if changed else ""


def _rows_of(file: Any, table: str, given: Sequence[str], label_type: str) -> Rows:
    head = file.read(4)
    file.seek(0)
    is_parquet = head == b"PAR1"
    if kind := next((kind for magic, kind in _NO_TABLES.items() if head.startswith(magic)), ""):
        raise UsageError(f"--table={table} is {kind}. Save the table as CSV.")
    return (
        ParquetRows(file, table) if is_parquet else CsvRows(file, table, [name for name in given if name], label_type)
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
    for what in ("split", "group", "time"):
        before, now = getattr(earlier, what), getattr(row, what)
        if before != now:
            raise UsageError(
                f"--table={table}: {row.path!r} is in {what} {before!r} (row {earlier.number}) and in {what} {now!r} "
                f"(row {row.number}). Keep one."
            )


def _open(table: str) -> AbstractContextManager[Any]:
    if is_url(table):
        return opened(table, "--table")
    try:
        file = open(table, "rb")  # noqa: SIM115
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        why = refusal_of(error).detail if isinstance(error, OSError) else error
        raise UsageError(f"--table={table} cannot be opened: {why}. Name a CSV or parquet file.") from None
    if not file.seekable():
        file.close()
        raise UsageError(f"--table={table} is a pipe, but a table is read more than once. Write it to a file first.")
    return file


def _row(number: int, cells: Sequence[Any], columns: Columns, table: str) -> _Row:
    path, rest = cell_text(cells[0]), list(map(cell_text, cells[1:]))
    split = sys.intern(rest.pop(0).strip()) if columns.split is not None else None
    if not path.strip():
        raise UsageError(f"--table={table}: row {number} has no path. Add one, or remove the row.")
    group = sys.intern(rest.pop(0).strip()) if columns.group is not None else None
    time = rest.pop(0).strip() if columns.time is not None else None
    if split == "":
        raise UsageError(f"--table={table}: row {number} has no split. Add one, or remove the column.")
    if columns.label_type != "single":
        return _Row(number, path, "", split, group, time)
    if columns.label is not None:
        label = cell_text(cells[-1], keep_point=True).strip()
    else:
        label = _hot(number, rest, columns, table)
    if label.startswith("[") and label.endswith("]") and "," in label:
        raise UsageError(f"--table={table}: row {number} has the labels {label[:80]}. {MULTI_LABEL}.")
    for what, text in (("label", label), ("split", split or "")):
        if not text.isascii() and re.search("[\ud800-\udfff]", text):
            raise UsageError(f"--table={table}: the {what} in row {number} is not UTF-8. Save the table as UTF-8.")
    return _Row(number, path, sys.intern(label), split, group, time)


def _hot(number: int, cells: Sequence[str], columns: Columns, table: str) -> str:
    """Return the class whose one-hot column has a 1, "" if none has."""
    values = [zero_or_one(cell) for cell in cells]
    if None in values:
        at = values.index(None)
        raise UsageError(
            f"--table={table}: row {number} has {cells[at]!r} in the one-hot column {columns.class_names[at]!r}, not 0 "
            "or 1. If another column has the labels, give --label_column=NAME."
        )
    names = [name for name, value in zip(columns.class_names, values, strict=True) if value]
    if len(names) > 1:
        raise UsageError(f"--table={table}: row {number} has a 1 in {some_of(names)}. {MULTI_LABEL}.")
    return names[0] if names else ""
