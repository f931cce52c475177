"""Fitting the head and judging it: every take by a head that was fitted without it."""

import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from speech.detection import DecoderConfig
from speech.evaluation.stream_metrics import poisson_interval
from speech.teach import thresholds
from speech.teach.bank import Vectors
from speech.teach.head import Weights, fit, softmax
from speech.teach.quality import Quality, WordQuality
from speech.teach.thresholds import Words

_MAX_FOLDS = 8
_CURVE = (1, 3, 5, 8, 12)
_CURVE_DRAWS = 2
_OTHERS_IN_FOLDS = 1_500
_ACCEPTED_OTHERS = 0.01  # of windows of other speech, where a clip is one window
_STRENGTH = 5.0
_UNLIKE, _ALIKE = 0.35, 0.55  # cosines


@dataclasses.dataclass(frozen=True)
class Material:
    """Vectors of takes and of everything else; width is that of the head.

    Attributes:
        words: int64 (n_takes,), the word of each take.
        vectors: float32 (n_takes, 1 + n_variants, width), the take itself first.
        sweeps: float32 (n_takes, n_shifts, width), the take as it moves through the window.
        negatives: float32 (n_negatives, 1 + n_variants, width), what was detected wrongly.
        others: float32 (n_others, width), what the words are told from.
        held_out: Streams float32 (n, width) that nothing is fitted to.
        hours: Of these.
        offsets: Which seconds of a clip a row holds.
    """

    words: npt.NDArray[np.int64]
    vectors: Vectors
    sweeps: Vectors
    negatives: Vectors
    others: Vectors
    held_out: tuple[Vectors, ...]
    hours: float
    offsets: tuple[int, ...] = (0,)

    @property
    def n_words(self) -> int:
        """How many words there are."""
        return int(self.words.max()) + 1


@dataclasses.dataclass(frozen=True)
class Judgement:
    """The head, and what it can do.

    Attributes:
        weights: Kernel and bias.
        acceptance: By word, the probability that a single clip has to reach.
        quality: Without the faults.
        outliers: bool (n_takes,), the takes that are unlike the others of their word.
    """

    weights: Weights
    acceptance: Mapping[str, float]
    quality: Quality
    outliers: npt.NDArray[np.bool_]


@dataclasses.dataclass(frozen=True)
class Fitted:
    """A head, and from which probability on its words are detected.

    Attributes:
        weights: Kernel and bias.
        thresholds: Of the decoder, by word.
        streams: Probabilities of the words in the held-out speech, float64 (n, n_words) each.
    """

    weights: Weights
    thresholds: list[float]
    streams: list[npt.NDArray[np.float64]]


def fit_and_choose(
    material: Material, words: Words, config: DecoderConfig, rate_per_hour: float
) -> Fitted:
    """The head of all takes, with thresholds for this rate of all words together."""
    weights = fit_head(material, np.ones(len(material.words), bool))
    streams = [probabilities(weights, stream)[:, : words.n] for stream in material.held_out]
    chosen = thresholds.choose(streams, config, rate_per_hour / words.n, material.hours)
    return Fitted(weights, chosen, streams)


def judge(
    material: Material, words: Words, config: DecoderConfig, rate_per_hour: float
) -> Judgement:
    """Fit the head to all takes, choose its thresholds, and measure it without each take."""
    fitted = fit_and_choose(material, words, config, rate_per_hour)
    weights, chosen = fitted.weights, fitted.thresholds
    of_each = rate_per_hour / words.n
    counts = _crossed(fitted.streams, words, config, of_each, material.hours)
    hits, confusions = _left_out(material, words, config, chosen, weights)
    rows = np.concatenate(fitted.streams)
    acceptance = {
        label: float(np.quantile(rows[:, w], 1 - _ACCEPTED_OTHERS / words.n))
        for w, label in enumerate(words.labels[: words.n])
    }
    total = sum(counts)
    low, high = poisson_interval(min(total, 10_000))
    quality = Quality(
        words={
            label: WordQuality(
                int(np.count_nonzero(material.words == w)),
                int(hits[material.words == w].sum()),
                confusions.get(w, {}),
                chosen[w],
                counts[w],
            )
            for w, label in enumerate(words.labels[: words.n])
        },
        hours=material.hours,
        rate_per_hour=rate_per_hour,
        false_accepts=total,
        false_accepts_per_hour=(
            total / material.hours,
            low / material.hours,
            high / material.hours,
        ),
        curve=_curve(material, weights),
        faults={},
    )
    return Judgement(weights, acceptance, quality, _outliers(material))


def fit_head(
    material: Material,
    chosen: npt.NDArray[np.bool_],
    start: Weights | None = None,
    n_others: int | None = None,
) -> Weights:
    """The head of these takes, bool (n_takes,); each counts as much, however many variants.

    A negative counts as a take does.
    """
    takes = material.vectors[chosen]
    n_rows, width = takes.shape[1:]
    negatives = material.negatives.reshape(-1, width)
    others = material.others
    if n_others is not None:
        others = others[:: max(1, len(others) // n_others)]
    vectors = np.concatenate([takes.reshape(-1, width), negatives, others])
    truth = np.repeat(material.words[chosen], n_rows)
    truth = np.concatenate([truth, np.full(len(negatives) + len(others), material.n_words)])
    weights = np.full(len(vectors), 1 / n_rows, np.float32)
    weights[len(vectors) - len(others) :] = max(len(takes), 8) / len(others)
    return fit(vectors, truth, weights, material.n_words + 1, strength=_STRENGTH, start=start)


def probabilities(weights: Weights, vectors: Vectors) -> npt.NDArray[np.float64]:
    """Of each word, and of all else in the last column."""
    return softmax(vectors @ weights[0] + weights[1]).astype(np.float64)


def _crossed(
    streams: list[npt.NDArray[np.float64]],
    words: Words,
    config: DecoderConfig,
    of_each: float,
    hours: float,
) -> list[int]:
    """False accepts in each half of the streams, at thresholds that the other half chose."""
    counts = np.zeros(words.n, np.int64)
    for half in (0, 1):
        chosen = thresholds.choose(streams[half::2], config, of_each, hours / 2)
        counts += thresholds.count(streams[1 - half :: 2], chosen, config, words)
    return [int(count) for count in counts]


def _folds(words: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.bool_]]:
    """Which takes are left out, so that each is once: one of each word, or some where many are."""
    number = np.zeros(len(words), np.int64)
    for word in set(words.tolist()):
        number[words == word] = np.arange(np.count_nonzero(words == word))
    n_folds = min(int(number.max()) + 1, _MAX_FOLDS)
    for fold in range(n_folds):
        left_out = number % n_folds == fold
        # the only take of a word stays, or nobody would know the word
        for word in set(words.tolist()):
            if left_out[words == word].all():
                left_out[words == word] = False
        if left_out.any():
            yield left_out


def _left_out(
    material: Material,
    words: Words,
    config: DecoderConfig,
    chosen: list[float],
    weights: Weights,
) -> tuple[npt.NDArray[np.bool_], dict[int, dict[str, int]]]:
    """Takes that are detected by a head without them, and as what else such a head takes them."""
    hits = np.zeros(len(material.words), bool)
    confusions: dict[int, dict[str, int]] = {}
    for left_out in _folds(material.words):
        others = fit_head(material, ~left_out, weights, _OTHERS_IN_FOLDS)
        for take in np.flatnonzero(left_out):
            rows = probabilities(others, material.sweeps[take])[:, : words.n]
            margins = thresholds.peaks(rows, config).max(axis=0) / np.array(chosen)
            best, word = int(margins.argmax()), int(material.words[take])
            if margins[best] < 1:
                continue
            hits[take] = best == word
            if best != word:
                label = words.labels[best]
                confusions.setdefault(word, {})
                confusions[word][label] = confusions[word].get(label, 0) + 1
    return hits, confusions


def _curve(material: Material, weights: Weights) -> dict[int, float]:
    """Share of takes that are told right by heads of fewer takes: what one more take brings."""
    counts = np.bincount(material.words)
    rng = np.random.default_rng(0)
    curve = {}
    for n in (n for n in _CURVE if n < counts.min() and n <= counts.max() - 1):
        right = []
        for _ in range(_CURVE_DRAWS):
            chosen = np.zeros(len(material.words), bool)
            for word in range(material.n_words):
                chosen[rng.permutation(np.flatnonzero(material.words == word))[:n]] = True
            head = fit_head(material, chosen, weights, _OTHERS_IN_FOLDS)
            rows = probabilities(head, material.vectors[~chosen, 0])
            right.append(float(np.mean(rows.argmax(axis=1) == material.words[~chosen])))
        curve[n] = float(np.mean(right))
    return curve


def _outliers(material: Material) -> npt.NDArray[np.bool_]:
    """Takes that are far from the others of their word, which are near one another."""
    takes = material.vectors[:, 0]
    unit = takes / np.maximum(np.linalg.norm(takes, axis=1, keepdims=True), 1e-9)
    outliers = np.zeros(len(unit), bool)
    for word in range(material.n_words):
        rows = np.flatnonzero(material.words == word)
        if len(rows) < 4:
            continue
        near = unit[rows] @ unit[rows].T
        np.fill_diagonal(near, np.nan)
        alike = np.nanmedian(near, axis=1)
        outliers[rows] = (alike < _UNLIKE) & (float(np.median(alike)) > _ALIKE)
    return outliers
