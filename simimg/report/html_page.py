"""The page that a report is set on: its style, its one script, and the few pieces of HTML that it is made of.

The page loads nothing: pictures are data URIs, fonts are the reader's own, and its content security policy forbids the
rest, so that not even a hostile file name could make it fetch something. The look is a photographer's: neutral greys
that leave pictures their colours, film black with amber edge print, and a grease pencil's blue for what is right.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io

from PIL import Image

from simimg.image_files import png_bytes
from simimg.report.contact_sheet import Tile
from simimg.report.number_format import printable
from simimg.report.report_css import STYLE

__all__ = ["command", "data_uri", "escape", "page", "path_text", "section", "tile_figure"]

_JPEG_QUALITY = 82  # libjpeg's scale of 1..100
_TILE_PX = 320  # twice the size at which a tile is shown
_TAIL = 9  # characters at the end of a file's name that stay when it is cut


def escape(text: str) -> str:
    """Returns a text as it may stand between tags and in quoted attributes; what no eye could see is spelled out."""
    return html.escape(printable(text))


def path_text(path: str) -> str:
    """Returns a file's name that is cut in the middle, by the browser, where there is no room for it."""
    text = printable(path)
    head, tail = (text[:-_TAIL], text[-_TAIL:]) if len(text) > _TAIL + 4 else (text, "")
    end = f"<span>{html.escape(tail)}</span>" if tail else ""
    return f'<span class="path" title="{html.escape(text)}"><span>{html.escape(head)}</span>{end}</span>'


def data_uri(image: Image.Image, max_px: int, *, exact: bool = False) -> str:
    """Returns a picture as a data URI, shrunk to at most `max_px` a side.

    It is a JPEG, or with `exact` a PNG, which has the very pixels that were given if there was nothing to shrink.
    """
    if image.mode not in ("RGB", "L"):  # whatever is transparent becomes white
        layer = image.convert("RGBA")
        image = Image.new("RGB", image.size, "white")
        image.paste(layer, mask=layer)
    if max(image.size) > max_px:
        scale = max_px / max(image.size)
        image = image.resize([max(1, round(side * scale)) for side in image.size], Image.Resampling.LANCZOS)
    if exact:
        return f"data:image/png;base64,{base64.b64encode(png_bytes(image)).decode()}"
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_JPEG_QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def tile_figure(tile: Tile, max_px: int = _TILE_PX) -> str:
    """Returns a picture, shrunk to at most `max_px` a side, with its caption."""
    if tile.image is None:
        shown = '<div class="mount empty"><span>no picture</span></div>'
    else:
        alt = ", ".join(filter(None, (tile.caption, tile.note, "the original" if tile.highlighted else "")))
        size = f'width="{tile.image.width}" height="{tile.image.height}"'
        shown = f'<div class="mount"><img src="{data_uri(tile.image, max_px)}" alt="{escape(alt)}" {size}></div>'
    found = '<span class="found">original</span>' if tile.highlighted else ""
    note = f'<span class="note">{escape(tile.note)} {found}</span>' if tile.note or found else ""
    marked = ' class="marked"' if tile.highlighted else ""
    return f"<figure{marked}>{shown}<figcaption>{path_text(tile.caption)}{note}</figcaption></figure>"


def command(text: str) -> str:
    """Returns a shell command as a block that one click selects, and a button copies."""
    # A line may break before a word, but not after the hyphens of `--flag`.
    words = " ".join(f"<span>{escape(word)}</span>" for word in text.split(" "))
    return f'<div class="command"><pre><code>{words}</code></pre></div>'


def section(title: str, facts: str, body: str) -> str:
    """Returns a part of the page: its heading with facts beside it, which are HTML already, as `body` is."""
    heading = escape(title[:1].upper() + title[1:])
    return f"<section><header><div><h2>{heading}</h2>{facts}</div></header><div>{body}</div></section>"


def page(title: str, body: str, style: str = "") -> str:
    """Returns the whole HTML file around `body`, which is HTML already; `style` is CSS of this page alone."""
    digest = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<style>{STYLE}{style}</style>
</head>
<body>
{body}
<script>{_SCRIPT}</script>
</body>
</html>
"""


# Without it, a click into a command still selects it (user-select: all).
_SCRIPT = """
for (const block of document.querySelectorAll(".command")) {
  const button = document.createElement("button"), code = block.querySelector("code");
  button.type = "button";
  button.textContent = "Copy";
  button.onclick = async () => {
    getSelection().selectAllChildren(code);
    try { await navigator.clipboard.writeText(code.textContent); }
    catch { document.execCommand("copy"); }
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  };
  block.append(button);
}
"""
