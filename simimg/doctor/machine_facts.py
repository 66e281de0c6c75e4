"""What machine this is: the facts to print beside every figure."""

from __future__ import annotations

import importlib.metadata
import platform
from pathlib import Path

import psutil

from tfrecords.convert.workers.pool import num_cores

__all__ = ["machine_facts"]

_PACKAGES = ("tensorflow", "keras", "numpy", "pillow")


def machine_facts() -> dict[str, str]:
    """Returns the processor, cores that this process may use, memory, system and versions, as text by name."""
    memory = psutil.virtual_memory()
    return {
        "processor": _processor(),
        "cores": str(num_cores()),
        "memory": f"{memory.total / 2**30:.1f} GB",
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES),
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
