"""Shell completion: what TAB offers, asked of the shells themselves."""

from __future__ import annotations

import dataclasses
import importlib
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from simimg import cli
from simimg.command_help import flag_name
from simimg.commands.completion import SCRIPTS, Command, Flag, Options, run, table

# What bash puts into COMP_WORDS for a command line, "=" being one of its COMP_WORDBREAKS.
ASK = """
source {script}
COMP_WORDS=({words})
COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
_simimg
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("scripts")
    for shell in SCRIPTS:
        (folder / shell).write_text(run(Options(shells=(shell,))).text)
    return {shell: folder / shell for shell in SCRIPTS}


def shell_says(command: list[str], folder: Path) -> str:
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=folder,
        env={**os.environ, "HOME": str(folder)},
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def bash(script: Path, folder: Path, *words: str) -> list[str]:
    """Returns what bash offers for the last of `words`."""
    ask = ASK.format(script=shlex.quote(str(script)), words=" ".join(map(shlex.quote, words)))
    return [line for line in shell_says(["bash", "--norc", "-c", ask], folder).splitlines() if line]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "my photos").mkdir()
    (tmp_path / "plan.json").touch()
    (tmp_path / "my photos" / "a cat.jpg").touch()
    return tmp_path


def test_table_has_all_that_help_has() -> None:
    commands = {command.name: command for command in table()}
    assert list(commands) == list(cli.COMMANDS)
    for name, command in commands.items():
        fields = dataclasses.fields(importlib.import_module(f"simimg.commands.{name}").Options)
        named = {flag_name(field) for field in fields if not field.metadata["positional"]}
        assert {flag.name for flag in command.flags} == named | {"json", "strict", "verbose", "flagfile"}
        for flag in command.flags:
            assert all(re.fullmatch(r"[\w+-]+", choice) for choice in flag.choices)  # no shell sees more in it
    convert = {flag.name: flag for flag in commands["convert"].flags}
    assert convert["append"].spellings == ("--append", "--noappend")
    assert (convert["encoding"].takes, convert["seed"].takes, convert["data_dir"].takes) == (
        "choice",
        "value",
        "folder",
    )


@pytest.mark.skipif(not shutil.which("bash"), reason="bash is not installed")
class TestBash:
    def test_commands(self, scripts: dict[str, Path], place: Path) -> None:
        names = bash(scripts["bash"], place, "simimg", "")
        assert set(cli.COMMANDS) < set(names)
        assert bash(scripts["bash"], place, "simimg", "du") == ["duplicates"]
        assert bash(scripts["bash"], place, "simimg", "help", "ver") == ["verify"]

    def test_flags_of_a_command(self, scripts: dict[str, Path], place: Path) -> None:
        assert bash(scripts["bash"], place, "simimg", "convert", "--en") == ["--encoding=", "--engine="]
        assert bash(scripts["bash"], place, "simimg", "convert", "--noap") == ["--noappend"]
        assert bash(scripts["bash"], place, "simimg", "undo", "-") == [
            "--plan=", "--json", "--strict", "--verbose", "--flagfile=", "--help", "--helpfull",
        ]  # fmt: skip
        assert bash(scripts["bash"], place, "simimg", "data-service", "--po") == ["--port="]
        assert bash(scripts["bash"], place, "simimg", "undo", "--epochs") == []

    @pytest.mark.parametrize("words", [("--encoding", "=", "r"), ("--encoding", "r")])
    def test_values(self, scripts: dict[str, Path], place: Path, words: tuple[str, ...]) -> None:
        assert bash(scripts["bash"], place, "simimg", "convert", *words) == ["raw"]

    def test_all_values(self, scripts: dict[str, Path], place: Path) -> None:
        assert bash(scripts["bash"], place, "simimg", "convert", "--encoding", "=") == ["auto", "raw", "jpeg", "png"]
        assert bash(scripts["bash"], place, "simimg", "convert", "--seed", "=") == []
        assert bash(scripts["bash"], place, "simimg", "completion", "") == list(SCRIPTS)

    def test_where_words_are_not_split_at_the_sign(self, scripts: dict[str, Path], place: Path) -> None:
        assert bash(scripts["bash"], place, "simimg", "convert", "--encoding=r") == ["--encoding=raw"]
        assert bash(scripts["bash"], place, "simimg", "undo", "--plan=pl") == ["--plan=plan.json"]

    def test_files_and_folders(self, scripts: dict[str, Path], place: Path) -> None:
        assert bash(scripts["bash"], place, "simimg", "undo", "--plan", "=", "pl") == ["plan.json"]
        assert bash(scripts["bash"], place, "simimg", "index", "--image_dir", "=", "") == ["my photos"]
        assert bash(scripts["bash"], place, "simimg", "search", "my photos/a") == ["my photos/a cat.jpg"]
        assert bash(scripts["bash"], place, "simimg", "search", "~/pl") == [f"{place}/plan.json"]
        assert bash(scripts["bash"], place, "simimg", "verify", "") == []

    def test_a_tab_takes_no_time(self, scripts: dict[str, Path], place: Path) -> None:
        """It starts no program, least of all Python: there is none on this shell's PATH, and none is missed."""
        ask = ASK.format(script=shlex.quote(str(scripts["bash"])), words="simimg convert --encoding = r")
        assert shell_says(["bash", "--norc", "-c", "PATH=\n" + ask], place).split() == ["raw"]

    def test_in_a_shell(self, scripts: dict[str, Path], place: Path) -> None:
        assert "_simimg simimg" in shell_says(
            ["bash", "--norc", "-c", f'eval "$(cat {shlex.quote(str(scripts["bash"]))})"; complete -p simimg'], place
        )


@pytest.mark.skipif(not shutil.which("zsh"), reason="zsh is not installed")
def test_zsh(scripts: dict[str, Path], place: Path) -> None:
    shell_says(["zsh", "-f", "-n", str(scripts["zsh"])], place)
    assert "_simimg" in shell_says(
        ["zsh", "-f", "-c", f"autoload -Uz compinit; compinit -u; source {scripts['zsh']}; print $_comps[simimg]"],
        place,
    )


@pytest.mark.skipif(not shutil.which("fish"), reason="fish is not installed")
def test_fish(scripts: dict[str, Path], place: Path) -> None:
    def offers(line: str) -> list[str]:
        ask = f"source {shlex.quote(str(scripts['fish']))}; complete -C {shlex.quote(line)}"
        return [word.split("\t")[0] for word in shell_says(["fish", "--no-config", "-c", ask], place).splitlines()]

    assert set(cli.COMMANDS) <= set(offers("simimg "))
    assert set(offers("simimg convert --en")) == {"--encoding", "--engine"}
    assert offers("simimg convert --encoding=r") == ["--encoding=raw"]
    assert offers("simimg search pl") == ["plan.json"]
    assert offers("simimg verify --dataset_dir=my") == ["--dataset_dir=my photos/"]
    assert offers("simimg completion f") == ["fish"]


def test_scripts_quote_what_shells_would_read() -> None:
    """Help with apostrophes, brackets and colons."""
    flag = Flag(name="odd", help="It's [odd]: `x` $HOME \\ it.", takes="choice", choices=("a", "b"))
    odd = [Command(name="do", summary="Don't: [it].", flags=(flag,), argument=flag)]
    assert "-d 'It\\'s [odd]: `x` $HOME \\\\ it.'" in SCRIPTS["fish"](odd)
    assert "\\[odd\\]\\: `x` $HOME \\\\ it.]" in SCRIPTS["zsh"](odd)
    assert "do--odd) takes=choice choices='a b' ;;" in SCRIPTS["bash"](odd)
