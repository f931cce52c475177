"""Sound from a pipe: WAV by its header, raw samples as they are, and what plainly is neither."""

import io
import wave

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given
from hypothesis import strategies as st

from speech.errors import AudioError
from speech.live.pcm import _Arrival, pcm_blocks
from tests.e2e.tones import RATE, said

WORDS = said([(0.5, "low"), (2.0, "high")], 4.0)


class Dribbling(io.BytesIO):
    """A pipe: it cannot seek, and gives what is there."""

    def read1(self, size: int | None = -1) -> bytes:
        return super().read(min(size or 0, 1 + self.tell() % 700))

    def seekable(self) -> bool:
        return False

    def seek(self, *_: int) -> int:
        raise OSError("a pipe")


def joined(data: bytes, rate: int = RATE) -> tuple[np.ndarray, set[int], list[str]]:
    """The samples, the rates and the notes of a stream."""
    blocks = list(pcm_blocks(Dribbling(data), rate))
    sound = [block for block in blocks if not block.event]
    samples = np.concatenate([b.samples for b in sound]) if sound else np.zeros(0)
    notes = [block.message for block in blocks if block.event]
    assert {block.event for block in blocks} <= {"", "note"}
    return samples, {block.sample_rate for block in sound}, notes


def test_pcm_in_pieces_of_any_size_is_the_same_sound_and_half_a_sample_is_left_out():
    samples = np.random.default_rng(1).integers(-32768, 32767, 5000, np.int16)
    data = samples.astype("<i2").tobytes() + b"\x07"

    for stream in (io.BytesIO(data), Dribbling(data)):
        blocks = [b for b in pcm_blocks(stream, 8000) if not b.event]
        assert np.array_equal(np.concatenate([b.samples for b in blocks]), samples)
        assert {b.sample_rate for b in blocks} == {8000}
        assert max(len(b.samples) for b in blocks) <= 400


def test_a_rate_of_no_sound_card_is_refused(refused):
    assert "got 7;" in refused(AudioError, lambda: next(pcm_blocks(io.BytesIO(b"ab"), 7)))


# --- WAV -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [8_000, 44_100])
@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
def test_a_wav_stream_is_what_soundfile_reads_of_the_file(rate, channels, subtype):
    sound = np.random.default_rng(2).uniform(-0.9, 0.9, (rate // 3, channels))
    file = io.BytesIO()
    soundfile.write(file, sound, rate, format="WAVEX" if channels > 2 else "WAV", subtype=subtype)
    samples, rates, notes = joined(file.getvalue(), RATE)
    expected = soundfile.read(io.BytesIO(file.getvalue()), always_2d=True)[0]
    scale = np.iinfo(samples.dtype).max + 1.0 if np.issubdtype(samples.dtype, np.integer) else 1.0
    np.testing.assert_allclose(samples / scale, expected, atol=1e-6)
    assert (rates, notes) == ({rate}, [])


def wav_of(sound: np.ndarray, rate: int = RATE) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, sound, rate, format="WAV", subtype="PCM_16")
    return file.getvalue()


@pytest.mark.parametrize("size", [0, 0x7FFFF000, 0xFFFFFFFF])
def test_a_recorder_that_does_not_know_its_length_is_read_to_the_end(size):
    data = bytearray(wav_of(WORDS))
    data[4:8] = data[40:44] = size.to_bytes(4, "little")
    samples, _, _ = joined(bytes(data))
    expected, _ = soundfile.read(io.BytesIO(wav_of(WORDS)), dtype="int16")
    assert np.array_equal(samples[:, 0], expected)


def test_other_chunks_are_no_sound_and_a_second_file_goes_on():
    first, second = wav_of(WORDS, 16_000), wav_of(WORDS[:8_000], 8_000)
    listed = b"LIST" + (5).to_bytes(4, "little") + b"hello\0"
    samples, rates, notes = joined(first + listed + second)
    assert len(samples) == len(WORDS) + 8_000
    assert rates == {8_000, 16_000}
    assert not notes


@given(st.integers(44, 1000))
def test_a_wav_stream_that_breaks_off_gives_what_there_was(size):
    samples, _, _ = joined(wav_of(WORDS)[:size])
    assert len(samples) == (size - 44) // 2


@pytest.mark.parametrize("size", [12, 20, 36, 43])
def test_a_header_without_sound_is_refused(size, refused):
    refused(AudioError, lambda: joined(wav_of(WORDS)[:size]))


def compressed() -> bytes:
    file = io.BytesIO()
    soundfile.write(file, WORDS, RATE, format="WAV", subtype="ULAW")
    return file.getvalue()


def encoded(kind: str) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, WORDS, RATE, format=kind)
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "said_of_it"),
    [
        (encoded("FLAC"), "got FLAC"),
        (encoded("OGG"), "got Ogg"),
        (encoded("AIFF"), "got AIFF"),
        (compressed(), "got format 7"),
        (wav_of(WORDS).replace(b"fmt ", b"FMT "), "before the sound"),
    ],
)
def test_a_stream_of_another_kind_is_refused_with_what_decodes_it(data, said_of_it, refused):
    assert said_of_it in refused(AudioError, lambda: list(pcm_blocks(Dribbling(data), RATE)))


# --- raw samples that are not what was said ------------------------------------------------------


def pcm(sound: np.ndarray, dtype: str = "<i2") -> bytes:
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return sound.astype(kind).tobytes()
    if kind.kind == "u":
        return np.round(127 * sound + 128).astype(kind).tobytes()
    return np.round(np.iinfo(kind).max * sound).astype(kind).tobytes()


STEREO = np.stack([WORDS, 0.7 * WORDS + np.random.default_rng(5).normal(0, 0.01, len(WORDS))], 1)
WIDE = np.round((2**23 - 1) * WORDS).astype("<i4")


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (pcm(WORDS, "u1"), "8 bits"),
        (pcm(WORDS, ">i2"), "byte order"),
        (pcm(WORDS, "<i4"), "32 bits"),
        (pcm(WORDS, "<f4"), "32 bits"),
        (WIDE.view(np.uint8).reshape(-1, 4)[:, :3].tobytes(), "24 bits"),
        (pcm(np.round(WORDS * 2**15) / 2**15, "<i4")[: 4 * RATE], "32 bits"),
        (pcm(STEREO), "two channels"),
        (pcm(np.stack([WORDS, WORDS], 1)), "two channels"),
        (pcm(np.stack([WORDS, 0 * WORDS], 1)), "two channels"),
        (pcm(soxr.resample(WORDS, RATE, 48_000)), "a higher rate"),
        (pcm(soxr.resample(WORDS, RATE, 44_100)), "a higher rate"),
    ],
)
def test_raw_samples_of_another_kind_get_one_sentence_and_are_heard(data, word):
    samples, _, notes = joined(data)
    assert len(notes) == 1
    assert word in notes[0]
    assert len(samples) == len(data) // 2


@pytest.mark.parametrize(
    "sound",
    [WORDS, WORDS / 100, np.clip(20 * WORDS, -1, 1), 0 * WORDS, WORDS + 0.2, WORDS[:2000]],
)
def test_raw_samples_that_are_what_was_said_get_none(sound):
    assert joined(pcm(sound))[2] == []


def test_no_clip_of_people_gets_a_note(speech_commands):
    clips = sorted(speech_commands.glob("[a-z]*/*_nohash_*"))[::500]
    noted = []
    for clip in clips:
        sound, rate = soundfile.read(clip, dtype="int16")
        noted += joined(sound.astype("<i2").tobytes(), rate)[2]
    assert len(clips) > 50
    assert not noted


@pytest.mark.parametrize(
    ("factor", "word"), [(1.0, ""), (3.0, "48000"), (0.5, "8000"), (2.75625, "44100"), (7.7, "")]
)
def test_a_recorder_that_sends_as_much_as_at_another_rate_is_noticed(factor, word):
    now = [100.0]

    def read(size: int) -> bytes:
        now[0] += size / 2 / RATE / factor
        return bytes(size)

    arrival = _Arrival(RATE, lambda: now[0])
    notes = [note for _ in range(1000) if arrival.timed(read, 1600) and (note := arrival.note())]
    assert len(notes) == bool(word)
    assert word in "".join(notes)


def test_a_file_that_comes_as_fast_as_it_is_read_is_no_recorder():
    now = [100.0]

    def read(size: int) -> bytes:
        return bytes(size)

    arrival = _Arrival(RATE, lambda: now[0])
    for _ in range(1000):
        arrival.timed(read, 1600)
        now[0] += 1600 / 2 / RATE / 3  # the network is what takes its time
        assert arrival.note() == ""


def test_python_writes_such_streams_too():
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(2)
        out.setsampwidth(2)
        out.setframerate(44_100)
        out.writeframes(pcm(STEREO))
    assert joined(file.getvalue())[0].shape == STEREO.shape
