"""manifest.parquet: a row for every file that was found, where it came from and where it went.

In memory a manifest is columns, not rows: a million rows take about 110 MB and their paths, a million objects 1 GB. It
is written and read in row groups of `ROWS_PER_GROUP`, so that neither takes more than a few of them besides.
"""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tfrecords.base_errors import DataError
from tfrecords.format.atomic_files import atomic_file

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

__all__ = [
    "MANIFEST_FILE",
    "OK",
    "REFUSED",
    "ROWS_PER_GROUP",
    "Manifest",
    "ManifestRow",
    "iter_manifest",
    "preload",
    "read_manifest",
    "write_manifest",
]

MANIFEST_FILE = "manifest.parquet"
OK = "ok"
REFUSED = "refused"
ROWS_PER_GROUP = 65_536

_DIGEST_BYTES = 32
_NAMES = b"simimg"  # the key of the file's own metadata under which the names of splits and reasons stand, as JSON


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ManifestRow:
    """What became of one file.

    `id` counts the files in the order they were found and is the example's id; `path` is relative to the image folder.
    `sha256` is that of the file's bytes and `pixels_sha256` that of the stored pixels, in hexadecimal, "" where they
    were not read; `phash` is their perceptual hash, 0 where there is none. `width` and `height` (px) are those of the
    upright picture before it was resized. `shard` and `position` say which record of which shard of `split` it became,
    -1 for a refused file, which has a `reason` instead. `group` is the id of the first file that this is a copy of, its
    own if it is none.
    """

    id: int
    path: str
    sha256: str
    pixels_sha256: str
    phash: int
    width: int
    height: int
    label: int
    split: str
    shard: int
    position: int
    group: int
    status: str
    reason: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Manifest:
    """What became of each file, in columns of one length n; `ManifestRow` says what they mean.

    `sha256` and `pixels_sha256` are zeros where a file was not read. `splits` and `reasons` are numbers of names in
    `split_names` and `reason_names`, -1 for none; a file without a reason is an example.

    Raises:
        ValueError: a column has another dtype or shape than its type below says.
    """

    ids: np.ndarray  # int64 [n]
    paths: list[str]
    sha256: np.ndarray  # uint8 [n, 32]
    pixels_sha256: np.ndarray  # uint8 [n, 32]
    phash: np.ndarray  # uint64 [n]
    widths: np.ndarray  # int32 [n]
    heights: np.ndarray  # int32 [n]
    labels: np.ndarray  # int32 [n]
    split_names: tuple[str, ...]
    splits: np.ndarray  # int8 [n]
    shards: np.ndarray  # int32 [n]
    positions: np.ndarray  # int64 [n]
    groups: np.ndarray  # int64 [n]
    reason_names: tuple[str, ...]
    reasons: np.ndarray  # int8 [n]

    def __post_init__(self) -> None:
        n = len(self.paths)
        for name, dtype in _DTYPES.items():
            column = getattr(self, name)
            if column.dtype != dtype or column.shape != _shape(name, n):
                raise ValueError(
                    f"`{name}` should be {dtype} {list(_shape(name, n))}. Received: {column.dtype} {list(column.shape)}"
                )

    @property
    def ok(self) -> np.ndarray:
        """Which files became examples: bool [n]."""
        return self.reasons < 0

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, rows: slice) -> Manifest:
        """Returns some of the rows, without copying any but their paths."""
        columns = {name: getattr(self, name)[rows] for name in _DTYPES}
        return dataclasses.replace(self, paths=self.paths[rows], **columns)

    def __iter__(self) -> Iterator[ManifestRow]:
        """Yields the rows as plain values."""
        for start in range(0, len(self), ROWS_PER_GROUP):
            part = self[start : start + ROWS_PER_GROUP]
            columns = (getattr(part, name).tolist() for name in _NUMBERS)
            for path, sha256, pixels_sha256, split, reason, numbers in zip(
                part.paths,
                _hexadecimal(part.sha256),
                _hexadecimal(part.pixels_sha256),
                _named(part.splits, part.split_names),
                _named(part.reasons, part.reason_names),
                zip(*columns, strict=True),
                strict=True,
            ):
                id, phash, width, height, label, shard, position, group = numbers
                yield ManifestRow(
                    id=id,
                    path=path,
                    sha256=sha256,
                    pixels_sha256=pixels_sha256,
                    phash=phash,
                    width=width,
                    height=height,
                    label=label,
                    split=split,
                    shard=shard,
                    position=position,
                    group=group,
                    status=REFUSED if reason else OK,
                    reason=reason,
                )


_DTYPES = {
    "ids": "int64",
    "sha256": "uint8",
    "pixels_sha256": "uint8",
    "phash": "uint64",
    "widths": "int32",
    "heights": "int32",
    "labels": "int32",
    "splits": "int8",
    "shards": "int32",
    "positions": "int64",
    "groups": "int64",
    "reasons": "int8",
}
# The columns that are numbers in the file, too, in the order of the rows' fields.
_NUMBERS = ("ids", "phash", "widths", "heights", "labels", "shards", "positions", "groups")
_FIELD_OF = dict(zip(_NUMBERS, ("id", "phash", "width", "height", "label", "shard", "position", "group"), strict=True))
_COLUMNS = tuple(field.name for field in dataclasses.fields(ManifestRow))


def preload() -> None:
    """Starts to import what reads and writes manifests, which takes a third of a second, in the background."""

    def load() -> None:
        import pyarrow.parquet  # noqa: F401

    threading.Thread(target=load, name="preload-pyarrow", daemon=True).start()


def write_manifest(dataset_dir: Path, manifest: Manifest) -> None:
    """Writes the manifest, rows in the order given; the same rows give the same bytes."""
    import pyarrow.parquet as pq  # here, because it takes a third of a second, which workers need not wait

    schema = _schema(manifest.split_names, manifest.reason_names)
    with (
        atomic_file(dataset_dir / MANIFEST_FILE, sync_name=False) as file,
        pq.ParquetWriter(
            file,
            schema,
            compression="zstd",
            use_dictionary=["split", "status", "reason"],
            write_page_checksum=True,
        ) as writer,
    ):
        for start in range(0, len(manifest), ROWS_PER_GROUP):
            writer.write_batch(_to_arrow(manifest[start : start + ROWS_PER_GROUP], schema))


def read_manifest(dataset_dir: Path) -> Manifest:
    """Returns a data set's manifest.

    Raises:
        DataError: the manifest is missing or damaged.
    """
    with _opened(dataset_dir) as (file, split_names, reason_names):
        n = file.metadata.num_rows
        columns = {name: np.empty(_shape(name, n), dtype) for name, dtype in _DTYPES.items()}
        paths: list[str] = []
        for batch in file.iter_batches(batch_size=ROWS_PER_GROUP):
            part = _from_arrow(batch, split_names, reason_names)
            rows = slice(len(paths), len(paths) + len(part))
            for name, column in columns.items():
                column[rows] = getattr(part, name)
            paths += part.paths
        return Manifest(paths=paths, split_names=split_names, reason_names=reason_names, **columns)


def iter_manifest(dataset_dir: Path) -> Iterator[Manifest]:
    """Yields a data set's manifest in parts of up to `ROWS_PER_GROUP` rows, for who needs little of each.

    Raises:
        DataError: the manifest is missing or damaged.
    """
    with _opened(dataset_dir) as (file, split_names, reason_names):
        for batch in file.iter_batches(batch_size=ROWS_PER_GROUP):
            yield _from_arrow(batch, split_names, reason_names)


@contextmanager
def _opened(dataset_dir: Path) -> Iterator[tuple[pq.ParquetFile, tuple[str, ...], tuple[str, ...]]]:
    """Opens the manifest, gives the names of its splits and reasons, and makes of all that goes wrong a DataError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = dataset_dir / MANIFEST_FILE
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            found = file.schema_arrow
            names = json.loads((found.metadata or {}).get(_NAMES, b"{}"))
            split_names, reason_names = (tuple(map(str, names.get(key, ()))) for key in ("splits", "reasons"))
            if found != _schema(split_names, reason_names) or not names:
                raise DataError(f"{path} should have the columns {', '.join(_COLUMNS)}. Convert the pictures again.")
            yield file, split_names, reason_names
    except FileNotFoundError:
        raise DataError(f"{path} is missing. Convert the pictures again.") from None
    except (pa.ArrowException, OSError, ValueError, TypeError, AttributeError, MemoryError, RecursionError) as error:
        raise DataError(f"{path} cannot be read: {error}. Convert the pictures again.") from None


def _schema(split_names: tuple[str, ...], reason_names: tuple[str, ...]) -> pa.Schema:
    import pyarrow as pa

    numbers = {_FIELD_OF[name]: pa.from_numpy_dtype(_DTYPES[name]) for name in _NUMBERS}
    names = dict.fromkeys(("split", "status", "reason"), pa.dictionary(pa.int8(), pa.string()))
    types = {**dict.fromkeys(_COLUMNS, pa.string()), **numbers, **names}
    metadata = {_NAMES: json.dumps({"splits": split_names, "reasons": reason_names}).encode()}
    return pa.schema(types.items(), metadata=metadata)


def _to_arrow(part: Manifest, schema: pa.Schema) -> pa.RecordBatch:
    import pyarrow as pa

    columns = {_FIELD_OF[name]: pa.array(getattr(part, name)) for name in _NUMBERS}
    columns["path"] = pa.array(part.paths, pa.string())
    columns["sha256"] = _digests_to_arrow(part.sha256)
    columns["pixels_sha256"] = _digests_to_arrow(part.pixels_sha256)
    for name, codes, names in (
        ("split", part.splits, part.split_names),
        ("reason", part.reasons, part.reason_names),
        ("status", np.where(part.ok, -1, 0).astype(np.int8), (REFUSED,)),
    ):
        # -1, no name, is the first of the dictionary: "" for a split or reason, "ok" for the status.
        first = OK if name == "status" else ""
        columns[name] = pa.DictionaryArray.from_arrays(codes + np.int8(1), pa.array([first, *names], pa.string()))
    return pa.RecordBatch.from_arrays([columns[name] for name in _COLUMNS], schema=schema)


def _from_arrow(batch: pa.RecordBatch, split_names: tuple[str, ...], reason_names: tuple[str, ...]) -> Manifest:
    columns = dict(zip(_COLUMNS, batch.columns, strict=True))
    reasons = _codes(columns["reason"], reason_names)
    if (_codes(columns["status"], (REFUSED,)) != np.where(reasons < 0, -1, 0)).any():
        raise ValueError("a file's status does not go with its reason")
    return Manifest(
        paths=columns["path"].to_pylist(),
        sha256=_digests_from_arrow(columns["sha256"]),
        pixels_sha256=_digests_from_arrow(columns["pixels_sha256"]),
        split_names=split_names,
        splits=_codes(columns["split"], split_names),
        reason_names=reason_names,
        reasons=reasons,
        **{name: columns[_FIELD_OF[name]].to_numpy() for name in _NUMBERS},
    )


def _digests_to_arrow(digests: np.ndarray) -> pa.StringArray:
    """Returns hexadecimal strings, "" for zeros, by their buffers: no Python object a row."""
    import pyarrow as pa

    read = digests.any(axis=1)
    ends = np.zeros(len(digests) + 1, np.int32)
    np.cumsum(read * np.int32(2 * _DIGEST_BYTES), out=ends[1:])
    text = digests[read].tobytes().hex().encode()
    return pa.StringArray.from_buffers(len(digests), pa.py_buffer(ends), pa.py_buffer(text))


def _digests_from_arrow(column: pa.StringArray) -> np.ndarray:
    lengths = np.diff(np.frombuffer(column.buffers()[1], np.int32)[column.offset : column.offset + len(column) + 1])
    read = lengths > 0
    text = "".join(column.to_pylist())
    digests = np.zeros((len(column), _DIGEST_BYTES), np.uint8)
    digests[read] = np.frombuffer(bytes.fromhex(text), np.uint8).reshape(-1, _DIGEST_BYTES)
    if (lengths[read] != 2 * _DIGEST_BYTES).any():
        raise ValueError("a SHA-256 has not 64 digits")
    return digests


def _codes(column: pa.DictionaryArray, names: tuple[str, ...]) -> np.ndarray:
    """Returns the number of each value in `names`, -1 for the value that stands for none."""
    number = {"": -1, OK: -1, **{name: code for code, name in enumerate(names)}}
    words = column.dictionary.to_pylist()
    if not set(words) <= set(number) or column.null_count:
        raise ValueError(f"it has the names {words} where {list(names)} are known")
    codes: np.ndarray = np.array([number[word] for word in words], np.int8)[column.indices.to_numpy()]
    return codes


def _named(codes: np.ndarray, names: tuple[str, ...]) -> list[str]:
    words = (*names, "")  # -1 is the last
    return [words[code] for code in codes.tolist()]


def _hexadecimal(digests: np.ndarray) -> list[str]:
    text = digests.tobytes().hex()
    digits = 2 * _DIGEST_BYTES
    present = np.asarray(digests.any(axis=1))
    return [text[row * digits : (row + 1) * digits] if read else "" for row, read in enumerate(present.tolist())]


def _shape(name: str, n: int) -> tuple[int, ...]:
    return (n, _DIGEST_BYTES) if name.endswith("sha256") else (n,)
