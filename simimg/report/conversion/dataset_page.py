"""The page of `simimg show`: what is in a dataset or in a part of it, and one example with all its fields."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from simimg.errors import UsageError
from simimg.report.contact_sheet import Tile, write_bytes
from simimg.report.conversion.class_counts import Counts, class_table, count_files, size_curve
from simimg.report.conversion.copy_groups import CopyGroups, copy_groups, find_groups, group_figure
from simimg.report.conversion.image_sizes import original_sizes
from simimg.report.conversion.quarantine_section import refused_files
from simimg.report.conversion.sample_images import contact_sheet
from simimg.report.html_page import data_uri, escape, figure, page, section, style_sheet, tiles
from simimg.report.number_format import count_of, shortened
from simimg.report.report_sections import facts, table
from tfrecords.format.dataset_images import DatasetImages, count_labels, label_pairs
from tfrecords.format.layout import Layout
from tfrecords.format.manifest import Manifest, read_manifest
from tfrecords.format.quarantine import read_quarantine
from tfrecords.storage.remote_dataset import local_dataset

_MAX_SAMPLES = 96  # of one class
_MAX_CONFLICTS = 24  # with images
_MAX_NAMED = 200
_TILE_PX, _EXAMPLE_PX = 160, 1024
_ENLARGED_PX = 256  # the least side at which one example is drawn


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class DatasetPart:
    """A dataset, and the part of it that was asked for.

    Attributes:
        folder: of the dataset.
        layout: of the dataset.
        manifest: all of its rows.
        rows: int64 [n], the rows that were asked for, in the order of the manifest.
        asked: what was asked for, for people; "" for everything.
        label: the label that was asked for, as a place in `layout.counted_names`; -1 for all.
        groups: the groups of copies that have an image of the part. Their other images may be outside of it.
    """

    folder: Path
    layout: Layout
    manifest: Manifest
    rows: np.ndarray
    asked: str
    label: int
    groups: CopyGroups

    @property
    def part(self) -> Manifest:
        """The rows that were asked for."""
        return self.manifest.take(self.rows)

    def counts(self) -> Counts:
        """Returns the examples by label and split; raises DataError if the dataset is damaged."""
        several = count_labels(self.folder, self.layout, self.part)
        return count_files(self.part, len(self.layout.counted_names), several)

    @property
    def conflicts(self) -> CopyGroups:
        """The groups of copies that have several labels."""
        return self.groups.select(self.groups.mixed)


def open_part(dataset_dir: Path, *, class_name: str = "", split: str = "", reason: str = "") -> DatasetPart:
    """Returns the files of one class, one split or one reason of rejection, or all of them; conditions are joined.

    Raises:
        UsageError: there is no dataset, or no such class, split or reason in it.
        DataError: it is damaged.
    """
    dataset_dir = local_dataset(dataset_dir)
    Layout.demand(dataset_dir)
    layout, manifest = Layout.load(dataset_dir), read_manifest(dataset_dir)
    keep = np.ones(len(manifest), bool)
    label = -1
    if class_name:
        label = _number("class", class_name, layout.counted_names, dataset_dir)
        keep &= manifest.labels == (label if label < len(layout.class_names) else -1)
        with_label, labels = label_pairs(dataset_dir, layout, manifest)
        keep[with_label[labels == label]] = True
    if split:
        keep &= manifest.splits == _number("split", split, manifest.split_names, dataset_dir)
    if reason:
        there = [manifest.reason_names[code] for code in np.unique(manifest.reasons[~manifest.ok]).tolist()]
        _number("reason", reason, there, dataset_dir)
        keep &= manifest.reasons == manifest.reason_names.index(reason)
    asked = ", ".join(
        f"{what} {name}" for what, name in (("class", class_name), ("split", split), ("reason", reason)) if name
    )
    rows = np.flatnonzero(keep)
    groups = find_groups(manifest)
    if layout.schema.label_type != "single":  # the manifest has one of several labels
        groups = dataclasses.replace(groups, mixed=np.zeros(len(groups), bool))
    if asked:
        groups = groups.select(groups.with_any(rows))
    return DatasetPart(
        folder=dataset_dir, layout=layout, manifest=manifest, rows=rows, asked=asked, label=label, groups=groups
    )


def row_of_id(part: DatasetPart, id: int) -> int:
    """Returns the row of the manifest that has this id; raises UsageError if there is none."""
    found = np.flatnonzero(part.manifest.ids == id)
    if not len(found):
        ids = part.manifest.ids
        raise UsageError(
            f"--id={id}: {part.folder} has no such id. Its {len(ids):,} ids are {ids.min()} to {ids.max()}; "
            "manifest.parquet lists them."
        )
    return int(found[0])


def example_fields(part: DatasetPart, row: int) -> dict[str, Any]:
    """Returns everything that is known about a file: its row of the manifest, and where and what its record is.

    Raises DataError if its record is damaged.
    """
    manifest, layout = part.manifest, part.layout
    one = next(iter(manifest.take(np.array([row]))))
    fields: dict[str, Any] = {field.name: getattr(one, field.name) for field in dataclasses.fields(one)}
    fields["phash"] = f"{one.phash:016x}"
    fields["class"] = layout.class_names[one.label] if one.label >= 0 and layout.schema.label_type != "float" else ""
    if manifest.edits:
        fields["edit"] = manifest.edits[row]
    if one.status != "ok":
        details = {file.path: file.detail for file in read_quarantine(part.folder)}
        return fields | {"detail": details.get(one.path, "")}
    others = np.flatnonzero(manifest.ok & (manifest.groups == one.copy_group))
    fields["copies"] = [int(manifest.ids[other]) for other in others.tolist() if other != row]
    images = DatasetImages(part.folder, layout, manifest)
    fields["shard_file"] = layout.splits[one.split][one.shard].file
    fields["encoding"], fields["image_size"] = layout.encoding, layout.image_size
    if layout.channels != 3:
        fields["channels"] = layout.channels
    fields["image_bytes"] = len(images.stored_bytes(row))
    if not layout.schema.is_plain:
        labels, values = images.values(row)
        if layout.schema.label_type == "multi":
            fields["classes"] = [layout.class_names[label] for label in labels]
        elif layout.schema.label_type == "float":
            fields["numbers"] = dict(zip(layout.class_names, map(_printable, labels), strict=True))
        fields["features"] = {name: _printable(value) for name, value in values.items()}
    return fields


def field_text(value: Any) -> str:
    """Returns a value of `example_fields` for people."""
    if isinstance(value, dict):
        return ", ".join(f"{name}: {field_text(inner)}" for name, inner in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def write_dataset_page(part: DatasetPart, path: Path, image_dir: str = "") -> None:
    """Writes the page of a dataset or a part of it; raises DataError if it is damaged.

    Rejected files are previewed if `image_dir`, the source of the conversion, is a local folder.
    """
    layout, manifest = part.layout, part.part
    images = DatasetImages(part.folder, layout, manifest)
    counts, names = part.counts(), layout.counted_names
    num_examples, conflicts = int(manifest.ok.sum()), part.conflicts
    several = len(names) > 1 and part.label < 0
    sizes, samples, classes = "", ("", ""), ""
    if num_examples:
        width, height = manifest.widths[manifest.ok], manifest.heights[manifest.ok]
        sizes = original_sizes(width, height, layout.image_size, str(layout.config.get("resize", "")))
        samples = contact_sheet(layout, manifest, images) if several else _samples(layout, manifest, images)
        classes = size_curve(counts) + class_table(names, counts) if several else _split_counts(manifest)
    whole = DatasetImages(part.folder, layout, part.manifest)
    others = part.groups.select(~part.groups.mixed)
    refused = {manifest.paths[row] for row in np.flatnonzero(~manifest.ok).tolist()}
    rejected = [file for file in read_quarantine(part.folder) if file.path in refused] if refused else []
    html = page(
        layout.name,
        subtitle=f"Version {layout.version}{f': {part.asked}' if part.asked else ''}",
        about=[
            f"<b>{layout.size_text.removesuffix(' px')}</b> px, {escape(layout.form_text)}",
            f"{count_of(len(part.manifest), 'file', 'files')} in the dataset" if part.asked else "",
        ],
        headline=_headline(num_examples, len(refused), len(conflicts), len(others)),
        sections=[
            section("Samples", f"<p>{samples[1]}</p>", samples[0]),
            section("Classes" if several else "Splits", "", classes),
            section("Originals", "<p>Sizes before the conversion</p>", sizes),
            _conflicts(part, whole),
            section("Near-duplicates", _grouped(others), copy_groups(others, layout, part.manifest, whole))
            if len(others)
            else "",
            section(
                "Rejected", f"<p>{count_of(len(rejected), 'file', 'files')}</p>", refused_files(rejected, image_dir)
            ),
            section("Edits", "", _edits(manifest)),
        ],
        style=style_sheet("simimg.report.conversion", "conversion.css"),
    )
    write_bytes(path, html)


def write_example_page(part: DatasetPart, row: int, path: Path) -> None:
    """Writes the page of one file: its stored image, all its fields, and its copies; raises DataError."""
    layout, manifest = part.layout, part.manifest
    fields, images = example_fields(part, row), DatasetImages(part.folder, layout, manifest)
    shown = ""
    if manifest.ok[row]:
        image = images.image(row)
        scale = -(-_ENLARGED_PX // image.width) if image.width < _ENLARGED_PX else 1
        enlarged = image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
        uri = data_uri(enlarged, _EXAMPLE_PX, exact=True)
        side = min(enlarged.width, 512)
        high = round(side * enlarged.height / enlarged.width)
        shown = f'<img src="{uri}" alt="{escape(manifest.paths[row])}" width="{side}" height="{high}">'
        if scale > 1:
            shown += f'<p class="quiet">The stored pixels, drawn {scale} times as large.</p>'
    among = [np.flatnonzero(manifest.ids == id)[0] for id in fields.get("copies", [])[:_MAX_SAMPLES]]
    texts = {name: field_text(value) for name, value in fields.items()}
    html = page(
        shortened(manifest.paths[row], 60),
        subtitle=f"id {manifest.ids[row]} of {layout.name} {layout.version}",
        sections=[
            section("Image", "", shown or "<p>None: the file was rejected.</p>"),
            section("Fields", "<p>As in manifest.parquet and in its record</p>", table(texts)),
            section("Copies", "", tiles(_tiles(among, layout, manifest, images), max_px=_TILE_PX) if among else ""),
        ],
        style=style_sheet("simimg.report.conversion", "conversion.css"),
    )
    write_bytes(path, html)


def _printable(value: Any) -> Any:
    """Returns a value of a record as JSON can have it: bytes and NaN as a text."""
    if isinstance(value, list):
        return [_printable(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else value


def _number(what: str, name: str, names: Sequence[str], folder: Path) -> int:
    if name in names:
        return list(names).index(name)
    near = difflib.get_close_matches(name, names, n=1)
    has = ", ".join(names[:10]) + (f" and {len(names) - 10:,} more" if len(names) > 10 else "")
    hint = f"Did you mean {near[0]!r}?" if near else f"It has: {has}." if names else "No file of it was rejected."
    raise UsageError(f"--{what}={name}: {folder} has no such {what}. {hint}")


def _headline(num_examples: int, num_refused: int, num_conflicts: int, num_groups: int) -> str:
    what = "example" if num_examples == 1 else "examples"
    return (
        f'<div class="first"><p class="number">{num_examples:,}</p><p>{what}</p></div>'
        + figure(f"{num_refused:,}", "file rejected" if num_refused == 1 else "files rejected")
        + figure(f"{num_conflicts:,}", "label conflict" if num_conflicts == 1 else "label conflicts")
        + figure(f"{num_groups:,}", "group of near-duplicates" if num_groups == 1 else "groups of near-duplicates")
    )


def _samples(layout: Layout, manifest: Manifest, images: DatasetImages) -> tuple[str, str]:
    """Returns examples of one class with their ids, spread evenly over the manifest, and what they are."""
    rows = np.flatnonzero(manifest.ok)
    chosen = rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), _MAX_SAMPLES)).round().astype(int))]
    shown = tiles(_tiles(chosen.tolist(), layout, manifest, images), max_px=_TILE_PX)
    return shown, f"{len(chosen):,} of {len(rows):,}" if len(chosen) < len(rows) else "All of them"


def _tiles(rows: Iterable[int], layout: Layout, manifest: Manifest, images: DatasetImages) -> list[Tile]:
    return [
        Tile(
            images.image(row),
            manifest.paths[row],
            f"id {manifest.ids[row]}, {manifest.split_names[manifest.splits[row]]}, {_labels(layout, images, row)}",
        )
        for row in rows
    ]


def _labels(layout: Layout, images: DatasetImages, row: int) -> str:
    """Returns the labels of an example, shortened."""
    labels = images.values(row)[0]
    if layout.schema.label_type == "float":
        return shortened(", ".join(f"{label:g}" for label in labels), 32)
    names = [layout.class_names[label] for label in labels] or [layout.counted_names[-1]]
    return shortened(", ".join(names), 32)


def _split_counts(manifest: Manifest) -> str:
    counts = np.bincount(manifest.splits[manifest.ok], minlength=len(manifest.split_names)).tolist()
    return facts({name: f"{count:,}" for name, count in zip(manifest.split_names, counts, strict=True) if count})


def _grouped(groups: CopyGroups) -> str:
    return f"<p>{count_of(len(groups), 'group', 'groups')} with {len(groups.members):,} images</p>"


def _conflicts(part: DatasetPart, images: DatasetImages) -> str:
    groups = part.conflicts
    if not len(groups):
        return ""
    shown = "".join(
        group_figure(groups, number, part.layout, part.manifest, images)
        for number in range(min(len(groups), _MAX_CONFLICTS))
    )
    why = "One image under several labels, of which one may be wrong; or images that were wrongly taken for copies."
    about = f'<p class="quiet">{why} <code>simimg edit --relabel</code> and <code>--delete</code> settle them.</p>'
    rest = [
        f"<li>{escape(', '.join(shortened(part.manifest.paths[row], 60) for row in groups.rows(number)[:6]))}</li>"
        for number in range(_MAX_CONFLICTS, min(len(groups), _MAX_CONFLICTS + _MAX_NAMED))
    ]
    more = len(groups) - _MAX_CONFLICTS - len(rest)
    rest += [f"<li>and {more:,} more</li>"] if more > 0 else []
    named = f'<h3>By name only</h3><ul class="named">{"".join(rest)}</ul>' if rest else ""
    return section("Label conflicts", _grouped(groups), f'{about}<div class="groups">{shown}</div>{named}')


def _edits(manifest: Manifest) -> str:
    """Returns the edited files with what was changed, as HTML."""
    rows = [row for row, text in enumerate(manifest.edits) if text]
    items = [
        f"<li><b>{escape(manifest.paths[row])}</b> {escape(manifest.edits[row])}</li>" for row in rows[:_MAX_NAMED]
    ]
    items += [f"<li>and {len(rows) - _MAX_NAMED:,} more</li>"] if len(rows) > _MAX_NAMED else []
    return f'<ul class="named">{"".join(items)}</ul>' if items else ""
