"""Splits images by time: the training split has the earliest images, the test split the latest ones.

A model that is used on tomorrow's images is measured honestly on images that are later than all it was trained on. So
images of the same time are not divided, and a group (of copies, or by `--group_column`) counts for its latest image:
nothing in an earlier split is later than the beginning of the next one. The shares are those of `--splits`; where
images of one time lie at a border, they go to the side on which most of them are. Classes are not balanced.
"""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from tfrecords.base_errors import UsageError
from tfrecords.convert.plan.split_counts import split_counts
from tfrecords.convert.sources import printable

_MISSING = frozenset(("", "na", "n/a", "nan", "nat", "null", "none", "?"))
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_DATE = re.compile(r"(\d{4})[-:/.](\d{1,2})(?:[-:/.](\d{1,2}))?(.*)", re.DOTALL)  # EXIF writes 2024:05:31 10:00:00
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


def time_order(splits: Sequence[str]) -> list[str]:
    """Return the names of splits from the earliest to the latest: `train` first, `test` last, others as given."""
    return sorted(splits, key=lambda name: (name == "test") - (name == "train"))


def parse_times(cells: Sequence[str], paths: Sequence[str], flag: str) -> np.ndarray:
    """Return the times of images: float64 `[n]`, in s since 1970 (UTC if no zone is given) or the numbers that are
    there; NaN for an image without one.

    Raises:
        UsageError: a cell is neither a number nor a date, or only some of them are numbers.
    """
    found = [cell.strip() for cell in cells]
    present = [cell for cell in found if cell.lower() not in _MISSING]
    if not present:
        raise UsageError(f"{flag}: no image has a time. Name another column.")
    numbers = all(_NUMBER.fullmatch(cell) and math.isfinite(float(cell)) for cell in present)
    times = np.full(len(found), np.nan)
    for row, cell in enumerate(found):
        if cell.lower() in _MISSING:
            continue
        value = float(cell) if numbers else _seconds(cell)
        if value is None:
            raise UsageError(
                f"{flag}: {paths[row]} has {cell[:60]!r}, which is no time. Give all images a number, or a date with "
                "the year first, such as 2024-05-31 or 2024-05-31T10:00:00."
            )
        times[row] = value
    return times


def _seconds(cell: str) -> float | None:
    match = _DATE.fullmatch(cell)
    if match:
        year, month, day, rest = match.groups()
        cell = f"{year}-{int(month):02d}-{int(day or 1):02d}{rest if day else ''}"
    try:
        moment = datetime.datetime.fromisoformat(cell)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return (moment - _EPOCH).total_seconds()


def assign_by_time(
    times: np.ndarray, groups: np.ndarray, fractions: Mapping[str, float], flag: str
) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """Return the split of each image, as an index into `fractions`, int8 `[n]`; and for each border between two splits
    the images that have its time and were kept together, int64 arrays, which may be empty.

    Args:
        times: float64 `[n]`; NaN is before all others.
        groups: int `[n]`, for each image the number of its group.
        fractions: by split; they add up to 1.
        flag: for errors.

    Raises:
        UsageError: a split would have no image, because too many have one time.
    """
    names = list(fractions)
    order = time_order(names)
    _, group_of = np.unique(groups, return_inverse=True)
    latest = np.full(group_of.max(initial=-1) + 1, -np.inf)
    np.maximum.at(latest, group_of, np.where(np.isnan(times), -np.inf, times))
    moments, block_of, sizes = np.unique(latest[group_of], return_inverse=True, return_counts=True)
    shares = [fractions[name] for name in order]
    borders = np.cumsum(split_counts(np.array([len(times)]), shares, np.zeros(1))[0])
    starts = np.cumsum(sizes) - sizes
    place = np.minimum(np.searchsorted(borders, starts + sizes / 2), len(order) - 1)
    place[np.isneginf(moments)] = 0
    lacking = [name for number, name in enumerate(order) if not (place == number).any()]
    if lacking and len(times):
        raise UsageError(
            f"{flag}: no image is left for the split {lacking[0]!r}, because the times do not differ enough: "
            f"{int(sizes.max()):,} of {len(times):,} images have the same one. Give other shares with --splits, or a "
            "column with finer times."
        )
    tied = []
    for border in borders[:-1].tolist():
        inside = np.flatnonzero((starts < border) & (border < starts + sizes) & ~np.isneginf(moments))
        tied.append(np.flatnonzero(np.isin(block_of, inside)))
    numbers = np.array([names.index(name) for name in order], np.int8)
    return numbers[place[block_of]], tuple(tied)


def time_notes(
    times: np.ndarray,
    cells: Sequence[str],
    paths: Sequence[str],
    splits: np.ndarray,
    names: Sequence[str],
    tied: Iterable[np.ndarray],
    flag: str,
) -> list[str]:
    """Return notes: from when to when each split is, and what became of images without a time and of those at a border.

    `times`, `cells` (what was written), `paths` and `splits` are of each image; `tied` is that of `assign_by_time`.
    """
    order = time_order(names)
    parts = []
    for name in order:
        members = np.flatnonzero((splits == names.index(name)) & ~np.isnan(times))
        if len(members):
            ends = members[np.argmin(times[members])], members[np.argmax(times[members])]
            parts.append(f"{name} {' to '.join(dict.fromkeys(cells[end].strip() for end in ends))}")
    notes = [f"{flag}: {', '.join(parts)}"]
    missing = np.flatnonzero(np.isnan(times)).tolist()
    if missing:
        have = f"{len(missing):,} images have" if len(missing) > 1 else "1 image has"
        found = {names[splits[row]] for row in missing}
        where = " and ".join(name for name in order if name in found)
        why = "" if found == {order[0]} else ", with the rest of their group or their copies"
        example = printable(paths[missing[0]])
        notes.append(f"{flag}: {have} no time, e.g. {example}; such images are in {where}{why}")
    for members in tied:
        if len(members):
            moment = cells[members[np.nanargmax(times[members])]].strip()
            together = f"{len(members):,} images have" if len(members) > 1 else "1 image has"
            notes.append(
                f"{flag}: {together} the time {moment} at the border of two splits, or belong to a group or copies "
                f"that end then; all of them are in {names[splits[members[0]]]}"
            )
    return notes
