"""Groups of copies in a collection; each member is verified against the center of its group.

1. Pairs of copies: see `simimg.similarity.copy_pairs`.
2. Groups: a connected component is not a group, because a chain of pairs connects images that have nothing in common.
   The member that most others are copies of becomes the center. The center and its copies are a group; copies of its
   copies are verified with it as well. The remaining members are grouped in the same way.
3. What was decided about groups and pairs is honored: see `simimg.similarity.decided_groups`.
4. The keeper of a group is chosen by rules (`simimg.similarity.keeper_choice`).
"""

from __future__ import annotations

import dataclasses
import functools
import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import closing

from simimg.determinism import one_blas_thread
from simimg.similarity.copy_pairs import PairExaminer
from simimg.similarity.decided_groups import ReturnedImage, returned_images, settled_groups
from simimg.similarity.decisions import Decisions
from simimg.similarity.edit_counts import edits_of_cluster, num_changes
from simimg.similarity.edits import CONTENT, COUNTED, FRAMES, LABEL, PLANNED
from simimg.similarity.fingerprint_store import FingerprintStore
from simimg.similarity.image_table import IndexedImage
from simimg.similarity.keeper_choice import choose_keeper
from simimg.similarity.match_verification import SAME_BYTES, Verification
from simimg.similarity.pair_tasks import PairTasks
from simimg.similarity.search_index import SearchIndex
from tfrecords.convert.sources.folder_layout import split_of

_ANOTHER_CLASS = "in another class folder"


@dataclasses.dataclass(frozen=True, slots=True)
class Member:
    """An image of a group: its row in the index, its similarity to the keeper, 0.5..1, and why it is a copy of it.

    The similarity of the keeper itself is 1, and its reason is why it is kept. `remembered` says what was decided about
    it earlier, and that it was removed once. `is_decided` is whether something was decided about it, and `stays`
    whether no plan may remove it because of that; `may_go` is whether the keeper was chosen instead of it.
    `edits` are the kinds of edits by which it differs from the keeper, see `simimg.similarity.edits`.
    """

    row: int
    image: IndexedImage
    similarity: float
    reason: str
    remembered: str = ""
    stays: bool = False
    edits: frozenset[str] = frozenset()
    may_go: bool = False
    is_decided: bool = False

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
    """Groups in the order of their smallest rows, and the numbers of verified pairs and of unreadable images.

    `index` has the images; its rows are those of the members.
    `settling` are the keys of the decisions because of which groups or pairs are not among them, and `returned` are the
    images that a plan removed once and that are there again.
    """

    groups: tuple[Group, ...]
    num_pairs_examined: int
    num_missing: int
    settling: frozenset[frozenset[str]] = frozenset()
    returned: tuple[ReturnedImage, ...] = ()
    index: SearchIndex = dataclasses.field(kw_only=True, repr=False, compare=False)

    @property
    def num_left_out(self) -> int:
        """The number of decisions because of which groups or pairs are left out."""
        return len(self.settling)


def find_duplicates(
    index: SearchIndex,
    *,
    threshold: float,
    edits: frozenset[str] = COUNTED,
    reference: Callable[[IndexedImage], bool] = lambda picture: False,
    keep: Sequence[str] = (),
    folders_are_classes: bool | None = None,
    store: FingerprintStore | None = None,
    progress: Callable[[int], object] = lambda num_images: None,
    noticed: Callable[[int, int], object] = lambda row, other: None,
    tasks: PairTasks | None = None,
) -> Duplicates:
    """Return the groups of copies, of a similarity of `threshold` (0.5..1) or more, among the images of an index.

    `edits` are the kinds of edits that a copy may show, see `simimg.similarity.edits`. Decisions in the folder of the
    index are honored. `reference` tells whether an image is kept in any case. `keep` are
    rules of `simimg.similarity.keeper_choice.KEEP_RULES`. If `folders_are_classes`, copies in another first folder than
    the keeper are label conflicts; None: if the folders look like it. `progress` is called with the number of images
    since its last call.
    `noticed` is called with two rows that look like copies, before it is known whether they are.
    For `store`, see `IndexImages`, and for `tasks`, `PairExaminer`.
    """
    with closing(PairExaminer(index, threshold, edits, store, noticed, tasks)) as examiner:
        identical = examiner.examine_all(progress)
        groups = groups_of_copies(examiner, list(examiner.neighbors), identical, reference, keep)
        missing = examiner.images.missing
    return all_duplicates(
        index, groups, examiner.decisions, folders_are_classes, examiner.num_examined, len(missing), examiner.settling
    )


def groups_of_copies(
    examiner: PairExaminer,
    rows: Sequence[int],
    identical: Mapping[int, list[int]],
    reference: Callable[[IndexedImage], bool],
    keep: Sequence[str],
) -> list[Group]:
    """Return the groups of rows that have copies, and those of the files with the same bytes, see `identical_rows`."""
    clusters = list(_clusters(examiner, rows))
    grouped = {row for cluster in clusters for row in cluster}
    clusters += [[row] for row, members in identical.items() if len(members) > 1 and row not in grouped]
    with one_blas_thread():
        grouped_by = functools.partial(_group, examiner, identical=identical, reference=reference, keep=keep)
        return list(examiner.executor.map(grouped_by, clusters))


def all_duplicates(
    index: SearchIndex,
    groups: list[Group],
    decisions: Decisions,
    folders_are_classes: bool | None,
    num_pairs_examined: int,
    num_missing: int,
    settling: Set[frozenset[str]],
) -> Duplicates:
    """Return all groups of an index, after what was decided, as `find_duplicates` does."""
    if _has_classes(index) if folders_are_classes is None else folders_are_classes:
        groups = _with_conflicts(groups, Counter(index.images.column("label").tolist()))
    groups.sort(key=lambda group: min(member.row for member in group.members))
    shown, settled = settled_groups(groups, decisions)
    return Duplicates(
        tuple(shown),
        num_pairs_examined,
        num_missing,
        frozenset(settled | settling),
        returned_images(index, decisions),
        index=index,
    )


def _has_classes(index: SearchIndex) -> bool:
    """Whether the folders of the images look like classes: there are several, which are no splits, and every image is
    directly in one.
    """
    if index.info.image_dir is None:
        return False
    depths = {path.count("/") for path in index.images.column("path").tolist()}
    labels = set(index.images.column("label").tolist())
    return depths == {1} and len(labels) > 1 and not all(map(split_of, labels))


def _with_conflicts(groups: Sequence[Group], num_images: Mapping[str, int]) -> list[Group]:
    """Return the groups, in which copies in another class folder than the keeper are marked.

    A folder most of which is equal, but for size and compression, to images in other folders is no class: somebody has
    put copies there. The folders that it was copied from are classes all the same, so the one with the most copies is
    left out first, and the others are judged without it.
    """
    classes, groups_of = set(num_images), defaultdict[str, list[Group]](list)
    for group in groups:
        for label in {member.image.label for member in group.members}:
            groups_of[label].append(group)
    equal = Counter[str]()
    for group in groups:
        equal.update(_equal_elsewhere(group, classes))
    while suspects := [label for label in sorted(classes) if equal[label] > 0.5 * num_images[label]]:
        folder = max(suspects, key=lambda label: equal[label])
        for group in groups_of[folder]:
            equal.subtract(_equal_elsewhere(group, classes))
            equal.update(_equal_elsewhere(group, classes - {folder}))
        classes.remove(folder)

    def marked(member: Member, keeper: Member) -> Member:
        labels = {member.image.label, keeper.image.label}
        if len(labels) == 1 or not labels <= classes:
            return member
        return dataclasses.replace(member, reason=f"{member.reason}; {_ANOTHER_CLASS}", edits=member.edits | {LABEL})

    return [Group(one.keeper, tuple(marked(member, one.keeper) for member in one.others)) for one in groups]


def _equal_elsewhere(group: Group, classes: Set[str]) -> Counter[str]:
    """Return how many images of each class are equal, but for size and compression, to one in another class."""
    plain = Counter(member.image.label for member in group.members if member.edits <= PLANNED)
    found = Counter({label: count for label, count in plain.items() if label in classes})
    return found if len(found) > 1 else Counter()


def _clusters(examiner: PairExaminer, rows: Iterable[int]) -> Iterator[list[int]]:
    """Yield clusters of two and more rows; all are copies of the first row, the center."""
    done: set[int] = set()
    for row in rows:
        if row in done:
            continue
        component = _connected(row, examiner)
        done |= component
        first = next(_stars(component, examiner))
        if len(first) == len(component):
            yield first
        else:
            examiner.examine_postponed(component)  # all pairs are known then
            yield from _stars(component, examiner)


def _stars(component: Set[int], examiner: PairExaminer) -> Iterator[list[int]]:
    """Yield the row that most others are copies of, with these, and so on among the rows that are left."""
    left, neighbors = set(component), examiner.neighbors
    total = {row: sum(_weight(row, other, examiner) for other in neighbors[row]) for row in component}
    heap = [(-weight, examiner.rank[row], row) for row, weight in total.items()]
    heapq.heapify(heap)
    while heap:
        weight, _, center = heapq.heappop(heap)
        if center not in left or not weight or -weight != total[center]:
            continue
        copies = _copies_of(center, left, examiner)
        yield [center, *sorted(copies, key=examiner.rank.__getitem__)]
        gone = {center, *copies}
        left -= gone
        for row in gone:
            for other in neighbors[row] & left:
                total[other] -= _weight(row, other, examiner)
                heapq.heappush(heap, (-total[other], examiner.rank[other], other))


def _weight(row: int, other: int, examiner: PairExaminer) -> int:
    """Return the similarity of two copies as an integer: the sum of several is the same in any order."""
    return round(2**30 * examiner.copies[min(row, other), max(row, other)].similarity)


def _copies_of(center: int, among: Set[int], examiner: PairExaminer) -> set[int]:
    """Return the copies of a row among some; copies of its copies are verified, if they were not."""
    copies = border = examiner.neighbors[center] & among
    tried = {center, *copies}
    while border:
        near = set().union(*(examiner.neighbors[row] for row in border)) & among - tried
        examiner.examine_pairs((center, row) for row in near)
        border = near & examiner.neighbors[center]
        tried, copies = tried | near, copies | border
    return copies


def _connected(start: int, examiner: PairExaminer) -> set[int]:
    found, border = {start}, [start]
    while border:
        new = examiner.neighbors[border.pop()] - found
        found |= new
        border += new
    return found


def _group(
    examiner: PairExaminer,
    cluster: Sequence[int],
    identical: Mapping[int, list[int]],
    reference: Callable[[IndexedImage], bool],
    keep: Sequence[str] = (),
) -> Group:
    """Return the group of a cluster and of the files with the same bytes as its members."""
    single_of = {row: single for single in cluster for row in identical[single]}
    edits = edits_of_cluster(examiner, cluster)
    pictures = {row: examiner.index.images[row] for row in single_of}
    keeper, why = choose_keeper(
        examiner.images,
        {row: edits[single][0] for row, single in single_of.items()},
        is_reference=reference,
        decided=lambda image: (
            examiner.decisions.is_kept(image.sha256, image.path)
            - examiner.decisions.is_dropped(image.sha256, image.path)
        ),
        turned={row: edits[single][1] for row, single in single_of.items()},
        changes=lambda row, other: num_changes(examiner, single_of[row], single_of[other]),
        rules=keep,
    )
    num_frames = functools.cache(examiner.images.num_frames)
    others = []
    for row in pictures:
        if row == keeper:
            continue
        similarity, reason, differing = 1.0, SAME_BYTES, frozenset[str]()
        if single_of[row] != single_of[keeper]:
            single, center = single_of[row], cluster[0]
            prefix, found = "", examiner.explain(single, single_of[keeper])
            if found is not None and not found.edits <= examiner.edits:  # they have only the center in common
                found = None
            if found is None and single != center and (found := examiner.explain(single, center)):
                prefix = f"of {pictures[center].path}: "  # a copy of the center, if not of the keeper
            found = found or Verification(0.5, (), 0)
            similarity, reason, differing = found.similarity, prefix + found.text, found.edits
            if prefix or not found.similarity > 0.5:  # how it differs from the keeper is not known
                differing |= {CONTENT}
            if differing <= PLANNED and (several := max(map(num_frames, (row, keeper)))) > 1:
                reason, differing = f"{reason}; only the first of {several:,} frames was compared", differing | {FRAMES}
        others.append(Member(row, pictures[row], similarity, reason, edits=differing))
    others.sort(key=lambda member: (-member.similarity, member.row))
    return Group(Member(keeper, pictures[keeper], 1.0, why), tuple(others))
