"""Pictures of what evaluation, training and the features say; each function returns a Figure.

No pyplot: a Figure made directly shares no state, so these run in any thread and nothing needs
closing. The colours of lines are Okabe and Ito's, which stay apart under colour blindness; so do
the maps, Blues and RdBu.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import (
    FormatStrFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    PercentFormatter,
)

from speech.evaluation.metrics import ClipMetrics, wilson_interval
from speech.features import FeatureConfig
from speech.files import replacing

BLUE, ORANGE, PALE, INK, RULE = "#0072B2", "#D55E00", "#B9D6E8", "#333333", "#DDDDDD"
GREEN, PURPLE = "#009E73", "#CC79A7"

Size = tuple[float, float]  # inches


def confusion_matrix(metrics: ClipMetrics, *, figsize: Size | None = None) -> Figure:
    """Rows are the truth: the colour is the share of the row, the number the clips (0 is blank)."""
    counts = np.asarray(metrics.confusion)
    size = len(counts)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = 2.2 + 0.34 * size
    figure = Figure(figsize=figsize or (1.1 * side + 0.8, side), layout="compressed")
    ax = figure.subplots()
    # The square root lets a confusion of 1% show beside a diagonal of 99%.
    norm = PowerNorm(0.5, vmin=0, vmax=1)
    image = ax.imshow(shares, cmap="Blues", norm=norm)
    for i, j in np.argwhere(counts):
        ink = "white" if norm(shares[i, j]) > 0.6 else INK
        ax.text(j, i, f"{counts[i, j]}", ha="center", va="center", color=ink, fontsize=8)
    ax.set_xticks(range(size), metrics.labels, rotation=90)
    ax.set_yticks(range(size), metrics.labels)
    bar = figure.colorbar(image, fraction=0.04, ticks=[0, 0.01, 0.1, 0.3, 0.6, 1], format="{x:.0%}")
    title = f"{metrics.accuracy:.1%} of {metrics.n:,} clips right"
    _dress(ax, title, "Predicted", "Truth", grid=False)
    _dress(bar.ax, "", "", "Share of the true label's clips", grid=False)
    return figure


def reliability_diagram(metrics: ClipMetrics, *, figsize: Size = (5.5, 6.5)) -> Figure:
    """Accuracy against confidence, bin by bin, above a histogram of the clips (log scale)."""
    figure = Figure(figsize=figsize, layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    filled = [b for b in metrics.reliability if b.count]
    confidence = [b.confidence for b in filled]
    accuracy = np.array([b.accuracy for b in filled])
    bounds = np.array([wilson_interval(round(b.accuracy * b.count), b.count) for b in filled])
    top.plot([0, 1], [0, 1], color=INK, linewidth=1, linestyle="--", label="perfect calibration")
    top.vlines(confidence, confidence, accuracy, color=ORANGE, linewidth=5, alpha=0.4, label="gap")
    errors = np.abs(bounds.T - accuracy)
    name = "accuracy, 95% interval"
    top.errorbar(confidence, accuracy, errors, fmt="o", color=BLUE, linewidth=1, label=name)
    top.set(xlim=(0, 1), ylim=(-0.02, 1.02))
    figure.legend(frameon=False, fontsize=9, loc="outside lower center", ncols=3)
    width = 1 / len(metrics.reliability)
    bars = bottom.bar([b.lower for b in filled], [b.count for b in filled], width, align="edge")
    for bar in bars:
        bar.set(color=PALE, edgecolor="white")
    bottom.bar_label(bars, fontsize=7, color=INK, padding=1)
    bottom.set_yscale("log")
    bottom.set_ylim(0.5, 5 * metrics.n)
    _dress(top, f"Expected calibration error {metrics.ece:.3f}", "", "Accuracy")
    _dress(bottom, "", "Confidence", "Clips")
    return figure


def learning_curves(
    history: Sequence[Mapping[str, float]], *, figsize: Size = (9.0, 6.0)
) -> Figure:
    """Loss, accuracy, learning rate and gradient norm by epoch, on a 2 x 2.

    Each row of ``history`` holds epoch, loss, accuracy, val_loss, val_accuracy, learning_rate and
    gradient_norm; whatever else it holds is left alone.

    Raises:
        ValueError: No epochs, or a row that lacks one of these.
    """
    panels = {
        "Loss": ("loss", "val_loss"),
        "Accuracy": ("accuracy", "val_accuracy"),
        "Learning rate": ("learning_rate",),
        "Gradient norm": ("gradient_norm",),
    }
    wanted = {"epoch", *(key for keys in panels.values() for key in keys)}
    if not history:
        raise ValueError("expected at least one epoch, got an empty history")
    for row in history:
        if missing := wanted - row.keys():
            raise ValueError(f"expected {sorted(wanted)} in every epoch, got no {sorted(missing)}")
    figure = Figure(figsize=figsize, layout="constrained")
    epochs = [row["epoch"] for row in history]
    marker = "o" if len(epochs) < 30 else ""
    for ax, (title, keys) in zip(figure.subplots(2, 2).flat, panels.items(), strict=True):
        for key, color, name in zip(keys, (BLUE, ORANGE), ("training", "validation"), strict=False):
            values = [row[key] for row in history]
            ax.plot(epochs, values, color=color, marker=marker, markersize=3, label=name)
        if len(keys) > 1:
            ax.legend(frameon=False, fontsize=9)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        _dress(ax, title, "Epoch", "")
    return figure


def waveform(
    samples: npt.NDArray[np.floating], sample_rate: int, *, figsize: Size = (8.0, 2.5)
) -> Figure:
    """``samples`` (n,), amplitude over seconds.

    Raises:
        ValueError: No samples, not mono, or a rate that is not positive.
    """
    if samples.ndim != 1 or not samples.size:
        raise ValueError(f"expected samples of shape (n > 0,), got {samples.shape}")
    if sample_rate <= 0:
        raise ValueError(f"expected sample_rate > 0, got {sample_rate=}")
    figure = Figure(figsize=figsize, layout="constrained")
    ax = figure.subplots()
    # At most 2000 columns, each from its lowest to its highest sample: a minute of noise drawn as
    # one line exceeds what Agg can hold.
    n = len(samples)
    starts = np.linspace(0, n, min(n, 2000), endpoint=False).astype(int)
    low, high = np.minimum.reduceat(samples, starts), np.maximum.reduceat(samples, starts)
    ax.fill_between(starts / sample_rate, low, high, color=BLUE, linewidth=0.7)
    limit = 1.1 * max(float(np.abs(samples).max()), 0.01)
    ax.set(xlim=(0, n / sample_rate), ylim=(-limit, limit))
    _dress(ax, "", "Time (s)", "Amplitude")
    return figure


def mfcc_image(
    mfcc: npt.NDArray[np.floating], config: FeatureConfig, *, figsize: Size = (8.0, 3.5)
) -> Figure:
    """``mfcc`` (n_frames, n_mfcc): time runs right, coefficients up; frames lie at their middle.

    Raises:
        ValueError: No frames, or another number of coefficients than ``config.n_mfcc``.
    """
    if mfcc.ndim != 2 or not mfcc.size or mfcc.shape[1] != config.n_mfcc:
        raise ValueError(f"expected mfcc of shape (n > 0, {config.n_mfcc}), got {mfcc.shape}")
    n_frames, n_mfcc = mfcc.shape
    figure = Figure(figsize=figsize, layout="constrained")
    ax = figure.subplots()
    start = (config.n_fft - config.hop_length) / 2 / config.sample_rate
    stop = start + n_frames * config.hop_length / config.sample_rate
    # Coefficient 0 is loudness, ten times the rest: let it saturate, or nothing else would show.
    limit = np.percentile(np.abs(mfcc[:, 1:] if n_mfcc > 1 else mfcc), 99)
    image = ax.imshow(
        mfcc.T,
        cmap="RdBu_r",
        vmin=-limit,
        vmax=limit,
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        extent=(start, stop, -0.5, n_mfcc - 0.5),
    )
    bar = figure.colorbar(image, extend="both", aspect=15)
    ax.yaxis.set_major_locator(MaxNLocator(steps=[1, 2, 5, 10], integer=True))
    _dress(ax, "", "Time (s)", "Coefficient", grid=False)
    _dress(bar.ax, "", "", "Value", grid=False)
    return figure


def det_curves(
    curves: Mapping[str, Sequence[Sequence[float]]], *, figsize: Size = (6.5, 5.5)
) -> Figure:
    """Misses against false accepts per hour, one line a condition.

    Each curve is a sequence of (threshold, share missed, false accepts per hour). A rate of zero,
    which a logarithmic axis does not have, stands at the left edge, and no miss at the lower one.

    Raises:
        ValueError: No curve, or one without points.
    """
    if not curves or not all(curves.values()):
        raise ValueError("expected at least one curve, each with points, got none")
    figure = Figure(figsize=figsize, layout="constrained")
    ax = figure.subplots()
    positive = [rate for curve in curves.values() for _, _, rate in curve if rate > 0]
    left = min(positive, default=1.0) / 2
    seldom = [miss for curve in curves.values() for _, miss, _ in curve if miss > 0]
    bottom = min(seldom, default=1.0) / 2
    for place, (name, curve) in enumerate(curves.items()):
        rates = [max(rate, left) for _, _, rate in curve]
        missed = [max(miss, bottom) for _, miss, _ in curve]
        color = (BLUE, ORANGE, GREEN, PURPLE)[place % 4]
        ax.plot(rates, missed, color=color, marker="o", markersize=3, linewidth=1, label=name)
    ax.set(xscale="log", yscale="log", xlim=(left / 1.2, None), ylim=(bottom / 1.2, 1.05))
    for axis, form in ((ax.yaxis, PercentFormatter(1.0)), (ax.xaxis, FormatStrFormatter("%g"))):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(form)
        axis.set_minor_formatter(NullFormatter())
    ax.legend(frameon=False, fontsize=9)
    _dress(ax, "Each point is a threshold", "False accepts per hour", "Words missed")
    return figure


def timeline(
    found: Sequence[tuple[float, str]],
    seconds: float,
    labels: Sequence[str],
    *,
    title: str = "",
    figsize: Size | None = None,
) -> Figure:
    """When each label was detected: ``found`` holds (time in seconds, label), a mark each.

    Raises:
        ValueError: No time to show, or a label that is not among ``labels``.
    """
    if not seconds > 0:
        raise ValueError(f"expected seconds > 0, got {seconds=}")
    if strange := sorted({label for _, label in found} - set(labels)):
        raise ValueError(f"expected labels among {list(labels)}, got {strange}")
    figure = Figure(figsize=figsize or (10.0, 1.2 + 0.3 * len(labels)), layout="constrained")
    ax = figure.subplots()
    scale, unit = (1, "s") if seconds < 600 else (60, "min") if seconds < 36_000 else (3600, "h")
    places = {label: len(labels) - 1 - i for i, label in enumerate(labels)}
    times = [time / scale for time, _ in found]
    heights = [places[label] for _, label in found]
    ax.plot(times, heights, "|", color=BLUE, markersize=14, markeredgewidth=1.5)
    ax.set_yticks(list(places.values()), list(places))
    ax.set(xlim=(0, seconds / scale), ylim=(-0.7, len(labels) - 0.3))
    _dress(ax, title, f"Time ({unit})", "")
    return figure


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a PNG at 120 dots per inch; ``path`` holds the old picture or the whole new one."""
    with replacing(Path(path)) as part:
        figure.savefig(part, format="png", dpi=120)


def _dress(ax: Axes, title: str, xlabel: str, ylabel: str, *, grid: bool = True) -> None:
    """The one look of all axes: words in ink, a faint grid behind, no frame."""
    ax.set_title(title, color=INK, fontsize=11, loc="left")
    ax.set_xlabel(xlabel, color=INK)
    ax.set_ylabel(ylabel, color=INK)
    ax.tick_params(colors=INK, labelsize=9, length=0, which="both")
    ax.spines[:].set_visible(False)
    ax.set_axisbelow(True)
    if grid:
        ax.grid(color=RULE, linewidth=0.6)
