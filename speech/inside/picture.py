"""An explanation as one picture: everything above one another on the same time axis."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from speech.evaluation.plots import BLUE, INK, ORANGE, Size
from speech.formats.weights import Array

# what is drawn of each direction of each layer: name, title, color map, lowest and highest value
_CELLS = (
    ("input_gate", "input gate", "viridis", 0, 1),
    ("forget_gate", "forget gate", "viridis", 0, 1),
    ("candidate", "candidate", "RdBu_r", -1, 1),
    ("output_gate", "output gate", "viridis", 0, 1),
    ("cell", "cell", "RdBu_r", None, None),
    ("hidden", "hidden state", "RdBu_r", -1, 1),
)


def picture(
    header: Mapping[str, Any], arrays: Mapping[str, Array], *, figsize: Size = (15.0, 9.0)
) -> Figure:
    """Draw what ``speech.inside.packing.contents`` or ``unpack`` gives.

    On the left what the network is given and what it answers, on the right a column for each
    direction of each layer, with its units from bottom to top in the order in which they are
    active. Colors are full where one number in fifty lies above.
    """
    columns = [
        (f"layer.{number}.{direction}", f"Layer {number + 1}, {direction}")
        for number, layer in enumerate(header["layers"])
        for direction in layer["directions"]
    ]
    figure = Figure(figsize=figsize, layout="constrained")
    widths = [2.2, *([1] * len(columns))]
    axes = figure.subplots(len(_CELLS), len(widths), sharex=True, width_ratios=widths)
    _given_and_answered(axes[:, 0], header, arrays)
    for column, (prefix, title) in zip(axes.T[1:], columns, strict=True):
        order = arrays[f"{prefix}.order"]
        for ax, (name, what, colors, low, high) in zip(column, _CELLS, strict=True):
            values = arrays[f"{prefix}.{name}"][:, order]
            limit = _limit(values) if high is None else high
            _heat(ax, values, header["step_times"], colors, -limit if low is None else low, limit)
            ax.set_title(what, color=INK, fontsize=8, loc="left", pad=2)
            ax.set_yticks([])
        column[0].set_title(f"{title}\n{_CELLS[0][1]}", color=INK, fontsize=8, loc="left", pad=2)
    for ax in axes[-1]:
        ax.set_xlabel("Time (s)", color=INK, fontsize=8)
    axes[0, 0].set_xlim(0, header["seconds"])
    figure.suptitle(
        f"{header['model']}: {header['answer']} ({header['probability']:.0%})",
        color=INK, fontsize=12, x=0.01, ha="left",
    )  # fmt: skip
    return figure


def _given_and_answered(axes: Any, header: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
    waveform, mel, attribution, mfcc, attention, probabilities = axes
    peaks = arrays["waveform"]
    times = np.linspace(0, header["seconds"], len(peaks))
    waveform.fill_between(times, peaks[:, 0], peaks[:, 1], color=BLUE, linewidth=0.5)
    _title(waveform, "waveform")
    frames, steps = header["frame_times"], header["step_times"]
    _heat(mel, arrays["mel"], frames, "magma")
    _title(mel, f"mel spectrogram, {header['frequencies'][0]:g} to {header['frequencies'][1]:g} Hz")
    if "attribution" in arrays:
        values = arrays["attribution"]
        limit = _limit(values)
        _heat(attribution, values, frames, "RdBu_r", -limit, limit)
        _title(attribution, f"what speaks for {header['attribution']['label']} (red) or against")
    else:
        attribution.set_visible(False)
    limit = _limit(arrays["mfcc"][:, 1:])  # the first one is loudness, ten times the rest
    _heat(mfcc, arrays["mfcc"], frames, "RdBu_r", -limit, limit)
    _title(mfcc, "MFCC")
    places = steps[0] + steps[1] * np.arange(len(arrays["attention"]))
    attention.bar(places, arrays["attention"], steps[1] * 0.9, color=ORANGE)
    _title(attention, "attention: what each step counts")
    if "probabilities" in arrays:
        best = np.argsort(-arrays["probabilities"].max(axis=0), kind="stable")[:4]
        for label in best:
            name = header["labels"][label]
            probabilities.plot(places, arrays["probabilities"][:, label], label=name, linewidth=1.2)
        probabilities.legend(frameon=False, fontsize=7, loc="center right", labelcolor=INK)
    _title(probabilities, "probabilities, had the clip ended there")


def _limit(values: Array) -> float:
    return float(np.percentile(np.abs(values), 98)) or 1.0


def _heat(
    ax: Axes,
    values: Array,
    times: list[float],
    colors: str,
    low: float | None = None,
    high: float | None = None,
) -> None:
    """(n, rows): time runs right, the first row is at the bottom."""
    first, step = times
    extent = (first - step / 2, first + (len(values) - 0.5) * step, 0, values.shape[1])
    ax.imshow(
        values.T, cmap=colors, vmin=low, vmax=high, extent=extent, origin="lower", aspect="auto",
        interpolation="nearest",
    )  # fmt: skip
    _quiet(ax)


def _title(ax: Axes, text: str) -> None:
    ax.set_title(text, color=INK, fontsize=8, loc="left", pad=2)
    _quiet(ax)


def _quiet(ax: Axes) -> None:
    ax.tick_params(colors=INK, labelsize=7, length=0)
    ax.spines[:].set_visible(False)
