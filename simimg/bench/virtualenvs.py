"""The rivals' own virtual environments, made when they are first needed.

`<cache_dir>/rivals/<name>/` is an environment. Its file `.complete` holds the Python version and the requirements that
it was made from. It is written last, so an environment without it, or with another text in it, is made again.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import simimg
from simimg.bench.converters import Tool
from simimg.bench.measurements import RunFailed

__all__ = ["environment_variables", "python_of"]

_INSTALL_TIMEOUT_S = 3_600
_LAST_LINES = 3  # of pip's output, which hold the reason


def python_of(tool: Tool, cache_dir: Path, note: Callable[[str], None] = lambda _: None) -> Path:
    """Returns the Python that runs a tool, after installing what the tool needs if necessary.

    Args:
        tool: the tool.
        cache_dir: the environments are in its folder `rivals`.
        note: called with a line before something is installed, which takes minutes.

    Raises:
        RunFailed: it cannot be installed on this machine.
    """
    if tool.requirements is None:
        return Path(sys.executable)
    wanted = f"Python {sys.version}\n{tool.requirements.read_text()}"
    folder = cache_dir / "rivals" / tool.name
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder.with_name(f".{tool.name}.lock")):
        python, complete = folder / "bin" / "python", folder / ".complete"
        if complete.exists() and complete.read_text() == wanted and python.exists():
            return python
        _check_packages(tool)
        note(f"installing {tool.name} into {folder}, which takes some minutes")
        shutil.rmtree(folder, ignore_errors=True)
        _call([sys.executable, "-m", "venv", str(folder)], tool.name)
        _call([str(python), "-m", "pip", "install", "--no-deps", "-r", str(tool.requirements)], tool.name)
        complete.write_text(wanted)
    return python


def environment_variables(tool: Tool) -> dict[str, str]:
    """Returns the environment variables of a tool's process: none sees a GPU, and only ours sees our packages."""
    variables = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "2"}
    if tool.requirements is None:
        ours = str(Path(simimg.__file__).absolute().parents[1])
        variables["PYTHONPATH"] = os.pathsep.join(filter(None, (ours, os.environ.get("PYTHONPATH"))))
    else:
        variables.pop("PYTHONPATH", None)
    return variables


def _check_packages(tool: Tool) -> None:
    missing = [name for name in tool.packages if not (shutil.which(name) or _is_module(name))]
    if missing:
        raise RunFailed(f"{', '.join(missing)} not found on this machine; on Debian: apt-get install {tool.debian}")


def _is_module(name: str) -> bool:
    if not shutil.which("pkg-config"):
        return False
    return subprocess.run(["pkg-config", "--exists", name], check=False).returncode == 0


def _call(command: list[str], name: str) -> None:
    variables = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
            timeout=_INSTALL_TIMEOUT_S,
            env=variables,
        )
    except subprocess.TimeoutExpired:
        raise RunFailed(f"installing {name} took more than {_INSTALL_TIMEOUT_S // 60} minutes") from None
    if done.returncode:
        lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
        errors = [line for line in lines if line.lower().startswith("error")] or lines
        raise RunFailed(f"{name} cannot be installed: {' '.join(errors[-_LAST_LINES:]) or 'no reason was given'}")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Waits while another call installs the same tool."""
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
