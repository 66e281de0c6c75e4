"""LanceDB's embedded index over the vectors of `benchmarks/vector_indexes.py`, in an environment of its own.

    python -P lancedb_vectors.py FOLDER NUM_VECTORS KIND RESULT.json

KIND is `IVF_PQ`, its default, or `IVF_RQ`, its RaBitQ. Ten times as many vectors as wanted are compared exactly
(`refine_factor`). The result has the keys of `Outcome` there, without those of the process. See
requirements-lancedb.txt.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

__all__ = ["main"]

_BLOCK_ROWS = 65_536
_REFINED = 10
_PROBES = tuple(2**power for power in range(10))
_ENOUGH = 0.99


def main(folder: str, num_vectors: str, kind: str, result: str) -> None:
    """Builds the index, and searches with more and more probes until the recall is enough."""
    import lancedb
    from lancedb.index import IvfPq, IvfRq

    source, count = Path(folder), int(num_vectors)
    vectors = np.load(source / "vectors.npy", mmap_mode="r")[:count]
    queries, truth = np.load(source / "queries.npy"), np.load(source / f"truth-{count}.npy")
    dim, where = vectors.shape[1], source / "lancedb"
    shutil.rmtree(where, ignore_errors=True)

    def blocks() -> Iterator[pa.RecordBatch]:
        for start in range(0, count, _BLOCK_ROWS):
            block = np.asarray(vectors[start : start + _BLOCK_ROWS], np.float32)
            rows = pa.array(np.arange(start, start + len(block)))
            yield pa.record_batch(
                [rows, pa.FixedSizeListArray.from_arrays(block.ravel(), dim)], names=["row", "vector"]
            )

    schema = pa.schema([("row", pa.int64()), ("vector", pa.list_(pa.float32(), dim))])
    start_s, cpu_s = time.perf_counter(), time.process_time()
    table = lancedb.connect(where).create_table("vectors", blocks(), schema=schema)
    table.create_index("vector", config={"IVF_PQ": IvfPq, "IVF_RQ": IvfRq}[kind]())
    built = {"build_s": time.perf_counter() - start_s, "build_cpu_s": time.process_time() - cpu_s}
    points = []
    for probes in _PROBES:
        hits, start_s, cpu_s = 0, time.perf_counter(), time.process_time()
        for query, true in zip(queries, truth, strict=True):
            search = (
                table.search(query)
                .nprobes(probes)
                .refine_factor(_REFINED)
                .select(["row", "_distance"])
                .limit(truth.shape[1])
            )
            hits += len(np.intersect1d(search.to_arrow()["row"].to_numpy(), true))
        queries_per_s = len(queries) / (time.perf_counter() - start_s)
        cpu_ms = 1000 * (time.process_time() - cpu_s) / len(queries)
        recall = hits / truth.size
        points.append({"effort": probes, "recall": recall, "queries_per_s": queries_per_s, "cpu_ms": cpu_ms})
        if recall >= _ENOUGH:
            break
    index_bytes = sum(file.stat().st_size for file in where.rglob("*") if file.is_file() and "_indices" in file.parts)
    Path(result).write_text(json.dumps({**built, "index_bytes": index_bytes, "points": points}))
    shutil.rmtree(where)


if __name__ == "__main__":
    main(*sys.argv[1:])
