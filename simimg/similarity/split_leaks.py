"""Copies across the splits of a dataset: test images that the model was trained on, and how to clean the splits.

Pairs of copies are found as in `simimg.similarity.copy_pairs`, but only between splits: each image is compared with
those of the other splits. Splits are ordered by their use, `train` first and `test` last, and the later split of a pair
is the affected one.

A split is clean if none of its images is a copy of an image in another split. To clean the splits, copies are joined
to groups, and each group is assigned to one split:

first    To the earliest split that it is in, as `simimg convert` assigns groups. Nothing leaves the training split, so
         a model that was trained before can be evaluated on the images that remain in the test split.
shares   To that one of its splits that lacks most images of its class. Splits keep their sizes even if every photo has
         copies, as in a dataset that was augmented before it was split. Models have to be trained again.

A moved image has other neighbors in its new split, so the search is repeated until it finds no pair. The clean splits
are written as a table, from which `simimg convert` makes the clean dataset.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import shlex
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from pathlib import Path

import numpy as np

from simimg.similarity.candidate_pairs import identical_rows
from simimg.similarity.copy_pairs import PairExaminer
from simimg.similarity.edits import COUNTED
from simimg.similarity.image_table import IndexedImage
from simimg.similarity.match_verification import SAME_BYTES, SAME_FILE, Verification
from simimg.similarity.pair_tasks import PairTasks
from simimg.similarity.search_index import SearchIndex
from tfrecords.convert.sources import natural_key
from tfrecords.format.atomic_files import atomic_file
from tfrecords.format.layout import Layout
from tfrecords.format.manifest import read_manifest

DEALS = ("first", "shares")

_COLUMNS = ("path", "label", "split")
# Options that the new conversion takes over; `splits` and `copies` are determined by the table.
_KEPT = (
    *("image_size", "resize", "channels", "decode", "truncated", "background", "range", "max_pixels"),
    *("encoding", "jpeg_quality", "seed"),
)


@dataclasses.dataclass(frozen=True, slots=True)
class LeakedPair:
    """An image that is a copy of the other one, in an earlier split; both rows are those of the index.

    The similarity is 0.5..1. The reason is what was done to the image, if the other one is the original, and the edits
    are its kinds, see `simimg.similarity.edits`.
    """

    row: int
    image: IndexedImage
    other_row: int
    other: IndexedImage
    similarity: float
    reason: str
    edits: frozenset[str] = frozenset()

    @property
    def picture(self) -> IndexedImage:
        """The earlier name of `image`."""
        return self.image


@dataclasses.dataclass(frozen=True, slots=True)
class Leaks:
    """The splits of a dataset in the order of their use, their sizes, and the pairs of copies, most similar first.

    Attributes:
        cleaned: the clean split of each row; None if clean splits were not requested.
        num_pairs_examined: pairs that were verified.
        num_stored: images that were verified by their stored pixels.
        num_missing: images that could not be read.
        num_left_out: decisions because of which pairs are not among them.
        index: that of the dataset; its rows are those of the pairs.
    """

    splits: tuple[str, ...]
    num_images: dict[str, int]
    pairs: tuple[LeakedPair, ...]
    cleaned: tuple[str, ...] | None
    num_pairs_examined: int
    num_stored: int
    num_missing: int
    num_left_out: int = 0
    index: SearchIndex = dataclasses.field(kw_only=True, repr=False, compare=False)

    def affected(self, split: str, by: str = "") -> int:
        """Return how many images of a split are copies of images in the earlier split `by`, or in any earlier one."""
        return len({pair.row for pair in self.pairs if pair.image.split == split and by in ("", pair.other.split)})


def find_leaks(
    index: SearchIndex,
    *,
    threshold: float,
    edits: frozenset[str] = COUNTED,
    deal: str | None = None,
    tasks: PairTasks | None = None,
    progress: Callable[[int], object] = lambda num_images: None,
) -> Leaks:
    """Return the copies, of a similarity of `threshold` (0.5..1) or more, across the splits of an index of a dataset.

    `edits` are the kinds of edits that a copy may show, see `simimg.similarity.edits`. With `deal`, one of `DEALS`,
    clean splits are computed as well. For `tasks`, see `PairExaminer`. `progress` is called with the number of images
    since its last call.
    """
    if deal is not None and deal not in DEALS:
        raise ValueError(f"`deal` should be one of {DEALS}. Received: deal={deal!r}")
    split_names = index.images.column("split").tolist()
    names = tuple(sorted(dict.fromkeys(split_names), key=lambda name: (name != "train", name == "test")))
    splits = np.array([names.index(name) for name in split_names], np.int64)
    labels = np.unique(index.images.column("label").astype(str), return_inverse=True)[1]
    with closing(PairExaminer(index, threshold, edits, tasks=tasks)) as examiner:
        edges = _edges(examiner, splits, progress)
        pairs = _pairs(examiner, splits, edges)
        dealt, joined = splits, edges
        while deal is not None and edges:
            dealt = deal_groups(splits, labels, joined, deal)
            edges = _edges(examiner, dealt, lambda num_images: None)
            joined = joined + edges
        return Leaks(
            splits=names,
            num_images=dict(Counter(split_names)),
            pairs=tuple(pairs),
            cleaned=None if deal is None else tuple(names[split] for split in dealt.tolist()),
            num_pairs_examined=examiner.num_examined,
            num_stored=len(examiner.images.stored),
            num_missing=len(examiner.images.missing),
            num_left_out=len(examiner.settling),
            index=index,
        )


def copies_between(
    index: SearchIndex,
    kinds: np.ndarray,
    *,
    threshold: float,
    edits: frozenset[str] = COUNTED,
    progress: Callable[[int], object] = lambda num_images: None,
) -> list[LeakedPair]:
    """Return the pairs of copies of two kinds, such as labels; the image of the larger number comes first in each.

    `kinds` are int64 `[num_images]`, 0 and more. The other arguments are those of `find_leaks`.
    """
    with closing(PairExaminer(index, threshold, edits)) as examiner:
        return _pairs(examiner, kinds, _edges(examiner, kinds, progress))


def deal_groups(splits: np.ndarray, labels: np.ndarray, pairs: Iterable[tuple[int, int]], deal: str) -> np.ndarray:
    """Return a split for each image that keeps copies together: int64 `[num_images]`.

    Args:
        splits: int64 `[num_images]`, the current splits; 0 is the earliest.
        labels: int64 `[num_images]`; a group belongs to the class of its first image.
        pairs: rows of copies.
        deal: one of `DEALS`.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    listed = np.array(list(pairs), np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(listed), bool), (listed[:, 0], listed[:, 1])), shape=(len(splits),) * 2)
    num_groups, groups = connected_components(graph, directed=False)
    earliest, latest = np.full(num_groups, splits.max(initial=0)), np.zeros(num_groups, np.int64)
    np.minimum.at(earliest, groups, splits)
    np.maximum.at(latest, groups, splits)
    if deal == "first":
        return earliest[groups]
    dealt = splits.copy()
    members: dict[int, list[int]] = defaultdict(list)
    for row in np.flatnonzero((earliest < latest)[groups]).tolist():
        members[int(groups[row])].append(row)
    lacks = Counter((labels[row], splits[row]) for rows in members.values() for row in rows)
    for rows in sorted(members.values(), key=lambda rows: (-len(rows), rows[0])):
        label = labels[rows[0]]
        chosen = max(sorted({int(splits[row]) for row in rows}), key=lambda split: lacks[label, split])
        lacks[label, chosen] -= len(rows)
        dealt[rows] = chosen
    return dealt


def write_clean_table(index: SearchIndex, splits: tuple[str, ...], path: Path) -> None:
    """Write a CSV file with the path, label and given split of each row of an index of a dataset, by example id.

    The folder of the file is created.
    """
    folder = index.info.dataset_folder
    assert folder is not None
    id_of = {row.path: row.id for row in read_manifest(folder)}
    images = sorted(zip(index.images, splits, strict=True), key=lambda one: id_of[one[0].path])
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows((index.name_of(image.path), image.label, split) for image, split in images)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file:
        file.write(text.getvalue().encode(errors="surrogateescape"))


def clean_command(index: SearchIndex, table: Path, image_dir: Path | None) -> str:
    """Return the command line that makes the clean dataset, with the options of the existing one, which was indexed.

    The paths in `table`, see `write_clean_table`, are relative to `image_dir`; FOLDER is printed if it is not known.
    """
    folder = index.info.dataset_folder
    assert folder is not None
    layout = Layout.load(folder)
    config: Mapping[str, object] = layout.config
    flags = {
        "table": table,
        "image_dir": image_dir or "FOLDER",
        "splits": "source",
        "name": f"{layout.name}_clean",
        **{name: config[name] for name in _KEPT if name in config},
    }
    used = set(index.images.column("label").tolist())
    names = [name for name in layout.counted_names if name in used]
    if names != sorted(names, key=natural_key):  # the order in which the labels of a table are numbered
        flags["categories"] = ",".join(names)
    return "simimg convert " + " ".join(f"--{name}={shlex.quote(str(value))}" for name, value in flags.items())


def _edges(examiner: PairExaminer, splits: np.ndarray, progress: Callable[[int], object]) -> list[tuple[int, int]]:
    """Return pairs of copies in two splits; a file is paired with the first identical file of each other split."""
    sha256 = examiner.index.images.column("sha256")
    first_of: dict[str, dict[int, int]] = defaultdict(dict)
    for row in examiner.examine_all(progress, splits):
        first_of[sha256[row]][int(splits[row])] = row
    edges = [pair for pair in examiner.copies if splits[pair[0]] != splits[pair[1]]]
    for row in range(len(splits)):
        edges += [(other, row) for split, other in first_of[sha256[row]].items() if split != splits[row]]
    return edges


def _pairs(examiner: PairExaminer, splits: np.ndarray, edges: list[tuple[int, int]]) -> list[LeakedPair]:
    pictures = examiner.index.images
    sha256 = pictures.column("sha256")
    identical = identical_rows(examiner.images, splits)
    pairs: dict[tuple[int, int], LeakedPair] = {}
    for pair in edges:
        other, row = sorted(pair, key=lambda one: (splits[one], one))
        if sha256[row] == sha256[other]:
            identity = examiner.index.file_identity(row)
            is_same = identity is not None and identity == examiner.index.file_identity(other)
            rows, found = [row], Verification(1.0, (SAME_FILE if is_same else SAME_BYTES,), 0)
        else:
            copy = examiner.copy(row, other)
            assert copy is not None
            rows, found = identical[row], copy
        for each in rows:
            pairs[each, other] = LeakedPair(
                each, pictures[each], other, pictures[other], found.similarity, found.text, found.edits
            )
    return sorted(pairs.values(), key=lambda pair: (-pair.similarity, pair.row, pair.other_row))
