"""Which parts of the recipe of 2026-11 paid? One change at a time on a short schedule.

    python experiments/ablations.py                        the tables, and the plot

``ablations.jsonl`` holds a run a line, with the digests of its code and data. The code that ran
them is that of the version before the augmentation became array code; what these runs rejected
(mixup, halves of two words, the last state instead of attention) has been taken out since.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).with_name("ablations.jsonl")
PICTURE = Path(__file__).parents[1] / "docs" / "ablations.png"
SEEDS = (1, 2, 3)
HELD_OUT_CLIPS = 395  # of the validation speakers
MEASURES = {
    "accuracy": "Validation",
    "unknown": "Unknown recall",
    "commands": "Commands recall",
    "held_out": "Held-out words unknown",
    "speech": "Speech called a command",
    "rooms": "Rooms called a command",
    "telephone": "Telephone band",
    "noise": "10 dB SNR",
}
VARIANTS = (
    "the recipe, 64 units",
    "32 units",
    "128 units",
    "1 layer",
    "3 layers",
    "one-way LSTM",
    "last state",
    "mean over time",
    "no convolution",
    "hop 20 ms",
    "20 coefficients",
    "no continuous speech",
    "halves of two words, 0.3",
    "words backwards",
    "pieces of commands",
    "four words at once (babble)",
    "spoken digits as words",
    "_unknown_ counts as 20 words",
    "no microphone response",
    "no background",
    "no change of speed",
    "one vocal tract length",
    "no shift",
    "no change of level",
    "no hiss",
    "no masks (SpecAugment)",
    "words as often as the corpus",
    "no label smoothing",
    "mixup 0.2",
    "no average of the weights",
    "taught by an ensemble of three seeds",
)
RECIPE = VARIANTS[0]
LONG = (
    "the recipe",
    "with all the harder negatives",
)


def _results() -> Iterator[dict[str, Any]]:
    rows = [json.loads(line) for line in RESULTS.read_text("utf-8").splitlines()]
    sources = {(row["code"], row["corpus"]) for row in rows if row["variant"] == RECIPE}
    for row in rows:
        if len(sources) == 1 and (row["code"], row["corpus"]) not in sources:
            print(f"left out, of other code or data: {row['variant']}, seed {row['seed']}")
        else:
            yield row


def show(rows: list[dict[str, Any]]) -> None:
    """Print the table of differences from the recipe; draw it."""
    runs = {name: [row for row in rows if row["variant"] == name] for name in VARIANTS}
    done = {name: mine for name, mine in runs.items() if len(mine) >= len(SEEDS)}
    print(f"| Change | Parameters | {' | '.join(MEASURES.values())} |")
    print("| --- |" + " ---: |" * (1 + len(MEASURES)))
    table = {
        measure: {name: [row[measure] for row in mine] for name, mine in done.items()}
        for measure in MEASURES
    }
    apart = {measure: differences(values) for measure, values in table.items()}
    for name, mine in done.items():
        cells = []
        for measure in MEASURES:
            values, (mean, half) = table[measure][name], apart[measure][name]
            outside = " *" * (abs(mean) > half)
            cells.append(
                f"{np.mean(values):.1%} (spread {np.ptp(values):.1%})"
                if name == RECIPE
                else f"{100 * mean:+.1f} ± {100 * half:.1f}{outside}"
            )
        print(f"| {name} | {mine[0]['parameters']:,} | {' | '.join(cells)} |")
    _show_long([row for row in rows if row["variant"] in LONG])
    minutes = sum(row["minutes"] for row in rows)
    print(f"\n{len(rows)} runs, {minutes / 60:.1f} hours altogether.")
    missing = [name for name in VARIANTS if name not in done]
    if missing:
        print(f"Not all seeds of {', '.join(missing)} have run: left out.")
    _draw([(name, *apart["accuracy"][name]) for name in done if name != RECIPE])


def differences(values: dict[str, list[float]]) -> dict[str, tuple[float, float]]:
    """For each variant the mean less that of the recipe, and half of its 95 % interval.

    The variance between seeds is taken to be the same for all variants and pooled over them, as in
    an analysis of variance: three seeds alone tell next to nothing about it.
    """
    from scipy.stats import t

    freedom = sum(len(v) - 1 for v in values.values())
    variance = sum(np.var(v) * len(v) for v in values.values()) / freedom
    base = values[RECIPE]
    wide = float(t.ppf(0.975, freedom) * np.sqrt(variance))
    return {
        name: (float(np.mean(v) - np.mean(base)), wide * float(np.sqrt(1 / len(v) + 1 / len(base))))
        for name, v in values.items()
    }


def _show_long(rows: Sequence[dict[str, Any]]) -> None:
    from speech.evaluation.metrics import wilson_interval

    print(f"\n| 128 units, 30 epochs | {' | '.join(MEASURES.values())} |")
    print("| --- |" + " ---: |" * len(MEASURES))
    for row in sorted(rows, key=lambda row: LONG.index(row["variant"])):
        cells = [f"{row[measure]:.1%}" for measure in MEASURES]
        low, high = wilson_interval(round(row["held_out"] * HELD_OUT_CLIPS), HELD_OUT_CLIPS)
        place = list(MEASURES).index("held_out")
        cells[place] += f" ({low:.1%} to {high:.1%})"
        print(f"| {row['variant']} | {' | '.join(cells)} |")


def _draw(rows: list[tuple[str, float, float]]) -> None:
    from matplotlib.figure import Figure

    from speech.evaluation.plots import save

    figure = Figure(figsize=(8, 0.28 * len(rows) + 1.2), layout="constrained")
    axes = figure.subplots()
    names, means, halves = zip(*rows, strict=True)
    outside = [abs(mean) > half for mean, half in zip(means, halves, strict=True)]
    for y, (mean, half, is_outside) in enumerate(zip(means, halves, outside, strict=True)):
        colour = "#b5442e" if is_outside else "#7a8794"
        axes.errorbar(100 * mean, y, xerr=100 * half, fmt="o", color=colour, capsize=3)
    axes.axvline(0, color="#333333", linewidth=0.8)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    axes.set_xlabel("Validation accuracy against the recipe, points; 95 % interval")
    axes.set_title("One change at a time; red: outside the interval", loc="left")
    save(figure, PICTURE)


if __name__ == "__main__":
    show(list(_results()))
