"""A dataset folder that `simimg convert` wrote, as the source of another one: stored images take the place of files.

Paths, classes and splits are those of its manifest, so the new dataset can be compared with the old one by path.
Several labels, numbers and features are those of its records. JPEG and PNG images are read as they are stored. Raw
pixels are read as a PPM or PGM file, which is a header and the pixels, or with alpha as a PNG file.
"""

from __future__ import annotations

import dataclasses
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tfrecords.base_errors import DataError, UsageError, as_named
from tfrecords.convert.sources.container_files import Containers
from tfrecords.convert.sources.labels import NO_LABEL, FileListing, source_of_labels
from tfrecords.convert.sources.read_errors import redacted
from tfrecords.convert.sources.row_values import RowValues
from tfrecords.convert.sources.selection import Selection
from tfrecords.convert.sources.source import Source
from tfrecords.convert.sources.tfds import TfdsFiles
from tfrecords.format.dataset_images import DatasetImages
from tfrecords.format.image_size import COLORS, ImageSize, is_larger, width_height
from tfrecords.format.layout import Layout, ShardInfo
from tfrecords.format.manifest import Manifest, read_manifest
from tfrecords.format.naming import TFRECORD
from tfrecords.format.shard import ShardReader
from tfrecords.locations import url_of


@dataclasses.dataclass(frozen=True)
class StoredFiles:
    """Reads stored images by place. `raw_size` is width and height of raw images in px, None if they are files;
    `channels` are theirs.
    """

    records: TfdsFiles
    raw_size: tuple[int, int] | None
    channels: int

    def read(self, path: str, place: tuple[int, int, int] | None) -> bytes:
        """Return a stored image as an image file; raises the errors of `TfdsFiles.read`."""
        data = self.records.read(path, place)
        if self.raw_size is None:
            return data
        if self.channels == 4:  # no form of Netpbm with alpha is common
            file = io.BytesIO()
            Image.frombytes("RGBA", self.raw_size, data).save(file, "PNG", compress_level=1)
            return file.getvalue()
        return b"P%d\n%d %d\n255\n" % (5 if self.channels == 1 else 6, *self.raw_size) + data


def load_layout(dataset_dir: str) -> Layout:
    """Return the layout of the dataset that `--from` names.

    Raises UsageError if it is no dataset folder of simimg, and DataError if its layout is damaged.
    """
    Layout.demand(Path(dataset_dir), "--from")
    return Layout.load(Path(dataset_dir))


def with_stored_size(given: dict[str, Any]) -> dict[str, Any]:
    """Return options of a conversion, of which `image_size` and `channels` are those of the dataset to convert, if
    there is one, unless they are given. Images in their own shapes have no size. A dataset at a URL becomes a folder.

    Raises what `local_dataset` raises.
    """
    from tfrecords.storage.remote_dataset import local_dataset  # which imports this package

    folder = os.path.expanduser(os.fspath(given.get("from_dataset") or ""))
    if url_of(folder):
        if (engine := given.get("engine", "local")) != "local":
            raise UsageError(
                f"--from={redacted(folder)} is read through the cache of this machine, which the workers of "
                f"--engine={engine} do not see. Copy the dataset to a folder that they see, or leave the engine out."
            )
        folder = str(local_dataset(folder, what="--from"))
        given = {**given, "from_dataset": folder}
    if not folder or not Layout.exists(Path(folder)):
        return given
    layout = load_layout(folder)
    stored: dict[str, Any] = {} if layout.channels == 3 else {"channels": layout.channels}
    return {**stored, **({} if layout.own_shapes else {"image_size": layout.image_size}), **given}


def name_of_copy(dataset_dir: str, image_size: ImageSize, encoding: str, channels: int = 3) -> str:
    """Return the name of a dataset that is made from another one: `photos_32`, or `photos_64_png` of the same size.
    Another number of channels is named, too: `photos_32_gray`.
    """
    layout = load_layout(dataset_dir)
    size = image_size or "any"
    name = f"{layout.name.removesuffix(f'_{size}')}_{size}"
    other = "" if channels == layout.channels else f"_{COLORS[channels].lower()}"
    return name + other + (f"_{encoding}" if image_size == layout.image_size else "")


def name_and_version(dataset_dir: str) -> str:
    """Return the name and the version of a dataset, as layout.json of one made from it has them."""
    layout = load_layout(dataset_dir)
    return f"{layout.name}/{layout.version}"


def open_stored(dataset_dir: str, categories: Sequence[str] = (), selection: Selection | None = None) -> Source:
    """Find the stored images of a dataset in the order of their ids, with `categories` and `selection` as in
    `open_source`.

    Raises:
        UsageError: it is no dataset folder of simimg, or no image is left.
        DataError: it is damaged.
    """
    folder = Path(dataset_dir)
    layout, manifest = load_layout(dataset_dir), read_manifest(folder)
    if (form := layout.file_format) != TFRECORD:
        raise UsageError(f"--from={dataset_dir} is stored as {form}. --from reads TFRecord shards only.")
    schema = layout.schema
    if categories and schema.label_type == "float":
        raise UsageError(
            f"--categories={','.join(categories)}: the labels of --from={dataset_dir} are numbers, which have no "
            "classes. Leave it out."
        )
    shards = [(split, number, info) for split, infos in layout.splits.items() for number, info in enumerate(infos)]
    for _, _, info in shards:
        shard = folder / info.file
        if not shard.is_file() or shard.stat().st_size != info.num_bytes:
            raise DataError(f"{shard} is missing or damaged. Run `simimg verify`.")
    containers = Containers.of([str(folder / info.file) for _, _, info in shards])
    container_of = {(split, number): at for at, (split, number, _) in enumerate(shards)}
    spans = [_spans(folder, info, layout) for _, _, info in shards]
    found = FileListing()
    values: dict[str, tuple[tuple[Any, ...], tuple[Any, ...]]] = {}  # labels and features, by path
    images, names = DatasetImages(folder, layout, manifest), (*layout.class_names, "")  # -1 is no label
    lowest = -1 if schema.label_type == "multi" else 0
    rows = np.flatnonzero(manifest.ok)
    for row in rows[np.argsort(manifest.ids[rows], kind="stable")].tolist():
        split, label = manifest.split_names[manifest.splits[row]], int(manifest.labels[row])
        at = container_of.get((split, int(manifest.shards[row])), -1)
        position = int(manifest.positions[row])
        if at < 0 or not 0 <= position < len(spans[at]) or not lowest <= label < len(layout.class_names):
            raise DataError(f"{folder}: manifest.parquet contradicts layout.json. Run `simimg verify`.")
        offset, length = spans[at][position].tolist()
        name = names[label]
        if not schema.is_plain:
            labels, features = images.values(row)
            values[manifest.paths[row]] = labels, tuple(features.values())
            if schema.label_type == "multi" and categories:
                name = next((names[each] for each in labels if names[each] in categories), name)
        found.add(manifest.paths[row], length, containers.stamps[at], (at, offset, length), label=name, split=split)
    source = source_of_labels(
        found,
        location=as_named(dataset_dir),
        files=StoredFiles(
            TfdsFiles(containers, "image"),
            width_height(layout.image_size) if layout.encoding == "raw" else None,
            layout.channels,
        ),
        categories=categories,
        class_names=layout.class_names,
        selection=selection,
        flag="--from",
        notes=_left_out(manifest),
        form=f"dataset with {len(found.paths):,} {layout.encoding} images of "
        f"{layout.size_text if layout.own_shapes else f'{layout.image_size} px'}",
    )
    if not schema.is_plain:
        source = _with_stored_values(source, layout, values)
    return dataclasses.replace(source, keeps_splits=True, split_order=tuple(layout.splits))


def _with_stored_values(
    source: Source, layout: Layout, values: dict[str, tuple[tuple[Any, ...], tuple[Any, ...]]]
) -> Source:
    """Return the source with the labels and features that its files have in the dataset, by path."""
    schema = layout.schema
    has_classes = schema.label_type in ("single", "multi")
    labels: list[tuple[Any, ...]] = [()] * len(source.paths)
    classes, refused = source.labels, source.refused
    if schema.label_type == "float":
        labels = [values[path][0] for path in source.paths]
    elif schema.label_type == "multi":
        number = {name: label for label, name in enumerate(source.class_names)}
        there = {label: number[name] for label, name in enumerate(layout.class_names) if name in number}
        labels = [tuple(sorted(there[label] for label in values[path][0] if label in there)) for path in source.paths]
        classes = np.array([several[0] if several else -1 for several in labels], np.int32)
        refused = {id: why for id, why in refused.items() if why is not NO_LABEL}
    return dataclasses.replace(
        source,
        labels=classes,
        refused=refused,
        form=f"{source.form if has_classes else source.form.partition('; ')[0]}; {schema}",
        values=RowValues(
            label_type=schema.label_type,
            labels=labels,
            features=schema.features,
            values=[values[path][1] for path in source.paths],
        ),
    )


def notes_on_losses(dataset_dir: str, image_size: ImageSize, encoding: str, quality: int) -> list[str]:
    """Return notes about what the stored pixels lose, or do not gain, as images of this size and encoding."""
    layout, notes = load_layout(dataset_dir), []
    files = "converting the original files instead"
    if is_larger(image_size, layout.image_size) and not layout.own_shapes:
        notes.append(
            f"the stored images have {layout.image_size} px and are enlarged to {image_size} px, which adds no "
            f"detail; {files} does"
        )
    if encoding == "jpeg" and layout.encoding == "jpeg":
        before = layout.config.get("jpeg_quality", "unknown")
        notes.append(
            f"the stored images are JPEGs (quality {before}) and are compressed a second time (quality {quality}), "
            f"which loses more; --encoding=png or raw, or {files}, avoids that"
        )
    elif layout.encoding == "jpeg":
        notes.append(f"the stored images are JPEGs, whose losses stay in the {encoding} images; {files} avoids them")
    if is_larger(layout.image_size, image_size) and layout.encoding != "jpeg":
        notes.append(f"the stored images were resized before and are resized a second time; {files} avoids that")
    return notes


def _spans(folder: Path, info: ShardInfo, layout: Layout) -> np.ndarray:
    """Return offset and length of each record of a shard: int64 `[num_records, 2]`."""
    stride = layout.offsets.record_bytes
    if not stride:
        return ShardReader(folder / info.file).offsets()
    offsets = np.arange(info.num_examples, dtype=np.int64) * stride
    return np.stack((offsets, np.full_like(offsets, stride)), axis=1)


def _left_out(manifest: Manifest) -> list[str]:
    num_refused = int((~manifest.ok).sum())
    if not num_refused:
        return []
    return [f"{num_refused:,} files that were rejected or deleted have no pixels in the dataset and are left out"]
