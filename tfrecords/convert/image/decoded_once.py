"""Lets one thread decode the bytes of a file once for several results, such as squares of two sizes.

    with decoded_once(data):
        load_image(data, small)
        load_image(data, large)

The results are those of separate calls. What is decoded in the same way is decoded once: a PNG always, a JPEG if its
decoder reduces it by the same factor. The decoded image is kept until the end of the block.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

_Result = TypeVar("_Result")
_own = threading.local()  # each thread has a block of its own


@contextmanager
def decoded_once(data: bytes) -> Iterator[None]:
    """Keep what is decoded of these bytes, the same object, in this thread until the block ends."""
    _own.data, _own.kept = data, {}
    try:
        yield
    finally:
        _own.data, _own.kept = None, {}


def once(data: bytes, key: Hashable, decode: Callable[[], _Result], *, keep_truncated: bool = False) -> _Result:
    """Return what `decode` returned first in this block for the same `key`; outside of one, call it.

    What was decoded without complaint is the same if truncated files are kept as they are, but not the other way round.
    """
    if getattr(_own, "data", None) is not data:
        return decode()
    kept: dict[Hashable, Any] = _own.kept
    if (key, False) not in kept and (key, keep_truncated) not in kept:
        kept[key, keep_truncated] = decode()
    found: _Result = kept[key, False if (key, False) in kept else keep_truncated]
    return found


def once_of(data: bytes, source: object, key: Hashable, compute: Callable[[], _Result]) -> _Result:
    """Return what `compute` made first of `source`, an object that was decoded in this block, for the same `key`."""
    # The source is kept as well, so that no other object gets its id.
    return once(data, (key, id(source)), lambda: (source, compute()))[1]
