"""A causal model answers the same, however its stream is cut, in Keras, ONNX and LiteRT."""

import dataclasses
from pathlib import Path

import keras
import numpy as np
import pytest

from speech.architecture import Causality
from speech.audio import load_audio
from speech.cluster.scan import Job
from speech.cluster.scan import scan as scan_on_ray
from speech.detection import DecoderConfig
from speech.errors import ModelError
from speech.features import mfcc
from speech.formats.export import synthetic_clips
from speech.formats.from_onnx import read_onnx
from speech.inside.explanation import open_model as open_inside
from speech.live.microphone import Block
from speech.live.session import Event, Session
from speech.model import Architecture, CommandModel, save_model
from speech.recognizer import Recognizer, load
from speech.stream import StreamDecoder, classifier_for
from speech.web.export import export_page
from tests import exports, tiny

CAUSAL = Architecture((6, 8), 2, 10, bidirectional=False, pooling="state", causal=True)
FEATURES = tiny.FEATURES
STEP = 4 * FEATURES.hop_length
EXAMPLE = Path(__file__).parents[2] / "speech/web/static/examples/seven_words.flac"


@pytest.fixture(scope="module")
def made() -> CommandModel:
    model = exports.model(CAUSAL)
    model.causality = Causality(4, 0.04)
    return model


@pytest.fixture(scope="module", params=["model.onnx", "model.tflite"])
def carried(made, request, tmp_path_factory) -> Recognizer:
    path = tmp_path_factory.mktemp("causal") / request.param
    return load(exports.write_described(made, path))


@pytest.fixture(scope="module")
def sound() -> np.ndarray:
    whole = load_audio(EXAMPLE, FEATURES.sample_rate)
    return whole[: len(whole) // STEP * STEP]


def steps_of(made: CommandModel, sound: np.ndarray) -> np.ndarray:
    """What Keras says at each step of a stream, by the MFCC of librosa."""
    tail = FEATURES.n_fft - FEATURES.hop_length
    frames = mfcc(np.pad(sound, (tail, 0))[np.newaxis], FEATURES)
    return np.asarray(keras.ops.softmax(made.steps(frames) / made.temperature))[0]


def test_any_division_of_a_stream_gives_the_answers_of_keras(made, carried, sound):
    expected = steps_of(made, sound)
    assert expected.max() - expected.min() > 0.2, "a network that says something"
    for sizes in ([len(sound) // STEP], [1] * 7 + [3, 40, 10_000], [17] * 1000):
        state, rows, at = carried.begin(), [], 0
        for size in sizes:
            part = sound[at : at + size * STEP]
            if len(part):
                answers, state = carried.advance(part, state)
                rows.append(answers)
            at += size * STEP
        np.testing.assert_allclose(np.concatenate(rows), expected, atol=1e-5)


def test_a_live_stream_in_chunks_of_any_size_is_the_stream_in_one_piece(made, carried, sound):
    sound = sound[: 60 * STEP]
    expected = steps_of(made, sound)
    step_seconds = STEP / FEATURES.sample_rate
    for size in (1, 799, STEP, 5000):
        windows = classifier_for(carried, step_seconds, batch_size=3)
        rows = [windows.push(sound[i : i + size]) for i in range(0, len(sound), size)]
        np.testing.assert_allclose(np.concatenate(rows), expected, atol=1e-5)
        assert len(windows.flush()) == (FEATURES.n_samples - 1) // STEP
    every_other = classifier_for(carried, 2 * step_seconds, batch_size=3)
    np.testing.assert_allclose(every_other.push(sound), expected[1::2], atol=1e-5)


def test_any_division_of_a_clip_gives_the_answers_of_keras(made, carried, sound):
    spoken = sound[: len(sound) // FEATURES.n_samples * FEATURES.n_samples]
    clips = np.concatenate([spoken.reshape(-1, FEATURES.n_samples), synthetic_clips(FEATURES, 12)])
    rng = np.random.default_rng(3)
    ahead = round(0.04 * FEATURES.sample_rate)
    for clip in clips:
        padded = np.pad(clip, (-(len(clip) + ahead) % STEP, ahead))
        cuts = np.sort(rng.integers(0, len(padded), rng.integers(1, 30)))
        windows = classifier_for(
            carried, STEP / FEATURES.sample_rate, batch_size=int(rng.integers(1, 9))
        )
        rows = np.concatenate([windows.push(part) for part in np.split(padded, cuts)])
        np.testing.assert_allclose(rows, steps_of(made, padded), atol=1e-5)
        np.testing.assert_allclose(rows[-1], carried.probabilities(clip[np.newaxis])[0], atol=1e-5)


@pytest.mark.parametrize("name", ["model-int8.onnx", "model-int8.tflite"])
def test_in_eight_bits_the_state_is_carried_alike_and_the_answers_stay_near(sound, name, tmp_path):
    # matrices of fewer than 1,024 numbers stay in float in LiteRT
    wide = exports.model(dataclasses.replace(CAUSAL, conv_filters=(16, 24), lstm_units=48))
    small = load(exports.write_described(wide, tmp_path / name, precision="int8"))
    assert small.file == f"{name} (int8)"
    expected = steps_of(wide, sound)
    divided = []
    for size in (STEP, 17 * STEP, len(sound)):
        state, rows = small.begin(), []
        for first in range(0, len(sound), size):
            answers, state = small.advance(sound[first : first + size], state)
            rows.append(answers)
        divided.append(np.concatenate(rows))
        np.testing.assert_allclose(divided[-1], divided[0], atol=1e-5)
    forgotten = np.concatenate(
        [small.advance(sound[i : i + STEP], small.begin())[0] for i in range(0, len(sound), STEP)]
    )
    off, off_without_state = (np.abs(rows - expected).max() for rows in (divided[0], forgotten))
    assert 1e-5 < off < 0.05, "in eight bits, and near"
    assert off_without_state > 5 * off
    assert np.mean(divided[0].argmax(axis=1) == expected.argmax(axis=1)) > 0.97


def test_ten_streams_of_minutes_hold_no_more_memory_than_of_one(carried, sound, held_by_speech):
    step = STEP / FEATURES.sample_rate
    config = DecoderConfig(step_seconds=step, smoothing_seconds=3 * step)
    decoders = [StreamDecoder(carried, config, batch_size=25) for _ in range(10)]
    minute = np.resize(sound, 60 * FEATURES.sample_rate)
    held = []
    for _minute in range(3):
        for shift, decoder in enumerate(decoders):
            for piece in np.array_split(np.roll(minute, 1000 * shift), 20):
                decoder.push(piece, FEATURES.sample_rate)
        held.append(held_by_speech())
    assert all(decoder.seconds == pytest.approx(180) for decoder in decoders)
    # a second of one of them is 64,000 bytes; small objects of NumPy's come and go
    assert max(held[1:]) < held[0] + 40_000


def test_a_clip_is_answered_behind_its_look_ahead_and_its_mfcc_are_those_of_librosa(made, carried):
    clips = synthetic_clips(FEATURES, 12)
    ahead = round(0.04 * FEATURES.sample_rate)
    for clip, answer in zip(clips, carried.probabilities(clips), strict=True):
        before = -(len(clip) + ahead) % STEP
        np.testing.assert_allclose(
            steps_of(made, np.pad(clip, (before, ahead)))[-1], answer, atol=1e-4
        )
    np.testing.assert_allclose(carried.mfcc(clips), mfcc(clips, FEATURES), atol=1e-2)


def test_ten_streams_of_one_model_do_not_mix(made, carried, sound):
    streams = [np.roll(sound, 1000 * k)[: 12 * STEP] for k in range(10)]
    states = [carried.begin() for _ in streams]
    rows: list[list[np.ndarray]] = [[] for _ in streams]
    for first in range(0, 12 * STEP, 3 * STEP):
        for k, stream in enumerate(streams):
            answers, states[k] = carried.advance(stream[first : first + 3 * STEP], states[k])
            rows[k].append(answers)
    for stream, answers in zip(streams, rows, strict=True):
        np.testing.assert_allclose(np.concatenate(answers), steps_of(made, stream), atol=1e-5)


def test_a_state_that_does_not_fit_is_refused_in_one_line(carried):
    silence, state = np.zeros(STEP, np.float32), carried.begin()
    foreign = dataclasses.replace(state, model="0" * 64)
    with pytest.raises(ModelError, match="a state of this model, got one of another; begin"):
        carried.advance(silence, foreign)
    first, *_ = sorted(state.arrays)
    for array, sentence in (
        (np.zeros((1, 3), np.float32), "a state of the shapes .* got"),
        (np.full_like(state.arrays[first], np.nan), "a state of finite numbers, got NaN"),
    ):
        changed = dataclasses.replace(state, arrays={**state.arrays, first: array})
        with pytest.raises(ModelError, match=sentence) as error:
            carried.advance(silence, changed)
        assert "\n" not in str(error.value)
    with pytest.raises(ModelError, match=f"whole number of steps of {STEP} samples, got 5"):
        carried.advance(silence[:5], state)


def test_what_is_given_clips_or_is_no_export_carries_no_state(made, tmp_path):
    with pytest.raises(ModelError, match="a causal model that was exported, got one that is"):
        load("commands-8").begin()
    save_model(made, tmp_path / "model.keras")
    trained = load(tmp_path / "model.keras")
    assert trained.causality == made.causality
    with pytest.raises(ModelError, match=r"make model.onnx with: speech export"):
        classifier_for(trained, STEP / FEATURES.sample_rate)


def test_a_decoder_takes_the_step_of_a_causal_model_and_no_other(carried):
    step = STEP / FEATURES.sample_rate
    config = DecoderConfig(step_seconds=step, smoothing_seconds=3 * step)
    assert StreamDecoder(carried, config).push(np.zeros(4 * STEP, np.float32)) == []
    with pytest.raises(ValueError, match=r"whole number of the model's steps of 0.08 s"):
        StreamDecoder(carried, DecoderConfig(step_seconds=0.1))


def test_a_gap_in_the_stream_begins_the_model_anew_and_says_so(carried):
    step = STEP / FEATURES.sample_rate
    config = DecoderConfig(step_seconds=step, smoothing_seconds=step)
    session = Session(StreamDecoder(carried, config))
    noise = np.random.default_rng(0).integers(-9000, 9000, (4 * STEP, 1), np.int16)
    list(session.push(Block(noise, FEATURES.sample_rate)))
    items = list(session.push(Block(noise, FEATURES.sample_rate, dropped=2)))
    [event] = [item for item in items if isinstance(item, Event)]
    assert event.message.endswith("; the model begins anew behind the gap")
    alone = StreamDecoder(carried, config)
    alone.push(noise, FEATURES.sample_rate)
    np.testing.assert_allclose(session._decoder.probabilities, alone.probabilities, atol=1e-6)


def test_a_change_of_rate_in_the_middle_goes_on_from_the_state(carried, sound):
    step = STEP / FEATURES.sample_rate
    config = DecoderConfig(step_seconds=step, smoothing_seconds=step)
    decoder = StreamDecoder(carried, config)
    decoder.push(sound[: 20 * STEP], 16_000)
    decoder.push(np.repeat(sound[20 * STEP : 30 * STEP], 2), 32_000)
    decoder.flush()
    assert decoder.seconds == pytest.approx(30 * step, abs=0.01)


def test_what_needs_whole_clips_refuses_a_causal_model_in_one_sentence(made, tmp_path):
    (tmp_path / "causal").mkdir()
    folder = exports.folder(tmp_path / "causal", made)
    sentence = "expected a model that is given whole clips, such as commands-8, got a causal one"
    for refuse in (
        lambda: read_onnx(folder / "model.onnx"),  # what `teach` begins with
        lambda: open_inside(folder),
        lambda: open_inside(folder / "model.keras"),
        lambda: export_page(folder, tmp_path / "page"),
        lambda: scan_on_ray(Job((str(EXAMPLE),), folder, str(tmp_path / "tables")), "local"),
    ):
        with pytest.raises(ModelError, match=sentence):
            refuse()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["causal"], "nothing was written"
