"""Planted faults, and what `simimg audit`, cleanlab and CleanVision find of them.

    python -m benchmarks.audit_comparison IMAGE_DIR FOLDER [--seed=1] [--rival_python=PATH]

IMAGE_DIR has one folder of photos per class, such as Caltech 101. FOLDER gets the index, the planted images and
results.json. The table is printed. cleanlab and CleanVision run in an environment that is made once, or in
`--rival_python`.

labels     5, 10 and 20 % of the labels are replaced: by another class, or by the class that it is confused with most.
outliers   50 images of two classes that are left out otherwise are put into the other classes.
images     100 each are blurred, darkened, washed out or overexposed, replaced by one color, noise or a slope, and put
           into a border; 50 each are cut into strips and enlarged.

precision and recall are those of what is reported, "at the same precision" is the recall of simimg's ranking at the
rival's precision, and AP the area under precision and recall over all images. Seconds are of the processor.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from benchmarks.rivals import CLEANLAB
from simimg import api
from simimg.bench.virtualenvs import environment_variables, python_of
from simimg.health.collection_audit import copy_numbers
from simimg.health.finding import Finding
from simimg.health.label_findings import find_outliers, find_wrong_labels, judge
from simimg.similarity.image_table import IndexedImage
from simimg.similarity.search_index import SearchIndex

__all__ = ["Scores", "main", "score", "tables"]

_RATES = (0.05, 0.1, 0.2)
_RECALL = 0.9  # at which the target is stated
_NAMES = {  # simimg's kinds by CleanVision's; it has none for borders
    "blurred": "blurry",
    "dark": "dark",
    "bright": "light",
    "plain": "low_information",
    "bordered": "",
    "odd_shape": "odd_aspect_ratio",
    "odd_size": "odd_size",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scores:
    """How well planted faults were found.

    Attributes:
        num_found: reported.
        precision: share of the reported ones that were planted.
        recall: share of the planted ones that were reported.
        average_precision: area under precision and recall of the ranking.
        precision_at_recall: precision where the ranking reaches a recall of 0.9.
        precision_at_size: precision, which is also the recall, at the size of the planted set.
    """

    num_found: int
    precision: float
    recall: float
    average_precision: float
    precision_at_recall: float
    precision_at_size: float


def score(scores: np.ndarray, reported: np.ndarray, planted: np.ndarray) -> Scores:
    """Return the scores of a ranking, float `[n]`, and of what is reported, bool `[n]`, for the planted ones."""
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(planted[order])
    precision = hits / np.arange(1, len(order) + 1)
    number = int(planted.sum())
    return Scores(
        num_found=int(reported.sum()),
        precision=float(planted[reported].mean()) if reported.any() else 0.0,
        recall=float(reported[planted].mean()),
        average_precision=float((precision * planted[order]).sum() / number),
        precision_at_recall=float(precision[int(np.argmax(hits >= _RECALL * number))]),
        precision_at_size=float(precision[number - 1]),
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Plants, runs all, prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image_dir", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rival_python", type=Path)
    options = parser.parse_args(argv)
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    python = options.rival_python or python_of(CLEANLAB, Path("~/.cache/simimg").expanduser(), print)

    def rival(what: str, given: Path) -> Any:
        result = folder / f"rival-{what}.json"
        command = [str(python), "-P", str(CLEANLAB.script), what, str(given), str(result)]
        subprocess.run(
            command, check=True, env=environment_variables(CLEANLAB), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        return json.loads(result.read_text())

    index = api.index(options.image_dir, folder / "index", precision="float32").index
    results = {
        "labels": _labels(index, options.seed, folder, rival),
        "outliers": _outliers(index, options.seed),
        "images": _images(options.image_dir, index, options.seed, folder, rival),
    }
    (folder / "results.json").write_text(json.dumps(results, indent=1))
    sys.stdout.write(tables(results))


def _labels(index: SearchIndex, seed: int, folder: Path, rival: Callable[[str, Path], Any]) -> dict[str, Any]:
    images, embeddings, copies = list(index.images), np.asarray(index.embeddings, np.float32), copy_numbers(index)
    names, labels = np.unique([image.label for image in images], return_inverse=True)
    judged = judge(images, embeddings, copies)
    assert judged is not None
    confusion = np.zeros((len(names), len(names)))
    np.add.at(confusion, (labels,), judged.judgment.probabilities)
    np.fill_diagonal(confusion, 0)
    cases: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for rate in _RATES:
        for how in ("random", "confused"):
            rng = np.random.default_rng(seed)
            flipped = rng.permutation(len(labels))[: round(rate * len(labels))]
            given = labels.copy()
            shifts = rng.integers(1, len(names), len(flipped))
            given[flipped] = (
                (labels[flipped] + shifts) % len(names)
                if how == "random"
                else confusion.argmax(axis=1)[labels[flipped]]
            )
            planted = np.zeros(len(labels), bool)
            planted[flipped] = True
            cases[f"{rate:.0%} {how}"] = given, planted
    arrays: dict[str, Any] = {"embeddings": embeddings} | {name: given for name, (given, _) in cases.items()}
    np.savez(folder / "labels.npz", **arrays)
    theirs = rival("labels", folder / "labels.npz")
    results: dict[str, Any] = {}
    for name, (given, planted) in cases.items():
        relabeled = [dataclasses.replace(image, label=names[label]) for image, label in zip(images, given, strict=True)]
        start = time.process_time()
        judged = judge(relabeled, embeddings, copies)
        assert judged is not None
        findings = find_wrong_labels(relabeled, embeddings, judged)
        seconds = time.process_time() - start
        reported = _reported(relabeled, findings)
        suggested = {one.path: one.suggestion for one in findings}
        right = [
            suggested[image.path] == image.label for image, flag in zip(images, planted & reported, strict=True) if flag
        ]
        there = np.zeros(len(images), bool)
        there[theirs[name]["found"]] = True
        results[name] = {
            "simimg": dataclasses.asdict(score(judged.judgment.wrong, reported, planted)),
            "cleanlab": dataclasses.asdict(score(np.array(theirs[name]["scores"]), there, planted)),
            "seconds": {"simimg": seconds, "cleanlab": theirs[name]["seconds"]},
            "right_suggestions": float(np.mean(right)),
        }
    return results


def _outliers(index: SearchIndex, seed: int) -> dict[str, Any]:
    images, embeddings, copies = list(index.images), np.asarray(index.embeddings, np.float32), copy_numbers(index)
    rng = np.random.default_rng(seed)
    clutter = "BACKGROUND_Google"
    names = sorted({image.label for image in images} - {clutter})
    results = {}
    for _ in range(3):
        left_out = rng.choice(names, 2, replace=False).tolist()
        others = [row for row, image in enumerate(images) if image.label not in (*left_out, clutter)]
        strange = [row for row, image in enumerate(images) if image.label in left_out]
        strange = rng.permutation(strange)[:50].tolist()
        kept = sorted({images[row].label for row in others})
        shown = [images[row] for row in others]
        shown += [dataclasses.replace(images[row], label=str(rng.choice(kept))) for row in strange]
        rows = np.array(others + strange)
        planted = np.arange(len(rows)) >= len(others)
        judged = judge(shown, embeddings[rows], copies[rows])
        assert judged is not None
        findings = find_outliers(shown, embeddings[rows], copies[rows], judged)
        reported = _reported(shown, findings)
        results[" and ".join(left_out)] = {
            "simimg": dataclasses.asdict(score(1 - judged.judgment.first.max(axis=1), reported, planted)),
            "or_label": float(
                np.mean((reported | _reported(shown, find_wrong_labels(shown, embeddings[rows], judged)))[planted])
            ),
        }
    return results


def _images(
    image_dir: Path, index: SearchIndex, seed: int, folder: Path, rival: Callable[[str, Path], Any]
) -> dict[str, Any]:
    target = folder / "images"
    shutil.rmtree(target, ignore_errors=True)
    images = list(index.images)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(images)).tolist()
    planted: dict[str, set[str]] = {}
    for kind in _NAMES:
        number = 50 if kind.startswith("odd") else 100
        planted[kind] = {images[order.pop()].path for _ in range(number)}
    kind_of = {path: kind for kind, paths in planted.items() for path in paths}
    for image in images:
        path = target / image.path
        path.parent.mkdir(parents=True, exist_ok=True)
        if image.path in kind_of:
            with Image.open(image_dir / image.path) as photo:
                _PLANT[kind_of[image.path]](photo.convert("RGB"), rng).save(path, "JPEG", quality=90)
        else:
            shutil.copyfile(image_dir / image.path, path)
    theirs = rival("images", target)
    start = time.process_time()
    found = api.audit(target, kinds=["image"])
    seconds = time.process_time() - start
    names = [image.path for image in images]
    kinds: dict[str, dict[str, Any]] = {}
    for kind, their_kind in _NAMES.items():
        there = np.array([name in planted[kind] for name in names])
        ours = {one.path: one.score for one in found.of(kind)}
        ranking = np.array([ours.get(name, 0.0) for name in names])
        mine = score(ranking, ranking > 0, there)
        kinds[kind] = {"simimg": dataclasses.asdict(mine)}
        if their_kind:
            reported = np.isin(names, theirs["found"][their_kind])
            their = score(np.array([theirs["scores"][their_kind][name] for name in names]), reported, there)
            kinds[kind]["cleanvision"] = dataclasses.asdict(their)
            kinds[kind]["recall_at_their_precision"] = _recall_at(ranking, there, their.precision)
    return {
        "kinds": kinds,
        "num_images": len(names),
        "milliseconds": {
            "simimg": 1000 * seconds / found.num_images,
            "cleanvision": 1000 * theirs["seconds"] / theirs["num_images"],
        },
    }


def _reported(images: Sequence[IndexedImage], findings: Sequence[Finding]) -> np.ndarray:
    paths = {one.path for one in findings}
    return np.array([image.path in paths for image in images])


def _recall_at(ranking: np.ndarray, planted: np.ndarray, precision: float) -> float:
    """Return the largest recall of what is ranked at a precision of at least this."""
    order = np.argsort(-ranking, kind="stable")[: int((ranking > 0).sum())]
    hits = np.cumsum(planted[order])
    good = hits / np.arange(1, len(order) + 1) >= precision
    return float(hits[good].max(initial=0) / planted.sum())


def _blurred(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(rng.uniform(1.5, 6)))


def _dark(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(rng.uniform(0.05, 0.4))


def _bright(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    if rng.random() < 0.5:
        return ImageEnhance.Brightness(image).enhance(rng.uniform(4, 8))
    return Image.blend(image, Image.new("RGB", image.size, "white"), rng.uniform(0.75, 0.95))


def _plain(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    shape = (image.height, image.width, 3)
    pixels = np.broadcast_to(rng.integers(0, 256, 3).astype(np.float64), shape)
    if (how := rng.integers(3)) == 1:
        pixels = pixels + rng.normal(0, 6, shape)
    elif how == 2:
        pixels = pixels * np.linspace(1, 0.4, image.width)[None, :, None]
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _bordered(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    by, color = rng.uniform(1.25, 3), ["black", "white", "#808080", "#204060"][rng.integers(4)]
    paper = Image.new("RGB", (round(by * image.width), round(by * image.height)), color)
    paper.paste(image, ((paper.width - image.width) // 2, (paper.height - image.height) // 2))
    return paper


def _strip(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    width = max(1, round(image.height / rng.uniform(4, 8)))
    return image.crop((0, 0, min(width, image.width), image.height))


def _enlarged(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    by = rng.uniform(5, 8)
    return image.resize((round(image.width * by), round(image.height * by)))


_PLANT: Mapping[str, Callable[[Image.Image, np.random.Generator], Image.Image]] = {
    "blurred": _blurred,
    "dark": _dark,
    "bright": _bright,
    "plain": _plain,
    "bordered": _bordered,
    "odd_shape": _strip,
    "odd_size": _enlarged,
}


def tables(results: Mapping[str, Any]) -> str:
    """Return the tables of docs/audit.md."""
    keys = ("precision", "recall", "precision_at_recall", "average_precision")
    lines = [
        _row("flips", "tool", "reported", "precision", "recall", "precision at recall 0.9", "AP"),
        _row(*["---"] * 7),
    ]
    for name, one in results["labels"].items():
        for tool in ("simimg", "cleanlab"):
            lines.append(_row(name, tool, one[tool]["num_found"], *(f"{one[tool][key]:.3f}" for key in keys)))
    seconds = {
        tool: np.mean([one["seconds"][tool] for one in results["labels"].values()]) for tool in ("simimg", "cleanlab")
    }
    right = np.mean([one["right_suggestions"] for one in results["labels"].values()])
    lines += ["", f"{right:.3f} of the suggested classes are right; processor seconds: {_listed(seconds)}", ""]
    lines += [_row("classes of the outliers", "reported", "precision", "recall", "or label", "AP"), _row(*["---"] * 6)]
    for name, one in results["outliers"].items():
        ours = one["simimg"]
        values = (ours["precision"], ours["recall"], one["or_label"], ours["average_precision"])
        lines.append(_row(name, ours["num_found"], *(f"{value:.3f}" for value in values)))
    lines += ["", _row("kind", "simimg: reported", "precision", "recall", "AP", "CleanVision: reported", "precision")]
    lines[-1] += " recall | AP | recall of simimg at that precision |"
    lines.append(_row(*["---"] * 10))
    of_kinds = ("precision", "recall", "average_precision")
    for kind, one in results["images"]["kinds"].items():
        cells: list[object] = [kind]
        for tool in ("simimg", "cleanvision"):
            found = one.get(tool)
            cells += [""] * 4 if found is None else [found["num_found"], *(f"{found[key]:.3f}" for key in of_kinds)]
        there = one.get("recall_at_their_precision")
        lines.append(_row(*cells, "" if there is None else f"{there:.3f}"))
    milliseconds = results["images"]["milliseconds"]
    ratio = milliseconds["cleanvision"] / milliseconds["simimg"]
    lines += ["", f"processor milliseconds per image: {_listed(milliseconds)}; {ratio:.1f} times as fast"]
    return "\n".join(lines) + "\n"


def _row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _listed(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.2f}" for name, value in values.items())


if __name__ == "__main__":
    main(sys.argv[1:])
