"""What four attention heads on top of the LSTM are worth: the table in docs/recipe.md.

    python experiments/attention_heads.py SOURCES RUNS --epochs 10 --epoch-clips 16000

SOURCES is what prepare_sources.py lays out; the quick recipe trains on its Speech Commands, and
what nobody trained on then measures: accented speakers and the held-out synthetic voices. Each
training goes into a folder of RUNS, and one that is there already is not done again.
"""

import argparse
import dataclasses
import json
import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

import speech.model
from speech.audio import fit_length, load_audio
from speech.audio_files import SUFFIXES
from speech.data.corpus import index_corpus
from speech.data.datasets import parse_labels
from speech.data.recordings import decode
from speech.evaluation.markdown import table
from speech.features import mfcc
from speech.files import write_json
from speech.formats.folder import ModelFolder
from speech.labels import commands
from speech.model import AttentionPooling
from speech.training import trainer
from speech.training.recipes import read_recipe
from speech.training.sources import with_sources

RECIPE = "commands-8-quick"
SEEDS = (1, 2, 3)
# what is right of what nobody trained on: folders of SOURCES, and which of their clips
UNSEEN = {
    "held-out voices: commands": ("held_out/words", "commands"),
    "their other words not called a command": ("held_out/words", "others"),
    "accented speakers' words not called a command": ("isolated_words", "others"),
}
HEADS, KEY_UNITS = 4, 64
RESULT = "unseen.json"


class MiddleQuery(keras.layers.Layer):  # type: ignore[misc]
    """MHAtt-RNN (Rybakov et al., arXiv 2005.06720): each head asks with the state in the middle."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.heads = keras.layers.MultiHeadAttention(HEADS, KEY_UNITS)

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Create the weights for (batch, n_frames, units)."""
        self.heads.build((input_shape[0], 1, input_shape[-1]), input_shape)
        self.built = True

    def call(self, states: Any) -> Any:
        """(batch, n_frames, units) -> (batch, units)."""
        middle = ops.shape(states)[1] // 2
        return self.heads(states[:, middle : middle + 1], states)[:, 0]


KINDS: dict[str, type[keras.layers.Layer]] = {
    "one learned query, as shipped": AttentionPooling,
    "four heads, asked by the middle state (MHAtt-RNN)": MiddleQuery,
}


def unseen(model: Any, words: Path) -> dict[str, tuple[int, int]]:
    """How many clips of a folder of words are right, of how many: commands, and other words."""
    known = commands(model.labels)
    found: dict[str, list[bool]] = {"commands": [], "others": []}
    for folder in sorted(words.iterdir()):
        paths = [p for p in sorted(folder.iterdir()) if p.name.lower().endswith(SUFFIXES)]
        rate, n = model.features.sample_rate, model.features.n_samples
        clips = np.stack([fit_length(load_audio(path, rate), n) for path in paths])
        logits = ops.convert_to_numpy(model(mfcc(clips, model.features), training=False))
        said = [model.labels[i] for i in logits.argmax(axis=1)]
        if folder.name in known:
            found["commands"] += [label == folder.name for label in said]
        else:
            found["others"] += [label not in known for label in said]
    return {kind: (sum(right), len(right)) for kind, right in found.items()}


def train(kind: str, seed: int, sources: Path, run: Path, epochs: int, epoch_clips: int) -> None:
    """Train one network, and keep how it does on what nobody trained on."""
    speech.model.AttentionPooling = KINDS[kind]  # type: ignore[misc]
    labels, config = read_recipe(RECIPE)
    config = dataclasses.replace(config, seed=seed, epochs=epochs, epoch_clips=epoch_clips)
    recordings = decode(index_corpus(sources / "speech_commands"), config.features)
    data = with_sources(recordings, config.features)
    model = trainer.train(data, parse_labels(labels), config, run, resume=True)
    folders = {folder: unseen(model, sources / folder) for folder, _ in UNSEEN.values()}
    write_json(run / RESULT, {"weights": model.count_params(), "folders": folders})


def row(kind: str, runs: list[Path]) -> list[str]:
    """A line of the table."""
    found = [json.loads((run / RESULT).read_text("utf-8")) for run in runs]
    histories = [json.loads(ModelFolder(run).history.read_text("utf-8")) for run in runs]
    shares = [[max(epoch["val_accuracy"] for epoch in history) for history in histories]]
    for folder, clips in UNSEEN.values():
        counted = [one["folders"][folder][clips] for one in found]
        shares.append([right / total for right, total in counted])
    return [
        kind,
        f"{found[0]['weights']:,}",
        *(", ".join(f"{share:.1%}" for share in of_each) for of_each in shares),
    ]


def main() -> None:
    """Train what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sources", type=Path)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--epoch-clips", type=int, required=True)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    options = parser.parse_args()
    runs = {
        (kind, seed): options.runs / f"{number}-{seed}"
        for number, kind in enumerate(KINDS)
        for seed in SEEDS
    }
    os.environ |= {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.jobs, spawn, max_tasks_per_child=1) as pool:
        schedule = options.epochs, options.epoch_clips
        begun = [
            pool.submit(train, kind, seed, options.sources, run, *schedule)
            for (kind, seed), run in runs.items()
            if not (run / RESULT).exists()
        ]
        for each in begun:
            each.result()
    head = ["attention", "weights", "validation clips right", *UNSEEN]
    print(table(head, [row(kind, [runs[kind, seed] for seed in SEEDS]) for kind in KINDS]))


if __name__ == "__main__":
    main()
