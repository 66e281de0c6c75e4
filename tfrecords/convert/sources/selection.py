"""Which files and folders of a source are looked at: not those of systems, and those that --include and --exclude name.

--exclude_from names files one by one, see `tfrecords.convert.sources.excluded_paths`.

A pattern is about paths relative to the source, with "/" as the separator on every system:

    *.gif          every file or folder of such a name, at any depth
    cat/*.gif      those in the folder cat
    **/old/*.gif   those in any folder old; `**` stands for any number of folders
    cat/           the folder cat, at any depth, with all that is in it
    /cat           cat at the top only

Paths in an archive may be written with or without the folders around all of its classes. `*`, `?`, `[abc]` and `[!abc]`
do not match "/". What matches a folder stands for everything in it. Case matters, the Unicode form (NFC, NFD) does not.
With --include, only what matches one of its patterns is taken, and --exclude wins over it. A pattern of --include that
has the name of a system folder, such as `@eaDir/**`, also takes that folder.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

from tfrecords.base_errors import UsageError
from tfrecords.convert.sources.excluded_paths import ExcludedPaths

INCLUDE_HELP = (
    "Take only files that match the pattern or lie in a folder that does, such as 'cat/*.jpg' or '**/small/'; may be "
    "given several times."
)
EXCLUDE_HELP = "Leave out files and folders that match, such as '*.gif' or 'old/'; may be given several times."

# By desktops, Synology and QNAP stations, Windows, macOS, file systems and snapshots. In lower case.
_SYSTEM_NAMES = frozenset(
    "@eadir @recently-snapshot @recycle @sharebin @sharesnap @snapshot @tmp #recycle #snapshot ~snapshot $recycle.bin "
    "recycler found.000 lost+found __macosx __pycache__ _gsdata_ node_modules zbthumbnail.info thumbs.db ehthumbs.db "
    "ehthumbs_vista.db desktop.ini picasa.ini icon\r".split(" ")
) | {"system volume information", "temporary items", "network trash folder"}
_NAMES_SHOWN = 6


def is_ignored(name: str) -> bool:
    """Return whether a file or folder of this name is hidden (a leading dot) or was made by a system."""
    return name.startswith(".") or name.lower() in _SYSTEM_NAMES


class Selection:
    """Decides about the files of a source, and counts what it leaves out for `notes`.

    `exclude_from` is a list of paths to leave out, of which some may be absolute paths in the folder `base`. Raises
    UsageError if the list cannot be read, or a pattern is empty or has a set of characters that cannot be.

    Attributes:
        top: the folders, with their slashes, that were taken off the front of all paths; a pattern is compared with a
            path in both forms. Files beside them have paths that begin with "../".
    """

    def __init__(
        self, include: Sequence[str] = (), exclude: Sequence[str] = (), exclude_from: str = "", base: str = ""
    ) -> None:
        self.has_patterns = bool(include or exclude or exclude_from)
        self.top = ""
        self._include = [(pattern, _regex(pattern, "--include")) for pattern in include]
        self._exclude = [(pattern, _regex(pattern, "--exclude")) for pattern in exclude]
        self._named = {part for pattern in include for part in pattern.split("/") if is_ignored(part)}
        self._ignored: Counter[str] = Counter()
        self._excluded: Counter[str] = Counter()
        self._included: Counter[str] = Counter()
        self._not_included = 0
        self._listed = ExcludedPaths(exclude_from, base) if exclude_from else None

    def skips(self, name: str) -> bool:
        """Return whether a file or folder is left out because of its name alone."""
        if not is_ignored(name) or name in self._named:
            return False
        self._ignored["._*" if name.startswith("._") else name] += 1
        return True

    def enters(self, folder: str) -> bool:
        """Return whether a folder, by its path, may have files that are taken."""
        return not self._exclude or self._first_match(self._exclude, self._excluded, f"{folder}/") is None

    def takes(self, path: str, counted: bool = True) -> bool:
        """Return whether a file is taken, by its path; unless `counted`, the notes do not tell of it."""
        if not self.has_patterns:
            return True
        excluded, included = (self._excluded, self._included) if counted else (Counter[str](), Counter[str]())
        if self._first_match(self._exclude, excluded, path) is not None:
            return False
        if self._listed is not None and self._listed.has(filter(None, (path, self._whole(path))), counted):
            return False
        if not self._include or self._first_match(self._include, included, path) is not None:
            return True
        self._not_included += counted
        return False

    def notes(self) -> list[str]:
        """Return what was left out and why, a line for each flag; and patterns that matched nothing."""
        notes = []
        if self._ignored:
            count = self._ignored.total()
            names = [f"{name.strip()} ({number:,})" for name, number in self._ignored.most_common(_NAMES_SHOWN)]
            more = f" and {len(self._ignored) - _NAMES_SHOWN} other names" if len(self._ignored) > _NAMES_SHOWN else ""
            what = "hidden or system file or folder is" if count == 1 else "hidden or system files and folders are"
            notes.append(f"{count:,} {what} left out: {', '.join(names)}{more}")
        if self._excluded:
            count = self._excluded.total()
            notes.append(
                f"{count:,} {'file or folder is' if count == 1 else 'files or folders are'} left out by --exclude"
            )
        if self._not_included:
            count = self._not_included
            notes.append(f"{count:,} {'file is' if count == 1 else 'files are'} left out: no --include matches")
        notes += self._listed.notes(self._is_excluded) if self._listed else []
        for flag, patterns, counts in (
            ("--include", self._include, self._included),
            ("--exclude", self._exclude, self._excluded),
        ):
            notes += [f"{flag}={pattern} matches nothing" for pattern, _ in patterns if not counts[pattern]]
        return notes

    def why_none(self) -> str:
        """Return what to know if no file is left, as sentences to put at the end of an error; "" if nothing was left
        out.
        """
        notes = "; ".join(self.notes())
        left_out = self._excluded or self._not_included or (self._listed and self._listed.num_files)
        if not left_out:
            return f" {notes}." if notes else ""
        given = {"--include": self._include, "--exclude": self._exclude, "--exclude_from": self._listed}
        flags = [flag for flag, value in given.items() if value]
        return f" {notes}. Change {' or '.join(flags)}."

    def _is_excluded(self, path: str) -> bool:
        return self._first_match(self._exclude, Counter(), path) is not None

    def _whole(self, path: str) -> str:
        """Return a path with the folders that were taken off its front, or "" if there are none."""
        if not self.top:
            return ""
        return path[3:] if path.startswith("../") else _composed(self.top + path)

    def _first_match(self, patterns: list[tuple[str, re.Pattern[str]]], counts: Counter[str], path: str) -> str | None:
        path = _composed(path)
        whole = self._whole(path)
        for pattern, regex in patterns:
            if regex.fullmatch(path) or (whole and regex.fullmatch(whole)):
                counts[pattern] += 1
                return pattern
        return None


def check_patterns(include: Sequence[str], exclude: Sequence[str]) -> None:
    """Raise UsageError if a pattern is empty or has a set of characters that cannot be."""
    Selection(include, exclude)


def _regex(pattern: str, flag: str) -> re.Pattern[str]:
    """Return the expression of a pattern. Of paths, that of a folder ends with "/"."""
    body = pattern.strip("/")
    if not body:
        raise UsageError(f"{flag}={pattern}: a pattern should name files or folders, e.g. {flag}='*.gif'.")
    anchored = pattern.startswith("/") or "/" in body
    parts = []
    for part in _composed(body).split("/"):
        try:
            parts.append("(?:[^/]+/)*" if part == "**" else _part(part) + "/")
        except ValueError as error:
            raise UsageError(
                f"{flag}={pattern}: {error}. Write a range in ascending order, such as [a-z], and [[] for a bracket."
            ) from None
    whole = "".join(parts)
    if not whole.endswith("(?:[^/]+/)*"):  # the last part is a file, or a folder with all that is in it
        whole = whole.removesuffix("/") + ("/.*" if pattern.endswith("/") else "(?:/.*)?")
    else:
        whole = whole.removesuffix("(?:[^/]+/)*") + ".+"
    return re.compile(("" if anchored else "(?:[^/]+/)*") + whole, re.DOTALL)


def _part(part: str) -> str:
    """Return the expression of a part of a pattern between slashes; raise ValueError for a set that cannot be."""
    expression = ""
    at = 0
    while at < len(part):
        is_not = part[at] == "[" and part[at + 1 : at + 2] in ("!", "^")
        end = part.find("]", at + 2 + is_not) if part[at] == "[" else -1
        if is_not and end < 0 and part[at + 2 : at + 3] == "]":
            raise ValueError(f"the set {part[at : at + 3]} has no characters")
        if part[at] == "*":
            expression += "[^/]*"
        elif part[at] == "?":
            expression += "[^/]"
        elif end > 0:
            expression += f"(?!/)[{'^' if is_not else ''}{_set(part[at + 1 + is_not : end])}]"
            at = end
        else:
            expression += re.escape(part[at])
        at += 1
    return expression


def _set(characters: str) -> str:
    """Return the expression of the characters and ranges between brackets."""
    expression = ""
    at = 0
    while at < len(characters):
        first, last = characters[at], characters[at + 2 : at + 3]
        if last and characters[at + 1] == "-":
            if first > last:
                raise ValueError(f"the range {first}-{last} has no characters")
            expression += f"{re.escape(first)}-{re.escape(last)}"
            at += 3
        else:
            expression += re.escape(first)
            at += 1
    return expression


def _composed(text: str) -> str:
    return text if text.isascii() else unicodedata.normalize("NFC", text)
