"""What will the recipes take on the whole corpus of 105,829 clips, in time and in memory?

The first table trains one epoch of each recipe on a corpus at hand, which may be a part of it:
words that it lacks are left out, and clips a second tell how long all epochs will take. The second
one shows that memory does not grow with the corpus: it generates a tenth of so many clips of noise,
and all of them, and trains an epoch of words-35 on each. Memory is what the process owns
(anonymous), and what the system maps of the decoded corpus, which it takes back when it wants it.

Usage: python experiments/whole_corpus.py CORPUS [CLIPS]
"""

import dataclasses
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from speech.environment import share_cores

if TYPE_CHECKING:
    from speech.labels import LabelSet
    from speech.training.config import TrainConfig

WHOLE = 105_829
RECIPES = ("commands-8", "commands-12", "words-35")


def main(root: Path, n_clips: int) -> None:
    """Print both tables as Markdown."""
    share_cores()
    print("| Recipe | Classes here | Parameters | Clips/s | All epochs | Own memory, peak |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |", flush=True)
    for name in RECIPES:
        alone(lambda name=name: recipe_row(root, name))  # type: ignore[misc]
    print("\n| Clips | Decoding | Own memory, peak | Mapped from disk, peak | Clips/s |")
    print("| ---: | ---: | ---: | ---: | ---: |", flush=True)
    for n in (n_clips // 10, n_clips):
        alone(lambda n=n: generated_row(n))  # type: ignore[misc]


def alone(work: Callable[[], None]) -> None:
    """In a process of its own: a peak never falls."""
    child = os.fork()
    if not child:
        work()
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        sys.exit("the run failed")


def recipe_row(root: Path, name: str) -> None:
    """Train one epoch of a recipe on the words that are there."""
    from speech.data.corpus import index_corpus
    from speech.data.datasets import parse_labels
    from speech.training.recipes import read_recipe

    text, config = read_recipe(name)
    labels = parse_labels(text)
    words = {clip.word for clip in index_corpus(root).clips if clip.split == "train"}
    there = dataclasses.replace(labels, words=tuple(w for w in labels.words if w in words))
    run = trained(root, there, config, None)
    hours = config.epochs * config.epoch_clips / run.clips_per_second / 3600
    row = (f"{len(there.labels)} of {len(labels.labels)}", f"{run.parameters:,}")
    speed = (f"{run.clips_per_second:.0f}", f"{hours:.1f} h", gib(run.peaks["RssAnon"]))
    print(f"| {name} | {' | '.join((*row, *speed))} |", flush=True)


def generated_row(n_clips: int) -> None:
    """Train one epoch of words-35 on clips of noise."""
    import soundfile

    from speech.data.datasets import parse_labels
    from speech.training.recipes import read_recipe

    text, config = read_recipe("words-35")
    labels = parse_labels(text)
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "corpus"
        noise = rng.normal(0, 3_000, 32_000).astype(np.int16)
        for name in (*labels.words, "_background_noise_"):
            (root / name).mkdir(parents=True)
        soundfile.write(root / "_background_noise_" / "hiss.wav", np.tile(noise, 10), 16_000)
        for i in range(n_clips):
            start = int(rng.integers(16_000))
            word = labels.words[i % len(labels.words)]
            path = root / word / f"{rng.integers(2**32):08x}_nohash_{i % 5}.wav"
            soundfile.write(path, noise[start : start + 16_000], 16_000)
        run = trained(root, labels, config, Path(folder) / "cache")
    own, mapped = gib(run.peaks["RssAnon"]), gib(run.peaks["RssFile"])
    row = (f"{run.clips:,}", f"{run.decoding:.0f} s", own, mapped, f"{run.clips_per_second:.0f}")
    print(f"| {' | '.join(row)} |", flush=True)


@dataclasses.dataclass(frozen=True)
class Run:
    """What one epoch took."""

    clips: int
    parameters: int
    decoding: float
    clips_per_second: float
    peaks: dict[str, int]


def trained(root: Path, labels: "LabelSet", config: "TrainConfig", cache: Path | None) -> Run:
    """One epoch of a recipe, watched; where ``cache`` is None, in the usual one."""
    from speech.data.corpus import index_corpus
    from speech.data.recordings import decode
    from speech.training.sources import with_sources
    from speech.training.trainer import train

    config = dataclasses.replace(config, epochs=1)
    peaks = {"RssAnon": 0, "RssFile": 0}
    threading.Thread(target=watch, args=(peaks,), daemon=True).start()
    began = time.perf_counter()
    recordings = decode(index_corpus(root), config.features, cache)
    decoding = time.perf_counter() - began
    with tempfile.TemporaryDirectory() as folder:
        data = with_sources(recordings, config.features)
        model = train(data, labels, config, Path(folder))
        (epoch,) = json.loads((Path(folder) / "history.json").read_text("utf-8"))
    return Run(
        clips=len(recordings.corpus.clips),
        parameters=model.count_params(),
        decoding=decoding,
        clips_per_second=epoch["clips_per_second"],
        peaks=peaks,
    )


def watch(peaks: dict[str, int]) -> None:
    """Note the most that this process had, in KiB."""
    while True:
        lines = Path("/proc/self/status").read_text("utf-8").splitlines()
        status = dict(line.split(":", 1) for line in lines)
        for name in peaks:
            peaks[name] = max(peaks[name], int(status[name].split()[0]))
        time.sleep(0.2)


def gib(kib: int) -> str:
    """As people read it."""
    return f"{kib / 2**20:.2f} GiB"


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if sys.argv[2:] else WHOLE)
