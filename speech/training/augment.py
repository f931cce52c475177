"""Augmentation of waveforms and MFCC: the rooms, voices and microphones that the corpus lacks.

Everything is drawn from the generator that the caller passes, batch by batch, so that a seed
decides all of it. The two loops over samples are compiled by numba and release the interpreter's
lock: training goes on meanwhile.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from speech.config import Config
from speech.features import FeatureConfig, vtlp_matrix

Batch = npt.NDArray[np.float32]
_COSINES = 8  # a response has no finer structure that a mel filterbank would show
_MADE = 72  # synthesised backgrounds
_VOICES = 21  # lengths of the vocal tract to choose from


@dataclasses.dataclass(frozen=True)
class AugmentConfig(Config):
    """Ranges of the random changes; zero, or an empty range, switches one off.

    Attributes:
        speed: Resampling by 1 +- this, which changes tempo and pitch together.
        shift_seconds: Shift in time by up to this, either way.
        noise_probability: Share of clips with background noise.
        snr_db: Range of the signal-to-noise ratio, uniform in dB.
        gain_db: Range of the level of the whole, uniform in dB.
        floor_probability: Share of clips with the white hiss of a microphone under them.
        floor_rms: Range of the hiss, log-uniform; 1 is full scale.
        silence_rms: Range of the level of silence, log-uniform.
        response_probability: Share of clips and backgrounds heard through a microphone, that is,
            a random frequency response.
        response_db: Standard deviation of each of the cosines over the mel scale that make the
            response; the fine ones are weaker.
        highpass_hz: Range of the lower end of a band-limited response, log-uniform.
        lowpass_hz: Range of its upper end, log-uniform.
        band_probability: Share of the responses with a lower end, and with an upper one.
        vocal_tract: Formants moved by up to this share, either way, the pitch kept: other throats.
        time_masks: Number of masked spans of time (SpecAugment, Park et al., arXiv 1904.08779).
        time_mask_seconds: Longest of them.
        coefficient_masks: Number of masked spans of coefficients.
        coefficient_mask: Longest of them.

    Raises:
        ValueError: A negative or infinite number, a range whose end lies below its start, a speed
            or a probability that is none, or an RMS of zero, which has no logarithm.
    """

    speed: float = 0.15
    shift_seconds: float = 0.15
    noise_probability: float = 0.7
    snr_db: tuple[float, float] = (-3.0, 30.0)
    gain_db: tuple[float, float] = (-30.0, 14.0)
    floor_probability: float = 0.5
    floor_rms: tuple[float, float] = (1e-5, 3e-3)
    silence_rms: tuple[float, float] = (1e-5, 1.0)
    response_probability: float = 0.6
    response_db: float = 4.0
    highpass_hz: tuple[float, float] = (40.0, 500.0)
    lowpass_hz: tuple[float, float] = (1500.0, 8000.0)
    band_probability: float = 0.35
    vocal_tract: float = 0.1
    time_masks: int = 2
    time_mask_seconds: float = 0.1
    coefficient_masks: int = 1
    coefficient_mask: int = 4

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            low, high = value if isinstance(value, tuple) else (0, value)
            if field.name.endswith(("_rms", "_hz")) and not low > 0:
                raise ValueError(f"{field.name}={value} must begin above 0")
            if not -1e6 < low <= high < 1e6:
                raise ValueError(f"{field.name}={value} must be a range from low to high, or >= 0")
        factors = ("speed", "vocal_tract")
        for name in (*factors, *(n for n in self.to_dict() if n.endswith("_probability"))):
            if getattr(self, name) > 1 - (name in factors) * 1e-6:
                raise ValueError(f"{name}={getattr(self, name)} must lie below 1")

    @classmethod
    def none(cls) -> "AugmentConfig":
        """No change at all (silence is still drawn at random levels)."""
        return cls(
            speed=0.0, shift_seconds=0.0, noise_probability=0.0, gain_db=(0.0, 0.0),
            floor_probability=0.0, response_probability=0.0, vocal_tract=0.0, time_masks=0,
            coefficient_masks=0,
        )  # fmt: skip


class Augmenter:
    """Applies an AugmentConfig to batches.

    Args:
        config: The ranges.
        features: Rate and length of the clips.
        noise: Backgrounds, int16 or float32 (n,); those shorter than a clip are left out.
            Synthesised backgrounds are added to them: coloured noise, mains hum and music of
            bare tones, since a handful of recordings teaches a network those recordings and not
            what a room is.
        seed: Decides the synthesised backgrounds.
    """

    def __init__(
        self,
        config: AugmentConfig,
        features: FeatureConfig,
        noise: Sequence[npt.NDArray[Any]] = (),
        seed: int = 0,
    ) -> None:
        self.config = config
        self.features = features
        rng = np.random.default_rng([seed, 0xB6])
        recorded = [
            n.astype(np.float32) / (32768 if n.dtype == np.int16 else 1)
            for n in noise
            if len(n) >= features.n_samples
        ]
        length = max(10 * features.sample_rate, features.n_samples)
        made = [
            (_music if i % 3 == 0 else _room)(length, features.sample_rate, rng)
            for i in range(_MADE)
        ]
        self._noise = [(n / max(float(np.sqrt(np.mean(n**2))), 1e-6)) for n in recorded + made]
        # recordings are worth more than synthesis: as often, though they are fewer
        shares = [1 / max(1, len(recorded))] * len(recorded) + [1 / len(made)] * len(made)
        self._shares = np.array(shares) / sum(shares)
        self._frequency = np.fft.rfftfreq(features.n_samples, 1 / features.sample_rate)
        mel = np.log1p(self._frequency / 700)
        places = np.outer(np.arange(1, _COSINES + 1), np.pi * mel / mel[-1])
        fall = np.sqrt(np.arange(1, _COSINES + 1))[:, np.newaxis]
        self._cosines = (np.cos(places) / fall).astype(np.float32)
        self._octaves = np.log2(np.maximum(self._frequency, 1)).astype(np.float32)
        factors = np.linspace(1 - config.vocal_tract, 1 + config.vocal_tract, _VOICES)
        self._warps = np.stack([vtlp_matrix(features, factor).T for factor in factors])

    def backgrounds(self, count: int, rng: np.random.Generator) -> Batch:
        """Crops of the backgrounds, float32 (count, n_samples), each of RMS 1.

        Only a crop 20 dB below the average of its background keeps some of its quietness.
        """
        n_samples = self.features.n_samples
        which = rng.choice(len(self._noise), count, p=self._shares)
        starts = rng.random(count)
        crops = np.empty((count, n_samples), np.float32)
        for row, (index, start) in enumerate(zip(which, starts, strict=True)):
            noise = self._noise[index]
            first = int(start * (len(noise) - n_samples))
            crops[row] = noise[first : first + n_samples]
        crops /= np.maximum(_rms(crops), 0.1)
        return crops

    def silence(self, count: int, rng: np.random.Generator) -> Batch:
        """Clips of backgrounds alone, float32 (count, n_samples), from inaudible to loud.

        Some begin late or end early, as shifted words do, lest zeros at an end mean a word.
        """
        config = self.config
        clips = self.backgrounds(count, rng)
        hissing = rng.random((count, 1)) < config.floor_probability
        hiss = rng.standard_normal(self.features.n_samples + count, np.float32)
        hiss_level = np.where(hissing, _log_uniform((0.01, 1.0), (count, 1), rng), 0)
        clips += sliding_window_view(hiss, self.features.n_samples)[:count] * hiss_level
        self._respond(clips, rng)
        clips *= _log_uniform(config.silence_rms, (count, 1), rng) / np.maximum(_rms(clips), 1e-3)
        place = np.arange(self.features.n_samples) / self.features.sample_rate
        shift = rng.uniform(-1, 1, (count, 1)) * config.shift_seconds
        shift[rng.random((count, 1)) < 0.5] = 0
        clips[(place < shift) | (place >= place[-1] + shift + 1e-6)] = 0
        return np.clip(clips, -1, 1, out=clips)

    def waveforms(self, clips: Batch, rng: np.random.Generator) -> Batch:
        """Speed, shift, background, microphone, level and hiss, in this order.

        Half of the hiss comes from behind the microphone, half from before it. Takes and returns
        float32 (batch, n_samples).
        """
        config, count, n_samples = self.config, len(clips), self.features.n_samples
        if clips.shape != (count, n_samples):  # the loops below do not look
            raise ValueError(f"expected clips (batch, {n_samples}), got shape {clips.shape}")
        speed = rng.uniform(1 - config.speed, 1 + config.speed, count)
        shift = rng.uniform(-1, 1, count) * config.shift_seconds * self.features.sample_rate
        moved = np.empty_like(clips)
        _resample(clips, speed.astype(np.float32), shift.astype(np.float32), moved)

        loudness = _rms(moved)[:, 0]
        snr = rng.uniform(*config.snr_db, count)
        noisy = rng.random(count) < config.noise_probability
        noise_level = np.where(noisy, loudness * 10 ** (-snr / 20), 0)
        gain = 10 ** (rng.uniform(*config.gain_db, count) / 20)
        hissing = rng.random(count) < config.floor_probability
        hiss_level = np.where(hissing, _log_uniform(config.floor_rms, (count,), rng), 0)
        behind = rng.random(count) < 0.5
        hiss = rng.standard_normal(n_samples + count, np.float32)
        levels = np.stack([gain, gain * noise_level, hiss_level * ~behind]).astype(np.float32)
        _mix(moved, self.backgrounds(count, rng), hiss, levels)
        self._respond(moved, rng)
        level = (hiss_level * behind).astype(np.float32)[:, np.newaxis]
        moved += sliding_window_view(hiss, n_samples)[:count] * level
        return np.clip(moved, -1, 1, out=moved)

    def _respond(self, clips: Batch, rng: np.random.Generator) -> None:
        """Let some of the clips be heard through random microphones, in place.

        Real ones differ by tens of dB: smooth humps, a rumble filter, the band of a telephone. The
        ends of a band fall by 6 dB an octave at least, and a third of them like a wall, as after
        resampling.
        """
        config = self.config
        rows = np.flatnonzero(rng.random(len(clips)) < config.response_probability)
        if not len(rows):
            return
        shape = (len(rows), 1)
        weights = config.response_db * rng.standard_normal((len(rows), _COSINES), np.float32)
        decibels = weights @ self._cosines
        for side, limits in ((-1, config.highpass_hz), (1, config.lowpass_hz)):
            edge = np.log2(_log_uniform(limits, shape, rng))
            slope = _log_uniform((6.0, 100.0), shape, rng)
            slope[rng.random(shape) < 1 / 3] = 2000
            slope[rng.random(shape) >= config.band_probability] = 0
            decibels -= slope * np.maximum(side * (self._octaves - edge), 0)
        spectrum = np.fft.rfft(clips[rows])
        spectrum *= np.exp2(np.maximum(decibels, -120) * np.float32(np.log2(10) / 20))
        clips[rows] = np.fft.irfft(spectrum, clips.shape[1])

    def cepstra(self, mfcc: Batch, fill: Batch, rng: np.random.Generator) -> Batch:
        """Another throat, and random masks; float32 (batch, n_frames, n_mfcc).

        Args:
            mfcc: The batch.
            fill: What masked places become: the mean of the features, (n_mfcc,).
            rng: Decides all of it.

        Returns:
            A batch of that shape, which may be ``mfcc`` itself, changed.
        """
        config = self.config
        count, n_frames, n_mfcc = mfcc.shape
        if config.vocal_tract:
            mfcc = mfcc @ self._warps[rng.integers(_VOICES, size=count)]
        longest = round(config.time_mask_seconds / self.features.hop_seconds)
        masked = _spans(count, n_frames, config.time_masks, longest, rng)[:, :, np.newaxis]
        spans = _spans(count, n_mfcc, config.coefficient_masks, config.coefficient_mask, rng)
        masked = masked | spans[:, np.newaxis, :]
        np.copyto(mfcc, fill, where=masked)
        return mfcc


def _rms(clips: Batch) -> Batch:
    rms: Batch = np.sqrt(np.mean(np.square(clips), axis=1, keepdims=True))
    return rms


def _log_uniform(
    limits: tuple[float, float], shape: tuple[int, ...], rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    low, high = np.log(limits)
    return np.exp(rng.uniform(low, high, shape)).astype(np.float32)


def _spans(
    count: int, length: int, n_spans: int, longest: int, rng: np.random.Generator
) -> npt.NDArray[np.bool_]:
    places = np.arange(length)
    masked = np.zeros((count, length), bool)
    for _ in range(n_spans):
        width = rng.integers(0, longest + 1, (count, 1))
        start = (rng.random((count, 1)) * (length - width + 1)).astype(int)
        masked |= (places >= start) & (places < start + width)
    return masked


def _room(n: int, sample_rate: int, rng: np.random.Generator) -> Batch:
    """Noise (n,) from a rumble to a hiss, with bumps; some have mains hum, some have knocks."""
    frequency = np.fft.rfftfreq(n, 1 / sample_rate)
    lowest = np.exp(rng.uniform(np.log(20), np.log(300)))  # no rumble falls for ever
    octaves = np.log2(np.maximum(frequency, lowest) / 1000)
    decibels = rng.uniform(-15, 4) * octaves
    for _ in range(rng.integers(0, 4)):
        centre, width = rng.uniform(-5, 3), rng.uniform(0.1, 1.5)
        decibels += rng.normal(0, 12) * np.exp(-0.5 * ((octaves - centre) / width) ** 2)
    spectrum = 10 ** (decibels / 20) * np.exp(2j * np.pi * rng.random(len(frequency)))
    noise = np.fft.irfft(spectrum, n)
    noise /= np.sqrt(np.mean(noise**2))
    time = np.arange(n) / sample_rate
    if rng.random() < 0.4:
        hum = _hum(time, rng)
        noise = noise * 10 ** rng.uniform(-3, 0) + hum / np.sqrt(np.mean(hum**2))
    if rng.random() < 0.25:
        for start in rng.integers(0, n, rng.integers(3, 60)):
            knock = _knock(sample_rate, rng)[: n - start]
            noise[start : start + len(knock)] += knock * rng.uniform(1, 10)
    slow = np.interp(time, np.linspace(0, time[-1], 20), rng.uniform(0.5, 1.5, 20))
    depth, beat = rng.uniform(0, 0.7) * (rng.random() < 0.3), rng.uniform(1, 20)
    slow *= 1 + depth * np.sin(2 * np.pi * beat * time)
    background: Batch = (noise * slow / np.sqrt(np.mean(noise**2))).astype(np.float32)
    return background


def _music(n: int, sample_rate: int, rng: np.random.Generator) -> Batch:
    """Chords (n,) of one to four steady voices, sines to squares, that change at will."""
    music = np.zeros(n)
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
        music[start : start + length] = chord / np.sqrt(np.mean(chord**2))
        start += length
    music += rng.standard_normal(n) * 10 ** rng.uniform(-4, -1)
    background: Batch = (music / np.sqrt(np.mean(music**2))).astype(np.float32)
    return background


def _hum(time: npt.NDArray[np.float64], rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """The harmonics of the mains or of an engine, from nearly a sine to a buzz."""
    base = rng.choice([50.0, 60.0]) if rng.random() < 0.7 else rng.uniform(20, 200)
    tones = base * (1 + rng.normal(0, 0.001)) * np.arange(1, 30)
    levels = rng.exponential(1, len(tones)) / np.arange(1, len(tones) + 1) ** rng.uniform(0.3, 4)
    hum = np.zeros(len(time))
    for tone, level in zip(tones[tones * 2 * time[1] < 1], levels, strict=False):
        hum += level * np.sin(2 * np.pi * tone * time + rng.uniform(0, 2 * np.pi))
    return hum


def _knock(sample_rate: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """A resonance that decays within 1 to 60 ms."""
    decay = 10 ** rng.uniform(-3, -1.2)
    pitch = 10 ** rng.uniform(1.7, 3.7)
    time = np.arange(int(5 * decay * sample_rate)) / sample_rate
    knock: npt.NDArray[np.float64] = np.exp(-time / decay) * np.cos(2 * np.pi * pitch * time)
    return knock


@numba.njit(nogil=True)
def _resample(clips: Batch, speed: Batch, shift: Batch, result: Batch) -> None:
    """Catmull-Rom interpolation about the middle of each clip; what comes from outside is zero."""
    n = clips.shape[1]
    for row in range(clips.shape[0]):
        clip = clips[row]
        for i in range(n):
            place = (i - n / 2 - shift[row]) * speed[row] + n / 2
            left = int(np.floor(place))
            if left < 1 or left > n - 3:
                result[row, i] = 0.0
                continue
            f = np.float32(place - left)
            a, b, c, d = clip[left - 1], clip[left], clip[left + 1], clip[left + 2]
            cubic = 3 * (b - c) + d - a
            square = 2 * a - 5 * b + 4 * c - d
            result[row, i] = b + np.float32(0.5) * f * (c - a + f * (square + f * cubic))


@numba.njit(nogil=True)
def _mix(clips: Batch, noise: Batch, hiss: Batch, levels: Batch) -> None:
    for row in range(clips.shape[0]):
        for i in range(clips.shape[1]):
            mixed = (
                levels[0, row] * clips[row, i]
                + levels[1, row] * noise[row, i]
                + levels[2, row] * hiss[row + i]
            )
            clips[row, i] = mixed
