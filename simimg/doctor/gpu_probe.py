"""Collects facts about GPUs from the driver, nvidia-smi, TensorFlow and the environment; `gpus.py` interprets them."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["CUDA_LIBRARIES", "Gpu", "GpuFacts", "probe_gpus"]

# Copies of these in the folders of LD_LIBRARY_PATH take precedence over those from pip.
CUDA_LIBRARIES = ("libcudart", "libcublas", "libcudnn", "libcufft", "libcusparse", "libnccl")
_QUERY = ("index", "name", "compute_cap", "memory.total", "memory.free", "driver_version")
_NVIDIA_VENDOR, _DISPLAY_CLASS = "0x10de", "0x03"
_WAIT_S = 20.0  # a hung driver makes nvidia-smi hang too


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gpu:
    """A GPU as nvidia-smi lists it; values that it does not report are None."""

    index: int
    name: str
    compute_capability: str | None
    memory_bytes: int | None
    memory_free_bytes: int | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class GpuFacts:
    """Facts about GPUs.

    Attributes:
        num_cards: number of NVIDIA display devices on the PCI bus.
        driver: version of the driver, "" without one.
        num_device_files: number of files such as /dev/nvidia0; in a container, those that were passed to it.
        gpus: the GPUs that nvidia-smi lists.
        p2p: output of `nvidia-smi topo -p2p r`; "" for fewer than two GPUs.
        used: name and compute capability of each GPU that TensorFlow finds.
        tensorflow: version of TensorFlow.
        build: result of `tf.sysconfig.get_build_info()`.
        environment: environment variables, such as CUDA_VISIBLE_DEVICES and LD_LIBRARY_PATH.
        cuda_files: libraries of CUDA in the folders of LD_LIBRARY_PATH.
        libraries: versions of NVIDIA's packages from pip.
        wanted: TensorFlow's requirements for these packages.
        iommu: whether the system's IOMMU is on.
    """

    num_cards: int = 0
    driver: str = ""
    num_device_files: int = 0
    gpus: tuple[Gpu, ...] = ()
    p2p: str = ""
    used: tuple[tuple[str, str | None], ...] = ()
    tensorflow: str = ""
    build: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    cuda_files: tuple[Path, ...] = ()
    libraries: Mapping[str, str] = dataclasses.field(default_factory=dict)
    wanted: tuple[str, ...] = ()
    iommu: bool = False


def _run(*command: str) -> str:
    """Return the output of a command; "" if it is missing, fails or hangs."""
    program = shutil.which(command[0]) or shutil.which(command[0], path="/usr/lib/wsl/lib:/usr/bin")
    if program is None:
        return ""
    try:
        done = subprocess.run([program, *command[1:]], capture_output=True, text=True, check=False, timeout=_WAIT_S)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def probe_gpus(
    *,
    used: Sequence[tuple[str, str | None]],
    tensorflow: str,
    build: Mapping[str, Any],
    root: Path = Path("/"),
    run: Callable[..., str] = _run,
    environment: Mapping[str, str] | None = None,
) -> GpuFacts:
    """Return the facts about the GPUs of this machine.

    Args:
        used: name and compute capability of each GPU that TensorFlow finds.
        tensorflow: version of TensorFlow.
        build: result of `tf.sysconfig.get_build_info()`.
        root: folder of /proc, /sys and /dev.
        run: returns the output of a command, "" if it fails.
        environment: environment variables; None is those of this process.
    """
    rows = [
        [word.strip() for word in line.split(",")]
        for line in run("nvidia-smi", f"--query-gpu={','.join(_QUERY)}", "--format=csv,noheader,nounits").splitlines()
    ]
    rows = [row for row in rows if len(row) == len(_QUERY) and row[0].isdigit()]
    environment = os.environ if environment is None else environment
    folders = [Path(name) for name in environment.get("LD_LIBRARY_PATH", "").split(":") if name]
    installed, wanted = _packages()
    return GpuFacts(
        num_cards=sum(1 for device in (root / "sys/bus/pci/devices").glob("*") if _is_nvidia_gpu(device)),
        driver=_driver(root) or (rows[0][5] if rows else ""),
        num_device_files=sum(1 for path in (root / "dev").glob("nvidia*") if path.name[6:].isdigit()),
        gpus=tuple(
            Gpu(
                index=int(index),
                name=name,
                compute_capability=capability if re.fullmatch(r"\d+\.\d+", capability) else None,
                memory_bytes=_mebibytes(total),
                memory_free_bytes=_mebibytes(free),
            )
            for index, name, capability, total, free, _ in rows
        ),
        p2p=run("nvidia-smi", "topo", "-p2p", "r") if len(rows) > 1 else "",
        used=tuple(used),
        tensorflow=tensorflow,
        build=build,
        environment=dict(environment),
        cuda_files=tuple(
            path for folder in folders for name in CUDA_LIBRARIES for path in sorted(folder.glob(f"{name}.so.*"))
        ),
        libraries=installed,
        wanted=wanted,
        iommu=any((root / "sys/class/iommu").glob("*")),
    )


def _driver(root: Path) -> str:
    try:
        text = (root / "proc/driver/nvidia/version").read_text()
    except OSError:
        return ""
    found = re.search(r"^NVRM version:.*?\s(\d+\.\d+(?:\.\d+)?)\s", text, re.MULTILINE)
    return found[1] if found else "unknown"


def _is_nvidia_gpu(device: Path) -> bool:
    try:
        vendor, kind = ((device / name).read_text().strip() for name in ("vendor", "class"))
    except OSError:
        return False
    return vendor == _NVIDIA_VENDOR and kind.startswith(_DISPLAY_CLASS)


def _mebibytes(text: str) -> int | None:
    return int(text) << 20 if text.isdigit() else None


def _packages() -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the versions of NVIDIA's packages, and TensorFlow's requirements for them."""
    try:
        wishes = importlib.metadata.requires("tensorflow") or []
    except importlib.metadata.PackageNotFoundError:
        wishes = []
    found = {}
    for distribution in importlib.metadata.distributions():
        name = distribution.metadata["Name"] or ""
        if name.startswith("nvidia-"):
            found[name] = distribution.version
    return dict(sorted(found.items())), tuple(wish for wish in wishes if wish.startswith("nvidia-"))
