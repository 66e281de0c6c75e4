"""The map: what is alike lies together, always in the same place."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from simimg.similarity.search_index import SearchIndex
from simimg.web import collection_map
from simimg.web.collection_map import ROUNDS, lay_out, load_or_lay_out


def groups(count: int, each: int, dim: int = 16) -> np.ndarray:
    rng = np.random.default_rng(0)
    vectors = np.repeat(rng.normal(size=(count, dim)), each, 0) + 0.2 * rng.normal(size=(count * each, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def own_share(places: np.ndarray, each: int) -> float:
    """How many of the nearest five on the map are of the same group."""
    apart = ((places[:, None] - places[None]) ** 2).sum(axis=2)
    np.fill_diagonal(apart, np.inf)
    nearest = np.argsort(apart, axis=1)[:, :5] // each
    return float((nearest == np.arange(len(places))[:, None] // each).mean())


def test_groups_lie_together_and_in_the_same_place_again() -> None:
    steps: list[int] = []
    places = lay_out(groups(5, 40), steps.append)
    assert sum(steps) == ROUNDS
    assert places.shape == (200, 2)
    assert places.dtype == np.float32
    assert places.min() >= 0
    assert places.max() <= 1
    assert own_share(places, 40) > 0.97
    assert np.array_equal(places, lay_out(groups(5, 40)))


def test_those_that_are_no_landmarks_lie_with_their_like(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collection_map, "LANDMARKS", 60)
    assert own_share(lay_out(groups(5, 40)), 40) > 0.9


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 17])
def test_few_and_equal_pictures(count: int) -> None:
    for vectors in (groups(1, count), np.tile(groups(1, 1), (count, 1)), np.ones((count, 1), np.float32)):
        places = lay_out(vectors)
        assert places.shape == (count, 2)
        assert np.isfinite(places).all()


def test_it_is_laid_out_once_for_a_generation(index: SearchIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_or_lay_out(index)
    monkeypatch.setattr(collection_map, "lay_out", lambda vectors, progress: first + 1)
    assert np.array_equal(load_or_lay_out(index), first)
    later = dataclasses.replace(index, info=dataclasses.replace(index.info, generation=99))
    assert np.array_equal(load_or_lay_out(later), first + 1)
    assert len(list((index.index_dir / "web").glob("map-*.npy"))) == 1
    (damaged,) = (index.index_dir / "web").glob("map-*.npy")
    damaged.write_bytes(b"\x93NUMPY")
    assert np.array_equal(load_or_lay_out(later), first + 1)
