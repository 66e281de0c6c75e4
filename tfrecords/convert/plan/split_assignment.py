"""Assigns images to splits, from the image's name, the seed, and the images that it is a copy of.

Stratified: every class is divided in the same proportions. Stable: the order within a class comes from a hash of (seed,
path) and not from a random generator, whose stream a library could change. Copies of one image go to one split, so that
no test image was also trained on under another name.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping

import numpy as np

from tfrecords.base_errors import UsageError
from tfrecords.format.naming import check_split

# The value of --splits that keeps the source's own splits.
SOURCE_SPLITS = "source"


def parse_splits(text: str) -> dict[str, float]:
    """Return the fractions in e.g. `train=0.75,test=0.25`, by split, in the order given; none for `source`.

    Raises:
        UsageError: it does not have this form, a fraction is not in 0..1, or they do not add up to 1.
    """
    fractions: dict[str, float] = {}
    if text == SOURCE_SPLITS:
        return fractions
    for part in text.split(","):
        name, _, value = part.partition("=")
        try:
            fractions[check_split(name.strip())] = float(value)
        except ValueError:
            raise UsageError(f"--splits={text}: {part!r} should be NAME=FRACTION, e.g. train=0.75,test=0.25.") from None
    total = sum(fractions.values())
    if any(not 0 < fraction <= 1 for fraction in fractions.values()) or abs(total - 1) > 1e-6:
        raise UsageError(f"--splits={text}: fractions should be above 0 and add up to 1; these add up to {total:g}.")
    return fractions


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

    A class of n images gives each split floor(n * fraction) of them. The rest goes to the splits with the largest
    remainders, earlier splits first. A group of copies counts for the class of its first image, and a group that
    straddles a border goes to the earlier split as a whole.

    Args:
        labels: int `[n]`.
        ranks: uint64 `[n]`, the order in which a class's images are assigned.
        fractions: by split, adds up to 1.
        groups: int `[n]`, for each image the index of one image of its group of copies; by default there are no copies.
    """
    if groups is None:
        groups = np.arange(len(labels))
    by_rank = np.lexsort((np.arange(len(labels)), ranks))
    _, first, group_of, sizes = np.unique(groups[by_rank], return_index=True, return_inverse=True, return_counts=True)
    leaders = by_rank[first]  # of each group, the image with the lowest rank

    split_of_group = np.zeros(len(leaders), np.int8)
    order = np.lexsort((first, labels[leaders]))
    _, starts = np.unique(labels[leaders[order]], return_index=True)
    for start, stop in zip(starts, [*starts[1:], len(order)], strict=True):
        members = order[start:stop]
        assigned = np.cumsum(sizes[members]) - sizes[members]
        borders = _borders(int(sizes[members].sum()), fractions)
        split_of_group[members] = np.searchsorted(borders, assigned, side="right")
    splits = np.empty(len(labels), np.int8)
    splits[by_rank] = split_of_group[group_of]
    return splits


def _borders(num_images: int, fractions: Mapping[str, float]) -> np.ndarray:
    exact = [num_images * fraction for fraction in fractions.values()]
    counts = [int(value + 1e-9) for value in exact]
    # A stable sort: of equal remainders, the earlier split's comes first. Rounded, as 50 * 0.29 is 14.499999999999998.
    by_remainder = sorted(range(len(exact)), key=lambda split: round(counts[split] - exact[split], 9))
    for split in by_remainder[: num_images - sum(counts)]:
        counts[split] += 1
    return np.cumsum(counts)
