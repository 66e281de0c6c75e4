"""The store of decisions: what is left after any events, two writers at once, and files that are damaged."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simimg.errors import DataError, UsageError
from simimg.similarity.decisions import (
    DECISIONS,
    DECISIONS_FILE,
    KEEP_ALL,
    NOT_COPIES,
    REMOVED,
    RETURNED,
    THIS_ONE,
    UNDONE,
    DecidedImage,
    Decision,
    Decisions,
    read_decisions,
    record,
)


def image(name: str) -> DecidedImage:
    """An image, whose checksum begins with its name."""
    return DecidedImage(name.encode().hex().ljust(64, "0"), f"{name}.jpg")


def decision(word: str, names: str) -> Decision:
    return Decision(word, tuple(map(image, names)), "2026-11-29T12:00:00+00:00")


def sha(name: str) -> str:
    return image(name).sha256


EVENTS = st.lists(
    st.builds(
        decision,
        st.sampled_from([*DECISIONS, UNDONE, REMOVED, RETURNED]),
        st.lists(st.sampled_from("abcde"), min_size=2, max_size=4, unique=True).map("".join),
    ),
    max_size=12,
)


@given(EVENTS, st.data())
@settings(max_examples=60, deadline=None)
def test_any_events_written_in_any_portions_are_what_a_replay_gives(
    tmp_path_factory: pytest.TempPathFactory, events: list[Decision], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("index")
    cuts = sorted(data.draw(st.lists(st.integers(0, len(events)), max_size=4)))
    for first, last in zip([0, *cuts], [*cuts, len(events)], strict=True):
        returned = record(folder, lambda decisions, part=events[first:last]: part)  # type: ignore[misc]
        assert state(returned) == state(read_decisions(folder))
    assert state(read_decisions(folder)) == state(Decisions(events))


def state(decisions: Decisions) -> object:
    """What counts: decisions in their order, the last one on each pair, and what was removed."""
    pairs = [(one, other) for one in "abcde" for other in "abcde"]
    return (
        [(one.decision, one.images) for one in decisions],
        [[found.key for found in decisions.about(sha(one), sha(other))] for one, other in pairs],
        sorted(decisions.removed),
    )


@given(EVENTS)
@settings(max_examples=100, deadline=None)
def test_the_last_word_about_the_same_images_counts(events: list[Decision]) -> None:
    """Against the plainest model: a list that is searched from its end."""
    decisions = Decisions(events)
    said = [event for event in events if event.decision in (*DECISIONS, UNDONE)]
    for key in {event.key for event in said}:
        last = [event for event in said if event.key == key][-1]
        assert decisions.of(key) == (None if last.decision == UNDONE else last)
    counting = [one for number, one in enumerate(said) if one.key not in {other.key for other in said[number + 1 :]}]
    counting = [one for one in counting if one.decision != UNDONE]
    assert list(decisions) == counting
    for one, other in ("ab", "bc", "ca"):
        assert decisions.about(sha(one), sha(other)) == [
            found for found in reversed(counting) if {sha(one), sha(other)} <= found.key
        ]


def test_the_file_can_be_read_by_people(tmp_path: Path) -> None:
    assert len(read_decisions(tmp_path)) == 0
    assert not (tmp_path / DECISIONS_FILE).exists()
    record(tmp_path, lambda decisions: [decision(NOT_COPIES, "ab")])
    header, line = map(json.loads, (tmp_path / DECISIONS_FILE).read_text().splitlines())
    assert header == {"format": "simimg-decisions/1"}
    assert line["decision"] == "not copies"
    assert line["images"] == [{"sha256": sha("a"), "path": "a.jpg"}, {"sha256": sha("b"), "path": "b.jpg"}]
    assert line["time"].startswith("20")


def test_what_shall_stay_is_no_longer_a_removed_image() -> None:
    removed = decision(REMOVED, "abcd")
    assert set(Decisions([removed, decision(KEEP_ALL, "ab")]).removed) == {sha("c"), sha("d")}
    assert set(Decisions([removed, decision(THIS_ONE, "ab")]).removed) == {sha("b"), sha("c"), sha("d")}
    assert set(Decisions([removed, decision(RETURNED, "cd")]).removed) == {sha("a"), sha("b")}


WRITER = """
import sys
from pathlib import Path
from simimg.similarity.decisions import *
folder, name = Path(sys.argv[1]), sys.argv[2]
for number in range(40):
    images = tuple(DecidedImage((name + str(number) + one).encode().hex().ljust(64, "0"), one) for one in "ab")
    record(folder, lambda decisions: [Decision("keep all", images)])
"""


def test_two_processes_lose_nothing(tmp_path: Path) -> None:
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), name]) for name in ("x", "y")]
    read = 0
    while any(writer.poll() is None for writer in writers):
        assert read <= (read := len(read_decisions(tmp_path)))  # never half of a line
        time.sleep(0.01)
    assert [writer.wait() for writer in writers] == [0, 0]
    assert len(read_decisions(tmp_path)) == 80
    assert [path.name for path in tmp_path.iterdir()] == [DECISIONS_FILE]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda lines: [*lines, b'{"time": "2026'], "line 4: it is cut off"),
        (lambda lines: [lines[0], b"", *lines[1:], b""], "line 2: "),
        (
            lambda lines: [*lines[:2], lines[2].replace(b"keep all", b"keep some"), b""],
            "there is no decision 'keep some'",
        ),
        (lambda lines: [*lines[:2], lines[2].replace(b'"sha256": "6', b'"sha256": "X'), b""], "is not a SHA-256"),
        (lambda lines: [*lines[:2], b'{"time": 3}', b""], "it has no 'decision'"),
        (lambda lines: [*lines[:2], b"[]", b""], "line 3: "),
        (lambda lines: [*lines[:2], b"7", b""], "line 3: "),
        (lambda lines: [b"\xff" * 40, *lines[1:], b""], "is not a file of decisions"),
        (lambda lines: [b'{"format": "simimg-decisions/9"}', *lines[1:], b""], "simimg-decisions/9, not"),
        (lambda lines: [], "is not a file of decisions"),
    ],
)
def test_a_damaged_file_is_an_error_that_says_what_to_do(tmp_path: Path, damage, words: str) -> None:  # type: ignore[no-untyped-def]
    record(tmp_path, lambda decisions: [decision(NOT_COPIES, "ab"), decision(KEEP_ALL, "cd")])
    path = tmp_path / DECISIONS_FILE
    path.write_bytes(b"\n".join(damage(path.read_bytes().splitlines())))
    before = path.read_bytes()
    for use in (lambda: read_decisions(tmp_path), lambda: record(tmp_path, lambda decisions: [])):
        with pytest.raises(DataError) as caught:
            use()
        assert str(path) in str(caught.value)
        assert words in str(caught.value)
        assert "delete it" in str(caught.value) or "rename it" in str(caught.value)
    assert path.read_bytes() == before


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be written"):
        record(tmp_path / "no", lambda decisions: [decision(NOT_COPIES, "ab")])


def test_ten_thousand_decisions_are_read_at_once(tmp_path: Path) -> None:
    many = [
        Decision(
            NOT_COPIES, tuple(DecidedImage(f"{number:08x}{side}".ljust(64, "0"), f"{number}.jpg") for side in "ab")
        )
        for number in range(10_000)
    ]
    record(tmp_path, lambda decisions: many)
    start = time.process_time()
    decisions = read_decisions(tmp_path)
    assert time.process_time() - start < 2  # 0.15 s here
    start = time.process_time()
    checksums = [one.images[0].sha256 for one in many] * 10
    assert sum(decisions.difference(one, other) is not None for one, other in itertools.pairwise(checksums)) == 0
    assert time.process_time() - start < 2
