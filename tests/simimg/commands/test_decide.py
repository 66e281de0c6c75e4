"""`simimg decide`, decisions in plans, and images that were removed and are back: through the commands."""

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

from simimg.cli import main
from simimg.similarity.decisions import DECISIONS_FILE, DecidedImage, Decision, read_decisions, record
from simimg.similarity.embeddings import Embedder
from simimg.similarity.finding_decisions import DecidedFinding
from simimg.similarity.index_update import index_folder
from tfrecords.format.atomic_files import file_sha256

Scene = Callable[..., Image.Image]
Simimg = Callable[..., Any]


def fields(images: np.ndarray) -> np.ndarray:
    small = images.reshape(-1, 8, 4, 8, 4, 3).mean(axis=(2, 4), dtype=np.float32).reshape(-1, 192) / 127.5 - 1
    return small / np.maximum(np.linalg.norm(small, axis=1, keepdims=True), 1e-12)


EMBEDDER = Embedder("eight", "f" * 64, 32, "stretch", 192, fields)


@pytest.fixture
def folder(tmp_path: Path, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with two photos, a smaller copy of each, and an index."""
    (tmp_path / "photos").mkdir()
    for seed in (1, 2):
        scene(seed).save(tmp_path / f"photos/{seed}.png")
        scene(seed).resize((200, 150)).save(tmp_path / f"photos/{seed}-small.png")
    monkeypatch.chdir(tmp_path)
    update()
    return tmp_path


def update() -> None:
    index_folder(Path("i"), Path("photos"), EMBEDDER)


def duplicates(simimg: Simimg) -> list[list[str]]:
    update()
    found = simimg("duplicates", "--index_dir=i", "--threshold=0.6", "--plan=plan.json")
    return [[Path(member["path"]).name for member in group] for group in found["groups"]]


def test_decide_list_and_undo(folder: Path, simimg: Simimg, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(duplicates(simimg)) == 2
    made = simimg("decide", "--index_dir=i", "--not_copies", "photos/1.png", "1-small.png")  # a path here, or there
    assert [image["path"] for image in made["decisions"][0]["images"]] == ["1.png", "1-small.png"]
    assert made["decisions"][0]["decision"] == "not copies"
    checksum = made["decisions"][0]["images"][0]["sha256"]
    simimg("decide", "--index_dir=i", "--keep=photos/2-small.png", "photos/2.png")
    assert duplicates(simimg) == [["2-small.png", "2.png"]]
    listed = simimg("decide", "--index_dir=i", "--list")["decisions"]
    assert [one["decision"] for one in listed] == ["not copies", "this one"]
    assert len(simimg("decide", "--index_dir=i", "--list", checksum)["decisions"]) == 1
    (folder / "photos/1.png").rename(folder / "photos/renamed.png")
    update()
    capsys.readouterr()
    assert main(["decide", "--index_dir=i", "--list"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith("not copies: renamed.png, 1-small.png")
    assert second.endswith("this one: 2-small.png is kept, 2.png may go")
    assert main(["duplicates", "--index_dir=i", "--threshold=0.6"]) == 0
    said = capsys.readouterr().out
    assert "2-small.png  (kept: as decided)  [decided on " in said
    assert "what 1 decision settled is left out; `simimg decide --index_dir=i --list` lists what was decided" in said
    assert simimg("decide", "--index_dir=i", "--undo")["undone"][0]["decision"] == "this one"
    undone = simimg("decide", "--index_dir=i", "--undo", "1.png")["undone"]  # its former name
    assert undone[0]["images"][0]["now"] == "renamed.png"
    assert len(duplicates(simimg)) == 2
    assert "nothing is decided" in simimg("decide", "--index_dir=i", "--undo", code=2)


def test_what_is_to_happen_to_a_file_is_not_about_its_copy(folder: Path, simimg: Simimg) -> None:
    shutil.copy("photos/1.png", "photos/1-copy.png")
    update()
    checksum = file_sha256(Path("photos/1.png"))
    drop = Decision("drop", (DecidedImage(checksum, "1-copy.png"),), finding=DecidedFinding("leak"), has_copies=True)
    right = dataclasses.replace(drop, decision="right", finding=DecidedFinding("dark"), has_copies=False)
    record(Path("i"), lambda known: [drop, right])

    def listed(name: str) -> list[str]:
        return [one["decision"] for one in simimg("decide", "--index_dir=i", "--list", name)["decisions"]]

    assert listed("1.png") == ["right"]
    assert listed("1-copy.png") == listed(checksum) == ["drop", "right"]
    numbers = [
        simimg("decide", "--index_dir=i", "--delete=d.csv", name)["num_deleted"]
        for name in ("photos/1.png", "photos/1-copy.png", checksum)
    ]
    assert numbers == [0, 1, 1]
    undone = simimg("decide", "--index_dir=i", "--undo", "photos/1.png")["undone"]
    assert [one["decision"] for one in undone] == ["right"]
    Path("photos/1-copy.png").unlink()
    update()
    undone = simimg("decide", "--index_dir=i", "--undo", "1-copy.png")["undone"]  # by its last known path
    assert [one["decision"] for one in undone] == ["drop"]


def test_a_group_that_is_shown_again_says_why(
    folder: Path, simimg: Simimg, scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    simimg("decide", "--index_dir=i", "--keep_all", "1.png", "1-small.png")
    scene(1).resize((160, 120)).save(folder / "photos/1-tiny.png")
    update()
    capsys.readouterr()
    assert main(["duplicates", "--index_dir=i", "--threshold=0.6"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("1.png  (kept: ")
    assert lines[0].endswith(": all are kept]")
    assert lines[1].endswith(": all are kept, so it stays]")
    assert lines[3] == "  shown again, because 1-tiny.png joined: nothing is decided about that yet"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--not_copies"], "no image: 'not copies' needs two images or more"),
        (["--keep_all", "1.png"], "needs two images or more"),
        (["--keep=1.png", "photos/1.png"], "needs two images or more"),
        (["1.png", "2.png"], "nothing is to be done. Give one of --not_copies, --keep_all, --keep=FILE"),
        (["--not_copies", "--keep_all", "1.png", "2.png"], "several things are to be done"),
        (["--not_copies", "1.png", "gone.png"], "gone.png: there is no such file, here or in i"),
        (["--not_copies", "1.png", "photos/again.png"], "the files have the same bytes, so they are copies"),
    ],
)
def test_mistakes(folder: Path, simimg: Simimg, arguments: list[str], words: str) -> None:
    shutil.copy(folder / "photos/1.png", folder / "photos/again.png")
    assert words in simimg("decide", "--index_dir=i", *arguments, code=2)
    assert not (folder / "i" / DECISIONS_FILE).exists()


def test_an_image_that_is_not_in_the_index_is_told(
    folder: Path, capsys: pytest.CaptureFixture[str], scene: Scene
) -> None:
    scene(3).save(folder / "new.png")
    assert main(["decide", "--index_dir=i", "--keep_all", "new.png", "1.png"]) == 0
    assert "new.png is not in i; the decision counts when it is" in capsys.readouterr().err


def test_a_damaged_file_stops_whoever_needs_it(folder: Path, simimg: Simimg) -> None:
    simimg("decide", "--index_dir=i", "--keep_all", "1.png", "1-small.png")
    duplicates(simimg)
    file = folder / "i" / DECISIONS_FILE
    file.write_bytes(file.read_bytes() + b'{"time"')
    for command in (["decide", "--list"], ["duplicates"]):
        assert f"{Path('i') / DECISIONS_FILE} is damaged in line 3" in simimg(*command, "--index_dir=i", code=3)
    assert "is damaged in line 3" in simimg("apply", "--plan=plan.json", code=3)
    assert (folder / "photos/2-small.png").exists()


def edit_plan(change: Callable[[dict[str, Any]], object]) -> None:
    values = json.loads(Path("plan.json").read_bytes())
    change(values)
    Path("plan.json").write_text(json.dumps(values))


def decide_in_plan(decision: str) -> None:
    edit_plan(lambda values: values["groups"][0].update(decision=decision))


@pytest.mark.parametrize("decision", ["not copies", "keep all", "this one"])
def test_a_decision_in_a_plan_is_stored_by_apply(folder: Path, simimg: Simimg, decision: str) -> None:
    assert duplicates(simimg)[0] == ["1.png", "1-small.png"]
    decide_in_plan(decision)
    assert simimg("apply", "--plan=plan.json", "--dry_run")["num_decisions"] == 1
    assert len(read_decisions(Path("i"))) == 0
    moved = ["1-small.png"] if decision == "this one" else []
    assert simimg("apply", "--plan=plan.json")["moved"] == [*moved, "2-small.png"]
    assert [one.decision for one in read_decisions(Path("i"))] == [decision]
    simimg("undo", "--plan=plan.json")
    simimg("apply", "--plan=plan.json")
    assert [one.decision for one in read_decisions(Path("i"))] == [decision]
    simimg("undo", "--plan=plan.json")
    assert len(duplicates(simimg)) == (2 if decision == "this one" else 1)


def test_a_plan_that_is_replaced_leaves_its_decisions(folder: Path, simimg: Simimg) -> None:
    duplicates(simimg)
    decide_in_plan("not copies")
    assert duplicates(simimg) == [["2.png", "2-small.png"]]
    decide_in_plan("not copy")
    said = simimg("duplicates", "--index_dir=i", "--plan=plan.json", code=2)
    assert "plan.json: the decision 'not copy' about 2.png: should be one of not copies, keep all, this one" in said


def test_a_decision_in_a_plan_does_not_override_a_newer_one(
    folder: Path, simimg: Simimg, scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    scene(1).resize((160, 120)).save(folder / "photos/1-tiny.png")
    assert duplicates(simimg)[0] == ["1.png", "1-small.png", "1-tiny.png"]
    decide_in_plan("this one")
    simimg("decide", "--index_dir=i", "--keep_all", "1.png", "1-small.png")  # about a pair of the three
    assert duplicates(simimg)[0] == ["1.png", "1-small.png", "1-tiny.png"]
    counting = [(one.decision, len(one.images)) for one in read_decisions(Path("i"))]
    assert counting == [("this one", 3), ("keep all", 2)]
    assert simimg("apply", "--plan=plan.json", "--dry_run")["moved"] == ["1-tiny.png", "2-small.png"]
    decide_in_plan("not copies")
    simimg("decide", "--index_dir=i", "--keep=1.png", "1-tiny.png")  # about the same two, which are left in the group
    capsys.readouterr()
    assert main(["apply", "--plan=plan.json"]) == 0
    said = capsys.readouterr()
    assert "the plan's 'not copies' about 1.png is older than what was decided about these images since" in said.err
    assert "decisions of the plan" not in said.out
    counting = [(one.decision, len(one.images)) for one in read_decisions(Path("i"))]
    assert counting == [("this one", 3), ("keep all", 2), ("this one", 2)]


def test_what_was_taken_back_since_is_not_decided_again_by_the_plan(folder: Path, simimg: Simimg) -> None:
    duplicates(simimg)
    decide_in_plan("this one")
    simimg("decide", "--index_dir=i", "--keep=1.png", "1-small.png")
    simimg("decide", "--index_dir=i", "--undo")
    said = simimg("apply", "--plan=plan.json", code=0)
    assert [(one["path"], one["reason"]) for one in said["skipped"]] == [
        ("1-small.png", "it stays: since the plan was changed, something else than its 'this one' was decided")
    ]
    assert not list(read_decisions(Path("i")))
    decide_in_plan("keep all")  # now it is the newer one
    simimg("apply", "--plan=plan.json", code=2)  # another plan's quarantine
    assert duplicates(simimg) == []
    assert [one.decision for one in read_decisions(Path("i"))] == ["keep all"]


def test_a_plan_without_an_index_keeps_no_decisions(folder: Path, simimg: Simimg) -> None:
    duplicates(simimg)
    edit_plan(lambda values: values.pop("index_dir"))
    assert simimg("apply", "--plan=plan.json", "--dry_run")["moved"] == ["1-small.png", "2-small.png"]
    decide_in_plan("not copies")
    said = simimg("apply", "--plan=plan.json", code=2)
    assert "plan.json has a decision about its groups, but it names no index to keep them in" in said
    assert "--index_dir=PATH" in said
    assert (folder / "photos/2-small.png").exists()
    edit_plan(lambda values: values.update(index_dir=str(folder / "gone")))
    assert f"its index, {folder / 'gone'}, is not there" in simimg("apply", "--plan=plan.json", code=2)


def test_a_damaged_file_or_a_lost_index_keeps_nothing_in_quarantine(
    folder: Path, simimg: Simimg, capsys: pytest.CaptureFixture[str]
) -> None:
    duplicates(simimg)
    simimg("apply", "--plan=plan.json")
    file = folder / "i" / DECISIONS_FILE
    file.write_bytes(file.read_bytes()[:-9])
    capsys.readouterr()
    assert main(["undo", "--plan=plan.json"]) == 0
    said = capsys.readouterr()
    assert "2 files moved back" in said.out
    assert f"which files were moved is not remembered: {file} is damaged in line 3: it is cut off" in said.err
    shutil.rmtree(folder / "i")
    assert main(["apply", "--plan=plan.json"]) == 0
    assert f"is not remembered: its index, {folder / 'i'}, is not there" in capsys.readouterr().err


def returned(simimg: Simimg) -> list[tuple[str, str]]:
    update()
    found = simimg("duplicates", "--index_dir=i", "--threshold=0.6")["returned"]
    return [(one["removed_path"], one["path"]) for one in found]


def test_an_image_that_was_removed_and_is_back_is_told(
    folder: Path, simimg: Simimg, capsys: pytest.CaptureFixture[str]
) -> None:
    duplicates(simimg)
    simimg("apply", "--plan=plan.json")
    assert returned(simimg) == []
    shutil.move(folder / "plan-quarantine", folder / "thrown away")
    shutil.copy(folder / "thrown away/files/1-small.png", folder / "photos/again.png")
    assert returned(simimg) == [("1-small.png", "again.png")]
    capsys.readouterr()
    assert main(["duplicates", "--index_dir=i", "--threshold=0.6"]) == 0
    said = capsys.readouterr().out
    assert "removed on 20" in said
    assert " as 1-small.png, back as again.png" in said
    assert simimg("decide", "--index_dir=i", "--list")["removed"][0]["images"][0]["now"] == "again.png"
    assert main(["decide", "--index_dir=i", "--list"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith("  removed: 1-small.png, back as again.png")
    assert second.endswith("  removed: 2-small.png")
    simimg("decide", "--index_dir=i", "--keep_all", "photos/again.png", "photos/1.png")  # now it may stay
    assert returned(simimg) == []


def test_what_undo_moved_back_was_not_removed(folder: Path, simimg: Simimg) -> None:
    duplicates(simimg)
    simimg("apply", "--plan=plan.json")
    assert len(read_decisions(Path("i")).removed) == 2
    simimg("undo", "--plan=plan.json")
    assert returned(simimg) == []
    assert not read_decisions(Path("i")).removed
    simimg("apply", "--plan=plan.json")
    assert len(read_decisions(Path("i")).removed) == 2
    removed = simimg("decide", "--index_dir=i", "--undo", "2-small.png")["removed"]  # forgotten by hand
    assert removed[0]["images"][0]["path"] == "2-small.png"
    assert len(read_decisions(Path("i")).removed) == 1


def test_bytes_that_are_kept_under_another_name_were_not_removed(folder: Path, simimg: Simimg) -> None:
    shutil.copy(folder / "photos/2.png", folder / "photos/2-again.png")
    os.utime(folder / "photos/2-again.png", (1e9, 1e9))  # the oldest of equal files is kept
    assert duplicates(simimg)[1][0] == "2-again.png"
    simimg("apply", "--plan=plan.json")
    assert not (folder / "photos/2.png").exists()
    assert [one.images[0].path for one in read_decisions(Path("i")).removed.values()] == ["1-small.png", "2-small.png"]
    assert returned(simimg) == []
