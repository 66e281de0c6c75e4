"""The one thread that searches: in steps, in turn, and not for those who have gone."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from simimg.similarity.embeddings import Embedder
from simimg.similarity.query_search import Finder, SearchResult
from simimg.similarity.search_index import SearchIndex
from simimg.similarity.search_queries import Query, load_query
from simimg.web.background_job import BackgroundJob
from simimg.web.query_cache import CachedQuery, QueryCache
from simimg.web.search_worker import SearchWorker


@pytest.fixture
def engine(index: SearchIndex, embedder: Embedder) -> Iterator[SearchWorker]:
    engine = SearchWorker(index, embedder)
    yield engine
    engine.close()


@pytest.fixture
def asked(index: SearchIndex, embedder: Embedder) -> CachedQuery:
    return QueryCache(embedder).add(index.path_of(index.images[0]).read_bytes(), row=0)


async def collected(engine: SearchWorker, asked: CachedQuery) -> list[dict[str, Any]]:
    return [values async for values in engine.search(asked, 5, "copy")]


@pytest.mark.parametrize("by", ["copy", "kind"])
def test_the_last_step_is_what_find_returns(index: SearchIndex, embedder: Embedder, by: str) -> None:
    finder = Finder(index, embedder)
    try:
        for row in range(len(index.images)):
            query = load_query(str(index.path_of(index.images[row])), embedder)
            assert isinstance(query, Query)
            steps = list(finder.steps(query.views, query.image, 6, by, without=row))
            expected = finder.find(query, 6, by, without=row)
            assert [(found.row, found.verification) for found in steps[-1]] == [
                (found.row, found.verification) for found in expected
            ]
            for found, wanted in zip(steps[-1], expected, strict=True):  # batches of other sizes round otherwise
                assert found.similarity == pytest.approx(wanted.similarity, abs=1e-5)
                assert found.cosine == pytest.approx(wanted.cosine, abs=1e-5)
            assert all(found.verification is None for found in steps[0])
    finally:
        finder.close()


def test_the_model_is_loaded_before_anything_else_is_written(index: SearchIndex, embedder: Embedder) -> None:
    """While libraries load it, standard error is captured; a line of the command was lost in it."""
    called, computing = [], threading.Event()

    def network(images: np.ndarray) -> np.ndarray:
        called.append(len(images))
        if len(called) > 1:
            computing.wait(60)
        return embedder.network(images)

    engine = SearchWorker(index, dataclasses.replace(embedder, network=network))
    try:
        engine.warm_up()  # which does not wait for the rest
        assert called[0] == 2
    finally:
        computing.set()
        engine.close()


def test_a_filter_finds_what_is_far_down_the_list(index: SearchIndex, embedder: Embedder, asked: CachedQuery) -> None:
    finder = Finder(index, embedder)
    only = np.zeros(len(index.images), bool)
    only[[3, 7]] = True
    try:
        for step in finder.steps(asked.views, asked.image, 10, only=only):
            assert {found.row for found in step} == {3, 7}
        assert list(finder.steps(asked.views, asked.image, 10, only=np.zeros_like(only)))[-1] == []
    finally:
        finder.close()


def test_who_goes_away_ends_his_search(
    engine: SearchWorker, asked: CachedQuery, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken, may_go_on = [], threading.Event()

    def steps(*given: Any, **named: Any) -> Iterator[list[SearchResult]]:
        for number in range(100):
            taken.append(number)
            yield []
            may_go_on.wait(10)

    async def leave() -> None:
        found = engine.search(asked, 5, "copy")
        assert (await anext(found))["matches"] == []
        await found.aclose()  # type: ignore[attr-defined]

    with monkeypatch.context() as patched:
        patched.setattr(engine._finder, "steps", steps)
        asyncio.run(leave())
        may_go_on.set()
    assert asyncio.run(collected(engine, asked))[-1]["final"]  # the thread is free again
    assert len(taken) <= 2


def test_an_error_is_told_to_whom_it_concerns(
    engine: SearchWorker, asked: CachedQuery, monkeypatch: pytest.MonkeyPatch
) -> None:
    def steps(*given: Any, **named: Any) -> Iterator[list[SearchResult]]:
        raise MemoryError("no more")
        yield []

    with monkeypatch.context() as patched:
        patched.setattr(engine._finder, "steps", steps)
        with pytest.raises(MemoryError, match="no more"):
            asyncio.run(collected(engine, asked))
    assert asyncio.run(collected(engine, asked))[-1]["final"]


def ended(job: BackgroundJob) -> dict[str, Any]:
    for _ in range(6000):  # a minute
        if job.described()["state"] != "running":
            return job.described()
        time.sleep(0.01)
    raise AssertionError("it does not end")


def test_a_job_tells_its_progress_its_result_and_its_error() -> None:
    job, going = BackgroundJob("work"), threading.Event()
    assert job.described()["state"] == "idle"

    def work(progress: Callable[[int], object]) -> str:
        progress(3)
        going.wait(60)
        return "made"

    job.start(work, 7)
    job.start(lambda progress: "another", 1)  # one at a time
    while job.described()["done"] != 3:
        time.sleep(0.01)
    assert job.described() == {"state": "running", "done": 3, "total": 7, "error": ""}
    left = job.seconds_left()
    assert left is not None
    assert left >= 0
    going.set()
    assert ended(job)["state"] == "done"
    assert job.result == "made"
    job.start(lambda progress: 1 / 0, 1)
    assert ended(job) == {"state": "failed", "done": 0, "total": 1, "error": "ZeroDivisionError: division by zero"}
    assert job.seconds_left() is None
    going.clear()
    job.start(lambda progress: [progress(0) for _ in iter(lambda: going.wait(0.01), True)], 1)
    assert job.seconds_left() is None  # nothing is done yet
    job.cancel()
    assert ended(job)["state"] == "idle"
    going.set()
    job.start(work, 7)  # it was cancelled, not stopped for good
    assert ended(job)["state"] == "done"
    job.stop()
    job.start(work, 7)
    assert ended(job)["state"] == "idle"
