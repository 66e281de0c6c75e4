"""Images to a dataset, and a dataset to batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simimg.api.arguments import Folder, checked_options, folders
from simimg.errors import UsageError
from tfrecords.locations import path_of, url_of

if TYPE_CHECKING:
    import tensorflow as tf

    from simimg.input.image_dataset import ImageDataset
    from simimg.input.sampler import Position
    from tfrecords.convert.engine import ConvertProgress
    from tfrecords.convert.output.summary import ConvertSummary
    from tfrecords.edit.dataset_edit import EditSummary
    from tfrecords.format.dataset_verification import Verification


def convert(
    image_dir: Folder = "",
    *,
    progress: Callable[[ConvertProgress], None] = lambda _: None,
    describe: Callable[[str], object] = lambda _: None,
    **options: Any,
) -> ConvertSummary:
    """Convert images to TFRecord shards, and write the dataset's report.html.

    With more than one worker (`num_workers`), a script has to call it under `if __name__ == "__main__":`.

    Args:
        image_dir: a folder with one folder of images per class, or any other source of `simimg convert`; none with
            `from_dataset`, the folder of a dataset that is converted into another size or encoding.
        progress: called several times per second.
        describe: called with a line that says what the source was taken for, before any image is read; and before
            the files are sent to a `data_dir` at a URL, with a line that says how many.
        **options: options of `simimg convert`, such as `name`, `image_size`, `splits` and `data_dir`.

    Raises:
        UsageError: an option is not valid; nothing was done.
        ConversionError: the shards cannot be written; the same call resumes.

    Example:
        >>> made = simimg.convert("photos", name="photos", image_size=64)
        >>> made.dataset_dir
        PosixPath('data/photos/1.0.0')
    """
    from simimg.report.conversion import write_conversion_report
    from tfrecords.convert.engine import convert as convert_images
    from tfrecords.convert.plan.convert_config import ConvertConfig
    from tfrecords.convert.sources.stored_dataset import with_stored_size
    from tfrecords.storage.remote_conversion import remote_target

    given = checked_options(ConvertConfig, "convert", {"image_dir": str(image_dir), **options})
    config = ConvertConfig(**with_stored_size(given))
    if not (url := url_of(config.data_dir).rstrip("/")):
        summary = convert_images(config, progress=progress, describe=describe)
        if not (summary.dataset_dir / "report.html").exists():
            write_conversion_report(summary.dataset_dir, config.image_dir)
        return summary
    with remote_target(url, config.resolved().name, whole=config.append) as target:
        here_alone = dataclasses.replace(config, data_dir=target.data_dir)
        handover = "" if config.engine == "local" else target.handover
        summary = convert_images(here_alone, progress=progress, describe=describe, handover=handover)
        if target.is_new(summary.dataset_dir):
            write_conversion_report(summary.dataset_dir, config.image_dir)
            target.send(summary.dataset_dir, describe)
        target.finish()
    return dataclasses.replace(summary, dataset_dir=Path(target.url))


def edit(
    dataset_dir: Folder | None = None,
    *,
    progress: Callable[[int, int], object] = lambda done, total: None,
    describe: Callable[[str], object] = lambda _: None,
    **options: Any,
) -> EditSummary:
    r"""Make a new version of a dataset, in which examples are deleted, relabeled or added, and write its report.html.

    Args:
        dataset_dir: the dataset's folder, its newest version.
        progress: called with the number of records written and their total.
        describe: called with a line that says how many files are sent, if the dataset is at a URL.
        **options: options of `simimg edit`: `delete`, `relabel`, `merge`, `reason`, `add_classes`.

    Raises:
        UsageError: an option is not valid, or a list names something that is no example; nothing was done.
        DataError: a dataset is damaged; nothing was changed.

    Example:
        >>> made = simimg.convert("photos", name="cleaned", image_size=64)
        >>> with open("blurred.csv", "w") as file:
        ...     _ = file.write("path,reason\nhouses/image_0001.jpg,blurred\n")
        >>> edited = simimg.edit(made.dataset_dir, delete="blurred.csv")
        >>> edited.dataset_dir, edited.num_examples
        (PosixPath('data/cleaned/2.0.0'), 39)
    """
    from simimg.report.conversion import write_conversion_report
    from tfrecords.edit.dataset_edit import EditConfig
    from tfrecords.edit.dataset_edit import edit as edit_dataset
    from tfrecords.storage.remote_conversion import remote_target
    from tfrecords.storage.remote_dataset import local_dataset

    given = {"dataset_dir": dataset_dir, **options}
    for name in ("delete", "relabel"):
        given[name] = Path(given[name]) if given.get(name) else None
    config = EditConfig(**checked_options(EditConfig, "edit", given))
    config.check()
    base, others = config.dataset_dir, config.merge
    if base is None:  # the new version is made beside the first one, also at a URL
        base, others = path_of(others[0]), others[1:]
    merge = tuple(str(local_dataset(one, what="--merge")) for one in others)
    config = dataclasses.replace(config, dataset_dir=base, merge=merge)
    if not (url := url_of(base).rstrip("/")):
        made = edit_dataset(config, progress=progress)
        write_conversion_report(made.dataset_dir, "")
        return made
    data_url, name, _ = url.rsplit("/", 2)
    with remote_target(data_url, name, "--dataset_dir", whole=True, anew=True) as target:
        if target.url != url:
            raise UsageError(
                f"{url} has a newer version, {target.url}. Edit that one, because the next version is made from it."
            )
        made = edit_dataset(dataclasses.replace(config, dataset_dir=target.dataset_dir), progress=progress)
        write_conversion_report(made.dataset_dir, "")
        target.send(made.dataset_dir, describe)
        target.finish()
    return dataclasses.replace(made, dataset_dir=Path(target.url))


def verify(dataset_dir: Folder, *, progress: Callable[[int], None] = lambda num_examples: None) -> Verification:
    """Check every byte of a dataset.

    Args:
        dataset_dir: the dataset's folder.
        progress: called with the number of examples since the last call.

    Raises:
        UsageError: there is no such folder.

    Example:
        >>> simimg.verify("data/photos/1.0.0").problems
        ()
    """
    from tfrecords.format.dataset_verification import verify as verify_bytes
    from tfrecords.storage.remote_dataset import local_dataset

    folder = local_dataset(dataset_dir, what="dataset_dir", verified=False)
    if not folder.is_dir():
        raise UsageError(f"{dataset_dir} is not a folder. Name one that `simimg convert` wrote.")
    found = verify_bytes(folder, progress=progress)
    if not (url := url_of(dataset_dir).rstrip("/")):
        return found
    return dataclasses.replace(found, problems=tuple(text.replace(str(folder), url) for text in found.problems))


def load(
    dataset_dir: Folder | Sequence[Folder],
    split: str = "train",
    *,
    batch_size: int = 32,
    shuffle: bool = False,
    epochs: int = 1,
    seed: int = 0,
    reader: str = "auto",
    weights: Sequence[float] = (),
    one_hot: bool = False,
    ids: bool = False,
    features: Sequence[str] = (),
    start: Position | tuple[int, int] = (0, 0),
    strategy: tf.distribute.Strategy | None = None,
    image_size: int | str | tuple[int, int] = 0,
    crop: str = "auto",
) -> ImageDataset:
    """Open a split of a dataset as a `tf.data.Dataset` of batches, which `keras.Model.fit` takes as it is.

    A batch is (image, label): uint8 `[batch, height, width, channels]` and int32 `[batch]`. Labels are uint8
    `[batch, num_classes]`, 1 for each class, if images may have several, and float32 `[batch, num_targets]` if they are
    numbers. If there are none, a batch is the image alone. Each iteration is the next epoch; see `ImageDataset`.

    Args:
        dataset_dir: the dataset's folder, or several, whose splits are read as one. Their classes are joined by name,
            and the ids of dataset d, counted from 0, are d * 2**35 more than in that dataset.
        split: `train`, `test`, …, or several as one, such as `fold1+fold3`.
        batch_size: examples per batch, over all devices.
        shuffle: use a new random order in each epoch. All batches are then full: the examples left over at the end
            of an epoch are part of other epochs.
        epochs: passes over the split in one iteration.
        seed: seed of the order.
        reader: resident, mapped or stream; auto chooses.
        weights: of several datasets, how often each one is used relative to the others: [3, 1]. An epoch then has as
            many examples as all of them together; it may have those of a small dataset several times. All batches are
            full. Without weights, an epoch has every example once.
        one_hot: deliver labels as float32 `[batch, num_classes]`, 1 for the image's class or classes.
        ids: deliver (image, label, id) instead, a named tuple with ids int64 `[batch]`. If the dataset was converted
            with `features`, a batch also has them in `batch.features`; see `FeatureBatch`.
        features: names of features that become inputs: the image is replaced by a dictionary of `image` and each of
            them, int64, float32 or string `[batch]` or `[batch, length]`.
        start: epoch and step of the first batch, both from 0, such as the `position` of another run.
        strategy: deliver the batches of each replica of this strategy, for `fit` and for an own loop with
            `strategy.run`. Without `shuffle`, batches may be smaller, so that no replica has an empty part of the last.
        image_size: side of the crops in px, or (width, height), of a dataset whose images keep their shapes; 0 is 224.
        crop: `random`, for training: a part of 8 to 100 % of the area, drawn anew in each epoch from `seed` and the
            id. `center`, for evaluation. auto is random with `shuffle`, and otherwise center. Any other JPEG dataset
            is cropped if this is random or center.

    Raises:
        UsageError: there is no such folder, split or feature; `batch_size` or `epochs` is below 1; an epoch has no such
            step; or the datasets or the weights do not fit together.
        DataError: the folder is damaged.

    Example:
        >>> test = simimg.load("data/photos/1.0.0", "test", batch_size=8)
        >>> len(test), test.class_names
        (2, ('balloons', 'fishes', 'flowers', 'houses', 'mountains'))
        >>> [image.shape.as_list() for image, label in test]
        [[8, 64, 64, 3], [2, 64, 64, 3]]
    """
    from simimg.input import mixture_of, open_reader
    from simimg.input.distributed_images import open_images
    from tfrecords.format.image_size import parse_image_size
    from tfrecords.storage.remote_dataset import local_dataset

    if batch_size < 1 or epochs < 1:
        raise UsageError(f"batch_size={batch_size}, epochs={epochs}: both should be 1 or more.")
    places = [local_dataset(one, split, what="dataset_dir", streamed=True) for one in folders(dataset_dir)]
    opened, _ = open_reader(places, split, reader, crop=crop, image_size=parse_image_size(image_size, zero="auto"))
    mixture = mixture_of(opened.split, weights, in_order=not shuffle)
    cuts = crop if crop != "auto" or opened.split.crops is None else "random" if shuffle else "center"
    return open_images(
        opened,
        batch_size=batch_size,
        num_epochs=epochs,
        seed=seed if shuffle or weights else None,
        mixture=mixture,
        cuts_seed=seed if cuts == "random" else None,
        start=start,
        strategy=strategy,
        one_hot=one_hot,
        ids=ids,
        features=tuple([features] if isinstance(features, str) else features),
    )
