"""Copies found, and time, by imagededup's protocol: simimg, imagehash's pHash and dHash, and imagededup's hashes.

Each method gets the same folder (`benchmarks.dedup_protocol`) once, with its own default options. The photos have
640 x 480 px, as those of imagededup's table, and the seconds include encoding and search, as there. Those of simimg are
of a whole command in a process of its own, as are those of an earlier version. imagededup's CNN is left out, because
torchvision downloads its weights at first use, so they cannot be pinned.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.dedup_protocol import (
    Collection,
    Pair,
    hash_pairs,
    pairs_of_groups,
    score_pairs,
    write_collection,
)
from benchmarks.rivals import IMAGEDEDUP
from simimg.bench.bench_plots import aligned, met
from simimg.bench.checkout import ROOT
from simimg.bench.image_sets import good_jpegs
from simimg.bench.measurements import RunFailed
from simimg.bench.process_costs import run_command
from simimg.bench.virtualenvs import environment_variables, python_of
from simimg.errors import UsageError
from tfrecords.convert.image.decoder import decode

__all__ = ["DUPLICATE_RIVALS", "DedupComparison", "DedupMethod", "compare_duplicates", "duplicates_table"]

DUPLICATE_RIVALS = ("imagehash", "imagededup")
THRESHOLD = 0.9  # the default of `simimg duplicates` without a calibration
_HASH_DISTANCE = 10  # of 64 bits: imagededup's default
_PRECISION, _RECALL = 0.999, 0.95  # aimed at
_SIZE = (640, 480)  # px, of the photos of imagededup's table
_TIMEOUT_S = 3_600
_SHOWN = 100  # wrong and missed pairs that are kept

_PROGRAM = "import sys; from simimg.cli import main; sys.exit(main())"

_Progress = Callable[[], object]
_Found = tuple[float, float | None, set[Pair]]  # seconds, processor seconds, and pairs


@dataclasses.dataclass(frozen=True, kw_only=True)
class DedupMethod:
    """Result of one method.

    Attributes:
        name: the method.
        precision: the share of its pairs that are copies.
        recall: the share of all pairs of copies that it found.
        seconds: the time for all files.
        cpu_seconds: of all cores; None if it was not measured.
        num_wrong: the number of its pairs that are not copies.
        num_missed: the number of pairs of copies that it did not find.
        wrong: up to 100 of the wrong pairs.
        missed: up to 100 of the missed pairs.
    """

    name: str
    precision: float
    recall: float
    seconds: float
    cpu_seconds: float | None
    num_wrong: int
    num_missed: int
    wrong: tuple[Pair, ...]
    missed: tuple[Pair, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DedupComparison:
    """All measurements, simimg first; `met` is whether simimg reaches the precision and the recall of `aim`."""

    what: str
    num_files: int
    methods: tuple[DedupMethod, ...]
    aim: tuple[float, float]
    met: bool
    left_out: dict[str, str]


def compare_duplicates(
    image_dir: Path,
    rivals: Sequence[str],
    *,
    num_originals: int,
    seed: int,
    cache_dir: Path,
    before: Path | None = None,
    note: Callable[[str], None] = lambda _: None,
    watch: Callable[[int], _Progress] = lambda _: lambda: None,
) -> DedupComparison:
    """Measures simimg and rivals on transformed photos.

    Args:
        image_dir: a folder of photos, from which some are chosen.
        rivals: names from `DUPLICATE_RIVALS`.
        num_originals: the number of photos; there will be six times as many files.
        seed: selects the photos, and where they are cropped.
        cache_dir: holds the rivals' environments.
        before: a clone of an earlier version, which is measured as well.
        note: called with a line about each phase.
        watch: takes the number of steps and returns a function to call after each.

    Raises:
        UsageError: there are fewer photos.
    """
    pictures = good_jpegs(image_dir, cache_dir)
    if not 2 <= num_originals <= len(pictures.files):
        raise UsageError(f"--num_originals={num_originals}: should be 2..{len(pictures.files)}, the JPEG files there.")
    drawn = np.random.default_rng(seed).permutation(len(pictures.files))[:num_originals]
    photos = [pictures.folder / pictures.files[number] for number in drawn]
    versions = {"simimg": (ROOT, ()), "simimg --fast": (ROOT, ("--fast",))}
    if before is not None:
        versions["simimg, before"] = before.resolve(), ()
    advance = watch(1 + len(versions) + len(rivals))
    left_out: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="duplicates-") as work_dir:
        note(f"writing {6 * num_originals:,} files")
        collection = write_collection(Path(work_dir) / "files", photos, seed=seed, size=_SIZE)
        advance()
        found: dict[str, _Found] = {}
        for name, (root, flags) in versions.items():
            found[name] = _simimg(root, flags, collection, Path(work_dir))
            advance()
        measured: Mapping[str, Callable[[], dict[str, _Found]]] = {
            "imagehash": lambda: _imagehash(collection),
            "imagededup": lambda: _imagededup(collection, Path(work_dir) / "found.json", cache_dir, note),
        }
        for rival in rivals:
            try:
                found |= measured[rival]()
            except RunFailed as error:
                left_out[rival] = str(error)
            advance()
    methods = tuple(_method(name, *one, collection) for name, one in found.items())
    return DedupComparison(
        what=f"{num_originals:,} photos of {image_dir}, each also in five edits",
        num_files=len(collection.original_of),
        methods=methods,
        aim=(_PRECISION, _RECALL),
        met=methods[0].precision >= _PRECISION and methods[0].recall >= _RECALL,
        left_out=left_out,
    )


def _method(
    name: str, seconds: float, cpu_seconds: float | None, pairs: set[Pair], collection: Collection
) -> DedupMethod:
    scores = score_pairs(pairs, collection)
    return DedupMethod(
        name=name,
        precision=scores.precision,
        recall=scores.recall,
        seconds=seconds,
        cpu_seconds=cpu_seconds,
        num_wrong=len(scores.wrong),
        num_missed=len(scores.missed),
        wrong=scores.wrong[:_SHOWN],
        missed=scores.missed[:_SHOWN],
    )


def _simimg(root: Path, flags: Sequence[str], collection: Collection, work_dir: Path) -> _Found:
    """Return what `simimg duplicates` of the packages in a folder finds, as a process of its own."""
    arguments = ["duplicates", f"--image_dir={collection.folder}", f"--threshold={THRESHOLD}", "--json", *flags]
    run, output = run_command(
        [sys.executable, "-P", "-c", _PROGRAM, *arguments],
        folder=work_dir,
        environment={**os.environ, "PYTHONPATH": str(root)},
    )
    groups = json.loads(output)["groups"]
    pairs = pairs_of_groups([Path(member["path"]).name for member in group] for group in groups)
    return run.seconds, run.cpu_seconds, pairs


def _imagehash(collection: Collection) -> dict[str, _Found]:
    try:
        import imagehash
    except ImportError:
        raise RunFailed("imagehash is not installed: pip install imagehash") from None
    found: dict[str, _Found] = {}
    names = sorted(collection.original_of)
    for name, method in (("imagehash pHash", imagehash.phash), ("imagehash dHash", imagehash.dhash)):
        start = time.perf_counter()
        bits = [method(decode((collection.folder / file).read_bytes())).hash.ravel() for file in names]
        pairs = hash_pairs(np.stack(bits), names, _HASH_DISTANCE)
        found[name] = (time.perf_counter() - start, None, pairs)
    return found


def _imagededup(
    collection: Collection, result: Path, cache_dir: Path, note: Callable[[str], None]
) -> dict[str, _Found]:
    python = python_of(IMAGEDEDUP, cache_dir, note)
    command = [str(python), "-P", str(IMAGEDEDUP.script), str(collection.folder), str(result)]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=_TIMEOUT_S,
            env=environment_variables(IMAGEDEDUP),
        )
    except subprocess.TimeoutExpired:
        raise RunFailed(f"imagededup did not answer within {_TIMEOUT_S:,} s") from None
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()] or ["it printed nothing"]
        raise RunFailed(f"imagededup ended with code {done.returncode}: {lines[-1]}")
    return {
        f"imagededup {name}": (one["seconds"], None, {(first, second) for first, second in one["pairs"]})
        for name, one in json.loads(result.read_text()).items()
    }


def duplicates_table(comparison: DedupComparison) -> list[str]:
    """Returns a table of the methods, and whether the aim is met."""
    rows = [("", "precision", "recall", "seconds", "processor s", "files/s", "wrong pairs", "missed")]
    rows += [
        (
            method.name,
            f"{method.precision:.4f}",
            f"{method.recall:.4f}",
            f"{method.seconds:,.1f}",
            "" if method.cpu_seconds is None else f"{method.cpu_seconds:,.1f}",
            f"{comparison.num_files / method.seconds:,.0f}",
            f"{method.num_wrong:,}",
            f"{method.num_missed:,}",
        )
        for method in comparison.methods
    ]
    precision, recall = comparison.aim
    aim = f"simimg: aim {recall:g} at a precision of {precision:g}: {met(comparison.met)}"
    cnn = "imagededup's CNN is not measured, because torchvision downloads its weights when it is first used"
    return [f"duplicates: {comparison.what}: {comparison.num_files:,} files", *aligned(rows), aim, cnn]
