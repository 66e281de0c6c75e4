"""Logistic regression: the softmax on given features, by L-BFGS. It needs no TensorFlow.

Training starts from it (`simimg.training.linear_probe`), and `simimg audit` judges labels by it.
"""

from __future__ import annotations

import numpy as np

_L2 = 1e-5
"""Weight of the L2 penalty relative to the mean loss, for features of length 1. It equals scikit-learn's C = 100 for a
thousand examples. In cross-validation on the training images of docs/evaluation.md, the validation loss for C = 1, 10,
100, 1,000 and 10,000 was 0.208, 0.086, 0.057, 0.057 and 0.077."""

_MOST_STEPS = 300


def fit_softmax(
    features: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    label_smoothing: float = 0.0,
    *,
    l2: float = _L2,
    weights: np.ndarray | None = None,
    most_steps: int = _MOST_STEPS,
) -> tuple[np.ndarray, np.ndarray]:
    """Return kernel `[dim, num_classes]` and bias `[num_classes]` of a logistic regression with a small L2 penalty.

    L-BFGS minimizes the convex loss with all examples at once. The labels are smoothed as in the training that follows.
    Otherwise the softmax would be more confident than that loss allows, and the training would start by blurring the
    network's features.

    Args:
        features: float32 `[num_examples, dim]`, of any length.
        labels: int32 `[num_examples]`, below `num_classes`.
        num_classes: number of classes.
        label_smoothing: the share of each label that is spread evenly over all classes.
        l2: weight of the penalty relative to the mean loss, for features of length 1.
        weights: float `[num_examples]`, 0..1, how much each example counts; by default all count fully.
        most_steps: steps of L-BFGS, at most.
    """
    from scipy.optimize import minimize  # 0.2 s, which a start should not wait for

    num_examples, dim = features.shape
    length = float(np.sqrt(np.square(features).sum(axis=1).mean())) or 1.0
    x = features / length
    y = (1 - label_smoothing) * np.eye(num_classes, dtype=np.float32)[labels] + label_smoothing / num_classes
    y = y.astype(np.float32)
    counted = None if weights is None else weights.astype(np.float32)

    def loss_and_gradient(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        kernel, bias = _split(parameters.astype(np.float32), num_classes)
        logits = x @ kernel + bias
        logits -= logits.max(axis=1, keepdims=True)
        exponentials = np.exp(logits)
        sums = exponentials.sum(axis=1, keepdims=True)
        losses = np.log(sums[:, 0]) - (logits * y).sum(axis=1)
        towards = (exponentials / sums - y) / num_examples
        if counted is not None:
            losses, towards = losses * counted, towards * counted[:, None]
        loss = losses.mean(dtype=np.float64) + l2 / 2 * np.square(kernel).sum(dtype=np.float64)
        gradient = np.concatenate([(x.T @ towards + l2 * kernel).ravel(), towards.sum(axis=0)])
        return float(loss), gradient.astype(np.float64)

    start = np.zeros((dim + 1) * num_classes)
    found = minimize(
        loss_and_gradient, start, jac=True, method="L-BFGS-B", options={"maxiter": most_steps, "gtol": 1e-6}
    )
    kernel, bias = _split(found.x.astype(np.float32), num_classes)
    return kernel / length, bias


def _split(parameters: np.ndarray, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    return parameters[:-num_classes].reshape(-1, num_classes), parameters[-num_classes:]
