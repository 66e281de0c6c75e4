"""How many images of each class go to each split, so that the shares hold for every class and for all images together.

A class of two images cannot give a quarter of them to the test split. A thousand such classes can: half of them give it
one image. So each class first divides its images by itself: each split gets floor(n * fraction), and the rest goes to
the splits with the largest remainders, earlier splits first. If the totals then differ from the shares of all images,
which are rounded in the same way, as few images as possible are given to other splits, in the classes where that costs
the least: an image moves from split a to split b of its class at the price of a's remainder minus b's. No class gives a
split less than floor(n * fraction) or more than one image above it.

This is the controlled rounding of a table (Cox, "A constructive procedure for unbiased controlled rounding", JASA 82,
1987), found as a flow of least cost. Classes with equal remainders count as one, so a million classes take no longer
than a hundred.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

_DIGITS = 9  # remainders are rounded, because 50 * 0.29 is 14.499999999999998


def split_counts(sizes: np.ndarray, fractions: Sequence[float], ranks: np.ndarray) -> np.ndarray:
    """Return the number of images that each class gives to each split: int64 `[num_classes, num_splits]`.

    Args:
        sizes: int `[num_classes]`, the images of each class.
        fractions: the share of each split; they add up to 1.
        ranks: `[num_classes]`, distinct numbers. Of classes with equal remainders, they decide which one gives the
            image.
    """
    shares = np.asarray(fractions) / sum(fractions)
    counts, remainders = _floors(sizes[:, None] * shares)
    kinds, kind_of, members = np.unique(remainders, axis=0, return_inverse=True, return_counts=True)
    kind_of = kind_of.reshape(-1)  # NumPy 2.0 gave it two dimensions
    extras = _largest(kinds) * members[:, None]
    floors, rest = _floors(sizes.sum() * shares[None])
    totals = floors + _largest(rest)
    _balance(extras, kinds, members, totals[0] - counts.sum(axis=0))

    in_order = np.lexsort((ranks, kind_of))
    starts = np.cumsum(members) - members
    for kind, (start, size) in enumerate(zip(starts.tolist(), members.tolist(), strict=True)):
        # The extra images of a kind are dealt to its classes in turn, split after split. No split has more of them than
        # there are classes, so no class gets two for one split.
        splits = np.repeat(np.arange(len(fractions)), extras[kind])
        rows = in_order[start + np.arange(len(splits)) % size]
        counts[rows, splits] += 1
    return counts


def _floors(exact: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    floors = np.floor(exact + 10.0**-_DIGITS).astype(np.int64)
    return floors, np.maximum(np.round(exact - floors, _DIGITS), 0)


def _largest(remainders: np.ndarray) -> np.ndarray:
    """Return 1 for as many of the largest remainders of each row as it has whole images left, earlier columns first,
    and 0 for the others.
    """
    left = np.rint(remainders.sum(axis=1, keepdims=True))
    order = np.argsort(-remainders, axis=1, kind="stable")
    chosen = np.zeros(remainders.shape, np.int64)
    np.put_along_axis(chosen, order, (np.arange(remainders.shape[1]) < left).astype(np.int64), axis=1)
    return chosen


def _balance(extras: np.ndarray, kinds: np.ndarray, members: np.ndarray, wanted: np.ndarray) -> None:
    """Change `extras`, int64 `[num_kinds, num_splits]`, so that its columns add up to `wanted`, at the least cost.

    While a split has too many images, the cheapest chain of moves leads to a split that has too few: Bellman and Ford's
    shortest path over the splits. Each chain moves as many images as all of its links allow.
    """
    num_splits = len(wanted)
    splits = np.arange(num_splits)
    while (missing := wanted - extras.sum(axis=0)).any():
        givers = extras > 0
        takers = (extras < members[:, None]) & (kinds > 0)
        cost = np.full((num_splits, num_splits), np.inf)
        kind = np.zeros((num_splits, num_splits), np.int64)
        for split in splits:
            price = np.where(givers[:, split, None] & takers, kinds[:, split, None] - kinds, np.inf)
            kind[split] = price.argmin(axis=0)
            cost[split] = price[kind[split], splits]
        distance = np.where(missing < 0, 0.0, np.inf)
        before = np.full(num_splits, -1)
        for _ in splits:
            through = distance[:, None] + cost
            nearest = through.argmin(axis=0)
            better = through[nearest, splits] < distance - 10.0**-_DIGITS
            if not better.any():
                break
            distance[better] = through[nearest, splits][better]
            before[better] = nearest[better]
        end = int(np.where(missing > 0, distance, np.inf).argmin())
        assert np.isfinite(distance[end]), "a table of fractions can always be rounded"
        chain = [end]
        while before[chain[-1]] >= 0:
            chain.append(int(before[chain[-1]]))
        chain.reverse()
        links = list(itertools.pairwise(chain))
        room = [min(extras[kind[a, b], a], members[kind[a, b]] - extras[kind[a, b], b]) for a, b in links]
        amount = min(*room, -missing[chain[0]], missing[end])
        for a, b in links:
            extras[kind[a, b], a] -= amount
            extras[kind[a, b], b] += amount
