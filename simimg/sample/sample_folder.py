"""The sample folder on disk, unpacked from the archive beside this module: complete or absent.

The folder is written under a temporary name beside its final one and renamed at the end, so the final name means that
it is complete. `.sample.json` in it says how it was made. A later call removes what a killed one has left.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import random
import shutil
import time
import uuid
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from PIL import Image

from tfrecords.base_errors import UsageError

__all__ = ["CLASS_NAMES", "MAX_PER_CLASS", "SampleSummary", "draw_sample"]

CLASS_NAMES = ("balloons", "fishes", "flowers", "houses", "mountains")
MAX_PER_CLASS = 150  # images of each class in the archive; of mountains there is one more
_ARCHIVE = Path(__file__).with_name("sample_images.zip")
_DRAWING = 2  # raised whenever the pixels change, so that an older folder is not taken for the same
_MARKER = ".sample.json"
_PARTIAL = ".sample-"  # in the temporary folder's name
_LITTER_S = 3_600  # a temporary folder untouched for so long belongs to no running process: one takes seconds
_WEB_PAGE = b"<!DOCTYPE html>\n<title>404 Not Found</title>\n<p>The picture you were looking for has moved.</p>\n"
_SPECIAL = {
    "turned": "stored on its side, EXIF orientation 6",
    "cmyk": "a CMYK JPEG",
    "cut": "a JPEG cut off in the middle: to be rejected",
    "text": "a web page named .jpg: to be rejected",
}


@dataclasses.dataclass(frozen=True)
class SampleSummary:
    """Content of a sample folder.

    Attributes:
        out_dir: the folder.
        class_names: its subfolders, one per class.
        num_images: good images, without the two files that are to be rejected.
        special: path inside the folder -> what is special about that file.
    """

    out_dir: Path
    class_names: tuple[str, ...]
    num_images: int
    special: dict[str, str]


def draw_sample(
    out_dir: Path, *, per_class: int = MAX_PER_CLASS, progress: Callable[[int], None] | None = None
) -> SampleSummary:
    """Writes the sample folder, or returns at once if it exists already.

    Args:
        out_dir: the folder to write; it may not exist, be empty, or be the same sample.
        per_class: good images per class, 1 to 150.
        progress: called with the number of files written so far, out of 5 * per_class + 2.

    Raises:
        UsageError: `per_class` is out of range, or `out_dir` holds something else.
    """
    if not 1 <= per_class <= MAX_PER_CLASS:
        raise UsageError(f"`per_class` should be from 1 to {MAX_PER_CLASS}. Received: per_class={per_class}.")
    out_dir = Path(out_dir).absolute()
    made_with = {"drawing": _DRAWING, "per_class": per_class}
    files = _files(per_class)
    special = {name: _SPECIAL[kind] for name, kind in files.items() if kind}
    summary = SampleSummary(out_dir, CLASS_NAMES, per_class * len(CLASS_NAMES), special)
    if _is_complete(out_dir, made_with, files):
        return summary

    out_dir.parent.mkdir(parents=True, exist_ok=True)
    _remove_litter(out_dir)
    partial = out_dir.with_name(f".{out_dir.name}{_PARTIAL}{uuid.uuid4().hex[:8]}")
    try:
        for class_name in CLASS_NAMES:
            (partial / class_name).mkdir(parents=True)
        _unpack(partial, files, progress or (lambda _: None))
        _write(partial / _MARKER, json.dumps(made_with).encode())
        try:
            partial.rename(out_dir)
        except OSError:
            # Another process may have finished the same folder meanwhile; anything else there is an error.
            if not _is_complete(out_dir, made_with, files):
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return summary


def _files(per_class: int) -> dict[str, str]:
    """Returns the kind of every file by its name: "" is a plain image; the last two are to be rejected."""
    files = {f"{name}/image_{k:04d}.jpg": "" for name in CLASS_NAMES for k in range(1, per_class + 1)}
    files[f"houses/image_{per_class // 2 + 1:04d}.jpg"] = "turned"
    files[f"flowers/image_{per_class // 3 + 1:04d}.jpg"] = "cmyk"
    return {**files, f"fishes/image_{per_class + 1:04d}.jpg": "text", f"mountains/image_{per_class + 1:04d}.jpg": "cut"}


def _is_complete(out_dir: Path, made_with: dict[str, int], files: dict[str, str]) -> bool:
    """Returns whether `out_dir` is the complete sample; raises an error if it holds something else."""
    what_to_do = "Choose another folder, or remove this one to have the sample written."
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
        raise UsageError(f"{out_dir} exists and is not a sample folder: it holds {listing}. {what_to_do}") from None
    if there != made_with:
        raise UsageError(f"{out_dir} holds another sample, made with {there}. Received: {made_with}. {what_to_do}")
    missing = [name for name in files if not (out_dir / name).is_file()]
    if missing:
        raise UsageError(f"{out_dir} lacks {len(missing)} files of the sample, among them {missing[0]}. {what_to_do}")
    return True


def _remove_litter(out_dir: Path) -> None:
    for path in out_dir.parent.iterdir():
        if path.name.startswith(f".{out_dir.name}{_PARTIAL}"):
            with contextlib.suppress(FileNotFoundError):  # its own process may rename or remove it at this moment
                newest = max(entry.stat().st_mtime for entry in (path, *path.iterdir()))
                if time.time() - newest > _LITTER_S:
                    shutil.rmtree(path, ignore_errors=True)


def _unpack(folder: Path, files: dict[str, str], progress: Callable[[int], None]) -> None:
    with zipfile.ZipFile(_ARCHIVE) as archive:
        # Threads are enough: decoding, encoding and writing release the interpreter's lock.
        pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)))
        try:
            futures = [
                pool.submit(lambda name, kind: _write(folder / name, _content(archive, name, kind)), name, kind)
                for name, kind in files.items()
            ]
            for num_done, future in enumerate(as_completed(futures), start=1):
                future.result()
                progress(num_done)
        finally:
            pool.shutdown(cancel_futures=True)


def _content(archive: zipfile.ZipFile, name: str, kind: str) -> bytes:
    """Returns a file of the sample. An image has the same JPEG settings in every sample that it is part of."""
    if kind == "text":
        return _WEB_PAGE
    with Image.open(io.BytesIO(archive.read(name.replace("image_", "").replace(".jpg", ".webp")))) as stored:
        image = stored.convert("CMYK" if kind == "cmyk" else "RGB")
    rng = random.Random(name)
    settings: dict[str, Any] = {"quality": rng.randrange(80, 96), "subsampling": rng.randrange(3)}
    if kind == "turned":
        settings["exif"] = Image.Exif()
        settings["exif"][0x0112] = 6  # Orientation: "rotate me clockwise by 90 degrees to display me"
        image = image.transpose(Image.Transpose.ROTATE_90)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", progressive=not kind and rng.random() < 0.15, **settings)
    content = buffer.getvalue()
    return content[: len(content) * 55 // 100] if kind == "cut" else content


def _write(path: Path, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
