"""Measure a trained model on images it has not seen.

Prints the accuracy with its 95% interval, the top-5 accuracy of more than five classes, the macro F1, and per class the
accuracy, the F1 and the average precision. The calibration error compares the probabilities with the accuracy; if the
dataset has a split `validation`, it is also given with the temperature that fits that split. Draws the confusion
matrix, and writes a report with the misclassified images and the curves of the classes to MODEL_DIR.

For several labels per image, it prints the mean average precision, and for numbers the mean absolute error. For a model
trained with --objective=similarity, it prints for how many augmented copies the original is the nearest of all images
of the split.

Example: simimg evaluate --dataset_dir=data/photos/1.0.0 --model_dir=runs/photos-small-seed0
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from simimg import api
from simimg.commands.console import Result, progress_bar, quiet_tensorflow, showing
from simimg.errors import UsageError
from tfrecords.options import option
from tfrecords.storage.object_cache import CacheOptions

with quiet_tensorflow():
    from simimg.api.run_report import figures_json
    from simimg.evaluation import Classification, CopyFigures, MultiLabelFigures, RegressionFigures
    from simimg.report.charts import confusion_matrix
    from simimg.training import load_run

JSON_KEYS = (
    "num_examples accuracy accuracy_ci95 top5_accuracy binary_accuracy mean_per_class per_class macro_f1 f1_per_class "
    "average_precision calibration_error temperature scaled_calibration_error reliability confusion "
    "mean_average_precision num_images mean_absolute_error root_mean_squared_error guess_error per_target "
    "recall recall_ci95 copy_similarity nearest_similarity mean_norm report"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(CacheOptions):
    """Options of `evaluate`."""

    dataset_dir: Path | tuple[Path, ...] = option(
        "Dataset folder or URL, DATA_DIR/NAME/VERSION; several are measured as one.", repeated="PATH", url=True
    )
    model_dir: Path = option("Folder of a finished training run.")
    split: str = option(
        "The split to measure on; on a dataset with folds, test is the one that was not trained on.", "test"
    )
    picture: Path | None = option("PNG file of the confusion matrix; by default in MODEL_DIR.", None, output=True)


def run(options: Options) -> Result:
    """Evaluate, with a progress bar."""
    if options.picture and (score := load_run(options.model_dir).objective.score) != "accuracy":
        what = "to find copies and has no classes" if score == "recall" else "on other labels than classes"
        raise UsageError(
            f"--picture={options.picture}: {options.model_dir} was trained {what}, so it has no confusion matrix. "
            "Leave it out."
        )
    report = options.model_dir / f"evaluation-{options.split}.html"
    with progress_bar(None, "evaluating") as bar:
        figures = api.evaluate(
            options.model_dir, options.dataset_dir, split=options.split, report=report, progress=showing(bar)
        )
    if isinstance(figures, CopyFigures):
        text = _copy_text(figures, options.split)
    elif isinstance(figures, MultiLabelFigures):
        text = _label_text(figures, options.split)
    elif isinstance(figures, RegressionFigures):
        text = _target_text(figures, options.split)
    else:
        picture = options.picture or options.model_dir / f"confusion-{options.split}.png"
        confusion_matrix(figures, picture)
        binary = load_run(options.model_dir).config["loss"] == "binary"
        text = _text(figures, options.split, picture, binary)
    values = {**figures_json(figures), "report": str(report)}
    return Result(values=values, text=f"{text}\nreport: {report}")


def _copy_text(figures: CopyFigures, split: str) -> str:
    low, high = figures.recall_ci95
    return (
        f"copy recall {figures.recall:.4f} (95% interval {low:.4f} to {high:.4f}): the share of augmented copies of "
        f"{figures.num_examples:,} images of split {split} whose nearest image is their original\n"
        f"similarity to the original {figures.copy_similarity:.3f}, to the nearest other image "
        f"{figures.nearest_similarity:.3f}; length of the mean embedding {figures.mean_norm:.3f}"
    )


def _label_text(figures: MultiLabelFigures, split: str) -> str:
    width = max(map(len, figures.per_class))
    return "\n".join(
        [
            f"mean average precision {figures.mean_average_precision:.4f} on {figures.num_examples:,} examples of "
            f"split {split}; binary accuracy over the outputs {figures.binary_accuracy:.4f}",
            *(
                f"  {name:<{width}}  {'-' if value is None else f'{value:.4f}'}  of {figures.num_images[name]:,}"
                for name, value in figures.per_class.items()
            ),
        ]
    )


def _target_text(figures: RegressionFigures, split: str) -> str:
    width = max(map(len, figures.per_target))
    return "\n".join(
        [
            f"mean absolute error {figures.mean_absolute_error:.4g} on {figures.num_examples:,} examples of split "
            f"{split}; root mean squared error {figures.root_mean_squared_error:.4g}; answering the median gives "
            f"{figures.guess_error:.4g}",
            *(f"  {name:<{width}}  {value:.4g}" for name, value in figures.per_target.items()),
        ]
    )


def _text(figures: Classification, split: str, picture: Path, binary: bool) -> str:
    low, high = figures.accuracy_ci95
    width = max(map(len, figures.per_class))
    counts = [sum(row) for row in figures.confusion]
    top5 = "" if figures.top5_accuracy is None else f"top-5 accuracy {figures.top5_accuracy:.4f}; "
    calibrated = f"calibration error {figures.calibration.error:.4f}"
    if figures.temperature and figures.scaled_calibration:
        error, temperature = figures.scaled_calibration.error, figures.temperature
        calibrated += f"; {error:.4f} with the temperature {temperature:.3f}, which fits split validation"

    def class_line(name: str, value: float | None, count: int) -> str:
        if value is None:
            return f"  {name:<{width}}  -  of 0"
        precision = figures.curves[name].average_precision
        scores = f"F1 {figures.f1_per_class[name]:.4f}  average precision {precision:.4f}"
        return f"  {name:<{width}}  {value:.4f}  of {count:,}  {scores}"

    lines = [
        f"accuracy {figures.accuracy:.4f} (95% interval {low:.4f} to {high:.4f}) "
        f"on {figures.num_examples:,} examples of split {split}",
        f"{top5}mean per class {figures.mean_per_class:.4f}; macro F1 {figures.macro_f1:.4f}"
        + (f"; binary accuracy over the outputs {figures.binary_accuracy:.4f}" if binary else ""),
        calibrated,
        *(
            class_line(name, value, count)
            for (name, value), count in zip(figures.per_class.items(), counts, strict=True)
        ),
        f"confusion matrix: {picture}",
    ]
    return "\n".join(lines)
