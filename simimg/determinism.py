"""Arithmetic that gives the same bits on every processor: sums in a fixed order, exact products, plain OpenCV.

BLAS, faiss and OpenCV choose their code by the processor, and each choice adds in another order. So a matrix product
proposes, and what is written, compared, sorted or held against a threshold is computed here. What simimg promises, and
which test holds each promise, is in simimg/docs/determinism.md.

1. `ordered_sum` adds in an order that is written down here, by additions of whole arrays. IEEE 754 defines each one.
2. `exact_matmul` rounds both factors to integers so small that no sum of their products needs more than the 53 bits of
   float64. Nothing is rounded, so the order does not matter (Ozaki, Ogita, Oishi and Rump, "Error-free transformations
   of matrix multiplication by using fast routines of matrix multiplication", Numerical Algorithms 59, 2012).
3. `plain_opencv` has OpenCV use the code that every x86-64 processor runs.
"""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import cv2
import numpy as np
import threadpoolctl

__all__ = ["exact_matmul", "inner_products", "one_blas_thread", "ordered_sum", "plain_opencv", "product_error"]

_FLOAT64_BITS = 53
_PRODUCTS_AT_ONCE = 1 << 16  # 512 KB, which a core's cache holds


def ordered_sum(values: np.ndarray) -> np.ndarray:
    """Returns the sums over the last axis: the second half is added to the first until one number is left.

    `np.sum` adds in an order that depends on the shape and the layout of the array.

    Args:
        values: float `[..., n]`, n at least 1.

    Returns:
        `[...]`, of the same dtype.
    """
    while (count := values.shape[-1]) > 1:
        half = count // 2
        folded = values[..., :half] + values[..., half : 2 * half]
        values = np.concatenate([folded, values[..., 2 * half :]], axis=-1) if count % 2 else folded
    return values[..., 0]


def inner_products(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Returns the inner product of each pair of rows: float32 `[n]`, at most one unit in the last place off.

    Args:
        left: float32 `[n, dim]`.
        right: float32 `[n, dim]`.
    """
    products = np.empty(len(left), np.float32)
    at_once = max(1, _PRODUCTS_AT_ONCE // left.shape[1])
    for start in range(0, len(left), at_once):
        part = slice(start, start + at_once)
        # A product of two float32 numbers has 48 bits, so it is exact in float64.
        products[part] = ordered_sum(np.multiply(left[part], right[part], dtype=np.float64))
    return products


def product_error(dim: int) -> float:
    """Returns how far a float32 inner product of two vectors of length 1 may be off, added in whatever order.

    Higham, "Accuracy and Stability of Numerical Algorithms", section 3.1: n u / (1 - n u) times the product of the
    absolute vectors, which is 1 at most. Two units more are for rounding the result and for lengths that are not
    quite 1.
    """
    error = (dim + 2) * 2.0**-24
    return error / (1 - error)


def exact_matmul(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Returns a product of matrices, the same bits whatever computes it.

    Rows of `left` and columns of `right` are rounded to about 21 bits below their largest number: for vectors of length
    1 that is as exact as a float32 product.

    Args:
        left: float `[..., n]`.
        right: float `[n, m]`.

    Returns:
        float64 `[..., m]`.
    """
    num_bits = (_FLOAT64_BITS - math.ceil(math.log2(max(2, right.shape[0])))) // 2
    left_numbers, left_scale = _integers(left, num_bits, axis=-1)
    right_numbers, right_scale = _integers(right, num_bits, axis=0)
    products = left_numbers.reshape(-1, right.shape[0]) @ right_numbers
    return products.reshape(*left.shape[:-1], -1) * left_scale * right_scale


def _integers(values: np.ndarray, num_bits: int, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Whole numbers of at most `num_bits` as float64, and the powers of two that they are to be multiplied by."""
    values = np.asarray(values, np.float64)
    exponents = np.frexp(np.abs(values).max(axis=axis, keepdims=True))[1] - num_bits
    return np.rint(np.ldexp(values, -exponents)), np.ldexp(1.0, exponents)


class _Shared:
    """A setting of the whole process, made when the first one needs it and undone when the last one leaves."""

    def __init__(self, make: Callable[[], Callable[[], object]]) -> None:
        """Take what makes the setting and returns what undoes it."""
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


def one_blas_thread() -> AbstractContextManager[None]:
    """While it is open, NumPy's products use one thread each, for callers that divide the work among their own threads.

    A product of the descriptors of a pair is small. Two threads that wait for each other on a busy machine took 15 ms
    for it instead of 0.4. It may be open several times, in several threads: the limit is one for the whole process.
    """
    return _one_blas_thread()


@contextmanager
def plain_opencv() -> Iterator[None]:
    """While it is open, OpenCV uses only instructions that every x86-64 processor has; see `one_blas_thread`.

    OpenCV 5.0 finds other SIFT descriptors with AVX2 than without, and others again with Intel's IPP. IPP is switched
    off per thread, and threads of OpenCV's own keep it, so that there may be none. A picture takes a tenth longer.
    """
    with _plain_opencv():
        before = cv2.ipp.useIPP()
        cv2.ipp.setUseIPP(False)
        try:
            yield
        finally:
            cv2.ipp.setUseIPP(before)


def _limit_blas() -> Callable[[], object]:
    return _blas().limit(limits=1, user_api="blas").restore_original_limits


def _limit_opencv() -> Callable[[], object]:
    optimized, num_threads = cv2.useOptimized(), cv2.getNumThreads()
    cv2.setUseOptimized(False)
    cv2.setNumThreads(1)

    def undo() -> None:
        cv2.setNumThreads(num_threads)
        cv2.setUseOptimized(optimized)

    return undo


_one_blas_thread = _Shared(_limit_blas)
_plain_opencv = _Shared(_limit_opencv)


@functools.cache
def _blas() -> Any:
    np.zeros((1, 1)) @ np.zeros((1, 1))  # loads its library, so that it can be found; looking for it takes 5 ms
    return threadpoolctl.ThreadpoolController()
