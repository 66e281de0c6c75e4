"""How well edited copies find their originals, and how sure one can be of what is found: measured, beside others.

Photos are drawn from a folder: some to be looked for, each in every edit of `simimg.evaluation.edits`, and as many that
are left out of the index and edited too, the distractors, which should find nothing. All the rest of the folder is what
is searched.

recall@k        the share of copies that have their original among the first k
uAP             micro average precision (that of the Image Similarity Challenge 2021): all matches of all queries,
                distractors' too, in one list by their score; the area under its precision and recall
R@P90           the recall at the largest score from which on nine of ten matches are right

Scores: `cosine` of the embeddings; `normalised`, the cosine less the mean of the query's second to fourth best, which
is how crowded its neighbourhood is (SSCD, CVPR 2022, section 4.2, with the index itself as the background); and
`similarity`, after verification.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from simimg.errors import UsageError
from simimg.evaluation.edits import EDITS
from simimg.search import BY, Embedder, Finder, Found, SearchIndex, index_folder
from simimg.search.find import CANDIDATES, make_query
from tfrecords.convert.images import decode
from tfrecords.convert.quarantine import Refusal
from tfrecords.convert.sources import SUFFIXES, walk

__all__ = [
    "Failure",
    "Retrieval",
    "average_precision",
    "mean_kind_precision",
    "measure_retrieval",
    "recall_at_precision",
]

Hash = Callable[[Image.Image], np.ndarray]
"""A rival: a picture to bits, bool `[n]`."""

_SCORES = ("cosine", "normalised", "similarity")
_NEIGHBOURS = slice(1, 4)


@dataclasses.dataclass(frozen=True)
class Failure:
    """A copy whose original was not found first: the edit, the original, and what came first instead."""

    edit: str
    original: str
    first: str
    place: int | None


@dataclasses.dataclass(frozen=True)
class Retrieval:
    """What a measurement found.

    Attributes:
        num_images: pictures of the index.
        num_queries: copies of each edit; as many distractors of each.
        recall: by method, by edit: the share whose original came first.
        recall_at_10: of simimg by edit, before verification.
        micro: by score, uAP and R@P90.
        kind: by method, the mean average precision of pictures of the same class.
        failures: of simimg.
    """

    num_images: int
    num_queries: int
    recall: Mapping[str, Mapping[str, float]]
    recall_at_10: Mapping[str, float]
    micro: Mapping[str, tuple[float, float]]
    kind: Mapping[str, float]
    failures: tuple[Failure, ...]


def measure_retrieval(
    image_dir: Path,
    work_dir: Path,
    embedder: Embedder,
    *,
    num_queries: int,
    seed: int,
    hashes: Mapping[str, Hash] | None = None,
    progress: Callable[[int], object] = lambda num_pictures: None,
) -> Retrieval:
    """Returns how well edited copies of photos of `image_dir` are found among the rest of it.

    Args:
        image_dir: photos; their first folders are the classes.
        work_dir: an empty folder, for links to the photos and for the index.
        embedder: the model.
        num_queries: photos that are looked for in each edit, and as many distractors.
        seed: which photos, and what is drawn in their edits.
        hashes: rivals, by name: the nearest by Hamming distance comes first.
        progress: called with the number of queries since the last call.

    Raises:
        UsageError: the folder has too few photos.
    """
    paths = [path for path in walk(image_dir) if Path(path).suffix.lower() in SUFFIXES]
    if len(paths) < 4 * num_queries:
        raise UsageError(f"{image_dir} has {len(paths)} pictures; {num_queries} queries need {4 * num_queries}.")
    order = np.random.default_rng(seed).permutation(len(paths)).tolist()
    asked, left_out = order[:num_queries], order[num_queries : 2 * num_queries]
    photos = work_dir / "photos"
    for number in sorted(set(order) - set(left_out)):
        link = photos / paths[number]
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to((image_dir / paths[number]).resolve())
    index = index_folder(work_dir / "index", photos, embedder).index
    rows = {path: row for row, path in enumerate(index.pictures.column("path").tolist())}
    bits = {
        name: np.stack([hash(_picture(index, row)) for row in rows.values()]) for name, hash in (hashes or {}).items()
    }

    finder = Finder(index, embedder)
    first: dict[str, dict[str, list[bool]]] = {
        name: {edit: [] for edit in EDITS} for name in ("simimg", "embeddings", *bits)
    }
    within_10: dict[str, list[bool]] = {edit: [] for edit in EDITS}
    scored: dict[str, list[tuple[float, bool]]] = {score: [] for score in _SCORES}
    num_positive, failures = 0, []
    for number in (*asked, *left_out):
        original = rows.get(paths[number], -1)  # not there: a distractor
        try:
            image = decode((image_dir / paths[number]).read_bytes())
        except Refusal:
            continue
        for place, (name, edit) in enumerate(EDITS.items()):
            copy = edit(image, np.random.default_rng([seed, number, place]))
            query = make_query(paths[number], copy, embedder)
            found = finder.find(query, CANDIDATES)
            _score(scored, found, original)
            if original >= 0:
                num_positive += 1
                by_looks = sorted(found, key=lambda one: -one.cosine)
                first["simimg"][name].append(found[0].row == original)
                first["embeddings"][name].append(by_looks[0].row == original)
                within_10[name].append(original in [one.row for one in by_looks[:10]])
                for rival, hash in (hashes or {}).items():
                    distances = (bits[rival] != hash(copy)).sum(axis=1)
                    first[rival][name].append(int(distances.argmin()) == original)
                if found[0].row != original:
                    at = next((at for at, one in enumerate(found) if one.row == original), None)
                    failures.append(Failure(name, paths[number], found[0].picture.path, at))
            progress(1)
    finder.close()
    return Retrieval(
        num_images=len(index.pictures),
        num_queries=num_queries,
        recall={
            method: {name: float(np.mean(hits)) for name, hits in edits.items()} for method, edits in first.items()
        },
        recall_at_10={name: float(np.mean(hits)) for name, hits in within_10.items()},
        micro={
            score: (average_precision(pairs, num_positive), recall_at_precision(pairs, num_positive, 0.9))
            for score, pairs in scored.items()
        },
        kind={by: mean_kind_precision(index.vectors[by], index.pictures.column("label")) for by in BY}
        | {"embeddings as they are": mean_kind_precision(index.embeddings, index.pictures.column("label"))},
        failures=tuple(failures),
    )


def average_precision(pairs: Sequence[tuple[float, bool]], num_positive: int) -> float:
    """Returns the micro average precision of (score, whether it is right), with `num_positive` right ones to find."""
    ordered = np.array([right for _, right in sorted(pairs, key=lambda pair: -pair[0])], bool)
    precision = np.cumsum(ordered) / np.arange(1, len(ordered) + 1)
    return float(precision[ordered].sum() / num_positive)


def recall_at_precision(pairs: Sequence[tuple[float, bool]], num_positive: int, least: float) -> float:
    """Returns the largest recall at which the precision is `least` or more; 0 where it never is."""
    ordered = np.array([right for _, right in sorted(pairs, key=lambda pair: -pair[0])], bool)
    hits = np.cumsum(ordered)
    good = hits / np.arange(1, len(ordered) + 1) >= least
    return float(hits[good].max() / num_positive) if good.any() else 0.0


def mean_kind_precision(vectors: np.ndarray, labels: np.ndarray, *, without: str = "BACKGROUND_Google") -> float:
    """Returns the mean average precision with which each picture finds those of its label among all others.

    Args:
        vectors: `[num_images, dim]`, compared by cosine.
        labels: str `[num_images]`.
        without: a label that is no kind: its pictures are no queries, but are in the way.
    """
    unit = np.asarray(vectors, np.float32)
    unit = unit / np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    values = []
    for row in np.flatnonzero(labels != without):
        others = np.arange(len(unit)) != row
        same = (labels[others] == labels[row])[np.argsort(-(unit[others] @ unit[row]), kind="stable")]
        if same.any():
            values.append(float((np.cumsum(same) / np.arange(1, len(same) + 1))[same].mean()))
    return float(np.mean(values)) if values else 0.0


def _score(scored: dict[str, list[tuple[float, bool]]], found: Sequence[Found], original: int) -> None:
    """Enters the best match by looks, plain and normalised, and the best after verification, of one query."""
    by_looks = sorted(found, key=lambda one: -one.cosine)
    crowd = float(np.mean([one.cosine for one in by_looks[_NEIGHBOURS]]))
    scored["cosine"] += [(one.cosine, one.row == original) for one in by_looks[:10]]
    scored["normalised"] += [(one.cosine - crowd, one.row == original) for one in by_looks[:10]]
    scored["similarity"] += [(one.similarity, one.row == original) for one in found[:10]]


def _picture(index: SearchIndex, row: int) -> Image.Image:
    return decode(index.path_of(index.pictures[row]).read_bytes())
