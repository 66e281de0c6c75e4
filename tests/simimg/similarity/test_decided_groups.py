"""What decisions do to groups: left out, shown again when an image joins, and what a plan may still remove."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from simimg.similarity.decided_groups import settled_groups, settled_members
from simimg.similarity.decisions import (
    KEEP_ALL,
    NOT_COPIES,
    REMOVED,
    THIS_ONE,
    UNDONE,
    DecidedImage,
    Decision,
    Decisions,
    record,
)
from simimg.similarity.duplicate_groups import Duplicates, Group, Member, find_duplicates
from simimg.similarity.edits import PLANNED
from simimg.similarity.embeddings import Embedder
from simimg.similarity.file_quarantine import apply_plan
from simimg.similarity.image_table import IndexedImage
from simimg.similarity.index_images import IndexImages
from simimg.similarity.index_update import index_folder
from simimg.similarity.plan_file import is_planned, load_plan, write_plan
from simimg.similarity.search_index import SearchIndex

Scene = Callable[..., Image.Image]


def sha(name: str) -> str:
    return name[0].encode().hex().ljust(64, "0")


def members(names: str) -> list[Member]:
    """Members `a b2 …`, the keeper first: the letter is for the bytes, and the whole name for the file."""
    return [
        Member(row, IndexedImage(path=f"{name}.jpg", sha256=sha(name)), 0.9, "resized")
        for row, name in enumerate(names.split())
    ]


def said(word: str, names: str) -> Decision:
    images = tuple(DecidedImage(sha(name), f"{name}.jpg") for name in names.split())
    return Decision(word, images, "2026-11-29T12:00:00+00:00")


def stay(names: str, *decisions: Decision) -> str:
    """The members that are shown, those that stay in capitals."""
    shown, _ = settled_members(members(names), Decisions(decisions))
    paths = [(member.image.path.removesuffix(".jpg"), member.stays) for member in shown]
    return " ".join(name.upper() if stays else name for name, stays in paths)


@pytest.mark.parametrize("word", [NOT_COPIES, KEEP_ALL])
def test_what_was_decided_is_not_shown_until_another_image_joins(word: str) -> None:
    decision = said(word, "a b c")
    for names in ("a b c", "c a", "b a"):
        assert stay(names, decision) == ""
    assert stay("d b a", decision) == "d B A"
    assert stay("a b d", decision) == "A B d"
    assert stay("a b d", decision, said(UNDONE, "a b c")) == "a b d"
    assert stay("a b d", said(UNDONE, "a b c"), decision) == "A B d"


def test_a_chosen_one_stays_and_the_others_may_go() -> None:
    decision = said(THIS_ONE, "b a c")
    assert stay("b a c", decision) == "B a c"
    assert stay("a b c", decision) == "a B c"  # a reference folder has another one
    assert stay("b a d", decision) == "B a d"
    assert stay("b a", said(KEEP_ALL, "a b"), said(THIS_ONE, "b a")) == "B a"
    assert stay("b a", said(THIS_ONE, "b a"), said(KEEP_ALL, "a b")) == ""


def test_a_decision_answers_what_was_a_question() -> None:
    cropped = [dataclasses.replace(member, edits=frozenset({"crop"})) for member in members("a b c")]
    assert not is_planned(cropped[1], PLANNED)
    shown, _ = settled_members(cropped, Decisions([said(THIS_ONE, "a b")]))
    assert [is_planned(member, PLANNED) for member in shown[1:]] == [True, False]


def test_an_image_that_is_no_copy_of_the_others_leaves_the_group() -> None:
    pairs = [said(NOT_COPIES, f"b {other}") for other in "acd"]
    assert stay("a b c d", *pairs) == "a c d"
    shown, keys = settled_members(members("b a c d"), Decisions(pairs))  # it was the keeper
    assert [(member.image.path, member.similarity) for member in shown] == [
        ("a.jpg", 1.0),
        ("c.jpg", 0.9),
        ("d.jpg", 0.9),
    ]
    assert keys == {pair.key for pair in pairs}
    assert stay("a b c", said(NOT_COPIES, "a b")) == "A B c"  # c is a copy of only one of them


def test_an_image_that_was_decided_to_stay_stays_in_any_group() -> None:
    assert stay("c a", said(KEEP_ALL, "a b")) == "c A"
    assert stay("c a", said(THIS_ONE, "a b")) == "c A"
    assert stay("c b", said(THIS_ONE, "a b")) == "c b"
    assert stay("c a", said(NOT_COPIES, "a b")) == "c a"


def test_files_of_the_same_bytes_count_one_by_one() -> None:
    two = said(KEEP_ALL, "a a2")
    assert stay("a a2", two) == ""
    assert stay("a9 a8", two) == ""  # renamed
    assert stay("a a2 a3", two) == "A A2 a3"
    assert stay("a1 a2 a", two) == "a1 A2 A"  # those with the known paths
    assert stay("a a2 b", said(KEEP_ALL, "a b")) == "A a2 B"
    assert stay("a a2 b", said(NOT_COPIES, "a b")) == "a a2"
    assert stay("a2 a", said(THIS_ONE, "a2 a")) == "A2 a"


def test_it_says_what_was_decided() -> None:
    decisions = Decisions([said(NOT_COPIES, "a b"), said(KEEP_ALL, "c d"), said(THIS_ONE, "e f"), said(REMOVED, "g")])
    shown, _ = settled_members(members("a b c d e f g h"), decisions)
    assert [member.remembered for member in shown] == [
        "decided on 2026-11-29: not a copy of b.jpg",
        "decided on 2026-11-29: not a copy of a.jpg",
        "decided on 2026-11-29: all are kept",
        "decided on 2026-11-29: all are kept",
        "decided on 2026-11-29: this one is kept",
        "decided on 2026-11-29: may go",
        "removed on 2026-11-29 as g.jpg, and back",
        "",
    ]


WORDS = st.sampled_from([NOT_COPIES, KEEP_ALL, THIS_ONE, UNDONE])
SETS = st.lists(st.sampled_from("abcdef"), min_size=2, max_size=5, unique=True).map(" ".join)


@given(st.lists(st.tuples(WORDS, SETS), max_size=8), st.permutations("abcdef"))
@settings(max_examples=300, deadline=None)
def test_no_plan_contradicts_a_decision(events: list[tuple[str, str]], names: list[str]) -> None:
    decisions = Decisions([said(*event) for event in events])
    shown, _ = settled_members(members(" ".join(names)), decisions)
    if not shown:
        for one in names:
            for other in names:
                assert one == other or decisions.about(sha(one), sha(other))
        return
    keeper = shown[0]
    for member in shown[1:]:
        said_last = next(iter(decisions.about(member.image.sha256, keeper.image.sha256)), None)
        if not member.stays and said_last is not None:
            assert said_last.decision == THIS_ONE
            assert said_last.images[0].sha256 != member.image.sha256
        if not decisions.about(member.image.sha256):
            assert not member.stays
            assert not member.remembered


def test_a_group_of_thousands_takes_no_time() -> None:
    rows = range(20_000)
    everyone = [Member(row, IndexedImage(path=f"{row}", sha256=f"{row:064x}"), 1.0, "") for row in rows]
    decision = Decision(KEEP_ALL, tuple(DecidedImage(one.image.sha256, "") for one in everyone))
    assert settled_members(everyone, Decisions([decision])) == ([], {decision.key})
    group = Group(everyone[0], tuple(everyone[1:]))
    other = said(KEEP_ALL, "x y")
    assert settled_groups([group], Decisions([other])) == ([group], set())


# With images


def fields(images: np.ndarray) -> np.ndarray:
    small = images.reshape(-1, 8, 4, 8, 4, 3).mean(axis=(2, 4), dtype=np.float32).reshape(-1, 192) / 127.5 - 1
    return small / np.maximum(np.linalg.norm(small, axis=1, keepdims=True), 1e-12)


EMBEDDER = Embedder("eight", "f" * 64, 32, "stretch", 192, fields)


class Collection:
    """A folder of two photos, each with a smaller copy, and its index."""

    def __init__(self, folder: Path, scene: Scene) -> None:
        self.folder, self.index_dir = folder / "photos", folder / "i"
        self.plan = folder / "plan.json"
        self.scene = scene
        self.folder.mkdir()
        for seed in (1, 2):
            scene(seed).save(self.folder / f"{seed}.png")
            self.add(seed, f"{seed}-small.png", (200, 150))

    def add(self, seed: int, name: str, size: tuple[int, int]) -> None:
        self.scene(seed).resize(size, Image.Resampling.BICUBIC).save(self.folder / name)

    def decide(self, word: str, *names: str) -> None:
        index = self.indexed()
        of = {image.path: image.sha256 for image in index.images}
        event = Decision(word, tuple(DecidedImage(of[name], name) for name in names))
        record(self.index_dir, lambda decisions: [event])

    def indexed(self) -> SearchIndex:
        return index_folder(self.index_dir, self.folder, EMBEDDER).index

    def find(self) -> Duplicates:
        """Find copies, and write the plan."""
        found = find_duplicates(self.indexed(), threshold=0.6)
        write_plan(self.plan, self.folder, found.groups, (), self.index_dir)
        return found

    def groups(self) -> list[list[str]]:
        return [[member.image.path for member in group.members] for group in self.find().groups]

    def removed(self) -> list[str]:
        self.find()
        return [file.path for file in load_plan(self.plan).removals]


@pytest.fixture
def collection(tmp_path: Path, scene: Scene) -> Collection:
    return Collection(tmp_path, scene)


@pytest.mark.parametrize("word", [NOT_COPIES, KEEP_ALL])
def test_decisions_survive_moves_renames_and_updates(collection: Collection, tmp_path: Path, word: str) -> None:
    assert len(collection.groups()) == 2
    collection.decide(word, "1.png", "1-small.png")
    found = collection.find()
    assert [group.keeper.image.path for group in found.groups] == ["2.png"]
    assert found.num_left_out == 1
    (collection.folder / "old").mkdir()
    (collection.folder / "1.png").rename(collection.folder / "old" / "one.png")
    collection.folder.rename(tmp_path / "elsewhere")
    collection.index_dir.rename(tmp_path / "moved index")
    collection.folder, collection.index_dir = tmp_path / "elsewhere", tmp_path / "moved index"
    assert collection.groups() == [["2.png", "2-small.png"]]
    for path in collection.index_dir.iterdir():  # made again, as the message about a damaged index says
        if path.name != "decisions.jsonl":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert collection.groups() == [["2.png", "2-small.png"]]
    collection.decide(UNDONE, "old/one.png", "1-small.png")
    assert len(collection.groups()) == 2


def test_a_third_image_brings_the_group_up_again(collection: Collection) -> None:
    collection.decide(KEEP_ALL, "1.png", "1-small.png")
    collection.add(1, "1-tiny.png", (160, 120))
    (group, _) = collection.find().groups
    told = {member.image.path: (member.stays, bool(member.remembered)) for member in group.members}
    assert told == {"1.png": (True, True), "1-small.png": (True, True), "1-tiny.png": (False, False)}
    assert collection.removed() == ["1-tiny.png", "2-small.png"]
    collection.decide(NOT_COPIES, "1-tiny.png", "1.png", "1-small.png")
    assert collection.groups() == [["2.png", "2-small.png"]]


def test_the_chosen_one_is_kept(collection: Collection) -> None:
    collection.decide(THIS_ONE, "1-small.png", "1.png")
    group = collection.find().groups[0]
    assert (group.keeper.image.path, group.keeper.reason) == ("1-small.png", "as decided")
    assert collection.removed() == ["1.png", "2-small.png"]
    collection.add(1, "1-large.png", (640, 480))  # a better one does not replace it
    assert set(collection.removed()) == {"1.png", "1-large.png", "2-small.png"}


def test_a_plan_that_is_older_than_a_decision_moves_nothing_that_was_decided_to_stay(collection: Collection) -> None:
    assert collection.removed() == ["1-small.png", "2-small.png"]
    collection.decide(NOT_COPIES, "1.png", "1-small.png")
    applied = apply_plan(load_plan(collection.plan), dry_run=False)
    assert applied.moved == ("2-small.png",)
    ((path, reason),) = applied.skipped
    assert path == "1-small.png"
    assert reason.startswith("it stays: 'not copies' was decided on 20")


def test_a_mirrored_copy_that_is_decided_is_never_verified(
    collection: Collection, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    ImageOps.mirror(scene(1)).save(collection.folder / "1-mirrored.png")
    verify, verified = IndexImages.verify, set[frozenset[str]]()

    def spied(images: IndexImages, one: int, other: int) -> object:
        verified.add(frozenset(images.index.images[row].path for row in (one, other)))
        return verify(images, one, other)

    monkeypatch.setattr(IndexImages, "verify", spied)
    collection.find()
    assert {"1.png", "1-mirrored.png"} in verified
    collection.decide(NOT_COPIES, "1.png", "1-mirrored.png")
    verified.clear()
    collection.find()
    assert verified
    assert {"1.png", "1-mirrored.png"} not in verified
