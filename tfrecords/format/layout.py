"""layout.json: where each part of a record lies, which shards there are, and how the data set was made.

With raw pixels every record of a data set has the same length and the image lies at one offset, so a shard is an array
`uint8 [num_examples, record_bytes]` on disk as well as an ordinary TFRecord file:

    record_bytes                                     length of a record with its framing
    record[id_offset    : id_offset + INT_BYTES]     id, a padded varint
    record[image_offset : image_offset + h * w * 3]  pixels, uint8 [h, w, 3]
    record[label_offset : label_offset + INT_BYTES]  label, a padded varint

With JPEG or PNG the four numbers are 0 and each shard has a sidecar `<shard>.idx`: a line `offset length` in bytes for
each record, framing included, which is the form NVIDIA DALI's tfrecord2idx writes.

`files` has the SHA-256 of every other file of the folder: sidecars, manifest, quarantine list and metadata. The layout
ends with the SHA-256 of its own other values, as JSON, so a changed one is noticed. One file is in neither:
report.html, which may be written at any time and ends with its own.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from tfrecords.base_errors import DataError
from tfrecords.format.atomic_files import atomic_file, json_bytes, read_json
from tfrecords.format.example import encode_example, varint
from tfrecords.format.record import FOOTER_BYTES, FRAMING_BYTES, HEADER_BYTES

__all__ = [
    "ENCODINGS",
    "INT_BYTES",
    "LAYOUT_FILE",
    "Layout",
    "Offsets",
    "ShardInfo",
    "encode_record",
    "raw_offsets",
    "record_offsets",
    "record_spans",
]

ENCODINGS = ("raw", "jpeg", "png")
# Five groups of 7 bits hold 34 thousand million ids; a label is as long for the sake of one rule.
INT_BYTES = 5

# Numbers that can be found again in a record's bytes.
_ID_MARK, _LABEL_MARK = 0x155555555, 0x2AAAAAAAA

LAYOUT_FILE = "layout.json"

# What is as long in every record: the key of the image, and the map's entries of id and label.
_IMAGE_KEY = b"\x0a\x05image"
_ENTRY_OF_ID = b"\x0a\x0f\x0a\x02id\x12\x09\x1a\x07\x0a\x05" + bytes(INT_BYTES)
_ENTRY_OF_LABEL = b"\x0a\x12\x0a\x05label\x12\x09\x1a\x07\x0a\x05" + bytes(INT_BYTES)

_FORMAT = "simimg-layout/2"
_HINT = "the data set's layout, written by `simimg convert`"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Offsets:
    """Where the parts of a raw record lie, in bytes from the record's first; all 0 where records differ in length."""

    record_bytes: int = 0
    id_offset: int = 0
    image_offset: int = 0
    label_offset: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardInfo:
    """One finished shard: its file name, what it holds, and the checksum of all its bytes, "" while it has none."""

    file: str
    num_examples: int
    num_bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """All that is needed to read a data set's shards without looking into them.

    `files` is the SHA-256 of each file of the folder that is no shard, by its name, in hexadecimal.
    """

    name: str
    version: str
    encoding: str
    image_size: int
    class_names: tuple[str, ...]
    offsets: Offsets
    splits: dict[str, tuple[ShardInfo, ...]]
    files: dict[str, str]
    config: dict[str, Any]
    source_sha256: str
    versions: dict[str, str]

    def num_examples(self, split: str) -> int:
        """Returns how many examples `split` has."""
        return sum(shard.num_examples for shard in self.splits[split])

    def to_bytes(self) -> bytes:
        """Returns what layout.json holds: the same layout, the same bytes."""
        values = {"format": _FORMAT, **dataclasses.asdict(self)}
        return json_bytes({**values, "sha256": _digest(values)})

    def save(self, dataset_dir: Path) -> None:
        """Writes layout.json into `dataset_dir`."""
        with atomic_file(dataset_dir / LAYOUT_FILE, sync_name=False) as file:
            file.write(self.to_bytes())

    @classmethod
    def exists(cls, dataset_dir: Path) -> bool:
        """Tells whether `dataset_dir` has a layout.json."""
        return (dataset_dir / LAYOUT_FILE).is_file()

    @classmethod
    def load(cls, dataset_dir: Path) -> Layout:
        """Reads layout.json from `dataset_dir`.

        Raises:
            DataError: it is missing, damaged, or of another format.
        """
        path = dataset_dir / LAYOUT_FILE
        values = read_json(path, _HINT)
        form = values.pop("format", None) if isinstance(values, dict) else None
        if form != _FORMAT:
            known = isinstance(form, str) and form.startswith(_FORMAT.partition("/")[0])
            of = (
                f"is of the format {form!r}, this is for {_FORMAT!r}"
                if known
                else f"should be of the format {_FORMAT!r}"
            )
            raise DataError(f"{path} {of}. Convert the pictures again.")
        if values.pop("sha256", None) != _digest({"format": _FORMAT, **values}):
            raise DataError(f"{path} was changed: its own checksum fails. Convert the pictures again.")
        try:
            values["offsets"] = Offsets(**values["offsets"])
            values["splits"] = {
                split: tuple(ShardInfo(**shard) for shard in shards) for split, shards in values["splits"].items()
            }
            values["class_names"] = tuple(values["class_names"])
            return cls(**values)
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path} lacks a part ({error}). Convert the pictures again.") from None


def _digest(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def encode_record(image: bytes, label: int, id: int) -> bytes:
    """Returns the payload of one record: an Example with the features `id`, `image` and `label`.

    Raises:
        ValueError: `label` or `id` is negative or does not fit into `INT_BYTES` varint bytes.
    """
    before_id, before_image, before_label = _parts(len(image))
    return b"".join((before_id, varint(id, INT_BYTES), before_image, image, before_label, varint(label, INT_BYTES)))


@lru_cache(maxsize=1 << 14)  # a data set has one length, or some thousands
def _parts(num_bytes: int) -> tuple[bytes, bytes, bytes]:
    """Returns what stands before the id, the image and the label of a record whose image has so many bytes."""
    # Read off a record whose parts can be told apart, so that there is one description of the bytes: the encoder.
    image = bytes(num_bytes)
    payload = encode_example({"id": _ID_MARK, "image": image, "label": _LABEL_MARK}, int_bytes=INT_BYTES)
    before_id, _, rest = payload.partition(varint(_ID_MARK, INT_BYTES))
    rest, _, after = rest.partition(varint(_LABEL_MARK, INT_BYTES))
    assert not after
    at = rest.index(image) if image else len(rest)
    return before_id, rest[:at], rest[at + num_bytes :]


def raw_offsets(image_size: int) -> Offsets:
    """Returns where the parts of a record with raw `uint8 [image_size, image_size, 3]` pixels lie."""
    return record_offsets(image_size * image_size * 3)


def record_offsets(image_bytes: int) -> Offsets:
    """Returns where the parts of a record whose image has `image_bytes` bytes, at least 3, lie."""
    # Read off a record whose parts can be told apart, so that there is one description of the bytes: the encoder.
    id_mark, label_mark = 0x155555555, 0x2AAAAAAAA
    image = bytes(image_bytes)
    payload = encode_record(image, label_mark, id_mark)
    return Offsets(
        record_bytes=FRAMING_BYTES + len(payload),
        id_offset=HEADER_BYTES + payload.index(varint(id_mark, INT_BYTES)),
        image_offset=HEADER_BYTES + payload.index(image),
        label_offset=HEADER_BYTES + payload.index(varint(label_mark, INT_BYTES)),
    )


def record_spans(record_bytes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns where the parts of records of these lengths lie: a record's length tells that, for JPEG and PNG as well.

    Args:
        record_bytes: int64 `[n]`, with the framing.

    Returns:
        int64 `[n]` each: the offset of the id, the offset of the image, and the image's length in bytes, which is -1
        where `encode_record` writes no record of this length. The label are the last bytes before the footer.
    """
    lengths, which = np.unique(record_bytes, return_inverse=True)
    images, ids, offsets = np.full_like(lengths, -1), np.zeros_like(lengths), np.zeros_like(lengths)
    # Around an image stand the varints of five lengths: its own and those of the four messages that it is in.
    shortest = len(encode_record(b"", 0, 0)) + FRAMING_BYTES
    for longer in range(5 * (INT_BYTES - 1) + 1):
        candidates = np.maximum(lengths - shortest - longer, 0)
        record, id_offset, image_offset = _record_of(candidates)
        found = record == lengths
        ids[found], offsets[found], images[found] = id_offset[found], image_offset[found], candidates[found]
    return ids[which], offsets[which], images[which]


def _record_of(image_bytes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the length of a record and the offsets of its id and its image, for images of these lengths."""
    inside = image_bytes
    before = np.zeros_like(image_bytes)
    for key_bytes in (0, 0, len(_IMAGE_KEY), 0):  # bytes value, BytesList, Feature beside its key, entry of the map
        field = 1 + _varint_bytes(inside)
        before += field + key_bytes
        inside = inside + field + key_bytes
    features = len(_ENTRY_OF_ID) + inside + len(_ENTRY_OF_LABEL)
    after_id = HEADER_BYTES + 1 + _varint_bytes(features) + len(_ENTRY_OF_ID)
    return after_id + inside + len(_ENTRY_OF_LABEL) + FOOTER_BYTES, after_id - INT_BYTES, after_id + before


def _varint_bytes(values: np.ndarray) -> np.ndarray:
    return 1 + np.sum([values >= 1 << 7 * groups for groups in range(1, INT_BYTES)], axis=0)
