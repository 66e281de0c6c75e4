"""Throughput of embedding, and the time of one query, part by part.

Embedding: `index`, from JPEG files to an index on disk, is compared with decoding the same files alone, with the
network alone on pixels in memory, and with the peak of the processor: a large float32 matrix product with all cores.

A query is an edited copy of an image of the index. `first` is the first time that its candidates are examined.
`again` is the second time, when their keypoints are still in memory. The parts are those of `first`.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from simimg.bench.exact_search import PEAK, matrix_product, turn
from simimg.bench.image_sets import ImageSet
from simimg.bench.measurements import Estimate, Run, estimate, ratios, take_turns
from simimg.errors import UsageError
from simimg.image_files import BATCH_SIZE, load_files
from simimg.models.backbones import lite_features
from simimg.similarity.embeddings import Embedder
from simimg.similarity.evaluation.image_edits import EDITS
from simimg.similarity.fingerprint import forget_fingerprints
from simimg.similarity.index_update import index_folder
from simimg.similarity.query_search import Finder
from simimg.similarity.search_index import SearchIndex
from simimg.similarity.search_queries import Query, QueryImage, query_views
from tfrecords.convert.image.decoder import decode
from tfrecords.format.image_size import image_shape

__all__ = ["EmbeddingSpeed", "Part", "QueryTime", "flops_of", "measure_embedding", "measure_queries"]

_INDEX, _DECODE, _NETWORK = "index", "decode alone", "network alone"
_FEWEST_IMAGES_PER_S = 60.0  # on two cores
_MOST_MS = 150.0
_FILES = 256


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmbeddingSpeed:
    """Throughput of embedding.

    Attributes:
        what: a description of the images.
        images_per_s: the median throughput by task.
        ci95: their 95 % intervals; None if there were fewer than five rounds.
        index_to_decode: throughput of `index` as a share of decoding's.
        index_to_network: throughput of `index` as a share of the network's.
        gflops_per_image: multiplications and additions of the network's layers, 10**9 per image.
        network_to_peak: operations of the network as a share of the processor's peak.
        peak_gflops: that peak, 10**9 operations per second.
        aim: images/s that `index` should reach.
        met: whether it reaches them.
        rounds: every counted run.
    """

    what: str
    images_per_s: dict[str, float]
    ci95: dict[str, tuple[float, float] | None]
    index_to_decode: float
    index_to_network: float
    gflops_per_image: float
    network_to_peak: float
    peak_gflops: float
    aim: float
    met: bool
    rounds: dict[str, list[Run]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """A part of a query's time: its name, the median in ms, and the 95 % interval."""

    name: str
    ms: float
    ci95: tuple[float, float] | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class QueryTime:
    """Times of queries, `first` and `again`, and their parts; `met` is whether `first` is at most `aim_ms`."""

    what: str
    parts: tuple[Part, ...]
    first: Part
    again: Part
    aim_ms: float
    met: bool
    seconds: dict[str, list[float]]


def measure_embedding(
    pictures: ImageSet,
    embedder: Embedder,
    *,
    repeats: int,
    watch: Callable[[int], Callable[[], object]] = lambda _: lambda: None,
) -> EmbeddingSpeed:
    """Measures with up to 256 of the images, evenly chosen, in an index that is built from scratch each time."""
    step = max(1, len(pictures.files) // _FILES)
    files = pictures.files[::step][:_FILES]
    flops = flops_of(lite_features(embedder.name))
    with tempfile.TemporaryDirectory(prefix="embedding-") as folder:
        source = Path(folder) / "files"
        for file in files:
            (source / file).parent.mkdir(parents=True, exist_ok=True)
            (source / file).symlink_to((pictures.folder / file).resolve())

        def index() -> None:
            with tempfile.TemporaryDirectory(dir=folder) as index_dir:
                index_folder(Path(index_dir) / "index", source, embedder)

        def load() -> None:
            for _ in load_files(files, embedder.image_options, pictures.folder):
                pass

        height, width, _ = shape = image_shape(embedder.image_size)
        batch = np.random.default_rng(0).integers(0, 256, (BATCH_SIZE, *shape), np.uint8)
        tools = {
            _INDEX: turn(index, len(files)),
            _DECODE: turn(load, len(files)),
            _NETWORK: turn(lambda: embedder.embed(batch), BATCH_SIZE),
            PEAK: matrix_product(),
        }
        rounds, failures = take_turns(tools, repeats=repeats, progress=watch(len(tools) * (repeats + 1)))
    assert not failures
    speeds = {name: estimate([run.images_per_s for run in rounds[name]]) for name in (_INDEX, _DECODE, _NETWORK)}
    operations = [dataclasses.replace(run, num_images=flops * run.num_images) for run in rounds[_NETWORK]]
    return EmbeddingSpeed(
        what=f"{len(files):,} JPEG files of {pictures.folder.name}, {embedder.name} at {width} x {height}",
        images_per_s={name: speed.median for name, speed in speeds.items()},
        ci95={name: speed.ci95 for name, speed in speeds.items()},
        index_to_decode=estimate(ratios(rounds[_INDEX], rounds[_DECODE])).median,
        index_to_network=estimate(ratios(rounds[_INDEX], rounds[_NETWORK])).median,
        gflops_per_image=flops / 1e9,
        network_to_peak=estimate(ratios(operations, rounds[PEAK])).median,
        peak_gflops=estimate([run.images_per_s / 1e9 for run in rounds[PEAK]]).median,
        aim=_FEWEST_IMAGES_PER_S,
        met=speeds[_INDEX].median >= _FEWEST_IMAGES_PER_S,
        rounds=rounds,
    )


def flops_of(network: keras.Model) -> int:
    """Returns the operations of convolutions and dense layers for one image: two each time that a weight is used."""
    total = 0
    for layer in network.layers:
        if isinstance(layer, keras.Model):
            total += flops_of(layer)
        elif (kernel := getattr(layer, "kernel", None)) is not None:
            # A convolution uses its kernel [height, width, channels, filters] at each position of its output.
            total += 2 * int(np.prod(kernel.shape)) * (_positions(layer) if len(kernel.shape) == 4 else 1)
    return total


def _positions(layer: Any) -> int:
    _, height, width, _ = layer.output.shape
    return int(height * width)


def measure_queries(
    index: SearchIndex,
    embedder: Embedder,
    *,
    num_queries: int,
    seed: int = 0,
    watch: Callable[[int], Callable[[], object]] = lambda _: lambda: None,
) -> QueryTime:
    """Measures one query after another; each is an image of the index with one edit, and the edits take turns.

    Args:
        index: an index whose image files exist.
        embedder: its model.
        num_queries: the number of queries.
        seed: selects the images.
        watch: takes the number of queries and returns a function to call after each.

    Raises:
        UsageError: the index has fewer images.
    """
    if not 1 <= num_queries <= len(index.images):
        raise UsageError(
            f"{index.index_dir} has {len(index.images)} images; `num_queries` should be from 1 to that number. "
            f"Received: num_queries={num_queries}."
        )
    advance = watch(num_queries + 1)
    seconds: dict[str, list[float]] = {}
    finder = Finder(index, embedder)
    drawn = np.random.default_rng(seed).permutation(len(index.images))[:num_queries]
    edits = list(EDITS)
    for number, row in enumerate([drawn[0], *drawn]):  # the first is the warm-up
        path = index.path_of(index.images[int(row)])
        edit = edits[number % len(edits)]
        copy = EDITS[edit](decode(path.read_bytes()), np.random.default_rng([seed, int(row)]))
        with tempfile.NamedTemporaryFile(suffix=".jpg") as file:
            copy.save(file.name, quality=95)
            for name, value in _one(finder, Path(file.name)).items():
                if number:
                    seconds.setdefault(name, []).append(value)
        advance()
    finder.close()
    parts = {name: _part(name, values) for name, values in seconds.items()}
    first, again = parts.pop("first"), parts.pop("again")
    return QueryTime(
        what=f"{num_queries} edited copies among {len(index.images):,} images",
        parts=tuple(parts.values()),
        first=first,
        again=again,
        aim_ms=_MOST_MS,
        met=first.ms <= _MOST_MS,
        seconds=seconds,
    )


def _one(finder: Finder, path: Path) -> dict[str, float]:
    """Returns the seconds of one query and of its parts, as wall time where a part uses several threads."""
    embedder, index = finder.embedder, finder.index
    forget_fingerprints()
    found, times = {}, [time.perf_counter()]

    def done(name: str) -> None:
        times.append(time.perf_counter())
        found[name] = times[-1] - times[-2]

    image = decode(path.read_bytes())
    done("decode")
    views = query_views(image, embedder.image_options)
    done("17 views of it")
    query = Query(str(path), views, QueryImage(image))
    query.image.fingerprint  # noqa: B018 - computed now
    done("its keypoints")
    embeddings = embedder.embed(views)[None]
    done("embed the views")
    index.search(embeddings, 49)
    done("nearest in the index")
    finder.find(query, 5)
    done("find")
    finder.find(query, 5)
    done("find again")
    before = found["decode"] + found["17 views of it"] + found["its keypoints"]
    twice = found["embed the views"] + found["nearest in the index"]  # `find` does these as well
    first, again = found.pop("find"), found.pop("find again")
    found["candidates' keypoints"] = max(0.0, first - again)
    found["verification"] = max(0.0, again - twice)
    return {**found, "first": before + first, "again": before + again}


def _part(name: str, seconds: Sequence[float]) -> Part:
    found: Estimate = estimate([1000 * one for one in seconds])
    return Part(name=name, ms=found.median, ci95=found.ci95)
