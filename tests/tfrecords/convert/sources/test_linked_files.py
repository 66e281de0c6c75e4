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


def test_links_of_other_sources(photos: Path, tmp_path: Path) -> None:
    shutil.make_archive(str(tmp_path / "photos"), "zip", photos)
    with pytest.raises(UsageError, match="--links=once is about the files of a folder"):
        open_source(str(tmp_path / "photos.zip"), links="once")
