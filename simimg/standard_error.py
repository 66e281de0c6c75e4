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
import threading
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

    Blocks of several threads may overlap: the capture lasts until the last of them ends. Nothing is captured if
    standard error is not a file, as under a test runner, or without a folder for temporary files. Not for blocks that
    run for long, because messages of other threads are captured, too.
    """
    with _LOCK:
        _CAPTURES.append(_CAPTURES[0] if _CAPTURES else _Capture())
    failed = True
    try:
        yield
        failed = False
    finally:
        with _LOCK:
            capture = _CAPTURES.pop()
            if failed:
                capture.show()
            if not _CAPTURES:
                capture.end()


class _Capture:
    """Standard error on its way to a temporary file."""

    def __init__(self) -> None:
        self._saved: int | None = None
        if os.environ.get("TF_CPP_MIN_LOG_LEVEL") == "0":  # set by --verbose
            return
        with contextlib.suppress(OSError, ValueError, AttributeError):
            self._stderr = sys.stderr.fileno()
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 - it is closed when the capture ends
            self._saved = os.dup(self._stderr)
            os.dup2(self._file.fileno(), self._stderr)

    def show(self) -> None:
        """Write to standard error what was captured so far."""
        if self._saved is not None:
            self._file.seek(0)
            os.write(self._saved, self._file.read())
            self._file.truncate(0)

    def end(self) -> None:
        """Give standard error back."""
        if self._saved is not None:
            os.dup2(self._saved, self._stderr)
            os.close(self._saved)
            self._file.close()


_LOCK = threading.Lock()
_CAPTURES: list[_Capture] = []  # one per block that runs, all the same
