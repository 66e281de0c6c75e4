"""Which photo belongs to which split: decided by the photo's name and the seed, before anything else happens.

Stratified: every class is divided in the same proportions. Stable: the order in which a class's photos are dealt out
comes from a hash of (seed, path), not from a random generator whose stream a library could change. Copies of one file
(equal bytes) go to one split, so that no test photo was trained on under another name.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from tfrecords.convert.sources import ImageFile
from tfrecords.errors import UsageError
from tfrecords.format.naming import check_split

__all__ = ["assign_splits", "find_copies", "parse_splits", "rank"]

_HEAD_BYTES = 4096


def parse_splits(text: str) -> dict[str, float]:
    """Returns the fractions in e.g. `train=0.75,test=0.25`, by split, in the order given.

    Raises:
        UsageError: it is not of this form, a fraction is not in 0..1, or they do not add up to 1.
    """
    fractions: dict[str, float] = {}
    for part in text.split(","):
        name, _, value = part.partition("=")
        try:
            fractions[check_split(name.strip())] = float(value)
        except ValueError:
            raise UsageError(f"--splits={text}: {part!r} is not NAME=FRACTION, e.g. train=0.75,test=0.25.") from None
    total = sum(fractions.values())
    if any(not 0 < fraction <= 1 for fraction in fractions.values()) or abs(total - 1) > 1e-6:
        raise UsageError(f"--splits={text}: fractions should be above 0 and add up to 1; these add up to {total:g}.")
    return fractions


def rank(seed: int, *words: str) -> bytes:
    """Returns a key that orders things at random, the same way on every machine."""
    data = "\0".join((str(seed), *words)).encode(errors="surrogateescape")
    return hashlib.blake2b(data, digest_size=16).digest()


def assign_splits(
    files: Sequence[ImageFile], fractions: Mapping[str, float], seed: int, copies: Mapping[int, int]
) -> dict[int, str]:
    """Returns the split of each file, by id.

    A class of n photos gives each split floor(n * fraction) of them, and the rest to the splits with the largest
    remainders, earlier splits first. A group of copies that straddles a border goes to the earlier split whole.

    Args:
        files: the image files.
        fractions: adds up to 1.
        seed: another seed deals otherwise.
        copies: for a file that has copies, its id and the id of the first of them.
    """
    groups: dict[int, list[ImageFile]] = defaultdict(list)
    for file in files:
        groups[copies.get(file.id, file.id)].append(file)
    classes: dict[int, list[list[ImageFile]]] = defaultdict(list)
    for group in groups.values():
        classes[group[0].label].append(group)

    split_of: dict[int, str] = {}
    for label_groups in classes.values():
        label_groups.sort(key=lambda group: rank(seed, "split", group[0].path))
        borders = _borders(sum(map(len, label_groups)), fractions)
        dealt = 0
        for group in label_groups:
            split = next(name for name, border in borders if dealt < border)
            split_of.update((file.id, split) for file in group)
            dealt += len(group)
    return split_of


def find_copies(image_dir: Path, files: Sequence[ImageFile]) -> dict[int, int]:
    """Returns, for each file whose bytes another file has as well, the id of the first file that has them.

    Only files of equal size are read, and only those whose first 4 KiB are equal are read whole.
    """
    sizes: dict[int, list[ImageFile]] = defaultdict(list)
    for file in files:
        sizes[file.num_bytes].append(file)
    copies: dict[int, int] = {}
    for same_size in sizes.values():
        for same_head in _alike(image_dir, same_size, _HEAD_BYTES):
            for same in _alike(image_dir, same_head, -1):
                copies.update((file.id, same[0].id) for file in same)
    return copies


def _borders(num_photos: int, fractions: Mapping[str, float]) -> list[tuple[str, int]]:
    exact = {name: num_photos * fraction for name, fraction in fractions.items()}
    counts = {name: int(value + 1e-9) for name, value in exact.items()}
    # Stable: of equal remainders the earlier split's comes first. Rounded, as 50 * 0.29 is 14.499999999999998.
    by_remainder = sorted(exact, key=lambda name: round(counts[name] - exact[name], 9))
    for name in by_remainder[: num_photos - sum(counts.values())]:
        counts[name] += 1
    borders, total = [], 0
    for name, count in counts.items():
        total += count
        borders.append((name, total))
    return borders


def _alike(image_dir: Path, files: list[ImageFile], num_bytes: int) -> list[list[ImageFile]]:
    if len(files) < 2:
        return []
    groups: dict[bytes, list[ImageFile]] = defaultdict(list)
    for file in files:
        try:
            with open(image_dir / file.path, "rb") as stream:
                groups[hashlib.sha256(stream.read(num_bytes)).digest()].append(file)
        except OSError:
            continue  # a worker will refuse it with its reason
    return [group for group in groups.values() if len(group) > 1]
