"""A trained model as an ONNX graph, built node by node: no tracing, and nothing but its weights."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from speech.features import FeatureConfig
from speech.formats.metadata import WINDOW_HOPS
from speech.formats.weights import (
    Array,
    FrontEnd,
    Network,
    TaughtHead,
    WordBranch,
    same_padding,
)

_OPSET, _IR_VERSION = 17, 8  # what every ONNX Runtime since 1.13 understands


class Nodes:
    """Nodes and constants of a graph in the making; a call adds a node and names its output."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, value: Any, name: str = "") -> str:
        """Add a constant; ``formats.from_onnx`` reads the weights by their names."""
        from onnx import numpy_helper

        name = name or f"constant_{len(self.constants)}"
        array = np.ascontiguousarray(value) if np.ndim(value) else np.asarray(value)
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def __call__(
        self, kind: str, *inputs: Any, output: str = "", more: Sequence[str] = (), **attributes: Any
    ) -> str:
        """Add a node; inputs are names or arrays, ``more`` the names of its other outputs."""
        from onnx import helper

        names = [x if isinstance(x, str) else self.constant(x) for x in inputs]
        name = f"{kind}_{len(self.nodes)}"
        outputs = [output or name, *more]
        self.nodes.append(helper.make_node(kind, names, outputs, name=name, **attributes))
        return output or name


def write_onnx(
    front: FrontEnd, network: Network, features: FeatureConfig, path: Path, precision: str
) -> None:
    """Write ``waveform`` (batch, samples) -> ``probabilities``, ``mfcc``, ``embedding``: float32.

    For clips these are (batch, n_classes), (batch, n_frames, n_mfcc) and (batch, width): the pooled
    vector that the classifier reads, or, where words were taught, what these are told apart by.
    Longer audio gives a row of probabilities and of the embedding for each window in it, one every
    ``WINDOW_HOPS`` frames.

    Args:
        front: The matrices of the MFCC.
        network: The weights.
        features: The preprocessing that ``front`` was made of.
        path: Receives the file.
        precision: ``float32``, or ``int8``: the LSTM layers compute with 8-bit integers, all else
            stays in float.
    """
    add = Nodes()
    mfcc = front_end(add, "waveform", front, features, exact=precision == "float32")
    add("Transpose", mfcc, perm=[0, 2, 1], output="mfcc")
    head = network.head
    n_frames = features.n_frames - (WINDOW_HOPS * head.offsets[-1] if head else 0)
    pooled, layers = _network(add, network, _windows(add, "mfcc", features, n_frames), n_frames)
    n_classes, width = len(network.classifier[1]), len(network.classifier[0])
    if network.branch is not None:
        output = "" if head else "embedding"
        pooled = _branch(add, network.branch, pooled, layers, output)
        width = len(network.branch.bias)
    if head is not None:
        _head(add, head, pooled)
        n_classes, width = len(head.bias) - 1 + head.shares.shape[1], len(head.kernel)

    outputs = {
        "probabilities": ("windows", n_classes),
        "mfcc": ("batch", "frames", features.n_mfcc),
        "embedding": ("windows", width),
    }
    write_graph(add, {"waveform": ("batch", "samples")}, outputs, path, precision)


def write_graph(
    add: Nodes,
    inputs: Mapping[str, Sequence[int | str]],
    outputs: Mapping[str, Sequence[int | str]],
    path: Path,
    precision: str,
) -> None:
    """Write a graph of these nodes; inputs and outputs are float32 of these shapes."""
    import onnx
    from onnx import TensorProto, helper

    given, made = (
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, list(s))
            for name, s in each.items()
        ]
        for each in (inputs, outputs)
    )
    graph = helper.make_graph(add.nodes, "speech", given, made, add.constants)
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
        producer_name="speech-commands",
    )
    onnx.checker.check_model(model, full_check=True)
    if precision == "float32":
        path.write_bytes(model.SerializeToString())
    else:
        _quantise(model, path)


def _quantise(model: Any, path: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        model,
        path,
        op_types_to_quantize=["LSTM"],
        weight_type=QuantType.QInt8,
        # one scale a matrix, and weights of 7 bits: else the products are so large that processors
        # without VNNI saturate in the middle of a sum
        per_channel=False,
        reduce_range=True,
    )


def front_end(
    add: Nodes, sound: str, front: FrontEnd, features: FeatureConfig, *, exact: bool
) -> str:
    """Sound (batch, samples) -> MFCC (batch, n_mfcc, frames).

    The DFT is in float64, as librosa's is, or, a sixth of a millisecond faster where it need not be
    exact, in float32, with which a loud pure tone is off by 0.006: rounding adds to the bands that
    are nearly silent.
    """
    from onnx import TensorProto, helper

    kind = TensorProto.DOUBLE if exact else TensorProto.FLOAT
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    n_inner, _, n_outer = front.dft_outer.shape
    n_k1 = len(front.dft_real)
    block = math.gcd(features.n_fft, features.hop_length)
    stride = features.hop_length // block
    blocks = add("Div", add("Shape", sound, start=1), [block])
    x = add("Slice", sound, [0], add("Mul", blocks, [block]), [1])
    x = add("Transpose", add("Reshape", x, [0, -1, block]), perm=[0, 2, 1])
    x = add("Cast", x, to=kind)
    per_frame = features.n_fft // block
    frames = [
        add("Slice", x, [i], [i - per_frame + 1 or np.iinfo(np.int64).max], [2], [stride])
        for i in range(per_frame)
    ]
    x = add("Concat", *frames, axis=1)  # (batch, n_fft, n_frames)
    x = add("Transpose", add("Reshape", x, [0, n_outer, n_inner, -1]), perm=[0, 2, 1, 3])
    outer = add.constant(front.dft_outer.astype(dtype), "front_end.dft_outer")
    x = add("Reshape", add("MatMul", outer, x), [0, n_inner, n_k1, 2, -1])
    x = add("Reshape", add("Transpose", x, perm=[0, 2, 1, 3, 4]), [0, n_k1, 2 * n_inner, -1])
    inner = [
        add.constant(front.dft_real.astype(dtype), "front_end.dft_real"),
        add.constant(front.dft_imaginary.astype(dtype), "front_end.dft_imaginary"),
    ]
    parts = [add("Cast", add("MatMul", matrix, x), to=TensorProto.FLOAT) for matrix in inner]
    power = add("Add", *(add("Mul", part, part) for part in parts))
    power = add("Reshape", power, [0, n_k1 * n_inner, -1])
    mel = add("MatMul", add.constant(front.mel, "front_end.mel"), power)
    logarithm = add("Log", add("Max", mel, np.float32(1)))
    mfcc = add("MatMul", add.constant(front.dct, "front_end.dct"), logarithm)
    return add("Add", mfcc, add.constant(front.offset[:, np.newaxis], "front_end.offset"))


def _windows(add: Nodes, mfcc: str, features: FeatureConfig, n_frames: int) -> str:
    """MFCC (batch, frames, n_mfcc) -> those of each window (windows, n_frames, n_mfcc)."""
    frames = add("Reshape", add("Shape", mfcc, start=1, end=2), np.zeros(0, np.int64))
    firsts = add(
        "Range", np.int64(0), add("Sub", frames, np.int64(n_frames - 1)), np.int64(WINDOW_HOPS)
    )
    every = add("Add", add("Unsqueeze", firsts, [1]), np.arange(n_frames)[np.newaxis])
    x = add("Gather", mfcc, every, axis=1)  # (batch, windows of each, n_frames, n_mfcc)
    return add("Reshape", x, [-1, n_frames, features.n_mfcc])


def _network(add: Nodes, network: Network, mfcc: str, n_frames: int) -> tuple[str, list[str]]:
    """MFCC (batch, n_frames, n_mfcc) -> the pooled vector (batch, n), and all layers' states.

    It also names the ``probabilities`` (batch, n_classes) of the classifier, unless there is a head
    to do so; then they are ``of_classifier``.
    """
    mean, scale = add.constant(network.mean, "mean"), add.constant(network.scale, "scale")
    states = add("Mul", add("Sub", mfcc, mean), scale)
    states = add("Transpose", states, perm=[0, 2, 1])
    for i, convolution in enumerate(network.convolutions):
        padding = same_padding(n_frames, len(convolution[0]))
        weights = [
            add.constant(convolution[0].transpose(2, 1, 0), f"convolutions.{i}.kernel"),
            add.constant(convolution[1], f"convolutions.{i}.bias"),
        ]
        states = add("Relu", add("Conv", states, *weights, strides=[2], pads=padding))
        n_frames = -(-n_frames // 2)
    states = add("Transpose", states, perm=[2, 0, 1])
    layers, last = [], len(network.lstm_layers) - 1
    for i in range(last + 1):
        states = _lstm(add, states, network, i)
        if network.branch is not None:
            layers.append(states if i == last else add("Transpose", states, perm=[1, 0, 2]))
    name = "embedding" if network.branch is None and network.head is None else ""
    if network.attention is not None:
        to_hidden, bias, query = (
            add.constant(weights, f"attention.{name}")
            for name, weights in zip(("kernel", "bias", "query"), network.attention, strict=True)
        )
        hidden = add("Tanh", add("Add", add("MatMul", states, to_hidden), bias))
        attention = add("Softmax", add("MatMul", hidden, query), axis=1)
        weighted = add("Mul", attention, states)
        pooled = add("ReduceSum", weighted, [1], keepdims=0, output=name)
    else:
        pooled = add("ReduceMean", states, axes=[1], keepdims=0, output=name)
    to_logits, bias = (
        add.constant(weights, f"classifier.{name}")
        for name, weights in zip(("kernel", "bias"), network.classifier, strict=True)
    )
    logits = add("Add", add("MatMul", pooled, to_logits), bias)
    add("Softmax", logits, axis=1, output="of_classifier" if network.head else "probabilities")
    return pooled, layers


def _branch(add: Nodes, branch: WordBranch, pooled: str, layers: list[str], output: str) -> str:
    """Pooled vector (batch, n) and states (batch, n_steps, n) of all layers -> (batch, width)."""
    parts = add.constant(branch.parts, "branch.parts")
    means = [pooled]
    for states in layers:
        of_layer = add("MatMul", parts, states)
        shape = add("Concat", add("Shape", of_layer, end=1), [-1], axis=0)
        means.append(add("Reshape", of_layer, shape))
    x = add("Concat", *means, axis=1)
    vector = add("MatMul", x, add.constant(branch.kernel, "branch.kernel"))
    vector = add("Add", vector, add.constant(branch.bias, "branch.bias"))
    energy = add("ReduceSum", add("Mul", vector, vector), [1], keepdims=1)
    mean = add("Div", energy, np.float32(len(branch.bias)))
    length = add("Sqrt", add("Add", mean, np.float32(1e-6)))
    return add("Div", vector, length, output=output)


def _head(add: Nodes, head: TaughtHead, vectors: str) -> None:
    """Vectors of single seconds (all windows, width) -> ``embedding`` and ``probabilities``."""
    width = len(head.kernel) // len(head.offsets)

    def gathered(rows: str, size: int, offsets: tuple[int, ...], output: str = "") -> str:
        """What belongs to one clip, or to one window of longer audio, in one row."""
        batch = add("Shape", "mfcc", end=1)
        rows = add("Reshape", rows, add("Concat", batch, np.array([-1, size]), axis=0))
        count = add("Reshape", add("Shape", rows, start=1, end=2), np.zeros(0, np.int64))
        firsts = add(
            "Range", np.int64(0), add("Sub", count, np.int64(head.offsets[-1])), np.int64(1)
        )
        named = add.constant(np.array([offsets]), "head.offsets" if output else "")
        every = add("Add", add("Unsqueeze", firsts, [1]), named)
        rows = add("Gather", rows, every, axis=1)
        return add("Reshape", rows, [-1, len(offsets) * size], output=output)

    vectors = gathered(vectors, width, head.offsets, "embedding")
    kernel = add.constant(head.kernel, "head.kernel")
    logits = add("Add", add("MatMul", vectors, kernel), add.constant(head.bias, "head.bias"))
    taught = add("Softmax", logits, axis=1)
    n_words = len(head.bias) - 1
    words, rest = (
        add("Slice", taught, [begin], [end], [1]) for begin, end in ((0, n_words), (n_words, 1000))
    )
    middle = (head.offsets[-1] // 2,)
    classes = gathered("of_classifier", len(head.shares), middle)
    shares = add("MatMul", classes, add.constant(head.shares, "head.shares"))
    add("Concat", words, add("Mul", rest, shares), axis=1, output="probabilities")


def _lstm(add: Nodes, states: str, network: Network, i: int) -> str:
    """(n_frames, batch, n) -> (n_frames, batch, units of all directions); the last: batch first."""
    directions = network.lstm_layers[i]
    units = len(directions[0][1])
    output = add(
        "LSTM",
        states,
        *lstm_weights(add, network, i),
        hidden_size=units,
        direction="bidirectional" if len(directions) == 2 else "forward",
    )
    order = [2, 0, 1, 3] if i == len(network.lstm_layers) - 1 else [0, 2, 1, 3]
    return add("Reshape", add("Transpose", output, perm=order), [0, 0, len(directions) * units])


def lstm_weights(add: Nodes, network: Network, i: int) -> list[str]:
    """The constants W, R and B of a layer, in ONNX's order of gates."""
    directions = network.lstm_layers[i]
    units = len(directions[0][1])

    def gates(weights: Array) -> Array:  # ONNX: input, output, forget, cell
        i, f, c, o = np.split(weights, 4, axis=-1)
        return np.concatenate([i, o, f, c], axis=-1).T

    stacks = {
        "kernel": np.stack([gates(kernel) for kernel, _, _ in directions]),
        "recurrent": np.stack([gates(recurrent) for _, recurrent, _ in directions]),
        "bias": np.stack([np.pad(gates(bias), (0, 4 * units)) for _, _, bias in directions]),
    }
    return [add.constant(stack, f"lstm_layers.{i}.{name}") for name, stack in stacks.items()]
