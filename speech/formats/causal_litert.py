"""A causal model as a LiteRT (.tflite) file of one step: its state goes in and comes out."""

from pathlib import Path
from typing import Any

import numpy as np

from speech.features import FeatureConfig
from speech.formats.causal_onnx import GIVEN, NEXT, state_shapes
from speech.formats.to_litert import convert, front_end
from speech.formats.weights import Array, FrontEnd, Network


def write_causal_litert(
    front: FrontEnd, network: Network, features: FeatureConfig, path: Path, precision: str
) -> None:
    """Write ``waveform`` (1, samples of a step) and the states -> the answer and the next states.

    The names and shapes are those of ``write_causal_onnx``, with a batch of one and one step.

    Args:
        front: The matrices of the MFCC.
        network: The weights of a causal network.
        features: The preprocessing that ``front`` was made of.
        path: Receives the file.
        precision: As for ``write_litert``.
    """
    import tensorflow as tf

    shapes = state_shapes(network, features)
    step = features.hop_length * 2 ** len(network.convolutions)

    def answer(**given: Any) -> dict[str, Any]:
        following = {}
        sound = tf.concat([given[f"{GIVEN}samples"], given["waveform"]], axis=1)
        following["samples"] = sound[:, step:]
        mfcc = front_end(tf, front, features, sound, in_halves=precision == "float16")
        states = (mfcc - network.mean) * network.scale
        for i, (kernel, bias) in enumerate(network.convolutions):
            name = f"convolution_{i}"
            before = tf.transpose(given[f"{GIVEN}{name}"], (0, 2, 1))
            states = tf.concat([before, states], axis=1)
            last = states[:, -shapes[name][1] :]
            following[name] = tf.transpose(last, (0, 2, 1))
            states = tf.nn.relu(tf.nn.conv1d(states, kernel, 2, "VALID") + bias)
        states = states[:, 0]
        for i, [weights] in enumerate(network.lstm_layers):
            name = f"lstm_{i}"
            states, cell = _step(
                tf, states, given[f"{GIVEN}{name}_output"], given[f"{GIVEN}{name}_cell"], weights
            )
            following |= {f"{name}_output": states, f"{name}_cell": cell}
        kernel, bias = network.classifier
        probabilities = tf.nn.softmax(tf.matmul(states, kernel) + bias)
        return {
            "probabilities": probabilities[:, tf.newaxis],
            "mfcc": mfcc,
            **{f"{NEXT}{name}": state for name, state in following.items()},
        }

    specs = {"waveform": (step,), **{f"{GIVEN}{name}": s for name, s in shapes.items()}}
    graph = tf.function(answer, autograph=False).get_concrete_function(
        **{name: tf.TensorSpec((1, *shape), tf.float32, name=name) for name, shape in specs.items()}
    )
    convert(graph, path, precision)


def _step(
    tf: Any, x: Any, hidden: Any, cell: Any, weights: tuple[Array, Array, Array]
) -> tuple[Any, Any]:
    """(1, n) and the state (1, units) each -> the next state."""
    # a matrix for each gate: to int8 each gets one scale, and their ranges differ
    gates = zip(*(np.split(one, 4, axis=-1) for one in weights), strict=True)
    i, f, c, o = (tf.matmul(x, k) + tf.matmul(hidden, r) + b for k, r, b in gates)
    cell = tf.sigmoid(f) * cell + tf.sigmoid(i) * tf.tanh(c)
    return tf.sigmoid(o) * tf.tanh(cell), cell
