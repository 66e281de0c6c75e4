"""Projections of embeddings, which remove what the images of a collection have in common.

The embeddings of a narrow collection are nearly the same for all images, and half of their numbers describe the kind of
image. Which half matters depends on the question, so an index has two projections of the same embeddings, both fitted
to its own images:

copy   Centered, with the same variance along each principal axis (Jégou and Chum, "Negative evidences and
       co-occurrences in image retrieval", ECCV 2012, section 3): rare features tell one photo from all others.
kind   Centered, and reduced to the principal axes of largest variance, along which kinds differ. If images have labels,
       directions in which images of the same label differ are shrunk first (within-class covariance normalization:
       Hatch, Kajarekar and Stolcke, Interspeech 2006).

Few images do not determine the axes, so a small collection is only centered, and a very small one is left as it is.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from simimg.determinism import exact_matmul, one_blas_thread, ordered_sum

BY = ("copy", "kind")

_MAX_SAMPLES = 20_000  # 200 MB of 1280 numbers each; far more than the axes need
_MIN_CENTERED = 64  # images; the mean of fewer depends too much on each of them
_COPY_DIM, _KIND_DIM = 512, 64
_IMAGES_PER_COPY_AXIS = 4  # an axis that few images span is noise, and would be scaled up most
_MIN_PER_CLASS = 5
_SHRINKAGE = 1.0  # of the covariance toward a multiple of the identity; 0.1 to 3 differ by one percentage point


@dataclasses.dataclass(frozen=True, slots=True)
class Projection:
    """Maps the embeddings of a network to those that are compared.

    Attributes:
        mean: float32 `[network_dim]`, subtracted.
        matrix: float32 `[network_dim, dim]`, or None to keep the axes.
    """

    mean: np.ndarray
    matrix: np.ndarray | None

    def __call__(self, embeddings: np.ndarray) -> np.ndarray:
        """Return float32 `[..., dim]` of L2 norm 1 for float `[..., network_dim]`; rows do not affect each other."""
        moved = np.asarray(embeddings, np.float64) - self.mean
        if self.matrix is not None:
            with one_blas_thread():
                moved = exact_matmul(moved, self.matrix)
        lengths = np.sqrt(ordered_sum(moved * moved))[..., None]
        return (moved / np.maximum(lengths, 1e-12)).astype(np.float32)


def fit_projection(embeddings: np.ndarray, labels: np.ndarray, by: str) -> Projection:
    """Fit a projection to a collection.

    Args:
        embeddings: `[num_images, network_dim]` of L2 norm 1.
        labels: str `[num_images]`, "" for an image without one; used by `kind` only.
        by: one of `BY`.
    """
    if by not in BY:
        raise ValueError(f"`by` should be one of {BY}. Received: by={by!r}")
    with one_blas_thread():  # the number of threads changes the last bits, and the sign of an axis
        return _fit(embeddings, labels, by)


def _fit(embeddings: np.ndarray, labels: np.ndarray, by: str) -> Projection:
    # In the order of their bytes, so that the names of the images do not decide about the last bits.
    rows = np.argsort(np.ascontiguousarray(embeddings).view(f"V{embeddings[:1].nbytes}").ravel(), kind="stable")
    rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), _MAX_SAMPLES)).astype(np.int64)]
    embeddings, labels = embeddings[rows], labels[rows]
    sample = np.asarray(embeddings, np.float64)
    num_images, network_dim = sample.shape
    if num_images < _MIN_CENTERED or network_dim == 1:
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
    """Return the map under which images of one label vary equally in all directions; without labels, the identity."""
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
