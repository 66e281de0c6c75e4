"""Reviewing copies: what is suggested, what a plan says, and that it is written as `simimg duplicates` writes it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from simimg.similarity.duplicate_groups import Duplicates, Group, Member, find_duplicates
from simimg.similarity.edits import PLANNED
from simimg.similarity.file_quarantine import apply_plan
from simimg.similarity.index_images import IndexImages
from simimg.similarity.plan_file import load_plan, reference_dirs_of, write_plan
from simimg.similarity.search_index import SearchIndex
from simimg.web import review as review_module
from simimg.web.groups_so_far import GroupsSoFar
from simimg.web.request_guard import RequestError
from simimg.web.review import Review

Row = Callable[[str], int]


def reviewed(client: Any, threshold: float = 0.6) -> dict[str, Any]:
    """The review, after copies were looked for."""
    assert client.post("/api/review", json={"threshold": threshold}).status_code == 202
    for _ in range(2400):  # two minutes
        review: dict[str, Any] = client.get("/api/review").json()
        if review["job"]["state"] == "done":
            return review
        assert review["job"]["state"] == "running"
        time.sleep(0.05)
    raise AssertionError("it does not end")


def choices_of(review: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"keep": group["keep"], "remove": group["remove"]} for group in review["groups"]]


def save(client: Any, version: str, groups: list[dict[str, Any]]) -> Any:
    return client.put("/api/plan", json={"version": version, "groups": groups})


def test_nothing_is_there_before(client: Any, plan_path: Path) -> None:
    review = client.get("/api/review").json()
    assert review["groups"] == []
    assert not review["searched"]
    assert review["threshold"] == 0.9
    assert review["plan"] == {
        "path": str(plan_path),
        "version": "",
        "num_unknown": 0,
        "problem": "",
        "possible": True,
    }


def test_saved_as_suggested_it_is_the_plan_of_duplicates(
    client: Any, index: SearchIndex, plan_path: Path, tmp_path: Path, row_of: Row
) -> None:
    review = reviewed(client)
    assert choices_of(review) == [
        {"keep": row_of("cats/0.jpg"), "remove": [row_of("old/0-bytes.jpg")]},
        {"keep": row_of("old/1-large.jpg"), "remove": [row_of("dogs/1.jpg")]},
    ]
    asked = [member["row"] for group in review["groups"] for member in group["members"] if member["question"]]
    assert asked == [row_of("old/0-mirrored.jpg")]
    assert review["job"]["done"] == review["job"]["total"] == len(index.images)
    saved = save(client, "", choices_of(review))
    assert saved.status_code == 200
    assert saved.json()["num_removals"] == 2
    expected = tmp_path / "expected.json"
    assert index.info.image_dir
    groups = find_duplicates(index, threshold=0.6).groups
    write_plan(expected, Path(index.info.image_dir), groups, (), index.index_dir, PLANNED)
    ours, theirs = (json.loads(path.read_bytes()) for path in (plan_path, expected))
    assert [question["path"] for question in ours["groups"][0]["questions"]] == ["old/0-mirrored.jpg"]
    assert ours == theirs
    applied = apply_plan(load_plan(plan_path), dry_run=True)
    assert len(applied.moved) == 2
    assert not applied.skipped


def test_another_keeper_has_reasons_of_its_own(client: Any, plan_path: Path, row_of: Row) -> None:
    keep, remove = row_of("old/0-mirrored.jpg"), [row_of("cats/0.jpg"), row_of("dogs/3.jpg")]
    assert save(client, "", [{"keep": keep, "remove": remove}]).status_code == 200
    (group,) = json.loads(plan_path.read_bytes())["groups"]
    assert group["keep"]["path"] == "old/0-mirrored.jpg"
    assert group["keep"]["why"] == "chosen by hand"
    reasons = {one["path"]: (one["similarity"], one["reason"]) for one in group["remove"]}
    assert reasons["cats/0.jpg"][0] > 0.9
    assert reasons["cats/0.jpg"][1].startswith("mirrored")
    assert reasons["dogs/3.jpg"] == (0.5, "chosen by hand")


def test_a_plan_is_loaded_and_goes_on(client: Any, index: SearchIndex, plan_path: Path, row_of: Row) -> None:
    groups = find_duplicates(index, threshold=0.6).groups
    assert index.info.image_dir
    write_plan(plan_path, Path(index.info.image_dir), groups[1:])
    values = json.loads(plan_path.read_bytes())
    values["groups"].append(
        {"keep": {"path": "gone.jpg", "sha256": "0"}, "remove": [{"path": "gone-too.jpg", "sha256": "0"}]}
    )
    plan_path.write_text(json.dumps(values))
    review = client.get("/api/review").json()
    assert not review["searched"]
    assert review["plan"]["num_unknown"] == 1
    (group,) = review["groups"]
    assert group["planned"]
    assert group["remove"] == [row_of("dogs/1.jpg")]
    assert group["members"][1]["reason"] == groups[1].others[0].reason
    # What was found since, and the plan does not speak of, stays.
    found, planned = reviewed(client)["groups"]
    assert not found["planned"]
    assert found["remove"] == []
    assert planned["remove"] == [row_of("dogs/1.jpg")]


def test_questions_of_a_plan_are_shown_and_stay_in_it(
    client: Any, index: SearchIndex, plan_path: Path, row_of: Row
) -> None:
    assert index.info.image_dir
    groups = find_duplicates(index, threshold=0.6).groups
    write_plan(plan_path, Path(index.info.image_dir), groups, (), index.index_dir, frozenset())
    written = json.loads(plan_path.read_bytes())
    assert [len(group["questions"]) for group in written["groups"]] == [1, 1]
    for find in (lambda: client.get("/api/review").json(), lambda: reviewed(client)):
        review = find()
        assert [group["remove"] for group in review["groups"]] == [[row_of("old/0-bytes.jpg")], []]
        assert [[one["question"] for one in group["members"]] for group in review["groups"]] == [
            [False, False, True],
            [False, True],
        ]
        version = review["plan"]["version"]
        assert save(client, version, choices_of(review)).json()["num_removals"] == 1
        assert json.loads(plan_path.read_bytes()) == written
    first, second = choices_of(review)
    first["remove"].append(row_of("old/0-mirrored.jpg"))  # the user answers one
    assert save(client, version, [first, second]).json()["num_removals"] == 2
    ours = json.loads(plan_path.read_bytes())["groups"]
    assert [(len(group["remove"]), len(group.get("questions", ()))) for group in ours] == [(2, 0), (0, 1)]


def groups_of(index: SearchIndex, *groups: str) -> tuple[Group, ...]:
    """Groups of rows, each a digit, the keeper first."""
    members = ([Member(int(row), index.images[int(row)], 0.5 + int(row) / 20, f"of {group}") for row in group]
               for group in groups)  # fmt: skip
    return tuple(Group(keeper, tuple(others)) for keeper, *others in members)


@pytest.mark.parametrize(
    ("found", "planned", "shown"),
    [
        (["12"], ["123"], [([1, 2, 3], 1, [2, 3])]),  # it is extended
        (["23"], ["123"], [([1, 2, 3], 1, [2, 3])]),
        (["32"], ["12"], [([1, 2, 3], 1, [2])]),
        (["45", "12", "37"], ["13"], [([4, 5], 4, []), ([1, 3, 2, 7], 1, [3])]),  # two of them are joined
        (["23", "67"], ["12", "34", "46"], [([4, 6, 3, 1, 2, 7], 3, [2, 4, 6])]),
        (["1234"], ["21", "43"], [([1, 2, 3, 4], 4, [1, 3])]),
        ([], ["12", "34"], [([1, 2], 1, [2]), ([3, 4], 3, [4])]),
        ([], ["12", "23"], [([2, 3, 1], 1, [2, 3])]),  # which somebody wrote
        ([], ["12", "21"], [([1, 2], 1, [2])]),
    ],
)
def test_no_removal_of_the_plan_is_lost_by_a_search(
    index: SearchIndex, plan_path: Path, found: list[str], planned: list[str], shown: list[Any]
) -> None:
    assert index.info.image_dir
    write_plan(plan_path, Path(index.info.image_dir), groups_of(index, *planned))
    review = Review(index, IndexImages(index), plan_path)
    review.job.result = review_module._Found(0.6, Duplicates(groups_of(index, *found), 0, 0, index=index))
    values = review.described()
    groups = [([one["row"] for one in group["members"]], group["keep"], group["remove"]) for group in values["groups"]]
    assert groups == shown
    review.save({"version": values["plan"]["version"], "groups": choices_of(values)})


def test_a_found_keeper_in_a_planned_group_has_the_similarity_of_the_shared_image(
    index: SearchIndex, plan_path: Path
) -> None:
    assert index.info.image_dir
    write_plan(plan_path, Path(index.info.image_dir), groups_of(index, "12"))
    review = Review(index, IndexImages(index), plan_path)
    review.job.result = review_module._Found(0.6, Duplicates(groups_of(index, "32"), 0, 0, index=index))
    ((_, shared, keeper),) = (group["members"] for group in review.described()["groups"])
    assert (shared["similarity"], shared["reason"]) == (0.6, "of 12")
    assert (keeper["row"], keeper["similarity"]) == (3, 0.6)
    assert keeper["reason"] == f"similar to {index.images[2].path}"


def test_what_somebody_else_has_written_is_not_written_over(client: Any, plan_path: Path, row_of: Row) -> None:
    group = {"keep": row_of("cats/0.jpg"), "remove": [row_of("old/0-bytes.jpg")]}
    version = save(client, "", [group]).json()["version"]
    assert save(client, "", [group]).status_code == 409
    written = plan_path.read_bytes()
    assert save(client, version, []).status_code == 200
    plan_path.write_bytes(written)
    answer = save(client, "0" * 64, [])
    assert answer.status_code == 409
    assert str(plan_path) in answer.json()["error"]
    assert plan_path.read_bytes() == written


@pytest.mark.parametrize(
    "values",
    [
        [],
        {},
        {"version": ""},
        {"version": 3, "groups": []},
        {"version": "", "groups": {}},
        {"version": "", "groups": [3]},
        {"version": "", "groups": [{"keep": 0}]},
        {"version": "", "groups": [{"keep": 0, "remove": ["1"]}]},
        {"version": "", "groups": [{"keep": True, "remove": [2]}]},
        {"version": "", "groups": [{"keep": 0, "remove": [-1]}]},
        {"version": "", "groups": [{"keep": 0, "remove": [15]}]},
        {"version": "", "groups": [{"keep": 0, "remove": [0]}]},
        {"version": "", "groups": [{"keep": 0, "remove": [1]}, {"keep": 1, "remove": [2]}]},
        {"version": "", "groups": [{"keep": 0, "remove": [1.0]}]},
    ],
)
def test_what_is_no_review_is_refused(client: Any, plan_path: Path, values: Any) -> None:
    answer = client.put("/api/plan", json=values)
    assert answer.status_code == 422
    assert answer.json()["error"]
    assert not plan_path.exists()


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 100_000, b"\xff"])
def test_what_is_no_json_is_refused(client: Any, body: bytes) -> None:
    assert client.put("/api/plan", content=body).status_code == 400
    assert client.post("/api/review", content=body[:100]).status_code == 400


@pytest.mark.parametrize("threshold", [0.4, 1.1, "0.9", None, True])
def test_thresholds_that_are_none(client: Any, threshold: Any) -> None:
    assert client.post("/api/review", json={"threshold": threshold}).status_code == 422


def test_a_file_that_is_no_plan_is_left_alone(client: Any, plan_path: Path) -> None:
    plan_path.write_text('{"mine": 1}')
    review = client.get("/api/review").json()
    assert "is not a plan" in review["plan"]["problem"]
    assert review["groups"] == []
    assert save(client, "", []).status_code == 409
    assert plan_path.read_text() == '{"mine": 1}'


def test_a_plan_of_another_folder_is_told(client: Any, plan_path: Path) -> None:
    plan_path.write_text(json.dumps({"format": "simimg-plan/1", "image_dir": "/elsewhere", "groups": []}))
    assert "not about this collection" in client.get("/api/review").json()["plan"]["problem"]


def test_reference_folders_of_the_plan_stay_when_it_is_saved(
    client: Any, index: SearchIndex, plan_path: Path, row_of: Row
) -> None:
    assert index.info.image_dir
    write_plan(plan_path, Path(index.info.image_dir), (), reference_dirs_of(index, ["old"]))
    review = reviewed(client)
    assert review["reference_dirs"] == ["old"]
    first, second = review["groups"]
    assert {one["row"] for one in first["members"] if one["reference"]} == {
        row_of("old/0-bytes.jpg"),
        row_of("old/0-mirrored.jpg"),
    }
    assert first["members"][0]["row"] == first["keep"] == row_of("old/0-bytes.jpg")
    assert second["keep"] == row_of("old/1-large.jpg")
    assert second["members"][0]["reason"] == "in a reference folder"  # the search knows the folder, too
    version = review["plan"]["version"]
    kept = save(client, version, [{"keep": row_of("cats/0.jpg"), "remove": [row_of("old/0-mirrored.jpg")]}])
    assert kept.status_code == 422
    assert kept.json()["error"] == "old/0-mirrored.jpg is in a reference folder of the plan, so it is kept."
    for _ in range(2):
        saved = save(client, version, [{"keep": row_of("old/1-large.jpg"), "remove": [row_of("dogs/1.jpg")]}])
        version = saved.json()["version"]
        plan = load_plan(plan_path)
        assert plan.reference_dirs == ("old",)
        assert [file.path for file in plan.removals] == ["dogs/1.jpg"]


def test_a_removal_that_was_written_into_a_plan_by_hand_is_shown_as_kept(
    client: Any, index: SearchIndex, plan_path: Path, row_of: Row
) -> None:
    assert index.info.image_dir
    write_plan(plan_path, Path(index.info.image_dir), find_duplicates(index, threshold=0.6).groups)
    values = json.loads(plan_path.read_bytes())
    plan_path.write_text(json.dumps(values | {"reference_dirs": ["old"]}))
    first, second = client.get("/api/review").json()["groups"]
    assert (first["keep"], first["remove"]) == (row_of("cats/0.jpg"), [])
    assert [one["reference"] for one in first["members"]] == [False, True, True]
    assert second["remove"] == [row_of("dogs/1.jpg")]


@pytest.mark.parametrize(
    "text", ['{"mine": 1}', '{"format": "simimg-plan/1", "image_dir": "/elsewhere", "groups": []}']
)
def test_what_is_no_plan_of_this_index_is_never_written_over(
    client: Any, plan_path: Path, text: str, row_of: Row
) -> None:
    plan_path.write_text(text)
    version = client.get("/api/review").json()["plan"]["version"]
    answer = save(client, version, [{"keep": row_of("old/1-large.jpg"), "remove": [row_of("dogs/1.jpg")]}])
    assert answer.status_code == 409
    assert "Start simimg serve with another --plan." in answer.json()["error"]
    assert plan_path.read_text() == text


def test_the_threshold_is_that_of_the_groups(
    index: SearchIndex, plan_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, may_end = [], threading.Event()

    def search(index: SearchIndex, *, threshold: float, **others: Any) -> Duplicates:
        asked.append(threshold)
        assert may_end.wait(60)
        if threshold == 0.9:
            raise MemoryError("no more")
        return Duplicates((), 0, 0, index=index)

    def ended(state: str) -> dict[str, Any]:
        may_end.set()
        while review.job.described()["state"] == "running":
            time.sleep(0.01)
        may_end.clear()
        assert review.described()["job"]["state"] == state
        return review.described()

    monkeypatch.setattr(review_module, "find_duplicates", search)
    review = Review(index, IndexImages(index), plan_path)
    review.start(0.6)
    review.start(0.6)  # the same one
    with pytest.raises(RequestError, match=r"A search with the least similarity 0\.6 is running"):
        review.start(0.8)
    assert ended("done")["threshold"] == 0.6
    review.start(0.9)
    assert review.described()["threshold"] == 0.6  # of what is there until it has ended
    assert ended("failed")["threshold"] == 0.6
    review.start(0.8)
    assert ended("done")["threshold"] == 0.8
    assert asked == [0.6, 0.9, 0.8]


def test_pairs_are_joined_to_groups_while_they_are_noticed() -> None:
    groups = GroupsSoFar()
    assert groups.described() == {"num_groups": 0, "groups": []}
    for row, other in ((4, 5), (0, 1), (1, 4), (7, 8), (9, 8), (5, 0)):
        groups.join(row, other)
    assert groups.described() == {"num_groups": 2, "groups": [[0, 1, 4, 5], [7, 8, 9]]}
    for row in range(100, 300, 2):
        groups.join(row, row + 1)
    described = groups.described()
    assert (described["num_groups"], len(described["groups"])) == (102, 60)
    start = time.process_time()
    for row in range(1000, 21_000):  # one large group, as frames of a film are
        groups.join(row, 1000 + row % 2)
    assert time.process_time() - start < 5  # s; a copy of the group per pair takes a minute


def test_a_search_tells_of_each_image_once_and_of_all_groups_before_it_ends(index: SearchIndex) -> None:
    done, groups = [], GroupsSoFar()
    found = find_duplicates(index, threshold=0.6, progress=done.append, noticed=groups.join)
    assert sum(done) == len(index.images)
    assert min(done) >= 0
    noticed = [set(rows) for rows in groups.described()["groups"]]
    assert len(found.groups) == 2
    for group in found.groups:
        assert any({member.row for member in group.members} <= rows for rows in noticed)
