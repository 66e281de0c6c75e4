"""Embeddings that are known while an index is updated: those of the old index, of an interrupted run, and new ones.

An index of an earlier version lacks some hashes. Its images are read once more for them, but not embedded.

<index_dir>/unfinished/<of model and engine>/part-000000.npz    checksum, size, hashes, embedding of 512 files
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from simimg.image_files import LoadedFile
from simimg.inference.inference_engine import Engine
from simimg.similarity.embeddings import Embedder
from simimg.similarity.image_table import IndexedImage
from simimg.similarity.search_index import SearchIndex, is_system_error
from tfrecords.convert.image.near_duplicates import NO_HASH, perceptual_hashes, position_hashes
from tfrecords.format.atomic_files import atomic_file

UNFINISHED = "unfinished"
IMAGES_PER_PART = 512  # some seconds of work, which a killed process loses at most
# Determined by the pixels, as is the embedding.
_FACTS = {"width": np.int32, "height": np.int32, "phash": np.uint64, "contrast_phash": np.uint64,
          "position_phash": np.uint64}  # fmt: skip
_DAMAGE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)


class EmbeddingCache:
    """Embeddings by the SHA-256 of a file: known ones, and those that are being computed.

    Attributes:
        engines: the arithmetics that computed new embeddings, with the number of images.
        folder: that of the parts; None for a cache that saves none by itself.
        num_embedded: images that were embedded now.
        num_parts: parts in the folder.
        resumed: checksums of the images that an interrupted run has embedded, on the same engine.
        resumed_files: checksums of files by path, size and time, as far as the parts of that run tell.
    """

    def __init__(
        self, index_dir: Path | None, embedder: Embedder, before: SearchIndex | None, pixels: str = ""
    ) -> None:
        self.num_embedded = 0
        self.engines = Counter[Engine]()
        made_by = (embedder.fingerprint, embedder.image_options, embedder.engine, pixels)
        name = hashlib.sha256(repr(made_by).encode()).hexdigest()[:24]
        self.folder = None if index_dir is None else index_dir / UNFINISHED / name
        self._embedder = embedder
        self._known: dict[str, tuple[tuple[int, ...], np.ndarray]] = {}  # the facts, and the embedding
        self._waiting: dict[str, tuple[LoadedFile, np.ndarray]] = {}
        self._part: list[str] = []
        self._unhashed: dict[str, np.ndarray] = {}  # embeddings of an index that lacks hashes
        if before is not None and before.images.has_all_hashes:
            self._add_known(before.images.column, before.embeddings)
        elif before is not None:
            self._unhashed.update(zip(before.images.column("sha256").tolist(), before.embeddings, strict=True))
        self.resumed: set[str] = set()
        self.resumed_files: dict[tuple[str, int, int], str] = {}
        self.num_parts = self._load_parts()

    def __contains__(self, sha256: object) -> bool:
        return sha256 in self._known

    def add(self, file: LoadedFile) -> None:
        """Add a file to the next batch that is embedded, unless its embedding is known."""
        if file.pixels is None or file.sha256 in self._known or file.sha256 in self._waiting:
            return
        self._waiting[file.sha256] = file, file.pixels
        if len(self._waiting) == self._embedder.batch_size:
            self.finish()

    def finish(self) -> None:
        """Embed the files that were added."""
        if not self._waiting:
            return
        new = [sha256 for sha256 in self._waiting if sha256 not in self._unhashed]
        embeddings = {sha256: self._unhashed[sha256] for sha256 in self._waiting if sha256 in self._unhashed}
        if new:
            embedded = self._embedder.embed(np.stack([self._waiting[sha256][1] for sha256 in new]))
            embeddings.update(zip(new, embedded.astype(np.float16), strict=True))
        pixels = np.stack([pixels for _, pixels in self._waiting.values()])
        hashes, positions = perceptual_hashes(pixels).tolist(), position_hashes(pixels).tolist()
        for (file, _), phash, position in zip(self._waiting.values(), hashes, positions, strict=True):
            contrast = NO_HASH if file.contrast is None else int(perceptual_hashes(file.contrast[None])[0])
            facts = file.width, file.height, phash, contrast, position
            self._known[file.sha256] = facts, embeddings[file.sha256]
        self.num_embedded += len(new)
        self.engines[self._embedder.engine] += len(new)
        self._part += new
        self._waiting.clear()
        if self.folder is not None and len(self._part) >= IMAGES_PER_PART:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.save(self.part(self.num_parts), self._part)
            self.num_parts += 1
            self._part.clear()

    def embedding(self, image: IndexedImage) -> np.ndarray:
        """Return float16 `[network_dim]`."""
        return self._known[image.sha256][1]

    def with_facts(self, image: IndexedImage) -> IndexedImage:
        """Return the image with its size and hashes."""
        facts: dict[str, Any] = dict(zip(_FACTS, self._known[image.sha256][0], strict=True))
        return dataclasses.replace(image, **facts)

    def part(self, number: int) -> Path:
        """Return the name of a part in the folder."""
        assert self.folder is not None
        return self.folder / f"part-{number:06d}.npz"

    def save(self, path: Path, checksums: Sequence[str], **more: np.ndarray) -> None:
        """Write a part with what is known of images, and further columns."""
        known = [self._known[sha256] for sha256 in checksums]
        columns: dict[str, Any] = {
            name: np.array([facts[number] for facts, _ in known], dtype)
            for number, (name, dtype) in enumerate(_FACTS.items())
        }
        embeddings = np.stack([embedding for _, embedding in known]) if known else np.zeros((0, 0), np.float16)
        with atomic_file(path, sync=False) as file:
            columns |= {"sha256": np.array(checksums, str), "embeddings": embeddings, **more}
            np.savez(file, allow_pickle=False, **columns)

    def adopt(self, path: Path) -> dict[str, np.ndarray]:
        """Take over a part that another process wrote; return its columns."""
        num_known = len(self._known)
        columns = self._load(path)
        self.num_embedded += len(self._known) - num_known
        return columns

    def remove_parts(self) -> None:
        """Remove the saved parts, once the index has their embeddings."""
        if self.folder is not None:
            shutil.rmtree(self.folder.parent, ignore_errors=True)

    def _add_known(self, column: Callable[[str], np.ndarray], embeddings: np.ndarray) -> None:
        facts = zip(*(column(name).tolist() for name in _FACTS), strict=True)
        self._known.update(zip(column("sha256").tolist(), zip(facts, embeddings, strict=True), strict=True))

    def _load_parts(self) -> int:
        """Load what an interrupted run with the same weights has saved; return the number of the next part."""
        parts = [] if self.folder is None else sorted(self.folder.glob("part-*.npz"))
        for path in parts:
            try:
                columns = self._load(path)
                self.resumed.update(columns["sha256"].tolist())
                if "paths" in columns:
                    of_file = zip(columns["paths"].tolist(), *columns["times"].T.tolist(), strict=True)
                    checksums = columns["file_sha256"].tolist()
                    files = zip(of_file, checksums, strict=True)
                    self.resumed_files.update((file, sha256) for file, sha256 in files if sha256)
            except _DAMAGE as error:
                if not is_system_error(error):  # damaged by a power failure
                    path.unlink()
        return int(parts[-1].stem.rpartition("-")[2]) + 1 if parts else 0

    def _load(self, path: Path) -> dict[str, np.ndarray]:
        with np.load(path) as part:
            columns = dict(part)
        self._add_known(columns.__getitem__, columns["embeddings"])
        made_by = Engine(**json.loads(str(columns["engine"]))) if "engine" in columns else self._embedder.engine
        self.engines[made_by] += len(columns["sha256"])
        return columns
