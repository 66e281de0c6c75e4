"""A conversion is a pure function of folder and options: any workers, any stops, the same bytes."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tfrecords.convert import ConvertConfig, ConvertProgress, ConvertSummary, convert, engine
from tfrecords.errors import ConversionError, DataError, Interrupted, UsageError
from tfrecords.format.layout import Layout, raw_offsets
from tfrecords.format.manifest import read_manifest
from tfrecords.format.verify import verify

ROOT = Path(__file__).parents[3]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
WAIT_S = 60  # far more than any of this takes: a hang, not a slow machine, fails a test

MakeFolder = Callable[..., Path]
Digests = Callable[[Path], dict[str, str]]


def a_config(image_dir: Path, data_dir: Path, **values: Any) -> ConvertConfig:
    return ConvertConfig(**{"image_dir": image_dir, "data_dir": data_dir, "image_size": 8, "num_workers": 1, **values})


@pytest.fixture(autouse=True)
def _several_shards(small_shards: None) -> None:
    """Has 40 photos in 9 shards."""


@pytest.fixture
def expected(photos: Path, tmp_path: Path, small_shards: None, digests_of: Digests) -> dict[str, str]:
    """The files of a data set that was converted in one go."""
    return digests_of(convert(a_config(photos, tmp_path / "expected")).dataset_dir)


def unfinished(data_dir: Path) -> Path:
    return data_dir / "zoo" / "1.0.0.incomplete"


def num_records(data_dir: Path) -> int:
    """Returns how many records the finished shards of an unfinished conversion to 8 px have."""
    return sum(path.stat().st_size for path in unfinished(data_dir).iterdir()) // raw_offsets(8).record_bytes


def temporaries(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if ".tmp-" in path.name]


# What a conversion does


def test_summary_and_progress(photos: Path, tmp_path: Path) -> None:
    seen: list[ConvertProgress] = []
    summary = convert(a_config(photos, tmp_path), progress=seen.append)
    assert summary.dataset_dir == tmp_path / "zoo" / "1.0.0"
    assert summary.num_examples == summary.num_converted == 40
    assert summary.splits == {"train": 31, "test": 9}  # 17 + 14 of 22 and 18 photos
    assert (summary.num_refused, summary.reasons, summary.warnings) == (0, {}, ())
    assert seen[0] == ConvertProgress(0, 40, 0)
    assert seen[-1] == ConvertProgress(40, 40, 0)
    assert [progress.num_done for progress in seen] == sorted(progress.num_done for progress in seen)
    assert verify(summary.dataset_dir).ok


def test_folder_holds_what_the_design_says_and_nothing_else(photos: Path, tmp_path: Path) -> None:
    summary = convert(a_config(photos, tmp_path))
    names = {path.name for path in summary.dataset_dir.iterdir()}
    shards = {f"zoo-train.tfrecord-{i:05d}-of-00007" for i in range(7)}
    shards |= {f"zoo-test.tfrecord-{i:05d}-of-00002" for i in range(2)}
    others = {"dataset_info.json", "features.json", "label.labels.txt", "layout.json", "manifest.parquet"}
    assert names == shards | others
    assert [path.name for path in (tmp_path / "zoo").iterdir()] == ["1.0.0"]


def test_manifest_says_where_each_file_went(photos: Path, tmp_path: Path) -> None:
    folder = convert(a_config(photos, tmp_path)).dataset_dir
    rows = read_manifest(folder)
    assert [row.id for row in rows] == list(range(40))
    assert [row.path for row in rows[:3]] == ["ant/image_0.jpg", "ant/image_1.png", "ant/image_2.jpg"]
    assert {(row.width, row.height, row.status, row.reason) for row in rows} == {(24, 20, "ok", "")}
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
    photos: Path, tmp_path: Path, encoding: str, digests_of: Digests
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


def test_refused_files_are_listed_and_the_rest_converts(photos: Path, tmp_path: Path) -> None:
    spoiled = Path(shutil.copytree(photos, tmp_path / "zoo"))
    jpeg = (photos / "ant" / "image_0.jpg").read_bytes()
    (spoiled / "ant" / "half.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (spoiled / "ant" / "text.jpg").write_bytes(b"a text")
    (spoiled / "bee" / "nothing.png").write_bytes(b"")
    (spoiled / "bee" / "notes.txt").write_bytes(b"a text")
    (spoiled / "bee" / "gone.jpg").symlink_to("nowhere")
    (spoiled / "README.md").write_bytes(b"a text")
    seen: list[ConvertProgress] = []
    summary = convert(a_config(spoiled, tmp_path / "data"), progress=seen.append)
    assert summary.num_examples == 40
    assert summary.num_refused == 6
    assert summary.reasons == {
        "empty": 1,
        "no_class_folder": 1,
        "not_an_image": 1,
        "truncated": 1,
        "unknown_suffix": 1,
        "unreadable": 1,
    }
    assert seen[-1] == ConvertProgress(43, 43, 3)
    lines = (summary.dataset_dir / "quarantine.jsonl").read_text().splitlines()
    reasons = {entry["path"]: entry["reason"] for entry in map(json.loads, lines)}
    assert reasons == {
        "ant/half.jpg": "truncated",
        "ant/text.jpg": "not_an_image",
        "bee/nothing.png": "empty",
        "bee/notes.txt": "unknown_suffix",
        "bee/gone.jpg": "unreadable",
        "README.md": "no_class_folder",
    }
    assert all(json.loads(line)["detail"] for line in lines)
    refused = [row for row in read_manifest(summary.dataset_dir) if row.status == "refused"]
    assert {row.path: row.reason for row in refused} == reasons
    assert {(row.split, row.shard, row.position) for row in refused} == {("", -1, -1)}
    assert verify(summary.dataset_dir).ok
    again = convert(a_config(spoiled, tmp_path / "data"))
    assert (again.num_refused, again.reasons) == (6, summary.reasons)


def test_a_folder_with_one_image(tmp_path: Path, make_folder: MakeFolder) -> None:
    photos = make_folder(tmp_path / "zoo", {"ant": 1})
    summary = convert(a_config(photos, tmp_path / "data", num_workers=3))
    assert (summary.num_examples, summary.splits) == (1, {"train": 1})
    assert summary.warnings == ("class 'ant' has no photo in split 'test' (1 in all)",)
    assert verify(summary.dataset_dir).ok


def test_a_folder_without_one(tmp_path: Path) -> None:
    (tmp_path / "zoo" / "ant").mkdir(parents=True)
    with pytest.raises(UsageError, match="has no image file"):
        convert(a_config(tmp_path / "zoo", tmp_path / "data"))
    assert not (tmp_path / "data").exists()


def test_copies_go_to_one_split(tmp_path: Path, make_folder: MakeFolder) -> None:
    photos = make_folder(tmp_path / "zoo", {"ant": 10, "bee": 10})
    for path in sorted(photos.rglob("*.*")):
        shutil.copy(path, path.with_stem(f"copy_of_{path.stem}"))
    rows = read_manifest(convert(a_config(photos, tmp_path, splits="train=0.5,test=0.5")).dataset_dir)
    splits: dict[str, set[str]] = {}
    for row in rows:
        splits.setdefault(row.sha256, set()).add(row.split)
    assert len(rows) == 40
    assert len(splits) == 20
    assert all(len(each) == 1 for each in splits.values())
    assert set.union(*splits.values()) == {"train", "test"}


@pytest.mark.parametrize("num_workers", [1, 3])
def test_names_that_are_no_utf8(tmp_path: Path, make_folder: MakeFolder, num_workers: int) -> None:
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

CHANGED = {
    "image_dir": None,  # see the test
    "data_dir": None,
    "name": "park",
    "categories": ("bee", "ant"),
    "image_size": 9,
    "resize": "crop",
    "encoding": "png",
    "jpeg_quality": 50,
    "splits": "train=0.5,test=0.5",
    "seed": 1,
    "num_workers": 3,
}


def test_every_option_is_tested() -> None:
    assert set(CHANGED) == {field.name for field in dataclasses.fields(ConvertConfig)}


@pytest.mark.parametrize("option", [name for name in CHANGED if name not in ("image_dir", "data_dir", "num_workers")])
def test_every_option_changes_the_bytes(photos: Path, tmp_path: Path, option: str, digests_of: Digests) -> None:
    base = {"encoding": "jpeg"} if option == "jpeg_quality" else {}
    folders = [
        convert(a_config(photos, tmp_path / "a", **base)).dataset_dir,
        convert(a_config(photos, tmp_path / "b", **{**base, option: CHANGED[option]})).dataset_dir,
    ]
    before, after = ({n: d for n, d in digests_of(folder).items() if ".tfrecord-" in n} for folder in folders)
    assert before != after
    differing = {field for field in ("name", "splits") if field == option}
    assert (before.keys() != after.keys()) == bool(differing or option == "encoding")


def test_image_dir_is_what_is_read(photos: Path, tmp_path: Path, make_folder: MakeFolder) -> None:
    fewer = make_folder(tmp_path / "zoo", {"ant": 3})
    assert convert(a_config(photos, tmp_path / "a")).num_examples == 40
    assert convert(a_config(fewer, tmp_path / "b")).num_examples == 3


def test_data_dir_is_where_it_goes(photos: Path, tmp_path: Path) -> None:
    for place in ("a", "b/deep"):
        assert convert(a_config(photos, tmp_path / place)).dataset_dir == tmp_path / place / "zoo" / "1.0.0"


@pytest.mark.parametrize(("num_workers", "expected_workers"), [(0, 5), (1, 1), (3, 3)])
def test_num_workers_is_how_many_there_are(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_workers: int, expected_workers: int
) -> None:
    seen: list[int] = []
    run_pool = engine.run_pool

    def spy(tasks: Any, num_workers: int, *callbacks: Any) -> None:
        seen.append(num_workers)
        run_pool(tasks, 1, *callbacks)

    monkeypatch.setattr(engine, "run_pool", spy)
    monkeypatch.setattr(engine, "num_cores", lambda: 5)
    convert(a_config(photos, tmp_path, num_workers=num_workers))
    assert seen == [expected_workers]


# What is there already


def test_a_second_call_converts_nothing(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digests_of: Digests
) -> None:
    first = convert(a_config(photos, tmp_path))
    before = digests_of(tmp_path)
    monkeypatch.setattr(engine, "run_pool", lambda *_: pytest.fail("converted again"))
    second = convert(a_config(photos, tmp_path, num_workers=3))
    assert second.num_converted == 0
    assert second.images_per_s == 0
    kept = ("dataset_dir", "num_examples", "splits", "num_refused", "reasons", "warnings")
    assert [getattr(second, name) for name in kept] == [getattr(first, name) for name in kept]
    assert digests_of(tmp_path) == before


def test_a_moved_image_folder_is_the_same_source(photos: Path, tmp_path: Path) -> None:
    convert(a_config(photos, tmp_path))
    moved = Path(shutil.copytree(photos, tmp_path / "elsewhere" / "zoo"))
    assert convert(a_config(moved, tmp_path)).num_converted == 0


@pytest.mark.parametrize(
    ("option", "there"),
    [
        ("categories", "[]"),
        ("image_size", "8"),
        ("resize", "stretch"),
        ("encoding", "raw"),
        ("splits", "train=0.75,test=0.25"),
        ("seed", "0"),
    ],
)
@pytest.mark.parametrize("finished", [True, False])
def test_another_config_is_refused_by_name(
    photos: Path, tmp_path: Path, option: str, there: str, finished: bool, digests_of: Digests
) -> None:
    _begin(photos, tmp_path, finished)
    before = digests_of(tmp_path)
    with pytest.raises(UsageError) as caught:
        convert(a_config(photos, tmp_path, **{option: CHANGED[option]}))
    now = CHANGED[option]
    now = list(now) if isinstance(now, tuple) else now
    folder = tmp_path / "zoo" / ("1.0.0" if finished else "1.0.0.incomplete")
    assert str(caught.value).startswith(f"{folder} was made otherwise: --{option}={there} there, {now} now. Choose")
    assert digests_of(tmp_path) == before


@pytest.mark.parametrize("finished", [True, False])
def test_a_changed_source_is_refused(photos: Path, tmp_path: Path, finished: bool) -> None:
    mine = Path(shutil.copytree(photos, tmp_path / "zoo"))
    _begin(mine, tmp_path, finished)
    with open(mine / "ant" / "image_0.jpg", "ab") as file:
        file.write(b"more")
    with pytest.raises(UsageError, match=r"the files of .*zoo have changed since"):
        convert(a_config(mine, tmp_path))
    (mine / "ant" / "image_0.jpg").unlink()
    with pytest.raises(UsageError, match="have changed since"):
        convert(a_config(mine, tmp_path))


def _begin(photos: Path, data_dir: Path, finished: bool) -> None:
    """Converts, or gives up in the third shard."""
    if finished:
        convert(a_config(photos, data_dir))
        return
    with pytest.raises(Interrupted):
        convert(a_config(photos, data_dir), progress=_interrupt_at(10))
    assert len(list(unfinished(data_dir).iterdir())) == 2


def _interrupt_at(num_done: int) -> Callable[[ConvertProgress], None]:
    def progress(progress: ConvertProgress) -> None:
        if progress.num_done >= num_done:
            raise KeyboardInterrupt

    return progress


def test_removing_the_folder_that_the_message_names_is_enough(
    photos: Path, tmp_path: Path, digests_of: Digests
) -> None:
    """Whichever of the two folders is removed, what the other one has of the old conversion is not mixed in."""
    other = {"seed": 3, "splits": "train=0.6,test=0.4"}
    expected = digests_of(convert(a_config(photos, tmp_path / "expected", **other)).dataset_dir)
    for number, folder in enumerate(("1.0.0.incomplete", ".1.0.0.work")):
        data_dir = tmp_path / str(number)
        _begin(photos, data_dir, finished=False)
        shutil.rmtree(data_dir / "zoo" / folder)
        summary = convert(a_config(photos, data_dir, **other))
        assert summary.num_converted == 40
        assert digests_of(summary.dataset_dir) == expected


def test_a_folder_of_someone_else_is_left_alone(photos: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "zoo" / "1.0.0"
    theirs.mkdir(parents=True)
    (theirs / "zoo-train.tfrecord-00000-of-00001").write_bytes(b"")
    with pytest.raises(DataError, match=r"layout\.json is missing"):
        convert(a_config(photos, tmp_path))
    assert [path.name for path in theirs.iterdir()] == ["zoo-train.tfrecord-00000-of-00001"]


def test_a_target_that_cannot_be_written(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConversionError, match=r"cannot be .*: Not a directory\..* another --data_dir"):
        convert(a_config(photos, tmp_path / "file" / "data"))


@pytest.mark.parametrize("name", ["write_manifest", "write_metadata", "sync_dir", "write_quarantine"])
def test_a_full_disk_at_the_end_is_an_error_and_the_next_call_goes_on(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, digests_of: Digests, expected: Any
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(engine, name, fail)
        with pytest.raises(ConversionError, match="No space left on device"):
            convert(a_config(photos, tmp_path))
    summary = convert(a_config(photos, tmp_path))
    assert summary.num_converted == 0
    assert digests_of(summary.dataset_dir) == expected


@pytest.mark.parametrize("name", ["find_copies", "write_manifest", "read_receipt"])
def test_ctrl_c_is_interrupted_wherever_it_comes(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, digests_of: Digests, expected: Any
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(engine, name, interrupt)
        with pytest.raises(Interrupted, match="the same command goes on"):
            convert(a_config(photos, tmp_path))
    assert digests_of(convert(a_config(photos, tmp_path)).dataset_dir) == expected


# Stopped and killed


@pytest.mark.parametrize("num_done", [1, 4, 5, 17, 39])
def test_goes_on_where_it_was_interrupted(
    photos: Path, tmp_path: Path, num_done: int, digests_of: Digests, expected: dict[str, str]
) -> None:
    with pytest.raises(Interrupted, match=r"interrupted with \d of 9 shards finished; the same command goes on"):
        convert(a_config(photos, tmp_path), progress=_interrupt_at(num_done))
    assert not (tmp_path / "zoo" / "1.0.0").exists()
    assert temporaries(tmp_path) == []
    num_there = num_records(tmp_path)
    assert num_there <= num_done
    seen: list[ConvertProgress] = []
    summary = convert(a_config(photos, tmp_path), progress=seen.append)
    assert seen[0] == ConvertProgress(num_there, 40, 0)
    assert summary.num_converted == 40 - num_there
    assert summary.num_examples == 40
    assert digests_of(summary.dataset_dir) == expected


def test_a_shard_that_was_spoiled_in_between_is_written_again(
    photos: Path, tmp_path: Path, digests_of: Digests, expected: dict[str, str]
) -> None:
    _begin(photos, tmp_path, finished=False)
    first, second = sorted(unfinished(tmp_path).iterdir())
    first.unlink()
    second.write_bytes(second.read_bytes()[:100])
    (unfinished(tmp_path) / f".{first.name}.tmp-123").write_bytes(b"left by a killed worker")
    assert convert(a_config(photos, tmp_path)).num_converted == 40
    assert digests_of(tmp_path / "zoo" / "1.0.0") == expected


CHILD = textwrap.dedent(
    """
    import sys, time
    from pathlib import Path
    from tfrecords.convert import ConvertConfig, convert, plan
    from tfrecords.errors import SimimgError

    def progress(progress):
        if progress.num_done >= stop_at:
            print("here", flush=True)
            time.sleep(600)

    if __name__ == "__main__":
        plan.MIN_EXAMPLES_A_SHARD = 4
        stop_at, num_workers = int(sys.argv[3]), int(sys.argv[4])
        config = ConvertConfig(image_dir=Path(sys.argv[1]), data_dir=Path(sys.argv[2]), image_size=8,
                               num_workers=num_workers)
        try:
            convert(config, progress=progress)
            print("done", flush=True)
        except SimimgError as error:
            print(type(error).__name__, error.exit_code, flush=True)
    """
)


class Child:
    """A process that converts and stands still, in its own process group, when `stop_at` files are done."""

    def __init__(self, photos: Path, data_dir: Path, *, stop_at: int, num_workers: int) -> None:
        script = data_dir.parent / "child.py"
        script.write_text(CHILD)
        self.errors = data_dir.parent / "errors.txt"
        arguments = [sys.executable, str(script), str(photos), str(data_dir), str(stop_at), str(num_workers)]
        with open(self.errors, "w") as errors:
            self.process = subprocess.Popen(
                arguments,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
                env=ENVIRONMENT,
            )

    def line(self) -> str:
        """Returns the next line that it prints."""
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], WAIT_S)
        assert ready, "the child hangs"
        return self.process.stdout.readline().strip()

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to the whole group, as a terminal does."""
        os.killpg(self.process.pid, number)

    def living(self) -> set[int]:
        """Returns the processes of the group that run (and are not just waiting to be reaped)."""
        found = set()
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):  # it may end just now
                state, _, group = stat.read_text().rpartition(")")[2].split()[:3]
                if int(group) == self.process.pid and state != "Z":
                    found.add(int(stat.parent.name))
        return found

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.signal(signal.SIGKILL)
        self.process.wait(WAIT_S)
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.mark.parametrize("num_workers", [1, 3])
def test_killed_in_mid_run_and_given_again(
    photos: Path, tmp_path: Path, num_workers: int, digests_of: Digests, expected: dict[str, str]
) -> None:
    """kill -9 of the converter and its workers, three times on the way, each time a bit further."""
    pick = random.Random(num_workers)
    for stop_at in (1, pick.randint(2, 15), pick.randint(16, 30)):
        with Child(photos, tmp_path / "data", stop_at=stop_at, num_workers=num_workers) as child:
            assert child.line() == "here"
            child.signal(signal.SIGKILL)
        assert child.process.returncode == -signal.SIGKILL
        assert not (tmp_path / "data" / "zoo" / "1.0.0").exists()
        assert unfinished(tmp_path / "data").is_dir()
    summary = convert(a_config(photos, tmp_path / "data"))
    assert digests_of(summary.dataset_dir) == expected
    assert [path.name for path in (tmp_path / "data" / "zoo").iterdir()] == ["1.0.0"]


def test_workers_end_when_their_parent_is_killed(photos: Path, tmp_path: Path) -> None:
    with Child(photos, tmp_path / "data", stop_at=1, num_workers=3) as child:
        assert child.line() == "here"
        assert len(child.living()) >= 4
        os.kill(child.process.pid, signal.SIGKILL)
        deadline = time.monotonic() + WAIT_S
        while child.living() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert child.living() == set()


@pytest.mark.parametrize("num_workers", [1, 3])
def test_ctrl_c_ends_cleanly_and_the_next_call_goes_on(
    photos: Path, tmp_path: Path, num_workers: int, digests_of: Digests, expected: dict[str, str]
) -> None:
    with Child(photos, tmp_path / "data", stop_at=10, num_workers=num_workers) as child:
        assert child.line() == "here"
        child.signal(signal.SIGINT)
        assert child.line() == "Interrupted 130"
        assert child.process.wait(WAIT_S) == 0
    assert child.errors.read_text() == ""  # no traceback of a worker
    assert not (tmp_path / "data" / "zoo" / "1.0.0").exists()
    assert temporaries(tmp_path / "data") == []
    num_there = num_records(tmp_path / "data")
    assert num_there > 0
    summary = convert(a_config(photos, tmp_path / "data"))
    assert summary.num_converted == 40 - num_there
    assert digests_of(summary.dataset_dir) == expected


def test_a_second_converter_is_refused_while_the_first_is_at_it(
    photos: Path, tmp_path: Path, digests_of: Digests, expected: dict[str, str]
) -> None:
    with Child(photos, tmp_path / "data", stop_at=10, num_workers=1) as child:
        assert child.line() == "here"
        before = digests_of(tmp_path / "data")
        with pytest.raises(ConversionError, match="another conversion is writing it"):
            convert(a_config(photos, tmp_path / "data"))
        assert digests_of(tmp_path / "data") == before
    summary = convert(a_config(photos, tmp_path / "data"))  # the lock went with the process that was killed
    assert digests_of(summary.dataset_dir) == expected


def test_a_converter_that_just_missed_the_end_of_another_is_refused(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digests_of: Digests
) -> None:
    """It looked before the other one finished, and got the lock after."""
    flock = engine.fcntl.flock
    before: list[dict[str, str]] = []

    def late(file: Any, operation: int) -> None:
        monkeypatch.setattr(engine.fcntl, "flock", flock)
        convert(a_config(photos, tmp_path))
        before.append(digests_of(tmp_path / "zoo" / "1.0.0"))
        flock(file, operation)

    monkeypatch.setattr(engine.fcntl, "flock", late)
    with pytest.raises(ConversionError, match="another conversion has just written it"):
        convert(a_config(photos, tmp_path))
    assert digests_of(tmp_path / "zoo" / "1.0.0") == before[0]
    assert convert(a_config(photos, tmp_path)).num_converted == 0


CRASHES = textwrap.dedent(
    """
    # Converts in forked children that kill themselves at the first, second, third ... step that touches the disk;
    # after each a second child finishes. Prints a line a step: what the step was, and a digest of the data set.
    import hashlib, os, shutil, signal, sys
    from pathlib import Path
    from tfrecords.convert import ConvertConfig, convert, plan
    import pyarrow.parquet  # once, before the forks

    photos, data_dir = Path(sys.argv[1]), Path(sys.argv[2])
    plan.MIN_EXAMPLES_A_SHARD = 4
    config = ConvertConfig(image_dir=photos, data_dir=data_dir, image_size=8, num_workers=1, encoding="png")

    def killing(function, name, when):
        def wrapped(*arguments, **options):
            global left
            result = function(*arguments, **options) if when == "after" else None
            left -= 1
            if left == 0:
                os.write(1, f"{when} {name} ".encode())
                os.kill(os.getpid(), signal.SIGKILL)
            return result if when == "after" else function(*arguments, **options)
        return wrapped

    def child(fatal_step):
        global left
        pid = os.fork()
        if pid == 0:
            left = fatal_step
            if fatal_step:
                steps = {"fsync": os, "replace": os, "rename": Path, "mkdir": Path, "rmtree": shutil}
                for name, owner in steps.items():
                    wrapped = killing(getattr(owner, name), name, "before")
                    setattr(owner, name, killing(wrapped, name, "after"))
            convert(config)
            os._exit(0)
        return os.waitpid(pid, 0)[1]

    step = 1
    while True:
        killed = child(step) == signal.SIGKILL
        if not killed:
            break
        assert child(0) == 0, "the second call failed"
        digest = hashlib.sha256()
        for path in sorted((data_dir / "zoo" / "1.0.0").iterdir()):
            digest.update(path.name.encode() + path.read_bytes())
        print(digest.hexdigest(), flush=True)
        shutil.rmtree(data_dir)
        step += 1
    """
)


def test_killed_at_any_step_that_touches_the_disk(tmp_path: Path, make_folder: MakeFolder) -> None:
    """Before and after each fsync, replace, rename, mkdir and rmtree; two shards with a sidecar each."""
    photos = make_folder(tmp_path / "zoo", {"ant": 6})
    whole = convert(a_config(photos, tmp_path / "expected", encoding="png")).dataset_dir
    script = tmp_path / "crashes.py"
    script.write_text(CRASHES)
    done = subprocess.run(
        [sys.executable, str(script), str(photos), str(tmp_path / "data")],
        capture_output=True,
        text=True,
        timeout=5 * WAIT_S,
        env=ENVIRONMENT,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) > 60
    names = ("fsync", "replace", "rename", "mkdir", "rmtree")
    steps = {tuple(line.split()[:2]) for line in lines}
    assert steps == {(when, name) for when in ("before", "after") for name in names}
    digest = _digest(whole)
    assert [line for line in lines if line.split()[-1] != digest] == []


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def test_summary_is_a_plain_value(photos: Path, tmp_path: Path) -> None:
    summary = convert(a_config(photos, tmp_path))
    assert isinstance(summary, ConvertSummary)
    assert json.loads(json.dumps(dataclasses.asdict(summary), default=str))["num_examples"] == 40


def test_a_folder_in_which_nothing_can_be_decoded(tmp_path: Path) -> None:
    (tmp_path / "photos" / "a").mkdir(parents=True)
    for number in range(3):
        (tmp_path / "photos" / "a" / f"{number}.jpg").write_text(f"no picture {number}")
    config = ConvertConfig(image_dir=tmp_path / "photos", data_dir=tmp_path / "data", num_workers=1)
    with pytest.raises(ConversionError, match=r"none of its 3 image files can be decoded.*a/0\.jpg: not_an_image"):
        convert(config)
    assert not config.resolved().dataset_dir.exists()


def test_a_conversion_begun_with_another_decoder_is_not_gone_on_with(
    tmp_path: Path, make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ConvertConfig(
        image_dir=make_folder(tmp_path / "photos", {"a": 4}), data_dir=tmp_path / "data", num_workers=1
    )
    with monkeypatch.context() as patch:
        patch.setattr(engine, "_finish", lambda *_: (_ for _ in ()).throw(ConversionError("stopped for the test")))
        with pytest.raises(ConversionError, match="stopped for the test"):
            convert(config)
    with monkeypatch.context() as patch:
        patch.setattr(engine.PIL, "__version__", "99.0")
        with pytest.raises(UsageError, match=r"was begun with .*; this is .*99\.0"):
            convert(config)
    assert convert(config).num_examples == 4


def test_what_a_call_killed_at_its_very_end_left_is_removed(tmp_path: Path, make_folder: MakeFolder) -> None:
    config = ConvertConfig(image_dir=make_folder(tmp_path / "photos", {"a": 4}), data_dir=tmp_path / "data")
    final = convert(config).dataset_dir
    work = final.with_name(f".{final.name}.work")
    (work / "receipts").mkdir(parents=True)
    assert convert(config).num_converted == 0
    assert not work.exists()


def test_fractions_may_be_spelled_otherwise(tmp_path: Path, make_folder: MakeFolder) -> None:
    photos = make_folder(tmp_path / "photos", {"a": 8})
    convert(ConvertConfig(image_dir=photos, data_dir=tmp_path / "data", splits="train=0.75,test=0.25"))
    again = ConvertConfig(image_dir=photos, data_dir=tmp_path / "data", splits="train=.75,test=.250")
    assert convert(again).num_converted == 0
