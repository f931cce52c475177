"""Streams of words said fast one after the other: the same word thrice, four different words."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from speech.audio import Waveform, to_float
from speech.data.annotations import Word
from speech.data.recordings import Recordings
from speech.evaluation.synthetic_streams import Kind, Part, Stream, clips_of_part, word_bounds
from speech.labels import commands

GAPS = (0.0, 0.1, 0.2, 0.3, 0.5)
REPEATS, DIFFERENT = 3, 4
_GROUPS = 80
_PAUSE_SECONDS = 2.0  # between two groups, in which every decoder comes to rest
_FADE_SECONDS = 0.01
_SENSOR_NOISE_RMS = 1e-4


def fast_word_streams(
    recordings: Recordings,
    labels: Sequence[str],
    sample_rate: int,
    part: Part,
    seed: int = 0,
    gaps: Sequence[float] = GAPS,
) -> Iterator[Stream]:
    """For each pause a stream of one word said ``REPEATS`` times, and one of ``DIFFERENT`` words.

    Clips are cut to their words, so that the pause is what lies between one word's end and the
    next one's beginning. The clips are the same at every pause.

    Args:
        recordings: Its validation speakers.
        labels: Of the model.
        sample_rate: In Hz, of the recordings.
        part: Which set of speakers.
        seed: Decides which clips.
        gaps: The pauses, in seconds.
    """
    by_word = clips_of_part(recordings, part)
    said = [word for word in commands(labels) if word in by_word]
    kinds: tuple[Kind, Kind] = ("same word", "different words")
    for number, kind in enumerate(kinds):
        rng = np.random.default_rng([seed, int(part == "evaluation"), 7, number])
        groups = []
        for turn in range(_GROUPS):
            if kind == "same word":
                words = [said[turn % len(said)]] * REPEATS
            else:
                words = [said[i] for i in rng.permutation(len(said))[:DIFFERENT]]
            groups.append([(word, int(rng.choice(by_word[word]))) for word in words])
        for gap in gaps:
            rng = np.random.default_rng([seed, 8])
            waveform, placed = _joined(recordings, groups, gap, sample_rate)
            waveform += _SENSOR_NOISE_RMS * rng.standard_normal(len(waveform), np.float32)
            seconds = len(waveform) / sample_rate
            yield Stream(kind, f"pause {gap:g} s", waveform, placed, seconds)


def _joined(
    recordings: Recordings, groups: Sequence[Sequence[tuple[str, int]]], gap: float, rate: int
) -> tuple[Waveform, tuple[Word, ...]]:
    pieces: list[npt.NDArray[np.float32]] = [np.zeros(rate, np.float32)]
    words: list[Word] = []
    at = rate  # samples
    for group in groups:
        for place, (label, index) in enumerate(group):
            word = _cut(to_float(recordings.samples[index]), rate)
            words.append(Word(at / rate, (at + len(word)) / rate, label))
            pause = _PAUSE_SECONDS if place == len(group) - 1 else gap
            pieces += [word, np.zeros(round(pause * rate), np.float32)]
            at += len(word) + round(pause * rate)
    return np.concatenate(pieces), tuple(words)


def _cut(clip: Waveform, rate: int) -> Waveform:
    """The word of a clip by itself, faded at both ends."""
    start, end = (round(t * rate) for t in word_bounds(clip, rate))
    word = clip[start:end].copy()
    ramp = np.linspace(0, 1, min(round(_FADE_SECONDS * rate), len(word)), dtype=np.float32)
    word[: len(ramp)] *= ramp
    word[len(word) - len(ramp) :] *= ramp[::-1]
    return word
