"""Processes with TensorFlow that are forked from one that has imported it, which takes five seconds of processor time.

`ForkedProcess` is a `subprocess.Popen` of `python -c CODE`, `python -m MODULE` or `python FILE`. Not for tests of what
imports do, or of environment variables that libraries look at when they are imported.
"""

from __future__ import annotations

import ctypes
import functools
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PR_SET_CHILD_SUBREAPER = 36

# It has no devices yet, and none of the threads that compute; each fork sets its own up. A fork is the child of another
# one, which ends at once: so the process that asked for it becomes its parent.
SERVER = """
import gc, json, os, runpy, socket, sys
gc.disable()
import cv2, hypothesis, keras, pytest, scipy, tensorflow
gc.freeze()
requests = socket.socket(fileno=0)
while True:
    request, streams, _, _ = socket.recv_fds(requests, 1 << 20, 3)
    if not request:
        sys.exit()
    (reading, writing), (waiting, beginning) = os.pipe(), os.pipe()
    if (between := os.fork()) == 0:
        if os.fork():
            os._exit(0)
        break
    os.waitpid(between, 0)
    requests.send(os.read(reading, 100))
    for descriptor in (reading, writing, waiting, beginning, *streams):
        os.close(descriptor)

requests.detach()
arguments, cwd, environment, has_session = json.loads(request)
if has_session:
    os.setsid()
os.write(writing, str(os.getpid()).encode())
os.close(beginning)
os.read(waiting, 1)  # which ends when the process between has ended, and its parent is the one that asked
os.close(reading), os.close(writing), os.close(waiting)
for number, stream in enumerate(streams):
    os.dup2(stream, number)
    os.close(stream)
os.chdir(cwd)
os.environ.clear()
os.environ.update(environment)
sys.orig_argv[1:] = arguments
sys.stdin = sys.__stdin__ = open(0, closefd=False)
for number, name in ((1, "stdout"), (2, "stderr")):
    lines, errors = (1, "backslashreplace") if number == 2 else (1 if "-u" in arguments else -1, None)
    stream = open(number, "w", buffering=lines, errors=errors, closefd=False)
    setattr(sys, name, stream), setattr(sys, f"__{name}__", stream)
safe_path = False
while arguments[0] in ("-u", "-P"):
    safe_path |= arguments.pop(0) == "-P"
if arguments[0] in ("-c", "-m"):
    folder, what = os.getcwd() if arguments[0] == "-m" else "", arguments.pop(1)
else:
    folder, what = os.path.dirname(os.path.abspath(arguments[0])), arguments[0]
more = os.environ.get("PYTHONPATH", "").split(os.pathsep)
sys.path[:1] = [path for path in ([] if safe_path else [folder]) + more if path or path == folder]
sys.argv = arguments
gc.enable()
if arguments[0] == "-c":
    exec(compile(what, "<string>", "exec"), globals())
elif arguments[0] == "-m":
    runpy.run_module(what, run_name="__main__", alter_sys=True)
else:
    runpy.run_path(what, run_name="__main__")
"""


@functools.cache
def server() -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """Returns the socket and the process that runs `SERVER`. It ends with this one, which closes the socket."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVER], cwd=ROOT, env=environment, stdin=theirs, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
    return ours, process


class ForkedProcess(subprocess.Popen):
    """A process with TensorFlow; `cwd`, `env`, `start_new_session`, streams, and methods are those of `Popen`."""

    def _execute_child(
        self, args: list[str], executable: Any, preexec_fn: Any, close_fds: Any, pass_fds: Any, cwd: Any, env: Any,
        startupinfo: Any, creationflags: Any, shell: Any, p2cread: int, p2cwrite: int, c2pread: int, c2pwrite: int,
        errread: int, errwrite: int, restore_signals: Any, gid: Any, gids: Any, uid: Any, umask: Any,
        start_new_session: bool, *_: Any,
    ) -> None:  # fmt: skip
        assert args[0] == sys.executable
        variables = dict(os.environ if env is None else env)
        request = json.dumps([args[1:], os.fspath(cwd or os.getcwd()), variables, start_new_session])
        streams = [own if given == -1 else given for own, given in enumerate((p2cread, c2pwrite, errwrite))]
        prctl = ctypes.CDLL(None).prctl
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        try:
            self.pid = fork(request.encode(), streams)
        finally:
            prctl(PR_SET_CHILD_SUBREAPER, 0)
        self._child_created = True
        self._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)


def fork(request: bytes, streams: list[int]) -> int:
    """Returns the process that a request to the server has started."""
    for _ in range(2):
        requests, process = server()
        try:
            socket.send_fds(requests, [request], streams)
            if pid := requests.recv(100):
                return int(pid)
        except (BrokenPipeError, ConnectionResetError):
            pass
        server.cache_clear()  # it was killed
        process.wait()
    raise ChildProcessError(f"{process.args} ends with {process.returncode}")


def run_forked(command: list[str], *, timeout: float | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs a `ForkedProcess` to its end; returns what it wrote, as `subprocess.run` does."""
    with ForkedProcess(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options) as process:
        try:
            output, errors = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(command, process.returncode, output, errors)
