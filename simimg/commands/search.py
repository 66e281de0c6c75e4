"""Find the pictures of an index that are similar to the given ones.

The pictures that look most alike are examined one by one: a copy that was mirrored, turned, cropped, recoloured,
recompressed or pasted into something else is told from a picture that is only similar, with what was done to it. A
similarity of 0.5 and more is a copy; below are pictures that look alike. With --by=kind, pictures of the same kind
are found, and similarity is the cosine of their embeddings.

Example: simimg search --index_dir=indexes/photos --k=5 --picture=matches.png holiday.jpg
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from simimg.commands.console import Result, note, progress_bar, quiet_tensorflow

with quiet_tensorflow():
    from simimg.errors import UsageError
    from simimg.image_files import named_files
    from simimg.report import Tile, tile_sheet
    from simimg.similarity import BY, Finder, IndexImages, SearchIndex, SearchResult, load_embedder
    from simimg.similarity.query_search import load_queries
from PIL import Image

from tfrecords.convert.image.decoder import decode
from tfrecords.format.quarantine import Refusal
from tfrecords.options import check_choices, option

_TILE_PX = 320


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What `search` can be told. Raises UsageError if `k` is below 1."""

    index_dir: Path = option("Folder that `simimg index` made.")
    images: tuple[str, ...] = option("The pictures to look for; a folder stands for all in it.", positional=True)
    k: int = option("Matches a picture.", 5)
    by: str = option("Whether to look for copies of the picture, or for pictures of its kind.", "copy", choices=BY)
    picture: Path | None = option("Also draw the matches into this PNG.", None)

    def __post_init__(self) -> None:
        """Checks `k` and the choices."""
        check_choices(self)
        if self.k < 1:
            raise UsageError(f"--k={self.k}: should be 1 or more.")


def run(options: Options) -> Result:
    """Searches for all given pictures."""
    index = SearchIndex.open(options.index_dir)
    paths = named_files(options.images)
    finder = Finder(index, load_embedder(index.info.model))
    found: dict[str, list[SearchResult]] = {}
    num_refused = 0
    with progress_bar(len(paths), "searching") as bar:
        for path, query in load_queries(paths, finder.embedder):
            if isinstance(query, Refusal):
                note(f"refused {path}: {query}")
                num_refused += 1
            else:
                found[path] = finder.find(query, options.k, options.by)
            bar.update()
    finder.close()
    if not found:
        raise UsageError("none of the given pictures can be decoded.")
    if options.picture is not None:
        originals = IndexImages(index)
        tile_sheet([_tiles(originals, query, matches) for query, matches in found.items()], options.picture)
    results = [{"query": query, "matches": [_values(match) for match in matches]} for query, matches in found.items()]
    text = "\n".join(_text(query, matches) for query, matches in found.items())
    if options.picture is not None:
        text += f"\nthe matches are drawn in {options.picture}"
    return Result(values={"results": results}, text=text, exit_code=2 if num_refused else 0)


def _values(match: SearchResult) -> dict[str, object]:
    return {
        "path": str(match.path),
        "similarity": round(match.similarity, 6),
        "label": match.picture.label,
        "verified": match.is_copy,
        "reasons": list(match.reasons),
        "cosine": round(match.cosine, 6),
    }


def why(match: SearchResult) -> str:
    """Returns what was done to the query, for people: empty for what is only similar."""
    return match.verification.text if match.verification else ""


def _text(query: str, matches: list[SearchResult]) -> str:
    lines = [query]
    for match in matches:
        reason = why(match)
        lines.append(f"  {match.similarity:.3f}  {match.path}" + (f"  ({reason})" if reason else ""))
    return "\n".join(lines)


def _tiles(originals: IndexImages, query: str, matches: list[SearchResult]) -> list[Tile]:
    tiles = [Tile(_thumbnail(Path(query)), Path(query).name, "query")]
    for match in matches:
        tiles.append(Tile(originals.image(match.row, _TILE_PX), match.picture.path, f"{match.similarity:.3f}"))
    return tiles


def _thumbnail(path: Path) -> Image.Image | None:
    try:
        image = decode(path.read_bytes())
    except (OSError, Refusal):
        return None
    image.thumbnail((_TILE_PX, _TILE_PX))
    return image
