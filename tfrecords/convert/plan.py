"""ShardPlan: which example goes into which shard, decided before a pixel is read. Pure, and printable.

The plan depends on the files and the configuration alone, never on how many workers there are, so one worker or
sixty-four write the same bytes. A file that turns out to be undecodable leaves its shard one record shorter.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from tfrecords.convert.sources import ImageFile
from tfrecords.convert.split import rank
from tfrecords.format.naming import shard_name

__all__ = ["PlannedShard", "ShardPlan", "make_plan", "num_shards"]

# Large enough that a shard is read in long stretches, small enough that one is redone quickly after a crash.
SHARD_BYTES = 64 * 2**20
# Work for eight processes even in a small set, unless a shard would then hold less than a batch or two.
MIN_SHARDS = 8
MIN_EXAMPLES_A_SHARD = 64
# A JPEG at quality 95 takes about an eighth of its pixels' bytes.
COMPRESSION = {"raw": 1, "jpeg": 8, "png": 2}


@dataclasses.dataclass(frozen=True, slots=True)
class PlannedShard:
    """One shard to be written: its file name and the ids of its files, in the order of its records."""

    file: str
    split: str
    shard: int
    ids: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class ShardPlan:
    """All shards of a data set, split by split."""

    shards: tuple[PlannedShard, ...]

    def __str__(self) -> str:
        """Returns a line a shard."""
        return "\n".join(f"{shard.file}  {len(shard.ids)} files" for shard in self.shards)


def num_shards(num_examples: int, image_size: int, encoding: str) -> int:
    """Returns how many shards a split of `num_examples` has; at least 1."""
    by_size = -(-num_examples * image_size * image_size * 3 // COMPRESSION[encoding] // SHARD_BYTES)
    return max(1, by_size, min(MIN_SHARDS, num_examples // MIN_EXAMPLES_A_SHARD))


def make_plan(
    name: str,
    files: Sequence[ImageFile],
    split_of: Mapping[int, str],
    *,
    splits: Sequence[str],
    image_size: int,
    encoding: str,
    seed: int,
) -> ShardPlan:
    """Returns the plan: each split's files in a seeded random order, cut into shards of nearly equal length.

    The order within the shards is already mixed, so that a reader that can only stream sees all classes early. A split
    without files has no shard.
    """
    shards = []
    for split in splits:
        members = [file for file in files if split_of[file.id] == split]
        if not members:
            continue
        members.sort(key=lambda file: rank(seed, "order", file.path))
        count = num_shards(len(members), image_size, encoding)
        for shard in range(count):
            part = members[len(members) * shard // count : len(members) * (shard + 1) // count]
            shards.append(
                PlannedShard(
                    file=shard_name(name, split, shard, count),
                    split=split,
                    shard=shard,
                    ids=tuple(file.id for file in part),
                )
            )
    return ShardPlan(shards=tuple(shards))
