"""Progressive JPEGs at an eighth of their size, without the scans that do not matter there.

A progressive JPEG has the mean of each 8 x 8 block in scans of their own, and its detail in others. At 1/8, a block is
one pixel, its mean (libjpeg-turbo's `jpeg_idct_1x1`). But the decoder reads all scans, which takes most of its time.
Color samples that are coarser in both directions (4:2:0) are only reduced to a quarter or a half ("jdmaster.c" of
libjpeg-turbo), so their detail counts.

Where coefficients are missing, the decoder guesses from the blocks around them ("jdcoefct.c"). So the scans that are
left out are replaced by one that says that all their coefficients are zero, in runs of 32,767 blocks of two bytes each
(ITU-T T.81, G.1.2.2).
"""

from __future__ import annotations

import dataclasses
import math
import re
import struct
from collections.abc import Iterator

MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
"""A marker in entropy-coded data that is not a stuffed zero, a restart marker or a fill byte."""

USUAL_SEGMENTS = frozenset({0xC4, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0)})
"""Quantization and Huffman tables, restart interval, comments, application segments."""

_START_OF_FRAME, _END, _START_OF_SCAN = 0xC2, 0xD9, 0xDA
_RUN = 32767  # the most blocks of zeros in one code: 2^14 and the number in 14 more bits
_NO_RESTARTS = b"\xff\xdd\0\x04\0\0"
# A table of AC codes, number 0, with one code of one bit, for a run of 2^14 and more blocks (EOB14).
_TABLE = b"\xff\xc4" + struct.pack(">HB16sB", 2 + 1 + 16 + 1, 0x10, b"\x01".ljust(16, b"\0"), 0xE0)
_CODE_BITS = "0" + 14 * "1"


class _Unusual(Exception):
    """The file is unusual or not whole, so its scans are all read."""


@dataclasses.dataclass(slots=True)
class _Component:
    """A component of the frame.

    Attributes:
        num_blocks: of its own scans.
        is_needed: whether its detail counts at 1/8.
        low_bits: how many low bits of each coefficient are still missing, 64 numbers; -1 if it is missing as a whole.
    """

    num_blocks: int
    is_needed: bool
    low_bits: list[int] = dataclasses.field(default_factory=lambda: [-1] * 64)


def without_fine_scans(data: bytes) -> bytes | None:
    """Return a JPEG that is the same at 1/8, to the bit, and is decoded there in a fraction of the time.

    Args:
        data: a JPEG for which `plain_jpeg` found a header.

    Returns:
        The file; None if this one is not progressive, not whole, or unusual. Damage in what is left out is not found.
    """
    try:
        return _without_fine_scans(data)
    except (_Unusual, struct.error, IndexError, ZeroDivisionError):
        return None


def _without_fine_scans(data: bytes) -> bytes:
    components: dict[int, _Component] = {}
    parts, begin = list[bytes](), 0
    for kind, start, end in _segments(data):
        if kind == _START_OF_FRAME and not components:
            components = _components(data, start + 4)
        elif kind == _START_OF_SCAN:
            if _is_left_out(data, start + 4, components):
                parts.append(data[begin:start])
                begin = end
        elif kind == _END:
            parts.append(data[begin:start])
        elif kind not in USUAL_SEGMENTS:
            raise _Unusual
    if len(parts) < 2 or any(any(one.low_bits) for one in components.values()):
        raise _Unusual
    zeros = [_zeros(number, one.num_blocks) for number, one in components.items() if not one.is_needed]
    return b"".join((*parts, _NO_RESTARTS, _TABLE, *zeros, bytes((0xFF, _END))))


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield the kind, the start and the end of each segment, a scan with its data; raise _Unusual if no end follows."""
    at = 2
    while found := MARKER.search(data, at):
        start, kind = found.start(), data[found.start() + 1]
        if kind == _END:
            yield kind, start, found.end()
            return
        at = start + 2 + int.from_bytes(data[start + 2 : start + 4])
        if kind == _START_OF_SCAN:
            if not (following := MARKER.search(data, at)):
                break
            at = following.start()
        yield kind, start, at
    raise _Unusual


def _components(data: bytes, at: int) -> dict[int, _Component]:
    """Return the components of a frame by their numbers."""
    _, height, width, count = struct.unpack_from(">BHHB", data, at)
    given = [struct.unpack_from("BB", data, at + 6 + 3 * place) for place in range(count)]
    sampling = {number: divmod(factors, 16) for number, factors in given}
    if len(sampling) < count:
        raise _Unusual
    most_across, most_down = (max(factors) for factors in zip(*sampling.values(), strict=True))
    components = {}
    for number, (across, down) in sampling.items():
        columns, rows = (math.ceil(side / 8) for side in (width * across / most_across, height * down / most_down))
        is_needed = most_across % (2 * across) == most_down % (2 * down) == 0
        components[number] = _Component(columns * rows, is_needed)
    return components


def _is_left_out(data: bytes, at: int, components: dict[int, _Component]) -> bool:
    """Note what a scan adds, and return whether it is left out; raise _Unusual if it does not follow those before."""
    count = data[at]
    try:
        scanned = [components[data[at + 1 + 2 * place]] for place in range(count)]
    except KeyError:
        raise _Unusual from None
    first, last, bits = data[at + 1 + 2 * count : at + 4 + 2 * count]
    before, after = divmod(bits, 16)
    if not (first == last == 0 or (count == 1 and 0 < first <= last < 64)) or (before and after != before - 1):
        raise _Unusual
    for one in scanned:
        known = one.low_bits
        if any(max(0, missing) != before for missing in known[first : last + 1]) or (first and known[0] < 0):
            raise _Unusual
        known[first : last + 1] = [after] * (last + 1 - first)
    return first > 0 and not scanned[0].is_needed


def _zeros(number: int, num_blocks: int) -> bytes:
    """Return a scan of a component in which all coefficients but the mean are zero; the last run may be too long."""
    bits = _CODE_BITS * -(-num_blocks // _RUN)
    bits += "1" * (-len(bits) % 8)
    codes = int(bits, 2).to_bytes(len(bits) // 8).replace(b"\xff", b"\xff\0")
    return b"\xff\xda" + struct.pack(">HBBBBBB", 8, 1, number, 0, 1, 63, 0) + codes
