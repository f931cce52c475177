"""Rooms without end: backgrounds, impulse responses and the spectra of pauses, made from a seed.

A handful of noise recordings teaches a network those recordings, and a quiet room with another
microphone becomes a word. So backgrounds are synthesized by the hundred, and the pauses before and
after the words of the corpus, thousands of rooms and microphones, lend their spectra.
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from speech.features import FeatureConfig

Wave = npt.NDArray[np.float64]
Samples = npt.NDArray[Any]

N_SYNTHETIC = 600  # synthesized backgrounds
N_IMPULSES = 256  # simulated rooms
N_PAUSES = 4000  # spectra of pauses at most
N_BANDS = 48  # of such a spectrum
_BACKGROUND_SECONDS = 6.0
_IMPULSE_SECONDS = 0.4
_PAUSE_SECONDS = 0.2
_PAUSE_DB = 20.0  # below the loudest moment of its clip
_RECORDED_SHARE = 0.25  # of the backgrounds, where there are recordings


@dataclasses.dataclass(frozen=True)
class Rooms:
    """What the augmentation draws from.

    Attributes:
        backgrounds: float16 (n, length), each of RMS 1.
        impulses: Spectra of impulse responses, float16 (n, 2, n_bins), real and imaginary, for
            clips that are followed by ``n_samples`` zeros; the first one changes nothing.
        pauses: Spectra of pauses in dB in ``N_BANDS`` bands, float16 (n, N_BANDS).
        n_samples: Length of the impulse responses.
    """

    backgrounds: npt.NDArray[np.float16]
    impulses: npt.NDArray[np.float16]
    pauses: npt.NDArray[np.float16]
    n_samples: int


def make_rooms(
    features: FeatureConfig,
    noise: Sequence[Samples] = (),
    words: Samples | None = None,
    seed: int = 0,
    *,
    n_synthetic: int = N_SYNTHETIC,
    n_impulses: int = N_IMPULSES,
) -> Rooms:
    """Make rooms; the same arguments make the same rooms.

    Args:
        features: Rate and length of the clips.
        noise: Recorded backgrounds, int16 or float (n,); those shorter than a clip are left out.
        words: int16 (n, n_samples): training clips, whose pauses lend their spectra and of which
            babble is made; None for neither.
        seed: Decides everything.
        n_synthetic: How many backgrounds to synthesize.
        n_impulses: How many rooms to simulate.
    """
    length = max(round(_BACKGROUND_SECONDS * features.sample_rate), features.n_samples)

    def synthetic(index: int) -> npt.NDArray[np.float16]:
        rng = np.random.default_rng([seed, 0xB6, index])
        makers: list[Callable[[int, int, np.random.Generator], Wave]] = [
            music,
            room_noise,
            room_noise,
            taps,
        ]
        if words is not None and len(words):
            makers.append(functools.partial(babble, words))
        return _unit(makers[index % len(makers)](length, features.sample_rate, rng))

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # NumPy releases the lock
        backgrounds = list(pool.map(synthetic, range(n_synthetic)))
        impulses = list(
            pool.map(lambda i: _impulse_spectrum(features, seed, i), range(1 + n_impulses))
        )
    recorded = [n for n in noise if len(n) >= features.n_samples]
    if recorded:
        rng = np.random.default_rng([seed, 0xB7])
        count = round(n_synthetic * _RECORDED_SHARE / (1 - _RECORDED_SHARE))
        backgrounds += [_crop(recorded[i % len(recorded)], length, rng) for i in range(count)]
    pauses = (
        np.zeros((0, N_BANDS), np.float16)
        if words is None
        else pause_spectra(words, features, N_PAUSES, seed)
    )
    n_samples = round(_IMPULSE_SECONDS * features.sample_rate)
    return Rooms(np.stack(backgrounds), np.stack(impulses), pauses, n_samples)


def _unit(wave: Samples) -> npt.NDArray[np.float16]:
    return (wave / max(float(np.sqrt(np.mean(np.square(wave)))), 1e-9)).astype(np.float16)


def _crop(noise: Samples, length: int, rng: np.random.Generator) -> npt.NDArray[np.float16]:
    start = int(rng.integers(max(1, len(noise) - length + 1)))
    return _unit(np.resize(noise[start : start + length].astype(np.float64), length))


# --- pauses -------------------------------------------------------------------------------------


def pause_spectra(
    words: Samples, features: FeatureConfig, at_most: int = N_PAUSES, seed: int = 0
) -> npt.NDArray[np.float16]:
    """The spectra of the pauses around words: real room tone of many microphones.

    Of each clip the quietest 0.2 s are taken, if they lie 20 dB below its loudest moment and
    above digital silence.

    Args:
        words: int16 (n, n_samples).
        features: The rate.
        at_most: How many to keep, drawn at random.
        seed: Decides which.

    Returns:
        float16 (m, N_BANDS), decibels of the mean power in each band, the loudest at 0.
    """
    rng = np.random.default_rng([seed, 0xB8])
    frame = round(0.01 * features.sample_rate)
    n_quiet = round(_PAUSE_SECONDS / 0.01)
    found: list[npt.NDArray[np.float16]] = []
    edges = _band_edges(features)
    bins = np.fft.rfftfreq(n_quiet * frame, 1 / features.sample_rate)
    groups = np.searchsorted(edges, bins) - 1
    kept = (groups >= 0) & (groups < N_BANDS)
    size = np.maximum(np.bincount(groups[kept], minlength=N_BANDS), 1)
    order = rng.permutation(len(words))
    for block in (order[i : i + 512] for i in range(0, len(order), 512)):
        clips = words[np.sort(block)].astype(np.float32) / 32768
        frames = clips[:, : clips.shape[1] // frame * frame].reshape(len(clips), -1, frame)
        energy = np.concatenate(
            [np.zeros((len(clips), 1)), np.cumsum(np.mean(frames**2, axis=2), axis=1)], axis=1
        )
        power = (energy[:, n_quiet:] - energy[:, :-n_quiet]) / n_quiet
        loudest = np.max(energy[:, 5:] - energy[:, :-5], axis=1) / 5
        start = power.argmin(axis=1)
        quiet = power[np.arange(len(clips)), start]
        rows = np.flatnonzero((quiet < loudest * 10 ** (-_PAUSE_DB / 10)) & (quiet > 1e-10))
        for row in rows:
            piece = frames[row, start[row] : start[row] + n_quiet].ravel()
            spectrum = np.abs(np.fft.rfft(piece * np.hanning(len(piece)))) ** 2
            bands = np.bincount(groups[kept], spectrum[kept], N_BANDS) / size
            decibels = 10 * np.log10(bands + 1e-12)
            found.append(np.maximum(decibels - decibels.max(), -80).astype(np.float16))
        if len(found) >= at_most:
            break
    return np.stack(found[:at_most]) if found else np.zeros((0, N_BANDS), np.float16)


def _band_edges(features: FeatureConfig) -> Wave:
    """Edges of N_BANDS bands from 20 Hz to half the rate, equal on the mel scale."""
    top = np.log1p(features.sample_rate / 2 / 300)
    edges: Wave = 300 * np.expm1(np.linspace(np.log1p(20 / 300), top, N_BANDS + 1))
    return edges


def band_interpolation(features: FeatureConfig) -> npt.NDArray[np.float32]:
    """The matrix (N_BANDS, n_bins) from decibels in bands to those of every bin of a clip."""
    edges = _band_edges(features)
    centers = (edges[1:] + edges[:-1]) / 2
    bins = np.fft.rfftfreq(features.n_samples, 1 / features.sample_rate)
    return np.stack([np.interp(bins, centers, row) for row in np.eye(N_BANDS)]).astype(np.float32)


# --- impulse responses --------------------------------------------------------------------------


def impulse_response(n: int, sample_rate: int, rng: np.random.Generator) -> Wave:
    """The impulse response (n,) of a room that never was, of energy 1, the direct sound first.

    Reflections at random times, ever denser, under a decay whose length falls with the frequency
    as it does in rooms (60 dB in 0.1 to 0.8 s); the direct sound lies -6 to 15 dB above them all.
    """
    time = np.arange(n) / sample_rate
    decay = np.exp(rng.uniform(np.log(0.1), np.log(0.8)))
    first = rng.uniform(0.001, 0.012)
    density = np.clip((time / rng.uniform(0.01, 0.08)) ** 2, 0, 1)
    sparse = (rng.random(n) < np.maximum(density, 0.004)) & (time > first)
    tail = rng.standard_normal(n) * sparse / np.sqrt(np.maximum(density, 0.004))
    low = tail * 10 ** (-3 * time / decay)
    high = tail * 10 ** (-3 * time / (decay * rng.uniform(0.25, 0.9)))
    spectrum_low, spectrum_high = np.fft.rfft(low), np.fft.rfft(high)
    frequency = np.fft.rfftfreq(n, 1 / sample_rate)
    share = 1 / (1 + (frequency / rng.uniform(500, 3000)) ** 2)
    walls = np.fft.irfft(share * spectrum_low + (1 - share) * spectrum_high, n)
    walls /= np.sqrt(np.sum(walls**2)) + 1e-12
    response: Wave = walls * 10 ** (-rng.uniform(-6, 15) / 20)
    response[0] = 1.0
    response /= np.sqrt(np.sum(response**2))
    return response


def _impulse_spectrum(features: FeatureConfig, seed: int, index: int) -> npt.NDArray[np.float16]:
    n = round(_IMPULSE_SECONDS * features.sample_rate)
    response = np.zeros(n)
    response[0] = 1.0
    if index:
        rng = np.random.default_rng([seed, 0xB9, index])
        response = impulse_response(n, features.sample_rate, rng)
    spectrum = np.fft.rfft(response, n + features.n_samples)
    return np.stack([spectrum.real, spectrum.imag]).astype(np.float16)


# --- backgrounds --------------------------------------------------------------------------------


def room_noise(n: int, sample_rate: int, rng: np.random.Generator) -> Wave:
    """Noise (n,) from a rumble to a hiss, with bumps; some have mains hum, some have impacts."""
    frequency = np.fft.rfftfreq(n, 1 / sample_rate)
    lowest = np.exp(rng.uniform(np.log(20), np.log(300)))  # no rumble falls for ever
    octaves = np.log2(np.maximum(frequency, lowest) / 1000)
    decibels = rng.uniform(-18, 4) * octaves
    for _ in range(rng.integers(0, 4)):
        center, width = rng.uniform(-5, 3), rng.uniform(0.1, 1.5)
        decibels += rng.normal(0, 12) * np.exp(-0.5 * ((octaves - center) / width) ** 2)
    spectrum = 10 ** (decibels / 20) * np.exp(2j * np.pi * rng.random(len(frequency)))
    noise = np.fft.irfft(spectrum, n)
    noise /= np.sqrt(np.mean(noise**2))
    time = np.arange(n) / sample_rate
    if rng.random() < 0.4:
        tones = hum(time, rng)
        noise = noise * 10 ** rng.uniform(-3, 0) + tones / np.sqrt(np.mean(tones**2))
    if rng.random() < 0.25:
        for start in rng.integers(0, n, rng.integers(3, 60)):
            knock = impact(sample_rate, rng)[: n - start]
            noise[start : start + len(knock)] += knock * rng.uniform(1, 10)
    slow = np.interp(time, np.linspace(0, time[-1], 20), rng.uniform(0.5, 1.5, 20))
    depth, beat = rng.uniform(0, 0.7) * (rng.random() < 0.3), rng.uniform(1, 20)
    slow *= 1 + depth * np.sin(2 * np.pi * beat * time)
    return noise * slow


def music(n: int, sample_rate: int, rng: np.random.Generator) -> Wave:
    """Chords (n,) of one to four steady voices, sines to squares, that change at will."""
    result = np.zeros(n)
    start = 0
    while start < n:
        length = min(int(sample_rate * 10 ** rng.uniform(-0.7, 0.6)), n - start)
        time = np.arange(length) / sample_rate
        chord = np.zeros(length)
        pitch = 50 * 150 ** rng.random()
        for _voice in range(rng.choice([1, 1, 1, 2, 3, 4])):
            sine = np.sin(2 * np.pi * (pitch * time + rng.random()))
            drive = 10 ** rng.uniform(-0.5, 1.5) if rng.random() < 0.6 else 0.01
            chord += np.clip(drive * sine, -1, 1) / min(drive, 1)  # overdriven, a sine is a square
            pitch *= 2 ** (rng.integers(1, 13) / 12)
        if rng.random() < 0.3:
            chord *= 0.2 + np.exp(-time / 10 ** rng.uniform(-1, 0.5))
        result[start : start + length] = chord / np.sqrt(np.mean(chord**2) + 1e-12)
        start += length
    result += rng.standard_normal(n) * 10 ** rng.uniform(-4, -1)
    return result


def taps(n: int, sample_rate: int, rng: np.random.Generator) -> Wave:
    """A keyboard, a tool or a drop of water: impacts of one kind (n,), regular or in bursts."""
    noise = rng.standard_normal(n) * 10 ** rng.uniform(-3, -1)
    kinds = [impact(sample_rate, rng) for _ in range(rng.integers(1, 5))]
    rate = 10 ** rng.uniform(-0.2, 1.2)  # in a second
    time = 0.0
    while time < n / sample_rate:
        start = int(time * sample_rate)
        knock = kinds[rng.integers(len(kinds))][: n - start]
        noise[start : start + len(knock)] += knock * rng.uniform(0.2, 1)
        time += max(0.02, rng.exponential(1 / rate) if rng.random() < 0.7 else 1 / rate)
    return noise


def babble(words: Samples, n: int, sample_rate: int, rng: np.random.Generator) -> Wave:
    """Many words at once (n,), low-passed, behind a wall or down a corridor."""
    result = np.zeros(n)
    length = words.shape[1]
    for _ in range(int(n / length * rng.integers(4, 16))):
        clip = words[rng.integers(len(words))].astype(np.float64)
        clip /= np.sqrt(np.mean(clip**2)) + 1e-9
        start = int(rng.integers(-length + 1, n))
        first, last = max(start, 0), min(start + length, n)
        result[first:last] += clip[first - start : last - start] * 10 ** rng.uniform(-0.7, 0)
    frequency = np.fft.rfftfreq(n, 1 / sample_rate)
    corner = np.exp(rng.uniform(np.log(300), np.log(4000)))
    impulse = impulse_response(round(_IMPULSE_SECONDS * sample_rate), sample_rate, rng)
    spectrum = np.fft.rfft(result) * np.fft.rfft(impulse, n)
    far: Wave = np.fft.irfft(spectrum / (1 + (frequency / corner) ** rng.integers(1, 4)), n)
    far /= np.sqrt(np.mean(far**2)) + 1e-12
    return far + room_noise(n, sample_rate, rng) * 10 ** rng.uniform(-2, -0.3)


def hum(time: Wave, rng: np.random.Generator) -> Wave:
    """The harmonics of the mains or of an engine, from nearly a sine to a buzz."""
    base = rng.choice([50.0, 60.0]) if rng.random() < 0.7 else rng.uniform(20, 200)
    tones = base * (1 + rng.normal(0, 0.001)) * np.arange(1, 30)
    levels = rng.exponential(1, len(tones)) / np.arange(1, len(tones) + 1) ** rng.uniform(0.3, 4)
    result = np.zeros(len(time))
    for tone, level in zip(tones[tones * 2 * time[1] < 1], levels, strict=False):
        result += level * np.sin(2 * np.pi * tone * time + rng.uniform(0, 2 * np.pi))
    return result


def impact(sample_rate: int, rng: np.random.Generator) -> Wave:
    """A resonance that decays within 1 to 60 ms."""
    decay = 10 ** rng.uniform(-3, -1.2)
    pitch = 10 ** rng.uniform(1.7, 3.7)
    time = np.arange(int(5 * decay * sample_rate)) / sample_rate
    result: Wave = np.exp(-time / decay) * np.cos(2 * np.pi * pitch * time)
    return result
