"""The one thread that asks the model and the index: searches come one after another, each in steps.

TensorFlow, the index and the finder are used by this thread alone, so any number of requests are answered as one would
be. Whoever goes away has his search end at its next step, within some eighty ms.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from simimg.similarity import Embedder, Finder, SearchIndex, SearchResult
from simimg.similarity.query_views import NUM_VIEWS
from simimg.web.query_cache import CachedQuery

__all__ = ["SearchWorker"]

_END = object()


class SearchWorker:
    """Searches an index."""

    def __init__(self, index: SearchIndex, embedder: Embedder) -> None:
        """Take an index and its model; raises SearchIndexError if it is another's."""
        self.index = index
        # The page has a threshold of its own, which may be moved below the calibrated one.
        self._finder = Finder(index, embedder, threshold=0.0)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="search")
        self._labels = index.pictures.column("label")
        self._splits = index.pictures.column("split")

    def warm_up(self) -> None:
        """Has the model compiled, so that the first search is as fast as the next."""
        size = self._finder.embedder.image_size
        for count in (2, NUM_VIEWS - 2):  # the two calls of a search, see `Finder.steps`
            self._thread.submit(self._finder.embedder.embed, np.zeros((count, size, size, 3), np.uint8)).result()

    async def search(
        self, asked: CachedQuery, k: int, by: str, *, label: str | None = None, split: str | None = None
    ) -> AsyncIterator[dict[str, Any]]:
        """Yields the matches as they become known, each time all of them as JSON has them; the last has none.

        Args:
            asked: the query; a row of the index does not find itself.
            k: at least 1.
            by: `copy` or `kind`.
            label: a class's name; only its pictures are looked at.
            split: of a data set, likewise.
        """
        loop, queue = asyncio.get_running_loop(), asyncio.Queue[Any]()
        gone, start = threading.Event(), time.perf_counter()

        def tell(item: Any) -> None:
            loop.call_soon_threadsafe(queue.put_nowait, item)

        def work() -> None:
            try:
                if gone.is_set():
                    return
                only = self._only(label, split)
                for found in self._finder.steps(asked.views, asked.examined, k, by, without=asked.row, only=only):
                    if gone.is_set():
                        return
                    tell(found)
            except BaseException as error:
                tell(error)
            finally:
                tell(_END)

        self._thread.submit(work)
        try:
            while (item := await queue.get()) is not _END:
                if isinstance(item, BaseException):
                    raise item
                yield {"final": False, "ms": _ms(start), "matches": [_described(found) for found in item]}
            yield {"final": True, "ms": _ms(start)}
        finally:
            gone.set()

    def close(self) -> None:
        """Ends the threads."""
        self._thread.shutdown(cancel_futures=True)
        self._finder.close()

    def _only(self, label: str | None, split: str | None) -> np.ndarray | None:
        if label is None and split is None:
            return None
        only = np.ones(len(self.index.pictures), bool)
        if label is not None:
            only &= self._labels == label
        if split is not None:
            only &= self._splits == split
        return only


def _ms(start: float) -> int:
    return round(1000 * (time.perf_counter() - start))


def _described(found: SearchResult) -> dict[str, Any]:
    seen = found.verification
    return {
        "row": found.row,
        "similarity": round(found.similarity, 4),
        "reason": None if seen is None else ", ".join(seen.reasons) or "looks the same",
        "place": None if seen is None else [round(value, 5) for value in seen.place],
    }
