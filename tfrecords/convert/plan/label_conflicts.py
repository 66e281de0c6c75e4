"""Label conflicts: copies of one image that lie in several classes, so that at least one of their labels is wrong.

What counts as a copy is decided by `--copies`: equal bytes or pixels, or also images that look alike.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from tfrecords.base_errors import ConversionError
from tfrecords.format.manifest import Manifest
from tfrecords.format.quarantine import Reason, Refusal

MAX_LISTED = 1_000  # conflicts in the summary; the manifest has all of them


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LabeledFile:
    """One of the files of a conflict; `split` is "" if it was left out."""

    path: str
    class_name: str
    split: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LabelConflict:
    """The files of a group of copies that has several classes. `equal` says whether their bytes or pixels are equal,
    which leaves no doubt that they are copies.
    """

    files: tuple[LabeledFile, ...]
    equal: bool


def in_conflict(groups: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the rows whose group has rows with another label: int64 `[num_found]`; both arguments are int `[n]`."""
    _, first, group_of = np.unique(groups, return_index=True, return_inverse=True)
    mixed = np.zeros(len(first), bool)
    mixed[group_of[labels != labels[first][group_of]]] = True
    return np.flatnonzero(mixed[group_of])


class ConflictingRows:
    """The images whose copies are in other classes, before a dataset is made of them.

    Args:
        groups: int `[n]`, the group of copies of each image, as `group_copies` returns them.
        labels: int `[n]`.
        class_names: by label.
        path_of: returns the printable path of an image, by its index.
    """

    def __init__(
        self, groups: np.ndarray, labels: np.ndarray, class_names: Sequence[str], path_of: Callable[[int], str]
    ) -> None:
        self._groups, self._labels, self._class_names, self._path_of = groups, labels, class_names, path_of
        self._rows = in_conflict(groups, labels)

    def refusals(self, conflicts: str) -> dict[int, Refusal]:
        """Return why each image is left out, by its index; none with `keep`.

        Raises ConversionError if there are conflicts and `conflicts` is `fail`.
        """
        if conflicts == "keep" or not len(self._rows):
            return {}
        if conflicts == "fail":
            raise ConversionError(
                f"{self._sentence()}. Correct the labels; or give --conflicts=drop to leave all of them out, or "
                "--conflicts=keep. No image has to be decoded again."
            )
        # Of each group, one image and one of another class.
        one: dict[int, int] = {}
        two: dict[int, int] = {}
        for row in self._rows.tolist():
            if self._labels[one.setdefault(int(self._groups[row]), row)] != self._labels[row]:
                two.setdefault(int(self._groups[row]), row)
        found = {}
        for row in self._rows.tolist():
            group = int(self._groups[row])
            other = one[group] if self._labels[one[group]] != self._labels[row] else two[group]
            name = self._class_names[self._labels[other]]
            found[row] = Refusal(Reason.LABEL_CONFLICT, f"its copy {self._path_of(other)} has the class {name!r}")
        return found

    def notes(self, *, dropped: bool) -> list[str]:
        """Return a note if there are conflicts; `dropped` says whether their images are left out."""
        fate = "they are left out" if dropped else "all are kept, and --conflicts=drop leaves them out"
        return [f"{self._sentence()}; {fate}"] if len(self._rows) else []

    def _sentence(self) -> str:
        groups = self._groups[self._rows]
        members = self._rows[groups == groups[0]]
        other = members[self._labels[members] != self._labels[members[0]]][0]
        shown = [f"{self._path_of(int(row))} ({self._class_names[self._labels[row]]})" for row in (members[0], other)]
        count = len(np.unique(groups))
        have = "images have" if count > 1 else "image has"
        return f"{count:,} {have} several labels, in {len(self._rows):,} files, e.g. {' and '.join(shown)}"


def check_conflicts(manifest: Manifest, class_names: Sequence[str], conflicts: str) -> None:
    """Raise ConversionError if a finished dataset has conflicts, and `conflicts` is `fail`."""
    rows = np.flatnonzero(manifest.ok)
    found = ConflictingRows(
        manifest.groups[rows], manifest.labels[rows], class_names, lambda row: manifest.paths[int(rows[row])]
    )
    found.refusals("fail" if conflicts == "fail" else "keep")


def find_conflicts(manifest: Manifest, class_names: Sequence[str]) -> list[LabelConflict]:
    """Return the conflicts of a dataset, including those that were left out by `--conflicts=drop`, by first id; the
    first `MAX_LISTED` of them.
    """
    dropped = manifest.reason_names.index(Reason.LABEL_CONFLICT) if _drops(manifest) else -2
    rows = np.flatnonzero(manifest.ok | (manifest.reasons == dropped))
    rows = rows[in_conflict(manifest.groups[rows], manifest.labels[rows])]
    rows = rows[np.lexsort((manifest.ids[rows], manifest.groups[rows]))]
    _, starts = np.unique(manifest.groups[rows], return_index=True)
    conflicts = []
    for members in np.split(rows, starts[1:])[:MAX_LISTED] if len(rows) else ():
        files = tuple(
            LabeledFile(
                path=manifest.paths[row],
                class_name=class_names[manifest.labels[row]],
                split=manifest.split_names[manifest.splits[row]] if manifest.splits[row] >= 0 else "",
            )
            for row in members.tolist()
        )
        digests = (manifest.sha256[members], manifest.pixels_sha256[members])
        equal = any((digest == digest[:1]).all() for digest in digests)
        conflicts.append(LabelConflict(files=files, equal=equal))
    return conflicts


def _drops(manifest: Manifest) -> bool:
    return Reason.LABEL_CONFLICT in manifest.reason_names
