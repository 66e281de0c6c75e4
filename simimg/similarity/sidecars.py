"""Sidecars: files that belong to an image of the same folder and mean nothing without it.

Which file belongs to which image is decided by their names, see `tfrecords.convert.sources.companion_files`.

A sidecar goes along with an image that is removed if no image that it belongs to stays. A large film is no part of a
live photo, and stays. So does a RAW file: it is an original of its own.
"""

from __future__ import annotations

import dataclasses
import os
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

from tfrecords.convert.sources import printable
from tfrecords.convert.sources.companion_files import LIVE_FILMS, OWNERS, RAW, names_of, owners_of, stem_of, suffix_of

_FILM_BYTES = 10_000_000  # the film of a live photo has three seconds


@dataclasses.dataclass(frozen=True, slots=True)
class Sidecar:
    """A file that belongs to an image that is removed.

    Attributes:
        path: relative to the folder of the collection.
        image: the path of the image, likewise.
        stays: why it stays; empty if it goes along.
    """

    path: str
    image: str
    stays: str = ""


def sidecars_of(folder: Path, images: Iterable[str], is_gone: Callable[[str], bool]) -> Iterator[Sidecar]:
    """Yield the sidecars of images that are removed, each one once.

    Args:
        folder: of the collection.
        images: paths of the images that are removed, relative to it.
        is_gone: whether an image of the collection, by its path, is among them and is moved in fact.
    """
    names_in: dict[str, list[str]] = defaultdict(list)
    for image in images:
        names_in[os.path.dirname(image)].append(os.path.basename(image))
    for parent, removed in names_in.items():
        there = _files_in(folder / parent)
        named = defaultdict(set)
        for name in (*there, *removed):  # an image that was moved before belongs to its sidecars, too
            if suffix_of(name) in OWNERS:
                for key in names_of(name):
                    named[key].add(name)
        order = {name: place for place, name in enumerate(removed)}
        for file, size in there.items():
            owners = {image for key in owners_of(file) for image in named.get(key, ())} - {file}
            owners = {image for image in owners if not _has_own(image, file, there)}
            ours = min(owners & order.keys(), key=order.__getitem__, default=None)
            if ours is not None and file not in order:
                path, image = (os.path.join(parent, name) for name in (file, ours))
                others = [one for one in sorted(owners - {ours}) if not is_gone(os.path.join(parent, one))]
                others = [one for one in others if one in there]
                yield Sidecar(path, image, _why_it_stays(file, size, others))


def _has_own(image: str, file: str, there: Collection[str]) -> bool:
    """Whether an edited image, to which the sidecar of its original would belong, has one of this kind of its own."""
    own = stem_of(image), image
    suffix = file[len(stem_of(file)) :]
    return not set(own) & set(owners_of(file)) and any(f"{name}{suffix}" in there for name in own)


def _why_it_stays(file: str, size: int, others: list[str]) -> str:
    if suffix_of(file) in RAW:
        return "a RAW file is an original of its own"
    if others:
        return f"it also belongs to {printable(others[0])}, which stays"
    if suffix_of(file) in LIVE_FILMS and size > _FILM_BYTES:
        return f"a film of {size / 1e6:,.0f} MB is more than that of a live photo"
    return ""


def _files_in(folder: Path) -> dict[str, int]:
    """Return the names and sizes of the files in a folder, in order; links count as their files."""
    found = {}
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                try:
                    if entry.is_file():
                        found[entry.name] = entry.stat().st_size
                except OSError:
                    continue
    except OSError:
        return {}
    return dict(sorted(found.items()))
