"""The rivals' scripts have what the protocol needs, and the installed package says where they are."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks.rivals import CONVERTERS, IMAGEDEDUP, LOADERS
from simimg.bench import checkout
from simimg.bench.converters import Tool
from simimg.commands import bench
from simimg.errors import UsageError

TOOLS = [*CONVERTERS.values(), *(tool for tools in LOADERS.values() for tool in tools.values())]


@pytest.mark.parametrize("tool", [*TOOLS, IMAGEDEDUP], ids=lambda tool: tool.script.stem)
def test_every_script_has_what_the_protocol_needs(tool: Tool) -> None:
    module: Any = importlib.import_module(f"benchmarks.rivals.{tool.script.stem}")
    assert Path(module.__file__) == tool.script
    assert module.__all__ == (["METHODS", "main"] if tool is IMAGEDEDUP else ["load", "prepare"])
    assert tool.requirements
    lines = [line for line in tool.requirements.read_text().splitlines() if not line.startswith("#")]
    assert lines
    assert all(re.fullmatch(r"[\w.-]+==[\w.+]+", line) for line in lines)


@pytest.mark.parametrize("stage", ["growth", "duplicates", "protocols"])
def test_an_installed_package_says_where_a_stage_is(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkout, "ROOT", tmp_path)  # site-packages
    (tmp_path / "benchmarks" / "rivals").mkdir(parents=True)  # another distribution's
    options: dict[str, Any] = {"image_dir": tmp_path, "out_dir": tmp_path / "out", "cache_dir": tmp_path}
    with pytest.raises(UsageError, match=rf"--stage={stage} needs benchmarks/\w+ of the source repository.*in a clone"):
        bench.run(bench.Options(stage=stage, **options))
    assert not (tmp_path / "out").exists()


def test_an_installed_package_compares_with_what_needs_no_other_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkout, "ROOT", tmp_path)
    assert [tool.name for tool in bench._rivals(bench.Options(stage="convert"))] == ["tutorial", "tfdata"]
    assert [tool.name for tool in bench._rivals(bench.Options(stage="input"))] == ["usual", "vectorised", "tfds"]
    with pytest.raises(UsageError, match="'dali' should be one of tutorial, .* or none. Other rivals are in"):
        bench._rivals(bench.Options(stage="convert", rivals=("dali",)))
