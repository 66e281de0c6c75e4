"""Runs a module of simimg in a process of its own, with the packages that this process has.

The process keeps its memory and its settings to itself: the conversion of a network needs TensorFlow, and a measurement
on one core must not be one of this process. A module of its own because both need it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path


def run_module(
    module: str, *arguments: str, environment: Mapping[str, str] | None = None, folder: Path | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run a module with arguments until it ends; return its exit code and what it wrote to both outputs.

    `environment` has further variables. Modules are not taken from the current folder, whose files may have the names
    of modules, unless this process takes them from there.
    """
    command = [sys.executable, "-P", "-m", module, *arguments]
    modules = os.pathsep.join(path or os.getcwd() for path in sys.path)
    variables = {**os.environ, "PYTHONPATH": modules, **(environment or {})}
    return subprocess.run(command, capture_output=True, env=variables, cwd=folder, check=False)


def last_message(done: subprocess.CompletedProcess[bytes]) -> str:
    """Return the last line that a process wrote to standard error; empty if there is none."""
    return done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
