"""Vector indexes beyond the exact search: how long each is built, its memory, its recall and its speed.

    python -m benchmarks.vector_indexes FOLDER NUM_VECTORS [WAY …]

The vectors, float16 `[n, 256]`, are drawn once into FOLDER and stay there: 5 GB for ten million. They are like the
vectors `copy` of a collection: unit vectors in clusters of about 50, two of which have a cosine of 0.2 to 0.7. Queries
are further members of the clusters. Each way runs in a process of its own; its line goes to FOLDER/results.jsonl.

`exact` and `cells` are those of `simimg.similarity`; the other ways with cells take theirs from `cells`. Of an index
with compressed vectors, the best 100 (`cells`: as many as it compares) are compared again with the float16 vectors,
which stay on disk. Each is built with all cores, and searched in one thread with twice the effort until the recall is
0.99: probed cells, or the length of HNSW's list (`efSearch`).
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from simimg.bench.converters import Tool
from simimg.bench.virtualenvs import environment_variables, python_of
from simimg.similarity.inverted_file import build_cells
from simimg.similarity.nearest_neighbors import nearest

__all__ = ["WAYS", "Outcome", "draw", "main"]

DIM, K = 256, 10
_CLUSTER, _SPREAD = 50, 1.0  # vectors per cluster, and the standard deviation of the logarithm of its size
_LEAST, _MOST = 0.2, 0.7  # cosine of two members; that of a member to the center is its root
_NUM_QUERIES, _BATCH = 512, 64
_BLOCK_ROWS = 65_536
_TRAINED_WITH = 65_536  # vectors, for the codes
_QUERY_BITS = 8  # of RaBitQ
_SINGLE = 32  # queries that are searched one by one
_COMPARED_AGAIN = 100
_ENOUGH = 0.99
_EFFORTS = tuple(2**power for power in range(4, 11))  # of HNSW: from 64 on
_RIVALS = Path(__file__).parent / "rivals"

_Build = Callable[[np.ndarray, Path], tuple[int, "_Search"]]  # returns the bytes of the index
_Search = Callable[[np.ndarray, int], np.ndarray]  # queries and the effort; returns rows


@dataclasses.dataclass(kw_only=True)
class Outcome:
    """What was measured of one way.

    Attributes:
        way: its name.
        num_vectors: in the index.
        build_s: wall time until it can be searched, from the vectors on disk.
        build_cpu_s: processor time of that.
        index_bytes: its size in a file.
        peak_bytes: the most memory of the process that is no file's.
        points: per effort, the recall@10, and processor ms per query in calls of 64 and of one. LanceDB: of one alone.
    """

    way: str
    num_vectors: int
    build_s: float
    build_cpu_s: float
    index_bytes: int
    peak_bytes: int
    points: list[dict[str, float]]


class _Halves:
    """float16 vectors on disk, as an array that is float32 where it is read."""

    def __init__(self, vectors: np.ndarray) -> None:
        self.vectors, self.shape = vectors, vectors.shape

    def __len__(self) -> int:
        return len(self.vectors)

    def __getitem__(self, key: Any) -> np.ndarray:
        return self.vectors[key].astype(np.float32)


def draw(folder: Path, num_vectors: int) -> None:
    """Draw the vectors and the queries, unless a file has enough of them, and find the true nearest ten."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "vectors.npy"
    if not path.exists() or len(np.load(path, mmap_mode="r")) < num_vectors:
        rng = np.random.default_rng(0)
        centers = rng.standard_normal((max(1, num_vectors // _CLUSTER), DIM), np.float32)
        centers /= np.linalg.norm(centers, axis=1, keepdims=True)
        shares = np.cumsum(rng.lognormal(0.0, _SPREAD, len(centers)))

        def members(count: int) -> np.ndarray:
            around = centers[np.searchsorted(shares, rng.random(count) * shares[-1])]
            toward = rng.uniform(_LEAST, _MOST, (count, 1)).astype(np.float32)
            noise = rng.standard_normal((count, DIM), np.float32)
            noise /= np.linalg.norm(noise, axis=1, keepdims=True)
            found = np.sqrt(toward) * around + np.sqrt(1 - toward) * noise
            return found / np.linalg.norm(found, axis=1, keepdims=True)

        np.save(folder / "queries.npy", members(_NUM_QUERIES))
        written = np.lib.format.open_memmap(path, "w+", np.float16, (num_vectors, DIM))
        for start in range(0, num_vectors, _BLOCK_ROWS):
            written[start : start + _BLOCK_ROWS] = members(len(written[start : start + _BLOCK_ROWS]))
        written.flush()
    truth = folder / f"truth-{num_vectors}.npy"
    if not truth.exists():
        vectors: Any = _Halves(_vectors(folder, num_vectors))
        np.save(truth, nearest(vectors, np.load(folder / "queries.npy")[:, None], K)[1])


def _vectors(folder: Path, num_vectors: int) -> np.ndarray:
    return np.load(folder / "vectors.npy", mmap_mode="r")[:num_vectors]


def _exact(vectors: np.ndarray, folder: Path) -> tuple[int, _Search]:
    halves: Any = _Halves(vectors)
    return vectors.nbytes, lambda queries, _: nearest(halves, queries[:, None], K)[1]


def _exact32(vectors: np.ndarray, folder: Path) -> tuple[int, _Search]:
    whole = vectors.astype(np.float32)
    return whole.nbytes, lambda queries, _: nearest(whole, queries[:, None], K)[1]


def _cells(vectors: np.ndarray, folder: Path) -> tuple[int, _Search]:
    halves: Any = _Halves(vectors)
    built = build_cells(halves, _cells_path(folder, len(vectors)))

    def search(queries: np.ndarray, effort: int) -> np.ndarray:
        return dataclasses.replace(built, num_probed=effort).nearest(queries[:, None], K)[1]

    return built.path.stat().st_size, search


def _cells_path(folder: Path, num_vectors: int) -> Path:
    return folder / f"cells-{num_vectors}.faiss"


def _faiss_way(description: str, *, again: int = 0) -> _Build:
    def build(vectors: np.ndarray, folder: Path) -> tuple[int, _Search]:
        faiss: Any = importlib.import_module("faiss")  # whose types are those of an older version
        graph, packed = description.startswith("HNSW"), "fs" in description
        if graph:
            cells, index = None, faiss.index_factory(DIM, description, faiss.METRIC_L2)
        else:
            divided = faiss.read_index(str(_cells_path(folder, len(vectors))), faiss.IO_FLAG_MMAP)
            num_cells, cells = divided.nlist, np.empty(len(vectors), np.int64)
            index = faiss.index_factory(DIM, description.format(cells=num_cells), faiss.METRIC_L2)
            index.quantizer.add(divided.quantizer.reconstruct_n(0, num_cells))  # so it is not trained again
            for cell in range(num_cells):
                lists = divided.invlists
                cells[faiss.rev_swig_ptr(lists.get_ids(cell), lists.list_size(cell))] = cell
        if not index.is_trained:
            rows = np.random.default_rng(0).permutation(len(vectors))[:_TRAINED_WITH]
            index.train(vectors[np.sort(rows)].astype(np.float32))
        for start in range(0, len(vectors), _BLOCK_ROWS):
            block = vectors[start : start + _BLOCK_ROWS].astype(np.float32)
            if cells is None or packed:  # whose codes nothing but `add` packs
                index.add(block)
            else:
                own = cells[start : start + len(block)]
                index.add_core(len(block), faiss.swig_ptr(block), None, faiss.swig_ptr(own))
        file = folder / "index.faiss"
        faiss.write_index(index, str(file))
        num_bytes = file.stat().st_size
        file.unlink()

        def search(queries: np.ndarray, effort: int) -> np.ndarray:
            if graph:
                parameters = faiss.SearchParametersHNSW(efSearch=max(effort, again, K))
            elif "RaBitQ" in description:
                parameters = faiss.IVFRaBitQSearchParameters(nprobe=effort, qb=_QUERY_BITS)
            else:
                parameters = faiss.SearchParametersIVF(nprobe=effort)
            _, found = index.search(queries, again or K, params=parameters)
            if not again:
                return found
            products = np.einsum("qkd,qd->qk", vectors[found].astype(np.float32), queries)
            products[found < 0] = -np.inf
            best = np.argsort(-products, axis=1)[:, :K]
            return np.take_along_axis(found, best, axis=1)

        return num_bytes, search

    return build


WAYS: dict[str, _Build] = {
    "cells": _cells,
    "exact": _exact,
    "exact-float32": _exact32,
    "ivf-rabitq": _faiss_way("IVF{cells},RaBitQ", again=_COMPARED_AGAIN),
    "ivf-rabitq-packed": _faiss_way("IVF{cells},RaBitQfs", again=_COMPARED_AGAIN),
    "ivf-rabitq4": _faiss_way("IVF{cells},RaBitQ4", again=_COMPARED_AGAIN),
    "ivf-pq-packed": _faiss_way("IVF{cells},PQ64x4fs", again=_COMPARED_AGAIN),
    "ivf-pq32": _faiss_way("IVF{cells},PQ32", again=_COMPARED_AGAIN),
    "ivf-sq8": _faiss_way("IVF{cells},SQ8", again=_COMPARED_AGAIN),
    "ivf-float16": _faiss_way("IVF{cells},SQfp16"),
    "hnsw-sq8": _faiss_way("HNSW32,SQ8", again=_COMPARED_AGAIN),
}
LANCEDB = {"lancedb-pq": "IVF_PQ", "lancedb-rabitq": "IVF_RQ"}


def measure(folder: Path, num_vectors: int, way: str) -> Outcome:
    """Build one index in this process with all cores, and search it in one thread."""
    vectors = _vectors(folder, num_vectors)
    queries, truth = np.load(folder / "queries.npy"), np.load(folder / f"truth-{num_vectors}.npy")
    start_s, cpu_s = time.perf_counter(), time.process_time()
    index_bytes, search = WAYS[way](vectors, folder)
    build_s, build_cpu_s = time.perf_counter() - start_s, time.process_time() - cpu_s
    importlib.import_module("faiss").omp_set_num_threads(1)
    points = []
    for effort in (1,) if way.startswith("exact") else _EFFORTS[2:] if way.startswith("hnsw") else _EFFORTS:
        search(queries[:_BATCH], effort)
        cpu_s = time.process_time()
        batches = (queries[start : start + _BATCH] for start in range(0, len(queries), _BATCH))
        found = np.concatenate([search(batch, effort) for batch in batches])
        batched_s, cpu_s = time.process_time() - cpu_s, time.process_time()
        for query in range(_SINGLE):
            search(queries[query : query + 1], effort)
        single_s = time.process_time() - cpu_s
        hits = sum(len(np.intersect1d(ours, true)) for ours, true in zip(found, truth, strict=True))
        points.append(
            {
                "effort": effort,
                "recall": hits / truth.size,
                "batched_cpu_ms": 1000 * batched_s / len(queries),
                "single_cpu_ms": 1000 * single_s / _SINGLE,
            }
        )
        if points[-1]["recall"] >= _ENOUGH:
            break
    return Outcome(
        way=way,
        num_vectors=num_vectors,
        build_s=build_s,
        build_cpu_s=build_cpu_s,
        index_bytes=index_bytes,
        peak_bytes=0,
        points=points,
    )


def _in_process(command: list[str], variables: dict[str, str] | None = None) -> int:
    """Run a command, and return the most memory that it had which is no file's."""
    with subprocess.Popen(command, env=variables) as process:
        watched, peak, ended = psutil.Process(process.pid), 0, threading.Event()
        while process.poll() is None:
            try:
                memory = watched.memory_info()
            except psutil.NoSuchProcess:
                break
            peak = max(peak, memory.rss - memory.shared)
            ended.wait(0.1)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return peak


def _lancedb(folder: Path, num_vectors: int, way: str, result: Path) -> int:
    tool = Tool(
        name="lancedb",
        script=_RIVALS / "lancedb_vectors.py",
        requirements=_RIVALS / "requirements-lancedb.txt",
    )
    python = python_of(tool, Path.home() / ".cache/simimg")
    command = [str(python), "-P", str(tool.script), str(folder), str(num_vectors), LANCEDB[way], str(result)]
    return _in_process(command, environment_variables(tool))


def main(arguments: list[str]) -> None:
    """Measure the given ways, by default all of them, and append each to FOLDER/results.jsonl."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("num_vectors", type=int)
    parser.add_argument("ways", nargs="*", metavar="WAY", help=", ".join([*WAYS, *LANCEDB]))
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.result:
        outcome = measure(given.folder, given.num_vectors, given.ways[0])
        given.result.write_text(json.dumps(dataclasses.asdict(outcome)))
        return
    draw(given.folder, given.num_vectors)
    ways = given.ways or [*WAYS, *LANCEDB]
    if any(way.startswith("ivf") for way in ways) and not _cells_path(given.folder, given.num_vectors).exists():
        ways = ["cells", *(way for way in ways if way != "cells")]
    for way in ways:
        with tempfile.TemporaryDirectory() as place:
            result = Path(place) / "result.json"
            if way in LANCEDB:
                peak = _lancedb(given.folder, given.num_vectors, way, result)
            else:
                numbers = [str(given.folder), str(given.num_vectors), way]
                peak = _in_process(
                    [sys.executable, "-m", "benchmarks.vector_indexes", *numbers, "--result", str(result)]
                )
            measured = {
                "way": way,
                "num_vectors": given.num_vectors,
                **json.loads(result.read_text()),
                "peak_bytes": peak,
            }
        line = json.dumps(measured)
        with open(given.folder / "results.jsonl", "a") as file:
            file.write(line + "\n")
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
