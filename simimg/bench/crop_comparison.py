"""Random resized crops of JPEG records in processor time: this project's reader, other loaders, and the limit.

The records are photos with a short side of 500 px and of quality 90, as loaders for ImageNet are compared with. Every
tool cuts 8 to 100 % of the area to one size. Processor time is that of all threads, which a busy machine changes less
than the wall time.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from simimg.bench.converters import Tool
from simimg.bench.image_sets import ImageSet, made
from simimg.bench.reader_comparison import InputComparison, compare_readers
from simimg.bench.record_sets import Records
from simimg.errors import UsageError
from simimg.input.split import open_split
from tfrecords.convert.engine import convert
from tfrecords.convert.plan.convert_config import ConvertConfig
from tfrecords.machine_limits import num_cores

__all__ = ["CROP_LIMIT", "CROP_RIVALS", "SHORT_SIDE", "compare_crops", "crop_records"]

SHORT_SIDE = 500  # px
_QUALITY = 90
_SCRIPT = Path(__file__).parent / "loaders" / "crop_loader.py"

_OURS = tuple(Tool(name=name, script=_SCRIPT, variant=f"simimg{suffix}") for name, suffix in (
    ("region", ""), ("whole decode", "-whole"),
))  # fmt: skip
CROP_RIVALS = {name: Tool(name=name, script=_SCRIPT, variant=name) for name in ("tfdata", "tfdata-aliased", "pillow")}
CROP_LIMIT = Tool(name="entropy decoding", script=_SCRIPT, variant="entropy")
# As a multiple of the rival's images per second of a core.
_AIMS = (("region", "ffcv", 2.5), ("region", "tfdata", 2.5), ("region", "dali", 1.3))


def crop_records(pictures: ImageSet, num_images: int, cache_dir: Path) -> Records:
    """Returns records of `num_images` photos: the given ones, resized to the short side, and repeated.

    Raises:
        UsageError: a number is out of range.
    """
    if num_images < 1:
        raise UsageError(f"--num_images={num_images}: should be 1 or more.")
    files = pictures.files[:: max(1, len(pictures.files) // num_images)][:num_images]

    def enlarged(file: str) -> bytes:
        with Image.open(pictures.folder / file) as image:
            scale = SHORT_SIDE / min(image.size)
            size = (round(image.width * scale), round(image.height * scale))
            large = image.convert("RGB").resize(size, Image.Resampling.BICUBIC)
        buffer = io.BytesIO()
        large.save(buffer, "JPEG", quality=_QUALITY)
        return buffer.getvalue()

    def fill(folder: Path) -> None:
        with ThreadPoolExecutor(num_cores()) as threads:
            images = list(threads.map(enlarged, files))
        for number in range(num_images):
            path = folder / "photos" / files[number % len(files)].replace("/", f"/{number:08}-")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(images[number % len(files)])
        convert(
            ConvertConfig(
                image_dir=str(folder / "photos"),
                data_dir=folder,
                name="crops",
                resize="short",
                image_size=SHORT_SIDE,
                splits="train=1",
                copies="ignore",
            )
        )

    made_from = [pictures.folder.name, num_images, SHORT_SIDE, _QUALITY]
    folder = made(cache_dir, "crops", made_from, fill)
    split = open_split(folder / "crops" / "1.0.0", "train")
    kilobytes = (split.stored_bytes or 0) / num_images / 1e3
    return Records(
        split=split,
        image_dir=folder / "photos",
        forms_dir=folder,
        what=f"{num_images:,} JPEGs, short side {SHORT_SIDE} px, quality {_QUALITY}, {kilobytes:.0f} kB each",
    )


def compare_crops(
    records: Records,
    rivals: Sequence[Tool],
    *,
    image_size: int,
    batch_size: int,
    repeats: int,
    cache_dir: Path,
    note: Callable[[str], None] = lambda _: None,
    watch: Callable[[int], Callable[[], object]] = lambda _: lambda: None,
) -> InputComparison:
    """Measures crops of `image_size` px; `images_per_s` of the result are images per second of one core.

    The other arguments and the errors are those of `compare_readers`.
    """
    return compare_readers(
        dataclasses.replace(records, split=dataclasses.replace(records.split, image_size=image_size)),
        rivals,
        batch_size=batch_size,
        repeats=repeats,
        cache_dir=cache_dir,
        ours=_OURS,
        limit=CROP_LIMIT,
        wanted=_AIMS,
        by_core=True,
        note=note,
        watch=watch,
    )
