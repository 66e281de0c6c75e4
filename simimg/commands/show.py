"""Show what is in a dataset, as a page or by id.

Writes a page (HTML): how many examples of each class and split, samples of each class, the sizes of the originals,
images that have several labels, groups of near-duplicates, and rejected files. --class, --split and --reason show only
a part. --id shows one example: its image and all its fields.

Example: simimg show data/photos/1.0.0 --class=fishes
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from simimg.commands.console import Result
from simimg.errors import UsageError
from simimg.report.conversion import summary_table
from simimg.report.conversion.dataset_page import (
    DatasetPart,
    example_fields,
    field_text,
    open_part,
    row_of_id,
    write_dataset_page,
    write_example_page,
)
from tfrecords.format.dataset_images import count_labels
from tfrecords.format.manifest import Manifest
from tfrecords.locations import location_text
from tfrecords.options import option
from tfrecords.storage.object_cache import CacheOptions

JSON_KEYS = (
    "dataset_dir page name version num_examples splits classes num_refused reasons label_conflicts num_groups example"
)
_NO_ID = -1
_MAX_LISTED = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(CacheOptions):
    """Options of `show`."""

    dataset_dirs: tuple[str, ...] = option(
        "Dataset folder or URL, DATA_DIR/NAME/VERSION.", (), positional=True, url=True
    )
    dataset_dir: Path | None = option("The same as a flag.", None, url=True)
    class_name: str = option("Only this class.", "", flag="class")
    split: str = option("Only this split.", "")
    reason: str = option("Only files that were rejected for this reason, such as corrupt or deleted.", "")
    id: int = option("Only this example, with all its fields.", _NO_ID, words={"none": _NO_ID})
    image_dir: str = option("Folder that was converted, to preview rejected files.", "")
    page: Path | None = option(
        "File of the page; by default NAME-VERSION.html in the current folder.", None, output=True
    )

    def folder(self) -> Path:
        """Return the one dataset folder that was named; raise UsageError if there is none, or several."""
        named = [*map(Path, self.dataset_dirs), *([] if self.dataset_dir is None else [self.dataset_dir])]
        if len(named) != 1:
            raise UsageError(f"name one dataset folder, DATA_DIR/NAME/VERSION. Received: {len(named)}.")
        return named[0].expanduser()


def run(options: Options) -> Result:
    """Write the page, and describe what is on it."""
    folder = options.folder()
    if options.id != _NO_ID and (options.class_name or options.split or options.reason):
        raise UsageError(f"--id={options.id} shows one example: leave out --class, --split and --reason.")
    part = open_part(folder, class_name=options.class_name, split=options.split, reason=options.reason)
    name = f"{part.layout.name}-{part.layout.version}"
    if options.id != _NO_ID:
        row = row_of_id(part, options.id)
        path = options.page or Path(f"{name}-{options.id}.html")
        write_example_page(part, row, path)
        fields = example_fields(part, row)
        width = max(map(len, fields))
        lines = [f"{key:<{width}}  {field_text(value)}" for key, value in fields.items() if value != {}]
        return Result(
            values=_values(part, folder, path) | {"example": fields}, text="\n".join((*lines, "", f"page: {path}"))
        )
    path = options.page or Path(f"{name}.html")
    write_dataset_page(part, path, options.image_dir)
    return Result(values=_values(part, folder, path), text=_text(part, path))


def _values(part: DatasetPart, folder: Path, path: Path) -> dict[str, Any]:
    manifest, names = part.part, part.layout.counted_names
    ok = manifest.ok
    by_label = part.counts().sizes.tolist()
    by_reason = np.bincount(manifest.reasons[~ok], minlength=len(manifest.reason_names)).tolist()
    conflicts = part.conflicts
    whole = part.manifest
    return {
        "dataset_dir": location_text(folder),
        "page": str(path),
        "name": part.layout.name,
        "version": part.layout.version,
        "num_examples": int(ok.sum()),
        "splits": _by_split(manifest),
        "classes": {
            name: count
            for label, (name, count) in enumerate(zip(names, by_label, strict=True))
            if part.label in (-1, label)
        },
        "num_refused": int((~ok).sum()),
        "reasons": {name: count for name, count in zip(manifest.reason_names, by_reason, strict=True) if count},
        "label_conflicts": [
            {
                "ids": [int(whole.ids[row]) for row in conflicts.rows(number)],
                "paths": [whole.paths[row] for row in conflicts.rows(number)],
                "classes": [names[whole.labels[row]] for row in conflicts.rows(number)],
            }
            for number in range(len(conflicts))
        ],
        "num_groups": len(part.groups),
        "example": None,
    }


def _by_split(manifest: Manifest) -> dict[str, int]:
    counts = np.bincount(manifest.splits[manifest.ok], minlength=len(manifest.split_names)).tolist()
    return {name: count for name, count in zip(manifest.split_names, counts, strict=True) if count}


def _text(part: DatasetPart, path: Path) -> str:
    manifest, conflicts = part.part, part.conflicts
    lines = [f"{part.layout.name} {part.layout.version}{f', {part.asked}' if part.asked else ''}", ""]
    if manifest.ok.any() and part.label >= 0:
        splits = ", ".join(f"{count:,} {name}" for name, count in _by_split(manifest).items())
        lines.append(f"{int(manifest.ok.sum()):,} examples ({splits})")
    elif manifest.ok.any():
        several = count_labels(part.folder, part.layout, manifest)
        lines += [summary_table(manifest, part.layout.counted_names, several), ""]
    refused = np.flatnonzero(~manifest.ok)
    for row in refused[:_MAX_LISTED].tolist():
        lines.append(f"rejected ({manifest.reason_names[manifest.reasons[row]]}): {manifest.paths[row]}")
    if len(refused) > _MAX_LISTED:
        lines.append(f"and {len(refused) - _MAX_LISTED:,} more rejected files")
    if not len(manifest):
        lines.append("no file")
    if len(conflicts):
        first = ", ".join(part.manifest.paths[row] for row in conflicts.rows(0)[:4])
        lines.append(f"images with several labels: {len(conflicts):,}, e.g. {first}")
    if len(part.groups):
        lines.append(f"groups of copies: {len(part.groups):,} with {len(part.groups.members):,} images")
    return "\n".join((*lines, f"page: {path}"))
