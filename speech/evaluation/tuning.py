"""Choosing the settings of a live decoder for a wanted rate of false accepts."""

import bisect
import dataclasses
import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from speech.detection import DecoderConfig, moving_mean
from speech.errors import EvidenceError
from speech.evaluation.scoring import (
    FAST_KINDS,
    RULE_OF_THREE,
    StreamPosteriors,
    decode,
    logit,
    resolvable_rate,
    score,
    shift_thresholds,
    sigmoid,
)
from speech.labels import commands
from speech.progress import OnProgress, no_progress
from speech.recognizer import Recognizer

LONGEST_LATENCY = 0.3
_LATENCY_MARGIN = 0.02  # it is chosen on other words than it is measured on
REFRACTORY_SECONDS = 0.3  # shorter than a word and its pause; see docs/evaluation.md
_SMOOTHING_STEPS, _MIN_COUNTS = (2, 3, 4, 5), (2, 3, 4)
# A causal model answers more often than every tenth of a second, and has seen all before.
_FINE_STEP_SECONDS = 0.08
_FINE_SMOOTHING_STEPS, _FINE_MIN_COUNTS = (1, 2, 4, 6, 10), (2, 3, 6, 8)
_LOGITS = np.arange(-2.0, 9.01, 0.25)
_SHIFTS = tuple(-3 + 0.25 * i for i in range(49))
_FAST_WEIGHT = 0.25  # of a stream of words said fast, beside one of words with pauses
_OWN_RANGE = 1.5  # how far, in logits, a command's threshold may lie from the common one
_MOST_FOR_SHAPE = 100  # so many false accepts tell which commands cause them
_HITS_PER_FALSE_ACCEPT = (0.3, 1.0, 3.0)

PeakLogits = dict[str, npt.NDArray[np.float64]]


@dataclasses.dataclass(frozen=True)
class Tuning:
    """Settings of a decoder that were chosen for a rate of false accepts.

    Attributes:
        config: The settings.
        rate: The wanted false accepts per hour.
        hours: Of different continuous speech that they were chosen on.
        resolvable_rate: The lowest rate that so many hours can show, with 95 %.
        hit_rate: Macro-averaged over the commands, mean over the tuning streams; fast words a
            quarter each.
        false_accepts_per_hour: Of continuous speech, over all conditions, on the same.
        latency: The longest median that was wanted, in seconds from the end of a word.
    """

    config: DecoderConfig
    rate: float
    hours: float
    resolvable_rate: float
    hit_rate: float
    false_accepts_per_hour: float
    latency: float = LONGEST_LATENCY

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON knows them."""
        return dataclasses.asdict(self)


def tune(
    recognizer: Recognizer,
    streams: Sequence[StreamPosteriors],
    rate: float,
    base: DecoderConfig,
    on_progress: OnProgress = no_progress,
    *,
    latency: float = LONGEST_LATENCY,
) -> Tuning:
    """The settings that find most words at no more than ``rate`` false accepts per hour.

    Tried are spans of smoothing, minimum counts, and thresholds: one for all commands, or one for
    each, which gives up hits where they cost most false accepts. All thresholds are then raised
    together until neither continuous speech, all conditions taken together, nor noise alone gives
    more false accepts than wanted. They are counted, never extrapolated. The median latency has to
    be at most ``latency`` where that is possible. Every command counts the same, and of the
    streams those of words said fast count a quarter each. Unknown
    words do not count: nobody says single words of a corpus for an hour.

    Args:
        recognizer: The model.
        streams: The tuning streams, continuous speech among them.
        rate: Greater than zero.
        base: Gives what is not chosen: step and refractory time, and the highest release threshold.
        on_progress: Told how many settings of how many were tried.
        latency: The longest median, in seconds from the end of a word.

    Raises:
        ValueError: No continuous speech to choose on, or no such rate.
        EvidenceError: A rate lower than so much speech can show.
    """
    if not (rate > 0 and math.isfinite(rate)):
        raise ValueError(f"expected a rate of false accepts > 0 per hour, got {rate}")
    spoken, speech, noise = (
        [s for s in streams if s.kind in kinds]
        for kinds in (("commands", *FAST_KINDS), ("speech",), ("noise",))
    )
    if not spoken or not speech:
        raise ValueError("expected streams of commands and of continuous speech, got none")
    first = speech[0].condition
    seconds = sum(s.distinct_seconds for s in speech if s.condition == first)
    refuse_unresolvable(rate, seconds)
    weights = [_FAST_WEIGHT if s.kind in FAST_KINDS else 1.0 for s in spoken]
    limit = latency - _LATENCY_MARGIN
    best: tuple[bool, float, DecoderConfig] | None = None
    is_fine = base.step_seconds <= _FINE_STEP_SECONDS
    spans = _FINE_SMOOTHING_STEPS if is_fine else _SMOOTHING_STEPS
    grid = list(itertools.product(spans, _FINE_MIN_COUNTS if is_fine else _MIN_COUNTS))
    for number, (steps, count) in enumerate(grid, 1):
        smoothing = round(steps * base.step_seconds, 6)
        start = dataclasses.replace(
            base, smoothing_seconds=smoothing, min_consecutive_windows=count
        )
        peaks = _peak_logits(recognizer, spoken, start)
        for shape in _shapes(recognizer, peaks, [*speech, *noise], start):
            groups = [group for group in (speech, noise) if group]
            config = _at_rate(recognizer, groups, shape, rate, base.release_threshold)
            scores = [score(recognizer, s, config) for s in spoken]
            hit_rate = float(np.average([s.macro_hit_rate for s in scores], weights=weights))
            late = max(
                m.latency_median or 0.0
                for s, m in zip(spoken, scores, strict=True)
                if s.kind == "commands"
            )
            if best is None or (late <= limit, hit_rate) > best[:2]:
                best = late <= limit, hit_rate, config
        on_progress(number, len(grid))
    assert best is not None  # the grid is not empty
    _, hit_rate, config = best
    measured = score(recognizer, speech, config).false_accepts_per_hour
    lowest = resolvable_rate(seconds)
    return Tuning(config, rate, seconds / 3600, lowest, hit_rate, measured, latency)


def refuse_unresolvable(rate: float, seconds: float) -> None:
    """Raise EvidenceError if so much different speech cannot show the wanted rate."""
    lowest = resolvable_rate(seconds)
    if rate < lowest:
        raise EvidenceError(
            f"expected enough continuous speech to show {rate:g} false accepts per hour, "
            f"{RULE_OF_THREE / rate:.2g} hours, got {seconds / 3600:.2f} hours, which can show "
            f"{lowest:.1f} per hour at best; add speech in which no command is said, or accept a "
            "higher rate"
        )


def _count(
    recognizer: Recognizer, streams: Sequence[StreamPosteriors], config: DecoderConfig
) -> int:
    return sum(len(decode(recognizer, s, config)) for s in streams)


def _peak_logits(
    recognizer: Recognizer, spoken: Sequence[StreamPosteriors], config: DecoderConfig
) -> PeakLogits:
    """For each command the threshold, as a logit, that each of its words just reaches.

    What else a decoder looks at, above all other commands, is left out: enough to compare
    thresholds by, and quick.
    """
    peaks: dict[str, list[float]] = {label: [] for label in commands(recognizer.labels)}
    steps = round(config.smoothing_seconds / config.step_seconds)
    reach = recognizer.features.clip_seconds + config.smoothing_seconds
    for stream in spoken:
        before = np.tile(stream.silence_posterior, (steps - 1, 1))
        history = np.concatenate([before, stream.posteriors.astype(np.float64)])
        means = moving_mean(history, steps)  # (n_windows, n_classes)
        lasting = means.copy()
        for earlier in range(1, config.min_consecutive_windows):
            lasting[earlier:] = np.minimum(lasting[earlier:], means[: len(means) - earlier])
        for word in stream.words:
            first, last = (
                math.floor(t / config.step_seconds) for t in (word.start, word.end + reach)
            )
            column = lasting[first:last, recognizer.labels.index(word.label)]
            peaks[word.label].append(logit(float(column.max(initial=0.0))))
    return {label: np.array(logits) for label, logits in peaks.items()}


def _shapes(
    recognizer: Recognizer,
    peaks: PeakLogits,
    negative: Sequence[StreamPosteriors],
    start: DecoderConfig,
) -> Iterator[DecoderConfig]:
    """Thresholds by their distances only: all equal, and each where its hits are worth it."""
    yield start.with_thresholds(0.5)
    hits = np.array([[np.mean(p >= x) if len(p) else 0.0 for p in peaks.values()] for x in _LOGITS])
    hits *= np.mean([len(p) for p in peaks.values()])  # every command counts the same
    false_accepts = np.full(hits.shape, np.inf)
    common = len(_LOGITS) - 1
    for index in range(len(_LOGITS) - 1, -1, -1):
        config = start.with_thresholds(sigmoid(_LOGITS[index]))
        counts = Counter(d.label for s in negative for d in decode(recognizer, s, config))
        if counts.total() > _MOST_FOR_SHAPE:
            break
        false_accepts[index] = [counts[label] for label in peaks]
        common = index
    near = np.abs(_LOGITS - _LOGITS[common])[:, np.newaxis] <= _OWN_RANGE
    for weight in _HITS_PER_FALSE_ACCEPT:
        utility = np.where(near, hits - weight * false_accepts, -np.inf)
        indices = len(_LOGITS) - 1 - utility[::-1].argmax(axis=0)  # of equal ones the strictest
        each = {c: sigmoid(_LOGITS[i]) for c, i in zip(peaks, indices, strict=True)}
        yield start.with_thresholds(max(each.values()), each)


def _at_rate(
    recognizer: Recognizer,
    groups: Sequence[Sequence[StreamPosteriors]],
    shape: DecoderConfig,
    rate: float,
    release: float,
) -> DecoderConfig:
    """The shape with its thresholds raised together until each group keeps to the rate."""
    strictest = 0
    for group in groups:
        allowed = rate * sum(s.seconds for s in group) / 3600

        def holds(index: int, group: Any = group, allowed: float = allowed) -> bool:
            return _count(recognizer, group, _shifted(shape, _SHIFTS[index], release)) <= allowed

        first = bisect.bisect_left(range(len(_SHIFTS)), True, key=holds)
        strictest = max(strictest, min(first, len(_SHIFTS) - 1))
    return _shifted(shape, _SHIFTS[strictest], release)


def _shifted(shape: DecoderConfig, shift: float, release: float) -> DecoderConfig:
    """The shape with its thresholds shifted, and this release threshold where it is below them."""
    config = shift_thresholds(shape, shift)
    lowest = min([config.threshold, *config.thresholds.values()])
    return dataclasses.replace(config, release_threshold=min(release, lowest))
