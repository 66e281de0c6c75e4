"""Findings on the page's server: the audit in the background, decisions, undo, and two browsers."""

from __future__ import annotations

import csv
import dataclasses
import io
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from simimg.health.audited_images import AuditedImages
from simimg.health.collection_audit import Audit
from simimg.health.finding import Finding
from simimg.health.findings_file import load_findings, save_findings
from simimg.similarity.decisions import DECISIONS_FILE, NOT_COPIES, DecidedImage, Decision, read_decisions, record
from simimg.similarity.embeddings import Embedder
from simimg.similarity.search_index import SearchIndex
from simimg.web import ServedIndex, create_app
from simimg.web.collection_findings import Findings

Row = Callable[[str], int]
CAT: dict[str, Any] = {"path": "cats/2.jpg", "label": "cats", "evidence": ("dogs/1.jpg",)}
DARK: dict[str, Any] = {"path": "cats/4.jpg", "label": "cats", "suggestion": "drop"}
FINDINGS = (
    Finding(kind="label", score=0.97, suggestion="dogs", reason="dogs fits", **CAT),
    Finding(kind="label_conflict", score=0.9, reason="a copy", **CAT),
    Finding(kind="dark", score=0.8, reason="dark", **DARK),
    Finding(kind="blurred", score=0.7, reason="blurred", **DARK),
    Finding(kind="few_images", score=0.6, label="old", reason="3 images", evidence=("old/0-bytes.jpg",)),
)


@pytest.fixture
def opened(index: SearchIndex, tmp_path: Path) -> SearchIndex:
    """A copy of the index with the findings of an audit, so that decisions are only this test's."""
    opened = SearchIndex.open(Path(shutil.copytree(index.index_dir, tmp_path / "i")))
    agreement = np.full(len(opened.images), 0.9)
    agreement[0] = np.nan
    audited = AuditedImages.of_index(opened)
    likely = {"cats/2.jpg": ("dogs", "old")}
    save_findings(
        opened, Audit(FINDINGS, 15, audited, notes=("one",), label_accuracy=0.9, agreement=agreement, likely=likely)
    )
    return opened


@pytest.fixture
def client(opened: SearchIndex, embedder: Embedder, plan_path: Path) -> Iterator[Any]:
    app = create_app(ServedIndex(opened, embedder, plan_path), token="5ec2e7")
    with TestClient(app, base_url="http://127.0.0.1:8765", cookies={"simimg-8765": "5ec2e7"}) as client:
        yield client


def test_a_dataset_at_a_url_is_edited_where_it_was_made(opened: SearchIndex) -> None:
    """`simimg edit` takes no URL."""
    for given, shown in (("/data/zoo/1.0.0", "/data/zoo/1.0.0"), ("s3://own/zoo/1.0.0", "DATA_DIR/NAME/VERSION")):
        info = dataclasses.replace(opened.info, dataset_dir=given)
        findings = Findings(opened)
        findings._index = dataclasses.replace(opened, info=info)
        assert f"--dataset_dir={shown} " in findings._commands()["edit"]


def decide(client: Any, *decisions: dict[str, Any], status: int = 200) -> Any:
    audit = client.get("/api/findings/decisions").json()["audit"]
    answer = client.post("/api/findings/decisions", json={"version": audit, "decisions": list(decisions)})
    assert answer.status_code == status, answer.text
    return answer.json()


def words(values: dict[str, Any]) -> dict[int, list[Any]]:
    return {int(number): [one["decision"], one["label"]] for number, one in values["decided"].items()}


def test_findings_are_columns_of_rows(client: Any, row_of: Row) -> None:
    values = client.get("/api/findings").json()
    assert values["audited"]
    assert values["job"]["state"] == "idle"
    found = values["findings"]
    assert found["row"] == [row_of("cats/2.jpg")] * 2 + [row_of("cats/4.jpg")] * 2 + [-1]
    assert found["evidence"][0] == [row_of("dogs/1.jpg")]
    assert found["likely"][0] == ["dogs", "old"]
    assert values["agreement"][:2] == [None, 0.9]
    assert values["decisions"]["decided"] == {}


def test_decisions_are_kept_settle_findings_and_become_lists(client: Any, opened: SearchIndex, row_of: Row) -> None:
    done = decide(
        client,
        {"finding": 0, "decision": "relabel", "label": "dogs", "before": None},
        {"finding": 2, "decision": "drop", "before": None},
        {"finding": 4, "decision": "right"},
        {"row": row_of("dogs/3.jpg"), "decision": "relabel", "label": "cats"},
    )
    assert words(done) == {
        0: ["relabel", "dogs"],
        1: ["relabel", "dogs"],
        2: ["drop", ""],
        3: ["drop", ""],
        4: ["right", ""],
    }
    assert [done["decided"][str(number)]["own"] for number in range(5)] == [True, False, True, False, True]
    assert done["images"] == {
        str(row_of("cats/2.jpg")): ["relabel", "dogs"],
        str(row_of("cats/4.jpg")): ["drop", ""],
        str(row_of("dogs/3.jpg")): ["relabel", "cats"],
    }
    labels = list(csv.DictReader(io.StringIO(client.get("/api/findings/relabel.csv").text)))
    assert {one["path"]: one["label"] for one in labels} == {"cats/2.jpg": "dogs", "dogs/3.jpg": "cats"}
    assert labels[1]["reason"] == "chosen by hand" or labels[0]["reason"] == "chosen by hand"
    assert "cats/4.jpg,dark: dark" in client.get("/api/findings/delete.csv").text
    assert client.get("/api/findings/plan.csv").status_code == 404
    assert len(read_decisions(opened.index_dir).findings) == 4
    undone = decide(client, *done["undo"])
    assert words(undone) == {}
    assert undone["images"] == {}


def test_a_second_thought_and_its_undo(client: Any) -> None:
    decide(client, {"finding": 2, "decision": "drop"})
    done = decide(client, {"finding": 3, "decision": "right", "before": ["drop", ""]})  # and so it is not dropped
    assert words(done) == {3: ["right", ""]}
    assert words(decide(client, *done["undo"])) == {2: ["drop", ""], 3: ["drop", ""]}
    done = decide(client, {"finding": 3, "decision": "undone"})
    assert words(done) == {}
    assert words(decide(client, *done["undo"])) == {2: ["drop", ""], 3: ["drop", ""]}
    done = decide(client, {"finding": 2, "decision": "relabel", "label": "dogs"})
    assert words(done)[2] == ["relabel", "dogs"]
    assert words(decide(client, *done["undo"]))[2] == ["drop", ""]
    same = decide(client, {"finding": 2, "decision": "drop"})
    assert same["undo"] == []


def test_two_browsers_keep_one_truth(client: Any, opened: SearchIndex) -> None:
    answer = client.get("/api/findings/decisions")
    tag = answer.headers["etag"]
    assert client.get("/api/findings/decisions", headers={"if-none-match": tag}).status_code == 304
    decide(client, {"finding": 0, "decision": "right", "before": None})
    later = client.get("/api/findings/decisions", headers={"if-none-match": tag})
    assert later.status_code == 200
    assert words(later.json()) == {0: ["right", ""]}
    refused = decide(client, {"finding": 0, "decision": "drop", "before": None}, status=409)
    assert refused["error"] == "Right was decided about cats/2.jpg in the meantime."
    assert words(client.get("/api/findings/decisions").json()) == {0: ["right", ""]}
    answer = client.post(
        "/api/findings/decisions", json={"version": "old", "decisions": [{"finding": 0, "decision": "drop"}]}
    )
    assert answer.status_code == 409
    (opened.index_dir / DECISIONS_FILE).write_text("broken\n")
    assert client.get("/api/findings/decisions").status_code == 409


def test_what_was_decided_about_copies_settles_what_follows(client: Any, opened: SearchIndex, row_of: Row) -> None:
    pair = [opened.images[row_of(path)] for path in ("cats/2.jpg", "dogs/1.jpg")]
    record(
        opened.index_dir,
        lambda known: [Decision(NOT_COPIES, tuple(DecidedImage(one.sha256, one.path) for one in pair))],
    )
    assert words(client.get("/api/findings/decisions").json()) == {1: ["not copies", ""]}
    refused = decide(client, {"finding": 1, "decision": "undone"}, status=409)
    assert "simimg decide --undo" in refused["error"]


@pytest.mark.parametrize(
    "one",
    [
        {"finding": 99, "decision": "drop"},
        {"finding": -1, "decision": "drop"},
        {"row": 99, "decision": "drop"},
        {"decision": "drop"},
        {"finding": 0, "decision": "keep all"},
        {"finding": 0, "decision": "relabel"},
        {"finding": 0, "decision": "relabel", "label": "a\nb"},
        {"finding": 0, "decision": "relabel", "label": 7},
        {"finding": 0, "decision": "drop", "before": "drop"},
        {"finding": 4, "decision": "drop"},
        {"row": 0, "decision": "right"},
        7,
    ],
)
def test_nonsense_is_refused(client: Any, one: Any) -> None:
    assert "error" in decide(client, one, status=422)


def test_the_audit_runs_in_the_background_and_is_kept(
    index: SearchIndex, embedder: Embedder, plan_path: Path, tmp_path: Path
) -> None:
    opened = SearchIndex.open(Path(shutil.copytree(index.index_dir, tmp_path / "i")))
    app = create_app(ServedIndex(opened, embedder, plan_path), token="5ec2e7")
    with TestClient(app, base_url="http://127.0.0.1:8765", cookies={"simimg-8765": "5ec2e7"}) as client:
        assert client.get("/api/findings").json()["audited"] is False
        assert client.post("/api/findings", json={}).status_code == 202
        while (values := client.get("/api/findings").json())["job"]["state"] == "running":
            time.sleep(0.05)
        assert values["job"]["error"] == ""
        assert values["audited"]
        assert values["num_images"] == 15
    kept = load_findings(opened)
    assert kept is not None
    assert kept.version == values["version"]
    later = dataclasses.replace(opened, info=dataclasses.replace(opened.info, generation=99))
    assert load_findings(later) is None
