"""Datasets written by hand, for the reports that are made of them."""

from __future__ import annotations

import dataclasses
import hashlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tfrecords.format.layout import Layout, ShardInfo
from tfrecords.format.manifest import Manifest, write_manifest
from tfrecords.format.naming import shard_name
from tfrecords.format.quarantine import RefusedFile, write_quarantine
from tfrecords.format.record_layout import Offsets, encode_record
from tfrecords.format.shard import open_shard

REASONS = ("empty", "truncated", "text", "unknown_suffix", "too_large", "no_class_folder")
CONFIG = {
    "name": "zoo",
    "categories": [],
    "image_size": 8,
    "resize": "stretch",
    "decode": "fast",
    "truncated": "refuse",
    "background": "#ffffff",
    "encoding": "raw",
    "splits": "train=0.75,test=0.25",
    "copies": "near",
    "seed": 0,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class File:
    """A file of the source: an example, or refused where it has a reason. `shows` is what its picture is made of."""

    path: str
    label: int = 0
    split: str = "train"
    shows: int | None = None
    size: tuple[int, int] = (300, 200)
    group: int | None = None
    file: int | None = None
    reason: str = ""
    detail: str = "why"


def pixels_of(seed: int, side: int) -> np.ndarray:
    """Returns a picture of coloured noise: uint8 `[side, side, 3]`."""
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)


def write_dataset(
    folder: Path,
    files: Sequence[File],
    class_names: Sequence[str],
    *,
    image_size: int = 8,
    encoding: str = "raw",
    splits: Sequence[str] = ("train", "test"),
    shard_length: int = 1000,
    **config: object,
) -> Path:
    """Writes shards, manifest, quarantine list and layout. The id of a file is its place in `files`, two a step."""
    folder.mkdir(parents=True, exist_ok=True)
    n = len(files)
    shards, positions = np.full(n, -1, np.int32), np.full(n, -1, np.int64)
    pixels = [pixels_of(i if file.shows is None else file.shows, image_size) for i, file in enumerate(files)]
    infos: dict[str, tuple[ShardInfo, ...]] = {}
    for split in splits:
        rows = [i for i, file in enumerate(files) if file.split == split and not file.reason]
        parts = [rows[start : start + shard_length] for start in range(0, len(rows), shard_length)]
        written = []
        for number, part in enumerate(parts):
            path = folder / shard_name("zoo", split, number, len(parts))
            with open_shard(path, index=encoding != "raw") as writer:
                for position, row in enumerate(part):
                    writer.write(encode_record(_encoded(pixels[row], encoding), files[row].label, 2 * row))
                    shards[row], positions[row] = number, position
            written.append(writer.info())
        if written:
            infos[split] = tuple(written)
    by_bytes = [i if file.file is None else file.file for i, file in enumerate(files)]
    manifest = Manifest(
        ids=2 * np.arange(n),
        paths=[file.path for file in files],
        sha256=np.stack([_digest(b"%d" % number) for number in by_bytes]),
        pixels_sha256=np.stack([_digest(array.tobytes()) for array in pixels]),
        phash=np.zeros(n, np.uint64),
        widths=np.array([0 if file.reason else file.size[0] for file in files], np.int32),
        heights=np.array([0 if file.reason else file.size[1] for file in files], np.int32),
        labels=np.array([file.label for file in files], np.int32),
        split_names=tuple(splits),
        splits=np.array([-1 if file.reason else splits.index(file.split) for file in files], np.int8),
        shards=shards,
        positions=positions,
        groups=np.array([2 * (i if file.group is None else file.group) for i, file in enumerate(files)]),
        reason_names=REASONS,
        reasons=np.array([REASONS.index(file.reason) if file.reason else -1 for file in files], np.int8),
    )
    write_manifest(folder, manifest)
    refused = [file for file in files if file.reason]
    write_quarantine(folder, [RefusedFile(path=f.path, reason=f.reason, detail=f.detail) for f in refused])
    Layout(
        name="zoo",
        version="1.0.0",
        encoding=encoding,
        image_size=image_size,
        class_names=tuple(class_names),
        offsets=Offsets.of("raw", image_size) if encoding == "raw" else Offsets(),
        splits=infos,
        files={},
        config={**CONFIG, "image_size": image_size, "encoding": encoding, **config},
        source_sha256="ab" * 32,
        versions={"pillow": "12.0"},
    ).save(folder)
    return folder


def _encoded(pixels: np.ndarray, encoding: str) -> bytes:
    if encoding == "raw":
        return pixels.tobytes()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, encoding)
    return buffer.getvalue()


def _digest(data: bytes) -> np.ndarray:
    return np.frombuffer(hashlib.sha256(data).digest(), np.uint8)


@pytest.fixture(name="write_dataset", scope="session")
def _write_dataset() -> Callable[..., Path]:
    return write_dataset


@pytest.fixture(name="make_file", scope="session")
def _make_file() -> Callable[..., Any]:
    return File


@pytest.fixture(name="pixels_of", scope="session")
def _pixels_of() -> Callable[[int, int], np.ndarray]:
    return pixels_of
