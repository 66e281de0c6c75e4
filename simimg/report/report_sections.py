"""Parts that several reports share: headline figures, curves, evaluation, tables, and the machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from simimg.report.charts import confusion_svg, curve_svgs, precision_recall_svg, reliability_svg
from simimg.report.contact_sheet import Tile
from simimg.report.html_page import escape, folded, section, tiles
from simimg.report.number_format import count_of, mistaken, percent

if TYPE_CHECKING:  # the module imports TensorFlow, which no report needs
    from simimg.evaluation.classification import Classification
    from simimg.evaluation.copy_recall import CopyFigures
    from simimg.evaluation.label_figures import MultiLabelFigures, RegressionFigures

_NUM_CONFUSED = 6
_NUM_OPEN = 3  # cells of the confusion matrix whose images are shown without a click
_NUM_CURVES = 24  # classes whose curves are drawn
_WIDE_CLASSES = 40  # more need the whole width of the page, and their figures are folded


def measured(
    figures: Classification | None,
    copies: CopyFigures | None,
    mistakes: Sequence[Tile],
    split: str,
    *,
    binary_loss: bool,
    labels: MultiLabelFigures | None = None,
    targets: RegressionFigures | None = None,
) -> tuple[str, str]:
    """Returns the headline and the details of a model's figures on a split; nothing where it was not measured.

    A classifier has `figures`, a network that was trained for copies has `copies`, one for several labels per image
    `labels`, and one for numbers `targets`; the rest is as in `evaluated`.
    """
    where = f" of the {split} split"
    if copies is not None:
        return _copy_recall(copies, where), _copies_found(copies, mistakes)
    if labels is not None:
        return _mean_precision(labels, where), _precisions(labels)
    if targets is not None:
        return _mean_error(targets, where), _errors(targets)
    if figures is not None:
        return accuracy(figures, where), evaluated(figures, mistakes, binary_loss=binary_loss)
    return "", ""


def accuracy(figures: Classification, where: str) -> str:
    """Returns the accuracy, large, with its interval and the accuracy of a guess; `where` follows "on 9 images"."""
    totals = {name: sum(row) for name, row in zip(figures.per_class, figures.confusion, strict=True)}
    name = max(totals, key=totals.__getitem__)
    guess = totals[name] / figures.num_examples
    what = f"accuracy on {count_of(figures.num_examples, 'image', 'images')}{where}"
    note = f"The gray mark, at {percent(guess)}, is the accuracy of calling every image {name}."
    return _large_share(figures.accuracy, figures.accuracy_ci95, guess, what, note)


def _copy_recall(figures: CopyFigures, where: str) -> str:
    """The copy recall, large, with its interval; `where` follows "on 9 images"."""
    what = f"copy recall on {count_of(figures.num_examples, 'image', 'images')}{where}"
    note = "This share of the copies has its original as the nearest image. The gray mark is chance."
    return _large_share(figures.recall, figures.recall_ci95, 1 / figures.num_examples, what, note)


def _mean_precision(figures: MultiLabelFigures, where: str) -> str:
    """The mean average precision, large; `where` follows "on 9 images"."""
    shares = [count / figures.num_examples for count in figures.num_images.values() if count]
    guess = sum(shares) / len(shares) if shares else 0.0
    number, _, unit = percent(figures.mean_average_precision, 1).partition("\u00a0")
    what = f"mean average precision on {count_of(figures.num_examples, 'image', 'images')}{where}"
    return (
        f'<div class="first"><p class="number">{number}<small>{unit}</small></p><p>{escape(what)}</p>'
        f'<p class="caption">The mean over the labels. A random order of the images gives about {percent(guess, 1)}.'
        "</p></div>"
    )


def _precisions(figures: MultiLabelFigures) -> str:
    """The average precision of each label."""
    rows = [
        (escape(name), percent(value, 1), f"{figures.num_images[name]:,}")
        for name, value in sorted(figures.per_class.items(), key=lambda item: -(item[1] or 0.0))
    ]
    values = {"outputs on the right side of 0.5": percent(figures.binary_accuracy, 1)}
    return (
        f"{facts(values)}<h3>Average precision per label</h3>"
        f"{_columns(('Label', 'Average precision', 'Images'), rows, {1, 2}, 'scores')}"
    )


def _mean_error(figures: RegressionFigures, where: str) -> str:
    """The mean absolute error, large; `where` follows "on 9 images"."""
    what = f"mean absolute error on {count_of(figures.num_examples, 'image', 'images')}{where}"
    return (
        f'<div class="first"><p class="number">{figures.mean_absolute_error:.4g}</p><p>{escape(what)}</p>'
        f'<p class="caption">Answering the median of the split for every image gives {figures.guess_error:.4g}.</p>'
        "</div>"
    )


def _errors(figures: RegressionFigures) -> str:
    """The mean absolute error of each target."""
    values = {"root mean squared error": f"{figures.root_mean_squared_error:.4g}"}
    rows = [(escape(name), f"{value:.4g}") for name, value in figures.per_target.items()]
    shown = _columns(("Target", "Mean absolute error"), rows, {1}, "scores")
    return f"{facts(values)}<h3>Error per target</h3>{shown}"


def curves(history: Sequence[dict[str, Any]]) -> str:
    """Returns loss and accuracy, or copy recall, over the epochs; nothing where no epoch was finished."""
    charts = curve_svgs(history)
    if not charts:
        return ""
    drawn = "".join(f"<div><h3>{name}</h3>{chart}</div>" for name, chart in charts)
    note = "The figures at the ends of the curves are those of the last epoch, not of the best one."
    return f'<div class="curves">{drawn}</div><p class="quiet">{note}</p>'


def evaluated(figures: Classification, mistakes: Sequence[Tile], *, binary_loss: bool = False) -> str:
    """Returns the figures of a classifier on one split, its confusion matrix, and images that it got wrong.

    The surest mistakes come first; those that name their cell of the confusion matrix are grouped by it. The binary
    accuracy is worth a look only if the model was trained with a binary loss, as the tutorial does.
    """
    names = list(figures.per_class)
    values = {
        "mean of the classes' own accuracies": percent(figures.mean_per_class, 1),
        "macro F1": percent(figures.macro_f1, 1),
    }
    if figures.top5_accuracy is not None:
        values["top-5 accuracy"] = percent(figures.top5_accuracy, 1)
    values["expected calibration error"] = percent(figures.calibration.error, 1)
    if figures.scaled_calibration is not None:
        values["with temperature scaling"] = percent(figures.scaled_calibration.error, 1)
    note = ""
    if binary_loss:
        values["binary accuracy over the outputs"] = percent(figures.binary_accuracy, 1)
        note = (
            '<p class="quiet">Keras reports the binary accuracy under a binary loss: the share of all outputs on the '
            f"right side of 0.5. With {len(names)} classes, answering nothing gives {percent(1 - 1 / len(names))}.</p>"
        )
    cells: dict[tuple[int, int], list[Tile]] = {}
    for tile in mistakes:
        if tile.cell:
            cells.setdefault(tile.cell, []).append(tile)
    many = len(names) > _WIDE_CLASSES
    hint = " Click an orange cell to see its images." if cells else ""
    matrix = (
        f'<div class="scroll{" wide" if many else ""}"><h3>Confusion matrix</h3><p class="quiet">Rows: true class. '
        f"Columns: predicted class.<br>Blue is right, orange is wrong.{hint}</p>{confusion_svg(figures, cells)}</div>"
    )
    rows = [
        (f"{num:,}", escape(name), escape(other))
        for num, name, other in mistaken(names, figures.confusion, _NUM_CONFUSED)
    ]
    confused = _columns(("Images", "of", "taken for"), rows, {0}) if rows else '<p class="quiet">None.</p>'
    scores = _class_scores(figures)
    return (
        f'{facts(values)}{note}<div class="pair">{matrix}'
        f'<div class="confused"><h3>Most frequent mistakes</h3>{confused}</div></div>'
        f"<h3>Precision, recall and F1 per class</h3>{folded('All classes', scores) if many else scores}"
        + _class_curves(figures)
        + _reliability(figures)
        + (_mistakes(figures, mistakes, cells) if mistakes else "")
    )


def _class_curves(figures: Classification) -> str:
    """The curves of precision over recall, those of the classes with the lowest average precision first."""
    ordered = sorted(figures.curves.items(), key=lambda item: item[1].average_precision)
    drawn = [(name, curve) for name, curve in ordered if percent(curve.average_precision, 1) != percent(1.0, 1)]
    if not ordered:
        return ""
    rest = len(ordered) - len(drawn)
    note = "Up: precision. Right: recall. The figure is the average precision, which is the area below the curve."
    if len(drawn) > _NUM_CURVES:
        note += (
            f" The {_NUM_CURVES} classes with the lowest figures are drawn; {len(drawn) - _NUM_CURVES:,} more are not."
        )
    if rest:
        note += f" {count_of(rest, 'class has', 'classes have')} {percent(1.0, 1)}, and no curve."
    shown = "".join(
        f"<figure>{precision_recall_svg(name, curve)}"
        f"<figcaption>{escape(name)} <b>{percent(curve.average_precision, 1)}</b></figcaption></figure>"
        for name, curve in drawn[:_NUM_CURVES]
    )
    head = f'<h3>Precision and recall per class</h3><p class="quiet">{escape(note)}</p>'
    return f'{head}<div class="class-curves">{shown}</div>'


def _reliability(figures: Classification) -> str:
    """The reliability diagram, and what the temperature is."""
    text = (
        "The confidence of an image is the probability of its predicted class. Each dot stands for the images of one "
        "of 15 bins of confidence, and its area for their number. On the gray line, confidence and accuracy are equal. "
        "Below it, the network is too sure. The expected calibration error is the mean distance of the images from the "
        "line (Guo et al., 2017)."
    )
    if figures.temperature is not None:
        text += (
            f" The orange dots are the same images after temperature scaling with {figures.temperature:.3f}, which was "
            "fitted on the split validation."
        )
    chart = reliability_svg(figures.calibration, figures.scaled_calibration)
    return f'<h3>Reliability</h3><p class="quiet">{escape(text)}</p><div class="reliability">{chart}</div>'


def _copies_found(figures: CopyFigures, mistakes: Sequence[Tile]) -> str:
    """The similarity of copies to their originals and to other images, and copies that found another image."""
    values = {
        "similarity of a copy to its original": f"{figures.copy_similarity:.3f}",
        "to the nearest other image": f"{figures.nearest_similarity:.3f}",
        "length of the mean embedding": f"{figures.mean_norm:.3f}",
    }
    note = (
        "Similarities are cosines, averaged over all copies. A mean embedding of length 1 would mean that all "
        "embeddings are equal."
    )
    wrong = f"<h3>Copies that found another image</h3>{tiles(mistakes)}" if mistakes else ""
    return f'{facts(values)}<p class="quiet">{note}</p>{wrong}'


def facts(values: Mapping[str, str]) -> str:
    """Returns names and their values as a line of figures; both are plain text."""
    pairs = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in values.items())
    return f'<dl class="facts">{pairs}</dl>'


def table(rows: Mapping[str, str]) -> str:
    """Returns names and their values as a table; both are plain text."""
    cells = "".join(f"<tr><th>{escape(key)}</th><td>{escape(value)}</td></tr>" for key, value in rows.items())
    return f'<table class="machine"><tbody>{cells}</tbody></table>'


def option_tables(
    options: Mapping[str, Any], changed: Mapping[str, Any], shown: Callable[[Mapping[str, Any]], str] = table
) -> str:
    """Returns the options that differ from the defaults, and all options, folded; `shown` makes the HTML of each."""
    changes = f"<h3>Changed by you</h3>{shown(changed)}" if changed else ""
    head = changes or '<p class="quiet">All options have their defaults.</p>'
    return head + folded(f"All {len(options)} options", shown(options))


def machine_section(machine: Mapping[str, str]) -> str:
    """Returns the section on the machine that the figures were measured on; nothing where it is not known."""
    note = '<p class="quiet">Times and rates are of one run on this machine.</p>'
    return section("machine", "", f"{table(machine)}{note}") if machine else ""


def _large_share(value: float, interval: tuple[float, float], guess: float, what: str, note: str) -> str:
    """A share in large digits, on a scale with its 95 % interval and the share of a guess."""
    number, _, unit = percent(value, 1).partition("\u00a0")
    low, high = interval
    return (
        f'<div class="first"><p class="number">{number}<small>{unit}</small></p><p>{escape(what)}</p>'
        '<div class="scale" aria-hidden="true">'
        f'<i class="interval" style="left:{100 * low:.2f}%;width:{100 * (high - low):.2f}%"></i>'
        f'<i class="guess" style="left:{100 * guess:.2f}%"></i>'
        f'<i class="value" style="left:{100 * value:.2f}%"></i></div>'
        f'<p class="caption"><b>95 % interval {percent(low, 1)} to {percent(high, 1)}.</b> {escape(note)}</p></div>'
    )


def _mistakes(
    figures: Classification, mistakes: Sequence[Tile], cells: Mapping[tuple[int, int], Sequence[Tile]]
) -> str:
    """The images that were got wrong, those of each cell under one heading, the cells with most images first."""
    names = list(figures.per_class)
    parts = ["<h3>Images it got wrong</h3>"]
    if rest := [tile for tile in mistakes if not tile.cell]:
        parts.append(tiles(rest))
    for number, (row, column) in enumerate(sorted(cells, key=lambda cell: -figures.confusion[cell[0]][cell[1]])):
        shown, total = cells[row, column], figures.confusion[row][column]
        more = f'<p class="quiet">and {total - len(shown):,} more</p>' if total > len(shown) else ""
        parts.append(
            f'<details class="mistake" id="images-of-cell-{row}-{column}"{" open" if number < _NUM_OPEN else ""}>'
            f"<summary><b>{total:,}</b> {escape(names[row])}, taken for {escape(names[column])}</summary>"
            f"{tiles(shown)}{more}</details>"
        )
    return "".join(parts)


def _class_scores(figures: Classification) -> str:
    """A table with the precision, recall and F1 of each class, from the confusion matrix."""
    predicted = [sum(column) for column in zip(*figures.confusion, strict=True)]
    rows = []
    for i, (name, row) in enumerate(zip(figures.per_class, figures.confusion, strict=True)):
        hits, total = row[i], sum(row)
        precision, recall = hits / predicted[i] if predicted[i] else None, hits / total if total else None
        shares = (precision, recall, figures.f1_per_class[name])
        rows.append((escape(name), *(percent(share, 1) for share in shares), f"{total:,}"))
    return _columns(("Class", "Precision", "Recall", "F1", "Images"), rows, {1, 2, 3, 4}, "scores")


def _columns(names: Sequence[str], rows: Sequence[Sequence[str]], numbers: set[int], kind: str = "") -> str:
    """A table with column headings; cells are HTML, and the columns `numbers` hold numbers."""
    classes = [' class="num"' if place in numbers else "" for place in range(len(names))]
    head = "".join(f"<th{attribute}>{name}</th>" for attribute, name in zip(classes, names, strict=True))
    body = "".join(
        f"<tr>{''.join(f'<td{attribute}>{cell}</td>' for attribute, cell in zip(classes, row, strict=True))}</tr>"
        for row in rows
    )
    table_kind = f' class="{kind}"' if kind else ""
    return f'<div class="scroll"><table{table_kind}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
