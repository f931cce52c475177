"""Which part of the sound speaks for a class: integrated gradients over time and frequency."""

import dataclasses

import numpy as np

from speech.errors import ModelError
from speech.formats.weights import Array
from speech.inside.explanation import OpenModel, rows_at_once
from speech.inside.gradients import backpropagate
from speech.inside.trace import Trace, softmax, trace

_TOLERANCE, _MOST_POINTS = 0.01, 1024


@dataclasses.dataclass(frozen=True)
class Attribution:
    """What each cell of the mel spectrogram adds to the log-odds of a class.

    Attributes:
        label: The class.
        values: float64 (n_frames, n_mels), in nats: above 0 it speaks for the class, below against
            it. They sum to ``score - silence_score``, within 1 % (``error``).
        score: The log-odds of the class for the clip, ln(p / (1 - p)).
        silence_score: The same for digital silence.
        points: How many points of the way from silence to the clip were asked for it.
    """

    label: str
    values: Array
    score: float
    silence_score: float
    points: int

    @property
    def error(self) -> float:
        """By what share of the difference to silence the sum of the values misses it.

        Where that is smaller than one nat, the share is that of one nat.
        """
        difference = self.score - self.silence_score
        return abs(float(self.values.sum()) - difference) / max(abs(difference), 1.0)


def attribute(model: OpenModel, log_mel: Array, label: str = "") -> Attribution:
    """Integrated gradients (Sundararajan et al., arXiv 1703.01365), from digital silence.

    The spectrogram is faded in from silence, which is 0 everywhere, and the gradient along that way
    is integrated (Gauss and Legendre), with twice as many points until the sum is right within 1 %.

    Args:
        model: As ``open_model`` gives it.
        log_mel: float32 (n_frames, n_mels), as ``Explanation.log_mel``.
        label: The class; the most probable one if "".

    Raises:
        ModelError: Not a class of the model.

    Example:
        >>> from speech.inside.explanation import explain, open_model, read_clip
        >>> from speech.inside.attribution import attribute
        >>> model = open_model()
        >>> clip = read_clip("left.wav", model, on_note=lambda note: None)
        >>> found = attribute(model, explain(model, clip, unfolded=False).log_mel)
        >>> found.label, found.error < 0.01
        ('left', True)
    """
    labels = model.config.labels
    mel = log_mel.astype(np.float64)
    ends = _run(model, np.stack([mel, np.zeros_like(mel)]))
    if label and label not in labels:
        raise ModelError(f"expected one of {', '.join(labels)}, got {label!r:.60}; choose one")
    target = labels.index(label) if label else int(ends.logits[0].argmax())
    score, silence_score = map(float, _log_odds(ends.logits, target))
    points = 32
    while True:
        values = mel * _mean_gradient(model, mel, target, points)
        found = Attribution(labels[target], values, score, silence_score, points)
        if found.error < _TOLERANCE or points == _MOST_POINTS:
            return found
        points *= 2


def log_odds_gradient(logits: Array, target: int) -> Array:
    """The derivative of ln(p / (1 - p)) of a class with respect to the logits (batch, n)."""
    others = logits.copy()
    others[:, target] = -np.inf
    gradient = -softmax(others)
    gradient[:, target] = 1
    return gradient


def _log_odds(logits: Array, target: int) -> Array:
    others = np.delete(logits, target, axis=1)
    most = others.max(axis=1)
    rest = most + np.log(np.exp(others - most[:, np.newaxis]).sum(axis=1))
    return np.asarray(logits[:, target] - rest)


def _run(model: OpenModel, log_mel: Array) -> Trace:
    return trace(model.network, log_mel @ model.front.dct.T + model.front.offset)


def _mean_gradient(model: OpenModel, mel: Array, target: int, points: int) -> Array:
    """The mean along the way of the gradient of the log-odds with respect to the spectrogram."""
    where, weights = np.polynomial.legendre.leggauss(points)
    mean = np.zeros_like(mel)
    at_once = rows_at_once(len(mel))
    for start in range(0, points, at_once):
        share = (where[start : start + at_once, np.newaxis, np.newaxis] + 1) / 2
        run = _run(model, share * mel)
        gradients = backpropagate(model.network, run, log_odds_gradient(run.logits, target))
        d_mel = gradients.mfcc @ model.front.dct
        mean += np.tensordot(weights[start : start + at_once] / 2, d_mel, axes=1)
    return mean
