"""Assigns images to splits, from the image's name, the seed, and the images that it is a copy of.

Stratified: every class is divided in the same proportions, and so are all images together, also if no class is large
enough for that (`tfrecords.convert.plan.split_counts`). Or every class gives the same number of images to a
split, as the protocols of published benchmarks demand (`assign_counts`). Stable: the order within a class comes from a
hash of (seed, path) and not from a random generator, whose stream a library could change. Copies of one image go to one
split, so that no test image was also trained on under another name.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from tfrecords.base_errors import UsageError
from tfrecords.convert.plan.split_counts import split_counts
from tfrecords.format.naming import check_splits

# Values of --splits: keep the source's own splits; do that if its folders are splits, or else take the default.
SOURCE_SPLITS = "source"
AUTO_SPLITS = "auto"
DEFAULT_SPLITS = "train=0.75,test=0.25"

REST = "rest"
"""The split of the images that are in no other one, where splits have numbers of images instead of shares."""


def parse_splits(text: str) -> dict[str, float]:
    """Return the fractions in e.g. `train=0.75,test=0.25`, by split, in the order given.

    For `auto` they are those of `DEFAULT_SPLITS`, and for `source` there are none. With colons, as in
    `train:30,test:50`, they are numbers of images of each class instead, and `REST` follows with an infinite number.

    Raises:
        UsageError: it does not have this form, a fraction is not in 0..1, they do not add up to 1, or a number is not a
            whole number above 0.
    """
    fractions: dict[str, float] = {}
    if text == SOURCE_SPLITS:
        return fractions
    if ":" in text:
        return _parse_counts(text)
    for part in (DEFAULT_SPLITS if text == AUTO_SPLITS else text).split(","):
        name, _, value = part.partition("=")
        try:
            fractions[name.strip()] = float(value)
        except ValueError:
            raise UsageError(f"--splits={text}: {part!r} should be NAME=FRACTION, e.g. train=0.75,test=0.25.") from None
    check_splits(fractions)
    total = sum(fractions.values())
    if any(not 0 < fraction <= 1 for fraction in fractions.values()) or abs(total - 1) > 1e-6:
        raise UsageError(f"--splits={text}: fractions should be above 0 and add up to 1; these add up to {total:g}.")
    return fractions


def _parse_counts(text: str) -> dict[str, float]:
    counts: dict[str, float] = {}
    for part in text.split(","):
        name, _, value = (word.strip() for word in part.partition(":"))
        if not value.isdecimal() or not int(value):
            raise UsageError(
                f"--splits={text}: {part!r} should be NAME:NUMBER, a number of images of each class, e.g. "
                "train:30,test:50. Shares are written train=0.75,test=0.25."
            )
        if name in counts:
            raise UsageError(f"--splits={text}: has the split {name} twice. Give it once.")
        counts[name] = int(value)
    if REST in counts:
        raise UsageError(f"--splits={text}: {REST} gets the images that are left. Give no number for it.")
    check_splits([*counts, REST])
    return {**counts, REST: math.inf}


def are_counts(fractions: Mapping[str, float]) -> bool:
    """Return whether the result of `parse_splits` has numbers of images of each class, instead of fractions."""
    return math.inf in fractions.values()


def splits_text(fractions: Mapping[str, float]) -> str:
    """Return the text that `parse_splits` makes these fractions of, always written in the same way."""
    sign = ":" if are_counts(fractions) else "="
    return ",".join(f"{name}{sign}{value:.15g}" for name, value in fractions.items() if value < math.inf)


def draw_ranks(seed: int, paths: Iterable[str]) -> np.ndarray:
    """Return two random numbers per path, equal on every machine: uint64 `[n, 2]`.

    The first one orders the images for the assignment to splits, the second one orders them within a split. They are
    the first eight bytes of BLAKE2b-128 of seed, purpose and path.
    """
    heads = (f"{seed}\0split\0".encode(), f"{seed}\0order\0".encode())
    digests = bytearray()
    for path in paths:
        name = os.fsencode(path)
        for head in heads:
            digests += hashlib.blake2b(head + name, digest_size=16).digest()[:8]
    return np.frombuffer(digests, dtype=">u8").reshape(-1, 2).astype(np.uint64)


def assign_splits(
    labels: np.ndarray, ranks: np.ndarray, fractions: Mapping[str, float], groups: np.ndarray | None = None
) -> np.ndarray:
    """Return the split of each image, as an index into `fractions`: int8 `[n]`.

    Of all n images together, each split gets its share, rounded as in `split_counts`, and of each class floor(n *
    fraction) images or one more. A group of copies counts for the class of its first image, and a group that straddles
    a border goes to the earlier split as a whole.

    Args:
        labels: int `[n]`.
        ranks: uint64 `[n]`, the order in which a class's images are assigned.
        fractions: by split, adds up to 1.
        groups: int `[n]`, for each image the index of one image of its group of copies; by default there are no copies.
    """
    by_rank = np.argsort(ranks, kind="stable")
    group_of: slice | np.ndarray
    if groups is None:  # apart, because the memory of a large plan is decided here
        leaders, group_of, sizes = by_rank, slice(None), np.broadcast_to(1, len(labels))
        order = np.argsort(labels[leaders], kind="stable")
    else:
        _, first, group_of, sizes = np.unique(
            groups[by_rank], return_index=True, return_inverse=True, return_counts=True
        )
        leaders = by_rank[first]  # of each group, the image with the lowest rank
        order = np.lexsort((first, labels[leaders]))

    split_of_group = np.zeros(len(leaders), np.int8)
    ordered = labels[leaders][order]
    if not len(ordered):
        return np.zeros(0, np.int8)
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    # Which classes give a split one image more is decided by the ranks of their first images, not by their names.
    class_ranks = order[starts] if groups is None else first[order[starts]]
    borders = np.cumsum(
        split_counts(np.add.reduceat(sizes[order], starts), list(fractions.values()), class_ranks), axis=1
    )
    for number, (start, stop) in enumerate(zip(starts, [*starts[1:], len(order)], strict=True)):
        members = order[start:stop]
        assigned = np.cumsum(sizes[members]) - sizes[members]
        split_of_group[members] = np.searchsorted(borders[number], assigned, side="right")
    splits = np.empty(len(labels), np.int8)
    splits[by_rank] = split_of_group[group_of]
    return splits


def assign_counts(
    labels: np.ndarray,
    ranks: np.ndarray,
    counts: Mapping[str, float],
    groups: np.ndarray,
    class_names: Sequence[str] = (),
) -> np.ndarray:
    """Return the split of each image, as an index into `counts`: int8 `[n]`.

    The images of a class are assigned by their ranks to the first split that does not have its number of them yet. A
    group goes as a whole to the first split that has room for it, so no split has more images of a class than its
    number.

    Args:
        labels: int `[n]`.
        ranks: uint64 `[n]`, the order in which a class's images are assigned.
        counts: by split, the number of images of each class; that of the last split is infinite.
        groups: int `[n]`, for each image the number of its group of images that stay together.
        class_names: by label, for the error.

    Raises:
        UsageError: a class has too few images, so that a split has none of it.
    """
    members: dict[int, list[int]] = {}
    for row in np.lexsort((np.arange(len(labels)), ranks)).tolist():
        members.setdefault(int(groups[row]), []).append(row)
    classes = labels.tolist()
    room = {label: list(counts.values()) for label in set(classes)}
    splits = np.empty(len(labels), np.int8)
    for rows in members.values():
        needed = Counter(classes[row] for row in rows)
        split = next(
            split for split in range(len(counts)) if all(room[label][split] >= needed[label] for label in needed)
        )
        splits[rows] = split
        for label, number in needed.items():
            room[label][split] -= number
    for label, left in sorted(room.items()):
        for (name, wanted), free in zip(counts.items(), left, strict=True):
            if free == wanted < math.inf:
                kind = f"the class {class_names[label]!r}" if label < len(class_names) else "a class"
                raise UsageError(
                    f"--splits={splits_text(counts)}: {kind} has {classes.count(label):,} images, and none is left for "
                    f"{name}. Give smaller numbers, or choose the classes with --categories."
                )
    return splits
