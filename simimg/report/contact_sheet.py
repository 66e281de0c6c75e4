"""A sheet of images with captions, like a photographer's contact prints on a light table, written as a PNG file."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from simimg.image_files import png_bytes
from simimg.report.number_format import printable, shortened
from tfrecords.format.atomic_files import atomic_file

_PAPER, _INK, _GRAY, _RIGHT = "#ffffff", "#1c1c1e", "#6d6d72", "#1d5fc4"
_FILM, _FILM_INK, _FILM_GRAY, _MOUNT = "#1b1b1e", "#f4f4f5", "#a0a0a6", "#ececee"
# In px.
_BOX, _GAP, _PAD, _MARGIN = 224, 16, 14, 36
_CAPTION, _TITLE = 15, 26
_CAPTION_HEIGHT = 50
_NOT_ASCII = "…·"  # the only characters beyond ASCII that Pillow's built-in font has


@dataclasses.dataclass(frozen=True)
class Tile:
    """An image with a caption, usually its file name, and a note, usually its similarity; all texts are plain text."""

    image: Image.Image | None  # None where there is none to show
    caption: str
    note: str = ""
    highlighted: bool = False  # marks the original that a search looked for
    tag: str = ""  # a word before the note, on HTML pages
    cell: tuple[int, int] | None = None  # row and column of the confusion matrix, for an image classified wrongly


def tile_sheet(rows: Sequence[Sequence[Tile]], path: Path, *, title: str = "") -> None:
    """Draws one row per query, the query on film black and its matches, best first, into a PNG file.

    Rows may differ in length; empty ones are left out. The title stands above them. The folder of the file is made.
    """
    rows = [row for row in rows if row]
    num_columns = max((len(row) for row in rows), default=1)
    row_height = 2 * _PAD + _BOX + _CAPTION_HEIGHT
    top = _MARGIN + (_TITLE + 22 if title else 0) + (_CAPTION + 14)
    left = 2 * _MARGIN + 2 * _PAD + _BOX  # of the first match
    width = max(left + (num_columns - 1) * (_BOX + _GAP), 560) + _MARGIN
    sheet = Image.new("RGB", (width, top + max(1, len(rows)) * (row_height + _GAP) - _GAP + _MARGIN), _PAPER)
    draw = ImageDraw.Draw(sheet)
    if title:
        _text(draw, (_MARGIN, _MARGIN - 4), title, width - 2 * _MARGIN, _INK, _TITLE)
    head = top - _CAPTION - 12
    _text(draw, (_MARGIN, head), "query" if rows else "nothing to show", width, _GRAY)
    if num_columns > 1:
        found = any(tile.highlighted for row in rows for tile in row)
        _text(
            draw, (left, head), "closest first" + ("; in a frame: the original" if found else ""), width - left, _GRAY
        )
    for number, row in enumerate(rows):
        y = top + number * (row_height + _GAP)
        draw.rounded_rectangle((_MARGIN, y, _MARGIN + _BOX + 2 * _PAD, y + row_height), 8, _FILM)
        _tile(sheet, row[0], _MARGIN + _PAD, y + _PAD, on_film=True)
        for column, tile in enumerate(row[1:]):
            _tile(sheet, tile, left + column * (_BOX + _GAP), y + _PAD, on_film=False)
    write_bytes(path, png_bytes(sheet))


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file, which has its name only when it is complete, and makes its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file:
        file.write(data)


def _tile(sheet: Image.Image, tile: Tile, x: int, y: int, *, on_film: bool) -> None:
    draw = ImageDraw.Draw(sheet)
    ink, gray, mount = (_FILM_INK, _FILM_GRAY, "#2a2a2e") if on_film else (_INK, _GRAY, _MOUNT)
    draw.rectangle((x, y, x + _BOX - 1, y + _BOX - 1), mount)
    if tile.image is None:
        draw.line((x, y + _BOX - 1, x + _BOX - 1, y), gray, 1)
        _text(draw, (x + 12, y + 12), "no image", _BOX - 24, gray)
    else:
        image = tile.image.convert("RGBA")
        scale = _BOX / max(image.size)
        image = image.resize([max(1, round(side * scale)) for side in image.size], Image.Resampling.LANCZOS)
        sheet.paste(image, (x + (_BOX - image.width) // 2, y + (_BOX - image.height) // 2), image)
    if tile.highlighted:
        draw.rounded_rectangle((x - 7, y - 7, x + _BOX + 6, y + _BOX + 6), 8, None, _RIGHT, 5)
    _text(draw, (x, y + _BOX + 12), tile.caption, _BOX, ink)
    _text(draw, (x, y + _BOX + 12 + _CAPTION + 6), tile.note, _BOX, _RIGHT if tile.highlighted else gray)


def _text(
    draw: ImageDraw.ImageDraw, at: tuple[int, int], text: str, width: int, color: str, size: int = _CAPTION
) -> None:
    """Draws one line of text, shortened in the middle to at most `width` px."""
    text = printable(text)
    font: Any = ImageFont.load_default(size)
    if not all(character.isascii() or character in _NOT_ASCII for character in text):
        import matplotlib  # imported here, because it takes a quarter of a second and most sheets do not need it

        font = ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"), round(size * 0.92))
    line, length = text, len(text)
    while draw.textlength(line, font) > width and length > 1:
        length -= 1
        line = shortened(text, length)
    draw.text(at, line, color, font)
