"""A split of a dataset folder as the readers see it: its shards and their format; and what every reader delivers.

Folders that `simimg convert` wrote have a layout.json. Folders that other programs wrote are read through their TFDS
metadata, if they have gray, RGB or RGBA images of one size in the feature `image` and a class label in `label`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow as tf

from simimg.errors import CorruptRecordError, DataError, UsageError
from simimg.input.crops import Crops
from simimg.input.sampler import Order
from tfrecords.format.absent_shards import supply_of
from tfrecords.format.atomic_files import read_json
from tfrecords.format.image_size import COLORS, MAX_IMAGE_SIZE, ImageSize, image_shape, image_size_of
from tfrecords.format.layout import Layout
from tfrecords.format.naming import FEATURES_FILE, INFO_FILE, LABELS_FILE, TFRECORD, fold_name, num_folds
from tfrecords.format.parse_errors import readable
from tfrecords.format.record import FRAMING_BYTES
from tfrecords.format.record_layout import ENCODINGS, Offsets
from tfrecords.format.schema import PLAIN, Schema
from tfrecords.format.shard_scan import scan_shard
from tfrecords.format.tfds_metadata import TfdsInfo, class_names, is_tfds_folder, parse_features

PADDING_ID = -1


class Batch(NamedTuple):
    """A batch of examples. In an evaluation's last batch, rows that only fill it up have the id -1.

    image: uint8 [batch, height, width, channels]; id: int64 [batch]. label: int32 [batch], -1 if the dataset has no
    labels; or uint8 [batch, num_classes], 1 for each class of an image that may have several; or float32
    [batch, num_targets].
    """

    image: tf.Tensor
    label: tf.Tensor
    id: tf.Tensor


@dataclasses.dataclass(frozen=True)
class Shard:
    """A shard's file and its contents; `num_bytes` is None if the metadata does not say."""

    path: Path
    num_examples: int
    num_bytes: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Split:
    """One split of a dataset, or several together: `split` is then their names with + between them.

    If `crops` are cut from its images, `image_size` is theirs. `stored_size` is that of the stored images, 0 for images
    in their own shapes.

    `offsets` is None if the records have no fixed length. `class_names` are the names of the targets if labels are
    numbers. `has_id` says whether `id` is stored. `indexed` says whether
    a record can be found by its place, which is true for folders that `simimg convert` wrote. `parts` are the datasets
    of a joined split, see `simimg.input.split_union`; it has the shards of all of them, one after the other.
    """

    dataset_dir: Path
    name: str
    split: str
    encoding: str
    image_size: ImageSize
    class_names: tuple[str, ...]
    shards: tuple[Shard, ...]
    offsets: Offsets | None
    has_id: bool
    indexed: bool
    schema: Schema = PLAIN
    crops: Crops | None = None
    stored_size: ImageSize = -1
    channels: int = 3
    parts: tuple[Part, ...] = ()

    def __post_init__(self) -> None:
        if self.stored_size == -1:
            object.__setattr__(self, "stored_size", self.image_size)

    def cropped(self, crops: Crops) -> Split:
        """Returns the split with these crops of its images.

        Raises UsageError if its images are no JPEGs that `simimg convert` wrote.
        """
        if self.encoding != "jpeg" or not self.indexed:
            raise UsageError(
                f"--crop={crops.how}: crops are cut from JPEG shards of `simimg convert`, and {self.dataset_dir} has "
                f"{self.encoding} images{'' if self.indexed else ' of another program'}. Convert the images with "
                "--resize=short."
            )
        return dataclasses.replace(self, crops=crops, image_size=crops.image_size)

    @property
    def label_shape(self) -> tuple[int, ...]:
        """Shape of the label of one example."""
        return self.schema.label_form(len(self.class_names))[0]

    @property
    def label_dtype(self) -> tf.DType:
        """Type of the labels."""
        return tf.dtypes.as_dtype(self.schema.label_form(len(self.class_names))[1])

    @property
    def is_here(self) -> bool:
        """Whether all shards are in their folders; others come one after the other, see `absent_shards`."""
        return all(supply_of(part.dataset_dir) is None for part in (self, *(part.split for part in self.parts)))

    @property
    def split_names(self) -> tuple[str, ...]:
        """Names of the splits that it consists of."""
        return tuple(self.split.split("+"))

    @property
    def num_examples(self) -> int:
        """Number of examples in the split."""
        return sum(shard.num_examples for shard in self.shards)

    @property
    def stored_bytes(self) -> int | None:
        """Bytes of the split's shards, None if the metadata does not say."""
        lengths = [shard.num_bytes for shard in self.shards]
        return None if None in lengths else sum(filter(None, lengths))

    @property
    def decoded_bytes(self) -> int:
        """Bytes of the split's decoded pixels."""
        return self.num_examples * math.prod(self.image_shape)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape of an image: height, width, channels."""
        return image_shape(self.image_size, self.channels)


@dataclasses.dataclass(frozen=True)
class Part:
    """A dataset of a joined split: its own split, and the joined one's label, or target, for each of its own."""

    split: Split
    labels: tuple[int, ...]


class Reader:
    """Delivers the examples of a split."""

    kind: str  # one of `READERS`, or `service`

    def __init__(self, split: Split) -> None:
        self.split = split
        self.corrupt: dict[int, str] = {}  # the reason for each record that was skipped so far, by its place

    def train_batches(self, order: Order) -> tf.data.Dataset:
        """Returns a dataset of elements for `batch`: replica after replica, step after step."""
        raise NotImplementedError

    def resized(self, image_size: ImageSize) -> Reader:
        """Returns a reader of the same split that cuts its images to another size.

        Raises:
            UsageError: it cuts none.
        """
        raise UsageError(
            f"--train_size: the images of {self.split.dataset_dir} are not cut while they are decoded. "
            "Convert them with --resize=short, cut JPEG images with --crop=random, or leave it out."
        )

    def batch(self, element: Any) -> Batch:
        """Returns the Batch of `order.per_replica_batch_size` for an element, which is one already by default; called
        in the replica's training step.
        """
        return element

    def eval_batches(self, batch_size: int) -> tf.data.Dataset:
        """Returns a dataset of Batches of `batch_size`: every example once, the last batch filled up with id -1."""
        raise NotImplementedError


def open_split(dataset_dir: Path, split: str) -> Split:
    """Returns a split of the dataset folder `dataset_dir`, or several splits as one, such as `fold1+fold3`.

    Raises:
        UsageError: the folder or the split does not exist.
        DataError: the folder's format is not supported, or a shard is missing or truncated.
    """
    if not dataset_dir.is_dir():
        raise UsageError(f"--dataset_dir={dataset_dir} is not a folder. Name one that `simimg convert` wrote.")
    if Layout.exists(dataset_dir):
        return _checked(_own(dataset_dir, split))
    if is_tfds_folder(dataset_dir):
        return _checked(_foreign(dataset_dir, split))
    nested = sorted(path.parent for path in dataset_dir.glob(f"**/{INFO_FILE}"))
    hint = f"Did you mean {nested[0]}?" if nested else "Name one that `simimg convert` wrote."
    raise UsageError(f"--dataset_dir={dataset_dir} has neither layout.json nor {INFO_FILE}. {hint}")


def run_splits(dataset_dir: Path | Sequence[Path], fold: int) -> dict[str, str]:
    """Returns the splits of a training run on one or more datasets by what they are for: train, validation, test.

    With `fold` 0 these are their names. Otherwise the run tests on that fold, from 1, and trains on the others.

    Raises:
        UsageError: a dataset has no such fold, or has folds and `fold` is 0, or their numbers of folds differ.
        DataError: the layout is damaged.
    """
    if not isinstance(dataset_dir, Path):
        first, *more = (run_splits(folder, fold) for folder in dataset_dir)
        for folder, splits_there in zip(dataset_dir[1:], more, strict=True):
            if splits_there != first:
                raise UsageError(
                    f"{dataset_dir[0]} and {folder} have other numbers of folds. Convert one of them again with the "
                    "--folds of the other."
                )
        return first
    splits = list(Layout.load(dataset_dir).splits) if Layout.exists(dataset_dir) else []
    folds = num_folds(splits)
    if not fold and not folds:
        return {name: name for name in ("train", "validation", "test")}
    if not folds:
        has = ", ".join(splits) or "splits of another program"
        raise UsageError(
            f"--fold={fold}: {dataset_dir} has no folds. It has: {has}. Make folds with `simimg convert --folds=5`."
        )
    if not 1 <= fold <= folds:
        given = f"--fold={fold}: " if fold else ""
        raise UsageError(
            f"{given}{dataset_dir} has {folds} folds. Name the one to test on, --fold=1 to --fold={folds}; the others "
            "are trained on."
        )
    others = [fold_name(number) for number in range(1, folds + 1) if number != fold]
    return {"train": "+".join(others), "test": fold_name(fold)}


def reading(split: Split, batches: Iterable[Any]) -> Iterator[Any]:
    """Yields `batches`, which are read from `split`, and turns errors of TensorFlow into a DataError.

    Raises:
        CorruptRecordError: a record is corrupt; names the shard, the record's number there, and its offset.
        DataError: the split cannot be read for another reason.
    """
    with input_errors(split):
        yield from batches


@contextmanager
def input_errors(split: Split) -> Iterator[None]:
    """Turns errors that TensorFlow raises about records of `split` into a DataError; see `reading`.

    Errors about anything else in the block, such as a training step, are not changed.
    """
    try:
        yield
    except (
        tf.errors.DataLossError,
        tf.errors.FailedPreconditionError,
        tf.errors.InvalidArgumentError,
        tf.errors.NotFoundError,
        tf.errors.UnknownError,
    ) as error:
        # An error from a compiled function has the text of the fault on a separate line.
        for kind in (CorruptRecordError, DataError):
            for line in error.message.splitlines():
                _, ours, text = line.partition(f"{kind.__name__}: ")
                if ours:  # raised by Python code inside TensorFlow
                    raise kind(text) from None
        if isinstance(error, tf.errors.UnknownError) or "GetNext" not in error.message + str(error.op):
            raise
        if isinstance(error, tf.errors.DataLossError):  # TensorFlow does not name the shard
            for shard in split.shards:
                if split.is_here and (faults := scan_shard(shard.path, schema=split.schema).faults):
                    raise CorruptRecordError(f"{shard.path}: {faults[0]}. Convert the images again.") from None
        line = next(line for line in error.message.splitlines() if "}} " in line or "GetNext" in line)
        reason = line.rpartition("}} ")[2].partition(" [Op:")[0]
        raise DataError(
            f"{split.dataset_dir}: a record of split {split.split!r} cannot be read: {reason}. "
            "Run `simimg verify`, and convert the images again."
        ) from None


def _own(dataset_dir: Path, split: str) -> Split:
    layout = Layout.load(dataset_dir)
    if layout.file_format != TFRECORD:
        raise UsageError(
            f"{dataset_dir} is stored as {layout.file_format}, which tfds.data_source and Grain read. To "
            "read it here, convert the images again under another --name without --format."
        )
    names = _split_names(dataset_dir, split, list(layout.splits))
    return Split(
        dataset_dir=dataset_dir,
        name=layout.name,
        split=split,
        encoding=layout.encoding,
        image_size=layout.image_size,
        stored_size=0 if layout.own_shapes else layout.image_size,
        channels=layout.channels,
        class_names=layout.class_names,
        shards=tuple(
            Shard(dataset_dir / info.file, info.num_examples, info.num_bytes)
            for name in names
            for info in layout.splits[name]
        ),
        offsets=layout.offsets if layout.offsets.record_bytes else None,
        has_id=True,
        indexed=True,
        schema=layout.schema,
    )


def _foreign(dataset_dir: Path, split: str) -> Split:
    what = "the dataset's TFDS metadata"
    info_json, features_json = (read_json(dataset_dir / name, what) for name in (INFO_FILE, FEATURES_FILE))
    try:
        info, features = TfdsInfo.parse(info_json), parse_features(features_json)
        chosen = _split_names(dataset_dir, split, list(info.shards))
        image, label = features["image"], features["label"]
        fits = len(image.shape) == 3 and image.shape[2] in COLORS and min(image.shape) > 0
        fits = fits and max(image.shape) <= MAX_IMAGE_SIZE and (image.shape[2] < 4 or image.encoding != "jpeg")
        if info.file_format != TFRECORD or not fits or label.kind != "ClassLabel":
            raise ValueError(f"file format {info.file_format}, image {image.dtype} {list(image.shape)}, {label.kind}")
        if image.encoding not in ENCODINGS or (image.encoding == "raw" and image.dtype != "uint8"):
            raise ValueError("the image is a tensor that is not stored as bytes of uint8")
        labels = dataset_dir / LABELS_FILE
        with readable(labels):
            names = class_names(labels.read_bytes() if labels.exists() else None, label.num_classes)
    except (KeyError, ValueError) as error:
        raise DataError(
            f"{dataset_dir}: simimg reads TFRecords with a gray, RGB or RGBA `image` of one size and a class `label`; "
            f"this dataset has another form ({error!r}). Export its images to folders and use `simimg convert`."
        ) from None
    return Split(
        dataset_dir=dataset_dir,
        name=info.name,
        split=split,
        encoding=image.encoding,
        image_size=image_size_of(image.shape[1::-1]),
        channels=image.shape[2],
        class_names=tuple(names),
        shards=tuple(Shard(dataset_dir / file, count) for name in chosen for file, count in info.shards[name]),
        offsets=None,
        has_id="id" in features and features["id"].dtype == "int64",
        indexed=False,
    )


def _checked(split: Split) -> Split:
    if supply_of(split.dataset_dir) is not None:  # which checks what it brings
        return split
    for shard in split.shards:
        with readable(shard.path):
            num_bytes = shard.path.stat().st_size
        if shard.num_bytes not in (None, num_bytes):
            raise DataError(
                f"{shard.path} is {num_bytes} bytes long instead of {shard.num_bytes}. "
                "Run `simimg verify`, and convert the images again."
            )
        if shard.num_examples * FRAMING_BYTES > num_bytes:
            raise DataError(
                f"{shard.path} is {num_bytes} bytes long, which is too short for {shard.num_examples} records. "
                "Convert the images again."
            )
    return split


def _split_names(dataset_dir: Path, split: str, existing: list[str]) -> list[str]:
    names = split.split("+")
    for name in names:
        if name not in existing:
            raise UsageError(f"{dataset_dir} has no split {name!r}. It has: {', '.join(existing) or 'none'}.")
    if len(set(names)) < len(names):
        raise UsageError(f"split {split!r} has one split twice.")
    return names
