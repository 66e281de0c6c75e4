"""One query after another: embedded in several views, looked for in the index, and the nearest looked at closely.

The index says which pictures look alike; it is wrong once in ten about which of them is the original, and right within
its first fifty. So those are examined, four at a time, best first, until nothing more comes of it: each is verified or
not, and verified ones come first. A blur or coarse pixels spoil an embedding and leave a perceptual hash as it was, so
the pictures with the nearest hashes are examined before all others. Similarity is 0.5..1 of a verified copy, and less
of anything else:

    verified        0.5 + 0.5 x how well the common part agrees, less where it is a small part of either picture
    by its looks    0.5 x the cosine of the embeddings
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from simimg.determinism import one_blas_thread
from simimg.similarity.embeddings import Embedder
from simimg.similarity.fingerprint import Fingerprint, fingerprint, jpeg_quality
from simimg.similarity.index_images import IndexImages
from simimg.similarity.match_verification import Verification, verify
from simimg.similarity.query_views import query_views
from simimg.similarity.search_index import IndexedImage, Match, SearchIndex
from tfrecords.convert.image.decoder import decode
from tfrecords.convert.image.near_duplicates import NO_HASH, perceptual_hashes
from tfrecords.convert.workers.pool import num_cores
from tfrecords.format.quarantine import Reason, Refusal

__all__ = ["CANDIDATES", "Finder", "Query", "SearchResult", "load_queries", "load_query"]

CANDIDATES = 48
"""Pictures that are examined for a query at most: the original is among the first fifty 99.6 times of 100."""

_AT_A_TIME = 4
_POSES = 8  # the first views: the whole picture, turned and mirrored
_NEAR_HASHES = 4  # pictures with near hashes that are examined at most
_MAX_DISTANCE = 10  # of their 64 bits
_UPRIGHT = [0, 4]  # views: the picture and its mirror image; what is a kind is not turned by quarters


@dataclasses.dataclass(frozen=True, slots=True)
class Query:
    """A picture to look for: its views, uint8 `[num_views, image_size, image_size, 3]`, and what a look at it found."""

    path: str
    views: np.ndarray
    examined: Fingerprint


@dataclasses.dataclass(frozen=True, slots=True)
class SearchResult:
    """A picture of the index that a query found.

    Attributes:
        row: its row in the index.
        picture: itself.
        path: where its file lies, as far as the index knows.
        similarity: 0..1, higher is closer: 0.5 and more are verified copies. By kind: the cosine.
        cosine: of the embeddings, of the closest view.
        verification: why it is a copy; None where it was not shown to be one.
    """

    row: int
    picture: IndexedImage
    path: Path
    similarity: float
    cosine: float
    verification: Verification | None

    @property
    def is_copy(self) -> bool:
        """Whether it was shown to be a copy of the query."""
        return self.verification is not None

    @property
    def reasons(self) -> tuple[str, ...]:
        """What was done to the query, taking this for the original; empty where nothing is seen, or it is no copy."""
        return self.verification.reasons if self.verification else ()


def load_query(path: str, embedder: Embedder) -> Query | Refusal:
    """Returns a file as a query, or why it is none."""
    try:
        data = Path(path).read_bytes()
        image = decode(data)
    except OSError as error:
        return Refusal(Reason.UNREADABLE, error.strerror or str(error))
    except Refusal as refusal:
        return refusal
    return make_query(path, image, embedder, quality=jpeg_quality(data))


def make_query(path: str, image: Image.Image, embedder: Embedder, *, quality: int | None = None) -> Query:
    """Returns a picture, mode RGB, as a query."""
    views = query_views(image, embedder.image_size, embedder.resize)
    return Query(path, views, fingerprint(image, quality=quality, as_query=True))


def load_queries(paths: Sequence[str], embedder: Embedder) -> Iterator[tuple[str, Query | Refusal]]:
    """Yields each path with its query, or its refusal, in order, some being decoded ahead."""
    with ThreadPoolExecutor(num_cores()) as executor:
        ahead = 4 * num_cores()
        waiting = [executor.submit(load_query, path, embedder) for path in paths[:ahead]]
        for number, path in enumerate(paths):
            yield path, waiting[number].result()
            waiting[number] = None  # type: ignore[call-overload]  # its pixels, 2 MB
            if number + ahead < len(paths):
                waiting.append(executor.submit(load_query, paths[number + ahead], embedder))


class Finder:
    """Finds queries in an index. Safe to use from one thread; it examines candidates with all cores."""

    def __init__(
        self, index: SearchIndex, embedder: Embedder, *, candidates: int = CANDIDATES, threshold: float | None = None
    ) -> None:
        """Take an index and the model that made it.

        Args:
            index: opened.
            embedder: its model.
            candidates: pictures that are examined for a query at most; 0: similarity is by looks alone.
            threshold: the least similarity of a copy; None: what `simimg calibrate` has found, if it was run.

        Raises:
            SearchIndexError: `embedder` did not make the index.
        """
        index.check_model(embedder)
        self.index = index
        self.embedder = embedder
        self._candidates = candidates
        self._threshold = index.info.thresholds.get("copy", 0.0) if threshold is None else threshold
        self._executor = ThreadPoolExecutor(num_cores())
        self._originals = IndexImages(index)
        self._hashes = index.pictures.column("phash").astype(np.uint64)

    def find(self, query: Query, k: int, by: str = "copy", *, without: int = -1) -> list[SearchResult]:
        """Returns the `k` most similar pictures of the index, best first.

        Args:
            query: see `load_query`.
            k: at least 1.
            by: `copy`: verified copies first; `kind`: pictures of the same kind, by their looks.
            without: a row that is not looked at, as if it were not there.
        """
        embeddings = self.embedder.embed(query.views[_UPRIGHT] if by == "kind" else query.views)
        matches = self._by_looks(embeddings, k, by, without=without)
        verified: list[Verification | None] = []
        if by == "copy" and self._candidates:
            matches = self._near_hashes_first(matches, query.views, embeddings, without=without)
            *_, verified = self._verified(_Looks(query.examined, query.views[0]), matches)
        return self._ranked(matches, verified, k, by)

    def steps(
        self,
        views: np.ndarray,
        examined: Callable[[], Fingerprint],
        k: int,
        by: str = "copy",
        *,
        without: int = -1,
        only: np.ndarray | None = None,
    ) -> Iterator[list[SearchResult]]:
        """Yields what `find` returns as far as it is known, for somebody who waits: the last is what `find` returns.

        First come the matches by the looks of the picture and its mirror image, an eighth of the work; then by those
        of all views; then anew each time that a few more were examined.

        Args:
            views: of the query.
            examined: looks at the query closely, when it comes to that.
            k: as for `find`, like `by` and `without`.
            by: `copy` or `kind`.
            without: a row.
            only: bool `[num_images]`, the pictures that are looked at.
        """
        upright = self.embedder.embed(views[_UPRIGHT])
        matches = self._by_looks(upright, k, by, without=without, only=only)
        yield self._ranked(matches, [], k, by)
        if by == "kind":
            return
        others = [view for view in range(len(views)) if view not in _UPRIGHT]
        embeddings = np.concatenate([upright, self.embedder.embed(views[others])])
        matches = self._by_looks(embeddings, k, by, without=without, only=only)
        yield self._ranked(matches, [], k, by)
        if self._candidates:
            matches = self._near_hashes_first(matches, views, embeddings, without=without, only=only)
            for verified in self._verified(_Looks(examined(), views[0]), matches):
                yield self._ranked(matches, verified, k, by)

    def close(self) -> None:
        """Ends the threads."""
        self._executor.shutdown(cancel_futures=True)

    def _by_looks(
        self, embeddings: np.ndarray, k: int, by: str, *, without: int, only: np.ndarray | None = None
    ) -> list[Match]:
        """The nearest, for `copy` at least as many as are examined."""
        most = k if by == "kind" else max(k, self._candidates)
        (found,) = self.index.search(embeddings[None], most + 1, by, among=only)
        return [match for match in found if match.row != without][:most]

    def _near_hashes_first(
        self,
        matches: list[Match],
        views: np.ndarray,
        embeddings: np.ndarray,
        *,
        without: int,
        only: np.ndarray | None = None,
    ) -> list[Match]:
        """The matches, those with a near hash first, also if they were not among them."""
        poses = perceptual_hashes(views[:_POSES])
        distances = np.bitwise_count(self._hashes ^ poses[:, None]).min(axis=0)
        near = (distances <= _MAX_DISTANCE) & (self._hashes != NO_HASH)
        if only is not None:
            near &= only
        if without >= 0:
            near[without] = False
        rows = np.flatnonzero(near)
        rows = rows[np.argsort(distances[rows], kind="stable")][:_NEAR_HASHES].tolist()
        known = {match.row: match for match in matches}
        unknown = [row for row in rows if row not in known]
        if unknown:
            among = np.zeros(len(self._hashes), bool)
            among[unknown] = True
            (found,) = self.index.search(embeddings[None], len(unknown), among=among)
            known |= {match.row: match for match in found}
        first = [known[row] for row in rows if row in known]
        return [*first, *(match for match in matches if match.row not in rows)]

    def _verified(self, looks: _Looks, matches: Sequence[Match]) -> Iterator[list[Verification | None]]:
        """Yields the verifications so far, at least once; ends once copies were found and the next ones are none."""
        rows = [match.row for match in matches[: self._candidates]]
        verified: list[Verification | None] = []
        yield verified
        for start in range(0, len(rows), _AT_A_TIME):
            with one_blas_thread():
                some = list(self._executor.map(lambda row: self._verify(looks, row), rows[start : start + _AT_A_TIME]))
            had = any(verified)
            verified += some
            yield verified
            if had and not any(some):
                break

    def _verify(self, looks: _Looks, row: int) -> Verification | None:
        candidate = self._originals.file(row)
        if candidate is not None:
            seen = verify(looks.whole, candidate)
        else:  # moved, changed or removed since, or a data set's whose files are elsewhere
            stored = self._originals.square(row)
            seen = None if stored is None else verify(looks.square(stored.size), stored)
        return seen if seen is not None and seen.similarity >= self._threshold else None

    def _ranked(
        self, matches: Sequence[Match], verified: Sequence[Verification | None], k: int, by: str
    ) -> list[SearchResult]:
        """The `k` best; what was not examined counts by its looks."""
        found = []
        for place, match in enumerate(matches):
            seen = verified[place] if place < len(verified) else None
            by_looks = match.similarity if by == "kind" else 0.5 * max(0.0, match.similarity)
            similarity = seen.similarity if seen else by_looks
            path = self.index.path_of(match.picture)
            found.append(SearchResult(match.row, match.picture, path, similarity, match.similarity, seen))
        return sorted(found, key=lambda one: -one.similarity)[:k]


class _Looks:
    """Close looks at a query: at the picture, and at the square that a data set would have stored of it."""

    def __init__(self, whole: Fingerprint, square: np.ndarray) -> None:
        self.whole = whole
        self._image = Image.fromarray(square)
        self._squares: dict[tuple[int, int], Fingerprint] = {}
        self._lock = threading.Lock()  # candidates are examined by several threads, and this is the same for all

    def square(self, size: tuple[int, int]) -> Fingerprint:
        """Returns what a close look at the square of this size finds."""
        with self._lock:
            if size not in self._squares:
                image = self._image.resize(size, Image.Resampling.BICUBIC)
                self._squares[size] = fingerprint(image, as_query=True)
            return self._squares[size]
