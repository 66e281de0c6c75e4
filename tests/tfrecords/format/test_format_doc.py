"""The page that shows the dataset folder byte by byte, against a dataset that is made anew: bytes, names, keys."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tfrecords.convert.engine import convert
from tfrecords.convert.plan.convert_config import ConvertConfig
from tfrecords.format.layout import Layout
from tfrecords.format.manifest import read_manifest
from tfrecords.format.quarantine import RefusedFile
from tfrecords.format.record import read_records
from tfrecords.format.record_layout import Offsets

DOCUMENT = (Path(__file__).parents[3] / "simimg" / "docs" / "format.md").read_text()
# Red, green, blue, white; greys; dark colours.
PICTURES = {
    "light/a.png": [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]],
    "dark/a.png": [[0, 0, 0], [16, 16, 16], [32, 32, 32], [48, 48, 48]],
    "dark/b.png": [[0, 64, 0], [64, 0, 0], [0, 0, 64], [64, 64, 64]],
}
ADDED = {
    "light/broken.png": [[255, 255, 0], [0, 255, 255], [255, 0, 255], [255, 255, 255]],
    "dark/aa.png": [[200, 0, 0], [0, 200, 0], [0, 0, 200], [200, 200, 200]],
}


def block(kind: str) -> str:
    """Returns what a fenced block of the document holds."""
    (text,) = re.findall(rf"^```{kind}\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
    return text


def rows_after(heading: str) -> list[list[str]]:
    """Returns the cells of the table below a heading, without its head."""
    (section,) = re.findall(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", DOCUMENT, re.MULTILINE | re.DOTALL)
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def quoted(text: str) -> list[str]:
    return re.findall(r"`([\w.]+)`", text)


def dumped(kind: str) -> Iterator[tuple[int, bytes, bool]]:
    """Yields offset and bytes of each line of a dump, and whether bytes are left out after them."""
    for line in block(kind).splitlines():
        offset, text = re.fullmatch(r" *(\d+)  ((?:(?:[0-9a-f]{2}|\.\.) ?)+)(?: {2,}\S.*)?", line).groups()  # type: ignore[union-attr]
        shown = text.replace(".. ..", "")
        yield int(offset), bytes.fromhex(shown), shown != text


def draw(folder: Path, pictures: dict[str, list[list[int]]]) -> None:
    for name, pixels in pictures.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.array(pixels, np.uint8).reshape(2, 2, 3)).save(folder / name)


def config(folder: Path, encoding: str, **values: Any) -> ConvertConfig:
    return ConvertConfig(
        image_dir=str(folder / "photos"), data_dir=folder / "data", name="tiny", image_size=2, encoding=encoding,
        splits="train=1", num_workers=1, **values,
    )  # fmt: skip


@pytest.fixture(scope="module", params=["raw", "jpeg"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset of the page, in each encoding. Only to be read."""
    base = tmp_path_factory.mktemp(request.param)
    draw(base / "photos", PICTURES)
    (base / "photos" / "light" / "broken.png").write_bytes(b"no picture")
    return convert(config(base, request.param)).dataset_dir


def encoding_of(folder: Path) -> str:
    return Layout.load(folder).encoding


def test_the_dumps_are_the_bytes_of_a_record(folder: Path) -> None:
    shard = (folder / "tiny-train.tfrecord-00000-of-00001").read_bytes()
    record = shard[: 16 + int.from_bytes(shard[:8], "little")]
    end, gaps = 0, 0
    for offset, content, left_out in dumped(f"record {encoding_of(folder)}"):
        assert offset == end or gaps, f"the dump leaves out bytes before {offset} without a word"
        assert record[offset : offset + len(content)] == content, f"byte {offset}"
        end, gaps = offset + len(content), left_out
    assert end == len(record)


def test_the_dumps_point_at_the_parts() -> None:
    lines = block("record raw").splitlines()
    offsets = Offsets.of("raw", 2)
    for part in ("id_offset", "image_offset", "label_offset"):
        (line,) = (line for line in lines if line.endswith(f"<- {part}"))
        assert int(line.split()[0]) == getattr(offsets, part)
    assert f"{offsets.record_bytes} here, {Offsets.of('raw', 64).record_bytes:,} for 64 px" in DOCUMENT


def test_the_files_are_those_that_are_listed(folder: Path) -> None:
    (listing,) = re.findall(r"^    tiny/1\.0\.0/\n((?: {8}.*\n)+)", DOCUMENT, re.MULTILINE)
    listed = {line.split()[0] for line in listing.splitlines()} - {"report.html"}  # which the command writes
    listed |= set(re.findall(r"`(idx/tiny-\S+\.idx)`", DOCUMENT)) if encoding_of(folder) == "jpeg" else set()
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == listed


def test_the_keys_and_checksums_are_those_of_a_layout(folder: Path) -> None:
    values = json.loads((folder / "layout.json").read_bytes())
    rows = rows_after("layout.json")
    assert [key for row in rows for key in quoted(row[0])] == list(values)
    told = {row[0].strip("`"): row[1] for row in rows}
    assert told["format"].startswith(f"`{values['format']}`")
    assert quoted(told["offsets"]) == list(values["offsets"])
    assert quoted(told["splits"]) == list(values["splits"]["train"][0])
    paths = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    others = paths - {"layout.json", values["splits"]["train"][0]["file"]}
    assert set(values["files"]) == others
    stored = values.pop("sha256")
    assert hashlib.sha256(json.dumps(values).encode()).hexdigest() == stored


def test_the_columns_are_those_of_a_manifest(folder: Path) -> None:
    told: dict[str, str] = {}
    for names, types, _ in rows_after("manifest.parquet"):
        columns, kinds = quoted(names), types.split(", ")
        told |= dict(zip(columns, kinds * (len(columns) // len(kinds)), strict=True))
    schema = pq.read_schema(folder / "manifest.parquet")
    found = {name: str(schema.field(name).type) for name in schema.names}
    assert list(told) == list(found)
    for name, kind in found.items():
        assert told[name] == ("string" if kind.startswith("dictionary") else kind), name
    assert b"simimg" in schema.metadata


def test_the_small_files_are_those_that_are_shown(folder: Path) -> None:
    assert (folder / "quarantine.jsonl").read_text() == block("quarantine")
    assert set(json.loads(block("quarantine"))) == {field.name for field in fields(RefusedFile)}
    if encoding_of(folder) == "jpeg":
        assert (folder / "idx/tiny-train.tfrecord-00000-of-00001.idx").read_text() == block("idx")
    else:
        (split,) = json.loads((folder / "dataset_info.json").read_bytes())["splits"]
        assert (split["shardLengths"], split["numBytes"]) == (["3"], "198")
        assert "3 x 66 = 198" in DOCUMENT


@pytest.mark.parametrize("folder", ["raw"], indirect=True)
def test_the_reader_of_the_page_reads(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parents[2])
    found: dict[str, Any] = {}
    exec(block("python"), found)
    assert found["labels"].tolist() == [1, 0, 0]
    assert found["images"].reshape(3, 4, 3).tolist() == [
        PICTURES[name] for name in ("light/a.png", "dark/b.png", "dark/a.png")
    ]


@pytest.mark.parametrize("folder", ["raw"], indirect=True)
def test_append_adds_what_the_page_says(folder: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(folder.parents[2], tmp_path / "mine", copy_function=shutil.copy2))
    draw(base / "photos", ADDED)
    newer = convert(config(base, "raw", append=True)).dataset_dir
    assert newer.name == "1.1.0"
    for line in block("append").splitlines():
        name, num_records = line.split()[:2]
        with open(newer / name, "rb") as file:
            assert sum(1 for _ in read_records(file, name)) == int(num_records)
    old = base / "data" / "tiny" / "1.0.0" / "tiny-train.tfrecord-00000-of-00001"
    assert old.samefile(newer / block("append").split()[0])
    ids = {row.path: row.id for row in read_manifest(newer)}
    assert (ids["light/broken.png"], ids["dark/aa.png"]) == (3, 4)
    assert not (newer / "quarantine.jsonl").exists()
