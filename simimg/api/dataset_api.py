"""Images to a dataset, and a dataset to batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from simimg.api.arguments import Folder, checked_options, folders
from simimg.errors import UsageError

if TYPE_CHECKING:
    from simimg.input import Batch, Reader
    from simimg.input.mixture import Mixture
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
        describe: called once, with a line that says what the source was taken for, before any image is read.
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

    given = checked_options(ConvertConfig, "convert", {"image_dir": str(image_dir), **options})
    config = ConvertConfig(**with_stored_size(given))
    summary = convert_images(config, progress=progress, describe=describe)
    if not (summary.dataset_dir / "report.html").exists():
        write_conversion_report(summary.dataset_dir, config.image_dir)
    return summary


def edit(
    dataset_dir: Folder | None = None,
    *,
    progress: Callable[[int, int], object] = lambda done, total: None,
    **options: Any,
) -> EditSummary:
    r"""Make a new version of a dataset, in which examples are deleted, relabeled or added, and write its report.html.

    Args:
        dataset_dir: the dataset's folder, its newest version.
        progress: called with the number of records written and their total.
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

    given = {"dataset_dir": dataset_dir, **options}
    for name in ("delete", "relabel"):
        given[name] = Path(given[name]) if given.get(name) else None
    made = edit_dataset(EditConfig(**checked_options(EditConfig, "edit", given)), progress=progress)
    write_conversion_report(made.dataset_dir, "")
    return made


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

    if not Path(dataset_dir).is_dir():
        raise UsageError(f"{dataset_dir} is not a folder. Name one that `simimg convert` wrote.")
    return verify_bytes(Path(dataset_dir), progress=progress)


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
) -> Loader:
    """Open a split of a dataset, to iterate over it in batches.

    Args:
        dataset_dir: the dataset's folder, or several, whose splits are read as one. Their classes are joined by name,
            and the ids of dataset d, counted from 0, are d * 2**35 more than in that dataset.
        split: `train`, `test`, …, or several as one, such as `fold1+fold3`.
        batch_size: examples per batch.
        shuffle: use a new random order in each epoch. All batches are then full: the examples left over at the end
            of an epoch are part of other epochs.
        epochs: passes over the split.
        seed: seed of the order.
        reader: resident, mapped or stream; auto chooses.
        weights: of several datasets, how often each one is used relative to the others: [3, 1]. An epoch then has as
            many examples as all of them together; it may have those of a small dataset several times. All batches are
            full. Without weights, an epoch has every example once.

    Raises:
        UsageError: there is no such folder or split, or `batch_size` or `epochs` is below 1, or the datasets or the
            weights do not fit together.
        DataError: the folder is damaged.

    Example:
        >>> test = simimg.load("data/photos/1.0.0", "test", batch_size=8)
        >>> len(test), test.class_names
        (2, ('balloons', 'fishes', 'flowers', 'houses', 'mountains'))
        >>> [batch.image.shape.as_list() for batch in test]
        [[8, 64, 64, 3], [2, 64, 64, 3]]

    A dataset that was converted with `features` has them in `batch.features`; see `FeatureBatch`.
    """
    from simimg.input import mixture_of, open_reader

    if batch_size < 1 or epochs < 1:
        raise UsageError(f"batch_size={batch_size}, epochs={epochs}: both should be 1 or more.")
    opened, _ = open_reader(folders(dataset_dir), split, reader)
    mixture = mixture_of(opened.split, weights, in_order=not shuffle)
    return Loader(opened, batch_size, seed if shuffle or weights else None, epochs, mixture)


class FeatureBatch(NamedTuple):
    """A batch with the further features of its examples; the other parts are those of `simimg.input.Batch`.

    `features` has, by name, an array int64 or float32 `[batch]` or `[batch, length]`, or a list of str, of bytes, or of
    arrays and lists that differ in length.
    """

    image: Any
    label: Any
    id: Any
    features: dict[str, Any]


class Loader:
    """Batches of a split; each iteration starts from the beginning. Created by `load`.

    Attributes:
        class_names: by label, or the names of the targets if labels are numbers.
        image_size: side of the images in px, or (width, height) if they are not square.
        num_examples: in the split.
    """

    def __init__(
        self, reader: Reader, batch_size: int, seed: int | None, epochs: int, mixture: Mixture | None = None
    ) -> None:
        """Take a reader; `seed` is None for the order of the shards."""
        from simimg.input import Order

        self.class_names = reader.split.class_names
        self.image_size = reader.split.image_size
        self.num_examples = reader.split.num_examples
        self._reader, self._batch_size, self._epochs = reader, batch_size, epochs
        self._order = None
        if seed is not None:
            self._order = Order(
                num_examples=self.num_examples,
                global_batch_size=batch_size,
                num_epochs=epochs,
                seed=seed,
                mixture=mixture,
            )

    def __len__(self) -> int:
        """The number of batches."""
        if self._order is not None:
            return self._epochs * self._order.steps_per_epoch
        return self._epochs * -(-self.num_examples // self._batch_size)

    def __iter__(self) -> Iterator[Any]:
        """Yield batches: uint8 `[batch, height, width, 3]`, int32 labels and int64 ids `[batch]`.

        Labels are uint8 `[batch, num_classes]`, 1 for each class, if images may have several; float32
        `[batch, num_targets]` if they are numbers; and -1 if there are none.
        """
        from simimg.input.feature_values import FeatureValues

        if not self._reader.split.schema.features:
            yield from self._batches()
            return
        values = FeatureValues(self._reader.split)
        for batch in self._batches():
            yield FeatureBatch(*batch, features=values.of(batch.id.numpy()))

    def _batches(self) -> Iterator[Batch]:
        from simimg.input import batches_of, eval_batches, reading, train_batches, without_passes

        split = self._reader.split
        if self._order is not None:
            elements = reading(split, batches_of(train_batches(self._reader, self._order)))
            batches = (self._reader.batch(element) for element in elements)
            if split.parts:
                batches = (batch._replace(id=without_passes(batch.id)) for batch in batches)
            yield from batches
            return
        for _ in range(self._epochs):
            left = self.num_examples
            for batch in reading(split, batches_of(eval_batches(self._reader, min(self._batch_size, left)))):
                # The last batch is padded; the padding is cut off.
                yield type(batch)(*(part[:left] for part in batch)) if left < self._batch_size else batch
                left -= self._batch_size
