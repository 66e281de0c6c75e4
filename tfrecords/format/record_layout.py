"""The byte layout of a record: an Example with the features `id`, `image` and `label`, and where each of them lies.

With raw pixels every record of a dataset has the same length and the image lies at the same offset. A shard is then an
array `uint8 [num_examples, record_bytes]` on disk as well as an ordinary TFRecord file:

    record_bytes                                     length of a record with its framing
    record[id_offset    : id_offset + INT_BYTES]     id, a padded varint
    record[image_offset : image_offset + h * w * c]  pixels, uint8 [h, w, c]
    record[label_offset : label_offset + INT_BYTES]  label, a padded varint

With JPEG or PNG, records differ in length, and a record's length determines where its parts lie.

A dataset with another schema (`tfrecords.format.schema`) has other bytes after the image: the record's tail. If tails
differ in length, raw records do, too, and `find_spans` finds the image by the lengths that the record has in it.
"""

from __future__ import annotations

import dataclasses
import re
from functools import lru_cache
from typing import TypeVar

import numpy as np

from tfrecords.format.example import encode_example
from tfrecords.format.image_size import ImageSize, num_pixels
from tfrecords.format.naming import TFRECORD
from tfrecords.format.record import FOOTER_BYTES, FRAMING_BYTES, HEADER_BYTES, varint
from tfrecords.format.schema import LABEL_BYTES, PLAIN, Schema

ENCODINGS = ("raw", "jpeg", "png")
# Ways to store images in their own shapes: reduced by the short side or the longer one, or as large as they are.
OWN_SHAPES = ("short", "longest", "none")
# Five groups of 7 bits hold 34 billion ids. A label has the same length, so that there is one rule.
INT_BYTES = LABEL_BYTES

# The parts that have the same length in every record: the image's key, and the map entries of id and label.
_IMAGE_KEY = b"\x0a\x05image"
_ENTRY_OF_ID = b"\x0a\x0f\x0a\x02id\x12\x09\x1a\x07\x0a\x05" + bytes(INT_BYTES)
_ENTRY_OF_LABEL = b"\x0a\x12\x0a\x05label\x12\x09\x1a\x07\x0a\x05" + bytes(INT_BYTES)

_PADDED = re.compile(rb"[\x80-\xff]{%d}[\x00-\x7f]" % (INT_BYTES - 1))  # a varint of this length

# Rounds of `_image_bytes_of`: one for each of the five lengths in front of an image, and one to spare.
_ROUNDS = 6

_Lengths = TypeVar("_Lengths", int, np.ndarray)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Offsets:
    """Where the parts of a raw record lie, in bytes from the record's start; all 0 if records differ in length, or do
    not lie one after the other.
    """

    record_bytes: int = 0
    id_offset: int = 0
    image_offset: int = 0
    label_offset: int = 0

    @classmethod
    def of(
        cls,
        encoding: str,
        image_size: ImageSize,
        schema: Schema = PLAIN,
        file_format: str = TFRECORD,
        channels: int = 3,
    ) -> Offsets:
        """Return the offsets in records with `encoding`, images of `image_size` px and `channels`, and the labels and
        features of `schema`, in shards of `file_format`.
        """
        if encoding != "raw" or file_format != TFRECORD or schema.tail_bytes is None:
            return cls()
        record_bytes, id_offset, image_offset = _spans_of(num_pixels(image_size) * channels, schema.tail_bytes)
        return cls(
            record_bytes=record_bytes,
            id_offset=id_offset,
            image_offset=image_offset,
            label_offset=record_bytes - FOOTER_BYTES - schema.label_bytes,
        )


def encode_record(image: bytes, label: int, id: int) -> bytes:
    """Return the payload of one record.

    Raises ValueError if `label` or `id` is negative or does not fit into `INT_BYTES` varint bytes.
    """
    before_id, before_image, before_label = _template(len(image))
    return b"".join((before_id, varint(id, INT_BYTES), before_image, image, before_label, varint(label, INT_BYTES)))


def encode_with_tail(image: bytes, id: int, tail: bytes) -> bytes:
    """Return the payload of one record whose schema is not the plain one; `tail` is from `Schema.tail`."""
    before_image = b""
    size = len(image)
    for tag in (b"\x0a", b"\x0a", b"\x12"):  # bytes value, BytesList, Feature
        before_image = tag + varint(size) + before_image
        size = len(before_image) + len(image)
    entry = b"\x0a" + varint(len(_IMAGE_KEY) + size) + _IMAGE_KEY + before_image
    before_id = b"\x0a" + varint(len(_ENTRY_OF_ID) + len(entry) + len(image) + len(tail)) + _ENTRY_OF_ID[:-INT_BYTES]
    return b"".join((before_id, varint(id, INT_BYTES), entry, image, tail))


def match_record(payload: bytes) -> tuple[bytes, bytes] | None:
    """Return the padded varints of id and label in a payload, or None if `encode_record` never writes this payload."""
    found = _parts_of(len(payload))
    if found is None:
        return None
    (before_id, before_image, before_label), image_at, label_at = found
    id_at = len(before_id)
    id_bytes, label_bytes = payload[id_at : id_at + INT_BYTES], payload[label_at:]
    is_ours = (
        payload.startswith(before_id)
        and payload[id_at + INT_BYTES : image_at] == before_image
        and payload[label_at - len(before_label) : label_at] == before_label
        and _PADDED.fullmatch(id_bytes)
        and _PADDED.fullmatch(label_bytes)
    )
    return (id_bytes, label_bytes) if is_ours else None


def record_spans(record_bytes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return where the parts of records lie, given only the length of each record.

    Args:
        record_bytes: int64 `[n]`, with the framing.

    Returns:
        int64 `[n]` each: the offset of the id, the offset of the image, and the image's length in bytes, which is -1 if
        `encode_record` writes no record of this length. The label is in the last bytes before the footer.
    """
    lengths, which = np.unique(record_bytes, return_inverse=True)
    images = np.maximum(_image_bytes_of(lengths), 0)
    found, ids, offsets = _spans_of(images)
    return ids[which], offsets[which], np.where(found == lengths, images, -1)[which]


def find_spans(data: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return where the parts of records lie that may have any tail, from the lengths in them.

    Args:
        data: uint8, the bytes of the shards.
        starts: int64 `[n]`, where records begin, with their framing.
        ends: int64 `[n]`, where they end.

    Returns:
        What `record_spans` returns: offsets in the record, and -1 for the image of one that is none.
    """
    last = np.maximum(ends - FOOTER_BYTES - INT_BYTES, starts)  # nothing is read beyond a record

    def after_varint(at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        groups = data[np.minimum(at, last)[:, None] + np.arange(INT_BYTES)]
        num_bytes = (groups >= 0x80).cumprod(axis=1).sum(axis=1) + 1
        kept = np.arange(INT_BYTES) < num_bytes[:, None]
        return at + num_bytes, ((groups & 0x7F).astype(np.int64) * kept << 7 * np.arange(INT_BYTES)).sum(axis=1)

    at, _ = after_varint(starts + HEADER_BYTES + 1)
    ids = at + len(_ENTRY_OF_ID) - INT_BYTES
    at, _ = after_varint(at + len(_ENTRY_OF_ID) + 1)
    at += len(_IMAGE_KEY)
    for _ in range(3):  # Feature, BytesList, bytes value
        at, size = after_varint(at + 1)
    return ids - starts, at - starts, np.where(at + size <= ends - FOOTER_BYTES, size, -1)


@lru_cache(maxsize=1 << 14)  # a raw dataset has one length, others have some thousands
def _template(image_bytes: int) -> tuple[bytes, bytes, bytes]:
    """Return the bytes before the id, the image and the label of a record whose image has `image_bytes` bytes."""
    payload = encode_example({"id": 0, "image": bytes(image_bytes), "label": 0}, int_bytes=INT_BYTES)
    _, id_offset, image_offset = _spans_of(image_bytes)
    id_at, image_at = id_offset - HEADER_BYTES, image_offset - HEADER_BYTES
    return payload[:id_at], payload[id_at + INT_BYTES : image_at], payload[image_at + image_bytes : -INT_BYTES]


@lru_cache(maxsize=1 << 14)
def _parts_of(payload_bytes: int) -> tuple[tuple[bytes, bytes, bytes], int, int] | None:
    """Return the template of payloads of this length with the offsets of image and label, or None if there is none."""
    image_bytes = max(_image_bytes_of(payload_bytes + FRAMING_BYTES), 0)
    record_bytes, _, image_offset = _spans_of(image_bytes)
    if record_bytes != payload_bytes + FRAMING_BYTES:
        return None
    return _template(image_bytes), image_offset - HEADER_BYTES, payload_bytes - INT_BYTES


def _image_bytes_of(record_bytes: _Lengths) -> _Lengths:
    """Return the image length that gives records of this length; a wrong one if no record has it.

    The overhead of a record is its length minus its image's length. It grows slowly with the image, so the equation
    `image = record - overhead(image)` is solved by inserting the result again.
    """
    image = record_bytes
    for _ in range(_ROUNDS):
        at_least_0 = image * (image > 0)
        image = record_bytes - (_spans_of(at_least_0)[0] - at_least_0)
    return image


def _spans_of(image_bytes: _Lengths, tail_bytes: int = len(_ENTRY_OF_LABEL)) -> tuple[_Lengths, _Lengths, _Lengths]:
    """Return the length of a record and the offsets of its id and its image, for images of these lengths.

    This is the only arithmetic about a record's parts; everything else in this module uses it.
    """
    inside = image_bytes
    for key_bytes in (0, 0, len(_IMAGE_KEY), 0):  # bytes value, BytesList, Feature beside its key, entry of the map
        inside = inside + 1 + _varint_bytes(inside) + key_bytes
    features = len(_ENTRY_OF_ID) + inside + tail_bytes
    after_id = HEADER_BYTES + 1 + _varint_bytes(features) + len(_ENTRY_OF_ID)
    record_bytes = after_id + inside + tail_bytes + FOOTER_BYTES
    return record_bytes, after_id - INT_BYTES, after_id + inside - image_bytes


def _varint_bytes(values: _Lengths) -> _Lengths:
    num_bytes = values * 0 + 1
    for groups in range(1, INT_BYTES):
        num_bytes = num_bytes + (values >= 1 << 7 * groups)
    return num_bytes
