"""The elements of charts, and the two ways to write them: as SVG for a page, and as a PNG file.

In a page, the style sheet gives the elements their colors, so that they follow light and dark. matplotlib draws the
same elements for a PNG file. Lengths are SVG user units, which are CSS px where a page shows a chart at its natural
size.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from simimg.report.contact_sheet import write_bytes
from simimg.report.html_page import escape
from simimg.report.number_format import printable

_PAPER, _INK, _GRAY = "#ffffff", "#1c1c1e", "#6d6d72"
_PNG_SCALE = 2.2  # px per user unit
_PNG_COLORS = {
    "right": "#1d5fc4", "wrong": "#d4500f", "cells": "#f4f4f5", "base": _PAPER, "gaps": _PAPER, "deep": _PAPER,
    "grid": "#e2e2e4", "tick": _GRAY, "of": _GRAY, "train": _GRAY, "validation": "#d4500f", "test": "#1d5fc4",
    "tenfold": "#6493dd", "hundredfold": "#a9c4ee",
}  # fmt: skip

Point = tuple[float, float]


class Element(NamedTuple):
    """An SVG element of a chart.

    `kind` is its CSS class, which decides the color. `strokes` are the lines of a `path`, or the single line of a
    `polyline`. The attribute `turn` of a `text` is its clockwise rotation around its anchor in degrees.
    """

    tag: str
    kind: str
    attributes: dict[str, float | str] = {}  # noqa: RUF012, a NamedTuple has no factories, and nothing changes it
    text: str = ""
    title: str = ""
    strokes: Sequence[Sequence[Point]] = ()


def text(kind: str, x: float, y: float, words: str, anchor: str = "start", size: float = 0, turn: float = 0) -> Element:
    """Returns a text element; without a size, it has that of the chart."""
    given: dict[str, float | str] = {
        "text-anchor": "" if anchor == "start" else anchor,
        "font-size": size,
        "turn": turn,
    }
    attributes: dict[str, float | str] = {"x": x, "y": y, **{name: value for name, value in given.items() if value}}
    return Element("text", kind, attributes, words)


def svg(elements: Iterable[Element], kind: str, width: float, height: float, label: str, *, font: float = 0) -> str:
    """Returns a chart as an SVG element of the style class `kind`, which screen readers know by `label`.

    With `font`, the size of its text, it has its natural size; without, the page's style sheet decides both.
    """
    size = f' width="{width:.0f}" height="{height:.0f}" style="font-size:{font:.1f}px"' if font else ""
    head = f'class="{kind}" viewBox="0 0 {width:.0f} {height:.0f}"{size} role="img" aria-label="{escape(label)}"'
    return f"<svg {head}>{''.join(map(_svg, elements))}</svg>"


def write_png(elements: Sequence[Element], font: float, path: Path) -> None:
    """Writes a chart as a PNG file, which has its name only when it is complete."""
    # matplotlib takes half a second to import. Its objects are used without pyplot, which keeps every figure alive and
    # belongs to the program that imported us.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.collections import LineCollection, PolyCollection
    from matplotlib.colors import to_rgba
    from matplotlib.figure import Figure

    def color(element: Element) -> tuple[float, ...]:
        found = next((_PNG_COLORS[word] for word in reversed(element.kind.split()) if word in _PNG_COLORS), _INK)
        return to_rgba(found, float(element.attributes.get("fill-opacity", 1)))

    figure = Figure(figsize=(1, 1), dpi=72 * _PNG_SCALE, facecolor=_PAPER)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))  # one user unit is one point
    axes.set(xlim=(0, 72), ylim=(72, 0))
    axes.axis("off")
    rects = [element for element in elements if element.tag == "rect"]
    corners = [[float(element.attributes[name]) for name in ("x", "y", "width", "height")] for element in rects]
    boxes = [[(x, y), (x + w, y), (x + w, y + h), (x, y + h)] for x, y, w, h in corners]
    drawn: list[Any] = [PolyCollection(boxes, facecolors=list(map(color, rects)), edgecolors="none", zorder=1)]
    for element in elements:
        values = element.attributes
        if element.tag == "text":
            axes.text(
                float(values["x"]), float(values["y"]), printable(element.text), color=color(element), clip_on=False,
                fontsize=float(values.get("font-size", font)), rotation=-float(values.get("turn", 0)),
                ha={"end": "right", "middle": "center"}.get(str(values.get("text-anchor")), "left"), va="baseline",
                rotation_mode="anchor", weight="bold" if "label" in element.kind else "normal", parse_math=False,
                zorder=4,
            )  # fmt: skip
        elif element.tag == "circle":
            axes.plot(values["cx"], values["cy"], "o", ms=2 * float(values["r"]), color=color(element), clip_on=False)
        elif element.strokes:
            width = float(values.get("stroke-width", 2.5 if element.tag == "polyline" else 1))
            drawn.append(LineCollection(element.strokes, colors=[color(element)], linewidths=width, zorder=2))
    for collection in drawn:
        collection.set_clip_on(False)
        axes.add_collection(collection, autolim=False)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # a name in a script that the font lacks
        figure.savefig(buffer, format="png", bbox_inches="tight", pad_inches=0.3, metadata={"Software": None})
    write_bytes(path, buffer.getvalue())


def _svg(element: Element) -> str:
    attributes = dict(element.attributes)
    if "turn" in attributes:
        place = f"translate({_number(attributes.pop('x'))} {_number(attributes.pop('y'))})"
        attributes["transform"] = f"{place} rotate({attributes.pop('turn')})"
    lines = [[f"{x:.1f},{y:.1f}" for x, y in stroke] for stroke in element.strokes]
    if element.tag == "polyline":
        attributes["points"] = " ".join(lines[0])
    elif lines:
        attributes["d"] = "".join(f"M{'L'.join(line)}" for line in lines)
    texts = "".join(f' {name}="{_number(value)}"' for name, value in attributes.items())
    title = f"<title>{escape(element.title)}</title>" if element.title else ""
    return f'<{element.tag} class="{element.kind}"{texts}>{title}{escape(element.text)}</{element.tag}>'


def _number(value: float | str) -> str:
    return value if isinstance(value, str) else f"{round(value, 2):g}"
