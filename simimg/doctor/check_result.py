"""What a check found, for programs and for people, and how sizes are written."""

from __future__ import annotations

import dataclasses
from typing import Any

__all__ = ["CheckResult", "gigabytes"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckResult:
    """What a check found.

    Attributes:
        title: what was looked at.
        facts: for programs, numbers with their unit in the name.
        rows: for people, a name and what is there.
        problems: what is wrong, and the command that mends it, one sentence each.
        notes: what to know of it that is not wrong.
    """

    title: str
    facts: dict[str, Any]
    rows: tuple[tuple[str, str], ...]
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def gigabytes(num_bytes: float) -> str:
    """Writes a number of bytes as people read it."""
    if num_bytes >= 2**30:
        return f"{num_bytes / 2**30:,.1f} GB"
    return f"{num_bytes / 2**20:,.0f} MB" if num_bytes >= 2**20 else f"{num_bytes / 2**10:,.0f} KB"
