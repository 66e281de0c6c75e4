"""Formats numbers and names for people: percentages, durations, names that fit, axes, labels that do not collide."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

# Control characters, surrogates, and marks that reverse the writing direction: `\u202egpj.exe` would read `exe.jpg`.
_HIDDEN = re.compile("[\0-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def percent(share: float | None, decimals: int = 0) -> str:
    """Returns a share of 0..1 as a percentage; None, NaN and infinity give a dash.

    It is rounded, but never to 0 % or 100 % unless that is exact: 999 of 1,000 gives 99 %, with one decimal 99.9 %.
    """
    if share is None or not math.isfinite(share):
        return "–"
    unit = 10.0**-decimals
    value = round(100 * share, decimals)
    if 0 < share < 1:
        value = min(100 - unit, max(unit, value))
    return f"{value:.{decimals}f}\u00a0%"


def count_of(num: int, singular: str, plural: str) -> str:
    """Returns "1 file" or "1,234 files"."""
    return f"{num:,} {singular if num == 1 else plural}"


def duration(seconds: float) -> str:
    """Returns a duration in a suitable unit: "20 ms", "0.8 s", "48 s", "3 min 12 s", "2 h 5 min"."""
    if seconds < 0.0995:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def storage(num_bytes: int) -> str:
    """Returns a number of bytes in a suitable decimal unit: "812 B", "29.4 MB", "1.3 GB"."""
    if num_bytes < 1000:
        return f"{num_bytes} B"
    value, unit = num_bytes / 1000, "kB"
    for larger in ("MB", "GB", "TB"):
        if value < 999.5:
            break
        value, unit = value / 1000, larger
    return f"{value:.1f} {unit}" if value < 99.95 else f"{value:,.0f} {unit}"


def printable(text: str) -> str:
    r"""Returns a text that any font and encoding can show.

    A file name may contain line ends, escape characters and bytes that are not UTF-8. They become `\n`, `\x1b`, `\xff`.
    """
    return _HIDDEN.sub(lambda match: _spelled_out(match[0]), text)


def shortened(text: str, num_characters: int) -> str:
    """Returns a printable text of at most `num_characters`, cut in the middle where it is longer."""
    text = printable(text)
    if len(text) <= num_characters:
        return text
    tail = (num_characters - 1) // 2
    return f"{text[: num_characters - 1 - tail]}…{text[len(text) - tail :]}"


def points(history: Iterable[dict[str, Any]], key: str) -> list[tuple[int, float]]:
    """Returns (epoch, value) of the epochs of a history whose value for `key` is finite."""
    pairs = ((int(line["epoch"]), line.get(key)) for line in history)
    return [(epoch, float(value)) for epoch, value in pairs if value is not None and math.isfinite(value)]


def spread(positions: Sequence[float], gap: float) -> list[float]:
    """Returns positions at least `gap` apart, in the same order; those that were too close move as one group."""
    order = sorted(range(len(positions)), key=lambda i: positions[i])
    groups: list[tuple[float, list[int]]] = []  # the mean of the wanted positions, and the indices
    for i in order:
        center, members = positions[i], [i]
        while (
            groups and center - gap * (len(members) - 1) / 2 - gap < groups[-1][0] + gap * (len(groups[-1][1]) - 1) / 2
        ):
            members = groups.pop()[1] + members
            center = sum(positions[member] for member in members) / len(members)
        groups.append((center, members))
    moved = list(positions)
    for center, members in groups:
        for rank, member in enumerate(members):
            moved[member] = center + gap * (rank - (len(members) - 1) / 2)
    return moved


def ticks(low: float, high: float, about: int) -> list[float]:
    """Returns about `about` round values from `low` to `high`: multiples of 1, 2 or 5 times a power of ten."""
    if high <= low:
        return [low]
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def epoch_ticks(first: int, last: int) -> list[int]:
    """Returns the epochs at which an axis has ticks; at least one."""
    return [round(value) for value in ticks(first, last, 6) if abs(value - round(value)) < 1e-6]


def value_range(values: Sequence[float], *, share: bool) -> tuple[float, float]:
    """Returns the ends of an axis, such that its highest tick is above all values.

    An axis of shares goes from a round value of at most 90 % to 100 %, one of losses from 0 to its first tick above.
    """
    if share:
        return min(0.9, math.floor(min(values) * 10) / 10), 1.0
    highest = max(values)
    if highest <= 0:
        return 0.0, 1.0
    step = ticks(0.0, highest, 5)[1]
    return 0.0, step * math.ceil(highest / step - 1e-9)


def mistaken(class_names: Sequence[str], confusion: Sequence[Sequence[int]], most: int) -> list[tuple[int, str, str]]:
    """Returns the `most` most frequent mistakes in descending order: (number, true class, predicted class)."""
    found = [
        (count, class_names[i], class_names[j])
        for i, row in enumerate(confusion)
        for j, count in enumerate(row)
        if count and i != j
    ]
    return sorted(found, key=lambda mistake: -mistake[0])[:most]


def _spelled_out(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # Python's code for a byte of a file name that is not UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()
