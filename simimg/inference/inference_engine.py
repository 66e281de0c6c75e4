"""Which arithmetic computes a network's output: the library, its version, its precision and the instruction set.

Results are equal to the bit if the engine is the same. Between engines of one precision, the numbers of unit vectors
differ by at most `MAX_DIFFERENCE`; for an ONNX file of 8-bit numbers, rounding can make more of a difference.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import platform
from pathlib import Path

from tfrecords.installed_versions import installed_version

PRECISIONS = ("float32", "bfloat16")
MAX_DIFFERENCE = 1e-5
"""Between the outputs of LiteRT and TensorFlow for one image, or a network is not converted. lite0's differ by 7e-7."""

# The sets for which LiteRT's kernels (XNNPACK) and oneDNN have code of their own, best first, by Linux's names.
_INSTRUCTION_SETS = (
    ("avx512", {"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"}),
    ("avx2", {"avx2", "fma"}),
    ("avx", {"avx"}),
)
_BFLOAT16 = ("avx512_bf16", "amx_bf16")


@dataclasses.dataclass(frozen=True, slots=True)
class Engine:
    """The arithmetic of a network.

    Attributes:
        library: `LiteRT`, `OpenVINO`, `TensorFlow` or `ONNX Runtime`.
        version: of the library.
        precision: one of `PRECISIONS`; for an ONNX file, float32 stands for whatever it computes in.
        instruction_set: of the processor, such as `avx2`; or `gpu`.
    """

    library: str
    version: str
    precision: str
    instruction_set: str

    def __str__(self) -> str:
        return f"{self.library} {self.version}, {self.precision}, {self.instruction_set}"


UNKNOWN = Engine("unknown", "", "float32", "")


def engine(library: str, distribution: str, *, precision: str = "float32", on: str = "") -> Engine:
    """Return the engine of a library, by the name of its distribution; `on` is the instruction set of this machine."""
    version = installed_version(distribution) or "of an unknown version"
    return Engine(library, version, precision, on or instruction_set())


@functools.cache
def instruction_set() -> str:
    """Return the best instruction set of this processor that matters to the libraries: `avx512`, `avx2`, `avx`, `sse`.

    On another architecture than x86-64 it is the name of the architecture.
    """
    if platform.machine() not in ("x86_64", "AMD64"):
        return platform.machine()
    flags = _processor_flags()
    return next((name for name, needed in _INSTRUCTION_SETS if needed <= flags), "sse")


def has_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 numbers."""
    return any(flag in _processor_flags() for flag in _BFLOAT16)


def may_have_gpu() -> bool:
    """Whether TensorFlow could see a GPU, asked without TensorFlow: a driver is loaded, and no variable hides its GPUs.

    TensorFlow has the last word, because its wheel may have no kernels for the GPU.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and (not visible.strip() or visible.strip().startswith("-1")):
        return False
    return any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/dxg").exists()  # the latter is WSL's


@functools.cache
def _processor_flags() -> frozenset[str]:
    return frozenset(_processor_line("flags").split())


def processor_name() -> str:
    """Return the name of this processor's model, as the system knows it; else that of the architecture."""
    return _processor_line("model name").strip() or platform.machine()


def _processor_line(name: str) -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""
    return next((line for line in text.splitlines() if line.startswith(name)), "").partition(":")[2]
