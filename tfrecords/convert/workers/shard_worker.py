"""What one worker does: a planned shard, from image files to a finished shard and the receipt that says so.

A shard is done when its receipt exists. The receipt is written after the shard has its final name, so a receipt always
speaks of a whole shard; a shard without one, or whose files have changed since, is written again. No pixel crosses a
process boundary.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from tfrecords.base_errors import ConversionError
from tfrecords.convert.image.decoder import PictureOptions, encode, load_picture
from tfrecords.convert.image.near_duplicates import perceptual_hashes
from tfrecords.convert.sources import Files, printable
from tfrecords.convert.state.receipts import Receipt, write_receipt
from tfrecords.format.layout import encode_record
from tfrecords.format.quarantine import Refusal
from tfrecords.format.shard import ShardWriter

__all__ = ["Monitor", "ShardTask", "Stopped", "convert_shard", "place_of", "writing"]

_BATCH_BYTES = 1 << 18


class Stopped(Exception):
    """The worker was asked to stop; its unfinished shard is gone."""


class Monitor:
    """How a task tells what it is at, and learns that it should stop. This one keeps to itself."""

    def begin(self, row: int) -> None:
        """Called before each file, with its row in the source; raises Stopped if the task should end."""

    def end(self, *, refused: bool) -> None:
        """Called after each file."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ShardTask:
    """All that a worker needs for one shard: its files, in the order of its records, and how they are converted.

    `rows`, `ids`, `labels` are int64 `[num_files]`; `places` is int64 `[num_files, 3]` where `files` reads by place.
    `inputs` is a digest of what the shard is made of, so that a receipt can be told from that of other files. A shard
    that others may be made of need not be `sealed`: made durable, with its SHA-256.
    """

    shard: Path
    receipt: Path
    inputs: str
    files: Files
    rows: np.ndarray
    paths: tuple[str, ...]
    ids: np.ndarray
    labels: np.ndarray
    places: np.ndarray | None
    picture: PictureOptions
    encoding: str
    jpeg_quality: int
    hashed: bool
    sealed: bool

    def begin(self, monitor: Monitor) -> Callable[[], None]:
        """Converts the files; returns what makes shard and receipt durable and names them. See `convert_shard`."""
        return convert_shard(self, monitor)


def convert_shard(task: ShardTask, monitor: Monitor) -> Callable[[], None]:
    """Converts the files of one shard.

    Returns:
        What has to be called to make the shard and its receipt durable and give them their names; from any thread, as
        it mostly waits for the disk.

    Raises:
        Stopped: the monitor said so; nothing of the shard is left.
        ConversionError: the shard cannot be written, or there is not enough memory.
    """
    receipt = Receipt(len(task.rows))
    position = 0
    with ExitStack() as stack:
        stack.enter_context(writing(task.shard))
        writer = stack.enter_context(ShardWriter(task.shard, index=task.encoding != "raw", sealed=task.sealed))
        batch = _Batch(task, receipt, writer)
        for number in range(len(task.rows)):
            monitor.begin(int(task.rows[number]))
            try:
                batch.add(number, _load_file(task, number, receipt))
            except Refusal as refusal:
                receipt.refused[number] = refusal
                monitor.end(refused=True)
                continue
            except MemoryError:  # the machine's, not the file's, fault: a refusal would make the bytes depend on it
                raise ConversionError(
                    f"{printable(task.paths[number])}: not enough memory to decode it. What is finished stays; "
                    "give the same command again with fewer --num_workers."
                ) from None
            receipt.positions[number] = position
            position += 1
            monitor.end(refused=False)
        batch.flush()
        shard = stack.pop_all()

    def finish() -> None:
        shard.close()
        with writing(task.receipt):
            write_receipt(task.receipt, task.inputs, writer.info(), receipt)

    return finish


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns what the operating system denies while `path` is written into an error that says what to do."""
    try:
        yield
    except MemoryError:
        raise ConversionError(
            f"{path}: not enough memory to write it. What is finished stays; give the same command again with fewer "
            "--num_workers."
        ) from None
    except OSError as error:
        raise ConversionError(
            f"{path} cannot be written: {error.strerror or error}. What is finished stays; make room or make the "
            "folder writable, and give the same command again."
        ) from None


def place_of(places: np.ndarray | None, row: int) -> tuple[int, int, int] | None:
    """Returns where a file lies in its container, as `Files.read` takes it, or None where files are read by name."""
    if places is None:
        return None
    container, offset, length = places[row].tolist()
    return container, offset, length


class _Batch:
    """Writes pictures some at a time, each step for all of them: the processor's caches then hold what it needs."""

    def __init__(self, task: ShardTask, receipt: Receipt, writer: ShardWriter) -> None:
        self._task = task
        self._receipt = receipt
        self._writer = writer
        self._size = max(1, _BATCH_BYTES // (task.picture.image_size**2 * 3))
        self._numbers: list[int] = []
        self._pixels: list[np.ndarray] = []

    def add(self, number: int, pixels: np.ndarray) -> None:
        """Writes the picture of file `number`, now or later, as the next record."""
        self._numbers.append(number)
        self._pixels.append(pixels)
        if len(self._numbers) == self._size:
            self.flush()

    def flush(self) -> None:
        """Writes those that were put off."""
        if not self._numbers:
            return
        task, numbers, pixels = self._task, self._numbers, np.array(self._pixels)
        images = [picture.tobytes() for picture in pixels]
        digests = b"".join([hashlib.sha256(image).digest() for image in images])
        self._receipt.pixels_sha256[numbers] = np.frombuffer(digests, np.uint8).reshape(-1, 32)
        if task.hashed:
            self._receipt.phash[numbers] = perceptual_hashes(pixels)
        if task.encoding != "raw":
            images = [encode(picture, task.encoding, task.jpeg_quality) for picture in pixels]
        labels, ids = task.labels[numbers].tolist(), task.ids[numbers].tolist()
        for image, label, id in zip(images, labels, ids, strict=True):
            self._writer.write(encode_record(image, label, id))
        self._numbers.clear()
        self._pixels.clear()


def _load_file(task: ShardTask, number: int, receipt: Receipt) -> np.ndarray:
    """Returns the pixels of a file, and puts what else is known of it into the receipt."""
    data = task.files.read(task.paths[number], place_of(task.places, number))
    receipt.sha256[number] = np.frombuffer(hashlib.sha256(data).digest(), np.uint8)
    picture = load_picture(data, task.picture)
    receipt.widths[number] = picture.width
    receipt.heights[number] = picture.height
    return picture.pixels
