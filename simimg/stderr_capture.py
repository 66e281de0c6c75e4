"""Keeps off the terminal what native libraries write to standard error, below Python and below any log level.

TensorFlow writes while it is imported and looks for GPUs, its converter while it runs, and LiteRT when it starts. The
text is shown after an error, and nothing is captured with `--verbose`. A module of its own because the command line and
the networks both need it.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def captured_stderr() -> Iterator[None]:
    """Capture standard error of the whole process while the block runs, and show it if the block raises an error.

    Nothing is captured if standard error is not a file, as under a test runner. Not for blocks that run for long,
    because messages of other threads are captured, too.
    """
    stderr = None
    with contextlib.suppress(OSError, ValueError, AttributeError):
        stderr = sys.stderr.fileno()
    if stderr is None or os.environ.get("TF_CPP_MIN_LOG_LEVEL") == "0":  # set by --verbose
        yield
        return
    with tempfile.TemporaryFile() as captured:
        saved = os.dup(stderr)
        os.dup2(captured.fileno(), stderr)
        try:
            yield
        except BaseException:
            captured.seek(0)
            os.write(saved, captured.read())
            raise
        finally:
            os.dup2(saved, stderr)
            os.close(saved)
