"""Several names of one file, by symbolic and hard links."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tfrecords.base_errors import UsageError
from tfrecords.convert.engine import convert
from tfrecords.convert.plan.convert_config import ConvertConfig
from tfrecords.convert.sources import open_source
from tfrecords.edit.dataset_edit import EditConfig, edit
from tfrecords.format.manifest import read_manifest


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Classes ant and bee with four files each; 0 is no link, but has an equal copy."""
    for label, name in enumerate(("ant", "bee")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(4):
            pixels = np.random.default_rng(10 * label + number).integers(0, 256, (10, 10, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / f"photos/{name}/{number}.png")
    shutil.copy(tmp_path / "photos/ant/0.png", tmp_path / "photos/ant/copy.png")
    return tmp_path / "photos"


def note(folder: Path, links: str = "keep") -> str:
    notes = [note for note in open_source(str(folder), links=links).notes if " by links" in note]
    assert len(notes) <= 1
    return notes[0] if notes else ""


def test_links_are_counted_and_taken_once(photos: Path) -> None:
    assert note(photos) == note(photos, "once") == ""
    (photos / "ant" / "!first.png").symlink_to("1.png")  # before its file in the order, which stays all the same
    (photos / "bee" / "other_class.png").symlink_to("../ant/2.png")
    os.link(photos / "bee/1.png", photos / "bee/z hard.png")
    os.link(photos / "bee/1.png", photos / "ant/z hard.png")
    (photos / "bee" / "gone.png").symlink_to("nowhere.png")
    text = "4 files are the same file as another by links, 3 under another label; "
    assert note(photos) == text + "all are kept, and --links=once takes each file once"
    assert note(photos, "once") == text + "each file was taken once"
    source = open_source(str(photos), links="once")
    assert source.paths == [
        *(f"ant/{name}.png" for name in ("0", "1", "2", "3", "copy", "z hard")),
        *(f"bee/{name}.png" for name in ("0", "2", "3", "gone")),
    ]
    assert list(source.refused) == [9]


def test_linked_folders(photos: Path) -> None:
    (photos / "ant" / "again").symlink_to("../bee")
    assert note(photos) == ""  # classes that are one folder have a note of their own
    assert any("the classes ant/again, bee are one folder" in text for text in open_source(str(photos)).notes)
    assert note(photos, "once").startswith("4 files are the same file as another by links, 4 under another label")
    assert len(open_source(str(photos), links="once").paths) == 9
    (photos / "cow").symlink_to("ant")
    source = open_source(str(photos), links="once")
    assert {path.split("/")[0] for path in source.paths} == {"ant", "bee"}


def test_one_link(photos: Path) -> None:
    (photos / "ant" / "same.png").symlink_to("1.png")
    assert note(photos).startswith("1 file is the same file as another by links; all are kept")


def test_a_dataset_of_each_file_once(photos: Path, tmp_path: Path) -> None:
    (photos / "bee" / "other_class.png").symlink_to("../ant/2.png")

    def converted(links: str, **more: bool) -> list[str]:
        options = ConvertConfig(
            image_dir=str(photos), data_dir=tmp_path, name=links, image_size=4, num_workers=1, links=links, **more
        )
        summary = convert(options)
        assert sum("by links" in warning for warning in summary.warnings) == 1
        return read_manifest(summary.dataset_dir).paths

    assert set(converted("keep")) - set(converted("once")) == {"bee/other_class.png"}
    assert len(converted("once")) == 9  # the same again, without converting anything
    (photos / "ant" / "new.png").symlink_to("3.png")
    assert len(converted("once")) == 9
    assert len(converted("keep", append=True)) == 11


def test_a_dataset_keeps_the_names_that_it_has(photos: Path, tmp_path: Path) -> None:
    """Whatever other names a file gets later, and also if it was rejected or deleted; only new files are appended."""
    (photos / "ant" / "broken.png").write_bytes(b"no image")
    outside = tmp_path / "outside.png"
    shutil.move(photos / "bee" / "3.png", outside)
    (photos / "bee" / "3.png").symlink_to(outside)  # which is the first name of its file
    os.link(photos / "bee/2.png", photos / "bee/twin.png")

    def converted(append: bool = False) -> set[str]:
        summary = convert(
            ConvertConfig(
                image_dir=str(photos), data_dir=tmp_path, name="once", image_size=4, num_workers=1, links="once",
                append=append, max_refused="10",
            )
        )  # fmt: skip
        manifest = read_manifest(summary.dataset_dir)
        return {path for path, ok in zip(manifest.paths, manifest.ok, strict=True) if ok}

    first = converted()
    assert {"ant/1.png", "bee/3.png"} < first
    assert not {"ant/broken.png", "bee/twin.png"} & first
    folder = tmp_path / "once" / "1.0.0"
    (deleted := tmp_path / "deleted.txt").write_text("ant/3.png\n")
    edit(EditConfig(dataset_dir=folder, delete=deleted))
    os.link(photos / "ant/1.png", photos / "ant/!hard.png")
    os.link(photos / "bee/1.png", photos / "ant/!other class.png")
    os.link(photos / "ant/3.png", photos / "ant/!deleted.png")
    os.link(photos / "ant/broken.png", photos / "ant/!broken.png")
    (photos / "ant" / "!link.png").symlink_to("2.png")
    os.link(outside, photos / "bee/!inside.png")  # and no link, as the name in the dataset is
    (photos / "bee" / "twin.png").rename(photos / "bee" / "!renamed.png")
    (photos / "cow").mkdir()
    os.link(photos / "ant/0.png", photos / "cow/0.png")
    (photos / "ant" / "copy.png").unlink()
    os.link(photos / "ant/0.png", photos / "ant/copy.png")  # two examples that were made one file, to save space
    assert converted(append=True) == first - {"ant/3.png"}
    Image.new("RGB", (10, 10), "red").save(photos / "ant" / "new.png")
    Image.new("RGB", (10, 10), "blue").save(photos / "ant" / "broken.png")
    assert converted(append=True) == first - {"ant/3.png"} | {"ant/new.png", "ant/broken.png"}


def test_links_of_other_sources(photos: Path, tmp_path: Path) -> None:
    shutil.make_archive(str(tmp_path / "photos"), "zip", photos)
    with pytest.raises(UsageError, match="--links=once is about the files of a folder"):
        open_source(str(tmp_path / "photos.zip"), links="once")
