"""Views of a query: what it may have been before somebody edited it.

The pictures of an index are embedded once, as they are. A query is embedded several times: turned by quarters,
mirrored, and in parts, since a network takes a photo for another when it is turned, or fills only a corner of the
query. The view that is closest to a picture of the index counts. So an index costs one embedding a picture, and a
query `NUM_VIEWS`.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from tfrecords.convert.image.decoder import resize

__all__ = ["NUM_VIEWS", "query_views"]

_WINDOW = 0.6  # of each side
_CORNERS = (0.0, 0.2, 0.4)  # where windows begin, in parts of the side: three by three
NUM_VIEWS = 8 + len(_CORNERS) ** 2


def query_views(image: Image.Image, image_size: int, how: str) -> np.ndarray:
    """Returns a query's views, uint8 `[NUM_VIEWS, image_size, image_size, 3]`.

    First the picture, then its other seven positions (quarter turns, and each mirrored), then nine windows of 60 % of
    each side. On 200 photos in 14 edits, among 2,387: the original is first for 87 % with picture and mirror image
    alone, 92 % with all views, and among the first fifty for 98 % and 99.6 %.

    Args:
        image: mode RGB.
        image_size: px, of the network.
        how: the way of resizing, see `tfrecords.convert.image.decoder.resize`.
    """
    whole = resize(image, image_size, how)
    # Positions of the resized square, not of the picture: the same, as squares turn into squares.
    views = [np.rot90(side, turns) for side in (whole, whole[:, ::-1]) for turns in range(4)]
    width, height = image.size
    for top in _CORNERS:
        for left in _CORNERS:
            box = (left * width, top * height, (left + _WINDOW) * width, (top + _WINDOW) * height)
            edges = [round(edge) for edge in box]
            part = image.crop((edges[0], edges[1], max(edges[0] + 1, edges[2]), max(edges[1] + 1, edges[3])))
            views.append(resize(part, image_size, how))
    return np.stack(views)
