"""Options of a conversion, each declared once."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

from tfrecords.base_errors import UsageError
from tfrecords.convert.image.decoder import DECODES, RESIZES, TRUNCATED, ImageOptions, image_options, parse_background
from tfrecords.convert.image.image_formats import MAX_PIXELS
from tfrecords.convert.image.near_duplicates import COPIES
from tfrecords.convert.image.sample_range import AUTO, parse_range
from tfrecords.convert.plan.group_split import MAX_FOLDS, fold_fractions, parse_group_pattern
from tfrecords.convert.plan.recorded_options import recorded_options
from tfrecords.convert.plan.split_assignment import AUTO_SPLITS, DEFAULT_SPLITS, SOURCE_SPLITS, are_counts, parse_splits
from tfrecords.convert.plan.stored_form import RAW_UP_TO_PX, check_form, encoding_of
from tfrecords.convert.sources import (
    EXCLUDE_FROM_HELP,
    EXCLUDE_HELP,
    INCLUDE_HELP,
    LINKS,
    Source,
    check_encoding,
    check_patterns,
)
from tfrecords.convert.sources.stored_dataset import name_of_copy
from tfrecords.format.array_record_shard import array_record_library
from tfrecords.format.image_size import ImageSize, parse_image_size
from tfrecords.format.naming import ARRAY_RECORD, FILE_FORMATS, TFRECORD, check_name, name_after
from tfrecords.format.record_layout import ENCODINGS, OWN_SHAPES, Offsets
from tfrecords.format.schema import LABEL_TYPES
from tfrecords.options import check_choices, option

ENGINES = ("local", "ray", "beam")
CONFLICTS = ("keep", "drop", "fail")
RAY_ADDRESS_HELP = "HOST:PORT of a Ray cluster, or auto for that of this machine; without, Ray starts here."


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvertConfig:
    """The options of a conversion. Raises UsageError if one of them cannot be used."""

    image_dir: str = option(
        "Folder with one folder of images per class; or a zip file, tar shards (p-{000..009}.tar), a TFDS folder, a "
        "URL.",
        "",
        url=True,
    )
    table: str = option(
        "CSV or parquet file, or a list, with paths, labels and optionally splits; paths are relative to --image_dir.",
        "",
        url=True,
    )
    from_dataset: str = option(
        "Dataset folder or URL to convert into another size or encoding from its stored images, without the files.",
        "",
        flag="from",
        url=True,
    )
    data_dir: Path = option("Folder or URL of datasets; this one goes to DATA_DIR/NAME/1.0.0.", Path("data"), url=True)
    name: str = option("Name of the dataset; by default that of the image folder.", "")
    categories: tuple[str, ...] = option("Class folders to convert, in the order of their labels; by default all.", ())
    image_size: ImageSize = option(
        "Size of the stored images in px: the side of squares, or width x height, such as 256x192. With --resize=short "
        "or longest, the largest such side.",
        64,
    )
    resize: str = option(
        "How an image gets this size. Or it keeps its shape, to be cropped while training: reduced by its short side "
        "or its longest one to --image_size, or not at all (none).",
        "stretch",
        choices=(*RESIZES, *OWN_SHAPES),
        group="images",
    )
    channels: int = option("Channels of the stored images: 1 is gray, 3 RGB, 4 RGBA.", 3, group="images")
    decode: str = option(
        "Decode JPEG files at a fraction of their size (fast), or at full size (exact).",
        "fast",
        choices=DECODES,
        group="images",
    )
    truncated: str = option("What to do with truncated image files.", "refuse", choices=TRUNCATED, group="images")
    background: str = option(
        "Color behind transparent pixels: a name or #RRGGBB; checker; or auto, which is white, or black where an image "
        "would be plain white.",
        "white",
        group="images",
    )
    range: str = option(
        "Values of deep samples (more than 8 bits) that become black and white: auto or full for those of the type, "
        "min-max for those of each image, or LO,HI.",
        AUTO,
        group="images",
    )
    max_pixels: int = option(
        "Reject images with more pixels. A JPEG may have more if it can be decoded at a fraction.",
        MAX_PIXELS,
        group="images",
    )
    encoding: str = option(
        f"How to store pixels; auto is raw up to {RAW_UP_TO_PX} px, and jpeg above.",
        "auto",
        choices=("auto", *ENCODINGS),
        group="images",
    )
    format: str = option(
        "Format of the shards: tfrecord, which the other commands and tf.data read, or array_record, which "
        "tfds.data_source and Grain read at random.",
        TFRECORD,
        choices=FILE_FORMATS,
        group="images",
    )
    jpeg_quality: int = option("Quality of JPEG records, 1..100.", 95, group="images")
    write_index: bool = option("Write the offsets of raw records, too, for NVIDIA DALI.", False, group="images")
    splits: str = option(
        f"Splits and their shares, or numbers of images as in train:30,test:50, of each class; {SOURCE_SPLITS} keeps "
        f"those of the source, and {AUTO_SPLITS} does so if its folders are splits, or else takes {DEFAULT_SPLITS}.",
        AUTO_SPLITS,
    )
    copies: str = option(
        "Copies to keep in one split: near (including resized and recompressed ones), exact, or ignore (none).",
        "near",
        choices=COPIES,
        group="splits and files",
    )
    group_column: str = option(
        "With --table: a column, such as the patient; images with the same value stay in one split.",
        "",
        group="splits and files",
    )
    group_pattern: str = option(
        "Regular expression on paths, such as '(patient[0-9]+)_'; images with the same first group of it (or whole "
        "match) stay in one split.",
        "",
        group="splits and files",
    )
    time_column: str = option(
        "With --table: a column of dates or numbers; the split test gets the latest images, and train the earliest.",
        "",
        group="splits and files",
    )
    folds: int = option(
        "Instead of --splits: so many equal splits fold1, fold2, …; `train --fold=1` tests on the first one.",
        0,
        group="splits and files",
        words={"off": 0},
    )
    conflicts: str = option(
        "Copies of one image in several classes: keep all, drop all, or fail.",
        "keep",
        choices=CONFLICTS,
        group="splits and files",
    )
    links: str = option(
        "A file with several names, by links: keep all of them, or convert it once.",
        "keep",
        choices=LINKS,
        group="splits and files",
    )
    seed: int = option("Seed of the splits and of the order.", 0)
    include: tuple[str, ...] = option(INCLUDE_HELP, (), repeated="GLOB", group="splits and files")
    exclude: tuple[str, ...] = option(EXCLUDE_HELP, (), repeated="GLOB", group="splits and files")
    exclude_from: str = option(EXCLUDE_FROM_HELP, "", group="splits and files")
    path_column: str = option(
        "With --table: the column of the paths, by name or number; by default it is recognized.",
        "",
        group="splits and files",
    )
    label_column: str = option(
        "With --table: the column of the labels, likewise; with --label_type=multi or float several, with commas.",
        "",
        group="splits and files",
    )
    label_type: str = option(
        "Labels of an image: one class (single), several (multi), numbers (float), or none. Several and numbers come "
        "from a --table.",
        "single",
        choices=LABEL_TYPES,
    )
    features: tuple[str, ...] = option(
        "With --table: further columns to store with each image, as NAME or NAME:TYPE, which is int64, float32, bytes "
        "or text.",
        (),
        group="splits and files",
    )
    zip_encoding: str = option(
        "Encoding of names in zips and tars that are not UTF-8, such as cp949; by default it is guessed.",
        "",
        group="splits and files",
    )
    append: bool = option(
        "Add the files that the dataset does not have yet, as new shards in a new version.",
        False,
        group="splits and files",
    )
    only: str = option(
        "A quarantine.jsonl: convert only the files that it lists, after they were repaired.",
        "",
        group="splits and files",
    )
    max_refused: str = option(
        "Fail if more files than this are rejected: a number, or a share such as 1%.", "", group="splits and files"
    )
    num_workers: int = option("Worker processes; auto is one per core.", 0, group="workers", words={"auto": 0})
    engine: str = option(
        "Where the workers run: this machine, Ray, or Apache Beam.", "local", choices=ENGINES, group="workers"
    )
    ray_address: str = option(RAY_ADDRESS_HELP, "", group="workers")
    beam_options: str = option(
        "Options for Apache Beam, e.g. '--runner=FlinkRunner --flink_master=host:8081'.", "", group="workers"
    )

    def __post_init__(self) -> None:
        """Check the values that can be checked without looking at the source."""
        # Not Paths, which would make one slash of the two in a URL.
        for name in ("image_dir", "table", "from_dataset", "only", "exclude_from"):
            object.__setattr__(self, name, os.path.expanduser(os.fspath(getattr(self, name))))
        check_choices(self)
        no_size = "none" if self.resize == "none" else ""
        object.__setattr__(self, "image_size", parse_image_size(self.image_size, zero=no_size))
        parse_splits(self.splits)
        check_patterns(self.include, self.exclude)
        check_encoding(self.zip_encoding)
        parse_background(self.background)
        parse_range(self.range)
        self.refusal_limit(0)
        self._check_split_options()
        if self.name:
            check_name(self.name)
        check_form(self)
        if self.num_workers < 0:
            raise UsageError(f"--num_workers={self.num_workers}: should be 1 or more, or 0 for one per core.")
        if self.label_type == "none" and self.label_column:
            raise UsageError(
                f"--label_column={self.label_column} names labels, and --label_type=none stores none. Leave out one of "
                "them."
            )
        if self.categories and self.label_type == "float":
            raise UsageError(f"--categories={','.join(self.categories)}: numbers have no classes. Leave it out.")
        if len(set(self.categories)) < len(self.categories):
            raise UsageError(f"--categories={','.join(self.categories)}: has a category twice.")
        for name, of in (("beam_options", "beam"), ("ray_address", "ray")):
            if getattr(self, name) and self.engine != of:
                raise UsageError(f"--{name}={getattr(self, name)!r} needs --engine={of}.")

    @property
    def own_shapes(self) -> bool:
        """Whether images keep their shapes."""
        return self.resize in OWN_SHAPES

    def _check_split_options(self) -> None:
        parse_group_pattern(self.group_pattern)
        if self.folds and not 2 <= self.folds <= MAX_FOLDS:
            raise UsageError(f"--folds={self.folds}: should be 2..{MAX_FOLDS}, or 0 for none.")
        if self.group_column and self.group_pattern:
            raise UsageError(
                f"--group_column={self.group_column} and --group_pattern={self.group_pattern} both say what stays "
                "together. Give one of them."
            )
        if self.folds and self.splits != AUTO_SPLITS:
            raise UsageError(f"--folds={self.folds} makes the splits. Leave out --splits={self.splits}.")
        if are_counts(parse_splits(self.splits)) and (self.time_column or self.append):
            given = f"--time_column={self.time_column} divides by time" if self.time_column else "--append adds images"
            raise UsageError(
                f"{given}, and --splits={self.splits} counts the images of each class at random. Give shares, as in "
                f"{DEFAULT_SPLITS}."
            )
        if self.time_column and self.folds:
            raise UsageError(
                f"--time_column={self.time_column} divides by time, --folds={self.folds} does not. Give one of them."
            )
        if self.time_column and self.append:
            raise UsageError(
                f"--append: a dataset with --time_column={self.time_column} has the latest images in its last split, "
                "and new ones would be later. Convert all images under another --name."
            )
        if self.divided_by and self.splits == SOURCE_SPLITS:
            raise UsageError(
                f"{self.divided_by} divides the images anew, and --splits={SOURCE_SPLITS} keeps the splits of the "
                "source. Leave one of them out."
            )
        if self.conflicts != "keep" and self.copies == "ignore":
            raise UsageError(f"--conflicts={self.conflicts} needs the copies, which --copies=ignore does not look for.")

    @property
    def divided_by(self) -> str:
        """The flag that says what stays together or how images are divided, as it was given; "" if there is none."""
        names = ("group_column", "group_pattern", "time_column", "folds")
        return next((f"--{name}={value}" for name in names if (value := getattr(self, name))), "")

    def resolved(self) -> ResolvedConfig:
        """Return the values that a conversion uses; raise UsageError if there is no source, or more than one."""
        if self.from_dataset and (self.image_dir or self.table):
            raise UsageError(f"--from={self.from_dataset} is a source of its own: leave out --image_dir and --table.")
        if self.from_dataset and (self.label_type != "single" or self.features):
            given = f"--features={','.join(self.features)}" if self.features else f"--label_type={self.label_type}"
            raise UsageError(
                f"{given}: --from={self.from_dataset} keeps the labels and the features of that dataset. Leave it out."
            )
        if not self.image_dir and not self.table and not self.from_dataset:
            raise UsageError("--image_dir is missing. Name a folder that has one folder of images per class.")
        if self.format == ARRAY_RECORD:
            array_record_library()  # not after an hour of work
            if self.write_index:
                raise UsageError("--write_index: ArrayRecord files find their records themselves. Leave it out.")
        encoding = encoding_of(self)
        image_size = 0 if self.resize == "none" else self.image_size  # 0: there is no such size
        name = self.name or (
            name_of_copy(self.from_dataset, image_size, encoding, self.channels)
            if self.from_dataset
            else name_after(self.image_dir or self.table)
        )
        decided = dataclasses.replace(self, name=name, encoding=encoding, image_size=image_size)
        return ResolvedConfig(
            **{field.name: getattr(decided, field.name) for field in dataclasses.fields(ConvertConfig)},
            image=image_options(decided),
            fractions=fold_fractions(self.folds) if self.folds else parse_splits(self.splits),
            offsets=Offsets.of(encoding, image_size, file_format=self.format, channels=self.channels),
            recorded=decided.determining(),
        )

    def refusal_limit(self, num_files: int) -> int | None:
        """Return how many of `num_files` may be refused, or None if there is no limit.

        Raises UsageError if `max_refused` is neither a number nor a percentage.
        """
        if not self.max_refused:
            return None
        match = re.fullmatch(r"(\d+)|(\d+(?:\.\d+)?)%", self.max_refused)
        if not match or (match[2] and float(match[2]) > 100):
            raise UsageError(
                f"--max_refused={self.max_refused}: should be a number of files, or a percentage such as 1%."
            )
        return int(match[1]) if match[1] else int(num_files * Fraction(match[2]) / 100)

    def determining(self) -> dict[str, object]:
        """Return the options that decide the bytes of the dataset, to compare them with another conversion's."""
        return recorded_options(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResolvedConfig(ConvertConfig):
    """Options in which every default is decided and every text is parsed. Nothing is parsed a second time later.

    Attributes:
        image: decides the pixels.
        fractions: what `parse_splits` returns; empty if the splits are those of the source.
        offsets: where the parts of a record lie.
        recorded: the options that decide the bytes of the dataset, as layout.json has them.
    """

    image: ImageOptions
    fractions: dict[str, float]
    offsets: Offsets
    recorded: dict[str, object]

    def for_source(self, source: Source, recorded_before: Mapping[str, object] | None = None) -> ResolvedConfig:
        """Return the options in which it is decided whether the splits of the source are kept.

        An existing dataset, with its options in `recorded_before`, decides for a single split, or splits of a table.
        """
        if self.splits != AUTO_SPLITS or self.folds:
            return self
        keeps = source.keeps_splits
        if recorded_before and source.splits:
            is_kept = recorded_before.get("splits") == SOURCE_SPLITS
            keeps = is_kept or (keeps and len(set(source.splits) - {""}) > 1)
        if not keeps or self.divided_by:
            return dataclasses.replace(self, splits=DEFAULT_SPLITS)
        recorded = {**self.recorded, "splits": SOURCE_SPLITS}
        return dataclasses.replace(self, splits=SOURCE_SPLITS, fractions={}, recorded=recorded)
