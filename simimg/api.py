"""simimg in Python: what the commands do, as functions that return what they found.

Each takes the options of the command of its name, under the same names, and raises `simimg.SimimgError` with the same
sentences. What a function needs is imported when it is called, so `import simimg` takes no time, and `convert` and
`verify` never import TensorFlow.

    >>> import simimg
    >>> made = simimg.convert("photos", name="photos", image_size=64)
    >>> made.num_examples, made.splits
    (40, {'train': 30, 'test': 10})
"""

from __future__ import annotations

import dataclasses
import difflib
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from simimg.errors import UsageError

if TYPE_CHECKING:
    from PIL import Image

    from simimg.evaluation import Classification, CopyFigures
    from simimg.input import Batch, Reader
    from simimg.similarity import Duplicates, Found, IndexUpdate, Leaks, SearchIndex
    from simimg.training import RunInfo, TrainResult, Watcher
    from tfrecords.convert import ConvertProgress, ConvertSummary
    from tfrecords.format import Verification

__all__ = [
    "Loader",
    "Prediction",
    "Searcher",
    "convert",
    "duplicates",
    "evaluate",
    "index",
    "leaks",
    "load",
    "predict",
    "search",
    "train",
    "verify",
]

_Folder = str | Path


def convert(
    image_dir: _Folder, *, progress: Callable[[ConvertProgress], None] = lambda _: None, **options: Any
) -> ConvertSummary:
    """Turns pictures into TFRecord shards, and writes the data set's report.html.

    With more than one worker (`num_workers`), a script has to call it under `if __name__ == "__main__":`.

    Args:
        image_dir: a folder that has one folder of pictures a class; or whatever else `simimg convert` takes.
        progress: called some times a second.
        **options: those of `simimg convert`, such as `name`, `image_size`, `splits` and `data_dir`.

    Raises:
        UsageError: an option cannot be used; nothing was done.
        ConversionError: the shards cannot be written; the same call goes on.

    Example:
        >>> made = simimg.convert("photos", name="photos", image_size=64)
        >>> made.dataset_dir
        PosixPath('data/photos/1.0.0')
    """
    from simimg.report.conversion import write_conversion_report
    from tfrecords.convert import ConvertConfig
    from tfrecords.convert import convert as convert_pictures

    config = _options(ConvertConfig, "convert", {"image_dir": str(image_dir), **options})
    summary = convert_pictures(config, progress=progress)
    if not (summary.dataset_dir / "report.html").exists():
        write_conversion_report(summary.dataset_dir, config.image_dir)
    return summary


def verify(dataset_dir: _Folder) -> Verification:
    """Checks every byte of a data set.

    Example:
        >>> simimg.verify("data/photos/1.0.0").problems
        ()
    """
    from tfrecords.format import verify as verify_bytes

    if not Path(dataset_dir).is_dir():
        raise UsageError(f"{dataset_dir} is not a folder. Name one that `simimg convert` wrote.")
    return verify_bytes(Path(dataset_dir))


def load(
    dataset_dir: _Folder,
    split: str = "train",
    *,
    batch_size: int = 32,
    shuffle: bool = False,
    epochs: int = 1,
    seed: int = 0,
    reader: str = "auto",
) -> Loader:
    """Opens a split of a data set, to be iterated in batches.

    Args:
        dataset_dir: the data set's folder.
        split: `train`, `test`, ….
        batch_size: examples a batch.
        shuffle: mix the examples, anew in each epoch. A batch is then always whole: what is left at the end of an
            epoch comes in another one.
        epochs: times that each example is seen.
        seed: the same one gives the same order.
        reader: resident, mapped or stream; auto picks.

    Raises:
        UsageError: there is no such folder or split, or `batch_size` cannot be.
        DataError: the folder is damaged.

    Example:
        >>> test = simimg.load("data/photos/1.0.0", "test", batch_size=8)
        >>> len(test), test.class_names
        (2, ('balloons', 'fishes', 'flowers', 'houses', 'mountains'))
        >>> [batch.image.shape.as_list() for batch in test]
        [[8, 64, 64, 3], [2, 64, 64, 3]]
    """
    from simimg.input import open_reader

    if batch_size < 1 or epochs < 1:
        raise UsageError(f"batch_size={batch_size}, epochs={epochs}: both should be 1 or more.")
    opened, _ = open_reader(Path(dataset_dir), split, reader)
    return Loader(opened, batch_size, seed if shuffle else None, epochs)


class Loader:
    """Batches of a split, each time from the beginning. Made by `load`.

    Attributes:
        class_names: by label.
        image_size: side of the pictures, px.
        num_examples: in the split.
    """

    def __init__(self, reader: Reader, batch_size: int, seed: int | None, epochs: int) -> None:
        """Take a reader; `seed` is None for the order of the shards."""
        from simimg.input import Order

        self.class_names = reader.split.class_names
        self.image_size = reader.split.image_size
        self.num_examples = reader.split.num_examples
        self._reader, self._batch_size, self._epochs = reader, batch_size, epochs
        self._order = None
        if seed is not None:
            self._order = Order(
                num_examples=self.num_examples, global_batch_size=batch_size, num_epochs=epochs, seed=seed
            )

    def __len__(self) -> int:
        """The number of batches."""
        if self._order is not None:
            return self._epochs * self._order.steps_per_epoch
        return self._epochs * -(-self.num_examples // self._batch_size)

    def __iter__(self) -> Iterator[Batch]:
        """Yields batches: uint8 `[batch, image_size, image_size, 3]`, int32 labels and int64 ids `[batch]`."""
        from simimg.input import batches_of, eval_batches, reading, train_batches

        split = self._reader.split
        if self._order is not None:
            elements = reading(split, batches_of(train_batches(self._reader, self._order)))
            yield from (self._reader.batch(element) for element in elements)
            return
        for _ in range(self._epochs):
            left = self.num_examples
            for batch in reading(split, batches_of(eval_batches(self._reader, min(self._batch_size, left)))):
                # The last one is filled up: what fills it is no example.
                yield type(batch)(*(part[:left] for part in batch)) if left < self._batch_size else batch
                left -= self._batch_size


def train(dataset_dir: _Folder, *, watcher: Watcher | None = None, **options: Any) -> TrainResult:
    """Trains a model, or goes on with a training that was stopped.

    Args:
        dataset_dir: the data set's folder.
        watcher: is told how it goes; see `simimg.training.Watcher`.
        **options: those of `simimg train`, such as `preset`, `model_dir`, `epochs` and `seed`.

    Raises:
        UsageError: an option cannot be used.
        TrainingError: it cannot go on.

    Example:
        >>> options = {"preset": "tutorial", "epochs": 2, "global_batch_size": 10}
        >>> run = simimg.train("data/photos/1.0.0", model_dir="runs/first", **options)
        >>> run.epoch, run.model_dir
        (2, PosixPath('runs/first'))
    """
    from simimg.training import TrainConfig, Watcher
    from simimg.training import train as train_model

    given = {"dataset_dir": Path(dataset_dir), **options}
    _check_names(TrainConfig, "train", given)
    if given.get("model_dir") is not None:
        given["model_dir"] = Path(given["model_dir"])
    return train_model(TrainConfig.with_preset(given), watcher or Watcher())


def evaluate(
    model_dir: _Folder,
    dataset_dir: _Folder,
    *,
    split: str = "test",
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> Classification | CopyFigures:
    """Measures a trained model on a split.

    Args:
        model_dir: the folder of a finished run.
        dataset_dir: the data set's folder.
        split: what to measure on.
        progress: called with the number of examples that are done, and of all.

    Returns:
        A `Classification`; of a model that was trained for copies, `CopyFigures`.

    Raises:
        UsageError: the model and the data set do not fit each other.
        ModelError: the folder is none of a finished run.

    Example:
        >>> figures = simimg.evaluate("runs/first", "data/photos/1.0.0")
        >>> figures.num_examples, 0 <= figures.accuracy <= 1
        (10, True)
    """
    from simimg.evaluation import classify, compiled, search_copies
    from simimg.evaluation import predict as predictions_of

    reader, model, info = open_trained(model_dir, dataset_dir, split)
    advance = _counted(progress, reader.split.num_examples)
    if info.objective.score == "recall":
        return search_copies(
            compiled(model),
            reader,
            info.augment_config,
            seed=info.config["seed"],
            temperature=info.config["temperature"],
            progress=advance,
        ).figures
    forward = compiled(model, views=info.config["test_views"])
    probabilities, labels, _ = predictions_of(forward, reader, progress=advance)
    return classify(probabilities, labels, reader.split.class_names)


def open_trained(model_dir: _Folder, dataset_dir: _Folder, split: str) -> tuple[Reader, Any, RunInfo]:
    """Returns a reader of a split, a trained model, and what describes its run; raises as `evaluate`."""
    from simimg.input import open_reader
    from simimg.training import load_trained

    reader, _ = open_reader(Path(dataset_dir), split)
    model, info = load_trained(Path(model_dir))
    there = reader.split
    if info.objective.score == "recall":
        if there.image_size != info.image_size:
            raise UsageError(
                f"{model_dir} was trained on pictures of {info.image_size} px; those of {dataset_dir} have "
                f"{there.image_size} px."
            )
    elif there.class_names != info.class_names or there.image_size != info.image_size:
        raise UsageError(
            f"{model_dir} was trained on {len(info.class_names)} classes at {info.image_size} px "
            f"({', '.join(info.class_names[:5])}, …); {dataset_dir} has {len(there.class_names)} at "
            f"{there.image_size} px ({', '.join(there.class_names[:5])}, …)."
        )
    return reader, model, info


@dataclasses.dataclass(frozen=True, slots=True)
class Prediction:
    """What a model says of a picture: the most probable class, and all of them, the most probable first."""

    path: str
    label: str
    probability: float
    probabilities: dict[str, float]


def predict(
    model_dir: _Folder,
    images: _Folder | Sequence[_Folder],
    *,
    refused: Callable[[str, str], object] = lambda path, reason: None,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> list[Prediction]:
    """Tells what is on pictures, by a model that you trained.

    Args:
        model_dir: the folder of a finished run.
        images: files and folders, or one of them; a folder stands for all in it.
        refused: called with each file that cannot be decoded, and the reason; it is left out.
        progress: called with the number of files that are done, and of all.

    Raises:
        UsageError: there are no such files, or the model knows no classes.
        ModelError: the folder is none of a finished run.

    Example:
        >>> [found.path for found in simimg.predict("runs/first", "photos/fishes")][:1]
        ['photos/fishes/image_0001.jpg']
    """
    from simimg.evaluation import compiled, predict_files
    from simimg.pictures import named_files
    from simimg.training import load_trained

    paths = named_files([str(one) for one in ([images] if isinstance(images, str | Path) else images)])
    model, info = load_trained(Path(model_dir))
    if info.objective.score == "recall":
        raise UsageError(
            f"{model_dir} was trained to find copies and knows no classes. Make an index with it: "
            f"simimg index --model={model_dir} --image_dir=PATH --index_dir=PATH; then: simimg search."
        )
    found = predict_files(
        compiled(model, views=info.config["test_views"]),
        paths,
        image_size=info.image_size,
        resize=info.resize,
        num_classes=len(info.class_names),
        progress=_counted(progress, len(paths)),
    )
    for path, refusal in found.refused:
        refused(path, str(refusal))
    predictions = []
    for path, row in zip(found.paths, found.probabilities, strict=True):
        order = (-row).argsort(kind="stable").tolist()
        named = {info.class_names[label]: float(row[label]) for label in order}
        best = info.class_names[order[0]]
        predictions.append(Prediction(path, best, named[best], named))
    return predictions


def index(
    image_dir: _Folder | None = None,
    index_dir: _Folder = "index",
    *,
    dataset_dir: _Folder | None = None,
    model: str = "lite0",
) -> IndexUpdate:
    """Makes a search index of a folder of pictures, or of a data set, or brings one up to date.

    Args:
        image_dir: a folder of pictures, at any depth; its first folders are the labels.
        index_dir: where the index goes, or is.
        dataset_dir: a data set, instead of `image_dir`, or with it: then that is where its files lie.
        model: a shipped model's name, or the folder of a run.

    Raises:
        UsageError: neither source was given, or it has no pictures.
        SearchIndexError: the index was made with another model, or is damaged.

    Example:
        >>> made = simimg.index("photos", "indexes/photos")
        >>> made.num_embedded, len(made.refused)
        (40, 2)
    """
    from simimg.similarity import index_dataset, index_folder, load_embedder

    if dataset_dir is not None:
        files_in = None if image_dir is None else Path(image_dir)
        return index_dataset(Path(index_dir), Path(dataset_dir), load_embedder(model), image_dir=files_in)
    if image_dir is None:
        raise UsageError("name what to index: image_dir, or dataset_dir.")
    return index_folder(Path(index_dir), Path(image_dir), load_embedder(model))


def search(index_dir: _Folder, image: _Folder | Image.Image, *, k: int = 5, by: str = "copy") -> list[Found]:
    """Finds the pictures of an index that are similar to one; for many, keep a `Searcher`.

    Example:
        >>> best = simimg.search("indexes/photos", "photos/fishes/image_0002.jpg")[0]
        >>> best.path.name, best.similarity, best.reasons
        ('image_0002.jpg', 1.0, ('the same pixels',))
    """
    with Searcher(index_dir) as searcher:
        return searcher.search(image, k=k, by=by)


class Searcher:
    """An opened index with its model, for one query after another. Use it from one thread.

    Example:
        >>> from PIL import Image, ImageOps
        >>> with simimg.Searcher("indexes/photos") as searcher:
        ...     best = searcher.search(ImageOps.mirror(Image.open("photos/fishes/image_0002.jpg")))[0]
        >>> best.picture.path, best.is_copy, best.reasons
        ('fishes/image_0002.jpg', True, ('mirrored',))
    """

    def __init__(self, index_dir: _Folder) -> None:
        """Open an index.

        Raises:
            SearchIndexError: it is none, or damaged, or its model has changed.
        """
        from simimg.similarity import Finder, SearchIndex, load_embedder

        self.index: SearchIndex = SearchIndex.open(Path(index_dir))
        self._finder = Finder(self.index, load_embedder(self.index.info.model))

    def search(self, image: _Folder | Image.Image, *, k: int = 5, by: str = "copy") -> list[Found]:
        """Returns the `k` most similar pictures, best first.

        Args:
            image: a file, or a picture in memory, of any mode.
            k: at least 1.
            by: `copy`: verified copies first, with what was done to them; `kind`: pictures of the same kind.

        Raises:
            UsageError: the file cannot be decoded, or `k` or `by` cannot be.
        """
        from simimg.similarity import BY, Query, load_query
        from simimg.similarity.find import make_query

        if k < 1 or by not in BY:
            raise UsageError(f"k={k}, by={by!r}: k should be 1 or more, by one of {', '.join(BY)}.")
        if isinstance(image, str | Path):
            query = load_query(str(image), self._finder.embedder)
            if not isinstance(query, Query):
                raise UsageError(f"{image} cannot be decoded: {query}.")
        else:
            query = make_query("", image.convert("RGB"), self._finder.embedder)
        return self._finder.find(query, k, by)

    def close(self) -> None:
        """Ends its threads."""
        self._finder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def duplicates(
    image_dir: _Folder | None = None,
    *,
    index_dir: _Folder | None = None,
    model: str = "lite0",
    threshold: float = 0.0,
    reference_dirs: Iterable[_Folder] = (),
    plan: _Folder | None = None,
) -> Duplicates:
    """Finds the copies in a folder of pictures; nothing is moved.

    Args:
        image_dir: the folder, or None for the pictures of the index as they are.
        index_dir: an index of it, which is brought up to date; None: it is made, and thrown away.
        model: as for `index`.
        threshold: the least similarity of copies, 0.5 to 1; 0: what `simimg calibrate` found, or 0.9.
        reference_dirs: folders below `image_dir` whose files are always kept.
        plan: also write what to keep and what to remove into this file, for `simimg apply`.

    Raises:
        UsageError: there is nothing to look through, or an argument cannot be used.

    Example:
        >>> found = simimg.duplicates("photos", plan="plan.json")
        >>> [(group.keeper.picture.path, len(group.others)) for group in found.groups]
        []
    """
    from simimg.similarity import SearchIndex, find_duplicates, reference_of, write_plan

    _check_threshold(threshold)
    with ExitStack() as stack:
        if image_dir is not None:
            folder = index_dir or Path(stack.enter_context(tempfile.TemporaryDirectory())) / "index"
            opened = index(image_dir, folder, model=model).index
        elif index_dir is not None:
            opened = SearchIndex.open(Path(index_dir))
        else:
            raise UsageError("name what to look through: image_dir, index_dir, or both.")
        is_reference = reference_of(opened, tuple(str(one) for one in reference_dirs))
        found = find_duplicates(
            opened,
            threshold=threshold or opened.copy_threshold,
            reference=lambda picture: is_reference(picture.path),
        )
        if plan is not None:
            write_plan(Path(plan), opened.files_dir(), found.groups, is_reference)
    return found


def leaks(
    dataset_dir: _Folder, *, image_dir: _Folder | None = None, model: str = "lite0", threshold: float = 0.0
) -> Leaks:
    """Finds the copies across a data set's splits: what was tested on and trained on.

    Args:
        dataset_dir: the data set's folder.
        image_dir: the folder that it was made of, for a look at the files themselves.
        model: as for `index`.
        threshold: as for `duplicates`.

    Example:
        >>> simimg.leaks("data/photos/1.0.0", image_dir="photos").affected("test")
        0
    """
    from simimg.similarity import find_leaks

    _check_threshold(threshold)
    with tempfile.TemporaryDirectory() as folder:
        opened = index(image_dir, Path(folder) / "index", dataset_dir=dataset_dir, model=model).index
        return find_leaks(opened, threshold=threshold or opened.copy_threshold)


def _counted(progress: Callable[[int, int], object], total: int) -> Callable[[int], None]:
    """Returns what adds up and passes on the numbers that it is called with."""
    done = 0

    def advance(number: int) -> None:
        nonlocal done
        done += number
        progress(done, total)

    return advance


def _check_threshold(threshold: float) -> None:
    if threshold and not 0.5 <= threshold <= 1:
        raise UsageError(f"threshold={threshold}: should be between 0.5 and 1.")


def _options(kind: Any, command: str, given: dict[str, Any]) -> Any:
    _check_names(kind, command, given)
    for name in ("data_dir", "model_dir"):
        if isinstance(given.get(name), str):
            given[name] = Path(given[name])
    if "categories" in given:
        given["categories"] = tuple(given["categories"])
    return kind(**given)


def _check_names(kind: Any, command: str, given: dict[str, Any]) -> None:
    """Raises UsageError for an option that there is not, naming the nearest one."""
    names = [field.name for field in dataclasses.fields(kind)]
    for name in given:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            raise UsageError(
                f"{command} has no option {name!r}."
                + (f" Did you mean {near[0]!r}?" if near else f" `simimg {command} --help` lists them.")
            )
