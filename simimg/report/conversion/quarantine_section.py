"""The rejected files of a conversion: how many for which reason, what to do about it, and previews of the first ones.

A preview shows what can be decoded of the image, or how the file begins.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from PIL import Image

from simimg.report.html_page import data_uri, escape, path_text
from simimg.report.number_format import count_of, shortened
from tfrecords.convert.image.decoder import DecodedImage, ImageOptions, load_image
from tfrecords.format.quarantine import Reason, Refusal, RefusedFile

_MAX_FILES = 6  # per reason: enough to see what they have in common
_SHOWN_PX = 224  # longest side of a preview
_MAX_DETAIL, _MAX_LINE = 200, 60  # characters
_FLAG = re.compile(r"--\w+=\w+")
# A heading, and a sentence or two.
_TEXTS = {
    Reason.UNKNOWN_SUFFIX: (
        "Unknown file name suffixes",
        "Their names do not end like those of image files. Rename the ones that are images.",
    ),
    Reason.NO_CLASS_FOLDER: (
        "Without a class",
        "They are not in a class folder, or have no label. Move them into a class folder.",
    ),
    Reason.UNREADABLE: (
        "Unreadable",
        "They could not be read: no permission, denied by a server, or removed during the conversion.",
    ),
    Reason.BROKEN_LINK: ("Broken links", "Symbolic links to files that do not exist. Fix or remove them."),
    Reason.LINK_LOOP: ("Links in a circle", "Symbolic links that lead back to themselves. Remove them."),
    Reason.NOT_A_FILE: ("Not regular files", "Pipes, sockets or devices, which hold no image."),
    Reason.CHANGED: (
        "Changed during the conversion",
        "Another program wrote to them. Convert again when it has finished.",
    ),
    Reason.EMPTY: ("Empty", "Files of zero bytes, often left by an interrupted copy. Copy them again."),
    Reason.NOT_AN_IMAGE: ("Not images", "Their first bytes do not belong to a supported image format."),
    Reason.TEXT: (
        "Text instead of an image",
        "Often the error page of a web server, saved under the name of an image. Download them again.",
    ),
    Reason.UNSUPPORTED: (
        "Formats without a decoder",
        "They are images, but this installation has no decoder for them. The details name the package to install.",
    ),
    Reason.TRUNCATED: (
        "Cut off",
        "They end before their last pixel. Copy them again, or convert what is there with --truncated=keep.",
    ),
    Reason.CORRUPT: (
        "Damaged",
        "They begin like an image but cannot be decoded. Restore them from their source.",
    ),
    Reason.LABEL_CONFLICT: (
        "Copies in several classes",
        "One image under several labels, of which one may be wrong; or images that were wrongly taken for copies. "
        "--conflicts=drop left all of them out. Correct their labels, or keep them with --conflicts=keep.",
    ),
    Reason.TOO_LARGE: (
        "Too large",
        "They declare more pixels, or have more bytes, than any camera produces; decoding them could fill the memory. "
        "If you trust them, --max_pixels lets them in.",
    ),
    Reason.DELETED: ("Deleted", "They were examples of an earlier version, and simimg edit deleted them."),
}
# Files whose bytes can be shown. The others have none, or reading them is dangerous.
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
        Reason.LABEL_CONFLICT,
    }
)
_MAX_BYTES = 32 << 20
_TEXT_BYTES, _TEXT_LINES = 512, 6
_HEX_ROWS, _HEX_COLUMNS = 6, 4
_CONTROLS = bytes({*range(32), 127} - {*b"\b\t\n\f\r\x1b"})  # bytes that no text contains


def refused_files(refused: Sequence[RefusedFile], image_dir: str) -> str:
    """Returns the rejected files as HTML, the most frequent reason first, with previews of files in a local folder."""
    by_reason: dict[str, list[RefusedFile]] = {}
    for file in refused:
        by_reason.setdefault(file.reason, []).append(file)
    return "".join(
        _reason(reason, by_reason[reason], image_dir)
        for reason in sorted(by_reason, key=lambda reason: (-len(by_reason[reason]), reason))
    )


def reason_text(reason: str) -> tuple[str, str]:
    """Returns a heading and a sentence for the code of a reason; the code itself where another version wrote it."""
    return _TEXTS[Reason(reason)] if reason in set(Reason) else (reason.replace("_", " ").capitalize(), "")


def preview(image_dir: str, path: str, reason: str) -> Image.Image | str | None:
    """Returns a part of a rejected file: an image, or its first lines as text or as hexadecimal bytes, or None.

    Only files in a local folder are read. An archive or a remote source is not read again for a preview.
    """
    data = _bytes_of(image_dir, path) if reason in _READABLE else None
    if not data:
        return None
    try:
        options = ImageOptions(image_size=_SHOWN_PX, resize="pad", decode="exact", truncated="keep")
        return _unpadded(load_image(data, options))
    except (Refusal, MemoryError):
        return _beginning(data)


def _reason(reason: str, files: Sequence[RefusedFile], image_dir: str) -> str:
    title, sentence = reason_text(reason)
    sentence = _FLAG.sub(r"<code>\g<0></code>", escape(sentence))
    previews = [preview(image_dir, file.path, reason) for file in files[:_MAX_FILES]]
    if any(part is not None for part in previews):
        cards = "".join(
            f"<figure>{_mount(file, part)}<figcaption>{path_text(file.path)}"
            f'<span class="note">{_detail(file)}</span></figcaption></figure>'
            for file, part in zip(files, previews, strict=False)
        )
        shown = f'<div class="cards">{cards}</div>'
    else:
        rows = "".join(
            f"<tr><td><code>{path_text(file.path)}</code></td><td>{_detail(file)}</td></tr>"
            for file in files[:_MAX_FILES]
        )
        shown = f'<table class="files"><tbody>{rows}</tbody></table>'
    more = len(files) - _MAX_FILES
    rest = f'<p class="quiet">And {more:,} more; quarantine.jsonl lists all.</p>' if more > 0 else ""
    many = f'<span class="many">{count_of(len(files), "file", "files")}</span>'
    return (
        f'<div class="reason"><h3>{escape(title)} {many} <code>{escape(reason)}</code></h3>'
        f'<p class="quiet">{sentence}</p>{shown}{rest}</div>'
    )


def _mount(file: RefusedFile, part: Image.Image | str | None) -> str:
    if part is None:
        return '<div class="mount empty"><span>no preview</span></div>'
    if isinstance(part, str):
        lines = "\n".join(escape(shortened(line, _MAX_LINE)) for line in part.split("\n"))
        return f'<div class="mount begins"><pre>{lines}</pre></div>'
    alt = f"the part of {file.path} that can be decoded"
    return f'<div class="mount"><img src="{data_uri(part, _SHOWN_PX)}" alt="{escape(alt)}"></div>'


def _detail(file: RefusedFile) -> str:
    return escape(shortened(file.detail, _MAX_DETAIL))


def _bytes_of(image_dir: str, path: str) -> bytes | None:
    parts = PurePosixPath(path).parts
    # A table may name any file of the machine. A report, which people pass on, shows only files below the folder.
    if not image_dir or not parts or ".." in parts or os.path.isabs(path):
        return None
    try:
        file = Path(image_dir, *parts)
        about = os.stat(file)  # before opening, because opening a pipe would wait for its writer
        if not stat.S_ISREG(about.st_mode) or about.st_size > _MAX_BYTES:
            return None
        return file.read_bytes()
    except (OSError, ValueError):  # ValueError: a null byte in the name
        return None


def _unpadded(decoded: DecodedImage) -> Image.Image:
    """The image without the padding that made it a square."""
    longest = max(decoded.width, decoded.height)
    width, height = (max(1, round(side / longest * _SHOWN_PX)) for side in (decoded.width, decoded.height))
    left, top = (_SHOWN_PX - width) // 2, (_SHOWN_PX - height) // 2
    return Image.fromarray(decoded.pixels[top : top + height, left : left + width])


def _beginning(data: bytes) -> str:
    head = data[:_TEXT_BYTES]
    if head.translate(None, _CONTROLS) != head:
        rows = [data[start : start + _HEX_COLUMNS] for start in range(0, _HEX_ROWS * _HEX_COLUMNS, _HEX_COLUMNS)]
        return "\n".join(row.hex(" ") for row in rows if row)
    lines = head.decode(errors="replace").split("\n")
    return "\n".join([line.strip() for line in lines if line.strip()][:_TEXT_LINES])
