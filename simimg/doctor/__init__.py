"""What is there on this machine, and what of it is wrong: one function a matter, each returns a `Finding`.

What a function reads it can be given, so that each is tested with machines that are not there.
"""

from simimg.doctor.dataset import check_dataset
from simimg.doctor.disk import check_disk, file_system
from simimg.doctor.finding import Finding
from simimg.doctor.gpus import check_gpus
from simimg.doctor.limits import check_limits
from simimg.doctor.machine import check_machine
from simimg.doctor.sight import GpuSight, see_gpus
from simimg.doctor.versions import check_versions

__all__ = [
    "Finding",
    "GpuSight",
    "check_dataset",
    "check_disk",
    "check_gpus",
    "check_limits",
    "check_machine",
    "check_versions",
    "file_system",
    "see_gpus",
]
