"""The decoding rule: probabilities of window after window in, detections out."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from speech.config import Config
from speech.features import FeatureConfig
from speech.labels import commands

Posteriors: TypeAlias = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class DecoderConfig(Config):
    """When a probability is a detection. Times are in seconds.

    Attributes:
        step_seconds: From one window to the next; a whole number of samples, at most the clip.
        smoothing_seconds: Span of the moving mean over the windows' probabilities; a whole number
            of steps, at least one.
        threshold: Smoothed probability, in (0, 1], that a command has to reach.
        thresholds: The same for single commands, by label; they replace ``threshold``.
        min_consecutive_windows: Windows in a row that have to reach it, 1 to 100.
        release_threshold: Smoothed probability, in [0, 1] and at most every threshold; a detected
            command that falls below it has ended and may be detected again.
        refractory_seconds: Shortest time between two detections of whatever label. What comes
            earlier is put off, and lost only if it does not last until then.

    Raises:
        ValueError: A number out of range.

    Example:
        >>> speech.DecoderConfig(threshold=0.9, thresholds={"go": 0.95}).thresholds["go"]
        0.95
    """

    step_seconds: float = 0.1
    smoothing_seconds: float = 0.3
    threshold: float = 0.8
    thresholds: Mapping[str, float] = dataclasses.field(default_factory=dict)
    min_consecutive_windows: int = 2
    release_threshold: float = 0.5
    refractory_seconds: float = 0.7

    def __post_init__(self) -> None:
        for name, low, high in (
            ("step_seconds", 1e-3, 60.0),
            ("smoothing_seconds", 1e-3, 60.0),
            ("threshold", 1e-6, 1.0),
            ("release_threshold", 0.0, 1.0),
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
        windows = self.min_consecutive_windows
        if isinstance(windows, bool) or windows not in range(1, 101):
            raise ValueError(f"min_consecutive_windows={windows!r} must be an integer in [1, 100]")
        lowest = min([self.threshold, *each.values()])
        if self.release_threshold > lowest:
            raise ValueError(
                f"release_threshold={self.release_threshold} must be at most every threshold, "
                f"{lowest}"
            )
        steps = self.smoothing_seconds / self.step_seconds
        if round(steps) < 1 or abs(steps - round(steps)) > 1e-6:
            raise ValueError(
                f"smoothing_seconds={self.smoothing_seconds} must be a whole number of "
                f"step_seconds={self.step_seconds}, got {steps:g}"
            )

    def with_thresholds(
        self, threshold: float, thresholds: Mapping[str, float] | None = None
    ) -> "DecoderConfig":
        """The same with other thresholds; a release threshold above them comes down."""
        each = thresholds or {}
        lowest = min([self.release_threshold, threshold, *each.values()])
        return dataclasses.replace(
            self, threshold=threshold, thresholds=each, release_threshold=lowest
        )


def _number(name: str, value: Any, low: float, high: float) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not low <= value <= high:  # NaN lies in no range
        raise ValueError(f"{name}={value!r} must be a number in [{low:g}, {high:g}]")
    return float(value)


@dataclasses.dataclass(frozen=True)
class Detection:
    """A command that was detected.

    Attributes:
        label: The command.
        probability: Its smoothed probability when it was decided, in [0, 1].
        time: End of the window that decided, in seconds of the stream.
        start: Start of the window that reached the threshold first, in seconds of the stream.

    Example:
        >>> decoder = speech.StreamDecoder(speech.load())
        >>> [detection] = decoder.push(speech.load_audio("left.wav")) + decoder.flush()
        >>> detection.label, detection.start < detection.time, 0 <= detection.probability <= 1
        ('left', True, True)
    """

    label: str
    probability: float
    time: float
    start: float


class DecoderState(NamedTuple):
    """All that a ``PosteriorDecoder`` remembers of the windows so far.

    Attributes:
        recent: float64 (n, n_classes), the rows that the moving mean still spans.
        windows: Their number so far.
        held: Detected commands that have not ended, each with the window since which it is.
        candidate: Column of the candidate, -1 for none.
        candidate_since: The window since which it is the candidate.
        last_detection: The window of the last detection.
    """

    recent: Posteriors
    windows: int
    held: Mapping[int, int]
    candidate: int
    candidate_since: int
    last_detection: int


class PosteriorDecoder:
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
        self._step = samples_per_step(config.step_seconds, self._rate, self._clip)
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
    def state(self) -> DecoderState:
        """What it remembers; a decoder whose state is set to it goes on from there."""
        return DecoderState(
            self._recent,
            self._windows,
            dict(self._held),
            self._candidate,
            self._candidate_since,
            self._last_detection,
        )

    @state.setter
    def state(self, state: DecoderState) -> None:
        self._recent, self._windows, held, *counts = state
        self._held = dict(held)
        self._candidate, self._candidate_since, self._last_detection = counts

    def begin_at_calm(self, posteriors: Posteriors, first: int) -> int:
        """Go to the first place in a stretch where what came before has no influence any more.

        That is behind so many windows without any candidate that a detected command is held no
        longer and the refractory time is over: whatever was said before the stretch, the state is
        then the same. So a recording can be decoded in parts, with exactly its detections.

        Args:
            posteriors: float64 (n, n_classes), windows of a stream.
            first: The number of the first of them in the stream, from 0 on.

        Returns:
            How many rows lie before that place; the state is that of the place. It is n, and the
            state means nothing, if there is none.
        """
        n_recent = len(self._recent)
        if len(posteriors) < n_recent:
            return len(posteriors)
        reached = (moving_mean(posteriors, n_recent) >= self._thresholds).any(axis=1)
        enough = max(self._clip_steps, self._refractory)
        in_a_row = 0
        for place, any_reached in enumerate(np.asarray(reached), n_recent):
            in_a_row = 0 if any_reached else in_a_row + 1
            if in_a_row == enough:
                self.reset()
                self._recent = posteriors[place - n_recent : place].copy()
                self._windows = first + place
                self._last_detection = self._windows - self._refractory
                return place
        return len(posteriors)

    @property
    def smoothed(self) -> npt.NDArray[np.float64]:
        """Latest smoothed probabilities, float64 (n_classes,)."""
        mean: npt.NDArray[np.float64] = self._recent.mean(axis=0)
        return mean

    def decode(self, posteriors: Posteriors) -> list[Detection]:
        """The detections of the next windows, float64 (n, n_classes); any division gives the same.

        The four steps are those that ``speech.stream.StreamDecoder`` lists.
        """
        # 1. smooth
        n_recent = len(self._recent)
        history = np.concatenate([self._recent, posteriors])
        self._recent = history[-n_recent:].copy()
        smoothed = moving_mean(history[1:], n_recent)  # (n, n_classes)
        # 2. the most probable command that reaches its threshold; -1 for none
        reached = np.where(smoothed >= self._thresholds, smoothed, -1.0)
        candidates = np.where(reached.max(axis=1) >= 0, reached.argmax(axis=1), -1)  # (n,)
        detections = []
        for row, label in zip(smoothed, candidates.tolist(), strict=True):
            self._windows += 1
            self._release(row)  # 3. what has ended is held no longer
            if label < 0 or label in self._held:
                self._candidate = -1
                continue
            if label != self._candidate:
                self._candidate, self._candidate_since = label, self._windows
            in_a_row = self._windows - self._candidate_since + 1
            waited = self._windows - self._last_detection  # 4.
            if in_a_row >= self.config.min_consecutive_windows and waited >= self._refractory:
                detections.append(self._detect(label, float(row[label])))
        return detections

    def _release(self, smoothed: npt.NDArray[np.float64]) -> None:
        for label, since in list(self._held.items()):
            outlived = self._windows - since >= self._clip_steps
            if outlived or smoothed[label] < self.config.release_threshold:
                del self._held[label]

    def _detect(self, best: int, probability: float) -> Detection:
        self._candidate = -1
        self._held[best] = self._candidate_since
        self._last_detection = self._windows
        start = max(0, self._candidate_since * self._step - self._clip)
        time = self._windows * self._step / self._rate
        return Detection(self._labels[best], probability, time, start / self._rate)


def moving_mean(rows: Posteriors, n: int) -> Posteriors:
    """The mean of each n rows that follow one another: one row for the first n, and so on."""
    total = rows[: len(rows) - n + 1].copy()
    for later in range(1, n):
        total += rows[later : later + len(total)]
    return total / n


def samples_per_step(step_seconds: float, sample_rate: int, n_samples: int) -> int:
    """The step in samples; ValueError if it is no whole number or longer than the window."""
    exact = step_seconds * sample_rate
    if abs(exact - round(exact)) > 1e-6 or round(exact) > n_samples:
        raise ValueError(
            f"step_seconds={step_seconds} must be a whole number of samples at "
            f"{sample_rate} Hz, at most the clip of {n_samples}, got {exact:g}"
        )
    return round(exact)


def _thresholds(config: DecoderConfig, labels: tuple[str, ...]) -> npt.NDArray[np.float64]:
    known = commands(labels)
    if strange := sorted(set(config.thresholds) - set(known)):
        raise ValueError(f"thresholds are for the commands {list(known)}, got {strange}")
    each = [
        config.thresholds.get(label, config.threshold) if label in known else math.inf
        for label in labels
    ]
    return np.array(each, np.float64)
