"""From a dataset folder to batches: chooses the reader and the shuffle; training and evaluation batches."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import psutil
import tensorflow as tf

from simimg.errors import DataError, UsageError
from simimg.input.crops import CROPS, DEFAULT_CROP_SIZE, Crops
from simimg.input.mixture import Mixture, parse_weights
from simimg.input.permutation import Mixing
from simimg.input.readers.crop_reader import CropReader
from simimg.input.readers.mapped import MappedReader, MixedReader
from simimg.input.readers.resident import DeviceReader, ResidentReader
from simimg.input.readers.service import ServiceReader
from simimg.input.readers.stream import StreamReader
from simimg.input.records import EncodedRecords
from simimg.input.sampler import Order
from simimg.input.split import PADDING_ID, Batch, Reader, Split, open_split, reading
from simimg.input.split_union import join_splits, relabeled
from tfrecords.format.image_size import ImageSize, parse_image_size
from tfrecords.format.manifest import iter_manifest
from tfrecords.format.mapped_shards import map_records
from tfrecords.format.naming import LAYOUT_FILE, MANIFEST_FILE

READERS = ("auto", "resident", "mapped", "stream")
CACHES = ("host", "device")
SHUFFLES = ("auto", "uniform", "windowed")
AUTO_CROP = "auto"

# Share of the free memory that a resident split may take. The model, its activations and a second split need the rest.
_RESIDENT_SHARE = 0.25
# A mapped split up to this share of the free memory is expected to stay in the operating system's cache.
_CACHED_SHARE = 0.75
_COUNT_BATCH_SIZE = 256


def open_reader(
    dataset_dir: Path | Sequence[Path],
    split: str,
    kind: str = "auto",
    *,
    class_names: Sequence[str] | None = None,
    on_corrupt: str = "fail",
    cache: str = "host",
    data_service: str = "",
    num_threads: int = 0,
    crop: str = AUTO_CROP,
    image_size: ImageSize = 0,
) -> tuple[Reader, str]:
    """Opens a split of a dataset folder; returns its reader, and the reason for this kind of reader, a clause.

    Args:
        dataset_dir: the dataset's folder, or several, whose splits are read as one; see `simimg.input.split_union`.
        split: `train`, `test`, …, or several as one, such as `fold1+fold3`.
        kind: one of `READERS`.
        class_names: the classes that the labels are numbers of; those of the datasets by default.
        on_corrupt: `fail`; `skip`, which turns an unreadable record into padding that nothing is trained on; or
            `unchecked`, which saves the mapped reader of JPEG and PNG records the time of verifying checksums.
        cache: one of `CACHES`; `device` keeps the split on every device of the strategy in whose scope this is called.
        data_service: grpc://HOST:PORT of a tf.data service that reads and decodes the split; see `ServiceReader`.
        num_threads: threads that decode; 0 is one per core.
        crop: how training images are cut: `random` or `center`; `auto` is random for images in their own shapes, and
            no crop for others. Images for evaluation are cut at their center then.
        image_size: side of the crops in px, or width and height; 0 is 224.

    Raises:
        UsageError: the folder or split does not exist; the split is empty; the reader cannot read it, or cannot skip
            records; two options exclude each other.
        DataError: the folder is damaged, or its format is not supported.
    """
    image_size = parse_image_size(image_size, zero="auto")
    opened = _opened((dataset_dir,) if isinstance(dataset_dir, Path) else dataset_dir, split, class_names)
    num_threads = num_threads or len(os.sched_getaffinity(0))
    if not opened.is_here:
        _check_streamed(opened, kind, crop, cache)
        kind = "stream"
    crops = _crops_of(opened, crop, image_size)
    if crops is not None:
        if opened.parts:
            raise UsageError(
                f"--crop={crops.how}: several datasets can be mixed only if their images have one size and are not "
                "cropped. Convert them with --resize=stretch, crop or pad, or leave out --crop."
            )
        for flag, value, off in (
            ("reader", kind, "auto"),
            ("cache", cache, "host"),
            ("data_service", data_service, ""),
        ):
            if value not in (off, CropReader.kind):
                raise UsageError(
                    f"--{flag}={value}: images are cut while they are decoded from mapped shards. Leave it out."
                )
        cropping = CropReader(opened.cropped(crops), num_threads=num_threads, on_corrupt=on_corrupt)
        return cropping, cropping.reason
    if data_service:
        if kind != "auto" or cache != "host":
            raise UsageError(f"--data_service={data_service} is a reader of its own. Leave out --reader and --cache.")
        if opened.parts:
            raise UsageError(f"--data_service={data_service} reads one dataset. Leave it out to mix several.")
        service = ServiceReader(opened, data_service, num_threads=num_threads, on_corrupt=on_corrupt)
        return service, f"{data_service} reads and decodes"
    reason = "as given" if opened.is_here else "its shards do not fit into --cache_bytes together"
    if cache == "device":
        if kind not in ("auto", "resident"):
            raise UsageError(f"--cache=device: --reader={kind} keeps nothing in memory. Leave one of the two out.")
        kind, reason = "resident", "--cache=device keeps it on the training devices"
    elif kind == "auto":
        kind, reason = choose_reader(opened, psutil.virtual_memory().available)
    if kind == "stream":
        if opened.parts:
            streamed = [str(part.split.dataset_dir) for part in opened.parts if not part.split.indexed]
            raise UsageError(
                "streamed shards cannot be mixed with those of another dataset. Use --reader=mapped or resident"
                + (f", and convert the images of {streamed[0]} with `simimg convert`." if streamed else ".")
            )
        if on_corrupt == "skip":
            raise UsageError(
                "--on_corrupt=skip: a streamed shard cannot be read beyond a corrupt record. "
                "Use --reader=mapped, which needs shards that `simimg convert` wrote."
            )
        return StreamReader(opened), reason
    reader: Callable[..., Reader] = MixedReader if opened.parts else MappedReader
    if kind == "resident":
        reader = DeviceReader if cache == "device" else ResidentReader
    return reader(opened, num_threads=num_threads, on_corrupt=on_corrupt), reason


def _check_streamed(split: Split, kind: str, crop: str, cache: str) -> None:
    """Raise UsageError if a split whose shards come one after the other cannot be read in that way."""
    given = f"--reader={kind}" if kind not in ("auto", "stream") else f"--cache={cache}" if cache != "host" else ""
    given = given or (f"--crop={crop}" if crop != AUTO_CROP or not split.stored_size else "")
    given = given or ("another dataset beside it" if split.parts else "")
    if split.schema.label_type not in ("single", "none"):
        given = given or f"--label_type={split.schema.label_type}"
    if given:
        raise UsageError(
            f"{split.dataset_dir} does not fit into --cache_bytes, so its shards are streamed, and {given} needs all "
            "of them at once. Give the cache more bytes, or copy the dataset to a folder."
        )


def _opened(folders: Sequence[Path], split: str, class_names: Sequence[str] | None) -> Split:
    found = [open_split(folder, split) for folder in folders]
    for one in found:
        if not one.num_examples:
            raise UsageError(f"{one.dataset_dir}: split {split!r} has no examples.")
    (first, *others) = found
    if others or (class_names is not None and tuple(class_names) != first.class_names):
        return join_splits(found, class_names)
    return first


def folders_with(folders: Sequence[Path], split: str) -> list[Path]:
    """Returns the folders whose datasets have examples in `split`.

    Raises DataError if one of them is damaged.
    """

    def has_it(folder: Path) -> bool:
        try:
            return open_split(folder, split).num_examples > 0
        except UsageError:
            return False

    return [folder for folder in folders if has_it(folder)]


def _crops_of(split: Split, crop: str, image_size: ImageSize) -> Crops | None:
    if crop not in (AUTO_CROP, *CROPS):
        raise UsageError(f"--crop={crop}: should be one of {', '.join((AUTO_CROP, *CROPS))}.")
    if crop == AUTO_CROP and split.stored_size:
        if image_size not in (0, split.image_size):
            raise UsageError(
                f"--image_size={image_size}: the images of {split.dataset_dir} have {split.image_size} px. Leave it "
                "out, or convert the images again; or cut crops of JPEG images with --crop=random."
            )
        return None
    return Crops(image_size=image_size or DEFAULT_CROP_SIZE, how=CROPS[0] if crop == AUTO_CROP else crop)


def choose_reader(split: Split, free_bytes: int) -> tuple[str, str]:
    """Returns the fastest kind of reader that can read `split` with `free_bytes` of memory, and the reason."""
    size = f"{split.decoded_bytes / 2**20:,.0f} MB decoded"
    if split.decoded_bytes <= free_bytes * _RESIDENT_SHARE:
        return "resident", f"{size} fits into memory"
    if split.indexed:
        return "mapped", f"{size} does not fit into a quarter of the free memory; its shards are mapped"
    return "stream", f"{size} does not fit into a quarter of the free memory; shards without layout.json are streamed"


def choose_shuffle(split: Split, free_bytes: int) -> str:
    """Returns which of `SHUFFLES` to use: `windowed` for shards larger than the free memory."""
    return "windowed" if (split.stored_bytes or 0) > free_bytes * _CACHED_SHARE else "uniform"


def mixing_of(split: Split, shuffle: str) -> Mixing | None:
    """Returns how far the examples of `split` are mixed by a shuffle, `uniform` or `windowed`."""
    if shuffle == "uniform" or split.stored_bytes is None:
        return None
    return Mixing.of_bytes(split.stored_bytes / split.num_examples)


def mixture_of(
    split: Split, weights: str | Sequence[float], shuffle: str = "uniform", *, in_order: bool = False
) -> Mixture | None:
    """Returns how the datasets of a joined split alternate, None if it is one dataset; see `Mixture`.

    Raises UsageError if `weights` do not fit the datasets; empty ones are the numbers of their examples.
    """
    parts = [part.split for part in split.parts]
    given = parse_weights(weights, len(parts) or 1) if weights else ()
    if not parts:
        return None
    return Mixture(
        counts=tuple(part.num_examples for part in parts),
        weights=given if len(parts) > 1 else (),
        mixings=tuple(mixing_of(part, shuffle) for part in parts),
        in_order=in_order,
    )


def train_batches(reader: Reader, order: Order) -> tf.data.Dataset:
    """Returns a dataset of elements for `reader.batch`: replica after replica, step after step."""
    return reader.train_batches(order).with_options(_options()).prefetch(2)


def eval_batches(reader: Reader, batch_size: int) -> tf.data.Dataset:
    """Returns a dataset of Batches of `batch_size`: every example once, the last batch filled up with id -1."""
    return reader.eval_batches(batch_size).with_options(_options()).prefetch(2)


def batches_of(dataset: tf.data.Dataset) -> Iterator[Batch]:
    """Yields the elements of a dataset of Batches, faster than tf.data's own iterator.

    That iterator rebuilds the structure of each element in Python, and a Batch always has the same. Skipping it saves
    60 us per element, as long as reading a small batch takes.
    """
    spec = dataset.element_spec
    types, shapes = [part.dtype for part in spec], [part.shape for part in spec]
    iterator = tf.raw_ops.AnonymousIteratorV3(output_types=types, output_shapes=shapes)
    tf.raw_ops.MakeIterator(dataset=tf.data.experimental.to_variant(dataset), iterator=iterator)
    get_next = tf.raw_ops.IteratorGetNext
    while True:
        try:
            element = get_next(iterator=iterator, output_types=types, output_shapes=shapes)
        except tf.errors.OutOfRangeError:
            return
        yield Batch(*element)


def label_counts(reader: Reader, mixture: Mixture | None = None) -> np.ndarray:
    """Returns the number of examples per class, int64 `[num_classes]`, from the manifest or by reading the split.

    With a `mixture` that has weights, it is how often each class comes in an epoch, float64 `[num_classes]`.

    Raises:
        DataError: the manifest is damaged, a record cannot be read, or a label is none of the classes.
    """
    split = reader.split
    if split.parts:
        numbers = np.zeros(len(split.class_names), np.int64)
        for number, part in enumerate(split.parts):
            own = part.split
            found = label_counts(MappedReader(own, num_threads=1) if own.indexed else StreamReader(own))
            if mixture is not None and mixture.weights:
                numbers = numbers.astype(np.float64)
                found = found * (float(mixture.shares[number]) * split.num_examples / own.num_examples)
            numbers[list(part.labels)] += found
        return numbers
    manifest = split.dataset_dir / MANIFEST_FILE
    counts = np.zeros(len(split.class_names), np.int64)
    if split.indexed and manifest.exists():
        for rows in iter_manifest(split.dataset_dir):
            here = rows.ok & np.isin(np.array([*rows.split_names, ""])[rows.splits], split.split_names)
            counts += _counts(rows.labels[here], len(counts), str(manifest))
        return counts
    for batch in reading(split, eval_batches(reader, min(_COUNT_BATCH_SIZE, split.num_examples))):
        labels = batch.label.numpy()[batch.id.numpy() != PADDING_ID]
        counts += _counts(labels, len(counts), f"{split.dataset_dir}: a label of split {split.split}")
    return counts


def class_counts(reader: Reader) -> np.ndarray:
    """Returns the number of examples per class, int64 `[num_classes]`; an image may count for several.

    Raises:
        UsageError: labels are numbers, or there are none.
        DataError: as for `label_counts`.
    """
    kind = reader.split.schema.label_type
    if kind == "single":
        return label_counts(reader)
    if kind != "multi":
        raise UsageError(f"{reader.split.dataset_dir}: label_type={kind}: there are no classes to count. Leave it out.")
    return _labels(reader.split).sum(axis=0, dtype=np.int64)


def target_spread(reader: Reader) -> tuple[list[float], list[float]]:
    """Returns the mean and the standard deviation of each target of a split whose labels are numbers.

    Only the labels are read. A target that is the same in all examples has the deviation 1.
    """
    wide = _labels(reader.split).astype(np.float64)
    deviations = wide.std(axis=0)
    return wide.mean(axis=0).tolist(), np.where(deviations > 0, deviations, 1.0).tolist()


def _labels(split: Split) -> np.ndarray:
    """Returns the labels of all examples, as in a Batch, and reads nothing else."""
    if split.parts:
        parts = [relabeled(_labels(part.split), part, len(split.class_names)) for part in split.parts]
        return np.concatenate(parts)
    if split.offsets is None:
        return EncodedRecords(split).labels(np.arange(split.num_examples))
    at = split.offsets.label_offset
    shards = [shard for shard in split.shards if shard.num_examples]
    records = map_records([(shard.path, shard.num_examples) for shard in shards], split.offsets.record_bytes)
    ends = np.concatenate(
        [records.rows[rows, at : at + split.schema.label_bytes].copy() for _, rows in records.spans()]
    )
    return split.schema.labels_of(ends, len(split.class_names))


def _counts(labels: np.ndarray, num_classes: int, what: str) -> np.ndarray:
    if ((labels < 0) | (labels >= num_classes)).any():
        raise DataError(f"{what} contradicts {LAYOUT_FILE}. Run `simimg verify`.")
    return np.bincount(labels, minlength=num_classes)


def input_warnings(reader: Reader) -> list[str]:
    """Returns one sentence for each problem so far that does not stop the training."""
    sentences = []
    if reader.corrupt:
        example = next(reversed(reader.corrupt.values()))
        records = "record" if len(reader.corrupt) == 1 else "records"
        sentences.append(f"{len(reader.corrupt):,} corrupt {records} skipped so far, e.g. {example}")
    if isinstance(reader, ServiceReader) and reader.num_recovered:
        batches = "batch" if reader.num_recovered == 1 else "batches"
        sentences.append(f"{reader.num_recovered:,} {batches} not delivered by the data service so far, and read here")
    return sentences


def _options() -> tf.data.Options:
    options = tf.data.Options()
    options.deterministic = True
    # The dataset is already divided among the replicas, so TensorFlow must not divide it again.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return options
