"""Datasets whose shards do not fit on this machine together, and what brings them here one after the other.

Whoever opens such a dataset says so here, for its folder, which has everything but the shards; see
`tfrecords.storage.shard_supply`. Readers of shards in their order ask for them, all others refuse the dataset.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol


class Lease(Protocol):
    """The shards of one reader."""

    def path_of(self, file: str, following: str) -> str:
        """Return a path to open a shard by, once; it can be read to its end then. The former one is no longer needed.

        The shard `following`, "" for none, is read ahead meanwhile, if there is room. Raises DataError if the shard
        cannot be brought here.
        """
        ...


class ShardSupply(Protocol):
    """Brings the shards of one dataset."""

    def lease(self) -> Lease:
        """Return the shards for a reader."""
        ...


_SUPPLIES: dict[Path, ShardSupply] = {}


def supply(dataset_dir: Path, by: ShardSupply) -> None:
    """Let `by` bring the shards of the dataset in this folder."""
    _SUPPLIES[dataset_dir] = by


def supply_of(dataset_dir: Path) -> ShardSupply | None:
    """Return what brings the shards of a dataset; None if they are in its folder."""
    return _SUPPLIES.get(dataset_dir)
