"""Interprets the facts about GPUs: which ones training uses, and why others are not used.

A TensorFlow wheel contains kernels for some compute capabilities. `sm_80` runs on 8.0 and higher 8.x. `compute_90` runs
on 9.x and also contains PTX, which the driver compiles to kernels for newer capabilities.

The facts are from these documents:

    oldest drivers     NVIDIA, "CUDA Compatibility", minor version compatibility; CUDA's release notes, tables 2 and 3
    PTX, capabilities  NVIDIA, "CUDA C++ Programming Guide", application compatibility
    libraries          `importlib.metadata.requires("tensorflow")`, the extra and-cuda; without one of them, TensorFlow
                       writes "Cannot dlopen some GPU libraries" and registers no GPU (tensorflow#66987)
    MIG                NVIDIA, "Multi-Instance GPU User Guide", CUDA device enumeration: before driver 570, a process
                       sees one compute instance and no GPU beside it; since 570, one of each GPU instance
    P2P                NVIDIA, "NCCL user guide", NCCL_SHM_DISABLE: host memory is used where P2P is not possible
    IOMMU              tensorflow#105552
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

from packaging.requirements import Requirement

from simimg.doctor.check_result import CheckResult, gigabytes
from simimg.doctor.gpu_probe import CUDA_LIBRARIES, Gpu, GpuFacts

_INSTALL = "pip install 'simimg-tf[gpu]'"
# The oldest driver for each major version of CUDA, and the oldest one that compiles the PTX of CUDA 12.5.
_MIN_DRIVERS = {"11": "450.80.02", "12": "525.60.13", "13": "580"}
_MIN_PTX_DRIVER = "555.42"
# Wheels of 2.20 and 2.21 have no kernels for Blackwell's capability 12.0, and XLA aborts when compiling for it
# (tensorflow#111958).
_WITHOUT_12 = ("2.20.", "2.21.")
_MIN_FREE_BYTES = 2 << 30
_MIG = " MIG "  # in CUDA's name of a slice, such as NVIDIA A100-SXM4-40GB MIG 1g.5gb
_SEVERAL_SLICES_DRIVER = "570"


def check_gpus(probed: GpuFacts) -> CheckResult:
    """Return the GPUs in use, and the problems of the others."""
    problems: list[str] = []
    notes: list[str] = []
    matched = _match(probed)
    gpus: list[dict[str, Any]] = [
        {
            "name": name,
            "compute_capability": capability,
            # nvidia-smi lists the memory of the whole GPU, not that of a slice.
            "memory_bytes": gpu.memory_bytes if gpu and _MIG not in name else None,
            "memory_free_bytes": gpu.memory_free_bytes if gpu and _MIG not in name else None,
            "kernels": kernels_for(capability, probed) if capability else "wheel",
        }
        for (name, capability), gpu in zip(probed.used, matched, strict=True)
    ]
    idle = [gpu for gpu in probed.gpus if gpu not in matched] if len(probed.gpus) > len(probed.used) else []
    there = probed.driver or probed.gpus
    if there and not gpus:
        problems.append(_why_none(probed))
    elif not there and probed.num_cards:
        problems.append(
            "there is an NVIDIA card, but no driver. Install the one of your distribution (on Ubuntu `sudo "
            "ubuntu-drivers install`, on Debian `sudo apt install nvidia-driver`), then restart."
        )
    problems += _without_kernels(probed, gpus, matched)
    notes += _slices(probed)
    if gpus:
        problems += _old_libraries(probed)
        notes += _why_idle(probed, idle)
        problems += [
            f"{gpu['name']} has only {gigabytes(gpu['memory_free_bytes'])} of {gigabytes(gpu['memory_bytes'])} memory "
            "free; another process uses the rest. End it (`nvidia-smi` lists it), or hide the GPU with "
            "CUDA_VISIBLE_DEVICES."
            for gpu in gpus
            if gpu["memory_free_bytes"] is not None and gpu["memory_free_bytes"] < _MIN_FREE_BYTES
        ]
    if len(gpus) > 1:
        more_problems, more_notes = _between(probed)
        problems += more_problems
        notes += more_notes
    return CheckResult(
        title="GPUs",
        facts={
            "gpus": gpus,
            "idle_gpus": [{"name": gpu.name, "compute_capability": gpu.compute_capability} for gpu in idle],
            "mig_slices": {
                str(index): [dataclasses.asdict(part) for part in parts] for index, parts in probed.mig.items()
            },
            "driver": probed.driver or None,
            "cuda_of_tensorflow": probed.build.get("cuda_version"),
            "cudnn_of_tensorflow": probed.build.get("cudnn_version"),
            "nvidia_packages": dict(probed.libraries),
        },
        rows=tuple(_rows(probed, gpus, idle)),
        problems=tuple(problems),
        notes=tuple(notes),
    )


def kernels_for(capability: str, probed: GpuFacts) -> str | None:
    """Return the source of the kernels for a compute capability: "wheel", "driver" (compiled from PTX), or None."""
    wanted = _numbers(capability)
    if wanted >= (12, 0) and probed.tensorflow.startswith(_WITHOUT_12):
        return None
    built = probed.build.get("cuda_compute_capabilities")
    if not built:
        return "wheel"  # unknown
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


def _visible(probed: GpuFacts) -> list[Gpu]:
    """Return the GPUs that CUDA_VISIBLE_DEVICES lists, in its order; all GPUs if it contains anything but numbers."""
    names = [name.strip() for name in probed.environment.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    by_index = {str(gpu.index): gpu for gpu in probed.gpus}
    return [by_index[name] for name in names] if all(name in by_index for name in names) else list(probed.gpus)


def _match(probed: GpuFacts) -> list[Gpu | None]:
    """Return nvidia-smi's entry of each GPU that TensorFlow uses, matched by name, since CUDA orders GPUs by speed."""
    left = _visible(probed)
    matched: list[Gpu | None] = []
    for name, _ in probed.used:
        gpu = next((gpu for gpu in left if gpu.name == name.partition(_MIG)[0]), None)
        if gpu:
            left.remove(gpu)
        matched.append(gpu)
    return matched


def _why_none(probed: GpuFacts) -> str:
    """Return why TensorFlow finds no GPU although there is a driver: the first cause that applies."""
    what = "there is an NVIDIA driver, but TensorFlow finds no GPU"
    hidden = probed.environment.get("CUDA_VISIBLE_DEVICES")
    cuda = str(probed.build.get("cuda_version") or "")
    oldest = _MIN_DRIVERS.get(cuda.partition(".")[0])
    mismatched = _mismatched(probed)
    missing = [wish.name for wish in map(Requirement, probed.wanted) if wish.name not in probed.libraries]
    if not probed.build.get("is_cuda_build"):
        return (
            f"{what}: this TensorFlow {probed.tensorflow} is built without CUDA. Install the build with CUDA: "
            f"pip uninstall -y tensorflow tensorflow-cpu && {_INSTALL}"
        )
    if hidden is not None and not _shows_any(probed, hidden):
        return f"{what}: CUDA_VISIBLE_DEVICES={hidden!r} hides all GPUs. Run: unset CUDA_VISIBLE_DEVICES"
    if empty := _without_slices(probed):
        return f"{what}: {empty}"
    if not probed.num_device_files and not probed.gpus:
        return (
            f"{what}: /dev/nvidia0 is missing. Start a container with `docker run --gpus all`; elsewhere run "
            "`sudo nvidia-modprobe -c 0 -u`."
        )
    if oldest and _older(probed.driver, oldest):
        return (
            f"{what}: driver {probed.driver} is too old for its CUDA {cuda}, which needs {oldest} or newer. Install a "
            "newer driver, on Ubuntu with `sudo ubuntu-drivers install`, then restart."
        )
    if missing:
        several = f"{missing[0]} and {len(missing) - 1} more" if len(missing) > 1 else missing[0]
        return f"{what}: CUDA's libraries are missing ({several}). Install them: {_INSTALL}"
    if without := [gpu for gpu in _visible(probed) if gpu.compute_capability]:
        known = [gpu for gpu in without if kernels_for(gpu.compute_capability or "", probed)]
        if not known:
            first = without[0]
            return (
                f"{what}: {first.name} has compute capability {first.compute_capability}, for which TensorFlow "
                f"{probed.tensorflow} has no kernels. Use another GPU or another version of TensorFlow."
            )
    if mismatched:
        return (
            f"{what}, perhaps because LD_LIBRARY_PATH names another CUDA ({mismatched[0]}). Run: unset LD_LIBRARY_PATH"
        )
    if probed.cuda_files:
        return (
            f"{what}, perhaps because LD_LIBRARY_PATH names libraries that take precedence over pip's "
            f"({probed.cuda_files[0]}). Run: unset LD_LIBRARY_PATH"
        )
    return f"{what}. TensorFlow's log shows why. Run: simimg doctor --verbose"


def _shows_any(probed: GpuFacts, hidden: str) -> bool:
    """Tell whether CUDA sees a GPU: it reads the list up to the first entry that does not exist."""
    first = hidden.split(",")[0].strip()
    slices = [part.uuid for parts in probed.mig.values() for part in parts]
    if first.startswith("MIG-") and slices:
        return any(uuid.startswith(first) for uuid in slices)
    if first.isdigit() and probed.gpus:
        return int(first) in {gpu.index for gpu in probed.gpus}
    return first.isdigit() or first.startswith(("GPU-", "MIG-"))


def _without_slices(probed: GpuFacts) -> str:
    """Return what is wrong if all visible GPUs are in MIG mode and have no slice to compute on."""
    visible = [gpu.index for gpu in _visible(probed)]
    if not visible or any(probed.mig.get(index, ("a slice",)) for index in visible):
        return ""
    index = visible[0]
    return (
        f"GPU {index} is in MIG mode, but has no slice. Create one (`sudo nvidia-smi mig -i {index} -lgip` lists the "
        f"profiles, `sudo nvidia-smi mig -i {index} -cgi PROFILE -C` creates a slice), or leave MIG mode: sudo "
        f"nvidia-smi -i {index} -mig 0"
    )


def _one_slice_only(probed: GpuFacts) -> bool:
    return any(probed.mig.values()) and (not probed.driver or _older(probed.driver, _SEVERAL_SLICES_DRIVER))


def _slices(probed: GpuFacts) -> Iterator[str]:
    """Yield what there is to know of GPUs that are divided into slices."""
    for index, slices in probed.mig.items():
        if not slices:
            continue
        profiles = ", ".join(part.profile for part in slices)
        seen = (
            f"With driver {probed.driver or 'unknown'}, a run can use one slice and no other GPU beside it"
            if _one_slice_only(probed)
            else "A run can use one compute instance of each GPU instance"
        )
        yield (
            f"GPU {index} is divided by MIG ({profiles}). {seen}. CUDA_VISIBLE_DEVICES={slices[0].uuid} chooses the "
            "first slice. A slice has its share of the GPU's memory and speed, and slices may communicate through "
            "/dev/shm only."
        )


def _mismatched(probed: GpuFacts) -> list[str]:
    """Return the libraries in LD_LIBRARY_PATH whose major version differs from TensorFlow's."""
    named = [(path, path.name.split(".so.")) for path in probed.cuda_files]
    return [str(path) for path, (name, version) in named if version.split(".")[0] != CUDA_LIBRARIES[name]]


def _without_kernels(probed: GpuFacts, gpus: list[dict[str, Any]], matched: list[Gpu | None]) -> Iterator[str]:
    good = [gpu for gpu in gpus if gpu["kernels"]]
    numbers = [str(gpu.index) for gpu, facts in zip(matched, gpus, strict=True) if gpu and facts["kernels"]]
    hide = f"export CUDA_VISIBLE_DEVICES={','.join(numbers) if good and len(numbers) == len(good) else '-1'}"
    for gpu in gpus:
        capability = gpu["compute_capability"]
        if gpu["kernels"] is None:
            known = ", ".join(map(str, probed.build.get("cuda_compute_capabilities") or ()))
            issue = " (tensorflow#111958)" if _numbers(capability) >= (12, 0) else f" (it has {known})"
            newer = ", or use a nightly build: pip install tf-nightly" if _numbers(capability) >= (12, 0) else ""
            yield (
                f"{gpu['name']} has compute capability {capability}, for which TensorFlow {probed.tensorflow} has no "
                f"kernels{issue}. Hide it: {hide}{newer}"
            )
        elif gpu["kernels"] == "driver" and _older(probed.driver, _MIN_PTX_DRIVER):
            yield (
                f"driver {probed.driver} cannot compile TensorFlow's kernels for {gpu['name']} (compute capability "
                f"{capability}), which needs {_MIN_PTX_DRIVER} or newer. Install a newer driver, on Ubuntu with "
                "`sudo ubuntu-drivers install`, then restart."
            )


def _old_libraries(probed: GpuFacts) -> Iterator[str]:
    for wish in map(Requirement, probed.wanted):
        version = probed.libraries.get(wish.name)
        if version and not wish.specifier.contains(version, prereleases=True):
            yield f"{wish.name} {version} is installed, but TensorFlow requires {wish.specifier}. Run: {_INSTALL}"
    for path in _mismatched(probed):
        yield f"LD_LIBRARY_PATH names another CUDA than TensorFlow's ({path}). Run: unset LD_LIBRARY_PATH"


def _why_idle(probed: GpuFacts, idle: list[Gpu]) -> Iterator[str]:
    hidden = probed.environment.get("CUDA_VISIBLE_DEVICES")
    for gpu in idle:
        if hidden is not None and gpu not in _visible(probed):
            why = f"CUDA_VISIBLE_DEVICES={hidden} hides it"
        elif gpu.compute_capability and kernels_for(gpu.compute_capability, probed) is None:
            why = f"TensorFlow {probed.tensorflow} has no kernels for its compute capability {gpu.compute_capability}"
        elif probed.mig.get(gpu.index) == ():
            why = "it is in MIG mode and has no slice"
        elif _one_slice_only(probed):
            why = f"with driver {probed.driver}, a process sees a single slice of MIG and no GPU beside it"
        elif hidden is not None:
            why = f"CUDA_VISIBLE_DEVICES={hidden} may hide it"
        else:
            why = "TensorFlow ignores it; `simimg doctor --verbose` prints TensorFlow's reason"
        yield f"GPU {gpu.index} ({gpu.name}) is not used: {why}."


def _between(probed: GpuFacts) -> tuple[list[str], list[str]]:
    """Return the problems and notes about the communication between several GPUs."""
    problems, notes = [], []
    if not any(name.startswith("nvidia-nccl-") for name in probed.libraries) and not any(
        path.name.startswith("libnccl.") for path in probed.cuda_files
    ):
        problems.append(
            f"NCCL, which several GPUs need to sum their gradients, is not installed from pip. Run: {_INSTALL}"
        )
    pairs = list(_pairs(probed.p2p))
    apart = [f"{one} and {other} ({word})" for one, other, word in pairs if word != "OK"]
    if apart:
        notes.append(
            f"GPUs cannot read each other's memory directly: {', '.join(apart)}. They communicate through /dev/shm, "
            "which is slower."
        )
    if probed.iommu and len(apart) < len(pairs):
        notes.append(
            "the IOMMU is on, which corrupts transfers between GPUs on some boards. If a loss becomes NaN on several "
            "GPUs but not on one, use --cross_device_ops=hierarchical or NCCL_P2P_DISABLE=1 (tensorflow#105552)."
        )
    return problems, notes


def _pairs(p2p: str) -> Iterator[tuple[str, str, str]]:
    """Yield each pair of GPUs and their connection in nvidia-smi's matrix: OK, or why there is none."""
    names: list[str] = []
    for line in p2p.splitlines():
        words = re.sub(r"\x1b\[[0-9;]*m", "", line).split()  # nvidia-smi underlines the heading
        if not names and words and all(re.fullmatch(r"GPU\d+", word) for word in words):
            names = words
        elif names and words and words[0] in names and len(words) == len(names) + 1:
            row = names.index(words[0])
            yield from ((words[0], names[column], words[column + 1]) for column in range(row + 1, len(names)))


def _rows(probed: GpuFacts, gpus: list[dict[str, Any]], idle: list[Gpu]) -> Iterator[tuple[str, str]]:
    for number, gpu in enumerate(gpus):
        parts = [gpu["name"], f"compute capability {gpu['compute_capability']}"]
        if gpu["memory_bytes"]:
            parts.append(f"{gigabytes(gpu['memory_free_bytes'] or 0)} free of {gigabytes(gpu['memory_bytes'])}")
        if gpu["kernels"] == "driver":
            parts.append("kernels are compiled at first use, which takes minutes once")
        yield f"GPU {number}", ", ".join(parts)
    for other in idle:
        yield "not used", f"{other.name}, compute capability {other.compute_capability}"
    if not gpus:
        yield "GPU", "none; training runs on the CPU"
    if probed.driver or gpus:
        yield "driver", probed.driver or "unknown"
        built = f"CUDA {probed.build.get('cuda_version')}, cuDNN {probed.build.get('cudnn_version')}"
        yield "TensorFlow for", built if probed.build.get("is_cuda_build") else "no CUDA"
        for name in ("cuda-runtime", "cudnn", "nccl"):
            there = [
                f"{key} {version}" for key, version in probed.libraries.items() if key.startswith(f"nvidia-{name}")
            ]
            yield name, ", ".join(there) or "not from pip"
