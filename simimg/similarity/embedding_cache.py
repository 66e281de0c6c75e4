"""The embeddings that are known while an index is made: of the index before, of an unfinished run, and new ones.

<index_dir>/unfinished/<fingerprint, pixels>/part-000000.npz    SHA-256, size, hash and embedding of some hundred files
"""

from __future__ import annotations

import dataclasses
import shutil
import zipfile
from pathlib import Path

import numpy as np

from simimg.image_files import BATCH_SIZE
from simimg.similarity.embeddings import Embedder
from simimg.similarity.search_index import IndexedImage, SearchIndex
from tfrecords.convert.image.near_duplicates import perceptual_hashes
from tfrecords.format.atomic_files import atomic_file

__all__ = ["UNFINISHED", "EmbeddingCache"]

UNFINISHED = "unfinished"
_IMAGES_PER_PART = 512  # some seconds of work: what a killed run loses at most
_FACTS = ("width", "height", "phash")  # what is known of a picture by its bytes, besides its embedding


@dataclasses.dataclass(frozen=True, slots=True)
class _Known:
    """A picture whose embedding is known: from the index before, or from an unfinished run."""

    width: int
    height: int
    phash: int
    embedding: np.ndarray


class EmbeddingCache:
    """The embeddings that are known, by the SHA-256 of a file, and those that are being made."""

    def __init__(self, index_dir: Path, embedder: Embedder, before: SearchIndex | None, pixels: str = "") -> None:
        self.num_embedded = 0
        self._folder = index_dir / UNFINISHED / f"{embedder.fingerprint[:16]}{pixels}"
        self._embedder = embedder
        self._known: dict[str, _Known] = {}
        self._waiting: list[tuple[IndexedImage, np.ndarray]] = []
        self._asked: set[str] = set()
        self._part: list[str] = []
        if before is not None:
            columns = [before.pictures.column(name).tolist() for name in ("sha256", *_FACTS)]
            for row, (sha256, width, height, phash) in enumerate(zip(*columns, strict=True)):
                self._known[sha256] = _Known(width, height, phash, before.embeddings[row])
        self._num_parts = self._load_parts()

    def __contains__(self, sha256: object) -> bool:
        return sha256 in self._known

    def add(self, picture: IndexedImage, pixels: np.ndarray) -> None:
        """Has a picture embedded, with the next batch."""
        if picture.sha256 in self._known or picture.sha256 in self._asked:
            return
        self._asked.add(picture.sha256)
        self._waiting.append((picture, pixels))
        if len(self._waiting) == BATCH_SIZE:
            self._embed()

    def finish(self) -> None:
        """Embeds what waits."""
        if self._waiting:
            self._embed()

    def embedding(self, picture: IndexedImage) -> np.ndarray:
        """Returns float16 `[network_dim]`."""
        return self._known[picture.sha256].embedding

    def with_facts(self, picture: IndexedImage) -> IndexedImage:
        """Returns the picture with what its pixels say, which a file that was not decoded lacks."""
        known = self._known[picture.sha256]
        return dataclasses.replace(picture, **{name: getattr(known, name) for name in _FACTS})

    def forget_parts(self) -> None:
        """Removes what the index has now."""
        shutil.rmtree(self._folder.parent, ignore_errors=True)

    def _embed(self) -> None:
        pixels = np.stack([pixels for _, pixels in self._waiting])
        embeddings = self._embedder.embed(pixels).astype(np.float16)
        hashes = perceptual_hashes(pixels).tolist()
        for number, (picture, _) in enumerate(self._waiting):
            self._known[picture.sha256] = _Known(
                picture.width,
                picture.height,
                hashes[number],
                embeddings[number],
            )
            self._part.append(picture.sha256)
        self.num_embedded += len(self._waiting)
        self._waiting.clear()
        self._asked.clear()
        if len(self._part) >= _IMAGES_PER_PART:
            self._write_part()

    def _write_part(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        known = [self._known[sha256] for sha256 in self._part]
        with atomic_file(self._folder / f"part-{self._num_parts:06d}.npz", sync=False) as file:
            np.savez(
                file,
                sha256=np.array(self._part),
                width=np.array([one.width for one in known], np.int32),
                height=np.array([one.height for one in known], np.int32),
                phash=np.array([one.phash for one in known], np.uint64),
                embeddings=np.stack([one.embedding for one in known]),
            )
        self._num_parts += 1
        self._part.clear()

    def _load_parts(self) -> int:
        """Takes in what an unfinished run with the same weights has left; returns the number of the next part."""
        parts = sorted(self._folder.glob("part-*.npz"))
        for path in parts:
            try:
                with np.load(path) as part:
                    columns = [part[name].tolist() for name in ("sha256", *_FACTS)]
                    for sha256, width, height, phash, embedding in zip(*columns, part["embeddings"], strict=True):
                        self._known[sha256] = _Known(width, height, phash, embedding)
            except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):  # a power failure: its work is redone
                path.unlink()
        return int(parts[-1].stem.rpartition("-")[2]) + 1 if parts else 0
