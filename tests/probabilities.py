"""Streams whose probabilities are made up, for tests of what is decided from them."""

import numpy as np

from speech.architecture import ModelConfig
from speech.data.annotations import Word
from speech.detection import DecoderConfig
from speech.evaluation.scoring import StreamPosteriors
from speech.features import FeatureConfig
from speech.recognizer import Recognizer

LABELS = ("yes", "no", "unknown", "silence")
BASE = DecoderConfig()
SILENT = np.array([0.0, 0.0, 0.0, 1.0])


def no_network(waveforms: np.ndarray) -> np.ndarray:
    raise AssertionError("the rows are there already")


MODEL = Recognizer("rows", ModelConfig(labels=LABELS, features=FeatureConfig()), no_network)


def said(kind: str, condition: str, peaks: list[tuple[str, float]], real: bool) -> StreamPosteriors:
    """A plateau of nine windows for each (label, probability), four seconds apart."""
    rows = np.tile(SILENT, (40 * len(peaks) + 20, 1))
    words = []
    for turn, (label, probability) in enumerate(peaks):
        first = 40 * turn + 10
        rows[first : first + 9] = 0.0
        rows[first : first + 9, LABELS.index(label)] = probability
        rows[first : first + 9, 2] = 1 - probability
        words.append(Word(first / 10 - 0.4, first / 10 + 0.1, label))
    seconds = len(rows) / 10
    return StreamPosteriors(
        kind, condition, tuple(words) if real else (), seconds, seconds, rows.astype(np.float32),
        SILENT,
    )  # fmt: skip


def drawn(
    kind: str, n: int, mean: float, real: bool, seed: int, condition: str = "clean"
) -> StreamPosteriors:
    """Words whose odds are normally distributed around a mean, on a logarithmic scale."""
    rng = np.random.default_rng([seed, n])
    logits = rng.normal(mean, 1.5, n)
    labels = [("yes", "no")[i] for i in rng.integers(0, 2, n)]
    peaks = [(label, float(1 / (1 + np.exp(-x)))) for label, x in zip(labels, logits, strict=True)]
    return said(kind, condition, peaks, real)
