"""Assigns whole groups of images to splits: the images of one patient, camera or film stay on one side.

Groups come from a column of a table (`--group_column`) or from the paths (`--group_pattern`), and are joined with the
groups of copies: if an image of one patient is a copy of an image of another one, both patients stay together.

The assignment is greedy. Groups are taken by size, the largest first, and of equally large ones by their random ranks.
Each goes to a split that has room for it, and of those to the one that lacks most, by its share, of the group's classes
(each class counts the same, however large it is). If no split has room, it goes to the one with the most room left. So
no split exceeds its share by as much as the size of the largest group, small groups even out what large ones leave, and
each split gets large and small groups in proportion. Splits without a group get one as long as there are enough.

This is the largest-first rule for packing (Graham, "Bounds on multiprocessing timing anomalies", SIAM Journal on
Applied Mathematics 17, 1969), with the choice among the splits made by class.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from tfrecords.base_errors import UsageError
from tfrecords.convert.sources import Source, printable
from tfrecords.format.naming import fold_name, num_folds

MAX_FOLDS = 100
_EPSILON = 1e-9  # shares of images are fractions such as 4.6, and their sums are rounded


def fold_fractions(folds: int) -> dict[str, float]:
    """Return the fractions of the splits fold1, fold2, …"""
    return {fold_name(number): 1 / folds for number in range(1, folds + 1)}


def parse_group_pattern(pattern: str) -> re.Pattern[str]:
    """Return the expression of --group_pattern; raise UsageError if it is not one."""
    try:
        return re.compile(pattern)
    except re.error as error:
        raise UsageError(
            f"--group_pattern={pattern}: is not a regular expression: {error}. An example is '(patient[0-9]+)_'."
        ) from None


def group_of_path(path: str, pattern: str) -> str:
    """Return the name of the group of a printable path, "" if the pattern does not match."""
    match = re.search(pattern, path)
    taking_part = [group for group in match.groups() if group is not None] if match else []
    return "" if match is None else taking_part[0] if taking_part else match[0]


def group_names(source: Source, pattern: str) -> list[str] | None:
    """Return the name of each file's group, "" if it has none; None if the images are not grouped by names.

    With a pattern, it is the first group of the expression that takes part in the match, or else the whole match.

    Raises:
        UsageError: the pattern matches no path of an image.
    """
    if not pattern:
        return source.groups
    names = [group_of_path(printable(path), pattern) for path in source.paths]
    usable = source.usable().tolist()
    if usable and not any(names[row] for row in usable):
        raise UsageError(
            f"--group_pattern={pattern} matches none of the {len(usable):,} paths in {source.location}, such as "
            f"{printable(source.paths[usable[0]])}. Paths are relative to the source."
        )
    return names


def group_codes(names: Sequence[str], number_of: Mapping[str, int]) -> np.ndarray:
    """Return the number of each name, -1 for "": int64 `[n]`."""
    return np.array([number_of[name] if name else -1 for name in names], np.int64)


def check_groups(
    names: Iterable[str], fractions: Mapping[str, float], flag: str, *, what: str = "groups"
) -> tuple[str, ...]:
    """Raise UsageError if the groups cannot be divided in these shares; return notes for the user.

    `names` are those of the images that are divided, one per image, "" for images that are no part of a group.
    """
    counts = Counter(names)
    alone = counts.pop("", 0)
    total = sum(counts.values()) + alone
    if len(counts) + alone < len(fractions):
        raise too_few_groups(len(counts) + alone, fractions, flag, what)
    name, size = max(counts.items(), key=lambda item: (item[1], item[0]), default=("", 0))
    split, share = max(fractions.items(), key=lambda item: item[1])
    if size >= share * total + 1:
        raise UsageError(
            f"{flag}: the group {name!r} has {size:,} of the {total:,} images, more than the share of any split "
            f"({split} {share:.4g}), and a group is not divided. Give a share that holds it"
            f"{', with fewer --folds' if _are_folds(fractions) else ', with --splits'}, or leave its images out."
        )
    if not alone or not counts:
        return ()
    return (f"{alone:,} images have no group ({flag}); each is divided as one of its own",)


def too_few_groups(count: int, fractions: Mapping[str, float], flag: str, what: str) -> UsageError:
    """Return the error of having fewer groups than splits."""
    fix = f"Give --folds={count} or fewer" if count > 1 else "Give more images"
    if not _are_folds(fractions):
        fix = "Give fewer splits, or smaller groups"
    splits = f"{len(fractions)} {'folds' if _are_folds(fractions) else 'splits'}"
    return UsageError(f"{flag}: {count:,} {what} cannot be divided among {splits}. {fix}.")


def _are_folds(fractions: Mapping[str, float]) -> bool:
    return num_folds(fractions) > 0


def assign_groups(
    labels: np.ndarray, ranks: np.ndarray, fractions: Mapping[str, float], groups: np.ndarray
) -> np.ndarray:
    """Return the split of each image, as an index into `fractions`: int8 `[n]`; no group is in two splits.

    No split has more images than n * fraction plus the size of the largest group, and none is empty if there are as
    many groups as splits.

    Args:
        labels: int `[n]`.
        ranks: uint64 `[n]`, the order of groups of one size.
        fractions: by split; they add up to 1.
        groups: int `[n]`, for each image the number of its group.
    """
    num_images, num_splits = len(labels), len(fractions)
    if not num_images:
        return np.zeros(0, np.int8)
    by_rank = np.lexsort((np.arange(num_images), ranks))
    _, first, group_of, sizes = np.unique(groups[by_rank], return_index=True, return_inverse=True, return_counts=True)
    _, kinds, class_sizes = np.unique(labels[by_rank], return_inverse=True, return_counts=True)
    cells, counts = np.unique(group_of.astype(np.int64) * len(class_sizes) + kinds, return_counts=True)
    owners, classes = np.divmod(cells, len(class_sizes))
    starts = np.searchsorted(owners, np.arange(len(sizes) + 1)).tolist()

    shares = [fraction / sum(fractions.values()) for fraction in fractions.values()]
    room = [share * num_images for share in shares]
    # What each split lacks of each class, as a part of its share of that class; 1 at the beginning.
    lacks = [[1.0] * num_splits for _ in class_sizes]
    steps = [[1 / (share * size) for share in shares] for size in class_sizes.tolist()]
    weights = (counts / class_sizes[classes]).tolist()
    num_each, class_list = counts.tolist(), classes.tolist()
    empty = set(range(num_splits))
    split_of_group = np.zeros(len(sizes), np.int8)
    order = np.lexsort((first, -sizes)).tolist()
    for number, group in enumerate(order):
        size, cell_range = int(sizes[group]), range(starts[group], starts[group + 1])
        if len(empty) >= len(order) - number:
            candidates = sorted(empty)
        else:
            candidates = [split for split in range(num_splits) if room[split] >= size - _EPSILON]
        if not candidates:
            most = max(room)
            candidates = [split for split in range(num_splits) if room[split] > max(_EPSILON, most - 1)]
        best, best_key = candidates[0], (-np.inf, -np.inf)
        for split in candidates:
            need = sum(weights[cell] * lacks[class_list[cell]][split] for cell in cell_range)
            key = (round(need, 9), round(room[split] / shares[split], 6))
            if key > best_key:
                best, best_key = split, key
        split_of_group[group] = best
        empty.discard(best)
        room[best] -= size
        for cell in cell_range:
            kind = class_list[cell]
            lacks[kind][best] -= num_each[cell] * steps[kind][best]
    splits = np.empty(num_images, np.int8)
    splits[by_rank] = split_of_group[group_of]
    return splits
