"""Every quantity that the network computes of a clip, in numpy: no TensorFlow, no ONNX Runtime."""

import dataclasses
import math
from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from speech.features import FeatureConfig
from speech.formats.weights import Array, FrontEnd, Network, same_padding

DIRECTIONS = ("forward", "backward")
GATES = ("input_gate", "forget_gate", "candidate", "output_gate")  # in the order of the weights


@dataclasses.dataclass(frozen=True)
class Cells:
    """One direction of one LSTM layer (Hochreiter and Schmidhuber, 1997; Gers et al., 2000).

    All are (..., n_steps, units), in the order of time: ``[t]`` belongs to step t of the clip also
    in the backward direction, where the step before is t + 1. With z the input of the step and the
    hidden state of the step before, both times their weights, plus the bias:

    Attributes:
        input_gate: i = sigmoid(z_i), in (0, 1): how much of the candidate is written.
        forget_gate: f = sigmoid(z_f), in (0, 1): how much of the memory is kept.
        candidate: g = tanh(z_g), in (-1, 1): what would be written.
        output_gate: o = sigmoid(z_o), in (0, 1): how much of the memory is shown.
        cell: The memory, c = f * c_before + i * g.
        hidden: The state that others see, h = o * tanh(c), in (-1, 1).
    """

    input_gate: Array
    forget_gate: Array
    candidate: Array
    output_gate: Array
    cell: Array
    hidden: Array

    def unit_order(self) -> Array:
        """The units (units,), of one clip, by the center of gravity in time of abs(hidden)."""
        strength = np.abs(self.hidden)
        steps = np.arange(len(strength))[:, np.newaxis]
        total = np.maximum(strength.sum(axis=0), np.finfo(strength.dtype).tiny)
        return np.argsort((strength * steps).sum(axis=0) / total, kind="stable")


@dataclasses.dataclass(frozen=True)
class Trace:
    """What the network computed, of one clip or of a batch, which is then the first axis.

    Attributes:
        normalized: (..., n_frames, n_mfcc), the MFCC as the first layer sees them.
        convolutions: The output of each, (..., n_steps, filters); each has half the steps.
        lstm_layers: For each LSTM layer, for each of its one or two directions, its cells.
        attention: (..., n_steps), what each step counts in the mean; the steps sum to one.
        pooled: (..., n), that mean.
        logits: (..., n_classes), divided by the temperature: their softmax is the answer.
    """

    normalized: Array
    convolutions: tuple[Array, ...]
    lstm_layers: tuple[tuple[Cells, ...], ...]
    attention: Array
    pooled: Array
    logits: Array

    @property
    def probabilities(self) -> Array:
        """(..., n_classes), each row summing to one."""
        return softmax(self.logits)

    def clip(self, index: int) -> "Trace":
        """The trace of one clip of a batch."""
        return _each(self, lambda array: array[index])


@dataclasses.dataclass(frozen=True)
class Ablation:
    """Parts of the network that are switched off while it computes.

    Attributes:
        input_gate: The value that every input gate is held at; None leaves it alone.
        forget_gate: The same of the forget gates: at 0 no cell remembers, at 1 none ever forgets.
        output_gate: The same of the output gates.
        direction: The direction whose hidden states are replaced by zeros.
        layers: Numbers of the LSTM layers to which all this applies; None for all.
        attention: False takes the mean over time instead.
    """

    input_gate: float | None = None
    forget_gate: float | None = None
    output_gate: float | None = None
    direction: Literal["forward", "backward"] | None = None
    layers: tuple[int, ...] | None = None
    attention: bool = True


WHOLE = Ablation()


def trace(network: Network, mfcc: Array, ablation: Ablation = WHOLE) -> Trace:
    """Run the network, and keep all of it.

    Args:
        network: The weights.
        mfcc: Floats (n_frames, n_mfcc) or (batch, n_frames, n_mfcc), in dB, as ``speech.mfcc``
            makes them. float64 is computed in float64.
        ablation: What is switched off meanwhile.

    Raises:
        ValueError: Another number of dimensions or of coefficients, or no frames.
    """
    if mfcc.ndim not in (2, 3) or mfcc.shape[-1] != len(network.mean) or not mfcc.size:
        raise ValueError(
            f"expected MFCC ([batch,] n_frames, {len(network.mean)}), got shape {mfcc.shape}"
        )
    if mfcc.ndim == 2:
        return trace(network, mfcc[np.newaxis], ablation).clip(0)
    states = normalized = (mfcc - network.mean) * network.scale  # (batch, n_frames, n_mfcc)
    convolutions = []
    for kernel, bias in network.convolutions:
        states = np.maximum(_seen(states, len(kernel)) @ kernel.reshape(-1, len(bias)) + bias, 0)
        convolutions.append(states)  # (batch, n_steps, filters)
    layers = []
    for index, weights in enumerate(network.lstm_layers):
        here = ablation if ablation.layers is None or index in ablation.layers else WHOLE
        cells = _lstm(states, weights, here)
        layers.append(cells)
        states = np.concatenate([direction.hidden for direction in cells], axis=-1)
    if network.attention is None or not ablation.attention:
        attention = np.full(states.shape[:2], 1 / states.shape[1], states.dtype)
    else:
        kernel, bias, query = network.attention
        attention = softmax((np.tanh(states @ kernel + bias) @ query)[..., 0])
    pooled = np.einsum("bt,btn->bn", attention, states)
    kernel, bias = network.classifier
    return Trace(
        normalized, tuple(convolutions), tuple(layers), attention, pooled, pooled @ kernel + bias
    )


def log_mel(front: FrontEnd, features: FeatureConfig, waveform: Array) -> Array:
    """The mel spectrogram of a clip as the network's front end has it.

    Args:
        front: The matrices of the front end.
        features: The numbers that they were made of.
        waveform: Floats (n,), n >= ``features.n_fft``.

    Returns:
        float32 (n_frames, n_mels), the natural logarithm of the power above the floor, so 0 where a
        band is silent. ``log_mel @ front.dct.T + front.offset`` are the MFCC.
    """
    n_inner, _, n_outer = front.dft_outer.shape
    n_k1 = len(front.dft_real)
    frames = sliding_window_view(waveform.astype(np.float64), features.n_fft)
    frames = frames[:: features.hop_length].reshape(-1, n_outer, n_inner)
    x = front.dft_outer @ frames.transpose(2, 1, 0)  # (n_inner, 2 * n_k1, n_frames)
    x = x.reshape(n_inner, n_k1, 2, -1).transpose(1, 0, 2, 3).reshape(n_k1, 2 * n_inner, -1)
    power = (front.dft_real @ x) ** 2 + (front.dft_imaginary @ x) ** 2  # (n_k1, n_inner, n_frames)
    mel = front.mel @ power.reshape(n_k1 * n_inner, -1)
    return np.log(np.maximum(mel, 1)).T.astype(np.float32)


def decibels(log_mel: Array, features: FeatureConfig) -> Array:
    """What ``log_mel`` gives as mel power in dB, of the same shape."""
    return log_mel * np.float32(10 / math.log(10)) + np.float32(10 * math.log10(features.log_floor))


def step_times(n_frames: int, network: Network, features: FeatureConfig) -> Array:
    """The middle in seconds, float64 (n_steps,), of what each step of the LSTM was computed from.

    Frames lie at the middle of their windows; a convolution sees a few steps around its own.
    """
    times: Array = (
        np.arange(n_frames) * features.hop_length + features.n_fft / 2
    ) / features.sample_rate
    for kernel, _ in network.convolutions:
        before, _ = same_padding(len(times), len(kernel))
        middle = len(kernel) // 2 - before
        step = times[1] - times[0] if len(times) > 1 else 0.0
        times = times[0] + (np.arange(-(-len(times) // 2)) * 2 + middle) * step
    return times


def softmax(scores: Array) -> Array:
    """Over the last axis."""
    powers: Array = np.exp(scores - scores.max(axis=-1, keepdims=True))
    total: Array = powers.sum(axis=-1, keepdims=True)
    return powers / total


def _seen(states: Array, kernel: int) -> Array:
    """What each step of a convolution of stride 2 sees: (batch, n, c) -> (batch, m, kernel * c)."""
    padding = same_padding(states.shape[1], kernel)
    padded = np.pad(states, ((0, 0), tuple(padding), (0, 0)))
    windows = sliding_window_view(padded, kernel, axis=1)[:, ::2]  # (batch, m, c, kernel)
    return windows.swapaxes(2, 3).reshape(*windows.shape[:2], -1)


def _lstm(
    states: Array, weights: tuple[tuple[Array, Array, Array], ...], ablation: Ablation
) -> tuple[Cells, ...]:
    """Both directions at once: (batch, n_steps, n) -> their cells."""
    batch, n_steps, _ = states.shape
    units = len(weights[0][1])
    order = (slice(None), slice(None, None, -1))  # in which a direction reads the steps
    gates = np.stack(  # (n_steps, directions, batch, 4 * units)
        [
            (states[:, way] @ kernel + bias).swapaxes(0, 1)
            for (kernel, _, bias), way in zip(weights, order, strict=False)
        ],
        axis=1,
    )
    recurrent = np.stack([matrix for _, matrix, _ in weights])
    held = [ablation.input_gate, ablation.forget_gate, None, ablation.output_gate]
    # sigmoid(z) = tanh(z / 2) / 2 + 1 / 2: one function for all four, which cannot overflow
    half = np.repeat(np.array([0.5, 0.5, 1, 0.5], gates.dtype), units)
    cell = np.zeros((n_steps, len(weights), batch, units), gates.dtype)
    hidden = np.zeros_like(cell)
    for t in range(n_steps):
        z = gates[t]
        if t:
            z += hidden[t - 1] @ recurrent
        np.tanh(z * half, out=z)
        z *= half
        z += 1 - half
        for number, value in enumerate(held):
            if value is not None:
                z[..., number * units : (number + 1) * units] = value
        i, f, g, o = np.split(z, 4, axis=-1)
        cell[t] = i * g + (f * cell[t - 1] if t else 0)
        hidden[t] = o * np.tanh(cell[t])
    found = []
    for number in range(len(weights)):
        way = order[number]
        arrays = [
            array[way, number].swapaxes(0, 1)
            for array in (*np.split(gates, 4, axis=-1), cell, hidden)
        ]
        if ablation.direction == DIRECTIONS[number]:
            arrays[-1] = np.zeros_like(arrays[-1])
        found.append(Cells(*arrays))
    return tuple(found)


def _each(trace: Trace, function: Callable[[Array], Array]) -> Trace:
    """The same trace, each array replaced by what the function makes of it."""
    return Trace(
        function(trace.normalized),
        tuple(map(function, trace.convolutions)),
        tuple(
            tuple(
                Cells(*(function(getattr(c, f.name)) for f in dataclasses.fields(Cells)))
                for c in layer
            )
            for layer in trace.lstm_layers
        ),
        function(trace.attention),
        function(trace.pooled),
        function(trace.logits),
    )
