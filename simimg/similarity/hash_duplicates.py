"""Groups of copies whose perceptual hashes are similar, which need no embeddings: `duplicates --fast`.

Copies are connected by pairs of similar hashes, so what these do not connect can be examined apart. Some components at
a time go from their pairs to groups: the thumbnails are in memory until the files to keep are chosen, so the time per
file does not depend on the number of files, and processes can share the work.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np

from simimg.similarity.candidate_pairs import DisjointSets, hash_pairs, identical_rows
from simimg.similarity.copy_pairs import PairExaminer
from simimg.similarity.duplicate_groups import Duplicates, Group, all_duplicates, groups_of_copies
from simimg.similarity.edits import COUNTED, EDITS
from simimg.similarity.fingerprint import forget_fingerprints
from simimg.similarity.fingerprint_store import FingerprintStore
from simimg.similarity.image_table import IndexedImage
from simimg.similarity.pair_tasks import PairTasks, opened_index, write_result
from simimg.similarity.search_index import SearchIndex
from tfrecords.base_errors import ConversionError
from tfrecords.convert.workers.shard_worker import Monitor, Task
from tfrecords.machine_limits import keep_freed_memory

_ROWS_PER_PART = 128  # some seconds of work, after which a worker can be stopped
_MANY_ROWS = 1_000  # from which processes, which take a second to start, are faster than threads
_LOG = logging.getLogger(__name__)


class _Part(NamedTuple):
    """Components: pairs with similar hashes, and the rows with the same bytes by the one that represents them."""

    pairs: set[tuple[int, int]]
    identical: dict[int, list[int]]

    @property
    def rows(self) -> list[int]:
        """All rows."""
        return [row for rows in self.identical.values() for row in rows]


class _Found(NamedTuple):
    """What came of a part, see `Duplicates`."""

    groups: list[Group]
    num_examined: int
    missing: set[int]
    settling: set[frozenset[str]]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _GroupTask(Task):
    """Finds the groups of a part; `rows` are its rows. The paths of `references` are kept in any case."""

    index_dir: Path
    generation: int
    part: _Part
    threshold: float
    edits: frozenset[str]
    compared: frozenset[str]
    references: frozenset[str]
    keep: tuple[str, ...]

    def run(self, monitor: Monitor) -> None:
        """Find the groups; raises SearchIndexError if the index is another one here."""
        monitor.begin(int(self.rows[0]))
        examiner = _examiner(self.index_dir, self.generation, self.threshold, self.edits, self.compared)
        found = _examined(examiner, self.part, lambda image: image.path in self.references, self.keep)
        monitor.end(refused=False)
        write_result(self, found)
        examiner.images.save()  # to no disk: with the next line, it clears what no other part needs from memory
        forget_fingerprints()


@functools.lru_cache(maxsize=1)
def _examiner(
    index_dir: Path, generation: int, threshold: float, edits: frozenset[str], compared: frozenset[str]
) -> PairExaminer:
    """Return what a worker process examines pairs with."""
    keep_freed_memory()
    return PairExaminer(opened_index(index_dir, generation), threshold, edits, compared=compared, num_threads=1)


def find_by_hash(
    index: SearchIndex,
    *,
    threshold: float,
    edits: frozenset[str] = COUNTED,
    reference: Callable[[IndexedImage], bool] = lambda image: False,
    keep: Sequence[str] = (),
    folders_are_classes: bool | None = None,
    compared: Iterable[str] = EDITS,
    store: FingerprintStore | None = None,
    progress: Callable[[int], object] = lambda num_images: None,
    tasks: PairTasks | None = None,
) -> Duplicates:
    """Return the groups of copies with similar hashes, as `find_duplicates` does.

    Copies that show other kinds of edits than `compared` are not compared at full size, where other content shows; once
    they show one there, no further. `tasks` find the groups of a large collection; without them, threads do.
    """
    with closing(PairExaminer(index, threshold, edits, store, compared=compared)) as examiner:
        identical = identical_rows(examiner.images)
        firsts = examiner.order[np.isin(examiner.order, list(identical))]
        parts = list(_parts(set(hash_pairs(index, firsts)), identical, examiner.rank))
        rows = [row for part in parts for row in part.rows]
        progress(len(index.images) - len(rows))
        found: dict[int, _Found] = {}

        def take(task: Task, result: _Found) -> None:
            found[int(task.rows[0])] = result
            progress(len(task.rows))

        if tasks is not None and len(rows) >= _MANY_ROWS:
            references = frozenset(image.path for image in index.images.rows(rows) if reference(image))
            settings = threshold, edits, frozenset(compared), references, tuple(keep)
            try:
                tasks.run(_group_tasks(tasks, parts, *settings), take)
            except ConversionError:
                _LOG.warning("a worker process died or could not start; the rest is examined in this process")
        for part in parts:
            if part.rows[0] not in found:
                found[part.rows[0]] = _examined(examiner, part, reference, keep)
                progress(len(part.rows))
        return all_duplicates(
            index,
            [group for one in found.values() for group in one.groups],
            examiner.decisions,
            folders_are_classes,
            sum(one.num_examined for one in found.values()),
            len(set[int]().union(*(one.missing for one in found.values()))),
            set[frozenset[str]]().union(*(one.settling for one in found.values())),
        )


def _parts(pairs: set[tuple[int, int]], identical: Mapping[int, list[int]], rank: Sequence[int]) -> Iterator[_Part]:
    """Yield all rows that have a similar one, in components; the first one has the largest image."""
    sets = DisjointSets()
    for pair in pairs:
        sets.join(*pair)
    of: dict[int, _Part] = defaultdict(lambda: _Part(set(), {}))
    for pair in pairs:
        of[sets.find(pair[0])].pairs.add(pair)
    for row in sorted(identical, key=rank.__getitem__):
        if (first := sets.find(row)) in of or len(identical[row]) > 1:
            of[first].identical[row] = identical[row]
    part = _Part(set(), {})
    for component in sorted(of.values(), key=lambda one: rank[next(iter(one.identical))]):
        part.pairs.update(component.pairs)
        part.identical.update(component.identical)
        if len(part.identical) >= _ROWS_PER_PART:
            yield part
            part = _Part(set(), {})
    if part.identical:
        yield part


def _examined(
    examiner: PairExaminer, part: _Part, reference: Callable[[IndexedImage], bool], keep: Sequence[str]
) -> _Found:
    before, missing = examiner.num_examined, examiner.images.missing
    missing.clear()
    examiner.examine_hashed(part.pairs, thorough=False)
    rows = [row for row in part.identical if examiner.neighbors.get(row)]
    groups = groups_of_copies(examiner, rows, part.identical, reference, keep)
    return _Found(groups, examiner.num_examined - before, set(missing), set(examiner.settling))


def _group_tasks(
    tasks: PairTasks,
    parts: Sequence[_Part],
    threshold: float,
    edits: frozenset[str],
    compared: frozenset[str],
    references: frozenset[str],
    keep: tuple[str, ...],
) -> Iterator[_GroupTask]:
    for part in parts:
        yield _GroupTask(
            **tasks.files(part.rows),
            inputs=hashlib.sha256(repr(sorted(part.pairs)).encode()).hexdigest(),
            part=part,
            threshold=threshold,
            edits=edits,
            compared=compared,
            references=references,
            keep=keep,
        )
