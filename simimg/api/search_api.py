"""Search indexes, and searches in them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

from simimg.api.arguments import Counter, Folder, here
from simimg.errors import UsageError
from tfrecords.locations import path_of

if TYPE_CHECKING:
    from PIL import Image

    from simimg.similarity.index_update import IndexUpdate
    from simimg.similarity.query_search import SearchResult
    from simimg.similarity.search_index import SearchIndex
    from tfrecords.convert.sources import Selection
    from tfrecords.convert.workers.runner import Runner


def index(
    image_dir: Folder | None = None,
    index_dir: Folder = "index",
    *,
    dataset_dir: Folder | None = None,
    model: str = "lite0",
    precision: str = "auto",
    include: Iterable[str] = (),
    exclude: Iterable[str] = (),
    exclude_from: Folder | None = None,
    max_pixels: int = 0,
    engine: str = "local",
    ray_address: str = "",
    num_gpus_per_worker: float = 0.0,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> IndexUpdate:
    """Create or update a search index of an image folder or a dataset.

    Args:
        image_dir: folder of images, searched at any depth; its top-level folders are the labels.
        index_dir: folder or URL of the index, new or existing.
        dataset_dir: dataset to index instead of `image_dir`; with both, `image_dir` is where its files lie.
        model: name of a shipped model, the folder of a run, or an ONNX file (extra `onnx`) and what it does not say,
            such as `model.onnx,size=224,range=imagenet`.
        precision: of the embeddings: `float32`; `bfloat16`, twice as fast on processors that have it, with the extra
            `fast`; or `auto`, that of the existing index. A new one of 500 images or more gets the one that is measured
            to be faster on this machine, or else float32.
        include: patterns of the files of `image_dir` to take, such as `cat/*.jpg`; by default all. See
            `tfrecords.convert.sources.selection`. Files that an index has and that are not taken leave it.
        exclude: patterns of files and folders to leave out.
        exclude_from: a list of paths to leave out, see `tfrecords.convert.sources.excluded_paths`.
        max_pixels: files with more pixels are skipped; 0 for the limit of the model's dataset, or 178,956,970.
        engine: what embeds files: `local`, this process; or `ray` (extra `ray`), tasks on a cluster.
        ray_address: HOST:PORT of the cluster, or `auto` for that of this machine; "" starts Ray here.
        num_gpus_per_worker: of each task on Ray; without, it computes on a core.
        progress: called with the number of images done and the total.

    Raises:
        UsageError: neither source was given, or it has no images.
        SearchIndexError: the index was made with another model, or is damaged.

    Example:
        >>> made = simimg.index("photos", "indexes/photos")
        >>> made.num_embedded, len(made.refused)
        (40, 2)
    """
    from tfrecords.convert.sources import Selection

    return update_index(
        image_dir,
        index_dir,
        dataset_dir=dataset_dir,
        model=model,
        precision=precision,
        selection=Selection(tuple(include), tuple(exclude), str(exclude_from or ""), str(image_dir or "")),
        max_pixels=max_pixels,
        engine=engine,
        ray_address=ray_address,
        num_gpus_per_worker=num_gpus_per_worker,
        progress=progress,
    )


def update_index(
    image_dir: Folder | None,
    index_dir: Folder,
    *,
    dataset_dir: Folder | None = None,
    model: str,
    precision: str = "auto",
    selection: Selection,
    max_pixels: int,
    engine: str = "local",
    ray_address: str = "",
    num_gpus_per_worker: float = 0.0,
    progress: Callable[[int, int], object],
    also: Callable[[str, bytes], object] | None = None,
) -> IndexUpdate:
    """Do what `index` does, with what it takes as `selection`; for `also`, see `simimg.image_files.load_files`."""
    from simimg.similarity.embeddings import load_embedder
    from simimg.similarity.index_update import index_dataset, index_folder
    from simimg.similarity.remote_index import updated_index
    from simimg.similarity.search_index import index_precision
    from tfrecords.storage.remote_dataset import local_dataset

    stored = None if dataset_dir is None else local_dataset(dataset_dir)
    files_in = None if image_dir is None else here(image_dir, "image_dir")
    counter = Counter(progress)
    calls = {"begin": counter.begin, "progress": counter.advance}
    if dataset_dir is None and files_in is None:
        raise UsageError("name what to index: image_dir, or dataset_dir.")
    if dataset_dir is not None and selection.has_patterns:
        raise UsageError(
            "include, exclude and exclude_from are about the files of an image_dir; a dataset is indexed as a whole."
        )
    runner_of = task_runner(engine, ray_address, num_gpus_per_worker)
    with updated_index(index_dir) as folder:
        if precision == "auto":
            precision = index_precision(folder) or _new_precision(model, stored, files_in)
        embedder = load_embedder(model, precision=precision, many=engine == "local").with_limit(max_pixels)
        if stored is not None:
            return index_dataset(folder, stored, embedder, image_dir=files_in, runner_of=runner_of, **calls)
        assert files_in is not None
        return index_folder(folder, files_in, embedder, selection=selection, runner_of=runner_of, also=also, **calls)


def task_runner(
    engine: str, ray_address: str = "", num_gpus: float = 0.0
) -> Callable[[Callable[[int], str]], Runner] | None:
    """Return what makes the runner of an engine's tasks, see `index_folder`; None for `local`, which has none."""
    from tfrecords.convert.workers.runner import open_runner

    if engine == "local":
        return None
    return functools.partial(open_runner, engine, ray_address=ray_address, num_gpus=num_gpus)


def _new_precision(model: str, dataset_dir: Path | None, image_dir: Path | None) -> str:
    """Return the precision of a new index; for a few images, nothing is measured."""
    from simimg.inference.network import MANY
    from simimg.inference.precision_choice import faster_precision
    from tfrecords.convert.sources.image_folder import has_files
    from tfrecords.format.layout import Layout

    if dataset_dir is not None:
        splits = Layout.load(dataset_dir).splits.values() if Layout.exists(dataset_dir) else ()
        many = sum(shard.num_examples for shards in splits for shard in shards) >= MANY
    else:
        many = image_dir is not None and image_dir.is_dir() and has_files(image_dir, MANY)
    return faster_precision(model) if many else "float32"


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

    def __init__(
        self,
        index_dir: Folder,
        *,
        once: bool = False,
        edits: Iterable[str] = (),
        max_pixels: int = 0,
        text_model: str = "",
    ) -> None:
        """Open an index; `once` is for a search or two, which then take less memory. For `edits`, see `duplicates`, and
        for `max_pixels`, `index`. `text_model` is an ONNX file and what it does not say, for `search_text`.

        Raises:
            UsageError: there is no such kind of edit, or the index was not made by the image encoder of the pair.
            SearchIndexError: the folder is not an index, is damaged, or its model has changed.
        """
        from simimg.similarity.edits import counted_edits
        from simimg.similarity.query_search import Finder
        from simimg.similarity.search_index import SearchIndex

        counted = counted_edits(edits)
        self.index: SearchIndex = dataclasses.replace(SearchIndex.open(path_of(index_dir)), once=once)
        self._text = None
        if text_model:
            from simimg.similarity.text_encoder import open_text_encoder

            self._text = open_text_encoder(text_model)
            self._text.check(self.index)
        self._finder = Finder(self.index, self.index.load_embedder().with_limit(max_pixels), edits=counted)

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

    def search_text(self, text: str, *, k: int = 5) -> list[SearchResult]:
        """Return the `k` images that fit a text best; their similarity is the cosine, and none is a copy.

        Raises:
            UsageError: the searcher has no `text_model`, the text is empty or too long, or `k` is not valid.
        """
        _check_search(k, "kind")
        if self._text is None:
            raise UsageError("a search for a text needs the text encoder of the index's model: text_model=TEXT.onnx.")
        return self._finder.find_text(self._text.embed(text), k)

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
