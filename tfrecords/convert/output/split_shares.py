"""How far the shares of a dataset's splits are from those that were asked for, where groups cannot be divided."""

from __future__ import annotations

import dataclasses

import numpy as np

from tfrecords.convert.plan.group_split import fold_fractions
from tfrecords.convert.plan.split_assignment import are_counts, parse_splits
from tfrecords.format.layout import Layout
from tfrecords.format.manifest import Manifest

_GROUPED_BY = ("group_column", "group_pattern")
_OPTIONS = (*_GROUPED_BY, "time_column", "folds")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitShares:
    """The shares of the splits, by name.

    Attributes:
        asked: the fractions that were asked for.
        found: those of the dataset's examples.
        by: the options that say what is not divided or how, as they were given, e.g. `--group_column=patient`.
        num_groups: the number of groups, and of copies that are no part of one; 0 if only copies are kept together.
        largest: the number of images of the largest group; 0 likewise.
        in_class: where the share of a split within a class is farthest from the one that was asked for: the class, the
            split and its share there; None if images have no classes.
    """

    asked: dict[str, float]
    found: dict[str, float]
    by: str
    num_groups: int
    largest: int
    in_class: tuple[str, str, float] | None

    def sentence(self) -> str:
        """Return all of it in one line for the user."""
        shares = ", ".join(f"{name} {self.found[name]:.1%} of {share:.1%}" for name, share in self.asked.items())
        groups = f"{self.num_groups:,} groups, the largest of {self.largest:,} images; " if self.num_groups else ""
        text = f"{self.by}: {groups}shares of the images, found of asked: {shares}"
        if self.in_class is None:
            return text
        class_name, split, share = self.in_class
        return f"{text}; farthest off within a class: {class_name}, {share:.1%} in {split}"


def split_shares(layout: Layout, manifest: Manifest, counts: np.ndarray) -> SplitShares | None:
    """Return the shares of a dataset that was divided by groups, by time or in folds; None for another one, or where
    splits have numbers of images instead of shares.

    `counts` is int64 `[num_classes, num_splits]`: how many images of each split of the manifest have each class.
    """
    config = layout.config
    by = " ".join(f"--{name}={config[name]}" for name in _OPTIONS if config.get(name))
    ok = np.flatnonzero(manifest.ok)
    if not by or not len(ok):
        return None
    folds = config.get("folds")
    asked = fold_fractions(folds) if folds else parse_splits(str(config.get("splits")))
    if are_counts(asked):
        return None
    if not set(manifest.split_names) <= set(asked):  # `simimg edit --merge` added other splits
        return None
    numbers = [list(asked).index(name) for name in manifest.split_names]
    by_class = np.zeros((len(counts), len(asked)), np.int64)
    by_class[:, numbers] = counts
    there = np.flatnonzero(by_class.sum(axis=1))
    within = by_class[there] / by_class[there].sum(axis=1, keepdims=True)
    off = np.abs(within - np.array(list(asked.values())))
    label, split = (int(at) for at in np.unravel_index(int(off.argmax()), off.shape))
    in_class = (layout.counted_names[there[label]], list(asked)[split], float(within[label, split]))
    found = np.bincount(np.array(numbers)[manifest.splits[ok]], minlength=len(asked)) / len(ok)
    sizes = np.zeros(0, np.int64)
    if any(config.get(name) for name in _GROUPED_BY):
        _, sizes = np.unique(manifest.split_groups[ok], return_counts=True)
    return SplitShares(
        asked=asked,
        found=dict(zip(asked, found.tolist(), strict=True)),
        by=by,
        num_groups=len(sizes),
        largest=int(sizes.max(initial=0)),
        in_class=in_class if layout.schema.label_type in ("single", "multi") else None,
    )
