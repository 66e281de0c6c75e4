"""Runs one tool when it is told to, and times it: the script that each tool's own Python executes.

    python -P serve.py TOOL.py

`TOOL.py` lies beside this file and has

    load(job) -> dict        imports what it needs; returns {"versions": {name: version}, "settings": text}
    prepare(job, out_dir) -> run
                             makes ready for one run that writes into the empty folder `out_dir`; not timed
    run() -> int             does the job and returns the number of pictures converted; timed

A line of JSON comes in, a line of JSON goes out:

    in  {"image_dir": …, …}  the job             out  what `load` returned
    in  {}                   run once            out  {"seconds": s, "num_images": n, "num_bytes": what is in out_dir}
    in  end of file          exit
    out {"error": text}      instead of an answer; the traceback is on standard error

What a tool itself prints goes to standard error. Everything here is standard library, because a tool's environment
has only what the tool needs.
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

__all__ = ["Job", "main"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """Pictures that are to become squares on disk.

    Attributes:
        image_dir: a folder with one folder a class.
        files: every file in it, relative; good JPEG files all.
        labels: the class of each file.
        image_size: side of the squares, in px.
        num_workers: cores there are.
        work_dir: where folders for the tool's output are made, and removed.
    """

    image_dir: str
    files: list[str]
    labels: list[int]
    image_size: int
    num_workers: int
    work_dir: str

    def paths(self) -> list[str]:
        """Returns the whole path of every file."""
        return [os.path.join(self.image_dir, file) for file in self.files]


def main(tool: Path) -> int:
    """Serves standard input until it ends; returns the exit code."""
    with os.fdopen(os.dup(1), "w") as channel:
        os.dup2(2, 1)
        try:
            job = Job(**json.loads(sys.stdin.readline()))
            spec = importlib.util.spec_from_file_location(f"tool_{tool.stem}", tool)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules[spec.name] = module  # where worker processes that are forked look functions up by name
            spec.loader.exec_module(module)
            _answer(channel, module.load(job))
            for _ in sys.stdin:
                _answer(channel, _run(module, job))
        except Exception as error:
            traceback.print_exc()
            _answer(channel, {"error": f"{type(error).__name__}: {error}"})
            return 1
    return 0


def _run(module: Any, job: Job) -> dict[str, float]:
    out_dir = Path(tempfile.mkdtemp(dir=job.work_dir))
    try:
        run = module.prepare(job, out_dir)
        gc.collect()
        os.sync()  # so that nobody waits for the disk on behalf of the tool before
        start = time.perf_counter()
        num_images = run()
        seconds = time.perf_counter() - start
        del run  # a tool may still hold threads, which should not work on while another tool is timed
        num_bytes = sum(path.stat().st_size for path in out_dir.rglob("*") if path.is_file())
        return {"seconds": seconds, "num_images": num_images, "num_bytes": num_bytes}
    finally:
        shutil.rmtree(out_dir, ignore_errors=True)


def _answer(channel: Any, values: dict[str, Any]) -> None:
    channel.write(json.dumps(values) + "\n")
    channel.flush()


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
