"""ShardPlan: which image goes into which shard. Pure functions.

A first plan is made before a pixel is read, from names and seed alone and independent of the number of workers, so one
worker or sixty-four write the same bytes. After all images are decoded, their copies are known; `rebalance` then moves
images whose copies would lie in another split. A file that cannot be decoded leaves its shard one record shorter.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from tfrecords.format.image_size import ImageSize, num_pixels
from tfrecords.format.naming import TFRECORD, shard_name

# Large enough to be read in long stretches, small enough to be written again quickly after a crash.
SHARD_BYTES = 64 * 2**20
# Work for eight processes even in a small dataset, unless a shard would then hold less than a batch or two.
MIN_SHARDS = 8
MIN_EXAMPLES_PER_SHARD = 64
# A few images of a large camera are work for eight processes, too: each takes a fifth of a second to decode.
MIN_SOURCE_BYTES_PER_SHARD = 16 * 2**20
# A JPEG at quality 95 has about an eighth of the bytes of its pixels.
COMPRESSION = {"raw": 1, "jpeg": 8, "png": 2}


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class PlannedShard:
    """One shard to be written: its file name, and the rows of the source in it, in the order of its records."""

    file: str
    split: str
    shard: int
    rows: np.ndarray  # int64 [num_files]
    changed: bool = False  # not a shard of the first plan, or one that gained or lost a record


@dataclasses.dataclass(frozen=True, eq=False)
class ShardPlan:
    """All shards of the dataset `name`, in `file_format`, or those that are appended to it, split by split.

    `num_before` is the number of existing shards by split; new shards are numbered after them.
    """

    name: str
    splits: Sequence[str]
    num_before: Mapping[str, int]
    shards: tuple[PlannedShard, ...]
    file_format: str = TFRECORD


def num_shards(
    num_examples: int, image_size: ImageSize, encoding: str, source_bytes: int = 0, channels: int = 3
) -> int:
    """Return the number of shards of a split with `num_examples` images of `image_size` px and `channels`; at least 1.

    `source_bytes` is the total size of the examples' files, as far as it is known. An `image_size` of 0 is that of the
    files.
    """
    num_bytes = source_bytes
    if image_size:
        num_bytes = -(-num_examples * num_pixels(image_size) * channels // COMPRESSION[encoding])
    by_size = -(-num_bytes // SHARD_BYTES)
    by_work = max(num_examples // MIN_EXAMPLES_PER_SHARD, min(source_bytes // MIN_SOURCE_BYTES_PER_SHARD, num_examples))
    return max(1, by_size, min(MIN_SHARDS, by_work))


def make_plan(
    name: str,
    rows: np.ndarray,
    split_of: np.ndarray,
    ranks: np.ndarray,
    *,
    splits: Sequence[str],
    image_size: ImageSize,
    encoding: str,
    sizes: np.ndarray | None = None,
    num_before: Mapping[str, int] = {},
    file_format: str = TFRECORD,
    channels: int = 3,
) -> ShardPlan:
    """Return the plan: the images of each split in a seeded random order, cut into shards of nearly equal length.

    The order within the shards is already random, so a reader that can only stream sees all classes early. A split
    without images has no shard.

    Args:
        name: as in `ShardPlan`.
        rows: int64 `[num_images]`, the rows of the source to convert.
        split_of: int8 `[num_rows]`, the index in `splits` of each row of the source.
        ranks: uint64 `[num_rows]`, the order within a split, by row of the source.
        splits: the names of the splits.
        image_size: px.
        encoding: of the shards.
        sizes: int64 `[num_rows]`, bytes, by row of the source; negative if unknown.
        num_before: as in `ShardPlan`.
        file_format: of the shards; nothing but their names depends on it.
        channels: of the images.
    """
    shards = []
    for number, split in enumerate(splits):
        members = rows[split_of[rows] == number]
        if not len(members):
            continue
        members = members[np.lexsort((members, ranks[members]))]
        before = num_before.get(split, 0)
        source_bytes = 0 if sizes is None else int(np.maximum(sizes[members], 0).sum())
        count = num_shards(len(members), image_size, encoding, source_bytes, channels)
        for shard in range(count):
            part = members[len(members) * shard // count : len(members) * (shard + 1) // count]
            file = shard_name(name, split, before + shard, before + count, file_format)
            shards.append(PlannedShard(file=file, split=split, shard=before + shard, rows=part))
    return ShardPlan(name, splits, num_before, tuple(shards), file_format)


def without_rows(plan: ShardPlan, rows: np.ndarray) -> ShardPlan:
    """Return `plan` without some rows of the source, int64 `[n]`; shards without a change stay as they are."""
    shards = []
    for shard in plan.shards:
        staying = shard.rows[~np.isin(shard.rows, rows)]
        if len(staying) < len(shard.rows):
            shard = dataclasses.replace(shard, rows=staying, changed=True)
        shards.append(shard)
    return dataclasses.replace(plan, shards=tuple(shards))


def rebalance(plan: ShardPlan, split_of: np.ndarray, ranks: np.ndarray) -> ShardPlan:
    """Return `plan` with each image in the split that `split_of` now gives it; shards without a change stay as they
    are.

    A shard holds a range of ranks, so an image that changes its split goes to the shard whose range contains its rank.
    An image that goes to a split without a shard gets a new one.

    Args:
        plan: from `make_plan`.
        split_of: int8 `[num_rows]`, by row of the source; rows that are not in `plan` are ignored.
        ranks: uint64 `[num_rows]`, by row of the source.
    """
    planned = [(shard, plan.splits.index(shard.split)) for shard in plan.shards]
    leaving = [shard.rows[split_of[shard.rows] != number] for shard, number in planned]
    moved = np.concatenate([*leaving, np.empty(0, np.int64)])
    if not len(moved):
        return plan

    result = []
    for number, split in enumerate(plan.splits):
        shards = [shard for shard, own in planned if own == number]
        arriving = moved[split_of[moved] == number]
        if not shards and len(arriving):
            before = plan.num_before.get(split, 0)
            file = shard_name(plan.name, split, before, before + 1, plan.file_format)
            shards = [PlannedShard(file, split, before, np.empty(0, np.int64), changed=True)]
        starts = np.array([ranks[shard.rows[0]] if len(shard.rows) else 0 for shard in shards], np.uint64)
        places = np.maximum(np.searchsorted(starts, ranks[arriving], side="right") - 1, 0)
        for place, shard in enumerate(shards):
            staying = shard.rows[split_of[shard.rows] == number]
            coming = arriving[places == place]
            if len(coming) or len(staying) < len(shard.rows):
                rows = np.concatenate((staying, coming))
                rows = rows[np.lexsort((rows, ranks[rows]))]
                shard = dataclasses.replace(shard, rows=rows, changed=True)
            result.append(shard)
    return dataclasses.replace(plan, shards=tuple(result))
