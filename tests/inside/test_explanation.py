"""What is shown of a clip: the packed answer, and what can be explained and what cannot."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import speech
from speech.errors import AudioError, ModelError, SpeechWarning
from speech.features import FeatureConfig, mfcc
from speech.formats.weights import FrontEnd, Network
from speech.inside.explanation import explain, open_model, read_clip, rows_at_once, unfold
from speech.inside.packing import pack, unpack
from speech.inside.trace import trace
from speech.model import Architecture
from tests import exports
from tests.golden.make_inside import GOLDEN, REMEDY, summary
from tests.test_docs import CLIP

SHIPPED = Path(__file__).parents[2] / "saved_models" / "commands-8"
NAMES = ("input_gate", "forget_gate", "candidate", "output_gate", "cell", "hidden")


@pytest.fixture(scope="module")
def model():
    return open_model()


@pytest.fixture(scope="module")
def left(model):
    return explain(model, read_clip(CLIP, model, on_note=lambda note: None))


def test_the_answer_is_that_of_the_recognizer(left):
    expected = speech.load().recognize(CLIP)
    header = left.header()
    assert header["answer"] == expected.label
    assert header["probability"] == pytest.approx(expected.probability, abs=1e-4)


@pytest.mark.parametrize("bits", [8, 16])
def test_unpacked_is_what_was_packed_but_for_rounding(left, bits):
    header, arrays = unpack(pack(left, bits))
    expected = left.arrays()
    assert list(arrays) == list(expected)
    assert header["labels"] == list(left.model.config.labels)
    for name, array in expected.items():
        assert arrays[name].shape == array.shape
        step = float(np.ptp(array.astype(float))) / (2**bits - 1)
        tolerance = 0 if name.endswith("order") else step / 2 + 1e-5
        np.testing.assert_allclose(arrays[name], array, atol=tolerance, rtol=0, err_msg=name)


def test_the_packed_numbers_of_every_unit_satisfy_the_equations_of_the_cell(left):
    header, arrays = unpack(pack(left))
    for number, layer in enumerate(header["layers"]):
        for direction in layer["directions"]:
            way = 1 if direction == "forward" else -1
            i, f, g, o, c, h = (arrays[f"layer.{number}.{direction}.{n}"][::way] for n in NAMES)
            before = np.concatenate([np.zeros_like(c[:1]), c[:-1]])
            np.testing.assert_allclose(f * before + i * g, c, atol=1e-3)
            np.testing.assert_allclose(o * np.tanh(c), h, atol=1e-3)
            order = arrays[f"layer.{number}.{direction}.order"]
            assert sorted(order) == list(range(layer["units"]))
            strength = np.abs(h[::way][:, order])
            middles = (strength * np.arange(len(h))[:, None]).sum(axis=0) / strength.sum(axis=0)
            assert (np.diff(middles) > -0.01).all()


def test_a_reader_that_knows_only_the_documented_layout_gets_the_numbers(left):
    content = pack(left)
    length = int.from_bytes(content[4:8], "little")
    header = json.loads(content[8 : 8 + length])
    entry = header["arrays"]["layer.1.backward.cell"]
    start = 8 + length + entry["offset"]
    assert start % 4 == 0
    whole = np.frombuffer(content[start : start + 2 * 25 * 128], "<u2").reshape(entry["shape"])
    values = entry["low"] + (entry["high"] - entry["low"]) * whole / 65535
    np.testing.assert_allclose(values, left.trace.lstm_layers[1][1].cell, atol=1e-3)


def test_the_picture_of_a_clip_has_the_golden_data(left):
    golden = json.loads(GOLDEN.read_text("utf-8"))
    found = summary(left)
    assert found["header"] == pytest.approx(golden["header"], abs=1e-3), REMEDY
    assert found["arrays"].keys() == golden["arrays"].keys(), REMEDY
    for name, row in found["arrays"].items():
        assert row == pytest.approx(golden["arrays"][name], abs=2e-2), (name, REMEDY)


def test_the_clip_unfolds_from_silence_to_its_answer(model, left):
    rows = left.unfolding
    np.testing.assert_allclose(rows.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(rows[-1], left.trace.probabilities, atol=1e-5)
    half = left.mfcc.copy()
    half[52:] = model.front.offset  # 13 of 25 steps: 98 * 13 / 25 frames, rounded up from 50.96
    half[51:] = model.front.offset
    np.testing.assert_allclose(rows[12], trace(model.network, half).probabilities, atol=1e-5)


def test_a_model_of_any_shape_is_explained(tmp_path):
    for index, architecture in enumerate(
        (Architecture((), 1, 8, pooling="mean"), Architecture((8,), 3, 8, bidirectional=False))
    ):
        made = exports.model(architecture)
        model = open_model(exports.folder(tmp_path / str(index), made))
        rng = np.random.default_rng(1)
        clip = rng.uniform(-0.1, 0.1, model.config.features.n_samples).astype(np.float32)
        header, arrays = unpack(pack(explain(model, clip)))
        assert len(header["layers"]) == architecture.lstm_layers
        recognizer = speech.load(tmp_path / str(index))
        expected = recognizer.probabilities(clip[np.newaxis])[0]
        np.testing.assert_allclose(arrays["probabilities"][-1], expected, atol=1e-4)


def test_a_keras_file_is_explained_as_its_export(model):
    trained = open_model(SHIPPED / "model.keras")
    for one, other in zip(trained.network.lstm_layers, model.network.lstm_layers, strict=True):
        np.testing.assert_array_equal(one[0][0], other[0][0])
    np.testing.assert_array_equal(trained.front.dct, model.front.dct)


def refusal(kind: type[Exception], call) -> str:
    with pytest.raises(kind) as caught:
        call()
    text = str(caught.value)
    assert "expected" in text
    assert "got" in text
    assert "\n" not in text
    return text


def test_what_has_no_lstm_of_ours_inside_is_refused_in_a_line_that_says_what_can_be(tmp_path):
    made = exports.model()
    foreign = tmp_path / "foreign.onnx"
    exports.write(made, foreign)  # without this project's metadata
    files = {
        foreign: "without this project's metadata",
        exports.write_described(made, tmp_path / "int8.onnx", precision="int8"): "int8",
        CLIP: "left.wav",
        tmp_path / "nobody.onnx": "not found",
        tmp_path / "nobody.keras": "nobody.keras",
    }
    litert = tmp_path / "model.tflite"
    litert.write_bytes(b"TFL3")
    files[litert] = "model.tflite"
    for file, why in files.items():
        text = refusal(ModelError, lambda file=file: open_model(file))
        assert why in text
        assert "can be explained" in text


def test_weights_that_do_not_fit_are_refused_although_the_file_is_whole(tmp_path, monkeypatch):
    made = exports.model()
    network = Network.from_model(made)
    kernel, bias = network.classifier
    (layer,) = network.lstm_layers
    (first, *others) = layer
    damaged = {
        "labels": dataclasses.replace(network, classifier=(kernel[:, :2], bias[:2])),
        "finite": dataclasses.replace(network, classifier=(kernel * np.nan, bias)),
        "directions": dataclasses.replace(network, lstm_layers=((first[1:] + first[:1], *others),)),
    }
    metadata = exports.described(made)
    front = FrontEnd.from_features(made.features)
    for name, wrong in damaged.items():
        monkeypatch.setattr(
            "speech.inside.explanation.read_onnx", lambda file, w=wrong: (metadata, front, w)
        )
        text = refusal(ModelError, lambda name=name: open_model(tmp_path / f"{name}.onnx"))
        assert "that fit one another" in text


def test_a_long_clip_of_a_large_network_is_explained_in_parts_of_the_memory(tmp_path):
    features = FeatureConfig(clip_seconds=4.0, n_mels=40, n_mfcc=13)
    made = exports.model(Architecture((), 1, 4), features)
    model = open_model(exports.folder(tmp_path, made))
    clip = np.random.default_rng(1).uniform(-0.1, 0.1, features.n_samples).astype(np.float32)
    assert explain(model, clip).unfolding is None  # 398 steps, each of which would ask again
    assert rows_at_once(features.n_frames) == 10
    short = mfcc(clip[:16_000], features)
    together = trace(model.network, np.stack([short, short])).probabilities
    np.testing.assert_allclose(unfold(model, short)[-1], together[0], atol=1e-5)


def test_an_export_of_another_model_than_the_one_beside_it_is_refused(tmp_path):
    made = exports.folder(tmp_path / "mine", exports.model())
    shutil.copy(SHIPPED / "model.keras", made / "model.keras")
    assert "another one" in refusal(ModelError, lambda: open_model(made))


def test_a_clip_that_cannot_be_explained_is_refused_in_a_line(model, tmp_path):
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, 61 * 16_000).astype(np.float32)
    short = refusal(AudioError, lambda: read_clip((noise[:479], 16_000), model))
    assert "0.03 s" in short
    assert "60 s" in refusal(AudioError, lambda: read_clip((noise, 16_000), model))
    refusal(AudioError, lambda: read_clip(b"no sound", model))
    refusal(AudioError, lambda: explain(model, noise[:8_000]))
    with pytest.warns(SpeechWarning, match=r"lasts 2 s, .+ loudest part is explained"):
        assert read_clip((noise[:32_000], 16_000), model).shape == (16_000,)
    assert read_clip((noise[:480], 16_000), model).shape == (16_000,)


def test_another_layout_is_not_unpacked(left):
    content = pack(left)
    for other in (b"RIFF" + content[4:], content.replace(b'"format": 1', b'"format": 9')):
        with pytest.raises(ValueError, match=r"expected .+ got"):
            unpack(other)
