"""WebDataset's form of a tar: files with the same name except for the suffix are the parts of one sample.

    000123.jpg  000123.cls      the image, and the number of its class
    000124.jpg  000124.json     or an object with a label
    000125.jpg  000125.txt      or the name of its class

The common part, the key, goes up to the first dot of the base name.
"""

from __future__ import annotations

import array
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from tfrecords.base_errors import UsageError
from tfrecords.convert.sources.container_files import Member
from tfrecords.convert.sources.labels import FileListing, some_of, source_of_labels
from tfrecords.convert.sources.name_encodings import decode_names
from tfrecords.convert.sources.read_errors import MissingFile, refusal_of
from tfrecords.convert.sources.remote import is_url, read_url
from tfrecords.convert.sources.row_values import ONE_CLASS
from tfrecords.convert.sources.selection import Selection
from tfrecords.convert.sources.source import Files, Source, is_image
from tfrecords.format.atomic_files import parse_json
from tfrecords.format.quarantine import Reason, Refusal
from tfrecords.format.record import ReadAt

_RANKS = {"cls": 0, "json": 1, "txt": 2}  # the lowest wins, because a text is often a caption
_CLASS_LISTS = ("classes.txt", "labels.txt")
_LABEL_KEYS = ("label", "class", "category")
_MAX_LABEL_BYTES = 1 << 20
_MAX_NAME = 200  # characters; a longer text is a caption
_NO_SIDECAR = Refusal(Reason.NO_CLASS_FOLDER, "there is no .cls, .json or .txt with a label beside it")


class Samples:
    """The images of tars and their labels, collected while the tars are read.

    `names` are prefixes of the paths in each tar, so that all paths differ; "" for none.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.any_label = False
        self._names = names
        self._found = FileListing()
        self._declared = array.array("q")  # images whose names are UTF-8 according to their tar
        self._class_list: tuple[str, list[str]] | None = None
        self._numbers: set[str] = set()  # labels that are numbers of classes
        self._multi_label = ""  # the first file with several labels
        self._ambiguous = ""  # the first image that is not the only one of its sample
        self._no_image: list[str] = []
        # Of the tar that is being read, by key:
        self._images: dict[str, list[tuple[str, Member]]] = {}
        self._labels: dict[str, tuple[int, str | Refusal, str]] = {}

    def add(self, path: str, member: Member, read_at: ReadAt) -> None:
        """Add a member of the current tar, whose path is `path`."""
        folder, slash, base = path.rpartition("/")
        stem, _, suffix = base.partition(".")
        rank = _RANKS.get(suffix.lower())
        if is_image(path):
            self._images.setdefault(f"{folder}{slash}{stem}", []).append((path, member))
        elif rank is not None and member.refused is None:
            data = read_at(member.offset, min(member.length, _MAX_LABEL_BYTES))
            if base in _CLASS_LISTS:
                self._class_list = self._class_list or (f"{path} in the tar", _lines(data))
                return
            key = f"{folder}{slash}{stem}"
            label = self._label(suffix.lower(), path, data)
            if label is not None and rank <= self._labels.get(key, (rank,))[0]:
                self._labels[key] = rank, label, path

    def end_of_tar(self, number: int, stamp: int) -> None:
        """Give the images of tar `number` their labels, after all of its members were added."""
        for key, images in self._images.items():
            rank_label_path = self._labels.pop(key, None)
            self.any_label |= rank_label_path is not None
            path, member = self._one(images)
            label = rank_label_path[1] if rank_label_path is not None else ""
            if member.is_utf8 and not path.isascii():
                self._declared.append(len(self._found.paths))
            self._found.add(
                path,
                member.size,
                stamp,
                (number, member.offset, member.length),
                label="" if isinstance(label, Refusal) else label,
                refused=member.refused or (label if isinstance(label, Refusal) else None if label else _NO_SIDECAR),
            )
        self._no_image += [path for _, _, path in self._labels.values()]
        self._images, self._labels = {}, {}

    def source(
        self,
        location: str,
        files: Files,
        categories: Sequence[str],
        tars: Sequence[str],
        selection: Selection,
        encoding: str = "",
    ) -> Source:
        """Return the source of all images that were found; `encoding` is that of `decode_names`.

        Raises:
            UsageError: an image has several labels, a sample has several images, or no image has a label.
        """
        if self._multi_label:
            raise UsageError(f"--image_dir={location}: {self._multi_label} has several labels. {ONE_CLASS}.")
        if self._ambiguous:
            raise UsageError(
                f"--image_dir={location}: {self._ambiguous} is not the only image of its sample. Keep one, or give "
                "them names that differ before the first dot."
            )
        name, listed = self._class_list or _list_beside(tars[0]) or ("", [])
        found = self._found
        for row, label in enumerate(found.labels):
            if listed and label in self._numbers and row not in found.refused:
                if 0 <= int(label) < len(listed):
                    found.labels[row] = listed[int(label)]
                else:
                    detail = f"its label is {label}, and {name} has {len(listed)} classes, from 0"
                    found.refused[row] = Refusal(Reason.NO_CLASS_FOLDER, detail)
        notes = decode_names(found.paths, encoding, location, self._declared)
        names = [self._names[number] for number in found.places[::3]]
        found.paths = [f"{name}/{path}" if name else path for name, path in zip(names, found.paths, strict=True)]
        if self._no_image:
            notes.append(f"{len(self._no_image)} labels have no image: {some_of(self._no_image)}")
        return source_of_labels(
            found,
            location=location,
            files=files,
            categories=categories,
            class_names=listed,
            selection=selection,
            notes=notes,
            form=f"{len(tars):,} WebDataset {'tar' if len(tars) == 1 else 'tars'} with {len(found.paths):,} images",
        )

    def _one(self, images: list[tuple[str, Member]]) -> tuple[str, Member]:
        """Return the image of a sample: the one with a single suffix (a.jpg, not the mask a.seg.png)."""
        by_path = dict(images)  # of two members with the same name the later one counts, as in unpacking
        plain = [path for path in by_path if path.rpartition("/")[2].count(".") == 1] or list(by_path)
        if len(plain) > 1:
            self._ambiguous = self._ambiguous or plain[1]
        return plain[0], by_path[plain[0]]

    def _label(self, suffix: str, path: str, data: bytes) -> str | Refusal | None:
        """Return the label in a file, the reason why it cannot be used, or None if the file has no label."""
        if suffix == "json":
            return self._json_label(path, data)
        text = data.decode("utf-8", "surrogateescape").strip()
        if suffix == "cls":
            if re.fullmatch(r"[0-9]+([\s,;|]+[0-9]+)+", text):
                self._multi_label = self._multi_label or path
            if not re.fullmatch(r"[0-9]{1,9}", text):
                return Refusal(
                    Reason.NO_CLASS_FOLDER, f"{path} should contain the number of a class, not {text[:40]!r}"
                )
            self._numbers.add(text := sys.intern(str(int(text))))
            return text
        if not text or len(text) > _MAX_NAME or "\n" in text or "\r" in text:
            return Refusal(Reason.NO_CLASS_FOLDER, f"{path} should contain the name of a class, not {text[:40]!r}")
        return sys.intern(text)

    def _json_label(self, path: str, data: bytes) -> str | Refusal | None:
        try:
            value = parse_json(data)
        except ValueError as error:
            return Refusal(Reason.NO_CLASS_FOLDER, f"{path} is not valid JSON: {error}")
        labels = [value[key] for key in _LABEL_KEYS if value.get(key) is not None] if isinstance(value, dict) else []
        if not labels:
            return None
        if isinstance(labels[0], list):
            self._multi_label = self._multi_label or path
            return None
        label = labels[0]
        if isinstance(label, int) and not isinstance(label, bool) and label >= 0:
            self._numbers.add(text := sys.intern(str(label)))
            return text
        if isinstance(label, str) and label.strip() and label.isprintable():
            return sys.intern(label.strip())
        return Refusal(Reason.NO_CLASS_FOLDER, f"{path} should have a name or a number as its label, not {label!r:.40}")


def _list_beside(tar: str) -> tuple[str, list[str]] | None:
    for base in _CLASS_LISTS:
        path = f"{tar.rpartition('/')[0]}/{base}"
        try:
            return path, _lines(_read(path))
        except MissingFile:
            continue
        except Refusal as refusal:
            if is_url(path):  # S3 answers 403 for a missing object too, unless one may list the bucket
                continue
            # Without it the classes would have other names.
            raise UsageError(f"{path} cannot be read: {refusal.detail}. Make it readable, or move it away.") from None
    return None


def _read(path: str) -> bytes:
    if is_url(path):
        return read_url(path)
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise refusal_of(error) from None


def _lines(data: bytes) -> list[str]:
    """Return the names in a list of classes, one per line; empty lines at its end are ignored.

    A line ends at a line break of any system, and not at the other characters at which `str.splitlines` divides a text.
    """
    text = data.decode("utf-8-sig", "surrogateescape").rstrip()
    return [line.strip() for line in re.split("\r\n|\r|\n", text)] if text else []
