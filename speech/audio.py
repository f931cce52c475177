"""The door for audio: whatever comes in leaves as mono float32 at the rate that was asked for."""

import contextlib
import io
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from speech.errors import AudioError

AudioSource: TypeAlias = str | os.PathLike[str] | bytes | BinaryIO | tuple[npt.NDArray[Any], int]
Waveform: TypeAlias = npt.NDArray[np.float32]

SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3")
FORMATS = "WAV, FLAC, OGG, Opus or MP3"
MIN_RATE, MAX_RATE = 8_000, 192_000
MAX_CHANNELS = 32
# Lossy decoders and resamplers overshoot full scale a little; samples far beyond it mean integers
# that were cast to float without being scaled.
MAX_PEAK = 4.0
_BLOCK_FRAMES = 65_536
_NO_LIMIT_SECONDS = 1e9
JUST_BELOW_ONE = np.nextafter(np.float32(1), np.float32(0))
_TRUNCATED = re.compile(r"\bdata : (\d+) \(should be (\d+)\)")
# An encoder that cannot seek back promises about as much as the field holds: arecord 0x7FFFFF00,
# sox 0x7FFFF000, ffmpeg 0xFFFFFFFF.
_STREAMED_BYTES = 0x7FFF0000
_UNKNOWN_FRAMES = 2**63 - 1  # what libsndfile says of a FLAC that was streamed
_MPEG_TAG_PLACES = (36, 21, 13)  # from the first frame to its Xing tag, by version and channels


def load_audio(
    source: AudioSource, sample_rate: int = 16_000, *, max_seconds: float = 60.0
) -> Waveform:
    """Decode, mix down to mono and resample.

    Args:
        source: A path, the bytes of an audio file, a binary file object that can seek (it is read
            from its beginning and left open), or a pair ``(samples, rate)`` as ``soundfile.read``
            returns it: samples of shape ``(n,)`` or ``(n, channels)``, int8, int16, int32 (full
            scale) or float32, float64 (in [-1, 1]).
        sample_rate: Rate of the result in Hz.
        max_seconds: Longest recording accepted; one sample more is the most that is ever decoded.

    Returns:
        Samples of shape ``(n,)``, float32 in [-1, 1), the mean over the channels.

    Raises:
        AudioError: Empty, truncated, too long, not audio, NaN or infinity, or a rate or number of
            channels that no microphone has. An MP3 without a Xing tag that ends early is the one
            truncation that nothing in the file gives away.
    """
    if isinstance(source, tuple):
        name = "the array"
        mono, rate = _mix_array(*source, max_seconds)
    else:
        with _opened(source) as (handle, name):
            mono, rate = _mix_file(handle, name, max_seconds)
    if rate != sample_rate:
        mono = soxr.resample(mono, rate, sample_rate)
    if not mono.size:
        raise AudioError(f"{name}: expected at least one sample, got none; record it again")
    return np.clip(mono, -1.0, JUST_BELOW_ONE)


def read_blocks(
    source: str | os.PathLike[str] | bytes | BinaryIO,
) -> Iterator[tuple[Waveform, int]]:
    """A recording of any length, piece by piece, in memory that does not grow with it.

    Args:
        source: As for ``load_audio``, without arrays.

    Yields:
        Mono samples float32 (n,), not clipped to [-1, 1), n at most 65 536, and their rate in Hz.

    Raises:
        AudioError: As ``load_audio``, but never for its length; damage shows where it lies.
    """
    with _opened(source) as (handle, name), _sound_file(handle, name) as file:
        for block in _mixed(_decode(file, name, _NO_LIMIT_SECONDS), name):
            yield block, file.samplerate


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
        >>> float(rms(np.array([0.6, -0.8]))[0] ** 2)
        0.5
    """
    level: npt.NDArray[Any] = np.sqrt(np.mean(np.square(waveforms), axis=axis, keepdims=True))
    return level


def mix_chunk(samples: npt.NDArray[Any], rate: int) -> tuple[Waveform, int]:
    """A chunk of a stream of any length as mono float32 (n,), and its rate, which it keeps.

    Raises:
        AudioError: As ``load_audio`` of ``(samples, rate)``, but an empty chunk is none.
    """
    return _mix_array(samples, rate, _NO_LIMIT_SECONDS)


def _mix_array(samples: npt.NDArray[Any], rate: int, max_seconds: float) -> tuple[Waveform, int]:
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
    blocks = (frames[i : i + _BLOCK_FRAMES] for i in range(0, len(frames), _BLOCK_FRAMES))
    return _mix_down(blocks, "the array"), rate


@contextlib.contextmanager
def _opened(
    source: str | os.PathLike[str] | bytes | BinaryIO,
) -> Iterator[tuple[BinaryIO, str]]:
    """The source as a binary file at its beginning, and its name."""
    if isinstance(source, bytes):
        yield io.BytesIO(source), "the audio"
    elif isinstance(source, str | os.PathLike):
        path = Path(source)
        try:
            if not path.is_file():
                what = "a folder" if path.is_dir() else "nothing of that kind there"
                raise AudioError(
                    f"{path}: expected an audio file ({FORMATS}), got {what}; check the path"
                )
            handle = path.open("rb")
        except OSError as error:
            raise AudioError(
                f"{path}: expected an audio file ({FORMATS}) that can be read, got the error "
                f"{error.strerror!r}; check the path and its permissions"
            ) from error
        with handle:
            yield handle, str(path)
    else:
        name = str(getattr(source, "name", "the audio"))
        try:
            source.seek(0)
            binary = isinstance(source.read(0), bytes)
        except (AttributeError, TypeError, ValueError, OSError):
            binary = False
        if not binary:
            raise AudioError(
                f"{name}: expected a path, bytes, (samples, rate) or a binary file object that can "
                f"seek, got {type(source).__name__}; of a stream pass the bytes: stream.read()"
            )
        yield source, name


class _Reader(soundfile.SoundFile):  # type: ignore[misc]
    def seekable(self) -> bool:
        """No: else soundfile seeks after every read, which a streamed FLAC does not survive."""
        return False


def _mix_file(handle: BinaryIO, name: str, max_seconds: float) -> tuple[Waveform, int]:
    with _sound_file(handle, name) as file:
        if file.frames != _UNKNOWN_FRAMES:
            _check_length(file.frames, file.samplerate, max_seconds, name)
        return _mix_down(_decode(file, name, max_seconds), name), file.samplerate


@contextlib.contextmanager
def _sound_file(handle: BinaryIO, name: str) -> Iterator[soundfile.SoundFile]:
    """The file opened, and refused where its header says that it cannot be what was meant."""
    if not handle.seek(0, io.SEEK_END):
        raise AudioError(
            f"{name}: expected an audio file ({FORMATS}), got an empty file; record it again"
        )
    handle.seek(0)
    try:
        file = _Reader(handle)
    except (soundfile.LibsndfileError, TypeError, OSError) as error:
        raise AudioError(
            f"{name}: expected {FORMATS}, got something else ({_reason(error)}); "
            "convert it, for example: ffmpeg -i INPUT output.wav"
        ) from error
    with file:
        check_rate(file.samplerate, name)
        _check_channels(file.channels, name)
        _refuse_truncated(file, handle, name)
        yield file


def _refuse_truncated(file: soundfile.SoundFile, handle: BinaryIO, name: str) -> None:
    promised = present = 0
    if file.format == "MP3":
        promised, present = _mpeg_bytes(handle)
    elif file.format == "OGG":
        promised, present = _last_page_bytes(handle)
    # libsndfile silently shortens a RIFF whose data ends early; only its log says so
    elif mismatch := _TRUNCATED.search(file.extra_info):
        promised, present = int(mismatch[1]), int(mismatch[2])
        promised = promised if promised < _STREAMED_BYTES else 0
    if present < promised:
        raise AudioError(
            f"{name}: expected {promised} bytes as its header says, "
            f"got {present}: the file is truncated; copy or record it again"
        )


@contextlib.contextmanager
def _place_kept(handle: BinaryIO) -> Iterator[None]:
    place = handle.tell()
    yield
    handle.seek(place)


def _last_page_bytes(handle: BinaryIO) -> tuple[int, int]:
    # libsndfile leaves out a page that ends early; RFC 3533, section 6, has the layout
    with _place_kept(handle):
        size = handle.seek(0, io.SEEK_END)
        handle.seek(max(0, size - 0x10000))  # no page is longer
        tail = handle.read()
    page = tail[max(0, tail.rfind(b"OggS")) :]
    segments = page[26] if len(page) > 26 else 0
    return 27 + segments + sum(page[27 : 27 + segments]), len(page)


def _mpeg_bytes(handle: BinaryIO) -> tuple[int, int]:
    # how many bytes the Xing (or Info) tag in the first frame counts, that frame included
    with _place_kept(handle):
        size = handle.seek(0, io.SEEK_END)
        handle.seek(0)
        id3 = handle.read(10)
        skip = 0
        if id3.startswith(b"ID3") and len(id3) == 10:
            skip = 10 + sum(
                byte << shift for byte, shift in zip(id3[6:], (21, 14, 7, 0), strict=True)
            )
        handle.seek(skip)
        head = handle.read(64)
    for place in _MPEG_TAG_PLACES:
        tag, flags = head[place : place + 4], head[place + 7 : place + 8]
        if tag in (b"Xing", b"Info") and flags and flags[0] & 3 == 3:  # has frames and bytes
            return int.from_bytes(head[place + 12 : place + 16], "big"), size - skip
    return 0, 0


def _decode(
    file: soundfile.SoundFile, name: str, max_seconds: float
) -> Iterator[npt.NDArray[np.float32]]:
    decoded = 0
    while True:
        _check_length(decoded, file.samplerate, max_seconds, name)
        left = round(max_seconds * file.samplerate) - decoded
        try:
            block = file.read(min(_BLOCK_FRAMES, left + 1), dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise AudioError(
                f"{name}: expected whole audio, got damage after "
                f"{decoded / file.samplerate:.2f} s ({_reason(error)}); copy or record it again"
            ) from error
        if not len(block):
            break
        decoded += len(block)
        yield block
    # a FLAC cut short simply ends, and damaged pages of an Ogg are left out; that an MP3 estimates
    # its length is no damage
    if file.format in ("FLAC", "OGG") and decoded < file.frames != _UNKNOWN_FRAMES:
        raise AudioError(
            f"{name}: expected {file.frames} samples as its header says, got {decoded}: "
            "the file is truncated or damaged; copy or record it again"
        )


def _check_length(frames: int, rate: int, max_seconds: float, name: str) -> None:
    if frames > round(max_seconds * rate):
        raise AudioError(f"{name}: expected at most {max_seconds:g} s, got more; cut it shorter")


def _mix_down(blocks: Iterator[npt.NDArray[Any]], name: str) -> Waveform:
    mono = list(_mixed(blocks, name))
    return np.concatenate(mono) if mono else np.zeros(0, np.float32)


def _mixed(blocks: Iterator[npt.NDArray[Any]], name: str) -> Iterator[Waveform]:
    for block in blocks:
        try:
            yield scale_to_float(block).mean(axis=1, dtype=np.float32)
        except AudioError as error:
            raise AudioError(f"{name}: {error}") from None


def _reason(error: Exception) -> str:
    return str(getattr(error, "error_string", error)).strip().rstrip(".").lower()
