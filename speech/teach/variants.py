"""Variants of a take: other places in the clip, speeds, levels, rooms and noise, by numpy alone."""

import numpy as np
import numpy.typing as npt

from speech.audio import JUST_BELOW_ONE, Waveform, resample, rms
from speech.teach.takes import RATE, extent

Clips = npt.NDArray[np.float32]
_SHIFT_SECONDS = 0.12
_SPEEDS = (0.87, 1.15)  # tempo and pitch together, as another vocal tract has them
_GAIN_DB = (-16.0, 8.0)
_SNR_DB = (15.0, 40.0)
_REVERBERANT_SHARE = 0.2
_REVERBERATION_SECONDS = (0.1, 0.4)


def place(take: Waveform, n_samples: int, shift: int = 0) -> Clips:
    """A clip with the word of a take in its middle, or so many samples behind it.

    Around the word lies what was recorded there, and beyond the recording digital silence.
    """
    start, end = extent(take) or (0, len(take))
    begin = (start + end - n_samples) // 2 - shift
    clip = np.zeros(n_samples, np.float32)
    recorded = take[max(0, begin) : max(0, begin + n_samples)]
    clip[max(0, -begin) :][: len(recorded)] = recorded
    return clip


def variants(take: Waveform, n_samples: int, n: int, rng: np.random.Generator) -> Clips:
    """The take itself, as a clip, and n variants of it.

    Args:
        take: float32 (m,) at 16 kHz, as spoken.
        n_samples: Length of the clips.
        n: How many variants.
        rng: Decides which.

    Returns:
        float32 (n + 1, n_samples), the first one unchanged.
    """
    clips = np.empty((n + 1, n_samples), np.float32)
    clips[0] = place(take, n_samples)
    limit = round(_SHIFT_SECONDS * RATE)
    for row in range(1, n + 1):
        speed = rng.uniform(*_SPEEDS)
        faster = resample(take, round(RATE * speed), RATE)
        clip = place(faster, n_samples, int(rng.integers(-limit, limit + 1)))
        if rng.random() < _REVERBERANT_SHARE:
            clip = _reverberate(clip, rng)
        clip = clip * 10 ** (rng.uniform(*_GAIN_DB) / 20)
        clips[row] = np.clip(_with_noise(clip, rng), -1, JUST_BELOW_ONE)
    return clips


def noise(n: int, rng: np.random.Generator) -> Waveform:
    """A synthetic background of RMS one, float32 (n,): a room, a fan, traffic or hum."""
    frequency = np.maximum(np.fft.rfftfreq(n, 1 / RATE), 20)
    spectrum = np.fft.rfft(rng.standard_normal(n)) * frequency ** rng.uniform(-1.2, 0.3)
    # a broad resonance or a dip, and no two rooms alike
    octaves = np.log2(frequency / rng.uniform(100, 4000))
    spectrum *= 10 ** (rng.uniform(-15, 15) / 20 * np.exp(-0.5 * octaves**2))
    background = np.fft.irfft(spectrum, n)
    if rng.random() < 0.2:
        time = np.arange(n) / RATE
        hum = sum(np.sin(2 * np.pi * rng.uniform(49, 61) * k * time) / k for k in (1, 2, 3, 5))
        background = background / rms(background) + rng.uniform(0, 2) * hum
    normal: Waveform = (background / rms(background)).astype(np.float32)
    return normal


def _with_noise(clip: Clips, rng: np.random.Generator) -> Clips:
    level = float(rms(clip)[0]) * 10 ** (-rng.uniform(*_SNR_DB) / 20)
    mixed: Clips = clip + level * noise(len(clip), rng)
    return mixed


def _reverberate(clip: Clips, rng: np.random.Generator) -> Clips:
    """Convolve with decaying noise behind the direct sound."""
    seconds = rng.uniform(*_REVERBERATION_SECONDS)
    time = np.arange(round(seconds * RATE)) / RATE
    tail = rng.standard_normal(len(time)) * 10 ** (-3 * time / seconds)
    tail *= 10 ** (rng.uniform(-12, 0) / 20) / np.sqrt(np.sum(tail**2))
    tail[0] = 1
    n = len(clip) + len(tail)
    wet = np.fft.irfft(np.fft.rfft(clip, n) * np.fft.rfft(tail, n), n)
    reverberant: Clips = wet[: len(clip)].astype(np.float32)
    return reverberant
