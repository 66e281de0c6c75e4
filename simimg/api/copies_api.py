"""The copies in an image folder, and those across the splits of a dataset."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from simimg.api.arguments import Counter, Folder, here
from simimg.api.search_api import index, task_runner, update_index
from simimg.errors import UsageError
from simimg.signals import exit_on_sigterm
from tfrecords.locations import path_of

if TYPE_CHECKING:
    from simimg.similarity.duplicate_groups import Duplicates
    from simimg.similarity.index_update import IndexUpdate
    from simimg.similarity.split_leaks import Leaks
    from tfrecords.convert.sources import Selection


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
    exclude_from: Folder | None = None,
    max_pixels: int = 0,
    engine: str = "local",
    ray_address: str = "",
    num_workers: int = 1,
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
            computed, so `index_dir` is not an index that can be searched. Only what a plan may remove is compared at
            full size.
        include: as for `index`.
        exclude: as for `index`.
        exclude_from: as for `index`.
        max_pixels: as for `index`.
        engine: what reads, embeds and compares images: `local`, this process; or `ray` (extra `ray`), tasks on a
            cluster, which need an `index_dir` that all nodes see.
        ray_address: as for `index`.
        num_workers: with `fast`: processes that find the copies of a large folder; 0 is one per core. With more than
            one, a script has to call it under `if __name__ == "__main__":`.
        refused: called with each file that cannot be decoded, and the reason; the file is skipped.
        noted: called with each note about what was left out on purpose.
        progress: called with the stage (`indexing`, `comparing`; also `examining`, whose unit are pairs of images, with
            tasks), the number of images done and the total.

    Raises:
        UsageError: no source was given, or an argument is not valid.

    Example:
        >>> found = simimg.duplicates("photos", plan="plan.json")
        >>> [(group.keeper.image.path, len(group.others)) for group in found.groups]
        []
    """
    from simimg.similarity.candidate_pairs import check_threshold
    from simimg.similarity.duplicate_groups import find_duplicates
    from simimg.similarity.edits import counted_edits, planned_edits
    from simimg.similarity.fingerprint import prepare_fingerprint
    from simimg.similarity.fingerprint_store import FingerprintStore
    from simimg.similarity.hash_duplicates import find_by_hash
    from simimg.similarity.keeper_choice import check_keep
    from simimg.similarity.pair_tasks import pair_tasks
    from simimg.similarity.plan_file import is_reference, reference_dirs_of, write_plan
    from simimg.similarity.plan_memory import keep_decisions_of
    from simimg.similarity.search_index import SearchIndex
    from tfrecords.convert.sources import Selection
    from tfrecords.convert.workers.runner import open_runner

    check_threshold(threshold)
    counted = counted_edits(edits)
    planned = planned_edits(plan_edits)
    rules = tuple(keep)
    check_keep(rules, None if image_dir is None else here(image_dir, "image_dir"))
    selection = Selection(tuple(include), tuple(exclude), str(exclude_from or ""), str(image_dir or ""))
    if image_dir is None and selection.has_patterns:
        raise UsageError("include, exclude and exclude_from are about the files of an image_dir, and there is none.")
    with ExitStack() as stack:
        if image_dir is not None:
            folder = stack.enter_context(index_folder_or_temporary(index_dir, engine))
            store = FingerprintStore(None if index_dir is None or engine != "local" else folder)
            counter = partial(progress, "indexing")
            update = (
                _index_hashes(image_dir, folder, max_pixels, counter, selection)
                if fast
                else update_index(
                    image_dir,
                    folder,
                    model=model,
                    max_pixels=max_pixels,
                    progress=counter,
                    selection=selection,
                    engine=engine,
                    ray_address=ray_address,
                    also=partial(prepare_fingerprint, store=store),
                )
            )
            opened = dataclasses.replace(update.index, is_temporary=index_dir is None)
            if engine != "local":
                store = FingerprintStore(opened.index_dir)
            for path, refusal in update.refused:
                refused(path, str(refusal))
            for note in update.notes:
                noted(note)
        elif index_dir is not None:
            opened = SearchIndex.open(path_of(index_dir))
            store = FingerprintStore(opened.index_dir)
        else:
            raise UsageError("name what to look through: image_dir, index_dir, or both.")
        kept_dir = None if index_dir is None else opened.index_dir
        if plan is not None:
            keep_decisions_of(here(plan, "plan"), kept_dir)
        check_keep(rules, None if opened.info.image_dir is None else Path(opened.info.image_dir))
        reference = reference_dirs_of(opened, tuple(str(one) for one in reference_dirs))
        runner_of = task_runner(engine, ray_address)
        if fast and opened.is_temporary and num_workers != 1:
            runner_of = partial(open_runner, engine, num_workers=num_workers)
        tasks = stack.enter_context(pair_tasks(opened, runner_of, partial(progress, "examining")))
        find = partial(find_by_hash, compared=planned) if fast else find_duplicates
        found = find(
            opened,
            threshold=threshold or opened.copy_threshold,
            edits=counted,
            folders_are_classes=False if reference or any(rule.startswith("folder:") for rule in keep) else None,
            reference=lambda picture: is_reference(picture.path, reference),
            keep=rules,
            store=store,
            tasks=tasks,
            progress=Counter(partial(progress, "comparing"), len(opened.images)).advance,
        )
        if plan is not None:
            write_plan(here(plan, "plan"), opened.files_dir(), found.groups, reference, kept_dir, planned)
    return found


@contextmanager
def index_folder_or_temporary(index_dir: Folder | None, engine: str = "local") -> Iterator[Path]:
    """Yield the folder of an index that is updated, or a temporary one, of which nothing is left.

    For an engine of several machines it is `index_dir` itself: an index at a URL is then sent as soon as it is updated,
    so that all see it. Raises UsageError if it has none: a temporary folder is of this machine alone.
    """
    from simimg.similarity.remote_index import updated_index

    if index_dir is not None and engine != "local":
        yield path_of(index_dir)
        return
    if index_dir is not None:
        with updated_index(index_dir) as index_folder:
            yield index_folder
        return
    if engine != "local":
        raise UsageError(f"engine={engine!r} needs an index_dir that all nodes see, or at a URL.")
    with exit_on_sigterm(), tempfile.TemporaryDirectory(prefix="simimg-") as folder:
        yield Path(folder) / "index"


def _index_hashes(
    image_dir: Folder,
    folder: Folder,
    max_pixels: int,
    progress: Callable[[int, int], object],
    selection: Selection,
) -> IndexUpdate:
    from simimg.similarity.embeddings import hashes_alone
    from simimg.similarity.index_update import index_folder

    counter, embedder = Counter(progress), hashes_alone().with_limit(max_pixels)
    return index_folder(
        Path(folder),
        here(image_dir, "image_dir"),
        embedder,
        selection=selection,
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
    engine: str = "local",
    ray_address: str = "",
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
        engine: as for `duplicates`.
        ray_address: as for `index`.
        progress: as for `duplicates`.

    Raises:
        UsageError: the folder is not a dataset of `simimg convert`, or an argument is not valid.

    Example:
        >>> simimg.leaks("data/photos/1.0.0", image_dir="photos").affected("test")
        0
    """
    from simimg.similarity.candidate_pairs import check_threshold
    from simimg.similarity.edits import counted_edits
    from simimg.similarity.pair_tasks import pair_tasks
    from simimg.similarity.split_leaks import DEALS, find_leaks, write_clean_table

    check_threshold(threshold)
    counted = counted_edits(edits)
    if deal not in DEALS:
        raise UsageError(f"deal={deal!r} should be one of {', '.join(DEALS)}.")
    with ExitStack() as stack:
        folder = stack.enter_context(index_folder_or_temporary(index_dir, engine))
        update = index(
            image_dir,
            folder,
            dataset_dir=dataset_dir,
            model=model,
            engine=engine,
            ray_address=ray_address,
            progress=partial(progress, "indexing"),
        )
        opened = dataclasses.replace(update.index, is_temporary=index_dir is None)
        runner_of = task_runner(engine, ray_address)
        found = find_leaks(
            opened,
            threshold=threshold or opened.copy_threshold,
            edits=counted,
            deal=deal if clean else None,
            tasks=stack.enter_context(pair_tasks(opened, runner_of, partial(progress, "examining"))),
            progress=Counter(partial(progress, "comparing"), len(opened.images)).advance,
        )
        if clean is not None and found.cleaned is not None:
            write_clean_table(opened, found.cleaned, here(clean, "clean"))
    return found
