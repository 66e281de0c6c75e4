"""What can still be shown of an original that was refused: what is there of its picture, or how the file begins."""

from __future__ import annotations

import dataclasses
import os
import stat
from pathlib import Path, PurePosixPath

from PIL import Image

from tfrecords.convert.image.decoder import DecodedImage, PictureOptions, load_picture
from tfrecords.format.quarantine import Reason, Refusal

__all__ = ["Preview", "preview"]

# Whose bytes can be looked at: the others have none, or are dangerous to read.
_READABLE = frozenset(
    {
        Reason.UNKNOWN_SUFFIX,
        Reason.NO_CLASS_FOLDER,
        Reason.CHANGED,
        Reason.NOT_AN_IMAGE,
        Reason.TEXT,
        Reason.UNSUPPORTED,
        Reason.TRUNCATED,
        Reason.CORRUPT,
    }
)
_MAX_BYTES = 32 << 20
_SHOWN_PX = 224  # a side
_TEXT_BYTES, _TEXT_LINES = 512, 6
_HEX_ROWS, _HEX_COLUMNS = 6, 4
_CONTROLS = bytes({*range(32), 127} - {*b"\b\t\n\f\r\x1b"})  # no text has them


@dataclasses.dataclass(frozen=True)
class Preview:
    """A part of a file: a picture, or else its first lines as text or as hexadecimal bytes."""

    image: Image.Image | None = None
    text: str = ""


def preview(image_dir: str, path: str, reason: str) -> Preview | None:
    """Returns what can be shown of a refused file, or None.

    Only of a file in a local folder: an archive or a network is not read again for this.

    Args:
        image_dir: what was converted.
        path: of the file, as the quarantine list has it.
        reason: why it was refused.
    """
    data = _bytes_of(image_dir, path) if reason in _READABLE else None
    if not data:
        return None
    try:
        options = PictureOptions(image_size=_SHOWN_PX, resize="pad", decode="exact", truncated="keep")
        return Preview(image=_unpadded(load_picture(data, options)))
    except (Refusal, MemoryError):
        return Preview(text=_beginning(data))


def _bytes_of(image_dir: str, path: str) -> bytes | None:
    parts = PurePosixPath(path).parts
    # A table may name any file of the machine; a report, which people pass on, shows only what lies below the folder.
    if not image_dir or not parts or ".." in parts or os.path.isabs(path):
        return None
    try:
        file = Path(image_dir, *parts)
        about = os.stat(file)  # first, because opening a pipe would wait for who writes to it
        if not stat.S_ISREG(about.st_mode) or about.st_size > _MAX_BYTES:
            return None
        return file.read_bytes()
    except (OSError, ValueError):  # ValueError: a null byte in the name
        return None


def _unpadded(picture: DecodedImage) -> Image.Image:
    """The picture without what was put at its sides to make a square of it."""
    longest = max(picture.width, picture.height)
    width, height = (max(1, round(side / longest * _SHOWN_PX)) for side in (picture.width, picture.height))
    left, top = (_SHOWN_PX - width) // 2, (_SHOWN_PX - height) // 2
    return Image.fromarray(picture.pixels[top : top + height, left : left + width])


def _beginning(data: bytes) -> str:
    head = data[:_TEXT_BYTES]
    if head.translate(None, _CONTROLS) != head:
        rows = [data[start : start + _HEX_COLUMNS] for start in range(0, _HEX_ROWS * _HEX_COLUMNS, _HEX_COLUMNS)]
        return "\n".join(row.hex(" ") for row in rows if row)
    lines = head.decode(errors="replace").split("\n")
    return "\n".join([line.strip() for line in lines if line.strip()][:_TEXT_LINES])
