"""What is there on this machine, and what of it is wrong: one function a matter, each returns a `Finding`.

What a function reads it can be given, so that each is tested with machines that are not there.
"""

from simimg.doctor.check_result import CheckResult
from simimg.doctor.dataset_health import check_dataset
from simimg.doctor.disk import check_disk, file_system
from simimg.doctor.gpu_probe import GpuFacts, probe_gpus
from simimg.doctor.gpus import check_gpus
from simimg.doctor.limits import check_limits
from simimg.doctor.machine import check_machine
from simimg.doctor.versions import check_versions

__all__ = [
    "CheckResult",
    "GpuFacts",
    "check_dataset",
    "check_disk",
    "check_gpus",
    "check_limits",
    "check_machine",
    "check_versions",
    "file_system",
    "probe_gpus",
]
