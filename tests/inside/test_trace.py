"""The trace against Keras, tensor by tensor, and against the exported file."""

import functools
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import speech
from speech.audio import fit_length, load_audio
from speech.features import FeatureConfig, mfcc
from speech.formats.export import synthetic_clips
from speech.formats.weights import FrontEnd, Network
from speech.inside.trace import (
    DIRECTIONS,
    Ablation,
    decibels,
    log_mel,
    softmax,
    step_times,
    trace,
)
from speech.model import Architecture, CommandModel, load_model
from tests import exports, tiny

SHIPPED = Path(__file__).parents[2] / "saved_models" / "commands-8"
SHAPES = {
    "no convolution": Architecture((), 1, 8),
    "an odd number of steps": Architecture((8, 8, 8), 1, 8),
    "two layers": Architecture((8,), 2, 8),
    "one direction": Architecture((8,), 2, 8, bidirectional=False),
    "the mean": Architecture((8,), 1, 8, pooling="mean"),
}


class TracingCell(keras.layers.LSTMCell):  # type: ignore[misc]
    """Keras's own cell, which gives out what its two functions gave while it computed a step."""

    def call(self, inputs, states, training=False):
        functions = [getattr(self, name) for name in ("recurrent_activation", "activation")]
        given: tuple[list[Any], list[Any]] = ([], [])

        def recorded(number: int, z: Any) -> Any:
            given[number].append(functions[number](z))
            return given[number][-1]

        self.recurrent_activation = functools.partial(recorded, 0)
        self.activation = functools.partial(recorded, 1)
        try:
            hidden, (_, cell) = super().call(inputs, states, training)
        finally:
            self.recurrent_activation, self.activation = functions
        (i, f, o), (g, _) = given
        return keras.ops.concatenate([i, f, g, o, cell, hidden], axis=-1), [hidden, cell]


def keras_tensors(model: CommandModel, x: np.ndarray) -> dict[str, np.ndarray]:
    """What Keras computes of the same MFCC, named as in a trace."""
    convert = keras.ops.convert_to_numpy
    states = model.normalization(x)
    found = {"normalized": convert(states)}
    for layer in model.conv_blocks:
        states = layer(states)
        if "relu" in layer.name:
            found[f"convolution {layer.name[-1]}"] = convert(states)
    for index, layer in enumerate(model.lstm_layers):
        both = hasattr(layer, "forward_layer")
        parts = (layer.forward_layer, layer.backward_layer) if both else (layer,)
        for name, part in zip(DIRECTIONS, parts, strict=False):
            cell = TracingCell(part.units)
            rnn = keras.layers.RNN(cell, return_sequences=True, go_backwards=name == "backward")
            rnn.build(states.shape)
            rnn.set_weights(part.get_weights())
            steps = convert(rnn(states))
            found[f"layer {index} {name}"] = steps[:, ::-1] if name == "backward" else steps
        states = layer(states)
        found[f"layer {index}"] = convert(states)
    if model.pooling is not None:
        found["attention"] = convert(model.pooling.weights_over_time(states))[..., 0]
    found["pooled"] = convert(model.embed(x))
    found["logits"] = convert(model(x)) / model.temperature
    return found


def traced_tensors(model: CommandModel, x: np.ndarray) -> dict[str, np.ndarray]:
    seen = trace(Network.from_model(model), x)
    found = {name: getattr(seen, name) for name in ("normalized", "attention", "pooled", "logits")}
    found |= {f"convolution {i}": array for i, array in enumerate(seen.convolutions)}
    for index, layer in enumerate(seen.lstm_layers):
        for name, c in zip(DIRECTIONS, layer, strict=False):
            parts = [c.input_gate, c.forget_gate, c.candidate, c.output_gate, c.cell, c.hidden]
            found[f"layer {index} {name}"] = np.concatenate(parts, axis=-1)
        found[f"layer {index}"] = np.concatenate([c.hidden for c in layer], axis=-1)
    return found


def assert_keras_agrees(model: CommandModel, x: np.ndarray) -> None:
    expected, found = keras_tensors(model, x), traced_tensors(model, x)
    assert expected.keys() <= found.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], tensor, atol=1e-4, rtol=0, err_msg=name)


@pytest.fixture(scope="module")
def shipped() -> CommandModel:
    return load_model(SHIPPED / "model.keras")


@pytest.fixture(scope="module")
def real_clips(speech_commands) -> np.ndarray:
    """Two hundred clips of validation speakers, every word of the corpus among them."""
    names = (speech_commands / "validation_list.txt").read_text("utf-8").split()
    chosen = names[:: len(names) // 200][:200]
    clips = [fit_length(load_audio(speech_commands / name), 16_000) for name in chosen]
    return np.stack(clips)


def test_every_tensor_of_the_shipped_model_is_that_of_keras_on_real_clips(shipped, real_clips):
    assert len(real_clips) == 200
    assert_keras_agrees(shipped, mfcc(real_clips, shipped.features))


@pytest.mark.parametrize("architecture", SHAPES.values(), ids=SHAPES)
def test_every_tensor_is_that_of_keras_whatever_the_shape_of_the_network(architecture):
    model = exports.model(architecture)
    assert_keras_agrees(model, mfcc(synthetic_clips(model.features, 5), model.features))


def assert_the_file_agrees(model: CommandModel, clips: np.ndarray) -> None:
    """Logits are known from probabilities but for a number that is the same for all classes."""
    recognizer = speech.load(SHIPPED / "model.onnx")
    logits = trace(Network.from_model(model), recognizer.mfcc(clips)).logits
    expected = np.log(recognizer.probabilities(clips))
    for scores in (logits, expected):
        scores -= scores.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(logits, expected, atol=1e-4, rtol=0)


def test_the_logits_are_those_of_the_exported_file_on_real_clips(shipped, real_clips):
    assert_the_file_agrees(shipped, real_clips)


def test_the_logits_are_those_of_the_exported_file(shipped):
    assert_the_file_agrees(shipped, synthetic_clips(shipped.features, 5))


def test_a_clip_alone_is_traced_as_in_a_batch():
    model = exports.model(Architecture((8,), 2, 8))
    network = Network.from_model(model)
    x = mfcc(synthetic_clips(model.features, 3), model.features)
    batch, alone = trace(network, x), trace(network, x[1])
    assert alone.logits.ndim == 1
    np.testing.assert_allclose(alone.logits, batch.logits[1], atol=1e-5)
    for one, other in zip(alone.lstm_layers, batch.clip(1).lstm_layers, strict=True):
        np.testing.assert_allclose(one[1].cell, other[1].cell, atol=1e-5)


def test_the_numbers_of_a_cell_satisfy_its_equations():
    model = exports.model(Architecture((8,), 1, 8))
    x = mfcc(synthetic_clips(model.features, 3), model.features)[2]
    forward, backward = trace(Network.from_model(model), x).lstm_layers[0]
    for cells, way in ((forward, 1), (backward, -1)):
        c, before = cells.cell[::way], np.zeros_like(cells.cell)
        before[1:] = c[:-1]
        written = (cells.input_gate * cells.candidate)[::way]
        np.testing.assert_allclose(c, cells.forget_gate[::way] * before + written, atol=1e-6)
        np.testing.assert_allclose(cells.hidden, cells.output_gate * np.tanh(cells.cell), atol=1e-6)


def test_a_part_that_is_switched_off_does_nothing_more():
    model = exports.model(Architecture((8,), 2, 8))
    network = Network.from_model(model)
    x = mfcc(synthetic_clips(model.features, 2), model.features)
    forgetful = trace(network, x, Ablation(forget_gate=0.0)).lstm_layers
    for cells in (cells for layer in forgetful for cells in layer):
        np.testing.assert_allclose(cells.cell, cells.input_gate * cells.candidate, atol=1e-6)
    one_way = trace(network, x, Ablation(direction="backward", layers=(1,))).lstm_layers
    whole = trace(network, x).lstm_layers
    np.testing.assert_array_equal(one_way[0][1].hidden, whole[0][1].hidden)
    assert not one_way[1][1].hidden.any()
    np.testing.assert_array_equal(one_way[1][0].hidden, whole[1][0].hidden)
    mean = trace(network, x, Ablation(attention=False))
    np.testing.assert_allclose(
        mean.pooled, np.concatenate([c.hidden for c in whole[1]], axis=-1).mean(axis=1), atol=1e-6
    )


FRONT_ENDS = {
    "the default": FeatureConfig(),
    "window and hop that share 80 samples": FeatureConfig(window_seconds=0.025),
    "8 kHz": FeatureConfig(
        sample_rate=8_000, window_seconds=0.064, hop_seconds=0.016, fmax=4_000.0, log_floor=1e-10
    ),
}


@pytest.mark.parametrize("features", FRONT_ENDS.values(), ids=FRONT_ENDS)
def test_the_mel_spectrogram_is_librosas(features):
    import librosa

    front = FrontEnd.from_features(features)
    clip = synthetic_clips(features, 3)[2]
    power = librosa.feature.melspectrogram(
        y=clip,
        sr=features.sample_rate,
        n_fft=features.n_fft,
        hop_length=features.hop_length,
        center=False,
        n_mels=features.n_mels,
        fmin=features.fmin,
        fmax=features.fmax,
    )
    expected = librosa.power_to_db(power, amin=features.log_floor, top_db=None).T
    mel = log_mel(front, features, clip)
    np.testing.assert_allclose(decibels(mel, features), expected, atol=1e-2)
    np.testing.assert_allclose(mel @ front.dct.T + front.offset, mfcc(clip, features), atol=1e-2)


def test_a_step_lies_in_the_middle_of_the_frames_that_it_was_computed_from():
    features = tiny.FEATURES
    network = Network.from_model(exports.model(Architecture((4, 4), 1, 4)))
    x = np.zeros((features.n_frames, features.n_mfcc), np.float32)
    times = step_times(len(x), network, features)
    frames = (np.arange(len(x)) * features.hop_length + features.n_fft / 2) / features.sample_rate
    rng = np.random.default_rng(0)
    for step in range(2, len(times) - 2):
        moved = [
            frame
            for frame in range(len(x))
            if (
                trace(network, x + (np.arange(len(x)) == frame)[:, None] * rng.normal(size=13) * 50)
                .convolutions[1][step]
                .tolist()
                != trace(network, x.astype(np.float64)).convolutions[1][step].tolist()
            )
        ]
        assert times[step] == pytest.approx(frames[moved].mean())


def test_mfcc_of_another_shape_are_refused():
    network = Network.from_model(exports.model())
    for shape in ((13,), (5, 12), (0, 13), (1, 1, 5, 13)):
        with pytest.raises(ValueError, match=r"expected MFCC .+ got shape"):
            trace(network, np.zeros(shape, np.float32))


def test_softmax_of_large_scores_is_finite():
    np.testing.assert_allclose(softmax(np.array([1e4, 1e4, -1e4])), [0.5, 0.5, 0])
