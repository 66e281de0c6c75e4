"""A conversion is a pure function of source and options: any workers, the same bytes; each option does what it says."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tfrecords.base_errors import ConversionError, Interrupted, UsageError
from tfrecords.convert import engine
from tfrecords.convert.engine import ConvertProgress, convert
from tfrecords.convert.output.summary import ConvertSummary
from tfrecords.convert.plan.convert_config import ConvertConfig
from tfrecords.convert.workers import pool, runner
from tfrecords.format.dataset_verification import verify
from tfrecords.format.layout import Layout
from tfrecords.format.manifest import read_manifest

MakeFolder = Callable[..., Path]
Digests = Callable[[Path], dict[str, str]]
AConfig = Callable[..., ConvertConfig]

pytestmark = pytest.mark.usefixtures("small_shards")  # 40 photos in 9 shards


# What a conversion does


def test_summary_and_progress(photos: Path, tmp_path: Path, a_config: AConfig) -> None:
    seen: list[ConvertProgress] = []
    summary = convert(a_config(photos, tmp_path), progress=seen.append)
    assert summary.dataset_dir == tmp_path / "zoo" / "1.0.0"
    assert summary.num_examples == summary.num_converted == 40
    assert summary.splits == {"train": 30, "test": 10}  # 16 + 14 of 22 and 18 photos
    assert (summary.num_refused, summary.reasons, summary.warnings) == (0, {}, ())
    assert seen[0] == ConvertProgress(0, 40, 0)
    assert seen[-1] == ConvertProgress(40, 40, 0)
    assert [progress.num_done for progress in seen] == sorted(progress.num_done for progress in seen)
    assert verify(summary.dataset_dir).ok


@pytest.mark.parametrize(
    ("background", "color", "told", "other"), [("white", 255, "white", "black"), ("#101010", 16, "#101010", "white")]
)
def test_transparent_images_that_become_plain_are_told(
    photos: Path, tmp_path: Path, a_config: AConfig, background: str, color: int, told: str, other: str
) -> None:
    """Also after an interruption, and only those; their pixels are what the background says."""
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    for number in range(3):
        image = Image.new("RGBA", (20, 20))
        image.paste((color, color, color, 255), (4 * number, 2, 12 + number, 18))
        image.save(folder / "ant" / f"logo{number}.png")
    Image.new("RGBA", (20, 20)).save(folder / "ant" / "nothing.png")
    Image.new("RGB", (20, 20), "white").save(folder / "ant" / "page.png")
    config = a_config(folder, tmp_path / "data", background=background)
    with pytest.raises(Interrupted):
        convert(config, progress=interrupt_after_a_half)
    assert convert(config).warnings == (
        f"3 transparent images have become plain {told}, e.g. ant/logo0.png; --background={other} keeps them visible",
    )


@pytest.mark.parametrize("num_workers", [1, 2])
def test_images_that_use_little_of_their_range_are_told(
    photos: Path, tmp_path: Path, a_config: AConfig, num_workers: int
) -> None:
    """Also after an interruption; and not if a range was given that they fill."""
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    for number in range(2):
        pixels = (np.arange(400, dtype=np.uint16) * 10 + number).reshape(20, 20)
        Image.fromarray(pixels).save(folder / "ant" / f"xray{number}.png")
    Image.fromarray(pixels * 10).save(folder / "ant" / "bright.png")
    config = a_config(folder, tmp_path / "data", num_workers=num_workers)
    if num_workers == 1:
        with pytest.raises(Interrupted):
            convert(config, progress=interrupt_after_a_half)
    assert convert(config).warnings == (
        "2 images use less than 10% of the range of their samples and are dark or flat, e.g. ant/xray0.png; "
        "--range=min-max stretches each, --range=LO,HI all alike",
    )
    assert convert(a_config(folder, tmp_path / "data", name="b", range="0,4095")).warnings == ()


@pytest.mark.parametrize("background", ["auto", "checker"])
def test_no_transparent_image_becomes_plain(mine: Path, tmp_path: Path, a_config: AConfig, background: str) -> None:
    for number in range(3):
        image = Image.new("RGBA", (20, 20))
        image.paste((255, 255, 255, 255), (4 * number, 2, 12 + number, 18))
        image.save(mine / "ant" / f"logo{number}.png")
    summary = convert(a_config(mine, tmp_path / "data", background=background))
    assert summary.warnings == ()
    manifest = read_manifest(summary.dataset_dir)
    logos = [row for row, one in enumerate(manifest) if "logo" in one.path]
    assert len({manifest.pixels_sha256[row].tobytes() for row in logos}) == 3
    assert Layout.load(summary.dataset_dir).config["background"] == background


def interrupt_after_a_half(progress: ConvertProgress) -> None:
    if progress.num_done >= progress.num_total // 2:
        raise KeyboardInterrupt


def test_summary_is_a_plain_value(photos: Path, tmp_path: Path, a_config: AConfig) -> None:
    summary = convert(a_config(photos, tmp_path))
    assert isinstance(summary, ConvertSummary)
    assert json.loads(json.dumps(dataclasses.asdict(summary), default=str))["num_examples"] == 40


def test_folder_holds_what_the_design_says_and_nothing_else(photos: Path, tmp_path: Path, a_config: AConfig) -> None:
    summary = convert(a_config(photos, tmp_path))
    names = {path.name for path in summary.dataset_dir.iterdir()}
    shards = {f"zoo-train.tfrecord-{i:05d}-of-00007" for i in range(7)}
    shards |= {f"zoo-test.tfrecord-{i:05d}-of-00002" for i in range(2)}
    others = {"dataset_info.json", "features.json", "label.labels.txt", "layout.json", "manifest.parquet"}
    assert names == shards | others
    assert set(Layout.load(summary.dataset_dir).files) == others - {"layout.json"}
    assert [path.name for path in (tmp_path / "zoo").iterdir()] == ["1.0.0"]
    assert {path.stat().st_nlink for path in summary.dataset_dir.iterdir()} == {1}  # none is also somewhere else


def test_manifest_says_where_each_file_went(photos: Path, tmp_path: Path, a_config: AConfig) -> None:
    folder = convert(a_config(photos, tmp_path)).dataset_dir
    rows = list(read_manifest(folder))
    assert [row.id for row in rows] == list(range(40))
    assert [row.path for row in rows[:3]] == ["ant/image_0.jpg", "ant/image_1.png", "ant/image_2.jpg"]
    assert {(row.width, row.height, row.status, row.reason) for row in rows} == {(24, 20, "ok", "")}
    assert [row.copy_group for row in rows] == list(range(40))
    assert all(len({getattr(row, name) for row in rows}) == 40 for name in ("sha256", "pixels_sha256", "phash"))
    layout = Layout.load(folder)
    places = sorted((row.split, row.shard, row.position) for row in rows)
    assert places == sorted(
        (split, number, position)
        for split, shards in layout.splits.items()
        for number, shard in enumerate(shards)
        for position in range(shard.num_examples)
    )


@pytest.mark.parametrize("encoding", ["raw", "jpeg", "png"])
def test_one_worker_or_three_write_the_same_bytes(
    photos: Path, tmp_path: Path, encoding: str, digests_of: Digests, a_config: AConfig
) -> None:
    seen: list[ConvertProgress] = []
    folders = [
        convert(a_config(photos, tmp_path / str(n), num_workers=n, encoding=encoding), progress=seen.append).dataset_dir
        for n in (1, 3)
    ]
    found = [digests_of(folder) for folder in folders]
    assert found[0] == found[1]
    assert len(found[0]) == (14 if encoding == "raw" else 23)
    assert seen[-1] == ConvertProgress(40, 40, 0)


def test_a_folder_with_one_image(tmp_path: Path, make_folder: MakeFolder, a_config: AConfig) -> None:
    photos = make_folder(tmp_path / "zoo", {"ant": 1})
    summary = convert(a_config(photos, tmp_path / "data", num_workers=3))
    assert (summary.num_examples, summary.splits) == (1, {"train": 1})
    assert summary.warnings == ("class 'ant' has no image in split 'test' (1 in total)",)
    assert verify(summary.dataset_dir).ok


def test_a_folder_without_one(tmp_path: Path, a_config: AConfig) -> None:
    (tmp_path / "zoo" / "ant").mkdir(parents=True)
    with pytest.raises(UsageError, match="has no image file"):
        convert(a_config(tmp_path / "zoo", tmp_path / "data"))
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("num_workers", [1, 3])
def test_names_that_are_no_utf8(tmp_path: Path, make_folder: MakeFolder, num_workers: int, a_config: AConfig) -> None:
    photos = os.fsencode(make_folder(tmp_path / "zoo", {"ant": 8, "bee": 1}))
    os.rename(photos + b"/bee", photos + b"/b\xe9\xff")
    os.rename(photos + b"/ant/image_0.jpg", photos + b"/ant/\xff.jpg")
    categories = ("ant", os.fsdecode(b"b\xe9\xff"))
    config = a_config(tmp_path / "zoo", tmp_path / "data", categories=categories, num_workers=num_workers)
    summary = convert(config)
    assert summary.num_examples == 9
    assert Layout.load(summary.dataset_dir).class_names == ("ant", "b\\xe9\\xff")
    assert "ant/\\xff.jpg" in {row.path for row in read_manifest(summary.dataset_dir)}
    assert verify(summary.dataset_dir).ok
    assert convert(config).num_converted == 0


# Options

# Those that decide the bytes, each with another value than its default. The folder of `telling` tells each pair apart.
CHANGED: dict[str, Any] = {
    "name": "park",
    "categories": ("bee", "ant"),
    "image_size": 9,
    "resize": "crop",
    "decode": "exact",
    "truncated": "keep",
    "background": "#ff0000",
    "range": "0,1000",
    "max_pixels": 479,
    "channels": 1,
    "encoding": "png",
    "jpeg_quality": 50,
    "splits": "train=0.5,test=0.5",
    "copies": "ignore",
    "seed": 1,
    "include": ("**/[!g]*.*",),
    "exclude": ("copy_of_image_0.jpg",),
}
# Those that do not, and where it is tested what they do.
ELSEWHERE = {
    "format": "test_array_record.py",
    "image_dir": "test_image_dir_is_what_is_read",
    "table": "test_a_table_is_what_is_read",
    "data_dir": "test_data_dir_is_where_it_goes",
    "num_workers": "test_num_workers_is_how_many_there_are",
    "engine": "test_the_engine_is_what_runs_the_tasks",
    "beam_options": "test_the_engine_is_what_runs_the_tasks",
    "ray_address": "workers/test_ray_runner.py",
    "from_dataset": "sources/test_stored_dataset.py",
    "exclude_from": "sources/test_excluded_paths.py",
    "path_column": "sources/test_label_files.py",
    "label_column": "sources/test_label_files.py",
    "label_type": "sources/test_table_values.py",
    "features": "sources/test_table_values.py",
    "zip_encoding": "sources/test_name_encodings.py",
    "group_column": "test_split_options.py",
    "group_pattern": "test_split_options.py",
    "time_column": "test_split_options.py",
    "folds": "test_split_options.py",
    "conflicts": "test_split_options.py",
    "write_index": "test_opened_elsewhere.py",
    "links": "sources/test_linked_files.py",
    "append": "plan/test_previous_version.py",
    "only": "plan/test_previous_version.py",
    "max_refused": "output/test_summary.py",
}


def test_every_option_is_tested() -> None:
    assert {*CHANGED, *ELSEWHERE} == {field.name for field in dataclasses.fields(ConvertConfig)}
    for place in ELSEWHERE.values():
        assert place in globals() or (Path(__file__).parent / place).is_file(), place


@pytest.fixture
def telling(mine: Path, write_picture: Callable[..., None]) -> Path:
    """The photos; and a large JPEG, a truncated one, a transparent PNG, and a copy of every fifth photo."""
    write_picture(mine / "ant" / "large.jpg", 100, size=(240, 200))
    data = (mine / "ant" / "large.jpg").read_bytes()
    (mine / "ant" / "cut.jpg").write_bytes(data[: len(data) * 3 // 4])
    pixels = np.random.default_rng(0).integers(0, 256, (20, 24, 4), np.uint8)
    Image.fromarray(pixels, "RGBA").save(mine / "bee" / "glass.png")
    Image.fromarray(np.arange(480, dtype=np.uint16).reshape(20, 24)).save(mine / "bee" / "deep.png")
    for path in sorted(mine.rglob("image_*"))[::5]:
        shutil.copy(path, path.with_stem(f"copy_of_{path.stem}"))
    return mine


@pytest.mark.parametrize("option", CHANGED)
def test_every_option_changes_the_bytes(
    telling: Path, tmp_path: Path, option: str, digests_of: Digests, a_config: AConfig
) -> None:
    base = {"encoding": "jpeg"} if option == "jpeg_quality" else {}
    folders = [
        convert(a_config(telling, tmp_path / "a", **base)).dataset_dir,
        convert(a_config(telling, tmp_path / "b", **{**base, option: CHANGED[option]})).dataset_dir,
    ]
    before, after = ({n: d for n, d in digests_of(folder).items() if ".tfrecord-" in n} for folder in folders)
    assert before != after
    assert (before.keys() != after.keys()) == (option in ("name", "splits", "encoding"))


@pytest.mark.parametrize(("copies", "num_hashes"), [("near", 40), ("exact", 0), ("ignore", 0)])
def test_hashes_are_made_where_they_are_asked_for(
    photos: Path, tmp_path: Path, a_config: AConfig, copies: str, num_hashes: int
) -> None:
    manifest = read_manifest(convert(a_config(photos, tmp_path, copies=copies)).dataset_dir)
    assert np.count_nonzero(manifest.phash) == num_hashes


def test_image_dir_is_what_is_read(photos: Path, tmp_path: Path, make_folder: MakeFolder, a_config: AConfig) -> None:
    fewer = make_folder(tmp_path / "zoo", {"ant": 3})
    assert convert(a_config(photos, tmp_path / "a")).num_examples == 40
    assert convert(a_config(fewer, tmp_path / "b")).num_examples == 3


def test_a_table_is_what_is_read(photos: Path, tmp_path: Path, a_config: AConfig) -> None:
    table = tmp_path / "some.csv"
    table.write_text("path,label\nant/image_1.png,small\nbee/image_1.png,small\nbee/image_2.jpg,large\n")
    summary = convert(a_config(photos, tmp_path, table=str(table), name="some"))
    assert summary.num_examples == 3
    assert set(Layout.load(summary.dataset_dir).class_names) == {"small", "large"}


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_an_archive_of_the_folder_gives_the_same_shards(
    photos: Path, tmp_path: Path, a_config: AConfig, digests_of: Digests, expected: dict[str, str], kind: str
) -> None:
    archive = shutil.make_archive(str(tmp_path / "zoo"), kind, photos)
    rows = list(read_manifest(convert(a_config(photos, tmp_path / "folder")).dataset_dir))
    for num_workers in (1, 2):
        config = a_config(Path(archive), tmp_path / str(num_workers), num_workers=num_workers)
        summary = convert(config)
        assert summary.dataset_dir.parent.name == "zoo"
        found = digests_of(summary.dataset_dir)
        # Those three have the source's name, its digest, and the stamps of its files.
        differing = {name for name in found if found[name] != expected[name]}
        assert differing <= {"dataset_info.json", "layout.json", "manifest.parquet"}
        assert list(read_manifest(summary.dataset_dir)) == rows
        assert verify(summary.dataset_dir).ok
        assert convert(config).num_converted == 0


def test_data_dir_is_where_it_goes(photos: Path, tmp_path: Path, a_config: AConfig) -> None:
    for place in ("a", "b/deep"):
        assert convert(a_config(photos, tmp_path / place)).dataset_dir == tmp_path / place / "zoo" / "1.0.0"


def test_the_splits_of_a_table_are_kept(photos: Path, tmp_path: Path, a_config: AConfig) -> None:
    split_of = {f"ant/image_{number}{'.png' if number % 2 else '.jpg'}": "abc"[number % 3] for number in range(22)}
    rows = "".join(f"{path},ant,{split}\n" for path, split in split_of.items())
    (tmp_path / "some.csv").write_text("path,label,split\n" + rows)
    summary = convert(a_config(photos, tmp_path, table=tmp_path / "some.csv", splits="source"))
    assert {row.path: row.split for row in read_manifest(summary.dataset_dir)} == split_of
    assert summary.splits == {"a": 8, "b": 7, "c": 7}
    assert verify(summary.dataset_dir).ok
    dealt = convert(a_config(photos, tmp_path, table=tmp_path / "some.csv", name="dealt"))
    assert dealt.splits == {"train": 17, "test": 5}


@pytest.mark.parametrize(("num_workers", "expected_workers"), [(0, 5), (1, 1), (3, 3)])
def test_num_workers_is_how_many_there_are(
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    num_workers: int,
    expected_workers: int,
    a_config: AConfig,
) -> None:
    seen: list[int] = []

    class Spy(pool.Pool):
        def __init__(self, num_workers: int, name_of: Callable[[int], str]) -> None:
            seen.append(num_workers)
            super().__init__(1, name_of)

    monkeypatch.setattr(pool, "Pool", Spy)
    monkeypatch.setattr(runner, "num_cores", lambda: 5)
    convert(a_config(photos, tmp_path, num_workers=num_workers))
    assert seen == [expected_workers]


def test_the_engine_is_what_runs_the_tasks(
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    a_config: AConfig,
    digests_of: Digests,
    expected: dict[str, str],
) -> None:
    seen: list[str] = []
    here = pool.Pool(1, str)

    def stand_in(runner: Any, tasks: Any, on_done: Any, on_progress: Any) -> None:
        seen.append(runner._beam_options)
        here.run(tasks, on_done, on_progress)

    monkeypatch.setattr("tfrecords.convert.workers.beam_runner.BeamRunner.run", stand_in)
    monkeypatch.setattr(pool, "Pool", lambda *_: pytest.fail("ran here"))
    summary = convert(a_config(photos, tmp_path, engine="beam", beam_options="--a=b"))
    assert set(seen) == {"--a=b"}
    assert digests_of(summary.dataset_dir) == expected


def test_a_shard_that_is_not_there_though_its_worker_says_so(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, a_config: AConfig
) -> None:
    """As when a worker on another machine has a data folder of its own."""
    monkeypatch.setattr("tfrecords.convert.workers.beam_runner.BeamRunner.run", lambda *_: None)
    with pytest.raises(ConversionError, match=r"00000-of-00007 is not there .* see --data_dir under the same path"):
        convert(a_config(photos, tmp_path, engine="beam"))
    assert not (tmp_path / "zoo" / "1.0.0").exists()


# What goes wrong at the end


@pytest.mark.parametrize(
    "name", ["write_manifest", "write_metadata", "write_quarantine", "link_or_copy", "checksums", "Layout.save"]
)
def test_a_full_disk_at_the_end_is_an_error_and_the_next_call_goes_on(
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    digests_of: Digests,
    expected: dict[str, str],
    a_config: AConfig,
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device", str(tmp_path / "zoo" / "some_file"))

    with monkeypatch.context() as patch:
        patch.setattr(f"tfrecords.convert.output.publish.{name}", fail)
        with pytest.raises(ConversionError, match="some_file cannot be written: No space left on device.*Make room"):
            convert(a_config(photos, tmp_path))
    assert [path.name for path in (tmp_path / "zoo").iterdir()] == [".1.0.0.work"]
    summary = convert(a_config(photos, tmp_path))
    assert summary.num_converted == 0
    assert digests_of(summary.dataset_dir) == expected


@pytest.mark.parametrize(
    "name",
    [
        "plan.conversion_job.group_copies",
        "engine.open_source",
        "output.publish.write_manifest",
        "engine.read_receipt",
        "state.workdir.sync_file",
    ],
)
def test_ctrl_c_is_interrupted_wherever_it_comes(
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    digests_of: Digests,
    expected: dict[str, str],
    a_config: AConfig,
) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(f"tfrecords.convert.{name}", interrupt)
        with pytest.raises(Interrupted, match="the same command resumes"):
            convert(a_config(photos, tmp_path))
    assert digests_of(convert(a_config(photos, tmp_path)).dataset_dir) == expected


def test_splits_that_the_source_has_not_are_refused_before_anything_is_written(
    photos: Path, tmp_path: Path, a_config: AConfig
) -> None:
    with pytest.raises(UsageError, match=r"--splits=source: .*zoo has no splits of its own\. Give e\.g\."):
        convert(a_config(photos, tmp_path / "data", splits="source"))
    assert not (tmp_path / "data").exists()
    assert convert(a_config(photos, tmp_path / "data")).num_examples == 40


def test_a_conversion_begun_with_another_decoder_is_not_gone_on_with(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, a_config: AConfig
) -> None:
    def stop(*_: Any) -> None:
        raise ConversionError("stopped for the test")

    with monkeypatch.context() as patch:
        patch.setattr(engine, "publish", stop)
        with pytest.raises(ConversionError, match="stopped for the test"):
            convert(a_config(photos, tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(engine, "versions_of", lambda _: {"pillow": "99.0"})
        with pytest.raises(UsageError, match=r"was begun with .*; installed are .*99\.0"):
            convert(a_config(photos, tmp_path))
    assert convert(a_config(photos, tmp_path)).num_examples == 40
