"""Streams to distill on: words among words, speech and pauses, and what a teacher says of them.

A causal network learns from audio that goes on. The streams are built of training clips, cut to
their word, at other speeds and levels, with pauses of nothing to a second and a half, and of
stretches of continuous speech. The teacher is given them clean, once; the student is given them in
rooms, noise and microphones, and so can become the more robust of the two.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import soxr

from speech.architecture import Causality
from speech.audio import Waveform, to_float
from speech.config import Config
from speech.formats.metadata import WINDOW_HOPS
from speech.labels import SILENCE, UNKNOWN, commands
from speech.recognizer import Recognizer
from speech.training.batches import spoken_spans
from speech.training.sources import TrainingData

Posteriors = npt.NDArray[np.float16]

_SHARES = {"command": 0.45, "word": 0.28, "speech": 0.17, "pause": 0.10}
_SPEED, _HIGH_VOICE, _HIGH_SHARE = 0.15, 1.4, 0.25  # as the augmentation of clips
_CLOSE_SHARE, _CLOSE_SECONDS, _GAP_SECONDS = 0.3, (0.0, 0.2), (0.2, 1.5)
_SPEECH_SECONDS = (1.5, 5.0)
_LEVEL_DB, _WORD_LEVEL_DB = (-32.0, -18.0), 4.0  # RMS of a stream's words; each around that
_FLOOR_RMS = 1e-4  # so that no pause is digital silence
_FADE = 160
_SAID = 0.3  # a command counts for a window that has this share of it


@dataclasses.dataclass(frozen=True)
class StreamPlan(Config):
    """How many streams, and what is asked of them.

    Attributes:
        hours: Length of all of them together.
        segment_seconds: Length of each, whole seconds; each begins with the first state.
        look_ahead_seconds: The answer after a step is for the clip that ended so long before.

    Raises:
        ValueError: A number out of range.
    """

    hours: float = 8.0
    segment_seconds: int = 10
    look_ahead_seconds: float = 0.04

    def __post_init__(self) -> None:
        if self.segment_seconds not in range(2, 61):
            raise ValueError(f"segment_seconds={self.segment_seconds} must be a whole of [2, 60]")
        if not 1e-3 <= self.hours <= 1000:
            raise ValueError(f"hours={self.hours} must lie in [0.001, 1000]")
        Causality(1, self.look_ahead_seconds)


class Streams(NamedTuple):
    """Streams and what is to be said of them.

    Attributes:
        waveforms: int16 (n, n_samples).
        targets: float16 (n, n_steps, n_classes): probabilities after each step.
        spans: float32 (n, 2): first and last sample, as the augmentation wants them.
    """

    waveforms: npt.NDArray[np.int16]
    targets: Posteriors
    spans: npt.NDArray[np.float32]


class Said(NamedTuple):
    """A command in a stream: its first and last second, and its label's index."""

    start: float
    end: float
    label: int


def make_streams(
    data: TrainingData,
    teacher: Recognizer,
    plan: StreamPlan,
    step_seconds: float,
    *,
    teacher_share: float = 0.5,
    seed: int = 0,
    rows: Sequence[npt.NDArray[np.int64]] | None = None,
    on_progress: Callable[[int, int], object] = lambda _done, _total: None,
) -> Streams:
    """Build streams and ask the teacher about them.

    Args:
        data: The decoded sources.
        teacher: Says what is right; its labels are the student's.
        plan: How many streams, and how long.
        step_seconds: From answer to answer.
        teacher_share: Where a command lies wholly inside the clip, what the teacher decides of the
            answer; the rest is that command, the last one of several.
        seed: Decides everything.
        rows: For each source of words which clips to take, instead of those that train.
        on_progress: Told how many streams of how many are done.
    """
    rate = teacher.features.sample_rate
    n = round(plan.segment_seconds * rate)
    count = max(1, round(plan.hours * 3600 / plan.segment_seconds))
    n_steps = int(plan.segment_seconds / step_seconds + 1e-9)
    ends = np.arange(1, n_steps + 1, dtype=np.float64) * step_seconds - plan.look_ahead_seconds
    builder = _Builder(data, teacher.labels, rate, rows)
    waveforms = np.empty((count, n), np.int16)
    targets = np.empty((count, n_steps, len(teacher.labels)), np.float16)
    for i in range(count):
        wave, said = builder.stream(n, np.random.default_rng([seed, 0x57, i]))
        waveforms[i] = np.round(wave * 32767)
        answers = _asked(teacher, to_float(waveforms[i]), ends)
        targets[i] = corrected(answers, said, ends, teacher, teacher_share)
        on_progress(i + 1, count)
    spans = np.tile(np.array([0, n], np.float32), (count, 1))
    return Streams(waveforms, targets, spans)


def _asked(
    teacher: Recognizer, wave: Waveform, ends: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """What the teacher says of the clips that end at these seconds, (n, n_classes).

    It is asked every ``WINDOW_HOPS`` hops, where windows share their MFCC; between these its
    answers lie on straight lines.
    """
    features = teacher.features
    step = WINDOW_HOPS * features.hop_length
    before = np.zeros(features.n_samples - step, np.float32)
    rows = teacher.windows(np.concatenate([before, wave]), step)
    times = (np.arange(len(rows)) + 1) * step / features.sample_rate
    return np.stack([np.interp(ends, times, column) for column in rows.T], axis=1)


def corrected(
    answers: npt.NDArray[np.float64],
    said: Sequence[Said],
    ends: npt.NDArray[np.float64],
    teacher: Recognizer,
    teacher_share: float,
) -> npt.NDArray[np.float64]:
    """The teacher's answers without the mistakes that the stream's own truth shows.

    What it gives to commands that were not said in the clip goes to ``unknown``; of those that lie
    wholly inside the last one gets its share, however close the others are.

    Args:
        answers: Probabilities (n, n_classes).
        said: The commands of the stream.
        ends: Last second of each clip, (n,).
        teacher: Gives the labels and the length of a clip.
        teacher_share: As for ``make_streams``.

    Returns:
        float64 (n, n_classes), each row summing to one.
    """
    labels, clip = teacher.labels, teacher.features.clip_seconds
    n_commands = len(commands(labels))
    partly = np.zeros((len(ends), n_commands), bool)
    newest = np.full(len(ends), -1)
    for start, end, label in said:  # from the first to the last
        overlap = np.minimum(ends, end) - np.maximum(ends - clip, start)
        partly[:, label] |= overlap >= _SAID * (end - start)
        newest[overlap >= (end - start) - 1e-6] = label
    result = answers.copy()
    wrong = np.where(partly, 0.0, result[:, :n_commands])
    result[:, :n_commands] -= wrong
    result[:, labels.index(UNKNOWN)] += wrong.sum(axis=1)
    known = np.flatnonzero(newest >= 0)
    result[known] *= teacher_share
    result[known, newest[known]] += 1 - teacher_share
    normal: npt.NDArray[np.float64] = result / result.sum(axis=1, keepdims=True)
    return normal


def silence_target(labels: Sequence[str]) -> npt.NDArray[np.float32]:
    """What is to be said of a background alone, (n_classes,)."""
    return np.array([label == SILENCE for label in labels], np.float32)


class _Builder:
    """Puts streams together from the clips and the speech of all sources."""

    def __init__(
        self,
        data: TrainingData,
        labels: Sequence[str],
        rate: int,
        rows: Sequence[npt.NDArray[np.int64]] | None,
    ) -> None:
        self._data, self._rate = data, rate
        known = commands(labels)
        by_word: dict[str, list[tuple[int, int]]] = {}
        for index, words in enumerate(data.words):
            chosen = words.rows if rows is None else rows[index]
            for row in chosen:
                word = words.recordings.corpus.clips[row].word
                by_word.setdefault(word, []).append((index, int(row)))
        self._commands = [(known.index(word), by_word[word]) for word in known if word in by_word]
        self._others = [clips for word, clips in sorted(by_word.items()) if word not in known]
        weights = np.sqrt([len(clips) for clips in self._others])
        self._other_chance = weights / weights.sum() if len(weights) else weights
        self._speech = [speech.samples for _, speech in data.speech]

    def stream(self, n: int, rng: np.random.Generator) -> tuple[Waveform, list[Said]]:
        """A stream of n samples, float32 in [-1, 1], and the commands in it."""
        wave = np.zeros(n, np.float32)
        said = []
        level = 10 ** (rng.uniform(*_LEVEL_DB) / 20)
        at = round(rng.uniform(0, 0.8) * self._rate)
        for piece, label in self._pieces(rng):
            loud = np.sqrt(np.mean(np.square(piece))) if len(piece) else 0.0
            gain = level * 10 ** (rng.normal(0, _WORD_LEVEL_DB / 2) / 20) / max(loud, 1e-4)
            fitting = piece[: max(0, n - at)] * np.float32(gain)
            wave[at : at + len(fitting)] += fitting
            if label is not None and len(fitting) == len(piece):
                said.append(Said(at / self._rate, (at + len(piece)) / self._rate, label))
            close = rng.random() < _CLOSE_SHARE
            gap = rng.uniform(*(_CLOSE_SECONDS if close else _GAP_SECONDS))
            at += len(piece) + round(gap * self._rate)
            if at >= n:
                break
        wave += _FLOOR_RMS * rng.standard_normal(n, np.float32)
        return np.clip(wave, -1, 1), said

    def _pieces(self, rng: np.random.Generator) -> Iterator[tuple[Waveform, int | None]]:
        kinds, shares = list(_SHARES), list(_SHARES.values())
        while True:
            kind = kinds[rng.choice(len(kinds), p=shares)]
            if kind == "command":
                label, clips = self._commands[rng.integers(len(self._commands))]
                yield self._word(clips, rng), label
            elif kind == "word" and self._others:
                clips = self._others[rng.choice(len(self._others), p=self._other_chance)]
                yield self._word(clips, rng), None
            elif kind == "speech" and self._speech:
                samples = self._speech[rng.integers(len(self._speech))]
                size = min(len(samples), round(rng.uniform(*_SPEECH_SECONDS) * self._rate))
                first = int(rng.integers(len(samples) - size + 1))
                yield _faded(to_float(samples[first : first + size])), None
            else:
                yield np.zeros(round(rng.uniform(0, 1.5) * self._rate), np.float32), None

    def _word(self, clips: list[tuple[int, int]], rng: np.random.Generator) -> Waveform:
        source, row = clips[rng.integers(len(clips))]
        clip = np.asarray(self._data.words[source].recordings.samples[row])
        first, last = spoken_spans(clip[np.newaxis])[0].astype(int)
        word = to_float(clip[first:last])
        speed = rng.uniform(1 - _SPEED, 1 + _SPEED)
        if rng.random() < _HIGH_SHARE:
            speed = rng.uniform(1, _HIGH_VOICE)
        return _faded(soxr.resample(word, self._rate * speed, self._rate, quality="MQ"))


def _faded(wave: Waveform) -> Waveform:
    ramp = np.linspace(0, 1, min(_FADE, len(wave) // 2), dtype=np.float32)
    faded: Waveform = wave.copy()
    faded[: len(ramp)] *= ramp
    faded[len(faded) - len(ramp) :] *= ramp[::-1]
    return faded
