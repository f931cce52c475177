"""Augmentation of waveforms and MFCC: the rooms, voices and microphones that the corpus lacks.

Everything is drawn from the generator that the caller passes, batch by batch, so that a seed
decides all of it. The two loops over samples are compiled by numba and release the interpreter's
lock: training goes on meanwhile.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from speech.features import FeatureConfig, check_fields

Batch = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
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
        response_db: Standard deviation of a random smooth frequency response, per cepstral
            coefficient (a microphone multiplies the spectrum, so it adds to the cepstrum).
        time_masks: Number of masked spans of time (SpecAugment, Park et al., arXiv 1904.08779).
        time_mask_seconds: Longest of them.
        coefficient_masks: Number of masked spans of coefficients.
        coefficient_mask: Longest of them.

    Raises:
        ValueError: A negative or infinite number, a range whose end lies below its start, a speed
            or a probability that is none, or an RMS of zero, which has no logarithm.
    """

    speed: float = 0.15
    shift_seconds: float = 0.1
    noise_probability: float = 0.7
    snr_db: tuple[float, float] = (-3.0, 30.0)
    gain_db: tuple[float, float] = (-30.0, 10.0)
    floor_probability: float = 0.5
    floor_rms: tuple[float, float] = (1e-5, 3e-3)
    silence_rms: tuple[float, float] = (1e-5, 0.3)
    response_db: float = 6.0
    time_masks: int = 2
    time_mask_seconds: float = 0.15
    coefficient_masks: int = 1
    coefficient_mask: int = 4

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            low, high = value if isinstance(value, tuple) else (0, value)
            if field.name.endswith("_rms") and not low > 0:
                raise ValueError(f"{field.name}={value} must begin above 0")
            if not -1e6 < low <= high < 1e6:
                raise ValueError(f"{field.name}={value} must be a range from low to high, or >= 0")
        if not (self.speed < 1 and max(self.noise_probability, self.floor_probability) <= 1):
            raise ValueError(
                f"speed={self.speed} < 1, noise_probability={self.noise_probability} <= 1 and "
                f"floor_probability={self.floor_probability} <= 1 must hold"
            )

    def to_dict(self) -> dict[str, Any]:
        """The fields as a JSON-able dict."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "AugmentConfig":
        """The inverse of ``to_dict``; ValueError names unknown and missing fields."""
        known = check_fields(cls, fields)
        for name, value in known.items():
            known[name] = tuple(value) if isinstance(value, list) else value
        return cls(**known)

    @classmethod
    def none(cls) -> "AugmentConfig":
        """No change at all (silence is still drawn at random levels)."""
        return cls(
            speed=0.0, shift_seconds=0.0, noise_probability=0.0, gain_db=(0.0, 0.0),
            floor_probability=0.0, response_db=0.0, time_masks=0, coefficient_masks=0,
        )  # fmt: skip


class Augmenter:
    """Applies an AugmentConfig to batches.

    Args:
        config: The ranges.
        features: Rate and length of the clips.
        noise: Backgrounds, int16 or float32 (n,); those shorter than a clip are left out.
            Synthesised backgrounds are added to them: coloured noise and mains hum, since a
            handful of recordings teaches a network those recordings and not what a room is.
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
        made = [_synthetic_background(length, features.sample_rate, rng) for _ in range(16)]
        self._noise = [(n / max(float(np.sqrt(np.mean(n**2))), 1e-6)) for n in recorded + made]
        # recordings are worth more than synthesis: as often, though they are fewer
        shares = [1 / max(1, len(recorded))] * len(recorded) + [1 / len(made)] * len(made)
        self._shares = np.array(shares) / sum(shares)

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
        """Clips of backgrounds alone, float32 (count, n_samples), from inaudible to loud."""
        rms = _log_uniform(self.config.silence_rms, (count, 1), rng)
        clips = self.backgrounds(count, rng)
        clips *= rms
        return np.clip(clips, -1, 1, out=clips)

    def waveforms(self, clips: Batch, rng: np.random.Generator) -> Batch:
        """Speed, shift, background, level and hiss, in this order; float32 (batch, n_samples)."""
        config, count = self.config, len(clips)
        if clips.shape != (count, self.features.n_samples):  # the loops below do not look
            raise ValueError(
                f"expected clips (batch, {self.features.n_samples}), got shape {clips.shape}"
            )
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
        hiss = rng.standard_normal(self.features.n_samples + count, np.float32)
        backgrounds = self.backgrounds(count, rng)
        levels = np.stack([gain, gain * noise_level, hiss_level]).astype(np.float32)
        _mix(moved, backgrounds, hiss, levels)
        return moved

    def cepstra(self, mfcc: Batch, fill: Batch, rng: np.random.Generator) -> Batch:
        """Random microphone response and masks, in place; float32 (batch, n_frames, n_mfcc).

        Args:
            mfcc: The batch.
            fill: What masked places become: the mean of the features, (n_mfcc,).
            rng: Decides all of it.
        """
        config = self.config
        count, n_frames, n_mfcc = mfcc.shape
        smooth = min(8, n_mfcc - 1)  # a response has no fine structure; the level is the gain's
        rolloff = 1 / np.sqrt(np.arange(1, smooth + 1))
        response = rng.standard_normal((count, 1, smooth)) * rolloff * config.response_db
        mfcc[:, :, 1 : smooth + 1] += response.astype(np.float32)
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


def _synthetic_background(n: int, sample_rate: int, rng: np.random.Generator) -> Batch:
    """Noise (n,) with a random spectral slope, some bumps, and sometimes mains hum."""
    frequency = np.fft.rfftfreq(n, 1 / sample_rate)
    octaves = np.log2(np.maximum(frequency, 20) / 1000)
    decibels = rng.uniform(-9, 3) * octaves
    for _ in range(rng.integers(0, 4)):
        centre, width = rng.uniform(-5, 3), rng.uniform(0.1, 1.5)
        decibels += rng.normal(0, 12) * np.exp(-0.5 * ((octaves - centre) / width) ** 2)
    spectrum = 10 ** (decibels / 20) * np.exp(2j * np.pi * rng.random(len(frequency)))
    noise = np.fft.irfft(spectrum, n)
    noise /= np.sqrt(np.mean(noise**2))
    if rng.random() < 0.4:
        mains = rng.choice([50.0, 60.0]) * np.arange(1, 30)
        mains *= 1 + rng.normal(0, 0.001)
        slope = rng.uniform(0.3, 2)
        levels = rng.exponential(1, len(mains)) / np.arange(1, len(mains) + 1) ** slope
        phases = rng.uniform(0, 2 * np.pi, len(mains))
        time = np.arange(n) / sample_rate
        hum = np.zeros(n)
        for tone, level, phase in zip(mains, levels, phases, strict=True):
            hum += level * np.sin(2 * np.pi * tone * time + phase)
        noise = noise * rng.uniform(0.05, 1) + hum / np.sqrt(np.mean(hum**2))
    slow = np.interp(np.arange(n), np.linspace(0, n, 20), rng.uniform(0.5, 1.5, 20))
    return (noise * slow).astype(np.float32)


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
            clips[row, i] = min(max(mixed, np.float32(-1)), np.float32(1))
