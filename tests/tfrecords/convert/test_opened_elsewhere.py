"""What programs of others find in a dataset folder: sidecars out of their way, a description, names for SQL."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from tfrecords.base_errors import UsageError
from tfrecords.convert.engine import convert
from tfrecords.convert.plan.convert_config import ConvertConfig
from tfrecords.edit.dataset_edit import EditConfig, edit
from tfrecords.format.dataset_verification import verify
from tfrecords.format.layout import Layout, checksums
from tfrecords.format.manifest import read_manifest
from tfrecords.format.naming import INDEX_FOLDER, SIZES_FOLDER, find_index
from tfrecords.format.shard import ShardReader
from tfrecords.format.tfds_metadata import write_metadata


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name in ("ant", "bee"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(6):
            Image.effect_noise((12, 12), 40 + number).convert("RGB").save(tmp_path / f"photos/{name}/{number}.png")
    (tmp_path / "photos" / "bee" / "broken.png").write_bytes(b"no picture")
    return tmp_path / "photos"


def config(photos: Path, **changes: object) -> ConvertConfig:
    given = {"image_dir": photos, "data_dir": photos.parent / "data", "name": "zoo", "image_size": 8, "num_workers": 1}
    return ConvertConfig(**{**given, **changes})  # type: ignore[arg-type]


def as_earlier(folder: Path) -> None:
    """Makes a dataset one of an earlier version: sidecars elsewhere, and neither source nor description."""
    last = SIZES_FOLDER if (folder / SIZES_FOLDER).exists() else INDEX_FOLDER
    for path in (folder / last).iterdir():
        path.rename(folder / (INDEX_FOLDER if last == SIZES_FOLDER else ".") / path.name)
    (folder / last).rmdir()
    layout = dataclasses.replace(Layout.load(folder), source={})
    write_metadata(folder, layout)
    shards = {info.file for infos in layout.splits.values() for info in infos}
    dataclasses.replace(layout, files=checksums(folder, {*shards, "layout.json"})).save(folder)


@pytest.mark.parametrize(("encoding", "write_index"), [("raw", False), ("raw", True), ("png", False), ("png", True)])
def test_patterns_of_others_find_shards_alone(photos: Path, encoding: str, write_index: bool) -> None:
    folder = convert(config(photos, encoding=encoding, write_index=write_index)).dataset_dir
    assert verify(folder).problems == ()
    layout = Layout.load(folder)
    for split, infos in layout.splits.items():
        assert {path.name for path in folder.glob(f"zoo-{split}*")} == {info.file for info in infos}
    has_index = write_index or encoding != "raw"
    assert (folder / INDEX_FOLDER).exists() == has_index
    for info in layout.splits["train"] if has_index else ():
        reader = ShardReader(folder / info.file)
        assert [reader.read(*place) for place in reader.offsets().tolist()] == list(reader)
        assert f"idx/{info.file}.idx" in layout.files
    assert layout.config.get("write_index", False) == write_index


@pytest.mark.parametrize("form", [{"image_size": 8}, {"image_size": 0, "resize": "none"}], ids=["raw", "own"])
def test_versions_keep_the_sidecars(photos: Path, form: dict[str, object]) -> None:
    """Raw shards and images in their own shapes: each folder of sidecars has one file per shard, as DALI demands."""
    folder = convert(config(photos, write_index=True, **form)).dataset_dir
    with pytest.raises(UsageError, match="--write_index=True there, None now"):
        convert(config(photos, **form))
    Image.new("RGB", (12, 12), "red").save(photos / "ant" / "new.png")
    appended = convert(config(photos, write_index=True, append=True, **form)).dataset_dir
    (folder.parent / "ids.csv").write_text(f"path\n{read_manifest(folder).paths[0]}\n")
    edited = edit(EditConfig(dataset_dir=appended, delete=folder.parent / "ids.csv")).dataset_dir
    for made in (appended, edited):
        shards = {path.name for path in made.glob("zoo-*")}
        assert {path.name for path in (made / INDEX_FOLDER).iterdir()} == {f"{name}.idx" for name in shards}
        assert {path.name for path in made.glob("sizes/*")} == {f"{name}.sizes" for name in shards if "resize" in form}
        assert verify(made).problems == ()
    path = find_index(next(edited.glob("zoo-*")))
    path.write_text("0 1\n")
    assert any(path.name in problem for problem in verify(edited).problems)
    path.unlink()
    assert any(f"{path} is missing" in problem for problem in verify(edited).problems)


@pytest.mark.parametrize("form", [{"encoding": "png"}, {"image_size": 0, "resize": "none"}], ids=["png", "own"])
def test_datasets_of_earlier_versions(photos: Path, form: dict[str, object]) -> None:
    folder = convert(config(photos, **form)).dataset_dir
    as_earlier(folder)
    elsewhere = "idx/*.sizes" if "resize" in form else "*.idx"
    assert len(list(folder.glob(elsewhere))) == len(list(folder.glob("zoo-*[0-9]")))
    assert verify(folder).problems == ()
    assert convert(config(photos, **form)).num_converted == 0
    Image.new("RGB", (12, 12), "red").save(photos / "ant" / "new.png")
    appended = convert(config(photos, append=True, **form)).dataset_dir
    assert verify(appended).problems == ()
    assert not list(appended.glob(elsewhere))
    assert sum(len(ShardReader(path).offsets()) for path in appended.glob("zoo-*")) == 13


def test_array_records_need_no_sidecars(photos: Path) -> None:
    pytest.importorskip("array_record")
    with pytest.raises(UsageError, match="--write_index: ArrayRecord files"):
        convert(config(photos, format="array_record", write_index=True))


def test_a_row_of_the_manifest_leads_to_its_shard_and_its_file(photos: Path) -> None:
    folder = convert(config(photos, encoding="png")).dataset_dir
    layout = Layout.load(folder)
    rows = pq.read_table(folder / "manifest.parquet").to_pylist()
    assert layout.source == {"image_dir": str(photos)}
    for row in rows:
        assert row["class"] == layout.class_names[row["label"]] == row["path"].split("/")[0]
        assert (Path(layout.source["image_dir"]) / row["path"]).is_file()
        if row["status"] == "ok":
            assert row["shard_file"] == layout.splits[row["split"]][row["shard"]].file
            reader = ShardReader(folder / row["shard_file"])
            assert reader.read(*reader.offsets()[row["position"]].tolist())
        else:
            assert row["shard_file"] == ""


def test_names_of_shards_in_later_versions(photos: Path) -> None:
    convert(config(photos))
    shutil.copy(photos / "ant" / "1.png", photos / "bee" / "more.png")
    Image.new("RGB", (12, 12), "red").save(photos / "ant" / "new.png")
    appended = convert(config(photos, append=True)).dataset_dir
    (photos.parent / "ids.csv").write_text("path,label\nant/2.png,wasp\n")
    edited = edit(
        EditConfig(dataset_dir=appended, relabel=photos.parent / "ids.csv", add_classes=("wasp",))
    ).dataset_dir
    for folder in (appended, edited):
        layout = Layout.load(folder)
        for row in pq.read_table(folder / "manifest.parquet").to_pylist():
            known = layout.splits[row["split"]][row["shard"]].file if row["status"] == "ok" else ""
            assert (row["shard_file"], row["class"]) == (known, layout.class_names[row["label"]])
    assert "wasp" in pq.read_table(edited / "manifest.parquet")["class"].to_pylist()


def test_the_description(photos: Path) -> None:
    folder = convert(config(photos, resize="crop")).dataset_dir
    info = json.loads((folder / "dataset_info.json").read_bytes())
    for words in (r"^12 examples \(\d+ train, \d+ test\) of 2 classes, 8 x 8 px, raw pixels", f"--image_dir={photos}",
                  "Version 1.0.0", "resize crop", "seed|splits"):  # fmt: skip
        assert re.search(words, info["description"])
    assert info["location"] == {"urls": ["about:blank"]}
