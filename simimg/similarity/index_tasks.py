"""The part of an index update that can run on other machines: tasks that embed some images and save them as a part.

A part is one of those that an interrupted update leaves, with a row more for each file, so that an update which is
interrupted goes on with what its tasks have finished. See `simimg.similarity.embedding_cache`.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from simimg.errors import SearchIndexError
from simimg.image_files import BATCH_SIZE, LoadedFile, load_files, map_ahead
from simimg.inference.inference_engine import MAX_DIFFERENCE
from simimg.similarity.embedding_cache import IMAGES_PER_PART, EmbeddingCache
from simimg.similarity.embeddings import Embedder, load_embedder
from simimg.similarity.image_table import IndexedImage
from simimg.similarity.remote_index import handover_of
from tfrecords.convert.image.decoder import resize
from tfrecords.convert.sources import Files
from tfrecords.convert.sources.image_folder import FolderFiles
from tfrecords.convert.workers.runner import Runner
from tfrecords.convert.workers.shard_worker import Monitor, Task, writing
from tfrecords.format.dataset_images import DatasetImages
from tfrecords.format.layout import Layout
from tfrecords.format.manifest import read_manifest
from tfrecords.format.naming import LAYOUT_FILE
from tfrecords.format.quarantine import Reason, Refusal
from tfrecords.locations import url_of
from tfrecords.machine_limits import num_cores
from tfrecords.storage.handover import remove_handed_over
from tfrecords.storage.remote_dataset import local_dataset
from tfrecords.storage.remote_folder import origin_of

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EmbeddingTask(Task):
    """Embeds images and saves them as a part, the shard of this task.

    `model`, `precision` and `max_pixels` make the embedder, whose weights have the `fingerprint`; with `on_gpu`, that
    of many images, which computes on a GPU if there is one.
    """

    model: str
    precision: str
    max_pixels: int
    fingerprint: str
    on_gpu: bool

    def load(self, embedder: Embedder, known: EmbeddingCache) -> Iterator[LoadedFile | Refusal]:
        """Yield the image of each row, without the pixels of `known` ones, or why it cannot be used."""
        raise NotImplementedError

    def columns(self) -> dict[str, np.ndarray]:
        """Return further columns of the part."""
        return {}

    def run(self, monitor: Monitor) -> None:
        """Embed the images; raises SearchIndexError if the model has other weights here."""
        embedder = _embedder(self.model, self.precision, self.on_gpu).with_limit(self.max_pixels)
        if embedder.fingerprint != self.fingerprint:
            raise SearchIndexError(
                f"--model={self.model} has other weights on a node. Install the same versions there, and make the "
                "folder of the model visible under the same path."
            )
        cache = EmbeddingCache(None, embedder, None)
        checksums, refused = [""] * len(self.rows), {}
        for row, file in enumerate(self.load(embedder, cache)):
            monitor.begin(int(self.rows[row]))
            if isinstance(file, Refusal):
                refused[row] = [file.reason.value, file.detail]
            else:
                checksums[row] = file.sha256
                cache.add(file)
            monitor.end(refused=isinstance(file, Refusal))
        cache.finish()
        with writing(self.shard):
            cache.save(
                self.shard,
                sorted(set(checksums) - {""}),
                **self.columns(),
                file_sha256=np.array(checksums, str),
                refused=np.array(json.dumps(refused)),
                engine=np.array(json.dumps(dataclasses.asdict(embedder.engine))),
            )
        self.acknowledge(len(self.rows) - len(refused))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class IndexTask(EmbeddingTask):
    """Embeds files below `image_dir`.

    `times` are those of the files when they were listed, int64 `[num_files, 2]`: their `num_bytes` and `modified_ns`.
    """

    image_dir: Path
    paths: tuple[str, ...]
    times: np.ndarray

    def files_read(self) -> Iterator[tuple[Files, str, tuple[int, int, int] | None]]:
        """Yield the files."""
        for path in self.paths:
            yield FolderFiles(str(self.image_dir)), path, None

    def load(self, embedder: Embedder, known: EmbeddingCache) -> Iterator[LoadedFile | Refusal]:
        """Yield the files."""
        for _, file in load_files(self.paths, embedder.image_options, self.image_dir, known=known, visible=True):
            yield file

    def columns(self) -> dict[str, np.ndarray]:
        """Return the names and times of the files, by which an interrupted update knows them."""
        return {"paths": np.array(self.paths, str), "times": self.times}


class StoredImages:
    """The examples of a dataset, as an index embeds them.

    Attributes:
        dataset_dir: the folder.
        layout: its layout.
        manifest: its manifest.
    """

    def __init__(self, dataset_dir: Path) -> None:
        """Open a dataset; raises DataError if it is damaged."""
        self.dataset_dir = dataset_dir
        self.layout, self.manifest = Layout.load(dataset_dir), read_manifest(dataset_dir)
        self._images = DatasetImages(dataset_dir, self.layout, self.manifest)

    def sha256(self, row: int) -> str:
        """Return the checksum of the file that a row of the manifest was made of, in hexadecimal."""
        return self.manifest.sha256[row].tobytes().hex()

    def load(self, rows: Sequence[int], embedder: Embedder, known: Container[str]) -> Iterator[LoadedFile]:
        """Yield the images of rows of the manifest, without the pixels of those whose checksum is known; images in
        their own shapes become squares.
        """

        def load(row: int) -> LoadedFile:
            width, height = int(self.manifest.widths[row]), int(self.manifest.heights[row])
            if (sha256 := self.sha256(row)) in known:
                return LoadedFile(sha256, width, height, None)
            image = self._images.image(row)
            own = self.layout.own_shapes
            square = resize(image, embedder.image_size, embedder.resize) if own else np.asarray(image)
            return LoadedFile(sha256, width, height, square)

        return map_ahead(load, rows, num_threads=num_cores(), num_ahead=4 * BATCH_SIZE)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StoredTask(EmbeddingTask):
    """Embeds the images of a dataset, in a folder or at a URL, that are `rows` of its manifest."""

    dataset_dir: Path

    def files_read(self) -> Iterator[tuple[Files, str, tuple[int, int, int] | None]]:
        """Yield the file that says what the dataset is, if it is in a folder."""
        if not url_of(self.dataset_dir):
            yield FolderFiles(str(self.dataset_dir)), LAYOUT_FILE, None

    def load(self, embedder: Embedder, known: EmbeddingCache) -> Iterator[LoadedFile | Refusal]:
        """Yield the stored images."""
        return _stored(self.dataset_dir).load(self.rows.tolist(), embedder, known)


@functools.lru_cache(maxsize=1)
def _stored(dataset_dir: Path) -> StoredImages:
    return StoredImages(local_dataset(dataset_dir))


@functools.cache
def _embedder(model: str, precision: str, on_gpu: bool) -> Embedder:
    """Return the embedder of this process; its network is loaded once."""
    return load_embedder(model, precision=precision, many=on_gpu)


@dataclasses.dataclass
class Embedded:
    """What became of files, by path: the checksums of those that were embedded, and the reasons of the others."""

    checksums: dict[str, str] = dataclasses.field(default_factory=dict)
    refused: dict[str, Refusal] = dataclasses.field(default_factory=dict)

    def add(self, columns: Mapping[str, np.ndarray]) -> None:
        """Add a part."""
        paths, checksums = columns["paths"].tolist(), columns["file_sha256"].tolist()
        self.checksums.update((path, sha256) for path, sha256 in zip(paths, checksums, strict=True) if sha256)
        for row, (reason, detail) in json.loads(str(columns["refused"])).items():
            self.refused[paths[int(row)]] = Refusal(Reason(reason), detail)


def embed_files(
    runner: Runner,
    image_dir: Path,
    images: Mapping[str, IndexedImage],
    paths: Sequence[str],
    embedder: Embedder,
    cache: EmbeddingCache,
    *,
    progress: Callable[[int], object] = lambda num_files: None,
) -> Embedded:
    """Embed the files `paths` below `image_dir`, as tasks of a runner.

    `images` has what is known of each, by path; new embeddings go into `cache`, and `progress` is called with the
    number of files since its last call.

    Raises:
        SimimgError: as `Runner.run`; the parts of finished tasks are kept for the next call.
    """
    found = Embedded()

    def task(rows: np.ndarray, **values: Any) -> IndexTask:
        some = tuple(paths[row] for row in rows.tolist())
        return IndexTask(
            **values,
            inputs=hashlib.sha256(repr(some).encode(errors="surrogatepass")).hexdigest(),
            rows=rows,
            image_dir=image_dir.resolve(),
            paths=some,
            times=np.array([(images[path].num_bytes, images[path].modified_ns) for path in some], np.int64),
        )

    _run(runner, np.arange(len(paths)), task, embedder, cache, found.add, progress)
    return found


def embed_stored(
    runner: Runner,
    stored: StoredImages,
    rows: Sequence[int],
    embedder: Embedder,
    cache: EmbeddingCache,
    *,
    progress: Callable[[int], object] = lambda num_images: None,
) -> None:
    """Embed `rows` of a dataset's manifest, as tasks of a runner; the arguments and errors are as of `embed_files`."""

    def task(some: np.ndarray, **values: Any) -> StoredTask:
        inputs = hashlib.sha256(stored.manifest.sha256[some].tobytes() + some.tobytes()).hexdigest()
        return StoredTask(**values, inputs=inputs, rows=some, dataset_dir=Path(origin_of(stored.dataset_dir)))

    _run(runner, np.array(rows, np.int64), task, embedder, cache, lambda columns: None, progress)


def _run(
    runner: Runner,
    rows: np.ndarray,
    task_of: Callable[..., EmbeddingTask],
    embedder: Embedder,
    cache: EmbeddingCache,
    on_part: Callable[[Mapping[str, np.ndarray]], None],
    progress: Callable[[int], object],
) -> None:
    """Run a task for every few rows, and take over what each has embedded; a line tells if engines differ."""
    assert cache.folder is not None
    cache.folder.mkdir(parents=True, exist_ok=True)
    handover = handover_of(cache.folder.parents[1])
    told = 0

    def tasks() -> Iterator[EmbeddingTask]:
        for number, first in enumerate(range(0, len(rows), IMAGES_PER_PART), cache.num_parts):
            part = cache.part(number)
            yield task_of(
                rows[first : first + IMAGES_PER_PART],
                shard=part,
                receipt=part.with_suffix(".json"),
                handover=handover,
                model=os.path.abspath(embedder.name) if os.path.exists(embedder.name) else embedder.name,
                precision=embedder.engine.precision,
                max_pixels=embedder.max_pixels,
                fingerprint=embedder.fingerprint,
                on_gpu=runner.gives_gpus,
            )

    def on_progress(num_done: int, num_refused: int) -> None:
        nonlocal told
        progress(num_done - told)
        told = num_done

    runner.run(tasks(), lambda task: on_part(cache.adopt(task.shard)), on_progress)
    if handover:
        remove_handed_over(handover)
    engines = cache.engines - Counter({embedder.engine: cache.engines[embedder.engine]})
    for engine, count in engines.items() if len(cache.engines) > 1 else ():
        _LOG.info(
            "%d of the images are embedded by %s, others by %s; such vectors differ by at most %g",
            count,
            engine,
            next(other for other in cache.engines if other != engine),
            MAX_DIFFERENCE,
        )
