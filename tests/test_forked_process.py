"""A process that was forked is for a test what one that was started is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.forked_process import ForkedProcess, run_forked

CODE = """
import json, os, sys
print(json.dumps([sys.argv, sys.orig_argv[1:], os.getcwd(), os.environ.get("NAME"), os.getppid(), __name__]))
sys.exit("the reason")
"""


def test_what_it_is_given_and_how_it_ends(tmp_path: Path) -> None:
    done = run_forked([sys.executable, "-c", CODE, "x"], cwd=tmp_path, env={**os.environ, "NAME": "ü"})
    assert (done.returncode, done.stderr) == (1, "the reason\n")
    expected = [["-c", "x"], ["-c", CODE, "x"], str(tmp_path), "ü", os.getpid(), "__main__"]
    assert json.loads(done.stdout) == expected


def test_it_can_be_killed_with_its_session(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text("import time\nprint('ready', flush=True)\ntime.sleep(600)")
    command = [sys.executable, "-m", "module"]
    with ForkedProcess(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert os.getpgid(process.pid) == process.pid
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
