"""The contact sheet: pictures of every class as they are stored, as strips of film."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import numpy as np

from simimg.image_files import png_bytes
from simimg.report.html_page import data_uri, escape
from tfrecords.format.dataset_images import DatasetImages
from tfrecords.format.layout import Layout
from tfrecords.format.manifest import Manifest

__all__ = ["choose_samples", "contact_sheet"]

_MAX_SAMPLES = 120
_FRAMES = 8  # a strip has at most
_MAX_ROLL = 96  # classes that a sheet of one frame each shows
_MAX_READ = 256 << 20  # bytes; pictures of 4,096 px are 50 MB each when they are decoded
_MAX_EXACT_PX = 192
_MAX_EMBEDDED = 1_600_000  # bytes of the page
_SAMPLE_PX = (
    192,
    128,
    96,
)  # a side where they are not embedded as they are: the largest that fits; about 100 are shown


def contact_sheet(layout: Layout, manifest: Manifest, pictures: DatasetImages) -> tuple[str, str]:
    """Returns the contact sheet as HTML, and a sentence on how its pictures are shown; raises DataError."""
    most = max(_FRAMES, min(_MAX_SAMPLES, _MAX_READ // (3 * layout.image_size**2)))
    chosen = choose_samples(manifest, most)
    uris, exact = _uris([row for rows in chosen.values() for row in rows], layout, pictures)
    how = "Pixel by pixel as they are stored" if exact else "As they are stored, compressed for this page"
    if max(map(len, chosen.values())) == 1 and len(chosen) > _FRAMES:
        frames = []
        for label, rows in chosen.items():
            name = layout.class_names[label]
            caption = f'<figcaption title="{escape(name)}">{escape(name)}</figcaption>'
            frames.append(f"<figure>{_img(uris[rows[0]], name)}{caption}</figure>")
        strips = [
            f'<div class="strip roll">{"".join(frames[start : start + _FRAMES])}</div>'
            for start in range(0, len(frames), _FRAMES)
        ]
        return f'<div class="strips">{"".join(strips)}</div>', how
    strips = []
    for label, rows in chosen.items():
        name = layout.class_names[label]
        frames = [_img(uris[row], f"{name}, {number} of {len(rows)}") for number, row in enumerate(rows, 1)]
        strips.append(
            f'<div class="strip"><p class="edge" title="{escape(name)}">{escape(name)}</p>'
            f'<div class="frames">{"".join(frames)}</div></div>'
        )
    wide = "" if max(map(len, chosen.values())) > _FRAMES // 2 else " pairs"
    return f'<div class="strips{wide}">{"".join(strips)}</div>', how


def choose_samples(manifest: Manifest, most: int) -> dict[int, list[int]]:
    """Returns rows of the manifest by label, equally many a class, at most `most` in all.

    Which ones their bytes decide, as a hash does: mixed, and the same ones every time. Of copies there is one. Of more
    classes than can be shown they are spread evenly over the labels.
    """
    rows = np.flatnonzero(manifest.ok)
    order = np.lexsort((rows, manifest.groups[rows], manifest.labels[rows]))
    pairs = np.stack((manifest.labels[rows], manifest.groups[rows]))[:, order]
    rows = rows[order[np.insert((pairs[:, 1:] != pairs[:, :-1]).any(axis=0), 0, True)]]
    keys = manifest.sha256[rows, :8].copy().view(">u8")[:, 0]
    rows = rows[np.lexsort((rows, keys, manifest.labels[rows]))]
    labels, starts = np.unique(manifest.labels[rows], return_index=True)
    if len(labels) * 4 > most:  # no four of each
        number = min(len(labels), _MAX_ROLL, most)
        spread = np.linspace(0, len(labels) - 1, number).round().astype(int)
        return {int(labels[place]): [int(rows[starts[place]])] for place in spread}
    each = _FRAMES if len(labels) * _FRAMES <= most else 4
    ends = [*starts[1:].tolist(), len(rows)]
    return {
        int(label): rows[start : min(end, start + each)].tolist()
        for label, start, end in zip(labels, starts.tolist(), ends, strict=True)
    }


def _uris(rows: Sequence[int], layout: Layout, pictures: DatasetImages) -> tuple[dict[int, str], bool]:
    """Returns the pictures as data URIs, and whether these have the very pixels that are stored."""
    if layout.image_size <= _MAX_EXACT_PX:
        uris: dict[int, str] = {}
        total = 0
        for row in rows:
            uris[row] = _exact_uri(row, layout, pictures)
            total += len(uris[row])
            if total > _MAX_EMBEDDED:
                break
        else:
            return uris, True
    for side in _SAMPLE_PX:
        uris = {row: data_uri(pictures.image(row), side) for row in rows}
        if sum(map(len, uris.values())) <= _MAX_EMBEDDED:
            break
    return uris, False


def _exact_uri(row: int, layout: Layout, pictures: DatasetImages) -> str:
    """Returns the image of a row as a data URI with exactly the stored pixels; raises DataError."""
    if layout.encoding == "raw":
        data, encoding = png_bytes(pictures.image(row)), "png"
    else:
        data, encoding = pictures.stored_bytes(row), layout.encoding
    return f"data:image/{encoding};base64,{base64.b64encode(data).decode()}"


def _img(uri: str, alt: str) -> str:
    return f'<img src="{uri}" alt="{escape(alt)}">'
