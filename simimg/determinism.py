"""Arithmetic with the same bits on every processor: sums in a fixed order, exact products, OpenCV's portable code.

BLAS, faiss and OpenCV choose their code by processor, and each variant adds in a different order. So matrix products
only propose candidates; every number that is written, compared, sorted or tested against a threshold is computed here.
simimg/docs/determinism.md lists what simimg promises and the test of each promise.

1. `ordered_sum` adds whole arrays in an order that is fixed here. IEEE 754 defines each addition.
2. `exact_matmul` rounds both factors to integers so small that every sum of their products fits into the 53 bits of
   float64. No sum is rounded, so the order does not matter (Ozaki, Ogita, Oishi and Rump, "Error-free transformations
   of matrix multiplication by using fast routines of matrix multiplication", Numerical Algorithms 59, 2012).
3. `plain_opencv` restricts OpenCV to the code that every x86-64 processor runs.
"""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np
import threadpoolctl

_FLOAT64_BITS = 53
_PRODUCTS_AT_ONCE = 1 << 16  # 512 KB, which fit into the cache of a core


def ordered_sum(values: np.ndarray) -> np.ndarray:
    """Return the sums over the last axis: the second half is added to the first until one number is left.

    `np.sum` adds in an order that depends on the shape and memory layout of the array. Float `[..., n]`, n at least 1,
    gives `[...]` of the same dtype.
    """
    while (count := values.shape[-1]) > 1:
        half = count // 2
        folded = values[..., :half] + values[..., half : 2 * half]
        values = np.concatenate([folded, values[..., 2 * half :]], axis=-1) if count % 2 else folded
    return values[..., 0]


def inner_products(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return the inner product of each pair of rows, accurate to one unit in the last place.

    Two arrays float32 `[n, dim]` give float32 `[n]`.
    """
    products = np.empty(len(left), np.float32)
    at_once = max(1, _PRODUCTS_AT_ONCE // left.shape[1])
    for start in range(0, len(left), at_once):
        part = slice(start, start + at_once)
        # A product of two float32 numbers has 48 bits, so it is exact in float64.
        products[part] = ordered_sum(np.multiply(left[part], right[part], dtype=np.float64))
    return products


def product_error(dim: int) -> float:
    """Return the largest error of a float32 inner product of two unit vectors, for any order of the additions.

    Higham, "Accuracy and Stability of Numerical Algorithms", section 3.1: n u / (1 - n u) times the inner product of
    the absolute values, which is at most 1. Two more units allow for rounding the result and for vector lengths that
    are not exactly 1.
    """
    error = (dim + 2) * 2.0**-24
    return error / (1 - error)


def exact_matmul(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return a matrix product with the same bits on every processor.

    Rows of `left` and columns of `right` are rounded to about 21 bits relative to their largest number. For unit
    vectors that is as accurate as a float32 product. Float `[..., n]` and float `[n, m]` give float64 `[..., m]`.
    """
    num_bits = (_FLOAT64_BITS - math.ceil(math.log2(max(2, right.shape[0])))) // 2
    left_numbers, left_scale = _integers(left, num_bits, axis=-1)
    right_numbers, right_scale = _integers(right, num_bits, axis=0)
    products = left_numbers.reshape(-1, right.shape[0]) @ right_numbers
    return products.reshape(*left.shape[:-1], -1) * left_scale * right_scale


def solved(rows: list[list[float]]) -> list[float]:
    """Return the solution of `k` equations, by elimination in Python's numbers; it changes `rows`.

    Args:
        rows: `[k, k + 1]`, a symmetric positive definite matrix, which needs no pivots, and the right sides.
    """
    for place, row in enumerate(rows):
        for other in rows:
            if other is not row:
                factor = other[place] / row[place]
                other[:] = [a - factor * b for a, b in zip(other, row, strict=True)]
    return [row[-1] / row[place] for place, row in enumerate(rows)]


def _integers(values: np.ndarray, num_bits: int, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Return integers of at most `num_bits` as float64, and the powers of two to multiply them by."""
    values = np.asarray(values, np.float64)
    exponents = np.frexp(np.abs(values).max(axis=axis, keepdims=True))[1] - num_bits
    return np.rint(np.ldexp(values, -exponents)), np.ldexp(1.0, exponents)


class _SharedSetting:
    """A process-wide setting that is applied for its first user and reverted after its last one.

    It decorates a function that applies the setting and returns the function that reverts it.
    """

    def __init__(self, make: Callable[[], Callable[[], object]]) -> None:
        functools.update_wrapper(self, make)
        self._make = make
        self._lock = threading.Lock()
        self._num_users = 0
        self._undo: Callable[[], object] = lambda: None

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self._lock:
            if not self._num_users:
                self._undo = self._make()
            self._num_users += 1
        try:
            yield
        finally:
            with self._lock:
                self._num_users -= 1
                if not self._num_users:
                    self._undo()


@_SharedSetting
def one_blas_thread() -> Callable[[], object]:
    """Return a context manager in which NumPy's products use one thread each, for callers with threads of their own.

    The products of two images' descriptors are small. On a busy machine, two BLAS threads that waited for each other
    took 15 ms for one instead of 0.4 ms. The limit is process-wide; contexts of several threads may overlap.
    """
    return _blas().limit(limits=1, user_api="blas").restore_original_limits


@contextmanager
def plain_opencv() -> Iterator[None]:
    """Restrict OpenCV to instructions that every x86-64 processor has; contexts may overlap in several threads.

    OpenCV 5.0 computes other SIFT descriptors with AVX2 than without, and others again with Intel's IPP. IPP is
    disabled per thread, and OpenCV's own threads would keep using it, so OpenCV is limited to the calling thread.
    An image takes 10 % longer.
    """
    with _plain_opencv():
        before = cv2.ipp.useIPP()
        cv2.ipp.setUseIPP(False)
        try:
            yield
        finally:
            cv2.ipp.setUseIPP(before)


@_SharedSetting
def _plain_opencv() -> Callable[[], object]:
    optimized, num_threads = cv2.useOptimized(), cv2.getNumThreads()
    cv2.setUseOptimized(False)
    cv2.setNumThreads(1)

    def undo() -> None:
        cv2.setNumThreads(num_threads)
        cv2.setUseOptimized(optimized)

    return undo


@functools.cache
def _blas() -> Any:
    np.zeros((1, 1)) @ np.zeros((1, 1))  # loads the BLAS library, so that threadpoolctl finds it; that takes 5 ms
    return threadpoolctl.ThreadpoolController()
