"""A causal model as an ONNX graph that takes its state and gives the next one.

One graph serves a live stream, a step at a call, and a recording, minutes at a call: it takes any
number of whole steps, and whatever the division, the answers are the same.
"""

from pathlib import Path

import numpy as np

from speech.features import FeatureConfig
from speech.formats.to_onnx import Nodes, front_end, lstm_weights, write_graph
from speech.formats.weights import FrontEnd, Network

GIVEN, NEXT = "state_", "next_"  # before the names of the states that go in and come out


def state_shapes(network: Network, features: FeatureConfig) -> dict[str, tuple[int, ...]]:
    """The state of a stream by name: its sound, frames and memory that later steps need.

    Returns:
        The shapes without the batch: the samples that the next window begins with, the last inputs
        of each convolution (n_in, n), and the output and the memory cell of each LSTM layer.
    """
    shapes: dict[str, tuple[int, ...]] = {"samples": (features.n_fft - features.hop_length,)}
    for i, (kernel, _) in enumerate(network.convolutions):
        shapes[f"convolution_{i}"] = (kernel.shape[1], kernel.shape[0] - 2)
    for i, [(_, recurrent, _)] in enumerate(network.lstm_layers):
        shapes[f"lstm_{i}_output"] = shapes[f"lstm_{i}_cell"] = (len(recurrent),)
    return shapes


def write_causal_onnx(
    front: FrontEnd, network: Network, features: FeatureConfig, path: Path, precision: str
) -> None:
    """Write ``waveform`` and the states -> ``probabilities``, ``mfcc`` and the next states.

    All are float32 with the batch first: (batch, samples), a whole number of steps; (batch, steps,
    n_classes); (batch, frames, n_mfcc), a frame ending with every hop.

    Args:
        front: The matrices of the MFCC.
        network: The weights of a causal network.
        features: The preprocessing that ``front`` was made of.
        path: Receives the file.
        precision: As for ``write_onnx``.
    """
    add = Nodes()
    shapes = state_shapes(network, features)
    tail = shapes["samples"][0]
    sound = add("Concat", f"{GIVEN}samples", "waveform", axis=1)
    add("Slice", sound, [-tail], [np.iinfo(np.int64).max], [1], output=f"{NEXT}samples")
    mfcc = front_end(add, sound, front, features, exact=precision == "float32")
    add("Transpose", mfcc, perm=[0, 2, 1], output="mfcc")
    mean, scale = (
        add.constant(values[:, np.newaxis], name)
        for name, values in (("mean", network.mean), ("scale", network.scale))
    )
    states = add("Mul", add("Sub", mfcc, mean), scale)
    for i, (kernel, shift) in enumerate(network.convolutions):
        name, kept = f"convolution_{i}", shapes[f"convolution_{i}"][1]
        states = add("Concat", f"{GIVEN}{name}", states, axis=2)
        add("Slice", states, [-kept], [np.iinfo(np.int64).max], [2], output=f"{NEXT}{name}")
        weights = [
            add.constant(kernel.transpose(2, 1, 0), f"convolutions.{i}.kernel"),
            add.constant(shift, f"convolutions.{i}.bias"),
        ]
        states = add("Relu", add("Conv", states, *weights, strides=[2]))
    states = add("Transpose", states, perm=[2, 0, 1])
    for i, [(_, recurrent, _)] in enumerate(network.lstm_layers):
        states = _lstm(add, states, network, i, len(recurrent))
    to_logits, bias = (
        add.constant(weights, f"classifier.{name}")
        for name, weights in zip(("kernel", "bias"), network.classifier, strict=True)
    )
    logits = add("Add", add("MatMul", states, to_logits), bias)
    answers = add("Softmax", logits, axis=2)
    add("Transpose", answers, perm=[1, 0, 2], output="probabilities")
    inputs: dict[str, tuple[int | str, ...]] = {"waveform": ("batch", "samples")}
    outputs: dict[str, tuple[int | str, ...]] = {
        "probabilities": ("batch", "steps", len(network.classifier[1])),
        "mfcc": ("batch", "frames", features.n_mfcc),
    }
    for name, shape in shapes.items():
        inputs[f"{GIVEN}{name}"] = outputs[f"{NEXT}{name}"] = ("batch", *shape)
    write_graph(add, inputs, outputs, path, precision)


def _lstm(add: Nodes, states: str, network: Network, i: int, units: int) -> str:
    """(steps, batch, n) -> (steps, batch, units), from the given state on."""
    before = [add("Unsqueeze", f"{GIVEN}lstm_{i}_{name}", [0]) for name in ("output", "cell")]
    after = [f"lstm_{i}_last_{name}" for name in ("output", "cell")]
    outputs = add(
        "LSTM", states, *lstm_weights(add, network, i), "", *before, more=after,
        hidden_size=units, direction="forward",
    )  # fmt: skip
    for last, name in zip(after, ("output", "cell"), strict=True):
        add("Reshape", last, [-1, units], output=f"{NEXT}lstm_{i}_{name}")
    return add("Reshape", outputs, [0, -1, units])
