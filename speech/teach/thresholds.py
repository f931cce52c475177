"""Thresholds for a wanted rate of false accepts, from streams in which nobody says the words."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from speech.detection import DecoderConfig, PosteriorDecoder, moving_mean
from speech.features import FeatureConfig

Rows = npt.NDArray[np.float64]
_APART = 10  # windows: peaks that lie nearer belong to one event
_TAIL = 12  # the highest peaks, from which the rest of the tail is guessed
_LOWEST, _HIGHEST = 0.2, 0.9999


@dataclasses.dataclass(frozen=True)
class Words:
    """The labels of a decoder whose first are the taught words, and what a window is."""

    n: int
    labels: tuple[str, ...]
    features: FeatureConfig


def peaks(rows: Rows, config: DecoderConfig) -> Rows:
    """For each window and word the highest threshold at which the decoder would detect it there.

    Args:
        rows: Probabilities of successive windows, float64 (n, n_words).
        config: Says how it smooths, and how many windows in a row have to agree.

    Returns:
        float64 (m, n_words), m <= n.
    """
    n_recent = round(config.smoothing_seconds / config.step_seconds)
    smoothed = moving_mean(rows, n_recent) if len(rows) >= n_recent else rows[:0]
    in_a_row = config.min_consecutive_windows
    count = max(0, len(smoothed) - in_a_row + 1)
    lowest: Rows = np.minimum.reduce([smoothed[i : i + count] for i in range(in_a_row)])
    return lowest


def choose(
    streams: Sequence[Rows], config: DecoderConfig, rate_per_hour: float, hours: float
) -> list[float]:
    """A threshold for each word, so that each is falsely accepted at this rate.

    The highest peaks of held-out speech, on the scale of log odds, fall off exponentially; so the
    threshold for a rate that so little speech cannot show is extrapolated from them.

    Args:
        streams: Probabilities of the words in held-out speech, float64 (n, n_words) each.
        config: How the decoder smooths.
        rate_per_hour: Of each word.
        hours: Of the streams.
    """
    heights = [peaks(rows, config) for rows in streams]
    thresholds = []
    for word in range(streams[0].shape[1]):
        logits = [_logit(event) for rows in heights for event in _events(rows[:, word])]
        highest = np.sort(logits)[::-1][: _TAIL + 1]
        base, excess = highest[-1], highest[:-1] - highest[-1]
        slope = max(float(excess.mean()), 0.05) if len(excess) else 1.0
        wanted = max(rate_per_hour * hours, 1e-3)
        odds = base + slope * math.log(max(len(excess), 1) / wanted)
        probability = 1 / (1 + math.exp(-min(max(odds, -20), 20)))
        thresholds.append(min(max(probability, _LOWEST), _HIGHEST))
    return thresholds


def count(
    streams: Sequence[Rows], thresholds: Sequence[float], config: DecoderConfig, words: Words
) -> list[int]:
    """How often the decoder itself detects each word.

    Args:
        streams: Probabilities of the words, float64 (n, n_words) each.
        thresholds: Of each word.
        config: The decoder's other settings.
        words: Their labels.
    """
    labels = words.labels[: words.n]
    named = config.with_thresholds(1.0, dict(zip(labels, thresholds, strict=True)))
    counts = [0] * words.n
    for rows in streams:
        # nobody is asked for the others, and the decoder needs no sum of one
        decoder = PosteriorDecoder(named, labels, words.features, np.zeros(words.n))
        lowest = min(thresholds)
        for part in _lively(rows, lowest):
            decoder.reset()
            for detection in decoder.decode(part):
                counts[labels.index(detection.label)] += 1
    return counts


def _lively(rows: Rows, lowest: float) -> list[Rows]:
    """The stretches around windows that come near a threshold; between them nothing happens."""
    near = np.flatnonzero(rows.max(axis=1) >= 0.5 * lowest)
    if not len(near):
        return []
    breaks = np.flatnonzero(np.diff(near) > 40) + 1
    return [rows[max(0, part[0] - 5) : part[-1] + 6] for part in np.split(near, breaks)]


def _events(heights: Rows) -> Rows:
    """The peaks of a series (n,) that lie apart."""
    n = -(-len(heights) // _APART)
    padded = np.pad(heights, (0, n * _APART - len(heights)), constant_values=0.0)
    highest = padded.reshape(n, _APART).max(axis=1)
    # a block whose neighbour is higher belongs to that one's event
    edges = np.pad(highest, 1)
    apart: Rows = highest[(highest >= edges[:-2]) & (highest > edges[2:])]
    return apart


def _logit(probability: float) -> float:
    clipped = min(max(probability, 1e-9), 1 - 1e-9)
    return math.log(clipped / (1 - clipped))
