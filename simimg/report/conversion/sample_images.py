"""The contact sheet: stored images of every class, as strips of film."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import numpy as np

from simimg.image_files import png_bytes
from simimg.report.html_page import data_uri, escape
from tfrecords.format.dataset_images import DatasetImages
from tfrecords.format.image_size import num_pixels, width_height
from tfrecords.format.layout import Layout
from tfrecords.format.manifest import Manifest

_MAX_SAMPLES = 120
_FRAMES = 8  # per strip, at most
_MAX_ROLL = 96  # classes on a sheet with one frame per class
_MAX_READ = 256 << 20  # bytes; a decoded image of 4,096 px has 50 MB
_LARGE_PX = 2048  # side of images that are as large as their files
_MAX_EXACT_PX = 192
_MAX_EMBEDDED = 1_600_000  # bytes of the page
# Side of an image that is not embedded as it is stored: the largest with which all fit. About 100 px are shown.
_SAMPLE_PX = (192, 128, 96)


def contact_sheet(layout: Layout, manifest: Manifest, images: DatasetImages) -> tuple[str, str]:
    """Returns the contact sheet as HTML, and how its images are embedded, for people; raises DataError."""
    most = max(_FRAMES, min(_MAX_SAMPLES, _MAX_READ // (3 * num_pixels(layout.image_size or _LARGE_PX))))
    chosen = choose_samples(manifest, most)
    uris, exact = _uris([row for rows in chosen.values() for row in rows], layout, images)
    how = "The stored pixels" if exact else "The stored images, compressed for this page"
    if max(map(len, chosen.values())) == 1 and len(chosen) > _FRAMES:
        named = [(escape(layout.counted_names[label]), uris[rows[0]]) for label, rows in chosen.items()]
        frames = [
            f'<figure><img src="{uri}" alt="{name}"><figcaption title="{name}">{name}</figcaption></figure>'
            for name, uri in named
        ]
        strips = [
            f'<div class="strip roll">{"".join(frames[start : start + _FRAMES])}</div>'
            for start in range(0, len(frames), _FRAMES)
        ]
        return f'<div class="strips">{"".join(strips)}</div>', how
    strips = []
    for label, rows in chosen.items():
        name = escape(layout.counted_names[label])
        frames = [
            f'<img src="{uris[row]}" alt="{name}, {number} of {len(rows)}">' for number, row in enumerate(rows, 1)
        ]
        strips.append(
            f'<div class="strip"><p class="edge" title="{name}">{name}</p>'
            f'<div class="frames">{"".join(frames)}</div></div>'
        )
    wide = "" if max(map(len, chosen.values())) > _FRAMES // 2 else " pairs"
    return f'<div class="strips{wide}">{"".join(strips)}</div>', how


def choose_samples(manifest: Manifest, most: int) -> dict[int, list[int]]:
    """Returns rows of the manifest by label, equally many per class, at most `most` in all.

    The SHA-256 of the files decides which: a mixed choice, and the same one every time. Only one image of each group of
    copies is chosen. If there are too many classes, the chosen ones are spread evenly over the labels.
    """
    rows = np.flatnonzero(manifest.ok)
    order = np.lexsort((rows, manifest.groups[rows], manifest.labels[rows]))
    pairs = np.stack((manifest.labels[rows], manifest.groups[rows]))[:, order]
    rows = rows[order[np.insert((pairs[:, 1:] != pairs[:, :-1]).any(axis=0), 0, True)]]
    keys = manifest.sha256[rows, :8].copy().view(">u8")[:, 0]
    rows = rows[np.lexsort((rows, keys, manifest.labels[rows]))]
    labels, starts = np.unique(manifest.labels[rows], return_index=True)
    if len(labels) * 4 > most:  # not even four of each
        number = min(len(labels), _MAX_ROLL, most)
        spread = np.linspace(0, len(labels) - 1, number).round().astype(int)
        return {int(labels[place]): [int(rows[starts[place]])] for place in spread}
    each = _FRAMES if len(labels) * _FRAMES <= most else 4
    ends = [*starts[1:].tolist(), len(rows)]
    return {
        int(label): rows[start : min(end, start + each)].tolist()
        for label, start, end in zip(labels, starts.tolist(), ends, strict=True)
    }


def _uris(rows: Sequence[int], layout: Layout, images: DatasetImages) -> tuple[dict[int, str], bool]:
    """Returns the images as data URIs, and whether these have exactly the stored pixels."""
    if max(width_height(layout.image_size)) <= _MAX_EXACT_PX and not layout.own_shapes:
        uris = {row: _exact_uri(row, layout.encoding, images) for row in rows}
        if sum(map(len, uris.values())) <= _MAX_EMBEDDED:
            return uris, True
    for side in _SAMPLE_PX:
        uris = {row: data_uri(images.image(row), side) for row in rows}
        if sum(map(len, uris.values())) <= _MAX_EMBEDDED:
            break
    return uris, False


def _exact_uri(row: int, encoding: str, images: DatasetImages) -> str:
    """Returns an image as a data URI with exactly the stored pixels; raises DataError."""
    data = images.stored_bytes(row) if encoding != "raw" else png_bytes(images.image(row))
    return f"data:image/{'png' if encoding == 'raw' else encoding};base64,{base64.b64encode(data).decode()}"
