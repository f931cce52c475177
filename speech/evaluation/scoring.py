"""Scoring a live decoder on streams: words found, false accepts per hour, latency.

The network is run over a stream once; every threshold after that is only the decoding rule.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from speech.audio import read_blocks
from speech.data.annotations import Word
from speech.detection import DecoderConfig, Detection, PosteriorDecoder, moving_mean
from speech.errors import AudioError, CorpusError
from speech.evaluation.stream_metrics import (
    DetPoint,
    StreamMetrics,
    fewest_misses,
    poisson_interval,
    stream_metrics,
)
from speech.evaluation.synthetic_streams import Stream
from speech.labels import commands
from speech.progress import OnProgress, no_progress
from speech.recognizer import Recognizer
from speech.stream import classifier_for

RATES = (10.0, 1.0, 0.1)  # false accepts per hour at which the DET curve is read
RULE_OF_THREE = 3.0  # no event in a time T shows with 95 % that there are at most 3 in it
FAST_KINDS = ("same word", "different words")
_LOGITS = tuple(-2 + 0.25 * i for i in range(45))
_BATCH = 256


class StreamPosteriors(NamedTuple):
    """What the network says of every window of a stream.

    Attributes:
        kind: As ``Stream.kind``, or ``recording``.
        condition: As ``Stream.condition``.
        words: What is said in it.
        seconds: Its length.
        distinct_seconds: As ``Stream.distinct_seconds``.
        posteriors: float32 (n_windows, n_classes).
        silence_posterior: float64 (n_classes,), of digital silence.
        source: As ``Stream.source``.
    """

    kind: str
    condition: str
    words: tuple[Word, ...]
    seconds: float
    distinct_seconds: float
    posteriors: npt.NDArray[np.float32]
    silence_posterior: npt.NDArray[np.float64]
    source: str = ""


def resolvable_rate(seconds: float) -> float:
    """The lowest rate of false accepts per hour that so much audio can show, with 95 %."""
    return RULE_OF_THREE * 3600 / seconds if seconds else math.inf


def compute_posteriors(
    recognizer: Recognizer,
    streams: Iterable[Stream],
    step_seconds: float,
    on_progress: OnProgress = no_progress,
) -> list[StreamPosteriors]:
    """Run the network over each stream once, a window at every step."""
    computed = []
    for stream in streams:
        windows = classifier_for(recognizer, step_seconds, _BATCH)
        rows = np.concatenate([windows.push(stream.waveform), windows.flush()])
        computed.append(
            StreamPosteriors(
                stream.kind,
                stream.condition,
                stream.words,
                windows.seconds,
                stream.distinct_seconds,
                rows.astype(np.float32),
                windows.silence_posterior,
                stream.source,
            )
        )
        on_progress(len(computed), 0)
    return computed


def posteriors_of_file(
    recognizer: Recognizer, path: Path, words: tuple[Word, ...], step_seconds: float
) -> StreamPosteriors:
    """The same for a recording of any length, in which these words are said.

    Raises:
        AudioError: It cannot be read, or is shorter than a window.
        CorpusError: A word lies behind its end.
    """
    windows = classifier_for(recognizer, step_seconds, _BATCH)
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
    return StreamPosteriors(
        "recording", path.name, words, seconds, seconds, joined, windows.silence_posterior
    )


def decode(
    recognizer: Recognizer, stream: StreamPosteriors, config: DecoderConfig
) -> list[Detection]:
    """What a decoder of this config detects in the stream.

    Long stretches in which no command reaches its threshold are passed over, which changes nothing
    but the time that it takes: at their end the decoder has forgotten what was before.
    """
    decoder = PosteriorDecoder(
        config, recognizer.labels, recognizer.features, stream.silence_posterior
    )
    rows, numbers = _without_idle(recognizer, stream, config)
    detections = []
    for d in decoder.decode(rows):
        window = round(d.time / config.step_seconds) - 1
        passed_over = float(numbers[window] - window) * config.step_seconds
        start = round(d.start + passed_over, 6)
        detections.append(dataclasses.replace(d, time=round(d.time + passed_over, 6), start=start))
    return detections


def _without_idle(
    recognizer: Recognizer, stream: StreamPosteriors, config: DecoderConfig
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """The posteriors without the middle of idle stretches, and the number of each row's window.

    Zeros stand where something was left out: a mean over them and some real rows lies below that
    of the real rows alone, which reached no threshold.
    """
    posteriors = stream.posteriors.astype(np.float64)
    n_recent = round(config.smoothing_seconds / config.step_seconds)
    lead = np.tile(stream.silence_posterior, (n_recent - 1, 1))
    smoothed = moving_mean(np.concatenate([lead, posteriors]), n_recent)  # (n_windows, n_classes)
    active = np.zeros(len(posteriors), bool)
    for label in commands(recognizer.labels):
        threshold = config.thresholds.get(label, config.threshold)
        active |= smoothed[:, recognizer.labels.index(label)] >= threshold
    memory = max(recognizer.features.clip_seconds, config.refractory_seconds)
    after = math.ceil(memory / config.step_seconds) + 1
    at = np.flatnonzero(active)
    edges = np.zeros(len(posteriors) + 1, np.int64)
    np.add.at(edges, np.maximum(at - 2 * n_recent, 0), 1)
    np.add.at(edges, np.minimum(at + after + 1, len(posteriors)), -1)
    kept = np.cumsum(edges[:-1]) > 0
    kept[:after] = True  # so that no detection begins before the stream
    numbers = np.flatnonzero(kept)
    rows = posteriors[numbers]
    seams = np.flatnonzero(np.diff(numbers, prepend=-1) > 1)  # rows before which some are left out
    for seam in seams:
        rows[seam : seam + n_recent] = 0.0
    return rows, numbers


def score(
    recognizer: Recognizer,
    streams: StreamPosteriors | Sequence[StreamPosteriors],
    config: DecoderConfig,
) -> StreamMetrics:
    """How right that is; several streams are scored as one that plays them one after the other."""
    reach = recognizer.features.clip_seconds + config.smoothing_seconds
    words: list[Word] = []
    detections: list[tuple[float, str]] = []
    offset = 0.0
    for stream in [streams] if isinstance(streams, StreamPosteriors) else streams:
        words += [Word(w.start + offset, w.end + offset, w.label) for w in stream.words]
        detections += [(d.time + offset, d.label) for d in decode(recognizer, stream, config)]
        offset += stream.seconds
    return stream_metrics(words, detections, offset, commands(recognizer.labels), reach)


def det_curve(
    recognizer: Recognizer,
    words: Sequence[StreamPosteriors],
    negative: Sequence[StreamPosteriors],
    config: DecoderConfig,
) -> list[DetPoint]:
    """Misses against false accepts, while all thresholds move together.

    Args:
        recognizer: The model.
        words: The streams whose words are to be found.
        negative: Those whose false accepts count; may be the same.
        config: Where to start from.

    Returns:
        From the lowest thresholds to the highest; each point is named by the common one.
    """
    points = []
    for odds in _LOGITS:
        shifted = shift_thresholds(config, odds - logit(config.threshold))
        found = score(recognizer, words, shifted)
        false = found if negative is words else score(recognizer, negative, shifted)
        points.append(
            DetPoint(shifted.threshold, 1 - found.macro_hit_rate, false.false_accepts_per_hour)
        )
    return points


def measure_streams(
    recognizer: Recognizer, streams: Sequence[StreamPosteriors], config: DecoderConfig
) -> dict[str, Any]:
    """Everything there is to say about a decoder on a set of streams, JSON-able.

    Returns:
        By condition: the metrics by kind of stream; those of continuous speech by source too; the
        points of the DET curve (threshold, share missed as a mean over the commands, false accepts
        per hour), of which kind of stream they were counted in, and what it shows at ``RATES``.
    """
    result: dict[str, Any] = {}
    plain = [s for s in streams if s.kind not in FAST_KINDS]
    for condition in dict.fromkeys(s.condition for s in plain):
        kinds: dict[str, list[StreamPosteriors]] = {}
        for stream in plain:
            if stream.condition == condition:
                kinds.setdefault(stream.kind, []).append(stream)
        row: dict[str, Any] = {
            kind: _metrics(recognizer, same, config) for kind, same in kinds.items()
        }
        by_source = {
            s.source: _metrics(recognizer, [s], config) for s in kinds.get("speech", ()) if s.source
        }
        if by_source:
            row["speech_by_source"] = by_source
        result[condition] = row
        words = kinds.get("commands") or kinds.get("recording")
        if words and any(w.label in commands(recognizer.labels) for s in words for w in s.words):
            negative = kinds.get("speech") or words
            points = det_curve(recognizer, words, negative, config)
            row["det"] = [list(point) for point in points]
            row["det_false_accepts_of"] = negative[0].kind
            row["at_rate"] = _read_curve(points, sum(s.distinct_seconds for s in negative))
    return result


def measure_fast_words(
    recognizer: Recognizer, streams: Sequence[StreamPosteriors], config: DecoderConfig
) -> dict[str, Any]:
    """The metrics of words said one right after the other: by kind, and then by pause."""
    return {
        kind: {
            s.condition: score(recognizer, s, config).to_dict() for s in streams if s.kind == kind
        }
        for kind in FAST_KINDS
        if any(s.kind == kind for s in streams)
    }


def _metrics(
    recognizer: Recognizer, streams: Sequence[StreamPosteriors], config: DecoderConfig
) -> dict[str, Any]:
    distinct = sum(s.distinct_seconds for s in streams)
    return score(recognizer, streams, config).to_dict() | {"distinct_seconds": distinct}


def _read_curve(points: Sequence[DetPoint], seconds: float) -> dict[str, Any]:
    """At each of ``RATES`` the best point, or how many hours it would take to show it."""

    def read(rate: float) -> dict[str, Any]:
        hours_needed = RULE_OF_THREE / rate
        best = fewest_misses(points, rate)
        if best is None or rate < resolvable_rate(seconds):
            return {"shown": False, "hours": seconds / 3600, "hours_needed": hours_needed}
        count = round(best.false_accepts_per_hour * seconds / 3600)
        low, high = (end * 3600 / seconds for end in poisson_interval(count))
        interval = {"false_accepts_per_hour_low": low, "false_accepts_per_hour_high": high}
        return {"shown": True, "hours": seconds / 3600, **best._asdict(), **interval}

    return {f"{rate:g}": read(rate) for rate in RATES}


def shift_thresholds(config: DecoderConfig, shift: float) -> DecoderConfig:
    """The config with the odds of all thresholds multiplied by the same factor, ``exp(shift)``.

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
