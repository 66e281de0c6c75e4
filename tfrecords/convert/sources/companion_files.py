"""Files that lie beside images and are none: sidecars, captions, films, RAW files. No picture is lost with them.

    IMG_1.jpg.xmp  IMG_1.jpg.json  IMG_1.jpg.supplemental-metadata.json    belong to IMG_1.jpg
    IMG_1.jpg(2).json  IMG_1.jpg.supplemental-metadata(2).json             belong to IMG_1(2).jpg
    IMG_1.xmp  IMG_1.json  IMG_1.aae  IMG_1.mov  IMG_1.mp4  IMG_1.cr2  …   belong to every image that is named IMG_1
    IMG_1.MP                                                               belongs to IMG_1.MP.jpg
    A photo service's .json of 46 letters, where it cuts names off         belongs to the image that begins so
    IMG_1.txt  IMG_1.jpg.txt                                               are its captions

What belongs to IMG_1.jpg belongs to IMG_1-edited.jpg as well, which has none of its own.

A RAW file alone is a picture that cannot be decoded, and a text that belongs to no image can be anything: both are
rejected. Sidecars of albums and films of their own are left out and counted.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import PurePosixPath

from tfrecords.convert.sources.source import SUFFIXES

SIDECARS = frozenset(".aae .dop .json .pp3 .thm .xmp".split())
LIVE_FILMS = frozenset((".mov", ".mp4", ".mp"))
RAW = frozenset(
    ".3fr .arw .cr2 .cr3 .crw .dcr .dng .erf .fff .iiq .kdc .mef .mos .mrw .nef .nrw .orf .pef .raf .raw .rw2 .rwl .srw"
    " .x3f".split()
)
OWNERS = SUFFIXES | RAW | {".jxl"}
"""Suffixes of the files that others belong to."""

_CAPTIONS = frozenset((".caption", ".txt"))
_FILMS = LIVE_FILMS | frozenset(".3gp .avi .m2ts .m4v .mkv .mpeg .mpg .mts .webm .wmv".split())
_EDITED = "-edited"
_CUT_OFF = 46  # characters, without the suffix
_NUMBERED = re.compile(r"(.*)(\(\d+\))")


@dataclasses.dataclass(frozen=True)
class Companions:
    """The companions among the files of a source.

    Attributes:
        of_images: their paths, of those that belong to an image.
        alone: the paths of films and sidecars that belong to none.
    """

    of_images: Collection[str]
    alone: Collection[str]

    def __contains__(self, path: str) -> bool:
        return path in self.of_images or path in self.alone

    @property
    def num_files(self) -> int:
        """The number of companions."""
        return len(self.of_images) + len(self.alone)

    def notes(self) -> list[str]:
        """Return one line that counts them, or none."""
        parts = []
        if self.of_images:
            parts.append(f"{_counted(self.of_images)} beside the images that they belong to")
        if self.alone:
            parts.append(f"{_counted(self.alone)} that belong to no image, e.g. {min(self.alone)}")
        return [f"left out, since they are no images: {'; '.join(parts)}"] if parts else []


def companions_of(images: Iterable[str], others: Sequence[str]) -> Companions:
    """Return which of `others`, paths of files that do not have the suffix of an image, are companions.

    `images` are the paths of all images; they are looked at only if there is a file that could belong to one.
    """
    owners = {path: paths for path in others if (paths := _owner_paths(path))}
    folders = {os.path.dirname(path) for path in owners}
    of_images = _names(images if owners else (), folders)
    of_raws = _names([path for path in owners if suffix_of(path) in RAW], folders)
    belong, alone = set(), set()
    for path in others:
        suffix, found = suffix_of(path), owners.get(path, ())
        if not of_images.isdisjoint(found) or (suffix not in RAW and not of_raws.isdisjoint(found)):
            belong.add(path)
        elif suffix in SIDECARS or suffix in _FILMS:
            alone.add(path)
    return Companions(belong, alone)


def names_of(image: str) -> set[str]:
    """Return the names by which `owners_of` may call an image, given its name without folders."""
    stem = stem_of(image)
    bare = stem.removesuffix(_EDITED)
    names = {stem, image, bare, bare + image[len(stem) :]}
    return names | {image[:_CUT_OFF]} if len(image) > _CUT_OFF else names


def owners_of(file: str) -> list[str]:
    """Return the names of the images that a file (a name without folders) belongs to, if they are there: `names_of`."""
    suffix, stem = suffix_of(file), stem_of(file)
    if suffix in RAW or suffix in LIVE_FILMS:
        return [stem, file]
    if suffix not in SIDECARS and suffix not in _CAPTIONS:
        return []
    owners = [stem]  # `a.xmp` belongs to a.jpg, and `a.jpg.xmp`, too
    numbered = _NUMBERED.fullmatch(stem)
    bare, number = numbered.groups() if numbered else (stem, "")
    for name in (bare, stem_of(bare)):
        if suffix_of(name) in OWNERS:
            owners.append(f"{stem_of(name)}{number}{name[len(stem_of(name)) :]}")
    return owners


def stem_of(name: str) -> str:
    """Return a file's name without its last suffix."""
    return PurePosixPath(name).stem


def suffix_of(name: str) -> str:
    """Return the last suffix of a file's name, in lower case."""
    return PurePosixPath(name).suffix.lower()


def _owner_paths(path: str) -> list[str]:
    folder, name = os.path.split(path)
    return [os.path.join(folder, owner) for owner in owners_of(name)]


def _names(owners: Iterable[str], folders: Collection[str]) -> set[str]:
    """Return the paths of the files in `folders`, under all of their names."""
    inside = (os.path.split(path) for path in owners if os.path.dirname(path) in folders)
    return {os.path.join(folder, name) for folder, file in inside for name in names_of(file)}


def _counted(paths: Iterable[str]) -> str:
    """Return the number of files of each suffix, such as `3 .json and 1 .xmp`."""
    counts = sorted(Counter(map(suffix_of, paths)).items(), key=lambda item: (-item[1], item[0]))
    return " and ".join(f"{number:,} {suffix}" for suffix, number in counts)
