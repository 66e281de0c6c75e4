"""Versions of packages without importlib.metadata, which has the last word about what pip did not install."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

from tfrecords import installed_versions
from tfrecords.installed_versions import installed_version


@pytest.mark.parametrize(
    "name", ["numpy", "ai-edge-litert", "ai_edge_litert", "Pillow", "cykooz.resizer", "tensorflow"]
)
def test_the_version_is_that_of_importlib(name: str) -> None:
    assert installed_version(name) == importlib.metadata.version(name)


def test_of_several_versions_in_a_folder_the_newest_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    versions = ["2.9", "2.10.dev1", "2.10rc1", "2.10rc11", "2.10", "2.10.post1"]
    assert sorted({*versions}, key=installed_versions._age) == versions
    for folder, names in (("a", ["x_y-2.9.1", "x.y-2.10.0", "X-Y-2.1"]), ("b", ["x_y-3.0", "z-1.0"])):
        for name in names:
            (tmp_path / folder / f"{name}.dist-info").mkdir(parents=True)
    monkeypatch.setattr(sys, "path", [str(tmp_path / "a"), str(tmp_path / "b")])
    assert installed_versions._folders.__wrapped__() == {"x_y": "2.10.0", "z": "1.0", "x": "Y-2.1"}


def test_what_is_not_installed_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert installed_version("no-such-package-of-anybody") is None
    monkeypatch.setattr(importlib.metadata, "version", lambda name: f"9 of {name}")
    assert installed_version("installed-as-an-egg") == "9 of installed-as-an-egg"


def test_a_search_imports_neither_the_parser_of_e_mail_nor_archives() -> None:
    program = (
        "import sys, simimg.commands.search, simimg.inference.network_cache as cache; cache._made_by('embedding');"
        "print([name for name in ('importlib.metadata', 'tarfile', 'tensorflow', 'faiss', 'scipy', 'openvino',"
        " 'tfrecords.convert.sources.tfds') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
