"""The records that readers are compared on: a dataset, and the same images in the formats that rivals need.

They are kept under `<cache_dir>/bench/` like the images that they are made of, see `simimg.bench.image_sets`.
"""

from __future__ import annotations

import dataclasses
import io
import os
import tarfile
from pathlib import Path

import numpy as np

from simimg.bench.image_sets import ImageSet, made
from simimg.errors import UsageError
from simimg.input.readers.resident import load_examples
from simimg.input.split import Split, open_split
from tfrecords.convert.engine import convert
from tfrecords.convert.plan.convert_config import ConvertConfig
from tfrecords.format.example import decode_example
from tfrecords.format.shard import ShardReader
from tfrecords.machine_limits import num_cores

__all__ = ["Records", "records_of"]

_QUALITY = 90  # of JPEG records; the same as FFCV's


@dataclasses.dataclass(frozen=True, kw_only=True)
class Records:
    """A dataset with one split `train`, and the paths of its other forms.

    Attributes:
        split: the dataset.
        image_dir: the images that it was made of.
        forms_dir: `pixels.npy`, uint8 `[n, size, size, 3]`, and `labels.npy`, int64 `[n]`; of JPEG records, also tar
            shards for WebDataset, and `files/`, which has the records' own JPEG files in one folder per class.
        what: a description of the records.
    """

    split: Split
    image_dir: Path
    forms_dir: Path
    what: str


def records_of(
    pictures: ImageSet, num_images: int, image_size: int, encoding: str, cache_dir: Path, *, spread: bool = False
) -> Records:
    """Returns records of `num_images` images: the given ones, repeated.

    If there are more images than that, the first ones are used; with `spread`, images of the whole list, evenly chosen.

    Raises:
        UsageError: a number is out of range.
    """
    if num_images < 1:
        raise UsageError(f"--num_images={num_images}: should be 1 or more.")
    made_from = [pictures.folder.name, num_images, image_size, encoding, _QUALITY, *(["spread"] if spread else [])]
    files = pictures.files[:: max(1, len(pictures.files) // num_images) if spread else 1]

    def fill(folder: Path) -> None:
        for number in range(num_images):
            file = files[number % len(files)]
            path = folder / "links" / file.replace("/", f"/{number:08}-")
            path.parent.mkdir(parents=True, exist_ok=True)
            os.link(pictures.folder / file, path)
        dataset_dir = convert(
            ConvertConfig(
                image_dir=str(folder / "links"),
                data_dir=folder,
                name="pictures",
                image_size=image_size,
                encoding=encoding,
                jpeg_quality=_QUALITY,
                splits="train=1",
                copies="ignore",
            )
        ).dataset_dir
        _write_forms(open_split(dataset_dir, "train"), folder / "forms")

    folder = made(cache_dir, f"records-{image_size}-{encoding}", made_from, fill)
    form = f"JPEG of quality {_QUALITY}" if encoding == "jpeg" else "raw pixels"
    return Records(
        split=open_split(folder / "pictures" / "1.0.0", "train"),
        image_dir=folder / "links",
        forms_dir=folder / "forms",
        what=f"{num_images:,} images of {image_size} x {image_size}, {form}",
    )


def _write_forms(split: Split, folder: Path) -> None:
    folder.mkdir()
    examples = load_examples(split, num_threads=num_cores())
    np.save(folder / "pixels.npy", examples.images)
    np.save(folder / "labels.npy", examples.labels.astype(np.int64))
    if split.encoding != "jpeg":
        return
    for number, shard in enumerate(split.shards):
        with tarfile.open(folder / f"pictures-{number:05}.tar", "w") as tar:
            for payload in ShardReader(shard.path):
                example = decode_example(payload)
                image, label, id = example["image"], example["label"], example["id"]
                assert isinstance(image, bytes)
                assert isinstance(label, int)
                assert isinstance(id, int)
                name = f"{id:08}"
                _add(tar, f"{name}.jpg", image)
                _add(tar, f"{name}.cls", str(label).encode())
                file = folder / "files" / f"class_{label:03}" / f"{name}.jpg"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(image)


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))
