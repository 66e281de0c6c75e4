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

# The versions that TensorFlow needs. Copies in the folders of LD_LIBRARY_PATH take precedence over those from pip.
CUDA_LIBRARIES = {
    "libcudart": "12",
    "libcublas": "12",
    "libcudnn": "9",
    "libcufft": "11",
    "libcusparse": "12",
    "libnccl": "2",
}
_MIG_SLICE = re.compile(r"\s*MIG (\S+)\s+Device\s+\d+: \(UUID: (MIG-[^)]+)\)")
_QUERY = ("index", "name", "compute_cap", "memory.total", "memory.free", "driver_version")
_CSV = ("--format=csv,noheader,nounits",)
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
class MigSlice:
    """A part of a GPU in MIG mode: its profile, such as 1g.10gb, and its name for CUDA_VISIBLE_DEVICES."""

    profile: str
    uuid: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class GpuFacts:
    """Facts about GPUs."""

    num_cards: int = 0  # NVIDIA display devices on the PCI bus
    driver: str = ""  # its version, "" without one
    num_device_files: int = 0  # such as /dev/nvidia0; in a container, those that were passed to it
    gpus: tuple[Gpu, ...] = ()  # those that nvidia-smi lists
    mig: Mapping[int, tuple[MigSlice, ...]] = dataclasses.field(default_factory=dict)  # of each GPU in MIG mode
    p2p: str = ""  # output of `nvidia-smi topo -p2p r`; "" for fewer than two GPUs
    used: Sequence[tuple[str, str | None]] = ()  # name and compute capability of each GPU that TensorFlow finds
    tensorflow: str = ""  # its version
    build: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # of `tf.sysconfig.get_build_info()`
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)  # of this process
    cuda_files: tuple[Path, ...] = ()  # libraries of CUDA in the folders of LD_LIBRARY_PATH
    libraries: Mapping[str, str] = dataclasses.field(default_factory=dict)  # versions of NVIDIA's packages from pip
    wanted: tuple[str, ...] = ()  # TensorFlow's requirements for these packages
    iommu: bool = False  # whether the system's IOMMU is on


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
    """Return the facts about the GPUs of this machine, with those that TensorFlow knows: see `GpuFacts`.

    `root` is the folder of /proc, /sys and /dev; `run` returns the output of a command, "" if it fails; the environment
    is that of this process if it is None.
    """
    rows = [
        [word.strip() for word in line.split(",")]
        for line in run("nvidia-smi", f"--query-gpu={','.join(_QUERY)}", *_CSV).splitlines()
    ]
    rows = [row for row in rows if len(row) == len(_QUERY) and row[0].isdigit()]
    environment = os.environ if environment is None else environment
    folders = [Path(name) for name in environment.get("LD_LIBRARY_PATH", "").split(":") if name]
    installed, wanted = _packages()
    return GpuFacts(
        num_cards=sum(map(_is_nvidia_gpu, (root / "sys/bus/pci/devices").glob("*"))),
        driver=_driver(root) or (rows[0][5] if rows else ""),
        num_device_files=sum(path.name[6:].isdigit() for path in (root / "dev").glob("nvidia*")),
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
        mig=_mig(run("nvidia-smi", "--query-gpu=index,mig.mode.current", *_CSV), run("nvidia-smi", "-L")),
        p2p=run("nvidia-smi", "topo", "-p2p", "r") if len(rows) > 1 else "",
        used=used,
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


def _mig(modes: str, listed: str) -> dict[int, tuple[MigSlice, ...]]:
    """Return the slices of each GPU in MIG mode, from a line "INDEX, MODE" per GPU and `nvidia-smi -L`."""
    enabled = [
        line.partition(",")[0].strip() for line in modes.splitlines() if re.search(r"^\s*\d+, Enabled\s*$", line)
    ]
    slices: dict[int, list[MigSlice]] = {int(index): [] for index in enabled}
    at = -1
    for line in listed.splitlines():
        if gpu := re.match(r"GPU (\d+): ", line):
            at = int(gpu[1])
        elif (found := _MIG_SLICE.match(line)) and at >= 0:
            slices.setdefault(at, []).append(MigSlice(profile=found[1], uuid=found[2]))
    return {index: tuple(parts) for index, parts in slices.items()}


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
    versions = {found.metadata["Name"] or "": found.version for found in importlib.metadata.distributions()}
    found = {name: versions[name] for name in sorted(versions) if name.startswith("nvidia-")}
    return found, tuple(wish for wish in wishes if wish.startswith("nvidia-"))
