"""Draw the archive that the sample folder is unpacked from.

    python -m tools.sample_drawing.draw_archive simimg/sample/sample_images.zip

The archive holds five classes of illustrations, drawn with Pillow and NumPy from the seed 0. An image depends on its
class and its index alone, not on how many others there are. All classes share palettes, skies and weather, so a model
has to look at shapes. No two images have the same width and height. Takes about 40 s on two cores.
"""

from __future__ import annotations

import io
import os
import sys
import zipfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from simimg.sample import CLASS_NAMES, MAX_PER_CLASS
from tools.sample_drawing import balloons, fishes, flowers, houses, mountains
from tools.sample_drawing.canvas import Canvas
from tools.sample_drawing.palettes import PALETTES

__all__ = ["draw_image", "entries", "main", "sizes"]

SEED = 0
WEBP_QUALITY = 60  # 3.7 MB in all; the archive has to stay below 4 MB

_DRAW = {
    "balloons": balloons.draw,
    "fishes": fishes.draw,
    "flowers": flowers.draw,
    "houses": houses.draw,
    "mountains": mountains.draw,
}
_SIDES = (180, 420)  # px
_MAX_AREA = 100_000  # px


def main(archive: Path) -> None:
    """Draws all images into `archive`, which is replaced when it is complete."""
    partial = archive.with_name(f".{archive.name}.part")
    names = entries()
    with ProcessPoolExecutor() as pool, zipfile.ZipFile(partial, "w") as target:
        for name, content in zip(names, pool.map(_encoded, names, chunksize=4), strict=True):
            target.writestr(zipfile.ZipInfo(name), content)  # ZipInfo has a fixed date: the same images, the same bytes
    os.replace(partial, archive)


def entries() -> list[str]:
    """Returns the names in the archive; of mountains one more than of the rest, which becomes the damaged file."""
    counts = {name: MAX_PER_CLASS + (name == "mountains") for name in CLASS_NAMES}
    return [f"{name}/{number:04d}.webp" for name, count in counts.items() for number in range(1, count + 1)]


def draw_image(class_name: str, index: int, width: int, height: int) -> Image.Image:
    """Draws image number `index` of a class at `width` x `height` px."""
    label = CLASS_NAMES.index(class_name)
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence((SEED, label, index))))
    canvas = Canvas(width, height, PALETTES[int(rng.integers(len(PALETTES)))], rng)
    _DRAW[class_name](canvas)
    return canvas.finish()


def sizes() -> list[tuple[int, int]]:
    """Returns every (width, height) that an image may have, in random order: portrait or landscape, none twice."""
    low, high = _SIDES
    width, height = np.meshgrid(np.arange(low, high + 1), np.arange(low, high + 1), indexing="ij")
    allowed = (width * height <= _MAX_AREA) & (abs(width - height) >= 15)
    pairs = np.stack([width[allowed], height[allowed]], 1)
    # Spawn key 1 keeps this stream apart from those of the images.
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence(SEED, spawn_key=(1,))))
    return [(int(w), int(h)) for w, h in rng.permutation(pairs)]


def _encoded(entry: str) -> bytes:
    class_name, number = entry.removesuffix(".webp").split("/")
    index = int(number) - 1
    width, height = sizes()[index * len(CLASS_NAMES) + CLASS_NAMES.index(class_name)]
    buffer = io.BytesIO()
    draw_image(class_name, index, width, height).save(buffer, "WEBP", quality=WEBP_QUALITY, method=6)
    return buffer.getvalue()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
