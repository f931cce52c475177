"""Sound from a pipe: raw PCM or WAV, as it arrives, and what shows that it is something else."""

import io
import struct
import time
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from speech.audio import check_rate
from speech.errors import AudioError
from speech.live.microphone import Block
from speech.stream import TREBLE_HZ, lacks_treble

_BLOCK_SECONDS = 0.05
_HEAD_BYTES = 12
# how files begin that are neither WAV nor raw samples
_OTHERS = {b"fLaC": "FLAC", b"OggS": "Ogg", b"ID3": "MP3", b"FORM": "AIFF", b"caff": "CAF"}
_STREAMED_BYTES = 0x7FFF0000  # encoders that cannot seek back promise about as much as fits
_SKIP_BYTES = 1 << 16
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_DTYPES = {(_PCM, 16): "<i2", (_PCM, 32): "<i4", (_FLOAT, 32): "<f4", (_FLOAT, 64): "<f8"}

# --- evidence that raw samples are not what was said
_EVIDENCE_SECONDS = 3.0
_MIN_SECONDS = 0.25
_UNIFORM_RMS, _UNIFORM_TOLERANCE = 3**-0.5, 0.05  # of random bits
_INTERLEAVED = 0.5
_ARRIVAL_SECONDS = 6.0
_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000)
_RATE_TOLERANCE = 0.02


def pcm_blocks(stream: BinaryIO, sample_rate: int) -> Iterator[Block]:
    """Samples from a pipe as they arrive, until it ends: WAV where a header says so, else raw PCM.

    Raw samples are signed 16-bit little-endian mono; half a sample at the end is left out. Where
    they plainly are something else, a block with the event ``note`` says so, and the sound goes on.

    Args:
        stream: A binary stream, which need not be able to seek.
        sample_rate: Rate in Hz of raw samples; a header has its own.

    Raises:
        AudioError: No rate that sound cards use, or a file of another kind.
    """
    rate = check_rate(sample_rate, "the stream")
    source = _Stream(stream)
    head = source.peek(_HEAD_BYTES)
    for magic, name in _OTHERS.items():
        if head.startswith(magic):
            raise AudioError(
                f"the stream: expected WAV or raw 16-bit samples, got {name}; decode it first: "
                f"ffmpeg -i - -f s16le -ac 1 -ar {rate} -"
            )
    if _is_wav(head):
        yield from _wav_blocks(source)
    else:
        yield from _raw_blocks(source, rate)


class _Stream:
    """A binary stream of which the first bytes can be looked at."""

    def __init__(self, stream: BinaryIO) -> None:
        # what is there, not all that was asked for
        self._read: Callable[[int], bytes] = getattr(stream, "read1", stream.read)
        self._head = b""

    def peek(self, size: int) -> bytes:
        while len(self._head) < size and (data := self._read(size - len(self._head))):
            self._head += data
        return self._head

    def some(self, size: int) -> bytes:
        """At most so many bytes, as soon as there are any; none at the end."""
        if self._head:
            data, self._head = self._head[:size], self._head[size:]
            return data
        return self._read(size)

    def exactly(self, size: int) -> bytes:
        """So many bytes; fewer at the end."""
        data = io.BytesIO()
        while data.tell() < size and (more := self.some(size - data.tell())):
            data.write(more)
        return data.getvalue()

    def skip(self, size: int) -> None:
        while size > 0 and (data := self.some(min(size, _SKIP_BYTES))):
            size -= len(data)


# --- WAV -----------------------------------------------------------------------------------------


class _WavFormat(NamedTuple):
    tag: int
    channels: int
    rate: int
    bits: int


def _is_wav(head: bytes) -> bool:
    return head[:4] in (b"RIFF", b"RF64") and head[8:12] == b"WAVE"


def _wav_blocks(source: _Stream) -> Iterator[Block]:
    """The sound of one WAV file after the other (RIFF, Microsoft and IBM 1991)."""
    form: _WavFormat | None = None
    has_sound = False
    while len(head := source.exactly(8)) == 8:
        name, size = struct.unpack("<4sI", head)
        if name in (b"RIFF", b"RF64"):
            source.exactly(4)
        elif name == b"fmt ":
            form = _wav_format(source.exactly(size + size % 2))
        elif name == b"data":
            if form is None:
                raise AudioError(
                    "the stream: expected a WAV header with its format before the sound, got none; "
                    "record it again"
                )
            has_sound = True
            endless = size == 0 or size >= _STREAMED_BYTES
            yield from _wav_samples(source, form, None if endless else size)
            source.skip(size % 2)
        else:
            source.skip(size + size % 2)
    if not has_sound:
        raise AudioError(
            "the stream: expected sound behind the WAV header, got its end; see what the recorder "
            "says"
        )


def _wav_format(chunk: bytes) -> _WavFormat:
    if len(chunk) < 16:
        raise AudioError("the stream: expected a whole WAV header, got less; record it again")
    tag, channels, rate, _, _, bits = struct.unpack("<HHIIHH", chunk[:16])
    if tag == _EXTENSIBLE and len(chunk) >= 26:
        (tag,) = struct.unpack("<H", chunk[24:26])
    if ((tag, bits) not in _DTYPES and not (tag == _PCM and bits in (8, 24))) or not channels:
        raise AudioError(
            f"the stream: expected WAV with 8 to 32 bits of PCM or float samples, got format {tag} "
            f"with {bits} bits and {channels} channels; convert it: ffmpeg -i - -f s16le -ac 1 -ar "
            "16000 -"
        )
    return _WavFormat(tag, channels, check_rate(rate, "the stream"), bits)


def _wav_samples(source: _Stream, form: _WavFormat, size: int | None) -> Iterator[Block]:
    frame = form.channels * form.bits // 8
    most = frame * round(form.rate * _BLOCK_SECONDS)
    rest = b""
    while size is None or size > 0:
        data = source.some(most if size is None else min(most, size))
        if not data:
            return
        size = None if size is None else size - len(data)
        data = rest + data
        whole = len(data) // frame * frame
        rest = data[whole:]
        if whole:
            samples = pcm_samples(data[:whole], form.bits, form.tag).reshape(-1, form.channels)
            yield Block(samples, form.rate)


def pcm_samples(data: bytes, bits: int, tag: int = _PCM) -> npt.NDArray[Any]:
    """Little-endian samples as WAV has them, as an array (n,) of a type that ``to_mono`` takes.

    Args:
        data: A whole number of samples.
        bits: Of each: 8 (unsigned), 16, 24 or 32; of floats 32 or 64.
        tag: Of the WAV format: 1 for integers, 3 for floats.
    """
    if bits == 8:
        return ((np.frombuffer(data, np.uint8).astype(np.int16) - 128) * 256).astype(np.int16)
    if bits == 24:
        wide = np.zeros((len(data) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        return wide.view("<i4")[:, 0].astype(np.int32)
    dtype = np.dtype(_DTYPES[tag, bits])
    return np.frombuffer(data, dtype).astype(dtype.newbyteorder("="))


# --- raw samples ---------------------------------------------------------------------------------


def _raw_blocks(source: _Stream, rate: int) -> Iterator[Block]:
    size = 2 * round(rate * _BLOCK_SECONDS)
    rest = b""
    evidence, arrival = _Evidence(rate), _Arrival(rate)
    while data := arrival.timed(source.some, size):
        data = rest + data
        whole = len(data) // 2 * 2
        rest = data[whole:]
        samples = np.frombuffer(data[:whole], "<i2").astype(np.int16)
        yield Block(samples, rate)
        if note := evidence.add(samples) or arrival.note():
            yield _note(note, rate)
            evidence.is_done = arrival.is_done = True
    if note := evidence.judge():
        yield _note(note, rate)


def _note(message: str, rate: int) -> Block:
    return Block(np.zeros(0, np.int16), rate, "note", message)


class _Evidence:
    """The first seconds of sound, and what is wrong with them if they are not what was said."""

    def __init__(self, rate: int) -> None:
        self.is_done = False
        self._rate = rate
        self._samples: list[npt.NDArray[np.int16]] = []
        self._n = 0

    def add(self, samples: npt.NDArray[np.int16]) -> str:
        """A sentence, once, when there is enough; else ""."""
        if self.is_done or not samples.any():
            return ""
        self._samples.append(samples)
        self._n += len(samples)
        return self.judge() if self._n >= _EVIDENCE_SECONDS * self._rate else ""

    def judge(self) -> str:
        """A sentence about what there is, or ""; nothing more is looked at."""
        if self.is_done or self._n < _MIN_SECONDS * self._rate:
            return ""
        self.is_done = True
        sound = np.concatenate(self._samples) / 32768.0
        self._samples = []
        problem = _wrong_width(sound) or _interleaved(sound) or _wrong_rate(sound, self._rate)
        if not problem:
            return ""
        return (
            f"this does not look like 16-bit mono samples at {self._rate} Hz: {problem}; convert "
            "it, send WAV, whose header says what it is, or say the rate"
        )


def _wrong_width(sound: npt.NDArray[np.float64]) -> str:
    if float(sound.mean()) < -0.5:
        return "they lie around one value, as samples of 8 bits would"
    for stride, kind in ((2, "of 32 bits"), (3, "of 24 bits")):
        random = [_is_random(sound[phase::stride]) for phase in range(stride)]
        if any(random):
            kind = "of the other byte order" if all(random) else kind
            return f"there are random bits at full volume in them, as in samples {kind}"
    return ""


def _is_random(part: npt.NDArray[np.float64]) -> bool:
    power = float(np.mean(part**2))
    if abs(power**0.5 - _UNIFORM_RMS) > _UNIFORM_TOLERANCE:
        return False
    return abs(float(np.mean(part[1:] * part[:-1]))) < 0.1 * power


def _interleaved(sound: npt.NDArray[np.float64]) -> str:
    sound = sound[: len(sound) // 2 * 2]
    if not sound[0::2].any() or not sound[1::2].any():
        return "every second one is zero, as with two channels or 32 bits"
    within = float(np.mean((sound[1::2] - sound[0::2]) ** 2))
    between = float(np.mean((sound[2::2] - sound[1:-1:2]) ** 2))
    if min(within, between) < _INTERLEAVED * max(within, between):
        return "they come in pairs, as those of two channels do"
    return ""


def _wrong_rate(sound: npt.NDArray[np.float64], rate: int) -> str:
    if not lacks_treble(sound, rate):
        return ""
    return (
        f"there is nothing above {TREBLE_HZ / 1000:g} kHz, as if it was recorded at a higher "
        "rate, for example 44100 or 48000 Hz"
    )


class _Arrival:
    """How fast a stream arrives while its reader waits: a recorder sends as much as it records."""

    def __init__(self, rate: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.is_done = False
        self._rate, self._clock = rate, clock
        self._started = clock()
        self._waited = 0.0
        self._bytes = 0

    def timed(self, read: Callable[[int], bytes], size: int) -> bytes:
        """Read, and remember how long it took."""
        before = self._clock()
        data = read(size)
        after = self._clock()
        if not self._bytes:
            self._started, before = after, after  # a recorder takes its time to start
        self._waited += after - before
        self._bytes += len(data)
        return data

    def note(self) -> str:
        """A sentence, once, if the bytes a second are those of another known rate; else ""."""
        seconds = self._clock() - self._started
        if self.is_done or seconds < _ARRIVAL_SECONDS:
            return ""
        self.is_done = True
        if self._waited < 0.5 * seconds:  # a file, which comes as fast as it is read
            return ""
        arrived = self._bytes / 2 / seconds
        if abs(arrived / self._rate - 1) < 2 * _RATE_TOLERANCE:
            return ""
        kinds = [
            f"{rate} Hz{kind}"
            for channels, kind in ((1, ""), (2, " in two channels"))
            for rate in _RATES
            if abs(arrived / (rate * channels) - 1) < _RATE_TOLERANCE
        ]
        if not kinds:
            return ""
        return (
            f"{arrived:.0f} samples a second arrive where {self._rate} were expected, as from a "
            f"recorder at {' or '.join(kinds)}; send that many, or say the rate"
        )
