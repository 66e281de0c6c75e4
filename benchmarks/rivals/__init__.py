"""The rivals that need a virtual environment of their own: one script per tool, with the list of its packages.

`simimg bench` finds them when it runs from the source repository, and makes the environments when they are needed.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from simimg.bench.converters import Tool

__all__ = ["CLEANLAB", "CONVERTERS", "CROPS", "IMAGEDEDUP", "LOADERS"]

_HERE = Path(__file__).parent
# Two scripts of one name share the environment.
_DALI: dict[str, Any] = {"name": "dali", "requirements": _HERE / "requirements-dali.txt"}
_FFCV: dict[str, Any] = {
    "name": "ffcv",
    "requirements": _HERE / "requirements-ffcv.txt",
    "packages": ("g++", "pkg-config", "opencv4", "libturbojpeg"),
    "debian": "g++ pkg-config libopencv-dev libturbojpeg0-dev",
}

IMAGEDEDUP = Tool(
    name="imagededup", script=_HERE / "imagededup_hashes.py", requirements=_HERE / "requirements-imagededup.txt"
)

CLEANLAB = Tool(name="cleanlab", script=_HERE / "cleanlab_audit.py", requirements=_HERE / "requirements-cleanlab.txt")

CONVERTERS = {
    "dali": Tool(script=_HERE / "dali_converter.py", **_DALI),
    "ffcv": Tool(script=_HERE / "ffcv_converter.py", **_FFCV),
}

_DALI_READER = Tool(script=_HERE / "dali_loader.py", **_DALI)
_FFCV_READER = Tool(script=_HERE / "ffcv_loader.py", **_FFCV)
_GRAIN = Tool(name="grain", script=_HERE / "grain_loader.py", requirements=_HERE / "requirements-grain.txt")
_WEBDATASET = Tool(
    name="webdataset", script=_HERE / "webdataset_loader.py", requirements=_HERE / "requirements-webdataset.txt"
)

CROPS = {
    **{tool.name: dataclasses.replace(tool, variant="crops") for tool in (_DALI_READER, _FFCV_READER)},
    **{
        tool.name: dataclasses.replace(tool, script=_HERE / "pillow_crops.py", variant=tool.name)
        for tool in (_WEBDATASET, _GRAIN)
    },
}

# By encoding, in the order of the tables.
LOADERS = {
    "raw": {tool.name: tool for tool in (_DALI_READER, _FFCV_READER, _GRAIN)},
    "jpeg": {tool.name: tool for tool in (_DALI_READER, _FFCV_READER, _WEBDATASET)},
}
