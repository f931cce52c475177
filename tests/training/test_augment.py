"""The laws of the augmentation: what was asked for is what happens; a seed decides all of it."""

import copy
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speech.data.corpus import Corpus
from speech.data.recordings import Recordings
from speech.features import FeatureConfig, mfcc, vtlp_matrix
from speech.training.augment import AugmentConfig, Augmenter, _resample

Array = npt.NDArray[Any]
RATE = 8_000
FEATURES = FeatureConfig(sample_rate=RATE, n_mels=20, n_mfcc=13, fmax=4_000.0)
NOTHING = AugmentConfig.none()
WITHOUT_NOISE = Augmenter(NOTHING, FEATURES)
EDGE = slice(1, -2)  # the interpolation needs neighbours


def augmenter(noise: Sequence[Array] = (), **changes: Any) -> Augmenter:
    """One that does nothing but the changes; synthesising the backgrounds anew takes a while."""
    made = Augmenter(NOTHING, FEATURES, noise) if noise else copy.copy(WITHOUT_NOISE)
    made.config = dataclasses.replace(NOTHING, **changes)
    return made


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def speech(count: int = 40, level: float = 0.02) -> Array:
    return (level * rng(9).standard_normal((count, RATE))).astype(np.float32)


def rms(clips: Array) -> Array:
    level: Array = np.sqrt(np.mean(clips.astype(float) ** 2, axis=-1))
    return level


def uneven_noise(seconds: int = 20) -> Array:
    """Noise whose level goes up and down tenfold from second to second."""
    level = np.interp(
        np.arange(seconds * RATE) / RATE, range(seconds), [0.02, 0.2] * (seconds // 2)
    )
    return (level * rng(1).standard_normal(seconds * RATE)).astype(np.float32)


def tone_at(frequency: float, rate: int = 16_000) -> Array:
    return (0.5 * np.sin(2 * np.pi * frequency * np.arange(rate) / rate)).astype(np.float32)


def tones(frequency: float, count: int) -> Array:
    tone = 0.5 * np.sin(2 * np.pi * frequency * np.arange(RATE) / RATE)
    return np.tile(tone.astype(np.float32), (count, 1))


def frequencies(clips: Array) -> Array:
    """The strongest frequency of each clip, to about 0.1 Hz."""
    spectra = np.abs(np.fft.rfft(clips * np.hanning(clips.shape[1]), 10 * clips.shape[1]))
    return np.argmax(spectra, axis=1) / 10


# --- the seed ------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_batch_and_another_another() -> None:
    config = AugmentConfig()
    clips, mean = speech(), np.zeros(13, np.float32)
    batches = []
    for seed in (0, 0, 1):
        draws = rng(seed)
        made = Augmenter(config, FEATURES, [uneven_noise()], seed)
        waves = made.waveforms(clips, draws)
        silence = made.silence(5, draws)
        batches.append(
            [waves, silence, made.cepstra(np.ones((40, 98, 13), np.float32), mean, draws)]
        )
    for one, same, other in zip(*batches, strict=True):
        np.testing.assert_array_equal(one, same)
        assert not np.array_equal(one, other)


def test_a_batch_does_not_depend_on_the_batches_before_it() -> None:
    made = augmenter(**AugmentConfig().to_dict())
    first = made.waveforms(speech(), rng(3))
    made.waveforms(speech(), rng(4))
    np.testing.assert_array_equal(made.waveforms(speech(), rng(3)), first)


def test_the_clips_themselves_are_not_touched() -> None:
    clips = speech()
    augmenter(**AugmentConfig().to_dict()).waveforms(clips, rng())
    np.testing.assert_array_equal(clips, speech())


# --- waveforms -----------------------------------------------------------------------------------


def test_no_augmentation_changes_nothing_inside() -> None:
    clips = speech(level=0.2)
    same = augmenter().waveforms(clips, rng())
    assert same.dtype == np.float32
    np.testing.assert_array_equal(same[:, EDGE], clips[:, EDGE])
    coefficients = rng().standard_normal((5, 98, 13)).astype(np.float32)
    unchanged = augmenter().cepstra(coefficients.copy(), np.zeros(13, np.float32), rng())
    np.testing.assert_array_equal(unchanged, coefficients)


@pytest.mark.parametrize("snr", [-3.0, 0.0, 15.0, 30.0])
@pytest.mark.parametrize("noise", [(), [uneven_noise()]], ids=["synthetic", "recorded"])
def test_the_mix_has_the_ratio_of_speech_to_noise_that_was_asked_for(
    snr: float, noise: Sequence[Array]
) -> None:
    clips = speech()
    mixed = augmenter(noise, noise_probability=1.0, snr_db=(snr, snr)).waveforms(clips, rng())
    added = mixed[:, EDGE] - clips[:, EDGE]
    measured = 20 * np.log10(rms(clips[:, EDGE]) / rms(added))
    np.testing.assert_allclose(measured, snr, atol=0.1)


def test_the_range_of_the_ratio_is_filled_evenly() -> None:
    clips = speech(400)
    mixed = augmenter(noise_probability=1.0, snr_db=(0.0, 20.0)).waveforms(clips, rng())
    measured = 20 * np.log10(rms(clips[:, EDGE]) / rms(mixed[:, EDGE] - clips[:, EDGE]))
    assert -0.1 < measured.min() < 1
    assert 19 < measured.max() < 20.1
    assert np.median(measured) == pytest.approx(10, abs=1.5)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_noise_and_hiss_come_as_often_as_was_asked_for(share: float) -> None:
    clips = speech(400)
    for change in ("noise_probability", "floor_probability"):
        mixed = augmenter(**dict[str, Any]({change: share})).waveforms(clips, rng())
        touched = (mixed[:, EDGE] != clips[:, EDGE]).any(axis=1)
        assert touched.mean() == pytest.approx(share, abs=0.1 * (0 < share < 1))


def test_the_hiss_has_a_level_from_its_range() -> None:
    clips = speech(200)
    config: dict[str, Any] = {"floor_probability": 1.0, "floor_rms": (1e-4, 1e-2)}
    hiss = rms(augmenter(**config).waveforms(clips, rng())[:, EDGE] - clips[:, EDGE])
    assert 0.95e-4 < hiss.min() < 2e-4
    assert 5e-3 < hiss.max() < 1.05e-2
    assert np.median(np.log10(hiss)) == pytest.approx(-3, abs=0.3)


def test_the_gain_stays_in_its_range_and_fills_it() -> None:
    clips = speech(400)
    louder = augmenter(gain_db=(-20.0, 10.0)).waveforms(clips, rng())
    gain = 20 * np.log10(rms(louder[:, EDGE]) / rms(clips[:, EDGE]))
    assert -20.01 < gain.min() < -19
    assert 9 < gain.max() < 10.01


def test_the_gain_moves_speech_and_noise_together() -> None:
    clips = speech()
    changes: dict[str, Any] = {"noise_probability": 1.0, "snr_db": (5.0, 5.0)}
    plain = augmenter(**changes).waveforms(clips, rng())
    halved = augmenter(**changes, gain_db=(-20.0, -20.0)).waveforms(clips, rng())
    np.testing.assert_allclose(halved, plain / 10, atol=1e-6)


@pytest.mark.parametrize("samples", [-700, -1, 0, 1, 250])
def test_a_shift_moves_an_impulse_by_so_many_samples(samples: int) -> None:
    clips = np.zeros((1, RATE), np.float32)
    clips[0, 4_000] = 1
    moved = np.empty_like(clips)
    _resample(clips, np.ones(1, np.float32), np.array([samples], np.float32), moved)
    np.testing.assert_array_equal(moved, np.roll(clips, samples))


def test_half_a_sample_of_shift_is_interpolated() -> None:
    clips = tones(500.0, 1)
    moved = np.empty_like(clips)
    _resample(clips, np.ones(1, np.float32), np.array([0.5], np.float32), moved)
    expected = 0.5 * np.sin(2 * np.pi * 500 * (np.arange(RATE) - 0.5) / RATE)
    np.testing.assert_allclose(moved[0, 2:-2], expected[2:-2], atol=5e-3)


def test_shifts_go_both_ways_and_no_further_than_was_asked_for() -> None:
    clips = np.zeros((300, RATE), np.float32)
    clips[:, 4_000] = 1
    moved = augmenter(shift_seconds=0.1).waveforms(clips, rng())
    places = np.argmax(moved, axis=1) - 4_000
    assert -801 <= places.min() < -700
    assert 700 < places.max() <= 801


@pytest.mark.parametrize("factor", [0.85, 1.0, 1.15])
def test_speed_multiplies_the_frequency(factor: float) -> None:
    clips = tones(1_000.0, 1)
    moved = np.empty_like(clips)
    _resample(clips, np.array([factor], np.float32), np.zeros(1, np.float32), moved)
    assert frequencies(moved)[0] == pytest.approx(1_000 * factor, abs=0.5)


def test_speeds_stay_in_their_range_and_fill_it() -> None:
    heard = frequencies(augmenter(speed=0.15).waveforms(tones(1_000.0, 200), rng()))
    assert 849 < heard.min() < 870
    assert 1_130 < heard.max() < 1_151


def test_speed_leaves_the_middle_in_the_middle() -> None:
    clips = np.zeros((100, RATE), np.float32)
    clips[:, 3_990:4_011] = np.hanning(21)
    heard = np.argmax(augmenter(speed=0.15).waveforms(clips, rng()), axis=1)
    assert np.abs(heard - 4_000).max() <= 1


@given(st.integers(0, 2**32 - 1), st.floats(0, 4))
def test_every_batch_is_finite_and_within_full_scale(seed: int, level: float) -> None:
    made = MADE.waveforms(speech(4, level), rng(seed))
    assert np.isfinite(made).all()
    assert np.abs(made).max() <= 1


MADE = Augmenter(AugmentConfig(gain_db=(-30.0, 40.0)), FEATURES, [uneven_noise()])


def test_digital_silence_of_speech_or_noise_gives_no_nan() -> None:
    silence = np.zeros((20, RATE), np.float32)
    for noise in ((), [np.zeros(5 * RATE, np.int16)]):
        made = Augmenter(AugmentConfig(), FEATURES, noise)
        assert np.isfinite(made.waveforms(silence, rng())).all()
        assert np.isfinite(made.waveforms(speech(20), rng())).all()
        assert np.isfinite(made.silence(20, rng())).all()
    assert not augmenter(noise_probability=1.0).waveforms(silence, rng()).any()


def test_an_empty_batch_stays_empty() -> None:
    made = augmenter(**AugmentConfig().to_dict())
    assert made.waveforms(np.zeros((0, RATE), np.float32), rng()).shape == (0, RATE)
    assert made.silence(0, rng()).shape == (0, RATE)


@pytest.mark.parametrize("shape", [(2, RATE - 1), (2, RATE + 1), (RATE,), (1, 2, RATE)])
def test_clips_of_another_length_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected clips \(batch, 8000\), got shape"):
        augmenter().waveforms(np.zeros(shape, np.float32), rng())


# --- backgrounds and silence ---------------------------------------------------------------------


def test_every_background_has_the_same_level_however_uneven_its_file() -> None:
    levels = rms(augmenter([uneven_noise()]).backgrounds(200, rng()))
    np.testing.assert_allclose(levels, 1, atol=1e-3)


def test_int16_and_float_backgrounds_are_the_same() -> None:
    noise = np.round(32_768 * uneven_noise()).astype(np.int16)
    crops = [augmenter([n]).backgrounds(20, rng()) for n in (noise, noise / np.float32(32_768))]
    np.testing.assert_allclose(crops[0], crops[1], atol=1e-5)


def test_silence_has_levels_from_its_range_evenly_in_decibels() -> None:
    levels = rms(augmenter([uneven_noise()], silence_rms=(1e-5, 0.05)).silence(400, rng()))
    assert 0.99e-5 < levels.min() < 2e-5
    assert 0.025 < levels.max() < 0.0501
    assert np.median(np.log10(levels)) == pytest.approx(np.mean(np.log10([1e-5, 0.05])), abs=0.3)


def test_loud_silence_stays_within_full_scale() -> None:
    clips = augmenter([uneven_noise()], silence_rms=(0.3, 0.5)).silence(50, rng())
    assert np.abs(clips).max() <= 1


def test_half_of_the_backgrounds_are_recorded_where_there_are_recordings() -> None:
    constant = np.full(5 * RATE, 3_000, np.int16)  # no synthesised one is
    crops = augmenter([constant]).backgrounds(400, rng())
    assert (crops.std(axis=1) < 1e-3).mean() == pytest.approx(0.5, abs=0.1)


def test_a_recording_of_just_one_clip_is_heard_and_a_shorter_one_is_left_out() -> None:
    for length, heard in ((RATE, True), (RATE - 1, False)):
        crops = augmenter([np.full(length, 3_000, np.int16)]).backgrounds(100, rng())
        assert (crops.std(axis=1) < 1e-3).any() == heard


def test_clips_longer_than_the_synthesised_backgrounds_get_longer_ones() -> None:
    long = dataclasses.replace(FEATURES, clip_seconds=12.0)
    assert Augmenter(NOTHING, long).backgrounds(2, rng()).shape == (2, 12 * RATE)


def test_the_noise_that_evaluates_is_never_heard_in_training(tmp_path: Path) -> None:
    noise = np.full(20 * RATE, 3_000, np.int16)
    noise[16 * RATE :] = -3_000  # the last fifth can be told by its sign
    corpus = Corpus(tmp_path, (), ("_background_noise_/a.wav",), ())
    recordings = Recordings(corpus, np.zeros((0, RATE), np.int16), (noise,), "", tmp_path)
    for split, sign in (("train", 1), ("validation", -1), ("test", -1)):
        parts = recordings.noise_for(split)  # type: ignore[arg-type]
        means = augmenter(parts).backgrounds(300, rng()).mean(axis=1) * sign
        assert (means > 0.9).any()
        assert not (means < -0.5).any()


# --- cepstra -------------------------------------------------------------------------------------


def coefficients(count: int = 50) -> Array:
    return rng(5).standard_normal((count, 98, 13)).astype(np.float32)


FILL = np.arange(100, 113, dtype=np.float32)


def test_masked_places_become_the_fill_and_all_others_stay() -> None:
    made = augmenter(time_masks=2, coefficient_masks=1)
    before = coefficients(500)
    after = made.cepstra(before.copy(), FILL, rng())
    masked = after != before
    np.testing.assert_array_equal(after[masked], np.broadcast_to(FILL, after.shape)[masked])
    frames, rows = masked.all(axis=2), masked.all(axis=1)
    np.testing.assert_array_equal(masked, frames[:, :, np.newaxis] | rows[:, np.newaxis, :])
    assert 0 < frames.sum(axis=1).max() <= 2 * 15
    assert 0 < rows.sum(axis=1).max() <= 4
    assert frames.any(axis=0).all()  # every frame and every coefficient can be hit
    assert rows.any(axis=0).all()


def test_a_mask_is_one_span() -> None:
    after = augmenter(time_masks=1).cepstra(coefficients(), FILL, rng())
    for clip in after:
        hit = np.flatnonzero((clip == FILL).all(axis=1))
        assert len(hit) <= 15
        assert np.array_equal(hit, np.arange(hit[0], hit[0] + len(hit))) if len(hit) else True


def test_a_mask_longer_than_the_clip_masks_no_more_than_the_clip() -> None:
    made = augmenter(time_masks=1, time_mask_seconds=5.0, coefficient_masks=1, coefficient_mask=99)
    assert np.isfinite(made.cepstra(coefficients(), FILL, rng())).all()


def heard(clips: Array, **changes: Any) -> Array:
    """The response in dB (clips, bins 1 to 3999 Hz) that white clips were heard through."""
    after = augmenter(response_probability=1.0, **changes).waveforms(clips, rng())
    power: Array = np.abs(np.fft.rfft(after)[:, 1:-1]) / np.abs(np.fft.rfft(clips)[:, 1:-1])
    return 20 * np.log10(power)


def test_a_microphone_response_is_smooth_and_differs_from_clip_to_clip_as_configured() -> None:
    with_edges = speech(400)
    with_edges[:, [0, -1]] = 0  # what the interpolation does not reach
    clips = augmenter().waveforms(with_edges, rng())
    response = heard(clips, response_db=4.0, band_probability=0.0)
    mel = np.log1p(np.arange(1, 4_000) / 700) / np.log1p(4_000 / 700)
    for k in range(1, 9):
        weight = 2 * np.trapezoid(response * np.cos(np.pi * k * mel), mel, axis=1)
        assert np.std(weight) == pytest.approx(4 / np.sqrt(k), rel=0.15)
    assert np.abs(np.diff(response, axis=1)).max() < 1


def test_a_telephone_lets_only_its_band_through() -> None:
    clips = augmenter().waveforms(speech(40), rng())
    response = heard(
        clips, response_db=0.0, band_probability=1.0, highpass_hz=(300.0, 300.0),
        lowpass_hz=(3_000.0, 3_000.0),
    )  # fmt: skip
    assert np.abs(response[:, 320:2_900]).max() < 0.1
    assert response[:, 149].max() < -5.9  # an octave below: at least 6 dB
    assert response[:, 3_900].max() < -2


def test_an_empty_room_is_heard_through_the_microphone_too() -> None:
    wall: dict[str, Any] = {"highpass_hz": (1e3, 1e3), "lowpass_hz": (2e3, 2e3)}
    made = augmenter(response_probability=1.0, band_probability=1.0, response_db=0.0, **wall)
    power = np.abs(np.fft.rfft(made.silence(100, rng()))) ** 2
    inside = power[:, 1_000:2_000].mean(axis=1)
    outside = np.median(power[:, 3_000:], axis=1)
    assert np.mean(outside < inside) > 0.95
    plain = augmenter(response_probability=0.0).silence(100, rng())
    power = np.abs(np.fft.rfft(plain)) ** 2
    assert np.mean(power[:, :500].mean(axis=1) > power[:, 1_000:2_000].mean(axis=1)) > 0.5


# --- the configuration ---------------------------------------------------------------------------


def test_a_config_comes_back_from_json_and_names_its_fields() -> None:
    for config in (AugmentConfig(), NOTHING, AugmentConfig(snr_db=(1.0, 1.0))):
        assert AugmentConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
        assert AugmentConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ValueError, match=r"unknown: \['reverb'\], missing: none"):
        AugmentConfig.from_dict(NOTHING.to_dict() | {"reverb": 1})
    with pytest.raises(ValueError, match=r"unknown: none, missing: \['speed'\]"):
        AugmentConfig.from_dict({k: v for k, v in NOTHING.to_dict().items() if k != "speed"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("speed", 1.0),
        ("speed", -0.1),
        ("shift_seconds", -0.1),
        ("shift_seconds", float("nan")),
        ("noise_probability", 1.1),
        ("floor_probability", -0.1),
        ("snr_db", (30.0, -3.0)),
        ("gain_db", (0.0, float("inf"))),
        ("floor_rms", (0.0, 1e-3)),
        ("silence_rms", (-1.0, 1.0)),
        ("silence_rms", (0.3, 0.1)),
        ("highpass_hz", (0.0, 100.0)),
        ("response_probability", 1.5),
        ("time_masks", -1),
        ("coefficient_mask", -1),
    ],
)
def test_a_range_that_makes_no_sense_is_named(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        dataclasses.replace(NOTHING, **{name: value})


def test_another_throat_moves_the_peak_of_a_spectrum_by_its_factor() -> None:
    features = FeatureConfig(n_mels=80, n_mfcc=80)
    band = librosa.mel_frequencies(82, fmin=features.fmin, fmax=features.fmax)[1:-1]
    for factor in (0.9, 1.0, 1.1):
        before = mfcc(tone_at(1_500.0), features)
        after = before @ vtlp_matrix(features, factor).T
        spectrum = librosa.feature.inverse.mfcc_to_mel(after.T, n_mels=80)
        peak = band[spectrum.mean(axis=1).argmax()]
        assert peak == pytest.approx(1_500 * factor, rel=0.03)


def test_a_throat_of_the_same_length_changes_nothing() -> None:
    features = FeatureConfig()
    assert np.allclose(vtlp_matrix(features, 1.0), np.eye(features.n_mfcc), atol=1e-6)


def test_a_longer_throat_leaves_a_flat_spectrum_flat() -> None:
    features = FeatureConfig()
    flat = mfcc(np.zeros(features.n_samples, np.float32), features)
    assert np.allclose(flat @ vtlp_matrix(features, 1.1).T, flat, atol=1e-3)


def test_throats_differ_from_clip_to_clip_and_pitch_stays() -> None:
    made = Augmenter(dataclasses.replace(NOTHING, vocal_tract=0.1), FEATURES)
    clips = mfcc(np.repeat(speech(1), 50, axis=0), FEATURES)
    heard = made.cepstra(clips.copy(), np.zeros(FEATURES.n_mfcc, np.float32), rng())
    assert len(np.unique(heard[:, 0, 1])) > 10
    # loudness over time, where pitch and rhythm are, hardly moves
    assert np.abs(heard[..., 0] - clips[..., 0]).mean() < 0.05 * np.abs(clips[..., 0]).mean()


def test_silence_may_begin_late_or_end_early_but_no_more_than_a_shift() -> None:
    clips = augmenter(shift_seconds=0.15).silence(400, rng())
    sounding = clips != 0
    begin, end = sounding.argmax(axis=1) / RATE, sounding[:, ::-1].argmax(axis=1) / RATE
    for edge in (begin, end):
        assert edge.max() <= 0.15 + 1 / RATE
        assert 0.15 < np.mean(edge > 0.005) < 0.35
    assert not np.any((begin > 0.005) & (end > 0.005))
