"""Adds the examples of other datasets to the manifest of one.

Classes are joined by their names. Ids continue after the last one, so every added record is written again. A copy of an
image that is there already goes to the split of that image, as in `simimg convert --append`; other images keep their
split. Paths that both datasets have get the name of the added dataset in front.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tfrecords.base_errors import UsageError
from tfrecords.convert.image.near_duplicates import group_copies
from tfrecords.convert.state.workdir import differing_options
from tfrecords.edit.record_copy import Recoder, recoder
from tfrecords.format.dataset_images import label_pairs
from tfrecords.format.layout import Layout
from tfrecords.format.manifest import Manifest, read_manifest
from tfrecords.format.naming import check_splits
from tfrecords.format.record_layout import INT_BYTES

_OF_PIXELS = ("resize", "decode", "truncated", "background", "range", "max_pixels", "jpeg_quality")  # options
_MAX_SHARDS_PER_DATASET = 1 << 20


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Added:
    """A manifest with the rows of the added datasets after its own.

    Attributes:
        manifest: its `shards` are numbers by which the examples of a split can be put into shards: those of the added
            datasets come after its own, and copies that changed their split after these.
        class_names: of all datasets.
        datasets: folder, layout and own manifest of each added dataset.
        recoders: for each added dataset, what makes its records those of the first one, or None.
        new_paths: for each added dataset, the new path of each file that got another one.
        notes: for the user.
    """

    manifest: Manifest
    class_names: tuple[str, ...]
    datasets: list[tuple[Path, Layout, Manifest]]
    recoders: list[Recoder | None]
    new_paths: list[dict[str, str]]
    notes: tuple[str, ...]

    @property
    def num_rows(self) -> int:
        """The number of rows that were added."""
        return sum(len(manifest) for _, _, manifest in self.datasets)


def add_datasets(manifest: Manifest, layout: Layout, folders: Sequence[Path], version: str, reason: str) -> Added:
    """Return `manifest`, whose dataset is described by `layout`, with the rows of the datasets in `folders`.

    `version` and `reason` are for the column `edit` of the added rows.

    Raises:
        UsageError: a dataset has images of another size or encoding, or examples of another form.
        DataError: a dataset is damaged.
    """
    notes: list[str] = []
    new_paths: list[dict[str, str]] = []
    datasets = []
    recoders: list[Recoder | None] = []
    class_names = list(layout.class_names)
    num_own = len(manifest)
    for number, folder in enumerate(folders):
        other, part = Layout.load(folder), read_manifest(folder)
        _check_alike(folder, other, layout)
        notes += _different_pixels(folder, other, layout)
        new = [name for name in other.class_names if name not in class_names]
        if new:
            shown = ", ".join(new[:3]) + (", …" if len(new) > 3 else "")
            notes.append(f"{folder} adds {len(new):,} {'class' if len(new) == 1 else 'classes'}: {shown}")
        class_names += new
        renamed = _renamed(part.paths, set(manifest.paths), other)
        if renamed:
            old, path = next(iter(renamed.items()))
            notes.append(f"{len(renamed):,} paths of {folder} are there already, and became e.g. {path} for {old}")
        if manifest.folds.any() or part.folds.any():
            raise UsageError(f"--merge={folder}: datasets with folds cannot be merged. Convert all files with --folds.")
        first = int(manifest.ids.max(initial=-1)) + 1
        if first + len(part) >= 1 << 7 * INT_BYTES:
            raise UsageError(f"--merge={folder}: there are no ids left for its {len(part):,} files.")
        what = f"{version}: merged from {other.name} {other.version}" + (f"; {reason}" if reason else "")
        numbers = [class_names.index(name) for name in other.class_names]
        mapping = np.array([*numbers, -1], np.int32)
        labels = mapping[part.labels]
        recode = None
        is_same = other.schema == layout.schema and numbers == list(range(len(numbers)))
        if layout.schema.label_type == "multi" and not is_same:
            labels = _first_labels(folder, other, part, mapping)
            recode = recoder(other.schema, layout.schema, numbers)
        recoders.append(recode)
        moved = dataclasses.replace(
            part,
            ids=np.arange(first, first + len(part), dtype=np.int64),
            groups=np.arange(first, first + len(part), dtype=np.int64),
            paths=[renamed.get(path, path) for path in part.paths],
            labels=labels,
            shards=np.where(
                part.ok, part.shards + np.int32(_MAX_SHARDS_PER_DATASET * (number + 1)), np.int32(-1)
            ).astype(np.int32),
            stamps=np.zeros(len(part), np.int64),
            edits=[" | ".join(filter(None, (before, what))) for before in part.edits or [""] * len(part)],
        )
        if manifest.split_groups.any() or part.split_groups.any():
            if not manifest.split_groups.any():
                manifest = dataclasses.replace(manifest, split_groups=manifest.ids.copy())
            groups = part.split_groups if part.split_groups.any() else part.ids
            moved = dataclasses.replace(moved, split_groups=first + np.searchsorted(part.ids, groups))
        manifest = _with_names(manifest, part)
        manifest = manifest.concat(moved.concat(manifest[:0]))
        datasets.append((folder, other, part))
        new_paths.append(renamed)
    check_splits(manifest.split_names)
    if folders:
        manifest, about = _with_copies(manifest, num_own, str(layout.config.get("copies", "near")), len(folders))
        notes += about
    return Added(
        manifest=manifest,
        class_names=tuple(class_names),
        datasets=datasets,
        recoders=recoders,
        new_paths=new_paths,
        notes=tuple(notes),
    )


def _first_labels(folder: Path, layout: Layout, manifest: Manifest, mapping: np.ndarray) -> np.ndarray:
    """Return the lowest of the new labels of each example, int32 `[num_rows]`, -1 for none."""
    rows, labels = label_pairs(folder, layout, manifest)
    none = np.int32(len(mapping) + mapping.max(initial=0) + 1)
    lowest = np.full(len(manifest), none, np.int32)
    np.minimum.at(lowest, rows, mapping[labels])
    rejected = ~manifest.ok
    lowest[rejected] = np.where(manifest.labels[rejected] < 0, none, mapping[manifest.labels[rejected]])
    return np.where(lowest == none, np.int32(-1), lowest)


def _check_alike(folder: Path, other: Layout, layout: Layout) -> None:
    if other.own_shapes != layout.own_shapes:
        raise UsageError(
            f"--merge={folder} has images of {other.size_text}, and the dataset images of {layout.size_text}. Only "
            "datasets of one form can be merged. Convert its files again with the same --resize."
        )
    if (other.image_size, other.form_text) != (layout.image_size, layout.form_text):
        size = f" --image_size={layout.image_size}" if layout.image_size else ""
        channels = f" --channels={layout.channels}" if layout.channels != other.channels else ""
        shape = f" --resize={layout.config['resize']}" if layout.own_shapes else ""
        raise UsageError(
            f"--merge={folder} has {other.form_text} images of {other.size_text}, and the dataset {layout.form_text} "
            f"images of {layout.size_text}. Convert it first: simimg convert --from={folder}{size}{shape} "
            f"--encoding={layout.encoding}{channels}"
        )
    schema = layout.schema
    is_longer = other.schema.label_size > schema.label_size
    alike = other.schema
    if schema.label_type == "multi":
        alike = dataclasses.replace(other.schema, label_size=schema.label_size)
    if alike != schema or is_longer:
        what = "Only datasets of one form can be merged."
        if alike == schema:
            what = f"Merge them the other way round: --dataset_dir={folder}"
        raise UsageError(
            f"--merge={folder}: its examples have {other.schema}, and those of the dataset {schema}, in another form. "
            f"{what}"
        )
    if schema.label_type == "float" and other.class_names != layout.class_names:
        raise UsageError(
            f"--merge={folder}: its numbers are not those of the dataset in the same order. Convert it again with "
            f"--label_column={','.join(layout.class_names)}."
        )


def _different_pixels(folder: Path, other: Layout, layout: Layout) -> list[str]:
    there, here = ({name: each.config.get(name) for name in _OF_PIXELS} for each in (other, layout))
    differing = differing_options(there, here)
    return (
        [f"{folder} was made with other options: {'; '.join(differing).replace(' now', ' here')}"] if differing else []
    )


def _renamed(paths: Sequence[str], known: set[str], layout: Layout) -> dict[str, str]:
    """Return the new path of each of `paths` that is in `known`."""
    taken = known | set(paths)
    renamed = {}
    for path in paths:
        if path in known:
            new, number = f"{layout.name}-{layout.version}/{path}", 2
            while new in taken:
                new, number = f"{layout.name}-{layout.version}-{number}/{path}", number + 1
            taken.add(new)
            renamed[path] = new
    return renamed


def _with_names(manifest: Manifest, other: Manifest) -> Manifest:
    """Return a manifest that also has the names of the other's splits and reasons, after its own."""
    return dataclasses.replace(
        manifest,
        split_names=tuple(dict.fromkeys((*manifest.split_names, *other.split_names))),
        reason_names=tuple(dict.fromkeys((*manifest.reason_names, *other.reason_names))),
    )


def _with_copies(manifest: Manifest, num_own: int, copies: str, num_added: int) -> tuple[Manifest, list[str]]:
    """Return the manifest with the groups of copies of all its examples, and notes about what that changed."""
    rows = np.flatnonzero(manifest.ok)
    own = int((rows < num_own).sum())
    first = group_copies(manifest.sha256[rows], manifest.pixels_sha256[rows], manifest.phash[rows], copies)
    groups, splits, shards = manifest.groups.copy(), manifest.splits.copy(), manifest.shards.copy()
    in_own = first[own:] < own
    groups[rows[own:]] = np.where(in_own, manifest.groups[rows[first[own:]]], manifest.ids[rows[first[own:]]])
    wanted = manifest.splits[rows[first[own:]]]
    moving = rows[own:][wanted != manifest.splits[rows[own:]]]
    splits[moving] = wanted[wanted != manifest.splits[rows[own:]]]
    shards[moving] = _MAX_SHARDS_PER_DATASET * (num_added + 1)
    notes = []
    if in_own.any():
        example = manifest.paths[rows[own:][in_own][0]]
        notes.append(f"{int(in_own.sum()):,} added images are copies of images that were there, e.g. {example}")
    if len(moving):
        notes.append(f"{len(moving):,} added copies changed their split to that of the image that they are copies of")
    return dataclasses.replace(manifest, groups=groups, splits=splits, shards=shards), notes
