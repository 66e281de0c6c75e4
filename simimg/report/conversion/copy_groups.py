"""Groups of copies among the examples: how many, which images, and in which splits they are."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from simimg.report.contact_sheet import Tile
from simimg.report.html_page import escape, tile_figure
from simimg.report.number_format import count_of, shortened
from simimg.report.report_sections import facts
from tfrecords.format.dataset_images import DatasetImages
from tfrecords.format.layout import Layout
from tfrecords.format.manifest import Manifest

_MAX_MEMBERS = 6  # images per group, one row
_TILE_PX = 160
_MAX_NAME, _MAX_PATH = 32, 60  # characters
_MAX_NAMED = 100  # groups without images
_MAX_APART, _MAX_MIXED, _MAX_RESIZED, _MAX_LARGEST = 4, 24, 3, 6
_CONFLICTS_ID = "label_conflicts"  # of the groups with several labels, for links to them


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class CopyGroups:
    """The groups of two or more examples that are copies of each other, one entry per group in each column."""

    members: np.ndarray  # int64 [num_images], rows of the manifest, group by group, sorted by id within each
    starts: np.ndarray  # int64 [n], where each group begins in `members`
    sizes: np.ndarray  # int64 [n]
    mixed: np.ndarray  # bool [n], whether it has more than one class
    apart: np.ndarray  # bool [n], whether it is in more than one split
    resized: np.ndarray  # bool [n], whether its originals have more than one size
    same_bytes: np.ndarray  # bool [n], whether all its files are byte-identical
    same_pixels: np.ndarray  # bool [n], whether all its stored images are equal

    def __len__(self) -> int:
        return len(self.starts)

    def rows(self, group: int) -> list[int]:
        """Returns the rows of the manifest that belong to a group."""
        start = int(self.starts[group])
        return self.members[start : start + int(self.sizes[group])].tolist()

    def with_any(self, rows: np.ndarray) -> np.ndarray:
        """Returns whether each group has a member among these rows of the manifest: bool [n]."""
        among = np.isin(self.members, rows)
        return np.logical_or.reduceat(among, self.starts) if len(self) else np.zeros(0, bool)

    def select(self, which: np.ndarray) -> CopyGroups:
        """Returns the groups for which `which`, bool [n], is true."""
        sizes = self.sizes[which]
        columns = {
            name: getattr(self, name)[which] for name in ("mixed", "apart", "resized", "same_bytes", "same_pixels")
        }
        members = self.members[np.repeat(which, self.sizes)]
        return CopyGroups(members=members, starts=np.cumsum(sizes) - sizes, sizes=sizes, **columns)


def find_groups(manifest: Manifest) -> CopyGroups:
    """Returns the groups of copies among the examples of a manifest, in the order of their first ids."""
    rows = np.flatnonzero(manifest.ok)
    rows = rows[np.lexsort((manifest.ids[rows], manifest.groups[rows]))]
    _, starts, sizes = np.unique(manifest.groups[rows], return_index=True, return_counts=True)
    several = sizes >= 2
    members = rows[np.repeat(several, sizes)]
    sizes = sizes[several]
    starts = np.cumsum(sizes) - sizes
    first = np.repeat(members[starts], sizes)  # row of each member's group

    def any_differs(column: np.ndarray) -> np.ndarray:
        differs = column[members] != column[first]
        differs = differs.any(axis=1) if differs.ndim > 1 else differs
        return np.logical_or.reduceat(differs, starts) if len(starts) else np.zeros(0, bool)

    return CopyGroups(
        members=members,
        starts=starts,
        sizes=sizes,
        mixed=any_differs(manifest.labels),
        apart=any_differs(manifest.splits),
        resized=any_differs(manifest.widths) | any_differs(manifest.heights),
        same_bytes=~any_differs(manifest.sha256),
        same_pixels=~any_differs(manifest.pixels_sha256),
    )


def copy_groups(groups: CopyGroups, layout: Layout, manifest: Manifest, images: DatasetImages) -> str:
    """Returns the groups of copies as HTML: the number of each kind, and those worth a look; raises DataError."""
    alike = int((~groups.same_bytes & ~groups.same_pixels).sum())
    equal = int(groups.same_bytes.sum())
    kinds = {
        "groups of byte-identical files": equal,
        "of files with equal pixels": len(groups) - equal - alike,
        "of images that look alike": alike,
    }
    parts = [facts({name: f"{num:,}" for name, num in kinds.items()})]
    by_size = np.argsort(-groups.sizes, kind="stable")
    taken: set[int] = set()
    leak = "These leak: the model is measured on images that it was trained on."
    wrong = "One image with two labels, of which one may be wrong; or two images that were wrongly taken for copies."
    for title, sentence, which, most in (
        ("In more than one split", leak, groups.apart, _MAX_APART),
        ("Of more than one class", wrong, groups.mixed, _MAX_MIXED),
        ("Of more than one size", "Their originals differ in width or height.", groups.resized, _MAX_RESIZED),
        ("The largest", "", groups.sizes > 1, _MAX_LARGEST),
    ):
        candidates = [group for group in by_size[which[by_size]].tolist() if group not in taken]
        if not candidates:
            continue
        title = "Others, the largest first" if taken and not sentence else title
        taken.update(candidates[:most])
        rows = "".join(group_figure(groups, group, layout, manifest, images) for group in candidates[:most])
        about = f'<p class="quiet">{_shown(len(candidates), most)}{sentence}</p>'
        anchor = f' id="{_CONFLICTS_ID}"' if which is groups.mixed else ""
        parts.append(f'<h3>{title}</h3>{about}<div class="groups"{anchor}>{rows}</div>')
    rest = [group for group in by_size.tolist() if group not in taken]
    if rest:
        names = [_named(groups, group, manifest) for group in rest[:_MAX_NAMED]]
        if len(rest) > _MAX_NAMED:
            names.append(f"and {count_of(len(rest) - _MAX_NAMED, 'more group', 'more groups')}")
        items = "".join(f"<li>{name}</li>" for name in names)
        parts.append(f'<h3>By name only</h3><ul class="named">{items}</ul>')
    parts.append(
        '<p class="quiet all-groups">manifest.parquet lists all groups: copies have one <code>copy_group</code>.</p>'
    )
    return "".join(parts)


def _shown(num: int, most: int) -> str:
    return f"{most} of {num:,} groups. " if num > most else f"{count_of(num, 'group', 'groups')}. "


def group_figure(groups: CopyGroups, group: int, layout: Layout, manifest: Manifest, images: DatasetImages) -> str:
    """Returns a group as HTML: its first images, and what they have in common."""
    rows = groups.rows(group)
    splits = _names(manifest.split_names, manifest.splits[rows])
    classes = _names(layout.counted_names, manifest.labels[rows])
    apart, mixed = bool(groups.apart[group]), bool(groups.mixed[group])
    kinds = ((groups.same_bytes, "in byte-identical files"), (groups.same_pixels, "with equal pixels"))
    kind = next((words for which, words in kinds if which[group]), "that look alike")
    more = ", …" if len(classes) > 4 else ""
    about = [
        f"<b>{len(rows):,} images</b> {kind}",
        f'<span class="warn">in {escape(" and ".join(splits))}</span>'
        if apart
        else f"kept together in {escape(splits[0])}",
        f'<span class="warn">{len(classes):,} classes: {escape(", ".join(classes[:4]))}{more}</span>' if mixed else "",
    ]
    tiles = []
    shown = rows if len(rows) <= _MAX_MEMBERS else rows[: _MAX_MEMBERS - 1]
    for row in shown:
        notes = [f"{manifest.widths[row]:,} × {manifest.heights[row]:,} px"]
        name = layout.counted_names[manifest.labels[row]]
        notes += [shortened(name, _MAX_NAME)] if mixed and not manifest.paths[row].startswith(f"{name}/") else []
        notes += [manifest.split_names[manifest.splits[row]]] if apart else []
        tiles.append(tile_figure(Tile(images.image(row), manifest.paths[row], ", ".join(notes)), _TILE_PX))
    if len(shown) < len(rows):
        tiles.append(f'<div class="further">and {len(rows) - len(shown):,} more</div>')
    head = "".join(f"<p>{fact}</p>" for fact in about if fact)
    return f'<div class="group of{len(tiles)}"><div class="tiles">{"".join(tiles)}</div>{head}</div>'


def _named(groups: CopyGroups, group: int, manifest: Manifest) -> str:
    rows = groups.rows(group)
    paths = ", ".join(shortened(manifest.paths[row], _MAX_PATH) for row in rows[:_MAX_MEMBERS])
    more = f" and {len(rows) - _MAX_MEMBERS:,} more" if len(rows) > _MAX_MEMBERS else ""
    return escape(f"{paths}{more} in {' and '.join(_names(manifest.split_names, manifest.splits[rows]))}")


def _names(names: Sequence[str], codes: np.ndarray) -> list[str]:
    return [shortened(names[code], _MAX_NAME) for code in np.unique(codes).tolist()]
