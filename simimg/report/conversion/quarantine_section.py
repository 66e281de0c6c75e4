"""The files that did not become examples: how many for which reason, and the first of each."""

from __future__ import annotations

import re
from collections.abc import Sequence

from simimg.report.conversion.quarantine_previews import Preview, preview
from simimg.report.conversion.reason_texts import reason_text
from simimg.report.html_page import data_uri, escape, path_text
from simimg.report.number_format import count_of, shortened
from tfrecords.format.quarantine import RefusedFile

__all__ = ["refused_files"]

_MAX_FILES = 6  # of a reason: what all of them have in common is seen by then
_TILE_PX = 224
_MAX_DETAIL, _MAX_LINE = 200, 60  # characters
_FLAG = re.compile(r"--\w+=\w+")


def refused_files(refused: Sequence[RefusedFile], image_dir: str) -> str:
    """Returns the refused files as HTML, the most frequent reason first.

    Args:
        refused: as in the quarantine list.
        image_dir: what was converted; where it is a local folder, what can be shown of the files is.
    """
    by_reason: dict[str, list[RefusedFile]] = {}
    for file in refused:
        by_reason.setdefault(file.reason, []).append(file)
    return "".join(
        _reason(reason, by_reason[reason], image_dir)
        for reason in sorted(by_reason, key=lambda reason: (-len(by_reason[reason]), reason))
    )


def _reason(reason: str, files: Sequence[RefusedFile], image_dir: str) -> str:
    title, sentence = reason_text(reason)
    sentence = _FLAG.sub(r"<code>\g<0></code>", escape(sentence))
    glimpses = [preview(image_dir, file.path, reason) for file in files[:_MAX_FILES]]
    shown = _cards(files, glimpses) if any(glimpses) else _rows(files[:_MAX_FILES])
    more = len(files) - _MAX_FILES
    rest = f'<p class="quiet">And {more:,} more; quarantine.jsonl lists all.</p>' if more > 0 else ""
    many = f'<span class="many">{count_of(len(files), "file", "files")}</span>'
    return (
        f'<div class="reason"><h3>{escape(title)} {many} <code>{escape(reason)}</code></h3>'
        f'<p class="quiet">{sentence}</p>{shown}{rest}</div>'
    )


def _rows(files: Sequence[RefusedFile]) -> str:
    rows = "".join(f"<tr><td><code>{path_text(file.path)}</code></td><td>{_detail(file)}</td></tr>" for file in files)
    return f'<table class="files"><tbody>{rows}</tbody></table>'


def _cards(files: Sequence[RefusedFile], glimpses: Sequence[Preview | None]) -> str:
    cards = "".join(
        f"<figure>{_mount(file, part)}<figcaption>{path_text(file.path)}"
        f'<span class="note">{_detail(file)}</span></figcaption></figure>'
        for file, part in zip(files, glimpses, strict=False)
    )
    return f'<div class="cards">{cards}</div>'


def _mount(file: RefusedFile, part: Preview | None) -> str:
    if part is None:
        return '<div class="mount empty"><span>no picture</span></div>'
    if part.image is None:
        lines = "\n".join(escape(shortened(line, _MAX_LINE)) for line in part.text.split("\n"))
        return f'<div class="mount begins"><pre>{lines}</pre></div>'
    alt = f"what is there of {file.path}"
    return f'<div class="mount"><img src="{data_uri(part.image, _TILE_PX)}" alt="{escape(alt)}"></div>'


def _detail(file: RefusedFile) -> str:
    return escape(shortened(file.detail, _MAX_DETAIL))
