"""What speech.audio refuses: with a message, at once, and never by returning something else."""

import io
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from speech.audio import (
    MAX_CHANNELS,
    AudioSource,
    check_rate,
    load_audio,
    scale_to_float,
)
from speech.errors import AudioError
from tests.sounds import FORMATS, encode, noise

Refused = Callable[..., str]

# --- what is refused -----------------------------------------------------------------------------


def wav_header(rate: int, channels: int, bits: int = 16, data: bytes = bytes(32_000)) -> bytes:
    block = channels * bits // 8
    form = struct.pack(
        "<4sIHHIIHH", b"fmt ", 16, 1, channels, rate, rate * block % 2**32, block % 2**16, bits
    )
    body = b"WAVE" + form + struct.pack("<4sI", b"data", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


NOT_AUDIO = {
    "text": b"Dear listener, this is no sound at all.\n" * 50,
    "m4a": struct.pack(">I4s4sI", 24, b"ftyp", b"M4A ", 0) + b"isommp42" + bytes(4_000),
    "webm": b"\x1aE\xdf\xa3" + bytes(4_000),
    "png": b"\x89PNG\r\n\x1a\n" + bytes(4_000),
    "zeros": bytes(4_000),
    "one byte": b"R",
    "riff without anything": b"RIFF",
    "ogg without anything": b"OggS" + bytes(200),
    "flac without anything": b"fLaC" + bytes(200),
}


@pytest.mark.parametrize("content", NOT_AUDIO.values(), ids=NOT_AUDIO)
def test_what_is_no_audio_is_refused_under_any_name(
    content: bytes, tmp_path: Path, refused: Refused
) -> None:
    for name in ("clip.wav", "clip.gsm", "clip.raw"):
        (tmp_path / name).write_bytes(content)
        path = tmp_path / name
        assert str(path) in refused(AudioError, lambda path=path: load_audio(path))
    refused(AudioError, lambda: load_audio(content))


@pytest.mark.parametrize(
    "content",
    [
        wav_header(1, 1),
        wav_header(0, 1),
        wav_header(7_999, 1),
        wav_header(192_001, 1),
        wav_header(2**31, 1),
        wav_header(16_000, 0),
        wav_header(16_000, 33),
        wav_header(16_000, 1024),
        wav_header(16_000, 65_535),
    ],
)
def test_a_header_that_no_microphone_writes_is_refused(content: bytes, refused: Refused) -> None:
    refused(AudioError, lambda: load_audio(content))


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "array"])
def test_a_recording_without_samples_is_refused(kind: str, refused: Refused) -> None:
    empty = np.zeros(0, np.float32)
    source = (empty, 16_000) if kind == "array" else encode(empty, 16_000, kind)
    refused(AudioError, lambda: load_audio(source))


@pytest.mark.parametrize("source", [b"", io.BytesIO(), (np.zeros((0, 2)), 16_000)])
def test_nothing_at_all_is_refused(source: AudioSource, refused: Refused) -> None:
    refused(AudioError, lambda: load_audio(source))


def test_paths_without_a_file_are_refused(tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "empty.wav").touch()
    os.mkfifo(tmp_path / "pipe.wav")
    for name, what in [
        ("", "a folder"),
        ("nowhere.wav", "not found"),
        ("pipe.wav", "an empty file"),
        ("empty.wav", "an empty file"),
        ("x" * 300 + ".wav", "too long"),
        ("nul\0.wav", "not found"),
    ]:
        path = tmp_path / name
        assert what in refused(AudioError, lambda path=path: load_audio(path))


def test_objects_that_are_no_binary_file_are_refused(tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "clip.wav").write_bytes(encode(noise(0.1), 16_000))
    with (tmp_path / "clip.wav").open(encoding="latin-1") as text:
        refused(AudioError, lambda: load_audio(text))  # type: ignore[arg-type]
    closed = io.BytesIO(b"RIFF")
    closed.close()
    for source in (closed, None, 3, bytearray(b"RIFF"), [0.0, 0.1]):
        refused(AudioError, lambda source=source: load_audio(source))


def test_a_pipe_is_refused_and_its_bytes_are_taken(refused: Refused) -> None:
    content = encode(noise(0.1), 16_000)
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb") as end:
        end.write(content)
    with os.fdopen(reading, "rb") as pipe:
        assert "pass the bytes" in refused(AudioError, lambda: load_audio(pipe))
        np.testing.assert_array_equal(load_audio(pipe.read()), load_audio(content))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30, -32768.0, 4.01])
@pytest.mark.parametrize("form", ["FLOAT", "DOUBLE", "array"])
def test_samples_that_are_no_audio_are_refused_wherever_they_stand(
    value: float, form: str, refused: Refused
) -> None:
    for place in (0, 70_000, -1):
        samples = np.zeros((80_000, 2))
        samples[place, 1] = value
        source = (samples, 16_000) if form == "array" else encode(samples, 16_000, "WAV", form)
        refused(AudioError, lambda source=source: load_audio(source))


@pytest.mark.parametrize(
    ("samples", "rate"),
    [
        (np.zeros((16_000, 2, 2)), 16_000),
        (np.zeros((2, 16_000)), 16_000),
        (np.zeros((16_000, MAX_CHANNELS + 1)), 16_000),
        (np.array(0.5), 16_000),
        (np.zeros(100, np.uint8), 16_000),
        (np.zeros(100, np.int64), 16_000),
        (np.zeros(100, bool), 16_000),
        (np.zeros(100, complex), 16_000),
        (np.array(["a", "b"]), 16_000),
        (16_000, np.zeros(16_000)),  # the order that other libraries have
    ],
)
def test_arrays_that_are_no_audio_are_refused(samples: Any, rate: Any, refused: Refused) -> None:
    refused(AudioError, lambda: load_audio((samples, rate)))


@pytest.mark.parametrize("rate", [0, 1, -16_000, 7_999, 192_001, 16_000.5, np.nan, "16000", None])
def test_rates_that_no_sound_card_has_are_refused(rate: Any, refused: Refused) -> None:
    refused(AudioError, lambda: load_audio((np.zeros(100), rate)))
    refused(AudioError, lambda: check_rate(rate))


@pytest.mark.parametrize("rate", [8_000, np.int64(44_100), 48_000.0, 192_000])
def test_rates_of_sound_cards_are_taken(rate: Any) -> None:
    assert check_rate(rate) == rate
    assert isinstance(check_rate(rate), int)


def test_scaling_alone_holds_the_same_laws(refused: Refused) -> None:
    assert scale_to_float(np.array([-32768, 16384], np.int16)).tolist() == [-1, 0.5]
    assert scale_to_float(np.zeros(0, np.float32)).size == 0
    refused(AudioError, lambda: scale_to_float(np.array([np.nan])))


# --- truncated and damaged -----------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "subtype", "_"), FORMATS)
def test_a_file_that_was_cut_short_is_refused(
    kind: str, subtype: str, _: float, refused: Refused, capfd: pytest.CaptureFixture[str]
) -> None:
    content = encode(noise(), 16_000, kind, subtype)
    assert load_audio(content).shape == (64_000,)
    for cut in np.linspace(1, len(content) - 1, 40).astype(int):
        try:
            load_audio(content[:cut])
        except AudioError:
            continue
        # between two pages an Ogg may end, as far as anybody can tell
        assert content[cut : cut + 4] == b"OggS", f"{cut} of {len(content)} bytes were taken"


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3"])
def test_the_last_byte_is_missed(kind: str, refused: Refused) -> None:
    message = refused(AudioError, lambda: load_audio(encode(noise(), 16_000, kind)[:-1]))
    assert "truncated" in message or "damage" in message


@pytest.mark.parametrize(("kind", "subtype"), [("OGG", "VORBIS"), ("OGG", "OPUS"), ("FLAC", None)])
def test_damage_in_the_middle_is_not_skipped_silently(
    kind: str, subtype: str | None, refused: Refused
) -> None:
    content = bytearray(encode(noise(), 16_000, kind, subtype))
    content[len(content) // 2] ^= 0xFF
    refused(AudioError, lambda: load_audio(bytes(content)))


# --- too long ------------------------------------------------------------------------------------


def crc(content: bytes, bits: int, polynomial: int) -> int:
    value = 0
    for byte in content:
        value ^= byte << (bits - 8)
        for _ in range(8):
            value = (value << 1 ^ (polynomial if value >> (bits - 1) else 0)) & (2**bits - 1)
    return value


def flac_bomb(n_frames: int, known: bool) -> bytes:
    """Digital silence at 16 kHz, 65,535 samples in every frame of 14 or so bytes."""
    total = 65_535 * n_frames if known else 0
    packed = 16_000 << 44 | 0 << 41 | 15 << 36 | total
    info = struct.pack(">HH6xQ16x", 65_535, 65_535, packed)
    frames = [b"fLaC", struct.pack(">I", 0x80000000 | len(info)), info]
    for number in range(n_frames):
        frame = b"\xff\xf8\x70\x08" + chr(number).encode() + struct.pack(">H", 65_534)
        frame += bytes([crc(frame, 8, 0x07)]) + b"\0\0\0"  # a constant subframe of zero
        frames.append(frame + struct.pack(">H", crc(frame, 16, 0x8005)))
    return b"".join(frames)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many frames each read of soundfile has decoded."""
    counts: list[int] = []
    read = soundfile.SoundFile.read

    def counting(self: Any, *args: Any, **kwargs: Any) -> Any:
        block = read(self, *args, **kwargs)
        counts.append(len(block))
        return block

    monkeypatch.setattr(soundfile.SoundFile, "read", counting)
    return counts


@pytest.mark.parametrize("known", [True, False])
def test_of_a_flac_that_unfolds_to_hours_no_more_than_the_limit_is_decoded(
    known: bool, decoded: list[int], refused: Refused
) -> None:
    bomb = flac_bomb(5_000, known)
    assert len(bomb) < 400_000
    assert 65_535 * 5_000 / 16_000 / 3_600 > 5  # hours
    message = refused(AudioError, lambda: load_audio(bomb))
    assert "at most 60 s" in message
    assert "speech scan" in message
    assert sum(decoded) <= 60 * 16_000 + 1


def test_the_bomb_is_a_flac_that_would_be_taken_if_it_were_short() -> None:
    heard = load_audio(flac_bomb(10, known=True))
    assert heard.shape == (655_350,)
    assert not heard.any()


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "array"])
def test_the_limit_itself_is_allowed_and_one_sample_more_is_not(
    kind: str, decoded: list[int], refused: Refused
) -> None:
    def source(n: int) -> AudioSource:
        samples = np.zeros(n, np.float32)
        return (samples, 16_000) if kind == "array" else encode(samples, 16_000, kind)

    # 0.57 x 44,100 is a whole number, but not in floating point
    assert load_audio((np.zeros(25_137), 44_100), 44_100, max_seconds=0.57).size == 25_137
    assert load_audio(source(32_000), max_seconds=2.0).size == 32_000
    decoded.clear()
    assert "at most 2 s" in refused(AudioError, lambda: load_audio(source(32_001), max_seconds=2.0))
    assert sum(decoded) <= 32_001
