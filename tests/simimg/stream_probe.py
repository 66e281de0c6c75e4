"""Runs command lines one after the other in this process, and writes their exit codes as JSON to a file.

    python stream_probe.py COMMANDS.json CODES.json

`test_standard_streams.py` starts it with standard streams in one state after the other. A command that needs TensorFlow
to be imported is replaced by one that uses the streams in every way that commands do.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import sys
import time
import types
import warnings
from pathlib import Path
from typing import Any

from simimg import cli
from simimg.commands.console import Result, note, progress_bar, stage_bars
from simimg.errors import DataError, UsageError
from simimg.standard_error import captured_stderr
from tfrecords.options import option

STUBS = {
    "train", "evaluate", "export", "import_weights", "data_service", "bench", "completion", "calibrate", "demo",
    "doctor", "serve", "leaks", "compare", "predict", "audit", "sweep",
}  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """How a stub ends."""

    end: str = option("How it ends.", "well", choices=("well", "usage", "data", "bug"))


def run(options: Options) -> Result:
    """Uses the streams."""
    note("a note of the command, in Köln")
    logging.getLogger("simimg").info("a note of the library")
    warnings.warn("a warning", stacklevel=1)
    sys.stderr.write("what a library says\n")
    with progress_bar(3, "working") as bar:
        for _ in range(3):
            bar.update()
            note("beside the bar")
    with stage_bars() as show:
        show("one", 1, 2)
        show("two", 2, 2)
    with captured_stderr():
        sys.stderr.write("noise\n")
    ends: dict[str, Exception] = {"usage": UsageError("no."), "data": DataError("broken."), "bug": KeyError("x")}
    if options.end in ends:
        raise ends[options.end]
    # More than a pipe holds, which is 64 KiB.
    return Result(values={"rows": ["é"] * 30_000}, text="row é\n" * 30_000, exit_code=1)


def stub(name: str) -> types.ModuleType:
    """Returns a module in the place of a command's."""
    module = types.ModuleType(f"simimg.commands.{name}", f"{cli.COMMANDS[name]}\n\nExample: simimg {name}\n")
    module.__dict__.update(Options=Options, run=run, JSON_KEYS="rows")
    return module


def main(commands: str, codes: str) -> None:
    """Runs the commands."""
    for name in STUBS:
        sys.modules[f"simimg.commands.{name}"] = stub(name)
    found: list[Any] = []
    for command in json.loads(Path(commands).read_text()):
        start = time.monotonic()
        try:
            found.append([cli.main(command), round(time.monotonic() - start, 2)])
        except BaseException as error:  # which is what must not happen
            found.append([f"{type(error).__name__}: {error}", 0])
    Path(codes).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
