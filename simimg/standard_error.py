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


def shows_progress() -> bool:
    """Tell whether standard error is a terminal that can return to the beginning of a line.

    TERM=dumb, which the shells of editors set, says that it cannot. No output is colored, so NO_COLOR has no effect.
    """
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def write_note(text: str) -> None:
    """Write a line to standard error, above any progress bar."""
    if not shows_progress():
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
        return
    from tqdm import tqdm  # 20 ms

    tqdm.write(text, file=sys.stderr)


class NoteHandler(logging.Handler):
    """Writes what the library logs, such as that a network is being converted, as notes."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record's message."""
        write_note(record.getMessage())


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
