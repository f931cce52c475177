"""The laws of scoring a decoder, on probabilities that are known."""

import json

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from speech.data.annotations import Word
from speech.detection import DecoderConfig, PosteriorDecoder
from speech.errors import AudioError, CorpusError
from speech.evaluation.scoring import (
    compute_posteriors,
    decode,
    det_curve,
    measure_streams,
    posteriors_of_file,
    resolvable_rate,
    score,
)
from speech.evaluation.synthetic_streams import Stream
from speech.stream import StreamDecoder
from tests.e2e import tones
from tests.probabilities import BASE, MODEL, drawn, said


def test_the_score_is_that_of_the_decoder_itself():
    audio = tones.said([(0.5, "low"), (2.0, "high"), (3.5, "low")], 5.0).astype(np.float32)
    recognizer = tones.recognizer()
    words = (Word(0.5, 0.9, "low"), Word(2.0, 2.4, "high"), Word(3.5, 3.9, "low"))
    [heard] = compute_posteriors(recognizer, [Stream("commands", "clean", audio, words, 5.0)], 0.1)
    config = DecoderConfig.from_dict(recognizer.decoder)
    decoder = StreamDecoder(recognizer)
    found = decoder.push(audio) + decoder.flush()
    assert [(d.label, d.time) for d in decode(recognizer, heard, config)] == [
        (d.label, d.time) for d in found
    ]
    m = score(recognizer, heard, config)
    assert (m.hits, m.misses, m.substitutions, m.false_accepts) == (3, 0, 0, 0)
    assert m.latency_median == pytest.approx(np.median([d.time for d in found]) - 2.4, abs=0.2)
    assert heard.seconds == 5.0


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([0.3, 0.8, 0.99]), st.integers(2, 6))
def test_passing_over_idle_stretches_changes_no_detection(seed, threshold, smoothing):
    rng = np.random.default_rng(seed)
    peaks = [("yes" if rng.random() < 0.5 else "no", rng.random() ** 0.2) for _ in range(12)]
    quiet = [("unknown", 1.0)] * 3
    shuffled = [(peaks + 3 * quiet)[i] for i in rng.permutation(len(peaks) + 9)]
    stream = said("speech", "clean", shuffled, False)
    rows = rng.permutation(stream.posteriors)
    noisy = np.where(rng.random(len(rows))[:, None] < 0.03, rows, stream.posteriors)
    stream = stream._replace(posteriors=noisy)
    config = DecoderConfig(
        threshold=threshold, smoothing_seconds=smoothing / 10, release_threshold=0.2
    )
    plain = PosteriorDecoder(config, MODEL.labels, MODEL.features, stream.silence_posterior)
    expected = [
        (d.label, d.probability, d.time, d.start) for d in plain.decode(noisy.astype(float))
    ]
    found = [(d.label, d.probability, d.time, d.start) for d in decode(MODEL, stream, config)]
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one[0] == other[0]
        assert one[1:] == pytest.approx(other[1:], abs=1e-6)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000))
def test_stricter_thresholds_never_hit_more_and_never_alarm_more(seed):
    words, negative = drawn("commands", 40, 2.0, True, seed), drawn("speech", 40, -1.0, False, seed)
    points = det_curve(MODEL, [words], [negative], BASE)
    thresholds, misses, rates = (np.array(column) for column in zip(*points, strict=True))
    assert (np.diff(thresholds) > 0).all()
    assert (np.diff(misses) >= 0).all()
    assert (np.diff(rates) <= 0).all()


def test_the_curve_keeps_the_distances_of_single_thresholds():
    words = said("commands", "clean", [("yes", 0.9), ("no", 0.9)], True)
    config = DecoderConfig(threshold=0.8, thresholds={"no": 0.95}, release_threshold=0.5)
    rates = {
        point.threshold: point.miss_rate for point in det_curve(MODEL, *2 * ([words],), config)
    }
    halves = [threshold for threshold, miss in rates.items() if miss == 0.5]
    assert 0.6 < min(halves) < max(halves) < 0.93  # "no" goes first, then "yes"


def test_measures_are_json_and_read_the_curve_at_the_rates_that_the_hours_can_show():
    streams = [
        drawn("commands", 50, 3.0, True, 1),
        drawn("speech", 1000, -2.0, False, 2),  # 1.1 hours
        drawn("unknown words", 50, -2.0, False, 3),
        drawn("noise", 50, -5.0, False, 4, "alone"),
    ]
    result = measure_streams(MODEL, streams, BASE)
    assert json.loads(json.dumps(result)) == result
    assert set(result) == {"clean", "alone"}
    assert set(result["alone"]) == {"noise"}
    clean = result["clean"]
    assert clean["det_false_accepts_of"] == "speech"
    point = clean["at_rate"]["10"]
    assert point["shown"]
    assert point["false_accepts_per_hour"] <= 10
    low, high = point["false_accepts_per_hour_low"], point["false_accepts_per_hour_high"]
    assert low <= point["false_accepts_per_hour"] <= high
    better = [p for p in clean["det"] if p[1] < point["miss_rate"]]
    assert all(p[2] > 10 for p in better)
    for rate in ("1", "0.1"):
        assert clean["at_rate"][rate]["shown"] is False
        assert clean["at_rate"][rate]["hours_needed"] == pytest.approx(3 / float(rate))
    assert resolvable_rate(3600) == pytest.approx(3.0)


def test_sources_of_speech_are_scored_together_and_each_by_itself():
    both = [
        drawn("speech", 100, 1.0, False, 2)._replace(source="a"),
        drawn("speech", 50, -1.0, False, 3)._replace(source="b"),
    ]
    clean = measure_streams(MODEL, [drawn("commands", 20, 3.0, True, 1), *both], BASE)["clean"]
    each = clean["speech_by_source"]
    assert set(each) == {"a", "b"}
    for field in ("false_accepts", "seconds"):
        assert clean["speech"][field] == pytest.approx(sum(row[field] for row in each.values()))
    assert each["a"]["false_accepts"] == len(decode(MODEL, both[0], BASE)) > 0


def test_without_continuous_speech_the_alarms_are_those_among_the_words():
    result = measure_streams(MODEL, [drawn("commands", 20, 3.0, True, 1)], BASE)
    assert result["clean"]["det_false_accepts_of"] == "commands"


# --- recordings ---------------------------------------------------------------------------------


def wav(path, samples, rate=tones.RATE):
    soundfile.write(path, samples, rate, subtype="PCM_16")
    return path


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_a_recording_with_labels_is_scored_as_a_stream_is(tmp_path, rate):
    words = (Word(0.5, 0.9, "low"), Word(2.0, 2.4, "other"), Word(3.5, 3.9, "high"))
    sound = [(word.start, word.label) for word in words if word.label != "other"]
    path = wav(tmp_path / "a.wav", tones.said(sound, 5.0, rate), rate)
    recognizer = tones.recognizer()
    heard = posteriors_of_file(recognizer, path, words, 0.1)
    assert heard.seconds == pytest.approx(5.0, abs=1e-3)
    m = score(recognizer, heard, DecoderConfig.from_dict(recognizer.decoder))
    assert (m.words, m.hits, m.false_accepts) == (2, 2, 0)
    assert "det" in measure_streams(recognizer, [heard], BASE)["a.wav"]


def test_a_recording_shorter_than_a_window_or_than_its_labels_is_refused(tmp_path, refused):
    recognizer = tones.recognizer()
    short = wav(tmp_path / "short.wav", tones.said([], 0.9))
    message = refused(AudioError, lambda: posteriors_of_file(recognizer, short, (), 0.1))
    assert "expected at least a window of 1 s, got 0.9 s" in message
    long = wav(tmp_path / "long.wav", tones.said([], 3.0))
    late = (Word(8.0, 8.5, "low"),)
    assert "8.50 s" in refused(CorpusError, lambda: posteriors_of_file(recognizer, long, late, 0.1))
