"""imagededup's protocol: some photos with five transformed copies each, and which pairs of files are called copies.

The collection is made like theirs (docs/user_guide/benchmarks.md, "transformed dataset"): a random crop to 7/8 of each
side, both flips, a rotation by 25 degrees, and a squash to a square. So there are six files and fifteen pairs of copies
per photo. The figures are theirs as well (imagededup/handlers/metrics/classification.py, class 1), over all pairs of
files, each counted once: precision is the share of pairs called copies that are copies, and recall the share of copies
that are called copies.

A method that returns pairs is evaluated on these pairs. A method that returns groups calls every two files of a group
copies, whichever of them it compared.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from simimg.errors import UsageError
from simimg.similarity.evaluation.image_edits import Edit, cropped
from tfrecords.convert.image.decoder import decode
from tfrecords.format.quarantine import Refusal

__all__ = [
    "PROTOCOL",
    "Collection",
    "Pair",
    "PairScores",
    "hash_pairs",
    "pairs_of_groups",
    "score_pairs",
    "write_collection",
]

Pair = tuple[str, str]
"""Two file names, the smaller one first."""

PROTOCOL: Mapping[str, Edit] = {
    "crop": lambda image, rng: cropped(image, 7 / 8, rng),
    "h-flip": lambda image, rng: ImageOps.mirror(image),
    "v-flip": lambda image, rng: ImageOps.flip(image),
    "25 degrees": lambda image, rng: image.rotate(25, Image.Resampling.BICUBIC),
    "squash": lambda image, rng: image.resize((min(image.size),) * 2, Image.Resampling.BICUBIC),
}
"""imagededup's "transformed" set (docs/user_guide/benchmarks.md): a random 560 x 420 of 640 x 480, flips, 25°, 1:1."""

_QUALITY = 95  # of the JPEG files


@dataclasses.dataclass(frozen=True)
class Collection:
    """Files of transformed photos.

    Attributes:
        folder: their folder.
        original_of: by file name, the file name of the untransformed photo.
    """

    folder: Path
    original_of: dict[str, str]

    @property
    def pairs(self) -> set[Pair]:
        """The pairs that are copies."""
        files: dict[str, list[str]] = {}
        for name, original in self.original_of.items():
            files.setdefault(original, []).append(name)
        return pairs_of_groups(files.values())


@dataclasses.dataclass(frozen=True)
class PairScores:
    """Precision (1 if nothing was found) and recall of pairs, and the wrong and the missed pairs."""

    precision: float
    recall: float
    wrong: tuple[Pair, ...]
    missed: tuple[Pair, ...]


def write_collection(
    folder: Path,
    photos: Sequence[Path],
    *,
    seed: int,
    size: tuple[int, int] | None = None,
    progress: Callable[[int], object] = lambda num_photos: None,
) -> Collection:
    """Write each photo and its five transformed copies as JPEG files into an empty folder.

    Args:
        folder: new, or empty.
        photos: files.
        seed: of the positions of the crops.
        size: width and height to which the photos are cropped and resized first; None leaves them as they are.
        progress: called with the number of photos since the last call.

    Raises:
        UsageError: a photo cannot be decoded.
    """
    folder.mkdir(parents=True, exist_ok=True)
    original_of = {}
    for number, path in enumerate(photos):
        try:
            image = decode(path.read_bytes())
        except (OSError, Refusal) as error:
            raise UsageError(f"{path} cannot be read: {error}. Leave it out.") from None
        if size is not None:
            image = ImageOps.fit(image, size, Image.Resampling.BICUBIC)
        original = f"{number:05d}.jpg"
        image.save(folder / original, quality=_QUALITY)
        original_of[original] = original
        for place, (name, edit) in enumerate(PROTOCOL.items()):
            file = f"{number:05d}-{name.replace(' ', '-')}.jpg"
            edit(image, np.random.default_rng([seed, number, place])).save(folder / file, quality=_QUALITY)
            original_of[file] = original
        progress(1)
    return Collection(folder, original_of)


def pairs_of_groups(groups: Iterable[Iterable[str]]) -> set[Pair]:
    """Return all pairs of two files of a group."""
    return {pair for group in groups for pair in combinations(sorted(group), 2)}


def hash_pairs(bits: np.ndarray, names: Sequence[str], distance: int) -> set[Pair]:
    """Return the pairs of files whose hashes, bool `[num_files, num_bits]`, differ in at most `distance` bits."""
    signs = np.where(bits, 1.0, -1.0).astype(np.float32)
    least = bits.shape[1] - 2 * distance  # a product of signs is the number of equal minus that of different bits
    near = np.argwhere(np.triu(signs @ signs.T >= least, 1)).tolist()
    return pairs_of_groups([names[one], names[other]] for one, other in near)


def score_pairs(found: set[Pair], collection: Collection) -> PairScores:
    """Return precision and recall of the pairs that were called copies."""
    there = collection.pairs
    right = found & there
    return PairScores(
        precision=len(right) / len(found) if found else 1.0,
        recall=len(right) / len(there),
        wrong=tuple(sorted(found - there)),
        missed=tuple(sorted(there - found)),
    )
