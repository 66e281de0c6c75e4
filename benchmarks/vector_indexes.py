"""Vector indexes beyond the exact search: how long each is built, its memory, its recall and its speed.

    python -m benchmarks.vector_indexes FOLDER NUM_VECTORS [WAY …]

The vectors, float16 `[n, 256]`, are drawn once into FOLDER and stay there: 5 GB for ten million. They are like the
vectors `copy` of a collection: unit vectors in clusters of about 50, two of which have a cosine of 0.2 to 0.7. Queries
are further members of the clusters. Each way runs in a process of its own; its line goes to FOLDER/results.jsonl.

`exact` and `compressed` are those of `simimg.similarity`, the others those of faiss (`index_factory`) and LanceDB. Of
an index with compressed vectors, the best 100 are compared again with the float16 vectors, which stay on disk. Each is
built with all cores, and searched in one thread with twice the effort until the recall is 0.99: vectors that are
compared again (without cells), probed cells, or the length of HNSW's list (`efSearch`).
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
from simimg.similarity.compressed_vectors import build_compressed
from simimg.similarity.nearest_neighbors import nearest

__all__ = ["WAYS", "Outcome", "draw", "main"]

DIM, K = 256, 10
_CLUSTER, _SPREAD = 50, 1.0  # vectors per cluster, and the standard deviation of the logarithm of its size
_LEAST, _MOST = 0.2, 0.7  # cosine of two members; that of a member to the center is its root
_NUM_QUERIES, _BATCH = 512, 64
_BLOCK_ROWS = 65_536
_TRAINED_WITH = 65_536  # vectors, for the codes
_NUM_CELLS, _LEAST_PER_CELL = 1024, 39  # faiss wants to be trained with as many
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


def _compressed(vectors: np.ndarray, folder: Path) -> tuple[int, _Search]:
    halves: Any = _Halves(vectors)
    built = build_compressed(halves, folder / "compressed.faiss")
    num_bytes = built.path.stat().st_size
    built.path.unlink()

    def search(queries: np.ndarray, effort: int) -> np.ndarray:
        return dataclasses.replace(built, num_compared=effort).nearest(queries[:, None], K)[1]

    return num_bytes, search


def _faiss_way(description: str, *, again: int = 0) -> _Build:
    def build(vectors: np.ndarray, folder: Path) -> tuple[int, _Search]:
        faiss: Any = importlib.import_module("faiss")  # whose types are those of an older version
        cells = description.startswith("IVF")
        num_cells = min(_NUM_CELLS, len(vectors) // _LEAST_PER_CELL)
        index = faiss.index_factory(DIM, description.format(cells=num_cells), faiss.METRIC_L2)
        if not index.is_trained:
            rows = np.random.default_rng(0).permutation(len(vectors))[:_TRAINED_WITH]
            index.train(vectors[np.sort(rows)].astype(np.float32))
        for start in range(0, len(vectors), _BLOCK_ROWS):
            index.add(vectors[start : start + _BLOCK_ROWS].astype(np.float32))
        file = folder / "index.faiss"
        faiss.write_index(index, str(file))
        num_bytes = file.stat().st_size
        file.unlink()

        def search(queries: np.ndarray, effort: int) -> np.ndarray:
            most, parameters = again or K, None
            if description.startswith("HNSW"):
                parameters = faiss.SearchParametersHNSW(efSearch=max(effort, again, K))
            elif not cells:
                most = effort
            elif "RaBitQ" in description:
                parameters = faiss.IVFRaBitQSearchParameters(nprobe=effort, qb=_QUERY_BITS)
            else:
                parameters = faiss.SearchParametersIVF(nprobe=effort)
            _, found = index.search(queries, most, params=parameters)
            if most == K:
                return found
            products = np.einsum("qkd,qd->qk", vectors[found].astype(np.float32), queries)
            products[found < 0] = -np.inf
            best = np.argsort(-products, axis=1)[:, :K]
            return np.take_along_axis(found, best, axis=1)

        return num_bytes, search

    return build


WAYS: dict[str, _Build] = {
    "compressed": _compressed,
    "exact": _exact,
    "exact-float32": _exact32,
    "ivf-rabitq": _faiss_way("IVF{cells},RaBitQ", again=_COMPARED_AGAIN),
    "ivf-rabitq-packed": _faiss_way("IVF{cells},RaBitQfs", again=_COMPARED_AGAIN),
    "ivf-rabitq4": _faiss_way("IVF{cells},RaBitQ4", again=_COMPARED_AGAIN),
    "ivf-pq-packed": _faiss_way("IVF{cells},PQ64x4fs", again=_COMPARED_AGAIN),
    "ivf-pq32": _faiss_way("IVF{cells},PQ32", again=_COMPARED_AGAIN),
    "ivf-sq8": _faiss_way("IVF{cells},SQ8", again=_COMPARED_AGAIN),
    "ivf-float16": _faiss_way("IVF{cells},SQfp16"),
    "pq-packed": _faiss_way("PQ64x4fs", again=_COMPARED_AGAIN),
    "hnsw": _faiss_way("HNSW32,Flat"),
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
