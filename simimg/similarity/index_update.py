"""Updates an index: only new or changed images are embedded, and an interrupted run is resumed.

A file is unchanged if its path, size and time are those of the index. Every other file is read, but it is embedded only
if its bytes are nowhere in the index. So indexing a moved folder reads its files but embeds nothing, and a second run
does not even read them. After every few hundred images, new embeddings are saved in `<index_dir>/unfinished/` by the
checksum of the file, where the next run finds them, however this one ended. The index itself changes at the end, in one
step. An index of an earlier version lacks hashes; its files are read once more, but not embedded.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil

from simimg.errors import SearchIndexError, UsageError
from simimg.image_files import load_files
from simimg.inference.inference_engine import MAX_DIFFERENCE, Engine
from simimg.similarity.decisions import DECISIONS_FILE
from simimg.similarity.embedding_cache import UNFINISHED, EmbeddingCache
from simimg.similarity.embeddings import Embedder
from simimg.similarity.fingerprint_store import is_fingerprints
from simimg.similarity.folder_images import find_images
from simimg.similarity.image_table import IndexedImage
from simimg.similarity.index_info import INFO_FILE, LOCK_FILE, all_of, locked_index
from simimg.similarity.index_tasks import StoredImages, embed_files, embed_stored
from simimg.similarity.search_index import SearchIndex, write_generation
from tfrecords.convert.sources import Selection
from tfrecords.convert.workers.runner import Runner
from tfrecords.format.layout import Layout
from tfrecords.format.manifest import Manifest
from tfrecords.format.quarantine import Refusal
from tfrecords.machine_limits import memory_limit
from tfrecords.storage.remote_folder import origin_of

_GROWTH = 1.5  # thresholds should be calibrated again if the collection has grown or shrunk by this factor
_FEW_IMAGES = 100_000  # which fit into any memory
_BYTES_PER_IMAGE = 1_900  # names, checksums, facts and times of an image, as Python's objects; measured
_OTHER_FILES = (UNFINISHED, DECISIONS_FILE)  # of a folder that has no index yet, or no longer
_EARLIER = Engine("TensorFlow", "of an earlier version", "float32", "unknown")
_VECTOR_CODE = "vector code"  # `IndexInfo.pixels` of files that were resized so, see `ImageOptions`
_LOG = logging.getLogger(__name__)

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
        notes: what was left out on purpose, for the user.
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
    notes: tuple[str, ...] = ()


def index_folder(
    index_dir: Path,
    image_dir: Path,
    embedder: Embedder,
    *,
    selection: Selection | None = None,
    runner_of: Callable[[Callable[[int], str]], Runner] | None = None,
    begin: _Progress = lambda num_files: None,
    progress: _Progress = lambda num_files: None,
    also: Callable[[str, bytes], object] | None = None,
) -> IndexUpdate:
    """Create an index of a folder of images, searched recursively, or update it.

    The label of an image is its class folder, as in `simimg convert`: the first subfolder, or that below or above a
    split folder. A file that has several names there, by links, is indexed once. Hidden and system files, files that
    belong to an image, and what `selection` does not take are left out. `runner_of` makes the runner of tasks, of a
    function that names a file by its number; without it, all is done in this process. `begin` is called with the total
    number of files, `progress` with the number of files since its last call, and `also` as by `load_files`.

    Raises:
        UsageError: the folder has no images, or more than fit into memory, or `index_dir` is not an index, or another
            process is writing it.
        SearchIndexError: the index was made with another model, or is damaged.
    """
    found = find_images(image_dir, selection, index_dir)
    paths, refused = list(found.images), list(found.refused)
    _check_memory(len(paths), embedder)
    begin(len(paths))
    with _locked(index_dir):
        before = _open_before(index_dir, embedder, dataset_dir=None)
        cache = EmbeddingCache(index_dir, embedder, before)
        same_place = before is not None and before.info.image_dir == str(image_dir.resolve())
        unchanged = {image.path: image for image in before.images} if before and same_place else {}
        images = dict(found.images)
        to_read = []
        for path, image in images.items():
            old = unchanged.get(image.path)
            times = image.num_bytes, image.modified_ns
            if old and (old.num_bytes, old.modified_ns) == times and old.sha256 in cache:
                images[path] = old if old.label == image.label else dataclasses.replace(old, label=image.label)
            elif sha256 := cache.resumed_files.get((path, *times)):
                images[path] = dataclasses.replace(image, sha256=sha256)
            else:
                to_read.append(path)
        progress(len(paths) - len(to_read))
        if runner_of is None:
            options = embedder.image_options
            for path, loaded in load_files(to_read, options, image_dir, known=cache, visible=True, also=also):
                if isinstance(loaded, Refusal):
                    refused.append((path, loaded))
                    del images[path]
                else:
                    images[path] = dataclasses.replace(images[path], sha256=loaded.sha256)
                    cache.add(loaded)
                progress(1)
        else:
            with runner_of(to_read.__getitem__) as runner:
                embedded = embed_files(runner, image_dir, images, to_read, embedder, cache, progress=progress)
            for path in to_read:
                if (refusal := embedded.refused.get(path)) is not None:
                    refused.append((path, refusal))
                    del images[path]
                else:
                    images[path] = dataclasses.replace(images[path], sha256=embedded.checksums[path])
        if not images:
            raise UsageError(f"--image_dir={image_dir}: none of its {len(paths)} image files can be decoded.")
        pixels = _VECTOR_CODE if embedder.vector_code else ""
        if before is not None and before.info.pixels != pixels and len(to_read) < len(paths):
            pixels = before.info.pixels  # as long as one of them is there
            if to_read:
                _LOG.info(
                    "%s: new images are resized by vector code, those of before were by Pillow; embeddings of images "
                    "that are no JPEGs differ slightly (cosine 0.999 and more)",
                    index_dir,
                )
        made = _finish(
            index_dir, embedder, cache, list(images.values()), before, refused, image_dir=image_dir, pixels=pixels
        )
        return dataclasses.replace(made, other_names=found.other_names, notes=found.notes)


def index_dataset(
    index_dir: Path,
    dataset_dir: Path,
    embedder: Embedder,
    *,
    image_dir: Path | None = None,
    runner_of: Callable[[Callable[[int], str]], Runner] | None = None,
    begin: _Progress = lambda num_examples: None,
    progress: _Progress = lambda num_examples: None,
) -> IndexUpdate:
    """Create an index of all splits of a dataset of `simimg convert`, or update it.

    The stored pixels are embedded; images in their own shapes become squares as files do. `image_dir`, the folder of
    the files that the dataset was made of, is for verification. `runner_of`, `begin` and `progress` are those of
    `index_folder`, for examples instead of files.

    Raises:
        UsageError: `dataset_dir` is not a dataset, or has more images than fit into memory, or `index_dir` is not an
            index, or another process is writing it.
        SearchIndexError: the index was made with another model, or is damaged.
        DataError: a record of the dataset is damaged; names its file and place.
    """
    Layout.demand(dataset_dir)
    stored = StoredImages(dataset_dir)
    layout, manifest = stored.layout, stored.manifest
    rows = _in_order(manifest, layout)
    _check_memory(len(rows), embedder)
    begin(len(rows))
    if not rows:
        raise UsageError(f"--dataset_dir={dataset_dir} has no examples. Convert some images.")
    with _locked(index_dir):
        before = _open_before(index_dir, embedder, dataset_dir=dataset_dir)
        pixels = _pixels_id(layout, embedder)
        same_pixels = before is not None and before.info.pixels == pixels
        cache = EmbeddingCache(index_dir, embedder, before if same_pixels else None, pixels)
        if runner_of is not None:
            checksums = [stored.sha256(row) for row in rows]
            first_of = dict(zip(reversed(checksums), reversed(rows), strict=True))
            todo = [row for row, one in zip(rows, checksums, strict=True) if first_of[one] == row and one not in cache]
            progress(len(rows) - len(todo))
            with runner_of(lambda row: manifest.paths[row]) as runner:
                embed_stored(runner, stored, todo, embedder, cache, progress=progress)
        images: list[IndexedImage] = []
        for row, file in zip(rows, stored.load(rows, embedder, cache), strict=True):
            label = layout.counted_names[manifest.labels[row]]
            split = manifest.split_names[manifest.splits[row]]
            images.append(IndexedImage(path=manifest.paths[row], sha256=file.sha256, label=label, split=split))
            cache.add(file)
            if runner_of is None:
                progress(1)
        return _finish(
            index_dir, embedder, cache, images, before, [], image_dir=image_dir, dataset_dir=dataset_dir, pixels=pixels
        )


def _check_memory(num_images: int, embedder: Embedder) -> None:
    """Raise UsageError if the rows and embeddings of so many images do not fit into memory."""
    if num_images < _FEW_IMAGES:
        return
    needed = num_images * (_BYTES_PER_IMAGE + 2 * embedder.dim * np.dtype(np.float16).itemsize)
    there = min(psutil.virtual_memory().available, memory_limit() or math.inf)
    if needed > there:
        raise UsageError(
            f"an index of {num_images:,} images takes about {needed / 1e9:,.1f} GB of memory while it is made, and "
            f"{there / 1e9:,.1f} GB are free. Use a machine with more memory, or make several indexes of parts."
        )


def _in_order(manifest: Manifest, layout: Layout) -> list[int]:
    """Return the manifest's rows that are examples, in the order of the splits, their shards and the records."""
    places = {name: place for place, name in enumerate(layout.splits)}
    split_order = [places.get(name, 0) for name in manifest.split_names]  # the manifest names empty splits, too
    rows = np.flatnonzero(manifest.ok)
    order = np.lexsort((manifest.positions[rows], manifest.shards[rows], np.take(split_order, manifest.splits[rows])))
    return rows[order].tolist()


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
    engines = _engines(index_dir, cache, before, {image.sha256 for image in images})
    images = [cache.with_facts(image) for image in images]
    places = tuple(None if place is None else origin_of(place) for place in (image_dir, dataset_dir))
    if (
        before is not None
        and before.images.has_all_hashes
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
            dataset_dir=places[1],
            pixels=pixels,
            before=before,
            engines=engines,
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
        outdated=before is not None and bool(index.info.thresholds) and _is_another(before, index),
    )


def _engines(
    index_dir: Path, cache: EmbeddingCache, before: SearchIndex | None, checksums: set[str]
) -> tuple[Engine, ...]:
    """Return the arithmetics of an index whose new images are embedded; a line tells if they are several."""
    num_new = cache.num_embedded + len(cache.resumed & checksums)
    old = () if before is None or num_new >= len(checksums) else before.info.engines or (_EARLIER,)
    new = tuple(engine for engine, count in cache.engines.items() if count and engine not in old)
    if not num_new or not new:
        return old if old != (_EARLIER,) else ()
    if old:
        is_onnx = new[0].library == "ONNX Runtime"
        _LOG.info(
            "%s: what is new is embedded by %s, what was known is by %s; such vectors differ %s",
            index_dir,
            new[0],
            old[-1],
            "slightly, and by more if the network is quantized" if is_onnx else f"by at most {MAX_DIFFERENCE:g}",
        )
    return (*old, *new)


def _is_another(before: SearchIndex, index: SearchIndex) -> bool:
    """Whether the collection has changed into another one than that on which its thresholds were calibrated."""
    if index.info.generation == before.info.generation:
        return False
    fewer, more = sorted((index.info.num_images, index.info.num_calibrated))
    labels, earlier = (set(one.images.column("label")) for one in (index, before))
    return more >= _GROWTH * fewer or labels != earlier


def _open_before(index_dir: Path, embedder: Embedder, *, dataset_dir: Path | None) -> SearchIndex | None:
    if not (index_dir / INFO_FILE).is_file():
        strange = [path.name for path in index_dir.iterdir() if path.name not in _OTHER_FILES and path.name[0] != "."]
        strange = [name for name in strange if "generation-" not in name and not is_fingerprints(name)]
        if strange:
            raise UsageError(
                f"--index_dir={index_dir} is not empty and not an index: it has {strange[0]}. Name a new folder."
            )
        return None
    before = SearchIndex.open(index_dir)
    if before.info.model_fingerprint != embedder.fingerprint:
        raise SearchIndexError(
            f"{index_dir} was made with --model={before.info.model}, of other weights than {embedder.name}, and "
            "embeddings of two models cannot be compared. "
            f"Name another --index_dir, or remove {all_of(index_dir)} first."
        )
    if before.info.precision != embedder.engine.precision:
        raise SearchIndexError(
            f"{index_dir} was made in {before.info.precision}, and embeddings of two precisions cannot be compared. "
            f"Give --precision={before.info.precision}, or name another --index_dir."
        )
    if (before.info.dataset_dir is None) != (dataset_dir is None):
        raise SearchIndexError(
            f"{index_dir} is the index of {before.info.dataset_dir or before.info.image_dir}. An index is either of "
            f"files or of a dataset. Name another --index_dir, or remove {all_of(index_dir)} first."
        )
    return before


def _pixels_id(layout: Layout, embedder: Embedder) -> str:
    """Return an id of all options that determine the embedded pixels; the bytes of the file alone do not."""
    names = ("image_size", "resize", "decode", "truncated", "background", "encoding", "jpeg_quality")
    described = {name: layout.config.get(name) for name in names}
    described |= {name: layout.config[name] for name in ("range", "max_pixels", "channels") if name in layout.config}
    if layout.image_size != embedder.image_size:  # earlier versions resized them with another filter
        described["resized"] = "bicubic"
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()[:16]


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
