"""What people decided about the findings of an audit, as events of the file of decisions.

    {"time": …, "decision": "right", "images": [{"sha256": …, "path": …}], "finding": {"kind": "blurred", …}}
    {"time": …, "decision": "drop", "images": […], "finding": {…}}      the image is to be deleted
    {"time": …, "decision": "relabel", "images": […], "finding": {"kind": "label", "label": "ketch", "new_label": …}}
    {"time": …, "decision": "undone", "images": […], "finding": {…}}    nothing is decided about this finding any more

`right` says that nothing is wrong with the image in this respect. It is about the bytes: every file that has them is
covered, for findings about labels those with the same given label, and for leaks those in the same split. `drop` and
`relabel` are about one file, because a copy of it in another class stays as it is: the file with the path, or if that
is gone, the first one with the same bytes and label. If there were several of them when it was decided, the event has
`"has_copies": true`, and is about the file with the path alone: once that is deleted, its copy is to stay. A new label
counts while the file has the old one. Findings about classes and splits have no image.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simimg.similarity.decisions import Decision
    from simimg.similarity.image_table import IndexedImage

RIGHT, DROP, RELABEL = FINDING_DECISIONS = ("right", "drop", "relabel")

_GIVEN = {"label": "label", "label_conflict": "label", "leak": "split"}  # what `right` is about, besides the bytes


@dataclasses.dataclass(frozen=True, slots=True)
class DecidedFinding:
    """The finding that a decision is about.

    Attributes:
        kind: one of `simimg.health.finding.KINDS`; empty if somebody chose the image without a finding.
        label: the class that the image had, or that the finding is about.
        split: of the image, or that the finding is about.
        new_label: the class that `relabel` gives it.
        reason: what the finding said.
    """

    kind: str
    label: str = ""
    split: str = ""
    new_label: str = ""
    reason: str = ""

    @classmethod
    def of(cls, values: Any) -> DecidedFinding:
        """Return the finding of JSON values; raise ValueError or TypeError if they are not one."""
        found = cls(**values)
        if not all(isinstance(text, str) for text in dataclasses.astuple(found)):
            raise ValueError("a finding has texts only")
        return found


def check_finding_decision(event: Decision) -> None:
    """Raise ValueError unless a decision about a finding is complete."""
    finding = event.finding
    if event.decision not in FINDING_DECISIONS:
        return
    if finding is None:
        raise ValueError(f"{event.decision!r} needs a finding")
    if len(event.images) > 1 or (not event.images and (event.decision != RIGHT or not finding.kind)):
        raise ValueError(f"{event.decision!r} is about one image")
    if event.images and not finding.kind and event.decision == RIGHT:
        raise ValueError("'right' needs the kind of a finding")
    if (event.decision == RELABEL) != bool(finding.new_label):
        raise ValueError(f"{RELABEL!r} needs a new label, and nothing else has one")
    try:
        finding.new_label.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{finding.new_label!r} is not a text") from None


def with_copies(images: Iterable[IndexedImage]) -> set[tuple[str, str]]:
    """Return checksum and label of the images that have others of the same bytes and label."""
    counts = Counter((image.sha256, image.label) for image in images)
    return {key for key, count in counts.items() if count > 1}


class FindingDecisions:
    """The decisions about findings that count: the last one about each finding of each file, oldest first."""

    def __init__(self) -> None:
        self._active: dict[tuple[str, ...], tuple[int, Decision]] = {}
        self._of: dict[str, dict[tuple[str, ...], None]] = defaultdict(dict)  # by checksum: keys, oldest first

    def __len__(self) -> int:
        return len(self._active)

    def __iter__(self) -> Iterator[Decision]:
        return iter([event for _, event in self._active.values()])

    @property
    def latest(self) -> tuple[int, Decision | None]:
        """The number and the decision that was made last; 0 and None without one."""
        return next(reversed(self._active.values()), (0, None))

    def add(self, event: Decision, number: int) -> None:
        """Take the event of the file with this number into account."""
        key = _key(event)
        self._active.pop(key, None)
        self._of[key[0]].pop(key, None)
        if event.decision in FINDING_DECISIONS:
            self._active[key] = number, event
            self._of[key[0]][key] = None

    def about(self, *checksums: str) -> list[Decision]:
        """Return the decisions about the image of these bytes, the last one first; of several images, none."""
        if len(set(checksums)) != 1:
            return []
        return [self._active[key][1] for key in reversed(self._of.get(checksums[0], {}))]

    def same(self, event: Decision) -> Decision | None:
        """Return the decision about the same finding of the same file."""
        return self._active[_key(event)][1] if _key(event) in self._active else None

    def by_row(self, images: Sequence[IndexedImage]) -> dict[int, list[Decision]]:
        """Return the decisions that are about each image, oldest first, by its place in `images`."""
        wanted = {image.sha256 for event in self for image in event.images}
        same: dict[str, list[int]] = defaultdict(list)
        for row, image in enumerate(images):
            if image.sha256 in wanted:
                same[image.sha256].append(row)
        found: dict[int, list[Decision]] = defaultdict(list)
        for event in self:
            for row in _rows(event, same, images):
                found[row].append(event)
        return dict(found)


def _rows(event: Decision, same: dict[str, list[int]], images: Sequence[IndexedImage]) -> list[int]:
    """Return the places of the images that a decision is about, given those of the same bytes."""
    finding = event.finding
    if not event.images or finding is None:
        return []
    (decided,) = event.images
    rows = same.get(decided.sha256, [])
    if event.decision == RIGHT:
        name = _GIVEN.get(finding.kind)
        return [row for row in rows if name is None or getattr(images[row], name) == getattr(finding, name)]
    same_label = [] if event.has_copies else [row for row in rows if images[row].label == finding.label]
    rows = [row for row in rows if images[row].path == decided.path] or same_label[:1]
    return [row for row in rows if event.decision == DROP or images[row].label == finding.label]


def _key(event: Decision) -> tuple[str, ...]:
    finding = event.finding
    assert finding is not None
    image = [(image.sha256, image.path) for image in event.images]
    return (*(image[0] if image else ("", "")), finding.kind, finding.label, finding.split)
