"""How good a stream decoder is: words hit and missed, false accepts per hour, latency.

Everything here takes plain data and returns plain data: nothing is drawn, printed or written.
"""

import bisect
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from speech.data.annotations import Word
from speech.evaluation.metrics import wilson_interval


class DetPoint(NamedTuple):
    """What one threshold gives: share of the words missed, and false accepts per hour."""

    threshold: float
    miss_rate: float
    false_accepts_per_hour: float


@dataclass(frozen=True)
class StreamMetrics:
    """The score of one decoder on one stream; rates with nothing to count are 0.0.

    Every word of a command is a hit or a miss. A detection is a hit, a wrong word (it lies on a
    command, but names another one) or a false accept (there is no command, or it was hit before).
    Latencies are in seconds from the end of the word to the detection that hit it, and None
    without hits; a detection may come before the end of its word.
    """

    seconds: float
    words: int
    hits: int
    misses: int
    substitutions: int
    false_accepts: int
    hit_rate: float
    hit_rate_low: float  # 95% Wilson interval
    hit_rate_high: float
    macro_hit_rate: float  # the mean over the commands that are said, so that rare ones count
    false_accepts_per_hour: float
    false_accepts_per_hour_low: float  # exact 95% Poisson interval
    false_accepts_per_hour_high: float
    latency_median: float | None
    latency_p95: float | None
    by_label: dict[str, tuple[int, int]]  # words and hits of each command that is said

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON knows them."""
        fields: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return fields


def stream_metrics(
    words: Sequence[Word],
    detections: Sequence[tuple[float, str]],
    seconds: float,
    commands: Sequence[str],
    reach: float,
) -> StreamMetrics:
    """Score the detections of a stream against what is said in it.

    A detection lies on a word if the stretch of ``reach`` seconds that ends with it overlaps the
    word. It hits the first such word of its label that was not hit before.

    Args:
        words: What is said, sorted by start; labels that are no commands are not to be detected.
        detections: Time in seconds and label of each, in the order of time.
        seconds: Length of the stream.
        commands: The labels that can be detected.
        reach: What a decision rests on: the window and the smoothing.

    Raises:
        ValueError: No stream, or words that are not sorted.
    """
    starts = [word.start for word in words]
    if not seconds > 0 or starts != sorted(starts):
        raise ValueError(f"expected words by start in a stream of seconds > 0, got {seconds=}")
    longest = max((word.end - word.start for word in words), default=0.0)
    latencies: dict[int, float] = {}
    substitutions = false_accepts = 0
    for time, label in detections:
        first = bisect.bisect_left(starts, time - reach - longest)
        near = range(first, bisect.bisect_left(starts, time))
        on = [i for i in near if words[i].end > time - reach and words[i].label in commands]
        fresh = [i for i in on if words[i].label == label and i not in latencies]
        if fresh:
            latencies[fresh[0]] = time - words[fresh[0]].end
        elif any(words[i].label != label for i in on):
            substitutions += 1
        else:
            false_accepts += 1
    by_label: dict[str, tuple[int, int]] = {}
    for i, word in enumerate(words):
        if word.label in commands:
            said, hit = by_label.get(word.label, (0, 0))
            by_label[word.label] = said + 1, hit + (i in latencies)
    n, hits = sum(said for said, _ in by_label.values()), len(latencies)
    low, high = wilson_interval(hits, n) if n else (0.0, 1.0)
    least, most = poisson_interval(false_accepts)
    late = np.array(sorted(latencies.values()))
    return StreamMetrics(
        seconds=seconds,
        words=n,
        hits=hits,
        misses=n - hits,
        substitutions=substitutions,
        false_accepts=false_accepts,
        hit_rate=hits / n if n else 0.0,
        hit_rate_low=low,
        hit_rate_high=high,
        macro_hit_rate=float(np.mean([hit / said for said, hit in by_label.values()] or [0.0])),
        false_accepts_per_hour=false_accepts * 3600 / seconds,
        false_accepts_per_hour_low=least * 3600 / seconds,
        false_accepts_per_hour_high=most * 3600 / seconds,
        latency_median=float(np.median(late)) if hits else None,
        latency_p95=float(np.percentile(late, 95)) if hits else None,
        by_label=by_label,
    )


def poisson_interval(count: int, confidence: float = 0.95) -> tuple[float, float]:
    """The (low, high) within which the mean of a Poisson variable lies that came out as ``count``.

    The exact interval of F. Garwood, "Fiducial limits for the Poisson distribution", Biometrika 28
    (1936).

    Raises:
        ValueError: Unless 0 <= count <= 10,000 and 0 < confidence < 1.
    """
    if not (0 <= count <= 10_000 and 0 < confidence < 1):
        raise ValueError(f"expected 0 <= count <= 10000, 0 < confidence < 1, got {count=}")
    tail = (1 - confidence) / 2
    # P(X <= k) falls with the mean, so that each end can be closed in on by halves
    ends = []
    for most, wanted in ((count - 1, 1 - tail), (count, tail)):
        low, high = 0.0, 2.0 * count + 50
        for _ in range(50 if most >= 0 else 0):
            middle = (low + high) / 2
            low, high = (middle, high) if _poisson_cdf(most, middle) > wanted else (low, middle)
        ends.append(low)
    return ends[0], ends[1]


def _poisson_cdf(most: int, mean: float) -> float:
    """P(X <= most), summed in logarithms: e ** -mean is zero in floats where counts are large."""
    k = np.arange(most + 1)
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.maximum(k[1:], 1)))])
    return float(np.exp(k * math.log(max(mean, 1e-300)) - mean - log_factorial).sum())


def fewest_misses(points: Iterable[DetPoint], false_accepts_per_hour: float) -> DetPoint | None:
    """The point with the fewest misses at no more than this rate; of equal ones, the safest."""
    allowed = [p for p in points if p.false_accepts_per_hour <= false_accepts_per_hour]
    return min(allowed, key=lambda p: (p.miss_rate, -p.threshold), default=None)
