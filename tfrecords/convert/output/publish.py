"""Puts a finished data set together: links to its shards, manifest, layout and the other files; then its name."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path

from tfrecords.base_errors import DataError
from tfrecords.convert.image.decoder import decoder_versions
from tfrecords.convert.output.reshard import link_or_copy
from tfrecords.convert.output.summary import refused_files
from tfrecords.convert.plan.conversion_job import ConversionJob, FinalPlan
from tfrecords.convert.plan.previous_version import PreviousVersion
from tfrecords.convert.plan.shard_plan import ShardPlan
from tfrecords.convert.state.receipts import Receipt
from tfrecords.convert.state.workdir import WorkDir
from tfrecords.format.atomic_files import file_sha256
from tfrecords.format.layout import LAYOUT_FILE, Layout, Offsets, ShardInfo, raw_offsets
from tfrecords.format.manifest import Manifest, write_manifest
from tfrecords.format.naming import shard_name
from tfrecords.format.quarantine import write_quarantine
from tfrecords.format.tfds_metadata import write_metadata

__all__ = ["publish", "write_tables"]


def write_tables(job: ConversionJob, manifest: Manifest, receipt: Receipt, target: WorkDir) -> None:
    """Writes the manifest and the quarantine list, for which no shard needs to be there."""
    write_manifest(target.dataset, manifest)
    write_quarantine(target.dataset, refused_files(job, manifest, receipt))


def publish(
    job: ConversionJob,
    settled: FinalPlan,
    version: str,
    shards: Mapping[str, tuple[Path, ShardInfo]],
    manifest: Manifest,
    target: WorkDir,
) -> Layout:
    """Puts the data set together in its working folder, where `write_tables` was before, and gives it its name.

    Args:
        job: what was converted.
        settled: which shards there are, besides those of the data set that is added to.
        version: of the data set, e.g. "1.1.0".
        shards: by file name, where each of the settled plan's shards lies, and what it is.
        manifest: what became of each file.
        target: where.

    Raises:
        DataError: a shard of the data set that is added to is not there, or not whole.
        OSError: something cannot be written; nothing has the final name then.
    """
    splits: dict[str, list[ShardInfo]] = {split: [] for split in job.splits}
    if job.existing is not None:
        _link_existing(job.existing, settled.plan, splits, target.dataset)
    for planned in settled.plan.shards:
        shard, info = shards[planned.file]
        link_or_copy(shard, target.dataset / planned.file)
        splits[planned.split].append(info)

    layout = Layout(
        name=job.config.name,
        version=version,
        encoding=job.config.encoding,
        image_size=job.config.image_size,
        class_names=job.class_names,
        offsets=raw_offsets(job.config.image_size) if job.config.encoding == "raw" else Offsets(),
        splits={split: tuple(infos) for split, infos in splits.items() if infos},
        config=job.config.determining(),
        source_sha256=job.made_from(manifest).sha256(),
        versions=decoder_versions(),
        files={},
    )
    write_metadata(target.dataset, layout)
    names = {info.file for infos in splits.values() for info in infos}
    files = {p.name: file_sha256(p) for p in sorted(target.dataset.iterdir()) if p.name not in names}
    layout = dataclasses.replace(layout, files=files)
    layout.save(target.dataset)
    began_ns = target.began_ns()  # what was touched since may not be what was converted; see `existing`
    os.utime(target.dataset / LAYOUT_FILE, ns=(began_ns, began_ns))
    target.publish()
    return layout


def _link_existing(
    existing: PreviousVersion, plan: ShardPlan, splits: dict[str, list[ShardInfo]], folder: Path
) -> None:
    """Gives the shards of the data set that is added to the names that they have among the new ones."""
    for split, infos in existing.layout.splits.items():
        num_shards = len(infos) + sum(planned.split == split for planned in plan.shards)
        for number, info in enumerate(infos):
            file = shard_name(existing.layout.name, split, number, num_shards)
            shard = existing.folder / info.file
            if not shard.is_file() or shard.stat().st_size != info.num_bytes:
                raise DataError(f"{shard} is missing or damaged; nothing was added. Convert the pictures again.")
            link_or_copy(shard, folder / file)
            splits[split].append(dataclasses.replace(info, file=file))
