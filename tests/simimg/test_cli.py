"""The edge: flags to options and back, help, mistakes, exit codes, and what goes to which stream."""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
import os
import re
import signal
import subprocess
import sys
import types
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from simimg import __version__, cli, command_help
from simimg.command_help import EXIT_CODES
from simimg.commands.console import PROBLEM, Result
from simimg.errors import CheckpointError, DataError, Interrupted, SimimgError, TrainingInterrupted, UsageError
from tfrecords.format.image_size import ImageSize
from tfrecords.options import option

ROOT = Path(__file__).parents[2]
Run = Callable[..., tuple[int, str, str]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToyOptions:
    """Every kind of option there is."""

    source: Path = option("Where it comes from.")
    items: tuple[str, ...] = option("What is taken.", (), positional=True)
    count: int = option("How often.", 3)
    share: float = option("How much.", 0.5)
    limit: int = option("How far.", 0, words={"auto": 0}, group="reach")
    grey: float = option("How pale.", 1.0, words={"off": 1}, group="looks", flag="gray")
    title: str = option("What it is called.", "plain")
    names: tuple[str, ...] = option("Who is there.", ())
    color: str = option("How it looks.", "red", choices=("red", "green"))
    shiny: bool = option("Whether it shines.", True)
    target: Path | None = option("Where it goes.", None)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A command `toy` whose result is its options."""
    module = types.ModuleType("simimg.commands.toy", "Do nothing.\n\nExample: simimg toy --source=here\n")
    module.__dict__["Options"] = ToyOptions
    module.__dict__["run"] = lambda options: Result(values={"options": repr(options)}, text=f"{options}\n\n")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(cli.COMMANDS, "toy", "Do nothing.")
    return module


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line in this process; returns its exit code, standard output and standard error."""

    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli.main(arguments)
        return code, *capsys.readouterr()

    return call


def check_mistake(answer: tuple[int, str, str], *words: str) -> None:
    """Checks that an answer is what a usage error should be."""
    code, out, err = answer
    assert code == 2
    assert out == ""
    assert err.startswith("simimg: ")
    assert "Traceback" not in err
    assert "--help" in err.splitlines()[-1]  # what to do
    for word in words:
        assert word in err


# Help


def test_overview(run: Run) -> None:
    for arguments in (["--help"], ["-h"], ["help"], []):
        code, out, err = run(*arguments)
        assert code == (0 if arguments else 2)
        assert err == ""
        for name, summary in cli.COMMANDS.items():
            assert f"  {name} " in out
            assert summary in out
        places = [out.index(f"\n{group}\n") for group in ("Data", "Training", "Search", "Cleaning", "Tools")]
        assert places == sorted(places)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_of_a_command(run: Run, name: str) -> None:
    module = importlib.import_module(f"simimg.commands.{name}")
    assert (module.__doc__ or "").splitlines()[0] == cli.COMMANDS[name]
    answers = {run(*arguments) for arguments in ([name, "--help"], [name, "-h"], ["help", name])}
    ((code, out, err),) = answers
    assert (code, err) == (0, "")
    code, full, err = run(name, "--helpfull")
    assert (code, err) == (0, "")
    for text in (out, full):
        assert text.startswith(f"simimg {name}: {cli.COMMANDS[name]}\n")
        assert "--json" in text
        assert max(map(len, text.splitlines())) <= 120
    squeezed, squeezed_full = " ".join(out.split()), " ".join(full.split())
    for field in dataclasses.fields(module.Options):
        assert " ".join(field.metadata["help"].split()) in squeezed_full
        assert field.metadata["group"] or " ".join(field.metadata["help"].split()) in squeezed
        assert field.metadata["help"].endswith(".")
        if not field.metadata["positional"]:
            flag = command_help.flag_name(field)
            for text in (out, full):
                assert f"--{flag}" in text or f"--[no]{flag}" in text
        if choices := field.metadata["choices"]:
            assert re.sub(r"\s", "", "|".join(choices)) in re.sub(r"\s", "", full) or field.metadata["positional"]
    assert f"Keys of --json: {', '.join(module.JSON_KEYS.split())}." in squeezed_full


@pytest.mark.parametrize("columns", [60, 80, 120, 200])
@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["train", "--helpfull"], ["convert", "--help"]])
def test_help_is_as_wide_as_the_terminal(
    run: Run, monkeypatch: pytest.MonkeyPatch, columns: int, arguments: list[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    widths = [len(line) for line in run(*arguments)[1].splitlines() if not line.startswith("Example")]
    assert max(widths) <= min(columns, 120)
    assert arguments == ["--help"] or max(widths) > min(columns, 120) - 20


def test_names_of_two_words_have_two_spellings(run: Run) -> None:
    ((code, out, _),) = {
        run(*arguments) for name in ("data_service", "data-service") for arguments in ([name, "--help"], ["help", name])
    }
    assert (code, out.split(":")[0]) == (0, "simimg data_service")
    check_mistake(run("data-service", "stray"), "unexpected argument 'stray'", "simimg data_service --help")


def test_help_says_what_a_flag_takes_and_what_it_is_without(toy: types.ModuleType, run: Run) -> None:
    _, out, _ = run("toy", "--help")
    lines = {line.split()[0]: " ".join(line.split()) for line in out.splitlines() if line.startswith("  ")}
    assert "Usage: simimg toy --source=PATH [--flags]" in out
    assert lines["reach"] == "reach --limit"
    assert lines["looks"] == "looks --gray"
    assert "How far" not in out
    _, full, _ = run("toy", "--helpfull")
    lines |= {line.split()[0]: " ".join(line.split()) for line in full.splitlines() if line.startswith("  ")}
    assert "\nReach:\n" in full
    assert lines["--limit=N|auto"] == "--limit=N|auto How far. [auto]"
    assert lines["--gray=X|off"] == "--gray=X|off How pale. [off]"
    assert lines["--source=PATH"] == "--source=PATH Where it comes from. Required."
    assert lines["ITEM..."] == "ITEM... What is taken."
    assert lines["--count=N"] == "--count=N How often. [3]"
    assert lines["--share=X"] == "--share=X How much. [0.5]"
    assert lines["--color=red|green"] == "--color=red|green How it looks. [red]"
    assert lines["--[no]shiny"] == "--[no]shiny Whether it shines. [true]"
    assert lines["--target=PATH"] == "--target=PATH Where it goes."


def test_help_imports_nothing_that_is_slow() -> None:
    """In a clean process: `simimg --help`, `--version` and a misspelt command are answered at once."""
    code = (
        "import sys\nfrom simimg.cli import main\n"
        "codes = [main(['--help']), main(['--version']), main(['trian'])]\n"
        "print(codes, sorted({'tensorflow', 'keras', 'numpy', 'PIL', 'pyarrow'} & set(sys.modules)))"
    )
    done = python("-c", code)
    assert done.stdout.splitlines()[-1] == "[0, 0, 2] []"
    assert f"simimg {__version__}" in done.stdout


# The keys of `--json` that scripts rely on, as shared/DESIGN.md has them, of commands that are fast enough to try here.
JSON_KEYS = {
    "convert": "dataset_dir num_examples splits num_refused reasons seconds images_per_s",
    "verify": "ok num_examples problems",
    "doctor": "tensorflow gpus problems",
    "completion": "shell script",
}


def the_json(answer: tuple[int, str, str], keys: str, code: int = 0) -> dict[str, Any]:
    """Returns what a command answered: one JSON object, on one line, with the keys that others rely on."""
    returned, out, err = answer
    assert returned == code, err
    assert out.endswith("}\n")
    assert out.count("\n") == 1
    values = json.loads(out)
    assert set(keys.split()) <= set(values)
    return values


def check_keys(values: dict[str, Any], name: str) -> None:
    """Checks that a command's help lists the keys of its result."""
    assert set(values) <= set(importlib.import_module(f"simimg.commands.{name}").JSON_KEYS.split())


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_json(name: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The flag is there, a field of the command's own does not hide it, and with it the object is all there is."""
    module = importlib.import_module(f"simimg.commands.{name}")
    values, fields = cli._flags_of(module.Options)
    assert values["json"].value is False
    assert "json" not in {field.name for field, _ in fields}
    monkeypatch.setattr(module, "resolve", lambda given: given, raising=False)
    monkeypatch.setattr(module, "run", lambda given: Result(values={"given": sorted(given)}, text="for people"))
    required = [field for field, _ in fields if field.default is dataclasses.MISSING]
    arguments = [
        "x.jpg" if field.metadata["positional"] else f"--{field.name}={(field.metadata['choices'] or ('x',))[0]}"
        for field in required
    ]
    assert the_json(run(name, *arguments, "--json"), "") == {"given": sorted(field.name for field in required)}
    assert run(name, *arguments) == (0, "for people\n", "")


def test_json_of_commands_that_are_fast(run: Run, datasets: dict[str, Path], photos: Path, tmp_path: Path) -> None:
    """Through the real commands; those that train or embed are in tests of their own."""
    data = f"--data_dir={tmp_path}"
    converted = run("convert", f"--image_dir={photos}", data, "--image_size=8", "--num_workers=1", "--json")
    check_keys(the_json(converted, JSON_KEYS["convert"]), "convert")
    verified = run("verify", f"--dataset_dir={datasets['raw']}", "--json")
    check_keys(the_json(verified, JSON_KEYS["verify"]), "verify")
    check_keys(the_json(run("completion", "bash", "--json"), JSON_KEYS["completion"]), "completion")
    code, *_ = answer = run("doctor", "--json")
    check_keys(the_json(answer, JSON_KEYS["doctor"], 1 if code == 1 else 0), "doctor")


def test_module_is_the_command() -> None:
    done = python("-m", "simimg", "convert", "--image_dir=/nowhere", "--json")
    assert done.returncode == 2
    error = json.loads(done.stdout)
    assert error["exit_code"] == 2
    assert error["error"].startswith("--image_dir=/nowhere does not exist.")
    assert done.stderr == f"simimg: {error['error']}\nSee: simimg convert --help\n"


def test_an_interruption_while_modules_are_imported() -> None:
    """Python would show a traceback; a C program ends by the signal, and a shell then reports 130."""
    code = (
        "import importlib.abc, os, signal, sys\n"
        "class Finder(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name == 'absl': os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder())\n"
        "from simimg.__main__ import main\n"
        "main()\n"
    )
    done = python("-c", code)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


# Mistakes


def test_mistakes(toy: types.ModuleType, run: Run) -> None:
    check_mistake(run("trian"), "there is no command 'trian'", "Did you mean 'train'?", "simimg --help")
    check_mistake(run("frobnicate"), "there is no command 'frobnicate'")
    check_mistake(run("toy", "--source=a", "--cuont=3"), "no flag --cuont. Did you mean --count?", "simimg toy --help")
    check_mistake(run("toy", "--source=a", "--count=many"), "Expected a number for --count, got 'many'.")
    check_mistake(run("toy", "--source=a", "--count=1.5"), "Expected a whole number for --count, got '1.5'.")
    check_mistake(run("toy", "--source=a", "--limit=none"), "Expected a number or auto for --limit, got 'none'.")
    check_mistake(
        run("toy", "--source=a", "--color=gren"), "Expected one of red, green for --color, got 'gren'. Did you mean"
    )
    check_mistake(run("toy", "--source=a", "--share=1,5"), "Expected a number for --share, got '1,5'.")
    check_mistake(run("toy", "--source=a", "--shiny=maybe"), "Expected true or false for --shiny, got 'maybe'.")
    check_mistake(run("toy", "--source=a", "--noshiny=3"), "noshiny")
    check_mistake(run("toy", "--count=3"), "--source=PATH is required: where it comes from.")
    check_mistake(run("toy", "--source"), "source")
    check_mistake(run("toy", "--source="), "--source is empty, as an unset variable of a shell is.")
    check_mistake(run("toy", "--source=a", "--json=all"), "Expected true or false for --json, got 'all'.")
    check_mistake(run("toy", "--source=a", "-v=all"), "Expected true or false for --verbose, got 'all'.")
    check_mistake(run("--strict", "toy"), "Write `simimg COMMAND --strict`.", "simimg --help")
    check_mistake(run("help", "trian"), "there is no command 'trian'", "Did you mean 'train'?")


WITH_ARGUMENTS = ("search", "predict", "compare", "import_weights", "decide", "completion", "show")


@pytest.mark.parametrize("name", [name for name in cli.COMMANDS if name not in WITH_ARGUMENTS])
def test_an_argument_that_nobody_takes(run: Run, name: str) -> None:
    check_mistake(run(name, "stray"), "unexpected argument 'stray'", "--NAME=VALUE")


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_an_unknown_flag(run: Run, name: str) -> None:
    check_mistake(run(name, "--frobnicate=3"), "frobnicate", f"simimg {name} --help")


@pytest.mark.parametrize(
    "name",
    [
        "verify",
        "train",
        "sweep",
        "evaluate",
        "predict",
        "compare",
        "import_weights",
        "index",
        "search",
        "leaks",
        "decide",
        "bench",
        "completion",
    ],
)
def test_what_is_required(run: Run, name: str) -> None:
    check_mistake(run(name), "is required: ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "--dataset_dir=/nowhere"], "--dataset_dir=/nowhere is not a folder"),
        (["train", "--dataset_dir=/nowhere", "--epochs=0"], "--epochs=0 trains nothing"),
        (["train", "--dataset_dir=/nowhere", "--color_jitter=2"], "--color_jitter=2.0: should be 0..1."),
        (["train", "--dataset_dir=/nowhere", "--colour_jitter=2"], "--colour_jitter=2.0: should be 0..1."),
        (["train", "--dataset_dir=/nowhere", "--preset=huge"], "for --preset, got 'huge'."),
        (["evaluate", "--dataset_dir=/nowhere", "--model_dir=/nowhere"], "--dataset_dir=/nowhere is not a folder"),
        (["verify", "--dataset_dir=/nowhere"], "--dataset_dir=/nowhere is not a folder"),
        (["convert"], "--image_dir is missing. Name a folder"),
        (["convert", "--image_dir=/nowhere"], "--image_dir=/nowhere does not exist"),
        (["convert", "--image_dir=/", "--image_size=0"], "--image_size=0: should be 1..4096 px"),
        (["index", "--index_dir=/nowhere"], "name one source"),
        (["export"], "name one thing to export"),
        (["search", "--index_dir=/nowhere", "--k=0", "a.jpg"], "--k=0: should be 1 or more"),
        (["search", "--index_dir=/nowhere", "a.jpg", ""], "one of IMAGE... is empty"),
        (["show", "--page=/dev/null/page.html"], "--page=/dev/null/page.html: its folder cannot be made: "),
        (["duplicates", "--image_dir=a", "--plan=/"], "--plan=/ is a folder. Name a file."),
        (["duplicates", "--image_dir=a", "--plan=/proc/1/plan"], "--plan=/proc/1/plan cannot be written. Make its"),
        (["completion", "tcsh"], "Expected one of bash, zsh, fish, got 'tcsh'."),
        (["completion", "bash", "zsh"], "got 'bash zsh'."),
    ],
)
def test_values_that_cannot_be_used(run: Run, arguments: list[str], words: str) -> None:
    check_mistake(run(*arguments), words)


def test_a_folder_or_file_without_its_flag(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "plan.json").touch()
    check_mistake(run("convert", "photos"), "unexpected argument 'photos'. Did you mean --image_dir=photos?")
    check_mistake(run("verify", "photos"), "Did you mean --dataset_dir=photos?")
    check_mistake(run("index", "photos", "--index_dir=i"), "Did you mean --image_dir=photos?")
    check_mistake(run("undo", "plan.json"), "Did you mean --plan=plan.json?")
    check_mistake(run("train", "data/none/1.0.0"), "Did you mean --dataset_dir=data/none/1.0.0?")
    check_mistake(run("evaluate", "runs/one", "--dataset_dir=photos"), "Did you mean --model_dir=runs/one?")


def test_a_former_spelling_works_and_is_noted_once(toy: types.ModuleType, run: Run) -> None:
    assert given_to(toy, ["--source=a", "--gray=0.5"]) == given_to(toy, ["--source=a", "--grey=0.5"])
    code, out, err = run("toy", "--source=a", "--grey=0.5", "--grey=0.25")
    assert (code, err) == (0, "simimg: note: --grey is now spelled --gray; both work.\n")
    assert "grey=0.25" in out


def test_named_numbers(toy: types.ModuleType) -> None:
    options = given_to(toy, ["--source=a", "--limit=auto", "--gray=OFF"])
    assert (options.limit, options.grey) == (0, 1.0)
    assert given_to(toy, ["--source=a", "--limit=0", "--gray=1"]) == options


def test_flags_from_a_file(toy: types.ModuleType, run: Run, tmp_path: Path) -> None:
    (tmp_path / "flags").write_text("# where\n--source=a b\n\n--count=7\n--noshiny\n")
    options = given_to(toy, [f"--flagfile={tmp_path / 'flags'}", "--count=8", "x"])
    assert options == ToyOptions(source=Path("a b"), count=8, shiny=False, items=("x",))
    check_mistake(run("toy", "--flagfile=/nowhere"), "--flagfile cannot be read: /nowhere: No such file or directory.")
    check_mistake(run("toy", "--flagfile"), "--flagfile=PATH")
    (tmp_path / "flags").write_bytes(b"\xff")
    check_mistake(run("toy", f"--flagfile={tmp_path / 'flags'}"), "not UTF-8")


@pytest.mark.parametrize("flag", ["-v", "--verbose"])
def test_verbose(toy: types.ModuleType, run: Run, monkeypatch: pytest.MonkeyPatch, flag: str) -> None:
    """TensorFlow's log is on, and errors have their tracebacks."""

    def fail(options: ToyOptions) -> Result:
        raise DataError("a.tfrecord is missing.")

    toy.__dict__["run"] = fail
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "2")
    code, out, err = run("toy", "--source=a", flag)
    assert (code, out, os.environ["TF_CPP_MIN_LOG_LEVEL"]) == (3, "", "0")
    assert err.startswith("Traceback")
    assert err.endswith("\nsimimg: a.tfrecord is missing.\n")


# Exit codes and streams


WHERE = "--verbose shows where this happened.\n"
START, FULL = "simimg: ", "No space left on device"
CLOSE = "Close other programs, or raise the limits of this process (`ulimit -v`, `ulimit -u`)."
MEMORY = f"there is not enough memory: a.so: failed to map segment from shared object. {CLOSE}"
THREAD = f"there is not enough memory: can't start new thread. {CLOSE}"


@pytest.mark.parametrize(
    ("raised", "code", "words"),
    [
        (UsageError("--k=0: should be 1."), 2, "simimg: --k=0: should be 1.\nSee: simimg toy --help\n"),
        (DataError("a.tfrecord is missing."), 3, "simimg: a.tfrecord is missing.\n"),
        (CheckpointError("none is sound."), 3, "simimg: none is sound.\n"),
        (PermissionError(13, "Permission denied", "a.html"), 3, f"simimg: a.html: Permission denied.\n{WHERE}"),
        (OSError(28, "No space left on device", "a"), 3, f"{START}a: {FULL}. Free some space on its disk.\n{WHERE}"),
        (OSError(2, "No such file", "out of memory/a"), 3, f"{START}out of memory/a: No such file.\n{WHERE}"),
        (OSError(11, "no process"), 3, f"{START}there is not enough memory: [Errno 11] no process. {CLOSE}\n{WHERE}"),
        (MemoryError(), 3, f"{START}there is not enough memory. {CLOSE}\n{WHERE}"),
        (ImportError("a.so: failed to map segment from shared object"), 3, f"{START}{MEMORY}\n{WHERE}"),
        (RuntimeError("can't start new thread"), 3, f"{START}{THREAD}\n{WHERE}"),
        (TrainingInterrupted("stopped."), 130, "simimg: stopped.\n"),
        (Interrupted("stopped."), 130, "simimg: stopped.\n"),
        (KeyboardInterrupt(), 130, "simimg: interrupted.\n"),
    ],
)
def test_errors_become_exit_codes(
    toy: types.ModuleType, run: Run, raised: BaseException, code: int, words: str
) -> None:
    def fail(options: ToyOptions) -> Result:
        raise raised

    toy.__dict__["run"] = fail
    assert run("toy", "--source=a") == (code, "", words)
    message = words.removeprefix("simimg: ").partition("\n")[0]
    out = json.dumps({"error": message, "exit_code": code}) + "\n"
    assert run("toy", "--source=a", "--json") == (code, out, words)
    assert run("toy", "--source=a", "--json", "--nojson") == (code, "", words)


def test_a_current_folder_that_was_removed(
    toy: types.ModuleType, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(options: ToyOptions) -> Result:
        (tmp_path / "gone").rmdir()
        Path("page.html").resolve()
        raise AssertionError

    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    toy.__dict__["run"] = fail
    message = "simimg: the current folder does not exist anymore. Change to another one.\n"
    assert run("toy", "--source=a") == (3, "", message + WHERE)


def test_a_bug_is_shown_with_its_traceback(toy: types.ModuleType, run: Run) -> None:
    def fail(options: ToyOptions) -> Result:
        raise ZeroDivisionError("nothing to divide by")

    toy.__dict__["run"] = fail
    code, out, err = run("toy", "--source=a")
    assert (code, out) == (3, "")
    assert "ZeroDivisionError: nothing to divide by" in err
    assert f"a bug in simimg {__version__}" in err.splitlines()[-1]


def test_streams(toy: types.ModuleType, run: Run) -> None:
    """Standard output has one JSON object, or the text with one newline at its end, whatever goes on besides."""

    def work(options: ToyOptions) -> Result:
        sys.stderr.write("halfway\n")
        return Result(values={"name": "Köln", "share": 0.5}, text="done\n\n", exit_code=1)

    toy.__dict__["run"] = work
    assert run("toy", "--source=a") == (1, "done\n", "halfway\n")
    assert run("toy", "--source=a", "--json") == (1, '{"name": "Köln", "share": 0.5}\n', "halfway\n")


@pytest.mark.parametrize(
    ("skipped", "ended", "arguments", "code", "said"),
    [
        (0, 0, ["--strict"], 0, ""),
        (1, 0, [], 0, "simimg: 1 file was skipped (exit code 0, or 1 with --strict).\n"),
        (1200, 0, ["--nostrict"], 0, "simimg: 1,200 files were skipped (exit code 0, or 1 with --strict).\n"),
        (2, 0, ["--strict"], 1, "simimg: 2 files were skipped (exit code 1).\n"),
        (2, 3, [], 3, "simimg: 2 files were skipped (exit code 3).\n"),
        (2, 3, ["--json", "--strict"], 3, "simimg: 2 files were skipped (exit code 3).\n"),
    ],
)
def test_strict(
    toy: types.ModuleType, run: Run, skipped: int, ended: int, arguments: list[str], code: int, said: str
) -> None:
    toy.__dict__["run"] = lambda options: Result(values={}, text="done", exit_code=ended, num_skipped=skipped)
    assert run("toy", "--source=a", *arguments) == (code, "{}\n" if "--json" in arguments else "done\n", said)


def test_the_exit_codes_are_those_of_the_errors(run: Run) -> None:
    assert {SimimgError.exit_code, UsageError.exit_code, Interrupted.exit_code, PROBLEM, 0} == set(EXIT_CODES)
    _, out, _ = run("--help")
    assert all(f"  {code} " in out for code in EXIT_CODES)


def test_what_other_programs_need(run: Run, tmp_path: Path) -> None:
    """Raw pixels are told at the end, with the encodings that decoders read; `files` has the copies of every file."""
    photos = tmp_path / "photos" / "a"
    photos.mkdir(parents=True)
    for number in range(3):
        Image.effect_noise((40, 40), 50 + number).convert("RGB").save(photos / f"{number}.png")
    (photos / "again.png").write_bytes((photos / "0.png").read_bytes())
    command = ["convert", f"--image_dir={photos.parent}", f"--data_dir={tmp_path / 'data'}", "--num_workers=1"]
    for encoding in ("raw", "png", "jpeg"):
        code, out, _ = run(*command, f"--name={encoding}", f"--encoding={encoding}")
        assert code == 0
        assert ("\nraw pixels: " in out, "--encoding=png or jpeg" in out) == 2 * (encoding == "raw",)
    code, out, _ = run("duplicates", f"--image_dir={photos.parent}", "--fast", "--json")
    copies = {Path(path).name: [Path(copy).name for copy in found] for path, found in json.loads(out)["files"].items()}
    assert (code, copies) == (0, {"0.png": ["again.png"], "again.png": ["0.png"], "1.png": [], "2.png": []})


def test_files_that_are_skipped_end_no_script(run: Run, tmp_path: Path) -> None:
    """A real command, from flags to JSON: one of its files is no picture."""
    for number in range(4):
        (tmp_path / "photos" / "a").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 20), (number, 0, 0)).save(tmp_path / "photos" / "a" / f"{number}.png")
    command = ["convert", f"--image_dir={tmp_path / 'photos'}", f"--data_dir={tmp_path / 'data'}", "--num_workers=1"]
    assert run(*command, "--name=good")[0] == 0
    (tmp_path / "photos" / "a" / "broken.png").write_bytes(b"no picture")
    code, out, err = run(*command, "--name=bad", "--json")
    values = json.loads(out)
    assert out.count("\n") == 1
    assert (code, values["num_refused"], values["num_examples"]) == (0, 1, 4)
    assert err.splitlines()[-1] == "simimg: 1 file was skipped (exit code 0, or 1 with --strict)."
    assert run(*command, "--name=bad", "--strict")[0] == 1
    assert run(*command, "--name=none", "--max_refused=0")[0] == 3
    assert not (tmp_path / "data" / "none").exists() or not list((tmp_path / "data" / "none").glob("[0-9]*"))
    dataset_dir = values["dataset_dir"]
    code, out, _ = run("verify", f"--dataset_dir={dataset_dir}", "--json")
    assert (code, json.loads(out)) == (0, {"ok": True, "num_examples": 4, "problems": []})
    shard = next(Path(dataset_dir).glob("*train.tfrecord-00000*"))
    shard.write_bytes(shard.read_bytes()[:-1])
    code, out, _ = run("verify", f"--dataset_dir={dataset_dir}", "--json")
    assert (code, json.loads(out)["ok"]) == (3, False)


# Flags to options and back


def given_to(module: types.ModuleType, arguments: list[str]) -> Any:
    """Returns the options that `run` of a command gets; fails where it gets none."""
    received: list[Any] = []

    def receive(options: Any) -> Result:
        received.append(options)
        return Result(values={}, text="")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "run", receive)
        assert cli.main([module.__name__.rpartition(".")[2], *arguments]) == 0
    return received[0]


def as_flag(name: str, value: Any) -> str:
    """Writes a value as a person would type it."""
    if isinstance(value, bool):
        return f"--{name}" if value else f"--no{name}"
    if isinstance(value, tuple):
        return f"--{name}={','.join(map(str, value))}"
    return f"--{name}={value}"


WORDS = st.text(st.characters(codec="utf-8", exclude_characters=',"', exclude_categories=("Z", "C")), min_size=1)


@given(
    source=WORDS,
    count=st.integers(-(2**62), 2**62),
    share=st.floats(allow_nan=False),
    limit=st.integers(0, 9),
    title=st.text(st.characters(codec="utf-8")),
    names=st.lists(WORDS, max_size=3).map(tuple),
    items=st.lists(st.text(st.characters(codec="utf-8"), min_size=1), max_size=3).map(tuple),
    color=st.sampled_from(["red", "green"]),
    shiny=st.booleans(),
    target=st.none() | WORDS,
)
@example(
    source="--x", count=-1, share=math.inf, limit=0, title="=", names=("a=b",), items=("--count",), color="red",
    shiny=True, target=".",
)  # fmt: skip
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_any_value_arrives_as_it_was_given(toy: types.ModuleType, **values: Any) -> None:
    paths = {name: Path(values[name]) for name in ("source", "target") if values[name] is not None}
    if any(str(path).startswith("~") for path in paths.values()):
        return
    expected = ToyOptions(**{**values, **paths})
    arguments = [as_flag(name, value) for name, value in values.items() if name != "items" and value is not None]
    assert given_to(toy, [*arguments, "--", *values["items"]]) == expected


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["duplicates", "--image_dir=p", "--engine=ray"], "--engine=ray needs --index_dir=PATH, a folder that all"),
        (["leaks", "--dataset_dir=d", "--engine=ray"], "--engine=ray needs --index_dir=PATH, a folder that all"),
        (["duplicates", "--image_dir=p", "--index_dir=i", "--fast", "--engine=ray"], "--fast takes no cluster."),
        (["leaks", "--dataset_dir=d", "--ray_address=auto"], "--ray_address=auto needs --engine=ray."),
        (["index", "--dataset_dir=d", "--index_dir=i", "--num_gpus_per_worker=1"], "--num_gpus_per_worker=1.0 needs"),
    ],
)
def test_an_engine_needs_what_its_nodes_see(run: Run, arguments: list[str], reason: str) -> None:
    check_mistake(run(*arguments), reason)


def test_home_is_expanded(toy: types.ModuleType) -> None:
    options = given_to(toy, ["--source=~/photos", "--target=~/index", "a", "b"])
    assert (options.source, options.target) == (Path.home() / "photos", Path.home() / "index")
    assert options.items == ("a", "b")
    assert given_to(toy, ["--source", "here"]) == ToyOptions(source=Path("here"))


# What a command needs to be given, and what a flag needs beside it to be of use.
BASE = {
    "convert": {"image_dir": Path("photos")},
    "verify": {"dataset_dir": Path("data")},
    "train": {"dataset_dir": Path("data")},
    "sweep": {"dataset_dir": Path("data")},
    "evaluate": {"dataset_dir": Path("data"), "model_dir": Path("model")},
    "import_weights": {"model_dir": Path("model")},
    "index": {"image_dir": Path("photos"), "index_dir": Path("index")},
    "search": {"index_dir": Path("index")},
    "predict": {"model_dir": Path("model")},
    "export": {"model_dir": Path("model")},
    "duplicates": {"image_dir": Path("photos")},
    "calibrate": {"index_dir": Path("index")},
    "leaks": {"dataset_dir": Path("data")},
    "audit": {"image_dir": Path("photos")},
    "serve": {"index_dir": (Path("index"),)},
    "decide": {"index_dir": Path("index")},
    "apply": {"plan": Path("plan")},
    "undo": {"plan": Path("plan")},
    "bench": {"stage": "convert"},
}
BESIDE = {
    **{
        (name, flag): {"model": "lite0"}
        for name in ("train", "sweep")
        for flag in ("resolution", "probe", "train_backbone")
    },
    ("index", "dataset_dir"): {"image_dir": None},
    ("search", "text"): {"text_model": "text.onnx"},
    ("search", "text_model"): {"text": ("red sailing boat",)},
    **{("decide", flag): {"list": True} for flag in ("index_dir", "cache_dir", "cache_bytes")},
    ("audit", "delete"): {"decisions": Path("findings.csv")},
    ("convert", "beam_options"): {"engine": "beam"},
    ("convert", "ray_address"): {"engine": "ray"},
    **{(name, "engine"): {"index_dir": Path("i")} for name in ("duplicates", "leaks")},
    **{(name, "ray_address"): {"engine": "ray", "index_dir": Path("i")} for name in ("duplicates", "index", "leaks")},
    ("index", "num_gpus_per_worker"): {"engine": "ray"},
    ("export", "index_dir"): {"model_dir": None, "out": Path("out")},
    **{
        ("export", flag): {"model_dir": None, "index_dir": Path("index"), "out": Path("some where/else")}
        for flag in ("format", "by", "out", "overwrite")
    },
}
TEXTS = {
    ("convert", "range"): "0,4095",
    ("convert", "splits"): "train=0.5,test=0.5",
    ("convert", "background"): "black",
    ("convert", "max_refused"): "2.5%",
    ("convert", "zip_encoding"): "cp949",
    **{(name, "rand_augment"): "2,9" for name in ("train", "sweep")},
    **{(name, "train_size"): "160:192" for name in ("train", "sweep")},
    **{(name, "dataset_weights"): "2" for name in ("train", "sweep")},
    **{(name, "cache_bytes"): "5GB" for name in cli.COMMANDS},
}
LISTS = {
    "kinds": ("label", "dark"),
    "keep": ("oldest", "exif"),
    "edits": ("crop", "turn"),
    "plan_edits": ("crop", "turn"),
    "grid": ("epochs=2,3", "ema=0.1,0.2"),
}


def flags_of_all_commands() -> Iterator[tuple[str, str]]:
    for name in cli.COMMANDS:
        for field in dataclasses.fields(importlib.import_module(f"simimg.commands.{name}").Options):
            # `train --config` reads a file; tests/simimg/training/test_run_folder.py shows what it does. Its flags of a
            # cache are no options of a run; tests/simimg/commands/test_remote_datasets.py shows what they do.
            of_no_run = name in ("train", "sweep") and field.name in ("config", "cache_dir", "cache_bytes")
            refused = (name, field.name) == ("sweep", "model_dir")
            if not (field.metadata["positional"] or of_no_run or refused):
                yield name, field.name


def other_value(name: str, field: dataclasses.Field[Any], kind: Any) -> Any:
    """Returns a value of the field's kind that is not its default."""
    if field.metadata["choices"]:
        return next(choice for choice in field.metadata["choices"] if choice != field.default)
    if kind is bool:
        return not field.default
    if field.metadata["repeated"] and kind != tuple[str, ...]:
        return (Path("some where/else"), Path("two"))
    if kind is Path or Path in typing.get_args(kind):
        return Path("some where" if field.metadata["output"] else "some where/else")
    values = {
        int: {"channels": 1}.get(field.name, 7),
        float: {"min_jpeg_quality": 25.0, "threshold": 0.75}.get(field.name, 0.25),
        str: TEXTS.get((name, field.name), "other"),
        tuple[str, ...]: LISTS.get(field.name, ("one", "two")),
        ImageSize: 7,
    }
    return values[kind]


@pytest.mark.parametrize(("name", "flag"), list(flags_of_all_commands()))
def test_every_flag_of_every_command(name: str, flag: str) -> None:
    module = importlib.import_module(f"simimg.commands.{name}")
    field = next(field for field in dataclasses.fields(module.Options) if field.name == flag)
    value = other_value(name, field, typing.get_type_hints(module.Options)[flag])
    assert value != field.default
    wanted = {**BASE.get(name, {}), **BESIDE.get((name, flag), {}), flag: value}
    if field.metadata["repeated"]:
        del wanted[flag]
    arguments = [as_flag(key, part) for key, part in wanted.items() if part is not None]
    if field.metadata["repeated"]:
        arguments += [as_flag(flag, part) for part in value]
    if name in WITH_ARGUMENTS:
        arguments.append("query.jpg")
    assert getattr(given_to(module, arguments), flag) == value
