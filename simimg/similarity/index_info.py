"""The folder of an index: its description, its lock, and the thumbnails that the search page keeps there."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from simimg.errors import UsageError
from simimg.inference.inference_engine import Engine
from simimg.similarity.decisions import DECISIONS_FILE
from simimg.similarity.fingerprint_store import remove_fingerprints
from tfrecords.format.atomic_files import locked_file
from tfrecords.format.image_size import ImageSize, image_size_of
from tfrecords.storage.remote_dataset import local_dataset

INFO_FILE = "index.json"
LOCK_FILE = ".lock"
THUMBNAILS = "web/thumbnails"
"""Where the thumbnails are: <ab>/<sha256>-<px>.jpg, by the SHA-256 of an image's file."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class IndexInfo:
    """The content of index.json.

    Attributes:
        generation: number of the current generation.
        model: a shipped model's name, a model folder, or an ONNX file with what was given behind its name.
        model_fingerprint: changes with the weights; of an ONNX file, it begins with the SHA-256 of the file.
        image_size: side in px of the squares that were embedded, or width and height.
        resize: how images got this size.
        num_images: number of rows.
        image_dir: the folder that paths are relative to; None if the images are not files of this machine.
        dataset_dir: the dataset of the images, a folder or a URL; None for a folder of files.
        engines: the arithmetics that computed the embeddings; none for an index of an earlier version.
        num_calibrated: number of images when `simimg calibrate` was run; 0 if it was not.
        pixels: an id of the options that determine a dataset's stored pixels; of files, what resized those that are no
            JPEGs: `vector code`, or "" for Pillow.
        images_crc32: checksum of the file with the table of images; 0 for an index of an earlier version.
        cells: by projection, for more than 200,000 images: the number of vectors that are compared exactly, and the
            measured recall; in an index of an earlier version, which has cells, the number of probed ones, too.
        thresholds: the similarities that `simimg calibrate` chose: `copy` for a search, `pairs` for pairs of images of
            the index.
    """

    generation: int
    model: str
    model_fingerprint: str
    image_size: ImageSize
    resize: str
    num_images: int
    image_dir: str | None
    dataset_dir: str | None
    engines: tuple[Engine, ...] = ()
    num_calibrated: int = 0
    pixels: str = ""
    images_crc32: int = 0
    cells: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    thresholds: dict[str, float] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "image_size", image_size_of(self.image_size))  # from JSON, a list

    @property
    def dataset_folder(self) -> Path | None:
        """The folder of this machine that has the dataset, which may be at a URL; raises as `local_dataset`."""
        return None if self.dataset_dir is None else local_dataset(self.dataset_dir)

    @property
    def precision(self) -> str:
        """The precision of the embeddings; those of an earlier version are float32."""
        return self.engines[0].precision if self.engines else "float32"


@contextmanager
def locked_index(index_dir: Path) -> Iterator[None]:
    """Hold the lock of an index folder, so that no other process writes to it.

    Raises:
        UsageError: another process holds it, or the folder cannot be written.
    """

    def held(holder: str) -> UsageError:
        return UsageError(f"another process ({holder}) is writing {index_dir}. Wait for it, or stop it.")

    with ExitStack() as stack:
        try:
            stack.enter_context(locked_file(index_dir / LOCK_FILE, held))
        except OSError as error:
            raise UsageError(f"{index_dir} cannot be written: {error.strerror}. Make the folder writable.") from None
        yield


def all_of(index_dir: Path) -> str:
    """Return what is to be removed to make an index again: its folder, but not what somebody decided."""
    if (index_dir / DECISIONS_FILE).exists():
        return f"everything in the folder {index_dir} but {DECISIONS_FILE}, which holds your decisions,"
    return f"the folder {index_dir}"


def remove_thumbnails(index_dir: Path, known: set[str]) -> None:
    """Remove the thumbnails of all files but those with a known SHA-256, and what verification computed of them."""
    remove_fingerprints(index_dir, known)
    for path in (index_dir / THUMBNAILS).glob("*/*"):
        if path.name.partition("-")[0] not in known:
            with suppress(OSError):  # another user's
                path.unlink()
