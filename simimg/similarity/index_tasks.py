"""The part of an index update that can run on other machines: tasks that embed some files each and save them as a part.

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
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from simimg.errors import SearchIndexError
from simimg.image_files import load_files
from simimg.inference.inference_engine import MAX_DIFFERENCE
from simimg.similarity.embedding_cache import IMAGES_PER_PART, EmbeddingCache
from simimg.similarity.embeddings import Embedder, load_embedder
from simimg.similarity.image_table import IndexedImage
from tfrecords.convert.sources import Files
from tfrecords.convert.sources.image_folder import FolderFiles
from tfrecords.convert.state.receipts import write_receipt
from tfrecords.convert.workers.runner import Runner
from tfrecords.convert.workers.shard_worker import Monitor, Task, writing
from tfrecords.format.layout import ShardInfo
from tfrecords.format.quarantine import Reason, Refusal

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class IndexTask(Task):
    """Embeds files below `image_dir` and saves them as a part, the shard of this task.

    `times` are those of the files when they were listed, int64 `[num_files, 2]`: their `num_bytes` and `modified_ns`.
    `model`, `precision` and `max_pixels` make the embedder, whose weights have the `fingerprint`; with `on_gpu`, that
    of many images, which computes on a GPU if there is one.
    """

    image_dir: Path
    paths: tuple[str, ...]
    times: np.ndarray
    model: str
    precision: str
    max_pixels: int
    fingerprint: str
    on_gpu: bool

    def files_read(self) -> Iterator[tuple[Files, str, tuple[int, int, int] | None]]:
        """Yield the files."""
        for path in self.paths:
            yield FolderFiles(str(self.image_dir)), path, None

    def run(self, monitor: Monitor) -> None:
        """Embed the files; raises SearchIndexError if the model has other weights here."""
        embedder = _embedder(self.model, self.precision, self.on_gpu).with_limit(self.max_pixels)
        if embedder.fingerprint != self.fingerprint:
            raise SearchIndexError(
                f"--model={self.model} has other weights on a node. Install the same versions there, and make the "
                "folder of the model visible under the same path."
            )
        cache = EmbeddingCache(None, embedder, None)
        checksums, refused = [""] * len(self.paths), {}
        loaded = load_files(self.paths, embedder.image_options, self.image_dir, known=cache, visible=True)
        for row, (_, file) in enumerate(loaded):
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
                paths=np.array(self.paths, str),
                times=self.times,
                file_sha256=np.array(checksums, str),
                refused=np.array(json.dumps(refused)),
                engine=np.array(json.dumps(dataclasses.asdict(embedder.engine))),
            )
        with writing(self.receipt):
            size = self.shard.stat().st_size
            info = ShardInfo(
                file=self.shard.name, num_examples=len(self.paths) - len(refused), num_bytes=size, sha256=""
            )
            write_receipt(self.receipt, self.inputs, info)


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


def embed_on(
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
    assert cache.folder is not None
    cache.folder.mkdir(parents=True, exist_ok=True)
    found, told = Embedded(), 0

    def tasks() -> Iterator[IndexTask]:
        for number, first in enumerate(range(0, len(paths), IMAGES_PER_PART), cache.num_parts):
            some = tuple(paths[first : first + IMAGES_PER_PART])
            part = cache.part(number)
            yield IndexTask(
                shard=part,
                receipt=part.with_suffix(".json"),
                inputs=hashlib.sha256(repr(some).encode(errors="surrogatepass")).hexdigest(),
                rows=np.arange(first, first + len(some)),
                image_dir=image_dir.resolve(),
                paths=some,
                times=np.array([(images[path].num_bytes, images[path].modified_ns) for path in some], np.int64),
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

    runner.run(tasks(), lambda task: found.add(cache.adopt(task.shard)), on_progress)
    engines = cache.engines - Counter({embedder.engine: cache.engines[embedder.engine]})
    for engine, count in engines.items() if len(cache.engines) > 1 else ():
        _LOG.info(
            "%d of the images are embedded by %s, others by %s; such vectors differ by at most %g",
            count,
            engine,
            next(other for other in cache.engines if other != engine),
            MAX_DIFFERENCE,
        )
    return found
