"""What commands share of the terminal: the result they return, progress bars, and a quiet import of TensorFlow."""

from __future__ import annotations

import dataclasses
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

__all__ = ["Result", "note", "progress_bar", "quiet_tensorflow", "showing", "shows_progress"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """What a command found: `values` for `--json`, `text` for people, and the exit code."""

    values: dict[str, Any]
    text: str
    exit_code: int = 0


def note(text: str) -> None:
    """Writes a line about what is going on to standard error, above any progress bar."""
    tqdm.write(text, file=sys.stderr)


def shows_progress() -> bool:
    """Tells whether standard error is a terminal that can go back to the beginning of a line.

    TERM=dumb says that it cannot, as editors' shells do. Nothing here is coloured, so NO_COLOR changes nothing.
    """
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def progress_bar(total: int | None, description: str, unit: str = "img") -> tqdm[Any]:
    """Returns a progress bar on standard error, which is shown on a terminal and not in a log file."""
    return tqdm(
        total=total,
        desc=description,
        unit=unit,
        dynamic_ncols=True,
        leave=False,
        disable=not shows_progress(),
        file=sys.stderr,
    )


def showing(bar: tqdm[Any]) -> Callable[[int, int], None]:
    """Returns what shows how much of how much is done."""

    def show(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)

    return show


@contextmanager
def quiet_tensorflow() -> Iterator[None]:
    """Holds back what TensorFlow's libraries write to standard error while they are imported and look for GPUs.

    They do so before their own log level applies. What was held back is shown if the import fails; `simimg doctor`
    shows what matters of it.
    """
    try:
        stderr = sys.stderr.fileno()
    except (OSError, ValueError):  # standard error is no file, as under a test runner
        yield
        return
    with tempfile.TemporaryFile() as held_back:
        saved = os.dup(stderr)
        os.dup2(held_back.fileno(), stderr)
        try:
            yield
            _start_tensorflow()
        except BaseException:
            held_back.seek(0)
            os.write(saved, held_back.read())
            raise
        finally:
            os.dup2(saved, stderr)
            os.close(saved)


def _start_tensorflow() -> None:
    import tensorflow as tf

    tf.get_logger().setLevel("ERROR")
    tf.config.list_physical_devices()
    # Keras tells of its downloads on standard output, in colours; only a command that needs Keras has imported it.
    if keras := sys.modules.get("keras"):
        keras.config.disable_interactive_logging()
