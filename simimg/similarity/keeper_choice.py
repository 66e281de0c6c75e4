"""Chooses which image of a group of copies is kept, by rules in an order, and says which rule decided.

Each rule leaves those images that are best by it, and the next rule chooses among them, so a rule that cannot tell two
images apart decides nothing. Whatever the rules are, images of reference folders come first, and `best` comes last.
It is this order:

1. fewest visible edits, such as crops and text;
2. most detail: an enlarged image has that of its original (`simimg.similarity.image_worth`);
3. the camera's metadata, then the position that most of the others have: turned or mirrored against the fewest;
4. not made from another one that is as good: not enlarged, saved again, posterized, or filtered, and no noisy drawing;
5. lossless format, most bits per color, most pixels, highest JPEG quality, most bytes;
6. the oldest file, if it is older by more than two seconds, then the shortest path, then the first one. Byte-identical
   files differ in nothing else, so that copies in a folder `copies` do not win over their originals in `photos`.
"""

from __future__ import annotations

import functools
import hashlib
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from PIL import Image

from simimg.errors import UsageError
from simimg.similarity.differences import MOST_PX
from simimg.similarity.edit_counts import AS_EDITED, least_changed
from simimg.similarity.fingerprint import jpeg_quality
from simimg.similarity.image_table import IndexedImage
from simimg.similarity.image_worth import (
    COMPARABLE,
    CameraFacts,
    JpegTable,
    bits_per_color,
    camera_facts,
    color_image,
    earlier_quality,
    has_more_detail,
    is_lossless,
    is_saved_again,
    jpeg_coefficients,
    jpeg_table,
)
from simimg.similarity.index_images import IndexImages
from simimg.similarity.pixel_history import filtered, has_noise, lost_tones, tones_of
from tfrecords.format.quarantine import Refusal

KEEP_RULES = {
    "best": "least edited, most detailed, with the camera's metadata",
    "exif": "with the camera's metadata",
    "largest": "most pixels",
    "newest": "last modified",
    "oldest": "first modified",
    "shortest": "shortest path",
}
"""Names of rules, and what each one prefers; there is also `folder:NAME`."""

_FOLDER = "folder:"
_SAME_TIME_NS = 2 * 10**9  # modification times of FAT, and files of one archive, which are unpacked one after the other
_MUCH_LARGER = 2.5  # ratio of sides from which a reduced image tells whether it shows more than a smaller one
_COMPARED = 6  # images of a group whose pixels are compared, each with each

_Reason = Callable[[int, int], str]  # of the image that is kept, and of one that is not
_Rule = Callable[[list[int]], tuple[list[int], _Reason]]


def check_keep(rules: Sequence[str], folder: Path | None) -> None:
    """Raise UsageError for a rule that does not exist, or whose folder does not exist below that of the images."""
    for rule in rules:
        if rule.startswith(_FOLDER):
            name = rule.removeprefix(_FOLDER)
            inside = name and not PurePosixPath(name).is_absolute() and ".." not in PurePosixPath(name).parts
            if not inside or (folder is not None and not (folder / name).is_dir()):
                raise UsageError(f"--keep={rule}: there is no folder {name!r} below {folder or 'that of the images'}.")
        elif rule not in KEEP_RULES:
            raise UsageError(f"--keep={rule}: should be one of {', '.join(KEEP_RULES)}, or folder:NAME.")


def choose_keeper(
    images: IndexImages,
    edits: Mapping[int, float],
    *,
    is_reference: Callable[[IndexedImage], bool],
    decided: Callable[[IndexedImage], int] = lambda image: 0,
    turned: Mapping[int, float] | None = None,
    changes: Callable[[int, int], int] = lambda row, other: 0,
    rules: Iterable[str] = (),
) -> tuple[int, str]:
    """Return the row of a group's image that is kept, and why.

    Args:
        images: the index.
        edits: the mean number of visible edits of each row of the group. Where images are equal by a rule, the first
            ones are compared, so the order of the rows should not be that of their names.
        is_reference: whether an image is kept in any case.
        decided: 1 if somebody decided to keep an image, -1 if it is to be dropped, otherwise 0.
        turned: the share of the group against which each row is turned or mirrored, if it is known.
        changes: returns how many changes of color and things laid over it a row has, if another one is the original.
        rules: see `KEEP_RULES`; they come before `best`.
    """
    group = _Group(images, edits, turned or {}, changes, is_reference, decided)
    left, why = list(edits), "the first of equally good files"
    chosen_by: tuple[list[int], list[int], _Reason] | None = None
    is_tie = True  # among equal files a rule is no reason beside another one
    chosen = [group.reference, group.decided, *(one for name in (*rules, "best") for one in group.named(name))]
    for number, rule in enumerate([*chosen, group.oldest_by_far, group.shortest]):
        best, reason = rule(left)
        if len(best) < len(left):
            if number < len(chosen) or is_tie:
                is_tie = number >= len(chosen)
                chosen_by = best, [row for row in left if row not in best], reason
            left = best
        if len(left) == 1:
            break
    kept = min(left)
    return kept, why if chosen_by is None else chosen_by[2](kept, chosen_by[1][0])


class _Group:
    """The rules, for the images of one group. Files are read when a rule needs them."""

    def __init__(
        self,
        images: IndexImages,
        edits: Mapping[int, float],
        turned: Mapping[int, float],
        changes: Callable[[int, int], int],
        is_reference: Callable[[IndexedImage], bool],
        decided: Callable[[IndexedImage], int],
    ) -> None:
        self._images, self._edits, self._turned = images, edits, turned
        self._changes, self._is_reference, self._decided = changes, is_reference, decided
        self._image = functools.cache(images.index.images.__getitem__)
        self._first = dict[str, int]()  # files with the same bytes are read once
        self._enlarged = dict[int, int]()  # from the size of which image each row was enlarged
        self._facts = functools.cache(lambda row: camera_facts(self._data(row)))
        self._table = functools.cache(lambda row: jpeg_table(self._data(row)))
        self._quality = functools.cache(lambda row: jpeg_quality(self._data(row)) or 0)
        self._keeps_pixels = functools.cache(lambda row: is_lossless(self._data(row)))
        self._data = functools.lru_cache(maxsize=8)(self._read)
        self._color = functools.lru_cache(maxsize=2)(lambda row: color_image(self._data(row)))
        self._gray = functools.lru_cache(maxsize=2)(lambda row: (image := self._color(row)) and image.convert("L"))
        self._tones = functools.cache(lambda row: None if (image := self._color(row)) is None else tones_of(image))
        self._earlier = functools.cache(self._find_earlier)

    def named(self, name: str) -> Sequence[_Rule]:
        """Return what a name of `KEEP_RULES` stands for."""
        if name.startswith(_FOLDER):
            return [self._in_folder(name.removeprefix(_FOLDER))]
        rules: dict[str, Sequence[_Rule]] = {
            "best": [
                self._least_edited, self._most_detailed, self._with_metadata, self._least_turned,
                self._least_changed, self._not_made_from_another, self._most_tones, self._lossless, self._deepest,
                self._largest, self._highest_quality, self._most_bytes,
            ],
            "exif": [self._with_metadata],
            "largest": [self._largest],
            "newest": [lambda rows: self._by_time(rows, newest=True)],
            "oldest": [lambda rows: self._by_time(rows, newest=False)],
            "shortest": [self.shortest],
        }  # fmt: skip
        return rules[name]

    def reference(self, rows: list[int]) -> tuple[list[int], _Reason]:
        """Leave the images of reference folders."""
        best = _best(rows, lambda row: self._is_reference(self._image(row)))
        return best, lambda kept, other: "in a reference folder"

    def decided(self, rows: list[int]) -> tuple[list[int], _Reason]:
        """Leave the images that somebody decided to keep, or did not decide to drop."""
        best = _best(rows, lambda row: self._decided(self._image(row)))
        return best, lambda kept, other: "as decided"

    def _in_folder(self, folder: str) -> _Rule:
        def rule(rows: list[int]) -> tuple[list[int], _Reason]:
            best = _best(rows, lambda row: PurePosixPath(self._image(row).path).is_relative_to(folder))
            return best, lambda kept, other: f"in the folder {folder}"

        return rule

    def _least_edited(self, rows: list[int]) -> tuple[list[int], _Reason]:
        most = min(self._edits[row] for row in rows) + AS_EDITED
        best = [row for row in rows if self._edits[row] <= most]
        return best, lambda kept, other: "it has fewer edits" if self._edits[kept] else "nothing was done to it"

    def _most_detailed(self, rows: list[int]) -> tuple[list[int], _Reason]:
        sides = {row: self._side(row) for row in rows}
        first_of = {side: row for row, side in reversed(sides.items())}
        detail = dict(sides)  # of an enlarged image, that of its original
        is_more_detailed = functools.cache(self._is_more_detailed)
        most = 0.0
        for row in sorted(rows, key=lambda row: -sides[row]):
            if sides[row] < COMPARABLE * most:
                break
            original = row
            for side in sorted(first_of, reverse=True):
                if side < COMPARABLE * sides[original]:
                    if is_more_detailed(self._same(original), first_of[side]):
                        break
                    original = first_of[side]  # which may be enlarged as well
            if original != row:
                self._enlarged[row], detail[row] = original, sides[original]
            most = max(most, detail[row])
        best = [row for row in rows if detail[row] >= COMPARABLE * most]
        return best, self._why_detailed

    def _why_detailed(self, kept: int, other: int) -> str:
        if other in self._enlarged:
            return f"more detail: {self._looks_enlarged(other)}"
        return f"more detail: {self._size(kept)}, the other one has {self._size(other)}"

    def _looks_enlarged(self, row: int) -> str:
        return f"the other one looks enlarged from about {self._size(self._enlarged[row])}"

    def _with_metadata(self, rows: list[int]) -> tuple[list[int], _Reason]:
        def why(kept: int, other: int) -> str:
            return self._of(kept).text + (", more of its metadata" if self._of(other).count else "")

        return _best(rows, lambda row: self._of(row).count), why

    def _least_turned(self, rows: list[int]) -> tuple[list[int], _Reason]:
        best = _best(rows, lambda row: -self._turned.get(row, 0.0))
        return best, lambda kept, other: "the position that more of the copies have"

    def _least_changed(self, rows: list[int]) -> tuple[list[int], _Reason]:
        left = least_changed(list(dict.fromkeys(map(self._same, rows))), self._changes)
        best = [row for row in rows if self._same(row) in left]
        return best, lambda kept, other: "the colors that more of the copies have, and nothing laid over it"

    def _not_made_from_another(self, rows: list[int]) -> tuple[list[int], _Reason]:
        firsts = dict.fromkeys(map(self._same, rows))
        made = {row for row in firsts if self._is_made_from(row, firsts)}
        again = {row for row in rows if self._same(row) in made}
        # Nobody enlarges the camera's files, but some are soft, and smaller copies keep their metadata.
        again |= {row for row in rows if row in self._enlarged and not self._of(row).camera}
        best = [row for row in rows if row not in again]

        def why(kept: int, other: int) -> str:
            if other in self._enlarged:
                return f"as much detail: {self._looks_enlarged(other)}"
            return f"the other one is this JPEG of about quality {self._quality(self._same(kept))}, saved again"

        return best or rows, why

    def _most_tones(self, rows: list[int]) -> tuple[list[int], _Reason]:
        firsts = list(dict.fromkeys(map(self._same, rows)))
        if len(firsts) > _COMPARED:
            firsts = []
        found: dict[tuple[int, int], str] = {}
        for one, two in _chained_pairs(firsts):  # each one decodes one image, because two are kept
            found |= {(one, two): self._worse_pixels(one, two), (two, one): self._worse_pixels(two, one)}
        worse = {row: why for row in firsts for other in firsts if (why := found.get((row, other)))}
        best = [row for row in rows if self._same(row) not in worse]
        return best or rows, lambda kept, other: f"as much detail: {worse.get(self._same(other), '')}"

    def _worse_pixels(self, row: int, other: int) -> str:
        """Return what was done to an image, if its pixels were made from those of another one, or an empty text."""
        image, source = self._color(row), self._color(other)
        if image is None or source is None:
            return ""
        if lost_tones(self._tones(row), self._tones(other)):
            return "the other one has fewer colors"
        if made := filtered(image, source):
            return f"the other one is {made}"
        is_lossless = self._keeps_pixels(row) and self._keeps_pixels(other)
        return "the other one is noisy" if is_lossless and has_noise(image, source) else ""

    def _lossless(self, rows: list[int]) -> tuple[list[int], _Reason]:
        best = _best(rows, lambda row: self._keeps_pixels(self._same(row)) and not self._earlier(self._same(row)))
        return best, lambda kept, other: "as much detail, without loss"

    def _deepest(self, rows: list[int]) -> tuple[list[int], _Reason]:
        best = _best(rows, lambda row: bits_per_color(self._data(self._same(row))))
        return best, lambda kept, other: f"{bits_per_color(self._data(self._same(kept)))} bits per color"

    def _largest(self, rows: list[int]) -> tuple[list[int], _Reason]:
        best = _best(rows, lambda row: self._image(row).width * self._image(row).height)
        return best, lambda kept, other: f"the most pixels, {self._size(kept)}"

    def _highest_quality(self, rows: list[int]) -> tuple[list[int], _Reason]:
        own = {row: self._quality(self._same(row)) for row in rows}
        earlier = {row: self._earlier(self._same(row)) for row in rows}
        qualities = {row: min(filter(None, (own[row], earlier[row])), default=0) for row in rows}
        best = _best(rows, lambda row: qualities[row]) if all(qualities.values()) else rows

        def why(kept: int, other: int) -> str:
            if earlier[other] == qualities[other]:
                return f"as many pixels, the other one was a JPEG of about quality {qualities[other]} before"
            return f"as many pixels, a higher JPEG quality: about {qualities[kept]}"

        return best, why

    def _most_bytes(self, rows: list[int]) -> tuple[list[int], _Reason]:
        best = _best(rows, lambda row: self._image(row).num_bytes)
        return best, lambda kept, other: f"as many pixels, more bytes: {self._image(kept).num_bytes:,}"

    def _by_time(self, rows: list[int], *, newest: bool, tolerance_ns: int = 0) -> tuple[list[int], _Reason]:
        times = {row: _modified_ns(self._images.index.file_of(self._image(row).path)) for row in rows}
        first, last = min(times.values()), max(times.values())
        best = [row for row in rows if (last - times[row] if newest else times[row] - first) <= tolerance_ns]
        best = best if first else rows  # 0 is the time of a file that is gone
        name = "newest" if newest else "oldest"

        def why(kept: int, other: int) -> str:
            return f"the {name} file, of {datetime.fromtimestamp(times[kept] / 1e9, UTC):%Y-%m-%d %H:%M:%S} UTC"

        return best, why

    def oldest_by_far(self, rows: list[int]) -> tuple[list[int], _Reason]:
        """Leave the oldest files, unless their times are about the same."""
        return self._by_time(rows, newest=False, tolerance_ns=_SAME_TIME_NS)

    def shortest(self, rows: list[int]) -> tuple[list[int], _Reason]:
        """Leave the files with the shortest path."""
        return _best(rows, lambda row: -len(self._image(row).path)), lambda kept, other: "the shortest path"

    def _is_more_detailed(self, row: int, than: int) -> bool:
        smaller = self._gray(than)
        if smaller is None:
            return True
        # A large image that shows more when reduced does so in full as well.
        reduced = self._images.full_file(row) if _MUCH_LARGER * max(smaller.size) <= MOST_PX else None
        pixels = None if reduced is None or max(reduced.pixels.shape) != MOST_PX else reduced.pixels
        if pixels is not None and has_more_detail(Image.fromarray(pixels).convert("L"), smaller):
            return True
        gray = self._gray(row)
        return gray is None or has_more_detail(gray, smaller)

    def _is_made_from(self, row: int, others: Iterable[int]) -> bool:
        """Whether an image is one of the JPEG files that was saved again, at a higher quality or without loss."""
        quality, sources = self._quality(row), dict[bytes, JpegTable]()
        for other in others:
            table = self._table(other)
            if row == other or table is None or self._size(row) != self._size(other):
                continue
            if not quality and self._pixels(row) == self._pixels(other):
                return True
            if not quality or quality > self._quality(other):
                sources[table.steps.tobytes()] = table
        gray = self._gray(row) if sources else None
        if gray is None:
            return False
        coefficients, is_lossy = jpeg_coefficients(gray), not quality and not self._keeps_pixels(row)
        return any(
            is_saved_again(coefficients, self._table(row), source, is_lossy=is_lossy) for source in sources.values()
        )

    def _find_earlier(self, row: int) -> int:
        """Return the quality at which an image was a JPEG file before it was saved as what it is; 0 if unknown."""
        gray = self._gray(row) if self._quality(row) or self._keeps_pixels(row) else None
        found = 0 if gray is None else earlier_quality(jpeg_coefficients(gray), self._table(row)) or 0
        return 0 if self._quality(row) and found >= self._quality(row) else found

    def _pixels(self, row: int) -> bytes:
        gray = self._gray(row)
        return b"" if gray is None else hashlib.sha256(gray.tobytes()).digest()

    def _side(self, row: int) -> float:
        """Return the side of a square with as many pixels as the image."""
        return math.sqrt(max(1, self._image(row).width * self._image(row).height))

    def _size(self, row: int) -> str:
        return f"{self._image(row).width} x {self._image(row).height}"

    def _of(self, row: int) -> CameraFacts:
        return self._facts(self._same(row))

    def _same(self, row: int) -> int:
        return self._first.setdefault(self._image(row).sha256, row)

    def _read(self, row: int) -> bytes:
        try:
            return self._images.read(row)
        except (OSError, Refusal):
            return b""


def _best(rows: list[int], worth: Callable[[int], float]) -> list[int]:
    values = {row: worth(row) for row in rows}
    most = max(values.values())
    return [row for row in rows if values[row] == most]


def _chained_pairs(rows: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield each pair of rows once; each pair has a row in common with the one before it."""
    left = list(rows)
    while left:
        first, *others = left
        yield from ((first, other) for other in others)
        left = others[::-1]


def _modified_ns(path: Path) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0
