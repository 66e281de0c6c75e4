"""Checks of this machine and of a dataset: one function per subject, each of which returns a `CheckResult`.

The folders that a function reads can be passed to it, so that tests can describe machines that do not exist.
"""

from simimg.doctor.check_result import CheckResult
from simimg.doctor.dataset_health import check_dataset
from simimg.doctor.disk import check_disk, file_system
from simimg.doctor.gpu_probe import GpuFacts, probe_gpus
from simimg.doctor.gpus import check_gpus
from simimg.doctor.limits import check_limits
from simimg.doctor.machine import check_machine
from simimg.doctor.training_steps import check_training
from simimg.doctor.versions import check_versions

__all__ = [
    "CheckResult",
    "GpuFacts",
    "check_dataset",
    "check_disk",
    "check_gpus",
    "check_limits",
    "check_machine",
    "check_training",
    "check_versions",
    "file_system",
    "probe_gpus",
]
