"""Groups of copies while a search for them is running, to show that there are some and what they look like.

Pairs are noticed by thumbnails and keypoints, before they are compared at full size, so that some of them may turn out
to be no copies. Nothing is decided with these groups.
"""

from __future__ import annotations

import threading
from typing import Any

_SHOWN = 60  # groups; a page that is looked at for a minute needs no more


class GroupsSoFar:
    """Joins pairs of rows to groups, in the order in which they were noticed. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._group_of: dict[int, list[int]] = {}
        self._groups: dict[int, list[int]] = {}  # by their first row

    def join(self, row: int, other: int) -> None:
        """Note that two rows look like copies."""
        with self._lock:
            one, two = (self._group_of.setdefault(place, [place]) for place in (row, other))
            if one is two:
                return
            if len(two) > len(one):
                one, two = two, one
            self._groups.pop(two[0], None)
            self._groups.setdefault(one[0], one)
            one += two
            self._group_of.update(dict.fromkeys(two, one))  # the smaller one: some collections are one large group

    def described(self) -> dict[str, Any]:
        """Return JSON values: `num_groups`, and the rows of the first `groups`."""
        with self._lock:
            first = list(self._groups.values())[:_SHOWN]
            return {"num_groups": len(self._groups), "groups": [list(rows) for rows in first]}
