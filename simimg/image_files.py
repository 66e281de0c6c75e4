"""Image files to pixels, as a model wants them: decoded by threads while the model works; the rest is refused."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import deque
from collections.abc import Callable, Container, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from simimg.errors import UsageError
from tfrecords.convert.image.decoder import ImageOptions, load_image
from tfrecords.convert.sources import walk
from tfrecords.convert.sources.image_folder import FolderFiles
from tfrecords.format.quarantine import Refusal

__all__ = ["BATCH_SIZE", "FileFacts", "load_batches", "load_files", "named_files"]

BATCH_SIZE = 32
_FILES_AHEAD = 96
_NUM_THREADS = 4  # Pillow decodes without the interpreter's lock


@dataclasses.dataclass(frozen=True, slots=True)
class FileFacts:
    """A file: `path` as given, its bytes' checksum, and the size in px of the upright picture, 0 if not decoded."""

    path: str
    sha256: str
    width: int
    height: int


def named_files(names: Sequence[str]) -> list[str]:
    """Returns the files that are named; a folder stands for all in it.

    Raises:
        UsageError: a name is of nothing, or there are no files.
    """
    paths: list[str] = []
    for name in names:
        if Path(name).is_dir():
            paths.extend(str(Path(name) / path) for path in walk(Path(name)))
        elif Path(name).exists():
            paths.append(name)
        else:
            raise UsageError(f"{name} does not exist. Name a picture, or a folder of pictures.")
    if not paths:
        raise UsageError(f"{', '.join(names)}: no files. Name a picture, or a folder of pictures.")
    return paths


def load_files(
    paths: Sequence[str], base: Path = Path(), *, image_size: int, how: str, known: Container[str] = ()
) -> Iterator[tuple[str, tuple[FileFacts, np.ndarray | None] | Refusal]]:
    """Yields each path with its facts and pixels, or its refusal, in order, some being decoded ahead.

    Args:
        paths: the files, relative to `base`.
        base: a folder.
        image_size: width and height in px of the pixels, uint8 `[image_size, image_size, 3]`.
        how: `stretch` and so on, as `simimg convert --resize`.
        known: files of these SHA-256 are not decoded: no pixels, no size.
    """
    options = ImageOptions(image_size=image_size, resize=how)
    with ThreadPoolExecutor(_NUM_THREADS) as executor:
        ahead: deque[tuple[str, Future[tuple[FileFacts, np.ndarray | None] | Refusal]]] = deque()
        try:
            for path in paths:
                ahead.append((path, executor.submit(_load, path, base, options, known)))
                if len(ahead) >= _FILES_AHEAD:
                    first, future = ahead.popleft()
                    yield first, future.result()
            for first, future in ahead:
                yield first, future.result()
        finally:
            executor.shutdown(wait=False, cancel_futures=True)  # whoever stops early does not wait for the rest


def load_batches(
    paths: Sequence[str],
    base: Path = Path(),
    *,
    image_size: int,
    how: str,
    refused: list[tuple[str, Refusal]],
    progress: Callable[[int], None],
) -> Iterator[tuple[list[FileFacts], np.ndarray]]:
    """Yields the facts of up to `BATCH_SIZE` files and their pixels, uint8 `[n, image_size, image_size, 3]`, in order.

    Args:
        paths: see `load_files`, as for `base`, `image_size` and `how`.
        base: a folder.
        image_size: px.
        how: the way of resizing.
        refused: gets the path and the refusal of each file that cannot be decoded.
        progress: called with a number of files: those of a batch, once the next one is asked for, and the refused.
    """
    facts: list[FileFacts] = []
    pending: list[np.ndarray] = []
    for path, loaded in load_files(paths, base, image_size=image_size, how=how):
        if isinstance(loaded, Refusal):
            refused.append((path, loaded))
            progress(1)
            continue
        found, pixels = loaded
        assert pixels is not None  # only known files have none
        facts.append(found)
        pending.append(pixels)
        if len(pending) == BATCH_SIZE:
            yield facts, np.stack(pending)
            progress(len(pending))
            facts, pending = [], []
    if pending:
        yield facts, np.stack(pending)
        progress(len(pending))


def _load(
    path: str, base: Path, options: ImageOptions, known: Container[str]
) -> tuple[FileFacts, np.ndarray | None] | Refusal:
    try:
        data = FolderFiles(str(base)).read(path)  # which waits for no pipe, and notices who writes to the file
        sha256 = hashlib.sha256(data).hexdigest()
        if sha256 in known:
            return FileFacts(path, sha256, 0, 0), None
        picture = load_image(data, options)
    except Refusal as refusal:
        return refusal
    return FileFacts(path, sha256, picture.width, picture.height), picture.pixels
