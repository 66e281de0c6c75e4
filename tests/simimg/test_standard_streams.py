"""Every command with its standard streams closed, full, slow, without a reader, and in a terminal that hangs up."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import pty
import resource
import shutil
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from simimg import cli
from simimg.standard_streams import ForgivingFile, output_error, read_input
from tests.simimg.stream_probe import STUBS

ROOT = Path(__file__).parents[2]
PROBE = ROOT / "tests" / "simimg" / "stream_probe.py"
TIMEOUT_S = 300
FULL = (
    "simimg: the result could not be written to standard output: No space left on device. Send it to another place.\n"
)


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "PYTHONIOENCODING": "utf-8"}


@contextlib.contextmanager
def pipe(*, is_read: bool, is_slow: bool = False) -> Iterator[tuple[int, bytearray]]:
    """Yields a pipe's end to write to, and what is read from it: at once, or nothing until it is full for a while."""
    reading, writing = os.pipe()
    got = bytearray()

    def read() -> None:
        time.sleep(0.5 if is_slow else 0)
        while part := os.read(reading, 1 << 16):
            got.extend(part)
            time.sleep(0.001 if is_slow else 0)

    reader = threading.Thread(target=read)
    if is_read:
        os.set_blocking(writing, not is_slow)
        reader.start()
    else:
        os.close(reading)
    with contextlib.ExitStack() as stack:
        stack.callback(lambda: reader.join() if is_read else None)
        stack.callback(os.close, writing)
        yield writing, got


def probe(
    folder: Path, commands: list[list[str]], **streams: Any
) -> tuple[list[int], subprocess.CompletedProcess[bytes]]:
    """Runs the commands in a process; returns their exit codes, and the process."""
    (folder / "commands.json").write_text(json.dumps(commands))
    codes = folder / "codes.json"
    codes.unlink(missing_ok=True)
    command = [sys.executable, str(PROBE), str(folder / "commands.json"), str(codes)]
    done = subprocess.run(command, env=environment(), timeout=TIMEOUT_S, check=False, **streams)
    return [code for code, _ in json.loads(codes.read_text())], done


@pytest.fixture
def commands(tmp_path: Path) -> list[list[str]]:
    """Every command, most of them with work to do; they use what those before have made."""
    photos, data, index = tmp_path / "photos", tmp_path / "data", f"--index_dir={tmp_path / 'index'}"
    (photos / "a").mkdir(parents=True)
    for number in range(3):
        Image.effect_noise((48, 48), 60 + number).convert("RGB").save(photos / "a" / f"{number}.png")
    shutil.copy(photos / "a" / "0.png", photos / "a" / "again.png")
    (photos / "a" / "broken.png").write_bytes(b"no picture")
    dataset, plan = f"--dataset_dir={data}/some/1.0.0", f"--plan={tmp_path / 'plan.json'}"
    convert = ["convert", f"--image_dir={photos}", f"--data_dir={data}", "--name=some", "--num_workers=1"]
    return [
        [*convert, "--image_size=16", "--json"],
        ["convert", "--image_dir=/nowhere"],
        ["verify", dataset],
        ["show", dataset, f"--page={tmp_path / 'page.html'}"],
        ["edit", dataset, "--delete=nobody"],
        ["duplicates", f"--image_dir={photos}", "--fast", plan],
        ["apply", plan],
        ["undo", plan],
        ["index", f"--image_dir={photos}", index],
        ["search", index, str(photos / "a" / "1.png"), "--json"],
        ["search", index, "-"],
        ["decide", index, "--list"],
        *([name] for name in sorted(STUBS)),
        *([name, "--json"] for name in sorted(STUBS)),
        *(["train", f"--end={end}", *json_flag] for end in ("usage", "data", "bug") for json_flag in ([], ["--json"])),
        *([name, "--help"] for name in ("convert", "train")),
        ["--help"],
        ["trian"],
    ]


def test_every_command_is_tried(commands: list[list[str]]) -> None:
    assert set(cli.COMMANDS) <= {command[0] for command in commands}


def state(name: str, stack: contextlib.ExitStack) -> dict[str, Any]:
    """Returns the streams of a state, as subprocess takes them."""
    what, *which = name.split()
    streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    numbers = [("input", "output", "errors").index(word) for word in which]
    if what == "closed":
        streams["preexec_fn"] = lambda: [os.close(number) for number in numbers]
        return streams
    for word in which:
        if what == "full":
            target: Any = stack.enter_context(Path("/dev/full").open("wb"))  # noqa: SIM115
        else:
            target, _ = stack.enter_context(pipe(is_read=what == "slow", is_slow=True))
        streams["stdout" if word == "output" else "stderr"] = target
    return streams


@pytest.mark.parametrize(
    "name",
    [
        "closed input", "closed output", "closed errors", "closed input output errors", "full output",
        "full output errors", "unread output", "unread errors", "slow output errors",
    ],
)  # fmt: skip
def test_every_command_in_every_state(name: str, tmp_path: Path, commands: list[list[str]]) -> None:
    """The work is done, and nothing is called a bug that is none.

    The exit codes are those of open streams, but a result that could not be written is a failure.
    """
    with contextlib.ExitStack() as stack:
        codes, done = probe(tmp_path, commands, **state(name, stack))
    stubs = 2 * len(STUBS)
    expected = [0, 2, 0, 0, 2, 0, 0, 0, 0, 0, 2, 0, *[1] * stubs, 2, 2, 3, 3, 3, 3, 0, 0, 0, 2]
    if name.startswith("full output"):
        expected = [code if code == 2 else 3 for code in expected]
    assert codes == expected, list(zip(commands, codes, strict=True))
    assert done.returncode == 0
    assert (tmp_path / "data" / "some" / "1.0.0" / "report.html").exists()
    assert (tmp_path / "page.html").exists()
    errors = (done.stderr or b"").decode()
    if done.stderr and "errors" not in name:
        assert errors.count("Traceback") == errors.count("this is a bug in simimg") == 2  # the two that are asked for
        assert (FULL in errors) == (name == "full output")
        assert "Broken pipe" not in errors
    if done.stdout:
        lines = [json.loads(line) for line in done.stdout.decode().splitlines() if line.startswith("{")]
        assert [line for line in lines if "error" in line] == [
            {"error": "no.", "exit_code": 2},
            {"error": "broken.", "exit_code": 3},
            {"error": f"this is a bug in simimg {cli.__version__}; please report the lines above.", "exit_code": 3},
        ]


def test_results_that_get_lost(tmp_path: Path) -> None:
    """A file that may not grow, and one that was opened for reading."""
    (tmp_path / "read_only").touch()

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    with (tmp_path / "small").open("wb") as small:
        codes, done = probe(
            tmp_path, [["train"], ["--version"]], stdout=small, stderr=subprocess.PIPE, preexec_fn=limit
        )
    assert codes == [3, 3]
    assert done.stderr.count(b"could not be written to standard output: File too large. Send") == 2
    with (tmp_path / "read_only").open("rb") as reading:
        codes, done = probe(tmp_path, [["--help"]], stdout=reading, stderr=subprocess.PIPE)
    assert codes == [3]
    assert b"could not be written to standard output: Bad file descriptor. Send" in done.stderr


@pytest.mark.parametrize(("number", "expected"), [(errno.EIO, "Input/output error"), (errno.EPIPE, "")])
def test_a_broken_disk_is_no_terminal_that_hung_up(
    number: int, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "out").open("wb") as out:
        file = ForgivingFile(out.fileno())
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BufferedWriter(file)))
        file.error = OSError(number, os.strerror(number))
        assert output_error() == expected
        assert output_error() == ""  # it is that of one command


def test_a_slow_reader_gets_everything(tmp_path: Path) -> None:
    with pipe(is_read=True, is_slow=True) as (output, got), pipe(is_read=True, is_slow=True) as (errors, said):
        codes, _ = probe(tmp_path, [["train"], ["train", "--json"]], stdout=output, stderr=errors)
    assert codes == [1, 1]
    assert got.decode() == "row é\n" * 30_000 + json.dumps({"rows": ["é"] * 30_000}, ensure_ascii=False) + "\n"
    assert said.decode().count("beside the bar\n") == 6


@pytest.mark.parametrize(("columns", "resized"), [(100, 30), (0, 0), (1, 200)])
def test_a_terminal_of_any_size_that_changes_it(tmp_path: Path, columns: int, resized: int) -> None:
    """Also one that does not know its size, as serial lines and some containers."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24 if columns else 0, columns))
    resize = threading.Timer(0.5, lambda: termios.tcsetwinsize(ours, (24, resized)))
    resize.start()
    reader = threading.Thread(target=lambda: drain(ours))
    reader.start()
    codes, _ = probe(tmp_path, [["train"], ["train", "--help"]] * 2, stdin=theirs, stdout=theirs, stderr=theirs)
    resize.join()
    os.close(theirs)
    reader.join()
    assert codes == [1, 0, 1, 0]


def drain(descriptor: int) -> None:
    with contextlib.suppress(OSError):  # Linux says so when the other end is closed
        while os.read(descriptor, 1 << 16):
            pass
    os.close(descriptor)


@pytest.mark.parametrize("is_ignored", [True, False], ids=["nohup", "hangup"])
def test_a_terminal_that_hangs_up(tmp_path: Path, is_ignored: bool) -> None:
    """Under nohup the work goes on; otherwise the process ends by the signal, as every program does."""
    ours, theirs = pty.openpty()
    (tmp_path / "commands.json").write_text(json.dumps([["train"]] * 3))

    def lead() -> None:
        os.setsid()
        os.close(os.open(os.ttyname(0), os.O_RDWR))  # which becomes the controlling terminal
        signal.signal(signal.SIGHUP, signal.SIG_IGN if is_ignored else signal.SIG_DFL)

    process = subprocess.Popen(
        [sys.executable, str(PROBE), str(tmp_path / "commands.json"), str(tmp_path / "codes.json")],
        stdin=theirs, stdout=theirs, stderr=theirs, env=environment(), preexec_fn=lead,
    )  # fmt: skip
    os.close(theirs)
    assert os.read(ours, 10)
    os.close(ours)
    code = process.wait(timeout=TIMEOUT_S)
    if is_ignored:
        assert code == 0
        assert [code for code, _ in json.loads((tmp_path / "codes.json").read_text())] == [1, 1, 1]
    else:
        assert code == -signal.SIGHUP


def test_an_image_from_standard_input(tmp_path: Path, commands: list[list[str]]) -> None:
    photo, index = tmp_path / "photos" / "a" / "1.png", f"--index_dir={tmp_path / 'index'}"
    (tmp_path / "photos" / "a" / "-").write_bytes(photo.read_bytes())  # is not taken for standard input
    drawing = f"--picture={tmp_path / 'matches.png'}"
    searches = [["search", index, "--json", "-", drawing], ["index", index, f"--image_dir={tmp_path / 'photos'}"]]
    with photo.open("rb") as file:
        codes, done = probe(tmp_path, searches[::-1], stdin=file, capture_output=True)
    assert codes == [0, 0], done.stderr
    found = json.loads(done.stdout.splitlines()[-1])["results"]
    assert [one["query"] for one in found] == ["-"]
    assert found[0]["matches"][0]["path"] in (str(photo), str(photo.with_name("-")))
    assert found[0]["matches"][0]["reasons"] == ["the same file"] or found[0]["matches"][0]["similarity"] == 1
    assert (tmp_path / "matches.png").exists()
    codes, done = probe(tmp_path, searches[:1], input=b"no picture", capture_output=True)
    assert codes == [2]
    assert b"skipped -: " in done.stderr
    error = json.loads(done.stdout)
    assert error["exit_code"] == 2
    assert error["error"].startswith("none of the given images can be decoded: -: text: ")
    codes, done = probe(tmp_path, searches[:1], input=b"", capture_output=True)
    assert codes == [2]
    assert b"standard input is empty or closed" in done.stderr


def test_standard_input_that_comes_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Through a pipe that does not block, as some programs leave one that they share."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    timers = [
        threading.Timer(0.1, os.write, (writing, b"first ")),
        threading.Timer(0.2, os.write, (writing, b"second")),
        threading.Timer(0.3, os.close, (writing,)),
    ]
    for timer in timers:
        timer.start()
    with open(reading) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert read_input() == b"first second"


@pytest.mark.parametrize("columns", [40, 50])
def test_help_in_a_narrow_terminal(
    columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No word is broken: every word of a narrow help is one of the wide one, and only single words are too long."""

    def lines(name: str) -> list[str]:
        cli.main([name, "--helpfull"])
        return capsys.readouterr().out.splitlines()

    for name in cli.COMMANDS:
        monkeypatch.setenv("COLUMNS", "120")
        words = {word for line in lines(name) for word in line.replace("|", " ").split()}
        monkeypatch.setenv("COLUMNS", str(columns))
        narrow = lines(name)
        assert not [line for line in narrow if len(line) > columns and len(line.removesuffix("\\").split()) > 1]
        assert {word for line in narrow for word in line.replace("|", " ").split()} - {"\\"} <= words
