"""The parts of a page that show a model's training and what it is worth, and the machine that it was measured on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from simimg.report.contact_sheet import Tile
from simimg.report.html_page import escape, section, tile_figure
from simimg.report.number_format import mistaken, percent
from simimg.report.svg_charts import confusion_svg, curve_svgs

if TYPE_CHECKING:  # its module imports TensorFlow, which no report needs
    from simimg.evaluation.classification import Classification
    from simimg.evaluation.copy_recall import CopyFigures

__all__ = ["copies_found", "curves", "evaluated", "machine_section", "table"]

_NUM_CONFUSED = 6
_WIDE_CLASSES = 40  # more need the whole width of the page


def curves(history: Sequence[dict[str, Any]]) -> str:
    """Returns the loss and the accuracy, or the copy recall, over the epochs; nothing where there are none."""
    charts = curve_svgs(history)
    if not charts:
        return ""
    figures = "".join(f"<div><h3>{name}</h3>{svg}</div>" for name, svg in charts)
    note = "The figures at the curves' ends are of the last epoch, not of the best one."
    return f'<div class="curves">{figures}</div><p class="quiet">{note}</p>'


def evaluated(figures: Classification, mistakes: Sequence[Tile]) -> str:
    """Returns the figures of a classifier, its confusion matrix, and the photos it got wrong."""
    names = list(figures.per_class)
    facts = [
        ("mean of the classes' own accuracies", percent(figures.mean_per_class, 1)),
        ("binary accuracy over the outputs", percent(figures.binary_accuracy, 1)),
    ]
    parts = ['<dl class="facts">', *(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts), "</dl>"]
    parts.append(
        '<p class="quiet">Binary accuracy is what Keras reports under a binary loss: the share of all outputs on the '
        f"right side of 0.5. With {len(names)} classes, answering nothing gives {percent(1 - 1 / len(names))}.</p>"
    )
    wide = " wide" if len(names) > _WIDE_CLASSES else ""
    matrix = (
        f'<div class="scroll{wide}"><h3>Confusion matrix</h3><p class="quiet">Rows: what it is. Columns: what the '
        f"model says.<br>Blue is right, orange is wrong.</p>{confusion_svg(figures)}</div>"
    )
    rows = "".join(
        f'<tr><td class="num">{num:,}</td><td>{escape(name)}</td><td>{escape(other)}</td></tr>'
        for num, name, other in mistaken(names, figures.confusion, _NUM_CONFUSED)
    )
    head = "<tr><th>Photos</th><th>of</th><th>taken for</th></tr>"
    table = f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>" if rows else '<p class="quiet">None.</p>'
    parts.append(f'<div class="pair">{matrix}<div class="confused"><h3>Most frequent mistakes</h3>{table}</div></div>')
    if mistakes:
        tiles = "".join(map(tile_figure, mistakes))
        parts.append(f'<h3>Photos it got wrong</h3><div class="tiles">{tiles}</div>')
    return "".join(parts)


def copies_found(figures: CopyFigures, mistakes: Sequence[Tile]) -> str:
    """Returns how far copies are from their originals and from others, and copies that found another photo."""
    facts = [
        ("similarity of a copy to its original", f"{figures.copy_similarity:.3f}"),
        ("to the nearest other photo", f"{figures.nearest_similarity:.3f}"),
        ("length of the mean embedding", f"{figures.mean_norm:.3f}"),
    ]
    parts = ['<dl class="facts">', *(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts), "</dl>"]
    note = (
        "Similarities are cosines, means over all copies. A mean embedding of length 1 would say that all are the same."
    )
    parts.append(f'<p class="quiet">{note}</p>')
    if mistakes:
        tiles = "".join(map(tile_figure, mistakes))
        parts.append(f'<h3>Copies that found another photo</h3><div class="tiles">{tiles}</div>')
    return "".join(parts)


def machine_section(machine: Mapping[str, str]) -> str:
    """Returns the section that says on what the figures were measured; nothing where that is not known."""
    if not machine:
        return ""
    note = '<p class="quiet">Times and rates are of one run on this machine.</p>'
    return section("machine", "", f"{table(machine)}{note}")


def table(rows: Mapping[str, str]) -> str:
    """Returns names and values as a table."""
    cells = "".join(f"<tr><th>{escape(key)}</th><td>{escape(value)}</td></tr>" for key, value in rows.items())
    return f'<table class="machine"><tbody>{cells}</tbody></table>'
