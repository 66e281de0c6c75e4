"""Decide about images that look like copies, for good.

Name two or more images, by their paths or by the SHA-256 of their bytes, and say what they are: not copies of each
other; copies that all stay; or copies of one that is kept, while the others may go. `simimg duplicates` and the page of
`simimg serve` then no longer ask about them: a group comes up again only when another image joins it. `simimg leaks`
leaves out what is not a copy. A decision covers all pairs of its images, and replaces an earlier one about the same.

What was decided about findings, on the page or by `simimg audit --decisions`, is listed and undone here, too. --delete
and --relabel write it as the lists that `simimg edit` takes.

Decisions are kept in the folder of the index, in decisions.jsonl. They are about the bytes of the images, so they
survive moves and renames of files and folders and every update of the index.

Examples:
    simimg decide --index_dir=indexes/photos --not_copies page1.png page2.png
    simimg decide --index_dir=indexes/photos --keep=photos/best.jpg photos/small.jpg photos/gray.jpg
    simimg decide --index_dir=indexes/photos --list
    simimg decide --index_dir=indexes/photos --delete=drop.csv --relabel=labels.csv
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from simimg.commands.console import Result, note
from simimg.errors import UsageError
from simimg.health.audited_images import AuditedImages
from simimg.health.decision_table import decided_among, write_deletions, write_labels
from simimg.similarity.decisions import (
    DECISIONS_FILE,
    KEEP_ALL,
    NOT_COPIES,
    REMOVED,
    RETURNED,
    THIS_ONE,
    UNDONE,
    DecidedImage,
    Decision,
    Decisions,
    check_decision,
    read_decisions,
    record,
)
from simimg.similarity.finding_decisions import RIGHT, DecidedFinding
from simimg.similarity.search_index import SearchIndex
from tfrecords.convert.sources import printable
from tfrecords.format.atomic_files import file_sha256
from tfrecords.locations import location_text
from tfrecords.options import option
from tfrecords.storage.object_cache import CacheOptions

JSON_KEYS = "decisions undone removed file delete num_deleted relabel num_relabeled"

_REMOVALS_SHOWN = 20
_CHECKSUM = re.compile("[0-9a-fA-F]{64}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(CacheOptions):
    """Options of `decide`. Raises UsageError unless one thing is to be done."""

    index_dir: Path = option("Index of the images; the decisions are kept in its folder.", url=True)
    images: tuple[str, ...] = option("Two or more images: paths, or SHA-256 checksums.", (), positional=True)
    not_copies: bool = option("They are not copies of each other.", False)
    keep_all: bool = option("They are copies, and all of them stay.", False)
    keep: Path | None = option("They are copies; this one is kept, and the others may go.", None)
    list: bool = option("List what was decided, and removed; with images, only what is about all of them.", False)
    undo: bool = option("Take back what was decided about all of the images; without images, the last decision.", False)
    delete: Path | None = option(
        "Write the images to drop, as decided, for `simimg edit --delete`; with images, only those of them.",
        None,
        output=True,
    )
    relabel: Path | None = option(
        "Write the decided labels, for `simimg edit --relabel`; with images, only theirs.", None, output=True
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        flags = [self.not_copies, self.keep_all, self.keep is not None, self.list, self.undo]
        if self.delete is not None or self.relabel is not None:
            if any(flags):
                raise UsageError("--delete and --relabel write lists and decide nothing. Give them alone.")
        elif sum(flags) != 1:
            what = "several things are" if any(flags) else "nothing is"
            raise UsageError(
                f"{what} to be done. Give one of --not_copies, --keep_all, --keep=FILE, --list and --undo, or "
                "--delete=FILE and --relabel=FILE."
            )


def run(options: Options) -> Result:
    """Store, list or take back decisions."""
    index = SearchIndex.open(options.index_dir)
    known = read_decisions(index.index_dir)
    if options.keep is not None:
        options = dataclasses.replace(options, images=(str(options.keep), *options.images))
    images = _Images(index, known)
    named = tuple(dict.fromkeys(images.named(text) for text in options.images))
    made: list[Decision] = []
    undone: list[Decision] = []
    removed = list(known.removed.values())
    written: dict[str, Any] = dict.fromkeys(("delete", "num_deleted", "relabel", "num_relabeled"))
    if options.delete is not None or options.relabel is not None:
        removed, written = [], written | _write_lists(options, index, known, images)
    elif options.list:
        checksums = {image.sha256 for image in named}
        made = [one for one in known if checksums <= one.key]
        made += images.findings(known, options.images)[::-1] if checksums else list(known.findings)
        removed = [one for one in removed if checksums <= one.key]
    elif options.undo:
        undone = _undo(options, named, images)
        removed = [one for one in undone if one.decision == REMOVED]
        undone = [one for one in undone if one not in removed]
    else:
        word = NOT_COPIES if options.not_copies else KEEP_ALL if options.keep_all else THIS_ONE
        made, removed = [Decision(word, named)], []
        try:
            check_decision(made[0])
        except ValueError as error:
            raise UsageError(f"{' '.join(options.images) or 'no image'}: {error}.") from None
        for image in images.strangers(named):
            where = location_text(options.index_dir)
            note(f"{image.path or image.sha256} is not in {where}; the decision counts when it is")
        decisions = record(index.index_dir, lambda decisions: made)
        made = [one for one in decisions if one.key == made[0].key]
    values = {
        "decisions": [images.values(one) for one in made],
        "undone": [images.values(one) for one in undone],
        "removed": [images.values(one) for one in removed],
        "file": f"{location_text(options.index_dir)}/{DECISIONS_FILE}",
        **written,
    }
    lines = [images.text(one) for one in made]
    lines += [f"taken back: {images.text(one)}" for one in undone]
    lines += [images.text(one) for one in removed[:_REMOVALS_SHOWN]]
    if len(removed) > _REMOVALS_SHOWN:
        lines.append(f"… and {len(removed) - _REMOVALS_SHOWN:,} more removed images; --json lists all of them")
    if written["delete"] is not None:
        lines.append(f"{written['num_deleted']:,} images to delete: {written['delete']}")
    if written["relabel"] is not None:
        lines.append(f"{written['num_relabeled']:,} new labels: {written['relabel']}")
    return Result(values=values, text="\n".join(lines or ["nothing was decided"]))


def _write_lists(options: Options, index: SearchIndex, known: Decisions, images: _Images) -> dict[str, Any]:
    """Write the lists for `simimg edit`, of all images or of those that are named; return paths and numbers."""
    of = {path for text in options.images for path in images.files(text)}
    decided = decided_among(AuditedImages.of_index(index).images, known)
    if options.images:
        decided = {key: one for key, one in decided.items() if key[0] in of}
    written: dict[str, Any] = {}
    if options.delete is not None:
        written |= {"delete": str(options.delete), "num_deleted": write_deletions(decided, options.delete)}
    if options.relabel is not None:
        written |= {"relabel": str(options.relabel), "num_relabeled": write_labels(decided, options.relabel)}
    return written


def _undo(options: Options, named: tuple[DecidedImage, ...], images: _Images) -> list[Decision]:
    """Take decisions back, and of a single image, that it was removed; return them."""
    undone: list[Decision] = []

    def change(decisions: Decisions) -> list[Decision]:
        checksums = [image.sha256 for image in named]
        if named:
            undone[:] = [*decisions.about(*checksums), *images.findings(decisions, options.images)]
        else:
            undone[:] = [decisions.latest] if decisions.latest else []
        events = [Decision(UNDONE, one.images, finding=one.finding) for one in undone]
        if len(named) == 1 and (removal := decisions.removed.get(named[0].sha256)) is not None:
            undone.append(removal)
            events.append(Decision(RETURNED, removal.images))
        if not undone:
            about = f" about {' '.join(options.images)}" if named else ""
            raise UsageError(f"nothing is decided{about}. --list shows what is.")
        return events

    record(images.index_dir, change)
    return undone


class _Images:
    """Finds the images that somebody named, and where those of decisions are now."""

    def __init__(self, index: SearchIndex, decisions: Decisions) -> None:
        self._index, self.index_dir = index, index.index_dir
        self._decisions = decisions
        self._paths: dict[str, list[str]] = {}  # by checksum
        self.named: Callable[[str], DecidedImage] = functools.cache(self._named)  # which reads a whole file
        for path, sha256 in zip(*(index.images.column(name).tolist() for name in ("path", "sha256")), strict=True):
            self._paths.setdefault(sha256, []).append(path)

    def _named(self, text: str) -> DecidedImage:
        """Return the image of a path or a checksum.

        Raises:
            UsageError: there is no such file, neither here nor in the index nor in a decision.
        """
        if _CHECKSUM.fullmatch(text):
            sha256 = text.lower()
            known = [
                image.path for one in self._decisions.about(sha256) for image in one.images if image.sha256 == sha256
            ]
            return DecidedImage(sha256, (self._paths.get(sha256) or known or [""])[0])
        root = Path(self._index.info.image_dir or "")
        for path in (Path(text).expanduser(), root / text):
            if path.is_file():
                inside = path.resolve().is_relative_to(root.resolve()) and self._index.info.image_dir is not None
                name = path.resolve().relative_to(root.resolve()).as_posix() if inside else str(path.absolute())
                return DecidedImage(file_sha256(path), printable(name))
        events = (*self._decisions.removed.values(), *self._decisions, *self._decisions.findings)
        gone = {image.path: image.sha256 for one in events for image in one.images}
        gone |= {path: sha256 for sha256, paths in self._paths.items() for path in paths}
        if text not in gone:
            raise UsageError(
                f"{text}: there is no such file, here or in {self._index.index_dir}. "
                "Name files, paths as the index has them, or SHA-256 checksums."
            )
        return DecidedImage(gone[text], text)

    def files(self, text: str) -> list[str]:
        """Return the paths in the index that a name stands for: a path for itself, a checksum for all of its files."""
        image = self.named(text)
        paths = self._paths.get(image.sha256, [])
        return [image.path] if image.path in paths and not _CHECKSUM.fullmatch(text) else paths

    def findings(self, decisions: Decisions, texts: Sequence[str]) -> list[Decision]:
        """Return what was decided about findings of the one image that is named, the last decision first.

        What is to happen to another file of the same bytes is not among it.
        """
        files = {path for text in texts for path in self.files(text)}
        checksums = [self.named(text).sha256 for text in texts]
        others = {path for sha256 in checksums for path in self._paths.get(sha256, [])} - files
        return [
            one
            for one in decisions.findings.about(*checksums)
            if one.decision == RIGHT or not others & {image.path for image in one.images}
        ]

    def strangers(self, images: tuple[DecidedImage, ...]) -> list[DecidedImage]:
        """Return those that are not in the index."""
        return [image for image in images if image.sha256 not in self._paths]

    def now(self, image: DecidedImage) -> str | None:
        """Return the path of an image in the index, its last known one if it is one of several."""
        paths = self._paths.get(image.sha256, [])
        return image.path if image.path in paths else next(iter(paths), None)

    def values(self, decision: Decision) -> dict[str, Any]:
        """Return a decision for JSON; of each image, `path` is the last known one and `now` the one in the index."""
        images = [{**dataclasses.asdict(image), "now": self.now(image)} for image in decision.images]
        about = {} if decision.finding is None else {"finding": dataclasses.asdict(decision.finding)}
        return {"time": decision.time, "decision": decision.decision, "images": images, **about}

    def text(self, decision: Decision) -> str:
        """Return a line about a decision, with the paths in the index."""
        if decision.decision == REMOVED:
            (image,) = decision.images
            now = self.now(image)
            is_back = now is not None and self._index.file_of(now).is_file()
            return f"{decision.date}  removed: {image.path}{f', back as {now}' if is_back else ''}"
        if decision.finding is not None:
            return self._text_of_finding(decision, decision.finding)
        paths = [self.now(image) or f"{image.path or image.sha256} (not in the index)" for image in decision.images]
        if decision.decision == THIS_ONE:
            paths = [f"{paths[0]} is kept", *(f"{path} may go" for path in paths[1:])]
        return f"{decision.date}  {decision.decision}: {', '.join(paths)}"

    def _text_of_finding(self, decision: Decision, finding: DecidedFinding) -> str:
        """Return a line such as `2026-11-29  relabel to ketch: ferry/1.jpg (label: ketch fits with 96%, …)`."""
        image = next(iter(decision.images), None)
        subject = finding.label or finding.split
        if image is not None:
            subject = self.now(image) or f"{image.path or image.sha256} (not in the index)"
        word = f"{decision.decision} to {finding.new_label}" if finding.new_label else decision.decision
        about = ": ".join(filter(None, (finding.kind, finding.reason)))
        return f"{decision.date}  {word}: {subject}" + (f" ({about})" if about else "")
