"""The weights in an exported file, read back, and the vector that the classifier reads."""

import dataclasses

import keras
import numpy as np
import pytest

from speech.errors import ModelError
from speech.features import FeatureConfig, mfcc
from speech.formats.backends import open_model
from speech.formats.export import synthetic_clips
from speech.formats.from_onnx import read_onnx
from speech.formats.metadata import attach
from speech.formats.to_onnx import write_onnx
from speech.formats.weights import FrontEnd, Network
from speech.model import Architecture
from speech.recognizer import load
from tests import exports

SHAPES = {
    "two convolutions and two layers": Architecture((8, 12), 2, 8),
    "neither convolution nor attention": Architecture((), 1, 8, pooling="mean"),
    "one direction": Architecture((8,), 2, 8, bidirectional=False),
}


def arrays(weights) -> list[np.ndarray]:
    """All arrays of a dataclass or of nested tuples, in their order."""
    if isinstance(weights, np.ndarray) or weights is None:
        return [] if weights is None else [weights]
    if dataclasses.is_dataclass(weights):
        weights = [getattr(weights, field.name) for field in dataclasses.fields(weights)]
    return [array for part in weights for array in arrays(part)]


@pytest.mark.parametrize("architecture", SHAPES.values(), ids=SHAPES)
def test_the_weights_come_back_bit_for_bit_and_make_the_same_file(architecture, tmp_path):
    model = exports.model(architecture, FeatureConfig(clip_seconds=0.5))
    path = exports.write_described(model, tmp_path / "model.onnx")
    metadata, front, network = read_onnx(path)
    for found, expected in (
        (front, FrontEnd.from_features(model.features)),
        (network, Network.from_model(model)),
    ):
        for one, other in zip(arrays(found), arrays(expected), strict=True):
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)
    again = tmp_path / "again.onnx"
    write_onnx(front, network, metadata.features, again, "float32")
    assert attach(again.read_bytes(), metadata, ".onnx") == path.read_bytes()


@pytest.mark.parametrize("architecture", SHAPES.values(), ids=SHAPES)
def test_the_embedding_is_what_keras_gives_to_its_classifier(architecture, tmp_path):
    model = exports.model(architecture)
    clips = synthetic_clips(model.features, 20)
    recognizer = load(exports.write_described(model, tmp_path / "model.onnx"))
    embedding = recognizer.embed(clips)
    assert embedding.dtype == np.float32
    logits = keras.ops.convert_to_numpy(model.classifier(embedding)) / model.temperature
    np.testing.assert_allclose(
        np.asarray(keras.ops.softmax(logits)), recognizer.probabilities(clips), atol=1e-5
    )
    np.testing.assert_allclose(
        logits, model.predict_on_batch(mfcc(clips, model.features)) / model.temperature, atol=1e-2
    )


def test_embedding_no_clips_gives_no_rows_and_other_formats_say_that_they_have_none(
    tmp_path, refused
):
    model = exports.model()
    recognizer = load(exports.write_described(model, tmp_path / "model.onnx"))
    assert recognizer.embed(np.zeros((0, model.features.n_samples), np.float32)).shape == (0, 16)
    other = load(exports.write_described(model, tmp_path / "model.tflite"))
    clip = np.zeros((1, model.features.n_samples), np.float32)
    assert "got model.tflite" in refused(ModelError, lambda: other.embed(clip))


def test_files_without_names_or_in_eight_bits_are_refused_in_a_sentence(tmp_path, refused):
    model = exports.model()
    small = exports.write_described(model, tmp_path / "small.onnx", precision="int8")
    assert "int8" in refused(ModelError, lambda: read_onnx(small))
    litert = exports.write_described(model, tmp_path / "model.tflite")
    assert ".tflite" in refused(ModelError, lambda: read_onnx(litert))
    whole = exports.write_described(model, tmp_path / "model.onnx")
    metadata, front, network = read_onnx(whole)
    old = tmp_path / "old.onnx"
    write_onnx(front, network, metadata.features, old, "float32")
    renamed = old.read_bytes().replace(b"classifier.bias", b"constant_number")
    old.write_bytes(attach(renamed, metadata, ".onnx"))
    assert "classifier.bias" in refused(ModelError, lambda: read_onnx(old))
    assert open_model(old).embed is not None
