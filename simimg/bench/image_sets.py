"""The image folders of a measurement, so that every tool gets the same files.

They are kept under `<cache_dir>/bench/`, in folders named by a hash of their source. A folder is made under a temporary
name and renamed at the end. The user's own folder is only read.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import math
import multiprocessing
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, JpegImagePlugin

from simimg.errors import UsageError
from tfrecords.machine_limits import num_cores

__all__ = ["TURNS", "ImageSet", "good_jpegs", "large_jpegs", "made", "turned_jpegs"]

_LARGE_QUALITY = 90
# Standard deviation of a pixel's brightness, in 0..255: a camera's in daylight and at a high sensitivity. Noise cannot
# be compressed, and an image of more bytes takes longer to decode.
DAYLIGHT, HIGH_SENSITIVITY = 3.0, 7.0
_SUFFIXES = (".jpg", ".jpeg")
_RECIPE = 1  # raised whenever the same source would give other images

# Eight orientations of an image, which no search for copies takes for the same.
TURNS: tuple[tuple[Image.Transpose, ...], ...] = (
    (),
    (Image.Transpose.FLIP_LEFT_RIGHT,),
    (Image.Transpose.FLIP_TOP_BOTTOM,),
    (Image.Transpose.ROTATE_180,),
    (Image.Transpose.ROTATE_90,),
    (Image.Transpose.ROTATE_270,),
    (Image.Transpose.TRANSPOSE,),
    (Image.Transpose.TRANSVERSE,),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageSet:
    """A folder with one folder per class that holds only good JPEG files.

    Attributes:
        folder: its path.
        files: every file, relative to it, sorted.
        num_bytes: the size of all files.
        what: a description of how it was made.
    """

    folder: Path
    files: tuple[str, ...]
    num_bytes: int
    what: str

    def labels(self) -> list[int]:
        """Returns the number of each file's class."""
        classes = sorted({file.split("/")[0] for file in self.files})
        number = {name: label for label, name in enumerate(classes)}
        return [number[file.split("/")[0]] for file in self.files]


def good_jpegs(image_dir: Path, cache_dir: Path) -> ImageSet:
    """Copies the JPEG files that every tool can decode: undamaged, and in RGB or gray.

    A class is a folder directly below `image_dir`; files directly in `image_dir` are one more class.

    Raises:
        UsageError: there are no such files.
    """
    if not image_dir.is_dir():
        raise UsageError(f"--image_dir={image_dir} is not a folder.")
    found = sorted(
        path
        for path in image_dir.rglob("*")
        if path.suffix.lower() in _SUFFIXES and not _is_hidden(path.relative_to(image_dir)) and path.is_file()
    )
    stamps = [(str(path.relative_to(image_dir)), path.stat().st_size, path.stat().st_mtime_ns) for path in found]
    classes = sorted({_class_of(path, image_dir) for path in found})

    def fill(folder: Path) -> None:
        for number, path in enumerate(found):
            data = path.read_bytes()
            if _is_good(data):
                name = f"class_{classes.index(_class_of(path, image_dir)):03}"
                (folder / name).mkdir(exist_ok=True)
                (folder / name / f"{number:06}.jpg").write_bytes(data)

    folder = made(cache_dir, "photos", [str(image_dir.resolve()), stamps], fill)
    pictures = _listed(folder, f"the undamaged JPEG files of {image_dir}")
    if not pictures.files:
        raise UsageError(f"--image_dir={image_dir} has no JPEG files that can be decoded.")
    return pictures


def turned_jpegs(pictures: ImageSet, times: int, cache_dir: Path) -> ImageSet:
    """Returns `times` as many images: each as it is, mirrored, upside down, and so on (`TURNS`).

    They are encoded with the quantization, the sampling and the mode of their originals, so decoding them costs the
    same. Links to one file would cost the same as well, but they would be copies, which a converter may look for.

    Args:
        pictures: the originals.
        times: 1 to 8.
        cache_dir: the folder whose `bench` holds the images.
    """
    if not 1 <= times <= len(TURNS):
        raise UsageError(f"--replicate={times}: should be 1..{len(TURNS)}.")
    if times == 1:
        return pictures
    job = partial(_turn, str(pictures.folder), times)

    def fill(folder: Path) -> None:
        _each_in(folder, job, pictures.files)

    folder = made(cache_dir, f"photos-x{times}", [pictures.folder.name], fill)
    return _listed(folder, f"{pictures.what}, each in {times} orientations (mirrored, turned)")


def large_jpegs(pictures: ImageSet, megapixels: int, count: int, cache_dir: Path, *, noise: float) -> ImageSet:
    """Returns JPEG files like a camera's: 4:3, quality 90, with noise that keeps them from being smooth.

    Args:
        pictures: `count` of them, evenly chosen, are enlarged by a bicubic filter; then Gaussian noise is added to the
            brightness of each pixel, as a sensor does.
        megapixels: millions of pixels per image, 1 to 100; 12 is 4000 x 3000.
        count: the number of files, at least 1.
        cache_dir: the folder whose `bench` holds the images.
        noise: the standard deviation of the noise, e.g. `DAYLIGHT`.
    """
    if count < 1:
        raise UsageError(f"--num_large={count}: should be 1 or more.")
    if not 1 <= megapixels <= 100:
        raise UsageError(f"--megapixels={megapixels}: should be 1..100.")
    height = round(math.sqrt(megapixels * 1e6 * 3 / 4))
    width = round(height * 4 / 3)
    chosen = [pictures.files[number * len(pictures.files) // count] for number in range(count)]
    job = partial(_enlarge, str(pictures.folder), width, height, noise)

    def fill(folder: Path) -> None:
        _each_in(folder, job, list(enumerate(chosen)))

    folder = made(cache_dir, f"photos-{megapixels}mp", [pictures.folder.name, count, noise], fill)
    what = f"{count} photos enlarged to {width} x {height}, noise of {noise:g} in 255, JPEG quality {_LARGE_QUALITY}"
    return _listed(folder, what)


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _class_of(path: Path, image_dir: Path) -> str:
    parts = path.relative_to(image_dir).parts
    return parts[0] if len(parts) > 1 else ""


def _is_good(data: bytes) -> bool:
    try:
        with warnings.catch_warnings(action="error"), Image.open(io.BytesIO(data)) as image:
            image.load()
            return image.format in ("JPEG", "MPO") and image.mode in ("RGB", "L")
    except Exception:  # a damaged file may raise anything
        return False


def made(cache_dir: Path, name: str, made_from: object, fill: Callable[[Path], None]) -> Path:
    """Returns the kept folder `name` that was made from `made_from`; `fill` writes it if it does not exist."""
    key = hashlib.sha256(repr((_RECIPE, made_from)).encode("utf-8", "surrogateescape")).hexdigest()[:12]
    folder = cache_dir / "bench" / f"{name}-{key}"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=folder.parent))
        try:
            fill(temporary)
            temporary.rename(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _listed(folder: Path, what: str) -> ImageSet:
    files = tuple(sorted(path.relative_to(folder).as_posix() for path in folder.glob("*/*.jpg")))
    return ImageSet(
        folder=folder, files=files, num_bytes=sum((folder / file).stat().st_size for file in files), what=what
    )


def _each_in(folder: Path, job: Callable[[str, object], None], items: Sequence[object]) -> None:
    """Calls `job(folder, item)` for each item, in one process per core."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(num_cores(), mp_context=context) as executor:
        results: Iterable[None] = executor.map(partial(job, str(folder)), items, chunksize=8)
        for _ in results:
            pass


def _turn(source: str, times: int, target: str, file: str) -> None:
    name, number = os.path.splitext(file)[0].split("/")
    os.makedirs(os.path.join(target, name), exist_ok=True)
    data = Path(source, file).read_bytes()
    Path(target, name, f"{number}-0.jpg").write_bytes(data)
    with Image.open(io.BytesIO(data)) as image:
        assert isinstance(image, JpegImagePlugin.JpegImageFile)
        sampling = {"subsampling": JpegImagePlugin.get_sampling(image)} if image.mode == "RGB" else {}
        tables, progressive = image.quantization, bool(image.info.get("progressive"))
        upright = ImageOps.exif_transpose(image)
        for turn in range(1, times):
            turned = upright
            for method in TURNS[turn]:
                turned = turned.transpose(method)
            path = os.path.join(target, name, f"{number}-{turn}.jpg")
            turned.save(path, "JPEG", qtables=tables, progressive=progressive, **sampling)


def _enlarge(source: str, width: int, height: int, noise: float, target: str, item: tuple[int, str]) -> None:
    number, file = item
    name = file.split("/")[0]
    os.makedirs(os.path.join(target, name), exist_ok=True)
    with Image.open(os.path.join(source, file)) as image:
        large = ImageOps.exif_transpose(image).convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
    grain = np.random.default_rng(number).standard_normal((height, width, 1), np.float32) * np.float32(noise)
    pixels = np.clip(np.asarray(large) + grain + 0.5, 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(os.path.join(target, name, f"{number:06}.jpg"), "JPEG", quality=_LARGE_QUALITY)
