"""The readers that `simimg bench --stage=input` compares in simimg's own environment: one script per tool.

`benchmarks/rivals` in the source repository has those that need an environment of their own.
"""

from __future__ import annotations

from pathlib import Path

from simimg.bench.converters import Tool

__all__ = ["LIMIT", "OURS", "RIVALS"]

_HERE = Path(__file__).parent

LIMIT = Tool(name="page cache", script=_HERE / "page_cache_loader.py")

# By encoding, in the order of the tables.
OURS = {
    "raw": tuple(
        Tool(name=kind, script=_HERE / "simimg_loader.py", variant=kind) for kind in ("resident", "mapped", "stream")
    ),
    "jpeg": tuple(
        Tool(name=kind, script=_HERE / "simimg_loader.py", variant=kind)
        for kind in ("mapped", "mapped unchecked", "stream")
    ),
}

_USUAL = Tool(name="usual", script=_HERE / "tfdata_loader.py", variant="usual")
_TFDS = Tool(name="tfds", script=_HERE / "tfds_loader.py")
_VECTORISED = Tool(name="vectorised", script=_HERE / "tfdata_loader.py", variant="vectorised")
_KERAS = Tool(name="keras", script=_HERE / "keras_loader.py")

RIVALS = {
    "raw": {tool.name: tool for tool in (_USUAL, _VECTORISED, _TFDS)},
    "jpeg": {tool.name: tool for tool in (_USUAL, _TFDS, _KERAS)},
}
