"""The score of a live decoder on streams: hits, false alarms an hour, latency.

The network hears a stream once; what follows, for every threshold, is only the rule of decision.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from speech.audio import read_blocks
from speech.data.annotations import Word
from speech.detection import DecoderConfig, Detection, PosteriorDecoder
from speech.errors import AudioError, CorpusError
from speech.evaluation.stream_metrics import DetPoint, StreamMetrics, fewest_misses, stream_metrics
from speech.evaluation.synthetic_streams import Stream
from speech.labels import commands
from speech.recognizer import Recognizer
from speech.stream import SlidingWindowClassifier

Progress = Callable[[int, int], object]

RATES = (5.0, 1.0)  # false alarms an hour at which the curve is read
_LOGITS = tuple(-2 + 0.25 * i for i in range(45))
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
        windows = SlidingWindowClassifier(recognizer, step_seconds, _BATCH)
        rows = np.concatenate([windows.push(stream.waveform), windows.flush()])
        heard.append(
            Heard(
                stream.kind,
                stream.condition,
                stream.words,
                windows.seconds,
                stream.distinct_seconds,
                rows.astype(np.float32),
                windows.silence_posterior,
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
    windows = SlidingWindowClassifier(recognizer, step_seconds, _BATCH)
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
    return Heard("recording", path.name, words, seconds, seconds, joined, windows.silence_posterior)


def decide(recognizer: Recognizer, heard: Heard, config: DecoderConfig) -> list[Detection]:
    """What a decoder of this config detects in the stream."""
    decider = PosteriorDecoder(config, recognizer.labels, recognizer.features, heard.before)
    return decider.decode(heard.rows.astype(np.float64))


def score(recognizer: Recognizer, heard: Heard, config: DecoderConfig) -> StreamMetrics:
    """How right that is."""
    found = [(d.time, d.label) for d in decide(recognizer, heard, config)]
    reach = recognizer.features.clip_seconds + config.smoothing_seconds
    return stream_metrics(heard.words, found, heard.seconds, commands_of(recognizer), reach)


def commands_of(recognizer: Recognizer) -> list[str]:
    """The labels that can be detected."""
    return list(commands(recognizer.labels))


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
    for odds in _LOGITS:
        tried = moved(config, odds - logit(config.threshold))
        hit = score(recognizer, words, tried)
        false = hit if alarms is words else score(recognizer, alarms, tried)
        points.append(DetPoint(tried.threshold, 1 - hit.hit_rate, false.false_alarms_per_hour))
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


def moved(config: DecoderConfig, shift: float) -> DecoderConfig:
    """The config with all thresholds moved by the same odds, on a logarithmic scale.

    Thresholds of interest crowd close to one, where their odds still differ.
    """
    common = sigmoid(logit(config.threshold) + shift)
    each = {label: sigmoid(logit(value) + shift) for label, value in config.thresholds.items()}
    return config.with_thresholds(common, each)


def logit(threshold: float) -> float:
    """The logarithm of the odds; 1.0 counts as one in a million less."""
    inside = min(max(threshold, 1e-6), 1 - 1e-6)
    return math.log(inside / (1 - inside))


def sigmoid(odds: float) -> float:
    """The inverse of ``logit``, to five places and never zero."""
    return max(round(1 / (1 + math.exp(-odds)), 5), 1e-5)
