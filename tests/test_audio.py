"""The laws of speech.audio: whatever comes in leaves as mono float32 in [-1, 1), or is refused."""

import io
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.signal import resample_poly

from speech.audio import (
    AudioSource,
    fit_length,
    load_audio,
)
from tests.sounds import CHANNELS, FORMATS, RATES, Array, encode, noise, possible, tone

# --- what comes in -------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize(("kind", "subtype", "tolerance"), FORMATS)
def test_every_format_rate_and_channel_count_gives_the_same_tone(
    kind: str, subtype: str, tolerance: float, rate: int, channels: int
) -> None:
    if not possible(subtype, rate, channels):
        with pytest.raises((soundfile.LibsndfileError, ValueError)):
            encode(np.zeros((rate, channels)), rate, kind, subtype)
        return
    samples = np.repeat(tone(0.5, rate)[:, np.newaxis], channels, axis=1)
    heard = load_audio(encode(samples, rate, kind, subtype))
    assert heard.dtype == np.float32
    assert heard.shape == (8_000,)
    inside = slice(1_000, -1_000)
    error = heard - tone(0.5, 16_000)
    assert np.sqrt(np.mean(error[inside] ** 2)) < tolerance


@pytest.mark.parametrize(("kind", "subtype", "tolerance"), FORMATS)
def test_path_str_bytes_and_file_object_give_the_same_samples(
    kind: str, subtype: str, tolerance: float, tmp_path: Path
) -> None:
    content = encode(noise(0.5), 16_000, kind, subtype)
    path = tmp_path / "clip.audio"
    path.write_bytes(content)
    expected = load_audio(content)
    with path.open("rb") as file:
        sources: list[AudioSource] = [path, str(path), io.BytesIO(content), file]
        for source in sources:
            np.testing.assert_array_equal(load_audio(source), expected)
        assert not file.closed


def test_a_file_object_is_read_from_its_beginning_wherever_it_stands() -> None:
    content = encode(noise(0.5), 16_000, "FLAC")
    file = io.BytesIO(content)
    file.read()
    np.testing.assert_array_equal(load_audio(file), load_audio(content))


@pytest.mark.parametrize("name", ["clip.raw", "clip.gsm", "clip.vox", "clip.mp3", "clip"])
def test_the_content_of_a_file_decides_and_not_its_name(name: str, tmp_path: Path) -> None:
    content = encode(noise(0.5), 16_000)
    (tmp_path / name).write_bytes(content)
    np.testing.assert_array_equal(load_audio(tmp_path / name), load_audio(content))


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.float32, np.float64])
@pytest.mark.parametrize("channels", [0, 1, 2, 6])
def test_arrays_of_every_type_give_the_same_tone(dtype: Any, channels: int) -> None:
    wave = tone(0.5, 16_000)
    full = 1 if np.dtype(dtype).kind == "f" else -float(np.iinfo(dtype).min)
    samples = np.round(wave * full).astype(dtype) if full > 1 else wave.astype(dtype)
    if channels:
        samples = np.repeat(samples[:, np.newaxis], channels, axis=1)
    heard = load_audio((samples, 16_000))
    assert heard.dtype == np.float32
    np.testing.assert_allclose(heard, wave, atol=max(0.6 / full * (full > 1), 1e-7))


@given(hnp.arrays(np.int16, st.integers(1, 300)))
@example(np.array([-32768, -1, 0, 1, 32767], np.int16))
def test_int16_comes_through_exactly_as_an_array_and_as_a_wav(samples: Array) -> None:
    expected = samples.astype(np.float32) / 32768
    np.testing.assert_array_equal(load_audio((samples, 16_000)), expected)
    np.testing.assert_array_equal(load_audio(encode(samples, 16_000)), expected)


@given(hnp.arrays(np.float64, st.integers(1, 300), elements=st.floats(-4, 4)))
def test_every_sample_lies_in_minus_one_to_below_one(samples: Array) -> None:
    for rate in (16_000, 48_000):
        heard = load_audio((np.resize(samples, 600), rate))
        assert heard.min() >= -1
        assert heard.max() < 1


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32])
def test_integers_of_full_scale_become_minus_one_and_almost_one(dtype: Any) -> None:
    limits = np.array([np.iinfo(dtype).min, np.iinfo(dtype).max], dtype)
    heard = load_audio((limits, 16_000))
    assert heard[0] == -1
    assert 1 - 2.0**-7 <= heard[1] < 1


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "array"])
def test_channels_are_averaged(kind: str) -> None:
    rng = np.random.default_rng(1)
    samples = rng.integers(-32768, 32767, (5_000, 2)).astype(np.int16)
    source = (samples, 16_000) if kind == "array" else encode(samples, 16_000, kind)
    expected = samples.astype(np.float64).mean(axis=1) / 32768
    np.testing.assert_allclose(load_audio(source), expected, atol=1e-7)


@pytest.mark.parametrize("promised", [0x7FFF0000, 0x7FFFF000, 0x7FFFFF00, 0xFFFFFFFF])
def test_a_wav_that_was_streamed_does_not_know_its_length_and_is_taken(promised: int) -> None:
    content = encode(noise(0.5), 16_000)
    at = content.index(b"data") + 4
    streamed = content[:at] + struct.pack("<I", promised) + content[at + 4 :]
    np.testing.assert_array_equal(load_audio(streamed), load_audio(content))


@pytest.mark.parametrize("seconds", [0.5, 10.0])
def test_a_flac_that_was_streamed_does_not_know_its_length_and_is_taken(seconds: float) -> None:
    content = bytearray(encode(noise(seconds), 16_000, "FLAC"))
    expected = load_audio(bytes(content))
    content[21] &= 0xF0  # the 36 bits of STREAMINFO that count the samples
    content[22:26] = bytes(4)
    np.testing.assert_array_equal(load_audio(bytes(content)), expected)


@pytest.mark.parametrize("kind", ["wav", "flac", "ogg", "opus", "mp3"])
@pytest.mark.parametrize("streamed", [True, False])
def test_what_ffmpeg_writes_is_taken(kind: str, streamed: bool, tmp_path: Path) -> None:
    ffmpeg = shutil.which("ffmpeg")
    if not ffmpeg:
        pytest.skip("ffmpeg is not installed")
    target = "-" if streamed else str(tmp_path / f"clip.{kind}")
    made = subprocess.run(
        [ffmpeg, "-v", "error", "-i", "-", "-metadata", "title=a clip", "-f", kind, target],
        input=encode(tone(2.0, 48_000), 48_000),
        capture_output=True,
    )
    if made.returncode:
        pytest.skip(f"this ffmpeg cannot write {kind}")
    heard = load_audio(made.stdout if streamed else target)
    assert heard.size == pytest.approx(32_000, abs=1_600)  # MP3 without a tag keeps its padding
    spectrum = np.abs(np.fft.rfft(heard * np.hanning(heard.size)))
    assert np.argmax(spectrum) * 16_000 / heard.size == pytest.approx(90, abs=1)


# --- resampling ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate", "up", "down"), [(48_000, 1, 3), (44_100, 160, 441), (8_000, 2, 1)]
)
def test_resampling_agrees_with_scipy(rate: int, up: int, down: int) -> None:
    spectrum = np.fft.rfft(np.random.default_rng(2).standard_normal(rate))
    spectrum[3_000:] = 0  # Hz: both filters pass what lies below
    samples = np.fft.irfft(spectrum, rate)
    samples *= 0.5 / np.abs(samples).max()
    expected = resample_poly(samples, up, down, window=("kaiser", 12.0))
    heard = load_audio((samples, rate))
    assert heard.shape == expected.shape == (16_000,)
    inside = slice(500, -500)
    error = np.sqrt(np.mean((heard - expected)[inside] ** 2))
    assert error < 3e-3 * np.sqrt(np.mean(expected**2))


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("frequency", [100.0, 1_234.0, 3_500.0])
def test_a_tone_keeps_its_frequency_and_level(rate: int, frequency: float) -> None:
    heard = load_audio((tone(1.0, rate, frequency), rate))
    spectrum = np.abs(np.fft.rfft(heard * np.hanning(16_000)))
    assert np.argmax(spectrum) == round(frequency)
    assert np.abs(heard[4_000:-4_000]).max() == pytest.approx(0.5, rel=0.01)


def test_what_lies_above_half_the_new_rate_does_not_fold_back() -> None:
    assert np.abs(load_audio((tone(1.0, 48_000, 11_000.0), 48_000))[500:-500]).max() < 1e-3


# --- one clip ------------------------------------------------------------------------------------


@given(
    hnp.arrays(np.float32, st.integers(0, 60), elements=st.floats(-1, 1, width=32)),
    st.integers(1, 40),
)
def test_a_clip_has_its_length_and_is_a_part_of_the_recording(samples: Array, n: int) -> None:
    clip = fit_length(samples, n)
    assert clip.shape == (n,)
    assert clip.dtype == np.float32
    if len(samples) <= n:  # all of it, in the middle
        left = (n - len(samples)) // 2
        np.testing.assert_array_equal(clip[left : left + len(samples)], samples)
        assert not clip[:left].any()
        assert not clip[left + len(samples) :].any()
    else:
        windows = np.lib.stride_tricks.sliding_window_view(samples, n)
        assert (windows == clip).all(axis=1).any()
        energy = (windows.astype(float) ** 2).sum(axis=1)
        assert (clip.astype(float) ** 2).sum() >= 0.98 * energy.max() - 1e-9


@given(st.integers(0, 2_000), st.integers(1, 300))
def test_of_a_longer_recording_the_word_is_kept_whole_and_centred(start: int, length: int) -> None:
    samples = np.zeros(2_300, np.float32)
    samples[start : start + length] = 0.5
    clip = fit_length(samples, 1_000)
    heard = np.flatnonzero(clip)
    assert len(heard) >= 0.98 * length
    if start >= 1_000 and start + length <= 1_300:  # there is room at both sides
        assert abs((heard[0] + heard[-1]) / 2 - 499.5) <= 1


def test_of_two_words_as_loud_one_is_centred_and_not_the_gap() -> None:
    samples = np.zeros(8_000, np.float32)
    samples[2_000:2_200] = samples[5_000:5_200] = 0.5
    heard = np.flatnonzero(fit_length(samples, 1_000))
    assert len(heard) == 200
    assert abs(heard[0] - 400) <= 1


def test_silence_of_any_length_stays_silence() -> None:
    for n in (0, 1, 99, 100, 101, 5_000):
        clip = fit_length(np.zeros(n, np.float32), 100)
        assert clip.shape == (100,)
        assert not clip.any()


# --- real clips ----------------------------------------------------------------------------------


def test_real_clips_are_read_and_are_at_most_a_second(speech_commands: Path) -> None:
    paths = sorted(speech_commands.glob("[a-z]*/*_nohash_*"))[::300]
    assert paths
    for path in paths:
        heard = load_audio(path)
        assert 0 < heard.size <= 16_000
        assert heard.dtype == np.float32
