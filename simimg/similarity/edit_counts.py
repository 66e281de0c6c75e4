"""How many edits the images of a group show against each other: their original shows the fewest.

Between the original and an edited copy lies one edit, and between two copies with an edit each lie two. An edited copy
so has (n - 2) / (n - 1) edits more than its original, on average, in a group of n with one edit each.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

from simimg.similarity.copy_pairs import PairExaminer
from simimg.similarity.copy_reasons import GEOMETRY, GREY, POSITIONS, is_coverage
from simimg.similarity.edits import BLUR, COLOR, EXCHANGE, OVERLAY, PLANNED
from simimg.similarity.match_verification import HARMLESS, Verification
from simimg.similarity.transparency import TRANSPARENT

AS_EDITED = 0.45
"""Edits, on average, that make no difference: half an edit in a group of three does."""

_CHANGED = 0.9  # changes, on average, from which it is not the other images that were changed
_LAID_OVER = 0.25  # share of what differs; below it, it was laid over the other image
_WITNESSES = 8  # images against which the edits of another one are counted
_COMPARED = 6  # images that are compared with each other; of more, each is compared with about four


def visible_edits(examiner: PairExaminer, row: int, cluster: Sequence[int]) -> tuple[float, float]:
    """Return the mean number of visible edits of a row against some members, and the share of these, itself among them,
    against which it is turned or mirrored.

    A crop, text and blur are visible, a size is not. That it is transparent where others were laid on a color is no
    edit, nor is what was laid over the other one. A gray copy of a photo in color has one more than the photo.
    """
    step = max(1, round((len(cluster) - 1) / _WITNESSES))  # members of all sizes: the largest ones may all be enlarged
    witnesses = [cluster[0], *cluster[1::step]]
    geometry, others = list[int](), list[int]()
    num_turned = 0
    for other in witnesses:
        if other == row:
            continue
        reasons: Sequence[str]
        if found := examiner.copy(row, other):
            reasons = found.reasons
        elif (place := examiner.place(row, other)) is not None:  # of copies of a third one, this alone is known
            reasons = examiner.images.geometric_edits(row, other, place)
        else:
            continue
        geometry.append(sum(reason.startswith(GEOMETRY) for reason in reasons))
        num_turned += any(reason.startswith(POSITIONS) for reason in reasons)
        if found is not None:
            edits = [reason for reason in reasons if not reason.startswith((*HARMLESS, TRANSPARENT, *GEOMETRY))]
            if _on_query(found) < _LAID_OVER:
                edits = [reason for reason in edits if not is_coverage(reason)]
            others.append(len(edits) + edits.count(GREY))
    count = sum(sum(counts) / max(1, len(counts)) for counts in (geometry, others))
    return count, num_turned / max(1, len(geometry) + (row in witnesses))


def edits_of_cluster(examiner: PairExaminer, cluster: Sequence[int]) -> dict[int, tuple[float, float]]:
    """Return `visible_edits` of each member; a member gets the number of edits of its reduced copy if that is lower.

    Members are counted against different ones, and noise and blur do not show beside a reduced copy, so it may have
    fewer edits. But it was made from the larger one, which has more detail.
    """
    edits = {row: visible_edits(examiner, row, cluster) for row in cluster}
    most = min(count for count, _ in edits.values()) + AS_EDITED
    least = sorted((row for row in cluster if edits[row][0] <= most), key=examiner.rank.__getitem__)
    for row in cluster:
        if edits[row][0] > most:
            smaller = itertools.islice((one for one in least if examiner.rank[one] > examiner.rank[row]), _WITNESSES)
            reduced = next((one for one in smaller if _is_plain(examiner, one, row)), row)
            edits[row] = edits[reduced][0], edits[row][1]
    return edits


def num_changes(examiner: PairExaminer, row: int, other: int) -> int:
    """Return how many changes of a row, if the other one is the original, show that it is not the original itself.

    These are other colors, of which gray counts twice, and what was laid over it rather than the other one.
    """
    found = examiner.seen(row, other)
    if found is None:
        return 0
    is_covered = OVERLAY in found.edits and BLUR not in found.edits  # blur removes details, which are no overlay
    is_covered = is_covered and _on_query(examiner.explain(row, other)) > 1 - _LAID_OVER
    return bool(found.edits & {COLOR, EXCHANGE}) + (GREY in found.reasons) + is_covered


def _is_plain(examiner: PairExaminer, row: int, other: int) -> bool:
    """Whether a row differs from another one in nothing but size and compression."""
    seen = examiner.seen(row, other)
    if seen is None or not seen.edits - {OVERLAY} <= PLANNED:
        return False
    found = examiner.explain(row, other)
    return found is not None and found.edits <= PLANNED


def _on_query(found: Verification | None) -> float:
    """Return the share of what differs that was laid over the query rather than the other image, 0.5 if not known."""
    return 0.5 if found is None or found.differs is None else found.differs.on_query


def least_changed(rows: Sequence[int], changes: Callable[[int, int], int]) -> list[int]:
    """Return the rows of a group that were changed no more than others; `changes` is as `num_changes` counts them.

    Rows that are changed against nearly all others are left out, and the rest is looked at again without them.
    """
    left = list(rows)
    witnesses = left if len(left) <= _COMPARED else left[:: len(left) // 4]
    found = {(row, other): changes(row, other) for row in left for other in witnesses if row != other}
    while True:
        against = {row: [found[row, other] for other in witnesses if row != other] for row in left}
        means = {row: sum(counts) / max(1, len(counts)) for row, counts in against.items()}
        most = max(_CHANGED, min(means.values()) + AS_EDITED)
        if max(means.values()) <= most:
            return left
        left = [row for row in left if means[row] <= most]
        witnesses = [row for row in witnesses if means[row] <= most]
