"""Projections: what the pictures of a collection have in common is taken out of their embeddings.

An embedding as the network gives it is nearly the same for all pictures of a narrow collection, and half of its
numbers say what kind of picture it is. Which half matters depends on the question, so an index has two projections
of the same embeddings, both fitted to its own pictures:

copy   centred, and each principal axis scaled to the same spread (Jégou and Chum, "Negative evidences and
       co-occurrences in image retrieval", ECCV 2012, section 3): what is rare tells one photo from all others.
kind   centred, and cut to the principal axes of the largest spread, which is where kinds differ. Where pictures have
       labels, directions in which pictures of one label differ are shrunk first (within-class covariance
       normalisation: Hatch, Kajarekar and Stolcke, Interspeech 2006).

Too few pictures say nothing about axes, so a small collection is centred, and a very small one left as it is.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from simimg.determinism import exact_matmul, one_blas_thread, ordered_sum

__all__ = ["BY", "Projection", "fit_projection"]

BY = ("copy", "kind")

_MOST_SAMPLES = 20_000  # 200 MB of 1280 numbers; the axes are known long before
_CENTERED_FROM = 64  # pictures: of fewer, the mean is mostly the pictures themselves
_COPY_DIM, _KIND_DIM = 512, 64
_IMAGES_PER_COPY_AXIS = 4  # an axis that few pictures span is noise, and is scaled up most
_MIN_PER_CLASS = 5
_SHRINKAGE = 1.0  # of the covariance towards a round one of the same size: 0.1 to 3 differ by a point


@dataclasses.dataclass(frozen=True, slots=True)
class Projection:
    """Embeddings of a network to those that are compared.

    Attributes:
        mean: float32 `[network_dim]`, subtracted.
        matrix: float32 `[network_dim, dim]`, or None to leave the axes as they are.
    """

    mean: np.ndarray
    matrix: np.ndarray | None

    def __call__(self, embeddings: np.ndarray) -> np.ndarray:
        """Returns float32 `[..., dim]` of L2 norm 1 of float `[..., network_dim]`, each row for itself."""
        moved = np.asarray(embeddings, np.float64) - self.mean
        if self.matrix is not None:
            with one_blas_thread():
                moved = exact_matmul(moved, self.matrix)
        lengths = np.sqrt(ordered_sum(moved * moved))[..., None]
        return (moved / np.maximum(lengths, 1e-12)).astype(np.float32)


def fit_projection(embeddings: np.ndarray, labels: np.ndarray, by: str) -> Projection:
    """Returns the projection that suits a collection.

    Args:
        embeddings: `[num_images, network_dim]` of L2 norm 1.
        labels: str `[num_images]`, "" where a picture has none; used by `kind` only.
        by: one of `BY`.
    """
    if by not in BY:
        raise ValueError(f"`by` should be one of {BY}. Received: by={by!r}")
    if len(embeddings) > _MOST_SAMPLES:
        rows = np.linspace(0, len(embeddings) - 1, _MOST_SAMPLES).astype(np.int64)
        embeddings, labels = embeddings[rows], labels[rows]
    sample = np.asarray(embeddings, np.float64)
    num_images, network_dim = sample.shape
    if num_images < _CENTERED_FROM:
        return Projection(np.zeros(network_dim, np.float32), None)
    mean = sample.mean(axis=0)
    sample = sample - mean
    if by == "copy":
        dim = min(_COPY_DIM, network_dim, num_images // _IMAGES_PER_COPY_AXIS)
        matrix = _principal_axes(sample, dim, whiten=True) if dim >= _COPY_DIM // 2 else None
    else:
        within = _within_classes(sample, labels)
        axes = _principal_axes(sample @ within, min(_KIND_DIM, network_dim, num_images // 2), whiten=False)
        matrix = within @ axes
    return Projection(mean.astype(np.float32), None if matrix is None else matrix.astype(np.float32))


def _principal_axes(centered: np.ndarray, dim: int, *, whiten: bool) -> np.ndarray:
    variances, axes = np.linalg.eigh(centered.T @ centered / len(centered))
    variances, axes = variances[::-1][:dim], axes[:, ::-1][:, :dim]
    return axes / np.sqrt(np.maximum(variances, 1e-12)) if whiten else axes


def _within_classes(centered: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The map under which pictures of one label differ about as much in all directions; without labels, no change."""
    dim = centered.shape[1]
    covariance, num_images, num_classes = np.zeros((dim, dim)), 0, 0
    for label in np.unique(labels):
        members = centered[labels == label]
        if label and len(members) >= _MIN_PER_CLASS:
            spread = members - members.mean(axis=0)
            covariance += spread.T @ spread
            num_images, num_classes = num_images + len(members), num_classes + 1
    if num_classes < 2:
        return np.eye(dim)
    covariance /= num_images
    covariance += _SHRINKAGE * np.trace(covariance) / dim * np.eye(dim)
    variances, axes = np.linalg.eigh(covariance)
    return axes / np.sqrt(variances)
