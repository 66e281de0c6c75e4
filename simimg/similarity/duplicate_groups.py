"""Groups of copies in a collection; each member is verified against the center of its group.

1. Pairs of copies: see `simimg.similarity.copy_pairs`.
2. Groups: a connected component is not a group, because a chain of pairs connects images that have nothing in common.
   The member that most others are copies of becomes the center. The center and its copies are a group; pairs with the
   center that were not candidates are verified as well. The remaining members are grouped in the same way.
3. The keeper of a group is chosen by, in this order: being in a reference folder, fewest visible edits, most pixels,
   lossless format, most bytes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing

import numpy as np

from simimg.determinism import one_blas_thread
from simimg.similarity.copy_pairs import PairExaminer
from simimg.similarity.image_table import IndexedImage
from simimg.similarity.match_verification import HARMLESS, SAME_BYTES, Verification
from simimg.similarity.search_index import SearchIndex

_WITNESSES = 4  # members whose verifications count the edits of another member

_Worth = tuple[bool, int, int, bool, int, int]  # of keeping an image, see the order above


@dataclasses.dataclass(frozen=True, slots=True)
class Member:
    """An image of a group: its row in the index, its similarity to the keeper, 0.5..1, and why it is a copy of it.

    The similarity of the keeper itself is 1, and its reason is why it is kept.
    """

    row: int
    image: IndexedImage
    similarity: float
    reason: str

    @property
    def picture(self) -> IndexedImage:
        """The earlier name of `image`."""
        return self.image


@dataclasses.dataclass(frozen=True, slots=True)
class Group:
    """Copies of one photo: the one to keep, and the others, most similar first."""

    keeper: Member
    others: tuple[Member, ...]

    @property
    def members(self) -> tuple[Member, ...]:
        """All members, the keeper first."""
        return (self.keeper, *self.others)


@dataclasses.dataclass(frozen=True, slots=True)
class Duplicates:
    """Groups in the order of their smallest rows, and the numbers of verified pairs and of unreadable images."""

    groups: tuple[Group, ...]
    num_pairs_examined: int
    num_missing: int


def find_duplicates(
    index: SearchIndex,
    *,
    threshold: float,
    reference: Callable[[IndexedImage], bool] = lambda picture: False,
    by_hash: bool = False,
    progress: Callable[[int], object] = lambda num_images: None,
) -> Duplicates:
    """Return the groups of copies, of a similarity of `threshold` (0.5..1) or more, among the images of an index.

    `reference` tells whether an image is kept in any case. `progress` is called with the number of images since its
    last call. With `by_hash`, only images with similar hashes are compared, which need no embeddings.
    """
    with closing(PairExaminer(index, threshold)) as examiner:
        identical = examiner.examine_all(progress, by_hash=by_hash)
        clusters = list(_clusters(examiner))
        grouped = {row for cluster in clusters for row in cluster}
        clusters += [[row] for row, members in identical.items() if len(members) > 1 and row not in grouped]
        with one_blas_thread():
            groups = list(examiner.executor.map(lambda one: _group(examiner, one, identical, reference), clusters))
    groups.sort(key=lambda group: min(member.row for member in group.members))
    return Duplicates(tuple(groups), examiner.num_examined, len(examiner.images.missing))


def _clusters(examiner: PairExaminer) -> Iterator[list[int]]:
    """Yield clusters of two and more rows; all are copies of the first row, the center."""
    left = set(examiner.neighbors)
    while left:
        component = _connected(min(left), left, examiner)
        center = max(sorted(component), key=lambda row: _total_similarity(examiner, row, component))
        examiner.examine_pairs((center, other) for other in component if other != center)
        members = [other for other in sorted(component) if other != center and examiner.copy(center, other)]
        if members:
            yield [center, *members]
        left -= {center, *members} if members else component


def _total_similarity(examiner: PairExaminer, row: int, among: set[int]) -> float:
    copies = (examiner.copy(row, other) for other in examiner.neighbors[row] & among)
    return sum(verification.similarity for verification in copies if verification)


def _connected(start: int, among: set[int], examiner: PairExaminer) -> set[int]:
    found, border = {start}, [start]
    while border:
        new = (examiner.neighbors[border.pop()] & among) - found
        found |= new
        border += new
    return found


def _group(
    examiner: PairExaminer,
    cluster: Sequence[int],
    identical: dict[int, list[int]],
    reference: Callable[[IndexedImage], bool],
) -> Group:
    """Return the group of a cluster and of the files with the same bytes as its members."""
    single_of = {row: single for single in cluster for row in identical[single]}
    edits = {single: _num_edits(examiner, single, cluster) for single in cluster}
    lossless = {single: len(cluster) > 1 and _is_lossless(examiner, single) for single in cluster}
    pictures = {row: examiner.index.images[row] for row in single_of}

    def worth(row: int) -> _Worth:
        picture = pictures[row]
        return (
            reference(picture),
            -edits[single_of[row]],
            picture.width * picture.height,
            lossless[single_of[row]],
            picture.num_bytes,
            -row,
        )

    keeper, *ranked = sorted(pictures, key=worth, reverse=True)
    why = _why_kept(worth(keeper), worth(ranked[0]), pictures[keeper])
    others = []
    for row in ranked:
        similarity, reason = 1.0, SAME_BYTES
        if single_of[row] != single_of[keeper]:
            single, center = single_of[row], cluster[0]
            prefix, found = "", examiner.explain_either(single, single_of[keeper])
            if found is None and single != center and (found := examiner.explain_either(single, center)):
                prefix = f"of {pictures[center].path}: "  # a copy of the center, if not of the keeper
            found = found or Verification(0.5, (), 0)
            similarity, reason = found.similarity, prefix + found.text
        others.append(Member(row, pictures[row], similarity, reason))
    others.sort(key=lambda member: (-member.similarity, member.row))
    return Group(Member(keeper, pictures[keeper], 1.0, why), tuple(others))


def _num_edits(examiner: PairExaminer, row: int, cluster: Sequence[int]) -> int:
    """Return the median number of visible edits of a row against other members: crop, text, blur, but not size."""
    counts = []
    for other in cluster[: _WITNESSES + 1]:
        if other == row:
            continue
        found = examiner.explain(row, other) if examiner.copy(row, other) else None
        reasons = examiner.geometric_edits(row, other) if found is None else found.reasons
        if reasons is not None:
            counts.append(sum(not reason.startswith(HARMLESS) for reason in reasons))
    return int(np.median(counts)) if counts else 0


def _is_lossless(examiner: PairExaminer, row: int) -> bool:
    file = examiner.images.file(row)
    return file is not None and file.lossless


def _why_kept(best: _Worth, next_best: _Worth, kept: IndexedImage) -> str:
    reasons = (
        "in a reference folder",
        "nothing was done to it",
        f"the most pixels, {kept.width} x {kept.height}",
        "as many pixels, without loss",
        f"as many pixels, more bytes: {kept.num_bytes:,}",
    )
    for reason, ours, theirs in zip(reasons, best, next_best, strict=False):
        if ours != theirs:
            return reason
    return "the first of equally good files"
