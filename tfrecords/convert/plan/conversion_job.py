"""A job: what one conversion has to do, from which files, under which ids and labels; and the plan for it.

Everything here is a pure function of the source, the configuration and the data set that is added to.
"""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np

from tfrecords.base_errors import UsageError
from tfrecords.convert.image.near_duplicates import group_copies
from tfrecords.convert.plan.convert_config import ConvertConfig
from tfrecords.convert.plan.previous_version import PreviousVersion
from tfrecords.convert.plan.shard_plan import PlannedShard, ShardPlan, make_plan, rebalance
from tfrecords.convert.plan.split_assignment import assign_splits, draw_ranks, parse_splits
from tfrecords.convert.sources import Source, printable
from tfrecords.convert.state.receipts import Receipt
from tfrecords.format.manifest import Manifest

__all__ = ["ConversionJob", "FinalPlan", "make_job", "select"]


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class FinalPlan:
    """The plan when copies are known.

    `groups` is int64 `[num_rows]`: the id of the first file of the group of copies that each row belongs to.
    `leaks` names a photo a group that lies in several splits all the same.
    """

    plan: ShardPlan
    groups: np.ndarray
    leaks: tuple[str, ...]


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class ConversionJob:
    """What is to be converted: row i of `source` becomes example `ids[i]` with label `labels[i]`.

    `listed` is the whole source, of which `source` may have only the files that are new or asked for. `existing` is the
    data set that is added to, None where a new one is made. `splits` are the names of the splits; `split_of` is the
    first deal, int8 `[num_rows]`, and `ranks` uint64 `[num_rows, 2]`.
    """

    config: ConvertConfig
    source: Source
    listed: Source
    ids: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    existing: PreviousVersion | None
    splits: tuple[str, ...]
    split_of: np.ndarray
    ranks: np.ndarray

    @property
    def num_before(self) -> dict[str, int]:
        """By split, how many shards are there already."""
        return {} if self.existing is None else {s: len(i) for s, i in self.existing.layout.splits.items()}

    @property
    def may_move(self) -> bool:
        """Whether photos can go to another split when it is known what they are copies of."""
        return self.config.copies != "ignore" and len(parse_splits(self.config.splits)) > 1

    def plan(self) -> ShardPlan:
        """Returns the first plan, made from names alone."""
        return make_plan(
            self.config.name,
            self.source.usable(),
            self.split_of,
            self.ranks[:, 1],
            splits=self.splits,
            image_size=self.config.image_size,
            encoding=self.config.encoding,
            sizes=self.source.sizes,
            num_before=self.num_before,
        )

    def settled(self, plan: ShardPlan, receipt: Receipt) -> FinalPlan:
        """Returns the plan with all copies of a photo in one split, and what is a copy of what."""
        rows = np.flatnonzero(receipt.positions >= 0)
        if self.existing is None:
            before = np.empty(0, np.int64)
            tables = (receipt.sha256[rows], receipt.pixels_sha256[rows], receipt.phash[rows])
        else:
            manifest = self.existing.manifest
            before = np.flatnonzero(manifest.ok)
            tables = (
                np.concatenate((manifest.sha256[before], receipt.sha256[rows])),
                np.concatenate((manifest.pixels_sha256[before], receipt.pixels_sha256[rows])),
                np.concatenate((manifest.phash[before], receipt.phash[rows])),
            )
        groups = group_copies(*tables, self.config.copies)
        split_of = self.split_of.copy()
        fractions = parse_splits(self.config.splits)
        if fractions:
            own = groups[len(before) :]
            split_of[rows] = assign_splits(self.labels[rows], self.ranks[rows, 0], fractions, own)
        all_ids = self.ids[rows]
        splits_before = np.empty(0, np.int8)
        if self.existing is not None:
            all_ids = np.concatenate((self.existing.manifest.ids[before], all_ids))
            names = self.existing.manifest.split_names
            splits_before = np.array([self.splits.index(name) for name in names], np.int8)[
                self.existing.manifest.splits[before]
            ]
            if fractions:  # a copy of a photo that is there goes where that one is
                old = groups[len(before) :] < len(before)
                split_of[rows[old]] = splits_before[groups[len(before) :][old]]
        settled = rebalance(
            plan, self.config.name, split_of, self.ranks[:, 1], splits=self.splits, num_before=self.num_before
        )
        group_ids = self.ids.copy()
        group_ids[rows] = all_ids[groups[len(before) :]]
        return FinalPlan(
            plan=settled,
            groups=group_ids,
            leaks=self._leaks(groups, np.concatenate((splits_before, split_of[rows])), rows),
        )

    def made_from(self, manifest: Manifest) -> Source:
        """Returns those files of the whole source that the finished data set's manifest has."""
        if self.existing is None:
            return self.source
        known = set(manifest.paths)
        rows = [row for row, path in enumerate(self.listed.paths) if printable(path) in known]
        return select(self.listed, np.array(rows, np.int64))

    def inputs(self, planned: PlannedShard) -> str:
        """Returns a digest of the files that a shard is made of, in hexadecimal."""
        source, rows = self.source, planned.rows
        digest = hashlib.sha256(
            "\0".join([source.paths[row] for row in rows.tolist()]).encode(errors="surrogateescape")
        )
        for column in (self.ids, self.labels, source.sizes, source.stamps):
            digest.update(column[rows].astype("<i8").tobytes())
        return digest.hexdigest()

    def _leaks(self, groups: np.ndarray, splits: np.ndarray, rows: np.ndarray) -> tuple[str, ...]:
        torn = np.unique(groups[splits != splits[groups]])
        manifest = None if self.existing is None else self.existing.manifest
        before = 0 if manifest is None else int(manifest.ok.sum())
        names = []
        for index in torn.tolist():
            if index < before and manifest is not None:
                names.append(manifest.paths[int(np.flatnonzero(manifest.ok)[index])])
            else:
                names.append(printable(self.source.paths[int(rows[index - before])]))
        return tuple(names)


def make_job(config: ConvertConfig, source: Source, existing: PreviousVersion | None, listed: Source) -> ConversionJob:
    """Returns the job of converting `source`, which has all files of `listed` or some, besides what `existing` has.

    Raises:
        UsageError: the splits of the source are asked for, and it has none.
    """
    num_files = len(source.paths)
    usable = source.usable()
    if existing is None:
        ids = np.arange(num_files, dtype=np.int64)
        labels = source.labels
        class_names = source.class_names
    else:
        ids = _appended_ids(source, existing)
        present = {source.class_names[label] for label in np.unique(source.labels[usable]) if label >= 0}
        added = [name for name in source.class_names if name in present - set(existing.layout.class_names)]
        class_names = (*existing.layout.class_names, *added)
        number = {name: label for label, name in enumerate(class_names)}
        mapping = np.array([*(number.get(name, -1) for name in source.class_names), -1], np.int32)
        labels = mapping[source.labels]

    ranks = draw_ranks(config.seed, source.paths)
    fractions = parse_splits(config.splits)
    split_of = np.zeros(num_files, np.int8)
    if fractions:
        splits = tuple(fractions)
        split_of[usable] = assign_splits(labels[usable], ranks[usable, 0], fractions)
    elif source.splits is None:
        raise UsageError(f"--splits=source: {source.location} has no splits. Say e.g. --splits=train=0.75,test=0.25.")
    else:
        before = () if existing is None else tuple(existing.layout.splits)
        splits = tuple(dict.fromkeys((*before, *(source.splits[row] for row in usable.tolist()))))
        number = {name: split for split, name in enumerate(splits)}
        split_of[usable] = [number[source.splits[row]] for row in usable.tolist()]
    return ConversionJob(
        config=config,
        source=source,
        listed=listed,
        ids=ids,
        labels=labels,
        class_names=class_names,
        existing=existing,
        splits=splits,
        split_of=split_of,
        ranks=ranks,
    )


def select(source: Source, rows: np.ndarray) -> Source:
    """Returns the source with those of its files only, under the same classes."""
    refused = {new: source.refused[old] for new, old in enumerate(rows.tolist()) if old in source.refused}
    return dataclasses.replace(
        source,
        paths=[source.paths[row] for row in rows.tolist()],
        labels=source.labels[rows],
        sizes=source.sizes[rows],
        stamps=source.stamps[rows],
        places=None if source.places is None else source.places[rows],
        splits=None if source.splits is None else [source.splits[row] for row in rows.tolist()],
        refused=refused,
    )


def _appended_ids(source: Source, existing: PreviousVersion) -> np.ndarray:
    """Returns ids that go on where those of the data set end; a file that was refused then keeps its id."""
    manifest = existing.manifest
    refused = {manifest.paths[i]: int(manifest.ids[i]) for i in np.flatnonzero(~manifest.ok)}
    following = int(manifest.ids.max()) + 1 if len(manifest) else 0
    ids = np.empty(len(source.paths), np.int64)
    for row, path in enumerate(source.paths):
        known = refused.get(printable(path))
        ids[row] = following if known is None else known
        following += known is None
    return ids
