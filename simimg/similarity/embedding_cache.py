"""Embeddings that are known while an index is updated: those of the old index, of an interrupted run, and new ones.

An index of an earlier version lacks some hashes. Its images are read once more for them, but not embedded.

<index_dir>/unfinished/<of model and engine>/part-000000.npz    checksum, size, hashes, embedding of 512 files
"""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from simimg.image_files import LoadedFile
from simimg.similarity.embeddings import Embedder
from simimg.similarity.image_table import IndexedImage
from simimg.similarity.search_index import SearchIndex, is_system_error
from tfrecords.convert.image.near_duplicates import NO_HASH, perceptual_hashes, position_hashes
from tfrecords.format.atomic_files import atomic_file

UNFINISHED = "unfinished"
_IMAGES_PER_PART = 512  # some seconds of work, which a killed process loses at most
# Determined by the pixels, as is the embedding.
_FACTS = {"width": np.int32, "height": np.int32, "phash": np.uint64, "contrast_phash": np.uint64,
          "position_phash": np.uint64}  # fmt: skip


class EmbeddingCache:
    """Embeddings by the SHA-256 of a file: known ones, and those that are being computed.

    Attributes:
        num_embedded: images that were embedded now.
        resumed: checksums of the images that an interrupted run has embedded, on the same engine.
    """

    def __init__(self, index_dir: Path, embedder: Embedder, before: SearchIndex | None, pixels: str = "") -> None:
        self.num_embedded = 0
        made_by = (embedder.fingerprint, embedder.image_options, embedder.engine, pixels)
        self._folder = index_dir / UNFINISHED / hashlib.sha256(repr(made_by).encode()).hexdigest()[:24]
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
        self._num_parts = self._load_parts()

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
        self._part += new
        self._waiting.clear()
        if len(self._part) >= _IMAGES_PER_PART:
            self._write_part()

    def embedding(self, image: IndexedImage) -> np.ndarray:
        """Return float16 `[network_dim]`."""
        return self._known[image.sha256][1]

    def with_facts(self, image: IndexedImage) -> IndexedImage:
        """Return the image with its size and hashes."""
        facts: dict[str, Any] = dict(zip(_FACTS, self._known[image.sha256][0], strict=True))
        return dataclasses.replace(image, **facts)

    def remove_parts(self) -> None:
        """Remove the saved parts, once the index has their embeddings."""
        shutil.rmtree(self._folder.parent, ignore_errors=True)

    def _add_known(self, column: Callable[[str], np.ndarray], embeddings: np.ndarray) -> None:
        facts = zip(*(column(name).tolist() for name in _FACTS), strict=True)
        self._known.update(zip(column("sha256").tolist(), zip(facts, embeddings, strict=True), strict=True))

    def _write_part(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        facts, embeddings = zip(*(self._known[sha256] for sha256 in self._part), strict=True)
        columns: dict[str, Any] = {
            name: np.array(values, dtype)
            for (name, dtype), values in zip(_FACTS.items(), zip(*facts, strict=True), strict=True)
        }
        with atomic_file(self._folder / f"part-{self._num_parts:06d}.npz", sync=False) as file:
            np.savez(file, sha256=np.array(self._part), embeddings=np.stack(embeddings), **columns)
        self._num_parts += 1
        self._part.clear()

    def _load_parts(self) -> int:
        """Load what an interrupted run with the same weights has saved; return the number of the next part."""
        parts = sorted(self._folder.glob("part-*.npz"))
        for path in parts:
            try:
                with np.load(path) as part:
                    self._add_known(part.__getitem__, part["embeddings"])
                    self.resumed.update(part["sha256"].tolist())
            except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
                if not is_system_error(error):  # damaged by a power failure
                    path.unlink()
        return int(parts[-1].stem.rpartition("-")[2]) + 1 if parts else 0
