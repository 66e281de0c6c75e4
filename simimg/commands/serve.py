"""Search, review copies and browse an index in the browser.

Drop, paste or choose an image, or click one of the collection, to see its matches and the reasons. Reviewing copies
group by group writes the plan of `simimg duplicates`; only `simimg apply` moves the files that it lists. Findings of
`simimg audit` are decided by key; `simimg decide` writes the decisions as lists for `simimg edit`.

With several --index_dir, the page has a switch between them. --text_model adds a field for descriptions, such as "red
sailing boat", to the indexes that the image encoder of the pair made.

The server listens on 127.0.0.1, so that only this machine can open the page, and only with the address that it prints:
the token in it is new with each start. It needs the extra `web`: pip install 'simimg-tf[web]'. It runs until Ctrl-C or
SIGTERM.

Example: simimg serve --index_dir=indexes/photos --open
"""

from __future__ import annotations

import dataclasses
import ipaddress
import os
import secrets
import tempfile
import threading
import webbrowser
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from simimg.commands.console import Result, note
from simimg.errors import UsageError
from simimg.signals import stop_requested
from simimg.similarity.edits import EDITS_HELP, counted_edits
from simimg.similarity.search_index import SearchIndex
from simimg.similarity.text_encoder import TEXT_MODEL_HELP, TextEncoder, open_text_encoder
from tfrecords.locations import path_of, url_of
from tfrecords.options import option
from tfrecords.storage.object_cache import CacheOptions

JSON_KEYS = "url port plan plans"

_POLL_S = 0.2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(CacheOptions):
    """Options of `serve`. Raises UsageError for an unknown kind of edit."""

    index_dir: tuple[Path, ...] = option(
        "Folder or URL of an index that `simimg index` made; give the flag several times to choose between several "
        "on the page.",
        repeated="PATH",
        url=True,
    )
    port: int = option("Port to listen on; auto is any free one.", 8765, words={"auto": 0})
    host: str = option(
        "Address to listen on; any but 127.0.0.1 lets other machines connect, without encryption.", "127.0.0.1"
    )
    plan: Path | None = option(
        "Plan of copies to load and to write; by default NAME-plan.json beside the index, NAME being the index's.", None
    )
    edits: tuple[str, ...] = option(EDITS_HELP, ("auto",))
    text_model: str = option(TEXT_MODEL_HELP, "")
    open: bool = option("Also open the page in the browser.", False)

    def __post_init__(self) -> None:
        super().__post_init__()
        counted_edits(self.edits)
        if self.plan and len(self.index_dir) > 1:
            raise UsageError(f"--plan={self.plan} is of one index. Leave it out: each index has a plan beside it.")
        plans = [_plan_beside(folder) for folder in self.index_dir]
        for place, plan in enumerate(plans):
            if plan in plans[:place]:
                raise UsageError(f"two of the indexes would have the plan {plan}. Serve them one by one, with --plan.")


def run(options: Options) -> Result:
    """Serve until a signal stops it."""
    with stop_requested() as stop:
        return serve(options, stop)


def serve(options: Options, stop: threading.Event) -> Result:
    """Serve until `stop` is set."""
    try:
        from simimg.web import ServedIndex, create_app, listening, serving
        from simimg.web.photo_details import folder_opener
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("starlette", "uvicorn"):
            raise
        raise UsageError(
            f"the search page needs {error.name}, which is not installed. Run: pip install 'simimg-tf[web]'"
        ) from None
    indexes = [SearchIndex.open(folder) for folder in options.index_dir]
    texts = _text_encoders(options.text_model, indexes)
    folders = [index.index_dir.resolve() for index in indexes]
    plans = [options.plan or _plan_beside(folder) for folder in options.index_dir]
    listener = listening(options.host, options.port)
    host, port = listener.getsockname()[:2]
    edits = counted_edits(options.edits)
    token = secrets.token_hex(24)
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}/?token={token}"
    opener = folder_opener(ipaddress.ip_address(host).is_loopback)
    served = [
        ServedIndex(index, index.load_embedder(), plan, text, _named(folder).name)
        for folder, index, plan, text in zip(options.index_dir, indexes, plans, texts, strict=True)
    ]
    app = create_app(*served, token=token, host=options.host, edits=edits, opener=opener)
    with serving(app, listener) as ended, ExitStack() as stack:
        if not ipaddress.ip_address(host).is_loopback:
            note("the connection is not encrypted: who can read the traffic of this network sees images and token")
        num_images = sum(len(index.images) for index in indexes)
        note(f"{num_images:,} images {f'of {len(indexes)} indexes ' if len(indexes) > 1 else ''}are at {url}")
        if options.open:
            webbrowser.open(stack.enter_context(_file_that_opens(url, folders[0])))
        while not stop.wait(_POLL_S) and not ended.is_set():
            pass
    values = {"url": url, "port": port, "plan": str(plans[0]), "plans": [str(plan) for plan in plans]}
    return Result(values=values, text="the search page was stopped")


def _plan_beside(index_dir: Path) -> Path:
    """Return the plan of an index: beside its folder, or in the working folder if it is at a URL."""
    beside = _named(index_dir)
    return beside.with_name(f"{beside.name}-plan.json").resolve()


def _named(index_dir: Path) -> Path:
    """Return a path with the name of an index: its folder, or one in the working folder if it is at a URL."""
    return Path(index_dir.name) if url_of(index_dir) else path_of(index_dir).resolve()


def _text_encoders(model: str, indexes: Sequence[SearchIndex]) -> list[TextEncoder | None]:
    """Return the text encoder for each index that fits it, and None for the others.

    Raises:
        UsageError: it fits no index, or cannot be opened.
    """
    if not model:
        return [None] * len(indexes)
    encoder = open_text_encoder(model)
    texts: list[TextEncoder | None] = []
    for index in indexes:
        try:
            encoder.check(index)
            texts.append(encoder)
        except UsageError as error:
            if len(indexes) == 1 or (len(texts) + 1 == len(indexes) and not any(texts)):
                raise
            note(f"no descriptions: {error}")
            texts.append(None)
    return texts


@contextmanager
def _file_that_opens(url: str, index_dir: Path) -> Iterator[str]:
    """Yield the URL of a file that leads the browser to `url`.

    All users of a machine see the arguments of its processes, so the browser is not started with the token. Only its
    owner can read the file. Browsers that are installed as a snap cannot read /tmp, so it lies in the index's folder.
    """
    folder = index_dir if os.access(index_dir, os.W_OK) else None
    with tempfile.NamedTemporaryFile("w", dir=folder, prefix="open-", suffix=".html", encoding="utf-8") as file:
        file.write(
            f'<!DOCTYPE html><meta charset="utf-8"><meta http-equiv="refresh" content="0; url={url}">'
            f'<title>simimg</title><a href="{url}">The search page</a>'
        )
        file.flush()
        yield Path(file.name).as_uri()
