"""The microphone doctor's laws, on sounds whose faults are known."""

import io
import json

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from speech.audio import load_audio
from speech.errors import AudioError, MicrophoneError
from speech.live.mic_check import (
    Recorded,
    advice,
    as_model_input,
    described,
    fields,
    measure,
    record,
    wav_bytes,
)
from speech.live.microphone import Block, Device
from speech.live.session import HINTS

RATE = 16_000
CARD = Device(2, "USB headset", 2, 48_000)
FINE = "Nothing: this microphone is fine."


def spoken(
    speech_db: float = -20.0, floor_db: float = -60.0, seconds: float = 5.0, rate: int = RATE
) -> np.ndarray:
    """Noise of one level all the time, and louder noise a third of the time, as words in pauses."""
    rng = np.random.default_rng(1)
    n = round(seconds * rate)
    sound = 10 ** (floor_db / 20) * rng.standard_normal(n)
    saying = np.arange(n) / rate % 1.5 < 0.5
    sound[saying] += 10 ** (speech_db / 20) * rng.standard_normal(saying.sum())
    return np.clip(sound, -0.99, 0.99).astype(np.float32)


@given(st.floats(-38, -22), st.floats(-70, -50), st.sampled_from([8_000, 16_000, 44_100, 48_000]))
def test_levels_are_measured_within_two_decibels_at_any_rate(speech_db, floor_db, rate):
    levels = measure(spoken(speech_db, floor_db, 3.0, rate), rate)
    assert levels.level_db == pytest.approx(speech_db, abs=2)
    assert levels.floor_db == pytest.approx(floor_db, abs=2)
    assert levels.snr_db == pytest.approx(levels.level_db - levels.floor_db)
    assert levels.seconds == pytest.approx(3.0)


@given(st.floats(-30, 0))
def test_a_gain_moves_all_levels_and_not_the_signal_to_noise_ratio(gain_db):
    before = measure(spoken(), RATE)
    after = measure(spoken() * np.float32(10 ** (gain_db / 20)), RATE)
    for name in ("peak_db", "level_db", "floor_db"):
        assert getattr(after, name) - getattr(before, name) == pytest.approx(gain_db, abs=0.01)
    assert after.snr_db == pytest.approx(before.snr_db, abs=0.01)


@given(st.floats(-0.3, 0.3))
def test_an_offset_is_measured_and_moves_no_level(offset):
    before, after = measure(spoken(-30), RATE), measure(spoken(-30) + np.float32(offset), RATE)
    assert after.offset == pytest.approx(offset + before.offset, abs=1e-5)
    assert after.level_db == pytest.approx(before.level_db, abs=0.01)
    assert after.floor_db == pytest.approx(before.floor_db, abs=0.05)


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.float64])
@pytest.mark.parametrize("channels", [0, 1, 2])
def test_the_kind_of_the_samples_and_equal_channels_change_nothing(dtype, channels):
    sound = spoken()
    expected = measure(sound, RATE)
    if channels:
        sound = np.repeat(sound[:, np.newaxis], channels, axis=1)
    if np.issubdtype(dtype, np.integer):
        sound = np.round(sound * np.iinfo(dtype).max)
    found = measure(sound.astype(dtype), RATE)
    for name in ("peak_db", "level_db", "floor_db"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), abs=0.1)
    assert len(found.channels_db) == max(1, channels)


@given(st.integers(1, 60))
def test_a_clipped_recording_is_called_clipped_whatever_else_is_wrong(gain_db):
    loud = np.clip(spoken(-12.0, -30.0) * 10 ** (gain_db / 20), -1, 32767 / 32768)
    levels = measure(loud.astype(np.float32) + np.float32(0), RATE)
    told = advice(levels, dropped=3)
    assert ("clipped" in told) == (levels.clipped >= 3)
    if gain_db > 12:
        assert "Turn the input down" in told


SOUND = spoken()


@pytest.mark.parametrize(
    ("sound", "told"),
    [
        (SOUND, FINE),
        (spoken(-36, -70), FINE),
        (0 * SOUND, HINTS["muted"]),
        (SOUND * 0.02, "too quiet"),
        (spoken(-25, -35), "Come closer to the microphone or find a quieter place"),
        (spoken(-80, -40), "Say a few words"),
        (SOUND / 2 + np.float32(0.1), "off its middle"),
        (np.stack([SOUND, 0 * SOUND], axis=1), "Channel 2 is silent"),
    ],
)
def test_the_advice_is_one_sentence_about_what_is_wrong(sound, told):
    said = advice(measure(sound, RATE))
    assert told in said
    assert "\n" not in said


def test_lost_samples_are_told_when_the_sound_itself_is_right():
    assert advice(measure(SOUND, RATE)) == FINE
    assert "12 blocks" in advice(measure(SOUND, RATE), dropped=12)
    assert "Close other programs" in advice(measure(SOUND, RATE), overflows=1)


def test_how_much_to_turn_up_is_what_is_missing_and_no_more_than_a_knob_can_do():
    quiet = measure(SOUND * np.float32(0.02), RATE)
    assert f"by about {-6 - quiet.peak_db:.0f} dB" in advice(quiet)
    assert "by about 40 dB" in advice(measure(SOUND * np.float32(1e-4), RATE))


# --- recording ----------------------------------------------------------------------------------


def blocks(sound: np.ndarray, rate: int = RATE, **more):
    nothing = np.zeros((0, 1), np.int16)
    yield Block(nothing, rate, "ready", "listening", device=CARD)
    whole = np.round(32767 * sound).astype(np.int16)
    for first in range(0, len(whole), 800):
        yield Block(whole[first : first + 800].reshape(-1, 1), rate, **more)


def test_as_much_is_recorded_as_was_asked_for_and_no_block_more():
    source = blocks(SOUND, dropped=2, overflows=1)
    recorded = record(source, 2.02)
    assert recorded.samples.shape == (round(2.02 * RATE), 1)
    assert recorded.samples.dtype == np.int16
    assert recorded[1:] == (RATE, CARD, 2, 1)
    assert len(list(source)) == 100 - 41
    assert len(record(blocks(SOUND), 60.0).samples) == len(SOUND)


def test_a_microphone_that_is_lost_and_a_source_without_sound_are_refused(refused):
    lost = Block(np.zeros((0, 1), np.int16), RATE, "lost", "it was lost")
    sound = list(blocks(SOUND))[:21]
    message = refused(MicrophoneError, lambda: record([*sound, lost, *sound], 5.0))
    assert "lost after 1.0 s" in message
    refused(AudioError, lambda: record([], 5.0))


@pytest.mark.parametrize("rate", [16_000, 48_000])
def test_what_is_saved_is_what_the_model_hears(rate):
    stereo = np.repeat(spoken(rate=rate)[:, np.newaxis], 2, axis=1)
    recorded = Recorded(stereo, rate, None, 0, 0)
    heard = as_model_input(recorded, RATE)
    np.testing.assert_array_equal(heard, load_audio((stereo, rate), RATE))
    samples, saved_rate = soundfile.read(io.BytesIO(wav_bytes(heard, RATE)), dtype="float32")
    assert saved_rate == RATE
    np.testing.assert_allclose(samples, heard, atol=0.6 / 32768)


def test_what_was_found_is_json_and_a_table_says_the_same():
    recorded = record(blocks(SOUND), 5.0)
    found = fields(recorded, measure(recorded.samples, RATE))
    assert json.loads(json.dumps(found)) == {**found, "channels_db": list(found["channels_db"])}
    for key in ("native_rate", "native_channels", "level_db", "floor_db", "clipped", "offset"):
        assert key in found
    assert found["advice"] == FINE
    rows = dict(described(found))
    assert rows["Microphone"] == "USB headset (48000 Hz, 2 channels)"
    assert "-20 dB" in rows["Speech"]
    of_a_file = fields(Recorded(SOUND[:, np.newaxis], RATE, None, 0, 0), measure(SOUND, RATE))
    assert of_a_file["device"] is None
    assert "Microphone" not in dict(described(of_a_file))


def test_no_samples_are_refused():
    with pytest.raises(ValueError, match="at least one sample"):
        measure(np.zeros((0, 1), np.int16), RATE)
