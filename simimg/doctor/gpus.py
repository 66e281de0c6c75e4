"""GPUs: which are trained on, and why another one is not.

A TensorFlow wheel holds kernels for some compute capabilities: `sm_80` runs on 8.0 and the 8.x above it, `compute_90`
does the same for 9.0 and has PTX too, from which the driver makes kernels for what is newer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from packaging.requirements import Requirement

from simimg.doctor.check_result import CheckResult, gigabytes
from simimg.doctor.gpu_probe import Gpu, GpuFacts

__all__ = ["check_gpus", "kernels_for"]

_INSTALL = "pip install 'simimg-tf[gpu]'"
# The oldest driver that runs programs of a CUDA, by its first number, and that which compiles the PTX of CUDA 12.5
# (CUDA's release notes, tables 2 and 3).
_MIN_DRIVERS = {"11": "450.80.02", "12": "525.60.13", "13": "580"}
_MIN_PTX_DRIVER = "555.42"
# Wheels of 2.20 and 2.21 have no kernels for Blackwell's 12.0, and XLA aborts when it compiles for it
# (tensorflow#111958).
_WITHOUT_12 = ("2.20.", "2.21.")
_SONAMES = {
    "libcudart": "12",
    "libcublas": "12",
    "libcudnn": "9",
    "libcufft": "11",
    "libcusparse": "12",
    "libnccl": "2",
}
_MIN_FREE_BYTES = 2 << 30


def check_gpus(sight: GpuFacts) -> CheckResult:
    """Judges what was seen."""
    problems: list[str] = []
    notes: list[str] = []
    gpus = [_used(sight, number) for number in range(len(sight.used))]
    idle = _idle(sight)
    there = sight.driver or sight.gpus
    if there and not gpus:
        problems.append(_why_none(sight))
    elif not there and sight.num_cards:
        problems.append(
            "there is an NVIDIA card, but no driver: install your distribution's, on Ubuntu `sudo ubuntu-drivers "
            "install`, on Debian `sudo apt install nvidia-driver`; then restart."
        )
    problems += _without_kernels(sight, gpus)
    if gpus:
        problems += _old_libraries(sight)
        notes += _why_idle(sight, idle)
        problems += [
            f"{gpu['name']} has only {gigabytes(gpu['memory_free_bytes'])} of {gigabytes(gpu['memory_bytes'])} memory "
            "free, another process holds the rest: end it (`nvidia-smi` names it), or hide the GPU with "
            "CUDA_VISIBLE_DEVICES."
            for gpu in gpus
            if gpu["memory_free_bytes"] is not None and gpu["memory_free_bytes"] < _MIN_FREE_BYTES
        ]
    if len(gpus) > 1:
        more_problems, more_notes = _between(sight)
        problems += more_problems
        notes += more_notes
    return CheckResult(
        title="GPUs",
        facts={
            "gpus": gpus,
            "idle_gpus": [{"name": gpu.name, "compute_capability": gpu.compute_capability} for gpu in idle],
            "driver": sight.driver or None,
            "cuda_of_tensorflow": sight.build.get("cuda_version"),
            "cudnn_of_tensorflow": sight.build.get("cudnn_version"),
            "nvidia_packages": dict(sight.libraries),
        },
        rows=tuple(_rows(sight, gpus, idle)),
        problems=tuple(problems),
        notes=tuple(notes),
    )


def kernels_for(capability: str, sight: GpuFacts) -> str | None:
    """Returns where the kernels for a compute capability come from: "wheel", "driver", or None."""
    wanted = _numbers(capability)
    if wanted >= (12, 0) and sight.tensorflow.startswith(_WITHOUT_12):
        return None
    built = sight.build.get("cuda_compute_capabilities")
    if not built:
        return "wheel"  # it does not say
    driver = False
    for name in built:
        kind, _, digits = str(name).partition("_")
        digits = re.sub(r"\D", "", digits)
        has = (int(digits[:-1]), int(digits[-1]))
        if has[0] == wanted[0] and has <= wanted:
            return "wheel"
        driver |= kind == "compute" and has <= wanted
    return "driver" if driver else None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))


def _older(driver: str, other: str) -> bool:
    return driver[:1].isdigit() and _numbers(driver) < _numbers(other)


def _visible(sight: GpuFacts) -> list[Gpu]:
    """Returns the GPUs that CUDA_VISIBLE_DEVICES leaves, in its order; all where it has no plain numbers."""
    names = [name.strip() for name in sight.environment.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    by_index = {str(gpu.index): gpu for gpu in sight.gpus}
    return [by_index[name] for name in names] if all(name in by_index for name in names) else list(sight.gpus)


def _match(sight: GpuFacts) -> list[Gpu | None]:
    """Returns what nvidia-smi says of each GPU that TensorFlow uses. CUDA orders by speed, so names decide."""
    left = _visible(sight)
    matched: list[Gpu | None] = []
    for name, _ in sight.used:
        gpu = next((gpu for gpu in left if gpu.name == name), None)
        if gpu:
            left.remove(gpu)
        matched.append(gpu)
    return matched


def _used(sight: GpuFacts, number: int) -> dict[str, Any]:
    name, capability = sight.used[number]
    gpu = _match(sight)[number]
    return {
        "name": name,
        "compute_capability": capability,
        "memory_bytes": gpu.memory_bytes if gpu else None,
        "memory_free_bytes": gpu.memory_free_bytes if gpu else None,
        "kernels": kernels_for(capability, sight) if capability else "wheel",
    }


def _idle(sight: GpuFacts) -> list[Gpu]:
    matched = [gpu for gpu in _match(sight) if gpu]
    return [gpu for gpu in sight.gpus if gpu not in matched] if len(sight.gpus) > len(sight.used) else []


def _why_none(sight: GpuFacts) -> str:
    """Returns why TensorFlow finds no GPU though there is a driver: the first cause that holds."""
    what = "there is an NVIDIA driver, but TensorFlow finds no GPU"
    hidden = sight.environment.get("CUDA_VISIBLE_DEVICES")
    cuda = str(sight.build.get("cuda_version") or "")
    oldest = _MIN_DRIVERS.get(cuda.partition(".")[0])
    strangers = _strangers(sight)
    missing = [wish.name for wish in map(Requirement, sight.wanted) if wish.name not in sight.libraries]
    if not sight.build.get("is_cuda_build"):
        return (
            f"{what}: this TensorFlow {sight.tensorflow} is built without CUDA. Install the other one: "
            f"pip uninstall -y tensorflow tensorflow-cpu && {_INSTALL}"
        )
    if hidden is not None and not _shows_any(sight, hidden):
        return f"{what}: CUDA_VISIBLE_DEVICES={hidden!r} hides all of them. Show them: unset CUDA_VISIBLE_DEVICES"
    if not sight.num_device_files and not sight.gpus:
        return (
            f"{what}: /dev/nvidia0 is not there. In a container, start it with `docker run --gpus all`; "
            "otherwise `sudo nvidia-modprobe -c 0 -u`."
        )
    if oldest and _older(sight.driver, oldest):
        return (
            f"{what}: driver {sight.driver} is too old for its CUDA {cuda}, which needs {oldest} or newer. Install "
            "one, on Ubuntu `sudo ubuntu-drivers install`; then restart."
        )
    if missing:
        several = f"{missing[0]} and {len(missing) - 1} more" if len(missing) > 1 else missing[0]
        return f"{what}: CUDA's libraries are missing ({several}). Install them: {_INSTALL}"
    if strangers:
        return f"{what}, perhaps because LD_LIBRARY_PATH names another CUDA ({strangers[0]}): unset LD_LIBRARY_PATH"
    if sight.cuda_files:
        return (
            f"{what}, perhaps because LD_LIBRARY_PATH names libraries that are taken before pip's "
            f"({sight.cuda_files[0]}): unset LD_LIBRARY_PATH"
        )
    return (
        f"{what}. It says why itself: TF_CPP_MIN_LOG_LEVEL=0 python -c "
        "'import tensorflow as tf; tf.config.list_physical_devices()'"
    )


def _shows_any(sight: GpuFacts, hidden: str) -> bool:
    """Tells whether CUDA sees a GPU: it goes through the list up to the first name that is not there."""
    first = hidden.split(",")[0].strip()
    if first.isdigit() and sight.gpus:
        return int(first) in {gpu.index for gpu in sight.gpus}
    return first.isdigit() or first.startswith(("GPU-", "MIG-"))


def _strangers(sight: GpuFacts) -> list[str]:
    """Returns the libraries in LD_LIBRARY_PATH that are of another major version than TensorFlow's."""
    found = []
    for path in sight.cuda_files:
        name, _, version = path.name.partition(".so.")
        if version.split(".")[0] != _SONAMES[name]:
            found.append(str(path))
    return found


def _without_kernels(sight: GpuFacts, gpus: list[dict[str, Any]]) -> Iterator[str]:
    good = [gpu for gpu in gpus if gpu["kernels"]]
    matched = _match(sight)
    numbers = [str(gpu.index) for gpu, facts in zip(matched, gpus, strict=True) if gpu and facts["kernels"]]
    hide = f"export CUDA_VISIBLE_DEVICES={','.join(numbers) if good and len(numbers) == len(good) else '-1'}"
    for gpu in gpus:
        capability = gpu["compute_capability"]
        if gpu["kernels"] is None:
            known = ", ".join(map(str, sight.build.get("cuda_compute_capabilities") or ()))
            issue = " (tensorflow#111958)" if _numbers(capability) >= (12, 0) else f" (it has {known})"
            newer = ", or use a nightly build: pip install tf-nightly" if _numbers(capability) >= (12, 0) else ""
            yield (
                f"{gpu['name']} has compute capability {capability}, for which TensorFlow {sight.tensorflow} has no "
                f"kernels{issue}. Hide it: {hide}{newer}"
            )
        elif gpu["kernels"] == "driver" and _older(sight.driver, _MIN_PTX_DRIVER):
            yield (
                f"driver {sight.driver} cannot compile TensorFlow's kernels for {gpu['name']} (compute capability "
                f"{capability}), which needs {_MIN_PTX_DRIVER} or newer. Install one, on Ubuntu "
                "`sudo ubuntu-drivers install`; then restart."
            )


def _old_libraries(sight: GpuFacts) -> Iterator[str]:
    for wish in map(Requirement, sight.wanted):
        version = sight.libraries.get(wish.name)
        if version and not wish.specifier.contains(version, prereleases=True):
            yield f"{wish.name} {version} is installed, TensorFlow needs {wish.specifier}: {_INSTALL}"
    for path in _strangers(sight):
        yield f"LD_LIBRARY_PATH names another CUDA than TensorFlow's ({path}): unset LD_LIBRARY_PATH"


def _why_idle(sight: GpuFacts, idle: list[Gpu]) -> Iterator[str]:
    hidden = sight.environment.get("CUDA_VISIBLE_DEVICES")
    for gpu in idle:
        if hidden is not None and gpu not in _visible(sight):
            why = f"CUDA_VISIBLE_DEVICES={hidden} hides it"
        elif gpu.compute_capability and kernels_for(gpu.compute_capability, sight) is None:
            why = f"TensorFlow {sight.tensorflow} has no kernels for its compute capability {gpu.compute_capability}"
        elif hidden is not None:
            why = f"CUDA_VISIBLE_DEVICES={hidden} may hide it"
        else:
            why = "TensorFlow passes over it; TF_CPP_MIN_LOG_LEVEL=0 lets it say why"
        yield f"GPU {gpu.index} ({gpu.name}) is not used: {why}."


def _between(sight: GpuFacts) -> tuple[list[str], list[str]]:
    """Returns problems and notes about how several GPUs talk."""
    problems, notes = [], []
    if not any(name.startswith("nvidia-nccl-") for name in sight.libraries) and not any(
        path.name.startswith("libnccl.") for path in sight.cuda_files
    ):
        problems.append(
            f"NCCL, by which several GPUs add up their gradients, is not among the packages of pip: {_INSTALL}"
        )
    pairs = list(_pairs(sight.p2p))
    apart = [f"{one} and {other} ({word})" for one, other, word in pairs if word != "OK"]
    if apart:
        notes.append(
            f"GPUs cannot read each other's memory directly: {', '.join(apart)}. They talk through /dev/shm, which is "
            "slower."
        )
    if sight.iommu and len(apart) < len(pairs):
        notes.append(
            "the IOMMU is on, with which some boards transfer wrongly between GPUs; if a loss becomes NaN on several "
            "GPUs and not on one: --cross_device_ops=hierarchical, or NCCL_P2P_DISABLE=1 (tensorflow#105552)."
        )
    return problems, notes


def _pairs(p2p: str) -> Iterator[tuple[str, str, str]]:
    """Yields each two GPUs and how they reach each other, from nvidia-smi's matrix: OK, or why not."""
    names: list[str] = []
    for line in p2p.splitlines():
        words = re.sub(r"\x1b\[[0-9;]*m", "", line).split()  # nvidia-smi underlines the heading
        if not names and words and all(re.fullmatch(r"GPU\d+", word) for word in words):
            names = words
        elif names and words and words[0] in names and len(words) == len(names) + 1:
            row = names.index(words[0])
            yield from ((words[0], names[column], words[column + 1]) for column in range(row + 1, len(names)))


def _rows(sight: GpuFacts, gpus: list[dict[str, Any]], idle: list[Gpu]) -> Iterator[tuple[str, str]]:
    for number, gpu in enumerate(gpus):
        parts = [gpu["name"], f"compute capability {gpu['compute_capability']}"]
        if gpu["memory_bytes"]:
            parts.append(f"{gigabytes(gpu['memory_free_bytes'] or 0)} free of {gigabytes(gpu['memory_bytes'])}")
        if gpu["kernels"] == "driver":
            parts.append("kernels are compiled when they are first used, which takes minutes once")
        yield f"GPU {number}", ", ".join(parts)
    for other in idle:
        yield "not used", f"{other.name}, compute capability {other.compute_capability}"
    if not gpus:
        yield "GPU", "none: training runs on the processor"
    if sight.driver or gpus:
        yield "driver", sight.driver or "unknown"
        built = f"CUDA {sight.build.get('cuda_version')}, cuDNN {sight.build.get('cudnn_version')}"
        yield "TensorFlow for", built if sight.build.get("is_cuda_build") else "no CUDA"
        for name in ("cuda-runtime", "cudnn", "nccl"):
            found = [f"{key} {version}" for key, version in sight.libraries.items() if key.startswith(f"nvidia-{name}")]
            yield name, ", ".join(found) or "not from pip"
