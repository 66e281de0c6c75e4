"""Converts the image files of one planned shard: to a finished shard and its receipt.

A shard is done when its receipt exists. The receipt is written after the shard has its final name, so a receipt always
belongs to a complete shard. A shard without a receipt, or whose files have changed since, is written again. No pixels
cross a process boundary.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import pickle
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from tfrecords.base_errors import ConversionError
from tfrecords.convert.image.color import rgb_of
from tfrecords.convert.image.decoder import DecodedImage, ImageOptions, encode, load_image
from tfrecords.convert.image.jpeg import resize_pixels
from tfrecords.convert.image.near_duplicates import perceptual_hashes
from tfrecords.convert.sources import Files, printable
from tfrecords.convert.sources.read_errors import machine_errors, read_file
from tfrecords.convert.state.receipts import Receipt, write_receipt
from tfrecords.format.array_record_shard import ArrayRecordWriter
from tfrecords.format.image_size import num_pixels
from tfrecords.format.layout import ShardInfo
from tfrecords.format.quarantine import Refusal
from tfrecords.format.record_layout import OWN_SHAPES, encode_record, encode_with_tail
from tfrecords.format.shard import ShardWriter, open_shard
from tfrecords.storage.handover import run_and_hand_over

_BATCH_BYTES = 1 << 18
_HASHED_PX = 64  # side of the square that images in their own shapes are compared by
_ADVICE = {
    errno.ENOTDIR: "Move away the file that has the name of a folder",
    errno.EEXIST: "Move away the file that has this name",
    errno.ENAMETOOLONG: "Choose a shorter --name",
}


class Stopped(Exception):
    """The worker was asked to stop; its unfinished shard was removed."""


class Monitor:
    """Reports progress and asks whether to stop. This default does neither."""

    def begin(self, row: int) -> None:
        """Called before each file with its row in the source; raises Stopped if the task should end."""

    def end(self, *, refused: bool) -> None:
        """Called after each file."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Task:
    """A piece of work that is cheap to pickle: a shard to be made of `rows` of the source, int64 `[num_files]`.

    `inputs` is a digest of the files that the shard is made from, so that a receipt of other files is recognized. If
    workers do not see the folders of this machine, `handover` is the URL where they put what they make.
    """

    shard: Path
    receipt: Path
    inputs: str
    rows: np.ndarray
    handover: str = ""

    def run(self, monitor: Monitor) -> None:
        """Write the shard and its receipt.

        Raises:
            Stopped: the monitor asked to stop; nothing of the shard is left.
            ConversionError: the shard cannot be written.
        """
        raise NotImplementedError

    def run_elsewhere(self, monitor: Monitor) -> None:
        """Run it on a machine that may not see the folders of the one that planned it; see `run`."""
        if self.handover:
            run_and_hand_over(self, monitor)
        else:
            self.run(monitor)

    def acknowledge(self, num_examples: int) -> None:
        """Write the receipt of the shard, which is finished, without its checksum: only who planned it reads it."""
        with writing(self.receipt):
            num_bytes = self.shard.stat().st_size
            info = ShardInfo(file=self.shard.name, num_examples=num_examples, num_bytes=num_bytes, sha256="")
            write_receipt(self.receipt, self.inputs, info)

    def files_read(self) -> Iterator[tuple[Files, str, tuple[int, int, int] | None]]:
        """Yield what the task reads: files, a path in them, and its place there. By default nothing is told."""
        yield from ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ShardTask(Task):
    """Converts the files of one shard, in the order of its records.

    `ids` and `labels` are int64 `[num_files]`; `places` is int64 `[num_files, 3]` if `files` reads by place. An
    intermediate shard need not be `durable`: synced to the disk, with its SHA-256. `indexed` asks for a sidecar of raw
    records, too. `tails` are those of the records, see `tfrecords.format.schema`; None if records have a class alone.
    """

    files: Files
    paths: tuple[str, ...]
    ids: np.ndarray
    labels: np.ndarray
    places: np.ndarray | None
    image: ImageOptions
    encoding: str
    jpeg_quality: int
    hashed: bool
    durable: bool
    indexed: bool = False
    tails: tuple[bytes, ...] | None = None

    def run(self, monitor: Monitor) -> None:
        """Convert the files; a ConversionError can also mean that a file cannot be read for a reason of the machine."""
        receipt = Receipt(len(self.rows))
        position = 0
        batch: list[tuple[int, DecodedImage]] = []
        own_shapes = self.image.resize in OWN_SHAPES
        batch_size = (
            1 if own_shapes else max(1, _BATCH_BYTES // (num_pixels(self.image.image_size) * self.image.channels))
        )
        shard = open_shard(
            self.shard, index=self.indexed or self.encoding != "raw", sizes=own_shapes, durable=self.durable
        )
        with writing(self.shard), shard as writer:
            for number in range(len(self.rows)):
                monitor.begin(int(self.rows[number]))
                try:
                    batch.append((number, _load_file(self, number, receipt)))
                    if len(batch) == batch_size:
                        _write_batch(self, batch, receipt, writer)
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
            _write_batch(self, batch, receipt, writer)
        with writing(self.receipt):
            write_receipt(self.receipt, self.inputs, writer.info(), receipt)

    def files_read(self) -> Iterator[tuple[Files, str, tuple[int, int, int] | None]]:
        """Yield the files of the source."""
        for number, path in enumerate(self.paths):
            yield self.files, path, place_of(self.places, number)


def pack(task: Task) -> bytes:
    """Return a task as the bytes that travel to another process or machine, at about 16 bytes per file."""
    return zlib.compress(pickle.dumps(task))


def unpack(data: bytes) -> Task:
    """Return the task in bytes that `pack` returned."""
    task: Task = pickle.loads(zlib.decompress(data))
    return task


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
        raise unwritable(path, error) from None


def unwritable(path: Path, error: OSError, otherwise: str = "") -> ConversionError:
    """Return the error for a file that cannot be written; `otherwise` is another way out, for the end of a sentence."""
    advice = _ADVICE.get(error.errno or 0, "Make room or make the folder writable")
    return ConversionError(
        f"{path} cannot be written: {error.strerror or error}. Finished shards are kept. {advice}, and give the same "
        f"command again{otherwise}."
    )


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


def _write_batch(
    task: ShardTask, batch: list[tuple[int, DecodedImage]], receipt: Receipt, writer: ShardWriter | ArrayRecordWriter
) -> None:
    """Write the images of files, given by number, as the next records, one step for all of them at a time, so that
    their data stays in the caches.
    """
    if not batch:
        return
    numbers, pixels = [number for number, _ in batch], np.array([image.pixels for _, image in batch])
    images = [image.tobytes() for image in pixels]
    # One color gives the same bytes in each shape of as many pixels.
    shape = b"%d %d" % pixels.shape[1:3] if task.image.resize in OWN_SHAPES else b""
    digests = b"".join([hashlib.sha256(image + shape if shape else image).digest() for image in images])
    receipt.pixels_sha256[numbers] = np.frombuffer(digests, np.uint8).reshape(-1, 32)
    if task.hashed:
        receipt.phash[numbers] = perceptual_hashes(_hashed_pixels(task, pixels))
    if task.encoding != "raw":
        images = [image.jpeg or encode(image.pixels, task.encoding, task.jpeg_quality) for _, image in batch]
    labels, ids = task.labels[numbers].tolist(), task.ids[numbers].tolist()
    if task.tails is None:
        for image, label, id in zip(images, labels, ids, strict=True):
            writer.write(encode_record(image, label, id))
    else:
        for number, image, id in zip(numbers, images, ids, strict=True):
            writer.write(encode_with_tail(image, id, task.tails[number]))
    batch.clear()


def _hashed_pixels(task: ShardTask, pixels: np.ndarray) -> np.ndarray:
    """Return the pixels whose perceptual hashes find copies: RGB, of a square also for the one image in its shape."""
    pixels = rgb_of(pixels)
    height, width = pixels.shape[1:3]
    if task.image.resize not in OWN_SHAPES or min(height, width) < _HASHED_PX:
        return pixels
    return resize_pixels(pixels[0], (_HASHED_PX, _HASHED_PX), (0, 0, width, height))[None]


def _load_file(task: ShardTask, number: int, receipt: Receipt) -> DecodedImage:
    """Return the image of a file, and put everything else that is known about it into the receipt."""
    data = read_file(task.files, task.paths[number], place_of(task.places, number))
    receipt.sha256[number] = np.frombuffer(hashlib.sha256(data).digest(), np.uint8)
    with machine_errors(task.paths[number]):
        image = load_image(data, task.image)
    receipt.widths[number] = image.width
    receipt.heights[number] = image.height
    if image.vanishes:
        receipt.vanished.add(number)
    if image.narrow:
        receipt.narrow.add(number)
    return image
