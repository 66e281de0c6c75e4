"""Pictures to an index, and what is alike in it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Self

from simimg.api.arguments import Folder
from simimg.errors import UsageError

if TYPE_CHECKING:
    from PIL import Image

    from simimg.similarity import Duplicates, IndexUpdate, Leaks, SearchIndex, SearchResult

__all__ = ["Searcher", "duplicates", "index", "leaks", "search"]


def index(
    image_dir: Folder | None = None,
    index_dir: Folder = "index",
    *,
    dataset_dir: Folder | None = None,
    model: str = "lite0",
) -> IndexUpdate:
    """Makes a search index of a folder of pictures, or of a data set, or brings one up to date.

    Args:
        image_dir: a folder of pictures, at any depth; its first folders are the labels.
        index_dir: where the index goes, or is.
        dataset_dir: a data set, instead of `image_dir`, or with it: then that is where its files lie.
        model: a shipped model's name, or the folder of a run.

    Raises:
        UsageError: neither source was given, or it has no pictures.
        SearchIndexError: the index was made with another model, or is damaged.

    Example:
        >>> made = simimg.index("photos", "indexes/photos")
        >>> made.num_embedded, len(made.refused)
        (40, 2)
    """
    from simimg.similarity import index_dataset, index_folder, load_embedder

    if dataset_dir is not None:
        files_in = None if image_dir is None else Path(image_dir)
        return index_dataset(Path(index_dir), Path(dataset_dir), load_embedder(model), image_dir=files_in)
    if image_dir is None:
        raise UsageError("name what to index: image_dir, or dataset_dir.")
    return index_folder(Path(index_dir), Path(image_dir), load_embedder(model))


def search(index_dir: Folder, image: Folder | Image.Image, *, k: int = 5, by: str = "copy") -> list[SearchResult]:
    """Finds the pictures of an index that are similar to one; for many, keep a `Searcher`.

    Example:
        >>> best = simimg.search("indexes/photos", "photos/fishes/image_0002.jpg")[0]
        >>> best.path.name, best.similarity, best.reasons
        ('image_0002.jpg', 1.0, ('the same pixels',))
    """
    with Searcher(index_dir) as searcher:
        return searcher.search(image, k=k, by=by)


class Searcher:
    """An opened index with its model, for one query after another. Use it from one thread.

    Example:
        >>> from PIL import Image, ImageOps
        >>> with simimg.Searcher("indexes/photos") as searcher:
        ...     best = searcher.search(ImageOps.mirror(Image.open("photos/fishes/image_0002.jpg")))[0]
        >>> best.picture.path, best.is_copy, best.reasons
        ('fishes/image_0002.jpg', True, ('mirrored',))
    """

    def __init__(self, index_dir: Folder) -> None:
        """Open an index.

        Raises:
            SearchIndexError: it is none, or damaged, or its model has changed.
        """
        from simimg.similarity import Finder, SearchIndex, load_embedder

        self.index: SearchIndex = SearchIndex.open(Path(index_dir))
        self._finder = Finder(self.index, load_embedder(self.index.info.model))

    def search(self, image: Folder | Image.Image, *, k: int = 5, by: str = "copy") -> list[SearchResult]:
        """Returns the `k` most similar pictures, best first.

        Args:
            image: a file, or a picture in memory, of any mode.
            k: at least 1.
            by: `copy`: verified copies first, with what was done to them; `kind`: pictures of the same kind.

        Raises:
            UsageError: the file cannot be decoded, or `k` or `by` cannot be.
        """
        from simimg.similarity import BY, Query, load_query
        from simimg.similarity.query_search import make_query

        if k < 1 or by not in BY:
            raise UsageError(f"k={k}, by={by!r}: k should be 1 or more, by one of {', '.join(BY)}.")
        if isinstance(image, str | Path):
            query = load_query(str(image), self._finder.embedder)
            if not isinstance(query, Query):
                raise UsageError(f"{image} cannot be decoded: {query}.")
        else:
            query = make_query("", image.convert("RGB"), self._finder.embedder)
        return self._finder.find(query, k, by)

    def close(self) -> None:
        """Ends its threads."""
        self._finder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def duplicates(
    image_dir: Folder | None = None,
    *,
    index_dir: Folder | None = None,
    model: str = "lite0",
    threshold: float = 0.0,
    reference_dirs: Iterable[Folder] = (),
    plan: Folder | None = None,
) -> Duplicates:
    """Finds the copies in a folder of pictures; nothing is moved.

    Args:
        image_dir: the folder, or None for the pictures of the index as they are.
        index_dir: an index of it, which is brought up to date; None: it is made, and thrown away.
        model: as for `index`.
        threshold: the least similarity of copies, 0.5 to 1; 0: what `simimg calibrate` found, or 0.9.
        reference_dirs: folders below `image_dir` whose files are always kept.
        plan: also write what to keep and what to remove into this file, for `simimg apply`.

    Raises:
        UsageError: there is nothing to look through, or an argument cannot be used.

    Example:
        >>> found = simimg.duplicates("photos", plan="plan.json")
        >>> [(group.keeper.picture.path, len(group.others)) for group in found.groups]
        []
    """
    from simimg.similarity import SearchIndex, check_threshold, find_duplicates, reference_of, write_plan

    check_threshold(threshold)
    with ExitStack() as stack:
        if image_dir is not None:
            folder = index_dir or Path(stack.enter_context(tempfile.TemporaryDirectory())) / "index"
            opened = index(image_dir, folder, model=model).index
        elif index_dir is not None:
            opened = SearchIndex.open(Path(index_dir))
        else:
            raise UsageError("name what to look through: image_dir, index_dir, or both.")
        is_reference = reference_of(opened, tuple(str(one) for one in reference_dirs))
        found = find_duplicates(
            opened,
            threshold=threshold or opened.copy_threshold,
            reference=lambda picture: is_reference(picture.path),
        )
        if plan is not None:
            write_plan(Path(plan), opened.files_dir(), found.groups, is_reference)
    return found


def leaks(
    dataset_dir: Folder, *, image_dir: Folder | None = None, model: str = "lite0", threshold: float = 0.0
) -> Leaks:
    """Finds the copies across a data set's splits: what was tested on and trained on.

    Args:
        dataset_dir: the data set's folder.
        image_dir: the folder that it was made of, for a look at the files themselves.
        model: as for `index`.
        threshold: as for `duplicates`.

    Example:
        >>> simimg.leaks("data/photos/1.0.0", image_dir="photos").affected("test")
        0
    """
    from simimg.similarity import check_threshold, find_leaks

    check_threshold(threshold)
    with tempfile.TemporaryDirectory() as folder:
        opened = index(image_dir, Path(folder) / "index", dataset_dir=dataset_dir, model=model).index
        return find_leaks(opened, threshold=threshold or opened.copy_threshold)
