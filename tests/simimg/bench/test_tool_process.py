"""The protocol between the driver and a tool's process, with tools that behave and tools that do not."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from simimg.bench.converters import Tool
from simimg.bench.converters.tool_server import ConvertJob
from simimg.bench.measurements import RunFailed
from simimg.bench.tool_process import ToolProcess

GOOD = """
import os
def load(job):
    print("a banner on standard output, which is the protocol's")
    return {"versions": {"fake": "1.0"}, "settings": f"{job.num_workers} workers"}
def prepare(job, out_dir):
    prepared = os.listdir(out_dir)
    def run():
        assert prepared == os.listdir(out_dir) == []
        print("working")
        (out_dir / "deep").mkdir()
        (out_dir / "deep" / "squares.bin").write_bytes(bytes(job.image_size) * len(job.files))
        return len(job.paths())
    return run
"""

Start = Callable[..., ToolProcess]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Starts a tool of the given source over three files."""
    (tmp_path / "work").mkdir()

    def start(source: str, **options: float) -> ToolProcess:
        script = tmp_path / "fake.py"
        script.write_text(source)
        job = ConvertJob(
            image_dir="/pictures",
            files=["a/1.jpg", "a/2.jpg", "b/3.jpg"],
            labels=[0, 0, 1],
            image_size=64,
            num_workers=2,
            work_dir=str(tmp_path / "work"),
        )
        return ToolProcess(Tool(name="fake", script=script), Path(sys.executable), job, dict(os.environ), **options)

    return start


def test_runs_when_told(start: Start, tmp_path: Path) -> None:
    with start(GOOD) as process:
        assert process.about == {"versions": {"fake": "1.0"}, "settings": "2 workers"}
        for _ in range(3):
            run = process.run()
            assert (run.num_images, run.num_bytes) == (3, 3 * 64)
            assert 0 < run.seconds < 10
            assert not any((tmp_path / "work").iterdir())


def test_only_the_run_is_timed(start: Start) -> None:
    slow = """
import time
now = [0.0]
time.perf_counter = lambda: now[0]
def load(job):
    now[0] += 100
    return {}
def prepare(job, out_dir):
    now[0] += 10
    def run():
        now[0] += 1
        return 3
    return run
"""
    with start(slow) as process:
        assert process.run().seconds == 1


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ("import not_installed_anywhere", "ModuleNotFoundError: No module named 'not_installed_anywhere'"),
        (
            "import sys; sys.stderr.write('no ink\\n\\n'); import os; os._exit(7)",
            "fake ended with code 7: no ink",
        ),
        ("import os; os._exit(0)", "fake ended with code 0: it printed nothing"),
    ],
)
def test_cannot_start(start: Start, broken: str, reason: str) -> None:
    with pytest.raises(RunFailed, match=reason):
        start(broken + GOOD)


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ("raise OSError(28, 'No space left on device')", "fake failed: OSError: .*No space left"),
        ("os.kill(os.getpid(), 9)", "fake ended with code -9"),
        ("import time; time.sleep(60)", "fake did not answer within 1 s"),
        ("return 2", "fake processed 2 of 3 images"),
    ],
)
def test_fails_while_it_runs(start: Start, broken: str, reason: str) -> None:
    hangs = "sleep" in broken
    process = start(GOOD.replace('print("working")', broken), timeout_s=1 if hangs else 60)
    with pytest.raises(RunFailed, match=reason):
        process.run()
    process.close()  # which it is already


def test_what_it_started_ends_with_it(start: Start, tmp_path: Path) -> None:
    """A tool whose own worker hangs, and which therefore does not go by itself."""
    source = (
        GOOD
        + f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
open({str(tmp_path / "child")!r}, "w").write(str(child.pid))
"""
    )
    process = start(source)
    child = int((tmp_path / "child").read_text())
    assert is_running(child)
    process.close()
    deadline = time.monotonic() + 60
    while is_running(child) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not is_running(child)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_scripts_do_not_find_each_other(start: Start, tmp_path: Path) -> None:
    """A file beside a script may have the name of a module that the script imports."""
    (tmp_path / "json.py").write_text("raise ImportError('the wrong one')")
    with start("import json\n" + GOOD) as process:
        assert process.run().num_images == 3
