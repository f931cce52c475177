"""Augmentation of waveforms and MFCC: the rooms, voices and microphones that the corpus lacks.

Batched array code in ``keras.ops``: the same lines run in TensorFlow on a processor and in JAX on
an accelerator. All of it is decided by one seed for each batch. What lies in memory beforehand
(backgrounds, impulse responses, spectra of pauses) is made by ``speech.training.rooms``.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from keras import ops

from speech.config import Config
from speech.features import FeatureConfig, vtlp_matrix
from speech.training.ops import Draws, Tensor, fused
from speech.training.rooms import Rooms, band_interpolation

_COSINES = 8  # a response has no finer structure that a mel filterbank would show
_VOCAL_TRACTS = 21  # lengths of the vocal tract to choose from
_LEVEL_POINTS = 12  # of the slow level of a background
_FRAME_SECONDS = 0.01  # of the automatic gain control


@dataclasses.dataclass(frozen=True)
class AugmentConfig(Config):
    """Ranges of the random changes; zero, or an empty range, switches one off.

    Attributes:
        speed: Resampling by 1 +- this, which changes tempo and pitch together.
        high_voice_probability: Share of clips that are resampled by more, up to ``high_voice``.
        high_voice: Largest factor of that; 1.35 is a child's voice, or a word said fast.
        slow_probability: Share of the clips with a raised voice whose tempo is slowed again, up to
            the original one, by interpolating the frames: pitch apart from tempo.
        vocal_tract: Formants moved by up to this share, either way, the pitch kept.
        shift_seconds: Shift in time by up to this, either way.
        neighbor_probability: Share of words that another word follows, and share of words that
            another word precedes, as in words said one after the other.
        neighbor_gap_seconds: Range of the pause between the words.
        reverb_probability: Share of words in a simulated room.
        noise_probability: Share of clips with background noise.
        snr_db: Range of the signal-to-noise ratio, uniform in dB.
        response_probability: Share of clips through a microphone, that is, a random frequency
            response.
        response_db: Standard deviation of each of the cosines over the mel scale that make the
            response; the fine ones are weaker.
        highpass_hz: Range of the lower end of a band-limited response, log-uniform.
        lowpass_hz: Range of its upper end, log-uniform.
        band_probability: Share of the responses with a lower end, and with an upper one.
        agc_probability: Share of clips behind an automatic gain control.
        clip_probability: Share of clips that are clipped hard, up to ``clip_db``.
        clip_db: How far the peak lies above the limit at most.
        gain_db: Range of the level of the whole, uniform in dB.
        silence_rms: Range of the level of silence, log-uniform.
        sensor_noise_probability: Share of clips with the white noise of a sensor under them.
        sensor_noise_rms: Range of it, log-uniform; 1 is full scale.
        edge_probability: Share of clips that begin late or end early, with zeros beyond.
        n_time_masks: Number of masked spans of time (SpecAugment, Park et al., arXiv 1904.08779).
        time_mask_seconds: Longest of them.
        n_coefficient_masks: Number of masked spans of coefficients.
        max_coefficient_mask: Longest of them.

    Raises:
        ValueError: A negative or infinite number, a range whose end lies below its start, a speed
            or a probability that is none, or an RMS of zero, which has no logarithm.
    """

    speed: float = 0.15
    high_voice_probability: float = 0.25
    high_voice: float = 1.4
    slow_probability: float = 0.5
    vocal_tract: float = 0.12
    shift_seconds: float = 0.15
    neighbor_probability: float = 0.2
    neighbor_gap_seconds: tuple[float, float] = (0.0, 0.4)
    reverb_probability: float = 0.4
    noise_probability: float = 0.7
    snr_db: tuple[float, float] = (-3.0, 30.0)
    response_probability: float = 0.6
    response_db: float = 4.0
    highpass_hz: tuple[float, float] = (40.0, 500.0)
    lowpass_hz: tuple[float, float] = (1500.0, 8000.0)
    band_probability: float = 0.35
    agc_probability: float = 0.15
    clip_probability: float = 0.1
    clip_db: float = 20.0
    gain_db: tuple[float, float] = (-30.0, 14.0)
    silence_rms: tuple[float, float] = (1e-5, 1.0)
    sensor_noise_probability: float = 0.5
    sensor_noise_rms: tuple[float, float] = (1e-5, 3e-3)
    edge_probability: float = 0.1
    n_time_masks: int = 1
    time_mask_seconds: float = 0.1
    n_coefficient_masks: int = 1
    max_coefficient_mask: int = 4

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
        if not 1 <= self.high_voice <= 2:
            raise ValueError(f"high_voice={self.high_voice} must lie in [1, 2]")

    @classmethod
    def none(cls) -> "AugmentConfig":
        """No change at all (silence is still drawn at random levels)."""
        changes: dict[str, Any] = {
            field.name: 0.0 for field in dataclasses.fields(cls) if "probability" in field.name
        }
        return cls(
            **changes, speed=0.0, vocal_tract=0.0, shift_seconds=0.0, gain_db=(0.0, 0.0),
            n_time_masks=0, n_coefficient_masks=0,
        )  # fmt: skip


class Augmenter:
    """Applies an AugmentConfig to batches; every method can be compiled.

    Args:
        config: The ranges.
        features: Rate and length of the clips.
        rooms: The backgrounds, impulse responses and spectra to draw from.
    """

    def __init__(self, config: AugmentConfig, features: FeatureConfig, rooms: Rooms) -> None:
        self.config = config
        self.features = features
        self.n_neighbors = 0
        self._n_reverb = rooms.n_samples + features.n_samples
        frequency = np.fft.rfftfreq(features.n_samples, 1 / features.sample_rate)
        mel = np.log1p(frequency / 700)
        angles = np.outer(np.arange(1, _COSINES + 1), np.pi * mel / mel[-1])
        fall = np.sqrt(np.arange(1, _COSINES + 1))[:, np.newaxis]
        self._cosines = (np.cos(angles) / fall).astype(np.float32)
        self._octaves = np.log2(np.maximum(frequency, 1)).astype(np.float32)
        factors = np.linspace(1 - config.vocal_tract, 1 + config.vocal_tract, _VOCAL_TRACTS)
        warps = np.stack([vtlp_matrix(features, factor).T for factor in factors])
        #: What does not fit into the code of a compiled function: handed to it at each call.
        self.tables: dict[str, Tensor] = {
            "warps": ops.convert_to_tensor(warps),
            "backgrounds": ops.convert_to_tensor(rooms.backgrounds),
            "pauses": ops.convert_to_tensor(rooms.pauses),
            "impulses": ops.convert_to_tensor(rooms.impulses),
            "bands": ops.convert_to_tensor(band_interpolation(features)),
            "slow": ops.convert_to_tensor(_interpolation(_LEVEL_POINTS, features.n_samples)),
        }

    # --- waveforms ------------------------------------------------------------------------------

    def waveforms(
        self, tables: Mapping[str, Tensor], clips: Tensor, spans: Tensor, silent: Tensor, seed: Any
    ) -> tuple[Tensor, Tensor]:
        """Voice, neighbors, room, background, microphone, gain control, level and sensor noise.

        Args:
            tables: ``self.tables``.
            clips: int16 (batch + 2 * k, n_samples): the batch, then k clips for its first k rows
                that are said before them, then k that are said after the rows from k // 2 on.
            spans: float32 (batch + 2 * k, 2): first and last sample of what is said in each.
            silent: float32 (batch,): 1 where the clip is to hold background alone.
            seed: Decides all of it: a scalar in [0, 2**31).

        Returns:
            The clips, float32 (batch, n_samples) in [-1, 1], and by how much the tempo of each is
            to be slowed by ``cepstra``, float32 (batch, 1).
        """
        config, draws = self.config, Draws(seed)
        count = silent.shape[0]
        voiced = (1 - silent)[:, None]
        speech, stretch = self._voices(ops.cast(clips, "float32") / 32768, spans, count, draws)
        speech = self._reverberate(tables, speech * voiced, draws)
        loudness = _rms(speech)

        snr = draws.uniform((count, 1), *config.snr_db)
        noisy = draws.chance((count, 1), config.noise_probability)
        level = ops.where(voiced > 0, noisy * loudness * _amplitude(-snr), 1.0)
        mixed = speech + level * self._backgrounds(tables, count, draws)

        noise = draws.white((count, self.features.n_samples))
        noise_level = draws.chance((count, 1), config.sensor_noise_probability)
        noise_level *= draws.log_uniform((count, 1), *config.sensor_noise_rms)
        before = draws.chance((count, 1), 0.5)
        mixed = self._edges(mixed, draws)
        silence_noise = draws.log_uniform((count, 1), 1e-3, 1.0)  # of the background's own level
        behind = ops.where(voiced > 0, noise_level, silence_noise * ops.sign(noise_level))
        mixed = self._respond(mixed + noise * behind * before, draws)
        mixed = self._limit(self._control_gain(mixed, draws), draws)

        gain = _amplitude(draws.uniform((count, 1), *config.gain_db))
        silence_level = draws.log_uniform((count, 1), *config.silence_rms)
        gain = ops.where(voiced > 0, gain, silence_level / ops.maximum(_rms(mixed), 1e-4))
        mixed = mixed * gain + noise * noise_level * (1 - before)
        return ops.clip(mixed, -1.0, 1.0), stretch

    def _voices(
        self, clips: Tensor, spans: Tensor, count: int, draws: Draws
    ) -> tuple[Tensor, Tensor]:
        """Each word at another speed and pitch, shifted, with words before and after it."""
        config, n = self.config, self.features.n_samples
        rate = self.features.sample_rate
        k = (clips.shape[0] - count) // 2
        speed = draws.uniform((count,), 1 - config.speed, 1 + config.speed)
        high = draws.chance((count,), config.high_voice_probability)
        speed = ops.where(high > 0, draws.uniform((count,), 1.0, config.high_voice), speed)
        slowed = draws.chance((count,), config.slow_probability) * draws.uniform((count,))
        stretch = 1 + (ops.maximum(speed, 1.0) - 1) * slowed
        shift = draws.uniform((count,), -1.0, 1.0) * (config.shift_seconds * rate)
        start = n / 2 - (n / 2 + shift) * speed  # of output sample 0, in samples of the clip
        if not k:
            return _resample(clips, start, speed), stretch[:, None]

        gaps = draws.uniform((2, k), *config.neighbor_gap_seconds) * rate
        first, second = slice(0, k), slice(k // 2, k // 2 + k)
        own_speeds = draws.uniform((2, k), 0.9, 1.1) * ops.stack([speed[first], speed[second]])
        begin = (spans[:count, 0] - start) / speed  # where the words lie in the output
        end = (spans[:count, 1] - start) / speed
        before = spans[count : count + k, 1] - (begin[first] - gaps[0]) * own_speeds[0]
        after = spans[count + k :, 0] - (end[second] + gaps[1]) * own_speeds[1]
        starts = ops.concatenate([start, before, after])
        moved = _resample(clips, starts, ops.concatenate([speed, own_speeds[0], own_speeds[1]]))

        loudness = _rms(clips)
        levels = loudness[:count] * _amplitude(draws.uniform((count, 1), -6.0, 6.0))
        others = moved[count:] / ops.maximum(loudness[count:], 1e-4)
        zeros = ops.zeros_like(moved[:count])
        added = ops.concatenate([others[:k], zeros[k:]]) * levels
        added += ops.concatenate([zeros[: k // 2], others[k:], zeros[k // 2 + k :]]) * levels
        return moved[:count] + added, stretch[:, None]

    def _reverberate(self, tables: Mapping[str, Tensor], speech: Tensor, draws: Draws) -> Tensor:
        count = speech.shape[0]
        impulses = tables["impulses"]
        if not self.config.reverb_probability or impulses.shape[0] < 2:
            return speech
        wet = draws.chance((count,), self.config.reverb_probability)
        index = draws.index((count,), impulses.shape[0] - 1) + 1
        index = index * ops.cast(wet, "int32")  # the first of them changes nothing
        return _convolve(speech, ops.take(impulses, index, axis=0), self._n_reverb)

    def _backgrounds(self, tables: Mapping[str, Tensor], count: int, draws: Draws) -> Tensor:
        """A crop of a background and noise of a random spectrum, of RMS 1 together."""
        n = self.features.n_samples
        stored = tables["backgrounds"]
        index = draws.index((count,), stored.shape[0])
        first = draws.index((count,), stored.shape[1] - n + 1)
        flat = ops.reshape(stored, (-1,))
        places = (index * stored.shape[1] + first)[:, None] + ops.arange(n, dtype="int32")
        crop = ops.cast(ops.take(flat, places, axis=0), "float32")
        crop /= ops.maximum(_rms(crop), 0.1)  # a quiet part keeps some of its quietness
        noise = self._noise(tables, count, draws)
        balance = draws.uniform((count, 1), -30.0, 30.0)
        both = crop * _amplitude(ops.minimum(balance, 0.0))
        both += noise * _amplitude(-ops.maximum(balance, 0.0))
        return both / ops.maximum(_rms(both), 0.1)

    def _noise(self, tables: Mapping[str, Tensor], count: int, draws: Draws) -> Tensor:
        """Noise that never was: random phase under the spectrum of a pause, or of a formula.

        Half of the spectra fall or rise steadily over the octaves, from a corner on, with humps;
        the other half are those of the pauses between people's words.
        """
        bins = len(self._octaves)
        pauses = tables["pauses"]
        corner = draws.uniform((count, 1), np.log2(30.0), np.log2(600.0))
        slope = draws.uniform((count, 1), -18.0, 4.0)
        decibels = slope * (ops.maximum(self._octaves[None], corner) - 10)
        decibels += 4.0 * ops.matmul(draws.normal((count, _COSINES)), self._cosines)
        if pauses.shape[0]:
            drawn = ops.take(pauses, draws.index((count,), pauses.shape[0]), axis=0)
            drawn = ops.matmul(ops.cast(drawn, "float32"), tables["bands"])
            decibels = ops.where(draws.chance((count, 1), 0.5) > 0, drawn, decibels)
        amplitude = _amplitude(ops.clip(decibels - ops.max(decibels, 1, keepdims=True), -120, 0))
        parts = draws.white((2, count, bins)) * amplitude
        noise = ops.irfft((parts[0], parts[1]), self.features.n_samples)
        waver = draws.uniform((count, 1), 0.0, 6.0) * draws.chance((count, 1), 0.5)
        level = ops.matmul(waver * draws.normal((count, _LEVEL_POINTS)), tables["slow"])
        return noise / ops.maximum(_rms(noise), 1e-9) * _amplitude(ops.clip(level, -30, 15))

    def _edges(self, clips: Tensor, draws: Draws) -> Tensor:
        """Zeros at the beginning or at the end, lest zeros there mean a word, or silence."""
        count, n = clips.shape
        cut = draws.uniform((count, 1), -1.0, 1.0) * 0.15 * n
        cut *= draws.chance((count, 1), self.config.edge_probability)
        places = ops.arange(n, dtype="float32")[None]
        inside = ops.logical_and(places >= cut, places < n + cut)
        return ops.where(inside, clips, 0.0)

    def _respond(self, clips: Tensor, draws: Draws) -> Tensor:
        """Some of the clips through random microphones.

        Real ones differ by tens of dB: smooth humps, a rumble filter, the band of a telephone. The
        ends of a band fall by 6 dB an octave at least, and a third of them like a wall, as after
        resampling.
        """
        config, count = self.config, clips.shape[0]
        if not config.response_probability:
            return clips
        decibels = config.response_db * ops.matmul(draws.normal((count, _COSINES)), self._cosines)
        for side, limits in ((-1, config.highpass_hz), (1, config.lowpass_hz)):
            edge = ops.log2(draws.log_uniform((count, 1), *limits))
            slope = draws.log_uniform((count, 1), 6.0, 100.0)
            slope = ops.where(draws.uniform((count, 1)) < 1 / 3, 2000.0, slope)
            slope *= draws.chance((count, 1), config.band_probability)
            decibels -= slope * ops.maximum(side * (self._octaves[None] - edge), 0.0)
        decibels *= draws.chance((count, 1), config.response_probability)
        return _filter(clips, decibels)

    def _control_gain(self, clips: Tensor, draws: Draws) -> Tensor:
        """Some of the clips behind an automatic gain control, which raises what is quiet."""
        config, (count, n) = self.config, clips.shape
        hop = round(_FRAME_SECONDS * self.features.sample_rate)
        if not config.agc_probability or n % hop:
            return clips
        frames = n // hop
        energy = ops.mean(ops.square(ops.reshape(clips, (count, frames, hop))), axis=2)
        behind = np.subtract.outer(np.arange(frames), np.arange(frames)).T  # (from, to): frames ago
        release = np.where(behind >= 0, np.exp(-np.maximum(behind, 0) / 20.0), 0)  # 0.2 s
        release = (release / release.sum(axis=0)).astype(np.float32)
        loudest = ops.max(energy, axis=1, keepdims=True) + 1e-10
        decibels = 10 * ops.log10(ops.matmul(energy, release) / loudest + 1e-3)  # -30 to 0 dB
        strength = draws.uniform((count, 1), 0.2, 0.9)
        strength *= draws.chance((count, 1), config.agc_probability)
        gain = ops.matmul(-strength * decibels, _interpolation(frames, n))
        return clips * _amplitude(gain)

    def _limit(self, clips: Tensor, draws: Draws) -> Tensor:
        """Some of the clips clipped hard, at their own level."""
        config, count = self.config, clips.shape[0]
        over = draws.uniform((count, 1), 0.0, config.clip_db)
        clipped = draws.chance((count, 1), config.clip_probability)
        peak = ops.max(ops.abs(clips), axis=1, keepdims=True)
        limit = peak * _amplitude(-over * clipped)
        return ops.clip(clips, -limit, limit)

    # --- cepstra --------------------------------------------------------------------------------

    def cepstra(
        self, tables: Mapping[str, Tensor], mfcc: Tensor, stretch: Tensor, fill: Tensor, seed: Any
    ) -> Tensor:
        """Slower tempo, another vocal tract (VTLP) and masks (SpecAugment).

        Args:
            tables: ``self.tables``.
            mfcc: float32 (batch, n_frames, n_mfcc).
            stretch: The tempo is slowed by this about the middle, float32 (batch, 1).
            fill: What masked places become: the mean of the features, (n_mfcc,).
            seed: Decides all of it, apart from the seed of ``waveforms``.

        Returns:
            float32 of the shape of ``mfcc``.
        """
        config, draws = self.config, Draws(seed)
        count, n_frames, n_mfcc = mfcc.shape
        if config.high_voice_probability and config.slow_probability:
            middle = (n_frames - 1) / 2
            places = (ops.arange(n_frames, dtype="float32")[None] - middle) / stretch + middle
            left = ops.clip(ops.floor(places), 0, n_frames - 2)
            part = (places - left)[:, :, None]
            index = ops.cast(left, "int32")[:, :, None]
            below = ops.take_along_axis(mfcc, index, axis=1)
            above = ops.take_along_axis(mfcc, index + 1, axis=1)
            mfcc = below + part * (above - below)
        if config.vocal_tract:
            warps = ops.take(tables["warps"], draws.index((count,), _VOCAL_TRACTS), axis=0)
            mfcc = ops.matmul(mfcc, warps)
        longest = round(config.time_mask_seconds / self.features.hop_seconds)
        masked = _spans(count, n_frames, config.n_time_masks, longest, draws)[:, :, None]
        size = config.max_coefficient_mask
        rows = _spans(count, n_mfcc, config.n_coefficient_masks, size, draws)[:, None, :]
        masked = ops.maximum(masked, rows)
        return mfcc * (1 - masked) + masked * fill


def _rms(clips: Tensor) -> Tensor:
    return ops.sqrt(ops.mean(ops.square(clips), axis=1, keepdims=True))


def _amplitude(decibels: Tensor) -> Tensor:
    return ops.exp(decibels * float(np.log(10) / 20))


@fused
def _convolve(clips: Tensor, response: Tensor, n_fft: int) -> Tensor:
    """Clips (batch, n) with responses whose spectra are (batch, 2, n_bins), the first n samples."""
    real, imaginary = ops.rfft(clips, n_fft)
    response = ops.cast(response, "float32")
    a, b = response[:, 0], response[:, 1]
    product = real * a - imaginary * b, real * b + imaginary * a
    return ops.irfft(product, n_fft)[:, : clips.shape[1]]


@fused
def _filter(clips: Tensor, decibels: Tensor) -> Tensor:
    """Clips (batch, n) with the gain of each bin in dB, (batch, n // 2 + 1), at least -120."""
    n = clips.shape[1]
    gain = _amplitude(ops.maximum(decibels, -120.0))
    real, imaginary = ops.rfft(clips, n)
    return ops.irfft((real * gain, imaginary * gain), n)


def _interpolation(points: int, n: int) -> npt.NDArray[np.float32]:
    """The matrix (points, n) that draws straight lines through points at equal distances."""
    places = np.linspace(0, points - 1, n)
    rows = [np.interp(places, np.arange(points), row) for row in np.eye(points)]
    return np.stack(rows).astype(np.float32)


@fused
def _resample(clips: Tensor, start: Tensor, speed: Tensor) -> Tensor:
    """Catmull-Rom interpolation at start + i * speed; what comes from outside is zero."""
    n = clips.shape[1]
    places = start[:, None] + ops.arange(n, dtype="float32")[None] * speed[:, None]
    left = ops.floor(places)
    inside = ops.logical_and(left >= 1, left <= n - 3)
    f = places - left
    index = ops.cast(ops.clip(left, 1, n - 3), "int32")
    index = index + n * ops.arange(clips.shape[0], dtype="int32")[:, None]
    flat = ops.reshape(clips, (-1,))  # one axis: gathers of several are far slower in TensorFlow
    a, b, c, d = (ops.take(flat, index + i, axis=0) for i in (-1, 0, 1, 2))
    cubic = 3 * (b - c) + d - a
    square = 2 * a - 5 * b + 4 * c - d
    return ops.where(inside, b + 0.5 * f * (c - a + f * (square + f * cubic)), 0.0)


def _spans(count: int, length: int, n_spans: int, longest: int, draws: Draws) -> Tensor:
    """float32 (count, length): 1 in the masked spans."""
    places = ops.arange(length, dtype="float32")[None]
    masked = ops.zeros((count, length))
    for _ in range(n_spans):
        width = ops.floor(draws.uniform((count, 1), 0.0, longest + 1.0))
        start = ops.floor(draws.uniform((count, 1)) * (length - width + 1))
        inside = ops.logical_and(places >= start, places < start + width)
        masked = ops.maximum(masked, ops.cast(inside, "float32"))
    return masked
