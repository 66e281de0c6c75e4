"""report.html of a data set: what a conversion made of a folder of photos, as one HTML file that needs only a browser.

It is a function of the data set folder and, for what is shown of refused files, of the originals: no time, no duration,
no path of the machine. So the same data set has the same report, byte for byte. The file ends with a line

    <!-- sha256 HEX -->

whose HEX is the SHA-256 of all bytes before that line, so that `simimg verify` notices a changed one.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from simimg.report.contact_sheet import write_bytes
from simimg.report.conversion.class_counts import Counts, count_files
from simimg.report.conversion.class_table import bar, class_table, size_curve, split_color, unsplit_classes
from simimg.report.conversion.conversion_css import STYLE
from simimg.report.conversion.copy_groups import CopyGroups, copy_groups, find_groups
from simimg.report.conversion.image_sizes import original_sizes
from simimg.report.conversion.provenance import provenance
from simimg.report.conversion.quarantine_section import refused_files
from simimg.report.conversion.sample_images import contact_sheet
from simimg.report.html_page import escape, page, section
from simimg.report.number_format import count_of, percent, storage
from tfrecords.convert.plan.split_assignment import SOURCE_SPLITS
from tfrecords.format.dataset_images import DatasetImages
from tfrecords.format.layout import Layout
from tfrecords.format.manifest import Manifest, read_manifest
from tfrecords.format.quarantine import read_quarantine

__all__ = ["REPORT_FILE", "write_conversion_report"]

REPORT_FILE = "report.html"


def write_conversion_report(dataset_dir: Path, image_dir: str) -> Path:
    """Writes `report.html` into a finished data set folder; it has its name only when it is complete.

    Args:
        dataset_dir: the data set.
        image_dir: what it was made of. Where that is a local folder, what can be shown of refused files is shown.

    Returns:
        The report's path.

    Raises:
        DataError: the data set is damaged.
        OSError: the report cannot be written.
    """
    layout, manifest = Layout.load(dataset_dir), read_manifest(dataset_dir)
    pictures = DatasetImages(dataset_dir, layout, manifest)
    counts, groups = count_files(manifest, len(layout.class_names)), find_groups(manifest)
    body = [
        _top(layout),
        _headline(layout, counts, groups),
        "<main>",
        _samples(layout, manifest, pictures),
        _classes(layout, counts),
        _sizes(layout, manifest),
        _refused(dataset_dir, counts, image_dir),
        _copies(groups, layout, manifest, pictures),
        section("How it was made", "", provenance(layout)),
        "</main>",
    ]
    html = page(f"{layout.name}: what was converted", "".join(body), STYLE).encode()
    path = dataset_dir / REPORT_FILE
    write_bytes(path, html + f"<!-- sha256 {hashlib.sha256(html).hexdigest()} -->\n".encode())
    return path


def _top(layout: Layout) -> str:
    shards = [info for infos in layout.splits.values() for info in infos]
    facts = [
        f"<b>{layout.image_size} × {layout.image_size}</b> px, {escape(layout.encoding)}",
        f"<b>{count_of(len(shards), 'shard', 'shards')}</b>, {storage(sum(info.num_bytes for info in shards))}",
        f"version <b>{escape(layout.version)}</b>",
    ]
    about = "".join(f"<div>{fact}</div>" for fact in facts)
    subtitle = '<p class="subtitle">What the conversion made of the photos</p>'
    return f'<header><h1>{escape(layout.name)}</h1>{subtitle}<div class="about">{about}</div></header>'


def _headline(layout: Layout, counts: Counts, groups: CopyGroups) -> str:
    by_split = counts.examples.sum(axis=0).tolist()
    num_examples, num_refused = sum(by_split), counts.num_refused
    legend = [
        f'<span><i class="{split_color(number)}"></i>{num:,} {escape(split)}, {percent(num / num_examples)}</span>'
        for number, (split, num) in enumerate(zip(counts.splits, by_split, strict=True))
    ]
    if num_refused:
        legend.append(f'<span><i class="refused"></i>{num_refused:,} refused</span>')
    what = "example" if num_examples == 1 else "examples"
    of = f" of {num_examples + num_refused:,} files" if num_refused else ""
    others = [
        (f"{len(layout.class_names):,}", "class" if len(layout.class_names) == 1 else "classes"),
        (f"{num_refused:,}", "file refused" if num_refused == 1 else "files refused"),
    ]
    if layout.config.get("copies") != "ignore":
        others.append((f"{len(groups.members):,}", "photos that have copies"))
    figures = "".join(f'<div><p class="number">{number}</p><p>{name}</p></div>' for number, name in others)
    return (
        f'<div class="headline"><div class="first"><p class="number">{num_examples:,}</p><p>{what}{of}</p></div>'
        f'{figures}<div class="share">{bar([*by_split, num_refused], num_examples + num_refused)}'
        f'<p class="legend">{"".join(legend)}</p></div></div>'
    )


def _samples(layout: Layout, manifest: Manifest, pictures: DatasetImages) -> str:
    sheet, how = contact_sheet(layout, manifest, pictures)
    return section("Contact sheet", f"<p>{how}</p>", sheet)


def _classes(layout: Layout, counts: Counts) -> str:
    facts = [count_of(len(layout.class_names), "class", "classes")]
    if len(layout.class_names) > 1:
        few, many = int(counts.sizes.min()), int(counts.sizes.max())
        facts.append(f"{few:,} examples each" if few == many else f"{few:,} to {many:,} examples each")
    num_unsplit, dealt = len(counts.unsplit()), layout.config.get("splits") != SOURCE_SPLITS
    warning = ""
    if num_unsplit:
        what = "too small to be split" if dealt else "not in every split"
        warning = f'<p><span class="warn">{num_unsplit:,} {what}</span></p>'
    return section(
        "Classes",
        "".join(f"<p>{fact}</p>" for fact in facts) + warning,
        size_curve(counts)
        + class_table(layout.class_names, counts)
        + unsplit_classes(layout.class_names, counts, dealt=dealt),
    )


def _sizes(layout: Layout, manifest: Manifest) -> str:
    ok = manifest.ok
    resize = str(layout.config.get("resize", ""))
    return section(
        "Originals",
        "<p>Sizes before they were stored</p>",
        original_sizes(manifest.widths[ok], manifest.heights[ok], layout.image_size, resize),
    )


def _refused(dataset_dir: Path, counts: Counts, image_dir: str) -> str:
    if not counts.num_refused:
        return section("Refused", "", "<p>None: every file that was found became an example.</p>")
    facts = f"<p>{count_of(counts.num_refused, 'file', 'files')}</p>"
    return section("Refused", facts, refused_files(read_quarantine(dataset_dir), image_dir))


def _copies(groups: CopyGroups, layout: Layout, manifest: Manifest, pictures: DatasetImages) -> str:
    how = layout.config.get("copies")
    if how == "ignore":
        return section("Copies", "", "<p>Not looked for, as --copies=ignore says. They may lie in several splits.</p>")
    if not len(groups):
        kind = "equal" if how == "exact" else "equal, nor any that look alike"
        return section("Copies", "", f"<p>None: no two photos are {kind}.</p>")
    num_apart = int(groups.apart.sum())
    leaks = f'<span class="warn">{num_apart:,} in more than one split</span>' if num_apart else "None in two splits"
    facts = f"<p>{count_of(len(groups), 'group', 'groups')} with {len(groups.members):,} photos</p><p>{leaks}</p>"
    return section("Copies", facts, copy_groups(groups, layout, manifest, pictures))
