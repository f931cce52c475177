"""Which parts of the recipe pay? One change at a time on a short schedule, several seeds each.

Usage:
  python docs/experiments/ablations.py run CORPUS NEGATIVE_SPEECH SPOKEN_DIGITS [--part I/N]
  python docs/experiments/ablations.py show              the table, and the plot

``run`` adds what is missing to the results, so it can be stopped at any moment; ``--part 1/2`` and
``--part 2/2`` share the work between two processes. Runs of other code or data are not mixed: they
are named and left out.
"""

import argparse
import dataclasses
import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from speech.cores import share_cores
from speech.files import write_json

if TYPE_CHECKING:
    from speech.corpus import ContinuousSpeech, Recordings
    from speech.train_config import TrainConfig

RESULTS = Path(__file__).with_name("ablations")
PICTURE = Path(__file__).parents[1] / "ablations.png"
SEEDS = (1, 2, 3)
# Small batches, and an average over few steps: so short a run would else be mostly warming up.
SCHEDULE = {
    "epochs": 4,
    "epoch_clips": 16_000,
    "batch_size": 64,
    "warmup_epochs": 0.5,
    "ema": 0.98,
}
TRAINED_SPEECH = ("computer", "smart_mirror", "view_glass")
MEASURED_SPEECH = ("jarvis", "snowboy")
# two of the unknown words with many clips, and all with few; some of them may be among the clips of
# ``_unknown_``, which do not say their word
THIN = (
    "bird dog eight five four house marvin nine off on one seven sheila six three tree two visual "
    "wow zero"
)
HELD_OUT = ("bed", "backward", *THIN.split())
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

# A change by the dotted path into TrainConfig; the first is what all are compared with. Its LSTM is
# half as wide as that of the recipe: so many runs of the whole one would take a day.
BASE = {"architecture.lstm_units": 64}
VARIANTS: dict[str, dict[str, Any]] = {
    "the recipe, 64 units": {},
    "32 units": {"architecture.lstm_units": 32},
    "128 units": {"architecture.lstm_units": 128},
    "1 layer": {"architecture.lstm_layers": 1},
    "3 layers": {"architecture.lstm_layers": 3},
    "one-way LSTM": {"architecture.bidirectional": False},
    "one-way LSTM of 106 units": {
        "architecture.bidirectional": False,
        "architecture.lstm_units": 106,
    },
    "last state": {"architecture.pooling": "last"},
    "mean over time": {"architecture.pooling": "mean"},
    "no convolution": {"architecture.conv_filters": ()},
    "one convolution": {"architecture.conv_filters": (64,)},
    "hop 20 ms": {"features.hop_seconds": 0.02},
    "20 coefficients": {"features.n_mfcc": 20},
    "no continuous speech": {"speech_share": 0.0},
    "spoken digits for continuous speech": {"speech": "digits"},
    "halves of two words, 0.3": {"spliced_share": 0.3},
    "no microphone response": {"augment.response_probability": 0.0},
    "no background": {"augment.noise_probability": 0.0},
    "no change of speed": {"augment.speed": 0.0},
    "one length of the throat": {"augment.vocal_tract": 0.0},
    "no shift": {"augment.shift_seconds": 0.0},
    "no change of level": {"augment.gain_db": (0.0, 0.0)},
    "no hiss": {"augment.floor_probability": 0.0},
    "no masks (SpecAugment)": {"augment.time_masks": 0, "augment.coefficient_masks": 0},
    "words as often as the corpus": {"balanced": False},
    "no label smoothing": {"label_smoothing": 0.0},
    "mixup 0.2": {"mixup": 0.2},
    "no average of the weights": {"ema": 0.0},
}
RECIPE = next(iter(VARIANTS))


def main() -> None:
    """Run what is missing, or show what there is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("run", "show"))
    parser.add_argument("folders", nargs="*", type=Path, help="of the data, see above")
    parser.add_argument("--part", default="1/1", help="of the variants, for several processes")
    parser.add_argument("--only", action="append", choices=VARIANTS, help="may be repeated")
    given = parser.parse_args()
    if given.what == "show":
        show(list(_results()))
        return
    os.environ["TF_NUM_INTRAOP_THREADS"] = "1"  # two processes can share the work
    share_cores()
    part, parts = map(int, given.part.split("/"))
    chosen = list(VARIANTS if given.only is None else given.only)[part - 1 :: parts]
    run(*given.folders, chosen)


def run(corpus: Path, negative: Path, digits: Path, chosen: Sequence[str]) -> None:
    """Train and measure those variants, with every seed that has no result yet."""
    from speech.corpus import decode, read_speech, scan
    from speech.train_config import TrainConfig

    features = TrainConfig().features
    recordings = decode(scan(corpus), features, None)
    trained = {
        "negative": read_speech([negative / name for name in TRAINED_SPEECH], features),
        "digits": read_speech([digits], features),
    }
    unheard = read_speech([negative / name for name in MEASURED_SPEECH], features)
    RESULTS.mkdir(exist_ok=True)
    for name in chosen:
        changes = BASE | VARIANTS[name]
        spoken = trained[changes.pop("speech", "negative")]
        for seed in SEEDS:
            file = RESULTS / f"{_slug(name)}-{seed}.json"
            if file.exists():
                continue
            config = TrainConfig(seed=seed, excluded=HELD_OUT, **SCHEDULE)
            config = changed(config, changes)
            started = time.perf_counter()
            row = {"variant": name, "seed": seed} | _measured(config, recordings, spoken, unheard)
            row |= {"minutes": (time.perf_counter() - started) / 60}
            write_json(file, row)
            print(
                f"{name}, seed {seed}: {row['accuracy']:.2%}, {row['minutes']:.1f} min", flush=True
            )


def changed(config: "TrainConfig", changes: dict[str, Any]) -> "TrainConfig":
    """The config with fields replaced, by dotted path."""
    for path, value in changes.items():
        outer, _, inner = path.rpartition(".")
        part = dataclasses.replace(getattr(config, outer), **{inner: value}) if outer else value
        config = dataclasses.replace(config, **{outer or inner: part})
    return config


def _measured(
    config: "TrainConfig",
    recordings: "Recordings",
    spoken: "ContinuousSpeech",
    unheard: "ContinuousSpeech",
) -> dict[str, Any]:
    from speech.corpus import LabelSet, evaluation_set, to_float
    from speech.evaluation import clip_metrics
    from speech.provenance import code_digest
    from speech.recognizer import load
    from speech.robustness import conditions, rooms
    from speech.training import train

    labels = LabelSet.parse("commands-8")
    with tempfile.TemporaryDirectory() as folder:
        model = train(recordings, labels, config, Path(folder), speech=spoken)
        recognizer = load(Path(folder) / "model.keras")
    clips = evaluation_set(recordings, labels)
    metrics = clip_metrics(recognizer.probabilities(clips.waveforms), clips.truth, labels.labels)
    recall = dict(zip(metrics.labels, metrics.recall, strict=True))
    strange = [
        i
        for i, c in enumerate(recordings.corpus.clips)
        if c.word in HELD_OUT and c.split != "train"
    ]
    starts = np.random.default_rng(0).integers(len(unheard.samples) - 16_000, size=2_000)
    windows = np.stack([unheard.samples[s : s + config.features.n_samples] for s in starts])

    def commanded(samples: Any) -> float:
        called = recognizer.probabilities(to_float(samples)).argmax(axis=1)
        return float(np.mean(called < len(labels.words)))

    worse = {
        c.name: c.accuracy
        for c in conditions(recognizer, recordings, clips, only=("telephone", "10 dB SNR"))
    }
    empty = list(rooms(recognizer))
    return {
        "parameters": model.count_params(),
        "accuracy": metrics.accuracy,
        "unknown": recall["unknown"],
        "commands": float(np.mean([recall[word] for word in labels.words])),
        "held_out": 1 - commanded(recordings.samples[strange]),
        "speech": commanded(windows),
        "rooms": sum(r.false_commands for r in empty) / sum(r.n for r in empty),
        "telephone": worse["telephone band (8 kHz)"],
        "noise": worse["noise, 10 dB SNR"],
        "code": code_digest(),
        "corpus": recordings.digest,
        "speech_digests": [spoken.digest, unheard.digest],
    }


# --- the tables and the plot --------------------------------------------------------------------


def _results() -> Iterator[dict[str, Any]]:
    rows = [json.loads(path.read_text("utf-8")) for path in sorted(RESULTS.glob("*.json"))]
    sources = {(row["code"], row["corpus"]) for row in rows if row["variant"] == RECIPE}
    for row in rows:
        if len(sources) == 1 and (row["code"], row["corpus"]) not in sources:
            print(f"left out, of other code or data: {row['variant']}, seed {row['seed']}")
        else:
            yield row


def show(rows: list[dict[str, Any]]) -> None:
    """Print the table of differences from the recipe, paired by seed; draw it."""
    base = {row["seed"]: row for row in rows if row["variant"] == RECIPE}
    print(f"| Change | Parameters | Seeds | {' | '.join(MEASURES.values())} |")
    print("| --- |" + " ---: |" * (2 + len(MEASURES)))
    drawn = []
    for name in VARIANTS:
        mine = [row for row in rows if row["variant"] == name and row["seed"] in base]
        if not mine:
            continue
        cells = []
        for measure in MEASURES:
            values = np.array([row[measure] for row in mine])
            others = np.array([base[row["seed"]][measure] for row in mine])
            if name == RECIPE:
                cells.append(f"{values.mean():.1%} (spread {np.ptp(values):.1%})")
                continue
            mean, half = interval(values - others)
            if measure == "accuracy":
                drawn.append((name, mean, half))
            cells.append(f"{100 * mean:+.1f} ± {100 * half:.1f}{' *' * (abs(mean) > half)}")
        print(f"| {name} | {mine[0]['parameters']:,} | {len(mine)} | {' | '.join(cells)} |")
    minutes = sum(row["minutes"] for row in rows)
    print(f"\n{len(rows)} runs, {minutes / 60:.1f} hours altogether.")
    if drawn:
        _draw(drawn)


def interval(differences: Any) -> tuple[float, float]:
    """Mean and half of the 95 % interval of paired differences (Student's t)."""
    t95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571}
    n = len(differences)
    if n < 2:
        return float(np.mean(differences)), float("inf")
    half = t95.get(n, 1.96) * np.std(differences, ddof=1) / np.sqrt(n)
    return float(np.mean(differences)), float(half)


def _draw(rows: list[tuple[str, float, float]]) -> None:
    from matplotlib.figure import Figure

    from speech.plots import save

    figure = Figure(figsize=(8, 0.28 * len(rows) + 1.2), layout="constrained")
    axes = figure.subplots()
    names, means, halves = zip(*rows, strict=True)
    finite = [half if np.isfinite(half) else 0.0 for half in halves]
    outside = [abs(mean) > half for mean, half in zip(means, halves, strict=True)]
    for y, (mean, half, is_outside) in enumerate(zip(means, finite, outside, strict=True)):
        colour = "#b5442e" if is_outside else "#7a8794"
        axes.errorbar(100 * mean, y, xerr=100 * half, fmt="o", color=colour, capsize=3)
    axes.axvline(0, color="#333333", linewidth=0.8)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    axes.set_xlabel("Validation accuracy against the recipe, points (95 % interval over the seeds)")
    axes.set_title("One change at a time, short schedule; red: outside its interval", loc="left")
    save(figure, PICTURE)


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name)


if __name__ == "__main__":
    main()
