"""What one worker does: a planned shard, from image files to a finished shard and the receipt that says so.

A shard is done when its receipt exists. The receipt is written after the shard has its final name, so a receipt always
speaks of a whole shard; a shard without one is written again. No pixel crosses a process boundary.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path

from tfrecords.convert.images import decode, encode, resize
from tfrecords.convert.plan import PlannedShard
from tfrecords.convert.quarantine import Reason, Refusal
from tfrecords.errors import ConversionError
from tfrecords.format.files import read_json, write_json
from tfrecords.format.layout import ShardInfo, encode_record
from tfrecords.format.shard import ShardWriter

__all__ = ["Outcome", "Receipt", "ShardTask", "Stopped", "convert_shard", "read_receipt", "receipt_path"]


class Stopped(Exception):
    """The worker was asked to stop; its unfinished shard is gone."""


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one file of a shard. `position` is -1, and `reason` says why, where it was refused."""

    id: int
    sha256: str = ""
    width: int = 0
    height: int = 0
    position: int = -1
    reason: str = ""
    detail: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Receipt:
    """A finished shard and what became of each file that was planned for it."""

    info: ShardInfo
    outcomes: tuple[Outcome, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ShardTask:
    """All that a worker needs for one shard. `paths` and `labels` go with `planned.ids`."""

    planned: PlannedShard
    image_dir: Path
    paths: tuple[str, ...]
    labels: tuple[int, ...]
    shard_dir: Path
    receipt_dir: Path
    image_size: int
    resize: str
    encoding: str
    jpeg_quality: int


def receipt_path(receipt_dir: Path, planned: PlannedShard) -> Path:
    """Returns where the receipt of a shard lies."""
    return receipt_dir / f"{planned.file}.json"


def read_receipt(task: ShardTask) -> Receipt | None:
    """Returns the receipt of a shard that an earlier call finished, or None where the shard is to be written."""
    path = receipt_path(task.receipt_dir, task.planned)
    if not path.exists():
        return None
    values = read_json(path, "a receipt of the unfinished conversion; remove the folder and start again")
    receipt = Receipt(ShardInfo(**values["info"]), tuple(Outcome(*row) for row in values["outcomes"]))
    shard = task.shard_dir / receipt.info.file
    if not shard.is_file() or shard.stat().st_size != receipt.info.num_bytes:
        return None
    return receipt


def convert_shard(task: ShardTask, advance: Callable[[bool], None], stopped: Callable[[], bool]) -> Receipt:
    """Writes one shard and its receipt.

    Args:
        task: the shard.
        advance: called after each file with whether it was refused.
        stopped: asked before each file.

    Raises:
        Stopped: `stopped()` became true; nothing of the shard is left.
        ConversionError: the shard cannot be written.
    """
    outcomes: list[Outcome] = []
    shard = task.shard_dir / task.planned.file
    try:
        with ShardWriter(shard, index=task.encoding != "raw") as writer:
            position = 0
            for id, path, label in zip(task.planned.ids, task.paths, task.labels, strict=True):
                if stopped():
                    raise Stopped
                outcome, payload = _convert_file(task, id, path, label, position)
                outcomes.append(outcome)
                if payload is not None:
                    writer.write(payload)
                    position += 1
                advance(payload is None)
        receipt = Receipt(writer.info(), tuple(outcomes))
        rows = [list(dataclasses.astuple(outcome)) for outcome in receipt.outcomes]
        write_json(
            receipt_path(task.receipt_dir, task.planned), {"info": dataclasses.asdict(receipt.info), "outcomes": rows}
        )
    except OSError as error:
        what = error.strerror or str(error)
        raise ConversionError(
            f"{shard} cannot be written: {what}. What is finished stays; "
            "make room or make the folder writable, and give the same command again."
        ) from None
    return receipt


def _convert_file(task: ShardTask, id: int, path: str, label: int, position: int) -> tuple[Outcome, bytes | None]:
    sha256 = ""
    try:
        try:
            data = (task.image_dir / path).read_bytes()
        except OSError as error:
            raise Refusal(Reason.UNREADABLE, error.strerror or str(error)) from None
        sha256 = hashlib.sha256(data).hexdigest()
        image = decode(data)
        pixels = resize(image, task.image_size, task.resize)
        payload = encode_record(encode(pixels, task.encoding, task.jpeg_quality), label, id)
    except MemoryError:  # the machine's, not the file's, fault: no refusal, or the bytes would depend on the machine
        raise ConversionError(
            f"{task.image_dir / path}: not enough memory to decode it. What is finished stays; "
            "give the same command again with fewer --num_workers."
        ) from None
    except Refusal as refusal:
        return Outcome(id=id, sha256=sha256, reason=refusal.reason.value, detail=refusal.detail), None
    return Outcome(id=id, sha256=sha256, width=image.width, height=image.height, position=position), payload
