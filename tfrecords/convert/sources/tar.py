"""Lists the members of a tar file and the places of their bytes, for the formats V7, ustar, GNU and pax.

`tarfile` keeps an object of a kilobyte per member and reads headers five times more slowly. The layout is that of
POSIX.1-2024, pax; the extensions L (long name) and S (sparse) are those of GNU tar.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from tfrecords.base_errors import UsageError
from tfrecords.convert.sources.container_files import Member
from tfrecords.format.quarantine import Reason, Refusal
from tfrecords.format.record import ReadAt

_BLOCK = 512
_END = bytes(_BLOCK)
_MAX_NAME_BYTES = 1 << 20  # limit of a long name or a pax header, so that a damaged length cannot fill the memory
_SPARSE = Refusal(Reason.UNREADABLE, "it is stored as a sparse file; pack it without --sparse")
_LINK = Refusal(Reason.NOT_A_FILE, "it is a link inside the archive; pack with --dereference --hard-dereference")
_NO_FILE = Refusal(Reason.NOT_A_FILE, "it is not a regular file")


def tar_members(read_at: ReadAt, num_bytes: int, archive: str) -> Iterator[Member]:
    """Yield the members of a tar file of `num_bytes`, without folders; `archive` is its name in errors.

    Raises:
        UsageError: it is not a tar file, is damaged, or is truncated.
    """
    offset = 0
    pax: dict[str, str] = {}
    long_name = ""
    while True:
        header = read_at(offset, _BLOCK)
        if header == _END:
            return
        if len(header) < _BLOCK:
            raise UsageError(
                f"{archive} is truncated: it ends at byte {num_bytes} without an end mark. Fetch or pack it again."
            )
        if not _is_header(header):
            what = "is damaged: there is no header" if offset else "is not a tar file: there is no header"
            raise UsageError(f"{archive} {what} at byte {offset}. Fetch or pack it again.")
        kind = header[156:157]
        size = _decimal(pax["size"]) if pax.get("size") else _number(header[124:136])
        data = offset + _BLOCK
        # A link's header may have the size of its target, whose bytes do not follow.
        stored = 0 if kind in b"123456" else size
        if size < 0:
            raise UsageError(
                f"{archive} is damaged: the size of the member at byte {data - _BLOCK} is no number. Pack it again."
            )
        if data + stored > num_bytes:
            raise UsageError(
                f"{archive} is truncated or damaged: the member at byte {offset} has {size} bytes, but the file ends "
                f"at byte {num_bytes}. Fetch or pack it again."
            )
        offset = data + -(-stored // _BLOCK) * _BLOCK
        if kind in b"LKxXg":
            if size > _MAX_NAME_BYTES:
                raise UsageError(f"{archive} is damaged: a name at byte {data} has {size} bytes. Pack it again.")
            if kind == b"L":
                long_name = _text(read_at(data, size))
            elif kind in b"xX":
                pax = _pax(read_at(data, size))
            continue
        pax_name = pax.get("GNU.sparse.name") or pax.get("path")
        is_utf8 = bool(pax_name) and pax.get("hdrcharset") != "BINARY"
        name = pax_name or long_name or _name(header)
        sparse = kind == b"S" or any(key.startswith("GNU.sparse.") for key in pax)
        if kind == b"S":
            offset = _after_sparse(read_at, header, offset, stored)
        pax, long_name = {}, ""
        if kind == b"5" or name.endswith("/"):
            continue
        if sparse:
            refused: Refusal | None = _SPARSE
        elif kind in b"12":
            refused = _LINK
        else:
            refused = None if kind in b"07\0" else _NO_FILE
        yield Member(name, stored, data, stored, refused, is_utf8)


def _is_header(header: bytes) -> bool:
    # The checksum counts its own eight bytes as spaces; a few old writers summed signed bytes.
    stored = _number(header[148:156])
    rest = header[:148] + header[156:]
    return stored == sum(rest) + 256 or stored == sum(struct.unpack("504b", rest)) + 256


def _number(field: bytes) -> int:
    if field[0] & 0x80:  # GNU: big-endian, for numbers that do not fit into the octal digits
        return int.from_bytes(field[1:], "big") if field[0] == 0x80 else -1
    try:
        return int(field.strip(b"\0 ") or b"0", 8)
    except ValueError:
        return -1


def _decimal(text: str) -> int:
    """Return a number of a pax header, or -1 if it is none that a file's size or place can be."""
    return int(text) if re.fullmatch("[0-9]{1,19}", text) else -1


def _name(header: bytes) -> str:
    name, prefix = header[:100], header[345:500]
    if header[257:263] == b"ustar\0" and prefix[0]:  # GNU has other fields there
        return f"{_text(prefix)}/{_text(name)}"
    return _text(name)


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _pax(data: bytes) -> dict[str, str]:
    """Return the records `length key=value` of an extended header."""
    records = {}
    while data:
        digits, _, _ = data.partition(b" ")
        length = _decimal(digits.decode("latin-1"))
        if not len(digits) < length <= len(data):
            break
        key, _, value = data[len(digits) + 1 : length - 1].partition(b"=")
        records[key.decode("utf-8", "surrogateescape")] = value.decode("utf-8", "surrogateescape")
        data = data[length:]
    return records


def _after_sparse(read_at: ReadAt, header: bytes, offset: int, stored: int) -> int:
    """Return the offset of the next header after a member in GNU's old sparse format, whose map continues in further
    blocks.
    """
    blocks = 0
    more = header[482]
    while more:
        block = read_at(offset - -(-stored // _BLOCK) * _BLOCK + blocks * _BLOCK, _BLOCK)
        blocks += 1
        more = block[504] if len(block) == _BLOCK else 0
    return offset + blocks * _BLOCK
