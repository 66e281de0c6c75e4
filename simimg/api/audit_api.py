"""The health of a collection of images: `simimg.audit`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from simimg.api.arguments import Folder, here
from simimg.api.copies_api import index_folder_or_temporary
from simimg.api.search_api import update_index
from simimg.errors import UsageError
from tfrecords.locations import path_of

if TYPE_CHECKING:
    from simimg.health.collection_audit import Audit
    from simimg.health.decision_table import Decided


def audit(
    image_dir: Folder | None = None,
    *,
    dataset_dir: Folder | None = None,
    index_dir: Folder | None = None,
    model: str = "lite0",
    kinds: Iterable[str] = (),
    decisions: Folder | None = None,
    include: Iterable[str] = (),
    exclude: Iterable[str] = (),
    exclude_from: Folder | None = None,
    max_pixels: int = 0,
    progress: Callable[[str, int, int], object] = lambda stage, done, total: None,
) -> Audit:
    """Find wrong labels, outliers, bad images, and what is wrong with classes and splits; nothing is changed.

    Args:
        image_dir: folder of images, whose class folders are the labels. With `dataset_dir`, the folder that it was
            converted from, so that files are measured and compared, and not stored pixels.
        dataset_dir: a dataset of `convert`.
        index_dir: an index of the images, which is updated; without `image_dir` and `dataset_dir` it is taken as it
            is. None makes a temporary one.
        model: as for `index`.
        kinds: kinds of findings, see `simimg.health.finding.KINDS`; `image` stands for all that need no embeddings, for
            which no index is made. By default all.
        decisions: CSV file of earlier findings with decisions, which are stored beside the index of `index_dir`. What
            was decided about, there or in the file, is left out.
        include: as for `index`.
        exclude: as for `index`.
        exclude_from: as for `index`.
        max_pixels: as for `index`.
        progress: called with the stage (`indexing`, `measuring`, `judging`, `comparing`), the number of images done
            and the total.

    Raises:
        UsageError: no source was given, or an argument is not valid.

    Example:
        >>> found = simimg.audit("photos", kinds=["image"])
        >>> found.num_images, [one.path for one in found.of("blurred")]
        (40, [])
    """
    from simimg.health.audited_images import AuditedImages
    from simimg.health.collection_audit import audit_images, needs_index, wanted_kinds
    from simimg.health.decision_table import read_finding_decisions
    from simimg.health.finding import KINDS
    from simimg.health.findings_file import save_findings
    from simimg.similarity.remote_index import local_index
    from simimg.similarity.search_index import SearchIndex
    from tfrecords.convert.sources import Selection
    from tfrecords.storage.remote_dataset import local_dataset

    wanted = wanted_kinds(tuple(kinds))
    decided = {} if decisions is None else read_finding_decisions(here(decisions, "decisions"))
    selection = Selection(tuple(include), tuple(exclude), str(exclude_from or ""), str(image_dir or ""))
    if image_dir is None and dataset_dir is None and index_dir is None:
        raise UsageError("name what to audit: image_dir, dataset_dir or index_dir.")
    if selection.has_patterns and (image_dir is None or dataset_dir is not None):
        raise UsageError("include, exclude and exclude_from are about the files of an image_dir alone.")
    files_in = None if image_dir is None else here(image_dir, "image_dir")
    with ExitStack() as stack:
        opened: SearchIndex | None = None
        if image_dir is None and dataset_dir is None and index_dir is not None:
            opened = SearchIndex.open(path_of(index_dir))
            audited = AuditedImages.of_index(opened)
        elif needs_index(wanted):
            folder = stack.enter_context(index_folder_or_temporary(index_dir))
            update = update_index(
                image_dir,
                folder,
                dataset_dir=dataset_dir,
                model=model,
                selection=selection,
                max_pixels=max_pixels,
                progress=partial(progress, "indexing"),
            )
            opened = dataclasses.replace(update.index, is_temporary=index_dir is None)
            audited = dataclasses.replace(
                AuditedImages.of_index(opened),
                refused=tuple((path, str(refusal)) for path, refusal in update.refused),
                notes=update.notes,
            )
        elif dataset_dir is not None:
            audited = AuditedImages.of_dataset(local_dataset(dataset_dir), files_in)
        else:
            assert files_in is not None
            audited = AuditedImages.of_folder(files_in, selection)
        found = audit_images(audited, wanted, opened, max_pixels=max_pixels, progress=progress)
        if opened is not None and index_dir is not None and wanted == frozenset(KINDS):
            save_findings(opened, found)
        kept_dir = None if opened is None or index_dir is None else opened.index_dir
        if opened is None and index_dir is not None:
            kept_dir = local_index(index_dir, whole=False)
        return _settled(found, decided, kept_dir)


def _settled(found: Audit, decided: Decided, index_dir: Path | None) -> Audit:
    """Return an audit without what was decided about, in the folder of the index or a file; the latter is stored."""
    from simimg.health.decision_table import decided_among, decision_events, settling
    from simimg.similarity.decisions import Decision, Decisions, read_decisions, record

    kept_dir = index_dir if index_dir is not None and index_dir.is_dir() else None
    decisions = Decisions() if kept_dir is None else read_decisions(kept_dir)
    audited = found.audited
    if not all(image.sha256 for image in audited.images) and (decided or decisions.findings):
        audited = audited.with_checksums({one.path for one in found.findings} | {path for path, _ in decided})

    def events(known: Decisions) -> list[Decision]:
        return decision_events(decided, audited.images, known)

    new = events(decisions) if decided else []
    if new and kept_dir is not None:
        decisions = record(kept_dir, events)
    else:
        for event in new:
            decisions.add(event)
    settled = decided_among(audited.images, decisions, found.findings, decided)
    by = settling(found.findings, settled)
    pairs = list(zip(found.findings, by, strict=True))
    left = tuple(one for one, decision in pairs if decision is None)
    return dataclasses.replace(
        found,
        findings=left,
        num_left_out=len(pairs) - len(left),
        decided=settled,
        settled=tuple(one for one, decision in pairs if decision is not None),
    )
