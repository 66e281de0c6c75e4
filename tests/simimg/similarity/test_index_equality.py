"""One collection, one index: the same bytes whether it was built at once, in steps, by any threads, or after a kill."""

from __future__ import annotations

import dataclasses
import functools
import gc
import os
import shutil
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from simimg.errors import SearchIndexError
from simimg.inference.inference_engine import Engine, instruction_set
from simimg.inference.litert_network import LiteRtNetwork
from simimg.inference.network_cache import converted_network
from simimg.similarity import embedding_cache, index_tasks, index_update
from simimg.similarity.embeddings import Embedder, load_embedder
from simimg.similarity.index_update import index_folder
from simimg.similarity.search_index import SearchIndex, index_precision
from simimg.similarity.search_queries import make_query
from tfrecords.convert.image.decoder import load_image
from tfrecords.convert.workers.pool import Pool
from tfrecords.format.atomic_files import parse_json, write_json

NUM_IMAGES = 72  # so many that the vectors of kinds are projected


def draw(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), np.uint8)
    Image.fromarray(coarse).resize((600, 500), Image.Resampling.BICUBIC).save(path, quality=90)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for number in range(NUM_IMAGES):
        draw(folder / "abc"[number % 3] / f"{number:02d}.{('jpg', 'png', 'webp')[number % 7 % 3]}", number)
    return folder


@pytest.fixture(scope="module")
def lite0() -> Embedder:
    return load_embedder("lite0")


@pytest.fixture(scope="module")
def at_once(folder: Path, lite0: Embedder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    index_dir = tmp_path_factory.mktemp("index") / "i"
    assert index_folder(index_dir, folder, lite0).num_embedded == NUM_IMAGES
    return index_dir


def contents(index_dir: Path) -> dict[str, object]:
    """Returns the bytes of all files of the current generation, and index.json without the generation's number."""
    info = parse_json((index_dir / "index.json").read_bytes())
    (generation,) = index_dir.glob("generation-*")
    assert generation.name == f"generation-{info.pop('generation'):06d}"
    return {"index.json": info} | {path.name: path.read_bytes() for path in generation.iterdir()}


def assert_equal(one: Path, other: Path) -> None:
    ours, theirs = contents(one), contents(other)
    assert list(ours) != []
    assert sorted(ours) == sorted(theirs)
    for name in ours:
        assert ours[name] == theirs[name], name


def test_the_files_of_an_index(at_once: Path) -> None:
    files = ["copy.npy", "copy.npz", "embeddings.npy", "images.arrow", "index.json", "kind.npy", "kind.npz"]
    assert sorted(contents(at_once)) == files
    index = SearchIndex.open(at_once)
    assert [(engine.library, engine.instruction_set) for engine in index.info.engines] == [
        ("LiteRT", instruction_set())
    ]
    assert index.projections["kind"].matrix is not None


@pytest.mark.parametrize("num_threads", [1, 4])
def test_any_number_of_threads(folder: Path, at_once: Path, lite0: Embedder, tmp_path: Path, num_threads: int) -> None:
    network = LiteRtNetwork(converted_network("lite0", "embedding").content, num_threads=num_threads)
    batches = dataclasses.replace(lite0, network=network, batch_size=5 * num_threads)
    index_folder(tmp_path / "i", folder, batches)
    assert_equal(tmp_path / "i", at_once)


def test_seven_steps_in_any_order(folder: Path, at_once: Path, lite0: Embedder, tmp_path: Path) -> None:
    """Images come in another order than that of their names, and some go and come back."""
    paths = sorted(path.relative_to(folder) for path in folder.rglob("*.*"))
    order = np.random.default_rng(0).permutation(NUM_IMAGES).tolist()
    aside = tmp_path / "aside"
    shutil.copytree(folder, aside)

    def show(numbers: set[int]) -> None:
        for number, path in enumerate(paths):
            where, other = (folder, aside) if number in numbers else (aside, folder)
            if not (where / path).exists() or (where / path).stat().st_ino != kept[number]:
                (where / path).unlink(missing_ok=True)
                os.rename(other / path, where / path)

    kept = [(folder / path).stat().st_ino for path in paths]
    shutil.rmtree(aside)
    for path in paths:
        (aside / path).parent.mkdir(parents=True, exist_ok=True)
    try:
        for step in range(1, 8):
            shown = set(order[: step * NUM_IMAGES // 7])
            if step == 5:
                shown -= set(order[:9])
            show(shown)
            index = index_folder(tmp_path / "i", folder, lite0).index
            assert len(index.images) == len(shown)
    finally:
        show(set(range(NUM_IMAGES)))
    fresh = index_folder(tmp_path / "fresh", folder, lite0)
    assert fresh.num_embedded == NUM_IMAGES
    assert index_folder(tmp_path / "i", folder, lite0).num_embedded == 0
    assert_equal(tmp_path / "i", tmp_path / "fresh")
    before, after = contents(at_once), contents(tmp_path / "fresh")  # moving a file changed its ctime alone
    assert {name for name in after if after[name] != before[name]} == {"images.arrow", "index.json"}


def test_after_kills(folder: Path, lite0: Embedder, tmp_path: Path) -> None:
    """Killed at several moments, by the command line, and finished: what was embedded before is not lost."""
    code = f"""
import sys
from simimg.similarity import embedding_cache
from simimg.cli import main
embedding_cache.IMAGES_PER_PART = 8
print("ready", flush=True)
sys.exit(main(["index", "--image_dir={folder}", "--index_dir={tmp_path / "i"}"]))
"""
    for delay in (0.5, 0.7, 0.9):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        time.sleep(delay)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    index_folder(tmp_path / "fresh", folder, lite0)
    assert_equal(tmp_path / "i", tmp_path / "fresh")


def test_a_query_has_the_pixels_that_were_indexed(folder: Path, at_once: Path, lite0: Embedder) -> None:
    """From a file, an image that Pillow has opened, the bytes of an upload and the page's own copy of them."""
    from simimg.similarity.search_queries import image_query, load_query
    from simimg.web.query_cache import QueryCache

    index = SearchIndex.open(at_once)
    for row, picture in enumerate(list(index.images)[:12]):
        path = index.path_of(picture)
        stored = load_image(path.read_bytes(), lite0.image_options).pixels
        with Image.open(path) as image:
            queries = [
                load_query(str(path), lite0),
                image_query(image, lite0),
                QueryCache(lite0).add(path.read_bytes()),
            ]
        for query in queries:
            np.testing.assert_array_equal(query.views[0], stored)  # type: ignore[union-attr]
        np.testing.assert_array_equal(lite0.embed(stored[None])[0].astype(np.float16), index.embeddings[row])


@pytest.fixture
def older(folder: Path, lite0: Embedder, tmp_path: Path) -> Iterator[Path]:
    """An index as the version before wrote it: a Parquet file, and no engine."""
    import pyarrow.parquet as pq

    index = index_folder(tmp_path / "older", folder, lite0).index
    (generation,) = (tmp_path / "older").glob("generation-*")
    pq.write_table(index.images.table, generation / "pictures.parquet", compression="zstd", write_page_checksum=True)
    (generation / "images.arrow").unlink()
    info = parse_json((tmp_path / "older" / "index.json").read_bytes())
    for name in ("engines", "num_calibrated", "images_crc32"):
        del info[name]
    write_json(tmp_path / "older" / "index.json", {**info, "format": "simimg-index/2", "num_fitted": NUM_IMAGES})
    yield tmp_path / "older"
    (folder / "new.png").unlink(missing_ok=True)


def test_an_index_of_an_earlier_version(
    older: Path, folder: Path, lite0: Embedder, caplog: pytest.LogCaptureFixture
) -> None:
    """It is read, and brought up to date with a line that says whose vectors are in it."""
    caplog.set_level("INFO")
    index = SearchIndex.open(older)
    assert (index.info.engines, index.info.precision, len(index.images)) == ((), "float32", NUM_IMAGES)
    info = index_folder(older, folder, lite0).index.info  # hashes that an earlier version had not are filled in
    assert info == dataclasses.replace(index.info, generation=info.generation, images_crc32=info.images_crc32)
    assert index_folder(older, folder, lite0).index.info == info
    assert caplog.records == []
    draw(folder / "new.png", 1000)
    update = index_folder(older, folder, lite0)
    assert (update.num_embedded, update.num_kept) == (1, NUM_IMAGES)
    (told,) = [record.getMessage() for record in caplog.records]
    assert told.startswith(f"{older}: what is new is embedded by LiteRT ")
    assert told.endswith("what was known is by TensorFlow of an earlier version, float32, unknown; "
                         "such vectors differ by at most 1e-05")  # fmt: skip
    assert [engine.library for engine in update.index.info.engines] == ["TensorFlow", "LiteRT"]
    assert update.index.info.engines == SearchIndex.open(older).info.engines


def test_engines_of_images_that_are_gone_are_not_told(
    lite0: Embedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupted run has embedded images on another engine, which are gone when the next run ends."""
    first = dataclasses.replace(lite0, engine=Engine("LiteRT", "1", "float32", "a"))
    second = dataclasses.replace(lite0, engine=Engine("LiteRT", "2", "float32", "b"))
    photos = tmp_path / "photos"
    draw(photos / "a.png", 1)
    index_folder(tmp_path / "i", photos, first)
    draw(photos / "b.png", 2)
    interrupt(monkeypatch, tmp_path / "i", photos, second)
    (photos / "b.png").unlink()
    assert index_folder(tmp_path / "i", photos, second).index.info.engines == (first.engine,)


def test_an_interrupted_run_is_not_resumed_with_other_pixels(
    lite0: Embedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of imported weights, the fingerprint ends with the size of the images."""
    embedder = dataclasses.replace(lite0, fingerprint=f"{'f' * 64}-224")
    photos = tmp_path / "photos"
    draw(photos / "a.png", 1)
    interrupt(monkeypatch, tmp_path / "i", photos, embedder)
    other = dataclasses.replace(lite0, fingerprint=f"{'f' * 64}-288")
    assert index_folder(tmp_path / "i", photos, other).num_embedded == 1


def interrupt(monkeypatch: pytest.MonkeyPatch, index_dir: Path, photos: Path, embedder: Embedder) -> None:
    """Indexes, and is interrupted when all images are embedded and saved."""

    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(embedding_cache, "IMAGES_PER_PART", 1)
        patch.setattr(index_update, "write_generation", interrupted)
        with pytest.raises(KeyboardInterrupt):
            index_folder(index_dir, photos, embedder)


def test_a_query_keeps_no_image(lite0: Embedder) -> None:
    """Some dozens wait at a time, and a photo has 36 MB."""
    image = Image.new("RGB", (300, 200), "navy")
    kept = weakref.ref(image)
    query = make_query("", image, lite0)
    del image
    assert kept() is not None
    assert query.image.fingerprint is query.image.fingerprint
    gc.collect()
    assert kept() is None


def test_another_engine_is_mixed_and_another_precision_refused(
    folder: Path, lite0: Embedder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from simimg.errors import SearchIndexError

    caplog.set_level("INFO")
    elsewhere = dataclasses.replace(lite0, engine=Engine("LiteRT", "2.3.0", "float32", "avx2-of-another"))
    small = tmp_path / "photos"
    draw(small / "a.png", 1)
    index_folder(tmp_path / "i", small, elsewhere)
    draw(small / "b.png", 2)
    assert len(index_folder(tmp_path / "i", small, lite0).index.info.engines) == 2
    assert "avx2-of-another" in caplog.records[-1].getMessage()
    (small / "a.png").unlink()
    (small / "b.png").unlink()
    draw(small / "c.png", 3)
    assert index_folder(tmp_path / "i", small, lite0).index.info.engines == (lite0.engine,)
    coarse = dataclasses.replace(lite0, engine=Engine("OpenVINO", "2026.4", "bfloat16", "avx512"))
    with pytest.raises(SearchIndexError, match="was made in float32, .* Give --precision=float32, or name another"):
        index_folder(tmp_path / "i", small, coarse)
    assert index_precision(tmp_path / "new") is None


def test_an_index_in_bfloat16_keeps_it_and_is_searched_in_float32(
    folder: Path, lite0: Embedder, tmp_path: Path
) -> None:
    """On any machine: its own embeddings are rounded here, as if another machine had made them."""

    def rounded(images: np.ndarray) -> np.ndarray:
        bits = lite0.network(images).view(np.uint32) + 0x8000
        return (bits & np.uint32(0xFFFF0000)).view(np.float32)

    coarse = dataclasses.replace(lite0, engine=Engine("OpenVINO", "2026.4", "bfloat16", "avx512"), network=rounded)
    index = index_folder(tmp_path / "i", folder, coarse).index
    assert index_precision(tmp_path / "i") == "bfloat16"
    queries = index.load_embedder()
    assert queries.engine.precision == "float32"
    pixels = [load_image(index.path_of(image).read_bytes(), lite0.image_options).pixels for image in index.images]
    found = index.search(queries.embed(np.stack(pixels)), 1)
    assert [one[0].row for one in found] == list(range(NUM_IMAGES))
    assert min(one[0].similarity for one in found) > 0.99


def test_by_tasks_and_by_tasks_that_were_interrupted(
    folder: Path, lite0: Embedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files that were embedded are not read again, and those that were rejected have the same reasons."""
    monkeypatch.setattr(index_tasks, "IMAGES_PER_PART", 16)
    read: list[tuple[str, ...]] = []
    load = index_tasks.load_files

    def counting(paths: tuple[str, ...], *args: Any, **options: Any) -> Any:
        read.append(paths)
        if len(read) == 4:
            raise KeyboardInterrupt
        return load(paths, *args, **options)

    monkeypatch.setattr(index_tasks, "load_files", counting)
    runner_of = functools.partial(Pool, 1)
    with pytest.raises(KeyboardInterrupt):
        index_folder(tmp_path / "i", folder, lite0, runner_of=runner_of)
    made = index_folder(tmp_path / "i", folder, lite0, runner_of=runner_of)
    assert made.num_embedded == NUM_IMAGES - 3 * 16
    assert [len(paths) for paths in read] == [16, 16, 16, 16, 16, 8]
    index_folder(tmp_path / "fresh", folder, lite0)
    assert_equal(tmp_path / "i", tmp_path / "fresh")

    own = Path(shutil.copytree(folder, tmp_path / "own"))
    shutil.copy(own / "a" / "00.jpg", own / "a" / "copy.jpg")
    (own / "a" / "broken.png").write_bytes(b"nothing")
    advanced: list[int] = []
    ours = index_folder(tmp_path / "ours", own, lite0, runner_of=runner_of, progress=advanced.append)
    theirs = index_folder(tmp_path / "theirs", own, lite0)
    assert repr(ours.refused) == repr(theirs.refused)
    assert len(ours.refused) == 1
    assert ours.num_embedded == theirs.num_embedded == NUM_IMAGES
    assert sum(advanced) == NUM_IMAGES + 2
    assert_equal(tmp_path / "ours", tmp_path / "theirs")


def test_tasks_on_another_arithmetic_are_told(
    folder: Path, lite0: Embedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And weights that differ are refused."""
    monkeypatch.setattr(index_tasks, "IMAGES_PER_PART", 40)
    other = dataclasses.replace(lite0, engine=dataclasses.replace(lite0.engine, instruction_set="avx"))
    monkeypatch.setattr(index_tasks, "_embedder", lambda *_: [lite0, other][len(list(tmp_path.rglob("part-*.npz")))])
    with caplog.at_level("INFO"):
        made = index_folder(tmp_path / "i", folder, lite0, runner_of=functools.partial(Pool, 1))
    assert made.index.info.engines == (lite0.engine, other.engine)
    (line,) = [record.getMessage() for record in caplog.records if "embedded by" in record.getMessage()]
    assert line == (
        f"32 of the images are embedded by {other.engine}, others by {lite0.engine}; such vectors differ by at most "
        "1e-05"
    )
    monkeypatch.setattr(index_tasks, "_embedder", lambda *_: dataclasses.replace(lite0, fingerprint="other"))
    with pytest.raises(SearchIndexError, match="--model=lite0 has other weights on a node"):
        index_folder(tmp_path / "j", folder, lite0, runner_of=functools.partial(Pool, 1))
