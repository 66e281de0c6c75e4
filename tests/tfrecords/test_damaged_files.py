"""Sources and datasets whose structure is wrong: each is opened, or is an error that names it; nothing else is raised.

Not bits are flipped here, which checksums find, but headers, directories, metadata and records are made up whole, with
their checksums: sizes that no file has, names that lead elsewhere, JSON of another form. SIMIMG_FUZZ_FILES multiplies
the number of examples.
"""

from __future__ import annotations

import copy
import csv
import dataclasses
import hashlib
import io
import json
import os
import shutil
import struct
import tarfile
import tempfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st

from tfrecords.base_errors import DataError, UsageError
from tfrecords.convert.plan.conversion_job import make_job
from tfrecords.convert.plan.convert_config import ConvertConfig
from tfrecords.convert.sources import Source, open_source
from tfrecords.format.dataset_images import DatasetImages
from tfrecords.format.dataset_verification import verify
from tfrecords.format.example import encode_example
from tfrecords.format.layout import Layout
from tfrecords.format.manifest import read_manifest, write_manifest
from tfrecords.format.naming import find_index
from tfrecords.format.quarantine import Refusal, read_quarantine
from tfrecords.format.record import footer, header, varint
from tfrecords.format.record_layout import Offsets
from tfrecords.format.shard import ShardReader
from tfrecords.format.tfds_metadata import num_examples_by_split

EXAMPLES = settings(
    max_examples=60 * int(os.environ.get("SIMIMG_FUZZ_FILES", "1")), suppress_health_check=list(HealthCheck)
)
IMAGE = b"\x89PNG\r\n\x1a\n that is not decoded here"
DIGITS = "7" * 5000

# Numbers that a file may claim: none, small ones, and those at which a type of the machine ends.
NUMBERS = st.integers(0, 600) | st.sampled_from(
    [n + d for n in (1 << 15, 1 << 16, 1 << 30, 1 << 31, 1 << 32, 1 << 62, 1 << 63) for d in (-1, 0, 1)]
)
TEXTS = st.sampled_from(
    [
        *("", ".", "..", "/", "a/b", "../../x", "/etc/x", "\0", "a\0b", " ", "\n", "a\u2028b", "²", "٣", "{", "{X}"),
        *("{DATASET.__class__}", "{DATASET!r}", "{SPLIT}", "-1", "1e400", "nan", "all", "train", "my split", DIGITS),
        *("x" * 300, "1" * 130, "7" * 4400, "image", "label", "png", "tfrecord", "1", "007"),
    ]
) | st.text(max_size=6)


def as_field(number: int, size: int) -> bytes:
    """Returns the low bytes of a number."""
    return (number % (1 << 8 * size)).to_bytes(size, "little")


def mostly(right: Any, others: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Draws what is right, and sometimes something else."""
    return st.sampled_from(range(24)).flatmap(lambda number: others if number == 11 else st.just(right))


def check(image_dir: Path | str, table: str = "") -> None:
    """Lists a source, plans its conversion and reads its files, all of which may only fail on purpose."""
    try:
        source = open_source(str(image_dir), table=table)
    except UsageError as error:
        assert Path(table or image_dir).name in str(error), error
        event("an error")
        return
    event("listed")
    config = ConvertConfig(image_dir="zoo", splits="train=1" if source.splits is None else "source").resolved()
    try:
        make_job(config, source, None, source)
    except UsageError as error:
        assert "split" in str(error), error
    source.sha256()
    read(source)


def read(source: Source) -> None:
    for id in source.usable().tolist():
        place = None if source.places is None else tuple(source.places[id].tolist())
        try:
            assert isinstance(source.files.read(source.paths[id], place), bytes)
        except Refusal as refusal:
            assert refusal.detail


def in_folder(name: str, content: bytes, use: Callable[[Path], None] = check) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for image in ("1.jpg", "2.jpg"):  # that tables name
            (Path(folder) / image).write_bytes(IMAGE)
        (Path(folder) / name).write_bytes(content)
        use(Path(folder) / name)


# Tars


NAMES = st.sampled_from(
    [
        *(b"cat/1.jpg", b"cat/1.cls", b"cat/1.json", b"cat/1.txt", b"cat/2.jpg", b"dog/1.png", b"1.jpg", b"cat/"),
        *(b"classes.txt", b"labels.txt", b"../../x.jpg", b"/etc/1.jpg", b"cat/\xff.jpg", b"", b"..", b"\x00"),
        *(b"cat/" + b"7" * 90 + b".jpg", b"cat/" + b"7" * 90 + b".cls"),
    ]
)
JSONS = st.sampled_from(
    [
        *(b"[" * 100_000, b'{"label": ' * 5000, b'{"label": %s}' % DIGITS.encode(), b'{"label": "\\ud800"}', b"[]"),
        *(b'{"label": [1]}', b'{"label": NaN}', b'{"label": {}}', b'{"label": true}', b"\xff", b'{"class": -1}'),
        b'{"label": 1}',
    ]
)
CONTENTS = JSONS | st.sampled_from([IMAGE, b"", b"1", DIGITS.encode(), "a\u2028b\n\nc".encode(), b"a\rb", b"1 2"])
RECORDS = st.lists(
    st.tuples(
        st.sampled_from(["size", "path", "GNU.sparse.name", "GNU.sparse.major", "linkpath", "", "mtime"]),
        TEXTS | NUMBERS.map(str),
        st.sampled_from([0, 0, 0, 1, -1, 10**30]),
    ),
    max_size=3,
)


def pax_records(records: list[tuple[str, str, int]]) -> bytes:
    """Returns the records of a pax header; the third value is added to a record's length."""
    data = b""
    for key, value, wrong in records:
        content = f" {key}={value}\n".encode("utf-8", "surrogatepass")
        length = len(content)
        while length != len(content) + len(str(length)):
            length = len(content) + len(str(length))
        data += str(length + wrong).encode() + content
    return data


@st.composite
def tar_members(draw: st.DrawFn) -> bytes:
    """Draws a member with its header, whose checksum is nearly always right."""
    kind = draw(st.sampled_from(b"0000077xxxXgLK123456S\0Z"))
    content = draw(CONTENTS)
    if chr(kind) in "xXg":
        content = pax_records(draw(RECORDS)) or DIGITS.encode() + b" path=x\n"
    elif chr(kind) in "LK":
        content = draw(TEXTS).encode("utf-8", "surrogatepass") + b"\0"
    block = bytearray(tarfile.TarInfo().tobuf(tarfile.USTAR_FORMAT)[:512])
    name = draw(NAMES)
    block[:100] = name[:100].ljust(100, b"\0")
    size = draw(mostly(len(content), NUMBERS))
    octal = b"%011o\0" % size if size < 1 << 33 else b"\x80" + size.to_bytes(11, "big")
    others = st.sampled_from([b"\xff" * 12, b"99999999999\0", b"\x80" + b"\xff" * 11])
    block[124:136] = draw(mostly(octal, others))
    block[156] = kind
    block[482] = draw(st.sampled_from([0, 1]))
    block[148:156] = b"%06o\0 " % (sum(block[:148]) + 256 + sum(block[156:512]) + draw(mostly(0, st.just(1))))
    return bytes(block) + content + bytes(-len(content) % 512)


def one_member(kind: bytes, content: bytes) -> bytes:
    info = tarfile.TarInfo("cat/1.jpg")
    info.type, info.size = kind, len(content)
    return info.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % 512)


PICTURE = one_member(b"0", IMAGE)


@example([one_member(b"x", pax_records([("size", DIGITS, 0)])), PICTURE], 1024)
@example([one_member(b"x", DIGITS.encode() + b" path=x\n"), PICTURE], 1024)
@example([one_member(b"x", pax_records([("path", f"cat/{DIGITS}.jpg", 0)])), PICTURE, PICTURE], 1024)
@given(st.lists(tar_members(), max_size=5), mostly(1024, st.sampled_from([512, 0, 100])))
@EXAMPLES
def test_tars(members: list[bytes], end: int) -> None:
    in_folder("a.tar", PICTURE + b"".join(members) + bytes(end))


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"label": %s}' % DIGITS.encode()])
def test_a_label_that_is_no_json_refuses_its_image(tmp_path: Path, content: bytes) -> None:
    files = {"1.jpg": IMAGE, "1.json": content, "2.jpg": IMAGE, "2.cls": b"1"}
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    source = open_source(str(tmp_path / "a.tar"))
    assert (source.paths, source.usable().tolist()) == (["1.jpg", "2.jpg"], [1])
    assert source.refused[0].detail.startswith("1.json is not valid JSON: ")


# Zips


@st.composite
def zips(draw: st.DrawFn) -> bytes:
    """Draws an archive, each of whose numbers is sometimes another one."""

    def number(right: int) -> int:
        return draw(mostly(right, NUMBERS))

    data, directory = b"", b""
    count = draw(st.integers(0, 3))
    for at in range(count):
        name, method = draw(NAMES) if draw(st.booleans()) else b"cat/%d.jpg" % at, draw(st.sampled_from([0, 8, 8, 12]))
        packer = zlib.compressobj(wbits=-15)
        packed = IMAGE if method == 0 else packer.compress(IMAGE) + packer.flush()
        flags, crc = draw(st.sampled_from([0, 0, 0, 0x800, 1])), zlib.crc32(IMAGE)
        sizes = [number(len(packed)), number(len(IMAGE)), number(len(data))]
        narrow = [size if size < 0xFFFFFFFF and not draw(st.booleans()) else 0xFFFFFFFF for size in sizes]
        order = (1, 0, 2)  # the field has the size in front of the packed size
        wide = b"".join(as_field(sizes[i], 8) for i in order if narrow[i] == 0xFFFFFFFF)
        extra = struct.pack("<2H", 1, number(len(wide)) % 65536) + wide if wide else b""
        local = (b"PK\3\4", 20, flags, method, 0, 0, crc, narrow[0], narrow[1], number(len(name)) % 65536, 0)
        data += struct.pack("<4s5H3L2H", *local) + name + packed
        entry = (b"PK\1\2", *(20, 3, 20, 0), *(flags, method, 0, 0), crc, narrow[0], narrow[1])
        lengths = (len(name), number(len(extra)) % 65536, number(0) % 65536, 0, 0)
        directory += struct.pack("<4s4B4H3L5H2L", *entry, *lengths, 0o100644 << 16, narrow[2]) + name + extra
    size, offset = number(len(directory)), number(len(data))
    whole = data + directory
    if draw(st.booleans()):
        whole += struct.pack("<4sQ2H2L", b"PK\6\6", 44, 45, 45, 0, 0)
        whole += as_field(count, 8) * 2 + as_field(size, 8) + as_field(offset, 8)
        whole += struct.pack("<4sLQL", b"PK\6\7", 0, as_field(offset + size, 8)[0], 1)
    whole += b"PK\5\6" + bytes(4) + as_field(count, 2) * 2 + as_field(size, 4) + as_field(offset, 4)
    return whole + as_field(number(0), 2)


@given(zips())
@EXAMPLES
def test_zips(archive: bytes) -> None:
    in_folder("a.zip", archive)


# Datasets of TFDS


FEATURES = {
    "pythonClassName": "x.FeaturesDict",
    "featuresDict": {
        "features": {
            "image": {
                "pythonClassName": "x.Image",
                "image": {"encodingFormat": "png", "dtype": "uint8", "shape": {"dimensions": ["-1", "-1", "3"]}},
            },
            "label": {"pythonClassName": "x.ClassLabel", "classLabel": {"numClasses": "2"}},
            "more": {"pythonClassName": "x.Sequence", "sequence": {"feature": {"pythonClassName": "x.Text"}}},
        }
    },
}
INFO = {
    "name": "zoo",
    "fileFormat": "tfrecord",
    "supervisedKeys": {"tuple": {"items": [{"featureKey": "image"}, {"featureKey": "label"}]}},
    "splits": [
        {"name": "train", "shardLengths": ["2"], "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"}
    ],
}
# Of these, JSON text is made that Python's own writer would not write.
TOO_LONG, TOO_DEEP = "a number of 5,000 digits", "100,000 lists in one another"
VALUES = st.recursive(
    TEXTS | st.sampled_from([TOO_LONG, TOO_DEEP, "\ud800"]) | st.none() | st.booleans() | NUMBERS | st.floats(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXTS, inner, max_size=2),
    max_leaves=4,
)


@st.composite
def changed(draw: st.DrawFn, tree: Any) -> bytes:
    """Draws a JSON text like `tree`, up to two of whose values, at any depth, are others, or gone."""
    whole = [copy.deepcopy(tree)]
    for _ in range(draw(st.sampled_from([0, 1, 1, 1, 2]))):
        node: Any = whole
        key: Any = 0
        while isinstance(node[key], (dict, list)) and node[key] and draw(st.integers(0, 4)):
            node = node[key]
            key = draw(st.sampled_from(sorted(node) if isinstance(node, dict) else range(len(node))))
        if isinstance(node, dict) and draw(st.integers(0, 4)) == 0:
            del node[key]
        else:
            node[key] = draw(VALUES)
    text = json.dumps(whole[0])
    text = text.replace(json.dumps(TOO_LONG), DIGITS).replace(json.dumps(TOO_DEEP), "[" * 100_000 + "]" * 100_000)
    return text.encode()


@st.composite
def messages(draw: st.DrawFn, depth: int = 5) -> bytes:
    """Draws a protobuf message of fields with any number, type and length."""
    data = b""
    for _ in range(draw(st.integers(0, 2))):
        leaves = st.sampled_from([b"", b"image", b"label", b"\xff", IMAGE])
        content = draw(messages(depth - 1)) if depth else draw(leaves)
        kind = draw(st.sampled_from([2, 2, 2, 2, 2, 0, 1, 5, 7]))
        number = draw(st.integers(1, 3))
        length = draw(mostly(len(content), NUMBERS.filter(lambda n: n < 1 << 63)))
        data += varint(number << 3 | kind) + draw(mostly(varint(length), st.just(b"\xff" * 12)))
        data += content
    return data


@st.composite
def shards(draw: st.DrawFn) -> bytes:
    """Draws a TFRecord file, whose checksums are mostly right."""
    data = b""
    for at in range(draw(st.integers(0, 3))):
        good = {"image": IMAGE, "label": at % 2}
        odd = {"image": draw(st.just(IMAGE) | st.integers(-1, 1)), "label": draw(st.integers(-(2**63), 2**63 - 1))}
        payload = draw(st.sampled_from([*[encode_example(good)] * 5, encode_example(odd)]) | mostly(b"", messages()))
        length = draw(mostly(len(payload), NUMBERS))
        data += header(length) + payload + footer(payload)
    return data + draw(mostly(b"", st.sampled_from([b"x", *map(header, (1 << 63, (1 << 64) - 1, 1 << 40))])))


def check_tfds(info: bytes, features: bytes, labels: bytes | None, shard: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "zoo"
        folder.mkdir()
        (folder / "dataset_info.json").write_bytes(info)
        (folder / "features.json").write_bytes(features)
        if labels is not None:
            (folder / "label.labels.txt").write_bytes(labels)
        (folder / "zoo-train.tfrecord-00000-of-00001").write_bytes(shard)
        check(folder)


LABELS = st.sampled_from([None, b"a\nb\n", b"a\n\nb", b"", b"\xff", "a\u2028c\nb".encode(), b"a\nb\nc\n", b"a\na\n"])
RECORD = encode_example({"image": IMAGE, "label": 1})
SHARD = 2 * (header(len(RECORD)) + RECORD + footer(RECORD))


@given(changed(INFO), changed(FEATURES), LABELS)
@EXAMPLES
def test_metadata_of_tfds(info: bytes, features: bytes, labels: bytes | None) -> None:
    check_tfds(info, features, labels, SHARD)


@given(shards(), st.integers(0, 3))
@EXAMPLES
def test_shards_of_tfds(shard: bytes, count: int) -> None:
    info = {**INFO, "splits": [{"name": "train", "shardLengths": [count]}]}
    check_tfds(json.dumps(info).encode(), json.dumps(FEATURES).encode(), None, shard)


# Tables


CELL = TEXTS | st.sampled_from(["1.jpg", "2.jpg", "1.jpg"])
# The last value says how many of the others there are, compared with the header.
CELLS = st.tuples(CELL, CELL, CELL, CELL, mostly(1, st.sampled_from([0, 2]))).map(list)


@given(
    st.lists(CELLS, max_size=4),
    st.sampled_from(["path,label", "path,label,split", "label;path;split", "path\tlabel", "path", "path,label,label"]),
    st.sampled_from(["utf-8", "utf-16", "utf-8-sig", "latin-1"]),
)
@EXAMPLES
def test_csv(rows: list[list[str]], head: str, encoding: str) -> None:
    text = io.StringIO()
    text.write(f"{head}\n")
    delimiter = "," if "," in head else ";" if ";" in head else "\t"
    csv.writer(text, delimiter=delimiter).writerows(row[: row.pop() + head.count(delimiter)] for row in rows)
    content = text.getvalue().encode(encoding, "replace")
    in_folder("1.csv", content, lambda path: check("", table=str(path)))


COLUMNS = st.sampled_from(
    [
        pa.array(["1.jpg", "2.jpg"]), pa.array([b"1.jpg", b"\xff.jpg"]), pa.array([1, 2]), pa.array([None, None]),
        pa.array([1.5, float("nan")]), pa.array([float("inf"), 1.0]), pa.array([10**17, 1], pa.timestamp("us")),
        pa.array([-(2**63), 2**63 - 1], pa.timestamp("us")), pa.array([2**60, 1], pa.duration("s")),
        pa.array([True, False]), pa.array([["a"], []]), pa.array([{"a": 1}, None]), pa.array([DIGITS, "a\0b"]),
        pa.array(["my split", "train"]), pa.array(["1", None]), pa.array([2**31 - 1, 0], pa.date32()),
        pa.array(["a", "b"]).dictionary_encode(), pa.array([b"\xff", b"a"]).dictionary_encode(), pa.nulls(2),
    ]
)  # fmt: skip


@given(
    st.just(pa.array(["1.jpg", "2.jpg"])) | COLUMNS,
    COLUMNS,
    st.none() | st.just(pa.array(["a", "b"])) | COLUMNS,
    mostly("path", st.sampled_from(["label", "x"])),
)
@EXAMPLES
def test_parquet(path: pa.Array, label: pa.Array, split: pa.Array | None, name: str) -> None:
    columns, names = [path, label], [name, "label"]
    if split is not None:
        columns, names = [*columns, split], [*names, "split"]
    data = io.BytesIO()
    pq.write_table(pa.Table.from_arrays(columns, names), data)
    in_folder("1.parquet", data.getvalue(), lambda file: check("", table=str(file)))


# Datasets in this project's own format, whose checksums are computed again after the damage


def resealed(layout: bytes, original: dict[str, Any]) -> bytes:
    """Returns a layout.json with the checksum of its own values, if it still is an object."""
    try:
        values = json.loads(layout)
    except (ValueError, RecursionError):
        return layout
    if not isinstance(values, dict):
        return layout
    values.pop("sha256", None)
    values = {key: values[key] for key in (*original, *values) if key in values and key != "sha256"}
    return json.dumps({**values, "sha256": hashlib.sha256(json.dumps(values).encode()).hexdigest()}).encode()


def check_dataset(folder: Path) -> None:
    """Opens and verifies a dataset, and reads all of its images; each may only fail with a DataError."""
    assert isinstance(verify(folder).problems, tuple)
    for use in (read_quarantine, num_examples_by_split):
        with suppress(DataError):
            use(folder)
    try:
        layout, manifest = Layout.load(folder), read_manifest(folder)
    except DataError as error:
        assert str(folder) in str(error)
        return
    images = DatasetImages(folder, layout, manifest)
    for row in range(len(manifest)):
        with suppress(DataError):
            assert images.image(row).size == (layout.image_size, layout.image_size)
    for shard in (shard for shards in layout.splits.values() for shard in shards):
        with suppress(DataError):
            assert all(isinstance(payload, bytes) for payload in ShardReader(folder / shard.file))


@given(st.data())
@EXAMPLES
def test_a_data_set_whose_files_have_other_values(converted: Any, data: st.DataObject) -> None:
    folder = converted.folder
    with tempfile.TemporaryDirectory() as name:
        copied = Path(shutil.copytree(folder, Path(name) / "zoo"))
        layout = json.loads((folder / "layout.json").read_bytes())
        what = data.draw(st.sampled_from(["layout", "layout", "info", "quarantine", "sidecar", "shard"]))
        if what == "layout":
            (copied / "layout.json").write_bytes(resealed(data.draw(changed(layout)), layout))
        elif what == "info":
            info = json.loads((folder / "dataset_info.json").read_bytes())
            (copied / "dataset_info.json").write_bytes(data.draw(changed(info)))
        elif what == "quarantine":
            line = {"path": "a", "reason": "corrupt", "detail": ""}
            (copied / "quarantine.jsonl").write_bytes(data.draw(changed(line)))
        else:
            shard = copied / layout["splits"]["train"][0]["file"]
            if what == "shard":
                shard.write_bytes(data.draw(shards()))
            else:
                lines = data.draw(st.lists(st.tuples(NUMBERS, NUMBERS), max_size=6))
                find_index(shard).write_text("".join(f"{at} {n}\n" for at, n in lines))
        check_dataset(copied)


ROWS = st.sampled_from(["splits", "shards", "positions", "ids", "labels", "reasons"])


@given(ROWS, st.integers(0, 5), st.sampled_from([-(2**31), -2, -1, 0, 1, 7, 2**31 - 1]))
@EXAMPLES
def test_a_manifest_with_other_numbers(converted: Any, column: str, row: int, number: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        copied = Path(shutil.copytree(converted.folder, Path(name) / "zoo"))
        manifest = read_manifest(copied)
        values = getattr(manifest, column).copy()
        values[row] = np.clip(number, -1, 0) if values.dtype == np.int8 else number
        try:
            write_manifest(copied, dataclasses.replace(manifest, **{column: values}))
        except (ValueError, pa.ArrowException):
            return
        check_dataset(copied)


@pytest.mark.parametrize("name", ["layout.json", "manifest.parquet", "quarantine.jsonl", "dataset_info.json"])
def test_a_folder_in_the_place_of_a_file(converted_raw: Any, tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(converted_raw.folder, tmp_path / "zoo"))
    (folder / name).unlink(missing_ok=True)
    (folder / name).mkdir()
    check_dataset(folder)
    assert any(name in problem for problem in verify(folder).problems)


@pytest.mark.parametrize("side", [4, 32])
def test_images_of_another_size_than_the_layout_says(converted: Any, tmp_path: Path, side: int) -> None:
    """The layout is whole, and its checksum is right: somebody changed the one number."""
    folder = Path(shutil.copytree(converted.folder, tmp_path / "zoo"))
    layout, manifest = Layout.load(folder), read_manifest(folder)
    offsets = Offsets.of(layout.encoding, side)
    dataclasses.replace(layout, image_size=side, offsets=offsets).save(folder)
    images = DatasetImages(folder, Layout.load(folder), manifest)
    with pytest.raises(DataError, match=r"no record of|it has 16 x 16 px instead of"):
        images.image(0)
