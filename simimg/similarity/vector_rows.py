"""Rows of a large array that are read in parts: some of them only, or each of them only once."""

from __future__ import annotations

import dataclasses
import mmap

import numpy as np


@dataclasses.dataclass(frozen=True, slots=True)
class ChosenRows:
    """Some rows of an array as an array of their own, without a copy of all of them."""

    array: VectorRows
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: slice | np.ndarray) -> np.ndarray:
        return self.array[self.rows[key]]


class OnePass:
    """A memory-mapped array for a search or two: rows are copied, and the pages that were read are given back.

    100,000 vectors of 512 numbers would count 205 MB of the process's memory, and further searches would find them
    mapped. The copies take a tenth of a search's time.
    """

    def __init__(self, array: np.memmap) -> None:
        self._array = array

    def __len__(self) -> int:
        return len(self._array)

    def __getitem__(self, key: slice | np.ndarray) -> np.ndarray:
        rows = np.array(self._array[key])
        self._array._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]
        return rows


class Float32Rows:
    """An array of float16, of which rows are float32 when they are read."""

    def __init__(self, array: np.ndarray | OnePass) -> None:
        self._array = array

    def __len__(self) -> int:
        return len(self._array)

    def __getitem__(self, key: slice | np.ndarray) -> np.ndarray:
        return np.asarray(self._array[key], np.float32)


VectorRows = np.ndarray | ChosenRows | OnePass | Float32Rows
