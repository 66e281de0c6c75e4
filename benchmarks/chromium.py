"""The search page in Chromium, for the benchmarks that measure it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from simimg.bench.checkout import ROOT

_FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")


def open_browser(*flags: str) -> Any:
    """Return Selenium's driver of a new Chromium, with further flags."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome") or ""
    for flag in (*_FLAGS, *flags):
        options.add_argument(flag)
    return webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))


@contextmanager
def served(index_dir: Path) -> Iterator[subprocess.Popen[str]]:
    """Yield the process of `simimg serve` for an index; it ends with the block."""
    command = [sys.executable, "-m", "simimg", "serve", f"--index_dir={index_dir}", "--port=auto"]
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=index_dir.parent, env=variables, stderr=subprocess.PIPE, text=True) as server:
        try:
            yield server
        finally:
            server.terminate()


def address_of(server: subprocess.Popen[str]) -> str:
    """Return the page's address, once the server has printed it; raises SystemExit if it has ended instead."""
    assert server.stderr is not None
    said = []
    for line in server.stderr:
        if "token=" in line:
            return line.split(" are at ")[1].strip()
        said.append(line)
    raise SystemExit(f"simimg serve did not start:\n{''.join(said)}")


def wait_until(driver: Any, expression: str, wait_s: float) -> None:
    """Return when an expression is true on the page; raises SystemExit if it is not for so long."""
    end = time.monotonic() + wait_s
    while not driver.execute_script(f"return Boolean({expression})"):
        if time.monotonic() > end:
            raise SystemExit(f"this did not become true on the page: {expression}")
        time.sleep(0.02)
