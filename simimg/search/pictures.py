"""Image files to embeddings; what cannot be decoded is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from simimg.pictures import FileFacts, load_batches
from simimg.search.embeddings import Embedder
from tfrecords.convert.quarantine import Refusal

__all__ = ["EmbeddedFiles", "FileFacts", "embed_files"]


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
    batches = load_batches(
        paths, base, image_size=embedder.image_size, how=embedder.resize, refused=refused, progress=progress
    )
    for facts, pixels in batches:
        views = [pixels, pixels[:, :, ::-1]] if mirrored else [pixels]
        parts.append(np.stack([embedder.embed(view) for view in views], axis=1))
        files += facts
    embeddings = np.concatenate(parts) if parts else np.zeros((0, 1 + mirrored, embedder.dim), np.float32)
    return EmbeddedFiles(embeddings if mirrored else embeddings[:, 0], tuple(files), tuple(refused))
