"""The readers that `simimg bench --stage=input` compares, one script a tool, and where each of them runs."""

from __future__ import annotations

from pathlib import Path

from simimg.bench.converters import RIVALS as CONVERTERS
from simimg.bench.converters import Tool

__all__ = ["LIMIT", "OURS", "RIVALS"]

_HERE = Path(__file__).parent
_DALI, _FFCV = CONVERTERS["dali"], CONVERTERS["ffcv"]

LIMIT = Tool(name="page cache", script=_HERE / "page_cache_loader.py")

# By encoding, in the order of the tables.
OURS = {
    "raw": tuple(
        Tool(name=kind, script=_HERE / "simimg_loader.py", variant=kind) for kind in ("resident", "mapped", "stream")
    ),
    "jpeg": tuple(Tool(name=kind, script=_HERE / "simimg_loader.py", variant=kind) for kind in ("mapped", "stream")),
}

_USUAL = Tool(name="usual", script=_HERE / "tfdata_loader.py", variant="usual")
_TFDS = Tool(name="tfds", script=_HERE / "tfds_loader.py")
# Those of the converters' comparison have an environment already, which is theirs by name.
_DALI_READER = Tool(name="dali", script=_HERE / "dali_loader.py", requirements=_DALI.requirements)
_FFCV_READER = Tool(
    name="ffcv",
    script=_HERE / "ffcv_loader.py",
    requirements=_FFCV.requirements,
    packages=_FFCV.packages,
    debian=_FFCV.debian,
)

RIVALS = {
    "raw": {
        tool.name: tool
        for tool in (
            _USUAL,
            Tool(name="vectorised", script=_HERE / "tfdata_loader.py", variant="vectorised"),
            _TFDS,
            _DALI_READER,
            _FFCV_READER,
            Tool(name="grain", script=_HERE / "grain_loader.py", requirements=_HERE / "requirements-grain.txt"),
        )
    },
    "jpeg": {
        tool.name: tool
        for tool in (
            _USUAL,
            _TFDS,
            _DALI_READER,
            _FFCV_READER,
            Tool(
                name="webdataset",
                script=_HERE / "webdataset_loader.py",
                requirements=_HERE / "requirements-webdataset.txt",
            ),
            Tool(name="keras", script=_HERE / "keras_loader.py"),
        )
    },
}
