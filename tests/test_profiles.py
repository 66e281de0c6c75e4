"""How the tests run: what Hypothesis draws under each profile, and how many processes there are."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PROPERTY = "tests/tfrecords/format/test_record.py::test_framing_is_sixteen_bytes_around_the_payload"


def told(*arguments: str) -> str:
    """Returns what pytest says of a property that asks for 60 examples."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--hypothesis-show-statistics", PROPERTY]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [*command, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    ).stdout


def test_examples_are_the_same_unless_chance_is_asked_for() -> None:
    plain, by_chance = told(), told("--hypothesis-profile=random")
    assert " 60 passing" in plain
    assert "again:" not in plain
    assert " 60 passing" in by_chance
    assert re.search(r"^again: --hypothesis-profile=random --hypothesis-seed=\d+$", by_chance, re.MULTILINE)


def test_thorough_is_a_hundred_times_the_examples() -> None:
    thorough = told("--hypothesis-profile=thorough", "--hypothesis-seed=7")
    assert " 6000 passing" in thorough
    assert "again: --hypothesis-profile=thorough --hypothesis-seed=7\n" in thorough


@pytest.mark.parametrize(
    ("num_cores", "free_gb", "expected"), [(2, 64, 3), (16, 64, 16), (16, 9, 2), (16, 4, 1), (8, 1, 1), (1, 0, 1)]
)
def test_processes_have_four_gigabytes_each(
    pytestconfig: pytest.Config, num_cores: int, free_gb: int, expected: int
) -> None:
    conftest: Any = pytestconfig.pluginmanager.get_plugin(str(ROOT / "tests" / "conftest.py"))
    assert conftest.num_workers(num_cores, free_gb << 30) == expected
