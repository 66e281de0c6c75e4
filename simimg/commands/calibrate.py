"""Measure search on your images and set the copy threshold.

Random images of the index are edited in fourteen ways and searched for. As many distractors, images that count as
missing from the index, are searched for too and should find nothing. The similarity above which 99% of the matches are
correct is stored in the index as the threshold of `simimg search`. The copies are also compared as `simimg duplicates`
and `simimg leaks` compare files, which gives them a threshold of their own. Where nothing reaches 99%, the threshold
stays as it was, and the exit code is 1. Images that the index contains twice are not counted.

Example: simimg calibrate --index_dir=indexes/photos --picture=calibration.png
"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

from simimg.commands.console import PROBLEM, Result, note, progress_bar
from simimg.errors import SearchIndexError, UsageError
from simimg.report.charts import calibration_curves
from simimg.report.contact_sheet import Tile, tile_sheet
from simimg.similarity.evaluation.image_edits import EDITS
from simimg.similarity.evaluation.retrieval import (
    SCORES,
    Failure,
    Hash,
    Retrieval,
    edited_copy,
    indexed_image,
    kind_precision,
    measure_retrieval,
)
from simimg.similarity.remote_index import updated_index
from simimg.similarity.search_index import SearchIndex
from tfrecords.locations import location_text
from tfrecords.options import option
from tfrecords.storage.object_cache import CacheOptions

JSON_KEYS = "num_images num_queries threshold pair_threshold recall micro kind_map failures seconds"

_PRECISION = 0.99
_USED_BY = {"copy": "search", "pairs": "duplicates and leaks"}
_NAMES = {"similarity": "simimg", "cosine": "embeddings alone", "normalised": "embeddings, normalized"}
_FAILURES_SHOWN = 10
_FAILURES_DRAWN = 40
_TILE_PX = 320


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(CacheOptions):
    """Options of `calibrate`. Raises UsageError for fewer than 5 queries."""

    index_dir: Path = option("Index of an image folder whose files still exist.", url=True)
    num_queries: int = option("Images to search for, each in fourteen edits, and number of distractors.", 50)
    seed: int = option("Seed of the choice of images and of the edits.", 0)
    rivals: bool = option("Also measure pHash and dHash; needs the package imagehash.", False)
    picture: Path | None = option("Also draw precision and recall over similarity to this PNG file.", None, output=True)
    failures: Path | None = option(
        "Also draw the copies whose first match is not their original to this PNG file.", None, output=True
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_queries < 5:
            raise UsageError(f"--num_queries={self.num_queries}: should be 5 or more.")


def run(options: Options) -> Result:
    """Measure, with a progress bar, and store the threshold."""
    with updated_index(options.index_dir) as folder:
        return _run(options, SearchIndex.open(folder))


def _run(options: Options, index: SearchIndex) -> Result:
    start = time.perf_counter()
    embedder = index.load_embedder(many=True)
    with progress_bar(2 * options.num_queries * len(EDITS), "searching") as bar:
        measured = measure_retrieval(
            index,
            embedder,
            num_queries=options.num_queries,
            seed=options.seed,
            hashes=_hashes() if options.rivals else {},
            progress=bar.update,
        )
    thresholds = {"copy": measured.threshold(_PRECISION), "pairs": measured.threshold(_PRECISION, "pairs")}
    stored = _store(index, {name: value for name, value in thresholds.items() if value is not None})
    kinds = kind_precision(index) if len(set(index.images.column("label"))) > 1 else {}
    if options.picture is not None:
        calibration_curves(*measured.scored["similarity"], measured.num_copies, thresholds["copy"], options.picture)
    if options.failures is not None and measured.failures:
        rows = [_tiles(index, failure, options.seed) for failure in measured.failures[:_FAILURES_DRAWN]]
        tile_sheet(rows, options.failures)
    micro = {score: measured.micro(score) for score in SCORES}
    failures = [
        dataclasses.asdict(one) | {name: index.images[getattr(one, name)].path for name in ("original", "first")}
        for one in measured.failures
    ]
    seconds = time.perf_counter() - start
    values: dict[str, Any] = {
        "num_images": measured.num_images,
        "num_queries": measured.num_queries,
        "threshold": thresholds["copy"],
        "pair_threshold": thresholds["pairs"],
        "recall": measured.recall,
        "micro": {score: {"uap": uap, "recall_at_precision_90": recall} for score, (uap, recall) in micro.items()},
        "kind_map": kinds,
        "failures": failures,
        "seconds": round(seconds, 3),
    }
    lines = [*_recall_table(measured), "", *_micro_table(micro)]
    if kinds:
        lines += ["", "mean average precision for images of the same kind, with the labels of the queries hidden"]
        lines += [f"  {name:<32}{value:6.3f}" for name, value in kinds.items()]
    if failures:
        wrong = f"{len(failures)} of {measured.num_copies:,} copies do not have their original as the first match"
        lines += ["", wrong]
        lines += [f"  {one['original']} {one['edit']}: {one['first']}" for one in failures[:_FAILURES_SHOWN]]
    lines += ["", *(_threshold_line(name, value, index) for name, value in thresholds.items())]
    lines.append(f"{'stored' if stored else 'not stored'} in {location_text(options.index_dir)}; {seconds:.0f} s")
    if options.picture is not None:
        lines.append(f"curves: {options.picture}")
    if options.failures is not None:
        lines.append(f"failures: {options.failures}" if failures else "there are no failures to draw")
    return Result(
        values=values, text="\n".join(lines), exit_code=0 if stored and None not in thresholds.values() else PROBLEM
    )


def _store(index: SearchIndex, thresholds: dict[str, float]) -> bool:
    """Store thresholds; return whether there were any. Minutes of measuring are shown even if they cannot be stored."""
    try:
        index.with_thresholds(**thresholds)
    except (SearchIndexError, UsageError) as error:
        note(str(error))
        return False
    return bool(thresholds)


def _threshold_line(name: str, threshold: float | None, index: SearchIndex) -> str:
    if threshold is not None:
        return f"threshold {threshold:.3f} for {_USED_BY[name]}, above which 99% of the matches are correct"
    before = index.info.thresholds.get(name)
    return (
        f"no threshold for {_USED_BY[name]}: at no similarity are 99% of the matches correct; "
        f"{'there is none' if before is None else f'it stays {before:.3f}'}"
    )


def _tiles(index: SearchIndex, failure: Failure, seed: int) -> list[Tile]:
    original, first = (indexed_image(index, row) for row in (failure.original, failure.first))
    copy = edited_copy(original, failure.original, failure.edit, seed)
    place = "not among the verified candidates" if failure.place is None else f"match number {failure.place + 1}"
    for image in (copy, original, first):
        image.thumbnail((_TILE_PX, _TILE_PX))
    return [
        Tile(copy, failure.edit, "query"),
        Tile(original, index.images[failure.original].path, place),
        Tile(first, index.images[failure.first].path, "first match"),
    ]


def _recall_table(measured: Retrieval) -> list[str]:
    names = [_NAMES.get(name, name) for name in measured.recall]
    title = f"originals found first among {measured.num_images:,} images, {measured.num_queries} copies per edit"
    rows = [title, f"{'':<18}" + "".join(f"{name:>18}" for name in names)]
    for edit in EDITS:
        rows.append(f"{edit:<18}" + "".join(f"{found[edit]:18.1%}" for found in measured.recall.values()))
    means = [sum(found.values()) / len(found) for found in measured.recall.values()]
    return [*rows, f"{'mean':<18}" + "".join(f"{mean:18.1%}" for mean in means)]


def _micro_table(micro: dict[str, tuple[float, float]]) -> list[str]:
    rows = [f"{'with distractors':<32}{'uAP':>8}{'R@P90':>8}"]
    return rows + [f"{_NAMES[score]:<32}{uap:8.3f}{recall:8.3f}" for score, (uap, recall) in micro.items()]


def _hashes() -> dict[str, Hash]:
    try:
        import imagehash
    except ImportError:
        note("imagehash is not installed, so --rivals measures nothing. Run: pip install imagehash")
        return {}
    return {
        "pHash": lambda image: imagehash.phash(image).hash.ravel(),
        "dHash": lambda image: imagehash.dhash(image).hash.ravel(),
    }
