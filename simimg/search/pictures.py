"""Image files to embeddings; what cannot be decoded is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from simimg.pictures import FileFacts, load_files
from simimg.search.embeddings import Embedder
from tfrecords.convert.quarantine import Refusal

__all__ = ["EmbeddedFiles", "FileFacts", "embed_files"]

_BATCH_SIZE = 32


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

    for path, loaded in load_files(paths, base, image_size=embedder.image_size, how=embedder.resize):
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
