"""Settings of a live decoder for a wanted rate of false alarms."""

import bisect
import dataclasses
import functools
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from speech.detection import DecoderConfig, moving_mean
from speech.evaluation.scoring import (
    Heard,
    Progress,
    commands_of,
    decide,
    logit,
    moved,
    score,
    sigmoid,
)
from speech.recognizer import Recognizer

RULE_OF_THREE = 3.0  # no event in a time T says with 95 % that there are at most 3 in it
LONGEST_LATENCY = 0.3
_LATENCY_MARGIN = 0.02  # it is chosen on other words than it is measured on
_SMOOTHING_STEPS = (2, 3, 4, 5)
_MIN_COUNTS = (2, 3, 4)
_LOGITS = np.arange(-2.0, 9.01, 0.25)
_SHIFTS = tuple(-3 + 0.25 * i for i in range(49))
_OWN_RANGE = 1.5  # how far, in logits, a command's threshold may lie from the common one
_FALSE_FOR_SHAPE = 100  # as many tell commands apart that cost many false alarms
_HITS_PER_ALARM = (0.3, 1.0, 3.0)
_TAIL = 20

Strengths = dict[str, npt.NDArray[np.float64]]


@dataclasses.dataclass(frozen=True)
class Choice:
    """Settings of a decoder that were chosen for a rate of false alarms.

    Attributes:
        config: The settings.
        rate: The wanted false alarms per hour.
        hours: Of different continuous speech that they were chosen on.
        smallest_rate: What so many hours could show at best, with 95 %; a rate below it rests on
            an extrapolation.
        hit_rate: Mean over the conditions, on the streams that chose.
        false_alarms_per_hour: Of continuous speech, over all conditions, on the same.
    """

    config: DecoderConfig
    rate: float
    hours: float
    smallest_rate: float
    hit_rate: float
    false_alarms_per_hour: float

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON knows them."""
        return dataclasses.asdict(self)


def choose(
    recognizer: Recognizer,
    heard: Sequence[Heard],
    rate: float,
    base: DecoderConfig,
    progress: Progress = lambda _done, _total: None,
) -> Choice:
    """The settings that hit most words at about ``rate`` false alarms per hour.

    Tried are spans of smoothing, minimum counts, and thresholds: one for all commands, or one for
    each, which gives up hits where they cost most false alarms. All thresholds are then raised
    together until neither continuous speech, all conditions taken together, nor noise alone gives
    more false alarms than wanted, counted and expected. The median latency has to be at most
    ``LONGEST_LATENCY`` where that is possible. Unknown words do not count: nobody says single
    words of a corpus for an hour.

    Args:
        recognizer: The model.
        heard: The choosing streams, continuous speech among them.
        rate: Greater than zero.
        base: Gives what is not chosen: step and refractory time, and the highest release threshold.
        progress: Told how many settings of how many were tried.

    Raises:
        ValueError: No continuous speech to choose on, or no such rate.
    """
    if not (rate > 0 and math.isfinite(rate)):
        raise ValueError(f"expected a rate of false alarms > 0 per hour, got {rate}")
    spoken, *quiet = (
        [h for h in heard if h.kind == kind] for kind in ("commands", "speech", "noise")
    )
    hours = min((h.distinct_seconds for h in quiet[0]), default=0.0) / 3600
    if not hours or not spoken:
        raise ValueError("expected streams of commands and of continuous speech, got none")
    limit = LONGEST_LATENCY - _LATENCY_MARGIN
    best: tuple[bool, float, DecoderConfig] | None = None
    grid = list(itertools.product(_SMOOTHING_STEPS, _MIN_COUNTS))
    for number, (steps, count) in enumerate(grid, 1):
        smoothing = round(steps * base.step_seconds, 6)
        tried = dataclasses.replace(
            base, smoothing_seconds=smoothing, min_consecutive_windows=count
        )
        strengths = _strengths(recognizer, spoken, tried)
        for shape in _shapes(recognizer, strengths, [*quiet[0], *quiet[1]], tried):
            config = _at_rate(recognizer, strengths, [q for q in quiet if q], shape, rate)
            scores = [score(recognizer, h, config) for h in spoken]
            hit_rate = float(np.mean([s.hit_rate for s in scores]))
            latency = max(s.latency_median or 0.0 for s in scores)
            if best is None or (latency <= limit, hit_rate) > best[:2]:
                best = latency <= limit, hit_rate, config
        progress(number, len(grid))
    assert best is not None  # the grid is not empty
    _, hit_rate, config = best
    alarms = _alarms(recognizer, quiet[0], config) * 3600 / sum(h.seconds for h in quiet[0])
    return Choice(config, rate, hours, RULE_OF_THREE / hours, hit_rate, alarms)


def _alarms(recognizer: Recognizer, streams: Sequence[Heard], config: DecoderConfig) -> int:
    return sum(len(decide(recognizer, h, config)) for h in streams)


def _strengths(recognizer: Recognizer, spoken: Sequence[Heard], config: DecoderConfig) -> Strengths:
    """For each command the threshold, as a logit, that each of its words just reaches.

    What else a decoder looks at, above all other commands, is left out: enough to compare
    thresholds by, and quick.
    """
    found: dict[str, list[float]] = {label: [] for label in commands_of(recognizer)}
    steps = round(config.smoothing_seconds / config.step_seconds)
    reach = recognizer.features.clip_seconds + config.smoothing_seconds
    for h in spoken:
        history = np.concatenate([np.tile(h.before, (steps - 1, 1)), h.rows.astype(np.float64)])
        means = moving_mean(history, steps)
        lasting = means.copy()
        for earlier in range(1, config.min_consecutive_windows):
            lasting[earlier:] = np.minimum(lasting[earlier:], means[: len(means) - earlier])
        for word in h.words:
            first, last = (
                math.floor(t / config.step_seconds) for t in (word.start, word.end + reach)
            )
            column = lasting[first:last, recognizer.labels.index(word.label)]
            found[word.label].append(logit(float(column.max(initial=0.0))))
    return {label: np.array(each) for label, each in found.items()}


def _shapes(
    recognizer: Recognizer, strengths: Strengths, quiet: Sequence[Heard], tried: DecoderConfig
) -> Iterator[DecoderConfig]:
    """Thresholds by their distances only: all equal, and each where its hits are worth it."""
    yield tried.with_thresholds(0.5)
    hits = np.array([[(each >= x).sum() for each in strengths.values()] for x in _LOGITS])
    alarms = np.full(hits.shape, np.inf)
    common = len(_LOGITS) - 1
    for place in range(len(_LOGITS) - 1, -1, -1):
        config = tried.with_thresholds(sigmoid(_LOGITS[place]))
        false = Counter(d.label for h in quiet for d in decide(recognizer, h, config))
        if false.total() > _FALSE_FOR_SHAPE:
            break
        alarms[place] = [false[label] for label in strengths]
        common = place
    near = np.abs(_LOGITS - _LOGITS[common])[:, np.newaxis] <= _OWN_RANGE
    for weight in _HITS_PER_ALARM:
        worth = np.where(near, hits - weight * alarms, -np.inf)
        places = len(_LOGITS) - 1 - worth[::-1].argmax(axis=0)  # of equal ones the strictest
        each = {c: sigmoid(_LOGITS[p]) for c, p in zip(strengths, places, strict=True)}
        yield tried.with_thresholds(max(each.values()), each)


def _at_rate(
    recognizer: Recognizer,
    strengths: Strengths,
    quiet: Sequence[Sequence[Heard]],
    shape: DecoderConfig,
    rate: float,
) -> DecoderConfig:
    """The shape with its thresholds raised together until each group keeps to the rate."""
    said = sum(map(len, strengths.values()))

    @functools.cache
    def effort(place: int) -> float:
        config = moved(shape, _SHIFTS[place])
        limits = {c: logit(config.thresholds.get(c, config.threshold)) for c in strengths}
        missed = sum(int((each < limits[c]).sum()) for c, each in strengths.items())
        return NormalDist().inv_cdf((missed + 0.5) / (said + 1))

    places = []
    for group in quiet:
        alarms = functools.cache(
            lambda place, group=group: _alarms(recognizer, group, moved(shape, _SHIFTS[place]))
        )
        hours = sum(h.seconds for h in group) / 3600
        places.append(_place_for_rate(alarms, effort, rate * hours))
    return moved(shape, _SHIFTS[max(places)])


def _place_for_rate(
    alarms: Callable[[int], int], effort: Callable[[int], float], wanted: float
) -> int:
    """The first place among ``_SHIFTS`` with no more alarms than wanted, counted and expected.

    Expected is what an exponential tail says of the few highest (peaks over a threshold: J.
    Pickands, "Statistical inference using extreme order statistics", Annals of Statistics 3, 1975),
    since less than one alarm cannot be counted. The tail is taken over the normal deviate of the
    share of words missed, in which such curves are nearly straight (A. Martin et al., "The DET
    curve in assessment of detection task performance", Eurospeech 1997), and not over the
    thresholds: close to one, words and alarms alike are crowded together.
    """
    places = range(len(_SHIFTS))
    fewer = functools.partial(bisect.bisect_left, places, key=lambda place: -alarms(place))
    lowest = min(fewer(-max(_TAIL, 1.5 * wanted)), places[-1])
    counted = min(fewer(-wanted), places[-1])
    most = alarms(lowest)
    if most <= wanted:
        return counted
    excess = 0.0
    for place in places[lowest:-1]:
        if not alarms(place):
            break
        width = effort(place + 1) - effort(place)
        excess += width * (alarms(place) + alarms(place + 1)) / 2 / most
    needed = effort(lowest) + excess * math.log(most / wanted)
    return next((place for place in places[counted:] if effort(place) >= needed), places[-1])
