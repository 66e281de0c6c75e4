"""Commands on a dataset at a URL, and URLs where there can be none."""

from __future__ import annotations

import importlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from PIL import Image

import simimg as library
from simimg import cli
from simimg.commands.train import resolve
from simimg.errors import UsageError
from tfrecords.base_errors import Interrupted
from tfrecords.format.atomic_files import file_sha256
from tfrecords.storage import drivers, remote_folder
from tfrecords.storage.claims import claimed
from tfrecords.storage.uploads import Upload

URL = "memory://store/raw/1.0.0"


@pytest.fixture(scope="module")
def stored(datasets: dict[str, Path]) -> Iterator[Any]:
    driver = fsspec.filesystem("memory")
    driver.put(str(datasets["raw"]), "/store/raw/1.0.0", recursive=True)
    driver.put(str(datasets["jpeg"]), "/store/jpeg/1.0.0", recursive=True)
    yield driver
    driver.rm("/store", recursive=True)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SIMIMG_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("SIMIMG_CACHE_BYTES", "1GB")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache"


@pytest.mark.parametrize("reader", ["resident", "mapped", "stream"])
@pytest.mark.parametrize("encoding", ["raw", "jpeg"])
def test_every_reader(stored: Any, datasets: dict[str, Path], reader: str, encoding: str) -> None:
    options = {"shuffle": True, "seed": 3, "batch_size": 18, "ids": True, "reader": reader}
    there = library.load(f"memory://store/{encoding}/1.0.0", "train", **options)
    for one, other in zip(there, library.load(datasets[encoding], "train", **options), strict=True):
        for part, expected in zip(one, other, strict=True):
            assert np.array_equal(part, expected)


def test_training_and_measuring(simimg: Callable[..., Any], stored: Any, datasets: dict[str, Path]) -> None:
    """A run's files name the URL, and it is measured there as in the folder."""
    flags = ["--preset=tutorial", "--epochs=1", "--global_batch_size=18", "--seed=2"]
    there = simimg("train", f"--dataset_dir={URL}", "--model_dir=there", *flags)
    assert json.loads(Path("there/config.json").read_text())["config"]["dataset_dir"] == URL
    assert URL in Path("there/report.html").read_text()
    assert resolve({"config": Path("there/config.json")}).dataset_names == (URL,)
    measured = simimg("evaluate", f"--dataset_dir={URL}", "--model_dir=there")
    assert measured["accuracy"] == there["test_accuracy"]
    here = simimg("evaluate", f"--dataset_dir={datasets['raw']}", "--model_dir=there")
    assert here["confusion"] == measured["confusion"]
    message = simimg("train", f"--dataset_dir={URL}", "--data_service=grpc://localhost:1", code=2)
    assert f"{URL} is at a URL. Leave --data_service out" in message


def test_a_dataset_larger_than_the_cache(
    simimg: Callable[..., Any], stored: Any, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is trained on and measured, one shard at a time; whatever needs all of it says so."""
    url, names = "memory://store/folds/1.0.0", "+".join(f"fold{number}" for number in range(1, 5))
    made = library.convert(photos, data_dir=tmp_path, name="folds", image_size=32, num_workers=1, folds=4).dataset_dir
    stored.put(str(made), "/store/folds/1.0.0", recursive=True)
    shards = [path.stat().st_size for path in made.glob("*.tfrecord-*")]
    others = sum(path.stat().st_size for path in made.iterdir()) - sum(shards)
    monkeypatch.setenv("SIMIMG_CACHE_BYTES", str(others + 2 * max(shards)))
    in_order = [library.load(place, names, batch_size=18, ids=True, reader="stream") for place in (url, made)]
    for one, other in zip(*in_order, strict=True):
        assert np.array_equal(one.id, other.id)
        assert np.array_equal(one.image, other.image)
    shuffled = [[*library.load(url, names, batch_size=18, ids=True, shuffle=True, seed=3)] for _ in "ab"]
    assert [one.id.numpy().tolist() for one in shuffled[0]] == [one.id.numpy().tolist() for one in shuffled[1]]
    assert len({int(id) for one in shuffled[0] for id in one.id}) == 72
    with pytest.raises(UsageError, match=f"{url} does not fit into --cache_bytes, .* --reader=mapped needs"):
        library.load(url, names, reader="mapped")
    flags = [f"--dataset_dir={url}", "--model_dir=there"]
    trained = simimg("train", *flags, "--preset=tutorial", "--epochs=1", "--global_batch_size=18", "--fold=4")
    assert simimg("evaluate", *flags)["accuracy"] == trained["test_accuracy"]
    assert "bytes are needed at once" in simimg("verify", f"--dataset_dir={url}", code=2)


def test_looking_at_a_dataset(simimg: Callable[..., Any], stored: Any, tmp_path: Path) -> None:
    assert simimg("verify", f"--dataset_dir={URL}", f"--cache_dir={tmp_path / 'own'}") == {
        "ok": True, "num_examples": 72, "problems": []
    }  # fmt: skip
    assert os.environ["SIMIMG_CACHE_DIR"] == str(tmp_path / "own")  # of child processes, too
    assert list((tmp_path / "own" / "datasets").iterdir())
    for arguments in ([URL], [f"--dataset_dir={URL}"], [URL, "--id=3"]):
        assert simimg("show", *arguments)["dataset_dir"] == URL
    message = simimg("verify", f"--dataset_dir={URL}", "--cache_bytes=1k", f"--cache_dir={tmp_path / 'small'}", code=2)
    assert "--cache_bytes=1000: " in message
    assert "should be a number of bytes" in simimg("verify", f"--dataset_dir={URL}", "--cache_bytes=much", code=2)
    assert "should be a number of bytes" in simimg("train", f"--dataset_dir={URL}", "--cache_bytes=0", code=2)
    assert "should be a number of bytes" in simimg("duplicates", "--index_dir=i", "--cache_bytes=much", code=2)
    assert "memory://store/none does not exist" in simimg("verify", "--dataset_dir=memory://store/none", code=2)


def test_an_index(
    simimg: Callable[..., Any], stored: Any, cache: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is made, updated, searched and decided about at a URL as in a folder, by machines that share nothing else."""
    at = ["--index_dir=memory://store/index"]
    assert simimg("index", f"--dataset_dir={URL}", *at)["num_images"] == 72
    first = {name for name in stored.find("/store/index") if "generation-" in name}
    assert len(first) > 4
    put: list[str] = []
    put_file = type(stored).put_file

    def noted(self: Any, source: str, target: str, **options: Any) -> None:
        put.append(target)
        put_file(self, source, target, **options)

    monkeypatch.setattr(type(stored), "put_file", noted)
    for name in ("cache", "other"):  # another machine has to get it first
        monkeypatch.setenv("SIMIMG_CACHE_DIR", str(cache.with_name(name)))
        assert simimg("index", f"--dataset_dir={URL}", *at)["num_embedded"] == 0
    assert not put
    with library.Searcher("memory://store/index") as searcher:
        assert searcher.index.info.dataset_dir == URL
        one, other = (str(photos / image.path) for image in searcher.index.images[:2])
        assert searcher.search(one)[0].similarity > 0.9
    assert simimg("search", *at, one)["results"][0]["matches"]
    assert simimg("decide", *at, "--not_copies", one, other)["file"] == "memory://store/index/decisions.jsonl"
    monkeypatch.setenv("SIMIMG_CACHE_DIR", str(cache))
    assert len(simimg("decide", *at, "--list")["decisions"]) == 1
    assert b"not copies" in stored.cat_file("/store/index/decisions.jsonl")
    assert simimg("leaks", f"--dataset_dir={URL}", *at, "--report=leaks.html")["num_test_affected"] >= 0
    assert URL in Path("leaks.html").read_text()
    found = simimg("audit", f"--dataset_dir={URL}", "--kinds=dark,bright", "--report=audit.html")
    assert found["num_images"] == 72
    assert URL in Path("audit.html").read_text()
    assert not [name for name in stored.find("/store") if "writing" in name]
    # An update that fails while it is sent leaves the old index, and the next one goes on.
    dataset = ["--dataset_dir=memory://store/jpeg/1.0.0", *at]
    monkeypatch.setattr(drivers, "WAITS_S", ())
    monkeypatch.setattr(type(stored), "put_file", lambda *arguments, **options: 1 / 0)
    assert "memory://store/index/generation-000002/" in simimg("index", *dataset, code=3)
    monkeypatch.setattr(type(stored), "put_file", noted)
    with library.Searcher("memory://store/index") as searcher:
        assert searcher.index.info.generation == 1
    assert simimg("index", *dataset)["num_embedded"] == 0
    assert {name.split("/")[-2] for name in put} == {"generation-000002", "index"}
    assert put[-1] == "/store/index/index.json"
    assert not first & set(stored.find("/store/index"))
    with claimed(stored, "/store/index", "memory://store/index", "--index_dir"):
        assert "is writing it since" in simimg("index", *dataset, code=3)
    assert "is not an index: it has no index.json" in simimg("search", "--index_dir=memory://store/none", one, code=3)


def test_converting(simimg: Callable[..., Any], photos: Path, stored: Any, datasets: dict[str, Path]) -> None:
    """To a URL as to a folder: the same files, the report among them; a second time, there is nothing to do."""
    url = "memory://store/new/raw/1.0.0"
    flags = [f"--image_dir={photos}", "--name=raw", "--encoding=raw", "--image_size=32", "--num_workers=1"]
    made = simimg("convert", "--data_dir=memory://store/new", *flags)
    assert (made["dataset_dir"], made["num_examples"]) == (url, 72)
    for path in datasets["raw"].iterdir():
        if path.name != "report.html":
            assert stored.cat_file(f"/store/new/raw/1.0.0/{path.name}") == path.read_bytes()
    assert stored.exists("/store/new/raw/1.0.0/report.html")
    assert simimg("verify", f"--dataset_dir={url}", "--clean")["removed"] == 0
    assert simimg("convert", "--data_dir=memory://store/new", *flags)["num_examples"] == 72
    assert f"{url} was made with other options" in simimg(
        "convert", "--data_dir=memory://store/new", *flags, "--seed=1", code=2
    )
    stored.pipe_file("/store/new/raw/1.0.0/stray.bin", b"x")
    assert library.verify(f"{url}/").problems == (f"{url}/stray.bin is not in layout.json.",)
    stored.rm("/store/new/raw/1.0.0/stray.bin")
    stored.rm("/store/new/raw/1.0.0/dataset_info.json")
    assert "it is being written, or that was interrupted" in simimg("verify", f"--dataset_dir={url}", code=2)
    assert simimg("verify", f"--dataset_dir={url}", "--clean")["removed"] > 4
    assert not stored.find("/store/new/raw/1.0.0")
    assert "--clean is about datasets at URLs" in simimg("verify", "--dataset_dir=data", "--clean", code=2)
    assert not Path("memory:").exists()


def test_new_versions(simimg: Callable[..., Any], photos: Path, stored: Any, tmp_path: Path) -> None:
    """Images are added to a dataset at a URL, deleted from it, and converted from it, with the bytes of a folder."""
    images = tmp_path / "images"
    shutil.copytree(photos, images)
    flags = [f"--image_dir={images}", "--name=raw", "--encoding=raw", "--image_size=32", "--num_workers=1"]
    places = ("memory://store/grown", str(tmp_path / "grown"))
    lists = tmp_path / "delete.csv"
    lists.write_text("id\n3\n")
    for place in places:
        simimg("convert", f"--data_dir={place}", *flags)
    first = next(path for path in sorted(images.rglob("*")) if path.is_file())
    Image.new("RGB", (40, 40), "red").save(first.with_name("new.png"))
    for place in places:
        assert simimg("convert", f"--data_dir={place}", *flags, "--append")["dataset_dir"] == f"{place}/raw/1.1.0"
        assert simimg("edit", f"--dataset_dir={place}/raw/1.1.0", f"--delete={lists}")["num_deleted"] == 1
        assert "has a newer version" in simimg("edit", f"--dataset_dir={place}/raw/1.1.0", f"--delete={lists}", code=2)
        copied = simimg("convert", f"--from={place}/raw/2.0.0", f"--data_dir={place}", "--encoding=png", "--seed=1")
        assert copied["dataset_dir"] == f"{place}/raw_32_png/1.0.0"
    here = {path.relative_to(tmp_path).as_posix(): path for path in (tmp_path / "grown").rglob("*") if path.is_file()}
    assert {name.removeprefix("/store/") for name in stored.find("/store/grown")} == set(here)
    for name, path in here.items():
        if path.name not in ("report.html", "manifest.parquet", "layout.json"):  # which have times, and checksums of it
            wanted = path.read_bytes().replace(str(tmp_path / "grown").encode(), b"memory://store/grown")
            assert stored.cat_file(f"/store/{name}") == wanted, name
    assert library.verify("memory://store/grown/raw/2.0.0").ok


def test_merging_datasets_at_urls_alone(
    simimg: Callable[..., Any], stored: Any, datasets: dict[str, Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new version is beside the first one, not in the cache; what somebody has put into the cache stays."""
    for name in ("one", "two"):
        stored.put(str(datasets["raw"]), f"/store/{name}/1.0.0", recursive=True)
    made = simimg("edit", "--merge=memory://store/one/1.0.0,memory://store/two/1.0.0")
    assert (made["dataset_dir"], made["num_examples"]) == ("memory://store/one/1.1.0", 144)
    assert library.verify(made["dataset_dir"]).ok
    assert all((folder / ".url").is_file() for folder in (cache / "datasets").iterdir())
    own = cache / "datasets" / "1.1.0" / "dataset_info.json"
    own.parent.mkdir()
    own.write_text("{}")
    shutil.rmtree(cache / "objects")
    monkeypatch.setattr(remote_folder, "_OLD_S", -1)
    library.verify(URL)
    assert len(list((cache / "datasets").iterdir())) == 2
    assert own.exists()


def test_an_edit_that_was_interrupted_while_it_was_sent(
    simimg: Callable[..., Any], stored: Any, datasets: dict[str, Path], photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next one begins again, and images are added to the version that is there."""
    stored.put(str(datasets["raw"]), "/store/ended/1.0.0", recursive=True)
    Path("delete.csv").write_text("id\n3\n")
    put = Upload._put

    def interrupted(self: Any, name: str, **options: Any) -> Any:
        if name == "layout.json":
            raise KeyboardInterrupt
        return put(self, name, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Upload, "_put", interrupted)
        with pytest.raises(Interrupted, match="the same command begins again"):
            library.edit("memory://store/ended/1.0.0", delete="delete.csv")
    shutil.copytree(photos, "images")
    Image.new("RGB", (40, 40), "red").save(next(Path("images").glob("*/*")).with_name("new.png"))
    flags = ["--name=raw", "--encoding=raw", "--image_size=32", "--num_workers=1", "--append"]
    stored.put(str(datasets["raw"]), "/store/grows/raw/1.0.0", recursive=True)
    with monkeypatch.context() as patch:
        patch.setattr(Upload, "_put", interrupted)
        with pytest.raises(Interrupted, match="the same command begins again"):
            library.edit("memory://store/grows/raw/1.0.0", delete="delete.csv")
    made = simimg("convert", "--image_dir=images", "--data_dir=memory://store/grows", *flags)
    assert (made["dataset_dir"], made["num_examples"]) == ("memory://store/grows/raw/1.1.0", 73)
    made = simimg("edit", "--dataset_dir=memory://store/ended/1.0.0", "--delete=delete.csv")
    assert (made["dataset_dir"], made["num_examples"]) == ("memory://store/ended/2.0.0", 71)
    assert library.verify(made["dataset_dir"]).ok


def test_a_plan_whose_index_is_gone(
    simimg: Callable[..., Any], stored: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files are moved, and moved back also if the store does not answer: nothing keeps them in quarantine."""
    images = tmp_path / "images"
    images.mkdir()
    names = ("one.png", "two.png")
    for name in names:
        Image.new("RGB", (8, 8), "red").save(images / name)
    one, two = ({"path": name, "sha256": file_sha256(images / name)} for name in names)
    values = {"format": "simimg-plan/1", "image_dir": str(images), "groups": [{"keep": one, "remove": [two]}]}
    Path("plan.json").write_text(json.dumps({**values, "index_dir": "memory://store/gone"}))
    assert simimg("apply", "--plan=plan.json")["moved"] == ["two.png"]
    with monkeypatch.context() as patch:
        patch.setattr(type(stored), "info", lambda *arguments, **options: 1 / 0)
        assert simimg("undo", "--plan=plan.json")["moved"] == ["two.png"]
        assert "memory://store/gone: the store does not answer" in simimg("apply", "--plan=plan.json", code=2)
    assert {path.name for path in images.iterdir()} == {*names}
    assert simimg("apply", "--plan=plan.json")["moved"] == ["two.png"]
    assert simimg("undo", "--plan=plan.json")["moved"] == ["two.png"]


def test_a_plan_whose_index_this_machine_has_not_read(
    simimg: Callable[..., Any], stored: Any, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file is not noted as removed whose bytes the index has under another name, too."""
    images = Path("images")
    images.mkdir()
    one, two = sorted(photos.glob("*/*"))[:2]
    for number, source in enumerate((one, two)):
        Image.open(source).convert("RGB").resize((256, 256)).save(images / f"{number}.png")
        Image.open(images / f"{number}.png").save(images / f"{number}-saved.jpg", quality=80)
    shutil.copyfile(images / "0-saved.jpg", images / "0-again.jpg")
    at = "--index_dir=memory://store/planned"
    simimg("duplicates", "--image_dir=images", at, "--plan=plan.json", "--threshold=0.5", "--plan_edits=all")
    plan = json.loads(Path("plan.json").read_text())
    for group in plan["groups"]:
        group["remove"] = [file for file in group["remove"] if file["path"] != "0-again.jpg"]
    Path("plan.json").write_text(json.dumps(plan))
    monkeypatch.setenv("SIMIMG_CACHE_DIR", "other")
    assert simimg("apply", "--plan=plan.json")["moved"] == ["0-saved.jpg", "1-saved.jpg"]
    removed = stored.cat_file("/store/planned/decisions.jsonl").decode()
    assert "1-saved.jpg" in removed
    assert "0-saved.jpg" not in removed


def test_a_url_where_there_can_be_none(simimg: Callable[..., Any]) -> None:
    """Every option that is a path takes URLs, or refuses them by name; nothing is taken for a folder called `s3:`."""
    for name in cli.COMMANDS:
        fields = importlib.import_module(f"simimg.commands.{name}").Options.__dataclass_fields__
        for field in fields.values():
            if "Path" in str(field.type) and not field.metadata["url"]:
                flag = f"--{field.metadata['flag'] or field.name}=s3://bucket/place"
                assert f"{flag}: this has to be a path of this machine" in simimg(name, flag, code=2)
    for arguments in (
        ["search", "--index_dir=index", "s3://bucket/1.jpg"],
        ["predict", "--model_dir=model", "s3://bucket/1.jpg"],
        ["index", "--image_dir=photos", "--index_dir=index", "--model=s3://bucket/model"],
    ):
        assert "s3://bucket/" in (message := simimg(*arguments, code=2))
        assert "this has to be a path of this machine. Name a local one" in message
    assert not Path("s3:").exists()


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda url: library.index(url, "index"), "image_dir"),
        (lambda url: library.duplicates(url), "image_dir"),
        (lambda url: library.train("data", model_dir=url), "model_dir"),
        (lambda url: library.evaluate(url, "data"), "model_dir"),
        (lambda url: library.predict(url, "a.jpg"), "model_dir"),
    ],
)
@pytest.mark.parametrize("url", ["s3://bucket/place", Path("s3://bucket/place")])
def test_a_url_as_an_argument(call: Callable[[Any], object], name: str, url: str | Path) -> None:
    with pytest.raises(UsageError, match=f"{name}=s3://bucket/place: this has to be a path of this machine"):
        call(url)
