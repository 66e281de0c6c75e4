"""Refused files: why a file did not become an example, and the list that says so.

quarantine.jsonl lies beside the shards when anything was refused: a line `{"path", "reason", "detail"}` a file.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path

from tfrecords.format.files import atomic_file

__all__ = ["QUARANTINE_FILE", "Reason", "Refusal", "RefusedFile", "write_quarantine"]

QUARANTINE_FILE = "quarantine.jsonl"


class Reason(StrEnum):
    """Why a file was refused."""

    UNKNOWN_SUFFIX = "unknown_suffix"  # its name does not end like that of a picture
    NO_CLASS_FOLDER = "no_class_folder"  # it lies beside the class folders instead of in one
    UNREADABLE = "unreadable"  # the operating system does not let us read it: permission, broken link, vanished
    EMPTY = "empty"  # zero bytes
    NOT_AN_IMAGE = "not_an_image"  # its bytes are of no picture format that Pillow knows
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


def write_quarantine(dataset_dir: Path, refused: Iterable[RefusedFile]) -> None:
    """Writes quarantine.jsonl, a line a file; an earlier one is removed where nothing was refused."""
    lines = [json.dumps(dataclasses.asdict(file), ensure_ascii=False) + "\n" for file in refused]
    if not lines:
        (dataset_dir / QUARANTINE_FILE).unlink(missing_ok=True)
        return
    with atomic_file(dataset_dir / QUARANTINE_FILE) as file:
        file.write("".join(lines).encode())
