"""Standard error: what the library logs is shown as notes, and the noise of native libraries is kept off.

TensorFlow writes while it is imported and looks for GPUs, its converter while it runs, and LiteRT when it starts, all
below Python and below any log level. The text is shown after an error, and nothing is captured with `--verbose`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator


class NoteHandler(logging.Handler):
    """Writes what the library logs, such as that a network is being converted, as notes."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record's message."""
        from tqdm import tqdm

        tqdm.write(record.getMessage(), file=sys.stderr)


def note_what_is_logged() -> None:
    """Show the messages of the loggers of `simimg` as notes, once, and not by any handler of another library."""
    logger = logging.getLogger("simimg")
    if not any(isinstance(handler, NoteHandler) for handler in logger.handlers):
        logger.addHandler(NoteHandler())
        logger.setLevel(logging.INFO)
        logger.propagate = False


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
