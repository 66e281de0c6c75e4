"""What a run learns, and what its figures are called."""

from __future__ import annotations

import dataclasses

__all__ = ["OBJECTIVES", "Objective"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Objective:
    """The words and figures of an objective.

    Attributes:
        score: the key of its figure in a history and a result, a share of 1: with a split's name before it.
        words: what people read for it.
        others: keys of the means over an epoch that a step also returns the sums of.
    """

    score: str
    words: str
    others: tuple[str, ...] = ()


OBJECTIVES = {
    "classes": Objective(score="accuracy", words="accuracy"),
    "similarity": Objective(
        score="recall", words="copy recall", others=("copy_similarity", "nearest_similarity", "mean_norm")
    ),
}
