"""Makes a new version of a dataset: examples deleted, labeled anew, or added from other datasets.

1. The lists of changes are read, and the datasets to be added are checked. Whatever is wrong is reported now.
2. The new manifest is made: deleted examples become rejected files with the reason `deleted`, and added datasets get
   ids after the last one, so that no id ever changes or means something else.
3. Shards without a change are shared with the old version, by hard links or as copies. The others are written again
   from their records, whose images keep their bytes.
4. The folder gets its name. Until then it lies in the working folder of `tfrecords.convert.state.workdir`, so a version
   is complete or absent.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np

from tfrecords.base_errors import ConversionError, DataError, Interrupted, UsageError
from tfrecords.convert.output.reshard import complete_indices, link_shard
from tfrecords.convert.state.workdir import WorkDir
from tfrecords.edit.change_list import Changes, read_deletions, read_labels
from tfrecords.edit.merging import Added, add_datasets
from tfrecords.edit.record_copy import RecordPlaces, write_records
from tfrecords.format.dataset_images import label_pairs
from tfrecords.format.layout import Layout, ShardInfo, checksums
from tfrecords.format.manifest import Manifest, named_classes, read_manifest, write_manifest
from tfrecords.format.naming import LAYOUT_FILE, QUARANTINE_FILE, TFRECORD, next_version, shard_name, versions
from tfrecords.format.quarantine import Reason, RefusedFile, read_quarantine, write_quarantine
from tfrecords.format.tfds_metadata import write_metadata
from tfrecords.options import option

OnProgress: TypeAlias = Callable[[int, int], object]


@dataclasses.dataclass(frozen=True, kw_only=True)
class EditConfig:
    """The options of an edit."""

    dataset_dir: Path | None = option(
        "Dataset folder, DATA_DIR/NAME/VERSION, the newest version; with --merge by default the first one named there.",
        None,
        url=True,
    )
    delete: Path | None = option("CSV file with the ids or paths of examples to delete.", None)
    relabel: Path | None = option("CSV file with ids or paths of examples and their new labels.", None)
    merge: tuple[str, ...] = option("Dataset folders whose examples are added.", ())
    reason: str = option("Why, for the manifest; a column `reason` in the CSV file says it for each example.", "")
    add_classes: tuple[str, ...] = option("New classes, which --relabel may then use.", ())

    def check(self) -> None:
        """Raise UsageError if none of the options asks for a change, or one needs another one."""
        if not (self.delete or self.relabel or self.merge):
            raise UsageError("nothing to change. Give --delete=IDS.csv, --relabel=LABELS.csv or --merge=DATASET_DIR.")
        if self.dataset_dir is None and len(self.merge) < 2:
            raise UsageError("--dataset_dir is missing. Name the dataset folder, DATA_DIR/NAME/VERSION.")
        if self.add_classes and not self.relabel:
            raise UsageError(f"--add_classes={','.join(self.add_classes)} needs --relabel.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class EditSummary:
    """Result of an edit: the new version, what changed, and notes for the user."""

    dataset_dir: Path
    num_examples: int
    splits: dict[str, int]
    num_deleted: int
    num_relabeled: int
    num_added: int
    num_shards_shared: int
    num_shards_written: int
    notes: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _NewShard:
    """A shard of the new version: the rows of the new manifest in it, and the old shard if it is shared."""

    split: str
    rows: np.ndarray
    shared: ShardInfo | None


def edit(config: EditConfig, *, progress: OnProgress = lambda done, total: None) -> EditSummary:
    """Make a new version beside the one in `config`; `progress` is called with the records written and their number.

    Deleting or relabeling makes version 2.0.0 after 1.3.0, and adding alone 1.4.0, by the rule of TFDS.

    Raises:
        UsageError: a list or a dataset cannot be used, or the dataset has a newer version; nothing was written.
        DataError: a dataset is damaged; nothing was changed.
        ConversionError: the new version cannot be written; nothing was changed.
        Interrupted: Ctrl-C; nothing was changed.
    """
    config.check()
    folders = [*([] if config.dataset_dir is None else [config.dataset_dir]), *map(Path, config.merge)]
    base, *others = (_checked(folder) for folder in folders)
    old, before = Layout.load(base), read_manifest(base)
    if config.relabel is not None and old.schema.label_type != "single":
        raise UsageError(
            f"--relabel={config.relabel}: the examples of {base} do not have one class each. Correct the table that it "
            "was made from, and convert it again."
        )
    deleted = None if config.delete is None else read_deletions(config.delete, before)
    class_names = (*old.class_names, *_new_classes(config.add_classes, old.class_names))
    relabeled = None if config.relabel is None else _differing(config, before, class_names)
    _check_disjoint(config, before, deleted, relabeled)
    version = next_version(old.version, changes=bool(config.delete or config.relabel))
    final = _new_folder(base, old, version)
    changed = _changed(config, old, before, deleted, relabeled, version, class_names)
    described = dataclasses.replace(old, class_names=class_names)
    added = add_datasets(changed, described, others, version, config.reason)
    manifest, places = added.manifest, RecordPlaces.of([(base, old, before), *added.datasets], added.recoders)
    old_labels = np.concatenate([before.labels, *(part.labels for _, _, part in added.datasets)])
    rewritten = np.concatenate((manifest.labels[: len(before)] != before.labels, np.ones(added.num_rows, bool)))
    shards = _planned(old, before, manifest, rewritten)
    if not shards:
        raise UsageError(f"--delete={config.delete} names all examples of {base}. A dataset needs one.")
    _place(manifest, shards)

    workdir = WorkDir(final)
    try:
        with workdir.locked():
            if (workdir.work / "plan.json").exists():
                raise UsageError(
                    f"{workdir.work} is an unfinished conversion. Give its command again, or remove that folder."
                )
            try:
                workdir.clear_dataset()
                splits = _write_shards(workdir.dataset, base, old, manifest, old_labels, shards, places, progress)
                layout = dataclasses.replace(
                    old, version=version, class_names=added.class_names, splits=splits, files={}
                )
                _write_rest(workdir.dataset, base, layout, manifest, [base, *others], added)
                emptied = _emptied((base, old, before), (workdir.dataset, layout, manifest))
                workdir.publish()
            except BaseException:
                workdir.remove_work()
                raise
    except KeyboardInterrupt:
        raise Interrupted("interrupted; nothing was changed.") from None
    except OSError as error:
        where = os.fsdecode(error.filename) if error.filename else str(final)
        raise ConversionError(
            f"{where} cannot be written: {error.strerror or error}. Nothing was changed. Make room or make the folder "
            "writable, and give the same command again."
        ) from None
    num_shared = sum(shard.shared is not None for shard in shards)
    return EditSummary(
        dataset_dir=final,
        num_examples=int(manifest.ok.sum()),
        splits={split: layout.num_examples(split) for split in layout.splits},
        num_deleted=0 if deleted is None else len(deleted.rows),
        num_relabeled=0 if relabeled is None else len(relabeled.rows),
        num_added=int(added.manifest.ok[len(before) :].sum()),
        num_shards_shared=num_shared,
        num_shards_written=len(shards) - num_shared,
        notes=(*emptied, *added.notes),
    )


def _checked(folder: Path) -> Path:
    folder = folder.expanduser()
    Layout.demand(folder)
    if (form := Layout.load(folder).file_format) != TFRECORD:
        raise UsageError(
            f"{folder} is stored as {form}, and only TFRecord shards can be edited. Convert it as TFRecord."
        )
    return folder


def _new_classes(names: Sequence[str], there: Sequence[str]) -> list[str]:
    for name in names:
        if name in there:
            raise UsageError(f"--add_classes={name}: the dataset has this class already.")
        if not name.strip() or not name.isprintable():
            raise UsageError(f"--add_classes: {name!r} should not be blank or have a line break.")
    return list(dict.fromkeys(names))


def _differing(config: EditConfig, manifest: Manifest, class_names: Sequence[str]) -> Changes:
    """Return the changes of --relabel that change something."""
    assert config.relabel is not None
    found = read_labels(config.relabel, manifest, class_names)
    keep = found.labels != manifest.labels[found.rows]
    if not keep.any() and not (config.delete or config.merge):
        raise UsageError(f"--relabel={config.relabel} changes nothing: its examples have these labels already.")
    places = np.flatnonzero(keep)
    reasons = [found.reasons[place] for place in places.tolist()]
    return Changes(rows=found.rows[places], labels=found.labels[places], reasons=reasons)


def _check_disjoint(config: EditConfig, manifest: Manifest, deleted: Changes | None, relabeled: Changes | None) -> None:
    if deleted is not None and relabeled is not None:
        both = np.intersect1d(deleted.rows, relabeled.rows)
        if len(both):
            raise UsageError(
                f"--relabel={config.relabel} and --delete={config.delete} both name id {manifest.ids[both[0]]}, "
                f"{manifest.paths[both[0]]}. Take it out of one of them."
            )


def _new_folder(base: Path, layout: Layout, version: str) -> Path:
    """Return the folder of the new version, beside the old one; raise UsageError if the old one is not the newest."""
    parent = Path(os.path.abspath(base)).parent
    there = versions(parent.parent, parent.name)
    newer = there[there.index(parent / layout.version) + 1 :] if parent / layout.version in there else []
    if newer:
        raise UsageError(
            f"{base} has a newer version, {newer[-1]}. Edit that one, because the next version is made from it; or "
            "remove it."
        )
    final = (base.parent if base.name else parent) / version
    if os.path.lexists(final):
        raise UsageError(f"{final} is there already, and the new version should get this name. Move it away.")
    return final


def _changed(
    config: EditConfig,
    layout: Layout,
    manifest: Manifest,
    deleted: Changes | None,
    relabeled: Changes | None,
    version: str,
    class_names: Sequence[str],
) -> Manifest:
    """Return the manifest after deletions and new labels; the places of the examples are still the old ones."""
    labels, splits, reasons = manifest.labels.copy(), manifest.splits.copy(), manifest.reasons.copy()
    shards, positions, folds = manifest.shards.copy(), manifest.positions.copy(), manifest.folds.copy()
    edits = list(manifest.edits) or [""] * len(manifest)
    reason_names = manifest.reason_names
    if relabeled is not None:
        for row, label, why in zip(relabeled.rows.tolist(), relabeled.labels.tolist(), relabeled.reasons, strict=True):
            what = f"{version}: label {layout.class_names[labels[row]]} -> {class_names[label]}"
            edits[row] = _joined(edits[row], what, why or config.reason)
            labels[row] = label
    if deleted is not None:
        reason_names = tuple(dict.fromkeys((*reason_names, Reason.DELETED.value)))
        rows = deleted.rows
        reasons[rows] = reason_names.index(Reason.DELETED)
        splits[rows], shards[rows], positions[rows], folds[rows] = -1, -1, -1, 0
        for row, why in zip(rows.tolist(), deleted.reasons, strict=True):
            edits[row] = _joined(edits[row], f"{version}: deleted", why or config.reason)
    return dataclasses.replace(
        manifest,
        labels=labels,
        splits=splits,
        shards=shards,
        positions=positions,
        folds=folds,
        reasons=reasons,
        reason_names=reason_names,
        edits=edits,
    )


def _joined(before: str, what: str, why: str) -> str:
    """Return the text of the column `edit`: earlier edits of the file first."""
    return " | ".join(filter(None, (before, f"{what}; {why}" if why else what)))


def _planned(old: Layout, before: Manifest, manifest: Manifest, rewritten: np.ndarray) -> list[_NewShard]:
    """Return the shards of the new version, in order.

    First come those of the old version without what was deleted, then those of each added dataset in its own order.
    `rewritten`, bool `[num_rows]`, tells whose records have another id or label.
    """
    rows = np.flatnonzero(manifest.ok)
    order = rows[np.lexsort((manifest.positions[rows], manifest.shards[rows], rows >= len(before)))]
    planned = []
    for number, split in enumerate(manifest.split_names):
        members = order[manifest.splits[order] == number]
        # Shards of added datasets are numbered after those of the old version.
        _, starts = np.unique(manifest.shards[members], return_index=True)
        for part in np.split(members, np.sort(starts)[1:]):
            if not len(part):
                continue
            infos = old.splits.get(split, ())
            shard = int(manifest.shards[part[0]])
            is_whole = shard < len(infos) and len(part) == infos[shard].num_examples and not rewritten[part].any()
            planned.append(_NewShard(split=split, rows=part, shared=infos[shard] if is_whole else None))
    return planned


def _place(manifest: Manifest, shards: Sequence[_NewShard]) -> None:
    """Enter the new shards and positions into the new manifest, whose columns are its own."""
    numbers: dict[str, int] = {}
    for shard in shards:
        number = numbers[shard.split] = numbers.get(shard.split, -1) + 1
        manifest.shards[shard.rows] = number
        manifest.positions[shard.rows] = np.arange(len(shard.rows))


def _write_shards(
    folder: Path,
    base: Path,
    old: Layout,
    manifest: Manifest,
    old_labels: np.ndarray,
    shards: Sequence[_NewShard],
    places: RecordPlaces,
    progress: OnProgress,
) -> dict[str, tuple[ShardInfo, ...]]:
    """Write or link the shards; return them by split."""
    counts = {name: sum(shard.split == name for shard in shards) for name in manifest.split_names}
    splits: dict[str, list[ShardInfo]] = {name: [] for name in manifest.split_names}
    total, done = sum(len(shard.rows) for shard in shards if shard.shared is None), 0
    progress(done, total)
    for shard in shards:
        infos = splits[shard.split]
        target = folder / shard_name(old.name, shard.split, len(infos), counts[shard.split])
        if shard.shared is not None:
            infos.append(link_shard(base, shard.shared, target))
            continue
        infos.append(write_records(target, shard.rows, places, manifest, old_labels))
        done += len(shard.rows)
        progress(done, total)
    return {split: tuple(infos) for split, infos in splits.items() if infos}


def _write_rest(
    folder: Path, base: Path, layout: Layout, manifest: Manifest, folders: Sequence[Path], added: Added
) -> None:
    """Write manifest, quarantine list, metadata and layout."""
    shard_files = {split: [info.file for info in infos] for split, infos in layout.splits.items()}
    write_manifest(folder, manifest, named_classes(layout.schema, layout.class_names), shard_files)
    details: dict[str, RefusedFile] = {}
    for number, source in enumerate(folders):
        for file in read_quarantine(source):
            path = added.new_paths[number - 1].get(file.path, file.path) if number else file.path
            details[path] = dataclasses.replace(file, path=path)
    refused = []
    for row in np.flatnonzero(~manifest.ok).tolist():
        path, reason = manifest.paths[row], manifest.reason_names[manifest.reasons[row]]
        if path not in details and reason != Reason.DELETED:
            raise DataError(f"{base / QUARANTINE_FILE} lacks {path}. Run `simimg verify`.")
        detail = manifest.edits[row] if path not in details else details[path].detail
        refused.append(RefusedFile(path=path, reason=reason, detail=detail))
    write_quarantine(folder, refused)
    write_metadata(folder, layout)
    complete_indices(folder, layout)
    names = {info.file for infos in layout.splits.values() for info in infos}
    dataclasses.replace(layout, files=checksums(folder, names)).save(folder)
    began_ns = (base / LAYOUT_FILE).stat().st_mtime_ns  # see PreviousVersion
    os.utime(folder / LAYOUT_FILE, ns=(began_ns, began_ns))


def _emptied(old: tuple[Path, Layout, Manifest], new: tuple[Path, Layout, Manifest]) -> list[str]:
    """Return notes about classes and splits of the old version that have no examples in the new one."""
    layout = new[1]
    had, has = (np.bincount(label_pairs(*each)[1], minlength=len(layout.class_names)) for each in (old, new))
    names = [layout.class_names[label] for label in np.flatnonzero((had > 0) & (has == 0)).tolist()]
    notes = [f"class {name!r} has no examples any more; it keeps its label" for name in names[:3]]
    notes += [f"so have {len(names) - 3:,} more classes"] if len(names) > 3 else []
    notes += [f"split {name!r} has no examples any more" for name in old[1].splits.keys() - layout.splits.keys()]
    return notes
