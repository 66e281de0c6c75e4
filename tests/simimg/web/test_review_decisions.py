"""Decisions on the search page: stored, honored, restored by an undo, and refused where they make no sense."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from simimg.similarity.decisions import DECISIONS_FILE, REMOVED, DecidedImage, Decision, read_decisions, record
from simimg.similarity.embeddings import Embedder
from simimg.similarity.search_index import SearchIndex
from simimg.web import ServedIndex, create_app

Row = Callable[[str], int]


@pytest.fixture
def index_dir(index: SearchIndex, tmp_path: Path) -> Path:
    """A copy of the index, so that decisions are only this test's."""
    return Path(shutil.copytree(index.index_dir, tmp_path / "i"))


@pytest.fixture
def client(index_dir: Path, embedder: Embedder, plan_path: Path) -> Iterator[Any]:
    app = create_app(ServedIndex(SearchIndex.open(index_dir), embedder, plan_path), token="5ec2e7")
    with TestClient(app, base_url="http://127.0.0.1:8765", cookies={"simimg-8765": "5ec2e7"}) as client:
        yield client


def reviewed(client: Any) -> dict[str, Any]:
    assert client.post("/api/review", json={"threshold": 0.6}).status_code == 202
    while (review := client.get("/api/review").json())["job"]["state"] == "running":
        time.sleep(0.05)
    return dict(review)


def rows(group: dict[str, Any]) -> list[int]:
    return [member["row"] for member in group["members"]]


def decide(client: Any, decision: str, *named: int, group: tuple[int, ...] = ()) -> Any:
    return client.post(
        "/api/decisions",
        json={"decisions": [{"decision": decision, "rows": list(named)}], "group": list(group or named)},
    )


def test_a_decided_group_is_not_shown_again_and_not_saved(client: Any, index_dir: Path, plan_path: Path) -> None:
    first, second = reviewed(client)["groups"]
    answer = decide(client, "keep all", *rows(first)).json()
    assert answer["members"] == []
    assert answer["undo"] == [{"decision": "undone", "rows": rows(first)}]
    review = client.get("/api/review").json()  # without a new search
    assert [rows(group) for group in review["groups"]] == [rows(second)]
    assert review["num_left_out"] == 1
    again = reviewed(client)
    assert (again["groups"], again["num_left_out"]) == (review["groups"], 1)
    choices = [{"keep": group["keep"], "remove": group["remove"]} for group in again["groups"]]
    assert client.put("/api/plan", json={"version": "", "groups": choices}).status_code == 200
    assert json.loads(plan_path.read_bytes())["index_dir"] == str(index_dir)
    assert client.post("/api/decisions", json={"decisions": answer["undo"], "group": rows(first)}).status_code == 200
    assert not list(read_decisions(index_dir))


def test_not_copies_is_said_of_each_pair(client: Any, row_of: Row) -> None:
    first, second = reviewed(client)["groups"]
    odd = row_of("old/0-mirrored.jpg")
    left = decide(client, "not copies", *rows(first)).json()["members"]
    assert odd not in [member["row"] for member in left]  # the others have the same bytes
    assert not any(member["stays"] for member in left)
    assert [rows(group) for group in client.get("/api/review").json()["groups"]] == [
        [row for row in rows(first) if row != odd],
        rows(second),
    ]


def test_a_chosen_one_is_the_best_next_time_and_an_undo_restores_what_counted(
    client: Any, index: SearchIndex, index_dir: Path
) -> None:
    _, group = reviewed(client)["groups"]
    keep, other = rows(group)
    first = decide(client, "this one", other, keep).json()
    assert [(one["row"], one["stays"]) for one in first["members"]] == [(other, True), (keep, False)]
    again = client.get("/api/review").json()["groups"][1]  # without a new search
    assert (again["keep"], again["remove"]) == (other, [keep])
    found = reviewed(client)["groups"][1]
    assert (found["keep"], found["remove"]) == (other, [keep])
    assert found["members"][0]["remembered"].endswith("this one is kept")
    second = decide(client, "not copies", keep, other).json()
    assert second["undo"] == [{"decision": "this one", "rows": [other, keep]}]
    client.post("/api/decisions", json={"decisions": second["undo"], "group": [keep, other]})
    (counts,) = read_decisions(index_dir)
    assert (counts.decision, counts.images[0].path) == ("this one", index.images[other].path)
    decide(client, "undone", keep, other)
    again = client.get("/api/review").json()["groups"][1]
    assert [(one["remembered"], one["stays"]) for one in again["members"]] == [("", False)] * 2


def test_what_a_plan_removes_stays_after_a_decision(client: Any, row_of: Row) -> None:
    reviewed(client)
    removed = sorted([row_of("old/0-bytes.jpg"), row_of("old/0-mirrored.jpg")])
    saved = [{"keep": row_of("cats/0.jpg"), "remove": removed}]
    assert client.put("/api/plan", json={"version": "", "groups": saved}).status_code == 200
    decide(client, "not copies", row_of("cats/0.jpg"), row_of("dogs/1.jpg"))  # of another group: changes nothing
    assert client.get("/api/review").json()["groups"][0]["remove"] == removed
    decide(client, "keep all", row_of("cats/0.jpg"), row_of("old/0-mirrored.jpg"))
    group = client.get("/api/review").json()["groups"][0]
    assert group["remove"] == [row_of("old/0-bytes.jpg")]
    assert {one["row"] for one in group["members"] if one["stays"]} == {
        row_of("cats/0.jpg"),
        row_of("old/0-mirrored.jpg"),
    }


def test_a_decision_by_command_while_the_page_is_open(client: Any, index_dir: Path, row_of: Row) -> None:
    """What is suggested is what a new search would suggest, and what was decided to stay cannot be removed."""
    original, same, mirrored = (row_of(f"{name}.jpg") for name in ("cats/0", "old/0-bytes", "old/0-mirrored"))
    shown = reviewed(client)
    images = [DecidedImage(shas(index_dir)[row], "") for row in (mirrored, original)]
    record(index_dir, lambda decisions: [Decision("this one", tuple(images))])
    group = client.get("/api/review").json()["groups"][0]
    again = reviewed(client)["groups"][0]
    for one in (group, again):
        assert one["keep"] == mirrored
        states = {member["row"]: (member["question"], member["stays"]) for member in one["members"]}
        assert states[mirrored] == (False, True)
    assert group["remove"] == again["remove"]
    choices = [{"keep": one["keep"], "remove": one["remove"]} for one in shown["groups"]]
    choices[0]["remove"] = [mirrored]
    answer = client.put("/api/plan", json={"version": "", "groups": choices})
    assert answer.status_code == 409
    assert answer.json()["error"] == (
        "old/0-mirrored.jpg was decided to stay since this page was loaded. Load the page again."
    )
    assert same in group["remove"] or any(member["row"] == same and member["question"] for member in group["members"])


def shas(index_dir: Path) -> list[str]:
    return list(SearchIndex.open(index_dir).images.column("sha256"))


def test_a_decision_in_the_plan_is_stored_when_it_is_saved(
    client: Any, index_dir: Path, plan_path: Path, row_of: Row
) -> None:
    groups = [{"keep": row_of("cats/0.jpg"), "remove": [row_of("old/0-mirrored.jpg")]}]
    client.put("/api/plan", json={"version": "", "groups": groups})
    values = json.loads(plan_path.read_bytes())
    values["groups"][0]["decision"] = "keep all"
    plan_path.write_text(json.dumps(values))
    version = client.get("/api/review").json()["plan"]["version"]
    assert client.put("/api/plan", json={"version": version, "groups": []}).status_code == 200
    assert [one.decision for one in read_decisions(index_dir)] == ["keep all"]
    values["groups"][0]["decision"] = "maybe"
    plan_path.write_text(json.dumps(values))
    assert "the decision 'maybe' about cats/0.jpg" in client.get("/api/review").json()["plan"]["problem"]


def test_an_image_that_was_removed_and_is_back_is_told(
    client: Any, index: SearchIndex, index_dir: Path, row_of: Row
) -> None:
    image = index.images[row_of("dogs/3.jpg")]
    record(index_dir, lambda decisions: [Decision(REMOVED, (DecidedImage(image.sha256, "former.jpg"),))])
    (text,) = client.get("/api/review").json()["returned"]
    assert text.endswith(" as former.jpg, back as dogs/3.jpg")


@pytest.mark.parametrize(
    "values",
    [
        [],
        {},
        {"decisions": [], "group": []},
        {"decisions": {}, "group": [0, 1]},
        {"decisions": [3], "group": [0, 1]},
        {"decisions": [{"decision": "maybe", "rows": [0, 1]}], "group": [0, 1]},
        {"decisions": [{"decision": "removed", "rows": [0, 1]}], "group": [0, 1]},
        {"decisions": [{"decision": "keep all", "rows": [0, 99]}], "group": [0, 1]},
        {"decisions": [{"decision": "keep all", "rows": [0, True]}], "group": [0, 1]},
        {"decisions": [{"decision": "keep all", "rows": [1, 1]}], "group": [0, 1]},
        {"decisions": [{"decision": "keep all", "rows": [1]}], "group": [0, 1]},
        {"decisions": [{"decision": ["keep all"], "rows": [0, 1]}], "group": [0, 1]},
    ],
)
def test_what_is_no_decision_is_refused(client: Any, index_dir: Path, values: Any) -> None:
    answer = client.post("/api/decisions", json=values)
    assert answer.status_code == 422
    assert answer.json()["error"]
    assert not list(read_decisions(index_dir))


def test_files_of_the_same_bytes_are_copies(client: Any, row_of: Row) -> None:
    answer = decide(client, "not copies", row_of("cats/0.jpg"), row_of("old/0-bytes.jpg"))
    assert answer.status_code == 422
    assert "the files have the same bytes, so they are copies" in answer.json()["error"]


def test_a_damaged_file_is_told(client: Any, index_dir: Path) -> None:
    (index_dir / DECISIONS_FILE).write_text("{}\n")
    for answer in (client.get("/api/review"), decide(client, "keep all", 0, 1)):
        assert answer.status_code == 409
        assert f"{index_dir / DECISIONS_FILE} is not a file of decisions" in answer.json()["error"]
