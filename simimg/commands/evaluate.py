"""Measure a trained model on photos it has not seen.

Prints the accuracy with its 95 % interval and each class's own, draws the confusion matrix, and writes a report with
the photos that it got wrong into MODEL_DIR. Of a model that was trained for copies (--objective=similarity): how often
an augmented copy of a photo finds it among all of the split.

Example: simimg evaluate --dataset_dir=data/photos/1.0.0 --model_dir=runs/photos-small-seed0
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from simimg.commands.console import Result, progress_bar, quiet_tensorflow
from simimg.commands.run_report import measured, measured_copies
from simimg.doctor.machine_facts import machine_facts
from simimg.report import confusion_matrix, write_evaluation_report

with quiet_tensorflow():
    from simimg.api import open_trained
    from simimg.errors import UsageError
    from simimg.evaluation import Classification, CopyFigures, compiled
from tfrecords.options import option


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What `evaluate` can be told."""

    dataset_dir: Path = option("Data set folder, DATA_DIR/NAME/VERSION.")
    model_dir: Path = option("Folder of a finished training run.")
    split: str = option("The split to measure on.", "test")
    picture: Path | None = option("Where the confusion matrix goes; by default into MODEL_DIR.", None)


def run(options: Options) -> Result:
    """Evaluates with a progress bar."""
    reader, model, info = open_trained(options.model_dir, options.dataset_dir, options.split)
    for_copies = info.objective.score == "recall"
    if for_copies and options.picture:
        raise UsageError(f"--picture={options.picture}: {options.model_dir} was trained for copies and has no classes.")
    figures: Classification | None = None
    copies: CopyFigures | None = None
    with progress_bar(reader.split.num_examples, "evaluating") as bar:
        if for_copies:
            copies, mistakes = measured_copies(reader, compiled(model), info, bar.update)
        else:
            figures, mistakes = measured(reader, compiled(model, views=info.config["test_views"]), bar.update)
    report = options.model_dir / f"evaluation-{options.split}.html"
    write_evaluation_report(
        figures,
        copies,
        mistakes,
        report,
        split=options.split,
        model_dir=str(options.model_dir),
        dataset_dir=str(options.dataset_dir),
        machine=machine_facts(),
        binary_loss=info.config["loss"] == "binary",
    )
    if copies is not None:
        text, values = _copy_text(copies, options.split), dataclasses.asdict(copies)
    else:
        assert figures is not None
        picture = options.picture or options.model_dir / f"confusion-{options.split}.png"
        confusion_matrix(figures, picture)
        binary = info.config["loss"] == "binary"
        text, values = _text(figures, options.split, picture, binary), dataclasses.asdict(figures)
    return Result(values={**values, "report": str(report)}, text=f"{text}\nreport: {report}")


def _copy_text(figures: CopyFigures, split: str) -> str:
    low, high = figures.recall_ci95
    return (
        f"copy recall {figures.recall:.4f} (95 % interval {low:.4f} to {high:.4f}): so many augmented copies of "
        f"{figures.num_examples:,} photos of split {split} are nearest to their original\n"
        f"similarity to it {figures.copy_similarity:.3f}, to the nearest other photo {figures.nearest_similarity:.3f}; "
        f"length of the mean embedding {figures.mean_norm:.3f}"
    )


def _text(figures: Classification, split: str, picture: Path, binary: bool) -> str:
    low, high = figures.accuracy_ci95
    width = max(map(len, figures.per_class))
    counts = [sum(row) for row in figures.confusion]
    lines = [
        f"accuracy {figures.accuracy:.4f} (95 % interval {low:.4f} to {high:.4f}) "
        f"on {figures.num_examples:,} examples of split {split}",
        f"mean per class {figures.mean_per_class:.4f}"
        + (f"; binary accuracy over the outputs {figures.binary_accuracy:.4f}" if binary else ""),
        *(
            f"  {name:<{width}}  {'-' if value is None else f'{value:.4f}'}  of {count:,}"
            for (name, value), count in zip(figures.per_class.items(), counts, strict=True)
        ),
        f"the confusion matrix is in {picture}",
    ]
    return "\n".join(lines)
