"""Runs the lines of docs/clients.md, each in a process of its own, where the program is installed.

`SIMIMG_CLIENTS_PYTHON=/path/to/python pytest tests/test_clients.py -rA` runs them with another interpreter, whose
environment has the programs. `tests/clients.sh` makes such environments. Nothing is downloaded here.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tfrecords.convert.engine import convert
from tfrecords.convert.plan.convert_config import ConvertConfig

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = (ROOT / "simimg/docs/clients.md").read_text()
BLOCKS = re.findall(r"^```python (\S+)\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
PYTHON = os.environ.get("SIMIMG_CLIENTS_PYTHON", sys.executable)
NAMES = ("ant", "bee")
TIMEOUT_S = 600


def run(code: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "2"}
    given = "".join(f"{name} = {value!r}\n" for name, value in variables.items())
    command = [PYTHON, "-c", given + code]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S, env=environment, cwd=folder
    )


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Datasets of the same 16 photos of two classes, of which one is a copy of another; each split is one shard."""
    folder = tmp_path_factory.mktemp("clients")
    for label, name in enumerate(NAMES):
        (folder / "photos" / name).mkdir(parents=True)
        for number in range(8):
            pixels = np.random.default_rng(8 * label + min(number, 6)).integers(0, 256, (40, 40, 3), np.uint8)
            Image.fromarray(pixels).save(folder / f"photos/{name}/{number}.png")
    rows = [f"{name}/{number}.png,{';'.join(['red', 'blue'][: number % 3])}" for name in NAMES for number in range(8)]
    (folder / "tags.csv").write_text("\n".join(["path,label", *rows]))
    forms: dict[str, dict[str, Any]] = {
        "raw": {"encoding": "raw", "image_size": 32, "write_index": True},
        "png": {"encoding": "png", "image_size": 32, "write_index": True},
        "own": {"resize": "none"},
        "tags": {"encoding": "png", "image_size": 32, "table": str(folder / "tags.csv"), "label_type": "multi"},
    }
    if importlib.util.find_spec("array_record"):
        forms["array"] = {"encoding": "png", "image_size": 32, "format": "array_record"}
    for name, form in forms.items():
        made = convert(
            ConvertConfig(image_dir=str(folder / "photos"), data_dir=folder / "data", name=name, num_workers=1, **form)
        )
        for split in made.splits:
            assert len(list(made.dataset_dir.glob(f"{name}-{split}*"))) == 1
    return folder / "data"


def missing(package: str, code: str, folder: Path) -> str:
    """Returns the first module that the lines need and that is not installed; "" if there is none."""
    modules = [package, *(name.split(".")[0] for name in re.findall(r"^(?:import|from) ([\w.]+)", code, re.MULTILINE))]
    look = "for name in NAMES.split():\n try: found = u.find_spec(name)\n except ImportError: found = None\n"
    done = run(
        f"import importlib.util as u\n{look} if not found: print(name); break\n", folder, NAMES=" ".join(modules)
    )
    return done.stdout.strip()


@pytest.mark.parametrize(("package", "code"), BLOCKS, ids=[package for package, _ in BLOCKS])
def test_the_lines_of_the_document(package: str, code: str, data_dir: Path, tmp_path: Path) -> None:
    if name := missing(package, code, tmp_path):
        pytest.skip(f"{name} is not installed")
    if '"array"' in code and not (data_dir / "array").exists():
        pytest.skip("array_record is not installed")
    done = run(code, tmp_path, DATA=str(data_dir))  # tfd_utils writes its index into the current folder
    sys.stdout.write(done.stdout[-2000:])
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout or package == "keras"


def test_versions() -> None:
    """Every program of the lines is in the table of the document."""
    (table,) = re.findall(r"\| program .*\n\|[-|]+\n((?:\|.*\n)+)", DOCUMENT)
    assert {package for package, _ in BLOCKS} <= set(re.findall(r"`([\w.]+)`", table))
