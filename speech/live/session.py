"""What live listening does between the sound and whoever is told; it prints nothing itself."""

import collections
import contextlib
import dataclasses
import itertools
import json
import math
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from speech.audio import check_rate, read_blocks, scale_to_float
from speech.detection import Detection
from speech.live.microphone import Block, Microphone, quiet_libraries
from speech.recognizer import Recognizer
from speech.stream import StreamDecoder, chosen_for

_BLOCK_SECONDS = 0.05
_TICK_SECONDS = 0.1
_METER_TICKS = 50  # 5 s: longer than the pause between two commands
_CLIPPED = 0.999
_CLIPPED_SAMPLES = 3  # fewer may be a click
_QUIET = 0.01  # -40 dB; a word spoken at a desk peaks at -25 dB or more
_MOST_CHILDREN = 8
_FLOOR = 1e-5

CLEAR = "\r\x1b[K"  # what a terminal shows in its last line
HINTS = {
    "clipping": "clipping: turn the input down",
    "muted": "nothing but digital silence: is the microphone muted?",
    "quiet": "too quiet: speak up, or turn the input up",
}


class Event(NamedTuple):
    """Something to tell the user that is no detection.

    Attributes:
        kind: ready, lost, back, clipping, muted, quiet, dropped, overflow or exec.
        time: When, in seconds of sound heard.
        message: A sentence.
    """

    kind: str
    time: float
    message: str


class Status(NamedTuple):
    """How things stand; comes about ten times a second of sound.

    Attributes:
        time: Seconds of sound heard.
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


@dataclasses.dataclass(frozen=True)
class Source:
    """Where the sound comes from: a microphone, unless something else is given.

    Attributes:
        device: The microphone, by number or part of its name; None or "" for the default.
        pcm: A binary stream for ``pcm_blocks``.
        rate: Its rate in Hz; None for the model's.
        wav: A file for ``file_blocks``.
        realtime: Whether the file is played no faster than it was spoken.
        channels: How many the microphone records; None as ``Microphone``.

    Raises:
        ValueError: Things that exclude one another.
    """

    device: str | None = None
    pcm: BinaryIO | None = None
    rate: int | None = None
    wav: Path | None = None
    realtime: bool = False
    channels: int | None = None

    def __post_init__(self) -> None:
        if sum((bool(self.device), self.pcm is not None, self.wav is not None)) > 1:
            raise ValueError("expected one of --device, --stdin and --wav, got several; choose one")
        if self.rate is not None and self.pcm is None:
            raise ValueError("expected --rate beside --stdin, got it alone; leave it out")
        if self.channels is not None and (self.pcm is not None or self.wav is not None):
            raise ValueError(
                "expected --channels of a microphone, got --stdin or --wav; leave it out"
            )
        if self.realtime and self.wav is None:
            raise ValueError("expected --realtime beside --wav, got it alone; leave it out")
        if self.pcm is not None and self.pcm.isatty():
            raise ValueError("expected --stdin to be a pipe, got a terminal; pipe a recorder in")

    @contextlib.contextmanager
    def open(self, sample_rate: int) -> Iterator[Iterator[Block]]:
        """The blocks, preferably at this rate, while the context lasts.

        Raises:
            AudioError: Of a file or a rate.
            MicrophoneError: Of a microphone.
        """
        if self.wav is not None:
            blocks = file_blocks(self.wav)
            yield paced(blocks) if self.realtime else blocks
        elif self.pcm is not None:
            yield pcm_blocks(self.pcm, self.rate or sample_rate)
        else:
            name = self.device or None
            device = int(name) if name and name.isdecimal() else name
            recorder = Microphone(device, sample_rate, channels=self.channels)
            with quiet_libraries(), recorder as microphone:
                yield itertools.chain([_ready(microphone)], microphone.blocks())


def _ready(microphone: Microphone) -> Block:
    device = microphone.opened
    name = device.name if device else "nothing"
    nothing = np.zeros((0, 1), np.int16)
    return Block(nothing, microphone.sample_rate, "ready", f"listening to {name}", device=device)


def file_blocks(path: str | os.PathLike[str]) -> Iterator[Block]:
    """A recording of any length in blocks as a microphone gives them.

    Raises:
        AudioError: As ``read_blocks``.
    """
    for samples, rate in read_blocks(Path(path)):
        size = round(rate * _BLOCK_SECONDS)
        for first in range(0, len(samples), size):
            yield Block(samples[first : first + size], rate)


def pcm_blocks(stream: BinaryIO, sample_rate: int) -> Iterator[Block]:
    """Raw signed 16-bit little-endian mono samples, as they arrive, until the stream ends.

    Half a sample at the end is left out.

    Raises:
        AudioError: No rate that sound cards use.
    """
    size = 2 * round(check_rate(sample_rate, "--rate") * _BLOCK_SECONDS)
    rest = b""
    read: Callable[[int], bytes] = getattr(stream, "read1", stream.read)  # what is there, not all
    while data := read(size):
        data = rest + data
        whole = len(data) // 2 * 2
        rest = data[whole:]
        yield Block(np.frombuffer(data[:whole], "<i2").astype(np.int16), sample_rate)


def paced(
    blocks: Iterable[Block],
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Block]:
    """The same blocks, each when a microphone would have it: after its last sample was spoken."""
    due = clock()
    for block in blocks:
        due += len(block.samples) / block.sample_rate
        sleep(max(0.0, due - clock()))
        yield block


class Launcher:
    """Starts a command for each detection, without a shell and without waiting for it.

    What a command prints goes to standard error, since standard output belongs to the detections.
    A context manager: at its end, commands that still run get two seconds.

    Args:
        command: Split once as a shell would, without its other powers; ``{label}`` stands for the
            word that was heard, wherever it stands.

    Raises:
        ValueError: An open quotation, nothing at all, or a program that is not there.
    """

    def __init__(self, command: str) -> None:
        try:
            self._arguments = shlex.split(command)
        except ValueError as error:
            raise ValueError(
                f"expected a command, got {command!r} ({error}); close the quotation"
            ) from error
        program = self._arguments[0] if self._arguments else ""
        if "{label}" not in program and shutil.which(program) is None:
            raise ValueError(
                f"expected a program that can be run, got {program!r}; check its name and path"
            )
        self._children: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> "Launcher":
        return self

    def __exit__(self, *_: object) -> None:
        give_up = time.monotonic() + 2.0
        for child in self._children:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(max(0.0, give_up - time.monotonic()))

    def run(self, label: str) -> str:
        """Start it; returns "", or why it was not started, as a sentence."""
        self.reap()
        arguments = [argument.replace("{label}", label) for argument in self._arguments]
        if len(self._children) >= _MOST_CHILDREN:
            return f"{arguments[0]} was not started: {_MOST_CHILDREN} of them still run"
        try:
            child = subprocess.Popen(
                arguments, stdin=subprocess.DEVNULL, stdout=sys.stderr, stderr=sys.stderr
            )
        except (OSError, ValueError) as error:
            return f"{arguments[0]} could not be started: {error}"
        self._children.append(child)
        return ""

    def reap(self) -> None:
        """Let those that have ended go."""
        self._children = [child for child in self._children if child.poll() is None]


def listen(
    blocks: Iterable[Block], decoder: StreamDecoder, launcher: Launcher | None = None
) -> Iterator[Item]:
    """Everything that is to be told about a stream of blocks, as it happens, until it ends.

    Where sound was lost, the stream before it is decoded to its end and another one begins, so
    that no word is put together of two halves; the times go on.

    Args:
        blocks: From a ``Source``.
        decoder: At the beginning of a stream.
        launcher: What to start at each detection, if anything.

    Raises:
        AudioError: NaN or infinity in a file.
    """
    session = Session(decoder)
    for block in blocks:
        if launcher is not None:
            launcher.reap()
        for item in session.hear(block):
            yield item
            if isinstance(item, Detection):
                yield from _launch(launcher, item)
    for detection in session.end():
        yield detection
        yield from _launch(launcher, detection)


def _launch(launcher: Launcher | None, detection: Detection) -> Iterator[Event]:
    if launcher is not None and (problem := launcher.run(detection.label)):
        yield Event("exec", detection.time, problem)


class _Meter:
    """Peaks of the last seconds, and what they say about the microphone."""

    def __init__(self) -> None:
        self.peak = 0.0
        self._clipped = 0
        self._seconds = 0.0
        self._ticks: collections.deque[tuple[float, int]] = collections.deque(maxlen=_METER_TICKS)

    def hear(self, samples: npt.NDArray[np.float32], sample_rate: int) -> bool:
        """Whether that completes a tick; then ``peak`` is that of the tick."""
        if not self._seconds:
            self.peak, self._clipped = 0.0, 0
        size = np.abs(samples)
        self.peak = max(self.peak, float(size.max(initial=0.0)))
        self._clipped += int(np.count_nonzero(size >= _CLIPPED))
        self._seconds += len(samples) / sample_rate
        if self._seconds < _TICK_SECONDS - 1e-6:
            return False
        self._ticks.append((self.peak, self._clipped))
        self._seconds = 0.0
        return True

    def hint(self) -> str:
        """A key of ``HINTS``, or ""."""
        if sum(clipped for _, clipped in self._ticks) >= _CLIPPED_SAMPLES:
            return "clipping"
        loudest = max((peak for peak, _ in self._ticks), default=1.0)
        if len(self._ticks) < _METER_TICKS or loudest >= _QUIET:
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

    def hear(self, block: Block) -> Iterator[Item]:
        """What is to be told after this block.

        Raises:
            AudioError: NaN or infinity, or no such array or rate.
        """
        if block.event:
            yield from self.end()
            yield Event(block.event, self._time(), block.message)
            self._meter = _Meter()
            self._hinted.clear()
            return
        samples = scale_to_float(block.samples)
        found = self._decoder.push(samples, block.sample_rate)
        self._received += len(samples) / block.sample_rate
        yield from map(self._shifted, found)
        if not self._meter.hear(samples, block.sample_rate):
            return
        hint = self._meter.hint()
        if hint and hint not in self._hinted:
            self._hinted.add(hint)
            yield Event(hint, self._time(), HINTS[hint])
        yield from self._losses(block)
        yield self._status(block, hint)

    def end(self) -> Iterator[Detection]:
        """Decode to its end what was heard; the next block begins another stream."""
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
                yield Event(kind, self._time(), f"{new} {message}")

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


def rendered(item: Item, as_json: bool = False, columns: int = 0) -> tuple[str, str]:
    """What an item adds to standard output and to standard error.

    Args:
        item: From ``listen``.
        as_json: Detections and events as JSON lines, all on standard output, no status.
        columns: Width of the terminal that shows the status, in one line that is written over;
            0 for none.
    """
    if isinstance(item, Status):
        return "", CLEAR + _status_line(item, columns) if columns else ""
    if as_json:
        return json.dumps(_fields(item)) + "\n", ""
    clear = CLEAR if columns else ""
    if isinstance(item, Detection):
        return f"{item.time:.1f} s  {item.label}  {item.probability:.2f}\n", clear
    if columns and item.kind in HINTS:
        return "", ""  # the status shows it for as long as it is so
    return "", f"{clear}speech: {item.message}\n"


def _fields(item: Detection | Event) -> dict[str, Any]:
    if isinstance(item, Event):
        return {
            "type": "event",
            "event": item.kind,
            "time": round(item.time, 3),
            "message": item.message,
        }
    return {
        "type": "detection",
        "label": item.label,
        "probability": round(item.probability, 4),
        "time": round(item.time, 3),
        "start": round(item.start, 3),
    }


def _status_line(status: Status, columns: int) -> str:
    decibels = 20 * math.log10(max(status.peak, _FLOOR))
    bars = round(min(max(decibels + 60, 0), 60) / 3)
    parts = [
        f"{status.time:7.1f} s  [{'#' * bars:20}] {decibels:4.0f} dB",
        f"{status.label} {status.probability:.2f}",
        HINTS.get(status.hint, ""),
        f"{status.dropped} dropped" if status.dropped else "",
        f"{status.overflows} overflows" if status.overflows else "",
    ]
    return "  ".join(part for part in parts if part)[: columns - 1]
