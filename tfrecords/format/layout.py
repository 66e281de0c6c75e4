"""layout.json: where each part of a record lies, which shards there are, and how the dataset was made.

`offsets` are those of `tfrecords.format.record_layout`; with JPEG or PNG, or with text in the records, all four are 0,
and each shard has a sidecar `idx/<shard>.idx`. It has one line `offset length` in bytes per record, framing included,
as NVIDIA DALI's tfrecord2idx writes it. With --write_index, raw shards have one, too. ArrayRecord shards find their
records themselves: all four offsets are 0, and there are no sidecars.

Images have one size, or shapes of their own: JPEGs reduced to `image_size` px by the short side or the longer one, or
as large as they are, and `image_size` is 0. The option `resize` in `config` says which. Each TFRecord shard then has a
second sidecar, `sizes/<shard>.sizes`, see `tfrecords.format.jpeg_frame`.

`files` has the SHA-256 of every other file of the folder: sidecars, manifest, quarantine list and metadata. The layout
ends with the SHA-256 of its own other values, as JSON, so a change to it is noticed. Only report.html is in neither,
because it may be written at any time. It ends with its own SHA-256.

The checksum finds damage, but anyone can compute it. A dataset folder may come from elsewhere, so every value is
checked as it is loaded: names lead to files of this folder only, numbers are in range, and offsets are those of the
records.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Container, Iterable
from pathlib import Path
from typing import Any

from tfrecords.base_errors import DataError, UsageError
from tfrecords.format.atomic_files import atomic_file, file_sha256, json_bytes, read_json
from tfrecords.format.image_size import COLORS, MAX_IMAGE_SIZE, ImageSize, image_size_of, sides_text
from tfrecords.format.naming import (
    FILE_FORMATS,
    LAYOUT_FILE,
    TFRECORD,
    check_file_name,
    check_other_name,
    is_array_record,
)
from tfrecords.format.parse_errors import parser_errors
from tfrecords.format.record_layout import ENCODINGS, OWN_SHAPES, Offsets
from tfrecords.format.schema import PLAIN, Schema

_FORMAT = "simimg-layout/2"
_MAX_COUNT = (1 << 63) - 1
_HINT = "the dataset's layout, written by `simimg convert`"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardInfo:
    """One finished shard: its file name, its content, and the SHA-256 of all its bytes, "" if it was not computed.

    `payload_bytes` is the length of all examples together; None for TFRecord, where it follows from the other numbers.
    """

    file: str
    num_examples: int
    num_bytes: int
    sha256: str
    payload_bytes: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """Everything that is needed to read a dataset's shards without looking into them.

    `files` maps the name of each file that is not a shard to its SHA-256 in hexadecimal. `class_names` are the names of
    the targets if labels are numbers. `file_format` is one of `FILE_FORMATS`; layout.json has it, and `payload_bytes`,
    only for ArrayRecord. `source` has the flags that named the source, as they were given; it is empty in datasets of
    earlier versions, whose layout.json does not have it.
    """

    name: str
    version: str
    encoding: str
    image_size: ImageSize
    class_names: tuple[str, ...]
    offsets: Offsets
    splits: dict[str, tuple[ShardInfo, ...]]
    files: dict[str, str]
    config: dict[str, Any]
    source_sha256: str
    versions: dict[str, str]
    file_format: str = TFRECORD
    schema: Schema = PLAIN
    source: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def counted_names(self) -> tuple[str, ...]:
        """The class names, by the labels of the manifest; the last one is for -1, if images may have no label. There is
        one name for all images if labels are numbers.
        """
        if self.schema.label_type == "float":
            return ("(numbers)",)
        return (*self.class_names, "(no label)") if self.schema.label_type == "multi" else self.class_names

    @property
    def channels(self) -> int:
        """Channels of the images: 1, 3 or 4; `config` names them if they are not RGB."""
        channels: int = self.config.get("channels", 3)
        return channels

    @property
    def form_text(self) -> str:
        """The colors and the encoding of the images, for people, such as `gray png`; RGB is not named."""
        return self.encoding if self.channels == 3 else f"{COLORS[self.channels]} {self.encoding}"

    @property
    def own_shapes(self) -> bool:
        """Whether images have shapes of their own."""
        return self.config.get("resize") in OWN_SHAPES

    @property
    def size_text(self) -> str:
        """The size of the images, for people."""
        if not self.own_shapes:
            return f"{sides_text(self.image_size)} px"
        sides = {"short": f"short side up to {self.image_size} px", "longest": f"up to {self.image_size} px"}
        return sides.get(self.config["resize"], "any number of px")

    def num_examples(self, split: str) -> int:
        """Return the number of examples in `split`."""
        return sum(shard.num_examples for shard in self.splits[split])

    def to_bytes(self) -> bytes:
        """Return the content of layout.json; equal layouts give equal bytes."""
        values = {"format": _FORMAT, **dataclasses.asdict(self)}
        if self.schema.is_plain:  # as every dataset was before there were others
            del values["schema"]
        if not self.source:
            del values["source"]
        if self.file_format == TFRECORD:
            del values["file_format"]
            for shard in (shard for shards in values["splits"].values() for shard in shards):
                del shard["payload_bytes"]
        return json_bytes({**values, "sha256": _digest(values)})

    def save(self, dataset_dir: Path) -> None:
        """Write layout.json into `dataset_dir`."""
        with atomic_file(dataset_dir / LAYOUT_FILE, sync_name=False) as file:
            file.write(self.to_bytes())

    @classmethod
    def exists(cls, dataset_dir: Path) -> bool:
        """Return whether `dataset_dir` has a layout.json; `load` raises DataError if it is not a file."""
        return os.path.lexists(dataset_dir / LAYOUT_FILE)

    @classmethod
    def demand(cls, dataset_dir: Path, what: str = "--dataset_dir") -> None:
        """Raise UsageError if `dataset_dir`, given as `what`, has no layout.json; name a dataset in it."""
        if cls.exists(dataset_dir):
            return
        fault = f"is not a dataset of `simimg convert`: it has no {LAYOUT_FILE}"
        nested = newest_dataset(dataset_dir)
        hint = f"Did you mean {nested}?" if nested else "Name one that `simimg convert` wrote, DATA_DIR/NAME/VERSION."
        raise UsageError(f"{what}={dataset_dir} {fault if dataset_dir.is_dir() else 'is not a folder'}. {hint}")

    @classmethod
    def load(cls, dataset_dir: Path) -> Layout:
        """Read layout.json from `dataset_dir`; raise DataError if it is missing, damaged, or has another format."""
        path = dataset_dir / LAYOUT_FILE
        values = read_json(path, _HINT)
        with parser_errors(lambda fault: DataError(f"{path}: {fault}. Convert the images again.")):
            return cls._parse(path, values)

    @classmethod
    def _parse(cls, path: Path, values: Any) -> Layout:
        form = values.pop("format", None) if isinstance(values, dict) else None
        if form != _FORMAT:
            known = isinstance(form, str) and form.startswith(_FORMAT.partition("/")[0])
            other = f"has the format {form!r}; this version reads {_FORMAT!r}"
            raise DataError(
                f"{path} {other if known else f'should have the format {_FORMAT!r}'}. Convert the images again."
            )
        if values.pop("sha256", None) != _digest({"format": _FORMAT, **values}):
            raise DataError(f"{path} was changed: its own checksum fails. Convert the images again.")
        try:
            values["offsets"] = Offsets(**values["offsets"])
            values["splits"] = {
                split: tuple(ShardInfo(**shard) for shard in shards) for split, shards in values["splits"].items()
            }
            values["class_names"] = tuple(values["class_names"])
            if isinstance(values["image_size"], list):
                values["image_size"] = image_size_of(values["image_size"])
            if "schema" in values:
                values["schema"] = Schema.parse(dict(values["schema"]))
            layout = cls(**values)
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path} has missing or unknown keys ({error}). Convert the images again.") from None
        layout._check()
        return layout

    def _check(self) -> None:
        """Raise ValueError if a value cannot be that of a dataset."""
        self.to_bytes()  # a JSON text may have surrogates, which are no characters
        _check_names("name", [self.name, self.version, self.source_sha256])
        _check_names("class name", self.class_names)
        for table in (self.config, self.versions, self.files, self.splits, self.source):
            if not isinstance(table, dict):
                raise ValueError(f"there should be an object. Received: {table!r:.100}")
        _check_names("source", [*self.source, *self.source.values()])
        if self.encoding not in ENCODINGS:
            raise ValueError(f"its encoding should be one of {', '.join(ENCODINGS)}. Received: {self.encoding!r}")
        keeps_size = self.config.get("resize") == "none"
        if isinstance(self.image_size, int):
            _check_number("image_size", self.image_size, 0 if keeps_size else 1, 0 if keeps_size else MAX_IMAGE_SIZE)
        if (
            type(self.channels) is not int
            or self.channels not in COLORS
            or (self.channels == 4 and self.encoding == "jpeg")
        ):
            raise ValueError(f"no {self.encoding} image has {self.channels!r:.100} channels")
        if self.own_shapes and (self.encoding != "jpeg" or not isinstance(self.image_size, int)):
            raise ValueError(f"images in their own shapes should be jpeg. Received: {self.encoding!r}")
        for offset in dataclasses.astuple(self.offsets):
            _check_number("offset", offset, 0, _MAX_COUNT)
        if self.file_format not in FILE_FORMATS:
            raise ValueError(
                f"its file_format should be one of {', '.join(FILE_FORMATS)}. Received: {self.file_format!r}"
            )
        if self.offsets != Offsets.of(self.encoding, self.image_size, self.schema, self.file_format, self.channels):
            raise ValueError(f"its offsets are not those of {self.encoding} records with {self.image_size} px")
        for shard in (shard for shards in self.splits.values() for shard in shards):
            _check_names("shard", [shard.file, shard.sha256])
            check_file_name(shard.file)
            _check_number("num_examples", shard.num_examples, 0, _MAX_COUNT)
            _check_number("num_bytes", shard.num_bytes, 0, _MAX_COUNT)
            if is_array_record(shard.file) != (self.file_format != TFRECORD):
                raise ValueError(f"its shards should be {self.file_format} files. Received: {shard.file!r:.100}")
            if self.file_format == TFRECORD:
                _check_number("payload_bytes", shard.payload_bytes or 0, 0, 0)
            else:
                _check_number("payload_bytes", shard.payload_bytes, 0, _MAX_COUNT)
        for file, sha256 in self.files.items():
            _check_names("checksum", [sha256])
            check_other_name(file)


def checksums(dataset_dir: Path, shards: Container[str]) -> dict[str, str]:
    """Return the SHA-256 of each file of a dataset folder that is not one of its shards, by name, as layout.json has
    them.
    """
    paths = [path for path in sorted(dataset_dir.iterdir()) if path.name not in shards]
    paths = [inner for path in paths for inner in (sorted(path.iterdir()) if path.is_dir() else [path])]
    return {path.relative_to(dataset_dir).as_posix(): file_sha256(path) for path in paths}


def _check_names(what: str, names: Iterable[object]) -> None:
    for name in names:
        if not isinstance(name, str):
            raise ValueError(f"a {what} should be a text. Received: {name!r:.100}")


def _check_number(what: str, value: object, lowest: int, highest: int) -> None:
    if type(value) is not int or not lowest <= value <= highest:
        raise ValueError(f"{what} should be {lowest}..{highest}. Received: {value!r:.100}")


def _digest(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def newest_dataset(folder: Path) -> Path | None:
    """Return the dataset folder that was written last, among `folder` and those up to two folders below it."""
    found = [path for depth in ("", "*/", "*/*/") for path in folder.glob(depth + LAYOUT_FILE)]
    return max(found, key=lambda path: path.stat().st_mtime_ns).parent if found else None
