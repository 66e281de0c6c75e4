"""Turns the error of a training step into its cause and what to do next.

Sources of the messages and their meaning:

    CUDA_ERROR_…       NVIDIA, "CUDA Driver API", enum CUresult
    PTX                NVIDIA, "CUDA Compatibility", FAQ on PTX; tensorflow#101746, tensorflow#111958
    NCCL, /dev/shm     NVIDIA, "NCCL user guide", Runtime and MPI issues
    DNN library        XLA, stream_executor/dnn.h, which says so if cuDNN cannot be loaded
    libdevice, JIT     tensorflow#58681, tensorflow#79798: the files of the package nvidia-cuda-nvcc are not found
    hangs              tensorflow#105552 (P2P with an IOMMU)
"""

from __future__ import annotations

import dataclasses
import re

from simimg.child_process import Outcome

_INSTALL = "pip install 'simimg-tf[gpu]'"
_REPORT = "Report it with the output of `simimg doctor --train --json`."
_SHOWN = 300
# Information and warnings, such as the version of cuDNN, and what TensorFlow writes whenever it is imported.
_HARMLESS = re.compile(r"^[IW]\d{4} |^\d{4}-\d\d-\d\d [\d:.]+: [IW] |Unable to register|rebuild TensorFlow")


# The lines around the error itself in a message of a compiled function.
_AROUND = re.compile(
    r"Graph execution error:$|root error\(s\) found|^Detected at node|^<stack traces|^File |^\[\[|^\^+$"
)
_LOG_PREFIX = re.compile(r"^(\d{4}-\d\d-\d\d [\d:.]+ |[FEWI]\d{4} [\d:. ]+)")


@dataclasses.dataclass(frozen=True)
class Failure:
    """Why a step fails and what to do. Two are equal if they have the same cause, whatever their errors are.

    Attributes:
        cause: a clause, in which `{error}` stands for the error.
        next_step: sentences.
        is_between_devices: whether the communication between devices fails.
        error: the line of the message that says so.
    """

    cause: str
    next_step: str
    is_between_devices: bool = False
    error: str = dataclasses.field(default="", compare=False)

    def __str__(self) -> str:
        """Return the cause with the error."""
        return self.cause.replace("{error}", self.error)


# The first pattern that is found in an error names its cause.
_CAUSES = (
    (
        r"/dev/shm|shared memory segment|no space left on device.*nccl|nccl.*no space left",
        Failure(
            "NCCL cannot create its shared memory ({error})",
            "Give a container more with `docker run --shm-size=1g`, or run: mount -o remount,size=1G /dev/shm",
            is_between_devices=True,
        ),
    ),
    (
        r"nccl",
        Failure(
            "NCCL, which sums gradients over GPUs, fails ({error})",
            "Run it again with NCCL_DEBUG=INFO in the environment, which logs why, and see docs/many_gpus.md.",
            is_between_devices=True,
        ),
    ),
    (
        r"CUDA_ERROR_(INVALID_PTX|NO_BINARY_FOR_GPU|UNSUPPORTED_PTX_VERSION|JIT_COMPILER_NOT_FOUND)|no kernel image"
        r"|device kernel image is invalid|unsupported toolchain|PTX version",
        Failure(
            "TensorFlow has no kernels for this GPU that its driver can use ({error})",
            "The GPUs above are listed with what is missing. Install a newer driver or a newer TensorFlow, or hide the "
            "GPU with CUDA_VISIBLE_DEVICES.",
        ),
    ),
    (
        r"driver version is insufficient"
        r"|CUDA_ERROR_(SYSTEM_DRIVER_MISMATCH|COMPAT_NOT_SUPPORTED_ON_DEVICE|STUB_LIBRARY)",
        Failure(
            "the driver does not fit CUDA's libraries ({error})",
            "Install a newer driver, on Ubuntu with `sudo ubuntu-drivers install`, then restart.",
        ),
    ),
    (
        r"libdevice|ptxas|JIT compilation failed",
        Failure(
            "TensorFlow does not find the files of CUDA's compiler ({error})",
            f"Run: {_INSTALL}. For another CUDA, set XLA_FLAGS=--xla_gpu_cuda_data_dir=/usr/local/cuda",
        ),
    ),
    (
        r"\bOOM when|out of memory|CUDA_ERROR_OUT_OF_MEMORY|ALLOC_FAILED|failed to allocate",
        Failure(
            "a device is out of memory even for this small step ({error})",
            "End the other processes on it; `nvidia-smi` lists them.",
        ),
    ),
    (
        r"cudnn|DNN library|no algorithm worked",
        Failure(
            "cuDNN cannot be used ({error})",
            f"Run: {_INSTALL}. If LD_LIBRARY_PATH names another cuDNN, run: unset LD_LIBRARY_PATH",
        ),
    ),
    (
        r"CUDA_ERROR_(ECC_UNCORRECTABLE|ILLEGAL_ADDRESS|LAUNCH_FAILED|HARDWARE_STACK_ERROR|UNKNOWN|DEVICE_UNAVAILABLE)"
        r"|illegal memory access|fallen off the bus",
        Failure(
            "the GPU or its driver reports a fault ({error})",
            "Run `sudo dmesg | grep -i xid`, look its number up in NVIDIA's list of XID errors, and restart the "
            "machine.",
        ),
    ),
    (
        r"no (registered|OpKernel).*|could not satisfy.*device|No OpKernel was registered",
        Failure("an operation has no kernel for this device ({error})", _REPORT),
    ),
)


def cause_of(outcome: Outcome, *, several: bool) -> Failure:
    """Return the cause of a step that failed; `several` says that it ran on several devices."""
    lines = [line.strip() for line in outcome.error.splitlines() if line.strip()]
    if outcome.how == "crashed":  # only the libraries said why
        said = outcome.messages.splitlines()
        lines += [line.strip() for line in reversed(said) if line.strip() and not _HARMLESS.search(line)]
    if outcome.how == "hung":
        return _hung(several)
    for pattern, failure in _CAUSES:
        if found := next((line for line in lines if re.search(pattern, line, re.IGNORECASE)), None):
            return dataclasses.replace(failure, error=_short(found))
    if outcome.how == "crashed" and "SIGKILL" in outcome.error:
        return Failure(
            f"{outcome.error}, as Linux does if no memory is left",
            "End other programs (`ps aux --sort=-rss` lists them), or give the container more with --memory.",
        )
    if outcome.how == "crashed" and "SIGILL" in outcome.error:
        return Failure(
            f"{outcome.error}: this processor lacks instructions that TensorFlow was compiled with",
            "TensorFlow's wheels need a processor with AVX.",
        )
    fatal = next((line for line in lines if re.search(r"^F\d* |Check failed|terminate called", line)), None)
    telling = [_LOG_PREFIX.sub("", line) for line in (*lines[:1], fatal or _telling(lines)) if line]
    return Failure(_short(": ".join(line.rstrip(":") for line in dict.fromkeys(telling))), _REPORT)


def _telling(lines: list[str]) -> str:
    """Return the line that says what happened, if the first one only says that something did."""
    if not lines or not _AROUND.search(lines[0]):
        return ""
    return next((line for line in lines if not _AROUND.search(line)), "")


def _hung(several: bool) -> Failure:
    if several:
        return Failure(
            "the devices wait for each other",
            "Try NCCL_P2P_DISABLE=1 in the environment, then --cross_device_ops=hierarchical (docs/many_gpus.md).",
            is_between_devices=True,
        )
    return Failure(
        "there was no answer in time",
        "If the GPUs above have kernels that are compiled at first use, wait with `simimg train` once: the driver "
        "keeps what it has compiled. Otherwise run `nvidia-smi`; if it does not answer either, restart the machine.",
    )


def _short(line: str) -> str:
    line = _LOG_PREFIX.sub("", line)
    return line.rstrip(".") if len(line) <= _SHOWN else f"{line[:_SHOWN]}…"
