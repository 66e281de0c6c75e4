"""Edited copies for the demo to search with, and the content of its report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from simimg.commands.console import quiet_tensorflow
from simimg.doctor.machine import machine_facts
from simimg.image_files import thumbnail

with quiet_tensorflow():
    from simimg.api.run_report import measure
    from simimg.evaluation import Classification
    from simimg.input import eval_batches, open_reader, reading
    from simimg.report.contact_sheet import Tile
    from simimg.report.demo_report import ReportContent, Stage, write_report
    from simimg.similarity.evaluation.image_edits import EDITS
    from simimg.similarity.search_index import SearchIndex
    from simimg.training import load_model
from tfrecords.convert.image.decoder import decode
from tfrecords.format.atomic_files import atomic_file, read_json
from tfrecords.format.image_size import image_shape
from tfrecords.format.layout import Layout
from tfrecords.format.quarantine import read_quarantine

_NUM_EDITED = 6  # images, each in fourteen ways
_SAMPLES_PER_CLASS = 8
_TILE_PX = 240
_EVAL_BATCH = 64
_JPEG_QUALITY = 90


def edited_copies(image_dir: Path, index_dir: Path, out_dir: Path, seed: int) -> dict[str, str]:
    """Choose random images of the index and writes their edited copies as JPEG files.

    Returns:
        The path of each copy with the path of its original.
    """
    index = SearchIndex.open(index_dir)
    chosen = np.random.default_rng(seed).choice(len(index.images), min(_NUM_EDITED, len(index.images)), replace=False)
    out_dir.mkdir(parents=True, exist_ok=True)
    originals: dict[str, str] = {}
    for number, row in enumerate(sorted(chosen.tolist())):
        original = index.path_of(index.images[row])
        image = decode(original.read_bytes())
        for name, edit in EDITS.items():
            copy = out_dir / f"{number:02d}-{name}.jpg"
            with atomic_file(copy) as file:
                edit(image, np.random.default_rng([seed, number])).save(file, "JPEG", quality=_JPEG_QUALITY)
            originals[str(copy)] = str(original)
    return originals


def write_demo_report(
    path: Path,
    *,
    dataset_dir: Path,
    model_dir: Path,
    split: str,
    stages: list[Stage],
    results: list[dict[str, Any]],
    originals: dict[str, str],
    drawn: bool,
) -> dict[str, tuple[int, int]]:
    """Write the report; returns, for each edit, for how many copies the original was the first match, and their number.

    The model was measured on `split`; `results` are those of `simimg search --json` for the edited copies, whose
    originals are given; `drawn` tells whether the images are the sample images.
    """
    layout = Layout.load(dataset_dir)
    reader, _ = open_reader(dataset_dir, split)
    model, info = load_model(model_dir)
    figures, mistakes = measure(reader, model, info)
    assert isinstance(figures, Classification)  # the demo trains a classifier
    samples: dict[str, list[Image.Image]] = {name: [] for name in layout.counted_names}
    for batch in reading(reader.split, eval_batches(reader, _EVAL_BATCH)):
        for image, label, id in zip(*(part.numpy() for part in batch), strict=True):
            prints = samples[layout.counted_names[label]]
            if id >= 0 and len(prints) < _SAMPLES_PER_CLASS:  # -1 only fills the last batch up
                prints.append(Image.fromarray(image))
    recalls = _recalls(results, originals)
    report = ReportContent(
        title="simimg demo",
        subtitle="on the sample images" if drawn else f"on {layout.name}",
        dataset_dir=str(dataset_dir),
        num_examples=sum(map(layout.num_examples, layout.splits)),
        splits={name: layout.num_examples(name) for name in layout.splits},
        image_size=image_shape(layout.image_size)[0],
        encoding=layout.encoding,
        refused=[(file.path, file.reason, file.detail) for file in read_quarantine(dataset_dir)],
        stages=stages,
        samples=samples,
        history=read_json(model_dir / "result.json", "the run's result")["history"],
        classification=figures,
        mistakes=mistakes,
        searches=_searches(results, originals),
        machine=machine_facts(),
        recalls=recalls,
        binary_loss=info.config["loss"] == "binary",
    )
    write_report(report, path)
    return recalls


def _recalls(results: list[dict[str, Any]], originals: dict[str, str]) -> dict[str, tuple[int, int]]:
    recalls = {}
    for edit in EDITS:
        hits = [result["matches"][0]["path"] == originals[result["query"]] for result in _of_kind(results, edit)]
        recalls[edit] = (sum(hits), len(hits))
    return recalls


def _of_kind(results: list[dict[str, Any]], edit: str) -> list[dict[str, Any]]:
    return [result for result in results if Path(result["query"]).stem.endswith(f"-{edit}")]


def _searches(results: list[dict[str, Any]], originals: dict[str, str]) -> list[list[Tile]]:
    """Return a row of tiles for one copy of each edit, each row with another original."""
    rows = []
    for number, edit in enumerate(EDITS):
        of_kind = _of_kind(results, edit)
        result = of_kind[number * len(of_kind) // len(EDITS)]
        original = originals[result["query"]]
        row = [Tile(thumbnail(Path(result["query"]), _TILE_PX), edit, "query")]
        for match in result["matches"]:
            path = Path(match["path"])
            name, similarity = "/".join(path.parts[-2:]), f"{match['similarity']:.3f}"
            row.append(Tile(thumbnail(path, _TILE_PX), name, similarity, highlighted=match["path"] == original))
        rows.append(row)
    return rows
