"""The HTML page that all reports share: escaping, style sheet, script, and the pieces of HTML that pages are made of.

A page loads nothing. Images are data URIs, fonts are the reader's own, and the content security policy forbids all
requests, so that not even a hostile file name can make the page fetch something. The look is a photographer's: neutral
grays that leave images their colors, film black with amber edge print, and the blue of a grease pencil for what is
right.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Iterable
from importlib import resources

from PIL import Image

from simimg.image_files import jpeg_bytes, png_bytes
from simimg.report.contact_sheet import Tile
from simimg.report.number_format import printable

_JPEG_QUALITY = 82  # libjpeg's scale of 1..100
_TILE_PX = 320  # twice the size at which a tile is shown
_TAIL = 9  # characters at the end of a file name that stay when it is cut


def escape(text: str) -> str:
    """Returns a text as HTML, for use between tags and in quoted attributes; invisible characters are spelled out."""
    return html.escape(printable(text))


def path_text(path: str) -> str:
    """Returns a file name as HTML, which the browser cuts in the middle where it does not fit."""
    text = printable(path)
    head, tail = (text[:-_TAIL], text[-_TAIL:]) if len(text) > _TAIL + 4 else (text, "")
    end = f"<span>{html.escape(tail)}</span>" if tail else ""
    return f'<span class="path" title="{html.escape(text)}"><span>{html.escape(head)}</span>{end}</span>'


def data_uri(image: Image.Image, max_px: int, *, exact: bool = False) -> str:
    """Returns an image as a data URI, shrunk to at most `max_px` per side.

    It is a JPEG, or with `exact` a PNG, which keeps every pixel if the image was small enough.
    """
    if image.mode not in ("RGB", "L"):  # transparent areas become white
        layer = image.convert("RGBA")
        image = Image.new("RGB", image.size, "white")
        image.paste(layer, mask=layer)
    if max(image.size) > max_px:
        scale = max_px / max(image.size)
        image = image.resize([max(1, round(side * scale)) for side in image.size], Image.Resampling.LANCZOS)
    kind, data = ("png", png_bytes(image)) if exact else ("jpeg", jpeg_bytes(image, _JPEG_QUALITY, optimize=True))
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def tile_figure(tile: Tile, max_px: int = _TILE_PX) -> str:
    """Returns an image with its caption, shrunk to at most `max_px` per side."""
    if tile.image is None:
        shown = '<div class="mount empty"><span>no image</span></div>'
    else:
        alt = ", ".join(filter(None, (tile.caption, tile.tag, tile.note, "the original" if tile.highlighted else "")))
        size = f'width="{tile.image.width}" height="{tile.image.height}"'
        shown = f'<div class="mount"><img src="{data_uri(tile.image, max_px)}" alt="{escape(alt)}" {size}></div>'
    found = '<span class="found">original</span>' if tile.highlighted else ""
    tag = f'<span class="tag">{escape(tile.tag)}</span> ' if tile.tag else ""
    note = f'<span class="note">{tag}{escape(tile.note)} {found}</span>' if tag or tile.note or found else ""
    marked = ' class="marked"' if tile.highlighted else ""
    return f"<figure{marked}>{shown}<figcaption>{path_text(tile.caption)}{note}</figcaption></figure>"


def tiles(images: Iterable[Tile], kind: str = "", max_px: int = _TILE_PX) -> str:
    """Returns images with their captions in a grid, which has the style class `kind` too."""
    return f'<div class="{f"tiles {kind}".strip()}">{"".join(tile_figure(tile, max_px) for tile in images)}</div>'


def command(text: str) -> str:
    """Returns a shell command as a block that one click selects and a button copies."""
    # A line may break before a word, but not after the hyphens of `--flag`.
    words = " ".join(f"<span>{escape(word)}</span>" for word in text.split(" "))
    return f'<div class="command"><pre><code>{words}</code></pre></div>'


def figure(number: str, what: str) -> str:
    """Returns a number of the headline and what it counts; both are plain text."""
    return f'<div><p class="number">{escape(number)}</p><p>{escape(what)}</p></div>'


def folded(summary: str, body: str) -> str:
    """Returns a part of the page that opens with a click; `summary` is plain text, `body` is HTML."""
    return f"<details><summary>{escape(summary)}</summary>{body}</details>"


def section(title: str, facts: str, body: str) -> str:
    """Returns a section of the page, nothing without a body; `facts`, shown below its heading, and `body` are HTML."""
    if not body:
        return ""
    heading = escape(title[:1].upper() + title[1:])
    return f"<section><header><div><h2>{heading}</h2>{facts}</div></header><div>{body}</div></section>"


def style_sheet(package: str, name: str) -> str:
    """Returns the text of the style sheet `name` that lies in `package`."""
    return resources.files(package).joinpath(name).read_text("utf-8")


def page(
    title: str,
    *,
    about: Iterable[str] = (),
    headline: str = "",
    result: str = "",
    sections: Iterable[str],
    subtitle: str = "",
    style: str = "",
) -> bytes:
    """Returns the HTML file of a report: title, facts about it, headline of large numbers, result, and sections.

    Title and subtitle are plain text, and `style` is CSS of this report alone; the rest is HTML. Empty facts are left
    out.
    """
    facts = "".join(f"<div>{fact}</div>" for fact in about if fact)
    body = "".join(
        [
            f"<header><h1>{escape(title)}</h1>",
            f'<p class="subtitle">{escape(subtitle)}</p>' if subtitle else "",
            f'<div class="about">{facts}</div></header>' if facts else "</header>",
            f'<div class="headline">{headline}</div>' if headline else "",
            result,
            f"<main>{''.join(sections)}</main>",
        ]
    )
    digest = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    document = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<style>
{style_sheet("simimg.report", "report.css")}{style}</style>
</head>
<body>
{body}
<script>{_SCRIPT}</script>
</body>
</html>
"""
    return document.encode()  # `escape` has spelled out surrogates, so that this cannot fail


# The page is complete without the script: a click into a command selects it (user-select: all), and the images of a
# confusion cell are in a list that opens by itself.
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
for (const cell of document.querySelectorAll("rect[id]")) {
  const images = document.getElementById("images-of-" + cell.id);
  cell.onclick = () => {
    images.open = true;
    images.scrollIntoView({ block: "center", behavior: "smooth" });
  };
}
"""
