"""Which columns of a table have several labels per image, or numbers as labels; see `table_columns` for one class.

Labels are in a column that is named so, in numbered ones, or in columns with 0 and 1. Numbers are in a column that is
named as a target, or in all columns beside the paths.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Collection, Sequence

from tfrecords.base_errors import UsageError
from tfrecords.convert.sources.labels import some_of
from tfrecords.convert.sources.table_cells import is_missing, is_number
from tfrecords.convert.sources.table_columns import (
    LABEL,
    LABELS,
    SEVERAL,
    Columns,
    are_splits,
    find_path,
    given_column,
    is_zero_one,
    other_columns,
    plain_name,
    ranked_columns,
    split_column,
    unnamed_columns,
    with_paths,
)

_TARGET = frozenset("groundtruth label score target value".split())  # of numbers
_PLURAL = re.compile(r"(.*[\W_])?(labels|classes|categories|tags)", re.IGNORECASE)  # also `Finding Labels`
_COUNTERS = frozenset("id idx index no nr number row rowid".split())


def value_columns(
    header: Sequence[str],
    sample: Sequence[Sequence[str]],
    table: str,
    path_column: str,
    label_column: str,
    label_type: str,
    aside: Collection[int],
) -> Columns:
    """Return the columns of a table with a header whose labels are several per image, numbers, or not used.

    The arguments and errors are those of `named_columns`; `label_column` may be several, with commas between them.
    """
    names = [name.strip() for name in header]
    plain = [plain_name(name) for name in names]
    has = f"It has: {some_of(names)}."
    path = given_column(path_column, names, "--path_column", table)
    labels = given_columns(label_column, names, "--label_column", table) if label_type != "none" else []
    split = split_column(plain, sample, {*labels, *aside})
    if path is None:
        several = [at for at, name in enumerate(names) if SEVERAL.fullmatch(name)]
        path = find_path(plain, sample, {split, *labels, *several}, aside, table, has)
    if path in labels:
        raise UsageError(f"--table={table}: --path_column and --label_column are one column, {names[path]!r}. {has}")
    where = f"paths from the column {names[path]}"
    rest = other_columns(plain, {path, split, *aside})
    rest = [at for at in rest if plain[at] not in _COUNTERS or not _counts_rows(sample, at)]
    if label_type == "none":
        return Columns(path, None, split, label_type=label_type, form=f"{where}, no labels")
    ranked = ranked_columns(plain, LABELS, {path, split, *aside})
    if label_type == "float":
        numbers = [at for at in rest if _are_numbers(sample, at)]
        targets = [at for at in rest if plain[at] in _TARGET]  # a cell that is no number is named later
        labels = labels or [at for at in numbers if at in targets] or (numbers if numbers == rest else [])
        labels = labels or next((one for one in (targets, rest) if len(one) == 1), [])
        if labels:
            chosen = tuple(names[at] for at in labels)
            form = f"{where}, numbers as labels from {some_of(chosen)}"
            return Columns(path, None, split, (), chosen, form=form, label_type=label_type, labels=tuple(labels))
        raise UsageError(
            f"--table={table}: it is not clear which columns have the numbers. {has} Name them: --label_column=NAME, "
            "or several with commas."
        )
    hot = [at for at in rest if is_zero_one(sample, at, signed=True)]
    if labels and len(labels) > 1 and all(at in hot for at in labels):
        hot, labels, rest, ranked = labels, [], labels, []
    elif not labels:
        plural = [at for at in rest if _PLURAL.fullmatch(names[at])]
        numbered = [at for at in rest if SEVERAL.fullmatch(names[at]) and names[at][-1].isdigit()]
        labels = plural or numbered or ranked
        if len(labels) > 1 and labels != numbered:
            raise UsageError(
                f"--table={table} has several columns of labels. {has} Name those that count: "
                f"--label_column={names[labels[0]]}, or several with commas."
            )
        if not labels and (len(hot) < 2 or not sample):
            labels = rest if len(rest) == 1 else []
    if not labels and (len(hot) < 2 or not sample):
        raise UsageError(
            f"--table={table} has no column of labels ({', '.join(LABEL)}). {has} Give it as --label_column=NAME."
        )
    chosen = tuple(names[at] for at in labels or hot)
    if labels:
        form = f"{where}, several labels per image from {some_of(chosen)}"
        return Columns(path, None, split, form=form, label_type=label_type, labels=tuple(labels))
    aside_names = [names[at] for at in rest if at not in hot]
    form = f"{where}, several labels per image from the columns {some_of(chosen)}"
    form += f" (not used: {some_of(aside_names)})" if aside_names else ""
    return Columns(path, None, split, tuple(hot), chosen, form=form, label_type=label_type)


def unnamed_value_columns(
    sample: Sequence[Sequence[str]],
    table: str,
    path_column: str,
    label_column: str,
    group_column: str,
    time_column: str,
    label_type: str,
) -> Columns:
    """Return the columns of a table without a header."""
    if label_type == "none" and all(len(row) == 1 for row in sample):
        return Columns(0, None, None, label_type=label_type, form="no header; a path per line, no labels")
    names = [str(at + 1) for at in range(min(map(len, sample)))]
    labels = given_columns(label_column, names, "--label_column", table)
    path = given_column(path_column, names, "--path_column", table)
    paths = [at for at in with_paths(sample, labels) if path in (None, at)] if path is None else [path]
    if label_type == "single" or len(paths) != 1 or len(names) < 3:
        columns = unnamed_columns(sample, table, path_column, label_column, group_column, time_column)
        if label_type == "single" or columns.label is None:
            return columns
        labels = [columns.label]
    else:
        group = given_column(group_column, names, "--group_column", table)
        time = given_column(time_column, names, "--time_column", table)
        rest = [at for at in range(len(names)) if at not in (paths[0], group, time)]
        split = next((at for at in rest if at not in labels and are_splits(sample, at)), None)
        labels = labels or [at for at in rest if at != split]
        columns = Columns(paths[0], None, split, group=group, time=time)
    form = f"no header; paths from column {columns.path + 1}"
    if label_type == "none":
        return dataclasses.replace(columns, label=None, form=f"{form}, no labels", label_type=label_type)
    where = some_of([str(at + 1) for at in labels])
    hot = len(labels) > 1 and all(is_zero_one(sample, at, signed=True) for at in labels)
    if label_type == "multi" and hot:
        numbered = tuple(str(number) for number in range(len(labels)))
        form += f", several labels per image, by number, from the columns of 0 and 1 {where}"
        return dataclasses.replace(
            columns, classes=tuple(labels), class_names=numbered, form=form, label_type=label_type
        )
    what = "several labels per image" if label_type == "multi" else "numbers as labels"
    targets = tuple(f"target{at}" for at in range(1, len(labels) + 1)) if len(labels) > 1 else ("target",)
    return dataclasses.replace(
        columns,
        label=None,
        class_names=targets if label_type == "float" else (),
        form=f"{form}, {what} from column{'s' if len(labels) > 1 else ''} {where}",
        label_type=label_type,
        labels=tuple(labels),
    )


def given_columns(columns: str, names: Sequence[str], flag: str, table: str) -> list[int]:
    """Return the numbers of the columns that a flag names, with commas between them."""
    if columns in names or "," not in columns:
        one = given_column(columns, names, flag, table)
        return [] if one is None else [one]
    several = (given_column(column.strip(), names, flag, table) for column in columns.split(","))
    return [at for at in several if at is not None]


def _counts_rows(sample: Sequence[Sequence[str]], column: int) -> bool:
    """Return whether a column has the numbers of the rows, from 0 or 1."""
    cells = [row[column].strip() for row in sample if column < len(row)]
    return len(cells) > 1 and any(cells == [str(first + at) for at in range(len(cells))] for first in (0, 1))


def _are_numbers(sample: Sequence[Sequence[str]], column: int) -> bool:
    try:
        cells = [row[column] for row in sample if not is_missing(row[column])]
        return bool(sample) and all(is_number(cell) and math.isfinite(float(cell)) for cell in cells)
    except IndexError:
        return False
