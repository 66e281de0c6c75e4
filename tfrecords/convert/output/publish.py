"""Completes a dataset: manifest, quarantine list, links to the shards, layout and metadata; then its final name."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tfrecords.base_errors import as_named
from tfrecords.convert.output.reshard import complete_indices, link_or_copy, link_shard
from tfrecords.convert.plan.conversion_job import ConversionJob, FinalPlan, versions_of
from tfrecords.convert.plan.convert_config import ConvertConfig
from tfrecords.convert.plan.previous_version import PreviousVersion
from tfrecords.convert.plan.shard_plan import ShardPlan
from tfrecords.convert.sources import Source, printable
from tfrecords.convert.sources.read_errors import redacted
from tfrecords.convert.state.receipts import Receipt
from tfrecords.convert.state.workdir import WorkDir
from tfrecords.format.layout import Layout, ShardInfo, checksums
from tfrecords.format.manifest import Manifest, named_classes, write_manifest
from tfrecords.format.naming import LAYOUT_FILE, shard_name
from tfrecords.format.quarantine import Reason, read_quarantine, write_quarantine
from tfrecords.format.tfds_metadata import write_metadata

# Those of a conversion, without the one that only --conflicts=drop has, so that other datasets keep their bytes, and
# without the one of `simimg edit`.
_REASONS = tuple(reason.value for reason in Reason if reason not in (Reason.LABEL_CONFLICT, Reason.DELETED))


def write_tables(job: ConversionJob, final: FinalPlan, receipt: Receipt, workdir: WorkDir) -> Manifest:
    """Write the manifest, which is returned, and the quarantine list; neither needs the shards."""
    manifest = _make_manifest(job, final, receipt)
    write_manifest(workdir.dataset, manifest, named_classes(job.schema, job.class_names), _shard_files(job, final.plan))
    before = [] if job.previous is None else read_quarantine(job.previous.folder)
    details = {file.path: file for file in (*before, *receipt.refused_files(job.source.paths))}
    write_quarantine(workdir.dataset, [details[manifest.paths[index]] for index in np.flatnonzero(~manifest.ok)])
    return manifest


def publish(
    job: ConversionJob,
    final: ShardPlan,
    shards: Mapping[str, tuple[Path, ShardInfo]],
    manifest: Manifest,
    workdir: WorkDir,
) -> Layout:
    """Complete the dataset in the working folder, after `write_tables`, and give it its final name.

    `final` has the new shards, besides those of the previous version; `shards` has the path and the content of each of
    them, by file name.

    Raises:
        DataError: a shard of the previous version is missing or incomplete.
        OSError: something cannot be written; nothing has the final name then.
    """
    splits: dict[str, list[ShardInfo]] = {split: [] for split in job.splits}
    if job.previous is not None:
        _link_previous(job.previous, final, splits, workdir.dataset)
    for planned in final.shards:
        shard, info = shards[planned.file]
        link_or_copy(shard, workdir.dataset / planned.file)
        splits[planned.split].append(info)

    layout = Layout(
        name=job.config.name,
        version=job.version,
        encoding=job.config.encoding,
        image_size=job.config.image_size,
        class_names=job.class_names,
        offsets=job.config.offsets,
        splits={split: tuple(infos) for split, infos in splits.items() if infos},
        config=job.config.recorded,
        source_sha256=_made_from(job, manifest).sha256(),
        versions=versions_of(job.config),
        files={},
        schema=job.schema,
        file_format=job.config.format,
        source=_named_source(job.config),
    )
    complete_indices(workdir.dataset, layout)
    write_metadata(workdir.dataset, layout)
    names = {info.file for infos in splits.values() for info in infos}
    layout = dataclasses.replace(layout, files=checksums(workdir.dataset, names))
    layout.save(workdir.dataset)
    began_ns = workdir.began_ns()  # a file without a stamp that changed since then may differ; see PreviousVersion
    os.utime(workdir.dataset / LAYOUT_FILE, ns=(began_ns, began_ns))
    workdir.publish()
    return layout


def _shard_files(job: ConversionJob, final: ShardPlan) -> dict[str, list[str]]:
    """Return the names of the shards of each split, in their order, including those of the previous version."""
    files: dict[str, list[str]] = {split: [] for split in job.splits}
    if job.previous is not None:
        files |= _names_of_previous(job.previous, final)
    for planned in final.shards:
        files[planned.split].append(planned.file)
    return files


def _named_source(config: ConvertConfig) -> dict[str, str]:
    """Return the flags that name the source, as they were given."""
    named = {"image_dir": config.image_dir, "table": config.table, "from": config.from_dataset}
    return {flag: as_named(printable(redacted(value))) for flag, value in named.items() if value}


def _make_manifest(job: ConversionJob, final: FinalPlan, receipt: Receipt) -> Manifest:
    """Return one row per file, sorted by id, including the rows of the previous version."""
    num_rows = len(job.source.paths)
    shards = np.full(num_rows, -1, np.int32)
    positions = np.full(num_rows, -1, np.int64)
    splits = np.full(num_rows, -1, np.int8)
    for planned in final.plan.shards:
        rows = planned.rows[receipt.positions[planned.rows] >= 0]
        shards[rows] = planned.shard
        positions[rows] = np.arange(len(rows))
        splits[rows] = job.splits.index(planned.split)
    reason_names = (*_REASONS, Reason.LABEL_CONFLICT.value) if job.config.conflicts == "drop" else _REASONS
    if job.previous is not None:
        reason_names = tuple(dict.fromkeys((*reason_names, *job.previous.manifest.reason_names)))
    reasons = np.full(num_rows, -1, np.int8)
    for row, refusal in receipt.refused.items():
        reasons[row] = reason_names.index(refusal.reason.value)
    optional: dict[str, Any] = {}
    if job.keys is not None:
        optional["split_groups"] = final.joined
    if job.config.folds:
        optional["folds"] = splits + np.int8(1)  # of no split, -1, it is 0
    new = Manifest(
        ids=job.ids,
        paths=[path if path.isascii() else printable(path) for path in job.source.paths],
        sha256=receipt.sha256,
        pixels_sha256=receipt.pixels_sha256,
        phash=receipt.phash,
        widths=receipt.widths,
        heights=receipt.heights,
        labels=np.asarray(job.labels, np.int32),
        split_names=job.splits,
        splits=splits,
        shards=shards,
        positions=positions,
        groups=final.groups,
        reason_names=reason_names,
        reasons=reasons,
        stamps=job.source.stamps,
        **optional,
    )
    return new if job.previous is None else _merged(job.previous.manifest, new)


def _made_from(job: ConversionJob, manifest: Manifest) -> Source:
    """Return the part of the whole source whose files are in the finished dataset's manifest."""
    if job.previous is None:
        return job.source
    known = set(manifest.paths)
    rows = [row for row, path in enumerate(job.listed.paths) if printable(path) in known]
    return job.listed.select(np.array(rows, np.int64))


def _merged(old: Manifest, new: Manifest) -> Manifest:
    """Return the rows of both, sorted by id; a new row replaces an old one with the same id."""
    both = old.take(np.flatnonzero(~np.isin(old.ids, new.ids))).concat(new)
    return both.take(np.argsort(both.ids, kind="stable"))


def _link_previous(
    previous: PreviousVersion, final: ShardPlan, splits: dict[str, list[ShardInfo]], folder: Path
) -> None:
    """Link the previous version's shards under the names that they get among the new ones."""
    names = _names_of_previous(previous, final)
    for split, infos in previous.layout.splits.items():
        splits[split] += (
            link_shard(previous.folder, info, folder / file) for info, file in zip(infos, names[split], strict=True)
        )


def _names_of_previous(previous: PreviousVersion, final: ShardPlan) -> dict[str, list[str]]:
    layout = previous.layout
    counts = {split: len(infos) for split, infos in layout.splits.items()}
    num_shards = {
        split: count + sum(planned.split == split for planned in final.shards) for split, count in counts.items()
    }
    return {
        split: [
            shard_name(layout.name, split, number, num_shards[split], layout.file_format) for number in range(count)
        ]
        for split, count in counts.items()
    }
