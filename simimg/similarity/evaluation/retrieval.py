"""How well edited copies find their originals, and how sure one can be of what is found: measured on an index.

Photos of the index are drawn: some to be looked for, each in every edit of `simimg.similarity.evaluation.image_edits`,
and as many distractors, which are edited too and looked for as if they were not in the index, so that whatever they
find is wrong. A collection may have a photo twice: what is a copy of it before any edit, by a wide margin, is neither
right nor wrong.

recall          the share of copies that have their original as the first match
uAP             micro average precision (that of the Image Similarity Challenge 2021): all matches of all queries,
                distractors' too, in one list by their score; the area under its precision and recall
R@P90           the recall at the largest score from which on nine of ten matches are right

Scores: `cosine` of the embeddings; `normalised`, the cosine less the mean of the query's second to fourth best, which
is how crowded its neighbourhood is (SSCD, CVPR 2022, section 4.2, with the index itself as the background); and
`similarity`, after verification.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import numpy as np
from PIL import Image

from simimg.determinism import exact_matmul
from simimg.errors import UsageError
from simimg.similarity import Embedder, Finder, Query, SearchIndex, SearchResult
from simimg.similarity.evaluation.image_edits import EDITS
from simimg.similarity.projection import fit_projection
from simimg.similarity.query_search import CANDIDATES, make_query
from tfrecords.convert.image.decoder import decode
from tfrecords.convert.workers.pool import num_cores
from tfrecords.format.quarantine import Refusal

__all__ = [
    "SCORES",
    "Failure",
    "Retrieval",
    "average_precision",
    "edited_copy",
    "kind_precision",
    "mean_kind_precision",
    "measure_retrieval",
    "precision_and_recall",
]

Hash = Callable[[Image.Image], np.ndarray]
"""A rival: a picture to bits, bool `[n]`."""

SCORES = ("cosine", "normalised", "similarity")
_NEIGHBORS = slice(1, 4)
_TWICE = 0.9  # similarity to a photo as it is: different photos of one thing had 0.84 at most
_MATCHES = 10  # of each query that are entered into the list
_AHEAD = 4  # queries a core that are made while others are looked for: 3 MB each
_HELD_OUT = 4  # one picture of so many has its label hidden from the fit of its kind
_QUERIES_PER_BLOCK = 256


@dataclasses.dataclass(frozen=True)
class Failure:
    """A copy whose original was not found first: the edit, the rows of both, and where the original came, if it did."""

    edit: str
    original: int
    first: int
    place: int | None


@dataclasses.dataclass(frozen=True)
class Retrieval:
    """What a measurement found.

    Attributes:
        num_images: pictures of the index.
        num_queries: photos that were looked for in each edit; as many distractors.
        recall: by method, by edit. `similarity` and `cosine` are simimg, with verification and without.
        scored: by score, each match of each query: score float64 and whether it is right bool, best first.
        num_copies: copies that had an original to find.
        failures: of `similarity`.
    """

    num_images: int
    num_queries: int
    recall: Mapping[str, Mapping[str, float]]
    scored: Mapping[str, tuple[np.ndarray, np.ndarray]]
    num_copies: int
    failures: tuple[Failure, ...]

    def micro(self, score: str) -> tuple[float, float]:
        """Returns uAP and R@P90 of a score."""
        _, right = self.scored[score]
        precision, recall = precision_and_recall(right, self.num_copies)
        good = recall[precision >= 0.9]
        return average_precision(right, self.num_copies), float(good.max()) if len(good) else 0.0

    def threshold(self, precision: float) -> float:
        """Returns the least similarity, 0.5 or more, from which on this share of matches is right; 1 if none is."""
        similarity, right = self.scored["similarity"]
        reached, _ = precision_and_recall(right, self.num_copies)
        # The last of equal scores speaks for all of them.
        last = np.append(similarity[1:] != similarity[:-1], True)
        good = (reached >= precision) & (similarity >= 0.5) & last
        return float(similarity[good].min()) if good.any() else 1.0


def measure_retrieval(
    index: SearchIndex,
    embedder: Embedder,
    *,
    num_queries: int,
    seed: int,
    hashes: Mapping[str, Hash] | None = None,
    progress: Callable[[int], object] = lambda num_queries: None,
) -> Retrieval:
    """Returns how well edited copies of an index's pictures are found in it.

    Args:
        index: of files that are still there.
        embedder: its model.
        num_queries: photos that are looked for in each edit, and as many distractors.
        seed: which photos, and what is drawn in their edits.
        hashes: rivals, by name: the nearest by Hamming distance comes first.
        progress: called with the number of queries since the last call.

    Raises:
        UsageError: the index has too few pictures, or they are not there.
    """
    if len(index.pictures) < 2 * num_queries:
        raise UsageError(
            f"{index.index_dir} has {len(index.pictures)} pictures; {num_queries} to look for and as many distractors "
            f"need {2 * num_queries}. Ask for fewer with --num_queries."
        )
    hashes = hashes or {}
    bits = _hashed(index, hashes)
    finder = Finder(index, embedder, threshold=0.5)
    hits: dict[str, dict[str, list[bool]]] = {
        name: {edit: [] for edit in EDITS} for name in ("similarity", "cosine", *hashes)
    }
    scored: dict[str, list[tuple[float, bool]]] = {score: [] for score in SCORES}
    failures = []
    twice: set[int] = set()
    drawn = np.random.default_rng(seed).permutation(len(index.pictures))[: 2 * num_queries].tolist()
    for number, (row, name, copy, query) in enumerate(_queries(index, embedder, drawn, seed)):
        is_distractor = number >= num_queries * (len(EDITS) + 1)
        if name is None:
            as_it_is = finder.find(query, CANDIDATES, without=row)
            twice = {one.row for one in as_it_is if one.similarity >= _TWICE}
            continue
        found = finder.find(query, CANDIDATES, without=row if is_distractor else -1)
        by_looks = sorted(found, key=lambda one: -one.cosine)
        _enter(scored, [one for one in found if one.row not in twice], row)
        progress(1)
        if is_distractor:
            continue
        hits["similarity"][name].append(found[0].row == row)
        hits["cosine"][name].append(by_looks[0].row == row)
        for rival, hash in hashes.items():
            distances = (bits[rival] != hash(copy)).sum(axis=1)
            hits[rival][name].append(int(np.argmin(distances)) == row)
        if found[0].row != row:
            at = next((at for at, one in enumerate(found) if one.row == row), None)
            failures.append(Failure(name, row, found[0].row, at))
    finder.close()
    return Retrieval(
        num_images=len(index.pictures),
        num_queries=num_queries,
        recall={name: {edit: float(np.mean(found)) for edit, found in edits.items()} for name, edits in hits.items()},
        scored={score: _sorted(pairs) for score, pairs in scored.items()},
        num_copies=num_queries * len(EDITS),
        failures=tuple(failures),
    )


def _queries(
    index: SearchIndex, embedder: Embedder, rows: Sequence[int], seed: int
) -> Iterator[tuple[int, str | None, Image.Image, Query]]:
    """Yields each row with its picture as it is, edit None, and in each edit; some are made ahead, by threads."""

    def made(job: tuple[int, str | None]) -> tuple[int, str | None, Image.Image, Query]:
        row, edit = job
        image = _picture(index, row)
        copy = image if edit is None else edited_copy(image, row, edit, seed)
        return row, edit, copy, make_query(index.pictures[row].path, copy, embedder)

    jobs = iter([(row, edit) for row in rows for edit in (None, *EDITS)])
    with ThreadPoolExecutor(num_cores()) as executor:
        ahead = deque(executor.submit(made, job) for job in islice(jobs, _AHEAD * num_cores()))
        while ahead:
            yield ahead.popleft().result()
            ahead.extend(executor.submit(made, job) for job in islice(jobs, 1))


def _hashed(index: SearchIndex, hashes: Mapping[str, Hash]) -> dict[str, np.ndarray]:
    """Each rival's bits of all pictures, bool `[num_images, n]`."""

    def bits(row: int) -> list[np.ndarray]:
        image = _picture(index, row)
        return [hash(image) for hash in hashes.values()]

    if not hashes:
        return {}
    with ThreadPoolExecutor(num_cores()) as executor:
        columns = zip(*executor.map(bits, range(len(index.pictures))), strict=True)
    return {name: np.stack(column) for name, column in zip(hashes, columns, strict=True)}


def edited_copy(image: Image.Image, row: int, edit: str, seed: int) -> Image.Image:
    """Returns the copy of a row's picture that a measurement with this seed makes."""
    return EDITS[edit](image, np.random.default_rng([seed, row, list(EDITS).index(edit)]))


def precision_and_recall(right: np.ndarray, num_positive: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns precision and recall of the first one, two, ... matches: float64 `[n]` twice.

    Args:
        right: bool `[n]`, the best match first.
        num_positive: how many there are to find.
    """
    hits = np.cumsum(right)
    return hits / np.arange(1, len(right) + 1), hits / num_positive


def average_precision(right: np.ndarray, num_positive: int) -> float:
    """Returns the micro average precision; see `precision_and_recall`."""
    precision, _ = precision_and_recall(right, num_positive)
    return float(precision[right].sum() / num_positive)


def kind_precision(index: SearchIndex) -> dict[str, float]:
    """Returns the mean average precision of "same kind", where a class's pictures are the right ones, by method.

    Every fourth picture is a query, and its label is hidden when the projection is fitted; all others are searched.
    """
    labels = index.pictures.column("label")
    queries = np.arange(len(labels)) % _HELD_OUT == 0
    hidden = np.where(queries, "", labels)
    embeddings = np.asarray(index.embeddings, np.float32)
    without = fit_projection(embeddings, np.full(len(labels), ""), "kind")
    with_labels = fit_projection(embeddings, hidden, "kind")
    return {
        "as the network gives them": mean_kind_precision(embeddings, labels, queries),
        "kind, without labels": mean_kind_precision(without(embeddings), labels, queries),
        "kind, with the others' labels": mean_kind_precision(with_labels(embeddings), labels, queries),
    }


def mean_kind_precision(
    vectors: np.ndarray, labels: np.ndarray, queries: np.ndarray, *, clutter: str = "BACKGROUND_Google"
) -> float:
    """Returns the mean average precision with which pictures find those of their label among all others.

    Args:
        vectors: `[num_images, dim]`, compared by cosine.
        labels: str `[num_images]`.
        queries: bool `[num_images]`, which pictures are looked for.
        clutter: a label that is no kind: its pictures are no queries, but are in the way.
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
    """Enters a query's best matches by each score; a distractor's original is not among them."""
    by_looks = sorted(found, key=lambda one: -one.cosine)
    crowd = float(np.mean([one.cosine for one in by_looks[_NEIGHBORS]]))
    scored["cosine"] += [(one.cosine, one.row == original) for one in by_looks[:_MATCHES]]
    scored["normalised"] += [(one.cosine - crowd, one.row == original) for one in by_looks[:_MATCHES]]
    scored["similarity"] += [(one.similarity, one.row == original) for one in found[:_MATCHES]]


def _sorted(pairs: Sequence[tuple[float, bool]]) -> tuple[np.ndarray, np.ndarray]:
    scores, right = np.array([score for score, _ in pairs]), np.array([one for _, one in pairs], bool)
    order = np.lexsort((right, -scores))  # of equal scores the wrong ones first
    return scores[order], right[order]


def _picture(index: SearchIndex, row: int) -> Image.Image:
    path = index.path_of(index.pictures[row])
    try:
        return decode(path.read_bytes())
    except (OSError, Refusal) as error:
        raise UsageError(
            f"{path} of {index.index_dir} cannot be read: {error}. Bring the index up to date first."
        ) from None
