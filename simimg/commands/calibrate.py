"""Find out how well copies are found among your pictures, and from which similarity on a match is one.

Pictures of the index are drawn, edited in fourteen ways and looked for; as many are looked for as if they were not
there, and should find nothing. The similarity from which on 99 of 100 matches were right is stored in the index;
`simimg search` and `simimg duplicates` use it. Photos that the collection has twice count neither way.

Example: simimg calibrate --index_dir=indexes/photos --picture=calibration.png
"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

from simimg.commands.console import Result, note, progress_bar, quiet_tensorflow

with quiet_tensorflow():
    from simimg.errors import UsageError
    from simimg.report import Tile, calibration_curves, tile_sheet
    from simimg.similarity import SearchIndex, load_embedder
    from simimg.similarity.evaluation.image_edits import EDITS
    from simimg.similarity.evaluation.retrieval import (
        SCORES,
        Failure,
        Hash,
        Retrieval,
        edited_copy,
        kind_precision,
        measure_retrieval,
    )
from tfrecords.convert.image.decoder import decode
from tfrecords.options import option

_PRECISION = 0.99
_NAMES = {"similarity": "simimg", "cosine": "embeddings alone", "normalised": "embeddings, normalised"}
_FAILURES_SHOWN = 10
_FAILURES_DRAWN = 40
_TILE_PX = 320


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What `calibrate` can be told. Raises UsageError for fewer than 5 queries."""

    index_dir: Path = option("Folder that `simimg index` made of files that are still there.")
    num_queries: int = option("Pictures that are looked for, each in fourteen edits; and as many distractors.", 50)
    seed: int = option("Decides which pictures, and what is drawn in the edits.", 0)
    rivals: bool = option("Also look with pHash and dHash, if the package imagehash is installed.", False)
    picture: Path | None = option("Also draw precision and recall by similarity into this PNG.", None)
    failures: Path | None = option("Also draw the copies that did not find their original first into this PNG.", None)

    def __post_init__(self) -> None:
        """Checks the number of queries."""
        if self.num_queries < 5:
            raise UsageError(f"--num_queries={self.num_queries}: should be 5 or more.")


def run(options: Options) -> Result:
    """Measures with a progress bar, and stores the threshold."""
    start = time.perf_counter()
    index = SearchIndex.open(options.index_dir)
    embedder = load_embedder(index.info.model)
    with progress_bar(2 * options.num_queries * len(EDITS), "searching") as bar:
        measured = measure_retrieval(
            index,
            embedder,
            num_queries=options.num_queries,
            seed=options.seed,
            hashes=_hashes() if options.rivals else {},
            progress=bar.update,
        )
    threshold = measured.threshold(_PRECISION)
    index.with_threshold("copy", threshold)
    kinds = kind_precision(index) if len(set(index.pictures.column("label"))) > 1 else {}
    if options.picture is not None:
        calibration_curves(*measured.scored["similarity"], measured.num_copies, threshold, options.picture)
    if options.failures is not None and measured.failures:
        rows = [_tiles(index, failure, options.seed) for failure in measured.failures[:_FAILURES_DRAWN]]
        tile_sheet(rows, options.failures)
    micro = {score: measured.micro(score) for score in SCORES}
    failures = [
        {
            "edit": failure.edit,
            "original": index.pictures[failure.original].path,
            "first": index.pictures[failure.first].path,
            "place": failure.place,
        }
        for failure in measured.failures
    ]
    seconds = time.perf_counter() - start
    values: dict[str, Any] = {
        "num_images": measured.num_images,
        "num_queries": measured.num_queries,
        "threshold": threshold,
        "recall": measured.recall,
        "micro": {score: {"uap": uap, "recall_at_precision_90": recall} for score, (uap, recall) in micro.items()},
        "kind_map": kinds,
        "failures": failures,
        "seconds": round(seconds, 3),
    }
    lines = [*_recall_table(measured), "", *_micro_table(micro)]
    if kinds:
        lines += ["", "mean average precision of the same kind, labels of the queries hidden"]
        lines += [f"  {name:<32}{value:6.3f}" for name, value in kinds.items()]
    if failures:
        lines += ["", f"{len(failures)} of {measured.num_copies:,} copies did not find their original first"]
        lines += [f"  {one['original']} {one['edit']}: {one['first']}" for one in failures[:_FAILURES_SHOWN]]
    lines += [
        "",
        f"99 of 100 matches are right from a similarity of {threshold:.3f} on, which {options.index_dir} has now; "
        f"{seconds:.0f} s",
    ]
    if options.picture is not None:
        lines.append(f"the curves are drawn in {options.picture}")
    if options.failures is not None:
        lines.append(f"the failures are drawn in {options.failures}" if failures else "there are no failures to draw")
    return Result(values=values, text="\n".join(lines))


def _tiles(index: SearchIndex, failure: Failure, seed: int) -> list[Tile]:
    original, first = (
        decode(index.path_of(index.pictures[row]).read_bytes()) for row in (failure.original, failure.first)
    )
    copy = edited_copy(original, failure.original, failure.edit, seed)
    place = "not among those examined" if failure.place is None else f"found at place {failure.place + 1}"
    tiles = []
    for image, title, text in (
        (copy, failure.edit, "query"),
        (original, index.pictures[failure.original].path, place),
        (first, index.pictures[failure.first].path, "found first"),
    ):
        image.thumbnail((_TILE_PX, _TILE_PX))
        tiles.append(Tile(image, title, text))
    return tiles


def _recall_table(measured: Retrieval) -> list[str]:
    names = [_NAMES.get(name, name) for name in measured.recall]
    title = f"originals found first among {measured.num_images:,}, {measured.num_queries} copies an edit"
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
        note("imagehash is not installed, so there are no rivals: pip install imagehash")
        return {}
    return {
        "pHash": lambda image: imagehash.phash(image).hash.ravel(),
        "dHash": lambda image: imagehash.dhash(image).hash.ravel(),
    }
