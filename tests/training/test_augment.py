"""The laws of the augmentation: what was asked for is what happens; a seed decides all of it."""

import dataclasses
import functools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest

from speech.features import FeatureConfig, mfcc, vtlp_matrix
from speech.training.augment import AugmentConfig, Augmenter
from speech.training.front_end import make_mfcc
from speech.training.rooms import (
    N_BANDS,
    Rooms,
    babble,
    impulse_response,
    make_rooms,
    music,
    pause_spectra,
    room_noise,
    taps,
)

Array = npt.NDArray[Any]
RATE = 8_000
FEATURES = FeatureConfig(sample_rate=RATE, n_mels=20, n_mfcc=13, fmax=4_000.0)
EDGE = slice(1, -2)  # the interpolation needs neighbors
FILL = np.full(13, -99, np.float32)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def speech(count: int = 40, level: float = 0.02) -> Array:
    return (32768 * level * rng(9).standard_normal((count, RATE))).astype(np.int16)


@functools.cache
def rooms() -> Rooms:
    return make_rooms(FEATURES, [speech(1)[0]], speech(30), 1, n_synthetic=10, n_impulses=6)


def augmenter(**changes: Any) -> Augmenter:
    """One that does nothing but the changes."""
    return Augmenter(dataclasses.replace(AugmentConfig.none(), **changes), FEATURES, rooms())


def waveforms(
    made: Augmenter, clips: Array, seed: int = 1, silent: Array | None = None, k: int = 0
) -> Array:
    count = len(clips) - 2 * k
    spans = np.tile(np.array([0.3 * RATE, 0.7 * RATE], np.float32), (len(clips), 1))
    quiet = np.zeros(count, np.float32) if silent is None else silent
    waves, _ = made.waveforms(made.tables, clips, spans, quiet, seed)
    result: Array = keras.ops.convert_to_numpy(waves)
    return result


def rms(clips: Array) -> Array:
    level: Array = np.sqrt(np.mean(clips.astype(float) ** 2, axis=-1))
    return level


def tones(frequency: float, count: int) -> Array:
    tone = 10_000 * np.sin(2 * np.pi * frequency * np.arange(RATE) / RATE)
    return np.tile(tone.astype(np.int16), (count, 1))


def frequencies(clips: Array) -> Array:
    """The strongest frequency of each clip, to about 0.1 Hz."""
    spectra = np.abs(np.fft.rfft(clips * np.hanning(clips.shape[1]), 10 * clips.shape[1]))
    return np.argmax(spectra, axis=1) / 10


def test_the_same_seed_gives_the_same_batch_and_another_another() -> None:
    made = Augmenter(AugmentConfig(), FEATURES, rooms())
    first, same, other = (waveforms(made, speech(), seed, k=5) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, same)
    assert not np.array_equal(first, other)
    assert np.isfinite(first).all()
    assert np.abs(first).max() <= 1


BACKENDS = """
import numpy as np, sys, tests.training.test_augment as t
from speech.training.augment import _resample
waves = t.speech(6).astype(np.float32) / 32768
speed = np.linspace(0.8, 1.3, 6, dtype=np.float32)
moved = np.asarray(_resample(waves, 100 * speed, speed))
frames = np.asarray(t.make_mfcc(t.FEATURES)(moved))
made = t.augmenter(high_voice_probability=1.0, slow_probability=1.0)
slow = np.asarray(made.cepstra(made.tables, frames, speed[:, None] + 0.2, t.FILL, 1))
np.savez(sys.argv[1], moved=moved, frames=frames, slow=slow)
"""


@pytest.mark.slow
def test_tensorflow_and_jax_compute_the_same(tmp_path: Path) -> None:
    """Without draws: the random numbers of two backends differ, their arithmetic must not."""
    pytest.importorskip("jax")
    results = []
    for backend in ("tensorflow", "jax"):
        path = tmp_path / f"{backend}.npz"
        subprocess.run(
            [sys.executable, "-c", BACKENDS, path],
            env=os.environ | {"KERAS_BACKEND": backend},
            cwd=Path(__file__).parents[2],
            check=True,
            capture_output=True,
        )
        results.append(np.load(path))
    # positions of some thousand samples are exact to a few ten-thousandths of one in float32
    for name, tolerance in (("moved", 2e-4), ("frames", 0.1), ("slow", 0.1)):
        np.testing.assert_allclose(results[0][name], results[1][name], atol=tolerance)


def test_no_augmentation_changes_nothing_inside() -> None:
    clips = speech(level=0.2)
    same = waveforms(augmenter(), clips)
    np.testing.assert_array_equal(same[:, EDGE], clips[:, EDGE].astype(np.float32) / 32768)
    coefficients = rng().standard_normal((5, 98, 13)).astype(np.float32)
    made = augmenter()
    unchanged = made.cepstra(made.tables, coefficients, np.ones((5, 1), np.float32), FILL, 3)
    np.testing.assert_array_equal(unchanged, coefficients)


@pytest.mark.parametrize("snr", [0.0, 15.0])
def test_the_noise_lies_as_far_below_the_word_as_was_asked(snr: float) -> None:
    clips = speech(level=0.05)
    mixed = waveforms(augmenter(noise_probability=1.0, snr_db=(snr, snr)), clips)
    noise = (mixed - clips / 32768)[:, EDGE]
    found = 20 * np.log10(rms(clips / 32768) / rms(noise))
    np.testing.assert_allclose(found, snr, atol=0.5)


def test_speed_changes_the_pitch_by_as_much_and_no_more() -> None:
    heard = frequencies(waveforms(augmenter(speed=0.15), tones(1_000.0, 200)))
    assert heard.min() > 845
    assert heard.max() < 1_155
    assert heard.max() - heard.min() > 250


def test_a_high_voice_is_higher_and_may_keep_its_tempo() -> None:
    """The frames are stretched again by at most what the resampling took."""
    made = augmenter(high_voice_probability=1.0, high_voice=1.3, slow_probability=1.0)
    clips, spans = tones(1_000.0, 100), np.zeros((100, 2), np.float32)
    waves, stretch = made.waveforms(made.tables, clips, spans, np.zeros(100, np.float32), 5)
    raised = frequencies(keras.ops.convert_to_numpy(waves)) / 1_000
    slowed = keras.ops.convert_to_numpy(stretch)[:, 0]
    assert raised.max() > 1.2
    assert (slowed >= 1).all()
    assert (slowed <= raised + 0.01).all()
    assert np.std(slowed) > 0.02


def test_stretched_frames_are_those_of_a_slower_word() -> None:
    made = augmenter(high_voice_probability=1.0, slow_probability=1.0)
    ramp = np.tile(np.arange(98, dtype=np.float32)[:, None], (1, 1, 13)).reshape(1, 98, 13)
    slow = np.asarray(made.cepstra(made.tables, ramp, np.array([[2.0]], np.float32), FILL, 1))
    np.testing.assert_allclose(slow[0, :, 0], (np.arange(98) - 48.5) / 2 + 48.5, atol=1e-4)


def test_a_shift_is_at_most_what_was_asked() -> None:
    clips = np.zeros((200, RATE), np.int16)
    clips[:, RATE // 2] = 20_000
    moved = waveforms(augmenter(shift_seconds=0.1), clips).argmax(axis=1) - RATE // 2
    assert np.abs(moved).max() <= 0.1 * RATE + 1
    assert moved.min() < -0.05 * RATE
    assert moved.max() > 0.05 * RATE


def test_a_neighbor_lies_before_or_after_the_word_and_leaves_it_whole() -> None:
    """The word fills 0.3 to 0.7 s of its clip, and so does every neighbor."""
    count, k = 20, 8
    clips = np.zeros((count + 2 * k, RATE), np.int16)
    clips[:, int(0.3 * RATE) : int(0.7 * RATE)] = 8_000
    made = augmenter(neighbor_gap_seconds=(0.1, 0.1), neighbor_probability=0.4)
    said = waveforms(made, clips, k=k)
    alone = waveforms(made, clips[:count])
    word, near = slice(int(0.32 * RATE), int(0.68 * RATE)), int(0.09 * RATE)
    np.testing.assert_allclose(said[:, word], alone[:, word], atol=1e-6)
    before, after = said[:, : int(0.3 * RATE) - near], said[:, int(0.7 * RATE) + near :]
    has_before, has_after = (np.abs(part).max(axis=1) > 0.02 for part in (before, after))
    np.testing.assert_array_equal(np.flatnonzero(has_before), np.arange(k))
    np.testing.assert_array_equal(np.flatnonzero(has_after), np.arange(k // 2, k // 2 + k))


def test_gain_sensor_noise_and_clipping_are_within_their_ranges() -> None:
    clips = speech(200)
    gained = rms(waveforms(augmenter(gain_db=(-20.0, 10.0)), clips)[:, EDGE])
    change = 20 * np.log10(gained / rms(clips[:, EDGE] / 32768))
    assert -20.1 < change.min() < -15
    assert 5 < change.max() < 10.1
    changes = {"sensor_noise_probability": 1.0, "sensor_noise_rms": (1e-3, 1e-3)}
    hiss = (waveforms(augmenter(**changes), clips) - clips / 32768)[:, EDGE]
    np.testing.assert_allclose(rms(hiss), 1e-3, rtol=0.05)
    limited = waveforms(augmenter(clip_probability=1.0, clip_db=20.0), tones(500.0, 100))
    at_limit = np.abs(limited) >= np.abs(limited).max(axis=1, keepdims=True) - 1e-4
    assert at_limit.mean() > 0.3, "a sine clipped by up to 20 dB stays at the limit"


def test_a_gain_control_raises_what_is_quiet() -> None:
    clips = speech(60, 0.3)
    clips[:, RATE // 2 :] //= 30
    made = waveforms(augmenter(agc_probability=1.0), clips)
    late = slice(-RATE // 5, -2)
    raised = rms(made[:, late]) / rms(clips[:, late] / 32768)
    assert (raised > 1.2).all()
    assert raised.max() > 2.5


def test_silence_is_background_at_the_levels_asked() -> None:
    silent = np.ones(200, np.float32)
    made = augmenter(silence_rms=(1e-4, 0.05))
    clips = waveforms(made, speech(200, 0.3), silent=silent)
    levels = rms(clips)
    assert 0.9e-4 < levels.min() < 1e-3
    assert 0.01 < levels.max() < 0.051
    other = waveforms(made, speech(200, 0.01), silent=silent)
    np.testing.assert_array_equal(clips, other)  # nothing of the words is left


def test_masks_are_as_many_and_as_long_as_asked() -> None:
    made = augmenter(n_time_masks=1, time_mask_seconds=0.1, n_coefficient_masks=1)
    ones = np.ones((300, 98, 13), np.float32)
    masked = np.asarray(made.cepstra(made.tables, ones, np.ones((300, 1), np.float32), FILL, 2))
    times, coefficients = (masked != 1).all(axis=2).sum(axis=1), (masked != 1).all(axis=1).sum(1)
    assert times.max() == 10
    assert coefficients.max() == 4
    assert set(np.unique(masked)) == {1.0, -99.0}


def test_another_vocal_tract_is_librosas_filterbank_warped() -> None:
    made = augmenter(vocal_tract=0.1)
    frames = rng().standard_normal((6, 98, 13)).astype(np.float32)
    warped = np.asarray(made.cepstra(made.tables, frames, np.ones((6, 1), np.float32), FILL, 4))
    matrices = [vtlp_matrix(FEATURES, f).T for f in np.linspace(0.9, 1.1, 21)]
    for before, after in zip(frames, warped, strict=True):
        assert min(np.abs(before @ m - after).max() for m in matrices) < 1e-4


def test_the_mfcc_of_an_accelerator_are_librosas() -> None:
    sweep = np.sin(2 * np.pi * 3_000 * np.linspace(0, 1, 16_000) ** 2)
    clips = np.stack([sweep * 10.0**-i for i in range(4)] + [np.zeros(16_000)])
    clips[:4] += 1e-3 * rng().standard_normal((4, 16_000))
    config = FeatureConfig()
    made = np.asarray(make_mfcc(config)(clips.astype(np.float32)))
    np.testing.assert_allclose(made, mfcc(clips.astype(np.float32), config), atol=2e-3)


# --- rooms ---------------------------------------------------------------------------------------


def test_the_same_seed_makes_the_same_rooms_and_another_others() -> None:
    first, same, other = (
        make_rooms(FEATURES, seed=s, n_synthetic=3, n_impulses=2) for s in (1, 1, 2)
    )
    for name in ("backgrounds", "impulses"):
        np.testing.assert_array_equal(getattr(first, name), getattr(same, name))
        assert not np.array_equal(getattr(first, name), getattr(other, name))


@pytest.mark.parametrize("make", [room_noise, music, taps])
def test_every_background_sounds_throughout(make: Any) -> None:
    for seed in range(5):
        wave = make(5 * RATE, RATE, rng(seed))
        assert wave.shape == (5 * RATE,)
        assert np.isfinite(wave).all()
        assert (rms(wave.reshape(5, -1)) > 0).all()


def test_babble_is_darker_than_the_words_it_is_made_of() -> None:
    def high(wave: Array) -> float:
        power = np.abs(np.fft.rfft(wave)) ** 2
        return float(power[len(power) // 2 :].sum() / power.sum())

    shares = [high(babble(speech(30), 2 * RATE, RATE, rng(seed))) for seed in range(10)]
    assert np.median(shares) < high(speech(1)[0].astype(float))


def test_a_room_begins_with_the_direct_sound_decays_and_has_the_energy_of_one() -> None:
    for seed in range(10):
        response = impulse_response(RATE // 2, RATE, rng(seed))
        assert np.sum(response**2) == pytest.approx(1)
        assert np.argmax(np.abs(response)) == 0 or response[0] > 0.1
        early, late = np.sum(response[: RATE // 10] ** 2), np.sum(response[-RATE // 10 :] ** 2)
        assert late < early


def test_a_pause_lends_its_own_spectrum() -> None:
    """Steep hum before the word, so the lowest bands are the loudest."""
    time = np.arange(RATE) / RATE
    clips = np.tile(30 * np.sin(2 * np.pi * 100 * time), (20, 1))
    clips[:, RATE // 2 :] += rng().normal(0, 8_000, (20, RATE // 2))
    spectra = pause_spectra(clips.astype(np.int16), FEATURES).astype(float)
    assert spectra.shape == (20, N_BANDS)
    assert (spectra.argmax(axis=1) < N_BANDS // 4).all()
    assert len(pause_spectra(speech(20), FEATURES)) == 0, "no pause lies 20 dB below noise"


def test_a_range_that_is_none_is_refused() -> None:
    for changes in (
        {"snr_db": (3.0, 1.0)},
        {"noise_probability": 1.5},
        {"silence_rms": (0.0, 1.0)},
    ):
        with pytest.raises(ValueError, match=next(iter(changes))):
            AugmentConfig(**changes)
    config = AugmentConfig()
    assert AugmentConfig.from_dict(config.to_dict()) == config
