"""The laws of live decoding, on networks that do what the test says; none is trained here."""

import dataclasses
import json
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from speech.architecture import ModelConfig
from speech.audio import load_audio
from speech.detection import DecoderConfig, Detection
from speech.errors import AudioError, ModelError, SpeechWarning
from speech.features import FeatureConfig
from speech.recognizer import Recognizer
from speech.stream import StreamDecoder

RATE, CLIP, STEP = 16_000, 16_000, 1600
LABELS = ("yes", "no", "unknown", "silence")
PITCH = {"yes": 1000, "no": 2000}  # multiples of 50 Hz: whole periods in 20 ms
WORD_SECONDS, AMPLITUDE = 0.36, 0.25


def recognizer_of(infer: Callable[[np.ndarray], np.ndarray], labels=LABELS) -> Recognizer:
    return Recognizer("fake", ModelConfig(labels=labels, features=FeatureConfig()), infer)


def hears_bursts(waveforms: np.ndarray) -> np.ndarray:
    """Says a word iff more than about half of the energy of its burst lies inside the window."""
    rows = []
    for waveform in waveforms:  # one by one, so that a batch changes nothing
        spectra = np.abs(np.fft.rfft(waveform.astype(np.float64).reshape(50, 320))) / 160
        whole = 18 * AMPLITUDE**2  # a burst is 18 frames long
        power = (spectra**2).sum(axis=0) / whole
        shares = np.array([power[20], power[40]])
        said = 0.49 * (1 + np.tanh(12 * (shares - 0.5)))
        if said.sum() > 0.98:
            said *= 0.98 / said.sum()
        rest = 1 - said.sum()
        rows.append([*said, 0.9 * rest, 0.1 * rest])
    return np.array(rows, np.float32)


def speech_of(events: Sequence[tuple[float, str]], seconds: float, rate: int = RATE) -> np.ndarray:
    """float32 mono with a burst of the word's pitch at each onset, and a little noise."""
    audio = np.random.default_rng(4).normal(0, 0.001, round(seconds * rate))
    time = np.arange(round(WORD_SECONDS * rate)) / rate
    for onset, word in events:
        first = round(onset * rate)
        burst = AMPLITUDE * np.sin(2 * np.pi * PITCH[word] * time)
        audio[first : first + len(burst)] += burst[: len(audio) - first]
    return audio.astype(np.float32)


def says_its_last_sample(waveforms: np.ndarray) -> np.ndarray:
    yes = waveforms[:, -1]
    return np.stack([yes, 0 * yes, 1 - yes, 0 * yes], axis=1)


def decode_trace(trace: Sequence[float], config: DecoderConfig | None = None) -> list[Detection]:
    """What is detected when the network says 'yes' with these probabilities, window by window."""
    audio = np.repeat(np.array(trace, np.float32), STEP)
    return StreamDecoder(recognizer_of(says_its_last_sample), config).push(audio)


def decode(
    decoder: StreamDecoder, audio: np.ndarray, sizes: Sequence[int], rate: int = RATE
) -> list[Detection]:
    """Push in chunks of these sizes, over and over, and flush."""
    found, first, turn = [], 0, 0
    while first < len(audio):
        size = sizes[turn % len(sizes)]
        found += decoder.push(audio[first : first + size], rate)
        first, turn = first + size, turn + 1
    return found + decoder.flush()


def offline(recognizer: Recognizer, config: DecoderConfig, audio: np.ndarray) -> list[Detection]:
    """The rule of decoding told with the whole recording and all of history at hand."""
    padded = np.concatenate([np.zeros(CLIP, np.float32), audio, np.zeros(CLIP, np.float32)])
    n_windows = (len(audio) + CLIP - 1) // STEP
    windows = [padded[(k + 1) * STEP : (k + 1) * STEP + CLIP] for k in range(n_windows)]
    m = round(config.smoothing_seconds / config.step_seconds)
    silent = recognizer.probabilities(np.zeros((1, CLIP), np.float32))
    raw = np.concatenate(
        [silent] * (m - 1) + [recognizer.probabilities(w[None].copy()) for w in windows]
    )
    kernel = np.ones(m) / m
    smoothed = np.stack([np.convolve(c.astype(np.float64), kernel, "valid") for c in raw.T], axis=1)
    limit = {
        i: config.thresholds.get(label, config.threshold)
        for i, label in enumerate(recognizer.labels)
        if label not in ("unknown", "silence")
    }

    def leader(k: int) -> int | None:
        reaching = [i for i in limit if smoothed[k, i] >= limit[i]]
        return max(reaching, key=lambda i: smoothed[k, i], default=None)

    history: list[tuple[int, int, int]] = []  # label, window of the decision, first window

    def is_held(label: int, k: int) -> bool:
        return any(
            (k - first) * STEP < CLIP and (smoothed[decided + 1 : k + 1, label] >= release).all()
            for which, decided, first in history
            if which == label and decided < k
        )

    release, found = config.release_threshold, []
    for k in range(n_windows):
        label, first = leader(k), k
        if label is None or is_held(label, k):
            continue
        earliest = history[-1][1] + 1 if history else 0
        while first > earliest and leader(first - 1) == label and not is_held(label, first - 1):
            first -= 1
        waited = np.inf if not history else (k - history[-1][1]) * config.step_seconds
        if (
            k - first + 1 >= config.min_consecutive_windows
            and waited > config.refractory_seconds - 1e-6
        ):
            history.append((label, k, first))
            time = min((k + 1) * STEP, len(audio)) / RATE
            start = max(0, (first + 1) * STEP - CLIP) / RATE
            found.append(
                Detection(recognizer.labels[label], float(smoothed[k, label]), time, start)
            )
    return found


def names(found: Sequence[Detection]) -> list[str]:
    return [detection.label for detection in found]


def assert_same(found: Sequence[Detection], expected: Sequence[Detection]) -> None:
    assert names(found) == names(expected)
    for one, other in zip(found, expected, strict=True):
        assert dataclasses.astuple(one)[1:] == pytest.approx(dataclasses.astuple(other)[1:])


WORDS = st.lists(
    st.tuples(st.floats(0.0, 1.5), st.sampled_from(["yes", "no"])), min_size=0, max_size=4
)
SIZES = st.lists(st.integers(0, 9000), min_size=1, max_size=5).filter(lambda s: sum(s) > 100)
CONFIGS = st.builds(
    DecoderConfig,
    smoothing_seconds=st.sampled_from([0.1, 0.2, 0.3, 0.5]),
    threshold=st.sampled_from([0.5, 0.7, 0.9]),
    thresholds=st.sampled_from([{}, {"no": 0.45}]),
    min_consecutive_windows=st.integers(1, 4),
    release_threshold=st.sampled_from([0.0, 0.3, 0.45]),
    refractory_seconds=st.sampled_from([0.0, 0.3, 0.7, 2.0]),
)


def placed(gaps: Sequence[tuple[float, str]]) -> tuple[list[tuple[float, str]], float]:
    events, time = [], 0.0
    for gap, word in gaps:
        events.append((time + gap, word))
        time += gap + 0.4
    return events, time + 0.5


# ---- one utterance, one detection


@pytest.mark.parametrize("onset", [0.0, 0.05, 0.5, 1.0, 1.033, 1.07, 2.0])
def test_one_utterance_gives_one_detection_soon_after_it_was_said(onset):
    decoder = StreamDecoder(recognizer_of(hears_bursts))
    [found] = decode(decoder, speech_of([(onset, "yes")], onset + 3), [800])
    assert found.label == "yes"
    assert 0.8 <= found.probability <= 1
    assert onset + WORD_SECONDS / 2 < found.time < onset + WORD_SECONDS + 0.45
    assert max(0.0, found.time - 1.3) <= found.start < onset + WORD_SECONDS
    assert found.start >= 0


@pytest.mark.parametrize("apart", [0.6, 0.7, 0.8, 0.9, 1.0, 1.2, 1.5, 2.0])
@pytest.mark.parametrize("phase", [0.0, 0.03, 0.08])
def test_the_same_word_twice_gives_two_detections_without_silence_between(apart, phase):
    onsets = [1 + phase, 1 + phase + apart]
    audio = speech_of([(onset, "yes") for onset in onsets], 5)
    found = decode(StreamDecoder(recognizer_of(hears_bursts)), audio, [1600])
    assert names(found) == ["yes", "yes"]
    assert found[1].start > found[0].start + 0.5


def test_two_words_in_a_row_give_each_its_detection():
    audio = speech_of([(1.0, "yes"), (1.7, "no"), (2.9, "yes")], 5)
    found = decode(StreamDecoder(recognizer_of(hears_bursts)), audio, [1000])
    assert names(found) == ["yes", "no", "yes"]


def test_a_word_at_the_very_end_is_decided_by_flush_at_a_time_inside_the_stream():
    audio = speech_of([(2.0, "yes")], 2.0 + WORD_SECONDS)
    decoder = StreamDecoder(recognizer_of(hears_bursts))
    assert decoder.push(audio) == []
    [found] = decoder.flush()
    assert found.label == "yes"
    assert found.time == decoder.seconds == pytest.approx(2.36)


# Traces of a trained network, in percent, "yes" of a validation speaker in pink noise.
ONCE = [1, 1, 27, 88, 95, 98, 97, 96, 96, 96, 96, 96, 96, 87, 2, 2, 0, 0, 0, 0, 0, 0, 0, 0]
TWICE_CLOSE = [0, 1, 22, 86, 94, 98, 97, 96, 96, 96, 96, 97, 97, 66, 63, 96, 96, 95, 95, 95, 95]
TWICE_CLOSE += [95, 95, 77, 10, 3, 1, 1, 1, 1]
TWICE_APART = [1, 1, 22, 88, 94, 98, 97, 96, 96, 96, 96, 96, 96, 87, 2, 4, 3, 40, 68, 95, 96]
TWICE_APART += [94, 95, 95, 96, 95, 95, 79, 13, 2]


@pytest.mark.parametrize(("trace", "times"), [(ONCE, 1), (TWICE_CLOSE, 2), (TWICE_APART, 2)])
def test_what_a_trained_network_says_of_one_and_of_two_utterances_is_counted_right(trace, times):
    assert names(decode_trace([p / 100 for p in trace])) == ["yes"] * times


def test_a_dip_within_one_utterance_is_no_second_one():
    wobbling = [0, 0.95, 0.95, 0.95, 0.95, 0.1, 0.9, 0.95, 0.95, 0.95, 0, 0, 0, 0, 0, 0]
    assert names(decode_trace(wobbling)) == ["yes"]


def test_a_word_that_ended_may_be_detected_again_before_the_clip_is_over():
    config = DecoderConfig(smoothing_seconds=0.1, min_consecutive_windows=1, refractory_seconds=0.7)
    for between, times in [(0.0, 2), (0.49, 2), (0.51, 1)]:
        trace = [0, *[0.9] * 3, *[between] * 4, *[0.9] * 2, 0, 0]
        assert names(decode_trace(trace, config)) == ["yes"] * times


def test_a_plateau_counts_again_only_when_it_outlives_the_clip():
    config = DecoderConfig(smoothing_seconds=0.1, min_consecutive_windows=1)
    for length, times in [(1, 1), (9, 1), (10, 1), (11, 2), (20, 2), (21, 3)]:
        found = decode_trace([0.0, *[0.9] * length, *[0.0] * 12], config)
        assert names(found) == ["yes"] * times, length
    starts = [round(d.start * RATE) for d in decode_trace([0.0] * 10 + [0.9] * 11, config)]
    assert starts == [1 * STEP, 11 * STEP]  # the windows share no audio


# ---- the settings


def test_a_detection_wants_min_count_windows_in_a_row():
    for count in (1, 2, 3):
        config = DecoderConfig(smoothing_seconds=0.1, min_consecutive_windows=count)
        assert decode_trace([0, *([0.9] * (count - 1) + [0.0]) * 3, 0], config) == []
        [found] = decode_trace([0, *[0.9] * count, 0, 0], config)
        assert found.time == pytest.approx((1 + count) * 0.1)
        assert found.probability == pytest.approx(0.9)


def test_smoothing_is_the_mean_over_the_last_windows_and_is_what_front_ends_see():
    decoder = StreamDecoder(recognizer_of(says_its_last_sample), DecoderConfig())
    np.testing.assert_allclose(decoder.probabilities, [0, 0, 1, 0])
    for value, mean in [(0.9, 0.3), (0.6, 0.5), (0.0, 0.5), (0.3, 0.3)]:
        decoder.push(np.full(STEP, value, np.float32))
        np.testing.assert_allclose(decoder.probabilities, [mean, 0, 1 - mean, 0], atol=1e-6)
        assert decoder.probabilities.dtype == np.float32
        assert decoder.level == pytest.approx(value)


def test_a_label_with_a_threshold_of_its_own_does_not_heed_the_common_one():
    trace = [0, *[0.7] * 6, 0, 0, 0]
    assert decode_trace(trace) == []
    assert names(decode_trace(trace, DecoderConfig(thresholds={"yes": 0.6}))) == ["yes"]
    assert decode_trace(trace, DecoderConfig(threshold=0.6, thresholds={"yes": 0.9})) == []


def test_the_refractory_time_holds_between_any_two_labels_and_only_puts_off():
    config = DecoderConfig(smoothing_seconds=0.1, min_consecutive_windows=1, refractory_seconds=0.7)

    def sign(waveforms):
        last = waveforms[:, -1]
        yes, no = np.maximum(last, 0), np.maximum(-last, 0)
        return np.stack([yes, no, 1 - yes - no, 0 * yes], axis=1)

    for length, times in [(3, [0.1]), (7, [0.1, 0.8])]:
        trace = [0.9, 0.9, *[-0.9] * length, 0, 0]
        audio = np.repeat(np.array(trace, np.float32), STEP)
        found = StreamDecoder(recognizer_of(sign), config).push(audio)
        assert names(found) == ["yes", "no"][: len(times)]
        assert [d.time for d in found] == pytest.approx(times)


@pytest.mark.parametrize("label", ["unknown", "silence"])
def test_unknown_and_silence_are_never_detections(label):
    def sure(waveforms):
        row = np.zeros((len(waveforms), len(LABELS)), np.float32)
        row[:, LABELS.index(label)] = 1
        return row

    assert decode(StreamDecoder(recognizer_of(sure)), speech_of([(1, "yes")], 5), [900]) == []


def test_a_model_without_unknown_and_silence_has_only_commands():
    def even(waveforms):
        return np.tile(np.array([0.1, 0.9], np.float32), (len(waveforms), 1))

    decoder = StreamDecoder(recognizer_of(even, labels=("left", "right")))
    assert names(decoder.push(speech_of([], 0.95))) == ["right"]


def test_the_settings_survive_json_and_none_is_ever_a_silent_default():
    config = DecoderConfig(thresholds={"yes": 0.9}, min_consecutive_windows=3, refractory_seconds=1)
    fields = json.loads(json.dumps(config.to_dict()))
    assert DecoderConfig.from_dict(fields) == config
    with pytest.raises(ValueError, match=r"unknown: \['hop'\], missing: \['release_threshold'\]"):
        DecoderConfig.from_dict(
            {**{k: v for k, v in fields.items() if k != "release_threshold"}, "hop": 1}
        )


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"step_seconds": 0}, r"step_seconds=0 must be a number in \[0.001, 60\]"),
        ({"step_seconds": "0.1"}, "step_seconds='0.1' must be a number"),
        ({"smoothing_seconds": 0.25}, "must be a whole number of step_seconds=0.1, got 2.5"),
        ({"smoothing_seconds": 0.01}, "must be a whole number of step_seconds"),
        ({"threshold": 1.1}, r"threshold=1.1 must be a number in \[1e-06, 1\]"),
        ({"threshold": float("nan")}, "threshold=nan must be"),
        ({"threshold": True}, "threshold=True must be"),
        ({"thresholds": {"yes": -1}}, r"thresholds\['yes'\]=-1 must be"),
        ({"thresholds": 0.5}, "thresholds=0.5 must map labels"),
        (
            {"min_consecutive_windows": 0},
            r"min_consecutive_windows=0 must be an integer in \[1, 100\]",
        ),
        ({"min_consecutive_windows": 1.5}, "min_consecutive_windows=1.5 must be an integer"),
        ({"release_threshold": 0.9}, "release_threshold=0.9 must be at most every threshold, 0.8"),
        (
            {"thresholds": {"yes": 0.4}},
            "release_threshold=0.5 must be at most every threshold, 0.4",
        ),
        ({"refractory_seconds": -1}, "refractory_seconds=-1 must be"),
    ],
)
def test_settings_that_make_no_sense_are_refused(change, complaint):
    with pytest.raises(ValueError, match=complaint):
        DecoderConfig(**change)


@pytest.mark.parametrize("settings", [{"threshold": 2.0}, {"hop": 1}])
def test_a_model_with_other_settings_than_a_decoders_is_refused_as_a_model(settings, refused):
    recognizer = recognizer_of(hears_bursts)
    recognizer.decoder = settings
    message = refused(ModelError, lambda: StreamDecoder(recognizer))
    assert "expected a decoder's settings" in message


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"step_seconds": 0.01003, "smoothing_seconds": 0.01003}, "whole number of samples"),
        ({"step_seconds": 2.0, "smoothing_seconds": 2.0}, "at most the clip of 16000, got 32000"),
        ({"thresholds": {"unknown": 0.9}}, r"commands \['yes', 'no'\], got \['unknown'\]"),
        ({"thresholds": {"maybe": 0.9}}, r"got \['maybe'\]"),
    ],
)
def test_settings_that_do_not_fit_the_model_are_refused(change, complaint):
    with pytest.raises(ValueError, match=complaint):
        StreamDecoder(recognizer_of(hears_bursts), DecoderConfig(**change))


# ---- any chunking


@settings(max_examples=25)
@given(WORDS, CONFIGS, SIZES)
def test_any_chunking_detects_what_an_offline_decoder_detects(gaps, config, sizes):
    events, seconds = placed(gaps)
    audio = speech_of(events, seconds)
    recognizer = recognizer_of(hears_bursts)
    found = decode(StreamDecoder(recognizer, config), audio, sizes)
    assert found == decode(StreamDecoder(recognizer, config), audio, [len(audio)])
    assert_same(found, offline(recognizer, config, audio))


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(st.sampled_from([0, 0.2, 0.4, 0.6, 0.8, 0.95]), st.integers(1, 30)),
        min_size=1,
        max_size=8,
    ),
    CONFIGS,
)
def test_any_course_of_probabilities_is_decided_as_the_offline_decoder_does(plateaus, config):
    values, lengths = np.array(plateaus).T
    audio = np.repeat(values, lengths.astype(int) * STEP).astype(np.float32)
    recognizer = recognizer_of(says_its_last_sample)
    found = decode(StreamDecoder(recognizer, config), audio, [7000])
    assert_same(found, offline(recognizer, config, audio))


@settings(max_examples=15)
@given(
    WORDS,
    SIZES,
    st.sampled_from([44_100, 48_000, 8_000, 22_050]),
)
def test_any_chunking_of_stereo_int16_at_any_rate_gives_the_same_detections(gaps, sizes, rate):
    events, seconds = placed(gaps)
    mono = speech_of(events, seconds, rate)
    stereo = np.round(np.stack([1.2 * mono, 0.8 * mono], axis=1) * 32768).astype(np.int16)
    recognizer = recognizer_of(hears_bursts)
    found = decode(StreamDecoder(recognizer), stereo, sizes, rate)
    assert found == decode(StreamDecoder(recognizer), stereo, [len(stereo)], rate)
    assert_same(found, offline(recognizer, DecoderConfig(), load_audio((stereo, rate))))


def test_chunks_of_one_sample_and_of_none_are_chunks():
    audio = speech_of([(0.3, "yes")], 1.2)
    decoder = StreamDecoder(recognizer_of(hears_bursts))
    assert decoder.push(np.zeros(0, np.float32)) == decoder.push(np.zeros((0, 2), np.int16)) == []
    found = decode(decoder, audio, [1, 0])
    assert names(found) == ["yes"]
    assert found == decode(StreamDecoder(recognizer_of(hears_bursts)), audio, [len(audio)])


@pytest.mark.parametrize("rate", [16_000, 44_100, 8_000])
@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.float32, np.float64])
def test_the_windows_are_bit_for_bit_the_audio_that_load_audio_reads(rate, dtype):
    seen = []

    def look(waveforms):
        seen.extend(waveforms.copy())
        return np.tile(np.array([0, 0, 1, 0], np.float32), (len(waveforms), 1))

    wave = np.random.default_rng(1).uniform(-1, 1, (round(2.345 * rate), 3))
    if np.issubdtype(dtype, np.integer):
        wave = wave * np.iinfo(dtype).max
    audio = load_audio((wave.astype(dtype), rate))
    decoder = StreamDecoder(recognizer_of(look))
    decode(decoder, wave.astype(dtype), [777, 12_345], rate)
    padded = np.pad(audio, CLIP)
    first, *windows = seen
    assert not first.any()  # asked once when it was made
    assert len(windows) == (len(audio) + CLIP - 1) // STEP
    for k, window in enumerate(windows, 1):
        np.testing.assert_array_equal(window, padded[k * STEP :][:CLIP])
    assert decoder.seconds == len(audio) / RATE


def test_the_network_sees_one_window_at_a_time_unless_more_are_allowed():
    calls = []

    def count(waveforms):
        calls.append(len(waveforms))
        return hears_bursts(waveforms)

    audio = speech_of([(1.0, "yes"), (1.8, "yes")], 4.05)
    one = StreamDecoder(recognizer_of(count)).push(audio)
    assert calls == [1] * 41
    calls.clear()
    many = StreamDecoder(recognizer_of(count), batch_size=16).push(audio)
    assert calls == [1, 16, 16, 8]
    assert many == one
    assert names(one) == ["yes", "yes"]
    with pytest.raises(ValueError, match="batch_size=0 must be"):
        StreamDecoder(recognizer_of(count), batch_size=0)


@settings(max_examples=10)
@given(WORDS, st.lists(st.integers(1, 40_000), min_size=1, max_size=4), st.integers(1, 40))
def test_a_batch_of_any_size_gives_the_same_detections(gaps, sizes, batch_size):
    events, seconds = placed(gaps)
    audio = speech_of(events, seconds)
    recognizer = recognizer_of(hears_bursts)
    batched = StreamDecoder(recognizer, batch_size=batch_size)
    assert decode(batched, audio, sizes) == decode(StreamDecoder(recognizer), audio, [1600])


# ---- a rate that is not said


def test_a_chunk_without_a_rate_after_chunks_with_another_one_is_refused(refused):
    audio = speech_of([(0.5, "yes")], 2, 44_100)
    decoder = StreamDecoder(recognizer_of(hears_bursts))
    found = decoder.push(audio[:30_000], 44_100)
    assert "44100 Hz" in refused(AudioError, lambda: decoder.push(audio[30_000:]))
    found += decoder.push(audio[30_000:], 44_100)
    assert names(found + decoder.flush()) == ["yes"], "the decoder is as before"
    decoder.reset()
    decoder.push(speech_of([], 0.1))
    decoder.push(speech_of([], 0.1), RATE)
    decoder.push(speech_of([], 0.1))


@pytest.mark.parametrize("size", [1600, 48_000, 1_000_000])
def test_sound_at_48_khz_that_is_pushed_without_its_rate_gets_one_warning(size):
    audio = soxr.resample(speech_of([(1.0, "yes"), (3.0, "no")], 5.0), RATE, 48_000)
    decoder = StreamDecoder(recognizer_of(hears_bursts), batch_size=64)
    with pytest.warns(SpeechWarning, match="higher rate than 16000 Hz") as told:
        list(map(decoder.push, np.split(audio, range(size, len(audio), size))))
    assert len(told) == 1


def test_sound_at_the_models_rate_gets_none():
    decode(StreamDecoder(recognizer_of(hears_bursts)), speech_of([(1.0, "yes")], 5.0), [800])
    decoder = StreamDecoder(recognizer_of(hears_bursts))
    decoder.push(speech_of([(1.0, "yes")], 5.0))
    decoder.push(np.zeros(5 * RATE, np.int16))


# ---- what can happen to a stream


def test_a_change_of_rate_or_channels_in_the_middle_of_a_word_loses_nothing():
    parts = [(0.0, 1.1, 44_100), (1.1, 2.1, 16_000), (2.1, 3.2, 48_000), (3.2, 5.0, 16_000)]
    events = [(1.0, "yes"), (2.0, "no"), (3.1, "yes")]
    decoder = StreamDecoder(recognizer_of(hears_bursts))
    found = []
    for turn, (begin, end, rate) in enumerate(parts):
        part = speech_of(events, 5, rate)[round(begin * rate) : round(end * rate)]
        for i in range(0, len(part), 1000):
            chunk = part[i : i + 1000]
            found += decoder.push(np.stack([chunk] * (turn + 1), axis=1), rate)
    found += decoder.flush()
    assert names(found) == ["yes", "no", "yes"]
    assert decoder.seconds == pytest.approx(5.0, abs=3 / RATE)
    steady = decode(StreamDecoder(recognizer_of(hears_bursts)), speech_of(events, 5), [1600])
    for one, other in zip(found, steady, strict=True):
        assert one.time == pytest.approx(other.time, abs=0.101)


def test_the_number_of_channels_may_alternate_without_any_effect():
    mono = speech_of([(0.5, "yes")], 2)
    decoder = StreamDecoder(recognizer_of(hears_bursts))
    alternating = []
    for turn, chunk in enumerate(np.split(mono, 20)):
        alternating += decoder.push(np.stack([chunk] * (1 + turn % 2), axis=1))
    assert alternating == StreamDecoder(recognizer_of(hears_bursts)).push(mono)
    assert names(alternating) == ["yes"]


@pytest.mark.parametrize(
    ("bad", "rate"),
    [
        (np.array([0.1, np.nan], np.float32), 44_100),
        (np.array([np.inf, 0.1]), 44_100),
        (np.zeros((2, 2, 2), np.float32), 44_100),
        (np.zeros((4, 33), np.float32), 44_100),
        (np.zeros(4, np.uint8), 44_100),
        (np.zeros(4, np.complex64), 44_100),
        (np.full(4, 1000.0), 44_100),
        (np.zeros(4, np.int16), 44_100.5),
        (np.zeros(4, np.int16), 4_000),
        (np.zeros(4, np.int16), 0),
    ],
)
def test_a_chunk_that_is_no_audio_is_left_out_and_changes_nothing(bad, rate, refused):
    stream = np.split(speech_of([(0.5, "yes"), (1.3, "yes")], 3, 44_100), 30)
    decoder, untouched = (StreamDecoder(recognizer_of(hears_bursts)) for _ in range(2))
    found, expected = [], []
    for chunk in stream:
        refused(AudioError, lambda: decoder.push(bad, rate))
        found += decoder.push(chunk, 44_100)
        expected += untouched.push(chunk, 44_100)
    assert found + decoder.flush() == expected + untouched.flush()
    assert names(found) == ["yes", "yes"]


def test_digital_silence_costs_one_call_of_the_network_and_changes_no_detection():
    calls = []

    def says_yes_to_silence(waveforms):
        calls.append(len(waveforms))
        silent = ~waveforms.any(axis=1, keepdims=True)
        return np.where(
            silent, np.array([0.95, 0, 0, 0.05], np.float32), np.array([0, 0, 1, 0], np.float32)
        )

    audio = np.zeros(8 * RATE, np.float32)
    audio[4 * RATE] = 0.1
    recognizer = recognizer_of(says_yes_to_silence)
    found = decode(StreamDecoder(recognizer), audio, [4000])
    assert sum(calls) == 1 + 10  # the click stays in ten windows
    assert found
    assert_same(found, offline(recognizer, DecoderConfig(), audio))


def test_reset_and_the_first_chunk_after_flush_begin_a_new_stream():
    audio = speech_of([(0.5, "yes")], 1.5, 44_100)
    decoder = StreamDecoder(recognizer_of(hears_bursts))
    fresh = decode(decoder, audio, [5000], 44_100)
    assert names(fresh) == ["yes"]
    assert decoder.flush() == []
    assert decoder.seconds == pytest.approx(1.5)
    assert decode(decoder, audio, [5000], 44_100) == fresh
    decoder.push(audio[:40_000], 44_100)
    decoder.reset()
    assert decoder.seconds == decoder.level == 0
    assert decoder.flush() == []
    assert decode(decoder, audio, [5000], 44_100) == fresh


def test_a_chunk_shorter_than_the_delay_of_the_resampler_is_heard_by_flush():
    decoder = StreamDecoder(recognizer_of(hears_bursts))
    decoder.push(np.zeros(441, np.int16), 44_100)
    assert decoder.seconds == 0
    decoder.flush()
    assert decoder.seconds == 0.01


def test_the_settings_come_from_the_model_unless_others_are_given():
    recognizer = recognizer_of(hears_bursts)
    assert StreamDecoder(recognizer).config == DecoderConfig()
    tuned = DecoderConfig(threshold=0.6)
    recognizer.decoder = tuned.to_dict()
    assert StreamDecoder(recognizer).config == tuned
    assert StreamDecoder(recognizer, DecoderConfig()).config == DecoderConfig()


def test_ten_minutes_take_no_more_memory_than_one(held_by_speech):
    rng = np.random.default_rng(2)
    chunk = np.round(rng.normal(0, 300, (22_050, 2))).astype(np.int16)

    def flips(waveforms):
        yes = np.float32(0.95) * (waveforms[:, -1] > 0)
        return np.stack([yes, 0 * yes, 1 - yes, 0 * yes], axis=1)

    config = DecoderConfig(smoothing_seconds=0.1, min_consecutive_windows=1, refractory_seconds=0.0)
    decoder = StreamDecoder(recognizer_of(flips), config)
    detections, held = 0, []
    for _minute in range(10):
        for _ in range(120):
            detections += len(decoder.push(chunk, 44_100))
        held.append(held_by_speech())
    assert detections > 100
    assert decoder.seconds == pytest.approx(600, abs=0.1)
    # a second of audio is 64,000 bytes; small objects of NumPy's that were kept before the tracing
    # are exchanged for traced ones in the course of some minutes
    assert max(held[1:]) < held[0] + 40_000


def test_the_clock_does_not_drift_in_hours():
    # as many samples in as an hour has, by the resampler that the decoder uses, in few calls
    stream = soxr.ResampleStream(44_100, RATE, 1, dtype="float32")
    zeros = np.zeros(44_100 * 60, np.float32)
    total = sum(len(stream.resample_chunk(zeros)) for _ in range(60))
    total += len(stream.resample_chunk(zeros[:0], last=True))
    assert total == 3600 * RATE
