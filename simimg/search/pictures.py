"""Image files to embeddings: decoded by threads while the model works; what cannot be decoded is refused."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from simimg.search.embeddings import Embedder
from tfrecords.convert.images import decode, resize
from tfrecords.convert.quarantine import Reason, Refusal

__all__ = ["EmbeddedFiles", "FileFacts", "embed_files"]

_BATCH_SIZE = 32
_NUM_THREADS = 4  # Pillow decodes without the interpreter's lock
_BATCHES_AHEAD = 3


@dataclasses.dataclass(frozen=True, slots=True)
class FileFacts:
    """A file that was embedded: `path` as given, size in px of the upright picture."""

    path: str
    sha256: str
    width: int
    height: int


@dataclasses.dataclass(frozen=True)
class EmbeddedFiles:
    """Embeddings, the facts of each file in the same order, and what was refused.

    `embeddings` is float32 `[num_files, dim]`, or `[num_files, 2, dim]` of each picture and its mirror image.
    """

    embeddings: np.ndarray
    files: tuple[FileFacts, ...]
    refused: tuple[tuple[str, Refusal], ...]


def embed_files(
    embedder: Embedder,
    paths: Sequence[str],
    base: Path = Path(),
    *,
    mirrored: bool = False,
    progress: Callable[[int], None] = lambda num_files: None,
) -> EmbeddedFiles:
    """Returns the embeddings of image files.

    Args:
        embedder: knows the size and the way of resizing that it wants.
        paths: the files, relative to `base`.
        base: a folder.
        mirrored: also embed each picture's mirror image, so that a query finds a mirrored original.
        progress: called with the number of files since the last call.
    """
    files: list[FileFacts] = []
    refused: list[tuple[str, Refusal]] = []
    parts: list[np.ndarray] = []
    pending: list[np.ndarray] = []

    def flush() -> None:
        if pending:
            pixels = np.stack(pending)
            views = [pixels, pixels[:, :, ::-1]] if mirrored else [pixels]
            parts.append(np.stack([embedder.embed(view) for view in views], axis=1))
            progress(len(pending))
            pending.clear()

    for path, loaded in _loaded(paths, base, embedder.image_size, embedder.resize):
        if isinstance(loaded, Refusal):
            refused.append((path, loaded))
            progress(1)
            continue
        facts, pixels = loaded
        files.append(facts)
        pending.append(pixels)
        if len(pending) == _BATCH_SIZE:
            flush()
    flush()
    embeddings = np.concatenate(parts) if parts else np.zeros((0, 1 + mirrored, embedder.dim), np.float32)
    return EmbeddedFiles(embeddings if mirrored else embeddings[:, 0], tuple(files), tuple(refused))


def _loaded(
    paths: Sequence[str], base: Path, image_size: int, how: str
) -> Iterator[tuple[str, tuple[FileFacts, np.ndarray] | Refusal]]:
    """Yields each path with its pixels or its refusal, in order, a few batches being decoded ahead."""
    with ThreadPoolExecutor(_NUM_THREADS) as executor:
        ahead: deque[tuple[str, Future[tuple[FileFacts, np.ndarray] | Refusal]]] = deque()
        for path in paths:
            ahead.append((path, executor.submit(_load, path, base, image_size, how)))
            if len(ahead) >= _BATCHES_AHEAD * _BATCH_SIZE:
                first, future = ahead.popleft()
                yield first, future.result()
        for first, future in ahead:
            yield first, future.result()


def _load(path: str, base: Path, image_size: int, how: str) -> tuple[FileFacts, np.ndarray] | Refusal:
    try:
        data = (base / path).read_bytes()
        image = decode(data)
    except OSError as error:
        return Refusal(Reason.UNREADABLE, error.strerror or str(error))
    except Refusal as refusal:
        return refusal
    facts = FileFacts(path, hashlib.sha256(data).hexdigest(), image.width, image.height)
    return facts, resize(image, image_size, how)
