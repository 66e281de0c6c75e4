"""imagededup's hashes over a folder, at its default distance: `python -P imagededup_hashes.py IMAGE_DIR RESULT.json`.

The result is {method: {"seconds": encoding and search, "pairs": [[name, name], …]}}. The package's `__init__` modules
import torch, which its hashes do not need. They are bypassed, so its environment takes 330 MB instead of 3 GB. It runs
in its own environment, see requirements-imagededup.txt.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
import time
import types
from pathlib import Path

__all__ = ["METHODS", "main"]

METHODS = ("PHash", "DHash", "WHash", "AHash")


def main(image_dir: str, result: str) -> None:
    """Finds the duplicates, method by method."""
    hashing = _hashing()
    found = {}
    for name in METHODS:
        start = time.perf_counter()
        duplicates = getattr(hashing, name)(verbose=False).find_duplicates(image_dir=image_dir)
        seconds = time.perf_counter() - start
        pairs = sorted({tuple(sorted((one, other))) for one, others in duplicates.items() for other in others})
        found[name] = {"seconds": seconds, "pairs": pairs}
    Path(result).write_text(json.dumps(found))


def _hashing() -> types.ModuleType:
    spec = importlib.util.find_spec("imagededup")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    root = Path(next(iter(spec.submodule_search_locations)))
    for name in ("", ".methods", ".utils"):
        package = types.ModuleType(f"imagededup{name}")
        package.__path__ = [str(root / name.lstrip("."))]
        sys.modules[package.__name__] = package
    return importlib.import_module("imagededup.methods.hashing")


if __name__ == "__main__":
    main(*sys.argv[1:])
