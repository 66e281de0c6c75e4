"""How many files of each class went where."""

from __future__ import annotations

import dataclasses

import numpy as np

from tfrecords.format.manifest import Manifest

__all__ = ["Counts", "count_files"]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Counts:
    """Files by class and what became of them.

    Attributes:
        splits: the names of the splits.
        examples: int64 [num_classes, num_splits].
        refused: int64 [num_classes].
        outside: refused files that are of no class.
    """

    splits: tuple[str, ...]
    examples: np.ndarray
    refused: np.ndarray
    outside: int

    @property
    def sizes(self) -> np.ndarray:
        """How many examples each class has: int64 [num_classes]."""
        sizes: np.ndarray = self.examples.sum(axis=1)
        return sizes

    @property
    def num_refused(self) -> int:
        """All refused files."""
        return int(self.refused.sum()) + self.outside

    def unsplit(self) -> list[int]:
        """Returns the labels of the classes that are missing from a split."""
        labels: list[int] = np.flatnonzero((self.examples == 0).any(axis=1)).tolist()
        return labels

    def by_size(self) -> np.ndarray:
        """Returns the labels, the largest class first, equal ones in their order: int64 [num_classes]."""
        return np.argsort(-self.sizes, kind="stable")


def count_files(manifest: Manifest, num_classes: int) -> Counts:
    """Returns the counts of a manifest's files."""
    ok, labels, num_splits = manifest.ok, manifest.labels, len(manifest.split_names)
    cells = labels[ok].astype(np.int64) * num_splits + manifest.splits[ok]
    refused = labels[~ok]
    return Counts(
        splits=manifest.split_names,
        examples=np.bincount(cells, minlength=num_classes * num_splits).reshape(num_classes, num_splits),
        refused=np.bincount(refused[refused >= 0], minlength=num_classes),
        outside=int((refused < 0).sum()),
    )
