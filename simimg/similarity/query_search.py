"""Searches an index for one query after another: embeds its views, finds the nearest images and verifies them.

A query is embedded in several views (`simimg.similarity.search_queries`), and the one that is closest to an image of
the index counts.

By embeddings alone, the original is first for nine of ten edited copies, and nearly always among the first fifty. So
these candidates are verified, four at a time, best first, until four in a row after a copy are not copies. Blur and
coarse pixels change an embedding but not a perceptual hash, so the images with the most similar hashes are verified
before all others. Verified copies come first:

    verified        similarity 0.5 + 0.5 x agreement of the common part, reduced if it is a small part of either image
    not verified    similarity 0.5 x cosine of the embeddings, at most 0.49, so that rounding never shows a copy's 0.50

A verified candidate is compared at full size (`simimg.similarity.differences`). If it differs by edits that do not
count (other content on the same form), it is ranked as if it was not verified, but its reasons are told.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from simimg.determinism import one_blas_thread
from simimg.similarity.differences import Differences
from simimg.similarity.edits import COUNTED
from simimg.similarity.embeddings import Embedder
from simimg.similarity.fingerprint import Fingerprint, fingerprint
from simimg.similarity.full_size import FullImage
from simimg.similarity.image_table import IndexedImage
from simimg.similarity.index_images import IndexImages
from simimg.similarity.match_verification import Verification
from simimg.similarity.nearest_neighbors import nearest
from simimg.similarity.search_index import Match, SearchIndex
from simimg.similarity.search_queries import NUM_VIEWS, Query, QueryImage
from simimg.similarity.transparency import verify_composites
from simimg.similarity.vector_rows import Float32Rows, OnePass
from tfrecords.convert.image.near_duplicates import NO_HASH, perceptual_hashes
from tfrecords.machine_limits import num_cores

CANDIDATES = 48
"""Images that are verified per query, at most: for 99.6 % of edited copies the original is among the first fifty."""

_UPRIGHT = [0, 4]  # views: the image and its mirror image; images of a kind are not turned by quarters
_ORIENTATIONS = 8  # the first views: the whole image, rotated and mirrored
_GROUP = 4
# Once there is a copy, an image is compared by more than its thumbnail only from that cosine on, and from that share of
# the copy's cosine on. Of 560 edited copies of 40 photos, 552 are verified by their thumbnails.
_CLOSE, _CLOSE_TO_COPY = 0.3, 0.6
_NEAR_HASHES = 4  # images with similar hashes that are verified, at most
_MAX_DISTANCE = 10  # of their 64 bits
_MOST_ALIKE = 0.49  # similarity of an image that is no copy


@dataclasses.dataclass(frozen=True, slots=True)
class SearchResult:
    """An image of the index that was found for a query: its row, and the path of its file, as far as that is known.

    Attributes:
        similarity: 0..1, higher is closer; 0.5 and more are verified copies. When searching by kind: the cosine.
        cosine: of the embeddings of the image and of the closest view.
        is_copy: whether the query is verified as a copy of it, and differs by edits that count.
        verification: what both have in common and what differs; None if nothing shows that they are one picture.
    """

    row: int
    image: IndexedImage
    path: Path
    similarity: float
    cosine: float
    is_copy: bool
    verification: Verification | None

    @property
    def picture(self) -> IndexedImage:
        """The earlier name of `image`."""
        return self.image

    @property
    def reasons(self) -> tuple[str, ...]:
        """What was done to the query if this is the original; empty if no edit is visible, or nothing is verified."""
        return self.verification.reasons if self.verification else ()

    @property
    def edits(self) -> frozenset[str]:
        """The kinds of the reasons, see `simimg.similarity.edits`."""
        return self.verification.edits if self.verification else frozenset()

    @property
    def differs(self) -> Differences | None:
        """What differs at full size; None if nothing is verified."""
        return self.verification.differs if self.verification else None


class Finder:
    """Searches an index. Not thread-safe; verifies candidates with one thread per core."""

    def __init__(
        self,
        index: SearchIndex,
        embedder: Embedder,
        *,
        threshold: float | None = None,
        edits: frozenset[str] = COUNTED,
    ) -> None:
        """Take an opened index and the model that made it.

        `threshold` is the least similarity of a copy; None uses the one that `simimg calibrate` chose, if it was run.
        `edits` are the kinds of edits that a copy may show, see `simimg.similarity.edits`.

        Raises:
            SearchIndexError: `embedder` did not make the index.
        """
        index.check_model(embedder)
        self.index = index
        self.embedder = embedder
        self._threshold = index.info.thresholds.get("copy", 0.0) if threshold is None else threshold
        self._edits = edits
        self._executor = ThreadPoolExecutor(num_cores())
        self._images = IndexImages(index, background=embedder.background)
        self._hashes = [column for column in index.images.hashes() if column.any()]

    def find(self, query: Query, k: int, by: str = "copy", *, without: int = -1) -> list[SearchResult]:
        """Return the `k` (at least 1) most similar images of the index, best first; the row `without` is ignored.

        By `copy`, these are verified copies first; by `kind`, images of the same kind, by their embeddings.
        """
        among = self._among(None, without)
        if by == "kind":
            matches = self._nearest(self.embedder.embed(query.views[_UPRIGHT]), k, by, among)
            return self._ranked(matches, [], k, by)
        computed = self._executor.submit(lambda: query.image.fingerprint)  # while the network runs
        embeddings = self.embedder.embed(query.views)
        matches = self._nearest(embeddings, k, by, among)
        matches = self._near_hashes_first(matches, query.views, embeddings, among)
        computed.result()
        *_, verified = self._verified(_QueryImages(query.image, query.views[0]), matches)
        return self._ranked(matches, verified, k, by)

    def steps(
        self,
        views: np.ndarray,
        image: QueryImage,
        k: int,
        by: str = "copy",
        *,
        without: int = -1,
        only: np.ndarray | None = None,
    ) -> Iterator[list[SearchResult]]:
        """Yield the results of `find` as far as they are known, for interactive use; the last equals that of `find`.

        The first results use the embeddings of the image and its mirror image, an eighth of the work; the second ones
        those of all views; then there are new results for each group of candidates that is verified. When the first one
        is verified, the fingerprint of the query is computed. `only`, bool `[num_images]`, selects the images
        that are searched.
        """
        among = self._among(only, without)
        upright = self.embedder.embed(views[_UPRIGHT])
        matches = self._nearest(upright, k, by, among)
        yield self._ranked(matches, [], k, by)
        if by == "kind":
            return
        others = [view for view in range(len(views)) if view not in _UPRIGHT]
        embeddings = np.concatenate([upright, self.embedder.embed(views[others])])
        matches = self._nearest(embeddings, k, by, among)
        yield self._ranked(matches, [], k, by)
        matches = self._near_hashes_first(matches, views, embeddings, among)
        for verified in self._verified(_QueryImages(image, views[0]), matches):
            yield self._ranked(matches, verified, k, by)

    def find_text(self, vector: np.ndarray, k: int, *, only: np.ndarray | None = None) -> list[SearchResult]:
        """Return the `k` images nearest to a text, best first; their similarity is the cosine.

        `vector` is that of a `simimg.similarity.text_encoder` that fits the index, float32 `[network_dim]`. It is
        compared with the embeddings themselves: a projection that is fitted to images distorts texts. For `only`, see
        `steps`.
        """
        embeddings = self.index.embeddings
        rows_of = OnePass(embeddings) if self.index.once and isinstance(embeddings, np.memmap) else embeddings
        (cosines,), (rows,) = nearest(Float32Rows(rows_of), vector[None, None], k, only)
        images = self.index.images.rows(rows)
        return [
            SearchResult(row, image, self.index.path_of(image), cosine, cosine, False, None)
            for row, image, cosine in zip(rows.tolist(), images, cosines.tolist(), strict=True)
        ]

    def close(self) -> None:
        """Stop the threads, and keep what they computed of the images."""
        self._executor.shutdown(cancel_futures=True)
        self._images.save()

    def _among(self, only: np.ndarray | None, without: int) -> np.ndarray | None:
        if without < 0:
            return only
        among = np.ones(len(self.index.images), bool) if only is None else only.copy()
        among[without] = False
        return among

    def _nearest(self, embeddings: np.ndarray, k: int, by: str, among: np.ndarray | None) -> list[Match]:
        """Return the `k` nearest images; for `copy`, at least as many as are verified."""
        most = k if by == "kind" else max(k, CANDIDATES)
        (found,) = self.index.search(embeddings[None], most, by, among=among)
        return found

    def _near_hashes_first(
        self, matches: list[Match], views: np.ndarray, embeddings: np.ndarray, among: np.ndarray | None
    ) -> list[Match]:
        """Return images with a similar hash, whether or not they are among the matches, then the other matches."""
        orientations = [views[:_ORIENTATIONS]]
        for extra in views[NUM_VIEWS:]:
            orientations += [np.rot90(side, turns)[None] for side in (extra, extra[:, ::-1]) for turns in range(4)]
        hashes = np.concatenate([perceptual_hashes(some) for some in orientations])
        distances = np.full(len(self.index.images), 64, np.uint8)
        for column in self._hashes:
            found = np.bitwise_count(column ^ hashes[:, None]).min(axis=0)
            np.minimum(distances, found, out=distances, where=column != NO_HASH)
        near = distances <= _MAX_DISTANCE
        if among is not None:
            near &= among
        rows = np.flatnonzero(near)
        rows = rows[np.argsort(distances[rows], kind="stable")][:_NEAR_HASHES].tolist()
        known = {match.row: match for match in matches}
        unknown = [row for row in rows if row not in known]
        if unknown:
            among = np.zeros(len(self.index.images), bool)
            among[unknown] = True
            (found,) = self.index.search(embeddings[None], len(unknown), among=among)
            known |= {match.row: match for match in found}
        first = [known[row] for row in rows if row in known]
        return [*first, *(match for match in matches if match.row not in rows)]

    def _verified(self, query: _QueryImages, matches: Sequence[Match]) -> Iterator[list[Verification | None]]:
        """Yield the verifications so far, at least once; ends after a copy and `_GROUP` other images in a row."""
        candidates = matches[:CANDIDATES]
        verified: list[Verification | None] = []
        since_copy = 0  # other images since the last copy, with whichever edits
        yield verified
        nearest_copy = -1.0  # its cosine
        while len(verified) < len(candidates) and not (nearest_copy >= 0 and since_copy >= _GROUP):
            num_next = _GROUP - since_copy if nearest_copy >= 0 else _GROUP
            group = candidates[len(verified) : len(verified) + num_next]
            with one_blas_thread():
                found, nearest_copy = self._examined(query, group, nearest_copy)
            for one in found:
                verified.append(one)
                since_copy = since_copy + 1 if one is None or one.similarity < self._threshold else 0
            yield verified

    def _examined(
        self, query: _QueryImages, group: Sequence[Match], nearest_copy: float
    ) -> tuple[list[Verification | None], float]:
        """Return the verifications of a group, and the largest cosine of a copy so far, -1 if there is none.

        Thumbnails are compared first. The keypoints of larger images take most of the time of a search. So these are
        compared best first, and once there is a copy, only of images that are as close as another copy would be.
        """
        found = list(self._executor.map(lambda match: self._verify(query, match.row, thorough=False), group))
        waiting = [place for place, one in enumerate(found) if one is None]
        done = list(range(len(group)))
        while True:
            copies = [max(0.0, group[place].similarity) for place in done if self._is_copy(found[place])]
            nearest_copy = max([nearest_copy, *copies])
            least = max(_CLOSE, _CLOSE_TO_COPY * nearest_copy) if nearest_copy >= 0 else -1.0
            done = [place for place in waiting if group[place].similarity >= least][: num_cores()]
            if not done:
                return found, nearest_copy
            waiting = [place for place in waiting if place not in done]
            rows = [group[place].row for place in done]
            for place, one in zip(done, self._executor.map(lambda row: self._verify(query, row), rows), strict=True):
                found[place] = one

    def _is_copy(self, found: Verification | None) -> bool:
        return found is not None and found.similarity >= self._threshold and found.edits <= self._edits

    def _verify(self, query: _QueryImages, row: int, *, thorough: bool = True) -> Verification | None:
        candidate = self._images.file(row)
        if candidate is not None:
            found = self._images.verify_new(query.image.fingerprint, row, thorough=thorough)
        else:  # the file was moved, changed or removed, or belongs to a dataset whose files are elsewhere
            stored = self._images.square(row)
            found = None if stored is None else verify_composites(query.square(stored.size), stored, thorough=thorough)
        if found is None or found.similarity < self._threshold:
            return None
        if candidate is not None:
            return self._images.compared_file(found, query.image.full, row)
        return self._images.compared_square(found, query.full_square, row)

    def _ranked(
        self, matches: Sequence[Match], verified: Sequence[Verification | None], k: int, by: str
    ) -> list[SearchResult]:
        """Return the `k` best results; the embeddings rank what is not verified."""
        results = []
        for place, match in enumerate(matches):
            found = verified[place] if place < len(verified) else None
            cosine = match.similarity
            is_copy = self._is_copy(found)
            alike = cosine if by == "kind" else min(_MOST_ALIKE, 0.5 * max(0.0, cosine))
            similarity = found.similarity if found and is_copy else alike
            path = self.index.path_of(match.image)
            results.append(SearchResult(match.row, match.image, path, similarity, cosine, is_copy, found))
        return sorted(results, key=lambda one: (-one.similarity, -one.cosine))[:k]


class _QueryImages:
    """A query, and the square that a dataset would have stored of it."""

    def __init__(self, image: QueryImage, square: np.ndarray) -> None:
        self.image = image
        self.full_square = FullImage(square)
        self._image = Image.fromarray(square)
        self._squares: dict[tuple[int, int], Fingerprint] = {}
        self._lock = threading.Lock()  # so that only one of the verifying threads computes it

    def square(self, size: tuple[int, int]) -> Fingerprint:
        """Return the fingerprint of the square at this size."""
        with self._lock:
            if size not in self._squares:
                image = self._image.resize(size, Image.Resampling.BICUBIC)
                self._squares[size] = fingerprint(image, as_query=True)
            return self._squares[size]
