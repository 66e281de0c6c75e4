"""layout.json: where each part of a record lies, which shards there are, and how the dataset was made.

`offsets` are those of `tfrecords.format.record_layout`; with JPEG or PNG all four are 0, and each shard has a sidecar
`<shard>.idx`. It has one line `offset length` in bytes per record, framing included, as NVIDIA DALI's tfrecord2idx
writes it.

`files` has the SHA-256 of every other file of the folder: sidecars, manifest, quarantine list and metadata. The layout
ends with the SHA-256 of its own other values, as JSON, so a change to it is noticed. Only report.html is in neither,
because it may be written at any time. It ends with its own SHA-256.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from tfrecords.base_errors import DataError
from tfrecords.format.atomic_files import atomic_file, json_bytes, read_json
from tfrecords.format.naming import LAYOUT_FILE
from tfrecords.format.record_layout import Offsets

_FORMAT = "simimg-layout/2"
_HINT = "the dataset's layout, written by `simimg convert`"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardInfo:
    """One finished shard: its file name, its content, and the SHA-256 of all its bytes, "" if it was not computed."""

    file: str
    num_examples: int
    num_bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """Everything that is needed to read a dataset's shards without looking into them.

    `files` maps the name of each file that is not a shard to its SHA-256 in hexadecimal.
    """

    name: str
    version: str
    encoding: str
    image_size: int
    class_names: tuple[str, ...]
    offsets: Offsets
    splits: dict[str, tuple[ShardInfo, ...]]
    files: dict[str, str]
    config: dict[str, Any]
    source_sha256: str
    versions: dict[str, str]

    def num_examples(self, split: str) -> int:
        """Return the number of examples in `split`."""
        return sum(shard.num_examples for shard in self.splits[split])

    def to_bytes(self) -> bytes:
        """Return the content of layout.json; equal layouts give equal bytes."""
        values = {"format": _FORMAT, **dataclasses.asdict(self)}
        return json_bytes({**values, "sha256": _digest(values)})

    def save(self, dataset_dir: Path) -> None:
        """Write layout.json into `dataset_dir`."""
        with atomic_file(dataset_dir / LAYOUT_FILE, sync_name=False) as file:
            file.write(self.to_bytes())

    @classmethod
    def exists(cls, dataset_dir: Path) -> bool:
        """Return whether `dataset_dir` has a layout.json."""
        return (dataset_dir / LAYOUT_FILE).is_file()

    @classmethod
    def load(cls, dataset_dir: Path) -> Layout:
        """Read layout.json from `dataset_dir`; raise DataError if it is missing, damaged, or has another format."""
        path = dataset_dir / LAYOUT_FILE
        values = read_json(path, _HINT)
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
            return cls(**values)
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path} has missing or unknown keys ({error}). Convert the images again.") from None


def _digest(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()
