"""The report of `simimg evaluate`: the figures of a trained model on one split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from simimg.report.contact_sheet import Tile, write_bytes
from simimg.report.html_page import path_text, report_page, section
from simimg.report.report_sections import accuracy, copies_found, copy_recall, evaluated, machine_section

if TYPE_CHECKING:  # the module imports TensorFlow, which no report needs
    from simimg.evaluation.classification import Classification
    from simimg.evaluation.copy_recall import CopyFigures

__all__ = ["write_evaluation_report"]


def write_evaluation_report(
    figures: Classification | None,
    copies: CopyFigures | None,
    mistakes: Sequence[Tile],
    path: Path,
    *,
    split: str,
    model_dir: str,
    dataset_dir: str,
    machine: Mapping[str, str],
    binary_loss: bool = False,
) -> None:
    """Writes the report as the HTML file `path`, which has its name only when it is complete, and makes its folder.

    Args:
        figures: of a classifier, or None.
        copies: the figures of a network that was trained for copies, or None.
        mistakes: images that it got wrong, as `report_sections.evaluated` takes them.
        path: the HTML file.
        split: the name of the split.
        model_dir: the folder of the run.
        dataset_dir: the folder of the data set.
        machine: facts on the machine.
        binary_loss: whether the classifier was trained with a binary loss.
    """
    where = f" of the {split} split"
    first = shown = ""
    if figures is not None:
        first, shown = accuracy(figures, where), evaluated(figures, mistakes, binary_loss=binary_loss)
    if copies is not None:
        first, shown = copy_recall(copies, where), copies_found(copies, mistakes)
    html = report_page(
        Path(model_dir).name,
        about=[path_text(dataset_dir), path_text(model_dir)],
        headline=first,
        sections=[section("evaluation", "", shown), machine_section(machine)],
    )
    write_bytes(path, html)
