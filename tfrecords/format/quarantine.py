"""Refused files: why a file did not become an example, and the list that says so.

quarantine.jsonl lies beside the shards when anything was refused: a line `{"path", "reason", "detail"}` a file.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path

from tfrecords.base_errors import DataError
from tfrecords.format.atomic_files import atomic_file

__all__ = ["QUARANTINE_FILE", "Reason", "Refusal", "RefusedFile", "read_quarantine", "write_quarantine"]

QUARANTINE_FILE = "quarantine.jsonl"


class Reason(StrEnum):
    """Why a file was refused."""

    UNKNOWN_SUFFIX = "unknown_suffix"  # its name does not end like that of a picture
    NO_CLASS_FOLDER = "no_class_folder"  # it lies beside the class folders instead of in one
    UNREADABLE = "unreadable"  # the operating system does not let us read it: permission, a failing disk, vanished
    BROKEN_LINK = "broken_link"  # a symbolic link to what is not there
    LINK_LOOP = "link_loop"  # a symbolic link that leads back to where it came from
    NOT_A_FILE = "not_a_file"  # a pipe, a socket or a device
    CHANGED = "changed"  # it was written to while it was read
    EMPTY = "empty"  # zero bytes
    NOT_AN_IMAGE = "not_an_image"  # its bytes are of no picture format that we know
    TEXT = "text"  # text or HTML, as of a web server that answered with an error page
    UNSUPPORTED = "unsupported"  # a picture format that this installation cannot decode
    TRUNCATED = "truncated"  # it ends before its last pixel
    CORRUPT = "corrupt"  # it cannot be decoded for another cause
    TOO_LARGE = "too_large"  # its header promises more pixels than MAX_PIXELS


class Refusal(Exception):
    """Raised where one file is refused; the run goes on."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RefusedFile:
    """A refused file; `path` is relative to the image folder."""

    path: str
    reason: str
    detail: str


def read_quarantine(dataset_dir: Path) -> list[RefusedFile]:
    """Returns what quarantine.jsonl lists; nothing where there is none.

    Raises:
        DataError: it is damaged.
    """
    path = dataset_dir / QUARANTINE_FILE
    try:
        with open(path, encoding="utf-8", newline="\n") as file:
            return [RefusedFile(**json.loads(line)) for line in file]
    except FileNotFoundError:
        return []
    except (ValueError, TypeError):
        raise DataError(f"{path} is damaged. Convert the pictures again.") from None


def write_quarantine(dataset_dir: Path, refused: Iterable[RefusedFile]) -> None:
    """Writes quarantine.jsonl, a line a file; an earlier one is removed where nothing was refused."""
    lines = [json.dumps(dataclasses.asdict(file), ensure_ascii=False) + "\n" for file in refused]
    if not lines:
        (dataset_dir / QUARANTINE_FILE).unlink(missing_ok=True)
        return
    with atomic_file(dataset_dir / QUARANTINE_FILE, sync_name=False) as file:
        file.write("".join(lines).encode())
