"""Every way to an answer against the committed one, for both example recordings.

Tolerances: a probability may differ by 1e-3 (rounding of another format, or of another processor),
labels and times may not differ at all.
"""

import json

import numpy as np
import pytest

import speech
from speech.files import sha256
from speech.recognizer import Recognizer
from tests import exports
from tests.golden.make_answers import ANSWERS, EXAMPLES, MODEL

TOLERANCE = 1e-3
GOLDEN = json.loads(ANSWERS.read_text("utf-8"))
RECORDINGS = GOLDEN["recordings"]
REMEDY = "another model is bundled: python tests/golden/make_answers.py"


@pytest.fixture(
    scope="module", params=["onnx", "keras", pytest.param("tflite", marks=pytest.mark.slow)]
)
def recognizer(request, tmp_path_factory) -> Recognizer:
    """The bundled model in each of its formats."""
    if request.param == "onnx":
        return speech.load(MODEL)
    keras_file = MODEL.with_name("model.keras")
    if request.param == "keras":
        return speech.load(keras_file)
    from speech.model import load_model

    folder = tmp_path_factory.mktemp("litert")
    return speech.load(exports.write_described(load_model(keras_file), folder / "model.tflite"))


def assert_golden(found: dict[str, float], name: str) -> None:
    expected = RECORDINGS[name]["probabilities"]
    assert list(found) == list(expected)
    assert max(found, key=found.__getitem__) == max(expected, key=expected.__getitem__)
    np.testing.assert_allclose(list(found.values()), list(expected.values()), atol=TOLERANCE)


def assert_golden_detections(found: list[speech.Detection], name: str) -> None:
    expected = RECORDINGS[name]["detections"]
    assert [[d.label, d.start, d.time] for d in found] == [row[:3] for row in expected]
    np.testing.assert_allclose(
        [d.probability for d in found], [row[3] for row in expected], atol=TOLERANCE
    )


def test_the_answers_are_of_the_model_that_is_bundled() -> None:
    assert GOLDEN["model_sha256"] == sha256(MODEL), REMEDY
    assert sorted(RECORDINGS) == sorted(path.name for path in EXAMPLES.iterdir()), REMEDY


@pytest.mark.parametrize("name", RECORDINGS)
def test_a_file_and_an_array_have_the_golden_answer(recognizer, name) -> None:
    path = EXAMPLES / name
    rate = recognizer.features.sample_rate
    samples = speech.load_audio(path, rate)
    integers = np.round(samples * 32_768).astype(np.int16)
    for source in (path, path.read_bytes(), (samples, rate), (integers, rate)):
        assert_golden(recognizer.recognize(source).probabilities, name)


@pytest.mark.parametrize("name", RECORDINGS)
def test_a_file_and_a_stream_in_chunks_have_the_golden_detections(recognizer, name) -> None:
    path = EXAMPLES / name
    rate = recognizer.features.sample_rate
    assert_golden_detections(list(speech.scan(path, recognizer)), name)
    samples = speech.load_audio(path, rate)
    decoder = speech.StreamDecoder(recognizer)
    found = [
        detection
        for start in range(0, len(samples), 701)
        for detection in decoder.push(samples[start : start + 701], rate)
    ]
    assert_golden_detections(found + decoder.flush(), name)
