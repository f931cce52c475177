"""The gradient of any function of the logits, by hand: backpropagation through the trace."""

import dataclasses

import numpy as np

from speech.formats.weights import Array, Network, same_padding
from speech.inside.trace import Cells, Trace

_ORDER = (slice(None), slice(None, None, -1))  # in which a direction reads the steps


@dataclasses.dataclass(frozen=True)
class Gradients:
    """How a number that is made of the logits changes with what it was made of, of a batch.

    Attributes:
        mfcc: (batch, n_frames, n_mfcc), per dB.
        hidden: For each LSTM layer and direction (batch, n_steps, units): with the hidden state of
            each step, by whatever way it acts, later steps and upper layers included.
        cell: The same with the memory cells.
    """

    mfcc: Array
    hidden: tuple[tuple[Array, ...], ...]
    cell: tuple[tuple[Array, ...], ...]


def backpropagate(network: Network, trace: Trace, d_logits: Array) -> Gradients:
    """Go back from the logits to the MFCC (Werbos, 1990: backpropagation through time).

    Args:
        network: The weights.
        trace: What ``trace`` gave of a batch, nothing switched off.
        d_logits: (batch, n_classes), the derivative of the number with respect to each logit.
    """
    states = _states(trace.lstm_layers[-1])
    kernel, _ = network.classifier
    d_states = _attention(network, trace, states, d_logits @ kernel.T)
    d_hidden: list[tuple[Array, ...]] = []
    d_cell: list[tuple[Array, ...]] = []
    for index in range(len(network.lstm_layers))[::-1]:
        cells, weights = trace.lstm_layers[index], network.lstm_layers[index]
        parts = np.split(d_states, len(cells), axis=-1)
        found = [
            _direction(c, w, d, way)
            for c, w, d, way in zip(cells, weights, parts, _ORDER, strict=False)
        ]
        d_hidden.insert(0, tuple(part[0] for part in found))
        d_cell.insert(0, tuple(part[1] for part in found))
        d_states = np.sum([part[2] for part in found], axis=0)
    for index in range(len(network.convolutions))[::-1]:
        before = trace.convolutions[index - 1] if index else trace.normalized
        kernel, _ = network.convolutions[index]
        d_states = _convolution(kernel, trace.convolutions[index], before.shape[1], d_states)
    return Gradients(d_states * network.scale, tuple(d_hidden), tuple(d_cell))


def _states(cells: tuple[Cells, ...]) -> Array:
    return np.concatenate([direction.hidden for direction in cells], axis=-1)


def _attention(network: Network, trace: Trace, states: Array, d_pooled: Array) -> Array:
    weights = trace.attention[..., np.newaxis]  # (batch, n_steps, 1)
    d_states = weights * d_pooled[:, np.newaxis]  # (batch, n_steps, n)
    if network.attention is None:
        return d_states
    kernel, bias, query = network.attention
    d_weights = (states @ d_pooled[..., np.newaxis]) - (trace.pooled * d_pooled).sum(-1)[
        :, np.newaxis, np.newaxis
    ]
    d_scores = weights * d_weights
    hidden = np.tanh(states @ kernel + bias)
    through: Array = (d_scores * query[:, 0] * (1 - hidden**2)) @ kernel.T
    return d_states + through


def _direction(
    cells: Cells, weights: tuple[Array, Array, Array], d_out: Array, way: slice
) -> tuple[Array, Array, Array]:
    """Gradients of one direction, each (batch, n_steps, ...): hidden state, cell and input."""
    kernel, recurrent, _ = weights
    i, f, g, o, c = (
        getattr(cells, name)[:, way].swapaxes(0, 1)  # (n_steps, batch, units), as it read them
        for name in ("input_gate", "forget_gate", "candidate", "output_gate", "cell")
    )
    before = np.concatenate([np.zeros_like(c[:1]), c[:-1]])
    shown = np.tanh(c)
    d_hidden = d_out[:, way].swapaxes(0, 1).copy()
    d_cell = np.zeros_like(d_hidden)
    d_z = np.empty((*c.shape[:2], 4 * c.shape[2]), d_hidden.dtype)
    for t in range(len(c))[::-1]:
        if t < len(c) - 1:
            d_hidden[t] += d_z[t + 1] @ recurrent.T
            d_cell[t] = d_cell[t + 1] * f[t + 1]
        d_cell[t] += d_hidden[t] * o[t] * (1 - shown[t] ** 2)
        d_z[t] = np.concatenate(
            [
                d_cell[t] * g[t] * i[t] * (1 - i[t]),
                d_cell[t] * before[t] * f[t] * (1 - f[t]),
                d_cell[t] * i[t] * (1 - g[t] ** 2),
                d_hidden[t] * shown[t] * o[t] * (1 - o[t]),
            ],
            axis=-1,
        )
    d_input: Array = d_z @ kernel.T

    def in_time(array: Array) -> Array:
        return array[way].swapaxes(0, 1)

    return in_time(d_hidden), in_time(d_cell), in_time(d_input)


def _convolution(kernel: Array, output: Array, n: int, d_output: Array) -> Array:
    """Gradient of what a convolution of stride 2 with ReLU was given: (batch, n, channels)."""
    batch, steps, _ = output.shape
    size, channels, _ = kernel.shape
    before, after = same_padding(n, size)
    d_seen = (d_output * (output > 0)) @ kernel.reshape(size * channels, -1).T
    d_padded = np.zeros((batch, before + n + after, channels), d_seen.dtype)
    for k in range(size):
        d_padded[:, k : k + 2 * steps : 2] += d_seen[..., k * channels : (k + 1) * channels]
    return d_padded[:, before : before + n]
