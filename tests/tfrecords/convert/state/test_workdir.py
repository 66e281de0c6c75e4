"""The folder that a conversion works in: one converter at a time, what is finished is taken up, a name all at once."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import IO, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tfrecords.base_errors import ConversionError, UsageError
from tfrecords.convert.plan.convert_config import ConvertConfig
from tfrecords.convert.state import workdir as workdir_module
from tfrecords.convert.state.workdir import WorkDir, differing_options

CONFIG: dict[str, Any] = {"seed": 0, "image_size": 8, "categories": ["a"]}
VERSIONS = {"pillow": "12.0"}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["form", "pixels", "config", "versions"]) | st.text(max_size=3), inner)
    ),
    max_leaves=8,
)


@pytest.fixture
def target(tmp_path: Path) -> WorkDir:
    return WorkDir(tmp_path / "data" / "zoo" / "1.0.0")


def begin(target: WorkDir, config: dict[str, Any] = CONFIG, versions: dict[str, str] = VERSIONS) -> None:
    with target.locked():
        target.begin(config, versions)


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# The lock


def test_another_converter_waits_outside(target: WorkDir) -> None:
    with target.locked():
        for _ in range(2):  # it keeps its lock when another was sent away
            with (
                pytest.raises(ConversionError, match=r"1\.0\.0: another conversion is writing it .*\. Wait until"),
                target.locked(),
            ):
                pytest.fail("two at a time")
    with target.locked():
        pass


def test_the_lock_of_a_folder_that_was_removed_meanwhile_is_none(
    target: WorkDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another converter held it until a moment ago, and a third has made the folder anew."""

    flock = fcntl.flock
    made_anew = iter((False, True))

    def flock_too_late(file: IO[str], how: int) -> None:
        target.remove_work()
        if next(made_anew):
            target.work.mkdir()
            (target.work / "lock").touch()
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", flock_too_late)
    for _ in range(2):
        with pytest.raises(ConversionError, match="another conversion has just ended"), target.locked():
            pytest.fail("a lock that nobody sees")


def test_another_version_has_another_lock(target: WorkDir) -> None:
    with target.locked(), WorkDir(target.final.with_name("1.1.0")).locked():
        assert names(target.final.parent) == [".1.0.0.work", ".1.0.0.work/lock", ".1.1.0.work", ".1.1.0.work/lock"]


def test_the_lock_is_free_after_an_error(target: WorkDir) -> None:
    with pytest.raises(ZeroDivisionError), target.locked():
        raise ZeroDivisionError
    begin(target)


def test_the_lock_goes_with_its_process(target: WorkDir, environment: dict[str, str]) -> None:
    code = textwrap.dedent(
        f"""
        import time
        from pathlib import Path
        from tfrecords.convert.state.workdir import WorkDir
        with WorkDir(Path({str(target.final)!r})).locked():
            print("here", flush=True)
            time.sleep(600)
        """
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"here\n"
        with pytest.raises(ConversionError, match="another conversion is writing it"):
            begin(target)
        process.kill()
    begin(target)


def test_what_another_converter_has_just_finished_is_left_alone(target: WorkDir) -> None:
    begin(target)
    target.final.mkdir()
    (target.final / "layout.json").touch()
    with pytest.raises(ConversionError, match=r"has just written it\. Give the same command again\."):
        begin(target)
    assert names(target.final.parent) == ["1.0.0", "1.0.0/layout.json"]


# Beginning


def test_finished_shards_are_taken_up_and_halves_removed(target: WorkDir) -> None:
    begin(target)
    began_ns = target.began_ns()
    for folder in (target.shards, target.receipts, target.assembled):
        (folder / "shard").touch()
        (folder / ".shard.tmp-123-abcd").touch()
    (target.dataset / "old").mkdir()
    (target.dataset / "old" / "shard").touch()
    begin(target)
    assert names(target.work) == [
        "assembled",
        "assembled/shard",
        "dataset",
        "lock",
        "plan.json",
        "receipts",
        "receipts/shard",
        "shards",
        "shards/shard",
    ]
    assert target.began_ns() == began_ns


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"seed": 1},
            r"\.1\.0\.0\.work was begun with other options: --seed=0 there, 1 now\. Give those options again",
        ),
        ({"seed": 1, "categories": ["b"]}, r"--seed=0 there, 1 now; --categories=\['a'\] there, \['b'\] now\."),
        ({"decode": "fast"}, r"--decode=None there, fast now"),
    ],
)
def test_begun_with_other_options(target: WorkDir, changed: dict[str, Any], message: str) -> None:
    begin(target, {"image_size": 999})
    (target.shards / "shard").touch()  # in which no file could be stored, so nothing is lost
    begin(target)
    (target.shards / "shard").write_bytes(b"a record")
    before = names(target.work)
    with pytest.raises(UsageError, match=message):
        begin(target, {**CONFIG, **changed})
    assert names(target.work) == before
    begin(target)  # and those that it was begun with still go


def test_begun_with_another_decoder(target: WorkDir) -> None:
    begin(target)
    with pytest.raises(
        UsageError, match=r"begun with \{'pillow': '12\.0'\}; installed are \{'pillow': '12\.1'\}\. Install"
    ):
        begin(target, CONFIG, {"pillow": "12.1"})
    begin(target)


def test_begun_by_a_version_that_makes_other_pixels(target: WorkDir, monkeypatch: pytest.MonkeyPatch) -> None:
    begin(target)
    (target.shards / "shard").touch()
    with monkeypatch.context() as patch:
        patch.setattr(workdir_module, "PIXELS", workdir_module.PIXELS + 1)
        with pytest.raises(
            UsageError,
            match=r"another version of simimg, which makes other pixels \(number 2; this one is 3\)\. Install",
        ):
            begin(target)
    assert (target.shards / "shard").exists()
    begin(target)


def test_begun_by_a_version_with_another_form(target: WorkDir, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it has made may not be what its receipts say here."""
    begin(target)
    plan = json.loads((target.work / "plan.json").read_bytes())
    for form in (None, 0, "1"):
        (target.shards / "shard").touch()
        (target.work / "plan.json").write_text(json.dumps({**plan, "form": form}))
        begin(target)
        assert not list(target.shards.iterdir())
        assert json.loads((target.work / "plan.json").read_bytes()) == plan


@given(damage=JSON)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_plan_of_any_form_counts_as_not_there(target: WorkDir, damage: Any) -> None:
    begin(target)
    (target.work / "plan.json").write_text(json.dumps(damage))
    begin(target)


def test_options_are_the_same_when_they_were_read_back(target: WorkDir) -> None:
    """JSON has no tuples, and its own numbers."""
    config = ConvertConfig(image_dir="zoo", categories=("벌", "b"), splits="train=0.1,test=0.9", seed=2**70).resolved()
    for _ in range(2):
        begin(target, config.determining())


@pytest.mark.parametrize("damage", [b"", b"{", bytes(50), None])
def test_what_is_left_without_a_plan_is_removed(target: WorkDir, damage: bytes | None) -> None:
    """After a power failure: nobody knows with which options it was made."""
    begin(target)
    for folder in (target.shards, target.receipts, target.assembled):
        (folder / "left").write_bytes(b"by whom?")
    if damage is None:
        (target.work / "plan.json").unlink()
    else:
        (target.work / "plan.json").write_bytes(damage)
    begin(target)
    for folder in (target.shards, target.receipts, target.assembled):
        assert list(folder.iterdir()) == []
    begin(target)  # it is whole again
    (target.shards / "left").write_bytes(b"a record")
    with pytest.raises(UsageError, match="was begun with other options"):
        target.begin({"image_size": 999}, {})


# The end


def test_published_is_there_whole_and_nothing_else(target: WorkDir) -> None:
    with target.locked():
        target.begin(CONFIG, VERSIONS)
        (target.dataset / "layout.json").write_text("{}")
        identity = target.dataset.stat().st_ino
        assert not target.final.exists()
        target.publish()
    assert names(target.final.parent) == ["1.0.0", "1.0.0/layout.json"]
    assert target.final.stat().st_ino == identity  # a rename, and no copy that could be a half


def test_the_files_are_on_the_disk_before_the_name(target: WorkDir, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    rename = os.rename
    monkeypatch.setattr("tfrecords.convert.state.workdir.sync_file", lambda path: order.append(path.name))
    monkeypatch.setattr(os, "rename", lambda a, b: order.append("rename") or rename(a, b))  # type: ignore[func-returns-value]
    begin(target)
    target.publish()
    assert order == ["dataset", "rename", "zoo"]


def test_nothing_to_remove_is_no_error(target: WorkDir) -> None:
    target.remove_work()


def test_differing_options() -> None:
    assert differing_options({"a": 1, "b": 2}, {"b": 2, "a": 1}) == []
    there, wanted = {"a": 1, "b": 2, "c": 3}, {"a": 1, "b": 0, "d": 4}
    assert differing_options(there, wanted) == [
        "--b=2 there, 0 now",
        "--c=3 there, None now",
        "--d=None there, 4 now",
    ]


# What is in the way


@pytest.mark.parametrize("kind", ["file", "link to a file", "broken link"])
def test_a_file_that_has_the_name_of_the_data_set(target: WorkDir, kind: str) -> None:
    target.final.parent.mkdir(parents=True)
    other = target.final.with_name("other")
    if kind == "link to a file":
        other.touch()
    if kind == "file":
        target.final.touch()
    else:
        target.final.symlink_to(other)
    for _ in range(2):
        with pytest.raises(UsageError, match=r"1\.0\.0 is not a folder.*Move it away, or choose another --name"):
            begin(target)
    assert not target.work.exists()


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EBADF, errno.EPERM])
def test_an_error_of_the_lock_is_not_another_conversion(
    target: WorkDir, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def flock(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(OSError, match=r"work/lock") as caught:
        begin(target)
    assert caught.value.errno == number


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_used_without_one(
    target: WorkDir, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def flock(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    begin(target)
    assert target.dataset.is_dir()


def test_a_plan_that_cannot_be_read_does_not_remove_what_is_finished(target: WorkDir) -> None:
    begin(target)
    (target.shards / "shard").touch()
    (target.work / "plan.json").unlink()
    (target.work / "plan.json").mkdir()
    with pytest.raises(
        ConversionError, match=r"plan\.json cannot be read: Is a directory\. Finished shards are kept"
    ) as caught:
        begin(target)
    assert str(caught.value).endswith(f"or remove {target.work}.")
    assert (target.shards / "shard").exists()
