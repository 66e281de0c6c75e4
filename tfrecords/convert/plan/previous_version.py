"""A data set that is there already: whether it is what was asked for, and what could be added to it.

layout.json has the time at which its conversion began as the time of its last change. A source file that was touched
since is read and compared by its SHA-256; the others need not be.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from tfrecords.base_errors import UsageError
from tfrecords.convert.plan.convert_config import ConvertConfig
from tfrecords.convert.sources import Source, printable
from tfrecords.convert.state.workdir import differing_options
from tfrecords.convert.workers.shard_worker import place_of
from tfrecords.format.layout import LAYOUT_FILE, Layout
from tfrecords.format.manifest import Manifest, read_manifest
from tfrecords.format.naming import versions
from tfrecords.format.quarantine import Refusal

__all__ = ["PreviousVersion", "find_previous_version", "listed_paths"]


@dataclasses.dataclass(frozen=True, eq=False)
class PreviousVersion:
    """A finished data set folder."""

    folder: Path
    layout: Layout
    manifest: Manifest

    def check_options(self, config: ConvertConfig) -> None:
        """Raises UsageError if the data set was made with other options; more categories may be appended."""
        there: dict[str, Any] = dict(self.layout.config)
        wanted = config.determining()
        if config.append:
            there["categories"] = wanted["categories"]
        differing = differing_options(there, wanted)
        if differing:
            raise UsageError(
                f"{self.folder} was made otherwise: {'; '.join(differing)}. "
                "Choose another --name, or remove that folder."
            )

    def check_source(self, source: Source) -> None:
        """Raises UsageError if the source's files are not those that the data set was made from."""
        new = self.missing_rows(source)
        here = {printable(path) for path in source.paths}
        gone = [path for path in self.manifest.paths if path not in here]
        changed = self.changed_paths(source)
        mended = self.changed_paths(source, refused=True)
        parts = [
            f"{len(paths):,} {what}, e.g. {paths[0]}"
            for paths, what in (
                ([printable(source.paths[row]) for row in new], "new"),
                (gone, "gone"),
                (changed, "changed"),
                (mended, "refused then and changed since"),
            )
            if paths
        ]
        if not parts and self.layout.source_sha256 != source.sha256():
            parts = ["their sizes or classes are not the same"]
        if parts:
            append = "Choose"
            if len(new) or mended:
                append = f"Give --append to add the {'new' if len(new) else 'mended'} ones; or choose"
            raise UsageError(
                f"{self.folder} was made from other files of {source.location}: {'; '.join(parts)}. "
                f"{append} another --name, or remove that folder."
            )

    def missing_rows(self, source: Source) -> np.ndarray:
        """Returns the rows of the source whose files the manifest does not have: int64 `[num_new]`."""
        known = set(self.manifest.paths)
        return np.array([row for row, path in enumerate(source.paths) if printable(path) not in known], np.int64)

    def pending_rows(self, source: Source) -> np.ndarray:
        """Returns the rows of the source whose files are no examples yet, new or refused earlier: int64 `[n]`."""
        examples = {self.manifest.paths[index] for index in np.flatnonzero(self.manifest.ok)}
        return np.array([row for row, path in enumerate(source.paths) if printable(path) not in examples], np.int64)

    def changed_paths(self, source: Source, *, refused: bool = False) -> list[str]:
        """Returns the examples' files whose bytes are not those that were converted; or the refused ones' likewise."""
        began_ns = (self.folder / LAYOUT_FILE).stat().st_mtime_ns
        suspects = source.stamps >= began_ns
        suspects[list(source.refused)] = True  # such as a link that leads nowhere now, which has no stamp
        touched = np.flatnonzero(suspects)
        if not len(touched):
            return []
        index_of = {path: index for index, path in enumerate(self.manifest.paths)}
        changed = []
        for row in touched:
            path = printable(source.paths[row])
            index = index_of.get(path)
            if index is None or bool(self.manifest.ok[index]) == refused or (refused and int(row) in source.refused):
                continue
            try:
                data = source.files.read(source.paths[row], place_of(source.places, int(row)))
                digest = hashlib.sha256(data).digest()
            except Refusal:
                digest = b""
            if digest != self.manifest.sha256[index].tobytes():
                changed.append(path)
        return changed


def find_previous_version(data_dir: Path, name: str) -> PreviousVersion | None:
    """Returns the newest version of a data set, None where there is none."""
    folders = versions(data_dir, name)
    if not folders:
        return None
    folder = folders[-1]
    return PreviousVersion(folder, Layout.load(folder), read_manifest(folder))


def listed_paths(path: str) -> set[str]:
    """Returns the paths that a quarantine list names.

    Raises:
        UsageError: it cannot be read, or is no such list.
    """
    try:
        with open(path, encoding="utf-8") as file:
            return {str(json.loads(line)["path"]) for line in file if line.strip()}
    except OSError as error:
        raise UsageError(f"--only={path} cannot be read: {error.strerror}. Name a quarantine.jsonl.") from None
    except (ValueError, KeyError, TypeError):
        raise UsageError(
            f'--only={os.fspath(path)} is no quarantine list: each line should be {{"path": ...}} as JSON.'
        ) from None
