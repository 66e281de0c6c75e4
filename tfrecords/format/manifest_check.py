"""The manifest's examples in the order of their records, and where they are not what the shards or the layout say.

A million of them take some tens of megabytes besides the manifest: they are compared as columns, a shard at a time.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tfrecords.format.layout import Layout
from tfrecords.format.manifest import Manifest
from tfrecords.format.shard_scan import ShardScan

__all__ = ["ExampleRows"]


class ExampleRows:
    """Finds the manifest's rows of each shard.

    Args:
        manifest: its rows in any order.
    """

    def __init__(self, manifest: Manifest) -> None:
        ok = np.flatnonzero(manifest.ok)
        self._order = ok[np.lexsort((manifest.positions[ok], manifest.shards[ok], manifest.splits[ok]))]
        self._keys = _key(manifest.splits[self._order], manifest.shards[self._order])
        self._manifest = manifest

    @property
    def num_refused(self) -> int:
        """How many files became no example."""
        return len(self._manifest) - len(self._order)

    def problems(self, layout: Layout) -> Iterator[str]:
        """Yields what follows the manifest's name in a sentence about what is wrong with it as a whole."""
        manifest, order = self._manifest, self._order
        counts = {name: int((manifest.splits[order] == code).sum()) for code, name in enumerate(manifest.split_names)}
        found = {split: count for split, count in counts.items() if count}
        promised = {split: layout.num_examples(split) for split in layout.splits}
        if found != {split: count for split, count in promised.items() if count}:
            yield f"counts {found} examples, layout.json {promised}"
        elif num_lost := int((manifest.splits[order] < 0).sum()):
            yield f"has no split for examples: {num_lost:,}"
        ids = np.sort(manifest.ids)
        again = ids[1:][ids[1:] == ids[:-1]]
        if len(again):
            yield f"has id {again[0]} more than once{_more(len(again), 'ids')}"
        labels = manifest.labels[order]
        unknown = np.flatnonzero((labels < 0) | (labels >= len(layout.class_names)))
        if len(unknown):
            row = order[unknown[0]]
            yield (
                f"has label {manifest.labels[row]} for id {manifest.ids[row]}, but layout.json names "
                f"{len(layout.class_names):,} classes{_more(len(unknown), 'labels')}"
            )

    def shard_problems(self, split: str, shard: int, scan: ShardScan) -> Iterator[str]:
        """Yields what follows a shard's name in a sentence about records that are not the manifest's."""
        manifest = self._manifest
        if split not in manifest.split_names:
            return  # the counts say so
        key = _key(np.array(manifest.split_names.index(split)), np.array(shard))
        start, stop = np.searchsorted(self._keys, [key, key + 1])
        rows = self._order[start:stop]
        if len(rows) != len(scan.ids):
            yield f" has {len(scan.ids)} records, manifest.parquet {len(rows)} rows for them"
            return
        wrong = manifest.positions[rows] != np.arange(len(rows))
        wrong |= (manifest.ids[rows] != scan.ids) | (manifest.labels[rows] != scan.labels)
        places = np.flatnonzero(wrong)
        if not len(places):
            return
        at, row = places[0], rows[places[0]]
        offset = sum(scan.lengths[:at])
        yield (
            f": record {at} at byte {offset}: id {scan.ids[at]}, label {scan.labels[at]} are not what manifest.parquet "
            f"has in this place (id {manifest.ids[row]}, label {manifest.labels[row]}, position "
            f"{manifest.positions[row]}){_more(len(places), 'records')}"
        )


def _more(count: int, what: str) -> str:
    return f", and {count - 1:,} more such {what}" if count > 1 else ""


def _key(splits: np.ndarray, shards: np.ndarray) -> np.ndarray:
    return splits.astype(np.int64) << 32 | shards.astype(np.int64)
