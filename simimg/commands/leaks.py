"""Find copies across the splits of a dataset.

Images are compared with those of the other splits as `simimg duplicates` does it: byte-identical files, then similar
perceptual hashes and embeddings, and every candidate pair is verified. With --image_dir, the files that the dataset
was converted from are compared; otherwise its stored pixels, which show less detail. --clean=FILE writes an image
table in which all copies of an image are in one split, and prints the command that converts it. Pairs that `simimg
decide` called no copies, in the folder of --index_dir, are left out.

Example: simimg leaks --dataset_dir=data/photos/1.0.0 --image_dir=photos --clean=clean.csv
"""

from __future__ import annotations

import dataclasses
import shlex
import time
from itertools import combinations
from pathlib import Path
from typing import Any

from simimg import api
from simimg.commands.console import Result, note, stage_bars
from simimg.commands.copy_tiles import THRESHOLD_HELP, left_out, marked_pair
from simimg.commands.engine_options import EngineOptions
from simimg.errors import UsageError
from simimg.report.contact_sheet import Tile, tile_sheet
from simimg.report.copies_report import CopyRow, write_copies_report
from simimg.similarity.candidate_pairs import check_threshold
from simimg.similarity.edits import EDITS_HELP, counted_edits
from simimg.similarity.index_images import IndexImages
from simimg.similarity.search_index import SearchIndex
from simimg.similarity.split_leaks import DEALS, LeakedPair, Leaks, clean_command
from tfrecords.locations import location_text, url_of
from tfrecords.options import option

JSON_KEYS = (
    "pairs num_test_affected share_test_affected by_splits splits num_images num_pairs_examined "
    "num_looked_at_as_stored num_left_out threshold seconds clean num_moved report convert"
)

_PAIRS_SHOWN = 20
_PAIRS_DRAWN, _PAIRS_IN_REPORT = 60, 300
_TILE_PX = 320
_MIN_SHARE_LEFT = 0.5  # of a split; below it, another --deal is suggested


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(EngineOptions):
    """Options of `leaks`. Raises UsageError if a choice or the threshold is not valid."""

    dataset_dir: Path = option("Dataset folder or URL, DATA_DIR/NAME/VERSION.", url=True)
    image_dir: Path | None = option("Folder that it was converted from, to compare the files themselves.", None)
    index_dir: Path | None = option("Keep the index in this folder, so that the next call is fast.", None, url=True)
    model: str = option("As for `simimg index`.", "lite0")
    threshold: float = option(THRESHOLD_HELP, 0.0, words={"auto": 0})
    edits: tuple[str, ...] = option(EDITS_HELP, ("auto",))
    picture: Path | None = option("Also draw the pairs to this PNG file.", None, output=True)
    report: Path | None = option("Also write a page (HTML) that shows the pairs.", None, output=True)
    clean: Path | None = option(
        "Also write an image table (CSV) in which all copies of an image are in one split.", None, output=True
    )
    deal: str = option(
        "With --clean: put copies into the first of their splits, or deal them so that all splits keep their shares.",
        "first",
        choices=DEALS,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_threshold(self.threshold)
        counted_edits(self.edits)


def run(options: Options) -> Result:
    """Find leaks, with progress bars."""
    if options.image_dir is not None and not options.image_dir.is_dir():
        raise UsageError(f"--image_dir={options.image_dir} is not a folder. Name the one that was converted.")
    if not url_of(options.dataset_dir) and not options.dataset_dir.is_dir():
        raise UsageError(f"--dataset_dir={options.dataset_dir} is not a folder. Name one that `simimg convert` wrote.")
    start = time.perf_counter()
    with stage_bars() as show:
        found = api.leaks(
            options.dataset_dir,
            image_dir=options.image_dir,
            index_dir=options.index_dir,
            model=options.model,
            threshold=options.threshold,
            edits=options.edits,
            clean=options.clean,
            deal=options.deal,
            engine=options.engine,
            ray_address=options.ray_address,
            progress=show,
        )
    index = found.index
    if options.picture is not None:
        _draw(index, found, options.picture)
    if options.report is not None:
        _write_report(options, options.report, index, found)
    command = clean_command(index, options.clean, options.image_dir) if options.clean and found.cleaned else ""
    moved = None
    if found.cleaned is not None:
        splits = index.images.column("split").tolist()
        moved = sum(new != old for new, old in zip(found.cleaned, splits, strict=True))
    if found.num_missing:
        note(f"{found.num_missing:,} images could not be read again, and were not compared")
    last = found.splits[-1]
    num_test, num_affected = (found.num_images.get(last, 0), found.affected(last)) if len(found.splits) > 1 else (0, 0)
    values: dict[str, Any] = {
        "pairs": [_values(pair) for pair in found.pairs],
        "num_test_affected": num_affected,
        "share_test_affected": round(num_affected / num_test, 6) if num_test else 0.0,
        "by_splits": [
            {
                "split": split,
                "num_images": found.num_images[split],
                "in": earlier,
                "num_pairs": sum(pair.image.split == split and pair.other.split == earlier for pair in found.pairs),
                "num_affected": found.affected(split, earlier),
            }
            for earlier, split in combinations(found.splits, 2)
        ],
        "splits": found.num_images,
        "num_images": len(index.images),
        "num_pairs_examined": found.num_pairs_examined,
        "num_looked_at_as_stored": found.num_stored,
        "num_left_out": found.num_left_out,
        "threshold": options.threshold or index.copy_threshold,
        "seconds": round(time.perf_counter() - start, 3),
        "clean": None if options.clean is None else str(options.clean),
        "num_moved": moved,
        "report": None if options.report is None else str(options.report),
        "convert": command or None,
    }
    lines = [_text(pair) for pair in found.pairs[:_PAIRS_SHOWN]]
    if len(found.pairs) > _PAIRS_SHOWN:
        lines.append(f"… and {len(found.pairs) - _PAIRS_SHOWN:,} more pairs; --json lists all of them")
    lines += _summary(found, values["seconds"])
    if found.num_left_out and options.index_dir is not None:
        lines.append(left_out(found.num_left_out, options.index_dir))
    if options.picture is not None:
        lines.append(f"drawing of the pairs: {options.picture}")
    if options.report is not None:
        lines.append(f"report: {options.report}")
    if found.num_stored:
        lines.append(
            f"{found.num_stored:,} were compared by their stored pixels, which show less detail than the files"
            + ("" if options.image_dir else "; name their folder with --image_dir=PATH")
        )
    if command:
        lines += _cleaned(found, options, moved, command)
    return Result(values=values, text="\n".join(lines), num_skipped=found.num_missing)


def _values(pair: LeakedPair) -> dict[str, object]:
    pictures = (("", pair.image), ("other_", pair.other))
    values = {f"{which}{name}": getattr(one, name) for which, one in pictures for name in ("split", "path", "label")}
    return {**values, "similarity": round(pair.similarity, 6), "reason": pair.reason, "edits": sorted(pair.edits)}


def _text(pair: LeakedPair) -> str:
    return (
        f"{pair.similarity:.3f}  {pair.image.split}: {pair.image.path}  =  {pair.other.split}: {pair.other.path}"
        f"  ({pair.reason})"
    )


def _summary(found: Leaks, seconds: float) -> list[str]:
    if len(found.splits) < 2:
        return [f"the dataset has one split, {found.splits[0]}, so no copies can be in two splits"]
    lines = []
    for earlier, split in combinations(found.splits, 2):
        count, total = found.affected(split, earlier), found.num_images[split]
        lines.append(f"{count:,} of {total:,} {split} images, {count / total:.1%}, are copies of {earlier} images")
    lines[-1] += f"; {seconds:.0f} s"
    return lines


def _cleaned(found: Leaks, options: Options, moved: int | None, command: str) -> list[str]:
    assert found.cleaned is not None
    counts = {split: found.cleaned.count(split) for split in found.splits}
    sizes = ", ".join(f"{count:,} {split}" for split, count in counts.items())
    lines = [
        f"{options.clean}: all copies of an image in one split, {moved:,} images moved: {sizes}. To convert:",
        command,
    ]
    emptied = [split for split, count in counts.items() if count < _MIN_SHARE_LEFT * found.num_images[split]]
    if emptied and options.deal == "first":
        split = emptied[0]
        lines.append(
            f"{split} keeps only {counts[split]:,} of {found.num_images[split]:,} images; --deal=shares keeps the "
            "sizes of the splits, but models have to be trained again"
        )
    return lines


def _write_report(options: Options, report: Path, index: SearchIndex, found: Leaks) -> None:
    images = IndexImages(index)
    rows = []
    for pair in found.pairs[:_PAIRS_IN_REPORT]:
        copy, original = marked_pair(images, pair.row, pair.other_row)
        note = f"{pair.image.split}, {pair.similarity:.3f}: {pair.reason}"
        first = Tile(original, pair.other.path, pair.other.split)
        rows.append(CopyRow(first=first, copies=[Tile(copy, pair.image.path, note)]))
    last = found.splits[-1]
    what = "Write an image table in which all copies of an image are in one split:"
    clean = ["simimg", "leaks", f"--dataset_dir={location_text(options.dataset_dir)}", "--clean=clean.csv"]
    if options.image_dir is not None:
        clean.append(f"--image_dir={options.image_dir}")
    write_copies_report(
        report,
        title=f"Copies across splits of {options.dataset_dir.parent.name}",
        about=location_text(options.dataset_dir),
        number=f"{found.affected(last):,}",
        counted=f"of {found.num_images[last]:,} {last} images are copies of others",
        facts={"pairs": f"{len(found.pairs):,}", "pairs examined": f"{found.num_pairs_examined:,}"},
        heading="pairs",
        rows=rows,
        num_rows=len(found.pairs),
        note="The image of the earlier split comes first, then its copy with their similarity. Orange outlines mark "
        "the places of the copy that differ, and in an image that shows more than the other one, the part that both "
        "show.",
        commands={what: shlex.join(clean)} if found.pairs else {},
    )


def _draw(index: SearchIndex, found: Leaks, path: Path) -> None:
    images = IndexImages(index)
    rows = []
    for pair in found.pairs[:_PAIRS_DRAWN]:
        copy, original = (images.image(row, _TILE_PX) for row in (pair.row, pair.other_row))
        note = f"{pair.other.split}, {pair.similarity:.3f}: {pair.reason}"
        rows.append([Tile(copy, pair.image.path, pair.image.split), Tile(original, pair.other.path, note)])
    title = f"{len(found.pairs):,} pairs of copies across splits"
    if len(rows) < len(found.pairs):
        title += f", the first {len(rows)}"
    tile_sheet(rows, path, title=title)
