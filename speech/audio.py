"""Audio loading: decode, downmix to mono float32, resample.

A recording can be taken although something is odd about it: a header that was never finished, two
channels that cancel each other out. Functions that read then call ``on_note`` with one sentence; by
default it becomes a ``SpeechWarning``.
"""

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from speech.audio_files import FORMATS as FORMATS
from speech.audio_files import FileSource, PatchedFile, examine, opened
from speech.errors import AudioError, SpeechWarning

AudioSource: TypeAlias = FileSource | tuple[npt.NDArray[Any], int]
Waveform: TypeAlias = npt.NDArray[np.float32]
OnNote: TypeAlias = Callable[[str], object]

MIN_RATE, MAX_RATE = 8_000, 192_000
MAX_CHANNELS = 32
# Lossy decoders and resamplers overshoot full scale a little; samples far beyond it mean integers
# that were cast to float without being scaled.
MAX_PEAK = 4.0
_BLOCK_FRAMES = 65_536
_NO_LIMIT_SECONDS = 1e9
JUST_BELOW_ONE = np.nextafter(np.float32(1), np.float32(0))
_UNKNOWN_FRAMES = 2**63 - 1  # what libsndfile says of a FLAC that was streamed
# The mean of n unrelated channels has 1/n of their mean energy. If it has less than half of that
# over so many samples, one channel is the negative of another.
_CANCELLED_SHARE, _CANCELLED_FRAMES = 0.5, 1024


def warn(note: str) -> None:
    """The default of ``on_note``: a SpeechWarning."""
    warnings.warn(note, SpeechWarning, stacklevel=3)


def load_audio(
    source: AudioSource,
    sample_rate: int = 16_000,
    *,
    max_seconds: float = 60.0,
    on_note: OnNote = warn,
) -> Waveform:
    """Decode, mix down to mono and resample.

    Args:
        source: A path, ``"-"`` for standard input, the bytes of an audio file, a binary file object
            that can seek (it is read from its beginning and left open), or a pair
            ``(samples, rate)`` as ``soundfile.read`` returns it: samples of shape ``(n,)`` or
            ``(n, channels)``, int8, int16, int32 (full scale) or float32, float64 (in [-1, 1]).
        sample_rate: Rate of the result in Hz.
        max_seconds: Longest recording accepted; one sample more is the most that is ever decoded.
        on_note: Is told in one sentence what is odd about a recording that is taken all the same.

    Returns:
        Samples of shape ``(n,)``, float32 in [-1, 1): the mean over the channels, or one of them
        where they cancel each other out.

    Raises:
        AudioError: Empty, truncated, too long, not audio, NaN or infinity, or a rate or number of
            channels that no microphone has. An MP3 without a Xing tag that ends early is the one
            truncation that nothing in the file gives away.

    Example:
        >>> waveform = speech.load_audio("left.wav", 8_000)
        >>> waveform.dtype, waveform.ndim
        (dtype('float32'), 1)
    """
    if isinstance(source, tuple):
        name = "the array"
        mono, rate = _mix_array(*source, max_seconds, Downmix(name, on_note))
    else:
        with open_audio(source, on_note=on_note) as file:
            name, rate = file.name, file.sample_rate
            blocks = list(file.blocks(max_seconds))
        mono = np.concatenate(blocks) if blocks else np.zeros(0, np.float32)
    waveform = resample(mono, rate, sample_rate)
    if not waveform.size:
        raise AudioError(f"{name}: expected at least one sample, got none; record it again")
    return waveform


def resample(mono: Waveform, rate: int, sample_rate: int) -> Waveform:
    """Whole mono samples float32 (n,) at another rate, clipped to [-1, 1)."""
    if rate != sample_rate:
        mono = soxr.resample(mono, rate, sample_rate)
    return np.clip(mono, -1.0, JUST_BELOW_ONE)


def resample_blocks(blocks: Iterator[Waveform], rate: int, sample_rate: int) -> Iterator[Waveform]:
    """The same for a recording that comes in blocks, without seams between them."""
    if rate == sample_rate:
        yield from (np.clip(block, -1.0, JUST_BELOW_ONE) for block in blocks)
        return
    stream = soxr.ResampleStream(rate, sample_rate, 1, dtype="float32")
    for block in blocks:
        yield np.clip(stream.resample_chunk(block), -1.0, JUST_BELOW_ONE)
    rest = stream.resample_chunk(np.zeros(0, np.float32), last=True)
    yield np.clip(rest, -1.0, JUST_BELOW_ONE)


def read_blocks(source: FileSource, *, on_note: OnNote = warn) -> Iterator[tuple[Waveform, int]]:
    """A recording of any length, piece by piece, in memory that does not grow with it.

    Args:
        source: As for ``load_audio``, without arrays.
        on_note: As for ``load_audio``.

    Yields:
        Mono samples float32 (n,), not clipped to [-1, 1), n at most 65 536, and their rate in Hz.

    Raises:
        AudioError: As ``load_audio``, but never for its length; damage shows where it lies.
    """
    with open_audio(source, on_note=on_note) as file:
        for block in file.blocks():
            yield block, file.sample_rate


class AudioFile:
    """A sound file that was opened and looked over, and is decoded once. Made by ``open_audio``.

    Attributes:
        name: For messages: its path, ``standard input`` or ``the audio``.
        sample_rate: In Hz, of what ``blocks`` yields.
        seconds: Its length, None where its header does not say.
        n_bytes: Size of the file.
    """

    def __init__(
        self,
        file: soundfile.SoundFile,
        handle: BinaryIO,
        name: str,
        size: int,
        counts_frames: bool,
        on_note: OnNote,
    ) -> None:
        self._file, self._handle, self._on_note = file, handle, on_note
        self._frames: int | None = file.frames
        if not counts_frames or file.frames == _UNKNOWN_FRAMES:
            self._frames = None
        self.name = name
        self.sample_rate: int = file.samplerate
        self.seconds = None if self._frames is None else self._frames / self.sample_rate
        self.n_bytes = size

    @property
    def bytes_read(self) -> int:
        """How far the decoder is; at most ``n_bytes``."""
        return min(self._handle.tell(), self.n_bytes)

    def blocks(self, max_seconds: float = _NO_LIMIT_SECONDS) -> Iterator[Waveform]:
        """Decode from where the last call stopped.

        Yields:
            Mono samples float32 (n,), not clipped to [-1, 1), n at most 65 536.

        Raises:
            AudioError: Longer than ``max_seconds`` (before anything is decoded where the header
                says it), damaged, or cut short.
        """
        if self._frames is not None:
            _check_length(self._frames, self.sample_rate, max_seconds, self.name)
        downmix = Downmix(self.name, self._on_note)
        for block in self._decode(max_seconds):
            yield downmix(block)

    def _decode(self, max_seconds: float) -> Iterator[npt.NDArray[np.float32]]:
        decoded = 0
        while True:
            _check_length(decoded, self.sample_rate, max_seconds, self.name)
            left = round(max_seconds * self.sample_rate) - decoded
            try:
                block = self._file.read(
                    min(_BLOCK_FRAMES, left + 1), dtype="float32", always_2d=True
                )
            except soundfile.LibsndfileError as error:
                raise AudioError(
                    f"{self.name}: expected whole audio, got damage after "
                    f"{decoded / self.sample_rate:.2f} s ({_reason(error)}); copy or record it "
                    "again"
                ) from error
            if not len(block):
                break
            decoded += len(block)
            yield block
        # a FLAC or MP3 cut short simply ends, and damaged pages of an Ogg are left out
        if self._frames is not None and decoded < self._frames:
            raise AudioError(
                f"{self.name}: expected {self._frames} samples as its header says, got {decoded}: "
                "the file is truncated or damaged; copy or record it again"
            )


@contextlib.contextmanager
def open_audio(source: FileSource, *, on_note: OnNote = warn) -> Iterator[AudioFile]:
    """Open a sound file, to decode it once with ``AudioFile.blocks``.

    Args:
        source: As for ``load_audio``, without arrays.
        on_note: As for ``load_audio``.

    Raises:
        AudioError: Not an audio file, empty, truncated, or a rate or number of channels that no
            microphone has.
    """
    with opened(source) as (handle, name):
        size = handle.seek(0, io.SEEK_END)
        if not size:
            raise AudioError(
                f"{name}: expected an audio file ({FORMATS}), got an empty file; record it again"
            )
        structure = examine(handle)
        if structure.present < structure.promised:
            raise AudioError(
                f"{name}: expected {structure.promised} bytes as its header says, got "
                f"{structure.present}: the file is truncated; copy or record it again"
            )
        handle.seek(0)
        try:
            file = _Reader(PatchedFile(handle, structure) if structure.patched(size) else handle)
        except (soundfile.LibsndfileError, TypeError, OSError) as error:
            raise AudioError(
                f"{name}: expected {FORMATS}, got another kind of file ({_reason(error)}); "
                "convert it, for example: ffmpeg -i INPUT output.wav"
            ) from error
        with file:
            check_rate(file.samplerate, name)
            _check_channels(file.channels, name)
            if structure.unfinished:
                on_note(
                    f"{name}: the recording was not finished ({structure.unfinished}); "
                    "all sound in the file is used"
                )
            yield AudioFile(file, handle, name, size, structure.counts_frames, on_note)


def fit_length(waveform: Waveform, n_samples: int) -> Waveform:
    """Cut or pad a recording to one clip, as the corpus was cut.

    A shorter recording is padded with zeros at both sides. Of a longer one the loudest window
    is taken (Speech Commands was made so: ``extract_loudest_section``), and where the windows
    around it hold practically the same energy, the middle one, so that the word is centred.

    Args:
        waveform: Samples of shape ``(n,)``, float32, n >= 0.
        n_samples: Length of the clip.

    Returns:
        Samples of shape ``(n_samples,)``, float32.
    """
    excess = len(waveform) - n_samples
    if excess <= 0:
        left = -excess // 2
        return np.pad(waveform, (left, -excess - left)).astype(np.float32, copy=False)
    energy = np.concatenate([[0.0], np.cumsum(waveform.astype(np.float64) ** 2)])
    windows = energy[n_samples:] - energy[:-n_samples]
    weaker = np.flatnonzero(windows < 0.98 * windows.max())
    after = int(np.searchsorted(weaker, np.argmax(windows)))  # the run of loud ones ends there
    first = weaker[after - 1] + 1 if after else 0
    last = weaker[after] - 1 if after < len(weaker) else excess
    start = int(first + last + 1) // 2
    return np.ascontiguousarray(waveform[start : start + n_samples], dtype=np.float32)


def scale_to_float(samples: npt.NDArray[Any]) -> Waveform:
    """Integers of full scale 2**(bits - 1), or floats, to float32; int16 / 32768 is exact.

    Raises:
        AudioError: Another dtype, NaN, infinity, or floats far beyond full scale.
    """
    if samples.dtype in (np.int8, np.int16, np.int32):
        full_scale = np.float64(np.iinfo(samples.dtype).max) + 1
        return (samples / full_scale).astype(np.float32)
    if samples.dtype not in (np.float32, np.float64):
        raise AudioError(
            f"expected int8, int16, int32, float32 or float64 samples, got {samples.dtype}; "
            "convert them with astype"
        )
    peak = float(np.max(np.abs(samples))) if samples.size else 0.0
    if not np.isfinite(peak):
        raise AudioError("expected finite samples, got NaN or infinity; record or convert it again")
    if peak > MAX_PEAK:
        raise AudioError(
            f"expected float samples in [-1, 1], got a peak of {peak:.6g}; "
            "divide integers by their full scale (32768 for 16 bit)"
        )
    return samples.astype(np.float32)


def check_rate(rate: Any, name: str = "audio") -> int:
    """The rate as an int, if it is one that sound cards use (8 to 192 kHz); else AudioError."""
    try:
        whole = int(rate)
    except (TypeError, ValueError, OverflowError):
        whole = -1
    if whole != rate or not MIN_RATE <= whole <= MAX_RATE:
        raise AudioError(
            f"{name}: expected a rate of {MIN_RATE} to {MAX_RATE} Hz, got {rate}; "
            "record it again, or resample it: ffmpeg -i INPUT -ar 16000 output.wav"
        )
    return whole


def _check_channels(channels: int, name: str) -> None:
    if not 1 <= channels <= MAX_CHANNELS:
        raise AudioError(
            f"{name}: expected 1 to {MAX_CHANNELS} channels, got {channels}; "
            + ("arrays are (samples, channels)" if name == "the array" else "choose some of them")
        )


def to_float(samples: npt.NDArray[np.int16]) -> npt.NDArray[np.float32]:
    """int16 samples to float32 in [-1, 1), exactly: a division by 32768."""
    return samples.astype(np.float32) / np.float32(32768)


def to_int16(waveform: npt.NDArray[np.float32]) -> npt.NDArray[np.int16]:
    """The inverse of ``to_float``, rounded and clipped."""
    return np.clip(np.round(waveform * 32768), -32768, 32767).astype(np.int16)


def rms(waveforms: npt.NDArray[np.floating[Any]], axis: int = -1) -> npt.NDArray[Any]:
    """Root mean square along an axis, which is kept with length one.

    Args:
        waveforms: Samples, floating point, of any shape.
        axis: The axis of time.

    Example:
        >>> rms(np.array([0.5, -0.5]))
        array([0.5])
    """
    level: npt.NDArray[Any] = np.sqrt(np.mean(np.square(waveforms), axis=axis, keepdims=True))
    return level


class Downmix:
    """Channels to one, block after block: their mean, unless they cancel each other out.

    A balanced microphone in a stereo jack gives two channels, one the negative of the other; their
    mean is silence. From the block on in which that shows, the loudest channel is taken.

    Args:
        name: Of the recording, for the note.
        on_note: Is told when that happens.
    """

    def __init__(self, name: str, on_note: OnNote = warn) -> None:
        self._name, self._on_note = name, on_note
        self._n_channels = 0
        self._channel: int | None = None

    def __call__(self, samples: npt.NDArray[Any]) -> Waveform:
        """Samples of a type that ``scale_to_float`` takes, (n, channels), as float32 (n,).

        Raises:
            AudioError: As ``scale_to_float``; nothing has changed then.
        """
        try:
            frames = scale_to_float(samples)
        except AudioError as error:
            raise AudioError(f"{self._name}: {error}") from None
        if frames.shape[1] != self._n_channels:
            self._n_channels, self._channel = frames.shape[1], None
            self._energies = np.zeros(self._n_channels)
            self._mixed_energy, self._n_frames = 0.0, 0
        mono: Waveform = frames.mean(axis=1, dtype=np.float32)
        if self._channel is None and self._n_channels > 1:
            self._look_for_cancellation(frames, mono)
        return mono if self._channel is None else np.ascontiguousarray(frames[:, self._channel])

    def _look_for_cancellation(self, frames: Waveform, mono: Waveform) -> None:
        self._n_frames += len(frames)
        self._energies += np.square(frames, dtype=np.float64).sum(axis=0)
        self._mixed_energy += float(np.square(mono, dtype=np.float64).sum())
        unrelated = self._energies.sum() / self._n_channels**2
        cancelled = self._mixed_energy < _CANCELLED_SHARE * unrelated
        if cancelled and self._n_frames >= _CANCELLED_FRAMES:
            loudest = self._energies.max()
            self._channel = int(np.argmax(self._energies > 0.9 * loudest))  # the first of equals
            self._on_note(
                f"{self._name}: the channels cancel each other out (one is inverted); "
                f"only channel {self._channel + 1} of {self._n_channels} is used"
            )


def to_mono(
    samples: npt.NDArray[Any], rate: int, downmix: Downmix | None = None
) -> tuple[Waveform, int]:
    """A chunk of a stream of any length as mono float32 (n,), and its rate, which it keeps.

    Args:
        samples: ``(n,)`` or ``(n, channels)``, of a type that ``load_audio`` takes.
        rate: In Hz.
        downmix: That of the stream; without one, each chunk is taken by itself.

    Raises:
        AudioError: As ``load_audio`` of ``(samples, rate)``, but an empty chunk is none.
    """
    return _mix_array(samples, rate, _NO_LIMIT_SECONDS, downmix or Downmix("the array"))


def _mix_array(
    samples: npt.NDArray[Any], rate: int, max_seconds: float, downmix: Downmix
) -> tuple[Waveform, int]:
    samples = np.asarray(samples)
    if samples.ndim not in (1, 2):
        raise AudioError(
            f"expected samples (n,) or (n, channels), got shape {samples.shape}; "
            "the pair is (samples, rate)"
        )
    frames = samples.reshape(len(samples), -1) if samples.size else samples.reshape(0, 1)
    _check_channels(frames.shape[1], "the array")
    rate = check_rate(rate, "the array")
    _check_length(len(frames), rate, max_seconds, "the array")
    blocks = [downmix(frames[i : i + _BLOCK_FRAMES]) for i in range(0, len(frames), _BLOCK_FRAMES)]
    return (np.concatenate(blocks) if blocks else np.zeros(0, np.float32)), rate


class _Reader(soundfile.SoundFile):  # type: ignore[misc]
    def seekable(self) -> bool:
        """No: else soundfile seeks after every read, which a streamed FLAC does not survive."""
        return False


def _check_length(frames: int, rate: int, max_seconds: float, name: str) -> None:
    if frames > round(max_seconds * rate):
        raise AudioError(
            f"{name}: expected at most {max_seconds:g} s, got more; cut it shorter, or find the "
            "words in it with: speech scan"
        )


def _reason(error: Exception) -> str:
    return str(getattr(error, "error_string", error)).strip().rstrip(".").lower()
