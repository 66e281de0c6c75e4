"""The search page's server as an ASGI application: routes, parameters and responses.

    GET  /?token=TOKEN                          the page; its files are at /static/...
    GET  /api/collection                        columns of the images by row, labels, splits, thresholds
    GET  /api/thumbnail/{row}  /api/picture/{row}       JPEG
    POST /api/query                             an image file as the body: {"query", "width", "height"}
    GET  /api/query/{name}                      JPEG of a query
    POST /api/part                              {"query": NAME or "row": N, "box": [left, top, right, bottom]}: a query
    GET  /api/full/{row}                        JPEG at full size
    GET  /api/details/{row}                     file, EXIF, can_open    POST /api/open/{row}   opens its folder
    GET  /api/search?query=NAME|row=N|text=TEXT&by=&k=&label=&split=&folder=
                                                NDJSON: matches by embeddings first, then verified ones
    GET  /api/pair?row=N&with=M                 how one image is a copy of another
    GET  /api/map                               {"state", ...}, and {"x", "y"} when it is done
    GET  /api/review   POST /api/review {"threshold"}   DELETE /api/review   PUT /api/plan   see `simimg.web.review`
    POST /api/decisions                         see `simimg.web.review_decisions`
    /api/findings, /api/findings/...            see `simimg.web.collection_findings`

These are the routes of the first index. Those of the others have the prefix `/i/NAME`; `/api/indexes` lists them.

Errors are `{"error": message}`. The first response sets a cookie with the token, see `simimg.web.request_guard`.
"""

from __future__ import annotations

import asyncio
import functools
import importlib.resources
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp

from simimg.errors import SimimgError
from simimg.similarity.edits import COUNTED
from simimg.similarity.projection import BY
from simimg.web.background_job import BackgroundJob
from simimg.web.collection_findings import Findings
from simimg.web.collection_map import ROUNDS, load_or_lay_out
from simimg.web.photo_details import Opener, photo_details
from simimg.web.query_cache import MAX_BYTES, CachedQuery, QueryCache
from simimg.web.request_guard import Guard, RequestError, body_of, json_of
from simimg.web.review import Review
from simimg.web.review_decisions import store_decisions
from simimg.web.search_worker import SearchWorker
from simimg.web.served_index import ServedIndex, addresses, columns
from simimg.web.thumbnails import Thumbnails
from tfrecords.machine_limits import num_cores

_T = TypeVar("_T")

_MAX_MATCHES = 500
_MAX_PLAN_BYTES = 16 << 20  # a million rows
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_FOREVER = "private, max-age=31536000, immutable"  # if the URL has the generation of the index


def create_app(
    *served: ServedIndex,
    token: str,
    host: str = "127.0.0.1",
    edits: frozenset[str] = COUNTED,
    opener: Opener | None = None,
) -> ASGIApp:
    """Return the application for one index or several.

    `edits` are the kinds of edits that a copy may show, see `simimg.similarity.edits`. Only requests that know `token`
    are answered. `host` is the one that the server is bound to. `opener` shows a file in its folder.

    Raises:
        SearchIndexError: an embedder did not make its index.
    """
    pages = [_Page(one, edits, opener) for one in served]
    known = [
        {"name": one.name, "address": address, "num_images": len(one.index.images)}
        for one, address in zip(served, addresses(served), strict=True)
    ]

    async def indexes(request: Request) -> Response:
        return JSONResponse(known)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for page in pages:
                stack.callback(page.close)
                await asyncio.to_thread(page.worker.warm_up)
            yield

    first, *others = pages
    routes: Sequence[BaseRoute] = [
        Route("/api/indexes", indexes),
        *(
            Mount(str(one["address"]).rstrip("/"), routes=page.routes())
            for one, page in zip(known[1:], others, strict=True)
        ),
        *first.routes(),
    ]
    handlers = {RequestError: _refused, HTTPException: _http_error}
    return Guard(Starlette(routes=routes, exception_handlers=handlers, lifespan=lifespan), host, token)


class _Page:
    """The routes, and the state that they share."""

    def __init__(self, served: ServedIndex, edits: frozenset[str], opener: Opener | None) -> None:
        self.served = served
        self.index = index = served.index
        self.opener = opener
        self.thumbnails = Thumbnails(index)
        self.queries = QueryCache(served.embedder)
        self.worker = SearchWorker(index, served.embedder, edits)
        self.review = Review(index, self.thumbnails.images, served.plan_path, edits)
        self.findings = Findings(index)
        self.map = BackgroundJob("map")
        self.static = _static_files()
        self.decoding = ThreadPoolExecutor(num_cores(), thread_name_prefix="decode")

    def routes(self) -> list[BaseRoute]:
        return [
            Route("/", self.file),
            Route("/static/{name}", self.file),
            Route("/api/collection", self.describe_collection),
            Route("/api/thumbnail/{row:int}", partial(self.jpeg, self.thumbnails.thumbnail)),
            Route("/api/picture/{row:int}", partial(self.jpeg, self.thumbnails.large)),
            Route("/api/full/{row:int}", partial(self.jpeg, self.thumbnails.full)),
            Route("/api/details/{row:int}", self.details),
            Route("/api/open/{row:int}", self.open_folder, methods=["POST"]),
            Route("/api/part", self.take_part, methods=["POST"]),
            Route("/api/query", self.take_query, methods=["POST"]),
            Route("/api/query/{name}", self.query),
            Route("/api/search", self.search),
            Route("/api/pair", self.pair),
            Route("/api/map", self.layout),
            Route("/api/review", self.describe_review),
            Route("/api/review", self.start_review, methods=["POST"]),
            Route("/api/review", self.cancel_review, methods=["DELETE"]),
            Route("/api/decisions", self.decide, methods=["POST"]),
            Route("/api/plan", self.save_plan, methods=["PUT"]),
            *self.findings.routes(),
        ]

    def close(self) -> None:
        for job in (self.map, self.review.job, self.findings.job):
            job.stop()
        self.worker.close()
        self.decoding.shutdown(cancel_futures=True)

    # Computed when the page asks for it, so that the start does not wait for that of a large index.
    @functools.cached_property
    def collection(self) -> bytes:
        return columns(self.served)

    async def file(self, request: Request) -> Response:
        name = request.path_params.get("name", "index.html")
        if name not in self.static:
            raise RequestError(404, "There is no such page.")
        media_type, data = self.static[name]
        return Response(data, media_type=media_type, headers={"cache-control": "no-cache"})

    async def describe_collection(self, request: Request) -> Response:
        return Response(await self._decode(lambda: self.collection), media_type="application/json")

    async def jpeg(self, make: Callable[[int], bytes], request: Request) -> Response:
        data = await self._decode(lambda: make(request.path_params["row"]))
        cached = _FOREVER if "v" in request.query_params else "no-cache"
        return Response(data, media_type="image/jpeg", headers={"cache-control": cached})

    async def take_query(self, request: Request) -> Response:
        data = await body_of(request, MAX_BYTES)
        if not data:
            raise RequestError(400, "The body is empty. Send an image file.")
        query = await self._decode(lambda: self.queries.add(data))
        return JSONResponse({"query": query.name, "width": query.size[0], "height": query.size[1]}, 201)

    async def take_part(self, request: Request) -> Response:
        values = await json_of(request, 1024)
        box: Any = values.get("box") if isinstance(values, dict) else None
        is_box = isinstance(box, list) and len(box) == 4 and all(type(one) in (int, float) for one in box)
        if not is_box or not (0 <= box[0] < box[2] <= 1 and 0 <= box[1] < box[3] <= 1):
            raise RequestError(422, "box should be four numbers from 0 to 1: left, top, right and bottom.")
        if "row" in values:
            row = _number(str(values["row"]), "row", 0, len(self.index.images) - 1)
            read: Callable[[], bytes] = partial(self.thumbnails.read, row)
        else:
            known = self._known_query(str(values.get("query", "")))
            read = lambda: known.jpeg  # noqa: E731
        query = await self._decode(lambda: self.queries.part(read(), tuple(box)))
        return JSONResponse({"query": query.name, "width": query.size[0], "height": query.size[1]}, 201)

    async def details(self, request: Request) -> Response:
        row = request.path_params["row"]

        def described() -> dict[str, Any]:
            data = self.thumbnails.read(row)
            is_file = self.index.info.image_dir is not None
            file = str(self.thumbnails.file(row)) if is_file else None
            return {"file": file, "details": photo_details(data), "can_open": is_file and self.opener is not None}

        return JSONResponse(await self._decode(described))

    async def open_folder(self, request: Request) -> Response:
        file = self.thumbnails.file(request.path_params["row"])
        if self.opener is None:
            raise RequestError(409, "A folder can be opened only on the machine in front of which you sit.")
        try:
            self.opener(file)
        except OSError as error:
            raise RequestError(409, f"The folder cannot be opened: {error.strerror or error}.") from None
        return JSONResponse({"opened": str(file.parent)})

    async def query(self, request: Request) -> Response:
        query = self._known_query(request.path_params["name"])
        return Response(query.jpeg, media_type="image/jpeg")

    async def search(self, request: Request) -> Response:
        parameters = request.query_params
        by = parameters.get("by", "copy")
        if by not in BY:
            raise RequestError(400, f"by should be one of {', '.join(BY)}, but is {by[:20]!r}.")
        k = _number(parameters.get("k", "120"), "k", 1, _MAX_MATCHES)
        only = {name: parameters[name] for name in ("label", "split", "folder") if name in parameters}
        if "text" in parameters:
            vector = await self._decode(lambda: self._text_vector(parameters["text"]))
            found = self.worker.search_text(vector, k, **only)
        else:
            found = self.worker.search(await self._query_of(request), k, by, **only)

        lines = (json.dumps(values, ensure_ascii=False).encode() + b"\n" async for values in found)
        return StreamingResponse(lines, media_type="application/x-ndjson")

    async def pair(self, request: Request) -> Response:
        row, other = (self._row(request, name) for name in ("row", "with"))
        found = await self._decode(lambda: self.review.pair(row, other))
        if found is None:
            return JSONResponse({"similarity": None, "reason": None, "place": None, "differs": []})
        similarity = round(found.similarity, 4)
        differs = [] if found.differs is None else found.differs.boxes()
        values = {"similarity": similarity, "reason": found.text, "place": list(found.place), "differs": differs}
        return JSONResponse(values)

    async def layout(self, request: Request) -> Response:
        if self.map.result is None:
            self.map.start(lambda progress: load_or_lay_out(self.index, progress), ROUNDS)
            await asyncio.sleep(0.05)  # enough to load a cached map
        values = self.map.described()
        if self.map.result is not None:
            values["x"], values["y"] = ([round(place, 4) for place in axis] for axis in self.map.result.T.tolist())
        return JSONResponse(values)

    async def describe_review(self, request: Request) -> Response:
        return JSONResponse(await self._decode(self.review.described))

    async def start_review(self, request: Request) -> Response:
        values = await json_of(request, 1024)
        threshold = values.get("threshold") if isinstance(values, dict) else None
        if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0.5 <= threshold <= 1:
            raise RequestError(422, "threshold should be a number from 0.5 to 1.")
        self.review.start(float(threshold))
        return JSONResponse(self.review.job.described(), 202)

    async def cancel_review(self, request: Request) -> Response:
        self.review.job.cancel()
        return JSONResponse(self.review.job.described(), 202)

    async def save_plan(self, request: Request) -> Response:
        values = await json_of(request, _MAX_PLAN_BYTES)
        try:
            return JSONResponse(await self._decode(lambda: self.review.save(values)))
        except OSError as error:
            raise RequestError(409, f"The plan cannot be written: {error.strerror}.") from None

    async def decide(self, request: Request) -> Response:
        values = await json_of(request, _MAX_PLAN_BYTES)
        return JSONResponse(await self._decode(lambda: store_decisions(self.index, values)))

    def _text_vector(self, text: str) -> np.ndarray:
        if self.served.text is None:
            raise RequestError(409, "This index has no text encoder. Start simimg serve with --text_model=TEXT.onnx.")
        try:
            return self.served.text.embed(text)
        except SimimgError as error:
            raise RequestError(422, str(error)) from None

    async def _query_of(self, request: Request) -> CachedQuery:
        """Return the query that a request names, or the image of the index that it names as one."""
        parameters = request.query_params
        if "row" not in parameters:
            return self._known_query(parameters.get("query", ""))
        row = self._row(request, "row")
        if (known := self.queries.get(f"row-{row}")) is not None:
            return known
        return await self._decode(lambda: self.queries.add(self.thumbnails.read(row), row=row))

    def _row(self, request: Request, name: str) -> int:
        return _number(request.query_params.get(name, ""), name, 0, len(self.index.images) - 1)

    def _known_query(self, name: str) -> CachedQuery:
        query = self.queries.get(name)
        if query is None:
            raise RequestError(404, "This image is no longer kept. Drop it again.")
        return query

    def _decode(self, work: Callable[[], _T]) -> Awaitable[_T]:
        return asyncio.get_running_loop().run_in_executor(self.decoding, work)


@functools.cache
def _static_files() -> dict[str, tuple[str, bytes]]:
    """Return type and content of the page's files by name. They are read once, so that no request opens a path."""
    folder = importlib.resources.files("simimg.web") / "static"
    return {
        file.name: (_TYPES[Path(file.name).suffix], file.read_bytes())
        for file in folder.iterdir()
        if Path(file.name).suffix in _TYPES
    }


def _number(text: str, name: str, least: int, most: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 12 and least <= int(text) <= most):
        raise RequestError(400, f"{name} should be a number from {least} to {most}.")
    return int(text)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    return JSONResponse({"error": error.sentence}, error.status)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": f"{error.detail}."}, error.status_code, headers=error.headers)
