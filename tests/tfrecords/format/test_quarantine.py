"""The list of rejected files: one JSON object a line, and no list where nothing was refused."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

from tfrecords.format.naming import QUARANTINE_FILE
from tfrecords.format.quarantine import Reason, Refusal, RefusedFile, write_quarantine


def test_a_line_a_file(tmp_path: Path) -> None:
    refused = [
        RefusedFile(path="a/벌 \\xff.jpg", reason="empty", detail="the file has no bytes"),
        RefusedFile(path='a/\u2028\n".jpg', reason="corrupt", detail="x\ny"),
    ]
    write_quarantine(tmp_path, refused)
    lines = (tmp_path / QUARANTINE_FILE).read_bytes().decode().split("\n")
    assert lines.pop() == ""
    assert [json.loads(line) for line in lines] == [
        {"path": "a/벌 \\xff.jpg", "reason": "empty", "detail": "the file has no bytes"},
        {"path": 'a/\u2028\n".jpg', "reason": "corrupt", "detail": "x\ny"},
    ]


def test_no_file_where_nothing_was_refused(tmp_path: Path) -> None:
    write_quarantine(tmp_path, [])
    assert list(tmp_path.iterdir()) == []
    write_quarantine(tmp_path, [RefusedFile(path="a", reason="empty", detail="")])
    write_quarantine(tmp_path, iter([]))
    assert list(tmp_path.iterdir()) == []


def test_a_refusal_says_its_reason() -> None:
    refusal = Refusal(Reason.TOO_LARGE, "9 x 9")
    assert str(refusal) == "too_large: 9 x 9"
    assert (refusal.reason, refusal.detail) == (Reason.TOO_LARGE, "9 x 9")


def test_reasons_are_plain_words() -> None:
    assert all(reason.value.replace("_", "").isalpha() and reason.value.islower() for reason in Reason)
    assert pickle.loads(pickle.dumps(Reason.EMPTY)) is Reason.EMPTY
