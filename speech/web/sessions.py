"""Per-browser live sessions, independent of the web framework: sound in, small messages out."""

import dataclasses
import math
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import numpy as np

from speech.audio import MAX_RATE, check_rate
from speech.detection import DecoderConfig, Detection
from speech.errors import AudioError, SpeechError
from speech.labels import commands
from speech.live.microphone import Block
from speech.live.session import HINTS, Event, Item, Session, Status, decoder_for
from speech.recognizer import Recognizer
from speech.stream import StreamDecoder
from speech.web.near_misses import NearMissFinder
from speech.web.open_pages import OpenPages

# By how many logits each step lowers the thresholds: 0.95 becomes 0.99 or 0.81.
SENSITIVITIES = {"low": -1.5, "medium": 0.0, "high": 1.5}
DEMO_WORDS = ("yes", "left", "stop", "up", "right", "go", "no")  # of the demo's recording
MAX_LISTENERS = 16
MAX_CHUNK_SECONDS = 2.0  # a page sends a tenth of a second
MAX_CHUNK_BYTES = round(MAX_CHUNK_SECONDS * MAX_RATE) * 2
_IDLE_SECONDS = 60.0  # a browser puts the timers of a hidden page to sleep for no longer

Message: TypeAlias = dict[str, Any]


class Listener:
    """One page that listens: it has a decoder of its own, and keeps no sound.

    Args:
        recognizer: The model.
        threshold: Smoothed probability that every command has to reach; None for the model's.
        smoothing: Seconds of the moving mean; None for the model's.
        sensitivity: A key of ``SENSITIVITIES``, by which the model's thresholds are changed; None
            for the middle one. A ``threshold`` replaces them.

    Raises:
        SpeechError: The settings do not fit.
    """

    def __init__(
        self,
        recognizer: Recognizer,
        threshold: float | None = None,
        smoothing: float | None = None,
        sensitivity: str | None = None,
    ) -> None:
        try:
            for value in (threshold, smoothing):
                if value is not None and not isinstance(value, int | float):
                    raise ValueError(f"{value!r} is no number")
            if sensitivity is not None and sensitivity not in SENSITIVITIES:
                raise ValueError(f"sensitivity={sensitivity!r} is none of {[*SENSITIVITIES]}")
            decoder = decoder_for(recognizer, threshold, smoothing)
            if threshold is None and (logits := SENSITIVITIES[sensitivity or "medium"]):
                decoder = StreamDecoder(recognizer, with_sensitivity(decoder.config, logits))
            self._decoder = decoder
        except ValueError as error:
            raise SpeechError(
                f"expected settings that fit the model, got others ({error}); set them back"
            ) from error
        self._recognizer = recognizer
        self._session = Session(self._decoder)
        self._near_misses = NearMissFinder(recognizer.labels, self._decoder.config)
        self._lock = threading.Lock()  # a decoder is not for several threads at once

    def settings(self) -> Message:
        """What the page has to know before it begins."""
        return model_settings(self._recognizer, self._decoder.config)

    def push(self, pcm: bytes, rate: float, lost: float = 0.0) -> list[Message]:
        """Process the next piece of sound.

        Args:
            pcm: Signed 16-bit little-endian mono samples.
            rate: Their sample rate in Hz, 8,000 to 192,000.
            lost: Seconds of sound before it that the page had to drop.

        Returns:
            Messages with a ``type``: ``step`` (how things stand), ``detection``, and ``near`` (a
            near miss).

        Raises:
            AudioError: Another rate, half a sample, too long a piece; nothing has changed then.
        """
        hertz = check_rate(rate, "the microphone")
        if len(pcm) % 2 or len(pcm) > 2 * MAX_CHUNK_SECONDS * hertz:
            raise AudioError(
                f"expected whole 16-bit samples of at most {MAX_CHUNK_SECONDS:g} s, "
                f"got {len(pcm)} bytes; send shorter pieces"
            )
        if not 0 <= lost < 1e6:
            raise AudioError(f"expected seconds lost, 0 or more, got {lost:g}; count them anew")
        samples = np.frombuffer(pcm, "<i2").astype(np.int16)
        with self._lock:
            if lost:
                self._session.skip(lost)
                self._near_misses.settle()
            return self._messages(self._session.push(Block(samples, hertz)))

    def end(self) -> list[Message]:
        """The last words, which were not decided yet."""
        with self._lock:
            return self._messages(self._session.end())

    def _messages(self, items: Iterable[Item]) -> list[Message]:
        messages: list[Message] = []
        for item in items:
            if isinstance(item, Detection):
                messages.append({"type": "detection", **dataclasses.asdict(item)})
                self._near_misses.settle()
            elif isinstance(item, Status):
                row = [round(float(p), 3) for p in self._decoder.probabilities]
                messages.append(
                    {
                        "type": "step",
                        "time": round(item.time, 3),
                        "peak": round(item.peak, 4),
                        "hint": HINTS.get(item.hint, ""),
                        "probabilities": row,
                    }
                )
                if near := self._near_misses.push(round(item.time, 3), row):
                    messages.append({"type": "near", **near._asdict()})
            else:
                assert isinstance(item, Event)  # every step repeats its hint
        return messages


def with_sensitivity(config: DecoderConfig, logits: float) -> DecoderConfig:
    """The same decoder with every threshold lowered by so many logits; below 0 it is raised.

    Example:
        >>> round(with_sensitivity(DecoderConfig(threshold=0.95), 1.5).threshold, 3)
        0.809
    """

    def lowered(probability: float) -> float:
        odds = probability / max(1.0 - probability, 1e-6) * math.exp(-logits)
        return odds / (1.0 + odds)

    each = {label: lowered(threshold) for label, threshold in config.thresholds.items()}
    return config.with_thresholds(lowered(config.threshold), each)


def model_settings(recognizer: Recognizer, config: DecoderConfig | None = None) -> Message:
    """What the page has to know of a model and a decoder; by default the model's own decoder."""
    config = config or decoder_for(recognizer).config
    names = commands(recognizer.labels)
    return {
        "model": recognizer.name,
        "labels": list(recognizer.labels),
        "commands": list(names),
        "threshold": config.threshold,
        "thresholds": {label: config.thresholds.get(label, config.threshold) for label in names},
        "smoothing": config.smoothing_seconds,
        "step": config.step_seconds,
        "clip": recognizer.features.clip_seconds,
        "demo": set(DEMO_WORDS) <= set(names),
    }


class Listeners(OpenPages[Listener]):
    """All pages that listen, each under a key that nobody else can guess; safe for threads.

    Args:
        limit: How many may listen at once.
        clock: Seconds that never go back.
    """

    def __init__(
        self, limit: int = MAX_LISTENERS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(limit, _IDLE_SECONDS, "listen", "press Start again", clock)
