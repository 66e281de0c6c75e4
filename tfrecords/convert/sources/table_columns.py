"""Which columns of a table have the paths, the labels and the splits of the images.

Columns are recognized by their names, or in a table without a header by what is in them. The names come in ranks: a
column `path` counts before `image_url`, and that before `id`. Instead of a column of labels there may be one column per
class with a 1 for the class of the image and 0 elsewhere (one-hot).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Iterable, Sequence

from tfrecords.base_errors import UsageError
from tfrecords.convert.sources.folder_layout import split_of
from tfrecords.convert.sources.labels import some_of
from tfrecords.convert.sources.source import is_image

MULTI_LABEL = (
    "Without --label_type=multi, each image file has one class, and multi-label is not supported. Keep one label per "
    "image"
)

# In the datasets of Kaggle, Keras, timm, fastai, Hugging Face, ISIC, GTSRB and others; without spaces and the like.
_PATH = ("path", "file", "filename", "image")
_PATHS = (
    frozenset(_PATH),
    frozenset(
        "filepath filepaths filenames fname fullpath img imagefile imagefilename imagename imagepath images imageuri "
        "imageurl imgfile imgname imgpath photo picture relativepath relpath src uri url".split()
    ),
    frozenset("id idcode imageid imageindex imgid index isicid key name photoid pictureid stem uuid".split()),
)
LABEL = ("label", "class", "category")
LABELS = (
    frozenset(LABEL),
    frozenset(
        "animal breed categoryname classname diagnosis disease dx emotion finding genus groundtruth gt kind labelname "
        "object primarylabel species target type variety y".split()
    ),
    frozenset(
        "categoryid classid classidx classindex classlabel id individualid labelid labelidx landmarkid targetid "
        "whaleid".split()
    ),
)
SPLIT = "split"
SPLITS = frozenset("dataset datasetsplit partition set subset usage".split())  # if their values are names of splits
_FLAGS = {
    **dict.fromkeys(("isval", "isvalid", "isvalidation"), ("train", "validation")),
    "istest": ("train", "test"),
    **dict.fromkeys(("istrain", "istraining"), ("test", "train")),
}  # splits by 0 and 1
_ROW_NUMBERS = frozenset(("", "unnamed0"))  # pandas writes its index without a name
SEVERAL = re.compile(r"(labels|classes|categories|tags|(label|class|category)[ _-]?\d+)", re.IGNORECASE)
_ZERO_ONE = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1, "": 0}
_SIGNED = {**_ZERO_ONE, "-1": 0, "-1.0": 0, "no": 0, "yes": 1}


@dataclasses.dataclass(frozen=True)
class Columns:
    """The columns of a table by number, from 0.

    Attributes:
        path: the paths.
        label: the labels, or None if `classes` has them.
        split: the splits, or None.
        split_flag: the names of the splits if that column has 0 and 1, else none.
        group: the groups that are not divided, or None.
        time: the times, or None.
        classes: the one-hot columns; none if there is a column of labels.
        class_names: their names.
        label_type: as in `tfrecords.format.schema`. If it is not `single`, `label` is None.
        labels: the columns of several labels or of numbers, with `class_names` for numbers; none if there are
            `classes`.
        features: further columns to keep.
        feature_names: the name and the type of each of them, "" for that of its cells.
        form: where the paths and labels come from, for the user.
    """

    path: int
    label: int | None
    split: int | None
    classes: tuple[int, ...] = ()
    class_names: tuple[str, ...] = ()
    form: str = ""
    label_type: str = "single"
    labels: tuple[int, ...] = ()
    features: tuple[int, ...] = ()
    feature_names: tuple[tuple[str, str], ...] = ()
    group: int | None = None
    time: int | None = None
    split_flag: tuple[str, ...] = ()

    @property
    def num_others(self) -> int:
        """The number of columns of splits, groups and times."""
        return sum(column is not None for column in (self.split, self.group, self.time))

    @property
    def needed(self) -> list[int]:
        """The columns to read: path; split, group and time if there are such columns; those of the
        labels, and the features.
        """
        return [
            self.path,
            *(column for column in (self.split, self.group, self.time) if column is not None),
            *(self.classes if self.label is None else [self.label]),
            *self.labels,
            *self.features,
        ]


def is_known(name: str) -> bool:
    """Return whether the name of a column says what is in it."""
    return plain_name(name) in {*_PATHS[0], *_PATHS[1], *LABELS[0], *LABELS[1], SPLIT} or bool(
        SEVERAL.fullmatch(name.strip())
    )


def looks_like_path(cell: str) -> bool:
    """Return whether a cell has the path of an image, or a URL."""
    return is_image(cell.replace("\\", "/")) or "://" in cell


def named_columns(
    header: Sequence[str],
    sample: Sequence[Sequence[str]],
    table: str,
    path_column: str = "",
    label_column: str = "",
    group_column: str = "",
    time_column: str = "",
    aside: Collection[int] = (),
) -> Columns:
    """Return the columns of a table with a header.

    Args:
        header: the names of all columns.
        sample: the cells of the first rows.
        table: its name in errors.
        path_column: name or number, from 1, of the column of paths; "" has it found.
        label_column: likewise, that of the labels.
        group_column: likewise, that of the groups; "" if there is none.
        time_column: likewise, that of the times.
        aside: columns that are none of these.

    Raises:
        UsageError: a column does not exist or cannot be told from others, or there are several labels per image.
    """
    names = [name.strip() for name in header]
    plain = [plain_name(name) for name in names]
    has = f"It has: {some_of(names)}." if header else "It is empty."
    path = given_column(path_column, names, "--path_column", table)
    label = given_column(label_column, names, "--label_column", table)
    group = given_column(group_column, names, "--group_column", table)
    time = given_column(time_column, names, "--time_column", table)
    split = split_column(plain, sample, (label, group, time))
    used = {split, group, time, *aside}
    several = [name for at, name in enumerate(names) if SEVERAL.fullmatch(name) and at not in (group, time, *aside)]
    labels = ranked_columns(plain, LABELS, {path, *used})
    if label is None and (
        (len(labels) > 1 and {plain[at] for at in labels} <= LABELS[0]) or (several and not labels_of(plain))
    ):
        columns = [names[at] for at in labels] if len(labels) > 1 else several
        raise UsageError(
            f"--table={table} has labels in {some_of(columns)}. {MULTI_LABEL}, in a column named label; or name the "
            f"one that counts: --label_column={columns[0]!r}."
        )
    if path is None:
        path = find_path(plain, sample, {label, split, group, time}, aside, table, has)
    if label is None:
        labels = ranked_columns(plain, LABELS, {path, *used})
        rest = other_columns(plain, {path, *used})
        classes = [at for at in rest if at not in labels and is_zero_one(sample, at)]
        if len(labels) > 1:
            raise UsageError(
                f"--table={table} has several columns of labels. {has} Name the one that counts, e.g. "
                f"--label_column={names[labels[0]]!r}."
            )
        if not labels and len(classes) > 1 and sample and (classes == rest or _have_one(sample, classes)):
            found = _one_hot(path, split, classes, names, sample, table)
            return dataclasses.replace(found, group=group, time=time, form=found.form + _further(names, group, time))
        if not labels and len(rest) == 1:
            labels = rest
        if not labels:
            for at in (group, time):
                if at is not None and plain[at] in LABELS[0]:
                    raise _one_column(names[at], at == group, has, table)
            raise UsageError(
                f"--table={table} has no column of labels ({', '.join(LABEL)}). {has} Name one {LABEL[0]}, or give "
                "it as --label_column=NAME."
            )
        label = labels[0]
    if path == label:
        raise UsageError(f"--table={table}: --path_column and --label_column are one column, {names[path]!r}. {has}")
    if label in (group, time):
        raise _one_column(names[label], label == group, has, table)
    form = f"paths from the column {names[path]}, labels from {names[label]}{_further(names, group, time)}"
    return Columns(path, label, split, form=form, group=group, time=time)


def _one_column(name: str, is_group: bool, has: str, table: str) -> UsageError:
    flag = "--group_column" if is_group else "--time_column"
    return UsageError(f"--table={table}: {flag} and the labels are one column, {name!r}. {has}")


def _further(names: Sequence[str], group: int | None, time: int | None) -> str:
    groups = "" if group is None else f", groups from {names[group]}"
    return groups if time is None else f"{groups}, times from {names[time]}"


def unnamed_columns(
    sample: Sequence[Sequence[str]],
    table: str,
    path_column: str = "",
    label_column: str = "",
    group_column: str = "",
    time_column: str = "",
) -> Columns:
    """Return the columns of a table without a header; the arguments and errors are those of `named_columns`."""
    numbers = [str(at + 1) for at in range(min(map(len, sample)))]
    path = given_column(path_column, numbers, "--path_column", table)
    label = given_column(label_column, numbers, "--label_column", table)
    group = given_column(group_column, numbers, "--group_column", table)
    time = given_column(time_column, numbers, "--time_column", table)
    first = " ".join(sample[0])[:80]
    flags = "Name the columns by their numbers, e.g. --path_column=1 --label_column=2."
    columns = range(len(numbers))
    paths = with_paths(sample, {label, group, time})
    if path is None:
        if len(paths) > 1:
            raise UsageError(
                f"--table={table} has several paths per line, such as pairs for verification: {first!r}. {MULTI_LABEL}."
            )
        path = paths[0] if paths else 0 if len(numbers) == 2 and label is None else None
        if path is None:
            raise UsageError(
                f"--table={table} has no header, and it is not clear which column has paths: {first!r}. {flags}"
            )
    used = {path, group, time}
    split = next((at for at in columns if at not in (label, *used) and are_splits(sample, at)), None)
    rest = [at for at in columns if at not in (split, *used)]
    if label is None:
        if len(rest) == 2 and path == 2 and all(row[0].isdigit() for row in sample):
            rest = rest[1:]  # MXNet: number, label, path
        if len(rest) != 1:
            what = "no label" if not rest else f"{len(rest)} values beside the path"
            raise UsageError(f"--table={table} has no header, and a line has {what}: {first!r}. {flags}")
        label = rest[0]
    return Columns(
        path,
        label,
        split,
        form=f"no header; paths from column {path + 1}, labels from column {label + 1}"
        + _further([f"column {name}" for name in numbers], group, time),
        group=group,
        time=time,
    )


def labels_of(plain: Sequence[str]) -> list[int]:
    """Return the columns whose names, without spaces and the like, are those of labels."""
    return ranked_columns(plain, LABELS[:2], set())


def find_path(
    plain: Sequence[str],
    sample: Sequence[Sequence[str]],
    used: Collection[int | None],
    aside: Collection[int],
    table: str,
    has: str,
) -> int:
    """Return the column of paths, which is none of `used`, and of those `aside` only if there is no other."""
    others = {*used, *aside}
    paths = ranked_columns(plain, _PATHS, others) or with_paths(sample, others)
    paths = paths or ranked_columns(plain, _PATHS, used)  # which may be stored, too
    if len(paths) != 1:
        count = "several columns" if paths else "no column"
        raise UsageError(
            f"--table={table} has {count} of paths ({', '.join(_PATH)}). {has} Name one {_PATH[0]}, or give it as "
            "--path_column=NAME."
        )
    return paths[0]


def other_columns(plain: Sequence[str], used: Collection[int | None]) -> list[int]:
    """Return the columns that are not `used` and do not count the rows."""
    return [at for at, name in enumerate(plain) if at not in used and name not in _ROW_NUMBERS]


def _one_hot(
    path: int,
    split: int | None,
    classes: Sequence[int],
    names: Sequence[str],
    sample: Sequence[Sequence[str]],
    table: str,
) -> Columns:
    for number, row in enumerate(sample, 1):
        ones = [names[at] for at in classes if zero_or_one(row[at])]
        if len(ones) > 1:
            raise UsageError(
                f"--table={table}: data row {number} has a 1 in {some_of(ones)}. {MULTI_LABEL}; or name one column of "
                "labels with --label_column=NAME."
            )
    chosen = [names[at] for at in classes]
    form = f"paths from the column {names[path]}, labels from the one-hot columns {some_of(chosen)}"
    return Columns(path, None, split, tuple(classes), tuple(chosen), form=form)


def zero_or_one(cell: str, *, signed: bool = False) -> int | None:
    """Return the value of a cell in a one-hot column, None if it is neither 0 nor 1; `signed` takes -1 and no for 0."""
    return (_SIGNED if signed else _ZERO_ONE).get(cell.strip().lower())


def plain_name(name: str) -> str:
    """Return the name of a column in lower case, without spaces and the like; a part of one, such as `y]`, has none."""
    if name.count("[") != name.count("]"):
        return name.lower()
    return re.sub(r"[\W_]+", "", name.lower())


def given_column(column: str, names: Sequence[str], flag: str, table: str) -> int | None:
    """Return the number of the column that a flag names, None if the flag is empty."""
    if not column:
        return None
    if names.count(column) > 1:
        raise UsageError(f"{flag}={column}: --table={table} has several such columns. Give the number of one, from 1.")
    if column in names:
        return names.index(column)
    lower = [name.lower() for name in names]
    if column.lower() in lower:
        return lower.index(column.lower())
    if column.isdecimal() and 1 <= int(column[:9]) <= len(names):
        return int(column) - 1
    raise UsageError(
        f"{flag}={column}: --table={table} has no such column. It has: {some_of(names)}. Give a name, or a number "
        "from 1."
    )


def split_column(plain: Sequence[str], sample: Sequence[Sequence[str]], used: Collection[int | None]) -> int | None:
    """Return the column of splits, which is none of `used`, or None."""
    named = [at for at, name in enumerate(plain) if name == SPLIT]
    named += [at for at, name in enumerate(plain) if name in SPLITS and at not in used and are_splits(sample, at)]
    named += [at for at, name in enumerate(plain) if name in _FLAGS and sample and is_zero_one(sample, at)]
    return next((at for at in named if at not in used), None)


def flag_of(plain: str) -> tuple[str, ...]:
    """Return the splits by 0 and 1 in a column of this name, none if it does not have such values."""
    return _FLAGS.get(plain, ())


def ranked_columns(plain: Sequence[str], ranks: Iterable[Collection[str]], used: Collection[int | None]) -> list[int]:
    """Return the columns with names of the first rank that any column has."""
    for names in ranks:
        if found := [at for at, name in enumerate(plain) if name in names and at not in used]:
            return found
    return []


def with_paths(sample: Sequence[Sequence[str]], used: Collection[int | None]) -> list[int]:
    """Return the columns in which most cells look like paths."""
    columns = range(min(map(len, sample), default=0))
    return [
        at
        for at in columns
        if at not in used and sum(looks_like_path(row[at].strip()) for row in sample) * 2 > len(sample)
    ]


def _have_one(sample: Sequence[Sequence[str]], columns: Sequence[int]) -> bool:
    return all(sum(zero_or_one(row[at]) or 0 for at in columns) == 1 for row in sample)


def are_splits(sample: Sequence[Sequence[str]], column: int) -> bool:
    """Return whether a column has names of splits."""
    return bool(sample) and all(split_of(row[column].strip()) for row in sample if column < len(row))


def is_zero_one(sample: Sequence[Sequence[str]], column: int, *, signed: bool = False) -> bool:
    """Return whether a column has only 0 and 1; `signed` as in `zero_or_one`."""
    return all(column < len(row) and zero_or_one(row[column], signed=signed) is not None for row in sample)
