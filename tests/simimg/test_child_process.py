"""A list of tasks in child processes: what returns, raises, crashes, hangs or has no time left."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from simimg import child_process
from simimg.child_process import Outcome, run_tasks

MODULE = """
import os, sys, time
from simimg.child_process import serve_tasks

def do(task):
    os.write(1, b"a library writes to standard output\\n")
    if "raise" in task:
        raise ValueError(task["raise"])
    if "signal" in task:
        sys.stderr.write("F0000 Check failed: the device is on fire\\n")
        sys.stderr.flush()
        os.kill(os.getpid(), task["signal"])
    if "exit" in task:
        os._exit(task["exit"])
    time.sleep(task.get("sleep", 0))
    return {"process": os.getpid(), "twice": 2 * task["number"]}

serve_tasks(do)
"""

ROOT = Path(__file__).parents[2]
Run = Callable[..., list[Outcome]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    (tmp_path / "module_of_tasks.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)

    def run(tasks: list[dict[str, Any]], *, seconds: float = 30.0, **options: Any) -> list[Outcome]:
        return run_tasks("module_of_tasks", tasks, until=time.monotonic() + seconds, **options)

    return run


def test_one_failure_does_not_end_the_others(run: Run) -> None:
    calls: list[int] = []
    tasks = [{"number": 1}, {"raise": "no"}, {"number": 2}, {"signal": 6}, {"number": 3}, {"exit": 7}, {"number": 4}]
    found = run(tasks, progress=lambda: calls.append(1))
    ways = ["returned", "raised", "returned", "crashed", "returned", "crashed", "returned"]
    assert [outcome.how for outcome in found] == ways
    assert len(calls) == 7
    assert [outcome.value["twice"] for outcome in found if outcome.value] == [2, 4, 6, 8]
    processes = [outcome.value["process"] for outcome in found if outcome.value]
    assert processes[0] == processes[1]
    assert len(set(processes)) == 3  # a new one after each crash
    _, raised, _, aborted, _, ended, _ = found
    assert raised.error == "ValueError: no"
    assert "Traceback" in raised.messages
    assert aborted.error == "the process was ended by SIGABRT"
    assert "the device is on fire" in aborted.messages
    assert ended.error == "the process ended with code 7"


def test_what_hangs_is_ended(run: Run) -> None:
    hung, after = run([{"number": 1, "sleep": 60}, {"number": 2}], task_s=4.0)
    assert (hung.how, hung.error) == ("hung", "no answer for 4 s")
    assert (after.how, after.value["twice"]) == ("returned", 4)


def test_no_time_is_left(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time is up after the first task."""
    passed = [0.0]
    monkeypatch.setattr(
        child_process, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + passed[0], sleep=time.sleep)
    )
    tasks = [{"number": 1}, {"number": 2, "sleep": 60}, {"number": 3}]
    found = run(tasks, progress=lambda: passed.append(passed.pop() + 1000.0))
    assert [outcome.how for outcome in found] == ["returned", "not run", "not run"]
    assert [outcome.error for outcome in found[1:]] == ["its time was up", "no time was left"]
    assert [outcome.how for outcome in run([{"number": 1}], seconds=0.0)] == ["not run"]


def test_the_process_ends_with_the_one_that_started_it(run: Run, tmp_path: Path) -> None:
    """However that one ends: a task that hangs does not stay behind."""
    code = f"""
import sys, time
sys.path.insert(0, {str(tmp_path)!r})
from simimg.child_process import run_tasks
run_tasks("module_of_tasks", [{{"number": 1}}, {{"number": 2, "sleep": 600}}], until=time.monotonic() + 600,
          progress=lambda: print("one is done", flush=True))
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=ROOT)
    assert parent.stdout is not None
    assert parent.stdout.readline() == b"one is done\n"
    (child,) = psutil.Process(parent.pid).children()
    parent.kill()
    parent.wait()
    parent.stdout.close()
    psutil.wait_procs([child], timeout=30)
    assert not child.is_running()


def test_a_module_that_cannot_start(run: Run, tmp_path: Path) -> None:
    (tmp_path / "module_of_tasks.py").write_text("import a_package_that_is_not_there")
    first, second = run([{"number": 1}, {"number": 2}])
    assert first.how == second.how == "crashed"
    assert first.error == "the process ended with code 1"
    assert "a_package_that_is_not_there" in first.messages
