"""What simimg/docs/determinism.md promises: the same bits under every instruction set that this processor can run."""

from __future__ import annotations

import json
import math
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy._core._multiarray_umath import __cpu_dispatch__ as NUMPY_DISPATCH
from PIL import Image
from threadpoolctl import threadpool_info

from simimg.determinism import exact_matmul, inner_products, ordered_sum, plain_opencv, product_error

PROBE = Path(__file__).with_name("determinism_probe.py")
NUMPY_ALL = " ".join(NUMPY_DISPATCH)
# Of each library, what has it use less than the processor has. Where it has less, it says so and runs what there is.
LEVELS = {
    "SSE": {
        "OPENBLAS_CORETYPE": "Prescott",
        "NPY_DISABLE_CPU_FEATURES": NUMPY_ALL,
        "OPENCV_CPU_DISABLE": "POPCNT,SSSE3,SSE4.1,SSE4.2,AVX,FP16,AVX2,FMA3,AVX512-SKX",
        "OPENCV_IPP": "disabled",
        "JSIMD_FORCENONE": "1",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "FAISS_SIMD_LEVEL": "NONE",
        "ARROW_USER_SIMD_LEVEL": "NONE",
    },
    "SSE4": {
        "OPENBLAS_CORETYPE": "Nehalem",
        "OPENCV_CPU_DISABLE": "AVX,FP16,AVX2,FMA3,AVX512-SKX",
        "OPENCV_IPP": "sse42",
        "JSIMD_FORCESSE2": "1",
        "ARROW_USER_SIMD_LEVEL": "SSE4_2",
    },
    "AVX": {
        "OPENBLAS_CORETYPE": "Sandybridge",
        "OPENCV_CPU_DISABLE": "AVX2,FMA3,AVX512-SKX",
        "ONEDNN_MAX_CPU_ISA": "AVX",
    },
    "AVX2": {
        "OPENBLAS_CORETYPE": "Haswell",
        "NPY_DISABLE_CPU_FEATURES": " ".join(name for name in NUMPY_DISPATCH if name != "X86_V3"),
        "OPENCV_CPU_DISABLE": "AVX512-SKX",
        "OPENCV_IPP": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "FAISS_SIMD_LEVEL": "AVX2",
    },
    "Zen": {"OPENBLAS_CORETYPE": "Zen"},
    "AVX-512": {"OPENBLAS_CORETYPE": "SkylakeX"},
}
NEEDS = {"AVX": "avx", "AVX2": "avx2", "Zen": "avx2", "AVX-512": "avx512f"}


def run(folder: Path, what: str, **environment: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(PROBE), what, str(folder)],
        # The order in which the kinds of edits are written in a `repr` depends on the seed of hashes.
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONHASHSEED": "0", **environment},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


def runnable() -> list[str]:
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text().split() if cpuinfo.exists() else []
    # The kernel that OpenBLAS has chosen anyway is that of the process as it is.
    chosen = [{"OPENBLAS_CORETYPE": one.get("architecture")} for one in threadpool_info()]
    return [name for name, level in LEVELS.items() if NEEDS.get(name, "") in ("", *flags) and level not in chosen]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the libraries' switches are those of x86-64")
def test_every_instruction_set_gives_the_same_bits(tmp_path: Path, scene: Callable[..., Image.Image]) -> None:
    (tmp_path / "scenes").mkdir()
    for seed in range(2):
        scene(seed).save(tmp_path / "scenes" / f"{seed}.png")
    run(tmp_path, "make", **LEVELS["SSE"])
    environments: dict[str, dict[str, str]] = {"as it is": {}, **{name: LEVELS[name] for name in runnable()}}
    with ThreadPoolExecutor(2) as executor:
        found = dict(
            zip(
                environments,
                executor.map(lambda level: run(tmp_path, "compute", **level), environments.values()),
                strict=True,
            )
        )
    expected = found.pop("as it is")
    assert len(expected) > 30
    for level, digests in found.items():
        assert {name for name in expected if digests[name] != expected[name]} == set(), level


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the libraries' switches are those of x86-64")
def test_what_tensorflow_computes_is_within_its_bounds(
    tmp_path: Path, scene: Callable[..., Image.Image], datasets: dict[str, Path]
) -> None:
    (tmp_path / "scenes").mkdir()
    for seed in range(2):
        scene(seed).save(tmp_path / "scenes" / f"{seed}.png")
    shutil.copytree(datasets["raw"].parents[1], tmp_path / "dataset")
    own, other = (run(tmp_path, "bounded", **level) for level in ({}, LEVELS["SSE"]))
    for name in ("golden shard", "order of epochs", "augmentation"):  # whole numbers, and what is drawn from them
        assert own[name] == other[name], name
    # Whatever a level does to it: XNNPACK, which LiteRT computes with, has no switch.
    assert own["litert"] == other["litert"]
    for found in (own, other):
        assert np.abs(np.subtract(own["litert"], found["tensorflow"])).max() < 2e-6
    assert own["losses"][0] == pytest.approx(other["losses"][0], rel=1e-4)
    assert own["losses"][1] == pytest.approx(other["losses"][1], rel=0.05)


def test_a_level_is_lower() -> None:
    """The switches do something, or the test above would compare one thing with itself."""
    code = """if True:
        import cv2, json, numpy as np, threadpoolctl
        from numpy._core._multiarray_umath import __cpu_features__ as features
        blas = {one.get("architecture") for one in threadpoolctl.threadpool_info() if one["internal_api"] == "openblas"}
        print(json.dumps([sorted(blas), features["X86_V3"], cv2.ipp.useIPP()]))
    """
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **LEVELS["SSE"]}, capture_output=True, text=True, check=True
    )
    blas, has_avx2, uses_ipp = json.loads(done.stdout)
    assert set(blas) <= {"Prescott", "Katmai"}  # the older one is how an older OpenBLAS calls itself
    assert (has_avx2, uses_ipp) == (False, False)


@given(
    arrays.arrays(np.float64, st.tuples(st.integers(1, 5), st.integers(1, 300)), elements=st.integers(-1000, 1000)),
)
def test_an_ordered_sum_is_a_sum(values: np.ndarray) -> None:
    np.testing.assert_array_equal(ordered_sum(values), values.sum(axis=-1))  # whole numbers: any order is exact


def test_an_ordered_sum_adds_the_second_half_to_the_first() -> None:
    a, b, c, d, e = np.array([0.1, 1e16, -0.3, -1e16, 0.7])
    assert ordered_sum(np.array([a, b, c, d, e])) == ((a + c) + (b + d)) + e
    assert ordered_sum(np.array([a, b, c])) == (a + b) + c


@given(count=st.integers(1, 40), dim=st.integers(1, 700), seed=st.integers(0, 99))
def test_inner_products_are_rounded_once(count: int, dim: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    left, right = rng.normal(size=(2, count, dim)).astype(np.float32)
    exact = [
        math.fsum(np.float64(one) * np.float64(other) for one, other in zip(*pair, strict=True))
        for pair in zip(left, right, strict=True)
    ]
    found = inner_products(left, right)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, exact, rtol=2**-23, atol=1e-13 * dim)


@given(
    rows=st.integers(1, 6),
    inner=st.integers(1, 1500),
    columns=st.integers(1, 6),
    seed=st.integers(0, 99),
    scale=st.sampled_from([1e-30, 1.0, 1e20]),
)
def test_an_exact_product_does_not_depend_on_the_order(
    rows: int, inner: int, columns: int, seed: int, scale: float
) -> None:
    rng = np.random.default_rng(seed)
    left, right = rng.normal(size=(rows, inner)) * scale, rng.normal(size=(inner, columns))
    found = exact_matmul(left, right)
    shuffled = rng.permutation(inner)
    np.testing.assert_array_equal(exact_matmul(left[:, shuffled], right[shuffled]), found)
    np.testing.assert_array_equal(exact_matmul(left[:1], right[:, -1:]), found[:1, -1:])
    lengths = np.linalg.norm(left, axis=1)[:, None] * np.linalg.norm(right, axis=0)
    assert (np.abs(found - left @ right) <= 2e-5 * lengths).all()


def test_an_exact_product_of_nothing_but_zeros() -> None:
    np.testing.assert_array_equal(exact_matmul(np.zeros((2, 3)), np.ones((3, 2))), np.zeros((2, 2)))


@pytest.mark.parametrize("dim", [8, 256, 1280])
def test_the_error_of_a_product_is_no_larger(dim: int) -> None:
    rng = np.random.default_rng(0)
    left, right = rng.normal(size=(2, 4000, dim))
    left, right = ((side / np.linalg.norm(side, axis=1, keepdims=True)).astype(np.float32) for side in (left, right))
    right[:2000] = left[:2000]  # alike: the sums are large
    exact = np.einsum("nd,nd->n", left.astype(np.float64), right.astype(np.float64))
    for products in (np.vecdot(left, right), np.cumsum(left * right, axis=1, dtype=np.float32)[:, -1]):
        assert np.abs(products - exact).max() < product_error(dim) < 1e-4


def test_opencv_is_as_it_was_when_the_last_one_leaves() -> None:
    def state() -> tuple[bool, int, bool]:
        return cv2.useOptimized(), cv2.getNumThreads(), cv2.ipp.useIPP()

    before = state()
    with plain_opencv():
        assert state() == (False, 1, False)
        with plain_opencv():
            assert state() == (False, 1, False)
        assert state() == (False, 1, False)
        with ThreadPoolExecutor(1) as executor:  # IPP's switch is a thread's own
            assert executor.submit(_inside).result() == (False, 1, False)
    assert state() == before


def _inside() -> tuple[bool, int, bool]:
    with plain_opencv():
        return cv2.useOptimized(), cv2.getNumThreads(), cv2.ipp.useIPP()
