"""A plan is carried out and undone: links, hard links, odd names, other plans, power failures, and kill -9 anywhere."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simimg.cli import main
from simimg.errors import DataError, UsageError
from simimg.similarity import file_quarantine as quarantine
from simimg.similarity import plan_file, planned_moves
from simimg.similarity.file_quarantine import apply_plan, undo_plan
from simimg.similarity.plan_file import load_plan
from simimg.similarity.sidecars import sidecars_of
from tfrecords.convert.sources import printable, walk

TREE = Path("photos")


def make(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def planned(folder: Path, path: str) -> dict[str, Any]:
    file = folder / path
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else "0" * 64
    return {"path": printable(path), "sha256": sha256, "reason": "same pixels"}


def plan_of(folder: Path, *groups: tuple[str, ...], path: Path | None = None) -> Path:
    """Writes a plan: of each group the first is kept and the others go."""
    path = path or folder.parent / "p.json"
    described = [
        {"keep": planned(folder, keep), "remove": [planned(folder, one) for one in others]} for keep, *others in groups
    ]
    path.write_text(json.dumps({"format": "simimg-plan/1", "image_dir": str(folder.resolve()), "groups": described}))
    return path


def state(folder: Path) -> dict[str, Any]:
    """All names at and below a folder, links not followed: what each one is and holds."""
    found: dict[str, Any] = {}
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = os.path.join(parent, name)
            if os.path.islink(path):
                found[os.path.relpath(path, folder)] = ("link", os.readlink(path))
            elif os.path.isfile(path):
                found[os.path.relpath(path, folder)] = ("file", Path(path).read_bytes())
    return found


def apply(path: Path) -> Any:
    return apply_plan(load_plan(path), dry_run=False)


def undo(path: Path) -> Any:
    return undo_plan(load_plan(path))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make(tmp_path / "photos", **{"0.jpg": "best", "1.jpg": "copy", "2.jpg": "copy of it"})


def hard_link(folder: Path) -> str:
    os.link(folder / "0.jpg", folder / "same.jpg")
    return "same.jpg"


def link(folder: Path) -> str:
    (folder / "favourites").mkdir()
    (folder / "favourites" / "0.jpg").symlink_to("../0.jpg")
    return "favourites/0.jpg"


def by_a_linked_folder(folder: Path) -> str:
    (folder / "2024").mkdir()
    os.rename(folder / "0.jpg", folder / "2024" / "0.jpg")
    (folder / "latest").symlink_to("2024")
    os.symlink("2024/0.jpg", folder / "0.jpg")
    return "latest/0.jpg"


@pytest.mark.parametrize("other_name", [hard_link, link, by_a_linked_folder])
@pytest.mark.parametrize("is_kept", [True, False])
def test_another_name_of_the_kept_file_is_no_copy_of_it(folder: Path, other_name: Any, is_kept: bool) -> None:
    name = other_name(folder)
    before = state(folder)
    plan = plan_of(folder, (name, "0.jpg") if is_kept else ("0.jpg", name))
    applied = apply(plan)
    assert not applied.moved
    assert "is the same file as" in applied.skipped[0][1]
    assert state(folder) == before
    assert not (plan.parent / "p-quarantine").exists()  # nothing was done


def test_two_spellings_of_one_path_are_one_file(folder: Path) -> None:
    plan = plan_of(folder, ("0.jpg", "1.jpg", "./1.jpg", ".//2.jpg"))
    assert apply(plan).moved == ("1.jpg", "2.jpg")
    plan = plan_of(folder, ("0.jpg", "./0.jpg"), path=folder.parent / "q.json")
    assert not apply(plan).moved
    assert (folder / "0.jpg").read_text() == "best"


def test_a_file_that_a_link_leads_to_stays(folder: Path) -> None:
    (folder / "album").mkdir()
    (folder / "album" / "one.jpg").symlink_to(folder / "1.jpg")
    plan = plan_of(folder, ("0.jpg", "1.jpg", "2.jpg"))
    assert apply(plan).skipped == (("1.jpg", "album/one.jpg is a link to it, which would lead nowhere"),)
    undo(plan)
    # It goes together with the link, in whatever order the plan has them.
    before = state(folder)
    plan = plan_of(folder, ("0.jpg", "1.jpg", "album/one.jpg"))
    assert sorted(apply(plan).moved) == ["1.jpg", "album/one.jpg"]
    undo(plan)
    assert state(folder) == before


@pytest.mark.parametrize("target", ["../1.jpg", "{folder}/1.jpg", "{folder}/../elsewhere.jpg"])
def test_links_go_and_come_back_as_links(folder: Path, target: str) -> None:
    (folder.parent / "elsewhere.jpg").write_text("elsewhere")
    (folder / "album").mkdir()
    (folder / "album" / "link.jpg").symlink_to(target.format(folder=folder))
    before = state(folder)
    plan = plan_of(folder, ("0.jpg", "album/link.jpg"))
    assert apply(plan).moved == ("album/link.jpg",)
    assert undo(plan).moved == ("album/link.jpg",)
    assert state(folder) == before
    assert not (folder.parent / "p-quarantine").exists()


def test_files_behind_a_linked_folder_stay(folder: Path) -> None:
    other = make(folder.parent / "other", **{"3.jpg": "copy"})
    (folder / "linked").symlink_to(other)
    plan = plan_of(folder, ("0.jpg", "linked/3.jpg"))
    assert "linked is a link to" in apply(plan).skipped[0][1]
    assert (other / "3.jpg").exists()


def test_a_cut_off_journal_loses_nothing(folder: Path) -> None:
    before = state(folder)
    plan = plan_of(folder, ("0.jpg", "1.jpg", "2.jpg"))
    apply(plan)
    journal = folder.parent / "p-quarantine" / "moves.jsonl"
    whole = journal.read_bytes()
    for length in range(len(whole) + 1):
        journal.write_bytes(whole[:length])
        undone = undo(plan)
        assert sorted(undone.moved) == ["1.jpg", "2.jpg"]
        assert not undone.skipped
        assert state(folder) == before
        assert not journal.parent.exists()
        apply(plan)


def test_apply_goes_on_after_a_cut_off_line(folder: Path) -> None:
    before = state(folder)
    plan = plan_of(folder, ("0.jpg", "1.jpg"), ("0.jpg", "2.jpg"))
    apply(plan)
    journal = folder.parent / "p-quarantine" / "moves.jsonl"
    os.rename(journal.parent / "files" / "2.jpg", folder / "2.jpg")
    journal.write_bytes(journal.read_bytes()[:-7])
    assert apply(plan).moved == ("2.jpg",)
    assert sorted(undo(plan).moved) == ["1.jpg", "2.jpg"]
    assert state(folder) == before


def test_the_journal_of_an_older_version(folder: Path) -> None:
    before = state(folder)
    plan = plan_of(folder, ("0.jpg", "1.jpg"))
    quarantine_dir = folder.parent / "p-quarantine"
    (quarantine_dir / "files").mkdir(parents=True)
    (quarantine_dir / "moves.jsonl").write_text(json.dumps(planned(folder, "1.jpg")) + "\n")
    os.rename(folder / "1.jpg", quarantine_dir / "files" / "1.jpg")
    assert undo(plan).moved == ("1.jpg",)
    assert state(folder) == before


def test_nothing_in_quarantine_is_overwritten(folder: Path) -> None:
    plan = plan_of(folder, ("0.jpg", "1.jpg"))
    files = make(folder.parent / "p-quarantine" / "files", **{"1.jpg": "of somebody else", "2.jpg": "too"})
    apply(plan)
    assert (files / "1.jpg").read_text() == "of somebody else"
    undone = undo(plan)
    assert undone.moved == ("1.jpg",)
    assert undone.left == ("files/1.jpg", "files/2.jpg")
    assert (folder / "1.jpg").read_text() == "copy"
    assert (files / "1.jpg").read_text() == "of somebody else"


def test_a_quarantine_belongs_to_one_plan(folder: Path, tmp_path: Path) -> None:
    before = state(folder)
    apply(plan_of(folder, ("0.jpg", "1.jpg")))
    other = make(tmp_path / "others", **{"0.jpg": "other", "1.jpg": "other copy", "2.jpg": "one more"})
    for again in (plan_of(other, ("0.jpg", "1.jpg")), plan_of(folder, ("0.jpg", "2.jpg"))):
        for call in (apply, undo):
            with pytest.raises(UsageError, match=rf"another plan .*{folder}.*undo --plan=.*p-quarantine/applied-plan"):
                call(again)
    assert set(state(other)) == {"0.jpg", "1.jpg", "2.jpg"}
    assert undo(tmp_path / "p-quarantine" / "applied-plan.json").moved == ("1.jpg",)
    assert state(folder) == before
    assert not (tmp_path / "p-quarantine").exists()


def test_what_was_put_into_the_quarantine_by_hand_stays(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = plan_of(folder, ("0.jpg", "1.jpg"))
    apply(plan)
    note = folder.parent / "p-quarantine" / "files" / "album" / "note.txt"
    make(note.parent, **{"note.txt": "look at these again"})
    assert main(["undo", f"--plan={plan}"]) == 0
    assert "it holds files/album/note.txt" in capsys.readouterr().err
    assert [path for path in (folder.parent / "p-quarantine").rglob("*") if path.is_file()] == [note]


def test_what_cannot_be_brought_back_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = plan_of(folder, ("0.jpg", "1.jpg", "2.jpg"))
    apply(plan)
    files = folder.parent / "p-quarantine" / "files"
    (files / "1.jpg").unlink()
    assert main(["undo", f"--plan={plan}"]) == 0
    assert "not moved 1.jpg: it is no longer in quarantine" in capsys.readouterr().err
    assert (folder / "2.jpg").exists()
    assert (files.parent / "moves.jsonl").exists()


def test_a_name_that_is_not_utf8(folder: Path) -> None:
    name = os.fsdecode(b"caf\xe9 \\x41.jpg")
    (folder / name).write_text("copy")
    before = state(folder)
    plan = plan_of(folder, ("0.jpg", name))
    assert apply(plan).moved == (printable(name),)
    assert not (folder / name).exists()
    assert undo(plan).moved == (printable(name),)
    assert state(folder) == before


def test_quarantines_and_indexes_are_no_images(folder: Path) -> None:
    apply(plan_of(folder, ("0.jpg", "1.jpg"), path=folder / "p.json"))
    make(folder / "index", **{"index.json": "{}", "generation-000001__a.npy": "", "web__thumbnails__ab.jpg": "small"})
    assert walk(folder) == ["0.jpg", "2.jpg", "p.json"]


def test_two_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of(folder, ("0.jpg", "1.jpg"))

    def during(*_: Any) -> None:
        for call in (apply, undo):
            with pytest.raises(UsageError, match="Another process .*pid .* is moving files"):
                call(plan)

    move = quarantine._move
    monkeypatch.setattr(quarantine, "_move", lambda *paths: (during(), move(*paths)))
    assert apply(plan).moved == ("1.jpg",)


def test_a_folder_that_is_not_mounted(folder: Path) -> None:
    plan = plan_of(folder, ("0.jpg", "1.jpg"))
    apply(plan)
    os.rename(folder, folder.with_name("away"))
    for call in (apply, undo):
        with pytest.raises(UsageError, match="is not there"):
            call(plan)
    assert not folder.exists()


def test_a_path_with_another_type_is_refused(folder: Path) -> None:
    plan = plan_of(folder, ("0.jpg", "1.jpg"))
    values = json.loads(plan.read_text())
    values["groups"][0]["remove"][0]["path"] = 7
    plan.write_text(json.dumps(values))
    with pytest.raises(DataError, match="not a plan"):
        load_plan(plan)


def test_a_plan_that_is_saved_while_it_is_applied(folder: Path) -> None:
    before = state(folder)
    plan = plan_of(folder, ("0.jpg", "1.jpg"))
    loaded = load_plan(plan)
    plan_of(folder, ("0.jpg", "2.jpg"))
    assert apply_plan(loaded, dry_run=False).moved == ("1.jpg",)
    with pytest.raises(UsageError, match="another plan"):
        undo(plan)
    assert undo(folder.parent / "p-quarantine" / "applied-plan.json").moved == ("1.jpg",)
    assert state(folder) == before


@pytest.mark.parametrize("changed", ["0.jpg", "1.jpg"])
def test_what_changes_while_a_plan_is_applied_stays(
    folder: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    make(folder, **{"3.jpg": "other", "4.jpg": "copy of other"})
    plan = plan_of(folder, ("0.jpg", "1.jpg"), ("3.jpg", "4.jpg"))
    has_bytes = planned_moves.has_bytes

    def edit_then_compare(path: Path, sha256: str) -> bool:
        if path.name == "4.jpg":
            (folder / changed).write_text("edited meanwhile")
        return has_bytes(path, sha256)

    monkeypatch.setattr(planned_moves, "has_bytes", edit_then_compare)
    applied = apply(plan)
    assert applied.moved == ("4.jpg",)
    assert [path for path, _ in applied.skipped] == ["1.jpg"]
    assert (folder / changed).read_text() == "edited meanwhile"


def test_an_older_journal_is_undone_by_an_edited_plan(folder: Path) -> None:
    before = state(folder)
    quarantine_dir = folder.parent / "p-quarantine"
    (quarantine_dir / "files").mkdir(parents=True)
    (quarantine_dir / "moves.jsonl").write_text(json.dumps(planned(folder, "1.jpg")) + "\n")
    os.rename(folder / "1.jpg", quarantine_dir / "files" / "1.jpg")
    plan = plan_of(folder, ("0.jpg", "2.jpg"))
    with pytest.raises(UsageError, match=r"another plan .*undo --plan=.*p\.json"):
        apply(plan)
    assert undo(plan).moved == ("1.jpg",)
    assert state(folder) == before


def test_apply_keeps_what_it_has_forgotten(folder: Path) -> None:
    before = state(folder)
    plan = plan_of(folder, ("0.jpg", "1.jpg"))
    apply(plan)
    journal = folder.parent / "p-quarantine" / "moves.jsonl"
    journal.write_bytes(journal.read_bytes().split(b"\n")[0] + b"\n")
    assert not apply(plan).moved
    assert undo(plan).moved == ("1.jpg",)
    assert state(folder) == before


# Kill -9 at any line: any tree, any plan. What is written by then is on the disk, and nothing is cleaned up.

NAMES = ("a", "b", "c.jpg", "\udce9.jpg", "d e.jpg")
TEXTS = ("one", "two", "three")
paths = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map("/".join)
entries = st.one_of(
    st.tuples(st.just("file"), st.sampled_from(TEXTS)),
    st.tuples(st.just("hard"), st.integers(0, 9)),
    st.tuples(st.just("link"), st.integers(0, 9), st.booleans()),
    st.tuples(st.just("folder"), st.integers(0, 9), st.booleans()),
)


def grow(folder: Path, tree: dict[str, Any]) -> list[str]:
    """Makes the tree as far as it can be; returns the names that lead to files, by whatever way."""
    folder.mkdir()
    made: list[Path] = []
    for name, (kind, *values) in tree.items():
        path = folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if kind == "file":
                if not os.path.lexists(path):
                    path.write_text(values[0])
            elif kind == "hard" and made:
                os.link(made[values[0] % len(made)], path)
            elif made:
                target = made[values[0] % len(made)]
                target = target.parent if kind == "folder" else target
                path.symlink_to(os.path.relpath(target, path.parent) if values[1] else target)
            made.append(path)
        except OSError:
            continue
    return sorted(name for name in leading(folder, "", 0))


def leading(folder: Path, prefix: str, depth: int) -> Iterator[str]:
    for entry in os.scandir(folder / prefix):
        name = os.path.join(prefix, entry.name)
        if not os.path.exists(entry.path) or not Path(entry.path).resolve().is_relative_to(folder.resolve()):
            continue
        if entry.is_file():
            yield name
        elif entry.is_dir() and depth < 4:
            yield from leading(folder, name, depth + 1)


def killed_at(line: int, call: Any, plan: Path, across: bool) -> bool:
    """Does `call` in a process that is killed when it comes to the line of this number; returns whether it was."""
    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    try:
        if across:
            quarantine.rename_new = across_file_systems
        left = line
        files = {quarantine.__file__, *(sys.modules[name].__file__ for name in TRACED)}

        def trace(frame: Any, event: str, _: Any) -> Any:
            nonlocal left
            if frame.f_code.co_filename not in files:
                return None
            if event in ("line", "return"):
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            return trace

        values = load_plan(plan)
        sys.settrace(trace)
        call(values)
    except UsageError:
        pass
    finally:
        sys.settrace(None)
        os._exit(0)


TRACED = ("simimg.similarity.quarantine_journal", "tfrecords.format.atomic_files")
_rename_new = quarantine.rename_new


def across_file_systems(source: Path, target: Path) -> None:
    if not source.name.startswith(".simimg-copy-"):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
    _rename_new(source, target)


def contents(*folders: Path) -> set[bytes]:
    states = [state(folder) for folder in folders if folder.exists()]
    return {value for one in states for kind, value in one.values() if kind == "file"}


def removals(plan: Path) -> set[str]:
    return {file.path for file in load_plan(plan).removals}


@settings(max_examples=60)
@given(data=st.data(), tree=st.dictionaries(paths, entries, min_size=2, max_size=9), across=st.booleans())
def test_killed_anywhere_nothing_is_lost(data: st.DataObject, tree: dict[str, Any], across: bool) -> None:
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home, "photos")
        names = grow(folder, tree)
        if len(names) < 2:
            return
        some = st.lists(st.sampled_from(names), min_size=2, max_size=4)
        plan = plan_of(folder, *data.draw(st.lists(some, min_size=1, max_size=3)))
        before, bytes_before = state(folder), contents(folder)
        leads = {printable(name): (folder / name, (folder / name).read_bytes()) for name in names}
        for _ in range(data.draw(st.integers(0, 2))):
            call = data.draw(st.sampled_from([lambda plan: apply_plan(plan, dry_run=False), undo_plan]))
            killed_at(data.draw(st.integers(1, 900)), call, plan, across)
            assert contents(folder, Path(home, "p-quarantine")) >= bytes_before
        applied = apply(plan)
        assert contents(folder, Path(home, "p-quarantine")) >= bytes_before
        for kept in {group.keep.path for group in load_plan(plan).groups} - removals(plan):
            path, text = leads[kept]
            assert path.read_bytes() == text, (kept, applied)
        if (Path(home) / "p-quarantine" / "moves.jsonl").exists():
            assert not undo(plan).skipped
        assert state(folder) == before
        assert not Path(home, "p-quarantine").exists()


# Sidecars: planned as `simimg duplicates` does it.


def with_sidecars(folder: Path, *groups: tuple[str, ...]) -> Path:
    """Writes a plan with the sidecars that its images have."""
    path = plan_of(folder, *groups)
    values = json.loads(path.read_text())
    plan_file._add_sidecars(folder, [file for group in values["groups"] for file in group["remove"]])
    path.write_text(json.dumps(values))
    return path


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """a.jpg is kept; the others are copies of it."""
    return make(
        tmp_path / "photos",
        **{"a.jpg": "best", "a.heic": "copy", "a.xmp": "of both", "b.jpg": "copy", "b.MOV": "film", "b.nef": "raw"},
        **{"b.jpg.xmp": "settings", "b.jpg.supplemental-metadata.json": "{}", "b.json": "{}", "bb.xmp": "of none"},
        **{"c(2).JPG": "copy", "c.JPG(2).json": "{}", "c.JPG": "other", "c.JPG.json": "{}", "c(2).aae": "edit"},
    )


OWN = {"b.jpg.xmp", "b.jpg.supplemental-metadata.json", "c.JPG(2).json", "c(2).aae"}


def test_sidecars_go_along_and_come_back(album: Path) -> None:
    before = state(album)
    plan = with_sidecars(album, ("a.jpg", "a.heic", "b.jpg", "c(2).JPG"))
    images = {"a.heic", "b.jpg", "c(2).JPG"}
    expected = {
        "a.xmp": "it also belongs to a.jpg, which stays",
        "b.MOV": "it also belongs to b.nef, which stays",
        "b.json": "it also belongs to b.nef, which stays",
        "b.nef": "a RAW file is an original of its own",
    }
    planned_to_stay = [
        one
        for file in json.loads(plan.read_text())["groups"][0]["remove"]
        for one in file.get("sidecars_that_stay", [])
    ]
    assert {one["path"]: one["why"] for one in planned_to_stay} == expected
    dry = apply_plan(load_plan(plan), dry_run=True)
    assert state(album) == before
    applied = apply(plan)
    assert dry == applied
    assert set(applied.moved) == images | OWN
    assert not applied.skipped
    assert dict(applied.sidecars) == expected
    assert applied.num_bytes == sum(len(before[name][1]) for name in applied.moved)
    assert set(before) - set(state(album)) == images | OWN
    assert not apply(plan).moved
    assert set(undo(plan).moved) == images | OWN
    assert state(album) == before
    assert not (album.parent / "p-quarantine").exists()


def test_a_film_goes_along_unless_it_is_too_long_for_a_live_photo(album: Path) -> None:
    (album / "b.nef").unlink()
    assert {"b.MOV", "b.json"} < set(apply(with_sidecars(album, ("a.jpg", "b.jpg"))).moved)
    undo(album.parent / "p.json")
    os.truncate(album / "b.MOV", 200 << 20)
    applied = apply(with_sidecars(album, ("a.jpg", "b.jpg")))
    assert dict(applied.sidecars) == {"b.MOV": "a film of 210 MB is more than that of a live photo"}


def test_what_belongs_to_two_images_goes_with_the_last_of_them(album: Path) -> None:
    make(album, **{"d.jpg": "copy", "d.png": "copy", "d.xmp": "of both"})
    both = with_sidecars(album, ("a.jpg", "d.jpg", "d.png"))
    assert set(apply(both).moved) == {"d.jpg", "d.png", "d.xmp"}
    undo(both)
    (album / "d.png").write_text("edited since")  # it stays, and so does what belongs to it
    applied = apply(both)
    assert applied.moved == ("d.jpg",)
    assert applied.sidecars == (("d.xmp", "it also belongs to d.png, which stays"),)


def test_sidecars_that_changed_or_are_not_planned_stay_and_are_named(
    album: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = with_sidecars(album, ("a.jpg", "b.jpg"))
    (album / "b.jpg.xmp").write_text("edited since")
    (album / "b.jpg.json").write_text("new")
    assert main(["apply", f"--plan={plan}", "--json"]) == 0
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert result["moved"] == ["b.jpg", "b.jpg.supplemental-metadata.json"]
    assert result["skipped"] == [{"path": "b.jpg.xmp", "reason": "it was changed since the plan was made"}]
    assert {"path": "b.jpg.json", "reason": "the plan does not list it"} in result["sidecars_that_stay"]
    assert "b.jpg.json stays: the plan does not list it" in printed.err


def test_a_plan_cannot_name_other_files_as_sidecars(album: Path) -> None:
    before = state(album)
    plan = plan_of(album, ("a.jpg", "b.jpg"))
    values = json.loads(plan.read_text())
    others = ("a.jpg", "a.xmp", "bb.xmp", "c.JPG", "b.nef")
    values["groups"][0]["remove"][0]["sidecars"] = [planned(album, name) for name in others]
    plan.write_text(json.dumps(values))
    assert apply(plan).moved == ("b.jpg",)
    assert undo(plan).moved == ("b.jpg",)
    assert state(album) == before
    values["groups"][0]["remove"][0]["sidecars"] = [{"path": "../b.xmp", "sha256": ""}]
    plan.write_text(json.dumps(values))
    with pytest.raises(DataError, match="leads out of the folder"):
        load_plan(plan)


def test_a_sidecar_that_a_link_leads_to_stays(album: Path) -> None:
    (album / "album").mkdir()
    (album / "album" / "settings").symlink_to("../b.jpg.xmp")
    applied = apply(with_sidecars(album, ("a.jpg", "b.jpg")))
    assert applied.skipped == (("b.jpg.xmp", "album/settings is a link to it, which would lead nowhere"),)
    assert (album / "album" / "settings").exists()


def test_sidecars_of_a_name_that_is_not_utf8(album: Path) -> None:
    name = os.fsdecode(b"caf\xe9.jpg")
    for file in (name, f"{name}.xmp"):
        (album / file).write_text("copy")
    before = state(album)
    plan = with_sidecars(album, ("a.jpg", name))
    killed_at(220, lambda plan: apply_plan(plan, dry_run=False), plan, False)
    apply(plan)
    assert not {name, f"{name}.xmp"} & state(album).keys()
    undo(plan)
    assert state(album) == before


@settings(max_examples=40)
@given(data=st.data(), across=st.booleans())
def test_killed_anywhere_no_sidecar_is_lost(data: st.DataObject, across: bool) -> None:
    with tempfile.TemporaryDirectory() as home:
        folder = make(Path(home, "photos"), **{"a.jpg": "best", "b.jpg": "copy", "b.jpg.xmp": "1", "b.mov": "2"})
        make(folder, **{"c__b.jpg": "copy", "c__b.aae": "3", "c__b.heic": "of another"})
        before = state(folder)
        plan = with_sidecars(folder, ("a.jpg", "b.jpg", "c/b.jpg"))
        for _ in range(data.draw(st.integers(1, 3))):
            call = data.draw(st.sampled_from([lambda plan: apply_plan(plan, dry_run=False), undo_plan]))
            killed_at(data.draw(st.integers(1, 1200)), call, plan, across)
            assert contents(folder, Path(home, "p-quarantine")) >= {value for _, value in before.values()}
        apply(plan)
        assert set(before) - set(state(folder)) == {"b.jpg", "b.jpg.xmp", "b.mov", "c/b.jpg"}
        assert not undo(plan).skipped
        assert state(folder) == before
        assert not Path(home, "p-quarantine").exists()


@pytest.mark.parametrize("written", [["originals"], ["./originals/"], ["scans", "originals/2024"], ["."], ["latest"]])
def test_files_of_reference_folders_are_never_moved(tmp_path: Path, written: list[str]) -> None:
    photos = make(tmp_path / "photos", a="1", originals__2024__b="1", originals__2024__c="1", originals2__d="1")
    (photos / "latest").symlink_to("originals/2024")
    path = plan_of(photos, ("a", "originals/2024/b", "originals2/d"), ("originals/2024/c",))
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"reference_dirs": written}))
    before = state(photos)
    for dry_run in (True, False):
        applied = apply_plan(load_plan(path), dry_run=dry_run)
        assert applied.moved == (() if written == ["."] else ("originals2/d",))
        reasons = dict(applied.skipped)
        assert reasons["originals/2024/b"].startswith("it is in ")
        assert reasons["originals/2024/b"].endswith("a reference folder, whose files are kept")
    if applied.moved:
        undo_plan(load_plan(path))
    assert state(photos) == before


@pytest.mark.parametrize("written", ["old", ["../photos"], ["/"], [3], [""], {}, None])
def test_reference_folders_that_are_none(tmp_path: Path, written: Any) -> None:
    path = plan_of(make(tmp_path / "photos", a="1"))
    assert load_plan(path).reference_dirs == ()  # of an older version
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"reference_dirs": written}))
    with pytest.raises(DataError, match="reference_dirs should be a list of folders"):
        load_plan(path)


@pytest.mark.parametrize(
    ("files", "removed", "expected"),
    [
        ("PXL_1.MP.jpg PXL_1.MP PXL_2.MP", "PXL_1.MP.jpg", {"PXL_1.MP": ""}),
        (f"{'n' * 50}.jpg {'n' * 46}.json", f"{'n' * 50}.jpg", {f"{'n' * 46}.json": ""}),
        (f"{'n' * 44}.jpg {'n' * 44}.j.json", f"{'n' * 44}.jpg", {f"{'n' * 44}.j.json": ""}),
        (
            f"{'n' * 50}1.jpg {'n' * 50}2.jpg {'n' * 46}.json",
            f"{'n' * 50}1.jpg",
            {f"{'n' * 46}.json": f"it also belongs to {'n' * 50}2.jpg, which stays"},
        ),
        (
            "a.jpg a-edited.jpg a.jpg.json",
            "a.jpg",
            {"a.jpg.json": "it also belongs to a-edited.jpg, which stays"},
        ),
        ("a.jpg a-edited.jpg a.jpg.supplemental-me.json", "a.jpg a-edited.jpg", {"a.jpg.supplemental-me.json": ""}),
        ("a.jpg a-edited.jpg a.txt a-edited.txt", "a.jpg", {"a.txt": ""}),
        (
            "a.jpg a.heic a.mov a.aae",
            "a.jpg",
            dict.fromkeys(("a.aae", "a.mov"), "it also belongs to a.heic, which stays"),
        ),
        ("a.jpg a.txt a.jpg.caption", "a.jpg", {"a.txt": "", "a.jpg.caption": ""}),
        ("a.jpg a.png a.txt b.txt", "a.png", {"a.txt": "it also belongs to a.jpg, which stays"}),
        ("바다 1.jpg 바다 1.jpg.xmp", "바다 1.jpg", {"바다 1.jpg.xmp": ""}),
        (
            "a.jpg a.CR2 a.xmp",
            "a.jpg",
            {"a.CR2": "a RAW file is an original of its own", "a.xmp": "it also belongs to a.CR2, which stays"},
        ),
    ],
)
def test_which_sidecars_go_along(tmp_path: Path, files: str, removed: str, expected: dict[str, str]) -> None:
    def names(text: str) -> list[str]:
        return [name.replace("바다1", "바다 1") for name in text.replace("바다 1", "바다1").split()]

    for name in names(files):
        (tmp_path / name).write_text(name)
    gone = names(removed)
    assert {one.path: one.stays for one in sidecars_of(tmp_path, gone, gone.__contains__)} == expected


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda group: group["remove"][0].pop("sha256"), "group 1, or a file in it, has no 'sha256'. Correct it, or"),
        (lambda group: group.pop("remove"), "group 1, or a file in it, has no 'remove'"),
        (lambda group: group.update(remove="1.jpg"), "group 1 is not an object with files to keep and to remove"),
    ],
)
def test_a_mistake_in_an_edited_plan_is_named(folder: Path, edit: Callable[[Any], Any], words: str) -> None:
    path = plan_of(folder, ("0.jpg", "1.jpg"))
    values = json.loads(path.read_bytes())
    edit(values["groups"][0])
    path.write_text(json.dumps(values))
    with pytest.raises(DataError, match=words):
        load_plan(path)


def test_a_kept_file_that_is_to_be_removed_as_well(folder: Path) -> None:
    path = plan_of(folder, ("0.jpg", "1.jpg", "0.jpg"))
    values = json.loads(path.read_bytes())
    values["groups"][0]["remove"][0]["sha256"] = values["groups"][0]["remove"][0]["sha256"].upper()
    path.write_text(json.dumps(values))
    reason = "0.jpg, which is to be kept in its place, is to be removed as well"
    assert dict(apply(path).skipped) == {"0.jpg": reason, "1.jpg": reason}
    values["groups"][0]["remove"].pop()
    path.write_text(json.dumps(values))
    assert apply(path).moved == ("1.jpg",)
