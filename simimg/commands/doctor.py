"""Tell what simimg finds on this machine, and what is wrong with it.

Exit code 3 if something is wrong.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import shutil
from pathlib import Path
from typing import Any

from simimg.commands.console import Result, quiet_tensorflow

with quiet_tensorflow():
    import tensorflow as tf
import psutil

from simimg import __version__, models
from simimg.bench import machine_facts
from simimg.errors import ModelError

_PACKAGES = ("tensorflow", "keras", "tensorflow-datasets", "numpy", "pillow", "pyarrow", "google-crc32c", "tensorboard")
_MIN_FREE_BYTES = 2 * 2**30
# TensorFlow 2.21's wheels hold no kernels for Blackwell, and XLA aborts there (tensorflow#111958).
_MAX_COMPUTE_CAPABILITY = (12, 0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """`doctor` cannot be told anything."""


def run(options: Options) -> Result:
    """Looks around."""
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    gpus = [_gpu(device) for device in tf.config.list_physical_devices("GPU")]
    problems = _problems(gpus)
    machine = {
        **machine_facts(),
        "free memory": f"{psutil.virtual_memory().available / 2**30:.1f} GB",
        "free disk": f"{shutil.disk_usage(Path.cwd()).free / 2**30:.1f} GB",
    }
    values = {
        "simimg": __version__,
        "tensorflow": versions["tensorflow"],
        "gpus": gpus,
        "machine": machine,
        "versions": versions,
        "problems": problems,
    }
    return Result(values=values, text=_text(values), exit_code=3 if problems else 0)


def _gpu(device: Any) -> dict[str, Any]:
    details = tf.config.experimental.get_device_details(device)
    capability = details.get("compute_capability")
    return {
        "name": details.get("device_name", device.name),
        "compute_capability": ".".join(map(str, capability)) if capability else None,
    }


def _problems(gpus: list[dict[str, Any]]) -> list[str]:
    problems = []
    if not gpus and (Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi")):
        problems.append(
            "there is an NVIDIA driver, but TensorFlow finds no GPU. Install its CUDA libraries: "
            "pip install 'simimg-tf[gpu]'; then LD_LIBRARY_PATH should not name another CUDA."
        )
    if gpus and not tf.test.is_built_with_cuda():
        problems.append("this TensorFlow is built without CUDA: pip install 'tensorflow[and-cuda]'.")
    for gpu in gpus:
        capability = gpu["compute_capability"]
        if capability and tuple(map(int, capability.split("."))) >= _MAX_COMPUTE_CAPABILITY:
            problems.append(
                f"{gpu['name']} has compute capability {capability}, for which TensorFlow {tf.__version__} has no "
                "kernels (tensorflow#111958). Hide it with CUDA_VISIBLE_DEVICES, or use a nightly build."
            )
    if shutil.disk_usage(Path.cwd()).free < _MIN_FREE_BYTES:
        problems.append(f"less than {_MIN_FREE_BYTES // 2**30} GB are free on the disk of {Path.cwd()}.")
    if not os.access(Path.cwd(), os.W_OK):
        problems.append(f"{Path.cwd()} cannot be written to; name --data_dir and --model_dir elsewhere.")
    try:
        models.read_lite("lite0")
    except ModelError as error:
        problems.append(str(error))
    return problems


def _text(values: dict[str, Any]) -> str:
    gpus = [f"{gpu['name']}, compute capability {gpu['compute_capability']}" for gpu in values["gpus"]]
    rows = {"simimg": values["simimg"], **values["machine"]}
    rows["versions"] = ", ".join(f"{name} {version}" for name, version in values["versions"].items())
    lines = [
        *(f"{name:<12} {value}" for name, value in rows.items()),
        *(f"{f'GPU {number}':<12} {gpu}" for number, gpu in enumerate(gpus)),
    ]
    if not gpus:
        lines.append("GPU          none: training runs on the processor")
    lines.extend(f"problem: {problem}" for problem in values["problems"])
    if not values["problems"]:
        lines.append("nothing wrong")
    return "\n".join(lines)
