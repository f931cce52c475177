"""A trained model as a LiteRT (.tflite) file of built-in operations, for one clip at a time."""

import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from speech.features import FeatureConfig
from speech.formats.weights import Array, FrontEnd, Network

_GROUP = 4  # bands


def write_litert(
    front: FrontEnd, network: Network, features: FeatureConfig, path: Path, precision: str
) -> None:
    """Write ``waveform`` (1, n_samples) -> ``probabilities`` and ``mfcc``, all float32.

    Args:
        front: The matrices of the MFCC.
        network: The weights.
        features: The preprocessing that ``front`` was made of.
        path: Receives the file.
        precision: Of the weights: ``float32``, ``float16`` or ``int8`` (whose activations are
            quantised as they come). The front end keeps the precision of float32.
    """
    import tensorflow as tf

    signature = [tf.TensorSpec((1, features.n_samples), tf.float32, name="waveform")]

    @tf.function(input_signature=signature, autograph=False)  # type: ignore[untyped-decorator]
    def graph(waveform: Any) -> dict[str, Any]:
        mfcc = front_end(tf, front, features, waveform, in_halves=precision == "float16")
        return {"probabilities": _network(tf, network, mfcc), "mfcc": mfcc}

    convert(graph, path, precision)


def convert(graph: Any, path: Path, precision: str) -> None:
    """Write a TensorFlow function of one signature as a file."""
    import tensorflow as tf

    module = tf.Module()
    module.graph = graph
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures=graph)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        if precision != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            # a scale for each of the gates' columns would be a tenth of a small file
            converter._experimental_disable_per_channel_quantization_for_dense_layers = True
        if precision == "float16":
            converter.target_spec.supported_types = [tf.float16]
        path.write_bytes(_slim(converter.convert()))


def _slim(content: bytes) -> bytes:
    """The same file without what no interpreter needs: a fifth of one that is small.

    That are the names of inner tensors, the notes of the converter, what says that a tensor is not
    quantized, and constants that are there twice.
    """
    from tensorflow.lite.tools import flatbuffer_utils

    model = flatbuffer_utils.convert_bytearray_to_object(bytearray(content))
    model.description = model.metadata = model.metadataBuffer = None
    first: dict[bytes, int] = {b"": 0}  # the number of the buffer that holds it
    held = [b"" if one.data is None else bytes(one.data) for one in model.buffers]
    for graph in model.subgraphs:
        for index, tensor in enumerate(graph.tensors):
            if index not in {*graph.inputs, *graph.outputs}:
                tensor.name = None
            if tensor.quantization is not None and tensor.quantization.scale is None:
                tensor.quantization = None
            tensor.buffer = first.setdefault(held[tensor.buffer], tensor.buffer)
    kept = sorted(set(first.values()))
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            tensor.buffer = kept.index(tensor.buffer)
    model.buffers = [model.buffers[number] for number in kept]
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def front_end(
    tf: Any, front: FrontEnd, features: FeatureConfig, waveform: Any, *, in_halves: bool
) -> Any:
    """(1, n), n >= n_fft -> MFCC (1, n_frames, n_mfcc)."""

    def parts(constant: Array) -> list[Array]:
        # what the converter is about to turn into float16; two of those hold a float32
        exact = np.asarray(constant, np.float32)
        if not in_halves:
            return [exact]
        high = exact.astype(np.float16).astype(np.float32)
        return [high, exact - high]

    def product(matrix: Array, x: Any, offset: Array | float = 0.0) -> Any:
        # to int8 the converter turns a constant on the right only: on the left these stay in float
        pairs = zip(parts(matrix), parts(np.asarray(offset)), strict=True)
        return sum(tf.matmul(tf.constant(part), x) + shift for part, shift in pairs)

    n_samples = waveform.shape[1]
    n_frames = 1 + (n_samples - features.n_fft) // features.hop_length
    frames = _frames(tf, waveform, features, n_frames)
    if features.n_fft & (features.n_fft - 1) == 0:
        mel = _mel_by_fft(tf, front, frames, parts, product)
    else:
        mel = _mel_by_matrices(tf, front, frames, product)
    loudness = tf.math.log(tf.maximum(mel, 1.0))
    mfcc = product(front.dct[np.newaxis], loudness[tf.newaxis], front.offset[:, np.newaxis])
    return tf.transpose(mfcc, (0, 2, 1))


def _frames(tf: Any, waveform: Any, features: FeatureConfig, n_frames: int) -> Any:
    """(1, n) -> (n_fft, n_frames), by as few slices as there are."""
    n_fft, hop = features.n_fft, features.hop_length
    block = math.gcd(n_fft, hop)
    if n_frames <= n_fft // block:
        starts = range(0, n_frames * hop, hop)
        return tf.transpose(tf.concat([waveform[:, at : at + n_fft] for at in starts], axis=0))
    stride = hop // block
    n_whole = waveform.shape[1] // block * block
    x = tf.transpose(tf.reshape(waveform[0, :n_whole], (-1, block)))
    ends = range(stride * (n_frames - 1) + 1, stride * (n_frames - 1) + 1 + n_fft // block)
    return tf.concat([x[:, i:end:stride] for i, end in enumerate(ends)], axis=0)


def _mel_by_matrices(tf: Any, front: FrontEnd, frames: Any, product: Callable[..., Any]) -> Any:
    """(n_fft, n_frames) -> mel power (n_mels, n_frames); the DFT of any length in two steps."""
    n_inner, _, n_outer = front.dft_outer.shape
    n_k1, n_frames = len(front.dft_real), frames.shape[1]
    x = tf.reshape(frames, (n_outer, n_inner, n_frames))
    x = product(front.dft_outer, tf.transpose(x, (1, 0, 2)))
    x = tf.transpose(tf.reshape(x, (n_inner, n_k1, 2, n_frames)), (1, 0, 2, 3))
    x = tf.reshape(x, (n_k1, 2 * n_inner, n_frames))
    power = tf.square(product(front.dft_real, x)) + tf.square(product(front.dft_imaginary, x))
    mel = product(front.mel[np.newaxis], tf.reshape(power, (1, n_k1 * n_inner, n_frames)))
    return mel[0]


def _mel_by_fft(
    tf: Any,
    front: FrontEnd,
    frames: Any,
    parts: Callable[[Array], list[Array]],
    product: Callable[..., Any],
) -> Any:
    """The same for a length that is a power of two: by LiteRT's own FFT.

    The filterbank goes in groups of bands, each with the bins that its bands reach: of the whole
    matrix, 97 numbers in 100 are zero.
    """

    def scaled(x: Any, constant: Array) -> Any:
        return sum(x * part for part in parts(constant))

    n_fft = frames.shape[0]
    spectrum = tf.signal.rfft(scaled(tf.transpose(frames), front.window), [n_fft])
    power = tf.transpose(tf.square(tf.math.real(spectrum)) + tf.square(tf.math.imag(spectrum)))
    sums = []
    for start in range(0, len(front.bands), _GROUP):
        group = front.bands[start : start + _GROUP]
        reached = np.flatnonzero(group.any(axis=0))
        first, end = (reached[0], reached[-1] + 1) if len(reached) else (0, 1)
        sums.append(product(group[np.newaxis, :, first:end], power[tf.newaxis, first:end])[0])
    return tf.concat(sums, axis=0)


def _network(tf: Any, network: Network, mfcc: Any) -> Any:
    """MFCC (1, n_frames, n_mfcc) -> probabilities (1, n_classes)."""
    states = (mfcc - network.mean) * network.scale
    for kernel, bias in network.convolutions:
        states = tf.nn.relu(tf.nn.conv1d(states, kernel, 2, "SAME") + bias)
    states = states[0]
    for directions in network.lstm_layers:
        forward, *backward = directions
        outputs = [_lstm(tf, states, *forward)]
        outputs += [tf.reverse(_lstm(tf, tf.reverse(states, [0]), *w), [0]) for w in backward]
        states = tf.concat(outputs, axis=1)
    if network.attention is not None:
        kernel, bias, query = network.attention
        scores = tf.matmul(tf.tanh(tf.matmul(states, kernel) + bias), query)
        states = tf.reduce_sum(tf.nn.softmax(scores, axis=0) * states, axis=0, keepdims=True)
    else:
        states = tf.reduce_mean(states, axis=0, keepdims=True)
    kernel, bias = network.classifier
    return tf.nn.softmax(tf.matmul(states, kernel) + bias)


def _lstm(tf: Any, states: Any, kernel: Array, recurrent: Array, bias: Array) -> Any:
    """(n_frames, n) -> (n_frames, units), forward in time."""
    n_frames, units = states.shape[0], len(recurrent)
    projected = (tf.matmul(states, kernel) + bias)[:, tf.newaxis]

    def step(time: Any, hidden: Any, cell: Any, outputs: Any) -> tuple[Any, Any, Any, Any]:
        gates = tf.gather(projected, time) + tf.matmul(hidden, recurrent)
        i, f, c, o = tf.split(gates, 4, axis=1)
        cell = tf.sigmoid(f) * cell + tf.sigmoid(i) * tf.tanh(c)
        hidden = tf.sigmoid(o) * tf.tanh(cell)
        return time + 1, hidden, cell, tf.tensor_scatter_nd_update(outputs, [[time]], hidden)

    start = tf.zeros((1, units))
    begin = (0, start, start, tf.zeros((n_frames, units)))
    return tf.while_loop(lambda time, *_: time < n_frames, step, begin)[3]
