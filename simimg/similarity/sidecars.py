"""Sidecars: files that belong to an image of the same folder and mean nothing without it.

    IMG_1.jpg.xmp  IMG_1.jpg.json  IMG_1.jpg.supplemental-metadata.json    belong to IMG_1.jpg
    IMG_1.jpg(2).json  IMG_1.jpg.supplemental-metadata(2).json             belong to IMG_1(2).jpg
    IMG_1.xmp  IMG_1.json  IMG_1.aae  IMG_1.mov  IMG_1.mp4  …              belong to every image that is named IMG_1
    IMG_1.MP                                                               belongs to IMG_1.MP.jpg
    A photo service's .json of 46 letters, where it cuts names off         belongs to the image that begins so

What belongs to IMG_1.jpg belongs to IMG_1-edited.jpg as well, which has none of its own.

A sidecar goes along with an image that is removed if no image that it belongs to stays. A large film is no part of a
live photo, and stays. So does a RAW file: it is an original of its own.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath

from tfrecords.convert.sources import SUFFIXES, printable

_NOTES = frozenset(".aae .dop .json .pp3 .thm .xmp".split())
_FILMS = frozenset((".mov", ".mp4", ".mp"))
_EDITED = "-edited"
_CUT_OFF = 46  # characters, without the suffix
_FILM_BYTES = 10_000_000  # the film of a live photo has three seconds
_RAW = frozenset(
    ".3fr .arw .cr2 .cr3 .crw .dcr .dng .erf .fff .iiq .kdc .mef .mos .mrw .nef .nrw .orf .pef .raf .raw .rw2 .rwl .srw"
    " .x3f".split()
)
_IMAGES = SUFFIXES | _RAW | {".jxl"}
_NUMBERED = re.compile(r"(.*)(\(\d+\))")


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
            if _suffix(name) in _IMAGES:
                for key in (_stem(name), _stem(name).removesuffix(_EDITED)):
                    named[key].add(name)
                    named[f"{key}{name[len(_stem(name)) :]}"].add(name)
                if len(name) > _CUT_OFF:
                    named[name[:_CUT_OFF]].add(name)
        order = {name: place for place, name in enumerate(removed)}
        for file, size in there.items():
            owners = {image for key in _owners(file) for image in named.get(key, ())} - {file}
            ours = min(owners & order.keys(), key=order.__getitem__, default=None)
            if ours is not None and file not in order:
                path, image = (os.path.join(parent, name) for name in (file, ours))
                others = [one for one in sorted(owners - {ours}) if not is_gone(os.path.join(parent, one))]
                others = [one for one in others if one in there]
                yield Sidecar(path, image, _why_it_stays(file, size, others))


def _why_it_stays(file: str, size: int, others: list[str]) -> str:
    if _suffix(file) in _RAW:
        return "a RAW file is an original of its own"
    if others:
        return f"it also belongs to {printable(others[0])}, which stays"
    if _suffix(file) in _FILMS and size > _FILM_BYTES:
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


def _owners(file: str) -> list[str]:
    """Return the names and stems of the images that a file belongs to, if they are there."""
    suffix, stem = _suffix(file), _stem(file)
    if suffix in _RAW or suffix in _FILMS:
        return [stem, file]
    if suffix not in _NOTES:
        return []
    owners = [stem]  # `a.xmp` belongs to a.jpg, and `a.jpg.xmp`, too
    numbered = _NUMBERED.fullmatch(stem)
    bare, number = numbered.groups() if numbered else (stem, "")
    for name in (bare, _stem(bare)):
        if _suffix(name) in _IMAGES:
            owners.append(f"{_stem(name)}{number}{name[len(_stem(name)) :]}")
    return owners


def _stem(name: str) -> str:
    return PurePosixPath(name).stem


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()
