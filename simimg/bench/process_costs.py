"""The wall time, the processor time and the peak memory of a command together with all processes that it starts.

Processor time is that of the process and of every descendant, as the system counts it. Those that nobody waited for,
such as the workers of a server process, are adopted when it ends, and waited for here. Memory is resident memory, the
mapped files included. The most that a single process had is the system's own count. For several processes at a time it
is a sum, sampled ten times per second, in which each page that they share after a fork counts once. Pages of files
count in full in each of them: their proportional share would depend on what else runs on the machine. It needs Linux.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from simimg.bench.measurements import Run, RunFailed
from simimg.errors import UsageError

__all__ = ["check_linux", "run_command"]

_SAMPLE_MS = 20  # a look takes 0.2 ms of the processor
_SUM_EVERY_S = 0.1  # the system takes 5 ms and more to count the pages of a process with TensorFlow
_TIMEOUT_S = 3_600
_ROLLUP = "smaps_rollup"
_ENDING_S = 5.0  # for the processes that it leaves to end by themselves
_PROC = Path("/proc")
_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER of Linux's prctl.h


def check_linux() -> None:
    """Raises UsageError on a system where costs cannot be measured."""
    if not (_PROC / "self/status").is_file() or not hasattr(os, "pidfd_open"):
        raise UsageError("--stage=embedding measures processes through /proc, which only Linux has.")


def run_command(
    command: Sequence[str], *, folder: Path, environment: Mapping[str, str], timeout_s: float = _TIMEOUT_S
) -> tuple[Run, str]:
    """Runs a command in `folder` and returns its costs, as a run of one image, and its standard output.

    Raises:
        RunFailed: it ended with an exit code other than 0, or did not end in time; with the last line of its messages.
    """
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as messages, _adopting():
        start = time.perf_counter()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=messages,
            cwd=folder,
            env=environment,
            start_new_session=True,  # what it started ends together with it
        )
        try:
            peak_bytes = _watched(process.pid, start + timeout_s)
            seconds = time.perf_counter() - start
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            cpu_seconds = usage.ru_utime + usage.ru_stime + _left_behind(process.pid)
        except TimeoutError:
            raise RunFailed(f"it did not end within {timeout_s:,.0f} s") from None
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                _left_behind(process.pid)
        if process.returncode:
            raise RunFailed(f"it ended with code {process.returncode}: {_last_line(_content(messages))}")
        run = Run(seconds, 1, 0, cpu_seconds, peak_bytes)
        return run, _content(output)


@contextlib.contextmanager
def _adopting() -> Iterator[None]:
    """Make this process the parent of descendants whose parents end."""
    prctl = ctypes.CDLL(None).prctl
    prctl(_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        prctl(_SUBREAPER, 0, 0, 0, 0)


def _left_behind(group: int) -> float:
    """Waits for the processes of a group that are children of this one; returns their processor time, in seconds."""
    cpu_seconds, deadline = 0.0, time.perf_counter() + _ENDING_S
    while True:
        try:
            pid, _, usage = os.wait4(-group, os.WNOHANG)
        except ChildProcessError:
            return cpu_seconds
        if pid:
            cpu_seconds += usage.ru_utime + usage.ru_stime
        elif time.perf_counter() < deadline:
            time.sleep(_SAMPLE_MS / 1000)
        else:
            os.killpg(group, signal.SIGKILL)


def _watched(pid: int, deadline: float) -> int:
    """Waits for the end of a child process and returns the most memory that it and its descendants had."""
    handle, peak_bytes, next_sum = os.pidfd_open(pid), 0, 0.0
    try:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        while not poll.poll(_SAMPLE_MS):
            pids = [pid, *_descendants(pid)]
            peak_bytes = max(peak_bytes, *(_fields(one, "status").get("VmHWM", 0) for one in pids))
            if len(pids) > 1 and time.perf_counter() >= next_sum:
                peak_bytes = max(peak_bytes, sum(map(_resident, pids)))
                next_sum = time.perf_counter() + _SUM_EVERY_S
            if time.perf_counter() > deadline:
                raise TimeoutError
    finally:
        os.close(handle)
    return peak_bytes


def _resident(pid: int) -> int:
    """Returns the resident bytes of one of several processes; a page of memory that n of them share counts 1 / n."""
    fields = _fields(pid, _ROLLUP)
    if "Pss_Anon" in fields:
        return fields["Rss"] - fields["Anonymous"] + fields["Pss_Anon"]
    return _fields(pid, "status").get("VmRSS", 0)  # of an older system


def _descendants(pid: int) -> Iterator[int]:
    with contextlib.suppress(OSError):  # it has ended
        for file in (_PROC / str(pid) / "task").glob("*/children"):
            for child in map(int, file.read_text().split()):
                yield child
                yield from _descendants(child)


def _fields(pid: int, name: str) -> dict[str, int]:
    """Returns the sizes in a file of /proc, in bytes; none of a process that has ended."""
    found = {}
    with contextlib.suppress(OSError):
        for line in (_PROC / str(pid) / name).read_text().splitlines():
            field, _, value = line.partition(":")
            if value.endswith(" kB"):
                found[field] = 1024 * int(value.removesuffix(" kB"))
    return found


def _content(file: object) -> str:
    file.seek(0)  # type: ignore[attr-defined]
    return str(file.read().decode(errors="replace"))  # type: ignore[attr-defined]


def _last_line(text: str) -> str:
    """Returns the last line of a command's messages, but not the one that points to its help."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("See: ")]
    return lines[-1] if lines else "it printed nothing"
