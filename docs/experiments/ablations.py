"""Which parts of the recipe pay? One change at a time on a short schedule, several seeds each.

Usage:
  python docs/experiments/ablations.py run CORPUS NEGATIVE_SPEECH SPOKEN_DIGITS [--part I/N]
                                          [--only VARIANT ...]
  python docs/experiments/ablations.py show              the table, and the plot

``run`` adds what is missing to the results, so it can be stopped at any moment; ``--part 1/2`` and
``--part 2/2`` share the work between two processes. Runs of other code or data are not mixed: they
are named and left out.
"""

import argparse
import contextlib
import dataclasses
import hashlib
import json
import os
import tempfile
import time
import unittest.mock
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from speech.environment import share_cores
from speech.files import replacing, write_json

if TYPE_CHECKING:
    from speech.data.recordings import ContinuousSpeech, Recordings
    from speech.model import CommandModel
    from speech.training.batches import Batch
    from speech.training.config import TrainConfig

RESULTS = Path(__file__).with_name("ablations")
PICTURE = Path(__file__).parents[1] / "ablations.png"
SEEDS = (1, 2, 3)
# Small batches, and an average over few steps: so short a run would else be mostly warming up.
SCHEDULE: dict[str, Any] = {
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
    "last state": {"architecture.pooling": "last"},
    "mean over time": {"architecture.pooling": "mean"},
    "no convolution": {"architecture.conv_filters": ()},
    "hop 20 ms": {"features.hop_seconds": 0.02},
    "20 coefficients": {"features.n_mfcc": 20},
    "no continuous speech": {"speech_share": 0.0},
    "halves of two words, 0.3": {"spliced_share": 0.3},
    "words backwards": {"corpus": "backwards"},
    "pieces of commands": {"corpus": "pieces"},
    "four words at once (babble)": {"corpus": "babble"},
    "spoken digits as words": {"corpus": "digits"},
    "_unknown_ counts as 20 words": {"corpus": "further"},
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
    "taught by an ensemble of three seeds": {"taught": True},
}
RECIPE = next(iter(VARIANTS))
SAME_CLIPS = {"architecture", "label_smoothing", "ema", "taught"}

# The network of the recipe on half of its schedule, since an unknown that is half learnt says
# little about words that were never heard. One seed each.
LONG_SCHEDULE = {
    "architecture.lstm_units": 128,
    "epochs": 30,
    "batch_size": 128,
    "warmup_epochs": 2.0,
    "ema": 0.995,
}
LONG: dict[str, dict[str, Any]] = {
    "the recipe": LONG_SCHEDULE,
    "with all the harder negatives": LONG_SCHEDULE
    | {"corpus": "backwards pieces further", "spliced_share": 0.3},
}


def main() -> None:
    """Run what is missing, or show what there is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("run", "show"))
    parser.add_argument("folders", nargs="*", type=Path, help="of the data, see above")
    parser.add_argument("--part", default="1/1", help="of the variants, for several processes")
    parser.add_argument("--only", action="append", choices=VARIANTS | LONG, help="may be repeated")
    given = parser.parse_args()
    if given.what == "show":
        show(list(_results()))
        return
    os.environ["TF_NUM_INTRAOP_THREADS"] = "1"  # two processes can share the work
    share_cores()
    part, parts = map(int, given.part.split("/"))
    chosen = list(VARIANTS if given.only is None else given.only)[part - 1 :: parts]
    train_all(*given.folders, chosen=chosen)


def train_all(corpus: Path, negative: Path, digits: Path, *, chosen: Sequence[str]) -> None:
    """Train and measure those variants, with every seed that has no result yet."""
    from speech.data.corpus import index_corpus
    from speech.data.recordings import decode, default_cache, read_speech
    from speech.model import load_model
    from speech.training.config import TrainConfig
    from speech.training.provenance import code_digest

    features = TrainConfig().features
    recordings = decode(index_corpus(corpus), features, None)
    ten_digits = decode(index_corpus(digits), features, None)
    spoken = read_speech([negative / name for name in TRAINED_SPEECH], features)
    unheard = read_speech([negative / name for name in MEASURED_SPEECH], features)
    RESULTS.mkdir(exist_ok=True)
    made_of = [code_digest(), recordings.digest, spoken.digest, SCHEDULE, HELD_OUT]
    key = hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:32]
    for name in chosen:
        changes = BASE | (VARIANTS | LONG)[name]
        # what hears the same clips with the same augmentation shares its batches
        same = {path.partition(".")[0] for path in changes} <= SAME_CLIPS
        kept = default_cache() / f"ablations-{key}" if same else None
        kinds = changes.pop("corpus", "").split()
        heard = harder(recordings, kinds, ten_digits) if kinds else recordings
        taught = changes.pop("taught", False)
        teachers: list[CommandModel] = []
        for seed in SEEDS if name in VARIANTS else SEEDS[:1]:
            file = RESULTS / f"{_slug(name)}-{seed}.json"
            if file.exists():
                continue
            config = TrainConfig(seed=seed, excluded=HELD_OUT, **SCHEDULE)
            config = changed(config, changes)
            if taught and not teachers:
                for other in SEEDS:
                    with _trained(
                        dataclasses.replace(config, seed=other), heard, spoken, kept
                    ) as run:
                        teachers.append(load_model(run / "model.keras"))
            started = time.perf_counter()
            with _trained(config, heard, spoken, kept, teachers) as run:
                row = {"variant": name, "seed": seed}
                row |= _measured(run / "model.keras", recordings, unheard)
            row |= {
                "code": code_digest(),
                "corpus": recordings.digest,
                "speech_digests": [spoken.digest, unheard.digest],
            }
            row |= {"minutes": (time.perf_counter() - started) / 60}
            write_json(file, row)
            print(
                f"{name}, seed {seed}: {row['accuracy']:.2%}, {row['minutes']:.1f} min", flush=True
            )


def harder(recordings: "Recordings", kinds: Sequence[str], digits: "Recordings") -> "Recordings":
    """The corpus with further clips to train unknown on; what validates stays as it is.

    Args:
        recordings: The corpus.
        kinds: Any of ``backwards``, ``pieces`` of commands (half of the energy, from anywhere),
            ``babble`` of four other words, ``digits``, ``further`` (the clips of ``_unknown_``,
            which are of many words, weigh as much as twenty words).
        digits: Spoken digits, as a corpus.
    """
    from speech.audio import to_int16
    from speech.data.corpus import UNKNOWN_FOLDER, Clip
    from speech.data.datasets import parse_labels

    rng = np.random.default_rng(0)
    clips, samples = recordings.corpus.clips, recordings.samples
    words = parse_labels("commands-8").words
    training = [i for i, clip in enumerate(clips) if clip.split == "train"]
    commands = [i for i in training if clips[i].word in words]
    others = [i for i in training if clips[i].word not in (*words, *HELD_OUT)]
    for kind in kinds:
        if kind == "further":
            clips = tuple(
                dataclasses.replace(clip, word=f"{UNKNOWN_FOLDER}{rng.integers(20)}")
                if clip.word == UNKNOWN_FOLDER and clip.split == "train"
                else clip
                for clip in clips
            )
            continue
        if kind == "digits":
            clips += tuple(Clip(c.path, f"digit {c.word}", "train") for c in digits.corpus.clips)
            samples = np.concatenate([samples, digits.samples])
            continue
        made = np.empty((1_500, samples.shape[1]), np.int16)
        for row in made:
            row[:] = samples[rng.choice(commands)]
            if kind == "babble":
                row[:] = to_int16(samples[rng.choice(others, 4)].sum(axis=0) / np.float32(65536))
            elif kind == "backwards":
                row[:] = row[::-1].copy()
            elif kind == "pieces":
                energy = np.cumsum(np.square(row, dtype=np.float64))
                first = rng.uniform(0, 1 / 2)
                row[(energy < first * energy[-1]) | (energy > (first + 1 / 2) * energy[-1])] = 0
        clips += tuple(Clip(f"{kind}/{i}", kind, "train") for i in range(len(made)))
        samples = np.concatenate([samples, made])
    corpus = dataclasses.replace(recordings.corpus, clips=clips)
    return dataclasses.replace(recordings, corpus=corpus, samples=samples)


def changed(config: "TrainConfig", changes: dict[str, Any]) -> "TrainConfig":
    """The config with fields replaced, by dotted path."""
    for path, value in changes.items():
        outer, _, inner = path.rpartition(".")
        part = dataclasses.replace(getattr(config, outer), **{inner: value}) if outer else value
        config = dataclasses.replace(config, **{outer or inner: part})
    return config


@contextlib.contextmanager
def _trained(
    config: "TrainConfig",
    recordings: "Recordings",
    spoken: "ContinuousSpeech",
    kept: Path | None,
    teachers: "Sequence[CommandModel]" = (),
) -> Iterator[Path]:
    """The folder of a training run, for as long as it is looked at.

    Batches are made once, where they are kept in a folder. Where there are teachers, half of the
    target is the mean of what they say of the very same features (Hinton et al., arXiv 1503.02531,
    at temperature 1).
    """
    from speech.data.datasets import parse_labels
    from speech.training import trainer
    from speech.training.batches import Batch, ClipSource

    class Source(ClipSource):
        def batches(self, epoch: int) -> Iterator[Batch]:
            file = kept and kept / f"{config.seed}-{epoch}.npz"
            for x, y in _kept(file, super().batches(epoch)):
                said = [trainer.predict_logits(teacher, x) for teacher in teachers]
                powers = [np.exp(logits - logits.max(axis=1, keepdims=True)) for logits in said]
                shares = [power / power.sum(axis=1, keepdims=True) for power in powers]
                yield x, (y + np.mean(shares, axis=0)) / 2 if shares else y

    labels = parse_labels("commands-8")
    with (
        tempfile.TemporaryDirectory() as folder,
        unittest.mock.patch.object(trainer, "ClipSource", Source),
    ):
        trainer.train(recordings, labels, config, Path(folder), speech=spoken)
        yield Path(folder)


def _kept(file: Path | None, batches: "Iterator[Batch]") -> "Iterator[Batch]":
    if file is None:
        yield from batches
        return
    if not file.exists():
        x, y = map(np.stack, zip(*batches, strict=True))
        with replacing(file) as part:
            np.savez(part, x=x, y=y)
    with np.load(file) as kept:
        yield from zip(kept["x"], kept["y"], strict=True)


def _measured(file: Path, recordings: "Recordings", unheard: "ContinuousSpeech") -> dict[str, Any]:
    from speech.audio import to_float
    from speech.data.datasets import parse_labels
    from speech.data.evaluation_set import evaluation_set
    from speech.evaluation.metrics import clip_metrics
    from speech.evaluation.robustness import conditions, false_accepts_on_noise
    from speech.model import load_model
    from speech.recognizer import load

    labels = parse_labels("commands-8")
    recognizer = load(file)
    clips = evaluation_set(recordings, labels)
    metrics = clip_metrics(recognizer.probabilities(clips.waveforms), clips.truth, labels.labels)
    recall = dict(zip(metrics.labels, metrics.recall, strict=True))
    strange = [
        i
        for i, c in enumerate(recordings.corpus.clips)
        if c.word in HELD_OUT and c.split != "train"
    ]
    starts = np.random.default_rng(0).integers(len(unheard.samples) - 16_000, size=2_000)
    windows = np.stack([unheard.samples[s : s + recordings.samples.shape[1]] for s in starts])

    def commanded(samples: Any) -> float:
        called = recognizer.probabilities(to_float(samples)).argmax(axis=1)
        return float(np.mean(called < len(labels.words)))

    worse = {
        c.name: c.accuracy
        for c in conditions(recognizer, recordings, clips, only=("telephone", "10 dB SNR"))
    }
    empty = list(false_accepts_on_noise(recognizer))
    return {
        "parameters": load_model(file).count_params(),
        "accuracy": metrics.accuracy,
        "unknown": recall["unknown"],
        "commands": float(np.mean([recall[word] for word in labels.words])),
        "held_out": 1 - commanded(recordings.samples[strange]),
        "speech": commanded(windows),
        "rooms": sum(r.false_accepts for r in empty) / sum(r.n for r in empty),
        "telephone": worse["telephone band (8 kHz)"],
        "noise": worse["noise, 10 dB SNR"],
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
    for row in sorted(rows, key=lambda row: list(LONG).index(row["variant"])):
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


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name)


if __name__ == "__main__":
    main()
