"""The head: a multinomial logistic regression in numpy, which tells words from all else."""

import math

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]
Weights = tuple[Vectors, Vectors]
_STEPS, _STEPS_FROM_NEAR = 150, 50
_POWER_STEPS = 12


def fit(
    vectors: Vectors,
    truth: npt.NDArray[np.int64],
    weights: Vectors,
    n_classes: int,
    *,
    strength: float = 1.0,
    start: Weights | None = None,
) -> Weights:
    """Weights that maximize the penalized likelihood, by Nesterov's accelerated gradient.

    Args:
        vectors: (n, width).
        truth: (n,), the class of each.
        weights: (n,), how much each counts.
        n_classes: How many classes there are.
        strength: Of the penalty: half the sum of the squared kernel times this is added to the
            weighted cross-entropy.
        start: Where to begin, such as the weights of nearly the same vectors.

    Returns:
        Kernel (width, n_classes) and bias (n_classes,), float32.
    """
    x = np.concatenate([vectors, np.ones((len(vectors), 1), np.float32)], axis=1)
    penalty = np.full((x.shape[1], 1), strength, np.float32)
    penalty[-1] = 1e-3
    one_hot = np.zeros((len(x), n_classes), np.float32)
    one_hot[np.arange(len(x)), truth] = 1
    step = 1 / (0.5 * _largest(x, weights) + strength)
    theta = np.zeros((x.shape[1], n_classes), np.float32)
    if start is not None:
        theta = np.concatenate([start[0], start[1][np.newaxis]])
    ahead, momentum = theta, 1.0
    for _ in range(_STEPS if start is None else _STEPS_FROM_NEAR):
        errors = (softmax(x @ ahead) - one_hot) * weights[:, np.newaxis]
        gradient = x.T @ errors + penalty * ahead
        previous, theta = theta, ahead - step * gradient
        following = (1 + math.sqrt(1 + 4 * momentum**2)) / 2
        # where the way ahead is uphill, momentum begins anew (O'Donoghue and Candès, 2015)
        if np.sum(gradient * (theta - previous)) > 0:
            following = 1.0
        ahead = theta + ((momentum - 1) / following) * (theta - previous)
        momentum = following
    return theta[:-1], theta[-1]


def softmax(logits: Vectors) -> Vectors:
    """Probabilities of the rows."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: Vectors = shifted / shifted.sum(axis=1, keepdims=True)
    return probabilities


def _largest(x: Vectors, weights: Vectors) -> float:
    """The largest eigenvalue of the weighted second moments, by power iteration."""
    vector = np.full(x.shape[1], 1 / np.sqrt(x.shape[1]), np.float32)
    value = 1.0
    for _ in range(_POWER_STEPS):
        vector = x.T @ (weights * (x @ vector))
        value = float(np.linalg.norm(vector))
        vector = vector / max(value, 1e-12)
    return 1.05 * value
