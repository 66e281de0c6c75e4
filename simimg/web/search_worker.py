"""The search thread: runs the steps of searches, one after another.

Only this thread uses TensorFlow, the index and the finder, so concurrent requests get the same results as single ones.
A search whose client disconnects is not continued; its current step takes up to about 80 ms.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow.compute as pc

from simimg.similarity.edits import COUNTED
from simimg.similarity.embeddings import Embedder
from simimg.similarity.query_search import Finder, SearchResult
from simimg.similarity.search_index import SearchIndex
from simimg.similarity.search_queries import NUM_VIEWS
from simimg.web.query_cache import CachedQuery
from tfrecords.format.image_size import image_shape


class SearchWorker:
    """Searches an index in a thread of its own."""

    def __init__(self, index: SearchIndex, embedder: Embedder, edits: frozenset[str] = COUNTED) -> None:
        """Take an index, its model, and the kinds of edits that a copy may show, see `simimg.similarity.edits`.

        Raises:
            SearchIndexError: the model did not make the index.
        """
        # The page has its own threshold, which may be moved below the calibrated one.
        self._finder = Finder(index, embedder, threshold=0.0, edits=edits)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="search")
        self._images = index.images

    def warm_up(self) -> None:
        """Load the model, and have it compiled meanwhile, so that the first search is as fast as the next.

        This waits until it is loaded: libraries write to standard error then, which is captured, and with it would be
        what the command writes.
        """
        shape = image_shape(self._finder.embedder.image_size)
        loaded, _ = (  # the two calls of a search, see `Finder.steps`
            self._thread.submit(self._finder.embedder.embed, np.zeros((count, *shape), np.uint8))
            for count in (2, NUM_VIEWS - 2)
        )
        loaded.result()

    async def search(self, query: CachedQuery, k: int, by: str, **only: str) -> AsyncIterator[dict[str, Any]]:
        """Yield all matches known so far, as JSON values, whenever there are new ones; the last item has no matches.

        Only images of the class `label`, of the split and in the folder are searched, if these are given. A row of the
        index does not find itself.
        """

        def run() -> Iterator[list[SearchResult]]:
            yield from self._finder.steps(query.views, query.image, k, by, without=query.row, only=self._filter(**only))

        async for values in self._yielded(run()):
            yield values

    async def search_text(self, vector: np.ndarray, k: int, **only: str) -> AsyncIterator[dict[str, Any]]:
        """Do the same for the vector of a text, see `Finder.find_text`."""

        def run() -> Iterator[list[SearchResult]]:
            yield self._finder.find_text(vector, k, only=self._filter(**only))

        async for values in self._yielded(run()):
            yield values

    async def _yielded(self, steps: Iterator[list[SearchResult]]) -> AsyncIterator[dict[str, Any]]:
        loop, start = asyncio.get_running_loop(), time.perf_counter()
        while (matches := await loop.run_in_executor(self._thread, next, steps, None)) is not None:
            yield {"final": False, "ms": _ms(start), "matches": [_match_values(found) for found in matches]}
        yield {"final": True, "ms": _ms(start)}

    def close(self) -> None:
        """Stop the threads."""
        self._thread.shutdown(cancel_futures=True)
        self._finder.close()

    def _filter(self, *, folder: str | None = None, **wanted: str) -> np.ndarray | None:
        masks = [self._images.column(name) == value for name, value in wanted.items()]
        if folder is not None:
            masks.append(pc.starts_with(self._images.table["path"], f"{folder}/").to_numpy())
        return np.logical_and.reduce(masks) if masks else None


def _ms(start: float) -> int:
    return round(1000 * (time.perf_counter() - start))


def _match_values(found: SearchResult) -> dict[str, Any]:
    verification = found.verification
    return {
        "row": found.row,
        "similarity": round(found.similarity, 4),
        "reason": None if verification is None else verification.text,
        "place": None if verification is None else [round(value, 5) for value in verification.place],
        "copy": found.is_copy,
        "differs": [] if found.differs is None else found.differs.boxes(),
    }
