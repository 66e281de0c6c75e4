"""Copies across the splits of a data set: what a model was tested on, and had been trained on under another name.

Pairs of copies are found as in `simimg.similarity.copy_pairs`, but only between splits: each picture is held against
those of the other splits. The later split of a pair is the one that is affected; splits come in the order of their use:
`train` first, `test` last.

A split is clean if none of its pictures is a copy of one in another. To get there, copies are put into one group, and
groups are dealt to the splits whole:

first    each group goes to the earliest split that it is in, as `simimg convert` deals them. So nothing leaves the
         training split, and a model that was trained on it before can be measured on the test that is left.
shares   each group goes to the one of its splits that lacks most of its class. Splits keep their sizes where every
         photo has copies, as in a set that was augmented before it was split; models have to be trained anew.

What was moved is a neighbour of other pictures than before, so the search is repeated, until it finds no pair.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from simimg.similarity.copy_pairs import SAME_BYTES, PairExaminer, explained, hash_pairs, representatives
from simimg.similarity.search_index import IndexedImage, SearchIndex

__all__ = ["DEALS", "LeakedPair", "Leaks", "deal_groups", "find_leaks"]

DEALS = ("first", "shares")


@dataclasses.dataclass(frozen=True, slots=True)
class LeakedPair:
    """A picture that is a copy of one in an earlier split.

    Attributes:
        row: in the index.
        picture: itself.
        other_row: of the one in the earlier split.
        other: that one.
        similarity: 0.5..1.
        reason: what was done to the picture, taking the other for the original.
    """

    row: int
    picture: IndexedImage
    other_row: int
    other: IndexedImage
    similarity: float
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Leaks:
    """What was found.

    Attributes:
        splits: the data set's, in the order of their use.
        num_images: by split.
        pairs: the most similar first.
        cleaned: by row, the split that each picture should be in; None where it was not asked for.
        num_pairs_examined: pairs that were looked at.
        num_stored: pictures that were looked at by their stored pixels.
        num_missing: pictures that could not be looked at.
    """

    splits: tuple[str, ...]
    num_images: dict[str, int]
    pairs: tuple[LeakedPair, ...]
    cleaned: tuple[str, ...] | None
    num_pairs_examined: int
    num_stored: int
    num_missing: int

    def affected(self, split: str, by: str = "") -> int:
        """Returns how many pictures of a split are copies of pictures in an earlier one: in `by`, or in any."""
        return len({pair.row for pair in self.pairs if pair.picture.split == split and by in ("", pair.other.split)})


def find_leaks(
    index: SearchIndex,
    *,
    threshold: float,
    deal: str | None = None,
    progress: Callable[[int], object] = lambda num_pictures: None,
) -> Leaks:
    """Returns the copies across the splits of an index's pictures.

    Args:
        index: of a data set, opened.
        threshold: the least similarity of copies, 0.5..1.
        deal: one of `DEALS`, to be told the splits of a clean data set, too.
        progress: called with the number of pictures since the last call.
    """
    if deal is not None and deal not in DEALS:
        raise ValueError(f"`deal` should be one of {DEALS}. Received: deal={deal!r}")
    named = index.pictures.column("split").tolist()
    names = tuple(sorted(dict.fromkeys(named), key=lambda name: (name != "train", name == "test")))
    splits = np.array([names.index(name) for name in named], np.int64)
    examiner = PairExaminer(index, threshold)
    try:
        edges = _edges(examiner, splits, progress)
        pairs = _pairs(examiner, splits, edges)
        dealt, joined = splits, edges
        while deal is not None and edges:
            dealt = deal_groups(splits, _labels(index), joined, deal)
            edges = _edges(examiner, dealt, lambda num_pictures: None)
            joined = joined + edges
        return Leaks(
            splits=names,
            num_images=dict(Counter(named)),
            pairs=tuple(pairs),
            cleaned=None if deal is None else tuple(names[split] for split in dealt.tolist()),
            num_pairs_examined=examiner.num_examined,
            num_stored=len(examiner.originals.stored),
            num_missing=len(examiner.originals.missing),
        )
    finally:
        examiner.close()


def deal_groups(splits: np.ndarray, labels: np.ndarray, pairs: Iterable[tuple[int, int]], deal: str) -> np.ndarray:
    """Returns the split of each picture when copies are kept together: int64 `[num_images]`.

    Args:
        splits: int64 `[num_images]`, what they are in now, the earliest being 0.
        labels: int64 `[num_images]`; a group counts for the class of its first picture.
        pairs: rows of copies.
        deal: one of `DEALS`.
    """
    listed = np.array(list(pairs), np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(listed), bool), (listed[:, 0], listed[:, 1])), shape=(len(splits),) * 2)
    num_groups, groups = connected_components(graph, directed=False)
    earliest, latest = np.full(num_groups, splits.max(initial=0)), np.zeros(num_groups, np.int64)
    np.minimum.at(earliest, groups, splits)
    np.maximum.at(latest, groups, splits)
    if deal == "first":
        return earliest[groups]
    dealt = splits.copy()
    members: dict[int, list[int]] = defaultdict(list)
    for row in np.flatnonzero((earliest < latest)[groups]).tolist():
        members[int(groups[row])].append(row)
    lacks = Counter((labels[row], splits[row]) for rows in members.values() for row in rows)
    for rows in sorted(members.values(), key=lambda rows: (-len(rows), rows[0])):
        label = labels[rows[0]]
        chosen = max(sorted({int(splits[row]) for row in rows}), key=lambda split: lacks[label, split])
        lacks[label, chosen] -= len(rows)
        dealt[rows] = chosen
    return dealt


def _labels(index: SearchIndex) -> np.ndarray:
    return np.unique(index.pictures.column("label").astype(str), return_inverse=True)[1]


def _edges(examiner: PairExaminer, splits: np.ndarray, progress: Callable[[int], object]) -> list[tuple[int, int]]:
    """Pairs of copies in two splits; of files of the same bytes, all with the first in each other split."""
    index = examiner.index
    rows = np.arange(len(splits))
    sha256 = index.pictures.column("sha256")
    same = representatives(sha256, splits)
    singles = same == rows
    progress(int((~singles).sum()))
    examiner.examine_pairs(hash_pairs(index, rows[singles], splits))
    for split in np.unique(splits):
        own = splits == split
        examiner.examine_neighbors(rows[singles & own], singles & ~own, progress)
    edges = [pair for pair in examiner.copies if splits[pair[0]] != splits[pair[1]]]
    first_of: dict[str, dict[int, int]] = defaultdict(dict)
    for row in rows[singles].tolist():
        first_of[sha256[row]][int(splits[row])] = row
    for row in rows.tolist():
        edges += [(other, row) for split, other in first_of[sha256[row]].items() if split != splits[row]]
    return edges


def _pairs(examiner: PairExaminer, splits: np.ndarray, edges: list[tuple[int, int]]) -> list[LeakedPair]:
    pictures = examiner.index.pictures
    sha256 = pictures.column("sha256")
    alike = defaultdict(list)
    for row, single in enumerate(representatives(sha256, splits).tolist()):
        alike[single].append(row)
    pairs: dict[tuple[int, int], LeakedPair] = {}
    for pair in edges:
        other, row = sorted(pair, key=lambda one: (splits[one], one))
        if sha256[row] == sha256[other]:
            found, similarity, reason = [row], 1.0, SAME_BYTES
        else:
            seen = examiner.explain(row, other) or examiner.copy(row, other)
            assert seen is not None
            least = examiner.copy(row, other)  # the other way round, what is covered weighs a little more or less
            similarity = max(seen.similarity, least.similarity if least else 0.0)
            found, reason = alike[row], explained(seen)
        for each in found:
            pairs[each, other] = LeakedPair(each, pictures[each], other, pictures[other], similarity, reason)
    return sorted(pairs.values(), key=lambda pair: (-pair.similarity, pair.row, pair.other_row))
