"""Converts the image files of one planned shard: to a finished shard and its receipt.

A shard is done when its receipt exists. The receipt is written after the shard has its final name, so a receipt always
belongs to a complete shard. A shard without a receipt, or whose files have changed since, is written again. No pixels
cross a process boundary.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from tfrecords.base_errors import ConversionError
from tfrecords.convert.image.decoder import ImageOptions, encode, load_image
from tfrecords.convert.image.near_duplicates import perceptual_hashes
from tfrecords.convert.sources import Files, printable
from tfrecords.convert.state.receipts import Receipt, write_receipt
from tfrecords.format.quarantine import Refusal
from tfrecords.format.record_layout import encode_record
from tfrecords.format.shard import ShardWriter

__all__ = ["Monitor", "ShardTask", "Stopped", "not_there", "place_of", "writing"]

_BATCH_BYTES = 1 << 18


class Stopped(Exception):
    """The worker was asked to stop; its unfinished shard was removed."""


class Monitor:
    """Reports progress and asks whether to stop. This default does neither."""

    def begin(self, row: int) -> None:
        """Called before each file with its row in the source; raises Stopped if the task should end."""

    def end(self, *, refused: bool) -> None:
        """Called after each file."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ShardTask:
    """Everything that a worker needs for one shard: its files, in the order of its records, and how they are converted.

    `rows`, `ids` and `labels` are int64 `[num_files]`; `places` is int64 `[num_files, 3]` if `files` reads by place.
    `inputs` is a digest of the files that the shard is made from, so that a receipt of other files is recognized. An
    intermediate shard need not be `durable`: synced to the disk, with its SHA-256.
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
    image: ImageOptions
    encoding: str
    jpeg_quality: int
    hashed: bool
    durable: bool

    def begin(self, monitor: Monitor) -> Callable[[], None]:
        """Convert the files; return a function that makes shard and receipt durable and gives them their names.

        The function may be called from any thread, because it mostly waits for the disk.

        Raises:
            Stopped: the monitor asked to stop; nothing of the shard is left.
            ConversionError: the shard cannot be written, or memory ran out.
        """
        receipt = Receipt(len(self.rows))
        position = 0
        with ExitStack() as stack:
            stack.enter_context(writing(self.shard))
            writer = stack.enter_context(ShardWriter(self.shard, index=self.encoding != "raw", durable=self.durable))
            batch = _Batch(self, receipt, writer)
            for number in range(len(self.rows)):
                monitor.begin(int(self.rows[number]))
                try:
                    batch.add(number, _load_file(self, number, receipt))
                except Refusal as refusal:
                    receipt.refused[number] = refusal
                    monitor.end(refused=True)
                    continue
                except MemoryError:  # not the file's fault: with a refusal, the result would depend on the machine
                    raise ConversionError(
                        f"{printable(self.paths[number])}: not enough memory to decode it. Finished shards are "
                        "kept. Give the same command again with fewer --num_workers."
                    ) from None
                receipt.positions[number] = position
                position += 1
                monitor.end(refused=False)
            batch.flush()
            shard = stack.pop_all()

        def finish() -> None:
            shard.close()
            with writing(self.receipt):
                write_receipt(self.receipt, self.inputs, writer.info(), receipt)

        return finish


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn errors of the operating system while `path` is written into a ConversionError that says what to do."""
    try:
        yield
    except MemoryError:
        raise ConversionError(
            f"{path}: not enough memory to write it. Finished shards are kept. Give the same command again with fewer "
            "--num_workers."
        ) from None
    except OSError as error:
        raise ConversionError(
            f"{path} cannot be written: {error.strerror or error}. Finished shards are kept. Make room or make the "
            "folder writable, and give the same command again."
        ) from None


def not_there(shard: Path) -> ConversionError:
    """Return the error for a shard that does not exist although its worker finished."""
    return ConversionError(
        f"{shard} is not there although its worker finished. Workers on other machines have to see --data_dir under "
        "the same path."
    )


def place_of(places: np.ndarray | None, row: int) -> tuple[int, int, int] | None:
    """Return where a file lies in its container, as `Files.read` takes it, or None if files are read by name."""
    if places is None:
        return None
    container, offset, length = places[row].tolist()
    return container, offset, length


class _Batch:
    """Writes images in batches, one step for all of them at a time, so that their data stays in the caches."""

    def __init__(self, task: ShardTask, receipt: Receipt, writer: ShardWriter) -> None:
        self._task = task
        self._receipt = receipt
        self._writer = writer
        self._size = max(1, _BATCH_BYTES // (task.image.image_size**2 * 3))
        self._numbers: list[int] = []
        self._pixels: list[np.ndarray] = []

    def add(self, number: int, pixels: np.ndarray) -> None:
        """Write the image of file `number` as the next record, now or with a later batch."""
        self._numbers.append(number)
        self._pixels.append(pixels)
        if len(self._numbers) == self._size:
            self.flush()

    def flush(self) -> None:
        """Write the images that are waiting."""
        if not self._numbers:
            return
        task, numbers, pixels = self._task, self._numbers, np.array(self._pixels)
        images = [image.tobytes() for image in pixels]
        digests = b"".join([hashlib.sha256(image).digest() for image in images])
        self._receipt.pixels_sha256[numbers] = np.frombuffer(digests, np.uint8).reshape(-1, 32)
        if task.hashed:
            self._receipt.phash[numbers] = perceptual_hashes(pixels)
        if task.encoding != "raw":
            images = [encode(image, task.encoding, task.jpeg_quality) for image in pixels]
        labels, ids = task.labels[numbers].tolist(), task.ids[numbers].tolist()
        for image, label, id in zip(images, labels, ids, strict=True):
            self._writer.write(encode_record(image, label, id))
        self._numbers.clear()
        self._pixels.clear()


def _load_file(task: ShardTask, number: int, receipt: Receipt) -> np.ndarray:
    """Return the pixels of a file, and put everything else that is known about it into the receipt."""
    data = task.files.read(task.paths[number], place_of(task.places, number))
    receipt.sha256[number] = np.frombuffer(hashlib.sha256(data).digest(), np.uint8)
    image = load_image(data, task.image)
    receipt.widths[number] = image.width
    receipt.heights[number] = image.height
    return image.pixels
