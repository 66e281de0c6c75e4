"""Commands on a dataset at a URL, and URLs where there can be none."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

import simimg as library
from simimg import cli
from simimg.commands.train import resolve
from simimg.errors import UsageError

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
    assert "memory://store/none does not exist" in simimg("verify", "--dataset_dir=memory://store/none", code=2)


def test_searching_a_dataset(simimg: Callable[..., Any], stored: Any) -> None:
    made = simimg("index", f"--dataset_dir={URL}", "--index_dir=index")
    assert made["num_images"] == 72
    assert simimg("index", f"--dataset_dir={URL}", "--index_dir=index")["num_embedded"] == 0
    with library.Searcher("index") as searcher:
        assert searcher.index.info.dataset_dir == URL
    assert simimg("leaks", f"--dataset_dir={URL}", "--index_dir=index", "--report=leaks.html")["num_test_affected"] >= 0
    assert URL in Path("leaks.html").read_text()
    found = simimg("audit", f"--dataset_dir={URL}", "--kinds=dark,bright", "--report=audit.html")
    assert found["num_images"] == 72
    assert URL in Path("audit.html").read_text()


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
        ["convert", "--from=s3://bucket/zoo/1.0.0"],
    ):
        assert "s3://bucket/" in (message := simimg(*arguments, code=2))
        assert "this has to be a path of this machine. Name a local one" in message
    assert not Path("s3:").exists()


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda url: library.index("photos", url), "index_dir"),
        (lambda url: library.index(url, "index"), "image_dir"),
        (lambda url: library.search(url, "a.jpg"), "index_dir"),
        (lambda url: library.duplicates(url), "image_dir"),
        (lambda url: library.train("data", model_dir=url), "model_dir"),
        (lambda url: library.evaluate(url, "data"), "model_dir"),
        (lambda url: library.predict(url, "a.jpg"), "model_dir"),
        (lambda url: library.edit(url), "dataset_dir"),
    ],
)
@pytest.mark.parametrize("url", ["s3://bucket/place", Path("s3://bucket/place")])
def test_a_url_as_an_argument(call: Callable[[Any], object], name: str, url: str | Path) -> None:
    with pytest.raises(UsageError, match=f"{name}=s3://bucket/place: this has to be a path of this machine"):
        call(url)
