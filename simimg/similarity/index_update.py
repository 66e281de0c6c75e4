"""Updates an index: only new or changed images are embedded, and an interrupted run is resumed.

A file is unchanged if its path, size and time are those of the index. Every other file is read, but it is embedded only
if its bytes are nowhere in the index. So indexing a moved folder reads its files but embeds nothing, and a second run
does not even read them. After every few hundred images, new embeddings are saved in `<index_dir>/unfinished/` by the
checksum of the file, where the next run finds them, however this one ended. The index itself changes at the end, in one
step.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from simimg.errors import SearchIndexError, UsageError
from simimg.image_files import BATCH_SIZE, LoadedFile, load_files
from simimg.input import eval_batches, open_reader, reading
from simimg.similarity.embedding_cache import UNFINISHED, EmbeddingCache
from simimg.similarity.embeddings import Embedder
from simimg.similarity.image_table import IndexedImage, size_and_time
from simimg.similarity.index_info import INFO_FILE, LOCK_FILE, locked_index
from simimg.similarity.search_index import SearchIndex, write_generation
from tfrecords.convert.sources import SUFFIXES, printable, walk
from tfrecords.format.atomic_files import file_identity
from tfrecords.format.layout import Layout
from tfrecords.format.manifest import OK, read_manifest
from tfrecords.format.quarantine import Reason, Refusal

_REFIT_GROWTH = 1.5  # projections are fitted again if the collection has grown or shrunk by this factor

_Progress = Callable[[int], object]
_Refusals = list[tuple[str, Refusal]]


@dataclasses.dataclass(frozen=True)
class IndexUpdate:
    """The updated index.

    Attributes:
        index: opened.
        num_embedded: of images.
        num_kept: of images whose embedding was known.
        num_removed: of images that were in the index before.
        refused: files that are not in the index, each with the reason.
        other_names: names that lead to a file which is in the index already, each with its name there.
        outdated: whether its thresholds were calibrated on a collection that has changed much since.
    """

    index: SearchIndex
    num_embedded: int
    num_kept: int
    num_removed: int
    refused: tuple[tuple[str, Refusal], ...]
    other_names: tuple[tuple[str, str], ...] = ()
    outdated: bool = False


def index_folder(
    index_dir: Path,
    image_dir: Path,
    embedder: Embedder,
    *,
    begin: _Progress = lambda num_files: None,
    progress: _Progress = lambda num_files: None,
) -> IndexUpdate:
    """Create an index of a folder of images, searched recursively, or update it.

    The label of an image is the name of the first subfolder. A file that has several names there, by links, is indexed
    once. `begin` is called with the total number of files, and `progress` with the number of files since its last call.

    Raises:
        UsageError: the folder has no images, or `index_dir` is not an index, or another process is writing it.
        SearchIndexError: the index was made with another model, or is damaged.
    """
    if not image_dir.is_dir():
        raise UsageError(f"--image_dir={image_dir} is not a folder. Name a folder of images.")
    found = walk(image_dir)
    own = index_dir.resolve()
    image_paths = {path for path in found if Path(path).suffix.lower() in SUFFIXES}
    refused: _Refusals = [
        (path, Refusal(Reason.UNKNOWN_SUFFIX, "not the name of an image"))
        for path in found
        if path not in image_paths and not (image_dir / path).resolve().is_relative_to(own)
    ]
    paths, other_names = _one_name_each(image_dir, [path for path in found if path in image_paths])
    if not paths:
        raise UsageError(
            f"--image_dir={image_dir} has no image file ({len(found)} other files). Name a folder of images."
        )
    begin(len(paths))
    with _locked(index_dir):
        before = _open_before(index_dir, embedder, dataset_dir=None)
        cache = EmbeddingCache(index_dir, embedder, before)
        same_place = before is not None and before.info.image_dir == str(image_dir.resolve())
        unchanged = {image.path: image for image in before.images} if before and same_place else {}
        images = {path: _unread(image_dir, path) for path in paths}
        to_read = []
        for path, image in images.items():
            old = unchanged.get(image.path)
            times = image.num_bytes, image.modified_ns
            if old and (old.num_bytes, old.modified_ns) == times and old.sha256 in cache:
                images[path] = old
            else:
                to_read.append(path)
        progress(len(paths) - len(to_read))
        for path, loaded in load_files(to_read, embedder.image_options, image_dir, known=cache):
            if isinstance(loaded, Refusal):
                refused.append((path, loaded))
                del images[path]
            else:
                images[path] = dataclasses.replace(images[path], sha256=loaded.sha256)
                cache.add(loaded)
            progress(1)
        if not images:
            raise UsageError(f"--image_dir={image_dir}: none of its {len(paths)} image files can be decoded.")
        made = _finish(index_dir, embedder, cache, list(images.values()), before, refused, image_dir=image_dir)
        return dataclasses.replace(made, other_names=tuple(other_names))


def index_dataset(
    index_dir: Path,
    dataset_dir: Path,
    embedder: Embedder,
    *,
    image_dir: Path | None = None,
    begin: _Progress = lambda num_examples: None,
    progress: _Progress = lambda num_examples: None,
) -> IndexUpdate:
    """Create an index of all splits of a dataset of `simimg convert`, or update it.

    The stored pixels are embedded; `image_dir`, the folder of the files that the dataset was made of, is for
    verification. `begin` and `progress` are those of `index_folder`, for examples instead of files.

    Raises:
        UsageError: `dataset_dir` is not a dataset, or `index_dir` is not an index, or another process is writing it.
        SearchIndexError: the index was made with another model, or is damaged.
        DataError: a record of the dataset is damaged; names its file and place.
    """
    if not Layout.exists(dataset_dir):
        raise UsageError(f"--dataset_dir={dataset_dir} is not a dataset of `simimg convert`: it has no layout.json.")
    layout = Layout.load(dataset_dir)
    rows = {row.id: row for row in read_manifest(dataset_dir) if row.status == OK}
    begin(len(rows))
    if not rows:
        raise UsageError(f"--dataset_dir={dataset_dir} has no examples. Convert some images.")
    with _locked(index_dir):
        before = _open_before(index_dir, embedder, dataset_dir=dataset_dir)
        pixels = _pixels_id(layout)
        same_pixels = before is not None and before.info.pixels == pixels
        cache = EmbeddingCache(index_dir, embedder, before if same_pixels else None, pixels)
        images: list[IndexedImage] = []
        for split in layout.splits:
            if not layout.num_examples(split):
                continue
            reader, _ = open_reader(dataset_dir, split)
            for batch in reading(reader.split, eval_batches(reader, BATCH_SIZE)):
                for id, square in zip(batch.id.numpy().tolist(), batch.image.numpy(), strict=True):
                    if id < 0:  # padding of the last batch
                        continue
                    row = rows[id]
                    label = layout.class_names[row.label]
                    images.append(IndexedImage(path=row.path, sha256=row.sha256, label=label, split=split))
                    cache.add(LoadedFile(row.sha256, row.width, row.height, square))
                    progress(1)
        return _finish(
            index_dir, embedder, cache, images, before, [], image_dir=image_dir, dataset_dir=dataset_dir, pixels=pixels
        )


def _finish(
    index_dir: Path,
    embedder: Embedder,
    cache: EmbeddingCache,
    images: Sequence[IndexedImage],
    before: SearchIndex | None,
    refused: _Refusals,
    *,
    image_dir: Path | None,
    dataset_dir: Path | None = None,
    pixels: str = "",
) -> IndexUpdate:
    """Embed the remaining images and write the next generation, unless the current one is the same.

    Of that one, the model's name is still written if its folder was moved.
    """
    cache.finish()
    images = [cache.with_facts(image) for image in images]
    places = tuple(None if place is None else str(place.resolve()) for place in (image_dir, dataset_dir))
    fits = before is not None and _still_fits(before, images, pixels)
    if (
        before is not None
        and (before.info.image_dir, before.info.dataset_dir, before.info.pixels) == (*places, pixels)
        and list(before.images) == images
    ):
        index = before if before.info.model == embedder.name else before.with_model(embedder.name)
    else:
        index = write_generation(
            index_dir,
            embedder,
            np.stack([cache.embedding(image) for image in images]),
            images,
            image_dir=image_dir,
            dataset_dir=dataset_dir,
            pixels=pixels,
            fitted=before if fits else None,
            thresholds=before.info.thresholds if before else {},
        )
    cache.remove_parts()
    paths = set(index.images.column("path"))
    num_removed = sum(path not in paths for path in before.images.column("path")) if before else 0
    return IndexUpdate(
        index,
        cache.num_embedded,
        len(paths) - cache.num_embedded,
        num_removed,
        tuple(refused),
        outdated=bool(index.info.thresholds) and not fits,
    )


def _still_fits(before: SearchIndex, images: Sequence[IndexedImage], pixels: str) -> bool:
    """Whether the projections of an index hold for these images."""
    fewer, more = sorted((len(images), before.info.num_fitted))
    same_labels = set(before.images.column("label")) == {image.label for image in images}
    return before.info.pixels == pixels and more < _REFIT_GROWTH * fewer and same_labels


def _open_before(index_dir: Path, embedder: Embedder, *, dataset_dir: Path | None) -> SearchIndex | None:
    if not (index_dir / INFO_FILE).is_file():
        strange = [path.name for path in index_dir.iterdir() if path.name not in (LOCK_FILE, UNFINISHED)]
        strange = [name for name in strange if "generation-" not in name]
        if strange:
            raise UsageError(
                f"--index_dir={index_dir} is not empty and not an index: it has {strange[0]}. Name a new folder."
            )
        return None
    before = SearchIndex.open(index_dir)
    if before.info.model_fingerprint != embedder.fingerprint:
        raise SearchIndexError(
            f"{index_dir} was made with --model={before.info.model}, of other weights than {embedder.name}, and "
            "embeddings of two models cannot be compared. Name another --index_dir, or remove that folder first."
        )
    if (before.info.dataset_dir is None) != (dataset_dir is None):
        raise SearchIndexError(
            f"{index_dir} is the index of {before.info.dataset_dir or before.info.image_dir}. An index is either of "
            "files or of a dataset. Name another --index_dir, or remove that folder first."
        )
    return before


def _pixels_id(layout: Layout) -> str:
    """Return an id of all options that determine the stored pixels; the bytes of the file alone do not."""
    names = ("image_size", "resize", "decode", "truncated", "background", "encoding", "jpeg_quality")
    described = json.dumps({name: layout.config.get(name) for name in names})
    return hashlib.sha256(described.encode()).hexdigest()[:16]


@contextmanager
def _locked(index_dir: Path) -> Iterator[None]:
    """Lock the folder of the index, so that no second process writes to it."""
    try:
        new = not index_dir.exists()
        index_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--index_dir={index_dir} cannot be created: {error.strerror}.") from None
    with locked_index(index_dir):
        try:
            yield
        finally:
            if new and [path.name for path in index_dir.iterdir()] == [LOCK_FILE]:
                shutil.rmtree(index_dir)


def _one_name_each(folder: Path, paths: list[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Return one path of each file, and the other paths with the one of the same file.

    The path without links is preferred, and then the first.
    """
    names = defaultdict(list)
    for path in paths:
        names[file_identity(folder / path) or path].append(path)
    root = folder.resolve()
    chosen, others = set(), []
    for same in names.values():
        best = same[0]
        if len(same) > 1:
            best = next((path for path in same if (root / path).resolve() == root / path), best)
            others += [(printable(path), printable(best)) for path in same if path != best]
        chosen.add(best)
    return [path for path in paths if path in chosen], others


def _unread(image_dir: Path, path: str) -> IndexedImage:
    """Return what is known of a file that was not read."""
    label, slash, _ = printable(path).partition("/")
    image = IndexedImage(path=printable(path), sha256="", label=label if slash else "")
    try:
        num_bytes, modified_ns = size_and_time(os.stat(image_dir / path))
    except OSError:  # reported when it is read
        return image
    return dataclasses.replace(image, num_bytes=num_bytes, modified_ns=modified_ns)
