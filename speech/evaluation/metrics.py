"""How good a clip classifier is, and how far its probabilities can be trusted.

Everything here takes arrays and returns plain data: nothing is drawn, printed or written.
Throughout, ``probabilities`` is (n, c), one row per clip and one column per label; ``truth`` is
(n,), the index of the right label; the predicted label is the first column with the greatest
probability, and the confidence is that probability.
"""

import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]

TEMPERATURES = (0.5, 5.0)
MIN_CALIBRATION_CLIPS, MIN_CALIBRATION_MISTAKES = 100, 5
_LOG_TEMPERATURE_SD = 0.5


@dataclass(frozen=True)
class ReliabilityBin:
    """The clips whose confidence lies in (lower, upper]; both means are 0.0 when there are none."""

    lower: float
    upper: float
    count: int
    confidence: float  # mean over the bin's clips
    accuracy: float  # share of the bin's clips that are right


@dataclass(frozen=True)
class ClipMetrics:
    """The score of one classifier on one set of clips; shares are in [0, 1] and never NaN.

    Per-label tuples follow ``labels``. A precision, recall or F1 with nothing to count is 0.0;
    ``macro_f1`` is the mean of ``f1`` over the labels that have clips.
    """

    labels: tuple[str, ...]
    n: int
    accuracy: float
    accuracy_low: float  # 95% Wilson interval
    accuracy_high: float
    precision: tuple[float, ...]
    recall: tuple[float, ...]
    f1: tuple[float, ...]
    support: tuple[int, ...]  # clips of each label in the truth
    confusion: list[list[int]]  # confusion[truth][predicted], counts
    ece: float  # expected calibration error, 15 bins
    nll: float  # mean negative log likelihood of the truth, in nats
    reliability: tuple[ReliabilityBin, ...]
    macro_f1: float

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON knows them: str, int, float, list and dict only."""
        fields: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return fields


@dataclass(frozen=True)
class WrongClip:
    """One misjudged clip: its path, its label, the predicted label and the confidence."""

    path: str
    truth: str
    predicted: str
    confidence: float


def clip_metrics(
    probabilities: npt.ArrayLike, truth: npt.ArrayLike, labels: Sequence[str]
) -> ClipMetrics:
    """Score ``probabilities`` (n, c) against ``truth`` (n,); ``labels`` names the c columns.

    A true label given probability 0 counts in the NLL as the smallest normal float32, so that one
    underflow costs 87 nats instead of infinity.

    Raises:
        ValueError: Shapes that do not fit, no clips, a row that is no distribution, or truth out
            of range.
    """
    p = as_probabilities(probabilities, len(labels))
    y = _as_truth(truth, *p.shape)
    n, c = p.shape
    confusion = np.zeros((c, c), dtype=np.intp)
    np.add.at(confusion, (y, p.argmax(axis=1)), 1)
    hits, support, predicted = confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)
    f1 = _ratio(2 * hits, support + predicted)
    low, high = wilson_interval(int(hits.sum()), n)
    likelihood = np.maximum(p[np.arange(n), y], np.finfo(np.float32).tiny)
    reliability = reliability_bins(p, y)
    return ClipMetrics(
        labels=tuple(labels),
        n=n,
        accuracy=float(hits.sum() / n),
        accuracy_low=low,
        accuracy_high=high,
        precision=tuple(_ratio(hits, predicted).tolist()),
        recall=tuple(_ratio(hits, support).tolist()),
        f1=tuple(f1.tolist()),
        support=tuple(support.tolist()),
        confusion=confusion.tolist(),
        ece=_calibration_error(reliability),
        nll=float(-np.log(likelihood).mean()),
        reliability=reliability,
        macro_f1=float(f1[support > 0].mean()),
    )


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """The (low, high) within which the true rate behind ``successes`` out of ``n`` lies.

    The score interval of E. B. Wilson, "Probable inference, the law of succession, and
    statistical inference", JASA 22 (1927). Unlike the textbook p +- z sqrt(p (1 - p) / n) it
    stays inside [0, 1] and keeps a width when every clip is right.

    Raises:
        ValueError: Unless 0 <= successes <= n, n > 0 and 0 < confidence < 1.
    """
    if not (n > 0 and 0 <= successes <= n):
        raise ValueError(f"expected 0 <= successes <= n and n > 0, got {successes=}, {n=}")
    if not 0 < confidence < 1:
        raise ValueError(f"expected 0 < confidence < 1, got {confidence=}")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    centre = (successes + z * z / 2) / (n + z * z)
    half = z * math.sqrt(successes * (n - successes) / n + z * z / 4) / (n + z * z)
    # At both ends the bound is exact; rounding must not push it past the rate itself.
    return (
        0.0 if successes == 0 else centre - half,
        1.0 if successes == n else centre + half,
    )


def reliability_bins(
    probabilities: npt.ArrayLike, truth: npt.ArrayLike, bins: int = 15
) -> tuple[ReliabilityBin, ...]:
    """Sort the clips by confidence into ``bins`` bins of equal width over (0, 1].

    Raises:
        ValueError: As `clip_metrics`, or fewer than one bin.
    """
    if bins < 1:
        raise ValueError(f"expected bins >= 1, got {bins=}")
    p = as_probabilities(probabilities)
    y = _as_truth(truth, *p.shape)
    confidence, right = p.max(axis=1), p.argmax(axis=1) == y
    edges = np.linspace(0.0, 1.0, bins + 1)
    which = np.searchsorted(edges[1:-1], confidence)
    count = np.bincount(which, minlength=bins)
    mean_confidence = _ratio(np.bincount(which, confidence, bins), count)
    accuracy = _ratio(np.bincount(which, right, bins), count)
    columns = (edges[:-1], edges[1:], count, mean_confidence, accuracy)
    return tuple(map(ReliabilityBin, *(column.tolist() for column in columns)))


def expected_calibration_error(
    probabilities: npt.ArrayLike, truth: npt.ArrayLike, bins: int = 15
) -> float:
    """The distance between confidence and accuracy, averaged over `reliability_bins` by clips.

    0 means that of the answers given with 80% confidence, 80% are right. M. P. Naeini,
    G. F. Cooper and M. Hauskrecht, "Obtaining well calibrated probabilities using Bayesian
    binning", AAAI 2015; here over the confidence of the predicted label, as in C. Guo, G. Pleiss,
    Y. Sun and K. Q. Weinberger, "On calibration of modern neural networks", ICML 2017.

    Raises:
        ValueError: As `reliability_bins`.
    """
    return _calibration_error(reliability_bins(probabilities, truth, bins))


def fit_temperature(logits: npt.ArrayLike, truth: npt.ArrayLike) -> float:
    """The temperature T by which to divide the logits, so that confidence and accuracy agree.

    Temperature scaling (Guo et al., ICML 2017): one number that corrects over-confidence (T > 1) or
    its opposite (T < 1) and leaves every prediction as it was. Fit it on held-out clips, never on
    the test split. Where every clip is right, colder would always be better; so T stays within
    ``TEMPERATURES``, it is drawn toward 1 as if its logarithm came from a normal distribution of
    standard deviation ``_LOG_TEMPERATURE_SD``, and it is 1 where the clips or the mistakes among
    them are too few to show it (``calibration_is_thin``).

    Args:
        logits: (n, c), finite; log-probabilities do as well.
        truth: (n,), indices of the right labels.

    Raises:
        ValueError: Shapes that do not fit, no clips, logits that are not finite, or truth out of
            range.
    """
    z = np.asarray(logits, dtype=np.float64)
    if z.ndim != 2 or z.size == 0 or not np.isfinite(z).all():
        raise ValueError(f"expected finite logits of shape (n > 0, c > 0), got shape {z.shape}")
    y = _as_truth(truth, *z.shape)
    if calibration_is_thin(len(y), int((z.argmax(axis=1) != y).sum())):
        return 1.0
    z = z - z.max(axis=1, keepdims=True)
    target = z[np.arange(len(y)), y].sum()

    def cost(log_t: float) -> float:
        beta = math.exp(-log_t)
        nll = float(np.log(np.exp(beta * z).sum(axis=1)).sum() - beta * target)
        return nll + 0.5 * (log_t / _LOG_TEMPERATURE_SD) ** 2

    low, high = map(math.log, TEMPERATURES)
    for _ in range(5):  # each time ten times closer around the best of a grid
        grid = np.linspace(low, high, 21)
        best = int(np.argmin([cost(x) for x in grid]))
        low, high = grid[max(best - 1, 0)], grid[min(best + 1, 20)]
    return math.exp(grid[best])


def calibration_is_thin(n: int, mistakes: int) -> bool:
    """Whether so many clips, so many of them misjudged, are too few to calibrate confidence on."""
    return n < MIN_CALIBRATION_CLIPS or mistakes < MIN_CALIBRATION_MISTAKES


def auroc(positive: npt.ArrayLike, negative: npt.ArrayLike) -> float:
    """The share of pairs in which a positive scores above a negative one; ties count half.

    The area under the receiver operating characteristic, by the ranks of Mann and Whitney.

    Args:
        positive: Scores (n > 0,) of what is to be accepted.
        negative: Scores (m > 0,) of what is to be rejected.
    """
    p, q = np.asarray(positive, np.float64), np.sort(np.asarray(negative, np.float64))
    below, up_to = np.searchsorted(q, p, "left"), np.searchsorted(q, p, "right")
    return float((below + up_to).sum() / (2 * len(p) * len(q)))


def wrong_clips(
    probabilities: npt.ArrayLike,
    truth: npt.ArrayLike,
    labels: Sequence[str],
    paths: Sequence[str | os.PathLike[str]],
) -> list[WrongClip]:
    """The clips that were misjudged, the most confident first; ``paths`` names the n rows.

    Read from the top it is the list to listen to: wrong labels in the corpus show up here.

    Raises:
        ValueError: As `clip_metrics`, or another number of paths than of clips.
    """
    p = as_probabilities(probabilities, len(labels))
    y = _as_truth(truth, *p.shape)
    if len(paths) != len(p):
        raise ValueError(f"expected {len(p)} paths, got {len(paths)}")
    predicted, confidence = p.argmax(axis=1), p.max(axis=1)
    order = np.argsort(-confidence, kind="stable")
    return [
        WrongClip(os.fspath(paths[i]), labels[y[i]], labels[predicted[i]], float(confidence[i]))
        for i in order[predicted[order] != y[order]]
    ]


def as_probabilities(probabilities: npt.ArrayLike, n_labels: int | None = None) -> FloatArray:
    """The same as float64 (n, c), having made sure that each row is a distribution over the labels.

    Sums may be off by 1e-3, so that float16 and quantised networks pass; ``n_labels`` None takes
    any c > 0.

    Raises:
        ValueError: Naming the shape, or the first row that is no distribution.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    if p.ndim != 2 or p.size == 0 or n_labels not in (None, p.shape[1]):
        c = "c > 0" if n_labels is None else n_labels
        raise ValueError(f"expected probabilities of shape (n > 0, {c}), got {p.shape}")
    sums, least = p.sum(axis=1), p.min(axis=1)
    bad = ~((least >= 0) & (np.abs(sums - 1) <= 1e-3))  # negated so that NaN is bad too
    if bad.any():
        i = int(bad.argmax())
        raise ValueError(
            f"expected probabilities >= 0 that sum to 1, got row {i} "
            f"with sum {sums[i]:g} and minimum {least[i]:g}"
        )
    return p


def _as_truth(truth: npt.ArrayLike, n: int, n_labels: int) -> IntArray:
    y = np.asarray(truth)
    if y.shape != (n,) or not np.issubdtype(y.dtype, np.integer):
        raise ValueError(f"expected integer truth of shape ({n},), got {y.dtype} {y.shape}")
    if y.min() < 0 or y.max() >= n_labels:
        raise ValueError(f"expected truth in 0 ... {n_labels - 1}, got {y.min()} ... {y.max()}")
    return y.astype(np.intp)


def _ratio(part: npt.NDArray[Any], whole: IntArray) -> FloatArray:
    """Part by whole, and 0.0 where there is nothing to divide by."""
    ratio = np.zeros(len(whole))
    np.divide(part, whole, out=ratio, where=whole > 0)
    return ratio


def _calibration_error(reliability: Sequence[ReliabilityBin]) -> float:
    gaps = sum(b.count * abs(b.accuracy - b.confidence) for b in reliability)
    return gaps / sum(b.count for b in reliability)
