import numpy as np
import pytest

from speech.data.evaluation_set import ClipSet, evaluation_set
from speech.evaluation.robustness import _changes, conditions, false_accepts_on_noise
from speech.labels import LabelSet
from speech.recognizer import Recognizer
from tests import tiny


def recognizer(infer) -> Recognizer:
    return Recognizer("fake", tiny.CONFIG, infer)


def always(label: int):
    row = np.eye(4, dtype=np.float32)[label]
    return recognizer(lambda x: np.tile(row, (len(x), 1)))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny.recordings(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def clips(data) -> ClipSet:
    return evaluation_set(data, LabelSet("tones", ("low", "high")))


def test_every_condition_is_measured_on_all_clips(data, clips):
    rows = list(conditions(always(1), data, clips))
    assert rows[0].name == "unchanged"
    assert len({row.name for row in rows}) == len(rows) >= 15
    for row in rows:
        assert row.accuracy == np.mean(clips.truth == 1)
        assert row.recall["high"] == 1


def test_the_noise_that_is_added_has_the_ratio_that_the_name_says(data, clips):
    changes = _changes(always(0), data)
    x = clips.waveforms[:8]
    for snr in (20, 10, 5, 0):
        noisy = changes[f"noise, {snr} dB SNR"](x, np.random.default_rng(0))
        ratio = np.sum(x**2, axis=1) / np.sum((noisy - x) ** 2, axis=1)
        np.testing.assert_allclose(10 * np.log10(ratio), snr, atol=0.1)


def test_gain_and_shift_do_what_their_names_say(data, clips):
    changes = _changes(always(0), data)
    rng, x = np.random.default_rng(0), clips.waveforms[:2]
    np.testing.assert_allclose(changes["gain -20 dB"](x, rng), x / 10, rtol=1e-6)
    late, early = (changes[f"shifted by {ms} ms"](x, rng) for ms in ("+150", "-150"))
    np.testing.assert_array_equal(late[:, 2400:], x[:, :-2400])
    np.testing.assert_array_equal(early[:, :-2400], x[:, 2400:])
    assert not late[:, :2400].any()
    assert not early[:, -2400:].any()


def test_the_telephone_band_ends_at_4_khz(data):
    changes = _changes(always(0), data)
    x = np.random.default_rng(1).normal(0, 0.1, (2, tiny.FEATURES.n_samples)).astype(np.float32)
    spectrum = np.abs(np.fft.rfft(changes["telephone band (8 kHz)"](x, np.random.default_rng(0))))
    frequency = np.fft.rfftfreq(x.shape[1], 1 / 16_000)
    assert spectrum[:, frequency > 4_300].max() < 0.01 * spectrum[:, frequency < 3_500].mean()


def test_codecs_keep_the_word_in_its_place(data, clips):
    changes = _changes(always(0), data)
    codecs = [name for name in changes if name.startswith(("Opus", "MP3", "GSM"))]
    assert len(codecs) == 3
    tone = clips.waveforms[:1]
    for name in codecs:
        coded = changes[name](tone, np.random.default_rng(0))
        assert np.corrcoef(coded[0], tone[0])[0, 1] > 0.9, name
        assert np.any(coded != tone), name


def test_rooms_have_the_level_they_claim_and_silence_makes_no_false_command():
    heard: list[np.ndarray] = []

    def infer(x: np.ndarray) -> np.ndarray:
        heard.append(np.sqrt(np.mean(x**2, axis=1)))
        return np.tile(np.eye(4, dtype=np.float32)[3], (len(x), 1))

    rows = list(false_accepts_on_noise(recognizer(infer)))
    assert all(row.false_accepts == 0 and row.n == 50 for row in rows)
    for row, levels in zip(rows, heard, strict=True):
        if row.rms < 0.05 and row.name != "clicks":  # louder ones are clipped at full scale
            np.testing.assert_allclose(levels, row.rms, rtol=1e-3)
    assert all(row.false_accepts == row.n for row in false_accepts_on_noise(always(0)))
    assert all(row.false_accepts == 0 for row in false_accepts_on_noise(always(2))), (
        "unknown is no command"
    )


def test_a_voice_five_semitones_higher_keeps_its_tempo_and_a_faster_one_does_not(data, clips):
    changes = _changes(always(0), data)
    rng, n = np.random.default_rng(0), tiny.FEATURES.n_samples
    time = np.arange(n) / tiny.FEATURES.sample_rate
    loud = (np.abs(time - 0.2) < 0.1).astype(np.float32)
    tone = (0.3 * loud * np.sin(2 * np.pi * 500 * time)).astype(np.float32)[np.newaxis]

    def pitch_and_length(x):
        spectrum = np.abs(np.fft.rfft(x[0], 64_000))
        return spectrum.argmax() / 4, np.sum(np.abs(x[0]) > 0.03) / np.sum(np.abs(tone) > 0.03)

    pitch, length = pitch_and_length(changes["voice 5 semitones higher"](tone, rng))
    assert pitch == pytest.approx(500 * 2 ** (5 / 12), rel=0.02)
    assert length == pytest.approx(1.0, abs=0.15)
    pitch, length = pitch_and_length(changes["speed 1.4, pitch with it"](tone, rng))
    assert pitch == pytest.approx(700, rel=0.02)
    assert length == pytest.approx(1 / 1.4, abs=0.05)


def test_clipping_leaves_no_sample_above_full_scale_and_most_of_a_loud_tone_at_it(data, clips):
    changes = _changes(always(0), data)
    clipped = changes["clipped, 20 dB over full scale"](
        clips.waveforms[:4], np.random.default_rng(0)
    )
    assert np.abs(clipped).max() == 1.0
    assert np.mean(np.abs(clipped) == 1.0) > 0.3
