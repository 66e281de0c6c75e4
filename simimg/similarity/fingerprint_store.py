"""Thumbnails and keypoints of an index's images, kept beside it so that they are computed once.

<index_dir>/fingerprints-<versions>.sqlite    about 20 KB per thumbnail, 24 KB and 58 KB per coarse and fine keypoints

They belong to the SHA-256 of a file, so they stay valid when it is renamed. They are determined by the file and by the
versions of the libraries that computed them, whose hash is in the name. SQLite writes each batch completely or not at
all. The store is a cache: one that cannot be read or written is as good as an empty one.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import sqlite3
import threading
from collections.abc import Iterable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import quote

import cv2
import numpy as np
import simplejpeg

from simimg.similarity.keypoints import Keypoints
from tfrecords.convert.image.decoder import PIXELS, decoder_versions

_FORMAT = 4
"""To be raised when the same file has other thumbnails or keypoints."""

_NAME = "fingerprints"
_MAX_BYTES = 4 << 30  # of the file; the oldest parts are removed
_MAX_WAITING_BYTES = 32 << 20  # of parts that are not written yet
_MAX_KEPT_BYTES = 256 << 20  # of those that are never written, and of gray images: 4,000 of them
_TIMEOUT_S = 2.0  # for a process that writes at the same time
_QUALITY = 95  # of thumbnails


@dataclasses.dataclass(frozen=True, slots=True)
class StoredThumbnail:
    """An image's size in px, the quality of its JPEG file, and its thumbnails as JPEG.

    There are two thumbnails of an image with transparent pixels. They are compressed before they are used for the first
    time, so it makes no difference whether they were stored.
    """

    size: tuple[int, int]
    jpeg_quality: int | None
    jpegs: tuple[bytes, ...]

    @classmethod
    def of(cls, size: tuple[int, int], jpeg_quality: int | None, thumbnails: Sequence[np.ndarray]) -> StoredThumbnail:
        """Compress thumbnails, uint8 `[h, w, 3]`."""
        jpegs = (
            simplejpeg.encode_jpeg(np.ascontiguousarray(one), _QUALITY, colorsubsampling="444", fastdct=False)
            for one in thumbnails
        )
        return cls(size, jpeg_quality, tuple(jpegs))

    def pixels(self) -> list[np.ndarray]:
        """Return the thumbnails, uint8 `[h, w, 3]`."""
        return [simplejpeg.decode_jpeg(jpeg, "RGB") for jpeg in self.jpegs]

    def to_bytes(self) -> bytes:
        """Return the content for the store: a line of JSON and the JPEG files."""
        facts = [self.size, self.jpeg_quality, [len(jpeg) for jpeg in self.jpegs]]
        return b"\n".join([json.dumps(facts).encode(), b"".join(self.jpegs)])

    @classmethod
    def from_bytes(cls, data: bytes) -> StoredThumbnail:
        """Return the thumbnail with this content."""
        line, _, jpegs = data.partition(b"\n")
        (width, height), quality, lengths = json.loads(line)
        ends = np.cumsum(lengths).tolist()
        return cls(
            (width, height),
            quality,
            tuple(jpegs[end - length : end] for end, length in zip(ends, lengths, strict=True)),
        )


class FingerprintStore:
    """Thumbnails and keypoints by a key that starts with the SHA-256 of a file, in hexadecimal. Thread-safe."""

    def __init__(self, index_dir: Path | None, max_bytes: int = _MAX_BYTES) -> None:
        """Take the folder of an index; None writes nothing, and keeps the last ones in memory.

        Gray images are never written: their keypoints are. Neither are images at the size at which they are compared.
        """
        self._grays: dict[str, np.ndarray] = {}
        self._num_gray_bytes = 0
        self._reduced: dict[str, tuple[np.ndarray, ...]] = {}
        self._num_reduced_bytes = 0
        self._connection: sqlite3.Connection | None = None
        self._path = None if index_dir is None else index_dir / f"{_NAME}-{_versions()}.sqlite"
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._waiting: dict[str, bytes] = {}
        self._num_waiting_bytes = 0

    def __del__(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def thumbnail(self, key: str) -> StoredThumbnail | None:
        """Return a thumbnail, or None if there is none."""
        content = self._content(f"{key}-thumbnail")
        return None if content is None else StoredThumbnail.from_bytes(content)

    def add_thumbnail(self, key: str, thumbnail: StoredThumbnail) -> None:
        """Keep a thumbnail."""
        self._add(f"{key}-thumbnail", thumbnail.to_bytes())

    def keypoints(self, key: str, part: str) -> Keypoints | None:
        """Return the keypoints of a part, `coarse` or `fine`, or None if there are none."""
        content = self._content(f"{key}-{part}")
        if content is None:
            return None
        width, height, count = np.frombuffer(content, "<i4", 3).tolist()
        numbers = np.frombuffer(content, "<f4", 4 * count, 12).reshape(4, count)
        descriptors = np.frombuffer(content, np.uint8, 128 * count, 12 + 16 * count).reshape(count, 128)
        points = np.ascontiguousarray(numbers[:2].T)
        return Keypoints((width, height), points, numbers[2], numbers[3], descriptors)

    def add_keypoints(self, key: str, part: str, keypoints: Keypoints) -> None:
        """Keep keypoints."""
        numbers = np.stack([*keypoints.points.T, keypoints.scales, keypoints.angles]).astype("<f4")
        header = np.array([*keypoints.size, len(keypoints.points)], "<i4")
        self._add(f"{key}-{part}", header.tobytes() + numbers.tobytes() + keypoints.descriptors.tobytes())

    def gray(self, key: str) -> np.ndarray | None:
        """Return an image as its fine keypoints are detected in it, uint8 `[h, w]`, or None; it is not kept on."""
        with self._lock:
            found = self._grays.pop(key, None)
            self._num_gray_bytes -= 0 if found is None else found.nbytes
            return found

    def add_gray(self, key: str, gray: np.ndarray) -> None:
        """Keep such an image in memory until it is requested once, or many others were added."""
        with self._lock:
            self._num_gray_bytes += gray.nbytes - (self._grays.pop(key).nbytes if key in self._grays else 0)
            self._grays[key] = gray
            while self._num_gray_bytes > _MAX_KEPT_BYTES:
                self._num_gray_bytes -= self._grays.pop(next(iter(self._grays))).nbytes

    def reduced(self, key: str) -> tuple[np.ndarray, ...] | None:
        """Return an image at the size at which copies are compared, and if it is transparent, on both backgrounds."""
        with self._lock:
            return self._reduced.get(key)

    def add_reduced(self, key: str, images: tuple[np.ndarray, ...]) -> bool:
        """Keep such an image in memory; return False if there is no room left."""
        with self._lock:
            if self._num_reduced_bytes < _MAX_KEPT_BYTES and key not in self._reduced:
                self._reduced[key] = images
                self._num_reduced_bytes += sum(pixels.nbytes for pixels in images)
            return key in self._reduced

    def save(self) -> None:
        """Write what was added to the disk."""
        with self._lock:
            self._save()

    def close(self) -> None:
        """Write what was added, and close the file."""
        with self._lock:
            self._save()
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _content(self, name: str) -> bytes | None:
        with self._lock:
            if name in self._waiting:
                return self._waiting[name]
            if not self._is_connected():
                return None
            assert self._connection is not None
            try:
                row = self._connection.execute("SELECT content, checksum FROM parts WHERE name = ?", [name]).fetchone()
            except sqlite3.Error:  # damaged, or removed
                return None
        return row[0] if row and _checksum(row[0]) == row[1] else None

    def _is_connected(self) -> bool:
        """Open the file if it is there and not open yet: this store may be the one that has just made it."""
        if self._connection is None and self._path is not None and self._path.exists():
            with suppress(sqlite3.Error):
                name = f"file:{quote(str(self._path.absolute()))}?mode=ro"
                self._connection = sqlite3.connect(name, uri=True, check_same_thread=False, timeout=_TIMEOUT_S)
        return self._connection is not None

    def _add(self, name: str, content: bytes) -> None:
        with self._lock:
            self._num_waiting_bytes += len(content) - len(self._waiting.pop(name, b""))
            self._waiting[name] = content
            if self._path is not None and self._num_waiting_bytes > _MAX_WAITING_BYTES:
                self._save()
            while self._num_waiting_bytes > _MAX_KEPT_BYTES:
                self._num_waiting_bytes -= len(self._waiting.pop(next(iter(self._waiting))))

    def _save(self) -> None:
        if not self._waiting:
            return
        rows = [(name, _checksum(content), content) for name, content in sorted(self._waiting.items())]
        self._waiting, self._num_waiting_bytes = {}, 0
        if self._path is None:
            return
        for _ in range(2):
            try:
                with closing(sqlite3.connect(self._path, timeout=_TIMEOUT_S)) as connection, connection:
                    connection.execute(
                        "CREATE TABLE IF NOT EXISTS parts "
                        "(id INTEGER PRIMARY KEY, name TEXT UNIQUE, checksum BLOB, content BLOB)"
                    )
                    connection.executemany(
                        "INSERT OR REPLACE INTO parts (name, checksum, content) VALUES (?, ?, ?)", rows
                    )
                    _remove_oldest(connection, self._max_bytes)
                break
            except sqlite3.OperationalError:  # a folder that cannot be written, a full disk, or another writer
                break
            except sqlite3.DatabaseError:  # damaged
                with suppress(OSError):
                    self._path.unlink()
        for path in self._path.parent.glob(f"{_NAME}-*.sqlite"):
            if path != self._path:  # of other versions
                with suppress(OSError):
                    path.unlink()


def is_fingerprints(name: str) -> bool:
    """Return whether a file in the folder of an index is a store."""
    return name.startswith(f"{_NAME}-")


def remove_fingerprints(index_dir: Path, known: Iterable[str]) -> None:
    """Remove the thumbnails and keypoints of all files but those with a known SHA-256, in hexadecimal."""
    for path in index_dir.glob(f"{_NAME}-*.sqlite"):
        with suppress(sqlite3.Error), closing(sqlite3.connect(path, timeout=_TIMEOUT_S)) as connection, connection:
            connection.execute("CREATE TEMPORARY TABLE known (sha256 TEXT PRIMARY KEY)")
            connection.executemany("INSERT OR IGNORE INTO known VALUES (?)", ((sha256,) for sha256 in known))
            connection.execute("DELETE FROM parts WHERE substr(name, 1, 64) NOT IN (SELECT sha256 FROM known)")


def _remove_oldest(connection: sqlite3.Connection, max_bytes: int) -> None:
    (num_pages,), (num_free,), (page_bytes,) = (
        connection.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "freelist_count", "page_size")
    )
    total = (num_pages - num_free) * page_bytes
    if total <= max_bytes:
        return
    for number, length in connection.execute("SELECT id, length(content) FROM parts ORDER BY id").fetchall():
        connection.execute("DELETE FROM parts WHERE id = ?", [number])
        total -= length
        if total <= 0.9 * max_bytes:
            break


def _checksum(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=8).digest()


@functools.cache
def _versions() -> str:
    made_by = (_FORMAT, PIXELS, cv2.__version__, sorted(decoder_versions().items()))
    return hashlib.sha256(repr(made_by).encode()).hexdigest()[:12]
