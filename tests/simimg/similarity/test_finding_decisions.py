"""Decisions about findings in the file of decisions: which images they are about, and what counts in the end."""

from __future__ import annotations

from pathlib import Path

import pytest

from simimg.errors import DataError
from simimg.health.decision_table import (
    decided_among,
    decision_events,
    deletions,
    new_labels,
    read_finding_decisions,
    settling,
    write_findings,
)
from simimg.health.finding import Finding
from simimg.similarity.decisions import (
    DECISIONS_FILE,
    NOT_COPIES,
    UNDONE,
    DecidedImage,
    Decision,
    Decisions,
    read_decisions,
    record,
)
from simimg.similarity.finding_decisions import DROP, RELABEL, RIGHT, DecidedFinding
from simimg.similarity.image_table import IndexedImage

A, B, C = "a" * 64, "b" * 64, "c" * 64


def image(path: str, sha256: str, split: str = "train") -> IndexedImage:
    return IndexedImage(path=path, sha256=sha256, label=path.partition("/")[0], split=split)


def event(word: str, path: str, sha256: str, kind: str, new_label: str = "", **more: str) -> Decision:
    about = DecidedFinding(kind, path.partition("/")[0], "train", new_label, **more)
    return Decision(word, (DecidedImage(sha256, path),), finding=about)


def words(images: list[IndexedImage], *events: Decision) -> dict[str, list[str]]:
    by_row = Decisions(events).findings.by_row(images)
    return {images[row].path: [one.decision for one in found] for row, found in sorted(by_row.items())}


def test_a_decision_follows_the_bytes() -> None:
    here = [image("cat/1.jpg", A), image("dog/1.jpg", A), image("cat/2.jpg", B)]
    assert words(here, event(RIGHT, "cat/1.jpg", A, "blurred")) == {"cat/1.jpg": [RIGHT], "dog/1.jpg": [RIGHT]}
    assert words(here, event(RIGHT, "cat/1.jpg", A, "label")) == {"cat/1.jpg": [RIGHT]}  # of the label that it has
    assert words(here, event(DROP, "dog/1.jpg", A, "label_conflict")) == {"dog/1.jpg": [DROP]}  # not of its copy
    moved = [image("cat/new/1.jpg", A), image("dog/9.jpg", A)]
    assert words(moved, event(RELABEL, "cat/1.jpg", A, "label", "dog")) == {"cat/new/1.jpg": [RELABEL]}
    assert words(moved, event(DROP, "bird/1.jpg", A, "dark")) == {}  # the bird is gone, and these were not meant
    done = [image("dog/1.jpg", A)]
    assert words(done, event(RELABEL, "cat/1.jpg", A, "label", "dog")) == {}
    leak = Decision(RIGHT, (DecidedImage(A, "cat/1.jpg"),), finding=DecidedFinding("leak", "cat", "test"))
    assert words([image("cat/1.jpg", A), image("cat/3.jpg", A, "test")], leak) == {"cat/3.jpg": [RIGHT]}


def test_a_copy_of_a_file_that_was_dropped_stays(tmp_path: Path) -> None:
    """Also once the file is deleted: a leak is mended by dropping one of two files of the same bytes."""
    both = [image("cat/1.jpg", A), image("cat/2.jpg", A, "test")]
    (tmp_path / "t.csv").write_text("path,kind,decision\ncat/1.jpg,leak,drop\n")
    decided = read_finding_decisions(tmp_path / "t.csv")
    record(tmp_path, lambda known: decision_events(decided, both, known))
    known = read_decisions(tmp_path)
    assert decision_events(decided, both, known) == []
    assert deletions(decided_among(both, known))[1:] == [("cat/1.jpg", "leak: ")]
    assert deletions(decided_among(both[1:], known))[1:] == []
    record(tmp_path, lambda known: decision_events(decided, both[:1], known))  # the only one of its bytes may move
    moved = [image("cat/new/1.jpg", A)]
    assert deletions(decided_among(moved, read_decisions(tmp_path)))[1:] == [("cat/new/1.jpg", "leak: ")]


def test_the_file_keeps_them_beside_those_about_copies(tmp_path: Path) -> None:
    copies = Decision(NOT_COPIES, (DecidedImage(A, "1"), DecidedImage(B, "2")))
    one = event(RELABEL, "cat/1.jpg", A, "label", "dog", reason="dog fits")
    record(tmp_path, lambda known: [copies, one, event(DROP, "cat/2.jpg", B, "dark")])
    known = read_decisions(tmp_path)
    assert [found.decision for found in known] == [NOT_COPIES]
    assert [found.decision for found in known.findings] == [RELABEL, DROP]
    assert known.latest is not None
    assert known.latest.decision == DROP
    assert known.findings.about(A)[0].finding == one.finding
    assert known.is_dropped(B, "cat/2.jpg")
    assert not known.is_dropped(B, "dog/2.jpg")
    record(tmp_path, lambda known: [event(UNDONE, "cat/2.jpg", B, "dark"), event(RIGHT, "cat/1.jpg", A, "label")])
    known = read_decisions(tmp_path)
    assert [(found.decision, found.key) for found in known.findings] == [(RIGHT, {A})]
    assert known.difference(A, B) is not None


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ('"decision": "drop", "images": []', "there is no decision 'drop'"),
        ('"decision": "drop", "images": [], "finding": {"kind": "dark"}', "about one image"),
        (f'"decision": "relabel", "images": [{{"sha256": "{A}", "path": ""}}], "finding": {{"kind": ""}}', "new label"),
        ('"decision": "right", "images": [], "finding": {"sort": "dark"}', "sort"),
        ('"decision": "right", "images": [], "finding": {"kind": 7}', "texts only"),
    ],
)
def test_a_damaged_line_is_told(values: str, words: str, tmp_path: Path) -> None:
    line = f'{{"time": "2026-11-29T15:40:07+00:00", {values}}}'
    (tmp_path / DECISIONS_FILE).write_text('{"format": "simimg-decisions/1"}\n' + line + "\n")
    with pytest.raises(DataError, match=f"line 2.*{words}"):
        read_decisions(tmp_path)


def test_what_settles_findings_and_the_lists() -> None:
    images = [image("cat/1.jpg", A), image("cat/2.jpg", B), image("dog/3.jpg", C)]
    kinds = [("label", 0), ("label_conflict", 0), ("dark", 1), ("blurred", 1), ("label_conflict", 2)]
    findings = [
        Finding(
            kind=kind, path=images[row].path, score=0.9, reason="r", label=images[row].label, evidence=("cat/2.jpg",)
        )
        for kind, row in kinds
    ]
    known = Decisions(
        [
            event(RELABEL, "cat/1.jpg", A, "label", "dog", reason="dog fits"),
            event(DROP, "cat/2.jpg", B, "dark", reason="black"),
            Decision(
                NOT_COPIES, (DecidedImage(B, "cat/2.jpg"), DecidedImage(C, "dog/3.jpg")), "2026-11-29T15:40:07+00:00"
            ),
        ]
    )
    known = Decisions([Decision(one.decision, one.images, "2026-11-29T15:40:07+00:00", one.finding)
                       for one in (*known, *known.findings)])  # fmt: skip
    decided = decided_among(images, known, findings)
    assert [one and one.word for one in settling(findings, decided)] == [RELABEL, RELABEL, DROP, DROP, NOT_COPIES]
    assert deletions(decided)[1:] == [("cat/2.jpg", "dark: black")]
    assert new_labels(decided)[1:] == [("cat/1.jpg", "dog", "dog fits")]


def test_a_table_is_taken_once_and_written_with_what_was_decided(tmp_path: Path) -> None:
    images = [image("cat/1.jpg", A), image("cat/2.jpg", B)]
    findings = [Finding(kind="dark", path=one.path, score=0.9, reason="dark", label="cat") for one in images]
    head = "path,kind,label,suggestion,decision\n"
    (tmp_path / "t.csv").write_text(
        head + "cat/1.jpg,dark,cat,dog,relabel\ncat/1.jpg,blurred,cat,,drop\nelse.jpg,dark,,,drop\n"
    )
    decided = read_finding_decisions(tmp_path / "t.csv")
    known = Decisions()
    events = decision_events(decided, images, known)
    assert [one.decision for one in events] == [RELABEL, DROP]
    for one in events:
        known.add(Decision(one.decision, one.images, "2026-11-29T15:40:07+00:00", one.finding))
    assert decision_events(decided, images, known) == []
    settled = decided_among(images, known, findings, decided)
    assert [row[0] for row in deletions(settled)[1:]] == ["else.jpg", "cat/1.jpg"]
    assert new_labels(settled)[1:] == []  # what is dropped for one reason is dropped
    write_findings(findings, settled, tmp_path / "out.csv")
    lines = (tmp_path / "out.csv").read_text().splitlines()[1:]
    assert [(line.split(",")[0], line.split(",")[-1]) for line in lines] == [("cat/2.jpg", ""), ("cat/1.jpg", "drop")]
