"""Live session: audio blocks in, detections and events out."""

import collections
import dataclasses
import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from speech.detection import Detection
from speech.live.microphone import Block
from speech.recognizer import Recognizer
from speech.stream import StreamDecoder, chosen_for

TICK_SECONDS = 0.1
METER_TICKS = 50  # 5 s: longer than the pause between two commands
CLIPPED = 0.999
CLIPPED_SAMPLES = 3  # fewer may be a click
QUIET = 0.01  # -40 dB; a word spoken at a desk peaks at -25 dB or more

HINTS = {
    "clipping": "clipping: turn the input down",
    "muted": "nothing but digital silence: is the microphone muted?",
    "quiet": "too quiet: speak up, or turn the input up",
}


class Event(NamedTuple):
    """Something to tell the user that is not a detection.

    Attributes:
        kind: ready, lost, back, note, clipping, muted, quiet, dropped, overflow or exec.
        time: When, in seconds of sound received.
        message: A sentence.
    """

    kind: str
    time: float
    message: str


class Status(NamedTuple):
    """How things stand; comes about ten times a second of sound.

    Attributes:
        time: Seconds of sound received.
        peak: Highest sample since the last one, in [0, 1].
        label: The most probable class, whether or not it is a detection.
        probability: Its smoothed probability.
        hint: A key of ``HINTS``, or "".
        dropped: Blocks dropped so far since this machine was too slow.
        overflows: Losses so far that the sound system reported.
    """

    time: float
    peak: float
    label: str
    probability: float
    hint: str
    dropped: int
    overflows: int


Item: TypeAlias = Detection | Event | Status


def decoder_for(
    recognizer: Recognizer, threshold: float | None = None, smoothing: float | None = None
) -> StreamDecoder:
    """A decoder as the model wants it, or with one threshold for all commands.

    Args:
        recognizer: The model.
        threshold: Smoothed probability that every command has to reach.
        smoothing: Seconds of the moving mean.

    Raises:
        ValueError: The threshold is not in (0, 1], or the smoothing no whole number of steps.
    """
    config = chosen_for(recognizer)
    if threshold is not None:
        config = config.with_thresholds(threshold)
    if smoothing is not None:
        config = dataclasses.replace(config, smoothing_seconds=smoothing)
    return StreamDecoder(recognizer, config)


def run(blocks: Iterable[Block], decoder: StreamDecoder) -> Iterator[Item]:
    """Everything that is to be told about a stream of blocks, as it happens, until it ends.

    Where sound was lost, the stream before it is decoded to its end and another one begins, so
    that no word is put together of two halves; the times go on.

    Args:
        blocks: From ``speech.live.sources``.
        decoder: At the beginning of a stream.

    Raises:
        AudioError: NaN or infinity in a file.
    """
    session = Session(decoder)
    for block in blocks:
        yield from session.push(block)
    yield from session.end()


class _Meter:
    """Peaks of the last seconds, and what they say about the microphone."""

    def __init__(self) -> None:
        self.peak = 0.0
        self._clipped = 0
        self._seconds = 0.0
        self._ticks: collections.deque[tuple[float, int]] = collections.deque(maxlen=METER_TICKS)

    def push(self, samples: npt.NDArray[Any], sample_rate: int) -> bool:
        """Whether these samples complete a tick; ``peak`` is then that of it."""
        if not self._seconds:
            self.peak, self._clipped = 0.0, 0
        is_integer = np.issubdtype(samples.dtype, np.integer)
        full_scale = np.iinfo(samples.dtype).max + 1.0 if is_integer else 1.0
        highest, lowest = samples.max(initial=0), samples.min(initial=0)
        self.peak = max(self.peak, float(highest) / full_scale, -float(lowest) / full_scale)
        if self.peak >= CLIPPED:
            level = CLIPPED * full_scale
            self._clipped += int(np.count_nonzero((samples >= level) | (samples <= -level)))
        self._seconds += len(samples) / sample_rate
        if self._seconds < TICK_SECONDS - 1e-6:
            return False
        self._ticks.append((self.peak, self._clipped))
        self._seconds = 0.0
        return True

    def hint(self) -> str:
        """A key of ``HINTS``, or ""."""
        if sum(clipped for _, clipped in self._ticks) >= CLIPPED_SAMPLES:
            return "clipping"
        loudest = max((peak for peak, _ in self._ticks), default=1.0)
        if len(self._ticks) < METER_TICKS or loudest >= QUIET:
            return ""
        return "quiet" if loudest else "muted"


class Session:
    """What has to be remembered of one listener from block to block.

    Args:
        decoder: At the beginning of a stream.
    """

    def __init__(self, decoder: StreamDecoder) -> None:
        self._decoder = decoder
        self._before = 0.0  # seconds of the streams that were cut off
        self._received = 0.0  # seconds of this one, those in the resampler included
        self._meter = _Meter()
        self._hinted: set[str] = set()
        self._counted = {"dropped": 0, "overflow": 0}
        self._counted_at = -math.inf
        self._carries = decoder.recognizer.causality is not None
        self._lost = 0  # blocks and overflows so far

    def push(self, block: Block) -> Iterator[Item]:
        """What is to be told after this block.

        Raises:
            AudioError: NaN or infinity, or no such array or rate.
        """
        if block.event == "note":
            yield Event(block.event, self._time(), block.message)
            return
        if block.event:
            yield from self.end()
            yield Event(block.event, self._time(), block.message)
            self._meter = _Meter()
            self._hinted.clear()
            return
        lost, self._lost = self._lost, block.dropped + block.overflows
        if self._carries and self._lost > lost:
            # what a causal model remembers belongs to sound that this block does not follow
            yield from self.end()
        detections = self._decoder.push(block.samples, block.sample_rate)
        self._received += len(block.samples) / block.sample_rate
        yield from map(self._shifted, detections)
        if not self._meter.push(block.samples, block.sample_rate):
            return
        hint = self._meter.hint()
        if hint and hint not in self._hinted:
            self._hinted.add(hint)
            yield Event(hint, self._time(), HINTS[hint])
        yield from self._losses(block)
        yield self._status(block, hint)

    def end(self) -> Iterator[Detection]:
        """Decode to its end what was received; the next block begins another stream."""
        for detection in self._decoder.flush():
            yield self._shifted(detection)
        self._before, self._received = self._time(), 0.0
        self._decoder.reset()

    def skip(self, seconds: float) -> None:
        """So much sound was lost: begin another stream behind it.

        What was said up to there is not decoded to its end: that takes as long as a clip of sound,
        which whoever lost some for want of time does not have.
        """
        self._before, self._received = self._before + self._received + seconds, 0.0
        self._decoder.reset()

    def _time(self) -> float:
        return self._before + self._decoder.seconds

    def _shifted(self, detection: Detection) -> Detection:
        return dataclasses.replace(
            detection,
            time=self._before + detection.time,
            start=self._before + detection.start,
        )

    def _losses(self, block: Block) -> Iterator[Event]:
        if self._time() < self._counted_at + 1.0:  # at most one line a second
            return
        for kind, count, message in (
            ("dropped", block.dropped, "blocks dropped: this machine is too slow for the sound"),
            ("overflow", block.overflows, "overflows: the sound system lost samples"),
        ):
            new = count - self._counted[kind]
            if new > 0:
                self._counted[kind] = count
                self._counted_at = self._time()
                anew = "; the model begins anew behind the gap" if self._carries else ""
                yield Event(kind, self._time(), f"{new} {message}{anew}")

    def _status(self, block: Block, hint: str) -> Status:
        probabilities = self._decoder.probabilities
        best = int(probabilities.argmax())
        return Status(
            self._time(),
            min(1.0, self._meter.peak),
            self._decoder.recognizer.labels[best],
            float(probabilities[best]),
            hint,
            block.dropped,
            block.overflows,
        )
