"""An existing version of the dataset: whether it is what the options ask for, and what can be appended to it.

The manifest has the stamp of each source file, such as its time of modification. A file whose stamp differs now is read
and compared by its SHA-256; other files need not be read. In datasets of earlier versions of simimg, which have no
stamps, a local file is read if it changed after the modification time of layout.json, the time when its conversion
began, and all files of a URL are read.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from tfrecords.base_errors import DataError, UsageError
from tfrecords.convert.plan.convert_config import ResolvedConfig
from tfrecords.convert.plan.split_assignment import AUTO_SPLITS
from tfrecords.convert.sources import Source, printable
from tfrecords.convert.sources.folder_layout import split_of
from tfrecords.convert.sources.linked_files import EXAMPLE, REJECTED, UNKNOWN
from tfrecords.convert.sources.read_errors import read_file
from tfrecords.convert.state.workdir import differing_options
from tfrecords.convert.workers.shard_worker import place_of
from tfrecords.format.atomic_files import parse_json
from tfrecords.format.layout import Layout
from tfrecords.format.manifest import Manifest, read_manifest
from tfrecords.format.naming import LAYOUT_FILE, MANIFEST_FILE, QUARANTINE_FILE, versions
from tfrecords.format.quarantine import Reason, Refusal
from tfrecords.format.record_layout import INT_BYTES


@dataclasses.dataclass(frozen=True, eq=False)
class PreviousVersion:
    """A finished dataset folder."""

    folder: Path
    layout: Layout
    manifest: Manifest

    def check_options(self, config: ResolvedConfig) -> None:
        """Raise UsageError if the dataset was made with other options; with `append`, there may be more categories."""
        there: dict[str, Any] = dict(self.layout.config)
        wanted = config.recorded
        if config.append:
            there["categories"] = wanted["categories"]
        if config.splits == AUTO_SPLITS and "splits" in there and "splits" in wanted:  # checked again with the source
            there["splits"] = wanted["splits"]
        differing = differing_options(there, wanted)
        if differing:
            raise UsageError(
                f"{self.folder} was made with other options: {'; '.join(differing)}. "
                "Choose another --name, or remove that folder."
            )

    def with_its_splits(self, source: Source) -> Source:
        """Return the source with the names that its splits have here: earlier versions kept `val` of a table."""
        if source.splits is None:
            return source
        there = self.layout.splits
        old = {split: name for name in there if (split := split_of(name))}
        named = {name: name if name in there else old.get(split_of(name), name) for name in set(source.splits)}
        return dataclasses.replace(source, splits=[named[name] for name in source.splits])

    def known(self, path: str) -> int:
        """Return what the dataset has under a printable path: `EXAMPLE` also for one that `simimg edit` deleted."""
        index = self._index_of.get(path)
        if index is None:
            return UNKNOWN
        return EXAMPLE if self.manifest.ok[index] or self._deleted[index] else REJECTED

    def check_source(self, source: Source) -> None:
        """Raise UsageError if the source's files are not those that the dataset was made from."""
        new = self.missing_rows(source)
        here = {printable(path) for path in source.paths}
        gone = [path for path in self.manifest.paths if path not in here]
        changed = self.changed_paths(source)
        repaired = self.changed_paths(source, refused=True)
        parts = [
            f"{len(paths):,} {what}, e.g. {paths[0]}"
            for paths, what in (
                ([printable(source.paths[row]) for row in new], "new"),
                (gone, "gone"),
                (changed, "changed"),
                (repaired, "rejected before and changed since"),
            )
            if paths
        ]
        if not parts and self.layout.source_sha256 != source.sha256():
            parts = ["their sizes or classes differ"]
        if parts:
            append = "Choose"
            if len(new) or repaired:
                append = f"Give --append to add the {'new' if len(new) else 'repaired'} ones, or choose"
            raise UsageError(
                f"{self.folder} was made from other files of {source.location}: {'; '.join(parts)}. "
                f"{append} another --name, or remove that folder."
            )

    def missing_rows(self, source: Source) -> np.ndarray:
        """Return the rows of the source whose files are not in the manifest: int64 `[num_new]`."""
        known = self._index_of
        return np.array([row for row, path in enumerate(source.paths) if printable(path) not in known], np.int64)

    def pending_rows(self, source: Source) -> np.ndarray:
        """Return the rows of the source whose files are not examples yet, because they are new or were rejected: int64
        `[n]`. Those that `simimg edit` deleted stay deleted.
        """
        known = {self.manifest.paths[index] for index in np.flatnonzero(self.manifest.ok | self._deleted)}
        return np.array([row for row, path in enumerate(source.paths) if printable(path) not in known], np.int64)

    def changed_paths(self, source: Source, *, refused: bool = False) -> list[str]:
        """Return the examples' files whose bytes have changed since they were converted; with `refused`, the rejected
        files instead.
        """
        index_of = self._index_of
        indices = np.array([index_of.get(printable(path), -1) for path in source.paths], np.int64)
        before = np.append(self.manifest.stamps, 0)[indices]
        began_ns = (self.folder / LAYOUT_FILE).stat().st_mtime_ns
        now = source.stamps
        suspects = np.where(before == 0, (now >= began_ns) | (now <= 0), now != before)
        suspects[list(source.refused)] = True  # such as a link that is broken now, which has no stamp
        changed = []
        for row in np.flatnonzero(suspects & (indices >= 0)):
            path, index = printable(source.paths[row]), indices[row]
            if bool(self.manifest.ok[index]) == refused or (refused and int(row) in source.refused):
                continue
            if self._deleted[index]:
                continue
            try:
                data = read_file(source.files, source.paths[row], place_of(source.places, int(row)))
                digest = hashlib.sha256(data).digest()
            except Refusal:
                digest = b""
            if digest != self.manifest.sha256[index].tobytes():
                changed.append(path)
        return changed

    @functools.cached_property
    def _deleted(self) -> np.ndarray:
        """Whether each file is an example that `simimg edit` deleted: bool [n]."""
        names = self.manifest.reason_names
        return self.manifest.reasons == (names.index(Reason.DELETED) if Reason.DELETED in names else len(names))

    @functools.cached_property
    def _index_of(self) -> dict[str, int]:
        return {path: index for index, path in enumerate(self.manifest.paths)}


def find_previous_version(config: ResolvedConfig) -> PreviousVersion | None:
    """Return the newest version of the dataset, or None if there is none.

    Raises DataError if it is damaged, and UsageError if it was made with other options.
    """
    folders = versions(config.data_dir, config.name)
    if not folders:
        return None
    previous = PreviousVersion(folders[-1], Layout.load(folders[-1]), read_manifest(folders[-1]))
    previous.check_options(config)
    _check_manifest(previous)
    return previous


def _check_manifest(previous: PreviousVersion) -> None:
    """Raise DataError if the manifest has numbers that cannot be continued, as in a folder that was made to do harm."""
    manifest, layout = previous.manifest, previous.layout
    labels, splits, ids = manifest.labels[manifest.ok], manifest.splits[manifest.ok], manifest.ids
    if (
        not {manifest.split_names[split] for split in np.unique(splits[splits >= 0])} <= layout.splits.keys()
        or (splits < 0).any()
        or (labels < (-1 if layout.schema.label_type == "multi" else 0)).any()
        or (labels >= len(layout.class_names)).any()
        or (ids < 0).any()
        or (ids >= 1 << 7 * INT_BYTES).any()
    ):
        raise DataError(f"{previous.folder / MANIFEST_FILE} contradicts {LAYOUT_FILE}. Run `simimg verify`.")


def select_files(config: ResolvedConfig, listed: Source, previous: PreviousVersion | None) -> Source:
    """Return the part of the source that is to be converted, according to `only` and `append`.

    Raises:
        UsageError: the options ask for files that do not exist, or the previous version was made from other files.
    """
    source = listed
    if config.only:
        names = listed_paths(config.only)
        rows = [row for row, path in enumerate(source.paths) if printable(path) in names]
        if not rows:
            raise UsageError(f"--only={config.only}: none of its {len(names)} files is in {source.location}.")
        source = source.select(np.array(rows, np.int64))
    if previous is None:
        if config.append:
            raise UsageError(
                f"--append: there is no dataset {config.name!r} in {config.data_dir} yet. Leave --append out to "
                "make it."
            )
        return source
    if not config.append:
        if config.only and len(source.paths) < len(previous.manifest):
            raise UsageError(f"{previous.folder} already exists. Add --append to convert what --only names.")
        previous.check_source(source)
        return source
    changed = previous.changed_paths(source)
    if changed:
        raise UsageError(
            f"{previous.folder}: {len(changed):,} of its files have changed since, e.g. {changed[0]}. --append adds "
            "files but does not replace any. Restore the old files, or convert all files under another --name."
        )
    return source.select(previous.pending_rows(source))


def listed_paths(path: str) -> set[str]:
    """Return the paths in a quarantine list; raise UsageError if it cannot be read, or is not such a list."""
    try:
        with open(path, encoding="utf-8") as file:
            return {str(parse_json(line)["path"]) for line in file if line.strip()}
    except OSError as error:
        raise UsageError(f"--only={path} cannot be read: {error.strerror}. Name a {QUARANTINE_FILE}.") from None
    except (ValueError, KeyError, TypeError):
        raise UsageError(
            f'--only={path} is not a quarantine list: each line should be {{"path": ...}} as JSON.'
        ) from None
