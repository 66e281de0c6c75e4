"""What a conversion can be told, each option declared once."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from tfrecords.convert.images import RESIZES
from tfrecords.convert.sources import printable
from tfrecords.convert.split import parse_splits
from tfrecords.errors import UsageError
from tfrecords.format.layout import ENCODINGS
from tfrecords.format.naming import check_name, dataset_dir
from tfrecords.options import check_choices, option

__all__ = ["ConvertConfig"]

# Up to this size a picture's pixels are so few bytes that reading them costs less than decoding a JPEG would.
_RAW_UP_TO_PX = 128
_MAX_IMAGE_SIZE = 4096


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvertConfig:
    """A conversion's options. Raises UsageError when one cannot be used."""

    image_dir: Path = option("Folder with one folder of pictures a class.")
    data_dir: Path = option("Where data sets live; this one goes to DATA_DIR/NAME/1.0.0.", Path("data"))
    name: str = option("Name of the data set; by default that of the image folder.", "")
    categories: tuple[str, ...] = option("Class folders to take, in the order of their labels; by default all.", ())
    image_size: int = option("Side of the stored square pictures, in px.", 64)
    resize: str = option("How a picture becomes a square.", "stretch", choices=RESIZES)
    encoding: str = option(
        f"How pixels are stored; auto is raw up to {_RAW_UP_TO_PX} px, else jpeg.", "auto", choices=("auto", *ENCODINGS)
    )
    jpeg_quality: int = option("Quality of JPEG shards, 1..100.", 95)
    splits: str = option("Splits and their fractions of each class.", "train=0.75,test=0.25")
    seed: int = option("Deals the photos to the splits and orders them.", 0)
    num_workers: int = option("Processes that convert; 0 is one a core.", 0)

    def __post_init__(self) -> None:
        """Checks the values that can be checked without looking at the folder."""
        check_choices(self)
        parse_splits(self.splits)
        if self.name:
            check_name(self.name)
        if not 1 <= self.image_size <= _MAX_IMAGE_SIZE:
            raise UsageError(f"--image_size={self.image_size}: should be 1..{_MAX_IMAGE_SIZE} px.")
        if not 1 <= self.jpeg_quality <= 100:
            raise UsageError(f"--jpeg_quality={self.jpeg_quality}: should be 1..100.")
        if self.num_workers < 0:
            raise UsageError(f"--num_workers={self.num_workers}: should be 1 or more, or 0 for one a core.")
        if len(set(self.categories)) < len(self.categories):
            raise UsageError(f"--categories={','.join(self.categories)}: names a category twice.")

    def resolved(self) -> ConvertConfig:
        """Returns this configuration with `name` and `encoding` decided."""
        name = self.name or re.sub(r"\W+", "_", self.image_dir.resolve().name, flags=re.ASCII).strip("_")
        if not re.match("[a-zA-Z]", name):
            name = f"images_{name}".rstrip("_")
        encoding = self.encoding
        if encoding == "auto":
            encoding = "raw" if self.image_size <= _RAW_UP_TO_PX else "jpeg"
        return dataclasses.replace(self, name=name, encoding=encoding)

    @property
    def dataset_dir(self) -> Path:
        """The finished data set's folder."""
        return dataset_dir(self.data_dir, self.name)

    def determining(self) -> dict[str, object]:
        """Returns the options that decide the bytes of the data set, for comparison with another conversion's."""
        return {
            "name": self.name,
            "categories": [printable(category) for category in self.categories],
            "image_size": self.image_size,
            "resize": self.resize,
            "encoding": self.encoding,
            **({"jpeg_quality": self.jpeg_quality} if self.encoding == "jpeg" else {}),
            "splits": ",".join(f"{name}={fraction:g}" for name, fraction in parse_splits(self.splits).items()),
            "seed": self.seed,
        }
