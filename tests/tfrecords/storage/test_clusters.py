"""Machines that share no folder: a dataset and an index in an object store, made on Ray, of which a node is killed, and
on Beam, with the bytes of those that were made here.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tfrecords.base_errors import UsageError
from tfrecords.convert import engine
from tfrecords.convert.plan.convert_config import ConvertConfig
from tfrecords.storage.remote_conversion import remote_target
from tfrecords.storage.remote_dataset import local_dataset

DATA, URL, INDEX = "s3://own/data", "s3://own/data/zoo/1.0.0", "s3://own/data/index"

Digests = Callable[[Path], dict[str, str]]

pytestmark = pytest.mark.usefixtures("small_shards")  # 40 photos in 9 shards


def needs(*modules: str) -> pytest.MarkDecorator:
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}")


def converted(photos: Path, digests_of: Digests, progress: Callable[[Any], None], **options: Any) -> dict[str, str]:
    """Returns the digests of what machines without a common folder have made."""
    with remote_target(DATA, "zoo") as target:
        config = ConvertConfig(image_dir=str(photos), name="zoo", image_size=16, data_dir=target.data_dir, **options)
        made = engine.convert(config, progress=progress, handover=target.handover)
        target.send(made.dataset_dir, lambda text: None)
        target.finish()
    found = digests_of(local_dataset(URL))
    del found[".url"]
    return found


def here(photos: Path, tmp_path: Path, digests_of: Digests) -> dict[str, str]:
    config = ConvertConfig(image_dir=str(photos), name="zoo", image_size=16, data_dir=tmp_path / "here", num_workers=1)
    return digests_of(engine.convert(config).dataset_dir)


def generation(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "generation-000001").iterdir()}


def generation_at(driver: Any, url: str) -> dict[str, bytes]:
    found = driver.find(f"{url.removeprefix('s3://')}/generation-000001")
    return {path.rpartition("/")[2]: driver.cat_file(path) for path in found}


@needs("onnxruntime", "cv2")
def test_an_index(
    empty: Any,
    store: Any,
    photos: Path,
    tmp_path: Path,
    tiny_model: str,
    digests_of: Digests,
    use_store: Callable[..., None],
) -> None:
    """It is made, searched and looked through for copies at a URL as in a folder, and refuses others."""
    from simimg import api

    converted(photos, digests_of, lambda _: None, num_workers=1)
    places = {"here": tmp_path / "index", "there": INDEX}
    made = {name: api.index(dataset_dir=URL, index_dir=place, model=tiny_model) for name, place in places.items()}
    assert {update.num_embedded for update in made.values()} == {40}
    names = generation_at(empty, INDEX).keys()
    assert generation_at(empty, INDEX) == {name: generation(tmp_path / "index")[name] for name in names}
    assert len(names) >= 3
    assert api.index(dataset_dir=URL, index_dir=INDEX, model=tiny_model).num_embedded == 0
    image = str(next(photos.rglob("*.png")))
    found = []
    for place in places.values():
        with api.Searcher(place) as searcher:
            found.append([(match.image.path, match.similarity) for match in searcher.search(image)])
    assert found[0] == found[1] != []
    groups = [repr(api.duplicates(index_dir=place).groups) for place in places.values()]
    assert groups[0] == groups[1]
    pairs = [repr(api.leaks(URL, index_dir=place, model=tiny_model).pairs) for place in places.values()]
    assert pairs[0] == pairs[1]
    if store.kind == "seaweedfs":  # moto checks no secrets
        use_store({"AWS_ACCESS_KEY_ID": "reader", "AWS_SECRET_ACCESS_KEY": "of-a-reader"})
        with pytest.raises(UsageError, match=rf"--index_dir={INDEX}: the store refuses access \(.*\)\. Check the cred"):
            api.index(photos, INDEX, model=tiny_model)
        use_store({"AWS_ACCESS_KEY_ID": "nobody"})
        with pytest.raises(UsageError, match=rf"--index_dir={INDEX}: the store refuses access"):
            api.Searcher(INDEX)


@pytest.fixture
def cluster(store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A Ray cluster of two nodes, in processes that know the store and have nothing else in common."""
    import ray
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    options = {"object_store_memory": 80 << 20}
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **options})
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        own = {"TMPDIR": str(tmp_path / name), "SIMIMG_CACHE_DIR": str(tmp_path / name / "cache")}
        made.add_node(num_cpus=1, env_vars=own, **options)
    yield made
    ray.shutdown()
    made.shutdown()


@needs("ray", "onnxruntime", "cv2")
def test_on_ray(
    empty: Any,
    cluster: Any,
    photos: Path,
    tmp_path: Path,
    tiny_model: str,
    digests_of: Digests,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from simimg import api
    from simimg.similarity import index_tasks, pair_tasks

    on_ray = {"engine": "ray", "ray_address": str(cluster.address)}
    lost: list[Any] = []

    def kill_one(progress: Any) -> None:
        if progress.num_done and not lost:
            lost.append(sorted(cluster.worker_nodes, key=str)[0])
            cluster.remove_node(lost[0], allow_graceful=False)

    found = converted(photos, digests_of, kill_one, **on_ray)
    assert lost
    assert found == here(photos, tmp_path, digests_of)
    monkeypatch.setattr(index_tasks, "IMAGES_PER_PART", 7)
    monkeypatch.setattr(pair_tasks, "MIN_PAIRS", 1)
    api.index(dataset_dir=URL, index_dir=tmp_path / "index", model=tiny_model)
    made = api.index(dataset_dir=URL, index_dir=INDEX, model=tiny_model, **on_ray)
    assert made.num_embedded == 40
    names = generation_at(empty, INDEX).keys()
    assert generation_at(empty, INDEX) == {name: generation(tmp_path / "index")[name] for name in names}
    pairs = api.leaks(URL, index_dir=INDEX, model=tiny_model, threshold=0.5, **on_ray)
    expected = api.leaks(URL, index_dir=tmp_path / "index", model=tiny_model, threshold=0.5)
    assert repr(pairs.pairs) == repr(expected.pairs)
    assert pairs.num_pairs_examined == expected.num_pairs_examined > 0
    assert not [path for path in empty.find("own/data") if ".shards" in path or ".tasks" in path]


@needs("apache_beam")
@pytest.mark.parametrize("runner", ["direct", "dask"])
def test_on_beam(empty: Any, photos: Path, tmp_path: Path, digests_of: Digests, runner: str) -> None:
    options = "--direct_num_workers=2"
    cluster = None
    if runner == "dask":
        cluster = pytest.importorskip("distributed").LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, local_directory=tmp_path
        )
        options = "--runner=apache_beam.runners.dask.dask_runner.DaskRunner "
        options += f"--dask_client_address={cluster.scheduler_address}"
    found = converted(photos, digests_of, lambda _: None, engine="beam", beam_options=options)
    if cluster is not None:
        cluster.close()
    assert found == here(photos, tmp_path, digests_of)
    assert not [path for path in empty.find("own/data") if ".shards" in path]
