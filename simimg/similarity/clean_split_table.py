"""A picture table of a data set whose splits were cleaned: what `simimg convert` makes the clean data set of."""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Mapping
from pathlib import Path

from simimg.similarity.search_index import SearchIndex
from tfrecords.convert.sources import natural_key
from tfrecords.format.atomic_files import atomic_file
from tfrecords.format.layout import Layout
from tfrecords.format.manifest import read_manifest

__all__ = ["clean_command", "write_clean_table"]

_COLUMNS = ("path", "label", "split")
# Options of the conversion that the new one needs to have, too; `splits` and `copies` are settled by the table.
_KEPT = ("image_size", "resize", "decode", "truncated", "background", "encoding", "jpeg_quality", "seed")


def write_clean_table(index: SearchIndex, splits: tuple[str, ...], path: Path) -> None:
    """Writes a CSV file with a row for each picture: its path, its label and its split, in the order of their ids.

    Args:
        index: of a data set.
        splits: by row of the index.
        path: the file; its folder is made.
    """
    assert index.info.dataset_dir is not None
    place = {row.path: row.id for row in read_manifest(Path(index.info.dataset_dir))}
    pictures = sorted(zip(index.pictures, splits, strict=True), key=lambda one: place[one[0].path])
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows((index.name_of(picture.path), picture.label, split) for picture, split in pictures)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file:
        file.write(text.getvalue().encode(errors="surrogateescape"))


def clean_command(index: SearchIndex, table: Path, image_dir: Path | None) -> str:
    """Returns the command line that makes the clean data set, with the options of the one that there is.

    Args:
        index: of that one.
        table: see `write_clean_table`.
        image_dir: what its paths are relative to; FOLDER stands in for it where it is not known.
    """
    assert index.info.dataset_dir is not None
    layout = Layout.load(Path(index.info.dataset_dir))
    config: Mapping[str, object] = layout.config
    flags = {
        "table": table,
        "image_dir": image_dir or "FOLDER",
        "splits": "source",
        "name": f"{layout.name}_clean",
        **{name: config[name] for name in _KEPT if name in config},
    }
    there = set(index.pictures.column("label").tolist())
    names = [name for name in layout.class_names if name in there]
    if names != sorted(names, key=natural_key):  # in which a table's labels are numbered
        flags["categories"] = ",".join(names)
    return "simimg convert " + " ".join(f"--{name}={shlex.quote(str(value))}" for name, value in flags.items())
