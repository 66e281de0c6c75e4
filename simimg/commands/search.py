"""Find the images of an index that are similar to given ones.

The most similar images are verified one by one: a copy that was mirrored, rotated, cropped, recolored, recompressed or
pasted into another image is told apart from an image that is only similar, and the edits are listed. A similarity of
0.5 or more is a verified copy; lower values are images that look alike. --by=kind finds images of the same kind, and
the similarity is then the cosine of the embeddings. --text finds the images that fit a description, if the index was
made with the image encoder of a pair like CLIP's.

Examples:
    simimg search --index_dir=indexes/photos --k=5 --picture=matches.png holiday.jpg
    simimg search --index_dir=indexes/photos --text_model=text.onnx --text="red sailing boat"
    simimg search --index_dir=indexes/photos - < holiday.jpg
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from simimg import api
from simimg.commands.console import Result, none_decoded, noting_skipped, progress_bar, showing, with_stdin
from simimg.errors import UsageError
from simimg.image_files import check_max_pixels, thumbnail
from simimg.similarity.edits import EDITS_HELP, counted_edits
from simimg.similarity.index_images import IndexImages
from simimg.similarity.projection import BY
from simimg.similarity.query_search import SearchResult
from simimg.similarity.text_encoder import TEXT_MODEL_HELP
from tfrecords.options import check_choices, option
from tfrecords.storage.object_cache import CacheOptions

if TYPE_CHECKING:
    from simimg.report.contact_sheet import Tile

JSON_KEYS = "results num_refused"

_TILE_PX = 320
_FEW = 4  # images, for which little memory matters more than the time of a search


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(CacheOptions):
    """Options of `search`. Raises UsageError if `k` is below 1."""

    index_dir: Path = option("Folder or URL of an index that `simimg index` made.", url=True)
    images: tuple[str, ...] = option(
        "The images to look for; a folder stands for all images in it, and - for one on standard input.",
        (),
        positional=True,
    )
    text: tuple[str, ...] = option("Also look for what this text describes (needs --text_model).", (), repeated="TEXT")
    text_model: str = option(TEXT_MODEL_HELP, "")
    k: int = option("Matches per image.", 5)
    by: str = option("What to look for: copies of the image, or images of the same kind.", "copy", choices=BY)
    edits: tuple[str, ...] = option(EDITS_HELP, ("auto",))
    max_pixels: int = option("As for `simimg index`, of the images to look for.", 0, words={"auto": 0})
    picture: Path | None = option("Also draw the matches to this PNG file.", None, output=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choices(self)
        counted_edits(self.edits)
        check_max_pixels(self.max_pixels)
        if self.k < 1:
            raise UsageError(f"--k={self.k}: should be 1 or more.")
        if not self.images and not self.text:
            raise UsageError('there is nothing to look for. Name images, or describe one: --text="red sailing boat".')
        if bool(self.text) != bool(self.text_model):
            given, needed = ("text", "text_model=TEXT.onnx") if self.text else ("text_model", 'text="red sailing boat"')
            raise UsageError(f"--{given} needs --{needed}.")


def run(options: Options) -> Result:
    """Search for all given images, with a progress bar."""
    with with_stdin(options.images) as named:
        return _search(options, named)


def _search(options: Options, named: dict[str, str]) -> Result:
    """Search for files, each of which is called by its name in `named`; the files in folders by their own."""
    refused: list[str] = []
    few = len(named) <= _FEW and not any(Path(image).is_dir() for image in named)
    with (
        api.Searcher(
            options.index_dir,
            once=few,
            edits=options.edits,
            max_pixels=options.max_pixels,
            text_model=options.text_model,
        ) as searcher,
        progress_bar(None, "searching") as bar,
    ):
        found: dict[str, list[SearchResult]] = {}
        if named:
            found = searcher.search_files(
                list(named), k=options.k, by=options.by, refused=noting_skipped(refused, named), progress=showing(bar)
            )
        texts = {text: searcher.search_text(text, k=options.k) for text in options.text}
    if not found and not texts:
        raise none_decoded(refused)
    answers = [(named.get(query, query), matches) for query, matches in (*found.items(), *texts.items())]
    text = "\n".join(_text(query, matches) for query, matches in answers)
    if options.picture is not None:
        from simimg.report.contact_sheet import tile_sheet

        originals = IndexImages(searcher.index)
        tile_sheet(
            [
                *(_tiles(originals, query, named.get(query, query), matches) for query, matches in found.items()),
                *(_tiles(originals, None, text, matches) for text, matches in texts.items()),
            ],
            options.picture,
        )
        text += f"\ndrawing of the matches: {options.picture}"
    results = [{"query": query, "matches": [_values(match) for match in matches]} for query, matches in answers]
    return Result(values={"results": results, "num_refused": len(refused)}, text=text, num_skipped=len(refused))


def _values(match: SearchResult) -> dict[str, object]:
    return {
        "path": str(match.path),
        "similarity": round(match.similarity, 6),
        "label": match.image.label,
        "verified": match.is_copy,
        "reasons": list(match.reasons),
        "edits": sorted(match.edits),
        "differs": [] if match.differs is None else match.differs.boxes(),
        "cosine": round(match.cosine, 6),
    }


def _text(query: str, matches: list[SearchResult]) -> str:
    lines = [query]
    for match in matches:
        edits = f"  ({'' if match.is_copy else 'not a copy: '}{match.verification.text})" if match.verification else ""
        lines.append(f"  {match.similarity:.3f}  {match.path}{edits}")
    return "\n".join(lines)


def _tiles(originals: IndexImages, query: str | None, name: str, matches: list[SearchResult]) -> list[Tile]:
    """Return a row of the drawing; without a file `query`, `name` is a text."""
    from simimg.report.contact_sheet import Tile

    if query is None:
        tiles = [Tile(None, name, "text")]
    else:
        tiles = [Tile(thumbnail(query, _TILE_PX), Path(name).name, "query")]
    for match in matches:
        tiles.append(Tile(originals.image(match.row, _TILE_PX), match.image.path, f"{match.similarity:.3f}"))
    return tiles
