"""Search indexes, and the copies that they reveal."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self

from simimg.api.arguments import Counter, Folder
from simimg.errors import UsageError
from simimg.signals import exit_on_sigterm

if TYPE_CHECKING:
    from PIL import Image

    from simimg.similarity.duplicate_groups import Duplicates
    from simimg.similarity.index_update import IndexUpdate
    from simimg.similarity.query_search import SearchResult
    from simimg.similarity.search_index import SearchIndex
    from simimg.similarity.split_leaks import Leaks


def index(
    image_dir: Folder | None = None,
    index_dir: Folder = "index",
    *,
    dataset_dir: Folder | None = None,
    model: str = "lite0",
    precision: str = "auto",
    include: Iterable[str] = (),
    exclude: Iterable[str] = (),
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> IndexUpdate:
    """Create or update a search index of an image folder or a dataset.

    Args:
        image_dir: folder of images, searched at any depth; its top-level folders are the labels.
        index_dir: folder of the index, new or existing.
        dataset_dir: dataset to index instead of `image_dir`; with both, `image_dir` is where its files lie.
        model: name of a shipped model, the folder of a run, or an ONNX file (extra `onnx`) and what it does not say,
            such as `model.onnx,size=224,range=imagenet`.
        precision: of the embeddings: `float32`; `bfloat16`, twice as fast on processors that have it, with the extra
            `fast`; or `auto`, that of the existing index or else float32.
        include: patterns of the files of `image_dir` to take, such as `cat/*.jpg`; by default all. See
            `tfrecords.convert.sources.selection`. Files that an index has and that are not taken leave it.
        exclude: patterns of files and folders to leave out.
        progress: called with the number of images done and the total.

    Raises:
        UsageError: neither source was given, or it has no images.
        SearchIndexError: the index was made with another model, or is damaged.

    Example:
        >>> made = simimg.index("photos", "indexes/photos")
        >>> made.num_embedded, len(made.refused)
        (40, 2)
    """
    from simimg.similarity.embeddings import load_embedder
    from simimg.similarity.index_update import index_dataset, index_folder
    from simimg.similarity.search_index import index_precision
    from tfrecords.convert.sources import Selection

    selection = Selection(tuple(include), tuple(exclude))
    files_in = None if image_dir is None else Path(image_dir)
    counter = Counter(progress)
    calls = {"begin": counter.begin, "progress": counter.advance}
    if dataset_dir is None and files_in is None:
        raise UsageError("name what to index: image_dir, or dataset_dir.")
    if dataset_dir is not None and selection.has_patterns:
        raise UsageError("include and exclude are about the files of an image_dir; a dataset is indexed as a whole.")
    if precision == "auto":
        precision = index_precision(Path(index_dir))
    embedder = load_embedder(model, precision=precision, many=True)
    if dataset_dir is not None:
        return index_dataset(Path(index_dir), Path(dataset_dir), embedder, image_dir=files_in, **calls)
    assert files_in is not None
    return index_folder(Path(index_dir), files_in, embedder, selection=selection, **calls)


def search(
    index_dir: Folder, image: Folder | Image.Image, *, k: int = 5, by: str = "copy", edits: Iterable[str] = ()
) -> list[SearchResult]:
    """Find the images of an index that are similar to one image; for many queries, keep a `Searcher`.

    Example:
        >>> best = simimg.search("indexes/photos", "photos/fishes/image_0002.jpg")[0]
        >>> best.path.name, best.similarity, best.reasons
        ('image_0002.jpg', 1.0, ('the same pixels',))
    """
    with Searcher(index_dir, once=True, edits=edits) as searcher:
        return searcher.search(image, k=k, by=by)


class Searcher:
    """An open index with its model, for many queries. Use it from one thread.

    Example:
        >>> from PIL import Image, ImageOps
        >>> with simimg.Searcher("indexes/photos") as searcher:
        ...     best = searcher.search(ImageOps.mirror(Image.open("photos/fishes/image_0002.jpg")))[0]
        >>> best.image.path, best.is_copy, best.reasons
        ('fishes/image_0002.jpg', True, ('mirrored',))
    """

    def __init__(self, index_dir: Folder, *, once: bool = False, edits: Iterable[str] = ()) -> None:
        """Open an index; `once` is for a search or two, which then take less memory. For `edits`, see `duplicates`.

        Raises:
            UsageError: there is no such kind of edit.
            SearchIndexError: the folder is not an index, is damaged, or its model has changed.
        """
        from simimg.similarity.edits import counted_edits
        from simimg.similarity.query_search import Finder
        from simimg.similarity.search_index import SearchIndex

        counted = counted_edits(edits)
        self.index: SearchIndex = dataclasses.replace(SearchIndex.open(Path(index_dir)), once=once)
        self._finder = Finder(self.index, self.index.load_embedder(), edits=counted)

    def search(self, image: Folder | Image.Image, *, k: int = 5, by: str = "copy") -> list[SearchResult]:
        """Return the `k` most similar images, best first.

        Args:
            image: a file, or an image in memory, of any mode. What Pillow has opened finds what its file finds: the
                orientation, color profile and transparency are applied.
            k: at least 1.
            by: `copy`: verified copies first, with the edits found; `kind`: images of the same kind.

        Raises:
            UsageError: the file cannot be decoded, or `k` or `by` is not valid.
        """
        from simimg.similarity.search_queries import Query, image_query, load_query

        _check_search(k, by)
        embedder = self._finder.embedder
        query = load_query(str(image), embedder) if isinstance(image, str | Path) else image_query(image, embedder)
        if not isinstance(query, Query):
            raise UsageError(f"{image} cannot be decoded: {query}.")
        return self._finder.find(query, k, by)

    def search_files(
        self,
        images: Sequence[Folder],
        *,
        k: int = 5,
        by: str = "copy",
        refused: Callable[[str, str], object] = lambda path, reason: None,
        progress: Callable[[int, int], object] = lambda done, total: None,
    ) -> dict[str, list[SearchResult]]:
        """Return the `k` most similar images of each file, by its path.

        Args:
            images: files and folders; a folder stands for all images in it.
            k: as for `search`.
            by: as for `search`.
            refused: called with each file that cannot be decoded, and the reason; the file is skipped.
            progress: called with the number of files done and the total.

        Raises:
            UsageError: a file does not exist, or `k` or `by` is not valid.
        """
        from simimg.image_files import named_files
        from simimg.similarity.search_queries import Query, load_queries

        _check_search(k, by)
        paths = named_files([str(image) for image in images])
        found = {}
        for done, (path, query) in enumerate(load_queries(paths, self._finder.embedder), 1):
            if isinstance(query, Query):
                found[path] = self._finder.find(query, k, by)
            else:
                refused(path, str(query))
            progress(done, len(paths))
        return found

    def close(self) -> None:
        """End its threads."""
        self._finder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _check_search(k: int, by: str) -> None:
    from simimg.similarity.projection import BY

    if k < 1 or by not in BY:
        raise UsageError(f"k={k}, by={by!r}: k should be 1 or more, by one of {', '.join(BY)}.")


def duplicates(
    image_dir: Folder | None = None,
    *,
    index_dir: Folder | None = None,
    model: str = "lite0",
    threshold: float = 0.0,
    edits: Iterable[str] = (),
    reference_dirs: Iterable[Folder] = (),
    keep: Iterable[str] = ("best",),
    plan: Folder | None = None,
    plan_edits: Iterable[str] = (),
    fast: bool = False,
    include: Iterable[str] = (),
    exclude: Iterable[str] = (),
    refused: Callable[[str, str], object] = lambda path, reason: None,
    noted: Callable[[str], object] = lambda text: None,
    progress: Callable[[str, int, int], object] = lambda stage, done, total: None,
) -> Duplicates:
    """Find the copies in an image folder; nothing is moved. What `simimg decide` stored in `index_dir` is honored.

    Args:
        image_dir: the folder, or None for the images of the index as they are.
        index_dir: an index of the folder, which is updated; None makes a temporary one, which is removed at the end,
            so that no plan and no decision refers to it.
        model: as for `index`.
        threshold: minimum similarity of copies, 0.5 to 1; 0 is what `simimg calibrate` found, or 0.9.
        edits: kinds of edits that a copy may show, see `simimg.similarity.edits`; by default all but `exchange` and
            `content`.
        reference_dirs: folders below `image_dir` whose files are always kept.
        keep: which image of a group is kept, by rules in this order: `best` (the default, which always comes last),
            `exif`, `folder:NAME`, `largest`, `newest`, `oldest`, `shortest`.
        plan: also write what to keep and what to remove into this file, for `simimg apply`; the decisions in a plan
            that is replaced are stored.
        plan_edits: with `plan`: kinds of edits by which a copy that is removed may differ; by default `size` and
            `compression`. All other copies are questions. `label` stands for a copy in another class folder.
        fast: find only copies that were at most turned, mirrored, stretched, resized or compressed: no embeddings are
            computed, so `index_dir` is not an index that can be searched.
        include: as for `index`.
        exclude: as for `index`.
        refused: called with each file that cannot be decoded, and the reason; the file is skipped.
        noted: called with each note about what was left out on purpose.
        progress: called with the stage (`indexing`, `comparing`), the number of images done and the total.

    Raises:
        UsageError: no source was given, or an argument is not valid.

    Example:
        >>> found = simimg.duplicates("photos", plan="plan.json")
        >>> [(group.keeper.image.path, len(group.others)) for group in found.groups]
        []
    """
    from simimg.similarity.copy_pairs import check_threshold
    from simimg.similarity.duplicate_groups import find_duplicates
    from simimg.similarity.edits import counted_edits, planned_edits
    from simimg.similarity.keeper_choice import check_keep
    from simimg.similarity.plan_file import is_reference, reference_dirs_of, write_plan
    from simimg.similarity.plan_memory import keep_decisions_of
    from simimg.similarity.search_index import SearchIndex

    check_threshold(threshold)
    counted = counted_edits(edits)
    planned = planned_edits(plan_edits)
    rules = tuple(keep)
    check_keep(rules, None if image_dir is None else Path(image_dir))
    taken, left_out = tuple(include), tuple(exclude)
    if image_dir is None and (taken or left_out):
        raise UsageError("include and exclude are about the files of an image_dir, and there is none.")
    with ExitStack() as stack:
        if image_dir is not None:
            folder = stack.enter_context(_folder_of(index_dir))
            counter = partial(progress, "indexing")
            update = (
                _index_hashes(image_dir, folder, counter, taken, left_out)
                if fast
                else index(image_dir, folder, model=model, progress=counter, include=taken, exclude=left_out)
            )
            opened = dataclasses.replace(update.index, is_temporary=index_dir is None)
            for path, refusal in update.refused:
                refused(path, str(refusal))
            for note in update.notes:
                noted(note)
        elif index_dir is not None:
            opened = SearchIndex.open(Path(index_dir))
        else:
            raise UsageError("name what to look through: image_dir, index_dir, or both.")
        kept_dir = None if index_dir is None else Path(index_dir)
        if plan is not None:
            keep_decisions_of(Path(plan), kept_dir)
        check_keep(rules, None if opened.info.image_dir is None else Path(opened.info.image_dir))
        reference = reference_dirs_of(opened, tuple(str(one) for one in reference_dirs))
        found = find_duplicates(
            opened,
            threshold=threshold or opened.copy_threshold,
            edits=counted,
            folders_are_classes=False if reference or any(rule.startswith("folder:") for rule in keep) else None,
            reference=lambda picture: is_reference(picture.path, reference),
            keep=rules,
            by_hash=fast,
            progress=Counter(partial(progress, "comparing"), len(opened.images)).advance,
        )
        if plan is not None:
            write_plan(Path(plan), opened.files_dir(), found.groups, reference, kept_dir, planned)
    return found


@contextmanager
def _folder_of(index_dir: Folder | None) -> Iterator[Path]:
    """Yield the folder of an index, or a temporary one, of which nothing is left."""
    if index_dir is not None:
        yield Path(index_dir)
        return
    with exit_on_sigterm(), tempfile.TemporaryDirectory(prefix="simimg-") as folder:
        yield Path(folder) / "index"


def _index_hashes(
    image_dir: Folder,
    folder: Folder,
    progress: Callable[[int, int], object],
    include: Sequence[str],
    exclude: Sequence[str],
) -> IndexUpdate:
    from simimg.similarity.embeddings import hashes_alone
    from simimg.similarity.index_update import index_folder
    from tfrecords.convert.sources import Selection

    counter = Counter(progress)
    return index_folder(
        Path(folder),
        Path(image_dir),
        hashes_alone(),
        selection=Selection(include, exclude),
        begin=counter.begin,
        progress=counter.advance,
    )


def leaks(
    dataset_dir: Folder,
    *,
    image_dir: Folder | None = None,
    index_dir: Folder | None = None,
    model: str = "lite0",
    threshold: float = 0.0,
    edits: Iterable[str] = (),
    clean: Folder | None = None,
    deal: str = "first",
    progress: Callable[[str, int, int], object] = lambda stage, done, total: None,
) -> Leaks:
    """Find the copies across a dataset's splits: test images that the model has seen in training.

    Args:
        dataset_dir: the dataset's folder.
        image_dir: folder that it was converted from, to examine the files themselves.
        index_dir: an index of the dataset, which is updated; None makes a temporary one.
        model: as for `index`.
        threshold: as for `duplicates`.
        edits: as for `duplicates`.
        clean: also write an image table (CSV) in which all copies of an image are in one split.
        deal: with `clean`: copies go to the `first` of their splits, or are dealt so that splits keep their `shares`.
        progress: called with the stage (`indexing`, `comparing`), the number of images done and the total.

    Raises:
        UsageError: the folder is not a dataset of `simimg convert`, or an argument is not valid.

    Example:
        >>> simimg.leaks("data/photos/1.0.0", image_dir="photos").affected("test")
        0
    """
    from simimg.similarity.copy_pairs import check_threshold
    from simimg.similarity.edits import counted_edits
    from simimg.similarity.split_leaks import DEALS, find_leaks, write_clean_table

    check_threshold(threshold)
    counted = counted_edits(edits)
    if deal not in DEALS:
        raise UsageError(f"deal={deal!r} should be one of {', '.join(DEALS)}.")
    with _folder_of(index_dir) as folder:
        update = index(image_dir, folder, dataset_dir=dataset_dir, model=model, progress=partial(progress, "indexing"))
        opened = dataclasses.replace(update.index, is_temporary=index_dir is None)
        found = find_leaks(
            opened,
            threshold=threshold or opened.copy_threshold,
            edits=counted,
            deal=deal if clean else None,
            progress=Counter(partial(progress, "comparing"), len(opened.images)).advance,
        )
        if clean is not None and found.cleaned is not None:
            write_clean_table(opened, found.cleaned, Path(clean))
    return found
