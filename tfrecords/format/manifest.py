"""manifest.parquet: one row for every file that was found, with its origin and its place in the shards.

In memory a manifest is columns, not rows: a million rows take about 110 MB plus their paths, a million objects 1 GB. It
is written and read in row groups of `ROWS_PER_GROUP`, so that neither needs more than a few of them in addition.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tfrecords.base_errors import DataError, lacks_memory
from tfrecords.format.arrow_columns import DIGEST_BYTES, codes_of, digests_from_arrow, digests_to_arrow, names_to_arrow
from tfrecords.format.atomic_files import atomic_file
from tfrecords.format.naming import MANIFEST_FILE
from tfrecords.format.parse_errors import readable
from tfrecords.format.schema import Schema

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

OK = "ok"
REFUSED = "refused"
ROWS_PER_GROUP = 65_536

_NAMES = b"simimg"  # key of the file's own metadata that holds the names of splits and reasons, as JSON


@dataclasses.dataclass(frozen=True, slots=True)
class ManifestRow:
    """One file of the source.

    `id` counts the files in the order they were found and is the example's id. `path` is relative to the image folder.
    `sha256` is that of the file's bytes and `pixels_sha256` that of the stored pixels, in hexadecimal, "" if they were
    not read. `phash` is the perceptual hash of the pixels, 0 if there is none. `width` and `height` (px) are those of
    the upright image before it was resized. `shard` and `position` are the shard of `split` and the record in it, -1
    for a rejected file, which has a `reason` instead. `copy_group` is the id of the first file that this one is a copy
    of, its own id if it is not a copy.
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
    copy_group: int
    status: str
    reason: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Manifest:
    """All rows, in columns of the same length n; `ManifestRow` describes them.

    `sha256` and `pixels_sha256` are zeros if a file was not read. `splits` and `reasons` are indices into `split_names`
    and `reason_names`, -1 for none. A file without a reason is an example.

    The last four are not part of a row, and 0 everywhere by default. `stamps` show a later conversion which files have
    changed, see `tfrecords.convert.sources.source.Source`. `split_groups` is the id of the first file of the group that
    was kept in one split: files of one group by --group_column or --group_pattern, and their copies. `folds` is the
    number of the fold, from 1; 0 for a rejected file. `edits` say for each file how and why `simimg edit` changed it,
    "" if it did not; they are empty in a dataset that was never edited.

    Raises:
        ValueError: a column's dtype or shape differs from the comment beside it.
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
    stamps: np.ndarray = dataclasses.field(default_factory=lambda: np.empty(0, np.int64))  # int64 [n]
    split_groups: np.ndarray = dataclasses.field(default_factory=lambda: np.empty(0, np.int64))  # int64 [n]
    folds: np.ndarray = dataclasses.field(default_factory=lambda: np.empty(0, np.int8))  # int8 [n]
    edits: list[str] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        n = len(self.paths)
        if len(self.edits) not in (0, n):
            raise ValueError(f"`edits` should have {n} texts or none. Received: {len(self.edits)}")
        for column in _OPTIONAL:
            if not len(getattr(self, column.name)):
                object.__setattr__(self, column.name, np.zeros(n, column.dtype))
        for column in _COLUMNS:
            values = getattr(self, column.name)
            if values.dtype != column.dtype or values.shape != column.shape(n):
                raise ValueError(
                    f"`{column.name}` should be {column.dtype} {list(column.shape(n))}. "
                    f"Received: {values.dtype} {list(values.shape)}"
                )

    @property
    def ok(self) -> np.ndarray:
        """Whether each file became an example: bool [n]."""
        return self.reasons < 0

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, rows: slice) -> Manifest:
        """Return some of the rows, without copying anything but their paths."""
        columns = {column.name: getattr(self, column.name)[rows] for column in _COLUMNS}
        return dataclasses.replace(self, paths=self.paths[rows], edits=self.edits[rows], **columns)

    def __iter__(self) -> Iterator[ManifestRow]:
        """Yield the rows as plain values."""
        schema = _schema(self.split_names, self.reason_names)
        for start in range(0, len(self), ROWS_PER_GROUP):
            columns = _to_arrow(self[start : start + ROWS_PER_GROUP], schema).columns
            yield from map(ManifestRow, *(column.to_numpy(zero_copy_only=False).tolist() for column in columns))

    def take(self, rows: np.ndarray) -> Manifest:
        """Return copies of the rows at the indices `rows`, in their order."""
        columns = {column.name: getattr(self, column.name)[rows] for column in _COLUMNS}
        edits = [self.edits[row] for row in rows.tolist()] if self.edits else []
        return dataclasses.replace(self, paths=[self.paths[row] for row in rows.tolist()], edits=edits, **columns)

    def concat(self, after: Manifest) -> Manifest:
        """Return the rows of both, with the names of `after`, which has to have all names that this manifest uses."""
        splits = _renumbered(self.splits, self.split_names, after.split_names)
        reasons = _renumbered(self.reasons, self.reason_names, after.reason_names)
        before = dataclasses.replace(self, splits=splits, reasons=reasons)
        columns: dict[str, Any] = {
            column.name: np.concatenate((getattr(before, column.name), getattr(after, column.name)))
            for column in _COLUMNS
        }
        edits = [text for part in (self, after) for text in part.edits or [""] * len(part)]
        edits = edits if self.edits or after.edits else []
        return dataclasses.replace(after, paths=[*self.paths, *after.paths], edits=edits, **columns)


class _Column(NamedTuple):
    """A column in memory: its name in `Manifest`, its name in the file, and its dtype."""

    name: str
    field: str
    dtype: str

    @property
    def is_number(self) -> bool:
        """Whether it is a number in the file, too; the others are names or digests."""
        return self.name not in ("sha256", "pixels_sha256", "splits", "reasons")

    def shape(self, n: int) -> tuple[int, ...]:
        return (n, DIGEST_BYTES) if self.name.endswith("sha256") else (n,)


_COLUMNS = (
    _Column("ids", "id", "int64"),
    _Column("sha256", "sha256", "uint8"),
    _Column("pixels_sha256", "pixels_sha256", "uint8"),
    _Column("phash", "phash", "uint64"),
    _Column("widths", "width", "int32"),
    _Column("heights", "height", "int32"),
    _Column("labels", "label", "int32"),
    _Column("splits", "split", "int8"),
    _Column("shards", "shard", "int32"),
    _Column("positions", "position", "int64"),
    _Column("groups", "copy_group", "int64"),
    _Column("reasons", "reason", "int8"),
    _Column("stamps", "stamp", "int64"),
    _Column("split_groups", "split_group", "int64"),
    _Column("folds", "fold", "int8"),
)
_OPTIONAL = _COLUMNS[-3:]  # they may be absent from the file, as `_EDIT`, and `ManifestRow` does not have them
_EDIT = "edit"
_FIELDS = tuple(field.name for field in dataclasses.fields(ManifestRow))
# Names that follow from numbers beside them, for those who read the file with SQL: where they stand, and their types.
_CLASS, _SHARD_FILE = "class", "shard_file"
_AFTER = {"label": _CLASS, "shard": _SHARD_FILE}
# Of manifests of earlier versions, which lack both; `group` is a keyword of SQL.
_EARLIER = {"copy_group": "group"}


def named_classes(schema: Schema, class_names: Sequence[str]) -> Sequence[str]:
    """Return the names of a dataset's labels as `write_manifest` takes them: none if labels are not classes."""
    return class_names if schema.label_type in ("single", "multi") else ()


def write_manifest(
    dataset_dir: Path,
    manifest: Manifest,
    class_names: Sequence[str] = (),
    shard_files: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Write the manifest, rows in the order given; equal rows give equal bytes.

    `class_names` are the names of the labels, and `shard_files` the names of the shards of each split; they are columns
    of the file, and empty where there is no name.
    """
    import pyarrow.parquet as pq  # not at the top, because it takes a third of a second, and workers do not need it

    optional = [column.field for column in _OPTIONAL if getattr(manifest, column.name).any()]
    optional += [_EDIT] if any(manifest.edits) else []
    schema = _schema(manifest.split_names, manifest.reason_names, (*optional, *_AFTER.values()))
    with (
        atomic_file(dataset_dir / MANIFEST_FILE, sync_name=False) as file,
        pq.ParquetWriter(
            file,
            schema,
            compression="zstd",
            use_dictionary=["split", "status", "reason", _CLASS, _SHARD_FILE],
            write_page_checksum=True,
        ) as writer,
    ):
        for start in range(0, len(manifest), ROWS_PER_GROUP):
            part = manifest[start : start + ROWS_PER_GROUP]
            writer.write_batch(_to_arrow(part, schema, class_names, shard_files or {}))


def read_manifest(dataset_dir: Path) -> Manifest:
    """Return a dataset's manifest; raise DataError if it is missing or damaged."""
    with _opened(dataset_dir) as (file, split_names, reason_names):
        n = file.metadata.num_rows
        columns = {column.name: np.empty(column.shape(n), column.dtype) for column in _COLUMNS}
        paths: list[str] = []
        edits: list[str] = []
        for batch in file.iter_batches(batch_size=ROWS_PER_GROUP):
            part = _from_arrow(batch, split_names, reason_names)
            rows = slice(len(paths), len(paths) + len(part))
            for name, values in columns.items():
                values[rows] = getattr(part, name)
            paths += part.paths
            edits += part.edits
        return Manifest(paths=paths, split_names=split_names, reason_names=reason_names, edits=edits, **columns)


def iter_manifest(dataset_dir: Path) -> Iterator[Manifest]:
    """Yield a dataset's manifest in parts of up to `ROWS_PER_GROUP` rows, to save memory.

    Raises DataError if it is missing or damaged.
    """
    with _opened(dataset_dir) as (file, split_names, reason_names):
        for batch in file.iter_batches(batch_size=ROWS_PER_GROUP):
            yield _from_arrow(batch, split_names, reason_names)


@contextmanager
def _opened(dataset_dir: Path) -> Iterator[tuple[pq.ParquetFile, tuple[str, ...], tuple[str, ...]]]:
    """Open the manifest; yield it with the names of its splits and reasons, and raise every error as a DataError."""
    import pyarrow.parquet as pq

    path = dataset_dir / MANIFEST_FILE
    try:
        with readable(path), pq.ParquetFile(path, page_checksum_verification=True) as file:
            found = file.schema_arrow
            names = json.loads((found.metadata or {}).get(_NAMES, b"{}"))
            split_names, reason_names = (tuple(map(str, names.get(key, ()))) for key in ("splits", "reasons"))
            earlier = _EARLIER["copy_group"] in found.names
            if found != _schema(split_names, reason_names, found.names, earlier) or not names:
                raise DataError(f"{path} should have the columns {', '.join(_FIELDS)}. Convert the images again.")
            yield file, split_names, reason_names
    except DataError:
        raise
    except Exception as error:  # MemoryError, too: the file says how many rows it has
        what = "Free some memory; if that does not help, convert" if lacks_memory(error) else "Convert"
        raise DataError(f"{path} cannot be read: {error or 'out of memory'}. {what} the images again.") from None


def _schema(
    split_names: tuple[str, ...], reason_names: tuple[str, ...], optional: Collection[str] = (), earlier: bool = False
) -> pa.Schema:
    """Return the columns of the file; those of an `earlier` version have other names."""
    import pyarrow as pa

    numbers = {
        column.field: pa.from_numpy_dtype(column.dtype)
        for column in _COLUMNS
        if column.is_number and (column.field in optional or column not in _OPTIONAL)
    }
    names = dict.fromkeys(("split", "status", "reason"), pa.dictionary(pa.int8(), pa.string()))
    fields = [name for field in _FIELDS for name in (field, _AFTER.get(field, "")) if name in (field, *optional)]
    types = {
        **dict.fromkeys(fields, pa.string()),
        **numbers,
        **names,
        **{name: pa.dictionary(pa.int32(), pa.string()) for name in _AFTER.values() if name in optional},
        **({_EDIT: pa.string()} if _EDIT in optional else {}),
    }
    if earlier:
        types = {_EARLIER.get(name, name): kind for name, kind in types.items()}
    metadata = {_NAMES: json.dumps({"splits": split_names, "reasons": reason_names}).encode()}
    return pa.schema(types.items(), metadata=metadata)


def _to_arrow(
    part: Manifest,
    schema: pa.Schema,
    class_names: Sequence[str] = (),
    shard_files: Mapping[str, Sequence[str]] | None = None,
) -> pa.RecordBatch:
    import pyarrow as pa

    arrays = {column.field: pa.array(getattr(part, column.name)) for column in _COLUMNS if column.is_number}
    arrays["path"] = pa.array(part.paths, pa.string())
    if _EDIT in schema.names:
        arrays[_EDIT] = pa.array(part.edits, pa.string())
    arrays["sha256"] = digests_to_arrow(part.sha256)
    arrays["pixels_sha256"] = digests_to_arrow(part.pixels_sha256)
    for name, codes, names in (
        ("split", part.splits, part.split_names),
        ("reason", part.reasons, part.reason_names),
        ("status", np.where(part.ok, -1, 0).astype(np.int8), (REFUSED,)),
    ):
        # -1 is the first value of the dictionary: "" for a split or reason, "ok" for the status.
        first = OK if name == "status" else ""
        arrays[name] = pa.DictionaryArray.from_arrays(codes + np.int8(1), pa.array([first, *names], pa.string()))
    if _CLASS in schema.names:
        known = part.labels < len(class_names)
        arrays[_CLASS] = names_to_arrow(np.where(known, part.labels, -1), class_names)
        files = [list((shard_files or {}).get(split, ())) for split in part.split_names]
        firsts = np.array([*itertools.accumulate(map(len, files), initial=0)], np.int32)
        counts = np.array([*map(len, files), 0], np.int32)  # of no split, -1, the last
        known = part.ok & (part.shards >= 0) & (part.shards < counts[part.splits])
        arrays[_SHARD_FILE] = names_to_arrow(
            np.where(known, firsts[part.splits] + part.shards, -1), [*itertools.chain(*files)]
        )
    return pa.RecordBatch.from_arrays([arrays[field] for field in schema.names], schema=schema)


def _from_arrow(batch: pa.RecordBatch, split_names: tuple[str, ...], reason_names: tuple[str, ...]) -> Manifest:
    arrays = dict(zip(batch.schema.names, batch.columns, strict=True))
    arrays |= {name: arrays[earlier] for name, earlier in _EARLIER.items() if earlier in arrays}
    reasons = codes_of(arrays["reason"], reason_names)
    if (codes_of(arrays["status"], (REFUSED,)) != np.where(reasons < 0, -1, 0)).any():
        raise ValueError("a file's status contradicts its reason")
    return Manifest(
        paths=arrays["path"].to_pylist(),
        edits=arrays[_EDIT].to_pylist() if _EDIT in arrays else [],
        sha256=digests_from_arrow(arrays["sha256"]),
        pixels_sha256=digests_from_arrow(arrays["pixels_sha256"]),
        split_names=split_names,
        splits=codes_of(arrays["split"], split_names),
        reason_names=reason_names,
        reasons=reasons,
        **{c.name: arrays[c.field].to_numpy() for c in _COLUMNS if c.is_number and c.field in arrays},
    )


def _renumbered(codes: np.ndarray, old: Sequence[str], new: Sequence[str]) -> np.ndarray:
    numbers: np.ndarray = np.array([*(new.index(name) for name in old), -1], np.int8)[codes]
    return numbers
