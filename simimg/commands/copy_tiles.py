"""What `duplicates` and `leaks` share: images for reports, with the places that differ marked, and a line."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
from PIL import Image

from simimg.report.changed_places import mark_part, mark_places
from simimg.report.copies_report import COPY_PX
from simimg.similarity.affine import area, inverse, part_in_unit_square, transform
from simimg.similarity.index_images import IndexImages
from simimg.similarity.match_verification import SAME_PIXELS
from simimg.similarity.transparency import background_of
from tfrecords.locations import location_text

THRESHOLD_HELP = "Minimum similarity of copies, 0.5 to 1; auto is what `simimg calibrate` found, or 0.9."

_CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
_NEARLY_ALL = 0.97  # share of an image; a copy that shows as much is not said to be cropped, either


def left_out(num_decisions: int, index_dir: Path) -> str:
    """Return the line that says what is not shown because of decisions."""
    which = "1 decision" if num_decisions == 1 else f"{num_decisions:,} decisions"
    command = shlex.join(["simimg", "decide", f"--index_dir={location_text(index_dir)}", "--list"])
    return f"what {which} settled is left out; `{command}` lists what was decided"


def marked_pair(images: IndexImages, copy: int, original: int) -> tuple[Image.Image | None, Image.Image | None]:
    """Return the images of two rows of an index, with outlines on the copy and on the original.

    Those on the copy mark the places that differ, and where one image shows more than the other, the part that both
    show is outlined in it. An image that is missing is None, and then, as where nothing differs, neither has an
    outline.
    """
    seen = images.verify(copy, original)
    background = None if seen is None else background_of(seen)
    ours, theirs = (_shown(images, row, (copy, original), background) for row in (copy, original))
    if ours is None or theirs is None or seen is None or SAME_PIXELS in seen.reasons:
        return ours, theirs
    place = np.reshape(seen.place, (2, 3))
    ours, theirs = (_with_part(*one) for one in ((ours, inverse(place)), (theirs, place)))
    differs = images.compared(seen, copy, original).differs
    return (ours if differs is None else mark_places(ours, differs.boxes())), theirs


def _with_part(image: Image.Image, place: np.ndarray) -> Image.Image:
    """Return an image with an outline where the other one lies in it, unless that is nearly everywhere."""
    common = part_in_unit_square(transform(place, _CORNERS))
    return mark_part(image, common.tolist()) if 0 < area(common) < _NEARLY_ALL else image


def _shown(
    images: IndexImages, row: int, pair: tuple[int, int], background: tuple[int, int, int] | None
) -> Image.Image | None:
    """The image of a row in the form in which `IndexImages.verify` compares it: both as files, or both as stored."""
    if any(images.file(one) is None for one in pair) and (square := images.square_image(row)) is not None:
        square.thumbnail((COPY_PX, COPY_PX))
        return square
    return images.image(row, COPY_PX, background)
