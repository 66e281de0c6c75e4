"""Decisions that are made on the search page, for good: stored in the folder of the index at once, and undone there."""

from __future__ import annotations

from typing import Any

from simimg.errors import SimimgError
from simimg.similarity.decided_groups import settled_members
from simimg.similarity.decisions import (
    DECISIONS,
    UNDONE,
    DecidedImage,
    Decision,
    Decisions,
    check_decision,
    record,
)
from simimg.similarity.duplicate_groups import Member
from simimg.similarity.image_table import IndexedImage
from simimg.similarity.search_index import SearchIndex
from simimg.web.request_guard import RequestError

_WRONG = "This is no decision: a list of decisions with rows, and the rows of their group."


def store_decisions(index: SearchIndex, values: Any) -> dict[str, Any]:
    """Store decisions: `{"decisions": [{"decision": text, "rows": [row, …]}, …], "group": [row, …]}`.

    Of `this one`, the first row is kept; `undone` takes back a decision about exactly these images. The first row of
    the group is its keeper.

    Returns:
        `members`: the rows of the group that are still in question, each with what is `remembered` about it, whether
        that `is_decided` and whether it `stays`; and `undo`: decisions that restore what counted before.

    Raises:
        RequestError: the values are invalid, or the file of decisions cannot be read or written.
    """
    if not isinstance(values, dict) or not isinstance(values.get("decisions"), list):
        raise RequestError(422, _WRONG)
    group = _images(index, values.get("group"))
    wanted: list[tuple[Decision, list[int]]] = []
    for one in values["decisions"]:
        if not isinstance(one, dict) or one.get("decision") not in (*DECISIONS, UNDONE):
            raise RequestError(422, _WRONG)
        rows = _images(index, one.get("rows"))
        images = tuple(DecidedImage(image.sha256, image.path) for image in rows.values())
        wanted.append((Decision(one["decision"], images), list(rows)))
    undo: list[dict[str, Any]] = []

    def change(before: Decisions) -> list[Decision]:
        for decision, rows in wanted:
            known = before.of(decision.key)
            if known is not None:  # the one to keep comes first
                rows = sorted(rows, key=lambda row: index.images[row].sha256 != known.images[0].sha256)
            undo.append({"decision": known.decision if known else UNDONE, "rows": rows})
        return [decision for decision, _ in wanted]

    try:
        for decision, _ in wanted:
            check_decision(decision)
        decisions = record(index.index_dir, change)
    except ValueError as error:
        raise RequestError(422, f"This cannot be decided: {error}.") from None
    except SimimgError as error:
        raise RequestError(409, str(error)) from None
    left, _ = settled_members([Member(row, image, 1.0, "") for row, image in group.items()], decisions)
    return {
        "members": [
            {"row": one.row, "remembered": one.remembered, "stays": one.stays, "is_decided": one.is_decided}
            for one in left
        ],
        "undo": undo,
    }


def _images(index: SearchIndex, rows: Any) -> dict[int, IndexedImage]:
    are_rows = isinstance(rows, list) and all(type(row) is int and 0 <= row < len(index.images) for row in rows)
    if not are_rows or not rows or len(set(rows)) < len(rows):
        raise RequestError(422, _WRONG)
    return dict(zip(rows, index.images.rows(rows), strict=True))
