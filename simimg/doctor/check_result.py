"""The result of a check, for programs and for people, and how sizes are written.

A module of its own because every check returns it.
"""

from __future__ import annotations

import dataclasses
from typing import Any

__all__ = ["CheckResult", "gigabytes"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckResult:
    """Result of a check.

    Attributes:
        title: subject of the check.
        facts: for programs, numbers with their unit in the name.
        rows: for people, pairs of a name and a value.
        problems: what is wrong and how to fix it, one sentence or two each.
        notes: what is worth knowing but not wrong.
    """

    title: str
    facts: dict[str, Any]
    rows: tuple[tuple[str, str], ...]
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def gigabytes(num_bytes: float) -> str:
    """Return a number of bytes as text, in GB, MB or KB."""
    if num_bytes >= 2**30:
        return f"{num_bytes / 2**30:,.1f} GB"
    return f"{num_bytes / 2**20:,.0f} MB" if num_bytes >= 2**20 else f"{num_bytes / 2**10:,.0f} KB"
