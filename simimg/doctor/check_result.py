"""The result of a check, for programs and for people, and how sizes are written.

A module of its own because every check returns it.
"""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckResult:
    """Result of a check."""

    title: str
    facts: dict[str, Any]  # for programs, numbers with their unit in the name
    rows: tuple[tuple[str, str], ...]  # for people, pairs of a name and a value
    problems: tuple[str, ...] = ()  # what is wrong and how to fix it, one sentence or two each
    notes: tuple[str, ...] = ()  # what is worth knowing but not wrong


def gigabytes(num_bytes: float) -> str:
    """Return a number of bytes as text, in GB, MB or KB."""
    if num_bytes >= 2**30:
        return f"{num_bytes / 2**30:,.1f} GB"
    return f"{num_bytes / 2**20:,.0f} MB" if num_bytes >= 2**20 else f"{num_bytes / 2**10:,.0f} KB"
