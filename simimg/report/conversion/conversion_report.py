"""report.html of a dataset: the result of a conversion, as one HTML file that needs only a browser.

It depends on the dataset folder alone and, for the previews of rejected files, on the originals. It contains no time,
no duration and no path of the machine, so the same dataset has a byte-identical report. The file ends with a line

    <!-- sha256 HEX -->

whose HEX is the SHA-256 of all bytes before that line, so that `simimg verify` notices a changed report.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from simimg.report.contact_sheet import write_bytes
from simimg.report.conversion.class_counts import (
    Counts,
    bar,
    class_table,
    count_files,
    size_curve,
    split_color,
    unsplit_classes,
)  # fmt: skip
from simimg.report.conversion.copy_groups import CopyGroups, copy_groups, find_groups
from simimg.report.conversion.image_sizes import original_sizes
from simimg.report.conversion.quarantine_section import refused_files
from simimg.report.conversion.sample_images import contact_sheet
from simimg.report.html_page import command, escape, figure, page, section, style_sheet
from simimg.report.number_format import count_of, percent, storage
from simimg.report.report_sections import option_tables
from tfrecords.convert.output.split_shares import split_shares
from tfrecords.convert.plan.convert_config import ConvertConfig
from tfrecords.convert.plan.split_assignment import SOURCE_SPLITS
from tfrecords.format.dataset_images import DatasetImages, count_classes, count_labels
from tfrecords.format.layout import Layout
from tfrecords.format.manifest import Manifest, read_manifest
from tfrecords.format.naming import REPORT_FILE, VERSION
from tfrecords.format.quarantine import read_quarantine

_ORIGINALS = "PHOTOS"  # stands for the source in the command
_ALWAYS = ("name", "image_size", "seed")  # in the command even with their defaults, as what people look for first


def write_conversion_report(dataset_dir: Path, image_dir: str) -> Path:
    """Writes `report.html` into a finished dataset folder, and returns its path; it is there only when it is complete.

    Rejected files are previewed where the source of the conversion, `image_dir`, is a local folder.

    Raises:
        DataError: the dataset is damaged.
        OSError: the report cannot be written.
    """
    layout, manifest = Layout.load(dataset_dir), read_manifest(dataset_dir)
    images = DatasetImages(dataset_dir, layout, manifest)
    several = count_labels(dataset_dir, layout, manifest)
    counts, groups = count_files(manifest, len(layout.counted_names), several), find_groups(manifest)
    shards = [info for infos in layout.splits.values() for info in infos]
    sheet, how = contact_sheet(layout, manifest, images)
    width, height = manifest.widths[manifest.ok], manifest.heights[manifest.ok]
    sizes = original_sizes(width, height, layout.image_size, str(layout.config.get("resize", "")))
    html = page(
        layout.name,
        subtitle="The result of the conversion",
        about=[
            f"<b>{layout.size_text.removesuffix(' px')}</b> px, {escape(layout.form_text)}",
            f"<b>{count_of(len(shards), 'shard', 'shards')}</b>, {storage(sum(info.num_bytes for info in shards))}",
            f"version <b>{escape(layout.version)}</b>",
        ],
        headline=_headline(layout, counts, groups),
        sections=[
            section("Contact sheet", f"<p>{how}</p>", sheet),
            _classes(layout, counts),
            *_shares(dataset_dir, layout, manifest),
            section("Originals", "<p>Sizes before the conversion</p>", sizes),
            _refused(dataset_dir, counts, image_dir),
            _copies(groups, layout, manifest, images),
            section("How it was made", "", _provenance(layout, any(manifest.edits))),
        ],
        style=style_sheet("simimg.report.conversion", "conversion.css"),
    )
    path = dataset_dir / REPORT_FILE
    write_bytes(path, html + f"<!-- sha256 {hashlib.sha256(html).hexdigest()} -->\n".encode())
    return path


def command_line(layout: Layout) -> str:
    """Returns the shell command that makes the dataset again, with the options that are not the defaults."""
    given = {key: layout.config[key] for key in layout.config if key in _ALWAYS or key in _changed(layout)}
    words = ["simimg", "convert", *([] if "from" in layout.config else [f"--image_dir={_ORIGINALS}"])]
    words += [f"--{key}={shlex.quote(_option_text(value))}" for key, value in given.items()]
    return " ".join(words)


def _changed(layout: Layout) -> dict[str, Any]:
    """The options that differ from their defaults, which may depend on the image size."""
    config = layout.config
    known: dict[str, Any] = {key: config[key] for key in ("name", "image_size", "resize") if key in config}
    defaults = ConvertConfig(image_dir=_ORIGINALS, **known).resolved().determining()
    usual = ConvertConfig(image_dir=_ORIGINALS)
    ordinary = defaults | {"image_size": usual.image_size, "resize": usual.resize}
    return {key: value for key, value in config.items() if value != ordinary.get(key)}


def _provenance(layout: Layout, edits: bool) -> str:
    """The command that makes the dataset again, its options, and everything else that its bytes depend on. `edits` says
    whether it was edited.
    """
    shards = {
        split: f"{count_of(len(infos), 'shard', 'shards')}, {storage(sum(info.num_bytes for info in infos))}"
        for split, infos in layout.splits.items()
    }
    stands = f"<code>{_ORIGINALS}</code> stands for the originals."
    if "from" in layout.config:
        stands = "The images are those of this dataset, as they were stored; name its folder."
    later = "" if layout.version == VERSION else " Some of them were added later, with <code>--append</code>."
    if edits:
        later = " It was edited since; the column <code>edit</code> of manifest.parquet says how."
    digest = {"SHA-256 of the names, classes and sizes of the files": layout.source_sha256}
    return (
        f"{command(command_line(layout))}"
        f'<p class="quiet">{stands}{later}</p>'
        f"{option_tables(layout.config, _changed(layout), _values)}"
        f"<h3>Shards</h3>{_values(shards)}<h3>Source</h3>{_values(digest)}"
        f"<h3>Versions of the libraries</h3>{_values(layout.versions)}"
    )


def _values(values: Mapping[str, Any]) -> str:
    items = "".join(
        f"<div><dt>{escape(key)}</dt><dd>{escape(_option_text(value)) or '–'}</dd></div>"
        for key, value in values.items()
    )
    return f'<dl class="values">{items}</dl>'


def _option_text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _headline(layout: Layout, counts: Counts, groups: CopyGroups) -> str:
    by_split = counts.by_split.tolist()
    num_examples, num_refused = sum(by_split), counts.num_refused
    legend = [
        f'<span><i class="{split_color(number)}"></i>{num:,} {escape(split)}, {percent(num / num_examples)}</span>'
        for number, (split, num) in enumerate(zip(counts.splits, by_split, strict=True))
    ]
    if num_refused:
        legend.append(f'<span><i class="refused"></i>{num_refused:,} rejected</span>')
    what = "example" if num_examples == 1 else "examples"
    of = f" of {num_examples + num_refused:,} files" if num_refused else ""
    figures = [
        figure(f"{len(layout.class_names):,}", _classes_or_numbers(layout)),
        figure(f"{num_refused:,}", "file rejected" if num_refused == 1 else "files rejected"),
    ]
    if layout.config.get("copies") != "ignore":
        figures.append(figure(f"{len(groups.members):,}", "images that have copies"))
    return (
        f'<div class="first"><p class="number">{num_examples:,}</p><p>{what}{of}</p></div>{"".join(figures)}'
        f'<div class="share">{bar([*by_split, num_refused], num_examples + num_refused)}'
        f'<p class="legend">{"".join(legend)}</p></div>'
    )


def _classes_or_numbers(layout: Layout) -> str:
    several = len(layout.class_names) > 1
    if layout.schema.label_type == "float":
        return "numbers per image" if several else "number per image"
    return "classes" if several else "class"


def _classes(layout: Layout, counts: Counts) -> str:
    facts = [f"{len(layout.class_names):,} {_classes_or_numbers(layout)}"]
    if len(layout.counted_names) > 1:
        few, many = int(counts.sizes.min()), int(counts.sizes.max())
        facts.append(f"{few:,} examples each" if few == many else f"{few:,} to {many:,} examples each")
    num_unsplit, dealt = len(counts.unsplit()), layout.config.get("splits") != SOURCE_SPLITS
    what = "too small to be split" if dealt else "not in every split"
    warning = f'<p><span class="warn">{num_unsplit:,} {what}</span></p>' if num_unsplit else ""
    tables = class_table(layout.counted_names, counts) + unsplit_classes(layout.counted_names, counts, dealt=dealt)
    return section("Classes", "".join(f"<p>{fact}</p>" for fact in facts) + warning, size_curve(counts) + tables)


def _shares(dataset_dir: Path, layout: Layout, manifest: Manifest) -> list[str]:
    """How far the shares of the splits are off, where they were divided by groups or by time, or are folds."""
    shares = split_shares(layout, manifest, count_classes(dataset_dir, layout, manifest))
    if shares is None:
        return []
    rows = "".join(
        f'<tr><td>{escape(name)}</td><td class="num">{asked:.1%}</td><td class="num">{shares.found[name]:.1%}</td>'
        f'<td class="num">{100 * (shares.found[name] - asked):+.1f}</td></tr>'
        for name, asked in shares.asked.items()
    )
    head = "".join(f'<th class="num">{name}</th>' for name in ("asked", "found", "points off"))
    facts = [f"By <code>{escape(shares.by)}</code>"]
    if shares.num_groups:
        facts.append(f"{shares.num_groups:,} groups, none divided; the largest has {shares.largest:,} images")
    if shares.in_class is not None:
        name, split, share = shares.in_class
        facts.append(f"Farthest off within a class: {escape(name)}, {share:.1%} in {escape(split)}")
    table = (
        f'<div class="scroll"><table class="counts"><thead><tr><th>Split</th>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )
    return [section("Shares of the splits", "".join(f"<p>{fact}</p>" for fact in facts), table)]


def _refused(dataset_dir: Path, counts: Counts, image_dir: str) -> str:
    if not counts.num_refused:
        return section("Rejected", "", "<p>None: every file that was found became an example.</p>")
    facts = f"<p>{count_of(counts.num_refused, 'file', 'files')}</p>"
    return section("Rejected", facts, refused_files(read_quarantine(dataset_dir), image_dir))


def _copies(groups: CopyGroups, layout: Layout, manifest: Manifest, images: DatasetImages) -> str:
    how = layout.config.get("copies")
    if how == "ignore":
        ignored = "<p>Not searched for, because of --copies=ignore. They may be in several splits.</p>"
        return section("Copies", "", ignored)
    if not len(groups):
        kind = "equal" if how == "exact" else "equal or look alike"
        return section("Copies", "", f"<p>None: no two images are {kind}.</p>")
    num_apart = int(groups.apart.sum())
    leaks = f'<span class="warn">{num_apart:,} in more than one split</span>' if num_apart else "None in two splits"
    facts = f"<p>{count_of(len(groups), 'group', 'groups')} with {len(groups.members):,} images</p><p>{leaks}</p>"
    return section("Copies", facts, copy_groups(groups, layout, manifest, images))
