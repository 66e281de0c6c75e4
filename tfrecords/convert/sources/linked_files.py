"""Files that a folder has under several names, by symbolic or hard links: counted, or taken once.

Two names of one image are two examples otherwise, and perhaps of two classes. Files with equal content that are not
links are copies, which `--copies` is about.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from tfrecords.convert.sources.source import Source, printable

KEEP, ONCE = LINKS = ("keep", "once")

Known: TypeAlias = Callable[[str], int]
"""What the dataset that is appended to has under a printable path: `EXAMPLE`, `REJECTED`, or `UNKNOWN` for nothing."""
UNKNOWN, REJECTED, EXAMPLE = range(3)


def none_known(path: str) -> int:
    """Return `UNKNOWN`: there is no dataset yet."""
    return UNKNOWN


def join_links(source: Source, links: str, *, count_folders: bool = True, known: Known = none_known) -> Source:
    """Return the source with a note about names of one file, and without all but one of them if `links` is `once`.

    The name that stays is the one that is `known` already. Of other names it is that of the file itself, or else the
    first one. Two known examples both stay, because they were two files when they were converted. Names that lead
    through a linked folder are counted only with `count_folders`.
    """
    usable = source.usable()
    inodes = np.zeros((len(usable), 2), np.uint64)
    for place, id in enumerate(usable.tolist()):
        inodes[place] = _identity(os.path.join(source.location, source.paths[id]))
    order = np.lexsort((inodes[:, 1], inodes[:, 0]))  # and by id
    changes = (inodes[order[1:]] != inodes[order[:-1]]).any(axis=1)
    starts = np.flatnonzero(np.concatenate(([True], changes)))
    others = []
    num_counted = num_relabeled = 0
    for places in np.split(order, starts[1:]):
        if len(places) > 1 and inodes[places[0]].any():
            ids = usable[places]
            kept = _names_to_keep(source, ids, known if links == ONCE else none_known)
            counted = ids[~np.isin(ids, kept)]
            others.append(counted)
            if not count_folders:
                counted = counted[[not _is_link(source, id, of_folder=True) for id in counted]]
            num_counted += len(counted)
            num_relabeled += int((source.labels[counted] != source.labels[kept[0]]).sum())
    if not num_counted:
        return source
    are = "file is the same file as another" if num_counted == 1 else "files are the same file as another"
    labels = f", {num_relabeled:,} under another label" if num_relabeled else ""
    fate = "each file was taken once" if links == ONCE else f"all are kept, and --links={ONCE} takes each file once"
    note = f"{num_counted:,} {are} by links{labels}; {fate}"
    if links == ONCE:
        source = _used(source.select(np.setdiff1d(np.arange(len(source.paths)), np.concatenate(others))))
    return dataclasses.replace(source, notes=(*source.notes, note))


def _names_to_keep(source: Source, ids: np.ndarray, known: Known) -> np.ndarray:
    """Return those ids of one file's names, ascending, that stay: int64, and one at least."""
    ranks = np.array([known(printable(source.paths[id])) for id in ids])
    if (ranks == EXAMPLE).any():
        return ids[ranks == EXAMPLE]
    if (ranks == REJECTED).any():
        return ids[ranks == REJECTED][:1]
    first = next((place for place, id in enumerate(ids) if not _is_link(source, id)), 0)
    return ids[first : first + 1]


def _used(source: Source) -> Source:
    """Return the source without the classes that have no file any more, as a folder without images is no class."""
    used = np.unique(source.labels[source.labels >= 0])
    numbers = np.full(len(source.class_names) + 1, -1, np.int32)  # the last is that of no class, -1
    numbers[used] = np.arange(len(used))
    names = tuple(source.class_names[label] for label in used)
    return dataclasses.replace(source, class_names=names, labels=numbers[source.labels])


def _is_link(source: Source, id: int, *, of_folder: bool = False) -> bool:
    """Return whether a path leads through a link below the folder; or, `of_folder`, through a linked folder."""
    parts = source.paths[id].split("/")
    last = len(parts) - of_folder
    return any(os.path.islink(os.path.join(source.location, *parts[:end])) for end in range(1, last + 1))


def _identity(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # it is gone; reading it will say so
        return 0, 0
    return status.st_dev, status.st_ino
