"""Labelled streams to score a live decoder on: words in gaps, speech without them, noise alone.

All of it comes from what never trained, and is dealt out to two sets that share nothing: the
``tuning`` streams may choose thresholds, the ``evaluation`` streams measure them. The sets have
other speakers and other halves of each noise file; the continuous speech of each is given by the
caller, who takes other sources for the one than for the other.
"""

import dataclasses
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from speech.audio import JUST_BELOW_ONE, Waveform, to_float
from speech.data.annotations import Word
from speech.data.corpus import indices_by_word
from speech.data.evaluation_set import calibration_half
from speech.data.recordings import ContinuousSpeech, Recordings
from speech.errors import CorpusError
from speech.labels import commands

Part: TypeAlias = Literal["tuning", "evaluation"]
Kind: TypeAlias = Literal[
    "commands", "unknown words", "speech", "noise", "same word", "different words"
]

CLEAN = "clean"
ALONE = "alone"  # noise with nothing else
_FRAME_SECONDS = 0.01
_BELOW_PEAK_DB = 30.0
_ABOVE_FLOOR_DB = 10.0
_FLOOR_PERCENTILE = 10
_SILENT = 1e-10  # power; keeps digital silence out of the logarithm
_SENSOR_NOISE_RMS = 1e-4  # so that no gap is digital silence
_FADE_SECONDS = 0.01
_CROSSFADE_SECONDS = 0.1
_LEVEL_SECONDS = 5.0
_NOISE_SECONDS = 900.0
_NOISE_RMS = (1e-3, 0.1)
_BLOCK = 65_536


@dataclasses.dataclass(frozen=True)
class Plan:
    """How streams are built.

    Attributes:
        snrs: The conditions: signal-to-noise ratios in dB, None for clean. Signal is a clip of one
            second as a whole (of continuous speech, five seconds), noise what lies under it.
        gap_seconds: Range of the pause between two clips, uniform.
        seed: Decides order, gaps, noise and levels.

    Raises:
        ValueError: No condition, one twice, or a number out of range.
    """

    snrs: tuple[float | None, ...] = (None, 10.0)
    gap_seconds: tuple[float, float] = (0.5, 1.5)
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.snrs or len(set(self.snrs)) < len(self.snrs):
            raise ValueError(f"expected different conditions, at least one, got {self.snrs}")
        if any(snr is not None and not -20 <= snr <= 60 for snr in self.snrs):
            raise ValueError(f"expected ratios of -20 to 60 dB, got {self.snrs}")
        shortest, longest = self.gap_seconds
        if not 0 <= shortest <= longest <= 60:
            raise ValueError(f"expected gaps from 0 to 60 s, short to long, got {self.gap_seconds}")


class Stream(NamedTuple):
    """A stream and what is said in it.

    Attributes:
        kind: What it is made of; in ``unknown words``, ``speech`` and ``noise`` no command is said.
        condition: ``clean``, or such as ``10 dB``.
        waveform: float32 (n,) in [-1, 1), at the model's rate.
        words: What is said when, sorted; of speech and noise nothing is known but that it holds no
            command.
        distinct_seconds: How much of it comes from different recordings; the rest says the same
            again in other noise or at another level.
        source: Of continuous speech, the name of its folder.
    """

    kind: Kind
    condition: str
    waveform: Waveform
    words: tuple[Word, ...]
    distinct_seconds: float
    source: str = ""


def streams(
    recordings: Recordings,
    speech: Sequence[ContinuousSpeech],
    labels: Sequence[str],
    sample_rate: int,
    plan: Plan,
    part: Part,
    only: Collection[str] | None = None,
) -> Iterator[Stream]:
    """One set of streams, one after the other, since they are long.

    Args:
        recordings: Its validation speakers, and the part of its noise that evaluates.
        speech: In which no command is said, each source a stream of its own; may be empty.
        labels: Of the model. Words that are none of them are the unknown words.
        sample_rate: In Hz, of all of these.
        plan: How to build them.
        part: Which set.
        only: Names of the conditions that are wanted, and ``ALONE``; all by default. A stream is
            the same whatever else is wanted.

    Raises:
        CorpusError: No validation clips of the commands, or no noise where noise is wanted.
    """
    pieces = _noise(recordings, part, sample_rate)
    words = list(commands(labels))
    noisy = any(snr is not None for snr in plan.snrs)
    if noisy and not pieces:
        raise CorpusError(
            f"{recordings.corpus.root}: expected files in _background_noise_ for noise of a ratio, "
            "got none; add some, or measure clean streams only"
        )
    by_word = clips_of_part(recordings, part)
    said = {word: by_word[word] for word in words if word in by_word}
    if not said:
        raise CorpusError(
            f"{recordings.corpus.root}: expected validation clips of {', '.join(words)} by "
            f"speakers of the {part} half, got none; take a larger corpus"
        )
    other = {word: index for word, index in by_word.items() if word not in words}
    seed = plan.seed, int(part == "evaluation")
    for snr in plan.snrs:
        if only is not None and condition_name(snr) not in only:
            continue
        # the same words at the same times under all conditions
        order, dice = (np.random.default_rng([*seed, number]) for number in (1, 2))
        background = _Background(snr, pieces, sample_rate, dice)
        yield background.stream("commands", *_words(recordings, said, plan, sample_rate, order))
        if other:
            unknown = _words(recordings, other, plan, sample_rate, order)
            yield background.stream("unknown words", *unknown)
        for source in speech:
            spoken = background.stream("speech", to_float(source.samples), (), ())
            yield spoken._replace(source=Path(source.names[0]).name)
    if pieces and (only is None or ALONE in only):
        rng = np.random.default_rng([*seed, 3])
        n = round(_NOISE_SECONDS * sample_rate)
        noise = _noise_bed(pieces, n, sample_rate, rng, _NOISE_RMS)
        distinct = sum(map(len, pieces)) / sample_rate
        yield Stream("noise", ALONE, np.clip(noise, -1, JUST_BELOW_ONE), (), distinct)


def condition_name(snr: float | None) -> str:
    """``clean`` or, for example, ``10 dB``."""
    return CLEAN if snr is None else f"{snr:g} dB"


def word_bounds(clip: Waveform, sample_rate: int) -> tuple[float, float]:
    """Where in a clip its word begins and ends, in seconds.

    Of frames of 10 ms those count that are at most 30 dB below the loudest and at least 10 dB above
    the quiet ones (the tenth percentile): from the first of them to the last.

    Args:
        clip: float32 (n,), at least one frame.
        sample_rate: In Hz.
    """
    size = round(_FRAME_SECONDS * sample_rate)
    frames = clip[: len(clip) // size * size].reshape(-1, size).astype(np.float64)
    level = 10 * np.log10(np.mean(frames**2, axis=1) + _SILENT)
    floor = np.percentile(level, _FLOOR_PERCENTILE) + _ABOVE_FLOOR_DB
    limit = min(max(level.max() - _BELOW_PEAK_DB, floor), level.max())
    loud = np.flatnonzero(level >= limit)
    return float(loud[0] * size / sample_rate), float((loud[-1] + 1) * size / sample_rate)


def _half(samples: npt.NDArray[np.int16], part: Part) -> npt.NDArray[np.int16]:
    middle = len(samples) // 2
    return samples[:middle] if part == "tuning" else samples[middle:]


def _noise(recordings: Recordings, part: Part, sample_rate: int) -> list[Waveform]:
    """Half of each noise file's evaluation part, at RMS 1; those under a second are left out."""
    halves = [to_float(_half(noise, part)) for noise in recordings.noise_for("validation")]
    return [h / max(_rms(h), 1e-6) for h in halves if len(h) >= sample_rate]


def clips_of_part(recordings: Recordings, part: Part) -> dict[str, npt.NDArray[np.int64]]:
    """For each word its validation clips by speakers of this half."""
    clips = recordings.corpus.clips
    validation = [i for i, clip in enumerate(clips) if clip.split == "validation"]
    tunes = calibration_half([clips[i].path for i in validation]) == (part == "tuning")
    of_part = np.array(validation, np.int64)[tunes]
    by_word = {
        word: np.intersect1d(index, of_part)
        for word, index in indices_by_word(recordings.corpus, "validation").items()
    }
    return {word: index for word, index in by_word.items() if len(index)}


def _words(
    recordings: Recordings,
    by_word: dict[str, npt.NDArray[np.int64]],
    plan: Plan,
    sample_rate: int,
    rng: np.random.Generator,
) -> tuple[Waveform, tuple[Word, ...], tuple[tuple[float, float], ...]]:
    """The clips in random order with gaps, their words, and the level (second, RMS) of each."""
    said = [(word, i) for word, index in by_word.items() for i in index]
    said = [said[k] for k in rng.permutation(len(said))]
    gaps = np.round(rng.uniform(*plan.gap_seconds, len(said)) * sample_rate).astype(int)
    size = recordings.samples.shape[1]
    n = int(gaps.sum()) + len(said) * size + sample_rate  # the last word is decided too
    waveform = np.zeros(n, np.float32)
    ramp = np.linspace(0, 1, round(_FADE_SECONDS * sample_rate), dtype=np.float32)
    words, levels, at = [], [], 0
    for (word, index), gap in zip(said, gaps, strict=True):
        at += int(gap)
        clip = to_float(recordings.samples[index])
        start, end = word_bounds(clip, sample_rate)
        second = at / sample_rate
        words.append(Word(second + start, second + end, word))
        levels.append((second + size / sample_rate / 2, _rms(clip)))
        clip[: len(ramp)] *= ramp
        clip[-len(ramp) :] *= ramp[::-1]
        waveform[at : at + size] = clip
        at += size
    return waveform, tuple(words), tuple(levels)


class _Background:
    """Puts one kind of noise, at one ratio, under streams."""

    def __init__(
        self,
        snr: float | None,
        pieces: Sequence[Waveform],
        sample_rate: int,
        rng: np.random.Generator,
    ) -> None:
        self._snr, self._pieces, self._rate, self._rng = snr, pieces, sample_rate, rng

    def stream(
        self,
        kind: Kind,
        waveform: Waveform,
        words: tuple[Word, ...],
        levels: Sequence[tuple[float, float]],
    ) -> Stream:
        mixed = waveform + _SENSOR_NOISE_RMS * self._rng.standard_normal(len(waveform), np.float32)
        if self._snr is not None:
            times, loudness = zip(*(levels or _levels(waveform, self._rate)), strict=True)
            noise = _noise_bed(self._pieces, len(mixed), self._rate, self._rng)
            wanted = np.array(loudness) * 10 ** (-self._snr / 20)
            for first in range(0, len(mixed), _BLOCK):
                block = slice(first, first + _BLOCK)
                seconds = np.arange(first, min(first + _BLOCK, len(mixed))) / self._rate
                mixed[block] += noise[block] * np.interp(seconds, times, wanted).astype(np.float32)
        length = len(waveform) / self._rate
        mixed = np.clip(mixed, -1, JUST_BELOW_ONE).astype(np.float32)
        return Stream(kind, condition_name(self._snr), mixed, words, length)


def _levels(waveform: Waveform, sample_rate: int) -> list[tuple[float, float]]:
    """The level (second, RMS) of each five seconds; a pause counts as speech 20 dB softer."""
    size = round(_LEVEL_SECONDS * sample_rate)
    softest = _rms(waveform) / 10
    firsts = range(0, len(waveform), size)
    parts = [waveform[first : first + size] for first in firsts]
    return [
        ((first + len(part) / 2) / sample_rate, max(_rms(part), softest))
        for first, part in zip(firsts, parts, strict=True)
    ]


def _noise_bed(
    pieces: Sequence[Waveform],
    n: int,
    sample_rate: int,
    rng: np.random.Generator,
    rms: tuple[float, float] = (1.0, 1.0),
) -> Waveform:
    """Crops of the pieces, one fading into the next, float32 (n,), each at an RMS of this range."""
    fade = round(_CROSSFADE_SECONDS * sample_rate)
    ramp = np.sqrt(np.linspace(0, 1, fade, dtype=np.float32))
    noise = np.zeros(n, np.float32)
    at = 0
    while at < n:
        piece = pieces[int(rng.integers(len(pieces)))]
        first = int(rng.integers(len(piece) // 2))
        level = np.exp(rng.uniform(*np.log(rms)))
        crop = piece[first:] * np.float32(level)
        crop[:fade] *= ramp
        crop[-fade:] *= ramp[::-1]
        fitting = crop[: n - at]
        noise[at : at + len(fitting)] += fitting
        at += len(crop) - fade
    return noise


def _rms(waveform: Waveform) -> float:
    return float(np.sqrt(np.mean(np.square(waveform, dtype=np.float64))))
