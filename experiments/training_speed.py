"""Does the network wait for its data, and how many threads should each of them have?

NumPy's BLAS is a small part of making the data, but its threads wait for more work in a loop. Each
row is a process of its own, since TensorFlow reads its thread counts once.

Usage: python experiments/training_speed.py CORPUS
"""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from speech.environment import share_cores

if TYPE_CHECKING:
    from speech.training.batches import Batch, ClipSource
    from speech.training.network import TrainingModel

STEPS, RUNS = 20, 5


def measure(root: Path) -> None:
    """Print one row: clips/s of the network alone, of the data alone, and of both."""
    share_cores()
    from speech.data.corpus import index_corpus
    from speech.data.datasets import parse_labels
    from speech.data.recordings import decode
    from speech.model import CommandModel
    from speech.training.batches import ClipSource
    from speech.training.config import TrainConfig
    from speech.training.network import TrainingModel
    from speech.training.sources import with_sources
    from speech.training.trainer import compile_model

    config = TrainConfig()
    labels = parse_labels("commands-8")
    recordings = decode(index_corpus(root), config.features)
    source = ClipSource(with_sources(recordings, config.features), labels, config)
    commands = CommandModel(labels.labels, config.features, config.architecture)
    model = TrainingModel(commands, len(source.vocabulary))
    compile_model(model, config, source.steps())
    batches = [batch for _, batch in zip(range(3), source.batches(0), strict=False)]
    for batch in batches:
        train_step(model, batch)
    rates = [training_rates(model, source, batches[0], STEPS) for _ in range(RUNS)]
    columns = zip(*(speeds for speeds, _ in rates), strict=True)
    cells = [f"{min(column):.0f} to {max(column):.0f}" for column in columns]
    shares = sorted(both / network for (network, _, both), _ in rates)
    cells.append(f"{shares[RUNS // 2]:.0%} ({shares[0]:.0%} to {shares[-1]:.0%})")
    cells.append(f"{max(waiting for _, waiting in rates):.1%}")
    threads = (os.environ["TF_NUM_INTRAOP_THREADS"], os.environ["OPENBLAS_NUM_THREADS"])
    print("|", " | ".join((*threads, *cells)), "|")


def train_step(model: "TrainingModel", batch: "Batch") -> None:
    """One step, as in training."""
    model.train_on_batch(batch.features, {"labels": batch.labels, "words": batch.words})


def training_rates(
    model: "TrainingModel", source: "ClipSource", batch: "Batch", steps: int
) -> tuple[list[float], float]:
    """Clips per second of the network alone, of its data alone, and of both as in training.

    Args:
        model: Compiled.
        source: Source of the batches.
        batch: One of them, for the network alone.
        steps: Number of batches for each.

    Returns:
        The three rates, and the share of the time in which the third waited for data.
    """
    from speech.training.batches import prefetch

    clock = [time.perf_counter()]
    for _ in range(steps):
        train_step(model, batch)
    clock.append(time.perf_counter())
    for _ in zip(range(steps), source.batches(1), strict=False):
        pass
    clock.append(time.perf_counter())
    waited, ahead = 0.0, prefetch(source.batches(2))
    for _ in range(steps):
        asked = time.perf_counter()
        made = next(ahead)
        waited += time.perf_counter() - asked
        train_step(model, made)
    clock.append(time.perf_counter())
    ahead.close()
    rates = steps * source.config.batch_size / np.diff(clock)
    return rates.tolist(), waited / (clock[3] - clock[2])


def main(root: Path) -> None:
    """Print the Markdown table."""
    print(
        "| Threads of the network | Threads of NumPy's BLAS | Network alone | Data alone | Both | "
        "Both, of the network alone | Waiting, at most |"
    )
    print("| ---: |" + " ---: |" * 6, flush=True)
    for network, blas in (("1", "1"), ("1", "2"), ("2", "1")):
        threads = {"TF_NUM_INTRAOP_THREADS": network, "OPENBLAS_NUM_THREADS": blas}
        command = [sys.executable, __file__, str(root), "row"]
        subprocess.run(command, check=True, env=os.environ | threads, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    measure(Path(sys.argv[1])) if sys.argv[2:] == ["row"] else main(Path(sys.argv[1]))
