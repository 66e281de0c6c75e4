"""Terminal output shared by commands: their result, notes, progress bars, and a quiet import of TensorFlow."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simimg.errors import UsageError
from simimg.signals import exit_on_sigterm
from simimg.standard_error import captured_stderr, shows_progress, write_note
from simimg.standard_streams import read_input

if TYPE_CHECKING:
    from tqdm import tqdm


PROBLEM = 1
"""Exit code of a command that did its work and found a problem, or with `--strict` left something out."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """Result of a command: `values` for `--json`, `text` for people, and the exit code.

    What could not be used changes the exit code with `--strict` only, so a command counts it here, in `unit`s.
    """

    values: dict[str, Any]
    text: str
    exit_code: int = 0
    num_skipped: int = 0
    unit: str = "file"


def note(text: str) -> None:
    """Write a line to standard error, above any progress bar."""
    write_note(text)


def noting_skipped(skipped: list[str], named: Mapping[str, str] | None = None) -> Callable[[str, str], None]:
    """Return a callback for a skipped file and the reason, which prints both and appends them to the list.

    `named` has the names of files that are called otherwise, as those of `with_stdin`.
    """

    def skip(path: str, reason: str) -> None:
        path = (named or {}).get(path, path)
        note(f"skipped {path}: {reason}")
        skipped.append(f"{path}: {reason}")

    return skip


def none_decoded(skipped: Sequence[str]) -> UsageError:
    """Return the error of a command that skipped all images; `skipped` is that of `noting_skipped`."""
    example = f": {skipped[0]}" if len(skipped) == 1 else f", e.g. {skipped[0]}" if skipped else ""
    return UsageError(f"none of the given images can be decoded{example}. Name an image file, such as a JPEG or a PNG.")


STDIN = "-"
"""What stands for an image on standard input among the names of images; a file of this name is ./-."""


@contextlib.contextmanager
def with_stdin(images: Sequence[str]) -> Iterator[dict[str, str]]:
    """Yield the files to read, each with the name that the user gave it: `-` is a temporary file of standard input.

    Raises:
        UsageError: nothing comes from standard input.
    """
    if STDIN not in images:
        yield {image: image for image in images}
        return
    data = read_input()
    with exit_on_sigterm(), tempfile.TemporaryDirectory(prefix="simimg-") as folder:
        file = Path(folder) / "image"
        file.write_bytes(data)
        yield {str(file) if image == STDIN else image: image for image in images}


class _HiddenBar(contextlib.AbstractContextManager["_HiddenBar"]):
    """A bar that is not shown, for which tqdm need not be imported; it takes 20 ms."""

    def __init__(self, total: int | None) -> None:
        self.total, self.n, self.initial = total, 0, 0

    def update(self, number: int = 1) -> None:
        self.n += number

    def set_postfix(self, **values: object) -> None:
        pass

    def set_postfix_str(self, text: str, refresh: bool = True) -> None:
        pass

    def close(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        pass


def progress_bar(total: int | None, description: str, unit: str = "img") -> tqdm[Any] | _HiddenBar:
    """Return a progress bar on standard error; it is shown on a terminal only, not in a log file."""
    if not shows_progress():
        return _HiddenBar(total)
    from tqdm import tqdm

    return tqdm(
        total=total,
        desc=description,
        unit=unit,
        dynamic_ncols=True,
        leave=False,
        file=sys.stderr,
    )


def showing(bar: tqdm[Any] | _HiddenBar) -> Callable[[int, int], None]:
    """Return a callback that updates the bar from the number done and the total."""

    def show(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)

    return show


@contextlib.contextmanager
def stage_bars() -> Iterator[Callable[[str, int, int], None]]:
    """Yield a callback for the stage, the number done and the total; each stage has a progress bar of its own."""
    with contextlib.ExitStack() as shown:
        bars: dict[str, tqdm[Any] | _HiddenBar] = {}  # the one of the current stage

        def show(name: str, done: int, total: int) -> None:
            if name not in bars:
                shown.close()
                bars.clear()
                bars[name] = shown.enter_context(progress_bar(total, name))
            showing(bars[name])(done, total)

        yield show


@contextlib.contextmanager
def quiet_tensorflow() -> Iterator[None]:
    """Capture what TensorFlow's libraries write to standard error while they are imported and look for GPUs.

    They write before their own log level applies. The captured text is shown if the import fails, and nothing is
    captured with `--verbose`. `simimg doctor` reports what matters.
    """
    with captured_stderr():
        yield
        _start_tensorflow()


def _start_tensorflow() -> None:
    import tensorflow as tf

    tf.get_logger().setLevel("ERROR")
    tf.config.list_physical_devices()
    # Keras reports downloads on standard output, in color; it is imported only by commands that need it.
    if keras := sys.modules.get("keras"):
        keras.config.disable_interactive_logging()
