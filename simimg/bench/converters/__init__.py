"""The converters that `simimg bench --stage=convert` compares in simimg's own environment: one script per tool.

`benchmarks/rivals` in the source repository has those that need an environment of their own.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

__all__ = ["LIMIT_READ", "LIMIT_WRITE", "OURS", "RIVALS", "Tool"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tool:
    """A script that `tool_server.py` can run.

    Attributes:
        name: its name on the command line and in results.
        script: the file.
        requirements: the content of its own environment; None if it runs in simimg's.
        packages: programs and pkg-config modules that must be on the machine to install it.
        debian: the Debian packages that provide them.
        variant: which of its ways of working the script uses, where it has several.
    """

    name: str
    script: Path
    requirements: Path | None = None
    packages: tuple[str, ...] = ()
    debian: str = ""
    variant: str = ""


_HERE = Path(__file__).parent

OURS = Tool(name="simimg", script=_HERE / "simimg_converter.py")
LIMIT_READ = Tool(name="read and hash", script=_HERE / "disk_limits.py", variant="read")
LIMIT_WRITE = Tool(name="write", script=_HERE / "disk_limits.py", variant="write")

RIVALS = {
    tool.name: tool
    for tool in (
        Tool(name="tutorial", script=_HERE / "tutorial_converter.py"),
        Tool(name="tutorial_plain", script=_HERE / "tutorial_converter.py", variant="plain"),
        Tool(name="tfdata", script=_HERE / "tfdata_converter.py"),
    )
}
