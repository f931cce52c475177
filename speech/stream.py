"""Live decoding: chunks of audio of any size in, detections out, whatever the chunking.

The network looks at the last clip of audio every step. A word stays in that window for about as
long as the window is, so the probabilities of one utterance form one long plateau, and the rule
that turns plateaus into detections is the heart of this module: see ``StreamDecoder``.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import soxr

from speech.audio import JUST_BELOW_ONE, Waveform, mix_chunk
from speech.errors import ModelError
from speech.features import FeatureConfig, check_fields
from speech.recognizer import Recognizer

NOT_COMMANDS = ("unknown", "silence")
Rows: TypeAlias = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """When a probability is a detection. Times are in seconds.

    Attributes:
        step_seconds: From one window to the next; a whole number of samples, at most the clip.
        smoothing_seconds: Span of the moving mean over the windows' probabilities; a whole number
            of steps, at least one.
        threshold: Smoothed probability, in (0, 1], that a command has to reach.
        thresholds: The same for single commands, by label; they replace ``threshold``.
        min_count: Windows in a row that have to reach it, 1 to 100.
        release: Smoothed probability, in [0, 1] and at most every threshold; a detected command
            that falls below it has ended and may be detected again.
        refractory_seconds: Shortest time between two detections of whatever label. What comes
            earlier is put off, and lost only if it does not last until then.

    Raises:
        ValueError: A number out of range.
    """

    step_seconds: float = 0.1
    smoothing_seconds: float = 0.3
    threshold: float = 0.8
    thresholds: Mapping[str, float] = dataclasses.field(default_factory=dict)
    min_count: int = 2
    release: float = 0.5
    refractory_seconds: float = 0.7

    def __post_init__(self) -> None:
        for name, low, high in (
            ("step_seconds", 1e-3, 60.0),
            ("smoothing_seconds", 1e-3, 60.0),
            ("threshold", 1e-6, 1.0),
            ("release", 0.0, 1.0),
            ("refractory_seconds", 0.0, 3600.0),
        ):
            object.__setattr__(self, name, _number(name, getattr(self, name), low, high))
        if not isinstance(self.thresholds, Mapping):
            raise ValueError(f"thresholds={self.thresholds!r} must map labels to probabilities")
        each = {
            str(label): _number(f"thresholds[{label!r}]", value, 1e-6, 1.0)
            for label, value in self.thresholds.items()
        }
        object.__setattr__(self, "thresholds", each)
        if isinstance(self.min_count, bool) or self.min_count not in range(1, 101):
            raise ValueError(f"min_count={self.min_count!r} must be an integer in [1, 100]")
        lowest = min([self.threshold, *each.values()])
        if self.release > lowest:
            raise ValueError(f"release={self.release} must be at most every threshold, {lowest}")
        steps = self.smoothing_seconds / self.step_seconds
        if round(steps) < 1 or abs(steps - round(steps)) > 1e-6:
            raise ValueError(
                f"smoothing_seconds={self.smoothing_seconds} must be a whole number of "
                f"step_seconds={self.step_seconds}, got {steps:g}"
            )

    def with_thresholds(
        self, threshold: float, thresholds: Mapping[str, float] | None = None
    ) -> "DecoderConfig":
        """The same with other thresholds; a release above the lowest of them comes down to it."""
        each = thresholds or {}
        release = min([self.release, threshold, *each.values()])
        return dataclasses.replace(self, threshold=threshold, thresholds=each, release=release)

    def to_dict(self) -> dict[str, Any]:
        """The fields as a JSON-able dict."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "DecoderConfig":
        """The inverse of ``to_dict``; a model that has nothing to say, ``{}``, gets the defaults.

        Raises:
            ValueError: Names the fields that are unknown or missing.
        """
        return cls(**check_fields(cls, fields)) if fields else cls()


def chosen_for(recognizer: Recognizer) -> DecoderConfig:
    """The settings that the model carries.

    Raises:
        ModelError: They are no settings of a decoder.
    """
    try:
        return DecoderConfig.from_dict(recognizer.decoder)
    except ValueError as error:
        raise ModelError(
            f"{recognizer.name}: expected a decoder's settings in the model, got others ({error}); "
            "take the file from where it came again, or train the model again"
        ) from error


def _number(name: str, value: Any, low: float, high: float) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not low <= value <= high:  # NaN lies in no range
        raise ValueError(f"{name}={value!r} must be a number in [{low:g}, {high:g}]")
    return float(value)


@dataclasses.dataclass(frozen=True)
class Detection:
    """A command that was heard.

    Attributes:
        label: The command.
        probability: Its smoothed probability when it was decided, in [0, 1].
        time: End of the window that decided, in seconds of the stream.
        start: Start of the window that reached the threshold first, in seconds of the stream.
    """

    label: str
    probability: float
    time: float
    start: float


class WindowStream:
    """What the network says of every window of a stream.

    A window of one clip ends at every step of the stream's sample grid, and the stream is taken
    to be preceded by digital silence, so that chunks have no influence on what the network sees.
    Memory does not grow with the stream.

    Args:
        recognizer: The model. It is asked once at once, for the answer to digital silence, which
            also warms it up.
        step_seconds: From one window to the next.
        batch_size: Most windows in one call of the network.

    Attributes:
        answer_to_silence: Probabilities float64 (n_classes,) of digital silence.
        ended: Whether the stream was flushed; the next chunk then begins a new one.

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
        self._step = _samples_per_step(step_seconds, self._rate, self._clip)
        silence = np.zeros((1, self._clip), np.float32)
        self.answer_to_silence = recognizer.probabilities(silence)[0].astype(np.float64)
        # the next window begins at the first sample
        self._audio = np.zeros(self._clip + (batch_size - 1) * self._step, np.float32)
        self.reset()

    def reset(self) -> None:
        """Forget everything heard; the next chunk is the beginning of a new stream."""
        self._source_rate = self._rate
        self._resampler: Any = None
        self._audio[:] = 0.0
        self._filled = self._clip - self._step
        self._heard = 0  # samples at the model's rate
        self.ended = False
        self.level = 0.0

    @property
    def seconds(self) -> float:
        """Audio heard so far, at the model's rate."""
        return self._heard / self._rate

    def push(self, samples: npt.NDArray[Any], sample_rate: int | None = None) -> Rows:
        """Hear the next chunk, as ``StreamDecoder.push`` does.

        Returns:
            Probabilities float64 (n, n_classes) of the windows that it completes, n >= 0.

        Raises:
            AudioError: No audio; nothing has changed then.
        """
        mono, rate = mix_chunk(samples, self._rate if sample_rate is None else sample_rate)
        if not len(mono):
            return self._nothing()
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
        return self._hear(np.concatenate([drained, mono]))

    def flush(self) -> Rows:
        """End the stream: hear what the resampler holds, and then digital silence for a clip."""
        if self.ended or (not self._heard and self._resampler is None):
            return self._nothing()
        rows = self._hear(self._drain())
        end = self._heard
        silent = self._hear(np.zeros(self._clip - 1, np.float32))
        self._heard, self.ended = end, True
        return np.concatenate([rows, silent])

    def _nothing(self) -> Rows:
        return np.zeros((0, len(self.answer_to_silence)))

    def _drain(self) -> Waveform:
        rest = np.zeros(0, np.float32)
        if self._resampler is not None:
            rest = self._resampler.resample_chunk(rest, last=True)
        self._resampler = None
        return rest

    def _hear(self, waveform: Waveform) -> Rows:
        waveform = np.clip(waveform, -1.0, JUST_BELOW_ONE)  # as load_audio does
        rows = [self._nothing()]
        while len(waveform):
            fitting = waveform[: len(self._audio) - self._filled]
            self._audio[self._filled : self._filled + len(fitting)] = fitting
            self._filled += len(fitting)
            self._heard += len(fitting)
            waveform = waveform[len(fitting) :]
            if self._filled >= self._clip:
                rows.append(self._ask())
        return np.concatenate(rows)

    def _ask(self) -> Rows:
        begins = range(0, self._filled - self._clip + 1, self._step)
        # a muted microphone costs nothing: the network's answer to that window is known
        sounding = [i for i in begins if self._audio[i : i + self._clip].any()]
        rows = np.tile(self.answer_to_silence, (len(begins), 1))
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


class Decider:
    """The rule of ``StreamDecoder`` by itself: probabilities of window after window to detections.

    Args:
        config: When to detect.
        labels: Those of the columns.
        features: They tell the length of a window, in samples and in seconds.
        before: float64 (n_classes,), what the network said before the first window.

    Raises:
        ValueError: Config and model do not fit.
    """

    def __init__(
        self,
        config: DecoderConfig,
        labels: tuple[str, ...],
        features: FeatureConfig,
        before: npt.NDArray[np.float64],
    ) -> None:
        self.config = config
        self._labels = labels
        self._rate, self._clip = features.sample_rate, features.n_samples
        self._step = _samples_per_step(config.step_seconds, self._rate, self._clip)
        self._clip_steps = math.ceil(self._clip / self._step)
        self._refractory = math.ceil(config.refractory_seconds / config.step_seconds - 1e-6)
        self._thresholds = _thresholds(config, labels)
        self._before = before
        self.reset()

    def reset(self) -> None:
        """Forget everything; the next row is that of the first window."""
        n_recent = round(self.config.smoothing_seconds / self.config.step_seconds)
        self._recent = np.tile(self._before, (n_recent, 1))
        self._windows = 0  # the only clock
        self._held: dict[int, int] = {}  # label: the window since which it is
        self._candidate = -1
        self._candidate_since = 0
        self._last_detection = -self._refractory

    @property
    def smoothed(self) -> npt.NDArray[np.float64]:
        """Latest smoothed probabilities, float64 (n_classes,)."""
        mean: npt.NDArray[np.float64] = self._recent.mean(axis=0)
        return mean

    def decide(self, rows: Rows) -> list[Detection]:
        """What the next windows, float64 (n, n_classes), make detected; in any division."""
        n_recent = len(self._recent)
        history = np.concatenate([self._recent, rows])
        self._recent = history[-n_recent:].copy()
        smoothed = moving_mean(history[1:], n_recent)
        reached = np.where(smoothed >= self._thresholds, smoothed, -1.0)
        best = reached.argmax(axis=1)
        reaching = reached[np.arange(len(rows)), best] >= 0
        best = best.tolist()
        places = np.where(reaching, np.arange(len(rows)), len(rows))
        upcoming = np.minimum.accumulate(places[::-1])[::-1].tolist()
        found = []
        index = 0
        while index < len(rows):
            if not self._held and upcoming[index] > index:  # nothing can happen before
                self._windows += upcoming[index] - index
                self._candidate = -1
                index = upcoming[index]
                continue
            self._windows += 1
            self._release(smoothed[index])
            if upcoming[index] > index or best[index] in self._held:
                self._candidate = -1
            elif self._is_due(best[index]):
                found.append(self._detect(best[index], float(smoothed[index, best[index]])))
            index += 1
        return found

    def _release(self, smoothed: npt.NDArray[np.float64]) -> None:
        for label, since in list(self._held.items()):
            outlived = self._windows - since >= self._clip_steps
            if outlived or smoothed[label] < self.config.release:
                del self._held[label]

    def _is_due(self, best: int) -> bool:
        if best != self._candidate:
            self._candidate, self._candidate_since = best, self._windows
        in_a_row = self._windows - self._candidate_since + 1
        waited = self._windows - self._last_detection
        return in_a_row >= self.config.min_count and waited >= self._refractory

    def _detect(self, best: int, probability: float) -> Detection:
        self._candidate = -1
        self._held[best] = self._candidate_since
        self._last_detection = self._windows
        start = max(0, self._candidate_since * self._step - self._clip)
        time = self._windows * self._step / self._rate
        return Detection(self._labels[best], probability, time, start / self._rate)


class StreamDecoder:
    """Turns a stream of audio into detections.

    A ``WindowStream`` tells what the network says of the last clip at every step. By default it
    sees one window at a time: inside a batch, the sums of a matrix product may be taken in another
    order, and no rule with a threshold would be safe from that. Then a ``Decider`` decides:

    1. The probabilities are averaged over the last ``smoothing_seconds``.
    2. The candidate is the most probable of the commands that reach their threshold. One that is
       it ``min_count`` times in a row, and is not held, is detected.
    3. A detected command is held, which makes one utterance one detection, until either it falls
       below ``release``, or it has stayed above for as long as a clip: then the window shares no
       audio with the one that reached the threshold first, so that it must hold another
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
    """

    def __init__(
        self, recognizer: Recognizer, config: DecoderConfig | None = None, *, batch_size: int = 1
    ) -> None:
        self.recognizer = recognizer
        self.config = config or chosen_for(recognizer)
        self._windows = WindowStream(recognizer, self.config.step_seconds, batch_size)
        before = self._windows.answer_to_silence
        self._decider = Decider(self.config, recognizer.labels, recognizer.features, before)

    def reset(self) -> None:
        """Forget everything heard; the next chunk is the beginning of a new stream, at 0 s."""
        self._windows.reset()
        self._decider.reset()

    @property
    def seconds(self) -> float:
        """Audio heard so far, at the model's rate (a resampler lags some 0.03 to 0.1 s)."""
        return self._windows.seconds

    @property
    def probabilities(self) -> npt.NDArray[np.float32]:
        """Latest smoothed probabilities, float32 (n_classes,), in the order of the labels."""
        return self._decider.smoothed.astype(np.float32)

    @property
    def level(self) -> float:
        """Root mean square of the last whole step, in [0, 1]."""
        return self._windows.level

    def push(self, samples: npt.NDArray[Any], sample_rate: int | None = None) -> list[Detection]:
        """Hear the next chunk.

        The channels are averaged, so that their number may change at any time. Where the rate
        changes, what the resampler still holds is heard first and a new one begins.

        Args:
            samples: ``(n,)`` or ``(n, channels)``, n >= 0; int8, int16, int32 (full scale) or
                float32, float64 (in [-1, 1]).
            sample_rate: Rate of the chunk in Hz; by default the model's.

        Returns:
            What was detected, in the order of time; mostly nothing.

        Raises:
            AudioError: NaN, infinity, or no such array or rate. The chunk is then left out as a
                whole and the decoder is as before.
        """
        had_ended = self._windows.ended
        rows = self._windows.push(samples, sample_rate)
        if had_ended and not self._windows.ended:
            self._decider.reset()
        return self._decider.decide(rows)

    def flush(self) -> list[Detection]:
        """End the stream: hear what the resampler holds, and then digital silence for a clip.

        So a word at the very end is decided too. The silence does not count: no time lies after
        the end of the stream. The next chunk begins a new stream.
        """
        found = self._decider.decide(self._windows.flush())
        return [dataclasses.replace(d, time=min(d.time, self.seconds)) for d in found]


def moving_mean(rows: Rows, n: int) -> Rows:
    """The mean of each n rows that follow one another: one row for the first n, and so on."""
    total = rows[: len(rows) - n + 1].copy()
    for later in range(1, n):
        total += rows[later : later + len(total)]
    return total / n


def _samples_per_step(step_seconds: float, sample_rate: int, n_samples: int) -> int:
    exact = step_seconds * sample_rate
    if abs(exact - round(exact)) > 1e-6 or round(exact) > n_samples:
        raise ValueError(
            f"step_seconds={step_seconds} must be a whole number of samples at "
            f"{sample_rate} Hz, at most the clip of {n_samples}, got {exact:g}"
        )
    return round(exact)


def _thresholds(config: DecoderConfig, labels: tuple[str, ...]) -> npt.NDArray[np.float64]:
    commands = [label for label in labels if label not in NOT_COMMANDS]
    if strange := sorted(set(config.thresholds) - set(commands)):
        raise ValueError(f"thresholds are for the commands {commands}, got {strange}")
    each = [
        config.thresholds.get(label, config.threshold) if label in commands else math.inf
        for label in labels
    ]
    return np.array(each, np.float64)
