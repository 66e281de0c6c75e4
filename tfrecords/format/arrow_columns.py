"""Columns of the manifest between NumPy and Arrow: digests as hexadecimal text, and names as codes of a dictionary.

No Python object is made per row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

DIGEST_BYTES = 32


def names_to_arrow(codes: np.ndarray, names: Sequence[str]) -> pa.DictionaryArray:
    """Return the name of each code, "" for -1."""
    import pyarrow as pa

    return pa.DictionaryArray.from_arrays(codes.astype(np.int32) + np.int32(1), pa.array(["", *names], pa.string()))


def digests_to_arrow(digests: np.ndarray) -> pa.StringArray:
    """Return hexadecimal strings, "" for zeros, built from their buffers without a Python object per row."""
    import pyarrow as pa

    read = digests.any(axis=1)
    ends = np.zeros(len(digests) + 1, np.int32)
    np.cumsum(read * np.int32(2 * DIGEST_BYTES), out=ends[1:])
    text = digests[read].tobytes().hex().encode()
    return pa.StringArray.from_buffers(len(digests), pa.py_buffer(ends), pa.py_buffer(text))


def digests_from_arrow(column: pa.StringArray) -> np.ndarray:
    """Return what `digests_to_arrow` turned into text, uint8 `[n, 32]`."""
    lengths = np.diff(np.frombuffer(column.buffers()[1], np.int32)[column.offset : column.offset + len(column) + 1])
    read = lengths > 0
    text = "".join(column.to_pylist())
    digests = np.zeros((len(column), DIGEST_BYTES), np.uint8)
    digests[read] = np.frombuffer(bytes.fromhex(text), np.uint8).reshape(-1, DIGEST_BYTES)
    if (lengths[read] != 2 * DIGEST_BYTES).any():
        raise ValueError("a SHA-256 should have 64 digits")
    return digests


def codes_of(column: pa.DictionaryArray, names: tuple[str, ...]) -> np.ndarray:
    """Return the index of each value in `names`, -1 for the values "" and "ok"."""
    number = {"": -1, "ok": -1, **{name: code for code, name in enumerate(names)}}
    words = column.dictionary.to_pylist()
    if not set(words) <= set(number) or column.null_count:
        raise ValueError(f"it has the names {words}; known are {list(names)}")
    codes: np.ndarray = np.array([number[word] for word in words], np.int8)[column.indices.to_numpy()]
    return codes
