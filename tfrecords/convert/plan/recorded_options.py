"""The options of a conversion that decide the bytes of its dataset, as layout.json has them.

An option that is newer than the format is left out where it has its default, so that a dataset of an earlier version
has the same options.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tfrecords.convert.image.decoder import parse_backdrop, parse_background
from tfrecords.convert.image.image_formats import MAX_PIXELS
from tfrecords.convert.image.sample_range import AUTO
from tfrecords.convert.plan.split_assignment import SOURCE_SPLITS, parse_splits, splits_text
from tfrecords.convert.sources import printable
from tfrecords.convert.sources.excluded_paths import ExcludedPaths
from tfrecords.convert.sources.stored_dataset import name_and_version
from tfrecords.format.image_size import ImageSize
from tfrecords.format.naming import TFRECORD

if TYPE_CHECKING:
    from tfrecords.convert.plan.convert_config import ConvertConfig


def recorded_options(config: ConvertConfig) -> dict[str, object]:
    """Return these options, by name."""
    splits = splits_text(parse_splits(config.splits))
    base = config.image_dir or os.path.dirname(config.table)
    return {
        "name": config.name,
        "categories": [printable(category) for category in config.categories],
        **({"image_size": _recorded_size(config.image_size)} if config.image_size else {}),  # none with --resize=none
        "resize": config.resize,
        **({"channels": config.channels} if config.channels != 3 else {}),
        "decode": config.decode,
        "truncated": config.truncated,
        "background": _recorded_background(config.background),
        # Not if they are the default, so that a dataset of an earlier version has the same options.
        **({"range": config.range} if config.range != AUTO else {}),
        **({"max_pixels": config.max_pixels} if config.max_pixels != MAX_PIXELS else {}),
        "encoding": config.encoding,
        **({"format": config.format} if config.format != TFRECORD else {}),
        **({"jpeg_quality": config.jpeg_quality} if config.encoding == "jpeg" else {}),
        **({"folds": config.folds} if config.folds else {"splits": splits or SOURCE_SPLITS}),
        "copies": config.copies,
        "seed": config.seed,
        **{
            name: [printable(pattern) for pattern in value] if isinstance(value, tuple) else value
            for name in (
                *("include", "exclude", "path_column", "label_column"),
                *("group_column", "group_pattern", "time_column", "features", "write_index"),
            )
            if (value := getattr(config, name))
        },
        **({"exclude_from": ExcludedPaths(config.exclude_from, base).digest} if config.exclude_from else {}),
        # With `fail` there are none in the dataset, so that its bytes are those of `keep`.
        **({"conflicts": config.conflicts} if config.conflicts == "drop" else {}),
        **({"links": config.links} if config.links != "keep" else {}),
        **({"label_type": config.label_type} if config.label_type != "single" else {}),
        **({"from": name_and_version(config.from_dataset)} if config.from_dataset else {}),
    }


def _recorded_size(size: ImageSize) -> int | str:
    return size if isinstance(size, int) else str(size)


def _recorded_background(text: str) -> str:
    """Return a value of `--background` in the one form in which layout.json has it."""
    backdrop = parse_backdrop(text)
    return "#{:02x}{:02x}{:02x}".format(*parse_background(text)) if backdrop == "color" else backdrop
