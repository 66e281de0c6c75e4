"""Server of one tool: runs and times it on request. Each tool's own Python executes this script.

    python -P tool_server.py TOOL.py

`TOOL.py` has

    load(job) -> dict        imports what it needs; returns {"versions": {name: version}, "settings": text}
    prepare(job, out_dir) -> run
                             prepares one run, which may write into the empty folder `out_dir`; not timed
    run() -> int             does the job and returns the number of images converted or delivered; timed

Each request is a line of JSON on standard input, each answer a line on standard output:

    in  {"files": …, …}      the job             out  the result of `load`
    in  {}                   run                 out  {"seconds": s, "num_images": n, "num_bytes": size of out_dir,
                                                       "cpu_seconds": of all threads and ended children,
                                                       "peak_bytes": most memory of the process so far}
    in  end of file          exit
    out {"error": text}      instead of an answer; the traceback is on standard error

The tool's own output goes to standard error. This file uses the standard library only, because the environment of a
tool has only what the tool needs.
"""

from __future__ import annotations

import dataclasses
import gc
import importlib.util
import json
import os
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

__all__ = ["ConvertJob", "ReadJob", "cpu_seconds", "main", "peak_bytes"]


_MIN_READING_S = 1.0  # an epoch may take a tenth of that, too short to time on a shared machine


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvertJob:
    """A conversion of JPEG files to square images on disk.

    Attributes:
        image_dir: a folder with one folder per class.
        files: every file in it, relative; all are good JPEG files.
        labels: the class of each file.
        image_size: side of the results, in px.
        num_workers: number of cores.
        work_dir: the folder for the tool's output, which is removed after each run.
        variant: which of its ways of working a tool uses, where it has several.
    """

    image_dir: str
    files: list[str]
    labels: list[int]
    image_size: int
    num_workers: int
    work_dir: str
    variant: str = ""

    @property
    def num_images(self) -> int:
        """Images that a run converts."""
        return len(self.files)

    def paths(self) -> list[str]:
        """Returns the full path of every file."""
        return [os.path.join(self.image_dir, file) for file in self.files]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReadJob:
    """A reading of records as batches of pixels, each record once.

    Attributes:
        dataset_dir: the dataset folder, as `simimg convert` wrote it, with one split `train`.
        shards: its TFRecord files.
        records: the number of records of each.
        image_dir: the images that it was made of, as JPEG files in one folder per class.
        encoding: that of its records, `raw` or `jpeg`.
        image_size: side of its images, in px.
        batch_size: images per batch; an incomplete last batch is not delivered.
        num_workers: number of cores.
        variant: which of its ways of working a tool uses, where it has several.
        forms_dir: a tool that reads its own format keeps its file here.
        work_dir: the folder for the tool's output, which is removed after each run.
    """

    dataset_dir: str
    shards: list[str]
    records: list[int]
    image_dir: str
    encoding: str
    image_size: int
    batch_size: int
    num_workers: int
    variant: str
    forms_dir: str
    work_dir: str

    @property
    def num_images(self) -> int:
        """Images that an epoch delivers; a run is a number of whole epochs, and takes a second at least."""
        return sum(self.records) // self.batch_size * self.batch_size


def main(tool: Path) -> int:
    """Serves standard input until it ends; returns the exit code."""
    with os.fdopen(os.dup(1), "w") as channel:
        os.dup2(2, 1)
        try:
            values = json.loads(sys.stdin.readline())
            job = (ConvertJob if "files" in values else ReadJob)(**values)
            spec = importlib.util.spec_from_file_location(f"tool_{tool.stem}", tool)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules[spec.name] = module  # forked worker processes look up functions there by name
            spec.loader.exec_module(module)
            _answer(channel, module.load(job))
            for _ in sys.stdin:
                _answer(channel, _run(module, job))
        except Exception as error:
            traceback.print_exc()
            _answer(channel, {"error": f"{type(error).__name__}: {error}"})
            return 1
    return 0


def _run(module: Any, job: ConvertJob | ReadJob) -> dict[str, float]:
    out_dir = Path(tempfile.mkdtemp(dir=job.work_dir))
    try:
        run = module.prepare(job, out_dir)
        gc.collect()
        os.sync()  # so that no tool waits for what the previous one left to be written
        cpu_start, start = cpu_seconds(), time.perf_counter()
        num_images, seconds = run(), time.perf_counter() - start
        while isinstance(job, ReadJob) and seconds < _MIN_READING_S:
            num_images, seconds = num_images + run(), time.perf_counter() - start
        cpu_used = cpu_seconds() - cpu_start
        del run  # it may hold threads, which must not work while another tool is timed
        num_bytes = sum(path.stat().st_size for path in out_dir.rglob("*") if path.is_file())
        return {
            "seconds": seconds,
            "num_images": num_images,
            "num_bytes": num_bytes,
            "cpu_seconds": cpu_used,
            "peak_bytes": peak_bytes(),
        }
    finally:
        shutil.rmtree(out_dir, ignore_errors=True)


def cpu_seconds() -> float:
    """Returns the processor time of this process so far, with all threads and ended children."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def peak_bytes() -> int:
    """Returns the most memory that this process has had, in bytes."""
    # Not getrusage: its maximum starts at that of the parent process.
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM:"))


def _answer(channel: Any, values: dict[str, Any]) -> None:
    channel.write(json.dumps(values) + "\n")
    channel.flush()


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
