"""Search, review copies and look at a map of an index in the browser.

Drop, paste or choose a picture, or click one of the collection, and see what matches it and why. Copies are reviewed
group by group, which writes the plan of `simimg duplicates`: `simimg apply` carries it out, nothing else moves a file.

The page is for this machine alone: it listens at 127.0.0.1, and whoever may open it may see every picture of the index.
Needs the extra `web`. It runs until Ctrl-C or SIGTERM.

Example: simimg serve --index_dir=indexes/photos --open
"""

from __future__ import annotations

import dataclasses
import ipaddress
import threading
import webbrowser
from pathlib import Path

from simimg.commands.console import Result, note, quiet_tensorflow
from simimg.errors import UsageError
from simimg.signals import stop_requested
from tfrecords.options import option

with quiet_tensorflow():
    from simimg.similarity import SearchIndex, load_embedder

_LOOK_S = 0.2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What `serve` can be told."""

    index_dir: Path = option("Folder that `simimg index` made.")
    port: int = option("To listen at; 0 is any that is free.", 8765)
    host: str = option("Address to listen at; another than 127.0.0.1 shows the pictures to others.", "127.0.0.1")
    plan: Path | None = option("Plan of copies to load and to write [beside the index: NAME-plan.json].", None)
    open: bool = option("Open the page in the browser, too.", False)


def run(options: Options) -> Result:
    """Serves until it is told to stop."""
    with stop_requested() as stop:
        return serve(options, stop)


def serve(options: Options, stop: threading.Event) -> Result:
    """Serves until `stop` is set."""
    try:
        from simimg.web import create_app, listening, serving
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("starlette", "uvicorn"):
            raise
        raise UsageError(
            f"the search page needs {error.name}, which is not installed: pip install 'simimg-tf[web]'"
        ) from None
    index = SearchIndex.open(options.index_dir)
    folder = options.index_dir.resolve()
    plan = options.plan or folder.with_name(f"{folder.name}-plan.json")
    listener = listening(options.host, options.port)
    host, port = listener.getsockname()[:2]
    url = f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
    app = create_app(index, load_embedder(index.info.model), plan, host=options.host)
    with serving(app, listener) as ended:
        if not ipaddress.ip_address(host).is_loopback:
            note("whoever reaches this address may see every picture of the index, and write its plan")
        note(f"{len(index.pictures):,} pictures are at {url}")
        if options.open:
            webbrowser.open(url)
        while not stop.wait(_LOOK_S) and not ended.is_set():
            pass
    return Result(values={"url": url, "port": port, "plan": str(plan)}, text="the search page has ended")
