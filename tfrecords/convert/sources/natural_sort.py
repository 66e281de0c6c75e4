"""Natural order: image_2 before image_10, so that an example's id does not depend on the file system."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["natural_key", "natural_order"]

_DIGITS = re.compile(r"[0-9]+")
# What the short key below cannot say: its markers, runs too long for one character of Latin-1, and the digits of other
# scripts, which count as numbers where they make up a whole part.
_ODD = re.compile(r"\0|[0-9]{128}|(?![0-9])\d")

_ALIKE = str.maketrans("0123456789", "0" * 10)


def natural_key(text: str) -> list[tuple[int, int, str]]:
    """Returns a sort key that orders runs of digits by their value; equal values by their spelling."""
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part) for part in re.split(r"([0-9]+)", text) if part]


def natural_order(texts: Sequence[str]) -> list[int]:
    """Returns the indices of `texts` in the order of `natural_key`.

    A million keys of tuples take a gigabyte and ten seconds. The same order is that of plain strings in which each run
    of digits is preceded by how many there are; only texts that such a string cannot tell apart get the tuples.
    """
    shape = texts[0].translate(_ALIKE) if texts else ""
    keys: Sequence[object]
    if all(text.translate(_ALIKE) == shape for text in texts):  # image_0001.jpg, image_0002.jpg, ...
        keys = texts
    elif any(map(_ODD.search, texts)):
        keys = [natural_key(text) for text in texts]
    else:
        keys = [_DIGITS.sub(_with_length, text) for text in texts]
    return sorted(range(len(texts)), key=keys.__getitem__)  # type: ignore[arg-type]


def _with_length(match: re.Match[str]) -> str:
    # NUL sorts before any text, as a number does; then the number of digits and the digits, which is the value; then
    # the zeros before them, where 001 < 01 < 1, but 0 < 00, as the spelling has it.
    digits = match[0]
    value = digits.lstrip("0")
    zeros = len(digits) - len(value)
    return f"\0{chr(len(value))}{value}{chr(128 - zeros if value else zeros)}"
