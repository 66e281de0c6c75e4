"""The converter of this project, as `simimg convert` runs it: default options, one worker per core.

It writes a complete dataset folder, synced to disk, with manifest and checksums; no rival does as much. A module of
its own because each tool of a comparison is a script that runs in its own process.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simimg.bench.converters.tool_server import ConvertJob

__all__ = ["load", "prepare"]


def load(job: ConvertJob) -> dict[str, Any]:
    """Imports the converter."""
    from tfrecords.convert.image.decoder import decoder_versions

    return {
        "versions": decoder_versions(),
        "settings": f"default options, {job.num_workers} workers",
    }


def prepare(job: ConvertJob, out_dir: Path) -> Callable[[], int]:
    """Returns a function that converts the folder."""
    from tfrecords.convert.engine import convert
    from tfrecords.convert.plan.convert_config import ConvertConfig

    config = ConvertConfig(
        image_dir=job.image_dir,
        data_dir=out_dir,
        name="pictures",
        image_size=job.image_size,
        num_workers=job.num_workers,
    )
    return lambda: convert(config).num_examples
