"""What commands write to a terminal, and to what is none: no colours anywhere, a progress bar only where one can be."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
BAR = re.compile(r"\r(?:converting|verifying): ")
COLOR = re.compile(r"\x1b\[[\d;:]*m")
ESCAPE = re.compile(r"\x1b(?!\[\d*[ABCDK])")  # all but where the cursor goes, and clearing a line
TIMEOUT_S = 300


def environment(**changes: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR", "TERM")}
    return {**kept, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "COLUMNS": "100", **changes}


def in_a_terminal(*arguments: str, **changes: str) -> tuple[int, str]:
    """Returns the exit code of a command, and all that it wrote to the terminal that it runs in."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    process = subprocess.Popen(
        [sys.executable, "-m", "simimg", *arguments],
        stdin=theirs, stdout=theirs, stderr=theirs, env=environment(**changes), close_fds=True,
    )  # fmt: skip
    os.close(theirs)
    written = bytearray()
    until = time.monotonic() + TIMEOUT_S
    while time.monotonic() < until:
        if not select.select([ours], [], [], 1.0)[0]:
            continue
        try:
            part = os.read(ours, 1 << 16)
        except OSError:  # Linux says so when the other end is closed
            break
        if not part:
            break
        written += part
    os.close(ours)
    return process.wait(timeout=TIMEOUT_S), written.decode()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos" / "a").mkdir(parents=True)
    for number in range(3):
        Image.new("RGB", (20, 20), (80 * number, 0, 0)).save(tmp_path / "photos" / "a" / f"{number}.png")
    (tmp_path / "photos" / "a" / "broken.png").write_bytes(b"no picture")
    return tmp_path / "photos"


def convert(photos: Path, name: str) -> list[str]:
    data_dir = photos.parent / "data"
    return ["convert", f"--image_dir={photos}", f"--data_dir={data_dir}", f"--name={name}", "--num_workers=1"]


@pytest.mark.parametrize(
    ("changes", "has_bar"),
    [({}, True), ({"NO_COLOR": "1"}, True), ({"TERM": "dumb"}, False)],
    ids=["plain", "no", "dumb"],
)
def test_in_a_terminal(photos: Path, changes: dict[str, str], has_bar: bool) -> None:
    code, text = in_a_terminal(*convert(photos, "one"), **changes)
    assert code == 0, text
    assert bool(BAR.search(text)) == has_bar
    assert not COLOR.search(text)
    assert not ESCAPE.search(text)
    dataset_dir = photos.parent / "data" / "one" / "1.0.0"
    code, text = in_a_terminal("verify", f"--dataset_dir={dataset_dir}", **changes)
    assert code == 0, text
    assert bool(BAR.search(text)) == has_bar
    assert not ESCAPE.search(text)
    if not has_bar:
        assert "\r" not in text.replace("\r\n", "")  # the terminal itself ends lines with both


def test_where_there_is_no_terminal(photos: Path) -> None:
    """One JSON object on standard output, no bar and no escape sequence anywhere."""
    done = subprocess.run(
        [sys.executable, "-m", "simimg", *convert(photos, "two"), "--json"],
        capture_output=True, check=False, timeout=TIMEOUT_S, env=environment(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["num_refused"] == 1
    assert done.stdout.count(b"\n") == 1
    assert b"\x1b" not in done.stdout + done.stderr
    assert b"\r" not in done.stdout + done.stderr


def test_mistakes_have_no_colors() -> None:
    code, text = in_a_terminal("trian")
    assert (code, "Did you mean 'train'?" in text) == (2, True)
    assert not ESCAPE.search(text)


def test_keras_writes_nothing_to_standard_output() -> None:
    """It would, in colours, when it downloads weights; `train --json` has one JSON object there."""
    code = (
        "from simimg.commands import train\nfrom keras.src.utils import io_utils\nfrom keras.utils import Progbar\n"
        "io_utils.print_msg('Downloading data')\nProgbar(10).update(10, finalize=True)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=False, timeout=TIMEOUT_S, env=environment()
    )
    assert (done.returncode, done.stdout) == (0, b""), done.stderr
