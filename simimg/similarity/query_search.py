"""Searches an index for one query after another: embeds its views, finds the nearest images and verifies them.

The images of an index are embedded once, as they are. A query is embedded in `NUM_VIEWS` views: rotated by quarter
turns, mirrored, and in parts, because a network takes a photo for another one if it is rotated or fills only a corner
of the query. The view that is closest to an image of the index counts.

By embeddings alone, the original is first for nine of ten edited copies, and nearly always among the first fifty. So
these candidates are verified, four at a time, best first, until four in a row after a copy are not copies. Blur and
coarse pixels change an embedding but not a perceptual hash, so the images with the most similar hashes are verified
before all others. Verified copies come first:

    verified        similarity 0.5 + 0.5 x agreement of the common part, reduced if it is a small part of either image
    not verified    similarity 0.5 x cosine of the embeddings
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFile

from simimg.determinism import one_blas_thread
from simimg.image_files import map_ahead
from simimg.similarity.embeddings import Embedder
from simimg.similarity.fingerprint import Fingerprint, fingerprint, jpeg_quality, jpeg_quality_of
from simimg.similarity.image_table import IndexedImage
from simimg.similarity.index_images import IndexImages
from simimg.similarity.match_verification import Verification
from simimg.similarity.search_index import Match, SearchIndex
from simimg.similarity.transparency import verify_composites
from tfrecords.convert.image.color import contrasting
from tfrecords.convert.image.decoder import (
    DecodedImage,
    ImageOptions,
    decode_composites,
    load_image,
    resize,
    upright_composites,
)
from tfrecords.convert.image.near_duplicates import NO_HASH, perceptual_hashes
from tfrecords.format.quarantine import Reason, Refusal
from tfrecords.machine_limits import num_cores

CANDIDATES = 48
"""Images that are verified per query, at most: for 99.6 % of edited copies the original is among the first fifty."""

_WINDOW = 0.6  # of each side
_CORNERS = (0.0, 0.2, 0.4)  # where windows begin, as a share of the side: three by three
NUM_VIEWS = 8 + len(_CORNERS) ** 2
_UPRIGHT = [0, 4]  # views: the image and its mirror image; images of a kind are not turned by quarters
_ORIENTATIONS = 8  # the first views: the whole image, rotated and mirrored

_GROUP = 4
_NEAR_HASHES = 4  # images with similar hashes that are verified, at most
_MAX_DISTANCE = 10  # of their 64 bits


@dataclasses.dataclass(frozen=True)
class Query:
    """An image to search for.

    Attributes:
        path: of its file, or "".
        views: see `query_views`.
        get_fingerprint: computes its fingerprint for verification.
    """

    path: str
    views: np.ndarray
    get_fingerprint: Callable[[], Fingerprint]

    @property
    def fingerprint(self) -> Fingerprint:
        """Its fingerprint, computed when it is first needed."""
        return self.get_fingerprint()


class LazyFingerprint:
    """Computes the fingerprint of a query once, and then drops the image, which may have 192 MB. Thread-safe."""

    def __init__(self, image: Image.Image, **options: Any) -> None:
        """Take an image, mode RGB, upright, and the options of `fingerprint`."""
        self._image: Image.Image | None = image
        self._options = options
        self._lock = threading.Lock()

    def __call__(self) -> Fingerprint:
        """Return the fingerprint; the first call takes 0.1 s."""
        with self._lock:
            if self._image is not None:
                self._found = fingerprint(self._image, as_query=True, **self._options)
                self._image = None
                self._options.clear()
            return self._found


@dataclasses.dataclass(frozen=True, slots=True)
class SearchResult:
    """An image of the index that was found for a query: its row, and the path of its file, as far as that is known.

    Attributes:
        similarity: 0..1, higher is closer; 0.5 and more are verified copies. When searching by kind: the cosine.
        cosine: of the embeddings of the image and of the closest view.
        verification: why it is a copy; None if it is not verified as one.
    """

    row: int
    image: IndexedImage
    path: Path
    similarity: float
    cosine: float
    verification: Verification | None

    @property
    def picture(self) -> IndexedImage:
        """The earlier name of `image`."""
        return self.image

    @property
    def is_copy(self) -> bool:
        """Whether the query is verified as a copy of it."""
        return self.verification is not None

    @property
    def reasons(self) -> tuple[str, ...]:
        """What was done to the query if this is the original; empty if no edit is visible, or it is not a copy."""
        return self.verification.reasons if self.verification else ()


def query_views(
    image: Image.Image, options: ImageOptions, data: bytes = b"", contrast: Image.Image | None = None
) -> np.ndarray:
    """Return the views of a query, uint8 `[NUM_VIEWS, image_size, image_size, 3]`, and one more if it is transparent.

    Of a file with the content `data`, the whole image has the same pixels as when the file is indexed. Pixels in memory
    are resized as those of a PNG file would be. A JPEG decoder reduces a large image itself, which cannot be repeated
    with its pixels.

    The first view is the image, the next seven are its other orientations (quarter turns, and each mirrored), and the
    last nine are windows of 60 % of each side. Measured with 200 photos in 14 edits among 2,387: the original is first
    for 87 % with the image and its mirror image alone and for 92 % with all views; it is among the first fifty for 98 %
    and 99.6 %.

    Of an image with transparent pixels, `contrast` is the image on the contrasting background, which is one more view.
    If the image shows nothing else, all views are of `contrast`, as in the index.

    The mode of the image is RGB. `options` are the model's; they tell the size, and how images become squares.

    Raises:
        Refusal: `data` cannot be decoded.
    """
    other = dataclasses.replace(options, background=contrasting(options.background))

    def square(image: Image.Image, options: ImageOptions = options) -> np.ndarray:
        return resize(image, options.image_size, options.resize, background=options.background)

    if data:
        loaded = load_image(data, options, contrast=True)
    else:
        laid = None if contrast is None else square(contrast, other)
        loaded = DecodedImage(square(image), *image.size, laid)
    whole, extra = loaded.pixels, loaded.contrast
    if extra is not None and contrast is not None and loaded.vanishes:
        image, whole, options, extra = contrast, extra, other, None
    # The resized square is rotated instead of the image; the result is the same.
    views = [np.rot90(side, turns) for side in (whole, whole[:, ::-1]) for turns in range(4)]
    width, height = image.size
    for top in _CORNERS:
        for left in _CORNERS:
            box = (left * width, top * height, (left + _WINDOW) * width, (top + _WINDOW) * height)
            edges = [round(edge) for edge in box]
            part = image.crop((edges[0], edges[1], max(edges[0] + 1, edges[2]), max(edges[1] + 1, edges[3])))
            views.append(square(part, options))
    return np.stack(views if extra is None else [*views, extra])


def load_query(path: str, embedder: Embedder) -> Query | Refusal:
    """Return a file as a query, or why it cannot be read."""
    try:
        return _file_query(path, Path(path).read_bytes(), embedder)
    except OSError as error:
        return Refusal(Reason.UNREADABLE, error.strerror or str(error))


def _file_query(path: str, data: bytes, embedder: Embedder) -> Query | Refusal:
    try:
        image, contrast = decode_composites(data, background=embedder.background, truncated=embedder.truncated)
        return make_query(path, image, embedder, quality=jpeg_quality(data), data=data, contrast=contrast)
    except Refusal as refusal:
        return refusal


def image_query(image: Image.Image, embedder: Embedder) -> Query | Refusal:
    """Return an image of any mode as a query, the same as that of its file if Pillow has just opened it."""
    if data := _unread_file(image):
        return _file_query("", data, embedder)
    try:
        image.load()
    except (OSError, SyntaxError, ValueError) as error:  # of a file that Pillow opened, but cannot decode
        return Refusal(Reason.UNREADABLE, str(error))
    laid, contrast = upright_composites(image, embedder.background)
    return make_query("", laid, embedder, quality=jpeg_quality_of(image), contrast=contrast)


def _unread_file(image: Image.Image) -> bytes:
    """Return the content of the file that Pillow has opened as `image`, but not decoded yet; b"" for other images."""
    file = image.fp if isinstance(image, ImageFile.ImageFile) else None
    if file is None or getattr(image, "_im", None) is not None or image.tell():
        return b""
    try:
        place = file.tell()
        file.seek(0)
        data: bytes = file.read()
        file.seek(place)
    except (OSError, ValueError):  # closed, or a stream
        return b""
    return data


def make_query(
    path: str,
    image: Image.Image,
    embedder: Embedder,
    *,
    quality: int | None = None,
    data: bytes = b"",
    contrast: Image.Image | None = None,
) -> Query:
    """Return an image, mode RGB, upright, as a query; `data` is the content of its file, if it has one.

    For `contrast`, see `query_views`.
    """
    views = query_views(image, embedder.image_options, data, contrast)
    return Query(
        path, views, LazyFingerprint(image, quality=quality, contrast=contrast, background=embedder.background)
    )


def load_queries(paths: Sequence[str], embedder: Embedder) -> Iterator[tuple[str, Query | Refusal]]:
    """Return an iterator over each path with its query or its refusal, in order, loaded ahead by threads."""

    def load(path: str) -> tuple[str, Query | Refusal]:
        query = load_query(path, embedder)
        if isinstance(query, Query) and len(paths) > 1:  # a single one is better computed while the network runs
            query.fingerprint  # noqa: B018
        return path, query

    return map_ahead(load, paths, num_threads=num_cores(), num_ahead=4 * num_cores())


class Finder:
    """Searches an index. Not thread-safe; verifies candidates with one thread per core."""

    def __init__(self, index: SearchIndex, embedder: Embedder, *, threshold: float | None = None) -> None:
        """Take an opened index and the model that made it.

        `threshold` is the least similarity of a copy; None uses the one that `simimg calibrate` chose, if it was run.

        Raises:
            SearchIndexError: `embedder` did not make the index.
        """
        index.check_model(embedder)
        self.index = index
        self.embedder = embedder
        self._threshold = index.info.thresholds.get("copy", 0.0) if threshold is None else threshold
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
        fingerprint = self._executor.submit(lambda: query.fingerprint)  # while the network runs
        embeddings = self.embedder.embed(query.views)
        matches = self._nearest(embeddings, k, by, among)
        matches = self._near_hashes_first(matches, query.views, embeddings, among)
        *_, verified = self._verified(_QueryFingerprints(fingerprint.result(), query.views[0]), matches)
        return self._ranked(matches, verified, k, by)

    def steps(
        self,
        views: np.ndarray,
        get_fingerprint: Callable[[], Fingerprint],
        k: int,
        by: str = "copy",
        *,
        without: int = -1,
        only: np.ndarray | None = None,
    ) -> Iterator[list[SearchResult]]:
        """Yield the results of `find` as far as they are known, for interactive use; the last equals that of `find`.

        The first results use the embeddings of the image and its mirror image, an eighth of the work; the second ones
        those of all views; then there are new results for each group of candidates that is verified. When the first one
        is verified, `get_fingerprint` is called for that of the query. `only`, bool `[num_images]`, selects the images
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
        for verified in self._verified(_QueryFingerprints(get_fingerprint(), views[0]), matches):
            yield self._ranked(matches, verified, k, by)

    def close(self) -> None:
        """Stop the threads."""
        self._executor.shutdown(cancel_futures=True)

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

    def _verified(self, query: _QueryFingerprints, matches: Sequence[Match]) -> Iterator[list[Verification | None]]:
        """Yield the verifications so far, at least once; ends after a copy and `_GROUP` others in a row."""
        rows = [match.row for match in matches[:CANDIDATES]]
        verified: list[Verification | None] = []
        since_copy = 0  # how many were no copies since the last one
        yield verified
        while len(verified) < len(rows) and not (any(verified) and since_copy >= _GROUP):
            num_next = _GROUP - since_copy if any(verified) else _GROUP
            with one_blas_thread():
                found = self._executor.map(
                    lambda row: self._verify(query, row), rows[len(verified) : len(verified) + num_next]
                )
                for one in found:
                    verified.append(one)
                    since_copy = 0 if one else since_copy + 1
            yield verified

    def _verify(self, query: _QueryFingerprints, row: int) -> Verification | None:
        candidate = self._images.file(row)
        if candidate is not None:
            found = verify_composites(query.whole, candidate)
        else:  # the file was moved, changed or removed, or belongs to a dataset whose files are elsewhere
            stored = self._images.square(row)
            found = None if stored is None else verify_composites(query.square(stored.size), stored)
        return found if found is not None and found.similarity >= self._threshold else None

    def _ranked(
        self, matches: Sequence[Match], verified: Sequence[Verification | None], k: int, by: str
    ) -> list[SearchResult]:
        """Return the `k` best results; the embeddings rank what is not verified."""
        results = []
        for place, match in enumerate(matches):
            found = verified[place] if place < len(verified) else None
            cosine = match.similarity
            similarity = found.similarity if found else cosine if by == "kind" else 0.5 * max(0.0, cosine)
            path = self.index.path_of(match.image)
            results.append(SearchResult(match.row, match.image, path, similarity, cosine, found))
        return sorted(results, key=lambda one: -one.similarity)[:k]


class _QueryFingerprints:
    """Fingerprints of a query: of the image, and of the square that a dataset would have stored of it."""

    def __init__(self, whole: Fingerprint, square: np.ndarray) -> None:
        self.whole = whole
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
