"""An index follows its folder: only what is new is embedded, and a run that was killed goes on."""

import dataclasses
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from simimg.cli import main
from simimg.errors import CorruptRecordError, ModelError, SearchIndexError, UsageError
from simimg.input import pipeline
from simimg.similarity import embedding_cache, embeddings, folder_images, index_images, index_update
from simimg.similarity.duplicate_groups import find_duplicates
from simimg.similarity.embeddings import Embedder, load_embedder
from simimg.similarity.image_table import SCHEMA
from simimg.similarity.index_images import IndexImages
from simimg.similarity.index_update import index_dataset, index_folder
from simimg.similarity.search_index import SearchIndex
from simimg.similarity.search_queries import Query, load_query
from tests.forked_process import ForkedProcess, run_forked
from tfrecords.convert.engine import convert
from tfrecords.convert.image.decoder import decode, resize
from tfrecords.convert.plan.convert_config import ConvertConfig
from tfrecords.convert.sources import Selection
from tfrecords.format.atomic_files import file_sha256
from tfrecords.format.layout import Layout


def stand_in(fingerprint: str = "abc") -> Embedder:
    """An embedder that is quick: the mean colours of 4 x 4 parts."""

    def network(images: np.ndarray) -> np.ndarray:
        parts = images.reshape(-1, 4, 8, 4, 8, 3).mean(axis=(2, 4), dtype=np.float32).reshape(-1, 48) + 1
        return parts / np.linalg.norm(parts, axis=1, keepdims=True)

    return Embedder("stand-in", fingerprint, 32, "stretch", 48, network)


def draw(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), np.uint8)
    Image.fromarray(pixels).resize((60, 50), Image.Resampling.BICUBIC).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(6):
        draw(tmp_path / "photos" / "abc"[number % 3] / f"{number}.png", number)
    return tmp_path / "photos"


def counts(update: index_update.IndexUpdate) -> tuple[int, int, int]:
    return update.num_embedded, update.num_kept, update.num_removed


@pytest.mark.parametrize("num_columns", [9, 10])
def test_an_index_of_an_earlier_version_gets_its_hashes_without_embedding(
    folder: Path, tmp_path: Path, num_columns: int
) -> None:
    drawing = Image.new("RGBA", (60, 50))
    drawing.paste(Image.open(folder / "a/0.png").resize((30, 25)), (9, 9))
    drawing.save(folder / "a/transparent.png")
    index_dir = tmp_path / "i"
    fresh = index_folder(index_dir, folder, stand_in()).index
    assert fresh.images.hashes().any(axis=1).all()
    path = index_dir / "generation-000001/images.arrow"
    table = fresh.images.table.select(SCHEMA.names[:num_columns])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    path.unlink()  # it is mapped
    path.write_bytes(sink.getvalue())
    info = json.loads((index_dir / "index.json").read_bytes())
    info |= {"format": "simimg-index/3", "images_crc32": zlib.crc32(path.read_bytes())}
    (index_dir / "index.json").write_text(json.dumps(info))
    old = SearchIndex.open(index_dir)
    assert not old.images.hashes()[2].any()
    draw(folder / "c" / "new.png", 50)
    update = index_folder(index_dir, folder, stand_in())
    assert counts(update) == (1, 7, 0)
    assert list(update.index.images)[:-1] == list(fresh.images)
    np.testing.assert_array_equal(update.index.embeddings[:-1], fresh.embeddings)
    generation = update.index.info.generation
    assert index_folder(index_dir, folder, stand_in()).index.info.generation == generation  # nothing is left to do


def test_only_what_is_new_or_changed_is_embedded(folder: Path, tmp_path: Path) -> None:
    index_dir = tmp_path / "i"
    assert counts(index_folder(index_dir, folder, stand_in())) == (6, 0, 0)
    assert counts(index_folder(index_dir, folder, stand_in())) == (0, 6, 0)
    draw(folder / "c" / "new.png", 50)
    draw(folder / "a" / "0.png", 51)  # changed
    (folder / "b" / "1.png").unlink()
    (folder / "b" / "4.png").rename(folder / "b" / "moved.png")
    update = index_folder(index_dir, folder, stand_in())
    assert counts(update) == (2, 4, 2)
    paths = [picture.path for picture in update.index.images]
    assert paths == ["a/0.png", "a/3.png", "b/moved.png", "c/2.png", "c/5.png", "c/new.png"]
    fresh = index_folder(tmp_path / "other", folder, stand_in()).index
    np.testing.assert_array_equal(update.index.embeddings, fresh.embeddings)
    assert [picture.sha256 for picture in update.index.images] == [picture.sha256 for picture in fresh.images]


def test_images_that_pillow_resized_stay_in_an_index_and_a_line_says_so(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    before = index_folder(tmp_path / "i", folder, stand_in()).index
    assert before.info.pixels == ""
    embedder = dataclasses.replace(stand_in(), vector_code=True)
    for number, num_new in ((None, 0), (7, 1), (8, 1), (None, 0)):
        if number is not None:
            draw(folder / "a" / f"{number}.png", number)
        caplog.clear()
        update = index_folder(tmp_path / "i", folder, embedder)
        assert (update.num_embedded, update.index.info.pixels) == (num_new, "")
        assert ("those of before were by Pillow" in caplog.text) is (num_new > 0)
    assert update.index.info.generation == 3
    assert index_folder(tmp_path / "new", folder, embedder).index.info.pixels == "vector code"


def test_two_files_of_the_same_bytes_are_embedded_once(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "a" / "0.png", folder / "a" / "0-again.png")
    update = index_folder(tmp_path / "i", folder, stand_in())
    assert update.num_embedded == 6
    assert len(update.index.images) == 7
    assert {(picture.width, picture.height) for picture in update.index.images} == {(60, 50)}


def test_models_and_sources_are_not_mixed(folder: Path, tmp_path: Path) -> None:
    index_folder(tmp_path / "i", folder, stand_in("abc"))
    with pytest.raises(SearchIndexError, match="embeddings of two models cannot be compared"):
        index_folder(tmp_path / "i", folder, stand_in("def"))
    assert len(SearchIndex.open(tmp_path / "i").images) == 6


def test_another_folder_is_not_overwritten(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "i").mkdir()
    (tmp_path / "i" / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="not empty and not an index"):
        index_folder(tmp_path / "i", folder, stand_in())
    assert (tmp_path / "i" / "thesis.txt").read_text() == "years of work"


def test_a_folder_without_pictures_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(UsageError, match="no image file"):
        index_folder(tmp_path / "i", tmp_path / "photos", stand_in())
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"nothing")
    with pytest.raises(UsageError, match="can be decoded"):
        index_folder(tmp_path / "i", tmp_path / "photos", stand_in())
    assert not (tmp_path / "i").exists()


def test_an_index_inside_its_folder_is_no_stray(folder: Path) -> None:
    index_folder(folder / "index", folder, stand_in())
    assert index_folder(folder / "index", folder, stand_in()).refused == ()


def test_what_was_embedded_is_not_lost(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding_cache, "IMAGES_PER_PART", 2)
    embedder = dataclasses.replace(stand_in(), batch_size=2)
    calls = []

    def failing(pixels):  # type: ignore[no-untyped-def]
        calls.append(len(pixels))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return embedder.network(pixels)

    with pytest.raises(KeyboardInterrupt):
        index_folder(tmp_path / "i", folder, dataclasses.replace(embedder, network=failing))
    assert counts(index_folder(tmp_path / "i", folder, embedder)) == (2, 4, 0)
    assert not (tmp_path / "i" / "unfinished").exists()


def test_kill_at_any_moment(folder: Path, tmp_path: Path) -> None:
    """A process that is killed, again and again, comes to the index of one that was not."""
    for number in range(60):
        draw(folder / "d" / f"{number}.png", 100 + number)
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
import importlib
module = importlib.import_module("test_index_update")
module.embedding_cache.IMAGES_PER_PART = 4
print("ready", flush=True)
embedder = module.dataclasses.replace(module.stand_in(), batch_size=4)
module.index_folder(Path({str(tmp_path / "i")!r}), Path({str(folder)!r}), embedder)
"""
    rng = np.random.default_rng(0)
    for _ in range(3):
        process = ForkedProcess([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert process.stdout.readline() == b"ready\n"
        time.sleep(rng.uniform(0.05, 0.8))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        if (tmp_path / "i" / "index.json").exists():
            SearchIndex.open(tmp_path / "i")  # whole
    killed = index_folder(tmp_path / "i", folder, stand_in()).index
    fresh = index_folder(tmp_path / "fresh", folder, stand_in()).index
    assert list(killed.images) == list(fresh.images)
    np.testing.assert_allclose(np.float32(killed.embeddings), np.float32(fresh.embeddings), atol=1e-3)
    assert sorted(path.name for path in (tmp_path / "i").iterdir()) == [".lock", "generation-000001", "index.json"]


def test_two_processes_do_not_write_one_index(folder: Path, tmp_path: Path) -> None:
    with index_update._locked(tmp_path / "i"), pytest.raises(UsageError, match="another process"):
        index_folder(tmp_path / "i", folder, stand_in())


@pytest.fixture(scope="module")
def lite0() -> Embedder:
    return load_embedder("lite0")


def test_the_shipped_model_embeds_files_as_it_embeds_pixels(folder: Path, tmp_path: Path, lite0: Embedder) -> None:
    (folder / "broken.jpg").write_bytes(b"<html>no picture</html>")
    update = index_folder(tmp_path / "i", folder, lite0)
    assert [(path, refusal.reason) for path, refusal in update.refused] == [("broken.jpg", "text")]
    assert update.index.embeddings.shape == (6, 1280)
    np.testing.assert_allclose(np.linalg.norm(np.float32(update.index.embeddings), axis=1), 1, atol=1e-3)
    pixels = resize(decode((folder / "a" / "3.png").read_bytes()), 224, "stretch", vector_code=True)
    np.testing.assert_allclose(update.index.embeddings[1], lite0.embed(pixels[None])[0], atol=1e-3)


def test_pixels_of_another_size_are_resized(lite0: Embedder) -> None:
    coarse = Image.fromarray(np.random.default_rng(0).integers(0, 256, (4, 4, 3), np.uint8))
    large = coarse.resize((448, 448), Image.Resampling.BICUBIC)
    half = large.resize((224, 224), Image.Resampling.BILINEAR)
    similarity = lite0.embed(np.asarray(large)[None])[0] @ lite0.embed(np.asarray(half)[None])[0]
    assert similarity > 0.97


def test_a_model_that_is_neither_shipped_nor_trained(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="neither a folder"):
        embeddings.load_embedder("resnet9000")
    with pytest.raises(ModelError, match="not the folder of a trained model"):
        embeddings.load_embedder(str(tmp_path))


def test_a_zero_byte_file_a_pipe_and_what_is_written_to_are_refused(folder: Path, tmp_path: Path) -> None:
    """None of them stops the run, nor makes it wait: whoever opens a pipe waits for somebody to write."""
    (folder / "a" / "empty.png").touch()
    os.mkfifo(folder / "b" / "pipe.png")
    (folder / "c" / "loop.png").symlink_to("loop.png")
    (folder / "c" / "loop").symlink_to("loop")
    update = index_folder(tmp_path / "i", folder, stand_in())
    assert {path: str(refusal.reason) for path, refusal in update.refused} == {
        "a/empty.png": "empty",
        "b/pipe.png": "not_a_file",
        "c/loop.png": "link_loop",
        "c/loop": "unknown_suffix",
    }
    assert counts(update) == (6, 0, 0)
    draw(folder / "a" / "empty.png", 70)
    assert counts(index_folder(tmp_path / "i", folder, stand_in())) == (1, 6, 0)


def test_a_file_that_changes_while_it_is_indexed_is_read_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the index says of it is of one moment: the bytes that were embedded, whatever size and time were then."""
    load_files = index_update.load_files

    def changing(paths, *arguments, **options):  # type: ignore[no-untyped-def]
        for path, loaded in load_files(paths, *arguments, **options):
            if path == "a/0.png":
                draw(folder / path, 80)
            yield path, loaded

    monkeypatch.setattr(index_update, "load_files", changing)
    before = index_folder(tmp_path / "i", folder, stand_in()).index.images[0]
    monkeypatch.undo()
    update = index_folder(tmp_path / "i", folder, stand_in())
    assert counts(update) == (1, 5, 0)
    after = update.index.images[0]
    assert (before.path, after.path) == ("a/0.png", "a/0.png")
    assert before.sha256 != after.sha256 == file_sha256(folder / "a" / "0.png")


def test_a_picture_whose_bytes_were_damaged_since_goes(folder: Path, tmp_path: Path) -> None:
    index_folder(tmp_path / "i", folder, stand_in())
    (folder / "a" / "0.png").write_bytes((folder / "a" / "0.png").read_bytes()[:60])
    update = index_folder(tmp_path / "i", folder, stand_in())
    assert counts(update) == (0, 5, 1)
    assert [path for path, _ in update.refused] == ["a/0.png"]


def test_one_picture(tmp_path: Path) -> None:
    draw(tmp_path / "photos" / "one.png", 0)
    index = index_folder(tmp_path / "i", tmp_path / "photos", stand_in()).index
    assert [match.image.path for match in index.search(np.float32(index.embeddings), 5)[0]] == ["one.png"]
    draw(tmp_path / "photos" / "two.png", 1)
    assert counts(index_folder(tmp_path / "i", tmp_path / "photos", stand_in())) == (1, 1, 0)


def test_a_folder_that_was_emptied_leaves_the_index_as_it_was(folder: Path, tmp_path: Path) -> None:
    """An unmounted disk looks like this."""
    index_folder(tmp_path / "i", folder, stand_in())
    shutil.rmtree(folder)
    folder.mkdir()
    with pytest.raises(UsageError, match="no image file"):
        index_folder(tmp_path / "i", folder, stand_in())
    assert len(SearchIndex.open(tmp_path / "i").images) == 6


def test_damaged_parts_of_an_unfinished_run_are_made_anew(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding_cache, "IMAGES_PER_PART", 2)
    monkeypatch.setattr(index_update, "write_generation", interrupted)
    with pytest.raises(KeyboardInterrupt):
        index_folder(tmp_path / "i", folder, dataclasses.replace(stand_in(), batch_size=2))
    first, second, _ = sorted((tmp_path / "i" / "unfinished").glob("*/part-*.npz"))
    first.write_bytes(first.read_bytes()[:100])
    second.write_bytes(b"")
    monkeypatch.undo()
    assert counts(index_folder(tmp_path / "i", folder, stand_in())) == (4, 2, 0)


def test_a_part_that_cannot_be_read_now_is_kept(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_update, "write_generation", interrupted)
    monkeypatch.setattr(embedding_cache, "IMAGES_PER_PART", 2)
    with pytest.raises(KeyboardInterrupt):
        index_folder(tmp_path / "i", folder, stand_in())
    parts = sorted((tmp_path / "i" / "unfinished").glob("*/part-*.npz"))
    assert parts
    with monkeypatch.context() as patch:
        patch.setattr(embedding_cache.np, "load", unreadable)
        with pytest.raises(KeyboardInterrupt):
            index_folder(tmp_path / "i", folder, stand_in())
    assert all(part.exists() for part in parts)
    monkeypatch.undo()
    assert counts(index_folder(tmp_path / "i", folder, stand_in())) == (0, 6, 0)


def unreadable(*arguments: object, **options: object) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_a_model_folder_that_was_moved_is_recorded(folder: Path, tmp_path: Path) -> None:
    before = index_folder(tmp_path / "i", folder, stand_in()).index.with_thresholds(copy=0.8)
    moved = dataclasses.replace(stand_in(), name="elsewhere")
    update = index_folder(tmp_path / "i", folder, moved)
    assert counts(update) == (0, 6, 0)
    assert update.index.info == dataclasses.replace(before.info, model="elsewhere")
    assert SearchIndex.open(tmp_path / "i").info == update.index.info


def test_only_what_has_neither_file_nor_pixels_is_missing(folder: Path, tmp_path: Path) -> None:
    index = index_folder(tmp_path / "i", folder, stand_in()).index
    (folder / index.images[5].path).unlink()
    images = IndexImages(index)
    assert all(images.verify(row, 5) is None for row in range(5))
    assert images.missing == {5}
    assert not images.stored


def test_threads_that_want_one_image_at_its_full_size_decode_it_once(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, decoded = IndexImages(index_folder(tmp_path / "i", folder, stand_in()).index), list[Path]()
    reduced = index_images.reduced_images

    def slowly(path: Path, *arguments: Any, **options: Any) -> tuple[np.ndarray, ...]:
        decoded.append(path)
        time.sleep(0.2)  # the other threads have started meanwhile
        return reduced(path, *arguments, **options)

    monkeypatch.setattr(index_images, "reduced_images", slowly)
    with ThreadPoolExecutor(3) as executor:
        found = list(executor.map(images.full_file, [4, 4, 4]))
    assert decoded == [folder / images.index.images[4].path]
    assert found[0] is not None
    assert all(one is found[0] for one in found)


def interrupted(*arguments: object, **options: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("step", ["atomic_folder", "_write_info", "_generations"])
def test_killed_while_it_is_written(folder: Path, tmp_path: Path, step: str) -> None:
    """Without a chance to clean up, before, between and after a generation's files and the name of the index."""
    index_folder(tmp_path / "i", folder, stand_in())
    draw(folder / "new.png", 90)
    code = f"""
import contextlib, os, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
import test_index_update
from simimg.similarity import search_index
from simimg.similarity.index_update import index_folder
kill = lambda *arguments: os.kill(os.getpid(), signal.SIGKILL)
if {step!r} == "atomic_folder":
    Path.rename = kill
elif {step!r} == "_write_info":
    search_index._write_info = kill
else:
    write_info = search_index._write_info
    def last(*arguments):
        write_info(*arguments)
        kill()
    search_index._write_info = last
index_folder(Path({str(tmp_path / "i")!r}), Path({str(folder)!r}), test_index_update.stand_in())
"""
    done = run_forked([sys.executable, "-c", code])
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    assert len(SearchIndex.open(tmp_path / "i").images) == (7 if step == "_generations" else 6)
    update = index_folder(tmp_path / "i", folder, stand_in())
    assert len(update.index.images) == 7
    draw(folder / "newer.png", 91)
    index_folder(tmp_path / "i", folder, stand_in())
    assert len([path for path in (tmp_path / "i").iterdir() if path.name not in (".lock", "index.json")]) == 1


def test_what_a_data_set_stores_is_not_taken_for_the_same_by_its_file(folder: Path, tmp_path: Path) -> None:
    """One index, brought up to date with the same files converted to another size: other pixels, other embeddings."""
    sets = [
        convert(
            ConvertConfig(
                image_dir=str(folder), data_dir=tmp_path / "data", name=f"p{size}", image_size=size, num_workers=1
            )
        ).dataset_dir
        for size in (8, 48)
    ]
    assert counts(index_dataset(tmp_path / "i", sets[0], stand_in())) == (6, 0, 0)
    assert counts(index_dataset(tmp_path / "i", sets[0], stand_in())) == (0, 6, 0)
    update = index_dataset(tmp_path / "i", sets[1], stand_in())
    assert counts(update) == (6, 0, 0)
    fresh = index_dataset(tmp_path / "fresh", sets[1], stand_in()).index
    np.testing.assert_array_equal(update.index.embeddings, fresh.embeddings)
    assert update.index.info.dataset_dir == str(sets[1].resolve())


def test_a_data_set_with_an_empty_split(folder: Path, tmp_path: Path) -> None:
    shutil.rmtree(folder / "b")
    shutil.rmtree(folder / "c")
    (folder / "a" / "3.png").unlink()
    config = ConvertConfig(image_dir=str(folder), data_dir=tmp_path / "data", image_size=16, num_workers=1)
    update = index_dataset(tmp_path / "i", convert(config).dataset_dir, stand_in())
    assert [(picture.path, picture.split) for picture in update.index.images] == [("a/0.png", "train")]


def test_a_file_with_several_names_is_indexed_once(folder: Path, tmp_path: Path) -> None:
    (folder / "0 first").mkdir()
    (folder / "0 first" / "link.png").symlink_to("../a/0.png")
    (folder / "a-link").symlink_to("a")
    os.link(folder / "b" / "1.png", folder / "b" / "1-hard.png")
    shutil.copy(folder / "b" / "1.png", folder / "b" / "1-copy.png")
    (folder / "outside.png").symlink_to(tmp_path / "outside.png")
    draw(tmp_path / "outside.png", 9)
    update = index_folder(tmp_path / "i", folder, stand_in())
    paths = update.index.images.column("path").tolist()
    assert sorted(paths) == sorted(
        ["a/0.png", "a/3.png", "b/1-hard.png", "b/1-copy.png", "b/4.png", "c/2.png", "c/5.png", "outside.png"]
    )
    assert dict(update.other_names) == {
        "0 first/link.png": "a/0.png",
        "a-link/0.png": "a/0.png",
        "a-link/3.png": "a/3.png",
        "b/1.png": "b/1-hard.png",
    }
    os.unlink(folder / "b" / "1-copy.png")
    os.link(folder / "b" / "1.png", folder / "b" / "1-copy.png")  # since
    assert [group for group in find_duplicates(update.index, threshold=0.9).groups if len(group.members) > 1] == []


def test_a_calibrated_threshold_stays(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Another class changes the projections, but not the similarity from which on copies are copies."""
    index_folder(tmp_path / "i", folder, stand_in()).index.with_thresholds(copy=0.7, pairs=0.8)
    draw(folder / "d" / "new.png", 50)
    update = index_folder(tmp_path / "i", folder, stand_in())
    assert update.index.info.thresholds == {"copy": 0.7, "pairs": 0.8}
    assert update.outdated
    assert not index_folder(tmp_path / "i", folder, stand_in()).outdated
    assert not index_folder(tmp_path / "j", folder, stand_in()).outdated
    arguments = ["index", f"--index_dir={tmp_path / 'k'}", f"--image_dir={folder}"]
    assert main(arguments) == 0
    SearchIndex.open(tmp_path / "k").with_thresholds(copy=0.7)
    draw(folder / "e" / "new.png", 51)
    assert main(arguments) == 0
    assert f"simimg calibrate --index_dir={tmp_path / 'k'}" in capsys.readouterr().err


def edit_in_place(path: Path) -> None:
    """Changes pixels of a BMP file; its size and mtime stay the same."""
    status = path.stat()
    with open(path, "r+b") as file:
        file.seek(-300, os.SEEK_END)
        file.write(bytes(300))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_a_picture_that_was_edited_in_place_is_not_the_old_one(folder: Path, tmp_path: Path) -> None:
    path = folder / "a" / "plain.bmp"
    draw(path, 60)
    old, index = path.read_bytes(), index_folder(tmp_path / "i", folder, stand_in()).index
    row, images = index.images.column("path").tolist().index("a/plain.bmp"), IndexImages(index)
    assert images.file(row) is not None
    assert images.image(row, 20).size == (20, 17)  # type: ignore[union-attr]
    assert not images.is_edited(row)
    edit_in_place(path)
    assert images.is_edited(row)
    assert (images.file(row), images.image(row, 20)) == (None, None)
    assert IndexImages(index).file(row) is None
    path.write_bytes(old)
    assert not images.is_edited(row)
    assert images.file(row) is not None
    path.unlink()
    assert not images.is_edited(row)
    assert images.file(row) is None
    path.write_bytes(old)
    assert images.file(row) is not None
    assert counts(index_folder(tmp_path / "i", folder, stand_in())) == (0, 7, 0)
    edit_in_place(path)
    update = index_folder(tmp_path / "i", folder, stand_in())
    assert counts(update) == (1, 6, 0)
    assert update.index.images[row].sha256 == file_sha256(path)


def test_an_edited_picture_is_no_copy_of_what_it_was(folder: Path, tmp_path: Path) -> None:
    for name in ("one", "two", "three"):
        draw(folder / f"{name}.bmp", 60)
    index = index_folder(tmp_path / "i", folder, stand_in()).index

    def copies() -> list[set[str]]:
        groups = find_duplicates(index, threshold=0.9).groups
        return [{member.image.path for member in group.members} for group in groups]

    assert copies() == [{"one.bmp", "two.bmp", "three.bmp"}]
    edit_in_place(folder / "one.bmp")
    assert copies() == [{"two.bmp", "three.bmp"}]
    edit_in_place(folder / "two.bmp")
    assert copies() == []


def test_thumbnails_of_removed_pictures_are_removed(folder: Path, tmp_path: Path) -> None:
    index = index_folder(tmp_path / "i", folder, stand_in()).index
    thumbnails = []
    for picture in index.images:
        thumbnails.append(tmp_path / "i" / "web" / "thumbnails" / picture.sha256[:2] / f"{picture.sha256}-320.jpg")
        thumbnails[-1].parent.mkdir(parents=True, exist_ok=True)
        thumbnails[-1].touch()
    index.path_of(index.images[2]).unlink()
    index_folder(tmp_path / "i", folder, stand_in())
    assert [path.exists() for path in thumbnails] == [True, True, False, True, True, True]


@pytest.mark.parametrize("encoding", ["jpeg", "png"])
@pytest.mark.parametrize("share", [0, 1])
def test_a_damaged_record_is_named(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str, share: int
) -> None:
    """Whether the dataset fits into memory, or its shards are mapped."""
    monkeypatch.setattr(pipeline, "_RESIDENT_SHARE", share)
    options = {"data_dir": tmp_path / "data", "image_size": 16, "encoding": encoding, "num_workers": 1}
    dataset_dir = convert(ConvertConfig(image_dir=str(folder), **options)).dataset_dir
    shard = dataset_dir / Layout.load(dataset_dir).splits["train"][0].file
    data = bytearray(shard.read_bytes())
    data[60] ^= 255
    shard.write_bytes(bytes(data))
    with pytest.raises(CorruptRecordError, match=f"{shard.name}: no record of"):
        index_dataset(tmp_path / "i", dataset_dir, stand_in())
    assert not (tmp_path / "i").exists()


def test_files_are_loaded_as_those_that_the_model_was_trained_on(tmp_path: Path) -> None:
    """Transparent and truncated files give the embeddings that their dataset's pixels have."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 4), np.uint8)
    (tmp_path / "photos").mkdir()
    Image.fromarray(pixels).save(tmp_path / "photos" / "clear.png")
    Image.fromarray(pixels[:, :, :3]).save(tmp_path / "photos" / "large.jpg")
    cut = (tmp_path / "photos" / "large.jpg").read_bytes()
    (tmp_path / "photos" / "large.jpg").write_bytes(cut[: len(cut) * 2 // 3])
    options = {"decode": "exact", "truncated": "keep", "background": "#1020c0"}
    config = ConvertConfig(
        image_dir=str(tmp_path / "photos"), data_dir=tmp_path, image_size=32, encoding="raw", num_workers=1, **options
    )
    trained = dataclasses.replace(stand_in(), decode="exact", truncated="keep", background=(0x10, 0x20, 0xC0))
    stored = index_dataset(tmp_path / "stored", convert(config).dataset_dir, trained).index
    index = index_folder(tmp_path / "i", tmp_path / "photos", trained).index
    embeddings = {picture.path: row for picture, row in zip(index.images, index.embeddings, strict=True)}
    assert len(embeddings) == 2
    for picture, expected in zip(stored.images, stored.embeddings, strict=True):
        np.testing.assert_array_equal(embeddings[picture.path], expected)
        query = load_query(str(tmp_path / "photos" / picture.path), trained)
        assert isinstance(query, Query)
        np.testing.assert_array_equal(trained.embed(query.views[:1])[0].astype(np.float16), expected)
    assert all(IndexImages(index).file(row) is not None for row in range(2))


def test_labels_are_the_classes_of_convert(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{split}/{label}/{n}.png" for split in ("train", "test") for label in ("cat", "dog") for n in range(2)]
    for number, name in enumerate(names):
        draw(tmp_path / "zoo" / name, number)
    draw(tmp_path / "zoo" / "loose.png", 99)
    with monkeypatch.context() as earlier:
        earlier.setattr(folder_images, "layout_of", lambda images: None)
        before = index_folder(tmp_path / "i", tmp_path / "zoo", stand_in()).index
    assert set(before.images.column("label").tolist()) == {"train", "test", ""}
    update = index_folder(tmp_path / "i", tmp_path / "zoo", stand_in())
    assert counts(update) == (0, 9, 0)
    assert {image.path: image.label for image in update.index.images} == {
        **{name: name.split("/")[1] for name in names}, "loose.png": "",
    }  # fmt: skip
    generation = update.index.info.generation
    assert index_folder(tmp_path / "i", tmp_path / "zoo", stand_in()).index.info.generation == generation
    found = Selection(exclude=["*.png"])
    with pytest.raises(UsageError, match=r"no image file \(0 other files\).*left out by --exclude\. Change --exclude"):
        index_folder(tmp_path / "j", tmp_path / "zoo", stand_in(), selection=found)


def test_copies_in_split_folders_without_classes_are_no_label_conflicts(tmp_path: Path) -> None:
    for number in range(6):
        draw(tmp_path / "zoo" / ("train", "val")[number % 2] / f"{number}.png", number)
    shutil.copy(tmp_path / "zoo/train/0.png", tmp_path / "zoo/val/copy.png")
    index = index_folder(tmp_path / "i", tmp_path / "zoo", stand_in()).index
    (group,) = find_duplicates(index, threshold=0.99).groups
    assert "class folder" not in group.others[0].reason


def test_an_index_that_does_not_fit_into_memory_is_refused_before_a_file_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "photos").mkdir()
    for number in range(3):
        Image.new("RGB", (40, 40), (number, 0, 0)).save(tmp_path / "photos" / f"{number}.png")
    monkeypatch.setattr(index_update, "_FEW_IMAGES", 3)
    monkeypatch.setattr(index_update, "memory_limit", lambda: 2_000)
    message = (
        r"an index of 3 images takes about 0\.0 GB of memory while it is made, and 0\.0 GB are free\. Use a machine"
    )
    with pytest.raises(UsageError, match=message):
        index_folder(tmp_path / "i", tmp_path / "photos", stand_in())
    monkeypatch.setattr(index_update, "memory_limit", lambda: None)
    assert index_folder(tmp_path / "i", tmp_path / "photos", stand_in()).num_embedded == 3
