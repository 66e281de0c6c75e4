"""README and CI say the same; commands, flags and links in the documents exist; both READMEs have the same figures."""

import importlib
import re
import subprocess
import sys
from collections import Counter
from dataclasses import fields
from pathlib import Path

import pytest

from simimg.cli import COMMANDS
from simimg.command_help import flag_name

ROOT = Path(__file__).resolve().parents[2]
COMMON = ("json", "strict", "verbose", "flagfile", "help", "helpfull")
README = (ROOT / "README.md").read_text()
IN_TWO_LANGUAGES = ("README.md", "README.ko.md")
DOCS = tuple(f"simimg/docs/{path.name}" for path in sorted((ROOT / "simimg/docs").glob("*.md")))
WITH_COMMANDS = (
    *IN_TWO_LANGUAGES,
    "BUILD.md",
    *(
        f"simimg/docs/{name}.md"
        for name in (
            "architecture",
            "audit",
            "evaluation",
            "faq",
            "flow",
            "format",
            "many_gpus",
            "quickstart",
            "tuning",
        )
    ),
)


def text_of(document: str) -> str:
    return (ROOT / document).read_text()


def anchors(document: Path) -> set[str]:
    """The addresses of a document's headings: lower case, blanks are hyphens, other signs go."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


BESIDE = ("&&", "\\", "--quiet", "--no-compile", "--disable-pip-version-check")  # what a step has there, too


def test_ci_runs_the_readmes_test_line() -> None:
    (line,) = (line.strip() for line in README.splitlines() if "pytest" in line and line.startswith("    "))
    script = (ROOT / ".ci" / "run").read_text()
    for step in line.split(" && "):
        words = [word for word in step.split() if not word.startswith("--quiet")]
        assert any(
            words == [word for word in re.split(r"\|\||>", ran)[0].split() if word not in BESIDE]
            for ran in script.splitlines()
        ), f".ci/run does not run {step!r}"


@pytest.mark.parametrize("document", WITH_COMMANDS)
def test_commands_in_documents_exist(document: str) -> None:
    commands = re.findall(r"simimg (\w+)((?: --?\w[^\s`]*)*)", text_of(document))
    assert any(arguments for _, arguments in commands) or document == "BUILD.md" or "architecture" in document
    for name, arguments in commands:
        if not arguments:
            continue
        assert name in COMMANDS, f"{document}: simimg {name}"
        options = importlib.import_module(f"simimg.commands.{name}").Options
        known = {*COMMON, *(name for field in fields(options) for name in (field.name, flag_name(field)))}
        for flag in re.findall(r"--(?:no)?(\w+)", arguments):
            assert flag in known, f"{document}: simimg {name} --{flag}"


@pytest.mark.parametrize("document", WITH_COMMANDS)
def test_commands_that_are_only_named_exist(document: str) -> None:
    """Prose such as `simimg apply`, in code marks or on a line of its own."""
    named = re.findall(r"(?:^ {4}|`)simimg ([\w-]+)", text_of(document), re.MULTILINE)
    assert {name.replace("-", "_") for name in named} <= set(COMMANDS), document


def test_flags_in_prose_exist() -> None:
    """`--cache=device` in the questions is a flag of some command, whatever sentence it is in."""
    known = set(COMMON)
    for name in COMMANDS:
        options = importlib.import_module(f"simimg.commands.{name}").Options
        known |= {name for field in fields(options) for name in (field.name, flag_name(field))}
    for name in ("architecture", "faq", "flow", "format", "many_gpus", "quickstart", "tuning"):
        document = f"simimg/docs/{name}.md"
        for flag in re.findall(r"`--(?:no)?([a-z_]+)", text_of(document)):
            assert flag in known, f"{document}: --{flag}"


@pytest.mark.parametrize("document", [*IN_TWO_LANGUAGES, "BUILD.md", *DOCS])
def test_links_in_documents_lead_somewhere(document: str) -> None:
    here = ROOT / document
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)", here.read_text()):
        if target.startswith("http"):
            continue
        there = (here.parent / target) if target else here
        assert there.exists(), f"{document}: {target}"
        if anchor:
            assert anchor in anchors(there), f"{document}: {target}#{anchor}"


def test_files_and_tests_in_the_architecture_exist() -> None:
    text = text_of("simimg/docs/architecture.md")
    for path in re.findall(r"`((?:simimg|tfrecords|tests)/[\w/.]*)`", text):
        assert "NAME" in path or (ROOT / path).exists(), path
    defined = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    for name in re.findall(r"`(test_\w+)`", text):
        assert f"def {name}(" in defined, name


def test_both_readmes_say_the_same() -> None:
    """The same figures, commands, tables and links, whatever the language."""
    english, korean = (text_of(document) for document in IN_TWO_LANGUAGES)

    def figures(text: str) -> Counter[str]:
        return Counter(re.findall(r"\d(?:[\d.,]*\d)?", text))

    more, fewer = figures(english) - figures(korean), figures(korean) - figures(english)
    assert not more, f"README.ko.md lacks {dict(more)}"
    assert not fewer, f"README.ko.md has, and README.md has not, {dict(fewer)}"
    for part in (r"`[^`\n]+`", r"^    .+$", r"\]\((?!README)([^)\s]+)\)"):
        assert Counter(re.findall(part, english, re.MULTILINE)) == Counter(re.findall(part, korean, re.MULTILINE))
    for one, other in (IN_TWO_LANGUAGES, reversed(IN_TWO_LANGUAGES)):
        assert f"]({other})" in text_of(one), f"{one} does not lead to {other}"


def test_the_reference_pages_are_what_the_code_says() -> None:
    command = [sys.executable, "-m", "tools.write_reference", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", ["determinism.md", "safety.md"])
def test_the_tests_that_hold_the_promises_exist(page: str) -> None:
    text = (ROOT / "simimg/docs" / page).read_text()
    sources = {path.name: path.read_text() for path in (ROOT / "tests").rglob("test_*.py")}
    files, tests = set(re.findall(r"\btest_\w+\.py", text)), set(re.findall(r"\btest_\w+\b(?!\.py)", text))
    assert len(tests) > 2
    assert files <= sources.keys()
    assert not [test for test in tests if not any(f"def {test}(" in source for source in sources.values())]
