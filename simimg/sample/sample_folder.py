"""The sample folder on disk: drawn by several processes, whole or not there.

The folder is drawn under a temporary name beside its own and renamed at the end, so its name means that it is
complete; `.sample.json` in it says what it was drawn with. What a killed run leaves, a later run removes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import multiprocessing
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from simimg.sample.sample_files import (
    CLASS_NAMES,
    DRAWING,
    MAX_PER_CLASS,
    SPECIAL,
    SampleFile,
    file_bytes,
    list_files,
)
from tfrecords.base_errors import SimimgError, UsageError

__all__ = ["CLASS_NAMES", "SampleSummary", "draw_sample"]

_MARKER = ".sample.json"
_PARTIAL = ".sample-"  # in the temporary folder's name
_LITTER_S = 3_600  # a temporary folder untouched for so long belongs to no running process: one takes seconds
_CHUNK = 4  # files a task; a fifth of a second of work, which is also how long an interrupt waits


@dataclasses.dataclass(frozen=True)
class SampleSummary:
    """What a sample folder holds.

    Attributes:
        out_dir: the folder.
        class_names: its subfolders, one a class.
        num_images: good pictures, without the two files that are to be refused.
        special: path inside the folder -> what is special about that file.
    """

    out_dir: Path
    class_names: tuple[str, ...]
    num_images: int
    special: dict[str, str]


def draw_sample(
    out_dir: Path,
    *,
    per_class: int = 150,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
    num_workers: int | None = None,
) -> SampleSummary:
    """Draws the sample folder, or returns at once if it is there already.

    Args:
        out_dir: the folder to draw; should not exist, be empty, or be the same sample.
        per_class: good pictures a class, 1 to 2,000.
        seed: the same seed gives the same files, whatever the number of workers.
        progress: called with the number of files done so far, out of 5 * per_class + 2.
        num_workers: processes; None for one a core that this process may use, 1 to draw in this process.

    Raises:
        UsageError: an argument is out of range, or `out_dir` holds something else.
    """
    num_workers = len(os.sched_getaffinity(0)) if num_workers is None else num_workers
    for name, value, low, high in (
        ("per_class", per_class, 1, MAX_PER_CLASS),
        ("seed", seed, 0, 2**63 - 1),
        ("num_workers", num_workers, 1, 1_024),
    ):
        if not low <= value <= high:
            raise UsageError(f"`{name}` should be from {low} to {high}. Received: {name}={value}.")
    out_dir = Path(out_dir).absolute()
    made_with = {"drawing": DRAWING, "per_class": per_class, "seed": seed}
    files = list_files(per_class, seed)
    special = {file.name: SPECIAL[file.kind] for file in files if file.kind != "plain"}
    summary = SampleSummary(out_dir, CLASS_NAMES, per_class * len(CLASS_NAMES), special)
    if _is_there(out_dir, made_with, files):
        return summary

    out_dir.parent.mkdir(parents=True, exist_ok=True)
    _remove_litter(out_dir)
    partial = Path(tempfile.mkdtemp(prefix=f".{out_dir.name}{_PARTIAL}", dir=out_dir.parent))
    try:
        for class_name in CLASS_NAMES:
            (partial / class_name).mkdir()
        _draw(partial, files, seed, num_workers, progress or (lambda _: None))
        _write(partial / _MARKER, json.dumps(made_with).encode())
        partial.chmod(0o777 & ~_umask())  # mkdtemp makes folders that only their owner may read
        try:
            partial.rename(out_dir)
        except OSError:
            # Another process may have finished the same folder meanwhile; anything else there is an error.
            if not _is_there(out_dir, made_with, files):
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return summary


def _is_there(out_dir: Path, made_with: dict[str, int], files: list[SampleFile]) -> bool:
    """Whether the sample is complete in `out_dir`; False if nothing is, an error if something else is."""
    what_to_do = "Choose another folder, or remove this one to have the sample drawn."
    if not out_dir.exists():
        return False
    if not out_dir.is_dir():
        raise UsageError(f"{out_dir} is a file, not a folder. {what_to_do}")
    found = sorted(path.name for path in out_dir.iterdir())
    if not found:
        return False
    try:
        there = json.loads((out_dir / _MARKER).read_bytes())
    except (OSError, ValueError):
        listing = ", ".join(found[:5]) + (", …" if len(found) > 5 else "")
        raise UsageError(f"{out_dir} exists and is no sample folder: it holds {listing}. {what_to_do}") from None
    if there != made_with:
        raise UsageError(f"{out_dir} holds another sample, drawn with {there}. Received: {made_with}. {what_to_do}")
    missing = [file.name for file in files if not (out_dir / file.name).is_file()]
    if missing:
        raise UsageError(f"{out_dir} lacks {len(missing)} files of the sample, among them {missing[0]}. {what_to_do}")
    return True


def _remove_litter(out_dir: Path) -> None:
    for path in out_dir.parent.iterdir():
        if path.name.startswith(f".{out_dir.name}{_PARTIAL}"):
            with contextlib.suppress(FileNotFoundError):  # its process may rename or remove it just now
                newest = max(entry.stat().st_mtime for entry in (path, *path.iterdir()))
                if time.time() - newest > _LITTER_S:
                    shutil.rmtree(path, ignore_errors=True)


def _draw(folder: Path, files: list[SampleFile], seed: int, num_workers: int, progress: Callable[[int], None]) -> None:
    chunks = [files[k : k + _CHUNK] for k in range(0, len(files), _CHUNK)]
    num_done = 0
    if num_workers == 1 or len(chunks) == 1:
        for chunk in chunks:
            num_done += _draw_chunk(folder, chunk, seed)
            progress(num_done)
        return
    pool = ProcessPoolExecutor(
        min(num_workers, len(chunks)), multiprocessing.get_context("spawn"), initializer=_end_with_parent
    )
    try:
        # Ctrl-C goes to every process of the terminal. Processes started while it is blocked keep it blocked, so
        # it stops only this one, which lets the tasks that have begun come to their end and drops the others.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            futures = [pool.submit(_draw_chunk, folder, chunk, seed) for chunk in chunks]
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for future in as_completed(futures):
            num_done += future.result()
            progress(num_done)
    except BrokenProcessPool:
        raise SimimgError(
            f"A process that was drawing pictures into {folder} ended early. Try again with num_workers=1 "
            f"instead of {num_workers}: it needs less memory, and no `if __name__ == '__main__':` in the caller."
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _draw_chunk(folder: Path, files: list[SampleFile], seed: int) -> int:
    for file in files:
        _write(folder / file.name, file_bytes(file, seed))
    return len(files)


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)


def _end_with_parent() -> None:
    """Runs in every worker: a parent that was killed cannot tell its workers to stop, so they watch it."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
