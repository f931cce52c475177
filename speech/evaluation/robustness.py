"""Robustness: accuracy under noise, gain, codecs and reverberation; false accepts on noise."""

import dataclasses
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile
import soxr
from numpy.lib.stride_tricks import sliding_window_view

from speech.audio import load_audio, to_float
from speech.data.evaluation_set import ClipSet
from speech.data.recordings import Recordings
from speech.evaluation.metrics import clip_metrics, wilson_interval
from speech.labels import commands
from speech.recognizer import Recognizer

Batch = npt.NDArray[np.float32]
Change = Callable[[Batch, np.random.Generator], Batch]

NOISE_RMS = (0.0002, 0.0016, 0.01, 0.1)
_CLIPS_EACH = 50
# What libsndfile's levels mean at 16 kHz: Opus has 6000 + (1 - level) * 250000 bit/s a channel, MP3
# one of the rates between 160 kbit/s (0) and 8 (1); both levels here are 16 kbit/s.
_OPUS = {"format": "OGG", "subtype": "OPUS", "compression_level": 0.96}
_MP3 = {
    "format": "MP3", "subtype": "MPEG_LAYER_III", "bitrate_mode": "CONSTANT",
    "compression_level": 0.95,
}  # fmt: skip
_MP3_DELAY = 1_105  # samples that LAME and its decoder put before the sound
_GSM = {"format": "WAV", "subtype": "GSM610"}


@dataclasses.dataclass(frozen=True)
class Condition:
    """How the model fares in one condition.

    Attributes:
        name: What was done to the clips.
        accuracy: Share of clips that are still right, in [0, 1].
        low: Lower end of its 95 % interval.
        high: Upper end.
        recall: Of each label; 0.0 where it has no clips.
    """

    name: str
    accuracy: float
    low: float
    high: float
    recall: dict[str, float]


@dataclasses.dataclass(frozen=True)
class NoiseCondition:
    """How often background noise without speech is called a command.

    Attributes:
        name: The kind of background.
        rms: Its level, 1 being full scale.
        n: Number of clips.
        false_accepts: How many of them were called a command.
        high: Upper end of the 95 % interval of their share.
    """

    name: str
    rms: float
    n: int
    false_accepts: int
    high: float


def conditions(
    recognizer: Recognizer,
    recordings: Recordings,
    clips: ClipSet,
    seed: int = 0,
    only: tuple[str, ...] = ("",),
) -> Iterator[Condition]:
    """Measure the model on the clips in one condition after the other, the first unchanged.

    Args:
        recognizer: The model.
        recordings: Gives the background noise: the part that never trains.
        clips: What to change, at the model's rate and length.
        seed: Decides noise, shifts and rooms.
        only: Parts of the names of the conditions that are wanted.
    """
    for name, change in _changes(recognizer, recordings).items():
        if not any(part in name for part in only):
            continue
        changed = change(clips.waveforms, np.random.default_rng([seed, 0x0B]))
        probabilities = recognizer.probabilities(np.clip(changed, -1, 1).astype(np.float32))
        m = clip_metrics(probabilities, clips.truth, recognizer.labels)
        recall = dict(zip(m.labels, m.recall, strict=True))
        yield Condition(name, m.accuracy, m.accuracy_low, m.accuracy_high, recall)


def false_accepts_on_noise(recognizer: Recognizer, seed: int = 0) -> Iterator[NoiseCondition]:
    """Measure how often synthetic backgrounds, quiet and loud, are called a command.

    Each kind is recorded through the same few microphone responses at each level.
    """
    features = recognizer.features
    command_columns = [recognizer.labels.index(name) for name in commands(recognizer.labels)]
    for name, make in _BACKGROUNDS.items():
        rng = np.random.default_rng([seed, 0x500])
        sources = [make(features.n_samples, features.sample_rate, rng) for _ in range(_CLIPS_EACH)]
        recorded = np.stack([_microphone(x, features.sample_rate, rng) for x in sources])
        recorded /= np.sqrt(np.mean(recorded**2, axis=1, keepdims=True))
        for rms in NOISE_RMS:
            waveforms = np.clip(rms * recorded, -1, 1).astype(np.float32)
            called = recognizer.probabilities(waveforms).argmax(axis=1)
            false = int(np.isin(called, command_columns).sum())
            _, high = wilson_interval(false, _CLIPS_EACH)
            yield NoiseCondition(name, rms, _CLIPS_EACH, false, high)


def _changes(recognizer: Recognizer, recordings: Recordings) -> dict[str, Change]:
    rate, n_samples = recognizer.features.sample_rate, recognizer.features.n_samples
    noise = [to_float(part) for part in recordings.noise_for("validation")]

    def through(path: Callable[[Batch], Any]) -> Change:
        return lambda x, _: np.stack([_fit(path(clip), n_samples) for clip in x])

    return {
        "unchanged": lambda x, _: x,
        **{f"noise, {snr} dB SNR": _noisy(noise, snr) for snr in (20, 10, 5, 0)},
        **{f"gain {db:+d} dB": _gain(db) for db in (-20, -10, 6, 12)},
        **{f"shifted by {ms:+d} ms": _shifted(round(ms / 1000 * rate)) for ms in (-150, 150)},
        "telephone band (8 kHz)": through(
            lambda clip: soxr.resample(soxr.resample(clip, rate, 8_000), 8_000, rate)
        ),
        "44.1 kHz stereo": through(_stereo(rate, 44_100)),
        "48 kHz stereo": through(_stereo(rate, 48_000)),
        "Opus, 16 kbit/s": through(lambda clip: _coded(clip, rate, _OPUS)),
        "MP3, 16 kbit/s": through(lambda clip: _coded(clip, rate, _MP3)[_MP3_DELAY:]),
        "GSM 06.10 (8 kHz, 13 kbit/s)": through(
            lambda clip: soxr.resample(
                _coded(soxr.resample(clip, rate, 8_000), 8_000, _GSM), 8_000, rate
            )
        ),
        "voice 5 semitones higher": through(_higher(rate, 5)),
        "speed 1.4, pitch with it": through(lambda clip: soxr.resample(clip, rate * 1.4, rate)),
        "clipped, 20 dB over full scale": lambda x, _: np.clip(
            10 * x / np.maximum(np.abs(x).max(axis=1, keepdims=True), 1e-6), -1, 1
        ),
        "room with 0.3 s of reverberation": lambda x, rng: np.stack(
            [_reverberate(clip, rate, rng) for clip in x]
        ),
    }


def _noisy(noise: Sequence[Batch], snr_db: float) -> Change:
    def change(x: Batch, rng: np.random.Generator) -> Batch:
        n_samples = x.shape[1]
        crops = np.empty_like(x)
        for row in range(len(x)):
            part = noise[int(rng.integers(len(noise)))]
            start = int(rng.integers(max(1, len(part) - n_samples)))
            crops[row] = np.resize(part[start : start + n_samples], n_samples)
        level = _rms(x) / np.maximum(_rms(crops), 1e-6) * np.float32(10 ** (-snr_db / 20))
        return (x + crops * level).astype(np.float32)

    return change


def _gain(db: float) -> Change:
    return lambda x, _: x * np.float32(10 ** (db / 20))


def _shifted(samples: int) -> Change:
    return lambda x, _: _shift(x, samples)


def _stereo(rate: int, other: int) -> Callable[[Batch], Any]:
    def path(clip: Batch) -> Batch:
        channel = soxr.resample(clip, rate, other)
        return load_audio((np.stack([channel, 0.8 * channel], axis=1), other), rate)

    return path


def _higher(rate: int, semitones: float) -> Callable[[Batch], Any]:
    factor = 2 ** (semitones / 12)
    return lambda clip: soxr.resample(_stretched(clip, factor), rate * factor, rate)


def _rms(x: Batch) -> Batch:
    power: Batch = np.mean(x**2, axis=1, keepdims=True)
    return np.sqrt(power)


def _shift(x: Batch, samples: int) -> Batch:
    shifted = np.zeros_like(x)
    if samples > 0:
        shifted[:, samples:] = x[:, :-samples]
    else:
        shifted[:, :samples] = x[:, -samples:]
    return shifted


def _fit(clip: Batch, n_samples: int) -> Batch:
    """Cut, or pad at both ends."""
    missing = max(0, n_samples - len(clip))
    return np.pad(clip[:n_samples], (missing // 2, missing - missing // 2))


def _stretched(clip: Batch, factor: float) -> Batch:
    """The same pitch over ``factor`` times the time, by a phase vocoder.

    J. L. Flanagan and R. M. Golden, "Phase vocoder", Bell System Technical Journal 45 (1966).
    """
    hop, size = 128, 512
    window = np.hanning(size + 1)[:-1]
    frames = sliding_window_view(np.pad(clip, (size, size + hop)), size)[::hop] * window
    spectra = np.fft.rfft(frames)  # (n_frames, n_bins)
    places = np.arange(0, len(spectra) - 1, 1 / factor)
    whole, part = places.astype(int), (places % 1)[:, np.newaxis]
    magnitude = (1 - part) * np.abs(spectra[whole]) + part * np.abs(spectra[whole + 1])
    advance = np.angle(spectra[whole + 1]) - np.angle(spectra[whole])  # (n, n_bins), a hop each
    phase = np.angle(spectra[0]) + np.concatenate(
        [np.zeros((1, spectra.shape[1])), np.cumsum(advance, axis=0)[:-1]]
    )
    pieces = np.fft.irfft(magnitude * np.exp(1j * phase), size) * window
    out = np.zeros(hop * (len(pieces) - 1) + size)
    weight = np.zeros_like(out)
    for index, piece in enumerate(pieces):
        out[index * hop : index * hop + size] += piece
        weight[index * hop : index * hop + size] += window**2
    start = round(size * factor)
    stretched = (out / np.maximum(weight, 1e-3))[start : start + round(len(clip) * factor)]
    return stretched.astype(np.float32)


def _coded(clip: Batch, rate: int, codec: Mapping[str, Any]) -> Batch:
    """What a lossy codec leaves of it."""
    file = io.BytesIO()
    soundfile.write(file, clip, rate, **codec)
    return load_audio(file.getvalue(), rate)


def _reverberate(clip: Batch, rate: int, rng: np.random.Generator) -> Batch:
    """Convolve with decaying noise (RT60 0.3 s), together 3 dB under the direct sound."""
    time = np.arange(round(0.4 * rate)) / rate
    tail = rng.standard_normal(len(time)) * 10 ** (-3 * time / 0.3)
    tail[: round(0.003 * rate)] = 0
    tail *= 10 ** (-3 / 20) / np.sqrt(np.sum(tail**2))
    tail[0] = 1
    n = len(clip) + len(tail)
    wet = np.fft.irfft(np.fft.rfft(clip, n) * np.fft.rfft(tail, n), n)
    return wet[: len(clip)].astype(np.float32)


# --- backgrounds: made in another way than those that train ---------------------------------------


def _coloured(exponent: float) -> Callable[[int, int, np.random.Generator], Batch]:
    def make(n: int, rate: int, rng: np.random.Generator) -> Batch:
        spectrum = np.fft.rfft(rng.standard_normal(n))
        frequency = np.maximum(np.fft.rfftfreq(n, 1 / rate), 20)
        return np.fft.irfft(spectrum * frequency ** (-exponent / 2), n).astype(np.float32)

    return make


def _mains(n: int, rate: int, rng: np.random.Generator) -> Batch:
    """A clipped sine of 49 to 61 Hz in a little hiss: a transformer, a bad cable."""
    time = np.arange(n) / rate
    sine = np.sin(2 * np.pi * rng.uniform(49, 61) * time + rng.uniform(0, 6))
    hum = np.clip(sine, -rng.uniform(0.2, 1), rng.uniform(0.2, 1))
    return (hum + 10 ** rng.uniform(-3, -1) * rng.standard_normal(n)).astype(np.float32)


def _fan(n: int, rate: int, rng: np.random.Generator) -> Batch:
    """Low-passed noise whose level wavers a few times a second."""
    noise = _coloured(1.5)(n, rate, rng)
    waver = 1 + 0.4 * np.sin(2 * np.pi * rng.uniform(2, 12) * np.arange(n) / rate)
    return (noise * waver).astype(np.float32)


def _clicks(n: int, _: int, rng: np.random.Generator) -> Batch:
    """Keys and crackle: a few dozen impulses in faint hiss."""
    clicks = 0.02 * rng.standard_normal(n)
    clicks[rng.integers(0, n, 30)] += rng.normal(0, 3, 30)
    return clicks.astype(np.float32)


_BACKGROUNDS = {
    "electronic floor (white)": _coloured(0),
    "pink noise": _coloured(1),
    "brown noise": _coloured(2),
    "blue noise": _coloured(-1),
    "mains hum": _mains,
    "fan": _fan,
    "clicks": _clicks,
}


def _microphone(x: Batch, rate: int, rng: np.random.Generator) -> Batch:
    """One of four responses: flat, a telephone's, a laptop's resonance, a muffled pocket."""
    frequency = np.fft.rfftfreq(len(x), 1 / rate)
    octave = np.log2(np.maximum(frequency, 1) / 1000)
    responses = (
        np.zeros_like(frequency),
        np.where((frequency < 300) | (frequency > 3400), -40.0, 0.0),
        12 * np.exp(-0.5 * ((octave - 1.5) / 0.4) ** 2) - 6 * (frequency < 150),
        -12 * np.maximum(octave, 0),
    )
    response = 10 ** (responses[rng.integers(len(responses))] / 20)
    return np.fft.irfft(np.fft.rfft(x) * response, len(x)).astype(np.float32)
