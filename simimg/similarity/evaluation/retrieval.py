"""Measures on an index how well edited copies find their originals, and how reliable the results are.

Images of the index are drawn at random. One half is searched for in every edit of
`simimg.similarity.evaluation.image_edits`. The other half are distractors, which are edited and searched for as if they
were not in the index, so that everything they find is wrong. A collection may have a photo twice: images that are
clearly copies of the query before any edit count neither as right nor as wrong.

recall          share of copies whose original is the first match
uAP             micro average precision, as in the Image Similarity Challenge 2021: the area under the precision-recall
                curve of all matches of all queries and distractors, in one list sorted by score
R@P90           recall at the largest score down to which nine of ten matches are right

`simimg duplicates` compares files instead of searching: it knows fewer keypoints of a copy, has one view of it, and
tries other candidates. So the matches of each copy as a file of the collection are listed as well, as `pairs`; they
have a distribution, and so a threshold, of their own.

Scores: `cosine` of the embeddings; `normalised`, the cosine minus the mean of the query's second to fourth best, which
measures the density of its neighborhood (SSCD, CVPR 2022, section 4.2, with the index itself as the background set);
and `similarity`, after verification.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from simimg.determinism import exact_matmul, one_blas_thread
from simimg.errors import UsageError
from simimg.image_files import map_ahead
from simimg.similarity.candidate_pairs import NEIGHBORS
from simimg.similarity.copy_pairs import GROUP
from simimg.similarity.embeddings import Embedder
from simimg.similarity.evaluation.image_edits import EDITS
from simimg.similarity.fingerprint import Fingerprint, fingerprint, read_unchanged
from simimg.similarity.index_images import IndexImages
from simimg.similarity.projection import fit_projection
from simimg.similarity.query_search import CANDIDATES, Finder, SearchResult
from simimg.similarity.search_index import SearchIndex
from simimg.similarity.search_queries import Query, make_query
from tfrecords.convert.image.decoder import decode_visible
from tfrecords.convert.image.image_formats import ANY_SIZE
from tfrecords.convert.image.near_duplicates import MAX_DISTANCE, NO_HASH, perceptual_hashes, position_hashes
from tfrecords.format.quarantine import Refusal
from tfrecords.machine_limits import num_cores

Hash = Callable[[Image.Image], np.ndarray]
"""A method to compare with, which maps an image to bits: bool `[n]`."""

SCORES = ("cosine", "normalised", "similarity")
_NEIGHBORS = slice(1, 4)
_TWICE = 0.9  # similarity to the unedited photo; different photos of the same thing had at most 0.84
_MATCHES = 10  # entered into the list per query
_AHEAD = 4  # queries per core that are prepared in advance: 3 MB each
_HELD_OUT = 4  # every fourth image is a query, and its label is hidden from the fit
_QUERIES_PER_BLOCK = 256


@dataclasses.dataclass(frozen=True)
class Failure:
    """A copy whose original was not found first: its edit, the rows of both, and the rank of the original."""

    edit: str
    original: int
    first: int
    place: int | None


@dataclasses.dataclass(frozen=True)
class Retrieval:
    """The result of a measurement on an index of `num_images` images.

    Attributes:
        num_queries: images that were searched for in each edit; there were as many distractors.
        recall: by method and edit. `similarity` and `cosine` are simimg with and without verification.
        scored: by score, and for `pairs`, all matches of all queries, best first: float64 scores, and bool, whether
            they are right.
        num_copies: copies that had an original to find.
        failures: by `similarity`.
    """

    num_images: int
    num_queries: int
    recall: Mapping[str, Mapping[str, float]]
    scored: Mapping[str, tuple[np.ndarray, np.ndarray]]
    num_copies: int
    failures: tuple[Failure, ...]

    def micro(self, score: str) -> tuple[float, float]:
        """Return uAP and R@P90 of a score."""
        _, right = self.scored[score]
        precision, recall = precision_and_recall(right, self.num_copies)
        good = recall[precision >= 0.9]
        return average_precision(right, self.num_copies), float(good.max()) if len(good) else 0.0

    def threshold(self, precision: float, matches: str = "similarity") -> float | None:
        """Return the least similarity of 0.5 or more from which on this share of matches is right; None without one.

        `matches` is `similarity`, for a search, or `pairs`.
        """
        similarity, right = self.scored[matches]
        reached, _ = precision_and_recall(right, self.num_copies)
        # Of equal scores, the last one counts for all.
        last = np.append(similarity[1:] != similarity[:-1], True)
        good = (reached >= precision) & (similarity >= 0.5) & last
        return float(similarity[good].min()) if good.any() else None


def measure_retrieval(
    index: SearchIndex,
    embedder: Embedder,
    *,
    num_queries: int,
    seed: int,
    hashes: Mapping[str, Hash] | None = None,
    progress: Callable[[int], object] = lambda num_queries: None,
) -> Retrieval:
    """Measure how well edited copies of an index's images, files that still exist, find their originals in it.

    `num_queries` images are searched for in each edit, and as many distractors. `seed` determines the images, and the
    random parameters of their edits. `hashes` are methods to compare with, by name: the nearest by Hamming distance is
    their first match. `progress` is called with the number of queries since its last call.

    Raises:
        UsageError: the index has too few images, or they cannot be read.
    """
    if len(index.images) < 2 * num_queries:
        raise UsageError(
            f"{index.index_dir} has {len(index.images)} images, but {num_queries} queries and as many distractors "
            f"need {2 * num_queries}. Choose a smaller --num_queries."
        )
    hashes = hashes or {}
    bits = _hashed(index, hashes)
    finder = Finder(index, embedder, threshold=0.5)
    hits: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    scored: dict[str, list[tuple[float, bool]]] = {score: [] for score in (*SCORES, "pairs")}
    failures = []
    twice: set[int] = set()
    images, executor = IndexImages(index), ThreadPoolExecutor(num_cores())
    drawn = np.random.default_rng(seed).permutation(len(index.images))[: 2 * num_queries].tolist()
    for number, (row, name, copy, query, as_file) in enumerate(_queries(index, embedder, drawn, seed)):
        is_distractor = number >= num_queries * (len(EDITS) + 1)
        if name is None:
            as_it_is = finder.find(query, CANDIDATES, without=row)
            twice = {one.row for one in as_it_is if one.similarity >= _TWICE}
            continue
        found = finder.find(query, CANDIDATES, without=row if is_distractor else -1)
        found = [one for one in found if one.row not in twice] or found[:1]
        _enter(scored, found, row)
        square = query.views[:1]
        among = np.arange(len(index.images)) != row if is_distractor else None
        (embedding,) = embedder.embed(square)
        own_hashes = int(perceptual_hashes(square)[0]), int(position_hashes(square)[0])
        pairs = _copies_among(images, executor, as_file, embedding, own_hashes, among)
        scored["pairs"] += [(pairs[other], other == row) for other in pairs if other not in twice]
        progress(1)
        if is_distractor:
            continue
        hits["similarity"][name].append(found[0].row == row)
        hits["cosine"][name].append(max(found, key=lambda one: one.cosine).row == row)
        for rival, hash in hashes.items():
            distances = (bits[rival] != hash(copy)).sum(axis=1)
            distances[list(twice)] = distances.max() + 1
            hits[rival][name].append(int(np.argmin(distances)) == row)
        if found[0].row != row:
            at = next((at for at, one in enumerate(found) if one.row == row), None)
            failures.append(Failure(name, row, found[0].row, at))
    finder.close()
    executor.shutdown()
    return Retrieval(
        num_images=len(index.images),
        num_queries=num_queries,
        recall={name: {edit: float(np.mean(found)) for edit, found in edits.items()} for name, edits in hits.items()},
        scored={score: _sorted(pairs) for score, pairs in scored.items()},
        num_copies=num_queries * len(EDITS),
        failures=tuple(failures),
    )


def _queries(
    index: SearchIndex, embedder: Embedder, rows: Sequence[int], seed: int
) -> Iterator[tuple[int, str | None, Image.Image, Query, Fingerprint]]:
    """Yield each row with its unedited image (edit None), and then with each edit; threads prepare them in advance.

    The image comes as a query, and as the fingerprint of a file.
    """

    def make(job: tuple[int, str | None]) -> tuple[int, str | None, Image.Image, Query, Fingerprint]:
        row, edit = job
        image = indexed_image(index, row)
        copy = image if edit is None else edited_copy(image, row, edit, seed)
        return row, edit, copy, make_query(index.images[row].path, copy, embedder), fingerprint(copy)

    jobs = [(row, edit) for row in rows for edit in (None, *EDITS)]
    return map_ahead(make, jobs, num_threads=num_cores(), num_ahead=_AHEAD * num_cores())


def _hashed(index: SearchIndex, hashes: Mapping[str, Hash]) -> dict[str, np.ndarray]:
    """Return the bits of all images by method, bool `[num_images, n]`."""

    def bits(row: int) -> list[np.ndarray]:
        image = indexed_image(index, row)
        return [hash(image) for hash in hashes.values()]

    if not hashes:
        return {}
    with ThreadPoolExecutor(num_cores()) as executor:
        columns = zip(*executor.map(bits, range(len(index.images))), strict=True)
    return {name: np.stack(column) for name, column in zip(hashes, columns, strict=True)}


def edited_copy(image: Image.Image, row: int, edit: str, seed: int) -> Image.Image:
    """Return the edited copy of a row's image, as a measurement with this seed makes it."""
    return EDITS[edit](image, np.random.default_rng([seed, row, list(EDITS).index(edit)]))


def precision_and_recall(right: np.ndarray, num_positive: int) -> tuple[np.ndarray, np.ndarray]:
    """Return precision and recall of the first 1, 2, ... matches: float64 `[n]` each.

    `right` is bool `[n]`, the best match first, and `num_positive` the number of matches to find.
    """
    hits = np.cumsum(right)
    return hits / np.arange(1, len(right) + 1), hits / num_positive


def average_precision(right: np.ndarray, num_positive: int) -> float:
    """Return the micro average precision; see `precision_and_recall`."""
    precision, _ = precision_and_recall(right, num_positive)
    return float(precision[right].sum() / num_positive)


def kind_precision(index: SearchIndex) -> dict[str, float]:
    """Return the mean average precision of "same kind" by method; images of the query's class are the right ones.

    Every fourth image is a query, and its label is hidden when the projection is fitted. All other images are searched.
    """
    labels = index.images.column("label")
    queries = np.arange(len(labels)) % _HELD_OUT == 0
    hidden = np.where(queries, "", labels)
    embeddings = np.asarray(index.embeddings, np.float32)
    vectors = {
        "as the network gives them": embeddings,
        "kind, without labels": fit_projection(embeddings, np.full(len(labels), ""), "kind")(embeddings),
        "kind, with the others' labels": fit_projection(embeddings, hidden, "kind")(embeddings),
    }
    return {name: mean_kind_precision(some, labels, queries) for name, some in vectors.items()}


def mean_kind_precision(
    vectors: np.ndarray, labels: np.ndarray, queries: np.ndarray, *, clutter: str = "BACKGROUND_Google"
) -> float:
    """Return the mean average precision with which images find those of their label among all others.

    Args:
        vectors: `[num_images, dim]`, compared by cosine.
        labels: str `[num_images]`.
        queries: bool `[num_images]`, the images that are queries.
        clutter: a label that is not a kind; its images are not queries, but are among the searched images.
    """
    unit = np.asarray(vectors, np.float32)
    unit = unit / np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    values = []
    rows = np.flatnonzero(queries & (labels != clutter) & (labels != ""))
    for start in range(0, len(rows), _QUERIES_PER_BLOCK):
        block = rows[start : start + _QUERIES_PER_BLOCK]
        for row, similarities in zip(block.tolist(), exact_matmul(unit[block], unit.T), strict=True):
            order = np.argsort(-similarities, kind="stable")
            same = labels[order[order != row]] == labels[row]
            if same.any():
                values.append(average_precision(same, int(same.sum())))
    return float(np.mean(values)) if values else 0.0


def _enter(scored: dict[str, list[tuple[float, bool]]], found: Sequence[SearchResult], original: int) -> None:
    """Add the best matches of a query by each score; a distractor's original is not among them."""
    by_cosine = sorted(found, key=lambda one: -one.cosine)
    background = float(np.mean([one.cosine for one in by_cosine[_NEIGHBORS]]))
    scored["cosine"] += [(one.cosine, one.row == original) for one in by_cosine[:_MATCHES]]
    scored["normalised"] += [(one.cosine - background, one.row == original) for one in by_cosine[:_MATCHES]]
    scored["similarity"] += [(one.similarity, one.row == original) for one in found[:_MATCHES]]


def _sorted(pairs: Sequence[tuple[float, bool]]) -> tuple[np.ndarray, np.ndarray]:
    scores, right = np.array([score for score, _ in pairs]), np.array([one for _, one in pairs], bool)
    order = np.lexsort((right, -scores))  # of equal scores, wrong ones first
    return scores[order], right[order]


def indexed_image(index: SearchIndex, row: int) -> Image.Image:
    """Return the image of a row as it is displayed, mode RGB, upright.

    Raises:
        UsageError: its file is not the one that was indexed.
    """
    picture = index.images[row]
    path = index.path_of(picture)
    try:
        return decode_visible(read_unchanged(path, picture.sha256), max_pixels=ANY_SIZE)
    except (OSError, Refusal) as error:
        raise UsageError(
            f"{path} of {index.index_dir} cannot be read: {error}. Update the index first, with `simimg index`."
        ) from None


def _copies_among(
    images: IndexImages,
    executor: ThreadPoolExecutor,
    new: Fingerprint,
    embedding: np.ndarray,
    hashes: tuple[int, int],
    among: np.ndarray | None = None,
) -> dict[int, float]:
    """Return the rows of an index that a new image is a copy of, with their similarities, by the steps of
    `simimg.similarity.copy_pairs`. So `simimg calibrate` measures pairs as `simimg duplicates` finds them.

    Args:
        images: the index.
        executor: for the verifications.
        new: the image's fingerprint, as a candidate.
        embedding: `[network_dim]`, of the image as it is.
        hashes: its perceptual hash, and that of the position that all eight share.
        among: bool `[num_images]`, the images that it may be a copy of; by default all.
    """
    index, found, done = images.index, dict[int, float](), set[int]()

    def examine(rows: Sequence[int]) -> bool:
        """Verify rows; return whether most of them are copies."""
        todo = [row for row in rows if row not in done]
        done.update(todo)
        with one_blas_thread():
            verified = list(executor.map(lambda row: images.verify_new(new, row), todo))
        found.update({row: copy.similarity for row, copy in zip(todo, verified, strict=True) if copy is not None})
        return sum(row in found for row in rows) > GROUP // 2

    known = index.images.hashes()
    wanted = np.array([hashes[0], hashes[0], hashes[1]], np.uint64)[:, None]
    near = (known != NO_HASH) & (wanted != NO_HASH) & (np.bitwise_count(known ^ wanted) <= MAX_DISTANCE)
    examine(np.flatnonzero(near.any(axis=0) if among is None else near.any(axis=0) & among).tolist())
    vector = index.projections["copy"](embedding[None, None])
    nearest = index.nearest_vectors(vector, NEIGHBORS, among=among)[1][0].tolist()
    for first in range(0, len(nearest), GROUP):
        if not examine(nearest[first : first + GROUP]):
            break
    return found
