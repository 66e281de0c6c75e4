"""The further features of a dataset's examples, such as a caption or an age, read from their records by id.

Readers deliver image, label and id, which a training needs. The features of a few examples are parsed from their
records in Python, which takes about 30 us each.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from simimg.errors import DataError
from simimg.input.split import Split
from tfrecords.format.example import decode_lists
from tfrecords.format.layout import Layout
from tfrecords.format.manifest import iter_manifest
from tfrecords.format.parse_errors import parser_errors
from tfrecords.format.schema import FeatureSpec, check_value
from tfrecords.format.shard import ShardReader

_NUMBERS = {"int64": np.int64, "float32": np.float32}


class FeatureValues:
    """Reads the features of a split that `simimg convert` wrote; raises DataError if it is damaged."""

    def __init__(self, split: Split) -> None:
        self._split = split
        self._readers = [ShardReader(shard.path) for shard in split.shards]
        self._tables: dict[int, np.ndarray] = {}  # sidecars that were read so far
        layout = Layout.load(split.dataset_dir)
        number_of = {shard.path.name: number for number, shard in enumerate(split.shards)}
        places = []
        for part in iter_manifest(split.dataset_dir):
            for name in split.split_names:  # several, whose shards are numbered from 0 each
                numbers = np.array([number_of.get(shard.file, -1) for shard in layout.splits[name]], np.int64)
                rows = np.flatnonzero(part.ok & (np.array([*part.split_names, ""])[part.splits] == name))
                shards = numbers[part.shards[rows]]
                places.append(np.stack((part.ids[rows], shards, part.positions[rows]), axis=1))
        table = np.concatenate(places)
        self._table = table[np.argsort(table[:, 0])]

    def of(self, ids: np.ndarray) -> dict[str, Any]:
        """Returns the features of the examples with these ids, int64 `[n]`, by name.

        Numbers of a fixed shape are an array int64 or float32 `[n]` or `[n, length]`. Texts are a list of str, bytes
        one of bytes, and lists of any length are a list of arrays or lists.
        """
        rows = [self._record(int(id)) for id in ids]
        return {spec.name: _column(spec, [row[spec.name] for row in rows]) for spec in self._split.schema.features}

    def _record(self, id: int) -> dict[str, list[Any]]:
        row = int(np.searchsorted(self._table[:, 0], id))
        where = f"{self._split.dataset_dir}: the record of id {id}"
        if row == len(self._table) or self._table[row, 0] != id:
            raise DataError(f"{where} is not in the manifest. Run `simimg verify`.")
        shard, position = self._table[row, 1:].tolist()
        with parser_errors(lambda fault: DataError(f"{where} is damaged: {fault}. Convert the images again.")):
            if self._split.offsets is not None:
                stride = self._split.offsets.record_bytes
                place = (position * stride, stride)
            else:
                if shard not in self._tables:
                    self._tables[shard] = self._readers[shard].offsets()
                place = tuple(self._tables[shard][position].tolist())
            features = decode_lists(self._readers[shard].read(*place))
            for spec in self._split.schema.features:
                if fault := check_value(spec, features.get(spec.name)):
                    raise ValueError(f"its feature {spec.name} {fault}")
        return features


def _column(spec: FeatureSpec, lists: list[list[Any]]) -> Any:
    if spec.dtype in _NUMBERS:
        arrays = [np.array(values, _NUMBERS[spec.dtype]) for values in lists]
        if not spec.is_fixed:
            return arrays
        stacked = np.stack(arrays) if arrays else np.empty((0, max(spec.length, 1)), _NUMBERS[spec.dtype])
        return stacked if spec.length else stacked[:, 0]
    texts = [[one.decode() for one in values] for values in lists] if spec.dtype == "text" else lists
    return [values if spec.length else values[0] for values in texts]
