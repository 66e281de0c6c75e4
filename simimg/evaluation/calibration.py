"""Calibration of a classifier: whether its probabilities are as often right as they say, and the temperature for that.

The measures are those of Guo et al., "On Calibration of Modern Neural Networks" (ICML 2017). An image's confidence is
the probability of its most probable class. The confidences are put into 15 bins of equal width, and the *expected
calibration error* is the mean over the images of the gap between the accuracy and the mean confidence of their bin
(equation 3, and M = 15 of section 5). *Temperature scaling* divides the logits by one number, which has the least
negative log-likelihood on images that the network was not trained on (section 4.2). It changes no prediction.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

NUM_BINS = 15

_LEAST = float(np.finfo(np.float32).tiny)  # a probability of 0 in float32 has no finite logit
_STEPS = 60  # of a bisection over seven decades: more than the digits of a double


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReliabilityBin:
    """The images whose confidence is above `low` and at most `high`: their number, mean confidence and accuracy.

    The first bin also has confidences of 0. Without images, both means are None.
    """

    low: float
    high: float
    num_examples: int
    confidence: float | None
    accuracy: float | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibration:
    """The expected calibration error, and the bins that it is computed from."""

    error: float
    bins: tuple[ReliabilityBin, ...]


def calibration(probabilities: np.ndarray, labels: np.ndarray) -> Calibration:
    """Returns the calibration of predictions: probabilities `[num_examples, num_classes]`, labels `[num_examples]`."""
    confidences = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == labels
    edges = np.linspace(0.0, 1.0, NUM_BINS + 1)
    bin_of = np.digitize(confidences, edges[1:-1], right=True)
    counts = np.bincount(bin_of, minlength=NUM_BINS)
    sums = np.bincount(bin_of, confidences, minlength=NUM_BINS)
    hits = np.bincount(bin_of, right, minlength=NUM_BINS)
    bins = tuple(
        ReliabilityBin(
            low=float(edges[number]),
            high=float(edges[number + 1]),
            num_examples=int(count),
            confidence=float(sums[number] / count) if count else None,
            accuracy=float(hits[number] / count) if count else None,
        )
        for number, count in enumerate(counts.tolist())
    )
    return Calibration(error=float(np.abs(hits - sums).sum() / len(labels)), bins=bins)


def fit_temperature(probabilities: np.ndarray, labels: np.ndarray) -> float | None:
    """Returns the temperature with the least negative log-likelihood, None if no finite number above 0 has the least.

    There is none if the most probable class of every image is right, since colder is then always better, or if the
    network is no better than a guess. The likelihood is convex in 1 / temperature, so the root of its derivative there
    is the minimum.

    Args:
        probabilities: `[num_examples, num_classes]`, of images that the network was not trained on.
        labels: int `[num_examples]`.
    """
    if not len(labels):
        return None
    logits = _logits(probabilities)
    own = logits[np.arange(len(labels)), labels]

    def slope(coldness: float) -> float:
        """The derivative of the mean negative log-likelihood by 1 / temperature."""
        return float(((_softmax(logits * coldness) * logits).sum(axis=1) - own).mean())

    low, high = 1e-3, 1e4
    if not (logits.max(axis=1) > own).any() or slope(low) >= 0 or slope(high) <= 0:
        return None
    for _ in range(_STEPS):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return 1 / math.sqrt(low * high)


def scaled(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Returns probabilities `[num_examples, num_classes]` after temperature scaling, float64 of the same shape.

    The logits are the logarithms of the probabilities. A softmax of them is the same as of the network's own logits. If
    a prediction is the mean over several views of an image, the mean is scaled.
    """
    return _softmax(_logits(probabilities) / temperature)


def _logits(probabilities: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(probabilities.astype(np.float64), _LEAST))


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    found: np.ndarray = powers / powers.sum(axis=1, keepdims=True)
    return found
