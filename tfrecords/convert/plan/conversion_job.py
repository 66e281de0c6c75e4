"""The job of one conversion: its files, their ids and labels, and the plan of its shards.

Everything here is a pure function of the source, the options and the previous version of the dataset.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping

import numpy as np

from tfrecords.base_errors import ConversionError, UsageError
from tfrecords.convert.image.decoder import decoder_versions
from tfrecords.convert.image.near_duplicates import group_copies, join_groups
from tfrecords.convert.plan.convert_config import ConvertConfig, ResolvedConfig
from tfrecords.convert.plan.group_split import (
    assign_groups,
    check_groups,
    group_codes,
    group_names,
    group_of_path,
    too_few_groups,
)
from tfrecords.convert.plan.label_conflicts import ConflictingRows
from tfrecords.convert.plan.previous_version import PreviousVersion
from tfrecords.convert.plan.shard_plan import ShardPlan, make_plan, rebalance, without_rows
from tfrecords.convert.plan.split_assignment import are_counts, assign_counts, assign_splits, draw_ranks
from tfrecords.convert.plan.time_split import assign_by_time, parse_times, time_notes
from tfrecords.convert.sources import Source, printable
from tfrecords.convert.state.receipts import Receipt
from tfrecords.format.naming import ARRAY_RECORD, VERSION, check_splits, next_version
from tfrecords.format.quarantine import Refusal
from tfrecords.format.record_layout import Offsets
from tfrecords.format.schema import PLAIN, Schema
from tfrecords.installed_versions import installed_version


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class FinalPlan:
    """The plan after the copies are known.

    `groups` is int64 `[num_rows]`: the id of the first file of the group of copies that each row belongs to. `joined`
    has the groups that are kept in one split, likewise: those of copies, joined with those that the user asks for.
    `leaks` names one image of each group that nevertheless lies in several splits. `dropped` are the rows that are left
    out because of their labels, each with the reason, and `notes` are for the user.
    """

    plan: ShardPlan
    groups: np.ndarray
    joined: np.ndarray
    leaks: tuple[str, ...]
    dropped: dict[int, Refusal]
    notes: tuple[str, ...]


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class ConversionJob:
    """The files to convert: row i of `source` becomes example `ids[i]` with label `labels[i]`.

    `listed` is the whole source; `source` may have only those of its files that are new or asked for. `previous` is the
    dataset that is appended to, None for a new one; `version` is the version that is made. `splits` are the names of
    the splits, `split_of` is the first assignment, int8 `[num_rows]`, and `ranks` uint64 `[num_rows, 2]` are random
    numbers; see `draw_ranks`. `keys` are the numbers of the groups that the user asks for, int64 `[num_rows]`, -1 for
    none, and `keys_before` are those of the previous dataset's examples, if any; None without such groups. `times` is
    float64 `[num_rows]`, or None; see `parse_times`. `notes` are for the user. `plan` is the first plan, made from
    names alone; `may_move` says whether an image can change its split after its copies are known. `schema` and
    `tails` are those of the records, see `tfrecords.format.schema`; there are no tails if the schema is the plain one.
    `strata`, int32 `[num_rows]`, are the classes in which the splits have their shares.
    """

    config: ResolvedConfig
    source: Source
    listed: Source
    ids: np.ndarray
    labels: np.ndarray
    strata: np.ndarray
    class_names: tuple[str, ...]
    previous: PreviousVersion | None
    splits: tuple[str, ...]
    split_of: np.ndarray
    ranks: np.ndarray
    version: str
    plan: ShardPlan
    may_move: bool
    schema: Schema = PLAIN
    tails: list[bytes] | None = None
    keys: np.ndarray | None = None
    keys_before: np.ndarray = dataclasses.field(default_factory=lambda: np.empty(0, np.int64))
    times: np.ndarray | None = None
    notes: tuple[str, ...] = ()

    def inputs(self, rows: np.ndarray) -> str:
        """Return a digest of everything that the records of some rows are made of."""
        digest = self.source.digest(rows, self.ids, self.labels)
        if self.tails is None:
            return digest
        tails = hashlib.sha256()
        for row in rows.tolist():
            tails.update(len(self.tails[row]).to_bytes(8, "little") + self.tails[row])
        return digest + tails.hexdigest()

    def final_plan(self, receipt: Receipt) -> FinalPlan:
        """Return the plan that has all copies of an image in one split, and the groups of copies."""
        rows = np.flatnonzero(receipt.positions >= 0)
        ids, splits_before, labels = np.empty(0, np.int64), np.empty(0, np.int8), self.labels[rows]
        names = ("sha256", "pixels_sha256", "phash")
        columns: list[np.ndarray] = [getattr(receipt, name) for name in names]
        tables = columns if len(rows) == len(receipt.positions) else [column[rows] for column in columns]
        if self.previous is not None:
            before = self.previous.manifest.take(np.flatnonzero(self.previous.manifest.ok))
            ids = before.ids
            number = {name: split for split, name in enumerate(self.splits)}
            numbers = np.array([number.get(name, -1) for name in before.split_names], np.int8)
            splits_before = numbers[before.splits]
            labels = np.concatenate((before.labels, labels))
            tables = [np.concatenate((getattr(before, name), new)) for name, new in zip(names, tables, strict=True)]
        num_before = len(ids)

        def path_of(index: int) -> str:
            return before.paths[index] if index < num_before else self._path(int(rows[index - num_before]))

        groups = group_copies(tables[0], tables[1], tables[2], self.config.copies)
        group_ids = self.ids.copy()
        group_ids[rows] = np.concatenate((ids, self.ids[rows]))[groups[num_before:]]
        if self.schema.label_type != "single":  # copies with other labels are no conflicts
            labels = np.zeros_like(labels)
        conflicts = ConflictingRows(groups, labels, self.class_names, path_of)
        refusals = conflicts.refusals(self.config.conflicts)
        dropped = {int(rows[index - num_before]): why for index, why in refusals.items() if index >= num_before}
        if len(rows) and len(dropped) == len(rows) and self.previous is None:
            raise ConversionError(
                f"{self.source.location}: every image has a copy in another class, so that none is left. Correct the "
                "labels, or give --conflicts=keep."
            )
        notes = conflicts.notes(dropped=bool(dropped))
        joined = groups
        if self.keys is not None:
            joined = join_groups(groups, np.concatenate((self.keys_before, self.keys[rows])))
        keep = np.ones(len(groups), bool)
        keep[[num_before + int(np.searchsorted(rows, row)) for row in dropped]] = False
        kept = rows[keep[num_before:]]
        own = joined[num_before:][keep[num_before:]]
        split_of = self.split_of.copy()
        if self.config.fractions:
            split_of[kept], more = self._assign(kept, own)
            notes += more
            of_old = own < num_before  # a copy of an existing example goes to the split of that example
            split_of[kept[of_old]] = splits_before[own[of_old]]
        plan = rebalance(self.plan, split_of, self.ranks[:, 1])
        if dropped:
            plan = without_rows(plan, np.array(list(dropped), np.int64))
        joined_ids = self.ids.copy()
        joined_ids[rows] = np.concatenate((ids, self.ids[rows]))[joined[num_before:]]
        splits = np.concatenate((splits_before, split_of[rows]))
        # Of the rows that are kept, compared with the first of their group that is.
        first, group_of = np.unique(joined[keep], return_index=True, return_inverse=True)[1:]
        torn = np.unique(joined[keep][splits[keep] != splits[keep][first][group_of]]).tolist()
        return FinalPlan(
            plan=plan,
            groups=group_ids,
            joined=joined_ids,
            leaks=tuple(map(path_of, torn)),
            dropped=dropped,
            notes=tuple(notes),
        )

    def _path(self, row: int) -> str:
        return printable(self.source.paths[row])

    def _assign(self, rows: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, list[str]]:
        """Return the splits of some rows, given the number of the group of each, and notes for the user."""
        config = self.config
        try:
            return assign(config, self.source, rows, self.strata, self.ranks, self.times, groups, self.keys is not None)
        except UsageError as error:  # the copies left too few groups
            raise ConversionError(
                f"{error} Copies of one image are never divided; --copies=ignore divides them."
            ) from None


def make_job(config: ResolvedConfig, source: Source, previous: PreviousVersion | None, listed: Source) -> ConversionJob:
    """Return the job of converting `source`, which has all or some files of `listed`, into a new or later version.

    Raises UsageError if the options ask for the source's own splits, and it has none, or some that a dataset cannot
    have.
    """
    num_files = len(source.paths)
    usable = source.usable()
    ids = np.arange(num_files, dtype=np.int64)
    labels = source.labels
    class_names = source.class_names
    if previous is not None:
        ids = _appended_ids(source, previous)
        present = {source.class_names[label] for label in np.unique(source.labels[usable]) if label >= 0}
        if source.values is not None and source.values.label_type == "multi":
            present |= {source.class_names[label] for row in usable for label in source.values.labels[row]}
        added = [name for name in source.class_names if name in present - set(previous.layout.class_names)]
        class_names = (*previous.layout.class_names, *added)
        number = {name: label for label, name in enumerate(class_names)}
        mapping = np.array([*(number.get(name, -1) for name in source.class_names), -1], np.int32)
        labels = mapping[source.labels]

    strata = labels if source.values is None else source.values.strata(labels)
    schema, tails = _tails(source, labels, class_names, previous)
    if config.conflicts != "keep" and schema.label_type != "single":
        raise UsageError(
            f"--conflicts={config.conflicts} compares the classes of copies, and {source.location} has {schema}. Leave "
            "it out."
        )
    offsets = Offsets.of(config.encoding, config.image_size, schema, config.format, config.channels)
    config = dataclasses.replace(config, offsets=offsets)
    ranks = draw_ranks(config.seed, source.paths)
    split_of = np.zeros(num_files, np.int8)
    notes: tuple[str, ...] = ()
    times = keys = None
    keys_before = np.empty(0, np.int64)
    names: list[str] | None = None
    if config.time_column:
        paths = list(map(printable, source.paths))
        times = parse_times(source.times or [], paths, f"--time_column={config.time_column}")
    if config.group_column or config.group_pattern:
        of_path = dict(zip(map(printable, listed.paths), group_names(listed, config.group_pattern) or (), strict=True))
        names = [of_path[printable(path)] for path in source.paths]
        names_before = [] if previous is None else _groups_before(previous, of_path, config)
        number_of = {name: number for number, name in enumerate(dict.fromkeys((*names, *names_before))) if name}
        keys, keys_before = group_codes(names, number_of), group_codes(names_before, number_of)
    # Those of datasets that `simimg edit` has added, and those that have no image, come last.
    further = () if previous is None else (*previous.layout.splits, *previous.manifest.split_names)
    if config.fractions:
        splits = tuple(dict.fromkeys((*config.fractions, *further)))
        if (keys is not None or config.folds) and previous is None and not are_counts(config.fractions):
            used = [names[row] if names else "" for row in usable.tolist()]
            notes = check_groups(used, config.fractions, config.divided_by, what="groups" if names else "images")
        groups = None if keys is None else join_groups(np.arange(len(usable)), keys[usable])
        split_of[usable], _ = assign(config, source, usable, strata, ranks, times, groups, keys is not None)
    elif source.splits is None:
        raise UsageError(
            f"--splits=source: {source.location} has no splits of its own. Give e.g. --splits=train=0.75,test=0.25."
        )
    else:
        before = () if previous is None else tuple(previous.layout.splits)
        there = dict.fromkeys(source.splits[row] for row in usable.tolist())
        ordered = [split for split in source.split_order if split in there]
        splits = tuple(dict.fromkeys((*before, *ordered, *there, *further)))
        try:
            check_splits(splits)
        except UsageError as error:
            raise UsageError(
                f"--splits=source: {source.location}: {error} Change it there, or divide the files anew, e.g. with "
                "--splits=train=0.75,test=0.25."
            ) from None
        number = {name: split for split, name in enumerate(splits)}
        split_of[usable] = [number[source.splits[row]] for row in usable.tolist()]
    num_before = {} if previous is None else {split: len(infos) for split, infos in previous.layout.splits.items()}
    plan = make_plan(
        config.name,
        usable,
        split_of,
        ranks[:, 1],
        splits=splits,
        image_size=config.image_size,
        encoding=config.encoding,
        sizes=source.sizes,
        num_before=num_before,
        file_format=config.format,
        channels=config.channels,
    )
    return ConversionJob(
        config=config,
        source=source,
        listed=listed,
        ids=ids,
        labels=labels,
        strata=strata,
        class_names=class_names,
        previous=previous,
        splits=splits,
        split_of=split_of,
        ranks=ranks,
        version=VERSION if previous is None else next_version(previous.layout.version),
        plan=plan,
        may_move=config.copies != "ignore" and len(config.fractions) > 1,
        schema=schema,
        tails=tails,
        keys=keys,
        keys_before=keys_before,
        times=times,
        notes=notes,
    )


def versions_of(config: ConvertConfig) -> dict[str, str]:
    """Return the versions of the libraries that decide the bytes of a dataset with these options."""
    versions = dict(decoder_versions())
    if config.format == ARRAY_RECORD:
        versions["array-record"] = installed_version("array-record") or "unknown"
    return versions


def _tails(
    source: Source, labels: np.ndarray, class_names: tuple[str, ...], previous: PreviousVersion | None
) -> tuple[Schema, list[bytes] | None]:
    """Return the schema, and the tail of each record unless that is the plain one.

    Raises:
        UsageError: the values do not fit into the records of the previous version.
    """
    schema = source.values.schema() if source.values is not None else PLAIN
    if previous is not None:
        there, size = previous.layout.schema, schema.label_size
        if there.label_type == "multi" and size <= there.label_size:
            schema = dataclasses.replace(schema, label_size=there.label_size)
        if schema != there:
            what = f"up to {size} labels per image, and the dataset up to {there.label_size}"
            if schema.features != there.features:
                what = f"the features {', '.join(map(str, schema.features))}, and the dataset others"
                what += f": {', '.join(map(str, there.features))}" if there.features else ""
            raise UsageError(
                f"--append: {source.location} has {what}, so its records have another form than those of "
                f"{previous.folder}. Convert all files under another --name."
            )
    if schema.is_plain or source.values is None:
        return schema, None
    number = {name: label for label, name in enumerate(class_names)}
    # A class that no usable file has is not in the dataset; only rejected files can have it.
    mapping = np.array([number.get(name, 0) for name in source.class_names], np.int64)
    return schema, source.values.tails(schema, labels, mapping)


def _groups_before(previous: PreviousVersion, of_path: Mapping[str, str], config: ResolvedConfig) -> list[str]:
    """Return the names of the groups of the previous dataset's examples; `of_path` has those of the whole source."""
    paths = [previous.manifest.paths[row] for row in np.flatnonzero(previous.manifest.ok).tolist()]
    gone = [path for path in paths if path not in of_path]
    if gone and config.group_column:
        raise UsageError(
            f"--append: {len(gone):,} images of the dataset are not in the table any more, e.g. {gone[0]}, so that it "
            f"is not known which new images belong to them (--group_column={config.group_column}). Put their rows back."
        )
    return [of_path[path] if path in of_path else group_of_path(path, config.group_pattern) for path in paths]


def assign(
    config: ResolvedConfig,
    source: Source,
    rows: np.ndarray,
    labels: np.ndarray,
    ranks: np.ndarray,
    times: np.ndarray | None,
    groups: np.ndarray | None,
    by_groups: bool,
) -> tuple[np.ndarray, list[str]]:
    """Return the splits of some rows of the source, int8 `[num_rows]`, and notes for the user.

    `labels`, `ranks` and `times` are those of all rows, `groups` those of `rows`, None before any copies are known.
    `by_groups` says whether groups are more than copies. Raises UsageError if a split would be empty.
    """
    if (labels < 0).any():  # images without any label are a class, too
        labels = np.where(labels < 0, labels.max(initial=0) + 1, labels)
    if times is None and not are_counts(config.fractions) and not by_groups and not config.folds:
        return assign_splits(labels[rows], ranks[rows, 0], config.fractions, groups), []
    if groups is None:
        groups = np.arange(len(rows))
    if times is not None:
        flag = f"--time_column={config.time_column}"
        splits, tied = assign_by_time(times[rows], groups, config.fractions, flag)
        cells, paths = ([column[row] for row in rows.tolist()] for column in (source.times or [], source.paths))
        return splits, time_notes(times[rows], cells, paths, splits, tuple(config.fractions), tied, flag)
    if are_counts(config.fractions):
        return assign_counts(labels[rows], ranks[rows, 0], config.fractions, groups, source.class_names), []
    if (count := len(np.unique(groups))) < len(config.fractions) and not config.append:
        raise too_few_groups(count, config.fractions, config.divided_by, "groups")
    return assign_groups(labels[rows], ranks[rows, 0], config.fractions, groups), []


def _appended_ids(source: Source, previous: PreviousVersion) -> np.ndarray:
    """Return ids that continue after the dataset's last one; a file that was rejected before keeps its id."""
    manifest = previous.manifest
    refused = {manifest.paths[i]: int(manifest.ids[i]) for i in np.flatnonzero(~manifest.ok)}
    following = int(manifest.ids.max()) + 1 if len(manifest) else 0
    ids = np.empty(len(source.paths), np.int64)
    for row, path in enumerate(source.paths):
        known = refused.get(printable(path))
        ids[row] = following if known is None else known
        following += known is None
    return ids
