"""The tools that `simimg bench --stage=convert` compares, one script a tool, and where each of them runs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

__all__ = ["IMAGEDEDUP", "LIMIT_READ", "LIMIT_WRITE", "OURS", "RIVALS", "Tool"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tool:
    """A script beside this file that `tool_server.py` can run.

    Attributes:
        name: what it is called on the command line and in results.
        script: the file.
        requirements: what its own environment holds; None if it runs in ours.
        packages: programs and pkg-config modules that have to be on the machine to install it.
        debian: the Debian packages that bring them.
        variant: which of the ways that the script has.
    """

    name: str
    script: Path
    requirements: Path | None = None
    packages: tuple[str, ...] = ()
    debian: str = ""
    variant: str = ""


_HERE = Path(__file__).parent

OURS = Tool(name="simimg", script=_HERE / "simimg_converter.py")
LIMIT_READ = Tool(name="read and hash", script=_HERE / "read_limit.py")
IMAGEDEDUP = Tool(
    name="imagededup", script=_HERE / "imagededup_hashes.py", requirements=_HERE / "requirements-imagededup.txt"
)
LIMIT_WRITE = Tool(name="write", script=_HERE / "write_limit.py")

RIVALS = {
    tool.name: tool
    for tool in (
        Tool(name="tutorial", script=_HERE / "tutorial_converter.py"),
        Tool(name="tutorial_plain", script=_HERE / "tutorial_decoder.py"),
        Tool(name="tfdata", script=_HERE / "tfdata_converter.py"),
        Tool(name="dali", script=_HERE / "dali_converter.py", requirements=_HERE / "requirements-dali.txt"),
        Tool(
            name="ffcv",
            script=_HERE / "ffcv_converter.py",
            requirements=_HERE / "requirements-ffcv.txt",
            packages=("g++", "pkg-config", "opencv4", "libturbojpeg"),
            debian="g++ pkg-config libopencv-dev libturbojpeg0-dev",
        ),
    )
}
