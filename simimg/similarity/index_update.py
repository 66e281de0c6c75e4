"""Indexing: only what is new or changed is embedded, and a stopped run goes on where it was.

A file counts as unchanged if its path, size and time are those of the index; else it is read, and is embedded unless
its bytes are known from anywhere in the index. So a moved folder costs a read of its files, and a second run nothing.
What is embedded is written down every few hundred pictures under `<index_dir>/unfinished/`, by its bytes' checksum; the
next run takes it from there, however this one ended. The index itself changes at the end, at once.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from simimg.errors import SearchIndexError, UsageError
from simimg.image_files import BATCH_SIZE, load_files
from simimg.input import eval_batches, open_reader
from simimg.similarity.embedding_cache import UNFINISHED, EmbeddingCache
from simimg.similarity.embeddings import Embedder
from simimg.similarity.search_index import INFO_FILE, IndexedImage, SearchIndex, write_generation
from tfrecords.convert.sources import SUFFIXES, printable, walk
from tfrecords.format.atomic_files import locked_file
from tfrecords.format.layout import Layout
from tfrecords.format.manifest import OK, read_manifest
from tfrecords.format.quarantine import Reason, Refusal

__all__ = ["IndexUpdate", "index_dataset", "index_folder"]

_LOCK_FILE = ".lock"
_REFIT_GROWTH = 1.5  # projections are fitted anew when the collection has grown or shrunk by this factor


_Progress = Callable[[int], object]


@dataclasses.dataclass(frozen=True)
class IndexUpdate:
    """What became of an index: the index, how many pictures were embedded, kept and removed, and what was refused."""

    index: SearchIndex
    num_embedded: int
    num_kept: int
    num_removed: int
    refused: tuple[tuple[str, Refusal], ...]


def index_folder(
    index_dir: Path,
    image_dir: Path,
    embedder: Embedder,
    *,
    begin: _Progress = lambda num_files: None,
    progress: _Progress = lambda num_files: None,
) -> IndexUpdate:
    """Brings an index up to date with a folder of pictures, or makes it.

    Args:
        index_dir: the index.
        image_dir: the folder, at any depth; its first folders are the labels.
        embedder: the model.
        begin: called with the number of files, once it is known.
        progress: called with the number of files since the last call.

    Raises:
        UsageError: there are no pictures; or `index_dir` is something else, or is in use.
        SearchIndexError: the index was made with another model, or is damaged.
    """
    if not image_dir.is_dir():
        raise UsageError(f"--image_dir={image_dir} is not a folder. Name a folder of pictures.")
    found = walk(image_dir)
    own = index_dir.resolve()
    paths = [path for path in found if Path(path).suffix.lower() in SUFFIXES]
    pictured = set(paths)
    strays = [
        (path, Refusal(Reason.UNKNOWN_SUFFIX, "not the name of a picture"))
        for path in found
        if path not in pictured and not (image_dir / path).resolve().is_relative_to(own)
    ]
    if not paths:
        raise UsageError(
            f"--image_dir={image_dir} has no image file ({len(found)} other files). Name a folder of pictures."
        )
    begin(len(paths))
    with _locked(index_dir):
        before = _open_before(index_dir, embedder, dataset_dir=None)
        memory = EmbeddingCache(index_dir, embedder, before)
        same_place = before is not None and before.info.image_dir == str(image_dir.resolve())
        unchanged = {picture.path: picture for picture in before.pictures} if before and same_place else {}
        rows: dict[str, IndexedImage] = {}
        to_read: list[str] = []
        times: dict[str, tuple[int, int]] = {}
        for path in paths:
            times[path] = _size_and_time(image_dir / path)
            old = unchanged.get(printable(path))
            if old and (old.num_bytes, old.modified_ns) == times[path] and old.sha256 in memory:
                rows[path] = old
            else:
                to_read.append(path)
        progress(len(rows))
        refused: list[tuple[str, Refusal]] = []
        for path, loaded in load_files(
            to_read, image_dir, image_size=embedder.image_size, how=embedder.resize, known=memory
        ):
            if isinstance(loaded, Refusal):
                refused.append((path, loaded))
                progress(1)
                continue
            facts, pixels = loaded
            num_bytes, modified_ns = times[path]
            picture = IndexedImage(
                path=printable(path),
                sha256=facts.sha256,
                num_bytes=num_bytes,
                modified_ns=modified_ns,
                width=facts.width,
                height=facts.height,
                label=_label(path),
            )
            rows[path] = picture
            if pixels is not None:
                memory.add(picture, pixels)
            progress(1)
        memory.finish()
        if not rows:
            raise UsageError(f"--image_dir={image_dir}: none of its {len(paths)} image files can be decoded.")
        pictures = [memory.with_facts(rows[path]) for path in paths if path in rows]
        index = _write(index_dir, embedder, memory, pictures, before, image_dir=image_dir, dataset_dir=None)
    return _update(index, memory, before, [*strays, *refused])


def index_dataset(
    index_dir: Path,
    dataset_dir: Path,
    embedder: Embedder,
    *,
    image_dir: Path | None = None,
    begin: _Progress = lambda num_examples: None,
    progress: _Progress = lambda num_examples: None,
) -> IndexUpdate:
    """Brings an index up to date with a data set of `simimg convert`, all its splits, or makes it.

    Args:
        index_dir: the index.
        dataset_dir: the data set.
        embedder: the model.
        image_dir: where the files lie that it was made of, for a closer look at them; its own pixels are embedded.
        begin: called with the number of examples, once it is known.
        progress: called with the number of examples since the last call.

    Raises:
        UsageError: `dataset_dir` is no data set; or `index_dir` is something else, or is in use.
        SearchIndexError: the index was made with another model, or is damaged.
    """
    if not Layout.exists(dataset_dir):
        raise UsageError(f"--dataset_dir={dataset_dir} is no data set of `simimg convert`: it has no layout.json.")
    layout = Layout.load(dataset_dir)
    rows = {row.id: row for row in read_manifest(dataset_dir) if row.status == OK}
    begin(len(rows))
    if not rows:
        raise UsageError(f"--dataset_dir={dataset_dir} has no example. Convert some pictures.")
    with _locked(index_dir):
        before = _open_before(index_dir, embedder, dataset_dir=dataset_dir)
        pixels = _stored_as(layout)
        same_pixels = before is not None and before.info.pixels == pixels
        memory = EmbeddingCache(index_dir, embedder, before if same_pixels else None, pixels)
        pictures: list[IndexedImage] = []
        for split in layout.splits:
            if not layout.num_examples(split):
                continue
            reader, _ = open_reader(dataset_dir, split)
            for batch in eval_batches(reader, BATCH_SIZE):
                images = batch.image.numpy()
                for place, id in enumerate(batch.id.numpy().tolist()):
                    if id < 0:  # fills the last batch up
                        continue
                    row = rows[id]
                    picture = IndexedImage(
                        path=row.path,
                        sha256=row.sha256,
                        width=row.width,
                        height=row.height,
                        label=layout.class_names[row.label],
                        split=split,
                    )
                    pictures.append(picture)
                    memory.add(picture, images[place])
                    progress(1)
        memory.finish()
        pictures = [memory.with_facts(picture) for picture in pictures]
        index = _write(
            index_dir, embedder, memory, pictures, before, image_dir=image_dir, dataset_dir=dataset_dir, pixels=pixels
        )
    return _update(index, memory, before, [])


def _write(
    index_dir: Path,
    embedder: Embedder,
    memory: EmbeddingCache,
    pictures: Sequence[IndexedImage],
    before: SearchIndex | None,
    *,
    image_dir: Path | None,
    dataset_dir: Path | None,
    pixels: str = "",
) -> SearchIndex:
    """Writes the next generation, unless the one before says the same."""
    info = None if before is None else before.info
    places = tuple(None if place is None else str(place.resolve()) for place in (image_dir, dataset_dir))
    if (
        before is not None
        and (before.info.image_dir, before.info.dataset_dir, before.info.pixels) == (*places, pixels)
        and list(before.pictures) == list(pictures)
    ):
        memory.forget_parts()
        return before
    embeddings = np.stack([memory.embedding(picture) for picture in pictures])
    kept = (
        info is not None
        and before is not None
        and info.pixels == pixels
        and max(len(pictures), info.num_fitted) < _REFIT_GROWTH * min(len(pictures), info.num_fitted)
        and set(before.pictures.column("label")) == {picture.label for picture in pictures}
    )
    index = write_generation(
        index_dir,
        embedder,
        embeddings,
        pictures,
        image_dir=image_dir,
        dataset_dir=dataset_dir,
        projections=before.projections if kept and before else None,
        num_fitted=info.num_fitted if kept and info else 0,
        pixels=pixels,
        thresholds=info.thresholds if kept and info else None,
    )
    memory.forget_parts()
    return index


def _update(
    index: SearchIndex, memory: EmbeddingCache, before: SearchIndex | None, refused: list[tuple[str, Refusal]]
) -> IndexUpdate:
    there = set(index.pictures.column("path"))
    removed = sum(path not in there for path in before.pictures.column("path")) if before else 0
    return IndexUpdate(index, memory.num_embedded, len(there) - memory.num_embedded, removed, tuple(refused))


def _open_before(index_dir: Path, embedder: Embedder, *, dataset_dir: Path | None) -> SearchIndex | None:
    if not (index_dir / INFO_FILE).is_file():
        strange = [path.name for path in index_dir.iterdir() if path.name not in (_LOCK_FILE, UNFINISHED)]
        strange = [name for name in strange if "generation-" not in name]
        if strange:
            raise UsageError(f"--index_dir={index_dir} is no index and not empty ({strange[0]}). Name a new folder.")
        return None
    before = SearchIndex.open(index_dir)
    if before.info.model_fingerprint != embedder.fingerprint:
        raise SearchIndexError(
            f"{index_dir} was made with --model={before.info.model} of other weights than {embedder.name}'s, and "
            "embeddings of two models cannot be compared. Name another --index_dir, or remove that folder first."
        )
    if (before.info.dataset_dir is None) != (dataset_dir is None):
        raise SearchIndexError(
            f"{index_dir} is the index of {before.info.dataset_dir or before.info.image_dir}, "
            "and files and a data set's pictures are not mixed. Name another --index_dir, or remove that folder first."
        )
    return before


def _stored_as(layout: Layout) -> str:
    """One word for all that decides the pixels of an example: a file's bytes are not enough to know them by."""
    names = ("image_size", "resize", "decode", "truncated", "background", "encoding", "jpeg_quality")
    described = json.dumps({name: layout.config.get(name) for name in names})
    return hashlib.sha256(described.encode()).hexdigest()[:16]


@contextmanager
def _locked(index_dir: Path) -> Iterator[None]:
    """Holds the index's folder, so that no second process writes into it."""
    try:
        new = not index_dir.exists()
        index_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--index_dir={index_dir} cannot be made: {error.strerror}.") from None

    def held(holder: str) -> UsageError:
        return UsageError(f"another process ({holder}) is writing {index_dir}. Wait for it, or stop it.")

    with locked_file(index_dir / _LOCK_FILE, held):
        try:
            yield
        finally:
            if new and [path.name for path in index_dir.iterdir()] == [_LOCK_FILE]:
                shutil.rmtree(index_dir)


def _size_and_time(path: Path) -> tuple[int, int]:
    try:
        facts = os.stat(path)
    except OSError:  # reading it says what is wrong
        return 0, 0
    return facts.st_size, facts.st_mtime_ns


def _label(path: str) -> str:
    return printable(path.split("/", 1)[0]) if "/" in path else ""
