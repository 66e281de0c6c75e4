"""What a source says about its files beside one class: several labels, numbers as labels, and further features."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfrecords.base_errors import UsageError
from tfrecords.convert.sources.source import Source
from tfrecords.format.quarantine import Reason
from tfrecords.format.schema import MAX_SIZE, FeatureSpec, Schema

ONE_CLASS = (
    "Each image file has one class: multi-label is not supported. Keep one label per image, or convert the files by a "
    "--table and --label_type=multi"
)
"""For sources that are no tables."""

UNLABELED = "unlabeled"
"""The class of every image of a dataset without labels, in its manifest and reports."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class RowValues:
    """The values of all files of a source, by id.

    `labels` are tuples: of labels of the source's classes for `multi`, in ascending order, of numbers for `float`, else
    empty. `values` has a tuple for each file, with a value for each of `features`, which are sorted by name.
    """

    label_type: str
    labels: list[tuple[Any, ...]]
    features: tuple[FeatureSpec, ...]
    values: list[tuple[Any, ...]]

    def select(self, ids: Sequence[int]) -> RowValues:
        """Return the values of some files."""
        return dataclasses.replace(self, labels=[self.labels[id] for id in ids], values=[self.values[id] for id in ids])

    def schema(self) -> Schema:
        """Return the schema of a new dataset; raise UsageError if an image has too many labels."""
        size = max(map(len, self.labels), default=0) if self.label_type in ("multi", "float") else 1
        if size > MAX_SIZE:
            what = "labels" if self.label_type == "multi" else "numbers"
            raise UsageError(
                f"--label_type={self.label_type}: an image has {size:,} {what}, and more than {MAX_SIZE:,} cannot be "
                "stored as labels. Store them with --features, or name other columns with --label_column."
            )
        return Schema(label_type=self.label_type, label_size=size, features=self.features)

    def strata(self, labels: np.ndarray) -> np.ndarray:
        """Return the class by which each file is dealt among the splits, int32 `[num_files]`, -1 for none: `labels` if
        each has one class, and of several labels the rarest one, whose images would else be all in one split.
        """
        if self.label_type != "multi":
            return labels
        counts = Counter(label for several in self.labels for label in several)
        rarest = (min(several, key=counts.__getitem__) if several else -1 for several in self.labels)
        return np.fromiter(rarest, np.int32, len(self.labels))

    def text(self, id: int) -> str:
        """Return the values of a file as a text that differs if they do."""
        return repr((self.labels[id], self.values[id]))

    def tails(self, schema: Schema, labels: np.ndarray, number: np.ndarray) -> list[bytes]:
        """Return the tail of each file's record; `labels` are the classes if each has one, and `number[c]` is the label
        in the dataset of the source's class c.
        """
        many = self.labels
        if self.label_type == "multi":
            many = [tuple(sorted(int(number[label]) for label in several)) for several in many]
        ones = np.maximum(labels, 0).tolist()
        single = self.label_type == "single"
        rows = zip(ones, many, self.values, strict=True)
        return [schema.tail(one if single else several, values) for one, several, values in rows]


def with_values(source: Source, label_type: str, features: Sequence[str]) -> Source:
    """Return a source that is no table, with labels of this type.

    Raises:
        UsageError: it has no such labels, or no features.
    """
    if features:
        raise UsageError(f"--features={','.join(features)} are columns of a table. Give the table as --table=PATH.")
    if label_type in ("multi", "float"):
        what = "several labels per image" if label_type == "multi" else "numbers as labels"
        raise UsageError(
            f"--label_type={label_type}: {source.location} gives each image one class. A source with {what} is a "
            "table: give --table=PATH, with paths that are relative to --image_dir."
        )
    if label_type == "single":
        return source
    num_files = len(source.paths)
    empty: list[tuple[Any, ...]] = [()] * num_files
    return dataclasses.replace(
        source,
        class_names=(UNLABELED,),
        labels=np.zeros(num_files, np.int32),
        refused={id: why for id, why in source.refused.items() if why.reason is not Reason.NO_CLASS_FOLDER},
        form=f"{source.form or f'{num_files:,} files'}; stored without labels",
        values=RowValues(label_type=label_type, labels=empty, features=(), values=empty),
    )
