"""Files mapped as one array: every record where it belongs, whatever the lengths; nothing kept open or mapped."""

import dataclasses
import gc
import io
import os
import shutil
import sys
import textwrap
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import simimg.input.pipeline as pipeline
from simimg.errors import CorruptRecordError, DataError
from simimg.input.records import ON_CORRUPT, EncodedRecords, aligned, shared_tensor
from simimg.input.split import Shard, Split, open_split
from tests.forked_process import run_forked
from tfrecords.convert.engine import convert
from tfrecords.convert.plan.convert_config import ConvertConfig
from tfrecords.format.layout import Layout
from tfrecords.format.manifest import Manifest, write_manifest
from tfrecords.format.mapped_shards import map_records
from tfrecords.format.naming import index_name, index_path
from tfrecords.format.record_layout import encode_record
from tfrecords.format.shard import open_shard


@given(counts=st.lists(st.integers(0, 40), min_size=1, max_size=6), record_bytes=st.integers(1, 9000))
@settings(max_examples=40)
def test_every_record_is_where_it_belongs(
    tmp_path_factory: pytest.TempPathFactory, counts: list[int], record_bytes: int
) -> None:
    folder = tmp_path_factory.mktemp("shards")
    counts[0] += 1  # no split is empty
    whole = np.random.default_rng(0).integers(0, 256, (sum(counts), record_bytes), np.uint8)
    shards = []
    for number, part in enumerate(np.split(whole, np.cumsum(counts)[:-1])):
        shards.append((folder / str(number), len(part)))
        shards[-1][0].write_bytes(part.tobytes())
    mapped = map_records(shards, record_bytes)
    assert mapped.first_places[-1] == len(whole)
    assert mapped.rows.ctypes.data % 4096 == 0
    for places, rows in mapped.spans():
        np.testing.assert_array_equal(mapped.rows[rows], whole[places])
    spans = [places for places, _ in mapped.spans()]
    assert [place for span in spans for place in range(span.start, span.stop)] == list(range(len(whole)))


def test_more_than_there_is_memory(tmp_path: Path) -> None:
    """A hundred thousand million bytes of nothing, and a record at their end."""
    path, count, record_bytes = tmp_path / "sparse", 10**7, 10**4
    with open(path, "wb") as file:
        file.truncate(count * record_bytes)
        file.seek(-record_bytes, os.SEEK_END)
        file.write(b"\x07" * record_bytes)
    mapped = map_records([(path, count)], record_bytes)
    assert not mapped.rows[count // 2].any()
    assert (mapped.rows[-1] == 7).all()


def test_a_tensor_keeps_the_mapping_alive_and_nothing_else_does(
    tmp_path: Path, num_open: Callable[[Path], int]
) -> None:
    path = tmp_path / "shard"
    path.write_bytes(bytes(range(100)) * 3)

    def is_mapped() -> bool:
        return str(path) in Path("/proc/self/maps").read_text()

    tensor = shared_tensor(map_records([(path, 3)], 100).rows)
    gc.collect()
    assert is_mapped()
    assert tensor.numpy()[2].tolist() == list(range(100))
    assert num_open(path) == 0
    del tensor
    deadline = time.monotonic() + 60  # TensorFlow may let go of it on another thread
    while is_mapped() and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.01)
    assert not is_mapped()


def test_a_file_of_another_length_or_none(tmp_path: Path) -> None:
    path = tmp_path / "shard"
    path.write_bytes(bytes(99))
    with pytest.raises(DataError, match=r"shard is 99 bytes long instead of 100.*simimg verify"):
        map_records([(path, 10)], 10)
    with pytest.raises(DataError, match="nowhere cannot be read: No such file"):
        map_records([(tmp_path / "nowhere", 10)], 10)


def test_arrays_that_tensorflow_takes_over() -> None:
    for shape in [(3, 5), (1,), (7, 64, 64, 3)]:
        array = aligned(shape)
        array[:] = 9
        tensor = shared_tensor(array)
        array[0] = 5  # the same memory
        assert tensor.shape == shape
        assert (tensor.numpy()[0] == 5).all()


def test_a_large_set_is_neither_copied_nor_touched_after_the_end(tmp_path: Path) -> None:
    """A million records of 4 KB in a process that ends while TensorFlow reads: 4 GB are mapped, little is used."""
    script = f"""
        import dataclasses, pathlib
        from simimg.bench.converters.tool_server import peak_bytes
        from simimg.input import Order, batches_of, open_split, train_batches
        from simimg.input.readers.mapped import MappedReader

        split = open_split(pathlib.Path({str(_large_shard(tmp_path))!r}), "train")
        split = dataclasses.replace(split, shards=split.shards * 1000)
        reader = MappedReader(split, num_threads=2)
        order = Order(num_examples=split.num_examples, global_batch_size=64, num_epochs=1000, seed=0)
        before = peak_bytes()
        batches = batches_of(train_batches(reader, order))
        for _ in range(3):
            next(batches)
        print(split.num_examples, peak_bytes() - before)
        """
    run = run_forked([sys.executable, "-c", textwrap.dedent(script)])
    assert run.returncode == 0, run.stderr
    num_examples, grown = map(int, run.stdout.split())
    assert num_examples == 1_000_000
    assert grown < 500 * 2**20


def _large_shard(folder: Path) -> Path:
    """Returns a dataset of 1,000 pictures of 36 x 36."""
    rng = np.random.default_rng(0)
    for number in range(1000):
        path = folder / "pictures" / "ab"[number % 2] / f"{number}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (36, 36, 3), np.uint8)).save(path)
    config = ConvertConfig(
        image_dir=folder / "pictures", data_dir=folder, name="set", image_size=36, splits="train=1", copies="ignore"
    )
    return convert(config).dataset_dir


@pytest.mark.parametrize("encoding", ["jpeg", "png"])
@pytest.mark.parametrize("size", [(8, 8), (32, 32), (1, 1), (8, 32)])
@pytest.mark.parametrize("on_corrupt", ON_CORRUPT)
def test_an_image_of_another_size_than_the_layout_says(
    tmp_path: Path, encoding: str, size: tuple[int, int], on_corrupt: str
) -> None:
    """A forged `image_size`: what the decoder does not fill is memory that was never written."""
    Image.effect_noise((40, 40), 50).convert("RGB").save(tmp_path / "1.png")
    config = ConvertConfig(
        image_dir=str(tmp_path), data_dir=tmp_path / "data", name="zoo", image_size=16, encoding=encoding,
        splits="train=1", num_workers=1,
    )  # fmt: skip
    folder = convert(config).dataset_dir
    layout = Layout.load(folder)
    (info,) = layout.splits["train"]
    data = io.BytesIO()
    Image.effect_noise(size, 50).convert("RGB").save(data, encoding.upper())
    with open_shard(folder / info.file, index=True) as writer:
        writer.write(encode_record(data.getvalue(), 0, 0))
    index_path(folder / info.file).replace(folder / index_name(info.file))
    dataclasses.replace(layout, splits={"train": (writer.info(),)}).save(folder)
    records = EncodedRecords(open_split(folder, "train"), on_corrupt=on_corrupt)
    if on_corrupt == "skip":
        images, labels, ids = records.gather(np.array([0]))
        assert (images.any(), labels.tolist(), ids.tolist()) == (False, [0], [-1])
        assert "instead of 16 x 16" in records.corrupt[0] or "buffer is too small" in records.corrupt[0]
    else:
        with pytest.raises(CorruptRecordError, match=r"00001: record 0 at byte 0: .*(instead of 16 x 16|too small)"):
            records.gather(np.array([0]))


def test_counts_that_the_files_are_too_short_for(datasets: dict[str, Path], tmp_path: Path) -> None:
    for encoding, dataset_dir in datasets.items():
        folder = Path(shutil.copytree(dataset_dir, tmp_path / encoding))
        layout = Layout.load(folder)
        first, *rest = layout.splits["train"]
        many = dataclasses.replace(first, num_examples=1 << 50)
        dataclasses.replace(layout, splits={"train": (many, *rest)}).save(folder)
        with pytest.raises(DataError, match=rf"{first.file} is \d+ bytes long, which is too short for \d+ records"):
            open_split(folder, "train")


def _split_with_an_empty_record(folder: Path) -> Split:
    path = folder / "a-train.tfrecord-00000-of-00001"
    with open_shard(path, index=True) as writer:
        writer.write(b"")
    return Split(
        dataset_dir=folder, name="a", split="train", encoding="jpeg", image_size=64, class_names=("x",),
        shards=(Shard(path, 1, 16),), offsets=None, has_id=True, indexed=True,
    )  # fmt: skip


@pytest.mark.parametrize("on_corrupt", ON_CORRUPT)
def test_a_record_that_ends_before_its_id(tmp_path: Path, on_corrupt: str) -> None:
    records = EncodedRecords(_split_with_an_empty_record(tmp_path), on_corrupt=on_corrupt)
    if on_corrupt == "skip":
        assert records.gather(np.array([0]))[2].tolist() == [-1]
    else:
        with pytest.raises(CorruptRecordError, match="record 0 at byte 0: its length is not the one in the sidecar"):
            records.gather(np.array([0]))


@pytest.mark.parametrize("label", [-1, 1, 5])
def test_a_manifest_with_a_label_that_is_no_class(tmp_path: Path, label: int) -> None:
    manifest = Manifest(
        ids=np.zeros(1, np.int64), paths=["a"], sha256=np.zeros((1, 32), np.uint8),
        pixels_sha256=np.zeros((1, 32), np.uint8), phash=np.zeros(1, np.uint64), widths=np.zeros(1, np.int32),
        heights=np.zeros(1, np.int32), labels=np.array([label], np.int32), split_names=("train",),
        splits=np.zeros(1, np.int8), shards=np.zeros(1, np.int32), positions=np.zeros(1, np.int64),
        groups=np.zeros(1, np.int64), reason_names=(), reasons=np.array([-1], np.int8),
    )  # fmt: skip
    write_manifest(tmp_path, manifest)
    reader: Any = types.SimpleNamespace(split=_split_with_an_empty_record(tmp_path))
    with pytest.raises(DataError, match=r"manifest\.parquet contradicts layout\.json\. Run `simimg verify`"):
        pipeline.label_counts(reader)
