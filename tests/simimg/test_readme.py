"""README and CI say the same, and the README's commands and flags exist."""

import importlib
import re
from dataclasses import fields
from pathlib import Path

import pytest

from simimg.cli import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


def test_ci_runs_the_readmes_test_line() -> None:
    (line,) = (line.strip() for line in README.splitlines() if "pytest" in line and line.startswith("    "))
    script = (ROOT / ".ci" / "run").read_text()
    for step in line.split(" && "):
        words = [word for word in step.split() if not word.startswith("--quiet")]
        assert any(
            words == [word for word in ran.split() if word not in ("--quiet", "--disable-pip-version-check")]
            for ran in script.splitlines()
        ), f".ci/run does not run {step!r}"


@pytest.mark.parametrize("document", ["README.md", "BUILD.md", "simimg/docs/evaluation.md", "simimg/docs/tuning.md"])
def test_commands_in_documents_exist(document: str) -> None:
    commands = re.findall(r"simimg (\w+)((?: --?\w[^\s`]*)*)", (ROOT / document).read_text())
    for name, arguments in commands:
        if not arguments:
            continue
        assert name in COMMANDS, f"{document}: simimg {name}"
        options = importlib.import_module(f"simimg.commands.{name}").Options
        known = {field.name for field in fields(options)} | {"json", "help"}
        for flag in re.findall(r"--(?:no)?(\w+)", arguments):
            assert flag in known, f"{document}: simimg {name} --{flag}"


def test_links_in_documents_lead_somewhere() -> None:
    for document in ("README.md", "BUILD.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / document).read_text()):
            assert target.startswith("http") or (ROOT / target).exists(), f"{document}: {target}"
