"""Oriented gradients: against a loop in float64, and what each output stands for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from simimg.models.oriented_gradients import OrientedGradients


@pytest.mark.parametrize(("height", "width", "cell", "directions"), [(16, 16, 4, 16), (13, 18, 4, 8), (9, 7, 2, 4)])
def test_the_maps_are_those_of_a_loop_in_float64(height: int, width: int, cell: int, directions: int) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (2, height, width, 3), np.uint8)
    got = OrientedGradients(cell, directions)(pixels)
    assert got.shape == (2, -(-height // cell), -(-width // cell), 2 * directions + 7)
    expected = np.stack([_maps(image, cell, directions) for image in pixels])
    np.testing.assert_allclose(got, expected, rtol=2e-3, atol=2e-3)


def test_an_edge_is_found_where_it_is_and_the_way_it_goes() -> None:
    """Dark left, bright right: direction 0 of 8, in the middle cells. Bright left is direction 4; from top down, 2."""
    right = np.zeros((1, 32, 32, 3), np.float32)
    right[:, :, 16:] = 200
    for pixels, direction in (
        (right, 0),
        (right[:, :, ::-1], 4),
        (right.transpose(0, 2, 1, 3), 2),
        (right.transpose(0, 2, 1, 3)[:, ::-1], 6),
    ):
        edges = OrientedGradients(4, 8)(pixels)[0, ..., :8].numpy()
        assert edges.sum(axis=(0, 1)).argmax() == direction
        assert np.abs(edges[:2, :2]).max() < 1e-2


def test_a_brighter_picture_has_the_same_relative_edges() -> None:
    pixels = np.random.default_rng(1).integers(0, 100, (1, 32, 32, 3)).astype(np.float32)
    dark, bright = (OrientedGradients()(pixels * factor)[..., :32].numpy() for factor in (1.0, 2.5))
    np.testing.assert_allclose(bright, dark, rtol=0.1, atol=0.05)


def test_flat_pictures_give_finite_numbers() -> None:
    for value in (0, 255):
        assert np.isfinite(OrientedGradients()(np.full((1, 32, 32, 3), value, np.uint8)).numpy()).all()


def _maps(image: np.ndarray[Any, Any], cell: int, directions: int) -> np.ndarray[Any, Any]:
    x = np.sqrt(image.astype(np.float64) / 255)
    height, width, _ = x.shape
    padded = np.pad(x, [(1, 1), (1, 1), (0, 0)], "symmetric")
    edges = np.zeros((height, width, directions))
    for row in range(height):
        for column in range(width):
            across = padded[row + 1, column + 2] - padded[row + 1, column]
            down = padded[row + 2, column + 1] - padded[row, column + 1]
            longest = int((across**2 + down**2).argmax())
            a, d = across[longest], down[longest]
            length = np.sqrt(a * a + d * d + 1e-8)
            for k in range(directions):
                angle = 2 * np.pi * k / directions
                cosine = (a * np.cos(angle) + d * np.sin(angle)) / length
                edges[row, column, k] = length * max(cosine, 0) ** (directions / 2)
    histograms = _pooled(edges, 2 * cell, cell)
    energy = np.sqrt((histograms**2).sum(axis=-1, keepdims=True))
    around, overall = _pooled(energy, 3, 1), energy.mean(axis=(0, 1), keepdims=True)
    mean = _pooled(x, 2 * cell, cell)
    deviation = np.sqrt(np.maximum(_pooled(x * x, 2 * cell, cell) - mean**2, 0) + 1e-4)
    parts = [histograms / (around + 0.02), histograms / (overall + 0.02), np.log(energy + 0.01)]
    return np.concatenate([*parts, 2 * mean - 1, 4 * deviation], axis=-1)


def _pooled(maps: np.ndarray[Any, Any], size: int, stride: int) -> np.ndarray[Any, Any]:
    """Mean of the pixels that are there, of windows as "SAME" lays them."""
    starts, counts = [], []
    for n in maps.shape[:2]:
        count = -(-n // stride)
        before = max((count - 1) * stride + size - n, 0) // 2
        starts.append([index * stride - before for index in range(count)])
        counts.append(count)
    out = np.zeros((*counts, maps.shape[2]))
    for i, top in enumerate(starts[0]):
        for j, left in enumerate(starts[1]):
            window = maps[max(top, 0) : top + size, max(left, 0) : left + size]
            out[i, j] = window.mean(axis=(0, 1))
    return out
