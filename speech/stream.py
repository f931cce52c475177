"""Live decoding: chunks of audio of any size in, detections out, whatever the chunking.

The network looks at the last clip of audio every step. A word stays in that window for about as
long as the window is, so the probabilities of one utterance form one long plateau, and the rule
that turns plateaus into detections is the heart of this module: see ``StreamDecoder``.
"""

import abc
import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import soxr

from speech.audio import JUST_BELOW_ONE, Downmix, Waveform, scale_to_float, to_mono, warn
from speech.detection import (
    DecoderConfig,
    Detection,
    PosteriorDecoder,
    Posteriors,
    samples_per_step,
)
from speech.errors import AudioError, ModelError
from speech.recognizer import Recognizer

# Of 1500 clips of Speech Commands none is as empty above 3 kHz, and 94 % of them are where sound at
# 44.1 or 48 kHz is taken for 16 kHz.
TREBLE_HZ, _TREBLE_DB = 3000.0, -60.0
_AUDIBLE_RMS = 1e-3
_UNRATED_SECONDS = 3.0


def lacks_treble(sound: npt.NDArray[np.floating[Any]], rate: int) -> bool:
    """Whether there is practically no power above 3 kHz, as in sound that is played too slowly.

    Args:
        sound: Mono samples (n,) in [-1, 1], a second of speech or more.
        rate: Their supposed rate in Hz.
    """
    if not len(sound) or float(np.sqrt(np.mean(np.square(sound)))) < _AUDIBLE_RMS:
        return False
    size = 512
    frames = sound[: len(sound) // size * size].reshape(-1, size) * np.hanning(size)
    power = (np.abs(np.fft.rfft(frames)) ** 2).sum(axis=0)
    frequency = np.fft.rfftfreq(size, 1 / rate)
    treble, rest = power[frequency > TREBLE_HZ].sum(), power[frequency > 60].sum()
    return bool(treble < 10 ** (_TREBLE_DB / 10) * rest)


def plain_config(recognizer: Recognizer) -> DecoderConfig:
    """The settings of a model that carries none; a causal one decides the step."""
    step = recognizer.step_seconds
    if step is None:
        return DecoderConfig()
    spans = max(1, round(DecoderConfig.smoothing_seconds / step))
    return DecoderConfig(step_seconds=step, smoothing_seconds=spans * step)


def chosen_for(recognizer: Recognizer) -> DecoderConfig:
    """The settings that the model carries.

    Raises:
        ModelError: They are no settings of a decoder.
    """
    try:
        if recognizer.decoder:
            return DecoderConfig.from_dict(recognizer.decoder)
        return plain_config(recognizer)
    except ValueError as error:
        raise ModelError(
            f"{recognizer.name}: expected a decoder's settings in the model, got others ({error}); "
            "take the file from where it came again, or train the model again"
        ) from error


class StreamClassifier(abc.ABC):
    """What the network says of a stream, an answer at every step; made by ``classifier_for``.

    An answer is that for the clip of audio that ends with the step. The stream is taken to be
    preceded by digital silence, so that chunks have no influence on what the network sees. Memory
    does not grow with the stream.

    Args:
        recognizer: The model. It is asked once at once, for the answer to digital silence, which
            also warms it up.
        step_seconds: From one answer to the next.
        batch_size: Most answers in one call of the network.

    Attributes:
        silence_posterior: Probabilities float64 (n_classes,) of digital silence.
        ended: Whether the stream was flushed; the next chunk then begins a new one.
        level: Root mean square of the last whole step.

    Raises:
        ValueError: A step that is no whole number of samples or longer than the clip, or a batch
            size out of range.
    """

    def __init__(self, recognizer: Recognizer, step_seconds: float, batch_size: int = 1) -> None:
        if batch_size not in range(1, 1025):
            raise ValueError(f"batch_size={batch_size!r} must be an integer in [1, 1024]")
        self.recognizer = recognizer
        self._rate = recognizer.features.sample_rate
        self._clip = recognizer.features.n_samples
        self._step = samples_per_step(step_seconds, self._rate, self._clip)
        self._batch_size = batch_size
        silence = np.zeros((1, self._clip), np.float32)
        self.silence_posterior = recognizer.probabilities(silence)[0].astype(np.float64)

    def reset(self) -> None:
        """Forget all sound so far; the next chunk is the beginning of a new stream."""
        self._source_rate = self._rate
        self._downmix = Downmix("the stream")
        self._resampler: Any = None
        self._seen = 0  # samples at the model's rate
        self.ended = False
        self.level = 0.0

    @property
    def seconds(self) -> float:
        """Seconds of audio received so far, at the model's rate."""
        return self._seen / self._rate

    def push(self, samples: npt.NDArray[Any], sample_rate: int | None = None) -> Posteriors:
        """Process the next chunk, as ``StreamDecoder.push`` does.

        Returns:
            Probabilities float64 (n, n_classes) of the windows that it completes, n >= 0.

        Raises:
            AudioError: No audio; nothing has changed then.
        """
        rate = self._rate if sample_rate is None else sample_rate
        mono, rate = to_mono(samples, rate, self._downmix)
        if not len(mono):
            return self._no_posteriors()
        if self.ended:
            self.reset()
        drained = mono[:0]
        if rate != self._source_rate:
            drained = self._drain()
            self._source_rate = rate
            if rate != self._rate:
                self._resampler = soxr.ResampleStream(rate, self._rate, 1, dtype="float32")
        if self._resampler is not None:
            mono = self._resampler.resample_chunk(mono)
        return self._take(np.concatenate([drained, mono]))

    def flush(self) -> Posteriors:
        """End the stream: process what the resampler holds, and then digital silence for a clip."""
        if self.ended or (not self._seen and self._resampler is None):
            return self._no_posteriors()
        rows = self._take(self._drain())
        end = self._seen
        silent = self._take(np.zeros(self._clip - 1, np.float32))
        self._seen, self.ended = end, True
        return np.concatenate([rows, silent])

    def _no_posteriors(self) -> Posteriors:
        return np.zeros((0, len(self.silence_posterior)))

    def _drain(self) -> Waveform:
        rest = np.zeros(0, np.float32)
        if self._resampler is not None:
            rest = self._resampler.resample_chunk(rest, last=True)
        self._resampler = None
        return rest

    def _take(self, waveform: Waveform) -> Posteriors:
        self._seen += len(waveform)
        return self._process(np.clip(waveform, -1.0, JUST_BELOW_ONE))  # as load_audio does

    @abc.abstractmethod
    def _process(self, waveform: Waveform) -> Posteriors:
        """The answers that sound at the model's rate completes."""


class SlidingWindowClassifier(StreamClassifier):
    """Asks a model about a window of one clip at every step of the stream's sample grid."""

    def __init__(self, recognizer: Recognizer, step_seconds: float, batch_size: int = 1) -> None:
        super().__init__(recognizer, step_seconds, batch_size)
        # the next window begins at the first sample
        self._audio = np.zeros(self._clip + (batch_size - 1) * self._step, np.float32)
        self.reset()

    def reset(self, before: Waveform | None = None) -> None:
        """Forget all sound so far; the next chunk is the beginning of a new stream.

        Args:
            before: float32 (n_samples - step,) at the model's rate, the sound that comes before
                that chunk; by default digital silence.
        """
        super().reset()
        self._filled = self._clip - self._step
        self._audio[: self._filled] = 0.0 if before is None else before

    def _process(self, waveform: Waveform) -> Posteriors:
        rows = [self._no_posteriors()]
        while len(waveform):
            fitting = waveform[: len(self._audio) - self._filled]
            self._audio[self._filled : self._filled + len(fitting)] = fitting
            self._filled += len(fitting)
            waveform = waveform[len(fitting) :]
            if self._filled >= self._clip:
                rows.append(self._classify())
        return np.concatenate(rows)

    def _classify(self) -> Posteriors:
        begins = range(0, self._filled - self._clip + 1, self._step)
        # a muted microphone costs nothing: the network's answer to that window is known
        sounding = [i for i in begins if self._audio[i : i + self._clip].any()]
        rows = np.tile(self.silence_posterior, (len(begins), 1))
        if sounding:
            rows[[i // self._step for i in sounding]] = self._probabilities(sounding)
        newest = self._audio[begins[-1] : begins[-1] + self._clip][-self._step :]
        self.level = float(np.sqrt(np.mean(np.square(newest, dtype=np.float64))))
        done = len(begins) * self._step
        left = self._audio[done : self._filled].copy()
        self._audio[: len(left)] = left
        self._filled = len(left)
        return rows

    def _probabilities(self, begins: list[int]) -> npt.NDArray[np.float32]:
        first, last = begins[0], begins[-1]
        stretch = self._audio[first : last + self._clip]
        rows = self.recognizer.windows(stretch, self._step)
        return rows[[(i - first) // self._step for i in begins]]


class CarriedStateClassifier(StreamClassifier):
    """Asks a causal model, which does each step once and remembers what later ones need.

    Raises:
        ValueError: A step that is no whole number of the model's.
        ModelError: A ``.keras`` file, which carries no state.
    """

    def __init__(self, recognizer: Recognizer, step_seconds: float, batch_size: int = 1) -> None:
        super().__init__(recognizer, step_seconds, batch_size)
        own = recognizer.step_seconds or step_seconds
        self._every = round(step_seconds / own)
        if self._every < 1 or abs(step_seconds / own - self._every) > 1e-6:
            raise ValueError(
                f"step_seconds={step_seconds} must be a whole number of the model's steps of "
                f"{own:g} s"
            )
        self.reset()

    def reset(self) -> None:
        """Forget all sound so far; the next chunk is the beginning of a new stream."""
        super().reset()
        self._state = self.recognizer.begin()
        self._rest = np.zeros(0, np.float32)

    def _process(self, waveform: Waveform) -> Posteriors:
        waveform = np.concatenate([self._rest, waveform])
        whole = len(waveform) // self._step * self._step
        rows = [self._no_posteriors()]
        size = self._batch_size * self._step
        for first in range(0, whole, size):
            part = waveform[first : min(first + size, whole)]
            answers, self._state = self.recognizer.advance(part, self._state)
            rows.append(answers[self._every - 1 :: self._every].astype(np.float64))
        if whole:
            newest = waveform[whole - self._step : whole]
            self.level = float(np.sqrt(np.mean(np.square(newest, dtype=np.float64))))
        self._rest = waveform[whole:].copy()  # or all of the sound would stay
        return np.concatenate(rows)


def classifier_for(
    recognizer: Recognizer, step_seconds: float, batch_size: int = 1
) -> StreamClassifier:
    """What asks this model about a stream: clip after clip, or, if it is causal, step after step.

    Args:
        recognizer: As for ``StreamClassifier``, as the others.
        step_seconds: From one answer to the next.
        batch_size: Most answers in one call of the network.
    """
    kind = SlidingWindowClassifier if recognizer.causality is None else CarriedStateClassifier
    return kind(recognizer, step_seconds, batch_size)


class StreamDecoder:
    """Turns a stream of audio into detections.

    A ``SlidingWindowClassifier`` tells what the network says of the last clip at every step. By
    default it sees one window at a time: inside a batch, the sums of a matrix product may be taken
    in another order, and no rule with a threshold would be safe from that. Then a
    ``PosteriorDecoder`` decides:

    1. The probabilities are averaged over the last ``smoothing_seconds``.
    2. The candidate is the most probable of the commands that reach their threshold. One that is
       it ``min_consecutive_windows`` times in a row, and is not held, is detected.
    3. A detected command is held, which makes one utterance one detection, until either it falls
       below ``release_threshold``, or it has stayed above for as long as a clip: then the window
       shares no audio with the one that reached the threshold first, so that it must hold another
       utterance. The second case is the usual one for a word that is said twice quickly, since
       the window never is without it.
    4. Two detections are at least ``refractory_seconds`` apart.

    ``unknown`` and ``silence`` are never detected. Memory does not grow with the stream. Not for
    use from several threads at once.

    Args:
        recognizer: The model. It is asked once at once, for the answer to digital silence, which
            also warms it up.
        config: When to detect; by default what the model says, else ``DecoderConfig()``.
        batch_size: Most windows in one call of the network. More than one is faster where much
            audio is pushed at once (recordings), and exact but for float noise.

    Raises:
        ModelError: As ``chosen_for``.
        ValueError: Config and model do not fit: a step that is no whole number of samples or
            longer than the clip, a threshold for a label that is no command of the model.

    Example:
        >>> decoder = speech.StreamDecoder(speech.load())
        >>> recording = speech.load_audio("seven_words.flac")
        >>> found = []
        >>> for first in range(0, len(recording), 800):  # as a microphone gives it
        ...     found += decoder.push(recording[first : first + 800])
        >>> [detection.label for detection in found + decoder.flush()]
        ['yes', 'left', 'stop', 'up', 'right', 'go', 'no']
    """

    def __init__(
        self, recognizer: Recognizer, config: DecoderConfig | None = None, *, batch_size: int = 1
    ) -> None:
        self.recognizer = recognizer
        self.config = config or chosen_for(recognizer)
        self._windows = classifier_for(recognizer, self.config.step_seconds, batch_size)
        before = self._windows.silence_posterior
        self._decoder = PosteriorDecoder(
            self.config, recognizer.labels, recognizer.features, before
        )
        self.reset()

    def __repr__(self) -> str:
        rate = self.recognizer.features.sample_rate
        return f"<StreamDecoder of {self.recognizer.name} at {self.seconds:.2f} s, {rate} Hz>"

    def reset(self) -> None:
        """Forget all sound so far; the next chunk is the beginning of a new stream, at 0 s."""
        self._windows.reset()
        self._decoder.reset()
        self._last_rate: int | None = None
        self._unrated: list[Waveform] = []
        self._n_unrated = 0

    @property
    def seconds(self) -> float:
        """Seconds of audio so far, at the model's rate (a resampler lags some 0.03 to 0.1 s)."""
        return self._windows.seconds

    @property
    def probabilities(self) -> npt.NDArray[np.float32]:
        """Latest smoothed probabilities, float32 (n_classes,), in the order of the labels."""
        return self._decoder.smoothed.astype(np.float32)

    @property
    def level(self) -> float:
        """Root mean square of the last whole step, in [0, 1]."""
        return self._windows.level

    def push(self, samples: npt.NDArray[Any], sample_rate: int | None = None) -> list[Detection]:
        """Process the next chunk.

        The channels are averaged, so that their number may change at any time. Where the rate
        changes, what the resampler still holds is processed first and a new one begins.

        Args:
            samples: ``(n,)`` or ``(n, channels)``, n >= 0; int8, int16, int32 (full scale) or
                float32, float64 (in [-1, 1]).
            sample_rate: Rate of the chunk in Hz; by default the model's. Where the sound of three
                seconds without a rate plainly was recorded at a higher one, a SpeechWarning says
                so.

        Returns:
            What was detected, in the order of time; mostly nothing.

        Raises:
            AudioError: NaN, infinity, or no such array or rate, or no rate where the chunk before
                had one that is not the model's. The chunk is then left out as a whole and the
                decoder is as before.
        """
        own_rate = self.recognizer.features.sample_rate
        if sample_rate is None and self._last_rate not in (None, own_rate):
            raise AudioError(
                f"expected a rate with each chunk, as with the last one ({self._last_rate} Hz), "
                "got none; pass sample_rate"
            )
        had_ended = self._windows.ended
        rows = self._windows.push(samples, sample_rate)
        self._last_rate = sample_rate
        if sample_rate is None:
            self._listen_to_unrated(np.asarray(samples))
        if had_ended and not self._windows.ended:
            self._decoder.reset()
        return self._decoder.decode(rows)

    def _listen_to_unrated(self, samples: npt.NDArray[Any]) -> None:
        """Warn once if three seconds of sound without a rate are plainly at another one."""
        rate = self.recognizer.features.sample_rate
        if self._n_unrated > _UNRATED_SECONDS * rate or not samples.any():
            return
        self._unrated.append(scale_to_float(samples.reshape(len(samples), -1)).mean(axis=1))
        self._n_unrated += len(samples)
        if self._n_unrated > _UNRATED_SECONDS * rate:
            sound, self._unrated = np.concatenate(self._unrated), []
            if lacks_treble(sound, rate):
                warn(
                    f"there is nothing above {TREBLE_HZ / 1000:g} kHz in this sound, as if it was "
                    f"recorded at a higher rate than {rate} Hz; pass sample_rate with each chunk"
                )

    def flush(self) -> list[Detection]:
        """End the stream: process what the resampler holds, and then digital silence for a clip.

        So a word at the very end is decided too. The silence does not count: no time lies after
        the end of the stream. The next chunk begins a new stream.
        """
        found = self._decoder.decode(self._windows.flush())
        return [dataclasses.replace(d, time=min(d.time, self.seconds)) for d in found]
