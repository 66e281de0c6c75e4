"""The part of a search for copies that can run on other machines: tasks that verify pairs before the search needs them.

What a search verifies next depends on what it has found, so it stays in one process (`simimg.similarity.copy_pairs`).
But most pairs are sure to be needed, and a verification depends on the two images alone. So tasks verify these pairs
where the images are, and the search takes their results from `IndexImages.ahead`, or else computes them. It finds the
same copies with any engine.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import pickle
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from simimg.determinism import one_blas_thread
from simimg.errors import SearchIndexError
from simimg.similarity.embedding_cache import UNFINISHED
from simimg.similarity.index_images import Examined, IndexImages
from simimg.similarity.index_info import locked_index
from simimg.similarity.remote_index import handover_of
from simimg.similarity.search_index import SearchIndex
from tfrecords.convert.sources import Files
from tfrecords.convert.sources.image_folder import FolderFiles
from tfrecords.convert.workers.runner import Runner
from tfrecords.convert.workers.shard_worker import Monitor, Task, writing
from tfrecords.format.atomic_files import atomic_file
from tfrecords.storage.handover import remove_handed_over
from tfrecords.storage.remote_folder import origin_of

PAIRS_PER_TASK = 256  # some seconds of work
MIN_PAIRS = 64  # fewer are verified sooner here
_FOLDER = "pairs"

Pair = tuple[int, int, bool]
"""The rows of a query and of its candidate, and whether fine keypoints are compared, too."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PairTask(Task):
    """Verifies pairs of the index in a folder or at a URL; `rows` are the queries, and `others`, of the same shape, the
    candidates.

    `thorough` is bool `[num_pairs]`. Pairs that reach the `threshold` are compared at full size. `paths` are some of
    the files, below `image_dir`, if the index is of files.
    """

    index_dir: Path
    generation: int
    others: np.ndarray
    thorough: np.ndarray
    threshold: float
    image_dir: str
    paths: tuple[str, ...]

    def files_read(self) -> Iterator[tuple[Files, str, tuple[int, int, int] | None]]:
        """Yield some of the files."""
        for path in self.paths:
            yield FolderFiles(self.image_dir), path, None

    def run(self, monitor: Monitor) -> None:
        """Verify the pairs; raises SearchIndexError if the index is another one here."""
        images = _images(self.index_dir, self.generation)
        found = []
        for one, other, thorough in _pairs(self):
            monitor.begin(one)
            with one_blas_thread():
                found.append(images.examine(one, other, thorough=thorough, threshold=self.threshold))
            monitor.end(refused=False)
        write_result(self, found)


def write_result(task: Task, result: object) -> None:
    """Write what came of a task, for `PairTasks.run`."""
    with writing(task.shard), atomic_file(task.shard, sync=False) as file:
        pickle.dump(result, file)
    task.acknowledge(len(task.rows))


def opened_index(index_dir: Path, generation: int) -> SearchIndex:
    """Return an index of which a worker keeps thumbnails in memory; raises SearchIndexError if it is another one."""
    index = SearchIndex.open(index_dir)
    if index.info.generation != generation:
        raise SearchIndexError(
            f"{index_dir} has generation {index.info.generation} on a node and {generation} where the command runs. "
            "Mount the same folder there, and give the same command again."
        )
    return dataclasses.replace(index, is_temporary=True)


@functools.lru_cache(maxsize=1)
def _images(index_dir: Path, generation: int) -> IndexImages:
    return IndexImages(opened_index(index_dir, generation))


def _pairs(task: PairTask) -> Iterator[Pair]:
    return zip(task.rows.tolist(), task.others.tolist(), task.thorough.tolist(), strict=True)


class PairTasks:
    """Verifies pairs of an index by the tasks of a runner."""

    def __init__(
        self, index: SearchIndex, runner: Runner, folder: Path, handover: str, progress: Callable[[int, int], object]
    ) -> None:
        """Take a folder for results, and the URL where they are handed over, if at all; `progress` is called with the
        numbers of pairs that are done and begun so far.
        """
        self._index, self._runner, self._folder, self._progress = index, runner, folder, progress
        self._handover = handover
        self._num_done = self._num_tasks = 0

    def examine(self, pairs: Sequence[Pair], threshold: float) -> dict[Pair, Examined]:
        """Return what `IndexImages.examine` gives for pairs; nothing if they are too few to be worth it."""
        if len(pairs) < MIN_PAIRS:
            return {}
        found: dict[Pair, Examined] = {}

        def take(task: Task, examined: list[Examined]) -> None:
            assert isinstance(task, PairTask)
            found.update(zip(_pairs(task), examined, strict=True))

        def on_progress(num_done: int, _: int) -> None:
            self._progress(self._num_done + num_done, self._num_done + len(pairs))

        self.run(self._tasks(_near_together(pairs), threshold), take, on_progress)
        self._num_done += len(pairs)
        return found

    def run(
        self,
        tasks: Iterator[Task],
        take: Callable[[Task, Any], object],
        on_progress: Callable[[int, int], None] = lambda num_done, num_refused: None,
    ) -> None:
        """Run tasks that write a `result`; `take` is called with each and its result."""
        self._folder.mkdir(parents=True, exist_ok=True)

        def taken(task: Task) -> None:
            take(task, pickle.loads(task.shard.read_bytes()))
            task.shard.unlink()

        self._runner.run(tasks, taken, on_progress)

    def files(self, rows: Sequence[int]) -> dict[str, Any]:
        """Return what the next task needs to be about rows of the index."""
        name = f"{_FOLDER}-{self._num_tasks:06d}"
        self._num_tasks += 1
        return {
            "shard": self._folder / f"{name}.pickle",
            "receipt": self._folder / f"{name}.json",
            "rows": np.array(rows, np.int64),
            "handover": self._handover,
            "index_dir": Path(origin_of(self._index.index_dir)),
            "generation": self._index.info.generation,
        }

    def _tasks(self, pairs: Sequence[Pair], threshold: float) -> Iterator[PairTask]:
        info, images = self._index.info, self._index.images
        for first in range(0, len(pairs), PAIRS_PER_TASK):
            rows, others, thorough = zip(*pairs[first : first + PAIRS_PER_TASK], strict=True)
            path = self._index.name_of(images[rows[0]].path)
            yield PairTask(
                **self.files(rows),
                inputs=hashlib.sha256(repr((rows, others, thorough, threshold)).encode()).hexdigest(),
                others=np.array(others, np.int64),
                thorough=np.array(thorough, bool),
                threshold=threshold,
                image_dir=info.image_dir or "",
                paths=(path,) if info.image_dir and (Path(info.image_dir) / path).is_file() else (),
            )


@contextmanager
def pair_tasks(
    index: SearchIndex,
    runner_of: Callable[[Callable[[int], str]], Runner] | None,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> Iterator[PairTasks | None]:
    """Yield what verifies pairs by tasks of the runner that `runner_of` makes, or None without one.

    The index is locked meanwhile; `runner_of` is that of `index_folder`.

    Raises:
        UsageError: another process writes to the index, or uses it for such a search.
    """
    if runner_of is None:
        yield None
        return
    folder, handover = index.index_dir / UNFINISHED / _FOLDER, handover_of(index.index_dir)
    if handover:  # other machines may use the index, too
        handover += f"/{secrets.token_hex(8)}"
    with locked_index(index.index_dir):
        shutil.rmtree(folder, ignore_errors=True)  # of a search that was killed
        try:
            with runner_of(lambda row: index.images[row].path) as runner:
                yield PairTasks(index, runner, folder.resolve(), handover, progress)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            if handover:
                remove_handed_over(handover)


def _near_together(pairs: Sequence[Pair]) -> list[Pair]:
    """Return pairs in such an order that those of the same images are near each other, so that few tasks read each.

    The order of the rows is that of Cuthill and McKee, "Reducing the bandwidth of sparse symmetric matrices", 1969.
    """
    from scipy.sparse import coo_array  # 0.3 s of processor time, for clusters only
    from scipy.sparse.csgraph import reverse_cuthill_mckee

    ends = np.array([pair[:2] for pair in pairs], np.int64)
    rows, numbers = np.unique(ends, return_inverse=True)
    numbers = numbers.reshape(ends.shape)
    graph = coo_array((np.ones(len(pairs), bool), (numbers[:, 0], numbers[:, 1])), shape=(len(rows),) * 2)
    place = np.empty(len(rows), np.int64)
    place[reverse_cuthill_mckee((graph + graph.T).tocsr(), symmetric_mode=True)] = np.arange(len(rows))
    order = np.lexsort((place[numbers].max(axis=1), place[numbers].min(axis=1)))
    return [pairs[number] for number in order.tolist()]
