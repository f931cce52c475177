"""Never a word for garbage: what is no speech is no command, for as long as it may last.

The model that ships is asked through the stream decoder, with the thresholds that it brings. A
minute or so of each kind is heard here, an hour of each in the campaign, which tells how many words
were heard in which kind; at most one in an hour is allowed.
"""

import os
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import pytest

from speech.audio import load_audio
from speech.errors import AudioError
from speech.recognizer import Recognizer, load
from speech.stream import StreamDecoder
from tests.security.conftest import MODEL

Samples = npt.NDArray[np.float32]
RATE = 16_000
BLOCK = 10 * RATE
Kind = Callable[[np.random.Generator, int], Samples]


def db(level: float) -> float:
    return float(10 ** (level / 20))


def white(level: float) -> Kind:
    return lambda rng, _: (db(level) * rng.standard_normal(BLOCK)).astype(np.float32)


def pink(level: float) -> Kind:
    """Power that falls with the frequency, made block by block from its spectrum."""

    def make(rng: np.random.Generator, _: int) -> Samples:
        bins = rng.standard_normal(BLOCK // 2 + 1) + 1j * rng.standard_normal(BLOCK // 2 + 1)
        bins /= np.sqrt(np.maximum(np.arange(len(bins)), 20 * BLOCK / RATE))
        sound = np.fft.irfft(bins, BLOCK)
        return (db(level) * sound / np.std(sound)).astype(np.float32)

    return make


def clock(block: int) -> npt.NDArray[np.float64]:
    return (block * BLOCK + np.arange(BLOCK)) / RATE


def tones(level: float) -> Kind:
    """A pure tone of ten seconds, from 50 Hz to 7 kHz, another one in every block."""

    def make(rng: np.random.Generator, block: int) -> Samples:
        frequency = 50 * 140 ** ((block * 0.618) % 1)
        return (db(level) * np.sin(2 * np.pi * frequency * clock(block))).astype(np.float32)

    return make


def chords(rng: np.random.Generator, block: int) -> Samples:
    """Three or four tones with their overtones and a decay, two to four chords a second."""
    sound = np.zeros(BLOCK)
    place = 0
    while place < BLOCK:
        length = min(BLOCK - place, int(RATE * rng.uniform(0.25, 0.5)))
        time = np.arange(length) / RATE
        root = 110 * 2 ** (rng.integers(0, 24) / 12)
        for step in rng.choice([0, 3, 4, 7, 10, 12], rng.integers(3, 5), replace=False):
            for overtone in range(1, 6):
                pitch = root * 2 ** (step / 12) * overtone
                sound[place : place + length] += np.sin(2 * np.pi * pitch * time) / overtone**1.5
        sound[place : place + length] *= np.exp(-3 * time)
        place += length
    return (0.3 * sound / np.abs(sound).max()).astype(np.float32)


def square(_: np.random.Generator, block: int) -> Samples:
    frequency = 50 * 60 ** ((block * 0.618) % 1)
    return np.sign(np.sin(2 * np.pi * frequency * clock(block)) + 1e-9).astype(np.float32)


def switched(rng: np.random.Generator, block: int) -> Samples:
    """White noise that is switched on and off, as a bad contact does."""
    gate = np.repeat(rng.random(BLOCK // 1600) < 0.5, 1600)
    return (0.1 * rng.standard_normal(BLOCK) * gate).astype(np.float32)


def clicks(rng: np.random.Generator, block: int) -> Samples:
    sound = np.zeros(BLOCK, np.float32)
    sound[rng.integers(0, BLOCK, 30)] = rng.uniform(-1, 1, 30)
    return sound


KINDS: dict[str, Kind] = {
    **{f"white noise at {level} dB": white(level) for level in (-80, -60, -45, -30, -20, -10, 0)},
    **{f"pink noise at {level} dB": pink(level) for level in (-60, -45, -30, -20, -10)},
    **{f"pure tones at {level} dB": tones(level) for level in (-40, -20, -6, 0)},
    "chords": chords,
    "a clipped square wave": square,
    "noise switched on and off": switched,
    "clicks": clicks,
    "digital silence": lambda rng, _: np.zeros(BLOCK, np.float32),
    "direct current": lambda rng, _: np.full(BLOCK, 0.5, np.float32),
    "full scale direct current": lambda rng, _: np.full(BLOCK, 1.0, np.float32),
    "the smallest numbers": lambda rng, _: np.full(BLOCK, 1e-38, np.float32),
}


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return load(MODEL)


def blocks(kind: str, seconds: int, seed: int) -> Iterator[Samples]:
    rng = np.random.default_rng([seed, *kind.encode()])
    for block in range(seconds * RATE // BLOCK):
        yield np.clip(KINDS[kind](rng, block), -1, 1)


def heard(recognizer: Recognizer, kind: str, seconds: int, seed: int) -> list[str]:
    """The words that the decoder makes of so much of it."""
    decoder = StreamDecoder(recognizer, batch_size=32)
    found = [d for block in blocks(kind, seconds, seed) for d in decoder.push(block, RATE)]
    found += decoder.flush()
    return [f"{d.label} {d.probability:.3f} at {d.time:.1f} s" for d in found]


@pytest.mark.parametrize("kind", KINDS)
def test_a_while_of_what_is_no_speech_has_no_word_in_it(recognizer, kind):
    assert not heard(recognizer, kind, 20, seed=1)


@pytest.mark.campaign
@pytest.mark.timeout(7200)
def test_an_hour_of_what_is_no_speech_has_one_word_in_it_at_most(recognizer, record):
    seconds = int(os.environ.get("SECONDS_OF_NOISE", "3600"))
    words = {}
    for kind in KINDS:
        words[kind] = heard(recognizer, kind, seconds, seed=2)
        told = {"model": recognizer.name, "seconds of each": seconds, "words": words}
        record("garbage through the stream decoder", told)
    assert not {kind: found for kind, found in words.items() if len(found) > 1}


def test_samples_that_are_no_sound_are_refused_and_no_word_follows(recognizer):
    decoder = StreamDecoder(recognizer)
    for value in (np.nan, np.inf, -np.inf, 1e30, -1e30):
        for place in (slice(None), 0, -1):
            chunk = np.zeros(1_600, np.float32)
            chunk[place] = value
            with pytest.raises(AudioError):
                decoder.push(chunk)
    assert decoder.seconds == 0
    assert decoder.push(np.zeros(0, np.float32)) == []
    assert decoder.push(np.full(1, 0.5, np.float32)) == []
    assert decoder.flush() == []
    assert np.isfinite(decoder.probabilities).all()


def test_one_sample_and_nothing_are_a_result_or_an_error_and_never_a_command(recognizer):
    for value in (0.0, 1e-30, 0.5, -1.0):
        heard = recognizer.recognize((np.full(1, value, np.float32), RATE))
        assert heard.label in ("silence", "unknown")
    with pytest.raises(AudioError):
        load_audio((np.zeros(0, np.float32), RATE))
