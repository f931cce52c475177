"""What another last layer, or another score, is worth in telling commands from other words.

    python experiments/open_set_heads.py SAVED_MODEL SOURCES STRANGERS [--markdown FILE]

The network is frozen: its pooled states of freshly augmented training clips are computed once for
each seed, and a last layer of each kind learns from them. SOURCES is what prepare_sources.py lays
out. A clip is scored by how sure the model is of a command; what counts is how many commands are
lost where 1 % of other words are accepted, and the area under that curve. The voices in
SOURCES/held_out never trained, nor did anything in STRANGERS.
"""

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from speech.audio import fit_length, load_audio, to_float
from speech.audio_files import SUFFIXES
from speech.data.corpus import index_corpus
from speech.data.recordings import decode
from speech.evaluation.markdown import table
from speech.evaluation.metrics import auroc
from speech.features import mfcc
from speech.formats.backends import load_keras
from speech.formats.folder import ModelFolder
from speech.labels import LabelSet, commands
from speech.model import CommandModel
from speech.training.batches import ClipSource, prefetch
from speech.training.ops import compiled
from speech.training.recipes import read_recipe, read_sources
from speech.training.sources import Source, load_sources

RECIPE = str(Path(__file__).with_name("many_sources.toml"))
Array = npt.NDArray[Any]
SEEDS = (1, 2, 3)
N_CLIPS = 16_384  # augmented, of each seed
CLUSTERS = (4, 16)
RATE = 0.01  # of other words that are accepted


@dataclasses.dataclass(frozen=True)
class Clips:
    """Pooled states (n, 256) of clips, and the column of each one's label, -1 where it has none."""

    states: Array
    truth: Array


def states_of(model: CommandModel, waveforms: Array) -> Array:
    """float32 (n, n_samples) -> pooled states (n, 256)."""
    embed = compiled(lambda x: model.embed(x, training=False))
    parts = [
        keras.ops.convert_to_numpy(embed(mfcc(waveforms[i : i + 256], model.features)))
        for i in range(0, len(waveforms), 256)
    ]
    return np.concatenate(parts)


def augmented(model: CommandModel, root: Path, seed: int) -> Clips:
    """Training clips as the bundled model's recipe makes them, by the seed."""
    _, config = read_recipe(RECIPE)
    config = dataclasses.replace(config, seed=seed, epoch_clips=N_CLIPS, batch_size=256)
    more = read_sources(RECIPE)
    paths = [Source(str(root / "speech_commands"))]
    paths += [dataclasses.replace(s, path=str(root / s.name)) for s in more]
    source = ClipSource(
        load_sources(paths, config.features), LabelSet.of_model("commands-8", model.labels), config
    )
    embed = compiled(lambda x: model.embed(x, training=False))
    states, truth = [], []
    for batch in prefetch(source.batches(0)):
        states.append(keras.ops.convert_to_numpy(embed(batch.features)))
        truth.append(batch.labels.argmax(axis=1))
    return Clips(np.concatenate(states), np.concatenate(truth))


def folder_clips(model: CommandModel, folder: Path) -> Clips:
    """Every clip below a folder, by the name of the folder that it lies in; rooms are left out."""
    waveforms, truth = [], []
    for path in sorted(folder.rglob("*")):
        if path.name.lower().endswith(SUFFIXES) and path.parent.name != "room":
            sound = load_audio(path, model.features.sample_rate, max_seconds=600)
            waveforms.append(fit_length(sound, model.features.n_samples))
            word = path.parent.name
            truth.append(model.labels.index(word) if word in commands(model.labels) else -1)
    return Clips(states_of(model, np.stack(waveforms)), np.array(truth))


def validation_clips(model: CommandModel, root: Path) -> Clips:
    """The validation speakers of the corpus."""
    recordings = decode(index_corpus(root / "speech_commands"), model.features)
    rows = [i for i, clip in enumerate(recordings.corpus.clips) if clip.split == "validation"]
    words = [recordings.corpus.clips[i].word for i in rows]
    known = commands(model.labels)
    truth = np.array([model.labels.index(w) if w in known else -1 for w in words])
    return Clips(states_of(model, to_float(recordings.samples[rows])), truth)


def train_layer(clips: Clips, targets: Array, loss: str, seed: int) -> Callable[[Array], Array]:
    """A dense layer on standardized states that learns targets (n, k); gives logits."""
    keras.utils.set_random_seed(seed)
    mean, scale = clips.states.mean(axis=0), clips.states.std(axis=0) + 1e-6
    layer = keras.Sequential([keras.layers.Input((clips.states.shape[1],))])
    layer.add(keras.layers.Dense(targets.shape[1]))
    losses = {
        "softmax": keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.05),
        "sigmoid": keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=0.05),
    }
    layer.compile(keras.optimizers.AdamW(3e-3, weight_decay=1e-3), losses[loss])
    x = (clips.states - mean) / scale
    layer.fit(x, targets, batch_size=512, epochs=12, verbose=0)
    kernel, bias = layer.layers[-1].get_weights()
    return lambda states: (states - mean) / scale @ kernel + bias


def clustered(clips: Clips, unknown: int, n_classes: int, k: int, seed: int) -> Array:
    """One-hot targets in which ``unknown`` is divided into k classes by k-means."""
    rng = np.random.default_rng(seed)
    mine = np.flatnonzero(clips.truth == unknown)
    x = clips.states[mine] / np.linalg.norm(clips.states[mine], axis=1, keepdims=True)
    centers = x[rng.choice(len(x), k, replace=False)]
    for _ in range(20):
        nearest = (x @ centers.T).argmax(axis=1)
        sums = np.stack([x[nearest == j].sum(axis=0) for j in range(k)])
        centers = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-9)
    column = clips.truth.copy()
    column[mine] = np.where(nearest == 0, unknown, n_classes + nearest - 1)
    return np.eye(n_classes + k - 1, dtype=np.float32)[column]


def scores_of(kind: str, logits: Array, model: CommandModel) -> dict[str, Array]:
    """How sure of a command each clip is, by the ways that this kind of layer allows."""
    mine = [model.labels.index(c) for c in commands(model.labels)]
    rest = [i for i in range(logits.shape[1]) if i not in mine]
    known = logits[:, mine]
    if kind == "one logistic unit a command":
        return {"probability": known.max(axis=1)}
    others = np.logaddexp.reduce(logits[:, rest], axis=1)
    everything = np.logaddexp(others, np.logaddexp.reduce(known, axis=1))
    two = np.sort(logits, axis=1)
    return {
        "probability": known.max(axis=1) - everything,
        "energy": np.logaddexp.reduce(known, axis=1),
        "commands against the rest": np.logaddexp.reduce(known, axis=1) - others,
        "margin": np.where(
            np.isin(logits.argmax(axis=1), mine), two[:, -1] - two[:, -2], two[:, -2] - two[:, -1]
        ),
    }


def figures(kind: str, layer: Callable[[Array], Array], sets: dict[str, Clips], model: Any) -> Any:
    """By score and set: accuracy, area under the curve, and commands lost at ``RATE``."""
    result: dict[str, dict[str, tuple[float, float, float]]] = {}
    mine = [model.labels.index(c) for c in commands(model.labels)]
    for name, clips in sets.items():
        logits = layer(clips.states)
        is_known = clips.truth >= 0
        right = np.array(mine)[logits[:, mine].argmax(axis=1)] == clips.truth
        for score, values in scores_of(kind, logits, model).items():
            limit = np.quantile(values[~is_known], 1 - RATE, method="higher")
            found = (values > limit) & right
            result.setdefault(score, {})[name] = (
                float(right[is_known].mean()),
                auroc(values[is_known], values[~is_known]),
                float(1 - found[is_known].mean()),
            )
    return result


def main() -> None:
    """Print one row for each layer and score: the mean and the spread over the seeds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("sources", type=Path)
    parser.add_argument("strangers", type=Path)
    parser.add_argument("--markdown", type=Path, help="write the table to this file, too")
    options = parser.parse_args()
    model = load_keras(ModelFolder(options.model).keras)
    labels = model.labels
    unknown, n = labels.index("unknown"), len(labels)
    sets = {
        "validation": validation_clips(model, options.sources),
        "held-out voices": folder_clips(model, options.sources / "held_out" / "words"),
        "strangers": folder_clips(model, options.strangers),
    }
    kernel, bias = model.classifier.get_weights()
    found: dict[tuple[str, str], list[dict[str, tuple[float, float, float]]]] = {}

    def add(kind: str, layer: Callable[[Array], Array]) -> None:
        for score, row in figures(kind, layer, sets, model).items():
            found.setdefault((kind, score), []).append(row)

    add("as it ships", lambda states: states @ kernel + bias)
    for seed in SEEDS:
        clips = augmented(model, options.sources, seed)
        one_hot = np.eye(n, dtype=np.float32)[clips.truth]
        add("softmax, learned again", train_layer(clips, one_hot, "softmax", seed))
        add("one logistic unit a command", train_layer(clips, one_hot, "sigmoid", seed))
        for k in CLUSTERS:
            targets = clustered(clips, unknown, n, k, seed)
            add(f"{k} classes of unknown", train_layer(clips, targets, "softmax", seed))
    head = ["last layer", "score"]
    head += [f"{name}: {what}" for name in sets for what in ("AUROC", "lost at 1 %")]
    rows = [
        [kind, score, *(cell(runs, name, i) for name in sets for i in (1, 2))]
        for (kind, score), runs in found.items()
    ]
    text = table(head, rows)
    print(text)
    if options.markdown:
        options.markdown.write_text(text + "\n", "utf-8")


def cell(runs: list[dict[str, tuple[float, float, float]]], name: str, index: int) -> str:
    """The mean over the seeds, and the largest distance between them."""
    values = np.array([run[name][index] for run in runs])
    digits = "{:.3f}" if index == 1 else "{:.1%}"
    spread = f" (spread {digits.format(np.ptp(values))})" if len(values) > 1 else ""
    return digits.format(values.mean()) + spread


if __name__ == "__main__":
    main()
