"""What the examples of a dataset have beside `id` and `image`: the kind of their label, and further features.

The map of a record's Example has the entries `id`, `image`, the further features in the order of their names, and last
the label, so that it is found from the record's end. These bytes after the image are the record's tail:

    single   label, an integer, as in every dataset without a schema
    multi    label, a list of integers, then the entry `padding`, zeros that make up for labels that an image lacks
    float    label, one or more float32
    none     no label

Integers of features are padded to ten bytes, and lengths inside `multi` to three. So a tail of numbers of fixed shape
has the same length in every record, and raw shards keep their stride. Text, bytes and lists of any length end that.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfrecords.format.record import varint, varints

LABEL_TYPES = ("single", "multi", "none", "float")
DTYPES = ("int64", "float32", "bytes", "text")
SCALAR, VARIABLE = 0, -1  # lengths of a feature that are not those of a list of fixed length
RESERVED = frozenset(("id", "image", "label", "padding"))
LABEL_BYTES = 5  # of a class label, a padded varint

_INT64_BYTES = 10
_LENGTH_BYTES = 3  # of a length inside a multi-label
_BYTES_LIST, _FLOAT_LIST, _INT64_LIST = b"\x0a", b"\x12", b"\x1a"  # tags in Feature
_LIST_TAGS = {"int64": _INT64_LIST, "float32": _FLOAT_LIST, "bytes": _BYTES_LIST, "text": _BYTES_LIST}
_MAX_FLOAT32 = float(np.finfo(np.float32).max)
MAX_SIZE = 1 << 14  # labels per image, or numbers per target


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeatureSpec:
    """A further feature: one value per example if `length` is 0, that many, or any number if it is -1."""

    name: str
    dtype: str
    length: int = SCALAR

    @property
    def is_fixed(self) -> bool:
        """Whether its bytes have one length in every record."""
        return self.dtype in ("int64", "float32") and self.length != VARIABLE

    def __str__(self) -> str:
        """The name and the type, for people."""
        shape = {SCALAR: "", VARIABLE: "[]"}.get(self.length, f"[{self.length}]")
        return f"{self.name} ({self.dtype}{shape})"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schema:
    """The kind of the labels, and the further features, sorted by name.

    `label_size` is the largest number of labels of an image for `multi`, and the number of targets for `float`.
    """

    label_type: str = "single"
    label_size: int = 1
    features: tuple[FeatureSpec, ...] = ()

    @classmethod
    def parse(cls, values: dict[str, Any]) -> Schema:
        """Return the schema of a layout.json; raise ValueError or TypeError if it cannot be one."""
        features = tuple(FeatureSpec(**feature) for feature in values.pop("features"))
        schema = cls(features=features, **values)
        names = [feature.name for feature in features]
        if (
            schema.label_type not in LABEL_TYPES
            or type(schema.label_size) is not int
            or not 0 <= schema.label_size <= MAX_SIZE
            or sorted(set(names)) != names
            or RESERVED & set(names)
            or any(f.dtype not in DTYPES or type(f.length) is not int or not -1 <= f.length < 1 << 31 for f in features)
        ):
            raise ValueError(f"its schema is not one: {values!r:.200}")
        return schema

    def __str__(self) -> str:
        """What examples have beside their image, for people."""

        def counted(number: int, what: str) -> str:
            return f"{number:,} {what}{'' if number == 1 else 's'}"

        size, features = self.label_size, ", ".join(map(str, self.features))
        labels = {"single": "one class", "multi": f"up to {counted(size, 'label')}", "none": "no label"}
        text = labels.get(self.label_type, counted(size, "number")) + " per image"
        return text + (f" and the feature{'' if len(self.features) == 1 else 's'} {features}" if features else "")

    @property
    def is_plain(self) -> bool:
        """Whether examples have one class and nothing else."""
        return self == PLAIN

    @property
    def label_bytes(self) -> int:
        """Bytes at the end of a record that `labels_of` needs."""
        if self.label_type == "multi":
            return len(_label_of((), self.label_size)) - _COUNT_AT
        return {"single": LABEL_BYTES, "float": 4 * self.label_size, "none": 0}[self.label_type]

    @property
    def count_bytes(self) -> int:
        """Of `label_bytes` of a multi-label, the first ones, a varint: the bytes of its labels, five per label."""
        return _LENGTH_BYTES

    @functools.cached_property
    def tail_bytes(self) -> int | None:
        """Bytes of a record's tail, or None if they differ."""
        if not all(feature.is_fixed for feature in self.features):
            return None
        label = {"single": 0, "multi": (), "float": [0.0] * self.label_size, "none": None}[self.label_type]
        values = [[0] * feature.length if feature.length else 0 for feature in self.features]
        return len(self.tail(label, values))

    def tail(self, label: Any, values: Sequence[Any]) -> bytes:
        """Return the tail of a record.

        Args:
            label: a class; or several of them, up to `label_size`; or as many numbers; or anything if there is none.
            values: of each feature: a value, or a list of them unless the feature is a scalar.

        Raises:
            ValueError: a number does not fit.
        """
        entries = [
            _entry(feature.name, _list(feature.dtype, value if feature.length else [value]))
            for feature, value in zip(self.features, values, strict=True)
        ]
        if self.label_type == "multi":
            entries.append(_label_of(label, self.label_size))
        elif self.label_type == "float":
            entries.append(_entry("label", _list("float32", label)))
        elif self.label_type == "single":
            entries.append(_entry("label", _INT64_LIST + _sized(b"\x0a" + _sized(varint(label, LABEL_BYTES)))))
        return b"".join(entries)

    def labels_of(self, ends: np.ndarray, num_classes: int) -> np.ndarray:
        """Return the labels of records, given their last bytes without the footer, uint8 `[n, label_bytes]`.

        They are int32 `[n]`, -1 if there is no label; or uint8 `[n, num_classes]`, 1 for each class of an example; or
        float32 `[n, label_size]`.
        """
        n = len(ends)
        if self.label_type == "single":
            return varints(ends).astype(np.int32)
        if self.label_type == "none":
            return np.full(n, -1, np.int32)
        if self.label_type == "float":
            return np.ascontiguousarray(ends).view("<f4").reshape(n, self.label_size)
        counts = varints(ends[:, :_LENGTH_BYTES]) // LABEL_BYTES
        slots = ends[:, _LENGTH_BYTES : _LENGTH_BYTES + LABEL_BYTES * self.label_size]
        values = varints(slots.reshape(n, self.label_size, LABEL_BYTES))
        there = (np.arange(self.label_size) < counts[:, None]) & (values < num_classes)
        rows, columns = np.nonzero(there)
        hot = np.zeros((n, num_classes), np.uint8)
        hot[rows, values[rows, columns]] = 1
        return hot

    def values_of(self, example: dict[str, list[Any]]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the labels of an example, classes or numbers, and its further features by name.

        Args:
            example: all values of its entries, as `tfrecords.format.example.decode_lists` gives them.

        Raises:
            ValueError: it does not have this schema.
        """
        labels = example.get("label", [])
        kind, number = (float, self.label_size) if self.label_type == "float" else (int, len(labels))
        number = {"single": 1, "none": 0}.get(self.label_type, number)
        if len(labels) != number or not all(isinstance(label, kind) for label in labels):
            raise ValueError("its label has another form")
        values: dict[str, Any] = {}
        for spec in self.features:
            several = example.get(spec.name)
            if several is None or (fault := check_value(spec, several)):
                raise ValueError(f"its feature {spec.name} {'is missing' if several is None else fault}")
            several = [one.decode() for one in several] if spec.dtype == "text" else several
            values[spec.name] = several if spec.length else several[0]
        return tuple(labels), values

    def label_form(self, num_classes: int) -> tuple[tuple[int, ...], str]:
        """Return the shape and the dtype of an example's label as the readers deliver it."""
        if self.label_type == "multi":
            return (num_classes,), "uint8"
        return ((self.label_size,), "float32") if self.label_type == "float" else ((), "int32")


PLAIN = Schema()


def check_value(feature: FeatureSpec, value: Any) -> str:
    """Return what is wrong with a value read back from a record, "" if nothing is."""
    if not isinstance(value, list):
        return "is not a list"
    if feature.length != VARIABLE and len(value) != max(feature.length, 1):
        return f"has {len(value)} values instead of {max(feature.length, 1)}"
    kind = {"int64": int, "float32": float}.get(feature.dtype, bytes)
    return "" if all(isinstance(one, kind) for one in value) else f"should have values of {feature.dtype}"


def as_float32(value: float) -> float:
    """Return `value`; raise ValueError if it is finite but too large for a float32."""
    if math.isfinite(value) and abs(value) > _MAX_FLOAT32:
        raise ValueError(f"{value} is too large for a float32")
    return value


def _label_of(labels: Sequence[int], size: int) -> bytes:
    """Return the entries of a multi-label: `label`, and `padding`."""
    packed = b"".join(varint(label, LABEL_BYTES) for label in labels)
    zeros = bytes(LABEL_BYTES * (size - len(labels)))
    width = _LENGTH_BYTES
    entries = b""
    for key, tag, values in ((b"label", _INT64_LIST, packed), (b"padding", _BYTES_LIST, zeros)):
        feature = tag + _sized(b"\x0a" + _sized(values, width), width)
        entries += b"\x0a" + _sized(b"\x0a" + _sized(key) + b"\x12" + _sized(feature, width), width)
    return entries


def _list(dtype: str, values: Sequence[Any]) -> bytes:
    """Return a Feature."""
    if dtype == "int64":
        content = b"\x0a" + _sized(b"".join(varint(value, _INT64_BYTES) for value in values))
    elif dtype == "float32":
        content = b"\x0a" + _sized(struct.pack(f"<{len(values)}f", *map(as_float32, values)))
    else:
        texts = (value if isinstance(value, bytes) else value.encode() for value in values)
        content = b"".join(b"\x0a" + _sized(text) for text in texts)
    return _LIST_TAGS[dtype] + _sized(content)


def _entry(key: str, feature: bytes) -> bytes:
    return b"\x0a" + _sized(b"\x0a" + _sized(key.encode()) + b"\x12" + _sized(feature))


def _sized(content: bytes, num_bytes: int | None = None) -> bytes:
    return varint(len(content), num_bytes) + content


_COUNT_AT = _label_of((), 0).index(b"label") + len(b"label") + 2 * (1 + _LENGTH_BYTES) + 1
"""Offset of the number of bytes of the labels in the entries of a multi-label."""
