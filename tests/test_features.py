"""The laws of speech.features: numbers against librosa, SciPy and golden files, and no leaks."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import numpy.typing as npt
import pytest
import scipy.fft
import scipy.signal
from hypothesis import given
from hypothesis import strategies as st

from speech.audio import fit_length, load_audio
from speech.config import check_fields
from speech.features import FeatureConfig, mfcc

Array = npt.NDArray[Any]
GOLDEN = sorted((Path(__file__).parent / "golden").glob("mfcc_*.npz"))
CONFIG = FeatureConfig()
CONFIGS = [
    CONFIG,
    FeatureConfig(hop_seconds=0.02),
    FeatureConfig(n_mels=40, n_mfcc=13, fmin=0.0, fmax=8_000.0),
    FeatureConfig(sample_rate=8_000, window_seconds=0.064, n_mels=32, n_mfcc=32, fmax=4_000.0),
    FeatureConfig(clip_seconds=0.5, window_seconds=0.025, n_mels=40, n_mfcc=20, log_floor=1e-10),
]


def speechlike(n: int, seed: int = 0) -> Array:
    """Bursts of harmonics in a little noise, from loud to hardly there."""
    rng = np.random.default_rng(seed)
    time = np.arange(n) / 16_000
    voice = sum(np.sin(2 * np.pi * 130 * k * time + k) / k for k in range(1, 30))
    level = np.abs(np.sin(2 * np.pi * 3 * time)) ** 8
    return (0.2 * level * voice + 0.003 * rng.standard_normal(n)).astype(np.float32)


# --- somebody else's numbers ---------------------------------------------------------------------


def slaney_mel(hertz: Array) -> Array:
    """Slaney's Auditory Toolbox: linear to 1000 Hz (15 mel), then 27 steps for a factor of 6.4."""
    above = 15 + 27 * np.log(np.maximum(hertz, 1_000) / 1_000) / np.log(6.4)
    return np.where(hertz < 1_000, hertz * 3 / 200, above)


def mel_filters(config: FeatureConfig) -> Array:
    """(n_mels, bins) triangles that are linear in Hz between edges that are even in mel."""
    fine = np.linspace(0, config.sample_rate / 2, 2_000_001)
    low, high = slaney_mel(np.array([config.fmin, config.fmax]))
    edges = np.interp(np.linspace(low, high, config.n_mels + 2), slaney_mel(fine), fine)
    bins = np.arange(config.n_fft // 2 + 1) * config.sample_rate / config.n_fft
    filters = []
    for low, centre, high in zip(edges[:-2], edges[1:-1], edges[2:], strict=True):
        triangle = np.interp(bins, [low, centre, high], [0, 1, 0])
        filters.append(triangle * 2 / (high - low))
    return np.array(filters)


def by_scipy(wave: Array, config: FeatureConfig) -> Array:
    windows = np.lib.stride_tricks.sliding_window_view(wave.astype(float), config.n_fft)
    frames = windows[:: config.hop_length] * scipy.signal.get_window("hann", config.n_fft)
    power = np.abs(scipy.fft.rfft(frames)) ** 2
    decibels = 10 * np.log10(np.maximum(power @ mel_filters(config).T, config.log_floor))
    cepstra: Array = scipy.fft.dct(decibels, type=2, norm="ortho")[:, : config.n_mfcc]
    return cepstra


def by_librosa(wave: Array, config: FeatureConfig) -> Array:
    spectrum = librosa.stft(wave, n_fft=config.n_fft, hop_length=config.hop_length, center=False)
    power = librosa.feature.melspectrogram(
        S=np.abs(spectrum) ** 2,
        sr=config.sample_rate,
        n_mels=config.n_mels,
        fmin=config.fmin,
        fmax=config.fmax,
    )
    decibels = librosa.power_to_db(power, amin=config.log_floor, top_db=None)
    cepstra: Array = librosa.feature.mfcc(S=decibels, n_mfcc=config.n_mfcc).T
    return cepstra


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("level", [1.0, 1e-2, 0.0])
def test_the_features_are_those_of_librosa_and_of_scipy(
    config: FeatureConfig, level: float
) -> None:
    wave = speechlike(config.n_samples) * np.float32(level)
    ours = mfcc(wave, config)
    assert ours.dtype == np.float32
    assert ours.shape == (config.n_frames, config.n_mfcc)
    np.testing.assert_allclose(ours, by_librosa(wave, config), atol=1e-3, rtol=0)
    np.testing.assert_allclose(ours, by_scipy(wave, config), atol=1e-3, rtol=0)


def test_real_clips_have_the_features_of_scipy(speech_commands: Path) -> None:
    for path in sorted(speech_commands.glob("[a-z]*/*_nohash_*"))[::2_000]:
        wave = fit_length(load_audio(path), CONFIG.n_samples)
        np.testing.assert_allclose(mfcc(wave, CONFIG), by_scipy(wave, CONFIG), atol=1e-3, rtol=0)


def test_there_are_golden_files() -> None:
    assert len(GOLDEN) >= 8


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_the_features_are_still_those_of_the_golden_file(path: Path) -> None:
    golden = np.load(path)
    config = FeatureConfig.from_dict(json.loads(str(golden["config"])))
    wave = golden["waveform"] / np.float32(32_768)
    np.testing.assert_allclose(mfcc(wave, config), golden["mfcc"], atol=1e-3, rtol=0)


# --- what a frame may depend on ------------------------------------------------------------------


def test_one_clip_and_a_batch_give_the_same_numbers() -> None:
    batch = np.stack([speechlike(16_000, seed) * np.float32(2.0**-seed) for seed in range(70)])
    together = mfcc(batch, CONFIG)
    assert together.shape == (70, 98, 40)
    for wave, features in zip(batch, together, strict=True):
        np.testing.assert_allclose(mfcc(wave, CONFIG), features, atol=1e-4, rtol=0)


@pytest.mark.parametrize("shift", [0, 1, 2, 49, 97, 98, 150, 200])
def test_the_frames_of_a_shifted_window_are_those_of_the_whole(shift: int) -> None:
    stream = speechlike(16_000 + 200 * CONFIG.hop_length)
    whole = mfcc(stream, CONFIG)
    start = shift * CONFIG.hop_length
    window = mfcc(stream[start : start + CONFIG.n_samples], CONFIG)
    np.testing.assert_allclose(window, whole[shift : shift + CONFIG.n_frames], atol=1e-3, rtol=0)


def test_a_frame_does_not_depend_on_what_lies_outside_its_window() -> None:
    wave = speechlike(16_000)
    changed = wave.copy()
    first, last = 40 * CONFIG.hop_length, 40 * CONFIG.hop_length + CONFIG.n_fft
    changed[:first], changed[last:] = 0.9, -0.9
    np.testing.assert_allclose(mfcc(changed, CONFIG)[40], mfcc(wave, CONFIG)[40], atol=1e-3, rtol=0)


@pytest.mark.parametrize("config", CONFIGS)
def test_silence_gives_one_constant_and_what_lies_under_the_floor_is_silence(
    config: FeatureConfig,
) -> None:
    features = mfcc(np.zeros(config.n_samples, np.float32), config)
    floor = 10 * np.log10(config.log_floor) * np.sqrt(config.n_mels)
    np.testing.assert_allclose(features[:, 0], floor, rtol=1e-5)
    np.testing.assert_allclose(features[:, 1:], 0, atol=1e-3)
    hush = 1e-8 * np.random.default_rng(0).standard_normal(config.n_samples).astype(np.float32)
    np.testing.assert_array_equal(mfcc(hush, config), features)


@pytest.mark.parametrize("gain_db", [-60.0, -20.0, -0.5])
def test_a_gain_moves_the_zeroth_coefficient_alone(gain_db: float) -> None:
    config = FeatureConfig(log_floor=1e-30)
    wave = speechlike(16_000)
    moved = mfcc(wave * np.float32(10 ** (gain_db / 20)), config) - mfcc(wave, config)
    np.testing.assert_allclose(moved[:, 0], gain_db * np.sqrt(config.n_mels), atol=0.01)
    np.testing.assert_allclose(moved[:, 1:], 0, atol=0.01)


def test_memory_layout_and_float_type_do_not_matter() -> None:
    batch = np.stack([speechlike(16_000, seed) for seed in range(3)])
    expected = mfcc(batch, CONFIG)
    for same in (batch.astype(np.float64), np.asfortranarray(batch), np.repeat(batch, 2, 0)[::2]):
        np.testing.assert_allclose(mfcc(same, CONFIG), expected, atol=1e-4, rtol=0)
    batch.flags.writeable = False
    np.testing.assert_array_equal(mfcc(batch, CONFIG), expected)


def test_no_clips_give_no_features() -> None:
    assert mfcc(np.zeros((0, 16_000), np.float32), CONFIG).shape == (0, 98, 40)


@pytest.mark.parametrize(
    "wave",
    [
        np.zeros(479, np.float32),
        np.zeros((2, 479), np.float32),
        np.zeros((1, 1, 16_000), np.float32),
        np.float32(0),
        np.zeros(16_000, np.int16),
    ],
)
def test_what_has_no_frame_or_is_not_float_is_refused(wave: Any) -> None:
    with pytest.raises(ValueError, match=r"expected float waveforms .+ got .+ shape"):
        mfcc(wave, CONFIG)


def test_a_home_that_cannot_be_written_is_no_obstacle(tmp_path: Path) -> None:
    # numba is loaded first, as training loads it: then its variable comes too late
    program = (
        "import numba, speech.features as f; f._librosa(); print(numba.config.CACHE_DIR);"
        "import pathlib; print(oct(pathlib.Path(numba.config.CACHE_DIR).stat().st_mode)[-3:])"
    )
    environment = {"HOME": str(tmp_path / "none"), "TMPDIR": str(tmp_path), "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    folder, mode = done.stdout.split()
    assert Path(folder).parent == tmp_path
    assert mode == "700"


# --- the configuration ---------------------------------------------------------------------------


def samples_as_seconds(rate: int, low: int, high: int) -> st.SearchStrategy[float]:
    return st.integers(low, high).map(lambda n: n / rate)


@st.composite
def configs(draw: st.DrawFn) -> FeatureConfig:
    rate = draw(st.sampled_from([8_000, 16_000, 22_050, 44_100, 48_000]))
    n_mels = draw(st.integers(1, 128))
    fmin = draw(st.floats(0, 1_000))
    return FeatureConfig(
        sample_rate=rate,
        clip_seconds=draw(samples_as_seconds(rate, 4_000, 60_000)),
        window_seconds=draw(samples_as_seconds(rate, 200, 4_000)),
        hop_seconds=draw(samples_as_seconds(rate, 8, 200)),  # at most 10,000 frames
        n_mels=n_mels,
        n_mfcc=draw(st.integers(1, n_mels)),
        fmin=fmin,
        fmax=draw(st.floats(fmin + 1, rate / 2)),
        log_floor=draw(st.floats(1e-30, 1)),
    )


@given(configs())
def test_a_config_comes_back_from_its_dict_and_from_json(config: FeatureConfig) -> None:
    assert FeatureConfig.from_dict(config.to_dict()) == config
    assert FeatureConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@given(configs())
def test_samples_and_frames_follow_from_the_seconds(config: FeatureConfig) -> None:
    rate = config.sample_rate
    for samples, seconds in [
        (config.n_samples, config.clip_seconds),
        (config.n_fft, config.window_seconds),
        (config.hop_length, config.hop_seconds),
    ]:
        assert isinstance(samples, int)
        assert samples == pytest.approx(seconds * rate, abs=1e-6)
    last = (config.n_frames - 1) * config.hop_length + config.n_fft
    assert last <= config.n_samples < last + config.hop_length


@given(configs(), configs())
def test_equal_configs_and_only_they_share_a_digest(a: FeatureConfig, b: FeatureConfig) -> None:
    assert (a == b) == (a.digest() == b.digest())
    assert dataclasses.replace(a).digest() == a.digest()


def test_a_whole_number_of_seconds_is_the_same_as_an_integer_or_a_float() -> None:
    integer, floating = FeatureConfig(clip_seconds=1, fmin=20), FeatureConfig(clip_seconds=1.0)
    assert integer == floating
    assert integer.digest() == floating.digest()
    assert isinstance(integer.clip_seconds, float)


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(FeatureConfig)])
def test_a_missing_field_is_named(name: str) -> None:
    fields = CONFIG.to_dict()
    del fields[name]
    with pytest.raises(ValueError, match=rf"unknown: none, missing: \['{name}'\]"):
        FeatureConfig.from_dict(fields)


def test_an_unknown_field_is_named() -> None:
    with pytest.raises(ValueError, match=r"unknown: \['top_db'\], missing: none"):
        FeatureConfig.from_dict(CONFIG.to_dict() | {"top_db": 80})
    with pytest.raises(ValueError, match="FeatureConfig"):
        check_fields(FeatureConfig, {})


@pytest.mark.parametrize("name", ["clip_seconds", "window_seconds", "hop_seconds"])
def test_a_time_that_is_no_whole_number_of_samples_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name}=0\.03001 .+ whole number of samples"):
        FeatureConfig(**(CONFIG.to_dict() | {name: 0.03001}))


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(FeatureConfig)])
@pytest.mark.parametrize(
    "value", [0, -1, float("nan"), float("inf"), 1e300, 10**400, "16000", None, True, [1], 1e-45]
)
def test_a_value_that_makes_no_sense_is_named(name: str, value: Any) -> None:
    if (name, value) in [("fmin", 0), ("fmin", 1e-45)]:
        return
    with pytest.raises(ValueError, match=name):
        FeatureConfig(**(CONFIG.to_dict() | {name: value}))


@pytest.mark.parametrize(
    "fields",
    [
        {"n_mfcc": 81},
        {"n_mels": 39},
        {"n_mels": 513},
        {"fmax": 8_000.5},
        {"fmin": 7_600.0},
        {"hop_seconds": 0.04},
        {"window_seconds": 1.01},
        {"clip_seconds": 61.0},
        {"sample_rate": 7_000},
        {"sample_rate": 16_000.0},
        {"log_floor": 2.0},
    ],
)
def test_numbers_that_contradict_each_other_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="|".join(fields)):
        FeatureConfig(**(CONFIG.to_dict() | fields))
