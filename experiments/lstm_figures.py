"""The pictures and tables of docs/lstm.md, drawn from docs/lstm/measured.json by lstm_page.py."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from speech.evaluation.markdown import interval, table
from speech.evaluation.plots import BLUE, GREEN, INK, ORANGE, PURPLE, RULE, save
from speech.files import replacing, write_text
from speech.inside.attribution import attribute
from speech.inside.explanation import explain, open_model, read_clip
from speech.inside.packing import contents
from speech.inside.picture import picture

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "speech" / "web" / "static" / "examples" / "left.wav"
PAGE = ROOT / "docs" / "lstm.md"
COLORS = (BLUE, ORANGE, GREEN, PURPLE)
MAIN = ("LSTM", "plain tanh RNN", "LSTM, badly initialized")
OFF = (
    "LSTM", "LSTM, no forget bias", "LSTM, recurrent kernel not orthogonal", "LSTM, no clipping",
)  # fmt: skip
BACK = 20  # steps before the last, whose gradient the table gives


def draw(folder: Path, measured: Mapping[str, Any]) -> None:
    """Draw everything of which there is something measured, and write the tables into the page."""
    figures: dict[str, Callable[[Any], Figure]] = {
        "clip": _unit,
        "training": lambda found: _gradients(found["networks"], MAIN),
        "unfolding": _unfolding,
        "gradients": _states,
        "forecast": _forecast,
    }
    names = {"clip": "unit", "training": "gradients", "gradients": "states"}
    for section, figure in figures.items():
        if section in measured:
            _save(figure(measured[section]), folder / f"{names.get(section, section)}.svg")
    if "training" in measured:
        _save(_gradients(measured["training"]["networks"], OFF), folder / "switched_off.svg")
    model = open_model()
    seen = explain(model, read_clip(EXAMPLE, model, on_note=lambda _: None))
    given = contents(seen, attribute(model, seen.log_mel))
    save(picture(*given, figsize=(10.0, 7.0)), folder / "clip.png")
    write_text(PAGE, with_tables(PAGE.read_text("utf-8"), measured))


def with_tables(text: str, measured: Mapping[str, Any]) -> str:
    """The page with the tables of what was measured, between its marks."""
    tables: dict[str, Callable[[Any], str]] = {
        "parts": _parts_table,
        "training": _training_table,
        "lengths": _lengths_table,
        "unfolding": _attention_table,
        "forecast": _forecast_table,
    }
    for section, make in tables.items():
        if section in measured:
            before, start, rest = text.partition(f"<!-- {section} -->\n")
            _, end, after = rest.partition("<!-- end -->")
            text = f"{before}{start}{make(measured[section])}\n{end}{after}"
    return text


def _save(figure: Figure, path: Path) -> None:
    with replacing(path) as part:
        figure.savefig(part, format="svg", metadata={"Date": None})


def _axes(
    n: int, width: float = 9.0, height: float = 3.2, *, sharey: bool = False
) -> tuple[Figure, Sequence[Axes]]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes: Sequence[Axes] = figure.subplots(1, n, sharey=sharey, squeeze=False)[0]
    for ax in axes:
        ax.tick_params(colors=INK, labelsize=8, length=0, which="both")
        ax.spines[:].set_visible(False)
        ax.grid(color=RULE, linewidth=0.6)
        ax.set_axisbelow(True)
    return figure, axes


def _name(ax: Axes, title: str, x: str, y: str = "") -> None:
    ax.set_title(title, color=INK, fontsize=10, loc="left")
    ax.set_xlabel(x, color=INK, fontsize=9)
    ax.set_ylabel(y, color=INK, fontsize=9)


def _unit(found: Mapping[str, Any]) -> Figure:
    figure, (left, right) = _axes(2)
    first, step = found["step_times"]
    series = found["series"]
    times = first + step * np.arange(len(series["cell"]))
    for name, color in zip(("input_gate", "forget_gate", "output_gate"), COLORS, strict=False):
        left.plot(times, series[name], color=color, label=name.replace("_", " "))
    left.plot(times, series["candidate"], color=PURPLE, linestyle="--", label="candidate")
    right.plot(times, series["cell"], color=BLUE, label="memory cell")
    right.plot(times, series["hidden"], color=ORANGE, label="hidden state")
    _name(left, f"Gates of unit {found['unit']}", "Time (s)")
    _name(right, "What it remembers and shows", "Time (s)")
    for ax in (left, right):
        ax.legend(frameon=False, fontsize=8, labelcolor=INK)
    return figure


def _gradients(networks: Mapping[str, Any], names: Sequence[str]) -> Figure:
    figure, axes = _axes(2, height=3.6, sharey=True)
    for ax, when, title in zip(axes, ("before", "after"), ("Before", "After"), strict=True):
        for name, color in zip(names, COLORS, strict=False):
            curve = _typical(networks[name], when)
            back = np.arange(len(curve))[::-1]
            ax.plot(back, curve / curve[-1], color=color, label=name)
        ax.set_yscale("log")
        _name(ax, f"{title} the training", "Steps before the last")
    axes[0].set_ylabel("Gradient, relative to the last step", color=INK, fontsize=9)
    figure.legend(
        *axes[0].get_legend_handles_labels(), frameon=False, fontsize=8, labelcolor=INK,
        loc="outside lower center", ncols=len(names),
    )  # fmt: skip
    return figure


def _typical(runs: Sequence[Mapping[str, Any]], when: str) -> Any:
    """The geometric mean over the seeds, (n_steps,)."""
    return np.exp(np.mean(np.log([np.maximum(run[when], 1e-30) for run in runs]), axis=0))


def _states(found: Mapping[str, Any]) -> Figure:
    figure, (ax,) = _axes(1, width=7.0)
    for (name, norms), color in zip(found["norms"].items(), COLORS, strict=False):
        ax.plot(np.arange(1, len(norms) + 1), norms, color=color, label=name)
    ax.set_ylim(bottom=0)
    ax.legend(frameon=False, fontsize=8, labelcolor=INK)
    _name(ax, "The bundled model: gradient of the answer by step", "Step", "Norm, mean of clips")
    return figure


def _unfolding(found: Mapping[str, Any]) -> Figure:
    figure, (left, right) = _axes(2)
    steps = np.arange(1, len(found["right"]) + 1)
    left.plot(steps, found["right"], color=BLUE)
    left.set_ylim(0, 1.02)
    _name(left, "Right, had the clip fallen silent", "After step", "Share of clips")
    total = np.cumsum(found["attention_loudest_first"])
    right.plot(steps, total, color=ORANGE, label="attention")
    right.plot(steps, steps / len(steps), color=INK, linestyle="--", linewidth=1, label="the mean")
    right.legend(frameon=False, fontsize=8, labelcolor=INK)
    _name(right, "Attention on the loudest steps", "So many of them", "")
    return figure


def _forecast(found: Mapping[str, Any]) -> Figure:
    figure, (ax,) = _axes(1, width=7.0)
    names = {"LSTM": BLUE, "last value": ORANGE, "mean": INK}
    for name, color in names.items():
        errors = found["errors"][name]
        style = "--" if name == "mean" else "-"
        ax.plot(np.arange(1, len(errors) + 1), errors, style, color=color, label=name)
    ax.set_ylim(bottom=0)
    ax.legend(frameon=False, fontsize=8, labelcolor=INK)
    _name(ax, "Error of the forecast", "Frames ahead (10 ms each)", "RMSE in standard deviations")
    return figure


def _parts_table(rows: Sequence[Mapping[str, Any]]) -> str:
    return table(
        ("Switched off", "Accuracy", "95 % interval", "Answers that change"),
        (
            (r["name"], f"{r['accuracy']:.1%}", interval(*r["interval"]), f"{r['changed']:.1%}")
            for r in rows
        ),
    ) + f"\n\n{rows[0]['n']:,} validation clips."  # fmt: skip


def _training_table(found: Mapping[str, Any]) -> str:
    rows = []
    for name, runs in found["networks"].items():
        accuracies = [run["accuracy"] for run in runs]
        rows.append(
            (
                name,
                f"{np.mean(accuracies):.1%}",
                interval(min(accuracies), max(accuracies)),
                f"{max(run['largest_norm'] for run in runs):.3g}",
                f"{np.mean([run['clipped'] for run in runs]):.0%}",
                *(f"{_reaching(runs, when):.2g}" for when in ("before", "after")),
            )
        )
    header = (
        "Network", "Accuracy", "Lowest to highest", "Largest gradient norm", "Norm above 1",
        f"Gradient {BACK} steps back, untrained", "trained",
    )  # fmt: skip
    seeds = len(next(iter(found["networks"].values())))
    return (
        f"{table(header, rows)}\n\n{found['clips']:,} clips of eight words, {seeds} seeds; "
        f"accuracy on {found['tested']:,} clips of other speakers."
    )


def _reaching(runs: Sequence[Mapping[str, Any]], when: str) -> float:
    curve = _typical(runs, when)
    return float(curve[-1 - BACK] / curve[-1])


def _lengths_table(rows: Sequence[Mapping[str, Any]]) -> str:
    return table(
        ("A clip shorter than a second is given", "Accuracy", "95 % interval"),
        ((r["name"], f"{r['accuracy']:.1%}", interval(*r["interval"])) for r in rows),
    ) + f"\n\n{rows[0]['n']:,} validation clips."  # fmt: skip


def _attention_table(found: Mapping[str, Any]) -> str:
    loudest = found["attention_loudest_first"]
    half = len(loudest) // 2
    right = found["right"]
    on_loudest = f"{sum(loudest[:half]):.1%}"
    return table(
        ("On some validation clips", "Measured"),
        (
            ("clips", f"{found['clips']}"),
            (f"attention on the {half} loudest of {len(loudest)} steps", on_loudest),
            ("the same of a mean", f"{half / len(loudest):.1%}"),
            ("right with attention", f"{right[-1]:.1%}"),
            ("right with the mean instead", f"{found['mean']['accuracy']:.1%}"),
            (f"right, had the clip fallen silent after {half} steps", f"{right[half - 1]:.1%}"),
        ),
    )  # fmt: skip


def _forecast_table(found: Mapping[str, Any]) -> str:
    errors = found["errors"]
    horizons = range(1, len(errors["LSTM"]) + 1)
    rows = [(name, *(f"{e:.2f}" for e in values)) for name, values in errors.items()]
    better = [
        f"{1 - own / naive:.0%}"
        for own, naive in zip(errors["LSTM"], errors["last value"], strict=True)
    ]
    rows.append(("less error than the last value", *better))
    return (
        f"{table(('Frames ahead', *map(str, horizons)), rows)}\n\nTrained on {found['clips']:,} "
        f"clips, measured on {found['tested']:,} of other speakers."
    )
