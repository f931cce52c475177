"""The score of a live decoder: hits, false alarms an hour, latency; and thresholds for a rate.

The network hears a stream once; what follows, for every threshold, is only the rule of decision.
"""

import bisect
import dataclasses
import functools
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from speech.audio import read_blocks
from speech.errors import AudioError, CorpusError
from speech.recognizer import Recognizer
from speech.stream import NOT_COMMANDS, Decider, DecoderConfig, Detection, WindowStream
from speech.stream_metrics import DetPoint, StreamMetrics, Word, fewest_misses, stream_metrics
from speech.streams import Stream

Progress = Callable[[int, int], object]

RATES = (5.0, 1.0)  # false alarms an hour at which the curve is read
RULE_OF_THREE = 3.0  # no event in a time T says with 95 % that there are at most 3 in it
LONGEST_LATENCY = 0.3
_LATENCY_MARGIN = 0.02  # it is chosen on other words than it is measured on
_SMOOTHING_STEPS = (2, 3, 4, 5)
_MIN_COUNTS = (2, 3, 4)
# odds on a logarithmic scale, since thresholds of interest lie close to one
_LOGITS = np.arange(-2.0, 9.01, 0.25)
_SHIFTS = tuple(float(x) for x in np.arange(-3.0, 9.01, 0.25))
_OWN_RANGE = 1.5  # how far a command's threshold may lie from the common one
_FALSE_FOR_SHAPE = 100  # as many tell commands apart that cost many false alarms
_HITS_PER_ALARM = (0.3, 1.0, 3.0)
_TAIL = 20
_BATCH = 256


class Heard(NamedTuple):
    """A stream as the network heard it.

    Attributes:
        kind: As ``Stream.kind``, or ``recording``.
        condition: As ``Stream.condition``.
        words: What is said in it.
        seconds: Its length.
        distinct_seconds: As ``Stream.distinct_seconds``.
        rows: float32 (n_windows, n_classes).
        before: float64 (n_classes,), the answer to silence.
    """

    kind: str
    condition: str
    words: tuple[Word, ...]
    seconds: float
    distinct_seconds: float
    rows: npt.NDArray[np.float32]
    before: npt.NDArray[np.float64]


def hear(
    recognizer: Recognizer,
    streams: Iterable[Stream],
    step_seconds: float,
    progress: Progress = lambda _done, _total: None,
) -> list[Heard]:
    """Let the network hear each stream once, a window at every step."""
    heard = []
    for stream in streams:
        windows = WindowStream(recognizer, step_seconds, _BATCH)
        rows = np.concatenate([windows.push(stream.waveform), windows.flush()])
        heard.append(
            Heard(
                stream.kind,
                stream.condition,
                stream.words,
                windows.seconds,
                stream.distinct_seconds,
                rows.astype(np.float32),
                windows.answer_to_silence,
            )
        )
        progress(len(heard), 0)
    return heard


def hear_recording(
    recognizer: Recognizer, path: Path, words: tuple[Word, ...], step_seconds: float
) -> Heard:
    """The same for a recording of any length, in which these words are said.

    Raises:
        AudioError: It cannot be read, or is shorter than a window.
        CorpusError: A word lies behind its end.
    """
    windows = WindowStream(recognizer, step_seconds, _BATCH)
    rows = [windows.push(block, rate) for block, rate in read_blocks(path)]
    rows.append(windows.flush())
    seconds, clip = windows.seconds, recognizer.features.clip_seconds
    if seconds < clip:
        raise AudioError(
            f"{path}: expected at least a window of {clip:g} s, got {seconds:.4g} s; "
            "use: speech recognize"
        )
    late = [word for word in words if word.end > seconds + clip]
    if late:
        raise CorpusError(
            f"{path}: expected a recording as long as its labels, {late[-1].end:.2f} s, got "
            f"{seconds:.2f} s; check that they belong together"
        )
    joined = np.concatenate(rows).astype(np.float32)
    return Heard("recording", path.name, words, seconds, seconds, joined, windows.answer_to_silence)


def decide(recognizer: Recognizer, heard: Heard, config: DecoderConfig) -> list[Detection]:
    """What a decoder of this config detects in the stream."""
    decider = Decider(config, recognizer.labels, recognizer.features, heard.before)
    return decider.decide(heard.rows.astype(np.float64))


def score(recognizer: Recognizer, heard: Heard, config: DecoderConfig) -> StreamMetrics:
    """How right that is."""
    found = [(d.time, d.label) for d in decide(recognizer, heard, config)]
    reach = recognizer.features.clip_seconds + config.smoothing_seconds
    return stream_metrics(heard.words, found, heard.seconds, commands_of(recognizer), reach)


def commands_of(recognizer: Recognizer) -> list[str]:
    """The labels that can be detected."""
    return [label for label in recognizer.labels if label not in NOT_COMMANDS]


def det_curve(
    recognizer: Recognizer, words: Heard, alarms: Heard, config: DecoderConfig
) -> list[DetPoint]:
    """Misses against false alarms, while all thresholds move together.

    Args:
        recognizer: The model.
        words: The stream whose words are to be hit.
        alarms: The one whose false alarms count; may be the same.
        config: Where to start from.

    Returns:
        From the lowest thresholds to the highest; each point is named by the common one.
    """
    points = []
    for logit in _LOGITS:
        moved = _moved(config, float(logit) - _logit(config.threshold))
        hit = score(recognizer, words, moved)
        false = hit if alarms is words else score(recognizer, alarms, moved)
        points.append(DetPoint(moved.threshold, 1 - hit.hit_rate, false.false_alarms_per_hour))
    return points


def measure(
    recognizer: Recognizer, heard: Sequence[Heard], config: DecoderConfig
) -> dict[str, Any]:
    """Everything there is to say about a decoder on a set of streams, JSON-able.

    Returns:
        By condition: the metrics by kind of stream, the points of the DET curve (threshold, share
        missed, false alarms an hour), of which stream's alarms, and what it says at ``RATES``.
    """
    result: dict[str, Any] = {}
    for condition in dict.fromkeys(h.condition for h in heard):
        of = {h.kind: h for h in heard if h.condition == condition}
        result[condition] = {
            kind: score(recognizer, h, config).to_dict() | {"distinct_seconds": h.distinct_seconds}
            for kind, h in of.items()
        }
        words = of.get("commands") or of.get("recording")
        alarms = of.get("speech") or words
        if words and alarms and any(w.label in commands_of(recognizer) for w in words.words):
            points = det_curve(recognizer, words, alarms, config)
            read = {f"{rate:g}": fewest_misses(points, rate) for rate in RATES}
            result[condition] |= {
                "det": [list(point) for point in points],
                "det_alarms": alarms.kind,
                "at_rate": {rate: p and p._asdict() for rate, p in read.items()},
            }
    return result


# --- choosing -----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Choice:
    """Settings of a decoder that were chosen for a rate of false alarms.

    Attributes:
        config: The settings.
        rate: The wanted false alarms per hour.
        hours: Of different continuous speech that they were chosen on.
        smallest_rate: What so many hours could show at best, with 95 %; the chosen rate is an
            extrapolation where it is smaller.
        hit_rate: Mean over the conditions, on the streams that chose.
        false_alarms_per_hour: The highest among the streams that chose.
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
    each, which gives up hits where they cost most false alarms. All of them are then raised
    together until no stream of continuous speech or of noise alone is expected to give more false
    alarms than wanted. The streams are too short to count rare events, so that expectation comes
    from their tail: how fast the number of alarms falls while more words are missed. The median
    latency has to be at most ``LONGEST_LATENCY`` where that is possible. Unknown words do not
    count: nobody says single words of a corpus for an hour.

    Args:
        recognizer: The model.
        heard: The choosing streams, continuous speech among them.
        rate: Greater than zero.
        base: Gives what is not chosen: step and refractory time, and the highest release.
        progress: Told how many settings of how many were tried.

    Raises:
        ValueError: No continuous speech to choose on, or no such rate.
    """
    if not (rate > 0 and math.isfinite(rate)):
        raise ValueError(f"expected a rate of false alarms > 0 per hour, got {rate}")
    quiet = [h for h in heard if h.kind in ("speech", "noise")]
    spoken = [h for h in heard if h.kind == "commands"]
    hours = min((h.distinct_seconds for h in quiet if h.kind == "speech"), default=0.0) / 3600
    if not hours or not spoken:
        raise ValueError("expected streams of commands and of continuous speech, got none")
    limit = LONGEST_LATENCY - _LATENCY_MARGIN
    best: tuple[bool, float, DecoderConfig] | None = None
    grid = list(itertools.product(_SMOOTHING_STEPS, _MIN_COUNTS))
    for number, (steps, count) in enumerate(grid, 1):
        smoothing = round(steps * base.step_seconds, 6)
        tried = dataclasses.replace(base, smoothing_seconds=smoothing, min_count=count)
        for shape in _shapes(recognizer, spoken, quiet, tried):
            config = _at_rate(recognizer, spoken, quiet, shape, rate)
            scores = [score(recognizer, h, config) for h in spoken]
            hit_rate = float(np.mean([s.hit_rate for s in scores]))
            latency = max(s.latency_median or 0.0 for s in scores)
            if best is None or (latency <= limit, hit_rate) > best[:2]:
                best = latency <= limit, hit_rate, config
        progress(number, len(grid))
    assert best is not None  # the grid is not empty
    _, hit_rate, config = best
    alarms = max(len(decide(recognizer, h, config)) * 3600 / h.seconds for h in quiet)
    return Choice(config, rate, hours, RULE_OF_THREE / hours, hit_rate, alarms)


def _shapes(
    recognizer: Recognizer, spoken: Sequence[Heard], quiet: Sequence[Heard], tried: DecoderConfig
) -> Iterator[DecoderConfig]:
    """Thresholds by their distances only: all equal, and each where its hits are worth it."""
    yield _with_thresholds(tried, 0.5, {})
    commands = commands_of(recognizer)
    hits = np.full((len(_LOGITS), len(commands)), -np.inf)
    alarms = np.full_like(hits, np.inf)
    common = len(_LOGITS) - 1
    for place in range(len(_LOGITS) - 1, -1, -1):
        config = _with_thresholds(tried, _sigmoid(_LOGITS[place]), {})
        false = Counter(d.label for h in quiet for d in decide(recognizer, h, config))
        if false.total() > _FALSE_FOR_SHAPE:
            break
        said = [score(recognizer, h, config).by_label for h in spoken]
        hits[place] = [sum(one.get(label, (0, 0))[1] for one in said) for label in commands]
        alarms[place] = [false[label] for label in commands]
        common = place
    near = np.abs(_LOGITS - _LOGITS[common])[:, np.newaxis] <= _OWN_RANGE
    for weight in _HITS_PER_ALARM:
        worth = np.where(near & np.isfinite(hits), hits - weight * alarms, -np.inf)
        places = len(_LOGITS) - 1 - worth[::-1].argmax(axis=0)  # of equal ones the strictest
        each = {c: _sigmoid(_LOGITS[p]) for c, p in zip(commands, places, strict=True)}
        yield _with_thresholds(tried, max(each.values()), each)


def _at_rate(
    recognizer: Recognizer,
    spoken: Sequence[Heard],
    quiet: Sequence[Heard],
    shape: DecoderConfig,
    rate: float,
) -> DecoderConfig:
    """The shape with its thresholds raised together until every quiet stream keeps to the rate."""

    @functools.cache
    def effort(place: int) -> float:
        moved = _moved(shape, _SHIFTS[place])
        scores = [score(recognizer, h, moved) for h in spoken]
        missed, said = sum(s.misses for s in scores), sum(s.words for s in scores)
        return NormalDist().inv_cdf((missed + 0.5) / (said + 1))

    def alarms(heard: Heard) -> Callable[[int], int]:
        count = lambda place: len(decide(recognizer, heard, _moved(shape, _SHIFTS[place])))  # noqa: E731
        return functools.cache(count)

    places = [_place_for_rate(alarms(h), effort, rate * h.seconds / 3600) for h in quiet]
    return _moved(shape, _SHIFTS[max(places)])


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
    return next((p for p in places[counted:] if effort(p) >= needed), places[-1])


def _with_thresholds(config: DecoderConfig, common: float, each: dict[str, float]) -> DecoderConfig:
    release = min([config.release, common, *each.values()])
    return dataclasses.replace(config, threshold=common, thresholds=each, release=release)


def _moved(config: DecoderConfig, shift: float) -> DecoderConfig:
    def move(threshold: float) -> float:
        return min(max(_sigmoid(_logit(threshold) + shift), 1e-6), 1.0)

    each = {label: move(value) for label, value in config.thresholds.items()}
    common = move(config.threshold)
    return _with_thresholds(config, common, each)


def _logit(threshold: float) -> float:
    inside = min(max(threshold, 1e-6), 1 - 1e-6)
    return math.log(inside / (1 - inside))


def _sigmoid(logit: float) -> float:
    return float(round(1 / (1 + math.exp(-logit)), 5))
