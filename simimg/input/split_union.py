"""Splits of several datasets as one: examples one dataset after the other, with classes joined by their names.

The labels of the first dataset stay as they are, and so do the ids of its examples. The id of an example of dataset d,
counted from 0, has d in the bits from `ID_BITS` on, so that all ids differ. If a dataset comes several times in an
epoch (`simimg.input.mixture`), the bits above have the number of its pass while a model is trained.
"""

from __future__ import annotations

import dataclasses
import unicodedata
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from simimg.errors import DataError, UsageError
from simimg.input.mixture import PLACE_BITS
from simimg.input.split import PADDING_ID, Batch, Part, Split
from tfrecords.format.image_size import COLORS
from tfrecords.format.layout import Layout
from tfrecords.format.manifest import iter_manifest
from tfrecords.format.schema import Schema

ID_BITS = 35  # those of an id in a record
_DATASET_BITS = 8
MAX_DATASETS = 1 << _DATASET_BITS
_PREPARED = ("resize", "decode", "truncated", "background", "range", "max_pixels")  # options that decide pixels


def join_splits(splits: Sequence[Split], class_names: Sequence[str] | None = None) -> Split:
    """Returns the splits of several datasets as one.

    Args:
        splits: of different datasets.
        class_names: the classes of the result, which has all classes of the datasets by default.

    Raises:
        UsageError: the datasets differ in more than their classes, or have a class that `class_names` lacks.
    """
    first, *others = splits
    if len(splits) > MAX_DATASETS:
        raise UsageError(f"there are {len(splits)} datasets, and at most {MAX_DATASETS} can be mixed.")
    folders = [split.dataset_dir.resolve() for split in splits]
    for number, folder in enumerate(folders):
        if folder in folders[:number]:
            raise UsageError(
                f"--dataset_dir={splits[number].dataset_dir} is given twice. Leave one out; --dataset_weights says how "
                "often a dataset is used."
            )
    for other in others:
        _check_alike(first, other)
    names = list(first.class_names if class_names is None else class_names)
    places = {name: place for place, name in enumerate(names)}
    for split in splits:
        new = [name for name in split.class_names if name not in places]
        if new and class_names is not None:
            raise UsageError(
                f"{split.dataset_dir} has the class {new[0]!r}, which is none of the {len(names):,} classes "
                f"({', '.join(names[:5])}{', …' if len(names) > 5 else ''}) of the other datasets or of the model."
            )
        places |= {name: place for place, name in enumerate(new, len(names))}
        names += new
    same_features = all(split.schema.features == first.schema.features for split in splits)
    return dataclasses.replace(
        first,
        name="+".join(split.name for split in splits),
        class_names=tuple(names),
        shards=tuple(shard for split in splits for shard in split.shards),
        offsets=None,
        has_id=True,
        indexed=all(split.indexed for split in splits),
        schema=Schema(
            label_type=first.schema.label_type,
            label_size=max(split.schema.label_size for split in splits),
            features=first.schema.features if same_features else (),
        ),
        parts=tuple(
            # Ids that another program stored may be any numbers; the place of an example is one below 2 ** 35.
            Part(
                split if split.indexed else dataclasses.replace(split, has_id=False),
                tuple(places[name] for name in split.class_names),
            )
            for split in splits
        ),
    )


def union_notes(split: Split) -> list[str]:
    """Returns what to tell about the classes and features of a joined split, one sentence each."""
    notes = []
    sets = [set(part.split.class_names) for part in split.parts]
    if any(found != sets[0] for found in sets):
        lacking = [
            f"{part.split.dataset_dir} lacks {_some([name for name in split.class_names if name not in found])}"
            for part, found in zip(split.parts, sets, strict=True)
            if len(found) < len(split.class_names)
        ]
        notes.append(
            f"the datasets differ in their classes, so there are all {len(split.class_names):,}, joined by name: "
            + "; ".join(lacking)
        )
        alike: dict[str, list[str]] = {}
        for name in split.class_names:
            alike.setdefault(" ".join(unicodedata.normalize("NFC", name).casefold().split()), []).append(name)
        notes += [
            f"{' and '.join(map(repr, names))} look the same and are different classes; "
            "`simimg edit --relabel` makes them one"
            for names in alike.values()
            if len(names) > 1
        ]
    folders = [part.split.dataset_dir for part in split.parts]
    made = [Layout.load(folder).config if Layout.exists(folder) else {} for folder in folders]
    for folder, options in zip(folders, made, strict=True):
        if differing := [name for name in _PREPARED if options and made[0] and options.get(name) != made[0].get(name)]:
            shown = ", ".join(f"--{name}={options.get(name, 'its default')}" for name in differing)
            notes.append(
                f"{folder} was converted with {shown}, unlike {folders[0]}; other images are prepared for the model "
                f"like those of {folders[0]}"
            )
    if not split.schema.features and any(part.split.schema.features for part in split.parts):
        notes.append("the datasets differ in their further features, which are left out")
    return notes


def trained_copies(trained: Split, measured: Split) -> tuple[int, str]:
    """Returns how many examples of a split are also in the training split of another dataset, and the path of one.

    They have the same file or the same stored pixels. Datasets that other programs wrote are not compared.
    """
    count, example = 0, ""
    rows_of = {part.split.dataset_dir: _digests(part.split) for part in trained.parts if part.split.indexed}
    for part in measured.parts or (Part(measured, ()),):
        if not part.split.indexed:
            continue
        paths, digests = _digests(part.split)
        others = [found for folder, (_, found) in rows_of.items() if folder != part.split.dataset_dir]
        there = np.isin(digests, np.concatenate(others)).any(axis=1) if others else np.zeros(len(paths), bool)
        count += int(there.sum())
        if there.any() and not example:
            example = f"{paths[int(there.argmax())]} of {part.split.dataset_dir}"
    return count, example


def _digests(split: Split) -> tuple[list[str], np.ndarray]:
    """Returns the path of each example, and the digests of its file and of its pixels: bytes `[n, 2]`."""
    paths: list[str] = []
    digests = [np.empty((0, 2), "V32")]
    for rows in iter_manifest(split.dataset_dir):
        here = np.flatnonzero(rows.ok & np.isin(np.array([*rows.split_names, ""])[rows.splits], split.split_names))
        paths += [rows.paths[row] for row in here]
        both = np.stack([rows.sha256[here], rows.pixels_sha256[here]], axis=1)
        digests.append(np.ascontiguousarray(both).view("V32")[..., 0])
    return paths, np.concatenate(digests)


def relabeled(labels: np.ndarray, part: Part, num_classes: int) -> np.ndarray:
    """Returns the labels of a part, as in a Batch, as those of the joined split.

    Raises:
        DataError: a label is none of the dataset's classes.
    """
    kind = part.split.schema.label_type
    if kind == "none":
        return labels
    to = np.array(part.labels, np.int64)
    if kind == "single":
        if len(labels) and not (labels.min() >= 0 and labels.max() < len(to)):
            raise DataError(f"{part.split.dataset_dir}: a label is none of its classes. Run `simimg verify`.")
        return to[labels].astype(labels.dtype)
    joined = np.zeros((len(labels), num_classes), labels.dtype)
    joined[:, to] = labels
    return joined


def renumbered(ids: np.ndarray, number: int) -> np.ndarray:
    """Returns the ids of dataset `number` as those of the joined split; padding stays padding."""
    return np.where(ids == PADDING_ID, ids, ids + (number << ID_BITS))


def gathered_parts(split: Split, gathers: Sequence[Callable[[tf.Tensor], Batch]], places: tf.Tensor) -> Batch:
    """Returns the examples of a joined split at `places`, int64 `[batch]`; `gathers` gather from its parts."""
    ends = np.cumsum([part.split.num_examples for part in split.parts])
    which = tf.searchsorted(tf.constant(ends, tf.int64), places, side="right")
    rows = tf.dynamic_partition(tf.range(tf.size(places)), which, len(gathers))
    found = []
    for number, (gather, part, end) in enumerate(zip(gathers, split.parts, ends.tolist(), strict=True)):
        batch = gather(tf.gather(places, rows[number]) - (end - part.split.num_examples))
        id = tf.where(batch.id == PADDING_ID, batch.id, batch.id + (number << ID_BITS))
        found.append(Batch(batch.image, _tf_relabeled(batch.label, part, len(split.class_names)), id))
    joined = (tf.dynamic_stitch(rows, list(values)) for values in zip(*found, strict=True))
    return Batch(*(tf.ensure_shape(value, [*places.shape, *value.shape[1:]]) for value in joined))


def with_passes(gather: Callable[[tf.Tensor], Batch], places: tf.Tensor) -> Batch:
    """Returns the examples that `gather` finds at the places of a mixture, with their passes in the ids."""
    batch = gather(places & ((1 << PLACE_BITS) - 1))
    passes = tf.bitwise.left_shift(
        tf.bitwise.right_shift(places, tf.constant(PLACE_BITS, tf.int64)),
        tf.constant(ID_BITS + _DATASET_BITS, tf.int64),
    )
    return batch._replace(id=tf.where(batch.id == PADDING_ID, batch.id, batch.id | passes))


def without_passes(ids: tf.Tensor) -> tf.Tensor:
    """Returns ids, int64, without the numbers of their passes."""
    return tf.where(ids == PADDING_ID, ids, ids & ((1 << ID_BITS + _DATASET_BITS) - 1))


def own_ids(split: Split, ids: np.ndarray) -> list[tuple[Split, np.ndarray, np.ndarray]]:
    """Returns, for each dataset of a split, its own split, the rows of `ids` that are of it, and its own ids there.

    `ids` are int64 `[n]`, without padding.
    """
    if not split.parts:
        return [(split, np.arange(len(ids)), ids)]
    datasets = ids >> ID_BITS & MAX_DATASETS - 1
    found = []
    for number, part in enumerate(split.parts):
        rows = np.flatnonzero(datasets == number)
        found.append((part.split, rows, ids[rows] & (1 << ID_BITS) - 1))
    return found


def _tf_relabeled(labels: tf.Tensor, part: Part, num_classes: int) -> tf.Tensor:
    kind = part.split.schema.label_type
    if kind == "none" or part.labels == tuple(range(num_classes)):
        return labels
    if kind == "single":
        return tf.gather(tf.constant(part.labels, labels.dtype), labels)
    columns = np.full(num_classes, len(part.labels))  # that of a label that the dataset does not have is all 0
    columns[list(part.labels)] = np.arange(len(part.labels))
    return tf.gather(tf.pad(labels, [[0, 0], [0, 1]]), columns, axis=1)


def _check_alike(first: Split, other: Split) -> None:
    mine, theirs = first.schema, other.schema
    if mine.label_type != theirs.label_type:
        raise UsageError(
            f"{first.dataset_dir} has labels of --label_type={mine.label_type}, and {other.dataset_dir} of "
            f"--label_type={theirs.label_type}. Only datasets with one kind of labels can be mixed: convert one of "
            "them again."
        )
    if bool(first.stored_size) != bool(other.stored_size):
        free, square = (other, first) if first.stored_size else (first, other)
        raise UsageError(
            f"{free.dataset_dir} has images in their own shapes, and {square.dataset_dir} of {square.image_size} px. "
            "Only images of one size can be mixed: convert the first ones again with --resize=stretch, crop or pad."
        )
    if not first.stored_size:
        raise UsageError(
            f"{first.dataset_dir} and {other.dataset_dir} have images in their own shapes. Only images of one size can "
            "be mixed: convert them again with --resize=stretch, crop or pad."
        )
    if first.image_size != other.image_size:
        raise UsageError(
            f"{first.dataset_dir} has images of {first.image_size} px, and {other.dataset_dir} of {other.image_size} "
            f"px. Convert one of them: simimg convert --from={other.dataset_dir} --image_size={first.image_size}"
        )
    if first.channels != other.channels:
        raise UsageError(
            f"{first.dataset_dir} has {COLORS[first.channels]} images, and {other.dataset_dir} "
            f"{COLORS[other.channels]} images. Convert one of them: simimg convert --from={other.dataset_dir} "
            f"--channels={first.channels}"
        )
    if mine.label_type == "float" and set(first.class_names) != set(other.class_names):
        raise UsageError(
            f"the numbers of {first.dataset_dir} are {_some(first.class_names)}, and those of {other.dataset_dir} "
            f"{_some(other.class_names)}. Only datasets with the same numbers can be mixed: convert one of them again "
            f"with --label_column={','.join(first.class_names)}."
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3:,} more" if len(names) > 3 else "")
