"""What tests of commands share."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from simimg.cli import main


@pytest.fixture
def simimg(capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Runs a command and returns its result in JSON, or with another exit code, the message."""

    def run(*arguments: str, code: int = 0) -> Any:
        capsys.readouterr()
        assert main([*arguments, "--json"]) == code
        said = capsys.readouterr()
        found = json.loads(said.out)
        return found.get("error", found)

    return run
