"""The images of a collection as an audit reads them: their names and labels, and their measures."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image

from simimg.errors import UsageError
from simimg.health.image_measures import MEASURED_PX, ImageMeasures, measure
from simimg.image_files import map_ahead, thumbnail
from simimg.similarity.folder_images import find_images
from simimg.similarity.image_table import IndexedImage
from simimg.similarity.search_index import SearchIndex
from tfrecords.base_errors import DataError
from tfrecords.convert.image.decoder import decode_composites, visible_composite
from tfrecords.convert.image.image_formats import MAX_PIXELS
from tfrecords.convert.image.jpeg import decode_reduced, plain_jpeg, reduction
from tfrecords.convert.sources import Selection
from tfrecords.convert.sources.folder_layout import layout_of
from tfrecords.convert.sources.image_folder import FolderFiles
from tfrecords.convert.sources.read_errors import read_file
from tfrecords.format.atomic_files import file_sha256
from tfrecords.format.dataset_images import DatasetImages
from tfrecords.format.layout import Layout
from tfrecords.format.manifest import read_manifest
from tfrecords.format.quarantine import Refusal
from tfrecords.machine_limits import num_cores

_AHEAD = 64
_QUARTERS = {6: 3, 8: 1, 5: 1, 7: 3}  # turns by 90 degrees of EXIF orientations; mirror images measure the same


@dataclasses.dataclass(frozen=True, eq=False)
class AuditedImages:
    """The images of a folder or a dataset.

    Attributes:
        images: with their labels and splits.
        files: the name of each image's file below `folder`; none if there are no files.
        folder: of the files.
        dataset_dir: the dataset that has the images, if there is one. Its stored pixels are measured without files.
        has_labels: whether each image has at most one class.
        refused: files that are left out, with the reason.
        notes: what was left out on purpose.
    """

    images: Sequence[IndexedImage]
    files: Sequence[str] = ()
    folder: Path | None = None
    dataset_dir: Path | None = None
    has_labels: bool = True
    refused: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    @classmethod
    def of_folder(cls, image_dir: Path, selection: Selection) -> AuditedImages:
        """List the images of a folder; none is read. Raises UsageError as `find_images`."""
        found = find_images(image_dir, selection)
        return cls(
            _with_splits(list(found.images.values())),
            list(found.images),
            image_dir,
            refused=tuple((path, str(refusal)) for path, refusal in found.refused),
            notes=found.notes,
        )

    @classmethod
    def of_dataset(cls, dataset_dir: Path, image_dir: Path | None = None) -> AuditedImages:
        """List the examples of a dataset; `image_dir` has the files that it was converted from.

        Raises UsageError if it is not a dataset.
        """
        Layout.demand(dataset_dir)
        layout, manifest = Layout.load(dataset_dir), read_manifest(dataset_dir)
        images = [
            IndexedImage(
                path=manifest.paths[row],
                sha256=manifest.sha256[row].tobytes().hex(),
                width=int(manifest.widths[row]),
                height=int(manifest.heights[row]),
                label=layout.counted_names[manifest.labels[row]],
                split=manifest.split_names[manifest.splits[row]],
            )
            for row in np.flatnonzero(manifest.ok).tolist()
        ]
        if not images:
            raise UsageError(f"--dataset_dir={dataset_dir} has no examples. Convert some images.")
        files = [] if image_dir is None else [image.path for image in images]
        return cls(images, files, image_dir, dataset_dir, layout.schema.label_type == "single")

    @classmethod
    def of_index(cls, index: SearchIndex) -> AuditedImages:
        """List the images of an index, by row."""
        info = index.info
        folder = None if info.image_dir is None else Path(info.image_dir)
        dataset_dir = info.dataset_folder
        images = list(index.images)
        has_labels = dataset_dir is None or not Layout.exists(dataset_dir)
        if not has_labels and dataset_dir is not None:
            has_labels = Layout.load(dataset_dir).schema.label_type == "single"
        return cls(
            _with_splits(images) if dataset_dir is None else images,
            [] if folder is None else [index.name_of(image.path) for image in images],
            folder,
            dataset_dir,
            has_labels,
        )

    def measures(self, max_pixels: int = 0) -> Iterator[ImageMeasures | str]:
        """Yield the measures of each image, or why there are none, in order; threads decode ahead.

        Files of more than `max_pixels` are not read; 0 for the limit of `convert`.
        """
        stored = self._stored_pixels

        def measured(row: int) -> ImageMeasures | str:
            image, reason = self.images[row], "it has neither a file nor stored pixels"
            if self.folder is not None:
                try:
                    data = read_file(FolderFiles(str(self.folder)), self.files[row])
                    return measure_file(data, max_pixels or MAX_PIXELS)
                except (Refusal, OSError) as error:
                    reason = str(error)
            if stored is not None:
                try:
                    return measure(stored(image.path), image.width, image.height)
                except (KeyError, DataError) as error:
                    reason = str(error)
            return reason

        return map_ahead(measured, range(len(self.images)), num_threads=num_cores(), num_ahead=_AHEAD)

    def with_checksums(self, paths: Collection[str]) -> AuditedImages:
        """Return the images, of which those with these paths have checksums; files that cannot be read have none."""
        images = list(self.images)
        for row, image in enumerate(images):
            if not image.sha256 and image.path in paths and self.folder is not None:
                with suppress(OSError):
                    images[row] = dataclasses.replace(image, sha256=file_sha256(self.folder / self.files[row]))
        return dataclasses.replace(self, images=images)

    def picture(self, path: str, most_px: int) -> Image.Image | None:
        """Return an image for display, mode RGB, upright, sides at most `most_px`; None if it cannot be read."""
        row = self._rows.get(path)
        shown = None
        if row is not None and self.folder is not None:
            shown = thumbnail(self.folder / self.files[row], most_px)
        stored = self._stored_pixels
        if shown is None and stored is not None:
            try:
                shown = Image.fromarray(stored(path))
                shown.thumbnail((most_px, most_px))
            except (KeyError, DataError):
                return None
        return shown

    @functools.cached_property
    def _rows(self) -> dict[str, int]:
        return {image.path: row for row, image in enumerate(self.images)}

    @functools.cached_property
    def _stored_pixels(self) -> Callable[[str], np.ndarray] | None:
        if self.dataset_dir is None or not Layout.exists(self.dataset_dir):
            return None
        manifest = read_manifest(self.dataset_dir)
        squares = DatasetImages(self.dataset_dir, Layout.load(self.dataset_dir), manifest)
        rows = {manifest.paths[row]: row for row in np.flatnonzero(manifest.ok).tolist()}
        return lambda path: np.asarray(squares.image(rows[path]).convert("RGB"))


def measure_file(data: bytes, max_pixels: int = MAX_PIXELS) -> ImageMeasures:
    """Return the measures of an image file; raise Refusal if it cannot be decoded, or not as a whole.

    A JPEG is decoded at a fraction of its size where that leaves the pixels that are measured.
    """
    header = plain_jpeg(data)
    if header is not None and header.width * header.height <= max_pixels:
        found = decode_reduced(data, header, reduction(max(header.width, header.height), MEASURED_PX))
        if found is not None:
            pixels = np.repeat(found[0], 3, axis=2) if header.components == 1 else found[0]
            size = header.width, header.height
            if header.orientation >= 5:
                pixels, size = np.rot90(pixels, _QUARTERS[header.orientation]), (header.height, header.width)
            return measure(pixels, *size)
    return measure(np.asarray(visible_composite(*decode_composites(data, max_pixels=max_pixels))))


def _with_splits(images: Sequence[IndexedImage]) -> list[IndexedImage]:
    """Return the images with the splits that their folders say, such as train/cat/1.jpg."""
    layout = layout_of([image.path for image in images])
    if layout is None:
        return list(images)
    places = [layout.place(image.path) for image in images]
    return [
        image if place is None else dataclasses.replace(image, split=place[1])
        for image, place in zip(images, places, strict=True)
    ]
