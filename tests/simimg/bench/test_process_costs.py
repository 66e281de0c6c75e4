"""A command's costs include those of the processes that it starts, and its failures name their reason."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from simimg.bench import process_costs
from simimg.bench.measurements import Run, RunFailed
from simimg.bench.process_costs import check_linux, run_command
from simimg.errors import UsageError

MB = 10**6
ALONE = f"memory = bytearray(60 * {MB}); import time; time.sleep(0.5); print('done')"
SPIN = "import time\nwhile time.process_time() < 0.4: pass"
CHILD = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {SPIN!r}])"
LEFT = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {SPIN!r}])"  # nobody waits for it
BESIDE = (
    f"import subprocess, sys; memory = bytearray(60 * {MB}); subprocess.run([sys.executable, '-c', {ALONE!r}], "
    "stdout=subprocess.DEVNULL); del memory"
)
FORKED = f"import os, time; memory = bytearray(60 * {MB}); pid = os.fork(); time.sleep(0.5); pid and os.wait()"


def cost(folder: Path, code: str, **options: float) -> tuple[Run, str]:
    return run_command([sys.executable, "-c", code], folder=folder, environment=dict(os.environ), **options)


def test_memory_and_processor_time_are_those_of_all_processes(tmp_path: Path) -> None:
    empty, _ = cost(tmp_path, "import time; time.sleep(0.5)")
    alone, output = cost(tmp_path, ALONE)
    assert output == "done\n"
    assert 55 * MB < alone.peak_bytes - empty.peak_bytes < 70 * MB
    assert alone.seconds > 0.5
    assert alone.cpu_seconds < 0.3 + empty.cpu_seconds  # it sleeps
    both, _ = cost(tmp_path, BESIDE)
    assert 110 * MB < both.peak_bytes - 2 * empty.peak_bytes < 140 * MB
    forked, _ = cost(tmp_path, FORKED)
    assert forked.peak_bytes < alone.peak_bytes + empty.peak_bytes + 10 * MB  # the shared pages count once
    for code in (CHILD, LEFT):
        assert cost(tmp_path, code)[0].cpu_seconds >= 0.4


def test_a_large_parent_does_not_count(tmp_path: Path) -> None:
    """The system's own count of a child begins with the memory of its parent."""
    memory = bytearray(200 * MB)
    assert cost(tmp_path, "pass")[0].peak_bytes < 100 * MB
    assert len(memory) == 200 * MB


def test_without_a_rollup_a_process_counts_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = process_costs._resident(os.getpid())
    monkeypatch.setattr(process_costs, "_ROLLUP", "no such file")
    assert 0 < shared <= process_costs._resident(os.getpid()) + 10 * MB
    assert process_costs._resident(2**30) == 0  # a process that has ended
    assert not list(process_costs._descendants(2**30))


def test_failures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for code, reason in (
        ("raise SystemExit('out of ink\\nSee: simimg search --help')", "it ended with code 1: out of ink"),
        ("raise SystemExit(3)", "it ended with code 3: it printed nothing"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "it ended with code -9: it printed nothing"),
    ):
        with pytest.raises(RunFailed) as failed:
            cost(tmp_path, code)
        assert str(failed.value) == reason
    with pytest.raises(RunFailed, match=r"it did not end within 0 s"):
        cost(tmp_path, f"import subprocess; subprocess.run(['sleep', '71{os.getpid()}'])", timeout_s=0.3)
    for _ in range(100):  # its children end with it, on a busy machine a moment later
        there = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
        if f"sleep 71{os.getpid()}" not in there:
            break
        time.sleep(0.1)
    assert f"sleep 71{os.getpid()}" not in there
    monkeypatch.setattr(process_costs, "_PROC", tmp_path)
    with pytest.raises(UsageError, match="which only Linux has"):
        check_linux()
