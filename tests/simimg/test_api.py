"""The Python interface: its examples run in one folder, one after the other, and mistakes are named."""

from __future__ import annotations

import doctest
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import simimg
from simimg import api
from simimg.api import audit_api, copies_api, dataset_api, search_api, training_api
from simimg.errors import UsageError
from simimg.sample import draw_sample

pytestmark = pytest.mark.own_process

PER_CLASS = 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder `photos` of forty drawn pictures, and two files that cannot be used."""
    folder = tmp_path_factory.mktemp("api")
    draw_sample(folder / "photos", per_class=PER_CLASS)
    return folder


@pytest.fixture(autouse=True)
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def test_the_examples_do_what_they_say() -> None:
    """All of them in one go, in the order of the modules: each uses what those before it made."""
    finder, runner = doctest.DocTestFinder(exclude_empty=True), doctest.DocTestRunner()
    report: list[str] = []
    for module in (api, audit_api, copies_api, dataset_api, training_api, search_api):
        found = finder.find(module, module.__name__, globs={"simimg": simimg})
        for test in sorted(found, key=lambda test: test.lineno or 0):
            runner.run(test, out=report.append)
    assert runner.failures == 0, "".join(report)
    assert runner.tries >= 18


def test_every_name_is_there_and_described() -> None:
    assert sorted(simimg.__all__) == sorted([*(set(api.__all__) - {"open_trained"}), "SimimgError", "__version__"])
    for name in set(api.__all__) - {"open_trained"}:
        assert getattr(simimg, name) is getattr(api, name)
        assert getattr(api, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'serach'"):
        _ = simimg.serach  # type: ignore[attr-defined]
    assert set(dir(simimg)) == set(simimg.__all__)


def test_importing_simimg_imports_nothing_else() -> None:
    code = "import sys, simimg; dir(simimg); print(sorted({name.partition('.')[0] for name in sys.modules}))"
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "'simimg'" in there
    assert not any(f"'{name}'" in there for name in ("tensorflow", "keras", "numpy", "PIL", "tfrecords"))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: simimg.convert("photos", image_sizes=64), "convert has no option 'image_sizes'. Did you mean"),
        (lambda: simimg.train("data/photos/1.0.0", epoch=1), "train has no option 'epoch'. Did you mean 'epochs'?"),
        (lambda: simimg.train("data/photos/1.0.0", qqq=1), "`simimg train --help` lists them"),
        (lambda: simimg.verify("nowhere"), "nowhere is not a folder"),
        (lambda: simimg.load("nowhere"), "nowhere is not a folder"),
        (lambda: simimg.load("nowhere", batch_size=0), "should be 1 or more"),
        (lambda: simimg.index(), "name what to index"),
        (lambda: simimg.duplicates(), "name what to look through"),
        (lambda: simimg.duplicates("photos", threshold=0.2), "should be between 0.5 and 1"),
    ],
)
def test_a_mistake_is_named(call, words: str) -> None:
    with pytest.raises(UsageError) as raised:
        call()
    assert words in str(raised.value)
    assert isinstance(raised.value, simimg.SimimgError)


@pytest.fixture(scope="module")
def dataset_dir(folder: Path) -> Path:
    made = simimg.convert(folder / "photos", name="loaded", data_dir=str(folder / "data"), image_size=16, num_workers=1)
    return made.dataset_dir


def test_a_loader_gives_each_example_once(dataset_dir: Path) -> None:
    loader = simimg.load(dataset_dir, "train", batch_size=7, epochs=2)
    for _ in range(2):  # it begins anew
        batches = list(loader)
        ids = np.concatenate([batch.id.numpy() for batch in batches])
        assert len(batches) == len(loader) == 10
        assert len(ids) == 60
        assert sorted(ids[:30]) == sorted(set(ids))
        assert (ids[:30] == ids[30:]).all()


def test_a_loader_shuffles_by_its_seed(dataset_dir: Path) -> None:
    def ids(seed: int) -> list[int]:
        loader = simimg.load(dataset_dir, "train", batch_size=7, epochs=2, shuffle=True, seed=seed)
        batches = list(loader)
        assert len(batches) == len(loader) == 8
        assert all(batch.image.shape == (7, 16, 16, 3) for batch in batches)
        return np.concatenate([batch.id.numpy() for batch in batches]).tolist()

    one = ids(0)
    assert one == ids(0) != ids(1)
    assert len(set(one[:28])) == 28
    assert one[:28] != one[28:]


def test_what_cannot_be_decoded_is_no_query(folder: Path, tmp_path: Path) -> None:
    simimg.index(folder / "photos", tmp_path / "index")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 no picture")
    with simimg.Searcher(tmp_path / "index") as searcher:
        with pytest.raises(UsageError, match=r"broken\.jpg cannot be decoded"):
            searcher.search(tmp_path / "broken.jpg")
        with pytest.raises(UsageError, match="by='looks'"):
            searcher.search(tmp_path / "broken.jpg", by="looks")
        assert len(searcher.search(folder / "photos" / "fishes" / "image_0001.jpg", k=3, by="kind")) == 3
