"""The wall: this half runs without TensorFlow, and its workers without what they do not need."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def imported_by(statement: str) -> set[str]:
    """Returns the top-level modules that a fresh interpreter has after `statement`."""
    code = f"{statement}\nimport json, sys\nprint(json.dumps(sorted({{name.split('.')[0] for name in sys.modules}})))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120, cwd=ROOT)
    return set(json.loads(done.stdout))


def test_this_half_imports_neither_tensorflow_nor_simimg() -> None:
    modules = imported_by(
        "import importlib, pkgutil, tfrecords\n"
        "for module in pkgutil.walk_packages(tfrecords.__path__, 'tfrecords.'):\n"
        "    importlib.import_module(module.name)"
    )
    assert {"tfrecords", "numpy", "PIL"} <= modules
    assert not modules & {"tensorflow", "keras", "tensorflow_datasets", "simimg", "absl", "torch"}


def test_workers_import_no_pyarrow() -> None:
    """It takes a third of a second, and every spawned worker would wait for it."""
    modules = imported_by("import tfrecords.convert.workers.pool")
    assert "tfrecords" in modules
    assert not modules & {"pyarrow", "tensorflow", "simimg"}
