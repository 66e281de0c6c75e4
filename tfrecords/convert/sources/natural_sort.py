"""The natural order of names, image_2 before image_10, so that ids do not depend on the file system."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

_DIGITS = re.compile(r"[0-9]+")
# Texts that the short key below cannot express: its markers, runs too long for one character of Latin-1, and the digits
# of other scripts, which count as numbers if they are a whole part.
_ODD = re.compile(r"\0|[0-9]{128}|(?![0-9])\d")
_ALIKE = str.maketrans("0123456789", "0" * 10)


def natural_key(text: str) -> list[tuple[int, int, str, str]]:
    """Return a sort key that orders runs of digits by value, and equal values by their spelling."""
    return [_part_key(part) for part in re.split(r"([0-9]+)", text) if part]


def natural_order(texts: Sequence[str]) -> list[int]:
    """Return the indices of `texts` in the order of `natural_key`.

    A million keys of tuples take a gigabyte and ten seconds. Plain strings in which each run of digits is preceded by
    its length have the same order. Tuples are used only for texts that such a string cannot distinguish. (The package
    natsort has another order for equal values, which would change the ids of existing datasets.)
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


def _part_key(part: str) -> tuple[int, int, str, str]:
    if not part.isdecimal():
        return 1, 0, "", part
    # Of two numbers without zeros in front, the longer one is larger. A name may have more digits than `int` takes.
    digits = "".join(str(unicodedata.decimal(digit)) for digit in part).lstrip("0")
    return 0, len(digits), digits, part


def _with_length(match: re.Match[str]) -> str:
    # NUL sorts before any text, as a number does. Then come the number of digits and the digits, which give the value,
    # and the zeros in front of them: by their spelling, 001 < 01 < 1, but 0 < 00.
    digits = match[0]
    value = digits.lstrip("0")
    zeros = len(digits) - len(value)
    return f"\0{chr(len(value))}{value}{chr(128 - zeros if value else zeros)}"
