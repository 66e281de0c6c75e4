"""What came of a conversion: too many rejected files end it; manifest and summary say what became of each file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tfrecords.base_errors import ConversionError
from tfrecords.convert.engine import ConvertProgress, convert
from tfrecords.convert.output.publish import _merged
from tfrecords.convert.plan.convert_config import ConvertConfig
from tfrecords.format.dataset_verification import verify
from tfrecords.format.layout import Layout
from tfrecords.format.manifest import Manifest, read_manifest
from tfrecords.format.quarantine import read_quarantine

AConfig = Callable[..., ConvertConfig]
MakeFolder = Callable[..., Path]

pytestmark = pytest.mark.usefixtures("small_shards")  # 40 photos in 9 shards


@pytest.fixture
def bad(mine: Path) -> Path:
    """The photos, of which four are refused: two empty ones, one of text, one whose name is no picture's."""
    (mine / "ant" / "image_3.png").write_bytes(b"")
    (mine / "ant" / "image_4.jpg").write_bytes(b"")
    (mine / "bee" / "image_5.png").write_bytes(b"<html>gone</html>")
    (mine / "bee" / "notes.txt").write_bytes(b"some")
    return mine


REFUSED = {
    "ant/image_3.png": "empty",
    "ant/image_4.jpg": "empty",
    "bee/image_5.png": "text",
    "bee/notes.txt": "unknown_suffix",
}


# How many may be refused


@pytest.mark.parametrize("max_refused", ["", "4", "100", "9.8%", "100%"])  # of 41 files
def test_as_many_may_be_refused_as_was_said(bad: Path, tmp_path: Path, a_config: AConfig, max_refused: str) -> None:
    summary = convert(a_config(bad, tmp_path / "data", max_refused=max_refused))
    assert (summary.num_examples, summary.num_refused) == (37, 4)
    assert summary.reasons == {"empty": 2, "text": 1, "unknown_suffix": 1}
    assert {file.path: file.reason for file in read_quarantine(summary.dataset_dir)} == REFUSED
    assert verify(summary.dataset_dir).ok


@pytest.mark.parametrize("max_refused", ["3", "0", "0%", "9.7%"])
def test_more_refused_files_end_it_and_are_listed(
    bad: Path, tmp_path: Path, a_config: AConfig, max_refused: str
) -> None:
    work = tmp_path / "data" / "zoo" / ".1.0.0.work"
    with pytest.raises(ConversionError) as caught:
        convert(a_config(bad, tmp_path / "data", max_refused=max_refused))
    assert str(caught.value) == (
        "4 of 41 files were rejected (2 empty, 1 text, 1 unknown_suffix), more than "
        f"--max_refused={max_refused} allows. {work}/quarantine.jsonl lists them. Repair them and give the same "
        "command again: only their shards are written again. Or allow more, and all finished shards are used."
    )
    assert {file.path: file.reason for file in read_quarantine(work)} == REFUSED
    assert [path.name for path in work.parent.iterdir()] == [work.name]


def test_allowing_more_takes_what_is_finished(bad: Path, tmp_path: Path, a_config: AConfig) -> None:
    with pytest.raises(ConversionError, match="more than --max_refused=1 allows"):
        convert(a_config(bad, tmp_path / "data", max_refused="1"))
    seen: list[ConvertProgress] = []
    summary = convert(a_config(bad, tmp_path / "data", max_refused="4"), progress=seen.append)
    assert (summary.num_converted, summary.num_examples, summary.num_refused) == (0, 37, 4)
    assert seen == [ConvertProgress(40, 40, 3)]  # the notes were never looked at
    assert [path.name for path in summary.dataset_dir.parent.iterdir()] == ["1.0.0"]


def test_mending_does_only_their_shards_anew(
    bad: Path, tmp_path: Path, a_config: AConfig, write_picture: Callable[..., None]
) -> None:
    with pytest.raises(ConversionError, match="more than --max_refused=0 allows"):
        convert(a_config(bad, tmp_path / "data", max_refused="0"))
    (bad / "bee" / "notes.txt").unlink()
    for number, name in enumerate(("ant/image_3.png", "ant/image_4.jpg", "bee/image_5.png")):
        (bad / name).unlink()
        write_picture(bad / name, 200 + number)
    summary = convert(a_config(bad, tmp_path / "data", max_refused="0"))
    assert (summary.num_examples, summary.num_refused) == (40, 0)
    assert 3 <= summary.num_converted <= 15  # in three shards at most
    assert not (summary.dataset_dir / "quarantine.jsonl").exists()
    assert verify(summary.dataset_dir).ok


def test_nothing_that_can_be_decoded_names_the_first_file_that_was_read(
    tmp_path: Path, a_config: AConfig, make_folder: MakeFolder
) -> None:
    folder = make_folder(tmp_path / "zoo", {"ant": 3})
    for path in (folder / "ant").iterdir():
        path.write_bytes(b"")
    (folder / "ant" / "a.txt").touch()
    with pytest.raises(
        ConversionError,
        match=r"zoo: none of its 4 files can be decoded\. The first is ant/image_0\.jpg: empty, .*\. Look",
    ):
        convert(a_config(folder, tmp_path / "data", max_refused="100%"))
    assert not (tmp_path / "data" / "zoo" / "1.0.0").exists()


def test_max_refused_of_what_is_added_counts_that_alone(
    bad: Path, tmp_path: Path, a_config: AConfig, write_picture: Callable[..., None]
) -> None:
    convert(a_config(bad, tmp_path / "data"))
    for number in range(10):
        write_picture(bad / "bee" / f"new_{number}.png", 100 + number)
    with pytest.raises(ConversionError, match="4 of 14 files were rejected"):  # the four are tried again
        convert(a_config(bad, tmp_path / "data", append=True, max_refused="10%"))
    summary = convert(a_config(bad, tmp_path / "data", append=True, max_refused="4"))
    assert (summary.num_converted, summary.num_examples, summary.num_refused) == (0, 47, 4)


# What the manifest says


def test_the_manifest_has_every_file(bad: Path, tmp_path: Path, a_config: AConfig) -> None:
    folder = convert(a_config(bad, tmp_path / "data")).dataset_dir
    rows = {row.path: row for row in read_manifest(folder)}
    assert len(rows) == 41
    assert {path: row.reason for path, row in rows.items() if row.status != "ok"} == REFUSED
    for path in REFUSED:
        row = rows[path]
        assert (row.split, row.shard, row.position, row.copy_group, row.pixels_sha256) == ("", -1, -1, row.id, "")
        assert bool(row.sha256) == (path != "bee/notes.txt")
    layout = Layout.load(folder)
    places = {(row.split, row.shard, row.position) for row in rows.values() if row.status == "ok"}
    assert places == {
        (split, number, position)
        for split, shards in layout.splits.items()
        for number, shard in enumerate(shards)
        for position in range(shard.num_examples)
    }


def test_a_merged_manifest_has_both(
    bad: Path, tmp_path: Path, a_config: AConfig, write_picture: Callable[..., None]
) -> None:
    first = convert(a_config(bad, tmp_path / "data"))
    details = {file.path: file for file in read_quarantine(first.dataset_dir)}
    (bad / "ant" / "image_4.jpg").write_bytes(b"also text")  # refused still, for another reason
    (bad / "ant" / "image_3.png").unlink()
    write_picture(bad / "ant" / "image_3.png", 200)
    for number in range(6):
        write_picture(bad / "bee" / f"new_{number}.png", 100 + number)
    (bad / "bee" / "new_6.png").write_bytes((bad / "ant" / "image_7.png").read_bytes())
    (tmp_path / "only.jsonl").write_text(
        "".join(
            f'{{"path": "{path}"}}\n'
            for path in ("ant/image_3.png", "ant/image_4.jpg", *(f"bee/new_{number}.png" for number in range(7)))
        )
    )
    second = convert(a_config(bad, tmp_path / "data", append=True, only=tmp_path / "only.jsonl"))
    assert (second.num_converted, second.num_examples, second.num_refused) == (8, 45, 3)
    assert second.reasons == {"text": 2, "unknown_suffix": 1}
    assert verify(second.dataset_dir).ok
    before = {row.path: row for row in read_manifest(first.dataset_dir)}
    rows = list(read_manifest(second.dataset_dir))
    after = {row.path: row for row in rows}
    assert [row.id for row in rows] == list(range(48))
    touched = {"ant/image_3.png", "ant/image_4.jpg"}
    assert {path: after[path] for path in before.keys() - touched} == {
        path: before[path] for path in before.keys() - touched
    }
    assert all(after[path].id == before[path].id for path in touched)
    assert (after["ant/image_3.png"].status, after["ant/image_4.jpg"].reason) == ("ok", "text")
    assert after["bee/new_6.png"].copy_group == after["ant/image_7.png"].id
    assert after["bee/new_6.png"].split == after["ant/image_7.png"].split
    layout = Layout.load(second.dataset_dir)
    assert {(row.split, row.shard, row.position) for row in rows if row.status == "ok"} == {
        (split, number, position)
        for split, shards in layout.splits.items()
        for number, shard in enumerate(shards)
        for position in range(shard.num_examples)
    }
    refused = {file.path: file for file in read_quarantine(second.dataset_dir)}
    assert refused.keys() == REFUSED.keys() - {"ant/image_3.png"}
    assert refused["ant/image_4.jpg"].reason == "text"
    for path in ("bee/image_5.png", "bee/notes.txt"):  # were not tried again: what was known of them then
        assert refused[path] == details[path]


def rows_of(ids: list[int], splits: list[str], split_names: str, reasons: list[str], reason_names: str) -> Manifest:
    """Returns a manifest with these columns, "-" being neither split nor reason."""
    count = len(ids)
    return Manifest(
        ids=np.array(ids),
        paths=[f"{id}.png" for id in ids],
        sha256=np.zeros((count, 32), np.uint8),
        pixels_sha256=np.zeros((count, 32), np.uint8),
        phash=np.array(ids, np.uint64),
        widths=np.array(ids, np.int32),
        heights=np.zeros(count, np.int32),
        labels=np.zeros(count, np.int32),
        split_names=tuple(split_names),
        splits=np.array([split_names.find(split) for split in splits], np.int8),
        shards=np.zeros(count, np.int32),
        positions=np.zeros(count, np.int64),
        groups=np.array(ids),
        reason_names=tuple(reason_names),
        reasons=np.array([reason_names.find(reason) for reason in reasons], np.int8),
    )


def test_merged_rows_keep_the_names_of_their_splits_and_reasons() -> None:
    """Which have other numbers in the other manifest."""
    old = rows_of([0, 1, 2, 5], list("ab-b"), "ab", list("--y-"), "xy")
    new = rows_of([2, 6, 4], list("c-a"), "bca", list("-z-"), "zyx")
    rows = [(row.id, row.path, row.split, row.reason, row.width) for row in _merged(old, new)]
    assert rows == [
        (0, "0.png", "a", "", 0),
        (1, "1.png", "b", "", 1),
        (2, "2.png", "c", "", 2),
        (4, "4.png", "a", "", 4),
        (5, "5.png", "b", "", 5),
        (6, "6.png", "", "z", 6),
    ]
    same = [row.reason for row in _merged(old, rows_of([9], ["a"], "ba", ["-"], "yx"))]
    assert same == ["", "", "y", "", ""]


# What the summary says


def test_the_summary_of_a_call_that_went_on(
    bad: Path, tmp_path: Path, a_config: AConfig, interrupt_at: Callable[[int], Callable[[ConvertProgress], None]]
) -> None:
    with pytest.raises(ConversionError, match="interrupted"):
        convert(a_config(bad, tmp_path / "data"), progress=interrupt_at(20))
    summary = convert(a_config(bad, tmp_path / "data"))
    assert 0 < summary.num_converted < 37
    assert summary.images_per_s == pytest.approx(summary.num_converted / summary.seconds, rel=0.05)
    assert (summary.num_examples, sum(summary.splits.values())) == (37, 37)


def test_copies_that_the_splits_of_the_source_tear_are_told(bad: Path, tmp_path: Path, a_config: AConfig) -> None:
    os.link(bad / "ant" / "image_7.png", bad / "bee" / "same.png")
    (tmp_path / "some.csv").write_text("path,label,split\nant/image_7.png,a,train\nbee/same.png,b,test\n")
    summary = convert(a_config(bad, tmp_path / "data", table=tmp_path / "some.csv", splits="source"))
    assert summary.warnings == (
        "1 image has several labels, in 2 files, e.g. ant/image_7.png (a) and bee/same.png (b); all are kept, and "
        "--conflicts=drop leaves them out",
        "1 images have copies in another split, e.g. ant/image_7.png; the existing splits were kept",
        "2 classes have no image in a split: 'a' has no image in split 'test' (1 in total); 'b' has no image in split "
        "'train' (1 in total)",
    )
    dealt = convert(a_config(bad, tmp_path / "data", table=tmp_path / "some.csv", name="dealt"))
    assert not any("copies" in warning for warning in dealt.warnings)
