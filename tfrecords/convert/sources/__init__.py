"""The sources of a conversion: folders, tables, archives and datasets, each as one list of files with labels.

Modules of other sources than folders are imported when a source needs them: a search only wants the names of files.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from tfrecords.base_errors import UsageError
from tfrecords.convert.sources.excluded_paths import EXCLUDE_FROM_HELP
from tfrecords.convert.sources.image_folder import open_folder, walk
from tfrecords.convert.sources.linked_files import KEEP, LINKS, Known, none_known
from tfrecords.convert.sources.name_encodings import check_encoding
from tfrecords.convert.sources.natural_sort import natural_key
from tfrecords.convert.sources.read_errors import machine_errors
from tfrecords.convert.sources.remote import is_url, local_path, open_remote_folder
from tfrecords.convert.sources.row_values import with_values
from tfrecords.convert.sources.selection import EXCLUDE_HELP, INCLUDE_HELP, Selection, check_patterns
from tfrecords.convert.sources.source import SUFFIXES, Files, Source, printable, unprintable
from tfrecords.format.parse_errors import parser_errors
from tfrecords.format.quarantine import Refusal

__all__ = [
    "EXCLUDE_FROM_HELP",
    "EXCLUDE_HELP",
    "INCLUDE_HELP",
    "LINKS",
    "SUFFIXES",
    "Files",
    "Selection",
    "Source",
    "check_encoding",
    "check_patterns",
    "natural_key",
    "open_source",
    "printable",
    "unprintable",
    "walk",
]


def open_source(
    image_dir: str,
    *,
    dataset_dir: str = "",
    table: str = "",
    categories: Sequence[str] = (),
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    exclude_from: str = "",
    path_column: str = "",
    label_column: str = "",
    zip_encoding: str = "",
    group_column: str = "",
    time_column: str = "",
    label_type: str = "single",
    features: Sequence[str] = (),
    links: str = KEEP,
    known: Known = none_known,
) -> Source:
    """Find the files of a source and their labels.

    Args:
        image_dir: a folder of class folders or of images; tars or zips (also `*.tar`, `{000..003}.tar`); a TFDS
            dataset folder; or a URL of one of these. With `table`, the folder that the table's paths are relative to;
            it may then be "".
        dataset_dir: a dataset folder that `simimg convert` wrote, whose stored images are taken, instead of all others.
        table: a CSV or parquet file, or its URL, with one path and label per row.
        categories: the classes to take, in the order of their labels; by default all.
        include: patterns of the files to take, see `tfrecords.convert.sources.selection`; by default all.
        exclude: patterns of files and folders to leave out.
        exclude_from: a list of paths to leave out, see `tfrecords.convert.sources.excluded_paths`.
        path_column: with `table`: name or number, from 1, of its column of paths; "" has it found.
        label_column: likewise, that of the labels.
        zip_encoding: of names in tars and zips that are not UTF-8; "" has it guessed.
        group_column: with `table`: name or number, from 1, of its column of groups; "" if there is none.
        time_column: likewise, that of the times.
        label_type: one of `tfrecords.format.schema.LABEL_TYPES`; sources that are no tables have single labels or none.
        features: with `table`: names or numbers of further columns to keep, each with a type after a colon, or without.
        links: `once` takes a file of a folder that has several names once; `keep` takes each name.
        known: with `once`: what the dataset that is appended to has of a path; its names of a file are the ones taken.

    Raises:
        UsageError: it does not exist, cannot be read, has an unknown form, or has no image file.
        ConversionError: the machine or the network failed.
        DataError: `dataset_dir` is damaged.
    """
    location = dataset_dir or table or image_dir
    columns = {"path": path_column, "label": label_column, "group": group_column, "time": time_column}
    for what, column in columns.items():
        if column and not table:
            other = " Or group by paths with --group_pattern." if what == "group" else ""
            raise UsageError(f"--{what}_column={column} is a column of a table. Give the table as --table=PATH.{other}")
    if links != KEEP and (dataset_dir or table or not os.path.isdir(image_dir)):
        raise UsageError(f"--links={links} is about the files of a folder. Leave it out for {location}.")
    selection = Selection(include, exclude, exclude_from, image_dir or os.path.dirname(table))
    try:
        with (
            machine_errors(location),
            parser_errors(lambda fault: UsageError(f"{location} is damaged: {fault}. Fetch or make it again.")),
        ):
            if dataset_dir:
                from tfrecords.convert.sources.stored_dataset import open_stored

                return open_stored(dataset_dir, categories, selection)
            if table:
                from tfrecords.convert.sources.table import open_table

                return open_table(
                    local_path(table),
                    local_path(image_dir),
                    categories,
                    selection,
                    path_column,
                    label_column,
                    group_column,
                    time_column,
                    label_type,
                    features,
                )
            source = _open(local_path(image_dir), categories, selection, zip_encoding, links, known)
            return with_values(source, label_type, features)
    except Refusal as refusal:  # of a file that lists the others
        raise UsageError(f"{location} cannot be read: {refusal.detail}.") from None


def _open(
    image_dir: str, categories: Sequence[str], selection: Selection, zip_encoding: str, links: str, known: Known
) -> Source:
    from tfrecords.convert.sources.archive import is_archive, open_archives
    from tfrecords.convert.sources.table import is_table
    from tfrecords.convert.sources.tfds import is_tfds, open_tfds

    if is_archive(image_dir) and not os.path.isdir(image_dir):
        return open_archives(image_dir, categories, selection, zip_encoding)
    if is_tfds(image_dir):
        return open_tfds(image_dir, categories, selection)
    if is_url(image_dir):
        return open_remote_folder(image_dir, categories, selection)
    if os.path.isdir(image_dir):
        return open_folder(image_dir, categories, selection, links, known)
    if not os.path.exists(image_dir):
        raise UsageError(
            f"--image_dir={image_dir} does not exist. Name a folder that has one folder of images per class."
        )
    hint = (
        f"To convert the files in a table, give it as --table={image_dir}."
        if is_table(image_dir) or image_dir.lower().endswith((".lst", ".txt"))
        else "Name a folder that has one folder of images per class, a .tar or a .zip."
    )
    raise UsageError(f"--image_dir={image_dir} is not a folder. {hint}")
