"""Rejected files: the reasons why a file did not become an example, and quarantine.jsonl, which lists those files.

quarantine.jsonl lies beside the shards if anything was rejected. It has one line `{"path", "reason", "detail"}` per
file.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path

from tfrecords.base_errors import DataError
from tfrecords.format.atomic_files import atomic_file, parse_json
from tfrecords.format.naming import QUARANTINE_FILE


class Reason(StrEnum):
    """Why a file was rejected."""

    UNKNOWN_SUFFIX = "unknown_suffix"  # its suffix is not that of an image format
    NO_CLASS_FOLDER = "no_class_folder"  # it lies beside the class folders instead of in one, or has no label
    UNREADABLE = "unreadable"  # nobody may read it, or it has vanished; a failing disk is no reason
    BROKEN_LINK = "broken_link"  # a symbolic link whose target does not exist
    LINK_LOOP = "link_loop"  # a symbolic link that leads to itself or to a folder above it
    NOT_A_FILE = "not_a_file"  # a pipe, a socket or a device
    CHANGED = "changed"  # it was written to while it was being read
    EMPTY = "empty"  # zero bytes
    NOT_AN_IMAGE = "not_an_image"  # its bytes are not of a known image format
    TEXT = "text"  # text or HTML, such as the error page of a web server
    UNSUPPORTED = "unsupported"  # an image format that this installation cannot decode
    TRUNCATED = "truncated"  # the file ends before the last pixel
    CORRUPT = "corrupt"  # it cannot be decoded for another reason
    LABEL_CONFLICT = "label_conflict"  # a copy of it has another class, and --conflicts=drop leaves both out
    TOO_LARGE = "too_large"  # it has more pixels than MAX_PIXELS, or more bytes than MAX_FILE_BYTES
    DELETED = "deleted"  # it was an example, and `simimg edit` deleted it


class Refusal(Exception):
    """Raised when one file is rejected; the conversion continues with the next file."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RefusedFile:
    """A rejected file; `path` is relative to the image folder."""

    path: str
    reason: str
    detail: str


def read_quarantine(dataset_dir: Path) -> list[RefusedFile]:
    """Return the files listed in quarantine.jsonl, none if it does not exist; raise DataError if it is damaged."""
    path = dataset_dir / QUARANTINE_FILE
    try:
        with open(path, encoding="utf-8", newline="\n") as file:
            refused = [RefusedFile(**parse_json(line)) for line in file]
        if not all(isinstance(value, str) for line in refused for value in dataclasses.astuple(line)):
            raise TypeError
        return refused
    except FileNotFoundError:
        return []
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}. Make it readable.") from None
    except (ValueError, TypeError):
        raise DataError(f"{path} is damaged. Convert the images again.") from None


def write_quarantine(dataset_dir: Path, refused: Iterable[RefusedFile]) -> None:
    """Write quarantine.jsonl, one line per file; remove an earlier one if `refused` is empty."""
    lines = [json.dumps(dataclasses.asdict(file), ensure_ascii=False) + "\n" for file in refused]
    if not lines:
        (dataset_dir / QUARANTINE_FILE).unlink(missing_ok=True)
        return
    with atomic_file(dataset_dir / QUARANTINE_FILE, sync_name=False) as file:
        file.write("".join(lines).encode())
