"""Find the pictures of an index that are similar to the given ones.

A picture and its mirror image are both looked for, so a mirrored copy finds its original. Similarity is the cosine of
the embeddings: 1 is the same, higher is closer.

Example: simimg search --index_dir=indexes/photos --k=5 --picture=matches.png holiday.jpg
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from simimg.commands.console import Result, note, progress_bar, quiet_tensorflow

with quiet_tensorflow():
    from simimg.errors import UsageError
    from simimg.pictures import named_files
    from simimg.report import Tile, tile_sheet
    from simimg.search import Match, SearchIndex, embed_files, load_embedder
from PIL import Image

from tfrecords.convert.images import decode
from tfrecords.convert.quarantine import Refusal
from tfrecords.options import option

_TILE_PX = 320


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What `search` can be told. Raises UsageError if `k` is below 1."""

    index_dir: Path = option("Folder that `simimg index` made.")
    images: tuple[str, ...] = option("The pictures to look for; a folder stands for all in it.", positional=True)
    k: int = option("Matches a picture.", 5)
    picture: Path | None = option("Also draw the matches into this PNG.", None)

    def __post_init__(self) -> None:
        """Checks `k`."""
        if self.k < 1:
            raise UsageError(f"--k={self.k}: should be 1 or more.")


def run(options: Options) -> Result:
    """Searches for all given pictures."""
    index = SearchIndex.open(options.index_dir)
    paths = named_files(options.images)
    embedder = load_embedder(index.model)
    index.check_model(embedder)
    with progress_bar(len(paths), "searching") as bar:
        embedded = embed_files(embedder, paths, mirrored=True, progress=bar.update)
    for path, refusal in embedded.refused:
        note(f"refused {path}: {refusal}")
    if not embedded.files:
        raise UsageError("none of the given pictures can be decoded.")
    found = index.search(embedded.embeddings, options.k)
    queries = [file.path for file in embedded.files]
    if options.picture is not None:
        tile_sheet(
            [_tiles(index, query, matches) for query, matches in zip(queries, found, strict=True)], options.picture
        )
    results = [
        {
            "query": query,
            "matches": [
                {
                    "path": str(index.path_of(match.picture)),
                    "similarity": round(match.similarity, 6),
                    "label": match.picture.label,
                }
                for match in matches
            ],
        }
        for query, matches in zip(queries, found, strict=True)
    ]
    text = "\n".join(_text(index, query, matches) for query, matches in zip(queries, found, strict=True))
    if options.picture is not None:
        text += f"\nthe matches are drawn in {options.picture}"
    return Result(values={"results": results}, text=text, exit_code=2 if embedded.refused else 0)


def _text(index: SearchIndex, query: str, matches: list[Match]) -> str:
    lines = [query]
    lines.extend(f"  {match.similarity:.4f}  {index.path_of(match.picture)}" for match in matches)
    return "\n".join(lines)


def _tiles(index: SearchIndex, query: str, matches: list[Match]) -> list[Tile]:
    tiles = [Tile(_thumbnail(Path(query)), Path(query).name, "query")]
    for match in matches:
        image = _thumbnail(index.path_of(match.picture))
        tiles.append(Tile(image, match.picture.path, f"{match.similarity:.3f}"))
    return tiles


def _thumbnail(path: Path) -> Image.Image | None:
    try:
        image = decode(path.read_bytes())
    except (OSError, Refusal):
        return None
    image.thumbnail((_TILE_PX, _TILE_PX))
    return image
